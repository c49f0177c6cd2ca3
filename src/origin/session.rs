//! Sessions of the near end: opening one, and reading its answers. A block carries its due time
//! itself, so reader and writer share only counts.

use super::error::{PathError, ReadEnd};
use super::progress::Progress;
use crate::collect::path_key::PathKey;
use crate::collect::queue::Measurement;
use crate::measure::Return;
use crate::node::annotations::collect_annotations;
use crate::node::clock::Moment;
use crate::node::dial::DialError;
use crate::node::end::{End, Patience};
use crate::node::introduce::report_nodes;
use crate::node::link_auth;
use crate::node::pair::EndPair;
use crate::node::reader::{FrameReader, ReadFault};
use crate::node::Node;
use crate::session::answers::Answer;
use crate::session::inbound::Inbound;
use crate::session::opening::{self, Session};
use crate::session::path;
use crate::session::trips::{last_retransmits, trip, TripOrigin};
use crate::sync::random;
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::wire::{build, ErrorInfo, FrameType, FrameView, Header, NodeRole, ABILITY_PROBES};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// The interval at which a reader without bytes checks for an overdue answer.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// A write of an answer that took longer than this was blocked by the reader of our output.
const BLOCKED: Nanos = Nanos::from_micros(200);

/// The near end of a path: the node at hop 0, with the counts of its blocks.
#[derive(Debug)]
pub struct Origin {
    /// The node; it has a next hop.
    pub node: Arc<Node>,
    /// The counts of blocks over all sessions.
    pub progress: Progress,
    down: AtomicBool,
    /// The far end has answered the opening of the present session.
    established: AtomicBool,
    /// The blocks are made here: a server would not understand them, so an exit answers them.
    probes: bool,
    /// The present path ends at an exit, which may drop reports.
    exits: AtomicBool,
    /// The place of this flow among those of the probe; `None` for a probe of one.
    flow: Option<u32>,
}

/// The time since which no byte moved.
#[derive(Clone, Copy, Debug)]
struct Idle {
    moved: u64,
    since: MonoTime,
}

/// An open session.
#[derive(Debug)]
pub struct OpenSession {
    pub(super) pair: EndPair,
    pub(super) identity: Session,
}

impl Origin {
    /// Returns the near end of `node`, without a session.
    pub fn new(node: Node) -> Self {
        Self {
            node: Arc::new(node),
            progress: Progress::new(0, 1),
            down: AtomicBool::new(false),
            established: AtomicBool::new(false),
            probes: false,
            exits: AtomicBool::new(false),
            flow: None,
        }
    }

    /// Returns the near ends of `flows` flows of this one, which has no session yet. They share its
    /// node, and so its queue and its id; block N belongs to flow N modulo `flows`.
    pub fn split(self, flows: u32) -> Vec<Arc<Self>> {
        let flow = |flow: u32| Self {
            node: Arc::clone(&self.node),
            progress: Progress::new(flow.into(), flows.into()),
            flow: Some(flow),
            probes: self.probes,
            down: AtomicBool::new(false),
            established: AtomicBool::new(false),
            exits: AtomicBool::new(false),
        };
        match flows {
            0 | 1 => vec![Arc::new(self)],
            _ => (0..flows).map(|place| Arc::new(flow(place))).collect(),
        }
    }

    /// Marks the sessions as probes: an exit answers them itself, and one that cannot ends them.
    #[must_use]
    pub fn probing(mut self) -> Self {
        self.probes = true;
        self
    }

    /// Returns `true` if the last session broke and none has followed.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Notes that a session broke, or that one works.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Release);
        if down {
            self.established.store(false, Ordering::Release);
        }
    }

    /// Returns `true` if the far end has answered the opening of the present session.
    pub fn is_established(&self) -> bool {
        self.established.load(Ordering::Acquire)
    }

    /// Connects and sends OPEN, without a round trip beyond the connect.
    ///
    /// # Errors
    ///
    /// [`PathError`] if no address of the next hop can be reached.
    pub fn open(&self) -> Result<OpenSession, PathError> {
        self.progress.expect_none();
        let settings = &self.node.settings;
        self.open_to(settings.hop_limit, settings.timeout)
    }

    /// Opens a session whose OPEN goes no further than `hop_limit` nodes; waits for `timeout`.
    pub(super) fn open_to(
        &self,
        hop_limit: u8,
        timeout: Duration,
    ) -> Result<OpenSession, PathError> {
        let node = &self.node;
        let settings = &node.settings;
        let next_hop = node
            .next_hop
            .as_ref()
            .ok_or_else(|| PathError::own("there is no next hop".into()))?;
        let connected = next_hop
            .connect(timeout)
            .map_err(|error: DialError| PathError {
                timed_out: error.is_timeout(),
                ..PathError::own(format!("cannot {error}"))
            })?;
        let peer = connected.address;
        let lost = |error: io::Error| PathError::own(format!("connect to {peer}: {error}"));
        let end = End::new(connected.socket, peer, timeout).map_err(lost)?;
        let session = Session {
            cookie: random(),
            hop: 0,
            hop_limit,
        };
        let connected_at = sys::clock::mono();
        if let Some(key) = settings.keys.first() {
            link_auth::connect(&end, &key, session, timeout)
                .map_err(|error| PathError::no_link(&end, timeout, error))?;
        }
        end.set_framed();
        if settings.wants_arrivals() {
            end.keep_arrivals();
        }
        let info = node.info(
            NodeRole::Source,
            Some(connected.took + sys::clock::mono().since(connected_at)),
            String::new(),
            peer.to_string(),
        );
        let opened = OpenSession {
            pair: EndPair::new(1, end, timeout),
            identity: session,
        };
        let end = &opened.pair.client;
        let now = node.clock.pump().read();
        let mut open = end.with_room(opening::begin(session, &now.introduce(&info), self.probes));
        end.seal(&mut open);
        opened.send(&open, &mut Nanos::default())?;
        Ok(opened)
    }

    /// Reads until the END of the far end, and passes the application's bytes to `payload`. Calls
    /// `opened` when the far end has answered the opening.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`].
    pub fn read<E>(
        &self,
        session: &OpenSession,
        opened: impl Fn(),
        mut payload: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), ReadEnd<E>> {
        let timeout = self.node.settings.timeout;
        let end = &session.pair.client;
        let mut reader = FrameReader::ticking(&session.pair, end, TICK.min(timeout));
        let mut inbound = Inbound::returning(session.identity.cookie);
        let mut clock = self.node.clock.pump();
        let mut read_at = None;
        let mut received = false;
        let mut held = Nanos::ZERO;
        let mut idle = Idle {
            moved: 0,
            since: sys::clock::mono(),
        };
        let reading = |fault: &ReadFault| {
            PathError::reading(end, timeout, fault).hinted(fault, self.is_established())
        };
        let breaks = |text: String| ReadEnd::Path(PathError::own(text));
        loop {
            let header = match reader.frame() {
                Ok(Some(header)) => header,
                Ok(None) if inbound.ended() && end.is_writing_over() => return Ok(()),
                Ok(None) => {
                    return Err(ReadEnd::Path(reading(&ReadFault::NoEnd)));
                }
                Err(ReadFault::Idle) => {
                    let now = sys::clock::mono();
                    if std::mem::take(&mut received) {
                        self.progress.note_bytes(now);
                    }
                    self.check_silence(session, now, &mut idle)
                        .map_err(ReadEnd::Path)?;
                    continue;
                }
                Err(ReadFault::Aborted) => return Err(ReadEnd::Aborted),
                Err(fault) => return Err(ReadEnd::Path(reading(&fault))),
            };
            received = true;
            // An answer that needed no read of its own was complete when the one before it was.
            if reader.take_fresh() {
                read_at = None;
            }
            let ingress = header
                .marked()
                .then(|| *read_at.get_or_insert_with(|| clock.read()))
                .map(|read_at| read_at.after(reader.arrival(&header, read_at.wall)));
            reader
                .check(&header, &mut inbound)
                .map_err(|fault| ReadEnd::Path(PathError::reading(end, timeout, &fault)))?;
            let view = reader.view(header);
            if let Some(ingress) = ingress {
                self.take_answer(&view, ingress, std::mem::take(&mut held));
            }
            if header.kind == FrameType::End {
                self.node
                    .collect_retransmits(PathKey::default(), last_retransmits(&view, 0));
            }
            match header.kind {
                FrameType::Block => {
                    let begun = sys::clock::mono();
                    payload(view.payload()).map_err(ReadEnd::Sink)?;
                    let took = sys::clock::mono().since(begun);
                    if took > BLOCKED {
                        held += took;
                    }
                }
                FrameType::Opened => {
                    let (identity, path) = (session.identity, PathKey::default());
                    report_nodes(&self.node, identity, path, view.annotations());
                    if let Err(unfit) = self.check_exit(&view) {
                        session.end(); // An end and no reset: the server logs less.
                        return Err(ReadEnd::Path(unfit));
                    }
                    self.set_down(false);
                    self.established.store(true, Ordering::Release);
                    opened();
                }
                // Reports of blocks that the server took may follow. If none is expected, and our
                // own END was sent, only the closing of connections follows.
                FrameType::End if end.is_writing_over() && self.progress.is_settled() => {
                    return Ok(())
                }
                FrameType::Reset => {
                    return Err(breaks(format!("the path was reset, through {}", end.peer)))
                }
                FrameType::Error => {
                    return Err(match ErrorInfo::parse(view.payload()) {
                        Ok(info) => ReadEnd::Path(PathError {
                            hop: info.hop,
                            next: Some(end.peer),
                            ..PathError::own(info.shown())
                        }),
                        Err(error) => breaks(format!("next hop {} {error}", end.peer)),
                    })
                }
                FrameType::End
                | FrameType::Report
                | FrameType::Open
                | FrameType::Hello
                | FrameType::Passable(_) => {}
            }
            reader.consume(&header);
        }
    }

    /// Fails if answers or bytes are overdue; called after each tick without bytes.
    fn check_silence(
        &self,
        session: &OpenSession,
        now: MonoTime,
        idle: &mut Idle,
    ) -> Result<(), PathError> {
        let settings = &self.node.settings;
        let peer = session.pair.client.peer;
        if self.progress.is_overdue(now, settings.timeout) {
            if self.exits.load(Ordering::Acquire) {
                self.progress.expect_none(); // Its report was dropped: lost, but the path works.
            } else {
                return Err(PathError::silence(
                    peer,
                    format!(
                        "no answer through {peer} for {} s (--timeout)",
                        settings.timeout.as_secs_f64()
                    ),
                ));
            }
        }
        let moved = session.pair.movement() as u64 + self.progress.blocks().sent;
        if moved != idle.moved {
            *idle = Idle { moved, since: now };
        }
        match settings.idle_timeout {
            Some(limit) if now.since(idle.since) >= limit.into() => Err(PathError::silence(
                peer,
                format!(
                    "no byte moved through {peer} for {} s (--idle-timeout)",
                    limit.as_secs_f64()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Checks that an exit at the end of the path answers probes itself, if this is a probe: one of
    /// 0.1 gives them to its server, and has connected to it already.
    fn check_exit(&self, view: &FrameView<'_>) -> Result<(), PathError> {
        let nodes = path::nodes(view.annotations());
        let exit = nodes.last().filter(|(_, last)| last.role == NodeRole::Exit);
        let Some((hop, exit)) = exit else {
            return Ok(());
        };
        if !self.probes {
            self.exits.store(true, Ordering::Release);
            return Ok(());
        }
        if exit.abilities & ABILITY_PROBES != 0 {
            return Ok(());
        }
        let server = match exit.next_hop.escape_debug().to_string() {
            server if server.is_empty() => "its server".to_owned(),
            server => format!("its server {server}"),
        };
        Err(PathError::unfit(format!(
            "the exit {} (hop {hop}) is too old to answer probes: it would give them to {server}, \
             which saw one empty connection; no block was sent; install this version on {0}, or \
             probe a path that ends at an echo node",
            exit.name.escape_debug()
        )))
    }

    /// Takes a marked frame that came back: the block itself, or an exit's report of it.
    fn take_answer(&self, view: &FrameView<'_>, ingress: Moment, held: Nanos) {
        let origin = TripOrigin {
            node: self.node.id,
            hop: 0,
        };
        let home = Return {
            arrival: ingress.arrival,
            ingress: ingress.wall,
            egress: None,
            generation: ingress.generation,
            held,
        };
        let Ok(Some(mut trip)) = trip(view, origin, ingress.mono, home, None) else {
            return;
        };
        if let Some(flow) = self.flow {
            // A flow stays one whatever connections it had.
            trip.connection = flow;
        }
        let total = trip
            .hop_stamps
            .first()
            .map(|own| ingress.wall - own.ingress);
        let timeout = Nanos::from(self.node.settings.timeout).signed();
        trip.late = total.is_some_and(|total| total > timeout);
        let measurement = match self.progress.answer(trip.sequence, ingress.mono, trip.late) {
            Answer::First => Measurement::Trip(PathKey::default(), trip),
            Answer::Duplicate => Measurement::Duplicate(trip),
            Answer::Unknown => Measurement::Notice(format!(
                "an answer to block {} came, which was never sent",
                trip.sequence
            )),
        };
        self.node.collector.offer(measurement);
        if view.header.classes != 0 {
            collect_annotations(&self.node, PathKey::default(), view);
        }
    }
}

impl OpenSession {
    pub(super) fn send(&self, bytes: &[u8], held: &mut Nanos) -> Result<(), PathError> {
        let end = &self.pair.client;
        end.send(&self.pair, bytes, held, Patience::Limited)
            .map_err(|fault| PathError::writing(end, self.pair.timeout, fault))
    }

    /// Sends END, once: no more blocks follow. Answers still come.
    pub fn end(&self) {
        let end = &self.pair.client;
        let guard = end.lock();
        if end.is_writing_over() {
            return;
        }
        let header = Header {
            hop_limit: self.identity.hop_limit,
            ..Header::new(FrameType::End, self.identity.cookie, 0)
        };
        let mut frame = end.with_room(build(header, &[], &[], &[]));
        end.seal(&mut frame);
        end.end_writing();
        // If it cannot be sent the reader meets the same fault and reports it.
        let _ = self.send(&frame, &mut Nanos::default());
        drop(guard);
        end.shut_writing();
    }

    /// Returns this end of the connection; `None` if the kernel no longer knows it.
    pub fn local(&self) -> Option<SocketAddr> {
        self.pair.client.socket.local_addr().ok()
    }

    /// Returns the address of the next hop.
    pub fn peer(&self) -> SocketAddr {
        self.pair.client.peer
    }

    /// Gives the session up: both directions end at once.
    pub fn give_up(&self) {
        self.pair.fail();
        self.pair.abort();
    }
}
