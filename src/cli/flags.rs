//! Every option and command word, each once: the parser, the help and the test of the README read
//! these tables.
//!
//! To add a command: a [`Role`], a row in [`WORDS`], a variant of `config::Command` and an arm in
//! `parse::command`.

use super::config::{Accept, Common, Format, TimeArgument};
use super::endpoint::Endpoint;
use super::value;
use crate::annotate::snmp;
use crate::measure::{sla, Sla};
use crate::report::State;
use crate::session::allow::Network;
use crate::FULL;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use Role::{
    CheckRules, Compare, Demo, Echo, Entry, Exit, Exporter, Probe, Proxy, Relay, Source, StateFile,
};

/// Most payload bytes of a block, as on the wire.
const BLOCK_MAX_BYTES: usize = 1 << 20;

/// Least time between two probes: the schedule has to stay one that a host can keep.
const INTERVAL_MIN: Duration = Duration::from_micros(100);

/// Far above what threads and descriptors allow.
const CONNECTIONS_MAX: u32 = 1_000_000;

/// Most tags of a node, so that their annotations leave room for those of other nodes.
const TAGS_MAX: usize = 16;

/// What the process is to be; follows from the command word and from which addresses are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads stdin.
    Source,
    /// Framed in, framed out.
    Relay,
    /// Reflects.
    Echo,
    /// Raw in, framed out.
    Entry,
    /// Framed in, raw out.
    Exit,
    /// Raw in, raw out.
    Proxy,
    /// Makes its own blocks.
    Probe,
    /// A whole path in one process.
    Demo,
    /// Tests a file of rules.
    CheckRules,
    /// Probes what it is asked for over HTTP.
    Exporter,
    /// Shows a state, or accepts a change of it.
    StateFile,
    /// Compares two reports, or two spans of a state.
    Compare,
}

impl Role {
    /// What on the command line makes this role.
    pub(super) fn made_by(self) -> &'static str {
        match self {
            Self::Source => "--forward-to without --listen",
            Self::Relay => "--listen with --forward-to",
            Self::Echo => "--listen without --forward-to",
            Self::Entry => "--accept raw with --forward-to",
            Self::Exit => "--remove-perf-headers",
            Self::Proxy => "--accept raw with --remove-perf-headers",
            Self::Probe => "the word probe",
            Self::Demo => "the word demo",
            Self::CheckRules => "the word check-rules",
            Self::Exporter => "the word exporter",
            Self::StateFile => "the word state",
            Self::Compare => "the word compare",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Relay => "relay",
            Self::Echo => "echo",
            Self::Entry => "entry",
            Self::Exit => "exit",
            Self::Proxy => "proxy",
            Self::Probe => "probe",
            Self::Demo => "demo",
            Self::CheckRules => "check of rules",
            Self::Exporter => "exporter",
            Self::StateFile => "look at a state",
            Self::Compare => "comparison",
        })
    }
}

// Who has a use for an option. A relay stands in most lists beside the entry: with --accept auto it
// serves raw clients too.
const EVERY: &[Role] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Demo, Exporter,
];
const REPORTING: &[Role] = &[Source, Relay, Echo, Entry, Exit, Proxy, Probe, Demo];
const FORMATTED: &[Role] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Demo, StateFile, Compare,
];
const COMPARING: &[Role] = &[Compare];
const KEEPING: &[Role] = &[Source, Relay, Entry, Exit, Proxy, Probe, Exporter, Compare];
const REPORTING_METRICS: &[Role] = &[Source, Relay, Echo, Entry, Exit, Proxy, Probe];
const WATCHED: &[Role] = &[Source, Relay, Echo, Entry, Exit, Proxy, Probe, Exporter];
const LISTENING: &[Role] = &[Relay, Echo, Entry, Exit, Proxy];
const FORWARDING: &[Role] = &[Source, Relay, Entry, Exit, Proxy];
const PROXYING: &[Role] = &[Relay, Entry, Exit, Proxy];
const SEEING_FRAMES: &[Role] = &[Relay, Echo, Entry, Exit];
const STAMPING: &[Role] = &[Source, Relay, Echo, Entry, Exit, Probe];
const OPENING: &[Role] = &[Source, Relay, Entry, Probe];
const FRAMING: &[Role] = &[Source, Relay, Echo, Entry, Exit, Probe, Exporter];
const WITH_BASELINE: &[Role] = &[Source, Relay, Entry, Exit, Proxy, Probe];
const TELLING: &[Role] = &[Source, Relay, Echo, Entry, Exit, Probe];
const CARRYING: &[Role] = &[Source, Relay, Echo, Entry, Exit, Proxy];

/// What only a build with the feature `full` has: options, command words and formats ([`FULL`]).
pub const FULL_ONLY: &[&str] = &[
    "report-html",
    "targets",
    "probe-allow",
    "demo",
    "exporter",
    "compare",
    PASSIVE,
    "otlp",
    "influx",
    "nagios",
];

/// Whether an option, a command word or a format is in this build.
pub fn is_built(name: &str) -> bool {
    FULL || !FULL_ONLY.contains(&name)
}

/// That `name` is in this build; `before` is what it is written behind.
///
/// # Errors
///
/// A sentence that says that it is not, and why.
pub fn check_built(name: &str, before: &str) -> Result<(), String> {
    if is_built(name) {
        return Ok(());
    }
    Err(format!("this build has no {before}{name}: {SMALL}"))
}

const SMALL: &str = "it was made for small machines, without the feature full";

/// A word that stands first among the arguments that are no options.
#[derive(Debug)]
pub struct Word {
    /// As it is typed.
    pub name: &'static str,
    /// The role it makes.
    pub role: Role,
    /// The one argument that has to follow, as the help names it; `None` = none may.
    pub operand: Option<&'static str>,
    /// Arguments that may follow at most.
    pub most: usize,
    /// One line for the help.
    pub brief: &'static str,
}

/// Every command word.
pub const WORDS: &[Word] = &[
    Word {
        name: "probe",
        role: Probe,
        operand: Some("ADDR"),
        most: 1,
        brief: "send blocks to ADDR on a schedule and report where time went",
    },
    Word {
        name: "demo",
        role: Demo,
        operand: None,
        most: 0,
        brief: "a whole path in one process, with a delay to be found",
    },
    Word {
        name: "check-rules",
        role: CheckRules,
        operand: Some("FILE"),
        most: 1,
        brief: "test a file for --rules, and print it as it is understood",
    },
    Word {
        name: "exporter",
        role: Exporter,
        operand: None,
        most: 0,
        brief: "probe what Prometheus asks for: --metrics-listen, --probe-allow",
    },
    Word {
        name: "state",
        role: StateFile,
        operand: Some("FILE show|accept [PART]"),
        most: 3,
        brief: "show what a --state file has, or accept a change as normal",
    },
    Word {
        name: "compare",
        role: Compare,
        operand: Some("BEFORE.json AFTER.json"),
        most: 2,
        brief: "which part rose between two reports, or times of a --state",
    },
];

/// The command with a command line of its own, `passive_cli`; `main` looks for it before it parses.
pub const PASSIVE: &str = "passive";

/// What the help says of it.
pub(super) const PASSIVE_BRIEF: &str = "round trips and events in a capture; more: passive --help";

/// Heading under which the help lists an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Which role this is.
    Role,
    /// How traffic is carried.
    Traffic,
    /// `probe` and `demo`.
    Probe,
    /// What nodes tell of themselves.
    Annotations,
    /// What is written.
    Report,
    /// What a monitoring system reads.
    Metrics,
}

impl Group {
    pub(super) const ALL: &'static [Self] = &[
        Self::Role,
        Self::Traffic,
        Self::Probe,
        Self::Annotations,
        Self::Metrics,
        Self::Report,
    ];

    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::Traffic => "Traffic",
            Self::Probe => "Probe and demo",
            Self::Annotations => "What nodes tell of themselves",
            Self::Report => "Report and log",
            Self::Metrics => "Metrics",
        }
    }
}

/// What was given so far; starts with the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub(super) common: Common,
    pub(super) listen: Option<Endpoint>,
    pub(super) forward_to: Option<Endpoint>,
    pub(super) accept: Accept,
    pub(super) remove: bool,
    pub(super) allow: Vec<Network>,
    pub(super) max_connections: Option<usize>,
    pub(super) block: usize,
    pub(super) count: u64,
    pub(super) interval: Duration,
    pub(super) size: usize,
    pub(super) on_timeout: Option<State>,
    pub(super) seed: Option<u64>,
    pub(super) targets: Option<PathBuf>,
    pub(super) before: Option<TimeArgument>,
    pub(super) after: Option<TimeArgument>,
    pub(super) fail_above: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            common: Common::default(),
            listen: None,
            forward_to: None,
            accept: Accept::Auto,
            remove: false,
            allow: Vec::new(),
            max_connections: None,
            block: 16_384,
            count: 10,
            interval: Duration::from_secs(1),
            size: 64,
            on_timeout: None,
            seed: None,
            targets: None,
            before: None,
            after: None,
            fail_above: None,
        }
    }
}

/// What an option does with its value. Setters check and store; they open nothing.
#[derive(Clone, Copy, Debug)]
pub enum Set {
    /// Takes no value.
    Switch(fn(&mut Settings)),
    /// Takes text. The error completes the sentence "--option VALUE ...".
    Text(fn(&mut Settings, &str) -> Result<(), String>),
    /// Takes the name of a file, which need not be UTF-8.
    Path(fn(&mut Settings, PathBuf)),
    /// Prints the help, the short one for the short option.
    Help,
    /// Prints the version.
    Version,
}

/// One option. Given twice, the last one counts (tags are collected).
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Long name without dashes, words joined by `-`; the parser takes `_` as well.
    pub long: &'static str,
    /// Short name without its dash; `None` = no short one.
    pub short: Option<char>,
    /// What the value is, for the help; `None` for a switch.
    pub value: Option<&'static str>,
    /// Where the help lists it.
    pub group: Group,
    /// The default as one would type it; `None` where there is no value without the option.
    pub default: Option<&'static str>,
    /// For `-h`: a few words.
    pub brief: &'static str,
    /// For `--help`: sentences that follow the brief text, wrapped when shown. Empty = it says it
    /// all, or the build is one without the feature `full`.
    pub help: &'static str,
    /// Who has a use for it; for everyone else it is a usage error.
    pub roles: &'static [Role],
    /// What it does.
    pub set: Set,
}

/// Every option, in the order of the help.
pub fn all() -> &'static [Flag] {
    &BUILT
}

/// The table as this build has it: the sentences of `--help` would take 6 KiB of a small binary.
static BUILT: [Flag; FLAGS.len()] = {
    let mut built = [FLAGS[0]; FLAGS.len()];
    let mut at = 0;
    while at < built.len() {
        built[at] = FLAGS[at];
        if !FULL {
            built[at].help = "";
        }
        at += 1;
    }
    built
};

const FLAGS: &[Flag] = &[
    Flag {
        long: "listen",
        short: Some('l'),
        value: Some("ADDR"),
        group: Group::Role,
        default: None,
        brief: "accept connections here",
        help: "host:port, [v6]:port, or :port and *:port for both families; a name with several \
            addresses listens on all of them. Port 0 lets the kernel choose; the log says which. \
            Without --listen, stdin is the input.",
        roles: LISTENING,
        set: Set::Text(|s, text| {
            s.listen = Some(text.parse()?);
            Ok(())
        }),
    },
    Flag {
        long: "forward-to",
        short: Some('f'),
        value: Some("ADDR"),
        group: Group::Role,
        default: None,
        brief: "the next hop",
        help: "host:port or [v6]:port. A name with several addresses is tried address by address. \
            Without --forward-to, blocks are echoed to where they came from.",
        roles: FORWARDING,
        set: Set::Text(|s, text| {
            s.forward_to = Some(Endpoint::hop(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "accept",
        short: None,
        value: Some("KIND"),
        group: Group::Role,
        default: Some("auto"),
        brief: "clients: auto, framed or raw",
        help: "auto: a client that begins with our magic is framed, any other is plain TCP. raw: \
            plain clients only, needed where the server speaks first (ssh, SMTP, MySQL). framed: \
            nothing but our frames.",
        roles: LISTENING,
        set: Set::Text(|s, text| {
            s.accept = text.parse()?;
            Ok(())
        }),
    },
    Flag {
        long: "remove-perf-headers",
        short: Some('r'),
        value: None,
        group: Group::Role,
        default: None,
        brief: "the next hop is a plain server",
        help: "Plain bytes go out to it, and its answers are framed on the way back. With \
            --accept raw: one plain proxy that measures itself.",
        roles: &[Exit, Proxy],
        set: Set::Switch(|s| s.remove = true),
    },
    Flag {
        long: "timeout",
        short: Some('t'),
        value: Some("SECONDS"),
        group: Group::Traffic,
        default: Some("10"),
        brief: "longest wait of one operation",
        help: "Holds for each of: connecting (all addresses of a name together), a frame header \
            once begun, progress of a payload; at source and probe also a write and an outstanding \
            answer. Durations are seconds (2, 0.002) or have a unit (2s, 10ms, 5m). probe also takes \
            what a path is to be called that does not answer in time, as plugins do: 10:unknown; \
            else it is critical.",
        roles: EVERY,
        set: Set::Text(|s, text| {
            let (span, state) = match text.split_once(':') {
                Some((span, state)) => (span, Some(plugin_state(state)?)),
                None => (text, None),
            };
            s.common.timeout = value::positive_duration(span)?;
            s.on_timeout = state;
            Ok(())
        }),
    },
    Flag {
        long: "idle-timeout",
        short: None,
        value: Some("SECONDS"),
        group: Group::Traffic,
        default: Some("0"),
        brief: "end a connection without bytes; 0 = never",
        help: "Counts bytes of either direction; a new client that says nothing is ended too.",
        roles: CARRYING,
        set: Set::Text(|s, text| {
            s.common.idle_timeout = Some(value::duration(text)?).filter(|span| !span.is_zero());
            Ok(())
        }),
    },
    Flag {
        long: "block",
        short: Some('b'),
        value: Some("BYTES"),
        group: Group::Traffic,
        default: Some("16384"),
        brief: "the source's block size; 16k, 1M",
        help: "What one read of stdin may bring at most: 1 to 1M, with suffixes k (1024) and M.",
        roles: &[Source],
        set: Set::Text(|s, text| {
            s.block = value::bytes(text, 1..=BLOCK_MAX_BYTES)?;
            Ok(())
        }),
    },
    Flag {
        long: "dont-add-perf-headers",
        short: Some('n'),
        value: None,
        group: Group::Traffic,
        default: None,
        brief: "add no stamps; the hop still counts",
        help: "Frames are passed on without this node's stamps; it still shows in the path.",
        roles: SEEING_FRAMES,
        set: Set::Switch(|s| s.common.stamp = false),
    },
    Flag {
        long: "no-kernel-times",
        short: None,
        value: None,
        group: Group::Traffic,
        default: None,
        brief: "do not ask the kernel when blocks came",
        help: "By default (Linux) a stamp also says when the kernel had the block, so that a host \
            whose process reads late is told from a slow network. This leaves it out here.",
        roles: STAMPING,
        set: Set::Switch(|s| s.common.kernel_times = false),
    },
    Flag {
        long: "sample",
        short: None,
        value: Some("SECONDS"),
        group: Group::Traffic,
        default: Some("0.01"),
        brief: "mark one block per so long; 0 = each",
        help: "Where raw clients come in: the first block of a connection is measured, then at \
            most one per so many seconds (and 1000 per second in the whole process). The others \
            carry no stamps and read no clock, so that measuring does not slow bulk traffic.",
        roles: PROXYING,
        set: Set::Text(|s, text| {
            s.common.sample = value::duration(text)?;
            Ok(())
        }),
    },
    Flag {
        long: "hop-limit",
        short: None,
        value: Some("HOPS"),
        group: Group::Traffic,
        default: Some("32"),
        brief: "most nodes on a path that starts here",
        help: "",
        roles: OPENING,
        set: Set::Text(|s, text| {
            s.common.hop_limit = value::integer(text, 1..=u8::MAX)?;
            Ok(())
        }),
    },
    Flag {
        long: "allow",
        short: None,
        value: Some("CIDR"),
        group: Group::Traffic,
        default: None,
        brief: "who may connect; repeatable",
        help: "10.0.0.0/8, 2001:db8::/32 or one address. Anybody else is reset at once; the log says \
            so, at most every 10 s. Without it everybody may connect.",
        roles: LISTENING,
        set: Set::Text(|s, text| {
            s.allow.push(text.parse()?);
            Ok(())
        }),
    },
    Flag {
        long: "max-connections",
        short: None,
        value: Some("COUNT"),
        group: Group::Traffic,
        default: None,
        brief: "open at once; others wait",
        help: "Beyond it nobody is accepted: further clients stand in the kernel's queue until a \
            connection ends. By default as many as the limit of open descriptors (ulimit -n) leaves \
            room for.",
        roles: LISTENING,
        set: Set::Text(|s, text| {
            s.max_connections = Some(value::integer::<u32>(text, 1..=CONNECTIONS_MAX)? as usize);
            Ok(())
        }),
    },
    Flag {
        long: "key-file",
        short: None,
        value: Some("FILE"),
        group: Group::Traffic,
        default: None,
        brief: "shared key: only its holders are peers",
        help: "The same 32 hexadecimal digits at every node of the chain, readable by their owner \
            alone (chmod 600). Frames of anybody else are refused; plain clients only get in with \
            --accept raw. It keeps others from using the chain and from faking times; it hides \
            nothing: for that there are WireGuard and ssh.",
        roles: FRAMING,
        set: Set::Path(|s, path| s.common.key_file = Some(path)),
    },
    Flag {
        long: "count",
        short: Some('c'),
        value: Some("COUNT"),
        group: Group::Probe,
        default: Some("10"),
        brief: "blocks to send; 0 = until stopped",
        help: "",
        roles: &[Probe],
        set: Set::Text(|s, text| {
            s.count = value::integer(text, 0..=u64::MAX)?;
            Ok(())
        }),
    },
    Flag {
        long: "interval",
        short: Some('i'),
        value: Some("SECONDS"),
        group: Group::Probe,
        default: Some("1"),
        brief: "time between two blocks",
        help: "The schedule is kept whatever the answers do: a path that stalls is measured for \
            as long as it stalls. At least 100us.",
        roles: &[Probe],
        set: Set::Text(|s, text| {
            let interval = value::duration(text)?;
            if interval < INTERVAL_MIN {
                return Err(format!("is too short: at least {INTERVAL_MIN:?}"));
            }
            s.interval = interval;
            Ok(())
        }),
    },
    Flag {
        long: "size",
        short: Some('s'),
        value: Some("BYTES"),
        group: Group::Probe,
        default: Some("64"),
        brief: "payload of a block, up to 1M",
        help: "",
        roles: &[Probe],
        set: Set::Text(|s, text| {
            s.size = value::bytes(text, 0..=BLOCK_MAX_BYTES)?;
            Ok(())
        }),
    },
    Flag {
        long: "seed",
        short: None,
        value: Some("NUMBER"),
        group: Group::Probe,
        default: None,
        brief: "repeat the demo that had this seed",
        help: "",
        roles: &[Demo],
        set: Set::Text(|s, text| {
            s.seed = Some(value::integer(text, 0..=u64::MAX)?);
            Ok(())
        }),
    },
    Flag {
        long: "ask",
        short: None,
        value: Some("CLASSES"),
        group: Group::Annotations,
        default: Some("none"),
        brief: "ask each node about itself: load,tcp",
        help: "Every marked block asks all nodes of the path, and each answers in the next one; the \
            report has the latest. all, none, or some of load, cpu, memory, files, mib, interfaces, \
            tcp (what the kernel knows of the node's own connections), tags, snmp.",
        roles: OPENING,
        set: Set::Text(|s, text| {
            s.common.ask = text.parse()?;
            Ok(())
        }),
    },
    Flag {
        long: "annotate",
        short: None,
        value: Some("CLASSES"),
        group: Group::Annotations,
        default: None,
        brief: "what to tell when asked (default: all)",
        help: "The same words as for --ask; whoever asks for another class is told that it is not \
            offered.",
        roles: TELLING,
        set: Set::Text(|s, text| {
            s.common.annotate = Some(text.parse()?);
            Ok(())
        }),
    },
    Flag {
        long: "snmp",
        short: None,
        value: Some("ADDR"),
        group: Group::Annotations,
        default: None,
        brief: "an SNMP agent whose values to tell",
        help: "host, host:port or [v6]:port of an agent on this host or on a router beside it; port \
            161 where none is given. It is asked (SNMPv2c, one GET) when a block asks this node for \
            the class snmp, by nobody else and for nothing else than --snmp-objects.",
        roles: TELLING,
        set: Set::Text(|s, text| {
            s.common.snmp = Some(agent(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "snmp-community",
        short: None,
        value: Some("TEXT"),
        group: Group::Annotations,
        default: Some("public"),
        brief: "the agent's community",
        help: "It is no secret: it goes over the network in the clear, and the process list shows it.",
        roles: TELLING,
        set: Set::Text(|s, text| {
            s.common.snmp_community = value::label(text)?;
            Ok(())
        }),
    },
    Flag {
        long: "snmp-objects",
        short: None,
        value: Some("LIST"),
        group: Group::Annotations,
        default: None,
        brief: "what to ask it for (default: load)",
        help: "Without it sysUpTime,laLoad.1,laLoad.2,laLoad.3. At most 32, joined by commas: numbers (1.3.6.1.2.1.1.5.0) or names, those of tables \
            with the number of the row: sysUpTime, sysName, laLoad.1, ssCpuIdle, memAvailReal, \
            ifInOctets.2, ifHCInOctets.2, ifInErrors.2, ifOutDiscards.2, hrProcessorLoad.1 and others.",
        roles: TELLING,
        set: Set::Text(|s, text| {
            s.common.snmp_objects = snmp::objects(text)?;
            Ok(())
        }),
    },
    Flag {
        long: "targets",
        short: None,
        value: Some("FILE"),
        group: Group::Probe,
        default: None,
        brief: "probe every target of FILE, not ADDR",
        help: "A target per line, host:port and perhaps a name; # begins a comment. Each has a \
            schedule of its own, begun at a time of its own within the interval. The report has a \
            line for each path, and metrics have the label path.",
        roles: &[Probe],
        set: Set::Path(|s, path| s.targets = Some(path)),
    },
    Flag {
        long: "metrics-listen",
        short: None,
        value: Some("ADDR"),
        group: Group::Metrics,
        default: None,
        brief: "serve /metrics and /healthz here",
        help: "For Prometheus, in its text format or OpenMetrics; without a login, so choose an \
            address that only your monitoring reaches. Port 0 lets the kernel choose; stderr \
            says which. Costs nothing while nobody asks.",
        roles: WATCHED,
        set: Set::Text(|s, text| {
            s.common.metrics_listen = Some(text.parse()?);
            Ok(())
        }),
    },
    Flag {
        long: "metrics-file",
        short: None,
        value: Some("FILE"),
        group: Group::Metrics,
        default: None,
        brief: "write the metrics to FILE",
        help: "For node_exporter's textfile collector, from cron too: at the end, and every 15 s \
            where there is none. A reader sees it whole.",
        roles: REPORTING_METRICS,
        set: Set::Path(|s, path| s.common.metrics_file = Some(path)),
    },
    Flag {
        long: "probe-allow",
        short: None,
        value: Some("TARGETS"),
        group: Group::Metrics,
        default: None,
        brief: "allow /probe of these; repeatable",
        help: "host:port, host:* or a network, 10.0.0.0/8:9000 or [2001:db8::/32]:*. A request \
            /probe?target=host:port&count=N&interval=SECONDS&size=BYTES to --metrics-listen then \
            probes that target and answers its metrics. Without it none is allowed.",
        roles: WATCHED,
        set: Set::Text(|s, text| {
            s.common.probe_allow.push(text.parse()?);
            Ok(())
        }),
    },
    Flag {
        long: "node",
        short: None,
        value: Some("NAME"),
        group: Group::Report,
        default: None,
        brief: "this node's name (default: host name)",
        help: "",
        roles: EVERY,
        set: Set::Text(|s, text| {
            s.common.node = Some(value::label(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "add-static-tags",
        short: None,
        value: Some("TAG"),
        group: Group::Report,
        default: None,
        brief: "text shown with this node; repeatable",
        help: "Travels along the path and stands beside the node in every report: a site, a rack, \
            a release. At most 16.",
        roles: EVERY,
        set: Set::Text(|s, text| {
            if s.common.tags.len() >= TAGS_MAX {
                return Err(format!("is one too many: at most {TAGS_MAX} tags"));
            }
            s.common.tags.push(value::label(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "report",
        short: None,
        value: Some("FILE"),
        group: Group::Report,
        default: None,
        brief: "write the report to FILE",
        help: "By default it goes to stdout, and to stderr at the source, whose stdout is the answer. \
            Nodes that listen write it when they end.",
        roles: REPORTING,
        set: Set::Path(|s, path| s.common.report = Some(path)),
    },
    Flag {
        long: "report-html",
        short: None,
        value: Some("FILE"),
        group: Group::Report,
        default: None,
        brief: "write pictures of the run to FILE",
        help: "One page of HTML that needs nothing else: the path drawn to scale, delays over time, \
            their distribution, every figure. It is written at the end, and every 10 seconds \
            where blocks come in; FILE is replaced whole.",
        roles: EVERY,
        set: Set::Path(|s, path| s.common.report_html = Some(path)),
    },
    Flag {
        long: "format",
        short: None,
        value: Some("F"),
        group: Group::Report,
        default: None,
        brief: "text (default), json, jsonl, csv, and more",
        help:
            "text is for people, json is one object for the run, influx the same as lines for \
            Telegraf, nagios the line of a monitoring plugin; jsonl, csv and otlp (OpenTelemetry \
            traces) have one line per block.",
        roles: FORMATTED,
        set: Set::Text(|s, text| {
            s.common.format = Some(text.parse::<Format>()?);
            match is_built(text) {
                true => Ok(()),
                false => Err(format!("is not in this build: {SMALL}")),
            }
        }),
    },
    Flag {
        long: "state",
        short: None,
        value: Some("FILE"),
        group: Group::Report,
        default: None,
        brief: "compare with earlier runs and windows in FILE",
        help: "What is usual is learnt from the last 24 hours, from the same hour of earlier days, \
            or from the last 20 runs. A change that was named is not learnt until it is accepted \
            (state FILE accept) or 7 days old. With --targets and exporter it is a directory, with \
            a file for each target.",
        roles: KEEPING,
        set: Set::Path(|s, path| s.common.state = Some(path)),
    },
    Flag {
        long: "baseline",
        short: None,
        value: Some("FILE"),
        group: Group::Report,
        default: None,
        brief: "compare with FILE, a state or a report in JSON",
        help: "It is only read. With --state too, that is written and this is compared with.",
        roles: WITH_BASELINE,
        set: Set::Path(|s, path| s.common.baseline = Some(path)),
    },
    Flag {
        long: "window",
        short: None,
        value: Some("DURATION"),
        group: Group::Report,
        default: None,
        brief: "span of gauges, rules and records (5m if endless)",
        help: "A run without end is cut into windows, whose records are kept in --state. A finite \
            run is one window unless this is given.",
        roles: WITH_BASELINE,
        set: Set::Text(|s, text| {
            s.common.window = Some(value::positive_duration(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "before",
        short: None,
        value: Some("TIME"),
        group: Group::Report,
        default: None,
        brief: "with compare --state: records until TIME",
        help: "RFC 3339 (2026-11-27T15:17:02Z), a date, or -2h for so long ago. Of those records as \
            many as follow --after are compared, at least 12.",
        roles: COMPARING,
        set: Set::Text(|s, text| {
            s.before = Some(value::time(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "after",
        short: None,
        value: Some("TIME"),
        group: Group::Report,
        default: None,
        brief: "with compare --state: records from TIME on",
        help: "",
        roles: COMPARING,
        set: Set::Text(|s, text| {
            s.after = Some(value::time(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "fail-above",
        short: None,
        value: Some("DELAY"),
        group: Group::Report,
        default: None,
        brief: "compare fails only if a part surely rose by more",
        help: "The low end of the interval of a rise is held against it. Without it any rise beyond \
            its interval ends with exit code 1.",
        roles: COMPARING,
        set: Set::Text(|s, text| {
            s.fail_above = Some(value::duration(text)?);
            Ok(())
        }),
    },
    Flag {
        long: "rules",
        short: None,
        value: Some("FILE"),
        group: Group::Report,
        default: None,
        brief: "limits, and what to ask nodes beyond them",
        help: "One rule per line, as in: segment B->C round_trip p95 > 5ms for 3 of 5 critical \
            ask load,tcp at B,C. What turns stands in the report and in the log; the exit code of \
            probe is the state at its end. The README has the grammar; check-rules tests a file.",
        roles: OPENING,
        set: Set::Path(|s, path| s.common.rules = Some(path)),
    },
    Flag {
        long: "warning",
        short: None,
        value: Some("LIMIT"),
        group: Group::Report,
        default: None,
        brief: "warn above 100ms,20%: mean, loss",
        help: "The simple case without a file, as check_ping has it: the mean of the total, the \
            share of lost blocks, or both.",
        roles: OPENING,
        set: Set::Text(|s, text| limits(s, text, Sla::Warning)),
    },
    Flag {
        long: "critical",
        short: None,
        value: Some("LIMIT"),
        group: Group::Report,
        default: None,
        brief: "the same, for the state critical",
        help: "",
        roles: OPENING,
        set: Set::Text(|s, text| limits(s, text, Sla::Critical)),
    },
    Flag {
        long: "sessions",
        short: None,
        value: Some("FILE"),
        group: Group::Report,
        default: None,
        brief: "the life of each connection, JSON lines",
        help: "JSON lines: one when a connection begins, one when it ends, and one for each second \
            in which something moved on it. They hold, for both ends, the times of connect, first \
            and last byte, FIN and RST, the kernel's round trips, retransmissions and bytes; where \
            plain HTTP/1.x is seen, its requests and responses too. With --metrics-listen, \
            /sessions there answers with such a line for each connection that is open.",
        roles: LISTENING,
        set: Set::Path(|s, path| s.common.sessions = Some(path)),
    },
    Flag {
        long: "debug",
        short: Some('d'),
        value: Some("LEVEL"),
        group: Group::Report,
        default: None,
        brief: "log up to syslog level 0..7 (default 4)",
        help: "3 is errors, 4 warnings too, 5 and 6 life of connections, 7 single \
            frames. Wins over the environment variable RUST_LOG.",
        roles: EVERY,
        set: Set::Text(|s, text| {
            s.common.debug = Some(value::integer(text, 0..=7)?);
            Ok(())
        }),
    },
    Flag {
        long: "help",
        short: Some('h'),
        value: None,
        group: Group::Report,
        default: None,
        brief: "-h this page, --help more, with examples",
        help: "",
        roles: EVERY,
        set: Set::Help,
    },
    Flag {
        long: "version",
        short: Some('V'),
        value: None,
        group: Group::Report,
        default: None,
        brief: "print name and version",
        help: "",
        roles: EVERY,
        set: Set::Version,
    },
];

/// A state of the Monitoring Plugins, by its word or its number.
fn plugin_state(text: &str) -> Result<State, String> {
    let mut known = (0..).zip(State::ALL);
    let found = known
        .find(|(number, (_, word))| text.eq_ignore_ascii_case(word) || text == number.to_string());
    let found = found.map(|(_, (state, _))| state);
    found.ok_or_else(|| format!("has {text:?} for a state: write ok, warning, critical or unknown"))
}

/// Limits of the command line; a second `--warning` takes the place of the first.
fn limits(settings: &mut Settings, text: &str, severity: Sla) -> Result<(), String> {
    let rules = sla::simple(text, severity)?;
    let limits = &mut settings.common.limits;
    limits.retain(|rule| rule.severity != severity);
    limits.extend(rules);
    let of = |severity| limits.iter().filter(move |rule| rule.severity == severity);
    for warning in of(Sla::Warning) {
        let mut critical = of(Sla::Critical).filter(|rule| rule.figure == warning.figure);
        if let Some(critical) = critical.find(|critical| warning.limit > critical.limit) {
            let (warning, critical) = (warning.limit, critical.limit);
            return Err(format!(
                "does not fit: --warning {warning} is above --critical {critical}"
            ));
        }
    }
    Ok(())
}

/// Where an SNMP agent is; the port may be left out.
fn agent(text: &str) -> Result<Endpoint, String> {
    let with_port = format!("{text}:{}", snmp::PORT);
    Endpoint::hop(text).or_else(|error| Endpoint::hop(&with_port).map_err(|_| error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn long_and_short_names_are_unique_and_well_formed() {
        let longs: BTreeSet<_> = all().iter().map(|flag| flag.long).collect();
        assert_eq!(longs.len(), all().len());
        let shorts: Vec<_> = all().iter().filter_map(|flag| flag.short).collect();
        assert_eq!(shorts.iter().collect::<BTreeSet<_>>().len(), shorts.len());
        for flag in all() {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(
                flag.long.len() > 1 && flag.long.chars().all(plain),
                "{}",
                flag.long
            );
            let takes_value = matches!(flag.set, Set::Text(_) | Set::Path(_));
            assert_eq!(flag.value.is_some(), takes_value, "{}", flag.long);
            assert!(!flag.roles.is_empty(), "{}", flag.long);
        }
    }

    #[test]
    fn the_defaults_that_help_shows_are_the_ones_in_force() {
        for flag in all() {
            let (Some(default), Set::Text(set)) = (flag.default, flag.set) else {
                assert!(flag.default.is_none(), "{}", flag.long);
                continue;
            };
            let mut settings = Settings::default();
            set(&mut settings, default).expect(flag.long);
            assert_eq!(settings, Settings::default(), "--{} {default}", flag.long);
        }
    }

    #[test]
    fn command_words_are_unique() {
        let names: BTreeSet<_> = WORDS.iter().map(|word| word.name).collect();
        assert_eq!(names.len(), WORDS.len());
    }
}
