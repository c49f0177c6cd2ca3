//! The time that each pump of the path was blocked in `write`, over the run or since a moment of
//! it, in bounded memory.
//!
//! Sums only grow, so that the share since a moment is the difference of two readings. At most 64
//! readings are kept.

use super::NodeId;
use crate::time::{MonoTime, Nanos, WallTime};

/// Number of readings kept. When it is reached, every second one is dropped and the interval
/// doubles.
const READINGS: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Pump {
    held: u64,
    span: u64,
    last: Option<(NodeId, u8, WallTime)>,
}

/// The pumps of one path.
#[derive(Debug)]
pub(super) struct Held {
    pumps: Vec<Pump>,
    readings: Vec<(MonoTime, Vec<[u64; 2]>)>,
    step: Nanos,
    next: MonoTime,
}

impl Held {
    pub(super) fn new(pumps: usize) -> Self {
        let (readings, step) = (Vec::new(), Nanos::from_millis(100));
        Self {
            pumps: vec![Pump::default(); pumps],
            readings,
            step,
            next: MonoTime(0),
        }
    }

    /// Adds a stamp of a pump: blocked for `held` since the previous stamp, with `egress` on its
    /// clock.
    pub(super) fn record(
        &mut self,
        pump: usize,
        clock: (NodeId, u8),
        egress: WallTime,
        held: Nanos,
    ) {
        let Some(pump) = self.pumps.get_mut(pump) else {
            return;
        };
        let (node, generation) = clock;
        let mut latest = egress;
        if let Some((_, _, last)) = pump.last.filter(|last| (last.0, last.1) == clock) {
            // Stamps of several connections may overtake each other: time passes once.
            let span = u64::try_from((egress - last).0).unwrap_or(0);
            latest = if span > 0 { egress } else { last };
            pump.span = pump.span.saturating_add(span);
            pump.held = pump.held.saturating_add(held.0);
        }
        pump.last = Some((node, generation, latest));
    }

    /// Takes a reading of all sums if one is due.
    pub(super) fn tick(&mut self, now: MonoTime) {
        if now < self.next {
            return;
        }
        if self.readings.len() >= READINGS {
            let mut place = 0;
            self.readings.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.step = self.step + self.step;
        }
        let sums = self
            .pumps
            .iter()
            .map(|pump| [pump.held, pump.span])
            .collect();
        self.readings.push((now, sums));
        self.next = now + self.step;
    }

    /// Returns the share of time (0 to 1) in which a pump was blocked since about `since`; `None`
    /// if unknown.
    pub(super) fn share(&self, pump: usize, since: Option<MonoTime>) -> Option<f64> {
        let now = self.pumps.get(pump)?;
        let then = since.and_then(|since| self.readings.iter().rev().find(|(at, _)| *at <= since));
        let [held, span] = then
            .and_then(|(_, sums)| sums.get(pump).copied())
            .unwrap_or_default();
        let span = now.span.saturating_sub(span);
        (span > 0).then(|| (now.held.saturating_sub(held) as f64 / span as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_since_a_moment_forgets_what_was_before_and_memory_is_bounded() {
        let mut held = Held::new(1);
        for block in 0..10_000_u64 {
            let at = block * 100_000_000;
            let blocked = if block < 5_000 { 0 } else { 90 };
            held.record(0, (NodeId(1), 0), WallTime(at), Nanos::from_millis(blocked));
            held.tick(MonoTime(at));
            assert!(held.readings.len() <= READINGS);
        }
        let share = |since| held.share(0, since).unwrap();
        assert!((share(None) - 0.45).abs() < 0.01, "{}", share(None));
        let late = share(Some(MonoTime(600_000_000_000)));
        assert!((late - 0.9).abs() < 0.01, "{late}");
        assert_eq!(held.share(7, None), None);
    }
}
