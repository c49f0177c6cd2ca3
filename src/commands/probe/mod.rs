//! The command `probe`: blocks of its own on a fixed schedule, for cron and for monitoring.
//!
//! `up#1` keeps the schedule, opens sessions and opens them again; `down#1` reads answers; the
//! calling thread collects and prints, so that a slow terminal delays no probe.

mod flow;

use crate::cli::{Common, ExitCode, ProbeConfig};
use crate::collect::run::Run;
use crate::commands::prepare::{
    keys, next_hop, origin, printer, publish, rules, run_state, watching,
};
use crate::commands::reload::{Reload, RuledNode};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::StopFlag;
use crate::origin::{Origin, PathError};
use crate::output::{Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::remote::script::UNREACHABLE;
use crate::report::{Blocks, Broken, State};
use crate::sync::channel::channel;
use crate::sync::{spawn, LARGE_STACK};
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::wire::NodeRole;
use crate::FULL;
use flow::{drive, Event, FirstSessions, Flow, FlowPlan};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// The schedule and the size of the blocks of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The number of blocks; `None` for a probe that runs until it is stopped.
    pub count: Option<u64>,
    /// The time between two blocks.
    pub interval: Duration,
    /// The payload bytes of each block.
    pub size: usize,
    /// The state of a path that does not answer within `--timeout`.
    pub on_timeout: State,
    /// `true` if a path that falls silent is asked which of its nodes answer, which takes up to two
    /// timeouts more.
    pub asks: bool,
}

impl Plan {
    /// Returns the plan of a command line, in which a count of 0 runs until stopped.
    pub fn new(count: u64, interval: Duration, size: usize, on_timeout: State) -> Self {
        Self {
            count: (count > 0).then_some(count),
            interval,
            size,
            on_timeout,
            asks: true,
        }
    }

    /// Returns the part of the flow `place` of `flows`, which take the blocks in turn.
    fn of_flow(self, place: usize, flows: usize) -> FlowPlan {
        let (place, flows) = (place as u64, flows as u64);
        let count = self.count;
        let count = count.map(|count| count.saturating_sub(place).div_ceil(flows));
        let interval = Nanos::from(self.interval).0;
        FlowPlan {
            plan: Self {
                count,
                interval: Nanos(interval.saturating_mul(flows)).into(),
                ..self
            },
            offset: Nanos(interval.saturating_mul(place)),
        }
    }

    /// Returns the time from the first block to the last.
    fn lasts(self) -> Duration {
        self.count.map_or(Duration::MAX, |count| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.interval.saturating_mul(count)
        })
    }
}

/// Broken flows with a line each.
const MOST_BROKEN: usize = 3;

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
        let line = common
            .format
            .and_then(|format| format.failure(state, &text));
        if let Some(line) = line {
            // A monitoring system reads the reason on stdout. If that fails too, stderr and the
            // exit code remain.
            let _ = Output::Stdout.write(&line);
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
    let plan = Plan::new(
        config.count,
        config.interval,
        config.size,
        config.on_timeout,
    );
    let rules = rules(common).map_err(unknown)?;
    let state = run_state(common, NodeRole::Source, plan.count.is_none()).map_err(unwritable)?;
    let mut printer = printer(common, Output::Stdout).map_err(unwritable)?;
    let next_hop = next_hop(common, &config.target).map_err(|text| (State::Critical, text))?;
    let keys = keys(common).map_err(unknown)?;
    let (origin, queue) = origin(common, &keys, next_hop);
    let flows = origin.probing().split(if FULL { config.flows } else { 1 });
    let origin = &flows[0];
    let state = watching(state, rules, &origin.node);
    let watched = vec![Watched::origin(&flows, "probe", None)];
    let published = publish(common, &keys, watched, plan.count.is_none()).map_err(unknown)?;
    let ruled = Arc::clone(origin);
    let reload = Reload::default().with_keys(common, &keys);
    signals.on_hangup(reload.with_rules(common, move || vec![RuledNode::of(&ruled.node)]));
    signals.report(&origin.node);
    signals.stop(stop, Some(origin.node.collector.clone()));
    if plan.lasts() > Duration::from_secs(1) {
        printer = printer.with_live_line(plan.count);
    }
    if plan.count.is_none() {
        printer = printer.with_screen(origin.node.collector.clone(), stop);
    }
    notify::ready();
    let mut run = Run::new(queue, Arc::clone(&origin.node.latest), state, printer);
    if run.output.has_screen() {
        run.keep_awake();
    }
    let (state, written) = measure(&flows, &mut run, plan, stop);
    // Lines may be read in part (`| head`). A report that was not taken is no result.
    let unread =
        !run.output.has_lines() && written.as_ref().is_err_and(OutputError::is_closed_pipe);
    drop(run); // Restores the terminal before other texts are written to it.
    let written = OutputError::all([written, published.finish()]);
    let state = state_with_output(state, written)?;
    let unknown = unread && state.severity() < State::Unknown.severity();
    Ok(exit_code(if unknown { State::Unknown } else { state }))
}

/// Opens the path once and closes it, without a block.
///
/// # Errors
///
/// [`PathError`], with the hop that noticed it.
pub(super) fn check(
    common: &Common,
    config: &ProbeConfig,
    stop: &Arc<StopFlag>,
) -> Result<(), PathError> {
    let next_hop = next_hop(common, &config.target).map_err(PathError::own)?;
    let keys = keys(common).map_err(PathError::own)?;
    let (origin, _queue) = origin(common, &keys, next_hop);
    flow::check(&Arc::new(origin.probing()), stop)
}

/// Opens the path once and closes it. A failure is in words that `trace --from` reads.
///
/// # Errors
///
/// [`Failure`], with the exit code of the path's state.
pub(super) fn report_unreachable(
    common: &Common,
    config: &ProbeConfig,
    stop: &Arc<StopFlag>,
) -> Result<(), Failure> {
    match check(common, config, stop) {
        Err(error) if !stop.is_set() => {
            let state = broken_state(&error, config.on_timeout);
            let text = format!("{UNREACHABLE}{} {}", error.hop, error.text);
            Err(Failure::new(exit_code(state), text))
        }
        _ => Ok(()),
    }
}

/// Returns the state of a path that is broken for this reason.
pub(super) fn broken_state(cause: &PathError, on_timeout: State) -> State {
    match cause {
        PathError { unfit: true, .. } => State::Unknown,
        PathError {
            timed_out: true, ..
        } => on_timeout,
        _ => State::Critical,
    }
}

/// Returns the state of a path and of its results: results that could not be written are at least
/// unknown. A reader that has closed the pipe is a normal end.
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

/// Returns the exit code for the state of a path.
pub(super) fn exit_code(state: State) -> ExitCode {
    match state {
        State::Ok => ExitCode::ProbeOk,
        State::Warning => ExitCode::ProbeWarning,
        State::Critical => ExitCode::ProbeCritical,
        State::Unknown => ExitCode::ProbeUnknown,
    }
}

/// Runs probes to the end of the plan, or until stopped or a line cannot be written. Returns the
/// state of the path, and apart from it the error of a result that could not be written.
///
/// `flows` are the near ends of all flows of the probe, at least one.
pub fn measure(
    flows: &[Arc<Origin>],
    run: &mut Run<Printer>,
    plan: Plan,
    stop: &Arc<StopFlag>,
) -> (State, Result<(), OutputError>) {
    let written = collect(flows, run, plan, stop);
    let blocks = Blocks::sum(flows.iter().map(|flow| flow.progress.blocks()));
    (run.state.state(blocks), written)
}

fn collect(
    flows: &[Arc<Origin>],
    run: &mut Run<Printer>,
    plan: Plan,
    stop: &Arc<StopFlag>,
) -> Result<(), OutputError> {
    // At most one per session, and sessions are spaced in time.
    let (sender, events) = channel(usize::MAX);
    let clock = sys::clock::read();
    let mut start = clock.mono;
    let scheduled = |start: MonoTime, sequence: u64| {
        let due = start + Nanos(Nanos::from(plan.interval).0.saturating_mul(sequence));
        WallTime(clock.wall.0.wrapping_add(due.0.wrapping_sub(clock.mono.0)))
    };
    // A flag wakes one thread alone: each of several flows has its own.
    let stops: Vec<_> = match flows.len() {
        1 => vec![Arc::clone(stop)],
        _ => flows.iter().map(|_| Arc::default()).collect(),
    };
    if flows.len() > 1 {
        run.state.set_flows(flows.len());
    }
    let first_sessions = Arc::new(FirstSessions::of(flows.len()));
    for (place, origin) in flows.iter().enumerate() {
        let (own, flags) = (Arc::clone(origin), stops.clone());
        let (sender, first_sessions) = (sender.clone(), Arc::clone(&first_sessions));
        let plan = plan.of_flow(place, flows.len());
        let driver = spawn(&format!("up#{}", place + 1), LARGE_STACK, move || {
            let flow = Flow {
                place,
                stops: &flags,
                first_sessions: &first_sessions,
            };
            drive(&own, plan, &flow, &sender);
        });
        if let Err(error) = driver {
            log::error!("probe: cannot start a thread: {error}");
            stops.iter().for_each(|stop| stop.set());
            if place == 0 {
                return Ok(()); // Nothing was measured, which is critical.
            }
            break;
        }
    }
    drop(sender);
    let sent = || {
        Some(Blocks::sum(
            flows.iter().map(|flow| flow.progress.blocks_so_far()),
        ))
    };
    let mut broken: Vec<Option<Broken>> = vec![None; flows.len()];
    let mut running = flows.len();
    run.collect(sent, |run| {
        // All that wait: one wake-up may stand for several.
        let mut flow = ControlFlow::Continue(());
        for (place, event) in events.try_iter() {
            match event {
                Event::Opened(first, took, local) => {
                    start = first;
                    run.state.set_opened(took);
                    run.state.set_flow(place, local);
                    broken[place] = None; // A path heals.
                }
                Event::Broken(cause) => {
                    let stood = flows.iter().filter(|flow| flow.is_established()).count();
                    let place_text = place_text(place, flows.len(), stood, &cause);
                    // Flows break together: some of them stand for the others.
                    let is_shown = broken.iter().flatten().count() < MOST_BROKEN;
                    broken[place] = Some(report_break(run, &cause, plan, &place_text, is_shown)?);
                }
                Event::Over => running -= 1,
            }
            run.state
                .set_broken(broken.iter().flatten().next().cloned());
        }
        if stop.is_set() {
            stops.iter().for_each(|stop| stop.set());
        }
        if running == 0 {
            flow = ControlFlow::Break(());
        }
        Ok(flow)
    })?;
    run.drain()?;
    let blocks = Blocks::sum(flows.iter().map(|flow| flow.progress.blocks()));
    let mut from = 0;
    let next = |from| {
        let open = flows
            .iter()
            .filter_map(|flow| flow.progress.next_unanswered(from));
        open.min()
    };
    while let Some(sequence) = next(from).filter(|_| run.output.has_lines()) {
        run.output
            .lost(&run.state, sequence, scheduled(start, sequence))?;
        from = sequence + 1;
    }
    run.finish(blocks, plan.count.is_some())
}

/// Returns the flow of an error and, if others stand, the likely reason that it does not; empty for
/// a probe of one flow.
fn place_text(place: usize, flows: usize, stood: usize, cause: &PathError) -> (String, String) {
    if flows == 1 {
        return Default::default();
    }
    let remedy = match stood {
        1.. if cause.timed_out => format!(
            "; {stood} of {flows} flows stand: if a node bounds its connections \
             (--max-connections), \
             use --flows {stood}"
        ),
        _ => String::new(),
    };
    (format!("flow {} of {flows}: ", place + 1), remedy)
}

/// Logs a break of the path and adds it to the report.
fn report_break(
    run: &mut Run<Printer>,
    cause: &PathError,
    plan: Plan,
    (flow, remedy): &(String, String),
    is_shown: bool,
) -> Result<Broken, OutputError> {
    run.drain()?; // The names of the path may wait there.
    let text = format!("{flow}{}{remedy}", cause.located(run.state.names()));
    if is_shown {
        log::error!("probe: the path is broken: {text}");
        run.state.notice(text.clone());
    }
    let state = broken_state(cause, plan.on_timeout);
    Ok(Broken { state, text })
}
