//! Listening: accept threads, the connections that are open, and their totals.

use crate::collect::queue::Traffic;
use crate::node::accept_limit::AcceptLimit;
use crate::node::connection::{spawn_up, Connection};
use crate::node::connection_log::HasEnds;
use crate::node::end::End;
use crate::node::fault::cut_off;
use crate::node::pair::{EndPair, PumpCounts};
use crate::node::Node;
use crate::session::admission::Accept;
use crate::session::allow::Network;
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::{lock, spawn, STACK};
use crate::sys::{self, SocketOptions};
use crate::vec_map::VecMap;
use crate::wire::{build, ErrorCode, ErrorInfo, Flags, FrameType, Header};
use std::io::{self, Write};
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The pause of an accept thread when descriptors or threads are short.
const PAUSE: Duration = Duration::from_millis(100);
/// At the end of the node, a connection on which nothing has moved for so long has nothing in
/// flight.
const QUIET: Duration = Duration::from_millis(500);

/// A node that listens.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Arc<TcpListener>>,
    accepting: Vec<JoinHandle<()>>,
    ended: Receiver<()>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: Node,
    pub(super) stopping: AtomicBool,
    pub(super) stop: Receiver<()>,
    /// Dropped to wake accept threads that pause.
    pub(super) stopper: Mutex<Option<Sender<()>>>,
    pub(super) next_id: AtomicUsize,
    pub(super) open: Mutex<VecMap<usize, Weak<Connection>>>,
    /// The most that were open since memory was returned; changes under the lock of `open`.
    pub(super) most_open: AtomicUsize,
    /// Set when most of them have ended since.
    pub(super) crowd_has_gone: AtomicBool,
    pub(super) ended: Sender<()>,
    pub(super) totals: Mutex<Totals>,
    pub(super) short: AtomicBool,
    pub(super) limit: AcceptLimit,
}

/// The totals of a node over its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accepted connections.
    pub connections: u64,
    /// Connections without an orderly end.
    pub failed: u64,
    /// Clients that were reset because they are in no network of `--allow`.
    pub refused: u64,
    /// Traffic in both directions.
    pub traffic: Traffic,
}

/// Binds every address; `timeout` is `--timeout` of the node. Accepted sockets have the DSCP of
/// `options`.
///
/// # Errors
///
/// The error of bind(2) or listen(2), with the first address that fails.
pub fn bind(
    addresses: &[SocketAddr],
    timeout: Duration,
    options: &SocketOptions,
) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    addresses
        .iter()
        .map(|&address| {
            let listener = sys::listen_on(address).map_err(|error| (address, error))?;
            // A shorter backlog works too.
            let _ = sys::widen_backlog(&listener);
            End::prepare(&listener, timeout)
                .and_then(|()| options.mark(&listener, address.ip()))
                .map_err(|error| (address, error))?;
            Ok(listener)
        })
        .collect()
}

/// Returns the addresses of a listening endpoint; without a host, those of both families.
///
/// # Errors
///
/// Those of the resolver.
pub fn listen_addresses(
    host: Option<&str>,
    port: u16,
    timeout: Duration,
) -> io::Result<Vec<SocketAddr>> {
    match host {
        Some(host) => crate::node::dial::resolve(host, port, timeout),
        // The wildcard of IPv6 takes IPv4 too, where the kernel has IPv6 at all.
        None if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() => Ok(vec![SocketAddr::new(
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port,
        )]),
        None => Ok(vec![SocketAddr::new(
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port,
        )]),
    }
}

impl Server {
    /// Starts a server that accepts at once.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept).
    pub fn start(node: Node, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let mut server = Self::new(node, listeners);
        server.accept()?;
        Ok(server)
    }

    /// Makes a server whose clients wait until it [accepts](Self::accept). So whatever may fail can
    /// come before.
    pub fn new(node: Node, listeners: Vec<TcpListener>) -> Self {
        if node.settings.listens_for_arrivals() {
            // Arrival times stay unknown if the kernel has none.
            listeners
                .iter()
                .for_each(|listener| drop(sys::receive::keep_arrivals(listener)));
        }
        let (shared, ended) = Shared::new(node);
        Self {
            shared,
            listeners: listeners.into_iter().map(Arc::new).collect(),
            accepting: Vec::new(),
            ended,
        }
    }

    /// Starts an accept thread for each listener; called once.
    ///
    /// # Errors
    ///
    /// The error of the system, if a thread cannot be started.
    pub fn accept(&mut self) -> io::Result<()> {
        for listener in &self.listeners {
            let (shared, listener) = (Arc::clone(&self.shared), Arc::clone(listener));
            let accepting = spawn("accept", STACK, move || accept(&shared, &listener))?;
            self.accepting.push(accepting);
        }
        Ok(())
    }

    /// The node that serves.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// Returns a view of the counts that outlives the server.
    pub fn watch(&self) -> ServerView {
        ServerView(Arc::clone(&self.shared))
    }

    /// Stops accepting, closes the listeners, lets what is in flight finish within `--drain`, and
    /// returns the totals.
    ///
    /// A connection on which nothing moves has nothing in flight, and delays nothing. All that are
    /// open after that are reset: an end of file would look like one of the other application.
    pub fn stop(self) -> Totals {
        self.shared.stopping.store(true, Ordering::Release);
        lock(&self.shared.stopper).take();
        self.shared.limit.close();
        for listener in &self.listeners {
            sys::stop_accepting(listener);
        }
        for thread in self.accepting {
            // A panic has been reported on stderr.
            let _ = thread.join();
        }
        drop(self.listeners);
        let drain = self.shared.node.settings.drain;
        let deadline = Instant::now() + drain;
        // Those that end at once need no line.
        let grace = Instant::now() + PAUSE.min(drain);
        while self.shared.moved().is_some() && self.ended.recv_deadline(grace).is_ok() {}
        let mut moved = self.shared.moved();
        if moved.is_some() {
            log::warn!(
                "main: waits up to {} s for what is in flight on open connections: {} (--drain; a \
                 second signal ends at once)",
                drain.as_secs_f64(),
                self.shared.connections().len()
            );
        }
        while moved.is_some() && Instant::now() < deadline {
            let quiet = QUIET.min(deadline.saturating_duration_since(Instant::now()));
            let ended = self.ended.recv_timeout(quiet).is_ok();
            let now = self.shared.moved();
            if now == moved && !ended && !self.shared.has_slow_reader() {
                break;
            }
            moved = now;
        }
        let left = self.shared.connections();
        if !left.is_empty() {
            log::warn!("main: connections still open, reset: {}", left.len());
        }
        for connection in &left {
            cut_off(&self.shared.node, &connection.pair);
        }
        drop(left);
        // Their pumps wake at once and count what they moved. One that is still connecting, or
        // waits until its final frame is taken, does not: it counts as it is.
        let deadline = Instant::now() + QUIET;
        while self.shared.moved().is_some() && self.ended.recv_deadline(deadline).is_ok() {}
        let left = self.shared.connections();
        let (_, mut totals) = ServerView(Arc::clone(&self.shared)).totals();
        let failed = left.iter().filter(|one| one.pair.has_failed());
        totals.failed += failed.count() as u64;
        totals
    }
}

/// The counts of a server, readable while it runs.
#[derive(Clone, Debug)]
pub struct ServerView(Arc<Shared>);

impl ServerView {
    /// The node that serves.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Replaces the networks whose clients may connect. Open connections stay.
    pub fn set_allow(&self, networks: Vec<Network>) {
        self.0.limit.set_allow(networks);
    }

    /// Returns the number of open connections, and the totals, open ones included. No count ever
    /// decreases.
    pub fn totals(&self) -> (u64, Totals) {
        let shared = &self.0;
        // Taken before the lock and dropped after it: the drop of the last reference takes the
        // lock.
        let open = shared.connections();
        let totals = {
            // A pump moves its counts from there to here under this lock.
            let mut totals = *lock(&shared.totals);
            for connection in &open {
                totals.traffic.add(&carried(&connection.pair));
            }
            totals.refused = shared.limit.refused();
            totals.connections = shared.next_id.load(Ordering::Relaxed) as u64 - 1;
            totals
        };
        (open.len() as u64, totals)
    }

    /// Returns the open connections in the order of their numbers. Each is looked up when it is
    /// due. One that has ended meanwhile is left out, and none is held longer than its caller holds
    /// it.
    pub fn open(&self) -> impl Iterator<Item = Arc<dyn HasEnds>> + '_ {
        let open = &self.0.open;
        let last = lock(open).keys().next_back().copied();
        let mut next = Some(0);
        iter::from_fn(move || loop {
            let (id, connection) = lock(open)
                .starting_at(&next?)
                .next()
                .map(|(id, connection)| (*id, Weak::clone(connection)))
                .filter(|(id, _)| Some(*id) <= last)?;
            next = id.checked_add(1);
            if let Some(live) = connection.upgrade() {
                return Some(live as Arc<dyn HasEnds>);
            }
        })
    }
}

/// Returns the traffic of its pumps that is not part of the totals yet.
pub(super) fn carried(pair: &EndPair) -> Traffic {
    let [up, down] = pair.counts.each_ref().map(PumpCounts::load);
    Traffic {
        forward_blocks: up[0],
        forward_bytes: up[1],
        return_blocks: down[0],
        return_bytes: down[1],
        reports_dropped: up[2] + down[2],
    }
}

impl Shared {
    /// Makes the state of a server, and the receiver of a signal for each connection that ends.
    pub(super) fn new(node: Node) -> (Arc<Self>, Receiver<()>) {
        let (stopper, stop) = channel(0);
        let (ended_tx, ended) = channel(1); // One signal is as good as many.
        let shared = Arc::new(Self {
            limit: AcceptLimit::new(node.settings.limits.clone()),
            node,
            stopping: AtomicBool::new(false),
            stop,
            stopper: Mutex::new(Some(stopper)),
            next_id: AtomicUsize::new(1),
            open: Mutex::default(),
            most_open: AtomicUsize::new(0),
            crowd_has_gone: AtomicBool::new(false),
            ended: ended_tx,
            totals: Mutex::default(),
            short: AtomicBool::new(false),
        });
        (shared, ended)
    }

    /// Returns `true` if a reader is slow: a pump is blocked in a write, or the kernel holds bytes
    /// for a peer. They are in flight, even if nothing moves for long.
    fn has_slow_reader(&self) -> bool {
        let open = self.connections();
        open.iter().any(|connection| {
            let pair = &connection.pair;
            pair.blocked.load(Ordering::Acquire) > 0 || pair.unacknowledged() > 0
        })
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.open)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Returns the number of reads on the open connections; `None` if all connections have ended
    /// and are part of the totals.
    fn moved(&self) -> Option<usize> {
        // An upgraded one may be the last reference, whose drop takes the lock again: not under it.
        let open = self.connections();
        let reads = open
            .iter()
            .map(|connection| connection.pair.moved.load(Ordering::Relaxed));
        let reads = reads.fold(0, usize::wrapping_add);
        drop(open);
        // One that is being dropped stays in the table until it is part of the totals.
        (!lock(&self.open).is_empty()).then_some(reads)
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    while shared.limit.wait() {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::Acquire) {
            return accepted.map_or((), |(socket, _)| reset(&socket));
        }
        match accepted {
            Ok((socket, peer)) => {
                if !shared.limit.admit(peer) {
                    refuse(shared, &socket, peer);
                    continue;
                }
                if !shared.limit.acquire() {
                    return reset(&socket);
                }
                if let Err(error) = spawn_up(shared, socket, peer) {
                    pause(shared, "start a thread for a connection", &error);
                } else {
                    log_recovery(shared);
                }
            }
            Err(error) if sys::is_shortage(&error) => pause(shared, "accept a connection", &error),
            // The client was gone before it was accepted.
            Err(error) => log::debug!("accept: {error}"),
        }
    }
}

/// Closes a client that `--allow` does not name, without a thread and without reading. A few of those
/// that can only be nodes get the reason, where it needs no authentication; all others are reset.
#[cold]
fn refuse(shared: &Shared, mut socket: &TcpStream, peer: SocketAddr) {
    let settings = &shared.node.settings;
    let explains = settings.accept == Accept::Framed && settings.keys.is_empty();
    if explains && shared.limit.may_explain() {
        let address = peer.ip().to_canonical();
        let info = ErrorInfo {
            code: ErrorCode::Refused,
            hop: 0, // Not known without OPEN.
            node: shared.node.id,
            text: format!(
                "{} does not let {address} in: start it with --allow {address} too",
                settings.name
            ),
        };
        let header = Header {
            flags: Flags(Flags::RETURN),
            ..Header::new(FrameType::Error, 0, 0)
        };
        let frame = build(header, &[], &[], &info.emit());
        // The empty buffer of a new socket takes it; nothing waits here.
        if socket.set_nonblocking(true).is_ok() && socket.write_all(&frame).is_ok() {
            let _ = socket.shutdown(Shutdown::Write);
            return;
        }
    }
    reset(socket);
}

/// Resets a client of a node that ends: an end of file would look like an orderly end.
fn reset(socket: &TcpStream) {
    // It fails only if the client is gone already.
    let _ = sys::reset_on_close(socket);
}

/// Pauses when descriptors, threads or memory are short, and logs that once.
#[cold]
fn pause(shared: &Shared, what: &str, error: &io::Error) {
    if !shared.short.swap(true, Ordering::Relaxed) {
        log::error!(
            "accept: cannot {what}: {error}; resting until some are free \
             (raise ulimit -n, ulimit -u or vm.max_map_count)"
        );
    }
    // Nothing is ever sent to the stopper: this ends with the timeout, or when that is dropped.
    let _ = shared.stop.recv_timeout(PAUSE);
}

fn log_recovery(shared: &Shared) {
    if shared.short.load(Ordering::Relaxed) && shared.short.swap(false, Ordering::Relaxed) {
        log::info!("accept: goes on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeSettings;
    use crate::session::connection_record::ConnectionSide;
    use crate::wire::NodeRole;
    use std::io::Read;

    const TIMEOUT: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn clients_wait_until_the_server_accepts() {
        let settings = NodeSettings {
            accept: Accept::Auto,
            ..NodeSettings::new("Z", NodeRole::Echo, TIMEOUT)
        };
        let (node, _queue) = Node::new(settings, None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let early = TcpStream::connect(address).unwrap();
        let mut server = Server::new(node, vec![listener]);
        assert!(server.accepting.is_empty());
        // It waits in the kernel until it is accepted.
        let (_taken, peer) = server.listeners[0].accept().unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
        assert_eq!(server.watch().totals().1.connections, 0);
        server.accept().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client.write_all(b"x").unwrap();
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((answer, server.watch().totals().1.connections), (*b"x", 1));
        drop(client);
        server.stop();
    }

    #[test]
    fn a_connection_is_open_until_it_is_counted() {
        let (node, _queue) = Node::new(NodeSettings::new("Z", NodeRole::Echo, TIMEOUT), None);
        let (shared, ended) = Shared::new(node);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        assert!(shared.limit.acquire());
        let connection = Connection::new(&shared, socket, peer);
        std::thread::scope(|scope| {
            let held = lock(&shared.totals);
            scope.spawn(move || drop(connection));
            let deadline = Instant::now() + LONG;
            // Without an upgrade, after which this thread might be the last holder, with the lock
            // taken.
            let is_held = |one: &Weak<Connection>| one.strong_count() > 0;
            while lock(&shared.open).values().any(is_held) {
                assert!(Instant::now() < deadline, "it is not dropped");
                std::thread::yield_now();
            }
            assert!(shared.moved().is_some(), "it waits for the totals");
            drop(held);
            ended.recv_timeout(LONG).unwrap();
        });
        assert_eq!(shared.moved(), None);
        assert_eq!(lock(&shared.totals).connections, 1);
    }

    #[test]
    fn a_connection_that_has_not_ended_when_its_node_does_is_counted() {
        let (node, _queue) = Node::new(NodeSettings::new("Z", NodeRole::Echo, TIMEOUT), None);
        let server = Server::new(node, Vec::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        assert!(server.shared.limit.acquire());
        let connection = Connection::new(&server.shared, socket, peer);
        connection.pair.counts[ConnectionSide::Client as usize].store(3, 300);
        let totals = server.stop();
        let seen = (totals.connections, totals.failed, totals.traffic);
        let traffic = Traffic {
            forward_blocks: 3,
            forward_bytes: 300,
            ..Traffic::default()
        };
        assert_eq!(seen, (1, 1, traffic));
    }

    #[test]
    fn a_client_that_is_accepted_as_the_node_ends_is_reset() {
        let (node, _queue) = Node::new(NodeSettings::new("Z", NodeRole::Echo, TIMEOUT), None);
        let (shared, _) = Shared::new(node);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        shared.stopping.store(true, Ordering::Release);
        accept(&shared, &listener);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
