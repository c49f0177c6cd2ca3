//! What the collector keeps: measurements in, the report out.

use super::collect::{Measurement, Path};
use crate::measure::facts::Facts;
use crate::measure::{Baseline, Direction, Model, Parts, Trip, TripError};
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

/// One run's books.
#[derive(Debug)]
pub struct Ledger {
    /// A book for each place on a path that this node has had: one that takes both raw clients and frames is hop 0 for
    /// the ones and hop 1 or more for the others, and their figures do not mix.
    books: BTreeMap<u8, Book>,
    baseline: Baseline,
    name: String,
    role: String,
    started: WallTime,
    notices: Vec<String>,
    more_notices: u64,
    malformed: u64,
}

#[derive(Debug)]
struct Book {
    model: Model,
    names: BTreeMap<u8, String>,
    path: PathReport,
    /// The latest answer of each hop.
    facts: BTreeMap<u8, Facts>,
    sessions: u64,
    /// Of the latest session.
    cookie: u64,
    measured: u64,
}

impl Ledger {
    /// An empty one, of the node `name`.
    pub fn new(name: &str, role: &str, started: WallTime, baseline: Baseline) -> Self {
        let mut ledger = Self {
            books: BTreeMap::new(),
            baseline,
            name: name.into(),
            role: role.into(),
            started,
            notices: Vec::new(),
            more_notices: 0,
            malformed: 0,
        };
        ledger.book(0);
        ledger
    }

    fn book(&mut self, hop: u8) -> &mut Book {
        let (baseline, name) = (&self.baseline, &self.name);
        self.books.entry(hop).or_insert_with(|| Book {
            model: Model::new(baseline.clone()),
            names: BTreeMap::from([(hop, name.clone())]),
            path: PathReport::default(),
            facts: BTreeMap::new(),
            sessions: 0,
            cookie: 0,
            measured: 0,
        })
    }

    /// The book that the report is made of: the one with most blocks.
    fn main(&self) -> &Book {
        let fullest = self.books.values().max_by_key(|book| book.measured);
        fullest.expect("hop 0 has a book from the start")
    }

    /// Enters a measurement; a trip's parts come back, for those who print a line for each.
    pub fn take(&mut self, measurement: Measurement) -> Option<Taken> {
        match measurement {
            Measurement::Trip(trip) => {
                let book = self.book(origin(&trip));
                let parts = book.model.record(&trip);
                book.measured += u64::from(parts.is_ok());
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
            Measurement::Facts(hop, facts) => {
                self.book(hop).facts.insert(facts.hop, *facts);
            }
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
        let mut nodes = path.nodes;
        for node in &mut nodes {
            if count[&node.name] > 1 || node.name.is_empty() {
                node.name = format!("{}#{}", node.name, node.hop);
            }
        }
        let book = self.book(path.hop);
        book.names = nodes
            .iter()
            .map(|node| (node.hop, node.name.clone()))
            .collect();
        book.sessions += 1;
        book.cookie = path.cookie;
        book.path = PathReport {
            cookie: (book.sessions == 1).then_some(path.cookie),
            nodes,
        };
    }

    /// Names by hop, as far as the path is known.
    pub fn names(&self) -> &BTreeMap<u8, String> {
        &self.main().names
    }

    /// Names by hop on the path of `trip`.
    pub fn names_of(&self, trip: &Trip) -> &BTreeMap<u8, String> {
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
                "{} blocks came back with stamps that make no path; left out",
                self.malformed
            ));
        }
        let main = self.main();
        for (hop, book) in &self.books {
            if book.measured > 0 && !std::ptr::eq(book, main) {
                notices.push(format!(
                    "{} blocks more were measured in the place of hop {hop} on another path; not in these figures",
                    book.measured
                ));
            }
        }
        Report {
            started: self.started,
            ended,
            role: self.role.clone(),
            path: main.path.clone(),
            blocks,
            statistics: main.model.statistics(&main.names),
            facts: main.facts.values().cloned().collect(),
            dropped,
            notices,
        }
    }
}

/// The hop from which a trip is looked at.
fn origin(trip: &Trip) -> u8 {
    trip.crossings.first().map_or(0, |own| own.hop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SignedNanos;

    #[test]
    fn what_a_node_saw_in_two_places_of_a_path_does_not_mix() {
        let mut ledger = Ledger::new("B", "relay", WallTime(0), Baseline::FirstHalf);
        for (hop, blocks) in [(0, 2), (1, 5)] {
            for _ in 0..blocks {
                let residence = SignedNanos(1_000);
                ledger.take(Measurement::Residence(hop, Direction::Forward, residence));
            }
        }
        let report = ledger.report(WallTime(1), Blocks::default(), 0);
        let host = &report.statistics.hosts[0];
        assert_eq!((report.statistics.hosts.len(), host.hop), (1, 1));
        assert_eq!(host.forward_residence.map(|summary| summary.count), Some(5));
        assert_eq!(ledger.measured(), 5);
        assert!(
            report
                .notices
                .iter()
                .any(|n| n.starts_with("2 blocks more")),
            "{:?}",
            report.notices
        );
    }

    #[test]
    fn nodes_of_one_name_are_told_apart_by_their_hop() {
        let mut ledger = Ledger::new("vm", "source", WallTime(0), Baseline::FirstHalf);
        let node = |hop, name: &str| crate::report::PathNode {
            hop,
            name: name.into(),
            ..Default::default()
        };
        let nodes = vec![node(0, "vm"), node(1, "B"), node(2, "vm")];
        ledger.take(Measurement::Path(Box::new(Path {
            cookie: 1,
            hop: 0,
            nodes,
        })));
        let names: Vec<_> = ledger.names().values().cloned().collect();
        assert_eq!(names, ["vm#0", "B", "vm#2"]);
    }

    #[test]
    fn notices_are_bounded() {
        let mut ledger = Ledger::new("A", "source", WallTime(0), Baseline::FirstHalf);
        for number in 0..1000 {
            ledger.notice(format!("fault {number}"));
        }
        let report = ledger.report(WallTime(1), Blocks::default(), 0);
        assert_eq!(report.notices.len(), NOTICES + 1);
        assert_eq!(report.notices[NOTICES], "and 980 notices more");
    }
}
