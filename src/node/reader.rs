//! The read half of a pump: bytes of a socket in, whole frames or chunks of plain bytes out, in one
//! buffer.
//!
//! The buffer begins small, since most connections idle most of the time. It grows when a read
//! fills it or a header requires more, and shrinks after an idle second. [`HEADROOM`] bytes in
//! front of what was read stay free, so that a header or a stamp fits there without moving the
//! payload.
//!
//! A receive timeout is armed only for work that needs no further byte: releasing a large buffer,
//! ending a frame that has begun, `--idle-timeout`. It is disarmed when it fires for nothing, not
//! on every frame.

pub use super::read_fault::ReadFault;
use crate::measure::LATEST;
use crate::node::end::End;
use crate::node::pair::EndPair;
use crate::session::inbound::Inbound;
use crate::sys::{self, receive::receive};
use crate::time::{SignedNanos, WallTime};
use crate::wire::authentication::TAG_LEN;
use crate::wire::{FrameView, Header, ParseError, HEADER_LEN, STAMP_LEN};
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The room in front of the bytes that are read: a header and a stamp.
pub const HEADROOM: usize = HEADER_LEN + STAMP_LEN;
/// The size of the small buffer: an OPEN frame of a short path, a typed line, most requests. It
/// lies on the pump's stack, in a page that is touched anyway: 1000 idle connections are 2 MB
/// smaller for it.
const SMALL: usize = 512;
/// The most plain bytes that a proxy reads at once.
pub const READ_SIZE: usize = 256 << 10;
/// The size of a buffer with one such frame, its stamps and annotations.
const BIG: usize = HEADROOM + READ_SIZE + 4096;
/// The sizes to which a buffer grows. The first holds the opening of a path, all that most
/// connections ever need it for. The heap keeps the memory of those that idle next.
const STEPS: [usize; 3] = [1280, 4096, BIG];
const TICK: Duration = Duration::from_secs(1);
/// The size from which on frames are read exactly, so that no left-over is copied; smaller ones are
/// read greedily.
const EXACT: usize = 16 << 10;
/// The lateness from which on a read is checked against packets that arrived out of order.
const LATE: SignedNanos = SignedNanos::from_millis(1);

/// The read half of one end.
#[derive(Debug)]
pub struct FrameReader<'a> {
    pair: &'a EndPair,
    end: &'a End,
    /// The small buffer; both have room for a trailer behind them.
    small: [u8; SMALL + TAG_LEN],
    /// The large buffer; empty while little is received.
    big: Vec<u8>,
    start: usize,
    filled: usize,
    last_frame: usize,
    armed: Option<Duration>,
    idle_timeout: Option<Duration>,
    /// The wait after which reading returns [`ReadFault::Idle`] between frames, whatever moves
    /// elsewhere.
    tick: Option<Duration>,
    /// Consecutive waits without a byte.
    waits: u32,
    /// Set when a read has filled the buffer: the next one gets a larger one.
    full: bool,
    moved: usize,
    /// Set when the frame at hand took a read; one that did not was complete when an earlier one
    /// was.
    fresh: bool,
    /// `true` if the kernel is asked for arrival times, as long as frames are read.
    arrivals: bool,
    /// The arrival time of the last packet of the latest read; `None` if unknown. Packets that wait
    /// are merged and keep the later time. It is that of the last byte only if the read left
    /// nothing behind, else an upper bound.
    arrival: Option<WallTime>,
    /// Set when the latest read had room for more: it left nothing behind.
    emptied: bool,
    /// The number of packets out of order when they were last counted.
    out_of_order: u64,
    /// The bytes to read beyond a frame, so that a receive is seen to have emptied the socket. That
    /// is one header: only it is ever left over from a larger frame, and copied.
    slack: usize,
    header_begun: Option<Instant>,
    /// The latest read that is not in the connection log yet: its time and length.
    unnoted: Option<(WallTime, usize)>,
}

impl<'a> FrameReader<'a> {
    /// A reader that has read nothing. It is large for a stack: keep one and lend it.
    pub fn new(pair: &'a EndPair, end: &'a End, idle_timeout: Option<Duration>) -> Self {
        Self {
            pair,
            end,
            big: Vec::new(),
            start: HEADROOM,
            filled: HEADROOM,
            last_frame: SMALL,
            armed: None,
            idle_timeout,
            tick: None,
            waits: 0,
            full: false,
            moved: 0,
            fresh: false,
            arrivals: end.has_arrivals(),
            arrival: None,
            emptied: false,
            out_of_order: 0,
            slack: 0,
            header_begun: None,
            unnoted: None,
            small: [0; SMALL + TAG_LEN], // Last: a value after it makes the compiler copy it.
        }
    }

    fn whole(&self) -> &[u8] {
        if self.is_big() {
            &self.big
        } else {
            &self.small
        }
    }

    /// Returns the bytes that were read and not consumed.
    pub fn pending(&self) -> &[u8] {
        &self.whole()[self.start..self.filled]
    }

    /// Reads once more behind the pending bytes, to judge the first few; `false` at the end. They
    /// belong to the first header, whose deadline runs from the first of them.
    ///
    /// # Errors
    ///
    /// [`ReadFault`].
    pub fn read_more(&mut self) -> Result<bool, ReadFault> {
        let begun = self.start < self.filled;
        if begun {
            self.header_deadline()?;
        }
        Ok(self.read(usize::MAX, begun)? > 0)
    }

    /// A reader for a caller with its own deadlines: a wait returns [`ReadFault::Idle`] after
    /// `tick`.
    pub fn ticking(pair: &'a EndPair, end: &'a End, tick: Duration) -> Self {
        Self {
            tick: Some(tick),
            ..Self::new(pair, end, None)
        }
    }

    /// Sets the wait after which reading returns [`ReadFault::Idle`] while nothing is pending;
    /// `None` for no such wait.
    pub fn set_tick(&mut self, tick: Option<Duration>) {
        self.tick = tick;
    }

    fn is_big(&self) -> bool {
        !self.big.is_empty()
    }

    fn len(&self) -> usize {
        if self.is_big() {
            self.big.len() - TAG_LEN
        } else {
            SMALL
        }
    }

    /// Makes room for `len` bytes behind the pending ones.
    fn make_room(&mut self, len: usize) {
        if self.len() - self.filled >= len {
            return;
        }
        let pending = self.filled - self.start;
        if self.len() < HEADROOM + pending + len {
            let needed = HEADROOM + pending + len;
            let step = STEPS.into_iter().find(|size| *size >= needed);
            self.grow(step.unwrap_or(needed));
        } else {
            let range = self.start..self.filled;
            self.buffer().copy_within(range, HEADROOM);
        }
        self.start = HEADROOM;
        self.filled = HEADROOM + pending;
    }

    /// Enlarges the buffer after a read has filled it. In steps: most frames that do not fit the
    /// small one are short still.
    fn grow_if_full(&mut self) {
        let next = STEPS.into_iter().find(|size| *size > self.len());
        if let Some(next) = next.filter(|_| self.full) {
            self.grow(next);
        }
    }

    #[inline(never)]
    fn grow(&mut self, len: usize) {
        let mut bigger = vec![0; len + TAG_LEN];
        let pending = self.pending();
        bigger[HEADROOM..HEADROOM + pending.len()].copy_from_slice(pending);
        self.big = bigger;
        self.full = false;
    }

    #[inline(never)]
    fn shrink(&mut self) {
        self.big = Vec::new();
        self.start = HEADROOM;
        self.filled = HEADROOM;
        self.last_frame = SMALL;
        self.full = false;
    }

    fn arm(&mut self, timeout: Option<Duration>) -> Result<(), ReadFault> {
        if self.armed != timeout {
            self.end
                .socket
                .set_read_timeout(timeout)
                .map_err(ReadFault::Reset)?;
            self.armed = timeout;
        }
        Ok(())
    }

    /// Reads at most `most` bytes behind the pending ones; 0 at the end of the stream. `within`
    /// bounds the wait: a frame has begun.
    fn read(&mut self, most: usize, within: bool) -> Result<usize, ReadFault> {
        self.waits = 0;
        self.note_read();
        loop {
            // Computed each time: a wait may have released the large buffer.
            let room = self.len().min(self.filled.saturating_add(most));
            if within || self.is_big() || self.idle_timeout.is_some() || self.tick.is_some() {
                let tick = self
                    .tick
                    .unwrap_or(TICK)
                    .min(self.pair.timeout)
                    .min(self.idle_timeout.map_or(TICK, |limit| limit / 4))
                    .max(Duration::from_millis(1));
                self.arm(Some(tick))?;
            }
            let (mut socket, filled, asks) = (&self.end.socket, self.filled, self.arrivals);
            let place = &mut self.buffer()[filled..room];
            let (received, arrival) = if asks {
                receive(socket, place)
                    .map_or_else(|error| (Err(error), None), |(n, at)| (Ok(n), at))
            } else {
                (socket.read(place), None)
            };
            match received {
                // The socket's state first: the other pump fails the pair before it resets the
                // socket, which is no reset by the peer.
                Ok(0) if self.end.is_reset() && !self.pair.has_failed() => {
                    self.note_reset();
                    return Err(ReadFault::Reset(io::ErrorKind::ConnectionReset.into()));
                }
                Ok(0) if self.pair.has_failed() => return Err(ReadFault::Aborted),
                Ok(read) => {
                    self.filled += read;
                    self.arrival = arrival;
                    self.emptied = self.filled < room;
                    self.fresh = true;
                    self.full |= self.filled == self.len();
                    self.pair.moved.fetch_add(1, Ordering::Relaxed);
                    if self.end.connection_log().is_some() {
                        self.unnoted = Some((sys::clock::read().wall, read));
                        if read == 0 {
                            self.note_read(); // No frame follows that would be stamped.
                        }
                    }
                    return Ok(read);
                }
                Err(error) => self.waited(error, within)?,
            }
        }
    }

    /// Records the latest read in the connection log, if there is one. Not right after it, as its
    /// frame is to be stamped first.
    #[inline]
    fn note_read(&mut self) {
        if let Some((then, read)) = self.unnoted.take() {
            self.end.note(|end, _| match read {
                0 => {
                    end.fin_received.get_or_insert(then);
                }
                read => end.receive(then, read),
            });
        }
    }

    #[cold]
    fn note_reset(&mut self) {
        self.end.note(|end, now| {
            end.rst_received.get_or_insert(now);
        });
    }

    /// Returns the time of the latest read, if it is not in the connection log yet.
    fn read_time(&self) -> Option<WallTime> {
        self.unnoted.map(|(then, _)| then)
    }

    /// Handles a read without bytes: a tick, or the end of the connection.
    #[inline(never)]
    fn waited(&mut self, error: io::Error, within: bool) -> Result<(), ReadFault> {
        if self.pair.has_failed() {
            return Err(ReadFault::Aborted);
        }
        match error.kind() {
            io::ErrorKind::Interrupted => return Ok(()),
            io::ErrorKind::WouldBlock => {}
            _ => {
                self.note_reset();
                return Err(ReadFault::Reset(error));
            }
        }
        self.waits += 1;
        if !within && self.idle_timeout.is_some() {
            let moved = self.pair.movement();
            if moved != self.moved {
                self.moved = moved;
                self.waits = 0; // Bytes moved during this wait.
            }
        }
        let waited = self.armed.unwrap_or(TICK) * self.waits;
        if within && waited >= self.pair.timeout {
            return Err(ReadFault::Stalled);
        }
        // Within a frame `--timeout` holds.
        if !within && self.idle_timeout.is_some_and(|limit| waited >= limit) {
            return Err(ReadFault::Idle);
        }
        if !within && self.start == self.filled {
            if self.tick.is_some() {
                return Err(ReadFault::Idle);
            }
            if self.is_big() {
                self.shrink();
            }
            if self.idle_timeout.is_none() {
                self.arm(None)?;
            }
        }
        Ok(())
    }

    /// Reads plain bytes, at most [`READ_SIZE`] at once, with [`HEADROOM`] before them and room for
    /// a trailer behind them. Pending bytes come first. `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// [`ReadFault`].
    pub fn chunk(&mut self) -> Result<Option<Chunk<'_>>, ReadFault> {
        self.arrivals = false; // Plain bytes carry no stamps.
        if self.start == self.filled {
            self.start = HEADROOM;
            self.filled = HEADROOM;
            self.grow_if_full();
            if self.read(READ_SIZE, false)? == 0 {
                return Ok(None);
            }
        }
        let range = (self.start, self.filled);
        self.start = self.filled;
        Ok(Some(Chunk {
            read_at: self.read_time(),
            start: range.0,
            end: range.1,
            buffer: self.buffer(),
        }))
    }

    /// Waits until at least one whole frame is pending and returns its header. `None` at an end of
    /// the stream between frames.
    ///
    /// # Errors
    ///
    /// [`ReadFault`].
    pub fn frame(&mut self) -> Result<Option<Header>, ReadFault> {
        loop {
            let pending = self.filled - self.start;
            let mut slack = 0;
            let missing = match Header::parse(self.pending()) {
                Ok(header) if pending >= header.frame_len() => {
                    self.header_begun = None;
                    self.last_frame = header.frame_len();
                    self.slack = self.slack_behind(&header);
                    return Ok(Some(header));
                }
                Ok(header) => {
                    self.header_begun = None;
                    slack = self.slack_behind(&header);
                    header.frame_len() - pending
                }
                Err(ParseError::Incomplete { .. }) => 0,
                Err(error) => return Err(ReadFault::Parse(error)),
            };
            let read = if missing > 0 {
                // The rest of this frame and hardly more: the next one is read on its own.
                let most = missing + slack;
                self.make_room(most);
                self.read(most, true)?
            } else if pending == 0 {
                self.start = HEADROOM;
                self.filled = HEADROOM;
                self.grow_if_full();
                let most = if self.last_frame >= EXACT {
                    self.last_frame + self.slack
                } else {
                    usize::MAX
                };
                self.read(most, false)?
            } else {
                self.header_deadline()?;
                self.make_room(HEADER_LEN);
                self.read(usize::MAX, true)?
            };
            if read == 0 {
                return if pending == 0 {
                    Ok(None)
                } else {
                    Err(ReadFault::Truncated)
                };
            }
        }
    }

    /// Checks the deadline of a header: `--timeout` from its first byte, however slowly the others
    /// follow.
    #[cold]
    fn header_deadline(&mut self) -> Result<(), ReadFault> {
        let begun = *self.header_begun.get_or_insert_with(Instant::now);
        if begun.elapsed() >= self.pair.timeout {
            return Err(ReadFault::Stalled);
        }
        Ok(())
    }

    fn slack_behind(&self, header: &Header) -> usize {
        if self.arrivals && header.marked() {
            HEADER_LEN
        } else {
            0
        }
    }

    /// Returns the arrival time of the last byte of the frame at hand, completely read at
    /// `read_at`, on the kernel's wall clock. It is known only for the last frame of a read that
    /// left nothing behind. The kernel reports the time of the last byte in the socket.
    pub fn arrival(&mut self, header: &Header, read_at: WallTime) -> Option<WallTime> {
        let arrival = self.arrival?;
        let last = self.emptied && self.start + header.frame_len() == self.filled;
        // Beyond `LATEST` it counts as implausible anyway.
        (last && (read_at - arrival > LATEST || self.is_credible(arrival, read_at)))
            .then_some(arrival)
    }

    /// Returns a time by which all bytes of the latest read, at `read_at`, had arrived; `None` if
    /// unknown.
    pub fn arrived_by(&mut self, read_at: WallTime) -> Option<WallTime> {
        let arrival = self.arrival?;
        if !self.is_credible(arrival, read_at) {
            self.arrival = None; // The kernel's count answers once per read.
        }
        self.arrival
    }

    fn is_credible(&mut self, arrival: WallTime, read_at: WallTime) -> bool {
        read_at - arrival <= LATE || self.arrived_in_order()
    }

    /// Returns `true` if no packet was received out of order since the previous call. Otherwise
    /// bytes may have waited in the kernel for a lost packet: that is the network's delay, not the
    /// reader's. It costs a system call for a late read; without the count (before Linux 5.4)
    /// lateness is not credible.
    #[cold]
    fn arrived_in_order(&mut self) -> bool {
        let info = sys::tcp_info(&self.end.socket);
        let Some(count) = info.and_then(|info| info.out_of_order) else {
            return false;
        };
        std::mem::replace(&mut self.out_of_order, count) == count
    }

    /// Returns `true` if there was a read since the previous call. Otherwise the frame at hand was
    /// complete when the one before it was.
    pub fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// Returns `true` if a whole marked frame follows that of `header`.
    pub fn marked_follows(&self, header: &Header) -> bool {
        let rest = self.pending().get(header.frame_len()..).unwrap_or(&[]);
        Header::parse(rest).is_ok_and(|next| next.marked() && rest.len() >= next.frame_len())
    }

    /// Returns the header of the next pending frame, if it is whole. [`frame`](Self::frame) reports
    /// its faults.
    pub fn next_whole(&self) -> Option<Header> {
        let header = Header::parse(self.pending()).ok()?;
        (self.pending().len() >= header.frame_len()).then_some(header)
    }

    /// Verifies the trailer of the pending frame; once for each frame, in order.
    ///
    /// # Errors
    ///
    /// [`ReadFault::Parse`] if its trailer is wrong; none without a key.
    pub fn verify(&self, header: &Header) -> Result<(), ReadFault> {
        let verified = self.end.verify(header, self.pending());
        verified.map_err(ReadFault::Parse)
    }

    /// Checks that the pending frame is genuine and may come now; once for each frame, in order.
    ///
    /// # Errors
    ///
    /// [`ReadFault::Parse`], [`ReadFault::Violation`].
    pub fn check(&self, header: &Header, inbound: &mut Inbound) -> Result<(), ReadFault> {
        self.verify(header)?;
        inbound.check(header).map_err(ReadFault::Violation)
    }

    /// Returns the pending frame of `header`.
    pub fn view(&self, header: Header) -> FrameView<'_> {
        FrameView::of(header, self.pending()).expect("frame() returned it as whole")
    }

    /// Returns the bytes of the pending frame, with [`HEADROOM`] or more (or the rest of an earlier
    /// frame) before them.
    pub fn chunk_of(&mut self, header: &Header) -> Chunk<'_> {
        let start = self.start;
        Chunk {
            start,
            end: start + header.frame_len(),
            read_at: self.read_time(),
            buffer: self.buffer(),
        }
    }

    /// Returns the whole buffer, for frames that were made ready where they lie.
    pub fn buffer(&mut self) -> &mut [u8] {
        if self.big.is_empty() {
            &mut self.small
        } else {
            &mut self.big
        }
    }

    /// Consumes the pending frame.
    pub fn consume(&mut self, header: &Header) {
        self.start += header.frame_len();
    }
}

/// A stretch of a buffer with room before it that may be overwritten.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The whole buffer.
    pub buffer: &'a mut [u8],
    /// The begin of the stretch.
    pub start: usize,
    /// The end of the stretch.
    pub end: usize,
    /// The time when it was read, if the connection has a log.
    pub read_at: Option<WallTime>,
}

impl Chunk<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, EndPair) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, peer) = listener.accept().unwrap();
        let timeout = Duration::from_secs(10);
        let end = End::new(far, peer, timeout).unwrap();
        (near, EndPair::new(1, end, timeout))
    }

    #[test]
    fn a_buffer_grows_with_what_comes_and_is_given_back_after_a_quiet_tick() {
        let (mut near, pair) = pair();
        let mut reader = FrameReader::new(&pair, &pair.client, None);
        let sent = vec![7; 100_000];
        near.write_all(&sent).unwrap();
        let mut got = 0;
        while got < sent.len() {
            let chunk = reader.chunk().unwrap().unwrap();
            assert!(chunk.start >= HEADROOM && chunk.bytes().iter().all(|&byte| byte == 7));
            got += chunk.bytes().len();
        }
        assert_eq!(reader.len(), BIG);
        reader.start = HEADROOM; // As when the next read has begun.
        reader.filled = HEADROOM;
        reader
            .waited(io::ErrorKind::WouldBlock.into(), false)
            .unwrap();
        assert!(!reader.is_big());
        near.write_all(b"after the quiet").unwrap();
        assert_eq!(reader.chunk().unwrap().unwrap().bytes(), b"after the quiet");
    }

    #[test]
    fn a_read_that_is_under_way_when_the_buffer_is_given_back_goes_on() {
        let (mut near, pair) = pair();
        let mut reader = FrameReader::new(&pair, &pair.client, None);
        reader.grow(BIG);
        // A tick of a millisecond: the read below outlasts several, and the writer writes once it
        // is given back.
        reader.armed = Some(TICK);
        pair.client
            .socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let (sender, reported) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = reported.recv_timeout(Duration::from_millis(50)); // Ticks pass.
                near.write_all(b"late").unwrap();
            });
            assert_eq!(reader.chunk().unwrap().unwrap().bytes(), b"late");
        });
        drop::<std::sync::mpsc::Sender<()>>(sender);
        assert!(!reader.is_big());
    }

    fn now() -> WallTime {
        sys::clock::read().wall
    }

    fn frame(payload: usize) -> Vec<u8> {
        let header = Header {
            flags: crate::wire::Flags(crate::wire::Flags::MARKED),
            ..Header::new(crate::wire::FrameType::Block, 1, 2)
        };
        crate::wire::build(header, &[], &[], &vec![5; payload])
    }

    #[test]
    fn an_arrival_is_known_of_the_last_frame_of_a_read_that_left_nothing_behind() {
        let (mut near, pair) = pair();
        let mut reader = FrameReader::new(&pair, &pair.client, None);
        // Not asked for: unknown.
        near.write_all(&frame(10)).unwrap();
        let header = reader.frame().unwrap().unwrap();
        assert_eq!(reader.arrival(&header, now()), None);
        reader.consume(&header);
        pair.client.keep_arrivals();
        let mut reader = FrameReader::new(&pair, &pair.client, None);
        let known = |reader: &mut FrameReader<'_>| {
            let header = reader.frame().unwrap().unwrap();
            let known = reader.arrival(&header, now()).is_some();
            reader.consume(&header);
            known
        };
        // The first such socket of a host turns stamping on a moment later.
        let reported = std::iter::repeat_with(|| {
            near.write_all(&frame(1)).unwrap();
            known(&mut reader)
        })
        .take(1_000_000)
        .any(|known| known);
        assert!(reported);
        // Small and large, alone in the socket: all of them, whatever the buffer had to grow to.
        // (The first large one comes in pieces, and the last of them counts.)
        for payload in [10, 10, 3000, 40_000, 40_000, 10, 200_000, 10] {
            near.write_all(&frame(payload)).unwrap();
            assert!(known(&mut reader), "{payload}");
        }
        // Two that met: the time is the second one's.
        near.write_all(&[frame(10), frame(20)].concat()).unwrap();
        assert_eq!([known(&mut reader), known(&mut reader)], [false, true]);
        // A large one that was read exactly, with the beginning of the next one: its own time is
        // not known.
        let two = [frame(40_000), frame(40_000)].concat();
        let (begun, rest) = two.split_at(60_000);
        near.write_all(begun).unwrap();
        assert!(!known(&mut reader));
        near.write_all(rest).unwrap();
        assert!(known(&mut reader));
        // What was in the buffer when the last read came is not of that read: the end of a frame
        // decides.
        near.write_all(&frame(10)[..50]).unwrap();
        assert!(reader.read_more().unwrap());
        near.write_all(&frame(10)[50..]).unwrap();
        assert!(known(&mut reader));
        // Not when it came, but by when it had come is known of each read.
        near.write_all(&[frame(10), frame(20), frame(1000)].concat())
            .unwrap();
        let header = reader.frame().unwrap().unwrap();
        assert_eq!(reader.arrival(&header, now()), None);
        let by = reader.arrived_by(now()).unwrap();
        assert!(SignedNanos::ZERO <= now() - by && now() - by < LATEST);
        reader.consume(&header);
        for _ in 0..2 {
            known(&mut reader);
        }
        // Plain bytes are received without.
        near.write_all(b"x").unwrap();
        assert_eq!(reader.chunk().unwrap().unwrap().bytes(), b"x");
        assert!(!reader.arrivals);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn bytes_behind_a_lost_packet_are_not_read_late_and_bytes_that_wait_for_the_reader_are() {
        let (mut near, pair) = pair();
        near.set_nodelay(true).unwrap();
        pair.client.keep_arrivals();
        let mut reader = FrameReader::new(&pair, &pair.client, None);
        let frame = frame(100);
        let next = |reader: &mut FrameReader<'_>| {
            let header = reader.frame().unwrap().unwrap();
            let read_at = now();
            let (raw, reported) = (reader.arrival, reader.arrival(&header, read_at));
            reader.consume(&header);
            (raw.map(|at| read_at - at), reported.map(|at| read_at - at))
        };
        // The first such socket of a host turns stamping on a moment later.
        let reported = std::iter::repeat_with(|| {
            near.write_all(&frame).unwrap();
            next(&mut reader).1
        });
        assert!(reported.take(1_000_000).any(|late| late.is_some()));
        let while_it_lasts = Duration::from_millis(20);
        let (sender, silence) = std::sync::mpsc::channel::<()>();
        // The reader does not read: late, and its own doing.
        near.write_all(&frame).unwrap();
        let _ = silence.recv_timeout(while_it_lasts);
        let (_, reported) = next(&mut reader);
        assert!(
            reported.is_some_and(|late| late.abs() >= while_it_lasts.into()),
            "{reported:?}"
        );
        // The first half of a frame is lost on its way, with all attempts to send it again; the
        // second half is there.
        let (first, second) = frame.split_at(HEADER_LEN);
        sys::receive::lose_packets_of(&pair.client.socket, Some(first[0]));
        near.write_all(first).unwrap();
        near.write_all(second).unwrap();
        let _ = silence.recv_timeout(while_it_lasts);
        sys::receive::lose_packets_of(&pair.client.socket, None);
        let (raw, reported) = next(&mut reader);
        assert!(
            raw.is_some_and(|late| late.abs() >= while_it_lasts.into()),
            "{raw:?}"
        );
        assert_eq!(reported, None);
        // From then on all is as before.
        near.write_all(&frame).unwrap();
        let _ = silence.recv_timeout(while_it_lasts);
        assert!(next(&mut reader).1.is_some());
        drop(sender);
    }

    #[test]
    fn the_end_within_a_frame_is_not_the_end_between_frames() {
        let frame = frame(3000);
        let (mut near, pair) = pair();
        let mut reader = FrameReader::new(&pair, &pair.client, None);
        near.write_all(&frame).unwrap();
        near.write_all(&frame[..frame.len() - 1]).unwrap();
        drop(near);
        let header = reader.frame().unwrap().unwrap();
        assert_eq!(reader.view(header).payload(), &[5; 3000]);
        reader.consume(&header);
        assert!(matches!(reader.frame(), Err(ReadFault::Truncated)));
    }
}
