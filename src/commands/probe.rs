//! The probe: blocks of its own on a fixed schedule, for cron and for monitoring.
//!
//! `up#1` keeps the schedule, opens sessions and opens them again; `down#1` reads answers; the calling thread collects
//! and prints, so that a slow terminal delays no probe.

use crate::cli::{Common, ExitCode, Format, ProbeConfig};
use crate::collect::queue::Queue;
use crate::collect::run_state::RunState;
use crate::commands::prepare::{next_hop, origin, printer, publish, rules, run_state, watching};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::StopFlag;
use crate::origin::session::{BlockWriter, Due, OpenSession, Origin, PathError, ReadEnd};
use crate::output::{Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::{name_break, Printer};
use crate::report::{nagios, Broken, State};
use crate::session::schedule::Schedule;
use crate::sync::STACK;
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::wire::NodeRole;
use crate::FULL;
use crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `None` until stopped.
    pub count: Option<u64>,
    /// Between two blocks.
    pub interval: Duration,
    /// Payload bytes.
    pub size: usize,
    /// What a path is called that does not answer within `--timeout`.
    pub on_timeout: State,
}

impl Plan {
    /// The plan of a command line, where a count of 0 runs until stopped.
    pub fn new(count: u64, interval: Duration, size: usize, on_timeout: State) -> Self {
        Self {
            count: (count > 0).then_some(count),
            interval,
            size,
            on_timeout,
        }
    }
}

/// Longest pause between two attempts to reach a path that is down.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What happened to the run.
#[derive(Debug)]
enum Event {
    /// A session broke.
    Broken(PathError),
    /// The run is over.
    Over,
}

/// Runs the command `probe`.
///
/// # Errors
///
/// [`Failure`], with the exit code of the path's state.
pub fn run(
    common: &Common,
    config: &ProbeConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> Result<ExitCode, Failure> {
    probe(common, config, signals, stop).map_err(|(state, text)| {
        if FULL && common.format == Some(Format::Nagios) {
            // The reader of a plugin's stdout finds the reason there. Where even that fails, stderr and the exit code
            // remain.
            let _ = Output::Stdout.write(&nagios::failure(state, &text));
        }
        Failure::new(exit_code(state), text)
    })
}

fn probe(
    common: &Common,
    config: &ProbeConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> Result<ExitCode, (State, String)> {
    let unknown = |text: String| (State::Unknown, text);
    let unwritable = |error: OutputError| (State::Unknown, error.to_string());
    let count = (config.count > 0).then_some(config.count);
    let rules = rules(common).map_err(unknown)?;
    let run_state = run_state(common, NodeRole::Source, count.is_none()).map_err(unwritable)?;
    let mut printer = printer(common, Output::Stdout).map_err(unwritable)?;
    let next_hop = next_hop(common, &config.target).map_err(|text| (State::Critical, text))?;
    let (origin, queue) = origin(common, next_hop).map_err(unknown)?;
    let origin = Arc::new(origin.probing());
    let mut run_state = watching(run_state, rules, &origin.node);
    let watched = vec![Watched::origin(&origin, "probe", None)];
    let published = publish(common, watched, count.is_none()).map_err(unknown)?;
    signals.stop(stop, Some(origin.node.collector.clone()));
    let lasts = count.map_or(Duration::MAX, |count| {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        config.interval.saturating_mul(count)
    });
    if lasts > Duration::from_secs(1) {
        printer = printer.with_live_line(count);
    }
    if count.is_none() {
        printer = printer.with_screen(origin.node.collector.clone(), stop);
    }
    notify::ready();
    let plan = Plan::new(
        config.count,
        config.interval,
        config.size,
        config.on_timeout,
    );
    let (state, written) = measure(&origin, queue, &mut run_state, plan, &mut printer, stop);
    drop(printer); // Gives a terminal back before anything is written to it.
    let written = OutputError::all([written, published.finish()]);
    state_with_output(state, written).map(exit_code)
}

/// The state of a path together with results that could not be written: those are unknown to whoever reads them, which
/// hides no worse state. A reader that has closed the pipe has enough.
pub(super) fn state_with_output(
    state: State,
    written: Result<(), OutputError>,
) -> Result<State, (State, String)> {
    match written {
        Err(error) if !error.is_closed_pipe() => {
            let worse = [state, State::Unknown].into_iter();
            let worse = worse.max_by_key(|state| state.severity());
            Err((worse.unwrap_or(state), error.to_string()))
        }
        _ => Ok(state),
    }
}

/// The exit code for the state of a path.
pub(super) fn exit_code(state: State) -> ExitCode {
    match state {
        State::Ok => ExitCode::ProbeOk,
        State::Warning => ExitCode::ProbeWarning,
        State::Critical => ExitCode::ProbeCritical,
        State::Unknown => ExitCode::ProbeUnknown,
    }
}

/// Runs probes to the end of the plan, or until stopped or a line cannot be written. Returns the state of the path, and
/// apart from it the error of a result that could not be written.
pub fn measure(
    origin: &Arc<Origin>,
    queue: Queue,
    run_state: &mut RunState,
    plan: Plan,
    printer: &mut Printer,
    stop: &Arc<StopFlag>,
) -> (State, Result<(), OutputError>) {
    let written = collect(origin, queue, run_state, plan, printer, stop);
    (run_state.state(origin.progress.blocks()), written)
}

fn collect(
    origin: &Arc<Origin>,
    mut queue: Queue,
    run_state: &mut RunState,
    plan: Plan,
    printer: &mut Printer,
    stop: &Arc<StopFlag>,
) -> Result<(), OutputError> {
    let latest = &origin.node.latest;
    latest.open();
    let (say, events) = unbounded(); // At most one per session, and sessions are spaced in time.
    let start = sys::clock::mono() + Nanos::from_millis(1);
    let clock = sys::clock::read();
    let scheduled = |sequence: u64| {
        let due = start + Nanos(Nanos::from(plan.interval).0.saturating_mul(sequence));
        WallTime(clock.wall.0.wrapping_add(due.0.wrapping_sub(clock.mono.0)))
    };
    let driver = {
        let (origin, stop) = (Arc::clone(origin), Arc::clone(stop));
        Builder::new()
            .name("up#1".into())
            .spawn(move || drive(&origin, plan, start, &stop, &say))
    };
    let mut broken = None;
    if printer.has_screen() {
        queue.keep_awake();
    }
    if let Err(error) = driver {
        log::error!("probe: cannot start a thread: {error}");
        return Ok(()); // Nothing was measured, which is critical.
    }
    loop {
        let mut fault = None;
        queue.batch(|measurement| {
            if let Err(error) = printer.take(run_state, measurement) {
                fault = Some(error);
            }
        });
        if let Some(fault) = fault {
            return Err(fault);
        }
        let blocks = origin.progress.blocks_so_far();
        run_state.counts(blocks);
        printer.tick(run_state, blocks);
        printer.tick_page(run_state, blocks, queue.dropped());
        latest.answer(|pictures| run_state.look(blocks, queue.dropped(), pictures));
        // All that there are: one knock may stand for several.
        let mut over = false;
        for event in events.try_iter() {
            match event {
                Event::Broken(cause) => {
                    printer.drain(&mut queue, run_state)?;
                    let text = name_break(run_state, &cause);
                    log::error!("probe: the path is broken: {text}");
                    run_state.notice(text.clone());
                    let state = if cause.timed_out {
                        plan.on_timeout
                    } else {
                        State::Critical
                    };
                    broken = Some(Broken { state, text });
                }
                Event::Over => over = true,
            }
        }
        if over {
            break;
        }
    }
    printer.drain(&mut queue, run_state)?;
    let blocks = origin.progress.blocks();
    let mut from = 0;
    while let Some(sequence) = origin
        .progress
        .next_unanswered(from)
        .filter(|_| printer.has_lines())
    {
        printer.lost(run_state, sequence, scheduled(sequence))?;
        from = sequence + 1;
    }
    if plan.count.is_none() && !origin.is_down() {
        broken = None; // A run without end heals.
    }
    run_state.set_broken(broken);
    run_state.finish(blocks, plan.count.is_some());
    latest.close(|| run_state.report(sys::clock::read().wall, blocks, queue.dropped()));
    printer.finish(run_state, blocks, queue.dropped())
}

/// The whole run, on the scheduling thread.
fn drive(
    origin: &Arc<Origin>,
    plan: Plan,
    start: MonoTime,
    stop: &Arc<StopFlag>,
    say: &Sender<Event>,
) {
    sys::precise_timers();
    let mut schedule = Schedule::new(start, plan.interval.into(), plan.count);
    let mut pause = SHORTEST_PAUSE;
    loop {
        match session(origin, plan, &mut schedule, stop) {
            Ok(()) => {
                origin.set_down(false);
                break;
            }
            Err((broken, heard)) => {
                origin.set_down(true);
                let _ = say.send(Event::Broken(broken)); // The run is over where nobody listens.
                origin.node.collector.wake();
                if plan.count.is_some() || stop.is_set() {
                    break;
                }
                pause = if heard {
                    SHORTEST_PAUSE
                } else {
                    (pause * 2).min(LONGEST_PAUSE)
                };
                // The reader's knock at the end of its session may come only now: it ends no pause.
                let over = sys::clock::mono() + pause.into();
                while sys::clock::mono() < over && !stop.is_set() {
                    stop.wait_until(over);
                }
                let missed = schedule.skip_to(sys::clock::mono());
                origin.progress.skip(missed);
                if stop.is_set() {
                    break;
                }
            }
        }
    }
    if let Some(count) = plan.count {
        // What a broken path kept from being sent was due all the same.
        if !stop.is_set() {
            origin.progress.skip(schedule.left(count));
        }
    }
    let _ = say.send(Event::Over);
    origin.node.collector.wake();
}

/// One session: until the plan is done, the path breaks, or the user stops it. The second value of an error tells
/// whether the path had worked before.
fn session(
    origin: &Arc<Origin>,
    plan: Plan,
    schedule: &mut Schedule,
    stop: &Arc<StopFlag>,
) -> Result<(), (PathError, bool)> {
    let before = origin.progress.blocks().received;
    let line = Arc::new(origin.open().map_err(|broken| (broken, false))?);
    let heard = |broken| (broken, origin.progress.blocks().received > before);
    let (say, ended) = bounded(1);
    read_in_background(origin, &line, say, stop)
        .map_err(|error| heard(PathError::own(format!("cannot start a thread: {error}"))))?;
    let mut writer = BlockWriter::new(origin, &line, plan.size);
    fill(writer.payload());
    let mut unsent = None;
    while let Some(due) = schedule.due() {
        while sys::clock::mono() < due && !stop.is_set() && ended.is_empty() {
            stop.wait_until(due);
        }
        if stop.is_set() || !ended.is_empty() {
            break;
        }
        match writer.send(plan.size, Due::At(due)) {
            Ok(_) => schedule.sent(),
            Err(broken) => {
                schedule.sent();
                unsent = Some(broken);
                break;
            }
        }
    }
    if unsent.is_none() {
        line.end();
    }
    wait_for_reader(origin, &line, &ended, unsent).map_err(heard)
}

/// The reader ends by itself: with the far end's END, which follows the last answer, or by its own timeout.
fn wait_for_reader(
    origin: &Origin,
    line: &OpenSession,
    ended: &Receiver<Result<(), ReadEnd<()>>>,
    unsent: Option<PathError>,
) -> Result<(), PathError> {
    let patience = origin.node.settings.timeout + Duration::from_secs(1);
    let mut received = origin.progress.blocks().received;
    let outcome = loop {
        let outcome = ended.recv_timeout(patience);
        let now = origin.progress.blocks().received;
        if outcome.is_ok() || now == received {
            break outcome;
        }
        received = now; // Answers still come.
    };
    match (outcome, unsent) {
        (Ok(Ok(())), None) => Ok(()),
        (Ok(Err(ReadEnd::Path(broken))), _) | (_, Some(broken)) => {
            line.give_up();
            Err(broken)
        }
        (Ok(Err(_)), None) => Ok(()),
        (Err(_), None) => {
            line.give_up();
            Err(PathError::silence(format!(
                "the far end did not say END within {} s (--timeout)",
                origin.node.settings.timeout.as_secs_f64()
            )))
        }
    }
}

fn read_in_background(
    origin: &Arc<Origin>,
    line: &Arc<OpenSession>,
    say: Sender<Result<(), ReadEnd<()>>>,
    stop: &Arc<StopFlag>,
) -> io::Result<()> {
    let (origin, line, stop) = (Arc::clone(origin), Arc::clone(line), Arc::clone(stop));
    Builder::new()
        .name("down#1".into())
        .stack_size(STACK)
        .spawn(move || {
            let outcome = origin.read(&line, |_| Ok(()));
            let _ = say.send(outcome); // The session is over where nobody listens.
            stop.wake();
        })?;
    Ok(())
}

/// A payload that compresses badly, so that a compressing tunnel does not make it smaller than it is.
fn fill(payload: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in payload {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
}
