//! Pieces of streams in; heads, bodies and their ends out, with what is missing or cut off.

use super::super::maybe_time::MaybeTime;
use super::super::message::{self, Opening, MAX_HEAD};
use super::super::reassembly::Piece;
use super::super::side::Side;
use super::{Current, Http, Open, State};
use crate::time::WallTime;

impl Http {
    /// The number of next bytes of which only the last counts, by its time.
    pub(super) fn spare(&self, side: Side) -> u64 {
        if self.is_unsure(side) {
            return 0;
        }
        match self.ends[side as usize].state {
            State::Body(left) | State::Chunk(left) => left.saturating_sub(1),
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Reads a piece of a stream.
    pub(super) fn piece(&mut self, side: Side, piece: Piece<'_>) {
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

    /// Takes `bytes` bytes up to `end` that the capture does not have: cut off a packet of this
    /// time, or a gap.
    pub(super) fn missing(
        &mut self,
        side: Side,
        bytes: u64,
        cut: Option<(WallTime, WallTime)>,
        end: u32,
    ) {
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

    pub(super) fn lost(&mut self, side: Side, gap: bool) {
        self.gaps += u64::from(gap);
        let parser = &mut self.ends[side as usize];
        parser.state = State::Lost;
        parser.out_of_step = true;
        if side == Side::Server {
            self.refute_provisional();
        }
    }

    /// Looks for a request where the place is lost: at the beginning of a packet.
    pub(super) fn request_after_gap(&mut self, piece: &Piece<'_>) {
        let parser = &self.ends[Side::Client as usize];
        if !matches!(parser.state, State::Lost | State::Cut) {
            return;
        }
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

    /// Looks for a response where the place is lost, or where a request shows that the one before
    /// is over.
    pub(super) fn response_after_gap(&mut self, piece: &Piece<'_>) {
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

    /// Returns `true` during a response whose request is not known for sure, and so not whether it
    /// has a body.
    pub(super) fn is_unsure(&self, side: Side) -> bool {
        let open = self.ends[side as usize].current.exchange;
        let open = open.and_then(|id| self.open.get(id.wrapping_sub(self.base) as usize));
        open.is_some_and(|open| open.exchange.method().is_none() || open.provisional)
    }

    /// The other end has sent more since: what follows may be of another message.
    pub(super) fn message_may_have_ended(&mut self, side: Side, end: u32) {
        self.message_ended(side, end, false);
        self.lost(side, false);
    }

    /// Notes that a packet of the message under way passed.
    pub(super) fn touch(&mut self, side: Side, time: WallTime, latest: WallTime) {
        let current = &mut self.ends[side as usize].current;
        let first = current.first.get().map_or(time, |first| first.min(time));
        current.first = first.into();
        current.last = current.last.max(latest.into());
        let (first, last) = (current.first, current.last);
        let open = current.exchange.map(|id| id.wrapping_sub(self.base));
        if let Some(open) = open.and_then(|at| self.open.get_mut(at as usize)) {
            let times = open.exchange.times(side);
            *times.0 = first;
            *times.1 = last.max(*times.1);
        }
    }

    /// The message under way, if there is one, has ended before `end`; `whole` if its last byte was
    /// captured.
    pub(super) fn message_ended(&mut self, side: Side, end: u32, whole: bool) {
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
                *open.exchange.times(side).1 = MaybeTime::default();
            }
        }
    }

    /// Takes bytes off the front of `bytes`, which is not empty and begins at `at`: how many, or
    /// `None` where the rest means nothing.
    pub(super) fn step(
        &mut self,
        side: Side,
        piece: &Piece<'_>,
        at: u32,
        bytes: &[u8],
    ) -> Option<usize> {
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
                if known == 0 {
                    // A head within one packet, as most are, is read where it lies.
                    if let Some(end) = message::end_of_head(&bytes[..all.min(MAX_HEAD)], 0) {
                        if !self.is_head(side, &bytes[..end]) {
                            return None;
                        }
                        self.message(side, &bytes[..end], false, past(end));
                        return Some(end);
                    }
                }
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
    pub(super) fn begin(
        &mut self,
        side: Side,
        piece: &Piece<'_>,
        at: u32,
        bytes: &[u8],
    ) -> Option<usize> {
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
    pub(super) fn is_head(&mut self, side: Side, head: &[u8]) -> bool {
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
    pub(super) fn head_is_cut(&mut self, side: Side) {
        let parser = &mut self.ends[side as usize];
        let end = parser.stream.next().unwrap_or(0);
        if let State::Head(head) = std::mem::take(&mut parser.state) {
            self.message(side, &head, true, end);
        }
    }

    /// Takes a head, whole or cut, that ends before `end`.
    pub(super) fn message(&mut self, side: Side, head: &[u8], cut: bool, end: u32) {
        match side {
            Side::Client => self.request(head, cut, end),
            Side::Server => self.response(head, cut, end),
        }
    }
}
