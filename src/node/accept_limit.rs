//! The admission of clients: which may connect (`--allow`), and how many at once
//! (`--max-connections`).
//!
//! Beyond the limit nothing is accepted until a connection ends, as with HAProxy's `maxconn`.
//! Further clients wait in the kernel's queue of the listener (4096, cut to net.core.somaxconn),
//! connected and unanswered, and are served in turn. A client that is not allowed is reset at once
//! and takes no place.
//!
//! # What a connection may take at most
//!
//! Memory of this process, whatever its peers send; the kernel's queues for the two sockets
//! (tcp_rmem, tcp_wmem) come on top:
//!
//! | per pump, two of them | at most |
//! |---|---|
//! | read buffer: 1 MiB payload, 128 stamps, 16 KiB annotations; twice as it grows | 1.4 MiB |
//! | small frames gathered for one send, with the frame that came last | 1.2 MiB |
//! | stack (reserved; 8 to 12 KiB are touched) | 64 KiB |
//!
//! An exit's queue of 8 reports adds 42 KiB. So a connection with hostile peers takes up to 6 MiB.
//! One with plain bytes on both sides takes 0.7 MiB while it moves bulk. An idle one takes about 25
//! KiB, since large buffers are released after a quiet second. The whole is bounded by
//! `--max-connections` times that.

use crate::session::allow::{is_allowed, LogThrottle, Network};
use crate::sync::lock;
use crate::sys;
use crate::time::{MonoTime, Nanos};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, PoisonError};

/// Returns the number of descriptors for other things than connections: standard streams,
/// listeners, report, state, the resolver's, sources of annotations. And, if there are many,
/// metrics and the probes that they request.
fn other_descriptors(descriptors: u64) -> u64 {
    (descriptors / 8).clamp(16, 64)
}

/// The limits for clients.
#[derive(Clone, Debug, Default)]
pub struct AdmissionLimits {
    /// `--allow`: the networks whose clients may connect; empty = all.
    pub allow: Vec<Network>,
    /// The number of connections that may be open at once; `None` leaves it to the kernel's limits.
    pub connections: Option<usize>,
    /// The source of that number, for the message with the remedy.
    pub origin: LimitSource,
}

/// The source of a limit of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitSource {
    /// `--max-connections`.
    #[default]
    Option,
    /// The limit of open descriptors.
    Descriptors(u64),
}

impl AdmissionLimits {
    /// Makes the limits in force: the number given, or as many connections of `each` descriptors as
    /// `descriptors` has room for.
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

/// The refused clients that get the reason, in a second.
const EXPLAINED: u32 = 10;

/// The limit itself, shared by the accept threads and the connections.
#[derive(Debug)]
pub(super) struct AcceptLimit {
    limits: AdmissionLimits,
    /// `--allow` as it was read last.
    allow: Mutex<Vec<Network>>,
    state: Mutex<State>,
    /// A place has become free, or the limit was closed.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    /// Set when the log has named that all places are taken.
    logged: bool,
    full: LogThrottle,
    refused: u64,
    refusals: LogThrottle,
    /// The second in which the latest reasons were sent, and their number.
    explaining_since: MonoTime,
    explained: u32,
    closed: bool,
}

impl AcceptLimit {
    pub(super) fn new(mut limits: AdmissionLimits) -> Self {
        Self {
            allow: Mutex::new(std::mem::take(&mut limits.allow)),
            limits,
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Waits until there is a place; `false` if the limit was closed meanwhile. Called before
    /// accepting, so that clients stay in the kernel's queue.
    pub(super) fn wait(&self) -> bool {
        self.wait_for_place(|_| ())
    }

    /// Takes a place, and waits if the accept thread of another listener was faster; `false` as
    /// [`wait`](Self::wait).
    pub(super) fn acquire(&self) -> bool {
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
            self.log_full(&mut state);
            let woken = self.freed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        then(&mut state);
        !state.closed
    }

    fn log_full(&self, state: &mut State) {
        if state.full.happened(sys::clock::mono()).is_none() {
            return;
        }
        state.logged = true;
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

    /// Gives a place back: a connection has ended, or was not established.
    pub(super) fn release(&self) {
        let mut state = lock(&self.state);
        state.open -= 1;
        // A little room is taken again at once: the log names it when a quarter of the places is
        // free.
        let few = |most: usize| state.open <= most - most.div_ceil(4);
        if state.logged && self.limits.connections.is_some_and(few) {
            state.logged = false;
            log::info!("accept: goes on, {} connections are open", state.open);
        }
        drop(state);
        // All: a thread that only waits takes no place, and its listener may have no client.
        self.freed.notify_all();
    }

    /// Wakes all threads that wait, and lets none wait from now on.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.freed.notify_all();
    }

    /// Replaces the networks of `--allow`. Open connections stay.
    pub(super) fn set_allow(&self, networks: Vec<Network>) {
        *lock(&self.allow) = networks;
    }

    /// Returns `true` if the reason for a refusal may be sent. At most ten clients a second get
    /// one, as an orderly end leaves a state of the kernel here.
    pub(super) fn may_explain(&self) -> bool {
        let mut state = lock(&self.state);
        let now = sys::clock::mono();
        if now.since(state.explaining_since) >= Nanos::from_millis(1_000) {
            (state.explaining_since, state.explained) = (now, 0);
        }
        state.explained += 1;
        state.explained <= EXPLAINED
    }

    /// Returns `true` if `peer` may connect. Otherwise it is counted, and logged at a rate that no
    /// scanner can fill a disk with.
    pub(super) fn admit(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        if is_allowed(&lock(&self.allow), address) {
            return true;
        }
        let mut state = lock(&self.state);
        state.refused += 1;
        let Some(kept_back) = state.refusals.happened(sys::clock::mono()) else {
            return false;
        };
        drop(state);
        let before = match kept_back {
            0 => String::new(),
            more => format!("; and {more} more since the last such line"),
        };
        log::warn!(
            "accept: peer {} is in no network of --allow, closed \
             (if it belongs: --allow {address}){before}",
            SocketAddr::new(address, peer.port())
        );
        false
    }

    /// Returns the number of clients that were refused.
    pub(super) fn refused(&self) -> u64 {
        lock(&self.state).refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn limit(connections: usize) -> AcceptLimit {
        AcceptLimit::new(AdmissionLimits {
            connections: Some(connections),
            ..AdmissionLimits::default()
        })
    }

    #[test]
    fn a_full_limit_admits_one_for_each_that_ends_and_never_more() {
        let limit = limit(2);
        assert!(limit.acquire() && limit.acquire());
        let (result, entered) = channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (limit, result) = (&limit, result.clone());
                scope.spawn(move || result.send(limit.wait() && limit.acquire()));
            }
            let early = entered.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "both places were taken");
            limit.release();
            assert_eq!(entered.recv(), Ok(true));
            let early = entered.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "one left, one came");
            limit.release();
            assert_eq!(entered.recv(), Ok(true));
        });
        assert_eq!(lock(&limit.state).open, 2);
    }

    #[test]
    fn a_place_that_becomes_free_is_known_to_the_accept_threads_of_all_listeners() {
        let limit = limit(1);
        assert!(limit.acquire());
        let (result, passed) = channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (limit, result) = (&limit, result.clone());
                scope.spawn(move || result.send(limit.wait()));
            }
            // The second waiting thread logs nothing.
            let both_wait = || {
                let mut logged = lock(&limit.state).full;
                logged.happened(MonoTime(u64::MAX)) == Some(1)
            };
            while !both_wait() {
                std::thread::yield_now();
            }
            limit.release();
            let long = Duration::from_secs(10);
            let logged = [(); 2].map(|()| passed.recv_timeout(long));
            limit.close(); // Where one still waits it is to end.
            assert_eq!(logged, [Ok(true); 2], "neither takes the place by waiting");
        });
    }

    #[test]
    fn a_thread_that_waits_for_a_place_returns_when_the_limit_is_closed() {
        let limit = limit(1);
        assert!(limit.acquire());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| limit.wait());
            limit.close();
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
