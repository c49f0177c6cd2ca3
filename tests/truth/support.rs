//! A chain A - B - C - Z with a link before each of B, C and Z, and reports as values.

#![allow(unreachable_pub)] // As in `util`.

use crate::util::json::{parse, Value};
use crate::util::link::{Link, LinkDirection};
use crate::util::{pass, program, run, text, Node, LONG};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Two measuring tests at a time would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How often a verdict is asked for: `STS_REPEAT` times, or a few.
pub fn repeats(few: usize) -> usize {
    match std::env::var("STS_REPEAT") {
        Ok(text) => text.parse().expect("STS_REPEAT is a number"),
        Err(_) => few,
    }
}

/// What 0.2 ms are in nanoseconds: how exact a figure has to be.
pub const EXACT_NS: i64 = 200_000;

/// The nodes B, C and Z, each behind a link: `links[0]` lies between A and B.
pub struct Chain {
    nodes: [Node; 3],
    pub links: [Link; 3],
}

impl Chain {
    /// All links hold bytes for `delay` each way.
    pub fn start(delay: Duration) -> Self {
        Self::start_with(delay, |_, _| {})
    }

    /// As `start`; `change` may add arguments and environment to the command of each node, by name.
    pub fn start_with(delay: Duration, change: impl Fn(&str, &mut Command)) -> Self {
        let start = |name: &str, next: Option<SocketAddr>| {
            let mut command = program();
            command.args(["--node", name, "-l", "127.0.0.1:0"]);
            if let Some(next) = next {
                command.args(["-f", &next.to_string()]);
            }
            change(name, &mut command);
            let node = Node::start_command(&mut command);
            let link = Link::start(node.address, delay).unwrap();
            (node, link)
        };
        let (z, to_z) = start("Z", None);
        let (c, to_c) = start("C", Some(to_z.address));
        let (b, to_b) = start("B", Some(to_c.address));
        Self {
            nodes: [b, c, z],
            links: [to_b, to_c, to_z],
        }
    }

    /// Where A connects to.
    pub fn entry(&self) -> String {
        self.links[0].address.to_string()
    }

    /// The process of the node at `hop`.
    pub fn pid(&self, hop: usize) -> u32 {
        self.nodes[hop - 1].process.child.id()
    }

    /// Both directions of all links.
    pub fn ways(&self) -> impl Iterator<Item = &LinkDirection> {
        self.links
            .iter()
            .flat_map(|link| [&*link.forward, &*link.back])
    }

    /// Runs a probe from A through the chain; the exact medians of the segments' round trips (those
    /// of a report are off by up to 1 %).
    #[track_caller]
    pub fn medians(&self, args: &[&str]) -> Vec<i64> {
        lines_of(&self.entry(), args).medians()
    }

    /// Runs a probe from A through the chain; its report.
    #[track_caller]
    pub fn probe(&self, args: &[&str]) -> Report {
        probe(&self.entry(), args)
    }
}

/// The nodes' own output often names a failure best.
impl Drop for Chain {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &mut self.nodes {
                let said = node.process.stderr().join("\n");
                eprintln!(
                    "{}: {:?}\n{said}",
                    node.address,
                    node.process.child.try_wait()
                );
            }
        }
    }
}

/// What a link recorded at the median, out and back.
pub fn recorded(link: &Link) -> i64 {
    let of = |way: &LinkDirection| way.median().expect("bytes went through").signed().0;
    of(&link.forward) + of(&link.back)
}

/// A probe of `count` blocks through `chain`, `disturbed` as soon as C has got the first half of
/// them: the baseline, with the few blocks before it that warm up.
#[track_caller]
pub fn half_disturbed(
    chain: &Chain,
    (count, interval): (u64, Duration),
    disturb: impl FnOnce(),
) -> Report {
    let entry = chain.entry();
    let (blocks, seconds) = (count.to_string(), interval.as_secs_f64().to_string());
    let to_c = &chain.links[1].forward;
    thread::scope(|scope| {
        let run = scope.spawn(|| probe(&entry, &["-c", &blocks, "-i", &seconds]));
        let deadline = Instant::now() + interval * 2 * u32::try_from(count).unwrap() + LONG;
        while to_c.recorded().map_or(0, |seen| seen.count) < count / 2 + 3 {
            assert!(Instant::now() < deadline, "C got no half of the blocks");
            pass(ms(10));
        }
        disturb();
        run.join().unwrap()
    })
}

/// Runs a probe of a node named A, which has to succeed; its report.
#[track_caller]
pub fn probe(entry: &str, args: &[&str]) -> Report {
    let fixed = ["probe", entry, "--node", "A", "--format", "json"];
    let output = run(&[&fixed, args].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    Report::parse(&output.stdout)
}

/// The answered blocks of a probe, as the values of `--format jsonl`.
pub struct Lines(pub Vec<Value>);

/// Runs a probe of a node named A, which has to succeed; its lines.
#[track_caller]
pub fn lines_of(entry: &str, args: &[&str]) -> Lines {
    lines_from(program().args(["probe", entry]).args(args))
}

/// As `lines_of`, for a command that runs a probe.
#[track_caller]
pub fn lines_from(probe: &mut Command) -> Lines {
    let output = probe.args(["--node", "A", "--format", "jsonl"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let values = lines.lines().map(|line| parse(line.as_bytes()).unwrap());
    // The last line is the verdict.
    Lines(
        values
            .filter(|line: &Value| line.at("end").is_none())
            .collect(),
    )
}

impl Lines {
    /// The integers under `key` of the items of a list of line `index`.
    fn members(line: &Value, list: &str, key: &str) -> Vec<i64> {
        let items = line.at(list).and_then(Value::as_array).unwrap();
        let values = items.iter().map(|item| item.at(key).unwrap());
        values.filter_map(Value::as_i64).collect()
    }

    /// Checks that the parts of each line, `count` of them and none negative, add up to its total,
    /// and that no line has a flag.
    #[track_caller]
    pub fn assert_sums(&self, count: usize) {
        for line in &self.0 {
            let total = line.at("total_ns").and_then(Value::as_i64).unwrap();
            let mut parts = Self::members(line, "segments", "round_trip_ns");
            parts.extend(Self::members(line, "hosts", "forward_residence_ns"));
            parts.extend(Self::members(line, "hosts", "return_residence_ns"));
            assert_eq!(parts.len(), count, "{line:?}");
            assert_eq!(parts.iter().sum::<i64>(), total, "{line:?}");
            assert!(parts.iter().all(|part| *part >= 0), "{line:?}");
            let flags = line.at("flags").and_then(Value::as_array).unwrap();
            assert_eq!(flags, [], "{line:?}");
        }
    }

    /// The exact median round trip of each segment.
    pub fn medians(&self) -> Vec<i64> {
        let rows = self
            .0
            .iter()
            .map(|line| Self::members(line, "segments", "round_trip_ns"));
        let rows: Vec<_> = rows.filter(|row| !row.is_empty()).collect();
        let column = |index: usize| rows.iter().map(|row| row[index]).collect();
        (0..rows[0].len())
            .map(|index| median(column(index)))
            .collect()
    }
}

/// A JSON report.
#[derive(Debug)]
pub struct Report(pub Value);

impl Report {
    #[track_caller]
    pub fn parse(bytes: &[u8]) -> Self {
        Self(parse(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes))))
    }

    /// The integer at a path of keys and indexes.
    #[track_caller]
    pub fn int(&self, path: &str) -> i64 {
        let value = self.0.at(path).and_then(Value::as_i64);
        value.unwrap_or_else(|| panic!("no integer at {path} in {:?}", self.0.at(path)))
    }

    #[track_caller]
    pub fn text(&self, path: &str) -> &str {
        let value = self.0.at(path).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no text at {path} in {:?}", self.0.at(path)))
    }

    /// The sentences beside the figures.
    pub fn notices(&self) -> Vec<&str> {
        let notices = self.0.at("notices").and_then(Value::as_array);
        let texts = notices.into_iter().flatten();
        texts.filter_map(Value::as_str).collect()
    }
}

/// The middle one.
pub fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// A witness of its own for how busy the machine is: how late a thread is woken up.
struct Witness {
    stop: Sender<()>,
    watch: JoinHandle<Vec<Duration>>,
}

impl Witness {
    fn start() -> Self {
        let (stop, stopped) = channel();
        let watch = thread::spawn(move || {
            let mut late = Vec::new();
            loop {
                let begun = Instant::now();
                if stopped.recv_timeout(ms(4)) != Err(RecvTimeoutError::Timeout) {
                    return late;
                }
                late.push(begun.elapsed().saturating_sub(ms(4)));
            }
        });
        Self { stop, watch }
    }

    /// How late `per_mille` of the wake-ups were, at most.
    fn lateness(self, per_mille: usize) -> Duration {
        drop(self.stop);
        let mut late = self.watch.join().unwrap();
        late.sort_unstable();
        late[late.len() * per_mille / 1000]
    }
}

/// Later than this, one time in fifty, and a run was disturbed: something else had the processor.
/// (An eighth of a run's 200 blocks has its p95 spoilt by two late ones.) Idle, it is half of that.
const BUSY: Duration = Duration::from_micros(300);

/// For so long the tests of this program repeat disturbed runs, all together: a machine that has
/// not been quiet until then is not going to be.
const PATIENCE: Duration = Duration::from_secs(300);

/// Repeats `run` until a witness calls it undisturbed; what a disturbed one gave goes to `forget`.
/// `None` where the machine never was quiet, see [`judged`].
#[track_caller]
pub fn undisturbed<T>(run: impl FnMut() -> T, forget: impl FnMut(T)) -> Option<T> {
    undisturbed_by((980, BUSY), run, forget)
}

/// As `undisturbed`, where so many in a thousand of the wake-ups have to be less late than a limit.
#[track_caller]
pub fn undisturbed_by<T>(
    (per_mille, limit): (usize, Duration),
    mut run: impl FnMut() -> T,
    mut forget: impl FnMut(T),
) -> Option<T> {
    static SPENT: Mutex<Duration> = Mutex::new(Duration::ZERO);
    for attempt in 1.. {
        let begun = Instant::now();
        let witness = Witness::start();
        let outcome = run();
        let late = witness.lateness(per_mille);
        if late < limit {
            return Some(outcome);
        }
        eprintln!("disturbed: wake-ups are late by {late:?}");
        forget(outcome);
        let mut spent = SPENT.lock().unwrap();
        *spent += begun.elapsed();
        // The tests that come after one that was given up have a few tries left.
        if *spent > PATIENCE && attempt >= 5 {
            break;
        }
    }
    None
}

/// A test of figures that only a quiet machine gives. Where it never was quiet, nothing was
/// measured that could be right or wrong: that is printed past the capture of libtest, and
/// `scripts/check` repeats it at its end.
pub fn judged(test: impl FnOnce() -> Option<()>) {
    if test().is_none() {
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        let line = format!("NOT JUDGED, the machine is too busy: {name}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

/// A TCP forwarder to its targets in turn, which reports returned bytes and can be cut.
pub struct Switch {
    pub address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
    passed: Receiver<()>,
}

impl Switch {
    pub fn start(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(Vec::new()));
        let (say, passed) = channel();
        let keep = Arc::clone(&open);
        thread::spawn(move || {
            for target in targets.iter().cycle() {
                let Ok((near, _)) = listener.accept() else {
                    return;
                };
                let far = TcpStream::connect(target).unwrap();
                for socket in [&near, &far] {
                    socket.set_nodelay(true).unwrap();
                    keep.lock().unwrap().push(socket.try_clone().unwrap());
                }
                copy(near.try_clone().unwrap(), far.try_clone().unwrap(), None);
                copy(far, near, Some(say.clone()));
            }
        });
        Self {
            address,
            open,
            passed,
        }
    }

    /// Waits until `count` chunks more have come back.
    #[track_caller]
    pub fn wait(&self, count: usize) {
        self.passed.try_iter().for_each(drop);
        for _ in 0..count {
            self.passed.recv_timeout(LONG).expect("bytes come back");
        }
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for socket in self.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both); // It may be gone already.
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, passed: Option<Sender<()>>) {
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
            if let Some(passed) = &passed {
                let _ = passed.send(()); // The test may have ended.
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
