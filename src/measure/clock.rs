//! Offset and skew of the far clock of a segment against the near one, from both directions of each
//! block.
//!
//! RFC 5905 §10 has the clock filter: the sample of least round trip has the least error. Skew is
//! the slope of offset samples, never of one direction alone (RFC 2330 §10.1).
//!
//! A one-way rise of 3 ms in mid-run would read as a skew of 600 ppm in one direction. Half of the
//! rise would be lost. In offset samples such a rise lengthens the round trip. Each sample is wrong
//! by at most half of its round trip's excess over the least one, and a slope counts only beyond
//! that.

use super::NodeId;
use crate::time::{MonoTime, Nanos, SignedNanos};

/// Number of slots that time is cut into. Each keeps its sample of least round trip.
const SLOTS: u64 = 256;
/// Smallest number of samples that make a slope.
const MIN_SAMPLES: usize = 20;
/// Rates that clocks of unknown and of synchronised state are assumed to keep (the latter is PHI of
/// RFC 5905).
const FREE_RATE: f64 = 100e-6;
const SYNCHRONISED_RATE: f64 = 15e-6;
/// Effect of a slope's error on any figure below which the slope counts as exact.
pub(super) const NEGLIGIBLE_NS: f64 = 100_000.0;

/// The identity of two clocks. A step or another node at either end makes another pair.
pub(super) type ClockPair = [(NodeId, u8); 2];

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: u64,
    offset: i64,
    round_trip: i64,
}

/// The rate of the far clock against the near one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Skew {
    /// Nanoseconds per nanosecond.
    pub(super) rate: f64,
    /// Bound of its error.
    pub(super) error: f64,
    /// `true` if the samples determine the rate, so that it can be reported.
    pub(super) known: bool,
}

/// Two clocks compared over a run.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pair: Option<ClockPair>,
    first: u64,
    last: u64,
    width: u64,
    slots: Vec<Option<Sample>>,
    synchronised: bool,
}

impl Clock {
    /// Adds the two raw one-way differences of one block.
    pub(super) fn record(
        &mut self,
        at: MonoTime,
        pair: ClockPair,
        synchronised: bool,
        (forward, back): (SignedNanos, SignedNanos),
    ) {
        if self.pair != Some(pair) {
            let pair = Some(pair);
            let (first, last) = (at.0, at.0);
            *self = Self {
                pair,
                first,
                last,
                width: 1_000_000,
                slots: Vec::new(),
                synchronised,
            };
        }
        self.synchronised &= synchronised;
        self.last = self.last.max(at.0);
        // Nonsense that does not even fit is no sample.
        let (Some(twice), Some(round_trip)) =
            (forward.0.checked_sub(back.0), forward.0.checked_add(back.0))
        else {
            return;
        };
        let age = at.0.saturating_sub(self.first);
        while age / self.width >= SLOTS {
            self.width = self.width.saturating_mul(2);
            self.slots = self
                .slots
                .chunks(2)
                .map(|pair| least(pair.iter().flatten()))
                .collect();
        }
        let slot = (age / self.width) as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        let sample = Sample {
            at: at.0,
            offset: twice / 2,
            round_trip,
        };
        self.slots[slot] = least([sample].iter().chain(self.slots[slot].iter()));
    }

    /// Start of the comparison of these two clocks.
    pub(super) fn since(&self) -> MonoTime {
        MonoTime(self.first)
    }

    /// `true` if both kernels called their clocks synchronised in every block.
    pub(super) fn synchronised(&self) -> bool {
        self.synchronised && self.pair.is_some()
    }

    /// Far clock minus near clock, with the bound of its error: half the round trip, and the growth
    /// by skew with age.
    pub(super) fn offset(&self) -> Option<(SignedNanos, Nanos)> {
        let skew = self.skew();
        let rate = skew.rate.abs() + skew.error;
        let error = |sample: &Sample| {
            let age = self.last.saturating_sub(sample.at) as f64 * rate;
            sample.round_trip.unsigned_abs() as f64 / 2.0 + age
        };
        let best = self
            .slots
            .iter()
            .flatten()
            .min_by(|a, b| error(a).total_cmp(&error(b)))?;
        Some((SignedNanos(best.offset), Nanos(error(best).ceil() as u64)))
    }

    /// The skew from the samples if they determine it. Otherwise their slope or zero, whichever has
    /// the smaller error.
    pub(super) fn skew(&self) -> Skew {
        let error = if self.synchronised() {
            SYNCHRONISED_RATE
        } else {
            FREE_RATE
        };
        let assumed = Skew {
            rate: 0.0,
            error,
            known: false,
        };
        let slope = self.slope();
        slope
            .filter(|slope| slope.known || slope.error < error)
            .unwrap_or(assumed)
    }

    fn slope(&self) -> Option<Skew> {
        let mut samples: Vec<Sample> = self.slots.iter().flatten().copied().collect();
        samples.sort_unstable_by_key(|sample| sample.round_trip);
        samples.truncate(MIN_SAMPLES.max(samples.len() / 4));
        let run = self.last.saturating_sub(self.first) as f64;
        let least = *samples.get(0..MIN_SAMPLES)?.first()?;
        let age = |sample: &Sample| sample.at.saturating_sub(self.first) as f64;
        let ages = samples.iter().map(age);
        let spread = ages.clone().fold(0.0, f64::max) - ages.clone().fold(f64::MAX, f64::min);
        let mean = ages.sum::<f64>() / samples.len() as f64;
        let (mut slope, mut error, mut square) = (0.0, 0.0, 0.0);
        for sample in &samples {
            let distance = age(sample) - mean;
            slope += distance * (sample.offset as f64 - least.offset as f64);
            error += distance.abs() * (sample.round_trip as f64 - least.round_trip as f64) / 2.0;
            square += distance * distance;
        }
        let (rate, error) = (slope / square, error / square);
        let known = error * run <= NEGLIGIBLE_NS || rate.abs() >= 2.0 * error;
        (spread * 5.0 >= run && square > 0.0).then_some(Skew { rate, error, known })
    }
}

fn least<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Sample> {
    samples.min_by_key(|sample| sample.round_trip).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::simulator::Random;

    const HOUR: i64 = 3_600_000_000_000;

    /// A run of `blocks` every 10 ms, whose forward direction rises by `rise` at a share (0 to 1)
    /// of the run.
    fn run(seed: u64, blocks: u64, ppm: f64, noise: f64, rise: impl Fn(f64) -> f64) -> Clock {
        let (mut clock, mut random) = (Clock::default(), Random::new(seed));
        for block in 0..blocks {
            let at = 77 + block * 10_000_000;
            let offset = HOUR + (at as f64 * ppm * 1e-6) as i64;
            let delay = 200_000.0 + noise * random.exponential();
            let forward = delay + rise(block as f64 / blocks as f64);
            let back = 200_000.0 + noise * random.exponential();
            let ways = (
                SignedNanos(forward as i64 + offset),
                SignedNanos(back as i64 - offset),
            );
            clock.record(MonoTime(at), [(NodeId(1), 0), (NodeId(2), 0)], false, ways);
        }
        clock
    }

    #[test]
    fn an_offset_of_an_hour_and_a_skew_of_50_ppm_are_found_to_their_bounds() {
        for seed in 0..50 {
            let clock = run(seed, 6_000, 50.0, 100_000.0, |_| 0.0);
            let skew = clock.skew();
            assert!(
                skew.known && (skew.rate * 1e6 - 50.0).abs() < 1.0,
                "seed {seed}: {skew:?}"
            );
            let (offset, error) = clock.offset().unwrap();
            let truth = HOUR + (60e9 * 50e-6) as i64;
            assert!(
                (offset.0 - truth).unsigned_abs() <= error.0,
                "seed {seed}: {offset:?}"
            );
            assert!(error.0 < 1_000_000, "seed {seed}: {error:?}");
        }
    }

    #[test]
    fn a_real_rise_of_one_direction_is_not_read_as_skew() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let blocks = [30, 100, 600, 6_000][random.below(4) as usize];
            let from = random.below(95) as f64 / 100.0;
            let noise = [5_000.0, 50_000.0, 500_000.0][random.below(3) as usize];
            let ramp = seed % 4 == 0;
            let rise = |x: f64| match x >= from {
                true if ramp => 3e6 * (x - from),
                true => 3e6,
                false => 0.0,
            };
            let clock = run(seed, blocks, 0.0, noise, rise);
            let skew = clock.skew();
            // What it takes away from the 3 ms over the whole run.
            let lost = skew.rate.abs() * blocks as f64 * 10e6;
            assert!(
                !skew.known || lost < 200_000.0,
                "seed {seed}: {skew:?} loses {lost} ns"
            );
        }
    }

    #[test]
    fn few_blocks_tell_no_skew_and_another_pair_of_clocks_begins_anew() {
        let mut clock = run(1, 19, 50.0, 0.0, |_| 0.0);
        assert!(!clock.skew().known);
        let ways = (SignedNanos(300), SignedNanos(100));
        clock.record(MonoTime(9), [(NodeId(1), 0), (NodeId(2), 1)], true, ways);
        assert_eq!(clock.since(), MonoTime(9));
        assert_eq!(clock.offset(), Some((SignedNanos(100), Nanos(200))));
        assert!(clock.synchronised());
    }

    #[test]
    fn memory_stays_bounded_and_nonsense_is_survived() {
        let (mut clock, mut random) = (Clock::default(), Random::new(5));
        for _ in 0..20_000 {
            let at = MonoTime(random.bits() >> random.below(64));
            let ways = (
                SignedNanos(random.bits() as i64),
                SignedNanos(random.bits() as i64),
            );
            clock.record(at, [(NodeId(1), 0), (NodeId(2), 0)], false, ways);
            assert!(clock.slots.len() as u64 <= SLOTS);
        }
        assert!(clock.skew().rate.is_finite() && clock.offset().is_some());
    }
}
