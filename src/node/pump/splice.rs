//! Plain bytes in, plain bytes out: a proxy without a chain.

use super::edit::EditedChunk;
use super::Pump;
use crate::measure::Direction;
use crate::node::fault::{refuse_framed_client, ConnectionFault};
use crate::node::reader::{Chunk, FrameReader};
use crate::session::connection_record::ConnectionSide;
use std::sync::atomic::Ordering;

impl<'a> Pump<'a> {
    /// Runs a plain proxy's pump in either direction, or a reflector's for a raw client.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn splice(&mut self, reader: &mut FrameReader<'a>) -> Result<(), ConnectionFault> {
        let sink = self.end(self.sink);
        let direction = match self.source {
            ConnectionSide::Client => Direction::Forward,
            ConnectionSide::Server => Direction::Return,
        };
        let mut edited = EditedChunk::default();
        while let Some(chunk) = self.next_chunk(reader, &mut edited)? {
            let answered = match self.source {
                ConnectionSide::Client => None,
                ConnectionSide::Server => self.answered(),
            };
            // Before the send, which may block for long: that is not the server's time.
            let answered = answered.map(|(_, since)| (self.clock.read(), since));
            if self.source == ConnectionSide::Client && self.traffic.forward_blocks == 0 {
                refuse_framed_client(self.node, self.pair, chunk.bytes())?;
            }
            self.count(chunk.end - chunk.start);
            if !self.is_marked() {
                if self.source == ConnectionSide::Client {
                    self.note_request_block(None, None);
                    self.pair.server_timer.begin_untimed();
                }
                self.log_request(&chunk);
                self.send(self.sink, chunk.bytes())?;
                if let Some((now, since)) = answered {
                    self.collect_server_time(now, now.mono.since(since));
                }
                self.log_answer(&chunk);
                continue;
            }
            let ingress = self.clock.read();
            if self.source == ConnectionSide::Client {
                self.note_request_block(Some(ingress.mono), Some(self.sequence));
            }
            let timing = match self.source {
                ConnectionSide::Client => Some(self.pair.server_timer.begin(self.sequence)),
                ConnectionSide::Server => None,
            };
            self.log_request(&chunk);
            let egress = self.clock.read();
            if let Some(timing) = timing {
                timing.at(egress.mono, self.pair.blocked.load(Ordering::Relaxed) > 0);
            }
            self.send(self.sink, chunk.bytes())?;
            self.sequence += 1;
            self.log_answer(&chunk);
            self.collect_residence(direction, ingress, egress);
            if let Some((now, since)) = answered {
                self.collect_server_time(now, now.mono.since(since));
            }
        }
        self.finish(|| sink.shut_writing())
    }

    /// Logs bytes of the client, at the time when they were read.
    fn log_request(&mut self, chunk: &Chunk<'_>) {
        if self.source == ConnectionSide::Client {
            self.log_chunk(chunk.read_at, chunk);
        }
    }

    /// Logs bytes for the client, at the time when they were written.
    fn log_answer(&mut self, chunk: &Chunk<'_>) {
        if self.source == ConnectionSide::Server {
            self.log_chunk(None, chunk);
        }
    }

    /// Runs a plain proxy's down pump from its first byte.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn splice_back(&mut self) -> Result<(), ConnectionFault> {
        let reader = &mut self.reader();
        self.splice(reader)
    }

    /// Reflects the bytes of a raw client, so that a person with `nc` can try it.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn reflect_raw(&mut self, reader: &mut FrameReader<'a>) -> Result<(), ConnectionFault> {
        self.sink = ConnectionSide::Client;
        self.splice(reader)
    }
}
