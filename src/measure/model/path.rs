//! The nodes of a path that stamp both ways and what is between them: histograms, clocks, pumps and
//! rows of one shape.

use crate::measure::baseline::OneWayMedians;
use crate::measure::clock::Clock;
use crate::measure::held::Held;
use crate::measure::series::{exact_quantile, Bounds, Cells, Rows, NONE};
use crate::measure::trip::{HostPart, Pair, Parts, Retransmits, SegmentPart, Trip};
use crate::measure::{Direction, Histogram, NodeId, Part, StampDirection, Summary};
use crate::time::{MonoTime, Nanos, SignedNanos};
use crate::vec_map::VecMap;

/// Identities remembered per hop. A larger pool is counted on, but its later members begin no new
/// baseline.
const POOL: usize = 64;
/// Cells of a row per segment: its part, one way forward and back without wake-up delays, connect.
const OF_SEGMENT: usize = 4;
/// Cells of a row per host: its part, and the wake-up delays in it, forward and back.
const OF_HOST: usize = 3;

/// A block may wait so long for a retransmission before the reading's span, and for the block that
/// carries the reading after it. The least timeout of Linux's TCP is 200 ms.
const WAITING: Nanos = Nanos::from_millis(600);

/// Delays of one part of the path.
#[derive(Debug, Default)]
pub(super) struct PartDelays {
    /// Every block; of a connect, those that waited.
    pub(super) run: Histogram,
    /// Blocks of the window that goes on.
    pub(super) window: Histogram,
    /// The latest window that is complete.
    pub(super) last_window: Option<Summary>,
}

impl PartDelays {
    pub(super) fn record(&mut self, delay: SignedNanos) {
        self.run.record(delay);
        self.window.record(delay);
    }

    /// Ends the window that goes on.
    pub(super) fn end_window(&mut self) {
        self.last_window = std::mem::take(&mut self.window).summary();
    }
}

#[derive(Debug)]
pub(super) struct Path {
    pub(super) hosts: Vec<Host>,
    pub(super) segments: Vec<Segment>,
    pub(super) behind: PartDelays,
    pub(super) rows: Rows,
    pub(super) held: Held,
    /// Blocks begin and end at the first node.
    pub(super) source: bool,
    /// The last node reflects.
    pub(super) reflected: bool,
    row: Vec<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) hop: u8,
    /// Identities and clock generations, in order of appearance.
    pub(super) nodes: Vec<(NodeId, u8)>,
    pub(super) current: usize,
    /// Identities that others took the place of. One that is seen again belongs to a pool; those of
    /// a node that was restarted never are.
    pub(super) former: Vec<NodeId>,
    pub(super) part: PartDelays,
    pub(super) forward: Histogram,
    pub(super) back: Histogram,
    pub(super) forward_wake_up: Histogram,
    pub(super) back_wake_up: Histogram,
    pub(super) steps: u64,
    pub(super) last_step: Option<MonoTime>,
}

#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) from_hop: u8,
    pub(super) to_hop: u8,
    pub(super) part: PartDelays,
    pub(super) connect: PartDelays,
    pub(super) round_trip: Histogram,
    pub(super) network: Histogram,
    pub(super) negative: u64,
    /// Segments that a TCP sent again, forward and return; `None` until a node reported any
    /// reading.
    pub(super) retransmits: [Option<u64>; 2],
    /// Late blocks about the span of a reading that had some.
    pub(super) delayed_by_loss: u64,
    pub(super) clock: Clock,
}

/// The reading of a column of the rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    pub(super) column: usize,
    /// Rows from before this time are of another pair of clocks.
    pub(super) since: MonoTime,
    /// Nanoseconds per nanosecond after `since`, subtracted.
    pub(super) rate: f64,
}

impl Reading {
    pub(super) fn of(self, at: u64, row: Cells<'_>) -> Option<i64> {
        let value = row.get(self.column).filter(|value| *value != NONE)?;
        let age = at.checked_sub(self.since.0)?;
        // A rate of 0 has to leave the value as it is: f64 has 53 bits.
        let drift = if self.rate == 0.0 {
            0
        } else {
            (age as f64 * self.rate) as i64
        };
        Some(value.saturating_sub(drift))
    }
}

impl Path {
    /// A path of the shape of `parts`, without figures.
    pub(super) fn new(parts: &Parts, bounds: Bounds) -> Self {
        let host = |part: &HostPart| Host {
            hop: part.hop,
            ..Host::default()
        };
        let hosts: Vec<Host> = parts.hosts.iter().map(host).collect();
        let segment = |part: &SegmentPart| Segment {
            from_hop: part.from_hop,
            to_hop: part.to_hop,
            ..Segment::default()
        };
        let segments: Vec<Segment> = parts.segments.iter().map(segment).collect();
        let columns = OF_SEGMENT * segments.len() + OF_HOST * hosts.len() + 1;
        Self {
            rows: Rows::new(columns, bounds),
            held: Held::new(2 * hosts.len()),
            behind: PartDelays::default(),
            row: vec![NONE; columns],
            hosts,
            segments,
            source: true,
            reflected: false,
        }
    }

    pub(super) fn has_shape_of(&self, parts: &Parts) -> bool {
        let hops = parts.hosts.iter().map(|host| host.hop);
        self.hosts.iter().map(|host| host.hop).eq(hops)
    }

    fn segment_column(segment: usize) -> usize {
        OF_SEGMENT * segment
    }

    fn host_column(&self, host: usize) -> usize {
        OF_SEGMENT * self.segments.len() + OF_HOST * host
    }

    fn behind_column(&self) -> usize {
        self.row.len() - 1
    }

    /// The parts of the path in its order.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for (place, host) in self.hosts.iter().enumerate() {
            parts.push(Part::Host(host.hop));
            if let Some(segment) = self.segments.get(place) {
                let (from, to) = (segment.from_hop, segment.to_hop);
                if segment.connect.run.count() > 0 {
                    parts.push(Part::Connect { from, to });
                }
                parts.push(Part::Segment { from, to });
            }
        }
        if self.behind.run.count() > 0 {
            let last = self.hosts.last().map_or(0, |host| host.hop);
            parts.push(Part::Behind(last));
        }
        parts
    }

    fn segment_place(&self, from: u8, to: u8) -> Option<usize> {
        let is = |segment: &Segment| (segment.from_hop, segment.to_hop) == (from, to);
        self.segments.iter().position(is)
    }

    /// Delays and column of a part; `None` for one that is not on this path.
    pub(super) fn part(&self, part: Part) -> Option<(&PartDelays, usize)> {
        match part {
            Part::Host(hop) => {
                let place = self.hosts.iter().position(|host| host.hop == hop)?;
                Some((&self.hosts[place].part, self.host_column(place)))
            }
            Part::Segment { from, to } => {
                let place = self.segment_place(from, to)?;
                Some((&self.segments[place].part, Self::segment_column(place)))
            }
            Part::Connect { from, to } => {
                let place = self.segment_place(from, to)?;
                let column = Self::segment_column(place) + 3;
                Some((&self.segments[place].connect, column))
            }
            Part::Behind(_) => Some((&self.behind, self.behind_column())),
            Part::Server | Part::ServerConnect | Part::Total => None,
        }
    }

    /// The columns of the wake-up delays within a host's part, forward and back.
    pub(super) fn wake_up_columns(&self, hop: u8) -> Option<[usize; 2]> {
        let place = self.hosts.iter().position(|host| host.hop == hop)?;
        Some([1, 2].map(|cell| self.host_column(place) + cell))
    }

    /// The one-way column of a segment, with the skew of its clocks taken out, since they were last
    /// stepped.
    pub(super) fn one_way(&self, place: usize, direction: Direction) -> Reading {
        let clock = &self.segments[place].clock;
        let (column, rate) = (Self::segment_column(place), clock.skew().rate);
        let (column, rate) = match direction {
            Direction::Forward => (column + 1, rate),
            Direction::Return => (column + 2, -rate),
        };
        let since = clock.since();
        Reading {
            column,
            since,
            rate,
        }
    }

    /// A segment's one-way delays since `since`, by clocks of these errors; `None` for other parts,
    /// and unless both clocks are synchronised.
    pub(super) fn one_way_medians(
        &self,
        part: Part,
        since: MonoTime,
        errors: &VecMap<u8, Nanos>,
    ) -> Option<OneWayMedians> {
        let Part::Segment { from, to } = part else {
            return None;
        };
        let place = self.segment_place(from, to)?;
        let clock = &self.segments[place].clock;
        if !clock.synchronised() {
            return None;
        }
        let since = since.max(clock.since()).0;
        let median = |column: usize| {
            let rows = self.rows.searched().filter(|row| row.at >= since);
            let values = rows.filter_map(|row| row.cells.get(column));
            let mut values: Vec<i64> = values.filter(|value| *value != NONE).collect();
            exact_quantile(&mut values, 0.5).map(SignedNanos)
        };
        let column = Self::segment_column(place);
        Some(OneWayMedians {
            ways: [median(column + 1)?, median(column + 2)?],
            error: *errors.get(&from)? + *errors.get(&to)?,
        })
    }

    /// Ends the windows of all parts.
    pub(super) fn end_window(&mut self) {
        for host in &mut self.hosts {
            host.part.end_window();
        }
        for segment in &mut self.segments {
            segment.part.end_window();
            segment.connect.end_window();
        }
        self.behind.end_window();
    }

    /// Notes the node at each hop. Returns how many are another node than before.
    pub(super) fn meet(&mut self, pairs: &[Pair<'_>]) -> u64 {
        let mut changes = 0;
        for (host, pair) in self.hosts.iter_mut().zip(pairs) {
            let id = pair.out.node;
            if host
                .nodes
                .get(host.current)
                .is_some_and(|(node, _)| *node == id)
            {
                continue;
            }
            changes += u64::from(!host.nodes.is_empty());
            host.meet(id, pair.out.generation);
        }
        changes
    }

    pub(super) fn record(&mut self, trip: &Trip, pairs: &[Pair<'_>], parts: &Parts) {
        let at = trip.at;
        self.source = trip.home.egress.is_none() && parts.hosts.first().is_some_and(|h| h.hop == 0);
        let is_turn = |last: &Pair<'_>| last.out.direction == StampDirection::Turn;
        self.reflected = pairs.last().is_some_and(is_turn);
        self.record_pumps(trip, pairs);
        self.row.fill(NONE);
        for (place, part) in parts.hosts.iter().enumerate() {
            self.record_host(place, part);
            if parts.stepped.contains(&part.hop) {
                self.hosts[place].suspect(at);
            }
        }
        for (place, part) in parts.segments.iter().enumerate() {
            self.record_segment(place, part, trip, pairs);
        }
        if let Some(beyond) = parts.beyond.filter(|beyond| *beyond != SignedNanos::ZERO) {
            self.behind.record(beyond);
            let column = self.behind_column();
            self.row[column] = beyond.0;
        }
        self.mask_unreported_steps(at, parts);
        self.rows.push(at, trip.connection, 0, &self.row);
        if !trip.retransmits.is_empty() {
            self.record_retransmits(trip);
        }
    }

    /// Adds the readings of retransmissions that came with a block, and flags the blocks that they
    /// delayed. Those are of its connection that may have waited for one within the span of the
    /// reading, and were late.
    fn record_retransmits(&mut self, trip: &Trip) {
        for (reading, place) in self.add_retransmits(&trip.retransmits) {
            let bits = 1_u64.checked_shl(place as u32).unwrap_or(0);
            let segment = &mut self.segments[place];
            let Some(p50) = segment.part.run.quantile(0.5) else {
                continue;
            };
            if reading.count == 0 {
                continue;
            }
            let before = reading.span + WAITING;
            let since = MonoTime(trip.at.0.saturating_sub(before.0));
            let late = p50.0.saturating_add(p50.0 / 4);
            let column = (Self::segment_column(place), late);
            segment.delayed_by_loss += self.rows.flag(trip.connection, since, column, bits);
        }
    }

    /// Adds readings to the sums of their segments. Returns them with the places of these.
    pub(super) fn add_retransmits(
        &mut self,
        readings: &[Retransmits],
    ) -> Vec<(Retransmits, usize)> {
        let mut added = Vec::new();
        for reading in readings {
            let is_of = |segment: &Segment| match reading.direction {
                Direction::Forward => segment.from_hop == reading.hop,
                Direction::Return => segment.to_hop == reading.hop,
            };
            let Some(place) = self.segments.iter().position(is_of) else {
                continue;
            };
            let segment = &mut self.segments[place];
            let sum = &mut segment.retransmits[usize::from(reading.direction == Direction::Return)];
            *sum = Some(sum.unwrap_or(0).saturating_add(reading.count.into()));
            added.push((*reading, place));
        }
        added
    }

    /// The bit of a segment in the flags of a row.
    pub(super) fn flag(&self, part: Part) -> Option<u32> {
        match part {
            Part::Segment { from, to } => Some(self.segment_place(from, to)? as u32),
            _ => None,
        }
        .filter(|place| *place < u64::BITS)
    }

    /// Clock generations of all nodes, and how long their pumps were blocked in `write`.
    fn record_pumps(&mut self, trip: &Trip, pairs: &[Pair<'_>]) {
        let at = trip.at;
        let places = pairs.len();
        let followed = self.held.follow(trip.connection, at);
        for (place, (host, pair)) in self.hosts.iter_mut().zip(pairs).enumerate() {
            let node = pair.out.node;
            host.step(at, node, pair.out.generation);
            let clock = (node, pair.out.generation);
            if let Some(connection) = followed {
                let (egress, held) = (pair.out.egress, pair.out.held);
                self.held.record((connection, place), clock, egress, held);
            }
            let home = match pair.home {
                Some(home) => Some((home.generation, home.egress, home.held)),
                None if place == 0 => {
                    let home = &trip.home;
                    let egress = home.egress.unwrap_or(home.ingress);
                    Some((home.generation, egress, home.held))
                }
                None => None,
            };
            if let Some((generation, egress, held)) = home {
                host.step(at, node, generation);
                if let Some(connection) = followed {
                    let (pump, clock) = ((connection, places + place), (node, generation));
                    self.held.record(pump, clock, egress, held);
                }
            }
        }
        self.held.tick(at);
    }

    fn record_host(&mut self, place: usize, part: &HostPart) {
        let column = self.host_column(place);
        let host = &mut self.hosts[place];
        let record = |histogram: &mut Histogram, value: Option<SignedNanos>| {
            value.into_iter().for_each(|value| histogram.record(value));
        };
        record(&mut host.forward, part.forward_residence);
        record(&mut host.back, part.return_residence);
        record(&mut host.forward_wake_up, part.forward_wake_up);
        record(&mut host.back_wake_up, part.return_wake_up);
        if let Some(delay) = part.part() {
            host.part.record(delay);
            self.row[column] = delay.0;
            let [forward, back] = part.own_wake_ups;
            self.row[column + 1] = forward.0;
            self.row[column + 2] = back.0;
        }
    }

    fn record_segment(
        &mut self,
        place: usize,
        part: &SegmentPart,
        trip: &Trip,
        pairs: &[Pair<'_>],
    ) {
        let (Some(segment), [near, far, ..]) = (self.segments.get_mut(place), &pairs[place..])
        else {
            return;
        };
        let column = Self::segment_column(place);
        if let (Some(forward), Some(back)) = (part.forward, part.back) {
            segment.round_trip.record(forward + back);
            segment.negative += u64::from((forward + back).0 < 0);
            let ends = [near, far].map(|end| (end.out.node, end.out.generation));
            let synchronised = near.out.synchronised && far.out.synchronised;
            segment
                .clock
                .record(trip.at, ends, synchronised, (forward, back));
            let [late_far, late_near] = part.wake_ups.unwrap_or_default();
            self.row[column + 1] = (forward - late_far).0;
            self.row[column + 2] = (back - late_near).0;
        }
        if let Some(network) = part.network {
            segment.network.record(network);
        }
        if let Some(delay) = part.part() {
            segment.part.record(delay);
            self.row[column] = delay.0;
        }
        if let Some(connect) = part.connect {
            segment.connect.record(connect);
            self.row[column + 3] = connect.0;
        }
    }

    /// A round trip well below zero that a part beside it makes up for. The clock between them was
    /// stepped, though its generation does not show it. The figures are kept, but the verdict does
    /// not rest on them.
    fn mask_unreported_steps(&mut self, at: MonoTime, parts: &Parts) {
        // Clocks at 200 ppm of each other may show as little as this below zero.
        let total = parts.total.unwrap_or_default().abs().0;
        let least = i64::try_from(total / 5_000).unwrap_or(i64::MAX);
        let least = least.saturating_add(100_000);
        for place in 0..parts.segments.len() {
            let missing = match parts.segments[place].round_trip {
                Some(SignedNanos(value)) if value < least.saturating_neg() => value,
                _ => continue,
            };
            let host = |host| (host, self.host_column(host));
            let before = place.checked_sub(1);
            let before = before.map(|before| (place, Self::segment_column(before)));
            let after = (place + 2 < parts.hosts.len())
                .then(|| (place + 1, Self::segment_column(place + 1)));
            let beside = before.into_iter().chain(after);
            let beside = beside.chain([host(place), host(place + 1)]);
            let Some((stepped, column)) = beside.max_by_key(|(_, column)| self.row[*column]) else {
                continue;
            };
            if self.row[column] >= missing.saturating_neg() / 2 {
                let is_segment = column < self.host_column(0);
                let width = if is_segment { OF_SEGMENT } else { OF_HOST };
                self.row[column..column + width].fill(NONE);
                self.hosts[stepped].suspect(at);
            }
            let column = Self::segment_column(place);
            self.row[column..column + OF_SEGMENT].fill(NONE);
        }
    }
}

impl Host {
    /// Takes another node for the current one. It replaces that one, which may have been restarted,
    /// unless one of both was there before: then they are several at once.
    fn meet(&mut self, id: NodeId, generation: u8) {
        let known = self.nodes.iter().position(|(node, _)| *node == id);
        if let Some(known) = known {
            self.current = known;
            return;
        }
        let is_back = self.former.contains(&id);
        let replaced = self.nodes.get_mut(self.current).filter(|_| !is_back);
        match replaced {
            Some(replaced) => {
                if self.former.len() >= POOL {
                    self.former.remove(0);
                }
                self.former.push(replaced.0);
                *replaced = (id, generation);
            }
            None => {
                self.former.retain(|former| *former != id);
                self.current = self.nodes.len();
                if self.nodes.len() < POOL {
                    self.nodes.push((id, generation));
                }
            }
        }
    }

    fn step(&mut self, at: MonoTime, node: NodeId, generation: u8) {
        let known = self.nodes.get_mut(self.current);
        if let Some((_, last)) = known.filter(|known| known.0 == node) {
            // Stamps of another connection may be a little older: that is no step.
            let steps = generation.wrapping_sub(*last);
            if (1..128).contains(&steps) {
                *last = generation;
                self.steps += u64::from(steps);
                self.last_step = Some(at);
            }
        }
    }

    /// A step that the generation did not count. Blocks within a second of each other show the same
    /// one.
    fn suspect(&mut self, at: MonoTime) {
        let recent = |last: MonoTime| at.since(last) < Nanos::from_millis(1_000);
        let same = self.last_step.is_some_and(recent);
        self.steps += u64::from(!same);
        self.last_step = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes_of(seen: &[u64]) -> usize {
        let mut host = Host::default();
        for id in seen {
            host.meet(NodeId(*id), 0);
        }
        host.nodes.len()
    }

    #[test]
    fn a_node_replaced_by_itself_is_a_restart_and_one_that_comes_back_is_of_a_pool() {
        assert_eq!(nodes_of(&[1, 1, 2, 2, 3]), 1, "restarted twice");
        assert_eq!(nodes_of(&[1, 2, 1]), 2, "both are there");
        assert_eq!(nodes_of(&[1, 2, 3, 1, 2, 3]), 3);
        for pool in 2..40 {
            let mut random = crate::random::Random::new(pool);
            let seen: Vec<_> = (0..pool * 40)
                .map(|_| random.below(pool as usize) as u64)
                .collect();
            let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
            assert_eq!(nodes_of(&seen), distinct.len(), "a pool of {pool}");
            let restarts: Vec<u64> = (0..pool * 40).map(|number| number / 7).collect();
            assert_eq!(nodes_of(&restarts), 1);
        }
    }
}
