//! Plain bytes in, framed out: an entry's way into the chain, and an exit's way back.

use super::{refuse_greeting, Pump};
use crate::collect::queue::Measurement;
use crate::collect::requests::AnnotationRequest;
use crate::node::annotations::collect_own_annotations;
use crate::node::clock::Moment;
use crate::node::fault::ConnectionFault;
use crate::node::reader::{FrameReader, HEADROOM};
use crate::session::connection_record::ConnectionSide;
use crate::sys;
use crate::time::Nanos;
use crate::wire::{
    build, frame_type, push_annotation, set_egress, BehindExit, Flags, Header, StampDirection,
    ANNOTATION_BEHIND_EXIT, ANNOTATION_HEADER_LEN, HEADER_LEN, STAMP_LEN,
};

impl<'a> Pump<'a> {
    /// An entry's up pump. `open` is the OPEN frame, which shares a send with the first block if that is there already.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn wrap(
        &mut self,
        reader: &mut FrameReader<'a>,
        open: Vec<u8>,
    ) -> Result<(), ConnectionFault> {
        let server = self.end(ConnectionSide::Server);
        let mut open = Some(open);
        if reader.pending().is_empty() && !sys::is_readable(&self.pair.client.socket) {
            // The server may be the one to speak first.
            self.say(ConnectionSide::Server, open.take().unwrap_or_default())?;
        }
        let tag = server.tag_len();
        loop {
            let chunk = reader.chunk();
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
            let mut request = AnnotationRequest::default();
            let mut ingress = Moment::default();
            if marked {
                ingress = self.clock.read();
            }
            self.note_payload(ConnectionSide::Client, chunk.read_at, chunk.bytes());
            if marked {
                request = self.node.requests.request();
                let stamp = self.stamp(ingress, StampDirection::Forward);
                start -= STAMP_LEN;
                header.flags = Flags(Flags::MARKED);
                header.stamps = 1;
                header.classes = request.classes.0;
                header.annotations_len = request.annotation().len();
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
                    together.extend_from_slice(request.annotation());
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
            self.send(ConnectionSide::Server, frame)?;
            drop(guard);
            if marked {
                self.tell_own(&request, header.sequence, ingress);
            }
        }
        if let Some(open) = open {
            self.say(ConnectionSide::Server, open)?;
        }
        self.say(ConnectionSide::Server, self.end_frame(Flags::default()))?;
        self.finish(|| server.shut_writing())
    }

    /// An entry is a node of the path too, and answers what its own blocks ask.
    fn tell_own(&mut self, request: &AnnotationRequest, sequence: u64, at: Moment) {
        if request.classes.is_empty() {
            return self.telling.clear();
        }
        let (node, own) = (self.node, request.own);
        let value = self.telling.answer(&node.annotator, own, at.mono);
        collect_own_annotations(node, sequence, &value);
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
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn wrap_back(&mut self) -> Result<(), ConnectionFault> {
        const ANNOTATION_LEN: usize = ANNOTATION_HEADER_LEN + BehindExit::LEN;
        const _: () = assert!(HEADER_LEN + ANNOTATION_LEN <= HEADROOM);
        let mut reader = self.reader();
        let client = self.end(ConnectionSide::Client);
        loop {
            let chunk = reader.chunk();
            let Some(chunk) = chunk.map_err(|fault| self.read_fault(self.source, fault))? else {
                break;
            };
            let asked = self.pair.server_timer.answered();
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
            self.send(ConnectionSide::Client, frame)?;
            drop(guard);
            self.drain_reports(true);
            let payload = &chunk.buffer[chunk.end - payload_len..chunk.end];
            self.note_payload(ConnectionSide::Server, chunk.read_at, payload);
        }
        self.say(ConnectionSide::Client, self.end_frame(Flags(Flags::RETURN)))?;
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
}
