//! Requests of HTTP/1 in, what the routes answer out: `/metrics`, `/healthz` and whatever else is hung up beside them.
//!
//! One `metrics` thread per listening address accepts, and a short-lived thread per request answers it and closes the
//! connection. All is bounded: 8 KiB and 5 s for a request, 16 requests at a time, and an answer that is made in pieces
//! has one in memory, and 5 s for each. Read RFC 9112 first; what is left out on purpose: request bodies, keep-alive, TLS
//! and logins (bind to an address that only your monitoring reaches).

use crate::decimal::decimal;
use crate::output::tell;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Longest request line with headers.
const REQUEST: usize = 8 << 10;
/// How long a request may take to arrive, and then its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests at a time: more than probes asked for over HTTP at a time, so that `/metrics` is answered meanwhile.
const THREADS: usize = 16;
/// What is gathered of an answer in pieces before it is sent; a piece may be longer.
const CHUNK: usize = 16 << 10;
/// How long accepting rests when descriptors are short.
const REST: Duration = Duration::from_millis(100);

/// A request whose method is GET or HEAD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The target up to `?`, as it was sent.
    pub path: String,
    /// What follows `?`, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The header `Accept`; empty without one.
    pub accept: String,
    /// How long Prometheus waits for the answer (`X-Prometheus-Scrape-Timeout-Seconds`).
    pub scrape_timeout: Option<Duration>,
    /// HTTP/1.0, which knows no chunks: an answer in pieces ends with the connection.
    pub old: bool,
}

impl Request {
    /// The last value of a parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter().rev();
        pairs.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }
}

/// What a route answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200, 403, 503, ...
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// All of it.
    pub body: String,
}

impl Response {
    /// 200 with a body of that type.
    pub fn ok(content_type: &'static str, body: String) -> Self {
        Self {
            status: 200,
            content_type,
            body,
        }
    }

    /// A line of text.
    pub fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{text}\n"),
        }
    }
}

/// Takes a piece of an answer; an error where nobody takes it any more.
pub type Take<'a> = dyn FnMut(&str) -> io::Result<()> + 'a;

type Whole = dyn Fn(&Request) -> Response + Send + Sync;
type Pieces = dyn Fn(&mut Take<'_>) -> io::Result<()> + Send + Sync;

enum Handler {
    Whole(Box<Whole>),
    Pieces(&'static str, Box<Pieces>),
}

enum Answer<'a> {
    Whole(Response),
    Pieces(&'static str, &'a Pieces),
}

/// What is answered at which path.
#[derive(Default)]
pub struct Routes(Vec<(&'static str, Handler)>);

impl Routes {
    /// Hangs a route up.
    #[must_use]
    pub fn with(
        mut self,
        path: &'static str,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.0.push((path, Handler::Whole(Box::new(handler))));
        self
    }

    /// Hangs one up whose answer is of any length: it is sent as it is made. `handler` gives it over piece by piece, and
    /// returns the error where one is not taken.
    #[must_use]
    pub fn with_pieces(
        mut self,
        path: &'static str,
        content_type: &'static str,
        handler: impl Fn(&mut Take<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let handler = Handler::Pieces(content_type, Box::new(handler));
        self.0.push((path, handler));
        self
    }

    fn answer(&self, request: &Request) -> Answer<'_> {
        match self.0.iter().find(|(path, _)| *path == request.path) {
            Some((_, Handler::Whole(handler))) => Answer::Whole(handler(request)),
            Some((_, Handler::Pieces(content_type, handler))) => {
                Answer::Pieces(content_type, handler)
            }
            None => {
                let paths: Vec<_> = self.0.iter().map(|(path, _)| *path).collect();
                let text = format!("nothing here; there is {}", paths.join(", "));
                Answer::Whole(Response::text(404, &text))
            }
        }
    }
}

/// A request that cannot be answered: status, and what was wrong.
type Bad = (u16, &'static str);

/// Reads a request; the flag tells whether it was HEAD. `None` while its end has not come.
fn parse(bytes: &[u8]) -> Option<Result<(Request, bool), Bad>> {
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
            // Several lines are one list.
            if !request.accept.is_empty() {
                request.accept.push(',');
            }
            request.accept.push_str(value);
        } else if name.eq_ignore_ascii_case("x-prometheus-scrape-timeout-seconds") {
            let seconds = decimal(value);
            let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            request.scrape_timeout = span;
        }
    }
    Ok((request, method == "HEAD"))
}

/// Percent-decoding as forms do it, `+` for a space; `None` where it is broken or no UTF-8.
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

/// Binds every address and says where the metrics are: where an address has port 0, the kernel chooses one.
///
/// # Errors
///
/// As bind(2), naming the address.
pub fn bind(program: &str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, String> {
    let mut listeners = Vec::new();
    let mut told = String::new();
    for address in addresses {
        let bound = TcpListener::bind(address).and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, address) =
            bound.map_err(|error| format!("listen on {address} for metrics: {error}"))?;
        let _ = writeln!(told, "{program}: metrics at http://{address}/metrics");
        listeners.push(listener);
    }
    tell(&told);
    Ok(listeners)
}

/// Answers requests from now on, on threads of its own that end with the process.
///
/// # Errors
///
/// Where no thread can be started.
pub fn serve(listeners: Vec<TcpListener>, routes: Routes) -> io::Result<()> {
    let shared = Arc::new(Shared {
        routes,
        busy: AtomicUsize::new(0),
    });
    for listener in listeners {
        let shared = Arc::clone(&shared);
        Builder::new()
            .name("metrics".into())
            .spawn(move || accept(&shared, &listener))?;
    }
    Ok(())
}

struct Shared {
    routes: Routes,
    busy: AtomicUsize,
}

/// A request under way; counted until it is dropped, by a panic too.
struct Busy(Arc<Shared>);

impl Busy {
    fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let before = shared.busy.fetch_add(1, Ordering::AcqRel);
        let busy = Self(Arc::clone(shared));
        (before < THREADS).then_some(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let rest = crossbeam_channel::never::<()>();
    for stream in listener.incoming() {
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("metrics: accept: {error}");
                if crate::sys::is_shortage(&error) {
                    let _ = rest.recv_timeout(REST); // Nothing comes: it is a rest.
                }
                continue;
            }
        };
        let Some(busy) = Busy::begin(shared) else {
            let response = Response::text(503, "too many requests at a time");
            // What does not fit into an empty socket's buffer is not waited for.
            let _ = stream.set_nonblocking(true);
            let _ = stream.write_all(&emit(&response, false));
            continue;
        };
        let answering = Builder::new().name("metrics req".into()).spawn(move || {
            if let Err(error) = answer(&busy.0, &mut stream) {
                log::debug!("metrics: a request was not answered: {error}");
            }
        });
        if let Err(error) = answering {
            log::error!("metrics: cannot start a thread: {error}");
        }
    }
}

fn answer(shared: &Shared, stream: &mut TcpStream) -> io::Result<()> {
    let parsed = receive(stream)?;
    let (request, head) = match parsed {
        Ok(parsed) => parsed,
        Err((status, text)) => return send(stream, &emit(&Response::text(status, text), false)),
    };
    match shared.routes.answer(&request) {
        Answer::Whole(response) => send(stream, &emit(&response, head)),
        Answer::Pieces(content_type, make) => {
            let length = if request.old {
                ""
            } else {
                "Transfer-Encoding: chunked\r\n"
            };
            send(stream, emit_head(200, content_type, length).as_bytes())?;
            if head {
                return Ok(());
            }
            send_pieces(stream, make, !request.old)
        }
    }
}

/// Sends what `make` makes. In chunks, an answer that was cut off is known as such by the lack of the last one.
fn send_pieces(stream: &mut TcpStream, make: &Pieces, chunked: bool) -> io::Result<()> {
    let mut gathered = String::new();
    let mut flush = |gathered: &mut String, last: bool| {
        let mut bytes = Vec::with_capacity(gathered.len() + 16);
        if !chunked {
            bytes.extend_from_slice(gathered.as_bytes());
        } else {
            if !gathered.is_empty() {
                // Memory takes all.
                let _ = write!(bytes, "{:x}\r\n{gathered}\r\n", gathered.len());
            }
            if last {
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        gathered.clear();
        send(stream, &bytes)
    };
    make(&mut |piece: &str| {
        gathered.push_str(piece);
        if gathered.len() < CHUNK {
            return Ok(());
        }
        flush(&mut gathered, false)
    })?;
    flush(&mut gathered, true)
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(stream: &mut TcpStream) -> io::Result<Result<(Request, bool), Bad>> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err((408, "the request did not come in time")));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if let Some(parsed) = parse(&bytes) {
            return Ok(parsed);
        }
    }
}

fn emit(response: &Response, head: bool) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n", response.body.len());
    let mut bytes = emit_head(response.status, response.content_type, &length).into_bytes();
    if !head {
        bytes.extend_from_slice(response.body.as_bytes());
    }
    bytes
}

/// Status line and headers; `length` is the one that tells how long the body is.
fn emit_head(status: u16, content_type: &str, length: &str) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let allow = if status == 405 {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{length}{allow}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] =
        b"GET /probe?target=%5B::1%5D:9000&count=5&count=7&x HTTP/1.1\r\nHost: a\r\n\
        ACCEPT: text/plain;q=0.5\r\nX-Prometheus-Scrape-Timeout-Seconds: 2.5\r\n\r\n";

    /// More than one chunk of them, of 10 bytes; less than a socket holds.
    const PIECES: usize = 4_000;

    fn ask(routes: &Arc<Shared>, sent: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(sent).unwrap();
        answer(routes, &mut server).unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    fn shared() -> Arc<Shared> {
        let routes = Routes::default()
            .with("/metrics", |request| {
                Response::ok("text/plain", request.accept.clone())
            })
            .with("/healthz", |_| Response::text(503, "down"))
            .with_pieces("/pieces", "text/plain", |take| {
                (0..PIECES).try_for_each(|piece| take(&format!("{piece:09}\n")))
            });
        Arc::new(Shared {
            routes,
            busy: AtomicUsize::new(0),
        })
    }

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
    fn a_request_cut_anywhere_is_waited_for() {
        for length in 0..GOLDEN.len() {
            assert_eq!(parse(&GOLDEN[..length]), None, "{length}");
        }
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for (sent, status) in [
            (&b"POST /metrics HTTP/1.1\r\n\r\n"[..], 405),
            (b"GET /metrics\r\n\r\n", 400),
            (b"GET /metrics HTTP/2\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1 x\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nHost\r\n\r\n", 400),
            (b"GET /?a=%zz HTTP/1.1\r\n\r\n", 400),
            (b"GET /?a=%f HTTP/1.1\r\n\r\n", 400),
            (b"GET /?a=%ff HTTP/1.1\r\n\r\n", 400),
            (b"\xff\xfe\r\n\r\n", 400),
            (b"\r\n\r\n", 400),
            (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
            (b"GET /healthz HTTP/1.0\r\n\r\n", 503),
        ] {
            let text = ask(&shared(), sent);
            let expected = format!("HTTP/1.1 {status} ");
            assert!(
                text.starts_with(&expected),
                "{:?}: {text}",
                sent.escape_ascii().to_string()
            );
            assert_eq!(text.contains("Allow: GET, HEAD\r\n"), status == 405);
        }
        let endless = [b"GET / HTTP/1.1\r\n", "x: y\r\n".repeat(2_000).as_bytes()].concat();
        assert!(matches!(parse(&endless), Some(Err((431, _)))));
    }

    #[test]
    fn head_is_answered_as_get_is_without_the_body() {
        let get = ask(&shared(), b"GET /metrics HTTP/1.1\r\nAccept: body\r\n\r\n");
        let head = ask(&shared(), b"HEAD /metrics HTTP/1.1\r\nAccept: body\r\n\r\n");
        assert!(get.contains("Content-Length: 4\r\n"), "{get}");
        assert_eq!(head + "body", get);
    }

    #[test]
    fn an_answer_in_pieces_comes_whole_with_its_end_marked_and_in_chunks_of_bounded_length() {
        let whole: String = (0..PIECES).map(|piece| format!("{piece:09}\n")).collect();
        let old = ask(&shared(), b"GET /pieces HTTP/1.0\r\n\r\n");
        let (head, body) = old.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("chunked") && !head.contains("Content-Length"));
        assert_eq!(body, whole);
        let new = ask(&shared(), b"GET /pieces HTTP/1.1\r\n\r\n");
        let (head, mut rest) = new.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"));
        assert!(head.contains("Transfer-Encoding: chunked") && !head.contains("Content-Length"));
        let mut body = String::new();
        while !rest.starts_with("0\r\n") {
            let (size, chunk) = rest.split_once("\r\n").unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            assert!(size < CHUNK + 10, "{size}");
            body.push_str(&chunk[..size]);
            rest = chunk[size..].strip_prefix("\r\n").unwrap();
        }
        assert_eq!((rest, body), ("0\r\n\r\n", whole));
        let only_head = ask(&shared(), b"HEAD /pieces HTTP/1.1\r\n\r\n");
        assert_eq!(only_head, format!("{head}\r\n\r\n"));
    }

    #[test]
    fn beyond_the_bound_a_request_is_refused_at_once_and_room_comes_back() {
        let shared = shared();
        let many: Vec<_> = (0..THREADS).map(|_| Busy::begin(&shared)).collect();
        assert!(many.iter().all(Option::is_some));
        assert!(Busy::begin(&shared).is_none());
        drop(many);
        assert!(Busy::begin(&shared).is_some());
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
