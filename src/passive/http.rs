//! Payload of one connection in; HTTP/1.x requests and responses with the times of their packets out.
//!
//! Read RFC 9112 first (§6 for how long a message is). Bodies are counted, not read, so a snap length that cuts them
//! does no harm; one that cuts a head ends the search until a packet begins with a new one.

use super::side::Side;
use crate::time::{SignedNanos, WallTime};

/// Most exchanges kept per connection.
const MAX_EXCHANGES: usize = 1000;

/// The longest head, or line of a chunk, that is gathered.
const MAX_HEAD: usize = 16 * 1024;

/// The methods of RFC 9110 §9.3, RFC 5789 and WebDAV that begin a request.
const METHODS: [&str; 16] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "REPORT",
];

/// One request and its response, as the capture point saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// `None` where the request was not seen.
    pub method: Option<&'static str>,
    /// The final status, not 1xx (but 101); `None` where no response was seen.
    pub status: Option<u16>,
    /// First packet of the request.
    pub request_first: Option<WallTime>,
    /// Last packet of the request.
    pub request_last: Option<WallTime>,
    /// First packet of the response.
    pub response_first: Option<WallTime>,
    /// Last packet of the response.
    pub response_last: Option<WallTime>,
}

impl Exchange {
    /// From the request's first packet to the response's first.
    pub fn time_to_first_byte(&self) -> Option<SignedNanos> {
        Some(self.response_first? - self.request_first?)
    }
}

/// Where a direction's parser is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between messages, or lost: at the start of a packet that looks like a head.
    #[default]
    Between,
    /// Gathering a head.
    Head(Vec<u8>),
    /// So many bytes of body.
    Body(u64),
    /// Gathering the line that tells a chunk's size.
    ChunkSize(Vec<u8>),
    /// So many bytes of chunk, its line end included.
    Chunk(u64),
    /// After the last chunk: lines until an empty one. Whether the line so far is empty.
    Trailer(bool),
    /// A response without a length.
    UntilClose,
}

#[derive(Clone, Debug, Default)]
struct Parser {
    state: State,
    /// The next sequence number in order.
    next: Option<u32>,
    /// When the current message began.
    began: WallTime,
    /// Which exchange the current message belongs to, once its head was read.
    current: Option<usize>,
}

/// The HTTP/1.x side of a connection.
#[derive(Clone, Debug, Default)]
pub struct Http {
    /// In the order of the requests.
    pub exchanges: Vec<Exchange>,
    /// Exchanges beyond those kept.
    pub dropped: u64,
    parsers: [Parser; 2],
    /// The exchange that the next response answers.
    answered: usize,
    /// After CONNECT or an upgrade the bytes are something else.
    tunnel: bool,
}

/// Whether a payload of `side` begins like a message: a reason to look closer.
#[inline]
pub(super) fn looks_like_http(side: Side, payload: &[u8]) -> bool {
    match (side, payload) {
        (Side::Server, [b'H', ..]) => payload.starts_with(b"HTTP/1."),
        (Side::Client, [b'A'..=b'Z', ..]) => method(payload).is_some(),
        _ => false,
    }
}

fn method(payload: &[u8]) -> Option<&'static str> {
    let end = payload.iter().take(10).position(|byte| *byte == b' ')?;
    METHODS
        .into_iter()
        .find(|name| name.as_bytes() == &payload[..end])
}

impl Http {
    /// Takes payload as a process reads it: all of it, in order. How many exchanges were added.
    pub fn read(&mut self, now: WallTime, side: Side, payload: &[u8]) -> usize {
        let seq = self.parsers[side as usize].next.unwrap_or(0);
        self.feed(now, side, seq, payload.len() as u32, payload)
    }

    /// Takes payload as it passed: `length` bytes from `seq`, of which `payload` was captured. How many
    /// exchanges were added.
    pub(super) fn feed(
        &mut self,
        now: WallTime,
        side: Side,
        seq: u32,
        length: u32,
        payload: &[u8],
    ) -> usize {
        let before = self.exchanges.len();
        let parser = &mut self.parsers[side as usize];
        let end = seq.wrapping_add(length);
        let next = *parser.next.get_or_insert(seq);
        let ahead = seq.wrapping_sub(next) as i32;
        let mut payload = payload;
        let mut left = u64::from(length);
        if ahead < 0 {
            // Repeated, or late. Late bytes belong to the message as well.
            if let Some(current) = parser.current {
                touch(&mut self.exchanges, current, side, now);
            }
            let known = next.wrapping_sub(seq);
            if known >= length {
                return 0;
            }
            payload = payload.get(known as usize..).unwrap_or(&[]);
            left -= u64::from(known);
        } else if ahead > 0 {
            self.missing(side, u64::from(ahead.unsigned_abs()));
        }
        self.parsers[side as usize].next = Some(end);
        while !payload.is_empty() && !self.tunnel {
            let Some(used) = self.step(now, side, payload) else {
                break;
            };
            left -= used as u64;
            payload = &payload[used..];
        }
        if payload.is_empty() && left > 0 {
            self.missing(side, left);
        }
        if let Some(current) = self.parsers[side as usize].current {
            touch(&mut self.exchanges, current, side, now);
        }
        self.exchanges.len() - before
    }

    /// `bytes` bytes that were not captured: harmless within a body, else the place is lost.
    fn missing(&mut self, side: Side, bytes: u64) {
        let parser = &mut self.parsers[side as usize];
        parser.state = match std::mem::take(&mut parser.state) {
            State::Body(left) if bytes < left => State::Body(left - bytes),
            State::Chunk(left) if bytes < left => State::Chunk(left - bytes),
            State::Chunk(left) if bytes == left => State::ChunkSize(Vec::new()),
            State::UntilClose => State::UntilClose,
            _ => State::Between,
        };
    }

    /// Takes bytes off the front of `payload`, which is not empty: how many, or `None` where the rest means nothing.
    fn step(&mut self, now: WallTime, side: Side, payload: &[u8]) -> Option<usize> {
        let parser = &mut self.parsers[side as usize];
        let all = payload.len();
        match std::mem::take(&mut parser.state) {
            State::Between => {
                if !looks_like_http(side, payload) {
                    return None;
                }
                parser.began = now;
                parser.current = None;
                parser.state = State::Head(Vec::new());
                Some(0)
            }
            State::Head(mut head) => {
                let known = head.len();
                let room = MAX_HEAD - known;
                head.extend_from_slice(&payload[..all.min(room)]);
                let Some(end) = end_of_head(&head, known) else {
                    if head.len() < MAX_HEAD {
                        parser.state = State::Head(head);
                    }
                    return Some(all);
                };
                self.message(now, side, &head[..end]);
                Some(end.saturating_sub(known))
            }
            State::Body(left) => {
                let used = usize::try_from(left).map_or(all, |left| left.min(all));
                if left > used as u64 {
                    parser.state = State::Body(left - used as u64);
                }
                Some(used)
            }
            State::ChunkSize(mut line) => {
                let Some(end) = payload.iter().position(|byte| *byte == b'\n') else {
                    line.extend_from_slice(&payload[..all.min(MAX_HEAD - line.len())]);
                    if line.len() < MAX_HEAD {
                        parser.state = State::ChunkSize(line);
                    }
                    return Some(all);
                };
                line.extend_from_slice(&payload[..end.min(MAX_HEAD - line.len())]);
                let digits = line.split(|byte| *byte == b';').next().unwrap_or(&[]);
                let size = std::str::from_utf8(digits).ok();
                match size.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()) {
                    Some(0) => parser.state = State::Trailer(true),
                    Some(size) if size < u64::MAX - 2 => parser.state = State::Chunk(size + 2),
                    _ => {}
                }
                Some(end + 1)
            }
            State::Chunk(left) => {
                let used = usize::try_from(left).map_or(all, |left| left.min(all));
                parser.state = match left - used as u64 {
                    0 => State::ChunkSize(Vec::new()),
                    left => State::Chunk(left),
                };
                Some(used)
            }
            State::Trailer(mut empty) => {
                for (at, byte) in payload.iter().enumerate() {
                    match byte {
                        b'\n' if empty => return Some(at + 1),
                        b'\n' => empty = true,
                        b'\r' => {}
                        _ => empty = false,
                    }
                }
                parser.state = State::Trailer(empty);
                Some(all)
            }
            State::UntilClose => {
                parser.state = State::UntilClose;
                Some(all)
            }
        }
    }

    /// Takes a complete head.
    fn message(&mut self, now: WallTime, side: Side, head: &[u8]) {
        let parser = &mut self.parsers[side as usize];
        let length = Length::of(head);
        let blank = Exchange {
            method: None,
            status: None,
            request_first: None,
            request_last: None,
            response_first: None,
            response_last: None,
        };
        if side == Side::Client {
            parser.state = match length {
                Length::Chunked => State::ChunkSize(Vec::new()),
                Length::Bytes(bytes) if bytes > 0 => State::Body(bytes),
                _ => State::Between,
            };
            if self.exchanges.len() == MAX_EXCHANGES {
                self.dropped += 1;
                return;
            }
            parser.current = Some(self.exchanges.len());
            self.exchanges.push(Exchange {
                method: method(head),
                request_first: Some(parser.began),
                request_last: Some(now),
                ..blank
            });
            return;
        }
        let Some(status) = status(head) else { return };
        if (100..200).contains(&status) && status != 101 {
            return; // Interim: the final response follows.
        }
        if self.answered == self.exchanges.len() {
            if self.exchanges.len() == MAX_EXCHANGES {
                self.dropped += 1;
                parser.current = None;
            } else {
                self.exchanges.push(blank); // Its request passed before the capture began.
            }
        }
        let mut method = None;
        if let Some(exchange) = self.exchanges.get_mut(self.answered) {
            exchange.status = Some(status);
            exchange.response_first = Some(parser.began);
            exchange.response_last = Some(now);
            method = exchange.method;
            parser.current = Some(self.answered);
            self.answered += 1;
        }
        self.tunnel = status == 101 || (method == Some("CONNECT") && status / 100 == 2);
        // RFC 9112 §6.3, in its order.
        parser.state = match length {
            _ if method == Some("HEAD") || status == 204 || status == 304 => State::Between,
            Length::Chunked => State::ChunkSize(Vec::new()),
            Length::Bytes(0) => State::Between,
            Length::Bytes(bytes) => State::Body(bytes),
            Length::Unknown => State::UntilClose,
        };
    }
}

/// Notes that a packet of `side`'s message passed.
fn touch(exchanges: &mut [Exchange], current: usize, side: Side, now: WallTime) {
    let Some(exchange) = exchanges.get_mut(current) else {
        return;
    };
    let last = match side {
        Side::Client => &mut exchange.request_last,
        Side::Server => &mut exchange.response_last,
    };
    *last = (*last).max(Some(now));
}

/// One past the empty line that ends a head, of which the first `known` bytes were looked at before.
fn end_of_head(head: &[u8], known: usize) -> Option<usize> {
    let line_ends = (known..head.len()).filter(|at| head[*at] == b'\n');
    let mut empty = line_ends.filter(|at| {
        let before = &head[..*at];
        before.ends_with(b"\n") || before.ends_with(b"\n\r")
    });
    empty.next().map(|at| at + 1)
}

/// `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let digits = head.get(9..12)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

enum Length {
    Unknown,
    Bytes(u64),
    Chunked,
}

impl Length {
    fn of(head: &[u8]) -> Self {
        let mut length = Self::Unknown;
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let value = String::from_utf8_lossy(&line[colon + 1..]);
            let value = value.trim();
            if line[..colon].eq_ignore_ascii_case(b"transfer-encoding") {
                if value.to_ascii_lowercase().ends_with("chunked") {
                    return Self::Chunked;
                }
            } else if line[..colon].eq_ignore_ascii_case(b"content-length") {
                if let Ok(bytes) = value.parse() {
                    length = Self::Bytes(bytes);
                }
            }
        }
        length
    }
}
