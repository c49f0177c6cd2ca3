//! Runs of 40 to 3000 blocks, without a state.

use crate::noise::{in_order, Change, ChangeKind, Jitter, Noise};
use crate::power::power_of;
use crate::random::Random;
use crate::search::{block, changed, is_level, is_tail, ms, rises, search, trial};
use crate::{percent, row};
use subsegment_tcp_speeds::measure::change::{Changes, FindingKind, Search, Shape};

pub(crate) const PLAIN: Noise = Noise::new(Jitter::Lognormal, 0.3, 100.0);
pub(crate) const QUIET: Noise = Noise::new(Jitter::Gamma, 0.05, 100.0);
pub(crate) const WIDE: Noise = Noise::new(Jitter::Lognormal, 2.0, 100.0);
const DENSE: Noise = Noise::new(Jitter::Gamma, 2.0, 2.0);
const HEAVY: Noise = Noise::new(Jitter::Heavy, 0.02, 5.0);

/// Those of the table, with the false verdicts per 100 runs that the method was chosen by.
const UNCHANGED: [(Noise, [f64; 5]); 11] = [
    (PLAIN, [0.2, 0.0, 0.2, 0.0, 0.5]),
    (HEAVY, [0.0, 0.2, 0.0, 0.0, 0.0]),
    (Noise::new(Jitter::Gamma, 0.05, 1000.0), [f64::NAN; 5]),
    (DENSE, [0.0, 0.0, 0.2, 0.2, 0.5]),
    (WIDE, [0.0, 0.0, 0.2, 0.2, 0.9]),
    (PLAIN.wandering(0.9, 1.0), [0.5, 0.0, 0.0, 0.2, 0.9]),
    (PLAIN.wandering(0.99, 1.0), [0.5, 0.2, 0.2, 0.2, 0.0]),
    (PLAIN.wandering(0.999, 1.0), [0.0, 0.0, 0.0, 0.5, 0.5]),
    (PLAIN.wandering(0.9, 10.0), [0.2, 0.0, 0.2, 0.2, 0.5]),
    (PLAIN.wandering(0.99, 10.0), [2.2, 3.8, 0.5, 1.1, 0.0]),
    (PLAIN.wandering(0.999, 10.0), [2.0, 2.7, 2.5, 2.7, 0.9]),
];

const SIZES: [usize; 5] = [40, 100, 200, 400, 1000];

pub(crate) fn false_verdicts() {
    row!(
        "## False verdicts per 100 runs of 9 parts (in brackets: level/ramp/tail per 10,000 \
        series); reference"
    );
    let mut clean = [1.0; SIZES.len()];
    for (place, (noise, reference)) in UNCHANGED.iter().enumerate() {
        let mut line = format!("{:42}", noise.name());
        for (column, n) in SIZES.into_iter().enumerate() {
            let rows = if n < 1000 { 16_000 } else { 8_000 };
            let mut random = Random::new(7_000 + 10 * place as u64 + column as u64);
            let mut s = Search::new(9);
            let mut counts = [0; 4];
            for _ in 0..rows {
                let found = trial(&mut s, noise, &mut random, n, None).findings;
                counts[0] += usize::from(!found.is_empty());
                counts[1] += usize::from(found.iter().any(is_level));
                counts[2] += usize::from(found.iter().any(|f| f.shape == Shape::Ramp));
                counts[3] += usize::from(found.iter().any(is_tail));
            }
            let wrong = counts[0] as f64 / rows as f64;
            clean[column] *= if place < 9 { 1.0 - wrong } else { 1.0 };
            let runs = 100.0 * (1.0 - (1.0 - wrong).powi(9));
            let [level, ramp, tail] = [1, 2, 3].map(|i| 1e4 * counts[i] as f64 / rows as f64);
            line += &format!(
                " {runs:5.2} ({level:.0}/{ramp:.0}/{tail:.0}); {}",
                reference[column]
            );
        }
        row!("{line}");
    }
    let mixed = clean.map(|clean| format!("{:.2}", 100.0 * (1.0 - clean)));
    row!(
        "one part of each of the first nine: {}; reference 0.15 0.05 0.15 0.20 0.40",
        mixed.join(" ")
    );
}

pub(crate) fn special() {
    row!("## Special cases, % named, n = 100, 200, 400, 1000, 3000; reference");
    let no_outliers = Noise {
        outliers: 0.0,
        ..PLAIN
    };
    let bump = |start, end| Change {
        end,
        ..Change::add(8.0, 1.0, start)
    };
    let kind = |kind, share, start| Change {
        kind,
        share,
        start,
        end: 1.0,
    };
    let cases = [
        (
            "+1.5 ms, spread 0.05",
            QUIET,
            Change::add(1.5, 1.0, 0.5),
            "99 to 100",
        ),
        ("bump +8 ms, 40 to 60 %", PLAIN, bump(0.4, 0.6), "100"),
        (
            "bump +8 ms, 45 to 55 %",
            PLAIN,
            bump(0.45, 0.55),
            "100 from 200 on",
        ),
        (
            "drift of 3 ms over the run",
            PLAIN,
            kind(ChangeKind::Drift(3.0), 1.0, 0.0),
            "95 to 100",
        ),
        (
            "drift of 3 ms from half on",
            PLAIN,
            kind(ChangeKind::Drift(3.0), 1.0, 0.5),
            "95 to 100",
        ),
        (
            "2 % lost, +40..200 ms",
            PLAIN,
            kind(ChangeKind::Loss, 0.02, 0.5),
            "87 at 3000",
        ),
        (
            "5 % lost, +40..200 ms",
            PLAIN,
            kind(ChangeKind::Loss, 0.05, 0.5),
            "64 at 1000, 100 at 3000",
        ),
        (
            "5 % lost, no outliers",
            no_outliers,
            kind(ChangeKind::Loss, 0.05, 0.5),
            "",
        ),
        (
            "3 % +30 ms, no outliers",
            no_outliers,
            Change::add(30.0, 0.03, 0.5),
            "",
        ),
        (
            "10 % +30 ms, no outliers",
            no_outliers,
            Change::add(30.0, 0.1, 0.5),
            "",
        ),
        (
            "spread 2, +3 ms",
            WIDE,
            Change::add(3.0, 1.0, 0.5),
            "8/19/91/100",
        ),
        (
            "spread 2, +8 ms",
            WIDE,
            Change::add(8.0, 1.0, 0.5),
            "96/100/100/100",
        ),
        (
            "present from the start",
            PLAIN,
            Change::add(8.0, 1.0, 0.0),
            "0 to 0.5",
        ),
    ];
    for (name, noise, change, reference) in cases {
        let cells = [100, 200, 400, 1000, 3000].map(|n| {
            let mut random = Random::new(n as u64 + 77);
            let mut s = Search::new(9);
            let named = (0..400).filter(|_| {
                let found = trial(&mut s, &noise, &mut random, n, Some(change));
                !found.findings.is_empty()
            });
            format!("{:5.1}", percent(named.count(), 400))
        });
        row!("{name:30} {}  [{reference}]", cells.join(" "));
    }
    for share in [0.02, 0.05] {
        let cells = [100, 200, 400, 1000, 3000]
            .map(|n| format!("{:5.1}", loss_by_flags(n, share, 400, 99)));
        row!(
            "{:2.0} % lost, by flagged blocks      {}",
            share * 100.0,
            cells.join(" ")
        );
    }
    let cells = [100, 200, 400, 1000].map(|n| format!("{:5.2}", falsely_by_flags(n, 20_000)));
    row!(
        "unchanged, 0.2 % flagged, per 100 runs of 9: {}",
        cells.join(" ")
    );
}

/// Loss from half of the run on, with the lost blocks flagged.
fn loss_by_flags(n: usize, share: f64, rows: usize, seed: u64) -> f64 {
    let mut random = Random::new(seed + n as u64);
    let mut s = Search::new(9);
    let loss = Change {
        kind: ChangeKind::Loss,
        share,
        start: 0.5,
        end: 1.0,
    };
    let named = (0..rows).filter(|_| {
        let mut delays = PLAIN.draw(&mut random, n);
        let flags = loss.put(&mut random, &mut delays);
        in_order(&mut delays, PLAIN.interval);
        rises(&search(&mut s, &delays, &flags, PLAIN.interval))
    });
    percent(named.count(), rows)
}

fn falsely_by_flags(n: usize, rows: usize) -> f64 {
    let mut random = Random::new(5 + n as u64);
    let mut s = Search::new(9);
    let loss = Change {
        kind: ChangeKind::Loss,
        share: 0.002,
        start: 0.0,
        end: 1.0,
    };
    let named = (0..rows).filter(|_| {
        let mut delays = PLAIN.draw(&mut random, n);
        let flags = loss.put(&mut random, &mut delays);
        in_order(&mut delays, PLAIN.interval);
        !search(&mut s, &delays, &flags, PLAIN.interval)
            .findings
            .is_empty()
    });
    100.0 * (1.0 - (1.0 - named.count() as f64 / rows as f64).powi(9))
}

pub(crate) fn places_and_amounts() {
    row!(
        "## Where and how much, of named changes: since off by blocks (p50, p95); interval \
        holds the truth; called a step to the end"
    );
    row!(
        "   reference: level p50 0, p95 0 to 4; 40 % hit: 1 and 10; 20 % hit: 4 and 24; \
        interval 99 to 100, AR 0.99 88 to 96"
    );
    for noise in [QUIET, PLAIN, WIDE, PLAIN.wandering(0.99, 1.0)] {
        for n in [100, 400, 1000] {
            for (share, delay) in [(1.0, 3.0), (1.0, 30.0), (0.4, 8.0), (0.2, 30.0)] {
                let mut random = Random::new((n as u64) << (delay as u64));
                let mut s = Search::new(9);
                let (mut off, mut levels, mut held, mut steps) = (Vec::new(), 0, 0, 0);
                let mut mean_held = 0;
                for start in [0.2, 0.5, 0.8] {
                    for _ in 0..300 {
                        let change = Change::add(delay, share, start);
                        let found = trial(&mut s, &noise, &mut random, n, Some(change));
                        let Some(found) = found.findings.first().filter(|f| f.amount.0 > 0) else {
                            continue;
                        };
                        let truth = (start * n as f64) as i64;
                        off.push((block(found.since, noise.interval) - truth).abs());
                        let holds = |v: f64| ms(found.low) <= v && v <= ms(found.high);
                        steps += usize::from(found.shape == Shape::Step);
                        mean_held += usize::from(holds(delay * share));
                        if is_level(found) {
                            levels += 1;
                            held += usize::from(holds(delay));
                        }
                    }
                }
                off.sort_unstable();
                let at = |share: f64| off[((off.len() - 1) as f64 * share) as usize];
                if off.len() > 40 {
                    let interval = match share {
                        1.0 => format!("{:5.1}", percent(held, levels)),
                        _ => format!("{:5.1} (mean)", percent(mean_held, off.len())),
                    };
                    row!(
                        "{:42} n {n:4} {:3.0} % +{delay:<3} named {:5.1} %  since off by {:3} \
                            {:4}  interval {interval}  step {:.1}",
                        noise.name(),
                        share * 100.0,
                        percent(off.len(), 900),
                        at(0.5),
                        at(0.95),
                        percent(steps, off.len())
                    );
                }
            }
        }
    }
}

const LEAST: [(Noise, &str); 8] = [
    (HEAVY, ""),
    (QUIET, "0.29/0.19/0.16/0.16 ms"),
    (PLAIN, "1.3/0.9/0.6/0.4 ms"),
    (WIDE, "8.5/6.0/3.9/2.5 ms"),
    (DENSE, "20 to 70 % at 100 blocks"),
    (PLAIN.wandering(0.9, 1.0), ""),
    (PLAIN.wandering(0.99, 1.0), "100 % from 20 to 80 %"),
    (PLAIN.wandering(0.99, 10.0), "100 % from 20 to 80 %"),
];

/// The median X of unchanged runs, and the share of the runs that name it from `start` on.
fn least_of(noise: &Noise, n: usize, start: f64, rows: usize) -> (f64, f64) {
    let mut random = Random::new(n as u64 * 31);
    let mut s = Search::new(9);
    let mut all = Vec::new();
    let named = (0..rows).filter(|_| {
        let mut delays = noise.draw(&mut random, n);
        let mut clean = delays.clone();
        in_order(&mut clean, noise.interval);
        let Some(least) = search(&mut s, &clean, &[], noise.interval).least else {
            return true;
        };
        let x = least.delay.as_millis_f64();
        all.push(x);
        let from = (start * n as f64) as usize;
        delays[from..].iter_mut().for_each(|delay| *delay += x);
        in_order(&mut delays, noise.interval);
        let found = search(&mut s, &delays, &[], noise.interval);
        found
            .findings
            .iter()
            .any(|f| f.kind == FindingKind::Level && f.amount.0 > 0)
    });
    let power = percent(named.count(), rows);
    all.sort_by(f64::total_cmp);
    (all.get(all.len() / 2).copied().unwrap_or(f64::NAN), power)
}

pub(crate) fn least() {
    row!(
        "## No change above X: median X, and power at X, start at 10/20/50/80/90 % of the run; \
        reference X (power 97 to 100)"
    );
    for (noise, reference) in LEAST {
        for n in [100, 200, 400, 1000] {
            let cells = [0.1, 0.2, 0.5, 0.8, 0.9].map(|start| least_of(&noise, n, start, 400));
            let power = cells.map(|(_, power)| format!("{power:3.0}"));
            row!(
                "{:42} n {n:4} X {:6.2}  power {}  [{reference}]",
                noise.name(),
                cells[0].0,
                power.join(" ")
            );
        }
    }
}

pub(crate) fn least_share() {
    row!(
        "## No delay in more than Y of the blocks, from half on, +10 ms: median Y, power at it; \
        reference 82 to 96 from 200 on"
    );
    let cases = [
        (0.0, ["37", "20", "8.4", "2.9"]),
        (0.01, ["40", "23", "11", "4.9"]),
    ];
    for (outliers, references) in cases {
        let noise = Noise { outliers, ..PLAIN };
        for (n, reference) in [200, 400, 1000, 3000].into_iter().zip(references) {
            let mut random = Random::new(n as u64 + 13);
            let mut s = Search::new(9);
            let (mut all, mut named) = (Vec::new(), [0; 2]);
            for _ in 0..400 {
                let clean = trial(&mut s, &noise, &mut random, n, None);
                let Some(tail) = clean.least.and_then(|least| least.tail) else {
                    continue;
                };
                let delay = tail.delay.as_millis_f64();
                all.push((tail.share, delay));
                for (more, named) in [delay.max(10.0), delay].into_iter().zip(&mut named) {
                    let change = Change::add(more, tail.share, 0.5);
                    let found = trial(&mut s, &noise, &mut random, n, Some(change));
                    *named += usize::from(rises(&found));
                }
            }
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            let middle = all
                .get(all.len() / 2)
                .copied()
                .unwrap_or((f64::NAN, f64::NAN));
            row!(
                "outliers {outliers:4} n {n:4}  Y {:5.1} % (of {:.2} ms)  power at +10 {:3.0}, \
                    at that delay {:3.0}  [Y {reference}]",
                100.0 * middle.0,
                middle.1,
                percent(named[0], all.len()),
                percent(named[1], all.len())
            );
        }
    }
}

/// Counts what is found besides one change, or of two and three.
pub(crate) fn several() {
    row!("## Several changes of one part: % with 1, 2, 3 findings");
    let step = |delay, start| Change::add(delay, 1.0, start);
    let cases: [(&str, Noise, Vec<Change>); 8] = [
        ("+8 from half on", PLAIN, vec![step(8.0, 0.5)]),
        (
            "+8 from half on, AR 0.99",
            PLAIN.wandering(0.99, 1.0),
            vec![step(8.0, 0.5)],
        ),
        (
            "+3 from 30 %, +5 from 70 %",
            PLAIN,
            vec![step(3.0, 0.3), step(5.0, 0.7)],
        ),
        (
            "+8 from 30 %, -4 from 70 %",
            PLAIN,
            vec![step(8.0, 0.3), step(-4.0, 0.7)],
        ),
        (
            "bump +8, 20 to 40 %, +3 from 70 %",
            PLAIN,
            vec![step(8.0, 0.2), step(-8.0, 0.4), step(3.0, 0.7)],
        ),
        (
            "+3 from 25, 50, 75 %",
            PLAIN,
            vec![step(3.0, 0.25), step(3.0, 0.5), step(3.0, 0.75)],
        ),
        (
            "+8 of 40 % of the blocks from half on",
            PLAIN,
            vec![Change::add(8.0, 0.4, 0.5)],
        ),
        (
            "+8 of 60 % of the blocks from half on",
            PLAIN,
            vec![Change::add(8.0, 0.6, 0.5)],
        ),
    ];
    for (name, noise, changes) in cases {
        for n in [200, 1000] {
            let mut random = Random::new(n as u64);
            let mut s = Search::new(9);
            let mut counts = [0; 4];
            let mut example = String::new();
            for _ in 0..400 {
                let mut delays = noise.draw(&mut random, n);
                for change in &changes {
                    change.put(&mut random, &mut delays);
                }
                in_order(&mut delays, noise.interval);
                let found = search(&mut s, &delays, &[], noise.interval);
                counts[found.findings.len()] += 1;
                example = describe(&found, noise.interval, n);
            }
            let counts = counts.map(|count| format!("{:.1}", percent(count, 400)));
            row!(
                "{name:38} n {n:4}: none {} one {} two {} three {}  e.g. {example}",
                counts[0],
                counts[1],
                counts[2],
                counts[3]
            );
        }
    }
}

fn describe(changes: &Changes, interval: f64, n: usize) -> String {
    let at = |at| 100.0 * block(at, interval) as f64 / n as f64;
    let parts = changes.findings.iter().map(|f| {
        let until = f
            .until
            .map_or(String::new(), |until| format!(" to {:.1} %", at(until)));
        format!(
            "{:?} {:+.2} from {:.1} %{until}",
            f.shape,
            ms(f.amount),
            at(f.since)
        )
    });
    parts.collect::<Vec<_>>().join(", ")
}

pub(crate) fn cost() {
    let mut s = Search::new(9);
    let mut random = Random::new(1);
    for (name, change) in [
        ("unchanged", None),
        ("+8 from half on", Some(Change::add(8.0, 1.0, 0.5))),
    ] {
        for n in [100, 1000, 16_000] {
            let series: Vec<_> = (0..9)
                .map(|_| changed(&PLAIN, &mut random, n, change))
                .collect();
            let rounds = 40_000 / n + 5;
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                for delays in &series {
                    std::hint::black_box(search(&mut s, delays, &[], PLAIN.interval));
                }
            }
            let each = start.elapsed().as_secs_f64() * 1e6 / rounds as f64;
            row!("cost, 9 parts x {n} blocks, {name}: {each:.0} microseconds");
        }
    }
}

// As tests: fewer trials, other seeds than the tables', and bounds with room for chance.

#[test]
fn unchanged_runs_are_rarely_named() {
    // 9 parts in under 1 of 100 runs: 1 series of 900. Of 4 x 250 at most 5 has a chance of 0.1 %.
    for (noise, n) in [
        (PLAIN, 100),
        (HEAVY, 40),
        (DENSE, 200),
        (PLAIN.wandering(0.99, 1.0), 200),
    ] {
        let mut random = Random::new(40_001);
        let mut s = Search::new(9);
        let wrong = (0..400).filter(|_| {
            !trial(&mut s, &noise, &mut random, n, None)
                .findings
                .is_empty()
        });
        let wrong = wrong.count();
        assert!(wrong <= 4, "{wrong} of 400 of {}", noise.name());
    }
}

#[test]
fn changes_have_the_power_of_the_tables() {
    let cases = [
        (PLAIN, 200, Change::add(1.0, 1.0, 0.3), 92.0),
        (PLAIN, 100, Change::add(3.0, 1.0, 0.9), 90.0),
        (PLAIN, 400, Change::add(3.0, 0.4, 0.5), 90.0),
        (PLAIN, 1000, Change::add(30.0, 0.2, 0.7), 90.0),
        (QUIET, 40, Change::add(1.5, 1.0, 0.5), 88.0),
        (
            PLAIN,
            200,
            Change {
                end: 0.55,
                ..Change::add(8.0, 1.0, 0.45)
            },
            92.0,
        ),
    ];
    for (noise, n, change, least) in cases {
        let power = power_of(&noise, n, 80, change, 40_002);
        assert!(power >= least, "{power} % of {n} blocks, {change:?}");
    }
}

#[test]
fn falls_are_found_as_rises_are() {
    let mut random = Random::new(40_003);
    let mut s = Search::new(9);
    for trial in 0..40 {
        let mut delays = PLAIN.draw(&mut random, 400);
        Change::add(-3.0, 1.0, 0.6).put(&mut random, &mut delays);
        in_order(&mut delays, PLAIN.interval);
        let found = search(&mut s, &delays, &[], PLAIN.interval).findings;
        let [found] = found[..] else {
            panic!("trial {trial}: {found:?}")
        };
        assert!(
            found.high.0 < 0 && found.shape == Shape::Step,
            "trial {trial}: {found:?}"
        );
        let at = block(found.since, PLAIN.interval);
        assert!((238..=242).contains(&at), "trial {trial}: {found:?}");
    }
}

#[test]
fn loss_is_found_by_flagged_blocks_where_delay_alone_has_no_power() {
    let loss = Change {
        kind: ChangeKind::Loss,
        share: 0.05,
        start: 0.5,
        end: 1.0,
    };
    let by_delay = power_of(&PLAIN, 1000, 40, loss, 40_004);
    let by_flags = loss_by_flags(1000, 0.05, 40, 40_004);
    assert!(
        by_flags >= 90.0 && by_flags > by_delay,
        "{by_flags} and {by_delay}"
    );
}

#[test]
fn what_is_called_the_least_change_is_named() {
    for (noise, n, start) in [(PLAIN, 200, 0.5), (WIDE, 400, 0.2), (QUIET, 100, 0.8)] {
        let (x, power) = least_of(&noise, n, start, 80);
        assert!(power >= 90.0, "{power} % of {} by {x} ms", noise.name());
    }
}

#[test]
fn levels_that_change_twice_are_two_steps_wherever_they_lie() {
    let mut s = Search::new(9);
    let cases = [
        (3.0, 5.0),
        (8.0, -4.0),
        (6.0, -2.0),
        (-3.0, -6.0),
        (2.0, 2.0),
    ];
    for (seed, (first, second)) in cases.into_iter().cycle().take(50).enumerate() {
        let mut random = Random::new(40_010 + seed as u64);
        let starts = [0.2, 0.5].map(|start| start + 0.2 * random.unit());
        let mut delays = PLAIN.draw(&mut random, 600);
        for (delay, start) in [first, second].into_iter().zip(starts) {
            Change::add(delay, 1.0, start).put(&mut random, &mut delays);
        }
        in_order(&mut delays, PLAIN.interval);
        let mut found = search(&mut s, &delays, &[], PLAIN.interval).findings;
        found.sort_by_key(|finding| finding.since);
        assert_eq!(found.len(), 2, "seed {seed}: {found:?}");
        for ((found, amount), start) in found.iter().zip([first, second]).zip(starts) {
            let off = (block(found.since, PLAIN.interval) - (start * 600.0) as i64).abs();
            assert!(
                off <= 15,
                "seed {seed}: {found:?} for {amount} from {start}"
            );
            assert!(
                (ms(found.amount) - amount).abs() < 0.4,
                "seed {seed}: {found:?}"
            );
        }
    }
}

#[test]
fn since_amount_and_interval_are_true() {
    let mut random = Random::new(40_005);
    let mut s = Search::new(9);
    let mut held = 0;
    for trial_number in 0..100 {
        let found = trial(
            &mut s,
            &PLAIN,
            &mut random,
            400,
            Some(Change::add(3.0, 1.0, 0.5)),
        );
        let found = found.findings[0];
        held += usize::from(ms(found.low) <= 3.0 && 3.0 <= ms(found.high));
        let off = (block(found.since, PLAIN.interval) - 200).abs();
        assert!(off <= 8, "trial {trial_number}: {found:?}");
        let by_figures = ms(found.inside.p50 - found.beside.p50);
        assert!(
            (by_figures - 3.0).abs() < 0.5,
            "trial {trial_number}: {found:?}"
        );
    }
    assert!(held >= 95, "{held} of 100");
}
