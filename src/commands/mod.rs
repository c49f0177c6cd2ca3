//! The commands: a checked command line in, threads started and waited for, an exit code out.
//!
//! Every command has a function `run`, which returns the exit code of a run that came to its end, or a [`Failure`].

pub mod check_rules;
pub mod compare;
pub mod demo;
pub mod exporter;
mod logging;
pub mod node;
pub mod passive;
pub mod prepare;
pub mod probe;
pub mod signals;
pub mod source;
pub mod state;
pub mod targets;

use crate::cli::{self, Action, Command, Config, ExitCode, PROGRAM};
use crate::node::StopFlag;
use crate::output::{tell, Output};
use crate::sync::random;
use crate::sys::{self, StopSignals};
use crate::FULL;
use signals::Signals;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::thread::Builder;

/// Why a command did not come to its end: one line for stderr, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the process.
    pub code: ExitCode,
    /// One line that says what failed, on what, and the remedy.
    pub text: String,
}

impl Failure {
    /// A failure with the text of `error`.
    pub fn new(code: ExitCode, error: impl fmt::Display) -> Self {
        let text = error.to_string();
        Self { code, text }
    }
}

/// Runs what `args`, without the name of the program, ask for. Prints failures to stderr and returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    dispatch(args.into_iter().collect()).unwrap_or_else(|failure| {
        tell(&format!("{PROGRAM}: {}\n", failure.text));
        failure.code
    })
}

fn dispatch(args: Vec<OsString>) -> Result<ExitCode, Failure> {
    if FULL && args.first().is_some_and(|word| word == cli::flags::PASSIVE) {
        return run_passive(args.into_iter().skip(1));
    }
    match cli::parse(args) {
        Ok(Action::Run(config)) => run(*config),
        Ok(Action::Print(text)) => match Output::Stdout.write(&text) {
            Err(error) if !error.is_closed_pipe() => Err(Failure::new(ExitCode::Failed, error)),
            _ => Ok(ExitCode::Done),
        },
        Err(error) => Err(Failure::new(error.exit_code(), error)),
    }
}

/// The command `passive`, which has a command line of its own.
fn run_passive(args: impl Iterator<Item = OsString>) -> Result<ExitCode, Failure> {
    logging::start(None);
    let signals = block_signals()?;
    let (sender, stop) = crossbeam_channel::bounded(1); // The first signal; the second ends at once.
    let watching = Builder::new().name("signal".into()).spawn(move || {
        signals.wait();
        // The receiver is gone if the command is at its end.
        let _ = sender.send(());
        signals.wait();
        std::process::exit(ExitCode::Failed.number().into());
    });
    if let Err(error) = watching {
        log::error!("main: cannot start a thread: {error}; signals will not be heard");
    }
    passive::run(args, stop)
}

fn block_signals() -> Result<StopSignals, Failure> {
    StopSignals::block()
        .map_err(|error| Failure::new(ExitCode::Failed, format!("block signals: {error}")))
}

fn run(config: Config) -> Result<ExitCode, Failure> {
    sys::tune_malloc();
    logging::start(config.common.debug);
    // Before any thread: all of them inherit the mask.
    let signals = Signals::watch(block_signals()?, cut_off(&config.command));
    if let Err(error) = sys::raise_descriptor_limit() {
        log::info!("main: cannot raise the limit of open descriptors: {error}");
    }
    let Config { common, command } = config;
    let stop = Arc::new(StopFlag::default());
    match command {
        Command::Source(config) => source::run(&common, &config, signals, &stop),
        Command::Node(config) => node::run(&common, &config, signals, &stop),
        Command::Probe(config) => probe::run(&common, &config, signals, &stop),
        Command::CheckRules(path) => check_rules::run(&path),
        Command::State(config) => state::run(&config, common.format),
        Command::Compare(config) => compare::run(&config, common.format),
        Command::Targets(_) | Command::Exporter | Command::Demo(_) if !FULL => {
            unreachable!("none of them is parsed")
        }
        Command::Targets(config) => targets::run(&common, &config, signals),
        Command::Exporter => exporter::run(&common, signals, &stop),
        Command::Demo(config) => {
            let seed = config.seed.unwrap_or_else(random);
            demo::run(seed, common.report_html.as_deref(), signals, &stop)
        }
    }
}

/// The exit code of a run that a second signal ends at once: the state of a path is not known then.
fn cut_off(command: &Command) -> ExitCode {
    match command {
        Command::Probe(_) | Command::Targets(_) => ExitCode::ProbeUnknown,
        _ => ExitCode::Failed,
    }
}
