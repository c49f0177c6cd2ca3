//! The checked values of a command line, with which the rest of the program is started.

use super::host_port::HostPort;
use super::passive::PassiveConfig;
use super::targets::Allowed;
use crate::annotate::snmp::{self, SnmpObject};
use crate::annotation::Classes;
use crate::measure::sla::Rule;
use crate::remote::host::HostWord;
use crate::remote::ssh::Ssh;
pub use crate::report::format::Format;
use crate::report::State;
use crate::session::admission::Accept;
use crate::session::allow::Network;
use crate::sys::SocketOptions;
use crate::time::{Nanos, WallTime};
use crate::wire::proxy::ProxyVersion;
use crate::wire::siphash::Key;
use log::LevelFilter;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A command line that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Options that several commands have.
    pub common: Common,
    /// The command.
    pub command: Command,
}

/// Options that do not belong to one command. `Default` is an empty command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// `--timeout`: longest wait of one operation; more than 0.
    pub timeout: Duration,
    /// `--idle-timeout`: a connection without a byte in this time is ended; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// `--node`: name of this node on the path; `None` = the host name.
    pub node: Option<String>,
    /// `--add-static-tags`, in the order given.
    pub tags: Vec<String>,
    /// `true` if stamps are added; `false` with `--dont-add-perf-headers`.
    pub stamp: bool,
    /// `--debug`: syslog severity 0 to 7; `None` = not given, see [`level_filter`].
    pub debug: Option<u8>,
    /// `--report`: where the report goes; `None` = the stream of the role.
    pub report: Option<PathBuf>,
    /// `--report-html`: where a page with pictures of the run goes; `None` = nowhere.
    pub report_html: Option<PathBuf>,
    /// `--format` of the report; `None` = not given, so text.
    pub format: Option<Format>,
    /// `--sample`: least time between two marked blocks of a proxied connection; zero marks all.
    pub sample: Duration,
    /// `--state`: file with the baseline of earlier runs; `None` = the run itself is the baseline.
    pub state: Option<PathBuf>,
    /// `--baseline`: a state or a report to compare with instead; `None` = that of `state`.
    pub baseline: Option<PathBuf>,
    /// `--window`; `None` = not given: 5 minutes in runs without end, else the run.
    pub window: Option<Duration>,
    /// `--key-file`: the key that authenticates frames between nodes; `None` = no authentication.
    pub key_file: Option<PathBuf>,
    /// The key of one run of `trace`, which is in no file; `None` elsewhere.
    pub key: Option<Key>,
    /// `--bind` and `--dscp`.
    pub socket: SocketOptions,
    /// `--rules`: file of limits and requests; `None` = no such file.
    pub rules: Option<PathBuf>,
    /// `--warning` and `--critical`, as rules.
    pub limits: Vec<Rule>,
    /// `--sessions`: where records of connections are written; `None` = nowhere.
    pub sessions: Option<PathBuf>,
    /// `--http-read`: fields of heads of HTTP that hold stamps, beside the usual ones.
    pub http_read: Vec<String>,
    /// `--http-clock`: names in stamps, and the nodes of the path that run on those hosts.
    pub http_clocks: Vec<(String, String)>,
    /// `--http-write`: fields of requests to which a node appends its name and time.
    pub http_write: Vec<String>,
    /// `--server-timing`: responses have the delays of their path.
    pub server_timing: bool,
    /// `--hop-limit`: most nodes on a path that starts here; at least 1.
    pub hop_limit: u8,
    /// `true` if stamps hold the kernel's arrival time; `false` with `--no-kernel-times`.
    pub kernel_times: bool,
    /// `--ask`: classes that every marked block of a path that starts here asks for.
    pub ask: Classes,
    /// `--annotate`: classes that this node answers; `None` = all that it has.
    pub annotate: Option<Classes>,
    /// `--snmp`: address of the agent, with a host and a port above 0.
    pub snmp: Option<HostPort>,
    /// `--snmp-community`.
    pub snmp_community: String,
    /// `--snmp-objects`.
    pub snmp_objects: Vec<SnmpObject>,
    /// `--metrics-listen`: where metrics are served; `None` = nowhere.
    pub metrics_listen: Option<HostPort>,
    /// `--metrics-file`: where metrics are written; `None` = nowhere.
    pub metrics_file: Option<PathBuf>,
    /// `--probe-allow`: targets that may be probed over HTTP.
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
            key: None,
            socket: SocketOptions::default(),
            rules: None,
            limits: Vec::new(),
            sessions: None,
            http_read: Vec::new(),
            http_clocks: Vec::new(),
            http_write: Vec::new(),
            server_timing: false,
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

/// A command, with the options that only this one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Carry stdin along the path and its answer to stdout.
    Source(SourceConfig),
    /// Listen: relay, echo, entry, exit or plain proxy.
    Node(NodeConfig),
    /// Send own blocks on a schedule.
    Probe(ProbeConfig),
    /// The same to many targets.
    Targets(TargetsConfig),
    /// Start nodes over ssh, and probe the path.
    Trace(Box<TraceConfig>),
    /// Show a whole path in one process.
    Demo(DemoConfig),
    /// Test a file of rules.
    CheckRules(PathBuf),
    /// Show a state, or accept a change of it.
    State(StateConfig),
    /// Compare two reports, or two spans of a state.
    Compare(CompareConfig),
    /// Probe on request over HTTP.
    Exporter,
    /// Read a capture.
    Passive(PassiveConfig),
    /// Print a topic of the manual; `None` for the list of topics.
    Help(Option<String>),
    /// Print a manual page or completions.
    Generate(Artifact),
}

/// A text that `generate` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artifact {
    /// The manual page, in roff.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
}

/// The words of `generate`, in the order of [`Artifact`].
pub const ARTIFACTS: &[&str] = &["man", "bash", "zsh", "fish"];

/// Arguments of `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// The state.
    pub file: PathBuf,
    /// The action on it.
    pub action: StateAction,
}

/// The words of the actions of `state`, in the order of [`StateAction`].
pub const STATE_ACTIONS: &[&str] = &["show", "accept"];

/// The actions of `state`.
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

/// A value of `--allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowSource {
    /// A network.
    Network(Network),
    /// A file with a network per line.
    File(PathBuf),
}

impl FromStr for AllowSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            Some("") => Err("names no file: write @FILE".into()),
            Some(path) => Ok(Self::File(path.into())),
            None => text.parse().map(Self::Network),
        }
    }
}

/// Options of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// The first hop; has a host and a port above 0.
    pub forward_to: HostPort,
    /// Most bytes of stdin in one block: 1 to 1 MiB.
    pub block: usize,
}

/// Options of a node that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The addresses to listen on; port 0 lets the kernel choose one.
    pub listen: HostPort,
    /// The next hop, with a host and a port above 0; `None` = echo.
    pub forward_to: Option<HostPort>,
    /// The kinds of clients.
    pub accept: Accept,
    /// `true` if plain bytes go out (`--remove-perf-headers`); only with `forward_to`.
    pub remove: bool,
    /// `--server-check`: the age from which on an exit connects to its server again for a probe;
    /// `None` = never.
    pub server_check: Option<Duration>,
    /// `true` if clients begin with a preamble (`--accept-proxy`).
    pub accept_proxy: bool,
    /// `--send-proxy`: the preamble for the server.
    pub send_proxy: Option<ProxyVersion>,
    /// `--allow`: networks that may connect; empty = all.
    pub allow: Vec<AllowSource>,
    /// `--max-connections`: most open ones; `None` = as many as descriptors allow.
    pub max_connections: Option<usize>,
    /// `--max-memory`: most memory of the figures of all paths, in bytes.
    pub max_memory: usize,
    /// `--drain`: longest wait for open connections once the node has to end; by default
    /// `--timeout`.
    pub drain: Duration,
}

/// Options of `probe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// The first hop; has a host and a port above 0.
    pub target: HostPort,
    /// The number of blocks; 0 = until stopped.
    pub count: u64,
    /// Time between two blocks, by the schedule; at least 100 us.
    pub interval: Duration,
    /// Payload bytes of a block: 0 to 1 MiB.
    pub size: usize,
    /// `--flows`: connections that take the blocks in turn, 1 to 64.
    pub flows: u32,
    /// `--timeout SECONDS:STATE`: state of a path without an answer in time; critical by default.
    pub on_timeout: State,
}

/// Options of `probe --targets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetsConfig {
    /// A target per line.
    pub file: PathBuf,
    /// The number of blocks to each; 0 = until stopped.
    pub count: u64,
    /// Time between two blocks to one target, by the schedule; at least 100 us.
    pub interval: Duration,
    /// Payload bytes of a block: 0 to 1 MiB.
    pub size: usize,
    /// As of a single probe.
    pub on_timeout: State,
}

/// Options of `trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// The hosts, at least one, the nearest first.
    pub hosts: Vec<HostWord>,
    /// The options that only `trace` has.
    pub options: TraceOptions,
    /// `--server-check`, 10 s unless given; `None` if it is 0.
    pub server_check: Option<Duration>,
    /// The probe, whose target is known when the nodes have started.
    pub probe: ProbeConfig,
}

/// The options that only `trace` has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// `--server`, with a host and a port above 0; `None` if the path ends at the last host.
    pub server: Option<HostPort>,
    /// `--from`; `None` if the probe runs here.
    pub from: Option<HostWord>,
    /// The options of the probe as typed, where it runs on another host.
    pub probe_words: Vec<String>,
    /// The options among them that name files.
    pub probe_files: Vec<&'static str>,
    /// `--ports`; `None` lets the kernel choose.
    pub ports: Option<Ports>,
    /// `--ssh`.
    pub ssh: Ssh,
    /// `--binaries`; `None` = those of the package.
    pub binaries: Option<PathBuf>,
    /// `--installed-only`.
    pub installed_only: bool,
    /// `--dry-run`.
    pub dry_run: bool,
    /// `--verbose`.
    pub verbose: bool,
}

/// A range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first one, not 0.
    pub first: u16,
    /// The last one, not below the first.
    pub last: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err("is no range of ports: write 9000-9010".into()),
        }
    }
}

/// Options of `demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoConfig {
    /// Repeats the demo that had this seed; `None` = a new one.
    pub seed: Option<u64>,
}

/// The log filter of `--debug`, from a syslog severity (RFC 5424 §6.2.1).
///
/// | severity | filter | used for |
/// |---|---|---|
/// | 0-2 emergency, alert, critical | as 3 | nothing: `main` prints the last failure |
/// | 3 error | `Error` | a connection, report or target is lost |
/// | 4 warning | `Warn` | a value is in doubt; also if nothing is given |
/// | 5 notice, 6 informational | `Info` | life of nodes and connections, with final counts |
/// | 7 debug | `Debug` | one decision about one frame |
///
/// A given `--debug` wins over `RUST_LOG`; `None` gives the filter without both. Bytes
/// (`Trace`) are logged only with `RUST_LOG`.
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
