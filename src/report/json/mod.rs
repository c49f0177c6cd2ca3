//! A [`Report`] in, one JSON object out (`--format json`).
//!
//! Durations are integer nanoseconds; an absent figure is null, never 0; shares are numbers with at
//! most six digits. `cookie` and `id` are 16 hex digits. `connect_ns` of a segment is how long its
//! near node took to connect. A name that no node gave is `hop 3`. After the documented keys stand
//! `role`, `dropped_measurements`, `notices`, `batches`, `label`, `other_paths`,
//! `header_delays`.

pub mod read;
pub mod write;

use super::header_delays::delays_array;
use super::{Blocks, FlowReport, PathNode, Report};
use crate::annotation::AnnotationValue;
use crate::measure::compare::PartBatches;
use crate::measure::sla::{Amount, LimitState, Statistic};
use crate::measure::{
    Basis, Confidence, Figure, HostStatistics, Largest, Part, PartStatistics, SegmentStatistics,
    Summary, Verdict, VerdictDirection,
};
use crate::FULL;
use write::{Array, Object, ToJson, Writer};

/// The value of `schema`; its number changes when a key changes its meaning or goes away.
pub const SCHEMA: &str = "subsegment-tcp-speeds/report/1";

/// Down to this depth each member has a line of its own: a segment's figures do, those of one
/// summary do not.
const BROKEN_DEPTH: usize = 3;

/// The whole report as one object, with a line feed at the end.
pub fn render(report: &Report) -> String {
    let mut text = Writer::indented(BROKEN_DEPTH).finish(report);
    text.push('\n');
    text
}

/// The last line of `--format jsonl`, with its line feed: how the run ended, and both answers.
///
/// ```text
/// {"end":"RFC 3339","blocks":{...},"verdict":{...},"largest":{...}|null}
/// ```
pub fn end_line(report: &Report) -> String {
    let mut line = Writer::compact().finish(Object(|w| {
        w.pair("end", report.ended);
        w.pair("blocks", blocks_object(&report.blocks));
        w.pair("verdict", &report.statistics.verdict);
        let largest = report.statistics.largest.as_ref();
        w.pair("largest", largest.map(largest_object));
    }));
    line.push('\n');
    line
}

impl ToJson for &Report {
    fn to_json(self, w: &mut Writer) {
        Object(|w: &mut Writer| report_pairs(w, self)).to_json(w);
    }
}

fn report_pairs(w: &mut Writer, report: &Report) {
    let statistics = &report.statistics;
    w.pair("schema", SCHEMA);
    w.pair(
        "tool",
        Object(|w| {
            w.pair("name", env!("CARGO_PKG_NAME"));
            w.pair("version", env!("CARGO_PKG_VERSION"));
        }),
    );
    w.pair("started", report.started);
    w.pair("ended", report.ended);
    w.pair(
        "path",
        Object(|w| {
            w.pair("cookie", report.path.cookie.map(hex).as_deref());
            w.pair("nodes", Array(&report.path.nodes));
            w.pair("changes", statistics.path_changes);
        }),
    );
    w.pair("blocks", blocks_object(&report.blocks));
    w.pair("opened_ns", report.opened);
    w.pair("round_trip", statistics.round_trip);
    w.pair("sla", statistics.sla.name());
    let segments = (0..).zip(&statistics.segments);
    w.pair(
        "segments",
        Array(segments.map(|(index, segment)| segment_object(report, index, segment))),
    );
    w.pair(
        "hosts",
        Array(
            statistics
                .hosts
                .iter()
                .map(|host| host_object(report, host)),
        ),
    );
    w.pair("behind_exit", statistics.behind_exit);
    let down = report.server_down.as_ref();
    let server = Object(|w: &mut Writer| {
        w.pair("connect", statistics.server_connect);
        w.pair("down", down.map(|down| down.error.as_str()));
        w.pair("down_since", down.map(|down| down.since));
    });
    let known = down.is_some() || statistics.server_connect.is_some();
    w.pair("server", known.then_some(server));
    let flows = (0..).zip(&report.flows).filter(|_| FULL);
    w.pair(
        "flows",
        Array(flows.map(|(index, flow)| flow_object(report, index, flow))),
    );
    let parts = statistics.parts.iter();
    w.pair("parts", Array(parts.map(|part| part_object(report, part))));
    let limits = report.limits.iter();
    w.pair(
        "limits",
        Array(limits.map(|limit| Object(|w| limit_pairs(w, report, limit)))),
    );
    let events = report.events.iter();
    w.pair(
        "events",
        Array(events.map(|event| {
            Object(|w| {
                w.pair("at", event.at);
                w.pair("sequence", event.sequence);
                limit_pairs(w, report, &event.now);
            })
        })),
    );
    w.pair("verdict", &statistics.verdict);
    let largest = statistics.largest.as_ref();
    w.pair("largest", largest.map(largest_object));
    w.pair("role", &report.role);
    w.pair("dropped_measurements", report.dropped);
    w.pair("notices", Array(&report.notices));
    let batches = statistics.batches.iter();
    w.pair(
        "batches",
        Array(batches.map(|of| batches_object(report, of))),
    );
    w.pair("label", report.label.as_deref());
    w.pair("other_paths", Array(&report.others));
    w.pair("header_delays", delays_array(&report.header_delays));
}

fn blocks_object(blocks: &Blocks) -> impl ToJson + '_ {
    Object(|w| {
        w.pair("sent", blocks.sent);
        w.pair("received", blocks.received);
        w.pair("lost", blocks.lost);
        w.pair("unsent", blocks.unsent);
        w.pair("late", blocks.late);
        w.pair("duplicate", blocks.duplicate);
        w.pair("payload_bytes", blocks.payload_bytes);
    })
}

/// The blocks of a part over time: `compare` reads them.
fn batches_object<'a>(report: &'a Report, of: &'a PartBatches) -> impl ToJson + 'a {
    Object(move |w: &mut Writer| {
        w.pair("part", of.part.to_string().as_str());
        w.pair("name", &report.part_name(of.part));
        w.pair("count", Array(of.batches.iter().map(|batch| batch.count)));
        w.pair("p50_ns", Array(of.batches.iter().map(|batch| batch.p50)));
        w.pair("mean_ns", Array(of.batches.iter().map(|batch| batch.mean)));
    })
}

fn limit_pairs(w: &mut Writer, report: &Report, limit: &LimitState) {
    let span = |amount| match amount {
        Some(Amount::Span(span)) => Some(span),
        _ => None,
    };
    let share = |amount| match amount {
        Some(Amount::Share(share)) => Some(share),
        _ => None,
    };
    let count = |amount| match amount {
        Some(Amount::Count(count)) => Some(count),
        _ => None,
    };
    w.pair("part", limit.part.kind());
    w.pair("name", &report.part_name(limit.part));
    w.pair("line", limit.line.map(u64::from));
    w.pair("figure", limit.figure.word());
    w.pair("statistic", limit.statistic.map(Statistic::word));
    w.pair("severity", limit.severity.name());
    w.pair("limit_ns", span(limit.limit));
    w.pair("limit_share", share(limit.limit));
    w.pair("value_ns", span(limit.value));
    w.pair("value_share", share(limit.value));
    w.pair("limit_count", count(limit.limit));
    w.pair("value_count", count(limit.value));
    w.pair("state", limit.state.name());
}

fn hex(identifier: u64) -> String {
    format!("{identifier:016x}")
}

fn segment_object<'a>(
    report: &'a Report,
    index: u64,
    segment: &'a SegmentStatistics,
) -> impl ToJson + 'a {
    Object(move |w: &mut Writer| {
        w.pair("index", index);
        w.pair("from", &report.name_at(segment.from_hop));
        w.pair("to", &report.name_at(segment.to_hop));
        w.pair("round_trip", segment.round_trip);
        w.pair("network", segment.network);
        w.pair("forward_excess", segment.forward_excess);
        w.pair("return_excess", segment.return_excess);
        let (from, to) = (segment.from_hop, segment.to_hop);
        let connect = report.statistics.part(Part::Connect { from, to });
        w.pair("connect", connect.and_then(|connect| connect.delay));
        let resent = Some(segment.retransmits).filter(|resent| *resent != [None; 2]);
        w.pair("retransmits", resent.map(retransmits_object));
        let part = report.statistics.part(segment.part());
        let delayed = part.and_then(|part| part.delayed_by_loss);
        w.pair(
            "blocks_delayed_by_loss",
            delayed.filter(|_| resent.is_some()),
        );
        w.pair("held_share", segment.held_share);
        w.pair("clock_offset_ns", segment.clock_offset);
        w.pair("clock_offset_error_ns", segment.clock_offset_error);
        w.pair("clock_skew_ppm", segment.clock_skew_ppm);
        w.pair(
            "connect_ns",
            report
                .node_at(segment.from_hop)
                .and_then(|node| node.connect),
        );
        w.pair("share", segment.share);
        w.pair("baseline_ns", segment.baseline);
        w.pair("increase_ns", segment.increase);
        w.pair("sla", segment.sla.name());
    })
}

fn retransmits_object(counts: [Option<u64>; 2]) -> impl ToJson {
    Object(move |w: &mut Writer| {
        w.pair("forward", counts[0]);
        w.pair("return", counts[1]);
    })
}

fn part_object<'a>(report: &'a Report, of: &'a PartStatistics) -> impl ToJson + 'a {
    Object(move |w: &mut Writer| {
        w.pair("kind", of.part.kind());
        w.pair("name", &report.part_name(of.part));
        let [from, to] = of.part.hops();
        w.pair("hop", from.map(u64::from));
        w.pair("to_hop", to.map(u64::from));
        w.pair("mean_ns", of.mean);
        w.pair("share", of.share);
        w.pair("delay", of.delay);
        w.pair("window", of.window);
        w.pair("baseline_ns", of.baseline);
        w.pair("increase_ns", of.increase);
        w.pair("figure", of.figure.map(Figure::name));
        w.pair("least_ns", of.least);
        w.pair("sla", of.sla.name());
    })
}

fn flow_object<'a>(report: &'a Report, index: u64, flow: &'a FlowReport) -> impl ToJson + 'a {
    Object(move |w: &mut Writer| {
        w.pair("index", index);
        let local = flow.local.map(|local| local.to_string());
        w.pair("local", local.as_deref());
        w.pair("blocks", flow.statistics.blocks);
        let parts = flow.statistics.parts.iter();
        w.pair(
            "parts",
            Array(parts.map(|of| {
                Object(|w: &mut Writer| {
                    w.pair("kind", of.part.kind());
                    w.pair("name", &report.part_name(of.part));
                    w.pair("p50_ns", of.p50);
                    w.pair("p95_ns", of.p95);
                    w.pair("difference_ns", of.difference);
                })
            })),
        );
    })
}

fn largest_object(of: &Largest) -> impl ToJson + '_ {
    Object(move |w: &mut Writer| {
        w.pair("kind", of.kind.name());
        w.pair("index", of.index.map(|index| index as u64));
        w.pair("name", &of.name);
        w.pair("share", of.share);
        w.pair("mean_ns", of.mean);
        w.pair("p50_ns", of.p50);
    })
}

fn host_object<'a>(report: &'a Report, host: &'a HostStatistics) -> impl ToJson + 'a {
    Object(move |w: &mut Writer| {
        w.pair("hop", u64::from(host.hop));
        w.pair("name", &report.name_at(host.hop));
        w.pair("forward_residence", host.forward_residence);
        w.pair("return_residence", host.return_residence);
        w.pair("forward_wake_up", host.forward_wake_up);
        w.pair("return_wake_up", host.return_wake_up);
        w.pair("share", host.share);
        w.pair("baseline_ns", host.baseline);
        w.pair("increase_ns", host.increase);
        w.pair("sla", host.sla.name());
        let mut first = report.first_annotations.iter();
        let first = first.find(|node| node.hop == host.hop);
        w.pair("annotated_since", first.map(|node| node.sequence));
        let nodes = report
            .annotations
            .iter()
            .filter(|node| node.hop == host.hop);
        w.pair(
            "annotations",
            Object(|w| {
                for annotation in nodes.flat_map(|node| &node.annotations) {
                    match &annotation.value {
                        AnnotationValue::Number(number) => w.pair_named(&annotation.name, *number),
                        AnnotationValue::Text(text) => w.pair_named(&annotation.name, text),
                    }
                }
            }),
        );
    })
}

impl ToJson for &PathNode {
    fn to_json(self, w: &mut Writer) {
        Object(|w: &mut Writer| {
            w.pair("hop", u64::from(self.hop));
            w.pair("id", &hex(self.id));
            w.pair("name", &self.name);
            w.pair("role", &self.role);
            w.pair("address", self.address.as_deref());
            w.pair("tags", Array(&self.tags));
        })
        .to_json(w);
    }
}

impl ToJson for Summary {
    fn to_json(self, w: &mut Writer) {
        Object(|w: &mut Writer| {
            w.pair("count", self.count);
            w.pair("min_ns", self.min);
            w.pair("mean_ns", self.mean);
            w.pair("stddev_ns", self.stddev);
            w.pair("p50_ns", self.p50);
            w.pair("p90_ns", self.p90);
            w.pair("p95_ns", self.p95);
            w.pair("p99_ns", self.p99);
            w.pair("max_ns", self.max);
        })
        .to_json(w);
    }
}

impl ToJson for &Verdict {
    fn to_json(self, w: &mut Writer) {
        let kind = self.kind.name();
        let direction = self.direction.map(VerdictDirection::name);
        Object(|w: &mut Writer| {
            w.pair("kind", kind);
            w.pair("index", self.index.map(|index| index as u64));
            w.pair("name", &self.name);
            w.pair("direction", direction);
            w.pair("basis", self.basis.map(|Basis::Increase| "increase"));
            w.pair("figure", self.basis.map(|_| self.figure.name()));
            w.pair("share", self.share);
            w.pair("increase_ns", self.increase);
            w.pair("increase_low_ns", self.increase_low);
            w.pair("increase_high_ns", self.increase_high);
            w.pair("baseline_ns", self.baseline);
            w.pair("since", self.since);
            w.pair("since_at_most", self.since_at_most);
            w.pair("until", self.until);
            w.pair("least_ns", self.least);
            let also = self.also.iter().map(|also| {
                Object(move |w: &mut Writer| {
                    w.pair("kind", also.kind.name());
                    w.pair("index", also.index.map(|index| index as u64));
                    w.pair("name", &also.name);
                    w.pair("increase_ns", also.increase);
                    w.pair("since", also.since);
                    w.pair("since_at_most", also.since_at_most);
                })
            });
            w.pair("also", Array(also));
            w.pair(
                "confidence",
                if self.confidence == Confidence::High {
                    "high"
                } else {
                    "low"
                },
            );
            w.pair("reason", &self.reason);
            w.pair("doubts", Array(&self.doubts));
            w.pair("text", &self.text);
            w.pair("cause", self.cause.as_deref());
            w.pair("reads_late", self.reads_late);
            w.pair("retransmitted", self.retransmitted);
        })
        .to_json(w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::json::{parse, Value};
    use crate::report::tests::samples;

    const SUMMARY_KEYS: &str = "count min_ns mean_ns stddev_ns p50_ns p90_ns p95_ns p99_ns max_ns";

    fn parsed(report: &Report) -> Value {
        parse(render(report).as_bytes()).expect("our own JSON is JSON")
    }

    #[test]
    fn reports_are_as_in_the_golden_files() {
        for (expected, report) in [
            (
                include_str!("../../../tests/golden/report_full.json"),
                samples::full(),
            ),
            (
                include_str!("../../../tests/golden/report_empty.json"),
                samples::empty(),
            ),
        ] {
            // The golden files outlive a release.
            let expected = expected.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
            samples::assert_same(&expected, &render(&report));
        }
    }

    #[test]
    fn every_documented_key_is_there_in_order_whatever_was_measured() {
        for report in [samples::full(), samples::empty(), samples::random(7)] {
            let value = parsed(&report);
            for (path, keys) in [
                (
                    "",
                    "schema tool started ended path blocks opened_ns round_trip sla segments hosts \
                     behind_exit server flows parts limits events verdict largest role \
                     dropped_measurements notices batches label other_paths header_delays",
                ),
                ("tool", "name version"),
                ("path", "cookie nodes changes"),
                ("path/nodes/*", "hop id name role address tags"),
                ("blocks", "sent received lost unsent late duplicate payload_bytes"),
                ("round_trip", SUMMARY_KEYS),
                (
                    "segments/*",
                    "index from to round_trip network forward_excess return_excess connect \
                     retransmits blocks_delayed_by_loss held_share clock_offset_ns \
                     clock_offset_error_ns clock_skew_ppm connect_ns share baseline_ns \
                     increase_ns sla",
                ),
                ("segments/*/round_trip", SUMMARY_KEYS),
                ("segments/*/forward_excess", SUMMARY_KEYS),
                ("segments/*/return_excess", SUMMARY_KEYS),
                (
                    "hosts/*",
                    "hop name forward_residence return_residence forward_wake_up return_wake_up \
                     share baseline_ns increase_ns sla annotated_since annotations",
                ),
                ("hosts/*/forward_residence", SUMMARY_KEYS),
                ("hosts/*/return_residence", SUMMARY_KEYS),
                ("behind_exit", SUMMARY_KEYS),
                (
                    "limits/*",
                    "part name line figure statistic severity limit_ns limit_share value_ns \
                     value_share limit_count value_count state",
                ),
                (
                    "events/*",
                    "at sequence part name line figure statistic severity limit_ns limit_share \
                     value_ns value_share limit_count value_count state",
                ),
                (
                    "verdict",
                    "kind index name direction basis figure share increase_ns \
                     increase_low_ns increase_high_ns baseline_ns since since_at_most \
                     until least_ns also \
                     confidence reason doubts text cause reads_late retransmitted",
                ),
                (
                    "parts/*",
                    "kind name hop to_hop mean_ns share delay window baseline_ns increase_ns \
                     figure least_ns sla",
                ),
                ("parts/*/delay", SUMMARY_KEYS),
                ("parts/*/window", SUMMARY_KEYS),
            ] {
                let keys: Vec<_> = keys.split_whitespace().collect();
                for object in all_at(&value, path) {
                    let is_summary = keys.first() == Some(&"count");
                    assert!(
                        object.keys().as_ref() == Some(&keys) || is_summary && object.is_null(),
                        "{path}: {object:?}"
                    );
                }
            }
        }
    }

    /// The values at `path`, where a step `*` stands for every item; panics where a step leads
    /// nowhere.
    fn all_at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
        path.split('/')
            .filter(|step| !step.is_empty())
            .fold(vec![value], |values, step| {
                let next = |value: &'a Value| match step {
                    "*" => value.as_array().expect("an array").iter().collect(),
                    key => vec![value.at(key).expect("the key is there")],
                };
                values.into_iter().flat_map(next).collect()
            })
    }

    #[test]
    fn figures_come_out_exact_and_absent_ones_as_null() {
        let full = parsed(&samples::full());
        let int = |path| full.at(path).and_then(Value::as_i64);
        assert_eq!(
            full.at("path/cookie").and_then(Value::as_str),
            Some("00c0ffee00c0ffee")
        );
        assert_eq!(int("segments/0/connect_ns"), Some(310_000));
        assert_eq!(int("segments/2/connect_ns"), Some(390_000));
        assert_eq!(int("segments/1/index"), Some(1));
        assert_eq!(int("segments/1/increase_ns"), Some(2_310_000));
        assert_eq!(
            full.at("segments/1/share").and_then(Value::as_f64),
            Some(0.885_123)
        );
        assert_eq!(
            full.at("verdict/name").and_then(Value::as_str),
            Some("B -> C")
        );
        let is_null = |path| full.at(path).is_some_and(Value::is_null);
        assert!(
            is_null("hosts/0/return_residence")
                && is_null("segments/2/clock_offset_ns")
                && is_null("path/nodes/0/address")
        );
        let empty = parsed(&samples::empty());
        for key in [
            "round_trip",
            "behind_exit",
            "path/cookie",
            "verdict/index",
            "verdict/share",
            "verdict/direction",
            "largest",
        ] {
            assert!(empty.at(key).is_some_and(Value::is_null), "{key}");
        }
    }

    #[test]
    fn whatever_the_figures_and_names_are_the_output_is_one_json_value() {
        for seed in 0..200 {
            let report = samples::random(seed);
            let text = render(&report);
            let value =
                parse(text.as_bytes()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(
                !text.chars().any(|c| c.is_control() && c != '\n'),
                "seed {seed}"
            );
            for (index, node) in report.path.nodes.iter().enumerate() {
                let name = value
                    .at(&format!("path/nodes/{index}/name"))
                    .and_then(Value::as_str);
                assert_eq!(name, Some(node.name.as_str()), "seed {seed}");
            }
        }
    }
}
