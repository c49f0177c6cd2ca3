//! Bulk data to a slow reader at the end.

use crate::support::{alone, repeats, Chain, Report};
use crate::util::{program, Dir, Node};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use subsegment_tcp_speeds::time::{Nanos, WallTime};
use subsegment_tcp_speeds::wire::{
    build, push_annotation, push_stamp, set_egress, Flags, FrameType, FrameView, Header, NodeInfo,
    NodeRole, ParseError, Stamp, StampDirection, ANNOTATION_NODE, STAMP_LEN,
};

/// More than the buffers of three connections take at once: a block is measured when it was sent.
const BULK: u64 = 64 << 20;
const RATE: u64 = 20_000_000;

/// Sends [`BULK`] bytes from a source A into `entry`; its report.
#[track_caller]
fn bulk(entry: &str, dir: &Dir) -> Report {
    let (data, report) = (dir.file("data"), dir.file("report.json"));
    File::create(&data).unwrap().set_len(BULK).unwrap();
    let output = program()
        .args(["--node", "A", "-f", entry, "--format", "json", "--report"])
        .arg(&report)
        .stdin(File::open(&data).unwrap())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Report::parse(&std::fs::read(report).unwrap())
}

/// Gives the time that `bytes` take at [`RATE`], counted from the start of the stream.
struct Pace {
    since: Instant,
    bytes: u64,
    nothing: Receiver<()>,
}

impl Pace {
    fn new() -> Self {
        let (keep, nothing) = channel();
        std::mem::forget(keep); // A closed channel would end a wait at once.
        Self {
            since: Instant::now(),
            bytes: 0,
            nothing,
        }
    }

    /// Nothing ends this wait but its time: being slow is what is tested.
    fn take(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let due = self.since + Duration::from_nanos(self.bytes * 1_000_000_000 / RATE);
        let left = due.saturating_duration_since(Instant::now());
        let _ = self.nothing.recv_timeout(left);
    }
}

/// Accepts connections at a free port, each on a thread of its own.
fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(socket));
        }
    });
    address
}

fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    WallTime(Nanos::from(since).0)
}

/// A reflector of ours made from nothing but the wire format, which reads slowly.
fn slow_reflector(mut socket: TcpStream) {
    const ID: u64 = 0x5a5a;
    let mut pace = Pace::new();
    let mut pending = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        let read = match socket.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        };
        pace.take(read);
        pending.extend_from_slice(&chunk[..read]);
        loop {
            let frame = match FrameView::parse(&pending) {
                Ok(frame) => frame,
                Err(ParseError::Incomplete { .. }) => break,
                Err(error) => panic!("a frame: {error}"),
            };
            let length = frame.bytes().len();
            let answer = reflect(ID, &frame);
            if socket.write_all(&answer).is_err() {
                return; // The chain is gone.
            }
            pending.drain(..length);
        }
    }
}

fn reflect(id: u64, frame: &FrameView<'_>) -> Vec<u8> {
    let ingress = wall();
    let hop = frame.header.hop + 1;
    let mut header = Header {
        flags: frame.header.flags.with(Flags::RETURN),
        hop,
        ..frame.header
    };
    if header.kind == FrameType::Open {
        let info = NodeInfo::new(id, NodeRole::Echo, "Z");
        let mut annotations = frame.annotation_bytes().to_vec();
        assert!(push_annotation(
            &mut annotations,
            ANNOTATION_NODE,
            hop,
            &info.emit()
        ));
        header.kind = FrameType::Opened;
        header.flags = Flags(Flags::RETURN);
        return build(header, &[], &annotations, &[]);
    }
    let mut out = vec![0; STAMP_LEN];
    out.extend(build(
        header,
        frame.stamp_bytes(),
        frame.annotation_bytes(),
        frame.payload(),
    ));
    if !header.marked() {
        return out.split_off(STAMP_LEN);
    }
    let stamp = Stamp::new(id, hop, StampDirection::Turn, ingress);
    let mut header = Header::parse(&out[STAMP_LEN..]).unwrap();
    let (_, at) = push_stamp(&mut out, STAMP_LEN, &mut header, &stamp);
    set_egress(&mut out[at.unwrap()..], wall(), 0);
    out
}

/// Runs bulk through the chain again and again; `right` judges the verdict.
#[track_caller]
fn always(name: &str, entry: &str, right: impl Fn(&Report) -> bool) {
    let dir = Dir::new(name);
    let count = repeats(2);
    let mut wrong = Vec::new();
    for _ in 0..count {
        let report = bulk(entry, &dir);
        eprintln!("{name}: {}", report.text("verdict/text"));
        if !right(&report) {
            wrong.push(format!("{:?}", report.0.at("verdict")));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
}

/// C -> Z, or Z itself.
fn at_the_end(report: &Report) -> bool {
    let place = report.int("verdict/index");
    matches!(
        (report.text("verdict/kind"), place),
        ("segment", 2) | ("host", 3)
    )
}

#[test]
fn a_link_that_drains_slowly_is_named_not_the_queues_before_it() {
    let _alone = alone();
    let chain = Chain::start(Duration::ZERO);
    chain.links[2].forward.set_rate(RATE);
    always("drain", &chain.entry(), at_the_end);
}

#[test]
fn a_last_node_that_reads_slowly_is_named_not_the_queues_before_it() {
    let _alone = alone();
    let z = listen(slow_reflector);
    let c = Node::to("C", z, &[]);
    let b = Node::to("B", c.address, &[]);
    always("reader", &b.address.to_string(), at_the_end);
}

#[test]
fn a_server_behind_an_exit_that_reads_slowly_is_named_as_the_server() {
    let _alone = alone();
    let server = listen(|mut socket| {
        let mut pace = Pace::new();
        let mut chunk = vec![0; 16 << 10];
        while let Ok(read @ 1..) = socket.read(&mut chunk) {
            pace.take(read);
        }
    });
    let z = Node::to("Z", server, &["--remove-perf-headers"]);
    let c = Node::to("C", z.address, &[]);
    let b = Node::to("B", c.address, &[]);
    always("server", &b.address.to_string(), |report| {
        report.text("verdict/kind") == "server"
    });
}
