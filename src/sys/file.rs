//! Locks of files, and the boot that monotonic times are counted from.

use super::{check, clock};
use crate::decimal::decimal;
use crate::sync::random;
use crate::time::{MonoTime, Nanos, WallTime};
use std::ffi::c_int;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

// The same on all of Linux's architectures.
const LOCK_EX: c_int = 2;
const LOCK_NB: c_int = 4;

extern "C" {
    fn flock(fd: c_int, operation: c_int) -> c_int;
}

/// Locks a file for this process alone, until it is closed. Does not wait.
///
/// # Errors
///
/// As flock(2): `WouldBlock` if another process has it.
pub fn try_lock(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor stays open while `file` is borrowed; no memory is passed.
    check(unsafe { flock(file.as_raw_fd(), LOCK_EX | LOCK_NB) })
}

/// A moment on a clock that outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootTime {
    /// The wall clock.
    pub wall: WallTime,
    /// The boot, or this process where the kernel has no name for it.
    pub boot: u64,
    /// Time since that boot, time asleep included.
    pub mono: MonoTime,
}

/// The time now, to 10 ms.
pub fn boot_time() -> BootTime {
    static BOOT: OnceLock<Option<u64>> = OnceLock::new();
    static PROCESS: OnceLock<u64> = OnceLock::new();
    let now = clock::read();
    let boot = BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits = text.trim().replace('-', "");
        u64::from_str_radix(digits.get(..16)?, 16).ok()
    });
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let uptime = uptime.and_then(|text| decimal(text.split(' ').next()?));
    match (*boot, uptime) {
        (Some(boot), Some(uptime)) => BootTime {
            wall: now.wall,
            boot,
            mono: MonoTime(Nanos((uptime * 1e9) as u64).0),
        },
        _ => BootTime {
            wall: now.wall,
            boot: *PROCESS.get_or_init(random),
            mono: now.mono,
        },
    }
}
