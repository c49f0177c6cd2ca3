//! `Config` in; threads started, an exit code out. Only here are errors printed with their causes.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;
use subsegment_tcp_speeds::annotate::snmp::Agent;
use subsegment_tcp_speeds::cli::targets::parse_targets;
use subsegment_tcp_speeds::cli::{
    self, level_filter, Action, Command, Common, Config, Endpoint, ExitCode, Format, NodeConfig,
    ProbeConfig, SourceConfig, TargetsConfig, PROGRAM,
};
use subsegment_tcp_speeds::measure::facts::Classes;
use subsegment_tcp_speeds::measure::sla::{self, Rule};
use subsegment_tcp_speeds::measure::Baseline;
use subsegment_tcp_speeds::metrics_http::{self, Routes};
use subsegment_tcp_speeds::node::annotator::Offer;
use subsegment_tcp_speeds::node::board::Board;
use subsegment_tcp_speeds::node::caller::Caller;
use subsegment_tcp_speeds::node::collect::{Collector, Queue};
use subsegment_tcp_speeds::node::demo;
use subsegment_tcp_speeds::node::dial::Onward;
use subsegment_tcp_speeds::node::exporter::Exporter;
use subsegment_tcp_speeds::node::fleet::{self, Member};
use subsegment_tcp_speeds::node::gate::Limits;
use subsegment_tcp_speeds::node::key;
use subsegment_tcp_speeds::node::ledger::Ledger;
use subsegment_tcp_speeds::node::metrics::{Metrics, Watched};
use subsegment_tcp_speeds::node::notify;
use subsegment_tcp_speeds::node::output::{tell, Output, OutputError};
use subsegment_tcp_speeds::node::passive;
use subsegment_tcp_speeds::node::print::{read_state, Printer};
use subsegment_tcp_speeds::node::probe::{self, Plan};
use subsegment_tcp_speeds::node::screen;
use subsegment_tcp_speeds::node::serve::{bind, contain_panics, listen_addresses, Server, Totals};
use subsegment_tcp_speeds::node::sessions::{self, Sessions};
use subsegment_tcp_speeds::node::{random, source, Node, Settings, StopFlag};
use subsegment_tcp_speeds::report::{is_unprintable, nagios, paths, Blocks, State};
use subsegment_tcp_speeds::session::admission::Accept;
use subsegment_tcp_speeds::sys::{self, StopSignals};
use subsegment_tcp_speeds::time::Nanos;
use subsegment_tcp_speeds::wire::siphash::Key;
use subsegment_tcp_speeds::wire::Role;
use subsegment_tcp_speeds::DESK;

/// A run without end compares with its first five minutes.
const FIRST_SPAN: Duration = Duration::from_secs(300);

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if DESK && args.peek().is_some_and(|word| word == cli::flags::PASSIVE) {
        return run_passive(args.skip(1));
    }
    let code = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Action::Run(config)) => run(*config),
        Ok(Action::Print(text)) => match Output::Stdout.write(&text) {
            Ok(()) => ExitCode::Done,
            Err(error) if error.is_closed_pipe() => ExitCode::Done,
            Err(error) => failed(&error.to_string(), ExitCode::Failed),
        },
        Err(error) => failed(&error.to_string(), error.exit_code()),
    };
    code.into()
}

/// The command `passive`, which has a command line of its own.
fn run_passive(args: impl Iterator<Item = OsString>) -> std::process::ExitCode {
    start_log(None);
    let signals = match StopSignals::block() {
        Ok(signals) => signals,
        Err(error) => {
            return failed(&format!("block signals: {error}"), ExitCode::Failed).into();
        }
    };
    let (sender, stop) = crossbeam_channel::bounded(1); // The first signal; the second ends at once.
    let watching = Builder::new().name("signal".into()).spawn(move || {
        signals.wait();
        // Nobody listens any more: it is at its end.
        let _ = sender.send(());
        signals.wait();
        std::process::exit(ExitCode::Failed.number().into());
    });
    if let Err(error) = watching {
        log::error!("main: cannot start a thread: {error}; signals will not be heard");
    }
    passive::run(args, stop).into()
}

fn failed(text: &str, code: ExitCode) -> ExitCode {
    tell(&format!("{PROGRAM}: {text}\n"));
    code
}

fn run(config: Config) -> ExitCode {
    sys::return_large_buffers();
    start_log(config.common.debug);
    // Before any thread: all of them inherit the mask.
    let signals = match StopSignals::block() {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("block signals: {error}"), ExitCode::Failed),
    };
    let signals = Signals::watch(signals);
    if let Err(error) = sys::raise_descriptor_limit() {
        log::info!("main: cannot raise the limit of open descriptors: {error}");
    }
    let Config { common, command } = config;
    let stop = Arc::new(StopFlag::default());
    match command {
        Command::Source(config) => run_source(&common, &config, signals, &stop),
        Command::Node(config) => run_node(&common, &config, signals, &stop),
        Command::Probe(config) => run_probe(&common, &config, signals, &stop),
        Command::CheckRules(path) => check_rules(&path),
        Command::Targets(_) | Command::Exporter | Command::Demo(_) if !DESK => {
            unreachable!("none of them is parsed")
        }
        Command::Targets(config) => run_targets(&common, &config, signals),
        Command::Exporter => run_exporter(&common, signals, &stop),
        Command::Demo(config) => {
            let seed = config.seed.unwrap_or_else(random);
            let page = common.report_html.as_deref();
            let given = demo::run(seed, page, &stop, |collector| {
                signals.stop(&stop, Some(collector));
            });
            match given {
                Ok(true) => ExitCode::Done,
                Ok(false) => ExitCode::Failed,
                Err(demo::DemoError::Output(error)) if error.is_closed_pipe() => ExitCode::Done,
                Err(error) => failed(&error.to_string(), ExitCode::Failed),
            }
        }
    }
}

/// `-d` wins over RUST_LOG; without both, warnings and errors are shown.
fn start_log(severity: Option<u8>) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level_filter(severity));
    if severity.is_none() {
        if let Ok(filter) = std::env::var("RUST_LOG") {
            builder.parse_filters(&filter);
        }
    }
    builder.format(|out, record| {
        let now = sys::clock::read().wall.to_string();
        // A peer's words are in some lines: control characters would let it forge others, and some that are no
        // control characters hide or reorder what a terminal shows.
        let text: String = record
            .args()
            .to_string()
            .chars()
            .flat_map(|c| {
                let escaped = is_unprintable(c).then(|| c.escape_default());
                let plain = (!is_unprintable(c)).then_some(c);
                escaped.into_iter().flatten().chain(plain)
            })
            .collect();
        let millis = now.get(..23).unwrap_or(&now);
        writeln!(out, "{millis}Z {:5} {text}", record.level())
    });
    builder.init();
}

/// Ends the process: by the first signal as long as nothing is there to be asked (a resolver or a pipe without a reader
/// may take its time before), then by the second.
struct Signals(Arc<Mutex<Option<Ask>>>);

type Ask = Box<dyn FnOnce() + Send>;

impl Signals {
    fn watch(signals: StopSignals) -> Self {
        let asked = Self(Arc::default());
        let asks = Arc::clone(&asked.0);
        let watching = Builder::new().name("signal".into()).spawn(move || {
            signals.wait();
            let ask = asks.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(ask) = ask {
                notify::stopping();
                ask();
                signals.wait();
                screen::restore();
            }
            std::process::exit(ExitCode::Failed.number().into());
        });
        if let Err(error) = watching {
            log::error!("main: cannot start a thread: {error}; signals will not be heard");
        }
        asked
    }

    /// From now on the first signal does this.
    fn ask(self, to_end: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(to_end));
    }

    fn stop(self, stop: &Arc<StopFlag>, collector: Option<Collector>) {
        let stop = Arc::clone(stop);
        self.ask(move || {
            stop.set();
            if let Some(collector) = collector {
                collector.wake();
            }
        });
    }
}

fn node_name(common: &Common) -> String {
    let name = common.node.clone().or_else(sys::host_name);
    name.unwrap_or_else(|| "unnamed".into())
}

fn settings(common: &Common, role: Role) -> Settings {
    Settings {
        name: node_name(common),
        role,
        tags: common.tags.clone(),
        stamp: common.stamp,
        accept: Accept::Auto,
        remove: false,
        timeout: common.timeout,
        idle_timeout: common.idle_timeout,
        sample: common.sample,
        hop_limit: common.hop_limit,
        kernel_times: common.kernel_times,
        key: None,
        limits: Limits::default(),
        ask: common.ask,
        offer: offer(common),
    }
}

/// What this node tells when it is asked: without `--annotate` all that it has.
fn offer(common: &Common) -> Offer {
    let agent = common.snmp.as_ref().map(|endpoint| Agent {
        host: endpoint.host.clone().unwrap_or_default(),
        port: endpoint.port,
        community: common.snmp_community.clone(),
        objects: common.snmp_objects.clone(),
    });
    Offer {
        classes: common.annotate.unwrap_or(Classes::all()),
        agent,
    }
}

fn key(common: &Common) -> Result<Option<Key>, String> {
    let path = common.key_file.as_deref();
    path.map(key::read).transpose()
}

fn onward(common: &Common, endpoint: &Endpoint) -> Result<Onward, String> {
    let host = endpoint.host.as_deref().unwrap_or("localhost");
    Onward::resolve(host, endpoint.port, common.timeout).map_err(|error| format!("cannot {error}"))
}

/// What the user wants to see, opened before anything is measured.
fn printer(common: &Common, otherwise: Output) -> Result<Printer, OutputError> {
    let format = common.format.unwrap_or(Format::Text);
    let stream = matches!(format, Format::Jsonl | Format::Csv | Format::Otlp);
    let output = Output::open(common.report.as_deref(), otherwise, stream)?;
    let printer = Printer::new(output, format, common.state.clone());
    printer.with_page(common.report_html.as_deref())
}

fn baseline(common: &Common, endless: bool) -> Result<Baseline, OutputError> {
    Ok(match &common.state {
        Some(path) => Baseline::Runs(read_state(path)?),
        None if endless => Baseline::FirstSpan(Nanos::from(FIRST_SPAN)),
        None => Baseline::FirstHalf,
    })
}

fn ledger(common: &Common, role: Role, endless: bool) -> Result<Ledger, OutputError> {
    let started = sys::clock::read().wall;
    Ok(Ledger::new(
        &node_name(common),
        role.name(),
        started,
        baseline(common, endless)?,
    ))
}

/// The rules of a file, then the limits of the command line.
fn rules(common: &Common) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    if let Some(path) = &common.rules {
        rules = read_rules(path)?;
    }
    rules.extend(common.limits.iter().cloned());
    Ok(rules)
}

fn read_rules(path: &Path) -> Result<Vec<Rule>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {name}: {error}"))?;
    sla::parse(&text).map_err(|error| format!("{name}: {error}"))
}

/// As other tools do: 0 and what was understood, or 1 and where it is wrong.
fn check_rules(path: &Path) -> ExitCode {
    let rules = match read_rules(path) {
        Ok(rules) => rules,
        Err(text) => return failed(&text, ExitCode::Failed),
    };
    let lines = rules.iter().map(|rule| format!("{rule}\n"));
    let text = lines.collect::<String>() + &format!("# valid, rules: {}\n", rules.len());
    match Output::Stdout.write(&text) {
        Err(error) if !error.is_closed_pipe() => failed(&error.to_string(), ExitCode::Failed),
        _ => ExitCode::Done,
    }
}

/// Has the ledger hold the path against the rules; where they ask something, measurements are looked at one by one.
fn watching(ledger: Ledger, rules: Vec<Rule>, node: &Node) -> Ledger {
    if rules.iter().any(|rule| !rule.asks.is_empty()) {
        node.collector.be_prompt();
    }
    ledger.watching(rules.into(), &node.asking)
}

/// The near end of a path, ready to call.
fn caller(common: &Common, onward: Onward) -> Result<(Caller, Queue), String> {
    let key = key(common)?;
    let settings = Settings {
        key,
        ..settings(common, Role::Source)
    };
    let (node, queue) = Node::new(settings, Some(onward));
    Ok((Caller::new(node), queue))
}

/// Serves and keeps the metrics of what is `watched`, as far as they are wanted.
fn publish(common: &Common, watched: Vec<Watched>, endless: bool) -> Result<Published, String> {
    let file = common.metrics_file.clone();
    if common.metrics_listen.is_none() && file.is_none() {
        return Ok(Published(None));
    }
    let metrics = Metrics::new(watched);
    let thread = |error| format!("start a thread: {error}");
    if let Some(listen) = &common.metrics_listen {
        let addresses = listen_addresses(listen.host.as_deref(), listen.port, common.timeout)
            .map_err(|error| format!("resolve {listen}: {error}"))?;
        let listeners = metrics_http::bind(PROGRAM, &addresses)?;
        metrics_http::serve(listeners, routes(common, &metrics)?).map_err(thread)?;
    }
    if let Some(file) = &file {
        // Now, so that a bad path is told before anything is measured.
        metrics.write(file).map_err(|error| error.to_string())?;
        if endless {
            metrics.keep_file(file.clone()).map_err(thread)?;
        }
    }
    Ok(Published(file.map(|file| (metrics, file))))
}

/// What is answered over HTTP.
fn routes(common: &Common, metrics: &Arc<Metrics>) -> Result<Routes, String> {
    let mut routes = metrics.routes();
    if DESK && !common.probe_allow.is_empty() {
        let settings = Settings {
            key: key(common)?,
            ..settings(common, Role::Source)
        };
        let exporter = Exporter::new(settings, common.probe_allow.clone());
        routes = routes.with("/probe", move |request| exporter.answer(request));
    }
    Ok(routes)
}

/// The file of metrics, to be written at the end too.
struct Published(Option<(Arc<Metrics>, PathBuf)>);

impl Published {
    fn finish(self) -> Result<(), OutputError> {
        match self.0 {
            Some((metrics, file)) => metrics.write(&file),
            None => Ok(()),
        }
    }
}

fn run_source(
    common: &Common,
    config: &SourceConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> ExitCode {
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return failed(&text, ExitCode::Usage),
    };
    let prepared = ledger(common, Role::Source, false)
        .and_then(|ledger| Ok((ledger, printer(common, Output::Stderr)?)));
    let (ledger, printer) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error.to_string(), ExitCode::Failed),
    };
    let (caller, queue) =
        match onward(common, &config.forward_to).and_then(|onward| caller(common, onward)) {
            Ok((caller, queue)) => (Arc::new(caller), queue),
            Err(text) => return failed(&text, ExitCode::Failed),
        };
    let watched = vec![Watched::caller(&caller, "source", None)];
    let published = match publish(common, watched, true) {
        Ok(published) => published,
        Err(text) => return failed(&text, ExitCode::Failed),
    };
    let ledger = watching(ledger, rules, &caller.node);
    signals.stop(stop, Some(caller.node.collector.clone()));
    notify::ready();
    let code = source::run(&caller, queue, ledger, config.block, printer, stop);
    match code.and_then(|code| published.finish().map(|()| code)) {
        Ok(code) => code,
        Err(error) => failed(&error.to_string(), ExitCode::Failed),
    }
}

fn run_probe(
    common: &Common,
    config: &ProbeConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> ExitCode {
    let count = (config.count > 0).then_some(config.count);
    let failed = |text: &str, state: State| probe_failed(common, text, state);
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return failed(&text, State::Unknown),
    };
    let prepared = ledger(common, Role::Source, count.is_none())
        .and_then(|ledger| Ok((ledger, printer(common, Output::Stdout)?)));
    let (ledger, mut printer) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error.to_string(), State::Unknown),
    };
    let (caller, queue) =
        match onward(common, &config.target).and_then(|onward| caller(common, onward)) {
            Ok((caller, queue)) => (Arc::new(caller.probing()), queue),
            Err(text) => return failed(&text, State::Critical),
        };
    let mut ledger = watching(ledger, rules, &caller.node);
    let watched = vec![Watched::caller(&caller, "probe", None)];
    let published = match publish(common, watched, count.is_none()) {
        Ok(published) => published,
        Err(text) => return failed(&text, State::Unknown),
    };
    signals.stop(stop, Some(caller.node.collector.clone()));
    let lasts = count.map_or(Duration::MAX, |count| {
        config
            .interval
            .saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    });
    if lasts > Duration::from_secs(1) {
        printer = printer.with_live_line(count);
    }
    if count.is_none() {
        printer = printer.with_screen(caller.node.collector.clone(), stop);
    }
    let plan = Plan {
        count,
        interval: config.interval,
        size: config.size,
        on_timeout: config.on_timeout,
    };
    notify::ready();
    let state = probe::run(&caller, queue, &mut ledger, plan, &mut printer, stop);
    drop(printer); // Gives a terminal back before anything is said on it.
    match state.and_then(|state| published.finish().map(|()| state)) {
        Ok(state) => probe_code(state),
        Err(error) if error.is_closed_pipe() => ExitCode::ProbeOk,
        Err(error) => failed(&error.to_string(), State::Unknown),
    }
}

fn probe_code(state: State) -> ExitCode {
    match state {
        State::Ok => ExitCode::ProbeOk,
        State::Warning => ExitCode::ProbeWarning,
        State::Critical => ExitCode::ProbeCritical,
        State::Unknown => ExitCode::ProbeUnknown,
    }
}

/// What reads a plugin's stdout finds the reason there as well.
fn probe_failed(common: &Common, text: &str, state: State) -> ExitCode {
    if DESK && common.format == Some(Format::Nagios) {
        // Where even that fails, stderr and the exit code remain.
        let _ = Output::Stdout.write(&nagios::failure(state, text));
    }
    failed(text, probe_code(state))
}

/// Many paths, each with a probe of its own.
fn run_targets(common: &Common, config: &TargetsConfig, signals: Signals) -> ExitCode {
    let unknown = |text: String| failed(&text, ExitCode::ProbeUnknown);
    let file = config.file.display();
    let targets = match std::fs::read_to_string(&config.file) {
        Ok(text) => parse_targets(&text).map_err(|error| format!("--targets {file} {error}")),
        Err(error) => Err(format!("read {file}: {error}")),
    };
    let targets = match targets {
        Ok(targets) => targets,
        Err(text) => return unknown(text),
    };
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return unknown(text),
    };
    let count = (config.count > 0).then_some(config.count);
    let mut output = match Output::open(common.report.as_deref(), Output::Stdout, false) {
        Ok(output) => output,
        Err(error) => return unknown(error.to_string()),
    };
    let (mut members, mut watched) = (Vec::new(), Vec::new());
    for target in targets {
        // A name that cannot be resolved is that path's trouble alone, as long as it cannot.
        let host = target.address.host.as_deref().unwrap_or_default();
        let onward = Onward::unresolved(host, target.address.port);
        let prepared = ledger(common, Role::Source, count.is_none())
            .map_err(|error| error.to_string())
            .and_then(|ledger| Ok((ledger, caller(common, onward)?)));
        let (ledger, (caller, queue)) = match prepared {
            Ok(prepared) => prepared,
            Err(text) => return unknown(text),
        };
        let caller = Arc::new(caller.probing());
        let ledger = watching(ledger, rules.clone(), &caller.node);
        let path = Some(target.name.clone());
        watched.push(Watched::caller(&caller, "probe", path));
        members.push(Member {
            name: target.name,
            caller,
            queue,
            ledger,
            stop: Arc::default(),
        });
    }
    let published = match publish(common, watched, count.is_none()) {
        Ok(published) => published,
        Err(text) => return unknown(text),
    };
    let to_stop: Vec<_> = members
        .iter()
        .map(|member| {
            (
                Arc::clone(&member.stop),
                member.caller.node.collector.clone(),
            )
        })
        .collect();
    signals.ask(move || {
        for (stop, collector) in to_stop {
            stop.set();
            collector.wake();
        }
    });
    notify::ready();
    let plan = Plan {
        count,
        interval: config.interval,
        size: config.size,
        on_timeout: config.on_timeout,
    };
    let probed = match fleet::run(members, plan) {
        Ok(probed) => probed,
        Err(error) => return unknown(format!("start a thread: {error}")),
    };
    // Of several states the worst is that of all.
    let states = probed.iter().map(|probed| probed.state);
    let state = states.max_by_key(|state| state.severity());
    let lines = probed
        .into_iter()
        .map(|probed| (probed.name, probed.report));
    let lines: Vec<_> = lines.collect();
    let summary = paths::render(&lines);
    match output.write(&summary).and_then(|()| published.finish()) {
        Ok(()) => probe_code(state.unwrap_or(State::Ok)),
        Err(error) if error.is_closed_pipe() => ExitCode::ProbeOk,
        Err(error) => unknown(error.to_string()),
    }
}

/// A process that only probes what it is asked for over HTTP.
fn run_exporter(common: &Common, signals: Signals, stop: &Arc<StopFlag>) -> ExitCode {
    if let Err(text) = publish(common, Vec::new(), true) {
        return failed(&text, ExitCode::Failed);
    }
    signals.stop(stop, None);
    notify::ready();
    stop.wait_set();
    ExitCode::Done
}

fn role(config: &NodeConfig) -> Role {
    match (&config.forward_to, config.accept, config.remove) {
        (None, ..) => Role::Echo,
        (Some(_), cli::Accept::Raw, true) => Role::Proxy,
        (Some(_), cli::Accept::Raw, false) => Role::Entry,
        (Some(_), _, true) => Role::Exit,
        (Some(_), _, false) => Role::Relay,
    }
}

fn run_node(
    common: &Common,
    config: &NodeConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> ExitCode {
    contain_panics();
    let role = role(config);
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return failed(&text, ExitCode::Usage),
    };
    let prepared = ledger(common, role, true)
        .and_then(|ledger| Ok((ledger, printer(common, Output::Stdout)?)));
    let (ledger, printer) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error.to_string(), ExitCode::Failed),
    };
    let sessions = common
        .sessions
        .as_deref()
        .map(|path| sessions::start(path, &node_name(common), role.name()));
    let (sessions, writer) = match sessions.transpose() {
        Ok(started) => started.unzip(),
        Err(error) => return failed(&error.to_string(), ExitCode::Failed),
    };
    let started = start_node(common, config, role, sessions);
    let (server, queue, described) = match started {
        Ok(started) => started,
        Err(text) => return failed(&text, ExitCode::Failed),
    };
    let watched = vec![Watched::node(server.watch())];
    let published = match publish(common, watched, true) {
        Ok(published) => published,
        Err(text) => return failed(&text, ExitCode::Failed),
    };
    tell(&described);
    let ledger = watching(ledger, rules, server.node());
    signals.stop(stop, None);
    let collecting = Builder::new().name("collect".into()).spawn({
        let (stop, board) = (Arc::clone(stop), Arc::clone(&server.node().board));
        move || collect(queue, ledger, printer, &stop, &board)
    });
    let collecting = match collecting {
        Ok(collecting) => collecting,
        Err(error) => return failed(&format!("start a thread: {error}"), ExitCode::Failed),
    };
    notify::ready();
    stop.wait_set();
    let collector = server.node().collector.clone();
    let board = Arc::clone(&server.node().board);
    let totals = server.stop();
    stop.finish();
    collector.wake();
    let Ok(collected) = collecting.join() else {
        return ExitCode::Failed; // Its panic has been reported on stderr.
    };
    let finished = collected.and_then(|(queue, mut ledger, mut printer)| {
        let mut queue = queue;
        printer.drain(&mut queue, &mut ledger)?;
        ledger.remark(describe(&totals));
        let blocks = measured_here(&ledger, totals.traffic.forward_bytes);
        ledger.finish(blocks, false);
        board.close(|| ledger.report(sys::clock::read().wall, blocks, queue.dropped()));
        printer.finish(&ledger, blocks, queue.dropped())?;
        published.finish()
    });
    let finished = finished.and(writer.map_or(Ok(()), sessions::Writer::finish));
    match finished {
        Ok(()) => ExitCode::Done,
        Err(error) if error.is_closed_pipe() => ExitCode::Done,
        Err(error) => failed(&error.to_string(), ExitCode::Failed),
    }
}

/// The blocks of a node that makes none itself.
fn measured_here(ledger: &Ledger, payload_bytes: u64) -> Blocks {
    let measured = ledger.measured();
    Blocks {
        sent: measured,
        received: measured,
        payload_bytes,
        ..Blocks::default()
    }
}

/// Binds, starts accepting, and says where.
fn start_node(
    common: &Common,
    config: &NodeConfig,
    role: Role,
    sessions: Option<Sessions>,
) -> Result<(Server, Queue, String), String> {
    let key = key(common)?;
    let next = config
        .forward_to
        .as_ref()
        .map(|endpoint| onward(common, endpoint))
        .transpose()?;
    let listen = &config.listen;
    let addresses = listen_addresses(listen.host.as_deref(), listen.port, common.timeout)
        .map_err(|error| format!("resolve {listen}: {error}"))?;
    let listeners = bind(&addresses, common.timeout)
        .map_err(|(address, error)| format!("listen on {address}: {error}"))?;
    let mut text = String::new();
    for listener in &listeners {
        let address = listener
            .local_addr()
            .map_err(|error| format!("listen on {listen}: {error}"))?;
        if next
            .as_ref()
            .is_some_and(|next| next.addresses().contains(&address))
        {
            return Err(format!(
                "--forward-to leads back to --listen {address}: a loop"
            ));
        }
        let onward = next
            .as_ref()
            .map_or_else(String::new, |next| format!(" to {}", next.target()));
        text.push_str(&format!(
            "{PROGRAM}: listening on {address} ({}{onward})\n",
            role.name()
        ));
    }
    let (mut node, queue) = Node::new(
        Settings {
            accept: match config.accept {
                // Who holds no key is not to use the chain by leaving frames out.
                cli::Accept::Auto if key.is_some() => Accept::Framed,
                cli::Accept::Auto => Accept::Auto,
                cli::Accept::Framed => Accept::Framed,
                cli::Accept::Raw => Accept::Raw,
            },
            remove: config.remove,
            limits: limits(config),
            key,
            ..settings(common, role)
        },
        next,
    );
    node.sessions = sessions;
    let server =
        Server::start(node, listeners).map_err(|error| format!("start a thread: {error}"))?;
    Ok((server, queue, text))
}

/// Who may connect to a node and how many at once. A reflector's connection has one descriptor, any other two.
fn limits(config: &NodeConfig) -> Limits {
    let each = 1 + u64::from(config.forward_to.is_some());
    let descriptors = sys::raise_descriptor_limit().ok();
    Limits::new(
        config.allow.clone(),
        config.max_connections,
        descriptors,
        each,
    )
}

type Collected = Result<(Queue, Ledger, Printer), OutputError>;

/// The `collect` thread of a node. Where its output fails it goes on collecting without.
fn collect(
    mut queue: Queue,
    mut ledger: Ledger,
    mut printer: Printer,
    stop: &StopFlag,
    board: &Board,
) -> Collected {
    board.open();
    let mut outcome = Ok(());
    while !stop.is_finished() {
        queue.batch(|measurement| {
            let printed = if outcome.is_ok() {
                printer.take(&mut ledger, measurement)
            } else {
                ledger.take(measurement);
                Ok(())
            };
            if let Err(error) = printed {
                log::error!("collect: {error}");
                outcome = Err(error);
            }
        });
        // What the connections still carry is counted at the end.
        let blocks = measured_here(&ledger, 0);
        printer.tick_page(&ledger, blocks, queue.dropped());
        board.answer(|pictures| {
            // Only a page shows the blocks of a node that makes none.
            let blocks = if pictures { blocks } else { Blocks::default() };
            ledger.look(blocks, queue.dropped(), pictures)
        });
    }
    outcome.map(|()| (queue, ledger, printer))
}

fn describe(totals: &Totals) -> String {
    let traffic = &totals.traffic;
    let mut text = format!(
        "connections: {}, of which ended by a reset or an error: {}; forward {} bytes in {} blocks, back {} bytes in {} blocks",
        totals.connections,
        totals.failed,
        traffic.forward_bytes,
        traffic.forward_blocks,
        traffic.return_bytes,
        traffic.return_blocks
    );
    if totals.refused > 0 {
        text.push_str(&format!("; {} refused by --allow", totals.refused));
    }
    if traffic.reports_dropped > 0 {
        text.push_str(&format!(
            "; {} reports found their queue full",
            traffic.reports_dropped
        ));
    }
    text
}
