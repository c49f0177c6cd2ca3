//! Bad input and bad surroundings: one clear line, the right exit status, and no effect on others.
//!
//! `cargo test --test bad_input -- --nocapture | grep '^LINE'` shows the lines as users see them.

mod faces;
mod util;

use faces::framed::{
    bent, block, complaints, crc32, error_text, framed, next_frame, open, Witness, COOKIE,
};
use faces::{
    accept, connect, connect_unless_reset, echo_server, listener, read_stream, write_stream, Chain,
    Shape,
};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::wire::{Flags, FrameType, HEADER_LEN};
use util::vitals::cpu;
use util::{fill_backlog, free_port, need, pass, program, run, text, Dir, Node, Process, LONG};

/// Ends `node`, which has to have logged one thing: a line with `part`.
#[track_caller]
fn logged_only(node: &mut Node, part: &str) {
    node.process.wait_line(part);
    let (status, _) = node.process.stop();
    assert!(status.success());
    let stderr = node.process.stderr();
    let complaints = complaints(&stderr);
    assert_eq!(complaints.len(), 1, "{stderr:#?}");
    assert!(complaints[0].contains(part), "{stderr:#?}");
    println!("LINE {}", complaints[0]);
}

// --- what a client may send ----------------------------------------------------------------------

#[test]
fn a_client_that_breaks_the_protocol_is_refused_in_one_line_and_no_other_notices() {
    let z = Node::start("Z", &[]);
    let auto: &[&str] = &[];
    let hasty: &[&str] = &["-t", "0.3"];
    let only_framed: &[&str] = &["--accept", "framed"];
    let with_open = |frame: Vec<u8>| [open(), frame].concat();
    let payload_length = 16;
    let cases: Vec<(&[&str], Vec<u8>, bool, &str)> = vec![
        (
            only_framed,
            b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            false,
            r#"does not speak this protocol: it sent "GET / HTTP/1.0\r\n\r\n"; if it is a"#,
        ),
        (
            only_framed,
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            false,
            "PROXY protocol preamble",
        ),
        (
            auto,
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            false,
            "no send-proxy",
        ),
        (
            auto,
            b"\r\n\r\n\0\r\nQUIT\n!!".to_vec(),
            false,
            "no send-proxy",
        ),
        (auto, open()[..20].to_vec(), true, "within a frame"),
        (
            auto,
            with_open(block()[..50].to_vec()),
            true,
            "closed the connection within a frame",
        ),
        (
            hasty,
            with_open(block()[..30].to_vec()),
            false,
            "did not go on for 0.3 s (--timeout)",
        ),
        (
            hasty,
            with_open(block()[..50].to_vec()),
            false,
            "did not go on for 0.3 s (--timeout)",
        ),
        (
            hasty,
            open()[..12].to_vec(),
            false,
            "did not go on for 0.3 s (--timeout)",
        ),
        (
            auto,
            with_open(bent(&block(), payload_length, &[0xff; 4], true)),
            false,
            "payload length is 4294967295, outside 0 to 1048576",
        ),
        (
            auto,
            bent(&open(), 14, &[0xff; 2], true),
            false,
            "annotations length is 65535",
        ),
        (
            auto,
            bent(&open(), 20, &[129], true),
            false,
            "stamp count is 129, outside 0 to 128",
        ),
        (
            auto,
            bent(&open(), 12, &[0, 4], true),
            false,
            "header length is 4, outside 48",
        ),
        (
            auto,
            with_open(bent(&block(), 30, &[1], false)),
            false,
            "damaged header",
        ),
        (
            auto,
            bent(&open(), 8, &[9], true),
            false,
            "speaks version 9",
        ),
        (
            auto,
            with_open(bent(&block(), 9, &[0x55], true)),
            false,
            "unknown type 85",
        ),
        (auto, block(), false, "not with OPEN"),
        (
            auto,
            with_open(open()),
            false,
            "type 1, which does not belong here",
        ),
        (
            auto,
            with_open(framed(FrameType::Block, 0, 7, b"other")),
            false,
            "a second cookie: 0000000000000007 on the connection of 1122334455667788",
        ),
        (
            auto,
            with_open(bent(&block(), 21, &[32], true)),
            false,
            "hop limit of 32 is used up",
        ),
        (
            auto,
            with_open(framed(FrameType::Report, 2, COOKIE, &[])),
            false,
            "type 4, which does not",
        ),
        (
            auto,
            with_open([framed(FrameType::End, 0, COOKIE, &[]), block()].concat()),
            false,
            "type 3 after its END",
        ),
    ];
    for (args, bytes, shut, part) in cases {
        let mut b = Node::to("B", z.address, args);
        let mut witness = Witness::new(b.address, true);
        let mut bad = connect(b.address);
        bad.write_all(&bytes).unwrap();
        if shut {
            bad.shutdown(Shutdown::Write).unwrap();
        }
        let line = b.process.wait_line(part);
        assert!(line.contains(" up#"), "the thread's name: {line}");
        // Only a peer that has spoken as a node is answered as one.
        let error_text = error_text(&mut bad);
        // After END both directions may have ended in order before this was read.
        if bytes.starts_with(&open()[..8]) && !part.contains("after its END") {
            let error_text = error_text.unwrap_or_else(|| panic!("{part}: no ERROR frame"));
            assert!(error_text.contains(part), "{error_text}");
        }
        drop(bad); // The node waits for it: no reset may overtake the ERROR.
        witness.asks();
        witness.leaves();
        logged_only(&mut b, part);
    }
}

#[test]
fn a_node_that_connects_to_a_raw_listener_is_refused_with_an_error() {
    for shape in [Shape::Proxy, Shape::EntryExit] {
        let mut chain = Chain::start(shape, echo_server());
        let mut witness = Witness::new(chain.address, false);
        let probe = run(&["probe", &chain.address.to_string(), "-c", "1", "-t", "5"]);
        assert_eq!(probe.status.code(), Some(2));
        let stderr = text(&probe.stderr);
        assert!(stderr.contains("takes raw clients only"), "{stderr}");
        witness.asks();
        witness.leaves();
        logged_only(
            &mut chain.nodes[0],
            "takes raw clients only: a loop, or an entry",
        );
    }
}

// --- what a next hop may send --------------------------------------------------------------------

/// A next hop that serves its first connection well, through `z`, and answers all others with
/// `answer`, after so many frames: a probe sends no block before its path stands.
fn bad_hop(z: SocketAddr, frames: usize, answer: Vec<u8>, close: bool) -> SocketAddr {
    let (listener, address) = listener();
    thread::spawn(move || {
        let (first, next_hop) = (accept(&listener), connect(z));
        let pass = |from: &TcpStream, to: &TcpStream| {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                std::io::copy(&mut from, &mut to).unwrap();
                to.shutdown(Shutdown::Write).unwrap();
            });
        };
        pass(&first, &next_hop);
        pass(&next_hop, &first);
        drop((first, next_hop));
        for mut socket in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || {
                // All that comes is read, so that nothing unread makes the close a reset.
                let read = (0..frames).map(|_| next_frame(&mut socket).unwrap().0);
                let opened = read.last().unwrap();
                let mut answer = answer;
                if answer.len() >= HEADER_LEN
                    && answer.starts_with(&open()[..8])
                    && answer[24..32] == COOKIE.to_be_bytes()
                {
                    let cookie = opened.cookie.to_be_bytes();
                    let good = crc32(&answer[..44]).to_be_bytes() == answer[44..48];
                    answer = bent(&answer, 24, &cookie, good);
                }
                socket.write_all(&answer).unwrap();
                if close {
                    // The node may have gone already: it has seen enough.
                    let _ = socket.shutdown(Shutdown::Write);
                }
                let _ = std::io::copy(&mut socket, &mut std::io::sink());
                if !close {
                    // It neither sends nor closes, whatever the node does.
                    loop {
                        thread::park();
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_next_hop_that_breaks_the_protocol_is_named_to_the_source_and_no_other_notices() {
    let z = Node::start("Z", &[]);
    let back = framed(FrameType::Block, Flags::RETURN, COOKIE, b"payload");
    let http = b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n".to_vec();
    let cases = [
        (
            http,
            true,
            r#"does not speak this protocol: it sent "HTTP/1.1 400 Bad Request"; if it is a"#,
        ),
        (
            b"SSH-2.0-OpenSSH".to_vec(),
            false,
            r#"it sent "SSH-2.0-OpenSSH""#,
        ),
        (
            back[..20].to_vec(),
            true,
            "closed the connection within a frame",
        ),
        (
            back[..50].to_vec(),
            true,
            "closed the connection within a frame",
        ),
        (
            back[..20].to_vec(),
            false,
            "began a frame and did not go on for 1 s",
        ),
        (
            bent(&back, 16, &[0xff; 4], true),
            false,
            "payload length is 4294967295",
        ),
        (bent(&back, 30, &[1], false), false, "damaged header"),
        (
            framed(FrameType::Block, Flags::RETURN, 7, b"x"),
            false,
            "a second cookie: 0000000000000007",
        ),
        (block(), false, "type 3, which does not belong here"),
        (Vec::new(), true, "closed the connection without END"),
    ];
    for (answer, close, part) in cases {
        for probe in [true, false] {
            let mut b = Node::to(
                "B",
                bad_hop(z.address, if probe { 1 } else { 2 }, answer.clone(), close),
                &["-t", "1"],
            );
            let mut witness = Witness::new(b.address, true);
            let to_b = b.address.to_string();
            let (args, status): (&[&str], i32) = match probe {
                true => (&["probe", &to_b, "-c", "2", "-i", "0.1", "-t", "20"], 2),
                false => (&["-f", &to_b, "-t", "20"], 1),
            };
            let mut source = Process::start(
                program()
                    .args(args)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null()),
            );
            let mut stdin = source.child.stdin.take().unwrap();
            // A probe does not read it; the source's path may be gone.
            let _ = stdin.write_all(b"hello");
            let line = source.wait_line(part);
            println!(
                "LINE (source) {}",
                line.split_once("Z ").map_or(&*line, |halves| halves.1)
            );
            assert_eq!(source.wait().code(), Some(status), "{part}");
            drop(stdin);
            witness.asks();
            witness.leaves();
            logged_only(&mut b, part);
        }
    }
}

#[test]
fn a_source_pointed_at_a_plain_server_reports_that_itself() {
    let (listener, address) = listener();
    let server = thread::spawn(move || {
        let mut socket = accept(&listener);
        next_frame(&mut socket).unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        let _ = std::io::copy(&mut socket, &mut std::io::sink());
    });
    let probe = run(&["probe", &address.to_string(), "-c", "1", "-t", "5"]);
    assert_eq!(probe.status.code(), Some(2));
    let stderr = text(&probe.stderr);
    assert!(
        stderr.contains(r#"it sent "HTTP/1.1 400 Bad Request"; if it is a plain TCP server use"#),
        "{stderr}"
    );
    server.join().unwrap();
}

#[test]
fn a_next_hop_that_stops_reading_or_answering_breaks_a_source_within_its_timeout() {
    let (listener, address) = listener();
    // A probe asks by a second connection which node answers.
    let silent = thread::spawn(move || [(); 3].map(|()| accept(&listener)));
    // It never answers.
    let probe = run(&["probe", &address.to_string(), "-c", "1", "-t", "0.3"]);
    let stderr = text(&probe.stderr);
    assert_eq!(probe.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("for 0.3 s (--timeout)"), "{stderr}");
    // It never reads, and stdin never ends.
    let mut source = Process::start(
        program()
            .args(["-f", &address.to_string(), "-t", "0.5", "-b", "1M"])
            .stdin(fs::File::open("/dev/zero").unwrap())
            .stdout(Stdio::null()),
    );
    let line = source.wait_line("s (--timeout)");
    println!("LINE {line}");
    assert_eq!(source.wait().code(), Some(1));
    silent.join().unwrap();
}

#[test]
fn a_client_that_pauses_is_waited_for_and_logged_once() {
    const MUCH: usize = 32 << 20; // More than the sockets between hold.
    let (listener, address) = listener();
    let mut chain = Chain::start_with(Shape::Proxy, address, &["-t", "0.3"]);
    let mut client = chain.client();
    let server = thread::spawn(move || write_stream(&mut accept(&listener), 30, MUCH));
    let node = &mut chain.nodes[0];
    let line = node
        .process
        .wait_line("has read nothing for 0.3 s, still waiting");
    println!("LINE {line}");
    // Three timeouts more of the same pause.
    pass(Duration::from_millis(900));
    let printed = node.process.stderr();
    assert_eq!(complaints(&printed).len(), 1, "{printed:?}");
    read_stream(&mut client, 30, MUCH);
    server.join().unwrap();
    drop(client);
    assert!(node.process.stop().0.success());
    let printed = node.process.stderr();
    assert_eq!(complaints(&printed).len(), 1, "{printed:?}");
}

#[test]
fn a_plain_client_that_waits_for_its_server_is_logged_once_and_served_when_it_sends() {
    let mut entry = Node::to("A", echo_server(), &["-r", "-t", "0.2"]);
    let mut clients = [(); 2].map(|()| connect(entry.address));
    entry
        .process
        .wait_line("has sent nothing for 0.2 s, which decides");
    // Another timeout of both.
    pass(Duration::from_millis(500));
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    drop(clients);
    logged_only(&mut entry, "use --accept raw");
}

// --- names, addresses, ports ---------------------------------------------------------------------

/// It ends with `status` and prints `part`, in one line.
#[track_caller]
fn fails(output: &Output, status: i32, part: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{part}: {stderr}");
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains(part)).collect();
    assert_eq!(lines.len(), 1, "{part}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    println!("LINE {}", lines[0]);
}

#[test]
fn a_name_that_does_not_resolve_ends_every_role_but_a_relay_at_once() {
    let name = "no-such-host.invalid:9";
    let part = "cannot resolve no-such-host.invalid:9: ";
    fails(&run(&["-f", name]), 1, part);
    fails(&run(&["probe", name]), 2, part);
    fails(&run(&["-l", name]), 1, "resolve no-such-host.invalid:9: ");
    // DNS may be up later than a node that listens: each of its connections tries again.
    let mut relay = Node::start("B", &["-f", name]);
    let line = relay.process.wait_line(part);
    assert!(line.contains("each connection tries it again"), "{line}");
    let probe = run(&["probe", &relay.address.to_string(), "-c", "1", "-t", "2"]);
    assert_eq!(probe.status.code(), Some(2), "{probe:?}");
    assert!(text(&probe.stderr).contains(part), "{probe:?}");
}

#[test]
fn a_port_in_use_is_named() {
    let (_listener, address) = listener();
    let address = address.to_string();
    let part = format!("listen on {address}: Address already in use");
    fails(&run(&["-l", &address]), 1, &part);
    // So is that of the metrics, of a node that has not begun then.
    let node = run(&["-l", "127.0.0.1:0", "--metrics-listen", &address]);
    fails(&node, 1, "Address already in use");
    assert!(!text(&node.stderr).contains("listening"), "{node:?}");
}

#[test]
fn a_refused_next_hop_is_named_to_the_source_until_it_is_there() {
    let port = free_port();
    let hop: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut b = Node::to("B", hop, &[]);
    let part = format!("cannot connect to {hop}: Connection refused");
    let probe = [
        "probe",
        &b.address.to_string(),
        "-c",
        "2",
        "-i",
        "0.01",
        "-t",
        "5",
    ];
    fails(&run(&probe), 2, &part);
    fails(&run(&["-f", &hop.to_string()]), 1, &part);
    let raw = connect(b.address);
    (&raw).write_all(b"hello").unwrap();
    // The application finds a reset where it would have found a refusal.
    assert_eq!(
        (&raw).read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let z = Node::start_command(program().args(["-l", &hop.to_string()]));
    assert!(run(&probe).status.success());
    drop(z);
    b.process.stop();
    assert_eq!(complaints(&b.process.stderr()).len(), 2);
}

#[test]
fn a_black_holed_next_hop_is_given_up_after_the_timeout() {
    // A listener whose backlog is full drops what else comes, as a firewall does.
    let (listener, address) = listener();
    let _waiting = fill_backlog(address);
    let mut b = Node::to("B", address, &["-t", "0.3"]);
    let probe = run(&["probe", &b.address.to_string(), "-c", "1", "-t", "10"]);
    let part = format!("cannot connect to {address}: connection timed out");
    fails(&probe, 2, &part);
    logged_only(&mut b, &part);
    drop(listener);
}

// --- loops ---------------------------------------------------------------------------------------

/// B -> C -> B; the probe's stderr, and those of B and C.
fn looped(args: &[&str]) -> (Output, Vec<String>, Vec<String>) {
    let port = free_port();
    let mut c = Node::to("C", ([127, 0, 0, 1], port).into(), args);
    let listen = format!("127.0.0.1:{port}");
    let to_c = c.address.to_string();
    let mut b = Node::start_command(
        program()
            .args(["--node", "B", "-l", &listen, "-f", &to_c])
            .args(args),
    );
    let probe = run(&["probe", &listen, "-c", "1", "-t", "10"]);
    b.process.stop();
    c.process.stop();
    (probe, b.process.stderr(), c.process.stderr())
}

#[test]
fn a_loop_of_nodes_is_found_at_once_and_reported_at_every_hop() {
    let (probe, b, c) = looped(&[]);
    fails(&probe, 2, "loop: this node is on the path");
    for stderr in [&b, &c] {
        let is_reported = complaints(stderr)
            .iter()
            .any(|line| line.contains("loop: this node"));
        assert!(is_reported, "{stderr:#?}");
    }
}

#[test]
fn a_loop_of_nodes_that_do_not_stamp_is_found_as_well() {
    let (probe, b, c) = looped(&["-n"]);
    fails(&probe, 2, "loop: this node is on the path");
    // Every hop reports it once; the loop is not walked again.
    let count = complaints(&b).len() + complaints(&c).len();
    assert!((1..=3).contains(&count), "{b:#?} {c:#?}");
}

#[test]
fn a_node_that_leads_back_to_itself_under_another_name_refuses() {
    for args in [&["--accept", "raw", "-r"][..], &["--accept", "raw"], &[]] {
        let port = free_port();
        let listen = format!("*:{port}");
        let to_self = format!("localhost:{port}");
        let mut node = Node::start_command(
            program()
                .args(["-l", &listen, "-f", &to_self, "-t", "3"])
                .args(args),
        );
        // Any number of rounds ends, without a flood of connections. A raw node connects upstream
        // before it has received anything, so the end may be there before the client has sent
        // anything, or is connected.
        let mut rest = Vec::new();
        let client = connect_unless_reset(([127, 0, 0, 1], port).into());
        let ended = client.map_or(Err(ErrorKind::ConnectionReset), |mut client| {
            let printed = client.write_all(b"hello");
            let ended = printed.and_then(|()| client.read_to_end(&mut rest));
            ended.map_err(|error| error.kind())
        });
        node.process.stop();
        let stderr = node.process.stderr();
        let reset = [Err(ErrorKind::ConnectionReset), Err(ErrorKind::BrokenPipe)];
        assert!(
            reset.contains(&ended),
            "{args:?}: {ended:?} {rest:?} {stderr:#?}"
        );
        let complaints = complaints(&stderr);
        assert!((1..=4).contains(&complaints.len()), "{args:?}: {stderr:#?}");
        let named = complaints
            .iter()
            .any(|line| line.contains("loop") || line.contains("itself"));
        assert!(named, "{args:?}: {stderr:#?}");
        println!("LINE {}", complaints[0]);
    }
}

// --- outputs -------------------------------------------------------------------------------------

#[test]
fn a_full_disk_is_reported_and_fails() {
    let z = Node::start("Z", &[]);
    let to_z = z.address.to_string();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut source = program();
    source.args(["-f", &to_z]).stdout(full());
    let mut source = source
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    source.stdin.take().unwrap().write_all(b"hello").unwrap();
    let part = "write standard output: No space left on device";
    fails(&source.wait_with_output().unwrap(), 1, part);
    let source = ["-f", &to_z, "--report", "/dev/full"];
    let part_report = "write /dev/full: No space left on device";
    fails(&run(&source), 1, part_report);
    let probe = ["probe", &to_z, "-c", "1"];
    fails(
        &run(&[&probe[..], &["--report", "/dev/full"]].concat()),
        3,
        part_report,
    );
    fails(
        &program().args(probe).stdout(full()).output().unwrap(),
        3,
        part,
    );
    fails(
        &program().arg("--help").stdout(full()).output().unwrap(),
        1,
        part,
    );
    let mut node = program();
    node.args(["-l", "127.0.0.1:0", "--report", "/dev/full"]);
    let mut node = Node::start_command(&mut node);
    assert_eq!(node.process.stop().0.code(), Some(1));
    node.process.wait_line(part_report);
}

#[test]
fn a_closed_stdout_is_a_normal_end() {
    let z = Node::start("Z", &[]);
    let to_z = z.address.to_string();
    for args in [
        &["--help"][..],
        &["probe", &to_z, "-c", "3", "-i", "0.01", "--format", "jsonl"],
        &["-f", &to_z],
    ] {
        // No process reads at all.
        let mut command = program();
        command
            .args(args)
            .stdin(fs::File::open("/dev/zero").unwrap());
        let output = command.stdout(closed_pipe()).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            text(&output.stderr)
        );
        assert!(!text(&output.stderr).contains("panicked"), "{args:?}");
        // The reader has enough after a byte.
        let mut head = Command::new("bash");
        let words = args.join(" ");
        let bin = program().get_program().to_str().unwrap().to_owned();
        head.args([
            "-c",
            &format!("'{bin}' {words} < /dev/zero | head -c 1; exit ${{PIPESTATUS[0]}}"),
        ]);
        let output = head.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_report_depends_neither_on_its_reader_nor_on_one_file_of_several() {
    let z = Node::start("Z", &[]);
    let to_z = z.address.to_string();
    let dir = Dir::new("unread");
    let file = |name: &str| dir.file(name).to_str().unwrap().to_owned();
    let (metrics, state, page) = (file("metrics"), file("state"), file("page"));
    let nowhere = file("no/such/state");
    let targets = file("targets");
    fs::write(&targets, format!("{to_z} z\n")).unwrap();
    let beyond = [
        "-c3",
        "-i0.01",
        "--critical=1ns",
        "--metrics-file",
        &metrics,
    ];
    let files = ["--state", &state, "--report-html", &page];
    let unwritten = ["--state", &nowhere, "--report-html", &page];
    for (args, kept) in [
        (
            [&["probe", &to_z][..], &files].concat(),
            &[&state, &page][..],
        ),
        ([&["probe", &to_z][..], &unwritten].concat(), &[&page]),
        (vec!["probe", "--targets", &targets], &[]),
    ] {
        let mut command = program();
        command.args(&args).args(beyond).stdin(Stdio::null());
        let output = command.stdout(closed_pipe()).output().unwrap();
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {printed}");
        assert_eq!(
            printed.contains(&nowhere),
            args.contains(&&*nowhere),
            "{printed}"
        );
        let measured = fs::read_to_string(&metrics).unwrap();
        let sent = measured
            .lines()
            .find(|line| line.starts_with("subsegment_blocks_sent_total"));
        assert!(
            sent.is_some_and(|line| line.ends_with(" 3")),
            "{args:?}: {measured}"
        );
        for file in kept {
            assert!(fs::metadata(file).unwrap().len() > 0, "{args:?}: {file}");
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn two_runs_on_a_path_that_is_down_do_not_write_one_trace() {
    let traces = [(); 2].map(|()| {
        let output = run(&["probe", "127.0.0.1:1", "-c1", "--format=otlp"]);
        let line = text(&output.stdout);
        let at = line
            .find("\"traceId\":")
            .unwrap_or_else(|| panic!("{line}"));
        line[at..].chars().take(44).collect::<String>()
    });
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn a_probe_that_a_second_signal_cuts_off_is_unknown_and_no_warning() {
    // It accepts in its backlog, and sends nothing: the first signal alone makes the probe wait for
    // an END.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let dir = Dir::new("cut-off");
    let targets = dir.file("targets");
    fs::write(&targets, format!("{address} silent\n")).unwrap();
    let targets = targets.to_str().unwrap();
    for args in [["probe", &address, "-c1"], ["probe", "--targets", targets]] {
        let mut probe = Process::start(program().args(args).stdin(Stdio::null()));
        let _held = silent.accept().unwrap();
        probe.signal("INT");
        probe.signal("TERM"); // Another one: two alike may come as one.
        assert_eq!(probe.wait().code(), Some(3), "{args:?}");
    }
}

#[test]
fn a_probe_rests_between_two_tries_on_a_peer_that_hangs_up_however_short_its_interval_is() {
    let (server, address) = listener();
    let begun = Instant::now();
    let mut probe = Process::start(
        program()
            .args(["probe", &address.to_string(), "-c0", "-i0.0001"])
            .stdin(Stdio::null())
            .stdout(Stdio::null()),
    );
    // It rests for 0.2 s, then for 0.4, 0.8 and 1.6 s.
    for _ in 0..4 {
        let _ = server.accept().unwrap().0.read(&mut [0; 100]);
    }
    let took = begun.elapsed();
    probe.signal("INT");
    assert_eq!(probe.wait().code(), Some(2));
    assert!(took >= Duration::from_millis(1_400), "{took:?}");
}

/// A pipe whose reader has gone: std cannot make one yet, so it is the standard input of a process
/// that has ended.
fn closed_pipe() -> Stdio {
    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let writer = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    writer.into()
}

#[test]
fn a_state_that_is_broken_or_cannot_be_written_is_named() {
    let z = Node::start("Z", &[]);
    let to_z = z.address.to_string();
    let dir = Dir::new("state");
    let broken = dir.file("state");
    fs::write(&broken, "\0\u{7f}not a state\n{").unwrap();
    // The run goes on without it.
    let probes_without = |path: &str, fault: &str| {
        let probed = run(&["probe", &to_z, "-c", "1", "--state", path]);
        assert!(probed.status.success(), "{}", text(&probed.stderr));
        let line = format!("state {path}: {fault}");
        assert!(
            text(&probed.stderr).contains(&line),
            "{}",
            text(&probed.stderr)
        );
    };
    probes_without(broken.to_str().unwrap(), "line 1: expected");
    assert!(
        fs::read_to_string(&broken).unwrap().contains("not a state"),
        "it was overwritten"
    );
    let nowhere = dir.file("no/such/dir/state");
    let path = nowhere.to_str().unwrap();
    probes_without(path, "there is no directory");
    let part = format!("write {path}: ");
    fails(&run(&["-f", &to_z, "--report", path]), 1, &part);
}

#[test]
fn files_that_cannot_be_written_are_named_before_anything_begins() {
    let dir = Dir::new("outputs");
    let file = |name: &str| dir.file(name).to_str().unwrap().to_owned();
    let (one, other, shared) = (file("no/one"), file("no/other"), file("shared"));
    let targets = file("targets");
    fs::write(&targets, "127.0.0.1:1 z\n").unwrap();
    // Nothing listens at the addresses: a command that begins names them, or does not end.
    for (command, unknown, usage) in [
        (&["-f", "127.0.0.1:1"][..], 1, 2),
        (&["-l", "127.0.0.1:0"], 1, 2),
        (&["probe", "127.0.0.1:1"], 3, 3),
        (&["probe", "--targets", &targets], 3, 3),
    ] {
        let missing = ["--report", &one, "--metrics-file", &other];
        let ended = run(&[command, &missing].concat());
        fails(&ended, unknown, &format!("write {one}: No such file"));
        fails(&ended, unknown, &format!("; write {other}: No such file"));
        let same = ["--report", &shared, "--metrics-file", &shared];
        let ended = run(&[command, &same].concat());
        let fault = format!("--report and --metrics-file both write {shared}: give each a file");
        fails(&ended, usage, &fault);
        assert!(!Path::new(&shared).exists(), "{command:?}");
    }
    let nagios = [
        "probe",
        "127.0.0.1:1",
        "--format",
        "nagios",
        "--report",
        &one,
    ];
    let line = text(&run(&nagios).stdout);
    assert!(line.starts_with("STS UNKNOWN - write "), "{line}");
}

// --- shortages -----------------------------------------------------------------------------------

/// More clients than `node` can take: it logs `part`, does not spin, and takes clients again when
/// some have gone.
fn runs_short(node: &mut Node, part: &str) {
    let mut witness = Witness::new(node.address, false);
    let clients = (0..40).filter_map(|_| connect_unless_reset(node.address));
    let clients: Vec<_> = clients.collect();
    println!("LINE {}", node.process.wait_line(part));
    let stays = witness.is_answered(b"payload");
    assert!(stays, "cut off: {:#?}", node.process.stderr());
    let before = cpu(node.process.child.id()).unwrap();
    // For a second nothing happens: a client in the backlog receives nothing.
    let last = clients.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let quiet = { last }.read(&mut [0]);
    let spent = cpu(node.process.child.id()).unwrap() - before;
    assert!(
        spent <= Duration::from_millis(200),
        "{spent:?} of a second, while it rested ({quiet:?})"
    );
    drop(clients);
    // Those in the backlog are still under way: a client between them may be refused once more.
    let deadline = Instant::now() + LONG;
    let later = || connect_unless_reset(node.address).map(|socket| Witness::silent(socket, false));
    while !later().is_some_and(|mut later| later.is_answered(b"ping")) {
        assert!(Instant::now() < deadline, "it does not recover");
    }
    witness.asks();
    witness.leaves();
    let (status, _) = node.process.stop();
    assert!(status.success());
    let stderr = node.process.stderr().join("\n");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn out_of_descriptors_a_node_rests_and_recovers() {
    let server = echo_server();
    let mut limited = Command::new(need("prlimit"));
    limited.arg("--nofile=24:24").arg(program().get_program());
    limited.args([
        "-l",
        "127.0.0.1:0",
        "--accept",
        "raw",
        "-r",
        "--max-connections",
        "1000",
        "-f",
        &server.to_string(),
    ]);
    runs_short(
        &mut Node::start_command(&mut limited),
        "Too many open files",
    );
}

#[test]
fn out_of_threads_a_node_rests_and_recovers() {
    // The limit of processes does not bind root: another user's process, and its binary where that
    // user may read.
    let dir = Dir::new("threads");
    let copy = dir.file("program");
    fs::copy(program().get_program(), &copy).unwrap();
    let server = echo_server();
    let mut limited = Command::new(need("prlimit"));
    limited.arg("--nproc=16:16").arg(need("setpriv"));
    // A user of its own, as all processes of a user count.
    let user = 1_000_000 + std::process::id();
    let [as_user, as_group] = ["reuid", "regid"].map(|id| format!("--{id}={user}"));
    limited
        .args([&as_user, &as_group, "--clear-groups"])
        .arg(&copy);
    limited.args([
        "-l",
        "127.0.0.1:0",
        "--accept",
        "raw",
        "-r",
        "-f",
        &server.to_string(),
    ]);
    runs_short(&mut Node::start_command(&mut limited), "start a thread");
}
