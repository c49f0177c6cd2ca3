//! The TCP segments of one connection in; round trips, counts and times of its events out.
//!
//! Read RFC 7323 §4.1 (the RTTM rule), RFC 6298 §3 (Karn's rule) and RFC 5681 §2 (duplicate ACK)
//! first.
//!
//! A direction is named by its sender: what the client sends is [`Side::Client`]'s. Its round trip
//! goes to the *other* end and back. It is the time between a segment and its acknowledgment at the
//! capture point.

use super::application::Application;
use super::encapsulation::Tunnel;
use super::http::Http;
use super::maybe_time::MaybeTime;
use super::packet::{Endpoint, TcpSegment, ACK, FIN, RST, SYN};
use super::sent::{Ended, Findings, Interval, Sample, SampleBasis, Sent};
use super::side::Side;
use super::track::{distance, Sighting};
use crate::time::{SignedNanos, WallTime};
use std::collections::VecDeque;

/// Unmatched TSvals (or ends of segments) kept per direction: what a fast path may have in flight.
const MAX_UNMATCHED: usize = 2048;

/// The same as long as nothing was seen from the other end: a capture of one direction would fill
/// every flow's queue.
const MAX_UNMATCHED_ONE_SIDED: usize = 64;

/// Packets of a connection on another interface than its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlsoSeen {
    /// The number of the interface.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// The number.
    pub packets: u64,
}

/// Those of one connection, apart from its record.
#[derive(Clone, Debug, Default)]
struct Intervals(VecDeque<Interval>);

/// Its packets elsewhere, apart from its record.
#[derive(Clone, Debug, Default)]
struct Elsewhere(Vec<AlsoSeen>);

/// A record as it is handed about: a kilobyte that is not to be copied.
pub type BoxedFlow = Box<Flow>;

/// A connection's record. Its order is that of memory: what most packets need lies together.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Flow {
    /// The client's and the server's direction.
    pub sent: [Sent; 2],
    /// Last packet.
    pub last: WallTime,
    /// `None` where nothing looked like HTTP/1.x.
    pub http: Option<Box<Http>>,
    interval_end: WallTime,
    /// Both ends use RFC 7323 timestamps as far as was seen; else round trips are by sequence
    /// numbers.
    pub timestamps: bool,
    /// Set where it had to make room.
    pub evicted: bool,
    /// Response times of each end.
    pub application: Application,
    /// From the SYN to the SYN-ACK: to the server and back.
    pub syn_to_synack: Option<SignedNanos>,
    /// From the SYN-ACK to the ACK: to the client and back.
    pub synack_to_ack: Option<SignedNanos>,
    /// Completed and current interval snapshots, oldest first; only the latest are kept.
    intervals: Option<Box<Intervals>>,
    /// Rises by one with each flow of a capture.
    pub id: u64,
    /// Client and server.
    pub ends: [Endpoint; 2],
    /// First packet.
    pub first: WallTime,
    /// The tunnel that it is inside of; `None` outside of one.
    pub tunnel: Option<Tunnel>,
    /// The number of the interface that its first packet passed; 0 where it is not known.
    pub interface: u32,
    /// Other interfaces that packets of it passed: these are in no other figure.
    also_seen: Option<Box<Elsewhere>>,
    /// The last SYN before the SYN-ACK.
    asked: MaybeTime,
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
            syn_to_synack: None,
            synack_to_ack: None,
            timestamps: false,
            evicted: false,
            intervals: None,
            http: None,
            tunnel: None,
            interface: 0,
            also_seen: None,
            application: Application::default(),
            interval_end: WallTime(0),
            asked: MaybeTime::default(),
        }
    }

    /// Returns the direction that `side` sends.
    #[inline]
    pub fn of(&self, side: Side) -> &Sent {
        &self.sent[side as usize]
    }

    /// Completed and current interval snapshots, oldest first; only the latest are kept.
    pub fn intervals(&self) -> impl ExactSizeIterator<Item = &Interval> + Clone {
        static NONE: Intervals = Intervals(VecDeque::new());
        self.intervals.as_deref().unwrap_or(&NONE).0.iter()
    }

    /// Other interfaces that packets of it passed: these are in no other figure.
    pub fn also_seen(&self) -> &[AlsoSeen] {
        self.also_seen.as_ref().map_or(&[], |of| &of.0)
    }

    /// The same to be counted.
    pub(super) fn also_seen_mut(&mut self) -> &mut Vec<AlsoSeen> {
        &mut self.also_seen.get_or_insert_with(Box::default).0
    }

    /// Returns `true` if its SYN was seen.
    pub fn begins_with_syn(&self) -> bool {
        self.of(Side::Client).syn().count > 0
    }

    /// The client's initial sequence number, where its SYN was seen.
    pub fn initial_sequence(&self) -> Option<u32> {
        self.of(Side::Client).track.initial
    }

    /// Reads what a segment will need of the record itself, so that it is at hand then; the number
    /// means nothing.
    ///
    /// `sender` is a guess: both ends are looked at by an index, for a branch would wait for the
    /// memory.
    #[inline]
    pub(super) fn warm(&self, sender: usize, has_data: bool) -> u64 {
        let (own, other) = (sender & 1, (sender & 1) ^ 1);
        let sent = self.sent[own].warm(has_data) ^ self.sent[other].warm_for_other();
        sent ^ self.last.0 ^ self.application.warm(own, has_data)
    }

    /// Reads what a segment will need of the memory that the record points to.
    #[inline]
    pub(super) fn warm_further(&self, sender: usize, has_data: bool) -> u64 {
        let (own, other) = (sender & 1, (sender & 1) ^ 1);
        let http = self.http.as_ref().map_or(0, |http| http.warm(has_data));
        let interval = self.intervals.as_ref().and_then(|of| of.0.back());
        let interval = interval.map_or(0, |of| of.sent[own].packets);
        let answers = match has_data {
            true => self.application.warm_further(own),
            false => 0,
        };
        self.sent[other].round_trip.warm() ^ answers ^ http ^ interval
    }

    /// Its state.
    pub fn ended(&self) -> Ended {
        if self.sent.iter().all(|sent| sent.fin.count > 0) {
            Ended::Fin
        } else if self.sent.iter().any(Sent::has_rst) {
            Ended::Rst
        } else if self.evicted {
            Ended::Evicted
        } else {
            Ended::Open
        }
    }

    /// From the last SYN before the SYN-ACK to the ACK that established the server: with several
    /// SYNs less than the user waited. `None` unless all three passed, in this order.
    pub fn setup(&self) -> Option<SignedNanos> {
        Some(self.established()? - self.asked.get()?)
    }

    /// Returns the time at which the ACK that ends the handshake passed; `None` where it was not
    /// seen.
    pub fn established(&self) -> Option<WallTime> {
        self.of(Side::Server).established.get()
    }

    /// From the first packet to the last.
    pub fn duration(&self) -> SignedNanos {
        self.last - self.first
    }

    /// The end that the capture point is nearer to, by the least round trips; `None` where one of
    /// them is unknown.
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

    /// Returns `true` if a segment begins another connection with the same addresses and ports.
    ///
    /// A closed connection's late packets belong to it for as long as their numbers fit.
    #[inline]
    pub(super) fn is_reused_by(
        &self,
        sender: Side,
        segment: &TcpSegment<'_>,
        closed: bool,
    ) -> bool {
        let special = segment.flags & (SYN | ACK);
        if special & SYN == 0 && !closed {
            return false;
        }
        let (own, other) = (self.of(sender), self.of(sender.other()));
        let same = own.track.initial == Some(segment.seq) || own.track.begins_at(segment.seq);
        if special == SYN {
            let untouched = own.packets == 0 && self.established().is_none();
            let simultaneous = untouched && other.syn().count > 0;
            return !same && !simultaneous;
        }
        if !closed || same || segment.has(RST) {
            return false;
        }
        if special & SYN != 0 && own.track.initial.is_some() {
            return true;
        }
        let end = segment.seq.wrapping_add(segment.sequence_len());
        let fits = own.track.fits(segment.seq, end);
        !(fits && (special & ACK == 0 || other.track.fits(segment.ack, segment.ack)))
    }

    /// Gives back the memory of a closed connection's open ends.
    pub(super) fn shrink(&mut self) {
        for sent in &mut self.sent {
            sent.track.shrink();
        }
        if let Some(http) = &mut self.http {
            http.exchanges.shrink_to_fit();
        }
    }

    /// Makes the distributions of a complete record ready to be read.
    pub(super) fn settle(&mut self) {
        for sent in &mut self.sent {
            sent.round_trip.settle();
        }
        self.application.settle();
        if let Some(http) = &mut self.http {
            http.first_byte.settle();
        }
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
        // RFC 7323 §3.2 lets RST carry any timestamps; so nothing is learned from them, nor from
        // its numbers.
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
            let sent = &mut self.sent[sender as usize];
            // Behind a FIN it is an ACK that was overtaken.
            if sent.track.empty(segment.seq) && sent.fin.count == 0 {
                sent.rare_mut().keep_alives += 1;
            }
        }
        let track = &mut self.sent[sender as usize].track;
        track.unstamped = segment.timestamps.is_none();
        track.window = segment.window;
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
            own.rare_mut().duplicate_acks += 1;
            if let Some(interval) = latest(&mut self.intervals) {
                interval.sent[sender as usize].duplicate_acks += 1;
            }
        }
        let from_handshake = other.track.una.is_some() && other.track.una == other.track.initial;
        let Some(acknowledged) = other.track.acknowledge(segment.ack, echo) else {
            return;
        };
        if acknowledged.keep_alives > 0 {
            other.rare_mut().keep_alives += u64::from(acknowledged.keep_alives);
        }
        let answered = |time: WallTime, basis| Sample {
            time: now,
            sender: sender.other(),
            round_trip: now - time,
            basis,
        };
        if from_handshake {
            // The first number acknowledged is that of a SYN or SYN-ACK.
            let of_syn = segment.has(SYN) && sender == Side::Server;
            // A later segment of the client than its first shows that the one that answered the
            // SYN-ACK is not in the capture.
            let first = other.track.initial.map(|initial| initial.wrapping_add(1));
            let in_order = own.track.una.or(own.track.next) == Some(segment.seq)
                || own.track.next.map_or(true, |next| next == segment.seq);
            let of_syn_ack = sender == Side::Client
                && !segment.has(SYN)
                && first == Some(segment.ack)
                && in_order;
            if of_syn || of_syn_ack {
                let begun = other.track.syn_answered(echo);
                let sample = begun.map(|time| answered(time, SampleBasis::Handshake));
                let round_trip = sample.map(|sample| sample.round_trip);
                findings.handshake = sample;
                other.established = now.into();
                other.track.forget_syns();
                if of_syn {
                    self.syn_to_synack = round_trip;
                    self.asked = other
                        .syn()
                        .last()
                        .map_or_else(MaybeTime::default, MaybeTime::from);
                } else {
                    self.synack_to_ack = round_trip;
                }
            }
        }
        findings.data = acknowledged
            .answered
            .map(|(time, basis)| answered(time, basis));
        if let Some(sample) = findings.data {
            other.round_trip.record(sample.round_trip);
            if let Some(interval) = latest(&mut self.intervals) {
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
        sent.last_packet = now.into();
        let special = segment.flags & (SYN | FIN | RST);
        if special != 0 {
            if special & SYN != 0 {
                sent.opened(now, segment.has(ACK));
            }
            if special & FIN != 0 {
                sent.fin.happened(now);
            }
            if special & RST != 0 {
                sent.rare_mut().rst.happened(now);
            }
        } else if segment.window == 0 {
            sent.rare_mut().zero_windows += 1;
        }
        if let Some(interval) = latest(&mut self.intervals) {
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
        let (heard, echoes) = {
            let other = self.of(sender.other());
            (other.last_packet.get(), !other.track.unstamped)
        };
        let sent = &mut self.sent[sender as usize];
        let track = &mut sent.track;
        let ts_val = segment.timestamps.map(|both| both.ts_val);
        if segment.has(SYN) {
            track.synchronize(segment.seq, segment.timestamps, now);
        }
        let end = segment.seq.wrapping_add(length);
        // RFC 9293 §3.8.4: a probe repeats one number that is acknowledged already.
        let probe = length == 1
            && segment.flags & (SYN | FIN) == 0
            && track.begin(segment.seq).wrapping_sub(1) == segment.seq
            && track.quiet();
        if probe {
            sent.rare_mut().keep_alives += 1;
            return;
        }
        let passed = track.send(segment.seq, length);
        // What is acknowledged already can advance nothing.
        let useful = track.una.map_or(true, |una| distance(end, una) > 0);
        let ts_val = ts_val.filter(|_| echoes);
        // The handshake's round trips are kept apart.
        if useful && !segment.has(SYN) {
            let sighting = Sighting {
                time: now,
                ts_val,
                seq: segment.seq,
                end,
                heard,
                bound: match heard {
                    None => MAX_UNMATCHED_ONE_SIDED,
                    Some(_) => MAX_UNMATCHED,
                },
            };
            if track.wait(&sighting, passed) {
                sent.rare_mut().unmatched_dropped += 1;
            }
        } else if let (Some(ts_val), false) = (ts_val, segment.has(SYN)) {
            track.take_unneeded(ts_val, now);
        }
        let payload = segment.payload_len;
        if payload > 0 {
            let repeated = passed.repeated.min(payload);
            sent.payload_bytes += u64::from(payload);
            if repeated > 0 {
                sent.rare_mut().retransmitted_bytes += u64::from(repeated);
            }
            if !sent.first_data.is_some() {
                sent.first_data = now.into();
            }
            sent.last_data = now.into();
            findings.payload = payload;
            findings.retransmitted = repeated;
            if let Some(interval) = latest(&mut self.intervals) {
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
        let intervals = &mut self.intervals.get_or_insert_with(Box::default).0;
        let full = intervals.len() >= keep && !intervals.is_empty();
        if full {
            intervals.pop_front();
        }
        intervals.push_back(Interval {
            start: WallTime(start),
            sent: Default::default(),
        });
        !full
    }
}

/// Returns the current interval.
#[inline]
fn latest(intervals: &mut Option<Box<Intervals>>) -> Option<&mut Interval> {
    intervals.as_mut()?.0.back_mut()
}

/// A record takes 16 lines of the cache: with a hundred thousand connections each one is 6 MB.
const _: () = assert!(size_of::<Flow>() <= 1024);
