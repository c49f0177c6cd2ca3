//! The trip of a frame that came back, from the view of the node that reads it.

use crate::measure::{HopStamp, NodeId, Return, Trip};
use crate::time::{MonoTime, SignedNanos};
use crate::wire::{FrameView, Stamp, StampDirection, StampFlags};

/// The node that reads a frame: the trip begins there.
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

/// Returns the trip of a frame that came back to `origin` at `home`, from the origin's own forward
/// stamp on.
///
/// `returned_at` is the origin's monotonic clock at `home`. `None` if the origin did not stamp the
/// frame on its way out (an unmarked block, or no room).
pub fn trip(
    frame: &FrameView<'_>,
    origin: TripOrigin,
    returned_at: MonoTime,
    home: Return,
) -> Option<Trip> {
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
        at: due(&first, returned_at, &home),
        hop_stamps,
        home,
        late: false,
        behind_exit: None,
        connection: frame.header.cookie as u32,
        retransmits: Vec::new(),
    })
}

/// Returns the time at which the block of `own`, the origin's forward stamp, was due: its ingress,
/// on the monotonic clock.
///
/// Returns the time of the return if the wall clock was stepped meanwhile, as no span between the
/// two readings is known.
fn due(own: &Stamp, returned_at: MonoTime, home: &Return) -> MonoTime {
    let under_way = home.ingress - own.ingress;
    let is_known = own.generation == home.generation && under_way > SignedNanos::ZERO;
    let under_way = if is_known {
        under_way.0.unsigned_abs()
    } else {
        0
    };
    MonoTime(returned_at.0.saturating_sub(under_way))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Nanos, WallTime};
    use crate::wire::{build, FrameType, Header};

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
        let bytes = build(Header::new(FrameType::Block, 1, 42), &stamps, &[], b"");
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

    #[test]
    fn a_trip_is_dated_by_its_due_time_unless_the_clock_was_stepped_meanwhile() {
        // Due at 1000 on the wall clock; back after `delay` by that clock.
        let at = |generation: u8, delay: i64, returned_at: u64| {
            let stamps = [
                stamp(10, 0, StampDirection::Forward, 1_000),
                stamp(12, 1, StampDirection::Turn, 1_003),
            ];
            let header = Header::new(FrameType::Block, 1, 42);
            let bytes = build(header, &stamps.concat(), &[], b"");
            let home = Return {
                arrival: None,
                ingress: WallTime(1_000_u64.wrapping_add_signed(delay)),
                egress: None,
                generation,
                held: Nanos::ZERO,
            };
            let origin = TripOrigin { node: 10, hop: 0 };
            let frame = FrameView::parse(&bytes).unwrap();
            let trip = trip(&frame, origin, MonoTime(returned_at), home);
            trip.unwrap().at
        };
        assert_eq!(at(0, 9, 500), MonoTime(491));
        assert_eq!(at(0, 0, 500), MonoTime(500));
        assert_eq!(at(1, 9, 500), MonoTime(500), "another generation");
        assert_eq!(at(0, -9, 500), MonoTime(500), "a step not noticed yet");
        assert_eq!(at(0, 9, 5), MonoTime(0), "a delay beyond the clock's start");
    }
}
