//! Frames in, plain bytes out: an exit's way to the server, and an entry's way back to the client.

use super::edit::behind_exit;
use super::Pump;
use crate::measure::Direction;
use crate::node::annotations::cut_to_room;
use crate::node::clock::{Moment, PumpClock};
use crate::node::end::End;
use crate::node::fault::ConnectionFault;
use crate::node::introduce::report_nodes;
use crate::node::reader::FrameReader;
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::Inbound;
use crate::sync::lock;
use crate::time::Nanos;
use crate::wire::{
    build, push_annotation, set_egress, Flags, FrameType, FrameView, Header, Stamp, StampDirection,
    StampFlags, ANNOTATION_ASK_STAMPS, ANNOTATION_RETRANSMITS, ANNOTATION_VALUES, MAX_STAMPS,
    STAMP_LEN,
};
use crate::FULL;
use std::sync::atomic::Ordering;

impl<'a> Pump<'a> {
    /// Runs an exit's up pump: payload to the server, reports back.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn deliver(
        &mut self,
        reader: &mut FrameReader<'a>,
        mut inbound: Inbound,
    ) -> Result<(), ConnectionFault> {
        let server = self.end(ConnectionSide::Server);
        if self.node.settings.stamp {
            lock(&self.pair.return_retransmits).begin(&self.pair.client.socket);
        }
        while let Some((header, ingress)) = self.receive(reader, &mut inbound)? {
            match header.kind {
                FrameType::Block => self.deliver_block(&reader.view(header), ingress)?,
                FrameType::End => {
                    self.send_cut()?;
                    server.shut_writing();
                    self.flush_reports()?;
                    self.pair.client.writer_done();
                }
                FrameType::Reset => return Err(self.passed_reset()),
                // Types of a later version end here, as the path does; `inbound` refuses the
                // others.
                FrameType::Passable(_)
                | FrameType::Open
                | FrameType::Opened
                | FrameType::Report
                | FrameType::Error
                | FrameType::Hello => {}
            }
            reader.consume(&header);
        }
        self.finish(|| ())
    }

    fn deliver_block(
        &mut self,
        frame: &FrameView<'_>,
        ingress: Option<Moment>,
    ) -> Result<(), ConnectionFault> {
        let header = frame.header;
        self.count(header.payload_len);
        let edited = self.edited(frame.payload());
        let payload = edited.as_deref().unwrap_or(frame.payload());
        if payload.is_empty() && self.editor().is_some() {
            return self.hold_block(frame, ingress);
        }
        let Some(ingress) = ingress else {
            self.pair.server_timer.begin_untimed();
            self.log_payload(ConnectionSide::Client, None, frame.payload());
            self.send(ConnectionSide::Server, payload)?;
            if header.marked() {
                self.report_unstamped(frame);
            }
            return Ok(());
        };
        let mut forward = self.stamp(ingress, StampDirection::Forward);
        // The log has what this node read: its own stamps are none of another program's.
        self.log_payload(ConnectionSide::Client, None, frame.payload());
        let mut timing = self.pair.server_timer.begin(header.sequence);
        timing.keep(asked_stamps(frame, &forward));
        let egress = self.clock.read();
        timing.set_egress(egress.wall, egress.generation);
        timing.at(egress.mono, self.pair.blocked.load(Ordering::Relaxed) > 0);
        self.send(ConnectionSide::Server, payload)?;
        // The write to the server blocked this pump: that belongs to the forward stamp.
        forward.held += std::mem::take(&mut self.held);
        forward.egress = egress.wall;
        if egress.generation != forward.generation {
            forward.generation = egress.generation;
            forward.flags.0 |= StampFlags::STEPPED;
        }
        self.report(frame, &forward, egress);
        self.collect_residence(Direction::Forward, ingress, egress);
        Ok(())
    }

    /// Reports a block whose payload waits for the end of a head: it has arrived.
    #[inline(never)]
    fn hold_block(
        &mut self,
        frame: &FrameView<'_>,
        ingress: Option<Moment>,
    ) -> Result<(), ConnectionFault> {
        self.log_payload(ConnectionSide::Client, None, frame.payload());
        match ingress {
            Some(ingress) => {
                let mut forward = self.stamp(ingress, StampDirection::Forward);
                let egress = self.clock.read();
                forward.egress = egress.wall;
                self.report(frame, &forward, egress);
            }
            None if frame.header.marked() => self.report_unstamped(frame),
            None => {}
        }
        Ok(())
    }

    /// Sends the stamps of a block that the server was given back to the source.
    ///
    /// The return stamp begins where the payload was handed to the kernel. So a wait for the server
    /// counts as the exit's, and the `held` of `forward` shows it.
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
        let room = MAX_STAMPS.saturating_sub(usize::from(frame.header.stamps));
        if room < 2 {
            return; // The path is too long for its stamps; a flag on the blocks shows that.
        }
        let mut stamps = frame.stamp_bytes().to_vec();
        let at = stamps.len();
        stamps.resize(at + 2 * STAMP_LEN, 0);
        forward.emit(&mut stamps[at..]);
        back.emit(&mut stamps[at + STAMP_LEN..]);
        let flags = Flags::MARKED | Flags::RETURN;
        let mut header = Header {
            classes: frame.header.classes,
            ..self
                .session
                .header(FrameType::Report, flags, frame.header.sequence)
        };
        // The annotations of the nodes before travel back, and those of this one.
        let overflow = frame.header.flags.0 & Flags::ANNOTATIONS_OVERFLOW;
        header.flags = header.flags.with(overflow);
        let mut annotations = frame.annotation_bytes().to_vec();
        if header.classes == 0 {
            self.annotations.clear();
        } else {
            let value = self.answer(frame, egress);
            let fits = cut_to_room(&value, annotations.len());
            if fits.len() < value.len() {
                header.flags = header.flags.with(Flags::ANNOTATIONS_OVERFLOW);
            }
            if !fits.is_empty() {
                push_annotation(&mut annotations, ANNOTATION_VALUES, self.session.hop, fits);
            }
        }
        let client = &self.pair.client;
        self.add_return_retransmits(&mut annotations);
        self.offer_report(client.with_room(build(header, &stamps, &annotations, &[])));
        lock(&self.pair.return_retransmits).sent(&client.socket, egress.mono);
        self.node.clock.sent(egress.mono);
        self.request_next(egress);
    }

    /// Lets the reading of the way back that waits ride with `annotations`, if there is room.
    pub(super) fn add_return_retransmits(&self, annotations: &mut Vec<u8>) {
        let mut counter = lock(&self.pair.return_retransmits);
        if let Some(value) = counter.waiting(Direction::Return) {
            let hop = self.session.hop;
            if push_annotation(annotations, ANNOTATION_RETRANSMITS, hop, &value) {
                counter.passed_on();
            }
        }
    }

    /// Sends back the stamps of the nodes before, with `-n`: the block arrived.
    #[inline(never)]
    fn report_unstamped(&mut self, frame: &FrameView<'_>) {
        let flags = Flags::MARKED | Flags::RETURN;
        let sequence = frame.header.sequence;
        let mut header = self.session.header(FrameType::Report, flags, sequence);
        let overflow = frame.header.flags.0 & Flags::ANNOTATIONS_OVERFLOW;
        header.flags = header.flags.with(overflow);
        header.classes = frame.header.classes;
        let (stamps, annotations) = (frame.stamp_bytes(), frame.annotation_bytes());
        let report = build(header, stamps, annotations, &[]);
        self.offer_report(self.pair.client.with_room(report));
    }

    /// Queues a report for the source, or drops and counts it.
    fn offer_report(&mut self, report: Vec<u8>) {
        if !self.pair.client.offer(report) {
            self.traffic.reports_dropped += 1;
            let counts = &self.pair.counts[self.source as usize];
            counts.reports_dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.drain_reports(false);
    }

    pub(super) fn drain_reports(&mut self, waits: bool) {
        let client = &self.pair.client;
        let clock = &mut self.clock;
        let stamps = self.node.settings.stamp;
        client.drain_reports(self.pair, waits, |frame| {
            stamp_report(client, frame, clock, stamps);
        });
    }

    /// Sends the reports that are left at the end of a direction, and waits for room.
    pub(super) fn flush_reports(&mut self) -> Result<(), ConnectionFault> {
        let guard = self.end(ConnectionSide::Client).lock();
        while let Some(mut report) = self.pair.client.take_report() {
            let stamps = self.node.settings.stamp;
            stamp_report(&self.pair.client, &mut report, &mut self.clock, stamps);
            self.send(ConnectionSide::Client, &report)?;
        }
        drop(guard);
        Ok(())
    }

    /// Runs an entry's down pump: payload to the client, reports to the collector.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn deliver_back(&mut self) -> Result<(), ConnectionFault> {
        let reader = &mut self.reader();
        let mut inbound = Inbound::returning(self.session.cookie);
        let client = self.end(ConnectionSide::Client);
        while let Some((header, ingress)) = self.receive(reader, &mut inbound)? {
            match header.kind {
                FrameType::Block => {
                    self.count(header.payload_len);
                    let view = reader.view(header);
                    self.take_answered(&view, ingress);
                    let edited = self.edited(view.payload());
                    let payload = edited.as_deref().unwrap_or(view.payload());
                    if !payload.is_empty() || edited.is_none() {
                        self.send(ConnectionSide::Client, payload)?;
                    }
                    self.log_payload(ConnectionSide::Server, None, view.payload());
                    // A reflector at the end of the path answers in blocks, an exit in reports.
                    if let Some(ingress) = ingress {
                        let held = std::mem::take(&mut self.held);
                        self.collect_trip(view.bytes(), header, ingress, None, held);
                    }
                    if header.annotations_len > 0 {
                        self.collect_behind_exit(&view);
                    }
                }
                FrameType::Report => {
                    if let Some(ingress) = ingress {
                        let held = std::mem::take(&mut self.held);
                        let frame = reader.view(header).bytes();
                        self.collect_trip(frame, header, ingress, None, held);
                    }
                }
                FrameType::End => {
                    self.collect_last(reader.view(header).bytes(), header);
                    self.send_cut()?;
                    client.shut_writing();
                }
                FrameType::Opened => {
                    let path = self.path_key();
                    let view = reader.view(header);
                    if let Some(http) = self.editor() {
                        http.names(view.annotations());
                    }
                    report_nodes(self.node, self.session, path, view.annotations());
                }
                FrameType::Reset => return Err(self.passed_reset()),
                FrameType::Error => return Err(self.passed_error(reader.view(header).payload())),
                // Types of a later version end here; `inbound` refuses the others.
                FrameType::Passable(_) | FrameType::Open | FrameType::Hello => {}
            }
            reader.consume(&header);
        }
        self.finish(|| ())
    }

    #[inline(never)]
    fn collect_behind_exit(&mut self, view: &FrameView<'_>) {
        if let Some(behind) = behind_exit(view) {
            let now = self.clock.read();
            self.collect_server_time(now, behind.span);
        }
    }
}

/// Returns the stamps of a block's way out, `own` the last, if its entry asked for them: they go
/// back with the server's answer.
#[inline]
fn asked_stamps(frame: &FrameView<'_>, own: &Stamp) -> Vec<u8> {
    match FULL && frame.header.annotations_len > 0 {
        true => stamps_if_asked(frame, own),
        false => Vec::new(),
    }
}

#[inline(never)]
fn stamps_if_asked(frame: &FrameView<'_>, own: &Stamp) -> Vec<u8> {
    let mut stamps = Vec::new();
    let mut annotations = frame.annotations().map_while(Result::ok);
    if annotations.any(|it| it.kind == ANNOTATION_ASK_STAMPS) {
        stamps.extend_from_slice(frame.stamp_bytes());
        let at = stamps.len();
        stamps.resize(at + STAMP_LEN, 0);
        own.emit(&mut stamps[at..]);
    }
    stamps
}

/// Writes the egress time of this node's stamp, if it `stamps`, and the trailer of a report. OPENED
/// may wait in the same queue, without a stamp.
fn stamp_report(client: &End, frame: &mut [u8], clock: &mut PumpClock<'_>, stamps: bool) {
    let Ok(header) = Header::parse(frame) else {
        return;
    };
    let seal = client.begin_seal(&header, frame);
    if header.marked() && stamps {
        let moment = clock.read();
        let at = header.annotations_at() - STAMP_LEN;
        set_egress(&mut frame[at..], moment.wall, moment.generation);
    }
    if let Some(seal) = seal {
        seal.finish(frame);
    }
}
