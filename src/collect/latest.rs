//! The latest report, for the metrics endpoint, the live page and the live screen. The collector
//! makes one when it is requested and at no other time; a pump never does.

use crate::collect::queue::Collector;
use crate::measure::sla::Rule;
use crate::report::Report;
use crate::sync::lock;
use crate::FULL;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The age up to which a report answers a request: many readers cost no more than one.
const FRESH: Duration = Duration::from_millis(50);

/// The place where the collector puts reports; empty before the first.
#[derive(Debug, Default)]
pub struct LatestReport {
    held: Mutex<Held>,
    posted: Condvar,
    wanted: AtomicBool,
    /// The wanted report needs the timeline of pictures.
    pictures: AtomicBool,
    /// The run is to write its report where its end would.
    print: AtomicBool,
    /// Rules that replace those of the run.
    rules: Mutex<Option<Arc<[Rule]>>>,
}

#[derive(Debug, Default)]
struct Held {
    newest: Option<(Instant, Arc<Report>)>,
    /// The newest with a timeline.
    pictured: Option<(Instant, Arc<Report>)>,
    /// A collector answers requests.
    attended: bool,
    /// The last report of the run will be requested.
    keeps_last: bool,
}

impl LatestReport {
    /// Notes that a collector calls [`answer`](Self::answer) whenever it is woken, until
    /// [`close`](Self::close).
    pub fn open(&self) {
        lock(&self.held).attended = true;
    }

    /// Has the last report of the run kept.
    pub fn keep_last(&self) {
        lock(&self.held).keeps_last = true;
    }

    /// Has the collector write the report of the run once it is woken.
    pub fn order_print(&self) {
        self.print.store(true, Ordering::Release);
    }

    /// Returns `true` once for each order, or for several.
    pub(super) fn take_print(&self) -> bool {
        self.print.load(Ordering::Relaxed) && self.print.swap(false, Ordering::AcqRel)
    }

    /// Has the collector replace the rules of the run once it is woken.
    pub fn set_rules(&self, rules: Arc<[Rule]>) {
        *lock(&self.rules) = Some(rules);
    }

    pub(super) fn take_rules(&self) -> Option<Arc<[Rule]>> {
        lock(&self.rules).take()
    }

    /// Ends the run; `last` makes its report, if one is kept.
    pub fn close(&self, last: impl FnOnce() -> Report) {
        let keeps_last = lock(&self.held).keeps_last;
        if keeps_last {
            self.post(last());
        }
        lock(&self.held).attended = false;
        self.posted.notify_all();
    }

    /// Posts a report if one is wanted, and costs one load otherwise. The argument of `report` is
    /// `true` for a report with a timeline.
    pub fn answer(&self, report: impl FnOnce(bool) -> Report) {
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel) {
            let pictures = self.pictures.swap(false, Ordering::AcqRel);
            let report = report(pictures);
            if FULL && pictures {
                // A copy of its own, so that readers of `newest` do not keep the timeline alive.
                lock(&self.held).pictured = Some((Instant::now(), Arc::new(report.clone())));
            }
            self.post(report);
        }
    }

    /// Puts a report in the place of the one before.
    pub fn post(&self, report: Report) {
        let newest = Some((Instant::now(), Arc::new(report)));
        let old = std::mem::replace(&mut lock(&self.held).newest, newest);
        self.posted.notify_all();
        drop(old); // Freed after the lock.
    }

    /// Returns the newest report; `None` before the first.
    pub fn newest(&self) -> Option<Arc<Report>> {
        let held = lock(&self.held);
        held.newest.as_ref().map(|(_, report)| Arc::clone(report))
    }

    /// Requests a report with a timeline, which [`wait_pictured`](Self::wait_pictured) returns.
    pub fn request_pictured(&self, collector: &Collector) {
        self.pictures.store(true, Ordering::Release);
        self.request(collector);
    }

    /// Waits as [`wait`](Self::wait) does for a report with a timeline; returns the newest of any
    /// kind if no collector makes one.
    pub fn wait_pictured(&self, requested: Instant, deadline: Instant) -> Option<Arc<Report>> {
        self.wait_for(|held| held.pictured.as_ref(), requested, deadline)
            .or_else(|| self.newest())
    }

    /// Requests a report, which [`wait`](Self::wait) returns.
    pub fn request(&self, collector: &Collector) {
        self.wanted.store(true, Ordering::Release);
        collector.wake();
    }

    /// Waits for the report that was requested at `requested`, and accepts one that was fresh then.
    /// Returns the newest after `deadline`, or if no collector answers.
    pub fn wait(&self, requested: Instant, deadline: Instant) -> Option<Arc<Report>> {
        self.wait_for(|held| held.newest.as_ref(), requested, deadline)
    }

    fn wait_for(
        &self,
        which: impl Fn(&Held) -> Option<&(Instant, Arc<Report>)>,
        requested: Instant,
        deadline: Instant,
    ) -> Option<Arc<Report>> {
        let mut held = lock(&self.held);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_new = |at: Instant| at + FRESH > requested;
            let newest = which(&held);
            if newest.is_some_and(|newest| is_new(newest.0)) || !held.attended || left.is_zero() {
                return newest.map(|(_, report)| Arc::clone(report));
            }
            let waited = self.posted.wait_timeout(held, left);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
