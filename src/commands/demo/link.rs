//! A delay link: a TCP forwarder on loopback that holds every byte for a time that each direction
//! sets. It stands in for a network and needs no privileges.

use crate::sync::{lock, spawn, LARGE_STACK};
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crossbeam_channel::{bounded, never, Receiver, Sender};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The most chunks under way in one direction. A full link stops reading, as a network with a full
/// queue does.
const QUEUE: usize = 1024;
const CHUNK: usize = 64 << 10;

/// The behaviour of one direction of a link.
pub trait Hold: fmt::Debug + Send + Sync {
    /// Returns the time until which a chunk is held that was read at `read_at`.
    fn until(&self, read_at: MonoTime) -> MonoTime;

    /// Notes that a chunk of `len` bytes was written after `held`. Returns the pause before the
    /// next one.
    fn written(&self, len: usize, held: Nanos) -> Nanos;
}

/// A direction with one delay, which may change at any time.
#[derive(Debug)]
pub struct Delay(Mutex<Nanos>);

impl Delay {
    /// Returns a direction that holds bytes for `delay`.
    pub fn new(delay: Duration) -> Self {
        Self(Mutex::new(delay.into()))
    }

    /// Holds bytes for `delay` from now on.
    pub fn set(&self, delay: Duration) {
        *lock(&self.0) = delay.into();
    }
}

impl Hold for Delay {
    fn until(&self, read_at: MonoTime) -> MonoTime {
        read_at + *lock(&self.0)
    }

    fn written(&self, _len: usize, _held: Nanos) -> Nanos {
        Nanos::ZERO
    }
}

/// A running link. Its threads end with its connections; dropping it stops the listening.
#[derive(Debug)]
pub struct DelayLink {
    /// The address for clients.
    pub address: SocketAddr,
    listener: Arc<TcpListener>,
}

impl DelayLink {
    /// Listens on a free port of loopback and forwards to `target`; `forward` holds the bytes to
    /// it, `back` those from it.
    ///
    /// # Errors
    ///
    /// As bind(2), or clone(2) if no thread can be started.
    pub fn start(
        target: SocketAddr,
        forward: Arc<dyn Hold>,
        back: Arc<dyn Hold>,
    ) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
        let link = Self {
            address: listener.local_addr()?,
            listener: Arc::clone(&listener),
        };
        spawn("link", LARGE_STACK, move || {
            while let Ok((near, _)) = listener.accept() {
                if let Err(error) = connect(near, target, &forward, &back) {
                    log::error!("link: to {target}: {error}");
                }
            }
        })?;
        Ok(link)
    }
}

impl Drop for DelayLink {
    fn drop(&mut self) {
        sys::stop_accepting(&self.listener);
    }
}

fn connect(
    near: TcpStream,
    target: SocketAddr,
    forward: &Arc<dyn Hold>,
    back: &Arc<dyn Hold>,
) -> io::Result<()> {
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near, far) = (Arc::new(near), Arc::new(far));
    one_way(&near, &far, forward)?;
    one_way(&far, &near, back)
}

/// A chunk under way: the time of its reading, the time until which it is held, and its bytes.
type Held = (MonoTime, MonoTime, Vec<u8>);

fn one_way(
    from: &Arc<TcpStream>,
    to: &Arc<TcpStream>,
    direction: &Arc<dyn Hold>,
) -> io::Result<()> {
    let (hold, held) = bounded::<Held>(QUEUE);
    let (from, reading) = (Arc::clone(from), Arc::clone(direction));
    spawn("link in", LARGE_STACK, move || {
        read(&from, &*reading, &hold);
    })?;
    let (to, direction) = (Arc::clone(to), Arc::clone(direction));
    spawn("link out", LARGE_STACK, move || {
        write(&to, &*direction, &held);
    })?;
    Ok(())
}

fn read(mut from: &TcpStream, direction: &dyn Hold, hold: &Sender<Held>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let read_at = sys::clock::mono();
        let until = direction.until(read_at);
        if hold
            .send((read_at, until, buffer[..read].to_vec()))
            .is_err()
        {
            break; // The far side is gone.
        }
    }
}

fn write(mut to: &TcpStream, direction: &dyn Hold, held: &Receiver<Held>) {
    sys::precise_timers();
    for (read_at, until, bytes) in held {
        wait_until(until);
        let written_at = sys::clock::mono();
        if to.write_all(&bytes).is_err() {
            let _ = to.shutdown(Shutdown::Read); // wakes the other direction's reader
            return;
        }
        let pause = direction.written(bytes.len(), written_at.since(read_at));
        if pause > Nanos::ZERO {
            wait_until(sys::clock::mono() + pause);
        }
    }
    let _ = to.shutdown(Shutdown::Write); // Fails if the peer is gone.
}

/// Waits until `at`.
fn wait_until(at: MonoTime) {
    if at > sys::clock::mono() {
        let _ = never::<()>().recv_deadline(sys::clock::instant(at));
    }
}
