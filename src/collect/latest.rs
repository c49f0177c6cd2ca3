//! The newest report, for those who look in from beside: the metrics endpoint, the live page, the live screen. The
//! collector writes it, when somebody has asked and not else; never a pump.

use crate::collect::queue::Collector;
use crate::report::Report;
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A report that is younger than this is new enough for whoever asks: many who look in cost no more than one does.
const FRESH: Duration = Duration::from_millis(50);

/// Where the collector puts reports; nothing hangs there before the first.
#[derive(Debug, Default)]
pub struct LatestReport {
    held: Mutex<Held>,
    posted: Condvar,
    wanted: AtomicBool,
    /// What is wanted is to have all that pictures need.
    pictures: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    newest: Option<(Instant, Arc<Report>)>,
    /// The newest that was made for pictures.
    pictured: Option<(Instant, Arc<Report>)>,
    /// A collector looks here from time to time.
    attended: bool,
    /// The last report of the run will be asked for.
    keeps_last: bool,
}

impl LatestReport {
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

    /// Posts a report if somebody waits for one; costs a load otherwise. `report` is told whether it is for pictures.
    pub fn answer(&self, report: impl FnOnce(bool) -> Report) {
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel) {
            let pictures = self.pictures.swap(false, Ordering::AcqRel);
            let report = report(pictures);
            if pictures {
                // It stands for itself: its copy of the run over time is in nobody else's way.
                lock(&self.held).pictured = Some((Instant::now(), Arc::new(report.clone())));
            }
            self.post(report);
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

    /// Asks for a report for pictures; [`wait_pictured`](Self::wait_pictured) brings it.
    pub fn ask_pictured(&self, collector: &Collector) {
        self.pictures.store(true, Ordering::Release);
        self.ask(collector);
    }

    /// As [`wait`](Self::wait), for a report that pictures can be drawn from; any there is where no collector makes one.
    pub fn wait_pictured(&self, asked: Instant, deadline: Instant) -> Option<Arc<Report>> {
        self.wait_for(|held| held.pictured.as_ref(), asked, deadline)
            .or_else(|| self.newest())
    }

    /// Asks the collector for a report; [`wait`](Self::wait) brings it.
    pub fn ask(&self, collector: &Collector) {
        self.wanted.store(true, Ordering::Release);
        collector.wake();
    }

    /// The report that was asked for at `asked`, or one that was fresh then; the newest there is where none comes until
    /// `deadline`, or where no collector is there to make one.
    pub fn wait(&self, asked: Instant, deadline: Instant) -> Option<Arc<Report>> {
        self.wait_for(|held| held.newest.as_ref(), asked, deadline)
    }

    fn wait_for(
        &self,
        which: impl Fn(&Held) -> Option<&(Instant, Arc<Report>)>,
        asked: Instant,
        deadline: Instant,
    ) -> Option<Arc<Report>> {
        let mut held = lock(&self.held);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_new = |at: Instant| at + FRESH > asked;
            let newest = which(&held);
            if newest.is_some_and(|newest| is_new(newest.0)) || !held.attended || left.is_zero() {
                return newest.map(|(_, report)| Arc::clone(report));
            }
            let waited = self.posted.wait_timeout(held, left);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
