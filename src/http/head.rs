//! The head of an HTTP/1.x message: bytes in; its fields, the length of its body and a list of
//! doubts out. Pure.
//!
//! Read RFC 9112 first: §2.2 (line ends), §5 (fields) and §6 (how long a message is). A reader of
//! what others exchange passes `()` for the doubts. A head that a program edits must have none:
//! another reader might see other messages in the same bytes (request smuggling).

/// The longest head without a doubt, in bytes.
pub const LONGEST: usize = 64 << 10;

/// The kind of the message that a head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// From the client.
    Request,
    /// From the server.
    Response,
}

/// The length of a body, by its head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// The head names none.
    Unknown,
    /// Bytes.
    Bytes(u64),
    /// Chunks, up to an empty one.
    Chunked,
}

/// A reason for which two readers may understand a head differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The empty line that ends it is missing, or something follows that line.
    Incomplete,
    /// It is longer than [`LONGEST`].
    TooLong,
    /// Its first line is not that of HTTP/1.0 or HTTP/1.1.
    StartLine,
    /// A line ends without CR.
    BareLf,
    /// A CR ends no line.
    BareCr,
    /// A control character, NUL among them.
    Control,
    /// A line continues the one before (obs-fold).
    Fold,
    /// A line without a colon.
    NoColon,
    /// Whitespace before a colon, or a name with another character that no token has.
    Name,
    /// Both Content-Length and Transfer-Encoding.
    TwoFramings,
    /// Several lengths, or one that is no number of bytes.
    Length,
    /// A Transfer-Encoding other than `chunked` alone, or one under HTTP/1.0.
    Encoding,
    /// No Host under HTTP/1.1, several, or another one than that of the target.
    Host,
}

impl Doubt {
    /// Every doubt.
    pub const ALL: [Self; 13] = [
        Self::Incomplete,
        Self::TooLong,
        Self::StartLine,
        Self::BareLf,
        Self::BareCr,
        Self::Control,
        Self::Fold,
        Self::NoColon,
        Self::Name,
        Self::TwoFramings,
        Self::Length,
        Self::Encoding,
        Self::Host,
    ];
}

/// A list of doubts, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubts(u16);

impl Doubts {
    /// Returns `true` if there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the doubts, in the order of [`Doubt::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Doubt> {
        let has = move |doubt: &Doubt| self.0 & (1 << *doubt as u16) != 0;
        Doubt::ALL.into_iter().filter(has)
    }
}

/// A receiver of doubts; `()` does not look for any.
pub trait Judge {
    /// `false` if nothing is looked for.
    const LOOKS: bool;

    /// Takes a doubt.
    fn doubt(&mut self, doubt: Doubt);
}

impl Judge for () {
    const LOOKS: bool = false;

    fn doubt(&mut self, _: Doubt) {}
}

impl Judge for Doubts {
    const LOOKS: bool = true;

    fn doubt(&mut self, doubt: Doubt) {
        self.0 |= 1 << doubt as u16;
    }
}

/// Returns `true` for the characters of a token (RFC 9110 §5.6.2).
#[inline]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^'..=b'`' | b'|' | b'~')
}

/// Returns `bytes` without the whitespace and line ends around them.
pub fn trimmed(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// Reads a head, whole or cut, and gives the name and the raw value of each field to `field`, in
/// order. Returns the length of the body.
///
/// With doubts the length is the one that `()` finds too: chunked before any Content-Length, the
/// last readable Content-Length before others.
#[inline]
pub fn read<'a, J: Judge>(
    kind: MessageKind,
    head: &'a [u8],
    judge: &mut J,
    mut field: impl FnMut(&'a [u8], &'a [u8]),
) -> BodyLength {
    let mut framing = Framing::default();
    let mut rest = Some(head);
    let mut lines = std::iter::from_fn(|| {
        let all = rest?;
        let end = position(b'\n', all);
        rest = end.map(|end| &all[end + 1..]);
        Some(end.map_or(all, |end| &all[..end]))
    });
    let first = lines.next().unwrap_or_default();
    let mut host = Host::default();
    if J::LOOKS {
        whole(head, judge);
        host = Host::of(kind, first, judge);
    }
    for line in lines {
        let Some(colon) = position(b':', line) else {
            if J::LOOKS && !matches!(line, [] | [b'\r']) {
                judge.doubt(Doubt::NoColon);
            }
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if J::LOOKS {
            match name.first() {
                Some(b' ' | b'\t') => judge.doubt(Doubt::Fold),
                Some(_) if name.iter().all(|byte| is_token(*byte)) => {}
                _ => judge.doubt(Doubt::Name),
            }
            host.field(name, value, judge);
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => framing.length(value, judge),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                framing.encoding(value, judge);
            }
            _ => {}
        }
        field(name, value);
    }
    if J::LOOKS {
        host.end(judge);
        if framing.chunked_1_0 && host.is_1_0 {
            judge.doubt(Doubt::Encoding);
        }
    }
    framing.found(judge)
}

/// Returns the place of the first `byte`; eight bytes are looked at at a time.
#[inline]
pub(crate) fn position(byte: u8, bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (mut at, mut rest) = (0, bytes);
    while let Some((&[a, b, c, d, e, f, g, h], later)) = rest.split_first_chunk() {
        // The lowest zero byte of `word` has the lowest bit of `found`.
        let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ (ONES * u64::from(byte));
        let found = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
        rest = later;
    }
    let left = rest.iter().position(|of| *of == byte)?;
    Some(at + left)
}

/// The fields that say how long a message is.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    lengths: u32,
    encodings: u32,
    is_chunked: bool,
    chunked_1_0: bool,
}

impl Framing {
    fn length(&mut self, value: &[u8], judge: &mut impl Judge) {
        let digits = trimmed(value);
        let number = std::str::from_utf8(digits).ok();
        let number = number.and_then(|digits| digits.parse().ok());
        self.lengths += 1;
        let plain = number.is_some() && digits.iter().all(u8::is_ascii_digit);
        if !plain || self.lengths > 1 {
            judge.doubt(Doubt::Length);
        }
        self.length = number.or(self.length);
    }

    fn encoding(&mut self, value: &[u8], judge: &mut impl Judge) {
        let value = trimmed(value);
        let last = value.len().checked_sub(7).map(|at| &value[at..]);
        self.is_chunked |= last.is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        self.encodings += 1;
        self.chunked_1_0 = true;
        if self.encodings > 1 || !value.eq_ignore_ascii_case(b"chunked") {
            judge.doubt(Doubt::Encoding);
        }
    }

    fn found(&self, judge: &mut impl Judge) -> BodyLength {
        if self.lengths > 0 && self.encodings > 0 {
            judge.doubt(Doubt::TwoFramings);
        }
        match self.length {
            _ if self.is_chunked => BodyLength::Chunked,
            Some(bytes) => BodyLength::Bytes(bytes),
            None => BodyLength::Unknown,
        }
    }
}

/// Looks at all bytes of a head.
fn whole(head: &[u8], judge: &mut impl Judge) {
    if head.len() > LONGEST {
        judge.doubt(Doubt::TooLong);
    }
    let end = head.windows(4).position(|four| four == b"\r\n\r\n");
    if end.map(|end| end + 4) != Some(head.len()) {
        judge.doubt(Doubt::Incomplete);
    }
    for (at, byte) in head.iter().enumerate() {
        match byte {
            b'\n' if at == 0 || head[at - 1] != b'\r' => judge.doubt(Doubt::BareLf),
            b'\r' if head.get(at + 1) != Some(&b'\n') => judge.doubt(Doubt::BareCr),
            b'\n' | b'\r' | b'\t' | b' '..=b'~' | 0x80.. => {}
            _ => judge.doubt(Doubt::Control),
        }
    }
}

/// The host that a request is for, in its target and in its field.
#[derive(Default)]
struct Host<'a> {
    is_request: bool,
    is_1_0: bool,
    target: Option<&'a [u8]>,
    field: Option<&'a [u8]>,
}

impl<'a> Host<'a> {
    /// Judges the first line.
    fn of(kind: MessageKind, line: &'a [u8], judge: &mut impl Judge) -> Self {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.split(|byte| *byte == b' ');
        let mut host = Self {
            is_request: kind == MessageKind::Request,
            ..Self::default()
        };
        let version = match kind {
            MessageKind::Request => {
                let (method, target) = (words.next(), words.next());
                let (method, target) = (method.unwrap_or_default(), target.unwrap_or_default());
                let version = words.next();
                let is_token = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
                let visible = target.iter().all(|byte| matches!(byte, b'!'..=b'~'));
                if !is_token || target.is_empty() || !visible || words.next().is_some() {
                    judge.doubt(Doubt::StartLine);
                }
                host.target = authority(target);
                version
            }
            MessageKind::Response => {
                let (version, status) = (words.next(), words.next().unwrap_or_default());
                if status.len() != 3 || !status.iter().all(u8::is_ascii_digit) {
                    judge.doubt(Doubt::StartLine);
                }
                version
            }
        };
        match version {
            Some(b"HTTP/1.1") => {}
            Some(b"HTTP/1.0") => host.is_1_0 = true,
            _ => judge.doubt(Doubt::StartLine),
        }
        host
    }

    fn field(&mut self, name: &[u8], value: &'a [u8], judge: &mut impl Judge) {
        if self.is_request && name.eq_ignore_ascii_case(b"host") {
            let before = self.field.replace(trimmed(value));
            if before.is_some() {
                judge.doubt(Doubt::Host);
            }
        }
    }

    fn end(&self, judge: &mut impl Judge) {
        let differ = match (self.target, self.field) {
            (Some(target), Some(field)) => !target.eq_ignore_ascii_case(field),
            (_, None) => self.is_request && !self.is_1_0,
            (None, Some(_)) => false,
        };
        if differ {
            judge.doubt(Doubt::Host);
        }
    }
}

/// Returns the host and port of a target in absolute form; `None` for another form.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let at = target.windows(3).position(|three| three == b"://")?;
    let scheme = &target[..at];
    if scheme.is_empty() || !scheme.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let rest = &target[at + 3..];
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    Some(&rest[..end.unwrap_or(rest.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_byte_is_found_wherever_it_is() {
        for length in 0..40 {
            for at in 0..length {
                for (byte, other) in [(b'\n', b'a'), (b':', b';'), (0, 1), (0xff, 0x7f), (0x80, 0)]
                {
                    let mut bytes = vec![other; length];
                    assert_eq!(position(byte, &bytes), None);
                    bytes[at..].fill(byte);
                    assert_eq!(position(byte, &bytes), Some(at), "{length} {byte}");
                }
            }
        }
    }
    use crate::random::Random;

    fn judged(kind: MessageKind, head: &[u8]) -> (BodyLength, Vec<Doubt>) {
        let mut doubts = Doubts::default();
        let length = read(kind, head, &mut doubts, |_, _| ());
        (length, doubts.iter().collect())
    }

    fn request(fields: &str) -> Vec<Doubt> {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        judged(MessageKind::Request, head.as_bytes()).1
    }

    #[test]
    fn a_head_that_every_reader_understands_alike_has_no_doubt() {
        for fields in [
            "",
            "Content-Length: 5\r\n",
            "content-length:0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding:\tCHUNKED \r\n",
            "X: \u{fc}, y\r\nx:\r\n",
        ] {
            assert_eq!(request(fields), [], "{fields:?}");
        }
        for (head, length) in [
            ("HTTP/1.1 200 OK\r\n\r\n", BodyLength::Unknown),
            (
                "HTTP/1.0 204\r\nContent-Length: 0\r\n\r\n",
                BodyLength::Bytes(0),
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                BodyLength::Bytes(7),
            ),
        ] {
            let found = judged(MessageKind::Response, head.as_bytes());
            assert_eq!(found, (length, vec![]), "{head:?}");
        }
        let absolute = b"GET http://a:80/x HTTP/1.1\r\nHost: A:80\r\n\r\n";
        assert_eq!(judged(MessageKind::Request, absolute).1, []);
        let old = b"GET / HTTP/1.0\r\n\r\n";
        assert_eq!(judged(MessageKind::Request, old).1, []);
    }

    #[test]
    fn each_way_to_smuggle_a_request_has_its_doubt() {
        use Doubt::*;
        for (fields, doubt) in [
            (
                "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
                TwoFramings,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
                TwoFramings,
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
                Encoding,
            ),
            ("Transfer-Encoding: xchunked\r\n", Encoding),
            ("Transfer-Encoding: gzip, chunked\r\n", Encoding),
            ("Transfer-Encoding: chunked, identity\r\n", Encoding),
            ("Transfer-Encoding: \"chunked\"\r\n", Encoding),
            ("Transfer-Encoding: \u{b}chunked\r\n", Control),
            ("Transfer-Encoding : chunked\r\n", Name),
            ("Transfer-Encoding\t: chunked\r\n", Name),
            (" Transfer-Encoding: chunked\r\n", Fold),
            ("X: y\r\n Transfer-Encoding: chunked\r\n", Fold),
            ("X: y\r\n folded\r\n", NoColon),
            ("X: y\nTransfer-Encoding: chunked\r\n", BareLf),
            ("X: y\rTransfer-Encoding: chunked\r\n", BareCr),
            ("X: \0\r\n", Control),
            ("X\0Y: z\r\n", Name),
            ("X: \u{7f}\r\n", Control),
            (": y\r\n", Name),
            ("X[y]: z\r\n", Name),
            ("no colon\r\n", NoColon),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Length),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Length),
            ("Content-Length: 5, 5\r\n", Length),
            ("Content-Length: -1\r\n", Length),
            ("Content-Length: +5\r\n", Length),
            ("Content-Length: 0x5\r\n", Length),
            ("Content-Length: 5 5\r\n", Length),
            ("Content-Length:\r\n", Length),
            ("Content-Length: 99999999999999999999999\r\n", Length),
            ("Host: b\r\n", Host),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n", Incomplete),
        ] {
            let found = request(fields);
            assert!(found.contains(&doubt), "{fields:?}: {found:?}");
        }
        for (head, doubt) in [
            ("GET / HTTP/1.1\r\n\r\n", Host),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Host),
            ("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", Host),
            ("GET /\r\nHost: a\r\n\r\n", StartLine),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", StartLine),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", StartLine),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", StartLine),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
            ("GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                Encoding,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\n", Incomplete),
            ("", Incomplete),
        ] {
            let found = judged(MessageKind::Request, head.as_bytes()).1;
            assert!(found.contains(&doubt), "{head:?}: {found:?}");
        }
        for head in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
        ] {
            let found = judged(MessageKind::Response, head.as_bytes()).1;
            assert!(found.contains(&StartLine), "{head:?}: {found:?}");
        }
        let long = format!("X: {}\r\n", "y".repeat(100 << 10));
        assert!(request(&long).contains(&TooLong));
    }

    #[test]
    fn every_head_cut_short_is_incomplete() {
        let head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        for length in 0..head.len() {
            let found = judged(MessageKind::Request, &head[..length]).1;
            assert!(found.contains(&Doubt::Incomplete), "{length}");
        }
        assert_eq!(judged(MessageKind::Request, head).1, []);
    }

    /// Pieces from which heads are made that are almost right.
    const PIECES: [&[u8]; 34] = [
        b"GET ",
        b"POST ",
        b"/",
        b"http://a/",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b": ",
        b"Host",
        b"a",
        b"Content-Length",
        b"Transfer-Encoding",
        b"chunked",
        b"5",
        b"18446744073709551616",
        b"-1",
        b",",
        b"\0",
        b"\x7f",
        b"X",
        b"\xff",
        b"HTTP/1.1 200 OK",
        b"0",
        b"\r\n\r\n",
        b"Host: a\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
    ];

    /// The laws hold for any bytes: nothing panics, `()` finds the same length and fields, and a
    /// head without doubts is nothing but its first line and its fields.
    #[test]
    fn a_head_without_doubts_is_its_first_line_and_its_fields_and_nothing_else() {
        let mut without = 0;
        for seed in 0..200_000 {
            let mut random = Random::new(seed);
            let mut head = match random.below(3) {
                0 => b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
                1 => b"HTTP/1.1 200 OK\r\n".to_vec(),
                _ => Vec::new(),
            };
            for _ in 0..random.below(12) {
                head.extend_from_slice(PIECES[random.below(PIECES.len())]);
            }
            if random.below(2) == 0 {
                head.extend_from_slice(b"\r\n\r\n");
            } else if random.below(2) == 0 {
                head.extend_from_slice(b"\r\n");
            }
            for kind in [MessageKind::Request, MessageKind::Response] {
                let (mut doubts, mut fields) = (Doubts::default(), Vec::new());
                let length = read(kind, &head, &mut doubts, |name, value| {
                    fields.push((name, value));
                });
                let mut again = Vec::new();
                let same = read(kind, &head, &mut (), |name, value| {
                    again.push((name, value));
                });
                assert_eq!((same, &again), (length, &fields), "seed {seed}");
                if !doubts.is_empty() {
                    continue;
                }
                without += 1;
                let end = head.iter().position(|byte| *byte == b'\n').unwrap() + 1;
                let mut made = head[..end].to_vec();
                for (name, value) in fields {
                    made.extend_from_slice(&[name, b":", value, b"\n"].concat());
                }
                made.extend_from_slice(b"\r\n");
                assert_eq!(made, head, "seed {seed}");
            }
        }
        assert!(without > 1000, "{without}");
    }

    #[test]
    fn ten_thousand_fields_are_read_one_by_one() {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(10_000)
        );
        let mut count = 0;
        read(MessageKind::Request, head.as_bytes(), &mut (), |_, _| {
            count += 1;
        });
        assert_eq!(count, 10_001);
    }
}
