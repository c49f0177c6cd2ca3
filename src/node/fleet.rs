//! Many paths probed by one process (`probe --targets FILE`): each has threads and a schedule of its own, begun at a
//! time of its own within the interval, so that they do not all go at once.

use super::caller::Caller;
use super::collect::Queue;
use super::ledger::Ledger;
use super::print::Printer;
use super::probe::{self, Plan};
use super::StopFlag;
use crate::report::{Report, State};
use crossbeam_channel::unbounded;
use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

/// One of the paths, ready to be probed.
pub struct Member {
    /// What it is called.
    pub name: String,
    /// Its near end.
    pub caller: Arc<Caller>,
    /// Where its measurements come.
    pub queue: Queue,
    /// Where they are entered.
    pub ledger: Ledger,
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
pub fn run(members: Vec<Member>, plan: Plan) -> io::Result<Vec<Probed>> {
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
        caller,
        queue,
        mut ledger,
        stop,
    } = member;
    let board = Arc::clone(&caller.node.board);
    board.keep_last();
    if !offset.is_zero() {
        stop.wait(offset);
    }
    let mut state = State::Critical; // Where nothing was measured.
    if !stop.is_set() {
        let printer = &mut Printer::silent();
        let written;
        (state, written) = probe::run(&caller, queue, &mut ledger, plan, printer, &stop);
        if let Err(error) = written {
            log::error!("{name}: {error}");
        }
    }
    Probed {
        name,
        state,
        report: board.newest(),
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
