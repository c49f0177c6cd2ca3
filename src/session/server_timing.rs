//! The value of `Server-Timing` for a response: the parts of the delay of its own request and of
//! itself. Pure.
//!
//! The parts add up to the total to the last digit, or the total stands alone. They come from the
//! stamps of the request's block on its way out and of the answer's first block on its way back.
//! The time between those at the last node is the server's.

use crate::http::head::is_token;
use crate::measure::Parts;
use crate::time::{MonoTime, SignedNanos};
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Most requests that are remembered.
const MAX_OPEN: usize = 256;

/// The greatest difference, in nanoseconds, of the total by stamps, which are times of the wall
/// clock, from that by the monotonic clock.
const TOLERANCE: u64 = 1_000_000;

/// The delay of one part: its name, that of the node behind it if it is a segment, the delay.
type TimedPart = (String, Option<String>, SignedNanos);

/// The parts up to the time at which the answer was read at this node, which is the first of them.
#[derive(Clone, Debug)]
struct Answer {
    parts: Vec<TimedPart>,
    at: MonoTime,
}

/// A request without a response.
#[derive(Clone, Debug, Default)]
struct TimedRequest {
    number: u64,
    /// The time at which the block with its head was read; `None` until that block is made.
    begun: Option<MonoTime>,
    /// The marked block that it began; `None` if that is not marked, or began an earlier one.
    block: Option<u64>,
    answer: Option<Answer>,
}

/// The requests of one connection that wait for their responses.
#[derive(Clone, Debug, Default)]
pub struct RequestTimes {
    open: VecDeque<TimedRequest>,
    /// The names of the path's nodes, by hop.
    names: Vec<(u8, String)>,
}

impl RequestTimes {
    /// Takes the names of the nodes of the path.
    pub fn name(&mut self, names: Vec<(u8, String)>) {
        self.names = names;
    }

    /// Begins a request. The block that holds its head follows.
    pub fn begin(&mut self, number: u64) {
        if self.open.len() < MAX_OPEN {
            self.open.push_back(TimedRequest {
                number,
                ..TimedRequest::default()
            });
        }
    }

    /// Returns `true` if a request waits for its block.
    pub fn awaits_block(&self) -> bool {
        self.open.back().is_some_and(|last| last.begun.is_none())
    }

    /// Takes the block of the requests that wait for one: its time, and its number if it is marked.
    /// The stamps are those of the first of them.
    pub fn block(&mut self, at: MonoTime, marked: Option<u64>) {
        let first = self.open.iter().position(|open| open.begun.is_none());
        for open in self.open.iter_mut().skip(first.unwrap_or(MAX_OPEN)) {
            open.begun = Some(at);
        }
        if let Some(open) = first.and_then(|first| self.open.get_mut(first)) {
            open.block = marked;
        }
    }

    fn of(&mut self, block: u64) -> Option<&mut TimedRequest> {
        self.open.iter_mut().find(|open| open.block == Some(block))
    }

    /// Takes the parts of the delay of a block and of its answer, which was read at `at`.
    pub fn answer(&mut self, block: u64, parts: &Parts, at: MonoTime) {
        let answer = self.named(parts).map(|parts| Answer { parts, at });
        if let Some(open) = self.of(block) {
            open.answer = answer;
        }
    }

    /// Takes the answer, read at `at`, to a block that a plain proxy called `name` sent at `sent`.
    pub fn answer_to_proxy(&mut self, block: u64, name: &str, sent: MonoTime, at: MonoTime) {
        if let Some(open) = self.of(block) {
            open.answer = open.begun.map(|begun| {
                let residence = (name.to_owned(), None, sent.since(begun).signed());
                let server = ("server".to_owned(), None, at.since(sent).signed());
                let parts = vec![residence, server];
                Answer { parts, at }
            });
        }
    }

    /// Forgets the answer that the latest bytes from the server began, if those held no end of a
    /// head and no part of one that waits: it was an interim response.
    pub fn forget_answer(&mut self) {
        for open in &mut self.open {
            open.answer = None;
        }
    }

    /// Returns the parts with their names; `None` if one of them is not known.
    fn named(&self, parts: &Parts) -> Option<Vec<TimedPart>> {
        let name = |hop: u8| {
            let known = self.names.iter().find(|(known, _)| *known == hop);
            known.map_or_else(|| format!("hop{hop}"), |(_, name)| name.clone())
        };
        let mut named = Vec::with_capacity(2 * parts.hosts.len());
        for (place, host) in parts.hosts.iter().enumerate() {
            named.push((name(host.hop), None, host.part()?));
            if let Some(segment) = parts.segments.get(place) {
                let delay = segment.part()? + segment.connect.unwrap_or_default();
                let (from, to) = (name(segment.from_hop), name(segment.to_hop));
                named.push((from, Some(to), delay));
            }
        }
        named.push(("server".to_owned(), None, parts.beyond?));
        Some(named)
    }

    /// Ends the request `number`, whose response came at `now`. Returns the value of the field.
    pub fn end(&mut self, number: u64, now: MonoTime) -> Option<String> {
        while self.open.front().is_some_and(|open| open.number < number) {
            self.open.pop_front();
        }
        self.open.front().filter(|open| open.number == number)?;
        let open = self.open.pop_front()?;
        let total = now.since(open.begun?).signed();
        let mut parts = Vec::new();
        if let Some(answer) = open.answer {
            parts = answer.parts;
            if let Some((.., own)) = parts.first_mut() {
                *own += now.since(answer.at).signed();
            }
        }
        let sum: SignedNanos = parts.iter().map(|(.., delay)| *delay).sum();
        if (sum - total).0.unsigned_abs() > TOLERANCE {
            parts.clear();
        }
        let mut text = String::new();
        // Each is the difference of two rounded sums, so that what is shown adds up as well.
        let (mut sum, mut shown) = (SignedNanos::ZERO, 0);
        for (name, to, delay) in &parts {
            sum += *delay;
            let delay = micros(sum) - shown;
            shown = micros(sum);
            let metric = match to {
                Some(to) => metric(&format!("{name}-{to}"), &format!("{name} -> {to}"), delay),
                None => metric(name, name, delay),
            };
            let _ = write!(text, "{metric}, ");
        }
        let total = match parts.is_empty() {
            true => micros(total),
            false => shown,
        };
        text.push_str(&metric("total", "total", total));
        Some(text)
    }
}

fn micros(span: SignedNanos) -> i64 {
    span.0.saturating_add(500).div_euclid(1_000)
}

/// Returns one metric of so many microseconds. Its name is a token, so its text is added where the
/// two differ.
fn metric(name: &str, text: &str, micros: i64) -> String {
    let token = token(name);
    let sign = if micros < 0 { "-" } else { "" };
    let (millis, rest) = (micros.unsigned_abs() / 1_000, micros.unsigned_abs() % 1_000);
    let mut shown = format!("{token};dur={sign}{millis}.{rest:03}");
    if token != text {
        shown.push_str(";desc=\"");
        for letter in text.chars() {
            match letter {
                '"' | '\\' => shown.extend(['\\', letter]),
                ' '..='~' => shown.push(letter),
                _ => shown.push('_'),
            }
        }
        shown.push('"');
    }
    shown
}

/// Returns `name` with `_` for each character that no token has.
pub fn token(name: &str) -> String {
    let is_token = |letter: char| u8::try_from(letter).is_ok_and(is_token);
    let letters = name.chars();
    letters
        .map(|letter| if is_token(letter) { letter } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::simulator::{Random, SimPath};
    use crate::measure::{HostPart, NodeId, SegmentPart};

    fn at(micros: u64) -> MonoTime {
        MonoTime(1_000_000_000 + micros * 1_000)
    }

    fn delay(micros: i64) -> SignedNanos {
        SignedNanos(micros * 1_000)
    }

    fn host(hop: u8, micros: i64) -> HostPart {
        HostPart {
            hop,
            node: NodeId(hop.into()),
            forward_residence: Some(delay(micros)),
            return_residence: None,
            forward_wake_up: None,
            return_wake_up: None,
            own_wake_ups: [SignedNanos::ZERO; 2],
        }
    }

    fn segment(from_hop: u8, micros: i64, connect: Option<i64>) -> SegmentPart {
        SegmentPart {
            from_hop,
            to_hop: from_hop + 1,
            round_trip: Some(delay(micros)),
            network: None,
            forward: None,
            back: None,
            wake_ups: None,
            connect: connect.map(delay),
        }
    }

    fn parts() -> Parts {
        Parts {
            hosts: vec![host(0, 50), host(1, 100)],
            segments: vec![segment(0, 1_200, Some(300))],
            beyond: Some(delay(35_000)),
            ..Parts::default()
        }
    }

    fn times() -> RequestTimes {
        let mut times = RequestTimes::default();
        times.name(vec![(0, "A".into()), (1, "B \"x\"\u{fc}".into())]);
        times.begin(0);
        times
    }

    #[test]
    fn a_response_names_each_part_of_its_own_request_as_tokens() {
        let mut times = times();
        assert!(times.awaits_block());
        times.block(at(0), Some(7));
        assert!(!times.awaits_block());
        times.answer(7, &parts(), at(36_640));
        let value = times.end(0, at(36_700)).unwrap();
        let expected = "A;dur=0.110, A-B__x__;dur=1.500;desc=\"A -> B \\\"x\\\"_\", \
                        B__x__;dur=0.100;desc=\"B \\\"x\\\"_\", \
                        server;dur=35.000, total;dur=36.710";
        assert_eq!(value, expected);
    }

    #[test]
    fn without_stamps_or_a_server_time_or_with_another_total_that_stands_alone() {
        let mut stepped = parts();
        stepped.segments[0].round_trip = None;
        let mut endless = parts();
        endless.beyond = None;
        let mut longer = parts();
        longer.beyond = Some(delay(36_100));
        let mut shorter = parts();
        shorter.beyond = Some(delay(33_900));
        for (marked, parts) in [
            (None, Some(parts())),
            (Some(7), None),
            (Some(8), Some(parts())),
            (Some(7), Some(stepped)),
            (Some(7), Some(endless)),
            (Some(7), Some(longer)),
            (Some(7), Some(shorter)),
        ] {
            let mut times = times();
            times.block(at(0), marked);
            if let Some(parts) = &parts {
                times.answer(7, parts, at(36_640));
            }
            let value = times.end(0, at(36_650)).unwrap();
            assert_eq!(value, "total;dur=36.650", "{marked:?} {parts:?}");
        }
    }

    #[test]
    fn the_stamps_of_an_interim_response_are_not_those_of_the_final_one() {
        let mut times = times();
        times.block(at(0), Some(7));
        times.answer(7, &parts(), at(36_640));
        times.forget_answer();
        assert_eq!(times.end(0, at(50_000)).unwrap(), "total;dur=50.000");
    }

    #[test]
    fn of_several_requests_in_a_block_the_first_has_the_stamps() {
        let mut times = times();
        times.begin(1);
        times.block(at(0), Some(7));
        times.begin(2);
        times.block(at(10), Some(8));
        times.answer_to_proxy(7, "P", at(20), at(1_020));
        let first = "P;dur=0.025, server;dur=1.000, total;dur=1.025";
        assert_eq!(times.end(0, at(1_025)).unwrap(), first);
        assert_eq!(times.end(1, at(1_500)).unwrap(), "total;dur=1.500");
        times.answer_to_proxy(8, "P", at(40), at(2_040));
        let third = "P;dur=0.030, server;dur=2.000, total;dur=2.030";
        assert_eq!(times.end(2, at(2_040)).unwrap(), third);
        assert_eq!(times.end(3, at(3_000)), None);
    }

    /// Adds up what a value shows before its total, in microseconds, and returns that, too.
    fn shown(value: &str) -> (Vec<i64>, i64) {
        let delays = value.split(", ").map(|metric| {
            let delay = metric.split(";dur=").nth(1).unwrap();
            let delay = delay.split(';').next().unwrap();
            let micros: i64 = delay.replace('.', "").parse().unwrap();
            micros
        });
        let mut delays: Vec<i64> = delays.collect();
        let total = delays.pop().unwrap();
        (delays, total)
    }

    /// The law: the parts are all there and add up to the total to the last digit, whatever the
    /// clocks of the nodes say, or the total stands alone. A stepped clock alone hides them.
    #[test]
    fn what_is_shown_adds_up_to_the_total_whatever_the_path() {
        let mut alone = 0;
        for seed in 0..5_000 {
            let mut random = Random::new(seed);
            let nodes = 2 + random.below(6) as usize;
            let mut path = SimPath::new(nodes, seed);
            path.exit = true;
            path.arrivals = seed % 2 == 0;
            for node in &mut path.nodes {
                node.residence_ns = [(); 2].map(|()| random.below(3_000_000) as f64);
                node.wake_up_ns = [(); 2].map(|()| random.below(2_000_000) as f64);
                node.offset_ns = random.below(1_000_000_000_000) as f64;
            }
            let mut trip = path.trip(random.below(1_000));
            // The server, behind the exit, and a connect that the block waited for.
            let server = SignedNanos(random.below(100_000_000) as i64);
            for stamp in &mut trip.hop_stamps[nodes..] {
                stamp.ingress = stamp.ingress + server;
                stamp.egress = stamp.egress + server;
                stamp.arrival = stamp.arrival.map(|arrival| arrival + server);
            }
            trip.home.ingress = trip.home.ingress + server;
            trip.home.arrival = trip.home.arrival.map(|arrival| arrival + server);
            trip.hop_stamps[0].waited = seed % 4 == 0;
            let is_stepped = seed % 5 == 0;
            trip.hop_stamps[nodes - 1].stepped = is_stepped;
            if seed % 7 == 0 && nodes > 2 {
                trip.hop_stamps.remove(1); // It stamped one way only.
            }
            let delay = trip.home.ingress - trip.hop_stamps[0].ingress;
            let back = random.below(200_000);
            let begun = MonoTime(77 + random.below(1_000_000_000));
            let read = MonoTime(begun.0 + delay.0 as u64);
            let mut times = times();
            times.block(begun, Some(trip.sequence));
            times.answer(trip.sequence, &trip.split().unwrap(), read);
            let value = times.end(0, MonoTime(read.0 + back)).unwrap();
            let (parts, total) = shown(&value);
            let whole = micros(SignedNanos(delay.0 + back as i64));
            assert_eq!(total, whole, "seed {seed}: {value}");
            if parts.is_empty() {
                alone += 1;
                assert!(is_stepped, "seed {seed}");
                continue;
            }
            let stamped = nodes - usize::from(seed % 7 == 0 && nodes > 2);
            assert_eq!(parts.len(), 2 * stamped, "seed {seed}: {value}");
            assert_eq!(parts.iter().sum::<i64>(), total, "seed {seed}: {value}");
            let off = parts.last().unwrap() - micros(server);
            assert!(off.abs() <= 1, "seed {seed}: {value}");
        }
        assert_eq!(alone, 1_000);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut times = RequestTimes::default();
        for number in 0..10_000 {
            times.begin(number);
        }
        assert_eq!(times.open.len(), MAX_OPEN);
    }
}
