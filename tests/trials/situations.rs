//! The situations, each on a path of its own.

use crate::path::TestPath;
use crate::util::{json, text, Dir, Process};
use crate::Outcome;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::util::json::Value;

/// Name, usual count of trials, and the situation; a trial gets its number.
pub(crate) type Situation = (&'static str, usize, fn(usize) -> Outcome);

const CHANGES: &[Situation] = &[
    ("step-10", 20, |_| step(0.1)),
    ("step-30", 20, |_| step(0.3)),
    ("step-50", 20, |_| step(0.5)),
    ("step-70", 20, |_| step(0.7)),
    ("step-90", 20, |_| step(0.9)),
    ("unchanged", 20, |_| unchanged()),
    ("steady", 5, |_| steady()),
    ("two-changes", 20, |_| two_changes()),
    ("small-change", 20, |_| small_change()),
    ("stopped-host", 20, |_| stopped_host()),
    ("behind", 5, |_| behind()),
    ("down", 5, |_| down()),
    ("loss", 20, loss),
];

/// All situations.
pub(crate) fn all() -> Vec<Situation> {
    let rooms = [
        CHANGES,
        crate::runs::ALL,
        crate::traffic::ALL,
        crate::figures::ALL,
        crate::clocks::ALL,
        crate::lasting::ALL,
    ];
    rooms.concat()
}

/// The program under test.
pub(crate) fn program() -> String {
    let own = env!("CARGO_BIN_EXE_subsegment-tcp-speeds");
    std::env::var("STS_PROGRAM").unwrap_or_else(|_| own.to_owned())
}

const NAMES: [&str; 4] = ["A", "B", "C", "Z"];

pub(crate) fn ms(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1000.0)
}

/// A path A -> B -> C -> Z whose segments have these round trips, in milliseconds, with a node at
/// each end but A's.
pub(crate) struct Chain {
    /// Dropped before the path, which another trial may get.
    pub(crate) nodes: Vec<Process>,
    pub(crate) path: TestPath,
}

impl Chain {
    pub(crate) fn new(round_trips: [f64; 3]) -> Self {
        Self::with(round_trips, &[&[], &[], &[]])
    }

    /// With more arguments for B, C and Z.
    pub(crate) fn with(round_trips: [f64; 3], more: &[&[&str]; 3]) -> Self {
        let path = TestPath::new(&round_trips.map(|both| [ms(both / 2.0); 2]));
        let mut chain = Self {
            path,
            nodes: Vec::new(),
        };
        chain.start(|node, command| {
            command.args(more[node - 1]);
        });
        chain
    }

    /// Ends B, C and Z and starts them anew, as `prepare` has it.
    pub(crate) fn restart(&mut self, mut prepare: impl FnMut(&mut Command)) {
        self.nodes.clear();
        self.start(|_, command| prepare(command));
    }

    fn start(&mut self, mut prepare: impl FnMut(usize, &mut Command)) {
        for node in (1..4).rev() {
            let mut command = self.path.command(node, &program());
            command.args(["--node", NAMES[node], "-l", ":9000"]);
            prepare(node, &mut command);
            if node < 3 {
                command.args(["-f", &self.path.address(node + 1)]);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let mut process = Process::start(&mut command);
            process.wait_line(": listening on ");
            self.nodes.push(process);
        }
        self.nodes.reverse();
    }

    /// A probe from A, of which nothing has been said but where it goes.
    pub(crate) fn probe(&self, args: &[&str]) -> Command {
        let mut command = self.path.command(0, &program());
        command.args(["--node", "A", "probe", &self.path.address(1)]);
        command.args(args);
        command.stdin(Stdio::null());
        command
    }

    /// A probe to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = self.probe(args);
        command.args(["--format", "json"]).output().unwrap()
    }

    /// A probe during which something happens after `after`.
    pub(crate) fn run_while(
        &self,
        args: &[&str],
        after: Duration,
        change: impl FnOnce() + Send,
    ) -> Output {
        let mut command = self.probe(args);
        command.args(["--format", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        std::thread::scope(|scope| {
            let probe = command.spawn().unwrap();
            scope.spawn(move || {
                crate::util::pass(after);
                change();
            });
            probe.wait_with_output().unwrap()
        })
    }
}

/// The verdict's sentence, and its kind, name and increase in milliseconds.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) increase_ms: f64,
    pub(crate) report: Value,
}

pub(crate) fn answer(output: &Output) -> Answer {
    if output.stdout.is_empty() {
        panic!("no report: {}", text(&output.stderr));
    }
    answer_of(json(&output.stdout))
}

/// The answer of a report.
pub(crate) fn answer_of(report: Value) -> Answer {
    let string = |at: &str| {
        let value = report.at(at).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let increase = report.at("verdict/increase_ns").and_then(Value::as_i64);
    Answer {
        text: string("verdict/text"),
        kind: string("verdict/kind"),
        name: string("verdict/name"),
        increase_ms: increase.map_or(f64::NAN, |nanos| nanos as f64 / 1e6),
        report,
    }
}

impl Answer {
    pub(crate) fn names(&self, name: &str, low_ms: f64, high_ms: f64) -> Outcome {
        let right = self.name == name && (low_ms..=high_ms).contains(&self.increase_ms);
        self.outcome(right)
    }

    pub(crate) fn outcome(&self, right: bool) -> Outcome {
        Outcome {
            right,
            answer: self.text.clone(),
        }
    }
}

const RUN: [&str; 4] = ["-c", "200", "-i", "0.05"];

/// +8 ms on B -> C from this share of a run of 200 blocks on, without a state.
fn step(share: f64) -> Outcome {
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let output = chain.run_while(&RUN, ms(10_000.0 * share), || {
        chain.path.forward(1).add_delay(ms(8.0));
    });
    answer(&output).names("B -> C", 7.0, 9.0)
}

fn unchanged() -> Outcome {
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let answer = answer(&chain.run(&RUN));
    answer.outcome(answer.kind == "none")
}

/// One segment simply is the slow one: nothing changed, and most of the delay is named.
fn steady() -> Outcome {
    let chain = Chain::new([6.0, 40.0, 7.0]);
    let answer = answer(&chain.run(&["-c", "200", "-i", "0.02"]));
    let largest = answer.report.at("largest/name").and_then(Value::as_str);
    let right = answer.kind == "none" && largest == Some("B -> C");
    answer.outcome(right)
}

/// A -> B +3 ms at a third, B -> C +8 ms at two thirds: both are named, the larger first.
fn two_changes() -> Outcome {
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let output = chain.run_while(&RUN, ms(3_300.0), || {
        chain.path.forward(0).add_delay(ms(3.0));
        crate::util::pass(ms(3_300.0));
        chain.path.forward(1).add_delay(ms(8.0));
    });
    let answer = answer(&output);
    let also = answer.report.at("verdict/also/0/name");
    let right = answer.name == "B -> C" && also.and_then(Value::as_str) == Some("A -> B");
    answer.outcome(right)
}

fn small_change() -> Outcome {
    let chain = Chain::new([6.0, 40.0, 6.0]);
    let output = chain.run_while(&RUN, ms(5_000.0), || {
        chain.path.back(1).add_delay(ms(1.5));
    });
    answer(&output).names("B -> C", 1.0, 2.0)
}

/// C is stopped for 30 of every 80 ms from half way on.
fn stopped_host() -> Outcome {
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let over = std::sync::atomic::AtomicBool::new(false);
    let c = chain.nodes[1].child.id().to_string();
    let output = std::thread::scope(|scope| {
        let over = &over;
        let c = &c;
        scope.spawn(move || {
            crate::util::pass(ms(5_000.0));
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                signal("STOP", c);
                crate::util::pass(ms(30.0));
                signal("CONT", c);
                crate::util::pass(ms(50.0));
            }
        });
        let output = chain.run(&RUN);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        output
    });
    let answer = answer(&output);
    let right = answer.kind == "host" && answer.name == "C";
    answer.outcome(right)
}

/// Z does not stamp, and C -> Z grows by 50 ms: the delay lies behind C.
fn behind() -> Outcome {
    let chain = Chain::with([6.0, 30.0, 6.0], &[&[], &[], &["-n"]]);
    let output = chain.run_while(&RUN, ms(5_000.0), || {
        chain.path.forward(2).add_delay(ms(50.0));
    });
    let answer = answer(&output);
    let right = answer.kind == "behind" && (45.0..55.0).contains(&answer.increase_ms);
    answer.outcome(right)
}

pub(crate) fn signal(name: &str, process: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), process])
        .status();
    assert!(sent.unwrap().success());
}

/// B does not answer.
fn down() -> Outcome {
    let chain = Chain::new([6.0, 30.0, 6.0]);
    chain.nodes[0].signal("STOP");
    let answer = answer(&chain.run(&["-c", "20", "-i", "0.05", "-t", "2"]));
    chain.nodes[0].signal("CONT");
    answer.outcome(answer.kind == "down")
}

/// 2 to 5 % of the frames on B -> C are lost, each way; a state holds 8 healthy runs.
fn loss(trial: usize) -> Outcome {
    let dir = Dir::new(&format!("loss-{trial}"));
    let state = dir.file("state").display().to_string();
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let run = ["-c", "100", "-i", "0.05", "--state", &state];
    for _ in 0..8 {
        chain.run(&run);
    }
    let share = [20, 30, 40, 50][trial % 4];
    chain.path.forward(1).set_loss_per_mille(share);
    chain.path.back(1).set_loss_per_mille(share);
    let answer = answer(&chain.run(&["-c", "200", "-i", "0.05", "--state", &state]));
    let right = answer.name == "B -> C" && answer.text.contains("retransmission");
    answer.outcome(right)
}
