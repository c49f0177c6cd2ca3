//! A delay link that tests change while it runs, and that records what it really did.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subsegment_tcp_speeds::commands::demo::link::{DelayLink, Hold};
use subsegment_tcp_speeds::measure::{Histogram, Summary};
use subsegment_tcp_speeds::time::{MonoTime, Nanos};

/// The chunks of each direction whose times are kept exactly: 512 KiB.
const KEPT: usize = 1 << 16;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A running link; dropping it stops the listening.
#[derive(Debug)]
pub struct Link {
    /// The address for clients.
    pub address: SocketAddr,
    /// The direction from the client to the target.
    pub forward: Arc<LinkDirection>,
    /// The direction from the target to the client.
    pub back: Arc<LinkDirection>,
    _running: DelayLink,
}

impl Link {
    /// Listens on a free port of loopback and forwards to `target`, holding bytes for `delay` each
    /// way.
    pub fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let forward = Arc::new(LinkDirection::new(delay));
        let back = Arc::new(LinkDirection::new(delay));
        let running = DelayLink::start(target, forward.clone(), back.clone())?;
        Ok(Self {
            address: running.address,
            forward,
            back,
            _running: running,
        })
    }
}

/// One direction of a link, changeable at any time.
#[derive(Debug)]
pub struct LinkDirection(Mutex<State>);

#[derive(Debug)]
struct State {
    delay: Duration,
    every: u64,
    extra: Duration,
    chunks: u64,
    bytes_per_second: Option<u64>,
    seen: Histogram,
    held: Vec<u64>,
}

impl LinkDirection {
    fn new(delay: Duration) -> Self {
        Self(Mutex::new(State {
            delay,
            every: 0,
            extra: Duration::ZERO,
            chunks: 0,
            bytes_per_second: None,
            seen: Histogram::default(),
            held: Vec::new(),
        }))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds bytes for `delay` from now on, and clears the record.
    pub fn set_delay(&self, delay: Duration) {
        self.with(|state| {
            state.delay = delay;
            state.seen = Histogram::default();
            state.held.clear();
        });
    }

    /// Holds every `every`th chunk for `extra` more.
    pub fn set_spikes(&self, every: u64, extra: Duration) {
        self.with(|state| (state.every, state.extra) = (every, extra));
    }

    /// Drains slowly: a far end that reads this many bytes per second.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.with(|state| state.bytes_per_second = Some(bytes_per_second));
    }

    /// Returns the times for which chunks were really held, from the read to the write, on the
    /// monotonic clock.
    pub fn recorded(&self) -> Option<Summary> {
        self.with(|state| state.seen.summary())
    }

    /// Returns the exact median of the record (of its first 65536 chunks; a [`Summary`] is off
    /// by up
    /// to 1 %).
    pub fn median(&self) -> Option<Nanos> {
        let mut held = self.with(|state| state.held.clone());
        held.sort_unstable();
        let middle = held.len().saturating_sub(1) / 2;
        held.get(middle).copied().map(Nanos)
    }
}

impl Hold for LinkDirection {
    fn until(&self, read_at: MonoTime) -> MonoTime {
        self.with(|state| {
            state.chunks += 1;
            let spike = state.every > 0 && state.chunks % state.every == 0;
            let extra = if spike { state.extra } else { Duration::ZERO };
            read_at + Nanos::from(state.delay + extra)
        })
    }

    fn written(&self, len: usize, held: Nanos) -> Nanos {
        self.with(|state| {
            state.seen.record(held.signed());
            if state.held.len() < KEPT {
                state.held.push(held.0);
            }
            let pause = |rate: u64| Nanos(len as u64 * NANOS_PER_SEC / rate.max(1));
            state.bytes_per_second.map_or(Nanos::ZERO, pause)
        })
    }
}
