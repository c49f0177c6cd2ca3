//! The bounds that all connections of an analysis share, and what they gather together.

use super::analyzer::Analyzer;
use super::http::Http;
use crate::http::stamp::StampNames;
use crate::measure::HeaderDelays;
use std::sync::Arc;

/// Interval snapshots and HTTP exchanges kept over all open flows.
const HISTORY: usize = 200_000;

/// The memory for the reading of payload, for all connections of an analysis.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    /// Bytes that wait for those before them.
    pub held: usize,
    /// Interval snapshots and exchanges that are kept.
    pub history: usize,
    /// Set if targets of requests are kept.
    pub targets: bool,
    /// Set if single exchanges are not kept, only their counts and times.
    pub summaries: bool,
    /// The fields of heads that are read; `None` for none.
    pub names: Option<Arc<StampNames>>,
    /// The delays by stamps in heads.
    pub header_delays: HeaderDelays,
}

impl Budget {
    /// Returns how many more snapshots and exchanges may be kept.
    #[inline]
    pub(super) fn room(&self) -> usize {
        HISTORY.saturating_sub(self.history)
    }

    /// Returns what an analysis without flows begins with, and moves the delays there.
    pub(super) fn renewed(&mut self) -> Self {
        Self {
            held: 0,
            history: 0,
            ..std::mem::take(self)
        }
    }

    /// Takes the stamps of the exchanges that are over.
    #[inline]
    pub(super) fn take_stamps(&mut self, http: &mut Http) {
        for (headers, own) in http.take_stamped() {
            self.header_delays.record(&headers, own);
        }
    }

    /// Returns how many more exchanges may be kept.
    #[inline]
    pub(super) fn room_for_exchanges(&self) -> usize {
        match self.summaries {
            true => 0,
            false => self.room(),
        }
    }
}

impl Analyzer {
    /// The same table, which reads stamps of other programs in these fields of heads of HTTP.
    pub fn with_names(mut self, names: StampNames) -> Self {
        self.budget.names = Some(Arc::new(names));
        self.budget.header_delays = HeaderDelays::at("capture");
        self
    }

    /// Returns the delays by those stamps so far.
    pub fn header_delays(&self) -> &HeaderDelays {
        &self.budget.header_delays
    }
}
