//! Every option and every command word, each once. The parser, the help and the tests of the manual
//! read these tables.
//!
//! | to add | touch |
//! |---|---|
//! | an option | a row in the file of its section; a case in the tests of `parse`; `help options` |
//! | a command | a [`Mode`], row in `mode::WORDS`, `config::Command`; arms in `parse`, `commands` |
//! | a section | a variant of [`Section`] with its heading |
//!
//! A test or the compiler names what was forgotten. A name stands in several rows only if these
//! differ in their modes, as `--count` of `probe` and of `passive` do.

mod capture;
mod mode;
mod probe;
mod report;
mod trace;
mod traffic;

pub use mode::{Mode, Word};

use super::config::{AllowSource, Common, TimeArgument, TraceOptions};
use super::host_port::HostPort;
use super::passive::PassiveConfig;
use crate::report::format::FORMATS;
use crate::report::State;
use crate::session::admission::Accept;
use crate::wire::proxy::ProxyVersion;
use crate::{FULL, SMALL};
use std::path::PathBuf;
use std::time::Duration;
use Mode::{
    CheckRules, Compare, Demo, Echo, Entry, Exit, Exporter, Generate, Help, Passive, Probe, Proxy,
    Relay, Source, State as Stored, Trace,
};

/// Most payload bytes of a block, as on the wire.
const BLOCK_MAX_BYTES: usize = 1 << 20;

// The modes that have a use for an option. A relay stands in most lists beside the entry: with
// --accept auto it serves raw clients too.
const EVERY: &[Mode] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Demo, CheckRules, Exporter, Passive, Help,
    Stored, Compare, Generate, Trace,
];
const LOGGING: &[Mode] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Trace, Demo, Exporter, Passive,
];
const MEASURING: &[Mode] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Trace, Demo, Exporter,
];
const REPORTING: &[Mode] = &[Source, Relay, Echo, Entry, Exit, Proxy, Probe, Trace, Demo];
const WITH_FORMAT: &[Mode] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Trace, Demo, Stored, Compare,
];
const WITH_STATE: &[Mode] = &[
    Source, Relay, Entry, Exit, Proxy, Probe, Trace, Exporter, Compare,
];
const COMPARING: &[Mode] = &[Compare];
const WITH_METRICS: &[Mode] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Trace, Passive,
];
const WITH_HTTP: &[Mode] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Trace, Exporter, Passive,
];
const WITH_PROBE_REQUESTS: &[Mode] = &[Source, Relay, Echo, Entry, Exit, Proxy, Probe, Exporter];
const PROBING: &[Mode] = &[Probe, Trace];
const LISTENING: &[Mode] = &[Relay, Echo, Entry, Exit, Proxy];
const READING_HTTP: &[Mode] = &[Entry, Exit, Proxy, Passive];
const FOLLOWING_HTTP: &[Mode] = &[Entry, Exit, Proxy];
const TIMING_HTTP: &[Mode] = &[Entry, Proxy];
const FORWARDING: &[Mode] = &[Source, Relay, Entry, Exit, Proxy];
const PROXYING: &[Mode] = &[Relay, Entry, Exit, Proxy];
const SEEING_FRAMES: &[Mode] = &[Relay, Echo, Entry, Exit];
const STAMPING: &[Mode] = &[Source, Relay, Echo, Entry, Exit, Probe, Trace];
const OPENING: &[Mode] = &[Source, Relay, Entry, Probe, Trace];
const FRAMING: &[Mode] = &[Source, Relay, Echo, Entry, Exit, Probe, Exporter];
const WITH_BASELINE: &[Mode] = &[Source, Relay, Entry, Exit, Proxy, Probe, Trace];
const ANNOTATING: &[Mode] = &[Source, Relay, Echo, Entry, Exit, Probe, Trace];
const CONNECTING: &[Mode] = &[Source, Relay, Entry, Exit, Proxy, Probe, Trace, Exporter];
const WITH_SOCKETS: &[Mode] = &[
    Source, Relay, Echo, Entry, Exit, Proxy, Probe, Trace, Exporter,
];
const CARRYING: &[Mode] = &[Source, Relay, Echo, Entry, Exit, Proxy];

/// Heading under which the help lists an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Selects the role.
    Role,
    /// The carrying of traffic.
    Traffic,
    /// `probe`, `trace` and `demo`.
    Probe,
    /// `trace`.
    Trace,
    /// Annotations of nodes.
    Annotations,
    /// Output for a monitoring system.
    Metrics,
    /// Report and log.
    Report,
    /// `passive`.
    Capture,
}

impl Section {
    /// Every section, in the order of the help.
    pub const ALL: &'static [Self] = &[
        Self::Role,
        Self::Traffic,
        Self::Probe,
        Self::Trace,
        Self::Capture,
        Self::Annotations,
        Self::Metrics,
        Self::Report,
    ];

    /// The heading, without a colon.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::Traffic => "Traffic",
            Self::Probe => "Probe and demo",
            Self::Trace => "Trace",
            Self::Annotations => "Annotations",
            Self::Metrics => "Metrics",
            Self::Report => "Report and log",
            Self::Capture => "Capture",
        }
    }
}

/// The default of `--max-memory`, in bytes.
const MEMORY: usize = if FULL { 256 << 20 } else { 32 << 20 };

/// The options given so far. `Default` holds the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub(super) common: Common,
    pub(super) listen: Option<HostPort>,
    pub(super) forward_to: Option<HostPort>,
    pub(super) accept: Accept,
    pub(super) remove: bool,
    pub(super) accept_proxy: bool,
    pub(super) send_proxy: Option<ProxyVersion>,
    pub(super) allow: Vec<AllowSource>,
    pub(super) max_connections: Option<usize>,
    pub(super) server_check: Option<Duration>,
    pub(super) max_memory: usize,
    pub(super) drain: Option<Duration>,
    pub(super) block: usize,
    pub(super) count: Option<u64>,
    pub(super) flows: u32,
    pub(super) interval: Option<Duration>,
    pub(super) size: usize,
    pub(super) on_timeout: Option<State>,
    pub(super) seed: Option<u64>,
    pub(super) targets: Option<PathBuf>,
    pub(super) interface: Option<String>,
    pub(super) passive: PassiveConfig,
    pub(super) before: Option<TimeArgument>,
    pub(super) after: Option<TimeArgument>,
    pub(super) fail_above: Option<Duration>,
    pub(super) trace: TraceOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            common: Common::default(),
            listen: None,
            forward_to: None,
            accept: Accept::Auto,
            remove: false,
            accept_proxy: false,
            send_proxy: None,
            allow: Vec::new(),
            max_connections: None,
            server_check: None,
            max_memory: MEMORY,
            drain: None,
            block: 16_384,
            count: None,
            flows: 1,
            interval: None,
            size: 64,
            on_timeout: None,
            seed: None,
            targets: None,
            interface: None,
            passive: PassiveConfig::default(),
            before: None,
            after: None,
            fail_above: None,
            trace: TraceOptions::default(),
        }
    }
}

/// The effect of an option's value. Setters check and store; they open nothing.
#[derive(Clone, Copy, Debug)]
pub enum Set {
    /// Takes no value.
    Switch(fn(&mut Options)),
    /// Takes text. The error completes the sentence "--option VALUE ...".
    Text(fn(&mut Options, &str) -> Result<(), String>),
    /// Takes one of these words, and stores it by its place among them.
    Choice(&'static [&'static str], fn(&mut Options, usize)),
    /// Takes the name of a file, which need not be UTF-8.
    Path(fn(&mut Options, PathBuf)),
    /// Prints the help, the short one for the short option.
    Help,
    /// Prints the version.
    Version,
}

/// One option. If it is given twice, the last one counts (tags are collected).
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Long name without dashes, words joined by `-`; the parser takes `_` as well.
    pub long: &'static str,
    /// Short name without its dash; `None` if there is no short one.
    pub short: Option<char>,
    /// The kind of value, for the help; `None` for a switch. No option has an optional value.
    pub value: Option<&'static str>,
    /// Its section of the help.
    pub section: Section,
    /// The default as one would type it; `None` if there is no value without the option.
    pub default: Option<&'static str>,
    /// A few words for `-h`.
    pub brief: &'static str,
    /// Sentences of `--help` after the brief text, wrapped when shown. Empty in a small build.
    pub help: &'static str,
    /// The modes that have a use for it; in all others it is a usage error.
    pub modes: &'static [Mode],
    /// `true` if only a build with the feature `full` has it.
    pub full_only: bool,
    /// Its effect.
    pub set: Set,
}

/// The parts that most rows have in common.
const ROW: Flag = Flag {
    long: "",
    short: None,
    value: None,
    section: Section::Role,
    default: None,
    brief: "",
    help: "",
    modes: &[],
    full_only: false,
    set: Set::Help,
};

impl Flag {
    /// Returns `true` if this build has the option.
    const fn is_built(&self) -> bool {
        FULL || !(self.full_only || self.is_for_full_modes())
    }

    /// Returns `true` if only modes of a full build have a use for the option.
    const fn is_for_full_modes(&self) -> bool {
        let mut at = 0;
        while at < self.modes.len() {
            if !self.modes[at].is_full_only() {
                return false;
            }
            at += 1;
        }
        true
    }
}

/// The rows by file; within a section the help keeps this order.
const TABLES: [&[Flag]; 5] = [
    traffic::FLAGS,
    probe::FLAGS,
    trace::FLAGS,
    capture::FLAGS,
    report::FLAGS,
];

/// Every option of this build, in the order of the help.
pub fn all() -> &'static [Flag] {
    &BUILT
}

/// Returns the row of an option by its long name: the one for `mode`, else the first one.
///
/// `None` for the mode stands for all modes without a command word.
pub(super) fn find(long: &str, mode: Option<Mode>) -> Option<&'static Flag> {
    let is_for = |flag: &&Flag| match mode {
        Some(mode) => flag.modes.contains(&mode),
        None => flag.modes.iter().any(|mode| !mode.has_word()),
    };
    let rows = || all().iter().filter(|flag| flag.long == long);
    rows().find(is_for).or_else(|| rows().next())
}

/// Every command word of this build.
pub fn words() -> &'static [Word] {
    &BUILT_WORDS
}

static BUILT: [Flag; count_flags()] = {
    let mut built = [ROW; count_flags()];
    let (mut table, mut at) = (0, 0);
    while table < TABLES.len() {
        let mut row = 0;
        while row < TABLES[table].len() {
            let flag = TABLES[table][row];
            if flag.is_built() {
                built[at] = flag;
                // The sentences of --help would take 6 KiB of a small binary.
                if !FULL {
                    built[at].help = "";
                }
                at += 1;
            }
            row += 1;
        }
        table += 1;
    }
    built
};

const fn count_flags() -> usize {
    let (mut table, mut count) = (0, 0);
    while table < TABLES.len() {
        let mut row = 0;
        while row < TABLES[table].len() {
            count += TABLES[table][row].is_built() as usize;
            row += 1;
        }
        table += 1;
    }
    count
}

static BUILT_WORDS: [Word; count_words()] = {
    let mut built = [mode::WORDS[0]; count_words()];
    let (mut row, mut at) = (0, 0);
    while row < mode::WORDS.len() {
        if FULL || !mode::WORDS[row].mode.is_full_only() {
            built[at] = mode::WORDS[row];
            if !FULL {
                built[at].examples = "";
            }
            at += 1;
        }
        row += 1;
    }
    built
};

const fn count_words() -> usize {
    let (mut row, mut count) = (0, 0);
    while row < mode::WORDS.len() {
        count += (FULL || !mode::WORDS[row].mode.is_full_only()) as usize;
        row += 1;
    }
    count
}

/// Names of the options, command words and formats that only a build with the feature `full` has
/// ([`FULL`]).
///
/// Options of commands that are left out are not among them.
pub const FULL_ONLY: &[&str] = LEFT_OUT.0.split_at(LEFT_OUT.1).0;

/// The names, and how many of the places are used.
const LEFT_OUT: &([&str; 32], usize) = &{
    let mut names = [""; 32];
    let mut count = 0;
    let mut row = 0;
    while row < mode::WORDS.len() {
        if mode::WORDS[row].mode.is_full_only() {
            names[count] = mode::WORDS[row].name;
            count += 1;
        }
        row += 1;
    }
    let mut table = 0;
    while table < TABLES.len() {
        let mut row = 0;
        while row < TABLES[table].len() {
            if TABLES[table][row].full_only {
                names[count] = TABLES[table][row].long;
                count += 1;
            }
            row += 1;
        }
        table += 1;
    }
    let mut row = 0;
    while row < FORMATS.len() {
        if FORMATS[row].full_only {
            names[count] = FORMATS[row].name;
            count += 1;
        }
        row += 1;
    }
    (names, count)
};

/// Checks that an option, a command word or a format is in this build; `before` precedes its name.
///
/// # Errors
///
/// A sentence with the reason.
pub(super) fn check_built(name: &str, before: &str) -> Result<(), String> {
    if FULL || !FULL_ONLY.contains(&name) {
        return Ok(());
    }
    Err(format!("this build has no {before}{name}: {SMALL}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_are_well_formed() {
        for flag in all() {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            let long = flag.long;
            assert!(long.len() > 1 && long.chars().all(plain), "{long}");
            let takes_value = matches!(flag.set, Set::Text(_) | Set::Choice(..) | Set::Path(_));
            assert_eq!(flag.value.is_some(), takes_value, "{long}");
            assert!(!flag.modes.is_empty() && flag.brief.len() > 4, "{long}");
            let prints = matches!(flag.set, Set::Help | Set::Version);
            assert_eq!(prints, matches!(long, "help" | "version"), "{long}");
        }
    }

    /// The parser looks only at the name to know if a value follows.
    #[test]
    fn a_mode_has_one_row_for_a_name_and_all_rows_of_a_name_take_a_value_or_none() {
        for (at, flag) in all().iter().enumerate() {
            for other in &all()[..at] {
                let is_same = flag.long == other.long;
                let is_shared = flag.modes.iter().any(|mode| other.modes.contains(mode));
                assert!(!(is_same && is_shared), "--{} twice", flag.long);
                if is_same {
                    assert_eq!(flag.value.is_some(), other.value.is_some(), "{}", flag.long);
                }
                if flag.short.is_some() && flag.short == other.short {
                    assert_eq!(flag.long, other.long, "{:?}", flag.short);
                }
            }
        }
    }

    #[test]
    fn only_passive_gives_a_name_a_second_meaning() {
        let mut twice = BTreeSet::new();
        for (at, flag) in all().iter().enumerate() {
            for other in &all()[..at] {
                if flag.long == other.long {
                    assert!([flag.modes, other.modes].contains(&&[Passive][..]));
                    twice.insert(flag.long);
                }
            }
        }
        assert!(
            twice.is_subset(&BTreeSet::from(["count", "format", "interval", "verbose"])),
            "{twice:?}"
        );
    }

    #[test]
    fn the_defaults_that_help_shows_are_the_ones_in_force() {
        for flag in all() {
            let Some(default) = flag.default else {
                continue;
            };
            let mut options = Options::default();
            match flag.set {
                Set::Text(set) => set(&mut options, default).expect(flag.long),
                Set::Choice(words, set) => {
                    let at = words.iter().position(|word| *word == default);
                    set(&mut options, at.expect(flag.long));
                }
                _ => panic!("--{} takes no text", flag.long),
            }
            // Those of a probe depend on its format.
            if options.count.take() == Some(100)
                || options.interval.take() == Some(Duration::from_millis(100))
            {
                continue;
            }
            assert_eq!(options, Options::default(), "--{} {default}", flag.long);
        }
    }

    #[test]
    fn command_words_are_unique_and_their_last_operands_alone_may_be_left_out() {
        let names: BTreeSet<_> = words().iter().map(|word| word.name).collect();
        assert_eq!(names.len(), words().len());
        for word in words() {
            let optional = word.operands.iter().map(|operand| operand.starts_with('['));
            assert!(
                optional
                    .clone()
                    .zip(optional.skip(1))
                    .all(|(one, next)| one <= next),
                "{}",
                word.name
            );
            assert!(word.mode.has_word(), "{}", word.name);
        }
    }
}
