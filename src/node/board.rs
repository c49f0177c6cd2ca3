//! The newest report, for those who look in from beside: the metrics endpoint, the live page, the live screen. The
//! collector writes it, when somebody has asked and not else; never a pump.

use super::collect::Collector;
use super::lock;
use crate::report::Report;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A report that is younger than this is new enough for whoever asks: many who look in cost no more than one does.
const FRESH: Duration = Duration::from_millis(50);

/// Where the collector puts reports; nothing hangs there before the first.
#[derive(Debug, Default)]
pub struct Board {
    held: Mutex<Held>,
    posted: Condvar,
    wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    newest: Option<(Instant, Arc<Report>)>,
    /// A collector looks here from time to time.
    attended: bool,
    /// The last report of the run will be asked for.
    keeps_last: bool,
}

impl Board {
    /// From now on a collector calls [`answer`](Self::answer) whenever it is woken, until [`close`](Self::close).
    pub fn open(&self) {
        lock(&self.held).attended = true;
    }

    /// Somebody will look when the run is over.
    pub fn keep_last(&self) {
        lock(&self.held).keeps_last = true;
    }

    /// The run is over, with `last` for its report; made only where somebody may look.
    pub fn close(&self, last: impl FnOnce() -> Report) {
        let keeps_last = lock(&self.held).keeps_last;
        if keeps_last {
            self.post(last());
        }
        lock(&self.held).attended = false;
        self.posted.notify_all();
    }

    /// Posts a report if somebody waits for one; costs a load otherwise.
    pub fn answer(&self, report: impl FnOnce() -> Report) {
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel) {
            self.post(report());
        }
    }

    /// Puts a report up in the place of the one before.
    pub fn post(&self, report: Report) {
        let newest = Some((Instant::now(), Arc::new(report)));
        let old = std::mem::replace(&mut lock(&self.held).newest, newest);
        self.posted.notify_all();
        drop(old); // Freed after the lock.
    }

    /// The newest; `None` before the first.
    pub fn newest(&self) -> Option<Arc<Report>> {
        let held = lock(&self.held);
        held.newest.as_ref().map(|(_, report)| Arc::clone(report))
    }

    /// Asks the collector for a report; [`wait`](Self::wait) brings it.
    pub fn ask(&self, collector: &Collector) {
        self.wanted.store(true, Ordering::Release);
        collector.wake();
    }

    /// The report that was asked for at `asked`, or one that was fresh then; the newest there is where none comes until
    /// `deadline`, or where no collector is there to make one.
    pub fn wait(&self, asked: Instant, deadline: Instant) -> Option<Arc<Report>> {
        let mut held = lock(&self.held);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_new = |at: Instant| at + FRESH > asked;
            let newest = held.newest.as_ref();
            if newest.is_some_and(|newest| is_new(newest.0)) || !held.attended || left.is_zero() {
                return newest.map(|(_, report)| Arc::clone(report));
            }
            let waited = self.posted.wait_timeout(held, left);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
