//! The source: stdin goes out in marked blocks, what comes back goes to stdout byte for byte, statistics to stderr or
//! `--report FILE`.

use crate::cli::{Common, ExitCode, SourceConfig};
use crate::collect::queue::Queue;
use crate::collect::run_state::Ledger;
use crate::commands::prepare::{caller, ledger, onward, printer, publish, rules, watching};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::StopFlag;
use crate::origin::session::{BlockWriter, Break, Caller, Due, Line, Stop};
use crate::output::{raw_stdin, raw_stdout, Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::{name_break, Printer};
use crate::report::{Broken, State};
use crate::sync::STACK;
use crate::sys;
use crate::wire::Role;
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
    let ledger = ledger(common, Role::Source, false).map_err(unwritable)?;
    let printer = printer(common, Output::Stderr).map_err(unwritable)?;
    let onward = onward(common, &config.forward_to).map_err(failed)?;
    let (caller, queue) = caller(common, onward).map_err(failed)?;
    let caller = Arc::new(caller);
    let watched = vec![Watched::caller(&caller, "source", None)];
    let published = publish(common, watched, true).map_err(failed)?;
    let ledger = watching(ledger, rules, &caller.node);
    signals.stop(stop, Some(caller.node.collector.clone()));
    notify::ready();
    let code = carry(&caller, queue, ledger, config.block, printer, stop);
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
    Unsent(Break),
    /// Everything came back, END included.
    Received,
    /// The reader stopped early.
    Stopped(Stop<io::Error>),
}

/// Runs the source until stdin and the path have ended.
///
/// # Errors
///
/// [`OutputError`] where the report cannot be written.
fn carry(
    caller: &Arc<Caller>,
    mut queue: Queue,
    ledger: Ledger,
    block: usize,
    mut printer: Printer,
    stop: &StopFlag,
) -> Result<ExitCode, OutputError> {
    let mut ledger = ledger;
    let line = match caller.open() {
        Ok(line) => Arc::new(line),
        Err(broken) => {
            log::error!("source: {broken}");
            return Ok(ExitCode::Failed);
        }
    };
    let (say, ended) = bounded(2); // Each pump ends once.
    let writer = spawn("up#1", caller, &line, say.clone(), move |caller, line| {
        pump_out(caller, line, block)
    });
    let reader = spawn("down#1", caller, &line, say, pump_back);
    if let Err(error) = writer.and(reader) {
        log::error!("source: cannot start a thread: {error}");
        return Ok(ExitCode::Failed);
    }
    let board = &caller.node.board;
    board.open();
    let mut code = ExitCode::Done;
    let mut deadline = None;
    'run: loop {
        let mut fault = None;
        queue.batch(|measurement| {
            if let Err(error) = printer.take(&mut ledger, measurement) {
                fault = Some(error);
            }
        });
        if let Some(fault) = fault {
            line.give_up();
            return Err(fault);
        }
        let blocks = caller.progress.blocks_so_far();
        ledger.counts(blocks);
        printer.tick_page(&ledger, blocks, queue.dropped());
        board.answer(|pictures| ledger.look(blocks, queue.dropped(), pictures));
        if stop.is_set() && deadline.is_none() {
            deadline = Some(Instant::now() + caller.node.settings.timeout);
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
                Ended::Stopped(Stop::Aborted) => break 'run,
                Ended::Stopped(Stop::Path(broken)) => {
                    printer.drain(&mut queue, &mut ledger)?;
                    let text = name_break(&ledger, &broken);
                    log::error!("source: the path broke: {text}");
                    ledger.notice(text.clone());
                    let state = State::Critical;
                    ledger.set_broken(Some(Broken { state, text }));
                    code = ExitCode::Failed;
                    break 'run;
                }
                Ended::Stopped(Stop::Sink(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    line.give_up();
                    break 'run; // Whoever read our output has enough: a normal end.
                }
                Ended::Stopped(Stop::Sink(error)) => {
                    log::error!("source: write standard output: {error}");
                    line.give_up();
                    code = ExitCode::Failed;
                    break 'run;
                }
            }
        }
    }
    printer.drain(&mut queue, &mut ledger)?;
    let blocks = caller.progress.blocks();
    ledger.finish(blocks, true);
    board.close(|| ledger.report(sys::clock::read().wall, blocks, queue.dropped()));
    printer.finish(&ledger, blocks, queue.dropped())?;
    Ok(code)
}

fn spawn(
    name: &str,
    caller: &Arc<Caller>,
    line: &Arc<Line>,
    say: Sender<Ended>,
    pump: impl FnOnce(&Caller, &Line) -> Ended + Send + 'static,
) -> io::Result<()> {
    let (caller, line) = (Arc::clone(caller), Arc::clone(line));
    Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(move || {
            let ended = pump(&caller, &line);
            let _ = say.send(ended); // Nobody listens where the run is over.
            caller.node.collector.wake();
        })?;
    Ok(())
}

fn pump_out(caller: &Caller, line: &Line, block: usize) -> Ended {
    let mut stdin = match raw_stdin() {
        Ok(stdin) => stdin,
        Err(error) => return Ended::Stdin(error),
    };
    let mut writer = BlockWriter::new(caller, line, block);
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

fn pump_back(caller: &Caller, line: &Line) -> Ended {
    let read = raw_stdout()
        .map_err(Stop::Sink)
        .and_then(|mut stdout| caller.read(line, |payload| stdout.write_all(payload)));
    match read {
        Ok(()) => Ended::Received,
        Err(stop) => Ended::Stopped(stop),
    }
}
