//! Blocks in, transitions and questions out: the rules at work on one path.
//!
//! Memory is bounded: a rule keeps a window, a distribution and at most [`MOST_OF`](super::MOST_OF)
//! evaluations per part, and the latest [`EVENTS`] events are kept.

mod playbook;
mod replace;

use super::{Amount, Limit, LimitState, PartPattern, Rule, RuleEvent, RuleFigure, Statistic};
use crate::measure::{Direction, Histogram, NodeId, Part, Parts, Sla, Trip};
use crate::time::{MonoTime, Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Events kept; what is older is counted.
const EVENTS: usize = 100;
/// The interval at which the model is asked for the baseline and the increase.
const GROWTH_EVERY: Nanos = Nanos::from_millis(1_000);
/// The least one-way delay is that of one to two such spans, and of as many blocks.
const EXCESS_SPAN: Nanos = Nanos::from_millis(10_000);
const EXCESS_BLOCKS: u32 = 16;

/// A part's growth as the model knows it, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Growth {
    /// Median of the baseline's batches at p50 and at p95; `None` without a baseline.
    pub baselines: [Option<SignedNanos>; 2],
    /// The increase as the report shows it.
    pub increase: Option<SignedNanos>,
}

/// One rule for one part.
#[derive(Clone, Debug)]
struct Track {
    rule: usize,
    part: Part,
    /// Index among the parts of its kind.
    index: usize,
    window: Histogram,
    whole: Histogram,
    /// Blocks decided on and lost before the present window.
    counted: (u64, u64),
    /// The latest evaluations, and whether they exceeded the limit.
    recent: VecDeque<(f64, bool)>,
    evaluations: u64,
    within: u32,
    exceeded: bool,
    value: Option<f64>,
    limit: Option<f64>,
    growth: Growth,
    /// A node has reported retransmissions of this segment, be it none.
    read: bool,
}

/// The least one-way delays of a segment lately.
#[derive(Debug)]
struct Least {
    ends: [(NodeId, u8); 2],
    since: MonoTime,
    blocks: u32,
    /// Of the last span and of this one, forward and back.
    last: [i64; 2],
    this: [i64; 2],
}

/// The rules at work.
#[derive(Debug)]
pub struct Watch {
    rules: Arc<[Rule]>,
    names: VecMap<u8, String>,
    hops: Vec<u8>,
    /// Blocks had something behind the last node, and a server.
    ends: [bool; 3],
    tracks: Vec<Track>,
    matched: Vec<bool>,
    least: Vec<Option<Least>>,
    excess: Vec<Option<[i64; 2]>>,
    needs_growth: bool,
    grown: Option<MonoTime>,
    events: VecDeque<RuleEvent>,
    forgotten: u64,
    fresh: usize,
    latest: (WallTime, u64),
}

impl Watch {
    /// Before the first block.
    pub fn new(rules: Arc<[Rule]>) -> Self {
        let mut watch = Self {
            needs_growth: rules.iter().any(Rule::needs_growth),
            matched: vec![false; rules.len()],
            rules,
            names: VecMap::new(),
            hops: Vec::new(),
            ends: [false; 3],
            tracks: Vec::new(),
            least: Vec::new(),
            excess: Vec::new(),
            grown: None,
            events: VecDeque::new(),
            forgotten: 0,
            fresh: 0,
            latest: Default::default(),
        };
        watch.bind(); // The total is there before any block.
        watch
    }

    /// Returns `true` if there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Finds the parts that each rule is about; what goes on being there keeps its state.
    fn bind(&mut self) {
        let mut old = std::mem::take(&mut self.tracks);
        let rules = Arc::clone(&self.rules);
        let segments = self.hops.windows(2).enumerate();
        let segments = segments.map(|(index, ends)| {
            let (from, to) = (ends[0], ends[1]);
            (index, Part::Segment { from, to })
        });
        let connects = self.hops.windows(2).enumerate();
        let connects = connects.map(|(index, ends)| {
            let (from, to) = (ends[0], ends[1]);
            (index, Part::Connect { from, to })
        });
        let hosts = self.hops.iter().enumerate();
        let hosts = hosts.map(|(index, &hop)| (index, Part::Host(hop)));
        let [beyond, server, connect] = self.ends;
        let beyond = self.hops.last().filter(|_| beyond);
        let beyond = beyond.map(|&hop| (0, Part::Behind(hop)));
        let server = server.then_some((0, Part::Server));
        let connect = connect.then_some((0, Part::ServerConnect));
        let places = segments.chain(connects).chain(hosts).chain(beyond);
        let places: Vec<_> = places
            .chain(server)
            .chain(connect)
            .chain([(0, Part::Total)])
            .collect();
        for (number, rule) in rules.iter().enumerate() {
            for &(index, place) in &places {
                let is_connect = rule.figure == RuleFigure::Connect;
                let other = rule.figure == RuleFigure::Delay && place == Part::ServerConnect
                    || is_connect && place == Part::Server;
                if !self.is_about(&rule.part, place) || other {
                    continue;
                }
                self.matched[number] = true;
                let known = old
                    .iter()
                    .position(|track| (track.rule, track.part) == (number, place));
                let mut track = known.map_or_else(
                    || Track {
                        rule: number,
                        part: place,
                        index,
                        window: Histogram::default(),
                        whole: Histogram::default(),
                        counted: (0, 0),
                        recent: VecDeque::new(),
                        evaluations: 0,
                        within: 0,
                        exceeded: false,
                        value: None,
                        limit: None,
                        growth: Growth::default(),
                        read: false,
                    },
                    |known| old.swap_remove(known),
                );
                track.index = index;
                self.tracks.push(track);
            }
        }
        for track in old.into_iter().filter(|track| track.exceeded) {
            self.record(&track, Sla::None);
        }
        self.least = self.hops.windows(2).map(|_| None).collect();
        self.excess = vec![None; self.least.len()];
    }

    fn is_about(&self, part: &PartPattern, place: Part) -> bool {
        let is_called = |hop: u8, name: &str| match self.names.get(&hop) {
            Some(known) if !known.is_empty() => known == name,
            _ => *name == format!("hop {hop}"),
        };
        match (part, place) {
            (PartPattern::Total, Part::Total)
            | (PartPattern::Server, Part::Server | Part::ServerConnect)
            | (PartPattern::Host(None), Part::Host(_))
            | (PartPattern::Behind(None), Part::Behind(_))
            | (PartPattern::Connect(None), Part::Connect { .. })
            | (PartPattern::Segment(None), Part::Segment { .. }) => true,
            (PartPattern::Host(Some(name)), Part::Host(hop))
            | (PartPattern::Behind(Some(name)), Part::Behind(hop)) => is_called(hop, name),
            (PartPattern::Segment(Some((near, far))), Part::Segment { from, to })
            | (PartPattern::Connect(Some((near, far))), Part::Connect { from, to }) => {
                is_called(from, near) && is_called(to, far)
            }
            _ => false,
        }
    }

    /// Takes in a block that came back on the path of these names.
    pub fn block(&mut self, names: &VecMap<u8, String>, trip: &Trip, parts: &Parts) {
        self.latest = (trip.home.ingress, trip.sequence);
        let hops = parts.hosts.iter().map(|host| host.hop);
        let same = hops.clone().eq(self.hops.iter().copied()) && self.names == *names;
        let beyond = parts.beyond.is_some();
        if !same || beyond && !self.ends[0] {
            self.ends[0] = beyond || same && self.ends[0];
            self.hops = hops.collect();
            self.names.clone_from(names);
            self.bind();
        }
        for index in 0..self.least.len() {
            self.look_at_excess(index, trip, parts);
        }
        for index in 0..self.tracks.len() {
            let track = &self.tracks[index];
            let rule = &self.rules[track.rule];
            if rule.figure == RuleFigure::Retransmits {
                self.count_retransmits(index, trip);
                continue;
            }
            if let Some(value) = self.delay(rule.figure, track, parts) {
                self.take(index, value);
            }
        }
    }

    /// Takes in a delay of the server behind an exit: `part` is [`Part::Server`] for an answer,
    /// [`Part::ServerConnect`] for a connect. Events are dated by the latest block.
    pub fn server(&mut self, part: Part, value: SignedNanos) {
        let end = if part == Part::Server { 1 } else { 2 };
        if !std::mem::replace(&mut self.ends[end], true) {
            self.bind();
        }
        for index in 0..self.tracks.len() {
            let track = &self.tracks[index];
            if track.part == part && self.rules[track.rule].figure.is_delay() {
                self.take(index, value);
            }
        }
    }

    /// Takes in a delay of the part that a track is about.
    fn take(&mut self, index: usize, value: SignedNanos) {
        let rule = &self.rules[self.tracks[index].rule];
        let Some(statistic) = rule.statistic else {
            return self.evaluate(index, value.0 as f64);
        };
        let over = u64::from(rule.over);
        let track = &mut self.tracks[index];
        track.window.record(value);
        track.whole.record(value);
        if track.window.count() >= over {
            let window = std::mem::take(&mut track.window);
            if let Some(value) = statistic.of(&window) {
                self.evaluate(index, value);
            }
        }
    }

    /// The delay of a part that a block shows.
    fn delay(&self, figure: RuleFigure, track: &Track, parts: &Parts) -> Option<SignedNanos> {
        match track.part {
            Part::Total => parts.total.filter(|_| figure == RuleFigure::RoundTrip),
            Part::Segment { .. } => {
                let segment = parts.segments.get(track.index)?;
                let excess = self.excess.get(track.index).copied().flatten();
                match figure {
                    RuleFigure::RoundTrip => segment.round_trip,
                    RuleFigure::Network => segment.network,
                    RuleFigure::ForwardExcess => excess.map(|excess| SignedNanos(excess[0])),
                    RuleFigure::ReturnExcess => excess.map(|excess| SignedNanos(excess[1])),
                    _ => None,
                }
            }
            Part::Host(_) => match figure {
                RuleFigure::Residence => parts.hosts.get(track.index)?.residence(),
                RuleFigure::WakeUp => {
                    let host = parts.hosts.get(track.index)?;
                    let late = [host.forward_wake_up, host.return_wake_up];
                    late.into_iter().flatten().reduce(|one, other| one + other)
                }
                _ => None,
            },
            Part::Connect { .. } => parts.segments.get(track.index)?.connect,
            Part::Behind(_) => parts.beyond,
            // These come apart from the blocks.
            Part::Server | Part::ServerConnect => None,
        }
    }

    /// Adds a block to a rule of retransmissions; nothing before a node has reported any reading.
    fn count_retransmits(&mut self, index: usize, trip: &Trip) {
        let track = &mut self.tracks[index];
        let Part::Segment { from, to } = track.part else {
            return;
        };
        let own = trip.retransmits.iter().filter(|read| match read.direction {
            Direction::Forward => read.hop == from,
            Direction::Return => read.hop == to,
        });
        let counts: Vec<i64> = own.map(|read| i64::from(read.count)).collect();
        track.read |= !counts.is_empty();
        if !track.read {
            return;
        }
        let over = u64::from(self.rules[track.rule].over);
        track.window.record(SignedNanos(counts.iter().sum()));
        if track.window.count() >= over {
            let window = std::mem::take(&mut track.window);
            self.evaluate(index, window.sum() as f64);
        }
    }

    /// One-way delays above their least. The clocks' offset is in all of them alike; a rate that
    /// differs adds 0.4 ms at 20 ppm over the longest span.
    fn look_at_excess(&mut self, index: usize, trip: &Trip, parts: &Parts) {
        self.excess[index] = None;
        let Some(segment) = parts.segments.get(index) else {
            return;
        };
        let end = |hop| {
            let hop_stamp = trip
                .hop_stamps
                .iter()
                .find(|hop_stamp| hop_stamp.hop == hop);
            hop_stamp.map(|hop_stamp| (hop_stamp.node, hop_stamp.generation))
        };
        let ends = (end(segment.from_hop), end(segment.to_hop));
        let (Some(near), Some(far)) = ends else {
            return;
        };
        let (Some(forward), Some(back)) = (segment.forward, segment.back) else {
            return;
        };
        let now = [forward.0, back.0];
        let ends = [near, far];
        let fresh = || Least {
            ends,
            since: trip.at,
            blocks: 0,
            last: now,
            this: now,
        };
        let least = self.least[index].get_or_insert_with(fresh);
        if least.ends != ends {
            *least = fresh();
        }
        least.blocks = least.blocks.saturating_add(1);
        if least.blocks > EXCESS_BLOCKS && trip.at.since(least.since) >= EXCESS_SPAN {
            (least.last, least.this) = (least.this, now);
            (least.since, least.blocks) = (trip.at, 1);
        }
        let mut excess = [0; 2];
        for way in 0..2 {
            least.this[way] = least.this[way].min(now[way]);
            excess[way] = now[way].saturating_sub(least.this[way].min(least.last[way]));
        }
        self.excess[index] = Some(excess);
    }

    /// Returns `true` if a rule cannot be decided without baselines and increases.
    pub fn needs_growth(&self) -> bool {
        self.needs_growth
    }

    /// Returns `true` if it is time to ask the model for them.
    pub fn wants_growth(&self, at: MonoTime) -> bool {
        let due = |then| at.since(then) >= GROWTH_EVERY;
        self.needs_growth && self.grown.map_or(true, due)
    }

    /// Takes in each part's growth, as the model knows it.
    pub fn grow(&mut self, at: MonoTime, growth: &VecMap<Part, Growth>) {
        self.grown = Some(at);
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            track.growth = growth.get(&track.part).copied().unwrap_or_default();
            if self.rules[track.rule].figure == RuleFigure::Increase {
                if let Some(increase) = track.growth.increase {
                    self.evaluate(index, increase.0 as f64);
                }
            }
        }
    }

    /// Feeds the loss rules: how many blocks are decided, and how many of those were lost.
    pub fn counts(&mut self, settled: u64, lost: u64) {
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            let rule = &self.rules[track.rule];
            let (settled_before, lost_before) = track.counted;
            let blocks = settled.saturating_sub(settled_before);
            if rule.figure == RuleFigure::Loss && blocks >= u64::from(rule.over) {
                track.counted = (settled, lost);
                let lost = lost.saturating_sub(lost_before);
                self.evaluate(index, lost as f64 / blocks as f64);
            }
        }
    }

    /// Ends the run: the whole run decides the rules that no window decided. `planned`: the run had
    /// a planned end.
    pub fn finish(&mut self, planned: bool, sent: u64, lost: u64) {
        for index in 0..self.tracks.len() {
            let track = &self.tracks[index];
            let rule = &self.rules[track.rule];
            let whole = match rule.statistic {
                Some(statistic) => statistic.of(&track.whole),
                None if rule.figure == RuleFigure::Loss && sent > 0 => {
                    Some(lost as f64 / sent as f64)
                }
                // Of a run without a whole window, what there is.
                None if rule.figure == RuleFigure::Retransmits && track.evaluations == 0 => {
                    track.read.then(|| track.window.sum() as f64)
                }
                None => None,
            };
            let decides = track.evaluations < u64::from(rule.of) || planned && rule.of == 1;
            let limit = self.limit(track, rule.limit);
            let (Some(value), Some(limit), true) = (whole, limit, decides) else {
                continue;
            };
            let track = &mut self.tracks[index];
            (track.value, track.limit) = (Some(value), Some(limit));
            track.recent.clear();
            track.recent.push_back((value, value > limit));
            self.change(index, value > limit);
        }
    }

    fn limit(&self, track: &Track, limit: Limit) -> Option<f64> {
        match limit {
            Limit::Absolute(amount) => Some(amount.number()),
            Limit::Times(times) => {
                let statistic = self.rules[track.rule].statistic;
                let [middle, upper] = track.growth.baselines;
                let upper = upper.filter(|_| statistic.is_some_and(Statistic::is_upper));
                // A baseline of nothing has no multiple.
                let baseline = upper.or(middle).filter(|baseline| baseline.0 > 0)?;
                Some(baseline.0 as f64 * times)
            }
        }
    }

    fn evaluate(&mut self, index: usize, value: f64) {
        let track = &self.tracks[index];
        let rule = &self.rules[track.rule];
        let Some(limit) = self.limit(track, rule.limit) else {
            return;
        };
        let below = rule.clear.below.and_then(|below| self.limit(track, below));
        let (hits, of, after) = (rule.hits, rule.of, rule.clear.after);
        let track = &mut self.tracks[index];
        (track.value, track.limit) = (Some(value), Some(limit));
        track.evaluations += 1;
        track.recent.push_back((value, value > limit));
        while track.recent.len() > of as usize {
            track.recent.pop_front();
        }
        let above = track.recent.iter().filter(|(_, above)| *above).count();
        let holds = above >= hits as usize;
        let is_within = value <= below.unwrap_or(limit).min(limit);
        track.within = if is_within { track.within + 1 } else { 0 };
        let exceeded = match (track.exceeded, after, below) {
            (false, ..) => holds,
            (true, None, None) => holds,
            (true, after, _) => track.within < after.unwrap_or(1),
        };
        if track.exceeded && !exceeded && holds {
            // Its cause is over: the next change needs as many evaluations as the first.
            track.recent.clear();
        }
        self.change(index, exceeded);
    }

    fn change(&mut self, index: usize, exceeded: bool) {
        let track = &mut self.tracks[index];
        if track.exceeded == exceeded {
            return;
        }
        track.exceeded = exceeded;
        track.within = 0;
        let severity = self.rules[track.rule].severity;
        let track = track.clone();
        self.record(&track, if exceeded { severity } else { Sla::Ok });
    }

    fn record(&mut self, track: &Track, state: Sla) {
        let (at, sequence) = self.latest;
        if self.events.len() == EVENTS {
            self.events.pop_front();
            self.forgotten += 1;
        }
        self.fresh += 1;
        let now = LimitState {
            state,
            ..self.limit_state(track)
        };
        self.events.push_back(RuleEvent { at, sequence, now });
    }

    /// The events since this was last called, and how many before them are no longer kept.
    pub fn fresh_events(&mut self) -> (Vec<RuleEvent>, usize) {
        let fresh = std::mem::take(&mut self.fresh);
        let known = self.events.len().saturating_sub(fresh);
        let events: Vec<_> = self.events.iter().skip(known).cloned().collect();
        let gone = fresh - events.len();
        (events, gone)
    }

    /// The events, oldest first, and how many older ones were dropped.
    pub fn events(&self) -> (Vec<RuleEvent>, u64) {
        (self.events.iter().cloned().collect(), self.forgotten)
    }

    /// Returns the state of a part over all its limits.
    pub fn state(&self, place: Part) -> Sla {
        let own = self.tracks.iter().filter(|track| track.part == place);
        own.map(|track| self.track_state(track))
            .max()
            .unwrap_or_default()
    }

    /// The worst of all parts.
    pub fn worst(&self) -> Sla {
        let states = self.tracks.iter().map(|track| self.track_state(track));
        states.max().unwrap_or_default()
    }

    fn track_state(&self, track: &Track) -> Sla {
        if track.exceeded {
            self.rules[track.rule].severity
        } else {
            Sla::Ok
        }
    }

    /// Returns the state of each rule for each part.
    pub fn limits(&self) -> Vec<LimitState> {
        let states = self.tracks.iter().map(|track| self.limit_state(track));
        states.collect()
    }

    fn limit_state(&self, track: &Track) -> LimitState {
        let rule = &self.rules[track.rule];
        // Of a baseline that has moved since, the limit that decided.
        let limit = track.limit.or_else(|| self.limit(track, rule.limit));
        LimitState {
            part: track.part,
            line: rule.line,
            figure: rule.figure,
            statistic: rule.statistic,
            severity: rule.severity,
            limit: limit.map(|limit| rule.amount(limit)),
            value: track.value.map(|value| rule.amount(value)),
            state: self.track_state(track),
        }
    }

    /// Rules that no part of the path has matched so far.
    pub fn unmatched(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.rules.iter().zip(&self.matched);
        rules
            .filter(|(_, matched)| !**matched)
            .map(|(rule, _)| rule)
    }
}

impl Rule {
    fn amount(&self, value: f64) -> Amount {
        match self.figure {
            RuleFigure::Loss => Amount::Share(value),
            RuleFigure::Retransmits => Amount::Count(value),
            _ => Amount::Span(SignedNanos(value as i64)),
        }
    }
}

impl Statistic {
    fn of(self, values: &Histogram) -> Option<f64> {
        let quantile = |share| values.quantile(share).map(|value| value.0 as f64);
        match self {
            Self::Min => values.min().map(|value| value.0 as f64),
            Self::Mean => (values.count() > 0).then(|| values.mean_ns()),
            Self::P50 => quantile(0.50),
            Self::P90 => quantile(0.90),
            Self::P95 => quantile(0.95),
            Self::P99 => quantile(0.99),
            Self::Max => values.summary().map(|summary| summary.max.0 as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::annotation::Classes;
    use crate::measure::tests::samples::{home, hop_stamp, trip};
    use crate::measure::{HopStamp, HostPart, Retransmits, SegmentPart, StampDirection};

    /// A path A, B, C without offset: residences of 0.1 ms, round trips as given, half of them each
    /// way.
    struct Bench {
        watch: Watch,
        names: VecMap<u8, String>,
        sequence: u64,
        generation: u8,
        /// Of the next blocks: connect of B to C, behind C, answer and connect of the server.
        ends: [Option<f64>; 4],
        resent: Vec<Retransmits>,
    }

    fn ms(span: f64) -> SignedNanos {
        SignedNanos((span * 1e6) as i64)
    }

    impl Bench {
        fn new(rules: &str) -> Self {
            let names = [(0, "A"), (1, "B"), (2, "C")];
            let names = names.map(|(hop, name)| (hop, name.to_owned()));
            Self {
                watch: Watch::new(parse(rules).unwrap().into()),
                names: names.into(),
                sequence: 0,
                generation: 0,
                ends: [None; 4],
                resent: Vec::new(),
            }
        }

        /// A block each 100 ms; how long A -> B and B -> C take forward and back, in ms.
        fn block(&mut self, ways: [(f64, f64); 2]) -> Vec<String> {
            let at = self.sequence * 100_000_000;
            let wall = |offset: i64| WallTime(1_000_000_000_000 + at) + SignedNanos(offset);
            let at_hop = |hop, direction| hop_stamp(hop, direction, wall(0).0, wall(100_000).0);
            let turn = HopStamp {
                generation: self.generation,
                ..at_hop(2, StampDirection::Turn)
            };
            let hop_stamps = vec![
                at_hop(0, StampDirection::Forward),
                at_hop(1, StampDirection::Forward),
                turn,
                at_hop(1, StampDirection::Return),
            ];
            let total: f64 = ways.iter().map(|way| way.0 + way.1).sum();
            let trip = Trip {
                sequence: self.sequence,
                at: MonoTime(at),
                retransmits: std::mem::take(&mut self.resent),
                ..trip(hop_stamps, home(wall(ms(total).0).0))
            };
            let host = |hop: u8| HostPart {
                hop,
                node: NodeId(u64::from(hop)),
                forward_residence: Some(ms(0.1)),
                return_residence: (hop == 1).then(|| ms(0.1)),
                forward_wake_up: (hop > 0).then(|| ms(0.2)),
                return_wake_up: (hop == 1).then(|| ms(0.2)),
                own_wake_ups: [SignedNanos::ZERO; 2],
            };
            let segment = |(from_hop, (forward, back)): (u8, (f64, f64))| SegmentPart {
                from_hop,
                to_hop: from_hop + 1,
                round_trip: Some(ms(forward) + ms(back)),
                network: (from_hop > 0).then(|| ms(forward) + ms(back) - ms(0.4)),
                forward: Some(ms(forward)),
                back: Some(ms(back)),
                wake_ups: None,
                connect: self.ends[0].filter(|_| from_hop == 1).map(ms),
            };
            let parts = Parts {
                total: Some(ms(total) + ms(0.4)),
                hosts: (0..3).map(host).collect(),
                segments: (0..).zip(ways).map(segment).collect(),
                beyond: self.ends[1].map(ms),
                ..Parts::default()
            };
            self.sequence += 1;
            self.watch.block(&self.names, &trip, &parts);
            for (end, part) in [(2, Part::Server), (3, Part::ServerConnect)] {
                if let Some(delay) = self.ends[end] {
                    self.watch.server(part, ms(delay));
                }
            }
            self.messages()
        }

        /// B -> C takes so many milliseconds.
        fn far(&mut self, span: f64) -> Vec<String> {
            self.block([(0.5, 0.5), (span / 2.0, span / 2.0)])
        }

        fn messages(&mut self) -> Vec<String> {
            let events = self.watch.fresh_events().0.into_iter();
            let messages = events.map(|event| {
                let name = |hop| self.names.get(&hop).map_or("?", String::as_str);
                let place = event.now.part.name(&|hop| name(hop).to_owned(), Some(2));
                format!("{place} {event}")
            });
            messages.collect()
        }
    }

    #[test]
    fn a_rule_turns_at_the_block_that_fulfils_it_and_back_when_it_no_longer_holds() {
        let mut bench = Bench::new("segment B->C round_trip > 5ms for 3 of 5 critical");
        for span in [5.0, 5.1, 5.1, 5.0, 4.0, 4.0] {
            assert!(bench.far(span).is_empty(), "{span} ms");
        }
        assert!(bench.far(6.0).is_empty());
        assert!(bench.far(6.0).is_empty());
        assert_eq!(
            bench.far(7.0),
            ["B -> C critical, round_trip 7 ms, limit 5 ms (line 1)"]
        );
        assert_eq!(bench.watch.worst(), Sla::Critical);
        let (from, to) = (1, 2);
        assert_eq!(bench.watch.state(Part::Segment { from, to }), Sla::Critical);
        assert_eq!(
            bench.watch.state(Part::Segment { from: 0, to: 1 }),
            Sla::None
        );
        assert!(bench.far(1.0).is_empty(), "3 of 5 still");
        assert!(bench.far(1.0).is_empty(), "3 of 5 still");
        assert_eq!(
            bench.far(1.0),
            ["B -> C ok, round_trip 1 ms, limit 5 ms (line 1)"]
        );
        assert_eq!(bench.watch.worst(), Sla::Ok);
        let (events, forgotten) = bench.watch.events();
        assert_eq!((events.len(), forgotten), (2, 0));
        assert_eq!(events[0].sequence, 8);
    }

    #[test]
    fn hysteresis_keeps_a_rule_turned_until_it_was_within_for_long_enough() {
        let mut bench = Bench::new("segment * round_trip > 5ms clear 3 below 3ms");
        assert_eq!(bench.far(6.0).len(), 1);
        for span in [4.0, 2.0, 2.0, 4.0, 2.0, 2.0] {
            assert!(bench.far(span).is_empty(), "{span} ms");
        }
        assert_eq!(bench.far(3.0).len(), 1);
        assert_eq!(bench.watch.worst(), Sla::Ok);
        let mut bench = Bench::new("segment * round_trip > 5ms for 2 of 4 clear 2");
        bench.far(6.0);
        assert_eq!(bench.far(6.0).len(), 1);
        assert!(bench.far(1.0).is_empty());
        assert_eq!(bench.far(1.0).len(), 1);
        assert!(bench.far(6.0).is_empty(), "it takes two again");
    }

    #[test]
    fn statistics_are_those_of_windows_of_blocks() {
        let mut bench = Bench::new(
            "segment B->C round_trip p90 > 5ms over 10\nsegment B->C round_trip max > \
                 5ms over 10 critical",
        );
        // One in ten is beyond: the p90 is not, the greatest is.
        for block in 0..9 {
            assert!(bench.far(if block == 4 { 9.0 } else { 1.0 }).is_empty());
        }
        assert_eq!(
            bench.far(1.0),
            ["B -> C critical, round_trip max 9 ms, limit 5 ms (line 2)"]
        );
        for _ in 0..9 {
            assert!(bench.far(1.0).is_empty());
        }
        assert_eq!(bench.far(1.0).len(), 1);
    }

    #[test]
    fn connects_what_lies_behind_and_the_server_have_limits_once_they_are_seen() {
        let mut bench = Bench::new(
            "connect B->C delay > 10ms\nbehind * delay > 50ms\nserver delay > 2x\nconnect A->B \
             delay > 1ms\nserver connect > 6ms",
        );
        assert_eq!(bench.far(1.0), [""; 0]);
        let lines = |watch: &Watch| watch.unmatched().map(|rule| rule.line).collect::<Vec<_>>();
        assert_eq!(lines(&bench.watch), [Some(2), Some(3), Some(5)]);
        bench.ends = [Some(11.0), Some(51.0), Some(9.0), Some(7.0)];
        assert_eq!(
            bench.far(1.0),
            [
                "connect B -> C warning, delay 11 ms, limit 10 ms (line 1)",
                "behind C warning, delay 51 ms, limit 50 ms (line 2)",
                "connect C -> server warning, connect 7 ms, limit 6 ms (line 5)"
            ]
        );
        assert_eq!(lines(&bench.watch), []);
        let growth = Growth {
            baselines: [Some(ms(4.0)); 2],
            increase: None,
        };
        let growth = [(Part::Server, growth)].into_iter().collect();
        bench.watch.grow(MonoTime(0), &growth);
        let server = ["C -> server warning, delay 9 ms, limit 8 ms (line 3)"];
        assert_eq!(bench.far(1.0), server);
        // A block that did not wait does not show the connect, and what was seen stays a part.
        bench.ends = [None; 4];
        assert_eq!(bench.far(1.0), [""; 0]);
        assert_eq!(lines(&bench.watch), []);
    }

    #[test]
    fn retransmissions_are_counted_per_window_once_a_node_reads_them() {
        let mut bench = Bench::new("segment B->C retransmits > 3 over 4");
        let read = |hop, direction, count| Retransmits {
            hop,
            direction,
            count,
            span: Nanos::ZERO,
        };
        for _ in 0..8 {
            assert_eq!(bench.far(1.0), [""; 0]);
        }
        assert_eq!(bench.watch.limits()[0].value, None, "no node reads them");
        for block in 0..4 {
            // B sends to C, and C back to B; A's own are another segment's.
            bench.resent = vec![
                read(1, Direction::Forward, u32::from(block == 0) * 3),
                read(2, Direction::Return, u32::from(block == 2)),
                read(0, Direction::Forward, 9),
            ];
            let expected = match block {
                3 => vec!["B -> C warning, retransmits 4, limit 3 (line 1)"],
                _ => vec![],
            };
            assert_eq!(bench.far(1.0), expected, "block {block}");
        }
    }

    #[test]
    fn hosts_and_their_wake_ups_and_the_total_have_limits_too() {
        let mut bench = Bench::new(
            "host * residence > 150us\nhost C wake_up > 199us\ntotal round_trip > 3ms\nsegment \
                 B->C network > 1.7ms",
        );
        let messages = bench.far(2.0);
        assert_eq!(
            messages,
            [
                "B warning, residence 200 us, limit 150 us (line 1)",
                "C warning, wake_up 200 us, limit 199 us (line 2)",
                "total warning, round_trip 3.4 ms, limit 3 ms (line 3)"
            ]
        );
        // 2.2 ms less 0.2 ms at each end.
        let messages = bench.far(2.2);
        assert_eq!(
            messages,
            ["B -> C warning, network 1.8 ms, limit 1.7 ms (line 4)"]
        );
        assert!(bench.watch.unmatched().next().is_none());
    }

    #[test]
    fn excess_is_reported_by_direction_and_begins_anew_with_another_clock() {
        let mut bench = Bench::new("segment * forward_excess > 2ms\nsegment * return_excess > 2ms");
        for _ in 0..5 {
            assert!(bench.block([(0.5, 0.5), (1.0, 1.0)]).is_empty());
        }
        assert_eq!(
            bench.block([(0.5, 0.5), (4.0, 1.0)]),
            ["B -> C warning, forward_excess 3 ms, limit 2 ms (line 1)"]
        );
        assert_eq!(bench.block([(0.5, 0.5), (1.0, 1.0)]).len(), 1);
        // C's clock is set: an hour of offset is no delay.
        bench.generation = 1;
        assert!(bench.block([(0.5, 0.5), (3.6e6, -3.6e6)]).is_empty());
        // A rise that lasts is the new normal after two spans of 10 s.
        assert_eq!(bench.block([(4.5, 0.5), (3.6e6, -3.6e6)]).len(), 1);
        let mut messages = Vec::new();
        for _ in 0..300 {
            messages.extend(bench.block([(4.5, 0.5), (3.6e6, -3.6e6)]));
        }
        assert_eq!(
            messages,
            ["A -> B ok, forward_excess 0 ns, limit 2 ms (line 1)"]
        );
    }

    #[test]
    fn multiples_wait_for_a_baseline_and_increases_come_from_the_model() {
        let mut bench = Bench::new(
            "segment * round_trip > 2x\nsegment B->C increase > 3ms\nhost C residence p95 > 3x \
                 over 1",
        );
        assert!(bench.far(100.0).is_empty(), "there is no baseline");
        assert!(bench.watch.wants_growth(MonoTime(0)));
        let growth = |baselines: [Option<SignedNanos>; 2], increase| Growth {
            baselines,
            increase,
        };
        let far = Part::Segment { from: 1, to: 2 };
        let both = [Some(ms(0.03)), Some(ms(0.02))];
        bench.watch.grow(
            MonoTime(5),
            &VecMap::from([
                (far, growth([Some(ms(1.0)), Some(ms(9.0))], Some(ms(2.0)))),
                (Part::Host(2), growth(both, None)),
            ]),
        );
        assert!(!bench.watch.wants_growth(MonoTime(999_999_999)));
        assert!(bench.watch.wants_growth(MonoTime(1_000_000_005)));
        assert_eq!(
            bench.far(2.1),
            [
                "B -> C warning, round_trip 2.1 ms, limit 2 ms (line 1)",
                "C warning, residence p95 100 us, limit 60 us (line 3)"
            ]
        );
        let grown = growth([Some(ms(1.0)), None], Some(ms(4.0)));
        bench.watch.grow(MonoTime(6), &VecMap::from([(far, grown)]));
        assert_eq!(
            bench.messages(),
            ["B -> C warning, increase 4 ms, limit 3 ms (line 2)"]
        );
    }

    #[test]
    fn loss_is_a_share_of_the_blocks_decided_on_since_the_last_look() {
        let mut bench = Bench::new("total loss > 10% over 10");
        bench.watch.counts(5, 5);
        assert!(bench.messages().is_empty(), "too few blocks");
        bench.watch.counts(10, 1);
        assert!(bench.messages().is_empty());
        bench.watch.counts(20, 3);
        assert_eq!(
            bench.messages(),
            ["total warning, loss 20 %, limit 10 % (line 1)"]
        );
        bench.watch.counts(45, 3);
        assert_eq!(bench.messages().len(), 1);
    }

    #[test]
    fn at_the_end_the_whole_run_decides_what_its_windows_did_not() {
        let rules = "segment B->C round_trip p90 > 5ms over 4\nsegment B->C round_trip max > 8ms \
             over 4 for 2 of 3\ntotal loss > 1%";
        // Three windows; the last is within, the whole run is not.
        let run = |planned| {
            let mut bench = Bench::new(rules);
            for span in [6.0, 6.0, 6.0, 6.0, 7.0, 7.0, 9.0, 7.0, 1.0, 1.0, 1.0, 1.0] {
                bench.far(span);
            }
            bench.watch.finish(planned, 12, 0);
            bench.watch.limits()
        };
        let states = |limits: Vec<LimitState>| limits.iter().map(|l| l.state).collect::<Vec<_>>();
        assert_eq!(states(run(true)), [Sla::Warning, Sla::Ok, Sla::Ok]);
        assert_eq!(states(run(false)), [Sla::Ok, Sla::Ok, Sla::Ok]);
        // One window of the three that `for` looks at: the whole run stands for them.
        let mut bench = Bench::new(rules);
        for span in [1.0, 9.0, 1.0, 1.0, 1.0] {
            bench.far(span);
        }
        bench.watch.finish(false, 100, 2);
        assert_eq!(
            bench.messages(),
            [
                "B -> C warning, round_trip max 9 ms, limit 8 ms (line 2)",
                "total warning, loss 2 %, limit 1 % (line 3)"
            ]
        );
    }

    #[test]
    fn the_playbook_asks_more_of_more_nodes_the_further_it_is() {
        let mut bench = Bench::new(
            "segment B->C round_trip > 5ms ask load at C ask tcp at here \
             beyond 2x ask cpu at A beyond 20ms ask all at *\n\
             host B residence > 1s ask snmp at *",
        );
        bench.far(4.0);
        assert!(bench.watch.asks().is_empty());
        bench.far(6.0);
        let (load, tcp, cpu) = (Classes::LOAD, Classes::TCP, Classes::CPU);
        assert_eq!(
            bench.watch.asks(),
            VecMap::from([(1, tcp), (2, load.union(tcp))])
        );
        bench.far(11.0);
        assert_eq!(
            bench.watch.asks(),
            VecMap::from([(0, cpu), (1, tcp), (2, load.union(tcp))])
        );
        bench.far(21.0);
        let all: Classes = "all".parse().unwrap();
        assert_eq!(
            bench.watch.asks(),
            VecMap::from([(0, all), (1, all), (2, all)])
        );
        bench.far(5.0);
        assert!(bench.watch.asks().is_empty());
    }

    #[test]
    fn replaced_rules_keep_the_state_of_those_whose_text_is_the_same() {
        let kept = "segment B->C round_trip > 5ms for 2 of 3 ask load at *";
        let mut bench = Bench::new(&format!(
            "{kept}\ntotal round_trip > 1ms\nhost B residence > 1s"
        ));
        bench.far(6.0);
        assert_eq!(
            bench.far(6.0),
            ["B -> C warning, round_trip 6 ms, limit 5 ms (line 1)"]
        );
        let new = format!("host C residence > 1s\n\n{kept}\n{kept} # twice\ntotal loss > 1%");
        bench.watch.replace(parse(&new).unwrap().into());
        let gone = ["total no longer watched, round_trip 7.4 ms, limit 1 ms (line 2)"];
        assert_eq!(bench.messages(), gone);
        assert_eq!(bench.watch.worst(), Sla::Warning);
        assert!(!bench.watch.asks().is_empty());
        // One more is enough for the first, and one is too little for its twin.
        assert!(bench.far(6.0).is_empty());
        let twin = ["B -> C warning, round_trip 6 ms, limit 5 ms (line 4)"];
        assert_eq!(bench.far(6.0), twin);
        bench.far(1.0);
        let clear = bench.far(1.0);
        assert_eq!(clear.len(), 2, "{clear:?}");
        bench.watch.replace(parse("").unwrap().into());
        assert!(bench.watch.is_empty() && bench.watch.limits().is_empty());
        bench
            .watch
            .replace(parse("total round_trip > 1ms").unwrap().into());
        assert_eq!(bench.far(6.0).len(), 1);
    }

    #[test]
    fn a_part_that_goes_away_is_reported_and_its_requests_end() {
        let mut bench =
            Bench::new("segment B->C round_trip > 5ms ask load at *\nhost X residence > 1s");
        bench.far(6.0);
        assert!(!bench.watch.asks().is_empty());
        bench.names.insert(2, "D".into());
        assert_eq!(
            bench.far(6.0),
            ["B -> D no longer watched, round_trip 6 ms, limit 5 ms (line 1)"]
        );
        assert!(bench.watch.asks().is_empty());
        let unmatched: Vec<_> = bench.watch.unmatched().map(|rule| rule.line).collect();
        assert_eq!(unmatched, [Some(2)]);
    }

    #[test]
    fn events_are_bounded() {
        let mut bench = Bench::new("segment B->C round_trip > 5ms");
        for block in 0..300 {
            bench.far(if block % 2 == 0 { 6.0 } else { 1.0 });
        }
        let (events, forgotten) = bench.watch.events();
        assert_eq!((events.len(), forgotten), (EVENTS, 200));
        assert_eq!(events[EVENTS - 1].sequence, 299);
    }
}
