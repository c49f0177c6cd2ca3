//! The trip of a frame that came back, from the view of the node that reads it.

use crate::measure::{Direction, HopStamp, NodeId, Retransmits, Return, Trip};
use crate::time::{MonoTime, Nanos, SignedNanos};
use crate::wire::{
    build, BehindExit, FrameType, FrameView, Header, RetransmitCount, ServerConnect, Stamp,
    StampDirection, StampFlags, ANNOTATION_ANSWERED, ANNOTATION_BEHIND_EXIT,
    ANNOTATION_RETRANSMITS, ANNOTATION_SERVER_CONNECT, MAX_STAMPS, STAMP_LEN,
};

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

/// The smallest step of the wall clock that raises its generation: an egress that is later than the
/// return by less is no forgery.
const STEP: SignedNanos = SignedNanos(1_000_000);

/// The origin's last forward stamp has an egress that it cannot have: after the return, or before
/// it by more than the limit. The origin did not write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForgedStamp;

/// Returns the trip of a frame that came back to `origin` at `home`. It begins at the last stamp
/// with the origin's id and hop: others wrote what stands before.
///
/// `returned_at` is the origin's monotonic clock at `home`. `Ok(None)` if the origin did not stamp
/// the frame on its way out (an unmarked block, or no room).
///
/// # Errors
///
/// [`ForgedStamp`] if the egress of that stamp does not lie within `limit` before `home`; `None`
/// where the origin knows by itself which blocks it sent.
pub fn trip(
    frame: &FrameView<'_>,
    origin: TripOrigin,
    returned_at: MonoTime,
    home: Return,
    limit: Option<Nanos>,
) -> Result<Option<Box<Trip>>, ForgedStamp> {
    let stamps = || frame.stamps().map_while(Result::ok);
    let is_own = |stamp: &Stamp| {
        stamp.node == origin.node
            && stamp.hop == origin.hop
            && stamp.direction == StampDirection::Forward
    };
    let own = stamps().enumerate().filter(|(_, stamp)| is_own(stamp));
    let Some((at, first)) = own.last() else {
        return Ok(None);
    };
    if let (Some(limit), true) = (limit, first.generation == home.generation) {
        let under_way = home.ingress - first.egress;
        if under_way < -STEP || under_way > limit.signed() {
            return Err(ForgedStamp);
        }
    }
    let mut hop_stamps = Vec::with_capacity(usize::from(frame.header.stamps));
    hop_stamps.push(hop_stamp(&first));
    hop_stamps.extend(
        stamps()
            .skip(at + 1)
            .filter(|stamp| stamp.hop > origin.hop)
            .map(|stamp| hop_stamp(&stamp)),
    );
    Ok(Some(Box::new(Trip {
        sequence: frame.header.sequence,
        at: due(&first, returned_at, &home),
        retransmits: retransmits(frame, origin.hop, |hop| {
            hop_stamps.iter().any(|stamp| stamp.hop == hop)
        }),
        home,
        late: false,
        server: server_connect(frame, |hop| hop_stamps.iter().any(|stamp| stamp.hop == hop)),
        connection: frame.header.cookie as u32,
        hop_stamps,
    })))
}

/// Returns the trip of a block and of its answer, which came back to `origin` at `home`. `frame` is
/// the first block of that answer: it has the stamps of the way back, and those of the block's way
/// out in an annotation. The time behind the last node of the trip is the server's.
///
/// `None` if `frame` carries no stamps of a way out, or if they are not of this origin.
pub fn answered(
    frame: &FrameView<'_>,
    origin: TripOrigin,
    returned_at: MonoTime,
    home: Return,
) -> Option<Box<Trip>> {
    let mut annotations = frame.annotations().map_while(Result::ok);
    let forward = annotations.find(|it| it.kind == ANNOTATION_ANSWERED)?.value;
    let mut behind = frame.annotations().map_while(Result::ok);
    let behind = behind.find(|it| it.kind == ANNOTATION_BEHIND_EXIT)?.value;
    let stamps = [forward, frame.stamp_bytes()].concat();
    if forward.len() % STAMP_LEN != 0 || stamps.len() / STAMP_LEN > MAX_STAMPS {
        return None;
    }
    let header = Header {
        sequence: BehindExit::parse(behind).ok()?.sequence,
        ..Header::new(FrameType::Report, frame.header.cookie, 0)
    };
    let whole = build(header, &stamps, &[], &[]);
    let whole = FrameView::parse(&whole).ok()?;
    // The origin knows by itself which blocks it sent.
    trip(&whole, origin, returned_at, home, None).ok()?
}

/// Returns the connect of an exit to its server in a frame, if that exit is `known`.
#[inline(never)]
fn server_connect(frame: &FrameView<'_>, known: impl Fn(u8) -> bool) -> Option<Box<ServerConnect>> {
    let mut annotations = frame.annotations().map_while(Result::ok);
    let annotation = annotations.find(|it| it.kind == ANNOTATION_SERVER_CONNECT)?;
    let connect = ServerConnect::parse(annotation.value).ok()?;
    known(annotation.hop).then(|| Box::new(connect))
}

/// Returns the readings of retransmissions that came to `origin_hop` with the END of a direction,
/// which has no stamps.
pub fn last_retransmits(frame: &FrameView<'_>, origin_hop: u8) -> Vec<Retransmits> {
    retransmits(frame, origin_hop, |_| true)
}

/// Returns the readings of retransmissions in a frame by nodes that are `known`, behind
/// `origin_hop`: of each node the first of each direction.
#[inline(never)]
fn retransmits(
    frame: &FrameView<'_>,
    origin_hop: u8,
    known: impl Fn(u8) -> bool,
) -> Vec<Retransmits> {
    let mut readings: Vec<Retransmits> = Vec::new();
    let annotations = frame.annotations().map_while(Result::ok);
    for annotation in annotations.filter(|it| it.kind == ANNOTATION_RETRANSMITS) {
        let Ok(value) = RetransmitCount::parse(annotation.value) else {
            continue;
        };
        let reading = Retransmits {
            hop: annotation.hop,
            direction: match value.back {
                true => Direction::Return,
                false => Direction::Forward,
            },
            count: value.count,
            span: value.span,
        };
        // The way from the origin back is no part of its path.
        let behind = reading.hop > origin_hop || (reading.hop == origin_hop && !value.back);
        let of = |reading: &Retransmits| (reading.hop, reading.direction);
        if behind && known(reading.hop) && readings.iter().all(|it| of(it) != of(&reading)) {
            readings.push(reading);
        }
    }
    readings
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
    use crate::measure::tests::samples::home;
    use crate::time::WallTime;
    use crate::wire::push_annotation;

    fn stamp(node: u64, hop: u8, direction: StampDirection, at: u64) -> Vec<u8> {
        let mut out = vec![0; STAMP_LEN];
        Stamp {
            egress: WallTime(at + 1),
            ..Stamp::new(node, hop, direction, WallTime(at))
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
            egress: Some(WallTime(10)),
            ..home(9)
        };
        let origin = TripOrigin { node: 11, hop: 1 };
        let seen = trip(&frame, origin, MonoTime(0), home, None)
            .unwrap()
            .unwrap();
        assert_eq!(seen.sequence, 42);
        assert_eq!(
            seen.hop_stamps
                .iter()
                .map(|c| (c.hop, c.direction))
                .collect::<Vec<_>>(),
            [(1, Forward), (2, Turn)]
        );
        let other = TripOrigin { node: 99, hop: 1 };
        assert_eq!(trip(&frame, other, MonoTime(0), home, None), Ok(None));
    }

    #[test]
    fn a_trip_begins_at_the_last_own_stamp_whatever_others_wrote_before_it() {
        use StampDirection::{Forward, Return as Back, Turn};
        let home = home(5_000_000_000);
        let origin = TripOrigin { node: 11, hop: 1 };
        let limit = Some(Nanos::from_millis(1000));
        for seed in 0..5000_u64 {
            let mut random = crate::random::Random::new(seed);
            // A client wrote any stamps, also with the id and the hop of this node.
            let mut stamps = Vec::new();
            for _ in 0..random.below(12) {
                let direction = [Forward, Back, Turn][random.below(3)];
                let node = 10 + random.below(3) as u64;
                let at = random.next() % 9_000_000_000;
                stamps.extend(stamp(node, random.below(4) as u8, direction, at));
            }
            let under_way = random.next() % 2_000_000_000;
            let egress = 5_000_000_000 - under_way;
            stamps.extend(stamp(11, 1, Forward, egress - 1));
            stamps.extend(stamp(12, 2, Turn, egress + under_way / 2));
            let bytes = build(Header::new(FrameType::Block, 1, 42), &stamps, &[], b"");
            let frame = FrameView::parse(&bytes).unwrap();
            let found = trip(&frame, origin, MonoTime(0), home, limit);
            if under_way > 1_000_000_000 {
                assert_eq!(found, Err(ForgedStamp), "seed {seed}");
                continue;
            }
            let stamps = found.unwrap().unwrap().hop_stamps;
            let places: Vec<_> = stamps.iter().map(|s| (s.node.0, s.egress.0)).collect();
            let far = egress + under_way / 2 + 1;
            assert_eq!(places, [(11, egress), (12, far)], "seed {seed}");
        }
    }

    #[test]
    fn a_block_and_its_answer_are_one_trip_with_the_server_behind_it() {
        use StampDirection::{Forward, Return as Back};
        let forward = [
            stamp(10, 0, Forward, 100),
            stamp(11, 1, Forward, 300),
            stamp(12, 2, Forward, 500),
        ]
        .concat();
        let back = [stamp(12, 2, Back, 9_501), stamp(11, 1, Back, 9_700)].concat();
        let span = Nanos(9_000);
        let behind = BehindExit { sequence: 42, span }.emit();
        let frame = |forward: &[u8], back: &[u8], with_behind: bool| {
            let mut annotations = Vec::new();
            if with_behind {
                push_annotation(&mut annotations, ANNOTATION_BEHIND_EXIT, 2, &behind);
            }
            push_annotation(&mut annotations, ANNOTATION_ANSWERED, 2, forward);
            build(
                Header::new(FrameType::Block, 1, 7),
                back,
                &annotations,
                b"x",
            )
        };
        let origin = TripOrigin { node: 10, hop: 0 };
        let read = |bytes: &[u8], origin| {
            let frame = FrameView::parse(bytes).unwrap();
            answered(&frame, origin, MonoTime(0), home(9_900))
        };
        let trip = read(&frame(&forward, &back, true), origin).unwrap();
        let parts = trip.split().unwrap();
        assert_eq!(
            (trip.sequence, parts.beyond),
            (42, Some(SignedNanos(9_000)))
        );
        assert_eq!(parts.segments.len(), 2);
        assert_eq!(parts.total, Some(SignedNanos(9_800)));

        let other = TripOrigin { node: 99, hop: 0 };
        assert_eq!(read(&frame(&forward, &back, true), other), None);
        assert_eq!(read(&frame(&forward, &back, false), origin), None);
        assert_eq!(read(&frame(&[], &back, true), origin), None);
        assert_eq!(read(&frame(&forward[1..], &back, true), origin), None);
        let many = forward.repeat(1 + MAX_STAMPS / 3);
        assert_eq!(read(&frame(&many, &back, true), origin), None);
        let plain = build(Header::new(FrameType::Block, 1, 7), &back, &[], b"x");
        assert_eq!(read(&plain, origin), None);
    }

    #[test]
    fn a_reading_of_retransmissions_counts_if_its_node_stamped_the_frame() {
        use StampDirection::{Forward, Turn};
        let value = |back, count| {
            let span = Nanos(7);
            RetransmitCount { back, count, span }.emit()
        };
        let mut annotations = Vec::new();
        for (hop, bytes) in [
            (0, &value(false, 1)[..]), // Before the origin.
            (1, &value(true, 2)),      // The way from the origin back.
            (1, &value(false, 3)),
            (2, &value(true, 4)),
            (2, &value(true, 5)), // A second one.
            (2, &value(false, 6)[..15]),
            (3, &value(true, 8)), // Did not stamp it.
        ] {
            assert!(push_annotation(
                &mut annotations,
                ANNOTATION_RETRANSMITS,
                hop,
                bytes
            ));
        }
        let stamps = [
            stamp(10, 0, Forward, 1),
            stamp(11, 1, Forward, 3),
            stamp(12, 2, Turn, 5),
        ]
        .concat();
        let header = Header::new(FrameType::Block, 1, 42);
        let bytes = build(header, &stamps, &annotations, b"");
        let frame = FrameView::parse(&bytes).unwrap();
        let home = Return {
            egress: Some(WallTime(10)),
            ..home(9)
        };
        let origin = TripOrigin { node: 11, hop: 1 };
        let found = trip(&frame, origin, MonoTime(0), home, None).unwrap();
        let seen = found.unwrap().retransmits;
        let of = |seen: &[Retransmits]| {
            let seen = seen.iter();
            seen.map(|it| (it.hop, it.direction, it.count))
                .collect::<Vec<_>>()
        };
        let forward = (1, Direction::Forward, 3);
        let back = (2, Direction::Return, 4);
        assert_eq!(of(&seen), [forward, back]);
        assert!(seen.iter().all(|it| it.span == Nanos(7)));
        // The END of a direction has no stamps.
        let last = last_retransmits(&frame, 1);
        assert_eq!(of(&last), [forward, back, (3, Direction::Return, 8)]);
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
                generation,
                ..home(1_000_u64.wrapping_add_signed(delay))
            };
            let origin = TripOrigin { node: 10, hop: 0 };
            let frame = FrameView::parse(&bytes).unwrap();
            let trip = trip(&frame, origin, MonoTime(returned_at), home, None);
            trip.unwrap().unwrap().at
        };
        assert_eq!(at(0, 9, 500), MonoTime(491));
        assert_eq!(at(0, 0, 500), MonoTime(500));
        assert_eq!(at(1, 9, 500), MonoTime(500), "another generation");
        assert_eq!(at(0, -9, 500), MonoTime(500), "a step not noticed yet");
        assert_eq!(at(0, 9, 5), MonoTime(0), "a delay beyond the clock's start");
    }
}
