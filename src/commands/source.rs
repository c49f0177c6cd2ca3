//! The source: stdin goes out in marked blocks, what comes back goes to stdout byte for byte, statistics to stderr or
//! `--report FILE`.

use crate::cli::{Common, ExitCode, SourceConfig};
use crate::collect::queue::Queue;
use crate::collect::run_state::RunState;
use crate::commands::prepare::{next_hop, origin, printer, publish, rules, run_state, watching};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::StopFlag;
use crate::origin::session::{BlockWriter, Due, OpenSession, Origin, PathError, ReadEnd};
use crate::output::{raw_stdin, raw_stdout, Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::{name_break, Printer};
use crate::report::{Broken, State};
use crate::sync::STACK;
use crate::sys;
use crate::wire::NodeRole;
use crossbeam_channel::{bounded, Sender};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Instant;

/// Runs the source.
///
/// # Errors
///
/// [`Failure`].
pub fn run(
    common: &Common,
    config: &SourceConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> Result<ExitCode, Failure> {
    let failed = |text: String| Failure::new(ExitCode::Failed, text);
    let unwritable = |error: OutputError| Failure::new(ExitCode::Failed, error);
    let rules = rules(common).map_err(|text| Failure::new(ExitCode::Usage, text))?;
    let run_state = run_state(common, NodeRole::Source, false).map_err(unwritable)?;
    let printer = printer(common, Output::Stderr).map_err(unwritable)?;
    let next_hop = next_hop(common, &config.forward_to).map_err(failed)?;
    let (origin, queue) = origin(common, next_hop).map_err(failed)?;
    let origin = Arc::new(origin);
    let watched = vec![Watched::origin(&origin, "source", None)];
    let published = publish(common, watched, true).map_err(failed)?;
    let run_state = watching(run_state, rules, &origin.node);
    signals.stop(stop, Some(origin.node.collector.clone()));
    notify::ready();
    let code = carry(&origin, queue, run_state, config.block, printer, stop);
    let finished = published.finish();
    code.and_then(|code| finished.map(|()| code))
        .map_err(unwritable)
}

/// How a pump of the source ended.
enum Ended {
    /// Everything was read from stdin and sent, END included.
    Sent,
    /// stdin failed.
    Stdin(io::Error),
    /// The path broke under the writer; the reader knows more.
    Unsent(PathError),
    /// Everything came back, END included.
    Received,
    /// The reader stopped early.
    Stopped(ReadEnd<io::Error>),
}

/// Runs the source until stdin and the path have ended.
///
/// # Errors
///
/// [`OutputError`] where the report cannot be written.
fn carry(
    origin: &Arc<Origin>,
    mut queue: Queue,
    run_state: RunState,
    block: usize,
    mut printer: Printer,
    stop: &StopFlag,
) -> Result<ExitCode, OutputError> {
    let mut run_state = run_state;
    let line = match origin.open() {
        Ok(line) => Arc::new(line),
        Err(broken) => {
            log::error!("source: {broken}");
            return Ok(ExitCode::Failed);
        }
    };
    let (say, ended) = bounded(2); // Each pump ends once.
    let writer = spawn("up#1", origin, &line, say.clone(), move |origin, line| {
        pump_out(origin, line, block)
    });
    let reader = spawn("down#1", origin, &line, say, pump_back);
    if let Err(error) = writer.and(reader) {
        log::error!("source: cannot start a thread: {error}");
        return Ok(ExitCode::Failed);
    }
    let latest = &origin.node.latest;
    latest.open();
    let mut code = ExitCode::Done;
    let mut deadline = None;
    'run: loop {
        let mut fault = None;
        queue.batch(|measurement| {
            if let Err(error) = printer.take(&mut run_state, measurement) {
                fault = Some(error);
            }
        });
        if let Some(fault) = fault {
            line.give_up();
            return Err(fault);
        }
        let blocks = origin.progress.blocks_so_far();
        run_state.counts(blocks);
        printer.tick_page(&run_state, blocks, queue.dropped());
        latest.answer(|pictures| run_state.look(blocks, queue.dropped(), pictures));
        if stop.is_set() && deadline.is_none() {
            deadline = Some(Instant::now() + origin.node.settings.timeout);
            queue.keep_awake();
            line.end();
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            log::error!("source: told to end, but not all answers came within --timeout");
            line.give_up();
            code = ExitCode::Failed;
            break;
        }
        // All that there are: one knock may stand for several.
        for event in ended.try_iter() {
            match event {
                Ended::Sent => {}
                Ended::Stdin(error) => {
                    log::error!("source: read standard input: {error}");
                    code = ExitCode::Failed;
                    line.end();
                }
                // The reader finds what the path had to say last, then the same end.
                Ended::Unsent(broken) => log::debug!("source: {broken}"),
                Ended::Received => break 'run,
                Ended::Stopped(ReadEnd::Aborted) => break 'run,
                Ended::Stopped(ReadEnd::Path(broken)) => {
                    printer.drain(&mut queue, &mut run_state)?;
                    let text = name_break(&run_state, &broken);
                    log::error!("source: the path broke: {text}");
                    run_state.notice(text.clone());
                    let state = State::Critical;
                    run_state.set_broken(Some(Broken { state, text }));
                    code = ExitCode::Failed;
                    break 'run;
                }
                Ended::Stopped(ReadEnd::Sink(error))
                    if error.kind() == io::ErrorKind::BrokenPipe =>
                {
                    line.give_up();
                    break 'run; // Whoever read our output has enough: a normal end.
                }
                Ended::Stopped(ReadEnd::Sink(error)) => {
                    log::error!("source: write standard output: {error}");
                    line.give_up();
                    code = ExitCode::Failed;
                    break 'run;
                }
            }
        }
    }
    printer.drain(&mut queue, &mut run_state)?;
    let blocks = origin.progress.blocks();
    run_state.finish(blocks, true);
    latest.close(|| run_state.report(sys::clock::read().wall, blocks, queue.dropped()));
    printer.finish(&run_state, blocks, queue.dropped())?;
    Ok(code)
}

fn spawn(
    name: &str,
    origin: &Arc<Origin>,
    line: &Arc<OpenSession>,
    say: Sender<Ended>,
    pump: impl FnOnce(&Origin, &OpenSession) -> Ended + Send + 'static,
) -> io::Result<()> {
    let (origin, line) = (Arc::clone(origin), Arc::clone(line));
    Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(move || {
            let ended = pump(&origin, &line);
            let _ = say.send(ended); // Nobody listens where the run is over.
            origin.node.collector.wake();
        })?;
    Ok(())
}

fn pump_out(origin: &Origin, line: &OpenSession, block: usize) -> Ended {
    let mut stdin = match raw_stdin() {
        Ok(stdin) => stdin,
        Err(error) => return Ended::Stdin(error),
    };
    let mut writer = BlockWriter::new(origin, line, block);
    loop {
        let read = match stdin.read(writer.payload()) {
            Ok(0) => {
                line.end();
                return Ended::Sent;
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ended::Stdin(error),
        };
        let due = Due::Read(writer.now());
        match writer.send(read, due) {
            Ok(true) => {}
            Ok(false) => return Ended::Sent,
            Err(broken) => return Ended::Unsent(broken),
        }
    }
}

fn pump_back(origin: &Origin, line: &OpenSession) -> Ended {
    let read = raw_stdout()
        .map_err(ReadEnd::Sink)
        .and_then(|mut stdout| origin.read(line, |payload| stdout.write_all(payload)));
    match read {
        Ok(()) => Ended::Received,
        Err(stop) => Ended::Stopped(stop),
    }
}
