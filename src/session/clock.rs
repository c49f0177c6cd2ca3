//! The detection of steps of the wall clock.
//!
//! Slewing (NTP, adjtime) bends the wall clock and the monotonic one alike, so their difference
//! changes only when the wall clock is stepped. Two pumps of one node have to agree on the
//! generation, so [`Generations`] decides it. Its lock is taken only when a step is seen. Each pump
//! keeps a copy ([`ClockWatch`]).

use crate::time::{Nanos, Now, SignedNanos};

/// A change of more than this is a step.
pub const STEP: Nanos = Nanos::from_millis(1);
/// The longest reading of both clocks without preemption: after a longer one, the clocks may differ
/// by its length.
pub const LONGEST_READING: Nanos = Nanos::from_micros(200);

/// Returns wall clock minus monotonic clock, which changes at a step only.
fn distance(now: Now) -> SignedNanos {
    SignedNanos((now.wall.0.wrapping_sub(now.mono.0)) as i64)
}

/// The count of clock steps of a node.
#[derive(Clone, Copy, Debug)]
pub struct Generations {
    distance: SignedNanos,
    generation: u8,
}

impl Generations {
    /// Begins at generation 0 with a first reading of both clocks.
    pub fn new(now: Now) -> Self {
        Self {
            distance: distance(now),
            generation: 0,
        }
    }

    /// Takes a reading that a watch found stepped. The step is counted once; returns `true` to the
    /// pump that saw it first.
    fn settle(&mut self, seen: SignedNanos) -> bool {
        let is_new = (seen - self.distance).abs() > STEP;
        if is_new {
            self.distance = seen;
            self.generation = self.generation.wrapping_add(1);
        }
        is_new
    }

    /// Returns a watch that starts with this state.
    pub fn watch(&self) -> ClockWatch {
        ClockWatch {
            distance: self.distance,
            generation: self.generation,
        }
    }
}

/// One pump's copy.
#[derive(Clone, Copy, Debug)]
pub struct ClockWatch {
    distance: SignedNanos,
    generation: u8,
}

impl ClockWatch {
    /// The generation that this pump knows.
    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// Returns `true` if a reading shows a step that this pump does not know. The monotonic clock
    /// was read first, and both in `took`.
    ///
    /// A difference that preemption in between explains is no step; a larger one is, for a long
    /// reading too.
    pub fn is_stepped(&self, now: Now, took: Nanos) -> bool {
        let late = match took {
            took if took > LONGEST_READING => took.signed(),
            _ => SignedNanos::ZERO,
        };
        let moved = distance(now) - self.distance;
        moved > STEP.signed() + late || -moved > STEP.signed()
    }

    /// Takes the step over; returns `true` to the first pump that does.
    pub fn settle(&mut self, now: Now, generations: &mut Generations) -> bool {
        let is_new = generations.settle(distance(now));
        *self = generations.watch();
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{MonoTime, WallTime};

    const QUICK: Nanos = Nanos(80);

    fn at(mono_ms: u64, wall_ms: u64) -> Now {
        Now {
            mono: MonoTime(mono_ms * 1_000_000),
            wall: WallTime(wall_ms * 1_000_000),
        }
    }

    #[test]
    fn a_step_is_counted_once_for_all_pumps_and_both_agree() {
        let mut node = Generations::new(at(0, 1_000));
        let (mut up, mut down) = (node.watch(), node.watch());
        assert!(!up.is_stepped(at(10, 1_010), QUICK));
        let after = at(20, 1_520);
        assert!(up.is_stepped(after, QUICK));
        assert!(up.settle(after, &mut node));
        assert!(!up.is_stepped(at(21, 1_521), QUICK));
        let later = at(30, 1_530);
        assert!(down.is_stepped(later, QUICK));
        assert!(!down.settle(later, &mut node));
        assert_eq!((up.generation(), down.generation()), (1, 1));
    }

    #[test]
    fn steps_back_count_and_preemption_does_not_but_hides_no_more_than_its_own_length() {
        let mut node = Generations::new(at(0, 10_000));
        let mut pump = node.watch();
        let slow = Nanos::from_millis(5);
        assert!(!pump.is_stepped(at(10, 10_015), slow));
        assert!(pump.is_stepped(at(10, 10_015), QUICK));
        // A block must not leave with a residence across a step, although its egress reading was
        // preempted.
        assert!(pump.is_stepped(at(10, 10_017), slow));
        assert!(pump.is_stepped(at(10, 10_008), slow));
        let back = at(10, 2_010);
        assert!(pump.is_stepped(back, slow) && pump.is_stepped(back, QUICK));
        assert!(pump.settle(back, &mut node));
        assert_eq!(pump.generation(), 1);
    }

    #[test]
    fn drift_below_the_bound_does_not_add_up_to_a_step() {
        let node = Generations::new(at(0, 1_000));
        assert!(!node.watch().is_stepped(at(1_000, 2_001), QUICK));
    }
}
