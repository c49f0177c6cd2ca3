//! One flow of a probe: its thread keeps the schedule, opens sessions and opens them again.

use super::Plan;
use crate::node::StopFlag;
use crate::origin::{BlockWriter, Due, OpenSession, Origin, PathError, ReadEnd};
use crate::session::schedule::Schedule;
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::{spawn, STACK};
use crate::sys;
use crate::time::{MonoTime, Nanos};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest pause between two attempts to reach a path that is down.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause of an endless probe whose path ends at an exit of 0.1, whose server sees each attempt.
const UNFIT_PAUSE: Duration = Duration::from_secs(300);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// An event of the scheduling thread.
#[derive(Debug)]
pub(super) enum Event {
    /// A session is established. The values are the first block's due time in the whole run, the
    /// time that this session took, and its local address.
    Opened(MonoTime, Nanos, Option<SocketAddr>),
    /// A session broke.
    Broken(PathError),
    /// The run is over.
    Over,
}

/// Runs the scheduling thread: opens sessions, and opens them again after a break, until the
/// schedule is over. A probe of some blocks gives up if its path never stood.
pub(super) fn drive(
    origin: &Arc<Origin>,
    plan: FlowPlan,
    flow: &Flow<'_>,
    events: &Sender<(usize, Event)>,
) {
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
        flow.first_sessions
            .reports(&mut driver.is_counted, flow.stops);
        let Err((mut broken, worked)) = outcome else {
            origin.set_down(false);
            break;
        };
        origin.set_down(true);
        if broken.silent && plan.asks && flow.place == 0 {
            // The flows share their path: one asks for all.
            broken.answering = origin.ask(|| stop.is_set());
        }
        let unfit = broken.unfit;
        // An error means that the run is over.
        let _ = events.send((flow.place, Event::Broken(broken)));
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

/// Opens a session, waits until the far end has answered, and ends it.
pub(super) fn check(origin: &Arc<Origin>, stop: &Arc<StopFlag>) -> Result<(), PathError> {
    let session = Arc::new(origin.open()?);
    let (sender, ended) = channel(1);
    read_in_background(origin, &session, sender, stop)
        .map_err(|error| PathError::own(format!("cannot start a thread: {error}")))?;
    let unsent = await_opened(origin, &session, &ended, stop).err();
    if unsent.is_none() {
        BlockWriter::new(origin, &session, 0).end();
    }
    wait_for_reader(origin, &session, &ended, unsent)
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
    /// The outcome of its first session is counted in [`FirstSessions`].
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

    /// Begins the schedule, together with all flows, or passes over what fell due without a
    /// session.
    fn opened(&mut self, begun: MonoTime, local: Option<SocketAddr>) {
        let now = sys::clock::mono();
        let took = now.since(begun);
        if self.stood {
            self.pass_over(now);
        } else {
            let first_sessions = self.flow.first_sessions;
            first_sessions.reports(&mut self.is_counted, self.flow.stops);
            let start = first_sessions.wait(self.stop) + Nanos::from_millis(1);
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
pub(super) struct Flow<'a> {
    pub(super) place: usize,
    /// The flags of all flows, in order.
    pub(super) stops: &'a [Arc<StopFlag>],
    pub(super) first_sessions: &'a FirstSessions,
}

/// The first sessions of all flows: their common schedule begins once each stands or has failed.
#[derive(Debug)]
pub(super) struct FirstSessions {
    left: AtomicUsize,
    begun: OnceLock<MonoTime>,
}

impl FirstSessions {
    pub(super) fn of(flows: usize) -> Self {
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
pub(super) struct FlowPlan {
    pub(super) plan: Plan,
    pub(super) offset: Nanos,
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
