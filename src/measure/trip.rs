//! The parts of one block's delay from its stamps: residences, round trips, raw one-way
//! differences.
//!
//! Every span is taken on one clock, so that an offset between clocks cancels out (RFC 2681). All
//! arithmetic wraps: the parts add up to the whole exactly, whatever a peer wrote into its stamps.

use super::{Direction, HopStamp, NodeId, Return, StampDirection};
use crate::time::{MonoTime, Nanos, SignedNanos};
use crate::wire::ServerConnect;
use std::fmt;

/// An answered, marked block as it returned to the origin, the node that keeps the statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Its sequence number.
    pub sequence: u64,
    /// The due time at the origin, on its monotonic clock: the scheduled time, or the ingress of a
    /// block that the origin passed on. The time of the return if the origin's clock was stepped
    /// meanwhile.
    pub at: MonoTime,
    /// The stamps in the order of the frame: the origin's forward stamp, the nodes outward, the far
    /// end, then the return stamps homeward. A reflector stamps `Turn`, an exit `Forward` and
    /// `Return`.
    pub hop_stamps: Vec<HopStamp>,
    /// Its return to the origin.
    pub home: Return,
    /// `true` if the answer came after the timeout. Its delay counts like any other; leaving it out
    /// would flatter the path.
    pub late: bool,
    /// The latest connect of the exit that answered this probe to its server; `None` if it reported
    /// none since the block before.
    pub server: Option<Box<ServerConnect>>,
    /// A number of the connection that the block came by: blocks of one connection wait for each
    /// other.
    pub connection: u32,
    /// Readings of the kernel's count of retransmissions that came with the block.
    pub retransmits: Vec<Retransmits>,
}

/// A node's reading of how many segments its TCP sent again on one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmits {
    /// The hop of the node that read.
    pub hop: u8,
    /// Forward: sent to the node behind it. Return: sent to the node before it.
    pub direction: Direction,
    /// Segments sent again since the reading before, less those that the peer had received already.
    pub count: u32,
    /// Time since the reading before, on the node's clock.
    pub span: Nanos,
}

/// The delay that one node added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPart {
    /// Its place on the path.
    pub hop: u8,
    /// Its identity.
    pub node: NodeId,
    /// Egress minus ingress on the way out, or a reflector's whole residence; `None` if the clock
    /// was stepped meanwhile.
    pub forward_residence: Option<SignedNanos>,
    /// The same on the way back; `None` also at a reflector, and at an origin where the frame ends.
    pub return_residence: Option<SignedNanos>,
    /// Ingress minus the kernel's receive time on the way out, 0 to 1 s, a share of the segment
    /// before. `None` without a receive time, and at the origin, where the total starts with the
    /// ingress.
    pub forward_wake_up: Option<SignedNanos>,
    /// The same on the way back, a share of the segment behind. `None` also at the end of the path.
    pub return_wake_up: Option<SignedNanos>,
    /// The wake-up delays that count as the host's, on the way out and back: of segments whose both
    /// ends are known.
    pub own_wake_ups: [SignedNanos; 2],
}

impl HostPart {
    /// The host's part of the total: its residences and its own wake-up delays. `None` if its clock
    /// was stepped.
    pub fn part(&self) -> Option<SignedNanos> {
        self.residence()
            .map(|residence| residence + self.own_wake_ups[0] + self.own_wake_ups[1])
    }

    /// Both residences together; `None` where there is neither.
    pub fn residence(&self) -> Option<SignedNanos> {
        match (self.forward_residence, self.return_residence) {
            (None, None) => None,
            (forward, back) => Some(forward.unwrap_or_default() + back.unwrap_or_default()),
        }
    }
}

/// The delay that the stretch between two neighbouring nodes added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPart {
    /// Hop of the near node.
    pub from_hop: u8,
    /// Hop of the far node.
    pub to_hop: u8,
    /// `(x_i - x_e) - (y_e - y_i)`; `None` if the clock of either end was stepped in between.
    pub round_trip: Option<SignedNanos>,
    /// The round trip without two wake-up delays: the far node's on the way out and the near node's
    /// on the way back. `None` if one of the three is unknown.
    pub network: Option<SignedNanos>,
    /// The raw one-way difference `y_i - x_e` of two clocks; `None` if the round trip is.
    pub forward: Option<SignedNanos>,
    /// The raw one-way difference `x_i - y_e`. Forward and back add up to the round trip.
    pub back: Option<SignedNanos>,
    /// The wake-up delay of the far node on the way out and that of the near node on the way back.
    /// `None` unless both are known.
    pub wake_ups: Option<[SignedNanos; 2]>,
    /// The time that the block waited at the near node for its connection to the far one; `None` if
    /// it did not wait.
    pub connect: Option<SignedNanos>,
}

impl SegmentPart {
    /// The segment's part of the total: the round trip without the wake-up delays at its ends.
    /// Where one of them is unknown neither is subtracted, so that no block drops out. `None` if a
    /// clock was stepped.
    pub fn part(&self) -> Option<SignedNanos> {
        self.network.or(self.round_trip)
    }
}

/// The parts of one block's delay. They add up to the total exactly if none of them is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// From the scheduled time to the return at the origin, with its return residence; `None` if
    /// its clock was stepped.
    pub total: Option<SignedNanos>,
    /// The nodes that stamped both ways, in order of the path.
    pub hosts: Vec<HostPart>,
    /// The segments between them, in order of the path.
    pub segments: Vec<SegmentPart>,
    /// The time behind the last node that stamped: zero at an exit, more if nodes farther out do
    /// not stamp. `None` at a reflector, which ends the path, or if a clock step hides it.
    pub beyond: Option<SignedNanos>,
    /// Hops whose clock was stepped while the block was on its way.
    pub stepped: Vec<u8>,
    /// Number of stamps left out because their node stamped in one direction only.
    pub unpaired: usize,
}

/// An order of stamps that no walk along a path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripError {
    /// The first stamp is not the origin's own, in forward direction.
    NoOrigin,
    /// Hops do not rise on the way out and fall on the way back, or a direction does not fit.
    OutOfOrder {
        /// The hop of the stamp that does not fit.
        hop: u8,
    },
}

impl fmt::Display for TripError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrigin => f.write_str("stamps of a block do not begin with the origin's"),
            Self::OutOfOrder { hop } => write!(f, "stamp of hop {hop} is out of order"),
        }
    }
}

impl std::error::Error for TripError {}

/// A node's two stamps of one block. A reflector has `Turn` alone, and so has the origin its way
/// out.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) out: &'a HopStamp,
    pub(super) home: Option<&'a HopStamp>,
}

impl Trip {
    /// Splits the delay into what each host and each segment added.
    ///
    /// # Errors
    /// [`TripError`] if the order of the stamps is impossible. All times are accepted.
    /// are.
    pub fn split(&self) -> Result<Parts, TripError> {
        let mut pairs = Vec::new();
        let unpaired = self.pair(&mut pairs)?;
        Ok(self.parts(&pairs, unpaired))
    }

    /// Finds the nodes that stamped both ways. Returns the number of stamps left out.
    pub(super) fn pair<'a>(&'a self, pairs: &mut Vec<Pair<'a>>) -> Result<usize, TripError> {
        let (origin, others) = self.hop_stamps.split_first().ok_or(TripError::NoOrigin)?;
        if origin.direction != StampDirection::Forward {
            return Err(TripError::NoOrigin);
        }
        let outward = others
            .iter()
            .take_while(|c| c.direction == StampDirection::Forward);
        let (outward, rest) = others.split_at(outward.count());
        let (turn, homeward) = match rest.split_first() {
            Some((first, rest)) if first.direction == StampDirection::Turn => (Some(first), rest),
            _ => (None, rest),
        };
        let mut last = origin.hop;
        for hop_stamp in outward.iter().chain(turn) {
            if hop_stamp.hop <= last {
                return Err(TripError::OutOfOrder { hop: hop_stamp.hop });
            }
            last = hop_stamp.hop;
        }
        let mut limit = turn.map_or(256, |turn| u16::from(turn.hop));
        for hop_stamp in homeward {
            let hop = hop_stamp.hop;
            if hop_stamp.direction != StampDirection::Return
                || u16::from(hop) >= limit
                || hop <= origin.hop
            {
                return Err(TripError::OutOfOrder { hop });
            }
            limit = u16::from(hop);
        }
        pairs.push(Pair {
            out: origin,
            home: None,
        });
        let mut homeward = homeward.iter().rev().peekable();
        for out in outward {
            while homeward.next_if(|home| home.hop < out.hop).is_some() {}
            if let Some(home) =
                homeward.next_if(|home| home.hop == out.hop && home.node == out.node)
            {
                pairs.push(Pair {
                    out,
                    home: Some(home),
                });
            }
        }
        pairs.extend(turn.map(|out| Pair { out, home: None }));
        let used: usize = pairs
            .iter()
            .map(|pair| 1 + usize::from(pair.home.is_some()))
            .sum();
        Ok(self.hop_stamps.len() - used)
    }

    pub(super) fn parts(&self, pairs: &[Pair<'_>], unpaired: usize) -> Parts {
        let mut parts = Parts {
            hosts: Vec::with_capacity(pairs.len()),
            segments: Vec::with_capacity(pairs.len().saturating_sub(1)),
            unpaired,
            ..Parts::default()
        };
        for (place, pair) in pairs.iter().enumerate() {
            let turn = pair.out.direction == StampDirection::Turn;
            let same_clock = if place == 0 {
                pair.out.generation == self.home.generation
            } else {
                pair.home
                    .map_or(true, |home| home.generation == pair.out.generation)
            };
            let home_stepped = pair.home.is_some_and(|home| home.stepped);
            if !same_clock || pair.out.stepped || home_stepped {
                parts.stepped.push(pair.out.hop);
            }
            let home_residence = if place == 0 {
                // A step between the last two stamps of a block shows in the next one's generation
                // only.
                self.home.egress.map(|egress| egress - self.home.ingress)
            } else {
                pair.home.map(|home| home.egress - home.ingress)
            };
            let home_wake_up = match pair.home {
                _ if place == 0 => self.home.wake_up(),
                // Behind the last node that stamped there is no segment that it could be a share
                // of.
                Some(home) if place + 1 < pairs.len() => home.wake_up(),
                _ => None,
            };
            let forward_residence = (!pair.out.stepped).then(|| pair.out.egress - pair.out.ingress);
            // Without a segment behind it there is nothing that the wait could be the connect of.
            let waited = pair.out.waited && place + 1 < pairs.len();
            let connect = forward_residence.filter(|_| waited);
            parts.hosts.push(HostPart {
                hop: pair.out.hop,
                node: pair.out.node,
                forward_residence: match waited {
                    true => forward_residence.map(|_| SignedNanos::ZERO),
                    false => forward_residence,
                },
                return_residence: home_residence.filter(|_| !home_stepped),
                forward_wake_up: pair.out.wake_up().filter(|_| place > 0),
                return_wake_up: home_wake_up,
                own_wake_ups: [SignedNanos::ZERO; 2],
            });
            if place == 0 {
                let total = self.home.ingress - pair.out.ingress;
                parts.total = (same_clock && !pair.out.stepped)
                    .then(|| total + home_residence.unwrap_or_default());
            }
            // From here to the next node; the time between our two stamps that look downstream.
            let back_in = match pair.home {
                _ if place == 0 => self.home.ingress,
                Some(home) => home.ingress,
                None => continue,
            };
            let Some(far) = pairs.get(place + 1) else {
                parts.beyond = (!turn && same_clock).then(|| back_in - pair.out.egress);
                continue;
            };
            let far_out = far.home.unwrap_or(far.out);
            let known = same_clock
                && far.out.generation == far_out.generation
                && !far.out.stepped
                && !far_out.stepped;
            let forward = far.out.ingress - pair.out.egress;
            let back = back_in - far_out.egress;
            let wake_ups = far.out.wake_up().zip(home_wake_up).filter(|_| known);
            let wake_ups = wake_ups.map(|(far, near)| [far, near]);
            parts.segments.push(SegmentPart {
                network: wake_ups.map(|[far, near]| forward - far + (back - near)),
                wake_ups,
                connect,
                from_hop: pair.out.hop,
                to_hop: far.out.hop,
                round_trip: known.then(|| forward + back),
                forward: known.then_some(forward),
                back: known.then_some(back),
            });
        }
        for place in 0..parts.segments.len() {
            if let Some([far, near]) = parts.segments[place].wake_ups {
                parts.hosts[place].own_wake_ups[1] = near;
                parts.hosts[place + 1].own_wake_ups[0] = far;
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::samples;
    use crate::measure::tests::simulator::{Random, SimPath};
    use crate::time::WallTime;

    fn sum(parts: &Parts) -> SignedNanos {
        let hosts = parts.hosts.iter().filter_map(HostPart::residence);
        let segments = parts.segments.iter().filter_map(|part| part.round_trip);
        hosts.chain(segments).chain(parts.beyond).sum()
    }

    #[test]
    fn parts_add_up_to_the_whole_whatever_the_clocks_and_the_stamps_say() {
        let mut random = Random::new(2);
        for seed in 0..5_000 {
            let mut path = SimPath::new(2 + random.below(7) as usize, seed);
            path.exit = random.below(2) == 0;
            path.arrivals = seed % 2 == 0;
            for node in &mut path.nodes {
                node.wake_up_ns = [(); 2].map(|()| random.below(2_000_000) as f64);
            }
            let mut trip = path.trip(random.below(1_000));
            let whole = trip.home.ingress - trip.hop_stamps[0].ingress;
            if seed % 3 == 0 {
                // Unreported steps and plain garbage.
                for hop_stamp in &mut trip.hop_stamps {
                    hop_stamp.ingress = WallTime(random.bits());
                    hop_stamp.egress = WallTime(random.bits());
                }
            }
            if seed % 5 == 0 {
                trip.home.egress = Some(trip.home.ingress + SignedNanos(77));
            }
            if seed % 7 == 0 {
                let gone = 1 + random.below(trip.hop_stamps.len() as u64 - 1) as usize;
                trip.hop_stamps.remove(gone);
            }
            let parts = trip.split().unwrap();
            assert_eq!(parts.total, Some(sum(&parts)), "seed {seed}: {trip:?}");
            let mut split = 0;
            for part in &parts.segments {
                let wake_ups = |hop, of: fn(&HostPart) -> Option<SignedNanos>| {
                    let host = parts.hosts.iter().find(|host| host.hop == hop);
                    host.and_then(of)
                };
                let out = wake_ups(part.to_hop, |host| host.forward_wake_up);
                let back = wake_ups(part.from_hop, |host| host.return_wake_up);
                let whole = part
                    .network
                    .map(|network| network + out.unwrap() + back.unwrap());
                assert!(whole.is_none() || whole == part.round_trip, "seed {seed}");
                split += usize::from(whole.is_some());
                assert_eq!(
                    whole.is_some(),
                    out.is_some() && back.is_some(),
                    "seed {seed}"
                );
            }
            if seed % 3 != 0 {
                let all = if seed % 2 == 0 {
                    parts.segments.len()
                } else {
                    0
                };
                assert_eq!(split, all, "seed {seed}: {parts:?}");
            }
            if seed % 3 != 0 && seed % 5 != 0 {
                assert_eq!(parts.total, Some(whole), "seed {seed}");
            }
            for part in &parts.segments {
                let (forward, back) = (part.forward.unwrap(), part.back.unwrap());
                assert_eq!(part.round_trip, Some(forward + back), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_segment_is_measured_between_its_own_stamps() {
        let hop_stamps = vec![
            samples::hop_stamp(0, StampDirection::Forward, 100, 103),
            samples::hop_stamp(2, StampDirection::Forward, 5_010, 5_011),
            samples::hop_stamp(5, StampDirection::Turn, 30, 37),
            samples::hop_stamp(2, StampDirection::Return, 5_051, 5_053),
        ];
        let mut trip = samples::trip(hop_stamps, samples::home(200));
        let parts = trip.split().unwrap();
        let round_trips: Vec<_> = parts
            .segments
            .iter()
            .map(|s| s.round_trip.unwrap().0)
            .collect();
        assert_eq!(round_trips, [97 - 43, 40 - 7]);
        let residences: Vec<_> = parts
            .hosts
            .iter()
            .map(|h| h.residence().unwrap().0)
            .collect();
        assert_eq!(
            (residences, parts.total),
            (vec![3, 3, 7], Some(SignedNanos(100)))
        );
        assert_eq!(
            (parts.hosts[2].return_residence, parts.beyond),
            (None, None)
        );

        // Its clock was stepped between its two stamps: no pair, and both segments beside it are
        // unknown.
        trip.hop_stamps[3].generation = 1;
        let parts = trip.split().unwrap();
        assert_eq!(
            (parts.segments[0].round_trip, parts.segments[1].forward),
            (None, None)
        );
        assert_eq!(
            (parts.stepped, parts.total),
            (vec![2], Some(SignedNanos(100)))
        );
        assert_eq!(parts.hosts[1].return_residence, Some(SignedNanos(2)));
        // Within the first stamp: what follows it is sound.
        (trip.hop_stamps[3].generation, trip.hop_stamps[1].stepped) = (0, true);
        let parts = trip.split().unwrap();
        assert_eq!(
            (
                parts.segments[0].round_trip,
                parts.hosts[1].forward_residence
            ),
            (None, None)
        );
        assert_eq!(parts.segments[1].round_trip, Some(SignedNanos(33)));
        // Within the last stamp, with the generation of before: the time it was away is sound, its
        // whole is not.
        (trip.hop_stamps[1].stepped, trip.hop_stamps[3].stepped) = (false, true);
        let parts = trip.split().unwrap();
        assert_eq!(
            (
                parts.segments[0].round_trip,
                parts.hosts[1].return_residence
            ),
            (None, None)
        );
        assert_eq!(parts.segments[1].round_trip, Some(SignedNanos(33)));
        trip.hop_stamps[3].stepped = false;
        // At the origin there is no whole either.
        trip.home.generation = 1;
        assert_eq!(trip.split().unwrap().total, None);
    }

    #[test]
    fn a_node_alone_has_only_what_is_beyond_it() {
        let mut trip = SimPath::new(2, 1).trip(0);
        trip.hop_stamps.truncate(1);
        let parts = trip.split().unwrap();
        assert!(parts.segments.is_empty() && parts.total == Some(sum(&parts)));
        assert!(parts.beyond > Some(SignedNanos(300_000)));
    }

    #[test]
    fn an_impossible_order_of_stamps_is_an_error() {
        let trip = SimPath::new(4, 1).trip(0);
        let order = |places: &[usize]| {
            let hop_stamps = places.iter().map(|place| trip.hop_stamps[*place]).collect();
            Trip {
                hop_stamps,
                ..trip.clone()
            }
            .split()
        };
        assert!(order(&[0, 1, 2, 3, 4, 5]).is_ok());
        assert_eq!(order(&[]), Err(TripError::NoOrigin));
        assert_eq!(order(&[5, 0]), Err(TripError::NoOrigin));
        assert_eq!(order(&[0, 2, 1]), Err(TripError::OutOfOrder { hop: 1 }));
        assert_eq!(order(&[0, 1, 1]), Err(TripError::OutOfOrder { hop: 1 }));
        assert_eq!(order(&[0, 1, 3, 3]), Err(TripError::OutOfOrder { hop: 3 }));
        assert_eq!(order(&[0, 1, 3, 2]), Err(TripError::OutOfOrder { hop: 2 }));
        assert_eq!(order(&[0, 1, 5, 4]), Err(TripError::OutOfOrder { hop: 2 }));
        assert_eq!(order(&[0, 0]), Err(TripError::OutOfOrder { hop: 0 }));
        let error = order(&[0, 0]).unwrap_err().to_string();
        assert_eq!(error, "stamp of hop 0 is out of order");
    }
}
