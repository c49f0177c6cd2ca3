//! Trips in, one after the other; statistics and the verdict out whenever asked. Ties the files
//! beside it together.
//!
//! Memory is bounded whatever comes in: by hops (one byte), histograms (60 KiB each), rows
//! ([`super::series`]), 64 identities per hop. A part that cannot be compared with itself of before
//! starts anew: another shape of the path or an identity not seen at its hop before begins a new
//! baseline, with its own warm-up. A pool whose members are all known does not.

use super::clock::{Clock, NEGLIGIBLE_NS};
use super::held::Held;
use super::series::{exact_quantile, History, Reading, Window, BATCHES, NONE, WARM_UP};
use super::sla::{self, Place};
use super::timeline::{wall, Cut, Event, EventKind, Timeline};
use super::trip::{HostPart, Pair, Parts, SegmentPart, Trip, TripError};
use super::verdict::{compare, Candidate, Evidence, Increase, Subject, MIN_RUNS};
use super::Sla;
use super::{
    Direction, Figure, Histogram, HostStatistics, NodeId, SegmentStatistics, StampDirection,
    Statistics, Summary, Verdict, VerdictDirection,
};
use crate::measure::baseline::{path_key, Part, Quantiles, RunRecord, RUNS_KEPT};
use crate::time::{MonoTime, Nanos, Now, SignedNanos, WallTime};
use crate::vec_map::VecMap;

/// Identities remembered per hop; a larger pool is counted on, but its later members start no new
/// baseline.
const POOL: usize = 64;

/// What a run is compared with.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Baseline {
    /// The first half of the run, after 3 warm-up blocks.
    #[default]
    FirstHalf,
    /// The first span of a run without end; the current part is then the most recent span of that
    /// length.
    FirstSpan(Nanos),
    /// Earlier runs, oldest first, from a state file; those of other paths are left out.
    Runs(Vec<RunRecord>),
}

/// The statistics of a run.
#[derive(Debug)]
pub struct Model {
    baseline: Baseline,
    total: Histogram,
    server: Histogram,
    server_history: History,
    own: [Histogram; 2],
    own_hop: u8,
    path: Option<Path>,
    path_changes: u64,
    unpaired: u64,
    blocks: u64,
}

/// The nodes that stamp both ways, and what is between them.
#[derive(Debug)]
struct Path {
    hosts: Vec<Host>,
    segments: Vec<Segment>,
    history: History,
    held: Held,
    /// Blocks begin and end at the first node.
    source: bool,
    /// The last node reflects.
    reflected: bool,
    row: Vec<i64>,
}

#[derive(Debug, Default)]
struct Host {
    hop: u8,
    /// Identities and clock generations, in order of appearance.
    nodes: Vec<(NodeId, u8)>,
    current: usize,
    forward: Histogram,
    back: Histogram,
    forward_wake_up: Histogram,
    back_wake_up: Histogram,
    steps: u64,
    last_step: Option<MonoTime>,
}

#[derive(Debug, Default)]
struct Segment {
    from_hop: u8,
    to_hop: u8,
    round_trip: Histogram,
    network: Histogram,
    negative: u64,
    clock: Clock,
}

/// Columns of a row: three per segment (round trip, forward, back), then three per host (residence, wake-up delay
/// forward and back). What is told apart by kernel times is made of them when it is read.
fn segment_column(segment: usize) -> usize {
    3 * segment
}

/// Of so many blocks the wake-up delays at both ends have to be known before a segment is judged without them. They are
/// unknown of blocks that met in a socket, and those are not like the others: the rest has to count in full.
pub(super) const NETWORK_KNOWN: f64 = 0.9;
/// Of so many blocks a wake-up delay has to be known before a host is judged by it.
const WAKE_UP_KNOWN: f64 = 0.5;

impl Path {
    fn host_column(&self, host: usize) -> usize {
        3 * (self.segments.len() + host)
    }

    /// A path of the shape of `parts`; histograms of parts between the same hops are carried over
    /// from `old`.
    fn new(parts: &Parts, old: Option<Self>, span_ns: Option<u64>) -> Self {
        let (mut old_hosts, mut old_segments) =
            old.map_or_else(Default::default, |path| (path.hosts, path.segments));
        let host = |part: &HostPart| {
            let known = old_hosts.iter().position(|host| host.hop == part.hop);
            let fresh = || Host {
                hop: part.hop,
                ..Host::default()
            };
            known.map_or_else(fresh, |place| old_hosts.swap_remove(place))
        };
        let hosts: Vec<Host> = parts.hosts.iter().map(host).collect();
        let segment = |part: &SegmentPart| {
            let (from_hop, to_hop) = (part.from_hop, part.to_hop);
            let known = old_segments
                .iter()
                .position(|s| (s.from_hop, s.to_hop) == (from_hop, to_hop));
            let fresh = || Segment {
                from_hop,
                to_hop,
                ..Segment::default()
            };
            known.map_or_else(fresh, |place| old_segments.swap_remove(place))
        };
        let segments: Vec<Segment> = parts.segments.iter().map(segment).collect();
        let columns = 3 * (segments.len() + hosts.len());
        Self {
            history: History::new(columns, span_ns),
            held: Held::new(2 * hosts.len()),
            row: vec![NONE; columns],
            hosts,
            segments,
            source: true,
            reflected: false,
        }
    }

    fn has_shape_of(&self, parts: &Parts) -> bool {
        let hops = parts.hosts.iter().map(|host| host.hop);
        self.hosts.iter().map(|host| host.hop).eq(hops)
    }

    /// Notes who is at each hop; returns how many are another node than before, and whether one is
    /// new to its hop.
    fn meet(&mut self, pairs: &[Pair<'_>]) -> (u64, bool) {
        let (mut changes, mut new) = (0, false);
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
            let known = host.nodes.iter().position(|(node, _)| *node == id);
            host.current = known.unwrap_or(host.nodes.len());
            if known.is_none() && host.nodes.len() < POOL {
                new |= !host.nodes.is_empty();
                host.nodes.push((id, pair.out.generation));
            }
        }
        (changes, new)
    }

    fn record(&mut self, trip: &Trip, pairs: &[Pair<'_>], parts: &Parts) {
        let at = trip.at;
        self.source = trip.home.egress.is_none() && parts.hosts.first().is_some_and(|h| h.hop == 0);
        self.reflected = pairs
            .last()
            .is_some_and(|last| last.out.direction == StampDirection::Turn);
        let places = pairs.len();
        for (place, (host, pair)) in self.hosts.iter_mut().zip(pairs).enumerate() {
            let node = pair.out.node;
            host.step(at, node, pair.out.generation);
            self.held.record(
                place,
                (node, pair.out.generation),
                pair.out.egress,
                pair.out.held,
            );
            let home = match pair.home {
                Some(home) => Some((home.generation, home.egress, home.held)),
                None if place == 0 => {
                    let home = &trip.home;
                    Some((
                        home.generation,
                        home.egress.unwrap_or(home.ingress),
                        home.held,
                    ))
                }
                None => None,
            };
            if let Some((generation, egress, held)) = home {
                host.step(at, node, generation);
                self.held
                    .record(places + place, (node, generation), egress, held);
            }
        }
        self.held.tick(at);
        for (host, part) in self.hosts.iter_mut().zip(&parts.hosts) {
            part.forward_residence
                .into_iter()
                .for_each(|value| host.forward.record(value));
            part.return_residence
                .into_iter()
                .for_each(|value| host.back.record(value));
            part.forward_wake_up
                .into_iter()
                .for_each(|value| host.forward_wake_up.record(value));
            part.return_wake_up
                .into_iter()
                .for_each(|value| host.back_wake_up.record(value));
            if parts.stepped.contains(&part.hop) {
                host.suspect(at);
            }
        }
        for (place, part) in parts.segments.iter().enumerate() {
            let (Some(segment), [near, far, ..]) = (self.segments.get_mut(place), &pairs[place..])
            else {
                break;
            };
            if let (Some(forward), Some(back)) = (part.forward, part.back) {
                segment.round_trip.record(forward + back);
                part.network
                    .into_iter()
                    .for_each(|value| segment.network.record(value));
                segment.negative += u64::from((forward + back).0 < 0);
                let ends = [near, far].map(|end| (end.out.node, end.out.generation));
                let synchronised = near.out.synchronised && far.out.synchronised;
                segment
                    .clock
                    .record(at, ends, synchronised, (forward, back));
            }
            let column = segment_column(place);
            let cells = [part.round_trip, part.forward, part.back];
            self.row[column..column + 3].copy_from_slice(&cells.map(cell));
        }
        for (place, part) in parts.hosts.iter().enumerate() {
            let cells = [part.residence(), part.forward_wake_up, part.return_wake_up];
            let column = self.host_column(place);
            self.row[column..column + 3].copy_from_slice(&cells.map(cell));
        }
        self.mask_unreported_steps(at, parts);
        self.history.push(at, &self.row);
    }

    /// A round trip well below zero that a part beside it makes up for: the clock between them was
    /// stepped, though its generation does not say so. The figures are kept, but the verdict does
    /// not rest on them.
    fn mask_unreported_steps(&mut self, at: MonoTime, parts: &Parts) {
        // Clocks at 200 ppm of each other may show as little as this below zero.
        let total = parts.total.unwrap_or_default().abs().0;
        let least = i64::try_from(total / 5_000)
            .unwrap_or(i64::MAX)
            .saturating_add(100_000);
        for place in 0..parts.segments.len() {
            let missing = match parts.segments[place].round_trip {
                Some(SignedNanos(value)) if value < least.saturating_neg() => value,
                _ => continue,
            };
            let host = |host| (host, self.host_column(host));
            let before = place
                .checked_sub(1)
                .map(|before| (place, segment_column(before)));
            let after =
                (place + 2 < parts.hosts.len()).then(|| (place + 1, segment_column(place + 1)));
            let beside = before
                .into_iter()
                .chain(after)
                .chain([host(place), host(place + 1)]);
            let most = beside.max_by_key(|(_, column)| self.row[*column]);
            let Some((stepped, column)) = most else {
                continue;
            };
            if self.row[column] >= missing.saturating_neg() / 2 {
                let width = if column < self.host_column(0) { 3 } else { 1 };
                self.row[column..column + width].fill(NONE);
                self.hosts[stepped].suspect(at);
            }
            let column = segment_column(place);
            self.row[column..column + 3].fill(NONE);
        }
    }
}

impl Host {
    fn step(&mut self, at: MonoTime, node: NodeId, generation: u8) {
        if let Some((_, last)) = self
            .nodes
            .get_mut(self.current)
            .filter(|known| known.0 == node)
        {
            // Stamps of another connection may be a little older: that is no step.
            let steps = generation.wrapping_sub(*last);
            if (1..128).contains(&steps) {
                *last = generation;
                self.steps += u64::from(steps);
                self.last_step = Some(at);
            }
        }
    }

    /// A step that the generation did not count; blocks within a second of each other tell of the
    /// same one.
    fn suspect(&mut self, at: MonoTime) {
        let same = self
            .last_step
            .is_some_and(|last| at.since(last) < Nanos::from_millis(1_000));
        self.steps += u64::from(!same);
        self.last_step = Some(at);
    }
}

fn cell(value: Option<SignedNanos>) -> i64 {
    value.map_or(NONE, |value| value.0)
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Model {
    /// An empty model.
    pub fn new(baseline: Baseline) -> Self {
        let server_history = History::new(1, span_ns(&baseline));
        Self {
            baseline,
            total: Histogram::default(),
            server: Histogram::default(),
            server_history,
            own: Default::default(),
            own_hop: 0,
            path: None,
            path_changes: 0,
            unpaired: 0,
            blocks: 0,
        }
    }

    /// Takes one answered, marked block in, and returns its parts.
    ///
    /// # Errors
    ///
    /// As [`Trip::split`]; nothing is recorded then.
    pub fn record(&mut self, trip: &Trip) -> Result<Parts, TripError> {
        let mut pairs = Vec::with_capacity(trip.hop_stamps.len() / 2 + 1);
        let unpaired = trip.pair(&mut pairs)?;
        let parts = trip.parts(&pairs, unpaired);
        self.blocks += 1;
        self.unpaired += unpaired as u64;
        parts
            .total
            .into_iter()
            .for_each(|total| self.total.record(total));
        let span_ns = span_ns(&self.baseline);
        let path = match self.path.take() {
            Some(path) if path.has_shape_of(&parts) => path,
            old => {
                self.path_changes += u64::from(old.is_some());
                Path::new(&parts, old, span_ns)
            }
        };
        let path = self.path.insert(path);
        let (changes, new) = path.meet(&pairs);
        self.path_changes += changes;
        if new {
            path.history = History::new(path.row.len(), span_ns);
        }
        path.record(trip, &pairs, &parts);
        if let Some(server) = trip.behind_exit {
            self.behind_exit(trip.at, server);
        }
        Ok(parts)
    }

    /// Takes in the residence of a node that sees no trips: a plain proxy, a reflector, an exit.
    pub fn residence(&mut self, hop: u8, direction: Direction, residence: SignedNanos) {
        self.own_hop = hop;
        self.own[usize::from(direction == Direction::Return)].record(residence);
    }

    /// Takes in the time that the server behind an exit, and the network to it, took.
    pub fn behind_exit(&mut self, at: MonoTime, delay: Nanos) {
        self.server.record(delay.signed());
        self.server_history.push(at, &[delay.signed().0]);
    }

    /// Far clock minus near clock of each segment, as far as it is known now.
    pub fn offsets(&self) -> Vec<Option<SignedNanos>> {
        let segments = self.path.iter().flat_map(|path| &path.segments);
        segments
            .map(|segment| segment.clock.offset().map(|(offset, _)| offset))
            .collect()
    }

    /// Crossings left out so far, because their node stamped in one direction only.
    pub fn unpaired(&self) -> u64 {
        self.unpaired
    }

    /// All figures of the run so far; a hop without a name is called `hop N`.
    pub fn statistics(&self, names: &VecMap<u8, String>) -> Statistics {
        let named = self.named(names);
        let earlier = self.earlier(&named);
        let candidates = self.candidates(earlier.as_deref());
        let find = |subject| {
            let candidate = candidates.iter().find(|c| c.subject == subject);
            candidate
                .map(|c| (c.share, c.best().map(|i| (i.baseline, i.amount))))
                .unwrap_or_default()
        };
        let (segments, hosts) = match &self.path {
            Some(path) => {
                let segments = 0..path.segments.len();
                let hosts = path.hosts.iter().enumerate();
                (
                    segments
                        .map(|i| path.segment_statistics(i, find(Subject::Segment(i))))
                        .collect(),
                    hosts
                        .map(|(i, host)| {
                            host.statistics(find(Subject::Host(i)), find(Subject::WakeUp(i)))
                        })
                        .collect(),
                )
            }
            None => (Vec::new(), self.own_host()),
        };
        Statistics {
            round_trip: self.total.summary(),
            distribution: self.total.clone(),
            sla: Sla::None,
            segments,
            hosts,
            behind_exit: self.server.summary(),
            path_changes: self.path_changes,
            verdict: self.verdict(candidates, named, earlier.as_deref()),
        }
    }

    /// The run over time, in at most `slots` slots; of a run without end its most recent span, once that no longer
    /// follows on the first. `None` where no block was kept yet (the first 3 are warm-up). `now` is both clocks, read
    /// together.
    pub fn timeline(&self, slots: usize, now: Now) -> Option<Timeline> {
        let path = self.path.as_ref()?;
        let mut windows: Vec<_> = path.history.all().collect();
        if let [first, recent] = windows[..] {
            let gap = recent.start.saturating_sub(first.end);
            if gap > (recent.end - recent.start) / 8 {
                windows.remove(0);
            }
        }
        let rows = || windows.iter().flat_map(|window| window.all());
        let start = windows.first()?.start;
        let end = windows.last()?.end.max(start);
        let cut = Cut::new(start, end, rows().count(), slots);
        let column = |column: usize| cut.line(rows(), |row| row[column]);
        let hosts = (0..path.hosts.len()).map(|place| path.host_column(place));
        let segments = (0..path.segments.len()).map(segment_column);
        let parts: Vec<_> = segments.clone().chain(hosts.clone()).collect();
        let total = |row: &[i64]| {
            let cells = parts.iter().map(|part| row[*part]);
            let sum = |sum: i64, cell: i64| (cell != NONE).then(|| sum.wrapping_add(cell));
            cells.into_iter().try_fold(0, sum).unwrap_or(NONE)
        };
        let steps = path.hosts.iter().filter_map(|host| {
            Some(Event {
                at: wall(host.last_step?, now),
                kind: EventKind::ClockStep(host.hop),
            })
        });
        let mut events: Vec<_> = steps.collect();
        events.sort_by_key(|event| event.at);
        let (start, slot) = cut.on(now);
        Some(Timeline {
            start,
            slot,
            total: cut.line(rows(), total),
            segments: segments.map(column).collect(),
            hosts: hosts.map(column).collect(),
            events,
        })
    }

    /// Baseline and increase of each part that has them, as [`statistics`](Self::statistics) shows them.
    pub fn growth(&self, names: &VecMap<u8, String>) -> VecMap<Place, sla::Growth> {
        let Some(path) = &self.path else {
            return VecMap::new();
        };
        let earlier = self.earlier(&self.named(names));
        let candidates = self.candidates(earlier.as_deref()).into_iter();
        let growth = candidates.filter_map(|candidate| {
            let place = match candidate.subject {
                Subject::Segment(place) => Place::Segment {
                    from: path.segments[place].from_hop,
                    to: path.segments[place].to_hop,
                },
                Subject::Host(place) => Place::Host(path.hosts[place].hop),
                Subject::WakeUp(_) | Subject::Server => return None,
            };
            // A limit on a round trip is one on all of it.
            let whole = match candidate.subject {
                Subject::Segment(_) if !candidate.round_trip => {
                    let (part, read) = path.plain(candidate.subject);
                    &increases(&path.history, read, part, earlier.as_deref())
                }
                _ => &candidate.increases,
            };
            let baseline = |increase: &Option<Increase>| {
                let increase = increase.as_ref();
                increase.map(|increase| SignedNanos(increase.baseline))
            };
            let growth = sla::Growth {
                baselines: [0, 1].map(|figure| baseline(&whole[figure])),
                increase: candidate.best().map(|best| SignedNanos(best.amount)),
            };
            Some((place, growth))
        });
        growth.collect()
    }

    /// What later runs are compared with: the quantiles of every part. `started` is when the run
    /// began.
    pub fn run_record(&self, started: WallTime, names: &VecMap<u8, String>) -> RunRecord {
        let mut parts = VecMap::new();
        let mut add = |part, history: &History, read| {
            let quantiles = run_quantiles(history, read);
            if quantiles != Quantiles::default() {
                parts.insert(part, quantiles);
            }
        };
        add(Part::Server, &self.server_history, Reading::default());
        if let Some(path) = &self.path {
            let windows: Vec<_> = path.history.run().into_iter().collect();
            for subject in path.subjects() {
                let (part, read) = path.plain(subject);
                if path.is_told(subject, &windows) {
                    add(part, &path.history, read);
                }
                let told = path.without_wake_ups(subject, &windows, None);
                told.into_iter()
                    .for_each(|(part, read)| add(part, &path.history, read));
            }
            for (place, segment) in path.segments.iter().enumerate() {
                if segment.clock.synchronised() {
                    let (from, to) = (segment.from_hop, segment.to_hop);
                    let read = |column| Reading {
                        column: segment_column(place) + column,
                        ..Reading::default()
                    };
                    add(Part::Forward(from, to), &path.history, read(1));
                    add(Part::Return(from, to), &path.history, read(2));
                }
            }
        }
        let path = key(&self.named(names));
        RunRecord {
            started,
            blocks: self.blocks.max(self.server.count()),
            path,
            parts,
        }
    }

    /// Hops and names of the nodes, in order of the path.
    fn named(&self, names: &VecMap<u8, String>) -> Vec<(u8, String)> {
        let own = self.own.iter().any(|own| own.count() > 0) || self.server.count() > 0;
        let hops = match &self.path {
            Some(path) => path.hosts.iter().map(|host| host.hop).collect(),
            None if own => vec![self.own_hop],
            None => Vec::new(),
        };
        let name = |hop| {
            names
                .get(&hop)
                .cloned()
                .unwrap_or_else(|| format!("hop {hop}"))
        };
        hops.into_iter().map(|hop| (hop, name(hop))).collect()
    }

    /// The earlier runs of this path; `None` if the baseline is within the run.
    fn earlier(&self, named: &[(u8, String)]) -> Option<Vec<&RunRecord>> {
        let Baseline::Runs(runs) = &self.baseline else {
            return None;
        };
        let path = key(named);
        let runs: Vec<_> = runs.iter().filter(|run| run.path == path).collect();
        Some(runs[runs.len().saturating_sub(RUNS_KEPT)..].to_vec())
    }

    fn candidates(&self, earlier: Option<&[&RunRecord]>) -> Vec<Candidate> {
        let whole = self.total.sum() as f64;
        let share = |sum: f64| (whole > 0.0).then(|| sum / whole);
        let mut candidates = Vec::new();
        if let Some(path) = &self.path {
            let windows = path.compared(earlier);
            for subject in path.subjects() {
                if !path.is_told(subject, &windows) {
                    continue;
                }
                let without = path.without_wake_ups(subject, &windows, earlier);
                let parts = path.histograms(subject, without.is_some());
                let mean = parts.iter().map(|part| part.mean_ns()).sum();
                let round_trip = matches!(subject, Subject::Segment(_)) && without.is_none();
                let (part, read) = without.unwrap_or_else(|| path.plain(subject));
                candidates.push(Candidate {
                    subject,
                    mean,
                    share: None,
                    increases: increases(&path.history, read, part, earlier),
                    round_trip,
                });
            }
            let sums = path.apart(&candidates);
            for (candidate, sum) in candidates.iter_mut().zip(sums) {
                candidate.share = sum.and_then(|sum| share(sum as f64));
            }
        }
        if self.server.count() > 0 {
            // The server's time is not in the totals: an exit reports a block before it is
            // answered.
            let mean = self.server.mean_ns();
            let with_server = self.total.mean_ns().max(0.0) + mean;
            candidates.push(Candidate {
                subject: Subject::Server,
                mean,
                share: (with_server > 0.0).then(|| mean / with_server),
                increases: increases(
                    &self.server_history,
                    Reading::default(),
                    Part::Server,
                    earlier,
                ),
                round_trip: false,
            });
        }
        candidates
    }

    fn verdict(
        &self,
        candidates: Vec<Candidate>,
        nodes: Vec<(u8, String)>,
        earlier: Option<&[&RunRecord]>,
    ) -> Verdict {
        let path = self.path.as_ref();
        let history = path.map_or(&self.server_history, |path| &path.history);
        let current = match earlier {
            Some(_) => history.run(),
            None => history.parts().map(|(_, current)| current),
        };
        let mut doubts = Vec::new();
        if current.is_some_and(|now| seconds(now.end - now.start) < BATCHES as f64) {
            doubts.push("batches shorter than 1 s".to_owned());
        }
        let measured: usize = history.all().map(Window::rows).sum();
        let no_baseline = match earlier {
            Some(runs) if runs.len() < MIN_RUNS => {
                format!("{} of {MIN_RUNS} earlier runs of this path", runs.len())
            }
            Some(_) => "too few blocks".to_owned(),
            None if measured < 2 * BATCHES * 5 => format!(
                "{measured} blocks answered after the first {WARM_UP}, {} needed",
                2 * BATCHES * 5
            ),
            None => "blocks too unevenly spread over the run".to_owned(),
        };
        // A run without end does not speak for ever of a step that was long ago.
        let since = match &self.baseline {
            Baseline::FirstSpan(_) => current.map(|now| MonoTime(now.start)),
            _ => None,
        };
        let stepped = |host: &Host| {
            host.last_step
                .is_some_and(|at| since.map_or(true, |s| at >= s))
        };
        let hosts = path.map_or(&[][..], |path| &path.hosts);
        let since = current.map(|now| MonoTime(now.start));
        let held = (0..2 * hosts.len()).map(|pump| {
            path.and_then(|path| path.held.share(pump, since))
                .unwrap_or(0.0)
        });
        let direction = |subject: Subject, increase: &Increase| {
            path.and_then(|path| match subject {
                Subject::Segment(place) => path.direction(place, increase, earlier),
                Subject::WakeUp(place) => path.wake_up_direction(place, increase, earlier),
                _ => None,
            })
        };
        let evidence = Evidence {
            candidates,
            nodes,
            source: path.is_some_and(|path| path.source),
            reflected: path.is_some_and(|path| path.reflected),
            held: held.collect(),
            stepped: (0..hosts.len())
                .filter(|place| stepped(&hosts[*place]))
                .collect(),
            no_baseline,
            doubts,
            direction: &direction,
        };
        evidence.judge()
    }

    /// What a node that sees no trips has to say of itself.
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
        vec![host.statistics((None, None), (None, None))]
    }
}

/// Share of the whole, and baseline and increase in nanoseconds.
type Growth = (Option<f64>, Option<(i64, i64)>);

impl Host {
    fn statistics(&self, (share, growth): Growth, late: Growth) -> HostStatistics {
        HostStatistics {
            hop: self.hop,
            nodes: self.nodes.iter().map(|(node, _)| *node).collect(),
            forward_residence: self.forward.summary(),
            forward_distribution: self.forward.clone(),
            return_residence: self.back.summary(),
            return_distribution: self.back.clone(),
            forward_wake_up: self.forward_wake_up.summary(),
            return_wake_up: self.back_wake_up.summary(),
            wake_up_share: late.0,
            wake_up_baseline: late.1.map(|(baseline, _)| SignedNanos(baseline)),
            wake_up_increase: late.1.map(|(_, increase)| SignedNanos(increase)),
            share,
            baseline: growth.map(|(baseline, _)| SignedNanos(baseline)),
            increase: growth.map(|(_, increase)| SignedNanos(increase)),
            clock_steps: self.steps,
            sla: Sla::None,
        }
    }
}

impl Path {
    fn subjects(&self) -> impl Iterator<Item = Subject> {
        let segments = (0..self.segments.len()).map(Subject::Segment);
        let hosts = 0..self.hosts.len();
        segments
            .chain(hosts.clone().map(Subject::Host))
            .chain(hosts.map(Subject::WakeUp))
    }

    /// Under which name a part is kept, and how it is read; of a segment the round trip.
    fn plain(&self, subject: Subject) -> (Part, Reading) {
        let (part, column) = match subject {
            Subject::Segment(place) => {
                let segment = &self.segments[place];
                let part = Part::Segment(segment.from_hop, segment.to_hop);
                (part, segment_column(place))
            }
            Subject::Host(0) => (Part::Source, self.host_column(0)),
            Subject::Host(place) => (Part::Host(self.hosts[place].hop), self.host_column(place)),
            Subject::WakeUp(place) => {
                let [first, second] = self.wake_up_columns(place);
                let read = Reading {
                    column: first.unwrap_or(usize::MAX),
                    terms: [second.map(|column| (column, 1)), None],
                    ..Reading::default()
                };
                return (Part::WakeUp(self.hosts[place].hop), read);
            }
            Subject::Server => (Part::Server, usize::MAX),
        };
        let read = Reading {
            column,
            ..Reading::default()
        };
        (part, read)
    }

    /// The columns of a host's wake-up delays, out and back: the origin is not woken on the way out, nor the end of the
    /// path on the way back.
    fn wake_up_columns(&self, place: usize) -> [Option<usize>; 2] {
        let column = self.host_column(place);
        let out = (place > 0).then_some(column + 1);
        let back = (place + 1 < self.hosts.len()).then_some(column + 2);
        match out {
            None => [back, None],
            _ => [out, back],
        }
    }

    /// What is compared: the two parts of the run, or the whole of it with earlier ones.
    fn compared(&self, earlier: Option<&[&RunRecord]>) -> Vec<Window<'_>> {
        match earlier {
            Some(_) => self.history.run().into_iter().collect(),
            None => {
                let parts = self.history.parts();
                parts.into_iter().flat_map(|(a, b)| [a, b]).collect()
            }
        }
    }

    /// Whether enough is known of a part, in each of `windows`, to judge it.
    fn is_told(&self, subject: Subject, windows: &[Window<'_>]) -> bool {
        let Subject::WakeUp(place) = subject else {
            return true;
        };
        let columns: Vec<_> = self.wake_up_columns(place).into_iter().flatten().collect();
        let known = |window: &Window<'_>| window.knows(&columns, WAKE_UP_KNOWN);
        !columns.is_empty() && !windows.is_empty() && windows.iter().all(known)
    }

    /// As [`plain`](Self::plain), for a segment without the wake-up delays at its ends, where kernels tell them of most
    /// blocks, in earlier runs too. What they do not tell stays in.
    fn without_wake_ups(
        &self,
        subject: Subject,
        windows: &[Window<'_>],
        earlier: Option<&[&RunRecord]>,
    ) -> Option<(Part, Reading)> {
        let Subject::Segment(place) = subject else {
            return None;
        };
        let (_, read) = self.plain(subject);
        let ends = [self.host_column(place + 1) + 1, self.host_column(place) + 2];
        let columns = [read.column, ends[0], ends[1]];
        let known = windows.iter().all(|w| w.knows(&columns, NETWORK_KNOWN));
        let segment = &self.segments[place];
        let hops = (segment.from_hop, segment.to_hop);
        let part = Part::Network(hops.0, hops.1);
        let with = |part| {
            let runs = earlier.into_iter().flatten();
            runs.filter(|run| run.parts.contains_key(&part)).count()
        };
        let (runs, all) = (with(part), with(Part::Segment(hops.0, hops.1)));
        let as_before = all < MIN_RUNS || (runs >= MIN_RUNS && runs * 2 >= all);
        let terms = ends.map(|column| Some((column, -1)));
        (known && as_before && !windows.is_empty()).then_some((part, Reading { terms, ..read }))
    }

    fn histograms(&self, subject: Subject, without_wake_ups: bool) -> Vec<&Histogram> {
        match subject {
            Subject::Segment(place) if without_wake_ups => vec![&self.segments[place].network],
            Subject::Segment(place) => vec![&self.segments[place].round_trip],
            Subject::Host(place) => vec![&self.hosts[place].forward, &self.hosts[place].back],
            Subject::WakeUp(place) => {
                let host = &self.hosts[place];
                // What the end of the path tells of the way back is a share of no segment.
                let back = (place + 1 < self.hosts.len()).then_some(&host.back_wake_up);
                [Some(&host.forward_wake_up), back]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Subject::Server => Vec::new(),
        }
    }

    /// What each of these parts has of the sum of all delays that none of the others has; `None` where that is nothing.
    ///
    /// A wake-up delay is the host's where the segment that it lies in is judged without, and the segment's else; so is
    /// that of blocks of which it is unknown, and of a host that is no part itself.
    fn apart(&self, parts: &[Candidate]) -> Vec<Option<i128>> {
        let stands = |subject| parts.iter().any(|part| part.subject == subject);
        let without = |segment| {
            let has = |part: &&Candidate| part.subject == Subject::Segment(segment);
            parts.iter().find(has).is_some_and(|part| !part.round_trip)
        };
        // Of a host, out and back: in the segment before it, and in the one behind.
        let late = |place: usize| {
            let host = &self.hosts[place];
            let lies = |segment: Option<usize>, late: &Histogram| {
                let own = segment.is_some_and(without) && stands(Subject::WakeUp(place));
                own.then(|| late.sum())
            };
            [
                lies(place.checked_sub(1), &host.forward_wake_up),
                lies(Some(place), &host.back_wake_up),
            ]
        };
        let own = |part: &Candidate| match part.subject {
            Subject::Segment(place) => {
                let ends = [late(place + 1)[0], late(place)[1]];
                let ends: i128 = ends.into_iter().flatten().sum();
                Some(self.segments[place].round_trip.sum() - ends)
            }
            Subject::Host(place) => {
                let host = &self.hosts[place];
                Some(host.forward.sum() + host.back.sum())
            }
            Subject::WakeUp(place) => late(place)
                .into_iter()
                .flatten()
                .reduce(|out, back| out + back),
            Subject::Server => None,
        };
        parts.iter().map(own).collect()
    }

    fn segment_statistics(&self, place: usize, (share, growth): Growth) -> SegmentStatistics {
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
            share,
            baseline: growth.map(|(baseline, _)| SignedNanos(baseline)),
            increase: growth.map(|(_, increase)| SignedNanos(increase)),
            negative: segment.negative,
            sla: Sla::None,
        }
    }

    /// How to read a one-way column with the skew taken out, since the clocks were last stepped; `network`: without the
    /// wake-up delay at its end.
    fn one_way(&self, place: usize, direction: Direction, network: bool) -> Reading {
        let clock = &self.segments[place].clock;
        let (column, rate, since) = (segment_column(place), clock.skew().rate, clock.since());
        let (column, rate, wake_up) = match direction {
            Direction::Forward => (column + 1, rate, self.host_column(place + 1) + 1),
            Direction::Return => (column + 2, -rate, self.host_column(place) + 2),
        };
        Reading {
            column,
            terms: [network.then_some((wake_up, -1)), None],
            since,
            rate,
        }
    }

    /// One-way delays above their own minimum, of the blocks that were kept; `None` where the skew
    /// is unknown and could be a quarter of how much the round trip varies.
    fn excess(&self, place: usize, direction: Direction) -> Option<Summary> {
        let clock = &self.segments[place].clock;
        let skew = clock.skew();
        let read = self.one_way(place, direction, false);
        let windows: Vec<_> = self.history.all().collect();
        let run = windows
            .last()?
            .end
            .saturating_sub(read.since.0.max(windows.first()?.start));
        let variation = self.segments[place].round_trip.summary()?;
        let least = (variation.p95 - variation.min).0 as f64 / 4.0;
        let told = skew.known || clock.synchronised();
        if !told && skew.error * run as f64 > least.max(NEGLIGIBLE_NS) {
            return None;
        }
        let values = || {
            windows
                .iter()
                .flat_map(|window| window.values(read))
                .map(|(_, value)| value)
        };
        let least = values().min()?;
        let mut excess = Histogram::default();
        values().for_each(|value| excess.record(SignedNanos(value.saturating_sub(least))));
        excess.summary()
    }

    /// Which way at least three quarters of the growth of a wake-up delay lie: each way is told by one clock.
    fn wake_up_direction(
        &self,
        place: usize,
        increase: &Increase,
        earlier: Option<&[&RunRecord]>,
    ) -> Option<VerdictDirection> {
        let [_, Some(back)] = self.wake_up_columns(place) else {
            // One way only: the end of the path on the way out, the origin on the way back.
            return Some(match place {
                0 => VerdictDirection::Return,
                _ => VerdictDirection::Forward,
            });
        };
        if earlier.is_some() {
            return None; // Runs keep both ways together.
        }
        let (share, needed) = increase.figure.rule();
        let (before, now) = self.history.parts()?;
        let grown = |column| {
            let read = Reading {
                column,
                ..Reading::default()
            };
            let batches = |part: Window<'_>| part.quantiles(read, BATCHES, share, needed);
            Some(compare(increase.figure, batches(before), &batches(now), false)?.amount)
        };
        Some(way_of(increase.amount, grown(back - 1)?, grown(back)?))
    }

    /// Which way at least three quarters of a segment's increase lie. Known only for clocks that
    /// were not stepped, and that cannot have drifted apart by half of the increase; across
    /// runs only for synchronised ones.
    fn direction(
        &self,
        place: usize,
        increase: &Increase,
        earlier: Option<&[&RunRecord]>,
    ) -> Option<VerdictDirection> {
        let segment = &self.segments[place];
        let (share, _) = increase.figure.rule();
        let network = earlier.is_none() && {
            let windows = self.compared(None);
            self.without_wake_ups(Subject::Segment(place), &windows, None)
                .is_some()
        };
        let grown = |direction| {
            let read = self.one_way(place, direction, network);
            let (baseline, current) = match earlier {
                Some(runs) => {
                    let hops = (segment.from_hop, segment.to_hop);
                    let part = match direction {
                        Direction::Forward => Part::Forward(hops.0, hops.1),
                        Direction::Return => Part::Return(hops.0, hops.1),
                    };
                    // Across runs the offset itself is trusted, so the drift within this one stays
                    // in.
                    let read = Reading { rate: 0.0, ..read };
                    let baseline = of_runs(runs, part, increase.figure);
                    if baseline.len() < MIN_RUNS {
                        return None;
                    }
                    (baseline, self.history.run()?.quantiles(read, 1, share, 5))
                }
                None => {
                    let (before, now) = self.history.parts()?;
                    let far = (now.start + (now.end - now.start) / 2)
                        .saturating_sub(before.start + (before.end - before.start) / 2);
                    if segment.clock.skew().error * far as f64 * 2.0 > increase.amount as f64 {
                        return None;
                    }
                    let batches = |part: Window<'_>| part.quantiles(read, BATCHES, share, 5);
                    (batches(before), batches(now))
                }
            };
            Some(compare(increase.figure, baseline, &current, earlier.is_some())?.amount)
        };
        if earlier.is_some() && !segment.clock.synchronised() {
            return None;
        }
        let (forward, back) = (grown(Direction::Forward)?, grown(Direction::Return)?);
        Some(way_of(increase.amount, forward, back))
    }
}

fn way_of(amount: i64, forward: i64, back: i64) -> VerdictDirection {
    let most = amount / 4 * 3;
    match () {
        () if forward >= most && forward > back => VerdictDirection::Forward,
        () if back >= most && back > forward => VerdictDirection::Return,
        () => VerdictDirection::Both,
    }
}

fn span_ns(baseline: &Baseline) -> Option<u64> {
    match baseline {
        Baseline::FirstSpan(span) => Some(span.0),
        _ => None,
    }
}

fn key(named: &[(u8, String)]) -> String {
    path_key(named.iter().map(|(hop, name)| (*hop, name.as_str())))
}

fn of_runs(runs: &[&RunRecord], part: Part, figure: Figure) -> Vec<i64> {
    let quantiles = runs.iter().filter_map(|run| run.parts.get(&part));
    let figures = quantiles.filter_map(|quantiles| match figure {
        Figure::P50 => quantiles.p50,
        Figure::P95 => quantiles.p95,
    });
    figures.map(|value| value.0).collect()
}

/// The growth of one column at both quantiles, over the first part of the run or over earlier runs.
fn increases(
    history: &History,
    read: Reading,
    part: Part,
    earlier: Option<&[&RunRecord]>,
) -> [Option<Increase>; 2] {
    [Figure::P50, Figure::P95].map(|figure| {
        let (share, needed) = figure.rule();
        let batches = |window: Window<'_>, count| window.quantiles(read, count, share, needed);
        let (baseline, current) = match earlier {
            Some(runs) => {
                let baseline = of_runs(runs, part, figure);
                if baseline.len() < MIN_RUNS {
                    return None;
                }
                // A short run makes fewer batches, down to one.
                let run = history.run()?;
                let current = [BATCHES, 4, 2, 1]
                    .into_iter()
                    .map(|count| batches(run, count));
                (
                    baseline,
                    current.into_iter().find(|batches| !batches.is_empty())?,
                )
            }
            None => {
                let (before, now) = history.parts()?;
                (batches(before, BATCHES), batches(now, BATCHES))
            }
        };
        compare(figure, baseline, &current, earlier.is_some())
    })
}

/// The quantiles of a whole run, where there are blocks enough for them.
fn run_quantiles(history: &History, read: Reading) -> Quantiles {
    let mut values: Vec<i64> = history
        .all()
        .flat_map(|window| window.values(read))
        .map(|(_, value)| value)
        .collect();
    let mut quantile = |figure: Figure| {
        let (share, needed) = figure.rule();
        let enough = values.len() >= needed;
        exact_quantile(&mut values, share)
            .filter(|_| enough)
            .map(SignedNanos)
    };
    Quantiles {
        p50: quantile(Figure::P50),
        p95: quantile(Figure::P95),
    }
}
