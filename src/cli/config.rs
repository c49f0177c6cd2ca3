//! The checked values of a command line: what the rest of the program is started with.

use super::targets::Allowed;
use super::value;
use crate::annotate::snmp::{self, Object};
use crate::measure::facts::Classes;
use crate::measure::sla::Rule;
use crate::report::State;
use crate::session::allow::Network;
use log::LevelFilter;
use std::fmt;
use std::net::Ipv6Addr;
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
    /// Probe what is asked for over HTTP.
    Exporter,
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

/// Host and port as written; names are resolved later.
///
/// `Display` writes what parses to the same value: `b.example:9000`, `[fe80::1%eth0]:22`, `:80`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an address, an IPv6 one without its brackets; `None` = every address of both
    /// families.
    pub host: Option<String>,
    /// The port; 0 only where the kernel is to choose one.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err("has no port: write host:port".into());
        };
        if text.parse::<Ipv6Addr>().is_ok() || (host.contains(':') && !host.starts_with('[')) {
            return Err(if text.contains("//") {
                "is a URL: write host:port alone".into()
            } else {
                "is ambiguous: write an IPv6 address in brackets, [2001:db8::1]:9000".into()
            });
        }
        if port.is_empty() || text.ends_with(']') {
            return Err("has no port: write host:port".into());
        }
        let host = match host.strip_prefix('[') {
            Some(inner) => Some(bracketed(inner)?),
            None if host.is_empty() || host == "*" => None,
            None => Some(plain(host)?),
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits => Ok(Self { host, port }),
            _ => Err(format!(
                "has {port:?} for a port: write a number up to 65535"
            )),
        }
    }
}

/// Checks what stands after an opening bracket: an IPv6 address, maybe with a zone, and the closing
/// bracket.
fn bracketed(inner: &str) -> Result<String, String> {
    let address = inner.strip_suffix(']').filter(|address| {
        let (address, zone) = address.split_once('%').unwrap_or((address, "0"));
        address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
    });
    address
        .map(str::to_owned)
        .ok_or_else(|| "has no IPv6 address in its brackets: write it as [2001:db8::1]:9000".into())
}

/// Checks a name or an IPv4 address. Underscores are in no host name by RFC 952, but in many a
/// container's.
fn plain(host: &str) -> Result<String, String> {
    if is_name(host) {
        Ok(host.to_owned())
    } else {
        Err(format!(
            "has {host:?} for a host: write a name or an address, as in b.example:9000"
        ))
    }
}

fn is_name(text: &str) -> bool {
    // RFC 1035 §2.3.4: a name has at most 255 bytes.
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
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
    use crate::random::Random;

    #[test]
    fn every_way_to_write_an_endpoint_is_read() {
        for (text, host, port) in [
            ("b.example:9000", Some("b.example"), 9000),
            ("my_container:1", Some("my_container"), 1),
            ("127.0.0.1:0", Some("127.0.0.1"), 0),
            (":9000", None, 9000),
            ("*:65535", None, 65535),
            ("[::1]:22", Some("::1"), 22),
            ("[fe80::1%eth0]:22", Some("fe80::1%eth0"), 22),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.host.as_deref(), host, "{text}");
            assert_eq!(endpoint.port, port, "{text}");
        }
    }

    #[test]
    fn a_bad_endpoint_says_how_to_write_it() {
        for (text, part) in [
            ("", "has no port: write host:port"),
            ("localhost", "has no port: write host:port"),
            ("localhost:", "has no port: write host:port"),
            ("9000", "has no port: write host:port"),
            ("[::1]", "has no port: write host:port"),
            ("::1", "in brackets"),
            ("2001:db8::1:9000", "in brackets"),
            ("a:b:80", "in brackets"),
            ("http://b.example:80", "is a URL"),
            ("[::1:9000", "as [2001:db8::1]:9000"),
            ("[]:9000", "as [2001:db8::1]:9000"),
            ("[localhost]:9000", "as [2001:db8::1]:9000"),
            ("[127.0.0.1]:9000", "as [2001:db8::1]:9000"),
            ("[fe80::1%]:9000", "as [2001:db8::1]:9000"),
            ("localhost:65536", "a number up to 65535"),
            ("localhost:-1", "a number up to 65535"),
            ("localhost:+1", "a number up to 65535"),
            ("localhost:http", "a number up to 65535"),
            ("b example:80", "a name or an address"),
            ("**:80", "a name or an address"),
            ("b]:80", "a name or an address"),
            ("b/c:80", "a name or an address"),
        ] {
            let message = text.parse::<Endpoint>().expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
        let long = format!("{}:80", "x".repeat(256));
        assert!(long.parse::<Endpoint>().is_err());
    }

    fn text_of(alphabet: &[u8], longest: usize, random: &mut Random) -> String {
        let len = 1 + random.below(longest);
        let characters = (0..len).map(|_| alphabet[random.below(alphabet.len())]);
        characters.map(char::from).collect()
    }

    #[test]
    fn endpoints_survive_being_written_and_read_again() {
        const SEED: u64 = 0x5eed_0001;
        let mut random = Random::new(SEED);
        for case in 0..2_000 {
            let host = match random.below(4) {
                0 => None,
                1 => Some(text_of(b"abcxyz0189-._", 20, &mut random)),
                2 => {
                    let mut groups = [0_u16; 8];
                    for group in &mut groups {
                        // Runs of zeros exercise the short form.
                        *group = (random.below(2) * random.below(0x1_0000)) as u16;
                    }
                    Some(Ipv6Addr::from(groups).to_string())
                }
                _ => Some(format!("fe80::1%{}", text_of(b"eth0wlan", 6, &mut random))),
            };
            let port = random.below(0x1_0000) as u16;
            let endpoint = Endpoint { host, port };
            let text = endpoint.to_string();
            assert_eq!(
                text.parse(),
                Ok(endpoint),
                "seed {SEED:#x} case {case} {text}"
            );
        }
    }

    #[test]
    fn noise_that_parses_as_an_endpoint_means_what_it_shows() {
        const SEED: u64 = 0x5eed_0002;
        let mut random = Random::new(SEED);
        let mut parsed = 0;
        for case in 0..20_000 {
            let text = text_of(b"[]:*%.1a9", 9, &mut random);
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                parsed += 1;
                let shown = endpoint.to_string();
                assert_eq!(
                    shown.parse(),
                    Ok(endpoint),
                    "seed {SEED:#x} case {case} {text}"
                );
            }
        }
        assert!(parsed > 100, "only {parsed} of the cases were endpoints");
    }

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
