//! The life of a connection on its first thread: admission, opening, and its up pump.
//!
//! The functions that set a connection up are never inlined, so that their stack frames are gone
//! while the connection idles in its pump.

use crate::collect::path_key::PathKey;
use crate::collect::path_labels::PathUse;
use crate::node::clock::Moment;
use crate::node::connect_window::ConnectWindow;
use crate::node::connection::{pump_both, pump_here, Connection};
use crate::node::end::End;
use crate::node::fault::{explain, ConnectionFault};
use crate::node::http_edit::HttpEditor;
use crate::node::introduce::report_nodes;
use crate::node::link_auth::{self, NoLink};
use crate::node::pair::EndPair;
use crate::node::proxy_preamble::{self, client_of, take_client_address};
use crate::node::pump::Pump;
use crate::node::reader::{FrameReader, ReadFault};
use crate::node::server_check::ServerCheck;
use crate::node::upstream::{connect, no_link, Upstream};
use crate::node::Node;
use crate::session::admission::{judge, Accept, Admission};
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::Inbound;
use crate::session::opening::{self, FirstFrame, Introduction, Opening, Session};
use crate::session::path;
use crate::sync::random;
use crate::sys;
use crate::time::Nanos;
use crate::wire::{
    set_egress, Annotations, ClientAddress, ErrorCode, Flags, FrameType, Header, NodeRole,
    ParseError,
};
use crate::FULL;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Serves a connection from its first byte to its last.
///
/// # Errors
///
/// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
pub(super) fn serve(connection: &Arc<Connection>) -> Result<(), ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let local = local_end(node, pair)?;
    if node.settings.accept_proxy && !proxy_preamble::accept(node, pair)? {
        return Ok(()); // A health check that connects and closes.
    }
    let mut reader = FrameReader::new(pair, &pair.client, node.settings.idle_timeout);
    if admit(node, pair, &mut reader)? {
        if reader.pending().is_empty() {
            return Ok(()); // A health check that connects and closes.
        }
        pair.client.set_framed();
        serve_framed(connection, &mut reader, local)
    } else {
        serve_raw(connection, &mut reader, local)
    }
}

/// Returns the local end of the client's connection, unless it is one of this node's own.
#[inline(never)]
fn local_end(node: &Node, pair: &EndPair) -> Result<SocketAddr, ConnectionFault> {
    let Ok(local) = pair.client.socket.local_addr() else {
        let fault = ReadFault::Reset(io::ErrorKind::NotConnected.into());
        return Err(explain(node, pair, 0, ConnectionSide::Client, fault));
    };
    if node.is_own(&(pair.client.peer, local)) {
        return Err(ConnectionFault::own_loop(node, pair));
    }
    Ok(local)
}

/// Returns `true` if the client is another node. Reads as many bytes as that takes.
#[inline(never)]
fn admit(
    node: &Node,
    pair: &EndPair,
    reader: &mut FrameReader<'_>,
) -> Result<bool, ConnectionFault> {
    let accept = node.settings.accept;
    let mut ended = false;
    loop {
        // A raw entry waits for nothing: its server may send first.
        match judge(accept, reader.pending(), ended) {
            Admission::Framed => return Ok(true),
            Admission::Raw => return Ok(false),
            Admission::Refused(text) => {
                let text = format!("peer {} {text}", pair.client.peer);
                return Err(ConnectionFault::error(node, 0, ErrorCode::Protocol, text));
            }
            Admission::Undecided => {
                if accept == Accept::Auto && reader.pending().is_empty() {
                    await_first_bytes(node, &pair.client);
                }
                ended = !reader
                    .read_more()
                    .map_err(|fault| explain(node, pair, 0, ConnectionSide::Client, fault))?;
            }
        }
    }
}

/// Waits until the client has sent something, for `--timeout` at most. The log then names the
/// silence once: the client may wait for its server, which is not connected before it sends.
/// With `--idle-timeout`, the end of the connection is logged instead.
fn await_first_bytes(node: &Node, client: &End) {
    let timeout = node.settings.timeout;
    if node.next_hop.is_none() || node.settings.idle_timeout.is_some() {
        return;
    }
    if !sys::wait_readable(&client.socket, timeout) && node.logs_silence() {
        log::warn!(
            "peer {} has sent nothing for {} s, which decides whether it is a node: still \
             waiting; if its server is to speak first (ssh, SMTP, FTP, MySQL) use --accept raw \
             (not logged again)",
            client.peer,
            timeout.as_secs_f64()
        );
    }
}

#[inline(never)]
fn serve_raw<'a>(
    connection: &'a Arc<Connection>,
    reader: &mut FrameReader<'a>,
    local: SocketAddr,
) -> Result<(), ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let mut session = Session {
        cookie: 0,
        hop: 0,
        hop_limit: node.settings.hop_limit,
    };
    if node.next_hop.is_none() {
        pump_here(connection, session, |pump| pump.reflect_raw(reader));
        return Ok(());
    }
    begin_editing(node, pair);
    if node.settings.remove {
        if node.settings.send_proxy.is_some() {
            let client = client_of(pair, local);
            pair.client_address.get_or_init(|| Box::new(client));
        }
        connect(connection, local, session)?;
        return pump_both(
            connection,
            session,
            |down| down.splice_back(),
            |up| up.splice(reader),
        );
    }
    session.cookie = random();
    let is_read = !reader.pending().is_empty();
    let stamp = node.settings.stamp;
    let mut clock = node.clock.pump();
    let begun = clock.read();
    // Set once: a connection carries one session.
    let _ = connection.pair.session.set(session);
    let upstream = connect(connection, local, session)?;
    let read_at = Some(begun).filter(|_| stamp && is_read);
    let window = ConnectWindow::new(begun, clock.read()).filter(|_| stamp && !is_read);
    let open = open_as_entry(node, session, client_of(pair, local), local, &upstream);
    pump_both(
        connection,
        session,
        |down| down.deliver_back(),
        |up| {
            up.begin_raw(read_at, window);
            up.wrap(reader, open)
        },
    )
}

/// Begins to edit heads of HTTP, with `--http-write` or `--server-timing`.
fn begin_editing(node: &Node, pair: &EndPair) {
    if FULL && node.settings.http.any() {
        // Set once: a connection has one application.
        let _ = pair
            .http
            .set(Box::new(HttpEditor::new(&node.settings.http)));
    }
}

#[inline(never)]
fn open_as_entry(
    node: &Node,
    session: Session,
    client: ClientAddress,
    local: SocketAddr,
    upstream: &Upstream,
) -> Vec<u8> {
    let info = node.info(
        NodeRole::Entry,
        Some(upstream.took),
        local.to_string(),
        upstream.address.to_string(),
    );
    let now = node.clock.pump().read();
    let introduction = Introduction {
        client: Some(client),
        ..now.introduce(&info)
    };
    opening::begin(session, &introduction, false)
}

/// Returns the next frame, which has to come.
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

/// Answers the first frame if it is a handshake; OPEN follows it then. `None` if it is none.
#[inline(never)]
fn take_handshake(
    node: &Node,
    pair: &EndPair,
    reader: &mut FrameReader<'_>,
    header: &Header,
) -> Result<Option<link_auth::Accepted>, ConnectionFault> {
    let hop = header.hop.saturating_add(1);
    let fault = |error| no_link(node, pair, hop, ConnectionSide::Client, error);
    let keys = &node.settings.keys;
    match FirstFrame::judge(!keys.is_empty(), header.kind) {
        FirstFrame::Handshake => {
            let view = reader.view(*header);
            let accepted = link_auth::accept(&pair.client, keys, &view).map_err(fault)?;
            reader.consume(header);
            Ok(Some(accepted))
        }
        FirstFrame::Open => Ok(None),
        FirstFrame::Unauthenticated => Err(fault(NoLink::Parse(ParseError::Unauthenticated))),
        FirstFrame::NoKey => Err(ConnectionFault::error(
            node,
            hop,
            ErrorCode::Refused,
            format!(
                "peer {} has a --key-file, and this node has none: give both ends of the link \
                 the same key, or none",
                pair.client.peer
            ),
        )),
    }
}

/// An OPEN that was accepted, and when it had been read.
struct Opened {
    header: Header,
    session: Session,
    /// Held as long as the connection lives: the label of its path is nobody else's until then.
    path: PathUse,
    ingress: Moment,
    inbound: Inbound,
}

/// Reads OPEN, after the handshake of an authenticated link. Never inlined: its stack is not needed
/// while connecting and pumping.
#[inline(never)]
fn accept_open<'a>(
    connection: &'a Arc<Connection>,
    reader: &mut FrameReader<'a>,
) -> Result<Box<Opened>, ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let mut inbound = Inbound::forward();
    let mut header = first_frame(node, pair, reader)?;
    if let Some(accepted) = take_handshake(node, pair, reader, &header)? {
        // HELLO began what OPEN completes: the deadline of a header that was begun holds.
        let timeout = node.settings.timeout;
        if reader.pending().is_empty() && !sys::wait_readable(&pair.client.socket, timeout) {
            let fault = ReadFault::Stalled;
            return Err(explain(node, pair, 0, ConnectionSide::Client, fault));
        }
        header = first_frame(node, pair, reader)?;
        accepted.decide(&pair.client, &header, reader.pending());
    }
    if header.kind == FrameType::Reset {
        // The client of an entry was gone before the entry had sent OPEN.
        return Err(ConnectionFault::passed_reset(pair, ConnectionSide::Client));
    }
    let ingress = node.clock.pump().read();
    // Frames of the same read were there then, too.
    reader.take_fresh();
    let session = Session::behind(&header);
    reader
        .verify(&header)
        .map_err(|fault| explain(node, pair, session.hop, ConnectionSide::Client, fault))?;
    // Set once: a connection carries one session.
    let _ = connection.pair.session.set(session);
    let view = reader.view(header);
    let path = PathKey {
        neighbour: Some(pair.client.peer.ip().to_canonical()),
        hop: session.hop,
        source: path::source(view.annotations()).unwrap_or_default(),
        keyed: pair.client.has_link(),
        share: 0,
    };
    opening::check(&mut inbound, &view, node.id).map_err(|error| {
        let text = error.text(pair.client.peer);
        let fault = ConnectionFault::error(node, session.hop, error.code(), text);
        match error.code() {
            // A probe asks which nodes of its path answer.
            ErrorCode::HopLimit if header.flags.has(Flags::PROBE) => fault.asked_for(),
            _ => fault,
        }
    })?;
    let origin = path::name(view.annotations()).unwrap_or_default();
    let path = node.labels.enter(path, &origin, sys::clock::mono);
    let _ = pair.path.set(path.key);
    if node.settings.send_proxy.is_some() {
        take_client_address(pair, view.annotations());
    }
    // Boxed: a pump would keep its bytes on the stack.
    Ok(Box::new(Opened {
        header,
        session,
        path,
        ingress,
        inbound,
    }))
}

/// Makes the OPEN frame that this node passes on; with `-n` it has no stamp of this node. The ends
/// are the addresses that it reports: its own, and the one upstream.
#[inline(never)]
fn pass_open_on(
    node: &Node,
    reader: &mut FrameReader<'_>,
    role: NodeRole,
    opened: &Opened,
    took: Option<Nanos>,
    (own, upstream): (String, String),
) -> Opening {
    let info = node.info(role, took, own, upstream);
    let own: Introduction<'_> = opened.ingress.introduce(&info);
    let open = reader.view(opened.header);
    let mut opening = Opening::pass_on(opened.session, &open, &own, node.settings.stamp);
    if let Some(at) = opening.stamp_at {
        let egress = node.clock.pump().read();
        set_egress(&mut opening.frame[at..], egress.wall, egress.generation);
    }
    reader.consume(&opened.header);
    opening
}

#[inline(never)]
fn serve_framed<'a>(
    connection: &'a Arc<Connection>,
    reader: &mut FrameReader<'a>,
    local: SocketAddr,
) -> Result<(), ConnectionFault> {
    let node = &connection.shared.node;
    let pair = &connection.pair;
    let opened = accept_open(connection, reader)?;
    let role = opening::role(node.next_hop.is_none(), node.settings.remove);
    // A probe gives the server of an exit no connection and no byte.
    let probe = role == NodeRole::Exit && opened.header.flags.has(Flags::PROBE);
    let reflects = probe || role == NodeRole::Echo;
    let upstream = match reflects {
        true => None,
        false => Some(connect(connection, local, opened.session)?),
    };
    let connected = upstream.as_ref().map(|_| node.clock.pump().read());
    let window = connected.and_then(|connected| ConnectWindow::new(opened.ingress, connected));
    let took = upstream.as_ref().map(|upstream| upstream.took);
    let next_hop = upstream.map(|upstream| upstream.address.to_string());
    let ends = (local.to_string(), next_hop.unwrap_or_default());
    let opening = pass_open_on(node, reader, role, &opened, took, ends);
    if role != NodeRole::Relay {
        let annotations = Annotations::new(&opening.annotations);
        report_nodes(node, opened.session, opened.path.key, annotations);
    }
    let Opened {
        session,
        path: _path,
        ingress,
        inbound,
        ..
    } = *opened;
    match role {
        NodeRole::Echo | NodeRole::Exit if reflects => {
            let answer = opening::opened(session, &opening.annotations, random());
            drop(opening);
            let probes = probe.then(|| ServerCheck::begin(&connection.shared));
            pump_here(connection, session, move |pump| {
                pump.begin(ingress, window);
                pump.carry_connects(probes);
                pump.send_frame(ConnectionSide::Client, answer)?;
                pump.reflect(reader, inbound)
            });
            Ok(())
        }
        NodeRole::Exit => {
            begin_editing(node, pair);
            pair.client.queue_reports();
            answer_open(node, pair, session, reader, opening)?;
            pump_both(
                connection,
                session,
                |down| down.wrap_back(),
                |up| {
                    up.begin(ingress, window);
                    up.deliver(reader, inbound)
                },
            )
        }
        NodeRole::Relay
        | NodeRole::Echo
        | NodeRole::Source
        | NodeRole::Entry
        | NodeRole::Proxy
        | NodeRole::Unknown => {
            let frame = opening.frame;
            drop(opening.annotations);
            let server = pair.server.get().expect("it was connected");
            let frame = server.with_room(frame);
            pump_both(
                connection,
                session,
                |down| down.relay_back(),
                |up| {
                    up.begin(ingress, window);
                    up.relay(reader, inbound, frame)
                },
            )
        }
    }
}

/// Sends OPENED of an exit, or offers it to go out with the report of the first block.
#[inline(never)]
fn answer_open(
    node: &Node,
    pair: &EndPair,
    session: Session,
    reader: &FrameReader<'_>,
    opening: Opening,
) -> Result<(), ConnectionFault> {
    let answer = opening::opened(session, &opening.annotations, random());
    drop(opening);
    let first = reader.next_whole();
    if first.is_some_and(|first| first.marked()) && node.settings.stamp {
        // The first block came along: OPENED goes out with its report.
        pair.client.offer(pair.client.with_room(answer));
        return Ok(());
    }
    // Before there is a second writer: a server that sends first and at length must not delay the
    // up pump.
    Pump::new(node, pair, session, ConnectionSide::Client)
        .send_frame(ConnectionSide::Client, answer)
}
