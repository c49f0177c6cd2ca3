//! Mixed traffic through chains of every role for `STS_SOAK` seconds (20 unless set): memory,
//! threads and descriptors of every process stay flat. `scripts/soak` runs it for longer, in the
//! release build.
//!
//! ```text
//! short, bulk, idle, reset, half-closed clients ── entry ── relay ── exit ── a plain server
//!                                     a source ──┐
//!                                      a probe ──┴─ relay ── echo
//! ```

#[path = "../faces/mod.rs"]
mod faces;
mod hostile;
#[path = "../util/mod.rs"]
mod util;

use faces::{connect, echo_server, read_nothing_more, read_stream, write_stream, Random};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::sys;
use util::vitals::{wait_started, Vitals};
use util::{pass, program, Dir, Node, Process, Raised, LONG};

/// The growth that a process may show, in KiB a minute over the last four fifths: a leak of a
/// kilobyte a second exceeds it.
///
/// Measured growth in a node of 84 threads (smaps by mapping, `malloc_info`, heaptrack; release, a
/// busy machine): within 2 to 4 minutes the one heap of malloc grows to the 1.1 MiB that its
/// threads once needed at once, and the C library keeps 92 stacks of 12 KiB. The stores of
/// measurements grow until they are full: 16384 rows are 0.3 MiB at an exit, 1.2 at a relay, 2.1 at
/// an entry. The exit's heap then rose by 6 KiB a minute; with 16 heaps by 63 until the tenth
/// minute and by 4 until the twentieth. No memory outlives its client: of 0.6 MiB in use 0.13 were
/// left without clients, after 6 thousand connections as after 20 minutes: a store and the data of
/// the stacks.
const GROWTH: f64 = 60.0;
/// The further growth that is allowed, divided by the square of the minutes, as temporary buffers
/// weigh most in a short run: 1.5 MiB within 20 s, and 6 KiB a minute in a run of 10 minutes.
const WARMING: f64 = 400.0;
/// The same limits for threads and descriptors, which come and go with the clients.
const COUNT_GROWTH: f64 = 0.5;
const COUNT_WARMING: f64 = 1.0;

/// The state that all clients share.
#[derive(Default)]
struct Traffic {
    over: AtomicBool,
    /// All clients of every kind are connected.
    complete: AtomicBool,
    connections: AtomicUsize,
    kilobytes: AtomicUsize,
}

impl Traffic {
    /// Lets time pass between two clients; returns `false` at the end of the run.
    fn goes_on(&self, pause: Duration) -> bool {
        pass(pause);
        !self.over.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: usize) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.kilobytes.fetch_add(bytes / 1000, Ordering::Relaxed);
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Exchanges one request and one answer.
fn short(traffic: &Traffic, entry: SocketAddr) {
    let mut random = Random::new(1);
    while traffic.goes_on(ms(5)) {
        let (seed, len) = (random.next(), 1 + random.below(2000));
        let mut client = connect(entry);
        write_stream(&mut client, seed, len);
        read_stream(&mut client, seed, len);
        traffic.count(len);
    }
}

/// Moves as many bytes as possible in both directions at once.
fn bulk(traffic: &Traffic, entry: SocketAddr) {
    const MUCH: usize = 8 << 20;
    let mut seed = 0;
    while traffic.goes_on(ms(200)) {
        seed += 1;
        let mut client = connect(entry);
        let mut sending = client.try_clone().unwrap();
        let writer = thread::spawn(move || write_stream(&mut sending, seed, MUCH));
        read_stream(&mut client, seed, MUCH);
        writer.join().unwrap();
        traffic.count(MUCH);
    }
}

/// Keeps connections that are idle most of the time.
fn idle(traffic: &Traffic, entry: SocketAddr) {
    let mut idlers = VecDeque::new();
    let mut random = Random::new(2);
    while traffic.goes_on(ms(50)) {
        let enough = idlers.len() >= 40;
        if enough {
            traffic.complete.store(true, Ordering::Relaxed);
        }
        let old = enough.then(|| idlers.pop_front()).flatten();
        // Some are closed for good.
        let old = old.filter(|_| random.below(10) > 0);
        let mut client = old.unwrap_or_else(|| connect(entry));
        write_stream(&mut client, 3, 100);
        read_stream(&mut client, 3, 100);
        traffic.count(100);
        idlers.push_back(client);
    }
}

fn resets(traffic: &Traffic, entry: SocketAddr) {
    while traffic.goes_on(ms(20)) {
        let mut client = connect(entry);
        write_stream(&mut client, 5, 3000);
        client.read_exact(&mut [0; 500]).unwrap();
        sys::reset_on_close(&client).unwrap();
        traffic.count(3000);
    }
}

/// Sends the whole request and FIN, then reads the answer.
fn half_closes(traffic: &Traffic, entry: SocketAddr) {
    while traffic.goes_on(ms(20)) {
        let mut client = connect(entry);
        write_stream(&mut client, 6, 10_000);
        client.shutdown(Shutdown::Write).unwrap();
        read_stream(&mut client, 6, 10_000);
        read_nothing_more(&mut client);
        traffic.count(10_000);
    }
}

/// A watched process, and its readings with their time in minutes.
struct Watched {
    name: &'static str,
    pid: u32,
    seen: Vec<(f64, Vitals)>,
}

/// Returns the slope of the least-squares line through points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let common: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    common / spread
}

#[test]
fn the_slope_of_a_line_is_found() {
    let points = [0.0, 1.0, 2.0, 5.0].map(|x| (x, 3.0 - 2.0 * x));
    assert!((slope(&points) + 2.0).abs() < 1e-9);
}

/// A unit, the figure, and its allowed growth.
type Figure = (&'static str, fn(&Vitals) -> f64, (f64, f64));

impl Watched {
    fn look(&mut self, begun: Instant) {
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        let vitals = Vitals::of(self.pid);
        let vitals = vitals.unwrap_or_else(|| panic!("{} has ended", self.name));
        self.seen.push((minutes, vitals));
    }

    /// Returns the row of the table; a figure that grew is added to `grown`.
    fn row(&self, grown: &mut Vec<String>) -> String {
        let steady = &self.seen[self.seen.len() / 5..];
        let minutes = steady[steady.len() - 1].0 - steady[0].0;
        let (memory, count) = ((GROWTH, WARMING), (COUNT_GROWTH, COUNT_WARMING));
        let figures: [Figure; 3] = [
            ("KiB", |seen| seen.memory_kib as f64, memory),
            ("threads", |seen| seen.threads as f64, count),
            ("descriptors", |seen| seen.descriptors as f64, count),
        ];
        let mut row = format!("{:13}", self.name);
        for (unit, of, (growth, warming)) in figures {
            let points: Vec<_> = steady.iter().map(|(at, seen)| (*at, of(seen))).collect();
            let slope = slope(&points);
            let bound = growth + warming / minutes.powi(2);
            let (first, last) = (of(&self.seen[0].1), points[points.len() - 1].1);
            let _ = write!(row, " | {first:6} {last:6} {slope:+8.1}");
            if slope > bound {
                grown.push(format!(
                    "{}: {slope:+.1} {unit} a minute, more than {bound:.1}",
                    self.name
                ));
            }
        }
        row
    }
}

/// Returns the address space of a process, in MiB (`VmSize`).
fn addresses_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))
        .unwrap();
    size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// A heap of glibc takes 64 MiB of addresses and keeps the size that its threads once needed.
#[test]
fn the_threads_of_a_node_share_one_heap() {
    let exit = Node::to("X", echo_server(), &["-r"]);
    let entry = Node::to("E", exit.address, &["--accept", "raw"]);
    let clients: Vec<_> = (0..20).map(|_| connect(entry.address)).collect();
    for mut client in clients {
        write_stream(&mut client, 7, 100);
        read_stream(&mut client, 7, 100);
    }
    for (name, node) in [("exit", &exit), ("entry", &entry)] {
        let size = addresses_mib(node.process.child.id());
        assert!(size < 128, "{name}: {size} MiB");
    }
}

/// Starts a source that never ends; the bytes that come back are dropped.
fn start_source(next: SocketAddr, state: &str) -> (Process, thread::JoinHandle<()>) {
    let mut command = program();
    command.args(["--node", "S", "-f", &next.to_string(), "--state", state]);
    let mut source = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut stdout = source.stdout();
    let reader = thread::spawn(move || {
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    });
    (source, reader)
}

fn start_probe(next: SocketAddr, state: &str) -> Process {
    let mut command = program();
    command.args(["probe", &next.to_string(), "-c", "0", "-i", "0.005"]);
    command.args(["--state", state]);
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

#[test]
fn mixed_traffic_for_a_long_time_leaves_every_process_as_large_as_it_was() {
    let seconds: f64 = std::env::var("STS_SOAK").map_or(20.0, |text| {
        text.parse().expect("STS_SOAK is a number of seconds")
    });
    // With a state file there is no baseline of five minutes, and one bounded store of measurements
    // instead of two. It is full, and memory flat, within the first fifth of ten minutes.
    let dir = Dir::new("soak");
    let states = ["X", "B", "E", "C", "source", "probe"].map(|name| dir.file(name));
    let state = |at: usize| states[at].to_str().unwrap();
    let exit = Node::to("X", echo_server(), &["-r", "--state", state(0)]);
    let relay = Node::to("B", exit.address, &["--state", state(1)]);
    let args = ["--accept", "raw", "--state", state(2)];
    let entry = Node::to("E", relay.address, &args);
    let echo = Node::start("Z", &[]);
    let second = Node::to("C", echo.address, &["--state", state(3)]);
    let mut nodes = [
        ("entry", entry),
        ("relay", relay),
        ("exit", exit),
        ("relay 2", second),
        ("echo", echo),
    ];
    let address = nodes[0].1.address;
    for (_, node) in &nodes {
        wait_started(node.process.child.id());
    }
    let fresh = nodes
        .each_ref()
        .map(|(_, node)| Vitals::of(node.process.child.id()).unwrap());

    let to_second = nodes[3].1.address;
    let (mut source, source_reader) = start_source(to_second, state(4));
    let mut probe = start_probe(to_second, state(5));
    let mut watched: Vec<_> = nodes
        .iter()
        .map(|(name, node)| (*name, node.process.child.id()))
        .chain([("source", source.child.id()), ("probe", probe.child.id())])
        .map(|(name, pid)| Watched {
            name,
            pid,
            seen: Vec::new(),
        })
        .collect();

    let traffic = Traffic::default();
    let mut stdin = source.child.stdin.take().unwrap();
    let mut begun = Instant::now();
    thread::scope(|scope| {
        let _at_the_end = Raised(&traffic.over);
        for client in [short, bulk, idle, resets, half_closes] {
            let traffic = &traffic;
            scope.spawn(move || client(traffic, address));
        }
        let (traffic, watched) = (&traffic, &mut watched);
        scope.spawn(move || {
            while traffic.goes_on(ms(4)) {
                stdin.write_all(&[b's'; 2000]).unwrap();
            }
        });
        // Not at a set time: a busy machine needs long to accept all clients, and each adds threads
        // and memory.
        while !traffic.complete.load(Ordering::Relaxed) {
            assert!(begun.elapsed() < LONG, "not all clients get in");
            pass(ms(20));
        }
        begun = Instant::now();
        let every = Duration::from_secs_f64((seconds / 80.0).clamp(0.2, 5.0));
        while begun.elapsed().as_secs_f64() < seconds {
            pass(every);
            for process in watched.iter_mut() {
                process.look(begun);
            }
        }
    });

    println!(
        "SOAK {:.0} s, {} exchanges, {} MB through the entry each way; slopes a minute, over the \
         last 4/5 of the time",
        begun.elapsed().as_secs_f64(),
        traffic.connections.load(Ordering::Relaxed),
        traffic.kilobytes.load(Ordering::Relaxed) / 1000,
    );
    println!(
        "SOAK {:13} | {:^22} | {:^22} | {:^22}",
        "process", "private memory, KiB", "threads", "descriptors"
    );
    let mut wrong = Vec::new();
    for process in &watched {
        println!("SOAK {}", process.row(&mut wrong));
    }

    // Without clients all that belonged to them is freed.
    source_reader.join().unwrap();
    assert!(source.wait().success(), "{:?}", source.stderr());
    probe.signal("INT");
    assert!(probe.wait().success(), "{:?}", probe.stderr());
    for ((name, node), fresh) in nodes.iter_mut().zip(fresh) {
        let deadline = Instant::now() + LONG;
        let pid = node.process.child.id();
        let counts = |vitals: Vitals| (vitals.threads, vitals.descriptors);
        while counts(Vitals::of(pid).unwrap()) != counts(fresh) {
            let now = Vitals::of(pid).unwrap();
            assert!(
                Instant::now() < deadline,
                "{name}: {fresh:?} became {now:?}"
            );
            pass(ms(10));
        }
        assert!(node.process.stop().0.success(), "{name}");
        let said = node.process.stderr().join("\n");
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    println!(
        "SOAK nothing grows by more than {GROWTH} KiB + {WARMING} / minutes^2 a minute, nothing is \
         left of the clients"
    );
}
