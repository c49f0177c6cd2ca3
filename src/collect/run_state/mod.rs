//! The state of a run: measurements in, reports out.

mod reports;

use crate::collect::header_state::{HeaderClocks, HeaderState};
use crate::collect::notices::Notices;
use crate::collect::path_key::PathKey;
use crate::collect::path_labels::PathLabels;
use crate::collect::path_state::PathState;
use crate::collect::paths::{Paths, ROWS, SHOWN};
use crate::collect::queue::Measurement;
use crate::collect::requests::AnnotationRequests;
use crate::collect::state_file::{self, StateFile};
use crate::collect::windows::{described, Windows, WINDOW};
use crate::http::stamp::TraceParent;
use crate::measure::sla::{Rule, Watch};
use crate::measure::{
    Baseline, Confidence, Direction, HeaderDelays, Model, Part, Parts, Trip, TripError, Verdict,
    VerdictKind,
};
use crate::report::{part_name, Blocks, Broken, FlowReport, PathRest, State};
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::vec_map::VecMap;
use crate::FULL;
use std::net::SocketAddr;
use std::sync::Arc;

/// The step of the wall clock from which on a report dates its beginning anew.
const STEP: Nanos = Nanos(1_000_000_000);
/// The most slots of a timeline: the number of points in a plot.
const SLOTS: usize = 160;

/// A block that came back, with its delays.
#[derive(Clone, Debug)]
pub struct TakenTrip {
    /// The stamps of the block.
    pub trip: Trip,
    /// The parts of its delay.
    pub parts: Parts,
    /// `true` if the block had come back before.
    pub duplicate: bool,
    /// Its path.
    pub path: PathKey,
    /// The trace of the request in it; `None` without one.
    pub trace: Option<TraceParent>,
}

/// The figures of one run.
#[derive(Debug)]
pub struct RunState {
    paths: Paths,
    baseline: Baseline,
    /// As of [`Model::new`].
    span: Option<Nanos>,
    rules: Arc<[Rule]>,
    /// The requests that rules change; `None` without rules.
    requests: Option<Arc<AnnotationRequests>>,
    /// The reason for which the path is broken; `None` while it works.
    broken: Option<Broken>,
    opened: Option<Nanos>,
    /// The near ends of the flows of a probe; empty for one flow.
    flows: Vec<Option<SocketAddr>>,
    name: String,
    role: String,
    started: WallTime,
    /// The same moment on the monotonic clock.
    started_mono: MonoTime,
    windows: Windows,
    /// The run is compared with its own state, not with `--baseline`.
    follows: bool,
    /// The settings that the report shows, a sentence each.
    settings: Vec<String>,
    notices: Notices,
    malformed: u64,
    headers: HeaderState,
}

impl RunState {
    /// Returns the empty state of the node `name`.
    pub fn new(name: &str, role: &str, started: WallTime, baseline: Baseline) -> Self {
        let mut run_state = Self {
            paths: Paths::new(),
            follows: baseline == Baseline::Run,
            baseline,
            span: None,
            rules: Arc::new([]),
            requests: None,
            broken: None,
            opened: None,
            flows: Vec::new(),
            name: name.into(),
            role: role.into(),
            started,
            started_mono: sys::clock::mono(),
            windows: Windows::new(),
            settings: Vec::new(),
            notices: Notices::default(),
            malformed: 0,
            headers: HeaderState::at(name),
        };
        run_state.path_at(PathKey::default());
        run_state
    }

    /// Keeps a record of each window, or of the run, in `file`, and compares with what it has.
    #[must_use]
    pub fn keeping(mut self, file: StateFile) -> Self {
        self.windows.file = Some(file);
        self.follow_state();
        self
    }

    /// Shows a setting of the run in its reports.
    #[must_use]
    pub fn with_setting(mut self, text: String) -> Self {
        self.settings.push(text);
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
        self.begin_models();
        self
    }

    /// Holds the parts of the path against `rules`, and puts into `requests` what they ask of its
    /// nodes.
    #[must_use]
    pub fn watching(mut self, rules: Arc<[Rule]>, requests: &Arc<AnnotationRequests>) -> Self {
        self.rules = rules;
        self.requests = Some(Arc::clone(requests));
        for path in self.paths.values_mut() {
            path.watch = Watch::new(Arc::clone(&self.rules));
        }
        self
    }

    /// Replaces the rules. Those whose text is the same keep their state on each path.
    pub fn set_rules(&mut self, rules: Arc<[Rule]>) {
        self.rules = rules;
        let paths = self.paths.values_mut();
        paths.for_each(|path| path.watch.replace(Arc::clone(&self.rules)));
        self.paths.keys().into_iter().for_each(|key| self.act(key));
    }

    /// Limits the memory of all paths to `bytes`. Beyond it those of strangers are dropped, the one
    /// that was idle for longest first; others stay, as few peers can begin them.
    #[must_use]
    pub fn within(mut self, bytes: usize) -> Self {
        self.paths.memory_limit = bytes;
        self
    }

    /// Names the paths by `labels`, at a node that listens.
    #[must_use]
    pub fn labelled(mut self, labels: &Arc<PathLabels>) -> Self {
        self.paths.labels = Some(Arc::clone(labels));
        self
    }

    /// Keeps the offsets of the clocks of stamps in heads up to date.
    #[must_use]
    pub fn with_clocks(mut self, clocks: &Arc<HeaderClocks>) -> Self {
        self.headers.clocks = Some(Arc::clone(clocks));
        self
    }

    fn path_at(&mut self, key: PathKey) -> &mut PathState {
        if !self.paths.has(key) {
            let (model, rules) = (self.new_model(key), Arc::clone(&self.rules));
            let path = PathState::new(key.hop, &self.name, model, rules);
            self.paths.add(key, path);
        }
        self.paths.at(key)
    }

    fn main(&self) -> (PathKey, &PathState) {
        self.paths.main()
    }

    /// Takes a measurement. Returns the parts of a trip, for formats with a line per block.
    pub fn take(&mut self, measurement: Measurement) -> Option<TakenTrip> {
        match measurement {
            Measurement::Trip(key, mut trip) => {
                let path = self.path_at(key);
                if let Some(connect) = trip.server.take() {
                    let at = MonoTime(trip.at.0.saturating_sub(connect.age.0));
                    path.server_connect(at, connect.error.map_or(Ok(connect.span), Err));
                }
                let parts = path.model.record(&trip);
                if let Ok(parts) = &parts {
                    path.count(parts.hosts.len() + parts.segments.len());
                }
                if let (Ok(parts), false) = (&parts, path.watch.is_empty()) {
                    path.check(&trip, parts);
                    self.act(key);
                }
                let total = parts.as_ref().ok().and_then(|parts| parts.total);
                if let (Some(total), Some(rest)) = (total, self.paths.rest_of(key)) {
                    rest.round_trip.record(total);
                }
                return self.taken(key, *trip, parts, false);
            }
            // Counted, and shown where every block is, but no delay of the path.
            Measurement::Duplicate(trip) => {
                let parts = trip.split();
                return self.taken(PathKey::default(), *trip, parts, true);
            }
            Measurement::Residence(key, direction, residence) => {
                let path = self.path_at(key);
                path.model.residence(key.hop, direction, residence);
                if direction == Direction::Forward {
                    path.count(1);
                }
                if let Some(rest) = self.paths.rest_of(key) {
                    rest.residence[usize::from(direction == Direction::Return)].record(residence);
                }
            }
            Measurement::BehindExit(key, at, span) => {
                self.path_at(key).server(Part::Server, at, span);
                self.act(key);
            }
            Measurement::ServerConnect(key, at, outcome) => {
                self.path_at(key).server_connect(at, outcome);
                self.act(key);
            }
            Measurement::Malformed => self.malformed += 1,
            Measurement::Path(path) => self.path_at(path.key).open(*path),
            Measurement::NodeAnnotations(key, annotations) => {
                self.path_at(key).annotate(*annotations);
            }
            Measurement::Retransmits(key, readings) => {
                self.path_at(key).model.retransmits(&readings);
            }
            Measurement::Headers(_, exchange) if FULL => {
                self.headers.delays.record(&exchange.0, exchange.1);
            }
            Measurement::Trace(_, connection, sequence, trace) if FULL => {
                self.headers.trace(connection, sequence, trace);
            }
            Measurement::Headers(..) | Measurement::Trace(..) => {} // No small build reads HTTP.
            Measurement::Notice(text) => self.notice(text),
        }
        None
    }

    /// Logs changes of SLA states and updates requests on a path.
    fn act(&mut self, key: PathKey) {
        // Requests travel in blocks that begin here, on the path that has this node for hop 0. The
        // rules of another path, on which it is a relay, count its hops otherwise and request
        // nothing.
        let requests = self.requests.as_deref().filter(|_| key.neighbour.is_none());
        if let Some(path) = self.paths.get_mut(key) {
            path.act(requests);
        }
    }

    /// Logs changes of SLA states whose line had to wait; called now and then, as there may be no
    /// further block.
    pub fn tick(&mut self) {
        for path in self.paths.values_mut() {
            path.log_due();
        }
        self.paths.bound_memory();
        if FULL {
            self.headers.update(&self.name, self.paths.values());
        }
        let now = sys::clock::mono();
        if self.span.is_some() && self.windows.is_search_due(now) {
            // Those that the report is about: strangers may begin paths without end.
            let mut paths: Vec<_> = self.paths.values_mut().collect();
            paths.sort_unstable_by_key(|path| std::cmp::Reverse(path.measured));
            for path in paths.into_iter().take(SHOWN) {
                path.model.watch_changes(&path.names);
            }
        }
        if self.windows.is_over(now) {
            self.end_window(now);
        }
    }

    /// Ends the window that goes on, and keeps its record.
    fn end_window(&mut self, now: MonoTime) {
        let (when, length) = self.windows.end(now);
        for path in self.paths.values_mut() {
            path.model.end_window();
        }
        // A stranger without a label leaves nothing in the state.
        let labelled = self.paths.iter();
        for (_, path) in labelled.filter(|(key, _)| self.paths.is_labelled(key)) {
            let key = path.model.path_key(&path.names);
            let record = path.model.window_record(when, length);
            let (Some(key), Some(record)) = (key, record) else {
                continue;
            };
            for (part, event) in self.windows.push(&key, record) {
                let name = part_name(&path.names, part);
                log::info!("state: {name}: {}", described(event));
            }
        }
        self.follow_state();
    }

    /// Compares with the state as it is now, unless another baseline was given.
    fn follow_state(&mut self) {
        let state = self.windows.state();
        self.paths.records = state.memory();
        if self.follows {
            self.baseline = Baseline::Earlier(state, state_file::clock());
            for path in self.paths.values_mut() {
                path.model.set_baseline(self.baseline.clone());
            }
        }
    }

    /// Keeps the run, or the window that goes on if half of it is over; not a run without answers.
    fn keep(&mut self, blocks: Blocks) {
        if blocks.received == 0 {
            return;
        }
        let now = sys::clock::mono();
        let lasted = self.windows.lasted(now);
        let has_windows = self.windows.ended > 0;
        let half = self.windows.length.unwrap_or_default().0 / 2;
        if has_windows && lasted.0 >= half {
            self.end_window(now);
        }
        let is_run = self.span.is_none() || !has_windows;
        let Some(file) = self.windows.file.as_mut().filter(|_| is_run) else {
            return;
        };
        let paths = &self.paths;
        let when = state_file::now().before(lasted);
        let kept = file.update(|state| {
            let labelled = paths.iter().filter(|(key, _)| paths.is_labelled(key));
            for (_, path) in labelled.filter(|(_, path)| path.measured > 0) {
                path.model.add_to(state, &path.names);
                let key = path.model.path_key(&path.names);
                let record = path.model.window_record(when, lasted);
                if let (Some(key), Some(mut record), false) = (key, record, has_windows) {
                    record.sequence = state.next_sequence();
                    state.keep(&key, record);
                }
            }
        });
        if kept.is_err() {
            self.remark("this run is not kept in --state: the log has the reason".to_owned());
        }
    }

    /// Takes the counts of a run that goes on. Blocks under way are neither lost nor answered: they
    /// belong to the window in which that is decided.
    pub fn counts(&mut self, blocks: Blocks) {
        let (key, _) = self.main();
        let path = self.path_at(key);
        if !path.watch.is_empty() {
            let settled = blocks.received + blocks.missing();
            path.watch.counts(settled, blocks.missing());
            self.act(key);
        }
        self.tick();
    }

    /// Decides the rules at the end of the run; `planned` means that its end was known from the
    /// start.
    pub fn finish(&mut self, blocks: Blocks, planned: bool) {
        let (key, _) = self.main();
        let path = self.path_at(key);
        if !path.watch.is_empty() {
            path.finish(planned, blocks);
            self.act(key);
        }
        for path in self.paths.values_mut() {
            path.log_rest();
        }
        self.keep(blocks);
    }

    /// Notes that the path is broken, or that it works (`None`).
    pub fn set_broken(&mut self, broken: Option<Broken>) {
        self.broken = broken;
    }

    /// Takes the time until the path stood; the first one counts.
    pub fn set_opened(&mut self, opened: Nanos) {
        self.opened.get_or_insert(opened);
    }

    /// Keeps figures of so many flows apart.
    pub fn set_flows(&mut self, flows: usize) {
        self.flows = vec![None; flows];
    }

    /// Takes this end of the connection of a flow.
    pub fn set_flow(&mut self, flow: usize, local: Option<SocketAddr>) {
        if let Some(known) = self.flows.get_mut(flow) {
            *known = local.or(*known);
        }
    }

    fn flows(&self) -> Vec<FlowReport> {
        if !FULL || self.flows.is_empty() {
            return Vec::new();
        }
        let statistics = self.main().1.model.flows(self.flows.len());
        let flows = self.flows.iter().zip(statistics);
        flows
            .map(|(local, statistics)| FlowReport {
                local: *local,
                statistics,
            })
            .collect()
    }

    /// Returns the verdict on a path that does not answer; `None` if it does.
    fn down(&self, blocks: Blocks) -> Option<Verdict> {
        let text = match &self.broken {
            Some(broken) => format!("down: {}", broken.text),
            None if blocks.received == 0 && blocks.missing() > 0 => {
                let (key, main) = self.main();
                let near = part_name(&main.names, Part::Host(key.hop));
                let due = blocks.due();
                format!("down: somewhere behind {near}: no answer to any of {due} blocks")
            }
            None => return self.main().1.server_verdict(),
        };
        Some(Verdict {
            kind: VerdictKind::Down,
            name: "down".to_owned(),
            confidence: Confidence::High,
            reason: "the path does not answer".to_owned(),
            text,
            ..Verdict::default()
        })
    }

    /// Returns the state of the path, as [`Report::state`](crate::report::Report::state) does.
    pub fn state(&self, blocks: Blocks) -> State {
        let broken = self.broken.as_ref().map(|broken| broken.state);
        let path = self.main().1;
        let unmatched = self.is_unmatched(path);
        State::of(broken, blocks.received, path.worst(), unmatched)
    }

    /// A rule is about no part of the path: known in a run without end after its first window.
    fn is_unmatched(&self, path: &PathState) -> bool {
        let is_known = self.span.is_none() || self.windows.ended > 0;
        is_known && path.watch.unmatched().next().is_some()
    }

    fn taken(
        &mut self,
        path: PathKey,
        trip: Trip,
        parts: Result<Parts, TripError>,
        duplicate: bool,
    ) -> Option<TakenTrip> {
        match parts {
            Ok(parts) => Some(TakenTrip {
                trace: FULL.then(|| self.headers.take_trace(&trip)).flatten(),
                trip,
                parts,
                duplicate,
                path,
            }),
            Err(error) => {
                log::debug!("collect: block {}: {error}", trip.sequence);
                self.malformed += 1;
                None
            }
        }
    }

    /// Begins the figures and notices anew; the path, its names and the states of its parts stay.
    pub fn reset(&mut self, now: WallTime) {
        self.started = now;
        self.started_mono = sys::clock::mono();
        self.windows.restart();
        self.notices = Notices::default();
        self.malformed = 0;
        self.paths.rest = PathRest::default();
        self.headers.delays = HeaderDelays::at(&self.name);
        self.begin_models();
        self.paths.values_mut().for_each(|path| path.measured = 0);
    }

    /// Begins the model of each path anew.
    fn begin_models(&mut self) {
        for key in self.paths.keys() {
            let model = self.new_model(key);
            if let Some(path) = self.paths.get_mut(key) {
                path.model = model;
            }
        }
    }

    fn new_model(&self, key: PathKey) -> Model {
        let model = Model::new(self.baseline.clone(), self.span, self.started);
        match key.is_of_a_stranger() {
            true => model.within(self.paths.memory_limit / ROWS),
            false => model,
        }
    }

    /// Adds a sentence to the report, on an event of this moment.
    pub fn notice(&mut self, text: String) {
        self.notices.add(text, Some(sys::clock::read().wall));
    }

    /// Adds a sentence to the report, on the whole run.
    pub fn remark(&mut self, text: String) {
        self.notices.add(text, None);
    }

    /// Returns the known names by hop.
    pub fn names(&self) -> &VecMap<u8, String> {
        &self.main().1.names
    }

    fn path_of(&self, key: PathKey) -> &PathState {
        self.paths.get(key).map_or(self.main().1, |path| path)
    }

    /// Returns the names by hop on a path.
    pub fn names_of(&self, path: PathKey) -> &VecMap<u8, String> {
        &self.path_of(path).names
    }

    /// Returns the model of a path.
    pub fn model_of(&self, path: PathKey) -> &Model {
        &self.path_of(path).model
    }

    /// Returns the identifier of the session that the report is about; 0 if none is known.
    pub fn cookie(&self) -> u64 {
        self.main().1.cookie
    }

    /// Returns the number of blocks measured here, in the place that the report is about.
    pub fn measured(&self) -> u64 {
        self.main().1.measured
    }

    /// Returns the counts of a node that sends no blocks of its own: those that it measured.
    pub fn measured_blocks(&self, payload_bytes: u64) -> Blocks {
        let measured = self.measured();
        Blocks {
            sent: measured,
            received: measured,
            payload_bytes,
            ..Blocks::default()
        }
    }

    /// Returns the model, for `--state`.
    pub fn model(&self) -> &Model {
        &self.main().1.model
    }

    /// Returns the time at which the run began.
    pub fn started(&self) -> WallTime {
        self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{Classes, NodeAnnotations};
    use crate::collect::path_labels::PathUse;
    use crate::collect::path_state::CONNECTS;
    use crate::collect::queue::Path;
    use crate::measure::{sla, Sla};
    use crate::report::PathNode;
    use crate::report::Report;
    use crate::time::SignedNanos;

    #[test]
    fn blocks_under_way_are_neither_lost_nor_answered_and_a_share_of_lost_ones_is_at_most_all() {
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
        // An outage: all are lost at once.
        assert_eq!(look(140, 20, 0), Some(sla::Amount::Share(0.0)));
        assert_eq!(look(150, 20, 130), Some(sla::Amount::Share(1.0)));
    }

    /// Returns the path on which this node is at `hop`.
    fn at(hop: u8) -> PathKey {
        let neighbour = (hop > 0).then(|| [10, 0, 0, 1].into());
        PathKey {
            neighbour,
            hop,
            ..PathKey::default()
        }
    }

    /// Returns the state of a node with labels, and the uses of the paths at `hops`, named `A`.
    fn listening(hops: &[u8]) -> (RunState, Arc<PathLabels>, Vec<PathUse>) {
        let labels = Arc::<PathLabels>::default();
        labels.begin_here("B");
        let run_state = RunState::new("B", "relay", WallTime(0), Baseline::Run).labelled(&labels);
        let uses = hops
            .iter()
            .map(|&hop| labels.enter(at(hop), "A", sys::clock::mono));
        let uses = uses.collect();
        (run_state, labels, uses)
    }

    fn pass(run_state: &mut RunState, key: PathKey, blocks: u64) {
        for _ in 0..blocks {
            let residence = SignedNanos(1_000);
            run_state.take(Measurement::Residence(key, Direction::Forward, residence));
        }
    }

    fn forward_count(report: &Report) -> Option<u64> {
        let host = &report.statistics.hosts[0];
        host.forward_residence.map(|summary| summary.count)
    }

    #[test]
    fn figures_of_two_places_on_a_path_do_not_mix() {
        let (mut run_state, _labels, uses) = listening(&[1]);
        pass(&mut run_state, at(0), 2);
        pass(&mut run_state, uses[0].key, 5);
        let report = run_state.report(WallTime(1), Blocks::default(), 0);
        let found = [&report, &report.others[0]].map(|report| {
            let host = &report.statistics.hosts[0];
            (report.label.as_deref(), host.hop, forward_count(report))
        });
        assert_eq!(found[0], (Some("B@raw"), 0, Some(2)));
        assert_eq!(found[1], (Some("A@10.0.0.1"), 1, Some(5)));
        assert_eq!((report.others.len(), run_state.measured()), (1, 2));
    }

    #[test]
    fn strangers_with_more_blocks_take_no_place_and_change_no_figure_of_another_path() {
        for seed in 0..20 {
            let mut random = crate::random::Random::new(seed);
            let (mut run_state, labels, uses) = listening(&[1]);
            pass(&mut run_state, uses[0].key, 5);
            let mut others = 0;
            let mut open = Vec::new();
            for _ in 0..40 {
                let stranger = PathKey {
                    neighbour: Some([10, 0, 0, random.below(4) as u8].into()),
                    source: 1 + random.below(1_000) as u64,
                    ..at(1)
                };
                let name = ["A", "B", "C"][random.below(3)];
                let stranger = labels.enter(stranger, name, sys::clock::mono);
                let blocks = random.below(50) as u64;
                pass(&mut run_state, stranger.key, blocks);
                others += blocks;
                open.push(stranger);
            }
            let report = run_state.report(WallTime(1), Blocks::default(), 0);
            assert_eq!(report.label.as_deref(), Some("A@10.0.0.1"), "seed {seed}");
            assert_eq!(forward_count(&report), Some(5), "seed {seed}");
            let labelled = report.others.iter().filter_map(forward_count);
            let all = labelled.sum::<u64>() + report.rest.residence[0].count();
            assert_eq!(all, others, "seed {seed}: every block is counted once");
            assert!(report.others.len() < SHOWN, "seed {seed}");
        }
    }

    /// Returns a block that the node at hop `own` sent to a reflector next to it, and its return
    /// after `after_ms`.
    fn trip(own: u8, after_ms: u64) -> Measurement {
        use crate::measure::tests::samples::{home, hop_stamp, trip};
        use crate::measure::StampDirection::{Forward, Turn};
        const SENT: u64 = 1_000_000_000;
        let hop_stamps = vec![
            hop_stamp(own, Forward, SENT, SENT),
            hop_stamp(own + 1, Turn, SENT, SENT),
        ];
        let trip = trip(hop_stamps, home(SENT + after_ms * 1_000_000));
        Measurement::Trip(at(own), Box::new(trip))
    }

    #[test]
    fn the_rules_of_a_path_through_this_node_do_not_change_the_requests_of_a_path_from_it() {
        let rules = sla::parse("segment * round_trip > 5ms ask load at *").unwrap();
        let requests = Arc::<AnnotationRequests>::default();
        let mut run_state = RunState::new("B", "relay", WallTime(0), Baseline::Run)
            .watching(rules.into(), &requests);
        let here = VecMap::from([(0, Classes::LOAD), (1, Classes::LOAD)]);
        // The hop of this node, the round trip, and the requests from then on.
        let steps = [
            (1, 9, VecMap::new()),
            (0, 9, here.clone()),
            (1, 1, here.clone()),
            (1, 9, here.clone()),
            (2, 9, here),
            (0, 1, VecMap::new()),
            (1, 1, VecMap::new()),
        ];
        for (step, (own, after_ms, requested)) in steps.into_iter().enumerate() {
            run_state.take(trip(own, after_ms));
            assert_eq!(requests.hops(), requested, "step {step}");
        }
        // Each path keeps its own limits all the same.
        let worst = |hop| run_state.paths.get(at(hop)).map(|path| path.watch.worst());
        let (ok, warning) = (Some(Sla::Ok), Some(Sla::Warning));
        assert_eq!([worst(0), worst(1), worst(2)], [ok, ok, warning]);
    }

    #[test]
    fn the_hop_makes_equal_names_unique() {
        let mut run_state = RunState::new("vm", "source", WallTime(0), Baseline::Run);
        let node = |hop, name: &str| PathNode {
            hop,
            name: name.into(),
            ..Default::default()
        };
        let nodes = vec![node(0, "vm"), node(1, "B"), node(2, "vm")];
        run_state.take(Measurement::Path(Box::new(Path {
            cookie: 1,
            key: PathKey::default(),
            nodes,
        })));
        let names: Vec<_> = run_state.names().values().cloned().collect();
        assert_eq!(names, ["vm#0", "B", "vm#2"]);
    }

    #[test]
    fn the_connect_of_a_node_is_the_median_of_its_latest_ones() {
        let mut run_state = RunState::new("A", "entry", WallTime(0), Baseline::Run);
        let mut connect = |took: Option<u64>| {
            let node = PathNode {
                hop: 1,
                connect: took.map(Nanos::from_millis),
                ..Default::default()
            };
            run_state.take(Measurement::Path(Box::new(Path {
                cookie: 1,
                key: PathKey::default(),
                nodes: vec![node],
            })));
            run_state.main().1.connect(1)
        };
        assert_eq!(connect(None), None);
        assert_eq!(connect(Some(8)), Some(Nanos::from_millis(8)));
        connect(Some(8));
        // One that was slow for its own reason.
        assert_eq!(connect(Some(1000)), Some(Nanos::from_millis(8)));
        connect(Some(2));
        assert_eq!(connect(Some(2)), Some(Nanos::from_millis(8)));
        for _ in 0..1000 {
            connect(Some(2));
        }
        assert_eq!(connect(Some(2)), Some(Nanos::from_millis(2)));
        assert_eq!(
            run_state.main().1.connects.get(&1).map(Vec::len),
            Some(CONNECTS)
        );
    }

    #[test]
    fn the_annotations_of_a_node_leave_with_it() {
        let mut run_state = RunState::new("A", "source", WallTime(0), Baseline::Run);
        let mut hops_with = |ids: &[u64], answers: bool| {
            let nodes = (0..).zip(ids);
            let nodes = nodes.map(|(hop, &id)| PathNode {
                hop,
                id,
                ..PathNode::default()
            });
            run_state.take(Measurement::Path(Box::new(Path {
                cookie: 1,
                key: PathKey::default(),
                nodes: nodes.collect(),
            })));
            for hop in (0..4).filter(|_| answers) {
                let annotations = NodeAnnotations {
                    hop,
                    sequence: 0,
                    annotations: Vec::new(),
                };
                run_state.take(Measurement::NodeAnnotations(
                    PathKey::default(),
                    Box::new(annotations),
                ));
            }
            let report = run_state.report(WallTime(1), Blocks::default(), 0);
            let hops = |of: &[NodeAnnotations]| {
                of.iter()
                    .map(|annotations| annotations.hop)
                    .collect::<Vec<_>>()
            };
            assert_eq!(hops(&report.annotations), hops(&report.first_annotations));
            hops(&report.annotations)
        };
        assert_eq!(hops_with(&[1, 2, 3, 4], true), [0, 1, 2, 3]);
        assert_eq!(hops_with(&[1, 2, 3, 4], false), [0, 1, 2, 3]);
        // Without C the far end is hop 2, and there is no hop 3.
        assert_eq!(hops_with(&[1, 2, 4], false), [0, 1]);
    }

    #[test]
    fn the_memory_of_paths_is_bounded_and_strangers_that_idle_go_first() {
        let limit = 1 << 20;
        let mut run_state = RunState::new("B", "relay", WallTime(0), Baseline::Run).within(limit);
        let mut random = crate::random::Random::new(1);
        let keyed = PathKey {
            keyed: true,
            source: 7,
            ..at(1)
        };
        let residence = |key| Measurement::Residence(key, Direction::Forward, SignedNanos(1_000));
        run_state.take(residence(keyed));
        run_state.take(residence(at(0)));
        let guest = PathKey {
            neighbour: Some([10, 0, 0, 2].into()),
            ..at(1)
        };
        for round in 0..20_000_u64 {
            let stranger = PathKey {
                source: random.next(),
                ..at(1 + random.below(200) as u8)
            };
            let annotations = NodeAnnotations {
                hop: random.below(256) as u8,
                sequence: round,
                annotations: vec![crate::annotation::HostAnnotation {
                    name: "tag.0".into(),
                    value: crate::annotation::AnnotationValue::Text("x".repeat(255)),
                }],
            };
            run_state.take(Measurement::NodeAnnotations(
                stranger,
                Box::new(annotations),
            ));
            run_state.take(residence(stranger));
            run_state.take(residence(guest)); // Never idle.
            if round % 100 == 0 {
                run_state.tick();
                let held: usize = run_state.paths.iter().map(|(_, path)| path.memory()).sum();
                assert!(held <= limit, "round {round}: {held}");
            }
        }
        for stays in [keyed, at(0), guest] {
            assert!(run_state.paths.get(stays).is_some(), "{stays:?}");
        }
        assert!(run_state.paths.dropped > 10_000);
        let report = run_state.report(WallTime(1), Blocks::default(), 0);
        let others = report
            .notices
            .iter()
            .filter(|notice| notice.contains("another path"));
        assert_eq!(others.count(), SHOWN - 1);
        assert!(report
            .notices
            .iter()
            .any(|n| n.contains("other paths more")));
        assert!(report.notices.iter().any(|n| n.contains("--max-memory")));
    }

    #[test]
    fn a_labelled_path_of_little_memory_keeps_its_figures_beside_any_number_of_large_ones() {
        for seed in 0..20 {
            let mut random = crate::random::Random::new(seed);
            let labels = Arc::<PathLabels>::default();
            let limit = 1 << 20;
            let mut run_state =
                RunState::new("B", "relay", WallTime(0), Baseline::Run).within(limit);
            run_state.paths.labels = Some(Arc::clone(&labels));
            let paths: Vec<_> = (0..12_u64)
                .map(|source| {
                    let key = PathKey {
                        source: 1 + source,
                        ..at(1)
                    };
                    labels.enter(key, &format!("N{source}"), || MonoTime(1))
                })
                .collect();
            let honest = paths[random.below(paths.len().min(8))].key;
            let residence = Measurement::Residence(honest, Direction::Forward, SignedNanos(1));
            run_state.take(residence);
            for round in 0..4_000_u64 {
                let large = paths[random.below(paths.len())].key;
                if large != honest {
                    let annotations = NodeAnnotations {
                        hop: random.below(256) as u8,
                        sequence: round,
                        annotations: vec![crate::annotation::HostAnnotation {
                            name: "tag.0".into(),
                            value: crate::annotation::AnnotationValue::Text("x".repeat(255)),
                        }],
                    };
                    run_state.take(Measurement::NodeAnnotations(large, Box::new(annotations)));
                }
                if round % 100 == 0 {
                    run_state.tick();
                    let held: usize = run_state.paths.iter().map(|(_, path)| path.memory()).sum();
                    assert!(held <= limit, "seed {seed}, round {round}: {held}");
                }
                let is_there = run_state.paths.get(honest).is_some();
                assert!(is_there, "seed {seed}, round {round}");
            }
            assert!(run_state.paths.dropped > 0, "seed {seed}: no pressure");
        }
    }

    #[test]
    fn a_long_run_of_an_honest_path_keeps_its_figures_beside_large_ones() {
        let labels = Arc::<PathLabels>::default();
        let limit = 8 << 20;
        let mut run_state = RunState::new("B", "relay", WallTime(0), Baseline::Run).within(limit);
        run_state.paths.labels = Some(Arc::clone(&labels));
        let enter = |source: u64| {
            let key = PathKey { source, ..at(1) };
            labels.enter(key, &format!("N{source}"), || MonoTime(1))
        };
        let paths: Vec<_> = (1..13).map(enter).collect();
        let Measurement::Trip(_, sample) = trip(1, 50) else {
            panic!("not a trip");
        };
        let mut random = crate::random::Random::new(1);
        let text = crate::annotation::AnnotationValue::Text("x".repeat(255));
        let facts: Vec<_> = (0..12)
            .map(|number| crate::annotation::HostAnnotation {
                name: format!("tag.{number}"),
                value: text.clone(),
            })
            .collect();
        for round in 1..=20_000_u64 {
            run_state.take(Measurement::Trip(paths[0].key, sample.clone()));
            for _ in 0..8 {
                let other = paths[1 + random.below(paths.len() - 1)].key;
                run_state.take(Measurement::Trip(other, sample.clone()));
                let annotations = NodeAnnotations {
                    hop: random.below(256) as u8,
                    sequence: round,
                    annotations: facts.clone(),
                };
                if random.below(8) == 0 {
                    run_state.take(Measurement::NodeAnnotations(other, Box::new(annotations)));
                }
            }
            if round % 20 == 0 {
                run_state.tick();
                let held: usize = run_state.paths.iter().map(|(_, path)| path.memory()).sum();
                assert!(held <= limit, "round {round}: {held}");
            }
            let measured = run_state.paths.get(paths[0].key).map(|path| path.measured);
            assert_eq!(measured, Some(round));
        }
        assert!(run_state.paths.dropped > 0, "no pressure");
    }

    #[test]
    fn a_run_has_the_length_of_the_monotonic_clock_whatever_the_wall_clock_does() {
        let at = |seconds: u64| WallTime(seconds * 1_000_000_000);
        let mut run_state = RunState::new("A", "source", at(10_000), Baseline::Run);
        run_state.started_mono = MonoTime(5_000_000_000);
        let now = MonoTime(7_000_000_000); // Two seconds later.
        for ended in [at(10_002), at(6_402), at(13_602), at(10_010)] {
            let lasted = ended - run_state.start_by(ended, now);
            assert_eq!(lasted, SignedNanos(2_000_000_000), "{ended}");
        }
        // Slewed, not stepped.
        let slewed = WallTime(at(10_002).0 + 10_000_000);
        assert_eq!(run_state.start_by(slewed, now), at(10_000));
    }
}
