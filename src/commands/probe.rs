//! The command `probe`: blocks of its own on a fixed schedule, for cron and for monitoring.
//!
//! `up#1` keeps the schedule, opens sessions and opens them again; `down#1` reads answers; the
//! calling thread collects and prints, so that a slow terminal delays no probe.

use crate::cli::{Common, ExitCode, ProbeConfig};
use crate::collect::run::Run;
use crate::commands::prepare::{
    keys, next_hop, origin, printer, publish, rules, run_state, watching,
};
use crate::commands::reload::{Reload, RuledNode};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::StopFlag;
use crate::origin::{BlockWriter, Due, OpenSession, Origin, PathError, ReadEnd};
use crate::output::{Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::report::{Blocks, Broken, State};
use crate::session::schedule::Schedule;
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::{spawn, LARGE_STACK, STACK};
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::wire::NodeRole;
use crate::FULL;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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
}

impl Plan {
    /// Returns the plan of a command line, in which a count of 0 runs until stopped.
    pub fn new(count: u64, interval: Duration, size: usize, on_timeout: State) -> Self {
        Self {
            count: (count > 0).then_some(count),
            interval,
            size,
            on_timeout,
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

/// The longest pause between two attempts to reach a path that is down.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause of an endless probe whose path ends at an exit of 0.1, whose server sees each attempt.
const UNFIT_PAUSE: Duration = Duration::from_secs(300);
/// Broken flows with a line each.
const MOST_BROKEN: usize = 3;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// An event of the scheduling thread.
#[derive(Debug)]
enum Event {
    /// A session stands: the due time of the first block of all, the time that this session took to
    /// stand, and this end of its connection.
    Opened(MonoTime, Nanos, Option<SocketAddr>),
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
    let standing = Arc::new(Standing::of(flows.len()));
    for (place, origin) in flows.iter().enumerate() {
        let (own, flags) = (Arc::clone(origin), stops.clone());
        let (sender, standing) = (sender.clone(), Arc::clone(&standing));
        let plan = plan.of_flow(place, flows.len());
        let driver = spawn(&format!("up#{}", place + 1), LARGE_STACK, move || {
            let flow = Flow {
                place,
                stops: &flags,
                standing: &standing,
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
            "; {stood} of {flows} flows stand: if a node bounds its connections (--max-connections), \
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
    let state = match cause {
        PathError { unfit: true, .. } => State::Unknown,
        PathError {
            timed_out: true, ..
        } => plan.on_timeout,
        _ => State::Critical,
    };
    Ok(Broken { state, text })
}

/// Runs the scheduling thread: opens sessions, and opens them again after a break, until the
/// schedule is over. A probe of some blocks gives up if its path never stood.
fn drive(origin: &Arc<Origin>, plan: FlowPlan, flow: &Flow<'_>, events: &Sender<(usize, Event)>) {
    sys::precise_timers();
    let start = sys::clock::mono();
    let stop = &flow.stops[flow.place];
    let FlowPlan { plan, offset } = plan;
    let mut driver = Driver {
        origin,
        plan,
        offset,
        stop,
        flow,
        events,
        schedule: Schedule::new(start, plan.interval.into(), plan.count),
        stood: false,
        is_counted: false,
    };
    let mut pause = SHORTEST_PAUSE;
    loop {
        let outcome = driver.session();
        flow.standing.reports(&mut driver.is_counted, flow.stops);
        let Err((mut broken, worked)) = outcome else {
            origin.set_down(false);
            break;
        };
        origin.set_down(true);
        if broken.silent && flow.place == 0 {
            // The flows share their path: one asks for all.
            broken.answering = origin.ask(|| stop.is_set());
        }
        let unfit = broken.unfit;
        let _ = events.send((flow.place, Event::Broken(broken))); // An error means that the run is over.
        origin.node.collector.wake();
        if stop.is_set() || (plan.count.is_some() && !driver.stood) {
            break;
        }
        pause = if unfit {
            UNFIT_PAUSE
        } else if worked {
            SHORTEST_PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        // The wake-up by the reader of the ended session may come only now: it ends no pause.
        let over = sys::clock::mono() + pause.into();
        while sys::clock::mono() < over && !stop.is_set() {
            stop.wait_until(over);
        }
        driver.pass_over(sys::clock::mono());
        if stop.is_set() || driver.schedule.due().is_none() {
            break;
        }
    }
    if let Some(count) = plan.count {
        // Blocks that a broken path kept back were due all the same.
        if !stop.is_set() {
            origin.progress.skip(driver.schedule.left(count));
        }
    }
    let _ = events.send((flow.place, Event::Over));
    origin.node.collector.wake();
}

/// The scheduling thread.
struct Driver<'a> {
    origin: &'a Arc<Origin>,
    plan: Plan,
    /// The time from the first block of all flows to the first of this one.
    offset: Nanos,
    stop: &'a Arc<StopFlag>,
    flow: &'a Flow<'a>,
    events: &'a Sender<(usize, Event)>,
    schedule: Schedule,
    /// The path has stood before: the schedule goes on.
    stood: bool,
    /// The outcome of its first session is counted in [`Standing`].
    is_counted: bool,
}

impl Driver<'_> {
    /// Counts the blocks that were due by `now`, without a session, as unsent.
    fn pass_over(&mut self, now: MonoTime) {
        if self.stood {
            let missed = self.schedule.skip_to(now);
            self.origin.progress.skip(missed);
        }
    }

    /// Runs one session until the plan is done, the path breaks, or the user stops it. The second
    /// value of an error is `true` if the path had worked before.
    fn session(&mut self) -> Result<(), (PathError, bool)> {
        let (origin, plan, stop) = (self.origin, self.plan, self.stop);
        let before = origin.progress.blocks().received;
        let begun = sys::clock::mono();
        let session = Arc::new(origin.open().map_err(|broken| (broken, false))?);
        let worked = |broken| (broken, origin.progress.blocks().received > before);
        let (sender, ended) = channel(1);
        read_in_background(origin, &session, sender, stop)
            .map_err(|error| worked(PathError::own(format!("cannot start a thread: {error}"))))?;
        let mut writer = BlockWriter::new(origin, &session, plan.size);
        fill(writer.payload());
        let mut unsent = await_opened(origin, &session, &ended, stop).err();
        if origin.is_established() {
            self.opened(begun, session.local());
        }
        while let Some(due) = self.schedule.due().filter(|_| unsent.is_none()) {
            while sys::clock::mono() < due && !stop.is_set() && ended.is_empty() {
                stop.wait_until(due);
            }
            if stop.is_set() || !ended.is_empty() {
                break;
            }
            unsent = writer.send(plan.size, Due::At(due)).err();
            self.schedule.sent();
        }
        if unsent.is_none() {
            writer.end();
        }
        wait_for_reader(origin, &session, &ended, unsent).map_err(worked)
    }

    /// Begins the schedule, together with all flows, or passes over what fell due without a session.
    fn opened(&mut self, begun: MonoTime, local: Option<SocketAddr>) {
        let now = sys::clock::mono();
        let took = now.since(begun);
        if self.stood {
            self.pass_over(now);
        } else {
            let standing = self.flow.standing;
            standing.reports(&mut self.is_counted, self.flow.stops);
            let start = standing.wait(self.stop) + Nanos::from_millis(1);
            self.schedule.begin(start + self.offset);
            self.stood = true;
            // A flow that stood later than the others has missed some.
            self.pass_over(now);
        }
        let first = MonoTime(self.schedule.start().0 - self.offset.0);
        let opened = Event::Opened(first, took, local);
        let _ = self.events.send((self.flow.place, opened));
        self.origin.node.collector.wake();
    }
}

/// The place of a flow among all of its probe.
struct Flow<'a> {
    place: usize,
    /// The flags of all flows, in order.
    stops: &'a [Arc<StopFlag>],
    standing: &'a Standing,
}

/// The first sessions of all flows: their common schedule begins once each stands or has failed.
#[derive(Debug)]
struct Standing {
    left: AtomicUsize,
    begun: OnceLock<MonoTime>,
}

impl Standing {
    fn of(flows: usize) -> Self {
        Self {
            left: AtomicUsize::new(flows),
            begun: OnceLock::new(),
        }
    }

    /// Counts the first session of a flow, once; the last flow wakes all others.
    fn reports(&self, is_counted: &mut bool, stops: &[Arc<StopFlag>]) {
        if std::mem::replace(is_counted, true) {
            return;
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = self.begun.set(sys::clock::mono()); // Set once: the last one is one.
            stops.iter().for_each(|stop| stop.wake());
        }
    }

    /// Waits until the first sessions of all flows are counted. Returns the time of that, or now if
    /// the user stops it.
    fn wait(&self, stop: &StopFlag) -> MonoTime {
        loop {
            match self.begun.get() {
                Some(begun) => return *begun,
                None if stop.is_set() => return sys::clock::mono(),
                // Each first session ends within its timeout.
                None => stop.wait(LONGEST_PAUSE),
            }
        }
    }
}

/// The plan of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlowPlan {
    plan: Plan,
    offset: Nanos,
}

/// Waits until the far end has answered the opening, the session has ended, or the user stops it.
fn await_opened(
    origin: &Origin,
    session: &OpenSession,
    ended: &Receiver<Result<(), ReadEnd<()>>>,
    stop: &StopFlag,
) -> Result<(), PathError> {
    let timeout = origin.node.settings.timeout;
    let deadline = sys::clock::mono() + timeout.into();
    while !origin.is_established() && ended.is_empty() && !stop.is_set() {
        if sys::clock::mono() >= deadline {
            return Err(PathError::silence(
                session.peer(),
                format!(
                "no answer to the opening of the path through {} for {} s (--timeout); before a \
                 plain server a node with --remove-perf-headers has to stand",
                session.peer(),
                timeout.as_secs_f64()
            ),
            ));
        }
        stop.wait_until(deadline);
    }
    Ok(())
}

/// Waits for the reader. It ends with the END of the far end, which follows the last answer, or by
/// its own timeout.
fn wait_for_reader(
    origin: &Origin,
    session: &OpenSession,
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
            if !broken.unfit {
                session.give_up();
            }
            Err(broken)
        }
        (Ok(Err(_)), None) => Ok(()),
        (Err(_), None) => {
            session.give_up();
            Err(PathError::silence(
                session.peer(),
                format!(
                    "the far end did not send END within {} s (--timeout)",
                    origin.node.settings.timeout.as_secs_f64()
                ),
            ))
        }
    }
}

fn read_in_background(
    origin: &Arc<Origin>,
    session: &Arc<OpenSession>,
    ended: Sender<Result<(), ReadEnd<()>>>,
    stop: &Arc<StopFlag>,
) -> io::Result<()> {
    let (origin, session, stop) = (Arc::clone(origin), Arc::clone(session), Arc::clone(stop));
    spawn("down#1", STACK, move || {
        let outcome = origin.read(&session, || stop.wake(), |_| Ok(()));
        let _ = ended.send(outcome); // An error means that the session is over.
        stop.wake();
    })?;
    Ok(())
}

/// Fills a payload with bytes that compress badly, so that a compressing tunnel does not shrink it.
fn fill(payload: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in payload {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
}
