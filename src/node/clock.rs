//! The wall clock with its generation, as pumps read it.

use crate::measure::LATEST;
use crate::session::clock::{ClockWatch, Generations, LONGEST_READING};
use crate::sync::lock;
use crate::sys::{self, clock::ClockReading};
use crate::time::{MonoTime, SignedNanos, WallTime};
use std::sync::Mutex;

/// The node's count of clock steps, shared by its pumps.
#[derive(Debug)]
pub struct NodeClock(Mutex<Generations>);

impl NodeClock {
    /// Starts at generation 0.
    pub fn new() -> Self {
        Self(Mutex::new(Generations::new(steady(sys::clock::read).now())))
    }

    /// A pump's own copy.
    pub fn pump(&self) -> PumpClock<'_> {
        PumpClock {
            watch: lock(&self.0).watch(),
            node: self,
        }
    }
}

impl Default for NodeClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The clock in one pump's hands.
#[derive(Debug)]
pub struct PumpClock<'a> {
    watch: ClockWatch,
    node: &'a NodeClock,
}

/// A moment on the node's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// For stamps.
    pub wall: WallTime,
    /// For spans on this node.
    pub mono: MonoTime,
    /// The wall clock's generation.
    pub generation: u8,
    /// The wall clock was stepped since the pump's reading before this one: what another clock told in between is of
    /// no use.
    pub stepped: bool,
    /// When what was read at this moment had come, as the kernel told on the same wall clock; `None` where it did not.
    pub arrival: Option<WallTime>,
}

impl Moment {
    /// The same moment for a frame that had come at `arrival`, if that can be true.
    pub fn after(self, arrival: Option<WallTime>) -> Self {
        let possible = |at: &WallTime| (SignedNanos::ZERO..=LATEST).contains(&(self.wall - *at));
        Self {
            arrival: arrival.filter(|at| !self.stepped && possible(at)),
            ..self
        }
    }
}

/// So often a reading that was preempted is made again.
const AGAIN: usize = 3;

/// A reading whose clocks belong together, or else the last of a few: one that was preempted hides a step as long as the
/// preemption was, and the block at hand would have a wrong figure.
fn steady(mut read: impl FnMut() -> ClockReading) -> ClockReading {
    let mut reading = read();
    for _ in 0..AGAIN {
        if reading.took <= LONGEST_READING {
            break;
        }
        reading = read();
    }
    reading
}

impl PumpClock<'_> {
    /// Reads both clocks; no lock is taken unless the wall clock was stepped.
    pub fn read(&mut self) -> Moment {
        let reading = steady(sys::clock::read);
        let known = self.watch.generation();
        if self.watch.is_stepped(reading.now(), reading.took) {
            self.settle(&reading);
        }
        Moment {
            wall: reading.wall,
            mono: reading.mono,
            generation: self.watch.generation(),
            stepped: self.watch.generation() != known,
            arrival: None,
        }
    }

    #[cold]
    #[inline(never)]
    fn settle(&mut self, reading: &ClockReading) {
        // Every pump comes to see a step; it is one event, and one line, of the node.
        if self.watch.settle(reading.now(), &mut lock(&self.node.0)) {
            log::warn!(
                "clock: stepped, generation={}; figures across the step are left out",
                self.watch.generation()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Nanos;

    #[test]
    fn a_preempted_reading_is_made_again_but_not_for_ever() {
        let read = |slow: u64| {
            let mut count = 0;
            let reading = steady(|| {
                count += 1;
                ClockReading {
                    mono: MonoTime(count),
                    took: Nanos::from_micros(if count <= slow { 201 } else { 200 }),
                    ..ClockReading::default()
                }
            });
            reading.mono.0
        };
        assert_eq!([0, 1, 3, 4, 1_000].map(read), [1, 2, 4, 4, 4]);
    }
}
