//! One [`Report`] value in; text, JSON, JSON lines, CSV, metrics, a plugin's line or a page of HTML out, as bytes. No files,
//! no clock, no statistics of its own.

pub mod block;
pub mod comparison;
pub mod csv;
pub mod history;
pub mod html;
pub mod influx;
pub mod json;
pub mod jsonl;
pub mod nagios;
pub mod otlp;
pub mod passive;
pub mod paths;
pub mod prometheus;
pub mod screen;
pub mod session;
#[cfg(test)]
mod tests;
pub mod text;

use crate::annotation::NodeAnnotations;
use crate::measure::sla::{Event, LimitState, Place as Part};
use crate::measure::timeline::Timeline;
use crate::measure::{Sla, Statistics, VerdictKind};
use crate::time::{Nanos, WallTime};
use crate::vec_map::VecMap;
use std::fmt::Write as _;

/// How a service stands, in the words of the Monitoring Plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Within its limits.
    Ok,
    /// Beyond a warning limit.
    Warning,
    /// Beyond a critical limit, or down.
    Critical,
    /// It cannot be said.
    Unknown,
}

impl State {
    /// Every state with its word; its place is its exit code.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Ok, "OK"),
        (Self::Warning, "WARNING"),
        (Self::Critical, "CRITICAL"),
        (Self::Unknown, "UNKNOWN"),
    ];

    /// Its word, in capitals.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Greater is worse; what is not known is worse than what is well.
    pub fn severity(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }

    /// What a run comes to.
    pub fn of(broken: Option<Self>, received: u64, sla: Sla) -> Self {
        match (broken, received, sla) {
            (Some(state), ..) => state,
            (None, 0, _) | (.., Sla::Critical) => Self::Critical,
            (.., Sla::Warning) => Self::Warning,
            (.., Sla::Ok | Sla::None) => Self::Ok,
        }
    }
}

/// A node of the path, as it introduced itself in its OPEN annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathNode {
    /// Its place; the source is 0.
    pub hop: u8,
    /// Its random identity.
    pub id: u64,
    /// `--node NAME`, by default its host name. Written by a peer: escape it.
    pub name: String,
    /// `source`, `relay`, `echo`, `entry`, `exit`, `proxy`.
    pub role: String,
    /// The address that its upstream neighbour connected to; `None` at the source.
    pub address: Option<String>,
    /// `--add-static-tags`.
    pub tags: Vec<String>,
    /// How long its onward connect took, the agreement on a key included; `None` where it has none.
    pub connect: Option<Nanos>,
}

/// How a run ended that ended badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What the path is to be called.
    pub state: State,
    /// What broke it; it stands among the notices too.
    pub text: String,
}

/// What is known of the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathReport {
    /// Identifier of the (last) session; `None` where none was opened.
    pub cookie: Option<u64>,
    /// In order of hops.
    pub nodes: Vec<PathNode>,
}

/// Counts of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Handed to the kernel.
    pub sent: u64,
    /// Answered, each once.
    pub received: u64,
    /// Unanswered at the end or at a break.
    pub lost: u64,
    /// Answered after `--timeout`.
    pub late: u64,
    /// Answered again.
    pub duplicate: u64,
    /// Payload sent.
    pub payload_bytes: u64,
}

/// Everything a run has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When the run began, on this node's wall clock.
    pub started: WallTime,
    /// When it ended.
    pub ended: WallTime,
    /// The role of the node that reports.
    pub role: String,
    /// Nodes and cookie.
    pub path: PathReport,
    /// Counts.
    pub blocks: Blocks,
    /// Figures and verdict.
    pub statistics: Statistics,
    /// How each part stands to each of its limits; empty without rules.
    pub limits: Vec<LimitState>,
    /// What turned, oldest first; the latest 100.
    pub events: Vec<Event>,
    /// The path was broken at the end; `None` where it was not.
    pub broken: Option<Broken>,
    /// What nodes told of themselves, the latest of each hop; empty where nothing was asked.
    pub annotations: Vec<NodeAnnotations>,
    /// The run over time; `None` where nobody asked for it (only pictures need it), or nothing was measured.
    pub timeline: Option<Timeline>,
    /// The first answers since the same was asked: what counters have grown from.
    pub first_facts: Vec<NodeAnnotations>,
    /// Measurements dropped because the collector was behind.
    pub dropped: u64,
    /// What the reader has to know besides, a sentence each (a broken path, a pool of nodes, an
    /// error).
    pub notices: Vec<String>,
}

impl Report {
    /// The node at `hop` as it introduced itself; the first of them where a pool answers.
    pub fn node_at(&self, hop: u8) -> Option<&PathNode> {
        self.path.nodes.iter().find(|node| node.hop == hop)
    }

    /// The name of the node at `hop`, as its owner wrote it; `hop 3` where it never introduced
    /// itself.
    pub fn name_at(&self, hop: u8) -> String {
        name_or_hop(self.node_at(hop).map(|node| node.name.as_str()), hop)
    }

    /// What the verdict names, if that is on the path: a host by its hop, a segment by its index.
    fn named(&self) -> Option<Place<u8, usize>> {
        let verdict = &self.statistics.verdict;
        match verdict.kind {
            VerdictKind::Host => verdict.index?.try_into().ok().map(Place::Host),
            VerdictKind::Source => Some(Place::Host(self.statistics.hosts.first()?.hop)),
            VerdictKind::Segment => verdict.index.map(Place::Segment),
            VerdictKind::Server
            | VerdictKind::Connect
            | VerdictKind::Behind
            | VerdictKind::Clock
            | VerdictKind::Down
            | VerdictKind::None => None,
        }
    }

    /// How it all stands: a path on which nothing was measured is critical, one that is broken what the user calls that;
    /// else it is the worst of all limits, and `Ok` without limits.
    pub fn state(&self) -> State {
        let broken = self.broken.as_ref().map(|broken| broken.state);
        State::of(broken, self.blocks.received, self.statistics.sla)
    }

    /// What a part of the path is called, as [`place_name`] says.
    pub fn place_name(&self, place: Part) -> String {
        let nodes = self.path.nodes.iter().rev(); // Of a pool the first counts.
        let names = nodes.map(|node| (node.hop, node.name.clone())).collect();
        place_name(&names, place)
    }
}

/// What a part of the path is called, its nodes' names as their owners wrote them: `B -> C`, `C`, `total`.
pub fn place_name(names: &VecMap<u8, String>, place: Part) -> String {
    place.name(&|hop| name_or_hop(names.get(&hop).map(String::as_str), hop))
}

/// What the node at `hop` is called: its name, or `hop 3` where it has none.
fn name_or_hop(name: Option<&str>, hop: u8) -> String {
    match name {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => format!("hop {hop}"),
    }
}

/// A node of the path or a stretch between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<H, S> {
    Host(H),
    Segment(S),
}

/// Hosts and segments interleaved by hop, as the bytes meet them. None is left out where one kind
/// has gaps.
fn in_path_order<'a, H, S>(
    hosts: &'a [H],
    hop: impl Fn(&H) -> u8,
    segments: &'a [S],
    from_hop: impl Fn(&S) -> u8,
) -> Vec<Place<&'a H, &'a S>> {
    let hosts = hosts.iter().map(|host| ((hop(host), 0), Place::Host(host)));
    let segments = segments
        .iter()
        .map(|segment| ((from_hop(segment), 1), Place::Segment(segment)));
    let mut places: Vec<_> = hosts.chain(segments).collect();
    places.sort_by_key(|&(key, _)| key);
    places.into_iter().map(|(_, place)| place).collect()
}

/// `text` with everything escaped that could move a cursor, recolour, reorder or hide what a
/// terminal shows.
///
/// Names, tags and error texts are written by peers, so no renderer for people passes them on as
/// they are.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// C0 and C1 controls (U+009B begins an escape sequence too), zero-width and bidirectional
/// formatting, line separators.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}
