//! The distribution of signed nanoseconds: log-linear buckets, at most 1 % relative error, bounded
//! memory.
//!
//! Each power of two is cut into 64 buckets, and a bucket stands for its middle. A quantile is off
//! by at most 1/128 of itself, and exact below 128 ns. Only buckets with a value take memory, 8
//! bytes each and 60 KiB at most. A steady round trip needs a dozen of them, so that a hundred
//! thousand connections can have two histograms each.

use super::Summary;
use crate::time::{Nanos, SignedNanos};
use std::borrow::Cow;

/// log2 of the buckets per power of two.
const PRECISION: u32 = 6;

/// Buckets that the first value makes room for: a line of the cache.
const BUCKETS_AT_FIRST: usize = 8;

/// Upper bounds of the buckets for monitoring systems, in nanoseconds: 1-2.5-5 from 50 us to 10 s.
/// They are the same for every kind of delay, so that any two can be compared. `+Inf` is added to
/// them.
pub const BUCKETS_NS: [i64; 17] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The latest values that wait for their buckets: these lie elsewhere in memory, and are looked for
/// once for so many values.
const WAITING: usize = 7;

/// The counts of signed delays by size: all that a quantile needs. It is a line of the cache.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Counts {
    count: u64,
    min: i64,
    max: i64,
    /// The buckets of the latest values.
    waiting: [i16; WAITING],
    /// How many wait.
    waits: u16,
    /// Index and count of each bucket with an earlier value, in rising order of the values.
    buckets: Vec<(i16, u32)>,
}

impl Counts {
    /// Adds one value.
    #[inline]
    pub fn record(&mut self, value: SignedNanos) {
        let value = value.0;
        if usize::from(self.waits) == WAITING {
            self.settle();
        }
        self.waiting[usize::from(self.waits)] = index(value);
        self.waits += 1;
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.count += 1;
    }

    /// Brings the values that wait to their buckets.
    #[inline(never)]
    pub fn settle(&mut self) {
        for index in &self.waiting[..usize::from(self.waits)] {
            match self.buckets.binary_search_by_key(index, |bucket| bucket.0) {
                Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(1),
                Err(at) => {
                    if self.buckets.capacity() == 0 {
                        self.buckets.reserve_exact(BUCKETS_AT_FIRST);
                    }
                    self.buckets.insert(at, (*index, 1));
                }
            }
        }
        self.waits = 0;
    }

    /// Returns the buckets of all values.
    fn buckets(&self) -> Cow<'_, [(i16, u32)]> {
        if self.waits == 0 {
            return Cow::Borrowed(&self.buckets);
        }
        let mut all = self.clone();
        all.settle();
        Cow::Owned(all.buckets)
    }

    /// Returns the number of values.
    #[inline]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the smallest value; `None` without values.
    #[inline]
    pub fn min(&self) -> Option<SignedNanos> {
        (self.count > 0).then_some(SignedNanos(self.min))
    }

    /// Touches the memory that [`record`](Self::record) will need, so that it is in the cache. The
    /// result has no meaning.
    #[inline]
    pub fn warm(&self) -> u64 {
        if usize::from(self.waits) < WAITING {
            return 0;
        }
        let middle = self.buckets.get(self.buckets.len() / 2);
        middle.map_or(0, |bucket| u64::from(bucket.1))
    }

    /// Returns the smallest value that at least `share` (0 to 1) of all values do not exceed, to 1
    /// %; `None` without values.
    pub fn quantile(&self, share: f64) -> Option<SignedNanos> {
        self.quantiles([share]).map(|[quantile]| quantile)
    }

    /// Returns the [`quantile`](Self::quantile) of each share; the shares rise.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[SignedNanos; N]> {
        // A bucket's count has an end, at 2^32: beyond it the largest value stands.
        let mut quantiles = [SignedNanos(self.max); N];
        let buckets = self.buckets();
        let (mut seen, mut buckets) = (0, buckets.iter());
        let mut index = 0;
        for (quantile, share) in quantiles.iter_mut().zip(shares) {
            let rank = nearest_rank(share, self.count)?;
            while seen < rank {
                let Some(bucket) = buckets.next() else {
                    return Some(quantiles);
                };
                index = bucket.0;
                seen += u64::from(bucket.1);
            }
            *quantile = SignedNanos(value(index).clamp(self.min, self.max));
        }
        Some(quantiles)
    }
}

/// Two are equal if they hold the same values, whatever waits.
impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        let figures = |of: &Self| (of.count, of.min, of.max);
        figures(self) == figures(other) && self.buckets() == other.buckets()
    }
}

/// A distribution of signed delays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    counts: Counts,
    /// An `i128` in halves, the low one first, for it would have the whole aligned to 16 bytes.
    sum: [u64; 2],
    // Welford's running mean and sum of squared deviations: stable where a sum of squares cancels
    // out.
    mean: f64,
    deviation: f64,
    last: i64,
}

impl Histogram {
    /// Adds one value.
    #[inline]
    pub fn record(&mut self, value: SignedNanos) {
        self.counts.record(value);
        let value = value.0;
        self.last = value;
        let sum = self.sum() + i128::from(value);
        self.sum = [sum as u64, (sum >> 64) as u64];
        let delta = value as f64 - self.mean;
        self.mean += delta / self.count() as f64;
        self.deviation += delta * (value as f64 - self.mean);
    }

    /// Returns the number of values.
    #[inline]
    pub fn count(&self) -> u64 {
        self.counts.count
    }

    /// Returns the smallest value; `None` without values.
    #[inline]
    pub fn min(&self) -> Option<SignedNanos> {
        self.counts.min()
    }

    /// Returns the latest value; `None` without values.
    pub fn last(&self) -> Option<SignedNanos> {
        (self.count() > 0).then_some(SignedNanos(self.last))
    }

    /// Touches the memory that [`record`](Self::record) will need, so that it is in the cache. The
    /// result has no meaning.
    #[inline]
    pub fn warm(&self) -> u64 {
        self.counts.warm()
    }

    /// Returns the number of values at or below `bound`, to the 1 % that a bucket is wide.
    pub fn count_up_to(&self, bound: SignedNanos) -> u64 {
        let buckets = self.counts.buckets();
        let below = buckets.iter().take_while(|b| value(b.0) <= bound.0);
        below.map(|bucket| u64::from(bucket.1)).sum()
    }

    /// Returns the middle and the count of each bucket with a value, in rising order.
    pub fn rows(&self) -> impl Iterator<Item = (SignedNanos, u64)> + '_ {
        let rows = self.counts.buckets().into_owned().into_iter();
        rows.map(|(index, count)| (SignedNanos(value(index)), u64::from(count)))
    }

    /// Brings the values that wait to their buckets, so that reading them takes no copy.
    pub fn settle(&mut self) {
        self.counts.settle();
    }

    /// Returns the exact sum in nanoseconds.
    pub fn sum(&self) -> i128 {
        let [low, high] = self.sum;
        i128::from(high as i64) << 64 | i128::from(low)
    }

    /// Returns the arithmetic mean in nanoseconds; 0 without values.
    pub fn mean_ns(&self) -> f64 {
        self.mean
    }

    /// Returns the smallest value that at least `share` (0 to 1) of all values do not exceed, to 1
    /// %; `None` without values.
    pub fn quantile(&self, share: f64) -> Option<SignedNanos> {
        self.counts.quantile(share)
    }

    /// Returns all figures at once; `None` without values.
    pub fn summary(&self) -> Option<Summary> {
        let count = self.count();
        let [p50, p90, p95, p99] = self.counts.quantiles([0.50, 0.90, 0.95, 0.99])?;
        let variance = self.deviation / count.saturating_sub(1).max(1) as f64;
        Some(Summary {
            count,
            min: SignedNanos(self.counts.min),
            // The mean lies between two i64, so it is one.
            mean: SignedNanos(self.sum().checked_div(i128::from(count))? as i64),
            stddev: Nanos(variance.max(0.0).sqrt().round() as u64),
            p50,
            p90,
            p95,
            p99,
            max: SignedNanos(self.counts.max),
            last: SignedNanos(self.last),
        })
    }
}

/// Returns the rank, from 1, of the value that `share` of `count` values do not exceed; `None`
/// without values.
pub(super) fn nearest_rank(share: f64, count: u64) -> Option<u64> {
    // The small allowance keeps 0.95 x 20 at 19, whatever the rounding of the product.
    (count > 0).then(|| ((share * count as f64 - 1e-9).ceil() as u64).clamp(1, count))
}

/// Returns the bucket of a value. Buckets of negative values mirror the others below -1.
fn index(value: i64) -> i16 {
    let bucket = bucket(value.unsigned_abs()) as i16; // Below 59 * 64 + 64.
    if value < 0 {
        -bucket - 1
    } else {
        bucket
    }
}

/// Returns the middle of a bucket.
fn value(index: i16) -> i64 {
    let value = match usize::try_from(index) {
        Ok(bucket) => middle(bucket),
        Err(_) => -middle(usize::from((index + 1).unsigned_abs())),
    };
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn bucket(magnitude: u64) -> usize {
    let exponent = 63 - (magnitude | 1).leading_zeros();
    let shift = exponent.saturating_sub(PRECISION);
    // Below 2^6 the value itself; above, 64 buckets per power of two follow each other without a
    // gap.
    (magnitude >> shift) as usize + ((shift as usize) << PRECISION)
}

fn middle(bucket: usize) -> i128 {
    let shift = (bucket >> PRECISION).saturating_sub(1);
    let low = ((bucket - (shift << PRECISION)) as i128) << shift;
    low + ((1_i128 << shift) - 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::simulator::Random;

    #[test]
    fn buckets_follow_each_other_without_a_gap_and_contain_their_middle() {
        let mut random = Random::new(1);
        let edges = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, (1 << bit) + 1]);
        let values = edges.chain((0..20_000).map(|_| random.bits() >> (random.bits() % 64)));
        for value in values.chain([0, u64::MAX]) {
            let there = bucket(value);
            assert!(there < 59 * 64 + 64, "value {value}");
            assert_eq!(
                bucket(u64::try_from(middle(there)).unwrap()),
                there,
                "value {value}"
            );
            if value < u64::MAX {
                assert!(bucket(value + 1) - there <= 1, "value {value}");
            }
        }
    }

    #[test]
    fn quantiles_are_within_one_percent_of_the_exact_ones() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let (scale, shift) = (random.below(62), if seed % 3 == 0 { 0 } else { 1 });
            let mut values: Vec<i64> = (0..1 + random.below(700))
                .map(|_| {
                    let size = (random.bits() >> shift) as i64;
                    size >> scale.saturating_sub(random.below(8))
                })
                .collect();
            let mut histogram = Histogram::default();
            values
                .iter()
                .for_each(|v| histogram.record(SignedNanos(*v)));
            values.sort_unstable();
            for share in [0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0] {
                let rank = nearest_rank(share, values.len() as u64).unwrap() as usize;
                let exact = values[rank - 1] as f64;
                let got = histogram.quantile(share).unwrap().0 as f64;
                assert!(
                    (got - exact).abs() <= exact.abs() / 100.0,
                    "seed {seed}: {got} {exact}"
                );
            }
            let summary = histogram.summary().unwrap();
            let sum: i128 = values.iter().map(|v| i128::from(*v)).sum();
            assert_eq!(
                i128::from(summary.mean.0),
                sum / values.len() as i128,
                "seed {seed}"
            );
            assert_eq!(
                (summary.min.0, summary.max.0),
                (values[0], values[values.len() - 1])
            );
            assert!(histogram.counts.buckets().len() <= 2 * (59 * 64 + 64));
        }
    }

    #[test]
    fn values_that_wait_count_as_those_in_their_buckets() {
        let mut random = Random::new(3);
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        for number in 0..500 {
            let value = SignedNanos((random.bits() >> (random.bits() % 64)) as i64);
            one.record(value);
            other.record(value);
            other.settle();
            assert_eq!(one, other, "{number}");
            assert_eq!(one.summary(), other.summary());
            assert!(one.rows().eq(other.rows()));
            assert_eq!(one.count_up_to(value), other.count_up_to(value));
            assert_eq!(one.rows().map(|row| row.1).sum::<u64>(), number + 1);
        }
    }

    #[test]
    fn a_summary_has_the_textbook_figures() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.summary(), None);
        [2, 4, 4, 4, 5, 5, 7, 9]
            .into_iter()
            .for_each(|v| histogram.record(SignedNanos(v)));
        let summary = histogram.summary().unwrap();
        assert_eq!((summary.count, summary.mean.0, summary.stddev.0), (8, 5, 2));
        assert_eq!((summary.p50.0, summary.p99.0, summary.last.0), (4, 9, 9));
    }

    #[test]
    fn a_small_spread_on_a_large_mean_keeps_its_standard_deviation() {
        let mut histogram = Histogram::default();
        for i in 0..10_000 {
            histogram.record(SignedNanos(1_700_000_000_000_000_000 + i % 2 * 20_000));
        }
        let stddev = histogram.summary().unwrap().stddev.0;
        assert!((9_900..10_100).contains(&stddev), "{stddev}");
    }
}
