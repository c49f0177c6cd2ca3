//! The pumps: one direction of one connection each, and how a connection ends.
//!
//! The way of a marked block through a pump: the read that completes it, *ingress*, stamp and header written, the write
//! half locked, *egress*, the send. Logging, allocation and the hand-over to the collector come after the send. Frames
//! that are ready together go out in one send, with one egress time.

use super::annotator::{append, cut_to_room, tell_facts, tell_own_facts, Telling};
use super::asking::Question;
use super::clock::{Moment, PumpClock};
use super::collect::{Measurement, Path, Traffic};
use super::ends::{End, Pair, Patience, Session, WriteFault};
use super::intake::{Chunk, Intake, ReadFault, HEADROOM};
use super::setup::{Came, Setup};
use super::{random, Node};
use crate::measure::{Direction, Homecoming};
use crate::report::PathNode;
use crate::session::admission::{judge, Accept, Admission};
use crate::session::facts::asked;
use crate::session::inbound::{Inbound, Violation};
use crate::session::journal::Place;
use crate::session::path;
use crate::session::trips::{trip, Origin};
use crate::sys;
use crate::time::{Nanos, WallTime};
use crate::wire::{
    build, frame_type, push_annotation, push_stamp, set_egress, set_hop, Annotations, BehindExit,
    ErrorCode, ErrorInfo, Flags, FrameView, Header, NodeInfo, ParseError, Stamp, StampDirection,
    StampFlags, ANNOTATION_BEHIND_EXIT, ANNOTATION_FACTS, ANNOTATION_HEADER_LEN, ANNOTATION_NODE,
    ANNOTATION_NONCE, HEADER_LEN, STAMP_LEN,
};
use std::fmt;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

/// An end of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the connection came from.
    Client,
    /// Where it goes.
    Server,
}

/// Why a connection ends before its time, and what its two peers are to hear.
///
/// Boxed: results that may carry one pass through every frame of a pump's stack, whose depth is what an idle connection
/// costs.
#[derive(Debug)]
pub struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    level: log::Level,
    text: String,
    last: Last,
}

#[derive(Debug)]
enum Last {
    /// The other pump tells, or has told.
    Silent,
    /// A reset, both ways: as RESET to a node, as RST to an application.
    Reset,
    /// An ERROR to the source; a reset to everybody else.
    Error(ErrorInfo),
}

impl Fault {
    #[inline(never)]
    fn new(level: log::Level, text: String, last: Last) -> Self {
        Self(Box::new(Inner { level, text, last }))
    }

    pub(super) fn silent() -> Self {
        Self::new(log::Level::Debug, String::new(), Last::Silent)
    }

    fn reset(level: log::Level, text: String) -> Self {
        Self::new(level, text, Last::Reset)
    }

    #[inline(never)]
    pub(super) fn error(node: &Node, hop: u8, code: ErrorCode, text: String) -> Self {
        let info = ErrorInfo {
            code,
            hop,
            node: node.id,
            text: text.clone(),
        };
        Self::new(log::Level::Error, text, Last::Error(info))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// One direction of one connection.
#[derive(Debug)]
pub struct Pump<'a> {
    node: &'a Node,
    pair: &'a Pair,
    session: Session,
    source: Side,
    sink: Side,
    clock: PumpClock<'a>,
    held: Nanos,
    traffic: Traffic,
    sequence: u64,
    epoch: usize,
    /// When the frames that are pending were completely read, if one of them is marked.
    read_at: Option<Moment>,
    /// As long as what is read may have come before the onward connection stood.
    setup: Option<Setup>,
    telling: Telling,
}

/// Which way frames go through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Return,
    Turn,
}

impl Way {
    fn stamp(self) -> StampDirection {
        match self {
            Self::Forward => StampDirection::Forward,
            Self::Return => StampDirection::Return,
            Self::Turn => StampDirection::Turn,
        }
    }
}

/// A frame that is ready to be sent, in some buffer.
#[derive(Clone, Copy, Debug)]
struct Ready {
    start: usize,
    end: usize,
    stamp_at: Option<usize>,
    header: Header,
    /// What its stamp says of this pump's blocked writes.
    held: Nanos,
    /// What its stamp says of the kernel's receive time.
    arrival: Option<WallTime>,
}

/// Small frames that go out together.
#[derive(Debug, Default)]
struct Batch {
    /// One behind the other.
    bytes: Vec<u8>,
    frames: Vec<Ready>,
    /// Where the frame at hand lies if it was made anew, see [`Pump::make_ready`].
    own: Vec<u8>,
}

impl Batch {
    /// Begins with an OPEN frame of our own, which has its stamp.
    #[inline(never)]
    fn open(&mut self, open: Vec<u8>) {
        let header = Header::parse(&open).expect("it was built here");
        self.frames.push(Ready {
            start: 0,
            end: open.len(),
            stamp_at: None,
            header,
            held: Nanos::ZERO,
            arrival: None,
        });
        self.bytes = open;
    }

    /// Copies a frame from where it lies behind the others.
    fn take(&mut self, intake: &mut Intake<'_>, frame: Ready) {
        let start = self.bytes.len();
        let buffer = either(&mut self.own, intake);
        self.bytes
            .extend_from_slice(&buffer[frame.start..frame.end]);
        let moved = |at: usize| at - frame.start + start;
        self.frames.push(Ready {
            start,
            end: self.bytes.len(),
            stamp_at: frame.stamp_at.map(moved),
            ..frame
        });
    }
}

/// Several small frames that go out together are gathered up to this size.
const GATHER: usize = 64 << 10;

impl<'a> Pump<'a> {
    /// The pump that reads at `source` and writes to the other side.
    pub fn new(node: &'a Node, pair: &'a Pair, session: Session, source: Side) -> Self {
        Self {
            node,
            pair,
            session,
            source,
            sink: match source {
                Side::Client => Side::Server,
                Side::Server => Side::Client,
            },
            clock: node.clock.pump(),
            held: Nanos::ZERO,
            traffic: Traffic::default(),
            sequence: 0,
            epoch: 0,
            read_at: None,
            setup: None,
            telling: Telling::default(),
        }
    }

    /// What was read before it began, at `read_at`, and while what came was not read.
    pub(super) fn begin(&mut self, read_at: Moment, setup: Option<Setup>) {
        self.read_at = Some(read_at);
        self.setup = setup;
    }

    /// The end that it reads.
    pub fn source(&self) -> Side {
        self.source
    }

    /// What it has moved.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn end(&self, side: Side) -> &'a End {
        match side {
            Side::Client => &self.pair.client,
            Side::Server => self
                .pair
                .server
                .get()
                .expect("a pump starts when both ends are there"),
        }
    }

    fn count(&mut self, payload: usize) {
        let traffic = &mut self.traffic;
        let (blocks, bytes) = match self.source {
            Side::Client => (&mut traffic.forward_blocks, &mut traffic.forward_bytes),
            Side::Server => (&mut traffic.return_blocks, &mut traffic.return_bytes),
        };
        *blocks += 1;
        *bytes += payload as u64;
        self.pair.carried[self.source as usize].show(*blocks, *bytes);
    }

    fn stamp(&mut self, ingress: Moment, direction: StampDirection) -> Stamp {
        Stamp {
            node: self.node.id,
            hop: self.session.hop,
            direction,
            generation: ingress.generation,
            flags: StampFlags(if self.node.clock_error.is_some() {
                StampFlags::SYNCHRONISED
            } else {
                0
            }),
            held: std::mem::take(&mut self.held),
            arrival: ingress.arrival,
            ingress: ingress.wall,
            egress: ingress.wall,
        }
    }

    /// Notes plain bytes from `from`, where books are kept; `when` they were read, or now. What a client asks is noted before
    /// it is sent, within the residence: the other pump may have the answer as soon as it is.
    #[inline]
    fn note_payload(&self, from: Place, when: Option<WallTime>, bytes: &[u8]) {
        if let Some(diary) = self.pair.client.diary() {
            diary.payload(from, when, bytes);
        }
    }

    fn send(&mut self, side: Side, bytes: &[u8]) -> Result<(), Fault> {
        let end = self.end(side);
        let sent = end.send(self.pair, bytes, &mut self.held, Patience::Unlimited);
        sent.map_err(|fault| self.write_fault(side, fault))
    }

    /// Sends a frame that is no block: OPEN onward, OPENED back.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn say(&mut self, side: Side, frame: Vec<u8>) -> Result<(), Fault> {
        let end = self.end(side);
        let mut frame = end.with_room(frame);
        let guard = end.lock();
        end.seal(&mut frame);
        let said = self.send(side, &frame);
        drop(guard);
        said
    }

    #[inline(never)]
    fn write_fault(&self, side: Side, fault: WriteFault) -> Fault {
        match fault {
            WriteFault::SourceReset => self.read_fault(
                self.source,
                ReadFault::Reset(std::io::ErrorKind::ConnectionReset.into()),
            ),
            WriteFault::Dead { alone, error } if alone || self.source == side => {
                self.read_fault(side, ReadFault::Reset(error))
            }
            _ => Fault::silent(),
        }
    }

    #[inline(never)]
    fn read_fault(&self, side: Side, fault: ReadFault) -> Fault {
        explain(self.node, self.pair, self.session.hop, side, fault)
    }

    #[inline(never)]
    fn violation(&self, side: Side, violation: Violation) -> Fault {
        Fault::error(
            self.node,
            self.session.hop,
            violation.code(),
            format!("peer {} {violation}", self.end(side).peer),
        )
    }

    fn intake(&self) -> Intake<'a> {
        let source = self.end(self.source);
        Intake::new(self.pair, source, self.node.settings.idle_timeout)
    }

    /// The source came to its end: pass it on, then wait until its socket is closed for good, so that a reset that comes
    /// still is passed on too.
    fn finish(&self, pass_on: impl FnOnce()) -> Result<(), Fault> {
        let source = self.end(self.source);
        if source.reading_over() {
            return Err(self.read_fault(
                self.source,
                ReadFault::Reset(std::io::ErrorKind::ConnectionReset.into()),
            ));
        }
        pass_on();
        match self.pair.wait_closed(source) {
            Ok(()) => Ok(()),
            Err(false) => Err(Fault::silent()),
            Err(true) => Err(self.read_fault(
                self.source,
                ReadFault::Reset(std::io::ErrorKind::ConnectionReset.into()),
            )),
        }
    }

    // --- framed in, framed out -------------------------------------------------------------------------------------

    /// A relay's up pump, behind the OPEN frame it passes on.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn relay(
        &mut self,
        intake: &mut Intake<'a>,
        inbound: Inbound,
        open: Vec<u8>,
    ) -> Result<(), Fault> {
        self.pass_frames(intake, inbound, Way::Forward, open)
    }

    /// A relay's down pump, from the beginning.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn relay_back(&mut self) -> Result<(), Fault> {
        let intake = &mut self.intake();
        let inbound = Inbound::returning(self.session.cookie);
        self.pass_frames(intake, inbound, Way::Return, Vec::new())
    }

    /// A reflector's only pump.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn reflect(&mut self, intake: &mut Intake<'a>, inbound: Inbound) -> Result<(), Fault> {
        self.sink = Side::Client;
        self.pass_frames(intake, inbound, Way::Turn, Vec::new())
    }

    /// `opening` is a relay's OPEN frame, which goes out together with what came behind it.
    fn pass_frames(
        &mut self,
        intake: &mut Intake<'a>,
        mut inbound: Inbound,
        way: Way,
        opening: Vec<u8>,
    ) -> Result<(), Fault> {
        let mut batch = Batch::default();
        if !opening.is_empty() {
            batch.open(opening);
            if next_gatherable(intake).is_none() {
                self.flush(&mut batch, None, way)?;
            }
        }
        loop {
            let next = intake
                .frame()
                .map_err(|fault| self.read_fault(self.source, fault))?;
            let Some(header) = next else {
                break;
            };
            let ingress = self.ingress(intake, &header);
            self.check(intake, &mut inbound, &header)?;
            if !gatherable(header.kind) {
                self.pass_special(intake, header, ingress, way)?;
                continue;
            }
            let first = self.make_ready(intake, header, ingress, way, &mut batch.own);
            intake.consume(&header);
            if batch.frames.is_empty() && next_gatherable(intake).is_none() {
                // Most often that was all there is: it goes out from where it lies.
                self.dispatch(either(&mut batch.own, intake), &[first], ingress, way)?;
                continue;
            }
            batch.take(intake, first);
            self.pass_batch(intake, &mut inbound, ingress, way, &mut batch)?;
        }
        if !inbound.ended() {
            return Err(self.vanished());
        }
        let sink = self.end(self.sink);
        self.finish(|| sink.shut_writing())
    }

    /// Gathers what came behind the frame that was, and sends all of it. Never inlined: a pump that idles has no more on
    /// its stack than it needs for a frame.
    #[inline(never)]
    fn pass_batch(
        &mut self,
        intake: &mut Intake<'a>,
        inbound: &mut Inbound,
        mut ingress: Option<Moment>,
        way: Way,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        while let Some(next) = next_gatherable(intake).filter(|_| batch.bytes.len() < GATHER) {
            ingress = self.ingress(intake, &next).or(ingress);
            self.check(intake, inbound, &next)?;
            let ready = self.make_ready(intake, next, ingress, way, &mut batch.own);
            intake.consume(&next);
            batch.take(intake, ready);
        }
        self.flush(batch, ingress, way)
    }

    /// Sends what was gathered, and gives its memory back: a connection that idles next keeps none.
    fn flush(&mut self, batch: &mut Batch, ingress: Option<Moment>, way: Way) -> Result<(), Fault> {
        let Batch { bytes, frames, .. } = std::mem::take(batch);
        let mut bytes = bytes;
        self.dispatch(&mut bytes, &frames, ingress, way)
    }

    /// When the frame at hand was completely read, if it is to be stamped. One that needed no read of its own was
    /// complete when the one before it was: what it waited for since is this node's doing, not the network's.
    fn ingress(&mut self, intake: &mut Intake<'_>, header: &Header) -> Option<Moment> {
        if !self.node.settings.stamp {
            return None;
        }
        if intake.take_fresh() {
            let soon = header.marked() || intake.marked_follows(header);
            self.read_at = soon.then(|| self.clock.read());
            if let (Some(setup), Some(read_at)) = (self.setup, self.read_at) {
                self.read_at = Some(self.was_there(intake, setup, read_at));
            }
        }
        let clock = &mut self.clock;
        let marked = header.marked();
        let read_at = marked.then(|| *self.read_at.get_or_insert_with(|| clock.read()))?;
        Some(read_at.after(intake.arrival(header, read_at.wall)))
    }

    /// When a read at `read_at`, one of the first, was there: before the onward connection stood it could not be read.
    #[inline(never)]
    fn was_there(&mut self, intake: &mut Intake<'_>, setup: Setup, read_at: Moment) -> Moment {
        match setup.judge(read_at, intake.had_come(read_at.wall)) {
            Came::Meanwhile(moment) => return moment,
            Came::After => self.setup = None,
            Came::Unknown => {}
        }
        read_at
    }

    /// Whether the pending frame is genuine and may come now. After its ingress was read: what this takes is the host's.
    fn check(
        &self,
        intake: &Intake<'_>,
        inbound: &mut Inbound,
        header: &Header,
    ) -> Result<(), Fault> {
        let verified = intake.verify(header);
        verified.map_err(|fault| self.read_fault(self.source, fault))?;
        let checked = inbound.check(header);
        checked.map_err(|violation| self.violation(self.source, violation))
    }

    /// Makes the pending frame ready: where it lies, or in `own`, which is empty otherwise, where it asks for facts.
    fn make_ready(
        &mut self,
        intake: &mut Intake<'a>,
        mut header: Header,
        ingress: Option<Moment>,
        way: Way,
        own: &mut Vec<u8>,
    ) -> Ready {
        if !own.is_empty() {
            *own = Vec::new();
        }
        if way != Way::Return && header.kind == frame_type::BLOCK && header.marked() {
            match ingress {
                Some(ingress) if header.classes != 0 => {
                    let value = self.answer(&intake.view(header), ingress);
                    header = append(&intake.view(header), self.session.hop, &value, own);
                }
                _ => self.telling.rest(),
            }
        }
        if own.is_empty() {
            return self.prepare(&mut intake.chunk_of(&header), header, ingress, way);
        }
        let mut chunk = Chunk {
            start: HEADROOM,
            end: own.len(),
            buffer: own,
            read_at: None,
        };
        self.prepare(&mut chunk, header, ingress, way)
    }

    /// What this node says to a block that asks for facts; empty where it knows nothing yet, or was not meant.
    #[inline(never)]
    fn answer(&mut self, frame: &FrameView<'_>, ingress: Moment) -> Vec<u8> {
        let classes = asked(frame, self.session.hop);
        self.telling
            .answer(&self.node.annotator, classes, ingress.mono)
    }

    /// After a send: what the block has asked for is found out, for the next one.
    fn follow(&mut self, at: Moment) {
        let client = self.socket(Side::Client);
        let server = self.socket(Side::Server);
        self.telling
            .follow(&self.node.annotator, at.mono, client, server);
    }

    fn socket(&self, side: Side) -> Option<&'a TcpStream> {
        match side {
            Side::Client => Some(&self.pair.client.socket),
            Side::Server => self.pair.server.get().map(|end| &end.socket),
        }
    }

    /// Makes the pending frame ready where it lies: hop, stamp.
    fn prepare(
        &mut self,
        chunk: &mut Chunk<'_>,
        mut header: Header,
        ingress: Option<Moment>,
        way: Way,
    ) -> Ready {
        if header.kind == frame_type::BLOCK {
            self.count(header.payload_len);
        }
        header.hop = self.session.hop;
        if way == Way::Turn {
            header.flags = header.flags.with(Flags::RETURN);
        }
        let mut held = Nanos::ZERO;
        let (start, stamp_at) = match ingress.filter(|_| header.marked()) {
            Some(ingress) => {
                let stamp = self.stamp(ingress, way.stamp());
                held = stamp.held;
                push_stamp(chunk.buffer, chunk.start, &mut header, &stamp)
            }
            None => {
                set_hop(
                    &mut chunk.buffer[chunk.start..],
                    &mut header,
                    self.session.hop,
                );
                (chunk.start, None)
            }
        };
        Ready {
            start,
            end: chunk.end,
            stamp_at,
            header,
            held,
            arrival: ingress.and_then(|ingress| ingress.arrival),
        }
    }

    /// Sends frames that lie one behind the other, then hands what came back to the collector.
    fn dispatch(
        &mut self,
        buffer: &mut [u8],
        frames: &[Ready],
        ingress: Option<Moment>,
        way: Way,
    ) -> Result<(), Fault> {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Ok(());
        };
        let end = self.end(self.sink);
        let guard = end.lock();
        let seal = |frame: &Ready| end.begin_seal(&frame.header, &buffer[frame.start..frame.end]);
        let first_seal = seal(first);
        // Empty, and without memory of its own, where there is no key or only one frame.
        let mut more_seals = Vec::new();
        if first_seal.is_some() {
            more_seals.extend(frames[1..].iter().filter_map(seal));
        }
        let mut egress = None;
        if frames.iter().any(|frame| frame.stamp_at.is_some()) {
            let moment = self.clock.read();
            for at in frames.iter().filter_map(|frame| frame.stamp_at) {
                set_egress(&mut buffer[at..], moment.wall, moment.generation);
            }
            egress = Some(moment);
        }
        for (frame, seal) in frames.iter().zip(first_seal.into_iter().chain(more_seals)) {
            seal.finish(&mut buffer[frame.start..frame.end]);
        }
        self.send(self.sink, &buffer[first.start..last.end])?;
        drop(guard);
        for frame in frames {
            if frame.header.kind == frame_type::OPENED && way == Way::Return {
                self.tell_opened(&buffer[frame.start..frame.end], frame.header);
            }
        }
        if let (Way::Turn, Some(ingress), Some(egress)) = (way, ingress, egress) {
            for _ in frames.iter().filter(|frame| frame.stamp_at.is_some()) {
                self.tell_residence(Direction::Forward, ingress, egress);
            }
        }
        if way == Way::Return {
            if let (Some(ingress), Some(egress)) = (ingress, egress) {
                for frame in frames.iter().filter(|frame| frame.stamp_at.is_some()) {
                    let arrival = frame.arrival;
                    self.tell_trip(
                        &buffer[frame.start..frame.end],
                        frame.header,
                        Moment { arrival, ..ingress },
                        Some(egress),
                        frame.held,
                    );
                }
            }
        }
        if let Some(ingress) = ingress {
            self.follow(ingress);
        }
        Ok(())
    }

    #[inline(never)]
    fn tell_opened(&self, frame: &[u8], header: Header) {
        if let Ok(view) = FrameView::of(header, frame) {
            tell_nodes(self.node, self.session, view.annotations());
        }
    }

    /// Hands the node's own share of a block to the collector, on the clock that no step moves.
    fn tell_residence(&self, direction: Direction, ingress: Moment, egress: Moment) {
        let residence = egress.mono.since(ingress.mono).signed();
        let hop = self.session.hop;
        self.node
            .collector
            .offer(Measurement::Residence(hop, direction, residence));
    }

    /// Hands a block that came back to the collector.
    fn tell_trip(
        &self,
        frame: &[u8],
        header: Header,
        ingress: Moment,
        egress: Option<Moment>,
        held: Nanos,
    ) {
        let Ok(view) = FrameView::of(header, frame) else {
            return;
        };
        let home = Homecoming {
            arrival: ingress.arrival,
            ingress: ingress.wall,
            // Across a step of the clock the residence is no span of time.
            egress: egress
                .filter(|egress| egress.generation == ingress.generation)
                .map(|egress| egress.wall),
            generation: ingress.generation,
            held,
        };
        let origin = Origin {
            node: self.node.id,
            hop: self.session.hop,
        };
        if let Some(trip) = trip(&view, origin, ingress.mono, home) {
            self.node.collector.offer(Measurement::Trip(Box::new(trip)));
        }
        if header.classes != 0 {
            tell_facts(self.node, self.session.hop, &view);
        }
    }

    /// Frames that are more than bytes on their way: RESET, ERROR, and what only a later version knows.
    #[inline(never)]
    fn pass_special(
        &mut self,
        intake: &mut Intake<'a>,
        header: Header,
        ingress: Option<Moment>,
        way: Way,
    ) -> Result<(), Fault> {
        let fault = match header.kind {
            frame_type::RESET => Some(self.passed_reset()),
            frame_type::ERROR => Some(self.passed_error(intake.view(header).payload())),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(fault);
        }
        let ready = self.prepare(&mut intake.chunk_of(&header), header, ingress, way);
        intake.consume(&header);
        self.dispatch(intake.buffer(), &[ready], ingress, way)
    }

    #[inline(never)]
    fn passed_reset(&self) -> Fault {
        let side = match self.source {
            Side::Client => "the client's side",
            Side::Server => "the server's side",
        };
        Fault::reset(
            log::Level::Info,
            format!(
                "a reset came from {side} through {}",
                self.end(self.source).peer
            ),
        )
    }

    #[inline(never)]
    fn passed_error(&self, payload: &[u8]) -> Fault {
        match ErrorInfo::parse(payload) {
            Ok(info) => {
                let text = format!("hop {} reports: {}", info.hop, info.shown());
                Fault::new(log::Level::Error, text, Last::Error(info))
            }
            Err(error) => self.read_fault(self.source, ReadFault::Parse(error)),
        }
    }

    #[inline(never)]
    fn vanished(&self) -> Fault {
        vanished(self.node, self.pair, self.session.hop, self.source)
    }

    // --- framed in, plain bytes out --------------------------------------------------------------------------------

    /// An exit's up pump: payload to the server, reports back.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn deliver(&mut self, intake: &mut Intake<'a>, mut inbound: Inbound) -> Result<(), Fault> {
        let server = self.end(Side::Server);
        loop {
            let next = intake
                .frame()
                .map_err(|fault| self.read_fault(self.source, fault))?;
            let Some(header) = next else {
                break;
            };
            let ingress = self.ingress(intake, &header);
            self.check(intake, &mut inbound, &header)?;
            match header.kind {
                frame_type::BLOCK => {
                    self.deliver_block(&intake.view(header), ingress)?;
                }
                frame_type::END => {
                    server.shut_writing();
                    self.flush_reports()?;
                    self.pair.client.writer_done();
                }
                frame_type::RESET => return Err(self.passed_reset()),
                _ => {} // What only a later version knows ends here, as the path does.
            }
            intake.consume(&header);
        }
        if !inbound.ended() {
            return Err(self.vanished());
        }
        self.finish(|| ())
    }

    fn deliver_block(
        &mut self,
        frame: &FrameView<'_>,
        ingress: Option<Moment>,
    ) -> Result<(), Fault> {
        let header = frame.header;
        self.count(header.payload_len);
        let Some(ingress) = ingress else {
            self.pair.exchange.ask_untimed();
            self.note_payload(Place::Client, None, frame.payload());
            return self.send(Side::Server, frame.payload());
        };
        let mut forward = self.stamp(ingress, StampDirection::Forward);
        self.note_payload(Place::Client, None, frame.payload());
        let question = self.pair.exchange.ask(header.sequence);
        let egress = self.clock.read();
        question.at(egress.mono);
        self.send(Side::Server, frame.payload())?;
        // It was this pump's write to the server that blocked: the forward stamp's, not the way back's.
        forward.held += std::mem::take(&mut self.held);
        forward.egress = egress.wall;
        if egress.generation != forward.generation {
            forward.generation = egress.generation;
            forward.flags.0 |= StampFlags::STEPPED;
        }
        self.report(frame, &forward, egress);
        self.tell_residence(Direction::Forward, ingress, egress);
        Ok(())
    }

    /// Sends the stamps of a block that the server has been given back to the source. The turn begins where the payload
    /// was handed to the kernel: the time the server made us wait counts as the exit's, and the `held` of `forward` says so.
    #[inline(never)]
    fn report(&mut self, frame: &FrameView<'_>, forward: &Stamp, egress: Moment) {
        let back = Stamp {
            direction: StampDirection::Return,
            held: Nanos::ZERO,
            generation: egress.generation,
            arrival: None,
            ingress: egress.wall,
            flags: StampFlags(forward.flags.0 & !StampFlags::STEPPED),
            ..*forward
        };
        let room = crate::wire::MAX_STAMPS.saturating_sub(usize::from(frame.header.stamps));
        if room < 2 {
            return; // The path is too long for its stamps; the source sees the flag on its blocks.
        }
        let mut stamps = frame.stamp_bytes().to_vec();
        let at = stamps.len();
        stamps.resize(at + 2 * STAMP_LEN, 0);
        forward.emit(&mut stamps[at..]);
        back.emit(&mut stamps[at + STAMP_LEN..]);
        let mut header = Header {
            flags: Flags(Flags::MARKED | Flags::RETURN),
            hop: self.session.hop,
            hop_limit: self.session.hop_limit,
            classes: frame.header.classes,
            ..Header::new(
                frame_type::REPORT,
                self.session.cookie,
                frame.header.sequence,
            )
        };
        let mut annotations = Vec::new();
        if header.classes == 0 {
            self.telling.rest();
        } else {
            // What the nodes before told is to go back, and what this one tells.
            let overflow = frame.header.flags.0 & Flags::ANNOTATIONS_OVERFLOW;
            header.flags = header.flags.with(overflow);
            annotations = frame.annotation_bytes().to_vec();
            let value = self.answer(frame, egress);
            let fits = cut_to_room(&value, annotations.len());
            if fits.len() < value.len() {
                header.flags = header.flags.with(Flags::ANNOTATIONS_OVERFLOW);
            }
            if !fits.is_empty() {
                push_annotation(&mut annotations, ANNOTATION_FACTS, self.session.hop, fits);
            }
        }
        let client = &self.pair.client;
        let report = client.with_room(build(header, &stamps, &annotations, &[]));
        if !client.offer(report) {
            self.traffic.reports_dropped += 1;
            let shown = &self.pair.carried[self.source as usize].reports_dropped;
            shown.fetch_add(1, Ordering::Relaxed);
        }
        self.drain_reports();
        self.follow(egress);
    }

    fn drain_reports(&mut self) {
        let client = &self.pair.client;
        let clock = &mut self.clock;
        client.drain_reports(self.pair, |frame| stamp_report(client, frame, clock));
    }

    /// Sends what reports are left at the end of a direction, waiting for the client to take them.
    fn flush_reports(&mut self) -> Result<(), Fault> {
        let guard = self.end(Side::Client).lock();
        while let Some(mut report) = self.pair.client.take_report() {
            stamp_report(&self.pair.client, &mut report, &mut self.clock);
            self.send(Side::Client, &report)?;
        }
        drop(guard);
        Ok(())
    }

    /// An entry's down pump: payload to the client, reports to the collector.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn deliver_back(&mut self) -> Result<(), Fault> {
        let intake = &mut self.intake();
        let mut inbound = Inbound::returning(self.session.cookie);
        let client = self.end(Side::Client);
        loop {
            let next = intake
                .frame()
                .map_err(|fault| self.read_fault(self.source, fault))?;
            let Some(header) = next else {
                break;
            };
            let ingress = self.ingress(intake, &header);
            self.check(intake, &mut inbound, &header)?;
            match header.kind {
                frame_type::BLOCK => {
                    self.count(header.payload_len);
                    let view = intake.view(header);
                    self.send(Side::Client, view.payload())?;
                    self.note_payload(Place::Server, None, view.payload());
                    // A reflector at the end of the path answers in blocks, an exit in reports.
                    if let Some(ingress) = ingress {
                        let held = std::mem::take(&mut self.held);
                        self.tell_trip(view.bytes(), header, ingress, None, held);
                    }
                    if header.annotations_len > 0 {
                        self.tell_annotations(&view);
                    }
                }
                frame_type::REPORT => {
                    if let Some(ingress) = ingress {
                        let held = std::mem::take(&mut self.held);
                        self.tell_trip(intake.view(header).bytes(), header, ingress, None, held);
                    }
                }
                frame_type::END => client.shut_writing(),
                frame_type::OPENED => {
                    tell_nodes(self.node, self.session, intake.view(header).annotations());
                }
                frame_type::RESET => return Err(self.passed_reset()),
                frame_type::ERROR => return Err(self.passed_error(intake.view(header).payload())),
                _ => {}
            }
            intake.consume(&header);
        }
        if !inbound.ended() {
            return Err(self.vanished());
        }
        self.finish(|| ())
    }

    #[inline(never)]
    fn tell_annotations(&mut self, view: &FrameView<'_>) {
        let behind = view
            .annotations()
            .map_while(Result::ok)
            .filter(|annotation| annotation.kind == ANNOTATION_BEHIND_EXIT)
            .find_map(|annotation| BehindExit::parse(annotation.value).ok());
        if let Some(behind) = behind {
            let now = self.clock.read().mono;
            self.node
                .collector
                .offer(Measurement::BehindExit(self.session.hop, now, behind.span));
        }
    }

    // --- plain bytes in, framed out --------------------------------------------------------------------------------

    /// An entry's up pump. `open` is the OPEN frame, which shares a send with the first block if that is there already.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn wrap(&mut self, intake: &mut Intake<'a>, open: Vec<u8>) -> Result<(), Fault> {
        let server = self.end(Side::Server);
        let mut open = Some(open);
        if intake.pending().is_empty() && !sys::is_readable(&self.pair.client.socket) {
            // The server may be the one to speak first.
            self.say(Side::Server, open.take().unwrap_or_default())?;
        }
        let tag = server.tag_len();
        loop {
            let chunk = intake.chunk();
            let Some(chunk) = chunk.map_err(|fault| self.read_fault(self.source, fault))? else {
                break;
            };
            let marked = self.node.settings.stamp && self.node.collector.may_mark(&mut self.epoch);
            if self.traffic.forward_blocks == 0 {
                refuse_greeting(self.node, self.pair, chunk.bytes())?;
            }
            let payload_len = chunk.end - chunk.start;
            self.count(payload_len);
            let mut header = Header {
                hop: self.session.hop,
                hop_limit: self.session.hop_limit,
                payload_len,
                authentication_len: tag as u8,
                ..Header::new(frame_type::BLOCK, self.session.cookie, self.sequence)
            };
            self.sequence += 1;
            let mut start = chunk.start - HEADER_LEN;
            let mut question = Question::default();
            let mut ingress = Moment::default();
            if marked {
                ingress = self.clock.read();
            }
            self.note_payload(Place::Client, chunk.read_at, chunk.bytes());
            if marked {
                question = self.node.asking.question();
                let stamp = self.stamp(ingress, StampDirection::Forward);
                start -= STAMP_LEN;
                header.flags = Flags(Flags::MARKED);
                header.stamps = 1;
                header.classes = question.classes.0;
                header.annotations_len = question.annotation().len();
                stamp.emit(&mut chunk.buffer[start + HEADER_LEN..]);
            }
            header.emit(&mut chunk.buffer[start..]);
            let mut together;
            let (frame, at) = match open.take() {
                None if header.annotations_len == 0 => {
                    (&mut chunk.buffer[start..chunk.end + tag], 0)
                }
                open => {
                    together = open.map_or_else(Vec::new, |open| server.with_room(open));
                    let at = together.len();
                    together.extend_from_slice(&chunk.buffer[start..chunk.start]);
                    together.extend_from_slice(question.annotation());
                    together.extend_from_slice(&chunk.buffer[chunk.start..chunk.end + tag]);
                    (&mut together[..], at)
                }
            };
            let guard = server.lock();
            if at > 0 {
                server.seal(&mut frame[..at]);
            }
            let seal = server.begin_seal(&header, &frame[at..]);
            if marked {
                let moment = self.clock.read();
                set_egress(
                    &mut frame[at + HEADER_LEN..],
                    moment.wall,
                    moment.generation,
                );
            }
            if let Some(seal) = seal {
                seal.finish(&mut frame[at..]);
            }
            self.send(Side::Server, frame)?;
            drop(guard);
            if marked {
                self.tell_own(&question, header.sequence, ingress);
            }
        }
        if let Some(open) = open {
            self.say(Side::Server, open)?;
        }
        self.say(Side::Server, self.end_frame(Flags::default()))?;
        self.finish(|| server.shut_writing())
    }

    /// An entry is a node of the path too, and answers what its own blocks ask.
    fn tell_own(&mut self, question: &Question, sequence: u64, at: Moment) {
        if question.classes.is_empty() {
            return self.telling.rest();
        }
        let (node, own) = (self.node, question.own);
        let value = self.telling.answer(&node.annotator, own, at.mono);
        tell_own_facts(node, sequence, &value);
        self.follow(at);
    }

    fn end_frame(&self, flags: Flags) -> Vec<u8> {
        let header = Header {
            flags,
            hop: self.session.hop,
            hop_limit: self.session.hop_limit,
            ..Header::new(frame_type::END, self.session.cookie, self.sequence)
        };
        build(header, &[], &[], &[])
    }

    /// An exit's down pump. Its blocks are not marked: the way back is measured by the reports, which queue behind them.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn wrap_back(&mut self) -> Result<(), Fault> {
        const ANNOTATION_LEN: usize = ANNOTATION_HEADER_LEN + BehindExit::LEN;
        const _: () = assert!(HEADER_LEN + ANNOTATION_LEN <= HEADROOM);
        let mut intake = self.intake();
        let client = self.end(Side::Client);
        loop {
            let chunk = intake.chunk();
            let Some(chunk) = chunk.map_err(|fault| self.read_fault(self.source, fault))? else {
                break;
            };
            let asked = self.pair.exchange.answered();
            let payload_len = chunk.end - chunk.start;
            self.count(payload_len);
            let mut header = Header {
                flags: Flags(Flags::RETURN),
                hop: self.session.hop,
                hop_limit: self.session.hop_limit,
                payload_len,
                authentication_len: client.tag_len() as u8,
                ..Header::new(frame_type::BLOCK, self.session.cookie, self.sequence)
            };
            self.sequence += 1;
            let mut start = chunk.start - HEADER_LEN;
            if let Some((sequence, since)) = asked {
                let span = self.clock.read().mono.since(since);
                start -= ANNOTATION_LEN;
                header.annotations_len = ANNOTATION_LEN;
                self.behind_exit(sequence, span, &mut chunk.buffer[start + HEADER_LEN..]);
            }
            header.emit(&mut chunk.buffer[start..]);
            let frame = &mut chunk.buffer[start..chunk.end + client.tag_len()];
            let guard = client.lock();
            if let Some(seal) = client.begin_seal(&header, frame) {
                seal.finish(frame);
            }
            self.send(Side::Client, frame)?;
            drop(guard);
            self.drain_reports();
            let payload = &chunk.buffer[chunk.end - payload_len..chunk.end];
            self.note_payload(Place::Server, chunk.read_at, payload);
        }
        self.say(Side::Client, self.end_frame(Flags(Flags::RETURN)))?;
        self.flush_reports()?;
        self.finish(|| client.writer_done())
    }

    #[inline(never)]
    fn behind_exit(&self, sequence: u64, span: Nanos, out: &mut [u8]) {
        let mut annotation = Vec::new();
        let value = BehindExit { sequence, span }.emit();
        push_annotation(
            &mut annotation,
            ANNOTATION_BEHIND_EXIT,
            self.session.hop,
            &value,
        );
        out[..annotation.len()].copy_from_slice(&annotation);
        let now = self.node.clock.pump().read().mono;
        self.node
            .collector
            .offer(Measurement::BehindExit(self.session.hop, now, span));
    }

    // --- plain bytes in, plain bytes out ---------------------------------------------------------------------------

    /// A plain proxy's pump in either direction; also a reflector's for a raw client.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn splice(&mut self, intake: &mut Intake<'a>) -> Result<(), Fault> {
        let sink = self.end(self.sink);
        let direction = match self.source {
            Side::Client => Direction::Forward,
            Side::Server => Direction::Return,
        };
        loop {
            let chunk = intake.chunk();
            let Some(chunk) = chunk.map_err(|fault| self.read_fault(self.source, fault))? else {
                break;
            };
            let asked = match self.source {
                Side::Client => None,
                Side::Server => self.pair.exchange.answered(),
            };
            if self.source == Side::Client && self.traffic.forward_blocks == 0 {
                refuse_greeting(self.node, self.pair, chunk.bytes())?;
            }
            self.count(chunk.end - chunk.start);
            if !self.node.settings.stamp || !self.node.collector.may_mark(&mut self.epoch) {
                if self.source == Side::Client {
                    self.pair.exchange.ask_untimed();
                }
                self.note_asked(&chunk);
                self.send(self.sink, chunk.bytes())?;
                if let Some((_, since)) = asked {
                    self.tell_behind(since);
                }
                self.note_answered(&chunk);
                continue;
            }
            let ingress = self.clock.read();
            let behind = asked.map(|(_, since)| ingress.mono.since(since));
            let question = match self.source {
                Side::Client => Some(self.pair.exchange.ask(self.sequence)),
                Side::Server => None,
            };
            self.note_asked(&chunk);
            let egress = self.clock.read();
            if let Some(question) = question {
                question.at(egress.mono);
            }
            self.send(self.sink, chunk.bytes())?;
            self.sequence += 1;
            self.note_answered(&chunk);
            self.tell_residence(direction, ingress, egress);
            if let Some(behind) = behind {
                self.node.collector.offer(Measurement::BehindExit(
                    self.session.hop,
                    ingress.mono,
                    behind,
                ));
            }
        }
        self.finish(|| sink.shut_writing())
    }

    /// Both directions as the client sees them: what it sent when it was read ...
    fn note_asked(&self, chunk: &Chunk<'_>) {
        if self.source == Side::Client {
            self.note_payload(Place::Client, chunk.read_at, chunk.bytes());
        }
    }

    /// ... and what it gets when it is written.
    fn note_answered(&self, chunk: &Chunk<'_>) {
        if self.source == Side::Server {
            self.note_payload(Place::Server, None, chunk.bytes());
        }
    }

    fn tell_behind(&mut self, since: crate::time::MonoTime) {
        let now = self.clock.read().mono;
        self.node.collector.offer(Measurement::BehindExit(
            self.session.hop,
            now,
            now.since(since),
        ));
    }

    /// A plain proxy's down pump, from the beginning.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn splice_back(&mut self) -> Result<(), Fault> {
        let intake = &mut self.intake();
        self.splice(intake)
    }

    /// A reflector for a raw client, so that a person with `nc` can try it.
    ///
    /// # Errors
    ///
    /// [`Fault`], for [`conclude`].
    pub fn reflect_raw(&mut self, intake: &mut Intake<'a>) -> Result<(), Fault> {
        self.sink = Side::Client;
        self.splice(intake)
    }
}

/// A raw listener that is greeted with the magic refuses: a loop, or an entry where a relay was meant.
#[inline(never)]
fn refuse_greeting(node: &Node, pair: &Pair, first: &[u8]) -> Result<(), Fault> {
    match judge(Accept::Raw, first, false) {
        Admission::Refused(text) => {
            pair.client.set_framed(); // so that it is told
            let text = format!("peer {} {text}", pair.client.peer);
            Err(Fault::error(node, 0, ErrorCode::Protocol, text))
        }
        _ => Ok(()),
    }
}

fn gatherable(kind: u8) -> bool {
    matches!(
        kind,
        frame_type::BLOCK | frame_type::REPORT | frame_type::END | frame_type::OPENED
    )
}

fn next_gatherable(intake: &Intake<'_>) -> Option<Header> {
    intake.next_whole().filter(|next| gatherable(next.kind))
}

/// The buffer that a frame lies in which [`Pump::make_ready`] returned.
fn either<'b>(own: &'b mut [u8], intake: &'b mut Intake<'_>) -> &'b mut [u8] {
    if own.is_empty() {
        intake.buffer()
    } else {
        own
    }
}

/// The egress time of a report, and its trailer; OPENED waits in the same queue, but carries no stamp.
fn stamp_report(client: &End, frame: &mut [u8], clock: &mut PumpClock<'_>) {
    let Ok(header) = Header::parse(frame) else {
        return;
    };
    let seal = client.begin_seal(&header, frame);
    if header.marked() {
        let moment = clock.read();
        let at = header.annotations_at() - STAMP_LEN;
        set_egress(&mut frame[at..], moment.wall, moment.generation);
    }
    if let Some(seal) = seal {
        seal.finish(frame);
    }
}

/// What an end of reading means, by the side it happened on and who speaks there.
#[inline(never)]
pub(super) fn explain(node: &Node, pair: &Pair, hop: u8, side: Side, fault: ReadFault) -> Fault {
    let end = match side {
        Side::Client => Some(&pair.client),
        Side::Server => pair.server.get(),
    };
    let Some(end) = end else {
        return Fault::silent();
    };
    let peer = end.peer;
    match fault {
        ReadFault::Aborted => Fault::silent(),
        ReadFault::Idle => Fault::reset(
            log::Level::Info,
            format!("peer {peer}: no byte moved for --idle-timeout, closed"),
        ),
        ReadFault::Stalled => Fault::error(
            node,
            hop,
            ErrorCode::Timeout,
            format!(
                "peer {peer} began a frame and did not go on for {} s (--timeout)",
                pair.timeout.as_secs_f64()
            ),
        ),
        ReadFault::Parse(error) => {
            let remedy = match (&error, side) {
                (ParseError::Magic { .. }, Side::Server) => {
                    "; if it is a plain TCP server use --remove-perf-headers"
                }
                (ParseError::Magic { .. }, Side::Client) => {
                    "; is something between the nodes rewriting the stream?"
                }
                _ => "",
            };
            Fault::error(
                node,
                hop,
                ErrorCode::Protocol,
                format!("peer {peer} {error}{remedy}"),
            )
        }
        ReadFault::Truncated => Fault::error(
            node,
            hop,
            ErrorCode::Broken,
            format!("peer {peer} closed the connection within a frame"),
        ),
        ReadFault::Reset(_) if !end.is_framed() => {
            let who = match side {
                Side::Client => "client",
                Side::Server => "server",
            };
            Fault::reset(
                log::Level::Info,
                format!("{who} {peer} reset the connection"),
            )
        }
        ReadFault::Reset(error) => match side {
            Side::Client => Fault::reset(
                log::Level::Warn,
                format!("peer {peer} broke the connection: {error}"),
            ),
            Side::Server => Fault::error(
                node,
                hop,
                ErrorCode::Broken,
                format!("next hop {peer} broke the connection: {error}"),
            ),
        },
    }
}

/// A node that went without END.
#[inline(never)]
fn vanished(node: &Node, pair: &Pair, hop: u8, side: Side) -> Fault {
    match (side, pair.server.get()) {
        (Side::Server, Some(server)) => Fault::error(
            node,
            hop,
            ErrorCode::Broken,
            format!("next hop {} closed the connection without END", server.peer),
        ),
        _ => Fault::reset(
            log::Level::Warn,
            format!(
                "peer {} closed the connection without END",
                pair.client.peer
            ),
        ),
    }
}

/// Ends a connection after a fault: one log line, a last word to each side, and both sockets gone. The first pump to come
/// here does it; the other finds the pair failed.
#[inline(never)]
pub fn conclude(node: &Node, pair: &Pair, fault: Fault) {
    let fault = *fault.0;
    if matches!(fault.last, Last::Silent) || !pair.fail() {
        return;
    }
    log::log!(
        fault.level,
        "{} {}: {}",
        sys::thread::name(),
        pair.client.peer,
        fault.text
    );
    let told = last_words(pair, &fault.last, true);
    if matches!(fault.last, Last::Error(_)) {
        node.collector.offer(Measurement::Notice(fault.text));
    }
    pair.abort_server();
    if told {
        pair.close_client();
    }
    pair.abort();
}

/// RESET to a node behind; to one before ERROR, or RESET too. Whether there is an ERROR under way to the client, which a
/// reset must not overtake. An ERROR is worth waiting for the other pump's frame (`wait`), a RESET says no more than the
/// reset that follows it.
fn last_words(pair: &Pair, last: &Last, wait: bool) -> bool {
    let session = pair.session.get().copied().unwrap_or_default();
    let frame = |kind, flags, payload: &[u8]| {
        let header = Header {
            flags: Flags(flags),
            hop: session.hop,
            hop_limit: session.hop_limit,
            ..Header::new(kind, session.cookie, 0)
        };
        build(header, &[], &[], payload)
    };
    if let Some(server) = pair.server.get() {
        server.send_last(frame(frame_type::RESET, 0, &[]), false);
    }
    match last {
        Last::Error(info) => {
            let error = frame(frame_type::ERROR, Flags::RETURN, &info.emit());
            pair.client.send_last(error, wait)
        }
        _ => {
            let reset = frame(frame_type::RESET, Flags::RETURN, &[]);
            pair.client.send_last(reset, false);
            false
        }
    }
}

/// Ends a connection because the node ends: nobody is to take what was cut off for complete.
pub(super) fn cut_off(node: &Node, pair: &Pair) {
    if pair.fail() {
        let hop = pair.session.get().copied().unwrap_or_default().hop;
        let text = format!("{} was told to end", node.settings.name);
        last_words(
            pair,
            &Fault::error(node, hop, ErrorCode::Refused, text).0.last,
            false,
        );
        pair.abort();
    }
}

/// The path from this node on, to the collector.
#[inline(never)]
pub(super) fn tell_nodes(node: &Node, session: Session, annotations: Annotations<'_>) {
    let introductions = path::nodes(annotations);
    // Behind a balancer a node does not know what its neighbour connected to; the neighbour does.
    let called = |hop: u8| {
        introductions.iter().find_map(|(near, neighbour)| {
            let before = near.checked_add(1) == Some(hop) && !neighbour.onward.is_empty();
            before.then(|| neighbour.onward.clone())
        })
    };
    let mut path = Path {
        cookie: session.cookie,
        hop: session.hop,
        nodes: Vec::with_capacity(introductions.len()),
    };
    for (hop, info) in introductions.iter().filter(|(hop, _)| *hop >= session.hop) {
        let address = called(*hop);
        path.nodes.push(path_node(*hop, info.clone()));
        if let (Some(node), Some(_)) = (path.nodes.last_mut(), &address) {
            node.address = address;
        }
    }
    node.collector.offer(Measurement::Path(Box::new(path)));
}

/// A node's introduction as the report shows it.
pub(super) fn path_node(hop: u8, info: NodeInfo) -> PathNode {
    PathNode {
        hop,
        id: info.id,
        name: info.name,
        role: info.role.name().into(),
        address: (!info.address.is_empty()).then_some(info.address),
        tags: info.tags,
        connect: info.connect,
    }
}

/// The far end's answer to OPEN: all introductions, its own among them, and a nonce.
#[inline(never)]
pub(super) fn opened(session: Session, annotations: &[u8]) -> Vec<u8> {
    let mut annotations = annotations.to_vec();
    push_annotation(
        &mut annotations,
        ANNOTATION_NONCE,
        session.hop,
        &random().to_be_bytes(),
    );
    let header = Header {
        flags: Flags(Flags::RETURN),
        hop: session.hop,
        hop_limit: session.hop_limit,
        ..Header::new(frame_type::OPENED, session.cookie, 0)
    };
    build(header, &[], &annotations, &[])
}

/// An introduction appended to those of the nodes before; the flags say where there was no room.
#[inline(never)]
pub(super) fn introduce(
    annotations: &mut Vec<u8>,
    flags: Flags,
    hop: u8,
    info: &NodeInfo,
) -> Flags {
    if push_annotation(annotations, ANNOTATION_NODE, hop, &info.emit()) {
        flags
    } else {
        flags.with(Flags::ANNOTATIONS_OVERFLOW)
    }
}
