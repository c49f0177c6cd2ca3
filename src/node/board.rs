//! The newest report, for those who look in from beside: the metrics endpoint, the live page, the live screen. The
//! collector writes it now and then, never a pump.

use super::lock;
use crate::report::Report;
use std::sync::{Arc, Mutex};

/// Where the collector puts reports; nothing hangs there before the first.
#[derive(Debug, Default)]
pub struct Board(Mutex<Option<Arc<Report>>>);

impl Board {
    /// Puts a report up in the place of the one before.
    pub fn post(&self, report: Report) {
        let report = Some(Arc::new(report));
        let old = std::mem::replace(&mut *lock(&self.0), report);
        drop(old); // Freed after the lock.
    }

    /// The newest; `None` before the first.
    pub fn newest(&self) -> Option<Arc<Report>> {
        lock(&self.0).clone()
    }
}
