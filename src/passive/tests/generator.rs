//! Connections made by chance, whose truth is known. Two ends send, lose, repeat, reorder and
//! acknowledge; a capture point between them sees some of it.
//!
//! Some captures have no answer at all, and are not made. If a packet reached the other end unseen
//! and a copy of it is seen, nothing shows which of the two an acknowledgment answers. So the first
//! of them is always captured.

use super::build::*;
use crate::passive::*;
use crate::time::WallTime;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const SEGMENT: u32 = 200;
const IN_FLIGHT: u32 = 10 * SEGMENT;

/// A packet that an end sent, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub from: usize,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub length: u32,
    pub timestamps: Option<(u32, u32)>,
    pub sent: u64,
    /// When it passed the capture point; `None` where it was lost before.
    pub passed: Option<u64>,
    /// When it reached the other end; `None` where it was lost.
    pub arrived: Option<u64>,
    /// Its end has something of it sent before.
    pub repeats: bool,
    /// It waited at the other end for a hole to be filled by a repeat.
    pub waited: bool,
    /// A probe or a copy made by the network: no payload of the connection.
    pub probe: bool,
    pub captured: bool,
}

impl Sent {
    pub(super) fn end(&self) -> u32 {
        let special = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(self.length + special)
    }

    pub(super) fn takes_space(&self) -> bool {
        self.end() != self.seq
    }

    /// Both have some sequence number.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let from = other.seq.wrapping_sub(self.seq) as i32;
        let to = other.end().wrapping_sub(self.seq) as i32;
        from < self.end().wrapping_sub(self.seq) as i32 && to > 0
    }
}

/// The events that may happen in a case.
#[derive(Clone, Debug, Default)]
pub(super) struct Mix {
    /// Out of 1000 packets: lost on a leg, late on a leg, copied, not captured.
    pub lost: usize,
    pub late: usize,
    pub copied: usize,
    pub missing: usize,
    pub stamps: bool,
    /// One end or both leave out their timestamps from this time on.
    pub stamps_stop: [u64; 2],
    pub tick: u64,
    pub legs: [u64; 2],
    pub jitter: u64,
    pub delayed_ack: u64,
    pub timeout: u64,
    pub snap: usize,
    pub probes: usize,
    pub probe_length: u32,
    pub reused: bool,
    pub syn_behind: bool,
    pub midstream: bool,
    pub late_end: usize,
    pub v6: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(usize),
    Timeout(usize, u64),
    DelayedAck(usize, u64),
    Write(usize, u32),
    Close(usize),
}

/// One end.
#[derive(Debug, Default)]
struct End {
    initial: u32,
    una: u32,
    next: u32,
    limit: u32,
    highest: u32,
    closing: bool,
    fin: Option<u32>,
    expected: u32,
    early: Vec<usize>,
    recent: u32,
    last_ack: u32,
    owed: u32,
    generation: u64,
    timer: u64,
    tries: u32,
    repeated_acks: u32,
    established: bool,
    clock: u32,
}

/// A connection, packet by packet.
pub(super) struct Case {
    pub mix: Mix,
    pub packets: Vec<Sent>,
    /// Time and packet of each record of the file, in its order.
    pub file: Vec<(u64, usize)>,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    ends: [End; 2],
    now: u64,
    turns: usize,
    events: u64,
    /// When the latest packet passed each end's legs.
    last: [[u64; 2]; 2],
}

fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Case {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut pick = |values: &[u64]| values[random.below(values.len())];
        let never = u64::MAX;
        let stamps = pick(&[0, 1, 1]) == 1;
        let stop = pick(&[never, never, never, 150 * MS, 400 * MS]);
        let one = pick(&[0, 1, 2]);
        let clean = pick(&[0, 0, 0, 1]) == 1;
        let mix = Mix {
            lost: if clean {
                0
            } else {
                pick(&[0, 0, 10, 50, 150]) as usize
            },
            late: if clean {
                0
            } else {
                pick(&[0, 0, 20, 150]) as usize
            },
            copied: if clean {
                0
            } else {
                pick(&[0, 0, 0, 30, 1000]) as usize
            },
            missing: if clean {
                0
            } else {
                pick(&[0, 0, 10, 100, 300]) as usize
            },
            stamps,
            stamps_stop: [
                if one == 1 { never } else { stop },
                if one == 0 { never } else { stop },
            ],
            tick: pick(&[1, 1, 4, 10, 100, 1000]) * MS,
            legs: [
                pick(&[MS / 20, MS, 30 * MS]),
                pick(&[MS / 20, 10 * MS, 45 * MS]),
            ],
            jitter: pick(&[0, MS / 100, MS / 2]),
            delayed_ack: pick(&[0, 5, 40]) * MS,
            timeout: pick(&[60, 200, 300]) * MS,
            snap: pick(&[65_535, 65_535, 65_535, 96, 66, 60, 54]) as usize,
            probes: pick(&[0, 0, 0, 0, 3]) as usize,
            probe_length: pick(&[0, 1]) as u32,
            reused: pick(&[0, 0, 0, 1]) == 1,
            syn_behind: pick(&[0, 0, 0, 0, 1]) == 1,
            midstream: pick(&[0, 0, 0, 1]) == 1,
            late_end: pick(&[0, 1, 2, 3, 4]) as usize,
            v6: pick(&[0, 1]) == 1,
        };
        let mut numbers = [0; 4].map(|_| random.next() as u32);
        if seed % 3 == 0 {
            numbers = numbers.map(|number| 0_u32.wrapping_sub(number % 3000));
        }
        let ends = [0, 1].map(|side| End {
            initial: numbers[side],
            una: numbers[side],
            next: numbers[side],
            limit: numbers[side],
            highest: numbers[side],
            clock: numbers[side + 2],
            ..End::default()
        });
        let turns = 1 + random.below(5);
        let mut case = Self {
            mix,
            packets: Vec::new(),
            file: Vec::new(),
            random,
            queue: BinaryHeap::new(),
            ends,
            now: 0,
            turns,
            events: 0,
            last: [[0; 2]; 2],
        };
        case.run();
        case.finish();
        case
    }

    fn chance(&mut self, of_1000: usize) -> bool {
        self.random.below(1000) < of_1000
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((time, self.events, event)));
    }

    fn run(&mut self) {
        self.transmit(0, SYN, self.ends[0].initial, 0);
        self.arm(0);
        while let Some(Reverse((time, _, event))) = self.queue.pop() {
            if time > 30 * SECOND || self.packets.len() > 400 {
                break;
            }
            self.now = time;
            match event {
                Event::Arrive(at) => self.arrive(at),
                Event::Timeout(side, timer) if self.ends[side].timer == timer => self.timeout(side),
                Event::DelayedAck(side, of) if self.ends[side].generation == of => self.ack(side),
                Event::Write(side, bytes) => {
                    let end = &mut self.ends[side];
                    end.limit = end.limit.wrapping_add(bytes);
                    self.push(side);
                }
                Event::Close(side) => {
                    self.ends[side].closing = true;
                    self.push(side);
                }
                Event::Timeout(..) | Event::DelayedAck(..) => {}
            }
        }
    }

    /// Sends a packet on its two legs.
    fn transmit(&mut self, from: usize, flags: u8, seq: u32, length: u32) {
        let end = &mut self.ends[from];
        let ts_val = end.clock.wrapping_add((self.now / self.mix.tick) as u32);
        let stamped = self.mix.stamps && self.now < self.mix.stamps_stop[from];
        let echo = if flags & ACK != 0 { end.recent } else { 0 };
        let ack = if flags & ACK != 0 { end.expected } else { 0 };
        if flags & ACK != 0 {
            end.last_ack = ack;
            end.owed = 0;
            end.generation += 1;
        }
        let mut packet = Sent {
            from,
            flags,
            seq,
            ack,
            length,
            timestamps: stamped.then_some((ts_val, echo)),
            sent: self.now,
            passed: None,
            arrived: None,
            repeats: false,
            waited: false,
            probe: false,
            captured: false,
        };
        let end = &mut self.ends[from];
        packet.repeats = packet.takes_space() && ahead(packet.seq, end.highest) < 0;
        if ahead(packet.end(), end.highest) > 0 {
            end.highest = packet.end();
        }
        let mut time = self.now;
        for leg in 0..2 {
            if self.chance(self.mix.lost) {
                break;
            }
            let jitter = self.random.below(self.mix.jitter as usize + 1) as u64;
            let late = if self.chance(self.mix.late) {
                self.random.below(4 * MS as usize) as u64
            } else {
                0
            };
            time += self.mix.legs[leg ^ from] + jitter;
            // A leg keeps the order, but for what is late on it.
            let last = &mut self.last[from][leg];
            time = time.max(*last + 1000);
            *last = time;
            time += late;
            if leg == 0 {
                packet.passed = Some(time);
            } else {
                packet.arrived = Some(time);
            }
        }
        let at = self.packets.len();
        if let Some(time) = packet.arrived {
            self.at(time, Event::Arrive(at));
        }
        self.packets.push(packet);
    }

    fn arm(&mut self, side: usize) {
        let end = &mut self.ends[side];
        end.timer += 1;
        if ahead(end.highest, end.una) <= 0 || end.tries > 6 {
            return;
        }
        let first = if end.established {
            self.mix.timeout
        } else {
            SECOND
        };
        let event = Event::Timeout(side, end.timer);
        let time = self.now + (first << end.tries);
        self.at(time, event);
    }

    fn timeout(&mut self, side: usize) {
        self.ends[side].tries += 1;
        let latest = self
            .packets
            .iter()
            .rev()
            .find(|of| of.from == side && of.repeats);
        if latest.map_or(true, |of| self.now - of.sent >= 8 * MS) {
            self.repeat(side);
        }
        self.arm(side);
    }

    /// Sends again what is not acknowledged, one segment of it.
    fn repeat(&mut self, side: usize) {
        let end = &self.ends[side];
        let (una, fin) = (end.una, end.fin);
        if una == end.initial {
            let answer = if side == 1 { ACK } else { 0 };
            return self.transmit(side, SYN | answer, una, 0);
        }
        let data = ahead(fin.unwrap_or(end.highest), una).max(0) as u32;
        let length = data.min(SEGMENT);
        let last = fin == Some(una.wrapping_add(length));
        let flags = if last { ACK | FIN } else { ACK };
        if length > 0 || last {
            self.transmit(side, flags, una, length);
        }
    }

    /// A length that leaves no segment of one byte, whose repeat looks like a probe.
    fn bytes(&mut self, most: usize) -> u32 {
        let bytes = 2 + self.random.below(most) as u32;
        bytes + u32::from(bytes % SEGMENT == 1)
    }

    /// Sends what may be sent.
    fn push(&mut self, side: usize) {
        let idle = ahead(self.ends[side].highest, self.ends[side].una) <= 0;
        loop {
            let end = &self.ends[side];
            if !end.established || ahead(end.next, end.una) >= IN_FLIGHT as i32 {
                break;
            }
            let left = ahead(end.limit, end.next).max(0) as u32;
            let (seq, length) = (end.next, left.min(SEGMENT));
            if length > 0 {
                self.ends[side].next = seq.wrapping_add(length);
                self.transmit(side, ACK, seq, length);
            } else if end.closing && end.fin.is_none() {
                self.ends[side].fin = Some(seq);
                self.ends[side].next = seq.wrapping_add(1);
                self.transmit(side, ACK | FIN, seq, 0);
            } else {
                break;
            }
        }
        if idle {
            self.arm(side);
        }
    }

    fn ack(&mut self, side: usize) {
        let seq = self.ends[side].next;
        self.transmit(side, ACK, seq, 0);
    }

    fn arrive(&mut self, at: usize) {
        let packet = self.packets[at].clone();
        let side = 1 - packet.from;
        if packet.flags & SYN != 0 {
            return self.synchronize(side, &packet);
        }
        if !self.ends[side].established {
            if side == 0 {
                return;
            }
            self.ends[side].established = true;
        }
        self.acknowledged(side, &packet);
        if !packet.takes_space() {
            return;
        }
        let end = &mut self.ends[side];
        if let Some((ts_val, _)) = packet.timestamps {
            let fits = ahead(packet.seq, end.last_ack) <= 0;
            if fits && ahead(ts_val, end.recent) >= 0 {
                end.recent = ts_val;
            }
        }
        let place = ahead(packet.seq, end.expected);
        if place > 0 {
            end.early.push(at);
            return self.ack(side);
        }
        if ahead(packet.end(), end.expected) <= 0 {
            return self.ack(side);
        }
        let before = end.expected;
        end.expected = packet.end();
        let mut early = std::mem::take(&mut end.early);
        let filled = !early.is_empty();
        let mut fin = packet.flags & FIN != 0;
        loop {
            let expected = self.ends[side].expected;
            let Some(next) = early
                .iter()
                .position(|of| ahead(self.packets[*of].seq, expected) <= 0)
            else {
                break;
            };
            let of = &mut self.packets[early.swap_remove(next)];
            of.waited |= packet.repeats && packet.passed > of.passed;
            fin |= of.flags & FIN != 0;
            if ahead(of.end(), expected) > 0 {
                self.ends[side].expected = of.end();
            }
        }
        self.ends[side].early = early;
        self.ends[side].owed += 1;
        let bytes = ahead(self.ends[side].expected, before);
        if filled || fin || self.ends[side].owed >= 2 || self.mix.delayed_ack == 0 {
            self.ack(side);
        } else {
            let event = Event::DelayedAck(side, self.ends[side].generation);
            self.at(self.now + self.mix.delayed_ack, event);
        }
        if fin {
            let wait = self.random.below(20 * MS as usize) as u64;
            self.at(self.now + wait, Event::Close(side));
        } else if bytes > 0 {
            self.answer(side);
        }
    }

    fn synchronize(&mut self, side: usize, packet: &Sent) {
        let end = &mut self.ends[side];
        if let Some((ts_val, _)) = packet.timestamps {
            end.recent = ts_val;
        }
        end.expected = packet.end();
        if side == 1 {
            if end.established {
                return self.ack(side);
            }
            let fresh = end.highest == end.initial;
            let seq = end.initial;
            // Two answers at once would look like copies made by the network.
            let latest = self.packets.iter().rev().find(|of| of.from == 1);
            if latest.is_some_and(|of| self.now - of.sent < 8 * MS) {
                return;
            }
            self.transmit(side, SYN | ACK, seq, 0);
            if fresh {
                self.arm(side);
            }
            for end in &mut self.ends {
                end.next = end.initial.wrapping_add(1);
                end.limit = end.next;
            }
            return;
        }
        let fresh = !end.established;
        self.acknowledged(side, packet);
        self.ends[side].established = true;
        self.ack(side);
        if fresh {
            let wait = self.random.below(30 * MS as usize) as u64;
            let bytes = self.bytes(900);
            self.at(self.now + wait, Event::Write(side, bytes));
        }
    }

    fn acknowledged(&mut self, side: usize, packet: &Sent) {
        if packet.flags & ACK == 0 {
            return;
        }
        let end = &mut self.ends[side];
        let step = ahead(packet.ack, end.una);
        if step > 0 && ahead(packet.ack, end.highest) <= 0 {
            end.una = packet.ack;
            end.tries = 0;
            end.repeated_acks = 0;
            self.arm(side);
            self.push(side);
        } else if step == 0 && !packet.takes_space() && ahead(end.highest, end.una) > 0 {
            end.repeated_acks += 1;
            // Two repeats at once would look like copies made by the network.
            let latest = self
                .packets
                .iter()
                .rev()
                .find(|of| of.from == side && of.repeats);
            let recent = latest.is_some_and(|of| self.now - of.sent < 8 * MS);
            if end.repeated_acks == 3 && !recent {
                self.repeat(side);
            }
        }
    }

    /// The application: a request, an answer, some turns, a close.
    fn answer(&mut self, side: usize) {
        let other = &self.ends[1 - side];
        let whole = self.ends[side].expected == other.limit;
        if !whole {
            return;
        }
        let wait = self.random.below(120) as u64 * MS;
        if side == 1 {
            let bytes = self.bytes(4000);
            self.at(self.now + wait, Event::Write(side, bytes));
        } else if self.turns > 1 {
            self.turns -= 1;
            let bytes = self.bytes(900);
            self.at(self.now + wait, Event::Write(side, bytes));
        } else if self.mix.late_end > 0 && self.mix.probes == 0 {
            let closer = self.random.below(2);
            self.at(self.now + wait, Event::Close(closer));
        }
    }

    /// A packet that is not of the exchange, as it passes the capture point.
    fn stray(&mut self, from: usize, flags: u8, seq: u32, time: u64) -> &mut Sent {
        self.now = time;
        let ack = self.ends[from].expected;
        self.packets.push(Sent {
            from,
            flags,
            seq,
            ack: if flags & ACK != 0 { ack } else { 0 },
            length: 0,
            timestamps: None,
            sent: time,
            passed: Some(time),
            arrived: None,
            repeats: true,
            waited: false,
            probe: true,
            captured: true,
        });
        self.packets.last_mut().unwrap()
    }

    /// Adds what follows the exchange, then decides what the capture point sees of all.
    fn finish(&mut self) {
        let exchange = self.packets.len();
        self.now += SECOND;
        let both = self.ends.iter().all(|end| end.established);
        let quiet = self.ends.iter().all(|end| end.una == end.next);
        let from = self.random.below(2);
        let stamped = |case: &Self, from: usize| {
            let end = &case.ends[from];
            let ts_val = end.clock.wrapping_add((case.now / case.mix.tick) as u32);
            let stamps = case.mix.stamps && case.now < case.mix.stamps_stop[from];
            stamps.then_some((ts_val, end.recent))
        };
        let seq = self.ends[from].next;
        if both && quiet && self.mix.probes > 0 {
            self.mix.missing = 0;
            for _ in 0..self.mix.probes {
                let (time, length) = (self.now + 75 * SECOND, self.mix.probe_length);
                self.stray(from, ACK, seq.wrapping_sub(1), time).length = length;
                let stamps = stamped(self, from);
                self.packets.last_mut().unwrap().timestamps = stamps;
                let back = self.ends[1 - from].next;
                self.stray(1 - from, ACK, back, time + 20 * MS).timestamps = stamps;
                let stamps = stamped(self, 1 - from);
                self.packets.last_mut().unwrap().timestamps = stamps;
            }
        } else {
            self.mix.probes = 0;
        }
        let closed = self.ends.iter().all(|end| end.fin.is_some());
        if both && closed {
            let fin = self.ends[from].fin.unwrap();
            match self.mix.late_end {
                1 => {
                    for times in 0..8 {
                        let time = self.now + ((200 * MS) << times);
                        self.stray(from, ACK | FIN, fin, time).timestamps = None;
                    }
                }
                2 => drop(self.stray(from, RST, seq, self.now + 20 * SECOND)),
                3 => drop(self.stray(from, ACK, seq, self.now + 90 * SECOND)),
                _ => {}
            }
        }
        if self.mix.late_end == 4 && exchange > 8 {
            let middle = self.packets[exchange / 2].sent + 1;
            let number = self.random.next() as u32;
            self.stray(from, RST, number, middle);
        }
        self.capture(exchange);
    }

    /// Decides what is captured, and in which order.
    fn capture(&mut self, exchange: usize) {
        for at in 0..exchange {
            let missing = self.chance(self.mix.missing);
            let packet = &mut self.packets[at];
            packet.captured = packet.passed.is_some() && !missing;
        }
        for at in 0..exchange {
            let copied = self.chance(self.mix.copied);
            let gap = 1 + self.random.below(20_000) as u64;
            let of = &self.packets[at];
            // Of two copies the first is the one that arrives.
            if let (true, Some(passed), true) = (copied, of.passed, of.arrived.is_some()) {
                let copy = Sent {
                    passed: Some(passed + gap),
                    repeats: true,
                    captured: true,
                    ..of.clone()
                };
                self.packets.push(copy);
            }
        }
        let end = self.packets.iter().filter_map(|of| of.passed).max();
        let mut begin = match self.mix.midstream {
            true => self.random.below(end.unwrap_or(0) as usize / 2 + 1) as u64,
            false => 0,
        };
        // The first of two packets with the same numbers is captured if it arrived.
        loop {
            let mut changed = false;
            for at in 0..self.packets.len() {
                let of = &self.packets[at];
                let seen = |of: &Sent| of.captured && of.passed.is_some_and(|time| time >= begin);
                if seen(of) || of.arrived.is_none() || !of.takes_space() {
                    continue;
                }
                let copied = self.packets.iter().any(|copy| {
                    copy.from == of.from
                        && copy.takes_space()
                        && seen(copy)
                        && copy.passed >= of.passed
                        && copy.overlaps(of)
                });
                if copied {
                    begin = begin.min(of.passed.unwrap_or(begin));
                    self.packets[at].captured = true;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        let taken = |of: &Sent| of.captured && of.passed.is_some_and(|time| time >= begin);
        for packet in &mut self.packets {
            packet.captured = taken(packet);
        }
        let packets = self.packets.iter().enumerate();
        self.file = packets
            .filter(|(_, of)| of.captured)
            .filter_map(|(at, of)| Some((of.passed?, at)))
            .collect();
        self.file.sort_by_key(|(time, _)| *time);
        self.misorder();
    }

    /// Puts the SYN behind its SYN-ACK, as two taps may.
    fn misorder(&mut self) {
        let flags = |of: &&(u64, usize), flags| self.packets[of.1].flags & (SYN | ACK) == flags;
        let syns = self.file.iter().filter(|of| flags(of, SYN)).count();
        let answers = self.file.iter().filter(|of| flags(of, SYN | ACK)).count();
        let first = self.file.iter().take(2).map(|of| self.packets[of.1].flags);
        self.mix.syn_behind &=
            syns == 1 && answers == 1 && first.eq([SYN, SYN | ACK]) && self.file.len() > 2;
        if self.mix.syn_behind {
            self.file.swap(0, 1);
            self.file[1].0 = self.file[0].0 + 1;
        }
    }

    /// The capture as a file of pcap.
    pub(super) fn pcap(&self) -> Vec<u8> {
        let file = super::packets::Pcap {
            big: false,
            nanos: true,
        };
        let mut out = file.header();
        let mut put = |built: Built| {
            let frame = built.frame();
            let snap = self.mix.snap + if self.mix.v6 { 20 } else { 0 };
            let kept = frame.len().min(snap);
            out.extend(file.packet(built.time, frame.len(), &frame[..kept]));
        };
        let built = |time: u64, of: &Sent| Built {
            time: at(time as f64 / 1e6),
            from_client: of.from == 0,
            v6: self.mix.v6,
            ports: (40_000, 80),
            flags: of.flags,
            seq: of.seq,
            ack: of.ack,
            window: 1000,
            timestamps: of.timestamps,
            payload: vec![b'x'; of.length as usize],
        };
        for (time, at) in &self.file {
            put(Built {
                time: WallTime(EPOCH + time),
                ..built(0, &self.packets[*at])
            });
        }
        if let (Some((time, at)), true) = (self.file.last(), self.mix.reused) {
            let (time, of) = (time + 5 * SECOND, &self.packets[*at]);
            let numbers = [
                of.seq.wrapping_add(900_000_000),
                of.seq.wrapping_add(400_000_000),
            ];
            for (after, from, flags, seq, ack) in [
                (0, 0, SYN, numbers[0], 0),
                (10, 1, SYN | ACK, numbers[1], numbers[0].wrapping_add(1)),
                (
                    12,
                    0,
                    ACK,
                    numbers[0].wrapping_add(1),
                    numbers[1].wrapping_add(1),
                ),
            ] {
                let of = Sent {
                    from,
                    flags,
                    seq,
                    ack,
                    length: 0,
                    timestamps: None,
                    ..of.clone()
                };
                put(Built {
                    time: WallTime(EPOCH + time + after * MS),
                    ..built(0, &of)
                });
            }
        }
        out
    }
}
