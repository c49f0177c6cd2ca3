//! The two clocks, read together, and the error of the wall clock.

use super::constants::TIME_ERROR;
use crate::time::{MonoTime, Nanos, Now, WallTime};
use std::ffi::{c_int, c_long};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A `struct timex`, which begins with the same row of longs everywhere (`modes` is an int, padded
/// to one). The rest is room.
#[repr(C)]
struct Timex([c_long; 64]);
const TIMEX_MAXERROR: usize = 3; // microseconds

extern "C" {
    fn adjtimex(timex: *mut Timex) -> c_int;
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockReading {
    /// The monotonic clock just before the wall clock.
    pub mono: MonoTime,
    /// The wall clock; 0 if it is set before 1970.
    pub wall: WallTime,
    /// Duration of the whole reading. A long one was preempted and shows nothing of a clock step.
    pub took: Nanos,
}

impl ClockReading {
    /// Returns both clocks as the core takes them.
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

/// Returns the monotonic clock: nanoseconds since its first reading in this process.
pub fn mono() -> MonoTime {
    MonoTime(Nanos::from(origin().elapsed()).0)
}

/// Reads both clocks.
pub fn read() -> ClockReading {
    let mono = mono();
    let wall = wall();
    let took = self::mono().since(mono);
    ClockReading {
        mono,
        wall: WallTime(Nanos::from(wall).0),
        took,
    }
}

/// Returns the wall clock since 1970; 0 if it is set before.
#[cfg(not(all(target_env = "musl", target_pointer_width = "32")))]
fn wall() -> Duration {
    use std::time::{SystemTime, UNIX_EPOCH};
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// As elsewhere. std's clock has 32 bits here and panics from 2038 on.
#[cfg(all(target_env = "musl", target_pointer_width = "32"))]
fn wall() -> Duration {
    /// musl's timespec has padding before or after a long of nanoseconds, in the order that makes
    /// this the same.
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanos: i64,
    }
    extern "C" {
        fn __clock_gettime64(clock: c_int, time: *mut Timespec) -> c_int;
    }
    const CLOCK_REALTIME: c_int = 0;
    let mut time = Timespec {
        seconds: 0,
        nanos: 0,
    };
    // SAFETY: `time` is a live struct timespec, and any numbers are valid in it. This clock is
    // always there.
    unsafe { __clock_gettime64(CLOCK_REALTIME, &mut time) };
    let nanos = u32::try_from(time.nanos).unwrap_or(0);
    u64::try_from(time.seconds).map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos))
}

/// Returns the instant of std at `at`, for waits with a deadline.
pub fn instant(at: MonoTime) -> Instant {
    origin() + Duration::from_nanos(at.0)
}

/// Returns the kernel's bound of the wall clock's error; `None` if the clock is not synchronised.
pub fn clock_error() -> Option<Duration> {
    let mut timex = Timex([0; 64]);
    // SAFETY: `modes` is 0, so the call only reads the clock; 64 longs are more than any struct
    // timex has.
    let state = unsafe { adjtimex(&mut timex) };
    if !(0..TIME_ERROR).contains(&state) {
        return None;
    }
    u64::try_from(timex.0[TIMEX_MAXERROR])
        .ok()
        .map(Duration::from_micros)
}
