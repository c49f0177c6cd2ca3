//! The command `probe --targets FILE`: many paths probed by one process. Each has its own threads
//! and schedule, which begin at different times within the interval, so that not all blocks leave
//! at once.

use crate::cli::targets::{parse_targets, Target};
use crate::cli::{Common, ExitCode, TargetsConfig};
use crate::collect::queue::Queue;
use crate::collect::run::Run;
use crate::collect::run_state::RunState;
use crate::commands::prepare::{keys, origin, publish, rules, run_state_of, state_in, watching};
use crate::commands::probe::{self, exit_code, state_with_output, Plan};
use crate::commands::reload::{check_file, Reload, RuledNode};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::measure::sla::Rule;
use crate::node::dial::NextHop;
use crate::node::link_auth::Keys;
use crate::node::StopFlag;
use crate::origin::Origin;
use crate::output::{Output, OutputError};
use crate::publish::metrics::{self, MetricsEndpoint, Watched};
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::report::paths;
use crate::report::{Report, State};
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::{lock, spawn, LARGE_STACK};
use crate::wire::NodeRole;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Runs the command `probe --targets FILE`: many paths, each with a probe of its own.
///
/// # Errors
///
/// [`Failure`], with the exit code of the worst state of all paths.
pub fn run(common: &Common, config: &TargetsConfig, signals: Signals) -> Result<ExitCode, Failure> {
    let unknown = |text: String| Failure::new(ExitCode::ProbeUnknown, text);
    let unwritable = |error: OutputError| Failure::new(ExitCode::ProbeUnknown, error);
    let targets = read_targets(&config.file).map_err(unknown)?;
    let rules = rules(common).map_err(unknown)?;
    let keys = keys(common).map_err(unknown)?;
    let output = Output::open(common.report.as_deref(), Output::Stdout, false);
    let output = Arc::new(Mutex::new(output.map_err(unwritable)?));
    let (sender, outcomes) = channel(usize::MAX); // One per path.
    let plan = Plan::new(
        config.count,
        config.interval,
        config.size,
        config.on_timeout,
    );
    let all = Arc::new(Paths {
        common: common.clone(),
        keys: keys.clone(),
        plan,
        sender,
        set: Mutex::default(),
    });
    let members = all.members(targets, &rules).map_err(unwritable)?;
    let watched = members.iter().map(Member::watched).collect();
    let published = publish(common, &keys, watched, config.count == 0).map_err(unknown)?;
    lock(&all.set).metrics = published.metrics.clone();
    let stopped = Arc::clone(&all);
    // The threads begin after the signals have their actions: none is missed.
    let reload = reload(common, config, &keys, &all);
    let shown = (Arc::clone(&all), Arc::clone(&output));
    signals.on_report(move || {
        let lines = shown.0.lines();
        if let Err(error) = lock(&shown.1).write(&paths::render(&lines)) {
            log::error!("report: {error}");
        }
    });
    all.start(members)
        .map_err(|error| unknown(format!("start a thread: {error}")))?;
    signals.on_hangup(reload);
    signals.on_first(move || stopped.stop());
    notify::ready();
    let outcomes = all.wait(&outcomes);
    // The state of all is the worst of them.
    let states = outcomes.iter().map(|outcome| outcome.state);
    let state = states.max_by_key(|state| state.severity());
    let lines = outcomes
        .into_iter()
        .map(|outcome| (outcome.name, outcome.report));
    let lines: Vec<_> = lines.collect();
    let written = lock(&output).write(&paths::render(&lines));
    let written = OutputError::all([written, published.finish()]);
    state_with_output(state.unwrap_or(State::Unknown), written)
        .map(exit_code)
        .map_err(|(state, text)| Failure::new(exit_code(state), text))
}

fn read_targets(path: &Path) -> Result<Vec<Target>, String> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {file}: {error}"))?;
    parse_targets(&text).map_err(|error| format!("--targets {file} {error}"))
}

/// Returns the files that are read again.
fn reload(common: &Common, config: &TargetsConfig, keys: &Keys, paths: &Arc<Paths>) -> Reload {
    let (ruled, changed, file) = (Arc::clone(paths), Arc::clone(paths), config.file.clone());
    Reload::default()
        .with_keys(common, keys)
        // Before the rules, which then reach the new ones too.
        .with("--targets", move || {
            check_file(&file)?;
            let targets = read_targets(&file)?;
            // New paths begin with the rules as they are in the file now.
            let rules = rules(&changed.common)?;
            let gone = changed.gone(&targets);
            let members = changed.members(changed.unknown(targets), &rules);
            let members = members.map_err(|error| error.to_string())?;
            let paths = Arc::clone(&changed);
            Ok(Box::new(move || {
                // The new ones first, so that the run is never without a path.
                if let Err(error) = paths.start(members) {
                    log::error!("reload: start a thread: {error}");
                }
                paths.end(&gone);
            }))
        })
        .with_rules(common, move || ruled.nodes())
}

/// The paths that are probed.
struct Paths {
    common: Common,
    keys: Keys,
    plan: Plan,
    /// `None` for a path whose thread panicked.
    sender: Sender<Option<TargetOutcome>>,
    set: Mutex<Set>,
}

/// The paths under way, in the order of their beginning.
#[derive(Default)]
struct Set {
    running: Vec<Running>,
    /// The number of paths whose outcome is due.
    due: usize,
    /// The run is over: no path begins.
    closed: bool,
    metrics: Option<Arc<MetricsEndpoint>>,
}

struct Running {
    target: Target,
    origin: Arc<Origin>,
    watched: Arc<Watched>,
    stop: Arc<StopFlag>,
}

impl Running {
    fn end(&self) {
        self.stop.set();
        self.origin.node.collector.wake();
    }
}

/// One of the paths, before its first block.
struct Member {
    target: Target,
    /// Its near end.
    origin: Arc<Origin>,
    /// Its measurements.
    queue: Queue,
    /// Its figures.
    state: RunState,
    /// Ends the run of this path; each path has its own, as it wakes only one thread.
    stop: Arc<StopFlag>,
}

impl Member {
    fn watched(&self) -> Watched {
        Watched::origin(
            std::slice::from_ref(&self.origin),
            "probe",
            Some(self.target.name.clone()),
        )
    }
}

/// The outcome of the probe of one path.
#[derive(Clone, Debug)]
struct TargetOutcome {
    /// The name of the path.
    name: String,
    /// The state of the path.
    state: State,
    /// Its last report; `None` if the probe never began.
    report: Option<Arc<Report>>,
}

impl Paths {
    /// Prepares the probes of `targets`.
    fn members(&self, targets: Vec<Target>, rules: &[Rule]) -> Result<Vec<Member>, OutputError> {
        let common = &self.common;
        let mut members = Vec::new();
        for target in targets {
            // A name that cannot be resolved fails this path only, and is tried again.
            let host = target.address.host.as_deref().unwrap_or_default();
            let next_hop = NextHop::unresolved(host, target.address.port);
            let next_hop = next_hop.with_socket(&common.socket);
            let file = common.state.as_deref();
            let file = file.map(|directory| state_in(directory, &target.name));
            let endless = self.plan.count.is_none();
            let state = run_state_of(common, NodeRole::Source, endless, file)?;
            let (origin, queue) = origin(common, &self.keys, next_hop);
            let origin = Arc::new(origin.probing());
            let state = watching(state, rules.to_vec(), &origin.node);
            members.push(Member {
                target,
                origin,
                queue,
                state,
                stop: Arc::default(),
            });
        }
        Ok(members)
    }

    /// Starts probes, spread over one interval.
    ///
    /// # Errors
    ///
    /// As clone(2), if a thread cannot be started; all probes are stopped then.
    fn start(self: &Arc<Self>, members: Vec<Member>) -> io::Result<()> {
        let mut set = lock(&self.set);
        let count = members.len();
        for (place, member) in members.into_iter().enumerate() {
            if set.closed {
                break;
            }
            let running = Running {
                target: member.target.clone(),
                origin: Arc::clone(&member.origin),
                watched: Arc::new(member.watched()),
                stop: Arc::clone(&member.stop),
            };
            let (plan, sender) = (self.plan, self.sender.clone());
            let offset = offset(plan.interval, place, count);
            let name = format!("path#{}", set.running.len());
            let started = spawn(&name, LARGE_STACK, move || {
                let probe = AssertUnwindSafe(|| probe_one(member, plan, offset));
                // The panic of a thread has been reported on stderr; it is counted all the same.
                let outcome = catch_unwind(probe).ok();
                let _ = sender.send(outcome); // An error means that the run is over.
            });
            if let Err(error) = started {
                set.running.iter().for_each(Running::end);
                return Err(error);
            }
            set.due += 1;
            set.running.push(running);
        }
        Ok(())
    }

    /// Returns those of `targets` that are not probed yet.
    fn unknown(&self, targets: Vec<Target>) -> Vec<Target> {
        let set = lock(&self.set);
        let is_new = |target: &Target| !set.running.iter().any(|one| one.target == *target);
        targets.into_iter().filter(is_new).collect()
    }

    /// Returns the paths that are not in `targets`.
    fn gone(&self, targets: &[Target]) -> Vec<Target> {
        let set = lock(&self.set);
        let known = set.running.iter().map(|one| one.target.clone());
        known.filter(|target| !targets.contains(target)).collect()
    }

    /// Ends the probes of `targets`, which leave the report, and shows the others.
    fn end(&self, targets: &[Target]) {
        let mut set = lock(&self.set);
        for one in set
            .running
            .iter()
            .filter(|one| targets.contains(&one.target))
        {
            one.end();
        }
        set.running.retain(|one| !targets.contains(&one.target));
        set.publish();
    }

    /// Ends all probes.
    fn stop(&self) {
        let mut set = lock(&self.set);
        set.closed = true;
        set.running.iter().for_each(Running::end);
    }

    /// Returns the nodes that watch rules.
    fn nodes(&self) -> Vec<RuledNode> {
        let set = lock(&self.set);
        let nodes = set
            .running
            .iter()
            .map(|one| RuledNode::of(&one.origin.node));
        nodes.collect()
    }

    /// Returns the name and a report of each path at this moment.
    fn lines(&self) -> Vec<(String, Option<Arc<Report>>)> {
        let (names, watched): (Vec<_>, Vec<_>) = {
            let set = lock(&self.set);
            let both = set.running.iter();
            both.map(|one| (one.target.name.clone(), Arc::clone(&one.watched)))
                .unzip()
        };
        names.into_iter().zip(metrics::reports(&watched)).collect()
    }

    /// Waits until no probe is under way. Returns the outcomes of those that are in the report, in
    /// its order.
    fn wait(&self, outcomes: &Receiver<Option<TargetOutcome>>) -> Vec<TargetOutcome> {
        let mut all: Vec<TargetOutcome> = Vec::new();
        loop {
            let mut set = lock(&self.set);
            if set.due == 0 {
                set.closed = true;
                let named = |one: &Running| {
                    let same = |outcome: &&TargetOutcome| outcome.name == one.target.name;
                    // A name that moved to another address: its latest outcome.
                    all.iter().rev().find(same).cloned()
                };
                return set.running.iter().filter_map(named).collect();
            }
            drop(set);
            // Cannot fail: a sender lives here.
            all.extend(outcomes.recv().ok().flatten());
            lock(&self.set).due -= 1;
        }
    }
}

impl Set {
    /// Shows the paths under way in the metrics.
    fn publish(&self) {
        if let Some(metrics) = &self.metrics {
            let watched = self.running.iter().map(|one| Arc::clone(&one.watched));
            metrics.set(watched.collect());
        }
    }
}

/// Returns the time within the interval at which a path begins.
fn offset(interval: Duration, place: usize, count: usize) -> Duration {
    interval.mul_f64(place as f64 / count as f64)
}

fn probe_one(member: Member, plan: Plan, offset: Duration) -> TargetOutcome {
    let Member {
        target,
        origin,
        queue,
        state: run_state,
        stop,
    } = member;
    let name = target.name;
    let latest = Arc::clone(&origin.node.latest);
    latest.keep_last();
    if !offset.is_zero() {
        stop.wait(offset);
    }
    let mut state = State::Critical; // Of a path without measurements.
    if !stop.is_set() {
        let mut run = Run::new(queue, Arc::clone(&latest), run_state, Printer::silent());
        let written;
        (state, written) = probe::measure(&[origin], &mut run, plan, &stop);
        if let Err(error) = written {
            log::error!("{name}: {error}");
        }
    }
    TargetOutcome {
        name,
        state,
        report: latest.newest(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_spread_over_one_interval() {
        let interval = Duration::from_secs(10);
        let offsets: Vec<_> = (0..500).map(|place| offset(interval, place, 500)).collect();
        assert_eq!(offsets[0], Duration::ZERO);
        for pair in offsets.windows(2) {
            let apart = pair[1] - pair[0];
            assert!(apart > Duration::from_millis(19) && apart < Duration::from_millis(21));
        }
        assert!(offsets[499] < interval);
    }
}
