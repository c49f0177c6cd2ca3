//! Packets of two captures in, one from each end of a path; the one-way delay of those found in
//! both out.
//!
//! Read RFC 7679 first: the two clocks are compared as they are, so every delay holds their offset,
//! and may be negative.

use super::flow::{BoxedFlow, Flow};
use super::http::Exchange;
use super::key::Keyed;
use super::packet::{Endpoint, TcpSegment};
use super::side::Side;
use crate::measure::{Histogram, Summary};
use crate::time::{SignedNanos, WallTime};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};

/// Most packets of one capture that wait for their like in the other.
const MAX_WAITING: usize = 1 << 20;

/// Most of them per flow that may be held.
const WAITING_PER_FLOW: usize = 64;

/// One of the two captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one named first.
    File,
    /// That of `--peer`.
    Peer,
}

/// The one-way delays of one flow, by the clocks of the two captures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OneWay {
    /// The end that the first capture was made at; `None` where no packet or only one direction was
    /// found in both.
    pub file_at: Option<Side>,
    /// Of what the client and what the server sent; `None` where nothing of it was found in both.
    pub delays: [Option<Summary>; 2],
}

/// Time in the peer's capture minus time in the file: of what one end sent. Its opposite is kept
/// beside it, for which capture is nearer to the client turns out at the end, and percentiles
/// cannot be turned round.
#[derive(Debug, Default)]
struct Differences {
    forth: Histogram,
    back: Histogram,
}

/// A packet that waits: when it passed and the flow it is of. `None` where two packets cannot be
/// distinguished.
type Waiting = Option<(WallTime, u64)>;

/// Finds packets again.
#[derive(Debug)]
pub struct Pairing {
    keyed: Keyed,
    waiting: [HashMap<u64, Waiting, Keyed>; 2],
    order: [VecDeque<u64>; 2],
    /// By the id of each flow of the file that was not handed out; `None` before the first packet
    /// found in both.
    differences: HashMap<u64, Option<Box<[Differences; 2]>>>,
    max_waiting: usize,
    dropped: u64,
}

impl Pairing {
    /// A pairing of captures of which each holds at most `max_flows` flows.
    pub fn new(max_flows: usize) -> Self {
        let keyed = Keyed::new();
        let most = max_flows.saturating_mul(WAITING_PER_FLOW);
        Self {
            keyed,
            max_waiting: most.min(MAX_WAITING),
            waiting: [HashMap::with_hasher(keyed), HashMap::with_hasher(keyed)],
            order: Default::default(),
            differences: HashMap::new(),
            dropped: 0,
        }
    }

    /// Packets that were given up because too many were waiting.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a packet of `flow`, by that capture's own count, that passed `now`. Where its like is
    /// found: the time in the peer's capture minus that in the file.
    pub fn packet(
        &mut self,
        which: Which,
        flow: &Flow,
        sender: Side,
        now: WallTime,
        segment: &TcpSegment<'_>,
    ) -> Option<SignedNanos> {
        let print = self.fingerprint(segment);
        if which == Which::File {
            self.differences.entry(flow.id).or_default();
        }
        let (own, other) = match which {
            Which::File => (0, 1),
            Which::Peer => (1, 0),
        };
        // A twin in its own capture (a repeated ACK within one tick) leaves nothing certain about
        // either.
        if let Some(twin) = self.waiting[own].get_mut(&print) {
            *twin = None;
            return None;
        }
        match self.waiting[other].remove(&print) {
            Some(Some((then, its_flow))) => {
                let (id, difference) = match which {
                    Which::File => (flow.id, then - now),
                    Which::Peer => (its_flow, now - then),
                };
                // A flow that was handed out takes no more.
                let both = self
                    .differences
                    .get_mut(&id)?
                    .get_or_insert_with(Box::default);
                let both = &mut both[sender as usize];
                both.forth.record(difference);
                both.back.record(-difference);
                return Some(difference);
            }
            Some(None) => {}
            None => {
                self.waiting[own].insert(print, Some((now, flow.id)));
                self.order[own].push_back(print);
                if self.order[own].len() > self.max_waiting {
                    let oldest = self.order[own].pop_front();
                    let gone = oldest.and_then(|oldest| self.waiting[own].remove(&oldest));
                    self.dropped += u64::from(gone.is_some());
                }
            }
        }
        None
    }

    /// The fields that a router does not change.
    fn fingerprint(&self, segment: &TcpSegment<'_>) -> u64 {
        let mut hasher = self.keyed.build_hasher();
        hasher.write_u128(segment.source.address);
        hasher.write_u128(segment.destination.address);
        let ports = u64::from(segment.source.port) << 16 | u64::from(segment.destination.port);
        hasher.write_u64(ports << 32 | u64::from(segment.payload_len));
        hasher.write_u64(u64::from(segment.seq) << 32 | u64::from(segment.ack));
        let both = segment
            .timestamps
            .map_or((0, 0), |both| (both.ts_val, both.ts_ecr));
        hasher.write_u64(u64::from(both.0) << 32 | u64::from(both.1));
        hasher.write_u64(u64::from(segment.flags) << 16 | u64::from(segment.window));
        hasher.finish()
    }

    /// The delays of a flow of the file; they are handed out once.
    pub fn take(&mut self, flow: &Flow) -> OneWay {
        let Some(Some(both)) = self.differences.remove(&flow.id) else {
            return OneWay::default();
        };
        let [of_client, of_server] = *both;
        let mean = |both: &Differences| both.forth.summary().map(|summary| summary.mean);
        // Their difference is the round trip between the captures, with the sign of who is where:
        // the offset of the clocks cancels out.
        let file_at = match (mean(&of_client), mean(&of_server)) {
            (Some(forth), Some(back)) if forth - back < SignedNanos::ZERO => Some(Side::Server),
            (Some(_), Some(_)) => Some(Side::Client),
            _ => None,
        };
        let place = file_at.or_else(|| flow.near()).unwrap_or(Side::Client);
        let pick = |both: &Differences, away: bool| match away {
            true => both.forth.summary(),
            false => both.back.summary(),
        };
        OneWay {
            file_at,
            delays: [
                pick(&of_client, place == Side::Client),
                pick(&of_server, place == Side::Server),
            ],
        }
    }
}

/// A flow of the file, and the same one as the peer's capture has it.
pub type Paired = (BoxedFlow, Option<BoxedFlow>);

/// The ends of a connection and the client's initial sequence number.
type FlowKey = ([Endpoint; 2], u32);

/// The ended flows of two captures that wait for their other half.
#[derive(Debug)]
pub struct Halves {
    max: usize,
    /// By the order in which they ended.
    flows: [BTreeMap<u64, BoxedFlow>; 2],
    index: [HashMap<FlowKey, VecDeque<u64>>; 2],
    ended: u64,
    left: usize,
}

impl Halves {
    /// Holds at most `max` flows of each capture.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            flows: Default::default(),
            index: Default::default(),
            ended: 0,
            left: 0,
        }
    }

    /// Takes a flow that has ended. Returns the pair that it completes, or the flow of the file
    /// that has to make room.
    pub fn ended(&mut self, which: Which, flow: BoxedFlow) -> Option<Paired> {
        let (own, other) = match which {
            Which::File => (0, 1),
            Which::Peer => (1, 0),
        };
        let key = |flow: &Flow| Some((flow.ends, flow.initial_sequence()?));
        if let Some(half) = key(&flow).and_then(|key| self.take_first(other, &key)) {
            return Some(match which {
                Which::File => (flow, Some(half)),
                Which::Peer => (half, Some(flow)),
            });
        }
        if let Some(key) = key(&flow) {
            self.index[own]
                .entry(key)
                .or_default()
                .push_back(self.ended);
        }
        self.flows[own].insert(self.ended, flow);
        self.ended += 1;
        if self.flows[own].len() <= self.max {
            return None;
        }
        let (_, oldest) = self.flows[own].pop_first()?;
        if let Some(key) = key(&oldest) {
            self.forget(own, &key);
        }
        self.left += usize::from(which == Which::Peer);
        (which == Which::File).then_some((oldest, None))
    }

    /// Takes the flow out that ended first with this key.
    fn take_first(&mut self, side: usize, key: &FlowKey) -> Option<BoxedFlow> {
        let at = *self.index[side].get(key)?.front()?;
        self.forget(side, key);
        self.flows[side].remove(&at)
    }

    fn forget(&mut self, side: usize, key: &FlowKey) {
        if let Some(queue) = self.index[side].get_mut(key) {
            queue.pop_front();
            if queue.is_empty() {
                self.index[side].remove(key);
            }
        }
    }

    /// Pairs what is left. Returns also how many flows of the peer's capture were not found in the
    /// file.
    pub fn finish(self) -> (Vec<Paired>, usize) {
        let [file, peer] = self.flows.map(|flows| flows.into_values().collect());
        let (paired, left) = pair_flows(file, peer);
        (paired, self.left + left)
    }
}

/// Finds the exchange of the peer's capture that has the same sequence numbers.
///
/// Both captures have them in one order, so the search goes on where the one before ended, at
/// `from`.
pub fn same_exchange<'a>(
    of: &Exchange,
    peers: &'a [Exchange],
    from: &mut usize,
) -> Option<&'a Exchange> {
    let same = |other: &Exchange| match (of.request_seq, other.request_seq) {
        (Some(seq), Some(other)) => seq == other,
        _ => of.response_seq.is_some() && of.response_seq == other.response_seq,
    };
    let found = (*from..peers.len())
        .chain(0..*from)
        .find(|at| same(&peers[*at]))?;
    *from = found + 1;
    peers.get(found)
}

/// Finds each flow of the file in the peer's capture: same ends, and the same connection where both
/// saw its SYN. Also returns how many of the peer's flows are left over.
pub fn pair_flows(file: Vec<BoxedFlow>, peer: Vec<BoxedFlow>) -> (Vec<Paired>, usize) {
    let mut left = peer.len();
    // Queues of places in `peer`; a flow stands in two of them and is taken from one, so the other
    // may name it in vain.
    let mut exact: HashMap<_, VecDeque<usize>> = HashMap::new();
    let mut any: HashMap<_, VecDeque<usize>> = HashMap::new();
    for (at, flow) in peer.iter().enumerate() {
        exact
            .entry((flow.ends, flow.initial_sequence()))
            .or_default()
            .push_back(at);
        any.entry(flow.ends).or_default().push_back(at);
    }
    let mut peer: Vec<Option<BoxedFlow>> = peer.into_iter().map(Some).collect();
    let mut take = |queue: Option<&mut VecDeque<usize>>| {
        let queue = queue?;
        std::iter::from_fn(|| queue.pop_front()).find_map(|at| peer[at].take())
    };
    let paired = file.into_iter().map(|flow| {
        let initial = flow.initial_sequence();
        let found = take(exact.get_mut(&(flow.ends, initial))).or_else(|| match initial {
            // One of the two captures began midstream.
            Some(_) => take(exact.get_mut(&(flow.ends, None))),
            None => take(any.get_mut(&flow.ends)),
        });
        left -= usize::from(found.is_some());
        (flow, found)
    });
    let paired = paired.collect();
    (paired, left)
}
