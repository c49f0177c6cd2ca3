//! `--sessions`: the lives of connections, read through a pipe as they are written.

mod util;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};
use util::http::{ask, metrics_of, until};
use util::json::{parse, Value};
use util::{fill_backlog, Dir, Node, Process, LONG};

/// open(2); the same number on every Linux that the tests run on.
const O_NONBLOCK: i32 = 0o4000;

/// A file that hands each line over as it is written.
struct Lines {
    path: PathBuf,
    lines: Receiver<String>,
}

impl Lines {
    /// Returns the argument of `--sessions`.
    fn file(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }

    fn new(dir: &Dir) -> Self {
        let path = dir.file("sessions.jsonl");
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let (sender, lines) = channel();
        let read = path.clone();
        std::thread::spawn(move || {
            let file = BufReader::new(std::fs::File::open(read).unwrap());
            for line in file.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { path, lines }
    }

    #[track_caller]
    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(LONG).expect("a line in time");
        parse(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next line of that event; what comes before it is passed over.
    #[track_caller]
    fn wait(&self, event: &str) -> Value {
        loop {
            let value = self.next();
            if value.at("event").and_then(Value::as_str) == Some(event) {
                return value;
            }
        }
    }
}

#[track_caller]
fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    let found = value.at(path).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("{path}: {value:?}"))
}

#[track_caller]
fn number(value: &Value, path: &str) -> u64 {
    let found = value.at(path).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("{path}: {value:?}"))
}

/// The events at these paths happened in this order (RFC 3339 in one zone sorts as text).
#[track_caller]
fn in_order(value: &Value, paths: &[&str]) {
    for pair in paths.windows(2) {
        let [first, second] = [pair[0], pair[1]];
        assert!(
            text(value, first) <= text(value, second),
            "{first} after {second}: {value:?}"
        );
    }
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: z\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345";

/// The time that the server takes.
const THINKING: Duration = Duration::from_millis(300);

/// Starts an HTTP server that answers one request of one client after a message on `go`, and
/// half-closes.
fn server(listener: TcpListener, go: Receiver<()>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; REQUEST.len()]).unwrap();
        go.recv_timeout(LONG).unwrap();
        let _ = go.recv_timeout(THINKING); // No further message: this passes the time.
        socket.write_all(RESPONSE).unwrap();
        socket.read_to_end(&mut Vec::new()).unwrap();
    })
}

/// Returns the number of segments that this host's kernel has sent again. On a busy machine it does
/// so even over loopback, if the acknowledging process waits for a CPU.
fn sent_again() -> u64 {
    let table = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let mut columns = names.split(' ').zip(values.split(' '));
    let (_, count) = columns.find(|(name, _)| *name == "RetransSegs").unwrap();
    count.parse().unwrap()
}

#[test]
fn a_connection_through_entry_and_exit_leaves_its_life_and_its_http_times_at_both() {
    let dirs = [Dir::new("sessions-entry"), Dir::new("sessions-exit")];
    let lines = dirs.each_ref().map(Lines::new);
    let files = lines.each_ref().map(Lines::file);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let (answer_now, go) = channel();
    let before = sent_again();
    let served = server(listener, go);
    let exit = Node::to("Z", target, &["-r", "--sessions", &files[1]]);
    let mut entry = Node::to(
        "A",
        exit.address,
        &["--accept", "raw", "--sessions", &files[0]],
    );
    let mut client = TcpStream::connect(entry.address).unwrap();
    let asked = Instant::now();
    client.write_all(REQUEST).unwrap();
    // The request is through when both have a line of a second in which it moved.
    for (lines, moved) in lines
        .iter()
        .zip(["client/received_bytes", "server/sent_bytes"])
    {
        while lines.next().at(moved).and_then(Value::as_u64) != Some(REQUEST.len() as u64) {}
    }
    answer_now.send(()).unwrap();
    let mut answer = vec![0; RESPONSE.len()];
    client.read_exact(&mut answer).unwrap();
    let answered = asked.elapsed();
    assert_eq!(answer, RESPONSE);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    served.join().unwrap();
    let [a, z] = lines.each_ref().map(|lines| lines.wait("end"));
    let again = sent_again() - before;
    for (value, name, role) in [(&a, "A", "entry"), (&z, "Z", "exit")] {
        assert_eq!((text(value, "node"), text(value, "role")), (name, role));
        assert_eq!(value.at("failed"), Some(&Value::Bool(false)), "{value:?}");
        for end in ["client", "server"] {
            let at = |key: &str| format!("{end}/{key}");
            in_order(
                value,
                &[
                    &at("established"),
                    &at("first_received"),
                    &at("last_received"),
                    &at("fin_received"),
                ],
            );
            in_order(
                value,
                &[&at("first_sent"), &at("last_sent"), &at("fin_sent")],
            );
            for none in ["rst_received", "rst_sent"] {
                assert!(value.at(&at(none)).unwrap().is_null(), "{none}: {value:?}");
            }
            // None, on a machine that is not busy.
            assert!(number(value, &at("retransmits")) <= again, "{value:?}");
            assert_eq!(number(value, &at("syn_retransmits")), 0);
            let least = number(value, &at("rtt_min_ns"));
            assert!(least > 0 && least <= number(value, &at("rtt_max_ns")));
        }
        in_order(value, &["server/connect_started", "server/established"]);
        assert!(number(value, "server/connect_ns") < LONG.as_nanos() as u64);
        let [exchange] = value.at("http").unwrap().as_array().unwrap() else {
            panic!("one exchange: {value:?}");
        };
        assert_eq!(text(exchange, "method"), "GET");
        assert_eq!(number(exchange, "status"), 200);
        let waited = Duration::from_nanos(number(exchange, "time_to_first_byte_ns"));
        assert!(waited >= THINKING && waited <= answered, "{waited:?}");
    }
    // Both carry the same session, and each plain side has exactly the application's bytes.
    assert_eq!(text(&a, "cookie"), text(&z, "cookie"));
    assert_eq!((number(&a, "hop"), number(&z, "hop")), (0, 1));
    for (value, end, received, sent) in [
        (&a, "client", REQUEST.len(), RESPONSE.len()),
        (&z, "server", RESPONSE.len(), REQUEST.len()),
    ] {
        let count = |key: &str| number(value, &format!("{end}/{key}_bytes"));
        assert_eq!(count("received"), received as u64);
        assert_eq!(count("sent"), sent as u64);
    }
    // The framed sides are each other's mirror.
    for (here, there) in [("received", "sent"), ("sent", "received")] {
        assert_eq!(
            number(&a, &format!("server/{here}_bytes")),
            number(&z, &format!("client/{there}_bytes"))
        );
    }
    assert!(entry.process.stop().0.success());
}

#[test]
fn a_reset_and_a_failed_connect_have_their_own_ends() {
    let dir = Dir::new("sessions-reset");
    let lines = Lines::new(&dir);
    let file = lines.path.to_str().unwrap();
    // An address of its own, or another test might have the port when this listener is gone.
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let target = listener.local_addr().unwrap();
    let proxy = Node::to("P", target, &["--accept", "raw", "-r", "--sessions", file]);
    let mut client = TcpStream::connect(proxy.address).unwrap();
    client.write_all(b"ping").unwrap();
    let (server, _) = listener.accept().unwrap();
    server.peek(&mut [0; 1]).unwrap();
    drop(server); // With "ping" unread: a reset.
    assert!(client.read(&mut [0; 1]).is_err());
    let end = lines.wait("end");
    assert_eq!(end.at("failed"), Some(&Value::Bool(true)), "{end:?}");
    in_order(&end, &["server/established", "server/rst_received"]);
    in_order(&end, &["server/rst_received", "client/rst_sent"]);
    assert!(end.at("server/rst_sent").unwrap().is_null(), "{end:?}");
    assert!(end.at("client/rst_received").unwrap().is_null(), "{end:?}");
    assert!(
        end.at("cookie").unwrap().is_null(),
        "a proxy has no session"
    );
    drop(listener);
    // Nothing is waited for, so the reset may be there before the connect returns.
    let client = TcpStream::connect(proxy.address);
    let answer = client.and_then(|mut client| client.read(&mut [0; 1]));
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let end = lines.wait("end");
    assert_eq!(end.at("failed"), Some(&Value::Bool(true)), "{end:?}");
    assert!(end.at("server").unwrap().is_null(), "{end:?}");
}

/// A pipe that takes not a byte more.
fn full_pipe(path: &Path) -> std::fs::File {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
    let mut opening = std::fs::OpenOptions::new();
    opening.read(true).write(true).custom_flags(O_NONBLOCK);
    let mut pipe = opening.open(path).unwrap();
    while pipe.write(&[b'\n'; 4096]).is_ok() {}
    while pipe.write(b"\n").is_ok() {}
    pipe
}

#[test]
fn a_reader_that_stopped_holds_up_neither_connections_nor_the_end() {
    let dir = Dir::new("sessions-stalled");
    let file = dir.file("pipe");
    let pipe = full_pipe(&file);
    let mut echo = Node::start("Z", &["--sessions", file.to_str().unwrap()]);
    for _ in 0..10 {
        let mut client = TcpStream::connect(echo.address).unwrap();
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    echo.process.signal("TERM");
    assert_eq!(echo.process.wait().code(), Some(1));
    let log = echo.process.stderr().join("\n");
    let file = file.display();
    assert!(log.contains(&format!("write {file}: timed out")), "{log}");
    drop(pipe);
}

#[test]
fn what_the_run_before_wrote_stays_in_the_file() {
    let dir = Dir::new("sessions-again");
    let file = dir.file("sessions.jsonl");
    for run in 1..3 {
        let mut echo = Node::start("Z", &["--sessions", file.to_str().unwrap()]);
        let mut client = TcpStream::connect(echo.address).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        assert!(echo.process.stop().0.success());
        let text = std::fs::read_to_string(&file).unwrap();
        let ends = text
            .lines()
            .filter(|line| line.contains("\"event\":\"end\""));
        assert_eq!(ends.count(), run, "{text}");
    }
}

#[test]
fn a_signal_ends_a_node_whose_sessions_file_has_no_reader() {
    let dir = Dir::new("sessions-unread");
    let file = dir.file("pipe");
    assert!(Command::new("mkfifo")
        .arg(&file)
        .status()
        .unwrap()
        .success());
    let mut command = util::program();
    command.args(["-l", "127.0.0.1:0", "--sessions", file.to_str().unwrap()]);
    let mut node = Process::start(&mut command);
    // From when on signals are its own business.
    let blocks = format!("/proc/{}/status", node.child.id());
    let blocked = |status: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        mask.is_some_and(|mask| mask.trim().bytes().any(|digit| digit != b'0'))
    };
    let deadline = Instant::now() + LONG;
    while !blocked(&std::fs::read_to_string(&blocks).unwrap()) {
        assert!(Instant::now() < deadline, "it blocks no signals");
        std::thread::yield_now();
    }
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(1));
}

/// Returns `true` if a socket waits for the answer to a SYN to this port.
fn knocks(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sought = format!(":{port:04X} 02 "); // Remote port, SYN_SENT.
    table.contains(&sought)
}

#[test]
fn a_connection_whose_connect_hangs_when_the_node_ends_has_its_end_in_the_file_and_counts() {
    let dir = Dir::new("sessions-hangs");
    let lines = Lines::new(&dir);
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = full.local_addr().unwrap();
    let _waiting = fill_backlog(target);
    let file = lines.file();
    let mut proxy = Node::to(
        "P",
        target,
        &["-t", "60", "--accept", "raw", "-r", "--sessions", &file],
    );
    let _client = TcpStream::connect(proxy.address).unwrap();
    lines.wait("start");
    let (status, report) = proxy.process.stop();
    assert!(status.success());
    let end = lines.wait("end");
    assert_eq!(number(&end, "connection"), 1);
    assert!(
        report.contains("connections: 1, of which ended by a reset or an error: 1;"),
        "{report}"
    );
}

#[test]
fn a_syn_that_was_lost_is_counted_and_shows_in_the_time_to_connect() {
    let dir = Dir::new("sessions-syn");
    let lines = Lines::new(&dir);
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = full.local_addr().unwrap();
    // A full backlog drops what comes: nothing is accepted until our SYN is under way.
    let waiting = fill_backlog(target);
    let proxy = Node::to(
        "P",
        target,
        &[
            // Its SYNs are repeated after 1, 3, 7 s: on a busy machine the backlog is free only at
            // the second.
            "-t",
            "60",
            "--accept",
            "raw",
            "-r",
            "--sessions",
            lines.path.to_str().unwrap(),
        ],
    );
    let mut client = TcpStream::connect(proxy.address).unwrap();
    lines.wait("start");
    let deadline = Instant::now() + LONG;
    while !knocks(target.port()) {
        assert!(Instant::now() < deadline, "its SYN was not dropped");
        std::thread::yield_now();
    }
    let accepting = std::thread::spawn(move || {
        for socket in full.incoming().map_while(Result::ok) {
            let mut socket = socket;
            if std::io::copy(&mut socket, &mut Vec::new()).is_ok_and(|read| read > 0) {
                return;
            }
        }
    });
    drop(waiting);
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    accepting.join().unwrap();
    let end = lines.wait("end");
    let again = number(&end, "server/syn_retransmits");
    assert!((1..6).contains(&again), "{end:?}");
    // The first is repeated after a second (RFC 6298 §2).
    assert!(number(&end, "server/connect_ns") > 900_000_000, "{end:?}");
}

#[test]
fn answers_that_come_at_once_belong_to_their_own_requests_at_every_node() {
    const REQUESTS: usize = 300;
    let dirs = ["proxy", "entry", "exit"].map(|name| Dir::new(&format!("sessions-quick-{name}")));
    let lines = dirs.each_ref().map(Lines::new);
    let files = lines.each_ref().map(Lines::file);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let mut request = [0; REQUEST.len()];
        while socket.read_exact(&mut request).is_ok() {
            socket.write_all(RESPONSE).unwrap();
        }
    });
    let exit = Node::to("Z", target, &["-r", "--sessions", &files[2]]);
    let raw = ["--accept", "raw", "--sessions"];
    let entry = Node::to("A", exit.address, &[raw[0], raw[1], raw[2], &files[1]]);
    let proxy = ["-r", raw[0], raw[1], raw[2], &files[0]];
    let proxy = Node::to("P", entry.address, &proxy);
    let mut client = TcpStream::connect(proxy.address).unwrap();
    client.set_nodelay(true).unwrap();
    let mut answer = vec![0; RESPONSE.len()];
    for _ in 0..REQUESTS {
        client.write_all(REQUEST).unwrap();
        client.read_exact(&mut answer).unwrap();
    }
    drop(client);
    for lines in &lines {
        let end = lines.wait("end");
        let exchanges = end.at("http").unwrap().as_array().unwrap();
        assert_eq!(exchanges.len(), REQUESTS, "{}", text(&end, "role"));
        for exchange in exchanges {
            in_order(exchange, &["request_first", "response_first"]);
            number(exchange, "time_to_first_byte_ns");
        }
    }
}

const METRICS: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

/// Returns the lines of `/sessions`.
#[track_caller]
fn open_now(metrics: SocketAddr) -> Vec<Value> {
    let (status, body) = ask(metrics, "/sessions", "");
    assert_eq!(status, 200, "{body}");
    assert!(body.is_empty() || body.ends_with('\n'), "{body}");
    let read = |line: &str| parse(line.as_bytes()).unwrap_or_else(|e| panic!("{e}: {line}"));
    body.lines().map(read).collect()
}

#[test]
fn open_connections_are_listed_without_an_effect_on_the_lines_of_the_file() {
    const PIECE: usize = 1_000;
    const ROUNDS: usize = 3;
    let dir = Dir::new("sessions-asked");
    let lines = Lines::new(&dir);
    let echo = Node::start("Z", &[]);
    let file = lines.path.to_str().unwrap();
    let args = [&["--accept", "raw", "--sessions", file][..], &METRICS].concat();
    let mut entry = Node::to("A", echo.address, &args);
    let metrics = metrics_of(&mut entry.process);
    assert!(open_now(metrics).is_empty());
    let mut client = TcpStream::connect(entry.address).unwrap();
    let connection = number(&lines.wait("start"), "connection");
    let mut idle = TcpStream::connect(entry.address).unwrap();
    let other = number(&lines.wait("start"), "connection");
    for round in 1..=ROUNDS {
        client.write_all(&[b'x'; PIECE]).unwrap();
        client.read_exact(&mut [0; PIECE]).unwrap();
        // A write is noted when the reader may have it already.
        let [busy, quiet] = until("all bytes", || {
            let open: [Value; 2] = open_now(metrics).try_into().expect("two connections");
            (number(&open[0], "client/sent_bytes") >= (round * PIECE) as u64).then_some(open)
        });
        for (record, id) in [(&busy, connection), (&quiet, other)] {
            let schema = "subsegment-tcp-speeds/session/1";
            assert_eq!(
                (text(record, "schema"), text(record, "event")),
                (schema, "now")
            );
            assert_eq!((text(record, "node"), text(record, "role")), ("A", "entry"));
            assert_eq!(number(record, "connection"), id);
            assert!(
                record.at("client/interval").unwrap().is_null(),
                "{record:?}"
            );
            assert!(record.at("client/fin_received").unwrap().is_null());
        }
        for key in ["client/received_bytes", "client/sent_bytes"] {
            assert_eq!(number(&busy, key), (round * PIECE) as u64, "{key}");
            assert_eq!(number(&quiet, key), 0, "{key}");
        }
        in_order(&busy, &["client/last_received", "at"]);
        assert_eq!(text(&busy, "server/peer"), echo.address.to_string());
    }
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    let mut moved = 0;
    loop {
        let line = lines.next();
        if number(&line, "connection") == other {
            continue; // It was opened towards the next node.
        }
        moved += number(&line, "client/interval/received_bytes");
        if text(&line, "event") == "end" {
            break;
        }
        assert_eq!(text(&line, "event"), "interval");
    }
    assert_eq!(moved, (ROUNDS * PIECE) as u64, "the intervals are whole");
    let left = open_now(metrics);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(number(&left[0], "connection"), other);
    idle.shutdown(Shutdown::Write).unwrap();
    idle.read_to_end(&mut Vec::new()).unwrap();
    lines.wait("end");
    assert!(open_now(metrics).is_empty());
}

#[test]
fn a_node_that_records_no_connections_names_the_option() {
    let mut echo = Node::start("Z", &METRICS);
    let (status, body) = ask(metrics_of(&mut echo.process), "/sessions", "");
    assert_eq!(status, 404);
    assert!(
        body.ends_with("start the node with --sessions FILE\n"),
        "{body}"
    );
    assert_eq!(body.lines().count(), 1, "{body}");
}
