//! Delays, statistics and the verdict from the stamps of blocks. Time is an argument.
//!
//! The definitions are those of RFC 2681 (round-trip delay), RFC 7679 (one-way delay) and RFC 5905
//! §8 (clock offset).
//!
//! ```text
//! Trip ─split─► Parts ─┬─► histogram  distribution of each part over the run
//!                      ├─► clock      offset and skew of each segment's far clock
//!                      ├─► held       time that each pump was blocked in write
//!                      └─► series     bounded rows in order of time ─batches─► verdict
//!                                                                   └─slots──► timeline
//! ```
//!
//! `model` combines them, `sla` compares the parts with limits, and `why` finds the cause.
//! `baseline` is the text that keeps a run for later ones.

pub mod baseline;
pub mod change;
mod chunk;
mod clock;
pub mod compare;
mod header_delays;
mod held;
mod histogram;
mod model;
mod part;
mod series;
pub mod sla;
#[cfg(test)]
pub(crate) mod tests;
pub mod timeline;
mod trip;
mod verdict;
pub mod why;

pub use baseline::{PathHistory, Record, RunHistories, StateError, StateText};
pub use header_delays::{HeaderDelay, HeaderDelayKind, HeaderDelays};
pub use histogram::{Counts, Histogram, BUCKETS_NS};
pub use model::{Baseline, FlowPart, FlowStatistics, Model};
pub use part::Part;
pub use trip::{HostPart, Parts, Retransmits, SegmentPart, Trip, TripError};

use crate::time::{Nanos, SignedNanos, WallTime};
pub use crate::wire::StampDirection;
use std::fmt;

/// The random identity of a node's process; `Display` writes 16 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A direction of the path: away from the source, or back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the source to the reflector or exit.
    Forward,
    /// Back to the source.
    Return,
}

/// One node's stamp on one block.
///
/// All times are from the node's own wall clock, in user space. Ingress follows the `read` that
/// completed the frame, egress precedes the `write` of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopStamp {
    /// The node that stamped.
    pub node: NodeId,
    /// Its place on the path; the source is 0. Hops that do not stamp leave gaps.
    pub hop: u8,
    /// The direction of the block.
    pub direction: StampDirection,
    /// Number of steps of the node's clock, modulo 256. Stamps of one node with different
    /// generations make no pair.
    pub generation: u8,
    /// `true` if the node's clock was stepped between ingress and egress of this stamp.
    pub stepped: bool,
    /// The block waited for the node's connection to the next one: the forward residence is that of
    /// the connect.
    pub waited: bool,
    /// The node's kernel calls its clock synchronised.
    pub synchronised: bool,
    /// Time that the stamping pump was blocked in `write` since its previous stamp; saturates at 71
    /// minutes.
    pub held: Nanos,
    /// Kernel receive time of the last byte; `None` if the kernel reported none.
    pub arrival: Option<WallTime>,
    /// End of the read of the frame. At the source of a path: the scheduled time of the block.
    pub ingress: WallTime,
    /// Time just before the frame was passed to the kernel.
    pub egress: WallTime,
}

impl HopStamp {
    /// Returns the delay between the kernel's receive time and the process's read; `None` if it is
    /// unknown or impossible.
    pub fn wake_up(&self) -> Option<SignedNanos> {
        wake_up(self.arrival, self.ingress)
    }
}

impl Return {
    /// Returns the same as [`HopStamp::wake_up`], at the origin.
    pub fn wake_up(&self) -> Option<SignedNanos> {
        wake_up(self.arrival, self.ingress)
    }
}

/// Returns the wake-up delay. Outside of 0 to [`LATEST`] a clock was stepped, or a time is wrong.
fn wake_up(arrival: Option<WallTime>, ingress: WallTime) -> Option<SignedNanos> {
    let late = ingress - arrival?;
    (SignedNanos::ZERO..=LATEST).contains(&late).then_some(late)
}

/// Largest wake-up delay that counts as true.
pub const LATEST: SignedNanos = SignedNanos::from_millis(1_000);

/// The return of a block to the origin, the node that keeps the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Kernel receive time of the last byte; `None` if the kernel reported none.
    pub arrival: Option<WallTime>,
    /// End of the read of the frame, on the origin's wall clock.
    pub ingress: WallTime,
    /// Time just before it was passed on further back; `None` at the source and at an entry, where
    /// the frame ends.
    pub egress: Option<WallTime>,
    /// The origin's clock generation at that time.
    pub generation: u8,
    /// Time that the origin's return pump was blocked in `write` since its previous stamp.
    pub held: Nanos,
}

/// The statistics of a set of at least one value.
///
/// Percentiles come from a log-linear histogram with at most 1 % relative error; the others are
/// exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub count: u64,
    /// The smallest value.
    pub min: SignedNanos,
    /// The arithmetic mean.
    pub mean: SignedNanos,
    /// The standard deviation (of the sample; 0 for one value).
    pub stddev: Nanos,
    /// The median.
    pub p50: SignedNanos,
    /// 90 % are at or below it.
    pub p90: SignedNanos,
    /// 95 % are at or below it.
    pub p95: SignedNanos,
    /// 99 % are at or below it.
    pub p99: SignedNanos,
    /// The largest value.
    pub max: SignedNanos,
    /// The most recent value; not in the JSON.
    pub last: SignedNanos,
}

/// The duration of a connect to the server behind an exit, or the error of one that failed.
pub type ServerOutcome = Result<Nanos, String>;

/// The kind of part that the verdict names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictKind {
    /// A stretch between two neighbouring nodes.
    Segment,
    /// A node: its residence, or its wake-up delay ([`Verdict::reads_late`]).
    Host,
    /// The source's own delay between the due time and the send.
    Source,
    /// The server behind an exit, and the network to it.
    Server,
    /// The connects of a node to the next one.
    Connect,
    /// The stretch behind the last node that stamps.
    Behind,
    /// A clock was stepped: the figures beside it are not network delay.
    Clock,
    /// The path does not answer.
    Down,
    /// Nothing changed, or nothing was measured.
    None,
}

impl VerdictKind {
    /// Returns its word in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Host => "host",
            Self::Source => "source",
            Self::Server => "server",
            Self::Connect => "connect",
            Self::Behind => "behind",
            Self::Clock => "clock",
            Self::Down => "down",
            Self::None => "none",
        }
    }
}

/// The direction in which the delay of a segment, or a wake-up delay, increased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictDirection {
    /// Away from the source.
    Forward,
    /// Back to the source.
    Return,
    /// Both, with a share in each.
    Both,
}

impl VerdictDirection {
    /// Returns its word in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Return => "return",
            Self::Both => "both",
        }
    }
}

/// The comparison that a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Growth over the baseline.
    Increase,
}

/// The figure that a change is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The median.
    P50,
    /// The arithmetic mean: some of the blocks became later.
    Mean,
    /// The 95th percentile.
    P95,
}

impl Figure {
    /// The word for it in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::Mean => "mean",
            Self::P95 => "p95",
        }
    }
}

/// The confidence of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// The interval of the named part does not overlap the next one's.
    High,
    /// The verdict's reason names the cause.
    Low,
}

/// The state of a part with regard to the user's limits (a service level agreement).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sla {
    /// Without a limit.
    #[default]
    None,
    /// Within all its limits.
    Ok,
    /// Beyond a limit of severity warning.
    Warning,
    /// Beyond a limit of severity critical.
    Critical,
}

impl Sla {
    /// Returns its word: `none`, `ok`, `warning`, `critical`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The first answer: the part that changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The kind of the part that is named.
    pub kind: VerdictKind,
    /// Index of a segment, or hop of a host; `None` for the others.
    pub index: Option<usize>,
    /// The part; `None` if none is named.
    pub part: Option<Part>,
    /// `B -> C`, `C`, `server`; `none` if nothing changed.
    pub name: String,
    /// `None` if unsynchronised clocks do not show it, or if it has no meaning.
    pub direction: Option<VerdictDirection>,
    /// `None` if nothing changed.
    pub basis: Option<Basis>,
    /// The figure that changed.
    pub figure: Figure,
    /// The named part's share of the sum of all totals; `None` if nothing is named.
    pub share: Option<f64>,
    /// The change of the figure, per block.
    pub increase: Option<SignedNanos>,
    /// Low end of its interval (about 99 %).
    pub increase_low: Option<SignedNanos>,
    /// High end of its interval.
    pub increase_high: Option<SignedNanos>,
    /// The figure before the change.
    pub baseline: Option<SignedNanos>,
    /// The time at which the first block on the new level was due, by the clock as it is now;
    /// `None` if that is unknown.
    pub since: Option<WallTime>,
    /// The earliest known time that is not before it, where a boot or a clock that was not set lies
    /// between. `None` if [`Self::since`] is known or nothing changed.
    pub since_at_most: Option<WallTime>,
    /// The time at which the change ended; `None` if it lasts.
    pub until: Option<WallTime>,
    /// The least change that would have been named; `None` unless nothing was.
    pub least: Option<Nanos>,
    /// Other changes, the largest first; falls among them.
    pub also: Vec<Also>,
    /// High or low.
    pub confidence: Confidence,
    /// The grounds of the verdict, in a few words.
    pub reason: String,
    /// Reasons to doubt it; empty if the confidence is high.
    pub doubts: Vec<String>,
    /// One sentence for people.
    pub text: String,
    /// The likely cause, by annotations of nodes and kernels: `network`, `host C is busy: ...`;
    /// `unknown` if the rules do not decide. `None` if nothing was asked.
    pub cause: Option<String>,
    /// `true` if the host is named for its wake-up delay.
    pub reads_late: bool,
    /// The blocks that became later are those that a retransmission delayed.
    pub retransmitted: bool,
}

impl Default for Verdict {
    /// Nothing is named, without a reason.
    fn default() -> Self {
        Self {
            kind: VerdictKind::None,
            index: None,
            part: None,
            name: "none".to_owned(),
            direction: None,
            basis: None,
            figure: Figure::P50,
            share: None,
            increase: None,
            increase_low: None,
            increase_high: None,
            baseline: None,
            since: None,
            since_at_most: None,
            until: None,
            least: None,
            also: Vec::new(),
            confidence: Confidence::Low,
            reason: String::new(),
            doubts: Vec::new(),
            text: String::new(),
            cause: None,
            reads_late: false,
            retransmitted: false,
        }
    }
}

/// A change beside the one that the verdict names.
#[derive(Clone, Debug, PartialEq)]
pub struct Also {
    /// The kind of the part.
    pub kind: VerdictKind,
    /// Index of a segment, or hop of a host; `None` for the others.
    pub index: Option<usize>,
    /// The part.
    pub part: Part,
    /// `B -> C`, `C`, `server`.
    pub name: String,
    /// The change, per block; negative for a fall.
    pub increase: SignedNanos,
    /// As [`Verdict::since`].
    pub since: Option<WallTime>,
    /// As [`Verdict::since_at_most`].
    pub since_at_most: Option<WallTime>,
}

/// The second answer: the part that has most of the delay.
#[derive(Clone, Debug, PartialEq)]
pub struct Largest {
    /// The kind of the part.
    pub kind: VerdictKind,
    /// Index of a segment, or hop of a host; `None` for the others.
    pub index: Option<usize>,
    /// The part.
    pub part: Part,
    /// `B -> C`, `C`, `server`.
    pub name: String,
    /// Its share of the sum of all totals; `None` for the server, which is in no total.
    pub share: Option<f64>,
    /// Mean per block of the run.
    pub mean: SignedNanos,
    /// Its median.
    pub p50: Option<SignedNanos>,
    /// The name of the second part, if its mean is within 10 % of this one's.
    pub second: Option<String>,
}

/// Figures of one part: rows that add up to the total.
#[derive(Clone, Debug, PartialEq)]
pub struct PartStatistics {
    /// The part.
    pub part: Part,
    /// Of every block; of a connect, of the blocks that waited.
    pub delay: Option<Summary>,
    /// Of the latest complete window, or of the run before the first has ended.
    pub window: Option<Summary>,
    /// The distribution that [`Self::delay`] summarises.
    pub distribution: Histogram,
    /// Sum of the part / blocks of the run: these add up to the total's mean. Of the server, its
    /// own mean.
    pub mean: Option<SignedNanos>,
    /// Sum of the part / sum of the totals: these add up to 1. `None` for the server.
    pub share: Option<f64>,
    /// The normal delay: of earlier runs, or of this run before its change.
    pub baseline: Option<SignedNanos>,
    /// The largest change, or the difference to earlier runs; `None` without either.
    pub increase: Option<SignedNanos>,
    /// The figure of the change; `None` if nothing is named.
    pub figure: Option<Figure>,
    /// The least change that would have been named; `None` for a run that is too short.
    pub least: Option<Nanos>,
    /// TCP segments sent again, forward and return; `None` if no node reported any reading.
    pub retransmits: [Option<u64>; 2],
    /// Blocks that a retransmission delayed; `None` for other parts than segments.
    pub delayed_by_loss: Option<u64>,
    /// Its state against its limits.
    pub sla: Sla,
}

/// Figures of one segment over a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentStatistics {
    /// Hop of the near node.
    pub from_hop: u8,
    /// Hop of the far node.
    pub to_hop: u8,
    /// Round-trip delay without the far node's residence.
    pub round_trip: Option<Summary>,
    /// The distribution of these round trips.
    pub distribution: Histogram,
    /// Round-trip delay without the wake-up delays at its two ends, from the send in one kernel to
    /// the arrival in the other. `None` if a kernel reported no arrival.
    pub network: Option<Summary>,
    /// One-way delay above its own minimum, away from the source, after offset and skew; `None` if
    /// the clocks do not allow it.
    pub forward_excess: Option<Summary>,
    /// The same on the way back.
    pub return_excess: Option<Summary>,
    /// Share of the time (0 to 1) in which the far node was blocked in writes to the next hop;
    /// `None` if unknown.
    pub held_share: Option<f64>,
    /// Clock of the far node minus clock of the near node.
    pub clock_offset: Option<SignedNanos>,
    /// Bound of the offset's error.
    pub clock_offset_error: Option<Nanos>,
    /// Rate of the far clock against the near one, in parts per million.
    pub clock_skew_ppm: Option<f64>,
    /// As of the part, [`PartStatistics::share`]; likewise baseline and increase.
    pub share: Option<f64>,
    /// Median of the baseline batches' quantile (the figure that stands out most, else p50).
    pub baseline: Option<SignedNanos>,
    /// Increase over the baseline.
    pub increase: Option<SignedNanos>,
    /// Number of negative round trips, which are kept: a clock was stepped while a block was on its
    /// way.
    pub negative: u64,
    /// TCP segments sent again, forward and return; `None` if no node reported any reading.
    pub retransmits: [Option<u64>; 2],
    /// Its state against its limits.
    pub sla: Sla,
}

impl SegmentStatistics {
    /// Returns its name as a part.
    pub fn part(&self) -> Part {
        Part::Segment {
            from: self.from_hop,
            to: self.to_hop,
        }
    }
}

/// Figures of one node over a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostStatistics {
    /// Its place on the path.
    pub hop: u8,
    /// The identities seen at this hop, in order of appearance; more than one is a pool behind a
    /// balancer.
    pub nodes: Vec<NodeId>,
    /// Egress minus ingress on the way out; for a reflector its whole residence.
    pub forward_residence: Option<Summary>,
    /// The distribution of these.
    pub forward_distribution: Histogram,
    /// The same on the way back; `None` at a reflector and at the source.
    pub return_residence: Option<Summary>,
    /// The distribution of these.
    pub return_distribution: Histogram,
    /// Ingress minus the kernel's receive time on the way out; `None` if the kernel reported none.
    pub forward_wake_up: Option<Summary>,
    /// The same on the way back.
    pub return_wake_up: Option<Summary>,
    /// Sum of this part / sum of the totals.
    pub share: Option<f64>,
    /// Median of the baseline batches' quantile.
    pub baseline: Option<SignedNanos>,
    /// Increase over the baseline.
    pub increase: Option<SignedNanos>,
    /// Clock steps seen at this node.
    pub clock_steps: u64,
    /// The state of its limits.
    pub sla: Sla,
}

impl Statistics {
    /// Returns the figures of a part; `None` if it is not on the path.
    pub fn part(&self, part: Part) -> Option<&PartStatistics> {
        self.parts.iter().find(|of| of.part == part)
    }
}

/// All figures of a run; what a report is rendered from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// From the scheduled time to the return ingress at the origin.
    pub round_trip: Option<Summary>,
    /// The distribution of these.
    pub distribution: Histogram,
    /// The state of the total's limits, and the worst of all parts.
    pub sla: Sla,
    /// Of the latest complete window, or of the run before the first has ended.
    pub window: Option<Summary>,
    /// The parts in order of the path, and the server behind it.
    pub parts: Vec<PartStatistics>,
    /// In order of the path.
    pub segments: Vec<SegmentStatistics>,
    /// Figures of the nodes, in order of the path; one more than the segments.
    pub hosts: Vec<HostStatistics>,
    /// First reply byte minus last forward write, at an exit: the server and the network to it.
    pub behind_exit: Option<Summary>,
    /// The connects of an exit to its server.
    pub server_connect: Option<Summary>,
    /// Number of changes of a node id at a hop, or of the path's shape.
    pub path_changes: u64,
    /// The part that changed.
    pub verdict: Verdict,
    /// The part that has most of the delay; `None` for under 5 blocks.
    pub largest: Option<Largest>,
    /// The blocks of each part over time, for a comparison with another run.
    pub batches: Vec<compare::PartBatches>,
}
