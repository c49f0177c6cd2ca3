//! Packets in; flows and round trips to an [`Observer`] out. The table of flows and its bounds.

use super::budget::Budget;
use super::capture::{Packet, BATCH};
use super::encapsulation::{self, interface, Ip};
use super::filter::Filter;
use super::flow::{AlsoSeen, BoxedFlow, Flow};
use super::fragments::Fragments;
use super::key::{Key, Keyed, Printed};
use super::packet::{self, Skip, TcpSegment, ACK, FIN, RST, SYN};
use super::recency::{Recency, NONE};
use super::sent::{Ended, Findings, Sample};
use super::side::Side;
use super::tally::Tally;
use crate::time::WallTime;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// The time that a closed connection stays in the table after its last packet. Its late packets
/// belong to it: the longest TIME-WAIT (RFC 9293 §3.4.2).
const LINGER_NS: u64 = 240 * 1_000_000_000;

/// Beyond this many closed connections they stay only for [`LINGER_LEAST_NS`].
const MAX_LINGERING: usize = 8192;

/// Enough for several repeats of a FIN.
const LINGER_LEAST_NS: u64 = 5 * 1_000_000_000;

/// Interval snapshots kept per flow.
const INTERVALS_PER_FLOW: usize = 3600;

/// Interfaces that have names.
const MAX_INTERFACES: usize = 256;

/// Interfaces besides its own that a connection's packets are counted on.
const MAX_ALSO_SEEN: usize = 8;

/// The bounds of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows held at once, at least 1; beyond it the least recently seen one has to go.
    pub max_flows: usize,
    /// Length of an interval; `None` for no snapshots.
    pub interval_ns: Option<u64>,
}

/// Receives what is found while packets are taken in.
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

    /// A flow's record is complete: closed for a while, replaced, evicted, or the capture has
    /// ended.
    fn ended(&mut self, flow: BoxedFlow);
}

/// As large as a line of the cache, which the look at its flow brings.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    flow: BoxedFlow,
    key: Key,
    list: u8,
    /// That of its flow.
    interface: u32,
}

/// Connections that both ends may go on with.
const OPEN: u8 = 0;

/// Connections that both ends have closed, or one has reset.
const CLOSED: u8 = 1;

/// A segment and where it belongs.
#[derive(Clone, Copy)]
struct Parsed<'a> {
    time: WallTime,
    segment: TcpSegment<'a>,
    print: u64,
    /// 0 where it is not known.
    interface: u32,
}

/// The usable content of a packet.
#[derive(Clone, Copy)]
// Nearly all packets are of the large kind, and a batch of them lies on the stack.
#[allow(clippy::large_enum_variant)]
enum Content<'a> {
    Segment(Parsed<'a>),
    Fragment,
}

/// The table of flows.
#[derive(Debug)]
pub struct Analyzer {
    limits: Limits,
    tally: Tally,
    keyed: Keyed,
    /// Slots by [`Keyed::print`]: a quarter of the size of an index by keys, and the slot is looked
    /// at anyway.
    index: HashMap<u64, u32, BuildHasherDefault<Printed>>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// [`OPEN`] and [`CLOSED`] flows.
    recency: Recency,
    /// Flows that are closed.
    lingering: usize,
    /// No closed flow has lingered for long enough before this time.
    none_due_before: WallTime,
    fragments: Fragments,
    interfaces: Vec<(u32, String)>,
    pub(super) budget: Budget,
    filter: Filter,
}

impl Analyzer {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits {
                max_flows: limits.max_flows.clamp(1, NONE as usize),
                interval_ns: limits.interval_ns.filter(|ns| *ns > 0),
            },
            tally: Tally::default(),
            keyed: Keyed::new(),
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            recency: Recency::default(),
            lingering: 0,
            none_due_before: WallTime(0),
            fragments: Fragments::default(),
            interfaces: Vec::new(),
            budget: Budget::default(),
            filter: Filter::default(),
        }
    }

    /// The same table, which keeps the targets of HTTP requests.
    pub fn with_targets(mut self, targets: bool) -> Self {
        self.budget.targets = targets;
        self
    }

    /// The same table, which keeps no single exchanges of HTTP, only their counts and times.
    pub fn with_summaries(mut self, summaries: bool) -> Self {
        self.budget.summaries = summaries;
        self
    }

    /// The same table, which takes only segments that pass `filter`.
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Counts so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns `true` if the interface has a name, or there are too many of them.
    pub fn knows_interface(&self, number: u32) -> bool {
        let known = self.interfaces.iter().any(|(of, _)| *of == number);
        known || self.interfaces.len() == MAX_INTERFACES
    }

    /// Gives an interface the name that reports have of it.
    pub fn name_interface(&mut self, number: u32, name: String) {
        if !self.knows_interface(number) {
            self.interfaces.push((number, name));
        }
    }

    /// Returns the number of bytes of payload that wait for those before them.
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
    /// With thousands of flows every packet's flow has to be fetched from memory, and waiting for
    /// that is half of the work. So packets go by batches. All are parsed and all flows looked at,
    /// side by side in the processor, before the first is worked on.
    #[inline]
    pub fn packets(&mut self, packets: &[Packet<'_>], observer: &mut impl Observer) {
        for batch in packets.chunks(BATCH) {
            let mut parsed = [None; BATCH];
            for (place, packet) in parsed.iter_mut().zip(batch) {
                *place = self.parse(packet);
            }
            let slots: [Option<u32>; BATCH] = std::array::from_fn(|at| match &parsed[at] {
                Some(Content::Segment(of)) => self.index.get(&of.print).copied(),
                Some(Content::Fragment) | None => None,
            });
            // One step after the other for all of them: none then waits for the step before.
            let flows: [Option<(&Flow, usize, bool)>; BATCH] =
                std::array::from_fn(|at| match &parsed[at] {
                    Some(Content::Segment(of)) => self.guess(slots[at]?, &of.segment),
                    Some(Content::Fragment) | None => None,
                });
            let flows = || flows.iter().flatten();
            let near = flows().fold(0, |sum, (flow, sender, data)| {
                sum ^ flow.warm(*sender, *data)
            });
            std::hint::black_box(near);
            let far = flows().fold(0, |sum, (flow, sender, data)| {
                sum ^ flow.warm_further(*sender, *data)
            });
            std::hint::black_box(far);
            for ((content, at), packet) in parsed.iter().zip(slots).zip(batch) {
                match content {
                    Some(Content::Segment(of)) => self.segment(of, at, observer),
                    Some(Content::Fragment) => self.fragment(packet, observer),
                    None => {}
                }
            }
        }
    }

    /// Returns the record in a slot, the end that sent the segment if it belongs to it, and whether
    /// there is data.
    #[inline]
    fn guess(&self, at: u32, segment: &TcpSegment<'_>) -> Option<(&Flow, usize, bool)> {
        let slot = self.slots.get(at as usize)?.as_ref()?;
        let sender = slot.key.guessed_sender(segment);
        Some((&*slot.flow, sender, segment.payload_len > 0))
    }

    /// Counts a packet, and returns what it has that can be used.
    #[inline]
    fn parse<'a>(&mut self, packet: &Packet<'a>) -> Option<Content<'a>> {
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
                if !self.filter.is_empty() && !self.filter.matches(&segment) {
                    return None;
                }
                Some(Content::Segment(self.locate(time, packet, segment)))
            }
            Err(skip) => {
                self.tally.skipped[skip as usize] += 1;
                if skip == Skip::LinkType {
                    self.tally.count_unread(packet.link);
                }
                (skip == Skip::Fragment).then_some(Content::Fragment)
            }
        }
    }

    #[inline]
    fn locate<'a>(
        &self,
        time: WallTime,
        packet: &Packet<'_>,
        segment: TcpSegment<'a>,
    ) -> Parsed<'a> {
        let (source, destination) = (&segment.source, &segment.destination);
        Parsed {
            time,
            print: self.keyed.print(source, destination, segment.tunnel),
            segment,
            interface: interface(packet),
        }
    }

    /// Takes a fragment, and the segment that it completes.
    #[inline(never)]
    fn fragment(&mut self, packet: &Packet<'_>, observer: &mut impl Observer) {
        let (Some(time), Ok(ip)) = (packet.time, encapsulation::ip(packet)) else {
            return;
        };
        let Some(whole) = self.fragments.take(time, &ip) else {
            return;
        };
        let whole_ip = Ip {
            data: &whole.data,
            length: whole.length,
            fragment: None,
            ..ip
        };
        if let Ok(segment) = packet::tcp(&whole_ip) {
            self.tally.skipped[Skip::Fragment as usize] -= whole.fragments;
            self.tally.tcp_packets += whole.fragments;
            if !self.filter.is_empty() && !self.filter.matches(&segment) {
                return;
            }
            let parsed = self.locate(time, packet, segment);
            self.segment(&parsed, None, observer);
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
        for mut flow in left {
            self.close(&mut flow);
            observer.ended(flow);
        }
        *self = Self {
            tally: std::mem::take(&mut self.tally),
            budget: self.budget.renewed(),
            ..Self::new(self.limits).with_filter(std::mem::take(&mut self.filter))
        };
    }

    /// Takes a segment, which belongs to the flow in slot `at` if that one's key says so.
    #[inline]
    fn segment(&mut self, parsed: &Parsed<'_>, at: Option<u32>, observer: &mut impl Observer) {
        let (now, segment) = (parsed.time, &parsed.segment);
        if now >= self.none_due_before {
            self.retire_closed(now, observer);
        }
        let found = at.and_then(|at| Some((at, self.sender(at, segment)?)));
        let found = found.or_else(|| self.find(parsed, observer));
        let (at, sender) = match found {
            Some((at, _)) if self.is_elsewhere(at, parsed.interface) => return,
            Some((at, sender)) if self.reused(at, sender, segment) => {
                self.retire(at, observer);
                self.open(parsed, observer)
            }
            Some((at, sender)) => {
                self.touch(at);
                (at, sender)
            }
            None => self.open(parsed, observer),
        };
        let Some(slot) = self.slots[at as usize].as_mut() else {
            return;
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
        let ends = segment.flags & (FIN | RST) != 0;
        if ends && slot.list == OPEN && flow.ended() != Ended::Open {
            slot.list = CLOSED;
            slot.flow.shrink();
            self.lingering += 1;
            self.none_due_before = WallTime(0);
            self.recency.unlink(at, OPEN);
            self.recency.link(at, CLOSED);
        }
    }

    /// Returns the end that sent the segment, if it belongs to the flow in the slot.
    #[inline]
    fn sender(&self, at: u32, segment: &TcpSegment<'_>) -> Option<Side> {
        self.slots.get(at as usize)?.as_ref()?.key.sender(segment)
    }

    /// Finds the flow of a segment that was not there when its batch was looked at.
    #[inline(never)]
    fn find(&mut self, parsed: &Parsed<'_>, observer: &mut impl Observer) -> Option<(u32, Side)> {
        let at = *self.index.get(&parsed.print)?;
        let sender = self.sender(at, &parsed.segment);
        if sender.is_none() {
            // Two keys with one print: once in 2^64 / 100 000 flows, and no sender can choose it.
            // The older one goes.
            self.retire(at, observer);
        }
        Some((at, sender?))
    }

    /// Counts a packet of an open connection that passes another interface than its first did.
    #[inline]
    fn is_elsewhere(&mut self, at: u32, interface: u32) -> bool {
        let Some(slot) = &mut self.slots[at as usize] else {
            return false;
        };
        if slot.interface == interface || slot.list != OPEN {
            return false;
        }
        let flow = &mut slot.flow;
        let also_seen = flow.also_seen_mut();
        if let Some(seen) = also_seen.iter_mut().find(|of| of.interface == interface) {
            seen.packets += 1;
        } else if also_seen.len() < MAX_ALSO_SEEN {
            let known = self.interfaces.iter().find(|(of, _)| *of == interface);
            also_seen.push(AlsoSeen {
                interface,
                name: known.map_or_else(|| interface.to_string(), |(_, name)| name.clone()),
                packets: 1,
            });
        }
        true
    }

    #[inline]
    fn reused(&self, at: u32, sender: Side, segment: &TcpSegment<'_>) -> bool {
        let slot = self.slots[at as usize].as_ref();
        slot.is_some_and(|slot| {
            let is_closed = slot.list != OPEN;
            (is_closed || segment.has(SYN)) && slot.flow.is_reused_by(sender, segment, is_closed)
        })
    }

    /// A new record, room made for it.
    #[inline(never)]
    fn open(&mut self, parsed: &Parsed<'_>, observer: &mut impl Observer) -> (u32, Side) {
        let segment = &parsed.segment;
        while self.index.len() >= self.limits.max_flows {
            self.evict(observer);
        }
        let (source, destination) = (segment.source, segment.destination);
        let from_client = match (segment.has(SYN), segment.has(ACK)) {
            (true, answer) => !answer,
            // Servers have the lower port; between equals the first to speak is the client.
            (false, _) => source.port >= destination.port,
        };
        let (ends, sender) = match from_client {
            true => ([source, destination], Side::Client),
            false => ([destination, source], Side::Server),
        };
        let mut flow = Box::new(Flow::new(self.tally.flows, ends, parsed.time));
        flow.tunnel = segment.tunnel;
        flow.interface = parsed.interface;
        let slot = Slot {
            flow,
            key: Key::of(&ends, segment.tunnel),
            list: OPEN,
            interface: parsed.interface,
        };
        self.tally.flows += 1;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                self.recency.grow();
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(parsed.print, at);
        self.recency.link(at, OPEN);
        (at, sender)
    }

    /// Moves a slot to the front of its list.
    #[inline]
    fn touch(&mut self, at: u32) {
        let list = self.slots[at as usize]
            .as_ref()
            .map_or(OPEN, |slot| slot.list);
        if self.recency.newest(list) != at {
            self.recency.unlink(at, list);
            self.recency.link(at, list);
        }
    }

    fn last_seen(&self, at: u32) -> Option<WallTime> {
        Some(self.slots.get(at as usize)?.as_ref()?.flow.last)
    }

    #[inline(never)]
    fn retire_closed(&mut self, now: WallTime, observer: &mut impl Observer) {
        let linger = match self.lingering > MAX_LINGERING {
            true => LINGER_LEAST_NS,
            false => LINGER_NS,
        };
        self.none_due_before = WallTime(u64::MAX);
        while let Some(last) = self.last_seen(self.recency.oldest(CLOSED)) {
            let due = WallTime(last.0.saturating_add(linger));
            if now < due {
                self.none_due_before = due;
                break;
            }
            self.retire(self.recency.oldest(CLOSED), observer);
        }
    }

    /// Retires the least recently seen flow, or a closed one that would have gone before long.
    fn evict(&mut self, observer: &mut impl Observer) {
        let [open, closed] = [OPEN, CLOSED].map(|list| self.recency.oldest(list));
        let spare = |of_closed: WallTime| {
            let now = self.tally.last.unwrap_or(of_closed);
            now.0.saturating_sub(of_closed.0) >= LINGER_LEAST_NS
        };
        let at = match (self.last_seen(open), self.last_seen(closed)) {
            (Some(of_open), Some(of_closed)) if of_closed <= of_open || spare(of_closed) => closed,
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
        flow.settle();
        let intervals = flow.intervals().len();
        self.budget.history = self.budget.history.saturating_sub(intervals);
    }

    fn retire(&mut self, at: u32, observer: &mut impl Observer) {
        let Some(mut slot) = self.slots.get_mut(at as usize).and_then(Option::take) else {
            return;
        };
        self.recency.unlink(at, slot.list);
        self.lingering -= usize::from(slot.list != OPEN);
        self.index.remove(&slot.key.print(self.keyed));
        self.free.push(at);
        self.close(&mut slot.flow);
        observer.ended(slot.flow);
    }
}
