//! The first bytes of HTTP/1.x messages in; method, target and status out.
//!
//! Read RFC 9112 §2 to §4 first. RTSP, SIP and ICAP have the same form and another version.

use crate::http::head::{is_token, position};

/// The longest head, or line of a chunk, that is gathered.
pub(super) const MAX_HEAD: usize = 16 * 1024;

/// The longest method; RFC 9110 §9.1 has no bound, the longest registered one has 17 characters.
const MAX_METHOD: usize = 32;

/// The longest target that is kept.
const MAX_TARGET: usize = 128;

/// The methods that people use; others are kept as text.
pub(super) const METHODS: [&str; 12] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PROPFIND",
    "LOCK", "UNLOCK",
];

/// The kind of a message's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// HTTP/1.x, its version included.
    Http,
    /// It may be, but the version is not there.
    Open,
    /// RTSP, SIP, ICAP, HTTP/2, ...
    Foreign,
    /// Neither.
    Other,
}

/// A request line as far as it is there.
pub(super) struct RequestLine<'a> {
    pub opening: Opening,
    pub method: &'a [u8],
    /// `None` where its end is not there.
    pub target: Option<&'a [u8]>,
}

/// The bytes without the empty lines before a request that RFC 9112 §2.2 allows.
pub(super) fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    &bytes[end.unwrap_or(bytes.len())..]
}

/// Reads `GET /path HTTP/1.1`, which may end anywhere.
pub(super) fn request_line(bytes: &[u8]) -> RequestLine<'_> {
    let mut line = RequestLine {
        opening: Opening::Other,
        method: &[],
        target: None,
    };
    let near = &bytes[..bytes.len().min(MAX_METHOD + 1)];
    let Some(end) = near.iter().position(|byte| !is_token(*byte)) else {
        return line;
    };
    if end == 0 || bytes[end] != b' ' {
        return line;
    }
    line.method = &bytes[..end];
    let rest = &bytes[end + 1..];
    let end = rest.iter().position(|byte| *byte <= b' ');
    let target = &rest[..end.unwrap_or(rest.len())];
    let Some(end) = end else {
        let begins = |with: &[u8]| {
            let common = target.len().min(with.len());
            target[..common].eq_ignore_ascii_case(&with[..common])
        };
        let likely = begins(b"/") || begins(b"http://") || begins(b"https://");
        let known = METHODS.iter().any(|name| name.as_bytes() == line.method);
        if target.starts_with(b"/") || (known && (likely || line.method == b"CONNECT")) {
            line.opening = Opening::Open;
        }
        return line;
    };
    if end == 0 || rest[end] != b' ' {
        return line;
    }
    line.target = Some(target);
    line.opening = version(&rest[end + 1..]);
    line
}

/// Reads `HTTP/1.1`, at the end of a request line or the beginning of a status line.
fn version(bytes: &[u8]) -> Opening {
    const HTTP: &[u8] = b"HTTP/1.";
    let common = bytes.len().min(HTTP.len());
    if bytes[..common] == HTTP[..common] {
        return match common == HTTP.len() {
            true => Opening::Http,
            false => Opening::Open,
        };
    }
    let name = bytes.iter().position(|byte| !byte.is_ascii_uppercase());
    match name {
        Some(2..=8) if name.is_some_and(|end| bytes[end] == b'/') => {
            let end = name.unwrap_or(0);
            match bytes.get(end + 1).map(u8::is_ascii_digit) {
                Some(true) => Opening::Foreign,
                _ => Opening::Other,
            }
        }
        _ => Opening::Other,
    }
}

/// Reads `HTTP/1.1 200 OK`, which may end anywhere.
pub(super) fn status_line(bytes: &[u8]) -> Opening {
    match version(bytes) {
        // The name is the whole of what follows in an answer: "RTSP/1.0 200".
        Opening::Foreign if !bytes.contains(&b' ') => Opening::Other,
        opening => opening,
    }
}

/// `HTTP/1.1 200 OK`; `None` where the number is not there.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let digits = head.get(9..12)?;
    let number: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (100..1000).contains(&number).then_some(number)
}

/// A target as text, shortened, without what a terminal could take for a command.
pub(super) fn target(bytes: &[u8]) -> Box<str> {
    let kept = &bytes[..bytes.len().min(MAX_TARGET)];
    let clean = |byte: &u8| {
        if byte.is_ascii_graphic() {
            char::from(*byte)
        } else {
            '?'
        }
    };
    let more = if kept.len() < bytes.len() { "..." } else { "" };
    kept.iter().map(clean).chain(more.chars()).collect()
}

/// One past the empty line that ends a head, of which the first `known` bytes were looked at
/// before.
pub(super) fn end_of_head(head: &[u8], known: usize) -> Option<usize> {
    let mut from = known;
    loop {
        let end = from + position(b'\n', head.get(from..)?)?;
        let before = &head[..end];
        if before.ends_with(b"\n") || before.ends_with(b"\n\r") {
            return Some(end + 1);
        }
        from = end + 1;
    }
}

/// Returns `true` if these few bytes may be the beginning of a method.
pub(super) fn may_be_method(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_METHOD && bytes.iter().all(|byte| is_token(*byte))
}
