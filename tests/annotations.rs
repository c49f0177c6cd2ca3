//! Annotations of nodes: requested in one block, answered in the next; from procfs, the kernel's
//! state of a connection, and a real SNMP agent.

mod util;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::annotation::{AnnotationValue, Classes};
use subsegment_tcp_speeds::time::{Nanos, WallTime};
use subsegment_tcp_speeds::wire::values::{emit_ask, parse_values};
use subsegment_tcp_speeds::wire::{
    build, push_annotation, Flags, FrameType, FrameView, Header, NodeInfo, NodeRole,
    RetransmitCount, Stamp, StampDirection, ANNOTATION_ASK, ANNOTATION_NODE,
    ANNOTATION_RETRANSMITS, ANNOTATION_VALUES, STAMP_LEN,
};
use util::json::{parse, Value};
use util::{free_port, need, program, run, text, Dir, Node, Process, LONG};

fn probe(target: SocketAddr, args: &[&str]) -> Value {
    let target = target.to_string();
    let given = ["probe", target.as_str(), "--node", "A", "--format", "json"];
    let out = run(&[&given[..], args].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    parse(&out.stdout).unwrap()
}

/// Returns the annotations of the node `name`.
#[track_caller]
fn annotations_of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let hosts = report.at("hosts").unwrap().as_array().unwrap();
    let host = hosts
        .iter()
        .find(|host| host.at("name").and_then(Value::as_str) == Some(name));
    let host = host.unwrap_or_else(|| panic!("no host {name}"));
    host.at("annotations").unwrap()
}

#[track_caller]
fn number(annotations: &Value, annotation: &str) -> f64 {
    let value = annotations.at(annotation).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {annotation} in {annotations:?}"))
}

#[track_caller]
fn words<'a>(annotations: &'a Value, annotation: &str) -> &'a str {
    let value = annotations.at(annotation).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("no {annotation} in {annotations:?}"))
}

/// The numbers at the front of a file of procfs.
fn proc_numbers(file: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(file).unwrap();
    text.split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect()
}

#[test]
fn every_node_answers_a_request_in_the_second_block() {
    let z = Node::start("Z", &["--add-static-tags", "rack 7"]);
    let b = Node::to("B", z.address, &[]);
    let before = (proc_numbers("/proc/loadavg"), proc_numbers("/proc/uptime"));
    let args = ["-c", "2", "-i", "2", "--ask", "load,tcp,tags"];
    let report = probe(b.address, &args);
    let after = (proc_numbers("/proc/loadavg"), proc_numbers("/proc/uptime"));
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let cpus = stat
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let cpus = cpus.count() as f64;
    for name in ["A", "B", "Z"] {
        let seen = annotations_of(&report, name);
        for (annotation, at) in [("load1", 0), ("load5", 1), ("load15", 2)] {
            let (low, high) = (before.0[at].min(after.0[at]), before.0[at].max(after.0[at]));
            // The kernel computes it every 5 s, so it may have risen and fallen.
            let load = number(seen, annotation);
            assert!(
                (low - 3.0..=high + 3.0).contains(&load),
                "{name} {annotation} {load}"
            );
        }
        assert_eq!(number(seen, "cpus"), cpus, "{name}");
        let uptime = number(seen, "uptime_s");
        assert!(
            (before.1[0]..=after.1[0]).contains(&uptime),
            "{name} {uptime}"
        );
        assert!((0.0..60.0).contains(&number(seen, "age_s")), "{name}");
        assert!(seen.at("cpu_busy").is_none(), "not requested");
    }
    for (name, side) in [
        ("A", "downstream"),
        ("B", "upstream"),
        ("B", "downstream"),
        ("Z", "upstream"),
    ] {
        let seen = annotations_of(&report, name);
        let rtt = number(seen, &format!("{side}.rtt_ns"));
        assert!((1e3..5e9).contains(&rtt), "{name} {side} {rtt}");
        assert!(number(seen, &format!("{side}.cwnd")) >= 1.0);
        assert!(number(seen, &format!("{side}.not_sent_bytes")) >= 0.0);
    }
    assert!(annotations_of(&report, "A").at("upstream.rtt_ns").is_none());
    assert!(annotations_of(&report, "Z")
        .at("downstream.rtt_ns")
        .is_none());
    assert_eq!(words(annotations_of(&report, "Z"), "tag.0"), "rack 7");
}

#[test]
fn there_are_no_annotations_without_a_request_or_a_second_block() {
    let z = Node::start("Z", &[]);
    let b = Node::to("B", z.address, &[]);
    for args in [&["-c", "3", "-i", "0.1"][..], &["-c", "1", "--ask", "all"]] {
        let report = probe(b.address, args);
        for name in ["A", "B", "Z"] {
            assert_eq!(
                annotations_of(&report, name).keys().map(|keys| keys.len()),
                Some(0),
                "{args:?}"
            );
        }
    }
}

#[test]
fn a_node_answers_with_the_classes_that_it_offers() {
    let z = Node::start("Z", &["--annotate", "none"]);
    let b = Node::to("B", z.address, &["--annotate", "files,tcp"]);
    let report = probe(
        b.address,
        &["-c", "2", "-i", "1", "--ask", "files,load,tcp"],
    );
    const REFUSED: &str = "not offered by this node (--annotate)";
    for class in ["files", "load", "tcp"] {
        assert_eq!(
            words(annotations_of(&report, "Z"), &format!("error.{class}")),
            REFUSED
        );
    }
    assert!(annotations_of(&report, "Z").at("upstream.rtt_ns").is_none());
    let b = annotations_of(&report, "B");
    assert_eq!(words(b, "error.load"), REFUSED);
    assert!(number(b, "open_files") > 4.0 && number(b, "downstream.rtt_ns") > 0.0);
    assert!(number(b, "open_files_max") >= number(b, "open_files"));
}

/// A source and a sink inside the test, with a real relay between them.
struct Wire {
    source: TcpStream,
    sink: TcpStream,
    _relay: Node,
}

const COOKIE: u64 = 7;

/// Sends the OPEN of a source.
fn send_open(source: &mut TcpStream) {
    let mut annotations = Vec::new();
    let info = NodeInfo::new(99, NodeRole::Source, "A");
    assert!(push_annotation(
        &mut annotations,
        ANNOTATION_NODE,
        0,
        &info.emit()
    ));
    let open = Header::new(FrameType::Open, COOKIE, 0);
    source
        .write_all(&build(open, &[], &annotations, &[]))
        .unwrap();
}

/// Returns a marked block of the source.
fn block(sequence: u64, classes: Classes, annotations: &[u8]) -> Vec<u8> {
    let mut stamp = [0; STAMP_LEN];
    Stamp::new(99, 0, StampDirection::Forward, WallTime(0)).emit(&mut stamp);
    let header = Header {
        flags: Flags(Flags::MARKED),
        classes: classes.0,
        ..Header::new(FrameType::Block, COOKIE, sequence)
    };
    build(header, &stamp, annotations, b"payload")
}

impl Wire {
    fn open(args: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Node::to("B", listener.local_addr().unwrap(), args);
        let mut source = TcpStream::connect(relay.address).unwrap();
        send_open(&mut source);
        let (mut sink, _) = listener.accept().unwrap();
        sink.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(frame(&mut sink).1.kind, FrameType::Open);
        Self {
            source,
            sink,
            _relay: relay,
        }
    }

    /// Sends a marked block through the relay and returns the frame that comes out.
    fn pass(&mut self, sequence: u64, classes: Classes, annotations: &[u8]) -> (Vec<u8>, Header) {
        let block = block(sequence, classes, annotations);
        self.source.write_all(&block).unwrap();
        frame(&mut self.sink)
    }

    /// Passes blocks with a request until one brings annotations.
    fn until_annotated(&mut self, from: u64, classes: Classes, asks: &[u8]) -> (Vec<u8>, Header) {
        for sequence in from..from + 90 {
            let passed = self.pass(sequence, classes, asks);
            if !annotations(&passed).is_empty() {
                return passed;
            }
            pause();
        }
        panic!("no block brought annotations");
    }
}

/// Reads the next frame of a stream.
fn frame(stream: &mut TcpStream) -> (Vec<u8>, Header) {
    let mut bytes = Vec::new();
    loop {
        if let Ok(header) = Header::parse(&bytes) {
            if bytes.len() == header.frame_len() {
                return (bytes, header);
            }
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
}

/// Returns the names of the annotations in a frame, by hop.
fn annotations(frame: &(Vec<u8>, Header)) -> Vec<(u8, Vec<String>)> {
    let view = FrameView::parse(&frame.0).unwrap();
    let annotations = view.annotations().map(Result::unwrap);
    let annotations = annotations.filter(|annotation| annotation.kind == ANNOTATION_VALUES);
    annotations
        .map(|annotation| {
            let annotations = parse_values(annotation.value).unwrap();
            (
                annotation.hop,
                annotations
                    .into_iter()
                    .map(|annotation| annotation.name)
                    .collect(),
            )
        })
        .collect()
}

/// Waits for the threads of a node, whose work is invisible from outside.
fn pause() {
    let (_sender, never) = channel::<()>();
    assert!(never.recv_timeout(Duration::from_millis(200)).is_err());
}

#[test]
fn a_block_without_a_request_carries_no_annotations() {
    let mut wire = Wire::open(&[]);
    for sequence in 0..3 {
        let (bytes, header) = wire.pass(sequence, Classes(0), &[]);
        assert_eq!((header.classes, header.annotations_len), (0, 0));
        assert_eq!(bytes.len(), 48 + 2 * 40 + 7);
    }
    let asked = wire.pass(3, Classes::LOAD, &[]);
    assert_eq!(asked.1.annotations_len, 0, "it has read nothing yet");
    let answered = wire.until_annotated(4, Classes::LOAD, &[]);
    let names = ["age_s", "load1", "load5", "load15", "cpus", "uptime_s"];
    assert_eq!(
        annotations(&answered),
        [(1, names.map(String::from).to_vec())]
    );
    let view = FrameView::parse(&answered.0).unwrap();
    assert_eq!((view.payload(), answered.1.stamps), (&b"payload"[..], 2));
    let hops: Vec<_> = view.stamps().map(|stamp| stamp.unwrap().hop).collect();
    assert_eq!(hops, [0, 1]);
    // A reading of retransmissions may come unasked, ten times a second at most.
    let passed = wire.pass(99, Classes(0), &[]);
    assert_eq!(annotations(&passed), []);
    let view = FrameView::parse(&passed.0).unwrap();
    let mut kinds = view
        .annotations()
        .map(|annotation| annotation.unwrap().kind);
    assert!(kinds.all(|kind| kind == ANNOTATION_RETRANSMITS));
}

#[test]
fn a_node_answers_only_the_request_to_its_hop() {
    let mut wire = Wire::open(&[]);
    let both = Classes::LOAD.union(Classes::FILES);
    let ask = |rows: &[(u8, Classes)]| {
        let mut annotations = Vec::new();
        let value = emit_ask(rows.iter().copied());
        assert!(push_annotation(&mut annotations, ANNOTATION_ASK, 0, &value));
        annotations
    };
    let other = ask(&[(2, both)]);
    let ours = ask(&[(2, both), (1, Classes::FILES)]);
    for sequence in 0..2 {
        let passed = wire.pass(sequence, both, &other);
        assert_eq!(annotations(&passed), []);
        assert_eq!(passed.1.annotations_len, other.len(), "it goes on to hop 2");
        pause();
    }
    assert_eq!(annotations(&wire.pass(2, both, &ours)), []);
    let answered = annotations(&wire.until_annotated(3, both, &ours));
    let names = ["age_s", "open_files", "open_files_max", "host_open_files"];
    assert_eq!(answered, [(1, names.map(String::from).to_vec())]);
}

#[test]
fn a_malformed_request_is_no_request() {
    let mut wire = Wire::open(&[]);
    let mut ask = Vec::new();
    assert!(push_annotation(&mut ask, ANNOTATION_ASK, 0, &[1, 0, 0, 0]));
    for sequence in 0..3 {
        let passed = wire.pass(sequence, Classes::LOAD, &ask);
        assert_eq!(annotations(&passed), []);
        pause();
    }
}

/// Starts a server that echoes every byte.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 64];
        while let Ok(read @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..read]).unwrap();
        }
    });
    address
}

#[test]
fn the_last_reading_of_an_exits_way_back_rides_on_its_end() {
    let exit = Node::to("X", echo_server(), &["-r"]);
    let mut source = TcpStream::connect(exit.address).unwrap();
    source.set_read_timeout(Some(LONG)).unwrap();
    send_open(&mut source);
    source.write_all(&block(0, Classes(0), &[])).unwrap();
    let readings = |frame: &(Vec<u8>, Header)| {
        let view = FrameView::parse(&frame.0).unwrap();
        let annotations = view.annotations().map(Result::unwrap);
        annotations
            .filter(|annotation| annotation.kind == ANNOTATION_RETRANSMITS)
            .map(|it| (it.hop, RetransmitCount::parse(it.value).unwrap()))
            .collect::<Vec<_>>()
    };
    // OPENED, the report and the echo in any order.
    let kinds = [(); 3].map(|()| frame(&mut source).1.kind);
    for kind in [FrameType::Opened, FrameType::Report, FrameType::Block] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let idle = Instant::now();
    pause();
    let idle = Nanos::from(idle.elapsed());
    let end = Header::new(FrameType::End, COOKIE, 1);
    source.write_all(&build(end, &[], &[], &[])).unwrap();
    let end = frame(&mut source);
    let last = readings(&end);
    assert_eq!(end.1.kind, FrameType::End);
    let [(hop, reading)] = last[..] else {
        panic!("{last:?}");
    };
    assert_eq!((hop, reading.back, reading.count), (1, true, 0));
    assert!(reading.span >= idle, "{reading:?} after {idle:?}");
}

#[test]
fn an_exit_returns_the_annotations_of_all_before_it_and_its_own() {
    let exit = Node::to("X", echo_server(), &["-r"]);
    let relay = Node::to("B", exit.address, &[]);
    let args = [
        "--accept", "raw", "--ask", "load,tcp", "--sample", "0", "--format", "json",
    ];
    let mut entry = Node::to("E", relay.address, &args);
    let mut client = TcpStream::connect(entry.address).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    for _ in 0..4 {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        pause();
        pause();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let (status, report) = entry.process.stop();
    assert!(status.success());
    let report = parse(report.as_bytes()).unwrap();
    for name in ["E", "B", "X"] {
        let seen = annotations_of(&report, name);
        assert!(number(seen, "load1") >= 0.0, "{name}");
        assert!(number(seen, "upstream.rtt_ns") > 0.0, "{name}");
        assert!(number(seen, "downstream.rtt_ns") > 0.0, "{name}");
    }
}

/// Net-SNMP's agent on loopback, with its own configuration.
struct Agent {
    process: Process,
    port: u16,
    _dir: Dir,
}

impl Agent {
    fn start(name: &str) -> Self {
        let dir = Dir::new(name);
        let config = dir.file("snmpd.conf");
        std::fs::write(&config, "rocommunity secret 127.0.0.1\nsysName router-7\n").unwrap();
        let port = free_port();
        let mut command = Command::new(need("snmpd"));
        command
            .args(["-f", "-Le", "-C", "-c"])
            .arg(&config)
            .arg(format!("udp:127.0.0.1:{port}"))
            .env("MIBS", "")
            .env("SNMP_PERSISTENT_DIR", &dir.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        process.wait_line("NET-SNMP version");
        Self {
            process,
            port,
            _dir: dir,
        }
    }

    fn at(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

#[test]
fn the_answer_of_an_agent_is_in_the_report_and_its_silence_or_end_delays_nothing() {
    let mut agent = Agent::start("snmp");
    let objects = "sysUpTime,laLoad.1,laLoad.3,1.3.6.1.2.1.1.5.0,ifInOctets.99";
    let at = agent.at();
    let args = [
        "--snmp",
        &at,
        "--snmp-community",
        "secret",
        "--snmp-objects",
        objects,
    ];
    let z = Node::start("Z", &args);
    let before = proc_numbers("/proc/loadavg");
    let report = probe(z.address, &["-c", "2", "-i", "1", "--ask", "snmp"]);
    let after = proc_numbers("/proc/loadavg");
    let answer = annotations_of(&report, "Z");
    for (annotation, at) in [("snmp.laLoad.1", 0), ("snmp.laLoad.3", 2)] {
        let (low, high) = (before[at].min(after[at]), before[at].max(after[at]));
        let load = number(answer, annotation);
        // The agent keeps what it read for 5 s.
        assert!(
            (low - 5.0..=high + 5.0).contains(&load),
            "{annotation} {load}"
        );
    }
    let uptime = number(answer, "snmp.sysUpTime");
    assert!((0.0..300.0).contains(&uptime), "in seconds: {uptime}");
    assert_eq!(words(answer, "snmp.1.3.6.1.2.1.1.5.0"), "router-7");
    assert_eq!(words(answer, "snmp.ifInOctets.99"), "noSuchInstance");
    assert!(answer.at("error.snmp").is_none());
    assert_eq!(
        words(annotations_of(&report, "A"), "error.snmp"),
        "this node has no agent (--snmp)"
    );

    // It hangs: after a second the annotation is an error, and no block has waited for it.
    agent.process.signal("STOP");
    let ask = ["-c", "13", "-i", "0.2", "--ask", "snmp,load"];
    let report = probe(z.address, &ask);
    let silent = annotations_of(&report, "Z");
    let error = words(silent, "error.snmp");
    // The second text if other processes had the CPU at the timeout.
    let errors = [
        format!("agent {at}: no answer within 1 s"),
        "no answer from the source for ".into(),
    ];
    assert!(errors.iter().any(|text| error.starts_with(text)), "{error}");
    assert!(
        number(silent, "load1") >= 0.0,
        "other classes do not wait either"
    );
    // Z's own share: on a busy machine a round trip takes as long without any agent.
    let own = report.at("hosts/1/forward_residence").unwrap();
    let median = number(own, "p50_ns");
    assert!(median < 200e6, "{median} ns within Z");
    let most = number(own, "p90_ns");
    assert!(most < 900e6, "{most} ns within Z");

    // It is gone: the host refuses the datagram.
    agent.process.signal("KILL");
    agent.process.wait();
    // The request without an answer may wait for another second; a block later there is a new one,
    // and the next block carries its answer.
    let report = probe(z.address, &["-c", "6", "-i", "0.7", "--ask", "snmp"]);
    let error = words(annotations_of(&report, "Z"), "error.snmp");
    assert_eq!(error, format!("agent {at}: Connection refused"));
}

#[test]
fn a_wrong_community_is_an_error_and_no_frame_holds_the_community() {
    let agent = Agent::start("snmp-wrong");
    let at = agent.at();
    let mut wire = Wire::open(&["--snmp", &at, "--snmp-community", "wrong"]);
    // If other processes have the CPU, the node may first report a slow agent.
    let errors = (0..10).map(|round| {
        let (answer, _) = wire.until_annotated(90 * round, Classes::SNMP, &[]);
        assert!(!answer.windows(5).any(|part| part == b"wrong"));
        let view = FrameView::parse(&answer).unwrap();
        let annotation = view.annotations().map(Result::unwrap).next().unwrap();
        let annotations = parse_values(annotation.value).unwrap();
        match &annotations[1].value {
            AnnotationValue::Text(error) => error.clone(),
            _ => panic!("{annotations:?}"),
        }
    });
    let is_late = |error: &String| error.starts_with("no answer from the source for ");
    let mut errors = errors.skip_while(is_late);
    let error = errors.next().expect("an end of waiting");
    assert!(
        error.ends_with("no answer within 1 s (is the community right?)"),
        "{error}"
    );
}

#[test]
fn a_wrong_class_or_object_on_the_command_line_is_named() {
    for (args, part) in [
        (&["--annotate", "lod"][..], "has \"lod\" for a class"),
        (
            &["--snmp", "r", "--snmp-objects", "laLoad"],
            "needs a number of its row",
        ),
        (&["--snmp-community", "x"], "needs --snmp ADDR"),
    ] {
        let out = program().args(["-l", "127.0.0.1:0"]).args(args).output();
        let out = out.unwrap();
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains(part), "{}", text(&out.stderr));
    }
}
