//! The pumps: one direction of one connection each. What a pump reads and writes, frames or plain bytes, has a file each
//! below; here is what all of them do.
//!
//! The way of a marked block through a pump: the read that completes it, *ingress*, stamp and header written, the write
//! half locked, *egress*, the send. Logging, allocation and the hand-over to the collector come after the send. Frames
//! that are ready together go out in one send, with one egress time.

use crate::annotate::annotator::AnnotationWriter;
use crate::collect::queue::{Measurement, Traffic};
use crate::measure::{Direction, Return};
use crate::node::annotations::collect_annotations;
use crate::node::clock::{Moment, PumpClock};
use crate::node::connect_window::{Arrived, ConnectWindow};
use crate::node::end::{End, Patience, WriteFault};
use crate::node::fault::{explain, vanished, ConnectionFault};
use crate::node::pair::{EndPair, Session};
use crate::node::reader::{FrameReader, ReadFault};
use crate::node::Node;
use crate::session::admission::{judge, Accept, Admission};
use crate::session::annotations::asked;
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::{Inbound, Violation};
use crate::session::trips::{trip, TripOrigin};
use crate::time::{Nanos, WallTime};
use crate::wire::{ErrorCode, ErrorInfo, FrameView, Header, Stamp, StampDirection, StampFlags};
use std::net::TcpStream;

mod deliver;
mod relay;
mod splice;
mod wrap;

/// One direction of one connection.
#[derive(Debug)]
pub struct Pump<'a> {
    node: &'a Node,
    pair: &'a EndPair,
    session: Session,
    source: ConnectionSide,
    sink: ConnectionSide,
    clock: PumpClock<'a>,
    held: Nanos,
    traffic: Traffic,
    sequence: u64,
    epoch: usize,
    /// When the frames that are pending were completely read, if one of them is marked.
    read_at: Option<Moment>,
    /// As long as what is read may have come before the onward connection stood.
    window: Option<ConnectWindow>,
    telling: AnnotationWriter,
}

impl<'a> Pump<'a> {
    /// The pump that reads at `source` and writes to the other side.
    pub fn new(
        node: &'a Node,
        pair: &'a EndPair,
        session: Session,
        source: ConnectionSide,
    ) -> Self {
        Self {
            node,
            pair,
            session,
            source,
            sink: match source {
                ConnectionSide::Client => ConnectionSide::Server,
                ConnectionSide::Server => ConnectionSide::Client,
            },
            clock: node.clock.pump(),
            held: Nanos::ZERO,
            traffic: Traffic::default(),
            sequence: 0,
            epoch: 0,
            read_at: None,
            window: None,
            telling: AnnotationWriter::default(),
        }
    }

    /// What was read before it began, at `read_at`, and while what came was not read.
    pub(super) fn begin(&mut self, read_at: Moment, window: Option<ConnectWindow>) {
        self.read_at = Some(read_at);
        self.window = window;
    }

    /// The end that it reads.
    pub fn source(&self) -> ConnectionSide {
        self.source
    }

    /// What it has moved.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn end(&self, side: ConnectionSide) -> &'a End {
        match side {
            ConnectionSide::Client => &self.pair.client,
            ConnectionSide::Server => self
                .pair
                .server
                .get()
                .expect("a pump starts when both ends are there"),
        }
    }

    fn count(&mut self, payload: usize) {
        let traffic = &mut self.traffic;
        let (blocks, bytes) = match self.source {
            ConnectionSide::Client => (&mut traffic.forward_blocks, &mut traffic.forward_bytes),
            ConnectionSide::Server => (&mut traffic.return_blocks, &mut traffic.return_bytes),
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
    fn note_payload(&self, from: ConnectionSide, when: Option<WallTime>, bytes: &[u8]) {
        if let Some(connection_log) = self.pair.client.connection_log() {
            connection_log.payload(from, when, bytes);
        }
    }

    fn send(&mut self, side: ConnectionSide, bytes: &[u8]) -> Result<(), ConnectionFault> {
        let end = self.end(side);
        let sent = end.send(self.pair, bytes, &mut self.held, Patience::Unlimited);
        sent.map_err(|fault| self.write_fault(side, fault))
    }

    /// Sends a frame that is no block: OPEN onward, OPENED back.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn say(&mut self, side: ConnectionSide, frame: Vec<u8>) -> Result<(), ConnectionFault> {
        let end = self.end(side);
        let mut frame = end.with_room(frame);
        let guard = end.lock();
        end.seal(&mut frame);
        let said = self.send(side, &frame);
        drop(guard);
        said
    }

    #[inline(never)]
    fn write_fault(&self, side: ConnectionSide, fault: WriteFault) -> ConnectionFault {
        match fault {
            WriteFault::SourceReset => self.read_fault(
                self.source,
                ReadFault::Reset(std::io::ErrorKind::ConnectionReset.into()),
            ),
            WriteFault::Dead { alone, error } if alone || self.source == side => {
                self.read_fault(side, ReadFault::Reset(error))
            }
            _ => ConnectionFault::silent(),
        }
    }

    #[inline(never)]
    fn read_fault(&self, side: ConnectionSide, fault: ReadFault) -> ConnectionFault {
        explain(self.node, self.pair, self.session.hop, side, fault)
    }

    #[inline(never)]
    fn violation(&self, side: ConnectionSide, violation: Violation) -> ConnectionFault {
        ConnectionFault::error(
            self.node,
            self.session.hop,
            violation.code(),
            format!("peer {} {violation}", self.end(side).peer),
        )
    }

    fn reader(&self) -> FrameReader<'a> {
        let source = self.end(self.source);
        FrameReader::new(self.pair, source, self.node.settings.idle_timeout)
    }

    /// The source came to its end: pass it on, then wait until its socket is closed for good, so that a reset that comes
    /// still is passed on too.
    fn finish(&self, pass_on: impl FnOnce()) -> Result<(), ConnectionFault> {
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
            Err(false) => Err(ConnectionFault::silent()),
            Err(true) => Err(self.read_fault(
                self.source,
                ReadFault::Reset(std::io::ErrorKind::ConnectionReset.into()),
            )),
        }
    }

    /// When the frame at hand was completely read, if it is to be stamped. One that needed no read of its own was
    /// complete when the one before it was: what it waited for since is this node's doing, not the network's.
    fn ingress(&mut self, reader: &mut FrameReader<'_>, header: &Header) -> Option<Moment> {
        if !self.node.settings.stamp {
            return None;
        }
        if reader.take_fresh() {
            let soon = header.marked() || reader.marked_follows(header);
            self.read_at = soon.then(|| self.clock.read());
            if let (Some(window), Some(read_at)) = (self.window, self.read_at) {
                self.read_at = Some(self.was_there(reader, window, read_at));
            }
        }
        let clock = &mut self.clock;
        let marked = header.marked();
        let read_at = marked.then(|| *self.read_at.get_or_insert_with(|| clock.read()))?;
        Some(read_at.after(reader.arrival(header, read_at.wall)))
    }

    /// When a read at `read_at`, one of the first, was there: before the onward connection stood it could not be read.
    #[inline(never)]
    fn was_there(
        &mut self,
        reader: &mut FrameReader<'_>,
        window: ConnectWindow,
        read_at: Moment,
    ) -> Moment {
        match window.judge(read_at, reader.had_come(read_at.wall)) {
            Arrived::Meanwhile(moment) => return moment,
            Arrived::After => self.window = None,
            Arrived::Unknown => {}
        }
        read_at
    }

    /// Whether the pending frame is genuine and may come now. After its ingress was read: what this takes is the host's.
    fn check(
        &self,
        reader: &FrameReader<'_>,
        inbound: &mut Inbound,
        header: &Header,
    ) -> Result<(), ConnectionFault> {
        let verified = reader.verify(header);
        verified.map_err(|fault| self.read_fault(self.source, fault))?;
        let checked = inbound.check(header);
        checked.map_err(|violation| self.violation(self.source, violation))
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
        let client = self.socket(ConnectionSide::Client);
        let server = self.socket(ConnectionSide::Server);
        self.telling
            .request_next(&self.node.annotator, at.mono, client, server);
    }

    fn socket(&self, side: ConnectionSide) -> Option<&'a TcpStream> {
        match side {
            ConnectionSide::Client => Some(&self.pair.client.socket),
            ConnectionSide::Server => self.pair.server.get().map(|end| &end.socket),
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
        let home = Return {
            arrival: ingress.arrival,
            ingress: ingress.wall,
            // Across a step of the clock the residence is no span of time.
            egress: egress
                .filter(|egress| egress.generation == ingress.generation)
                .map(|egress| egress.wall),
            generation: ingress.generation,
            held,
        };
        let origin = TripOrigin {
            node: self.node.id,
            hop: self.session.hop,
        };
        if let Some(trip) = trip(&view, origin, ingress.mono, home) {
            self.node.collector.offer(Measurement::Trip(Box::new(trip)));
        }
        if header.classes != 0 {
            collect_annotations(self.node, self.session.hop, &view);
        }
    }

    #[inline(never)]
    fn passed_reset(&self) -> ConnectionFault {
        let side = match self.source {
            ConnectionSide::Client => "the client's side",
            ConnectionSide::Server => "the server's side",
        };
        ConnectionFault::reset(
            log::Level::Info,
            format!(
                "a reset came from {side} through {}",
                self.end(self.source).peer
            ),
        )
    }

    #[inline(never)]
    fn passed_error(&self, payload: &[u8]) -> ConnectionFault {
        match ErrorInfo::parse(payload) {
            Ok(info) => ConnectionFault::reported(info),
            Err(error) => self.read_fault(self.source, ReadFault::Parse(error)),
        }
    }

    #[inline(never)]
    fn vanished(&self) -> ConnectionFault {
        vanished(self.node, self.pair, self.session.hop, self.source)
    }
}

/// A raw listener that is greeted with the magic refuses: a loop, or an entry where a relay was meant.
#[inline(never)]
fn refuse_greeting(node: &Node, pair: &EndPair, first: &[u8]) -> Result<(), ConnectionFault> {
    match judge(Accept::Raw, first, false) {
        Admission::Refused(text) => {
            pair.client.set_framed(); // so that it is told
            let text = format!("peer {} {text}", pair.client.peer);
            Err(ConnectionFault::error(node, 0, ErrorCode::Protocol, text))
        }
        _ => Ok(()),
    }
}
