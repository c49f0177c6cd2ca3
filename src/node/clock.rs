//! The wall clock with its generation, as pumps read it.

use crate::measure::LATEST;
use crate::session::clock::{ClockWatch, Generations, LONGEST_READING};
use crate::session::opening::Introduction;
use crate::sync::lock;
use crate::sys::{self, clock::ClockReading};
use crate::time::{MonoTime, Nanos, SignedNanos, WallTime};
use crate::wire::NodeInfo;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;
use std::time::Duration;

/// Shift of the nanoseconds between two readings of the clock's error: some 17 s.
const ERROR_READ: u32 = 34;
/// The error of a clock that is not synchronised.
const UNKNOWN: u32 = u32::MAX;

/// The node's count of clock steps and the clock's error, shared by its pumps.
#[derive(Debug)]
pub struct NodeClock {
    generations: Mutex<Generations>,
    /// In microseconds.
    error: AtomicU32,
    /// The span of time in which it was read.
    error_read: AtomicU32,
}

impl NodeClock {
    /// Starts at generation 0.
    pub fn new() -> Self {
        let clock = Self {
            generations: Mutex::new(Generations::new(steady(sys::clock::read).now())),
            error: AtomicU32::new(UNKNOWN),
            error_read: AtomicU32::new(0),
        };
        clock.read_error();
        clock
    }

    /// Returns the greatest error of the wall clock as the kernel stated it last; `None` if it is
    /// not synchronised.
    #[inline]
    pub fn error(&self) -> Option<Nanos> {
        let micros = self.error.load(Ordering::Relaxed);
        (micros != UNKNOWN).then(|| Nanos::from_micros(u64::from(micros)))
    }

    /// Reads the error anew if that is due at `now`. Called after a marked block was sent.
    #[inline]
    pub fn sent(&self, now: MonoTime) {
        let span = (now.0 >> ERROR_READ) as u32;
        if self.error_read.load(Ordering::Relaxed) != span {
            self.error_read.store(span, Ordering::Relaxed);
            self.read_error();
        }
    }

    #[inline(never)]
    fn read_error(&self) {
        let micros = |error: Duration| u32::try_from(error.as_micros()).unwrap_or(UNKNOWN);
        let error = sys::clock_error().map_or(UNKNOWN, micros);
        self.error.store(error, Ordering::Relaxed);
    }

    /// Returns a copy for a pump.
    pub fn pump(&self) -> PumpClock<'_> {
        PumpClock {
            watch: lock(&self.generations).watch(),
            node: self,
        }
    }
}

impl Default for NodeClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The clock of one pump.
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
    /// `true` if the wall clock was stepped since the pump's previous reading: an arrival time in
    /// between is of no use.
    pub stepped: bool,
    /// The arrival time of what was read at this moment, from the kernel, on the same wall clock;
    /// `None` if unknown.
    pub arrival: Option<WallTime>,
}

impl Moment {
    /// Returns the same moment for a frame that arrived at `arrival`, if that is plausible.
    pub fn after(self, arrival: Option<WallTime>) -> Self {
        let possible = |at: &WallTime| (SignedNanos::ZERO..=LATEST).contains(&(self.wall - *at));
        Self {
            arrival: arrival.filter(|at| !self.stepped && possible(at)),
            ..self
        }
    }

    /// The contribution to OPEN of the node that `info` describes, stamped at this moment.
    pub fn introduce(self, info: &NodeInfo) -> Introduction<'_> {
        Introduction {
            info,
            ingress: self.wall,
            generation: self.generation,
            client: None,
        }
    }
}

/// The number of further readings after one that was preempted.
const AGAIN: usize = 3;

/// Returns a reading whose clocks belong together, or else the last of a few. A preempted reading
/// hides a step as long as the preemption, and the block at hand would have a wrong delay.
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
    fn settle(&mut self, reading: &ClockReading) {
        // Every pump sees a step; it is one event, and one log line, of the node.
        if self
            .watch
            .settle(reading.now(), &mut lock(&self.node.generations))
        {
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
