//! What the collector keeps: measurements in, the report out.

use crate::annotation::{Classes, NodeAnnotations};
use crate::collect::queue::{Measurement, Path};
use crate::collect::requests::AnnotationRequests;
use crate::collect::state_file::{self, StateFile};
use crate::collect::transitions::Transitions;
use crate::measure::sla::{Event, Place, Rule, Watch};
use crate::measure::timeline::{self, EventKind, Timeline};
use crate::measure::{self, why, Baseline, Direction, Model, Part, Parts, Record, Trip, TripError};
use crate::report::{place_name, Blocks, Broken, PathNode, PathReport, Report, State};
use crate::sys;
use crate::time::{MonoTime, Nanos, Now, WallTime};
use crate::vec_map::VecMap;
use crate::FULL;
use std::sync::Arc;

/// Notices kept word by word; a fault that repeats all night is counted beyond that.
const NOTICES: usize = 20;
/// A node's connects that are remembered, for their median: one may be slow for a reason of its own.
const CONNECTS: usize = 15;
/// A window of a run without end, unless another is given.
const WINDOW: Nanos = Nanos::from_millis(300_000);
/// How often changes are searched in a run without end.
const SEARCH: Nanos = Nanos::from_millis(1_000);
/// Slots of a timeline at most: as many as a plot has points.
const SLOTS: usize = 160;

/// An answer that was entered.
#[derive(Clone, Debug)]
pub struct Taken {
    /// As it came.
    pub trip: Trip,
    /// What its delay splits into.
    pub parts: Parts,
    /// Its block was answered before.
    pub duplicate: bool,
}

/// One run's books.
#[derive(Debug)]
pub struct RunState {
    /// A book for each place on a path that this node has had: one that takes both raw clients and frames is hop 0 for
    /// the ones and hop 1 or more for the others, and their figures do not mix.
    books: VecMap<u8, PathState>,
    baseline: Baseline,
    /// As of [`Model::new`].
    span: Option<Nanos>,
    rules: Arc<[Rule]>,
    /// Where the rules' questions go.
    requests: Option<Arc<AnnotationRequests>>,
    /// The path was broken when it was last looked at.
    broken: Option<Broken>,
    name: String,
    role: String,
    started: WallTime,
    windows: Windows,
    notices: Vec<String>,
    /// When each of them was heard of; `None` for remarks.
    noticed: Vec<Option<WallTime>>,
    more_notices: u64,
    malformed: u64,
}

#[derive(Debug)]
struct PathState {
    model: Model,
    names: VecMap<u8, String>,
    /// By hop, how long the latest connects onward took.
    connects: VecMap<u8, Vec<Nanos>>,
    path: PathReport,
    watch: Watch,
    turns: Transitions,
    /// What the rules ask now.
    asked: VecMap<u8, Classes>,
    /// The latest answer of each hop, and the first since it was asked for what it is asked now.
    annotations: VecMap<u8, NodeAnnotations>,
    first_facts: VecMap<u8, NodeAnnotations>,
    sessions: u64,
    /// Of the latest session.
    cookie: u64,
    measured: u64,
}

impl PathState {
    /// The median of a node's latest connects onward; `None` where it made none that it told of.
    fn connect(&self, hop: u8) -> Option<Nanos> {
        let mut latest = self.connects.get(&hop)?.to_vec();
        latest.sort_unstable();
        latest.get(latest.len() / 2).copied()
    }
}

/// The windows of a run.
#[derive(Debug)]
struct Windows {
    /// `None` for a run that is one window.
    length: Option<Nanos>,
    began: MonoTime,
    /// Those that ended.
    ended: u64,
    /// When changes were searched last.
    searched: MonoTime,
    file: Option<StateFile>,
    /// The records of a run without a file.
    memory: Arc<measure::State>,
    /// The run is compared with its own state, not with another baseline.
    follows: bool,
}

impl Windows {
    fn new() -> Self {
        let now = sys::clock::mono();
        Self {
            length: None,
            began: now,
            ended: 0,
            searched: now,
            file: None,
            memory: Arc::default(),
            follows: false,
        }
    }

    fn push(&mut self, key: &str, mut record: Record) -> Vec<(Part, measure::change::Event)> {
        if let Some(file) = &mut self.file {
            return file.push(key, record);
        }
        let state = Arc::make_mut(&mut self.memory);
        record.sequence = state.next_sequence();
        state.push(key, record)
    }

    fn state(&self) -> Arc<measure::State> {
        match &self.file {
            Some(file) => file.state(),
            None => Arc::clone(&self.memory),
        }
    }
}

fn describe_event(event: measure::change::Event) -> String {
    use measure::change::Event;
    match event {
        Event::Named => "its delay rose over earlier windows".to_owned(),
        Event::Further => "its delay rose further".to_owned(),
        Event::Cleared => "its delay is as before again".to_owned(),
        Event::Fell(by) => {
            let by = by.as_millis_f64().abs();
            format!("its delay fell by {by:.2} ms, which is the normal from now on")
        }
        Event::NewNormal => "its delay has been higher for 7 days: the new normal".to_owned(),
    }
}

impl RunState {
    /// An empty one, of the node `name`.
    pub fn new(name: &str, role: &str, started: WallTime, baseline: Baseline) -> Self {
        let mut run_state = Self {
            books: VecMap::new(),
            baseline,
            span: None,
            rules: Arc::new([]),
            requests: None,
            broken: None,
            name: name.into(),
            role: role.into(),
            started,
            windows: Windows::new(),
            notices: Vec::new(),
            noticed: Vec::new(),
            more_notices: 0,
            malformed: 0,
        };
        run_state.book(0);
        run_state
    }

    /// Keeps a record of each window, or of the run, in `file`, and compares with what it has.
    #[must_use]
    pub fn keeping(mut self, file: StateFile) -> Self {
        if self.baseline == Baseline::Run {
            self.set_baseline(file.state());
        }
        self.windows.file = Some(file);
        self
    }

    /// Cuts the run into windows of `length`.
    #[must_use]
    pub fn with_window(mut self, length: Nanos) -> Self {
        self.windows.length = Some(length);
        self
    }

    /// A run without end: blocks older than `span` are forgotten.
    #[must_use]
    pub fn without_end(mut self, span: Nanos) -> Self {
        self.span = Some(span);
        self.windows.length.get_or_insert(WINDOW);
        for path in self.books.values_mut() {
            path.model = Model::new(self.baseline.clone(), self.span, self.started);
        }
        self
    }

    /// Holds the parts of the path against these rules, and asks nodes through `asking` what the rules of the path that
    /// begins here say.
    #[must_use]
    pub fn watching(mut self, rules: Arc<[Rule]>, requests: &Arc<AnnotationRequests>) -> Self {
        self.rules = rules;
        self.requests = Some(Arc::clone(requests));
        for book in self.books.values_mut() {
            book.watch = Watch::new(Arc::clone(&self.rules));
        }
        self
    }

    fn book(&mut self, hop: u8) -> &mut PathState {
        let (baseline, name, rules) = (&self.baseline, &self.name, &self.rules);
        let (span, started) = (self.span, self.started);
        self.books.get_or_insert_with(hop, || PathState {
            model: Model::new(baseline.clone(), span, started),
            names: VecMap::from([(hop, name.clone())]),
            connects: VecMap::new(),
            path: PathReport::default(),
            watch: Watch::new(Arc::clone(rules)),
            turns: Transitions::default(),
            asked: VecMap::new(),
            annotations: VecMap::new(),
            first_facts: VecMap::new(),
            sessions: 0,
            cookie: 0,
            measured: 0,
        })
    }

    /// The book that the report is made of: the one with most blocks.
    fn main(&self) -> &PathState {
        let fullest = self.books.values().max_by_key(|book| book.measured);
        fullest.expect("hop 0 has a book from the start")
    }

    fn main_hop(&self) -> u8 {
        let fullest = self.books.iter().max_by_key(|(_, book)| book.measured);
        *fullest.expect("hop 0 has a book from the start").0
    }

    /// Enters a measurement; a trip's parts come back, for those who print a line for each.
    pub fn take(&mut self, measurement: Measurement) -> Option<Taken> {
        match measurement {
            Measurement::Trip(trip) => {
                let book = self.book(origin(&trip));
                let parts = book.model.record(&trip);
                book.measured += u64::from(parts.is_ok());
                if let (Ok(parts), false) = (&parts, book.watch.is_empty()) {
                    book.watch.block(&book.names, &trip, parts);
                    if book.watch.wants_growth(trip.at) {
                        book.watch.grow(trip.at, &book.model.growth(&book.names));
                    }
                    self.act(origin(&trip));
                }
                return self.taken(*trip, parts, false);
            }
            // Counted, and shown where every block is, but no delay of the path.
            Measurement::Duplicate(trip) => {
                let parts = trip.split();
                return self.taken(*trip, parts, true);
            }
            Measurement::Residence(hop, direction, residence) => {
                let book = self.book(hop);
                book.model.residence(hop, direction, residence);
                book.measured += u64::from(direction == Direction::Forward);
            }
            Measurement::BehindExit(hop, at, span) => self.book(hop).model.behind_exit(at, span),
            Measurement::Path(path) => self.learn(*path),
            Measurement::NodeAnnotations(hop, annotations) => {
                let book = self.book(hop);
                let first = &mut book.first_facts;
                first.get_or_insert_with(annotations.hop, || (*annotations).clone());
                book.annotations.insert(annotations.hop, *annotations);
            }
            Measurement::Notice(text) => self.notice(text),
        }
        None
    }

    /// Tells what turned, and asks what is to be asked from now on.
    fn act(&mut self, hop: u8) {
        let Some(book) = self.books.get_mut(&hop) else {
            return;
        };
        let (fresh, gone) = book.watch.fresh_events();
        if gone > 0 {
            log::warn!("sla: {gone} turns more, all at once");
        }
        fresh.into_iter().for_each(|event| book.turns.take(event));
        book.tell_turns();
        // Questions travel in blocks that begin here, on the path that has this node for hop 0: the rules of another path,
        // on which it is a relay, count its hops otherwise, and ask nobody.
        let Some(requests) = self.requests.as_ref().filter(|_| hop == 0) else {
            return;
        };
        // Only where something is to be asked, or was: the map is empty otherwise.
        let asks = book.watch.asks();
        if asks != book.asked {
            // What a node told an earlier time is no beginning for this one.
            let goes_on = |hop: &u8| book.asked.contains_key(hop) && asks.contains_key(hop);
            book.first_facts.retain(|hop, _| goes_on(hop));
            requests.set_by_rules(asks.clone());
            book.asked = asks;
        }
    }

    /// Tells what turned and could not be told before; called now and then, for there may be no further block.
    pub fn tick(&mut self) {
        self.books.values_mut().for_each(PathState::tell_turns);
        let now = sys::clock::mono();
        let Some(length) = self.windows.length else {
            return;
        };
        if self.span.is_some() && now.since(self.windows.searched) >= SEARCH {
            self.windows.searched = now;
            for book in self.books.values_mut() {
                book.model.watch_changes(&book.names);
            }
        }
        if now.since(self.windows.began) >= length {
            self.end_window(now);
        }
    }

    /// Ends the window that began last, and keeps its record.
    fn end_window(&mut self, now: MonoTime) {
        let lasted = now.since(self.windows.began);
        // A late end keeps the schedule, unless a whole window was missed.
        let length = self.windows.length.unwrap_or(lasted);
        let next = self.windows.began + length;
        self.windows.began = if now.since(next) < length { next } else { now };
        self.windows.ended += 1;
        let when = state_file::before(state_file::now(), lasted);
        for book in self.books.values_mut() {
            book.model.end_window();
            let key = book.model.path_key(&book.names);
            // The nominal length: what differs by milliseconds is no window of another length.
            let record = book.model.window_record(when, length);
            let (Some(key), Some(record)) = (key, record) else {
                continue;
            };
            let events = self.windows.push(&key, record);
            for (part, event) in events {
                let place = place_name(&book.names, part);
                log::info!("state: {place}: {}", describe_event(event));
            }
        }
        if self.windows.follows || self.baseline == Baseline::Run {
            self.set_baseline(self.windows.state());
        }
    }

    fn set_baseline(&mut self, state: Arc<measure::State>) {
        self.baseline = Baseline::Earlier(state);
        self.windows.follows = true;
        for book in self.books.values_mut() {
            book.model.set_baseline(self.baseline.clone());
        }
    }

    /// Keeps the run, or the window that had begun, at the end; a run without answers is not kept.
    fn keep(&mut self, blocks: Blocks) {
        if blocks.received == 0 {
            return;
        }
        let lasted = sys::clock::mono().since(self.windows.began);
        if self.windows.ended > 0 {
            let half = self.windows.length.unwrap_or_default().0 / 2;
            if lasted.0 >= half {
                self.end_window(sys::clock::mono());
            }
        }
        let is_run = self.span.is_none() || self.windows.ended == 0;
        let has_window = self.windows.ended > 0;
        let Some(file) = self.windows.file.as_mut().filter(|_| is_run) else {
            return;
        };
        let books = &self.books;
        let when = state_file::before(state_file::now(), lasted);
        let kept = file.update(|state| {
            for book in books.values().filter(|book| book.measured > 0) {
                book.model.add_to(state, &book.names);
                let key = book.model.path_key(&book.names);
                let record = book.model.window_record(when, lasted);
                if let (Some(key), Some(mut record), false) = (key, record, has_window) {
                    record.sequence = state.next_sequence();
                    state.keep(&key, record);
                }
            }
        });
        if kept.is_err() {
            self.remark("this run is not kept in --state: the log says why".to_owned());
        }
    }

    /// Takes in the counts of a run that goes on. Of blocks under way nobody knows yet whether they are lost: they belong
    /// to the window in which that turns out.
    pub fn counts(&mut self, blocks: Blocks) {
        let hop = self.main_hop();
        let book = self.book(hop);
        if !book.watch.is_empty() {
            let settled = blocks.received + blocks.lost;
            book.watch.counts(settled, blocks.lost);
            self.act(hop);
        }
        self.tick();
    }

    /// The run is over; `planned`: its end was known from the start.
    pub fn finish(&mut self, blocks: Blocks, planned: bool) {
        let hop = self.main_hop();
        let book = self.book(hop);
        if !book.watch.is_empty() {
            if book.watch.needs_growth() {
                let growth = book.model.growth(&book.names);
                book.watch.grow(sys::clock::mono(), &growth);
            }
            book.watch.finish(planned, blocks.sent, blocks.lost);
            self.act(hop);
        }
        for book in self.books.values_mut() {
            let rest = book.turns.rest();
            book.log(rest);
        }
        self.keep(blocks);
    }

    /// Says whether the path is broken.
    pub fn set_broken(&mut self, broken: Option<Broken>) {
        self.broken = broken;
    }

    /// As [`Report::state`].
    pub fn state(&self, blocks: Blocks) -> State {
        let broken = self.broken.as_ref().map(|broken| broken.state);
        State::of(broken, blocks.received, self.main().watch.worst())
    }

    fn taken(
        &mut self,
        trip: Trip,
        parts: Result<Parts, TripError>,
        duplicate: bool,
    ) -> Option<Taken> {
        match parts {
            Ok(parts) => Some(Taken {
                trip,
                parts,
                duplicate,
            }),
            Err(error) => {
                log::debug!("collect: block {}: {error}", trip.sequence);
                self.malformed += 1;
                None
            }
        }
    }

    /// Forgets all figures and notices; the path and its names stay known, and how parts stand to their limits.
    pub fn reset(&mut self, now: WallTime) {
        self.started = now;
        self.windows.began = sys::clock::mono();
        self.notices.clear();
        self.noticed.clear();
        (self.more_notices, self.malformed) = (0, 0);
        for book in self.books.values_mut() {
            book.model = Model::new(self.baseline.clone(), self.span, self.started);
            book.measured = 0;
        }
    }

    /// Adds a sentence to the report, on something that happened just now.
    pub fn notice(&mut self, text: String) {
        self.say(text, Some(sys::clock::read().wall));
    }

    /// Adds a sentence to the report that is on no moment of the run.
    pub fn remark(&mut self, text: String) {
        self.say(text, None);
    }

    fn say(&mut self, text: String, at: Option<WallTime>) {
        if self.notices.len() < NOTICES {
            self.notices.push(text);
            self.noticed.push(at);
        } else {
            self.more_notices += 1;
        }
    }

    fn learn(&mut self, path: Path) {
        let given: Vec<_> = path.nodes.iter().map(|node| node.name.clone()).collect();
        // Several nodes on one host have one name by default: the hop tells them apart.
        let mut nodes = path.nodes;
        for node in &mut nodes {
            let namesakes = given.iter().filter(|name| **name == node.name);
            if namesakes.count() > 1 || node.name.is_empty() {
                node.name = format!("{}#{}", node.name, node.hop);
            }
        }
        let book = self.book(path.hop);
        book.names = nodes
            .iter()
            .map(|node| (node.hop, node.name.clone()))
            .collect();
        for (hop, took) in nodes.iter().filter_map(|n| Some((n.hop, n.connect?))) {
            let latest = book.connects.get_or_insert_with(hop, Vec::new);
            latest.push(took);
            if latest.len() > CONNECTS {
                latest.remove(0);
            }
        }
        // What a node told of itself is not told of the one in its place now; nor of none.
        let id = |nodes: &[PathNode], hop| {
            let node = nodes.iter().find(|node| node.hop == hop);
            node.map(|node| node.id)
        };
        let stays = |hop: &u8| id(&book.path.nodes, *hop) == id(&nodes, *hop);
        book.annotations.retain(|hop, _| stays(hop));
        book.first_facts.retain(|hop, _| stays(hop));
        book.sessions += 1;
        book.cookie = path.cookie;
        book.path = PathReport {
            cookie: (book.sessions == 1).then_some(path.cookie),
            nodes,
        };
    }

    /// Names by hop, as far as the path is known.
    pub fn names(&self) -> &VecMap<u8, String> {
        &self.main().names
    }

    /// Names by hop on the path of `trip`.
    pub fn names_of(&self, trip: &Trip) -> &VecMap<u8, String> {
        let book = self.books.get(&origin(trip));
        book.map_or(self.names(), |book| &book.names)
    }

    /// The model of the path of `trip`.
    pub fn model_of(&self, trip: &Trip) -> &Model {
        let book = self.books.get(&origin(trip));
        &book.unwrap_or(self.main()).model
    }

    /// Identifier of the session of the path that the report is about; 0 where none is known.
    pub fn cookie(&self) -> u64 {
        self.main().cookie
    }

    /// Blocks that were measured here, in the place that the report is about.
    pub fn measured(&self) -> u64 {
        self.main().measured
    }

    /// The model, for `--state`.
    pub fn model(&self) -> &Model {
        &self.main().model
    }

    /// When the run began.
    pub fn started(&self) -> WallTime {
        self.started
    }

    /// Everything so far.
    pub fn report(&self, ended: WallTime, blocks: Blocks, dropped: u64) -> Report {
        let mut notices = self.notices.clone();
        if self.more_notices > 0 {
            notices.push(format!("and {} notices more", self.more_notices));
        }
        if self.malformed > 0 {
            notices.push(format!(
                "blocks that came back with stamps that make no path, left out: {}",
                self.malformed
            ));
        }
        let main = self.main();
        for (hop, book) in &self.books {
            if book.measured > 0 && !std::ptr::eq(book, main) {
                notices.push(format!(
                    "blocks measured in the place of hop {hop} on another path, not in these figures: {}",
                    book.measured
                ));
            }
        }
        if main.measured > 0 {
            let unmatched = main.watch.unmatched();
            notices.extend(
                unmatched.map(|rule| format!("no part of the path matches the rule: {rule}")),
            );
        }
        let now = sys::clock::read().now();
        let mut statistics = main.model.statistics(&main.names, now);
        statistics.sla = main.watch.worst();
        for segment in &mut statistics.segments {
            segment.sla = main.watch.state(Place::Segment {
                from: segment.from_hop,
                to: segment.to_hop,
            });
        }
        for host in &mut statistics.hosts {
            host.sla = main.watch.state(Place::Host(host.hop));
        }
        let annotations: Vec<_> = main.annotations.values().cloned().collect();
        let first_facts: Vec<_> = main.first_facts.values().cloned().collect();
        statistics.verdict.cause = why::cause(
            &statistics,
            &why::Told {
                latest: &annotations,
                first: &first_facts,
                name: &|hop| place_name(&main.names, Place::Host(hop)),
                connect: &|hop| main.connect(hop),
            },
        );
        let (events, forgotten) = main.watch.events();
        if forgotten > 0 {
            notices.push(format!("{forgotten} events before the first one shown"));
        }
        Report {
            started: self.started,
            ended,
            role: self.role.clone(),
            path: main.path.clone(),
            blocks,
            statistics,
            limits: main.watch.limits(),
            events,
            broken: self.broken.clone(),
            annotations,
            first_facts,
            timeline: None,
            dropped,
            notices,
        }
    }

    /// Everything so far as it is now, with what pictures need if there are to be some.
    pub fn look(&self, blocks: Blocks, dropped: u64, pictures: bool) -> Report {
        let now = sys::clock::read().now();
        let mut report = self.report(now.wall, blocks, dropped);
        if FULL && pictures {
            report.timeline = self.timeline(now);
        }
        report
    }

    /// The run over time, notices among its events; `None` where nothing was measured. What turned is in the report. `now`
    /// is both clocks, read together.
    pub fn timeline(&self, now: Now) -> Option<Timeline> {
        let mut timeline = self.main().model.timeline(SLOTS, now)?;
        let told = self.noticed.iter().zip(&self.notices);
        let told = told.filter_map(|(at, text)| {
            Some(timeline::Event {
                at: (*at)?,
                kind: EventKind::Notice(text.clone()),
            })
        });
        timeline.events.extend(told);
        timeline.events.sort_by_key(|event| event.at);
        Some(timeline)
    }
}

impl PathState {
    fn tell_turns(&mut self) {
        if self.turns.wait() {
            let due = self.turns.due(sys::clock::mono());
            self.log(due);
        }
    }

    fn log(&self, turns: Vec<(Event, u64)>) {
        for (event, more) in turns {
            let place = place_name(&self.names, event.now.place);
            let more = match more {
                0 => String::new(),
                1 => "; 1 more turn before".to_owned(),
                _ => format!("; {more} more turns before"),
            };
            log::warn!("sla: {place}: {event}{more}");
        }
    }
}

/// The hop from which a trip is looked at.
fn origin(trip: &Trip) -> u8 {
    trip.hop_stamps.first().map_or(0, |own| own.hop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{sla, Sla};
    use crate::time::{MonoTime, Nanos, SignedNanos};

    #[test]
    fn blocks_under_way_are_neither_lost_nor_answered_and_a_share_of_lost_ones_is_no_more_than_all()
    {
        let rules = sla::parse("total loss > 1% over 20 critical").unwrap();
        let mut run_state = RunState::new("A", "probe", WallTime(0), Baseline::Run)
            .watching(rules.into(), &Arc::default());
        let mut look = |sent, received, lost| {
            let blocks = Blocks {
                sent,
                received,
                lost,
                ..Blocks::default()
            };
            run_state.counts(blocks);
            run_state.report(WallTime(1), blocks, 0).limits[0].value
        };
        assert_eq!(look(40, 10, 0), None, "30 of them are under way");
        assert_eq!(look(41, 20, 0), Some(sla::Amount::Share(0.0)));
        // An outage: they come to be lost all at once.
        assert_eq!(look(140, 20, 0), Some(sla::Amount::Share(0.0)));
        assert_eq!(look(150, 20, 130), Some(sla::Amount::Share(1.0)));
    }

    #[test]
    fn what_a_node_saw_in_two_places_of_a_path_does_not_mix() {
        let mut run_state = RunState::new("B", "relay", WallTime(0), Baseline::Run);
        for (hop, blocks) in [(0, 2), (1, 5)] {
            for _ in 0..blocks {
                let residence = SignedNanos(1_000);
                run_state.take(Measurement::Residence(hop, Direction::Forward, residence));
            }
        }
        let report = run_state.report(WallTime(1), Blocks::default(), 0);
        let host = &report.statistics.hosts[0];
        assert_eq!((report.statistics.hosts.len(), host.hop), (1, 1));
        assert_eq!(host.forward_residence.map(|summary| summary.count), Some(5));
        assert_eq!(run_state.measured(), 5);
        assert!(
            report
                .notices
                .iter()
                .any(|n| n == "blocks measured in the place of hop 0 on another path, not in these figures: 2"),
            "{:?}",
            report.notices
        );
    }

    /// A block that the node at hop `own` sent to a reflector next to it, and had back after so many milliseconds.
    fn trip(own: u8, after_ms: u64) -> Measurement {
        use crate::measure::{HopStamp, NodeId, Return, StampDirection};
        let hop_stamp = |hop: u8, direction| HopStamp {
            node: NodeId(u64::from(hop)),
            hop,
            direction,
            generation: 0,
            stepped: false,
            waited: false,
            synchronised: false,
            held: Nanos::ZERO,
            arrival: None,
            ingress: WallTime(1_000_000_000),
            egress: WallTime(1_000_000_000),
        };
        Measurement::Trip(Box::new(Trip {
            sequence: 0,
            at: MonoTime(0),
            hop_stamps: vec![
                hop_stamp(own, StampDirection::Forward),
                hop_stamp(own + 1, StampDirection::Turn),
            ],
            home: Return {
                arrival: None,
                ingress: WallTime(1_000_000_000 + after_ms * 1_000_000),
                egress: None,
                generation: 0,
                held: Nanos::ZERO,
            },
            late: false,
            behind_exit: None,
            connection: 0,
            retransmits: Vec::new(),
        }))
    }

    #[test]
    fn what_a_path_asks_on_which_this_node_is_a_relay_takes_nothing_from_the_path_that_begins_here()
    {
        let rules = sla::parse("segment * round_trip > 5ms ask load at *").unwrap();
        let requests = Arc::<AnnotationRequests>::default();
        let mut run_state = RunState::new("B", "relay", WallTime(0), Baseline::Run)
            .watching(rules.into(), &requests);
        let here = VecMap::from([(0, Classes::LOAD), (1, Classes::LOAD)]);
        // The hop of this node, the round trip, and what is to be asked from then on.
        let steps = [
            (1, 9, VecMap::new()),
            (0, 9, here.clone()),
            (1, 1, here.clone()),
            (1, 9, here.clone()),
            (2, 9, here),
            (0, 1, VecMap::new()),
            (1, 1, VecMap::new()),
        ];
        for (step, (own, after_ms, asked)) in steps.into_iter().enumerate() {
            run_state.take(trip(own, after_ms));
            assert_eq!(requests.hops(), asked, "step {step}");
        }
        // Each path keeps its own limits all the same.
        let worst = |hop| run_state.books.get(&hop).map(|book| book.watch.worst());
        let (ok, warning) = (Some(Sla::Ok), Some(Sla::Warning));
        assert_eq!([worst(0), worst(1), worst(2)], [ok, ok, warning]);
    }

    #[test]
    fn nodes_of_one_name_are_told_apart_by_their_hop() {
        let mut run_state = RunState::new("vm", "source", WallTime(0), Baseline::Run);
        let node = |hop, name: &str| PathNode {
            hop,
            name: name.into(),
            ..Default::default()
        };
        let nodes = vec![node(0, "vm"), node(1, "B"), node(2, "vm")];
        run_state.take(Measurement::Path(Box::new(Path {
            cookie: 1,
            hop: 0,
            nodes,
        })));
        let names: Vec<_> = run_state.names().values().cloned().collect();
        assert_eq!(names, ["vm#0", "B", "vm#2"]);
    }

    #[test]
    fn of_a_nodes_connects_the_latest_count_and_of_those_the_median() {
        let mut run_state = RunState::new("A", "entry", WallTime(0), Baseline::Run);
        let mut connect = |took: Option<u64>| {
            let node = PathNode {
                hop: 1,
                connect: took.map(Nanos::from_millis),
                ..Default::default()
            };
            run_state.take(Measurement::Path(Box::new(Path {
                cookie: 1,
                hop: 0,
                nodes: vec![node],
            })));
            run_state.main().connect(1)
        };
        assert_eq!(connect(None), None);
        assert_eq!(connect(Some(8)), Some(Nanos::from_millis(8)));
        connect(Some(8));
        // One that was slow for a reason of its own.
        assert_eq!(connect(Some(1000)), Some(Nanos::from_millis(8)));
        connect(Some(2));
        assert_eq!(connect(Some(2)), Some(Nanos::from_millis(8)));
        for _ in 0..1000 {
            connect(Some(2));
        }
        assert_eq!(connect(Some(2)), Some(Nanos::from_millis(2)));
        assert_eq!(
            run_state.main().connects.get(&1).map(Vec::len),
            Some(CONNECTS)
        );
    }

    #[test]
    fn what_a_node_told_of_itself_goes_with_it() {
        let mut run_state = RunState::new("A", "source", WallTime(0), Baseline::Run);
        let mut told = |ids: &[u64], asks: bool| {
            let nodes = (0..).zip(ids);
            let nodes = nodes.map(|(hop, &id)| PathNode {
                hop,
                id,
                ..PathNode::default()
            });
            run_state.take(Measurement::Path(Box::new(Path {
                cookie: 1,
                hop: 0,
                nodes: nodes.collect(),
            })));
            for hop in (0..4).filter(|_| asks) {
                let annotations = NodeAnnotations {
                    hop,
                    sequence: 0,
                    annotations: Vec::new(),
                };
                run_state.take(Measurement::NodeAnnotations(0, Box::new(annotations)));
            }
            let report = run_state.report(WallTime(1), Blocks::default(), 0);
            let hops = |of: &[NodeAnnotations]| {
                of.iter()
                    .map(|annotations| annotations.hop)
                    .collect::<Vec<_>>()
            };
            assert_eq!(hops(&report.annotations), hops(&report.first_facts));
            hops(&report.annotations)
        };
        assert_eq!(told(&[1, 2, 3, 4], true), [0, 1, 2, 3]);
        assert_eq!(told(&[1, 2, 3, 4], false), [0, 1, 2, 3]);
        // C is left out: the far end is hop 2 now, and there is no hop 3.
        assert_eq!(told(&[1, 2, 4], false), [0, 1]);
    }

    #[test]
    fn notices_are_bounded() {
        let mut run_state = RunState::new("A", "source", WallTime(0), Baseline::Run);
        for number in 0..1000 {
            run_state.notice(format!("fault {number}"));
        }
        let report = run_state.report(WallTime(1), Blocks::default(), 0);
        assert_eq!(report.notices.len(), NOTICES + 1);
        assert_eq!(report.notices[NOTICES], "and 980 notices more");
    }
}
