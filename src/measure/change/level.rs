//! Changes of the median: the best step, bump or ramp through the medians of the batches. Each is
//! tested for certainty against correlated noise, and for sharpness against drift elsewhere.

use super::math::{autocorrelation, mean, median, widening};
use super::own_blocks::Batches;
use super::FLOOR_NS;

/// Half the width of an amount's interval, in standard errors.
const INTERVAL: f64 = 2.9;
/// Ramps, that begin at each quarter.
const RAMPS: usize = 4;
/// Several changes that are only seen together have to be so many times as certain and as sharp.
const TOGETHER: f64 = 1.5;
/// Rounds in which each of them is fitted anew, without the others.
const ROUNDS: usize = 2;
/// Autocorrelation of what one shape leaves, from which on there may be more.
const UNEXPLAINED: f64 = 0.35;
/// The factor from a change that is named in half of the runs to one named in 95 of 100. Either
/// affects at least half of the blocks.
const LEAST: f64 = 1.6;

/// The sharpness that an edge needs, in units of what wanders; certainty needs twice as much.
fn limit(batches: usize) -> f64 {
    if batches >= 40 {
        5.5
    } else {
        6.0
    }
}

/// A ramp has no edge, so it needs so many standard errors; a base that wanders looks like one.
fn ramp_limit(batches: usize) -> f64 {
    if batches >= 40 {
        26.0
    } else {
        20.0
    }
}

/// A shape through the batch medians, from batch `from` to before batch `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    pub(super) from: usize,
    pub(super) to: usize,
    /// It rises steadily from `from` to the end, by `amount` in all.
    pub(super) ramp: bool,
    /// Nanoseconds; negative for a fall.
    pub(super) amount: f64,
    /// Half the width of its interval.
    pub(super) error: f64,
    named: bool,
}

impl Level {
    fn interval(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            ramp: false,
            amount: 0.0,
            error: 0.0,
            named: false,
        }
    }

    /// The shape itself, less its mean.
    fn centred(&self, batches: usize) -> Vec<f64> {
        centred(
            &(0..batches)
                .map(|batch| self.at(batch, batches))
                .collect::<Vec<_>>(),
        )
    }

    /// The least of the jumps at its edges, in units of `unit`.
    fn sharpness(&self, m: &[f64], unit: f64) -> f64 {
        let up = jump(m, self.from).abs();
        let down = if self.to < m.len() {
            jump(m, self.to).abs()
        } else {
            f64::INFINITY
        };
        up.min(down) / unit
    }

    /// The level of batch `batch` as a share of `amount`.
    pub(super) fn at(&self, batch: usize, batches: usize) -> f64 {
        if self.ramp {
            let (place, from) = (batch as f64 + 0.5, self.from as f64);
            ((place - from) / (batches as f64 - from)).clamp(0.0, 1.0)
        } else if (self.from..self.to).contains(&batch) {
            1.0
        } else {
            0.0
        }
    }
}

/// The medians of the batches of own blocks.
pub(super) fn medians(delays: &[i64], batches: Batches, sorted: &mut Vec<i64>) -> Vec<f64> {
    let of = |batch| {
        sorted.clear();
        sorted.extend_from_slice(&delays[batches.range(batch, batch + 1)]);
        median(sorted)
    };
    (0..batches.count).map(of).collect()
}

/// A named change of the median; `None` if nothing is certain and sharp enough.
pub(super) fn find(medians: &[f64], batches: Batches) -> Option<Level> {
    Some(scan(medians, batches)).filter(|level| level.named)
}

/// Amount and error of `shape` anew, from medians without the other changes.
pub(super) fn refit(shape: Level, medians: &[f64]) -> Level {
    let fit = Fit::of(shape, &centred(medians));
    Level {
        amount: fit.amount,
        error: INTERVAL * fit.error,
        ..shape
    }
}

/// Half the width of the interval of the mean of batches `from..to` less that of the others.
pub(super) fn error(from: usize, to: usize, means: &[f64]) -> f64 {
    refit(Level::interval(from, to), means).error
}

/// The least change that would have been named in 95 of 100 runs. It affects more than half of the
/// blocks and lasts for at least `count / 5` batches.
pub(super) fn least(medians: &[f64]) -> f64 {
    let m = centred(medians);
    let k = m.len() as f64;
    let squares: f64 = m.iter().map(|v| v * v).sum();
    let spread = (squares / (k - 1.0)).sqrt();
    let phi = widening(autocorrelation(&m, squares));
    let unit = spread.max(wander(&m));
    let short = (m.len() / 5).max(2) as f64;
    let limit = limit(m.len());
    let certain = 2.0 * limit * spread * phi * (1.0 / short + 1.0 / (k - short)).sqrt();
    let sharp = limit * unit * (2.0f64 / 3.0).sqrt();
    LEAST * certain.max(sharp).max(FLOOR_NS)
}

fn centred(values: &[f64]) -> Vec<f64> {
    let middle = mean(values);
    values.iter().map(|v| v - middle).collect()
}

/// One shape fitted to centred values.
struct Fit {
    residuals: Vec<f64>,
    /// Standard deviation of the residuals.
    spread: f64,
    amount: f64,
    /// Standard error of the amount.
    error: f64,
}

impl Fit {
    fn of(shape: Level, m: &[f64]) -> Self {
        let g = shape.centred(m.len());
        let squares = dot(&g, &g);
        let amount = dot(&g, m) / squares;
        let residuals: Vec<f64> = m.iter().zip(&g).map(|(m, g)| m - amount * g).collect();
        let rest = dot(&residuals, &residuals);
        let spread = (rest.max(1e-6) / (m.len() - 3) as f64).sqrt();
        let phi = widening(autocorrelation(&residuals, rest));
        Self {
            residuals,
            spread,
            amount,
            error: spread * phi / squares.sqrt(),
        }
    }
}

/// The shape that explains most of centred values, not judged yet. `ramps` is the number of ramps
/// among the shapes, 4 or none. To two steps a ramp is so near that no second shape helps it.
fn best_shape(m: &[f64], batches: Batches, ramps: usize) -> Level {
    let k = m.len();
    let mut sums = vec![0.0];
    sums.extend(m.iter().scan(0.0, |sum, v| {
        *sum += v;
        Some(*sum)
    }));
    let (mut best, mut most) = (Level::interval(2, k), 0.0);
    batches.each_shape(|from, to| {
        let sum = sums[to] - sums[from];
        let inside = (to - from) as f64;
        let explained = sum * sum / (inside * (1.0 - inside / k as f64));
        if explained > most {
            (best, most) = (Level::interval(from, to), explained);
        }
    });
    for quarter in 0..ramps {
        let ramp = Level {
            ramp: true,
            ..Level::interval(quarter * k / 4, k)
        };
        let g = ramp.centred(k);
        let product = dot(&g, m);
        let explained = product * product / dot(&g, &g);
        if explained > most {
            (best, most) = (ramp, explained);
        }
    }
    best.amount = dot(&best.centred(k), m) / dot(&best.centred(k), &best.centred(k));
    best
}

/// Named changes of the median, `count` of them, which are only certain and sharp together: each
/// one alone would be noise to the others. `None` if one of them is not.
pub(super) fn find_together(medians: &[f64], batches: Batches, count: usize) -> Option<Vec<Level>> {
    let m = centred(medians);
    let k = m.len();
    let alone = Fit::of(best_shape(&m, batches, RAMPS), &m).residuals;
    if autocorrelation(&alone, dot(&alone, &alone)) < UNEXPLAINED {
        return None;
    }
    let mut shapes: Vec<Level> = Vec::new();
    for _ in 0..count {
        shapes.push(best_shape(&without(&m, &shapes, None), batches, 0));
        solve(&mut shapes, &m);
        for again in 0..ROUNDS * shapes.len() {
            let this = again % shapes.len();
            shapes[this] = best_shape(&without(&m, &shapes, Some(this)), batches, 0);
            solve(&mut shapes, &m);
        }
    }
    let residuals = without(&m, &shapes, None);
    let squares = dot(&residuals, &residuals);
    let spread = (squares.max(1e-6) / (k - 1 - 2 * count) as f64).sqrt();
    let bias = 2.0 * (count - 1) as f64 / k as f64;
    let phi = widening((autocorrelation(&residuals, squares) + bias).min(0.95));
    let unit = spread.max(wander(&residuals));
    let limit = limit(k) * TOGETHER;
    for this in 0..count {
        let alone = without(&m, &shapes, Some(this));
        let others: Vec<Level> = [&shapes[..this], &shapes[this + 1..]].concat();
        let own = own_part(shapes[this].centred(k), &others);
        let error = spread * phi / dot(&own, &own).max(1e-9).sqrt();
        let shape = &mut shapes[this];
        let (certain, sharp) = (shape.amount.abs() / error, shape.sharpness(&alone, unit));
        let named = certain >= 2.0 * limit && sharp >= limit;
        if !named || shape.amount.abs() < FLOOR_NS {
            return None;
        }
        shape.error = INTERVAL * error;
    }
    Some(shapes)
}

/// Centred values less the shapes, except for the one at `except`.
fn without(m: &[f64], shapes: &[Level], except: Option<usize>) -> Vec<f64> {
    let mut rest = m.to_vec();
    for (place, shape) in shapes.iter().enumerate() {
        if Some(place) != except {
            let g = shape.centred(m.len());
            rest.iter_mut()
                .zip(&g)
                .for_each(|(rest, g)| *rest -= shape.amount * g);
        }
    }
    rest
}

/// Sets the amounts of the shapes so that they explain the most together. Each counts by the part
/// that the others lack, from the last to the first (Gram-Schmidt with back substitution). A shape
/// without such a part gets 0.
fn solve(shapes: &mut [Level], m: &[f64]) {
    let mut rest = m.to_vec();
    for last in (0..shapes.len()).rev() {
        let (before, this) = (&shapes[..last], &shapes[last]);
        let own = own_part(this.centred(m.len()), before);
        let squares = dot(&own, &own);
        let amount = if squares > 1e-6 {
            dot(&own, &rest) / squares
        } else {
            0.0
        };
        let g = this.centred(m.len());
        rest.iter_mut()
            .zip(&g)
            .for_each(|(rest, g)| *rest -= amount * g);
        shapes[last].amount = amount;
    }
}

/// The values of a shape, less what the other shapes explain of them.
fn own_part(mut g: Vec<f64>, others: &[Level]) -> Vec<f64> {
    let mut apart: Vec<Vec<f64>> = Vec::new();
    let reduce = |g: &mut Vec<f64>, apart: &[Vec<f64>]| {
        for other in apart {
            let part = dot(g, other) / dot(other, other).max(1e-9);
            g.iter_mut()
                .zip(other)
                .for_each(|(g, other)| *g -= part * other);
        }
    };
    for other in others {
        let mut other = other.centred(g.len());
        reduce(&mut other, &apart);
        apart.push(other);
    }
    reduce(&mut g, &apart);
    g
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The shape that explains most, with its certainty and sharpness.
fn scan(medians: &[f64], batches: Batches) -> Level {
    let m = centred(medians);
    let k = m.len();
    let best = best_shape(&m, batches, RAMPS);
    let fit = Fit::of(best, &m);
    let certain = fit.amount.abs() / fit.error;
    let limit = limit(k);
    let named = if best.ramp {
        certain >= ramp_limit(k)
    } else {
        let unit = fit.spread.max(wander(&fit.residuals));
        certain >= 2.0 * limit && best.sharpness(&m, unit) >= limit
    };
    Level {
        amount: fit.amount,
        error: INTERVAL * fit.error,
        named: named && fit.amount.abs() >= FLOOR_NS,
        ..best
    }
}

/// The mean of up to 3 batches from `edge` on, less that of up to 3 before it. The unit is its
/// error for independent batches of spread 1.
fn jump(m: &[f64], edge: usize) -> f64 {
    let before = &m[edge.saturating_sub(3)..edge];
    let after = &m[edge..(edge + 3).min(m.len())];
    let error = (1.0 / before.len() as f64 + 1.0 / after.len() as f64).sqrt();
    (mean(after) - mean(before)) / error
}

/// The root of the mean square of the jumps at all places.
fn wander(m: &[f64]) -> f64 {
    let jumps = (2..m.len() - 1).map(|edge| jump(m, edge));
    let squares: f64 = jumps.map(|jump| jump * jump).sum();
    (squares / (m.len() - 3) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn noise(random: &mut Random) -> f64 {
        (0..12).map(|_| random.below(1000) as f64).sum::<f64>() - 6_000.0
    }

    /// 40 medians with a spread of about 0.1 ms, and `add` milliseconds on top of each.
    fn medians_with(seed: u64, add: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut random = Random::new(seed);
        (0..40)
            .map(|batch| 1e7 + noise(&mut random) * 100.0 + add(batch) * 1e6)
            .collect()
    }

    #[test]
    fn a_step_a_bump_and_a_ramp_are_distinguished() {
        let batches = Batches::of(400).unwrap();
        for seed in 0..200 {
            let step = medians_with(seed, |b| if b >= 13 { 3.0 } else { 0.0 });
            let step = find(&step, batches).unwrap();
            assert_eq!(
                (step.from, step.to, step.ramp),
                (13, 40, false),
                "seed {seed}"
            );
            assert!(
                (step.amount - 3e6).abs() < step.error,
                "seed {seed}: {step:?}"
            );
            let bump = medians_with(seed, |b| if (13..20).contains(&b) { -3.0 } else { 0.0 });
            let bump = find(&bump, batches).unwrap();
            assert_eq!(
                (bump.from, bump.to, bump.ramp),
                (13, 20, false),
                "seed {seed}"
            );
            let ramp = medians_with(seed, |b| b as f64 * 0.2);
            assert!(find(&ramp, batches).unwrap().ramp, "seed {seed}");
            assert_eq!(
                find(&medians_with(seed, |_| 0.0), batches),
                None,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn levels_that_change_twice_are_found_together() {
        let batches = Batches::of(400).unwrap();
        for (first, second) in [(3.0, 5.0), (8.0, -4.0), (3.0, 3.0), (8.0, -6.0)] {
            for seed in 0..40 {
                let add = |b| match b {
                    0..=11 => 0.0,
                    12..=27 => first,
                    _ => first + second,
                };
                let medians = medians_with(seed, add);
                let found = find_together(&medians, batches, 2);
                let found = found.unwrap_or_else(|| panic!("seed {seed}: {first} {second}"));
                let mut edges: Vec<usize> = found.iter().flat_map(|f| [f.from, f.to]).collect();
                edges.sort_unstable();
                edges.dedup();
                assert_eq!(edges, [12, 28, 40], "seed {seed}: {found:?}");
            }
        }
    }

    #[test]
    fn medians_that_do_not_vary_name_nothing_and_a_step_of_them_is_named() {
        let batches = Batches::of(400).unwrap();
        assert_eq!(find(&[5e6; 40], batches), None);
        assert_eq!(least(&[5e6; 40]), LEAST * FLOOR_NS);
        let step: Vec<f64> = (0..40).map(|b| if b < 20 { 5e6 } else { 6e6 }).collect();
        let found = find(&step, batches).unwrap();
        assert_eq!((found.from, found.to, found.amount), (20, 40, 1e6));
    }
}
