//! One fault: nodes, a witness that passes through them all the while, and measurements before and
//! after.

use crate::faces::framed::{complaints, Witness};
use crate::faces::Random;
use crate::util::vitals::{cpu, wait_started, Vitals};
use crate::util::{is_traced, pass, Node, LONG};
use std::any::Any;
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::cli::PROGRAM;

/// What memory may grow by from the end of the first time to the end of the last, in KiB: what
/// malloc keeps differs by how many threads happened to be there at once, on a busy machine above
/// all.
const TOLERANCE_KIB: u64 = 384;
/// What it may keep of the first time.
const FIRST_KIB: u64 = 1024;
/// A series of rounds after which memory has grown by more is played again, so often in all: a leak
/// grows by as much each time, what malloc keeps does not.
const SERIES: usize = 3;
/// Lines about one peer and kind that a node logs without a pause; it counts the rest.
const LOGGED_AT_ONCE: usize = 5;
/// Time on the processor in the idle second after a fault, a last search for changes in it.
const IDLE: Duration = Duration::from_millis(50);

/// A fault that waits for its turn: what it is called, and what runs it.
pub(crate) type Play = (&'static str, Box<dyn FnOnce() -> Vec<Row> + Send>);

pub(crate) fn play(
    what: &'static str,
    run: impl FnOnce(&'static str) -> Vec<Row> + Send + 'static,
) -> Play {
    (what, Box::new(move || run(what)))
}

/// Lines that a node has to log: how often in each round, and a part of each.
pub(crate) type Expected = (RangeInclusive<usize>, String);

/// A node that is watched.
pub(crate) struct Subject {
    pub(crate) role: &'static str,
    pub(crate) node: Node,
    pub(crate) expects: Vec<Expected>,
    /// Its exit when it is stopped.
    pub(crate) code: i32,
}

impl Subject {
    pub(crate) fn new(role: &'static str, node: Node) -> Self {
        wait_started(node.process.child.id());
        Self {
            role,
            node,
            expects: Vec::new(),
            code: 0,
        }
    }

    /// It logs `part` once in each round.
    pub(crate) fn expects(self, part: impl Into<String>) -> Self {
        self.expects_times(1..=1, part)
    }

    pub(crate) fn expects_times(
        mut self,
        times: RangeInclusive<usize>,
        part: impl Into<String>,
    ) -> Self {
        self.expects.push((times, part.into()));
        self
    }

    fn vitals(&self) -> Vitals {
        Vitals::of(self.node.process.child.id()).expect("it runs")
    }
}

/// A row of the matrix.
#[derive(Default)]
pub(crate) struct Row {
    what: String,
    asked: usize,
    slowest: Duration,
    /// Before the first round, after it, and after the last.
    vitals: [Vitals; 3],
    idle: Duration,
    lines: usize,
    line: String,
    wrong: Vec<String>,
}

impl Row {
    pub(crate) const HEADING: &'static str =
        "role: fault | witness: answered, slowest ms | KiB before, after the 1st, \
         after the last | threads | fds | \
         CPU ms in the idle second | log";

    /// A row whose play did not come to its end.
    pub(crate) fn broken(what: &str, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Self {
            what: what.into(),
            wrong: vec![text.unwrap_or("it panicked").into()],
            ..Self::default()
        }
    }

    pub(crate) fn wrong(&self) -> impl Iterator<Item = String> + '_ {
        self.wrong
            .iter()
            .map(|wrong| format!("{}: {wrong}", self.what))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [fresh, first, last] = &self.vitals;
        write!(
            f,
            "{} | {}, {} | {} {} {} | {} {} | {} {} | {} | {} x {}{}",
            self.what,
            self.asked,
            self.slowest.as_millis(),
            fresh.memory_kib,
            first.memory_kib,
            last.memory_kib,
            fresh.threads,
            last.threads,
            fresh.descriptors,
            last.descriptors,
            self.idle.as_millis(),
            self.lines,
            self.line,
            if self.wrong.is_empty() {
                ""
            } else {
                " | WRONG"
            },
        )
    }
}

pub(crate) struct Scene {
    pub(crate) what: &'static str,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) witness: Witness,
    /// How often the fault happens, beyond the first time.
    pub(crate) rounds: usize,
    /// What memory may keep of the first round.
    pub(crate) first_kib: u64,
    /// What it may grow by after that.
    pub(crate) tolerance_kib: u64,
}

impl Scene {
    pub(crate) fn new(what: &'static str, witness: Witness, subjects: Vec<Subject>) -> Self {
        Self {
            what,
            subjects,
            witness,
            rounds: 4,
            first_kib: FIRST_KIB,
            tolerance_kib: TOLERANCE_KIB,
        }
    }

    /// Lets `fault` happen once, and then so many rounds more, given their number.
    pub(crate) fn suffers(self, mut fault: impl FnMut(usize)) -> Vec<Row> {
        let mut subjects = self.subjects;
        let fresh: Vec<_> = subjects.iter().map(Subject::vitals).collect();
        let (stop, stopped) = channel::<()>();
        let mut witness = self.witness;
        let requests = thread::spawn(move || {
            let mut random = Random::new(7);
            let (mut asked, mut slowest, mut wrong) = (0, Duration::ZERO, None);
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                let mut payload = vec![0; 1 + random.below(3000)];
                random.fill(&mut payload);
                let begun = Instant::now();
                if !witness.is_answered(&payload) {
                    wrong = Some(format!("the witness was not answered after {asked} times"));
                    break;
                }
                slowest = slowest.max(begun.elapsed());
                asked += 1;
            }
            (witness, asked, slowest, wrong)
        });
        let all_settled = || -> Vec<_> {
            let each = subjects.iter().zip(&fresh);
            each.map(|(subject, before)| settled(subject, before))
                .collect()
        };
        let played = catch_unwind(AssertUnwindSafe(|| {
            fault(0);
            let mut first = all_settled();
            let mut series = 0;
            loop {
                for round in 1..=self.rounds {
                    fault(round);
                }
                let last = all_settled();
                series += 1;
                let mut grown = first.iter().zip(&last);
                let too_much = |(first, last): (&Vitals, &Vitals)| {
                    last.memory_kib > first.memory_kib + self.tolerance_kib
                };
                if series == SERIES || !grown.any(too_much) {
                    return (first, last, series);
                }
                first = last;
            }
        }));
        let (first, last, series) = played.unwrap_or_else(|panic| {
            for subject in &mut subjects {
                let (logged, status) = (
                    subject.node.process.stderr(),
                    subject.node.process.child.try_wait(),
                );
                let last = &logged[logged.len().saturating_sub(20)..];
                eprintln!("{}: {}: {status:?}, {last:#?}", subject.role, self.what);
            }
            resume_unwind(panic)
        });
        drop(stop);
        let (mut witness, asked, slowest, unanswered) = requests.join().unwrap();
        let before: Vec<_> = subjects.iter().map(of_cpu).collect();
        pass(Duration::from_secs(1));
        let after: Vec<_> = subjects.iter().map(of_cpu).collect();
        let mut unharmed = unanswered;
        if unharmed.is_none() && !witness.is_answered(b"afterwards") {
            unharmed = Some("the witness is not answered afterwards".into());
        }
        if unharmed.is_none() {
            witness.leaves();
        }
        let mut rows = Vec::new();
        for (at, subject) in subjects.iter_mut().enumerate() {
            let mut row = Row {
                what: format!("{}: {}", subject.role, self.what),
                asked,
                slowest,
                vitals: [fresh[at], first[at], last[at]],
                idle: after[at] - before[at],
                ..Row::default()
            };
            row.wrong.extend(unharmed.clone());
            row.check(self.first_kib, self.tolerance_kib);
            row.listen(subject, self.rounds * series + 1);
            rows.push(row);
        }
        rows
    }
}

fn of_cpu(subject: &Subject) -> Duration {
    cpu(subject.node.process.child.id()).expect("it runs")
}

/// Waits until threads and descriptors are as many as before, or for long; then reads the memory.
fn settled(subject: &Subject, before: &Vitals) -> Vitals {
    // One tracer stops for the end of each of 4000 threads: that took 38 s.
    let patience = if is_traced() { LONG * 2 } else { LONG / 3 };
    let deadline = Instant::now() + patience;
    loop {
        let now = subject.vitals();
        let back = now.threads <= before.threads && now.descriptors <= before.descriptors;
        if back || Instant::now() > deadline {
            return now;
        }
        pass(Duration::from_millis(5));
    }
}

impl Row {
    fn check(&mut self, first_kib: u64, tolerance_kib: u64) {
        let [fresh, first, last] = self.vitals;
        if (last.threads, last.descriptors) != (fresh.threads, fresh.descriptors) {
            self.wrong
                .push(format!("left behind: {fresh:?} became {last:?}"));
        }
        if last.memory_kib > first.memory_kib + tolerance_kib
            || first.memory_kib.min(last.memory_kib) > fresh.memory_kib + first_kib
        {
            self.wrong.push(format!(
                "memory grew from {} by way of {} to {} KiB (allowed: {first_kib} \
                 and {tolerance_kib})",
                fresh.memory_kib, first.memory_kib, last.memory_kib
            ));
        }
        if self.idle > IDLE {
            self.wrong
                .push(format!("{:?} of CPU time in an idle second", self.idle));
        }
    }

    /// Ends the node, and checks its log.
    fn listen(&mut self, subject: &mut Subject, rounds: usize) {
        let process = &mut subject.node.process;
        let (status, _) = process.stop();
        if status.code() != Some(subject.code) {
            self.wrong.push(format!("it ended with {status}"));
        }
        let stderr = process.stderr();
        if let Some(panic) = stderr.iter().find(|line| line.contains("panicked")) {
            self.wrong.push(panic.clone());
        }
        let mut logged = complaints(&stderr);
        let own = stderr.iter().filter_map(|line| line.strip_prefix(PROGRAM));
        logged.extend(own.filter(|line| !line.contains(": listening on ")));
        self.lines = logged.len();
        self.line = logged.last().map_or("-", |line| *line).into();
        let mut explained = 0;
        for (times, part) in &subject.expects {
            let count = logged.iter().filter(|line| line.contains(part)).count();
            explained += count;
            // Parts of one kind share its bound.
            let least = (times.start() * rounds).min(1);
            if !(least..=times.end() * rounds).contains(&count) {
                self.wrong.push(format!(
                    "{part:?} was logged {count} times in {rounds} rounds, not {times:?} in each"
                ));
            }
        }
        let due: usize = subject.expects.iter().map(|(times, _)| times.start()).sum();
        if explained < (due * rounds).min(LOGGED_AT_ONCE) {
            self.wrong.push(format!(
                "{explained} lines were logged of {due} in each of {rounds} rounds"
            ));
        }
        if explained != logged.len() {
            let other = logged
                .iter()
                .find(|line| subject.expects.iter().all(|(_, part)| !line.contains(part)));
            self.wrong.push(format!(
                "{explained} of {} lines were expected, not {other:?}",
                logged.len()
            ));
        }
    }
}
