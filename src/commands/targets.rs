//! Many paths probed by one process (`probe --targets FILE`): each has threads and a schedule of its own, begun at a
//! time of its own within the interval, so that they do not all go at once.

use crate::cli::targets::parse_targets;
use crate::cli::{Common, ExitCode, TargetsConfig};
use crate::collect::queue::Queue;
use crate::collect::run_state::RunState;
use crate::commands::prepare::{origin, publish, rules, run_state_of, state_in, watching};
use crate::commands::probe::{self, exit_code, state_with_output, Plan};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::dial::NextHop;
use crate::node::StopFlag;
use crate::origin::session::Origin;
use crate::output::{Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::report::paths;
use crate::report::{Report, State};
use crate::wire::NodeRole;
use crossbeam_channel::unbounded;
use std::io;
use std::sync::Arc;
use std::thread::Builder;
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
        // A name that cannot be resolved is that path's trouble alone, as long as it cannot.
        let host = target.address.host.as_deref().unwrap_or_default();
        let next_hop = NextHop::unresolved(host, target.address.port);
        let file = common.state.as_deref();
        let file = file.map(|directory| state_in(directory, &target.name));
        let run_state =
            run_state_of(common, NodeRole::Source, endless, file).map_err(unwritable)?;
        let (origin, queue) = origin(common, next_hop).map_err(unknown)?;
        let origin = Arc::new(origin.probing());
        let run_state = watching(run_state, rules.clone(), &origin.node);
        let path = Some(target.name.clone());
        watched.push(Watched::origin(&origin, "probe", path));
        members.push(Member {
            name: target.name,
            origin,
            queue,
            run_state,
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
    signals.ask(move || {
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
    let probed =
        probe_all(members, plan).map_err(|error| unknown(format!("start a thread: {error}")))?;
    // The worst of several states is that of all.
    let states = probed.iter().map(|probed| probed.state);
    let state = states.max_by_key(|state| state.severity());
    let lines = probed
        .into_iter()
        .map(|probed| (probed.name, probed.report));
    let lines: Vec<_> = lines.collect();
    let written = OutputError::all([output.write(&paths::render(&lines)), published.finish()]);
    match state_with_output(state.unwrap_or(State::Unknown), written) {
        Ok(state) => Ok(exit_code(state)),
        Err((state, text)) => Err(Failure::new(exit_code(state), text)),
    }
}

/// One of the paths, ready to be probed.
pub struct Member {
    /// What it is called.
    pub name: String,
    /// Its near end.
    pub origin: Arc<Origin>,
    /// Where its measurements come.
    pub queue: Queue,
    /// Where they are entered.
    pub run_state: RunState,
    /// Ends this path's run; every path has one, for only one thread is woken by it.
    pub stop: Arc<StopFlag>,
}

/// What became of a path.
#[derive(Clone, Debug)]
pub struct Probed {
    /// What it is called.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// Its last report; `None` where it never began.
    pub report: Option<Arc<Report>>,
}

/// Probes all of them to the end of the plan, or until stopped; in the order given.
///
/// # Errors
///
/// Where a thread cannot be started; those that run are told to stop.
pub fn probe_all(members: Vec<Member>, plan: Plan) -> io::Result<Vec<Probed>> {
    let (say, probed) = unbounded(); // One per member.
    let stops: Vec<_> = members
        .iter()
        .map(|member| Arc::clone(&member.stop))
        .collect();
    let count = members.len();
    let mut all = vec![None; count];
    for (place, member) in members.into_iter().enumerate() {
        let say = say.clone();
        let offset = offset(plan.interval, place, count);
        let started = Builder::new().name(format!("path#{place}")).spawn(move || {
            let probed = one(member, plan, offset);
            let _ = say.send((place, probed)); // Nobody listens where another could not be started.
        });
        if let Err(error) = started {
            stops.iter().for_each(|stop| stop.set());
            return Err(error);
        }
    }
    drop(say);
    for (place, outcome) in probed {
        all[place] = Some(outcome);
    }
    // A path whose thread panicked has said so on stderr.
    Ok(all.into_iter().flatten().collect())
}

/// When within the interval a path begins.
fn offset(interval: Duration, place: usize, count: usize) -> Duration {
    interval.mul_f64(place as f64 / count as f64)
}

fn one(member: Member, plan: Plan, offset: Duration) -> Probed {
    let Member {
        name,
        origin,
        queue,
        mut run_state,
        stop,
    } = member;
    let latest = Arc::clone(&origin.node.latest);
    latest.keep_last();
    if !offset.is_zero() {
        stop.wait(offset);
    }
    let mut state = State::Critical; // Where nothing was measured.
    if !stop.is_set() {
        let printer = &mut Printer::silent();
        let written;
        (state, written) = probe::measure(&origin, queue, &mut run_state, plan, printer, &stop);
        if let Err(error) = written {
            log::error!("{name}: {error}");
        }
    }
    Probed {
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
