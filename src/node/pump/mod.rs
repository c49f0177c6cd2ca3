//! The pumps: one direction of one connection each. The files below hold the formats that a pump
//! reads and writes, frames or plain bytes. This one holds the steps that all of them share.
//!
//! A marked block passes a pump in six steps: the completing read, *ingress*, stamp and header
//! written, the write half locked, *egress*, the send. Logging, allocation and the hand-over to the
//! collector come after the send. Frames that are ready together share one send and one egress
//! time.

use crate::annotate::annotator::AnnotationWriter;
use crate::collect::path_key::PathKey;
use crate::collect::queue::{Measurement, Traffic};
use crate::measure::{Direction, Return};
use crate::node::annotations::collect_annotations;
use crate::node::clock::{Moment, PumpClock};
use crate::node::connect_window::{Arrived, ConnectWindow};
use crate::node::connection_log::FromPayload;
use crate::node::end::{End, Patience, WriteFault};
use crate::node::fault::{explain, passed_error, ConnectionFault};
use crate::node::http_edit::HttpEditor;
use crate::node::pair::EndPair;
use crate::node::reader::{FrameReader, ReadFault};
use crate::node::retransmits::RetransmitCounter;
use crate::node::server_check::ProbeSession;
use crate::node::Node;
use crate::session::annotations::requested;
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::Inbound;
use crate::session::opening::Session;
use crate::session::trips::{last_retransmits, trip, ForgedStamp, TripOrigin};
use crate::time::{MonoTime, Nanos, WallTime};
use crate::wire::{FrameView, Header, Stamp, StampDirection, StampFlags, ANNOTATION_ANSWERED};
use crate::FULL;
use std::io;
use std::net::TcpStream;
use std::time::Instant;

mod deliver;
mod edit;
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
    /// The time at which the pending frames were completely read, if one of them is marked.
    read_at: Option<Moment>,
    /// The time of the connect upstream, as long as a read may hold bytes that arrived within it.
    window: Option<ConnectWindow>,
    /// The bytes of `read_at` were there before the upstream connection was established.
    waited: bool,
    retransmits: RetransmitCounter,
    annotations: AnnotationWriter,
    /// The probe session that an exit answers; `None` at every other pump.
    probes: Option<ProbeSession<'a>>,
    /// The editor of heads of HTTP; `None` without `--http-write` and `--server-timing`.
    http: Option<&'a HttpEditor>,
    /// The time since which a head waits for its end.
    held_since: Option<Instant>,
    /// The block that the latest bytes of a plain server answered, and the time of its write.
    early_answer: Option<(u64, MonoTime)>,
    /// The findings of the connection log in bytes that were logged before they were edited.
    early_found: Option<Box<FromPayload>>,
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
            waited: false,
            retransmits: RetransmitCounter::default(),
            annotations: AnnotationWriter::default(),
            probes: None,
            http: pair.http.get().map(|http| &**http),
            held_since: None,
            early_answer: None,
            early_found: None,
        }
    }

    /// Returns the editor of HTTP heads; `None` without one, and in a small build.
    #[inline]
    fn editor(&self) -> Option<&'a HttpEditor> {
        self.http.filter(|_| FULL)
    }

    /// Lets the blocks of a probe session carry the connects of this exit to its server.
    pub(super) fn carry_connects(&mut self, probes: Option<ProbeSession<'a>>) {
        self.probes = probes;
    }

    /// Takes the time at which the bytes read before the pump started were read, and the interval
    /// in which nothing could be read.
    pub(super) fn begin(&mut self, read_at: Moment, window: Option<ConnectWindow>) {
        self.read_at = Some(read_at);
        self.waited = window.is_some();
        self.window = window;
    }

    /// Takes the time at which the first bytes of a plain client were read, before the upstream
    /// connect, or else the interval of that.
    pub(super) fn begin_raw(&mut self, read_at: Option<Moment>, window: Option<ConnectWindow>) {
        self.read_at = read_at;
        self.window = window;
    }

    /// Reads what the kernel sent again to `side` for the last time, before the END goes there.
    fn read_last(&mut self, side: ConnectionSide) {
        if self.node.settings.stamp {
            let now = self.clock.read();
            self.retransmits.end(&self.end(side).socket, now.mono);
        }
    }

    /// Begins to count what the kernel sends again to `side`, if this node stamps.
    fn count_retransmits(&mut self, side: ConnectionSide) {
        if self.node.settings.stamp {
            self.retransmits.begin(&self.end(side).socket);
        }
    }

    /// The end that it reads.
    pub fn source(&self) -> ConnectionSide {
        self.source
    }

    /// The traffic that it has moved.
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
        self.pair.counts[self.source as usize].store(*blocks, *bytes);
    }

    fn stamp(&mut self, ingress: Moment, direction: StampDirection) -> Stamp {
        Stamp {
            node: self.node.id,
            hop: self.session.hop,
            direction,
            generation: ingress.generation,
            flags: StampFlags(if self.node.clock.error().is_some() {
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

    /// Records plain bytes from `from` in the connection log, if there is one, dated `when` or now.
    ///
    /// A request is recorded before it is sent, within the residence: the other pump may have the
    /// answer right after. Returns what it found in them.
    #[inline]
    fn log_payload(
        &self,
        from: ConnectionSide,
        when: Option<WallTime>,
        bytes: &[u8],
    ) -> FromPayload {
        let log = self.pair.client.connection_log().filter(|_| FULL);
        let Some(connection_log) = log else {
            return FromPayload::default(); // HTTP is not read on small machines.
        };
        let mut found = connection_log.payload(from, when, bytes);
        for exchange in found.stamped.drain(..) {
            let measurement = Measurement::Headers(self.path_key(), Box::new(exchange));
            self.node.collector.offer(measurement);
        }
        found
    }

    fn send(&mut self, side: ConnectionSide, bytes: &[u8]) -> Result<(), ConnectionFault> {
        let end = self.end(side);
        let sent = end.send(self.pair, bytes, &mut self.held, Patience::Unlimited);
        sent.map_err(|fault| self.write_fault(side, fault))
    }

    /// Sends a frame that is no block: OPEN forward, OPENED back, END.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn send_frame(
        &mut self,
        side: ConnectionSide,
        frame: Vec<u8>,
    ) -> Result<(), ConnectionFault> {
        let end = self.end(side);
        let mut frame = end.with_room(frame);
        let guard = end.lock();
        end.seal(&mut frame);
        let sent = self.send(side, &frame);
        drop(guard);
        sent
    }

    #[cold]
    fn write_fault(&self, side: ConnectionSide, fault: WriteFault) -> ConnectionFault {
        match fault {
            WriteFault::SourceReset => self.source_reset(),
            WriteFault::Dead { alone, error } if alone || self.source == side => {
                self.read_fault(side, ReadFault::Reset(error))
            }
            WriteFault::Dead { .. } | WriteFault::Aborted | WriteFault::Timeout => {
                ConnectionFault::silent()
            }
        }
    }

    #[cold]
    fn read_fault(&self, side: ConnectionSide, fault: ReadFault) -> ConnectionFault {
        explain(self.node, self.pair, self.session.hop, side, fault)
    }

    #[cold]
    fn source_reset(&self) -> ConnectionFault {
        let reset = ReadFault::Reset(io::ErrorKind::ConnectionReset.into());
        self.read_fault(self.source, reset)
    }

    fn reader(&self) -> FrameReader<'a> {
        let source = self.end(self.source);
        FrameReader::new(self.pair, source, self.node.settings.idle_timeout)
    }

    /// Ends the direction in order. Passes the end of the source on, then waits until its socket is
    /// closed for good, so that a later reset is passed on too.
    fn finish(&self, pass_on: impl FnOnce()) -> Result<(), ConnectionFault> {
        let source = self.end(self.source);
        if source.reading_over() {
            return Err(self.source_reset());
        }
        pass_on();
        match self.pair.wait_closed(source) {
            Ok(()) => Ok(()),
            Err(false) => Err(ConnectionFault::silent()),
            Err(true) => Err(self.source_reset()),
        }
    }

    /// Receives the next frame: whole, dated if it is to be stamped, verified and allowed to come.
    /// It stays pending in `reader`. `None` at the end of the stream, after END.
    #[inline]
    fn receive(
        &mut self,
        reader: &mut FrameReader<'_>,
        inbound: &mut Inbound,
    ) -> Result<Option<(Header, Option<Moment>)>, ConnectionFault> {
        let read = loop {
            if self.editor().is_some() {
                reader.set_tick(self.holding_tick());
            }
            match reader.frame() {
                Err(ReadFault::Idle) if self.held_since.is_some() => self.send_overdue()?,
                read => break read,
            }
        };
        let header = match read {
            Ok(Some(header)) => header,
            Ok(None) if inbound.ended() => return Ok(None),
            Ok(None) => return Err(self.read_fault(self.source, ReadFault::NoEnd)),
            Err(fault) => return Err(self.read_fault(self.source, fault)),
        };
        let ingress = self.ingress(reader, &header);
        self.check(reader, inbound, &header)?;
        Ok(Some((header, ingress)))
    }

    /// Returns the time at which the pending frame was completely read; `None` if it is not to be
    /// stamped.
    ///
    /// A frame that needed no further read was complete with the one before it. The time since then
    /// is this node's residence, not the network's delay.
    fn ingress(&mut self, reader: &mut FrameReader<'_>, header: &Header) -> Option<Moment> {
        if !self.node.settings.stamp {
            return None;
        }
        if reader.take_fresh() {
            let soon = header.marked() || reader.marked_follows(header);
            self.read_at = soon.then(|| self.clock.read());
            self.waited = false;
            if let (Some(window), Some(read_at)) = (self.window, self.read_at) {
                self.read_at = Some(self.readable_at(reader, window, read_at));
            }
        }
        let clock = &mut self.clock;
        let marked = header.marked();
        let read_at = marked.then(|| *self.read_at.get_or_insert_with(|| clock.read()))?;
        Some(read_at.after(reader.arrival(header, read_at.wall)))
    }

    /// Returns the time at which the bytes of one of the first reads, at `read_at`, were there.
    /// Nothing was read before the upstream connection was established.
    #[inline(never)]
    fn readable_at(
        &mut self,
        reader: &mut FrameReader<'_>,
        window: ConnectWindow,
        read_at: Moment,
    ) -> Moment {
        match window.judge(read_at, reader.arrived_by(read_at.wall)) {
            Arrived::WhileConnecting(moment) => {
                self.waited = true;
                return moment;
            }
            Arrived::After => self.window = None,
            Arrived::Unknown => {}
        }
        read_at
    }

    /// Checks that the pending frame is genuine and may come now. Its ingress was read before: the
    /// time that this takes is the host's.
    fn check(
        &self,
        reader: &FrameReader<'_>,
        inbound: &mut Inbound,
        header: &Header,
    ) -> Result<(), ConnectionFault> {
        let checked = reader.check(header, inbound);
        checked.map_err(|fault| self.read_fault(self.source, fault))
    }

    /// Returns this node's annotations for a block that requests them; empty if there is no reading
    /// yet, or the request is for other hops.
    #[inline(never)]
    fn answer(&mut self, frame: &FrameView<'_>, ingress: Moment) -> Vec<u8> {
        let classes = requested(frame, self.session.hop);
        self.annotations
            .answer(&self.node.annotator, classes, ingress.mono)
    }

    /// Requests the annotations that the next block is going to need. Called after a send.
    fn request_next(&mut self, at: Moment) {
        let client = self.socket(ConnectionSide::Client);
        let server = self.socket(ConnectionSide::Server);
        self.annotations
            .request_next(&self.node.annotator, at.mono, client, server);
    }

    fn path_key(&self) -> PathKey {
        self.pair.path.get().copied().unwrap_or_default()
    }

    fn socket(&self, side: ConnectionSide) -> Option<&'a TcpStream> {
        match side {
            ConnectionSide::Client => Some(&self.pair.client.socket),
            ConnectionSide::Server => self.pair.server.get().map(|end| &end.socket),
        }
    }

    /// Hands the residence of a block in this node to the collector, on the monotonic clock.
    fn collect_residence(&self, direction: Direction, ingress: Moment, egress: Moment) {
        let residence = egress.mono.since(ingress.mono).signed();
        let path = self.path_key();
        self.node
            .collector
            .offer(Measurement::Residence(path, direction, residence));
    }

    /// Hands the time of the server behind this node to the collector.
    fn collect_server_time(&self, at: Moment, span: Nanos) {
        let path = self.path_key();
        self.node
            .collector
            .offer(Measurement::BehindExit(path, at.mono, span));
    }

    /// Hands a frame that came back to the collector.
    fn collect_trip(
        &self,
        frame: &[u8],
        header: Header,
        ingress: Moment,
        egress: Option<Moment>,
        held: Nanos,
    ) {
        let view = FrameView::of(header, frame);
        let Ok(view) = &view else {
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
        let limit = Some(self.node.settings.timeout.into());
        match trip(view, origin, ingress.mono, home, limit) {
            Ok(Some(trip)) => {
                let trip = Measurement::Trip(self.path_key(), trip);
                self.node.collector.offer(trip);
            }
            Ok(None) => self.collect_of_answer(view),
            Err(ForgedStamp) => return self.node.collector.offer(Measurement::Malformed),
        }
        if header.classes != 0 {
            collect_annotations(self.node, self.path_key(), view);
        }
    }

    /// Hands the readings of retransmissions in a marked answer to the collector: its stamps begin
    /// at the exit, so it is no trip.
    #[inline(never)]
    fn collect_of_answer(&self, view: &FrameView<'_>) {
        let mut annotations = view.annotations().map_while(Result::ok);
        if FULL && annotations.any(|it| it.kind == ANNOTATION_ANSWERED) {
            let readings = last_retransmits(view, self.session.hop);
            self.node.collect_retransmits(self.path_key(), readings);
        }
    }

    /// Hands the readings of retransmissions in an END that came back to the collector.
    #[inline(never)]
    fn collect_last(&self, frame: &[u8], header: Header) {
        let hop = self.session.hop;
        if let Ok(view) = FrameView::of(header, frame) {
            self.node
                .collect_retransmits(self.path_key(), last_retransmits(&view, hop));
        }
    }

    #[cold]
    fn passed_reset(&self) -> ConnectionFault {
        ConnectionFault::passed_reset(self.pair, self.source)
    }

    #[cold]
    fn passed_error(&self, payload: &[u8]) -> ConnectionFault {
        passed_error(self.node, self.pair, self.session.hop, self.source, payload)
    }
}
