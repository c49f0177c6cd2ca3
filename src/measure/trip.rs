//! The parts of one block's delay: what a trip along the path splits into.

use super::NodeId;
use crate::time::SignedNanos;

/// One block's total and all its parts, in order of the path.
///
/// Where every part is known, all round trips and residences add up to `total` exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// From the scheduled time to the return ingress at the origin, on the origin's clock; `None`
    /// if that clock stepped.
    pub total: Option<SignedNanos>,
    /// One per node that stamped.
    pub hosts: Vec<HostPart>,
    /// One per pair of neighbours that stamped.
    pub segments: Vec<SegmentPart>,
}

/// What one node contributed, on its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPart {
    /// Its place; the source is 0.
    pub hop: u8,
    /// Who it was.
    pub node: NodeId,
    /// Egress minus ingress on the way out, for a reflector its whole residence; `None` where the
    /// clock stepped between.
    pub forward_residence: Option<SignedNanos>,
    /// The same on the way back; `None` also at a reflector and at the source.
    pub return_residence: Option<SignedNanos>,
}

/// What the stretch between two neighbours contributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPart {
    /// Hop of the near node.
    pub from_hop: u8,
    /// Hop of the far node.
    pub to_hop: u8,
    /// Round-trip delay, the far node's share taken out; `None` where a clock step spoils it.
    pub round_trip: Option<SignedNanos>,
    /// Far ingress minus near egress: the one-way delay plus the clock offset, raw.
    pub forward: Option<SignedNanos>,
    /// Near ingress minus far egress: the return one-way delay minus the clock offset, raw.
    pub back: Option<SignedNanos>,
}
