//! The value of `Server-Timing` for a response: the parts of the delay of its own request, as far
//! as the entry knows them when the response comes. Pure.
//!
//! The way back of the response itself has no stamps: the way back is that of the report, which the
//! exit sends when the server has the request. Parts and server then add up to the total but for
//! that difference.

use crate::http::head::is_token;
use crate::measure::Parts;
use crate::time::{MonoTime, Nanos, SignedNanos};
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Most requests that are remembered.
const MAX_OPEN: usize = 256;

/// The delay of one part: its name, that of the node behind it if it is a segment, the delay.
type TimedPart = (String, Option<String>, SignedNanos);

/// A request without a response.
#[derive(Clone, Debug, Default)]
struct TimedRequest {
    number: u64,
    /// The time at which the block with its head was read; `None` until that block is made.
    begun: Option<MonoTime>,
    /// The marked block that it began; `None` if that is not marked, or began an earlier one.
    block: Option<u64>,
    parts: Option<Vec<TimedPart>>,
    server: Option<Nanos>,
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

    /// Takes the parts of the delay of a block that came back.
    pub fn parts(&mut self, block: u64, parts: &Parts) {
        let named = self.named(parts);
        if let Some(open) = self.of(block) {
            open.parts = named;
        }
    }

    /// Takes the residence of a block at a plain proxy, whose name is `name`.
    pub fn residence(&mut self, block: u64, name: &str, sent: MonoTime) {
        if let Some(open) = self.of(block) {
            let residence = open.begun.map(|begun| sent.since(begun).signed());
            open.parts = residence.map(|residence| vec![(name.to_owned(), None, residence)]);
        }
    }

    /// Takes the time of the server for a block.
    pub fn server(&mut self, block: u64, span: Nanos) {
        if let Some(open) = self.of(block) {
            open.server = Some(span);
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
        let mut text = String::new();
        if let (Some(parts), Some(server)) = (&open.parts, open.server) {
            for (name, to, delay) in parts {
                let shown = match to {
                    Some(to) => metric(&format!("{name}-{to}"), &format!("{name} -> {to}"), *delay),
                    None => metric(name, name, *delay),
                };
                let _ = write!(text, "{shown}, ");
            }
            let _ = write!(text, "{}, ", metric("server", "server", server.signed()));
        }
        text.push_str(&metric("total", "total", total));
        Some(text)
    }
}

/// Returns one metric. Its name is a token, so its text is added where the two differ.
fn metric(name: &str, text: &str, delay: SignedNanos) -> String {
    let token = token(name);
    let mut shown = format!("{token};dur={:.3}", delay.as_millis_f64());
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
            ..Parts::default()
        }
    }

    fn times() -> RequestTimes {
        let mut times = RequestTimes::default();
        times.name(vec![(0, "A".into()), (1, "B \"x\"\u{fc}".into())]);
        times
    }

    #[test]
    fn a_response_names_each_part_of_its_own_request_as_tokens() {
        let mut times = times();
        times.begin(0);
        assert!(times.awaits_block());
        times.block(at(0), Some(7));
        assert!(!times.awaits_block());
        times.parts(7, &parts());
        times.server(7, Nanos::from_millis(35));
        let value = times.end(0, at(36_700)).unwrap();
        let expected = "A;dur=0.050, A-B__x__;dur=1.500;desc=\"A -> B \\\"x\\\"_\", \
                        B__x__;dur=0.100;desc=\"B \\\"x\\\"_\", \
                        server;dur=35.000, total;dur=36.700";
        assert_eq!(value, expected);
    }

    #[test]
    fn without_stamps_report_or_server_time_the_total_stands_alone() {
        for (marked, with_parts, with_server) in [
            (None, true, true),
            (Some(7), false, true),
            (Some(7), true, false),
        ] {
            let mut times = times();
            times.begin(0);
            times.block(at(0), marked);
            if with_parts {
                times.parts(7, &parts());
            }
            if with_server {
                times.server(7, Nanos::from_millis(35));
            }
            let value = times.end(0, at(1_500)).unwrap();
            assert_eq!(value, "total;dur=1.500");
        }
        let mut stepped = parts();
        stepped.segments[0].round_trip = None;
        let mut times = times();
        times.begin(0);
        times.block(at(0), Some(7));
        times.parts(7, &stepped);
        times.server(7, Nanos::from_millis(35));
        assert_eq!(times.end(0, at(1_500)).unwrap(), "total;dur=1.500");
    }

    #[test]
    fn of_several_requests_in_a_block_the_first_has_the_stamps() {
        let mut times = times();
        times.begin(0);
        times.begin(1);
        times.block(at(0), Some(7));
        times.begin(2);
        times.block(at(10), Some(8));
        times.residence(7, "P", at(20));
        times.server(7, Nanos::from_millis(1));
        times.residence(8, "P", at(40));
        times.server(8, Nanos::from_millis(2));
        let first = "P;dur=0.020, server;dur=1.000, total;dur=1.020";
        assert_eq!(times.end(0, at(1_020)).unwrap(), first);
        assert_eq!(times.end(1, at(1_500)).unwrap(), "total;dur=1.500");
        let third = "P;dur=0.030, server;dur=2.000, total;dur=2.030";
        assert_eq!(times.end(2, at(2_040)).unwrap(), third);
        assert_eq!(times.end(3, at(3_000)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut times = times();
        for number in 0..10_000 {
            times.begin(number);
        }
        assert_eq!(times.open.len(), MAX_OPEN);
    }
}
