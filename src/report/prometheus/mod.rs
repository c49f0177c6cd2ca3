//! Turns reports and the counts of nodes into the text format of Prometheus 0.0.4 or OpenMetrics
//! 1.0.
//!
//! Read <https://prometheus.io/docs/instrumenting/exposition_formats/> first. Names are the
//! program's API: [`FAMILIES`] holds each with its unit, and the README and the tests are held
//! against it.
//!
//! Histograms are cumulative over the life of the process, all with the same buckets
//! ([`BUCKETS_NS`]). The monitoring system takes quantiles and rates of them (`histogram_quantile`,
//! `rate`). A part that leaves the path and comes back in another shape starts at zero again, which
//! Prometheus takes for the restart of a counter.

mod families;
mod sheet;

use super::{PathRest, Report};
use crate::annotation::AnnotationValue;
use crate::measure::sla::Amount;
use crate::measure::HeaderDelays;
use crate::measure::{
    Basis, Confidence, Histogram, HostStatistics, Part, PartStatistics, SegmentStatistics, Sla,
    Statistics, Summary, VerdictDirection, VerdictKind, BUCKETS_NS,
};
use crate::report::header_delays::{header_figures, header_labels};
use crate::time::{Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;
use crate::FULL;
use families::Id;
pub use families::FAMILIES;
use sheet::{bound_text, label_text, labels};
pub(super) use sheet::{escaped, families, seconds, Sheet};
pub use sheet::{Exposition, Family, Kind};
use std::iter;

/// The name of the figures of paths through a node that have no name of their own.
const OTHER: &str = "other";
/// Annotations that are shown of one node.
const ANNOTATIONS: usize = 256;

/// The live counts of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFigures {
    /// `--node`.
    pub name: String,
    /// `source`, `probe`, `relay`, ...
    pub role: String,
    /// `true` if the path stands; `None` at nodes that begin no path.
    pub path_up: Option<bool>,
    /// `None` at nodes that do not listen.
    pub carried: Option<Carried>,
    /// `None` unless a probe was requested over HTTP.
    pub probed: Option<ProbeOutcome>,
}

/// The connections of a node that listens, those that are open included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Connections that are open.
    pub open: u64,
    /// Accepted so far.
    pub connections: u64,
    /// Ended otherwise than by an orderly end.
    pub failed: u64,
    /// Reset at once for their address.
    pub refused: u64,
    /// Payload moved away from the source, and back.
    pub bytes: [u64; 2],
    /// Blocks likewise.
    pub blocks: [u64; 2],
    /// Reports to the source that found their queue full.
    pub reports_dropped: u64,
    /// Connections whose HTTP passes unchanged from a doubt on; `None` if none is edited.
    pub http_passed: Option<u64>,
}

/// The outcome of a probe that was requested over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Every block was answered.
    pub success: bool,
    /// The time that it took.
    pub duration: Nanos,
}

/// A path or a node of a process.
#[derive(Clone, Debug)]
pub struct Observed<'a, R = &'a Report> {
    /// The name among the paths of the process; `None` if there is one. Those of a node that
    /// listens have their names in the report.
    pub path: Option<&'a str>,
    /// The latest report; `None` if nothing was measured so far.
    pub report: Option<R>,
    /// Counts.
    pub figures: NodeFigures,
}

/// Returns all metrics of a process.
pub fn render<R: AsRef<Report>>(observed: &[Observed<'_, R>], exposition: Exposition) -> String {
    let mut sheet = Sheet::new(FAMILIES);
    for one in observed {
        let report = one.report.as_ref().map(AsRef::as_ref);
        let mut path = Path {
            sheet: &mut sheet,
            prefix: one.path.map_or_else(String::new, prefix),
            own_name: &one.figures.name,
        };
        path.process(report, &one.figures);
        let Some(report) = report else {
            continue;
        };
        if one.figures.carried.is_none() {
            path.report(report);
            continue;
        }
        for report in iter::once(report).chain(&report.others) {
            if let Some(label) = &report.label {
                path.prefix = prefix(label);
                path.report(report);
            }
        }
        path.prefix = prefix(OTHER);
        path.rest(&report.rest);
    }
    sheet.row(Id::LeftOut, "", &sheet.left_out().to_string());
    sheet.finish(exposition)
}

/// Returns the label of a path, whole, so that paths differ; the user may write 255 bytes.
fn prefix(path: &str) -> String {
    format!("path=\"{}\"", escaped(path))
}

impl AsRef<Self> for Report {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Writes one path into the sheet.
struct Path<'a> {
    sheet: &'a mut Sheet,
    /// The label `path`, if there is one.
    prefix: String,
    own_name: &'a str,
}

impl Path<'_> {
    /// Writes what is about the process or the path as a whole, not about its parts.
    fn process(&mut self, report: Option<&Report>, figures: &NodeFigures) {
        let version = env!("CARGO_PKG_VERSION");
        let build = [
            ("version", version),
            ("role", &figures.role),
            ("node", &figures.name),
        ];
        self.number(Id::Build, &build, 1_u64);
        if let Some(up) = figures.path_up {
            self.number(Id::Up, &[], u64::from(up));
        }
        if let Some(carried) = figures.carried {
            self.number(Id::Open, &[], carried.open);
            self.number(Id::Connections, &[], carried.connections);
            self.number(Id::Failed, &[], carried.failed);
            self.number(Id::Refused, &[], carried.refused);
            for (place, direction) in ["forward", "return"].into_iter().enumerate() {
                let labels = [("direction", direction)];
                self.number(Id::CarriedBytes, &labels, carried.bytes[place]);
                self.number(Id::CarriedBlocks, &labels, carried.blocks[place]);
            }
            self.number(Id::ReportsDropped, &[], carried.reports_dropped);
            if let Some(passed) = carried.http_passed.filter(|_| FULL) {
                self.number(Id::HttpPassed, &[], passed);
            }
        }
        if let Some(probed) = figures.probed {
            self.number(Id::ProbeSuccess, &[], u64::from(probed.success));
            self.seconds(Id::ProbeDuration, &[], Some(probed.duration.signed()));
        }
        if let Some(report) = report {
            self.run(report, figures.path_up.is_some());
        }
    }

    fn run(&mut self, report: &Report, sends: bool) {
        let since_epoch = report.started - WallTime(0);
        self.seconds(Id::Start, &[], Some(since_epoch));
        self.number(Id::Dropped, &[], report.dropped);
        if FULL {
            self.header_delays(&report.header_delays);
        }
        if sends {
            let blocks = report.blocks;
            for (id, count) in [
                (Id::Sent, blocks.sent),
                (Id::Received, blocks.received),
                (Id::Lost, blocks.lost),
                (Id::Unsent, blocks.unsent),
                (Id::Late, blocks.late),
                (Id::Duplicate, blocks.duplicate),
                (Id::PayloadSent, blocks.payload_bytes),
            ] {
                self.number(id, &[], count);
            }
        }
    }

    fn header_delays(&mut self, delays: &HeaderDelays) {
        for row in &delays.rows {
            let (is_timing, mut labels) = header_labels(row);
            let id = if is_timing {
                Id::ServerTiming
            } else {
                Id::HeaderDelay
            };
            for (figure, value) in header_figures(row) {
                labels.push(("figure", figure));
                self.seconds(id, &labels, Some(value));
                labels.pop();
            }
        }
    }

    /// Writes the figures of the paths that have none of their own. Only the whole path and this
    /// node have figures here, as strangers choose the names of all other parts.
    fn rest(&mut self, rest: &PathRest) {
        self.histogram(Id::RoundTrip, &[], &rest.round_trip);
        let node = self.own_name.to_owned();
        for (direction, residence) in ["forward", "return"].into_iter().zip(&rest.residence) {
            let labels = [("hop", ""), ("node", &node), ("direction", direction)];
            self.histogram(Id::Residence, &labels, residence);
        }
    }

    fn report(&mut self, report: &Report) {
        let statistics = &report.statistics;
        self.histogram(Id::RoundTrip, &[], &statistics.distribution);
        self.number(Id::SlaState, &[], state(statistics.sla));
        self.number(Id::PathChanges, &[], statistics.path_changes);
        self.figures(Id::BehindExit, &[], statistics.behind_exit);
        self.figures(Id::ServerConnect, &[], statistics.server_connect);
        let down = report.server_down.is_some();
        if down || statistics.server_connect.is_some() {
            self.number(Id::ServerUp, &[], u64::from(!down));
        }
        let verdict = &statistics.verdict;
        let direction = verdict.direction.map_or("", VerdictDirection::name);
        let delay = match verdict.kind {
            VerdictKind::Segment => "round_trip",
            VerdictKind::Host | VerdictKind::Source if verdict.reads_late => "wake_up",
            VerdictKind::Host | VerdictKind::Source => "residence",
            VerdictKind::Server => "behind_exit",
            VerdictKind::Connect => "connect",
            VerdictKind::Behind => "behind",
            VerdictKind::Clock | VerdictKind::Down | VerdictKind::None => "",
        };
        let verdict = [
            ("kind", verdict.kind.name()),
            ("name", &verdict.name),
            ("delay", delay),
            ("direction", direction),
            (
                "basis",
                verdict.basis.map_or("", |Basis::Increase| "increase"),
            ),
            (
                "confidence",
                if verdict.confidence == Confidence::High {
                    "high"
                } else {
                    "low"
                },
            ),
        ];
        self.number(Id::Verdict, &verdict, 1_u64);
        if let Some(largest) = &statistics.largest {
            let labels = [("kind", largest.kind.name()), ("name", &largest.name)];
            self.number(Id::Largest, &labels, 1_u64);
        }
        self.window(report, Part::Total, statistics.window);
        for part in &statistics.parts {
            self.part(report, part);
        }
        for segment in &statistics.segments {
            self.segment(report, segment);
        }
        for host in &statistics.hosts {
            self.host(report, host);
        }
        self.limits(report);
        for annotations in &report.annotations {
            let (hop, node) = (
                annotations.hop.to_string(),
                self.name(report, annotations.hop),
            );
            let mut seen = VecMap::new();
            for annotation in annotations.annotations.iter().take(ANNOTATIONS) {
                // Peers choose names: two that read the same would void the whole response.
                if seen.insert(label_text(&annotation.name), ()).is_some() {
                    continue;
                }
                let labels = [
                    ("hop", hop.as_str()),
                    ("node", &node),
                    ("name", &annotation.name),
                ];
                match &annotation.value {
                    AnnotationValue::Number(value) => {
                        self.float(Id::Annotation, &labels, Some(*value));
                    }
                    AnnotationValue::Text(_) => {
                        if let Some(source) = annotation.name.strip_prefix("error.") {
                            let labels = [labels[0], labels[1], ("name", source)];
                            self.number(Id::AnnotationFailed, &labels, 1_u64);
                        }
                    }
                }
            }
        }
    }

    fn limits(&mut self, report: &Report) {
        let mut seen = VecMap::new();
        for limit in &report.limits {
            let (name, figure) = (report.part_name(limit.part), limit.figure_text());
            let line = limit.line.map_or_else(String::new, |line| line.to_string());
            let labels = [
                ("part", limit.part.kind()),
                ("name", &name),
                ("figure", &figure),
                ("severity", limit.severity.name()),
                ("line", &line),
            ];
            // A limit may be given twice.
            if seen.insert(self::labels("", &labels), ()).is_some() {
                continue;
            }
            self.number(Id::LimitState, &labels, state(limit.state));
            for (amount, span, share, count) in [
                (limit.limit, Id::Limit, Id::LimitRatio, Id::LimitCount),
                (
                    limit.value,
                    Id::LimitValue,
                    Id::LimitRatioValue,
                    Id::LimitCountValue,
                ),
            ] {
                match amount {
                    Some(Amount::Span(amount)) => self.seconds(span, &labels, Some(amount)),
                    Some(Amount::Share(amount)) => self.float(share, &labels, Some(amount)),
                    Some(Amount::Count(amount)) => self.float(count, &labels, Some(amount)),
                    None => {}
                }
            }
        }
    }

    fn name(&self, report: &Report, hop: u8) -> String {
        if report.path.nodes.is_empty() && !self.own_name.is_empty() {
            return self.own_name.to_owned(); // A plain proxy is alone on its path.
        }
        report.name_at(hop)
    }

    /// Writes the figures of a part in the latest window.
    fn window(&mut self, report: &Report, part: Part, window: Option<Summary>) {
        let (hop, name) = self.part_labels(report, part);
        let figures = window.map(|window| {
            [
                ("p50", window.p50),
                ("p95", window.p95),
                ("mean", window.mean),
                ("max", window.max),
            ]
        });
        for (figure, value) in figures.into_iter().flatten() {
            let labels = [
                ("part", part.kind()),
                ("hop", hop.as_str()),
                ("name", &name),
                ("figure", figure),
            ];
            self.seconds(Id::Part, &labels, Some(value));
        }
    }

    fn part(&mut self, report: &Report, of: &PartStatistics) {
        self.window(report, of.part, of.window);
        let (hop, name) = self.part_labels(report, of.part);
        let labels = [
            ("part", of.part.kind()),
            ("hop", hop.as_str()),
            ("name", &name),
        ];
        self.float(Id::PartShare, &labels, of.share);
        self.seconds(Id::PartBaseline, &labels, of.baseline);
        self.seconds(Id::PartIncrease, &labels, of.increase);
    }

    /// The hop of a part, the far one where it has two, and its name.
    fn part_labels(&self, report: &Report, part: Part) -> (String, String) {
        let [near, far] = part.hops();
        let hop = far.or(near).map_or_else(String::new, |hop| hop.to_string());
        let last = report.path.nodes.last().map(|node| node.hop);
        (hop, part.name(&|hop| self.name(report, hop), last))
    }

    /// Writes when a part changed; nothing if it did not.
    fn changed(&mut self, id: Id, pairs: &[(&str, &str)], statistics: &Statistics, part: Part) {
        let verdict = &statistics.verdict;
        let named = verdict.since.filter(|_| verdict.part == Some(part));
        let mut also = verdict.also.iter().filter(|also| also.part == part);
        let since = named.or_else(|| also.find_map(|also| also.since));
        self.seconds(id, pairs, since.map(|since| since - WallTime(0)));
    }

    fn segment(&mut self, report: &Report, segment: &SegmentStatistics) {
        let hop = segment.to_hop.to_string();
        let (from, to) = (
            self.name(report, segment.from_hop),
            self.name(report, segment.to_hop),
        );
        let labels = [("hop", hop.as_str()), ("from", &from), ("to", &to)];
        self.histogram(Id::Segment, &labels, &segment.distribution);
        self.figures(Id::SegmentNetwork, &labels, segment.network);
        for (direction, excess) in [
            ("forward", segment.forward_excess),
            ("return", segment.return_excess),
        ] {
            let labels = [labels[0], labels[1], labels[2], ("direction", direction)];
            self.figures(Id::SegmentExcess, &labels, excess);
        }
        self.float(Id::SegmentShare, &labels, segment.share);
        self.seconds(Id::SegmentBaseline, &labels, segment.baseline);
        self.seconds(Id::SegmentIncrease, &labels, segment.increase);
        self.float(Id::SegmentHeld, &labels, segment.held_share);
        self.seconds(Id::SegmentOffset, &labels, segment.clock_offset);
        let error = segment.clock_offset_error.map(Nanos::signed);
        self.seconds(Id::SegmentOffsetError, &labels, error);
        let skew = segment.clock_skew_ppm.map(|ppm| ppm / 1e6);
        self.float(Id::SegmentSkew, &labels, skew);
        self.number(Id::SegmentNegative, &labels, segment.negative);
        for (direction, count) in ["forward", "return"].into_iter().zip(segment.retransmits) {
            let labels = [labels[0], labels[1], labels[2], ("direction", direction)];
            if let Some(count) = count {
                self.number(Id::SegmentRetransmits, &labels, count);
            }
        }
        let part = report.statistics.part(segment.part());
        if let Some(delayed) = part.and_then(|part| part.delayed_by_loss) {
            self.number(Id::SegmentDelayed, &labels, delayed);
        }
        let statistics = &report.statistics;
        self.changed(Id::SegmentChanged, &labels, statistics, segment.part());
        self.number(Id::SegmentSla, &labels, state(segment.sla));
    }

    fn host(&mut self, report: &Report, host: &HostStatistics) {
        let (hop, node) = (host.hop.to_string(), self.name(report, host.hop));
        let labels = [("hop", hop.as_str()), ("node", &node)];
        for (direction, residence, wake_up) in [
            ("forward", &host.forward_distribution, host.forward_wake_up),
            ("return", &host.return_distribution, host.return_wake_up),
        ] {
            let labels = [labels[0], labels[1], ("direction", direction)];
            self.histogram(Id::Residence, &labels, residence);
            self.figures(Id::HostWakeUp, &labels, wake_up);
        }
        self.float(Id::HostShare, &labels, host.share);
        self.seconds(Id::HostBaseline, &labels, host.baseline);
        self.seconds(Id::HostIncrease, &labels, host.increase);
        let part = Part::Host(host.hop);
        self.changed(Id::HostChanged, &labels, &report.statistics, part);
        self.number(Id::HostSteps, &labels, host.clock_steps);
        self.number(Id::HostNodes, &labels, host.nodes.len() as u64);
        self.number(Id::HostSla, &labels, state(host.sla));
    }

    fn number(&mut self, id: Id, pairs: &[(&str, &str)], value: u64) {
        let labels = labels(&self.prefix, pairs);
        self.sheet.value(id, &labels, &value.to_string());
    }

    fn float(&mut self, id: Id, pairs: &[(&str, &str)], value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let labels = labels(&self.prefix, pairs);
            self.sheet.value(id, &labels, &value.to_string());
        }
    }

    fn seconds(&mut self, id: Id, pairs: &[(&str, &str)], value: Option<SignedNanos>) {
        self.float(id, pairs, value.map(|value| seconds(i128::from(value.0))));
    }

    fn figures(&mut self, id: Id, pairs: &[(&str, &str)], summary: Option<Summary>) {
        let Some(summary) = summary else {
            return;
        };
        let mut pairs = pairs.to_vec();
        for (figure, value) in [
            ("min", summary.min),
            ("p50", summary.p50),
            ("p90", summary.p90),
            ("p99", summary.p99),
            ("max", summary.max),
        ] {
            pairs.push(("figure", figure));
            self.seconds(id, &pairs, Some(value));
            pairs.pop();
        }
    }

    /// Writes a histogram; one without values is left out: a direction that a node does not have.
    fn histogram(&mut self, id: Id, pairs: &[(&str, &str)], of: &Histogram) {
        if of.count() == 0 {
            return;
        }
        let bounds = BUCKETS_NS
            .iter()
            .map(|bound| (bound_text(*bound), of.count_up_to(SignedNanos(*bound))));
        let buckets: Vec<_> = bounds.chain([("+Inf".to_owned(), of.count())]).collect();
        // A sum only grows, so negative values (a clock stepped in flight) may not take it below
        // zero.
        let sum = seconds(of.sum().max(0));
        self.sheet
            .histogram(id, &labels(&self.prefix, pairs), &buckets, sum);
    }
}

/// Returns 0 without limits, 1 ok, 2 warning, 3 critical, so that the greatest of several is the
/// worst.
fn state(sla: Sla) -> u64 {
    match sla {
        Sla::None => 0,
        Sla::Ok => 1,
        Sla::Warning => 2,
        Sla::Critical => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::sheet::SERIES;
    use super::*;
    use crate::report::tests::samples;
    use std::collections::{BTreeMap, BTreeSet};

    const README: &str = include_str!("../../manual/metrics.md");

    /// A report in which every figure is there.
    fn full() -> Report {
        let mut report = samples::full();
        report.label = Some("A@10.0.0.1".into());
        report.header_delays = samples::header_delays();
        report.statistics.verdict.also[0].since = report.statistics.verdict.since;
        report.statistics.window = report.statistics.round_trip;
        let mut counted = report.limits[0].clone();
        counted.part = report.statistics.segments[0].part();
        counted.figure = crate::measure::sla::RuleFigure::Retransmits;
        counted.limit = Some(Amount::Count(3.0));
        counted.value = Some(Amount::Count(4.0));
        report.limits.push(counted);
        let mut distribution = Histogram::default();
        for micros in [30, 75, 300, 2_600, 9_000_000, 20_000_000] {
            distribution.record(Nanos::from_micros(micros).signed());
        }
        report.statistics.distribution = distribution.clone();
        for segment in &mut report.statistics.segments {
            segment.distribution = distribution.clone();
        }
        for host in &mut report.statistics.hosts {
            host.forward_distribution = distribution.clone();
        }
        report
    }

    fn figures() -> NodeFigures {
        NodeFigures {
            name: "A".into(),
            role: "probe".into(),
            path_up: Some(true),
            carried: Some(Carried {
                http_passed: Some(1),
                ..Carried::default()
            }),
            probed: Some(ProbeOutcome::default()),
        }
    }

    fn observed<'a>(path: Option<&'a str>, report: &'a Report) -> Observed<'a> {
        let figures = figures();
        Observed {
            path,
            report: Some(report),
            figures: NodeFigures {
                carried: figures.carried.filter(|_| path.is_none()),
                ..figures
            },
        }
    }

    #[test]
    fn each_path_through_a_node_has_series_of_its_own_and_the_rest_has_few() {
        for seed in 0..20 {
            let mut report = full();
            for number in 1..8 {
                report.others.push(Report {
                    label: Some(format!("n{number}@10.0.0.1")),
                    ..samples::random(seed + number)
                });
            }
            report.rest.round_trip = report.statistics.distribution.clone();
            report.rest.residence[0] = report.statistics.distribution.clone();
            let samples = parsed(&render(&[observed(None, &report)], Exposition::Text));
            let mut of_paths: BTreeMap<&str, usize> = BTreeMap::new();
            for (name, labels, _) in &samples {
                let Some(path) = labels.get("path") else {
                    let family = FAMILIES.iter().find(|family| family.name == name);
                    let is_of_process = family.is_some_and(|family| {
                        !["hop", "part", "kind"]
                            .iter()
                            .any(|of| family.labels.contains(of))
                    });
                    assert!(is_of_process, "seed {seed}: {name} has no path");
                    continue;
                };
                *of_paths.entry(path).or_default() += 1;
            }
            assert_eq!(of_paths.len(), 9, "seed {seed}: {of_paths:?}");
            let buckets = BUCKETS_NS.len() + 3;
            assert_eq!(of_paths[OTHER], 2 * buckets, "seed {seed}");
        }
    }

    /// Reads a sample as Prometheus does: name, labels and value.
    fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
        let end = line.find(['{', ' ']).expect("a name ends");
        let (name, mut rest) = line.split_at(end);
        let legal = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
        assert!(
            name.starts_with("subsegment_") && name.chars().all(legal),
            "{line}"
        );
        let mut labels = BTreeMap::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                let (label, after) = rest.split_once("=\"").expect("a label has a value");
                assert!(!label.is_empty() && label.chars().all(legal), "{line}");
                let mut value = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().expect("a value ends") {
                        (at, '"') => break at,
                        (_, '\\') => match chars.next().expect("an escape").1 {
                            'n' => value.push('\n'),
                            c @ ('"' | '\\') => value.push(c),
                            c => panic!("\\{c} in {line}"),
                        },
                        (_, c) => value.push(c),
                    }
                };
                assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
                rest = &after[end + 1..];
                if let Some(after) = rest.strip_prefix('}') {
                    rest = after;
                    break;
                }
                rest = rest.strip_prefix(',').expect("labels are separated");
            }
        }
        let value = rest.strip_prefix(' ').expect("a space before the value");
        (name.to_owned(), labels, value.parse().expect(line))
    }

    /// Checks every line, and that no series stands there twice; the samples.
    fn parsed(text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
        let mut samples = Vec::new();
        let (mut series, mut families) = (BTreeSet::new(), BTreeSet::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(
                    ["counter", "gauge", "histogram", "info"].contains(&kind),
                    "{line}"
                );
                assert!(families.insert(name.to_owned()), "{name} comes twice");
                family = name.to_owned();
            } else if line != "# EOF" && !line.starts_with("# HELP ") {
                let sample = sample(line);
                assert!(sample.0.starts_with(&family), "{line} under {family}");
                assert!(
                    series.insert((sample.0.clone(), sample.1.clone())),
                    "twice: {line}"
                );
                samples.push(sample);
            }
        }
        samples
    }

    #[test]
    fn the_verdict_has_wake_up_for_a_host_that_reads_late_and_residence_for_others() {
        let delay = |kind, reads_late| {
            let mut report = full();
            let verdict = &mut report.statistics.verdict;
            (verdict.kind, verdict.reads_late) = (kind, reads_late);
            let samples = parsed(&render(&[observed(None, &report)], Exposition::Text));
            let verdict = samples.iter().find(|s| s.0 == "subsegment_verdict_info");
            verdict.expect("a verdict").1["delay"].clone()
        };
        assert_eq!(delay(VerdictKind::Host, true), "wake_up");
        assert_eq!(delay(VerdictKind::Host, false), "residence");
        assert_eq!(delay(VerdictKind::Source, false), "residence");
        assert_eq!(delay(VerdictKind::Segment, false), "round_trip");
        assert_eq!(delay(VerdictKind::Server, false), "behind_exit");
        assert_eq!(delay(VerdictKind::None, false), "");
    }

    #[test]
    fn every_metric_is_written_for_a_full_report_and_stands_in_the_readme_with_its_unit() {
        let report = full();
        let text = render(&[observed(None, &report)], Exposition::Text);
        let samples = parsed(&text);
        for family in FAMILIES {
            let name = family.name;
            let of = |(sample, ..): &&(String, BTreeMap<_, _>, f64)| {
                let rest = sample.strip_prefix(name);
                rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
            };
            let first = samples.iter().find(of);
            let (_, labels, _) = first.unwrap_or_else(|| panic!("{name} is not written"));
            for label in family.labels.split(", ").filter(|label| !label.is_empty()) {
                assert!(labels.contains_key(label), "{name} lacks {label}");
            }
            let row = README
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("README lacks {name}"));
            let kind = format!("{:?}", family.kind).to_lowercase();
            let labels = family.labels;
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells[1..4], [kind.as_str(), family.unit, labels], "{name}");
            assert!(cells[4].len() > 4, "{name} has no text");
        }
        let rows = README
            .lines()
            .filter(|line| line.starts_with("| `subsegment_"));
        assert_eq!(rows.count(), FAMILIES.len(), "a row for what is no metric");
    }

    #[test]
    fn names_have_the_suffixes_that_prometheus_asks_for() {
        for family in FAMILIES {
            let total = family.name.ends_with("_total");
            assert_eq!(total, family.kind == Kind::Counter, "{}", family.name);
            let base = family.name.strip_suffix("_total").unwrap_or(family.name);
            if family.unit != "1" {
                assert!(base.ends_with(family.unit), "{}", family.name);
            }
        }
    }

    #[test]
    fn a_bucket_counts_all_that_is_not_above_its_bound() {
        let report = full();
        let samples = parsed(&render(&[observed(None, &report)], Exposition::Text));
        let counts: Vec<_> = samples
            .iter()
            .filter(|(name, ..)| name == "subsegment_round_trip_seconds_bucket")
            .map(|(_, labels, value)| (labels["le"].as_str(), *value))
            .collect();
        assert_eq!(counts.len(), BUCKETS_NS.len() + 1);
        for (bound, count) in [
            ("0.00005", 1.0),
            ("0.0001", 2.0),
            ("0.00025", 2.0),
            ("0.0005", 3.0),
            ("0.0025", 3.0),
            ("0.005", 4.0),
            ("5.0", 4.0),
            ("10.0", 5.0),
            ("+Inf", 6.0),
        ] {
            assert!(
                counts.contains(&(bound, count)),
                "{bound} {count}: {counts:?}"
            );
        }
    }

    #[test]
    fn every_line_parses_for_any_text_of_peers() {
        for seed in 0..60 {
            let mut report = samples::random(seed);
            for annotations in &mut report.annotations {
                let twice = annotations.annotations.clone();
                annotations.annotations.extend(twice);
            }
            for exposition in [Exposition::Text, Exposition::OpenMetrics] {
                let two = [
                    observed(Some("a\"\n\\"), &report),
                    observed(Some("b"), &report),
                ];
                let text = render(&two, exposition);
                assert!(parsed(&text).len() > 40, "seed {seed}");
                let ends = text.ends_with("# EOF\n");
                assert_eq!(ends, exposition == Exposition::OpenMetrics, "seed {seed}");
            }
        }
    }

    #[test]
    fn more_series_than_there_is_room_for_are_counted_and_not_written() {
        let report = full();
        let names: Vec<_> = (0..1_000).map(|number| format!("path {number}")).collect();
        let many: Vec<_> = names
            .iter()
            .map(|name| observed(Some(name), &report))
            .collect();
        let text = render(&many, Exposition::Text);
        let rows = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(rows <= SERIES + 1, "{rows}");
        let left_out = text
            .lines()
            .find(|line| line.starts_with("subsegment_series_left_out "));
        let (_, left_out) = left_out.unwrap().split_once(' ').unwrap();
        assert!(left_out.parse::<usize>().unwrap() > 1_000, "{left_out}");
    }

    #[test]
    fn a_path_of_nine_parts_has_less_than_1200_series_and_no_amount_or_time_in_a_label() {
        let mut report = full();
        let (last, host) = (4, report.statistics.hosts[3].clone());
        report
            .statistics
            .hosts
            .push(HostStatistics { hop: last, ..host });
        let segment = SegmentStatistics {
            from_hop: 3,
            to_hop: last,
            ..report.statistics.segments[2].clone()
        };
        let parts = [Part::Host(last), segment.part(), Part::Behind(last)];
        report.statistics.segments.push(segment);
        let connects = (0..last).map(|from| Part::Connect { from, to: from + 1 });
        for part in connects.chain(parts) {
            let part = samples::part(part, 5_000, Some(0.1));
            report.statistics.parts.push(part);
        }
        for host in &mut report.statistics.hosts {
            host.return_distribution = report.statistics.distribution.clone();
            host.return_wake_up = host.forward_residence;
        }
        let samples = parsed(&render(&[observed(None, &report)], Exposition::Text));
        assert!(samples.len() < 1_200, "{}", samples.len());
        let amounts = ["2.31", "2310000", "2026-", "1795253"];
        for (name, labels, _) in &samples {
            let label = labels
                .values()
                .find(|value| amounts.iter().any(|a| value.contains(a)));
            assert_eq!(label, None, "{name}");
        }
    }

    #[test]
    fn paths_whose_names_differ_only_at_the_end_have_series_of_their_own() {
        let report = full();
        let names = ["1", "2"].map(|end| "x".repeat(254) + end);
        let paths = names.each_ref().map(|name| observed(Some(name), &report));
        let text = render(&paths, Exposition::Text);
        let mut series = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, _) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name), "{name} comes twice");
        }
    }

    #[test]
    fn openmetrics_is_written_only_to_those_who_ask_for_it() {
        for (accept, expected) in [
            (
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                Exposition::OpenMetrics,
            ),
            (
                "text/plain, application/openmetrics-text; q=0",
                Exposition::Text,
            ),
            (
                "text/plain, application/openmetrics-text; q=0.1",
                Exposition::OpenMetrics,
            ),
            (
                "text/plain, application/openmetrics-text; q=0.000",
                Exposition::Text,
            ),
            (
                "Application/OpenMetrics-Text ; version=0.0.1",
                Exposition::OpenMetrics,
            ),
            ("application/openmetrics-texture", Exposition::Text),
            ("*/*", Exposition::Text),
            ("", Exposition::Text),
        ] {
            assert_eq!(Exposition::accepted(accept), expected, "{accept}");
        }
        let report = full();
        let text = render(&[observed(None, &report)], Exposition::OpenMetrics);
        assert!(
            text.contains("# TYPE subsegment_build info\nsubsegment_build_info{"),
            "{text}"
        );
        assert!(text
            .contains("# TYPE subsegment_blocks_sent counter\nsubsegment_blocks_sent_total 103\n"));
    }
}
