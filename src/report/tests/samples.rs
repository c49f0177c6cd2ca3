//! Hand-made and random reports and blocks for the tests of the renderers.

use super::block::BlockLine;
use super::{Blocks, FlowReport, PathNode, PathReport, PathRest, Report, ServerDown};
use crate::annotation::{AnnotationValue, HostAnnotation, NodeAnnotations};
use crate::http::head::MessageKind;
use crate::http::stamp::StampNames;
use crate::measure::sla::{self, Amount, LimitState, RuleEvent, Statistic};
use crate::measure::HeaderDelays;
use crate::measure::{
    Also, Basis, Confidence, Figure, FlowPart, FlowStatistics, HostStatistics, Largest, NodeId,
    Part, PartStatistics, SegmentStatistics, Statistics, Summary, Verdict, VerdictDirection,
    VerdictKind,
};
use crate::measure::{Histogram, HostPart, Parts, SegmentPart, Sla};
use crate::time::{Nanos, SignedNanos, WallTime, NANOS_PER_SEC};
use crate::vec_map::VecMap;

/// 2026-11-21T09:30:00Z
const STARTED: WallTime = WallTime(1_795_253_400 * NANOS_PER_SEC);

/// Fails with the first line that differs; golden files are changed by hand, after reading.
#[track_caller]
pub(in crate::report) fn assert_same(expected: &str, got: &str) {
    let (mut expected_lines, mut got_lines) = (expected.lines(), got.lines());
    for number in 1.. {
        let (expected_line, got_line) = (expected_lines.next(), got_lines.next());
        assert!(
            expected_line == got_line,
            "line {number} differs (None: the text ends before it)\n\
             expected: {expected_line:?}\ngot:      {got_line:?}\n\
             all of it:\n{got}"
        );
        if expected_line.is_none() {
            break;
        }
    }
    assert_eq!(expected, got, "only the line ends differ");
}

/// Figures around a mean; 100 of them.
pub(in crate::report) fn summary(mean: i64) -> Summary {
    Summary {
        count: 100,
        min: SignedNanos(mean / 2),
        mean: SignedNanos(mean),
        stddev: SignedNanos(mean / 3).abs(),
        p50: SignedNanos(mean - mean / 10),
        p90: SignedNanos(mean + mean / 2),
        p95: SignedNanos(mean * 2),
        p99: SignedNanos(mean * 3),
        max: SignedNanos(mean * 4),
        last: SignedNanos(mean - mean / 33),
    }
}

fn verdict_of(kind: VerdictKind, name: &str) -> Verdict {
    Verdict {
        kind,
        name: name.to_owned(),
        ..Verdict::default()
    }
}

fn node(hop: u8, name: &str, role: &str) -> PathNode {
    PathNode {
        hop,
        id: 0xa0 + u64::from(hop),
        name: name.to_owned(),
        role: role.to_owned(),
        address: (hop > 0).then(|| format!("10.0.0.{}:9000", 6 + hop)),
        tags: Vec::new(),
        connect: (role != "exit").then(|| Nanos::from_micros(310 + 40 * u64::from(hop))),
        clock_error: None,
    }
}

fn host(hop: u8, forward: i64, back: Option<i64>, share: f64) -> HostStatistics {
    HostStatistics {
        hop,
        nodes: vec![NodeId(0xa0 + u64::from(hop))],
        forward_residence: Some(summary(forward)),
        return_residence: back.map(summary),
        share: Some(share),
        baseline: Some(SignedNanos(forward)),
        increase: Some(SignedNanos(forward / -50)),
        clock_steps: 0,
        forward_distribution: Histogram::default(),
        return_distribution: Histogram::default(),
        forward_wake_up: Some(summary(14_000)),
        return_wake_up: None,
        sla: Sla::None,
    }
}

/// B -> C is beyond its critical limit, the total within both of its own.
/// A part whose distribution is a [`summary`].
pub(in crate::report) fn part(part: Part, mean: i64, share: Option<f64>) -> PartStatistics {
    PartStatistics {
        part,
        delay: Some(summary(mean)),
        distribution: Histogram::default(),
        window: Some(summary(mean)),
        mean: Some(SignedNanos(mean)),
        share,
        baseline: None,
        increase: None,
        figure: None,
        least: None,
        retransmits: [None; 2],
        delayed_by_loss: None,
        sla: Sla::None,
    }
}

/// The parts of [`full`].
fn full_parts(hosts: &[HostStatistics], segments: &[SegmentStatistics]) -> Vec<PartStatistics> {
    let mut parts = Vec::new();
    for (place, host) in hosts.iter().enumerate() {
        let ways = [host.forward_residence, host.return_residence];
        let mean = ways.iter().flatten().map(|way| way.mean.0).sum::<i64>();
        parts.push(PartStatistics {
            baseline: host.baseline,
            increase: host.increase,
            sla: host.sla,
            ..part(Part::Host(host.hop), mean, host.share)
        });
        let Some(segment) = segments.get(place) else {
            continue;
        };
        let mean = segment.round_trip.map_or(0, |summary| summary.mean.0);
        let named = segment.increase > Some(SignedNanos(1_000_000));
        parts.push(PartStatistics {
            baseline: segment.baseline,
            increase: segment.increase,
            figure: named.then_some(Figure::P95),
            least: Some(Nanos(40_000)),
            retransmits: segment.retransmits,
            delayed_by_loss: Some(if named { 9 } else { 0 }),
            sla: segment.sla,
            ..part(segment.part(), mean, segment.share)
        });
    }
    parts.push(part(Part::ServerConnect, 95_000, None));
    parts.push(part(Part::Server, 412_000, None));
    parts
}

fn limits() -> Vec<LimitState> {
    let total = LimitState {
        part: Part::Total,
        line: None,
        figure: sla::RuleFigure::RoundTrip,
        statistic: Some(Statistic::Mean),
        severity: Sla::Warning,
        limit: Some(Amount::Span(SignedNanos(100_000_000))),
        value: Some(Amount::Span(SignedNanos(2_970_000))),
        state: Sla::Ok,
    };
    let segment = LimitState {
        part: Part::Segment { from: 1, to: 2 },
        line: Some(3),
        statistic: Some(Statistic::P95),
        severity: Sla::Critical,
        limit: Some(Amount::Span(SignedNanos(5_000_000))),
        value: Some(Amount::Span(SignedNanos(5_258_000))),
        state: Sla::Critical,
        ..total.clone()
    };
    let loss = LimitState {
        figure: sla::RuleFigure::Loss,
        statistic: None,
        severity: Sla::Critical,
        limit: Some(Amount::Share(0.2)),
        value: Some(Amount::Share(0.03)),
        ..total.clone()
    };
    vec![segment, total, loss]
}

fn events() -> Vec<RuleEvent> {
    vec![RuleEvent {
        at: WallTime(STARTED.0 + 61 * NANOS_PER_SEC),
        sequence: 60,
        now: limits().swap_remove(0),
    }]
}

/// Four nodes, A to Z, every field set: B -> C has grown, C is a pool whose clock was stepped, Z is
/// an exit.
pub(in crate::report) fn full() -> Report {
    let mut nodes = vec![
        node(0, "A", "source"),
        node(1, "B", "relay"),
        node(2, "C", "relay"),
        node(3, "Z", "exit"),
    ];
    nodes[1].tags = vec!["rack=7".to_owned(), "say \"hi\"\n\u{1b}[31m".to_owned()];
    let ab = SegmentStatistics {
        from_hop: 0,
        to_hop: 1,
        round_trip: Some(summary(92_000)),
        forward_excess: Some(summary(11_000)),
        return_excess: Some(summary(9_000)),
        held_share: Some(0.0),
        clock_offset: Some(SignedNanos(12_345_678)),
        clock_offset_error: Some(Nanos(23_000)),
        clock_skew_ppm: Some(1.2),
        share: Some(0.030_976_431),
        baseline: Some(SignedNanos(90_000)),
        increase: Some(SignedNanos(2_000)),
        negative: 0,
        distribution: Histogram::default(),
        network: Some(summary(61_000)),
        retransmits: [Some(3), Some(0)],
        sla: Sla::Ok,
    };
    let bc = SegmentStatistics {
        from_hop: 1,
        to_hop: 2,
        round_trip: Some(summary(2_629_000)),
        forward_excess: Some(summary(2_300_000)),
        return_excess: Some(summary(12_000)),
        clock_offset: Some(SignedNanos(-3_600_000_000_000)),
        clock_offset_error: Some(Nanos(160_000)),
        clock_skew_ppm: None,
        share: Some(0.885_123_456_789),
        baseline: Some(SignedNanos(320_000)),
        increase: Some(SignedNanos(2_310_000)),
        negative: 1,
        sla: Sla::Critical,
        ..ab.clone()
    };
    let cz = SegmentStatistics {
        from_hop: 2,
        to_hop: 3,
        round_trip: Some(summary(98_000)),
        forward_excess: Some(summary(70_000)),
        return_excess: Some(summary(60_000)),
        held_share: Some(0.34),
        clock_offset: None,
        clock_offset_error: None,
        clock_skew_ppm: None,
        share: Some(0.033),
        ..ab.clone()
    };
    let mut hosts = vec![
        host(0, 38_000, None, 0.0128),
        host(1, 21_000, Some(17_000), 0.0128),
        host(2, 26_000, Some(19_000), 0.015),
        host(3, 30_000, None, 0.01),
    ];
    hosts[2].nodes = vec![NodeId(0xa2), NodeId(0xb2), NodeId(0xc2)];
    hosts[2].clock_steps = 1;
    let segments = vec![ab, bc, cz];
    let parts = full_parts(&hosts, &segments);
    Report {
        started: STARTED,
        ended: WallTime(STARTED.0 + 99 * NANOS_PER_SEC + 400_000_000),
        role: "source".to_owned(),
        path: PathReport {
            cookie: Some(0x00c0_ffee_00c0_ffee),
            nodes,
        },
        label: None,
        others: Vec::new(),
        rest: PathRest::default(),
        header_delays: HeaderDelays::default(),
        blocks: Blocks {
            sent: 103,
            received: 100,
            lost: 3,
            unsent: 0,
            late: 1,
            duplicate: 2,
            payload_bytes: 6592,
        },
        opened: None,
        server_down: None,
        flows: Vec::new(),
        statistics: Statistics {
            batches: Vec::new(),
            round_trip: Some(summary(2_970_000)),
            distribution: Histogram::default(),
            window: None,
            parts,
            largest: Some(Largest {
                kind: VerdictKind::Segment,
                index: Some(1),
                part: Part::Segment { from: 1, to: 2 },
                name: "B -> C".to_owned(),
                share: Some(0.885_123_456_789),
                mean: SignedNanos(2_629_000),
                p50: Some(SignedNanos(2_370_000)),
                second: None,
            }),
            sla: Sla::Critical,
            segments,
            hosts,
            behind_exit: Some(summary(412_000)),
            server_connect: Some(summary(95_000)),
            path_changes: 2,
            verdict: Verdict {
                index: Some(1),
                part: Some(Part::Segment { from: 1, to: 2 }),
                baseline: Some(SignedNanos(320_000)),
                since: Some(WallTime(STARTED.0 + 51 * NANOS_PER_SEC)),
                also: vec![Also {
                    kind: VerdictKind::Host,
                    index: Some(2),
                    part: Part::Host(2),
                    name: "C".to_owned(),
                    increase: SignedNanos(-120_000),
                    since: None,
                    since_at_most: Some(STARTED),
                }],
                doubts: vec!["the clock of C was stepped".to_owned()],
                retransmitted: true,
                direction: Some(VerdictDirection::Forward),
                basis: Some(Basis::Increase),
                figure: Figure::P95,
                share: Some(0.885_123_456_789),
                increase: Some(SignedNanos(2_310_000)),
                increase_low: Some(SignedNanos(2_120_000)),
                increase_high: Some(SignedNanos(2_480_000)),
                confidence: Confidence::Low,
                reason: "p95 of 8 x 8 batches, interval 2.12 to 2.48 ms, clear of the next \
                         (A -> B, 0.002 ms)"
                    .to_owned(),
                text:
                    "B -> C adds 2.31 ms over its baseline of 0.320 ms, on the way forward, and is \
                       89 % of the total delay"
                        .to_owned(),
                cause: Some(
                    "network: both round trip and the kernel's RTT rose, 12 retransmissions"
                        .to_owned(),
                ),
                ..verdict_of(VerdictKind::Segment, "B -> C")
            },
        },
        limits: limits(),
        events: events(),
        broken: None,
        unmatched: false,
        first_annotations: Vec::new(),
        annotations: vec![NodeAnnotations {
            hop: 2,
            sequence: 99,
            annotations: vec![
                HostAnnotation {
                    name: "load1".to_owned(),
                    value: AnnotationValue::Number(0.4),
                },
                HostAnnotation {
                    name: "error.snmp".to_owned(),
                    value: AnnotationValue::Text("no answer from \u{1b}[31m".to_owned()),
                },
            ],
        }],
        timeline: None,
        dropped: 4,
        notices: vec![
            "10.0.0.7:9000 closed the connection once; connected again after 0.3 s".to_owned(),
        ],
    }
}

/// A run in which nothing was measured.
pub(in crate::report) fn empty() -> Report {
    Report {
        started: STARTED,
        ended: WallTime(STARTED.0 + 10 * NANOS_PER_SEC),
        role: "source".to_owned(),
        path: PathReport::default(),
        label: None,
        others: Vec::new(),
        rest: PathRest::default(),
        header_delays: HeaderDelays::default(),
        blocks: Blocks::default(),
        opened: None,
        server_down: None,
        flows: Vec::new(),
        statistics: Statistics {
            batches: Vec::new(),
            round_trip: None,
            distribution: Histogram::default(),
            window: None,
            parts: Vec::new(),
            largest: None,
            sla: Sla::None,
            segments: Vec::new(),
            hosts: Vec::new(),
            behind_exit: None,
            server_connect: None,
            path_changes: 0,
            verdict: Verdict {
                reason: "no block was answered".to_owned(),
                text: "nothing was measured".to_owned(),
                ..verdict_of(VerdictKind::None, "none")
            },
        },
        limits: Vec::new(),
        events: Vec::new(),
        broken: None,
        unmatched: false,
        first_annotations: Vec::new(),
        annotations: Vec::new(),
        timeline: None,
        dropped: 0,
        notices: vec!["connect to 10.0.0.7:9000: connection refused".to_owned()],
    }
}

/// SplitMix64.
pub(in crate::report) struct Random(pub(in crate::report) u64);

impl Random {
    pub(in crate::report) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::report) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(in crate::report) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(4) > 0).then(|| make(self))
    }

    /// Returns a span between a nanosecond and 292 years, with either sign.
    pub(in crate::report) fn span(&mut self) -> SignedNanos {
        let shift = self.below(64);
        SignedNanos((self.next() as i64) >> shift)
    }

    fn float(&mut self) -> f64 {
        match self.below(8) {
            0 => self.span().0 as f64,
            1 => 1.0,
            2 => f64::NAN,
            _ => self.below(1_000_001) as f64 / 1e6,
        }
    }

    pub(in crate::report) fn name(&mut self) -> String {
        const ALPHABET: [char; 16] = [
            'a', 'b', 'Z', '0', '-', '.', ' ', '"', '\\', ',', '\n', '\u{1b}', '\u{9b}',
            '\u{202e}', 'ü', '北',
        ];
        let length = self.below(65);
        (0..length)
            .map(|_| ALPHABET[self.below(16) as usize])
            .collect()
    }

    fn summary(&mut self) -> Summary {
        Summary {
            count: self.next(),
            min: self.span(),
            mean: self.span(),
            stddev: self.span().abs(),
            p50: self.span(),
            p90: self.span(),
            p95: self.span(),
            p99: self.span(),
            max: self.span(),
            last: self.span(),
        }
    }
}

/// Anything that the types allow, nonsense included; the same for the same seed.
pub(in crate::report) fn random(seed: u64) -> Report {
    let r = &mut Random(seed);
    let hops: Vec<u8> = (0..=255).filter(|_| r.below(256) < 6).collect();
    let nodes = hops.iter().filter_map(|&hop| {
        r.maybe(|r| PathNode {
            hop,
            id: r.next(),
            name: r.name(),
            role: r.name(),
            address: r.maybe(Random::name),
            tags: vec![r.name()],
            connect: r.maybe(|r| Nanos(r.next())),
            clock_error: None,
        })
    });
    let path = PathReport {
        nodes: nodes.collect(),
        cookie: r.maybe(Random::next),
    };
    let segments = hops.windows(2).map(|pair| SegmentStatistics {
        from_hop: pair[0],
        to_hop: pair[1],
        round_trip: r.maybe(Random::summary),
        forward_excess: r.maybe(Random::summary),
        return_excess: r.maybe(Random::summary),
        held_share: r.maybe(Random::float),
        clock_offset: r.maybe(Random::span),
        clock_offset_error: r.maybe(|r| Nanos(r.next())),
        clock_skew_ppm: r.maybe(Random::float),
        share: r.maybe(Random::float),
        baseline: r.maybe(Random::span),
        increase: r.maybe(Random::span),
        negative: r.below(3),
        distribution: Histogram::default(),
        network: r.maybe(Random::summary),
        retransmits: [Some(3), Some(0)],
        sla: Sla::None,
    });
    let segments: Vec<_> = segments.collect();
    let hosts = hops.iter().map(|&hop| HostStatistics {
        hop,
        nodes: (0..r.below(4)).map(NodeId).collect(),
        forward_residence: r.maybe(Random::summary),
        return_residence: r.maybe(Random::summary),
        share: r.maybe(Random::float),
        baseline: r.maybe(Random::span),
        increase: r.maybe(Random::span),
        clock_steps: r.below(3),
        forward_distribution: Histogram::default(),
        return_distribution: Histogram::default(),
        forward_wake_up: r.maybe(Random::summary),
        return_wake_up: r.maybe(Random::summary),
        sla: Sla::Warning,
    });
    let hosts = hosts.collect();
    let parts = random_parts(r, &hops);
    let sum: i64 = parts
        .iter()
        .filter_map(|part| part.mean)
        .map(|mean| mean.0)
        .sum();
    let first = parts.first().map(|part: &PartStatistics| part.part);
    let largest = first.and_then(|part| {
        r.maybe(|r| Largest {
            kind: VerdictKind::Host,
            index: None,
            part,
            name: r.name(),
            share: r.maybe(Random::float),
            mean: r.span(),
            p50: r.maybe(Random::span),
            second: r.maybe(Random::name),
        })
    });
    let kinds = [
        VerdictKind::Segment,
        VerdictKind::Host,
        VerdictKind::Source,
        VerdictKind::Server,
        VerdictKind::Clock,
        VerdictKind::None,
    ];
    let verdict = Verdict {
        index: r.maybe(|r| r.below(8) as usize),
        direction: r.maybe(|_| VerdictDirection::Both),
        share: r.maybe(Random::float),
        increase: r.maybe(Random::span),
        part: first.filter(|_| r.below(2) == 0),
        doubts: (0..r.below(3)).map(|_| r.name()).collect(),
        reason: r.name().repeat(4),
        text: r.name().repeat(4),
        ..verdict_of(kinds[r.below(6) as usize], &r.name())
    };
    Report {
        started: WallTime(r.next()),
        ended: WallTime(r.next()),
        role: r.name(),
        path,
        label: None,
        others: Vec::new(),
        rest: PathRest::default(),
        header_delays: (0..r.below(2))
            .map(|_| header_delays())
            .next()
            .unwrap_or_default(),
        blocks: Blocks {
            sent: r.next(),
            received: r.next(),
            lost: r.next(),
            unsent: r.next(),
            late: r.next(),
            duplicate: r.next(),
            payload_bytes: r.next(),
        },
        opened: r.maybe(|r| Nanos(r.next() >> 1)),
        flows: (0..r.next() % 4).map(|_| flow(r)).collect(),
        server_down: r.maybe(|r| ServerDown {
            since: WallTime(r.next() >> 1),
            error: format!("connect to \u{1b}[2J{}: refused", r.next()),
        }),
        statistics: Statistics {
            batches: Vec::new(),
            round_trip: r.maybe(|_| summary(sum)),
            distribution: Histogram::default(),
            window: None,
            parts,
            largest,
            sla: Sla::None,
            segments,
            hosts,
            behind_exit: r.maybe(Random::summary),
            server_connect: r.maybe(Random::summary),
            path_changes: r.next(),
            verdict,
        },
        limits: Vec::new(),
        events: Vec::new(),
        broken: None,
        unmatched: false,
        first_annotations: Vec::new(),
        annotations: Vec::new(),
        timeline: None,
        dropped: r.next(),
        notices: (0..r.below(3)).map(|_| r.name()).collect(),
    }
}

/// Parts whose means are those of the total and whose shares are those of 1.
fn random_parts(r: &mut Random, hops: &[u8]) -> Vec<PartStatistics> {
    let mut parts = Vec::new();
    for (place, &hop) in hops.iter().enumerate() {
        parts.push(Part::Host(hop));
        if let Some(&to) = hops.get(place + 1) {
            parts.extend(r.maybe(|_| Part::Connect { from: hop, to }));
            parts.push(Part::Segment { from: hop, to });
        } else {
            parts.extend(r.maybe(|_| Part::Behind(hop)));
        }
    }
    let means: Vec<_> = parts.iter().map(|_| 1 + r.below(1 << 28) as i64).collect();
    let whole: i64 = means.iter().sum();
    let parts = parts
        .into_iter()
        .zip(means)
        .map(|(of, mean)| PartStatistics {
            baseline: r.maybe(Random::span),
            increase: r.maybe(Random::span),
            figure: r.maybe(|_| Figure::Mean),
            retransmits: [r.maybe(Random::next), r.maybe(Random::next)],
            delayed_by_loss: r.maybe(Random::next),
            ..part(of, mean, Some(mean as f64 / whole as f64))
        });
    parts.collect()
}

/// The parts of a block whose hosts stand at `hops`: 1 µs and a hop number of ns in each, the last
/// reflects.
fn parts(hops: &[u8], offset: i64) -> Parts {
    let last = hops.last().copied();
    let residence = |hop: u8| Some(SignedNanos(1_000 + i64::from(hop)));
    let hosts: Vec<_> = hops
        .iter()
        .map(|&hop| HostPart {
            hop,
            node: NodeId(u64::from(hop)),
            forward_residence: residence(hop),
            return_residence: residence(hop).filter(|_| hop > 0 && Some(hop) != last),
            forward_wake_up: Some(SignedNanos(700)).filter(|_| hop > 0),
            return_wake_up: Some(SignedNanos(300)).filter(|_| Some(hop) != last),
            own_wake_ups: [SignedNanos::ZERO; 2],
        })
        .collect();
    let segments: Vec<_> = hops
        .windows(2)
        .map(|pair| SegmentPart {
            from_hop: pair[0],
            to_hop: pair[1],
            round_trip: Some(SignedNanos(50_000)),
            network: Some(SignedNanos(49_000)),
            forward: Some(SignedNanos(20_000 + offset)),
            back: Some(SignedNanos(30_000 - offset)),
            wake_ups: Some([SignedNanos(700), SignedNanos(300)]),
            connect: None,
        })
        .collect();
    let mut parts = Parts {
        total: None,
        hosts,
        segments,
        ..Parts::default()
    };
    parts.total = Some(sum(&parts));
    parts
}

fn sum(parts: &Parts) -> SignedNanos {
    let residences = parts
        .hosts
        .iter()
        .flat_map(|host| [host.forward_residence, host.return_residence]);
    residences
        .chain(parts.segments.iter().map(|segment| segment.round_trip))
        .flatten()
        .sum()
}

/// Renders a run: a block lost before any answer, one answered, a late duplicate, one lost, one
/// over a stepped clock. Two blocks have another path. On it a name needs quotes and two hops share
/// one.
pub(in crate::report) fn with_blocks(render: impl FnMut(&BlockLine<'_>) -> String) -> String {
    let names = |names: &[(u8, &str)]| -> VecMap<u8, String> {
        names
            .iter()
            .map(|&(hop, name)| (hop, name.to_owned()))
            .collect()
    };
    let first_path = names(&[(0, "A"), (1, "B"), (2, "Z")]);
    let changed_path = names(&[(0, "A"), (1, "a,\"b"), (4, "A")]);
    let plain = parts(&[0, 1, 2], 5_000_000);
    let mut stepped = plain.clone();
    // B's clock went 9.05 ms ahead between the block's way out and its way back.
    stepped.segments[0].round_trip = Some(SignedNanos(-9_000_000));
    stepped.segments[0].network = Some(SignedNanos(-9_001_000));
    stepped.segments[0].back = Some(SignedNanos(-14_020_000));
    stepped.segments[1].round_trip = Some(SignedNanos(9_100_000));
    stepped.segments[1].network = Some(SignedNanos(9_099_000));
    stepped.segments[1].back = Some(SignedNanos(4_080_000));
    stepped.total = Some(sum(&stepped));
    let mut spoilt = parts(&[0, 1, 3, 4], 0);
    spoilt.segments[1].round_trip = None;
    spoilt.segments[1].network = None;
    spoilt.total = None;
    let changed = parts(&[0, 1, 3, 4], 0);
    let block = |sequence: u64, parts, names| BlockLine {
        sequence,
        scheduled: WallTime(STARTED.0 + sequence * NANOS_PER_SEC),
        parts,
        names,
        late: false,
        duplicate: false,
        clock_step: false,
    };
    let blocks = [
        block(0, None, &first_path),
        block(1, Some(&plain), &first_path),
        BlockLine {
            late: true,
            duplicate: true,
            ..block(1, Some(&plain), &first_path)
        },
        block(2, None, &first_path),
        BlockLine {
            clock_step: true,
            ..block(3, Some(&stepped), &first_path)
        },
        block(4, Some(&changed), &changed_path),
        BlockLine {
            clock_step: true,
            ..block(5, Some(&spoilt), &changed_path)
        },
        block(6, Some(&plain), &first_path),
    ];
    blocks.iter().map(render).collect()
}

fn flow(r: &mut Random) -> FlowReport {
    let part = |part, r: &mut Random| FlowPart {
        part,
        p50: SignedNanos(r.next() as i64),
        p95: SignedNanos(r.next() as i64),
        difference: r.maybe(|r| SignedNanos(r.next() as i64)),
    };
    FlowReport {
        local: r.maybe(|r| ([10, 0, 0, 1], r.next() as u16).into()),
        statistics: FlowStatistics {
            blocks: r.next(),
            parts: vec![
                part(Part::Total, r),
                part(Part::Segment { from: 0, to: 1 }, r),
            ],
        },
    }
}

/// Delays of stamps in heads of HTTP, on known and unknown clocks.
pub(in crate::report) fn header_delays() -> HeaderDelays {
    let names = StampNames::new(&[]);
    let mut headers = None;
    let value = b"haproxy-1 1795253400.100, squid-2 1795253400.104, nginx 110";
    names.read(
        MessageKind::Request,
        b"X-Request-Start",
        value,
        &mut headers,
    );
    names.read(
        MessageKind::Response,
        b"Server-Timing",
        b"db;dur=53.2",
        &mut headers,
    );
    let mut headers = *headers.unwrap();
    let own = Some(WallTime(1_795_253_400_111_000_000));
    headers.resolve(MessageKind::Request, own, &[]);
    let mut delays = HeaderDelays::at("A");
    delays.record(&headers, [own, None]);
    delays
}
