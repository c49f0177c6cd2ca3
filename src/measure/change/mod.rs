//! Finds since when and by how much the delay of one part changed. It does so within a run, against
//! earlier runs, and over the records of a run without end.
//!
//! All three share one idea: a scan over the places where a change can have begun. The scanned
//! figure is robust and in units of its own noise, autocorrelation included. The excess has to
//! appear at several separate places. Constants and error rates were found by simulation;
//! `scripts/trials verdict` prints the tables.
//!
//! ```text
//! Block ──own_blocks──► batches ─┬─► level   steps, bumps, ramps of the batch medians
//!                                ├─► tail    share of late or retransmitted blocks
//!                                └─► least   "no change above X", where neither is found
//! Run   ──runs────► one run against the earlier ones of a state
//! Record ─records─► weeks of windows: hour of the week, spread, what is named and what is over
//! ```
//!
//! A level has two tests. It is *certain* by its size against the noise around the fit, widened by
//! the noise's autocorrelation. It is *sharp* by its edges against the drift elsewhere. The scan of
//! the tail is a binomial likelihood ratio (G, as in Sokal and Rohlf), divided by the dispersion of
//! the counts. The scan over shapes is that of change-point detection by binary segmentation, with
//! bumps as in circular binary segmentation (Olshen et al. 2004).

mod level;
pub(super) mod math;
mod own_blocks;
mod records;
mod runs;
mod tail;
#[cfg(test)]
mod tests;

pub use own_blocks::Block;
pub use records::{
    Began, BootClock, Lasts, RecordEvent, RecordFigure, RecordWatch, When, NEW_NORMAL,
};
pub use runs::{Against, Judged, Lasting, Named, RunFigures, RunHistory, NEEDED_RUNS};

use crate::measure::series::exact_quantile;
use crate::time::{MonoTime, Nanos, SignedNanos};
use level::Level;
use own_blocks::{Batches, Blocks};
use tail::Tail;

/// Less than this is nothing that user space can blame a network for.
const FLOOR_NS: f64 = 100_000.0;
/// Least change of the mean by late blocks: a busy machine makes a few blocks late by the floor.
const LEAST_MEAN_NS: f64 = FLOOR_NS / 2.0;
/// Changes of one part that are reported, at most.
const MOST: usize = 3;
/// Own blocks under which nothing is stated about shares of the blocks.
const SHARES_FROM: usize = 200;

/// Length of a run under which no least change is stated.
const LEAST_FROM: Nanos = Nanos::from_millis(1_000);

/// The course of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A new level until the end.
    Step,
    /// A new level that ended.
    Bump,
    /// A steady change until the end.
    Ramp,
}

/// The blocks that a change concerns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FindingKind {
    /// More than half of the blocks: the median changed.
    Level,
    /// Some of the blocks: the mean changed.
    Tail {
        /// Share of the blocks that are late, less the share that is late elsewhere; negative for
        /// a fall.
        share: f64,
        /// The delay of those blocks above the others.
        later_by: Nanos,
        /// The late blocks are those that a retransmission delayed.
        retransmitted: bool,
    },
}

/// Figures of a set of blocks, all of them counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The median.
    pub p50: SignedNanos,
    /// The arithmetic mean.
    pub mean: SignedNanos,
    /// 95 % are at or below it.
    pub p95: SignedNanos,
}

/// One change of one part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// The course of it.
    pub shape: Shape,
    /// The blocks that it concerns.
    pub kind: FindingKind,
    /// Change of the median for a level, of the mean for a tail: per block in both cases, so
    /// amounts of different parts compare. Negative for a fall; of a ramp, from its start to the
    /// end. The mean has delays capped at three times the excess of late blocks, against stalls.
    pub amount: SignedNanos,
    /// Low end of the amount's interval (about 99 %).
    pub low: SignedNanos,
    /// High end of it.
    pub high: SignedNanos,
    /// The time at which the first block on the new level was due.
    pub since: MonoTime,
    /// The time at which the first block after it was due; `None` if it lasts until the end.
    pub until: Option<MonoTime>,
    /// All blocks of it.
    pub inside: Figures,
    /// All blocks beside it.
    pub beside: Figures,
}

/// The least change that would have been named, where none was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Least {
    /// The least change that was named in 95 of 100 simulated runs. It affects more than half of
    /// the blocks and lasts a tenth of the run or longer.
    pub delay: Nanos,
    /// A smaller share of the blocks; `None` for fewer than 200 own blocks, or if no share would
    /// be named.
    pub tail: Option<LeastTail>,
}

/// The least share of the blocks that would have been named, where none was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeastTail {
    /// A delay of so much more,
    pub delay: Nanos,
    /// in this share of the blocks, over half of the run.
    pub share: f64,
}

/// The changes of one part within a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The largest first, three at most.
    pub findings: Vec<Finding>,
    /// Blocks that were not released together with the block ahead of them.
    pub own_blocks: usize,
    /// The least further change that would have been named. `None` for a run of fewer than 30 own
    /// blocks or under a second: one stall is much of such a run.
    pub least: Option<Least>,
}

/// Searches the parts of a path for changes, one after the other: [`Search::clear`], then each
/// block of the part, then [`Search::changes`].
#[derive(Debug)]
pub struct Search {
    parts: usize,
    blocks: Blocks,
    delays: Vec<i64>,
    /// Scratch space: delays less the changes found, and sorted or compared values.
    rest: Vec<i64>,
    scratch: Vec<i64>,
    logs: math::CountLogs,
}

/// A level with the own blocks between which it lies.
#[derive(Clone, Copy, Debug)]
struct Placed {
    level: Level,
    since: usize,
    until: usize,
}

impl Placed {
    /// The delay of own block `index` that is due to it.
    fn at(&self, index: usize, blocks: usize) -> f64 {
        if !(self.since..self.until).contains(&index) {
            0.0
        } else if self.level.ramp {
            let length = (blocks - self.since) as f64;
            self.level.amount * ((index - self.since) as f64 + 0.5) / length
        } else {
            self.level.amount
        }
    }
}

impl Search {
    /// Own blocks that a part needs for a change to be found.
    pub const NEEDED_BLOCKS: usize = own_blocks::NEEDED;

    /// For a path of `parts` parts: of more parts, each has to be more certain.
    pub fn new(parts: usize) -> Self {
        Self {
            parts,
            blocks: Blocks::new(),
            delays: Vec::new(),
            rest: Vec::new(),
            scratch: Vec::new(),
            logs: math::CountLogs::default(),
        }
    }

    /// Begins the next part.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    /// Takes the part's next block, in the order of time.
    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    /// The changes of the part whose blocks were pushed.
    pub fn changes(&mut self) -> Changes {
        let own_blocks = self.blocks.len();
        let mut changes = Changes {
            findings: Vec::new(),
            own_blocks,
            least: None,
        };
        let Some(batches) = Batches::of(own_blocks) else {
            return changes;
        };
        self.blocks.delays(&mut self.delays);
        let (levels, medians) = self.levels(batches);
        changes.findings = levels
            .iter()
            .map(|placed| self.level_finding(*placed))
            .collect();
        if levels.is_empty() {
            tail::excesses(&self.delays, &mut self.rest);
            let flags = self.blocks.retransmitted();
            let tail = tail::find(&self.rest, flags, batches, self.parts, &mut self.logs);
            changes
                .findings
                .extend(tail.and_then(|tail| self.tail_finding(tail, batches)));
        }
        changes
            .findings
            .sort_unstable_by_key(|finding| std::cmp::Reverse(finding.amount.abs()));
        changes.least = self.least(&levels, medians, batches);
        changes
    }

    /// Figures of all blocks; `None` for a run that is too short.
    pub(super) fn figures_of_all(&mut self) -> Option<Figures> {
        let own_blocks = self.blocks.len();
        (own_blocks >= Self::NEEDED_BLOCKS).then(|| self.figures(0, own_blocks).0)
    }

    /// The changes of the median alone.
    pub(super) fn levels_alone(&mut self) -> Vec<Finding> {
        let Some(batches) = Batches::of(self.blocks.len()) else {
            return Vec::new();
        };
        self.blocks.delays(&mut self.delays);
        let (levels, _) = self.levels(batches);
        let levels = levels.into_iter();
        levels.map(|placed| self.level_finding(placed)).collect()
    }

    /// The changes of the median, each fitted with the others taken off, and the medians that were
    /// searched last.
    fn levels(&mut self, batches: Batches) -> (Vec<Placed>, Vec<f64>) {
        let mut found: Vec<Placed> = Vec::new();
        let mut medians = Vec::new();
        while found.len() < MOST {
            let before = found.len();
            medians = self.without(&found, None, batches);
            let levels = match level::find(&medians, batches) {
                Some(level) => vec![level],
                None if found.is_empty() => (2..=MOST)
                    .find_map(|count| level::find_together(&medians, batches, count))
                    .unwrap_or_default(),
                None => Vec::new(),
            };
            if levels.is_empty() {
                break;
            }
            found.extend(levels.into_iter().map(|level| Placed {
                level,
                since: batches.start(level.from),
                until: batches.start(level.to),
            }));
            for again in 0..2 * found.len() {
                let this = again % found.len();
                let medians = self.without(&found, Some(this), batches);
                let level = level::refit(found[this].level, &medians);
                found[this] = self.place(level, &medians, batches);
            }
            found.retain(|placed| placed.level.amount.abs() >= FLOOR_NS);
            // A level below the floor once the others are taken off would be found again, for ever.
            if found.len() <= before {
                break;
            }
        }
        join(&mut found, batches);
        (found, medians)
    }

    /// The batch medians of the delays less the changes found, except for the one at `except`.
    fn without(&mut self, found: &[Placed], except: Option<usize>, batches: Batches) -> Vec<f64> {
        self.rest.clear();
        self.rest.extend_from_slice(&self.delays);
        for (place, change) in found.iter().enumerate() {
            if Some(place) == except {
                continue;
            }
            for (index, delay) in self.rest.iter_mut().enumerate() {
                *delay = delay.saturating_sub(change.at(index, batches.blocks) as i64);
            }
        }
        level::medians(&self.rest, batches, &mut self.scratch)
    }

    /// Finds the own blocks at which `level` begins and ends, in what [`Self::without`] left.
    fn place(&self, level: Level, medians: &[f64], batches: Batches) -> Placed {
        let (since, until) = (batches.start(level.from), batches.blocks);
        if level.ramp {
            return Placed {
                level,
                since,
                until,
            };
        }
        let middle = |inside: bool| {
            let within = |batch: &usize| (level.from..level.to).contains(batch) == inside;
            let levels = (0..medians.len()).filter(within);
            math::median(
                &mut levels
                    .map(|batch| medians[batch] as i64)
                    .collect::<Vec<_>>(),
            )
        };
        let (inside, beside) = (middle(true), middle(false));
        let cost = |index: usize| {
            let delay = self.rest[index] as f64;
            (delay - inside).abs() - (delay - beside).abs()
        };
        let since = batches.split(level.from, cost);
        let until = if level.to < batches.count {
            batches.split(level.to, |index| -cost(index))
        } else {
            batches.blocks
        };
        Placed {
            level,
            since,
            until,
        }
    }

    fn level_finding(&mut self, placed: Placed) -> Finding {
        let Placed {
            level,
            since,
            until,
        } = placed;
        let (inside, beside) = self.figures(since, until);
        let ended = until < self.blocks.len();
        Finding {
            shape: match (level.ramp, ended) {
                (true, _) => Shape::Ramp,
                (false, true) => Shape::Bump,
                (false, false) => Shape::Step,
            },
            kind: FindingKind::Level,
            amount: nanos(level.amount),
            low: nanos(level.amount - level.error),
            high: nanos(level.amount + level.error),
            since: self.blocks.time(since),
            until: ended.then(|| self.blocks.time(until)),
            inside,
            beside,
        }
    }

    /// `None` if the mean did not change as the share of late blocks did, or hardly.
    fn tail_finding(&mut self, tail: Tail, batches: Batches) -> Option<Finding> {
        let flags = self.blocks.retransmitted();
        let cost = |index: usize| -tail.weight(tail.is_late(self.rest[index], flags[index]));
        let since = batches.split(tail.from, cost);
        let ended = tail.to < batches.count;
        let until = if ended {
            batches.split(tail.to, |index| -cost(index))
        } else {
            batches.blocks
        };
        let mut late: Vec<i64> = (0..batches.blocks)
            .filter(|index| tail.is_late(self.rest[*index], flags[*index]))
            .map(|index| self.rest[index])
            .collect();
        let (inside, beside) = self.figures(since, until);
        let cap = tail::cap(inside.p50.0.min(beside.p50.0) as f64, &mut late);
        let (all, end) = (&self.blocks, batches.blocks);
        let [first, last] = [all.sum(0, since, cap), all.sum(until, end, cap)];
        let mean = |(sum, count): (f64, usize)| sum / count.max(1) as f64;
        let level = mean(all.sum(since, until, cap));
        let amount = level - mean((first.0 + last.0, first.1 + last.1));
        let share = tail.inside - tail.beside;
        if (amount > 0.0) != (share > 0.0) || amount.abs() < LEAST_MEAN_NS {
            return None;
        }
        let mean = |batch: usize| {
            let range = batches.range(batch, batch + 1);
            mean(all.sum(range.start, range.end, cap))
        };
        let means: Vec<f64> = (0..batches.count).map(mean).collect();
        let error = level::error(tail.from, tail.to, &means);
        Some(Finding {
            shape: if ended { Shape::Bump } else { Shape::Step },
            kind: FindingKind::Tail {
                share,
                later_by: nanos(amount / share).abs(),
                retransmitted: tail.above.is_none(),
            },
            amount: nanos(amount),
            low: nanos(amount - error),
            high: nanos(amount + error),
            since: self.blocks.time(since),
            until: ended.then(|| self.blocks.time(until)),
            inside,
            beside,
        })
    }

    /// Figures of all blocks from own block `since` to before own block `until`, and of the others.
    fn figures(&mut self, since: usize, until: usize) -> (Figures, Figures) {
        let blocks = &self.blocks;
        let mut of = |values: &mut dyn Iterator<Item = i64>| {
            self.scratch.clear();
            self.scratch.extend(values);
            figures(&mut self.scratch)
        };
        let inside = of(&mut blocks.between(since, until));
        let end = blocks.len();
        let beside = of(&mut blocks.between(0, since).chain(blocks.between(until, end)));
        (inside, beside)
    }

    /// Without `levels`, `medians` are those of the batches, and the excesses are known.
    fn least(&mut self, levels: &[Placed], medians: Vec<f64>, batches: Batches) -> Option<Least> {
        let length = self.blocks.time(batches.blocks).since(self.blocks.time(0));
        if length < LEAST_FROM {
            return None;
        }
        let medians = if levels.is_empty() {
            medians
        } else {
            let medians = self.without(levels, None, batches);
            tail::excesses(&self.rest, &mut self.scratch);
            std::mem::swap(&mut self.rest, &mut self.scratch);
            medians
        };
        let delay = level::least(&medians);
        let tail = (batches.blocks >= SHARES_FROM).then(|| {
            let late = &mut self.scratch;
            late.clear();
            late.extend(self.rest.iter().filter(|excess| **excess as f64 > delay));
            // Where few of the blocks are anyway: a share is nothing among what the part varies by.
            let few = batches.blocks / 50;
            let (delay, late) = if late.len() > few {
                let place = late.len() - 1 - few;
                let (_, usual, later) = late.select_nth_unstable(place);
                let usual = *usual;
                (
                    usual as f64,
                    later.iter().filter(|excess| **excess > usual).count(),
                )
            } else {
                (delay, late.len())
            };
            let beside = late as f64 / batches.blocks as f64;
            let share = tail::least_share(batches.blocks, beside, self.parts);
            LeastTail {
                delay: nanos(delay).abs(),
                share,
            }
        });
        Some(Least {
            delay: nanos(delay).abs(),
            tail: tail.filter(|tail| tail.share < 1.0),
        })
    }
}

/// Makes a bump and a step two steps: if the step begins where the bump does, or where it ends and
/// the same way. Both describe a level that changed twice.
fn join(found: &mut Vec<Placed>, batches: Batches) {
    let near = 2 * batches.blocks / batches.count;
    for this in 0..found.len() {
        let bump = found[this];
        if bump.until == batches.blocks {
            continue;
        }
        let edges = |step: &Placed| {
            let [begins, ends] = [bump.since, bump.until].map(|e| step.since.abs_diff(e) <= near);
            (
                begins,
                ends && (step.level.amount > 0.0) == (bump.level.amount > 0.0),
            )
        };
        let step = found.iter().position(|step| {
            let is_step = step.until == batches.blocks && !step.level.ramp;
            is_step && edges(step) != (false, false)
        });
        let Some(step) = step else {
            continue;
        };
        let begins = edges(&found[step]).0;
        let (joined, other) = (&mut found[this], bump.level);
        (joined.until, joined.level.to) = (batches.blocks, batches.count);
        if begins {
            (joined.since, joined.level.from) = (bump.until, other.to);
            joined.level.amount = -other.amount;
            found[step].level.amount += other.amount;
        } else {
            found[step].level.amount -= other.amount;
        }
        found[step].level.error += other.error;
    }
    found.retain(|placed| placed.level.amount.abs() >= FLOOR_NS.max(placed.level.error));
}

/// Reorders `values`; zero if there are none.
fn figures(values: &mut [i64]) -> Figures {
    let mean = values.iter().map(|value| *value as f64).sum::<f64>() / values.len().max(1) as f64;
    let [p50, p95] = [0.50, 0.95].map(|share| exact_quantile(values, share).unwrap_or_default());
    Figures {
        p50: SignedNanos(p50),
        mean: nanos(mean),
        p95: SignedNanos(p95),
    }
}

fn nanos(value: f64) -> SignedNanos {
    SignedNanos(value as i64)
}
