//! Plain bytes in, plain bytes out: a proxy without a chain.

use super::{refuse_greeting, Pump};
use crate::collect::queue::Measurement;
use crate::measure::Direction;
use crate::node::fault::ConnectionFault;
use crate::node::reader::{Chunk, FrameReader};
use crate::session::connection_record::ConnectionSide;

impl<'a> Pump<'a> {
    /// A plain proxy's pump in either direction; also a reflector's for a raw client.
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
        loop {
            let chunk = reader.chunk();
            let Some(chunk) = chunk.map_err(|fault| self.read_fault(self.source, fault))? else {
                break;
            };
            let asked = match self.source {
                ConnectionSide::Client => None,
                ConnectionSide::Server => self.pair.server_timer.answered(),
            };
            if self.source == ConnectionSide::Client && self.traffic.forward_blocks == 0 {
                refuse_greeting(self.node, self.pair, chunk.bytes())?;
            }
            self.count(chunk.end - chunk.start);
            if !self.node.settings.stamp || !self.node.collector.may_mark(&mut self.epoch) {
                if self.source == ConnectionSide::Client {
                    self.pair.server_timer.ask_untimed();
                }
                self.note_asked(&chunk);
                self.send(self.sink, chunk.bytes())?;
                if let Some((_, since)) = asked {
                    self.tell_behind(since);
                }
                self.note_answered(&chunk);
                continue;
            }
            let ingress = self.clock.read();
            let behind = asked.map(|(_, since)| ingress.mono.since(since));
            let question = match self.source {
                ConnectionSide::Client => Some(self.pair.server_timer.ask(self.sequence)),
                ConnectionSide::Server => None,
            };
            self.note_asked(&chunk);
            let egress = self.clock.read();
            if let Some(question) = question {
                question.at(egress.mono);
            }
            self.send(self.sink, chunk.bytes())?;
            self.sequence += 1;
            self.note_answered(&chunk);
            self.tell_residence(direction, ingress, egress);
            if let Some(behind) = behind {
                self.node.collector.offer(Measurement::BehindExit(
                    self.session.hop,
                    ingress.mono,
                    behind,
                ));
            }
        }
        self.finish(|| sink.shut_writing())
    }

    /// Both directions as the client sees them: what it sent when it was read ...
    fn note_asked(&self, chunk: &Chunk<'_>) {
        if self.source == ConnectionSide::Client {
            self.note_payload(ConnectionSide::Client, chunk.read_at, chunk.bytes());
        }
    }

    /// ... and what it gets when it is written.
    fn note_answered(&self, chunk: &Chunk<'_>) {
        if self.source == ConnectionSide::Server {
            self.note_payload(ConnectionSide::Server, None, chunk.bytes());
        }
    }

    fn tell_behind(&mut self, since: crate::time::MonoTime) {
        let now = self.clock.read().mono;
        self.node.collector.offer(Measurement::BehindExit(
            self.session.hop,
            now,
            now.since(since),
        ));
    }

    /// A plain proxy's down pump, from the beginning.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn splice_back(&mut self) -> Result<(), ConnectionFault> {
        let reader = &mut self.reader();
        self.splice(reader)
    }

    /// A reflector for a raw client, so that a person with `nc` can try it.
    ///
    /// # Errors
    ///
    /// [`ConnectionFault`], for [`conclude`](crate::node::fault::conclude).
    pub fn reflect_raw(&mut self, reader: &mut FrameReader<'a>) -> Result<(), ConnectionFault> {
        self.sink = ConnectionSide::Client;
        self.splice(reader)
    }
}
