//! Changes of 3 to 50 % of the blocks. The scan counts own blocks that are later than usual, or
//! that a retransmission delayed.

use super::math::CountLogs;
use super::own_blocks::Batches;
use super::FLOOR_NS;

/// Quantiles of the excess over the base above which a block is counted.
const LEVELS: [f64; 8] = [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995];
/// Own blocks around a block that its base is taken from, on either side, and their quantile.
const AROUND: usize = 10;
const BASE: f64 = 0.3;
/// Likelihood ratio that names a change of one of nine parts.
const RATIO: f64 = 25.0;
/// Separate places at which it has to be seen.
pub(super) const PLACES: usize = 7;
/// Own blocks that it lasts, and that lie beside it, at least.
const SPAN: usize = 30;
/// By so much less of the ratio, a step is preferred over a bump. A bump that ends two batches
/// before the run does is mostly a step with two quiet batches.
const SIMPLER: f64 = 8.0;
/// Least ratio, as a multiple of [`RATIO`], of a change that is named in 95 of 100 runs.
const LEAST: f64 = 2.4;

/// The likelihood ratio that names a change, on a path of `parts` parts.
fn limit(parts: usize) -> f64 {
    RATIO + 2.0 * super::math::ln(parts.max(9) as f64 / 9.0)
}

/// A change of the share of blocks that are late, from batch `from` to before batch `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tail {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Shares of the own blocks that are late, in it and beside it.
    pub(super) inside: f64,
    pub(super) beside: f64,
    /// Later than its base by so many nanoseconds, a block is late; `None`: retransmitted ones are.
    pub(super) above: Option<i64>,
    ratio: f64,
}

impl Tail {
    /// Counts a block, by its excess over the base and by its flag.
    pub(super) fn is_late(&self, excess: i64, retransmitted: bool) -> bool {
        self.above.map_or(retransmitted, |above| excess > above)
    }

    /// Weight of a block for being in the change less that for being beside it, by `late`.
    pub(super) fn weight(&self, late: bool) -> f64 {
        let bound = |share: f64| share.clamp(1e-3, 1.0 - 1e-3);
        let (inside, beside) = (bound(self.inside), bound(self.beside));
        if late {
            super::math::ln(inside / beside)
        } else {
            super::math::ln((1.0 - inside) / (1.0 - beside))
        }
    }
}

/// Each own block's delay less the 30 % quantile of those around it, into `out`.
pub(super) fn excesses(delays: &[i64], out: &mut Vec<i64>) {
    out.clear();
    let mut around = [i64::MAX; 2 * AROUND + 1];
    for value in &delays[..AROUND.min(delays.len())] {
        replace(&mut around, i64::MAX, *value);
    }
    for (index, delay) in delays.iter().enumerate() {
        // Places without a block hold the greatest value, and come last.
        let next = delays.get(index + AROUND).copied();
        let old = index.checked_sub(AROUND + 1).map(|old| delays[old]);
        replace(
            &mut around,
            old.unwrap_or(i64::MAX),
            next.unwrap_or(i64::MAX),
        );
        let count = index.min(AROUND) + 1 + AROUND.min(delays.len() - 1 - index);
        let base = around[(BASE * (count - 1) as f64) as usize];
        out.push(delay.saturating_sub(base));
    }
}

/// Replaces the value `old` among sorted ones by `new`.
fn replace(sorted: &mut [i64], old: i64, new: i64) {
    let mut place = sorted.partition_point(|value| *value < old);
    while place + 1 < sorted.len() && sorted[place + 1] < new {
        sorted[place] = sorted[place + 1];
        place += 1;
    }
    while place > 0 && sorted[place - 1] > new {
        sorted[place] = sorted[place - 1];
        place -= 1;
    }
    sorted[place] = new;
}

/// The highest delay that counts for amounts: `middle` plus three times the usual excess of late
/// blocks. So one stall does not decide an amount. `late` holds their excesses.
pub(super) fn cap(middle: f64, late: &mut [i64]) -> f64 {
    middle + 3.0 * super::math::median(late).max(FLOOR_NS)
}

/// A named change of the late blocks; `None` if none is likely enough. Rises and falls alike.
pub(super) fn find(
    excesses: &[i64],
    retransmitted: &[bool],
    batches: Batches,
    parts: usize,
    logs: &mut CountLogs,
) -> Option<Tail> {
    logs.reach(batches.blocks);
    // On a quiet part the floor divides: a quantile may lie among the late blocks themselves.
    let floor = FLOOR_NS as i64;
    let above_floor = excesses.iter().copied().filter(|excess| *excess > floor);
    let mut ranked: Vec<i64> = above_floor.collect();
    ranked.sort_unstable();
    let below = excesses.len() - ranked.len();
    let mut best: Option<Tail> = None;
    let mut take = |found: Option<Tail>| {
        if found.is_some_and(|found| best.map_or(true, |best| found.ratio > best.ratio)) {
            best = found;
        }
    };
    let mut late = vec![false; excesses.len()];
    let mut before = None;
    for level in LEVELS {
        let rank = ((level * excesses.len() as f64) as usize).min(excesses.len() - 1);
        let above = rank.checked_sub(below).map_or(floor, |rank| ranked[rank]);
        if before == Some(above) {
            continue;
        }
        before = Some(above);
        for (late, excess) in late.iter_mut().zip(excesses) {
            *late = *excess > above;
        }
        take(scan(&late, batches, logs).map(|found| Tail {
            above: Some(above),
            ..found
        }));
    }
    if retransmitted.contains(&true) {
        take(scan(retransmitted, batches, logs));
    }
    best.filter(|best| best.ratio >= limit(parts))
}

/// The most likely change of the share of `late` blocks; `None` if it is seen at too few places.
fn scan(late: &[bool], batches: Batches, logs: &CountLogs) -> Option<Tail> {
    let k = batches.count;
    // Late blocks, and runs of neighbouring ones that begin, before each batch.
    let mut hits = [0usize; 41];
    let mut runs = [0usize; 41];
    let mut starts = [0usize; 41];
    let mut before = false;
    for batch in 0..k {
        let range = batches.range(batch, batch + 1);
        starts[batch + 1] = range.end;
        hits[batch + 1] = hits[batch];
        runs[batch + 1] = runs[batch];
        for late in &late[range] {
            hits[batch + 1] += usize::from(*late);
            runs[batch + 1] += usize::from(*late && !before);
            before = *late;
        }
    }
    let (all, count) = (hits[k], late.len());
    if all < PLACES {
        return None;
    }
    let (mut most, mut shape) = (0.0, (0, 0));
    let same = logs.likelihood(all, count);
    let ratio_of = |from: usize, to: usize| {
        // Nominal lengths, so that a batch that holds a block more does not decide.
        let nominal = (to - from) * count;
        if nominal.min(k * count - nominal) < SPAN * k {
            return 0.0;
        }
        let inside = starts[to] - starts[from];
        let c = hits[to] - hits[from];
        let split = logs.likelihood(c, inside) + logs.likelihood(all - c, count - inside);
        2.0 * (split - same)
    };
    batches.each_shape(|from, to| {
        let ratio = ratio_of(from, to);
        if ratio > most {
            (most, shape) = (ratio, (from, to));
        }
    });
    let (from, to) = shape;
    if to == 0 {
        return None;
    }
    let (ratio, step) = if to == k {
        (most, (from, k))
    } else {
        let [starts, ends] = [from, to].map(|edge| (ratio_of(edge, k), (edge, k)));
        let step = if ends.0 > starts.0 { ends } else { starts };
        (
            most,
            if step.0 > most - SIMPLER {
                step.1
            } else {
                shape
            },
        )
    };
    let shares = |from: usize, to: usize| {
        let in_it = batches.range(from, to).len();
        let c = hits[to] - hits[from];
        (
            c as f64 / in_it as f64,
            (all - c) as f64 / (count - in_it) as f64,
        )
    };
    let (inside, beside) = shares(from, to);
    let places = runs[to] - runs[from];
    let places = if inside > beside {
        places
    } else {
        runs[k] - places
    };
    if places < PLACES {
        return None;
    }
    // Clumps of late blocks and batches that differ by more than chance count for less.
    let pooled = all as f64 / count as f64;
    let (mut chi, mut variance) = (0.0, 0.0);
    for batch in 0..k {
        let n = batches.range(batch, batch + 1).len() as f64;
        let share = if (from..to).contains(&batch) {
            inside
        } else {
            beside
        };
        let own = share * (1.0 - share);
        let off = (hits[batch + 1] - hits[batch]) as f64 - n * share;
        chi += off * off / (n * own.max(pooled * (1.0 - pooled) / 2.0)).max(1e-9);
        variance += n * own;
    }
    let chi = chi / (k - 3) as f64;
    let size = variance / runs[k].max(1) as f64;
    let ratio = ratio / ((chi / 1.25).max(1.0) * (2.0 * size - 1.0).max(1.0));
    let (from, to) = step;
    let (inside, beside) = shares(from, to);
    Some(Tail {
        from,
        to,
        inside,
        beside,
        above: None,
        ratio,
    })
}

/// The least share of the blocks, of the last half of `count` own blocks, that is named in 95 of
/// 100 runs. `beside` is the share that is late anyway. 1 if no share is.
pub(super) fn least_share(count: usize, beside: f64, parts: usize) -> f64 {
    let half = count as f64 / 2.0;
    let beside = beside.clamp(1e-9, 1.0);
    let term = |share: f64, of: f64| {
        let part = |a: f64, b: f64| {
            if a > 0.0 {
                a * super::math::ln(a / b)
            } else {
                0.0
            }
        };
        part(share, of) + part(1.0 - share, 1.0 - of)
    };
    let ratio = |share: f64| {
        let pooled = (share + beside) / 2.0;
        2.0 * half * (term(share, pooled) + term(beside, pooled))
    };
    let needed = LEAST * limit(parts);
    if beside >= 0.98 || ratio(0.98) < needed {
        return 1.0;
    }
    let (mut low, mut high) = (beside, 0.98);
    for _ in 0..30 {
        let middle = (low + high) / 2.0;
        if ratio(middle) < needed {
            low = middle;
        } else {
            high = middle;
        }
    }
    (high - beside).max(PLACES as f64 * 1.7 / half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn the_base_is_the_quantile_of_the_blocks_around() {
        let mut random = Random::new(3);
        let delays: Vec<i64> = (0..300).map(|_| random.below(50) as i64).collect();
        let mut out = Vec::new();
        excesses(&delays, &mut out);
        for (index, excess) in out.iter().enumerate() {
            let end = (index + 11).min(delays.len());
            let mut around = delays[index.saturating_sub(10)..end].to_vec();
            around.sort_unstable();
            let base = around[(0.3 * (around.len() - 1) as f64) as usize];
            assert_eq!(*excess, delays[index] - base, "block {index}");
        }
    }

    #[test]
    fn a_tenth_of_the_blocks_that_becomes_late_half_way_is_found_and_gone_again_is_a_fall() {
        let batches = Batches::of(1000).unwrap();
        let mut logs = CountLogs::default();
        let mut steps = 0;
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut rise: Vec<i64> = (0..1000).map(|_| random.below(300_000) as i64).collect();
            for delay in &mut rise[500..] {
                *delay += if random.below(8) == 0 { 30_000_000 } else { 0 };
            }
            let mut out = Vec::new();
            excesses(&rise, &mut out);
            let found = find(&out, &[], batches, 9, &mut logs).unwrap();
            assert!(found.inside > found.beside, "seed {seed}: {found:?}");
            assert!((17..=23).contains(&found.from), "seed {seed}: {found:?}");
            steps += usize::from(found.to == 40);
            rise.reverse();
            excesses(&rise, &mut out);
            let found = find(&out, &[], batches, 9, &mut logs).unwrap();
            steps += usize::from(found.to == 40 && found.inside < found.beside);
        }
        assert!(steps >= 95, "{steps} of 100");
    }

    #[test]
    fn retransmissions_name_what_delay_alone_does_not() {
        let batches = Batches::of(400).unwrap();
        let mut logs = CountLogs::default();
        let mut flags = vec![false; 400];
        for index in (200..400).step_by(10) {
            flags[index] = true;
        }
        let none = find(&[0; 400], &[false; 400], batches, 9, &mut logs);
        assert_eq!(none, None);
        let found = find(&[0; 400], &flags, batches, 9, &mut logs).unwrap();
        assert_eq!((found.from, found.to, found.above), (20, 40, None));
        // One burst of as many is one place.
        let mut burst = vec![false; 400];
        burst[300..320].fill(true);
        assert_eq!(find(&[0; 400], &burst, batches, 9, &mut logs), None);
    }

    #[test]
    fn the_least_share_falls_with_the_number_of_blocks() {
        let percent = |count, beside| 100.0 * least_share(count, beside, 9);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 0.06 * b, "{a} for {b}");
        for (count, y) in [
            (100, 64.0),
            (200, 37.0),
            (400, 20.0),
            (1000, 8.4),
            (3000, 2.9),
        ] {
            close(percent(count, 0.0), y);
        }
        for (count, y) in [
            (100, 67.0),
            (200, 40.0),
            (400, 23.0),
            (1000, 11.0),
            (3000, 4.9),
        ] {
            close(percent(count, 0.01), y);
        }
    }
}
