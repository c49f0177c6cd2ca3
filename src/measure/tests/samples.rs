//! Stamps, returns and trips that differ from the plainest ones in a field or two.

use crate::measure::{HopStamp, NodeId, Return, StampDirection, Trip};
use crate::time::{MonoTime, Nanos, WallTime};

/// A stamp without flags, of the node whose id is its hop.
pub(crate) fn hop_stamp(hop: u8, direction: StampDirection, ingress: u64, egress: u64) -> HopStamp {
    HopStamp {
        node: NodeId(u64::from(hop)),
        hop,
        direction,
        generation: 0,
        stepped: false,
        waited: false,
        synchronised: false,
        held: Nanos::ZERO,
        arrival: None,
        ingress: WallTime(ingress),
        egress: WallTime(egress),
    }
}

/// A return to the end of the path.
pub(crate) fn home(ingress: u64) -> Return {
    Return {
        arrival: None,
        ingress: WallTime(ingress),
        egress: None,
        generation: 0,
        held: Nanos::ZERO,
    }
}

/// Block 0, due at 0, in time.
pub(crate) fn trip(hop_stamps: Vec<HopStamp>, home: Return) -> Trip {
    Trip {
        sequence: 0,
        at: MonoTime(0),
        hop_stamps,
        home,
        late: false,
        server: None,
        connection: 0,
        retransmits: Vec::new(),
    }
}
