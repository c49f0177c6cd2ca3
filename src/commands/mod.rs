//! The commands: a checked command line in, threads started and waited for, an exit code out.
//!
//! Every command has a function `run`, which returns the exit code of a run that came to its end,
//! or a [`Failure`].

pub mod check_rules;
pub mod compare;
mod control;
pub mod demo;
pub mod exporter;
pub mod help;
mod logging;
pub mod node;
mod outputs;
pub mod passive;
pub mod prepare;
pub mod probe;
pub mod reload;
pub mod signals;
pub mod source;
pub mod state;
pub mod targets;
pub mod trace;

use crate::cli::{self, Action, Command, Config, ExitCode, PROGRAM};
use crate::generate;
use crate::node::StopFlag;
use crate::output::{print_error, Output, OutputError};
use crate::report::State;
use crate::sync::random;
use crate::sys::{self, StopSignals};
use crate::FULL;
use control::Control;
use outputs::OutputFault;
use signals::Signals;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

/// The reason for which a command did not come to its end: one line for stderr, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the process.
    pub code: ExitCode,
    /// One line with the failure, its object and the remedy.
    pub text: String,
}

impl Failure {
    /// Returns a failure with the text of `error`.
    pub fn new(code: ExitCode, error: impl fmt::Display) -> Self {
        let text = error.to_string();
        Self { code, text }
    }

    /// Returns a failure of a command other than `probe`.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::new(ExitCode::Failed, error)
    }
}

/// Runs the command of `args`, which leave out the name of the program. Prints a failure to stderr
/// and returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    dispatch(args.into_iter().collect()).unwrap_or_else(|failure| {
        print_error(&format!("{PROGRAM}: {}\n", failure.text));
        failure.code
    })
}

fn dispatch(mut args: Vec<OsString>) -> Result<ExitCode, Failure> {
    let control = Control::take(&mut args)?;
    match cli::parse(args) {
        Ok(Action::Run(config)) => match config.command {
            // The pager has to start without a mask of signals.
            Command::Help(topic) if FULL => help::run(topic.as_deref()),
            Command::Generate(artifact) if FULL => print(&generate::text(artifact)),
            _ => run(*config, control),
        },
        Ok(Action::Print(text)) => print(&text),
        Err(error) => Err(Failure::new(error.exit_code(), error)),
    }
}

/// Writes a text to stdout. A reader that is gone is a normal end.
fn print(text: &str) -> Result<ExitCode, Failure> {
    done(Output::Stdout.write(text))
}

fn block_signals() -> Result<StopSignals, Failure> {
    StopSignals::block().map_err(|error| Failure::failed(format!("block signals: {error}")))
}

/// Returns the exit code of a command whose results were written, or not. A reader that has closed
/// the pipe is a normal end.
fn done(written: Result<(), OutputError>) -> Result<ExitCode, Failure> {
    match written {
        Err(error) if !error.is_closed_pipe() => Err(Failure::failed(error)),
        _ => Ok(ExitCode::Done),
    }
}

fn run(mut config: Config, control: Option<Control>) -> Result<ExitCode, Failure> {
    if !matches!(config.command, Command::Passive(_)) {
        sys::tune_malloc();
    }
    logging::start(config.common.debug);
    config.common.key = control.as_ref().map(|control| control.key.clone());
    // Before any thread: all of them inherit the mask.
    let signals = Signals::watch(block_signals()?, cut_off(&config.command), reloads(&config));
    if let Err(error) = sys::raise_descriptor_limit() {
        log::info!("main: cannot raise the limit of open descriptors: {error}");
    }
    outputs::check(&config.common).map_err(|fault| unwritable(&config, fault))?;
    let Config { common, command } = config;
    let usable = common.socket.check();
    usable.map_err(|error| Failure::new(cut_off(&command), error))?;
    let stop = Arc::new(StopFlag::default());
    let is_of_trace = control.is_some();
    if let Some(control) = control {
        let watched = control.watch(Arc::clone(&stop));
        watched.map_err(|error| Failure::failed(format!("start a thread: {error}")))?;
    }
    match command {
        Command::Source(config) => source::run(&common, &config, signals, &stop),
        Command::Node(config) => node::run(&common, &config, signals, &stop),
        Command::Probe(config) => {
            if FULL && is_of_trace {
                probe::report_unreachable(&common, &config, &stop)?;
            }
            probe::run(&common, &config, signals, &stop)
        }
        Command::CheckRules(path) => check_rules::run(&path),
        Command::State(config) => state::run(&config, common.format),
        Command::Targets(_)
        | Command::Exporter
        | Command::Demo(_)
        | Command::Passive(_)
        | Command::Compare(_)
        | Command::Trace(_)
            if !FULL =>
        {
            unreachable!("the command line of this build has none of them")
        }
        Command::Targets(config) => targets::run(&common, &config, signals),
        Command::Trace(config) => trace::run(common, *config, signals, &stop),
        Command::Passive(config) => passive::run(&common, &config, signals),
        Command::Compare(config) => compare::run(&config, common.format),
        Command::Help(_) | Command::Generate(_) => unreachable!("dispatch has run it"),
        Command::Exporter => exporter::run(&common, signals, &stop),
        Command::Demo(config) => {
            let seed = config.seed.unwrap_or_else(random);
            demo::run(seed, common.report_html.as_deref(), signals, &stop)
        }
    }
}

/// Returns `true` for a command that reads files of options again at SIGHUP.
fn reloads(config: &Config) -> bool {
    match config.command {
        Command::Node(_) | Command::Exporter | Command::Targets(_) => true,
        Command::Probe(_) => config.common.rules.is_some(),
        _ => false,
    }
}

/// Returns the failure of a command whose files cannot be written; prints the line of `--format`
/// too, if that has one.
fn unwritable(config: &Config, fault: OutputFault) -> Failure {
    let unknown = cut_off(&config.command);
    let (code, text) = match fault {
        OutputFault::NoDirectory(text) => (unknown, text),
        OutputFault::Shared(text) if unknown == ExitCode::ProbeUnknown => (unknown, text),
        OutputFault::Shared(text) => (ExitCode::Usage, text),
    };
    let format = config.common.format.filter(|_| unknown.is_of_probe());
    if let Some(line) = format.and_then(|format| format.failure(State::Unknown, &text)) {
        let _ = Output::Stdout.write(&line); // The exit code and stderr remain.
    }
    Failure::new(code, text)
}

/// Returns the exit code of a run that a second signal ends at once, with the state of the path
/// unknown.
fn cut_off(command: &Command) -> ExitCode {
    match command {
        Command::Probe(_) | Command::Targets(_) | Command::Trace(_) => ExitCode::ProbeUnknown,
        _ => ExitCode::Failed,
    }
}
