//! Payload of one connection in; HTTP/1.x requests and responses with the times of their packets
//! out.
//!
//! Read RFC 9112 first (§6 for how long a message is). Both directions are read in the order of
//! their sequence numbers. Responses answer requests in order as long as nothing is missing. Where
//! a head is missing, a response answers the request that was sent when everything before that
//! response had arrived. Without such a request it answers none. Bodies are counted, not read, so a
//! snap length that cuts them does no harm. A cut head lasts until the next message.

mod pair;
mod parse;

use super::maybe_time::MaybeTime;
use super::message::{self, Opening, METHODS};
use super::packet::{TcpSegment, ACK, FIN, RST, SYN};
use super::reassembly::{distance, Piece, Stream};
use super::side::Side;
use crate::http::stamp::{StampClock, StampNames, StampedExchange, StampedHeaders, TraceParent};
use crate::measure::Histogram;
use crate::time::{SignedNanos, WallTime};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most exchanges kept per connection.
const MAX_EXCHANGES: usize = 1000;

/// Most exchanges under way per connection.
const MAX_OPEN: usize = 64;

/// Most memory of the stamps that are kept per connection, in bytes.
const MAX_STAMPS: usize = 64 << 10;

/// Most different statuses that are counted apart.
const MAX_STATUSES: usize = 32;

/// One request and its response, as the capture point saw them. Many are kept, so it is small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// One more than the place among the usual methods; 0 for none of these.
    usual: u8,
    /// The final status, not 1xx (but 101); `None` if no response was seen or its status was cut
    /// off.
    pub status: Option<u16>,
    /// First packet of the request.
    pub request_first: MaybeTime,
    /// Last packet of the request before it was acknowledged; none if its end was not seen.
    pub request_last: MaybeTime,
    /// First packet of the response.
    pub response_first: MaybeTime,
    /// Last packet of the response before it was acknowledged; none if its end was not seen.
    pub response_last: MaybeTime,
    /// Sequence number of the request's first byte.
    pub request_seq: Option<u32>,
    /// Sequence number of the response's first byte.
    pub response_seq: Option<u32>,
    /// Filled for few.
    rare: Option<Box<Rare>>,
}

/// The parts that few exchanges have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    /// A method that is not a usual one.
    method: Option<Box<str>>,
    target: Option<Box<str>>,
    headers: Option<Box<StampedHeaders>>,
}

impl Exchange {
    /// An exchange of which the request's method is known, unless `method` is empty.
    pub fn new(method: &[u8]) -> Self {
        let usual = METHODS.iter().position(|known| known.as_bytes() == method);
        let mut exchange = Self {
            usual: usual.map_or(0, |at| at as u8 + 1),
            ..Self::default()
        };
        let other = std::str::from_utf8(method).ok();
        if let Some(other) = other.filter(|text| usual.is_none() && !text.is_empty()) {
            exchange.rare().method = Some(other.into());
        }
        exchange
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(Box::default)
    }

    /// Returns the method; `None` if the request was not seen.
    pub fn method(&self) -> Option<&str> {
        match self.usual {
            0 => self.rare.as_ref()?.method.as_deref(),
            usual => METHODS.get(usize::from(usual) - 1).copied(),
        }
    }

    /// Returns the target, shortened; `None` if it was not seen in full or is not kept.
    pub fn target(&self) -> Option<&str> {
        self.rare.as_ref()?.target.as_deref()
    }

    /// Returns the stamps and traces in both heads; `None` without any, or beyond the memory for
    /// them.
    pub fn headers(&self) -> Option<&StampedHeaders> {
        self.rare.as_ref()?.headers.as_deref()
    }

    fn take_headers(&mut self) -> Option<Box<StampedHeaders>> {
        self.rare.as_mut()?.headers.take()
    }

    fn set_headers(&mut self, headers: Option<Box<StampedHeaders>>) {
        if headers.is_some() {
            self.rare().headers = headers;
        }
    }

    /// From the request's first packet to the response's first.
    pub fn time_to_first_byte(&self) -> Option<SignedNanos> {
        Some(self.response_first.get()? - self.request_first.get()?)
    }

    /// Returns the times at which the first bytes of request and response passed.
    pub fn own_times(&self) -> [Option<WallTime>; 2] {
        [self.request_first.get(), self.response_first.get()]
    }

    fn times(&mut self, side: Side) -> (&mut MaybeTime, &mut MaybeTime) {
        match side {
            Side::Client => (&mut self.request_first, &mut self.request_last),
            Side::Server => (&mut self.response_first, &mut self.response_last),
        }
    }
}

/// The state of a direction's parser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between messages.
    #[default]
    Between,
    /// Bytes are missing, and where the next message begins is not known.
    Lost,
    /// Gathering a head.
    Head(Vec<u8>),
    /// So many bytes of body.
    Body(u64),
    /// Gathering the line that holds a chunk's size.
    ChunkSize(Vec<u8>),
    /// So many bytes of chunk, its line end included.
    Chunk(u64),
    /// After the last chunk: lines until an empty one. `true` if the line so far is empty.
    Trailer(bool),
    /// A response without a length.
    UntilClose,
    /// A message whose length was cut off: until the next one begins.
    Cut,
}

/// The message under way in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Current {
    seq: u32,
    ack: Option<u32>,
    apart: bool,
    first: MaybeTime,
    last: MaybeTime,
    /// The exchange it belongs to, once its head was read.
    exchange: Option<u64>,
}

impl Current {
    /// Returns `true` if the other end had sent more by this acknowledgment.
    fn is_before(&self, ack: Option<u32>) -> bool {
        match (self.ack, ack) {
            (Some(before), Some(ack)) => distance(ack, before) > 0,
            _ => false,
        }
    }
}

/// One direction. Its order is that of memory: what most packets need lies together.
#[derive(Clone, Debug, Default)]
#[repr(C)]
struct End {
    stream: Stream,
    /// The latest acknowledgment of the other end.
    acknowledged: Option<u32>,
    /// Set if the latest bytes are missing from the capture.
    gap: bool,
    /// Set if messages may be missing before the next one.
    out_of_step: bool,
    state: State,
    current: Current,
}

/// An exchange under way.
#[derive(Clone, Debug, Default)]
struct Open {
    exchange: Exchange,
    /// The request's acknowledgment: the response begins here, unless another one is still under
    /// way.
    ack: Option<u32>,
    /// Set if everything before the request was sent before `ack` got that far.
    apart: bool,
    /// Set if no request can be missing before it.
    follows: bool,
    /// Set if the head of its response was read, or never will be.
    answered: bool,
    /// Set if its response may be that of an earlier request that the capture does not have.
    provisional: bool,
    /// One past the last byte of request and response, once read.
    ends: [Option<u32>; 2],
}

impl Open {
    fn is_sent_before(&self, ack: Option<u32>) -> bool {
        match (self.exchange.request_seq, ack) {
            (Some(seq), Some(ack)) => distance(ack, seq) > 0,
            (seq, _) => seq.is_some(),
        }
    }
}

/// The HTTP/1.x side of a connection.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Http {
    ends: [End; 2],
    open: VecDeque<Open>,
    /// The number of the first of `open`.
    base: u64,
    /// Set if a request was sent while an earlier one was unanswered and others were being
    /// answered.
    sliding: bool,
    /// After CONNECT or an upgrade the bytes are something else.
    tunnel: bool,
    /// Set once a version was read.
    confirmed: bool,
    /// Set if it turned out to be something else.
    refuted: bool,
    /// Set once a request with a whole method is over.
    has_method: bool,
    with_targets: bool,
    /// The exchanges with stamps that are over, until they are taken.
    stamped: Vec<StampedExchange>,
    /// Those that are over, in the order of the requests.
    pub exchanges: Vec<Exchange>,
    /// Exchanges beyond those kept; the figures below have them too.
    pub dropped: u64,
    /// Gaps of the capture that left exchanges unknown.
    pub gaps: u64,
    /// Times to the first byte of all exchanges that are over.
    pub first_byte: Histogram,
    /// The count of each status, and last that of further ones, as 0.
    pub statuses: Vec<(u16, u64)>,
    /// Exchanges that are over of which the response or its status is not known.
    pub without_status: u64,
    /// The fields of heads that are read; `None` for none.
    names: Option<Arc<StampNames>>,
    /// Clocks of stamps that are known.
    pub(crate) clocks: Arc<[StampClock]>,
    /// Memory of the stamps of exchanges that are over.
    stamp_memory: usize,
    /// The trace of the latest request, until it is taken.
    trace_parent: Option<TraceParent>,
    /// End and acknowledgment of the client's latest data.
    client_sent: Option<(u32, u32)>,
    /// Highest acknowledgment in the server's data, and the lowest number of data that has it.
    server_sent: Option<(u32, u32)>,
    /// The acknowledgment of a response whose request was not seen: that of any request before it.
    alone: Option<u32>,
    /// The client's first byte of all.
    origin: Option<u32>,
}

/// Returns how a payload of `side` begins: a reason to look closer.
#[inline]
pub(super) fn opening(side: Side, payload: &[u8]) -> Opening {
    match (side, payload) {
        (Side::Server, [b'H' | b'R' | b'S' | b'I', ..]) => message::status_line(payload),
        (Side::Client, [b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n', ..]) => {
            message::request_line(message::without_empty_lines(payload)).opening
        }
        _ => Opening::Other,
    }
}

impl Http {
    /// A reader of a connection whose bytes a process reads, for [`read`](Self::read). It reads
    /// stamps in the fields `names`, if there are any.
    pub fn of_process(names: Option<Arc<StampNames>>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// A reader of a captured connection. `next` are the numbers of the first bytes that each end
    /// will send, as far as known, `origin` the client's first of all.
    pub(super) fn new(
        next: [Option<u32>; 2],
        origin: Option<u32>,
        with_targets: bool,
        names: Option<Arc<StampNames>>,
    ) -> Self {
        let mut http = Self {
            origin,
            with_targets,
            names,
            ..Self::default()
        };
        for (end, next) in http.ends.iter_mut().zip(next) {
            next.into_iter().for_each(|next| end.stream.begin(next));
        }
        http
    }

    /// Returns `true` if it turned out not to be HTTP/1.x.
    pub(super) fn is_refuted(&self) -> bool {
        self.refuted
    }

    /// Returns what waits of both directions, if no byte was read yet.
    pub(super) fn unread(&mut self) -> Option<[&mut Stream; 2]> {
        let is_idle = |end: &End| matches!(end.state, State::Between | State::Lost);
        let unread = !self.confirmed && self.count() == 0 && self.open.is_empty();
        let [client, server] = &mut self.ends;
        (unread && is_idle(client) && is_idle(server))
            .then_some([&mut client.stream, &mut server.stream])
    }

    /// Returns `true` after CONNECT or an upgrade.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Reads what a segment will need, so that it is at hand then; the number means nothing.
    #[inline]
    pub(super) fn warm(&self, has_data: bool) -> u64 {
        let of = |end: &End| end.stream.next().unwrap_or(0);
        let ends = of(&self.ends[0]) ^ of(&self.ends[1]);
        let data = || {
            let open = self.open.front().and_then(|open| open.exchange.request_seq);
            let current = self.ends[0].current.seq ^ self.ends[1].current.seq;
            current ^ open.unwrap_or(0)
        };
        u64::from(ends ^ if has_data { data() } else { 0 })
    }

    /// Returns the bytes of memory that its bounds are about.
    pub(super) fn memory(&self) -> usize {
        let of = |end: &End| {
            let gathered = match &end.state {
                State::Head(bytes) | State::ChunkSize(bytes) => bytes.capacity(),
                _ => 0,
            };
            gathered + end.stream.memory()
        };
        let stamps = |open: &Open| open.exchange.headers().map_or(0, |of| of.memory());
        let open =
            self.open.len() * size_of::<Open>() + self.open.iter().map(stamps).sum::<usize>();
        self.ends.iter().map(of).sum::<usize>() + open
    }

    /// Takes payload as a process reads it: all of it, in order.
    pub fn read(&mut self, now: WallTime, side: Side, payload: &[u8]) {
        let next = |side: Side| self.ends[side as usize].stream.next().unwrap_or(0);
        let piece = Piece {
            time: now,
            latest: now,
            seq: next(side),
            ack: Some(next(side.other())),
            length: payload.len() as u32,
            payload,
            apart: true,
            missing: 0,
        };
        if let Some(piece) = self.ends[side as usize].stream.offer(piece, 0) {
            self.piece(side, piece);
        }
        for end in &mut self.ends {
            end.acknowledged = end.stream.next();
        }
        self.settle(MAX_EXCHANGES);
    }

    /// Takes the exchanges with stamps that are over since the last call.
    pub(crate) fn take_stamped(&mut self) -> Vec<StampedExchange> {
        std::mem::take(&mut self.stamped)
    }

    /// Takes the trace of the first request with one since the last call.
    pub fn take_trace_parent(&mut self) -> Option<TraceParent> {
        self.trace_parent.take()
    }

    /// Returns `true` while the head of a request has begun and not ended.
    pub fn is_within_request_head(&self) -> bool {
        matches!(self.ends[Side::Client as usize].state, State::Head(_))
    }

    /// Returns how many exchanges the kept ones count for, by their memory.
    pub(super) fn kept(&self) -> usize {
        self.exchanges.len() + self.stamp_memory / size_of::<Exchange>()
    }

    /// Returns how many exchanges are over.
    pub fn count(&self) -> u64 {
        self.exchanges.len() as u64 + self.dropped
    }

    /// Returns the exchanges so far, those under way included.
    pub fn so_far(&self) -> Vec<Exchange> {
        let open = self.open.iter().map(|open| &open.exchange);
        let all = self.exchanges.iter().chain(open);
        all.take(MAX_EXCHANGES).cloned().collect()
    }

    /// Takes a segment that changes nothing but the latest acknowledgment of what `side` reads, and
    /// returns `true` if it is one, as most are.
    #[inline]
    pub(super) fn is_passed_by(&mut self, side: Side, segment: &TcpSegment<'_>) -> bool {
        if segment.payload_len > 0 || segment.flags & (SYN | FIN | RST) != 0 {
            return false;
        }
        let is_idle = self.ends.iter().all(|end| end.stream.is_idle());
        let read = &mut self.ends[side.other() as usize];
        if !is_idle || !self.open.is_empty() || self.tunnel || !self.stamped.is_empty() {
            return false;
        }
        if segment.has(ACK) {
            if read.stream.is_acknowledged_by(segment.ack) {
                return false;
            }
            match read.acknowledged {
                Some(known) if distance(segment.ack, known) < 0 => {}
                _ => read.acknowledged = Some(segment.ack),
            }
        }
        true
    }

    /// Takes a segment as it passed; `room` is how many more exchanges may be kept.
    pub(super) fn segment(
        &mut self,
        now: WallTime,
        side: Side,
        segment: &TcpSegment<'_>,
        room: usize,
    ) {
        if self.tunnel || self.refuted {
            return;
        }
        let ack = segment.has(ACK).then_some(segment.ack);
        if let Some(ack) = ack {
            self.ends[side.other() as usize]
                .stream
                .acknowledge(ack, now);
        }
        let seq = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        if segment.has(FIN) {
            let end = seq.wrapping_add(segment.payload_len);
            self.ends[side as usize].stream.finish(end);
        }
        if segment.payload_len > 0 && !segment.has(RST) {
            if let (Side::Server, Some(ack)) = (side, ack) {
                // An answer comes after its request: what is still missing of that will not come.
                let client = &mut self.ends[Side::Client as usize].stream;
                client.acknowledge(ack, WallTime(0));
                self.drain_side(Side::Client, Some(now));
            }
            let apart = self.is_apart(side, seq, segment.payload_len, ack);
            let piece = Piece {
                time: now,
                latest: now,
                seq,
                ack,
                length: segment.payload_len,
                payload: segment.payload,
                apart,
                missing: 0,
            };
            self.repeated(side, &piece);
            let spare = self.spare(side);
            if let Some(piece) = self.ends[side as usize].stream.offer(piece, spare) {
                self.piece(side, piece);
            }
        }
        if let Some(ack) = ack {
            let known = &mut self.ends[side.other() as usize].acknowledged;
            match known {
                Some(known) if distance(ack, *known) < 0 => {}
                _ => *known = Some(ack),
            }
        }
        self.drain(Some(now));
        self.settle(room);
    }

    /// Takes the end of the record: what waits is read without what is missing. Returns `false` if
    /// it was not HTTP.
    pub(super) fn finish(&mut self, reset: bool, room: usize) -> bool {
        self.drain(None);
        for side in Side::BOTH {
            let end = &self.ends[side as usize];
            let over = reset || end.stream.finished();
            if matches!(end.state, State::Head(_)) {
                self.head_is_cut(side);
            }
            let (State::Between | State::Lost) = self.ends[side as usize].state else {
                // A cut request that was answered had ended before.
                let open = self.ends[side as usize].current.exchange;
                let open = open.and_then(|id| self.open.get(id.wrapping_sub(self.base) as usize));
                let cut = self.ends[side as usize].state == State::Cut && side == Side::Client;
                let answered = open.is_some_and(|open| open.answered);
                let whole = !self.ends[side as usize].gap && (over || (cut && answered));
                let end = self.ends[side as usize].stream.next().unwrap_or(0);
                self.message_ended(side, end, whole);
                continue;
            };
        }
        while !self.open.is_empty() {
            self.close(room);
        }
        (self.confirmed || self.has_method) && !self.refuted
    }

    /// Lets go of the memory that its bounds are about.
    pub(super) fn relieve(&mut self, room: usize) {
        self.drain(None);
        for side in Side::BOTH {
            if let State::Head(_) = self.ends[side as usize].state {
                self.head_is_cut(side);
            }
            self.ends[side as usize].stream.clear();
        }
        while self.open.len() > 1 {
            self.close(room);
            self.ends[Side::Server as usize].out_of_step = true;
        }
    }

    /// Reads what no longer waits.
    fn drain(&mut self, now: Option<WallTime>) {
        for side in Side::BOTH {
            self.drain_side(side, now);
        }
    }

    fn drain_side(&mut self, side: Side, now: Option<WallTime>) {
        while !self.ends[side as usize].stream.is_idle() {
            let spare = self.spare(side);
            let Some(held) = self.ends[side as usize].stream.ready(now, spare) else {
                return;
            };
            self.piece(side, held.piece());
        }
    }
}
