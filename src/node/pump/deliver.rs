//! Framed in, plain bytes out: an exit's way to the server, and an entry's way back to the client.

use super::Pump;
use crate::collect::queue::Measurement;
use crate::measure::Direction;
use crate::node::annotations::cut_to_room;
use crate::node::clock::{Moment, PumpClock};
use crate::node::end::End;
use crate::node::fault::ConnectionFault;
use crate::node::introduce::report_nodes;
use crate::node::reader::FrameReader;
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::Inbound;
use crate::time::Nanos;
use crate::wire::{
    build, frame_type, push_annotation, set_egress, BehindExit, Flags, FrameView, Header, Stamp,
    StampDirection, StampFlags, ANNOTATION_BEHIND_EXIT, ANNOTATION_VALUES, STAMP_LEN,
};
use std::sync::atomic::Ordering;

impl<'a> Pump<'a> {
    /// An exit's up pump: payload to the server, reports back.
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
        loop {
            let next = reader
                .frame()
                .map_err(|fault| self.read_fault(self.source, fault))?;
            let Some(header) = next else {
                break;
            };
            let ingress = self.ingress(reader, &header);
            self.check(reader, &mut inbound, &header)?;
            match header.kind {
                frame_type::BLOCK => {
                    self.deliver_block(&reader.view(header), ingress)?;
                }
                frame_type::END => {
                    server.shut_writing();
                    self.flush_reports()?;
                    self.pair.client.writer_done();
                }
                frame_type::RESET => return Err(self.passed_reset()),
                _ => {} // What only a later version knows ends here, as the path does.
            }
            reader.consume(&header);
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
    ) -> Result<(), ConnectionFault> {
        let header = frame.header;
        self.count(header.payload_len);
        let Some(ingress) = ingress else {
            self.pair.server_timer.ask_untimed();
            self.note_payload(ConnectionSide::Client, None, frame.payload());
            return self.send(ConnectionSide::Server, frame.payload());
        };
        let mut forward = self.stamp(ingress, StampDirection::Forward);
        self.note_payload(ConnectionSide::Client, None, frame.payload());
        let question = self.pair.server_timer.ask(header.sequence);
        let egress = self.clock.read();
        question.at(egress.mono);
        self.send(ConnectionSide::Server, frame.payload())?;
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
            self.telling.clear();
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
                push_annotation(&mut annotations, ANNOTATION_VALUES, self.session.hop, fits);
            }
        }
        let client = &self.pair.client;
        let report = client.with_room(build(header, &stamps, &annotations, &[]));
        if !client.offer(report) {
            self.traffic.reports_dropped += 1;
            let shown = &self.pair.carried[self.source as usize].reports_dropped;
            shown.fetch_add(1, Ordering::Relaxed);
        }
        self.drain_reports(false);
        self.follow(egress);
    }

    pub(super) fn drain_reports(&mut self, waits: bool) {
        let client = &self.pair.client;
        let clock = &mut self.clock;
        client.drain_reports(self.pair, waits, |frame| {
            stamp_report(client, frame, clock);
        });
    }

    /// Sends what reports are left at the end of a direction, waiting for the client to take them.
    pub(super) fn flush_reports(&mut self) -> Result<(), ConnectionFault> {
        let guard = self.end(ConnectionSide::Client).lock();
        while let Some(mut report) = self.pair.client.take_report() {
            stamp_report(&self.pair.client, &mut report, &mut self.clock);
            self.send(ConnectionSide::Client, &report)?;
        }
        drop(guard);
        Ok(())
    }

    /// An entry's down pump: payload to the client, reports to the collector.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn deliver_back(&mut self) -> Result<(), ConnectionFault> {
        let reader = &mut self.reader();
        let mut inbound = Inbound::returning(self.session.cookie);
        let client = self.end(ConnectionSide::Client);
        loop {
            let next = reader
                .frame()
                .map_err(|fault| self.read_fault(self.source, fault))?;
            let Some(header) = next else {
                break;
            };
            let ingress = self.ingress(reader, &header);
            self.check(reader, &mut inbound, &header)?;
            match header.kind {
                frame_type::BLOCK => {
                    self.count(header.payload_len);
                    let view = reader.view(header);
                    self.send(ConnectionSide::Client, view.payload())?;
                    self.note_payload(ConnectionSide::Server, None, view.payload());
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
                        self.tell_trip(reader.view(header).bytes(), header, ingress, None, held);
                    }
                }
                frame_type::END => client.shut_writing(),
                frame_type::OPENED => {
                    report_nodes(self.node, self.session, reader.view(header).annotations());
                }
                frame_type::RESET => return Err(self.passed_reset()),
                frame_type::ERROR => return Err(self.passed_error(reader.view(header).payload())),
                _ => {}
            }
            reader.consume(&header);
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
