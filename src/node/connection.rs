//! A connection: its entry in the table of open ones, its threads, and the reach of a panic in
//! them.

use crate::node::accept::{carried, Shared};
use crate::node::connection_log::HasEnds;
use crate::node::end::End;
use crate::node::fault::{conclude, ConnectionFault};
use crate::node::pair::EndPair;
use crate::node::pump::Pump;
use crate::node::serve::serve;
use crate::node::Ends;
use crate::session::connection_record::ConnectionSide;
use crate::session::opening::Session;
use crate::sync::lock;
use crate::sync::STACK;
use crate::sys;
use crate::wire::ErrorCode;
use std::cell::OnceCell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// The wait of the last thread before memory is returned: the threads of the other connections end,
/// and the collector takes their measurements.
const SETTLED: Duration = Duration::from_millis(400);
/// The number of connections from which on free heap memory is returned, once three quarters of
/// them have ended.
const CROWD: usize = 16;

pub(super) fn spawn_up(
    shared: &Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
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
        release_connection(pumped);
    });
    if spawned.is_err() {
        connection.pair.fail();
        connection.pair.abort(); // A reset: an end of file would look orderly.
    }
    spawned
}

/// A connection, listed as open until both of its threads have released it.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) pair: EndPair,
    pub(super) own_ends: OnceLock<Ends>,
}

impl Connection {
    pub(super) fn new(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) -> Arc<Self> {
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
            // The traffic of a pump that panicked; other pumps have cleared theirs.
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
        self.shared.limit.release();
        let _ = self.shared.ended.send(()); // Full: the waiting thread is woken already.
    }
}

/// Releases a connection as the last act of its thread. When most of many connections have ended,
/// one thread returns the free heap memory. It does so a moment later, as the last pieces of the
/// others would keep it.
#[inline(never)]
fn release_connection(connection: Arc<Connection>) {
    let shared = Arc::clone(&connection.shared);
    drop(connection);
    if shared.crowd_has_gone.load(Ordering::Relaxed)
        && shared.crowd_has_gone.swap(false, Ordering::Relaxed)
    {
        // Ends with the timeout, or at once if the node ends.
        let _ = shared.stop.recv_timeout(SETTLED);
        sys::return_free_memory();
    }
}

impl HasEnds for Connection {
    fn pair(&self) -> &EndPair {
        &self.pair
    }
}

/// Ends the connection of a pump that panics, the other pump included, and nothing else.
struct OnPanic<'a>(&'a EndPair);

thread_local! {
    /// The connection that the calling thread serves: the hook of a panic has no other way to it.
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

/// Resets a connection after a panic and names it: the report of the panic cannot, as std did not
/// start the thread.
fn give_up(pair: &EndPair) {
    pair.fail();
    pair.abort();
    log::error!(
        "peer {}: connection #{} is given up for the panic above, a defect of this program",
        pair.client.peer,
        pair.id
    );
}

/// Confines a panic to its connection also where panics abort (the profile `small`).
///
/// There the work of `OnPanic` is done in the hook, which then parks the thread for ever instead of
/// going on to the abort. Each such panic costs a stack, two descriptors and a place of
/// `--max-connections`. A lock that was held stays locked, and may block the other pump of the
/// connection. A panic of any other thread ends the process. Call before any connection; it does
/// nothing where panics unwind.
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

/// Runs both pumps of a pair, the down pump on a thread of its own.
pub(super) fn pump_both<'a>(
    connection: &'a Arc<Connection>,
    session: Session,
    down: fn(&mut Pump<'_>) -> Result<(), ConnectionFault>,
    up: impl FnOnce(&mut Pump<'a>) -> Result<(), ConnectionFault>,
) -> Result<(), ConnectionFault> {
    spawn_down(connection, session, down)?;
    pump_here(connection, session, up);
    Ok(())
}

/// Runs the pump of the client's bytes. Never inlined: its stack is not needed while connecting and
/// while the other thread is begun, which go deepest.
#[inline(never)]
pub(super) fn pump_here<'a>(
    connection: &'a Connection,
    session: Session,
    run: impl FnOnce(&mut Pump<'a>) -> Result<(), ConnectionFault>,
) {
    let node = &connection.shared.node;
    let mut pump = Pump::new(node, &connection.pair, session, ConnectionSide::Client);
    let outcome = run(&mut pump);
    settle(connection, &pump, outcome);
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
        release_connection(back);
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

fn settle(connection: &Connection, pump: &Pump<'_>, outcome: Result<(), ConnectionFault>) {
    let shared = &connection.shared;
    if let Err(fault) = outcome {
        conclude(&shared.node, &connection.pair, fault);
    }
    let mut totals = lock(&shared.totals);
    totals.traffic.add(&pump.traffic());
    // Cleared under the lock, so that [`totals`](super::accept::ServerView::totals) counts it once.
    connection.pair.counts[pump.source() as usize].clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::reader::FrameReader;
    use crate::node::Node;
    use crate::node::NodeSettings;
    use crate::wire::NodeRole;
    use crossbeam_channel::bounded;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(60);

    fn pair(listener: &TcpListener, id: usize) -> (TcpStream, EndPair) {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, peer) = listener.accept().unwrap();
        let end = End::new(far, peer, Duration::from_secs(10)).unwrap();
        (near, EndPair::new(id, end, Duration::from_secs(10)))
    }

    #[test]
    fn a_pump_that_panics_takes_its_own_connection_with_it_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut near, own) = pair(&listener, 1);
        let (mut bystander, other) = pair(&listener, 2);
        std::thread::scope(|scope| {
            // The other pump of the pair waits for bytes; it has to end too.
            let reader = scope.spawn(|| FrameReader::new(&own, &own.client, None).chunk().is_err());
            let panicking = scope.spawn(|| {
                let _guard = OnPanic(&own);
                let _locked = own.client.lock(); // A lock that is held then must not block others.
                panic!("on purpose");
            });
            assert!(panicking.join().is_err());
            assert!(reader.join().unwrap(), "it was woken");
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
        // The threads of other tests serve no connection: for them it only reports.
        keep_panicked_pumps(move || released.recv_timeout(LONG).unwrap_or_default());
        let (node, _queue) = Node::new(NodeSettings::new("Z", NodeRole::Echo, TIMEOUT), None);
        let (shared, _) = Shared::new(node);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        assert!(shared.limit.acquire());
        let connection = Connection::new(&shared, socket, peer);
        let thread = std::thread::spawn(move || {
            let _guard = OnPanic::new(&connection);
            connection.pair.counts[0].store(3, 300);
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
