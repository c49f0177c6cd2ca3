//! Trips in, one after the other; statistics and the verdict out whenever asked. Ties the files
//! beside it together.
//!
//! Memory is bounded whatever comes in: by hops (one byte), histograms (60 KiB each), rows
//! ([`super::series`]), 64 identities per hop, four shapes of a path. Blocks that took another way
//! than most have rows of their own, and the report is about the shape that most blocks have.

mod changes;
mod flows;
mod path;
mod standing;
mod statistics;

use super::baseline::{path_key, PartRecord, PartRecords, PathHistory, Record, RunHistories};
use super::change::{BootClock, Search, When};
use super::series::{Bounds, Cells, Rows, NONE};
use super::sla;
use super::timeline::{wall, Cut, EventKind, Timeline, TimelineEvent};
use super::trip::{Parts, Trip, TripError};
use super::verdict::{Evidence, Share, Sight};
use super::{Direction, Histogram, Largest, Part, Retransmits, Summary, Verdict};
use crate::time::{MonoTime, Nanos, Now, SignedNanos, WallTime};
use crate::vec_map::VecMap;
pub(super) use changes::way_of;
use changes::{add_windows, search_all, search_part, Column, PartChanges};
pub use flows::{FlowPart, FlowStatistics};
use path::{Host, PartDelays, Path};
use standing::{stand, Standing};
use std::sync::Arc;

/// Shapes of a path that are kept apart; of more, the one that came longest ago is forgotten.
const SHAPES: usize = 4;

/// The run or state that a run is compared with.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Baseline {
    /// The run itself.
    #[default]
    Run,
    /// Earlier runs, from a state file.
    Earlier(Arc<RunHistories>, BootClock),
}

/// The parts of the server behind an exit.
const SERVERS: [Part; 2] = [Part::ServerConnect, Part::Server];

/// The delays of the server behind an exit, which are in no total.
#[derive(Debug)]
struct ServerPart {
    part: Part,
    delays: PartDelays,
    rows: Rows,
}

impl ServerPart {
    fn new(part: Part, bounds: Bounds) -> Self {
        Self {
            part,
            delays: PartDelays::default(),
            rows: Rows::new(1, bounds),
        }
    }
}

/// The statistics of a run.
#[derive(Debug)]
pub struct Model {
    baseline: Baseline,
    /// Those of the rows of each shape; `span` is `None` for a run that has an end.
    bounds: Bounds,
    started: WallTime,
    total: Histogram,
    total_window: Histogram,
    last_window: Option<Summary>,
    /// Connects and answers of the server behind an exit.
    servers: [ServerPart; 2],
    own: [Histogram; 2],
    own_hop: u8,
    /// By shape, the one in use last.
    paths: Vec<Path>,
    path_changes: u64,
    unpaired: u64,
    blocks: u64,
    /// Blocks at the latest search for changes.
    searched: u64,
    first: Option<MonoTime>,
    latest: MonoTime,
    standing: VecMap<Part, Standing>,
    /// The rises that stood when the process before this one ended were taken over.
    follows: bool,
    clock_errors: VecMap<u8, Nanos>,
}

impl Model {
    /// An empty model of a run that began at `started`. `span` is given for a run without end: rows
    /// older than it are forgotten.
    pub fn new(baseline: Baseline, span: Option<Nanos>, started: WallTime) -> Self {
        let memory = usize::MAX;
        let bounds = Bounds { span, memory };
        Self {
            baseline,
            bounds,
            started,
            total: Histogram::default(),
            total_window: Histogram::default(),
            last_window: None,
            servers: SERVERS.map(|part| ServerPart::new(part, bounds)),
            own: Default::default(),
            own_hop: 0,
            paths: Vec::new(),
            path_changes: 0,
            unpaired: 0,
            blocks: 0,
            searched: 0,
            first: None,
            latest: MonoTime(0),
            standing: VecMap::new(),
            follows: false,
            clock_errors: VecMap::new(),
        }
    }

    /// Bounds the rows of each shape of the path, and of the servers, to `memory` bytes. The latest
    /// ones, among which changes are searched, stay even beyond it.
    #[must_use]
    pub fn within(mut self, memory: usize) -> Self {
        self.bounds.memory = memory;
        let servers = self.servers;
        self.servers = servers.map(|server| ServerPart::new(server.part, self.bounds));
        self
    }

    /// Returns the memory of all rows, in bytes.
    pub fn memory(&self) -> usize {
        let rows = self.paths.iter().map(|path| &path.rows);
        let servers = self.servers.iter().map(|server| &server.rows);
        rows.chain(servers).map(Rows::memory).sum()
    }

    /// Sets the greatest errors of the nodes' clocks, as they state them; by hop.
    pub fn set_clock_errors(&mut self, errors: VecMap<u8, Nanos>) {
        self.clock_errors = errors;
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
        self.first.get_or_insert(trip.at);
        self.latest = self.latest.max(trip.at);
        if let Some(total) = parts.total {
            self.total.record(total);
            self.total_window.record(total);
        }
        let known = self.paths.iter().position(|path| path.has_shape_of(&parts));
        let in_use = self.paths.len().checked_sub(1);
        if known.is_none() || known != in_use {
            self.path_changes += u64::from(in_use.is_some());
            let path = match known {
                Some(known) => self.paths.remove(known),
                None => Path::new(&parts, self.bounds),
            };
            if self.paths.len() >= SHAPES {
                self.paths.remove(0);
            }
            self.paths.push(path);
        }
        if let Some(path) = self.paths.last_mut() {
            self.path_changes += path.meet(&pairs);
            path.record(trip, &pairs, &parts);
        }
        Ok(parts)
    }

    /// Takes in the residence of a node that sees no trips: a plain proxy, a reflector, an exit.
    pub fn residence(&mut self, hop: u8, direction: Direction, residence: SignedNanos) {
        self.own_hop = hop;
        self.own[usize::from(direction == Direction::Return)].record(residence);
    }

    /// Takes in a delay of the server behind an exit, and of the network to it: `part` is
    /// [`Part::Server`] for an answer, [`Part::ServerConnect`] for a connect.
    pub fn server(&mut self, part: Part, at: MonoTime, delay: Nanos) {
        for server in self.servers.iter_mut().filter(|server| server.part == part) {
            server.delays.record(delay.signed());
            server.rows.push(at, 0, 0, &[delay.signed().0]);
        }
    }

    /// The parts of the server that were measured.
    fn servers(&self) -> impl Iterator<Item = &ServerPart> {
        let servers = self.servers.iter();
        servers.filter(|server| server.delays.run.count() > 0)
    }

    /// `true` if a connect to the server behind an exit, or an answer of it, was timed.
    pub fn has_timed_server(&self) -> bool {
        self.servers().next().is_some()
    }

    /// Adds readings of retransmissions that came without a block.
    pub fn retransmits(&mut self, readings: &[Retransmits]) {
        if let Some(path) = self.paths.last_mut() {
            path.add_retransmits(readings);
        }
    }

    /// Ends the window that goes on: gauges are of the latest complete one.
    pub fn end_window(&mut self) {
        self.last_window = std::mem::take(&mut self.total_window).summary();
        for server in &mut self.servers {
            server.delays.end_window();
        }
        self.paths.iter_mut().for_each(Path::end_window);
    }

    /// The shape that most rows are of.
    fn path(&self) -> Option<&Path> {
        self.paths.iter().max_by_key(|path| path.rows.len())
    }

    /// Far clock minus near clock of each segment, as far as it is known now.
    pub fn offsets(&self) -> Vec<Option<SignedNanos>> {
        let segments = self.path().into_iter().flat_map(|path| &path.segments);
        segments
            .map(|segment| segment.clock.offset().map(|(offset, _)| offset))
            .collect()
    }

    /// Returns the clock of the node at `hop` less that of the first node of the path; `None` if it
    /// is not known.
    pub fn offset_to(&self, hop: u8) -> Option<SignedNanos> {
        let segments = &self.path()?.segments;
        let end = segments.iter().position(|segment| segment.to_hop == hop)?;
        let offsets = segments[..=end]
            .iter()
            .map(|segment| segment.clock.offset());
        offsets.map(|offset| Some(offset?.0)).sum()
    }

    /// Stamps left out so far, because their node stamped in one direction only.
    pub fn unpaired(&self) -> u64 {
        self.unpaired
    }

    /// Changes of all parts of the path, and of the server behind it.
    fn changes(&self, named: &[(u8, String)]) -> Vec<PartChanges> {
        let history = self.history(named);
        let mut found = self.path().map_or_else(Vec::new, |path| {
            search_all(path, history, self.started, &self.clock_errors)
        });
        let parts = found.len() + self.servers().count();
        for server in self.servers() {
            let mut search = Search::new(parts);
            let column = Column {
                part: server.part,
                column: 0,
                flag: None,
            };
            let (rows, started) = (&server.rows, self.started);
            found.push(search_part(&mut search, rows, column, history, started));
        }
        found
    }

    /// Searches a run without end for changes and keeps those that last; called now and then.
    /// Without a block since the last call it does nothing.
    pub fn watch_changes(&mut self, names: &VecMap<u8, String>) {
        if std::mem::replace(&mut self.searched, self.blocks) == self.blocks {
            return;
        }
        let named = self.named(names);
        let mut found = self.changes(&named);
        (self.standing, self.follows) = (self.standing(&named), self.path().is_some());
        let Some(place) = self
            .paths
            .iter()
            .enumerate()
            .max_by_key(|(_, path)| path.rows.len())
        else {
            return;
        };
        stand(&self.paths[place.0], &mut self.standing, &mut found);
        let Baseline::Earlier(state, clock) = &self.baseline else {
            return;
        };
        if let Some(history) = state.paths.get(&key(&named)) {
            let standing = self.standing.values_mut();
            standing.for_each(|known| known.follow(history, *clock));
        }
    }

    /// The changes that stand: at first those that the process before this one left in the state.
    fn standing(&self, named: &[(u8, String)]) -> VecMap<Part, Standing> {
        let mut standing = self.standing.clone();
        let history = self.history(named).filter(|_| !self.follows);
        if let (Some(history), Some(path)) = (history, self.path()) {
            for part in path.parts() {
                if let Some(earlier) = Standing::earlier(history, part) {
                    standing.insert(part, earlier);
                }
            }
        }
        standing
    }

    fn found(&self, named: &[(u8, String)], now: Now) -> Vec<PartChanges> {
        let mut found = self.changes(named);
        if self.bounds.span.is_none() {
            return found;
        }
        let mut standing = self.standing(named);
        if let Some(path) = self.path() {
            stand(path, &mut standing, &mut found);
        }
        if let (Some(history), Baseline::Earlier(_, clock)) = (self.history(named), &self.baseline)
        {
            for part in &mut found {
                if let (Some(known), Some(change)) =
                    (standing.get(&part.part), part.changes.first_mut())
                {
                    known.date(history, clock.when(now), change);
                }
            }
            add_windows(history, *clock, now, &mut found);
        }
        found
    }

    /// Compares with `baseline` from now on: a run without end has more windows each time.
    pub fn set_baseline(&mut self, baseline: Baseline) {
        self.baseline = baseline;
    }

    /// The [`path_key`] by which a state keeps this path; `None` before the first block.
    pub fn path_key(&self, names: &VecMap<u8, String>) -> Option<String> {
        let named = self.named(names);
        (!named.is_empty()).then(|| key(&named))
    }

    /// The record of the window that ended last, or of the run so far if none has; `None` if it had
    /// no blocks. `when` is the beginning of that window.
    pub fn window_record(&self, when: When, window: Nanos) -> Option<Record> {
        let mut parts = VecMap::new();
        let clock = match &self.baseline {
            Baseline::Earlier(_, clock) => *clock,
            Baseline::Run => BootClock::default(),
        };
        let stood = |part| self.standing.get(&part)?.stood(when, clock);
        let mut add = |part, delays: &PartDelays, one_way| {
            // Before the first window has ended it is the run.
            let summary = match delays.last_window {
                Some(summary) => Some(summary),
                None if self.last_window.is_none() => delays.window.summary(),
                None => None,
            };
            if let Some(summary) = summary {
                let Summary {
                    count,
                    mean,
                    p50,
                    p95,
                    ..
                } = summary;
                let record = PartRecord {
                    count,
                    mean,
                    p50,
                    p95,
                    one_way,
                    rise: stood(part),
                };
                parts.insert(part, record);
            }
        };
        if let Some(path) = self.path() {
            let since = MonoTime(self.latest.0.saturating_sub(window.0));
            for part in path.parts() {
                if let Some((delays, _)) = path.part(part) {
                    let one_way = path.one_way_medians(part, since, &self.clock_errors);
                    add(part, delays, one_way);
                }
            }
        }
        for server in self.servers() {
            add(server.part, &server.delays, None);
        }
        let record = Record {
            sequence: 0,
            window,
            when,
            parts: PartRecords::from(&parts),
        };
        (!record.parts.is_empty()).then(|| record.rounded())
    }

    /// The run over time, in at most `slots` slots; of a run without end its most recent span.
    /// `None` if no block was kept yet. `now` is both clocks, read together.
    pub fn timeline(&self, slots: usize, now: Now) -> Option<Timeline> {
        let path = self.path()?;
        let start = path.rows.all().map(|row| row.at).min()?;
        let end = path.rows.all().map(|row| row.at).max()?;
        let cut = Cut::new(start, end, path.rows.len(), slots);
        let rows = || path.rows.all().map(|row| (row.at, row.cells));
        let column = |part| {
            let column = path.part(part).map_or(usize::MAX, |(_, column)| column);
            cut.line(rows(), |row| row.get(column).unwrap_or(NONE))
        };
        let parts = path.parts();
        let columns = parts.iter().filter_map(|part| path.part(*part));
        let columns: Vec<usize> = columns.map(|(_, column)| column).collect();
        let total = |row: Cells<'_>| {
            let cell = |column: &usize| row.get(*column).unwrap_or(NONE);
            // A part that only some blocks have is nothing in the others; a host or segment never
            // is.
            let cells = columns.iter().zip(&parts).map(|(column, part)| match part {
                Part::Host(_) | Part::Segment { .. } => cell(column),
                _ if cell(column) == NONE => 0,
                _ => cell(column),
            });
            let sum = |sum: i64, cell: i64| (cell != NONE).then(|| sum.wrapping_add(cell));
            cells.into_iter().try_fold(0, sum).unwrap_or(NONE)
        };
        let steps = path.hosts.iter().filter_map(|host| {
            Some(TimelineEvent {
                at: wall(host.last_step?, now),
                kind: EventKind::ClockStep(host.hop),
            })
        });
        let mut events: Vec<_> = steps.collect();
        events.sort_by_key(|event| event.at);
        let (start, slot) = cut.on(now);
        let segments = path.segments.iter();
        let segments = segments.map(|s| {
            column(Part::Segment {
                from: s.from_hop,
                to: s.to_hop,
            })
        });
        Some(Timeline {
            start,
            slot,
            total: cut.line(rows(), total),
            segments: segments.collect(),
            hosts: path
                .hosts
                .iter()
                .map(|host| column(Part::Host(host.hop)))
                .collect(),
            others: parts
                .iter()
                .filter(|part| matches!(part, Part::Connect { .. } | Part::Behind(_)))
                .map(|part| (*part, column(*part)))
                .collect(),
            events,
        })
    }

    /// Baseline and increase of each part that has them, for the rules.
    pub fn growth(&self, names: &VecMap<u8, String>) -> VecMap<Part, sla::Growth> {
        // Rules take amounts alone, whatever the time is.
        let now = Now {
            wall: self.started,
            mono: self.latest,
        };
        let found = self.found(&self.named(names), now);
        let growth = found.iter().map(|part| {
            let lasts = part
                .changes
                .iter()
                .find(|change| change.until.is_none() && !change.burst);
            let named = lasts.map(|change| change.amount);
            // Where the search saw enough and found nothing, the part has not grown.
            let increase = named.or_else(|| part.least.map(|_| SignedNanos::ZERO));
            let baselines = [part.baseline, part.baseline_p95];
            (
                part.part,
                sla::Growth {
                    baselines,
                    increase,
                },
            )
        });
        growth.collect()
    }

    /// Adds this run to the state: with the usual ones if nothing changed, else apart.
    pub fn add_to(&self, state: &mut RunHistories, names: &VecMap<u8, String>) {
        let key = key(&self.named(names));
        let path = self.path();
        let history = state.paths.get_or_insert_with(key, PathHistory::default);
        let parts = path.map_or_else(Vec::new, |path| path.parts());
        let mut search = Search::new(parts.len() + self.servers().count().max(1));
        let mut judge = |part: Part, rows: &Rows, column: usize, flag| {
            changes::fill(&mut search, rows, Column { part, column, flag }, usize::MAX);
            let known = history.parts.get_or_insert_with(part, Default::default);
            known.judge(&mut search, self.started);
        };
        if let Some(path) = path {
            for part in parts {
                if let Some((_, column)) = path.part(part) {
                    judge(part, &path.rows, column, path.flag(part));
                }
            }
        }
        for server in self.servers() {
            judge(server.part, &server.rows, 0, None);
        }
    }

    /// Hops and names of the nodes, in order of the path.
    fn named(&self, names: &VecMap<u8, String>) -> Vec<(u8, String)> {
        let own = self.own.iter().any(|own| own.count() > 0) || self.has_timed_server();
        let hops = match self.path() {
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

    /// The earlier runs of this path; `None` if the run is compared with itself alone.
    fn history(&self, named: &[(u8, String)]) -> Option<&PathHistory> {
        match &self.baseline {
            Baseline::Run => None,
            Baseline::Earlier(state, _) => state.paths.get(&key(named)),
        }
    }

    fn answers(
        &self,
        found: Vec<PartChanges>,
        shares: Vec<Share>,
        nodes: &[(u8, String)],
        now: Now,
    ) -> (Verdict, Option<Largest>) {
        let path = self.path();
        let hosts = path.map_or(&[][..], |path| &path.hosts);
        // A run without end does not report a step for ever that was long ago.
        let oldest = path
            .and_then(|path| path.rows.all().next())
            .map(|row| MonoTime(row.at));
        let since = oldest.filter(|_| self.bounds.span.is_some());
        let stepped = |host: &&Host| {
            let recent = |at| since.map_or(true, |since| at >= since);
            host.last_step.is_some_and(recent)
        };
        let half = self.latest.since(oldest.unwrap_or(self.latest)).0 / 2;
        let held_since = MonoTime(self.latest.0.saturating_sub(half));
        let held = (0..2 * hosts.len()).map(|pump| {
            let share = path.and_then(|path| path.held.share(pump, Some(held_since)));
            share.unwrap_or(0.0)
        });
        let sights = found.iter().filter_map(|part| {
            Some(Sight {
                least: part.least?,
                tail: part.least_tail,
                p50: part.baseline?,
            })
        });
        let name = |hop: u8| {
            let known = nodes.iter().find(|(known, _)| *known == hop);
            known.map_or_else(|| format!("hop {hop}"), |(_, name)| name.clone())
        };
        let evidence = Evidence {
            now,
            sights: sights.collect(),
            own_blocks: found.iter().map(|part| part.own_blocks).max().unwrap_or(0),
            runs: found.iter().map(|part| part.runs).max().unwrap_or(0),
            changes: found.into_iter().flat_map(|part| part.changes).collect(),
            shares,
            blocks: self.blocks,
            lasted: self.latest.since(self.first.unwrap_or(self.latest)),
            hops: nodes.iter().map(|(hop, _)| *hop).collect(),
            name: &name,
            source: path.is_some_and(|path| path.source),
            reflected: path.is_some_and(|path| path.reflected),
            held: held.collect(),
            stepped: hosts.iter().filter(stepped).map(|host| host.hop).collect(),
        };
        (evidence.judge(), evidence.largest())
    }
}

fn key(named: &[(u8, String)]) -> String {
    path_key(named.iter().map(|(hop, name)| (*hop, name.as_str())))
}
