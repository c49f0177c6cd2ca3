//! Every face of a report has the same two answers.

use super::super::html::Page;
use super::super::prometheus::{self, Exposition, NodeFigures, Observed};
use super::super::text::TextStyle;
use super::super::{
    html, json as json_face, nagios, screen, text, Broken, FlowReport, Report, State,
};
use super::json::{parse, Value};
use super::samples;
use crate::measure::{Basis, FlowPart, FlowStatistics, Part, Verdict, VerdictKind};
use crate::time::SignedNanos;

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
