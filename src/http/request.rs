//! One request of HTTP/1, from its bytes.

use crate::decimal::decimal;
use std::time::Duration;

/// Longest request line with headers.
const REQUEST: usize = 8 << 10;

/// A request whose method is GET or HEAD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The target up to `?`, as it was sent.
    pub path: String,
    /// The parameters behind `?`, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The header `Accept`; empty without one.
    pub accept: String,
    /// The header `Host`; empty without one.
    pub host: String,
    /// Time that Prometheus waits for the response (`X-Prometheus-Scrape-Timeout-Seconds`); `None`
    /// without the header.
    pub scrape_timeout: Option<Duration>,
    /// `true` for HTTP/1.0, which has no chunks: a response in pieces ends with the connection.
    pub old: bool,
}

impl Request {
    /// Returns the last value of a parameter of the query; `None` without one.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter().rev();
        pairs.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }
}

/// The status and the reason for a request that cannot be answered.
pub(super) type Bad = (u16, &'static str);

/// Parses a request; the flag is `true` for HEAD. Returns `None` while its end is missing.
pub(super) fn parse(bytes: &[u8]) -> Option<Result<(Request, bool), Bad>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return (bytes.len() > REQUEST).then_some(Err((431, "a request of more than 8 KiB")));
    };
    if end > REQUEST {
        return Some(Err((431, "a request of more than 8 KiB")));
    }
    Some(understand(&bytes[..end]))
}

fn understand(head: &[u8]) -> Result<(Request, bool), Bad> {
    let head = std::str::from_utf8(head).map_err(|_| (400, "a request that is not text"))?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.0" | "HTTP/1.1"), None) =
        (method, target, version, words.next())
    else {
        return Err((400, "no request of HTTP/1"));
    };
    if !["GET", "HEAD"].contains(&method) {
        return Err((405, "only GET and HEAD are answered"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        path: path.to_owned(),
        old: version == Some("HTTP/1.0"),
        ..Request::default()
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decode(key).zip(decode(value));
        let decoded = decoded.ok_or((400, "a query that cannot be decoded"))?;
        request.query.push(decoded);
    }
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err((400, "a header without a colon"));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("accept") {
            // Several lines form one list.
            if !request.accept.is_empty() {
                request.accept.push(',');
            }
            request.accept.push_str(value);
        } else if name.eq_ignore_ascii_case("host") {
            value.clone_into(&mut request.host);
        } else if name.eq_ignore_ascii_case("x-prometheus-scrape-timeout-seconds") {
            let seconds = decimal(value);
            let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            request.scrape_timeout = span;
        }
    }
    Ok((request, method == "HEAD"))
}

/// Decodes percent signs as forms do, `+` for a space; `None` if the text is malformed or not
/// UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] =
        b"GET /probe?target=%5B::1%5D:9000&count=5&count=7&x HTTP/1.1\r\nHost: a\r\n\
        ACCEPT: text/plain;q=0.5\r\nX-Prometheus-Scrape-Timeout-Seconds: 2.5\r\n\r\n";

    #[test]
    fn a_request_is_read_with_its_query_and_headers() {
        let (request, head) = parse(GOLDEN).unwrap().unwrap();
        assert!(!head);
        assert_eq!(request.path, "/probe");
        assert_eq!(request.parameter("target"), Some("[::1]:9000"));
        assert_eq!(request.parameter("count"), Some("7"));
        assert_eq!(request.parameter("x"), Some(""));
        assert_eq!(request.parameter("size"), None);
        assert_eq!(request.accept, "text/plain;q=0.5");
        assert_eq!(request.scrape_timeout, Some(Duration::from_millis(2_500)));
    }

    #[test]
    fn several_lines_of_a_header_are_one_list() {
        let text = b"GET / HTTP/1.1\r\nAccept: a/b\r\nAccept: c/d;q=0.1\r\n\r\n";
        let (request, _) = parse(text).unwrap().unwrap();
        assert_eq!(request.accept, "a/b,c/d;q=0.1");
    }

    #[test]
    fn a_request_cut_anywhere_is_incomplete() {
        for length in 0..GOLDEN.len() {
            assert_eq!(parse(&GOLDEN[..length]), None, "{length}");
        }
    }

    #[test]
    fn noise_never_panics() {
        let mut state = 0x5eed_u64;
        for case in 0..20_000 {
            let mut bytes = GOLDEN.to_vec();
            for _ in 0..1 + case % 4 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 17) as u8;
            }
            let _ = parse(&bytes);
        }
    }
}
