//! Finds the sub-segment of a TCP path, or the host on it, that adds the delay, and the one whose
//! delay has grown.
//!
//! A chain of small proxies, A -> B -> C -> Z, carries blocks of bytes. Every node stamps every
//! marked block with its wall-clock time on the way out and on the way back. The source reads all
//! stamps and splits the delay into sub-segments and hosts, without synchronised clocks.
//!
//! # The map
//!
//! ```text
//! argv ─► cli ─► commands ─► origin, node ◄─bytes─► wire ◄─frames─► session
//!                                                                      │ measurements
//! capture ─► passive ─► report ◄──────── measure ◄──────── collect ◄───┘
//!                          └─► publish ─► stdout, files, terminal, HTTP
//! ```
//!
//! A room uses the rooms of the floors below its own, never one above. Rooms of one floor use those
//! that the last column names. `tests/map.rs` compares this table with every `use crate::` of the
//! tree.
//!
//! | floor | room | turns | into | uses on its own floor |
//! |---|---|---|---|---|
//! | 0 | [`time`] | integers | instants and spans that name their clock | `decimal` |
//! | 0 | [`sync`] | nothing | locks that survive a panic, threads, channels, random numbers | |
//! | 0 | [`output`] | bytes | stdout, stderr and files, written with checks | |
//! | 0 | [`vec_map`] | keys and values | a small map in order | |
//! | 0 | [`columns`] | text | its width on a terminal, shortened and wrapped to it | |
//! | 0 | [`decimal`] | text, whole numbers | a double, digits | |
//! | 0 | [`annotation`] | classes and names | what a node reports of its host | |
//! | 1 | [`sys`] | system calls | plain values; it alone holds `unsafe` | |
//! | 2 | [`wire`] | bytes | frames, and back | |
//! | 2 | [`http`] | requests of HTTP | responses of routes | |
//! | 2 | [`remote`] | hosts of `trace` | a script for their shells, and its answers | |
//! | 3 | [`measure`] | stamps of one block | delays, offsets, skew, baseline, verdict | |
//! | 4 | [`session`] | events of one connection | decisions and measurements | |
//! | 4 | [`passive`] | capture bytes | packets, flows, session events, round trips | |
//! | 4 | [`annotate`] | procfs, SNMP, `TCP_INFO` | annotations | |
//! | 5 | [`report`] | one `Report`, or the flows of a capture | text, JSON, CSV, HTML, ... | |
//! | 6 | [`cli`] | argv | a checked `Config`, or help text | |
//! | 6 | [`collect`] | measurements of all pumps | the state of a run and its latest report | |
//! | 7 | [`manual`] | a topic | a page of plain text | |
//! | 7 | [`node`] | sockets, threads, channels | calls into the core | |
//! | 8 | [`generate`] | the tables of options, commands and topics | a manual page, completions | |
//! | 8 | [`origin`] | a next hop | an open session, its blocks and answers | |
//! | 9 | [`publish`] | reports and connection records | stdout, files, the terminal, HTTP | |
//! | 10 | [`commands`] | a `Config` | a run, and the exit code | |
//!
//! `wire`, `session`, `passive`, `measure` and `report` are the core: no sockets, threads, files or
//! clocks. Time is an argument, so that an eight-hop path with clocks hours apart is tested in a
//! millisecond.

#![deny(unsafe_code)]

pub mod annotate;
pub mod annotation;
pub mod cli;
pub mod collect;
pub mod columns;
pub mod commands;
pub mod decimal;
pub mod generate;
pub mod http;
pub mod manual;
pub mod measure;
pub mod node;
pub mod origin;
pub mod output;
pub mod passive;
pub mod publish;
#[cfg(test)]
#[path = "../tests/util/random.rs"]
mod random;
pub mod remote;
pub mod report;
pub mod session;
pub mod sync;
pub mod sys;
pub mod time;
pub mod vec_map;
pub mod wire;

/// `true` in a build with the feature `full`, which static binaries for small machines leave out.
///
/// Code is guarded by this constant and not by an attribute, so that all of it is compiled and
/// checked either way. Unreachable code is not linked. [`cli::flags::FULL_ONLY`] lists the options
/// and commands.
///
/// Guards stand in the tables: commands and options in `cli/flags/mod.rs`, formats in
/// `report/format.rs`. The others keep the linker from parts that a value selects at run time:
///
/// - `publish/screen.rs`: the screen of `probe` on a terminal;
/// - `publish/printer.rs`, `publish/metrics.rs`, `collect/run_state/reports.rs`,
///   `collect/run_state/mod.rs`, `collect/latest.rs`: pages, their timeline, flows;
/// - `commands/probe/mod.rs`, `report/json/mod.rs`, `report/text/mod.rs`, `report/text/notes.rs`:
///   flows;
/// - `node/pump/mod.rs`, `node/serve.rs`, `report/session.rs`, `report/header_delays.rs`,
///   `commands/node.rs`, `report/prometheus/mod.rs`: the HTTP exchanges of `--sessions`, and stamps
///   in their heads, read and written;
/// - `node/pump/deliver.rs`, `node/pump/wrap.rs`: the stamps of both ways in the first block of an
///   answer, for `--server-timing`;
/// - `commands/prepare.rs`: reports as baselines, and `/probe`;
/// - `commands/mod.rs`: the dispatch of commands;
/// - `cli/parse.rs`: the words of `trace`, and the checks of options that are left out;
/// - `cli/help.rs`: the references to texts that a small build lacks;
/// - `cli/version.rs`: the name of the feature.
pub const FULL: bool = cfg!(feature = "full");

/// The reason that an error gives for a part that only a build with the feature `full` has.
pub const SMALL: &str = "it was made for small machines, without the feature full";
