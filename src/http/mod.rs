//! A small HTTP/1 server (RFC 9112): requests in, the responses of routes out.
//!
//! One `metrics` thread per listening address accepts. A short-lived thread per request sends the
//! response and closes the connection. It has no request bodies, keep-alive, TLS or logins: bind it
//! to an address that only monitoring reaches.
//!
//! Everything is bounded: a request to 8 KiB and 5 s, and to 16 at a time. If all places are taken,
//! a new connection closes the oldest one without a complete request, so that idle sockets lock out
//! no scrape. A response in pieces has one piece in memory and 5 s for each.
//!
//! Routes for browsers answer only if `Host` names this machine. A page of another site could
//! otherwise read them through a DNS name that it points here (DNS rebinding).

pub mod edit;
pub mod head;
mod pass_reason;
mod request;
pub mod stamp;

pub use request::Request;

use crate::output::print_error;
use crate::sync::channel::channel;
use crate::sync::{lock, spawn, LARGE_STACK};
use request::{parse, Bad};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time for a request to arrive, and again for its response or a piece of it to be accepted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests at a time: more than the probes that `/probe` runs at a time, so that `/metrics`
/// answers meanwhile.
const THREADS: usize = 16;
/// Threads at a time, with those whose connections were closed for a new one and that have yet to
/// end.
const MOST_THREADS: usize = 4 * THREADS;
/// Size at which the gathered pieces of a response are sent. One piece may be longer.
const CHUNK: usize = 16 << 10;
/// Pause of accepting when descriptors are short.
const REST: Duration = Duration::from_millis(100);
/// Routes for programs, which know a node by any name. Other routes are for browsers and check
/// `Host`.
const ANY_HOST: [&str; 3] = ["/metrics", "/healthz", "/probe"];

/// The response of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200, 403, 503, ...
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The whole body.
    pub body: String,
}

impl Response {
    /// Returns a response with status 200 and a body of that type.
    pub fn ok(content_type: &'static str, body: String) -> Self {
        Self {
            status: 200,
            content_type,
            body,
        }
    }

    /// Returns a response of one line of text.
    pub fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{text}\n"),
        }
    }
}

/// Sends a piece of a response; fails if the client is gone.
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

/// The handler of each path.
#[derive(Default)]
pub struct Routes {
    handlers: Vec<(&'static str, Handler)>,
    /// Names of this machine beside `localhost` and its host name.
    names: Vec<String>,
}

impl Routes {
    /// Adds a route.
    #[must_use]
    pub fn with(
        mut self,
        path: &'static str,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.handlers
            .push((path, Handler::Whole(Box::new(handler))));
        self
    }

    /// Adds a route with a response of any length. `handler` passes it on piece by piece, and
    /// returns the error of a piece that could not be sent.
    #[must_use]
    pub fn with_pieces(
        mut self,
        path: &'static str,
        content_type: &'static str,
        handler: impl Fn(&mut Take<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let handler = Handler::Pieces(content_type, Box::new(handler));
        self.handlers.push((path, handler));
        self
    }

    /// Accepts `name` as a `Host` of the routes for browsers.
    #[must_use]
    pub fn known_as(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Returns `true` if `host`, the value of a header, is an IP address or a name of this machine.
    ///
    /// Clients without the header (HTTP/1.0) are no browsers.
    fn knows_host(&self, host: &str) -> bool {
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (host, ""),
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        let is_address = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(host) => host.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok(),
        };
        let host = host.trim_end_matches('.');
        let first_label = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let is_own_name = || {
            let own = crate::sys::host_name().map(|name| first_label(&name));
            own.is_some_and(|own| own.eq_ignore_ascii_case(&first_label(host)))
        };
        is_address
            || host.is_empty()
            || host.eq_ignore_ascii_case("localhost")
            || self
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host))
            || is_own_name()
    }

    fn answer(&self, request: &Request) -> Answer<'_> {
        if !ANY_HOST.contains(&request.path.as_str()) && !self.knows_host(&request.host) {
            return Answer::Whole(wrong_host(&request.host));
        }
        match self.handlers.iter().find(|(path, _)| *path == request.path) {
            Some((_, Handler::Whole(handler))) => Answer::Whole(handler(request)),
            Some((_, Handler::Pieces(content_type, handler))) => {
                Answer::Pieces(content_type, handler)
            }
            None => {
                let paths: Vec<_> = self.handlers.iter().map(|(path, _)| *path).collect();
                let text = format!("nothing here; there is {}", paths.join(", "));
                Answer::Whole(Response::text(404, &text))
            }
        }
    }
}

fn wrong_host(host: &str) -> Response {
    let own = crate::sys::host_name().unwrap_or_else(|| "the host name".to_owned());
    let shown: String = host
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect();
    let text = format!(
        "the host {shown} is unknown here: use an IP address, localhost or {own}, or start with \
         --metrics-listen {shown}"
    );
    Response::text(421, &text)
}

/// Binds every address and prints the URL of its metrics. The kernel chooses a port for 0.
///
/// # Errors
///
/// As bind(2), naming the address.
pub fn bind(program: &str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, String> {
    let mut listeners = Vec::new();
    let mut urls = String::new();
    for address in addresses {
        let bound = crate::sys::listen_on(*address).and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, address) =
            bound.map_err(|error| format!("listen on {address} for metrics: {error}"))?;
        let _ = writeln!(urls, "{program}: metrics at http://{address}/metrics");
        listeners.push(listener);
    }
    print_error(&urls);
    Ok(listeners)
}

/// Starts threads that answer requests until the process ends, or until they are closed.
///
/// # Errors
///
/// Fails if no thread can be started.
pub fn serve(listeners: Vec<TcpListener>, routes: Routes) -> io::Result<Serving> {
    let shared = Arc::new(Shared::new(routes));
    let mut serving = Serving {
        shared: Arc::clone(&shared),
        listeners: Vec::new(),
        accepting: Vec::new(),
    };
    for listener in listeners.into_iter().map(Arc::new) {
        serving.listeners.push(Arc::clone(&listener));
        let shared = Arc::clone(&shared);
        let accepting = spawn("metrics", LARGE_STACK, move || accept(&shared, &listener))?;
        serving.accepting.push(accepting);
    }
    Ok(serving)
}

/// The listeners of an HTTP server and their threads. Dropping it leaves them as they are.
pub struct Serving {
    shared: Arc<Shared>,
    listeners: Vec<Arc<TcpListener>>,
    accepting: Vec<JoinHandle<()>>,
}

impl Serving {
    /// Closes the listeners; requests that were accepted are answered.
    pub fn close(self) {
        self.shared.closing.store(true, Ordering::Release);
        for listener in &self.listeners {
            crate::sys::stop_accepting(listener);
        }
        for thread in self.accepting {
            let _ = thread.join(); // A panic has been reported on stderr.
        }
    }
}

struct Shared {
    routes: Routes,
    closing: AtomicBool,
    threads: AtomicUsize,
    /// Connections whose request is incomplete, the oldest first.
    waiting: Mutex<VecDeque<Arc<TcpStream>>>,
}

impl Shared {
    fn new(routes: Routes) -> Self {
        Self {
            routes,
            closing: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            waiting: Mutex::default(),
        }
    }
}

/// A connection with its place among the threads, which it frees when it is dropped, by a panic
/// too.
struct Client {
    shared: Arc<Shared>,
    stream: Arc<TcpStream>,
}

impl Client {
    /// Takes a place for a connection. If all are taken, the oldest connection without a complete
    /// request is closed.
    ///
    /// Returns the connection if every place is taken by a complete request.
    fn admit(shared: &Arc<Shared>, stream: TcpStream) -> Result<Self, TcpStream> {
        let threads = shared.threads.load(Ordering::Acquire);
        let mut waiting = lock(&shared.waiting);
        if threads >= THREADS {
            let oldest = match threads < MOST_THREADS {
                true => waiting.pop_front(),
                false => None,
            };
            match oldest {
                // Its thread wakes up and ends. The client reads the end of the stream.
                Some(oldest) => drop(oldest.shutdown(Shutdown::Both)),
                None => return Err(stream),
            }
        }
        shared.threads.fetch_add(1, Ordering::AcqRel);
        let stream = Arc::new(stream);
        waiting.push_back(Arc::clone(&stream));
        drop(waiting);
        let shared = Arc::clone(shared);
        Ok(Self { shared, stream })
    }

    /// Protects the connection from being closed for a new one: its request is complete.
    fn is_complete(&self) {
        lock(&self.shared.waiting).retain(|stream| !Arc::ptr_eq(stream, &self.stream));
    }

    fn answer(&self) -> io::Result<()> {
        let stream = &*self.stream;
        let parsed = receive(stream)?;
        self.is_complete();
        let (request, head) = match parsed {
            Ok(parsed) => parsed,
            Err((status, text)) => {
                return send(stream, &emit(&Response::text(status, text), false))
            }
        };
        match self.shared.routes.answer(&request) {
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
}

impl Drop for Client {
    fn drop(&mut self) {
        self.is_complete();
        self.shared.threads.fetch_sub(1, Ordering::AcqRel);
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let (_open, rest) = channel::<()>(0);
    for stream in listener.incoming() {
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                log::debug!("metrics: accept: {error}");
                if crate::sys::is_shortage(&error) {
                    let _ = rest.recv_timeout(REST); // The channel is empty: this is a pause.
                }
                continue;
            }
        };
        let client = match Client::admit(shared, stream) {
            Ok(client) => client,
            Err(mut stream) => {
                let response = Response::text(503, "too many requests at a time");
                // An empty socket's buffer has room for it; nothing waits here.
                let _ = stream.set_nonblocking(true);
                let _ = stream.write_all(&emit(&response, false));
                continue;
            }
        };
        let answering = spawn("metrics req", LARGE_STACK, move || {
            if let Err(error) = client.answer() {
                log::debug!("metrics: a request got no response: {error}");
            }
        });
        if let Err(error) = answering {
            log::error!("metrics: cannot start a thread: {error}");
        }
    }
}

/// Sends the pieces that `make` passes on. The last chunk shows a client that the response is
/// complete.
fn send_pieces(stream: &TcpStream, make: &Pieces, chunked: bool) -> io::Result<()> {
    let mut gathered = String::new();
    let flush = |gathered: &mut String, last: bool| {
        let mut bytes = Vec::with_capacity(gathered.len() + 16);
        if !chunked {
            bytes.extend_from_slice(gathered.as_bytes());
        } else {
            if !gathered.is_empty() {
                // A write to memory cannot fail.
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

fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
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

fn receive(mut stream: &TcpStream) -> io::Result<Result<(Request, bool), Bad>> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err((408, "the request did not arrive in time")));
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

/// Returns the status line and headers, with `length` as the header for the length of the body.
fn emit_head(status: u16, content_type: &str, length: &str) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        421 => "Misdirected Request",
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

    const PIECES: usize = 4_000;

    fn ask(routes: &Arc<Shared>, sent: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(sent).unwrap();
        let server = Client::admit(routes, server).unwrap();
        server.answer().unwrap();
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
        Arc::new(Shared::new(routes))
    }

    #[test]
    fn a_malformed_request_gets_the_status_of_its_fault() {
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
    fn the_response_to_head_is_that_to_get_without_the_body() {
        let get = ask(&shared(), b"GET /metrics HTTP/1.1\r\nAccept: body\r\n\r\n");
        let head = ask(&shared(), b"HEAD /metrics HTTP/1.1\r\nAccept: body\r\n\r\n");
        assert!(get.contains("Content-Length: 4\r\n"), "{get}");
        assert_eq!(head + "body", get);
    }

    #[test]
    fn a_response_in_pieces_is_complete_with_its_end_marked_in_chunks_of_bounded_length() {
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

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn idle_connections_make_room_for_new_ones_oldest_first() {
        let (shared, listener) = (shared(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut places = Vec::new();
        for _ in 0..40 {
            let (client, server) = pair(&listener);
            places.push((client, Client::admit(&shared, server).unwrap()));
        }
        let is_closed = |client: &Client| matches!((&*client.stream).read(&mut [0; 1]), Ok(0));
        let closed: Vec<bool> = places
            .iter()
            .map(|(_, client)| {
                client.stream.set_nonblocking(true).unwrap();
                is_closed(client)
            })
            .collect();
        assert_eq!(
            closed,
            [vec![true; 40 - THREADS], vec![false; THREADS]].concat()
        );
        let text = ask(&shared, b"GET /metrics HTTP/1.1\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }

    #[test]
    fn complete_requests_keep_their_places_and_free_them_when_they_end() {
        let (shared, listener) = (shared(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut places = Vec::new();
        for _ in 0..THREADS {
            let (_, server) = pair(&listener);
            let client = Client::admit(&shared, server).unwrap();
            client.is_complete();
            places.push(client);
        }
        assert!(Client::admit(&shared, pair(&listener).1).is_err());
        places.pop();
        assert!(Client::admit(&shared, pair(&listener).1).is_ok());
        drop(places);
        assert_eq!(shared.threads.load(Ordering::Acquire), 0);
        assert!(lock(&shared.waiting).is_empty());
    }

    #[test]
    fn only_routes_for_programs_answer_under_a_foreign_host() {
        let page = |_: &Request| Response::text(200, "page");
        let routes = Routes::default().with("/", page).with("/metrics", page);
        let shared = Arc::new(Shared::new(routes.known_as("probe.example")));
        let own = crate::sys::host_name().unwrap();
        let [same_label, longer] = [format!("{own}.lan:80"), format!("x{own}")];
        for (path, host, status) in [
            ("/", "127.0.0.1:9090", 200),
            ("/", "192.0.2.1", 200),
            ("/", "[2001:db8::1]:9090", 200),
            ("/", "[::1]", 200),
            ("/", "LocalHost:9090", 200),
            ("/", "Probe.Example:9090", 200),
            ("/", same_label.as_str(), 200),
            ("/", "", 200),
            ("/", longer.as_str(), 421),
            ("/", "evil.example", 421),
            ("/", "127.0.0.1.evil.example", 421),
            ("/", "localhost.evil.example", 421),
            ("/", "[::1].evil.example", 421),
            ("/", "localhost:80x", 421),
            ("/none", "evil.example", 421),
            ("/metrics", "evil.example", 200),
        ] {
            let sent = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let text = ask(&shared, sent.as_bytes());
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status} ")),
                "{host}: {text}"
            );
            let remedy = "--metrics-listen evil.example";
            assert!(
                status == 200 || !host.starts_with("evil") || text.contains(remedy),
                "{text}"
            );
        }
    }
}
