//! A chain in front of a real server: the exit answers probes itself and times the server.

mod util;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::thread::{spawn, JoinHandle};
use subsegment_tcp_speeds::wire::{
    build, push_annotation, Flags, FrameType, FrameView, Header, NodeInfo, NodeRole,
    ANNOTATION_NODE, HEADER_LEN,
};
use util::http::until;
use util::json::Value;
use util::{fill_backlog, int, json, run, text, Dir, Node, LONG};

/// Probes `target` with a few blocks, and `args`.
fn probe(target: SocketAddr, args: &[&str]) -> Output {
    let target = target.to_string();
    let given = ["probe", &target, "--node", "A", "-i", "0.01", "-t", "5"];
    run(&[&given[..], args].concat())
}

#[track_caller]
fn probed(target: SocketAddr, args: &[&str]) -> Value {
    let out = probe(target, &[&["--format", "json"], args].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    json(&out.stdout)
}

#[track_caller]
fn texts<'a>(report: &'a Value, list: &str, key: &str) -> Vec<&'a str> {
    let rows = report.at(list).unwrap().as_array().unwrap().iter();
    rows.map(|row| row.at(key).unwrap().as_str().unwrap())
        .collect()
}

/// Asserts that `server` was given no connection before one that is made now.
#[track_caller]
fn assert_untouched(server: &TcpListener) {
    let own = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (_, first) = server.accept().unwrap();
    assert_eq!(first, own.local_addr().unwrap(), "another came before");
}

#[test]
fn an_exit_answers_probes_itself_and_its_server_sees_none_of_them() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let exit = Node::to("C", server.local_addr().unwrap(), &["-r"]);
    let relay = Node::to("B", exit.address, &[]);
    for target in [relay.address, exit.address] {
        let report = probed(target, &["-c", "20"]);
        assert_eq!(report.at("blocks/received").unwrap().as_i64(), Some(20));
        let names = texts(&report, "path/nodes", "name");
        let roles = texts(&report, "path/nodes", "role");
        assert_eq!((names.last(), roles.last()), (Some(&"C"), Some(&"exit")));
        let hosts = report.at("hosts").unwrap().as_array().unwrap();
        let last = hosts.last().unwrap();
        assert_eq!(
            last.at("forward_residence/count").unwrap().as_i64(),
            Some(20)
        );
        assert!(last.at("return_residence").unwrap().is_null());
        assert!(report.at("behind_exit").unwrap().is_null());
    }
    let nodes = [("-n", "-r"), ("-t", "3")];
    for (flag, value) in nodes {
        let silent = Node::to("S", server.local_addr().unwrap(), &["-r", flag, value]);
        assert!(probe(silent.address, &["-c", "3"]).status.success());
    }
    assert_untouched(&server);
}

#[test]
fn traffic_goes_to_the_server_byte_for_byte_while_probes_end_at_the_exit() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let exit = Node::to("C", server.local_addr().unwrap(), &["-r"]);
    let relay = Node::to("B", exit.address, &[]);
    let entry = Node::to("A", relay.address, &["--accept", "raw"]);
    let mut client = TcpStream::connect(entry.address).unwrap();
    let (mut served, _) = server.accept().unwrap();
    let mut seen = Vec::new();
    for round in 0..20_u8 {
        client.write_all(&[round; 100]).unwrap();
        let mut part = [0; 100];
        served.read_exact(&mut part).unwrap();
        seen.extend_from_slice(&part);
        if round % 5 == 0 {
            let report = probed(relay.address, &["-c", "5"]);
            assert_eq!(texts(&report, "path/nodes", "role").last(), Some(&"exit"));
        }
    }
    drop(client);
    served.read_to_end(&mut seen).unwrap();
    let sent: Vec<u8> = (0..20).flat_map(|round| [round; 100]).collect();
    assert_eq!(seen, sent);
    assert_untouched(&server);
}

/// Reads a frame to its end.
fn frame(stream: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut bytes = vec![0; HEADER_LEN];
    stream.read_exact(&mut bytes).ok()?;
    let header = Header::parse(&bytes).unwrap();
    bytes.resize(header.frame_len(), 0);
    stream.read_exact(&mut bytes[HEADER_LEN..]).unwrap();
    Some((header, bytes))
}

/// An exit as version 0.1 has it: it introduces itself without abilities. Returns the frames that
/// it was sent, and `true` if they ended in order.
fn old_exit(listener: TcpListener) -> JoinHandle<(Vec<FrameType>, bool)> {
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let (open, bytes) = frame(&mut stream).unwrap();
        assert!(open.flags.has(Flags::PROBE), "it is marked");
        let mut annotations = FrameView::parse(&bytes)
            .unwrap()
            .annotation_bytes()
            .to_vec();
        let info = NodeInfo {
            next_hop: "192.0.2.7:22".into(),
            ..NodeInfo::new(99, NodeRole::Exit, "old")
        };
        push_annotation(&mut annotations, ANNOTATION_NODE, 1, &info.emit());
        let opened = Header {
            flags: Flags(Flags::RETURN),
            hop: 1,
            ..Header::new(FrameType::Opened, open.cookie, 0)
        };
        stream
            .write_all(&build(opened, &[], &annotations, &[]))
            .unwrap();
        let mut kinds = vec![open.kind];
        while let Some((header, _)) = frame(&mut stream) {
            kinds.push(header.kind);
        }
        let ended = stream.read(&mut [0]).is_ok_and(|read| read == 0);
        (kinds, ended)
    })
}

#[test]
fn a_probe_ends_before_any_block_if_the_exit_is_too_old_to_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let exit = old_exit(listener);
    let out = probe(address, &["-c", "20", "--format", "nagios"]);
    assert_eq!(out.status.code(), Some(3));
    let line = text(&out.stdout);
    for part in [
        "UNKNOWN",
        "the exit old (hop 1) is too old to answer probes",
        "192.0.2.7:22, which saw one empty connection",
        "no block was sent; install this version on old",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    let (kinds, ended) = exit.join().unwrap();
    assert_eq!(kinds, [FrameType::Open, FrameType::End]);
    assert!(ended, "no reset");
}

#[test]
fn a_probe_of_a_port_that_takes_no_probes_names_the_remedy() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let entry = Node::to("E", to, &["--accept", "raw"]);
    let proxy = Node::to("P", to, &["--accept", "raw", "-r"]);
    for node in [&entry, &proxy] {
        let out = probe(node.address, &["-c", "3"]);
        assert_eq!(out.status.code(), Some(2));
        let error = text(&out.stderr);
        assert!(error.contains("takes raw clients only"), "{error}");
        assert!(error.contains("probe a node behind it"), "{error}");
    }
    let silent = probe(to, &["-c", "3", "-t", "0.3"]);
    assert_eq!(silent.status.code(), Some(2));
    let error = text(&silent.stderr);
    assert!(error.contains("no answer to the opening"), "{error}");
    assert!(error.contains("plain server a node with"), "{error}");
}

/// Counts the connections that `server` was given before one that is made now.
#[track_caller]
fn connections(server: &TcpListener) -> usize {
    let own = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let own = own.local_addr().unwrap();
    (0..)
        .take_while(|_| server.accept().unwrap().1 != own)
        .count()
}

/// Returns the value at `key`; `None` if it is null or in nothing.
fn given<'a>(report: &'a Value, key: &str) -> Option<&'a Value> {
    report.at(key).filter(|value| !value.is_null())
}

/// Returns how many connects to the server `report` has. A probe on a machine that stalls may end
/// before the first one has: the next probe reports it.
fn connects(report: &Value) -> Option<i64> {
    given(report, "server/connect/count")?.as_i64()
}

#[track_caller]
fn verdict(report: &Value) -> (&str, &str) {
    let text = |key| report.at(key).unwrap().as_str().unwrap();
    (text("verdict/kind"), text("verdict/text"))
}

#[test]
fn an_exit_times_its_server_at_the_given_interval_and_by_traffic_if_there_is_any() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let checking = Node::to("C", to, &["-r", "--server-check", "60"]);
    let relay = Node::to("B", checking.address, &[]);
    // Two probes within a minute: one check, which both of them report.
    for _ in 0..2 {
        let report = until("a connect", || {
            let report = probed(relay.address, &["-c", "30"]);
            connects(&report).map(|_| report)
        });
        assert_eq!(connects(&report), Some(1));
        assert!(report.at("server/down").unwrap().is_null());
        let names = texts(&report, "parts", "name");
        assert_eq!(names.last(), Some(&"connect C -> server"));
        assert_eq!(texts(&report, "parts", "kind").last(), Some(&"server"));
    }
    assert_eq!(connections(&server), 1);

    // The connection of a client saves the check.
    let busy = Node::to("D", to, &["-r", "--server-check", "60", "--accept", "auto"]);
    let mut client = TcpStream::connect(busy.address).unwrap();
    client.write_all(b"hello").unwrap();
    let (mut served, _) = server.accept().unwrap();
    served.read_exact(&mut [0; 5]).unwrap();
    let report = probed(busy.address, &["-c", "20"]);
    assert_eq!(connects(&report), Some(1));
    assert_eq!(connections(&server), 0);

    let silent = Node::to("E", to, &["-r"]);
    let report = probed(silent.address, &["-c", "20"]);
    assert!(report.at("server").unwrap().is_null());
    let notices = report.at("notices").unwrap().as_array().unwrap();
    let remedy = "server not timed: --server-check 10 at E";
    assert!(notices.iter().any(|notice| notice.as_str() == Some(remedy)));
    assert_eq!(connections(&server), 0);
}

#[test]
fn a_server_that_refuses_or_never_answers_is_down_and_one_that_closes_at_once_is_not() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let refuses = TcpStream::connect(gone.local_addr().unwrap()).unwrap();
    // The port of a connection: no process listens there, and no other test can.
    let refused = refuses.local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let _waiting = fill_backlog(silent.local_addr().unwrap());
    let args = ["-r", "--server-check", "0.1", "-t", "0.3"];
    for (server, error) in [
        (refused, "Connection refused"),
        (silent.local_addr().unwrap(), "timed out"),
    ] {
        let exit = Node::to("C", server, &args);
        let (code, report) = until("a probe within which a connect failed", || {
            let out = probe(exit.address, &["-c", "100", "--format", "json"]);
            let report = json(&out.stdout);
            assert_eq!(int(&report, "blocks/received"), 100, "the path works");
            assert!(given(&report, "server/connect").is_none());
            given(&report, "server/down")?;
            Some((out.status.code(), report))
        });
        assert_eq!(code, Some(2));
        let (kind, words) = verdict(&report);
        assert_eq!(kind, "down");
        let down = format!("server down: C cannot connect to {server}: ");
        assert!(words.starts_with(&down) && words.contains(error), "{words}");
        let down = report.at("server/down").unwrap().as_str().unwrap();
        assert!(down.contains(error), "{down}");
        until("a line that says so", || {
            let line = probe(exit.address, &["-c", "50", "--format", "nagios"]);
            let shown = text(&line.stdout);
            (shown.contains("CRITICAL") && shown.contains("server down: C cannot")).then_some(())
        });
    }
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = closing.local_addr().unwrap();
    spawn(move || closing.incoming().for_each(drop));
    let exit = Node::to("C", to, &args);
    until("two connects within a probe", || {
        let report = probed(exit.address, &["-c", "50"]);
        assert!(given(&report, "server/down").is_none());
        (connects(&report)? >= 2).then_some(())
    });
}

#[test]
fn limits_of_the_server_decide_the_exit_status() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let args = ["-r", "--server-check", "0.05"];
    let exit = Node::to("C", server.local_addr().unwrap(), &args);
    let dir = Dir::new("exit-rules");
    for (limit, code) in [("1ns", 2), ("10s", 0)] {
        let rules = dir.file("rules");
        std::fs::write(&rules, format!("server connect > {limit} critical")).unwrap();
        let rules = rules.to_str().unwrap();
        // Without a connect before its end a probe has no part of that name, which it says.
        let (out, shown) = until("a connect", || {
            let out = probe(exit.address, &["-c", "30", "--rules", rules]);
            let shown = text(&out.stdout).to_owned();
            (!shown.contains("no part of the path")).then_some((out, shown))
        });
        assert_eq!(out.status.code(), Some(code), "{limit}: {shown}");
    }
}
