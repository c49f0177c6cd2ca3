//! The due times of probes: a fixed schedule, independent of the answers (no coordinated omission).

use crate::time::{MonoTime, Nanos};

/// An open-loop schedule.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: MonoTime,
    interval: Nanos,
    count: Option<u64>,
    next: u64,
}

impl Schedule {
    /// The first probe is due at `start`; `count` of `None` goes on for ever.
    pub fn new(start: MonoTime, interval: Nanos, count: Option<u64>) -> Self {
        Self {
            start,
            interval,
            count,
            next: 0,
        }
    }

    /// Returns the due time of the next probe, which may have passed; `None` after the last.
    ///
    /// The delay of a late probe counts from its due time all the same.
    pub fn due(&self) -> Option<MonoTime> {
        if self.count == Some(self.next) {
            return None;
        }
        Some(self.start + Nanos(self.interval.0.saturating_mul(self.next)))
    }

    /// Notes that the probe that was due was sent.
    pub fn sent(&mut self) {
        self.next += 1;
    }

    /// Moves the first probe to `start`, before any was sent: the path stands only then.
    pub fn begin(&mut self, start: MonoTime) {
        self.start = start;
    }

    /// Returns the due time of the first probe.
    pub fn start(&self) -> MonoTime {
        self.start
    }

    /// Returns how many of `count` were not sent.
    pub fn left(&self, count: u64) -> u64 {
        count.saturating_sub(self.next)
    }

    /// Skips the probes that were due by `now`, after an outage. Returns their number.
    pub fn skip_to(&mut self, now: MonoTime) -> u64 {
        let Some(elapsed) = now.0.checked_sub(self.start.0) else {
            return 0;
        };
        let due = elapsed
            .checked_div(self.interval.0)
            .map_or(self.next, |whole| whole + 1);
        let due = self.count.map_or(due, |count| due.min(count));
        let skipped = due.saturating_sub(self.next);
        self.next += skipped;
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_sends_do_not_move_the_schedule() {
        let mut schedule = Schedule::new(MonoTime(100), Nanos(10), Some(3));
        let mut due = Vec::new();
        while let Some(at) = schedule.due() {
            due.push(at.0);
            schedule.sent();
        }
        assert_eq!(due, [100, 110, 120]);
    }

    #[test]
    fn a_schedule_begins_when_the_path_stands() {
        let mut schedule = Schedule::new(MonoTime(100), Nanos(10), Some(2));
        schedule.begin(MonoTime(145));
        assert_eq!(schedule.skip_to(MonoTime(144)), 0);
        assert_eq!(schedule.due(), Some(MonoTime(145)));
        schedule.sent();
        assert_eq!(schedule.due(), Some(MonoTime(155)));
    }

    #[test]
    fn an_outage_is_passed_over_and_counted() {
        let mut schedule = Schedule::new(MonoTime(0), Nanos(10), None);
        schedule.sent();
        assert_eq!(schedule.skip_to(MonoTime(35)), 3);
        assert_eq!(schedule.due(), Some(MonoTime(40)));
        assert_eq!(schedule.skip_to(MonoTime(35)), 0);
        let mut bounded = Schedule::new(MonoTime(0), Nanos(10), Some(2));
        assert_eq!(bounded.skip_to(MonoTime(1_000)), 2);
        assert_eq!((bounded.due(), bounded.left(2)), (None, 0));
        assert_eq!(bounded.left(7), 5);
        let mut flood = Schedule::new(MonoTime(0), Nanos::ZERO, None);
        assert_eq!(flood.skip_to(MonoTime(1_000)), 0);
    }
}
