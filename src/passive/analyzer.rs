//! Packets in; flows and round trips to an [`Observer`] out. The table of flows and its bounds.

use super::application::Budget;
use super::capture::{Packet, BATCH};
use super::flow::{BoxedFlow, Ended, Findings, Flow, Sample};
use super::packet::{self, Endpoint, Skip, TcpSegment, ACK, SYN};
use super::side::Side;
use crate::time::WallTime;
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// How long a closed connection stays in the table after its last packet: repeated FINs and late ACKs belong to it.
/// Less than the TIME-WAIT of RFC 9293 §3.3.2, for it costs memory; more than any usual pause between two repeats.
const LINGER_NS: u64 = 10 * 1_000_000_000;

/// Interval snapshots kept per flow.
const INTERVALS_PER_FLOW: usize = 3600;

/// What the table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows held at once, at least 1; beyond it the least recently seen one has to go.
    pub max_flows: usize,
    /// Length of an interval; `None` for no snapshots.
    pub interval_ns: Option<u64>,
}

/// What is told while packets are taken in.
pub trait Observer {
    /// A round trip was completed.
    fn sample(&mut self, _flow: &Flow, _sample: &Sample) {}

    /// A segment, which `sender` sent and which passed `now`, was taken in by its flow.
    fn segment(
        &mut self,
        _now: WallTime,
        _flow: &Flow,
        _sender: Side,
        _segment: &TcpSegment<'_>,
        _findings: &Findings,
    ) {
    }

    /// A flow's record is complete: closed for a while, replaced, evicted, or the capture has ended.
    fn ended(&mut self, flow: BoxedFlow);
}

/// Counts over a whole capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets of any kind.
    pub packets: u64,
    /// Those that held a TCP segment that could be used.
    pub tcp_packets: u64,
    /// The others, by the order of [`Skip::ALL`].
    pub skipped: [u64; Skip::ALL.len()],
    /// Time of the first packet; `None` before it.
    pub first: Option<WallTime>,
    /// Time of the latest one.
    pub last: Option<WallTime>,
    /// Flows begun.
    pub flows: u64,
    /// Flows that had to make room while they were open.
    pub evicted: u64,
}

/// Addresses and ports of a connection, the lower end first, so that both directions have one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    low: Endpoint,
    high: Endpoint,
}

impl Key {
    #[inline]
    fn of(segment: &TcpSegment<'_>) -> Self {
        let (a, b) = (segment.source, segment.destination);
        if (a.address, a.port) <= (b.address, b.port) {
            Self { low: a, high: b }
        } else {
            Self { low: b, high: a }
        }
    }
}

impl Key {
    /// 64 bits that stand for it in the index.
    #[inline]
    fn print(&self, keyed: Keyed) -> u64 {
        let mut hasher = keyed.build_hasher();
        hasher.write_u128(self.low.address);
        hasher.write_u128(self.high.address);
        hasher.write_u32(u32::from(self.low.port) << 16 | u32::from(self.high.port));
        hasher.finish()
    }
}

/// Hands a number on that is a hash already.
#[derive(Clone, Copy, Debug, Default)]
struct Printed(u64);

impl Hasher for Printed {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("the index has keys of 64 bits only");
    }
}

/// Folded multiplication with secret numbers: a capture's author cannot aim at one bucket, and it costs a tenth of std's
/// SipHash, which is a fifth of the time per packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    seed: u64,
    factor: u64,
}

impl Keyed {
    pub(super) fn new() -> Self {
        let state = RandomState::new();
        Self {
            seed: state.hash_one(0_u8),
            factor: state.hash_one(1_u8) | 1,
        }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;
    #[inline]
    fn build_hasher(&self) -> Folding {
        Folding {
            state: self.seed,
            factor: self.factor,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Folding {
    state: u64,
    factor: u64,
}

impl Hasher for Folding {
    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.state ^ value) * u128::from(self.factor);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(self.factor);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for eight in bytes.chunks(8) {
            let value = eight
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            self.write_u64(value);
        }
    }
}

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;

/// A list of slots by the time they were last seen, newest first.
#[derive(Clone, Copy, Debug)]
struct Recency {
    newest: u32,
    oldest: u32,
}

/// A slot's neighbours, apart from the flows: a step in the list then touches 8 bytes and not two records.
#[derive(Clone, Copy, Debug)]
struct Links {
    newer: u32,
    older: u32,
}

#[derive(Debug)]
struct Slot {
    flow: BoxedFlow,
    key: Key,
    /// Whether the client is the key's lower end.
    client_is_low: bool,
    closed: bool,
}

/// A segment and where it belongs.
#[derive(Clone, Copy)]
struct Parsed<'a> {
    time: WallTime,
    segment: TcpSegment<'a>,
    key: Key,
    print: u64,
}

/// The table of flows.
#[derive(Debug)]
pub struct Analyzer {
    limits: Limits,
    tally: Tally,
    keyed: Keyed,
    /// Slots by [`Key::print`]: a quarter of the size of an index by keys, and the slot is looked at anyway.
    index: HashMap<u64, u32, BuildHasherDefault<Printed>>,
    slots: Vec<Option<Slot>>,
    links: Vec<Links>,
    free: Vec<u32>,
    /// Open flows, and closed ones.
    lists: [Recency; 2],
    budget: Budget,
}

impl Analyzer {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        let empty = Recency {
            newest: NONE,
            oldest: NONE,
        };
        Self {
            limits: Limits {
                max_flows: limits.max_flows.clamp(1, NONE as usize),
                interval_ns: limits.interval_ns.filter(|ns| *ns > 0),
            },
            tally: Tally::default(),
            keyed: Keyed::new(),
            index: HashMap::default(),
            slots: Vec::new(),
            links: Vec::new(),
            free: Vec::new(),
            lists: [empty; 2],
            budget: Budget::default(),
        }
    }

    /// The same table, which keeps the targets of HTTP requests.
    pub fn with_targets(mut self, targets: bool) -> Self {
        self.budget.targets = targets;
        self
    }

    /// Counts so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Bytes of payload that wait for those before them, and what holds them.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.budget.held
    }

    /// Flows in the table.
    pub fn flows_held(&self) -> usize {
        self.index.len()
    }

    /// Takes packets in, in their order.
    ///
    /// With thousands of flows every packet's flow has to be fetched from memory, and waiting for that is half of the
    /// work. So it goes by batches: all are parsed and all flows looked at, which the processor does side by side, before
    /// the first is worked on.
    #[inline]
    pub fn packets(&mut self, packets: &[Packet<'_>], observer: &mut impl Observer) {
        for batch in packets.chunks(BATCH) {
            let mut parsed = [None; BATCH];
            for (place, packet) in parsed.iter_mut().zip(batch) {
                *place = self.parse(packet);
            }
            let slots = parsed.map(|place| self.index.get(&place?.print).copied());
            let warm = slots.map(|at| {
                self.slots
                    .get(at? as usize)?
                    .as_ref()
                    .map(|slot| slot.flow.warm())
            });
            std::hint::black_box(warm);
            for (time, segment, key, print) in parsed
                .iter()
                .flatten()
                .map(|of| (of.time, &of.segment, of.key, of.print))
            {
                self.segment(time, segment, key, print, observer);
            }
        }
    }

    /// Counts a packet; its segment, if it has one that can be used.
    #[inline]
    fn parse<'a>(&mut self, packet: &Packet<'a>) -> Option<Parsed<'a>> {
        self.tally.packets += 1;
        let Some(time) = packet.time else {
            self.tally.skipped[Skip::NoTime as usize] += 1;
            return None;
        };
        self.tally.first.get_or_insert(time);
        self.tally.last = self.tally.last.max(Some(time));
        match packet::parse(packet) {
            Ok(segment) => {
                self.tally.tcp_packets += 1;
                let key = Key::of(&segment);
                Some(Parsed {
                    time,
                    segment,
                    key,
                    print: key.print(self.keyed),
                })
            }
            Err(skip) => {
                self.tally.skipped[skip as usize] += 1;
                None
            }
        }
    }

    /// Hands out all flows that are left, in the order of their first packets.
    pub fn finish(&mut self, observer: &mut impl Observer) {
        let mut left: Vec<BoxedFlow> = self
            .slots
            .drain(..)
            .flatten()
            .map(|slot| slot.flow)
            .collect();
        left.sort_by_key(|flow| flow.id);
        left.iter_mut().for_each(|flow| self.close(flow));
        let tally = std::mem::take(&mut self.tally);
        *self = Self::new(self.limits).with_targets(self.budget.targets);
        self.tally = tally;
        for flow in left {
            observer.ended(flow);
        }
    }

    #[inline]
    fn segment(
        &mut self,
        now: WallTime,
        segment: &TcpSegment<'_>,
        key: Key,
        print: u64,
        observer: &mut impl Observer,
    ) {
        self.retire_closed(now, observer);
        let from_low = segment.source == key.low;
        let known = self.find(key, print, observer);
        let begins = segment.has(SYN) && !segment.has(ACK);
        let at = match known {
            Some(at) if begins && self.reused(at, from_low, segment.seq) => {
                self.retire(at, observer);
                self.open(now, key, segment, observer)
            }
            Some(at) => {
                self.touch(at);
                at
            }
            None => self.open(now, key, segment, observer),
        };
        let Some(slot) = self.slots[at as usize].as_mut() else {
            return;
        };
        let sender = match from_low == slot.client_is_low {
            true => Side::Client,
            false => Side::Server,
        };
        let flow = &mut slot.flow;
        if let Some(interval_ns) = self.limits.interval_ns {
            let room = match self.budget.room() {
                0 => 0,
                _ => INTERVALS_PER_FLOW,
            };
            let grew = flow.enter_interval(now, interval_ns, room);
            self.budget.history += usize::from(grew);
        }
        let mut findings = flow.segment(now, sender, segment);
        flow.read_payload(now, sender, segment, &mut findings, &mut self.budget);
        observer.segment(now, flow, sender, segment, &findings);
        for sample in [findings.handshake, findings.data].into_iter().flatten() {
            observer.sample(flow, &sample);
        }
        if !slot.closed && flow.ended() != Ended::Open {
            slot.closed = true;
            self.unlink(at, 0);
            self.link(at, 1);
        }
    }

    #[inline]
    fn find(&mut self, key: Key, print: u64, observer: &mut impl Observer) -> Option<u32> {
        let at = *self.index.get(&print)?;
        let found = self.slots[at as usize]
            .as_ref()
            .is_some_and(|slot| slot.key == key);
        if !found {
            // Two keys with one print: once in 2^64 / 100 000 flows, and not at anybody's will. The older one goes.
            self.retire(at, observer);
        }
        found.then_some(at)
    }

    fn reused(&self, at: u32, from_low: bool, seq: u32) -> bool {
        let Some(slot) = &self.slots[at as usize] else {
            return false;
        };
        let sender = match from_low == slot.client_is_low {
            true => Side::Client,
            false => Side::Server,
        };
        slot.flow.is_reused_by(sender, seq)
    }

    /// A new record, room made for it.
    fn open(
        &mut self,
        now: WallTime,
        key: Key,
        segment: &TcpSegment<'_>,
        observer: &mut impl Observer,
    ) -> u32 {
        while self.index.len() >= self.limits.max_flows {
            self.evict(observer);
        }
        let (source, destination) = (segment.source, segment.destination);
        let from_client = match (segment.has(SYN), segment.has(ACK)) {
            (true, answer) => !answer,
            // Servers have the lower port; between equals the first to speak is the client.
            (false, _) => source.port >= destination.port,
        };
        let ends = if from_client {
            [source, destination]
        } else {
            [destination, source]
        };
        let slot = Slot {
            flow: Box::new(Flow::new(self.tally.flows, ends, now)),
            key,
            client_is_low: ends[0] == key.low,
            closed: false,
        };
        self.tally.flows += 1;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                self.links.push(Links {
                    newer: NONE,
                    older: NONE,
                });
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(key.print(self.keyed), at);
        self.link(at, 0);
        at
    }

    /// Moves a slot to the front of its list.
    #[inline]
    fn touch(&mut self, at: u32) {
        let list = usize::from(
            self.slots[at as usize]
                .as_ref()
                .is_some_and(|slot| slot.closed),
        );
        if self.lists[list].newest != at {
            self.unlink(at, list);
            self.link(at, list);
        }
    }

    #[inline]
    fn link(&mut self, at: u32, list: usize) {
        let list = &mut self.lists[list];
        self.links[at as usize] = Links {
            newer: NONE,
            older: list.newest,
        };
        match list.newest {
            NONE => list.oldest = at,
            newest => self.links[newest as usize].newer = at,
        }
        list.newest = at;
    }

    #[inline]
    fn unlink(&mut self, at: u32, list: usize) {
        let Links { newer, older } = self.links[at as usize];
        let list = &mut self.lists[list];
        match newer {
            NONE => list.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        match older {
            NONE => list.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
    }

    fn last_seen(&self, at: u32) -> Option<WallTime> {
        Some(self.slots.get(at as usize)?.as_ref()?.flow.last)
    }

    #[inline]
    fn retire_closed(&mut self, now: WallTime, observer: &mut impl Observer) {
        while let Some(last) = self.last_seen(self.lists[1].oldest) {
            if now.0.saturating_sub(last.0) < LINGER_NS {
                break;
            }
            self.retire(self.lists[1].oldest, observer);
        }
    }

    /// Retires the least recently seen flow, open or closed.
    fn evict(&mut self, observer: &mut impl Observer) {
        let [open, closed] = self.lists.map(|list| list.oldest);
        let at = match (self.last_seen(open), self.last_seen(closed)) {
            (Some(of_open), Some(of_closed)) if of_closed <= of_open => closed,
            (None, _) => closed,
            _ => open,
        };
        if at == open {
            self.tally.evicted += 1;
            if let Some(slot) = self.slots[at as usize].as_mut() {
                slot.flow.evicted = true;
            }
        }
        self.retire(at, observer);
    }

    /// Completes a record that leaves the table.
    fn close(&mut self, flow: &mut Flow) {
        flow.finish_payload(flow.ended() == Ended::Rst, &mut self.budget);
        let intervals = flow.intervals.len();
        self.budget.history = self.budget.history.saturating_sub(intervals);
    }

    fn retire(&mut self, at: u32, observer: &mut impl Observer) {
        let Some(mut slot) = self.slots.get_mut(at as usize).and_then(Option::take) else {
            return;
        };
        self.unlink(at, usize::from(slot.closed));
        self.index.remove(&slot.key.print(self.keyed));
        self.free.push(at);
        self.close(&mut slot.flow);
        observer.ended(slot.flow);
    }
}
