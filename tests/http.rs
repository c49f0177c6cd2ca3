//! `--http-write` and `--server-timing` before a plain server that records its bytes: the same as
//! without nodes, but for what is added.

mod util;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;
use util::http::{ask, metrics_of, until};
use util::{pass, Dir, Node, LONG};

/// A step of a conversation: bytes of the client, then the server's answer to them.
type Step = (&'static [u8], &'static [u8]);

/// The parts of a conversation that clients and servers of HTTP/1.x have.
const CONVERSATION: [Step; 8] = [
    (
        b"GET /a HTTP/1.1\r\nHost: h\r\nX-Path: client t=1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ),
    (
        b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
          4\r\nbody\r\n0\r\nX-T: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n",
    ),
    (
        b"HEAD /c HTTP/1.1\r\nHost: h\r\n\r\nGET /d HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n\
          HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    ),
    (
        b"PUT /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ),
    (b"GET ", b"HTTP/1.1 204 No Content\r\n\r\n"),
    (
        b"GET /f HTTP/1.0\r\nX-Path: \r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ),
    (
        b"GET /tunnel HTTP/1.1\r\nHost: h\r\n\r\n\0\xff",
        b"HTTP/1.1 200 OK\r\n\r\n\0",
    ),
];

/// Reads until `end` has come.
#[track_caller]
fn read_to(stream: &mut TcpStream, seen: &mut Vec<u8>, end: &[u8]) {
    let from = seen.len();
    let mut piece = [0; 4096];
    while !seen[from..].ends_with(end) {
        let read = stream.read(&mut piece).unwrap();
        let shown = seen[from..].escape_ascii().to_string();
        assert!(read > 0, "{shown} before {}", end.escape_ascii());
        seen.extend_from_slice(&piece[..read]);
    }
}

/// Has the steps between a client and a server. Returns what the server saw, and the client.
#[track_caller]
fn converse(client: &mut TcpStream, server: &mut TcpStream, steps: &[Step]) -> [Vec<u8>; 2] {
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    for (request, answer) in steps {
        client.write_all(request).unwrap();
        let last = request.len().saturating_sub(4);
        read_to(server, &mut at_server, &request[last..]);
        server.write_all(answer).unwrap();
        let last = answer.len().saturating_sub(4);
        read_to(client, &mut at_client, &answer[last..]);
    }
    [at_server, at_client]
}

fn through(entry: SocketAddr, listener: &TcpListener) -> [TcpStream; 2] {
    let mut client = TcpStream::connect(entry).unwrap();
    // An exit connects to its server before it has any byte of the client.
    client.set_nodelay(true).unwrap();
    let accepted = {
        let (say, hear) = channel();
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || say.send(listener.accept().unwrap().0));
        hear
    };
    let server = accepted.recv_timeout(LONG).expect("a connection");
    for stream in [&mut client, &mut server.try_clone().unwrap()] {
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    [client, server]
}

/// Takes lines and elements out that nodes have added, which all have ` t=` behind a node's name,
/// or are `Server-Timing`. Returns the rest, and what was taken out.
fn without_added(bytes: &[u8], nodes: &[&str]) -> (String, Vec<String>) {
    let mut text = bytes.escape_ascii().to_string();
    let mut added = Vec::new();
    while let Some(at) = text.find("Server-Timing: ") {
        let end = at + text[at..].find("\\r\\n").unwrap() + 4;
        added.push(text[at..end].to_owned());
        text.replace_range(at..end, "");
    }
    for node in nodes.iter().rev() {
        while let Some(at) = text.find(&format!("{node} t=")) {
            let value = at + node.len() + 3;
            let digits = |letter: char| letter.is_ascii_digit() || letter == '.';
            let end = value + text[value..].find(|c| !digits(c)).unwrap();
            added.push(text[at..end].to_owned());
            let own_line =
                text[..at].ends_with("\\r\\nX-Path: ") && text[end..].starts_with("\\r\\n");
            let from = match text[..at].strip_suffix(", ") {
                Some(before) => before.len(),
                None if own_line => at - "X-Path: ".len(),
                None => at - 1,
            };
            text.replace_range(from..if own_line { end + 4 } else { end }, "");
        }
    }
    (text, added)
}

#[test]
fn the_server_and_the_client_see_the_same_bytes_but_for_what_is_added() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let [mut client, mut server] = through(address, &listener);
    let control = converse(&mut client, &mut server, &CONVERSATION);
    let [server_saw, client_saw] = control.map(|bytes| bytes.escape_ascii().to_string());

    let write = ["--http-write", "X-Path"];
    let timing = ["--server-timing", "--sample", "0"];
    let exit = Node::to("B", address, &[&["-r"], &write[..]].concat());
    let entry = [&["--accept", "raw"], &write[..], &timing].concat();
    let entry = Node::to("A", exit.address, &entry);
    let proxy = [&["--accept", "raw", "-r"], &write[..], &timing].concat();
    let proxy = Node::to("P", address, &proxy);
    for (at, nodes) in [(entry.address, &["A", "B"][..]), (proxy.address, &["P"])] {
        let [mut client, mut server] = through(at, &listener);
        let [at_server, at_client] = converse(&mut client, &mut server, &CONVERSATION);
        let (rest, stamps) = without_added(&at_server, nodes);
        assert_eq!(rest, server_saw, "{stamps:?}");
        // Seven requests before the upgrade is done.
        assert_eq!(stamps.len(), 7 * nodes.len(), "{stamps:?}");
        let first = at_server.escape_ascii().to_string();
        let list = first.split("X-Path: ").nth(1).unwrap();
        let list = list.split("\\r\\n").next().unwrap();
        let names: Vec<_> = list
            .split(", ")
            .map(|one| one.split(' ').next().unwrap())
            .collect();
        assert_eq!(names, [&["client"], nodes].concat(), "{first}");
        let (rest, timings) = without_added(&at_client, nodes);
        assert_eq!(rest, client_saw, "{timings:?}");
        // Six final responses before the upgrade.
        assert_eq!(timings.len(), 6, "{timings:?}");
        assert!(
            timings.iter().all(|timing| timing.contains("total;dur=")),
            "{timings:?}"
        );
        // The stamps of 100 are not those of the response, and a block has those of its first.
        for alone in [3, 4] {
            assert!(timings[alone].contains(": total;"), "{timings:?}");
        }
    }
}

/// The parts that a response names, and its total, in milliseconds.
fn parts(head: &str) -> (Vec<(String, f64)>, f64) {
    let value = head.split("Server-Timing: ").nth(1).expect("the header");
    let value = value.split("\r\n").next().unwrap();
    let mut parts: Vec<_> = value
        .split(", ")
        .map(|metric| {
            let (name, rest) = metric.split_once(";dur=").unwrap();
            let delay = rest.split(';').next().unwrap();
            (name.to_owned(), delay.parse().unwrap())
        })
        .collect();
    let (name, total) = parts.pop().unwrap();
    assert_eq!(name, "total", "{value}");
    (parts, total)
}

#[test]
fn a_response_names_the_delays_of_its_request_that_add_up_to_the_total() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let exit = Node::to("exit 1", listener.local_addr().unwrap(), &["-r"]);
    let relay = Node::to("R", exit.address, &[]);
    let entry = Node::to("A", relay.address, &["--accept", "raw", "--server-timing"]);
    let [mut client, mut server] = through(entry.address, &listener);
    let mut complete = 0;
    // More than ten requests in a hundredth of a second are not all stamped.
    for _ in 0..200 {
        let step: Step = (
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        );
        let [_, seen] = converse(&mut client, &mut server, &[step]);
        let head = String::from_utf8(seen).unwrap();
        let (parts, total) = parts(&head);
        if parts.is_empty() {
            continue;
        }
        let names: Vec<_> = parts.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["A", "A-R", "R", "R-exit_1", "exit_1", "server"];
        assert_eq!(names, expected, "{head}");
        assert!(head.contains(";desc=\"R -> exit 1\", "), "{head}");
        let sum: f64 = parts.iter().map(|(_, delay)| delay).sum();
        assert!((sum - total).abs() < 0.000_5, "{head}");
        complete += 1;
    }
    assert!(
        complete >= 20,
        "{complete} of 200 responses had their parts"
    );
}

#[test]
fn the_first_request_of_a_connection_has_its_parts_however_long_its_head_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let exit = Node::to("B", address, &["-r"]);
    let raw = ["--accept", "raw", "--server-timing"];
    let entry = Node::to("A", exit.address, &raw);
    let proxy = Node::to("P", address, &[&raw[..], &["-r"]].concat());
    let field = format!("Cookie: {}\r\n", "y".repeat(3_000));
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n");
    let response = format!("HTTP/1.1 204 No\r\n{field}\r\n");
    let mut complete = 0;
    for at in [entry.address, proxy.address].repeat(10) {
        let [mut client, mut server] = through(at, &listener);
        client.write_all(request.as_bytes()).unwrap();
        read_to(&mut server, &mut Vec::new(), b"\r\n\r\n");
        server.write_all(response.as_bytes()).unwrap();
        let mut seen = Vec::new();
        read_to(&mut client, &mut seen, b"\r\n\r\n");
        let (parts, _) = parts(&String::from_utf8(seen).unwrap());
        complete += usize::from(!parts.is_empty());
    }
    assert!(complete >= 15, "{complete} of 20 responses had their parts");
}

#[test]
fn a_client_that_is_slow_with_its_first_head_is_no_slow_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let exit = Node::to("B", listener.local_addr().unwrap(), &["-r"]);
    let entry = Node::to("A", exit.address, &["--accept", "raw", "--server-timing"]);
    let mut client = TcpStream::connect(entry.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    pass(Duration::from_secs(2));
    client.write_all(b"Host: h\r\n\r\n").unwrap();
    read_to(&mut server, &mut Vec::new(), b"\r\n\r\n");
    server.write_all(b"HTTP/1.1 204 No\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    read_to(&mut client, &mut seen, b"\r\n\r\n");
    let head = String::from_utf8(seen).unwrap();
    let (parts, total) = parts(&head);
    assert!(!parts.is_empty() && total < 1_900.0, "{head}");
}

#[test]
fn a_record_of_a_connection_has_the_stamps_of_others_and_not_the_nodes_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir = Dir::new("http-own-stamps");
    let [at_exit, at_entry, at_proxy] =
        ["B", "A", "P"].map(|name| dir.file(&format!("{name}.jsonl")));
    let options = |file: &std::path::Path, more: &[&'static str]| -> Vec<String> {
        let own = [
            "--http-read",
            "X-Path",
            "--http-write",
            "X-Path",
            "--sessions",
        ];
        let all = own.iter().chain(more).map(|text| (*text).to_owned());
        let mut all: Vec<String> = all.collect();
        all.insert(5, file.to_str().unwrap().to_owned());
        all
    };
    let start = |name, to, args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Node::to(name, to, &args)
    };
    let raw = ["--accept", "raw", "--server-timing"];
    let exit = start("B", address, options(&at_exit, &["-r"]));
    let entry = start("A", exit.address, options(&at_entry, &raw));
    let proxy = [&raw[..], &["-r"]].concat();
    let proxy = start("P", address, options(&at_proxy, &proxy));
    for at in [entry.address, proxy.address] {
        let [mut client, mut server] = through(at, &listener);
        converse(&mut client, &mut server, &CONVERSATION[..2]);
    }
    for (file, foreign) in [(at_entry, 1), (at_exit, 3), (at_proxy, 1)] {
        let line = until("the end of the connection", || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let lines = text.split_inclusive('\n');
            let mut ended = lines.filter(|line| line.contains("\"event\":\"end\""));
            ended.find(|line| line.ends_with('\n')).map(str::to_owned)
        });
        // That of the client, and at the exit the entry's in both requests.
        assert_eq!(line.matches("\"raw\":").count(), foreign, "{line}");
        assert!(line.contains("\"raw\":\"client t=1\""), "{line}");
        assert!(!line.contains("\"name\":\"total\""), "{line}");
    }
}

#[test]
fn a_doubt_passes_the_rest_of_its_connection_unchanged_and_is_counted_and_logged_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = ["--metrics-listen", "127.0.0.1:0"];
    let args = [
        &["--accept", "raw", "-r", "--http-write", "X-Path"],
        &metrics[..],
    ]
    .concat();
    let mut proxy = Node::to("P", address, &args);
    let at = metrics_of(&mut proxy.process);
    let steps: [Step; 2] = [
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\
              Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    let [mut client, mut server] = through(proxy.address, &listener);
    let [seen, _] = converse(&mut client, &mut server, &steps);
    let sent: Vec<u8> = steps
        .iter()
        .flat_map(|step| step.0.iter().copied())
        .collect();
    assert_eq!(
        seen.escape_ascii().to_string(),
        sent.escape_ascii().to_string()
    );
    proxy
        .process
        .wait_line("has both Content-Length and Transfer-Encoding: the rest");
    let (_, page) = ask(at, "/metrics", "");
    assert!(page.contains("subsegment_http_passed_total 1\n"), "{page}");
    let lines = proxy.process.stderr();
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("passes without"))
            .count(),
        1,
        "{lines:?}"
    );
}

#[test]
fn a_slow_head_is_passed_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let write = ["-t", "0.3", "--http-write", "X-Path"];
    let plain_exit = Node::to("B", address, &["-r"]);
    let entry = [&["--accept", "raw"], &write[..]].concat();
    let entry = Node::to("A", plain_exit.address, &entry);
    let exit = Node::to("B", address, &[&["-r"], &write[..]].concat());
    let plain_entry = Node::to("A", exit.address, &["--accept", "raw"]);
    let proxy = [&["--accept", "raw", "-r"], &write[..]].concat();
    let proxy = Node::to("P", address, &proxy);
    for at in [entry.address, plain_entry.address, proxy.address] {
        let [mut client, mut server] = through(at, &listener);
        let half = b"GET / HTTP/1.1\r\nHost: h\r\n";
        client.write_all(half).unwrap();
        let mut seen = Vec::new();
        read_to(&mut server, &mut seen, half);
        client.write_all(b"\r\n").unwrap();
        read_to(&mut server, &mut seen, b"\r\n");
        assert_eq!(
            seen.escape_ascii().to_string(),
            [&half[..], b"\r\n"].concat().escape_ascii().to_string()
        );
    }
}
