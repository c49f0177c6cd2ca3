//! The checked values of a command line: what the rest of the program is started with.

use super::endpoint::Endpoint;
use super::targets::Allowed;
use super::value;
use crate::annotate::snmp::{self, Object};
use crate::annotation::Classes;
use crate::measure::sla::Rule;
use crate::report::State;
use crate::session::allow::Network;
use crate::time::{Nanos, WallTime};
use log::LevelFilter;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A command line that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What every command takes.
    pub common: Common,
    /// What to do.
    pub command: Command,
}

/// Options that do not belong to one command. `Default` is what an empty command line gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// `--timeout`: longest wait of one operation; more than 0.
    pub timeout: Duration,
    /// `--idle-timeout`: a connection without a byte for so long is ended; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// `--node`: name of this node on the path; `None` = the host name.
    pub node: Option<String>,
    /// `--add-static-tags`, in the order given.
    pub tags: Vec<String>,
    /// Whether stamps are added; `false` with `--dont-add-perf-headers`.
    pub stamp: bool,
    /// `--debug`: syslog severity 0 to 7; `None` = not given, see [`level_filter`].
    pub debug: Option<u8>,
    /// `--report`: where the report goes; `None` = the role's own stream.
    pub report: Option<PathBuf>,
    /// `--report-html`: where a page with pictures of the run goes; `None` = nowhere.
    pub report_html: Option<PathBuf>,
    /// `--format` of the report; `None` = not given, so text.
    pub format: Option<Format>,
    /// `--sample`: least time between two marked blocks of a proxied connection; zero marks all.
    pub sample: Duration,
    /// `--state`: file with the baseline of earlier runs; `None` = this run is its own.
    pub state: Option<PathBuf>,
    /// `--baseline`: a state or a report to compare with instead; `None` = that of `state`.
    pub baseline: Option<PathBuf>,
    /// `--window`; `None` = not given: 5 minutes in runs without end, else the run.
    pub window: Option<Duration>,
    /// `--key-file`: holds the key that authenticates frames between nodes; `None` = they are not.
    pub key_file: Option<PathBuf>,
    /// `--rules`: file of limits and questions; `None` = no such file.
    pub rules: Option<PathBuf>,
    /// `--warning` and `--critical`, as rules.
    pub limits: Vec<Rule>,
    /// `--sessions`: where the lives of connections are written; `None` = nowhere.
    pub sessions: Option<PathBuf>,
    /// `--hop-limit`: most nodes on a path that starts here; at least 1.
    pub hop_limit: u8,
    /// Whether the kernel is asked when blocks arrive; `false` with `--no-kernel-times`.
    pub kernel_times: bool,
    /// `--ask`: what all nodes are asked for in every marked block of a path that starts here.
    pub ask: Classes,
    /// `--annotate`: what this node tells when asked; `None` = not given, so everything it has.
    pub annotate: Option<Classes>,
    /// `--snmp`: where its agent listens; has a host and a port above 0.
    pub snmp: Option<Endpoint>,
    /// `--snmp-community`.
    pub snmp_community: String,
    /// `--snmp-objects`.
    pub snmp_objects: Vec<Object>,
    /// `--metrics-listen`: where metrics are served; `None` = nowhere.
    pub metrics_listen: Option<Endpoint>,
    /// `--metrics-file`: where metrics are written; `None` = nowhere.
    pub metrics_file: Option<PathBuf>,
    /// `--probe-allow`: which targets may be probed over HTTP.
    pub probe_allow: Vec<Allowed>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            idle_timeout: None,
            node: None,
            tags: Vec::new(),
            stamp: true,
            debug: None,
            report: None,
            report_html: None,
            format: None,
            sample: Duration::from_millis(10),
            state: None,
            baseline: None,
            window: None,
            key_file: None,
            rules: None,
            limits: Vec::new(),
            sessions: None,
            hop_limit: 32,
            kernel_times: true,
            ask: Classes::default(),
            annotate: None,
            snmp: None,
            snmp_community: "public".into(),
            snmp_objects: snmp::objects(snmp::DEFAULT_OBJECTS).unwrap_or_default(),
            metrics_listen: None,
            metrics_file: None,
            probe_allow: Vec::new(),
        }
    }
}

/// What to do, with the options that only this one takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Carry stdin along the path and its answer to stdout.
    Source(SourceConfig),
    /// Listen: relay, echo, entry, exit or plain proxy.
    Node(NodeConfig),
    /// Send blocks of our own on a schedule.
    Probe(ProbeConfig),
    /// The same to many targets.
    Targets(TargetsConfig),
    /// Show a whole path in one process.
    Demo(DemoConfig),
    /// Test a file of rules.
    CheckRules(PathBuf),
    /// Show a state, or accept a change of it.
    State(StateConfig),
    /// Compare two reports, or two spans of a state.
    Compare(CompareConfig),
    /// Probe what is asked for over HTTP.
    Exporter,
}

/// Arguments of `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// The state.
    pub file: PathBuf,
    /// What is done with it.
    pub action: StateAction,
}

/// What `state` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateAction {
    /// Prints what it has.
    Show,
    /// Makes the level since a change the usual one, of the named part or of all.
    Accept(Option<String>),
}

/// Arguments of `compare`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareConfig {
    /// The two sides.
    pub what: Compares,
    /// `--fail-above`: rises whose low end is not above it do not fail; `None` = any rise does.
    pub fail_above: Option<Nanos>,
}

/// The two sides of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compares {
    /// Two reports in JSON, the earlier one first.
    Reports(PathBuf, PathBuf),
    /// Two spans of a state.
    State {
        /// The state.
        file: PathBuf,
        /// The end of the earlier span.
        before: TimeArgument,
        /// The beginning of the later span.
        after: TimeArgument,
    },
}

/// A time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeArgument {
    /// RFC 3339, or a date.
    At(WallTime),
    /// So long before now.
    Ago(Nanos),
}

impl TimeArgument {
    /// The time, as of `now`.
    pub fn at(self, now: WallTime) -> WallTime {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.before(ago),
        }
    }
}

/// Options of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// The first hop; has a host and a port above 0.
    pub forward_to: Endpoint,
    /// Most bytes of stdin in one block: 1 to 1 MiB.
    pub block: usize,
}

/// Options of a node that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Where to listen; port 0 lets the kernel choose one.
    pub listen: Endpoint,
    /// The next hop, with a host and a port above 0; `None` = echo.
    pub forward_to: Option<Endpoint>,
    /// What may come in.
    pub accept: Accept,
    /// Whether plain bytes go out (`--remove-perf-headers`); only with `forward_to`.
    pub remove: bool,
    /// `--allow`: who may connect; empty = everybody.
    pub allow: Vec<Network>,
    /// `--max-connections`: how many may be open at once; `None` = as many as descriptors allow.
    pub max_connections: Option<usize>,
}

/// Options of `probe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// The first hop; has a host and a port above 0.
    pub target: Endpoint,
    /// How many blocks; 0 = until stopped.
    pub count: u64,
    /// Time between two blocks, by the schedule; at least 100 us.
    pub interval: Duration,
    /// Payload bytes of a block: 0 to 1 MiB.
    pub size: usize,
    /// `--timeout SECONDS:STATE`: what a path is called that does not answer in time; critical by default.
    pub on_timeout: State,
}

/// Options of `probe --targets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetsConfig {
    /// A target per line.
    pub file: PathBuf,
    /// How many blocks to each; 0 = until stopped.
    pub count: u64,
    /// Time between two blocks to one target, by the schedule; at least 100 us.
    pub interval: Duration,
    /// Payload bytes of a block: 0 to 1 MiB.
    pub size: usize,
    /// As of a single probe.
    pub on_timeout: State,
}

/// Options of `demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoConfig {
    /// Repeats the demo that had this seed; `None` = a new one.
    pub seed: Option<u64>,
}

/// What a listener takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// A client that begins with the magic is framed, any other is raw.
    #[default]
    Auto,
    /// Frames only.
    Framed,
    /// Plain TCP clients only; they need not speak first.
    Raw,
}

impl FromStr for Accept {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        value::keyword(
            text,
            &[
                ("auto", Self::Auto),
                ("framed", Self::Framed),
                ("raw", Self::Raw),
            ],
        )
    }
}

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object for the whole run.
    Json,
    /// One object per block and line.
    Jsonl,
    /// One line per block.
    Csv,
    /// One line for a monitoring plugin.
    Nagios,
    /// Influx line protocol, a line per part.
    Influx,
    /// OTLP/JSON, one trace per block and line.
    Otlp,
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        value::keyword(
            text,
            &[
                ("text", Self::Text),
                ("json", Self::Json),
                ("jsonl", Self::Jsonl),
                ("csv", Self::Csv),
                ("influx", Self::Influx),
                ("otlp", Self::Otlp),
                ("nagios", Self::Nagios),
            ],
        )
    }
}

/// The log filter of `--debug`, from a syslog severity (RFC 5424 §6.2.1).
///
/// | severity | filter | we use it for |
/// |---|---|---|
/// | 0-2 emergency, alert, critical | as 3 | nothing: `main` prints what ends the program |
/// | 3 error | `Error` | a connection, report or target is lost |
/// | 4 warning | `Warn` | a value is in doubt; also where nothing is given |
/// | 5 notice, 6 informational | `Info` | life of nodes and connections, with final counts |
/// | 7 debug | `Debug` | one decision about one frame |
///
/// A given `--debug` wins over `RUST_LOG`; `None` is the filter where neither is there. Bytes
/// (`Trace`) only with `RUST_LOG`.
pub fn level_filter(severity: Option<u8>) -> LevelFilter {
    match severity {
        Some(0..=3) => LevelFilter::Error,
        Some(4) | None => LevelFilter::Warn,
        Some(5 | 6) => LevelFilter::Info,
        Some(7..) => LevelFilter::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_option_maps_syslog_severities() {
        for (severities, filter) in [
            (0..=3, LevelFilter::Error),
            (4..=4, LevelFilter::Warn),
            (5..=6, LevelFilter::Info),
            (7..=7, LevelFilter::Debug),
        ] {
            for severity in severities {
                assert_eq!(level_filter(Some(severity)), filter, "{severity}");
            }
        }
        assert_eq!(level_filter(None), level_filter(Some(4)));
    }
}
