//! Round trips and counts in; histograms per remote host out, for a monitoring system: they only
//! ever grow.

use super::flow::Flow;
use super::key::Keyed;
use super::packet::Endpoint;
use super::sent::{Findings, Sample};
use super::side::Side;
pub use crate::measure::BUCKETS_NS as BOUNDS_NS;
use crate::time::SignedNanos;
use std::collections::HashMap;
use std::net::IpAddr;

/// The meaning of one time series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Each pair of ends.
    Flow,
    /// Each address that the round trips go to.
    #[default]
    Remote,
    /// Its /24 (IPv4) or /64 (IPv6).
    Subnet,
    /// All in one.
    None,
}

/// A histogram as Prometheus has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Values up to each of [`BOUNDS_NS`] and above the one before; the last counts those above
    /// all.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    /// Of all values; negative ones (a stepped clock) count as they are.
    pub sum_ns: i128,
}

impl Buckets {
    fn record(&mut self, value: SignedNanos) {
        let at = BOUNDS_NS.partition_point(|bound| *bound < value.0);
        self.counts[at] += 1;
        self.sum_ns += i128::from(value.0);
    }
}

/// One time series: what was sent towards one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `None` for `other`: what came after the bound was reached.
    pub name: Option<String>,
    /// The end that the group is.
    pub towards: Option<Side>,
    /// Round trips of data.
    pub round_trip: Buckets,
    /// Round trips of the handshake.
    pub handshake: Buckets,
    /// From the first data towards this end to its first data back.
    pub response: Buckets,
    /// The same less the network.
    pub own: Buckets,
    /// Segments.
    pub packets: u64,
    /// Payload.
    pub payload_bytes: u64,
    /// The part of it that had passed before.
    pub retransmitted_bytes: u64,
}

/// Address and port as far as they distinguish groups.
type Name = ([Option<Endpoint>; 2], Side);

/// All time series.
#[derive(Debug)]
pub struct Groups {
    by: GroupBy,
    max: usize,
    index: HashMap<Name, usize, Keyed>,
    groups: Vec<Group>,
    /// The group of the latest packet, by flow and side.
    latest: Option<(u64, Side, usize)>,
}

impl Groups {
    /// No series yet; at most `max` and one `other` per direction.
    pub fn new(by: GroupBy, max: usize) -> Self {
        let other = |towards| Group {
            towards: Some(towards),
            ..Group::default()
        };
        Self {
            by,
            max,
            index: HashMap::with_hasher(Keyed::new()),
            groups: vec![other(Side::Client), other(Side::Server)],
            latest: None,
        }
    }

    /// The name of the series.
    pub fn by(&self) -> GroupBy {
        self.by
    }

    /// Those that hold anything: first what did not fit, then in order of appearance.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.packets > 0)
    }

    /// Counts a segment that `sender` sent.
    pub fn segment(&mut self, flow: &Flow, sender: Side, findings: &Findings) {
        let group = self.group(flow, sender.other());
        group.packets += 1;
        group.payload_bytes += u64::from(findings.payload);
        group.retransmitted_bytes += u64::from(findings.retransmitted);
        if let Some(answer) = findings.answer {
            let group = self.group(flow, answer.side);
            group.response.record(answer.response);
            if let Some(own) = answer.own {
                group.own.record(own);
            }
        }
        for (sample, handshake) in [(findings.data, false), (findings.handshake, true)] {
            if let Some(Sample {
                sender, round_trip, ..
            }) = sample
            {
                let group = self.group(flow, sender.other());
                match handshake {
                    true => group.handshake.record(round_trip),
                    false => group.round_trip.record(round_trip),
                }
            }
        }
    }

    /// The series of what goes to the end `towards` of `flow`.
    fn group(&mut self, flow: &Flow, towards: Side) -> &mut Group {
        let at = match self.latest {
            Some((id, side, at)) if (id, side) == (flow.id, towards) => at,
            _ => self.find(flow, towards),
        };
        self.latest = Some((flow.id, towards, at));
        &mut self.groups[at]
    }

    fn find(&mut self, flow: &Flow, towards: Side) -> usize {
        let end = flow.ends[towards as usize];
        let address = |address| Endpoint { address, port: 0 };
        let name: [Option<Endpoint>; 2] = match self.by {
            GroupBy::Flow => flow.ends.map(Some),
            GroupBy::Remote => [Some(address(end.address)), None],
            GroupBy::Subnet => {
                let bits = if end.ip().is_ipv4() { 8 } else { 64 };
                [Some(address(end.address >> bits << bits)), None]
            }
            GroupBy::None => [None, None],
        };
        if let Some(at) = self.index.get(&(name, towards)) {
            return *at;
        }
        if self.index.len() >= self.max {
            return towards as usize;
        }
        let text = match (self.by, name) {
            (GroupBy::Flow, [Some(client), Some(server)]) => format!("{client}-{server}"),
            (GroupBy::Subnet, [Some(end), _]) => match end.ip() {
                IpAddr::V4(address) => format!("{address}/24"),
                IpAddr::V6(address) => format!("{address}/64"),
            },
            (_, [Some(end), _]) => end.ip().to_string(),
            _ => "all".to_owned(),
        };
        self.index.insert((name, towards), self.groups.len());
        self.groups.push(Group {
            name: Some(text),
            towards: Some(towards),
            ..Group::default()
        });
        self.groups.len() - 1
    }
}
