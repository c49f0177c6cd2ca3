//! The gate of a node that listens: who may come in (`--allow`) and how many at once (`--max-connections`).
//!
//! Beyond the limit nothing is accepted until a connection ends, as with HAProxy's `maxconn`: further clients stand in
//! the kernel's queue of the listener (4096, cut to net.core.somaxconn), connected and unanswered, and are served in
//! turn. A client that is not allowed is reset at once and takes no place.
//!
//! # What a connection may take at most
//!
//! Of our own memory, whatever its peers send; what the kernel queues for its two sockets (tcp_rmem, tcp_wmem) comes on
//! top:
//!
//! | per pump, two of them | at most |
//! |---|---|
//! | read buffer: one frame of 1 MiB payload, 128 stamps, 16 KiB annotations; while it grows, the one before too | 1.4 MiB |
//! | small frames gathered for one send, with the frame that came last | 1.2 MiB |
//! | stack (reserved; 8 to 12 KiB are touched) | 64 KiB |
//!
//! An exit's queue of 8 reports adds 42 KiB. So a connection whose peers are hostile takes up to 6 MiB, one with plain
//! bytes on both sides 0.7 MiB while it moves bulk, and about 25 KiB while it idles: large buffers are given back after
//! a quiet second. The whole is bounded by `--max-connections` times that.

use crate::session::allow::{is_allowed, LogThrottle, Network};
use crate::sync::lock;
use crate::sys;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex, PoisonError};

/// Descriptors that are no connections: standard streams, listeners, report, state, the resolver's, what is read for
/// annotations; and, where there are many, those of metrics and of the probes that they may ask for.
fn other_descriptors(descriptors: u64) -> u64 {
    (descriptors / 8).clamp(16, 64)
}

/// What a gate was told.
#[derive(Clone, Debug, Default)]
pub struct AdmissionLimits {
    /// `--allow`: who may connect; empty is everybody.
    pub allow: Vec<Network>,
    /// How many connections may be open at once; `None` leaves it to the kernel's limits.
    pub connections: Option<usize>,
    /// Where that number comes from, with the remedy.
    pub origin: LimitSource,
}

/// Where a limit of connections comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitSource {
    /// `--max-connections`.
    #[default]
    Option,
    /// The limit of open descriptors, which is this.
    Descriptors(u64),
}

impl AdmissionLimits {
    /// The limit that is in force: the one given, or as many connections of `each` descriptors as `descriptors` has
    /// room for.
    pub fn new(
        allow: Vec<Network>,
        given: Option<usize>,
        descriptors: Option<u64>,
        each: u64,
    ) -> Self {
        let room = descriptors.map(|descriptors| {
            let places = descriptors.saturating_sub(other_descriptors(descriptors)) / each;
            usize::try_from(places.max(1)).unwrap_or(usize::MAX)
        });
        Self {
            allow,
            connections: given.or(room),
            origin: match (given, descriptors) {
                (None, Some(descriptors)) => LimitSource::Descriptors(descriptors),
                _ => LimitSource::Option,
            },
        }
    }
}

/// The gate itself, shared by the accept threads and the connections.
#[derive(Debug)]
pub(super) struct AcceptLimit {
    limits: AdmissionLimits,
    state: Mutex<State>,
    /// A place has become free, or the gate was closed.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    /// It was said that the places are taken.
    told: bool,
    full: LogThrottle,
    refused: u64,
    refusals: LogThrottle,
    closed: bool,
}

impl AcceptLimit {
    pub(super) fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Waits until there is a place; `false` where the gate was closed meanwhile. Call before accepting, so that clients
    /// stay in the kernel's queue.
    pub(super) fn wait(&self) -> bool {
        self.wait_for_place(|_| ())
    }

    /// Takes a place, waiting where the accept thread of another listener was faster; `false` as [`wait`](Self::wait).
    pub(super) fn enter(&self) -> bool {
        self.wait_for_place(|state| state.open += 1)
    }

    fn wait_for_place(&self, then: impl FnOnce(&mut State)) -> bool {
        let mut state = lock(&self.state);
        while !state.closed
            && self
                .limits
                .connections
                .is_some_and(|most| state.open >= most)
        {
            self.tell_full(&mut state);
            let woken = self.freed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        then(&mut state);
        !state.closed
    }

    fn tell_full(&self, state: &mut State) {
        if state.full.happened(sys::clock::mono()).is_none() {
            return;
        }
        state.told = true;
        let cause = match self.limits.origin {
            LimitSource::Option => "--max-connections".into(),
            LimitSource::Descriptors(limit) => format!(
                "as many as the limit of {limit} open descriptors leaves room for: raise ulimit -n"
            ),
        };
        log::warn!(
            "accept: {} connections are open ({cause}); further clients wait until one ends",
            state.open
        );
    }

    /// A connection has ended, or what had entered did not become one.
    pub(super) fn leave(&self) {
        let mut state = lock(&self.state);
        state.open -= 1;
        // A little room is taken again at once: it is over when a quarter of the places is free.
        let few = |most: usize| state.open <= most - most.div_ceil(4);
        if state.told && self.limits.connections.is_some_and(few) {
            state.told = false;
            log::info!("accept: goes on, {} connections are open", state.open);
        }
        drop(state);
        // All: one who only waits takes no place, and goes to a listener where nobody may come.
        self.freed.notify_all();
    }

    /// Nobody waits at the gate any more.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.freed.notify_all();
    }

    /// Whether `peer` may come in; where not, its connection is made to end with a reset, which leaves nothing behind
    /// here, and it is said, seldom enough that a scanner does not fill the log.
    pub(super) fn admits(&self, socket: &TcpStream, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        if is_allowed(&self.limits.allow, address) {
            return true;
        }
        // Where it fails the client is gone already.
        let _ = sys::reset_on_close(socket);
        let mut state = lock(&self.state);
        state.refused += 1;
        let Some(kept_back) = state.refusals.happened(sys::clock::mono()) else {
            return false;
        };
        drop(state);
        let before = match kept_back {
            0 => String::new(),
            more => format!("; and {more} more since this was said last"),
        };
        log::warn!(
            "accept: peer {} is in no network of --allow, closed (if it belongs: --allow {address}){before}",
            SocketAddr::new(address, peer.port())
        );
        false
    }

    /// How many were not admitted.
    pub(super) fn refused(&self) -> u64 {
        lock(&self.state).refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MonoTime;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn gate(connections: usize) -> AcceptLimit {
        AcceptLimit::new(AdmissionLimits {
            connections: Some(connections),
            ..AdmissionLimits::default()
        })
    }

    #[test]
    fn a_full_gate_opens_when_one_leaves_and_never_lets_in_more() {
        let gate = gate(2);
        assert!(gate.enter() && gate.enter());
        let (say, entered) = channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (gate, say) = (&gate, say.clone());
                scope.spawn(move || say.send(gate.wait() && gate.enter()));
            }
            let early = entered.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "both places were taken");
            gate.leave();
            assert_eq!(entered.recv(), Ok(true));
            let early = entered.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "one left, one came");
            gate.leave();
            assert_eq!(entered.recv(), Ok(true));
        });
        assert_eq!(lock(&gate.state).open, 2);
    }

    #[test]
    fn a_place_that_becomes_free_is_known_to_the_accept_threads_of_all_listeners() {
        let gate = gate(1);
        assert!(gate.enter());
        let (say, passed) = channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (gate, say) = (&gate, say.clone());
                scope.spawn(move || say.send(gate.wait()));
            }
            // Of the second one that waits nothing is said.
            let both_wait = || {
                let mut told = lock(&gate.state).full;
                told.happened(MonoTime(u64::MAX)) == Some(1)
            };
            while !both_wait() {
                std::thread::yield_now();
            }
            gate.leave();
            let long = Duration::from_secs(10);
            let told = [(); 2].map(|()| passed.recv_timeout(long));
            gate.close(); // Where one still waits it is to end.
            assert_eq!(told, [Ok(true); 2], "neither takes the place by waiting");
        });
    }

    #[test]
    fn who_waits_at_a_gate_that_closes_is_sent_away() {
        let gate = gate(1);
        assert!(gate.enter());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.wait());
            gate.close();
            assert!(!waiting.join().unwrap());
        });
    }

    #[test]
    fn the_limit_is_the_one_given_or_what_descriptors_leave_room_for() {
        for (given, descriptors, each, limit) in [
            (Some(7), Some(1024), 2, Some(7)),
            (None, Some(1024), 2, Some(480)),
            (None, Some(1024), 1, Some(960)),
            (None, Some(40), 2, Some(12)),
            (None, Some(3), 2, Some(1)),
            (None, None, 2, None),
        ] {
            let limits = AdmissionLimits::new(Vec::new(), given, descriptors, each);
            assert_eq!(limits.connections, limit);
        }
    }
}
