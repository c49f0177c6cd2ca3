//! Streams that were recorded between real nodes, bent in every way, against live nodes from both
//! sides.
//!
//! Each run has a seed of its own, which a failure prints: `STS_SEED=... STS_RUNS=1` repeats it.

use crate::faces::framed::{check, open, read_frame, Witness, COOKIE};
use crate::faces::{accept, connect, connect_unless_reset, listener, Random};
use crate::hops::pass_on;
use crate::peers::cast;
use crate::util::json::parse;
use crate::util::vitals::{wait_started, Vitals};
use crate::util::{pass, program, Node, Process, LONG};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::wire::{FrameView, Header, HEADER_LEN, STAMP_LEN};

const SEED: u64 = 0x5eed_0005;
/// How many streams each node gets.
const RUNS: u64 = 600;
/// How many a probe gets, which is a process for each.
const PROBES: u64 = 60;

fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
}

/// The frames of a session of a real source through a relay to an echo, as the relay sent them (two
/// stamps
struct Recorded {
    out: Vec<Vec<u8>>,
    back: Vec<Vec<u8>>,
}

fn record() -> Recorded {
    let z = Node::start("Z", &[]);
    let (hop, between) = listener();
    let b = Node::to("B", between, &["--add-static-tags", "rack=7"]);
    let recording = thread::spawn(move || {
        let near = accept(&hop);
        let far = connect(z.address);
        let taps = [(&near, &far), (&far, &near)].map(|(from, to)| {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                let mut seen = Vec::new();
                let mut chunk = [0; 4096];
                while let Ok(read @ 1..) = from.read(&mut chunk) {
                    seen.extend_from_slice(&chunk[..read]);
                    to.write_all(&chunk[..read]).unwrap();
                }
                to.shutdown(Shutdown::Write).unwrap();
                seen
            })
        });
        taps.map(|tap| frames(&tap.join().unwrap()))
    });
    let mut source = Process::start(
        program()
            .args(["-f", &b.address.to_string(), "-b", "100"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null()),
    );
    let mut stdin = source.child.stdin.take().unwrap();
    stdin.write_all(&[b'r'; 700]).unwrap();
    drop(stdin);
    assert!(source.wait().success());
    let [out, back] = recording.join().unwrap();
    // OPEN or OPENED, seven blocks, END.
    assert_eq!((out.len(), back.len()), (9, 9));
    Recorded { out, back }
}

fn frames(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let len = Header::parse(stream).unwrap().frame_len();
        frames.push(stream[..len].to_vec());
        stream = &stream[len..];
    }
    frames
}

/// A stream with up to four defects. Most often its checks are right all the same, to test what
/// lies behind them.
fn mutated(random: &mut Random, frames: &[Vec<u8>], cookie: u64) -> Vec<u8> {
    let mut frames = frames.to_vec();
    for frame in &mut frames {
        frame[24..32].copy_from_slice(&cookie.to_be_bytes());
        check(frame);
    }
    for _ in 0..=random.below(4) {
        if frames.is_empty() {
            break;
        }
        let at = random.below(frames.len());
        let other = random.below(frames.len());
        match random.below(14) {
            0 => {
                let copy = frames[at].clone();
                frames.insert(other, copy);
            }
            1 => drop(frames.remove(at)),
            2 => frames.swap(at, other),
            3 => frames.truncate(at + 1),
            _ => bend(random, &mut frames[at]),
        }
    }
    let fixed = random.below(8) > 0;
    let mut stream = Vec::new();
    for mut frame in frames {
        if fixed && frame.len() >= HEADER_LEN {
            check(&mut frame);
        }
        stream.extend(frame);
    }
    if random.below(8) == 0 {
        stream.truncate(random.below(stream.len() + 1));
    }
    stream
}

/// One frame that is wrong in one way.
fn bend(random: &mut Random, frame: &mut Vec<u8>) {
    if frame.len() < HEADER_LEN {
        frame.push(random.next() as u8);
        return;
    }
    let stamps_end = (HEADER_LEN + usize::from(frame[20]) * STAMP_LEN).min(frame.len());
    let notes = usize::from(u16::from_be_bytes([frame[14], frame[15]]));
    let notes_end = (stamps_end + notes).min(frame.len());
    let edges = [
        0,
        1,
        2,
        4,
        47,
        48,
        127,
        128,
        129,
        255,
        1 << 14,
        65_535,
        1 << 20,
        u32::MAX as usize,
    ];
    let edge = match random.below(2) {
        0 => edges[random.below(edges.len())] as u32,
        _ => random.next() as u32,
    };
    match random.below(10) {
        0 => {
            let at = random.below(frame.len());
            frame[at] ^= 1 << random.below(8);
        }
        1 => frame.truncate(random.below(frame.len())),
        2 => {
            let at = random.below(frame.len());
            frame.splice(at..at, (0..random.below(60)).map(|byte| byte as u8));
        }
        // Lengths: of the header, the annotations, the payload.
        3 => frame[12..14].copy_from_slice(&(edge as u16).to_be_bytes()),
        4 => frame[14..16].copy_from_slice(&(edge as u16).to_be_bytes()),
        5 => frame[16..20].copy_from_slice(&edge.to_be_bytes()),
        // Stamps more or fewer than there are; type, flags, hop, hop limit; times and hops of
        // stamps.
        6 => frame[20] = edge as u8,
        7 => {
            let at = [8, 9, 9, 9, 10, 11, 21, 22, 23, 24, 39][random.below(11)];
            frame[at] = edge as u8;
        }
        8 if stamps_end > HEADER_LEN => {
            let at = HEADER_LEN + random.below(stamps_end - HEADER_LEN);
            let end = (at + 1 + random.below(8)).min(stamps_end);
            frame[at..end].fill(edge as u8);
        }
        // Types, hops, lengths and contents of annotations.
        9 if notes_end > stamps_end => {
            let at = stamps_end + random.below(notes_end - stamps_end);
            frame[at] = edge as u8;
        }
        _ => frame[HEADER_LEN - 16] ^= 1 + (edge as u8 >> 1),
    }
}

/// The seed of a run, from which alone its stream is made.
fn seeded(run: u64) -> (u64, Random) {
    let seed = number("STS_SEED", SEED).wrapping_add(run);
    (seed, Random::new(seed))
}

/// What must hold of a node that has had it all.
struct Victim {
    role: &'static str,
    node: Node,
    address: SocketAddr,
    fresh: Vitals,
    framed: bool,
    _beyond: Vec<Node>,
}

impl Victim {
    fn new(role: &'static str, (beyond, node): (Vec<Node>, Node), framed: bool) -> Self {
        let (address, pid) = (node.address, node.process.child.id());
        wait_started(pid);
        Self {
            role,
            node,
            address,
            fresh: Vitals::of(pid).unwrap(),
            framed,
            _beyond: beyond,
        }
    }

    fn is_well(&self, seed: u64) {
        let mut witness = Witness::silent(connect(self.address), self.framed);
        let answered = witness.is_answered(b"a clean session");
        assert!(
            answered,
            "{} after seed {seed:#x}: it serves no client",
            self.role
        );
        witness.leaves();
    }

    fn ends(mut self, runs: u64, hung: &str) {
        let seed = number("STS_SEED", SEED);
        self.is_well(seed);
        let pid = self.node.process.child.id();
        let deadline = Instant::now() + LONG;
        loop {
            let now = Vitals::of(pid).expect("it lives");
            if (now.threads, now.descriptors) == (self.fresh.threads, self.fresh.descriptors) {
                println!(
                    "MUTATIONS {} ({hung}): {runs} streams from seed {seed:#x}, KiB {} -> {}, \
                     threads {} -> {}, lines {}",
                    self.role,
                    self.fresh.memory_kib,
                    now.memory_kib,
                    self.fresh.threads,
                    now.threads,
                    self.node.process.stderr().len(),
                );
                break;
            }
            let role = self.role;
            assert!(
                Instant::now() < deadline,
                "{role}, seed {seed:#x}: left behind {now:?}"
            );
            pass(Duration::from_millis(5));
        }
        let (status, report) = self.node.process.stop();
        let logged = self.node.process.stderr();
        let panic = logged.iter().find(|line| line.contains("panicked"));
        assert!(panic.is_none(), "{}, seed {seed:#x}: {panic:?}", self.role);
        assert!(status.success(), "{}, seed {seed:#x}: {status}", self.role);
        parse(report.as_bytes())
            .unwrap_or_else(|error| panic!("seed {seed:#x}: {error}: {report}"));
    }
}

const ARGS: &[&str] = &["-t", "0.3", "--format", "json"];

/// Reads to the end, whatever it is; that it comes is what matters.
#[track_caller]
fn ended(mut socket: &TcpStream, seed: u64) {
    let ended = socket.read_to_end(&mut Vec::new());
    let hung = matches!(&ended, Err(error) if error.kind() == ErrorKind::WouldBlock);
    assert!(!hung, "seed {seed:#x}: no end comes");
}

/// As a client: the whole stream, then the end.
fn from_before(role: &'static str, recorded: &Recorded) {
    let victim = Victim::new(role, cast(role, ARGS), role != "entry");
    let runs = number("STS_RUNS", RUNS);
    for run in 0..runs {
        let (seed, mut random) = seeded(run);
        let stream = mutated(&mut random, &recorded.out, COOKIE);
        let mut client = connect(victim.address);
        // Sometimes in two pieces. A node that has seen enough resets in the middle of it.
        let cut = random.below(stream.len() * 2 + 1).min(stream.len());
        let _ = client
            .write_all(&stream[..cut])
            .and_then(|()| client.write_all(&stream[cut..]));
        let _ = client.shutdown(Shutdown::Write);
        ended(&client, seed);
        if run % 100 == 99 {
            victim.is_well(seed);
        }
    }
    victim.ends(runs, "from its client");
}

/// A next hop that answers each connection with a given stream, or well.
struct Hop {
    address: SocketAddr,
    orders: Sender<Option<Random>>,
}

impl Hop {
    fn start(recorded: &Arc<Recorded>, well: SocketAddr) -> Self {
        let (hop, address) = listener();
        let (orders, ordered) = channel::<Option<Random>>();
        let (recorded, ordered): (_, Mutex<Receiver<_>>) = (Arc::clone(recorded), ordered.into());
        thread::spawn(move || {
            for socket in hop.incoming().map_while(Result::ok) {
                let Ok(order) = ordered.lock().unwrap().recv_timeout(LONG) else {
                    return;
                };
                socket.set_read_timeout(Some(LONG)).unwrap();
                match order {
                    None => pass_on(socket, well),
                    Some(random) => {
                        let recorded = Arc::clone(&recorded);
                        thread::spawn(move || answer(socket, random, &recorded));
                    }
                }
            }
        });
        Self { address, orders }
    }
}

fn answer(mut socket: TcpStream, mut random: Random, recorded: &Recorded) {
    let Some((_, open)) = read_frame(&mut socket) else {
        return;
    };
    // As if they were answers to this very node, or it would look no further.
    let open = FrameView::parse(&open).unwrap();
    let ids: Vec<_> = open
        .stamps()
        .map(Result::unwrap)
        .map(|stamp| (stamp.hop, stamp.node))
        .collect();
    let mut frames = recorded.back.clone();
    for frame in &mut frames {
        for stamp in 0..usize::from(frame[20]) {
            let at = HEADER_LEN + stamp * STAMP_LEN;
            let hop = frame[at + 8];
            if let Some((_, id)) = ids.iter().find(|(known, _)| *known == hop) {
                frame[at..at + 8].copy_from_slice(&id.to_be_bytes());
            }
        }
    }
    let stream = mutated(&mut random, &frames, open.header.cookie);
    // The node may have seen enough in the middle of it.
    let _ = socket.write_all(&stream);
    let _ = socket.shutdown(Shutdown::Write);
    let _ = std::io::copy(&mut socket, &mut std::io::sink());
}

/// As the next hop of a node.
fn from_behind(role: &'static str, recorded: &Arc<Recorded>) {
    let z = Node::start("Z", &[]);
    let hop = Hop::start(recorded, z.address);
    let own: &[&str] = if role == "entry" {
        &["--accept", "raw"]
    } else {
        &[]
    };
    let node = Node::to("N", hop.address, &[own, ARGS].concat());
    let victim = Victim::new(role, (vec![z], node), role != "entry");
    let runs = number("STS_RUNS", RUNS);
    for run in 0..runs {
        let (seed, random) = seeded(run);
        hop.orders.send(Some(random)).unwrap();
        // An entry connects upstream at once: it may receive the end of a client that has sent
        // nothing yet.
        let client = connect_unless_reset(victim.address);
        let stream = match role {
            "entry" => b"some plain bytes".to_vec(),
            _ => {
                // As it was recorded, so that answers find the blocks that they belong to.
                let mut stream = open();
                recorded.out[1..].iter().for_each(|frame| {
                    let mut frame = frame.clone();
                    frame[24..32].copy_from_slice(&COOKIE.to_be_bytes());
                    check(&mut frame);
                    stream.extend(frame);
                });
                stream
            }
        };
        if let Some(mut client) = client {
            let _ = client.write_all(&stream);
            let _ = client.shutdown(Shutdown::Write);
            ended(&client, seed);
        }
        if run % 100 == 99 {
            hop.orders.send(None).unwrap();
            victim.is_well(seed);
        }
    }
    hop.orders.send(None).unwrap();
    victim.ends(runs, "from its next hop");
}

/// Sources of both kinds: they end after any answer, with the right exit code.
fn from_behind_a_source(recorded: &Arc<Recorded>) {
    let hop = Hop::start(recorded, ([127, 0, 0, 1], 1).into());
    let to = hop.address.to_string();
    let runs = number("STS_RUNS", PROBES);
    let mut codes = [0; 4];
    for run in 0..runs {
        let (seed, random) = seeded(run);
        hop.orders.send(Some(random)).unwrap();
        let probe: &[&str] = &[
            "probe", &to, "-c", "7", "-i", "0.0001", "-t", "0.3", "--format", "json",
        ];
        let source: &[&str] = &["-f", &to, "-t", "0.3", "-b", "100", "--format", "json"];
        let args = if run % 2 == 0 { probe } else { source };
        let mut child = program()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended by now.
        let _ = child.stdin.take().unwrap().write_all(&[b's'; 700]);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        let known = code.is_some_and(|code| (0..=2).contains(&code));
        assert!(
            known && !stderr.contains("panicked"),
            "seed {seed:#x}: {code:?} {stderr}"
        );
        codes[code.unwrap() as usize] += 1;
        if run % 2 == 0 {
            parse(&output.stdout).unwrap_or_else(|error| panic!("seed {seed:#x}: {error}"));
        }
    }
    println!(
        "MUTATIONS probe and source (from their next hop): {runs} streams, exit codes {codes:?}"
    );
}

#[test]
fn mutated_streams_from_either_side_leave_nothing_behind_and_harm_no_other() {
    let recorded = Arc::new(record());
    thread::scope(|scope| {
        let recorded = &recorded;
        for role in ["relay", "echo", "exit", "entry"] {
            scope.spawn(move || from_before(role, recorded));
        }
        for role in ["relay", "entry"] {
            scope.spawn(move || from_behind(role, recorded));
        }
        scope.spawn(move || from_behind_a_source(recorded));
    });
}
