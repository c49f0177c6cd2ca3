//! The time of the server behind an exit.

use crate::sync::lock;
use crate::time::MonoTime;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};

const ANSWERED: u8 = 0;
const TIMED: u8 = 1;
const UNTIMED: u8 = 2;

/// Measures the time of the server: first reply byte minus last forward write.
///
/// It does so only for marked blocks, as others read no clock, and only if the connection was quiet
/// before: the server had answered everything sent earlier.
#[derive(Debug, Default)]
pub struct ServerTimer {
    state: AtomicU8,
    /// The block that was written last on a quiet connection, and the time of the write.
    written: Mutex<(u64, MonoTime)>,
}

impl ServerTimer {
    /// Begins the write of a marked block. The lock is taken before the egress time is read, which
    /// [`ServerTiming::at`] then takes.
    pub fn begin(&self, sequence: u64) -> ServerTiming<'_> {
        ServerTiming {
            server_timer: self,
            written: lock(&self.written),
            sequence,
        }
    }

    /// Begins the write of an unmarked block: the next reply may belong to it.
    pub fn begin_untimed(&self) {
        self.state.store(UNTIMED, Ordering::Release);
    }

    /// Takes the block that a reply answers, and the time of its write; `None` if unknown.
    pub fn answered(&self) -> Option<(u64, MonoTime)> {
        if self.state.load(Ordering::Acquire) == ANSWERED
            || self.state.swap(ANSWERED, Ordering::AcqRel) != TIMED
        {
            return None;
        }
        Some(*lock(&self.written))
    }
}

/// A block that is about to be written.
#[derive(Debug)]
pub struct ServerTiming<'a> {
    server_timer: &'a ServerTimer,
    written: MutexGuard<'a, (u64, MonoTime)>,
    sequence: u64,
}

impl ServerTiming<'_> {
    /// Notes that the block is written at `at`.
    pub fn at(mut self, at: MonoTime) {
        let quiet = self.server_timer.state.load(Ordering::Acquire) == ANSWERED;
        if quiet {
            *self.written = (self.sequence, at);
        }
        let state = if quiet { TIMED } else { UNTIMED };
        self.server_timer.state.store(state, Ordering::Release);
    }
}
