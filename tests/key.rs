//! Chains whose nodes share a key (`--key-file`), and peers that do not hold it.

mod faces;
mod util;

use faces::framed::{check, read_frame};
use faces::{
    connect, echo_server, listener, read_nothing_more, read_out, read_stream, write_stream, Chain,
    Shape,
};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use subsegment_tcp_speeds::wire::{FrameType, Header, HEADER_LEN, STAMP_LEN};
use util::{int, json, program, run, text, Dir, Node, Process};

/// Two keys in a directory that goes with the test.
struct Keys {
    _dir: Dir,
    good: String,
    other: String,
}

impl Keys {
    fn new(test: &str) -> Self {
        let dir = Dir::new(&format!("key-{test}"));
        let write = |name: &str, digits: &str| {
            let path = dir.file(name);
            fs::write(&path, digits).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        Self {
            good: write("good", "8f1d3c5b7a99e0f2416385a7c9ebfd0f\n"),
            other: write("other", "8f1d3c5b7a99e0f2416385a7c9ebfd0e\n"),
            _dir: dir,
        }
    }

    /// `--key-file` with the key of that name; nothing for `none`.
    fn args<'a>(&'a self, which: &str) -> Vec<&'a str> {
        match which {
            "good" => vec!["--key-file", &self.good],
            "other" => vec!["--key-file", &self.other],
            _ => vec![],
        }
    }
}

// --- with the same key everything goes on as without ---------------------------------------------

#[test]
fn a_source_gets_every_byte_back_through_relay_and_echo_with_the_same_key() {
    let keys = Keys::new("source");
    let key = keys.args("good");
    let z = Node::start("Z", &key);
    let b = Node::to("B", z.address, &key);
    for block in ["1", "1000", "1M"] {
        let len = if block == "1" { 300 } else { 3_000_000 };
        let mut source = Process::start(
            program()
                .args(["--node", "A", "-f", &b.address.to_string(), "-b", block])
                .args(&key)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let mut stdin = source.child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || write_stream(&mut stdin, 3, len));
        let mut stdout = source.stdout();
        read_stream(&mut stdout, 3, len);
        read_nothing_more(&mut stdout);
        writer.join().unwrap();
        let status = source.wait();
        assert!(status.success(), "{:?}", source.stderr());
        assert!(source.stderr().iter().any(|line| line.contains("Verdict")));
    }
}

#[test]
fn a_path_with_a_key_is_measured_as_one_without() {
    let keys = Keys::new("probe");
    let key = keys.args("good");
    let z = Node::start("Z", &key);
    let b = Node::to("B", z.address, &key);
    let to_b = b.address.to_string();
    let args = [
        "probe", &to_b, "-c", "50", "-i", "0.002", "--format", "json",
    ];
    let probe = run(&[&args[..], &key].concat());
    assert!(probe.status.success(), "{}", text(&probe.stderr));
    let report = json(&probe.stdout);
    assert_eq!(int(&report, "blocks/received"), 50);
    for path in ["segments/0/round_trip/count", "segments/1/round_trip/count"] {
        assert_eq!(int(&report, path), 50, "{path}");
    }
}

#[test]
fn plain_clients_and_servers_work_through_a_chain_with_a_key_and_are_measured() {
    let keys = Keys::new("raw");
    let server = echo_server();
    let mut chain = Chain::start_with(Shape::EntryRelayExit, server, &keys.args("good"));
    // Small exchanges, whose reports go back between the answers, then bulk both ways at once.
    let mut client = chain.client();
    for round in 0..200_u32 {
        client.write_all(&round.to_be_bytes()).unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, round.to_be_bytes());
    }
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        write_stream(&mut writer, 9, 8 << 20);
        writer.shutdown(Shutdown::Write).unwrap();
    });
    read_stream(&mut client, 9, 8 << 20);
    read_nothing_more(&mut client);
    writing.join().unwrap();
    let printed = chain.stop();
    assert!(!printed.contains("authentication"), "{printed}");
    assert!(
        printed.contains("N0 -> N1") && printed.contains("N1 -> N2"),
        "{printed}"
    );
    assert!(printed.contains("server"), "{printed}");
}

#[test]
fn a_server_that_speaks_first_and_one_that_is_silent_work_with_a_key() {
    let keys = Keys::new("first");
    let (server, address) = listener();
    let chain = Chain::start_with(Shape::EntryExit, address, &keys.args("good"));
    let mut client = chain.client();
    let mut far = faces::accept(&server);
    far.write_all(b"220 hello").unwrap();
    let mut hello = [0; 9];
    client.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"220 hello");
    // Nothing at all from the client, and its half-close passed on all the same.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_out(&far).0, b"");
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_out(&client).0, b"");
}

// --- peers without it ----------------------------------------------------------------------------

/// Runs a probe of one block over a path that does not work and returns its stderr.
#[track_caller]
fn refused(target: SocketAddr, key: &[&str]) -> String {
    let target = target.to_string();
    let args = ["probe", &target, "-c", "1", "-t", "5"];
    let output: Output = run(&[&args[..], key].concat());
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    println!("LINE {}", printed.lines().next().unwrap_or_default());
    printed
}

#[track_caller]
fn works(target: SocketAddr, key: &[&str]) {
    let target = target.to_string();
    let output = run(&[&["probe", &target, "-c", "2", "-i", "0.001"][..], key].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_neighbour_with_another_key_or_none_is_refused_by_name_and_the_source_reports_it() {
    let keys = Keys::new("differ");
    for (near, far, at_near, at_far) in [
        (
            "other",
            "good",
            "wrong authentication code",
            "wrong authentication code",
        ),
        (
            "none",
            "good",
            "without an authentication code",
            "without an authentication code",
        ),
        (
            "good",
            "none",
            "has a --key-file, and this node has none",
            "has a --key-file, and this node has none",
        ),
    ] {
        // The source and its first hop.
        let mut z = Node::start("Z", &keys.args(far));
        let printed = refused(z.address, &keys.args(near));
        assert!(printed.contains(at_near), "{near} {far}: {printed}");
        let line = z.process.wait_line(at_far);
        assert!(
            line.contains("peer 127.0.0.1:") && line.contains("key"),
            "{line}"
        );
        works(z.address, &keys.args(far));
        // Further down the path: the node before names the one that refuses, and the source reports
        // it.
        let mut b = Node::to("B", z.address, &keys.args(near));
        let printed = refused(b.address, &keys.args(near));
        assert!(printed.contains(at_near), "{near} {far}: {printed}");
        let line = b.process.wait_line(at_near);
        assert!(
            line.contains(&z.address.to_string()) || line.contains("hop 2 reports"),
            "{line}"
        );
    }
}

#[test]
fn a_plain_client_gets_into_a_chain_with_a_key_by_an_entry_alone() {
    let keys = Keys::new("plain");
    let mut z = Node::start("Z", &keys.args("good"));
    let mut client = connect(z.address);
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(read_out(&client).0, b"", "not even a nonce");
    z.process
        .wait_line("if it is a plain TCP client use --accept raw");
    works(z.address, &keys.args("good"));
}

#[test]
fn a_next_hop_that_is_no_node_with_a_key_is_named_with_the_remedy() {
    let keys = Keys::new("server");
    for (answer, part) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "--remove-perf-headers",
        ),
        (b"-E\r\n", "--remove-perf-headers"),
        (b"", "closed the connection instead of answering HELLO"),
    ] {
        let (server, address) = listener();
        std::thread::spawn(move || {
            for mut socket in server.incoming().map_while(Result::ok) {
                let _ = socket.read(&mut [0; 200]);
                let _ = socket.write_all(answer);
            }
        });
        let b = Node::to("B", address, &keys.args("good"));
        for to in [address, b.address] {
            let printed = refused(to, &keys.args("good"));
            assert!(printed.contains(part), "{printed}");
            assert!(printed.contains(&address.to_string()), "{printed}");
        }
    }
    let (silent, address) = listener();
    let target = address.to_string();
    let args = ["probe", &target, "-c", "1", "-t", "0.3"];
    let output = run(&[&args[..], &keys.args("good")].concat());
    let printed = text(&output.stderr);
    assert!(
        printed.contains("did not answer HELLO in time"),
        "{printed}"
    );
    drop(silent);
}

#[test]
fn a_key_that_others_can_read_or_that_is_none_ends_every_role_at_the_start() {
    let keys = Keys::new("file");
    fs::set_permissions(&keys.other, Permissions::from_mode(0o644)).unwrap();
    for (role, status) in [
        (&["-l", "127.0.0.1:0"][..], 1),
        (&["-f", "127.0.0.1:9"], 1),
        (&["probe", "127.0.0.1:9"], 3),
    ] {
        let output = run(&[role, &keys.args("other")].concat());
        assert_eq!(
            output.status.code(),
            Some(status),
            "{}",
            text(&output.stderr)
        );
        let printed = text(&output.stderr);
        assert!(printed.contains("(mode 0644): chmod 600"), "{printed}");
        assert!(!printed.contains("8f1d"), "the key itself: {printed}");
    }
}

// --- an attacker in between ----------------------------------------------------------------------

/// Passes frames on to `next`, each through `tamper` (with its direction); records the forward
/// ones.
fn middle(
    next: SocketAddr,
    tamper: impl Fn(bool, &Header, &mut Vec<u8>) + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let (listener, address) = listener();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let (tamper, record) = (Arc::new(tamper), Arc::clone(&recorded));
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = connect(next);
            for forward in [true, false] {
                let (mut from, mut to) = if forward {
                    (near.try_clone().unwrap(), far.try_clone().unwrap())
                } else {
                    (far.try_clone().unwrap(), near.try_clone().unwrap())
                };
                let (tamper, record) = (Arc::clone(&tamper), Arc::clone(&record));
                std::thread::spawn(move || {
                    while let Some((header, mut frame)) = read_frame(&mut from) {
                        tamper(forward, &header, &mut frame);
                        if forward {
                            record.lock().unwrap().extend_from_slice(&frame);
                        }
                        if to.write_all(&frame).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (address, recorded)
}

#[test]
fn a_bit_flipped_on_the_way_is_found_wherever_it_is_and_other_connections_go_on() {
    /// The place, the direction, and the expected message.
    type Case = (&'static str, bool, fn(&mut [u8]), &'static str);
    const CASES: &[Case] = &[
        (
            "payload",
            true,
            |frame| {
                let at = frame.len() - 9;
                frame[at] ^= 1;
            },
            "wrong authentication code",
        ),
        (
            "payload",
            false,
            |frame| {
                let at = frame.len() - 9;
                frame[at] ^= 0x80;
            },
            "wrong authentication code",
        ),
        (
            "the tag",
            true,
            |frame| {
                let at = frame.len() - 1;
                frame[at] ^= 1;
            },
            "wrong authentication code",
        ),
        (
            "an egress time",
            true,
            |frame| frame[HEADER_LEN + 39] ^= 1,
            "wrong authentication code",
        ),
        (
            "an egress time",
            false,
            |frame| frame[HEADER_LEN + STAMP_LEN + 36] ^= 1,
            "wrong authentication code",
        ),
        (
            "a flag of a stamp",
            true,
            |frame| frame[HEADER_LEN + 11] ^= 2,
            "wrong authentication code",
        ),
        (
            "an ingress time",
            true,
            |frame| frame[HEADER_LEN + 30] ^= 4,
            "wrong authentication code",
        ),
        (
            "the sequence",
            true,
            |frame| {
                frame[39] ^= 1;
                check(frame);
            },
            "wrong authentication code",
        ),
        (
            "the hop limit",
            true,
            |frame| {
                frame[22] ^= 1;
                check(frame);
            },
            "wrong authentication code",
        ),
        (
            "the mark",
            true,
            |frame| {
                frame[11] ^= 1;
                check(frame);
            },
            "wrong authentication code",
        ),
        ("a header", true, |frame| frame[39] ^= 1, "damaged header"),
    ];
    let keys = Keys::new("flip");
    let key = keys.args("good");
    let mut z = Node::start("Z", &key);
    let mut b = Node::to("B", z.address, &key);
    // One that is there all the time, around the middle.
    let mut witness = Process::start(
        program()
            .args(["-f", &b.address.to_string()])
            .args(&key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let (mut ask, mut answers) = (witness.child.stdin.take().unwrap(), witness.stdout());
    for (what, forward, flip, part) in CASES {
        let flips = move |goes_forward: bool, header: &Header, frame: &mut Vec<u8>| {
            if goes_forward == *forward && header.kind == FrameType::Block && header.sequence == 2 {
                flip(frame);
            }
        };
        let (between, _) = middle(b.address, flips);
        let target = between.to_string();
        let args = ["probe", &target, "-c", "5", "-i", "0.01", "-t", "5"];
        let output = run(&[&args[..], &key].concat());
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{what}: {printed}");
        assert!(printed.contains(part), "{what}: {printed}");
        ask.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        answers.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
    drop(ask);
    assert!(witness.wait().success());
    b.process.wait_line("wrong authentication code");
    for node in [&mut b, &mut z] {
        assert!(node.process.stop().0.success());
        let stderr = node.process.stderr().join("\n");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn frames_left_out_or_sent_twice_in_between_are_found() {
    for twice in [false, true] {
        let keys = Keys::new(if twice { "twice" } else { "drop" });
        let key = keys.args("good");
        let z = Node::start("Z", &key);
        let (between, _) = middle(z.address, move |forward, header, frame| {
            if forward && header.kind == FrameType::Block && header.sequence == 1 {
                *frame = if twice { frame.repeat(2) } else { Vec::new() };
            }
        });
        let target = between.to_string();
        let args = ["probe", &target, "-c", "4", "-i", "0.01", "-t", "5"];
        let output = run(&[&args[..], &key].concat());
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains("wrong authentication code"), "{printed}");
    }
}

#[test]
fn a_recorded_session_is_refused_when_it_is_played_again() {
    let keys = Keys::new("replay");
    let key = keys.args("good");
    let mut z = Node::start("Z", &key);
    let (between, recorded) = middle(z.address, |_, _, _| {});
    works(between, &key);
    let recorded = recorded.lock().unwrap().clone();
    assert!(recorded.len() > 3 * HEADER_LEN);
    let mut again = connect(z.address);
    again.write_all(&recorded).unwrap();
    let line = z.process.wait_line("wrong authentication code");
    assert!(
        line.contains(&again.local_addr().unwrap().to_string()),
        "{line}"
    );
    // A new HELLO, and an ERROR: no OPENED, no block.
    let mut kinds = Vec::new();
    while let Some((header, _)) = read_frame(&mut again) {
        kinds.push(header.kind);
    }
    assert_eq!(kinds, [FrameType::Hello, FrameType::Error]);
    works(z.address, &key);
}

#[test]
fn a_hello_and_then_silence_gives_its_place_back_after_the_timeout() {
    let keys = Keys::new("silent");
    let key = keys.args("good");
    let one = ["-t", "1", "--max-connections", "1"];
    let mut z = Node::start("Z", &[&key[..], &one].concat());
    let (between, recorded) = middle(z.address, |_, _, _| {});
    works(between, &key);
    let recorded = recorded.lock().unwrap().clone();
    let hello = Header::parse(&recorded).unwrap();
    assert_eq!(hello.kind, FrameType::Hello);
    for len in [hello.frame_len(), hello.frame_len() - 1, HEADER_LEN, 12] {
        let mut silent = connect(z.address);
        silent.write_all(&recorded[..len]).unwrap();
        // It waits in the backlog meanwhile.
        works(z.address, &key);
        let mut kinds = Vec::new();
        while let Some((header, _)) = read_frame(&mut silent) {
            kinds.push(header.kind);
        }
        assert_eq!(kinds.last(), Some(&FrameType::Error), "{len} bytes");
    }
    z.process.wait_line("(--timeout)");
    assert!(z.process.stop().0.success());
}

#[test]
fn nothing_is_different_on_the_wire_without_a_key() {
    let (server, address) = listener();
    let mut source = Process::start(
        program()
            .args(["-f", &address.to_string()])
            .stdin(Stdio::piped()),
    );
    let mut socket = faces::accept(&server);
    source.child.stdin.take().unwrap().write_all(b"x").unwrap();
    for kind in [FrameType::Open, FrameType::Block, FrameType::End] {
        let (header, _) = read_frame(&mut socket).unwrap();
        assert_eq!((header.kind, header.authentication_len), (kind, 0));
    }
}

#[test]
fn nothing_made_of_a_recorded_session_gets_an_answer_or_brings_the_node_down() {
    const SEED: u64 = 0x5eed_0005;
    let keys = Keys::new("mutated");
    let key = [keys.args("good"), vec!["-t", "0.2"]].concat();
    let mut z = Node::start("Z", &key);
    let (between, recorded) = middle(z.address, |_, _, _| {});
    works(between, &key);
    let recorded = recorded.lock().unwrap().clone();
    let mut random = faces::Random::new(SEED);
    for round in 0..150 {
        let mut bytes = recorded.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => bytes.truncate(at + 1),
                _ => drop(
                    bytes.drain(at..(at + random.below(60)).min(recorded.len()).min(bytes.len())),
                ),
            }
        }
        let mut client = connect(z.address);
        let _ = client.write_all(&bytes); // A node that has seen enough resets in the middle of it.
        let _ = client.shutdown(Shutdown::Write);
        while let Some((header, _)) = read_frame(&mut client) {
            let kind = header.kind;
            assert!(
                [FrameType::Hello, FrameType::Error].contains(&kind),
                "seed {SEED:#x}, round {round}: type {kind}"
            );
        }
    }
    works(z.address, &key);
    assert!(z.process.stop().0.success());
    let stderr = z.process.stderr().join("\n");
    assert!(!stderr.contains("panicked"), "seed {SEED:#x}: {stderr}");
}

#[test]
fn what_hashing_takes_is_the_time_of_hosts_and_not_of_segments() {
    let keys = Keys::new("time");
    let measure = |key: &[&str]| {
        let z = Node::start("Z", key);
        let b = Node::to("B", z.address, key);
        let to_b = b.address.to_string();
        let args = [
            "probe", &to_b, "-c", "8", "-i", "0.2", "-s", "1M", "--format", "json",
        ];
        let probe = run(&[&args[..], key].concat());
        assert!(probe.status.success(), "{}", text(&probe.stderr));
        let report = json(&probe.stdout);
        let least = |path: &str| int(&report, &format!("{path}/min_ns"));
        let hosts = least("hosts/0/forward_residence")
            + least("hosts/1/forward_residence")
            + least("hosts/1/return_residence")
            + least("hosts/2/forward_residence");
        let segments = least("segments/0/round_trip") + least("segments/1/round_trip");
        (hosts, segments)
    };
    let (plain, keyed) = (measure(&[]), measure(&keys.args("good")));
    let (hosts, segments) = (keyed.0 - plain.0, keyed.1 - plain.1);
    println!("LINE hashing: hosts {hosts} ns more, segments {segments} ns");
    assert!(
        hosts > 1_000_000,
        "a megabyte is hashed seven times: {hosts} ns"
    );
    assert!(
        segments < hosts / 2,
        "segments {segments} ns, hosts {hosts} ns"
    );
}
