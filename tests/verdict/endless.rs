//! Runs without end, over simulated minutes: bursts are never a verdict, and a rise that lasts is
//! one until it is over.

use crate::recorded::Replay;
use crate::row;
use crate::simulator::{Random, SimPath, MS};
use std::sync::Arc;
use subsegment_tcp_speeds::measure::change::{BootClock, When};
use subsegment_tcp_speeds::measure::{Baseline, Model, RunHistories, Verdict, VerdictKind};
use subsegment_tcp_speeds::time::{MonoTime, Nanos, Now, WallTime};
use subsegment_tcp_speeds::vec_map::VecMap;

const WINDOW: Nanos = Nanos::from_millis(10_000);
const BLOCKS_A_SECOND: u64 = 20;
const CLOCK: BootClock = BootClock {
    boot: 7,
    ahead: Nanos(0),
};
/// The wall clock at the monotonic clock's 0: a Tuesday.
const START: u64 = 1_700_000_000_000_000_000;

/// A probe without end, with windows of 10 s and a state.
struct Endless {
    path: SimPath,
    model: Model,
    state: Arc<RunHistories>,
    random: Random,
    names: VecMap<u8, String>,
    window: Nanos,
    block: u64,
    /// The first block of the process, from which its windows count.
    first: u64,
}

impl Endless {
    fn new(seed: u64) -> Self {
        let mut path = SimPath::new(4, seed);
        path.arrivals = true;
        path.interval_ns = 1e9 / BLOCKS_A_SECOND as f64;
        path.noise_ns = 0.03 * MS;
        path.delays_ns = vec![[3.0 * MS; 2], [15.0 * MS; 2], [3.0 * MS; 2]];
        Self {
            path,
            model: Self::model(&Arc::default()),
            state: Arc::default(),
            random: Random::new(seed ^ 0x51),
            names: (0..).zip(["A", "B", "C", "Z"].map(str::to_owned)).collect(),
            window: WINDOW,
            block: 0,
            first: 0,
        }
    }

    fn model(state: &Arc<RunHistories>) -> Model {
        let span = Some(Nanos::from_millis(30_000));
        Model::new(
            Baseline::Earlier(Arc::clone(state), CLOCK),
            span,
            WallTime(START),
        )
    }

    /// The process is killed and started again, with the state as its file has it.
    fn restart(&mut self) {
        let text = Arc::make_mut(&mut self.state).text();
        self.state = Arc::new(RunHistories::parse(&text).expect("own text").state);
        self.model = Self::model(&self.state);
        self.first = self.block;
    }

    fn now(&self) -> Now {
        let mono = MonoTime(self.path.at(self.block) as u64);
        let wall = WallTime(START + mono.0);
        Now { wall, mono }
    }

    /// Sends a block. A share `lateness` of the blocks meets a wake-up 5 to 30 ms late, in both
    /// directions of a host or in the network.
    fn block(&mut self, lateness: f64) {
        let late = |random: &mut Random| {
            let is_late = random.unit() < lateness;
            if is_late {
                (5.0 + 25.0 * random.unit()) * MS
            } else {
                0.0
            }
        };
        for place in 0..4 {
            for way in 0..2 {
                let usual = 0.02 * MS * self.random.exponential();
                self.path.nodes[place].wake_up_ns[way] = usual;
                self.path.nodes[place].residence_ns[way] = 0.01 * MS + 0.2 * usual;
            }
        }
        let hop = self.random.below(4) as usize;
        let way = self.random.below(2) as usize;
        match self.random.below(3) {
            0 => self.path.nodes[hop].residence_ns[way] += late(&mut self.random),
            _ => self.path.nodes[hop].wake_up_ns[way] += late(&mut self.random),
        }
        let trip = self.path.trip(self.block);
        self.model.record(&trip).unwrap();
        self.block += 1;
    }

    /// A second of blocks, then the search and, every 10 s, the end of a window. Returns the
    /// verdict every third second, since it takes a search more.
    fn second(&mut self, lateness: f64) -> Option<Verdict> {
        self.unsearched_second(lateness);
        let is_third = self.block / BLOCKS_A_SECOND % 3 == 0;
        self.model.watch_changes(&self.names);
        is_third.then(|| self.model.statistics(&self.names, self.now()).verdict)
    }

    /// A second of blocks, and after a search the end of the window that is over.
    fn unsearched_second(&mut self, lateness: f64) {
        let measured = self.block - self.first;
        if measured > 0 && measured % (10 * BLOCKS_A_SECOND) == 0 {
            self.model.end_window();
            let when = CLOCK.when(self.now()).before(WINDOW);
            self.push(when);
        }
        for _ in 0..BLOCKS_A_SECOND {
            self.block(lateness);
        }
    }

    fn push(&mut self, when: When) {
        let key = self.model.path_key(&self.names).unwrap();
        let window = self.window;
        let mut record = self.model.window_record(when, window).unwrap();
        let state = Arc::make_mut(&mut self.state);
        record.sequence = state.next_sequence();
        state.push(&key, record);
        let baseline = Baseline::Earlier(Arc::clone(&self.state), CLOCK);
        self.model.set_baseline(baseline);
    }
}

/// Minutes of a real path's noise, quiet and loaded by turns, with nothing changed: each name that
/// was given is false. Blocks are `interval_ms` apart, windows of 200 blocks.
fn names_of_replayed(
    seed: u64,
    blocks: u64,
    interval_ms: f64,
    load: (usize, usize),
) -> Vec<String> {
    let mut run = Endless::new(seed);
    run.path.interval_ns = interval_ms * MS;
    run.path.noise_ns = 0.0;
    let mut random = crate::random::Random::new(seed);
    let mut replay = Replay::new(load);
    let (mut names, mut is_named) = (Vec::new(), false);
    for block in 0..blocks {
        let [segments @ .., a, b, c, z] = replay.block(&mut random);
        for (delays, ms) in run.path.delays_ns.iter_mut().zip(segments) {
            *delays = [ms / 2.0 * MS; 2];
        }
        for (node, ms) in run.path.nodes.iter_mut().zip([a, b, c, z]) {
            node.residence_ns = [0.0; 2];
            node.wake_up_ns = [ms / 2.0 * MS; 2];
        }
        let trip = run.path.trip(run.block);
        run.model.record(&trip).unwrap();
        run.block += 1;
        if block % 200 == 199 {
            run.model.end_window();
            if interval_ms < 1000.0 {
                run.push(CLOCK.when(run.now()).before(WINDOW));
            }
        }
        let search_every = if interval_ms > 1000.0 {
            8
        } else {
            BLOCKS_A_SECOND
        };
        if block % search_every != 0 {
            continue;
        }
        run.model.watch_changes(&run.names);
        if block % (3 * search_every) != 0 {
            continue;
        }
        let verdict = run.model.statistics(&run.names, run.now()).verdict;
        let named = verdict.kind != VerdictKind::None;
        if named && !is_named {
            let (text, loaded) = (verdict.text, replay.is_loaded());
            names.push(format!("block {block}, loaded {loaded}: {text}"));
        }
        is_named = named;
    }
    names
}

/// Half an hour each, and a day of blocks 10 s apart.
pub(crate) fn replayed() {
    row!("## A real path's noise, replayed without end, quiet and loaded by turns: false names");
    let minutes = 30 * 60 * BLOCKS_A_SECOND;
    for (what, blocks, interval_ms, load) in [
        ("30 minutes, load for 2 to 30 s", minutes, 50.0, (40, 600)),
        (
            "30 minutes, load for 1 to 5 minutes",
            minutes,
            50.0,
            (1200, 6000),
        ),
        (
            "a day of blocks 10 s apart, load for 1 to 10 minutes",
            8640,
            10_000.0,
            (6, 60),
        ),
        (
            "a day of blocks 10 s apart, load for hours",
            8640,
            10_000.0,
            (360, 1400),
        ),
    ] {
        let seed: u64 = std::env::var("STS_SEED").map_or(700, |seed| seed.parse().unwrap());
        let runs = (0..4).map(|run| names_of_replayed(seed + run, blocks, interval_ms, load));
        let names: Vec<String> = runs.flatten().collect();
        row!("{what}: {} false names in 4 runs", names.len());
        for name in names.iter().take(6) {
            row!("    {name}");
        }
    }
}

/// Returns the wrong answers of a run. A third of it is healthy, half has +3 ms on B -> C with a
/// restart in between, the rest is healthy. One wake-up in a hundred is 5 to 30 ms late. With
/// `load` a tenth to half of them are, for up to 10 s at a time.
fn wrong_answers(seed: u64, minutes: u64, load: bool) -> Vec<String> {
    let (from, to) = (minutes * 20, minutes * 50);
    // A restarted run knows the rise by its state, which needs more windows than a short run has.
    let restarts = minutes >= 30;
    let killed = if restarts { from + (to - from) / 3 } else { to };
    let mut run = Endless::new(seed);
    let mut wrong = Vec::new();
    let (mut loaded, mut lateness) = (0, 0.01);
    for second in 0..minutes * 60 {
        let slow = (from..to).contains(&second);
        run.path.delays_ns[1][0] = if slow { 18.0 * MS } else { 15.0 * MS };
        if restarts && second == killed {
            run.restart();
        }
        loaded = match loaded {
            0 if load && run.random.below(60) == 0 => {
                lateness = 0.1 + 0.4 * run.random.unit();
                1 + run.random.below(10)
            }
            loaded => loaded.saturating_sub(1),
        };
        let Some(verdict) = run.second(if loaded > 0 { lateness } else { 0.01 }) else {
            continue;
        };
        // A restarted run knows of the rise by its windows: three of them name it.
        let known = (from + 10..killed).contains(&second) || (killed + 35..to).contains(&second);
        let over = second < from || second > to + 40;
        let since = verdict.since.map(|at| (at.0 - START) as f64 / 1e9 - 1.0);
        let off = since.map_or(f64::INFINITY, |since| (since - from as f64).abs());
        let nearest = if second < killed { 1.0 } else { 10.0 };
        let is_wrong = match known {
            true => verdict.name != "B -> C" || off > nearest,
            false => over && verdict.kind != VerdictKind::None,
        };
        if is_wrong {
            wrong.push(format!(
                "second {second}, since {since:?}: {}",
                verdict.text
            ));
        }
    }
    wrong
}

/// A rise of 3 ms begins `into` seconds into a window, and the process is killed `windows` windows
/// later, with what it measured since the latest window ended. Returns the wrong answers: a rise
/// that a record holds stands at once, any other within 3 windows; until it is over.
fn wrong_after_restart(seed: u64, into: u64, windows: u64) -> Vec<String> {
    let from = 300 + into;
    let killed = from + 10 * windows;
    // The latest window that ended holds what it named by then: after 8 s.
    let held = killed / 10 * 10 >= from + 9;
    let known_at = if held { killed + 3 } else { killed + 32 };
    let over = killed + 70;
    let mut run = Endless::new(seed);
    let mut wrong = Vec::new();
    for second in 0..over + 60 {
        let slow = (from..over).contains(&second);
        run.path.delays_ns[1][0] = if slow { 18.0 * MS } else { 15.0 * MS };
        if second == killed {
            run.restart();
        }
        if second < from.saturating_sub(10) {
            run.unsearched_second(0.01);
            continue;
        }
        let Some(verdict) = run.second(0.01) else {
            continue;
        };
        let since = verdict.since.map(|at| (at.0 - START) as f64 / 1e9 - 1.0);
        let off = since.map_or(f64::INFINITY, |since| (since - from as f64).abs());
        let is_wrong = if (known_at..over).contains(&second) {
            verdict.name != "B -> C" || off > 10.0
        } else if second < from || second > over + 40 {
            verdict.kind != VerdictKind::None
        } else {
            false
        };
        if is_wrong {
            wrong.push(format!("at {second}, since {since:?}: {}", verdict.text));
        }
    }
    let of = |wrong| format!("seed {seed}, {into} s into a window, killed at {killed}: {wrong}");
    wrong.into_iter().map(of).collect()
}

#[test]
fn a_rise_stands_after_a_restart_a_few_windows_into_it() {
    for (windows, into) in [(1, 5), (2, 0), (4, 3)] {
        let wrong = wrong_after_restart(40 + windows, into, windows);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// Restarts soon after a rise, each twenty times.
pub(crate) fn restarts() {
    row!(
        "## Killed and started again 1 to 6 windows of 10 s after +3 ms, 20 runs each: right in \
         all answers (a rise that a record holds stands at once, another within 3 windows)"
    );
    for windows in 1..=6 {
        let runs =
            (0..20).map(|run| wrong_after_restart(400 + 20 * windows + run, run % 10, windows));
        let runs: Vec<Vec<String>> = runs.collect();
        let right = runs.iter().filter(|wrong| wrong.is_empty()).count();
        let example = runs.iter().flatten().next().map_or("", |wrong| wrong);
        row!("{windows} windows: {right} of 20 right {example}");
    }
}

/// The time of one search, of the latest blocks of a run without end.
pub(crate) fn cost() {
    for (what, lateness, slow) in [
        ("unchanged", 0.01, false),
        ("one in five late", 0.2, false),
        ("+3 ms half way on", 0.01, true),
    ] {
        let mut run = Endless::new(1);
        for block in 0..3000 {
            run.path.delays_ns[1][0] = if slow && block >= 2250 { 18.0 } else { 15.0 } * MS;
            run.block(if block >= 2250 { lateness } else { 0.01 });
        }
        let mut taken = std::time::Duration::ZERO;
        for _ in 0..20 {
            run.block(lateness);
            let start = std::time::Instant::now();
            run.model.watch_changes(&run.names);
            taken += start.elapsed();
        }
        let each = taken.as_secs_f64() * 1e6 / 20.0;
        row!("cost, one search of an endless run of 7 parts, {what}: {each:.0} microseconds");
    }
}

/// Memory of this process that is in use, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse().unwrap()
}

/// Memory after weeks of a path of 5 nodes, a block each 10 s, in windows of 5 minutes.
pub(crate) fn memory() {
    row!(
        "## Four weeks of a path of 5 nodes, windows of 5 minutes, a block each 10 s: KiB of rows, \
         of records and usual hours, of the state as text, and of the process beyond its first hour"
    );
    let mut run = Endless::new(5);
    run.path = SimPath::new(5, 5);
    run.path.arrivals = true;
    run.path.interval_ns = 10_000.0 * MS;
    let names = ["A", "B", "C", "D", "Z"].map(str::to_owned);
    run.names = (0..).zip(names).collect();
    run.window = Nanos::from_millis(300_000);
    let mut first_hour = 0;
    for window in 1..=28 * 288 {
        for _ in 0..30 {
            run.model.record(&run.path.trip(run.block)).unwrap();
            run.block += 1;
        }
        run.model.end_window();
        run.push(CLOCK.when(run.now()).before(run.window));
        if window % 12 == 0 {
            run.model.watch_changes(&run.names);
        }
        if window == 12 {
            first_hour = resident();
        }
        if window % (7 * 288) == 0 {
            let rows = run.model.memory() >> 10;
            let records = run.state.memory() >> 10;
            let text = Arc::make_mut(&mut run.state).text().len() >> 10;
            let process = resident() - first_hour;
            row!(
                "after {} weeks: rows {rows}, records {records}, text {text}, process {process}",
                window / 2016
            );
        }
    }
}

/// Half an hour each: answers each third second that were wrong.
pub(crate) fn bursts() {
    row!(
        "## Runs without end, 30 minutes, 20 blocks a second: answers (one in 3 s) that were wrong"
    );
    for load in [false, true] {
        for seed in 10..14 {
            let wrong = wrong_answers(seed, 30, load);
            let example = wrong.first().map_or("", |wrong| wrong);
            let with = if load { "with bursts of load" } else { "quiet" };
            row!(
                "seed {seed}, {with}: {} of 600 wrong {example}",
                wrong.len()
            );
        }
    }
}

#[test]
fn bursts_are_never_the_verdict_of_a_run_without_end() {
    let wrong = wrong_answers(10, 3, true);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Blocks 10 s apart, in windows of 5 minutes: a week without a change, of which each level that
/// was named is false, then +3 ms on B -> C. Returns those names, and the blocks until it is named.
fn a_week_of_few_blocks(seed: u64, noise: f64, outliers: f64) -> (Vec<String>, Option<u64>) {
    const WEEK: u64 = 7 * 8640;
    let mut run = Endless::new(seed);
    run.path.interval_ns = 10_000.0 * MS;
    run.path.noise_ns = noise * MS;
    let mut is_named = false;
    let mut names = Vec::new();
    for block in 0..WEEK + 100 {
        let slow = block >= WEEK;
        run.path.delays_ns[1][0] = if slow { 18.0 * MS } else { 15.0 * MS };
        run.block(outliers);
        if block % 30 == 29 {
            run.model.end_window();
        }
        // Only when it searches can it name anything; after the change each block counts.
        if slow || block % 8 == 0 {
            run.model.watch_changes(&run.names);
            let verdict = run.model.statistics(&run.names, run.now()).verdict;
            let named = verdict.kind != VerdictKind::None;
            if slow && verdict.name == "B -> C" {
                return (names, Some(block + 1 - WEEK));
            }
            if named && !is_named {
                names.push(format!(
                    "{} at block {block}: {}",
                    verdict.name, verdict.text
                ));
            }
            is_named = named;
        }
    }
    (names, None)
}

pub(crate) fn seldom() {
    row!(
        "## A week of blocks 10 s apart: false verdicts, then +3 ms named after how many blocks \
         (20 asked)"
    );
    for (noise, outliers) in [(0.03, 0.01), (0.1, 0.01), (0.3, 0.01), (0.03, 0.05)] {
        let weeks: Vec<_> = (0..2)
            .map(|seed| a_week_of_few_blocks(300 + seed, noise, outliers))
            .collect();
        let falsely: Vec<&String> = weeks.iter().flat_map(|(names, _)| names).collect();
        let after: Vec<_> = weeks.iter().map(|(_, after)| after.unwrap_or(0)).collect();
        row!(
            "noise {noise} ms, {:.0} % late: {} false in 2 weeks, named after {after:?} {}",
            100.0 * outliers,
            falsely.len(),
            falsely.first().map_or("", |name| name)
        );
    }
}
