//! The source: stdin goes out in marked blocks, the bytes that come back go to stdout, statistics
//! to stderr or `--report FILE`.

use crate::cli::{Common, ExitCode, SourceConfig};
use crate::collect::run::Run;
use crate::commands::prepare::{
    keys, next_hop, origin, printer, publish, rules, run_state, watching,
};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::StopFlag;
use crate::origin::{BlockWriter, Due, OpenSession, Origin, PathError, ReadEnd};
use crate::output::{raw_stdin, raw_stdout, Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::report::{Broken, State};
use crate::sync::channel::{channel, Sender};
use crate::sync::{spawn, STACK};
use crate::wire::NodeRole;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
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
    let rules = rules(common).map_err(|text| Failure::new(ExitCode::Usage, text))?;
    let state = run_state(common, NodeRole::Source, false).map_err(Failure::failed)?;
    let printer = printer(common, Output::Stderr).map_err(Failure::failed)?;
    let next_hop = next_hop(common, &config.forward_to).map_err(Failure::failed)?;
    let keys = keys(common).map_err(Failure::failed)?;
    let (origin, queue) = origin(common, &keys, next_hop);
    let origin = Arc::new(origin);
    let watched = vec![Watched::origin(
        std::slice::from_ref(&origin),
        "source",
        None,
    )];
    let published = publish(common, &keys, watched, true).map_err(Failure::failed)?;
    let state = watching(state, rules, &origin.node);
    signals.report(&origin.node);
    signals.stop(stop, Some(origin.node.collector.clone()));
    notify::ready();
    let run = Run::new(queue, Arc::clone(&origin.node.latest), state, printer);
    let code = carry(&origin, run, config.block, stop);
    let finished = published.finish();
    code.and_then(|code| finished.map(|()| code))
        .map_err(Failure::failed)
}

/// The end of a pump of the source.
enum Ended {
    /// All of stdin was sent, END included.
    Sent,
    /// stdin failed.
    Stdin(io::Error),
    /// The path broke while a block was sent; the reader finds the reason.
    Unsent(PathError),
    /// The reader ended: with the END of the far end, or early.
    Received(Result<(), ReadEnd<io::Error>>),
}

/// Runs the source until stdin and the path have ended.
///
/// # Errors
///
/// [`OutputError`] if the report cannot be written.
fn carry(
    origin: &Arc<Origin>,
    mut run: Run<Printer>,
    block: usize,
    stop: &StopFlag,
) -> Result<ExitCode, OutputError> {
    let session = match origin.open() {
        Ok(session) => Arc::new(session),
        Err(broken) => {
            log::error!("source: {broken}");
            return Ok(ExitCode::Failed);
        }
    };
    let (sender, ended) = channel(2); // Each pump ends once.
    let writer = spawn_pump(
        "up#1",
        origin,
        &session,
        sender.clone(),
        move |origin, session| pump_out(origin, session, block),
    );
    let reader = spawn_pump("down#1", origin, &session, sender, pump_back);
    if let Err(error) = writer.and(reader) {
        log::error!("source: cannot start a thread: {error}");
        return Ok(ExitCode::Failed);
    }
    let mut code = ExitCode::Done;
    let mut deadline = None;
    let sent = || Some(origin.progress.blocks_so_far());
    let collected = run.collect(sent, |run| {
        if stop.is_set() && deadline.is_none() {
            deadline = Some(Instant::now() + origin.node.settings.timeout);
            run.keep_awake();
            session.end();
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            log::error!("source: ended by a signal, but not all answers came within --timeout");
            session.give_up();
            code = ExitCode::Failed;
            return Ok(ControlFlow::Break(()));
        }
        // All that wait: one wake-up may stand for several.
        for event in ended.try_iter() {
            match event {
                Ended::Sent => {}
                Ended::Stdin(error) => {
                    log::error!("source: read standard input: {error}");
                    code = ExitCode::Failed;
                    session.end();
                }
                // The reader finds the last frames of the path, then the same end.
                Ended::Unsent(broken) => log::debug!("source: {broken}"),
                Ended::Received(end) => {
                    if finish_reading(run, &session, end)? == ExitCode::Failed {
                        code = ExitCode::Failed;
                    }
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    if collected.is_err() {
        session.give_up();
    }
    collected?;
    run.drain()?;
    run.finish(origin.progress.blocks(), true)?;
    Ok(code)
}

/// Reports the end of reading, and returns the exit code that it calls for.
fn finish_reading(
    run: &mut Run<Printer>,
    session: &OpenSession,
    end: Result<(), ReadEnd<io::Error>>,
) -> Result<ExitCode, OutputError> {
    match end {
        Ok(()) | Err(ReadEnd::Aborted) => return Ok(ExitCode::Done),
        Err(ReadEnd::Path(broken)) => {
            run.drain()?; // The names of the path may wait there.
            let text = broken.located(run.state.names());
            log::error!("source: the path broke: {text}");
            run.state.notice(text.clone());
            let state = State::Critical;
            run.state.set_broken(Some(Broken { state, text }));
        }
        Err(ReadEnd::Sink(error)) => {
            session.give_up();
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Ok(ExitCode::Done); // The reader of our output is gone: a normal end.
            }
            log::error!("source: write standard output: {error}");
        }
    }
    Ok(ExitCode::Failed)
}

fn spawn_pump(
    name: &str,
    origin: &Arc<Origin>,
    session: &Arc<OpenSession>,
    ended: Sender<Ended>,
    pump: impl FnOnce(&Origin, &OpenSession) -> Ended + Send + 'static,
) -> io::Result<()> {
    let (origin, session) = (Arc::clone(origin), Arc::clone(session));
    spawn(name, STACK, move || {
        let end = pump(&origin, &session);
        let _ = ended.send(end); // An error means that the run is over.
        origin.node.collector.wake();
    })?;
    Ok(())
}

fn pump_out(origin: &Origin, session: &OpenSession, block: usize) -> Ended {
    let mut stdin = match raw_stdin() {
        Ok(stdin) => stdin,
        Err(error) => return Ended::Stdin(error),
    };
    let mut writer = BlockWriter::new(origin, session, block);
    loop {
        let read = match stdin.read(writer.payload()) {
            Ok(0) => {
                writer.end();
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

fn pump_back(origin: &Origin, session: &OpenSession) -> Ended {
    let read = raw_stdout()
        .map_err(ReadEnd::Sink)
        .and_then(|mut stdout| origin.read(session, || (), |payload| stdout.write_all(payload)));
    Ended::Received(read)
}
