//! HTTP over captures that are reordered, cut and full of holes: each figure is right or unknown.

use super::build::*;
use crate::passive::*;
use crate::time::WallTime;

/// A message as it was sent: its numbers, and the times of its packets.
#[derive(Clone, Debug)]
struct Sent {
    from: u32,
    to: u32,
}

/// An exchange as it was.
#[derive(Clone, Debug)]
struct Truth {
    method: &'static str,
    status: u16,
    request: Sent,
    response: Sent,
}

/// How a capture is spoilt.
#[derive(Clone, Copy, Debug)]
struct Spoilt {
    reordered: bool,
    doubled: bool,
    missed: usize,
    kept: Option<usize>,
    pipelined: bool,
    midstream: bool,
}

/// A connection and what is true of it.
struct Generated {
    /// All packets that passed, in order.
    passed: Vec<Built>,
    /// Which of these the capture has.
    captured: Vec<bool>,
    exchanges: Vec<Truth>,
    /// First data of a client and first data back, where no request is sent before the answer to
    /// the one before.
    turns: Vec<(WallTime, WallTime)>,
}

const METHODS: [&str; 7] = [
    "GET", "POST", "UNLOCK", "REPORT", "M-SEARCH", "HEAD", "PROPFIND",
];

struct Generator {
    random: Random,
    now: WallTime,
    ends: [u32; 2],
    packets: Vec<Built>,
    timestamps: bool,
    /// The latest TSval of each end.
    latest: [u32; 2],
}

impl Generator {
    fn later(&mut self, least_us: usize, spread_us: usize) {
        let step = least_us + self.random.below(spread_us);
        self.now = WallTime(self.now.0 + step as u64 * 1000);
    }

    fn packet(&mut self, side: Side, flags: u8, payload: &[u8]) {
        let (own, other) = (side as usize, side.other() as usize);
        let ticks = (self.now.0 / 1_000_000) as u32;
        self.packets.push(Built {
            time: self.now,
            from_client: side == Side::Client,
            v6: false,
            ports: (40_000, 80),
            flags,
            seq: self.ends[own],
            ack: if flags & ACK != 0 {
                self.ends[other]
            } else {
                0
            },
            window: 1000,
            timestamps: self.timestamps.then_some((ticks, self.latest[other])),
            payload: payload.to_vec(),
        });
        self.latest[own] = ticks;
        let special = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.ends[own] = self.ends[own].wrapping_add(payload.len() as u32 + special);
    }

    /// Sends bytes in segments, which may be swapped on their way; the numbers that they take.
    fn send(&mut self, side: Side, bytes: &[u8], reordered: bool) -> Sent {
        let from = self.ends[side as usize];
        let first = self.packets.len();
        let most = 16 + self.random.below(600);
        for piece in bytes.chunks(most) {
            self.packet(side, ACK, piece);
            self.later(5, 200);
        }
        if reordered && self.packets.len() - first > 1 {
            let at = first + self.random.below(self.packets.len() - first - 1);
            let (one, two) = (self.packets[at].time, self.packets[at + 1].time);
            self.packets.swap(at, at + 1);
            (self.packets[at].time, self.packets[at + 1].time) = (one, two);
        }
        Sent {
            from,
            to: self.ends[side as usize],
        }
    }

    fn request(&mut self, method: &'static str) -> Vec<u8> {
        let empty = if self.random.below(8) == 0 {
            "\r\n"
        } else {
            ""
        };
        let path = "p".repeat(self.random.below(60));
        let body = match method {
            "POST" | "PROPFIND" => self.random.below(2000),
            _ => 0,
        };
        let filler = "f".repeat(self.random.below(100));
        let mut head = format!("{empty}{method} /{path} HTTP/1.1\r\nHost: a\r\nX: {filler}\r\n");
        if body > 0 {
            head += &format!("Content-Length: {body}\r\n");
        }
        head += "\r\n";
        [head.as_bytes(), &vec![b'b'; body]].concat()
    }

    fn response(&mut self, method: &str, status: u16) -> Vec<u8> {
        let filler = "f".repeat(self.random.below(200));
        let head = format!("HTTP/1.1 {status} Reason\r\nX: {filler}\r\n");
        let size = self.random.below(3000);
        let body = vec![b'y'; size];
        let head_alone = method == "HEAD" || status == 204;
        match self.random.below(3) {
            _ if status == 204 => format!("{head}\r\n").into_bytes(),
            0 if !head_alone => {
                let mut out = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                for chunk in body.chunks(1 + self.random.below(900)) {
                    out.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    out.extend(chunk);
                    out.extend(b"\r\n");
                }
                out.extend(b"0\r\n\r\n");
                out
            }
            _ => {
                let mut out = format!("{head}Content-Length: {size}\r\n\r\n").into_bytes();
                if !head_alone {
                    out.extend(&body);
                }
                out
            }
        }
    }
}

fn generate(seed: u64, spoilt: Spoilt) -> Generated {
    let mut random = Random::new(seed);
    let ends = [random.next() as u32, random.next() as u32];
    let timestamps = random.below(2) == 0;
    let mut of = Generator {
        random,
        now: WallTime(EPOCH),
        ends,
        packets: Vec::new(),
        timestamps,
        latest: [0; 2],
    };
    of.packet(Side::Client, SYN, b"");
    of.later(10_000, 10);
    of.packet(Side::Server, SYN | ACK, b"");
    of.later(1_000, 10);
    of.packet(Side::Client, ACK, b"");
    let (mut exchanges, mut turns) = (Vec::new(), Vec::new());
    for _ in 0..1 + of.random.below(6) {
        let burst = if spoilt.pipelined {
            1 + of.random.below(3)
        } else {
            1
        };
        let begun = of.now;
        let mut requests = Vec::new();
        for _ in 0..burst {
            let method = METHODS[of.random.below(METHODS.len())];
            let bytes = of.request(method);
            let empty = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
            let mut sent = of.send(Side::Client, &bytes, spoilt.reordered);
            sent.from = sent.from.wrapping_add(empty);
            requests.push((method, sent));
        }
        of.later(10_000, 40_000);
        if of.random.below(4) == 0 {
            of.packet(Side::Server, ACK, b"");
            of.later(500, 20_000);
        }
        turns.push((begun, of.now));
        for (method, request) in requests {
            let status = [200, 204, 302, 404, 500][of.random.below(5)];
            let interim = method == "POST" && of.random.below(4) == 0;
            if interim {
                of.send(Side::Server, b"HTTP/1.1 100 Continue\r\n\r\n", false);
                of.later(1_000, 3_000);
            }
            let bytes = of.response(method, status);
            let response = of.send(Side::Server, &bytes, spoilt.reordered);
            exchanges.push(Truth {
                method,
                status,
                request,
                response,
            });
        }
        of.later(1_000, 500);
        of.packet(Side::Client, ACK, b"");
        of.later(60_000, 900_000);
    }
    of.packet(Side::Client, FIN | ACK, b"");
    of.later(10_000, 10);
    of.packet(Side::Server, FIN | ACK, b"");
    of.later(1_000, 10);
    of.packet(Side::Client, ACK, b"");
    let mut passed = of.packets;
    if spoilt.doubled {
        for _ in 0..3 {
            let at = of.random.below(passed.len());
            let mut again = passed[at].clone();
            again.time = WallTime(again.time.0 + 1000);
            passed.insert(at + 1, again);
        }
    }
    let mut captured = vec![true; passed.len()];
    if spoilt.midstream {
        let until = of.random.below(passed.len());
        captured[..until].fill(false);
    }
    for _ in 0..spoilt.missed {
        captured[of.random.below(passed.len())] = false;
    }
    Generated {
        passed,
        captured,
        exchanges,
        turns,
    }
}

/// Bytes of Ethernet, IP and TCP before the payload.
fn headers(packet: &Built) -> usize {
    packet.frame().len() - packet.payload.len()
}

/// Everything that an analysis of the capture shows.
#[derive(Default)]
struct Shown {
    flows: Vec<BoxedFlow>,
    answers: Vec<ResponseSample>,
}

impl Observer for Shown {
    fn segment(
        &mut self,
        _now: WallTime,
        _flow: &Flow,
        _sender: Side,
        _segment: &TcpSegment<'_>,
        findings: &Findings,
    ) {
        self.answers.extend(findings.answer);
    }

    fn ended(&mut self, flow: BoxedFlow) {
        self.flows.push(flow);
    }
}

fn analyse(of: &Generated, kept: Option<usize>) -> Shown {
    let mut shown = Shown::default();
    let mut analyzer = Analyzer::new(LIMITS);
    let captured = of
        .passed
        .iter()
        .zip(&of.captured)
        .filter(|(_, there)| **there);
    for (packet, _) in captured {
        let frame = packet.frame();
        let cut = kept.map_or(frame.len(), |kept| frame.len().min(headers(packet) + kept));
        analyzer.packets(
            &[Packet {
                interface: 0,
                time: Some(packet.time),
                link: LINK_ETHERNET,
                original: frame.len() as u32,
                data: &frame[..cut],
            }],
            &mut shown,
        );
    }
    analyzer.finish(&mut shown);
    shown
}

impl Sent {
    fn has_a_byte_in(&self, packet: &Built) -> bool {
        let end = packet.seq.wrapping_add(packet.payload.len() as u32);
        let after = |a: u32, b: u32| (a.wrapping_sub(b) as i32) > 0;
        !packet.payload.is_empty() && after(end, self.from) && after(self.to, packet.seq)
    }
}

impl Generated {
    /// Times of the packets with bytes of a message: of those that passed, or of those in the
    /// capture.
    fn times(&self, side: Side, sent: &Sent, captured: bool) -> Vec<WallTime> {
        let both = self.passed.iter().zip(&self.captured);
        both.filter(|(packet, there)| {
            (packet.from_client == (side == Side::Client))
                && sent.has_a_byte_in(packet)
                && (!captured || **there)
        })
        .map(|(packet, _)| packet.time)
        .collect()
    }

    fn is_captured(&self, side: Side, sent: &Sent) -> bool {
        self.times(side, sent, true).len() == self.times(side, sent, false).len()
    }
}

/// Fails unless each figure is right or unknown; how many exchanges have both times to the first
/// byte.
fn check(of: &Generated, shown: &Shown, what: &str) -> Vec<usize> {
    let mut known = Vec::new();
    let mut seen = Vec::new();
    let exchanges = shown.flows.iter().flat_map(|flow| &flow.http);
    for found in exchanges.flat_map(|http| &http.exchanges) {
        let of_request = |truth: &Truth| found.request_seq == Some(truth.request.from);
        let of_response = |truth: &Truth| found.response_seq == Some(truth.response.from);
        let request = of.exchanges.iter().position(of_request);
        let response = of.exchanges.iter().position(of_response);
        assert_eq!(
            request.is_some(),
            found.request_seq.is_some(),
            "{what}: {found:?}"
        );
        assert_eq!(
            response.is_some(),
            found.response_seq.is_some(),
            "{what}: {found:?}"
        );
        if let (Some(request), Some(response)) = (request, response) {
            assert_eq!(request, response, "{what}: shifted: {found:?}");
            known.push(request);
        }
        let Some(at) = request.or(response) else {
            panic!("{what}: an exchange of nothing: {found:?}")
        };
        assert!(
            !seen.contains(&(at, request.is_some())),
            "{what}: twice: {found:?}"
        );
        seen.push((at, request.is_some()));
        let truth = &of.exchanges[at];
        let method = found.method();
        assert!(
            method.map_or(true, |method| method == truth.method),
            "{what}: {found:?}"
        );
        assert!(
            found.status.map_or(true, |status| status == truth.status),
            "{what}: {found:?}"
        );
        let figures = [
            (
                Side::Client,
                &truth.request,
                found.request_first.get(),
                found.request_last.get(),
            ),
            (
                Side::Server,
                &truth.response,
                found.response_first.get(),
                found.response_last.get(),
            ),
        ];
        for (side, sent, first, last) in figures {
            for captured in [true, false] {
                let times = of.times(side, sent, captured);
                assert!(first.is_none() || captured || first >= times.iter().min().copied());
            }
            let times = of.times(side, sent, true);
            assert!(
                first.map_or(true, |first| times.iter().min() == Some(&first)),
                "{what}: first of {side:?}: {found:?} of {times:?}"
            );
            assert!(
                last.map_or(true, |last| times.iter().max() == Some(&last)),
                "{what}: last of {side:?}: {found:?} of {times:?}"
            );
        }
    }
    known
}

const CLEAN: Spoilt = Spoilt {
    reordered: false,
    doubled: false,
    missed: 0,
    kept: None,
    pipelined: false,
    midstream: false,
};

/// The seeds of a run; `PASSIVE_SEEDS` asks for more.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let factor = std::env::var("PASSIVE_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    1..=factor.unwrap_or(1000)
}

#[test]
fn a_whole_capture_has_every_exchange_however_it_is_ordered() {
    for seed in seeds() {
        let spoilt = Spoilt {
            reordered: seed % 2 == 0,
            doubled: seed % 3 == 0,
            pipelined: seed % 5 == 0,
            ..CLEAN
        };
        let of = generate(seed, spoilt);
        let shown = analyse(&of, None);
        let what = format!("seed {seed}, {spoilt:?}");
        let known = check(&of, &shown, &what);
        assert_eq!(known.len(), of.exchanges.len(), "{what}");
        let http = shown.flows[0].http.as_ref().unwrap();
        assert_eq!((http.gaps, http.without_status), (0, 0), "{what}");
        for found in &http.exchanges {
            assert!(
                found.response_last.is_some() && found.request_last.is_some(),
                "{what}"
            );
        }
    }
}

#[test]
fn what_the_capture_lacks_is_unknown_and_shifts_nothing() {
    for seed in seeds() {
        let spoilt = Spoilt {
            reordered: seed % 2 == 0,
            doubled: seed % 3 == 0,
            missed: 1 + seed as usize % 6,
            kept: [None, None, Some(30), Some(62)][seed as usize % 4],
            pipelined: seed % 5 == 0,
            midstream: seed % 7 == 0,
        };
        let of = generate(seed, spoilt);
        let shown = analyse(&of, spoilt.kept);
        check(&of, &shown, &format!("seed {seed}, {spoilt:?}"));
    }
}

#[test]
fn a_missing_packet_leaves_the_other_exchanges_known() {
    for seed in seeds() {
        let spoilt = Spoilt {
            reordered: seed % 2 == 0,
            missed: 1,
            ..CLEAN
        };
        let of = generate(seed, spoilt);
        let shown = analyse(&of, None);
        let what = format!("seed {seed}, {spoilt:?}");
        let known = check(&of, &shown, &what);
        for (at, truth) in of.exchanges.iter().enumerate() {
            let whole = of.is_captured(Side::Client, &truth.request)
                && of.is_captured(Side::Server, &truth.response);
            assert!(!whole || known.contains(&at), "{what}: {at} is unknown");
        }
    }
}

#[test]
fn a_snap_length_that_cuts_heads_keeps_times_and_statuses() {
    for seed in seeds() {
        let of = generate(seed, CLEAN);
        let shown = analyse(&of, Some(62));
        let what = format!("seed {seed}");
        let known = check(&of, &shown, &what);
        assert_eq!(known.len(), of.exchanges.len(), "{what}");
        let http = shown.flows[0].http.as_ref().unwrap();
        assert_eq!(http.without_status, 0, "{what}");
    }
}

#[test]
fn answers_are_those_of_the_turns() {
    let mut found = [0, 0];
    for seed in seeds() {
        let spoilt = Spoilt {
            reordered: seed % 2 == 0,
            doubled: seed % 3 == 0,
            missed: seed as usize % 4,
            midstream: seed % 7 == 0,
            ..CLEAN
        };
        let of = generate(seed, spoilt);
        let shown = analyse(&of, None);
        for answer in shown
            .answers
            .iter()
            .filter(|answer| answer.side == Side::Server)
        {
            let turn = of.turns.iter().find(|(begun, _)| {
                (answer.time.0 - answer.response.0 as u64).abs_diff(begun.0) <= 1000
            });
            assert!(
                turn.is_some(),
                "seed {seed}, {spoilt:?}: {answer:?} of {:?}",
                of.turns
            );
            let late = answer.time.0 - turn.unwrap().1 .0;
            assert!(
                late < 1_000_000,
                "seed {seed}, {spoilt:?}: {answer:?} is {late} ns late"
            );
        }
        found[usize::from(spoilt.missed == 0)] += shown.answers.len();
        if spoilt.missed == 0 && !spoilt.midstream {
            let server = shown
                .answers
                .iter()
                .filter(|answer| answer.side == Side::Server);
            assert!(server.count() >= of.turns.len(), "seed {seed}, {spoilt:?}");
        }
    }
    assert!(found.iter().all(|found| *found > 500), "{found:?}");
}
