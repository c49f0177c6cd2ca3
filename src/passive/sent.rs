//! Counts, times and round trips of what one end of a connection sent.

use super::application::ResponseSample;
use super::maybe_time::MaybeTime;
use super::side::Side;
use super::track::Track;
use crate::measure::Histogram;
use crate::time::{SignedNanos, WallTime};

/// The count of an event, and its latest time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The count.
    pub count: u64,
    /// The latest time, if there was one.
    latest: WallTime,
}

impl Event {
    /// Returns the latest time; `None` if it never happened.
    pub fn last(&self) -> Option<WallTime> {
        (self.count > 0).then_some(self.latest)
    }

    #[inline]
    pub(super) fn happened(&mut self, now: WallTime) {
        self.count += 1;
        self.latest = now;
    }
}

/// One direction of a connection, as the capture point saw it. Its order is that of memory: what
/// most packets need lies together.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct Sent {
    /// Segments.
    pub packets: u64,
    /// Payload of all of them, repeated payload included, keep-alive probes not.
    pub payload_bytes: u64,
    /// Last packet of any kind.
    pub last_packet: MaybeTime,
    /// First packet with payload.
    pub first_data: MaybeTime,
    /// Last one.
    pub last_data: MaybeTime,
    pub(super) track: Track,
    /// The time at which this end moved to the established state, by what passed: the client's by
    /// the SYN-ACK, the server's by the ACK.
    pub established: MaybeTime,
    rare: Option<Box<Rare>>,
    /// Of the kind that came first: SYN with ACK or without.
    opening: Event,
    /// Of the data sent: from here to the other end and back. The handshake's are apart.
    pub round_trip: Histogram,
    /// Every FIN, repeated ones included.
    pub fin: Event,
}

/// What an end sent that most never send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rare {
    /// The part of the payload that had passed before.
    pub retransmitted_bytes: u64,
    /// Segments whose match was given up because too many were waiting.
    pub unmatched_dropped: u64,
    /// RFC 5681: no payload, the same number and window again while data is outstanding.
    pub duplicate_acks: u64,
    /// Segments that announce a closed window.
    pub zero_windows: u64,
    /// Keep-alive probes (RFC 9293 §3.8.4): at most one byte, already acknowledged.
    pub keep_alives: u64,
    /// Resets.
    pub rst: Event,
    /// Of the other kind than [`Sent::opening`].
    opening: Event,
}

impl Sent {
    /// Returns what most ends never send.
    #[inline]
    pub fn rare(&self) -> Rare {
        self.rare.as_deref().copied().unwrap_or_default()
    }

    /// The same to be counted.
    #[inline]
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(Box::default)
    }

    /// Returns `true` if it sent a reset.
    pub(super) fn has_rst(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.rst.count > 0)
    }

    /// SYN without ACK.
    pub fn syn(&self) -> Event {
        self.opening(false)
    }

    /// SYN with ACK.
    pub fn syn_ack(&self) -> Event {
        self.opening(true)
    }

    fn opening(&self, answers: bool) -> Event {
        match self.track.answers == answers {
            true => self.opening,
            false => self.rare().opening,
        }
    }

    /// Counts a SYN, with ACK if it `answers` one.
    pub(super) fn opened(&mut self, now: WallTime, answers: bool) {
        if self.opening.count == 0 {
            self.track.answers = answers;
        }
        match self.track.answers == answers {
            true => self.opening.happened(now),
            false => self.rare_mut().opening.happened(now),
        }
    }

    /// Reads what a segment will need of the end that sends it; the number means nothing.
    #[inline]
    pub(super) fn warm(&self, has_data: bool) -> u64 {
        // Without a branch, which would wait for the memory.
        let data = if has_data {
            self.track.warm_for_data()
        } else {
            0
        };
        self.packets ^ self.track.warm() ^ data
    }

    /// Reads what a segment will need of the end that receives it.
    #[inline]
    pub(super) fn warm_for_other(&self) -> u64 {
        let heard = self.last_packet.get().map_or(0, |time| time.0);
        heard ^ self.track.warm() ^ self.round_trip.count() ^ self.round_trip.mean_ns().to_bits()
    }

    /// Payload per second between the first and the last packet with payload; `None` where these
    /// are one instant.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let span = self.last_data.get()? - self.first_data.get()?;
        let bytes = self.payload_bytes - self.rare().retransmitted_bytes;
        (span.0 > 0).then(|| bytes as f64 * 1e9 / span.0 as f64)
    }
}

/// Counts of one direction within one interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IntervalSent {
    /// Segments.
    pub packets: u64,
    /// Payload.
    pub payload_bytes: u64,
    /// The part of it that had passed before.
    pub retransmitted_bytes: u64,
    /// Duplicate ACKs.
    pub duplicate_acks: u64,
    /// Closed windows.
    pub zero_windows: u64,
    /// The time at which the last segment passed.
    pub last_packet: Option<WallTime>,
    /// Least, latest and greatest round trip that was completed in it; `None` where none was.
    pub round_trip: Option<[SignedNanos; 3]>,
}

/// The events between `start` and `start` plus the interval. Intervals without a packet have no
/// snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// A multiple of the interval since the epoch.
    pub start: WallTime,
    /// The client's and the server's.
    pub sent: [IntervalSent; 2],
}

/// The state of a connection when its record was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both ends sent a FIN.
    Fin,
    /// One end reset it.
    Rst,
    /// Neither, when the capture ended (or when the same addresses and ports began anew).
    Open,
    /// Neither, when it had to make room.
    Evicted,
}

impl Ended {
    /// As it stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Open => "open",
            Self::Evicted => "evicted",
        }
    }
}

/// The method by which a round trip was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleBasis {
    /// A TSval and its echo.
    Timestamps,
    /// A segment's end and the ACK of exactly that, neither repeated nor beside a hole.
    Sequence,
    /// SYN and SYN-ACK, or SYN-ACK and ACK.
    Handshake,
}

impl SampleBasis {
    /// As it stands in the lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timestamps => "timestamps",
            Self::Sequence => "sequence",
            Self::Handshake => "handshake",
        }
    }
}

/// One round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The time at which its answer passed.
    pub time: WallTime,
    /// Whose data was acknowledged; the trip went to the other end and back.
    pub sender: Side,
    /// The delay; negative only if the capture's clock was stepped back.
    pub round_trip: SignedNanos,
    /// The method.
    pub basis: SampleBasis,
}

/// The findings of one segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Findings {
    /// A round trip of data.
    pub data: Option<Sample>,
    /// A round trip of the handshake.
    pub handshake: Option<Sample>,
    /// Payload that had passed before.
    pub retransmitted: u32,
    /// Payload in all.
    pub payload: u32,
    /// The answer of an application.
    pub answer: Option<ResponseSample>,
}
