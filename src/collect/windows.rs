//! The windows of a run: when each ends, and where its record goes.

use crate::collect::state_file::{self, StateFile};
use crate::measure::change::{RecordEvent, When};
use crate::measure::{Part, Record, RunHistories};
use crate::sys;
use crate::time::{MonoTime, Nanos};
use std::sync::Arc;

/// A window of a run without end, unless another length is given.
pub(super) const WINDOW: Nanos = Nanos::from_millis(300_000);
/// The interval between two searches for changes in a run without end.
const SEARCH: Nanos = Nanos::from_millis(1_000);

/// The windows of a run.
#[derive(Debug)]
pub(super) struct Windows {
    /// `None` for a run that is one window.
    pub(super) length: Option<Nanos>,
    began: MonoTime,
    /// Windows that ended.
    pub(super) ended: u64,
    /// The time at which changes were searched last.
    searched: MonoTime,
    pub(super) file: Option<StateFile>,
    /// The records of a run without a file.
    memory: Arc<RunHistories>,
}

impl Windows {
    /// The first window begins now.
    pub(super) fn new() -> Self {
        let now = sys::clock::mono();
        Self {
            length: None,
            began: now,
            ended: 0,
            searched: now,
            file: None,
            memory: Arc::default(),
        }
    }

    /// Begins the window that goes on anew.
    pub(super) fn restart(&mut self) {
        self.began = sys::clock::mono();
    }

    /// Returns `true` once a second: it is time to search for changes.
    pub(super) fn is_search_due(&mut self, now: MonoTime) -> bool {
        let is_due = now.since(self.searched) >= SEARCH;
        if is_due {
            self.searched = now;
        }
        is_due
    }

    /// Returns `true` if the window that goes on is over.
    pub(super) fn is_over(&self, now: MonoTime) -> bool {
        self.length
            .is_some_and(|length| now.since(self.began) >= length)
    }

    /// The duration of the window that goes on.
    pub(super) fn lasted(&self, now: MonoTime) -> Nanos {
        now.since(self.began)
    }

    /// Ends the window that goes on. Returns its beginning and its length: the nominal one, since
    /// what differs by milliseconds is no window of another length.
    pub(super) fn end(&mut self, now: MonoTime) -> (When, Nanos) {
        let lasted = self.lasted(now);
        let length = self.length.unwrap_or(lasted);
        // A late end keeps the schedule, unless a whole window was missed.
        let next = self.began + length;
        self.began = if now.since(next) < length { next } else { now };
        self.ended += 1;
        (state_file::now().before(lasted), length)
    }

    /// Keeps the record of a window.
    pub(super) fn push(&mut self, key: &str, mut record: Record) -> Vec<(Part, RecordEvent)> {
        if let Some(file) = &mut self.file {
            return file.push(key, record);
        }
        let state = Arc::make_mut(&mut self.memory);
        record.sequence = state.next_sequence();
        state.push(key, record)
    }

    /// The records so far.
    pub(super) fn state(&self) -> Arc<RunHistories> {
        match &self.file {
            Some(file) => file.state(),
            None => Arc::clone(&self.memory),
        }
    }
}

/// The words of the log for a change.
pub(super) fn described(event: RecordEvent) -> String {
    match event {
        RecordEvent::Named => "its delay rose over earlier windows".to_owned(),
        RecordEvent::Further => "its delay rose further".to_owned(),
        RecordEvent::Cleared => "its delay is as before again".to_owned(),
        RecordEvent::Fell(by) => {
            let by = by.as_millis_f64().abs();
            format!("its delay fell by {by:.2} ms, the normal from now on")
        }
        RecordEvent::NewNormal => "its delay has been higher for 7 days: the new normal".to_owned(),
    }
}
