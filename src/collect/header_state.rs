//! The stamps of other programs that a node reads in heads of HTTP: their delays, the clocks that
//! are known of them, and the traces of requests.

use crate::collect::path_state::PathState;
use crate::http::stamp::{StampClock, TraceParent};
use crate::measure::{HeaderDelays, Trip};
use crate::sync::lock;
use crate::time::SignedNanos;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Most traces that wait for the return of their block.
const TRACES: usize = 1024;

/// The clocks of `--http-clock`: the collector knows their offsets, pumps read them.
#[derive(Debug)]
pub struct HeaderClocks {
    known: Mutex<Arc<[StampClock]>>,
}

impl HeaderClocks {
    /// Returns clocks of `given` (name in stamps, node), whose offsets are not known yet.
    pub fn new(given: &[(String, String)]) -> Self {
        let clocks = given.iter().map(|(name, node)| StampClock {
            name: name.as_str().into(),
            node: node.as_str().into(),
            offset: None,
        });
        Self {
            known: Mutex::new(clocks.collect()),
        }
    }

    /// Returns the clocks as they are known now.
    pub fn known(&self) -> Arc<[StampClock]> {
        Arc::clone(&lock(&self.known))
    }
}

/// What the collector keeps of stamps in heads.
#[derive(Debug, Default)]
pub(super) struct HeaderState {
    pub(super) clocks: Option<Arc<HeaderClocks>>,
    pub(super) delays: HeaderDelays,
    /// The trace of a block, by the connection and the number of the block; oldest first.
    traces: VecDeque<(u32, u64, TraceParent)>,
}

impl HeaderState {
    /// Returns the empty state of the node `name`.
    pub(super) fn at(name: &str) -> Self {
        Self {
            delays: HeaderDelays::at(name),
            ..Self::default()
        }
    }

    /// Keeps the trace of a request in a block that is about to be sent.
    pub(super) fn trace(&mut self, connection: u32, sequence: u64, trace: TraceParent) {
        if self.traces.len() == TRACES {
            self.traces.pop_front();
        }
        self.traces.push_back((connection, sequence, trace));
    }

    /// Takes the trace of the request in a block that came back; `None` without one.
    pub(super) fn take_trace(&mut self, trip: &Trip) -> Option<TraceParent> {
        let is_it = |(connection, sequence, _): &(u32, u64, TraceParent)| {
            (*connection, *sequence) == (trip.connection, trip.sequence)
        };
        let at = self.traces.iter().position(is_it)?;
        self.traces.remove(at).map(|(.., trace)| trace)
    }

    /// Updates the offsets of the clocks to that of the node `name` by what `paths` have measured.
    pub(super) fn update<'a>(
        &self,
        name: &str,
        paths: impl Iterator<Item = &'a PathState> + Clone,
    ) {
        let Some(clocks) = &self.clocks else { return };
        let offset = |node: &str| match node == name {
            true => Some(SignedNanos::ZERO),
            false => paths.clone().find_map(|path| path.offset_of(node)),
        };
        let before = clocks.known();
        let is_same = before
            .iter()
            .all(|clock| clock.offset == offset(&clock.node));
        if !is_same {
            let updated = before.iter().map(|clock| StampClock {
                offset: offset(&clock.node),
                ..clock.clone()
            });
            *lock(&clocks.known) = updated.collect();
        }
    }
}
