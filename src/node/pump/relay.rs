//! Framed in, framed out: relays and reflectors.

use super::Pump;
use crate::collect::queue::Measurement;
use crate::measure::Direction;
use crate::node::annotations::{append, append_retransmits};
use crate::node::clock::Moment;
use crate::node::fault::ConnectionFault;
use crate::node::introduce::report_nodes;
use crate::node::reader::{Chunk, FrameReader, HEADROOM};
use crate::session::connection_record::ConnectionSide;
use crate::session::inbound::Inbound;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::wire::values::with_annotation;
use crate::wire::{
    push_stamp, set_egress, set_hop, Flags, FrameType, FrameView, Header, StampDirection,
    StampFlags, ANNOTATION_SERVER_CONNECT, MAX_STAMPS,
};

/// The direction of frames through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Return,
    Turn,
}

impl Way {
    /// The direction in which frames leave the node.
    fn leaves(self) -> Direction {
        match self {
            Self::Forward => Direction::Forward,
            Self::Return | Self::Turn => Direction::Return,
        }
    }

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
    /// The time of blocked writes in its stamp.
    held: Nanos,
    /// The kernel's receive time in its stamp.
    arrival: Option<WallTime>,
}

/// Small frames that go out together.
#[derive(Debug, Default)]
struct Batch {
    /// One behind the other.
    bytes: Vec<u8>,
    frames: Vec<Ready>,
    /// The frame at hand, if it was made anew; see [`Pump::make_ready`].
    own: Vec<u8>,
}

impl Batch {
    /// Begins with an OPEN frame that this node made, its stamp included.
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
    fn take(&mut self, reader: &mut FrameReader<'_>, frame: Ready) {
        let start = self.bytes.len();
        let buffer = either(&mut self.own, reader);
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

/// The size up to which small frames share a send.
const GATHER: usize = 64 << 10;

impl<'a> Pump<'a> {
    /// Runs a relay's up pump, from the OPEN frame that it passes on.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn relay(
        &mut self,
        reader: &mut FrameReader<'a>,
        inbound: Inbound,
        open: Vec<u8>,
    ) -> Result<(), ConnectionFault> {
        self.pass_frames(reader, inbound, Way::Forward, open)
    }

    /// Runs a relay's down pump from its first byte.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn relay_back(&mut self) -> Result<(), ConnectionFault> {
        let reader = &mut self.reader();
        let inbound = Inbound::returning(self.session.cookie);
        self.pass_frames(reader, inbound, Way::Return, Vec::new())
    }

    /// Runs a reflector's only pump.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn reflect(
        &mut self,
        reader: &mut FrameReader<'a>,
        inbound: Inbound,
    ) -> Result<(), ConnectionFault> {
        self.sink = ConnectionSide::Client;
        self.pass_frames(reader, inbound, Way::Turn, Vec::new())
    }

    /// Passes frames on. `opening` is a relay's OPEN frame, which shares a send with frames behind
    /// it.
    fn pass_frames(
        &mut self,
        reader: &mut FrameReader<'a>,
        mut inbound: Inbound,
        way: Way,
        opening: Vec<u8>,
    ) -> Result<(), ConnectionFault> {
        let mut batch = Batch::default();
        self.count_retransmits(self.sink);
        if !opening.is_empty() {
            batch.open(opening);
            if next_gatherable(reader).is_none() {
                self.flush(&mut batch, None, way)?;
            }
        }
        while let Some((header, ingress)) = self.receive(reader, &mut inbound)? {
            if !gatherable(header.kind) {
                self.pass_special(reader, header, ingress, way)?;
                continue;
            }
            let first = self.make_ready(reader, header, ingress, way, &mut batch.own);
            reader.consume(&header);
            if batch.frames.is_empty() && next_gatherable(reader).is_none() {
                // Most often no frame follows: it goes out from where it lies.
                self.dispatch(either(&mut batch.own, reader), &[first], ingress, way)?;
                continue;
            }
            batch.take(reader, first);
            self.pass_batch(reader, &mut inbound, ingress, way, &mut batch)?;
        }
        let sink = self.end(self.sink);
        self.finish(|| sink.shut_writing())
    }

    /// Gathers the frames behind the first one and sends them together. Never inlined: a pump that
    /// idles has no more on its stack than one frame needs.
    #[inline(never)]
    fn pass_batch(
        &mut self,
        reader: &mut FrameReader<'a>,
        inbound: &mut Inbound,
        mut ingress: Option<Moment>,
        way: Way,
        batch: &mut Batch,
    ) -> Result<(), ConnectionFault> {
        while let Some(next) = next_gatherable(reader).filter(|_| batch.bytes.len() < GATHER) {
            ingress = self.ingress(reader, &next).or(ingress);
            self.check(reader, inbound, &next)?;
            let ready = self.make_ready(reader, next, ingress, way, &mut batch.own);
            reader.consume(&next);
            batch.take(reader, ready);
        }
        self.flush(batch, ingress, way)
    }

    /// Sends the gathered frames and releases their memory: a connection that idles next keeps
    /// none.
    fn flush(
        &mut self,
        batch: &mut Batch,
        ingress: Option<Moment>,
        way: Way,
    ) -> Result<(), ConnectionFault> {
        let Batch { bytes, frames, .. } = std::mem::take(batch);
        let mut bytes = bytes;
        self.dispatch(&mut bytes, &frames, ingress, way)
    }

    /// Makes the pending frame ready: where it lies, or in `own` if it requests annotations.
    fn make_ready(
        &mut self,
        reader: &mut FrameReader<'a>,
        mut header: Header,
        ingress: Option<Moment>,
        way: Way,
        own: &mut Vec<u8>,
    ) -> Ready {
        if !own.is_empty() {
            *own = Vec::new();
        }
        if way != Way::Return && header.kind == FrameType::Block && header.marked() {
            match ingress {
                Some(ingress) if header.classes != 0 => {
                    let value = self.answer(&reader.view(header), ingress);
                    header = append(&reader.view(header), self.session.hop, &value, own);
                }
                _ => self.annotations.clear(),
            }
        }
        if let (Some(ingress), Some(_)) = (ingress, &self.probes) {
            header = self.add_server_connect(reader, header, ingress, own);
        }
        let ends = header.kind == FrameType::End;
        if ends {
            self.read_last(self.sink);
        }
        if self.retransmits.is_waiting() && (ends || (ingress.is_some() && header.marked())) {
            header = self.add_retransmits(reader, header, way, own);
        }
        if own.is_empty() {
            return self.prepare(&mut reader.chunk_of(&header), header, ingress, way);
        }
        let mut chunk = Chunk {
            start: HEADROOM,
            end: own.len(),
            buffer: own,
            read_at: None,
        };
        self.prepare(&mut chunk, header, ingress, way)
    }

    /// Adds the newest connect of this exit to its server to the pending block of a probe. That
    /// block is in `own` if `own` is not empty.
    #[inline(never)]
    fn add_server_connect(
        &mut self,
        reader: &FrameReader<'a>,
        header: Header,
        ingress: Moment,
        own: &mut Vec<u8>,
    ) -> Header {
        let is_block = header.kind == FrameType::Block && header.marked();
        let probes = self.probes.as_mut().filter(|_| is_block);
        let Some(connect) = probes.and_then(|probes| probes.newest(ingress.mono)) else {
            return header;
        };
        let view = match own.get(HEADROOM..) {
            Some(frame) => FrameView::of(header, frame),
            None => Ok(reader.view(header)),
        };
        let annotation = (ANNOTATION_SERVER_CONNECT, self.session.hop);
        let longer = view
            .ok()
            .and_then(|view| with_annotation(&view, HEADROOM, annotation, &connect.emit()));
        let at = MonoTime(ingress.mono.0.saturating_sub(connect.age.0));
        let outcome = connect.error.map_or(Ok(connect.span), Err);
        let path = self.path_key();
        self.node
            .collector
            .offer(Measurement::ServerConnect(path, at, outcome));
        match longer {
            Some((bytes, longer)) => {
                *own = bytes;
                longer
            }
            None => header,
        }
    }

    /// Lets the reading that waits ride on the pending frame, which is in `own` if that is not
    /// empty. It waits on if there is no room for it, or for this node's stamp.
    #[inline(never)]
    fn add_retransmits(
        &mut self,
        reader: &FrameReader<'a>,
        header: Header,
        way: Way,
        own: &mut Vec<u8>,
    ) -> Header {
        let Some(value) = self.retransmits.waiting(way.leaves()) else {
            return header;
        };
        let view = match own.get(HEADROOM..) {
            Some(frame) => FrameView::of(header, frame),
            None => Ok(reader.view(header)),
        };
        let Ok(view) = view else {
            return header;
        };
        if usize::from(header.stamps) >= MAX_STAMPS {
            return header;
        }
        let Some((bytes, longer)) = append_retransmits(&view, self.session.hop, &value) else {
            return header;
        };
        *own = bytes;
        self.retransmits.passed_on();
        longer
    }

    /// Makes the pending frame ready where it lies: writes its hop and its stamp.
    fn prepare(
        &mut self,
        chunk: &mut Chunk<'_>,
        mut header: Header,
        ingress: Option<Moment>,
        way: Way,
    ) -> Ready {
        if header.kind == FrameType::Block {
            self.count(header.payload_len);
        }
        header.hop = self.session.hop;
        if way == Way::Turn {
            header.flags = header.flags.with(Flags::RETURN);
        }
        let mut held = Nanos::ZERO;
        let (start, stamp_at) = match ingress.filter(|_| header.marked()) {
            Some(ingress) => {
                let mut stamp = self.stamp(ingress, way.stamp());
                if self.waited && way == Way::Forward {
                    stamp.flags.0 |= StampFlags::WAITED;
                }
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

    /// Sends frames that lie one behind the other, then hands those that came back to the
    /// collector.
    fn dispatch(
        &mut self,
        buffer: &mut [u8],
        frames: &[Ready],
        ingress: Option<Moment>,
        way: Way,
    ) -> Result<(), ConnectionFault> {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Ok(());
        };
        let end = self.end(self.sink);
        let guard = end.lock();
        let seal = |frame: &Ready| end.begin_seal(&frame.header, &buffer[frame.start..frame.end]);
        let first_seal = seal(first);
        // Empty, and without allocation, without a key or for a single frame.
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
        if let Some(egress) = egress {
            self.retransmits.sent(&end.socket, egress.mono);
            self.node.clock.sent(egress.mono);
        }
        for frame in frames {
            let bytes = &buffer[frame.start..frame.end];
            match frame.header.kind {
                FrameType::Opened if way == Way::Return => self.collect_path(bytes, frame.header),
                FrameType::End if way == Way::Return => self.collect_last(bytes, frame.header),
                _ => {}
            }
        }
        if let (Way::Turn, Some(ingress), Some(egress)) = (way, ingress, egress) {
            for _ in frames.iter().filter(|frame| frame.stamp_at.is_some()) {
                self.collect_residence(Direction::Forward, ingress, egress);
            }
        }
        if way == Way::Return {
            if let (Some(ingress), Some(egress)) = (ingress, egress) {
                for frame in frames.iter().filter(|frame| frame.stamp_at.is_some()) {
                    let arrival = frame.arrival;
                    self.collect_trip(
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
            self.request_next(ingress);
        }
        Ok(())
    }

    #[inline(never)]
    fn collect_path(&self, frame: &[u8], header: Header) {
        if let Ok(view) = FrameView::of(header, frame) {
            report_nodes(self.node, self.session, self.path_key(), view.annotations());
        }
    }

    /// Passes a frame on that is not gathered: RESET, ERROR, and types of a later version.
    #[inline(never)]
    fn pass_special(
        &mut self,
        reader: &mut FrameReader<'a>,
        header: Header,
        ingress: Option<Moment>,
        way: Way,
    ) -> Result<(), ConnectionFault> {
        match header.kind {
            FrameType::Reset => return Err(self.passed_reset()),
            FrameType::Error => return Err(self.passed_error(reader.view(header).payload())),
            FrameType::Passable(_)
            | FrameType::Open
            | FrameType::Opened
            | FrameType::Block
            | FrameType::Report
            | FrameType::End
            | FrameType::Hello => {}
        }
        let ready = self.prepare(&mut reader.chunk_of(&header), header, ingress, way);
        reader.consume(&header);
        self.dispatch(reader.buffer(), &[ready], ingress, way)
    }
}

/// Returns `true` if frames of this type are nothing but bytes on their way, and share a send.
fn gatherable(kind: FrameType) -> bool {
    match kind {
        FrameType::Block | FrameType::Report | FrameType::End | FrameType::Opened => true,
        FrameType::Open
        | FrameType::Reset
        | FrameType::Error
        | FrameType::Hello
        | FrameType::Passable(_) => false,
    }
}

fn next_gatherable(reader: &FrameReader<'_>) -> Option<Header> {
    reader.next_whole().filter(|next| gatherable(next.kind))
}

/// Returns the buffer that holds the frame of [`Pump::make_ready`].
fn either<'b>(own: &'b mut [u8], reader: &'b mut FrameReader<'_>) -> &'b mut [u8] {
    if own.is_empty() {
        reader.buffer()
    } else {
        own
    }
}
