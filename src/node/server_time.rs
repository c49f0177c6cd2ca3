//! How long the server behind an exit takes.

use crate::sync::lock;
use crate::time::MonoTime;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};

const ANSWERED: u8 = 0;
const TIMED: u8 = 1;
const UNTIMED: u8 = 2;

/// Measures how long the server takes: first reply byte minus last forward write, only where the connection was quiet
/// before (everything sent earlier had been answered) and only for marked blocks, since others read no clock.
#[derive(Debug, Default)]
pub struct ServerTimer {
    state: AtomicU8,
    asked: Mutex<(u64, MonoTime)>,
}

impl ServerTimer {
    /// The up pump is about to write a marked block; its egress time goes into what is returned. So the lock is taken
    /// before that time is.
    pub fn ask(&self, sequence: u64) -> ServerTiming<'_> {
        ServerTiming {
            server_timer: self,
            asked: lock(&self.asked),
            sequence,
        }
    }

    /// The up pump is about to write an unmarked block: what comes back may belong to it.
    pub fn ask_untimed(&self) {
        self.state.store(UNTIMED, Ordering::Release);
    }

    /// The down pump has read reply bytes; the block they answer and when it was written, where that is known.
    pub fn answered(&self) -> Option<(u64, MonoTime)> {
        if self.state.load(Ordering::Acquire) == ANSWERED
            || self.state.swap(ANSWERED, Ordering::AcqRel) != TIMED
        {
            return None;
        }
        Some(*lock(&self.asked))
    }
}

/// A block that is about to be written.
#[derive(Debug)]
pub struct ServerTiming<'a> {
    server_timer: &'a ServerTimer,
    asked: MutexGuard<'a, (u64, MonoTime)>,
    sequence: u64,
}

impl ServerTiming<'_> {
    /// It is written at `at`.
    pub fn at(mut self, at: MonoTime) {
        let quiet = self.server_timer.state.load(Ordering::Acquire) == ANSWERED;
        if quiet {
            *self.asked = (self.sequence, at);
        }
        let state = if quiet { TIMED } else { UNTIMED };
        self.server_timer.state.store(state, Ordering::Release);
    }
}
