//! The signals of the process: those that end it, SIGHUP and SIGUSR1.

use super::constants::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIG_BLOCK, SIG_DFL, SIG_IGN};
use std::ffi::c_int;
use std::io;

/// A `sigset_t`: glibc and musl both give it 1024 bits on every architecture.
#[repr(C, align(8))]
struct SigSet([u8; 128]);

extern "C" {
    fn sigemptyset(set: *mut SigSet) -> c_int;
    fn sigaddset(set: *mut SigSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
    fn sigwait(set: *const SigSet, signal: *mut c_int) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT or SIGTERM.
    Stop,
    /// SIGHUP.
    Hangup,
    /// SIGUSR1.
    Report,
}

/// SIGINT, SIGTERM, SIGHUP and SIGUSR1, blocked in the calling thread and in all that it spawns.
/// One thread waits for them.
pub struct StopSignals(SigSet);

impl StopSignals {
    /// Blocks the signals. Call it before any thread is spawned.
    ///
    /// # Errors
    ///
    /// As pthread_sigmask(3).
    pub fn block() -> io::Result<Self> {
        let set = stop_set();
        // SAFETY: `set` is an initialised signal set, and a null pointer leaves out the old mask.
        let rc = unsafe { pthread_sigmask(SIG_BLOCK, &set, std::ptr::null_mut()) };
        match rc {
            0 => Ok(Self(set)),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Waits for the next of the signals.
    pub fn wait(&self) -> Signal {
        let mut seen = 0;
        loop {
            // SAFETY: the set was initialised when it was blocked, and `seen` is a live int.
            if unsafe { sigwait(&self.0, &mut seen) } == 0 {
                return match seen {
                    SIGHUP => Signal::Hangup,
                    SIGUSR1 => Signal::Report,
                    _ => Signal::Stop,
                };
            }
        }
    }
}

fn stop_set() -> SigSet {
    let mut set = SigSet([0; 128]);
    // An ignored signal (SIGINT under nohup or of a background job) stays out of the set, since a
    // blocked signal is queued even if it is ignored. SAFETY: `set` is as large as the C library's
    // sigset_t. `signal` puts back the handler that it returned.
    unsafe {
        sigemptyset(&mut set);
        for number in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] {
            let before = signal(number, SIG_DFL);
            if before == SIG_IGN {
                signal(number, SIG_IGN);
            } else {
                sigaddset(&mut set, number);
            }
        }
    }
    set
}
