//! What the collector keeps: measurements in, the report out.

use super::collect::{Measurement, Path};
use crate::measure::{Baseline, Model, Parts, Trip, TripError};
use crate::report::{Blocks, PathReport, Report};
use crate::time::WallTime;
use std::collections::BTreeMap;

/// Notices kept word by word; a fault that repeats all night is counted beyond that.
const NOTICES: usize = 20;

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

/// One run's book.
#[derive(Debug)]
pub struct Ledger {
    model: Model,
    names: BTreeMap<u8, String>,
    path: PathReport,
    role: String,
    started: WallTime,
    notices: Vec<String>,
    more_notices: u64,
    malformed: u64,
}

impl Ledger {
    /// An empty one.
    pub fn new(role: &str, started: WallTime, baseline: Baseline) -> Self {
        Self {
            model: Model::new(baseline),
            names: BTreeMap::new(),
            path: PathReport::default(),
            role: role.into(),
            started,
            notices: Vec::new(),
            more_notices: 0,
            malformed: 0,
        }
    }

    /// Names the node at the beginning of the path, until the path itself tells.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.names.insert(0, name.into());
        self
    }

    /// Enters a measurement; a trip's parts come back, for those who print a line for each.
    pub fn take(&mut self, measurement: Measurement) -> Option<Taken> {
        match measurement {
            Measurement::Trip(trip) => {
                let parts = self.model.record(&trip);
                return self.taken(*trip, parts, false);
            }
            // Counted, and shown where every block is, but no delay of the path.
            Measurement::Duplicate(trip) => {
                let parts = trip.split();
                return self.taken(*trip, parts, true);
            }
            Measurement::Residence(direction, residence) => {
                self.model.residence(direction, residence);
            }
            Measurement::BehindExit(at, span) => self.model.behind_exit(at, span),
            Measurement::Path(path) => self.learn(*path),
            Measurement::Notice(text) => self.notice(text),
        }
        None
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

    /// Adds a sentence to the report.
    pub fn notice(&mut self, text: String) {
        if self.notices.len() < NOTICES {
            self.notices.push(text);
        } else {
            self.more_notices += 1;
        }
    }

    fn learn(&mut self, path: Path) {
        let mut count = BTreeMap::new();
        for node in &path.nodes {
            *count.entry(node.name.clone()).or_insert(0) += 1;
        }
        // Several nodes on one host have one name by default: the hop tells them apart.
        self.names = path
            .nodes
            .iter()
            .map(|node| {
                let name = match count[&node.name] {
                    1 if !node.name.is_empty() => node.name.clone(),
                    _ => format!("{}#{}", node.name, node.hop),
                };
                (node.hop, name)
            })
            .collect();
        self.path = PathReport {
            cookie: Some(path.cookie),
            nodes: path.nodes,
        };
        for node in &mut self.path.nodes {
            if let Some(name) = self.names.get(&node.hop) {
                node.name.clone_from(name);
            }
        }
    }

    /// Names by hop, as far as the path is known.
    pub fn names(&self) -> &BTreeMap<u8, String> {
        &self.names
    }

    /// Blocks that were measured here: round trips, or at a plain proxy passages.
    pub fn measured(&self) -> u64 {
        let statistics = self.model.statistics(&self.names);
        let own = statistics.hosts.first();
        statistics
            .round_trip
            .or_else(|| own.and_then(|own| own.forward_residence))
            .map_or(0, |summary| summary.count)
    }

    /// The model, for `--state`.
    pub fn model(&self) -> &Model {
        &self.model
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
                "{} blocks came back with stamps that make no path; left out",
                self.malformed
            ));
        }
        Report {
            started: self.started,
            ended,
            role: self.role.clone(),
            path: self.path.clone(),
            blocks,
            statistics: self.model.statistics(&self.names),
            dropped,
            notices,
        }
    }
}
