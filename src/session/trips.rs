//! A frame that came back, as the trip that the node reading it has to account for.

use crate::measure::{Crossing, Homecoming, NodeId, Passage, Trip};
use crate::time::MonoTime;
use crate::wire::{FrameView, Stamp, StampDirection, StampFlags};

/// Who reads: the path is looked at from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its node id.
    pub node: u64,
    /// Its hop.
    pub hop: u8,
}

fn crossing(stamp: &Stamp) -> Crossing {
    Crossing {
        node: NodeId(stamp.node),
        hop: stamp.hop,
        passage: match stamp.direction {
            StampDirection::Forward => Passage::Forward,
            StampDirection::Return => Passage::Return,
            StampDirection::Turn => Passage::Turn,
        },
        generation: stamp.generation,
        stepped: stamp.flags.has(StampFlags::STEPPED),
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
pub fn trip(frame: &FrameView<'_>, origin: Origin, at: MonoTime, home: Homecoming) -> Option<Trip> {
    let mut stamps = frame.stamps().map_while(Result::ok).skip_while(|stamp| {
        stamp.node != origin.node
            || stamp.hop != origin.hop
            || stamp.direction != StampDirection::Forward
    });
    let first = stamps.next()?;
    let mut crossings = Vec::with_capacity(usize::from(frame.header.stamps));
    crossings.push(crossing(&first));
    crossings.extend(
        stamps
            .filter(|stamp| stamp.hop > origin.hop)
            .map(|stamp| crossing(&stamp)),
    );
    Some(Trip {
        sequence: frame.header.sequence,
        at,
        crossings,
        home,
        late: false,
        behind_exit: None,
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
        let home = Homecoming {
            arrival: None,
            ingress: WallTime(9),
            egress: Some(WallTime(10)),
            generation: 0,
            held: Nanos::ZERO,
        };
        let origin = Origin { node: 11, hop: 1 };
        let seen = trip(&frame, origin, MonoTime(0), home).unwrap();
        assert_eq!(seen.sequence, 42);
        assert_eq!(
            seen.crossings
                .iter()
                .map(|c| (c.hop, c.passage))
                .collect::<Vec<_>>(),
            [(1, Passage::Forward), (2, Passage::Turn)]
        );
        assert!(trip(&frame, Origin { node: 99, hop: 1 }, MonoTime(0), home).is_none());
    }
}
