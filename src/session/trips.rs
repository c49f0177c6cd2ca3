//! A frame that came back, as the trip that the node reading it has to account for.

use crate::measure::{HopStamp, NodeId, Return, Trip};
use crate::time::MonoTime;
use crate::wire::{FrameView, Stamp, StampDirection, StampFlags};

/// Who reads: the path is looked at from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripOrigin {
    /// Its node id.
    pub node: u64,
    /// Its hop.
    pub hop: u8,
}

fn hop_stamp(stamp: &Stamp) -> HopStamp {
    HopStamp {
        node: NodeId(stamp.node),
        hop: stamp.hop,
        direction: stamp.direction,
        generation: stamp.generation,
        stepped: stamp.flags.has(StampFlags::STEPPED),
        waited: stamp.flags.has(StampFlags::WAITED),
        synchronised: stamp.flags.has(StampFlags::SYNCHRONISED),
        held: stamp.held,
        arrival: stamp.arrival,
        ingress: stamp.ingress,
        egress: stamp.egress,
    }
}

/// The trip of a frame that came back to `origin` at `home`: everything from the origin's own forward stamp on.
///
/// `at` is the origin's monotonic clock at that moment. `None` where the origin did not stamp the frame on its way out
/// (an unmarked block, or no room).
pub fn trip(frame: &FrameView<'_>, origin: TripOrigin, at: MonoTime, home: Return) -> Option<Trip> {
    let mut stamps = frame.stamps().map_while(Result::ok).skip_while(|stamp| {
        stamp.node != origin.node
            || stamp.hop != origin.hop
            || stamp.direction != StampDirection::Forward
    });
    let first = stamps.next()?;
    let mut hop_stamps = Vec::with_capacity(usize::from(frame.header.stamps));
    hop_stamps.push(hop_stamp(&first));
    hop_stamps.extend(
        stamps
            .filter(|stamp| stamp.hop > origin.hop)
            .map(|stamp| hop_stamp(&stamp)),
    );
    Some(Trip {
        sequence: frame.header.sequence,
        at,
        hop_stamps,
        home,
        late: false,
        behind_exit: None,
        connection: frame.header.cookie as u32,
        retransmits: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Nanos, WallTime};
    use crate::wire::{build, frame_type, Header};

    fn stamp(node: u64, hop: u8, direction: StampDirection, at: u64) -> Vec<u8> {
        let mut out = vec![0; crate::wire::STAMP_LEN];
        Stamp {
            node,
            hop,
            direction,
            generation: 0,
            flags: StampFlags::default(),
            held: Nanos::ZERO,
            arrival: None,
            ingress: WallTime(at),
            egress: WallTime(at + 1),
        }
        .emit(&mut out);
        out
    }

    #[test]
    fn a_relay_sees_the_path_from_itself_on() {
        use StampDirection::{Forward, Turn};
        let stamps = [
            stamp(10, 0, Forward, 1),
            stamp(11, 1, Forward, 3),
            stamp(12, 2, Turn, 5),
        ]
        .concat();
        let bytes = build(Header::new(frame_type::BLOCK, 1, 42), &stamps, &[], b"");
        let frame = FrameView::parse(&bytes).unwrap();
        let home = Return {
            arrival: None,
            ingress: WallTime(9),
            egress: Some(WallTime(10)),
            generation: 0,
            held: Nanos::ZERO,
        };
        let origin = TripOrigin { node: 11, hop: 1 };
        let seen = trip(&frame, origin, MonoTime(0), home).unwrap();
        assert_eq!(seen.sequence, 42);
        assert_eq!(
            seen.hop_stamps
                .iter()
                .map(|c| (c.hop, c.direction))
                .collect::<Vec<_>>(),
            [(1, Forward), (2, Turn)]
        );
        assert!(trip(&frame, TripOrigin { node: 99, hop: 1 }, MonoTime(0), home).is_none());
    }
}
