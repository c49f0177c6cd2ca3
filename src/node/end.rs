//! The two ends of a proxied connection, and how it ends: half-close, reset, error.
//!
//! A socket's error is consumed by whichever pump's call meets it first. So a pump whose write fails says nothing by
//! itself: it marks the end as dead, and the pump that reads there finds what the peer had still to say, then the death.
//! Only where reading was over already does the writer speak. A read of 0 is a half-close only if the pair has not
//! failed and the kernel does not call the socket closed.

use crate::node::connection_log::ConnectionLog;
use crate::node::pair::EndPair;
use crate::session::connection_record::{ConnectionSide, EndRecord};
use crate::sync::lock;
use crate::sys::{self, receive};
use crate::time::{Nanos, WallTime};
use crate::wire::authentication::{make_room, Sealer, Sealing, Verifier, TAG_LEN};
use crate::wire::{Header, ParseError};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{fence, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::{Duration, Instant};

/// Reports that wait for the write half of a framed end while the other pump is in it. With one report per 10 ms a
/// connection fills this in 80 ms of a blocked write; more would be old news, and cost every connection memory.
const REPORTS: usize = 8;

/// How long a blocked send sleeps before it looks whether the pair has failed.
pub(super) const LONGEST_TICK: Duration = Duration::from_secs(1);

/// A reader that pauses is told of at most this often per connection: a kernel whose reader hardly reads takes a little now
/// and then, and every block of that would be a line.
const STALLS_TOLD: Duration = Duration::from_secs(60);

/// Reports are gathered into one send up to this size; even a socket that is hardly writable takes as much.
const SMALL_SEND: usize = 2048;

const READING_OVER: u8 = 1;
const DEAD: u8 = 2;
const WRITING_OVER: u8 = 4;
const TORN: u8 = 8;
const FRAMED: u8 = 16;
const HALF_DONE: u8 = 32;
const ARRIVALS: u8 = 64;

/// Why a write ended early.
#[derive(Debug)]
pub enum WriteFault {
    /// The other pump failed the pair.
    Aborted,
    /// The peer is gone; the pump that reads this end tells why, unless `alone`.
    Dead {
        /// Reading is over, so nobody else will tell.
        alone: bool,
        /// What the kernel said.
        error: io::Error,
    },
    /// No byte moved for the time allowed (only where [`Patience::Limited`]).
    Timeout,
    /// The client reset the connection while the server would not take more.
    SourceReset,
}

/// What a write does when the peer does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Logs it, once a minute at most, and goes on: a proxied connection whose reader pauses.
    Unlimited,
    /// Gives up: source and probe.
    Limited,
}

type ReportQueue = (Sender<Vec<u8>>, Receiver<Vec<u8>>);

/// One socket of a pair.
#[derive(Debug)]
pub struct End {
    /// The socket, shared by reference: a second descriptor would keep it open after a reset.
    pub socket: TcpStream,
    /// Its peer, for messages.
    pub peer: SocketAddr,
    state: AtomicU8,
    writing: Mutex<()>,
    /// When it was last said that the peer does not read.
    stall_told: Mutex<Option<Instant>>,
    reports: OnceLock<ReportQueue>,
    link: OnceLock<AuthenticatedLink>,
    connection_log: OnceLock<(ConnectionSide, Arc<ConnectionLog>)>,
}

/// The authentication of a link, where both of its nodes have a key.
#[derive(Debug)]
pub struct AuthenticatedLink {
    sealer: Mutex<Sealer>,
    verifier: Mutex<Verifier>,
}

impl AuthenticatedLink {
    pub(crate) fn new(sealer: Sealer, verifier: Verifier) -> Self {
        Self {
            sealer: Mutex::new(sealer),
            verifier: Mutex::new(verifier),
        }
    }
}

impl End {
    /// Takes a socket that we connected; sets no-delay, keep-alive and the tick at which blocked writes look up.
    ///
    /// # Errors
    ///
    /// Where the socket takes no options: it is closed already.
    pub fn new(socket: TcpStream, peer: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::prepare(&socket, timeout)?;
        Ok(Self::accepted(socket, peer))
    }

    /// Sets what every connection needs; a listener hands it down to what it accepts, which saves each connection the
    /// three calls.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn prepare(socket: &impl AsRawFd, timeout: Duration) -> io::Result<()> {
        sys::no_delay(socket)?;
        sys::keep_alive(socket)?;
        sys::send_timeout(socket, timeout.min(LONGEST_TICK))
    }

    /// Takes a socket whose listener was [prepared](Self::prepare).
    pub fn accepted(socket: TcpStream, peer: SocketAddr) -> Self {
        Self {
            socket,
            peer,
            state: AtomicU8::new(0),
            writing: Mutex::new(()),
            stall_told: Mutex::new(None),
            reports: OnceLock::new(),
            link: OnceLock::new(),
            connection_log: OnceLock::new(),
        }
    }

    /// From now on what happens here is noted.
    pub fn keep_diary(&self, place: ConnectionSide, connection_log: &Arc<ConnectionLog>) {
        // Set once: an end has one life.
        let _ = self.connection_log.set((place, Arc::clone(connection_log)));
    }

    /// The books of its connection; `None` where none are kept.
    pub fn connection_log(&self) -> Option<&Arc<ConnectionLog>> {
        self.connection_log
            .get()
            .map(|(_, connection_log)| connection_log)
    }

    /// Notes an event, where books are kept.
    #[inline]
    pub fn note(&self, what: impl FnOnce(&mut EndRecord, WallTime)) {
        if let Some((place, connection_log)) = self.connection_log.get() {
            connection_log.note(*place, what);
        }
    }

    /// The peer is another node; without this it is sent plain bytes only.
    pub fn set_framed(&self) {
        self.mark(FRAMED);
    }

    /// Whether the peer is another node.
    pub fn is_framed(&self) -> bool {
        self.is(FRAMED)
    }

    /// Asks the kernel when what is read here arrived. A kernel that does not tell is no error: then it is not known.
    pub fn keep_arrivals(&self) {
        if receive::keep_arrivals(&self.socket).is_ok() {
            self.mark(ARRIVALS);
        }
    }

    /// As [`keep_arrivals`](Self::keep_arrivals), where the listener was asked already: it hands that down.
    #[must_use]
    pub fn with_arrivals(self, kept: bool) -> Self {
        if kept {
            self.mark(ARRIVALS);
        }
        self
    }

    /// Whether the kernel was asked when things arrive.
    pub fn tells_arrivals(&self) -> bool {
        self.is(ARRIVALS)
    }

    /// From now on every frame in and out has its trailer.
    pub fn set_link(&self, link: AuthenticatedLink) {
        // A connection has one handshake.
        let _ = self.link.set(link);
    }

    /// Bytes of the trailer of the frames that go out here.
    pub fn tag_len(&self) -> usize {
        self.link.get().map_or(0, |_| TAG_LEN)
    }

    /// `frame` with room for the trailer, if there is one.
    pub fn with_room(&self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.link.get().is_some() {
            make_room(&mut frame);
        }
        frame
    }

    /// Hashes a frame for its trailer, all but its egress time. The holder of the write half calls this, in the order in
    /// which frames are sent; `None` where the link has no key.
    pub fn begin_seal(&self, header: &Header, frame: &[u8]) -> Option<Sealing> {
        let link = self.link.get()?;
        Some(lock(&link.sealer).begin(header, frame))
    }

    /// Writes the trailer of a frame whose egress time stands, if it has one; as [`begin_seal`](Self::begin_seal).
    pub fn seal(&self, frame: &mut [u8]) {
        if let Some(link) = self.link.get() {
            lock(&link.sealer).seal(frame);
        }
    }

    /// Whether the next frame that was read is what the peer has sealed; `frame` may be longer.
    ///
    /// # Errors
    ///
    /// As [`Verifier::check`].
    pub fn verify(&self, header: &Header, frame: &[u8]) -> Result<(), ParseError> {
        match self.link.get() {
            Some(link) => lock(&link.verifier).check(header, &frame[..header.frame_len()]),
            None => Ok(()),
        }
    }

    /// Gives a framed end a queue for reports: an exit's has two writers.
    pub fn queue_reports(&self) {
        self.reports.get_or_init(|| bounded(REPORTS));
    }

    fn mark(&self, bit: u8) -> u8 {
        self.state.fetch_or(bit, Ordering::SeqCst)
    }

    fn is(&self, bit: u8) -> bool {
        self.state.load(Ordering::SeqCst) & bit != 0
    }

    /// Reading came to an end of file; `true` where a writer has found the peer dead before: then it was no half-close.
    pub fn reading_over(&self) -> bool {
        self.mark(READING_OVER) & DEAD != 0
    }

    /// Whether a read of 0 bytes here is the remains of a reset that a writer consumed.
    pub fn is_reset(&self) -> bool {
        self.is(DEAD) || (!self.is(WRITING_OVER) && sys::is_closed(&self.socket) == Some(true))
    }

    /// Whether an end was passed on here.
    pub fn is_writing_over(&self) -> bool {
        self.is(WRITING_OVER)
    }

    /// The last frame is about to be sent. Before it is: the peer may answer it with its close at once.
    pub fn end_writing(&self) {
        self.mark(WRITING_OVER);
    }

    /// Passes a half-close on.
    pub fn shut_writing(&self) {
        self.mark(WRITING_OVER);
        // Fails only where the peer is gone; the reader finds that out.
        let _ = self.socket.shutdown(Shutdown::Write);
        self.note(|end, now| {
            end.fin_sent.get_or_insert(now);
        });
    }

    /// One of the two writers is done; the second to say so passes the end on.
    pub fn writer_done(&self) {
        if self.mark(HALF_DONE) & HALF_DONE != 0 {
            self.shut_writing();
        }
    }

    /// The write half, for whole frames.
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        lock(&self.writing)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, ()>> {
        match self.writing.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Sends all of `bytes`; adds the time it was blocked to `held`. The caller holds the lock where there are two
    /// writers.
    ///
    /// The first call never waits and needs no clock; only where the kernel has no room is the waiting timed.
    ///
    /// # Errors
    ///
    /// [`WriteFault`].
    pub fn send(
        &self,
        pair: &EndPair,
        bytes: &[u8],
        held: &mut Nanos,
        patience: Patience,
    ) -> Result<(), WriteFault> {
        match sys::send_now(&self.socket, bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(sent) => self.send_blocked(pair, &bytes[sent..], held, patience),
            Err(error) if is_passing(&error) => self.send_blocked(pair, bytes, held, patience),
            Err(error) => Err(self.dead(error)),
        }?;
        self.note(|end, now| end.send(now, bytes.len()));
        Ok(())
    }

    #[inline(never)]
    fn send_blocked(
        &self,
        pair: &EndPair,
        mut bytes: &[u8],
        held: &mut Nanos,
        patience: Patience,
    ) -> Result<(), WriteFault> {
        let begun = Instant::now();
        pair.blocked.fetch_add(1, Ordering::AcqRel);
        let mut progress = begun;
        let outcome = loop {
            if bytes.is_empty() {
                break Ok(());
            }
            if pair.has_failed() {
                self.mark(TORN);
                break Err(WriteFault::Aborted);
            }
            match sys::send_waiting(&self.socket, bytes) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    progress = Instant::now();
                    pair.moved.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if is_passing(&error) => {
                    // Nobody reads from the client while its pump is here. (A server that reset is different: what it
                    // had said before is still to be delivered.)
                    if !std::ptr::eq(self, &pair.client) && pair.client.is_reset() {
                        self.mark(TORN);
                        break Err(WriteFault::SourceReset);
                    }
                    if progress.elapsed() >= pair.timeout {
                        if patience == Patience::Limited {
                            self.mark(TORN);
                            break Err(WriteFault::Timeout);
                        }
                        self.tell_stall(pair.timeout);
                    }
                }
                Err(error) => break Err(self.dead(error)),
            }
        };
        pair.blocked.fetch_sub(1, Ordering::AcqRel);
        *held += begun.elapsed().into();
        outcome
    }

    #[cold]
    #[inline(never)]
    fn tell_stall(&self, timeout: Duration) {
        let mut told = lock(&self.stall_told);
        if told.map_or(true, |at| at.elapsed() >= STALLS_TOLD) {
            *told = Some(Instant::now());
            log::warn!(
                "peer {}: has read nothing for {} s, still waiting",
                self.peer,
                timeout.as_secs_f64()
            );
        }
    }

    fn dead(&self, error: io::Error) -> WriteFault {
        self.note(|end, now| {
            end.rst_received.get_or_insert(now);
        });
        WriteFault::Dead {
            alone: self.mark(DEAD) & READING_OVER != 0,
            error,
        }
    }

    /// Offers a report to the write half; `false` where the queue is full and it was dropped. Never waits.
    pub fn offer(&self, report: Vec<u8>) -> bool {
        self.reports
            .get()
            .is_some_and(|(offer, _)| offer.try_send(report).is_ok())
    }

    /// Sends the reports that wait, as long as nobody else is writing and the kernel has room; `finish` is called on
    /// each just before it is sent, for its egress stamp and its trailer.
    ///
    /// Only the pump that writes here anyway `waits` for room: behind each of its blocks a slow reader's socket is full, and
    /// no report would go out before the reader has caught up and more is written. It waits for one send, so that reports
    /// never keep data from being read.
    pub fn drain_reports(
        &self,
        pair: &EndPair,
        mut waits: bool,
        mut finish: impl FnMut(&mut [u8]),
    ) {
        let Some((_, reports)) = self.reports.get() else {
            return;
        };
        // Whoever finds the lock taken leaves its report to the holder, who looks at the queue again after unlocking.
        // The fences order "queue, then lock" here against "unlock, then queue" there.
        loop {
            fence(Ordering::SeqCst);
            if reports.is_empty() {
                return;
            }
            let Some(guard) = self.try_lock() else {
                return;
            };
            while !reports.is_empty() {
                if !std::mem::take(&mut waits) && !sys::is_writable(&self.socket) {
                    return; // The next write of the other pump takes them along.
                }
                // All that wait, in one send, as far as they fit a socket that has little room.
                let mut frames = Vec::new();
                let mut start = 0;
                let mut ends = Vec::new();
                while frames.len() < SMALL_SEND {
                    let Ok(report) = reports.try_recv() else {
                        break;
                    };
                    frames.extend_from_slice(&report);
                    ends.push(frames.len());
                }
                for end in ends {
                    finish(&mut frames[start..end]);
                    start = end;
                }
                // Where there is room (a third of the buffer is free, and even a report full of facts is 20 KiB) this waits, if
                // ever, for the end of a frame. A fault is the reader's to tell.
                let (held, patience) = (&mut Nanos::default(), Patience::Unlimited);
                if self.send(pair, &frames, held, patience).is_err() {
                    return;
                }
            }
            drop(guard);
        }
    }

    /// The next report that waits; for the holder of the write half.
    pub fn take_report(&self) -> Option<Vec<u8>> {
        self.reports.get()?.1.try_recv().ok()
    }

    /// A last word to a framed peer, if the write half is whole, and free, or `wait` says to wait for it: once the pair has
    /// failed, whoever is in it leaves with its frame sent or within a second.
    pub fn send_last(&self, frame: Vec<u8>, wait: bool) -> bool {
        if !self.is_framed() || self.is(TORN | DEAD | WRITING_OVER) {
            return false;
        }
        let guard = if wait {
            Some(self.lock())
        } else {
            self.try_lock()
        };
        if guard.is_none() || self.is(TORN | DEAD | WRITING_OVER) {
            return false;
        }
        let mut frame = self.with_room(frame);
        self.seal(&mut frame);
        // Nothing follows it, so a part of it does no harm.
        sys::send_now(&self.socket, &frame).is_ok_and(|sent| sent == frame.len())
    }

    pub(super) fn abort(&self) {
        // All of these fail only on a socket that is gone already. The shutdown wakes a reader and sends nothing; a pump
        // that waits for the close of a half-closed socket is woken by the reset alone, which would leave only when its
        // tick ends. Where the kernel refuses that, the close does it.
        let _ = sys::reset_on_close(&self.socket);
        let _ = self.socket.shutdown(Shutdown::Read);
        let _ = sys::reset_now(&self.socket);
        self.note(|end, now| {
            let over = end.fin_received.is_some() && end.fin_sent.is_some();
            if end.rst_received.is_none() && !over {
                end.rst_sent.get_or_insert(now);
            }
        });
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    ) && error.raw_os_error() != Some(ETIMEDOUT)
        && error.raw_os_error() != Some(ETIMEDOUT_MIPS)
}

/// The kernel's own timeout of a connection, which ends it, shares its kind with a receive timeout, which does not.
const ETIMEDOUT: i32 = 110;
const ETIMEDOUT_MIPS: i32 = 145;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn reports_follow_the_block_behind_which_they_waited_also_to_a_slow_reader() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let long = Duration::from_secs(10);
        let pair = EndPair::new(1, End::new(socket, peer, long).unwrap(), long);
        let client = &pair.client;
        client.queue_reports();
        let guard = client.lock();
        while sys::send_now(&client.socket, &[0; 4096]).is_ok() {}
        assert!(client.offer(vec![7; 100]));
        client.drain_reports(&pair, false, |_| ()); // The up pump leaves it to the one in the write half.
        drop(guard);
        client.drain_reports(&pair, false, |_| ()); // It never waits.
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| client.drain_reports(&pair, true, |_| ()));
            while pair.blocked.load(Ordering::Acquire) == 0 && !writer.is_finished() {
                std::thread::yield_now();
            }
            scope.spawn(|| reader.read_to_end(&mut seen).unwrap());
            writer.join().unwrap();
            client.shut_writing();
        });
        assert!(seen.ends_with(&[7; 100]));
    }
}
