//! One [`Report`] value in; text, JSON, JSON lines or CSV out, as bytes. No files, no clock, no statistics of its own.

pub mod passive;

use crate::measure::Statistics;
use crate::time::{Nanos, WallTime};

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
    /// How long its onward connect took; `None` where it has none.
    pub connect: Option<Nanos>,
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
    /// Measurements dropped because the collector was behind.
    pub dropped: u64,
    /// What the reader has to know besides, a sentence each (a broken path, a pool of nodes, an error).
    pub notices: Vec<String>,
}
