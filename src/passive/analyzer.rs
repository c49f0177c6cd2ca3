//! Packets in; flows and round trips to an [`Observer`] out. The table of flows and its bounds.

use super::capture::Packet;
use super::flow::{Ended, Findings, Flow, Sample, Side};
use super::http::looks_like_http;
use super::packet::{self, Endpoint, Skip, TcpSegment, ACK, SYN};
use crate::time::WallTime;
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::{BuildHasher, Hash, Hasher};

/// How long a closed connection stays in the table: repeated FINs and late ACKs belong to it (RFC 9293 §3.3.2).
const LINGER_NS: u64 = 30 * 1_000_000_000;

/// Interval snapshots and HTTP exchanges kept over all open flows.
const HISTORY: usize = 200_000;

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
    fn ended(&mut self, flow: Flow);
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

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.low.address);
        state.write_u128(self.high.address);
        state.write_u32(u32::from(self.low.port) << 16 | u32::from(self.high.port));
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
    flow: Flow,
    key: Key,
    /// Whether the client is the key's lower end.
    client_is_low: bool,
    closed: bool,
}

/// The table of flows.
#[derive(Debug)]
pub struct Analyzer {
    limits: Limits,
    tally: Tally,
    index: HashMap<Key, u32, Keyed>,
    slots: Vec<Option<Slot>>,
    links: Vec<Links>,
    free: Vec<u32>,
    /// Open flows, and closed ones.
    lists: [Recency; 2],
    /// The slot of the latest packet: the next one is often of the same flow.
    latest: Option<(Key, u32)>,
    history: usize,
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
            index: HashMap::with_hasher(Keyed::new()),
            slots: Vec::new(),
            links: Vec::new(),
            free: Vec::new(),
            lists: [empty; 2],
            latest: None,
            history: 0,
        }
    }

    /// Counts so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Flows in the table.
    pub fn open_flows(&self) -> usize {
        self.index.len()
    }

    /// Takes one packet in.
    #[inline]
    pub fn packet(&mut self, packet: &Packet<'_>, observer: &mut impl Observer) {
        self.tally.packets += 1;
        let Some(now) = packet.time else {
            self.tally.skipped[Skip::NoTime as usize] += 1;
            return;
        };
        self.tally.first.get_or_insert(now);
        self.tally.last = self.tally.last.max(Some(now));
        match packet::parse(packet) {
            Ok(segment) => {
                self.tally.tcp_packets += 1;
                self.segment(now, &segment, observer);
            }
            Err(skip) => self.tally.skipped[skip as usize] += 1,
        }
    }

    /// Hands out all flows that are left, in the order of their first packets.
    pub fn finish(&mut self, observer: &mut impl Observer) {
        let mut left: Vec<Flow> = self
            .slots
            .drain(..)
            .flatten()
            .map(|slot| slot.flow)
            .collect();
        left.sort_by_key(|flow| flow.id);
        let tally = std::mem::take(&mut self.tally);
        *self = Self::new(self.limits);
        self.tally = tally;
        for flow in left {
            observer.ended(flow);
        }
    }

    #[inline]
    fn segment(&mut self, now: WallTime, segment: &TcpSegment<'_>, observer: &mut impl Observer) {
        self.retire_closed(now, observer);
        let key = Key::of(segment);
        let from_low = segment.source == key.low;
        let known = match self.latest {
            Some((latest, at)) if latest == key => Some(at),
            _ => self.index.get(&key).copied(),
        };
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
        self.latest = Some((key, at));
        let Some(slot) = self.slots[at as usize].as_mut() else {
            return;
        };
        let sender = match from_low == slot.client_is_low {
            true => Side::Client,
            false => Side::Server,
        };
        let flow = &mut slot.flow;
        if let Some(interval_ns) = self.limits.interval_ns {
            let room = if self.history < HISTORY {
                INTERVALS_PER_FLOW
            } else {
                0
            };
            self.history += usize::from(flow.enter_interval(now, interval_ns, room));
        }
        let findings = flow.segment(now, sender, segment);
        if findings.payload > 0 {
            if flow.http.is_none() && looks_like_http(sender, segment.payload) {
                flow.http = Some(Box::default());
            }
            if let Some(http) = flow.http.as_mut().filter(|_| self.history < HISTORY) {
                let length = segment.payload_len;
                self.history +=
                    usize::from(http.feed(now, sender, segment.seq, length, segment.payload));
            }
        }
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
            flow: Flow::new(self.tally.flows, ends, now),
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
        self.index.insert(key, at);
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

    fn retire(&mut self, at: u32, observer: &mut impl Observer) {
        let Some(slot) = self.slots.get_mut(at as usize).and_then(Option::take) else {
            return;
        };
        self.unlink(at, usize::from(slot.closed));
        self.index.remove(&slot.key);
        self.free.push(at);
        self.latest = None;
        let exchanges = slot
            .flow
            .http
            .as_ref()
            .map_or(0, |http| http.exchanges.len());
        self.history = self
            .history
            .saturating_sub(slot.flow.intervals.len() + exchanges);
        observer.ended(slot.flow);
    }
}
