//! What happened to the two ends of one live connection, and when: events in with the time, a journal out.
//!
//! These are the TCP session events that a process can see. An end of file stands for the peer's FIN, a failed call for
//! its RST; both are dated when this process met them, which is after the kernel did. All times are this node's wall
//! clock; `None` is an event that has not happened, or that the kernel does not tell.

use crate::time::{Nanos, WallTime};
use std::net::SocketAddr;

/// Which end of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionSide {
    /// Where the connection came from.
    Client,
    /// Where it goes.
    Server,
}

/// Bytes of one direction at one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// As they lay on the socket: frames with their headers where the peer is a node.
    pub count: u64,
    /// When the first of them was read, or had been written.
    pub first: Option<WallTime>,
    /// The last of them so far.
    pub last: Option<WallTime>,
}

impl Transferred {
    fn moved(&mut self, now: WallTime, count: usize) {
        self.count += count as u64;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

/// What the kernel knows of an end (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Smoothed round-trip time to the peer; holds the peer's delayed acknowledgements.
    pub round_trip: Option<Nanos>,
    /// The least that the kernel measured.
    pub least_round_trip: Option<Nanos>,
    /// TCP segments sent again, SYN among them.
    pub retransmits: Option<u32>,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndRecord {
    /// Its address.
    pub peer: Option<SocketAddr>,
    /// Ours.
    pub local: Option<SocketAddr>,
    /// Our connect began; `None` where the peer connected to us.
    pub connect_started: Option<WallTime>,
    /// How long it took.
    pub connect: Option<Nanos>,
    /// The connection stood: connect returned, or accept did.
    pub established: Option<WallTime>,
    /// SYN (or SYN+ACK) sent again before it stood.
    pub syn_retransmits: Option<u32>,
    /// From the peer.
    pub received: Transferred,
    /// To the peer.
    pub sent: Transferred,
    /// The peer ended its direction.
    pub fin_received: Option<WallTime>,
    /// We ended ours.
    pub fin_sent: Option<WallTime>,
    /// The peer reset the connection.
    pub rst_received: Option<WallTime>,
    /// We did.
    pub rst_sent: Option<WallTime>,
    /// Smoothed round-trip time, latest look.
    pub round_trip: Option<Nanos>,
    /// Least round trip: the kernel's own minimum where it tells one, else of all looks.
    pub round_trip_min: Option<Nanos>,
    /// Greatest smoothed one of all looks.
    pub round_trip_max: Option<Nanos>,
    /// TCP segments sent again.
    pub retransmits: Option<u32>,
}

impl EndRecord {
    /// An end that we accepted at `now`.
    pub fn accepted(now: WallTime, peer: SocketAddr, kernel: Kernel) -> Self {
        let mut end = Self {
            peer: Some(peer),
            established: Some(now),
            syn_retransmits: kernel.retransmits,
            ..Self::default()
        };
        end.look(kernel);
        end
    }

    /// An end that we connected, at `now`, having tried for `took`.
    pub fn connected(now: WallTime, peer: SocketAddr, took: Nanos, kernel: Kernel) -> Self {
        Self {
            connect_started: Some(now.before(took)),
            connect: Some(took),
            ..Self::accepted(now, peer, kernel)
        }
    }

    /// `count` bytes were read.
    pub fn receive(&mut self, now: WallTime, count: usize) {
        self.received.moved(now, count);
    }

    /// `count` bytes were handed to the kernel.
    pub fn send(&mut self, now: WallTime, count: usize) {
        self.sent.moved(now, count);
    }

    /// Takes in what the kernel says now.
    pub fn look(&mut self, kernel: Kernel) {
        if let Some(now) = kernel.round_trip {
            self.round_trip = Some(now);
            let least = kernel.least_round_trip.unwrap_or(now);
            self.round_trip_min = Some(self.round_trip_min.map_or(least, |min| min.min(least)));
            self.round_trip_max = Some(self.round_trip_max.map_or(now, |max| max.max(now)));
        }
        self.retransmits = kernel.retransmits.or(self.retransmits);
    }

    fn since(&self, earlier: &Marks) -> IntervalCounts {
        IntervalCounts {
            received_bytes: self.received.count - earlier.received,
            sent_bytes: self.sent.count - earlier.sent,
            retransmits: self
                .retransmits
                .map(|now| now.saturating_sub(earlier.retransmits)),
        }
    }

    fn marks(&self) -> Marks {
        Marks {
            received: self.received.count,
            sent: self.sent.count,
            retransmits: self.retransmits.unwrap_or(0),
        }
    }
}

/// What an end did since the last interval's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalCounts {
    /// Read.
    pub received_bytes: u64,
    /// Written.
    pub sent_bytes: u64,
    /// Sent again by the kernel; `None` where it does not tell.
    pub retransmits: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    received: u64,
    sent: u64,
    retransmits: u32,
}

/// One connection through a node.
#[derive(Clone, Debug, Default)]
pub struct ConnectionRecord {
    /// Where it came from.
    pub client: EndRecord,
    /// Where it goes; `None` until it is connected, and at a reflector.
    pub server: Option<EndRecord>,
    marks: [Marks; 2],
}

impl ConnectionRecord {
    /// Of a connection that has its first end.
    pub fn new(client: EndRecord) -> Self {
        Self {
            client,
            ..Self::default()
        }
    }

    /// The end at `place`; `None` where there is none yet.
    pub fn end(&mut self, place: ConnectionSide) -> Option<&mut EndRecord> {
        match place {
            ConnectionSide::Client => Some(&mut self.client),
            ConnectionSide::Server => self.server.as_mut(),
        }
    }

    /// What client and server end did since this was asked last; a new interval begins.
    pub fn interval(&mut self) -> [Option<IntervalCounts>; 2] {
        let ends = [Some(&self.client), self.server.as_ref()];
        let mut told = [None; 2];
        for (at, end) in ends.into_iter().enumerate() {
            if let Some(end) = end {
                told[at] = Some(end.since(&self.marks[at]));
                self.marks[at] = end.marks();
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> WallTime {
        WallTime(ms * 1_000_000)
    }

    fn kernel(rtt_us: u64, least_us: Option<u64>, retransmits: u32) -> Kernel {
        Kernel {
            round_trip: Some(Nanos::from_micros(rtt_us)),
            least_round_trip: least_us.map(Nanos::from_micros),
            retransmits: Some(retransmits),
        }
    }

    #[test]
    fn a_connect_is_dated_from_its_begin_and_what_was_repeated_before_it_stood_is_kept() {
        let peer = "192.0.2.1:80".parse().unwrap();
        let took = Nanos::from_millis(1_020);
        let mut end = EndRecord::connected(at(2_000), peer, took, kernel(20_000, None, 1));
        assert_eq!(end.connect_started, Some(at(980)));
        assert_eq!(end.established, Some(at(2_000)));
        end.look(kernel(30_000, None, 4));
        assert_eq!((end.syn_retransmits, end.retransmits), (Some(1), Some(4)));
        end.look(Kernel::default()); // A closed socket tells nothing more.
        assert_eq!(end.retransmits, Some(4));
        assert_eq!(end.round_trip, Some(Nanos::from_millis(30)));
        assert_eq!(end.round_trip_min, Some(Nanos::from_millis(20)));
        assert_eq!(end.round_trip_max, Some(Nanos::from_millis(30)));
        end.look(kernel(25_000, Some(15_000), 4));
        assert_eq!(end.round_trip_min, Some(Nanos::from_millis(15)));
    }

    #[test]
    fn intervals_add_up_to_the_whole_and_begin_anew() {
        let peer = "[::1]:80".parse().unwrap();
        let mut record =
            ConnectionRecord::new(EndRecord::accepted(at(0), peer, kernel(100, None, 0)));
        assert_eq!(record.interval()[1], None);
        let mut sum = 0;
        for second in 1..=5_u64 {
            let client = record.end(ConnectionSide::Client).unwrap();
            client.receive(at(1_000 * second), 100 * second as usize);
            client.send(at(1_000 * second + 1), 1);
            client.look(kernel(100, None, second as u32));
            let told = record.interval()[0].unwrap();
            sum += told.received_bytes;
            assert_eq!(told.retransmits, Some(1));
            assert_eq!(told.sent_bytes, 1);
        }
        assert_eq!(record.interval()[0].unwrap().received_bytes, 0);
        assert_eq!(record.client.received.count, sum);
        assert_eq!(record.client.received.first, Some(at(1_000)));
        assert_eq!(record.client.sent.last, Some(at(5_001)));
    }
}
