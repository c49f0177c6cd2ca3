//! The command `probe --targets FILE`: many paths probed by one process. Each has its own threads
//! and schedule, which begin at different times within the interval, so that not all blocks leave
//! at once.

use crate::cli::targets::parse_targets;
use crate::cli::{Common, ExitCode, TargetsConfig};
use crate::collect::queue::Queue;
use crate::collect::run::Run;
use crate::collect::run_state::RunState;
use crate::commands::prepare::{origin, publish, rules, run_state_of, state_in, watching};
use crate::commands::probe::{self, exit_code, state_with_output, Plan};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::dial::NextHop;
use crate::node::StopFlag;
use crate::origin::Origin;
use crate::output::{Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::report::paths;
use crate::report::{Report, State};
use crate::sync::channel::channel;
use crate::sync::{spawn, LARGE_STACK};
use crate::wire::NodeRole;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Runs the command `probe --targets FILE`: many paths, each with a probe of its own.
///
/// # Errors
///
/// [`Failure`], with the exit code of the worst state of all paths.
pub fn run(common: &Common, config: &TargetsConfig, signals: Signals) -> Result<ExitCode, Failure> {
    let unknown = |text: String| Failure::new(ExitCode::ProbeUnknown, text);
    let unwritable = |error: OutputError| Failure::new(ExitCode::ProbeUnknown, error);
    let file = config.file.display();
    let text = std::fs::read_to_string(&config.file)
        .map_err(|error| unknown(format!("read {file}: {error}")))?;
    let targets =
        parse_targets(&text).map_err(|error| unknown(format!("--targets {file} {error}")))?;
    let rules = rules(common).map_err(unknown)?;
    let endless = config.count == 0;
    let mut output =
        Output::open(common.report.as_deref(), Output::Stdout, false).map_err(unwritable)?;
    let (mut members, mut watched) = (Vec::new(), Vec::new());
    for target in targets {
        // A name that cannot be resolved fails this path only, and is tried again.
        let host = target.address.host.as_deref().unwrap_or_default();
        let next_hop = NextHop::unresolved(host, target.address.port);
        let next_hop = next_hop.with_socket(&common.socket);
        let file = common.state.as_deref();
        let file = file.map(|directory| state_in(directory, &target.name));
        let state = run_state_of(common, NodeRole::Source, endless, file).map_err(unwritable)?;
        let (origin, queue) = origin(common, next_hop).map_err(unknown)?;
        let origin = Arc::new(origin.probing());
        let state = watching(state, rules.clone(), &origin.node);
        let path = Some(target.name.clone());
        watched.push(Watched::origin(
            std::slice::from_ref(&origin),
            "probe",
            path,
        ));
        members.push(Member {
            name: target.name,
            origin,
            queue,
            state,
            stop: Arc::default(),
        });
    }
    let published = publish(common, watched, endless).map_err(unknown)?;
    let to_stop = members.iter().map(|member| {
        (
            Arc::clone(&member.stop),
            member.origin.node.collector.clone(),
        )
    });
    let to_stop: Vec<_> = to_stop.collect();
    signals.on_first(move || {
        for (stop, collector) in to_stop {
            stop.set();
            collector.wake();
        }
    });
    notify::ready();
    let plan = Plan::new(
        config.count,
        config.interval,
        config.size,
        config.on_timeout,
    );
    let outcomes =
        probe_all(members, plan).map_err(|error| unknown(format!("start a thread: {error}")))?;
    // The state of all is the worst of them.
    let states = outcomes.iter().map(|outcome| outcome.state);
    let state = states.max_by_key(|state| state.severity());
    let lines = outcomes
        .into_iter()
        .map(|outcome| (outcome.name, outcome.report));
    let lines: Vec<_> = lines.collect();
    let written = OutputError::all([output.write(&paths::render(&lines)), published.finish()]);
    state_with_output(state.unwrap_or(State::Unknown), written)
        .map(exit_code)
        .map_err(|(state, text)| Failure::new(exit_code(state), text))
}

/// One of the paths, before its first block.
pub struct Member {
    /// The name of the path.
    pub name: String,
    /// Its near end.
    pub origin: Arc<Origin>,
    /// Its measurements.
    pub queue: Queue,
    /// Its figures.
    pub state: RunState,
    /// Ends the run of this path; each path has its own, as it wakes only one thread.
    pub stop: Arc<StopFlag>,
}

/// The outcome of the probe of one path.
#[derive(Clone, Debug)]
pub struct TargetOutcome {
    /// The name of the path.
    pub name: String,
    /// The state of the path.
    pub state: State,
    /// Its last report; `None` if the probe never began.
    pub report: Option<Arc<Report>>,
}

/// Probes all paths to the end of the plan, or until stopped. Returns the outcomes in the same
/// order.
///
/// # Errors
///
/// As clone(2), if a thread cannot be started; the other probes are stopped then.
pub fn probe_all(members: Vec<Member>, plan: Plan) -> io::Result<Vec<TargetOutcome>> {
    let (sender, outcomes) = channel(usize::MAX); // One per member.
    let stops: Vec<_> = members
        .iter()
        .map(|member| Arc::clone(&member.stop))
        .collect();
    let count = members.len();
    let mut all = vec![None; count];
    for (place, member) in members.into_iter().enumerate() {
        let sender = sender.clone();
        let offset = offset(plan.interval, place, count);
        let started = spawn(&format!("path#{place}"), LARGE_STACK, move || {
            let outcome = probe_one(member, plan, offset);
            // An error means that another thread could not be started.
            let _ = sender.send((place, outcome));
        });
        if let Err(error) = started {
            stops.iter().for_each(|stop| stop.set());
            return Err(error);
        }
    }
    drop(sender);
    while let Ok((place, outcome)) = outcomes.recv() {
        all[place] = Some(outcome);
    }
    // The panic of a thread has been reported on stderr.
    Ok(all.into_iter().flatten().collect())
}

/// Returns the time within the interval at which a path begins.
fn offset(interval: Duration, place: usize, count: usize) -> Duration {
    interval.mul_f64(place as f64 / count as f64)
}

fn probe_one(member: Member, plan: Plan, offset: Duration) -> TargetOutcome {
    let Member {
        name,
        origin,
        queue,
        state: run_state,
        stop,
    } = member;
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
