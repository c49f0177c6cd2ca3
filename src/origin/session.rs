//! The near end of a path: what the source and the probe have in common. They open a session, send marked blocks and
//! read what comes back; the block itself carries its scheduled time, so reader and writer share only counts.

use crate::annotate::annotator::AnnotationWriter;
use crate::annotation::Classes;
use crate::collect::queue::Measurement;
use crate::collect::requests::AnnotationRequest;
use crate::measure::Return;
use crate::node::annotations::{collect_annotations, collect_own_annotations};
use crate::node::clock::{Moment, PumpClock};
use crate::node::dial::DialError;
use crate::node::end::{End, Patience, WriteFault};
use crate::node::introduce::report_nodes;
use crate::node::link_auth::{self, NoLink};
use crate::node::pair::{EndPair, Session};
use crate::node::reader::{FrameReader, ReadFault, HEADROOM};
use crate::node::serve::opening;
use crate::node::Node;
use crate::report::Blocks;
use crate::session::answers::{Answer, Answers};
use crate::session::inbound::Inbound;
use crate::session::path;
use crate::session::trips::{trip, TripOrigin};
use crate::sync::lock;
use crate::sync::random;
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::wire::authentication::TAG_LEN;
use crate::wire::values::MAX_ASK_LEN;
use crate::wire::{
    build, frame_type, set_egress, ErrorInfo, Flags, FrameView, Header, NodeRole, ParseError,
    Stamp, StampDirection, StampFlags, ANNOTATION_HEADER_LEN, HEADER_LEN, MAX_PAYLOAD, STAMP_LEN,
};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::Duration;

/// How often a reader that hears nothing looks whether an answer is overdue.
const TICK: Duration = Duration::from_millis(250);

/// A write of an answer that took longer than this was blocked by whoever reads our output.
const BLOCKED: Nanos = Nanos::from_micros(200);

/// Why a path broke.
#[derive(Debug)]
pub struct PathError {
    /// The hop that noticed: 0 is this node.
    pub hop: u8,
    /// What it noticed.
    pub text: String,
    /// It noticed only silence: whose, it cannot know.
    pub silent: bool,
    /// Something took longer than `--timeout`.
    pub timed_out: bool,
}

impl PathError {
    /// Noticed by this node itself.
    pub fn own(text: String) -> Self {
        Self {
            hop: 0,
            text,
            silent: false,
            timed_out: false,
        }
    }

    /// Nothing was heard, from wherever on the path.
    pub fn silence(text: String) -> Self {
        Self {
            silent: true,
            timed_out: true,
            ..Self::own(text)
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hop {
            0 => f.write_str(&self.text),
            hop => write!(f, "hop {hop} reports: {}", self.text),
        }
    }
}

/// Why reading ended early.
#[derive(Debug)]
pub enum ReadEnd<E> {
    /// The path broke.
    Path(PathError),
    /// The payload could not be handed on.
    Sink(E),
    /// The writer has given up already, and has told why.
    Aborted,
}

/// What was sent and answered, over all sessions of a run.
#[derive(Debug)]
pub struct Progress(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    sent: u64,
    payload_bytes: u64,
    /// Answers that are still expected on the present session.
    outstanding: u64,
    /// When something was last heard, or the first of the outstanding blocks sent.
    since: MonoTime,
    answers: Answers,
    late: u64,
}

impl Counts {
    fn blocks(&self) -> Blocks {
        Blocks {
            sent: self.sent,
            received: self.answers.received(),
            lost: self.sent - self.answers.received(),
            late: self.late,
            duplicate: self.answers.duplicates(),
            payload_bytes: self.payload_bytes,
        }
    }
}

impl Progress {
    fn new() -> Self {
        Self(Mutex::new(Counts {
            sent: 0,
            payload_bytes: 0,
            outstanding: 0,
            since: MonoTime::default(),
            answers: Answers::new(),
            late: 0,
        }))
    }

    /// A block is about to be sent; its number.
    fn send(&self, now: MonoTime, payload: usize) -> u64 {
        let mut counts = lock(&self.0);
        if counts.outstanding == 0 {
            counts.since = now;
        }
        counts.outstanding += 1;
        counts.payload_bytes += payload as u64;
        counts.sent += 1;
        counts.sent - 1
    }

    /// Blocks fell due while there was no path: they count as lost.
    pub fn skip(&self, blocks: u64) {
        lock(&self.0).sent += blocks;
    }

    fn answer(&self, sequence: u64, now: MonoTime, late: bool) -> Answer {
        let mut counts = lock(&self.0);
        let sent = counts.sent;
        let answer = counts.answers.take(sequence, sent);
        if answer == Answer::First {
            // Frames keep their order: what was sent before it and is not answered by now will not be (an exit drops
            // reports rather than hold up data).
            counts.outstanding = counts.outstanding.min(sent - 1 - sequence);
            counts.late += u64::from(late);
        }
        counts.since = now;
        answer
    }

    /// Something was heard, if not an answer: the path lives.
    fn heard(&self, now: MonoTime) {
        lock(&self.0).since = now;
    }

    /// Whether an answer has been outstanding for longer than `timeout`.
    fn is_overdue(&self, now: MonoTime, timeout: Duration) -> bool {
        let counts = lock(&self.0);
        counts.outstanding > 0 && now.since(counts.since) >= timeout.into()
    }

    /// No answer is expected any more: a new session begins, or an exit has dropped a report.
    fn forget(&self) {
        lock(&self.0).outstanding = 0;
    }

    /// The counts for a report. Lost is everything unanswered: ask when the run is over.
    pub fn blocks(&self) -> Blocks {
        lock(&self.0).blocks()
    }

    /// As [`blocks`](Self::blocks), for a run that goes on: what is under way is not lost yet.
    pub fn blocks_so_far(&self) -> Blocks {
        let counts = lock(&self.0); // One look at all of them: the count of lost blocks never falls.
        let blocks = counts.blocks();
        Blocks {
            lost: blocks.lost.saturating_sub(counts.outstanding),
            ..blocks
        }
    }

    /// Whether all that was sent has its answer, or will never have one.
    fn is_settled(&self) -> bool {
        lock(&self.0).outstanding == 0
    }

    /// The number of the next block from `from` on that has no answer.
    pub fn next_unanswered(&self, from: u64) -> Option<u64> {
        let counts = lock(&self.0);
        counts.answers.next_open(from, counts.sent)
    }
}

/// The node that begins a path.
#[derive(Debug)]
pub struct Origin {
    /// Itself; it has an onward hop.
    pub node: Node,
    /// Over all sessions.
    pub progress: Progress,
    down: AtomicBool,
    stands: AtomicBool,
    /// The blocks are made here and mean nothing to a server.
    probes: bool,
    /// The present path ends at an exit, whose reports may be dropped.
    exits: AtomicBool,
}

/// Since when nothing moved.
#[derive(Clone, Copy, Debug)]
struct Idle {
    moved: u64,
    since: MonoTime,
}

/// An open session.
#[derive(Debug)]
pub struct OpenSession {
    pair: EndPair,
    session: Session,
}

impl Origin {
    /// A caller that has not called yet.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            progress: Progress::new(),
            down: AtomicBool::new(false),
            stands: AtomicBool::new(false),
            probes: false,
            exits: AtomicBool::new(false),
        }
    }

    /// One that sends blocks of its own making.
    #[must_use]
    pub fn probing(mut self) -> Self {
        self.probes = true;
        self
    }

    /// Whether the last session broke and none has followed.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// A session broke, or works.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Release);
        if down {
            self.stands.store(false, Ordering::Release);
        }
    }

    /// Whether the far end has answered the opening of the present session.
    pub fn stands(&self) -> bool {
        self.stands.load(Ordering::Acquire)
    }

    /// Connects and sends OPEN; costs no round trip beyond the connect.
    ///
    /// # Errors
    ///
    /// [`PathError`] where nobody can be reached.
    pub fn open(&self) -> Result<OpenSession, PathError> {
        let node = &self.node;
        let settings = &node.settings;
        let next_hop = node
            .next_hop
            .as_ref()
            .ok_or_else(|| PathError::own("there is no next hop".into()))?;
        let connected = next_hop
            .connect(settings.timeout)
            .map_err(|error: DialError| PathError {
                timed_out: error.is_timeout(),
                ..PathError::own(format!("cannot {error}"))
            })?;
        let peer = connected.address;
        let lost = |error: io::Error| PathError::own(format!("connect to {peer}: {error}"));
        let end = End::new(connected.socket, peer, settings.timeout).map_err(lost)?;
        let session = Session {
            cookie: random(),
            hop: 0,
            hop_limit: settings.hop_limit,
        };
        let connected_at = sys::clock::mono();
        if let Some(key) = &settings.key {
            link_auth::connect(&end, key, session.cookie, session.hop, settings.timeout)
                .map_err(|error| no_link(&end, settings.timeout, error))?;
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
        let line = OpenSession {
            pair: EndPair::new(1, end, settings.timeout),
            session,
        };
        self.progress.forget();
        let end = &line.pair.client;
        let mut open = end.with_room(opening(node, session, &info));
        end.seal(&mut open);
        line.send(&open, &mut Nanos::default())?;
        Ok(line)
    }

    /// Reads until the far end has said END, handing the application's bytes to `payload`.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`].
    pub fn read<E>(
        &self,
        line: &OpenSession,
        mut payload: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), ReadEnd<E>> {
        let timeout = self.node.settings.timeout;
        let end = &line.pair.client;
        let mut reader = FrameReader::ticking(&line.pair, end, TICK.min(timeout));
        let mut inbound = Inbound::returning(line.session.cookie);
        let mut clock = self.node.clock.pump();
        let mut read_at = None;
        let mut heard = false;
        let mut held = Nanos::ZERO;
        let mut idle = Idle {
            moved: 0,
            since: sys::clock::mono(),
        };
        let breaks = |text: String| ReadEnd::Path(PathError::own(text));
        loop {
            let header = match reader.frame() {
                Ok(Some(header)) => header,
                Ok(None) if inbound.ended() && end.is_writing_over() => return Ok(()),
                Ok(None) => {
                    return Err(breaks(format!(
                        "next hop {} closed the connection without END",
                        end.peer
                    )))
                }
                Err(ReadFault::Idle) => {
                    let now = sys::clock::mono();
                    if std::mem::take(&mut heard) {
                        self.progress.heard(now);
                    }
                    self.check_silence(line, now, &mut idle)
                        .map_err(ReadEnd::Path)?;
                    continue;
                }
                Err(ReadFault::Aborted) => return Err(ReadEnd::Aborted),
                Err(fault) => return Err(ReadEnd::Path(unread(end, timeout, fault))),
            };
            heard = true;
            // An answer that needed no read of its own was complete when the one before it was.
            if reader.take_fresh() {
                read_at = None;
            }
            let ingress = header
                .marked()
                .then(|| *read_at.get_or_insert_with(|| clock.read()))
                .map(|read_at| read_at.after(reader.arrival(&header, read_at.wall)));
            reader
                .verify(&header)
                .map_err(|fault| ReadEnd::Path(unread(end, timeout, fault)))?;
            inbound
                .check(&header)
                .map_err(|violation| breaks(format!("next hop {} {violation}", end.peer)))?;
            let view = reader.view(header);
            if let Some(ingress) = ingress {
                self.answered(&view, ingress, std::mem::take(&mut held));
            }
            match header.kind {
                frame_type::BLOCK => {
                    let begun = sys::clock::mono();
                    payload(view.payload()).map_err(ReadEnd::Sink)?;
                    let took = sys::clock::mono().since(begun);
                    if took > BLOCKED {
                        held += took;
                    }
                }
                frame_type::OPENED => {
                    self.stands.store(true, Ordering::Release);
                    self.warn_of_exit(&view);
                    report_nodes(&self.node, line.session, view.annotations());
                }
                // Reports of what the server has taken may follow; without any to come, and with our own END said, the
                // rest is the closing of connections.
                frame_type::END if end.is_writing_over() && self.progress.is_settled() => {
                    return Ok(())
                }
                frame_type::RESET => {
                    return Err(breaks(format!("the path was reset, through {}", end.peer)))
                }
                frame_type::ERROR => {
                    return Err(match ErrorInfo::parse(view.payload()) {
                        Ok(info) => ReadEnd::Path(PathError {
                            hop: info.hop,
                            text: info.shown(),
                            silent: false,
                            timed_out: false,
                        }),
                        Err(error) => breaks(format!("next hop {} {error}", end.peer)),
                    })
                }
                _ => {}
            }
            reader.consume(&header);
        }
    }

    /// Nothing has come for a tick: whether that is too long.
    fn check_silence(
        &self,
        line: &OpenSession,
        now: MonoTime,
        idle: &mut Idle,
    ) -> Result<(), PathError> {
        let settings = &self.node.settings;
        let peer = line.pair.client.peer;
        if self.progress.is_overdue(now, settings.timeout) {
            if self.exits.load(Ordering::Acquire) {
                self.progress.forget(); // Its report was dropped on the way: lost, but no sign of a broken path.
            } else {
                return Err(PathError::silence(format!(
                    "no answer through {peer} for {} s (--timeout)",
                    settings.timeout.as_secs_f64()
                )));
            }
        }
        let moved = line.pair.movement() as u64 + self.progress.blocks().sent;
        if moved != idle.moved {
            *idle = Idle { moved, since: now };
        }
        match settings.idle_timeout {
            Some(limit) if now.since(idle.since) >= limit.into() => {
                Err(PathError::silence(format!(
                    "no byte moved through {peer} for {} s (--idle-timeout)",
                    limit.as_secs_f64()
                )))
            }
            _ => Ok(()),
        }
    }

    /// An exit hands probes to a real server, as it does with any bytes: not what the user of a probe expects.
    fn warn_of_exit(&self, view: &FrameView<'_>) {
        let nodes = path::nodes(view.annotations());
        let Some((_, exit)) = nodes.last().filter(|(_, last)| last.role == NodeRole::Exit) else {
            return;
        };
        self.exits.store(true, Ordering::Release);
        if self.probes {
            let text = format!(
                "the path ends at the exit {}: what the probes carry went into the server behind it; \
                 let the path end at an echo node",
                exit.name.escape_debug()
            );
            log::warn!("probe: {text}");
            self.node.collector.offer(Measurement::Notice(text));
        }
    }

    /// A marked frame is back: the block itself, or an exit's report of it.
    fn answered(&self, view: &FrameView<'_>, ingress: Moment, held: Nanos) {
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
        let Some(mut trip) = trip(view, origin, ingress.mono, home) else {
            return;
        };
        let total = trip
            .hop_stamps
            .first()
            .map(|own| ingress.wall - own.ingress);
        let timeout = Nanos::from(self.node.settings.timeout).signed();
        trip.late = total.is_some_and(|total| total > timeout);
        let measurement = match self.progress.answer(trip.sequence, ingress.mono, trip.late) {
            Answer::First => Measurement::Trip(Box::new(trip)),
            Answer::Duplicate => Measurement::Duplicate(Box::new(trip)),
            Answer::Unknown => Measurement::Notice(format!(
                "an answer to block {} came, which was never sent",
                trip.sequence
            )),
        };
        self.node.collector.offer(measurement);
        if view.header.classes != 0 {
            collect_annotations(&self.node, 0, view);
        }
    }
}

/// The link with the next hop was not agreed on.
#[inline(never)]
fn no_link(end: &End, timeout: Duration, error: NoLink) -> PathError {
    let timed_out = matches!(error, NoLink::Silent(_));
    let text = match error {
        NoLink::Parse(error) => explain(end, timeout, ReadFault::Parse(error)),
        NoLink::Io(error) => explain(end, timeout, ReadFault::Reset(error)),
        NoLink::Refused(text) | NoLink::Silent(text) => format!("next hop {} {text}", end.peer),
    };
    PathError {
        timed_out,
        ..PathError::own(text)
    }
}

/// Reading from the next hop failed.
fn unread(end: &End, timeout: Duration, fault: ReadFault) -> PathError {
    PathError {
        timed_out: matches!(fault, ReadFault::Stalled),
        ..PathError::own(explain(end, timeout, fault))
    }
}

#[inline(never)]
fn explain(end: &End, timeout: Duration, fault: ReadFault) -> String {
    let peer = end.peer;
    match fault {
        ReadFault::Parse(error @ ParseError::Magic { .. }) => format!(
            "peer {peer} {error}; if it is a plain TCP server use --remove-perf-headers at a node before it"
        ),
        ReadFault::Parse(error) => format!("peer {peer} {error}"),
        ReadFault::Truncated => format!("next hop {peer} closed the connection within a frame"),
        ReadFault::Stalled => format!(
            "next hop {peer} began a frame and did not go on for {} s (--timeout)",
            timeout.as_secs_f64()
        ),
        ReadFault::Reset(error) => format!("next hop {peer} broke the connection: {error}"),
        ReadFault::Idle | ReadFault::Aborted => format!("next hop {peer} is silent"),
    }
}

impl OpenSession {
    fn send(&self, bytes: &[u8], held: &mut Nanos) -> Result<(), PathError> {
        let end = &self.pair.client;
        end.send(&self.pair, bytes, held, Patience::Limited)
            .map_err(|fault| PathError {
                timed_out: matches!(fault, WriteFault::Timeout),
                ..PathError::own(match fault {
                    WriteFault::SourceReset => "the session was given up".into(),
                    WriteFault::Timeout => format!(
                        "next hop {} has read nothing for {} s (--timeout)",
                        end.peer,
                        self.pair.timeout.as_secs_f64()
                    ),
                    WriteFault::Dead { error, .. } => {
                        format!("next hop {} broke the connection: {error}", end.peer)
                    }
                    WriteFault::Aborted => "the session was given up".into(),
                })
            })
    }

    /// Says END, once: no more blocks will come. The answers still do.
    pub fn end(&self) {
        let end = &self.pair.client;
        let guard = end.lock();
        if end.is_writing_over() {
            return;
        }
        let header = Header {
            hop_limit: self.session.hop_limit,
            ..Header::new(frame_type::END, self.session.cookie, 0)
        };
        let mut frame = end.with_room(build(header, &[], &[], &[]));
        end.seal(&mut frame);
        end.end_writing();
        // Where it cannot be sent the reader finds out why.
        let _ = self.send(&frame, &mut Nanos::default());
        drop(guard);
        end.shut_writing();
    }

    /// Gives the session up: both directions end now.
    pub fn give_up(&self) {
        self.pair.fail();
        self.pair.abort();
    }
}

/// When a block was due.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// At a scheduled time, which may have passed.
    At(MonoTime),
    /// When its bytes had been read.
    Read(Moment),
}

/// The write half of a session.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    origin: &'a Origin,
    line: &'a OpenSession,
    clock: PumpClock<'a>,
    held: Nanos,
    buffer: Vec<u8>,
    telling: AnnotationWriter,
}

/// Room before the payload: who is asked for what lies between stamp and payload.
const FRONT: usize = HEADROOM + ANNOTATION_HEADER_LEN + MAX_ASK_LEN;

impl<'a> BlockWriter<'a> {
    /// For blocks of at most `block` bytes.
    pub fn new(origin: &'a Origin, line: &'a OpenSession, block: usize) -> Self {
        Self {
            origin,
            line,
            clock: origin.node.clock.pump(),
            held: Nanos::ZERO,
            buffer: vec![0; FRONT + block.min(MAX_PAYLOAD) + TAG_LEN],
            telling: AnnotationWriter::default(),
        }
    }

    /// Where the payload goes.
    pub fn payload(&mut self) -> &mut [u8] {
        let end = self.buffer.len() - TAG_LEN;
        &mut self.buffer[FRONT..end]
    }

    /// Reads the clocks, for [`Due::Read`].
    pub fn now(&mut self) -> Moment {
        self.clock.read()
    }

    /// Sends the first `len` bytes of the payload as a marked block; `false` where the session was ended meanwhile.
    ///
    /// # Errors
    ///
    /// [`PathError`].
    pub fn send(&mut self, len: usize, due: Due) -> Result<bool, PathError> {
        let node = &self.origin.node;
        let marked = node.settings.stamp;
        let now = sys::clock::mono();
        let end = &self.line.pair.client;
        let guard = end.lock();
        if end.is_writing_over() {
            return Ok(false);
        }
        let sequence = self.origin.progress.send(now, len);
        let mut header = Header {
            hop_limit: self.line.session.hop_limit,
            payload_len: len,
            authentication_len: end.tag_len() as u8,
            ..Header::new(frame_type::BLOCK, self.line.session.cookie, sequence)
        };
        let mut request = AnnotationRequest::default();
        if marked {
            request = node.requests.request();
            header.classes = request.classes.0;
        }
        let asks = request.annotation();
        header.annotations_len = asks.len();
        let asks_at = FRONT - asks.len();
        self.buffer[asks_at..FRONT].copy_from_slice(asks);
        let stamp_at = asks_at - STAMP_LEN;
        let mut start = asks_at - HEADER_LEN;
        let mut stamp = Stamp {
            node: node.id,
            hop: 0,
            direction: StampDirection::Forward,
            generation: 0,
            flags: StampFlags(if node.clock_error.is_some() {
                StampFlags::SYNCHRONISED
            } else {
                0
            }),
            held: std::mem::take(&mut self.held),
            arrival: None,
            ingress: Default::default(),
            egress: Default::default(),
        };
        if marked {
            start = stamp_at - HEADER_LEN;
            header.flags = Flags(Flags::MARKED);
            header.stamps = 1;
        }
        header.emit(&mut self.buffer[start..]);
        if marked {
            let egress = self.clock.read();
            stamp.generation = egress.generation;
            stamp.egress = egress.wall;
            stamp.ingress = match due {
                // What lies between the due time and now is this host's share, on the clock that no step moves.
                Due::At(at) => egress.wall.before(egress.mono.since(at)),
                Due::Read(read) if read.generation == egress.generation => read.wall,
                Due::Read(read) => egress.wall.before(egress.mono.since(read.mono)),
            };
            stamp.emit(&mut self.buffer[stamp_at..]);
        }
        let frame = &mut self.buffer[start..FRONT + len + end.tag_len()];
        if let Some(seal) = end.begin_seal(&header, frame) {
            if marked {
                // Hashing took its time, which is this host's share too.
                let egress = self.clock.read();
                set_egress(
                    &mut frame[stamp_at - start..],
                    egress.wall,
                    egress.generation,
                );
            }
            seal.finish(frame);
        }
        self.line.send(frame, &mut self.held)?;
        drop(guard);
        if request.classes.is_empty() {
            self.telling.clear();
        } else {
            self.tell_own(request.own, sequence, now);
        }
        Ok(true)
    }

    /// The source is a node of the path too, and answers what its own blocks ask.
    #[inline(never)]
    fn tell_own(&mut self, own: Classes, sequence: u64, now: MonoTime) {
        let node = &self.origin.node;
        let value = self.telling.answer(&node.annotator, own, now);
        collect_own_annotations(node, sequence, &value);
        let socket = Some(&self.line.pair.client.socket);
        self.telling
            .request_next(&node.annotator, now, None, socket);
    }
}
