//! The statistics of a run: of the whole, of each part, and of the hosts and segments of its path.

use super::changes::PartChanges;
use super::path::{Host, Path, Segment};
use super::Model;
use crate::measure::clock::NEGLIGIBLE_NS;
use crate::measure::compare::{cut, PartBatches};
use crate::measure::verdict::Share;
use crate::measure::{
    Direction, Histogram, HostStatistics, Part, PartStatistics, SegmentStatistics, Sla, Statistics,
    Summary,
};
use crate::time::{Now, SignedNanos};
use crate::vec_map::VecMap;

impl Model {
    /// All figures of the run so far. A hop without a name is called `hop N`; `now` is both clocks,
    /// read together.
    pub fn statistics(&self, names: &VecMap<u8, String>, now: Now) -> Statistics {
        let named = self.named(names);
        let found = self.found(&named, now);
        let shares = self.shares();
        let parts = self.part_statistics(&found, &shares);
        let of = |part: Part| parts.iter().find(|statistics| statistics.part == part);
        let (segments, hosts) = match self.path() {
            Some(path) => {
                let segments = (0..path.segments.len()).map(|place| {
                    let segment = &path.segments[place];
                    let (from, to) = (segment.from_hop, segment.to_hop);
                    path.segment_statistics(place, of(Part::Segment { from, to }))
                });
                let hosts = path.hosts.iter();
                let hosts = hosts.map(|host| host.statistics(of(Part::Host(host.hop))));
                (segments.collect(), hosts.collect())
            }
            None => (Vec::new(), self.own_host()),
        };
        let (verdict, largest) = self.answers(found, shares, &named, now);
        Statistics {
            round_trip: self.total.summary(),
            distribution: self.total.clone(),
            window: self.last_window.or_else(|| self.total_window.summary()),
            sla: Sla::None,
            parts,
            segments,
            hosts,
            behind_exit: self.server_delays(Part::Server),
            server_connect: self.server_delays(Part::ServerConnect),
            path_changes: self.path_changes,
            verdict,
            largest,
            batches: self.batches(),
        }
    }

    fn server_delays(&self, part: Part) -> Option<Summary> {
        let server = self.servers().find(|server| server.part == part);
        server.and_then(|server| server.delays.run.summary())
    }

    fn batches(&self) -> Vec<PartBatches> {
        let mut batches = Vec::new();
        if let Some(path) = self.path() {
            let parts = path.parts().into_iter();
            let columns = parts.filter_map(|part| Some((part, path.part(part)?.1)));
            batches.extend(columns.map(|(part, column)| cut(&path.rows, part, column)));
        }
        batches.extend(
            self.servers()
                .map(|server| cut(&server.rows, server.part, 0)),
        );
        batches
    }

    /// Share and mean of each part.
    fn shares(&self) -> Vec<Share> {
        let mut shares = Vec::new();
        if let Some(path) = self.path() {
            let blocks = path.hosts.first().map_or(0, |own| own.part.run.count());
            let parts = path.parts();
            let delays = parts
                .iter()
                .filter_map(|part| Some((*part, path.part(*part)?.0)));
            let sums: Vec<_> = delays
                .map(|(part, delays)| (part, delays, delays.run.sum()))
                .collect();
            let whole: i128 = sums.iter().map(|(.., sum)| sum).sum();
            for (part, delays, sum) in sums {
                shares.push(Share {
                    part,
                    share: (whole > 0).then(|| sum as f64 / whole as f64),
                    mean: sum as f64 / blocks.max(1) as f64,
                    p50: delays.run.quantile(0.5),
                });
            }
        }
        // The server's time is not in the totals: an exit reports a block before it is answered.
        // Its connects are those of connections, not of blocks.
        for server in self.servers().filter(|server| server.part == Part::Server) {
            shares.push(Share {
                part: server.part,
                share: None,
                mean: server.delays.run.mean_ns(),
                p50: server.delays.run.quantile(0.5),
            });
        }
        shares
    }

    fn part_statistics(&self, found: &[PartChanges], shares: &[Share]) -> Vec<PartStatistics> {
        let path = self.path();
        let statistics = found.iter().filter_map(|changes| {
            let part = changes.part;
            let delays = match part {
                Part::Server | Part::ServerConnect => {
                    &self.servers().find(|server| server.part == part)?.delays
                }
                _ => path?.part(part)?.0,
            };
            let share = shares.iter().find(|share| share.part == part);
            let change = changes.changes.first();
            let segment = path.and_then(|path| {
                let hops = |s: &Segment| Part::Segment {
                    from: s.from_hop,
                    to: s.to_hop,
                };
                path.segments.iter().find(|segment| hops(segment) == part)
            });
            Some(PartStatistics {
                part,
                delay: delays.run.summary(),
                distribution: delays.run.clone(),
                window: delays.last_window.or_else(|| delays.window.summary()),
                mean: match part {
                    Part::ServerConnect => Some(SignedNanos(delays.run.mean_ns() as i64)),
                    _ => share.map(|share| SignedNanos(share.mean as i64)),
                },
                share: share.and_then(|share| share.share),
                baseline: changes.baseline,
                increase: changes.increase,
                figure: change.map(|change| change.figure),
                least: changes.least,
                retransmits: segment.map_or([None; 2], |segment| segment.retransmits),
                delayed_by_loss: segment.map(|segment| segment.delayed_by_loss),
                sla: Sla::None,
            })
        });
        statistics.collect()
    }

    /// The figures that a node without trips has of itself.
    fn own_host(&self) -> Vec<HostStatistics> {
        let [forward, back] = &self.own;
        if forward.count() + back.count() == 0 {
            return Vec::new();
        }
        let host = Host {
            hop: self.own_hop,
            forward: forward.clone(),
            back: back.clone(),
            ..Host::default()
        };
        vec![host.statistics(None)]
    }
}

impl Host {
    fn statistics(&self, part: Option<&PartStatistics>) -> HostStatistics {
        HostStatistics {
            hop: self.hop,
            nodes: self.nodes.iter().map(|(node, _)| *node).collect(),
            forward_residence: self.forward.summary(),
            forward_distribution: self.forward.clone(),
            return_residence: self.back.summary(),
            return_distribution: self.back.clone(),
            forward_wake_up: self.forward_wake_up.summary(),
            return_wake_up: self.back_wake_up.summary(),
            share: part.and_then(|part| part.share),
            baseline: part.and_then(|part| part.baseline),
            increase: part.and_then(|part| part.increase),
            clock_steps: self.steps,
            sla: Sla::None,
        }
    }
}

impl Path {
    fn segment_statistics(&self, place: usize, part: Option<&PartStatistics>) -> SegmentStatistics {
        let segment = &self.segments[place];
        let (offset, error) = segment.clock.offset().unzip();
        let skew = segment.clock.skew();
        let places = self.hosts.len();
        let held = [place + 1, places + place].map(|pump| self.held.share(pump, None));
        SegmentStatistics {
            from_hop: segment.from_hop,
            to_hop: segment.to_hop,
            round_trip: segment.round_trip.summary(),
            distribution: segment.round_trip.clone(),
            network: segment.network.summary(),
            forward_excess: self.excess(place, Direction::Forward),
            return_excess: self.excess(place, Direction::Return),
            held_share: held.into_iter().flatten().reduce(f64::max),
            clock_offset: offset,
            clock_offset_error: error,
            clock_skew_ppm: skew.known.then_some(skew.rate * 1e6),
            share: part.and_then(|part| part.share),
            baseline: part.and_then(|part| part.baseline),
            increase: part.and_then(|part| part.increase),
            negative: segment.negative,
            retransmits: segment.retransmits,
            sla: Sla::None,
        }
    }

    /// One-way delays above their own minimum, of the blocks that were kept. `None` if the skew is
    /// unknown and could be a quarter of how much the round trip varies.
    fn excess(&self, place: usize, direction: Direction) -> Option<Summary> {
        let clock = &self.segments[place].clock;
        let skew = clock.skew();
        let read = self.one_way(place, direction);
        let start = self.rows.all().next()?.at.max(read.since.0);
        let run = self
            .rows
            .all()
            .map(|row| row.at)
            .max()?
            .saturating_sub(start);
        let variation = self.segments[place].round_trip.summary()?;
        let least = (variation.p95 - variation.min).0 as f64 / 4.0;
        let known = skew.known || clock.synchronised();
        if !known && skew.error * run as f64 > least.max(NEGLIGIBLE_NS) {
            return None;
        }
        let values = || self.rows.all().filter_map(|row| read.of(row.at, row.cells));
        let least = values().min()?;
        let mut excess = Histogram::default();
        values().for_each(|value| excess.record(SignedNanos(value.saturating_sub(least))));
        excess.summary()
    }
}
