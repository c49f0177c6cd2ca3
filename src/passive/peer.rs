//! Packets of two captures in, one from each end of a path; the one-way delay of those found in both out.
//!
//! Read RFC 7679 first: the two clocks are compared as they are, so every delay holds their offset, and may be negative.

use super::flow::{BoxedFlow, Flow};
use super::key::Keyed;
use super::packet::TcpSegment;
use super::side::Side;
use crate::measure::{Histogram, Summary};
use crate::time::{SignedNanos, WallTime};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};

/// Packets of one capture that wait for their like in the other.
const MAX_WAITING: usize = 1 << 20;

/// Which of the two captures.
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
    /// The end that the first capture was made at; `None` where no packet or only one direction was found in both.
    pub file_at: Option<Side>,
    /// Of what the client and what the server sent; `None` where nothing of it was found in both.
    pub delays: [Option<Summary>; 2],
}

/// Time in the peer's capture minus time in the file: of what one end sent. Its opposite is kept beside it, for which
/// capture is nearer to the client turns out at the end, and percentiles cannot be turned round.
#[derive(Debug, Default)]
struct Differences {
    forth: Histogram,
    back: Histogram,
}

/// A packet that waits: when it passed and the flow it is of. `None` where two packets cannot be told apart.
type Waiting = Option<(WallTime, u64)>;

/// Finds packets again.
#[derive(Debug)]
pub struct Pairing {
    keyed: Keyed,
    waiting: [HashMap<u64, Waiting, Keyed>; 2],
    order: [VecDeque<u64>; 2],
    /// By the flow's id in the file.
    differences: HashMap<u64, [Differences; 2]>,
    dropped: u64,
}

impl Default for Pairing {
    fn default() -> Self {
        let keyed = Keyed::new();
        Self {
            keyed,
            waiting: [HashMap::with_hasher(keyed), HashMap::with_hasher(keyed)],
            order: Default::default(),
            differences: HashMap::new(),
            dropped: 0,
        }
    }
}

impl Pairing {
    /// Packets that were given up because too many were waiting.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a packet of `flow`, by that capture's own count, that passed `now`. Where its like is found: the time in
    /// the peer's capture minus that in the file.
    pub fn packet(
        &mut self,
        which: Which,
        flow: &Flow,
        sender: Side,
        now: WallTime,
        segment: &TcpSegment<'_>,
    ) -> Option<SignedNanos> {
        let print = self.fingerprint(segment);
        let (own, other) = match which {
            Which::File => (0, 1),
            Which::Peer => (1, 0),
        };
        // A twin in its own capture (a repeated ACK within one tick) leaves nothing certain about either.
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
                let both = &mut self.differences.entry(id).or_default()[sender as usize];
                both.forth.record(difference);
                both.back.record(-difference);
                return Some(difference);
            }
            Some(None) => {}
            None => {
                self.waiting[own].insert(print, Some((now, flow.id)));
                self.order[own].push_back(print);
                if self.order[own].len() > MAX_WAITING {
                    let oldest = self.order[own].pop_front();
                    let gone = oldest.and_then(|oldest| self.waiting[own].remove(&oldest));
                    self.dropped += u64::from(gone.is_some());
                }
            }
        }
        None
    }

    /// What a router leaves as it is.
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
        let Some([of_client, of_server]) = self.differences.remove(&flow.id) else {
            return OneWay::default();
        };
        let mean = |both: &Differences| both.forth.summary().map(|summary| summary.mean);
        // Their difference is the round trip between the captures, with the sign of who is where: the offset of the
        // clocks cancels out.
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

/// Finds each flow of the file in the peer's capture: same ends, and the same connection where both saw its SYN. Also
/// tells how many of the peer's flows are left over.
pub fn pair_flows(file: Vec<BoxedFlow>, peer: Vec<BoxedFlow>) -> (Vec<Paired>, usize) {
    let mut left = peer.len();
    // Queues of places in `peer`; a flow stands in two of them and is taken from one, so the other may name it in vain.
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
