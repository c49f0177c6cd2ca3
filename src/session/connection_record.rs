//! The record of both ends of a live connection: events with their times in, a record out.
//!
//! These are the TCP session events that a process can see. An end of file represents the peer's
//! FIN, a failed call its RST. Both have the time at which this process met them, which is after
//! the kernel did. All times are on this node's wall clock. `None` is an event that has not
//! happened, or that the kernel does not report.

use crate::time::{Nanos, WallTime};
use std::net::SocketAddr;

/// An end of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionSide {
    /// The peer that connected to this node.
    Client,
    /// The peer that this node connected to.
    Server,
}

/// Bytes of one direction at one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// The bytes on the socket: frames with their headers if the peer is a node.
    pub count: u64,
    /// The time when the first of them was read, or had been written.
    pub first: Option<WallTime>,
    /// The time of the last of them so far.
    pub last: Option<WallTime>,
}

impl Transferred {
    fn moved(&mut self, now: WallTime, count: usize) {
        self.count += count as u64;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

/// The kernel's values of an end (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Smoothed round-trip time to the peer; holds the peer's delayed acknowledgements.
    pub round_trip: Option<Nanos>,
    /// The least one that the kernel measured.
    pub least_round_trip: Option<Nanos>,
    /// TCP segments sent again, SYN among them.
    pub retransmits: Option<u32>,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndRecord {
    /// The address of the peer.
    pub peer: Option<SocketAddr>,
    /// The local address.
    pub local: Option<SocketAddr>,
    /// The start of the connect; `None` if the peer connected.
    pub connect_started: Option<WallTime>,
    /// The duration of the connect.
    pub connect: Option<Nanos>,
    /// The time when connect or accept returned.
    pub established: Option<WallTime>,
    /// The SYN (or SYN+ACK) segments sent again before that.
    pub syn_retransmits: Option<u32>,
    /// The bytes from the peer.
    pub received: Transferred,
    /// The bytes to the peer.
    pub sent: Transferred,
    /// The time when the peer ended its direction.
    pub fin_received: Option<WallTime>,
    /// The time when this node ended its own.
    pub fin_sent: Option<WallTime>,
    /// The time when the peer reset the connection.
    pub rst_received: Option<WallTime>,
    /// The time when this node reset it.
    pub rst_sent: Option<WallTime>,
    /// The latest smoothed round-trip time.
    pub round_trip: Option<Nanos>,
    /// The least round-trip time: the kernel's own minimum if it has one, else that of all
    /// readings.
    pub round_trip_min: Option<Nanos>,
    /// The greatest smoothed round-trip time of all readings.
    pub round_trip_max: Option<Nanos>,
    /// TCP segments sent again.
    pub retransmits: Option<u32>,
}

impl EndRecord {
    /// An end that was accepted at `now`.
    pub fn accepted(now: WallTime, peer: SocketAddr, kernel: Kernel) -> Self {
        let mut end = Self {
            peer: Some(peer),
            established: Some(now),
            syn_retransmits: kernel.retransmits,
            ..Self::default()
        };
        end.update_kernel(kernel);
        end
    }

    /// An end that was connected at `now`, after `took`.
    pub fn connected(now: WallTime, peer: SocketAddr, took: Nanos, kernel: Kernel) -> Self {
        Self {
            connect_started: Some(now.before(took)),
            connect: Some(took),
            ..Self::accepted(now, peer, kernel)
        }
    }

    /// Records `count` bytes that were read.
    pub fn receive(&mut self, now: WallTime, count: usize) {
        self.received.moved(now, count);
    }

    /// Records `count` bytes that were handed to the kernel.
    pub fn send(&mut self, now: WallTime, count: usize) {
        self.sent.moved(now, count);
    }

    /// Records the current values of the kernel.
    pub fn update_kernel(&mut self, kernel: Kernel) {
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

/// The counts of an end since the previous interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalCounts {
    /// Bytes read.
    pub received_bytes: u64,
    /// Bytes written.
    pub sent_bytes: u64,
    /// Segments that the kernel sent again; `None` if it does not report them.
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
    /// The client end.
    pub client: EndRecord,
    /// The server end; `None` until it is connected, and at a reflector.
    pub server: Option<EndRecord>,
    marks: [Marks; 2],
}

impl ConnectionRecord {
    /// The record of a connection with its first end.
    pub fn new(client: EndRecord) -> Self {
        Self {
            client,
            ..Self::default()
        }
    }

    /// Returns the end at `place`; `None` if there is none yet.
    pub fn end(&mut self, place: ConnectionSide) -> Option<&mut EndRecord> {
        match place {
            ConnectionSide::Client => Some(&mut self.client),
            ConnectionSide::Server => self.server.as_mut(),
        }
    }

    /// Returns the counts of both ends since the previous call; a new interval begins.
    pub fn interval(&mut self) -> [Option<IntervalCounts>; 2] {
        let ends = [Some(&self.client), self.server.as_ref()];
        let mut intervals = [None; 2];
        for (at, end) in ends.into_iter().enumerate() {
            if let Some(end) = end {
                intervals[at] = Some(end.since(&self.marks[at]));
                self.marks[at] = end.marks();
            }
        }
        intervals
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
        end.update_kernel(kernel(30_000, None, 4));
        assert_eq!((end.syn_retransmits, end.retransmits), (Some(1), Some(4)));
        end.update_kernel(Kernel::default()); // A closed socket has no values.
        assert_eq!(end.retransmits, Some(4));
        assert_eq!(end.round_trip, Some(Nanos::from_millis(30)));
        assert_eq!(end.round_trip_min, Some(Nanos::from_millis(20)));
        assert_eq!(end.round_trip_max, Some(Nanos::from_millis(30)));
        end.update_kernel(kernel(25_000, Some(15_000), 4));
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
            client.update_kernel(kernel(100, None, second as u32));
            let intervals = record.interval()[0].unwrap();
            sum += intervals.received_bytes;
            assert_eq!(intervals.retransmits, Some(1));
            assert_eq!(intervals.sent_bytes, 1);
        }
        assert_eq!(record.interval()[0].unwrap().received_bytes, 0);
        assert_eq!(record.client.received.count, sum);
        assert_eq!(record.client.received.first, Some(at(1_000)));
        assert_eq!(record.client.sent.last, Some(at(5_001)));
    }
}
