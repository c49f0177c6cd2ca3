//! Heads in; exchanges out: which response answers which request, and which of it is known for
//! sure.

use super::super::maybe_time::MaybeTime;
use super::super::message;
use super::super::reassembly::{distance, Piece};
use super::super::side::Side;
use super::{Current, Exchange, Http, Open, State};
use super::{MAX_EXCHANGES, MAX_OPEN, MAX_STAMPS, MAX_STATUSES};
use crate::http::head::{self, BodyLength, MessageKind};
use crate::http::stamp::StampedHeaders;

impl Http {
    /// Returns `true` if a request that begins at `seq` cannot be of one burst with what precedes
    /// it.
    pub(super) fn is_apart(&mut self, side: Side, seq: u32, length: u32, ack: Option<u32>) -> bool {
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

    /// A segment that passed before, in part or in full, belongs to its messages as long as it was
    /// needed.
    pub(super) fn repeated(&mut self, side: Side, piece: &Piece<'_>) {
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
            current.last = current.last.max(piece.time.into());
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
                if last.is_some() {
                    *last = (*last).max(piece.time.into());
                }
            }
        }
    }

    /// The request that was sent when everything before `seq` had arrived. With `lost` bytes before
    /// `seq` also the one that was the last to arrive when the response was sent.
    pub(super) fn by_position(&self, seq: u32, ack: Option<u32>, lost: bool) -> Option<usize> {
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

    /// Reads the fields of a head. The last line of one that was cut may lack its end.
    fn fields(
        &self,
        kind: MessageKind,
        head: &[u8],
        cut: bool,
        headers: &mut Option<Box<StampedHeaders>>,
    ) -> BodyLength {
        let whole = head.iter().rposition(|byte| *byte == b'\n').filter(|_| cut);
        let head = whole.map_or(head, |end| &head[..end]);
        match &self.names {
            Some(names) => head::read(kind, head, &mut (), |name, value| {
                names.read(kind, name, value, headers);
            }),
            None => head::read(kind, head, &mut (), |_, _| ()),
        }
    }

    pub(super) fn request(&mut self, head: &[u8], cut: bool, end: u32) {
        let line = message::request_line(head);
        let mut headers = None;
        let length = self.fields(MessageKind::Request, head, cut, &mut headers);
        if let Some(headers) = &mut headers {
            let first = self.ends[Side::Client as usize].current.first;
            headers.resolve(MessageKind::Request, first.get(), &self.clocks);
            self.trace_parent = self.trace_parent.or(headers.trace_parent);
        }
        let parser = &mut self.ends[Side::Client as usize];
        let current = &mut parser.current;
        current.exchange = Some(self.base + self.open.len() as u64);
        let mut exchange = Exchange::new(line.method);
        exchange.request_first = current.first;
        exchange.request_last = current.last;
        exchange.request_seq = Some(current.seq);
        exchange.set_headers(headers);
        if let Some(target) = line.target.filter(|_| self.with_targets) {
            exchange.rare().target = Some(message::target(target));
        }
        self.open.push_back(Open {
            exchange,
            ack: current.ack,
            apart: current.apart,
            follows: !parser.out_of_step,
            answered: self
                .alone
                .is_some_and(|alone| distance(alone, current.seq) > 0),
            ..Open::default()
        });
        parser.out_of_step = cut;
        parser.state = match length {
            _ if cut => State::Cut,
            BodyLength::Chunked => State::ChunkSize(Vec::new()),
            BodyLength::Bytes(bytes) if bytes > 0 => State::Body(bytes),
            _ => return self.message_ended(Side::Client, end, true),
        };
    }

    pub(super) fn response(&mut self, head: &[u8], cut: bool, end: u32) {
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
        let mut headers = self.open[at].exchange.take_headers();
        let length = self.fields(MessageKind::Response, head, cut, &mut headers);
        if let Some(headers) = &mut headers {
            headers.resolve(MessageKind::Response, current.first.get(), &self.clocks);
        }
        let open = &mut self.open[at];
        open.exchange.set_headers(headers);
        open.answered = true;
        open.exchange.status = status;
        open.exchange.response_first = current.first;
        open.exchange.response_last = current.last;
        open.exchange.response_seq = Some(current.seq);
        let method = open.exchange.method();
        let success = status.is_some_and(|status| status / 100 == 2);
        let tunnel = status == Some(101) || (method == Some("CONNECT") && success);
        let none = method == Some("HEAD") || matches!(status, Some(204 | 304));
        let parser = &mut self.ends[Side::Server as usize];
        parser.current.exchange = Some(self.base + at as u64);
        // RFC 9112 §6.3, in its order.
        parser.state = match length {
            _ if cut => {
                parser.out_of_step = true;
                State::Cut
            }
            BodyLength::Bytes(0) => return self.message_ended(Side::Server, end, true),
            _ if none || tunnel => {
                self.message_ended(Side::Server, end, true);
                if tunnel {
                    self.tunnel = true;
                    self.ends.iter_mut().for_each(|end| end.stream.clear());
                }
                return;
            }
            BodyLength::Chunked => State::ChunkSize(Vec::new()),
            BodyLength::Bytes(bytes) => State::Body(bytes),
            BodyLength::Unknown => State::UntilClose,
        };
    }

    /// Finds the request that this response answers.
    pub(super) fn answered_by(&mut self, current: &Current) -> Option<usize> {
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
    pub(super) fn response_alone(&mut self, ack: Option<u32>) -> usize {
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
    pub(super) fn refute_provisional(&mut self) {
        for open in self.open.iter_mut().filter(|open| open.provisional) {
            open.provisional = false;
            open.exchange.status = None;
            open.exchange.response_first = MaybeTime::default();
            open.exchange.response_last = MaybeTime::default();
            open.exchange.response_seq = None;
            let rare = open.exchange.rare.as_mut();
            if let Some(headers) = rare.and_then(|rare| rare.headers.as_mut()) {
                headers.forget_response();
            }
        }
    }

    /// Closes the exchanges that are over.
    pub(super) fn settle(&mut self, room: usize) {
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
    pub(super) fn close(&mut self, room: usize) {
        let Some(open) = self.open.pop_front() else {
            return;
        };
        self.base += 1;
        let mut exchange = open.exchange;
        if let Some(headers) = exchange.headers() {
            self.stamped.push((headers.clone(), exchange.own_times()));
            let memory = headers.memory();
            let is_kept = self.exchanges.len() < MAX_EXCHANGES && room > 0;
            if is_kept && self.stamp_memory + memory <= MAX_STAMPS {
                self.stamp_memory += memory;
            } else {
                exchange.take_headers();
            }
        }
        self.has_method |= exchange.method().is_some();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stamp::StampNames;
    use crate::random::Random;
    use crate::time::WallTime;
    use std::sync::Arc;

    const NOW: WallTime = WallTime(1_795_253_400_500_000_000);

    fn reader() -> Http {
        Http::of_process(Some(Arc::new(StampNames::new(&["X-Stamp".into()]))))
    }

    fn request(stamp: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Stamp: {stamp}\r\nContent-Length: 0\r\n\r\n")
    }

    const RESPONSE: &str =
        "HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 2\r\n\r\nhi";

    /// However the bytes are cut, each request has its own stamps and its own response's.
    #[test]
    fn stamps_belong_to_their_request_and_response_however_the_bytes_are_cut() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut http = reader();
            let count = 1 + random.below(5);
            let requests: String = (0..count)
                .map(|at| request(&format!("p{at} 1795253400.{at}00")))
                .collect();
            let mut feed = |side: Side, bytes: &str| {
                let mut rest = bytes.as_bytes();
                while !rest.is_empty() {
                    let (piece, later) = rest.split_at(1 + random.below(rest.len()));
                    http.read(NOW, side, piece);
                    rest = later;
                }
            };
            feed(Side::Client, &requests);
            feed(Side::Server, &RESPONSE.repeat(count));
            assert_eq!(http.take_stamped().len(), count, "seed {seed}");
            for (at, exchange) in http.exchanges.iter().enumerate() {
                let headers = exchange.headers().expect("stamps");
                let names: Vec<_> = headers.stamps.iter().map(|stamp| stamp.who()).collect();
                assert_eq!(names, [format!("p{at}")], "seed {seed}");
                assert_eq!(headers.timings.len(), 1, "seed {seed}");
            }
        }
    }

    #[test]
    fn the_stamps_that_a_connection_keeps_are_bounded_and_all_are_given_once() {
        let mut http = reader();
        let (mut given, request) = (0, request(&vec!["a 1795253400.1"; 16].join(", ")));
        for _ in 0..500 {
            http.read(NOW, Side::Client, request.as_bytes());
            http.read(NOW, Side::Server, RESPONSE.as_bytes());
            given += http.take_stamped().len();
        }
        let kept = http.exchanges.iter().filter_map(Exchange::headers);
        let memory: usize = kept.map(|headers| headers.memory()).sum();
        assert!(
            given == 500 && memory > 0 && memory <= MAX_STAMPS,
            "{given} {memory}"
        );
    }

    /// The last line of a cut head may lack digits of a stamp.
    #[test]
    fn a_stamp_in_a_line_that_was_cut_is_not_read() {
        let http = reader();
        let head = "GET / HTTP/1.1\r\nX-Stamp: a 1795253400.1\r\nX-Stamp: b 1795253400.25";
        for length in 0..=head.len() {
            let mut headers = None;
            let kind = MessageKind::Request;
            http.fields(kind, &head.as_bytes()[..length], true, &mut headers);
            let stamps = headers.map_or(0, |headers| headers.stamps.len());
            assert_eq!(stamps, usize::from(length >= 41), "{length}");
        }
    }
}
