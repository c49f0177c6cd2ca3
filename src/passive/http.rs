//! Payload of one connection in; HTTP/1.x requests and responses with the times of their packets out.
//!
//! Read RFC 9112 first (§6 for how long a message is). Both directions are read in the order of their sequence numbers.
//! Responses answer requests in order as long as nothing is missing. Where a head is missing, a response answers the
//! request that was sent when everything before that response had arrived; without such a request it answers none.
//! Bodies are counted, not read, so a snap length that cuts them does no harm. A cut head lasts until the next message.

use super::message::{self, Length, Opening, MAX_HEAD};
use super::packet::{TcpSegment, ACK, FIN, RST, SYN};
use super::reassembly::{distance, Piece, Stream};
use super::side::Side;
use crate::measure::Histogram;
use crate::time::{SignedNanos, WallTime};
use std::borrow::Cow;
use std::collections::VecDeque;

/// Most exchanges kept per connection.
const MAX_EXCHANGES: usize = 1000;

/// Most exchanges under way per connection.
const MAX_OPEN: usize = 64;

/// Most different statuses that are counted apart.
const MAX_STATUSES: usize = 32;

/// One request and its response, as the capture point saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The method; `None` if the request was not seen.
    pub method: Option<Cow<'static, str>>,
    /// The target, shortened; `None` if it was not seen in full or is not kept.
    pub target: Option<Box<str>>,
    /// The final status, not 1xx (but 101); `None` if no response was seen or its status was cut off.
    pub status: Option<u16>,
    /// First packet of the request.
    pub request_first: Option<WallTime>,
    /// Last packet of the request before it was acknowledged; `None` if its end was not seen.
    pub request_last: Option<WallTime>,
    /// First packet of the response.
    pub response_first: Option<WallTime>,
    /// Last packet of the response before it was acknowledged; `None` if its end was not seen.
    pub response_last: Option<WallTime>,
    /// Sequence number of the request's first byte.
    pub request_seq: Option<u32>,
    /// Sequence number of the response's first byte.
    pub response_seq: Option<u32>,
}

impl Exchange {
    /// From the request's first packet to the response's first.
    pub fn time_to_first_byte(&self) -> Option<SignedNanos> {
        Some(self.response_first? - self.request_first?)
    }

    fn times(&mut self, side: Side) -> (&mut Option<WallTime>, &mut Option<WallTime>) {
        match side {
            Side::Client => (&mut self.request_first, &mut self.request_last),
            Side::Server => (&mut self.response_first, &mut self.response_last),
        }
    }
}

/// Where a direction's parser is.
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
    first: Option<WallTime>,
    last: Option<WallTime>,
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

/// One direction.
#[derive(Clone, Debug, Default)]
struct End {
    stream: Stream,
    state: State,
    current: Current,
    /// What the other end has acknowledged.
    acknowledged: Option<u32>,
    /// Set if the latest bytes are missing from the capture.
    gap: bool,
    /// Set if messages may be missing before the next one.
    out_of_step: bool,
}

/// An exchange under way.
#[derive(Clone, Debug, Default)]
struct Open {
    exchange: Exchange,
    /// First byte of the request; `None` if it was not seen.
    seq: Option<u32>,
    /// The request's acknowledgment: the response begins here, unless another one is still under way.
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
        match (self.seq, ack) {
            (Some(seq), Some(ack)) => distance(ack, seq) > 0,
            (seq, _) => seq.is_some(),
        }
    }
}

/// The HTTP/1.x side of a connection.
#[derive(Clone, Debug, Default)]
pub struct Http {
    /// Those that are over, in the order of the requests.
    pub exchanges: Vec<Exchange>,
    /// Exchanges beyond those kept; the figures below have them too.
    pub dropped: u64,
    /// Gaps of the capture that left exchanges unknown.
    pub gaps: u64,
    /// Times to the first byte of all exchanges that are over.
    pub first_byte: Histogram,
    /// How often each status was seen, and last how many were of further ones, as 0.
    pub statuses: Vec<(u16, u64)>,
    /// Exchanges that are over of which the response or its status is not known.
    pub without_status: u64,
    open: VecDeque<Open>,
    /// The number of the first of `open`.
    base: u64,
    ends: [End; 2],
    /// Set if a request was sent while an earlier one was unanswered and others were being answered.
    sliding: bool,
    /// After CONNECT or an upgrade the bytes are something else.
    tunnel: bool,
    /// Set once a version was read.
    confirmed: bool,
    /// Set if it turned out to be something else.
    refuted: bool,
    with_targets: bool,
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
    /// A reader of a captured connection. `next` are the numbers of the first bytes that each end will send, as far as
    /// known, `origin` the client's first of all.
    pub(super) fn new(next: [Option<u32>; 2], origin: Option<u32>, with_targets: bool) -> Self {
        let mut http = Self {
            origin,
            with_targets,
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

    /// Returns `true` after CONNECT or an upgrade.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel
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
        self.ends.iter().map(of).sum::<usize>() + self.open.len() * size_of::<Open>()
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

    /// Takes the end of the record: what waits is read without what is missing. Returns `false` if it was not HTTP.
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
        (self.confirmed || self.exchanges.iter().any(|of| of.method.is_some())) && !self.refuted
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
        loop {
            let spare = self.spare(side);
            let Some(held) = self.ends[side as usize].stream.ready(now, spare) else {
                return;
            };
            self.piece(side, held.piece());
        }
    }

    /// How many of the next bytes are not needed for themselves, but for the last, whose time counts.
    fn spare(&self, side: Side) -> u64 {
        if self.is_unsure(side) {
            return 0;
        }
        match self.ends[side as usize].state {
            State::Body(left) | State::Chunk(left) => left.saturating_sub(1),
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Returns `true` if a request that begins at `seq` cannot be of one burst with what precedes it.
    fn is_apart(&mut self, side: Side, seq: u32, length: u32, ack: Option<u32>) -> bool {
        let Some(ack) = ack else { return false };
        if side == Side::Server {
            if self
                .server_sent
                .map_or(true, |(known, _)| distance(ack, known) > 0)
            {
                self.server_sent = Some((ack, seq));
            }
            return false;
        }
        let before = self.client_sent;
        let end = seq.wrapping_add(length);
        if before.map_or(true, |(known, _)| distance(end, known) > 0) {
            self.client_sent = Some((end, ack));
        }
        let own = before.is_some_and(|(end, then)| end == seq && distance(ack, then) > 0);
        let server = self.server_sent;
        let others = server
            .is_some_and(|(known, from)| distance(known, seq) >= 0 && distance(ack, from) > 0);
        own || others || self.origin == Some(seq)
    }

    /// A segment that passed before, in part or in full, belongs to its messages as long as it was needed.
    fn repeated(&mut self, side: Side, piece: &Piece<'_>) {
        let end = &self.ends[side as usize];
        let Some(next) = end.stream.next() else {
            return;
        };
        let until = piece.seq.wrapping_add(piece.length);
        let until = if distance(until, next) < 0 {
            until
        } else {
            next
        };
        let needed = end
            .acknowledged
            .map_or(true, |known| distance(until, known) > 0);
        if distance(piece.seq, next) >= 0 || !needed {
            return;
        }
        let known = end.acknowledged;
        let current = &mut self.ends[side as usize].current;
        if current.last.is_some() && distance(until, current.seq) > 0 {
            current.last = current.last.max(Some(piece.time));
        }
        for open in &mut self.open {
            let begin = match side {
                Side::Client => open.exchange.request_seq,
                Side::Server => open.exchange.response_seq,
            };
            let to = open.ends[side as usize].unwrap_or(next);
            let Some(begin) = begin else { continue };
            let to = if distance(to, until) < 0 { to } else { until };
            let within = distance(to, begin) > 0 && distance(to, piece.seq) > 0;
            if within && known.map_or(true, |known| distance(to, known) > 0) {
                let (_, last) = open.exchange.times(side);
                *last = last.map(|last| last.max(piece.time));
            }
        }
    }

    /// Reads a piece of a stream.
    fn piece(&mut self, side: Side, piece: Piece<'_>) {
        if piece.missing > 0 {
            self.missing(side, u64::from(piece.missing), None, piece.seq);
        }
        match side {
            Side::Client => self.request_after_gap(&piece),
            Side::Server => self.response_after_gap(&piece),
        }
        self.ends[side as usize].gap &= piece.length == 0;
        let mut rest = piece.payload;
        let mut at = piece.seq;
        while !rest.is_empty() && !self.tunnel && !self.refuted {
            let Some(used) = self.step(side, &piece, at, rest) else {
                break;
            };
            rest = &rest[used..];
            at = at.wrapping_add(used as u32);
        }
        let cut = piece.length - (piece.payload.len() as u32).min(piece.length);
        if cut > 0 && !self.tunnel && !self.refuted {
            let end = piece.seq.wrapping_add(piece.length);
            self.missing(side, u64::from(cut), Some((piece.time, piece.latest)), end);
        }
    }

    /// Takes `bytes` bytes up to `end` that the capture does not have: cut off a packet of this time, or a gap.
    fn missing(&mut self, side: Side, bytes: u64, cut: Option<(WallTime, WallTime)>, end: u32) {
        if let (Some((time, latest)), false) = (
            cut,
            matches!(self.ends[side as usize].state, State::Between | State::Lost),
        ) {
            self.touch(side, time, latest);
        }
        let parser = &mut self.ends[side as usize];
        parser.gap = cut.is_none();
        let from = end.wrapping_sub(bytes as u32);
        match std::mem::take(&mut parser.state) {
            State::Body(left) if bytes < left => parser.state = State::Body(left - bytes),
            State::Chunk(left) if bytes < left => parser.state = State::Chunk(left - bytes),
            State::Chunk(left) if bytes == left => parser.state = State::ChunkSize(Vec::new()),
            State::UntilClose => parser.state = State::UntilClose,
            State::Body(left) => {
                self.message_ended(side, from.wrapping_add(left as u32), cut.is_some());
                if bytes > left {
                    self.lost(side, cut.is_none());
                }
            }
            State::Head(head) => {
                parser.state = State::Head(head);
                self.head_is_cut(side);
                if cut.is_none() {
                    self.message_ended(side, from, false);
                    self.lost(side, true);
                }
            }
            // A gap may hold the end of this message and the beginning of another.
            State::Cut | State::Chunk(_) | State::ChunkSize(_) | State::Trailer(_)
                if cut.is_none() =>
            {
                self.message_ended(side, from, false);
                self.lost(side, true);
            }
            State::Cut | State::Chunk(_) | State::ChunkSize(_) | State::Trailer(_) => {
                parser.state = State::Cut;
                parser.out_of_step = true;
            }
            // A single number may be that of a FIN.
            State::Between => self.lost(side, cut.is_none() && bytes > 1),
            State::Lost => parser.state = State::Lost,
        }
    }

    fn lost(&mut self, side: Side, gap: bool) {
        self.gaps += u64::from(gap);
        let parser = &mut self.ends[side as usize];
        parser.state = State::Lost;
        parser.out_of_step = true;
        if side == Side::Server {
            self.refute_provisional();
        }
    }

    /// Looks for a request where the place is lost: at the beginning of a packet.
    fn request_after_gap(&mut self, piece: &Piece<'_>) {
        let parser = &self.ends[Side::Client as usize];
        let later = parser.current.is_before(piece.ack);
        let line = message::request_line(message::without_empty_lines(piece.payload));
        let begins = matches!(line.opening, Opening::Http | Opening::Open);
        match parser.state {
            State::Lost | State::Cut if begins => {}
            State::Cut if later => return self.message_may_have_ended(Side::Client, piece.seq),
            _ => return,
        }
        let whole = !parser.gap;
        self.message_ended(Side::Client, piece.seq, whole);
    }

    /// Looks for a response where the place is lost, or where a request shows that the one before is over.
    fn response_after_gap(&mut self, piece: &Piece<'_>) {
        let parser = &self.ends[Side::Server as usize];
        if parser.state == State::Between {
            return;
        }
        let begins = match message::status_line(piece.payload) {
            Opening::Http => true,
            Opening::Open => (piece.payload.len() as u32) < piece.length,
            Opening::Foreign | Opening::Other => false,
        };
        let lost = parser.state == State::Lost;
        let expected = begins && self.by_position(piece.seq, piece.ack, lost).is_some();
        let alone = lost && self.open.iter().all(|open| open.answered);
        if expected || (begins && alone) {
            let whole = !parser.gap;
            self.message_ended(Side::Server, piece.seq, whole);
            self.ends[Side::Server as usize].out_of_step = true;
            return;
        }
        let unsure = parser.state == State::Cut || self.is_unsure(Side::Server);
        if unsure && (begins || parser.current.is_before(piece.ack)) {
            self.message_may_have_ended(Side::Server, piece.seq);
        }
    }

    /// Returns `true` during a response whose request is not known for sure, and so not whether it has a body.
    fn is_unsure(&self, side: Side) -> bool {
        let open = self.ends[side as usize].current.exchange;
        let open = open.and_then(|id| self.open.get(id.wrapping_sub(self.base) as usize));
        open.is_some_and(|open| open.exchange.method.is_none() || open.provisional)
    }

    /// The other end has sent more since: what follows may be of another message.
    fn message_may_have_ended(&mut self, side: Side, end: u32) {
        self.message_ended(side, end, false);
        self.lost(side, false);
    }

    /// The request that was sent when everything before `seq` had arrived. With `lost` bytes before `seq` also the one
    /// that was the last to arrive when the response was sent.
    fn by_position(&self, seq: u32, ack: Option<u32>, lost: bool) -> Option<usize> {
        let next = self.ends[Side::Client as usize].stream.next();
        let fits = |open: &Open| {
            let latest = match (open.ack, open.ends[0].or(next), ack) {
                (Some(begins), Some(end), Some(ack)) => {
                    lost && open.apart && distance(seq, begins) > 0 && distance(ack, end) <= 0
                }
                _ => false,
            };
            !open.answered && (open.ack == Some(seq) || latest) && open.is_sent_before(ack)
        };
        let found = self.open.iter().position(fits);
        found.filter(|_| !self.sliding)
    }

    /// Notes that a packet of the message under way passed.
    fn touch(&mut self, side: Side, time: WallTime, latest: WallTime) {
        let current = &mut self.ends[side as usize].current;
        current.first = Some(current.first.map_or(time, |first| first.min(time)));
        current.last = current.last.max(Some(latest));
        let (first, last) = (current.first, current.last);
        let open = current.exchange.map(|id| id.wrapping_sub(self.base));
        if let Some(open) = open.and_then(|at| self.open.get_mut(at as usize)) {
            let times = open.exchange.times(side);
            *times.0 = first;
            *times.1 = last.max(*times.1);
        }
    }

    /// The message under way, if there is one, has ended before `end`; `whole` if its last byte was captured.
    fn message_ended(&mut self, side: Side, end: u32, whole: bool) {
        let parser = &mut self.ends[side as usize];
        let state = std::mem::take(&mut parser.state);
        let current = std::mem::take(&mut parser.current);
        let open = current.exchange.map(|id| id.wrapping_sub(self.base));
        // Where the length is not known, other responses of the same burst may follow.
        let burst = |(at, other): (usize, &Open)| {
            let same = |open: &Open| open.ack == other.ack && !other.answered;
            Some(at as u64) > open && self.open.get(open.unwrap_or(0) as usize).is_some_and(same)
        };
        let whole = whole && !(state == State::Cut && self.open.iter().enumerate().any(burst));
        if let Some(open) = open.and_then(|at| self.open.get_mut(at as usize)) {
            open.ends[side as usize] = Some(end);
            if !whole {
                *open.exchange.times(side).1 = None;
            }
        }
    }

    /// Takes bytes off the front of `bytes`, which is not empty and begins at `at`: how many, or `None` where the rest
    /// means nothing.
    fn step(&mut self, side: Side, piece: &Piece<'_>, at: u32, bytes: &[u8]) -> Option<usize> {
        let all = bytes.len();
        let state = &self.ends[side as usize].state;
        if !matches!(state, State::Between | State::Lost) {
            let begins = || matches!(message::status_line(bytes), Opening::Http | Opening::Open);
            if !matches!(state, State::Head(_)) && self.is_unsure(side) && begins() {
                // A response without a body, and the next one.
                self.message_may_have_ended(side, at);
                return None;
            }
            self.touch(side, piece.time, piece.latest);
        }
        let parser = &mut self.ends[side as usize];
        let past = |used: usize| at.wrapping_add(used as u32);
        match std::mem::take(&mut parser.state) {
            State::Between => return self.begin(side, piece, at, bytes),
            State::Lost => {
                parser.state = State::Lost;
                return None;
            }
            State::Head(mut head) => {
                let known = head.len();
                head.extend_from_slice(&bytes[..all.min(MAX_HEAD - known)]);
                let end = message::end_of_head(&head, known);
                let used = end.map_or(all, |end| end - known);
                if !self.is_head(side, &head) {
                    return None;
                }
                match end {
                    Some(end) => self.message(side, &head[..end], false, past(used)),
                    None if head.len() == MAX_HEAD => self.message(side, &head, true, past(used)),
                    None => self.ends[side as usize].state = State::Head(head),
                }
                return Some(used);
            }
            State::Body(left) => {
                let used = usize::try_from(left).map_or(all, |left| left.min(all));
                match left - used as u64 {
                    0 => self.message_ended(side, past(used), true),
                    left => parser.state = State::Body(left),
                }
                return Some(used);
            }
            State::ChunkSize(mut line) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let room = MAX_HEAD - line.len();
                line.extend_from_slice(&bytes[..end.unwrap_or(all).min(room)]);
                let Some(end) = end else {
                    parser.state = match line.len() < MAX_HEAD {
                        true => State::ChunkSize(line),
                        false => State::Cut,
                    };
                    return Some(all);
                };
                let digits = line.split(|byte| *byte == b';').next().unwrap_or(&[]);
                let size = std::str::from_utf8(digits).ok();
                match size.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()) {
                    Some(0) => parser.state = State::Trailer(true),
                    Some(size) if size < u64::MAX - 2 => parser.state = State::Chunk(size + 2),
                    _ => {
                        parser.state = State::Cut;
                        parser.out_of_step = true;
                    }
                }
                return Some(end + 1);
            }
            State::Chunk(left) => {
                let used = usize::try_from(left).map_or(all, |left| left.min(all));
                parser.state = match left - used as u64 {
                    0 => State::ChunkSize(Vec::new()),
                    left => State::Chunk(left),
                };
                return Some(used);
            }
            State::Trailer(mut empty) => {
                for (at, byte) in bytes.iter().enumerate() {
                    match byte {
                        b'\n' if empty => {
                            self.message_ended(side, past(at + 1), true);
                            return Some(at + 1);
                        }
                        b'\n' => empty = true,
                        b'\r' => {}
                        _ => empty = false,
                    }
                }
                parser.state = State::Trailer(empty);
            }
            state @ (State::UntilClose | State::Cut) => parser.state = state,
        }
        Some(all)
    }

    /// Begins a message, or finds that there is none.
    fn begin(&mut self, side: Side, piece: &Piece<'_>, at: u32, bytes: &[u8]) -> Option<usize> {
        let message = message::without_empty_lines(bytes);
        if message.len() < bytes.len() {
            return Some(bytes.len() - message.len());
        }
        let opening = match side {
            Side::Client => message::request_line(bytes).opening,
            Side::Server => message::status_line(bytes),
        };
        match opening {
            Opening::Http | Opening::Open => {}
            Opening::Other if side == Side::Client && message::may_be_method(bytes) => {}
            Opening::Other if self.confirmed => {
                self.lost(side, false);
                return None;
            }
            Opening::Foreign | Opening::Other => {
                self.refuted = true;
                return None;
            }
        }
        let before = &piece.payload[..at.wrapping_sub(piece.seq) as usize];
        let parser = &mut self.ends[side as usize];
        parser.state = State::Head(Vec::new());
        parser.current = Current {
            seq: at,
            ack: piece.ack,
            apart: piece.apart && before.iter().all(|byte| matches!(byte, b'\r' | b'\n')),
            ..Current::default()
        };
        Some(0)
    }

    /// Returns `false` if the first line of a head turns out to be none.
    fn is_head(&mut self, side: Side, head: &[u8]) -> bool {
        let opening = match side {
            Side::Client => message::request_line(head).opening,
            Side::Server => message::status_line(head),
        };
        match opening {
            Opening::Http => self.confirmed = true,
            Opening::Other | Opening::Open if !head.contains(&b'\n') => {}
            Opening::Other | Opening::Open if self.confirmed => self.lost(side, false),
            _ => self.refuted = true,
        }
        self.ends[side as usize].state != State::Lost && !self.refuted
    }

    /// Takes a head as far as it is there.
    fn head_is_cut(&mut self, side: Side) {
        let parser = &mut self.ends[side as usize];
        let end = parser.stream.next().unwrap_or(0);
        if let State::Head(head) = std::mem::take(&mut parser.state) {
            self.message(side, &head, true, end);
        }
    }

    /// Takes a head, whole or cut, that ends before `end`.
    fn message(&mut self, side: Side, head: &[u8], cut: bool, end: u32) {
        match side {
            Side::Client => self.request(head, cut, end),
            Side::Server => self.response(head, cut, end),
        }
    }

    fn request(&mut self, head: &[u8], cut: bool, end: u32) {
        let line = message::request_line(head);
        let parser = &mut self.ends[Side::Client as usize];
        let current = &mut parser.current;
        current.exchange = Some(self.base + self.open.len() as u64);
        let target = line.target.filter(|_| self.with_targets);
        self.open.push_back(Open {
            exchange: Exchange {
                method: message::method(line.method),
                target: target.map(message::target),
                request_first: current.first,
                request_last: current.last,
                request_seq: Some(current.seq),
                ..Exchange::default()
            },
            seq: Some(current.seq),
            ack: current.ack,
            apart: current.apart,
            follows: !parser.out_of_step,
            answered: self
                .alone
                .is_some_and(|alone| distance(alone, current.seq) > 0),
            ..Open::default()
        });
        parser.out_of_step = cut;
        parser.state = match Length::of(head) {
            _ if cut => State::Cut,
            Length::Chunked => State::ChunkSize(Vec::new()),
            Length::Bytes(bytes) if bytes > 0 => State::Body(bytes),
            _ => return self.message_ended(Side::Client, end, true),
        };
    }

    fn response(&mut self, head: &[u8], cut: bool, end: u32) {
        let current = self.ends[Side::Server as usize].current;
        let status = message::status(head);
        let found = self.answered_by(&current);
        let interim = status.is_some_and(|status| (100..200).contains(&status) && status != 101);
        if interim {
            // The final response follows.
            self.ends[Side::Server as usize].current = Current::default();
            if cut {
                self.ends[Side::Server as usize].state = State::Cut;
                self.ends[Side::Server as usize].out_of_step = true;
            }
            return;
        }
        // Where lengths are cut off, a response too many would not be seen.
        let doubtful = found.filter(|at| cut && self.open[*at].provisional);
        if let Some(at) = doubtful {
            self.open[at].answered = true;
        }
        let at = match found.filter(|_| doubtful.is_none()) {
            Some(at) => at,
            None => self.response_alone(current.ack),
        };
        let open = &mut self.open[at];
        open.answered = true;
        open.exchange.status = status;
        open.exchange.response_first = current.first;
        open.exchange.response_last = current.last;
        open.exchange.response_seq = Some(current.seq);
        let method = open.exchange.method.as_deref();
        let success = status.is_some_and(|status| status / 100 == 2);
        let tunnel = status == Some(101) || (method == Some("CONNECT") && success);
        let none = method == Some("HEAD") || matches!(status, Some(204 | 304));
        let parser = &mut self.ends[Side::Server as usize];
        parser.current.exchange = Some(self.base + at as u64);
        // RFC 9112 §6.3, in its order.
        parser.state = match Length::of(head) {
            _ if cut => {
                parser.out_of_step = true;
                State::Cut
            }
            Length::Bytes(0) => return self.message_ended(Side::Server, end, true),
            _ if none || tunnel => {
                self.message_ended(Side::Server, end, true);
                if tunnel {
                    self.tunnel = true;
                    self.ends.iter_mut().for_each(|end| end.stream.clear());
                }
                return;
            }
            Length::Chunked => State::ChunkSize(Vec::new()),
            Length::Bytes(bytes) => State::Body(bytes),
            Length::Unknown => State::UntilClose,
        };
    }

    /// Finds the request that this response answers.
    fn answered_by(&mut self, current: &Current) -> Option<usize> {
        let in_step = !self.ends[Side::Server as usize].out_of_step;
        let first = self.open.iter().position(|open| !open.answered);
        let first = first.filter(|at| {
            let open = &self.open[*at];
            in_step && open.follows && open.is_sent_before(current.ack)
        });
        let at = first.or_else(|| self.by_position(current.seq, current.ack, !in_step))?;
        self.ends[Side::Server as usize].out_of_step = false;
        let first = &self.open[at];
        if first.ack == Some(current.seq) {
            if first.apart {
                // Everything before it has been answered.
                self.open
                    .iter_mut()
                    .for_each(|open| open.provisional = false);
            } else {
                self.open[at].provisional = true;
            }
        } else {
            let before = at
                .checked_sub(1)
                .map(|before| self.open[before].provisional);
            let ack = first.ack;
            let later = |open: &Open| match (open.ack, ack) {
                (Some(later), Some(ack)) => {
                    distance(later, ack) > 0 && distance(later, current.seq) <= 0
                }
                _ => false,
            };
            self.sliding |= self.open.iter().skip(at + 1).any(later);
            self.open[at].provisional |= before.unwrap_or(false);
        }
        self.open[at].follows = true;
        for open in self.open.iter_mut().take(at) {
            open.answered = true;
        }
        Some(at)
    }

    /// Makes room for a response whose request was not seen.
    fn response_alone(&mut self, ack: Option<u32>) -> usize {
        self.alone = ack.or(self.alone);
        if !self.ends[Side::Server as usize].out_of_step {
            // One response too many: those before may have been shifted.
            self.refute_provisional();
        }
        let first = self.open.iter().position(|open| !open.answered);
        let at = first.unwrap_or(self.open.len());
        let request = &mut self.ends[Side::Client as usize].current.exchange;
        let from = self.base + at as u64;
        *request = request.map(|id| id + u64::from(id >= from));
        self.open.insert(at, Open::default());
        at
    }

    /// Takes back what may have been credited to the wrong request.
    fn refute_provisional(&mut self) {
        for open in self.open.iter_mut().filter(|open| open.provisional) {
            open.provisional = false;
            open.exchange.status = None;
            open.exchange.response_first = None;
            open.exchange.response_last = None;
            open.exchange.response_seq = None;
        }
    }

    /// Closes the exchanges that are over.
    fn settle(&mut self, room: usize) {
        while let Some(open) = self.open.front() {
            let under_way =
                |side: &Side| self.ends[*side as usize].current.exchange == Some(self.base);
            let over = open.answered && !open.provisional && !Side::BOTH.iter().any(under_way);
            let needed = |side: &Side| {
                let known = self.ends[*side as usize].acknowledged;
                match (open.ends[*side as usize], known) {
                    (Some(end), Some(known)) => distance(end, known) > 0,
                    (end, None) => end.is_some(),
                    (None, _) => false,
                }
            };
            let waits = Side::BOTH.iter().any(needed) && self.open.len() < 8;
            if self.open.len() <= MAX_OPEN && (!over || waits) {
                break;
            }
            if !open.answered {
                self.ends[Side::Server as usize].out_of_step = true;
            }
            self.close(room);
        }
    }

    /// Hands the oldest exchange under way over.
    fn close(&mut self, room: usize) {
        let Some(open) = self.open.pop_front() else {
            return;
        };
        self.base += 1;
        let exchange = open.exchange;
        if let Some(first_byte) = exchange.time_to_first_byte() {
            self.first_byte.record(first_byte);
        }
        match exchange.status {
            Some(status) => {
                let full = self.statuses.len() >= MAX_STATUSES;
                let known = self.statuses.iter_mut().find(|(known, _)| *known == status);
                match known {
                    Some((_, count)) => *count += 1,
                    None if full => match self.statuses.last_mut() {
                        Some((0, count)) => *count += 1,
                        _ => self.statuses.push((0, 1)),
                    },
                    None => self.statuses.push((status, 1)),
                }
            }
            None => self.without_status += 1,
        }
        if self.exchanges.len() < MAX_EXCHANGES && room > 0 {
            self.exchanges.push(exchange);
        } else {
            self.dropped += 1;
        }
    }
}
