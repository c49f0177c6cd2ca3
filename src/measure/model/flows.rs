//! The flows of a probe: one path as seen by each of several connections. A flow that differs from
//! the others in one part shows one bad link of a bundle.

use super::Model;
use crate::measure::change::math::{autocorrelation, widening};
use crate::measure::compare::{batches, RunBatch, FLOOR};
use crate::measure::series::{exact_quantile, NONE};
use crate::measure::Part;
use crate::time::SignedNanos;

/// The fewest flows of which one can differ from the others.
const NEEDED_FLOWS: usize = 4;
/// The fewest batches of a part of a flow.
const NEEDED_BATCHES: usize = 6;
/// The share of runs without any difference in which a part of a flow may be named.
const FALSE_ALARMS: f64 = 0.01;
/// The least share of the others' median by which a flow differs.
const LEAST_SHARE: f64 = 0.05;

/// The delays of one part in one flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPart {
    /// The part; the total first.
    pub part: Part,
    /// The median.
    pub p50: SignedNanos,
    /// The 95th percentile.
    pub p95: SignedNanos,
    /// The median less that of the other flows' medians, if it differs for certain; `None` if not,
    /// or for too few flows or blocks.
    pub difference: Option<SignedNanos>,
}

/// The figures of one flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowStatistics {
    /// Blocks that are in the figures.
    pub blocks: u64,
    /// The total, and the parts in order of the path; empty without blocks.
    pub parts: Vec<FlowPart>,
}

/// A part of a flow: its median and the standard error of that.
struct Side {
    p50: i64,
    batches: usize,
    error: f64,
}

impl Side {
    /// `None` for too few blocks.
    fn of(values: &[i64], p50: i64) -> Option<Self> {
        let batches: Vec<RunBatch> = batches(values);
        let n = batches.len();
        if n < NEEDED_BATCHES {
            return None;
        }
        let medians = batches.iter().map(|batch| batch.p50.0 as f64);
        let mean = medians.clone().sum::<f64>() / n as f64;
        let rest: Vec<f64> = medians.map(|median| median - mean).collect();
        let squares: f64 = rest.iter().map(|rest| rest * rest).sum();
        let spread = (squares / (n - 1) as f64).sqrt();
        // The median of a batch of a few blocks spreads more than the mean of all suggests.
        let error = spread * widening(autocorrelation(&rest, squares)) / (n as f64).sqrt();
        Some(Self {
            p50,
            batches: n,
            error,
        })
    }
}

/// The quantile of Student's distribution that `FALSE_ALARMS` of `comparisons` exceed, either way.
fn width(comparisons: usize, freedom: usize) -> f64 {
    let share = FALSE_ALARMS / (2.0 * comparisons.max(1) as f64);
    // The upper quantile of the normal distribution: Abramowitz and Stegun, 26.2.23.
    let t = (-2.0 * share.ln()).sqrt();
    let top = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let bottom = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = t - top / bottom;
    // And Student's by it: 26.7.5.
    let n = freedom as f64;
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * n)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * n * n * n)
}

/// Returns by how much the flow `own` differs from the median of the others for certain.
fn difference(own: usize, flows: &[Option<Side>], comparisons: usize) -> Option<SignedNanos> {
    let side = flows.get(own)?.as_ref()?;
    let others = flows.iter().enumerate().filter(|(flow, _)| *flow != own);
    let others: Vec<&Side> = others.filter_map(|(_, side)| side.as_ref()).collect();
    if others.len() + 1 < NEEDED_FLOWS {
        return None;
    }
    let mut medians: Vec<i64> = others.iter().map(|other| other.p50).collect();
    let median = exact_quantile(&mut medians, 0.5)?;
    let mut errors: Vec<f64> = others.iter().map(|other| other.error).collect();
    errors.sort_unstable_by(f64::total_cmp);
    let error = errors.get(errors.len() / 2).copied().unwrap_or_default();
    // What usual flows differ by: the way of each is another one.
    let mut apart: Vec<i64> = medians.iter().map(|other| (other - median).abs()).collect();
    let apart = exact_quantile(&mut apart, 0.5)? as f64 * 1.5;
    let difference = side.p50 - median;
    let width = width(comparisons, side.batches - 1);
    let half = width * (side.error.powi(2) + error.powi(2) + apart.powi(2)).sqrt();
    let least = (median.abs() as f64 * LEAST_SHARE).max(FLOOR.0 as f64);
    let certain = difference.abs() as f64 - half > least;
    certain.then_some(SignedNanos(difference))
}

impl Model {
    /// The figures of each of `count` flows: the flow of a block is its `connection`.
    pub fn flows(&self, count: usize) -> Vec<FlowStatistics> {
        let Some(path) = self.path() else {
            return vec![FlowStatistics::default(); count];
        };
        let parts = path.parts().into_iter();
        let columns: Vec<(Part, usize)> = parts
            .filter_map(|part| Some((part, path.part(part)?.1)))
            .collect();
        // Of each flow the values of the total, then those of each part.
        let mut values = vec![vec![Vec::new(); columns.len() + 1]; count];
        for row in path.rows.all() {
            let Some(flow) = values.get_mut(row.connection as usize) else {
                continue;
            };
            let mut total = 0_i64;
            for (place, (_, column)) in (1..).zip(&columns) {
                let cell = row.cells.get(*column).unwrap_or(NONE);
                if cell != NONE {
                    flow[place].push(cell);
                    total = total.wrapping_add(cell);
                }
            }
            flow[0].push(total);
        }
        let mut flows = vec![FlowStatistics::default(); count];
        let names = std::iter::once(Part::Total).chain(columns.iter().map(|(part, _)| *part));
        // The total differs where one of its parts does.
        let comparisons = count * columns.len();
        for (place, part) in names.enumerate() {
            let mut sides = Vec::with_capacity(count);
            for (flow, values) in flows.iter_mut().zip(&values) {
                let mut sorted = values[place].clone();
                let quantiles = [0.5, 0.95].map(|share| exact_quantile(&mut sorted, share));
                let [Some(p50), Some(p95)] = quantiles else {
                    sides.push(None);
                    continue;
                };
                sides.push(Side::of(&values[place], p50).filter(|_| part != Part::Total));
                flow.blocks = values[0].len() as u64;
                flow.parts.push(FlowPart {
                    part,
                    p50: SignedNanos(p50),
                    p95: SignedNanos(p95),
                    difference: None,
                });
            }
            for (own, flow) in flows.iter_mut().enumerate() {
                let found = difference(own, &sides, comparisons);
                if let Some(last) = flow.parts.last_mut().filter(|last| last.part == part) {
                    last.difference = found;
                }
            }
        }
        flows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// The values of `flows` flows of `blocks` blocks around 5 ms, with a spread of about 0.3 ms
    /// and an outlier in a hundred. Flow 4 is later by `later` ms.
    fn sides(random: &mut Random, flows: usize, blocks: usize, later: f64) -> Vec<Option<Side>> {
        let one = |flow: usize, random: &mut Random| {
            let values = (0..blocks).map(|_| {
                let spread: f64 = (0..4)
                    .map(|_| random.below(1000) as f64 / 1000.0 - 0.5)
                    .sum::<f64>()
                    * 0.5;
                let outlier = if random.below(100) == 0 { 30.0 } else { 0.0 };
                let late = if flow == 4 { later } else { 0.0 };
                ((5.0 + spread + outlier + late) * 1e6) as i64
            });
            let values: Vec<i64> = values.collect();
            let p50 = exact_quantile(&mut values.clone(), 0.5).unwrap();
            Side::of(&values, p50)
        };
        (0..flows).map(|flow| one(flow, random)).collect()
    }

    #[test]
    fn equal_flows_are_hardly_ever_named_and_one_that_differs_is_alone() {
        const SEED: u64 = 0x5eed_0f10;
        let mut random = Random::new(SEED);
        let mut named = [0; 2];
        for run in 0..400 {
            let blocks = 40 + random.below(200);
            for (which, later) in [0.0, 3.0].into_iter().enumerate() {
                let sides = sides(&mut random, 8, blocks, later);
                for own in 0..8 {
                    let found = difference(own, &sides, 72);
                    let is_odd = which == 1 && own == 4;
                    if !is_odd {
                        named[0] += u32::from(found.is_some());
                    } else if let Some(by) = found {
                        named[1] += 1;
                        let off = (by.0 - 3_000_000).abs();
                        assert!(off < 500_000, "seed {SEED:#x} run {run}: {by:?}");
                    }
                }
            }
        }
        // 800 runs of a ninth of the comparisons that are corrected for.
        assert!(named[0] <= 8, "{} named for nothing", named[0]);
        assert!(named[1] >= 396, "{} of 400 found", named[1]);
    }

    #[test]
    fn few_flows_or_blocks_are_not_compared() {
        let mut random = Random::new(1);
        for (flows, blocks, is_found) in [(8, 100, true), (5, 100, true), (8, 29, false)] {
            let sides = sides(&mut random, flows, blocks, 20.0);
            let found = difference(4, &sides, 72);
            assert_eq!(found.is_some(), is_found, "{flows} flows of {blocks}");
        }
        let three: Vec<_> = sides(&mut random, 5, 100, 20.0).drain(2..).collect();
        assert_eq!(difference(2, &three, 72), None, "three flows");
    }

    #[test]
    fn the_width_is_that_of_a_table_of_students_distribution() {
        // One comparison at 99 %, both sides: 3.250 for 9 degrees of freedom, 2.861 for 19.
        for (freedom, table) in [(9, 3.250), (19, 2.861), (1000, 2.581)] {
            let width = width(1, freedom);
            assert!((width - table).abs() < 0.02, "{freedom}: {width}");
        }
    }
}
