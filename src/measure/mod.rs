//! Stamps of one block in; delays, statistics and the verdict out. Pure: time is an argument.
//!
//! Read RFC 2681 (round-trip delay), RFC 7679 (one-way delay) and RFC 5905 §8 (clock offset) first.
//!
//! ```text
//! Trip ──split──► Parts ──┬─► histogram   distribution of each part over the run
//!                         ├─► clock       offset and skew of each segment's far clock
//!                         ├─► held        how long each pump was blocked in write
//!                         └─► series      bounded rows in order of time ──batches──► verdict
//!                                                                       └─slots───► timeline
//! ```
//!
//! `model` ties them together; `sla` holds the parts against limits, `why` has the cause; `state` is the text in which a run is kept for later ones.

pub mod baseline;
pub mod change;
mod clock;
mod held;
mod histogram;
mod model;
mod series;
pub mod sla;
#[cfg(test)]
mod tests;
pub mod timeline;
mod trip;
mod verdict;
pub mod why;

pub use baseline::{RunRecord, StateError};
pub use histogram::{Histogram, BUCKETS_NS};
pub use model::{Baseline, Model};
pub use trip::{HostPart, Parts, SegmentPart, Trip, TripError};

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

/// One node's stamp on one block: what `wire` carries in a stamp, as a value.
///
/// All times are the node's own wall clock, in user space: ingress follows the `read` that completed the frame, egress
/// precedes the `write` of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopStamp {
    /// Who stamped.
    pub node: NodeId,
    /// Its place on the path; the source is 0. Hops that do not stamp leave gaps.
    pub hop: u8,
    /// Which way.
    pub direction: StampDirection,
    /// Raised by the node at each step of its clock; crossings of one node with different generations make no pair.
    pub generation: u8,
    /// The node's clock was stepped between ingress and egress of this very crossing.
    pub stepped: bool,
    /// The node's kernel calls its clock synchronised.
    pub synchronised: bool,
    /// How long the stamping pump was blocked in `write` since its previous stamp; saturates at 71 minutes.
    pub held: Nanos,
    /// Kernel receive time of the last byte; `None` where the kernel does not tell.
    pub arrival: Option<WallTime>,
    /// The frame was completely read. At the source of a path: when the block was due (its scheduled time).
    pub ingress: WallTime,
    /// Just before the frame was handed to the kernel.
    pub egress: WallTime,
}

impl HopStamp {
    /// How much later than its kernel the process had the frame; `None` where that is not known, or cannot be true.
    pub fn wake_up(&self) -> Option<SignedNanos> {
        wake_up(self.arrival, self.ingress)
    }
}

impl Return {
    /// As [`HopStamp::wake_up`], at the origin.
    pub fn wake_up(&self) -> Option<SignedNanos> {
        wake_up(self.arrival, self.ingress)
    }
}

/// What lies outside of 0 to 1 s is a clock that was stepped, or nonsense.
fn wake_up(arrival: Option<WallTime>, ingress: WallTime) -> Option<SignedNanos> {
    let late = ingress - arrival?;
    (SignedNanos::ZERO..=LATEST).contains(&late).then_some(late)
}

/// The latest that a process is believed to read.
pub const LATEST: SignedNanos = SignedNanos::from_millis(1_000);

/// The moment a block came back to the node that keeps the statistics (the origin).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Kernel receive time of the last byte; `None` where the kernel does not tell.
    pub arrival: Option<WallTime>,
    /// The frame was completely read, on the origin's wall clock.
    pub ingress: WallTime,
    /// Just before it was passed on further back; `None` at the source and at an entry, where the frame ends.
    pub egress: Option<WallTime>,
    /// The origin's clock generation then.
    pub generation: u8,
    /// How long the origin's return pump was blocked in `write` since its previous stamp.
    pub held: Nanos,
}

/// What a set of measurements says of itself; exists only where at least one value does.
///
/// Percentiles come from a log-linear histogram with at most 1 % relative error; the others are exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// The least.
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
    /// The greatest.
    pub max: SignedNanos,
    /// The most recent one; for people, not in the JSON.
    pub last: SignedNanos,
}

/// What the verdict names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictKind {
    /// A stretch between two neighbouring nodes.
    Segment,
    /// A node's residence time, or its wake-up delay ([`Verdict::reads_late`]).
    Host,
    /// The source's own delay between the scheduled time and the send.
    Source,
    /// The server behind an exit, and the network to it.
    Server,
    /// A clock was stepped: the figures beside it are not network delay.
    Clock,
    /// Nothing stands out, or nothing was measured.
    None,
}

impl VerdictKind {
    /// The word for it in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::Host => "host",
            Self::Source => "source",
            Self::Server => "server",
            Self::Clock => "clock",
            Self::None => "none",
        }
    }
}

/// Which way the increase of a segment lies, or that of a wake-up delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictDirection {
    /// Away from the source.
    Forward,
    /// Back to the source.
    Return,
    /// Some of it each way.
    Both,
}

impl VerdictDirection {
    /// The word for it in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Return => "return",
            Self::Both => "both",
        }
    }
}

/// What the verdict was reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Growth over the baseline.
    Increase,
    /// The largest part of the whole, for want of a baseline.
    Share,
}

/// The quantile that a verdict's figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The median.
    P50,
    /// The 95th percentile.
    P95,
}

/// How far the verdict can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// Its interval is clear of the runner-up's.
    High,
    /// Read the reason.
    Low,
}

/// How a part stands to the limits that the user gave (a service level agreement).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sla {
    /// There is no limit for it.
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
    /// The word for it: `none`, `ok`, `warning`, `critical`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The answer to the question the program exists for.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What is named.
    pub kind: VerdictKind,
    /// Index of a segment, or hop of a host; `None` for the others.
    pub index: Option<usize>,
    /// `B -> C`, `C`, `server`; `none` where nothing stands out.
    pub name: String,
    /// `None` where it cannot be told from unsynchronised clocks, or has no meaning.
    pub direction: Option<VerdictDirection>,
    /// Increase or share.
    pub basis: Basis,
    /// The quantile that decided.
    pub figure: Figure,
    /// The named part's share of the sum of all totals; `None` where nothing is named.
    pub share: Option<f64>,
    /// Median of the differences between current and baseline batches.
    pub increase: Option<SignedNanos>,
    /// Low end of its interval (about 99 %).
    pub increase_low: Option<SignedNanos>,
    /// High end of its interval.
    pub increase_high: Option<SignedNanos>,
    /// High or low.
    pub confidence: Confidence,
    /// Why, in a few words: the rule that decided and what limits the confidence.
    pub reason: String,
    /// One sentence for people.
    pub text: String,
    /// What lies behind it, by what nodes and kernels told: `network`, `host C is busy: ...`; `unknown` where the rules do
    /// not decide; `None` where nothing was asked.
    pub cause: Option<String>,
    /// The host was named for its wake-up delay: its process reads late what its kernel has.
    pub reads_late: bool,
}

/// Figures of one segment over a run.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentStatistics {
    /// Hop of the near node.
    pub from_hop: u8,
    /// Hop of the far node.
    pub to_hop: u8,
    /// Round-trip delay, the far node's share taken out.
    pub round_trip: Option<Summary>,
    /// All of those round trips.
    pub distribution: Histogram,
    /// Round-trip delay without the wake-up delays at its two ends: from a hand-over to the kernel to the arrival in the
    /// other's; `None` where a kernel told no arrival.
    pub network: Option<Summary>,
    /// One-way delay above its own minimum, away from the source, after offset and skew; `None` where the clocks forbid it.
    pub forward_excess: Option<Summary>,
    /// The same on the way back.
    pub return_excess: Option<Summary>,
    /// Share of the time in which the far node was blocked writing further on (0 to 1); `None` where it is unknown.
    pub held_share: Option<f64>,
    /// Clock of the far node minus clock of the near node.
    pub clock_offset: Option<SignedNanos>,
    /// Bound of the offset's error.
    pub clock_offset_error: Option<Nanos>,
    /// Rate of the far clock against the near one, in parts per million.
    pub clock_skew_ppm: Option<f64>,
    /// Sum of this part / sum of the totals. This, baseline and increase are of the network delay where it is known of nearly
    /// all blocks, else of the round trip.
    pub share: Option<f64>,
    /// Median of the baseline batches' quantile (the figure that stands out most, else p50).
    pub baseline: Option<SignedNanos>,
    /// Growth over it.
    pub increase: Option<SignedNanos>,
    /// Round trips below zero: a clock was stepped in flight; kept, and counted here.
    pub negative: u64,
    /// How it stands to its limits.
    pub sla: Sla,
}

/// Figures of one node over a run.
#[derive(Clone, Debug, PartialEq)]
pub struct HostStatistics {
    /// Its place on the path.
    pub hop: u8,
    /// The identities seen at this hop, in order of appearance; more than one is a pool behind a balancer.
    pub nodes: Vec<NodeId>,
    /// Egress minus ingress on the way out; for a reflector its whole residence.
    pub forward_residence: Option<Summary>,
    /// All of those.
    pub forward_distribution: Histogram,
    /// The same on the way back; `None` at a reflector and at the source.
    pub return_residence: Option<Summary>,
    /// All of those.
    pub return_distribution: Histogram,
    /// Ingress minus the kernel's receive time on the way out: how late the process reads; `None` where the kernel tells
    /// none.
    pub forward_wake_up: Option<Summary>,
    /// The same on the way back.
    pub return_wake_up: Option<Summary>,
    /// Sum of the wake-up delays / sum of the totals, of those that the segments beside it are judged without: the others
    /// count there. `None` where that is neither way, or too few are known. All shares of a path, with those of segments
    /// and residences, add up to 1.
    pub wake_up_share: Option<f64>,
    /// Median of the baseline batches' quantile of the wake-up delay, both ways together.
    pub wake_up_baseline: Option<SignedNanos>,
    /// Growth over it.
    pub wake_up_increase: Option<SignedNanos>,
    /// Sum of this part / sum of the totals.
    pub share: Option<f64>,
    /// Median of the baseline batches' quantile.
    pub baseline: Option<SignedNanos>,
    /// Growth over it.
    pub increase: Option<SignedNanos>,
    /// Clock steps seen at this node.
    pub clock_steps: u64,
    /// How it stands to its limits.
    pub sla: Sla,
}

/// All figures of a run; what a report is rendered from.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// From the scheduled time to the return ingress at the origin.
    pub round_trip: Option<Summary>,
    /// All of those.
    pub distribution: Histogram,
    /// How the total stands to its limits, and the worst of all parts.
    pub sla: Sla,
    /// In order of the path.
    pub segments: Vec<SegmentStatistics>,
    /// In order of the path; one more than the segments.
    pub hosts: Vec<HostStatistics>,
    /// First reply byte minus last forward write, at an exit: the server and the network to it.
    pub behind_exit: Option<Summary>,
    /// How often a node id changed at a hop, or the path its shape.
    pub path_changes: u64,
    /// The answer.
    pub verdict: Verdict,
}
