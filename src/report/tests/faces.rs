//! Every face of a report has the same two answers.

use super::super::html::Page;
use super::super::prometheus::{self, Exposition, NodeFigures, Observed};
use super::super::text::TextStyle;
use super::super::{
    html, json as json_face, nagios, screen, text, Broken, FlowReport, Report, State,
};
use super::json::{parse, Value};
use super::samples;
use crate::measure::tests::simulator::{Random, SimPath, MS};
use crate::measure::timeline::{EventKind, TimelineEvent};
use crate::measure::{
    Baseline, Basis, FlowPart, FlowStatistics, Model, Part, Verdict, VerdictKind,
};
use crate::time::{MonoTime, Now, SignedNanos, WallTime};

/// One set of measurements with a verdict of each kind.
fn reports() -> Vec<Report> {
    let connect = Part::Connect { from: 1, to: 2 };
    let segment = Part::Segment { from: 1, to: 2 };
    let kinds = [
        (VerdictKind::Segment, Some(segment), Some(1)),
        (VerdictKind::Host, Some(Part::Host(2)), Some(2)),
        (VerdictKind::Source, Some(Part::Host(0)), None),
        (VerdictKind::Server, Some(Part::Server), None),
        (VerdictKind::Connect, Some(connect), Some(1)),
        (VerdictKind::Behind, Some(Part::Behind(3)), Some(3)),
        (VerdictKind::Clock, None, None),
        (VerdictKind::Down, None, None),
        (VerdictKind::None, None, None),
    ];
    let report = |(kind, part, index)| {
        let mut report = samples::full();
        report.limits.clear();
        let parts = &mut report.statistics.parts;
        parts.push(samples::part(connect, 40_000, Some(0.01)));
        parts.push(samples::part(Part::Behind(3), 50_000, Some(0.01)));
        let name = match (kind, part) {
            (_, Some(part)) => report.part_name(part),
            (VerdictKind::Clock, None) => "C".to_owned(),
            (kind, None) => kind.name().to_owned(),
        };
        let increase = part.map(|_| SignedNanos(7_310_000));
        let text = match kind {
            VerdictKind::None => "none: no change above 0.31 ms".to_owned(),
            VerdictKind::Down => "down: B is gone".to_owned(),
            VerdictKind::Clock => "clock step at C: nothing else changed".to_owned(),
            _ => format!("{name} adds the delay: +7.31 ms over its baseline of 0.32 ms."),
        };
        if kind == VerdictKind::Down {
            report.broken = Some(Broken {
                state: State::Critical,
                text: "B is gone".to_owned(),
            });
        }
        let since = part.and(report.statistics.verdict.since);
        let least = (kind == VerdictKind::None).then_some(crate::time::Nanos(310_000));
        report.statistics.verdict = Verdict {
            kind,
            index,
            part,
            name,
            basis: part.map(|_| Basis::Increase),
            increase,
            since,
            least,
            text,
            ..Verdict::default()
        };
        report
    };
    kinds.into_iter().map(report).collect()
}

/// Words with one space between them, as a terminal's lines have more.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_face_has_the_same_two_answers_for_every_kind_of_verdict() {
    let reports = reports();
    let mut seen: Vec<VerdictKind> = Vec::new();
    for report in &reports {
        let verdict = &report.statistics.verdict;
        let kind = verdict.kind.name();
        seen.push(verdict.kind);
        let largest = report.largest_text().expect("a largest part");
        let sentences = [&verdict.text, &largest];

        let faces = [
            ("text", text::render(report, &TextStyle::default())),
            (
                "screen",
                screen::lines(
                    report,
                    &screen::Screen {
                        width: 110,
                        height: 60,
                        colour: false,
                        paused: false,
                    },
                )
                .join("\n"),
            ),
            ("nagios", nagios::render(report)),
            (
                "page",
                html::render(report, Page::File)
                    .replace("&gt;", ">")
                    .replace('\u{2192}', "->"),
            ),
        ];
        for (face, shown) in &faces {
            let shown = flat(shown).to_lowercase();
            for sentence in sentences {
                // A plugin begins with the fault that broke the path.
                let sentence = match (*face, verdict.kind) {
                    ("nagios", VerdictKind::Down) => sentence.trim_start_matches("down: "),
                    _ => sentence,
                };
                let sentence = sentence.to_lowercase();
                assert!(
                    shown.contains(&sentence),
                    "{kind}, {face}: no {sentence:?} in {shown}"
                );
            }
        }

        let whole = json_face::render(report);
        let end = json_face::end_line(report);
        for (face, shown) in [("json", whole), ("jsonl", end)] {
            let value = parse(shown.as_bytes()).expect(face);
            let what = format!("{kind}, {face}");
            let text_at = |path: &str| value.at(path).and_then(Value::as_str);
            assert_eq!(text_at("verdict/kind"), Some(kind), "{what}");
            assert_eq!(text_at("verdict/name"), Some(&*verdict.name), "{what}");
            assert_eq!(text_at("verdict/text"), Some(&*verdict.text), "{what}");
            let increase = value.at("verdict/increase_ns").and_then(Value::as_i64);
            assert_eq!(increase, verdict.increase.map(|amount| amount.0), "{what}");
            assert_eq!(text_at("largest/kind"), Some("segment"), "{what}");
            assert_eq!(text_at("largest/name"), Some("B -> C"), "{what}");
            let mean = value.at("largest/mean_ns").and_then(Value::as_i64);
            assert_eq!(mean, Some(2_629_000), "{what}");
        }

        let observed = Observed {
            path: None,
            report: Some(report),
            figures: NodeFigures::default(),
        };
        let metrics = prometheus::render(&[observed], Exposition::Text);
        let series = |name: &str| -> Vec<&str> {
            let prefix = format!("{name}{{");
            let lines = metrics.lines();
            lines.filter(|line| line.starts_with(&prefix)).collect()
        };
        let has =
            |line: &str, label: &str, value: &str| line.contains(&format!("{label}=\"{value}\""));
        let info = series("subsegment_verdict_info");
        assert_eq!(info.len(), 1, "{kind}: {info:?}");
        assert!(
            has(info[0], "kind", kind) && has(info[0], "name", &verdict.name),
            "{kind}: {info:?}"
        );
        let info = series("subsegment_largest_info");
        assert_eq!(info.len(), 1, "{kind}: {info:?}");
        assert!(
            has(info[0], "kind", "segment") && has(info[0], "name", "B -> C"),
            "{kind}: {info:?}"
        );
        let changed = [
            (
                "subsegment_segment_changed_timestamp_seconds",
                matches!(verdict.part, Some(Part::Segment { .. })),
            ),
            (
                "subsegment_host_changed_timestamp_seconds",
                matches!(verdict.part, Some(Part::Host(_))),
            ),
        ];
        for (name, is_named) in changed {
            assert_eq!(series(name).len(), usize::from(is_named), "{kind}: {name}");
        }
    }
    let all = [
        VerdictKind::Segment,
        VerdictKind::Host,
        VerdictKind::Source,
        VerdictKind::Server,
        VerdictKind::Connect,
        VerdictKind::Behind,
        VerdictKind::Clock,
        VerdictKind::Down,
        VerdictKind::None,
    ];
    assert_eq!(seen, all);
}

/// The report of 300 blocks along A -> B -> C -> Z, with the part that became slower on the way.
fn changed_report(seed: u64) -> (Report, Part) {
    let mut random = Random::new(seed);
    let mut path = SimPath::new(4, seed);
    path.arrivals = true;
    path.delays_ns = (0..3)
        .map(|_| [(1.0 + 15.0 * random.unit()) * MS; 2])
        .collect();
    let place = random.below(3) as usize;
    let more = (1.0 + 20.0 * random.unit()) * MS;
    let from = 60 + random.below(180);
    let is_segment = random.below(2) == 0;
    let hop = place as u8;
    let part = match is_segment {
        true => Part::Segment {
            from: hop,
            to: hop + 1,
        },
        false => Part::Host(hop + 1),
    };
    let started = WallTime(1_700_000_000_000_000_000 + seed * 3_600_000_000_000);
    let mut model = Model::new(Baseline::Run, None, started);
    for block in 0..300 {
        if block == from && is_segment {
            path.delays_ns[place][random.below(2) as usize] += more;
        } else if block == from {
            path.nodes[place + 1].residence_ns[0] += more;
        }
        model.record(&path.trip(block)).unwrap();
    }
    let mono = MonoTime(path.at(300) as u64);
    let wall = WallTime(started.0 + mono.0);
    let now = Now { wall, mono };
    let names = (0..).zip(["A", "B", "C", "Z"].map(str::to_owned)).collect();
    let mut report = samples::full();
    (report.started, report.ended) = (started, wall);
    report.limits.clear();
    report.events.clear();
    report.statistics = model.statistics(&names, now);
    report.timeline = model.timeline(60, now);
    (report, part)
}

/// The number of milliseconds that follows `before` in `text`.
fn ms_after(text: &str, before: &str) -> Option<f64> {
    let (_, rest) = text.split_once(before)?;
    let number = rest.split([' ', '<']).next()?;
    number.trim_start_matches('+').parse().ok()
}

#[test]
fn every_face_names_the_same_part_amount_and_time_of_a_measured_change() {
    for seed in 0..60 {
        let (mut report, part) = changed_report(seed);
        let verdict = report.statistics.verdict.clone();
        assert_eq!(verdict.part, Some(part), "seed {seed}: {}", verdict.text);
        let amount = verdict.increase.expect("an amount");
        let is_amount = |ms: f64| (ms - amount.as_millis_f64()).abs() < 0.006 * ms.abs();
        let since = verdict.since.expect("a beginning").to_string();
        let since = &since[11..19];
        let name = &verdict.name;
        let sentence = &verdict.text;
        let what = format!("seed {seed}: {sentence}");
        assert!(sentence.contains(since), "{what}");
        assert!(ms_after(sentence, ": +").is_some_and(is_amount), "{what}");

        // So many other events that the list has no room for all.
        let timeline = report.timeline.as_mut().expect("a timeline");
        let (start, end) = (timeline.start, timeline.end());
        let notice = |number: i64| TimelineEvent {
            at: start + SignedNanos((end - start).0 / 30 * number),
            kind: EventKind::Notice(format!("notice {number}")),
        };
        timeline.events = (0..30).map(notice).collect();
        let page = html::render(&report, Page::File);
        let page = page.replace("&gt;", ">").replace('\u{2192}', "->");
        let holds = |shown: &str| {
            let shown = flat(shown).to_lowercase();
            shown.contains(&flat(sentence).to_lowercase())
        };
        assert!(holds(&page), "{what}: {page}");
        let event = format!("<li>{since} {name}: ");
        let shown = ms_after(&page, &event);
        assert!(shown.is_some_and(is_amount), "{what}: no {event} in {page}");

        let style = TextStyle::default();
        let nagios = nagios::render(&report);
        for (face, shown) in [("text", text::render(&report, &style)), ("nagios", nagios)] {
            assert!(holds(&shown), "{what}: {face}: {shown}");
        }
        let whole = json_face::render(&report);
        let end = json_face::end_line(&report);
        for shown in [whole, end] {
            let value = parse(shown.as_bytes()).unwrap();
            let text_at = |path: &str| value.at(path).and_then(Value::as_str);
            assert_eq!(text_at("verdict/name"), Some(&**name), "{what}");
            assert_eq!(text_at("verdict/text"), Some(&**sentence), "{what}");
            let at = text_at("verdict/since").expect("a beginning");
            assert!(at.contains(since), "{what}: {at}");
            let increase = value.at("verdict/increase_ns").and_then(Value::as_i64);
            assert_eq!(increase, Some(amount.0), "{what}");
        }
        let observed = Observed {
            path: None,
            report: Some(&report),
            figures: NodeFigures::default(),
        };
        let metrics = prometheus::render(&[observed], Exposition::Text);
        let info = metrics
            .lines()
            .find(|line| line.starts_with("subsegment_verdict_info{"))
            .expect("a verdict");
        assert!(info.contains(&format!("name=\"{name}\"")), "{what}: {info}");
        let gauge = match part {
            Part::Segment { .. } => "subsegment_segment_increase_seconds{",
            _ => "subsegment_host_increase_seconds{",
        };
        let increases = metrics.lines().filter(|line| line.starts_with(gauge));
        let values = increases.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let largest = values.fold(0.0, f64::max);
        assert!(is_amount(largest * 1e3), "{what}: {largest} s");
    }
}

#[test]
fn a_flow_that_differs_is_named_with_the_difference_and_its_sign() {
    let mut report = samples::full();
    let flow = |difference: Option<i64>| FlowReport {
        local: None,
        statistics: FlowStatistics {
            blocks: 50,
            parts: vec![FlowPart {
                part: Part::Segment { from: 0, to: 1 },
                p50: SignedNanos(1),
                p95: SignedNanos(2),
                difference: difference.map(SignedNanos),
            }],
        },
    };
    report.flows = vec![flow(Some(20_100_000)), flow(None), flow(Some(-350_000))];
    let name = report.part_name(Part::Segment { from: 0, to: 1 });
    assert_eq!(
        report.odd_flows(),
        [
            format!("flow 1 of 3: +20.1 ms in {name} only"),
            format!("flow 3 of 3: -0.350 ms in {name} only"),
        ]
    );
}
