//! Clients that are not allowed, too many of them, and peers that send too much.

mod faces;
mod util;

use faces::framed::{error_text, open, read_frame, Witness};
use faces::{
    accept, connect, connect_unless_reset, echo_server, listener, read_out, start_traced,
    stop_traced, Ending,
};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::wire::{
    build, push_annotation, ErrorCode, ErrorInfo, Flags, FrameType, FrameView, Header, NodeInfo,
    NodeRole, ANNOTATION_NODE, HEADER_LEN, MAX_ANNOTATIONS, MAX_PAYLOAD,
};
use util::http::metrics_of;
use util::{pass, program, run, text, Dir, Node, Process};

/// Whether what is written comes back.
fn is_answered(mut socket: &TcpStream) -> bool {
    let mut answer = [0; 4];
    socket
        .write_all(b"ping")
        .and_then(|()| socket.read_exact(&mut answer))
        .is_ok()
        && &answer == b"ping"
}

/// Raw clients in, the tests' echo server behind it.
fn proxy(args: &[&str]) -> Node {
    Node::to(
        "P",
        echo_server(),
        &[&["--accept", "raw", "-r"], args].concat(),
    )
}

// --- allowed clients, and how many ---------------------------------------------------------------

/// Whether a client is reset.
fn is_refused(address: SocketAddr) -> bool {
    !connect_unless_reset(address).is_some_and(|socket| is_answered(&socket))
}

#[test]
fn only_networks_of_allow_may_connect_and_a_flood_of_others_is_one_line() {
    let server = echo_server().to_string();
    for (listen, allow, refused) in [
        ("127.0.0.1:0", "10.0.0.0/8", true),
        ("127.0.0.1:0", "127.0.0.0/8", false),
        ("[::1]:0", "127.0.0.0/8", true),
        ("[::1]:0", "::1", false),
        // Both families: IPv4 clients come as mapped addresses, and count as IPv4.
        (":0", "127.0.0.0/8", false),
        (":0", "::/0", true),
    ] {
        let args = ["-l", listen, "--accept", "raw", "-r", "-f", &server];
        let mut node = Node::start_command(program().args(args).args([
            "--allow",
            "192.0.2.1",
            "--allow",
            allow,
        ]));
        let to = match node.address.ip() {
            ip if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], node.address.port())),
            _ => node.address,
        };
        if !refused {
            assert!(is_answered(&connect(to)), "{listen} {allow}");
            continue;
        }
        for _ in 0..20 {
            assert!(is_refused(to), "{listen} {allow}");
        }
        node.process.stop().0.success().then_some(()).unwrap();
        let stderr = node.process.stderr().join("\n");
        let printed = stderr.matches("is in no network of --allow").count();
        assert_eq!(printed, 1, "{stderr}");
        let me = to.ip();
        assert!(stderr.contains(&format!("peer {}", SocketAddr::new(me, 0)).replace(":0", ":")));
        assert!(stderr.contains(&format!("--allow {me})")), "{stderr}");
    }
}

#[test]
fn a_node_that_is_not_allowed_learns_the_reason_and_a_flood_does_not() {
    let far = Node::start("Z", &["--accept", "framed", "--allow", "10.0.0.0/8"]);
    let relay = Node::to("B", far.address, &[]);
    let reason = "Z does not let 127.0.0.1 in: start it with --allow 127.0.0.1 too";
    for (to, place) in [(far.address, ""), (relay.address, "(hop 1) reports: ")] {
        let output = run(&[
            "--node",
            "A",
            "probe",
            &to.to_string(),
            "-c",
            "1",
            "-t",
            "5",
        ]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        // A connection may be reset before its reason is read; then a hint stands there.
        let hint = "does its --allow name this host?";
        assert!(stderr.contains(reason) || stderr.contains(hint), "{stderr}");
        assert!(stderr.contains(place) || stderr.contains(hint), "{stderr}");
    }
    let explained = (0..300).filter(|_| {
        let socket = connect_unless_reset(far.address);
        socket.is_some_and(|mut socket| error_text(&mut socket).is_some())
    });
    let begun = Instant::now();
    let explained = explained.count() as u64;
    let most = 10 * (begun.elapsed().as_secs() + 2);
    assert!(
        (1..=most).contains(&explained),
        "{explained} of 300, at most {most}"
    );
}

#[test]
fn a_probe_of_a_metrics_port_is_recognised_as_that() {
    let mut node = Node::start("Z", &["--metrics-listen", "127.0.0.1:0"]);
    let metrics = metrics_of(&mut node.process).to_string();
    let output = run(&["probe", &metrics, "-c", "1", "-t", "5"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("port for metrics or HTTP"), "{stderr}");
}

#[test]
fn the_report_counts_refused_clients() {
    let mut node = proxy(&["--allow", "10.0.0.0/8"]);
    for _ in 0..3 {
        assert!(is_refused(node.address));
    }
    let (_, report) = node.process.stop();
    assert!(report.contains("; 3 refused by --allow"), "{report}");
}

#[test]
fn beyond_max_connections_clients_wait_in_the_backlog_and_are_served_in_turn() {
    let mut node = proxy(&["--max-connections", "2", "-d", "6"]);
    let mut first: Vec<_> = (0..2).map(|_| connect(node.address)).collect();
    assert!(first.iter().all(is_answered));
    // Connected, for the kernel does that, and neither answered nor closed.
    let waiting: Vec<_> = (0..3).map(|_| connect(node.address)).collect();
    node.process
        .wait_line("2 connections are open (--max-connections)");
    for mut client in &waiting {
        client.write_all(b"ping").unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let error = client.read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        client.set_read_timeout(Some(util::LONG)).unwrap();
    }
    assert!(first.iter().all(is_answered), "those inside notice nothing");
    for mut client in waiting {
        drop(first.remove(0));
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
        first.push(client);
    }
    drop(first);
    node.process.wait_line("accept: goes on");
    assert!(is_answered(&connect(node.address)));
    assert!(node.process.stop().0.success(), "also while it waits");
    let stderr = node.process.stderr().join("\n");
    assert_eq!(
        stderr.matches("connections are open (").count(),
        1,
        "{stderr}"
    );
}

#[test]
fn a_client_that_falls_silent_within_its_first_frame_gives_its_place_back_after_the_timeout() {
    let z = Node::start("Z", &["-t", "1", "--max-connections", "1"]);
    for len in [1, 8, 12, HEADER_LEN - 1] {
        for accepted in ["auto", "framed"] {
            let args = ["-t", "1", "--max-connections", "1", "--accept", accepted];
            let mut b = Node::to("B", z.address, &args);
            let mut silent = connect(b.address);
            silent.write_all(&open()[..len]).unwrap();
            // The kernel connects it; the node takes it when the place is free.
            let mut next = Witness::new(b.address, true);
            next.asks();
            next.leaves();
            while silent.read(&mut [0; 512]).is_ok_and(|read| read > 0) {}
            b.process.wait_line("did not go on for 1 s (--timeout)");
            assert!(b.process.stop().0.success());
        }
    }
}

#[test]
fn a_header_that_comes_byte_by_byte_has_the_timeout_as_its_deadline() {
    let z = Node::start("Z", &["-t", "1"]);
    let mut client = connect(z.address);
    client.set_nodelay(true).unwrap();
    let begun = Instant::now();
    let sent = open().iter().position(|&byte| {
        pass(Duration::from_millis(200));
        client.write_all(&[byte]).is_err()
    });
    assert!(sent.is_some(), "all of it in {:?}", begun.elapsed());
}

#[test]
fn without_max_connections_the_limit_of_descriptors_is_what_there_is_room_for() {
    let server = echo_server().to_string();
    let mut limited = std::process::Command::new(util::need("prlimit"));
    limited.arg("--nofile=24:24").arg(program().get_program());
    limited.args(["-l", "127.0.0.1:0", "--accept", "raw", "-r", "-f", &server]);
    let mut node = Node::start_command(&mut limited);
    let mut clients: Vec<_> = (0..4).map(|_| connect(node.address)).collect();
    assert!(clients.iter().all(is_answered));
    clients.extend((0..40).map(|_| connect(node.address)));
    node.process
        .wait_line("4 connections are open (as many as the limit of 24");
    clients.truncate(4);
    assert!(clients.iter().all(is_answered));
    assert!(node.process.stop().0.success());
    let stderr = node.process.stderr().join("\n");
    assert!(!stderr.contains("Too many open files"), "{stderr}");
}

#[test]
fn a_node_that_is_full_ends_when_it_is_stopped() {
    let mut node = proxy(&["--max-connections", "1"]);
    let client = connect(node.address);
    assert!(is_answered(&client));
    node.process.wait_line("1 connections are open");
    assert!(node.process.stop().0.success());
}

#[test]
fn a_path_is_no_longer_than_the_hop_limit_that_its_source_sets() {
    let z = Node::start("Z", &[]);
    let b = Node::to("B", z.address, &[]);
    let to_b = b.address.to_string();
    let probe = |limit| run(&["probe", &to_b, "-c", "1", "--hop-limit", limit]);
    let short = probe("1");
    assert_eq!(short.status.code(), Some(2));
    assert!(
        text(&short.stderr).contains("hop limit of 1 is used up"),
        "{}",
        text(&short.stderr)
    );
    assert!(probe("2").status.success());
}

// --- restart, memory, files ----------------------------------------------------------------------

#[test]
fn a_node_restarts_at_once_on_a_port_with_connections_in_time_wait() {
    let (server, server_address) = listener();
    let start = |listen: &str, next: SocketAddr| {
        let next = next.to_string();
        Node::start_command(program().args(["-l", listen, "-f", &next, "--accept", "raw", "-r"]))
    };
    // An address of its own, or another test might have the port while the node is away.
    let mut node = start("127.0.0.2:0", server_address);
    let client = connect(node.address);
    // The server ends first, so the node closes its client's connection first, which waits there.
    let far = accept(&server);
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_out(&client), (Vec::new(), Ending::Orderly));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_out(&far).1, Ending::Orderly);
    node.process.stop();
    let local = format!(":{:04X} ", node.address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    // sl, local address, remote address, state: 06 is TIME_WAIT.
    let waits = |line: &&str| line.contains(&local) && line.split_whitespace().nth(3) == Some("06");
    assert!(
        table.lines().any(|line| waits(&line)),
        "no TIME_WAIT\n{table}"
    );
    let again = start(&node.address.to_string(), echo_server());
    assert!(is_answered(&connect(again.address)));
}

/// Largest resident size of a process so far, KiB.
fn peak(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_hostile_peer_costs_no_more_memory_than_the_docs_state() {
    const PEERS: usize = 10;
    let mut z = Node::start("Z", &[]);
    let b = Node::to("B", z.address, &[]);
    let before = peak(&b.process);
    let open = build(Header::new(FrameType::Open, 7, 0), &[], &[], &[]);
    // The largest possible frame, whole, behind many small ones, and once more without its last
    // byte.
    let small = build(Header::new(FrameType::Block, 7, 0), &[], &[], &[1; 100]).repeat(600);
    let large = build(
        Header::new(FrameType::Block, 7, 0),
        &[],
        &vec![0; MAX_ANNOTATIONS - 1],
        &vec![2; MAX_PAYLOAD],
    );
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let socket = connect(b.address);
            let mut writer = socket.try_clone().unwrap();
            let bytes = [&open, &small, &large, &large[..large.len() - 1]].concat();
            std::thread::spawn(move || writer.write_all(&bytes).unwrap());
            socket
        })
        .collect();
    for mut peer in &peers {
        // It reflects everything but the frame that is not whole: END and ERROR do not come, so
        // count.
        let mut left = small.len() + large.len();
        let mut some = vec![0; 1 << 16];
        while left > 0 {
            let read = peer.read(&mut some).unwrap();
            assert!(read > 0);
            left = left.saturating_sub(read);
        }
    }
    let grown = peak(&b.process) - before;
    println!("LINE {} KiB per hostile connection", grown / PEERS as u64);
    assert!(grown < PEERS as u64 * 6 * 1024, "{grown} KiB for {PEERS}");
    drop(peers);
    assert!(z.process.stop().0.success());
}

#[test]
fn files_are_written_only_where_they_were_named() {
    let dir = Dir::new("files");
    let node_log = dir.file("node.strace");
    let z = Node::start("Z", &[]);
    let report = dir.file("report").display().to_string();
    let next = z.address.to_string();
    let mut b = start_traced(
        &node_log,
        &["-e", "trace=%file"],
        &["-l", "127.0.0.1:0", "-f", &next, "--report", &report],
    );
    let probe_log = dir.file("probe.strace");
    let to_b = b.address.to_string();
    let state = dir.file("state").display().to_string();
    let probed = std::process::Command::new(util::need("strace"))
        .args(["-f", "-qq", "-e", "trace=%file", "-o"])
        .arg(&probe_log)
        .arg(program().get_program())
        .args(["probe", &to_b, "-c", "3", "-i", "0.01", "--state", &state])
        .output()
        .unwrap();
    assert!(probed.status.success(), "{}", text(&probed.stderr));
    stop_traced(&mut b);
    let inside = format!("\"{}/", dir.0.display());
    for log in [node_log, probe_log] {
        let calls = fs::read_to_string(&log).unwrap();
        let changes: Vec<_> = calls
            .lines()
            .filter(|line| {
                [
                    "O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "rename", "unlink", " link(",
                    " linkat(", "symlink", "chmod",
                ]
                .iter()
                .any(|word| line.contains(word))
            })
            .collect();
        assert!(!changes.is_empty(), "nothing traced in {calls}");
        for line in changes {
            // The C library opens /dev/null for a standard stream that is closed; nothing else is
            // written.
            assert!(
                line.contains(&inside) || line.contains("\"/dev/null\""),
                "{line}"
            );
        }
    }
}

// --- texts of a peer ----------------------------------------------------------------------------

/// Control characters, an escape sequence, bidirectional and zero-width characters.
const FORGED: &str =
    "x\n2026-01-01T00:00:00.000Z ERROR forged\r\x1b[2J\u{9b}31m\u{202e}\u{200b}\u{feff}";

fn assert_harmless(what: &str, bytes: &[u8]) {
    let printed = text(bytes);
    for c in ['\r', '\x1b', '\u{9b}', '\u{202e}', '\u{200b}', '\u{feff}'] {
        assert!(!printed.contains(c), "{what}: {c:?} in {printed:?}");
    }
    let forged = |line: &str| line.starts_with("2026-01-01T00:00:00.000Z");
    assert!(!printed.lines().any(forged), "{what}: {printed}");
}

/// A next hop with such a name: it answers OPEN and the first block, then sends an ERROR with such
/// a text.
fn hostile_hop(answers: usize) -> SocketAddr {
    let (listener, address) = listener();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut answered = 0;
            let mut cookie = 0;
            while let Some((header, frame)) = read_frame(&mut socket) {
                cookie = header.cookie;
                let answer = if header.kind == FrameType::Open {
                    let view = FrameView::parse(&frame).unwrap();
                    let mut annotations = view.annotation_bytes().to_vec();
                    let info = NodeInfo {
                        address: FORGED.into(),
                        next_hop: FORGED.into(),
                        tags: vec![FORGED.into()],
                        ..NodeInfo::new(99, NodeRole::Echo, FORGED)
                    };
                    push_annotation(&mut annotations, ANNOTATION_NODE, 1, &info.emit());
                    let opened = Header {
                        flags: Flags(Flags::RETURN),
                        ..Header::new(FrameType::Opened, cookie, 0)
                    };
                    build(opened, &[], &annotations, &[])
                } else {
                    answered += 1;
                    let mut back = header;
                    back.flags = back.flags.with(Flags::RETURN);
                    let mut frame = frame;
                    back.emit(&mut frame);
                    frame
                };
                if answered > answers || socket.write_all(&answer).is_err() {
                    break;
                }
            }
            let info = ErrorInfo {
                code: ErrorCode::Refused,
                hop: 1,
                node: 99,
                text: FORGED.into(),
            };
            let error = Header {
                flags: Flags(Flags::RETURN),
                ..Header::new(FrameType::Error, cookie, 0)
            };
            let _ = socket.write_all(&build(error, &[], &[], &info.emit()));
            // An unread block would make the close a reset, which takes an ERROR with it that is
            // not under way yet.
            let _ = socket.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut socket, &mut std::io::sink());
        }
    });
    address
}

#[test]
fn no_text_of_a_peer_forges_a_line_of_log_or_report() {
    for format in ["text", "json", "jsonl", "csv"] {
        for through_relay in [false, true] {
            let hop = hostile_hop(2);
            let mut relay = through_relay.then(|| Node::to("B", hop, &["-d", "7"]));
            let target = relay
                .as_ref()
                .map_or(hop, |relay| relay.address)
                .to_string();
            let probe = run(&[
                "probe", &target, "-c", "4", "-i", "0.01", "--format", format, "-d", "7",
            ]);
            assert!(!probe.status.success());
            assert!(
                text(&probe.stderr).contains("forged"),
                "{}",
                text(&probe.stderr)
            );
            assert_harmless(&format!("{format}, stderr"), &probe.stderr);
            assert_harmless(&format!("{format}, stdout"), &probe.stdout);
            if let Some(relay) = &mut relay {
                let (_, report) = relay.process.stop();
                assert_harmless("relay's report", report.as_bytes());
                let printed = relay.process.stderr().join("\n");
                assert!(printed.contains("forged"), "{printed}");
                assert_harmless("relay's log", printed.as_bytes());
            }
        }
    }
}

#[test]
fn what_a_plain_client_sends_instead_of_frames_is_shown_escaped() {
    let mut node = Node::start("Z", &["--accept", "framed"]);
    let mut client = connect(node.address);
    client.write_all(FORGED.as_bytes()).unwrap();
    let line = node.process.wait_line("--accept raw");
    assert_harmless("log", line.as_bytes());
    assert!(line.contains("x\\n2026"), "{line}");
}
