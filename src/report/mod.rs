//! Turns one [`Report`] into bytes: text, JSON, CSV, metrics, the line of a plugin or a page of
//! HTML.
//!
//! It has no files, no clock and no statistics of its own. [`mod@format`] lists the formats.

pub mod block;
pub mod comparison;
pub mod csv;
pub mod format;
pub(crate) mod header_delays;
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
use crate::measure::sla::{LimitState, RuleEvent};
use crate::measure::timeline::Timeline;
use crate::measure::{FlowStatistics, HeaderDelays, Histogram, Part, Sla, Statistics, VerdictKind};
use crate::time::{Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// The state of a service, in the words of the Monitoring Plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Within its limits.
    Ok,
    /// Beyond a warning limit.
    Warning,
    /// Beyond a critical limit, or down.
    Critical,
    /// It is not known.
    Unknown,
}

impl State {
    /// Every state with its word; the index is the exit code.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Ok, "OK"),
        (Self::Warning, "WARNING"),
        (Self::Critical, "CRITICAL"),
        (Self::Unknown, "UNKNOWN"),
    ];

    /// Returns the word in capitals.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Returns a rank, greater for worse: an unknown state is worse than `Ok`.
    pub fn severity(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }

    /// Returns the state of a run that was broken, received so many blocks or is held against
    /// limits. Unknown if a rule is about no part of the path.
    pub fn of(broken: Option<Self>, received: u64, sla: Sla, unmatched: bool) -> Self {
        match (broken, received, sla) {
            (Some(state), ..) => state,
            (None, 0, _) | (.., Sla::Critical) => Self::Critical,
            (.., Sla::Warning) => Self::Warning,
            // It would never alarm.
            _ if unmatched => Self::Unknown,
            (.., Sla::Ok | Sla::None) => Self::Ok,
        }
    }
}

/// A node of the path, as it introduced itself in its OPEN annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathNode {
    /// The position on the path; the source is 0.
    pub hop: u8,
    /// The random identity.
    pub id: u64,
    /// `--node NAME`, by default its host name. Written by a peer: escape it.
    pub name: String,
    /// `source`, `relay`, `echo`, `entry`, `exit`, `proxy`.
    pub role: String,
    /// The address that its upstream neighbour connected to; `None` at the source.
    pub address: Option<String>,
    /// `--add-static-tags`.
    pub tags: Vec<String>,
    /// The time that its connect to the next hop took, key agreement included; `None` if it has
    /// none.
    pub connect: Option<Nanos>,
    /// The greatest error of its wall clock, as its kernel stated it when the path was made; `None`
    /// if it was not synchronised.
    pub clock_error: Option<Nanos>,
}

impl PathNode {
    /// Returns the memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        let address = self.address.as_ref().map_or(0, String::capacity);
        let tags = self
            .tags
            .iter()
            .map(|tag| size_of::<String>() + tag.capacity());
        let texts = self.name.capacity() + self.role.capacity() + address;
        size_of::<Self>() + texts + tags.sum::<usize>()
    }
}

/// The reason why a path was broken at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The state to report.
    pub state: State,
    /// The error, which is one of the notices too.
    pub text: String,
}

/// One of the flows of a probe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowReport {
    /// This end of its latest connection; `None` if it never stood.
    pub local: Option<SocketAddr>,
    /// Its figures.
    pub statistics: FlowStatistics,
}

/// A server that does not accept connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerDown {
    /// The end of the first connect that failed since one succeeded, on this node's wall clock.
    pub since: WallTime,
    /// The error of the latest one.
    pub error: String,
}

/// The nodes of the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathReport {
    /// Identifier of the (last) session; `None` where none was opened.
    pub cookie: Option<u64>,
    /// In order of hops.
    pub nodes: Vec<PathNode>,
}

/// The figures of all paths through a node that have no label of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathRest {
    /// The whole path, of blocks that came back.
    pub round_trip: Histogram,
    /// The time in this node, forward and return, where it sees no block come back.
    pub residence: [Histogram; 2],
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
    /// Fell due while no session was open, and were never sent.
    pub unsent: u64,
    /// Answered after `--timeout`.
    pub late: u64,
    /// Answered again.
    pub duplicate: u64,
    /// Payload sent.
    pub payload_bytes: u64,
}

impl Blocks {
    /// Returns the sum of the counts of several flows.
    pub fn sum(all: impl Iterator<Item = Self>) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            sent: sum.sent + one.sent,
            received: sum.received + one.received,
            lost: sum.lost + one.lost,
            unsent: sum.unsent + one.unsent,
            late: sum.late + one.late,
            duplicate: sum.duplicate + one.duplicate,
            payload_bytes: sum.payload_bytes + one.payload_bytes,
        })
    }

    /// Returns the number of blocks that fell due.
    pub fn due(&self) -> u64 {
        self.sent.saturating_add(self.unsent)
    }

    /// Returns the number of those without an answer, by the end or at a break.
    pub fn missing(&self) -> u64 {
        self.lost.saturating_add(self.unsent)
    }

    /// Returns the share of blocks without an answer among all that fell due, 0 to 1; `None` if
    /// none did.
    pub fn loss(&self) -> Option<f64> {
        let due = self.due();
        (due > 0).then(|| self.missing() as f64 / due as f64)
    }
}

/// The results of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The time at which the run began, on this node's wall clock.
    pub started: WallTime,
    /// The time at which it ended.
    pub ended: WallTime,
    /// The role of the node that reports.
    pub role: String,
    /// Nodes and cookie.
    pub path: PathReport,
    /// The name of the path at a node that listens, `NAME@ADDRESS` of hop 0 and neighbour; `None`
    /// elsewhere. A peer wrote a part of it: escape it.
    pub label: Option<String>,
    /// The other paths with a label, each with figures of its own.
    pub others: Vec<Report>,
    /// The figures of the paths without a label.
    pub rest: PathRest,
    /// Counts.
    pub blocks: Blocks,
    /// The time from the start of the probe until its path stood: connected, and OPEN answered.
    /// `None` if it never stood, and for nodes that send no probes.
    pub opened: Option<Nanos>,
    /// The failure of the latest connect of an exit to its server; `None` if it accepted, or if
    /// none is known.
    pub server_down: Option<ServerDown>,
    /// The flows of the probe, in order; empty for one.
    pub flows: Vec<FlowReport>,
    /// Figures and verdict.
    pub statistics: Statistics,
    /// The state of each limit of each part; empty without rules.
    pub limits: Vec<LimitState>,
    /// A rule is about no part of the path.
    pub unmatched: bool,
    /// The latest 100 changes of state, oldest first.
    pub events: Vec<RuleEvent>,
    /// The path was broken at the end; `None` where it was not.
    pub broken: Option<Broken>,
    /// The latest annotations of each hop; empty if none were requested.
    pub annotations: Vec<NodeAnnotations>,
    /// The run over time; `None` unless a picture needs it and something was measured.
    pub timeline: Option<Timeline>,
    /// The first annotations since the same classes are requested: the origin of counters.
    pub first_annotations: Vec<NodeAnnotations>,
    /// The delays by stamps in heads of HTTP, of all paths.
    pub header_delays: HeaderDelays,
    /// Measurements dropped because the collector was behind.
    pub dropped: u64,
    /// Sentences about a broken path, a pool of nodes or an error.
    pub notices: Vec<String>,
}

impl Report {
    /// Returns the node at `hop`, the first of a pool; `None` if it sent no OPEN annotation.
    pub fn node_at(&self, hop: u8) -> Option<&PathNode> {
        self.path.nodes.iter().find(|node| node.hop == hop)
    }

    /// Returns the name of the node at `hop`, not escaped; `hop 3` if it sent none.
    pub fn name_at(&self, hop: u8) -> String {
        name_or_hop(self.node_at(hop).map(|node| node.name.as_str()), hop)
    }

    /// Returns the worst state of a part against its limits; `Sla::None` without limits.
    pub fn part_state(&self, part: Part) -> Sla {
        let own = self.limits.iter().filter(|limit| limit.part == part);
        own.map(|limit| limit.state).max().unwrap_or_default()
    }

    /// Returns the second answer as a sentence, not escaped; `None` where it is unknown.
    ///
    /// `Most of the delay: B -> C, 75 % (40.1 of 53.0 ms); nothing changed`
    pub fn largest_text(&self) -> Option<String> {
        let largest = self.statistics.largest.as_ref()?;
        let ms = |span: SignedNanos| text::millis(span, text::FIGURE);
        let mut text = match largest.share {
            Some(share) if share >= 0.5 => "Most of the delay: ".to_owned(),
            _ => "Largest part: ".to_owned(),
        };
        text += &largest.name;
        let parts = self.statistics.parts.iter();
        let parts = parts.filter(|part| !part.part.is_server());
        let whole: SignedNanos = parts.filter_map(|part| part.mean).sum();
        let mean = ms(largest.mean);
        text += &match largest.share {
            Some(share) => format!(", {:.0} % ({mean} of {} ms)", share * 100.0, ms(whole)),
            None => format!(", {mean} ms"),
        };
        if let Some(second) = &largest.second {
            text += &format!(", and {second} about as much");
        }
        let verdict = &self.statistics.verdict;
        if verdict.kind == VerdictKind::None && verdict.least.is_some() {
            text += "; nothing changed";
        }
        Some(text)
    }

    /// Returns a sentence, not escaped, for each flow that differs from the others:
    /// `flow 5 of 8 (192.0.2.1:41234): +20.1 ms in B -> C only`.
    pub fn odd_flows(&self) -> Vec<String> {
        let of = self.flows.len();
        let sentence = |(index, flow): (usize, &FlowReport)| {
            let parts = flow.statistics.parts.iter();
            let odd = parts.filter_map(|part| Some((part.part, part.difference?)));
            let odd = odd.map(|(part, by)| {
                let by = text::signed_millis(by);
                format!("{by} ms in {}", self.part_name(part))
            });
            let odd: Vec<String> = odd.collect();
            let only = match odd.len() {
                0 => return None,
                1 => " only",
                _ => "",
            };
            let local = flow
                .local
                .map_or_else(String::new, |end| format!(" ({end})"));
            Some(format!(
                "flow {index} of {of}{local}: {}{only}",
                odd.join(", ")
            ))
        };
        (1..).zip(&self.flows).filter_map(sentence).collect()
    }

    /// Returns the state of the run.
    ///
    /// A path without a measurement is critical, a broken one has the state that the user gave. Any
    /// other has the worst state of all limits, and is `Ok` without limits. A rule that is about no
    /// part of the path makes it unknown where nothing is worse.
    pub fn state(&self) -> State {
        let broken = self.broken.as_ref().map(|broken| broken.state);
        State::of(
            broken,
            self.blocks.received,
            self.statistics.sla,
            self.unmatched,
        )
    }

    /// Returns the name of a part of the path; see [`part_name`].
    pub fn part_name(&self, part: Part) -> String {
        let nodes = self.path.nodes.iter().rev(); // Of a pool the first counts.
        let names = nodes.map(|node| (node.hop, node.name.clone())).collect();
        part_name(&names, part)
    }
}

/// Returns the name of a part of the path, not escaped: `B -> C`, `C`, `total`.
pub fn part_name(names: &VecMap<u8, String>, part: Part) -> String {
    let last = names.keys().last().copied();
    part.name(
        &|hop| name_or_hop(names.get(&hop).map(String::as_str), hop),
        last,
    )
}

/// Returns the name of the node at `hop`, or `hop 3` if it has none.
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

/// Returns hosts and segments interleaved by hop, in the order of the bytes, whatever gaps one kind
/// has.
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

/// Returns `text` with every character escaped that could move a cursor, recolour, reorder or hide
/// text.
///
/// Peers write names, tags and error texts, so no renderer for people passes them on unescaped.
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

/// Returns `true` for C0 and C1 controls, zero-width and bidirectional formatting, line separators.
///
/// U+009B, a C1 control, begins an escape sequence too.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}
