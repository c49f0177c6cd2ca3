//! A delay link: a TCP forwarder on loopback that holds every byte for a set time, per direction. It stands in for a
//! network in `demo` and in the tests, needs no privileges, and records what it really did.

use crate::measure::{Histogram, Summary};
use crate::sync::lock;
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crossbeam_channel::{bounded, never, Receiver, Sender};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

/// Chunks under way in one direction; a full link stops reading, as a network with a full queue does.
const QUEUE: usize = 1024;
const CHUNK: usize = 64 << 10;
/// Chunks of each direction whose times are kept exactly: 512 KiB.
const KEPT: usize = 1 << 16;

/// What one direction does to bytes, changeable at any time.
#[derive(Debug)]
pub struct Way(Mutex<WayState>);

#[derive(Debug)]
struct WayState {
    delay: Duration,
    every: u64,
    extra: Duration,
    chunks: u64,
    bytes_per_second: Option<u64>,
    seen: Histogram,
    held: Vec<u64>,
}

impl Way {
    fn new(delay: Duration) -> Self {
        Self(Mutex::new(WayState {
            delay,
            every: 0,
            extra: Duration::ZERO,
            chunks: 0,
            bytes_per_second: None,
            seen: Histogram::default(),
            held: Vec::new(),
        }))
    }

    /// Holds bytes for `delay` from now on, and forgets what was recorded.
    pub fn set_delay(&self, delay: Duration) {
        let mut state = lock(&self.0);
        state.delay = delay;
        state.seen = Histogram::default();
        state.held.clear();
    }

    /// Holds every `every`th chunk for `extra` more.
    pub fn set_spikes(&self, every: u64, extra: Duration) {
        let mut state = lock(&self.0);
        state.every = every;
        state.extra = extra;
    }

    /// Drains slowly: a far end that reads at so many bytes per second.
    pub fn set_rate(&self, bytes_per_second: u64) {
        lock(&self.0).bytes_per_second = Some(bytes_per_second);
    }

    /// How long chunks were really held, from the read to the write: the link's own record, on the monotonic clock.
    pub fn recorded(&self) -> Option<Summary> {
        lock(&self.0).seen.summary()
    }

    /// The exact median of what is recorded (of its first 65536 chunks; a [`Summary`] is off by up to 1 %).
    pub fn median(&self) -> Option<Nanos> {
        let mut held = lock(&self.0).held.clone();
        held.sort_unstable();
        held.get(held.len().saturating_sub(1) / 2)
            .copied()
            .map(Nanos)
    }

    fn record(&self, held: Nanos) -> Option<u64> {
        let mut state = lock(&self.0);
        state.seen.record(held.signed());
        if state.held.len() < KEPT {
            state.held.push(held.0);
        }
        state.bytes_per_second
    }

    fn due(&self, read_at: MonoTime) -> MonoTime {
        let mut state = lock(&self.0);
        state.chunks += 1;
        let spike = state.every > 0 && state.chunks % state.every == 0;
        let extra = if spike { state.extra } else { Duration::ZERO };
        read_at + Nanos::from(state.delay + extra)
    }
}

/// A running link. Its threads end with its connections; dropping it stops the listening.
#[derive(Debug)]
pub struct Link {
    /// Where to connect to.
    pub address: SocketAddr,
    /// From the connecting side to the target.
    pub forward: Arc<Way>,
    /// Back.
    pub back: Arc<Way>,
    listener: Arc<TcpListener>,
}

impl Link {
    /// Listens on a free port of loopback and forwards to `target`, holding bytes for `delay` each way.
    ///
    /// # Errors
    ///
    /// As bind(2), or where no thread can be started.
    pub fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
        let link = Self {
            address: listener.local_addr()?,
            forward: Arc::new(Way::new(delay)),
            back: Arc::new(Way::new(delay)),
            listener: Arc::clone(&listener),
        };
        let (forward, back) = (Arc::clone(&link.forward), Arc::clone(&link.back));
        Builder::new().name("link".into()).spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if let Err(error) = connect(near, target, &forward, &back) {
                    log::error!("link: to {target}: {error}");
                }
            }
        })?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        sys::stop_accepting(&self.listener);
    }
}

fn connect(
    near: TcpStream,
    target: SocketAddr,
    forward: &Arc<Way>,
    back: &Arc<Way>,
) -> io::Result<()> {
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near, far) = (Arc::new(near), Arc::new(far));
    one_way(&near, &far, forward)?;
    one_way(&far, &near, back)
}

type Held = (MonoTime, MonoTime, Vec<u8>);

fn one_way(from: &Arc<TcpStream>, to: &Arc<TcpStream>, way: &Arc<Way>) -> io::Result<()> {
    let (hold, held) = bounded::<Held>(QUEUE);
    let (from, reading) = (Arc::clone(from), Arc::clone(way));
    Builder::new()
        .name("link in".into())
        .spawn(move || take_in(&from, &reading, &hold))?;
    let (to, way) = (Arc::clone(to), Arc::clone(way));
    Builder::new()
        .name("link out".into())
        .spawn(move || let_out(&to, &way, &held))?;
    Ok(())
}

fn take_in(mut from: &TcpStream, way: &Way, hold: &Sender<Held>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let read_at = sys::clock::mono();
        let due = way.due(read_at);
        if hold.send((read_at, due, buffer[..read].to_vec())).is_err() {
            break; // The far side is gone.
        }
    }
}

fn let_out(mut to: &TcpStream, way: &Way, held: &Receiver<Held>) {
    sys::precise_timers();
    for (read_at, due, bytes) in held {
        wait_until(due);
        let written_at = sys::clock::mono();
        if to.write_all(&bytes).is_err() {
            let _ = to.shutdown(Shutdown::Read); // wakes the other direction's reader
            return;
        }
        if let Some(rate) = way.record(written_at.since(read_at)) {
            let nanos = bytes.len() as u64 * crate::time::NANOS_PER_SEC / rate.max(1);
            wait_until(sys::clock::mono() + Nanos(nanos));
        }
    }
    let _ = to.shutdown(Shutdown::Write); // Fails where the peer is gone.
}

/// Waits for an instant; there is nothing to be woken by.
fn wait_until(at: MonoTime) {
    if at > sys::clock::mono() {
        let _ = never::<()>().recv_deadline(sys::clock::instant(at));
    }
}
