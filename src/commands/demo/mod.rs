//! The demo: four nodes in one process on loopback with delay links between them, one of which is
//! slowed half way.
//!
//! The nodes are real ones, with their own ids, threads and sockets. The slowed link is printed
//! only after the verdict.

pub mod link;

use crate::cli::ExitCode;
use crate::collect::run::Run;
use crate::collect::run_state::RunState;
use crate::commands::probe::{measure, Plan};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::measure::{Baseline, Verdict, VerdictDirection, VerdictKind};
use crate::node::accept::{bind, Server};
use crate::node::dial::NextHop;
use crate::node::{Node, NodeSettings, StopFlag};
use crate::origin::Origin;
use crate::output::{Output, OutputError};
use crate::publish::printer::Printer;
use crate::report::State;
use crate::sync::channel::channel;
use crate::sync::{spawn, LARGE_STACK};
use crate::sys::{self, SocketOptions};
use crate::wire::NodeRole;
use link::{Delay, DelayLink};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The normal one-way delays of the three links, in microseconds.
const NORMAL: [u64; 3] = [300, 900, 500];
const BLOCKS: u64 = 4500;
const INTERVAL: Duration = Duration::from_millis(2);
const TIMEOUT: Duration = Duration::from_secs(5);
const NAMES: [&str; 4] = ["A", "B", "C", "Z"];

/// The change that the verdict has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The index of the slowed segment: 0 is A -> B.
    pub segment: usize,
    /// `true` if the return direction is slowed, `false` for the forward one.
    pub back: bool,
    /// The additional delay.
    pub extra: Duration,
}

impl Hidden {
    /// Chooses by `seed`, so that a demo can be repeated.
    pub fn choose(seed: u64) -> Self {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let mixed = (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let pick = mixed >> 16;
        Self {
            segment: (pick % 3) as usize,
            back: (pick >> 8) % 2 == 1,
            extra: Duration::from_micros(2_000 + (pick >> 16) % 6_000),
        }
    }

    /// Returns `true` if the verdict names the segment and the direction.
    pub fn is_found_by(&self, verdict: &Verdict) -> bool {
        let direction = if self.back {
            VerdictDirection::Return
        } else {
            VerdictDirection::Forward
        };
        verdict.kind == VerdictKind::Segment
            && verdict.index == Some(self.segment)
            && verdict.direction == Some(direction)
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {}, {} direction, slowed by {:.2} ms",
            NAMES[self.segment],
            NAMES[self.segment + 1],
            if self.back { "return" } else { "forward" },
            self.extra.as_secs_f64() * 1e3
        )
    }
}

/// The reason for which the demo could not run.
#[derive(Debug)]
pub enum DemoError {
    /// Results could not be written.
    Output(OutputError),
    /// Loopback, threads or descriptors were not available.
    Setup(String),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(error) => error.fmt(f),
            Self::Setup(text) => write!(f, "set up the demo: {text}"),
        }
    }
}

impl std::error::Error for DemoError {}

fn setup(error: impl fmt::Display) -> DemoError {
    DemoError::Setup(error.to_string())
}

fn next_hop(address: SocketAddr) -> Result<NextHop, DemoError> {
    NextHop::resolve(&address.ip().to_string(), address.port(), TIMEOUT).map_err(setup)
}

/// A link of the demo, with the delays of its directions.
struct Segment {
    link: DelayLink,
    forward: Arc<Delay>,
    back: Arc<Delay>,
}

impl Segment {
    fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let (forward, back) = (Arc::new(Delay::new(delay)), Arc::new(Delay::new(delay)));
        let link = DelayLink::start(target, forward.clone(), back.clone())?;
        Ok(Self {
            link,
            forward,
            back,
        })
    }
}

/// Starts a listening node with a link before it; clients connect to the address of the link.
fn start(index: usize, next: Option<SocketAddr>) -> Result<(Server, Segment), DemoError> {
    let role = if next.is_some() {
        NodeRole::Relay
    } else {
        NodeRole::Echo
    };
    let next = next.map(next_hop).transpose()?;
    let listeners = bind(
        &[SocketAddr::from(([127, 0, 0, 1], 0))],
        TIMEOUT,
        &SocketOptions::default(),
    )
    .map_err(|(address, error)| DemoError::Setup(format!("listen on {address}: {error}")))?;
    let address = listeners[0].local_addr().map_err(setup)?;
    // The demo does not show this node's own statistics: without its queue, its pumps drop their
    // measurements.
    let (node, _) = Node::new(NodeSettings::new(NAMES[index], role, TIMEOUT), next);
    let server = Server::start(node, listeners).map_err(setup)?;
    let delay = Duration::from_micros(NORMAL[index - 1]);
    Ok((server, Segment::start(address, delay).map_err(setup)?))
}

/// Runs the command `demo`. Its exit code is 1 if the verdict does not name the slowed link.
///
/// # Errors
///
/// [`Failure`].
pub fn run(
    seed: u64,
    page: Option<&Path>,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> Result<ExitCode, Failure> {
    match demonstrate(seed, page, signals, stop) {
        Ok(true) => Ok(ExitCode::Done),
        Ok(false) => Ok(ExitCode::Failed),
        Err(DemoError::Output(error)) if error.is_closed_pipe() => Ok(ExitCode::Done),
        Err(error) => Err(Failure::new(ExitCode::Failed, error)),
    }
}

/// Runs the demo and writes its page to `page`. Returns `true` if the verdict named the slowed
/// link.
fn demonstrate(
    seed: u64,
    page: Option<&Path>,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> Result<bool, DemoError> {
    let hidden = Hidden::choose(seed);
    let mut out = Output::Stdout;
    out.write(&format!(
        "demo: four nodes on loopback, A -> B -> C -> Z, with delay links between them; {BLOCKS} \
         probes in {:.0} s.\n\
         Half way through, one direction of one link is slowed by 2 to 8 ms. Which one is printed \
         after the verdict.\n\
         A longer run would see smaller changes, and would distinguish a burst from a change that \
         stays.\n\n",
        INTERVAL.as_secs_f64() * BLOCKS as f64
    ))
    .map_err(DemoError::Output)?;
    let (last, last_link) = start(3, None)?;
    let (middle, middle_link) = start(2, Some(last_link.link.address))?;
    let (first, first_link) = start(1, Some(middle_link.link.address))?;
    let links = [&first_link, &middle_link, &last_link];
    let (node, queue) = Node::new(
        NodeSettings::new("A", NodeRole::Source, TIMEOUT),
        Some(next_hop(first_link.link.address)?),
    );
    signals.stop(stop, Some(node.collector.clone()));
    let origin = Arc::new(Origin::new(node));
    let state = RunState::new("A", "source", sys::clock::read().wall, Baseline::Run);
    let mut printer =
        Printer::new(Output::Stdout, crate::cli::Format::Text).with_live_line(Some(BLOCKS));
    printer = printer.with_page(page).map_err(DemoError::Output)?;
    let slowed = match hidden.back {
        true => Arc::clone(&links[hidden.segment].back),
        false => Arc::clone(&links[hidden.segment].forward),
    };
    let slow = Duration::from_micros(NORMAL[hidden.segment]) + hidden.extra;
    let half = INTERVAL * (BLOCKS / 2) as u32;
    spawn("slow down", LARGE_STACK, move || {
        let (_open, pause) = channel::<()>(0);
        let _ = pause.recv_timeout(half);
        slowed.set(slow);
    })
    .map_err(setup)?;
    let plan = Plan {
        count: Some(BLOCKS),
        interval: INTERVAL,
        size: 64,
        on_timeout: State::Critical,
        asks: true,
    };
    let mut run = Run::new(queue, Arc::clone(&origin.node.latest), state, printer);
    let (_, written) = measure(&[origin], &mut run, plan, stop);
    written.map_err(DemoError::Output)?;
    for server in [first, middle, last] {
        server.stop();
    }
    let verdict = run
        .state
        .model()
        .statistics(run.state.names(), sys::clock::read().now())
        .verdict;
    let found = hidden.is_found_by(&verdict);
    out.write(&format!(
        "\nhidden:  {hidden}\nverdict: {}\n",
        if found {
            "right: it names the segment and the direction"
        } else {
            "WRONG"
        }
    ))
    .map_err(DemoError::Output)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_and_direction_is_chosen_about_as_often() {
        let mut seen = [[0_u32; 2]; 3];
        for seed in 0..600 {
            let hidden = Hidden::choose(seed);
            seen[hidden.segment][usize::from(hidden.back)] += 1;
            assert!((2_000..8_000).contains(&hidden.extra.as_micros()));
        }
        for count in seen.into_iter().flatten() {
            assert!((50..200).contains(&count), "{seen:?}");
        }
    }
}
