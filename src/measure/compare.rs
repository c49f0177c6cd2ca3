//! Two runs, or two spans of a state, part by part: the difference of the medians and its interval.

use super::change::math::{autocorrelation, widening};
use super::series::{exact_quantile, Rows, NONE};
use super::{Part, Record};
use crate::time::{Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;

/// Batches of a run.
const BATCHES: usize = 20;
/// The fewest batches that have an interval.
const NEEDED: usize = 3;
/// The fewest blocks of a batch.
const SMALLEST: usize = 5;
/// Half the width of an interval is at least this: user space cannot blame a network for less.
pub(super) const FLOOR: Nanos = Nanos::from_micros(100);
/// Half the width of an interval, in standard errors: 1 % in one of ten parts.
const WIDTH: f64 = 3.5;

/// A stretch of a run: blocks one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunBatch {
    /// Blocks.
    pub count: u64,
    /// Their median.
    pub p50: SignedNanos,
    /// Their arithmetic mean.
    pub mean: SignedNanos,
}

/// The batches of a part, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartBatches {
    /// The part.
    pub part: Part,
    /// At most 20 of a run, with equal counts of blocks.
    pub batches: Vec<RunBatch>,
}

/// Cuts the blocks that have a value in a column into batches; none for under 15 blocks.
pub(super) fn cut(rows: &Rows, part: Part, column: usize) -> PartBatches {
    let cells = rows.all().filter_map(|row| row.cells.get(column));
    let values: Vec<i64> = cells.filter(|value| *value != NONE).collect();
    PartBatches {
        part,
        batches: batches(&values),
    }
}

/// Cuts delays in the order of time into batches; none for under 15.
pub(super) fn batches(values: &[i64]) -> Vec<RunBatch> {
    let count = (values.len() / SMALLEST).min(BATCHES);
    let bound = |batch: usize| batch * values.len() / count.max(1);
    let batches = (0..count).filter(|_| count >= NEEDED).map(|batch| {
        let mut values = values[bound(batch)..bound(batch + 1)].to_vec();
        let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
        let mean = (sum / values.len().max(1) as i128) as i64;
        RunBatch {
            count: values.len() as u64,
            p50: SignedNanos(exact_quantile(&mut values, 0.5).unwrap_or(mean)),
            mean: SignedNanos(mean),
        }
    });
    batches.collect()
}

/// One side of a comparison: a part's median, and its batches where they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSide {
    /// The median of all blocks.
    pub p50: SignedNanos,
    /// The batches; empty where they are not known.
    pub batches: Vec<RunBatch>,
}

impl RunSide {
    /// The standard error of the median in nanoseconds; `None` for too few batches.
    fn error(&self) -> Option<f64> {
        let n = self.batches.len();
        if n < NEEDED {
            return None;
        }
        let values = self.batches.iter().map(|batch| batch.p50.0 as f64);
        let mean = values.clone().sum::<f64>() / n as f64;
        let e: Vec<f64> = values.map(|value| value - mean).collect();
        let squares: f64 = e.iter().map(|e| e * e).sum();
        let spread = (squares / (n - 1) as f64).sqrt();
        let wider = widening(autocorrelation(&e, squares));
        Some(spread * wider / (n as f64).sqrt())
    }
}

/// A part that both sides have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The part.
    pub part: Part,
    /// The median before.
    pub before: SignedNanos,
    /// The median after.
    pub after: SignedNanos,
    /// The ends of the interval of their difference (about 99 % for all parts together); `None`
    /// without batches.
    pub interval: Option<[SignedNanos; 2]>,
}

impl Compared {
    /// After less before.
    pub fn difference(&self) -> SignedNanos {
        self.after - self.before
    }

    /// The part rose beyond its interval.
    pub fn rose(&self) -> bool {
        self.interval.is_some_and(|[low, _]| low.0 > 0)
    }

    /// The part fell beyond its interval.
    pub fn fell(&self) -> bool {
        self.interval.is_some_and(|[_, high]| high.0 < 0)
    }
}

/// Compares the parts that both have, in order of the path.
pub fn compare(before: &VecMap<Part, RunSide>, after: &VecMap<Part, RunSide>) -> Vec<Compared> {
    let both = before
        .iter()
        .filter_map(|(part, side)| Some((*part, side, after.get(part)?)));
    let one = |(part, before, after): (Part, &RunSide, &RunSide)| {
        let half = |a: f64, b: f64| {
            let half = WIDTH * (a * a + b * b).sqrt();
            Nanos(half as u64).max(FLOOR).signed()
        };
        let half = before.error().zip(after.error()).map(|(a, b)| half(a, b));
        let difference = after.p50 - before.p50;
        Compared {
            part,
            before: before.p50,
            after: after.p50,
            interval: half.map(|half| [difference - half, difference + half]),
        }
    };
    let mut compared: Vec<Compared> = both.map(one).collect();
    compared.sort_by_key(|compared| order(compared.part));
    compared
}

/// The place of a part on the path.
fn order(part: Part) -> (u8, u8) {
    match part {
        Part::Host(hop) => (hop, 0),
        Part::Connect { from, .. } => (from, 1),
        Part::Segment { from, .. } => (from, 2),
        Part::Behind(hop) => (hop, 3),
        Part::ServerConnect => (u8::MAX, 4),
        Part::Server => (u8::MAX, 5),
        Part::Total => (u8::MAX, 6),
    }
}

/// The records of a state that ended until `before`, and those that began from `after` on. Of the
/// earlier ones as many are taken as there are later ones, at least 12. Each is a batch. Records of
/// an unset clock are left out.
pub fn sides(records: &[Record], before: WallTime, after: WallTime) -> [VecMap<Part, RunSide>; 2] {
    let set = || records.iter().filter(|record| record.when.is_clock_set());
    let later: Vec<&Record> = set().filter(|record| record.when.wall >= after).collect();
    let end = |record: &Record| record.when.wall.0.saturating_add(record.window.0);
    let earlier: Vec<&Record> = set().filter(|record| end(record) <= before.0).collect();
    let most = later.len().max(12);
    let earlier = earlier[earlier.len().saturating_sub(most)..].to_vec();
    [earlier, later].map(|records| {
        let mut sides: VecMap<Part, RunSide> = VecMap::new();
        for record in records {
            for (part, figures) in record.parts.iter() {
                let side = sides.get_or_insert_with(part, RunSide::default);
                side.batches.push(RunBatch {
                    count: figures.count,
                    p50: figures.p50,
                    mean: figures.mean,
                });
            }
        }
        for side in sides.values_mut() {
            let mut medians: Vec<i64> = side.batches.iter().map(|batch| batch.p50.0).collect();
            side.p50 = SignedNanos(exact_quantile(&mut medians, 0.5).unwrap_or(0));
        }
        sides
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        fn unit(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// A side of 20 batches around `level` ms, each off by up to `spread` ms.
        fn side(&mut self, level: f64, spread: f64) -> RunSide {
            let mut at = |_| {
                let off = (self.unit() + self.unit() - 1.0) * spread;
                let p50 = SignedNanos(((level + off) * 1e6) as i64);
                RunBatch {
                    count: 5,
                    p50,
                    mean: p50,
                }
            };
            let batches: Vec<RunBatch> = (0..20).map(&mut at).collect();
            let mut values: Vec<i64> = batches.iter().map(|batch| batch.p50.0).collect();
            let p50 = SignedNanos(exact_quantile(&mut values, 0.5).unwrap_or(0));
            RunSide { p50, batches }
        }
    }

    #[test]
    fn unchanged_parts_are_within_their_interval_and_rises_and_falls_are_not() {
        let mut wrong = 0;
        for seed in 1..=500 {
            let mut random = Random(seed * 0x9e37_79b9);
            let part = Part::Segment { from: 0, to: 1 };
            let side = |random: &mut Random, level| VecMap::from([(part, random.side(level, 0.3))]);
            let base = side(&mut random, 30.0);
            for (level, sign) in [(30.0, 0), (31.0, 1), (29.0, -1)] {
                let after = side(&mut random, level);
                let found = compare(&base, &after)[0];
                let seen = i32::from(found.rose()) - i32::from(found.fell());
                wrong += usize::from(seen != sign);
                let [low, high] = found.interval.expect("there are batches");
                assert!(
                    low <= found.difference() && found.difference() <= high,
                    "seed {seed}"
                );
            }
        }
        assert!(wrong <= 3, "{wrong} of 1500 wrong");
    }

    #[test]
    fn without_batches_there_is_a_difference_and_no_interval() {
        let part = Part::Host(1);
        let side = |p50| RunSide {
            p50: SignedNanos(p50),
            batches: Vec::new(),
        };
        let [before, after] = [5, 9].map(|p50| VecMap::from([(part, side(p50))]));
        let found = compare(&before, &after)[0];
        assert_eq!((found.difference(), found.interval), (SignedNanos(4), None));
        assert!(!found.rose() && !found.fell());
    }
}
