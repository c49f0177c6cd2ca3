//! Arguments of `passive` in; a checked [`PassiveConfig`], a text to print or a [`UsageError`] out. Opens nothing.

use crate::passive::{GroupBy, Side};
use crate::report::passive::Format;
use lexopt::{Arg, Parser};
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A capture file.
    File(PathBuf),
    /// A capture on stdin.
    Stdin,
    /// A network interface, live.
    Interface(String),
}

/// What `passive` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassiveConfig {
    /// Where packets come from.
    pub input: Input,
    /// Set if each HTTP exchange is shown.
    pub verbose: bool,
    /// The capture of the other end.
    pub peer: Option<PathBuf>,
    /// How to write.
    pub format: Format,
    /// Length of an interval; `None` for no snapshots.
    pub interval: Option<Duration>,
    /// Flows held at once.
    pub max_flows: usize,
    /// Packets after which to end; `None` for all.
    pub count: Option<u64>,
    /// The end that the capture was made at; `None` to tell by the round trips.
    pub at: Option<Side>,
    /// What one time series stands for.
    pub group_by: GroupBy,
    /// Time series per metric and direction.
    pub max_groups: usize,
    /// `host:port` to serve `/metrics` at.
    pub metrics_listen: Option<String>,
    /// Where to keep the metrics as a file.
    pub metrics_file: Option<PathBuf>,
    /// How often to write that file.
    pub metrics_interval: Duration,
}

/// A command line that makes no sense; `Display` says what, which value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start.
    Run(Box<PassiveConfig>),
    /// Print this text to stdout and end.
    Print(String),
}

/// What was given so far.
#[derive(Debug, Default)]
struct Given {
    operand: Option<OsString>,
    verbose: bool,
    interface: Option<String>,
    interval: Option<Duration>,
    max_flows: Option<usize>,
    max_groups: Option<usize>,
    metrics_interval: Option<Duration>,
    peer: Option<PathBuf>,
    format: Format,
    count: Option<u64>,
    at: Option<Side>,
    group_by: GroupBy,
    metrics_listen: Option<String>,
    metrics_file: Option<PathBuf>,
}

type Set = fn(&mut Given, OsString) -> Result<(), String>;

/// One option.
#[derive(Debug)]
pub struct Flag {
    /// Long name without dashes.
    pub long: &'static str,
    /// Short name without its dash; `None` = no short one.
    pub short: Option<char>,
    /// What the value is, for the help; empty without one.
    pub value: &'static str,
    /// For `-h`: a few words, with the default in brackets at the end where there is one.
    pub brief: &'static str,
    /// For `--help`: sentences that follow the brief text.
    pub help: &'static str,
    set: Set,
}

impl Flag {
    /// The default as one would type it; `None` where nothing is done without the option.
    pub fn default(&self) -> Option<&'static str> {
        let (_, rest) = self.brief.rsplit_once('[')?;
        rest.strip_suffix(']')
    }
}

/// Every option of `passive`, for the parser, the help and the test of the README.
pub const FLAGS: &[Flag] = &[
    Flag {
        long: "format",
        short: None,
        value: "FORMAT",
        brief: "text|lines|json|jsonl|csv|prometheus [text]",
        help: "text: a small table per flow; lines: a line per round trip, with the time, \
               milliseconds, the least so far, the direction and how it was measured; json, \
               jsonl and csv: all figures, durations in nanoseconds; prometheus: the metrics at \
               the end.",
        set: |given, text| {
            given.format = choice(
                &text,
                &[
                    ("text", Format::Text),
                    ("lines", Format::Lines),
                    ("json", Format::Json),
                    ("jsonl", Format::JsonLines),
                    ("csv", Format::Csv),
                    ("prometheus", Format::Prometheus),
                ],
            )?;
            Ok(())
        },
    },
    Flag {
        long: "verbose",
        short: Some('v'),
        value: "",
        brief: "each HTTP exchange, with time and path",
        help: "In text; in json and jsonl it adds the path. Paths may hold secrets.",
        set: |given, _| {
            given.verbose = true;
            Ok(())
        },
    },
    Flag {
        long: "interface",
        short: Some('I'),
        value: "IF",
        brief: "capture here instead (needs CAP_NET_RAW)",
        help: "Linux only. Elsewhere, or without the right: tcpdump -U -w - | ... passive -",
        set: |given, text| {
            given.interface = Some(string(text)?);
            Ok(())
        },
    },
    Flag {
        long: "count",
        short: Some('c'),
        value: "N",
        brief: "end after so many packets",
        help: "Of any kind, those without TCP included.",
        set: |given, text| {
            given.count = Some(number(&text, 1)?);
            Ok(())
        },
    },
    Flag {
        long: "peer",
        short: None,
        value: "FILE",
        brief: "a capture of the same made at the other end",
        help: "Gives the one-way delay of each packet found in both, by the two clocks as they \
               are, and the times at both ends.",
        set: |given, text| {
            given.peer = Some(text.into());
            Ok(())
        },
    },
    Flag {
        long: "at",
        short: None,
        value: "END",
        brief: "client or server: where it was captured",
        help: "Decides which of the HTTP times are the client's and which the server's. Without \
               it: the end with the shorter round trips, per flow; with --peer by the order in \
               which packets passed, but the lines of --format lines take the client's.",
        set: |given, text| {
            given.at = Some(choice(
                &text,
                &[("client", Side::Client), ("server", Side::Server)],
            )?);
            Ok(())
        },
    },
    Flag {
        long: "interval",
        short: Some('i'),
        value: "SECONDS",
        brief: "length of snapshots in json, 0: none [1]",
        help: "The latest 3600 snapshots of a flow are kept, 200000 of all.",
        set: |given, text| {
            given.interval = Some(seconds(&text)?);
            Ok(())
        },
    },
    Flag {
        long: "max-flows",
        short: None,
        value: "N",
        brief: "flows held at once, oldest out first [100000]",
        help: "The one that was seen least recently is printed and has to go.",
        set: |given, text| {
            given.max_flows = Some(number(&text, 1)?);
            Ok(())
        },
    },
    Flag {
        long: "group-by",
        short: None,
        value: "GROUP",
        brief: "flow|remote|subnet|none: metrics [remote]",
        help: "remote: the address that round trips go to; subnet: its /24 or /64.",
        set: |given, text| {
            given.group_by = choice(
                &text,
                &[
                    ("flow", GroupBy::Flow),
                    ("remote", GroupBy::Remote),
                    ("subnet", GroupBy::Subnet),
                    ("none", GroupBy::None),
                ],
            )?;
            Ok(())
        },
    },
    Flag {
        long: "max-groups",
        short: None,
        value: "N",
        brief: "groups at most, the rest in other [1000]",
        help: "Bounds what the monitoring system has to store.",
        set: |given, text| {
            given.max_groups = Some(number(&text, 1)?);
            Ok(())
        },
    },
    Flag {
        long: "metrics-listen",
        short: None,
        value: "ADDR",
        brief: "serve /metrics for Prometheus at host:port",
        help: "There is no login: listen where only the monitoring system can reach it.",
        set: |given, text| {
            given.metrics_listen = Some(string(text)?);
            Ok(())
        },
    },
    Flag {
        long: "metrics-file",
        short: None,
        value: "FILE",
        brief: "keep the metrics in this file",
        help:
            "For node_exporter's textfile collector: written beside it and renamed, so no reader \
               sees half of it.",
        set: |given, text| {
            given.metrics_file = Some(text.into());
            Ok(())
        },
    },
    Flag {
        long: "metrics-interval",
        short: None,
        value: "SECONDS",
        brief: "how often to write that file [10]",
        help: "It is written once more at the end.",
        set: |given, text| {
            given.metrics_interval = match seconds(&text)? {
                Duration::ZERO => return Err("has to be more than 0".into()),
                span => Some(span),
            };
            Ok(())
        },
    },
];

const USAGE: &str = "\
Usage: subsegment-tcp-speeds passive FILE|- [OPTION]...
       subsegment-tcp-speeds passive --interface IF [OPTION]...
";

const EXAMPLES: &str = "
Examples:
    tcpdump -i eth0 -s 128 -w capture.pcap tcp
    subsegment-tcp-speeds passive capture.pcap
    tcpdump -i eth0 -U -w - | subsegment-tcp-speeds passive - --format lines
    subsegment-tcp-speeds passive client.pcap --peer server.pcap --format json
    subsegment-tcp-speeds passive -I eth0 --metrics-listen localhost:9876
";

/// Reads the arguments that follow the word `passive`.
///
/// # Errors
/// The first thing that makes no sense.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, UsageError> {
    let mut parser = Parser::from_args(args);
    let mut given = Given::default();
    while let Some(arg) = parser
        .next()
        .map_err(|error| UsageError(error.to_string()))?
    {
        let flag = match arg {
            Arg::Short('h') => return Ok(Action::Print(short_help())),
            Arg::Long("help") => return Ok(Action::Print(long_help())),
            Arg::Short(short) => FLAGS.iter().find(|flag| flag.short == Some(short)),
            Arg::Long(long) => FLAGS.iter().find(|flag| flag.long == long),
            Arg::Value(value) if given.operand.is_none() => {
                given.operand = Some(value);
                continue;
            }
            Arg::Value(_) => None,
        };
        let Some(flag) = flag else {
            let message = format!("passive: {}; try passive -h", arg.unexpected());
            return Err(UsageError(message));
        };
        let text = match flag.value {
            "" => Ok(OsString::new()),
            _ => parser.value(),
        };
        let text = text.map_err(|error| UsageError(error.to_string()))?;
        let shown = text.to_string_lossy().into_owned();
        (flag.set)(&mut given, text)
            .map_err(|what| UsageError(format!("--{} {shown:?} {what}", flag.long)))?;
    }
    given
        .into_config()
        .map(|config| Action::Run(Box::new(config)))
}

impl Given {
    fn into_config(self) -> Result<PassiveConfig, UsageError> {
        let usage = |text: &str| UsageError(format!("passive: {text}"));
        let input = match (self.operand, self.interface) {
            (Some(_), Some(_)) => return Err(usage("give a FILE or --interface, not both")),
            (None, None) => return Err(usage("give a FILE, - for stdin, or --interface")),
            (None, Some(interface)) => Input::Interface(interface),
            (Some(operand), None) if operand == "-" => Input::Stdin,
            (Some(operand), None) => Input::File(operand.into()),
        };
        if self.peer.is_some() {
            if matches!(input, Input::Interface(_)) {
                return Err(usage("--peer needs a capture file, not --interface"));
            }
            if self.count.is_some() {
                return Err(usage("--peer and --count do not go together"));
            }
            if matches!(self.format, Format::Prometheus)
                || self.metrics_listen.is_some()
                || self.metrics_file.is_some()
            {
                return Err(usage("--peer and metrics do not go together"));
            }
        }
        // Only JSON shows the snapshots.
        let shown = matches!(self.format, Format::Json | Format::JsonLines);
        let interval = self.interval.unwrap_or(Duration::from_secs(1));
        Ok(PassiveConfig {
            input,
            verbose: self.verbose,
            peer: self.peer,
            format: self.format,
            interval: (shown && !interval.is_zero()).then_some(interval),
            max_flows: self.max_flows.unwrap_or(100_000),
            count: self.count,
            at: self.at,
            group_by: self.group_by,
            max_groups: self.max_groups.unwrap_or(1000),
            metrics_listen: self.metrics_listen,
            metrics_file: self.metrics_file,
            metrics_interval: self.metrics_interval.unwrap_or(Duration::from_secs(10)),
        })
    }
}

fn string(text: OsString) -> Result<String, String> {
    text.into_string().map_err(|_| "is not UTF-8".into())
}

fn choice<T: Copy>(text: &OsString, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| text == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("is not one of {}", names.join(", "))
    })
}

fn number<T: std::str::FromStr + PartialOrd>(text: &OsString, least: T) -> Result<T, String> {
    let number = text.to_str().and_then(|text| text.parse().ok());
    number
        .filter(|number| *number >= least)
        .ok_or_else(|| "is not a whole number above 0".into())
}

fn seconds(text: &OsString) -> Result<Duration, String> {
    let number: Option<f64> = text.to_str().and_then(|text| text.parse().ok());
    match number {
        // A day at most; a microsecond at least, for the clocks of captures are no finer.
        Some(number) if number == 0.0 || (1e-6..=86_400.0).contains(&number) => {
            Ok(Duration::from_secs_f64(number))
        }
        _ => Err("is not a number of seconds up to 86400: write it as 1 or 0.5".into()),
    }
}

fn synopsis(flag: &Flag) -> String {
    let short = flag
        .short
        .map_or_else(String::new, |short| format!("-{short},"));
    let synopsis = format!("  {short:<3} --{} {}", flag.long, flag.value);
    synopsis.trim_end().to_owned()
}

fn short_help() -> String {
    let mut text = USAGE.to_owned();
    for flag in FLAGS {
        let _ = writeln!(text, "{:<34}{}", synopsis(flag), flag.brief);
    }
    text
}

fn long_help() -> String {
    let mut text = USAGE.to_owned();
    text.push_str(
        "\nReads what tcpdump writes; tells, per TCP connection and direction, the\n\
         round-trip delay seen from the capture point, and the connection's events.\n\n",
    );
    for flag in FLAGS {
        let _ = writeln!(text, "{}\n        {}.", synopsis(flag), flag.brief);
        let mut column = 0;
        for word in flag.help.split_whitespace() {
            if column == 0 || column + 1 + word.len() > 79 {
                let _ = write!(
                    text,
                    "{}        {word}",
                    if column == 0 { "" } else { "\n" }
                );
                column = 8 + word.len();
            } else {
                let _ = write!(text, " {word}");
                column += 1 + word.len();
            }
        }
        text.push('\n');
    }
    text.push_str(
        "\nExit codes:\n    0  done\n    1  the capture is damaged or cut off, or could not be read\n    \
         2  usage\n",
    );
    text.push_str(EXAMPLES);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<PassiveConfig, String> {
        match parse(args.iter().map(OsString::from)) {
            Ok(Action::Run(config)) => Ok(*config),
            Ok(Action::Print(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn flags_have_names_of_their_own_and_both_helps_fit_and_list_them() {
        for (at, flag) in FLAGS.iter().enumerate() {
            for other in &FLAGS[..at] {
                assert_ne!(flag.long, other.long);
                assert!(
                    flag.short.is_none() || flag.short != other.short,
                    "{}",
                    flag.long
                );
            }
        }
        for text in [short_help(), long_help()] {
            for line in text.lines() {
                assert!(line.chars().count() <= 79, "too wide: {line}");
            }
            for flag in FLAGS {
                assert!(text.contains(&synopsis(flag)), "no --{}", flag.long);
            }
        }
    }

    #[test]
    fn every_example_of_the_help_parses() {
        let calls = EXAMPLES
            .lines()
            .filter_map(|line| line.split_once(" passive "));
        let results: Vec<_> = calls
            .map(|(_, args)| run(&args.split(' ').collect::<Vec<_>>()))
            .collect();
        assert_eq!(results.len(), 4);
        for result in results {
            result.unwrap();
        }
    }

    #[test]
    fn values_arrive_where_they_belong() {
        let config = run(&["-", "--format=json", "-i", "0.5", "--max-flows", "7"]).unwrap();
        assert_eq!((config.input, config.format), (Input::Stdin, Format::Json));
        assert_eq!(
            (config.interval, config.max_flows),
            (Some(Duration::from_millis(500)), 7)
        );
        let config = run(&["-I", "lo", "-c", "3", "--at", "server"]).unwrap();
        assert_eq!(config.input, Input::Interface("lo".into()));
        assert_eq!((config.count, config.at), (Some(3), Some(Side::Server)));
        assert_eq!(
            run(&["x", "--format", "json", "-i", "0"]).unwrap().interval,
            None
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_value_and_the_remedy() {
        for (args, part) in [
            (&[][..], "give a FILE"),
            (&["a", "b"], "unexpected argument \"b\""),
            (&["a", "-I", "lo"], "not both"),
            (
                &["a", "--interval", "-1"],
                "--interval \"-1\" is not a number of seconds",
            ),
            (&["a", "--max-flows", "0"], "above 0"),
            (&["a", "--format", "xml"], "is not one of text, lines, json"),
            (&["a", "--nonsense"], "--nonsense"),
            (&["-I", "lo", "--peer", "b"], "--peer needs a capture file"),
            (&["a", "--peer", "b", "-c", "1"], "--peer and --count"),
            (&["a", "--metrics-interval", "0"], "more than 0"),
        ] {
            let error = run(args).unwrap_err();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
