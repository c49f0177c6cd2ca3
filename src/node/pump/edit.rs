//! The steps of a pump that edits heads of HTTP: `--http-write` and `--server-timing`.

use super::Pump;
use crate::http::edit::PassReason;
use crate::http::head::MessageKind;
use crate::measure::Return;
use crate::node::clock::Moment;
use crate::node::connection_log::FromPayload;
use crate::node::fault::ConnectionFault;
use crate::node::http_edit::HttpEditor;
use crate::node::reader::{Chunk, FrameReader, ReadFault, HEADROOM, READ_SIZE};
use crate::session::connection_record::ConnectionSide;
use crate::session::trips::{answered, TripOrigin};
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::wire::authentication::TAG_LEN;
use crate::wire::{BehindExit, FrameView, ANNOTATION_BEHIND_EXIT};
use std::time::{Duration, Instant};

/// The longest sleep of a pump that holds a head: the other pump may find a doubt meanwhile.
const LONGEST_TICK: Duration = Duration::from_millis(200);

/// The size from which on a buffer is released before the next read.
const LARGE: usize = 16 << 10;

/// The edited bytes of a chunk, with the room that frames need.
#[derive(Debug, Default)]
pub(super) struct EditedChunk {
    buffer: Vec<u8>,
    /// Bytes beyond the longest chunk.
    rest: Vec<u8>,
}

impl<'a> Pump<'a> {
    fn kind(&self) -> MessageKind {
        match self.source {
            ConnectionSide::Client => MessageKind::Request,
            ConnectionSide::Server => MessageKind::Response,
        }
    }

    /// Reads plain bytes, with the heads in them edited; `own` keeps those. `None` at the end of
    /// the stream.
    #[inline]
    pub(super) fn next_chunk<'r>(
        &mut self,
        reader: &'r mut FrameReader<'a>,
        own: &'r mut EditedChunk,
    ) -> Result<Option<Chunk<'r>>, ConnectionFault> {
        match self.editor() {
            Some(http) => self.edited_chunk(http, reader, own),
            None => {
                let chunk = reader.chunk();
                chunk.map_err(|fault| self.read_fault(self.source, fault))
            }
        }
    }

    #[inline(never)]
    fn edited_chunk<'r>(
        &mut self,
        http: &HttpEditor,
        reader: &'r mut FrameReader<'a>,
        own: &'r mut EditedChunk,
    ) -> Result<Option<Chunk<'r>>, ConnectionFault> {
        let kind = self.kind();
        if !http.holds(kind) {
            let chunk = reader.chunk();
            let chunk = chunk.map_err(|fault| self.read_fault(self.source, fault))?;
            if let Some(chunk) = &chunk {
                http.feed(self.node, kind, chunk.bytes(), &mut own.rest);
                self.note_passing(http);
            }
            return Ok(chunk);
        }
        let mut read_at = None;
        let mut out = std::mem::take(&mut own.rest);
        if own.buffer.capacity() > LARGE {
            own.buffer = Vec::new();
        }
        while out.is_empty() {
            reader.set_tick(self.holding_tick());
            match reader.chunk() {
                Ok(Some(chunk)) => {
                    read_at = chunk.read_at;
                    self.log_unedited(&chunk);
                    self.take_answer(http);
                    self.feed(http, chunk.bytes(), &mut out);
                    if out.is_empty() && self.read_at.is_some() {
                        let source = &self.end(self.source).socket;
                        // From here on it waits for its client, and no more for its connect.
                        self.read_at = self.read_at.filter(|_| sys::is_readable(source));
                    }
                }
                Ok(None) => {
                    http.give_up(kind, PassReason::Cut, &mut out);
                    self.note_passing(http);
                    if out.is_empty() {
                        return Ok(None);
                    }
                }
                Err(ReadFault::Idle) if self.held_since.is_some() => {
                    self.held_too_long(http, &mut out);
                }
                Err(fault) => return Err(self.read_fault(self.source, fault)),
            }
        }
        if out.len() > READ_SIZE {
            own.rest = out.split_off(READ_SIZE);
        }
        let end = HEADROOM + out.len();
        own.buffer.clear();
        own.buffer.resize(HEADROOM, 0);
        own.buffer.extend_from_slice(&out);
        own.buffer.resize(end + TAG_LEN, 0);
        Ok(Some(Chunk {
            buffer: &mut own.buffer,
            start: HEADROOM,
            end,
            read_at,
        }))
    }

    /// Returns `true` if heads of this direction wait until they are complete.
    #[inline]
    pub(super) fn holds_heads(&self) -> bool {
        self.editor().is_some_and(|http| http.holds(self.kind()))
    }

    /// Records bytes in the connection log before they are edited: the stamps of this node are none
    /// of another program's. Those of the server are dated when they are read, not written.
    #[inline(never)]
    fn log_unedited(&mut self, chunk: &Chunk<'_>) {
        let found = self.log_payload(self.source, chunk.read_at, chunk.bytes());
        let early = self.early_found.get_or_insert_with(Box::default);
        early.trace = early.trace.take().or(found.trace);
        early.is_within_head = found.is_within_head;
    }

    /// Records the bytes of a chunk in the connection log, dated `when` or now, unless they were
    /// recorded before they were edited. Returns what was found in them.
    #[inline]
    pub(super) fn log_chunk(&mut self, when: Option<WallTime>, chunk: &Chunk<'_>) -> FromPayload {
        match self.holds_heads() {
            true => self
                .early_found
                .take()
                .map_or_else(Default::default, |early| *early),
            false => self.log_payload(self.source, when, chunk.bytes()),
        }
    }

    /// Edits the payload of a frame. `None` if it leaves as it is.
    #[inline]
    pub(super) fn edited(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let http = self.editor()?;
        let mut out = Vec::new();
        self.feed(http, payload, &mut out);
        http.holds(self.kind()).then_some(out)
    }

    #[inline(never)]
    fn feed(&mut self, http: &HttpEditor, bytes: &[u8], out: &mut Vec<u8>) {
        let is_holding = http.feed(self.node, self.kind(), bytes, out);
        self.held_since = match self.held_since {
            // A head that follows another in the same bytes has a time of its own.
            Some(since) if is_holding && out.is_empty() => Some(since),
            _ => is_holding.then(Instant::now),
        };
        self.note_passing(http);
        if is_holding && out.is_empty() {
            // Bytes that come faster than any tick do not prolong the wait.
            self.held_too_long(http, out);
        }
    }

    /// Returns the longest wait for the next bytes, if a head waits for them.
    pub(super) fn holding_tick(&self) -> Option<Duration> {
        let since = self.held_since?;
        let left = self.pair.timeout.saturating_sub(since.elapsed());
        Some(left.clamp(Duration::from_millis(1), LONGEST_TICK))
    }

    /// Ends the wait of a head if its time is over, or if the other direction has had a doubt.
    fn held_too_long(&mut self, http: &HttpEditor, out: &mut Vec<u8>) {
        let since = self.held_since;
        let is_over = since.map_or(true, |since| since.elapsed() >= self.pair.timeout);
        if is_over || http.passes() {
            http.give_up(self.kind(), PassReason::Slow, out);
            self.held_since = None;
            self.note_passing(http);
        }
    }

    /// Sends a head that waits for bytes of a frame, if its time is over.
    #[inline(never)]
    pub(super) fn send_overdue(&mut self) -> Result<(), ConnectionFault> {
        let mut out = Vec::new();
        if let Some(http) = self.editor() {
            self.held_too_long(http, &mut out);
        }
        self.send_held(&out)
    }

    /// Sends a head that waits at the end of a direction.
    pub(super) fn send_cut(&mut self) -> Result<(), ConnectionFault> {
        let Some(http) = self.editor() else {
            return Ok(());
        };
        let mut out = Vec::new();
        http.give_up(self.kind(), PassReason::Cut, &mut out);
        self.held_since = None;
        self.note_passing(http);
        self.send_held(&out)
    }

    fn send_held(&mut self, bytes: &[u8]) -> Result<(), ConnectionFault> {
        match bytes {
            [] => Ok(()),
            bytes => self.send(self.sink, bytes),
        }
    }

    /// Counts and logs a connection that passes unchanged from now on, once.
    fn note_passing(&self, http: &HttpEditor) {
        if let Some(reason) = http.take_reason() {
            self.node.note_http_passing(self.pair, reason);
        }
    }

    /// Decides whether this block is marked: as others, and if it begins a request that waits for
    /// the stamps.
    #[inline]
    pub(super) fn is_marked(&mut self) -> bool {
        if !self.node.settings.stamp {
            return false;
        }
        if self.begins_request() {
            return self.node.collector.may_mark_request(&mut self.epoch);
        }
        self.node.collector.may_mark(&mut self.epoch)
    }

    /// Notes the block that the latest requests begin, read at `at`; its number if it is marked.
    #[inline]
    pub(super) fn note_request_block(&self, at: Option<MonoTime>, marked: Option<u64>) {
        if let Some(http) = self.editor().filter(|http| http.awaits_block()) {
            http.block(at.unwrap_or_else(sys::clock::mono), marked);
        }
    }

    /// At a plain proxy, takes the block that the bytes read now answer, before the head of the
    /// response is edited.
    fn take_answer(&mut self, http: &HttpEditor) {
        if self.source == ConnectionSide::Client || self.session.cookie != 0 {
            return;
        }
        let now = sys::clock::mono();
        if let Some((block, sent)) = self.pair.server_timer.answered(now) {
            http.answered(&self.node.settings.name, block, sent, now);
            self.early_answer = Some((block, sent));
        }
    }

    /// Returns the block that the bytes read from the server at this moment answer, and the time of
    /// its write.
    #[inline]
    pub(super) fn answered(&mut self) -> Option<(u64, MonoTime)> {
        match self.holds_heads() {
            true => self.early_answer.take(),
            false => self.pair.server_timer.answered(sys::clock::mono()),
        }
    }

    /// Returns `true` if the block at hand begins a request whose delays the response will name.
    #[inline]
    pub(super) fn begins_request(&self) -> bool {
        self.editor().is_some_and(HttpEditor::awaits_block)
    }

    /// Takes the stamps of both ways from a block that begins an answer, read at `ingress`, before
    /// it is edited.
    #[inline]
    pub(super) fn take_answered(&self, view: &FrameView<'_>, ingress: Option<Moment>) {
        if let (Some(http), Some(ingress)) = (self.editor(), ingress) {
            self.take_stamps(http, view, ingress);
        }
    }

    #[inline(never)]
    fn take_stamps(&self, http: &HttpEditor, view: &FrameView<'_>, ingress: Moment) {
        let origin = TripOrigin {
            node: self.node.id,
            hop: self.session.hop,
        };
        let home = Return {
            arrival: ingress.arrival,
            ingress: ingress.wall,
            egress: None,
            generation: ingress.generation,
            held: Nanos::ZERO,
        };
        if let Some(trip) = answered(view, origin, ingress.mono, home) {
            http.answer(&trip, ingress.mono);
        }
    }
}

/// Returns the server's time in a block that came back.
pub(super) fn behind_exit(view: &FrameView<'_>) -> Option<BehindExit> {
    view.annotations()
        .map_while(Result::ok)
        .filter(|annotation| annotation.kind == ANNOTATION_BEHIND_EXIT)
        .find_map(|annotation| BehindExit::parse(annotation.value).ok())
}
