//! `Config` in; threads started, an exit code out. Only here are errors printed with their causes.

mod roles;

use roles::node::run_node;
use roles::prepare::read_rules;
use roles::probe::{run_exporter, run_probe, run_targets};
use roles::source::run_source;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use subsegment_tcp_speeds::cli::{self, level_filter, Action, Command, Config, ExitCode, PROGRAM};
use subsegment_tcp_speeds::node::collect::Collector;
use subsegment_tcp_speeds::node::demo;
use subsegment_tcp_speeds::node::notify;
use subsegment_tcp_speeds::node::output::{tell, Output};
use subsegment_tcp_speeds::node::passive;
use subsegment_tcp_speeds::node::screen;
use subsegment_tcp_speeds::node::{random, StopFlag};
use subsegment_tcp_speeds::report::is_unprintable;
use subsegment_tcp_speeds::sys::{self, StopSignals};
use subsegment_tcp_speeds::DESK;

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
    sys::tune_malloc();
    start_log(config.common.debug);
    // Before any thread: all of them inherit the mask.
    let signals = match StopSignals::block() {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("block signals: {error}"), ExitCode::Failed),
    };
    let signals = Signals::watch(signals, cut_off(&config.command));
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

/// What a run comes to that a signal ends at once: the state of a path is not known then.
fn cut_off(command: &Command) -> ExitCode {
    match command {
        Command::Probe(_) | Command::Targets(_) => ExitCode::ProbeUnknown,
        _ => ExitCode::Failed,
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
    fn watch(signals: StopSignals, cut_off: ExitCode) -> Self {
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
            std::process::exit(cut_off.number().into());
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
