//! The one lexopt loop, and the rules that make a command out of the arguments.

use super::config::Common;
use super::config::{
    Artifact, Command, CompareConfig, Compares, Config, DemoConfig, Format, NodeConfig,
    ProbeConfig, SourceConfig, StateAction, StateConfig, TargetsConfig, TraceConfig, ARTIFACTS,
    STATE_ACTIONS,
};
use super::flags::{self, Flag, Mode, Options, Set, Word};
use super::host_port::HostPort;
use super::nearest::nearest;
use super::probe_words::probe_words;
use super::{help, value, version, ExitCode};
use crate::remote::host::HostWord;
use crate::report::State;
use crate::session::admission::Accept;
use crate::FULL;
use lexopt::Arg;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::time::Duration;

/// The result of a command line that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start.
    Run(Box<Config>),
    /// Print this text, whose last line is ended, to stdout and exit with 0.
    Print(String),
}

/// A command line that makes no sense.
///
/// `Display` is one line with the mistake, its value and the remedy. For a command line without a
/// command and without addresses it lists the ways to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    message: String,
    code: ExitCode,
}

impl UsageError {
    /// The exit code: `probe` has its own for usage.
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

/// Reads the arguments, without the name of the program.
///
/// # Errors
///
/// The first mistake. The rest is read all the same: the command word, which decides the exit code
/// and the meaning of options, may come later.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, UsageError> {
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(read) = arguments.read(&mut parser).transpose() {
        if let (Err(message), None) = (read, arguments.print) {
            arguments.first_error.get_or_insert(message);
        }
    }
    let mode = arguments.word.map(|word| word.mode);
    let code = match mode {
        Some(Mode::Probe | Mode::Trace) => ExitCode::ProbeUnknown,
        _ => ExitCode::Usage,
    };
    let result = match (arguments.first_error.take(), arguments.print) {
        (Some(message), _) => Err(message),
        (None, Some(Print::ShortHelp)) => return Ok(Action::Print(help::short(arguments.word))),
        (None, Some(Print::LongHelp)) => return Ok(Action::Print(help::long(arguments.word))),
        (None, Some(Print::Version)) => {
            return Ok(Action::Print(version::text()));
        }
        (None, None) => arguments.into_config(mode),
    };
    match result {
        Ok(config) => Ok(Action::Run(Box::new(config))),
        Err(message) => Err(UsageError { message, code }),
    }
}

/// A text that is printed in the place of a run.
#[derive(Clone, Copy)]
enum Print {
    ShortHelp,
    LongHelp,
    Version,
}

/// The arguments, split and not yet understood: values are read when the mode is known.
#[derive(Default)]
struct Arguments {
    word: Option<&'static Word>,
    operands: Vec<OsString>,
    /// Long names with their values; empty for a switch.
    options: Vec<(&'static str, OsString)>,
    /// The first request for a text; mistakes after it do not matter.
    print: Option<Print>,
    first_error: Option<String>,
}

impl Arguments {
    /// Reads one argument and the value that belongs to it; `None` at the end.
    fn read(&mut self, parser: &mut lexopt::Parser) -> Result<Option<()>, String> {
        let Some(argument) = parser.next().map_err(remedied)? else {
            return Ok(None);
        };
        let mode = self.word.map(|word| word.mode);
        let mut is_short = false;
        let flag = match argument {
            Arg::Value(text) => return self.read_value(text).map(Some),
            Arg::Short(short) => {
                is_short = true;
                let flag = flags::all().iter().find(|flag| flag.short == Some(short));
                flag.ok_or_else(|| remedied(format_args!("unknown option -{short}")))?
            }
            Arg::Long(long) => {
                let name = long.replace('_', "-");
                match flags::find(&name, mode) {
                    Some(flag) => flag,
                    None => return Err(unknown_option(long, &name, mode)),
                }
            }
        };
        let print = match flag.set {
            Set::Help if is_short => Print::ShortHelp,
            Set::Help => Print::LongHelp,
            Set::Version => Print::Version,
            Set::Switch(_) => {
                self.options.push((flag.long, OsString::new()));
                return Ok(Some(()));
            }
            Set::Text(_) | Set::Choice(..) | Set::Path(_) => {
                let value = parser.value().map_err(|_| {
                    let flag = flags::find(flag.long, mode).unwrap_or(flag);
                    let kind = flag.value.unwrap_or("VALUE");
                    remedied(format_args!("--{0} needs a value: --{0} {kind}", flag.long))
                })?;
                self.options.push((flag.long, value));
                return Ok(Some(()));
            }
        };
        if self.first_error.is_none() {
            self.print.get_or_insert(print);
        }
        Ok(Some(()))
    }

    fn read_value(&mut self, text: OsString) -> Result<(), String> {
        match self.word {
            None => {
                let word = flags::words().iter().find(|word| text == word.name);
                self.word = Some(word.ok_or_else(|| unknown_word(&text))?);
            }
            Some(word) if word.takes_more(self.operands.len()) => self.operands.push(text),
            Some(word) => {
                return Err(remedied(format_args!(
                    "{text:?} is one argument too many for {}",
                    word.name
                )));
            }
        }
        Ok(())
    }

    /// Reads the values, and checks that every option has a use in the mode.
    fn into_config(mut self, mode: Option<Mode>) -> Result<Config, String> {
        let mut options = Options::default();
        let mut seen = Vec::new();
        for (long, value) in &self.options {
            // The name is that of a row.
            if let Some(flag) = flags::find(long, mode) {
                apply(flag, value, &mut options)?;
                seen.push(flag);
            }
        }
        let mode = match mode {
            Some(mode) => mode,
            None => mode_of(&options)?,
        };
        self.check_operands(&options)?;
        if options.on_timeout.is_some() && !matches!(mode, Mode::Probe | Mode::Trace) {
            let what = "--timeout SECONDS:STATE is for probe: the others have no state";
            return Err(remedied(what));
        }
        if FULL && options.flows > 1 && options.targets.is_some() {
            return Err(remedied(
                "--flows is for a probe of one path, and --targets has many",
            ));
        }
        if let Some(flag) = seen.iter().find(|flag| !flag.modes.contains(&mode)) {
            let modes: Vec<String> = flag.modes.iter().map(ToString::to_string).collect();
            return Err(remedied(format_args!(
                "--{} is for {}, and {} makes this the {mode}",
                flag.long,
                modes.join(", "),
                mode.made_by()
            )));
        }
        if let Some(flag) = seen.iter().find(|flag| flag.long.starts_with("snmp-")) {
            if options.common.snmp.is_none() {
                return Err(remedied(format_args!("--{} needs --snmp ADDR", flag.long)));
            }
        }
        let raw = options.accept == Accept::Raw;
        if mode == Mode::Echo && raw && options.common.key_file.is_some() {
            return Err(remedied(
                "--key-file has no use at an echo with --accept raw: nothing there is in frames",
            ));
        }
        check_proxy(&options, mode)?;
        if FULL {
            check_http(&options.common, mode)?;
            check_metrics(&options, mode)?;
        }
        let common = options.common.clone();
        let command = match mode {
            Mode::State => state(self.operands, &common)?,
            Mode::Compare if FULL => compare(self.operands, &options)?,
            Mode::Probe if !FULL || options.targets.is_none() => {
                let target = self.operands.pop().unwrap_or_default();
                Command::Probe(probe(&options, checked("probe", &target, HostPort::hop)?))
            }
            Mode::Trace if FULL => {
                if options.trace.from.is_some() {
                    let (words, files) = probe_words(&self.options)?;
                    (options.trace.probe_words, options.trace.probe_files) = (words, files);
                }
                let is_checked = seen.iter().any(|flag| flag.long == "server-check");
                trace(&self.operands, &options, is_checked)?
            }
            _ => command(options, mode, self.operands.pop())?,
        };
        Ok(Config { common, command })
    }

    fn check_operands(&self, options: &Options) -> Result<(), String> {
        let Some(word) = self.word else {
            return Ok(());
        };
        let name = word.name;
        if FULL && options.targets.is_some() {
            // They take the place of the operand.
            return match self.operands.first() {
                Some(operand) => Err(remedied(format_args!(
                    "{name} {operand:?} is one target too many: --targets names them"
                ))),
                None => Ok(()),
            };
        }
        if self.operands.len() < word.operands_needed() {
            let operand = word.operands[self.operands.len()];
            let example = match operand {
                "ADDR" => "host:port",
                "DO" => "name show",
                "HOST..." => "user@host",
                "KIND" => "man",
                _ => "name",
            };
            return Err(remedied(format_args!(
                "{name} needs {operand}: {name} {example}"
            )));
        }
        Ok(())
    }
}

fn apply(flag: &Flag, value: &OsStr, options: &mut Options) -> Result<(), String> {
    match flag.set {
        Set::Switch(set) => set(options),
        Set::Path(_) if value.is_empty() => {
            return Err(remedied(format_args!("--{} \"\" names no file", flag.long)));
        }
        Set::Path(set) => set(options, value.into()),
        Set::Text(set) => {
            checked(&format!("--{}", flag.long), value, |text| {
                set(options, text)
            })?;
        }
        Set::Choice(words, set) => {
            let place = checked(&format!("--{}", flag.long), value, |text| {
                value::choice(text, words)
            })?;
            set(options, place);
        }
        Set::Help | Set::Version => {}
    }
    Ok(())
}

/// Checks that only known peers name the client.
fn check_proxy(options: &Options, mode: Mode) -> Result<(), String> {
    if options.accept_proxy && options.allow.is_empty() {
        return Err(remedied(
            "--accept-proxy needs --allow: name the balancers, who else connects would be believed",
        ));
    }
    let is_open = options.allow.is_empty() && options.common.key_file.is_none();
    if options.send_proxy.is_some() && mode == Mode::Exit && is_open {
        return Err(remedied(
            "--send-proxy needs --key-file or --allow at an exit: who connects names the client",
        ));
    }
    Ok(())
}

/// Checks that HTTP is followed where stamps are wanted of it.
fn check_http(common: &Common, mode: Mode) -> Result<(), String> {
    let wanted = [
        ("--http-read", !common.http_read.is_empty()),
        ("--http-clock", !common.http_clocks.is_empty()),
    ];
    let wanted = wanted.iter().find(|(_, wanted)| *wanted);
    match wanted.filter(|_| mode != Mode::Passive && common.sessions.is_none()) {
        Some((name, _)) => Err(remedied(format_args!(
            "{name} needs --sessions FILE: without it a node reads no HTTP"
        ))),
        None => Ok(()),
    }
}

/// Checks the options of metrics, and of many targets, against each other.
fn check_metrics(options: &Options, mode: Mode) -> Result<(), String> {
    let common = &options.common;
    if common.metrics_listen.is_none() {
        if mode == Mode::Exporter {
            return Err(remedied("exporter needs --metrics-listen ADDR"));
        }
        if !common.probe_allow.is_empty() {
            return Err(remedied("--probe-allow needs --metrics-listen ADDR"));
        }
    }
    if mode == Mode::Exporter && common.probe_allow.is_empty() {
        return Err(remedied("exporter needs --probe-allow TARGETS"));
    }
    if options.targets.is_some() {
        if !matches!(common.format, None | Some(Format::Text)) {
            return Err(remedied(
                "--targets has a line of text for each path: for the figures of all use \
                 --metrics-file FILE or --metrics-listen ADDR, not --format",
            ));
        }
        if common.report_html.is_some() {
            let what = "--targets has a page for each path at --metrics-listen: no --report-html";
            return Err(remedied(what));
        }
    }
    Ok(())
}

/// The mode of a command line without a command word.
fn mode_of(options: &Options) -> Result<Mode, String> {
    let raw = options.accept == Accept::Raw;
    Ok(
        match (&options.listen, &options.forward_to, raw, options.remove) {
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
            (None, Some(_), ..) => Mode::Source,
            (Some(_), None, ..) => Mode::Echo,
            (Some(_), Some(_), false, false) => Mode::Relay,
            (Some(_), Some(_), true, false) => Mode::Entry,
            (Some(_), Some(_), false, true) => Mode::Exit,
            (Some(_), Some(_), true, true) => Mode::Proxy,
        },
    )
}

/// `state FILE show|accept [PART]`.
fn state(operands: Vec<OsString>, common: &Common) -> Result<Command, String> {
    check_table_format("state", common)?;
    let mut operands = operands.into_iter();
    let file = operands.next().unwrap_or_default().into();
    let (action, part) = (operands.next().unwrap_or_default(), operands.next());
    let place = STATE_ACTIONS.iter().position(|word| action == *word);
    let action = match (place, part) {
        (Some(0), None) => StateAction::Show,
        (Some(0), Some(part)) => {
            return Err(remedied(format_args!(
                "{part:?} is one argument too many: show has all parts"
            )))
        }
        (Some(1), part) => {
            StateAction::Accept(part.map(|part| part.to_string_lossy().into_owned()))
        }
        _ => {
            return Err(remedied(format_args!(
                "unknown action {action:?} of state: there are show and accept"
            )))
        }
    };
    Ok(Command::State(StateConfig { file, action }))
}

/// `compare BEFORE AFTER`, or `compare --state FILE --before TIME --after TIME`.
fn compare(operands: Vec<OsString>, options: &Options) -> Result<Command, String> {
    check_table_format("compare", &options.common)?;
    let times = (options.before, options.after);
    let mut operands = operands.into_iter();
    let reports = (operands.next(), operands.next());
    let what = match (reports, &options.common.state, times) {
        ((Some(before), Some(after)), None, (None, None)) => {
            Compares::Reports(before.into(), after.into())
        }
        ((None, _), Some(file), (Some(before), Some(after))) => Compares::State {
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
    let fail_above = options.fail_above.map(Into::into);
    Ok(Command::Compare(CompareConfig { what, fail_above }))
}

fn check_table_format(name: &str, common: &Common) -> Result<(), String> {
    match common.format {
        None | Some(Format::Text | Format::Json) => Ok(()),
        Some(_) => Err(remedied(format_args!(
            "{name} has --format text and json, no other"
        ))),
    }
}

/// `trace HOST...`.
fn trace(operands: &[OsString], options: &Options, is_checked: bool) -> Result<Command, String> {
    let hosts = operands
        .iter()
        .map(|host| checked("trace", host, str::parse));
    let hosts: Vec<HostWord> = hosts.collect::<Result<_, _>>()?;
    // Without a client the server would not be timed.
    let server_check = if is_checked {
        options.server_check
    } else {
        Some(Duration::from_secs(10))
    };
    if is_checked && options.trace.server.is_none() {
        return Err(remedied("--server-check needs --server ADDR"));
    }
    let trace = options.trace.clone();
    let target = HostPort {
        host: None,
        port: 0,
    };
    Ok(Command::Trace(Box::new(TraceConfig {
        hosts,
        options: trace,
        server_check,
        probe: probe(options, target),
    })))
}

/// The options of a probe.
fn probe(options: &Options, target: HostPort) -> ProbeConfig {
    let (count, interval) = schedule(options);
    ProbeConfig {
        target,
        count,
        interval,
        size: options.size,
        flows: options.flows,
        on_timeout: options.on_timeout.unwrap_or(State::Critical),
    }
}

/// The number of blocks and the time between them. A plugin's checks keep the load and the duration
/// that they are planned for.
fn schedule(options: &Options) -> (u64, Duration) {
    let (count, interval) = match options.common.format {
        Some(Format::Nagios) => (10, Duration::from_secs(1)),
        _ => (100, Duration::from_millis(100)),
    };
    (
        options.count.unwrap_or(count),
        options.interval.unwrap_or(interval),
    )
}

/// The command of a mode, with the options that belong to it.
fn command(options: Options, mode: Mode, operand: Option<OsString>) -> Result<Command, String> {
    let on_timeout = options.on_timeout.unwrap_or(State::Critical);
    let (count, interval) = schedule(&options);
    Ok(match (mode, options.listen, options.forward_to) {
        (Mode::Exporter, ..) => Command::Exporter,
        (Mode::Probe, ..) => match options.targets {
            Some(file) if FULL => Command::Targets(TargetsConfig {
                file,
                count,
                interval,
                size: options.size,
                on_timeout,
            }),
            _ => unreachable!("it has a function of its own"),
        },
        (Mode::CheckRules, ..) => Command::CheckRules(operand.unwrap_or_default().into()),
        (Mode::Demo, ..) => Command::Demo(DemoConfig { seed: options.seed }),
        (Mode::Passive, ..) if FULL => {
            let passive = options.passive;
            let config = passive.checked(operand, options.interface, &options.common);
            Command::Passive(config.map_err(remedied)?)
        }
        (Mode::Generate, ..) if FULL => {
            let kinds = [Artifact::Man, Artifact::Bash, Artifact::Zsh, Artifact::Fish];
            let kind = operand.unwrap_or_default();
            let place = checked("generate", &kind, |text| value::choice(text, ARTIFACTS))?;
            Command::Generate(kinds[place])
        }
        (Mode::State | Mode::Compare | Mode::Trace | Mode::Generate | Mode::Passive, ..) => {
            unreachable!("they have functions of their own")
        }
        (Mode::Help, ..) => Command::Help(operand.map(|topic| topic.to_string_lossy().into())),
        (_, Some(listen), forward_to) => Command::Node(NodeConfig {
            listen,
            forward_to,
            accept: options.accept,
            remove: options.remove,
            server_check: options.server_check,
            accept_proxy: options.accept_proxy,
            send_proxy: options.send_proxy,
            allow: options.allow,
            max_connections: options.max_connections,
            max_memory: options.max_memory,
            drain: options.drain.unwrap_or(options.common.timeout),
        }),
        (_, None, Some(forward_to)) => Command::Source(SourceConfig {
            forward_to,
            block: options.block,
        }),
        (_, None, None) => return Err(help::ways_to_start()),
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

/// The error for the option `long`, whose name with dashes is `name`.
fn unknown_option(long: &str, name: &str, mode: Option<Mode>) -> String {
    if let Err(reason) = flags::check_built(name, "--") {
        return reason;
    }
    let is_for = |flag: &&Flag| mode.map_or(true, |mode| flag.modes.contains(&mode));
    let names = flags::all().iter().filter(is_for).map(|flag| flag.long);
    match nearest(name, names) {
        Some(meant) => format!("unknown option --{long}; did you mean --{meant}?"),
        None => remedied(format_args!("unknown option --{long}")),
    }
}

fn unknown_word(text: &OsStr) -> String {
    let shown = text.to_string_lossy();
    if let Err(reason) = flags::check_built(&shown, "") {
        return reason;
    }
    if shown.contains(':') {
        return remedied(format_args!(
            "{text:?} needs --listen, --forward-to or the word probe before it"
        ));
    }
    let words = || flags::words().iter().map(|word| word.name);
    if let Some(meant) = nearest(&shown, words()) {
        return format!("unknown command {text:?}; did you mean {meant}?");
    }
    let words: Vec<&str> = words().collect();
    let words = words.join(", ");
    remedied(format_args!("unknown command {text:?}: there are {words}"))
}

/// A message with the remedy.
pub(super) fn remedied(message: impl fmt::Display) -> String {
    format!("{message}; try --help")
}

#[cfg(test)]
mod tests {
    use super::super::config::AllowSource;
    use super::super::passive::{Input, PassiveConfig};
    use super::super::{Common, Ports, TimeArgument, TraceOptions};
    use super::*;
    use crate::annotation::Classes;
    use crate::measure::sla::simple;
    use crate::measure::Sla;
    use crate::passive::{GroupBy, Side};
    use crate::remote::ssh::Ssh;
    use crate::report::passive::PassiveFormat;
    use crate::sys::{Dscp, Source};
    use crate::time::{Nanos, WallTime};
    use crate::wire::proxy::ProxyVersion;

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

    fn address(text: &str) -> HostPort {
        text.parse().expect(text)
    }

    /// A flag; a command line that uses it; one that does not; the difference between them.
    type Case = (&'static str, &'static str, &'static str, fn(&mut Config));

    fn source(config: &mut Config) -> &mut SourceConfig {
        match &mut config.command {
            Command::Source(source) => source,
            other => panic!("{other:?}"),
        }
    }

    const TRACE: &str = "trace a";

    fn trace_config(config: &mut Config) -> &mut TraceConfig {
        match &mut config.command {
            Command::Trace(trace) => trace,
            other => panic!("{other:?}"),
        }
    }

    fn trace_options(config: &mut Config) -> &mut TraceOptions {
        &mut trace_config(config).options
    }

    #[test]
    fn trace_takes_any_number_of_hosts_and_refuses_what_is_none() {
        let mut config = run("trace root@a b=10.0.0.1 -c 5 c");
        let hosts = &trace_config(&mut config).hosts;
        let logins: Vec<_> = hosts.iter().map(|host| host.login.as_str()).collect();
        assert_eq!(logins, ["root@a", "b", "c"]);
        for (line, part) in [
            ("trace", "trace needs HOST...: trace user@host"),
            ("trace a b=1:2", "see --ports"),
            ("trace -- -oProxyCommand=x", "begins with a dash"),
            ("trace a --ports 0", "is no range of ports"),
            ("trace a --ports 9010-9000", "is no range of ports"),
            (
                "trace a --server-check 5",
                "--server-check needs --server ADDR",
            ),
            ("trace a --targets f", "--targets names them"),
            ("trace a --key-file f", "--key-file is for"),
            ("trace a --from b=1", "nothing connects to it"),
            ("trace a --from -b", "begins with a dash"),
            (
                "trace a --from b --metrics-listen :1",
                "use --format influx",
            ),
        ] {
            let error = error(line);
            assert!(error.to_string().contains(part), "{line}: {error}");
            assert_eq!(error.exit_code(), ExitCode::ProbeUnknown, "{line}");
        }
    }

    #[test]
    fn another_host_gets_the_options_of_the_probe_alone() {
        let line =
            "trace a --from b -v --server z:1 --server-check 5 -c 7 --critical x -i 0.5 --no-kernel-times";
        let line = line.replace("--critical x", "--critical 5ms");
        let mut config = run(&line);
        let words = &trace_options(&mut config).probe_words;
        let expected = "--count 7 --critical 5ms --interval 0.5 --no-kernel-times";
        assert_eq!(words.join(" "), expected);
        let line = "trace a --from b --report r --rules f --report-html p --rules g -c 7";
        let mut config = run(line);
        let options = trace_options(&mut config);
        assert_eq!(options.probe_words.join(" "), "--count 7");
        assert_eq!(options.probe_files, ["rules", "report-html"]);
        let mut config = run("trace a -c 7");
        assert!(trace_options(&mut config).probe_words.is_empty());
    }

    /// The command line that the cases of `compare` differ from.
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

    fn passive(config: &mut Config) -> &mut PassiveConfig {
        match &mut config.command {
            Command::Passive(passive) => passive,
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
    const PASSIVE: &str = "passive x";
    const PROBE: &str = "probe b:1";

    const CASES: &[Case] = &[
        ("format", "passive x --format lines", PASSIVE, |c| {
            passive(c).format = PassiveFormat::Lines;
        }),
        ("format", "passive x --format prometheus", PASSIVE, |c| {
            passive(c).format = PassiveFormat::Prometheus;
        }),
        ("interface", "passive -I lo", PASSIVE, |c| {
            passive(c).input = Input::Interface("lo".into());
        }),
        ("interface", "passive -", PASSIVE, |c| {
            passive(c).input = Input::Stdin;
        }),
        ("count", "passive x -c 3", PASSIVE, |c| {
            passive(c).count = Some(3);
        }),
        ("peer", "passive x --peer y", PASSIVE, |c| {
            passive(c).peer = Some("y".into());
        }),
        ("at", "passive x --at server", PASSIVE, |c| {
            passive(c).at = Some(Side::Server);
        }),
        (
            "interval",
            "passive x --format json -i 10ms",
            "passive x --format json",
            |c| passive(c).interval = Some(Duration::from_millis(10)),
        ),
        ("max-flows", "passive x --max_flows 7", PASSIVE, |c| {
            passive(c).max_flows = 7;
        }),
        ("group-by", "passive x --group-by subnet", PASSIVE, |c| {
            passive(c).group_by = GroupBy::Subnet;
        }),
        ("host", "passive x --host 10.0.0.0/8", PASSIVE, |c| {
            passive(c).filter.hosts = vec![([10, 0, 0, 0].into(), 8)];
        }),
        ("port", "passive x --port 80 --port 443", PASSIVE, |c| {
            passive(c).filter.ports = vec![80, 443];
        }),
        ("server", "trace a --server b:1", TRACE, |c| {
            trace_options(c).server = Some(address("b:1"));
        }),
        ("ports", "trace a --ports 9000-9010", TRACE, |c| {
            trace_options(c).ports = Some(Ports {
                first: 9000,
                last: 9010,
            });
        }),
        ("from", "trace a --from root@e", TRACE, |c| {
            trace_options(c).from = Some("root@e".parse().unwrap());
        }),
        ("ssh", "trace a --ssh dbclient", TRACE, |c| {
            trace_options(c).ssh = Ssh::new("dbclient").unwrap();
        }),
        ("binaries", "trace a --binaries d", TRACE, |c| {
            trace_options(c).binaries = Some("d".into());
        }),
        ("installed-only", "trace a --installed-only", TRACE, |c| {
            trace_options(c).installed_only = true;
        }),
        ("dry-run", "trace a --dry-run", TRACE, |c| {
            trace_options(c).dry_run = true;
        }),
        ("verbose", "trace a -v", TRACE, |c| {
            trace_options(c).verbose = true;
        }),
        ("count", "trace a -c 3", TRACE, |c| {
            trace_config(c).probe.count = 3;
        }),
        (
            "server-check",
            "trace a --server b:1 --server-check 0",
            "trace a --server b:1",
            |c| trace_config(c).server_check = None,
        ),
        ("verbose", "passive x -v", PASSIVE, |c| {
            passive(c).verbose = true;
        }),
        ("max-groups", "passive x --max-groups 7", PASSIVE, |c| {
            passive(c).max_groups = 7;
        }),
        (
            "metrics-interval",
            "passive x --metrics-interval 10ms",
            PASSIVE,
            |c| passive(c).metrics_interval = Duration::from_millis(10),
        ),
        (
            "metrics-listen",
            "passive x --metrics-listen :9",
            PASSIVE,
            |c| c.common.metrics_listen = Some(address(":9")),
        ),
        ("metrics-file", "passive x --metrics-file m", PASSIVE, |c| {
            c.common.metrics_file = Some("m".into());
        }),
        ("debug", "passive x -d 7", PASSIVE, |c| {
            c.common.debug = Some(7);
        }),
        ("listen", "-f b:1 --listen *:0", RELAY, |c| {
            node(c).listen = address(":0");
        }),
        ("listen", "-l[::1]:9 -fb:1", RELAY, |c| {
            node(c).listen = address("[::1]:9");
        }),
        ("forward-to", "--forward-to=c:2", SOURCE, |c| {
            source(c).forward_to = address("c:2");
        }),
        ("forward-to", "--forward_to c:2 -l :1", RELAY, |c| {
            node(c).forward_to = Some(address("c:2"));
        }),
        ("forward-to", "-f b:1 -f c:2", SOURCE, |c| {
            source(c).forward_to = address("c:2");
        }),
        ("accept", "-l :1 -f b:1 --accept raw", RELAY, |c| {
            node(c).accept = Accept::Raw;
        }),
        ("accept", "-l :1 --accept=raw", "-l :1", |c| {
            node(c).accept = Accept::Raw;
        }),
        ("accept", "-l :1 --accept framed", "-l :1", |c| {
            node(c).accept = Accept::Framed;
        }),
        ("remove-perf-headers", "-l :1 -f b:1 -r", RELAY, |c| {
            node(c).remove = true;
        }),
        (
            "server-check",
            "-l :1 -f b:1 -r --server-check 1m",
            "-l :1 -f b:1 -r",
            |c| {
                node(c).server_check = Some(Duration::from_secs(60));
            },
        ),
        (
            "server-check",
            "-l :1 -f b:1 -r --server-check 0",
            "-l :1 -f b:1 -r",
            |_| {},
        ),
        ("timeout", "-f b:1 -t 0.002", SOURCE, |c| {
            c.common.timeout = Duration::from_millis(2);
        }),
        ("timeout", "probe b:1 -t 10:UNKNOWN", PROBE, |c| {
            probe(c).on_timeout = State::Unknown;
        }),
        ("timeout", "probe b:1 -t 5s:1", PROBE, |c| {
            c.common.timeout = Duration::from_secs(5);
            probe(c).on_timeout = State::Warning;
        }),
        ("idle-timeout", "-f b:1 --idle-timeout 5m", SOURCE, |c| {
            c.common.idle_timeout = Some(Duration::from_secs(300));
        }),
        (
            "idle-timeout",
            "-f b:1 --idle-timeout 5 --idle_timeout 0",
            SOURCE,
            |_| {},
        ),
        ("block", "-f b:1 -b 1M", SOURCE, |c| {
            source(c).block = 1 << 20;
        }),
        ("dont-add-perf-headers", "-nl :1 -f b:1", RELAY, |c| {
            c.common.stamp = false;
        }),
        ("no-kernel-times", "-f b:1 --no-kernel-times", SOURCE, |c| {
            c.common.kernel_times = false;
        }),
        ("sample", "-l :1 -f b:1 --sample 0", RELAY, |c| {
            c.common.sample = Duration::ZERO;
        }),
        ("hop-limit", "-f b:1 --hop-limit 255", SOURCE, |c| {
            c.common.hop_limit = 255;
        }),
        (
            "send-proxy",
            "-l :1 -f b:1 -r --key-file k --send-proxy v2",
            "-l :1 -f b:1 -r --key-file k",
            |c| node(c).send_proxy = Some(ProxyVersion::V2),
        ),
        (
            "accept-proxy",
            "-l :1 -f b:1 --accept raw --allow ::1 --accept-proxy",
            "-l :1 -f b:1 --accept raw --allow ::1",
            |c| node(c).accept_proxy = true,
        ),
        ("bind", "-f b:1 --bind 10.0.0.1", SOURCE, |c| {
            let address = "10.0.0.1".parse().unwrap();
            c.common.socket.source = Some(Source::Address(address));
        }),
        ("bind", "-f b:1 --bind wan0", SOURCE, |c| {
            c.common.socket.source = Some(Source::Interface("wan0".into()));
        }),
        ("dscp", "-l :1 -f b:1 --dscp ef", RELAY, |c| {
            c.common.socket.dscp = Some(Dscp(46));
        }),
        (
            "allow",
            "-l :1 --allow 10.0.0.0/8 --allow ::1",
            "-l :1",
            |c| node(c).allow = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
        ),
        ("allow", "-l :1 --allow @/etc/allow", "-l :1", |c| {
            node(c).allow = vec![AllowSource::File("/etc/allow".into())];
        }),
        (
            "max-connections",
            "-l :1 --max_connections 7",
            "-l :1",
            |c| node(c).max_connections = Some(7),
        ),
        ("max-memory", "-l :1 --max-memory 64M", "-l :1", |c| {
            node(c).max_memory = 64 << 20;
        }),
        ("drain", "-l :1 --drain 2.5", "-l :1", |c| {
            node(c).drain = Duration::from_millis(2_500);
        }),
        ("key-file", "-f b:1 --key-file k", SOURCE, |c| {
            c.common.key_file = Some("k".into());
        }),
        ("count", "probe b:1 -c 0", PROBE, |c| probe(c).count = 0),
        ("flows", "probe b:1 --flows 64", PROBE, |c| {
            probe(c).flows = 64;
        }),
        ("interval", "-i 10ms probe b:1", PROBE, |c| {
            probe(c).interval = Duration::from_millis(10);
        }),
        ("size", "probe -s 1M b:1", PROBE, |c| {
            probe(c).size = 1 << 20;
        }),
        ("targets", "probe --targets t", PROBE, |c| {
            c.command = Command::Targets(TargetsConfig {
                file: "t".into(),
                count: 100,
                interval: Duration::from_millis(100),
                size: 64,
                on_timeout: State::Critical,
            });
        }),
        (
            "metrics-listen",
            "-l :1 --metrics-listen :9",
            "-l :1",
            |c| c.common.metrics_listen = Some(address(":9")),
        ),
        ("metrics-file", "probe b:1 --metrics-file m", PROBE, |c| {
            c.common.metrics_file = Some("m".into());
        }),
        (
            "probe-allow",
            "exporter --metrics-listen :9 --probe-allow b:1 --probe-allow c:*",
            "exporter --metrics-listen :9 --probe-allow b:1",
            |c| c.common.probe_allow.push("c:*".parse().unwrap()),
        ),
        ("seed", "demo --seed 7", "demo", |c| {
            c.command = Command::Demo(DemoConfig { seed: Some(7) });
        }),
        ("ask", "probe b:1 --ask load,tcp", PROBE, |c| {
            c.common.ask = Classes::LOAD.union(Classes::TCP);
        }),
        ("annotate", "-l :1 -f b:1 --annotate none", RELAY, |c| {
            c.common.annotate = Some(Classes(0));
        }),
        ("snmp", "-l :1 -f b:1 --snmp router", RELAY, |c| {
            c.common.snmp = Some(address("router:161"));
        }),
        ("snmp", "-l :1 -f b:1 --snmp [::1]", RELAY, |c| {
            c.common.snmp = Some(address("[::1]:161"));
        }),
        ("snmp", "-l :1 -f b:1 --snmp r:7", RELAY, |c| {
            c.common.snmp = Some(address("r:7"));
        }),
        (
            "snmp-community",
            "-l :1 -f b:1 --snmp r --snmp-community x",
            "-l :1 -f b:1 --snmp r",
            |c| c.common.snmp_community = "x".into(),
        ),
        (
            "snmp-objects",
            "-l :1 -f b:1 --snmp r --snmp-objects laLoad.1",
            "-l :1 -f b:1 --snmp r",
            |c| c.common.snmp_objects.retain(|o| o.name == "laLoad.1"),
        ),
        ("node", "-f b:1 --node A", SOURCE, |c| {
            c.common.node = Some("A".into());
        }),
        (
            "add-static-tags",
            "-f b:1 --add-static-tags x --add_static_tags y",
            SOURCE,
            |c| c.common.tags = vec!["x".into(), "y".into()],
        ),
        ("report-html", "-f b:1 --report-html p", SOURCE, |c| {
            c.common.report_html = Some("p".into());
        }),
        ("report", "-f b:1 --report out", SOURCE, |c| {
            c.common.report = Some("out".into());
        }),
        ("format", "probe b:1 --format jsonl", PROBE, |c| {
            c.common.format = Some(Format::Jsonl);
        }),
        ("sessions", "-l :1 -f b:1 --sessions s", RELAY, |c| {
            c.common.sessions = Some("s".into());
        }),
        (
            "http-read",
            "-l :1 -f b:1 --accept raw --sessions s --http-read X-Stamp",
            "-l :1 -f b:1 --accept raw --sessions s",
            |c| c.common.http_read = vec!["X-Stamp".into()],
        ),
        (
            "http-clock",
            "-l :1 -f b:1 --accept raw --sessions s --http-clock lb-1=B",
            "-l :1 -f b:1 --accept raw --sessions s",
            |c| c.common.http_clocks = vec![("lb-1".into(), "B".into())],
        ),
        (
            "http-write",
            "-l :1 -f b:1 --accept raw --http-write X-Path --http-write via",
            "-l :1 -f b:1 --accept raw",
            |c| c.common.http_write = vec!["X-Path".into(), "via".into()],
        ),
        (
            "server-timing",
            "-l :1 -f b:1 --accept raw -r --server-timing",
            "-l :1 -f b:1 --accept raw -r",
            |c| c.common.server_timing = true,
        ),
        ("baseline", "probe b:1 --baseline s", PROBE, |c| {
            c.common.baseline = Some("s".into());
        }),
        ("window", "probe b:1 --window 10s", PROBE, |c| {
            c.common.window = Some(Duration::from_secs(10));
        }),
        (
            "before",
            "compare --state s --before -2h --after -1h",
            COMPARE,
            |c| {
                let Compares::State { before, .. } = &mut comparison(c).what else {
                    panic!("of a state");
                };
                *before = TimeArgument::Ago(Nanos::from_millis(7_200_000));
            },
        ),
        (
            "after",
            "compare --state s --before -3h --after 1970-01-02",
            COMPARE,
            |c| {
                let Compares::State { after, .. } = &mut comparison(c).what else {
                    panic!("of a state");
                };
                *after = TimeArgument::At(WallTime(86_400_000_000_000));
            },
        ),
        (
            "fail-above",
            "compare --state s --before -3h --after -1h --fail-above 2ms",
            COMPARE,
            |c| {
                comparison(c).fail_above = Some(Nanos::from_millis(2));
            },
        ),
        ("state", "probe b:1 --state s", PROBE, |c| {
            c.common.state = Some("s".into());
        }),
        ("rules", "probe b:1 --rules r", PROBE, |c| {
            c.common.rules = Some("r".into());
        }),
        ("warning", "probe b:1 --warning 5ms,1%", PROBE, |c| {
            c.common.limits = simple("5ms,1%", Sla::Warning).unwrap();
        }),
        (
            "critical",
            "-f b:1 --critical 9% --critical 5ms",
            SOURCE,
            |c| c.common.limits = simple("5ms", Sla::Critical).unwrap(),
        ),
        ("debug", "-f b:1 -d7", SOURCE, |c| c.common.debug = Some(7)),
    ];

    #[test]
    fn each_flag_changes_its_own_setting_and_no_other() {
        for &(flag, line, base, change) in CASES {
            let mut expected = run(base);
            change(&mut expected);
            assert_eq!(run(line), expected, "--{flag}: {line}");
        }
    }

    #[test]
    fn every_row_has_its_own_case() {
        let is_of = |flag: &Flag, line: &str| {
            let is_passive = line.split(' ').any(|word| word == "passive");
            !is_passive || flag.modes.contains(&Mode::Passive)
        };
        for flag in flags::all() {
            let prints = matches!(flag.set, Set::Help | Set::Version);
            let mut cases = CASES.iter().filter(|case| case.0 == flag.long);
            assert!(
                prints || cases.any(|case| is_of(flag, case.1)),
                "--{}",
                flag.long
            );
        }
    }

    #[test]
    fn roles_have_the_documented_defaults() {
        let common = Common::default();
        let expected = [
            (
                SOURCE,
                Command::Source(SourceConfig {
                    forward_to: address("b:1"),
                    block: 16_384,
                }),
            ),
            (
                RELAY,
                Command::Node(NodeConfig {
                    listen: address(":1"),
                    forward_to: Some(address("b:1")),
                    accept: Accept::Auto,
                    remove: false,
                    server_check: None,
                    accept_proxy: false,
                    send_proxy: None,
                    allow: Vec::new(),
                    max_connections: None,
                    max_memory: Options::default().max_memory,
                    drain: Duration::from_secs(10),
                }),
            ),
            (
                PROBE,
                Command::Probe(ProbeConfig {
                    target: address("b:1"),
                    count: 100,
                    interval: Duration::from_millis(100),
                    size: 64,
                    flows: 1,
                    on_timeout: State::Critical,
                }),
            ),
            ("demo", Command::Demo(DemoConfig { seed: None })),
            (
                PASSIVE,
                Command::Passive(PassiveConfig {
                    input: Input::File("x".into()),
                    interval: None,
                    ..PassiveConfig::default()
                }),
            ),
            ("generate zsh", Command::Generate(Artifact::Zsh)),
            ("help", Command::Help(None)),
            ("help verdict", Command::Help(Some("verdict".into()))),
        ];
        for (line, command) in expected {
            let common = common.clone();
            assert_eq!(run(line), Config { common, command }, "{line}");
        }
    }

    fn assert_messages(table: &str, code: ExitCode) {
        // A longer message goes on in the next line.
        let table = table.trim().replace("\n        ", " ");
        let mut lines = table.lines();
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
    --allow "10.0.0.7/8" has bits beyond its prefix: write 10.0.0.0/8 for the network,
        10.0.0.7 for one address
-l :1 -f b:1 -r --send-proxy v1
    --send-proxy needs --key-file or --allow at an exit: who connects names the client
-l :1 -f b:1 -r --allow ::1 --send-proxy v3
    --send-proxy "v3" is none of v1, v2
-l :1 -f b:1 --accept raw --accept-proxy
    --accept-proxy needs --allow: name the balancers, who else connects would be believed
-l :1 -f b:1 --allow ::1 --accept-proxy
    --accept-proxy is for entry, proxy, and --listen with --forward-to makes this the relay
-f b:1 --dscp AF44
    --dscp "AF44" is no DSCP: write CS0 to CS7, AF11 to AF43, EF, VA, LE, or 0 to 63
-f b:1 --bind 10.0.0.1:80
    --bind "10.0.0.1:80" is neither an address nor the name of an interface: write 10.0.0.1,
        ::1 or eth0
-l :1 --bind eth0
    --bind is for source, relay, entry, exit, proxy, probe, trace, exporter, and --listen without
        --forward-to makes this the echo
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
    --rules is for source, relay, entry, probe, trace, and --listen without --forward-to makes this
        the echo
check-rules r -s 3
    --size is for probe, trace, and the word check-rules makes this the check of rules
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
-l :1 -f b:1 --accept raw --http-read X-Stamp
    --http-read needs --sessions FILE: without it a node reads no HTTP
-l :1 -f b:1 --accept raw --http-clock lb=B
    --http-clock needs --sessions FILE: without it a node reads no HTTP
-l :1 -f b:1 --accept raw --sessions s --http-read X[
    --http-read "X[" is no header name: expected up to 64 letters, digits, - and _
-l :1 -f b:1 --accept raw --http-write X[
    --http-write "X[" is no header name: expected up to 64 letters, digits, - and _
-l :1 -f b:1 --accept raw --http-write content-length
    --http-write "content-length" has a meaning of its own in HTTP: choose another name, as X-Path
-l :1 -f b:1 -r --server-timing
    --server-timing is for entry, proxy, and --remove-perf-headers makes this the exit
-l :1 -f b:1 --http-write X-Path
    --http-write is for entry, exit, proxy, and --listen with --forward-to makes this the relay
-l :1 -f b:1 --accept raw --sessions s --http-clock lb
    --http-clock "lb" is not NAME=NODE, as in haproxy-1=B
-l :1 --snmp r --snmp-objects laLoad
    --snmp-objects "laLoad" has "laLoad", which needs a number of its row: write an object by
        its numbers, 1.3.6.1.2.1.1.5.0, or as sysUpTime, laLoad.1, ifHCInOctets.2
-l :1 --ask load
    --ask is for source, relay, entry, probe, trace, and --listen without --forward-to makes this
        the echo
-f b:1 --annotate lod
    --annotate "lod" has "lod" for a class: write all, none, or some of load, cpu, memory,
        files, mib, interfaces, tcp, tags, snmp, joined by commas
-f b:1 --accept raw
    --accept is for relay, echo, entry, exit, proxy, and --forward-to without --listen makes
        this the source
-l :1 -b 9
    --block is for source, and --listen without --forward-to makes this the echo
-l :1 -f b:1 -c 9
    --count is for probe, trace, and --listen with --forward-to makes this the relay
-l :1 -f b:1 -r -i 9
    --interval is for probe, trace, and --remove-perf-headers makes this the exit
-l :1 --accept raw -f b:1 -s 9
    --size is for probe, trace, and --accept raw with --forward-to makes this the entry
-l :1 --accept raw -f b:1 -r -n
    --dont-add-perf-headers is for relay, echo, entry, exit, and --accept raw with
        --remove-perf-headers makes this the proxy
-l :1 --accept raw --key-file k
    --key-file has no use at an echo with --accept raw: nothing there is in frames
exporter --probe-allow b:1
    exporter needs --metrics-listen ADDR
exporter --metrics-listen :9
    exporter needs --probe-allow TARGETS
demo -c 1
    --count is for probe, trace, and the word demo makes this the demo
b:9000
    "b:9000" needs --listen, --forward-to or the word probe before it
frobnicate b:1
    unknown command "frobnicate": there are probe, trace, passive, demo, exporter, check-rules, state, compare, help, generate
demo again
    "again" is one argument too many for demo
state
    state needs FILE: state name
state f
    state needs DO: state name show
state f drop
    unknown action "drop" of state: there are show and accept
state f show p
    "p" is one argument too many: show has all parts
state f accept p q
    "q" is one argument too many for state
state f show --format csv
    state has --format text and json, no other
compare
    compare needs two reports, or --state FILE --before TIME --after TIME
compare a
    compare needs two reports, or --state FILE --before TIME --after TIME
compare a b --before -2h
    compare needs two reports, or --state FILE --before TIME --after TIME
compare --state s --before -2h
    compare needs two reports, or --state FILE --before TIME --after TIME
compare --state s --before noon --after -1h
    --before "noon" is no time: write 2026-11-27T15:17:02Z, 2026-11-27 or -2h
passive
    passive: give a FILE, - for stdin, or --interface
passive a b
    "b" is one argument too many for passive
passive a -I lo
    passive: give a FILE or --interface, not both
passive a --interval -1
    --interval "-1" is not a duration: write seconds as 2 or 0.002, or 2s, 10ms, 5m
passive a --interval 0.1us
    --interval "0.1us" is too short: at least 1µs, or 0
passive a --max-groups 0
    --max-groups "0" is not a whole number from 1 to 18446744073709551615
passive a --format xml
    --format "xml" is none of text, lines, json, jsonl, csv, prometheus
passive a --format nagios
    --format "nagios" is none of text, lines, json, jsonl, csv, prometheus
passive -I lo --peer b
    passive: --peer needs a capture file, not --interface
passive a --peer b -c 1
    passive: --peer and --count do not go together
passive a --peer b --metrics-file m
    passive: --peer and metrics do not go together
passive a --metrics-interval 0
    --metrics-interval "0" has to be more than 0
passive a --listen :1
    --listen is for relay, echo, entry, exit, proxy, and the word passive makes this the passive
-l :1 --at client
    --at is for passive, and --listen without --forward-to makes this the echo
"#;

    #[test]
    fn what_makes_no_sense_is_one_line_with_value_and_remedy() {
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
    --targets has a line of text for each path: for the figures of all use --metrics-file FILE
        or --metrics-listen ADDR, not --format
probe --targets t --format jsonl
    --targets has a line of text for each path: for the figures of all use --metrics-file FILE
        or --metrics-listen ADDR, not --format
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
    fn unknown_options_and_commands_name_the_nearest_known_one() {
        for (line, message) in [
            (
                "--lisen :1",
                "unknown option --lisen; did you mean --listen?",
            ),
            (
                "--forward b:1",
                "unknown option --forward; did you mean --forward-to?",
            ),
            (
                "--forwrad_to b:1",
                "unknown option --forwrad_to; did you mean --forward-to?",
            ),
            ("prob b:1", "unknown command \"prob\"; did you mean probe?"),
            (
                "pasive x",
                "unknown command \"pasive\"; did you mean passive?",
            ),
            (
                "passive x --max-flow 3",
                "unknown option --max-flow; did you mean --max-flows?",
            ),
            (
                "probe b:1 --max-flow 3",
                "unknown option --max-flow; try --help",
            ),
        ] {
            assert_eq!(error(line).to_string(), message, "{line}");
        }
    }

    #[test]
    fn the_word_decides_the_meaning_of_an_option_wherever_it_stands() {
        for line in [
            "-c 7 passive x",
            "passive x -c 7",
            "passive -c 7 x",
            "-c7 passive -- x",
        ] {
            let mut config = run(line);
            assert_eq!(passive(&mut config).count, Some(7), "{line}");
        }
        let message = error("-c 0 passive x").to_string();
        assert!(
            message.contains("is not a whole number from 1"),
            "{message}"
        );
        assert_eq!(probe(&mut run("-c 0 probe b:1")).count, 0);
    }

    #[test]
    fn only_json_of_a_capture_has_snapshots() {
        for (format, shown) in [
            ("text", false),
            ("csv", false),
            ("json", true),
            ("jsonl", true),
        ] {
            let mut config = run(&format!("passive x --format {format} -i 10ms"));
            let expected = shown.then_some(Duration::from_millis(10));
            assert_eq!(passive(&mut config).interval, expected, "{format}");
        }
        assert_eq!(
            passive(&mut run("passive x --format json -i 0")).interval,
            None
        );
    }

    #[test]
    fn an_empty_command_line_shows_the_ways_to_start() {
        for line in ["", "-d 7", "-r"] {
            assert_eq!(error(line).to_string(), help::ways_to_start(), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_printed_unless_something_was_wrong_before() {
        let word = |name| flags::words().iter().find(|word| word.name == name);
        for (line, text) in [
            ("-h", help::short(None)),
            ("-l :1 -h", help::short(None)),
            ("--help", help::long(None)),
            ("probe --help", help::long(word("probe"))),
            ("--help --wrong probe", help::long(word("probe"))),
            ("passive -h -c x", help::short(word("passive"))),
            ("-V", version::text()),
            ("--version", version::text()),
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
