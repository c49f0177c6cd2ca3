//! The state of one place of this node on a path: its model, its limits, and the nodes behind it.

use crate::annotation::{Classes, NodeAnnotations};
use crate::collect::queue::Path;
use crate::collect::requests::AnnotationRequests;
use crate::collect::transitions::Transitions;
use crate::measure::sla::{Rule, RuleEvent, Watch};
use crate::measure::{
    why, Confidence, Model, Part, Parts, ServerOutcome, Sla, Statistics, Trip, Verdict, VerdictKind,
};
use crate::report::{part_name, Blocks, PathNode, PathReport, ServerDown};
use crate::sys;
use crate::time::{MonoTime, Nanos, SignedNanos};
use crate::vec_map::VecMap;
use crate::wire::NodeRole;
use std::sync::Arc;

/// The connects of a node that its median is taken of: one may be slow for a reason of its own.
pub(super) const CONNECTS: usize = 15;

/// The figures of a path as seen from one hop.
#[derive(Debug)]
pub(super) struct PathState {
    pub(super) model: Model,
    /// The names of the nodes by hop.
    pub(super) names: VecMap<u8, String>,
    /// The durations of the latest connects of each hop to its next one.
    pub(super) connects: VecMap<u8, Vec<Nanos>>,
    pub(super) path: PathReport,
    pub(super) watch: Watch,
    transitions: Transitions,
    /// The requests of the rules at present.
    requested: VecMap<u8, Classes>,
    /// The latest answer of each hop.
    pub(super) annotations: VecMap<u8, NodeAnnotations>,
    /// The first answer of each hop since the present request began.
    pub(super) first_annotations: VecMap<u8, NodeAnnotations>,
    /// The server behind the exit of the path does not accept connections.
    pub(super) server_down: Option<ServerDown>,
    sessions: u64,
    /// The identifier of the latest session.
    pub(super) cookie: u64,
    /// Blocks measured here.
    pub(super) measured: u64,
    /// The hosts and segments of the longest block so far.
    parts: usize,
    /// The number of the last measurement of any path that was this one's.
    pub(super) used: u64,
}

/// The most memory of a part's histograms, in bytes; a block adds a bucket to each at most.
const HISTOGRAMS: usize = 64 << 10;
const BUCKETS: usize = 64;

impl PathState {
    /// Returns the clock of the node `name` less that of this node; `None` if it is not known.
    pub(super) fn offset_of(&self, name: &str) -> Option<SignedNanos> {
        let mut names = self.names.iter();
        let (hop, _) = names.find(|(_, known)| known.as_str() == name)?;
        self.model.offset_to(*hop)
    }

    pub(super) fn new(hop: u8, name: &str, model: Model, rules: Arc<[Rule]>) -> Self {
        Self {
            model,
            names: VecMap::from([(hop, name.to_owned())]),
            connects: VecMap::new(),
            path: PathReport::default(),
            watch: Watch::new(rules),
            transitions: Transitions::default(),
            requested: VecMap::new(),
            annotations: VecMap::new(),
            first_annotations: VecMap::new(),
            server_down: None,
            sessions: 0,
            cookie: 0,
            measured: 0,
            parts: 0,
            used: 0,
        }
    }

    /// Counts a block of so many parts.
    pub(super) fn count(&mut self, parts: usize) {
        self.measured += 1;
        self.parts = self.parts.max(parts);
    }

    /// Returns an upper bound of the memory that the figures, the annotations and the names of the
    /// path take, in bytes.
    pub(super) fn memory(&self) -> usize {
        let measured = usize::try_from(self.measured).unwrap_or(usize::MAX);
        let histograms = self.parts.max(1) * HISTOGRAMS.min(measured.saturating_mul(BUCKETS));
        let nodes = self.path.nodes.iter().map(|node| 2 * node.memory());
        let annotations = self
            .annotations
            .values()
            .chain(self.first_annotations.values());
        let connects = self.connects.len() * CONNECTS * size_of::<Nanos>();
        2 * size_of::<Self>()
            + self.model.memory()
            + histograms
            + nodes.sum::<usize>()
            + annotations.map(NodeAnnotations::memory).sum::<usize>()
            + connects
    }

    /// Returns the median duration of a node's latest connects; `None` if it reported none.
    pub(super) fn connect(&self, hop: u8) -> Option<Nanos> {
        let mut latest = self.connects.get(&hop)?.to_vec();
        latest.sort_unstable();
        latest.get(latest.len() / 2).copied()
    }

    /// Takes a delay of the server behind the exit of the path, and holds it against the rules.
    pub(super) fn server(&mut self, part: Part, at: MonoTime, delay: Nanos) {
        self.model.server(part, at, delay);
        if !self.watch.is_empty() {
            self.watch.server(part, delay.signed());
        }
    }

    /// Takes a connect to the server behind the exit of the path, which ended at `at`.
    pub(super) fn server_connect(&mut self, at: MonoTime, outcome: ServerOutcome) {
        match outcome {
            Ok(took) => {
                self.server(Part::ServerConnect, at, took);
                self.server_down = None;
            }
            Err(error) => {
                let now = sys::clock::read();
                let ended = now.wall.before(now.mono.since(at));
                let since = self.server_down.take().map_or(ended, |down| down.since);
                self.server_down = Some(ServerDown { since, error });
            }
        }
    }

    /// Returns the worst state of all parts; critical if the server is down.
    pub(super) fn worst(&self) -> Sla {
        match self.server_down {
            Some(_) => Sla::Critical,
            None => self.watch.worst(),
        }
    }

    /// Returns the verdict on a server that is down; `None` if it is not known to be.
    pub(super) fn server_verdict(&self) -> Option<Verdict> {
        let ServerDown { since, error } = self.server_down.as_ref()?;
        let exit = self.names.values().last().map_or("the exit", |name| name);
        Some(Verdict {
            kind: VerdictKind::Down,
            part: Some(Part::ServerConnect),
            name: part_name(&self.names, Part::ServerConnect),
            confidence: Confidence::High,
            reason: format!("the latest connect of {exit} to its server failed"),
            text: format!("server down: {exit} cannot {error}"),
            since: Some(*since),
            ..Verdict::default()
        })
    }

    /// Returns the remedy if an exit has answered blocks and nothing is known of its server.
    pub(super) fn untimed_server(&self) -> Option<String> {
        let exit = self.path.nodes.last()?;
        let is_untimed = exit.role == NodeRole::Exit.name()
            && self.measured > 0
            && self.server_down.is_none()
            && !self.model.has_timed_server();
        let name = &exit.name;
        is_untimed.then(|| format!("server not timed: --server-check 10 at {name}"))
    }

    /// Holds a block against the rules.
    pub(super) fn check(&mut self, trip: &Trip, parts: &Parts) {
        self.watch.block(&self.names, trip, parts);
        if self.watch.wants_growth(trip.at) {
            self.watch.grow(trip.at, &self.model.growth(&self.names));
        }
    }

    /// Decides the rules that wait for the end of the run.
    pub(super) fn finish(&mut self, planned: bool, blocks: Blocks) {
        if self.watch.needs_growth() {
            let growth = self.model.growth(&self.names);
            self.watch.grow(sys::clock::mono(), &growth);
        }
        self.watch.finish(planned, blocks.due(), blocks.missing());
    }

    /// Logs new changes of SLA states, and updates the requests of the rules in `requests`; `None`
    /// on a path that does not begin here.
    pub(super) fn act(&mut self, requests: Option<&AnnotationRequests>) {
        let (events, gone) = self.watch.fresh_events();
        if gone > 0 {
            log::warn!("sla: {gone} more changes of state at once");
        }
        for event in events {
            self.transitions.take(event);
        }
        self.log_due();
        let Some(requests) = requests else {
            return;
        };
        let wanted = self.watch.asks(); // Empty, mostly.
        if wanted != self.requested {
            // The answer to an earlier request is no beginning for this one.
            let goes_on = |hop: &u8| self.requested.contains_key(hop) && wanted.contains_key(hop);
            self.first_annotations.retain(|hop, _| goes_on(hop));
            requests.set_by_rules(wanted.clone());
            self.requested = wanted;
        }
    }

    /// Logs the changes of SLA states whose line is due.
    pub(super) fn log_due(&mut self) {
        if self.transitions.is_waiting() {
            let due = self.transitions.due(sys::clock::mono());
            self.log(due);
        }
    }

    /// Logs all changes of SLA states that have no line yet.
    pub(super) fn log_rest(&mut self) {
        let rest = self.transitions.rest();
        self.log(rest);
    }

    fn log(&self, changes: Vec<(RuleEvent, u64)>) {
        for (event, more) in changes {
            let place = part_name(&self.names, event.now.part);
            let more = match more {
                0 => String::new(),
                1 => "; 1 more change before".to_owned(),
                _ => format!("; {more} more changes before"),
            };
            log::warn!("sla: {place}: {event}{more}");
        }
    }

    /// Takes the annotations of one node.
    pub(super) fn annotate(&mut self, annotations: NodeAnnotations) {
        let first = &mut self.first_annotations;
        first.get_or_insert_with(annotations.hop, || annotations.clone());
        self.annotations.insert(annotations.hop, annotations);
    }

    /// Takes the nodes of a new session.
    pub(super) fn open(&mut self, path: Path) {
        let given: Vec<_> = path.nodes.iter().map(|node| node.name.clone()).collect();
        // Several nodes on one host have one name by default: the hop makes it unique.
        let mut nodes = path.nodes;
        for node in &mut nodes {
            let namesakes = given.iter().filter(|name| **name == node.name);
            if namesakes.count() > 1 || node.name.is_empty() {
                node.name = format!("{}#{}", node.name, node.hop);
            }
        }
        let names = nodes.iter().map(|node| (node.hop, node.name.clone()));
        self.names = names.collect();
        let errors = nodes
            .iter()
            .filter_map(|node| Some((node.hop, node.clock_error?)));
        self.model.set_clock_errors(errors.collect());
        for (hop, took) in nodes.iter().filter_map(|n| Some((n.hop, n.connect?))) {
            let latest = self.connects.get_or_insert_with(hop, Vec::new);
            latest.push(took);
            if latest.len() > CONNECTS {
                latest.remove(0);
            }
        }
        // The annotations of a node do not hold for another in its place.
        let id = |nodes: &[PathNode], hop| {
            let node = nodes.iter().find(|node| node.hop == hop);
            node.map(|node| node.id)
        };
        let stays = |hop: &u8| id(&self.path.nodes, *hop) == id(&nodes, *hop);
        self.annotations.retain(|hop, _| stays(hop));
        self.first_annotations.retain(|hop, _| stays(hop));
        self.sessions += 1;
        self.cookie = path.cookie;
        self.path = PathReport {
            cookie: (self.sessions == 1).then_some(path.cookie),
            nodes,
        };
    }

    /// Returns the figures, with the SLA state of each part and the likely cause.
    pub(super) fn statistics(&self) -> Statistics {
        let now = sys::clock::read().now();
        let mut statistics = self.model.statistics(&self.names, now);
        statistics.sla = self.worst();
        for segment in &mut statistics.segments {
            segment.sla = self.watch.state(segment.part());
        }
        for host in &mut statistics.hosts {
            host.sla = self.watch.state(Part::Host(host.hop));
        }
        for part in &mut statistics.parts {
            part.sla = self.watch.state(part.part);
        }
        let known = why::Evidence {
            latest: &self.annotations.values().cloned().collect::<Vec<_>>(),
            first: &self.first_annotations.values().cloned().collect::<Vec<_>>(),
            name: &|hop| part_name(&self.names, Part::Host(hop)),
            connect: &|hop| self.connect(hop),
        };
        statistics.verdict.cause = why::cause(&statistics, &known);
        statistics
    }
}
