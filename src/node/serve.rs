//! The life of a connection, seen from its first thread.

use crate::node::connect_window::ConnectWindow;
use crate::node::connection::{pump_both, reflect, Connection};
use crate::node::end::End;
use crate::node::fault::{explain, ConnectionFault};
use crate::node::introduce::{introduce, opened, report_nodes};
use crate::node::link_auth::{self, NoLink};
use crate::node::pair::{EndPair, Session};
use crate::node::pump::Pump;
use crate::node::reader::{FrameReader, ReadFault};
use crate::node::upstream::{connect, no_link, own_loop, Upstream};
use crate::node::Node;
use crate::session::admission::{judge, Accept, Admission};
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::{Inbound, Violation};
use crate::session::path;
use crate::sync::random;
use crate::sys;
use crate::time::Nanos;
use crate::wire::{
    build, frame_type, push_stamp, set_egress, Annotations, ErrorCode, Flags, FrameView, Header,
    NodeRole, ParseError, Stamp, StampDirection, StampFlags, STAMP_LEN,
};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// The whole life of a connection, seen from its first thread.
pub(super) fn serve(connection: &Arc<Connection>) -> Result<(), ConnectionFault> {
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
