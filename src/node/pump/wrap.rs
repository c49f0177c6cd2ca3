//! Plain bytes in, frames out: an entry's way into the chain, and an exit's way back.

use super::edit::EditedChunk;
use super::Pump;
use crate::collect::queue::Measurement;
use crate::collect::requests::AnnotationRequest;
use crate::measure::Direction;
use crate::node::annotations::collect_own_annotations;
use crate::node::clock::Moment;
use crate::node::connect_window::{Arrived, ConnectWindow};
use crate::node::fault::{refuse_framed_client, ConnectionFault};
use crate::node::reader::{FrameReader, HEADROOM};
use crate::session::connection_record::ConnectionSide;
use crate::sync::lock;
use crate::sys;
use crate::time::MonoTime;
use crate::wire::{
    build, push_annotation, put_front, set_egress, BehindExit, Flags, FrameType, Header, Stamp,
    StampDirection, StampFlags, ANNOTATION_ANSWERED, ANNOTATION_ASK_STAMPS, ANNOTATION_BEHIND_EXIT,
    ANNOTATION_HEADER_LEN, ANNOTATION_RETRANSMITS, HEADER_LEN, STAMP_LEN,
};
use crate::FULL;

impl<'a> Pump<'a> {
    /// Runs an entry's up pump. `open` is the OPEN frame, which shares a send with the first block
    /// if that is there already.
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
        self.count_retransmits(ConnectionSide::Server);
        let is_silent = || !sys::is_readable(&self.pair.client.socket);
        if self.holds_heads() || (reader.pending().is_empty() && is_silent()) {
            // The server may be the one that sends first, or the first head may take long.
            self.send_frame(ConnectionSide::Server, open.take().unwrap_or_default())?;
        }
        let tag = server.tag_len();
        if let Some(window) = self.window.take() {
            self.read_first(reader, window)?;
        }
        // The latest marked block that holds a part of a request's head.
        let mut head_block = None;
        let mut edited = EditedChunk::default();
        while let Some(chunk) = self.next_chunk(reader, &mut edited)? {
            let marked = self.is_marked();
            if self.traffic.forward_blocks == 0 {
                refuse_framed_client(self.node, self.pair, chunk.bytes())?;
            }
            let mut header = self.block(chunk.end - chunk.start, 0, tag);
            let mut request = AnnotationRequest::default();
            let mut ingress = Moment::default();
            // Of the first bytes, if they waited for the connect.
            let read_at = self.read_at.take();
            if marked {
                ingress = read_at.unwrap_or_else(|| self.clock.read());
            }
            let begun = read_at.or(marked.then_some(ingress));
            let block = marked.then_some(header.sequence);
            let asks = marked && self.begins_request();
            self.note_request_block(begun.map(|begun| begun.mono), block);
            let found = self.log_chunk(chunk.read_at, &chunk);
            head_block = head_block
                .filter(|_| !marked)
                .or(marked.then_some(header.sequence));
            if let (Some(trace), Some(block)) = (found.trace, head_block) {
                let connection = header.cookie as u32;
                let trace = Measurement::Trace(self.path_key(), connection, block, trace);
                self.node.collector.offer(trace);
            }
            head_block = head_block.filter(|_| found.is_within_head);
            let mut stamp = None;
            if marked {
                request = self.node.requests.request();
                header.flags = Flags(Flags::MARKED);
                header.classes = request.classes.0;
                let mut own = self.stamp(ingress, StampDirection::Forward);
                if read_at.is_some() {
                    own.flags.0 |= StampFlags::WAITED;
                }
                stamp = Some(own);
            }
            // A frame goes out from where its payload was read, unless more has to go with it.
            let mut requested = request.annotation();
            let waiting = self
                .retransmits
                .waiting(Direction::Forward)
                .filter(|_| marked);
            let mut with_count = Vec::new();
            if waiting.is_some() || asks {
                with_count.extend_from_slice(requested);
                if let Some(value) = waiting {
                    push_annotation(&mut with_count, ANNOTATION_RETRANSMITS, 0, &value);
                    self.retransmits.passed_on();
                }
                if asks {
                    push_annotation(&mut with_count, ANNOTATION_ASK_STAMPS, 0, &[]);
                }
                requested = &with_count;
            }
            let mut together;
            let (buffer, payload_at, end, open_len) = match open.take() {
                None if requested.is_empty() => {
                    (&mut *chunk.buffer, chunk.start, chunk.end + tag, 0)
                }
                open => {
                    together = open.map_or_else(Vec::new, |open| server.with_room(open));
                    let open_len = together.len();
                    let stamp_len = stamp.map_or(0, |_| STAMP_LEN);
                    let payload_at = open_len + HEADER_LEN + stamp_len + requested.len();
                    together.resize(payload_at, 0);
                    together.extend_from_slice(&chunk.buffer[chunk.start..chunk.end + tag]);
                    let end = together.len();
                    (&mut together[..], payload_at, end, open_len)
                }
            };
            let (start, stamp_at) =
                put_front(buffer, payload_at, &mut header, stamp.as_ref(), requested);
            let guard = server.lock();
            if open_len > 0 {
                server.seal(&mut buffer[..open_len]);
            }
            let seal = server.begin_seal(&header, &buffer[start..end]);
            let mut sent_at = None;
            if let Some(at) = stamp_at {
                let moment = self.clock.read();
                set_egress(&mut buffer[at..], moment.wall, moment.generation);
                sent_at = Some(moment.mono);
            }
            if let Some(seal) = seal {
                seal.finish(&mut buffer[start..end]);
            }
            self.send(ConnectionSide::Server, &buffer[start - open_len..end])?;
            drop(guard);
            if let Some(sent_at) = sent_at {
                self.retransmits.sent(&server.socket, sent_at);
                self.node.clock.sent(sent_at);
            }
            if marked {
                self.collect_own(&request, header.sequence, ingress);
            }
        }
        if let Some(open) = open {
            self.send_frame(ConnectionSide::Server, open)?;
        }
        self.read_last(ConnectionSide::Server);
        let last = self.retransmits.last(0, Direction::Forward);
        self.node
            .collect_retransmits(self.path_key(), last.into_iter().collect());
        self.send_frame(ConnectionSide::Server, self.end_frame(0, &[]))?;
        self.finish(|| server.shut_writing())
    }

    /// Reads the first bytes of the client, and dates those that came while this node connected:
    /// the kernel has their arrival time.
    #[inline(never)]
    fn read_first(
        &mut self,
        reader: &mut FrameReader<'a>,
        window: ConnectWindow,
    ) -> Result<(), ConnectionFault> {
        let read = reader.read_more();
        if !read.map_err(|fault| self.read_fault(self.source, fault))? {
            return Ok(());
        }
        let read_at = self.clock.read();
        let arrived = window.judge(read_at, reader.arrived_by(read_at.wall));
        if let Arrived::WhileConnecting(moment) = arrived {
            self.read_at = Some(moment);
        }
        Ok(())
    }

    /// Returns the header of the next block.
    fn block(&mut self, payload_len: usize, flags: u16, tag: usize) -> Header {
        self.count(payload_len);
        let sequence = self.sequence;
        self.sequence += 1;
        Header {
            payload_len,
            authentication_len: tag as u8,
            ..self.session.header(FrameType::Block, flags, sequence)
        }
    }

    /// Answers the annotation request of an own block: an entry is a node of the path too.
    fn collect_own(&mut self, request: &AnnotationRequest, sequence: u64, at: Moment) {
        if request.classes.is_empty() {
            return self.annotations.clear();
        }
        let (node, own) = (self.node, request.own);
        let value = self.annotations.answer(&node.annotator, own, at.mono);
        collect_own_annotations(node, sequence, &value);
        self.request_next(at);
    }

    fn end_frame(&self, flags: u16, annotations: &[u8]) -> Vec<u8> {
        let header = self.session.header(FrameType::End, flags, self.sequence);
        build(header, &[], annotations, &[])
    }

    /// Runs an exit's down pump. Its blocks are not marked: the way back is measured by the
    /// reports, which queue behind them. One that answers a block whose entry asked for it is.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn wrap_back(&mut self) -> Result<(), ConnectionFault> {
        const _: () = assert!(HEADER_LEN + ANNOTATION_HEADER_LEN + BehindExit::LEN <= HEADROOM);
        let mut reader = self.reader();
        let client = self.end(ConnectionSide::Client);
        let tag = client.tag_len();
        let mut edited = EditedChunk::default();
        while let Some(chunk) = self.next_chunk(&mut reader, &mut edited)? {
            let read = sys::clock::mono();
            let answered = self.pair.server_timer.answered(read);
            let mut header = self.block(chunk.end - chunk.start, Flags::RETURN, tag);
            let (mut annotation, mut stamp) = (Vec::new(), None);
            if let Some((sequence, since)) = answered {
                (annotation, stamp) = self.behind_exit(sequence, since);
            }
            let mut together = Vec::new();
            let (buffer, payload_at, end) = match stamp {
                None => (&mut *chunk.buffer, chunk.start, chunk.end + tag),
                Some(_) => {
                    // There is no room for a stamp and so many annotations before the chunk.
                    header.flags = Flags(Flags::RETURN | Flags::MARKED);
                    let payload_at = HEADER_LEN + STAMP_LEN + annotation.len();
                    together.resize(payload_at, 0);
                    together.extend_from_slice(&chunk.buffer[chunk.start..chunk.end + tag]);
                    let end = together.len();
                    (&mut together[..], payload_at, end)
                }
            };
            let stamp = stamp.as_ref();
            let (start, stamp_at) = put_front(buffer, payload_at, &mut header, stamp, &annotation);
            let guard = client.lock();
            let seal = client.begin_seal(&header, &buffer[start..end]);
            if let Some(at) = stamp_at {
                let moment = self.clock.read();
                set_egress(&mut buffer[at..], moment.wall, moment.generation);
            }
            if let Some(seal) = seal {
                seal.finish(&mut buffer[start..end]);
            }
            self.send(ConnectionSide::Client, &buffer[start..end])?;
            drop(guard);
            self.drain_reports(true);
            self.log_chunk(chunk.read_at, &chunk);
        }
        let mut annotations = Vec::new();
        if self.node.settings.stamp {
            let now = self.clock.read();
            lock(&self.pair.return_retransmits).end(&client.socket, now.mono);
            self.add_return_retransmits(&mut annotations);
        }
        let end = self.end_frame(Flags::RETURN, &annotations);
        self.send_frame(ConnectionSide::Client, end)?;
        self.flush_reports()?;
        self.finish(|| client.writer_done())
    }

    /// Measures the time of the server from its request, sent at `since`, to its answer, read now.
    /// Returns the annotations for the block with the answer, and its stamp if the entry asked for
    /// that.
    #[inline(never)]
    fn behind_exit(&mut self, sequence: u64, since: MonoTime) -> (Vec<u8>, Option<Stamp>) {
        let now = self.clock.read();
        let span = now.mono.since(since);
        let mut annotation = Vec::new();
        let value = BehindExit { sequence, span }.emit();
        let hop = self.session.hop;
        push_annotation(&mut annotation, ANNOTATION_BEHIND_EXIT, hop, &value);
        self.collect_server_time(now, span);
        if !FULL {
            return (annotation, None);
        }
        let forward = self.pair.server_timer.take_forward(sequence);
        let asked = !forward.is_empty()
            && push_annotation(&mut annotation, ANNOTATION_ANSWERED, hop, &forward);
        let stamp = asked.then(|| self.stamp(now, StampDirection::Return));
        (annotation, stamp)
    }
}
