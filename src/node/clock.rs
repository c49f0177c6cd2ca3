//! The wall clock with its generation, as pumps read it.

use super::lock;
use crate::session::clock::{ClockWatch, Generations};
use crate::sys;
use crate::time::{MonoTime, WallTime};
use std::sync::Mutex;

/// The node's count of clock steps, shared by its pumps.
#[derive(Debug)]
pub struct NodeClock(Mutex<Generations>);

impl NodeClock {
    /// Starts at generation 0.
    pub fn new() -> Self {
        Self(Mutex::new(Generations::new(sys::clock::read().now())))
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
}

impl PumpClock<'_> {
    /// Reads both clocks; no lock is taken unless the wall clock was stepped.
    pub fn read(&mut self) -> Moment {
        let reading = sys::clock::read();
        if self.watch.is_stepped(reading.now(), reading.took) {
            self.settle(&reading);
        }
        Moment {
            wall: reading.wall,
            mono: reading.mono,
            generation: self.watch.generation(),
        }
    }

    #[cold]
    #[inline(never)]
    fn settle(&mut self, reading: &sys::clock::Reading) {
        // Every pump comes to see a step; it is one event, and one line, of the node.
        if self.watch.settle(reading.now(), &mut lock(&self.node.0)) {
            log::warn!(
                "clock: stepped, generation={}; figures across the step are left out",
                self.watch.generation()
            );
        }
    }
}
