//! One end of a proxied connection, and how it ends: half-close, reset, error.
//!
//! A socket's error is consumed by the pump whose call meets it first. So a pump whose write fails
//! does not report it: it marks the end as dead. The pump that reads there delivers what the peer
//! had sent before, then reports the fault. Only if reading was over already does the writer report
//! it. A read of 0 is a half-close only if the pair has not failed and the kernel does not call the
//! socket closed.

use crate::node::connection_log::ConnectionLog;
use crate::node::pair::EndPair;
use crate::session::connection_record::{ConnectionSide, EndRecord};
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::lock;
use crate::sys::{self, receive};
use crate::time::{Nanos, WallTime};
use crate::wire::authentication::{make_room, Sealer, Sealing, Verifier, TAG_LEN};
use crate::wire::{Header, ParseError};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{fence, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::{Duration, Instant};

/// The capacity of the queue of reports that wait while the other pump is writing. With one report
/// per 10 ms it lasts for 80 ms of a blocked write. More would be stale, and cost every connection
/// memory.
const REPORTS: usize = 8;

/// The longest sleep of a blocked send before it checks whether the pair has failed.
pub(super) const LONGEST_TICK: Duration = Duration::from_secs(1);

/// The least time between two log lines about a reader that pauses. A kernel whose reader hardly
/// reads takes a little now and then, and each such block would be a line.
const STALL_PAUSE: Duration = Duration::from_secs(60);

/// The size up to which reports share a send; even a socket that is hardly writable takes as much.
const SMALL_SEND: usize = 2048;

const READING_OVER: u8 = 1;
const DEAD: u8 = 2;
const WRITING_OVER: u8 = 4;
const TORN: u8 = 8;
const FRAMED: u8 = 16;
const HALF_DONE: u8 = 32;
const ARRIVALS: u8 = 64;

/// The reason why a write ended early.
#[derive(Debug)]
pub enum WriteFault {
    /// The other pump failed the pair.
    Aborted,
    /// The peer is gone; the pump that reads this end reports why, unless `alone`.
    Dead {
        /// Reading is over, so the writer has to report it.
        alone: bool,
        /// The error of the system call.
        error: io::Error,
    },
    /// No byte moved for the time allowed by [`Patience::Limited`].
    Timeout,
    /// The client reset the connection while the server would not take more.
    SourceReset,
}

/// The behaviour of a write if the peer does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It logs that, once a minute at most, and goes on: a proxied connection whose reader pauses.
    Unlimited,
    /// It gives up: source and probe.
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
    /// The time of the last log line about a peer that does not read.
    stall_logged: Mutex<Option<Instant>>,
    reports: OnceLock<ReportQueue>,
    link: OnceLock<AuthenticatedLink>,
    connection_log: OnceLock<(ConnectionSide, Arc<ConnectionLog>)>,
}

/// The authentication of a link between two nodes that have a key.
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
    /// Takes a socket that this node connected. Sets no-delay, keep-alive and the tick of blocked
    /// writes.
    ///
    /// # Errors
    ///
    /// The error of setsockopt(2), if the socket is closed already.
    pub fn new(socket: TcpStream, peer: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::prepare(&socket, timeout)?;
        Ok(Self::accepted(socket, peer))
    }

    /// Sets the options of every connection. Accepted sockets inherit them from their listener,
    /// which saves three calls for each connection.
    ///
    /// # Errors
    ///
    /// The error of setsockopt(2).
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
            stall_logged: Mutex::new(None),
            reports: OnceLock::new(),
            link: OnceLock::new(),
            connection_log: OnceLock::new(),
        }
    }

    /// Records the events of this end in `connection_log` from now on.
    pub fn set_connection_log(&self, place: ConnectionSide, connection_log: &Arc<ConnectionLog>) {
        // Set once: an end belongs to one connection.
        let _ = self.connection_log.set((place, Arc::clone(connection_log)));
    }

    /// The log of its connection; `None` without `--sessions`.
    pub fn connection_log(&self) -> Option<&Arc<ConnectionLog>> {
        self.connection_log
            .get()
            .map(|(_, connection_log)| connection_log)
    }

    /// Records an event in the connection log, if there is one.
    #[inline]
    pub fn note(&self, what: impl FnOnce(&mut EndRecord, WallTime)) {
        if let Some((place, connection_log)) = self.connection_log.get() {
            connection_log.note(*place, what);
        }
    }

    /// Marks the peer as another node; otherwise it is sent plain bytes only.
    pub fn set_framed(&self) {
        self.mark(FRAMED);
    }

    /// Returns `true` if the peer is another node.
    pub fn is_framed(&self) -> bool {
        self.is(FRAMED)
    }

    /// Requests arrival times from the kernel. They stay unknown if it has none.
    pub fn keep_arrivals(&self) {
        if receive::keep_arrivals(&self.socket).is_ok() {
            self.mark(ARRIVALS);
        }
    }

    /// Notes that arrival times were requested for the listener (`kept`), which hands that down.
    #[must_use]
    pub fn with_arrivals(self, kept: bool) -> Self {
        if kept {
            self.mark(ARRIVALS);
        }
        self
    }

    /// Returns `true` if arrival times were requested.
    pub fn has_arrivals(&self) -> bool {
        self.is(ARRIVALS)
    }

    /// Gives every frame in and out a trailer from now on.
    pub fn set_link(&self, link: AuthenticatedLink) {
        // Set once: a connection has one handshake.
        let _ = self.link.set(link);
    }

    /// Returns `true` if frames on this link are authenticated.
    pub fn has_link(&self) -> bool {
        self.link.get().is_some()
    }

    /// The length of the trailer of frames that are sent here, in bytes.
    pub fn tag_len(&self) -> usize {
        self.link.get().map_or(0, |_| TAG_LEN)
    }

    /// Returns `frame` with room for the trailer, if the link has one.
    pub fn with_room(&self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.link.get().is_some() {
            make_room(&mut frame);
        }
        frame
    }

    /// Hashes a frame for its trailer, except the egress time. Called with the write half locked,
    /// in the order of the sends. `None` if the link has no key.
    pub fn begin_seal(&self, header: &Header, frame: &[u8]) -> Option<Sealing> {
        let link = self.link.get()?;
        Some(lock(&link.sealer).begin(header, frame))
    }

    /// Writes the trailer of a frame whose egress time is final, as
    /// [`begin_seal`](Self::begin_seal).
    pub fn seal(&self, frame: &mut [u8]) {
        if let Some(link) = self.link.get() {
            lock(&link.sealer).seal(frame);
        }
    }

    /// Verifies the trailer of the next frame that was read; `frame` may be longer.
    ///
    /// # Errors
    ///
    /// Those of [`Verifier::check`].
    pub fn verify(&self, header: &Header, frame: &[u8]) -> Result<(), ParseError> {
        match self.link.get() {
            Some(link) => lock(&link.verifier).check(header, &frame[..header.frame_len()]),
            None => Ok(()),
        }
    }

    /// Gives a framed end a queue for reports: an exit's has two writers.
    pub fn queue_reports(&self) {
        self.reports.get_or_init(|| channel(REPORTS));
    }

    fn mark(&self, bit: u8) -> u8 {
        self.state.fetch_or(bit, Ordering::SeqCst)
    }

    fn is(&self, bit: u8) -> bool {
        self.state.load(Ordering::SeqCst) & bit != 0
    }

    /// Marks the end of file of the read half. Returns `true` if a writer has found the peer dead
    /// before: then it was no half-close.
    pub fn reading_over(&self) -> bool {
        self.mark(READING_OVER) & DEAD != 0
    }

    /// Returns `true` if a read of 0 bytes here follows a reset that a writer consumed.
    pub fn is_reset(&self) -> bool {
        self.is_reset_by(sys::is_closed)
    }

    /// Reads the kernel's state first. Once our FIN is sent, an orderly end closes the socket too,
    /// and the writer marks its end before it sends that FIN.
    fn is_reset_by(&self, is_closed: impl FnOnce(&TcpStream) -> Option<bool>) -> bool {
        self.is(DEAD) || (is_closed(&self.socket) == Some(true) && !self.is(WRITING_OVER))
    }

    /// Returns `true` if the write half was ended here.
    pub fn is_writing_over(&self) -> bool {
        self.is(WRITING_OVER)
    }

    /// Marks the write half as ended. Called before the last frame is sent: the peer may answer
    /// with its close at once.
    pub fn end_writing(&self) {
        self.mark(WRITING_OVER);
    }

    /// Passes a half-close on.
    pub fn shut_writing(&self) {
        self.mark(WRITING_OVER);
        // It fails only if the peer is gone, which the reader finds out.
        let _ = self.socket.shutdown(Shutdown::Write);
        self.note(|end, now| {
            end.fin_sent.get_or_insert(now);
        });
    }

    /// Marks one of the two writers as done; the second call passes the end on.
    pub fn writer_done(&self) {
        if self.mark(HALF_DONE) & HALF_DONE != 0 {
            self.shut_writing();
        }
    }

    /// Locks the write half, for whole frames.
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

    /// Sends all of `bytes` and adds the time that it was blocked to `held`. An end with two
    /// writers is locked by the caller.
    ///
    /// The first call never waits and needs no clock; only the wait for room in the kernel is
    /// timed.
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
                    // No pump reads from the client while this one waits here. A server that was
                    // reset is different: its earlier bytes are still to be delivered.
                    if !std::ptr::eq(self, &pair.client) && pair.client.is_reset() {
                        self.mark(TORN);
                        break Err(WriteFault::SourceReset);
                    }
                    if progress.elapsed() >= pair.timeout {
                        if patience == Patience::Limited {
                            self.mark(TORN);
                            break Err(WriteFault::Timeout);
                        }
                        self.log_stall(pair.timeout);
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
    fn log_stall(&self, timeout: Duration) {
        let mut logged = lock(&self.stall_logged);
        if logged.map_or(true, |at| at.elapsed() >= STALL_PAUSE) {
            *logged = Some(Instant::now());
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

    /// Offers a report to the write half. Returns `false` if the queue is full and it was dropped.
    /// Never waits.
    pub fn offer(&self, report: Vec<u8>) -> bool {
        self.reports
            .get()
            .is_some_and(|(offer, _)| offer.send(report).is_ok())
    }

    /// Sends the queued reports while the write half is free and the kernel has room. `finish` is
    /// called on each just before the send, for its egress stamp and its trailer.
    ///
    /// Only the pump that writes here anyway `waits` for room. Behind each of its blocks the socket
    /// of a slow reader is full, and no report would go out before the reader has caught up. It
    /// waits for one send, so that reports never keep data from being read.
    pub fn drain_reports(
        &self,
        pair: &EndPair,
        mut waits: bool,
        mut finish: impl FnMut(&mut [u8]),
    ) {
        let Some((_, reports)) = self.reports.get() else {
            return;
        };
        // A pump that finds the lock taken leaves its report to the holder, which checks the queue
        // again after unlocking. The fences order "queue, then lock" here against "unlock, then
        // queue" there.
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
                // All of them in one send, as far as they fit a socket that has little room.
                let mut frames = Vec::new();
                let mut start = 0;
                let mut ends = Vec::new();
                while frames.len() < SMALL_SEND {
                    let Some(report) = reports.try_recv() else {
                        break;
                    };
                    frames.extend_from_slice(&report);
                    ends.push(frames.len());
                }
                for end in ends {
                    finish(&mut frames[start..end]);
                    start = end;
                }
                // If there is room (a third of the buffer is free, and even a report full of
                // annotations is 20 KiB) this waits, if ever, for the end of a frame. The reader
                // reports a fault.
                let (held, patience) = (&mut Nanos::default(), Patience::Unlimited);
                if self.send(pair, &frames, held, patience).is_err() {
                    return;
                }
            }
            drop(guard);
        }
    }

    /// Takes the next queued report. Called with the write half locked.
    pub fn take_report(&self) -> Option<Vec<u8>> {
        self.reports.get()?.1.try_recv()
    }

    /// Sends a final frame to a framed peer, if the write half is whole and free. With `wait` it
    /// waits until that is free: once the pair has failed, the other pump leaves it within a
    /// second. Returns `true` if the frame was sent.
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
        // All of these fail only on a socket that is gone already. The shutdown wakes a reader and
        // sends nothing. A pump that waits for the close of a half-closed socket is woken by the
        // reset alone, which would leave only when its tick ends. If the kernel refuses that, the
        // close does it.
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

/// The kernel's own timeout of a connection ends it; a receive timeout of the same kind does not.
const ETIMEDOUT: i32 = 110;
const ETIMEDOUT_MIPS: i32 = 145;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn an_orderly_end_that_the_other_pump_completes_meanwhile_is_no_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let end = End::new(socket, address, Duration::from_secs(10)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&end.socket).read(&mut [0]).unwrap(), 0);
        assert!(!end.is_reset_by(|socket| {
            // The other pump sends our FIN while the reader asks for the state.
            end.shut_writing();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
            while sys::is_closed(socket) != Some(true) {
                std::thread::yield_now();
            }
            Some(true)
        }));
    }

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
        client.drain_reports(&pair, false, |_| ()); // The lock is taken.
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
