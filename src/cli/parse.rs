//! The lexopt loop, and the rules that make a role out of what was given.

use super::config::{
    Accept, Command, CompareConfig, Compares, Config, DemoConfig, Format, NodeConfig, ProbeConfig,
    SourceConfig, StateAction, StateConfig, TargetsConfig,
};
use super::endpoint::Endpoint;
use super::flags::{self, Flag, Role, Set, Settings, Word};
use super::{help, ExitCode, PROGRAM};
use crate::report::State;
use lexopt::Arg;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start.
    Run(Box<Config>),
    /// Print this text, whose last line is ended, to stdout and exit with 0.
    Print(String),
}

/// A command line that makes no sense.
///
/// `Display` is one line that says what, which value and the remedy; where nothing says what to do
/// it lists the ways to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    message: String,
    code: ExitCode,
}

impl UsageError {
    /// What to exit with: `probe` has a code of its own for usage.
    pub fn exit_code(&self) -> ExitCode {
        self.code
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// Reads the arguments, without the program's own name.
///
/// # Errors
///
/// The first thing that makes no sense. The rest is read all the same: the word `probe`, which
/// decides the exit code, may come later.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, UsageError> {
    let mut given = Given::default();
    let mut parser = lexopt::Parser::from_args(args);
    let mut first_error = None;
    loop {
        match given.take_next(&mut parser) {
            Ok(Step::More) => {}
            Ok(Step::Print(text)) if first_error.is_none() => return Ok(Action::Print(text)),
            Ok(Step::Print(_) | Step::End) => break,
            Err(message) => {
                first_error.get_or_insert(message);
            }
        }
    }
    let code = match given.word {
        Some(word) if word.role == Role::Probe => ExitCode::ProbeUnknown,
        _ => ExitCode::Usage,
    };
    match first_error {
        Some(message) => Err(message),
        None => given.into_config(),
    }
    .map(|config| Action::Run(Box::new(config)))
    .map_err(|message| UsageError { message, code })
}

/// What the loop goes on with.
enum Step {
    More,
    Print(String),
    End,
}

/// What was read so far.
#[derive(Default)]
struct Given {
    settings: Settings,
    seen: Vec<&'static Flag>,
    word: Option<&'static Word>,
    operand: Option<OsString>,
    /// The arguments behind the operand.
    more: Vec<OsString>,
}

impl Given {
    fn take_next(&mut self, parser: &mut lexopt::Parser) -> Result<Step, String> {
        let flag =
            match parser.next().map_err(remedied)? {
                None => return Ok(Step::End),
                Some(Arg::Value(text)) => return self.take_value(text).map(|()| Step::More),
                Some(Arg::Short('h')) => return Ok(Step::Print(help::short())),
                Some(Arg::Short(short)) => flags::all()
                    .iter()
                    .find(|flag| flag.short == Some(short))
                    .ok_or_else(|| remedied(format_args!("unknown option -{short}")))?,
                Some(Arg::Long(long)) => {
                    let name = long.replace('_', "-");
                    flags::all()
                        .iter()
                        .find(|flag| flag.long == name)
                        .ok_or_else(|| remedied(format_args!("unknown option --{long}")))?
                }
            };
        flags::check_built(flag.long, "--")?;
        match flag.set {
            Set::Help => return Ok(Step::Print(help::long())),
            Set::Version => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Step::Print(format!("{PROGRAM} {version}\n")));
            }
            Set::Switch(set) => set(&mut self.settings),
            Set::Path(set) => match value_of(flag, parser)? {
                path if path.is_empty() => {
                    return Err(remedied(format_args!("--{} \"\" names no file", flag.long)))
                }
                path => set(&mut self.settings, path.into()),
            },
            Set::Text(set) => {
                let text = value_of(flag, parser)?;
                checked(&format!("--{}", flag.long), &text, |text| {
                    set(&mut self.settings, text)
                })?;
            }
        }
        self.seen.push(flag);
        Ok(Step::More)
    }

    fn take_value(&mut self, text: OsString) -> Result<(), String> {
        match self.word {
            None => {
                flags::check_built(&text.to_string_lossy(), "")?;
                let word = flags::WORDS.iter().find(|word| text == word.name);
                self.word = Some(word.ok_or_else(|| unknown_word(&text))?);
            }
            Some(word) if word.most > 0 && self.operand.is_none() => {
                self.operand = Some(text);
            }
            Some(word) if self.more.len() + 1 < word.most => self.more.push(text),
            Some(word) => {
                return Err(remedied(format_args!(
                    "{text:?} is one argument too many for {}",
                    word.name
                )));
            }
        }
        Ok(())
    }

    /// The role is known now: checks that everything given has a meaning for it.
    fn into_config(mut self) -> Result<Config, String> {
        let role = self.role()?;
        let target = match (self.word, self.operand.take()) {
            (
                Some(Word {
                    name,
                    operand: Some(operand),
                    ..
                }),
                None,
            ) if self.settings.targets.is_none() && !self.compares_state() => {
                let example = match *operand {
                    "ADDR" => "host:port",
                    "FILE" => "name",
                    more => more,
                };
                return Err(remedied(format_args!(
                    "{name} needs {operand}: {name} {example}"
                )));
            }
            (Some(word), Some(operand)) if self.settings.targets.is_some() => {
                return Err(remedied(format_args!(
                    "{} {operand:?} is one target too many: --targets names them",
                    word.name
                )));
            }
            (_, operand) => operand,
        };
        if self.settings.on_timeout.is_some() && role != Role::Probe {
            let what = "--timeout SECONDS:STATE is for probe: the others have no state";
            return Err(remedied(what));
        }
        if let Some(flag) = self.seen.iter().find(|flag| !flag.roles.contains(&role)) {
            let roles: Vec<String> = flag.roles.iter().map(ToString::to_string).collect();
            return Err(remedied(format_args!(
                "--{} is for {}, and {} makes this the {role}",
                flag.long,
                roles.join(", "),
                role.made_by()
            )));
        }
        if let Some(flag) = self.seen.iter().find(|flag| flag.long.starts_with("snmp-")) {
            if self.settings.common.snmp.is_none() {
                return Err(remedied(format_args!("--{} needs --snmp ADDR", flag.long)));
            }
        }
        let raw = self.settings.accept == Accept::Raw;
        if role == Role::Echo && raw && self.settings.common.key_file.is_some() {
            return Err(remedied(
                "--key-file has no use at an echo with --accept raw: nothing there is in frames",
            ));
        }
        self.check_metrics(role)?;
        let command = match role {
            Role::StateFile => state(target.unwrap_or_default(), &self.more)?,
            Role::Compare => compare(&self.settings, target, &self.more)?,
            _ => command(self.settings.clone(), role, target)?,
        };
        let format = self.settings.common.format;
        let is_table = matches!(role, Role::StateFile | Role::Compare);
        if is_table && !matches!(format, None | Some(Format::Text | Format::Json)) {
            let name = self.word.map_or("", |word| word.name);
            return Err(remedied(format_args!(
                "{name} has --format text and json, no other"
            )));
        }
        Ok(Config {
            common: self.settings.common,
            command,
        })
    }

    fn compares_state(&self) -> bool {
        let compares = self.word.is_some_and(|word| word.role == Role::Compare);
        compares && self.settings.common.state.is_some()
    }

    /// Which options of the metrics, and of many targets, need which others.
    fn check_metrics(&self, role: Role) -> Result<(), String> {
        let common = &self.settings.common;
        if common.metrics_listen.is_none() {
            if role == Role::Exporter {
                return Err(remedied("exporter needs --metrics-listen ADDR"));
            }
            if !common.probe_allow.is_empty() {
                return Err(remedied("--probe-allow needs --metrics-listen ADDR"));
            }
        }
        if role == Role::Exporter && common.probe_allow.is_empty() {
            return Err(remedied("exporter needs --probe-allow TARGETS"));
        }
        if self.settings.targets.is_some() {
            if !matches!(common.format, None | Some(Format::Text)) {
                return Err(remedied(
                    "--targets has a line of text for each path: for the figures of all use --metrics-file FILE or \
                     --metrics-listen ADDR, not --format",
                ));
            }
            if common.report_html.is_some() {
                let what =
                    "--targets has a page for each path at --metrics-listen: no --report-html";
                return Err(remedied(what));
            }
        }
        Ok(())
    }

    fn role(&self) -> Result<Role, String> {
        let Settings {
            listen,
            forward_to,
            accept,
            remove,
            ..
        } = &self.settings;
        if let Some(word) = self.word {
            return Ok(word.role);
        }
        Ok(
            match (listen, forward_to, *accept == Accept::Raw, *remove) {
                (None, None, ..) => return Err(help::ways_to_start()),
                (None, _, _, true) | (_, None, _, true) => {
                    let what = "--remove-perf-headers needs both --listen and --forward-to";
                    return Err(remedied(what));
                }
                (Some(listen), Some(forward_to), ..) if listen == forward_to => {
                    return Err(remedied(format_args!(
                        "--forward-to {forward_to} is also where --listen is, a loop: name the next hop"
                    )));
                }
                (None, Some(_), ..) => Role::Source,
                (Some(_), None, ..) => Role::Echo,
                (Some(_), Some(_), false, false) => Role::Relay,
                (Some(_), Some(_), true, false) => Role::Entry,
                (Some(_), Some(_), false, true) => Role::Exit,
                (Some(_), Some(_), true, true) => Role::Proxy,
            },
        )
    }
}

/// `state FILE show|accept [PART]`.
fn state(file: OsString, more: &[OsString]) -> Result<Command, String> {
    let part = |part: &OsString| part.to_string_lossy().into_owned();
    let action = match more {
        [show] if show == "show" => StateAction::Show,
        [accept] if accept == "accept" => StateAction::Accept(None),
        [accept, of] if accept == "accept" => StateAction::Accept(Some(part(of))),
        [] => return Err(remedied("state FILE needs an action: show or accept")),
        [show, of] if show == "show" => {
            return Err(remedied(format_args!(
                "{of:?} is one argument too many: show has all parts"
            )))
        }
        [action, ..] => {
            return Err(remedied(format_args!(
                "unknown action {action:?} of state: there are show and accept"
            )))
        }
    };
    let file = file.into();
    Ok(Command::State(StateConfig { file, action }))
}

/// `compare BEFORE.json AFTER.json` or `compare --state FILE --before TIME --after TIME`.
fn compare(
    settings: &Settings,
    first: Option<OsString>,
    more: &[OsString],
) -> Result<Command, String> {
    let times = (settings.before, settings.after);
    let what = match (first, more, &settings.common.state, times) {
        (Some(before), [after], None, (None, None)) => {
            Compares::Reports(before.into(), after.into())
        }
        (None, _, Some(file), (Some(before), Some(after))) => Compares::State {
            file: file.clone(),
            before,
            after,
        },
        _ => {
            return Err(remedied(
                "compare needs two reports, or --state FILE --before TIME --after TIME",
            ))
        }
    };
    let fail_above = settings.fail_above.map(Into::into);
    Ok(Command::Compare(CompareConfig { what, fail_above }))
}

/// What the role does, with the settings that belong to it.
fn command(settings: Settings, role: Role, operand: Option<OsString>) -> Result<Command, String> {
    Ok(match (role, settings.listen, settings.forward_to) {
        (Role::Exporter, ..) => Command::Exporter,
        (Role::Probe, ..) if settings.targets.is_some() => Command::Targets(TargetsConfig {
            file: settings.targets.unwrap_or_default(),
            count: settings.count,
            interval: settings.interval,
            size: settings.size,
            on_timeout: settings.on_timeout.unwrap_or(State::Critical),
        }),
        (Role::Probe, ..) => Command::Probe(ProbeConfig {
            target: checked("probe", &operand.unwrap_or_default(), Endpoint::hop)?,
            count: settings.count,
            interval: settings.interval,
            size: settings.size,
            on_timeout: settings.on_timeout.unwrap_or(State::Critical),
        }),
        (Role::CheckRules, ..) => Command::CheckRules(operand.unwrap_or_default().into()),
        (Role::Demo, ..) => Command::Demo(DemoConfig {
            seed: settings.seed,
        }),
        (_, Some(listen), forward_to) => Command::Node(NodeConfig {
            listen,
            forward_to,
            accept: settings.accept,
            remove: settings.remove,
            allow: settings.allow,
            max_connections: settings.max_connections,
        }),
        (_, None, Some(forward_to)) => Command::Source(SourceConfig {
            forward_to,
            block: settings.block,
        }),
        (_, None, None) => return Err(help::ways_to_start()),
    })
}

fn value_of(flag: &Flag, parser: &mut lexopt::Parser) -> Result<OsString, String> {
    parser.value().map_err(|_| {
        let kind = flag.value.unwrap_or("VALUE");
        remedied(format_args!("--{0} needs a value: --{0} {kind}", flag.long))
    })
}

/// Applies `read` to a value; the error names the option and shows the value.
fn checked<T>(
    what: &str,
    value: &OsStr,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    let text = value.to_str().ok_or_else(|| "is not UTF-8".to_owned());
    text.and_then(read)
        .map_err(|reason| remedied(format_args!("{what} {value:?} {reason}")))
}

fn unknown_word(text: &OsStr) -> String {
    if text.to_str().is_some_and(|text| text.contains(':')) {
        return remedied(format_args!(
            "{text:?} needs --listen, --forward-to or the word probe before it"
        ));
    }
    if text == flags::PASSIVE {
        return remedied(format_args!("{text:?} has to be the first argument"));
    }
    let words = flags::WORDS.iter().map(|word| word.name);
    let words: Vec<&str> = words.chain([flags::PASSIVE]).collect();
    let words = words.join(", ");
    remedied(format_args!("unknown command {text:?}: there are {words}"))
}

/// A message with what to do next.
fn remedied(message: impl fmt::Display) -> String {
    format!("{message}; try --help")
}

#[cfg(test)]
mod tests {
    use super::super::{Common, Endpoint, TimeArgument};
    use super::*;
    use crate::annotation::Classes;
    use crate::measure::sla::simple;
    use crate::measure::Sla;
    use crate::time::{Nanos, WallTime};
    use std::time::Duration;

    fn args(line: &str) -> impl Iterator<Item = OsString> + '_ {
        line.split_whitespace().map(OsString::from)
    }

    fn run(line: &str) -> Config {
        match parse(args(line)) {
            Ok(Action::Run(config)) => *config,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &str) -> UsageError {
        match parse(args(line)) {
            Err(error) => error,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse().expect(text)
    }

    /// A flag; a command line that uses it; one that does not; what is to differ between them.
    type Case = (&'static str, &'static str, &'static str, fn(&mut Config));

    fn source(config: &mut Config) -> &mut SourceConfig {
        match &mut config.command {
            Command::Source(source) => source,
            other => panic!("{other:?}"),
        }
    }

    /// What the cases of `compare` differ from.
    const COMPARE: &str = "compare --state s --before -3h --after -1h";

    fn comparison(config: &mut Config) -> &mut CompareConfig {
        match &mut config.command {
            Command::Compare(comparison) => comparison,
            other => panic!("{other:?}"),
        }
    }

    fn node(config: &mut Config) -> &mut NodeConfig {
        match &mut config.command {
            Command::Node(node) => node,
            other => panic!("{other:?}"),
        }
    }

    fn probe(config: &mut Config) -> &mut ProbeConfig {
        match &mut config.command {
            Command::Probe(probe) => probe,
            other => panic!("{other:?}"),
        }
    }

    const SOURCE: &str = "-f b:1";
    const RELAY: &str = "-l :1 -f b:1";
    const PROBE: &str = "probe b:1";

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        ("listen", "-f b:1 --listen *:0", RELAY, |c| node(c).listen = endpoint(":0")),
        ("listen", "-l[::1]:9 -fb:1", RELAY, |c| node(c).listen = endpoint("[::1]:9")),
        ("forward-to", "--forward-to=c:2", SOURCE, |c| source(c).forward_to = endpoint("c:2")),
        ("forward-to", "--forward_to c:2 -l :1", RELAY, |c| node(c).forward_to = Some(endpoint("c:2"))),
        ("forward-to", "-f b:1 -f c:2", SOURCE, |c| source(c).forward_to = endpoint("c:2")),
        ("accept", "-l :1 -f b:1 --accept raw", RELAY, |c| node(c).accept = Accept::Raw),
        ("accept", "-l :1 --accept=raw", "-l :1", |c| node(c).accept = Accept::Raw),
        ("accept", "-l :1 --accept framed", "-l :1", |c| node(c).accept = Accept::Framed),
        ("remove-perf-headers", "-l :1 -f b:1 -r", RELAY, |c| node(c).remove = true),
        ("timeout", "-f b:1 -t 0.002", SOURCE, |c| c.common.timeout = Duration::from_millis(2)),
        ("timeout", "probe b:1 -t 10:UNKNOWN", PROBE, |c| probe(c).on_timeout = State::Unknown),
        ("timeout", "probe b:1 -t 5s:1", PROBE, |c| { c.common.timeout = Duration::from_secs(5); probe(c).on_timeout = State::Warning }),
        ("idle-timeout", "-f b:1 --idle-timeout 5m", SOURCE, |c| c.common.idle_timeout = Some(Duration::from_secs(300))),
        ("idle-timeout", "-f b:1 --idle-timeout 5 --idle_timeout 0", SOURCE, |_| {}),
        ("block", "-f b:1 -b 1M", SOURCE, |c| source(c).block = 1 << 20),
        ("dont-add-perf-headers", "-nl :1 -f b:1", RELAY, |c| c.common.stamp = false),
        ("no-kernel-times", "-f b:1 --no-kernel-times", SOURCE, |c| c.common.kernel_times = false),
        ("sample", "-l :1 -f b:1 --sample 0", RELAY, |c| c.common.sample = Duration::ZERO),
        ("hop-limit", "-f b:1 --hop-limit 255", SOURCE, |c| c.common.hop_limit = 255),
        ("allow", "-l :1 --allow 10.0.0.0/8 --allow ::1", "-l :1", |c| node(c).allow = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]),
        ("max-connections", "-l :1 --max_connections 7", "-l :1", |c| node(c).max_connections = Some(7)),
        ("key-file", "-f b:1 --key-file k", SOURCE, |c| c.common.key_file = Some("k".into())),
        ("count", "probe b:1 -c 0", PROBE, |c| probe(c).count = 0),
        ("interval", "-i 10ms probe b:1", PROBE, |c| probe(c).interval = Duration::from_millis(10)),
        ("size", "probe -s 1M b:1", PROBE, |c| probe(c).size = 1 << 20),
        ("targets", "probe --targets t", PROBE, |c| c.command = Command::Targets(TargetsConfig {
            file: "t".into(), count: 10, interval: Duration::from_secs(1), size: 64, on_timeout: State::Critical,
        })),
        ("metrics-listen", "-l :1 --metrics-listen :9", "-l :1", |c| c.common.metrics_listen = Some(endpoint(":9"))),
        ("metrics-file", "probe b:1 --metrics-file m", PROBE, |c| c.common.metrics_file = Some("m".into())),
        ("probe-allow", "exporter --metrics-listen :9 --probe-allow b:1 --probe-allow c:*", "exporter --metrics-listen :9 --probe-allow b:1",
            |c| c.common.probe_allow.push("c:*".parse().unwrap())),
        ("seed", "demo --seed 7", "demo", |c| c.command = Command::Demo(DemoConfig { seed: Some(7) })),
        ("ask", "probe b:1 --ask load,tcp", PROBE, |c| c.common.ask = Classes::LOAD.union(Classes::TCP)),
        ("annotate", "-l :1 -f b:1 --annotate none", RELAY, |c| c.common.annotate = Some(Classes(0))),
        ("snmp", "-l :1 -f b:1 --snmp router", RELAY, |c| c.common.snmp = Some(endpoint("router:161"))),
        ("snmp", "-l :1 -f b:1 --snmp [::1]", RELAY, |c| c.common.snmp = Some(endpoint("[::1]:161"))),
        ("snmp", "-l :1 -f b:1 --snmp r:7", RELAY, |c| c.common.snmp = Some(endpoint("r:7"))),
        ("snmp-community", "-l :1 -f b:1 --snmp r --snmp-community x", "-l :1 -f b:1 --snmp r", |c| c.common.snmp_community = "x".into()),
        ("snmp-objects", "-l :1 -f b:1 --snmp r --snmp-objects laLoad.1", "-l :1 -f b:1 --snmp r", |c| c.common.snmp_objects.retain(|o| o.name == "laLoad.1")),
        ("node", "-f b:1 --node A", SOURCE, |c| c.common.node = Some("A".into())),
        ("add-static-tags", "-f b:1 --add-static-tags x --add_static_tags y", SOURCE, |c| c.common.tags = vec!["x".into(), "y".into()]),
        ("report-html", "-f b:1 --report-html p", SOURCE, |c| c.common.report_html = Some("p".into())),
        ("report", "-f b:1 --report out", SOURCE, |c| c.common.report = Some("out".into())),
        ("format", "probe b:1 --format jsonl", PROBE, |c| c.common.format = Some(Format::Jsonl)),
        ("sessions", "-l :1 -f b:1 --sessions s", RELAY, |c| c.common.sessions = Some("s".into())),
        ("state", "probe b:1 --state s", PROBE, |c| c.common.state = Some("s".into())),
        ("baseline", "probe b:1 --baseline s", PROBE, |c| c.common.baseline = Some("s".into())),
        ("window", "probe b:1 --window 10s", PROBE, |c| {
            c.common.window = Some(Duration::from_secs(10));
        }),
        ("before", "compare --state s --before -2h --after -1h", COMPARE, |c| {
            let Compares::State { before, .. } = &mut comparison(c).what else {
                panic!("of a state");
            };
            *before = TimeArgument::Ago(Nanos::from_millis(7_200_000));
        }),
        ("after", "compare --state s --before -3h --after 1970-01-02", COMPARE, |c| {
            let Compares::State { after, .. } = &mut comparison(c).what else {
                panic!("of a state");
            };
            *after = TimeArgument::At(WallTime(86_400_000_000_000));
        }),
        ("fail-above", "compare --state s --before -3h --after -1h --fail-above 2ms", COMPARE, |c| {
            comparison(c).fail_above = Some(Nanos::from_millis(2));
        }),
        ("rules", "probe b:1 --rules r", PROBE, |c| c.common.rules = Some("r".into())),
        ("warning", "probe b:1 --warning 5ms,1%", PROBE, |c| c.common.limits = simple("5ms,1%", Sla::Warning).unwrap()),
        ("critical", "-f b:1 --critical 9% --critical 5ms", SOURCE, |c| c.common.limits = simple("5ms", Sla::Critical).unwrap()),
        ("debug", "-f b:1 -d7", SOURCE, |c| c.common.debug = Some(7)),
    ];

    #[test]
    fn each_flag_changes_its_own_setting_and_no_other() {
        for &(flag, line, base, change) in CASES {
            let mut expected = run(base);
            change(&mut expected);
            assert_eq!(run(line), expected, "--{flag}: {line}");
        }
        for flag in flags::all() {
            let prints = matches!(flag.set, Set::Help | Set::Version);
            let tested = CASES.iter().any(|case| case.0 == flag.long);
            assert!(tested || prints, "--{} has no test", flag.long);
        }
    }

    #[test]
    fn roles_have_the_documented_defaults() {
        let common = Common::default();
        let expected = [
            (
                SOURCE,
                Command::Source(SourceConfig {
                    forward_to: endpoint("b:1"),
                    block: 16_384,
                }),
            ),
            (
                RELAY,
                Command::Node(NodeConfig {
                    listen: endpoint(":1"),
                    forward_to: Some(endpoint("b:1")),
                    accept: Accept::Auto,
                    remove: false,
                    allow: Vec::new(),
                    max_connections: None,
                }),
            ),
            (
                PROBE,
                Command::Probe(ProbeConfig {
                    target: endpoint("b:1"),
                    count: 10,
                    interval: Duration::from_secs(1),
                    size: 64,
                    on_timeout: State::Critical,
                }),
            ),
            ("demo", Command::Demo(DemoConfig { seed: None })),
        ];
        for (line, command) in expected {
            let common = common.clone();
            assert_eq!(run(line), Config { common, command }, "{line}");
        }
    }

    fn assert_messages(table: &str, code: ExitCode) {
        let mut lines = table.trim().lines();
        while let (Some(line), Some(message)) = (lines.next(), lines.next()) {
            let error = error(line);
            let message = format!("{}; try --help", message.trim());
            assert_eq!(error.to_string(), message, "{line}");
            assert_eq!(error.exit_code(), code, "{line}");
        }
    }

    /// Command lines, each with its message below it.
    const WRONG: &str = r#"
-x
    unknown option -x
--frobnicate
    unknown option --frobnicate
-f
    --forward-to needs a value: --forward-to ADDR
-l :1 -r=yes
    unexpected argument for option '-r': "yes"
-l :1 --timeout
    --timeout needs a value: --timeout SECONDS
-f b:1 -t soon
    --timeout "soon" is not a duration: write seconds as 2 or 0.002, or 2s, 10ms, 5m
-f b:1 -t 5:down
    --timeout "5:down" has "down" for a state: write ok, warning, critical or unknown
-f b:1 -t 5:ok
    --timeout SECONDS:STATE is for probe: the others have no state
-f b:1 -t 0
    --timeout "0" has to be more than 0
-f b:1 --hop-limit 0
    --hop-limit "0" is not a whole number from 1 to 255
-f b:1 -b 0
    --block "0" is out of range: 1 to 1048576 bytes
-f b:1 -d 8
    --debug "8" is not a whole number from 0 to 7
-l :1 --allow 10.0.0.7/8
    --allow "10.0.0.7/8" has bits beyond its prefix: write 10.0.0.0/8 for the network, 10.0.0.7 for one address
-l :1 --max-connections 0
    --max-connections "0" is not a whole number from 1 to 1000000
-l :1 --accept any
    --accept "any" is none of auto, framed, raw
-f b:1 --format xml
    --format "xml" is none of text, json, jsonl, csv, influx, otlp, nagios
-f b:1 --warning 5
    --warning "5" has "5" for a limit: write a span, a share of lost blocks or both: 100ms,20%
-f b:1 --warning 20%,200ms --critical 100ms,20%
    --critical "100ms,20%" does not fit: --warning 200ms is above --critical 100ms
-l :1 --rules r
    --rules is for source, relay, entry, probe, and --listen without --forward-to makes this the echo
check-rules r -c 3
    --count is for probe, and the word check-rules makes this the check of rules
check-rules
    check-rules needs FILE: check-rules name
-f b:1 --report=
    --report "" names no file
-f ::1
    --forward-to "::1" is ambiguous: write an IPv6 address in brackets, [2001:db8::1]:9000
-f b:0
    --forward-to "b:0" has port 0, which cannot be connected to: write 1 to 65535
-f :9
    --forward-to ":9" names no host to connect to: write host:port
-l b:1 -f b:1
    --forward-to b:1 is also where --listen is, a loop: name the next hop
-r -l :1
    --remove-perf-headers needs both --listen and --forward-to
-r -f b:1
    --remove-perf-headers needs both --listen and --forward-to
-l :1 --snmp ::1
    --snmp "::1" is ambiguous: write an IPv6 address in brackets, [2001:db8::1]:9000
-l :1 --snmp-community x
    --snmp-community needs --snmp ADDR
-l :1 --snmp r --snmp-objects laLoad
    --snmp-objects "laLoad" has "laLoad", which needs a number of its row: write an object by its numbers, 1.3.6.1.2.1.1.5.0, or as sysUpTime, laLoad.1, ifHCInOctets.2
-l :1 --ask load
    --ask is for source, relay, entry, probe, and --listen without --forward-to makes this the echo
-f b:1 --annotate lod
    --annotate "lod" has "lod" for a class: write all, none, or some of load, cpu, memory, files, mib, interfaces, tcp, tags, snmp, joined by commas
-f b:1 --accept raw
    --accept is for relay, echo, entry, exit, proxy, and --forward-to without --listen makes this the source
-l :1 -b 9
    --block is for source, and --listen without --forward-to makes this the echo
-l :1 -f b:1 -c 9
    --count is for probe, and --listen with --forward-to makes this the relay
-l :1 -f b:1 -r -i 9
    --interval is for probe, and --remove-perf-headers makes this the exit
-l :1 --accept raw -f b:1 -s 9
    --size is for probe, and --accept raw with --forward-to makes this the entry
-l :1 --accept raw -f b:1 -r -n
    --dont-add-perf-headers is for relay, echo, entry, exit, and --accept raw with --remove-perf-headers makes this the proxy
-l :1 --accept raw --key-file k
    --key-file has no use at an echo with --accept raw: nothing there is in frames
exporter --probe-allow b:1
    exporter needs --metrics-listen ADDR
exporter --metrics-listen :9
    exporter needs --probe-allow TARGETS
demo -c 1
    --count is for probe, and the word demo makes this the demo
b:9000
    "b:9000" needs --listen, --forward-to or the word probe before it
prob b:1
    unknown command "prob": there are probe, demo, check-rules, exporter, state, compare, passive
demo again
    "again" is one argument too many for demo
state
    state needs FILE show|accept [PART]: state FILE show|accept [PART]
state f
    state FILE needs an action: show or accept
state f drop
    unknown action "drop" of state: there are show and accept
state f show p
    "p" is one argument too many: show has all parts
state f accept p q
    "q" is one argument too many for state
state f show --format csv
    state has --format text and json, no other
compare
    compare needs BEFORE.json AFTER.json: compare BEFORE.json AFTER.json
compare a
    compare needs two reports, or --state FILE --before TIME --after TIME
compare a b --before -2h
    compare needs two reports, or --state FILE --before TIME --after TIME
compare --state s --before -2h
    compare needs two reports, or --state FILE --before TIME --after TIME
compare --state s --before noon --after -1h
    --before "noon" is no time: write 2026-11-27T15:17:02Z, 2026-11-27 or -2h
"#;

    #[test]
    fn what_makes_no_sense_is_said_in_one_line_with_value_and_remedy() {
        assert_messages(WRONG, ExitCode::Usage);
    }

    /// Command lines, each with its message below it.
    const WRONG_IN_PROBE: &str = r#"
probe
    probe needs ADDR: probe host:port
probe b
    probe "b" has no port: write host:port
probe b:1 c:1
    "c:1" is one argument too many for probe
probe b:1 --targets t
    probe "b:1" is one target too many: --targets names them
probe --targets t --format json
    --targets has a line of text for each path: for the figures of all use --metrics-file FILE or --metrics-listen ADDR, not --format
probe --targets t --format jsonl
    --targets has a line of text for each path: for the figures of all use --metrics-file FILE or --metrics-listen ADDR, not --format
probe --targets t --report-html p
    --targets has a page for each path at --metrics-listen: no --report-html
probe b:1 --probe-allow c:1
    --probe-allow needs --metrics-listen ADDR
probe b:1 -l :1
    --listen is for relay, echo, entry, exit, proxy, and the word probe makes this the probe
-i 0 probe b:1
    --interval "0" is too short: at least 100µs
--wrong probe b:1 -c x
    unknown option --wrong
-c -1 probe b:1
    --count "-1" is not a whole number from 0 to 18446744073709551615
"#;

    #[test]
    fn usage_errors_of_probe_exit_as_unknown_wherever_the_word_stands() {
        assert_messages(WRONG_IN_PROBE, ExitCode::ProbeUnknown);
    }

    #[test]
    fn an_empty_command_line_shows_the_four_ways_to_start() {
        for line in ["", "-d 7", "-r"] {
            assert_eq!(error(line).to_string(), help::ways_to_start(), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_printed_unless_something_was_wrong_before() {
        for (line, text) in [
            ("-h", help::short()),
            ("-l :1 -h", help::short()),
            ("probe --help", help::long()),
            ("-V", "subsegment-tcp-speeds 0.1.0\n".to_owned()),
            ("--version", "subsegment-tcp-speeds 0.1.0\n".to_owned()),
        ] {
            assert_eq!(parse(args(line)), Ok(Action::Print(text)), "{line}");
        }
        assert_eq!(error("-x -h").to_string(), "unknown option -x; try --help");
    }

    #[test]
    fn a_seventeenth_tag_is_refused() {
        let line = format!("-f b:1{}", " --add-static-tags t".repeat(17));
        let message = error(&line).to_string();
        assert_eq!(
            message,
            "--add-static-tags \"t\" is one too many: at most 16 tags; try --help"
        );
    }

    #[cfg(unix)]
    #[test]
    fn only_file_names_may_be_other_than_utf_8() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![b'a', 0xff]);
        let with = |flag: &str| {
            let mut line: Vec<OsString> = args("-f b:1").collect();
            line.extend([OsString::from(flag), odd()]);
            parse(line)
        };
        let Ok(Action::Run(config)) = with("--report") else {
            panic!("a file name that is not UTF-8 was refused");
        };
        assert_eq!(config.common.report, Some(odd().into()));
        let message = with("--node")
            .expect_err("a name has to be UTF-8")
            .to_string();
        assert!(message.contains("is not UTF-8"), "{message}");
    }
}
