//! Runs against the earlier runs of a state, as cron makes them.

use crate::noise::{in_order, Change, ChangeKind, Jitter, Noise};
use crate::random::Random;
use crate::search::{ms, push};
use crate::{percent, row};
use subsegment_tcp_speeds::measure::change::{FindingKind, Judged, RunFigures, RunHistory, Search};
use subsegment_tcp_speeds::time::WallTime;

/// Runs of one part that differ from each other.
#[derive(Clone, Copy)]
struct Runs {
    noise: Noise,
    blocks: usize,
    /// Standard deviation of the runs' levels.
    apart: f64,
    /// Standard deviation of the logarithm of the runs' shares of outliers.
    rates: f64,
}

const SHORT: Noise = Noise::new(Jitter::Gamma, 0.1, 5.0);
const LONG: Noise = Noise::new(Jitter::Gamma, 0.1, 100.0);

impl Runs {
    /// Pushes one run with `change` and `more` milliseconds on all blocks to `search`.
    fn push(&self, search: &mut Search, random: &mut Random, more: f64, change: Option<Change>) {
        let rate = 0.01 * (self.rates * random.normal()).exp();
        let noise = Noise {
            outliers: rate,
            ..self.noise
        };
        let mut delays = noise.draw(random, self.blocks);
        let level = self.apart * random.normal() + more;
        delays.iter_mut().for_each(|delay| *delay += level);
        let mut flags = vec![false; self.blocks];
        if let Some(change) = change {
            let hits = change.put(random, &mut delays);
            if change.kind == ChangeKind::Loss {
                flags = hits;
            }
        }
        in_order(&mut delays, noise.interval);
        push(search, &delays, &flags, noise.interval);
    }

    fn earlier(&self, search: &mut Search, random: &mut Random, count: usize) -> Vec<RunFigures> {
        let figures = (0..count).filter_map(|_| {
            self.push(search, random, 0.0, None);
            search.run_figures(WallTime(0))
        });
        figures.collect()
    }

    /// Counts those of `rows` runs with 10 own blocks or more that are named, by level and by tail.
    fn named(
        &self,
        earlier: usize,
        rows: usize,
        more: f64,
        change: Option<Change>,
        seed: u64,
    ) -> [usize; 2] {
        let mut random = Random::new(seed);
        let mut search = Search::new(9);
        let (mut counts, mut compared) = ([0; 2], 0);
        while compared < rows {
            let mut runs = Vec::new();
            while runs.len() < earlier {
                let more = earlier - runs.len();
                runs.extend(self.earlier(&mut search, &mut random, more));
            }
            self.push(&mut search, &mut random, more, change);
            let Some(against) = search.against(&runs) else {
                continue;
            };
            compared += 1;
            if let Some(named) = against.named {
                counts[usize::from(named.kind != FindingKind::Level)] += 1;
            }
        }
        counts
    }
}

/// The chance in percent that one of nine parts is named.
fn of_nine(count: usize, rows: usize) -> f64 {
    100.0 * (1.0 - (1.0 - count as f64 / rows as f64).powi(9))
}

pub(crate) fn levels() {
    row!(
        "## One run against earlier ones, level: % named; unchanged: per 100 runs of 9 parts \
        (level, tail)"
    );
    row!(
        "   reference, 6 earlier: unchanged 0; +8 100/100/100, +3 100/100/70, +1 100/68/3 for \
        0.02/0.1/0.3 ms; 20 earlier: +3 100, +1 100/100/10; 3 earlier: unchanged 0 to 0.2"
    );
    for (noise, blocks) in [(SHORT, 40), (LONG, 100)] {
        for apart in [0.02, 0.1, 0.3] {
            for earlier in [3, 6, 8, 20] {
                let runs = Runs {
                    noise,
                    blocks,
                    apart,
                    rates: 0.3,
                };
                let seed = (apart * 1000.0) as u64 + earlier as u64;
                let wrong = runs.named(earlier, 4000, 0.0, None, seed);
                let power = [1.0, 3.0, 8.0].map(|more| {
                    let [level, _] = runs.named(earlier, 600, more, None, seed + 7);
                    format!("+{more} {:5.1}", percent(level, 600))
                });
                row!(
                    "{blocks:3} blocks every {:3} ms, runs apart {apart:4} ms, {earlier:2} \
                        earlier: unchanged {:.2} {:.2}  {}",
                    noise.interval,
                    of_nine(wrong[0], 4000),
                    of_nine(wrong[1], 4000),
                    power.join("  ")
                );
            }
        }
    }
}

pub(crate) fn tails() {
    row!(
        "## One run against earlier ones, late blocks (+30 ms): % named at 3/5/10/20 % of the \
        blocks; unchanged, per 100 runs of 9 parts"
    );
    row!(
        "   reference, 8 earlier, 5/10/20 %: 10/53/96 (100 blocks), 32/87/100 (200), 64/99/100 \
        (400), 91/100/100 (1000); unchanged 0.0 to 0.8"
    );
    for blocks in [100, 200, 400, 1000] {
        for earlier in [6, 8, 20] {
            let runs = Runs {
                noise: LONG,
                blocks,
                apart: 0.1,
                rates: 0.3,
            };
            let seed = (blocks + earlier) as u64;
            let rows = if blocks < 400 { 8000 } else { 3000 };
            let wrong = runs.named(earlier, rows, 0.0, None, seed);
            let power = [0.03, 0.05, 0.1, 0.2].map(|share| {
                let change = Some(Change::add(30.0, share, 0.0));
                let [_, tail] = runs.named(earlier, 400, 0.0, change, seed + 3);
                format!("{:5.1}", percent(tail, 400))
            });
            row!(
                "{blocks:4} blocks, {earlier:2} earlier: {}  unchanged {:.2}",
                power.join(" "),
                of_nine(wrong[1], rows)
            );
        }
        let runs = Runs {
            noise: LONG,
            blocks,
            apart: 0.1,
            rates: 0.3,
        };
        let power = [0.02, 0.05].map(|share| {
            let loss = Change {
                kind: ChangeKind::Loss,
                share,
                start: 0.0,
                end: 1.0,
            };
            let [_, tail] = runs.named(8, 400, 0.0, Some(loss), 4);
            format!("{:5.1}", percent(tail, 400))
        });
        row!(
            "{blocks:4} blocks,  8 earlier, 2/5 % lost, flagged: {}",
            power.join(" ")
        );
    }
}

/// A history of runs every five minutes, as cron makes them.
struct Cron {
    runs: Runs,
    history: RunHistory,
    search: Search,
    random: Random,
    at: u64,
}

impl Cron {
    fn new(runs: Runs, seed: u64) -> Self {
        let at = 1_790_000_000_000_000_000;
        let random = Random::new(seed);
        Self {
            runs,
            history: RunHistory::default(),
            search: Search::new(9),
            random,
            at,
        }
    }

    fn run(&mut self, more: f64, change: Option<Change>) -> Judged {
        self.at += 300 * 1_000_000_000;
        self.runs
            .push(&mut self.search, &mut self.random, more, change);
        // Through the file and back, as between two processes.
        self.history = RunHistory::parse(&self.history.to_string()).expect("own text");
        self.history.judge(&mut self.search, WallTime(self.at))
    }
}

pub(crate) fn sequences() {
    row!("## Cron, runs every 5 minutes: 8 healthy, 30 changed, 10 healthy; 200 parts");
    let lateness = |share| Some(Change::add(30.0, share, 0.0));
    for (name, noise, blocks, more, change) in [
        ("40 x 5 ms, +8 ms", SHORT, 40, 8.0, None),
        ("100 x 100 ms, +8 ms", LONG, 100, 8.0, None),
        ("100 x 100 ms, +1 ms", LONG, 100, 1.0, None),
        ("100 x 100 ms, 20 % +30 ms", LONG, 100, 0.0, lateness(0.2)),
        ("200 x 100 ms, 10 % +30 ms", LONG, 200, 0.0, lateness(0.1)),
    ] {
        let (mut before, mut all, mut named, mut cleared, mut after) = (0, 0, 0, 0, 0);
        for seed in 0..200 {
            let runs = Runs {
                noise,
                blocks,
                apart: 0.1,
                rates: 0.3,
            };
            let mut cron = Cron::new(runs, 900 + seed);
            before += (0..8)
                .filter(|_| cron.run(0.0, None).lasting.is_some())
                .count();
            let hits = (0..30)
                .filter(|_| cron.run(more, change).lasting.is_some())
                .count();
            named += hits;
            all += usize::from(hits == 30);
            cleared += usize::from(cron.run(0.0, None).lasting.is_none());
            after += (0..9)
                .filter(|_| cron.run(0.0, None).lasting.is_some())
                .count();
        }
        row!(
            "{name:28}: healthy named {before} of 1600, changed {:.1} % of runs, all 30 in {:.1} \
                %, cleared by the first healthy run {:.1} %, named later {after} of 1800",
            percent(named, 6000),
            percent(all, 200),
            percent(cleared, 200)
        );
    }
}

#[test]
fn short_runs_of_a_state_are_named_rightly() {
    for (noise, blocks) in [(SHORT, 40), (LONG, 100)] {
        let runs = Runs {
            noise,
            blocks,
            apart: 0.1,
            rates: 0.3,
        };
        let wrong = runs.named(6, 300, 0.0, None, 50_001);
        assert!(wrong[0] + wrong[1] <= 2, "{wrong:?} of 300 x {blocks}");
        let [right, _] = runs.named(6, 50, 8.0, None, 50_002);
        assert_eq!(right, 50, "{blocks} blocks");
    }
    let runs = Runs {
        noise: LONG,
        blocks: 200,
        apart: 0.1,
        rates: 0.3,
    };
    let late = Some(Change::add(30.0, 0.2, 0.0));
    let [_, tail] = runs.named(8, 50, 0.0, late, 50_003);
    assert!(tail >= 47, "{tail} of 50");
}

#[test]
fn a_change_is_named_in_every_run_until_it_is_gone() {
    for seed in 0..10 {
        let runs = Runs {
            noise: LONG,
            blocks: 100,
            apart: 0.1,
            rates: 0.3,
        };
        let mut cron = Cron::new(runs, 60_000 + seed);
        for _ in 0..8 {
            assert_eq!(cron.run(0.0, None).lasting, None, "seed {seed}");
        }
        let began = WallTime(cron.at + 300 * 1_000_000_000);
        for run in 0..30 {
            let judged = cron.run(8.0, None);
            let lasting = judged
                .lasting
                .unwrap_or_else(|| panic!("seed {seed}, run {run}"));
            assert_eq!(lasting.since, began, "seed {seed}, run {run}");
            let against = judged.against.unwrap();
            assert!(
                (ms(against.amount) - 8.0).abs() < 1.0,
                "seed {seed}: {against:?}"
            );
        }
        let judged = cron.run(0.0, None);
        assert!(
            judged.cleared && judged.lasting.is_none(),
            "seed {seed}: {judged:?}"
        );
        assert_eq!(cron.history.usual().len(), 9, "seed {seed}");
    }
}

#[test]
fn what_is_accepted_or_lasts_a_week_is_usual_and_so_is_a_lower_level_after_three_runs() {
    let runs = Runs {
        noise: LONG,
        blocks: 100,
        apart: 0.1,
        rates: 0.3,
    };
    let mut cron = Cron::new(runs, 70_001);
    for _ in 0..8 {
        cron.run(0.0, None);
    }
    for _ in 0..4 {
        assert!(cron.run(8.0, None).lasting.is_some());
    }
    cron.history.accept();
    assert_eq!(cron.history.usual().len(), 4);
    assert_eq!(cron.run(8.0, None).lasting, None);
    for run in 0..3 {
        let judged = cron.run(0.0, None);
        assert!(judged.lasting.unwrap().amount.0 < 0);
        assert_eq!(judged.new_normal, run == 2);
    }
    assert_eq!(cron.run(0.0, None).lasting, None);
    assert!(!cron.run(8.0, None).new_normal);
    for run in 0..6 {
        cron.at += 86_400 * 1_000_000_000;
        assert!(!cron.run(8.0, None).new_normal, "day {run}");
    }
    cron.at += 86_400 * 1_000_000_000;
    assert!(cron.run(8.0, None).new_normal);
    assert_eq!(cron.run(8.0, None).lasting, None);
}

#[test]
fn what_is_kept_is_bounded_spans_weeks_and_is_read_back() {
    let runs = Runs {
        noise: SHORT,
        blocks: 40,
        apart: 0.1,
        rates: 0.3,
    };
    let mut cron = Cron::new(runs, 80_001);
    for _ in 0..2000 {
        cron.run(0.0, None);
    }
    let usual = cron.history.usual();
    assert!(usual.len() <= 160);
    let span = usual[usual.len() - 1].at.0 - usual[0].at.0;
    assert!(span > 5 * 86_400 * 1_000_000_000, "{span}");
    let text = cron.history.to_string();
    assert!(text.len() < 10_000, "{}", text.len());
    assert_eq!(RunHistory::parse(&text).unwrap(), cron.history);
}

#[test]
fn a_damaged_history_is_refused_or_read_and_never_a_panic() {
    let runs = Runs {
        noise: SHORT,
        blocks: 40,
        apart: 0.1,
        rates: 0.3,
    };
    let mut cron = Cron::new(runs, 80_002);
    for run in 0..12 {
        cron.run(if run > 8 { 8.0 } else { 0.0 }, None);
    }
    let text = cron.history.to_string();
    for end in 0..text.len() {
        if let Some(read) = RunHistory::parse(&text[..end]) {
            assert!(read.usual().len() <= 12, "cut at {end}");
        }
    }
    let mut random = Random::new(80_003);
    for seed in 0..3000 {
        let mut bytes = text.clone().into_bytes();
        random.damage(&mut bytes);
        let Ok(damaged) = String::from_utf8(bytes) else {
            continue;
        };
        if let Some(mut read) = RunHistory::parse(&damaged) {
            cron.runs.push(&mut cron.search, &mut random, 0.0, None);
            let judged = read.judge(&mut cron.search, WallTime(cron.at));
            let finite = judged.against.map_or(true, |a| a.low <= a.high);
            assert!(finite, "damage {seed}: {judged:?}");
        }
    }
}
