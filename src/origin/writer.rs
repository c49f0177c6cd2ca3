//! The write half of a session: it builds, stamps and sends blocks.

use super::error::PathError;
use super::session::{OpenSession, Origin};
use crate::annotate::annotator::AnnotationWriter;
use crate::annotation::Classes;
use crate::collect::path_key::PathKey;
use crate::collect::requests::AnnotationRequest;
use crate::measure::Direction;
use crate::node::annotations::collect_own_annotations;
use crate::node::clock::{Moment, PumpClock};
use crate::node::reader::HEADROOM;
use crate::node::retransmits::RetransmitCounter;
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::wire::authentication::TAG_LEN;
use crate::wire::values::MAX_ASK_LEN;
use crate::wire::{
    push_annotation, put_front, set_egress, Flags, FrameType, Header, RetransmitCount, Stamp,
    StampDirection, StampFlags, ANNOTATION_HEADER_LEN, ANNOTATION_RETRANSMITS, MAX_PAYLOAD,
};

/// The time at which a block was due.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// A scheduled time, which may have passed.
    At(MonoTime),
    /// The time at which its bytes had been read.
    Read(Moment),
}

/// The write half of a session.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    origin: &'a Origin,
    session: &'a OpenSession,
    clock: PumpClock<'a>,
    held: Nanos,
    buffer: Vec<u8>,
    annotations: AnnotationWriter,
    retransmits: RetransmitCounter,
}

/// The room before the payload: the requests for annotations and a reading of retransmissions lie
/// between stamp and payload.
const FRONT: usize = HEADROOM + 2 * ANNOTATION_HEADER_LEN + MAX_ASK_LEN + RetransmitCount::LEN;

impl<'a> BlockWriter<'a> {
    /// Returns a writer of blocks of at most `block` bytes.
    pub fn new(origin: &'a Origin, session: &'a OpenSession, block: usize) -> Self {
        let mut retransmits = RetransmitCounter::default();
        if origin.node.settings.stamp {
            retransmits.begin(&session.pair.client.socket);
        }
        Self {
            retransmits,
            origin,
            session,
            clock: origin.node.clock.pump(),
            held: Nanos::ZERO,
            buffer: vec![0; FRONT + block.min(MAX_PAYLOAD) + TAG_LEN],
            annotations: AnnotationWriter::default(),
        }
    }

    /// Returns the room for the payload of the next block.
    pub fn payload(&mut self) -> &mut [u8] {
        let end = self.buffer.len() - TAG_LEN;
        &mut self.buffer[FRONT..end]
    }

    /// Reads the clocks for [`Due::Read`].
    pub fn now(&mut self) -> Moment {
        self.clock.read()
    }

    /// Sends the first `len` bytes of the payload as a marked block. Returns `false` if the session
    /// was ended meanwhile.
    ///
    /// # Errors
    ///
    /// [`PathError`].
    pub fn send(&mut self, len: usize, due: Due) -> Result<bool, PathError> {
        let node = &self.origin.node;
        let marked = node.settings.stamp;
        let now = sys::clock::mono();
        let end = &self.session.pair.client;
        let guard = end.lock();
        if end.is_writing_over() {
            return Ok(false);
        }
        let sequence = self.origin.progress.send(now, len);
        let mut header = Header {
            hop_limit: self.session.identity.hop_limit,
            payload_len: len,
            authentication_len: end.tag_len() as u8,
            ..Header::new(FrameType::Block, self.session.identity.cookie, sequence)
        };
        let mut request = AnnotationRequest::default();
        if marked {
            request = node.requests.request();
            header.classes = request.classes.0;
        }
        let mut stamp = Stamp {
            node: node.id,
            hop: 0,
            direction: StampDirection::Forward,
            generation: 0,
            flags: StampFlags(if node.clock.error().is_some() {
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
            header.flags = Flags(Flags::MARKED);
        }
        let mut front = request.annotation();
        let mut with_count = Vec::new();
        if let Some(value) = self
            .retransmits
            .waiting(Direction::Forward)
            .filter(|_| marked)
        {
            with_count.extend_from_slice(front);
            push_annotation(&mut with_count, ANNOTATION_RETRANSMITS, 0, &value);
            front = &with_count;
            self.retransmits.passed_on();
        }
        let (start, stamp_at) = put_front(
            &mut self.buffer,
            FRONT,
            &mut header,
            marked.then_some(&stamp),
            front,
        );
        if let Some(at) = stamp_at {
            let egress = self.clock.read();
            stamp.generation = egress.generation;
            stamp.egress = egress.wall;
            stamp.ingress = match due {
                // The time since the due time is this host's share; the clock of the difference
                // takes no steps.
                Due::At(at) => egress.wall.before(egress.mono.since(at)),
                Due::Read(read) if read.generation == egress.generation => read.wall,
                Due::Read(read) => egress.wall.before(egress.mono.since(read.mono)),
            };
            stamp.emit(&mut self.buffer[at..]);
        }
        let frame = &mut self.buffer[start..FRONT + len + end.tag_len()];
        if let Some(seal) = end.begin_seal(&header, frame) {
            if let Some(at) = stamp_at {
                // The time of the hash is this host's share too.
                let egress = self.clock.read();
                set_egress(&mut frame[at - start..], egress.wall, egress.generation);
            }
            seal.finish(frame);
        }
        self.session.send(frame, &mut self.held)?;
        drop(guard);
        if marked {
            self.retransmits.sent(&end.socket, now);
            node.clock.sent(now);
        }
        if request.classes.is_empty() {
            self.annotations.clear();
        } else {
            self.answer_own(request.own, sequence, now);
        }
        Ok(true)
    }

    /// Ends the session: no block follows. The last reading of retransmissions needs no block.
    pub fn end(mut self) {
        let node = &self.origin.node;
        let now = self.clock.read();
        self.retransmits
            .end(&self.session.pair.client.socket, now.mono);
        let last = self.retransmits.last(0, Direction::Forward);
        node.collect_retransmits(PathKey::default(), last.into_iter().collect());
        self.session.end();
    }

    /// Answers the request of an own block: the source is a node of the path too.
    #[inline(never)]
    fn answer_own(&mut self, own: Classes, sequence: u64, now: MonoTime) {
        let node = &self.origin.node;
        let value = self.annotations.answer(&node.annotator, own, now);
        collect_own_annotations(node, sequence, &value);
        let socket = Some(&self.session.pair.client.socket);
        self.annotations
            .request_next(&node.annotator, now, None, socket);
    }
}
