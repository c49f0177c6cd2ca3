//! The user's request to stop, and waits that end with it.

use crate::sync::channel::{channel, Receiver, Sender};
use crate::sys;
use crate::time::MonoTime;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set once, by SIGINT or SIGTERM.
#[derive(Debug)]
pub struct StopFlag {
    set: AtomicBool,
    finished: AtomicBool,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Default for StopFlag {
    fn default() -> Self {
        let (wake, woken) = channel(1); // One wake is as good as many.
        Self {
            set: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            wake,
            woken,
        }
    }
}

impl StopFlag {
    /// Requests the stop.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.wake();
    }

    /// Returns `true` if the stop was requested.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Marks what was in flight as done: the collector may end too.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    /// Returns `true` if the collector may end.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Ends the current wait, or the next one, early.
    pub fn wake(&self) {
        let _ = self.wake.send(()); // Full: woken already.
    }

    /// Waits until the stop is requested.
    pub fn wait_set(&self) {
        while !self.is_set() {
            let _ = self.woken.recv(); // Cannot fail: the sender lives as long as the receiver.
        }
    }

    /// Waits for `span`, or until woken.
    pub fn wait(&self, span: Duration) {
        let _ = self.woken.recv_timeout(span);
    }

    /// Waits until `at`, or until woken.
    pub fn wait_until(&self, at: MonoTime) {
        let _ = self.woken.recv_deadline(sys::clock::instant(at));
    }
}
