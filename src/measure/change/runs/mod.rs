//! One run against the earlier runs of a state: no scan, so the whole run counts.

mod history;

pub use history::{Judged, Lasting, RunHistory};

use super::math::{ln, median};
use super::own_blocks::Batches;
use super::{nanos, FindingKind, Search, FLOOR_NS, LEAST_MEAN_NS};
use crate::time::{Nanos, SignedNanos, WallTime};
use std::fmt;

/// Own blocks under which a run leaves no figures.
const RUN_NEEDS: usize = 10;
/// Earlier runs that a run is compared with, at least; and for the share of late blocks.
pub const NEEDED_RUNS: usize = 3;
const NEEDED_FOR_SHARES: usize = 8;
/// Likelihood ratio that names a change of the late blocks: less than in a scan.
const RATIO: f64 = 15.0;
/// Late blocks, each an own one, that it rests on at least.
const HITS: u32 = 5;
/// Blocks are late above an excess that at most this share of the earlier runs' blocks exceed.
const USUAL_SHARE: f64 = 0.03;
/// Steps of the ladder of excesses, each the square root of 2 times the one before.
const STEPS: usize = 23;

/// Excess over the run's median from which on step `step` counts a block, in nanoseconds.
fn excess_of(step: usize) -> i64 {
    let whole = (FLOOR_NS as i64) << (step / 2);
    if step % 2 == 0 {
        whole
    } else {
        (whole as f64 * std::f64::consts::SQRT_2) as i64
    }
}

/// The figures that a run leaves of one part; written and read as text without spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunFigures {
    /// The time at which the run began, on this node's clock.
    pub at: WallTime,
    /// Median of the own blocks.
    pub p50: SignedNanos,
    /// Own blocks.
    pub own_blocks: u32,
    /// Own blocks that a retransmission delayed.
    pub retransmitted: u32,
    /// Own blocks later than the median by 0.1 ms, 0.14 ms, 0.2 ms ... to 205 ms.
    late: [u16; STEPS],
}

impl fmt::Display for RunFigures {
    /// `START:P50:OWN:RETRANSMITTED:LATE,LATE,...` in nanoseconds and blocks; trailing zeros of the
    /// last are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            p50,
            own_blocks,
            retransmitted,
            late,
        } = self;
        write!(f, "{}:{}:{own_blocks}:{retransmitted}:", at.0, p50.0)?;
        let last = late.iter().rposition(|count| *count > 0);
        for (step, count) in late[..last.map_or(0, |last| last + 1)].iter().enumerate() {
            write!(f, "{}{count}", if step == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl RunFigures {
    /// Figures of a run of which nothing but the median is known; `None` for under 10 blocks. One
    /// block of 20 counts as late, however late that is: a tail is named only beyond it.
    pub fn of_median(at: WallTime, p50: SignedNanos, blocks: u32) -> Option<Self> {
        let late = u16::try_from(blocks / 20).unwrap_or(u16::MAX);
        (blocks as usize >= RUN_NEEDS).then_some(Self {
            at,
            p50,
            own_blocks: blocks,
            retransmitted: 0,
            late: [late; STEPS],
        })
    }

    /// Reads what `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(':');
        let mut next = || fields.next();
        let at = WallTime(next()?.parse().ok()?);
        let p50 = SignedNanos(next()?.parse().ok()?);
        let own_blocks: u32 = next()?.parse().ok()?;
        let retransmitted = next()?.parse().ok().filter(|count| *count <= own_blocks)?;
        let counts = next()?;
        let mut late = [0; STEPS];
        let mut most = u32::from(u16::MAX).min(own_blocks);
        for (step, count) in counts
            .split(',')
            .filter(|text| !text.is_empty())
            .enumerate()
        {
            let count: u16 = count.parse().ok()?;
            if u32::from(count) > most {
                return None;
            }
            *late.get_mut(step)? = count;
            most = u32::from(count);
        }
        let figures = Self {
            at,
            p50,
            own_blocks,
            retransmitted,
            late,
        };
        (next().is_none() && own_blocks as usize >= RUN_NEEDS).then_some(figures)
    }
}

/// A part of one run against earlier runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Against {
    /// Earlier runs that it was compared with.
    pub runs: usize,
    /// The median of their medians.
    pub usual: SignedNanos,
    /// The change of the median: this run's less [`Self::usual`].
    pub amount: SignedNanos,
    /// Low end of the interval in which one more run would lie (about 99 %).
    pub low: SignedNanos,
    /// High end of it.
    pub high: SignedNanos,
    /// The least change of the median that would be named.
    pub least: Nanos,
    /// The change that is named; `None` if none is.
    pub named: Option<Named>,
}

/// A change of one run against earlier ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    /// Level or tail.
    pub kind: FindingKind,
    /// Of the median for a level, of the mean for a tail, per block; negative for a fall.
    pub amount: SignedNanos,
    /// Low end of its interval (about 99 %).
    pub low: SignedNanos,
    /// High end of it.
    pub high: SignedNanos,
}

impl Search {
    /// The figures that the pushed blocks leave for later runs; `None` for under 10 own
    /// blocks. `at` is when the run began.
    pub fn run_figures(&mut self, at: WallTime) -> Option<RunFigures> {
        self.blocks.delays(&mut self.delays);
        if self.delays.len() < RUN_NEEDS {
            return None;
        }
        self.delays.sort_unstable();
        let p50 = median(&mut self.delays) as i64;
        let mut late = [0u16; STEPS];
        for (step, count) in late.iter_mut().enumerate() {
            let above = p50.saturating_add(excess_of(step));
            let first = self.delays.partition_point(|delay| *delay <= above);
            *count = u16::try_from(self.delays.len() - first).unwrap_or(u16::MAX);
        }
        let flags = self.blocks.retransmitted();
        let retransmitted = flags.iter().filter(|flag| **flag).count() as u32;
        let own_blocks = self.delays.len() as u32;
        Some(RunFigures {
            at,
            p50: SignedNanos(p50),
            own_blocks,
            retransmitted,
            late,
        })
    }

    /// Compares the part whose blocks were pushed with earlier runs of it; `None` for under 10 own
    /// blocks or 3 runs.
    pub fn against(&mut self, earlier: &[RunFigures]) -> Option<Against> {
        self.compare(earlier, 1.0)
    }

    /// [`Self::against`], with limits that are `ease` times as high.
    fn compare(&mut self, earlier: &[RunFigures], ease: f64) -> Option<Against> {
        let run = self.run_figures(WallTime(0))?;
        if earlier.len() < NEEDED_RUNS {
            return None;
        }
        let medians: Vec<i64> = earlier.iter().map(|run| run.p50.0).collect();
        let usual = median(&mut medians.clone());
        let n = medians.len() as f64;
        let spread = spread(&medians, usual);
        // Hosts are not alike from run to run to the microsecond, however alike a few runs are.
        let apart = spread.max(FLOOR_NS / 2.0) * (1.0 + 1.0 / n).sqrt();
        // About Student's t of n - 1 degrees at 0.01 / 27; three or four runs are alike by luck.
        let limit = 3.5 + 25.0 / n;
        let few = (limit + 3.0 * (5.0 - n).max(0.0)) * spread * (1.0 + 1.0 / n).sqrt();
        let least = ease * (2.0 * FLOOR_NS).max(limit * apart).max(few);
        let amount = run.p50.0 as f64 - usual;
        // Student's t of n - 1 degrees, 99 % on both sides, within 2 % from 5 runs on.
        let error = apart * (2.58 + 7.3 / (n - 1.0) + 15.0 / (n - 1.0).powi(3));
        let level = (amount.abs() >= least && self.is_all_over(usual, amount)).then_some(Named {
            kind: FindingKind::Level,
            amount: nanos(amount),
            low: nanos(amount - error),
            high: nanos(amount + error),
        });
        Some(Against {
            runs: medians.len(),
            usual: nanos(usual),
            amount: nanos(amount),
            low: nanos(amount - error),
            high: nanos(amount + error),
            least: nanos(least).abs(),
            named: level.or_else(|| self.late_blocks(&run, earlier, ease)),
        })
    }

    /// In 4 of 5 batches of the run, more than half of the change is seen: a stall is not.
    fn is_all_over(&mut self, usual: f64, amount: f64) -> bool {
        self.blocks.delays(&mut self.delays);
        let batches = Batches {
            count: 5,
            blocks: self.delays.len(),
        };
        let seen = (0..5).filter(|batch| {
            self.scratch.clear();
            let range = batches.range(*batch, batch + 1);
            self.scratch.extend_from_slice(&self.delays[range]);
            (median(&mut self.scratch) - usual) / amount > 0.5
        });
        seen.count() >= 4
    }

    /// A change of the share of late blocks, or of retransmitted ones.
    fn late_blocks(
        &mut self,
        run: &RunFigures,
        earlier: &[RunFigures],
        ease: f64,
    ) -> Option<Named> {
        if earlier.len() < NEEDED_FOR_SHARES {
            return None;
        }
        let own: u32 = earlier.iter().map(|run| run.own_blocks).sum();
        let usual = |step: usize| {
            let late: u32 = earlier.iter().map(|run| u32::from(run.late[step])).sum();
            f64::from(late) <= USUAL_SHARE * f64::from(own)
        };
        let mut best: Option<(Shares, Option<usize>)> = None;
        let mut take = |step: Option<usize>, hits: &dyn Fn(&RunFigures) -> u32| {
            let found = shares(run, earlier, ease, hits);
            if let Some(found) = found.filter(|found| {
                best.as_ref()
                    .map_or(true, |(best, _)| found.ratio > best.ratio)
            }) {
                best = Some((found, step));
            }
        };
        for step in (0..STEPS).filter(|step| usual(*step)) {
            take(Some(step), &|run| u32::from(run.late[step]));
        }
        take(None, &|run| run.retransmitted);
        let (shares, step) = best?;
        let (above, retransmitted) = (step.map_or(0, excess_of), step.is_none());
        let share = shares.now - shares.usual;
        let later_by = if share > 0.0 {
            self.later_by(run.p50.0, above, retransmitted)
        } else {
            // Of the earlier runs the excess is known to a step of the ladder.
            let steps = step.unwrap_or(0)..STEPS;
            let counts =
                steps.map(|step| earlier.iter().map(|run| u32::from(run.late[step])).sum());
            let counts: Vec<u32> = counts.collect();
            let half = counts
                .iter()
                .take_while(|count| **count * 2 >= counts[0])
                .count();
            excess_of(step.unwrap_or(0) + half.saturating_sub(1)) as f64 * 1.19
        };
        let (amount, error) = (share * later_by, shares.error * later_by);
        let later_by = nanos(later_by).abs();
        let is_enough = later_by.0 as f64 >= FLOOR_NS && amount.abs() >= LEAST_MEAN_NS;
        // A retransmission is late by itself; other blocks might be so by chance.
        let is_enough = is_enough && (retransmitted || amount.abs() > ease * error);
        is_enough.then_some(Named {
            kind: FindingKind::Tail {
                share,
                later_by,
                retransmitted,
            },
            amount: nanos(amount),
            low: nanos(amount - error),
            high: nanos(amount + error),
        })
    }

    /// The median excess over the run's own median of the blocks that are late.
    fn later_by(&mut self, p50: i64, above: i64, retransmitted: bool) -> f64 {
        self.blocks.delays(&mut self.delays);
        let flags = self.blocks.retransmitted();
        let late = self.delays.iter().zip(flags).filter(|(delay, flag)| {
            if retransmitted {
                **flag
            } else {
                delay.saturating_sub(p50) > above
            }
        });
        median(
            &mut late
                .map(|(delay, _)| delay.saturating_sub(p50))
                .collect::<Vec<_>>(),
        )
    }
}

/// Shares of late blocks, of this run and of earlier ones, and half of their difference's interval.
struct Shares {
    now: f64,
    usual: f64,
    error: f64,
    ratio: f64,
}

/// The shares of blocks that `hits` counts, if they differ by more than runs do.
fn shares(
    run: &RunFigures,
    earlier: &[RunFigures],
    ease: f64,
    hits: &dyn Fn(&RunFigures) -> u32,
) -> Option<Shares> {
    let runs = earlier.len() as f64;
    let (c1, n1) = (hits(run), run.own_blocks);
    let c0: u32 = earlier.iter().map(hits).sum();
    let n0: u32 = earlier.iter().map(|run| run.own_blocks).sum();
    let (now, usual) = (f64::from(c1) / f64::from(n1), f64::from(c0) / f64::from(n0));
    // By how much more than chance the counts of the earlier runs differ.
    let rate = f64::from(c0.max(1)) / f64::from(n0);
    let chi = earlier.iter().map(|run| {
        let expected = rate * f64::from(run.own_blocks);
        let off = f64::from(hits(run)) - expected;
        off * off / expected
    });
    let apart = (chi.sum::<f64>() / (runs - 1.0) * (1.0 + 1.5 / runs.sqrt())).max(1.0);
    let ratio = likelihood_ratio((c1, n1), (c0, n0)) / apart;
    let rests_on = if now > usual { c1 } else { c0 };
    let variance = |share: f64, of: u32| share * (1.0 - share) / f64::from(of);
    let error = 2.6 * (apart * (variance(now, n1) + variance(usual, n0))).sqrt();
    (ratio >= ease * RATIO && rests_on >= HITS).then_some(Shares {
        now,
        usual,
        error,
        ratio,
    })
}

/// The binomial likelihood ratio of two counts (hits, of).
fn likelihood_ratio((c1, n1): (u32, u32), (c0, n0): (u32, u32)) -> f64 {
    let own = |c: u32, n: u32| {
        let term = |c: u32| match c {
            0 => 0.0,
            _ => f64::from(c) * ln(f64::from(c) / f64::from(n)),
        };
        term(c) + term(n - c)
    };
    2.0 * (own(c1, n1) + own(c0, n0) - own(c1 + c0, n1 + n0))
}

/// The spread between runs: the larger of a robust and the plain standard deviation, since the MAD
/// of few values is small by luck.
fn spread(medians: &[i64], usual: f64) -> f64 {
    let mut apart: Vec<i64> = medians
        .iter()
        .map(|v| (*v as f64 - usual).abs() as i64)
        .collect();
    let robust = 1.4826 * median(&mut apart);
    let n = medians.len() as f64;
    let mean = medians.iter().map(|v| *v as f64).sum::<f64>() / n;
    let squares: f64 = medians
        .iter()
        .map(|v| (*v as f64 - mean) * (*v as f64 - mean))
        .sum();
    robust.max((squares / (n - 1.0)).sqrt())
}
