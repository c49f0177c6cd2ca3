//! The editor of the heads on one connection: bytes in; the same bytes out, with fields added to
//! heads that every reader understands alike. Pure.
//!
//! Bodies are followed, never changed. One doubt, and all further bytes of the connection pass
//! unchanged, in both directions: a reader that sees other messages in the same bytes must not be
//! misled by a field of ours (request smuggling, RFC 9112 §11.2). A head waits in the editor until
//! it is complete; its caller has the clock and ends that wait.

pub use super::pass_reason::PassReason;

use super::head::{self, BodyLength, Doubt, Doubts, MessageKind, LONGEST};
use std::collections::VecDeque;
use std::mem;

/// Most requests without an answer.
const MAX_OPEN: usize = 256;

/// Most digits of a chunk's size.
const DIGITS: u32 = 15;

/// A field to add to a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value, or the element to append.
    pub element: String,
    /// `true` if it becomes the last element of a field of that name, if there is one.
    pub joins: bool,
}

/// A head without a doubt that may be edited: a request's, or that of a final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EditableHead<'a> {
    /// Of a request or of the response to it.
    pub kind: MessageKind,
    /// The number of the request on its connection, from 0.
    pub number: u64,
    /// All bytes, the empty line included.
    pub bytes: &'a [u8],
}

impl EditableHead<'_> {
    /// Returns `true` for a message of HTTP/1.0.
    pub fn is_1_0(&self) -> bool {
        let line = self.bytes.split(|byte| *byte == b'\r').next();
        let line = line.unwrap_or_default();
        match self.kind {
            MessageKind::Request => line.ends_with(b"HTTP/1.0"),
            MessageKind::Response => line.starts_with(b"HTTP/1.0"),
        }
    }
}

/// The state of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between messages, or within a head.
    Head,
    /// So many bytes of body.
    Body(u64),
    /// Within the line with a chunk's size: the digits so far, the size, a CR.
    ChunkSize(u32, u64, bool),
    /// So many bytes of chunk.
    Chunk(u64),
    /// The line end behind a chunk: a CR.
    ChunkEnd(bool),
    /// Trailers: the bytes so far, those of the line, a CR.
    Trailer(usize, usize, bool),
    /// A response without a length.
    UntilClose,
}

/// One direction.
#[derive(Debug)]
struct Way {
    /// `true` if heads wait here until they are complete, else they pass as they come.
    holds: bool,
    state: State,
    /// The head so far.
    head: Vec<u8>,
    /// The number of bytes in the last line of `head`.
    line: usize,
    /// `true` once the first line of `head` is complete.
    has_line: bool,
}

/// A request without a final response.
#[derive(Clone, Copy, Debug)]
struct Expected {
    number: u64,
    is_head: bool,
    is_connect: bool,
    upgrades: bool,
    /// Its body is sent after 100, or never: who reads it must know which.
    expects: bool,
}

/// The editor of a connection.
#[derive(Debug)]
pub struct Editor {
    ways: [Way; 2],
    open: VecDeque<Expected>,
    /// The number of the next request.
    next: u64,
    /// `true` if a request to change the protocol has no answer.
    is_changing: bool,
    /// `true` once bytes of the latest request's body have come.
    has_body_begun: bool,
    /// `true` if all further bytes pass.
    passes: bool,
    /// The reason for that; `None` behind CONNECT and 101.
    reason: Option<PassReason>,
}

impl Editor {
    /// An editor at the first byte of a connection. A direction is `held` if its heads are edited.
    pub fn new(requests_held: bool, responses_held: bool) -> Self {
        let way = |holds| Way {
            holds,
            state: State::Head,
            head: Vec::new(),
            line: 0,
            has_line: false,
        };
        Self {
            ways: [way(requests_held), way(responses_held)],
            open: VecDeque::new(),
            next: 0,
            is_changing: false,
            has_body_begun: false,
            passes: false,
            reason: None,
        }
    }

    /// Returns `true` if heads of this direction are edited.
    pub fn holds(&self, kind: MessageKind) -> bool {
        self.ways[kind as usize].holds
    }

    /// Returns `true` if a head of this direction waits here for its end.
    pub fn is_holding(&self, kind: MessageKind) -> bool {
        let way = &self.ways[kind as usize];
        way.holds && !way.head.is_empty()
    }

    /// Returns `true` if all further bytes pass unchanged.
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// Takes the reason for that, once; `None` if there is none, or behind a change of protocol.
    pub fn take_reason(&mut self) -> Option<PassReason> {
        self.reason.take()
    }

    /// Takes bytes of a direction. Appends to `out` those that may leave now, if heads of this
    /// direction are edited. `add` gives the fields for each head.
    pub fn feed<'n>(
        &mut self,
        kind: MessageKind,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut add: impl FnMut(EditableHead<'_>) -> Vec<Addition<'n>>,
    ) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.passes {
                // The other direction may have had the doubt.
                self.release(kind, out);
                if self.ways[kind as usize].holds {
                    out.extend_from_slice(rest);
                }
                return;
            }
            let used = match self.ways[kind as usize].state {
                State::Head => self.head(kind, rest, out, &mut add),
                state => self.body(kind, state, rest, out),
            };
            rest = &rest[used..];
        }
    }

    /// Gives up a head that waits: it passes as it is, and so does all that follows.
    pub fn give_up(&mut self, kind: MessageKind, reason: PassReason, out: &mut Vec<u8>) {
        if !self.ways[kind as usize].head.is_empty() {
            self.pass(Some(reason));
        }
        self.release(kind, out);
    }

    fn pass(&mut self, reason: Option<PassReason>) {
        if !self.passes {
            self.passes = true;
            self.reason = reason;
            self.open = VecDeque::new();
        }
    }

    fn release(&mut self, kind: MessageKind, out: &mut Vec<u8>) {
        let way = &mut self.ways[kind as usize];
        let head = mem::take(&mut way.head);
        if way.holds {
            out.extend_from_slice(&head);
        }
    }

    /// Takes bytes of a head. Returns their number.
    fn head<'n>(
        &mut self,
        kind: MessageKind,
        bytes: &[u8],
        out: &mut Vec<u8>,
        add: &mut impl FnMut(EditableHead<'_>) -> Vec<Addition<'n>>,
    ) -> usize {
        if self.ways[kind as usize].head.is_empty() {
            let reason = match kind {
                MessageKind::Request if self.is_changing => Some(PassReason::Early),
                MessageKind::Request if self.open.len() >= MAX_OPEN => Some(PassReason::Many),
                MessageKind::Response if self.open.is_empty() => Some(PassReason::Unasked),
                _ => None,
            };
            if reason.is_some() {
                self.pass(reason);
                return 0;
            }
        }
        let way = &mut self.ways[kind as usize];
        for (at, byte) in bytes.iter().enumerate() {
            let step = way.byte(kind, *byte);
            match step {
                Ok(false) => {}
                Ok(true) => {
                    (way.line, way.has_line) = (0, false);
                    let head = mem::take(&mut way.head);
                    self.whole(kind, head, out, add);
                    return at + 1;
                }
                Err(doubt) => {
                    self.pass(Some(PassReason::Head(kind, doubt)));
                    self.release(kind, out);
                    return at + 1;
                }
            }
        }
        bytes.len()
    }

    /// Takes a head that is complete.
    fn whole<'n>(
        &mut self,
        kind: MessageKind,
        head: Vec<u8>,
        out: &mut Vec<u8>,
        add: &mut impl FnMut(EditableHead<'_>) -> Vec<Addition<'n>>,
    ) {
        let mut doubts = Doubts::default();
        let (mut upgrades, mut expects) = (false, false);
        let length = head::read(kind, &head, &mut doubts, |name, _| {
            upgrades |= name.eq_ignore_ascii_case(b"upgrade");
            expects |= name.eq_ignore_ascii_case(b"expect");
        });
        let doubt = doubts.iter().next();
        let begun = match (doubt, kind) {
            (Some(doubt), _) => Err(PassReason::Head(kind, doubt)),
            (None, MessageKind::Request) => self.request(&head, length, [upgrades, expects]),
            (None, MessageKind::Response) => self.response(&head, length),
        };
        let holds = self.ways[kind as usize].holds;
        match begun {
            Ok(Some(number)) => {
                let bytes = &head[..];
                let additions = add(EditableHead {
                    kind,
                    number,
                    bytes,
                });
                if holds {
                    write_edited(&head, &additions, out);
                }
            }
            Ok(None) if holds => out.extend_from_slice(&head),
            Ok(None) => {}
            Err(reason) => {
                self.pass(Some(reason));
                if holds {
                    out.extend_from_slice(&head);
                }
            }
        }
        let way = &mut self.ways[kind as usize];
        if way.head.capacity() == 0 && head.capacity() <= 2048 {
            // The next head of this connection finds its room.
            way.head = head;
            way.head.clear();
        }
    }

    /// Begins the body of a request. Returns the request's number.
    fn request(
        &mut self,
        head: &[u8],
        length: BodyLength,
        [upgrades, expects]: [bool; 2],
    ) -> Result<Option<u64>, PassReason> {
        let method = head.split(|byte| *byte == b' ').next().unwrap_or_default();
        let is_connect = method == b"CONNECT";
        if is_connect && !matches!(length, BodyLength::Unknown | BodyLength::Bytes(0)) {
            return Err(PassReason::Head(MessageKind::Request, Doubt::Length));
        }
        let number = self.next;
        self.next += 1;
        self.is_changing |= upgrades || is_connect;
        self.open.push_back(Expected {
            number,
            is_head: method == b"HEAD",
            is_connect,
            upgrades: upgrades && !is_connect,
            expects: expects && !matches!(length, BodyLength::Unknown | BodyLength::Bytes(0)),
        });
        self.has_body_begun = false;
        self.ways[MessageKind::Request as usize].state = match length {
            BodyLength::Chunked => State::ChunkSize(0, 0, false),
            BodyLength::Bytes(0) | BodyLength::Unknown => State::Head,
            BodyLength::Bytes(bytes) => State::Body(bytes),
        };
        Ok(Some(number))
    }

    /// Begins the body of a response. Returns the number of its request; `None` if its head stays
    /// as it is.
    fn response(&mut self, head: &[u8], length: BodyLength) -> Result<Option<u64>, PassReason> {
        let status = head.get(9..12).unwrap_or_default();
        let Some(expected) = self.open.front().copied() else {
            return Err(PassReason::Unasked);
        };
        let has_body = length != BodyLength::Unknown;
        let is_wrong = match status {
            [b'1', ..] => has_body,
            b"204" => has_body && length != BodyLength::Bytes(0),
            _ => false,
        };
        if is_wrong {
            return Err(PassReason::Head(MessageKind::Response, Doubt::Length));
        }
        if status == b"101" && !expected.upgrades {
            return Err(PassReason::Unasked);
        }
        if status[0] == b'1' && status != b"101" {
            return Ok(None); // The final response follows.
        }
        let is_latest = expected.number + 1 == self.next;
        if expected.expects && is_latest && !self.has_body_begun {
            return Err(PassReason::Unsent);
        }
        self.open.pop_front();
        if status == b"101" || (expected.is_connect && status[0] == b'2') {
            self.pass(None);
            return Ok(None);
        }
        if expected.upgrades || expected.is_connect {
            self.is_changing = false; // No request can have followed it.
        }
        let none = expected.is_head || matches!(status, b"204" | b"304");
        self.ways[MessageKind::Response as usize].state = match length {
            _ if none => State::Head,
            BodyLength::Chunked => State::ChunkSize(0, 0, false),
            BodyLength::Bytes(0) => State::Head,
            BodyLength::Bytes(bytes) => State::Body(bytes),
            BodyLength::Unknown => State::UntilClose,
        };
        Ok(Some(expected.number))
    }

    /// Takes bytes of a body. Returns their number.
    fn body(&mut self, kind: MessageKind, state: State, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        self.has_body_begun |= kind == MessageKind::Request;
        let all = bytes.len();
        let within = |left: u64| usize::try_from(left).map_or(all, |left| left.min(all));
        let next = match state {
            State::UntilClose | State::Head => Ok((all, state)),
            State::Body(left) => Ok(match within(left) {
                used if used as u64 == left => (used, State::Head),
                used => (used, State::Body(left - used as u64)),
            }),
            State::Chunk(left) => Ok(match within(left) {
                used if used as u64 == left => (used, State::ChunkEnd(false)),
                used => (used, State::Chunk(left - used as u64)),
            }),
            _ => framing_byte(state, bytes[0]).map(|state| (1, state)),
        };
        match next {
            Ok((used, state)) => {
                let way = &mut self.ways[kind as usize];
                way.state = state;
                if way.holds {
                    out.extend_from_slice(&bytes[..used]);
                }
                used
            }
            Err(reason) => {
                self.pass(Some(reason));
                0
            }
        }
    }
}

impl Way {
    /// Takes a byte of a head. Returns `true` if it ends there.
    fn byte(&mut self, kind: MessageKind, byte: u8) -> Result<bool, Doubt> {
        let last = self.head.last().copied();
        let at = self.head.len();
        self.head.push(byte);
        self.line += 1;
        if byte == b'\n' && last != Some(b'\r') {
            return Err(Doubt::BareLf);
        }
        if last == Some(b'\r') && byte != b'\n' {
            return Err(Doubt::BareCr);
        }
        if matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127) {
            return Err(Doubt::Control);
        }
        if self.head.len() > LONGEST {
            return Err(Doubt::TooLong);
        }
        if !self.has_line && !begins(kind, at, byte, &self.head) {
            return Err(Doubt::StartLine);
        }
        if byte != b'\n' {
            return Ok(false);
        }
        if !self.has_line {
            // Another protocol must not wait for an empty line.
            let mut doubts = Doubts::default();
            head::read(kind, &self.head, &mut doubts, |_, _| ());
            if doubts.iter().any(|doubt| doubt == Doubt::StartLine) {
                return Err(Doubt::StartLine);
            }
            self.has_line = true;
        }
        let is_empty = self.line == 2;
        self.line = 0;
        Ok(is_empty)
    }
}

/// Returns `true` if a first line of HTTP may have `byte` at `at`. Another protocol is found at its
/// first bytes mostly, so that it does not wait.
fn begins(kind: MessageKind, at: usize, byte: u8, line: &[u8]) -> bool {
    match kind {
        MessageKind::Response => b"HTTP/1.".get(at).map_or(true, |known| *known == byte),
        MessageKind::Request => {
            at >= 32 || (at > 0 && byte == b' ') || head::is_token(byte) || line.contains(&b' ')
        }
    }
}

/// Takes a byte that says where a chunk begins or ends.
fn framing_byte(state: State, byte: u8) -> Result<State, PassReason> {
    match (state, byte) {
        (State::ChunkSize(digits, size, false), _) if byte.is_ascii_hexdigit() => {
            let digit = char::from(byte).to_digit(16).unwrap_or_default();
            match digits < DIGITS {
                true => Ok(State::ChunkSize(
                    digits + 1,
                    size << 4 | u64::from(digit),
                    false,
                )),
                false => Err(PassReason::ChunkSize),
            }
        }
        (State::ChunkSize(1.., size, false), b'\r') => Ok(State::ChunkSize(1, size, true)),
        (State::ChunkSize(_, 0, true), b'\n') => Ok(State::Trailer(0, 0, false)),
        (State::ChunkSize(_, size, true), b'\n') => Ok(State::Chunk(size)),
        (State::ChunkEnd(false), b'\r') => Ok(State::ChunkEnd(true)),
        (State::ChunkEnd(true), b'\n') => Ok(State::ChunkSize(0, 0, false)),
        (State::ChunkEnd(_), _) => Err(PassReason::ChunkEnd),
        (State::Trailer(_, 0, true), b'\n') => Ok(State::Head),
        (State::Trailer(all, _, true), b'\n') => Ok(State::Trailer(all + 1, 0, false)),
        (State::Trailer(_, _, true) | State::Trailer(LONGEST.., ..), _) => Err(PassReason::Trailer),
        (State::Trailer(all, line, false), b'\r') => Ok(State::Trailer(all + 1, line, true)),
        (State::Trailer(_, _, false), 0..=8 | 10..=31 | 127) => Err(PassReason::Trailer),
        (State::Trailer(all, line, false), _) => Ok(State::Trailer(all + 1, line + 1, false)),
        _ => Err(PassReason::ChunkSize),
    }
}

/// Writes a head, which ends with an empty line, with what is added to it.
fn write_edited(head: &[u8], additions: &[Addition<'_>], out: &mut Vec<u8>) {
    let empty_line = head.len() - 2;
    let mut inserts = Vec::with_capacity(additions.len());
    for Addition {
        name,
        element,
        joins,
    } in additions
    {
        let found = joins.then(|| last_field(head, name.as_bytes())).flatten();
        inserts.push(match found {
            Some((end, true)) => (end, format!(" {element}")),
            Some((end, false)) => (end, format!(", {element}")),
            None => (empty_line, format!("{name}: {element}\r\n")),
        });
    }
    inserts.sort_by_key(|(at, _)| *at);
    let mut from = 0;
    for (at, text) in &inserts {
        out.extend_from_slice(&head[from..*at]);
        out.extend_from_slice(text.as_bytes());
        from = *at;
    }
    out.extend_from_slice(&head[from..]);
}

/// Returns the end of the value of the last field `name`, and `true` if the value is empty.
fn last_field(head: &[u8], name: &[u8]) -> Option<(usize, bool)> {
    let mut found = None;
    let mut at = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':');
        if let Some(colon) =
            colon.filter(|colon| at > 0 && line[..*colon].eq_ignore_ascii_case(name))
        {
            let value = &line[colon + 1..line.len() - 2];
            let is_empty = head::trimmed(value).is_empty();
            let trailing = value.len() - value.trim_ascii_end().len();
            // Behind the text, so that no space stands before the comma.
            let end = match is_empty {
                true => colon + 1,
                false => line.len() - 2 - trailing,
            };
            found = Some((at + end, is_empty));
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use MessageKind::{Request, Response};

    fn add(head: EditableHead<'_>) -> Vec<Addition<'static>> {
        let (name, element, joins) = match head.kind {
            Request => ("X-Path", format!("A t={}", head.number), true),
            Response => ("Server-Timing", format!("total;dur={}", head.number), false),
        };
        vec![Addition {
            name,
            element,
            joins,
        }]
    }

    /// Bytes of one direction, and the same with what is to be added.
    #[derive(Clone, Debug)]
    struct Turn {
        kind: MessageKind,
        sent: Vec<u8>,
        expected: Vec<u8>,
    }

    /// Feeds the turns in pieces of lengths that `piece` chooses. Returns what leaves, by kind.
    fn feed(
        editor: &mut Editor,
        turns: &[Turn],
        mut piece: impl FnMut(usize) -> usize,
    ) -> [Vec<u8>; 2] {
        let mut out = [Vec::new(), Vec::new()];
        for turn in turns {
            let mut rest = &turn.sent[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(piece(rest.len()).clamp(1, rest.len()));
                editor.feed(turn.kind, now, &mut out[turn.kind as usize], add);
                rest = later;
            }
        }
        for kind in [Request, Response] {
            editor.give_up(kind, PassReason::Cut, &mut out[kind as usize]);
        }
        out
    }

    fn expected(turns: &[Turn], of: impl Fn(&Turn) -> &[u8]) -> [Vec<u8>; 2] {
        let all = |kind| {
            let own = turns.iter().filter(move |turn| turn.kind == kind);
            own.flat_map(|turn| of(turn).iter().copied()).collect()
        };
        [all(Request), all(Response)]
    }

    #[track_caller]
    fn assert_leaves(
        turns: &[Turn],
        expected: &[Vec<u8>; 2],
        piece: impl FnMut(usize) -> usize,
    ) -> Editor {
        let mut editor = Editor::new(true, true);
        let out = feed(&mut editor, turns, piece);
        for kind in [Request, Response] {
            let (found, wanted) = (&out[kind as usize], &expected[kind as usize]);
            let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
            assert!(found == wanted, "{}\n{}", shown(found), shown(wanted));
        }
        editor
    }

    /// A body with its framing field.
    fn framed_body(random: &mut Random) -> (String, Vec<u8>) {
        let content: Vec<u8> = (0..random.below(200))
            .map(|_| random.next() as u8)
            .collect();
        if random.below(2) == 0 {
            return (format!("Content-Length: {}\r\n", content.len()), content);
        }
        let mut body = Vec::new();
        let mut rest = &content[..];
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(1 + random.below(rest.len()));
            match random.below(2) {
                0 => body.extend(format!("{:x}\r\n", chunk.len()).bytes()),
                _ => body.extend(format!("{:04X}\r\n", chunk.len()).bytes()),
            }
            body.extend(chunk);
            body.extend(b"\r\n");
            rest = later;
        }
        body.extend(b"0\r\n");
        if random.below(3) == 0 {
            body.extend(b"X-Check: 1\r\nX-Other:\r\n");
        }
        body.extend(b"\r\n");
        ("Transfer-Encoding: chunked\r\n".into(), body)
    }

    /// A request with a field X-Path that is absent, empty or a list, and its edited form.
    fn request(random: &mut Random, line: &str, fields: &str, body: &[u8], number: u64) -> Turn {
        let stamp = format!("A t={number}");
        let (before, after) = match random.below(4) {
            0 => (
                "x-path: B t=1\r\nX-PATH: C t=2".into(),
                format!("x-path: B t=1\r\nX-PATH: C t=2, {stamp}"),
            ),
            1 => ("X-Path: ".into(), format!("X-Path: {stamp} ")),
            2 => (
                "X-Path:B t=1 \t".into(),
                format!("X-Path:B t=1, {stamp} \t"),
            ),
            _ => (String::new(), String::new()),
        };
        let turn = |path: &str, end: &str| {
            let path = if path.is_empty() {
                String::new()
            } else {
                format!("{path}\r\n")
            };
            let mut bytes = format!("{line}\r\nHost: a\r\n{path}{fields}{end}\r\n").into_bytes();
            bytes.extend_from_slice(body);
            bytes
        };
        let end = if after.is_empty() {
            format!("X-Path: {stamp}\r\n")
        } else {
            String::new()
        };
        Turn {
            kind: Request,
            sent: turn(&before, ""),
            expected: turn(&after, &end),
        }
    }

    fn response(status: &str, fields: &str, body: &[u8], number: Option<u64>) -> Turn {
        let turn = |added: &str| {
            let mut bytes = format!("HTTP/1.1 {status}\r\n{fields}{added}\r\n").into_bytes();
            bytes.extend_from_slice(body);
            bytes
        };
        let added = number.map(|number| format!("Server-Timing: total;dur={number}\r\n"));
        Turn {
            kind: Response,
            sent: turn(""),
            expected: turn(&added.unwrap_or_default()),
        }
    }

    fn same(kind: MessageKind, bytes: &[u8]) -> Turn {
        Turn {
            kind,
            sent: bytes.into(),
            expected: bytes.into(),
        }
    }

    /// A conversation of every shape: pipelined or not, with an end that keeps the connection or
    /// makes it something else.
    fn conversation(random: &mut Random) -> Vec<Turn> {
        let mut turns = Vec::new();
        let mut number = 0;
        for _ in 0..1 + random.below(4) {
            let mut responses = Vec::new();
            for _ in 0..1 + random.below(3) {
                let n = Some(number);
                match random.below(6) {
                    0 => {
                        turns.push(request(random, "HEAD / HTTP/1.1", "", b"", number));
                        let (field, _) = framed_body(random);
                        responses.push(response("200 OK", &field, b"", n));
                    }
                    1 => {
                        let (field, body) = framed_body(random);
                        let fields = format!("Expect: 100-continue\r\n{field}");
                        turns.push(request(random, "POST /x HTTP/1.1", &fields, &body, number));
                        responses.push(response("100 Continue", "", b"", None));
                        responses.push(response("103 Early Hints", "Link: </a>\r\n", b"", None));
                        let (field, body) = framed_body(random);
                        responses.push(response("200 OK", &field, &body, n));
                    }
                    2 => {
                        turns.push(request(
                            random,
                            "GET /c HTTP/1.1",
                            "If-None-Match: x\r\n",
                            b"",
                            number,
                        ));
                        responses.push(response(
                            "304 Not Modified",
                            "Content-Length: 5\r\n",
                            b"",
                            n,
                        ));
                    }
                    3 => {
                        let (field, body) = framed_body(random);
                        turns.push(request(
                            random,
                            "PUT http://a/x HTTP/1.1",
                            &field,
                            &body,
                            number,
                        ));
                        responses.push(response("204 No Content", "", b"", n));
                    }
                    4 => {
                        turns.push(request(
                            random,
                            "GET / HTTP/1.0",
                            "Connection: keep-alive\r\n",
                            b"",
                            number,
                        ));
                        let (field, body) = framed_body(random);
                        responses.push(response("404 Not Found", &field, &body, n));
                    }
                    _ => {
                        let (field, body) = framed_body(random);
                        turns.push(request(random, "POST /x HTTP/1.1", &field, &body, number));
                        let (field, body) = framed_body(random);
                        responses.push(response("200", &field, &body, n));
                    }
                }
                number += 1;
            }
            turns.append(&mut responses);
        }
        let tunnelled = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\0\xff\r\n";
        match random.below(5) {
            0 => {
                let fields = "Connection: upgrade\r\nUpgrade: websocket\r\n";
                turns.push(request(random, "GET /ws HTTP/1.1", fields, b"", number));
                turns.push(response(
                    "101 Switching Protocols",
                    "Upgrade: websocket\r\n",
                    b"",
                    None,
                ));
                turns.extend([same(Response, tunnelled), same(Request, tunnelled)]);
            }
            1 => {
                turns.push(request(random, "CONNECT a HTTP/1.1", "", b"", number));
                turns.push(response("200 OK", "", b"", None));
                turns.extend([same(Request, tunnelled), same(Response, tunnelled)]);
            }
            2 => {
                // Refused: the connection stays HTTP.
                turns.push(request(random, "CONNECT a HTTP/1.1", "", b"", number));
                turns.push(response(
                    "403 Forbidden",
                    "Content-Length: 2\r\n",
                    b"no",
                    Some(number),
                ));
                turns.push(request(
                    random,
                    "GET / HTTP/1.1",
                    "Upgrade: h2c\r\n",
                    b"",
                    number + 1,
                ));
                turns.push(response(
                    "200 OK",
                    "Content-Length: 2\r\n",
                    b"ok",
                    Some(number + 1),
                ));
                turns.push(request(random, "GET / HTTP/1.1", "", b"", number + 2));
                turns.push(response(
                    "200 OK",
                    "",
                    b"to the end\r\n\r\nHTTP/1.1",
                    Some(number + 2),
                ));
            }
            _ => {}
        }
        turns
    }

    #[test]
    fn bytes_leave_as_they_came_but_for_what_is_added_however_they_are_cut() {
        for seed in 0..3_000 {
            let mut random = Random::new(seed);
            let turns = conversation(&mut random);
            let wanted = expected(&turns, |turn| &turn.expected);
            let mut editor = assert_leaves(&turns, &wanted, |left| 1 + random.below(left));
            assert_eq!(editor.take_reason(), None, "seed {seed}");
            assert_leaves(&turns, &wanted, |_| 1);
            assert_leaves(&turns, &wanted, |left| left);
        }
    }

    #[test]
    fn each_place_for_one_cut_is_like_any_other() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let turns = conversation(&mut random);
            let wanted = expected(&turns, |turn| &turn.expected);
            for (place, turn) in turns.iter().enumerate() {
                for cut in 1..turn.sent.len() {
                    let mut cut_turns = turns.clone();
                    let (first, second) = turn.sent.split_at(cut);
                    cut_turns[place].sent = first.into();
                    cut_turns.insert(place + 1, same(turn.kind, second));
                    assert_leaves(&cut_turns, &wanted, |left| left);
                }
            }
        }
    }

    /// A direction that is only followed gives nothing out, and the other one is edited alike.
    #[test]
    fn a_direction_that_is_only_followed_is_understood_alike() {
        for seed in 0..1_000 {
            let mut random = Random::new(seed);
            let turns = conversation(&mut random);
            let wanted = expected(&turns, |turn| &turn.expected);
            for held in [Request, Response] {
                let mut editor = Editor::new(held == Request, held == Response);
                let out = feed(&mut editor, &turns, |left| 1 + random.below(left));
                assert!(out[held as usize] == wanted[held as usize], "seed {seed}");
                assert!(out[1 - held as usize].is_empty(), "seed {seed}");
            }
        }
    }

    /// Heads, bodies and whatever else readers may understand differently.
    fn doubtful() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut post = |fields: &str, body: &str| {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
            all.push(text.into_bytes());
        };
        let inner = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
        for fields in [
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding : chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "X: y\nTransfer-Encoding: chunked\r\n",
            "X: y\rTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \u{b}chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "X: \0\r\n",
            "no colon\r\n",
            "X[y]: z\r\n",
            "Host: b\r\n",
        ] {
            post(fields, &format!("0\r\n\r\n{inner}"));
        }
        let long = "y".repeat(100_000);
        post(&format!("X: {long}\r\n"), "");
        post(&"X: y\r\n".repeat(12_000), "");
        for line in [
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "EHLO a\r\n",
            "*1\r\n$4\r\nPING\r\n",
            "CONNECT a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            all.push(line.as_bytes().into());
        }
        all.push(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec());
        all
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn what_readers_may_understand_differently_passes_unchanged_and_all_behind_it() {
        let mut random = Random::new(15);
        for bytes in doubtful() {
            let turns = [
                same(Request, &bytes),
                same(Request, GET),
                same(Response, b"HTTP/1.1 200 OK\r\n\r\nx"),
            ];
            let wanted = expected(&turns, |turn| &turn.sent);
            for way in 0..12 {
                let piece = |left: usize| match way {
                    0 => left,
                    1 => 1,
                    _ => 1 + random.below(left),
                };
                let mut editor = assert_leaves(&turns, &wanted, piece);
                let reason = editor.take_reason();
                assert!(
                    matches!(reason, Some(PassReason::Head(Request, _))),
                    "{reason:?}"
                );
                assert!(editor.passes() && editor.take_reason().is_none());
            }
        }
    }

    #[test]
    fn a_body_that_readers_may_understand_differently_passes_and_ends_the_editing() {
        for (body, reason) in [
            ("5;x=y\r\nhello\r\n0\r\n\r\n", PassReason::ChunkSize),
            ("5 \r\nhello\r\n0\r\n\r\n", PassReason::ChunkSize),
            ("0x5\r\nhello\r\n0\r\n\r\n", PassReason::ChunkSize),
            ("-5\r\nhello\r\n0\r\n\r\n", PassReason::ChunkSize),
            ("\r\nhello\r\n", PassReason::ChunkSize),
            ("5\nhello\r\n0\r\n\r\n", PassReason::ChunkSize),
            ("10000000000000005\r\nhello\r\n", PassReason::ChunkSize),
            ("5\r\nhello0\r\n\r\n", PassReason::ChunkEnd),
            ("5\r\nhello\n0\r\n\r\n", PassReason::ChunkEnd),
            ("0\r\nX: y\n\r\n", PassReason::Trailer),
            ("0\r\nX: \0\r\n\r\n", PassReason::Trailer),
            ("0\r\nX: y\rz\r\n\r\n", PassReason::Trailer),
        ] {
            let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
            let first = Turn {
                kind: Request,
                sent: format!("{post}\r\n{body}").into_bytes(),
                expected: format!("{post}X-Path: A t=0\r\n\r\n{body}").into_bytes(),
            };
            let turns = [first, same(Request, GET)];
            let wanted = expected(&turns, |turn| &turn.expected);
            for step in 1..4 {
                let mut editor = assert_leaves(&turns, &wanted, |_| step);
                assert_eq!(editor.take_reason(), Some(reason), "{body:?}");
            }
        }
    }

    #[test]
    fn a_response_that_nobody_asked_for_or_that_has_two_lengths_ends_the_editing() {
        let own = [request(&mut Random::new(3), "GET / HTTP/1.1", "", b"", 0)];
        for (answer, reason) in [
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                PassReason::Unasked,
            ),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                PassReason::Head(Response, Doubt::Length),
            ),
            (
                "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
                PassReason::Head(Response, Doubt::Length),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                PassReason::Head(Response, Doubt::Length),
            ),
            (
                "220 smtp.example\r\n",
                PassReason::Head(Response, Doubt::StartLine),
            ),
        ] {
            let turns = [
                &own[..],
                &[same(Response, answer.as_bytes()), same(Request, GET)],
            ]
            .concat();
            let wanted = expected(&turns, |turn| &turn.expected);
            let mut editor = assert_leaves(&turns, &wanted, |_| 1);
            assert_eq!(editor.take_reason(), Some(reason), "{answer:?}");
        }
        let turns = [
            same(Response, b"HTTP/1.1 408 Timeout\r\n\r\n"),
            same(Request, GET),
        ];
        let wanted = expected(&turns, |turn| &turn.sent);
        let mut editor = assert_leaves(&turns, &wanted, |left| left);
        assert_eq!(editor.take_reason(), Some(PassReason::Unasked));
    }

    /// A client may then send its next request instead of the body, or the body.
    #[test]
    fn a_response_instead_of_100_before_the_body_ends_the_editing() {
        for fields in ["Content-Length: 28\r\n", "Transfer-Encoding: chunked\r\n"] {
            let fields = format!("expect: 100-continue\r\n{fields}");
            let own = request(&mut Random::new(3), "POST / HTTP/1.1", &fields, b"", 0);
            let turns = [
                own,
                same(Response, b"HTTP/1.1 100 Continue\r\n\r\n"),
                same(Response, b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"),
                same(Request, &GET.repeat(2)),
            ];
            let wanted = expected(&turns, |turn| &turn.expected);
            let mut editor = assert_leaves(&turns, &wanted, |_| 1);
            assert_eq!(editor.take_reason(), Some(PassReason::Unsent));
        }
        // Without a body there is nothing to wait for.
        let turns = [
            request(
                &mut Random::new(3),
                "GET / HTTP/1.1",
                "Expect: x\r\n",
                b"",
                0,
            ),
            response("417 No", "Content-Length: 0\r\n", b"", Some(0)),
        ];
        let wanted = expected(&turns, |turn| &turn.expected);
        assert_leaves(&turns, &wanted, |_| 1);
    }

    #[test]
    fn bytes_behind_a_change_of_protocol_that_has_no_answer_yet_pass() {
        for line in [
            "CONNECT a HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n",
        ] {
            let first = Turn {
                kind: Request,
                sent: format!("{line}\r\n").into_bytes(),
                expected: format!("{line}X-Path: A t=0\r\n\r\n").into_bytes(),
            };
            let turns = [first, same(Request, GET)];
            let wanted = expected(&turns, |turn| &turn.expected);
            let mut editor = assert_leaves(&turns, &wanted, |left| left);
            assert_eq!(editor.take_reason(), Some(PassReason::Early));
        }
    }

    #[test]
    fn a_head_that_takes_too_long_passes_as_it_is_with_the_rest() {
        let (mut editor, mut out) = (Editor::new(true, false), Vec::new());
        editor.feed(Request, &GET[..20], &mut out, add);
        assert!(out.is_empty() && editor.is_holding(Request));
        editor.give_up(Request, PassReason::Slow, &mut out);
        assert!(out == GET[..20] && !editor.is_holding(Request));
        assert_eq!(editor.take_reason(), Some(PassReason::Slow));
        editor.feed(Request, &GET[20..], &mut out, add);
        editor.feed(Request, GET, &mut out, add);
        assert!(out == GET.repeat(2));
    }

    #[test]
    fn a_doubt_of_one_direction_frees_the_head_that_the_other_one_holds() {
        let mut editor = Editor::new(true, true);
        let (mut out, mut back) = (Vec::new(), Vec::new());
        editor.feed(Request, &GET[..20], &mut out, add);
        editor.feed(Response, b"220 smtp\r\n", &mut back, add);
        assert!(out.is_empty() && editor.passes());
        editor.feed(Request, &GET[20..], &mut out, add);
        assert!(out == GET && back == b"220 smtp\r\n");
    }

    #[test]
    fn what_is_remembered_of_requests_without_an_answer_is_bounded() {
        let (mut editor, mut out) = (Editor::new(true, true), Vec::new());
        editor.feed(Request, &GET.repeat(10_000), &mut out, add);
        assert_eq!(editor.take_reason(), Some(PassReason::Many));
        assert!(out.ends_with(&GET.repeat(10_000 - MAX_OPEN)));
    }

    #[test]
    fn harm_of_any_kind_changes_no_byte_but_what_is_added() {
        const LINE: &[u8] = b"Added-By: me\r\n";
        let add = |_: EditableHead<'_>| {
            vec![Addition {
                name: "Added-By",
                element: "me".into(),
                joins: true,
            }]
        };
        let mut added = 0;
        for seed in 0..20_000 {
            let mut random = Random::new(seed);
            let mut turns = conversation(&mut random);
            let place = random.below(turns.len());
            random.damage(&mut turns[place].sent);
            let mut editor = Editor::new(true, true);
            let mut out = [Vec::new(), Vec::new()];
            for turn in &turns {
                for piece in turn.sent.chunks(1 + random.below(100)) {
                    editor.feed(turn.kind, piece, &mut out[turn.kind as usize], add);
                }
            }
            let sent = expected(&turns, |turn| &turn.sent);
            for kind in [Request, Response] {
                let out = &mut out[kind as usize];
                editor.give_up(kind, PassReason::Cut, out);
                while let Some(at) = out.windows(LINE.len()).position(|line| line == LINE) {
                    out.drain(at..at + LINE.len());
                    added += 1;
                }
                assert!(*out == sent[kind as usize], "seed {seed}");
            }
        }
        assert!(added > 20_000, "{added}");
    }
}
