//! The upstream connection of a connection: connected, registered, and its link agreed on.

use crate::collect::queue::Measurement;
use crate::node::connection::Connection;
use crate::node::connection_log;
use crate::node::dial::{Connected, DialError};
use crate::node::end::End;
use crate::node::fault::{explain, ConnectionFault};
use crate::node::link_auth::{self, NoLink};
use crate::node::pair::EndPair;
use crate::node::proxy_preamble;
use crate::node::reader::ReadFault;
use crate::node::Node;
use crate::session::connection_record::ConnectionSide;
use crate::session::opening::Session;
use crate::sys;
use crate::time::Nanos;
use crate::wire::ErrorCode;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{fence, Ordering};
use std::time::Instant;

/// An upstream connection that is ready for frames or bytes.
pub(super) struct Upstream {
    /// The address of the next hop or server.
    pub(super) address: SocketAddr,
    /// The duration of the connect, the agreement on a key included.
    pub(super) took: Nanos,
}

/// Connects upstream and puts the new end into the pair. `local` is this node's end of the client's
/// connection.
#[inline(never)]
pub(super) fn connect(
    connection: &Connection,
    local: SocketAddr,
    session: Session,
) -> Result<Upstream, ConnectionFault> {
    let connected = dial(connection, session)?;
    set_up(connection, local, session, connected)
}

/// Connects to the next hop. Never inlined: it has the deepest stack of all that a connection's
/// thread calls, and what its callers keep on the stack comes on top.
#[inline(never)]
fn dial(connection: &Connection, session: Session) -> Result<Connected, ConnectionFault> {
    let node = &connection.shared.node;
    let next_hop = node.next_hop.as_ref().expect("only reflectors have none");
    let begun = sys::clock::mono();
    let connected = next_hop.connect(node.settings.timeout);
    if node.settings.remove {
        let took = connected.as_ref().map(|connected| connected.took);
        if let Some((at, outcome)) = node.server_check.take(begun, false, took) {
            let path = connection.pair.path.get().copied().unwrap_or_default();
            let connect = Measurement::ServerConnect(path, at, outcome);
            node.collector.offer(connect);
        }
    }
    connected.map_err(|error: DialError| {
        ConnectionFault::connect(node, session, format!("cannot {error}"))
    })
}

#[inline(never)]
fn set_up(
    connection: &Connection,
    local: SocketAddr,
    session: Session,
    connected: Connected,
) -> Result<Upstream, ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let Connected {
        socket,
        address,
        took,
    } = connected;
    let lost = |error: io::Error| {
        ConnectionFault::connect(node, session, format!("connect to {address}: {error}"))
    };
    let ends = (socket.local_addr().map_err(lost)?, address);
    node.remember_own(ends);
    connection
        .own_ends
        .set(ends)
        .expect("a pair is connected upstream once");
    let end = End::new(socket, address, node.settings.timeout).map_err(lost)?;
    connection_log::connected(pair, &end, took);
    proxy_preamble::send(node, pair, &end).map_err(lost)?;
    let connected = Instant::now();
    if pair.server.set(end).is_err() {
        unreachable!("a pair is connected upstream once");
    }
    // A node that has ended meanwhile found no server to reset. The fences order "server, then
    // failed" here against "failed, then server" in `abort_server`.
    fence(Ordering::SeqCst);
    if pair.has_failed() {
        pair.abort_server();
        return Err(ConnectionFault::silent());
    }
    if !node.settings.remove {
        prepare_link(node, pair, session)?;
    }
    let prepared = Nanos::from(connected.elapsed());
    // The upstream connection may have been accepted by this node before its ends were registered.
    if node.is_own(&(pair.client.peer, local)) {
        return Err(ConnectionFault::own_loop(node, pair));
    }
    Ok(Upstream {
        address,
        took: took + prepared,
    })
}

/// Prepares the link with the next node: agrees on its authentication if there is a key.
#[inline(never)]
fn prepare_link(node: &Node, pair: &EndPair, session: Session) -> Result<(), ConnectionFault> {
    let server = pair.server.get().expect("it was connected");
    if let Some(key) = node.settings.keys.first() {
        // Not framed before the keys are agreed on: it would not accept a final frame.
        let timeout = node.settings.timeout;
        link_auth::connect(server, &key, session, timeout)
            .map_err(|error| no_link(node, pair, session.hop, ConnectionSide::Server, error))?;
    }
    server.set_framed();
    if node.settings.wants_arrivals() {
        server.keep_arrivals();
    }
    Ok(())
}

/// Returns the fault that follows from a link that was not agreed on.
#[cold]
pub(super) fn no_link(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::accept::Shared;
    use crate::node::fault::cut_off;
    use crate::node::NodeSettings;
    use crate::session::admission::Accept;
    use crate::wire::NodeRole;
    use std::io::Read;
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::time::Duration;

    const TIMEOUT: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(60);

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
        assert!(shared.limit.acquire());
        let connection = Connection::new(&shared, socket, peer);
        cut_off(&shared.node, &connection.pair);
        assert!(connect(&connection, local, Session::default()).is_err());
        drop(connection);
        let (mut reached, _) = server.accept().unwrap();
        reached.set_read_timeout(Some(LONG)).unwrap();
        let error = reached.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
