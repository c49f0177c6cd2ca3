//! What waits in one direction of a connection, apart from the numbers that all segments need.

use super::packet::Timestamps;
use super::queue::Queue;
use crate::time::WallTime;

/// A segment that waits for its acknowledgment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub time: WallTime,
    /// 0 where the segment is measured by its sequence numbers.
    pub ts_val: u32,
    pub seq: u32,
    pub end: u32,
    /// Numbers before it had not passed: its acknowledgment may have waited for them.
    pub beyond_hole: bool,
    /// It is a retransmission itself, known by its TSval.
    pub retransmission: bool,
    /// Its numbers passed again later.
    pub repeated: bool,
    /// Its TSval passed again on a segment out of order, which the echo may answer.
    pub ambiguous: bool,
}

/// The part of the state that most connections need for their handshake alone.
#[derive(Clone, Debug, Default)]
pub(super) struct More {
    /// The end of the highest gap that is not acknowledged yet.
    pub hole: Option<u32>,
    /// Segments without timestamps that wait for their ACK, oldest first.
    pub by_sequence: Queue<Waiting>,
    /// Stretches between `lowest` and `next` that did not pass: half-open, ascending.
    pub gaps: Vec<(u32, u32)>,
    /// SYNs and SYN-ACKs that passed, until one is answered.
    pub syns: Vec<(Option<Timestamps>, WallTime)>,
}

impl More {
    pub(super) fn is_empty(&self) -> bool {
        let none = self.by_sequence.front().is_none() && self.gaps.is_empty();
        none && self.hole.is_none() && self.syns.is_empty()
    }
}
