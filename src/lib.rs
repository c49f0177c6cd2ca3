//! Which sub-segment of a TCP path, or which host on it, adds the delay - and which one's delay has grown?
//!
//! A chain of small proxies, A -> B -> C -> Z, carries blocks of bytes. Every node stamps every marked block with its
//! wall-clock time on the way out and on the way back; the source reads all stamps and splits the delay into
//! sub-segments and hosts, without synchronised clocks.
//!
//! # The map
//!
//! ```text
//! argv ──► cli ──► main, roles ──► node ◄──bytes──► wire ◄──frames──► session ──measurements──► measure ──► report ──► out
//! host facts ──► annotate ──annotations───────┘
//! argv ──► passive_cli ──► node::passive ◄──capture──► passive ──flows, round trips──► report::passive ──► out
//! ```
//!
//! | module | turns | into | lacks on purpose |
//! |---|---|---|---|
//! | [`table`] | keys and values | a small map in order | a tree |
//! | [`decimal`] | text | a double | tables |
//! | [`time`] | integers | instants and spans that name their clock | a clock |
//! | [`wire`] | bytes | frames, and back | sockets, policy |
//! | [`measure`] | stamps of one block | delays, offsets, skew, baseline, verdict | sockets, clocks, names of frames |
//! | [`session`] | events of one connection | decisions and measurements | sockets, threads, clocks |
//! | [`passive`] | capture bytes | packets, flows, session events, round trips | files, clocks |
//! | [`report`] | one `Report`, or the flows of a capture | text, JSON, CSV, Prometheus, Influx, OTLP, Nagios, HTML | files, statistics of its own |
//! | [`sys`] | system calls | plain values | policy; it alone holds `unsafe` |
//! | [`annotate`] | procfs, SNMP, `TCP_INFO` | facts | threads; anything that a pump calls while a block is under way |
//! | [`node`] | sockets, threads, channels | calls into the core | arithmetic on delays |
//! | [`metrics_http`] | requests of HTTP | what routes answer | what they answer |
//! | [`cli`], [`passive_cli`] | argv | a checked `Config`, or help text | anything that opens something |
//!
//! `wire`, `session`, `passive`, `measure` and `report` are the core: no sockets, threads, files or clocks. Time is an argument,
//! so an eight-hop path with clocks hours apart is tested in a millisecond.

#![deny(unsafe_code)]

pub mod annotate;
pub mod cli;
pub mod decimal;
pub mod measure;
pub mod metrics_http;
pub mod node;
pub mod passive;
pub mod passive_cli;
#[cfg(test)]
mod random;
pub mod report;
pub mod session;
pub mod sys;
pub mod table;
pub mod time;
pub mod wire;

/// Whether this build has what serves a person or a monitoring system, and not the nodes of a path: the feature `desk`,
/// on by default and left out of static binaries, which have to fit into a router's flash.
///
/// A constant that code is guarded with, not an attribute: all of it is compiled and checked either way, and what
/// cannot be reached is not linked. [`cli::flags::FOR_DESK`] says what it is for.
pub const DESK: bool = cfg!(feature = "desk");
