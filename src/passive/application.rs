//! Payload of both directions in; how long each end took to answer the other, and the
//! handshake of TLS, out.
//!
//! A turn begins with the first data of one end that acknowledges all data of the other. The first
//! data back that acknowledges it answers it. Turns that cross, repeat data or have bytes missing
//! are left out, for their times would not be those of an end. Handshakes of TLS are no turns.

use super::budget::Budget;
use super::flow::Flow;
use super::http::{self, Http};
use super::message::Opening;
use super::packet::{TcpSegment, ACK, RST, SYN};
use super::reassembly::{distance, MAX_HELD, MAX_HELD_IN_ALL};
use super::sent::{Findings, Sent};
use super::side::Side;
use super::tickets::{Part, Tickets};
use super::tls::{self, Handshake, Reader, Records, APPLICATION_DATA, TLS_1_3};
use crate::measure::Counts;
use crate::time::{SignedNanos, WallTime};

/// The bytes of a packet with an alert of TLS 1.3, or with two bytes of data.
const ALERT_PACKET: u32 = 5 + 2 + 1 + 16;

/// Lengths of a record with the client's Finished of TLS 1.3, by the hash of the cipher.
const FINISHED: [usize; 2] = [4 + 32 + 1 + 16, 4 + 48 + 1 + 16];

/// One answer of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSample {
    /// The time at which its first data passed.
    pub time: WallTime,
    /// The end that answered.
    pub side: Side,
    /// Since the first data of the other end passed.
    pub response: SignedNanos,
    /// The same less the least round trip to this end so far: the end's own time. `None` if that is
    /// not known.
    pub own: Option<SignedNanos>,
}

/// A turn that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Turn {
    side: Side,
    time: WallTime,
    /// Its first byte.
    seq: u32,
    /// The other end's bytes up to here had arrived.
    ack: u32,
    /// Bytes before its latest data that have not passed yet.
    gap: Option<(u32, u32)>,
    /// Set if its answer is not measured.
    void: bool,
    /// The answer that it is itself, which counts once the gap is filled.
    answer: Option<SignedNanos>,
}

/// The application's side of a connection. Its order is that of memory: what most packets need
/// lies together.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Application {
    tls: Option<Box<Reader>>,
    /// Set from an end's SYN to its first data.
    fresh: [bool; 2],
    /// Set if the round trip of what each end sent was closed by the other's kernel alone.
    network_seen: [bool; 2],
    /// Set once the server sent data of the application inside of TLS.
    settled: bool,
    /// Set if the connection carries something that looks like HTTP and is not.
    foreign: bool,
    /// One past the highest number that each end sent.
    next: [Option<u32>; 2],
    turn: Option<Turn>,
    /// The server's records after the handshake of TLS 1.3, until its first response.
    tickets: Option<Box<Tickets>>,
    /// The part of the budget that its bytes take.
    held: usize,
    answers: [Counts; 2],
}

impl Application {
    /// Returns the times in which this end answered, as seen at the capture point.
    pub fn answers(&self, side: Side) -> Option<&Counts> {
        Some(&self.answers[side as usize]).filter(|answers| answers.count() > 0)
    }

    /// Returns what the handshake of TLS shows; `None` without one.
    pub fn tls(&self) -> Option<&Handshake> {
        let found = self.tls.as_ref().map(|reader| &reader.found);
        found.filter(|found| found.client_hello.is_some() || found.server_hello.is_some())
    }

    /// Reads what an answer will need, so that it is at hand then; the number means nothing.
    #[inline]
    pub(super) fn warm(&self, sender: usize, has_data: bool) -> u64 {
        let count = |side: usize| self.answers[side].count();
        let answers = if has_data {
            count(0) ^ count(sender)
        } else {
            0
        };
        answers ^ u64::from(self.turn.is_some())
    }

    /// Reads what an answer will need of the memory that this points to.
    #[inline]
    pub(super) fn warm_further(&self, sender: usize) -> u64 {
        self.answers[sender].warm()
    }

    /// Makes the distributions ready to be read.
    pub(super) fn settle(&mut self) {
        self.answers.iter_mut().for_each(Counts::settle);
    }

    /// Returns the bytes of memory that its bounds are about.
    fn memory(&self) -> usize {
        self.tls.as_ref().map_or(0, |reader| reader.memory())
    }

    /// Follows whose turn it is. Returns when an answer of this end began, and after how long.
    #[inline]
    fn turn(
        &mut self,
        now: WallTime,
        side: Side,
        segment: &TcpSegment<'_>,
        network: impl Fn() -> Option<SignedNanos>,
    ) -> Option<(WallTime, SignedNanos)> {
        let seq = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        let end = seq.wrapping_add(segment.payload_len);
        let known = self.next[side as usize];
        let expected = known.unwrap_or(seq);
        let others = self.next[side.other() as usize];
        let gap = match distance(seq, expected) {
            ..=0 => None,
            _ => Some((expected, seq)),
        };
        // Data of the other end that the capture does not have.
        let missed = others.is_some_and(|others| distance(segment.ack, others) > 0);
        let fresh = Turn {
            side,
            time: now,
            seq: expected,
            ack: segment.ack,
            gap,
            void: known.is_none() || others.is_none() || (!missed && others != Some(segment.ack)),
            answer: None,
        };
        if missed {
            self.next[side.other() as usize] = Some(segment.ack);
        }
        let Some(turn) = &mut self.turn else {
            // A copy of data of the handshake begins none.
            self.turn = (distance(end, expected) > 0).then_some(fresh);
            return None;
        };
        if turn.side == side && missed {
            self.turn = Some(fresh);
            return None;
        }
        if turn.side == side {
            match &mut turn.gap {
                Some((from, to)) if *from == seq => {
                    *from = if distance(end, *to) < 0 { end } else { *to };
                    if from == to {
                        turn.gap = None;
                        return turn.answer.take().map(|answer| (turn.time, answer));
                    }
                }
                _ if distance(seq, expected) < 0 => {
                    // Sooner than a round trip it is the capture that has it twice.
                    let trip = network().unwrap_or(SignedNanos::from_millis(1));
                    turn.void |= now - turn.time >= trip;
                }
                Some(_) => {}
                none => *none = gap,
            }
            return None;
        }
        if distance(end, expected) <= 0 {
            return None;
        }
        if distance(segment.ack, turn.seq) <= 0 {
            turn.void |= distance(seq, turn.ack) >= 0;
            return None;
        }
        let whole = !turn.void && turn.gap.is_none() && !missed && distance(seq, expected) >= 0;
        let answer = whole.then(|| now - turn.time);
        self.turn = Some(Turn {
            answer: answer.filter(|_| gap.is_some()),
            ..fresh
        });
        answer.filter(|_| gap.is_none()).map(|answer| (now, answer))
    }

    /// Returns the part that this data of a connection has in its turns.
    fn part(&mut self, side: Side, segment: &TcpSegment<'_>) -> Part {
        let Some(reader) = &self.tls else {
            return Part::Data;
        };
        if !reader.over {
            return Part::None;
        }
        let payload = segment.payload;
        let turn = self.turn.filter(|turn| turn.side == Side::Client);
        let continues = self.turn.is_some_and(|turn| turn.side == side);
        let others = self.next[side.other() as usize];
        let expected = self.next[side as usize];
        let mut records = Records { rest: payload };
        let follows = self.tickets.as_ref().is_some_and(|of| of.left > 0);
        let known = continues || payload.is_empty() || (follows && side == Side::Server);
        if !known && !records.any(|(kind, _)| kind == APPLICATION_DATA) {
            // The rest of a record may pass before its beginning.
            let ahead = expected.is_some_and(|next| distance(segment.seq, next) > 0);
            return match ahead && !tls::begins_record(payload) {
                true if self.settled => Part::Data,
                true => Part::Unclear,
                false => Part::None,
            };
        }
        let before_1_3 = reader
            .found
            .version
            .is_some_and(|version| version < TLS_1_3);
        if !continues && segment.payload_len == ALERT_PACKET && !before_1_3 {
            return match side {
                Side::Client => Part::None,
                Side::Server => Part::Unclear,
            };
        }
        let Some(tickets) = &mut self.tickets else {
            self.settled |= side == Side::Server;
            return Part::Data;
        };
        match side {
            Side::Client => {
                let mut records = Records { rest: payload };
                tickets.spoken |= records.any(|(kind, _)| kind == APPLICATION_DATA);
                let missed = others.map_or(true, |next| distance(segment.ack, next) > 0);
                match tickets.is_unclear || missed || (continues && tickets.covered) {
                    true => Part::Unclear,
                    false => Part::Data,
                }
            }
            Side::Server if expected.is_some_and(|next| distance(segment.seq, next) < 0) => {
                Part::Data
            }
            Side::Server => {
                let early = turn.map_or(true, |turn| distance(segment.ack, turn.seq) <= 0);
                let found = match expected == Some(segment.seq) {
                    true => tickets.packet(payload, segment.payload_len, early),
                    false => Part::Unclear,
                };
                if found != Part::None {
                    // The rest of the server's flight may pass where its beginning was cut off.
                    let is_flight = tickets.is_unclear && !tickets.spoken;
                    let again = || Box::new(Tickets::new(tickets.from, true));
                    self.tickets = is_flight.then(again);
                }
                found
            }
        }
    }

    /// Follows the turns, if it is known what the data is.
    #[inline]
    fn take(
        &mut self,
        now: WallTime,
        side: Side,
        segment: &TcpSegment<'_>,
        network: impl Fn() -> Option<SignedNanos>,
    ) -> Option<(WallTime, SignedNanos)> {
        let part = match self.tls {
            Some(_) => self.part(side, segment),
            None => Part::Data,
        };
        let begins = self.turn.map_or(true, |turn| turn.side != side);
        match part {
            Part::None => None,
            Part::Data => {
                let answer = self.turn(now, side, segment, network);
                let crosses = self
                    .tickets
                    .as_ref()
                    .filter(|_| side == Side::Client && begins);
                let from = crosses.and_then(|tickets| tickets.from);
                if let (Some(from), Some(turn)) = (from, &mut self.turn) {
                    // Tickets may cross the request.
                    turn.void &= distance(segment.ack, from) < 0;
                }
                answer
            }
            Part::Unclear => {
                self.turn.iter_mut().for_each(|turn| turn.void = true);
                self.turn(now, side, segment, network);
                self.turn.iter_mut().for_each(|turn| turn.void = true);
                None
            }
        }
    }
}

/// Returns the least round trip of what an end `sent`, with that of its handshake.
#[inline]
fn least(sent: &Sent, handshake: Option<SignedNanos>) -> Option<SignedNanos> {
    sent.round_trip.min().into_iter().chain(handshake).min()
}

impl Flow {
    /// Returns the least round trip from the capture point to this end and back; `None` if none is
    /// known.
    pub fn network(&self, towards: Side) -> Option<SignedNanos> {
        let handshake = match towards {
            Side::Server => self.syn_to_synack,
            Side::Client => self.synack_to_ack,
        };
        least(self.of(towards.other()), handshake)
    }

    /// Returns the own time of an end that answered after `response`: less the least round trip to
    /// it. `None` if every round trip ended with data, for these may hold the time of the
    /// application.
    pub fn own_time(&self, side: Side, response: SignedNanos) -> Option<SignedNanos> {
        let seen = self.application.network_seen[side.other() as usize];
        let network = self.network(side).filter(|_| seen)?;
        Some((response - network).max(SignedNanos::ZERO))
    }

    /// Takes a segment of `sender`, whose `findings` are known, for the application's side.
    #[inline]
    pub(super) fn read_payload(
        &mut self,
        now: WallTime,
        sender: Side,
        segment: &TcpSegment<'_>,
        findings: &mut Findings,
        budget: &mut Budget,
    ) {
        let app = &mut self.application;
        if segment.payload_len == 0 {
            let trips = [findings.data, findings.handshake];
            for trip in trips.into_iter().flatten() {
                app.network_seen[trip.sender as usize] = true;
            }
        }
        let reads_tls = app.tls.as_ref().is_some_and(|reader| !reader.over);
        let reads = reads_tls || self.http.is_some();
        if (segment.sequence_len() == 0 && !reads) || segment.has(RST) {
            return;
        }
        let has_data = findings.payload > 0 && segment.has(ACK) || segment.has(SYN);
        if has_data && segment.payload_len > 0 {
            let other = sender.other();
            let network = || {
                let handshake = [self.synack_to_ack, self.syn_to_synack][other as usize];
                least(&self.sent[sender as usize], handshake)
            };
            let app = &mut self.application;
            if let Some((time, response)) = app.take(now, sender, segment, network) {
                app.answers[sender as usize].record(response);
                let own = self.own_time(sender, response);
                findings.answer = Some(ResponseSample {
                    time,
                    side: sender,
                    response,
                    own,
                });
            }
        }
        if reads || has_data {
            self.read_protocol(now, sender, segment, budget);
        }
        let app = &mut self.application;
        let end = segment.seq.wrapping_add(segment.sequence_len());
        let next = &mut app.next[sender as usize];
        let takes = segment.has(SYN) || next.map_or(true, |next| distance(end, next) > 0);
        if segment.sequence_len() > 0 && takes {
            *next = Some(end);
        }
        let other = sender.other() as usize;
        if segment.has(SYN) && segment.has(ACK) && app.next[other].is_none() {
            // The SYN was not captured.
            app.next[other] = Some(segment.ack);
            app.fresh[other] = true;
        }
        if segment.has(SYN) {
            app.fresh[sender as usize] = segment.payload_len == 0;
        } else if segment.payload_len > 0 {
            app.fresh[sender as usize] = false;
        }
    }

    /// Reads HTTP and TLS, and looks for them.
    fn read_protocol(
        &mut self,
        now: WallTime,
        sender: Side,
        segment: &TcpSegment<'_>,
        budget: &mut Budget,
    ) {
        let app = &mut self.application;
        let is_over = app.tls.as_ref().is_some_and(|reader| reader.over);
        let is_idle = self.http.is_none() && app.tls.is_none();
        if is_over || (is_idle && (segment.payload_len == 0 || app.foreign)) {
            return;
        }
        let tunnel = self.http.as_ref().map_or(true, |http| http.is_tunnel());
        if segment.payload_len > 0 && app.tls.is_none() && tunnel && !app.foreign {
            self.look(sender, segment, budget);
        } else if let Some(http) = &mut self.http {
            // Data that passed before the first bytes of the client waited for these.
            if let Some(reader) = Reader::instead_of(http, sender, segment) {
                app.tls = Some(Box::new(reader));
                self.http = None;
            }
        }
        let app = &mut self.application;
        if is_idle && self.http.is_none() && app.tls.is_none() {
            return;
        }
        if let Some(reader) = app.tls.as_mut().filter(|reader| !reader.over) {
            reader.segment(now, sender, segment);
            let (over, version) = (reader.over, reader.found.version);
            if reader.refuted {
                // The first bytes were those of something else.
                app.tls = None;
                app.foreign = true;
            } else if over {
                app.turn = None;
                if version.map_or(true, |version| version >= TLS_1_3) {
                    self.data_beside_finished(now, sender, segment);
                }
            }
        } else if let Some(http) = &mut self.http {
            if http.is_passed_by(sender, segment) {
                return;
            }
            let kept = http.kept();
            http.segment(now, sender, segment, budget.room_for_exchanges());
            if http.is_refuted() {
                budget.history = budget.history.saturating_sub(kept);
                self.http = None;
                app.foreign = true;
            } else {
                budget.history += http.kept() - kept;
                budget.take_stamps(http);
            }
        }
        self.account(budget);
        if budget.held > MAX_HELD_IN_ALL {
            self.relieve(budget);
        }
    }

    /// Brings the budget up to the bytes that are held now.
    #[inline]
    fn account(&mut self, budget: &mut Budget) {
        let app = &mut self.application;
        let after = app.memory() + self.http.as_ref().map_or(0, |http| http.memory());
        let before = std::mem::replace(&mut app.held, after);
        budget.held = (budget.held + after).saturating_sub(before);
    }

    /// Takes the packet that ends the handshake of TLS 1.3, in which the client's first data may
    /// stand behind its Finished.
    fn data_beside_finished(&mut self, now: WallTime, sender: Side, segment: &TcpSegment<'_>) {
        let app = &mut self.application;
        let records = Records {
            rest: segment.payload,
        };
        let mut data = records.filter(|(kind, _)| *kind == APPLICATION_DATA);
        // A certificate of the client, or the end of early data, precedes its Finished.
        let finished = data
            .next()
            .is_some_and(|(_, length)| FINISHED.contains(&length));
        let is_unclear = sender == Side::Server || !finished;
        app.tickets = Some(Box::new(Tickets::new(
            app.next[Side::Server as usize],
            is_unclear,
        )));
        if sender == Side::Client && data.next().is_some() {
            app.turn(now, sender, segment, || None);
            if is_unclear {
                app.turn.iter_mut().for_each(|turn| turn.void = true);
            }
        }
    }

    /// Looks whether the payload begins something that can be read.
    #[inline]
    fn look(&mut self, sender: Side, segment: &TcpSegment<'_>, budget: &Budget) {
        let app = &mut self.application;
        let seq = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        let opening = http::opening(sender, segment.payload);
        let begins = opening != Opening::Other || tls::begins_hello(sender, segment.payload);
        if !begins && (sender == Side::Server || app.next[sender as usize] == Some(seq)) {
            return;
        }
        let own = app.next[sender as usize].filter(|_| app.fresh[sender as usize]);
        if app.next[sender as usize].is_some_and(|next| distance(next, seq) > 0) {
            // What follows it has passed before, so its times are not all known.
            return;
        }
        let first = own.unwrap_or(seq);
        // Where the first segment is late its data decides.
        let ahead = distance(seq, first);
        let late = ahead > 0 && ahead as usize <= MAX_HELD && sender == Side::Client;
        let other = sender.other() as usize;
        let others = app.next[other].filter(|_| app.fresh[other]);
        let others = others.or(segment.has(ACK).then_some(segment.ack));
        let mut next = [Some(first), others];
        if sender == Side::Server {
            next.reverse();
        }
        match opening {
            _ if late => {}
            Opening::Foreign => app.foreign = true,
            Opening::Http | Opening::Open => {}
            Opening::Other if begins => {
                app.tls = Some(Box::new(Reader::new(next, sender)));
                return;
            }
            Opening::Other => return,
        }
        if self.http.is_none() && !app.foreign {
            let origin = next[0].filter(|_| own.is_some() && sender == Side::Client);
            let origin = origin.or(next[0].filter(|_| segment.has(SYN)));
            self.http = Some(Box::new(Http::new(
                next,
                origin,
                budget.targets,
                budget.names.clone(),
            )));
        }
    }

    /// Lets go of what waits.
    fn relieve(&mut self, budget: &mut Budget) {
        let app = &mut self.application;
        if let Some(reader) = app.tls.as_mut().filter(|reader| !reader.over) {
            reader.give_up();
        }
        if let Some(http) = &mut self.http {
            let kept = http.kept();
            http.relieve(budget.room_for_exchanges());
            budget.history += http.kept() - kept;
            budget.take_stamps(http);
        }
        self.account(budget);
    }

    /// Takes the end of the record.
    pub(super) fn finish_payload(&mut self, reset: bool, budget: &mut Budget) {
        let app = &mut self.application;
        budget.held = budget.held.saturating_sub(std::mem::take(&mut app.held));
        if let Some(reader) = app.tls.as_mut().filter(|reader| !reader.over) {
            reader.give_up();
        }
        if let Some(http) = &mut self.http {
            budget.history = budget.history.saturating_sub(http.kept());
            match http.finish(reset, budget.room_for_exchanges()) {
                true => budget.take_stamps(http),
                false => self.http = None,
            }
        }
    }
}
