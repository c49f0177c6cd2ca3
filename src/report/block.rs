//! A block of a run, for the formats with a line per block.

use super::name_or_hop;
use crate::http::stamp::TraceParent;
use crate::measure::{HopStamp, Parts};
use crate::time::{SignedNanos, WallTime};
use crate::vec_map::VecMap;

/// The figures of a block, from which every line of a block is written.
#[derive(Clone, Copy, Debug)]
pub struct BlockLine<'a> {
    /// The number of the block; the first is 0.
    pub sequence: u64,
    /// The time at which it was due, on the source's wall clock.
    pub scheduled: WallTime,
    /// The delay and its parts; `None` for a lost block.
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

/// A block with everything that a line of any format is written from.
#[derive(Clone, Copy)]
pub struct MeasuredBlock<'a> {
    /// The block.
    pub line: BlockLine<'a>,
    /// The identifier of the session, which is the first half of a trace identifier.
    pub cookie: u64,
    /// The trace of the request that the block holds; `None` without one.
    pub trace: Option<TraceParent>,
    /// The stamps of all hops; empty for a lost block.
    pub hop_stamps: &'a [HopStamp],
    /// Returns far clock minus near clock of each segment; `None` if it is unknown.
    pub offsets: &'a dyn Fn() -> Vec<Option<SignedNanos>>,
}

impl BlockLine<'_> {
    /// Returns those of `lost`, `late`, `duplicate`, `clock_step` and `negative` that are true of
    /// it.
    ///
    /// `negative` is a round trip or a residence below zero.
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

    /// Returns the name of the node at `hop`, not yet escaped.
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
