//! Listening: accept threads, and the setting-up of each connection on its own `up` thread, so that a slow connect or a
//! silent client stops nobody else.

use crate::collect::queue::Traffic;
use crate::node::connect_window::ConnectWindow;
use crate::node::connection_log::{self, HasEnds};
use crate::node::dial::{Connected, DialError};
use crate::node::ends::{End, EndPair, PumpCounts, Session};
use crate::node::fault::{conclude, cut_off, explain, ConnectionFault};
use crate::node::gate::AcceptLimit;
use crate::node::introduce::{introduce, opened, report_nodes};
use crate::node::link_auth::{self, NoLink};
use crate::node::pump::Pump;
use crate::node::reader::{FrameReader, ReadFault};
use crate::node::{Ends, Node};
use crate::session::admission::{judge, Accept, Admission};
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::{Inbound, Violation};
use crate::session::path;
use crate::sync::lock;
use crate::sync::random;
use crate::sync::STACK;
use crate::sys;
use crate::time::Nanos;
use crate::vec_map::VecMap;
use crate::wire::{
    build, frame_type, push_stamp, set_egress, Annotations, ErrorCode, Flags, FrameView, Header,
    NodeRole, ParseError, Stamp, StampDirection, StampFlags, STAMP_LEN,
};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::cell::OnceCell;
use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long accepting rests when descriptors or threads are short.
const REST: Duration = Duration::from_millis(100);
/// At the end, connections on which nothing has moved for so long have nothing in flight.
const QUIET: Duration = Duration::from_millis(500);

/// How long that waits: for the last threads to end and the collector to have taken what they said.
const SETTLED: Duration = Duration::from_millis(400);
/// From so many connections on, what a crowd leaves free in the heap is given back when three quarters of it have gone.
const CROWD: usize = 16;

/// A node that listens.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Arc<TcpListener>>,
    accepting: Vec<JoinHandle<()>>,
    ended: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    stopping: AtomicBool,
    stop: Receiver<()>,
    /// Dropped to wake accept threads that rest.
    stopper: Mutex<Option<Sender<()>>>,
    next_id: AtomicUsize,
    open: Mutex<VecMap<usize, Weak<Connection>>>,
    /// The most that were open since memory was given back; changes under the lock of `open`.
    most_open: AtomicUsize,
    /// Most of them have ended since.
    crowd_has_gone: AtomicBool,
    ended: Sender<()>,
    totals: Mutex<Totals>,
    short: AtomicBool,
    gate: AcceptLimit,
}

/// What a node has seen of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accepted.
    pub connections: u64,
    /// Ended otherwise than by an orderly end.
    pub failed: u64,
    /// Reset at once for not being in a network of `--allow`.
    pub refused: u64,
    /// Moved.
    pub traffic: Traffic,
}

/// Binds every address; `timeout` is the node's `-t`.
///
/// # Errors
///
/// As bind(2) and listen(2), for the first address that fails.
pub fn bind(
    addresses: &[SocketAddr],
    timeout: Duration,
) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    addresses
        .iter()
        .map(|&address| {
            let listener = TcpListener::bind(address).map_err(|error| (address, error))?;
            // A shorter backlog than we would like still works.
            let _ = sys::widen_backlog(&listener);
            End::prepare(&listener, timeout).map_err(|error| (address, error))?;
            Ok(listener)
        })
        .collect()
}

/// The addresses that a listening endpoint stands for; no host means all of both families.
///
/// # Errors
///
/// As the resolver.
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
    /// A server that accepts.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn start(node: Node, listeners: Vec<TcpListener>) -> io::Result<Self> {
        let mut server = Self::new(node, listeners);
        server.accept()?;
        Ok(server)
    }

    /// One whose clients wait until it [accepts](Self::accept): all else that may fail can come before.
    pub fn new(node: Node, listeners: Vec<TcpListener>) -> Self {
        if node.settings.listens_for_arrivals() {
            // A kernel that does not tell leaves them unknown.
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
    /// Where a thread cannot be started.
    pub fn accept(&mut self) -> io::Result<()> {
        for listener in &self.listeners {
            let (shared, listener) = (Arc::clone(&self.shared), Arc::clone(listener));
            let accepting = Builder::new()
                .name("accept".into())
                .stack_size(STACK)
                .spawn(move || accept(&shared, &listener))?;
            self.accepting.push(accepting);
        }
        Ok(())
    }

    /// The node that serves.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// A view of the counts that outlives the server.
    pub fn watch(&self) -> ServerView {
        ServerView(Arc::clone(&self.shared))
    }

    /// Stops accepting, lets what is in flight finish within `--timeout`, and returns what was seen.
    ///
    /// A connection on which nothing moves has nothing in flight and is not waited for. What is open then is reset: an end
    /// of file would look like one that the other application made.
    pub fn stop(self) -> Totals {
        self.shared.stopping.store(true, Ordering::Release);
        lock(&self.shared.stopper).take();
        self.shared.gate.close();
        for listener in &self.listeners {
            sys::stop_accepting(listener);
        }
        for thread in self.accepting {
            // A panic has been reported on stderr.
            let _ = thread.join();
        }
        let deadline = Instant::now() + self.shared.node.settings.timeout;
        let mut moved = self.shared.moved();
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
        // Their pumps wake at once and count what they moved. One that is still connecting, or waits for its last word to be
        // taken, does not: it counts as it stands.
        let deadline = Instant::now() + QUIET;
        while self.shared.moved().is_some() && self.ended.recv_deadline(deadline).is_ok() {}
        let left = self.shared.connections();
        let (_, mut totals) = ServerView(Arc::clone(&self.shared)).totals();
        let failed = left.iter().filter(|one| one.pair.has_failed());
        totals.failed += failed.count() as u64;
        totals
    }
}

/// The counts of a node that serves, read while it does.
#[derive(Clone, Debug)]
pub struct ServerView(Arc<Shared>);

impl ServerView {
    /// The node that serves.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// How many connections are open, and what all there were have seen; those that are open count as they are now. No
    /// count is ever less than it was.
    pub fn totals(&self) -> (u64, Totals) {
        let shared = &self.0;
        // Before the lock, and dropped after it: the last reference to a connection takes it when dropped.
        let open = shared.connections();
        let totals = {
            // A pump moves its counts from there to here under this lock.
            let mut totals = *lock(&shared.totals);
            for connection in &open {
                totals.traffic.add(&carried(&connection.pair));
            }
            totals.refused = shared.gate.refused();
            totals.connections = shared.next_id.load(Ordering::Relaxed) as u64 - 1;
            totals
        };
        (open.len() as u64, totals)
    }

    /// The connections that are open now, in order of their numbers. Each is looked up when its turn comes: one that has
    /// ended meanwhile is left out, and none is kept from ending for longer than the caller holds it.
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

/// What its pumps have moved and not yet entered into the totals.
fn carried(pair: &EndPair) -> Traffic {
    let [up, down] = pair.carried.each_ref().map(PumpCounts::shown);
    Traffic {
        forward_blocks: up[0],
        forward_bytes: up[1],
        return_blocks: down[0],
        return_bytes: down[1],
        reports_dropped: up[2] + down[2],
    }
}

impl Shared {
    /// For `node`, and what tells that a connection has ended.
    fn new(node: Node) -> (Arc<Self>, Receiver<()>) {
        let (stopper, stop) = bounded(0);
        let (ended_tx, ended) = bounded(1); // One signal is as good as many.
        let shared = Arc::new(Self {
            gate: AcceptLimit::new(node.settings.limits.clone()),
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

    /// Whether a reader is slow: a pump is in the middle of a write, or the kernel holds what the peer has not taken. That
    /// is in flight, however long nothing moves.
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

    /// How often something was read on the connections that are open now; `None` where there are none, and all that there
    /// were stand in the totals.
    fn moved(&self) -> Option<usize> {
        // An upgraded one may turn out to be the last reference, whose drop takes the lock again: not under it.
        let open = self.connections();
        let reads = open
            .iter()
            .map(|connection| connection.pair.moved.load(Ordering::Relaxed));
        let reads = reads.fold(0, usize::wrapping_add);
        drop(open);
        // One that is being dropped is in none of the two, but in the table until it is counted.
        (!lock(&self.open).is_empty()).then_some(reads)
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    while shared.gate.wait() {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::Acquire) {
            return accepted.map_or((), |(socket, _)| turn_away(&socket));
        }
        match accepted {
            Ok((socket, peer)) => {
                if !shared.gate.admits(&socket, peer) {
                    continue;
                }
                if !shared.gate.enter() {
                    return turn_away(&socket);
                }
                if let Err(error) = spawn_up(shared, socket, peer) {
                    rest(shared, "start a thread for a connection", &error);
                } else {
                    recovered(shared);
                }
            }
            Err(error) if sys::is_shortage(&error) => rest(shared, "accept a connection", &error),
            // The client was gone before we came: nothing to do for us.
            Err(error) => log::debug!("accept: {error}"),
        }
    }
}

/// The node ends: nobody is to take that for an orderly end of its connection.
fn turn_away(socket: &TcpStream) {
    // Where it fails the client is gone already.
    let _ = sys::reset_on_close(socket);
}

/// Out of descriptors, threads or memory: say so once, and try again when some may be free.
#[cold]
fn rest(shared: &Shared, what: &str, error: &io::Error) {
    if !shared.short.swap(true, Ordering::Relaxed) {
        log::error!(
            "accept: cannot {what}: {error}; resting until some are free \
             (raise ulimit -n, ulimit -u or vm.max_map_count)"
        );
    }
    // The stopper is never sent to: this ends with the timeout, or when it is dropped.
    let _ = shared.stop.recv_timeout(REST);
}

fn recovered(shared: &Shared) {
    if shared.short.load(Ordering::Relaxed) && shared.short.swap(false, Ordering::Relaxed) {
        log::info!("accept: goes on");
    }
}

fn spawn_up(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let connection = Connection::new(shared, socket, peer);
    if let Some(sessions) = &shared.node.sessions {
        sessions.accepted(&connection);
    }
    let pumped = Arc::clone(&connection);
    let name = format!("up#{}", connection.pair.id);
    let spawned = sys::thread::spawn(name, STACK, move || {
        {
            let _guard = OnPanic::new(&pumped);
            if let Err(fault) = serve(&pumped) {
                conclude(&pumped.shared.node, &pumped.pair, fault);
            }
        }
        part_with(pumped);
    });
    if spawned.is_err() {
        connection.pair.fail();
        connection.pair.abort(); // The client is to hear of it as of a failure, not as of an orderly end.
    }
    spawned
}

/// A connection and its place in the books; whichever of its two threads ends last takes it out of them.
struct Connection {
    shared: Arc<Shared>,
    pair: EndPair,
    own_ends: OnceLock<Ends>,
}

impl Connection {
    fn new(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) -> Arc<Self> {
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let timeout = shared.node.settings.timeout;
        let kept = shared.node.settings.listens_for_arrivals();
        let client = End::accepted(socket, peer).with_arrivals(kept);
        let connection = Arc::new(Self {
            shared: Arc::clone(shared),
            pair: EndPair::new(id, client, timeout),
            own_ends: OnceLock::new(),
        });
        let mut open = lock(&shared.open);
        open.insert(id, Arc::downgrade(&connection));
        shared.most_open.fetch_max(open.len(), Ordering::Relaxed);
        drop(open);
        connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(ends) = self.own_ends.get() {
            self.shared.node.forget_own(ends);
        }
        if let Some(sessions) = &self.shared.node.sessions {
            sessions.ended(&self.pair);
        }
        {
            let mut totals = lock(&self.shared.totals);
            totals.connections += 1;
            totals.failed += u64::from(self.pair.has_failed());
            // Nothing but for a pump that panicked.
            totals.traffic.add(&carried(&self.pair));
        }
        {
            let mut open = lock(&self.shared.open);
            open.remove(&self.pair.id);
            let most = self.shared.most_open.load(Ordering::Relaxed);
            if most >= CROWD && open.len() <= most / 4 {
                self.shared.most_open.store(open.len(), Ordering::Relaxed);
                self.shared.crowd_has_gone.store(true, Ordering::Relaxed);
            }
        }
        self.shared.gate.leave();
        let _ = self.shared.ended.try_send(()); // Full: the one who waits is woken already.
    }
}

/// The last thing a connection's thread does. One of a crowd's last threads gives back what the crowd left free in the
/// heap: a moment later, when the others have ended, whose last pieces would keep it from going.
#[inline(never)]
fn part_with(connection: Arc<Connection>) {
    let shared = Arc::clone(&connection.shared);
    drop(connection);
    if shared.crowd_has_gone.load(Ordering::Relaxed)
        && shared.crowd_has_gone.swap(false, Ordering::Relaxed)
    {
        // Ends with the timeout, or at once where the node ends.
        let _ = shared.stop.recv_timeout(SETTLED);
        sys::return_free_memory();
    }
}

impl HasEnds for Connection {
    fn pair(&self) -> &EndPair {
        &self.pair
    }
}

/// A pump that panics takes its own connection with it, the other pump included, and nothing else.
struct OnPanic<'a>(&'a EndPair);

thread_local! {
    /// What the calling thread serves; the hook of a panic has no other way to know.
    static SERVED: OnceCell<Weak<Connection>> = const { OnceCell::new() };
}

impl<'a> OnPanic<'a> {
    fn new(connection: &'a Arc<Connection>) -> Self {
        // Set once: a thread serves one connection.
        let _ = SERVED.with(|served| served.set(Arc::downgrade(connection)));
        Self(&connection.pair)
    }
}

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            give_up(self.0);
        }
    }
}

/// The report of a panic cannot name the thread, which std did not make; this line says whose it was.
fn give_up(pair: &EndPair) {
    pair.fail();
    pair.abort();
    log::error!(
        "peer {}: connection #{} is given up for the panic above, a defect of this program",
        pair.client.peer,
        pair.id
    );
}

/// Makes a panic end its own connection alone also where panics abort (the profile `small`, without the tables that
/// unwinding needs): what `OnPanic` does is done in the hook, which then keeps the thread for ever instead of going on
/// to the abort. Each such panic costs a stack, two descriptors and a place of `--max-connections`, and a lock that was
/// held stays so: the connection's other pump may be kept with it. Any other thread's panic ends the process, and so does
/// any panic in another command than a node's. Call before any connection; where panics unwind it does nothing.
pub fn contain_panics() {
    if cfg!(panic = "abort") {
        keep_panicked_pumps(|| loop {
            std::thread::park();
        });
    }
}

fn keep_panicked_pumps(keep: impl Fn() + Send + Sync + 'static) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let served = SERVED.try_with(|served| served.get().and_then(Weak::upgrade));
        if let Ok(Some(connection)) = served {
            give_up(&connection.pair);
            keep();
        }
    }));
}

/// The whole life of a connection, seen from its first thread.
fn serve(connection: &Arc<Connection>) -> Result<(), ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let local = local_end(node, pair)?;
    let mut reader = FrameReader::new(pair, &pair.client, node.settings.idle_timeout);
    if admit(node, pair, &mut reader)? {
        pair.client.set_framed();
        serve_framed(connection, &mut reader, local)
    } else {
        serve_raw(connection, &mut reader, local)
    }
}

/// Our end of the client's connection, which is none of our own.
#[inline(never)]
fn local_end(node: &Node, pair: &EndPair) -> Result<SocketAddr, ConnectionFault> {
    let Ok(local) = pair.client.socket.local_addr() else {
        return Err(explain(
            node,
            pair,
            0,
            ConnectionSide::Client,
            ReadFault::Reset(io::ErrorKind::NotConnected.into()),
        ));
    };
    if node.is_own(&(pair.client.peer, local)) {
        return Err(own_loop(node, pair));
    }
    Ok(local)
}

#[inline(never)]
fn own_loop(node: &Node, pair: &EndPair) -> ConnectionFault {
    ConnectionFault::error(
        node,
        0,
        ErrorCode::Loop,
        format!(
            "client {} is this node itself: --forward-to leads back to --listen",
            pair.client.peer
        ),
    )
}

/// Whether the client is another node; reads as much as it takes to know.
#[inline(never)]
fn admit(
    node: &Node,
    pair: &EndPair,
    reader: &mut FrameReader<'_>,
) -> Result<bool, ConnectionFault> {
    let accept = node.settings.accept;
    let mut ended = false;
    loop {
        // A raw entry waits for nothing: the server may be the one to speak first.
        let verdict = judge(accept, reader.pending(), ended);
        match verdict {
            Admission::Framed => return Ok(true),
            Admission::Raw => return Ok(false),
            Admission::Refused(text) => {
                return Err(ConnectionFault::error(
                    node,
                    0,
                    ErrorCode::Protocol,
                    format!("peer {} {text}", pair.client.peer),
                ))
            }
            Admission::Undecided => {
                if accept == Accept::Auto && reader.pending().is_empty() {
                    await_first_word(node, &pair.client);
                }
                ended = !reader
                    .read_more()
                    .map_err(|fault| explain(node, pair, 0, ConnectionSide::Client, fault))?;
            }
        }
    }
}

/// Returns when the client has spoken, or has been silent for `-t`, which the log then says once: it may be waiting for
/// its server, to which there is no connection before it speaks. Where idle connections end, that end tells.
fn await_first_word(node: &Node, client: &End) {
    let timeout = node.settings.timeout;
    if node.next_hop.is_none() || node.settings.idle_timeout.is_some() {
        return;
    }
    if !sys::wait_readable(&client.socket, timeout) && node.tells_silence() {
        log::warn!(
            "peer {} has sent nothing for {} s, which decides whether it is a node: still waiting; if its server is to \
             speak first (ssh, SMTP, FTP, MySQL) use --accept raw (not said again)",
            client.peer,
            timeout.as_secs_f64()
        );
    }
}

/// Connects onward and puts the connection's other end into the pair.
fn connect(
    connection: &Connection,
    local: SocketAddr,
    session: Session,
) -> Result<Upstream, ConnectionFault> {
    let dialled = dial(connection, session)?;
    take_onward(connection, local, session, dialled)
}

/// Never inlined, as what follows: it goes deepest, and the stack's last page is touched for it or not.
#[inline(never)]
fn dial(connection: &Connection, session: Session) -> Result<Connected, ConnectionFault> {
    let node = &connection.shared.node;
    let next_hop = node.next_hop.as_ref().expect("only reflectors have none");
    next_hop
        .connect(node.settings.timeout)
        .map_err(|error: DialError| cannot_connect(node, session, format!("cannot {error}")))
}

#[inline(never)]
fn cannot_connect(node: &Node, session: Session, text: String) -> ConnectionFault {
    ConnectionFault::error(node, session.hop, ErrorCode::Connect, text)
}

#[inline(never)]
fn take_onward(
    connection: &Connection,
    local: SocketAddr,
    session: Session,
    dialled: Connected,
) -> Result<Upstream, ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let Connected {
        socket,
        address,
        took,
    } = dialled;
    let lost = |error: io::Error| {
        let text = format!("connect to {address}: {error}");
        cannot_connect(node, session, text)
    };
    let ends = (socket.local_addr().map_err(lost)?, address);
    node.remember_own(ends);
    connection
        .own_ends
        .set(ends)
        .expect("a pair is connected onward once");
    let end = End::new(socket, address, node.settings.timeout).map_err(lost)?;
    connection_log::connected(pair, &end, took);
    let connected = Instant::now();
    if pair.server.set(end).is_err() {
        unreachable!("a pair is connected onward once");
    }
    // Where the node has ended meanwhile, who cut the connection off found no server to reset. The fences order "server,
    // then failed" here against "failed, then server" in `abort_server`.
    fence(Ordering::SeqCst);
    if pair.has_failed() {
        pair.abort_server();
        return Err(ConnectionFault::silent());
    }
    if !node.settings.remove {
        greet(node, pair, session)?;
    }
    let greeted = Nanos::from(connected.elapsed());
    // Our own onward connection may have been accepted here before its address was registered; look again.
    if node.is_own(&(pair.client.peer, local)) {
        return Err(own_loop(node, pair));
    }
    Ok(Upstream {
        address,
        took: took + greeted,
    })
}

/// The next hop is a node: agrees with it on the link's authentication, if there is to be one.
#[inline(never)]
fn greet(node: &Node, pair: &EndPair, session: Session) -> Result<(), ConnectionFault> {
    let server = pair.server.get().expect("it was connected");
    if let Some(key) = &node.settings.key {
        // Not framed before the link stands: there is no last word that it would believe.
        link_auth::connect(
            server,
            key,
            session.cookie,
            session.hop,
            node.settings.timeout,
        )
        .map_err(|error| no_link(node, pair, session.hop, ConnectionSide::Server, error))?;
    }
    server.set_framed();
    if node.settings.wants_arrivals() {
        server.keep_arrivals();
    }
    Ok(())
}

#[inline(never)]
fn no_link(
    node: &Node,
    pair: &EndPair,
    hop: u8,
    side: ConnectionSide,
    error: NoLink,
) -> ConnectionFault {
    match error {
        NoLink::Parse(error) => explain(node, pair, hop, side, ReadFault::Parse(error)),
        NoLink::Io(error) => explain(node, pair, hop, side, ReadFault::Reset(error)),
        NoLink::Refused(text) | NoLink::Silent(text) => {
            let peer = pair.server.get().map_or(pair.client.peer, |end| end.peer);
            let text = format!("next hop {peer} {text}");
            ConnectionFault::error(node, hop, ErrorCode::Refused, text)
        }
    }
}

/// An onward connection.
struct Upstream {
    address: SocketAddr,
    /// How long that took, the agreement on a key included.
    took: Nanos,
}

/// Runs both pumps of a pair; the down pump on a thread of its own. Never inlined: what it keeps on the stack is not
/// there yet while connecting, which goes deepest.
#[inline(never)]
fn pump_both<'a>(
    connection: &'a Arc<Connection>,
    session: Session,
    down: fn(&mut Pump<'_>) -> Result<(), ConnectionFault>,
    up: impl FnOnce(&mut Pump<'a>) -> Result<(), ConnectionFault>,
) -> Result<(), ConnectionFault> {
    spawn_down(connection, session, down)?;
    let node = &connection.shared.node;
    let mut pump = Pump::new(node, &connection.pair, session, ConnectionSide::Client);
    let outcome = up(&mut pump);
    settle(connection, &pump, outcome);
    Ok(())
}

#[inline(never)]
fn spawn_down(
    connection: &Arc<Connection>,
    session: Session,
    down: fn(&mut Pump<'_>) -> Result<(), ConnectionFault>,
) -> Result<(), ConnectionFault> {
    let back = Arc::clone(connection);
    let name = format!("down#{}", connection.pair.id);
    sys::thread::spawn(name, STACK, move || {
        {
            let _guard = OnPanic::new(&back);
            let mut pump = Pump::new(
                &back.shared.node,
                &back.pair,
                session,
                ConnectionSide::Server,
            );
            let outcome = down(&mut pump);
            settle(&back, &pump, outcome);
        }
        part_with(back);
    })
    .map_err(|error| {
        ConnectionFault::error(
            &connection.shared.node,
            session.hop,
            ErrorCode::Refused,
            format!("cannot start a thread: {error} (raise ulimit -u or vm.max_map_count)"),
        )
    })
}

/// Runs a reflector's only pump.
#[inline(never)]
fn reflect<'a>(
    connection: &'a Connection,
    session: Session,
    run: impl FnOnce(&mut Pump<'a>) -> Result<(), ConnectionFault>,
) {
    let shared = &connection.shared;
    let mut pump = Pump::new(
        &shared.node,
        &connection.pair,
        session,
        ConnectionSide::Client,
    );
    let outcome = run(&mut pump);
    settle(connection, &pump, outcome);
}

fn settle(connection: &Connection, pump: &Pump<'_>, outcome: Result<(), ConnectionFault>) {
    let shared = &connection.shared;
    if let Err(fault) = outcome {
        conclude(&shared.node, &connection.pair, fault);
    }
    let mut totals = lock(&shared.totals);
    totals.traffic.add(&pump.traffic());
    // Not seen twice by who reads both, see `ServerView::totals`.
    connection.pair.carried[pump.source() as usize].clear();
}

#[inline(never)]
fn serve_raw<'a>(
    connection: &'a Arc<Connection>,
    reader: &mut FrameReader<'a>,
    local: SocketAddr,
) -> Result<(), ConnectionFault> {
    let node = &connection.shared.node;
    let mut own_session = Session {
        cookie: 0,
        hop: 0,
        hop_limit: node.settings.hop_limit,
    };
    if node.next_hop.is_none() {
        reflect(connection, own_session, |pump| pump.reflect_raw(reader));
        return Ok(());
    }
    if node.settings.remove {
        connect(connection, local, own_session)?;
        return pump_both(
            connection,
            own_session,
            |down| down.splice_back(),
            |up| up.splice(reader),
        );
    }
    own_session.cookie = random();
    // Set once: a connection carries one session.
    let _ = connection.pair.session.set(own_session);
    let standing = connect(connection, local, own_session)?;
    let open = open_as_entry(node, own_session, local, &standing);
    pump_both(
        connection,
        own_session,
        |down| down.deliver_back(),
        |up| up.wrap(reader, open),
    )
}

#[inline(never)]
fn open_as_entry(node: &Node, session: Session, local: SocketAddr, standing: &Upstream) -> Vec<u8> {
    let info = node.info(
        NodeRole::Entry,
        Some(standing.took),
        local.to_string(),
        standing.address.to_string(),
    );
    opening(node, session, &info)
}

/// The OPEN frame of a node that begins a path.
pub fn opening(node: &Node, session: Session, info: &crate::wire::NodeInfo) -> Vec<u8> {
    let mut annotations = Vec::new();
    let flags = introduce(&mut annotations, Flags(Flags::MARKED), session.hop, info);
    let now = node.clock.pump().read();
    let mut stamp = [0; STAMP_LEN];
    Stamp {
        node: node.id,
        hop: session.hop,
        direction: StampDirection::Forward,
        generation: now.generation,
        flags: StampFlags::default(),
        held: Nanos::ZERO,
        arrival: None,
        ingress: now.wall,
        egress: now.wall,
    }
    .emit(&mut stamp);
    let header = Header {
        flags,
        hop: session.hop,
        hop_limit: session.hop_limit,
        ..Header::new(frame_type::OPEN, session.cookie, 0)
    };
    build(header, &stamp, &annotations, &[])
}

/// The next frame, of which there has to be one.
#[inline(never)]
fn first_frame(
    node: &Node,
    pair: &EndPair,
    reader: &mut FrameReader<'_>,
) -> Result<Header, ConnectionFault> {
    reader
        .frame()
        .and_then(|header| header.ok_or(ReadFault::Truncated))
        .map_err(|fault| explain(node, pair, 0, ConnectionSide::Client, fault))
}

/// Whether the first frame was a HELLO, which is answered and done with; it has to be one where there is a key.
#[inline(never)]
fn is_greeted(
    node: &Node,
    pair: &EndPair,
    reader: &mut FrameReader<'_>,
    header: &Header,
) -> Result<bool, ConnectionFault> {
    let hop = header.hop.saturating_add(1);
    let fault = |error| no_link(node, pair, hop, ConnectionSide::Client, error);
    match (&node.settings.key, header.kind == frame_type::HELLO) {
        (None, false) => Ok(false),
        (Some(_), false) => Err(fault(NoLink::Parse(ParseError::Unauthenticated))),
        (None, true) => Err(ConnectionFault::error(
            node,
            hop,
            ErrorCode::Refused,
            format!(
                "peer {} has a --key-file, and this node has none: give both ends of the link the same key, or none",
                pair.client.peer
            ),
        )),
        (Some(key), true) => {
            link_auth::accept(&pair.client, key, &reader.view(*header)).map_err(fault)?;
            reader.consume(header);
            Ok(true)
        }
    }
}

#[inline(never)]
fn serve_framed<'a>(
    connection: &'a Arc<Connection>,
    reader: &mut FrameReader<'a>,
    local: SocketAddr,
) -> Result<(), ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let mut inbound = Inbound::forward();
    let mut header = first_frame(node, pair, reader)?;
    if is_greeted(node, pair, reader, &header)? {
        header = first_frame(node, pair, reader)?;
    }
    let mut clock = node.clock.pump();
    let ingress = clock.read();
    // What came in the same read was there then, too.
    reader.take_fresh();
    reader.verify(&header).map_err(|fault| {
        explain(
            node,
            pair,
            header.hop.saturating_add(1),
            ConnectionSide::Client,
            fault,
        )
    })?;
    let own_session = Session {
        cookie: header.cookie,
        hop: header.hop.saturating_add(1),
        hop_limit: header.hop_limit,
    };
    // Set once: a connection carries one session.
    let _ = connection.pair.session.set(own_session);
    inbound.check(&header).map_err(|violation: Violation| {
        ConnectionFault::error(
            node,
            own_session.hop,
            violation.code(),
            format!("peer {} {violation}", pair.client.peer),
        )
    })?;
    let view = reader.view(header);
    if let Some(hop) = path::find(view.annotations(), node.id) {
        return Err(ConnectionFault::error(
            node,
            own_session.hop,
            ErrorCode::Loop,
            format!(
                "loop: this node is on the path of {} already, as hop {hop}; check --forward-to along the chain",
                pair.client.peer
            ),
        ));
    }
    let reflects = node.next_hop.is_none();
    let standing = if reflects {
        None
    } else {
        Some(connect(connection, local, own_session)?)
    };
    let window = standing
        .as_ref()
        .and_then(|_| ConnectWindow::new(ingress, clock.read()));
    let role = match (reflects, node.settings.remove) {
        (true, _) => NodeRole::Echo,
        (false, true) => NodeRole::Exit,
        (false, false) => NodeRole::Relay,
    };
    let open = pass_open(
        node,
        local,
        own_session,
        &view,
        role,
        standing.as_ref(),
        ingress,
    );
    reader.consume(&header);
    if role != NodeRole::Relay {
        report_nodes(node, own_session, Annotations::new(&open.annotations));
    }
    match role {
        NodeRole::Echo => {
            let answer = opened(own_session, &open.annotations);
            drop(open);
            reflect(connection, own_session, move |pump| {
                pump.begin(ingress, window);
                pump.say(ConnectionSide::Client, answer)?;
                pump.reflect(reader, inbound)
            });
            Ok(())
        }
        NodeRole::Exit => {
            pair.client.queue_reports();
            let answer = opened(own_session, &open.annotations);
            drop(open);
            let first = reader.next_whole();
            if first.is_some_and(|first| first.marked()) && node.settings.stamp {
                // The first block came along: OPENED goes out with its report.
                pair.client.offer(pair.client.with_room(answer));
            } else {
                // Before there is a second writer: a server that speaks first and at length must not hold the up pump up.
                Pump::new(node, pair, own_session, ConnectionSide::Client)
                    .say(ConnectionSide::Client, answer)?;
            }
            pump_both(
                connection,
                own_session,
                |down| down.wrap_back(),
                |up| {
                    up.begin(ingress, window);
                    up.deliver(reader, inbound)
                },
            )
        }
        _ => {
            let Opening { frame, annotations } = open;
            drop(annotations);
            let server = pair.server.get().expect("it was connected");
            let frame = server.with_room(frame);
            pump_both(
                connection,
                own_session,
                |down| down.relay_back(),
                |up| {
                    up.begin(ingress, window);
                    up.relay(reader, inbound, frame)
                },
            )
        }
    }
}

struct Opening {
    annotations: Vec<u8>,
    frame: Vec<u8>,
}

/// The OPEN frame as this node passes it on: introduced and stamped, unless it was told to add nothing.
#[inline(never)]
fn pass_open(
    node: &Node,
    local: SocketAddr,
    session: Session,
    view: &FrameView<'_>,
    role: NodeRole,
    standing: Option<&Upstream>,
    ingress: crate::node::clock::Moment,
) -> Opening {
    let mut annotations = view.annotation_bytes().to_vec();
    let mut header = Header {
        hop: session.hop,
        ..view.header
    };
    if node.settings.stamp {
        let info = node.info(
            role,
            standing.map(|standing| standing.took),
            local.to_string(),
            standing.map_or_else(String::new, |standing| standing.address.to_string()),
        );
        header.flags = introduce(&mut annotations, header.flags, session.hop, &info);
    }
    let mut frame = vec![0; STAMP_LEN];
    frame.extend_from_slice(&build(header, view.stamp_bytes(), &annotations, &[]));
    if !node.settings.stamp {
        frame.drain(..STAMP_LEN);
        return Opening { annotations, frame };
    }
    let stamp = Stamp {
        node: node.id,
        hop: session.hop,
        direction: StampDirection::Forward,
        generation: ingress.generation,
        flags: StampFlags::default(),
        held: Nanos::ZERO,
        arrival: None,
        ingress: ingress.wall,
        egress: ingress.wall,
    };
    let mut header = Header::parse(&frame[STAMP_LEN..]).expect("it was built above");
    let (start, stamp_at) = push_stamp(&mut frame, STAMP_LEN, &mut header, &stamp);
    if let Some(at) = stamp_at {
        let egress = node.clock.pump().read();
        set_egress(&mut frame[at..], egress.wall, egress.generation);
    }
    frame.drain(..start);
    Opening { annotations, frame }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeSettings;
    use std::io::{Read, Write};

    const TIMEOUT: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(60);

    fn pair(listener: &TcpListener, id: usize) -> (TcpStream, EndPair) {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, peer) = listener.accept().unwrap();
        let end = End::new(far, peer, Duration::from_secs(10)).unwrap();
        (near, EndPair::new(id, end, Duration::from_secs(10)))
    }

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
        // It waits in the kernel, for whoever accepts.
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
        assert!(shared.gate.enter());
        let connection = Connection::new(&shared, socket, peer);
        std::thread::scope(|scope| {
            let held = lock(&shared.totals);
            scope.spawn(move || drop(connection));
            let deadline = Instant::now() + LONG;
            // Without holding it for a moment: then its last holder might be this thread, which has the lock.
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
        assert!(server.shared.gate.enter());
        let connection = Connection::new(&server.shared, socket, peer);
        connection.pair.carried[ConnectionSide::Client as usize].show(3, 300);
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

    #[test]
    fn a_connection_that_is_cut_off_while_it_connects_resets_its_server() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let settings = NodeSettings {
            accept: Accept::Raw,
            remove: true,
            ..NodeSettings::new("P", NodeRole::Proxy, TIMEOUT)
        };
        let next = crate::node::dial::NextHop::resolve("127.0.0.1", port, LONG).unwrap();
        let (node, _queue) = Node::new(settings, Some(next));
        let (shared, _) = Shared::new(node);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let local = socket.local_addr().unwrap();
        assert!(shared.gate.enter());
        let connection = Connection::new(&shared, socket, peer);
        cut_off(&shared.node, &connection.pair);
        assert!(connect(&connection, local, Session::default()).is_err());
        drop(connection);
        let (mut reached, _) = server.accept().unwrap();
        reached.set_read_timeout(Some(LONG)).unwrap();
        let error = reached.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_pump_that_panics_takes_its_own_connection_with_it_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut near, own) = pair(&listener, 1);
        let (mut bystander, other) = pair(&listener, 2);
        std::thread::scope(|scope| {
            // The other pump of the pair, which waits for bytes: it has to come to its end too.
            let reader = scope.spawn(|| FrameReader::new(&own, &own.client, None).chunk().is_err());
            let panicking = scope.spawn(|| {
                let _guard = OnPanic(&own);
                let _locked = own.client.lock(); // A lock that is held then must not stop those who come after.
                panic!("on purpose");
            });
            assert!(panicking.join().is_err());
            assert!(reader.join().unwrap(), "it was told");
        });
        assert!(own.has_failed() && !other.has_failed());
        drop(own.client.lock());
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        bystander.write_all(b"x").unwrap();
        let mut reader = FrameReader::new(&other, &other.client, None);
        assert_eq!(reader.chunk().unwrap().unwrap().bytes(), b"x");
    }

    #[test]
    fn a_pump_that_panics_where_nothing_unwinds_resets_its_connection_and_goes_no_further() {
        let (release, released) = bounded::<()>(0);
        // Other tests' threads serve nothing: for them it only reports.
        keep_panicked_pumps(move || released.recv_timeout(LONG).unwrap_or_default());
        let (node, _queue) = Node::new(NodeSettings::new("Z", NodeRole::Echo, TIMEOUT), None);
        let (shared, _) = Shared::new(node);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        assert!(shared.gate.enter());
        let connection = Connection::new(&shared, socket, peer);
        let thread = std::thread::spawn(move || {
            let _guard = OnPanic::new(&connection);
            connection.pair.carried[0].show(3, 300);
            panic!("a test's own");
        });
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(!thread.is_finished(), "it is in the hook");
        drop(release);
        assert!(
            thread.join().is_err(),
            "where panics unwind it goes on after the hook"
        );
        let totals = *lock(&shared.totals);
        let seen = (
            totals.connections,
            totals.failed,
            totals.traffic.forward_bytes,
        );
        assert_eq!(seen, (1, 1, 300), "what it had moved is not lost");
    }
}
