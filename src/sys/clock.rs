//! The two clocks, read together.

use crate::time::{MonoTime, Nanos, Now, WallTime};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The wall clock between two readings of the monotonic one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The monotonic clock just before.
    pub mono: MonoTime,
    /// The wall clock; 0 where it stands before 1970.
    pub wall: WallTime,
    /// How long the whole reading took: a long one was preempted, and tells nothing of a step.
    pub took: Nanos,
}

impl Reading {
    /// Both clocks, for the core.
    pub fn now(&self) -> Now {
        Now {
            mono: self.mono,
            wall: self.wall,
        }
    }
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The monotonic clock: nanoseconds since its first reading in this process.
pub fn mono() -> MonoTime {
    MonoTime(Nanos::from(origin().elapsed()).0)
}

/// Both clocks.
pub fn read() -> Reading {
    let mono = mono();
    let wall = SystemTime::now();
    let took = self::mono().since(mono);
    let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    Reading {
        mono,
        wall: WallTime(Nanos::from(wall).0),
        took,
    }
}

/// The instant of std that `at` stands for, for waits with a deadline.
pub fn instant(at: MonoTime) -> Instant {
    origin() + std::time::Duration::from_nanos(at.0)
}
