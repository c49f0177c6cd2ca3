//! One block of a run as a value, for the formats that write a line per block while the run goes
//! on.

use super::name_or_hop;
use crate::measure::Parts;
use crate::time::{SignedNanos, WallTime};
use crate::vec_map::VecMap;

/// What [`jsonl::line`](super::jsonl::line) and [`csv::Table::line`](super::csv::Table::line) are
/// written from.
#[derive(Clone, Copy, Debug)]
pub struct BlockLine<'a> {
    /// Its number; the first is 0.
    pub sequence: u64,
    /// When it was due, on the source's wall clock.
    pub scheduled: WallTime,
    /// Its delay and what that splits into; `None` for a lost block.
    pub parts: Option<&'a Parts>,
    /// Names of the nodes by hop. Written by peers; the renderers escape them.
    pub names: &'a VecMap<u8, String>,
    /// Answered after `--timeout`.
    pub late: bool,
    /// Answered before: this line repeats a sequence number.
    pub duplicate: bool,
    /// A clock on the path was stepped while the block was under way.
    pub clock_step: bool,
}

impl BlockLine<'_> {
    /// What is special about this block, of `lost`, `late`, `duplicate`, `clock_step` and
    /// `negative` (some round trip or residence is below zero).
    pub fn flags(&self) -> Vec<&'static str> {
        [
            (self.parts.is_none(), "lost"),
            (self.late, "late"),
            (self.duplicate, "duplicate"),
            (self.clock_step, "clock_step"),
            (self.parts.is_some_and(has_negative), "negative"),
        ]
        .into_iter()
        .filter_map(|(is_set, flag)| is_set.then_some(flag))
        .collect()
    }

    /// The name of the node at `hop`, not yet escaped.
    pub(super) fn name_at(&self, hop: u8) -> String {
        name_or_hop(self.names.get(&hop).map(String::as_str), hop)
    }
}

/// Raw one-way delays are left out: with unsynchronised clocks half of them are below zero and mean
/// nothing by it.
fn has_negative(parts: &Parts) -> bool {
    let residences = parts
        .hosts
        .iter()
        .flat_map(|host| [host.forward_residence, host.return_residence]);
    let round_trips = parts.segments.iter().map(|segment| segment.round_trip);
    residences
        .chain(round_trips)
        .flatten()
        .any(|span| span < SignedNanos::ZERO)
}
