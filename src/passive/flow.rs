//! The TCP segments of one connection in; round trips, counts and times of its events out.
//!
//! Read RFC 7323 §4.1 (the RTTM rule), RFC 6298 §3 (Karn's rule) and RFC 5681 §2 (duplicate ACK) first.
//!
//! A direction is named by who sends: what the client sends is [`Side::Client`]'s. Its round trip is the time from a
//! segment's passing the capture point to the passing of what acknowledges it: to the *other* end and back.

use super::application::{Answer, Application};
use super::http::Http;
use super::packet::{Endpoint, TcpSegment, Timestamps, ACK, FIN, RST, SYN};
use super::side::Side;
use crate::measure::Histogram;
use crate::time::{SignedNanos, WallTime};
use std::collections::VecDeque;

/// Unmatched TSvals (or ends of segments) kept per direction: what a fast path may have in flight.
const MAX_UNMATCHED: usize = 2048;

/// The same as long as nothing was seen from the other end: a capture of one direction would fill every flow's queue.
const MAX_UNMATCHED_ONE_SIDED: usize = 64;

/// SYNs remembered to be told apart by their TSval; Linux sends 7.
const MAX_SYNS: usize = 8;

/// Stretches of sequence space not seen yet, per direction.
const MAX_GAPS: usize = 32;

/// No window is larger (RFC 7323 §2.3): what lies further off is a stray number or the gap of a broken capture.
const MAX_WINDOW: u32 = 1 << 30;

/// After this long without a segment two TSvals of a 1 ms clock cannot be ordered any more (RFC 7323 §5.5).
const TS_VAL_AGE_NS: u64 = 24 * 86_400 * 1_000_000_000;

/// How a counted event stands. A count of zero has no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// How often.
    pub count: u64,
    /// When last; `None` where it never happened.
    pub last: Option<WallTime>,
}

impl Event {
    #[inline]
    fn happened(&mut self, now: WallTime) {
        self.count += 1;
        self.last = Some(now);
    }
}

/// What one end of a connection sent, as the capture point saw it.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Segments.
    pub packets: u64,
    /// Payload of all of them, repeated payload included, keep-alive probes not.
    pub payload_bytes: u64,
    /// The part of it that had passed before.
    pub retransmitted_bytes: u64,
    /// SYN without ACK.
    pub syn: Event,
    /// SYN with ACK.
    pub syn_ack: Event,
    /// Every FIN, repeated ones included.
    pub fin: Event,
    /// Resets.
    pub rst: Event,
    /// When this end moved to the established state, by what passed: the client's by the SYN-ACK, the server's by the ACK.
    pub established: Option<WallTime>,
    /// First packet with payload.
    pub first_data: Option<WallTime>,
    /// Last one.
    pub last_data: Option<WallTime>,
    /// Last packet of any kind.
    pub last_packet: Option<WallTime>,
    /// RFC 5681: no payload, the same number and window again while data is outstanding.
    pub duplicate_acks: u64,
    /// Segments that announce a closed window.
    pub zero_windows: u64,
    /// Keep-alive probes (RFC 9293 §3.8.4): at most one byte, already acknowledged.
    pub keep_alives: u64,
    /// Of the data sent: from here to the other end and back. The handshake's are apart.
    pub round_trip: Histogram,
    /// Segments whose match was given up because too many were waiting.
    pub unmatched_dropped: u64,
    track: Track,
}

impl Sent {
    /// Payload per second between the first and the last packet with payload; `None` where these are one instant.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let span = self.last_data? - self.first_data?;
        (span.0 > 0)
            .then(|| (self.payload_bytes - self.retransmitted_bytes) as f64 * 1e9 / span.0 as f64)
    }
}

/// Where a direction's numbers stand.
#[derive(Clone, Debug, Default)]
struct Track {
    /// SND.UNA: what the other end has acknowledged of it.
    una: Option<u32>,
    /// One past the highest sequence number seen.
    next: Option<u32>,
    /// Of its SYN or SYN-ACK.
    initial: Option<u32>,
    window: u16,
    /// The latest first sighting of a TSval.
    newest: Option<(u32, WallTime)>,
    /// First sightings that wait for their echo, oldest first.
    by_ts_val: VecDeque<(u32, WallTime)>,
    /// Ends of segments without timestamps that wait for their ACK, oldest first.
    by_sequence: VecDeque<(u32, WallTime)>,
    /// Stretches below `next` that did not pass: half-open, in order of appearance.
    gaps: Vec<(u32, u32)>,
    syns: Vec<(Option<u32>, WallTime)>,
}

/// `a - b` around the circle of sequence numbers (RFC 9293 §3.4), as a signed distance.
#[inline]
fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Track {
    /// Takes `ack` as the other end's acknowledgment; whether it advanced SND.UNA by a believable step.
    #[inline]
    fn acknowledge(&mut self, ack: u32) -> bool {
        let Some(una) = self.una else {
            self.una = Some(ack);
            return false;
        };
        let step = distance(ack, una);
        if step == 0 {
            return false;
        }
        let believable = step.unsigned_abs() <= MAX_WINDOW;
        if step > 0 || !believable {
            self.una = Some(ack);
        }
        step > 0 && believable
    }

    /// Takes the range from `seq` as sent; how many of its numbers had passed before.
    #[inline]
    fn send(&mut self, seq: u32, length: u32) -> u32 {
        let end = seq.wrapping_add(length);
        let Some(next) = self.next else {
            self.next = Some(end);
            return 0;
        };
        let ahead = distance(seq, next);
        if ahead == 0 {
            self.next = Some(end);
            return 0;
        }
        if ahead.unsigned_abs() > MAX_WINDOW {
            self.next = Some(end);
            self.gaps.clear();
            return 0;
        }
        if ahead > 0 {
            if self.gaps.len() == MAX_GAPS {
                self.gaps.remove(0);
            }
            self.gaps.push((next, seq));
            self.next = Some(end);
            return 0;
        }
        let below_end = if distance(end, next) > 0 {
            self.next = Some(end);
            next
        } else {
            end
        };
        let below = below_end.wrapping_sub(seq);
        below - self.fill_gaps(seq, below_end)
    }

    /// Takes `seq..end` out of the gaps; how many numbers of it were in one.
    fn fill_gaps(&mut self, seq: u32, end: u32) -> u32 {
        let mut filled = 0;
        let mut rest = Vec::new();
        self.gaps.retain_mut(|(from, to)| {
            let start = if distance(seq, *from) > 0 { seq } else { *from };
            let stop = if distance(end, *to) < 0 { end } else { *to };
            if distance(stop, start) <= 0 {
                return true;
            }
            filled += stop.wrapping_sub(start);
            if distance(*to, stop) > 0 && distance(start, *from) > 0 {
                rest.push((stop, *to));
            }
            if distance(start, *from) > 0 {
                *to = start;
            } else {
                *from = stop;
            }
            distance(*to, *from) > 0
        });
        rest.truncate(MAX_GAPS - self.gaps.len().min(MAX_GAPS));
        self.gaps.append(&mut rest);
        filled
    }

    /// Whether something is known to be under way.
    #[inline]
    fn outstanding(&self) -> bool {
        match (self.una, self.next) {
            (Some(una), Some(next)) => distance(next, una) > 0,
            _ => false,
        }
    }

    /// Whether everything that was seen is acknowledged.
    #[inline]
    fn quiet(&self) -> bool {
        match (self.una, self.next) {
            (Some(una), Some(next)) => distance(una, next) >= 0,
            _ => false,
        }
    }

    /// The time of the SYN that `echo` answers; without timestamps only one SYN leaves no doubt (Karn).
    fn syn_answered(&self, echo: Option<u32>) -> Option<WallTime> {
        let stamped = self.syns.iter().any(|(ts_val, _)| ts_val.is_some());
        let found = match self.syns[..] {
            [only] if !stamped || echo.is_none() => Some(only),
            _ => self
                .syns
                .iter()
                .find(|(ts_val, _)| ts_val.is_some() && *ts_val == echo)
                .copied(),
        };
        found.map(|(_, time)| time)
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
    /// When the last segment passed.
    pub last_packet: Option<WallTime>,
    /// Least, latest and greatest round trip that was completed in it; `None` where none was.
    pub round_trip: Option<[SignedNanos; 3]>,
}

/// What happened between `start` and `start` plus the interval. Intervals without a packet have no snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// A multiple of the interval since the epoch.
    pub start: WallTime,
    /// The client's and the server's.
    pub sent: [IntervalSent; 2],
}

/// How a connection was when its record was closed.
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

/// How a round trip was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A TSval and its echo.
    Timestamps,
    /// A segment's end and the ACK of exactly that, neither repeated nor beside a hole.
    Sequence,
    /// SYN and SYN-ACK, or SYN-ACK and ACK.
    Handshake,
}

impl Basis {
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
    /// When its answer passed.
    pub time: WallTime,
    /// Whose data was acknowledged; the trip went to the other end and back.
    pub sender: Side,
    /// How long; negative only where the capture's clock was stepped back.
    pub round_trip: SignedNanos,
    /// How it was measured.
    pub basis: Basis,
}

/// What one segment brought to light.
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
    pub answer: Option<Answer>,
}

/// A record as it is handed about: a kilobyte that is not to be copied.
pub type BoxedFlow = Box<Flow>;

/// A connection's record.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Rises by one with each flow of a capture.
    pub id: u64,
    /// Client and server.
    pub ends: [Endpoint; 2],
    /// What the client and the server sent.
    pub sent: [Sent; 2],
    /// First packet.
    pub first: WallTime,
    /// Last packet.
    pub last: WallTime,
    /// When the ACK that ends the handshake passed; `None` where it was not seen.
    pub established: Option<WallTime>,
    /// From the SYN to the SYN-ACK: to the server and back.
    pub syn_to_synack: Option<SignedNanos>,
    /// From the SYN-ACK to the ACK: to the client and back.
    pub synack_to_ack: Option<SignedNanos>,
    /// Both ends use RFC 7323 timestamps as far as was seen; else round trips are by sequence numbers.
    pub timestamps: bool,
    /// Set where it had to make room.
    pub evicted: bool,
    /// Completed and current interval snapshots, oldest first; only the latest are kept.
    pub intervals: VecDeque<Interval>,
    /// `None` where nothing looked like HTTP/1.x.
    pub http: Option<Box<Http>>,
    /// How long each end took to answer.
    pub application: Application,
    interval_end: WallTime,
}

impl Flow {
    /// A new record for the connection of `segment`, which its end `sender` sends.
    pub(super) fn new(id: u64, ends: [Endpoint; 2], now: WallTime) -> Self {
        Self {
            id,
            ends,
            sent: [Sent::default(), Sent::default()],
            first: now,
            last: now,
            established: None,
            syn_to_synack: None,
            synack_to_ack: None,
            timestamps: false,
            evicted: false,
            intervals: VecDeque::new(),
            http: None,
            application: Application::default(),
            interval_end: WallTime(0),
        }
    }

    /// What `side` sent.
    #[inline]
    pub fn of(&self, side: Side) -> &Sent {
        &self.sent[side as usize]
    }

    /// Whether its SYN was seen.
    pub fn begins_with_syn(&self) -> bool {
        self.of(Side::Client).syn.count > 0
    }

    /// The client's initial sequence number, where its SYN was seen.
    pub fn initial_sequence(&self) -> Option<u32> {
        self.of(Side::Client).track.initial
    }

    /// Reads what a segment will need, so that it is at hand then; the number means nothing.
    #[inline]
    pub(super) fn warm(&self) -> u64 {
        let [client, server] = &self.sent;
        let of = |sent: &Sent| {
            let waiting = sent
                .track
                .by_ts_val
                .front()
                .map_or(0, |(ts_val, _)| *ts_val);
            sent.packets ^ sent.round_trip.warm() ^ u64::from(waiting) ^ sent.fin.count
        };
        of(client) ^ of(server) ^ self.last.0
    }

    /// How it stands.
    pub fn ended(&self) -> Ended {
        if self.sent.iter().all(|sent| sent.fin.count > 0) {
            Ended::Fin
        } else if self.sent.iter().any(|sent| sent.rst.count > 0) {
            Ended::Rst
        } else if self.evicted {
            Ended::Evicted
        } else {
            Ended::Open
        }
    }

    /// From the last SYN of the client to the ACK that established the server: with several SYNs less than the user
    /// waited, as seed 003 notes.
    pub fn setup(&self) -> Option<SignedNanos> {
        Some(self.established? - self.of(Side::Client).syn.last?)
    }

    /// From the first packet to the last.
    pub fn duration(&self) -> SignedNanos {
        self.last - self.first
    }

    /// The end that the capture point is nearer to, by the least round trips; `None` where one of them is unknown.
    pub fn near(&self) -> Option<Side> {
        let to_server = self.least(Side::Client, self.syn_to_synack)?;
        let to_client = self.least(Side::Server, self.synack_to_ack)?;
        Some(if to_client <= to_server {
            Side::Client
        } else {
            Side::Server
        })
    }

    fn least(&self, side: Side, handshake: Option<SignedNanos>) -> Option<SignedNanos> {
        let data = self.of(side).round_trip.min();
        data.into_iter().chain(handshake).min()
    }

    /// Whether a segment with SYN alone begins another connection with the same addresses and ports.
    pub(super) fn is_reused_by(&self, sender: Side, seq: u32) -> bool {
        let sent = self.of(sender);
        let untouched = sent.packets == 0 && self.established.is_none();
        let simultaneous = untouched && self.of(sender.other()).syn.count > 0;
        sent.track.initial != Some(seq) && !simultaneous
    }

    /// Takes one segment of this connection, sent by `sender`.
    #[inline]
    pub(super) fn segment(
        &mut self,
        now: WallTime,
        sender: Side,
        segment: &TcpSegment<'_>,
    ) -> Findings {
        self.last = self.last.max(now);
        let mut findings = Findings::default();
        let reset = segment.has(RST);
        // RFC 7323 §3.2 lets RST carry any timestamps; so nothing is learned from them, nor from its numbers.
        if segment.has(ACK) && !reset {
            self.acknowledgment(now, sender, segment, &mut findings);
        }
        self.count(now, sender, segment);
        if reset {
            return findings;
        }
        let length = segment.sequence_len();
        if length > 0 {
            self.data(now, sender, segment, length, &mut findings);
        } else {
            // Where the capture begins midstream a pure ACK says where its sender stands.
            let sent = &mut self.sent[sender as usize];
            let next = *sent.track.next.get_or_insert(segment.seq);
            // Linux's probe has no byte at all, but the number before the next.
            let probe = next.wrapping_sub(1) == segment.seq && sent.track.quiet();
            sent.keep_alives += u64::from(probe);
        }
        self.sent[sender as usize].track.window = segment.window;
        findings
    }

    /// The ACK's part: round trips of what the other end sent.
    #[inline]
    fn acknowledgment(
        &mut self,
        now: WallTime,
        sender: Side,
        segment: &TcpSegment<'_>,
        findings: &mut Findings,
    ) {
        let [client, server] = &mut self.sent;
        let (own, other) = match sender {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        let echo = segment.timestamps.map(|both| both.ts_ecr);
        self.timestamps |= echo.is_some();
        if segment.payload_len == 0
            && segment.flags & (SYN | FIN) == 0
            && other.track.una == Some(segment.ack)
            && own.track.window == segment.window
            && own.track.next == Some(segment.seq)
            && other.track.outstanding()
        {
            own.duplicate_acks += 1;
            if let Some(interval) = self.intervals.back_mut() {
                interval.sent[sender as usize].duplicate_acks += 1;
            }
        }
        let from_handshake = other.track.una.is_some() && other.track.una == other.track.initial;
        if !other.track.acknowledge(segment.ack) {
            return;
        }
        let answered = |time: WallTime, basis| Sample {
            time: now,
            sender: sender.other(),
            round_trip: now - time,
            basis,
        };
        if from_handshake {
            // The first number acknowledged is that of a SYN or SYN-ACK.
            let begun = other.track.syn_answered(echo);
            let sample = begun.map(|time| answered(time, Basis::Handshake));
            let round_trip = sample.map(|sample| sample.round_trip);
            findings.handshake = sample;
            if segment.has(SYN) {
                self.syn_to_synack = round_trip;
                other.established = Some(now);
            } else {
                self.synack_to_ack = round_trip;
                other.established = Some(now);
                self.established = Some(now);
            }
        }
        if let Some(echo) = echo {
            // Earlier ones were passed over: a receiver's TS.Recent never goes back.
            while let Some(&(ts_val, time)) = other.track.by_ts_val.front() {
                let later = distance(ts_val, echo);
                if later > 0 {
                    break;
                }
                other.track.by_ts_val.pop_front();
                if later == 0 {
                    findings.data = Some(answered(time, Basis::Timestamps));
                    break;
                }
            }
        }
        while let Some(&(end, time)) = other.track.by_sequence.front() {
            let beyond = distance(end, segment.ack);
            if beyond > 0 {
                break;
            }
            other.track.by_sequence.pop_front();
            if beyond == 0 {
                findings.data = Some(answered(time, Basis::Sequence));
            }
        }
        if let Some(sample) = findings.data {
            other.round_trip.record(sample.round_trip);
            if let Some(interval) = self.intervals.back_mut() {
                let value = sample.round_trip;
                let entry = &mut interval.sent[sender.other() as usize].round_trip;
                *entry = Some(match *entry {
                    Some([least, _, most]) => [least.min(value), value, most.max(value)],
                    None => [value; 3],
                });
            }
        }
    }

    /// Counts and times of flags.
    #[inline]
    fn count(&mut self, now: WallTime, sender: Side, segment: &TcpSegment<'_>) {
        let sent = &mut self.sent[sender as usize];
        sent.packets += 1;
        sent.last_packet = Some(now);
        let special = segment.flags & (SYN | FIN | RST);
        if special != 0 {
            if special & SYN != 0 {
                let event = if segment.has(ACK) {
                    &mut sent.syn_ack
                } else {
                    &mut sent.syn
                };
                event.happened(now);
            }
            if special & FIN != 0 {
                sent.fin.happened(now);
            }
            if special & RST != 0 {
                sent.rst.happened(now);
            }
        } else if segment.window == 0 {
            sent.zero_windows += 1;
        }
        if let Some(interval) = self.intervals.back_mut() {
            let counts = &mut interval.sent[sender as usize];
            counts.packets += 1;
            counts.last_packet = Some(now);
            counts.zero_windows += u64::from(special == 0 && segment.window == 0);
        }
    }

    /// The part of a segment that takes sequence space.
    #[inline]
    fn data(
        &mut self,
        now: WallTime,
        sender: Side,
        segment: &TcpSegment<'_>,
        length: u32,
        findings: &mut Findings,
    ) {
        let one_sided = self.of(sender.other()).packets == 0;
        let sent = &mut self.sent[sender as usize];
        let track = &mut sent.track;
        if segment.has(SYN) {
            if track.initial != Some(segment.seq) {
                track.initial = Some(segment.seq);
                track.una = Some(segment.seq);
                track.next = None;
            }
            if track.syns.len() == MAX_SYNS {
                track.syns.remove(0);
            }
            track.syns.reserve_exact(1);
            track
                .syns
                .push((segment.timestamps.map(|both| both.ts_val), now));
        }
        let end = segment.seq.wrapping_add(length);
        // RFC 9293 §3.8.4: a probe repeats one number that is acknowledged already.
        let probe = length == 1
            && !segment.has(FIN)
            && track.quiet()
            && track.next.map(|next| next.wrapping_sub(1)) == Some(segment.seq);
        if probe {
            sent.keep_alives += 1;
            return;
        }
        let repeated = track.send(segment.seq, length);
        let behind = track.next != Some(end) || repeated > 0;
        // What is acknowledged already can advance nothing.
        let useful = track.una.map_or(true, |una| distance(end, una) > 0);
        // The handshake's round trips are kept apart.
        if useful && !segment.has(SYN) {
            let bound = if one_sided {
                MAX_UNMATCHED_ONE_SIDED
            } else {
                MAX_UNMATCHED
            };
            let dropped = match segment.timestamps {
                Some(Timestamps { ts_val, .. }) => track.sighted(ts_val, now, bound),
                None => track.sent_without_timestamps(segment.seq, end, behind, now, bound),
            };
            sent.unmatched_dropped += u64::from(dropped);
        }
        let payload = segment.payload_len;
        if payload > 0 {
            let repeated = repeated.min(payload);
            sent.payload_bytes += u64::from(payload);
            sent.retransmitted_bytes += u64::from(repeated);
            sent.first_data.get_or_insert(now);
            sent.last_data = Some(now);
            findings.payload = payload;
            findings.retransmitted = repeated;
            if let Some(interval) = self.intervals.back_mut() {
                let counts = &mut interval.sent[sender as usize];
                counts.payload_bytes += u64::from(payload);
                counts.retransmitted_bytes += u64::from(repeated);
            }
        }
    }

    /// Opens the interval that `now` lies in, if it is a later one; whether the history grew by it.
    ///
    /// `keep` bounds the history; with 0 the oldest snapshot makes room for the new one.
    #[inline]
    pub(super) fn enter_interval(&mut self, now: WallTime, interval_ns: u64, keep: usize) -> bool {
        if now < self.interval_end {
            return false;
        }
        let start = now.0 - now.0 % interval_ns;
        self.interval_end = WallTime(start.saturating_add(interval_ns));
        let full = self.intervals.len() >= keep && !self.intervals.is_empty();
        if full {
            self.intervals.pop_front();
        }
        self.intervals.push_back(Interval {
            start: WallTime(start),
            sent: Default::default(),
        });
        !full
    }
}

impl Track {
    /// Takes the sighting of `ts_val` on a segment that takes sequence space; whether an older one was dropped for it.
    #[inline]
    fn sighted(&mut self, ts_val: u32, now: WallTime, bound: usize) -> bool {
        if let Some((newest, at)) = self.newest {
            let stale = now.0.saturating_sub(at.0) > TS_VAL_AGE_NS;
            if !stale && distance(ts_val, newest) <= 0 {
                return false;
            }
            if stale {
                self.by_ts_val.clear();
            }
        }
        self.newest = Some((ts_val, now));
        let full = self.by_ts_val.len() >= bound;
        if full {
            self.by_ts_val.pop_front();
        }
        self.by_ts_val.push_back((ts_val, now));
        full
    }

    /// Karn's rule, and more: the ACK of what was sent beyond a hole waits for the hole to be filled, so these tell
    /// nothing either.
    #[inline]
    fn sent_without_timestamps(
        &mut self,
        seq: u32,
        end: u32,
        behind: bool,
        now: WallTime,
        bound: usize,
    ) -> bool {
        if behind {
            while self
                .by_sequence
                .back()
                .is_some_and(|&(end, _)| distance(end, seq) > 0)
            {
                self.by_sequence.pop_back();
            }
            return false;
        }
        let full = self.by_sequence.len() >= bound;
        if full {
            self.by_sequence.pop_front();
        }
        self.by_sequence.push_back((end, now));
        full
    }
}
