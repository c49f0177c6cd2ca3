//! Reports and the counts of nodes in; Prometheus' text format 0.0.4 or OpenMetrics 1.0 out.
//!
//! Read <https://prometheus.io/docs/instrumenting/exposition_formats/> first. Names are the program's API: [`FAMILIES`]
//! holds each with its unit, and the README and the tests are held against it.
//!
//! Histograms are cumulative over the life of the process, all with the same buckets ([`BUCKETS_NS`]): what is asked of
//! them (`histogram_quantile`, `rate`) is the monitoring system's business. A part that leaves the path and comes back
//! in another shape starts at zero again, which Prometheus takes for the restart of a counter.

use super::{printable, Report};
use crate::annotation::AnnotationValue;
use crate::decimal::decimal;
use crate::measure::sla::Amount;
use crate::measure::{
    Basis, Confidence, Histogram, HostStatistics, SegmentStatistics, Sla, Summary,
    VerdictDirection, VerdictKind, BUCKETS_NS,
};
use crate::time::{Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;
use std::fmt::Write as _;

/// Series beyond this number are left out, and counted: a path as long as the wire allows has 6000.
const SERIES: usize = 200_000;
/// Annotations that are shown of one node.
const ANNOTATIONS: usize = 256;
/// Characters that are shown of a label.
const LABEL: usize = 100;

/// In which words the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// What an `Accept` header asks for: OpenMetrics where it is named, text otherwise.
    pub fn accepted(accept: &str) -> Self {
        let refuses = |parameter: &str| {
            let weight = parameter
                .strip_prefix("q=")
                .or(parameter.strip_prefix("Q="));
            weight.and_then(decimal) == Some(0.0)
        };
        let mut ranges = accept.split(',');
        let named = ranges.any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            kind.eq_ignore_ascii_case("application/openmetrics-text") && !parts.any(refuses)
        });
        if named {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What kind of figure a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket, each only grows.
    Histogram,
}

/// A metric, in all its series.
#[derive(Debug)]
pub struct Family {
    /// Its full name, `_total` of a counter included; `_bucket`, `_sum` and `_count` come behind that of a histogram.
    pub name: &'static str,
    /// What kind of figure it is.
    pub kind: Kind,
    /// Of its value: `seconds`, `bytes`, `ratio` (0 to 1), `1` for a plain number.
    pub unit: &'static str,
    /// Names of its labels; `path` comes before them where one process probes several.
    pub labels: &'static str,
    /// One line.
    pub help: &'static str,
}

/// Makes the table and the names by which this file writes into it, so that none can be written that is not in it.
macro_rules! families {
    ($($id:ident $kind:ident $name:literal $unit:literal $labels:literal $help:literal)*) => {
        #[derive(Clone, Copy, Debug)]
        enum Id { $($id),* }

        /// Every metric, in the order in which they are written.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: concat!("subsegment_", $name),
            kind: Kind::$kind,
            unit: $unit,
            labels: $labels,
            help: $help,
        }),*];
    };
}

families! {
    Build Gauge "build_info" "1" "version, role, node" "The program that answers; always 1."
    Start Gauge "start_time_seconds" "seconds" "" "When the run began, since the Unix epoch."
    Up Gauge "path_up" "1" "" "Whether the path stands (1) or is broken (0), at a source or probe."
    Sent Counter "blocks_sent_total" "1" "" "Blocks sent, at a source or probe."
    Received Counter "blocks_received_total" "1" "" "Blocks answered, each once."
    Lost Counter "blocks_lost_total" "1" "" "Blocks that will not be answered."
    Late Counter "blocks_late_total" "1" "" "Blocks answered after --timeout."
    Duplicate Counter "blocks_duplicate_total" "1" "" "Answers to blocks that had been answered."
    PayloadSent Counter "payload_sent_bytes_total" "bytes" "" "Payload sent, at a source or probe."
    Open Gauge "connections_open" "1" "" "Connections that are open, at a node that listens."
    Connections Counter "connections_total" "1" "" "Connections accepted."
    Failed Counter "connections_failed_total" "1" "" "Connections ended by a reset or an error."
    Refused Counter "connections_refused_total" "1" "" "Connections from networks that --allow does not name."
    CarriedBytes Counter "carried_bytes_total" "bytes" "direction" "Payload moved by a node that listens."
    CarriedBlocks Counter "carried_blocks_total" "1" "direction" "Blocks, or pieces of plain traffic, moved."
    ReportsDropped Counter "reports_dropped_total" "1" "" "Reports to the source that an exit had no room for."
    Dropped Counter "measurements_dropped_total" "1" "" "Measurements lost because the statistics thread was behind."
    LeftOut Gauge "series_left_out" "1" "" "Series that were too many to be written."
    RoundTrip Histogram "round_trip_seconds" "seconds" "" "From the time a block was due to its return: the whole path."
    Segment Histogram "segment_round_trip_seconds" "seconds" "hop, from, to" "Round trip of a segment, the far node's share taken out."
    SegmentNetwork Gauge "segment_network_seconds" "seconds" "hop, from, to, figure" "Round trip of a segment without the wake-up delays at its ends, over the run."
    SegmentExcess Gauge "segment_excess_seconds" "seconds" "hop, from, to, direction, figure" "One-way delay of a segment above its own minimum, over the run."
    SegmentShare Gauge "segment_share_ratio" "ratio" "hop, from, to" "Part of a segment in the sum of all delays, without the wake-up delays at its ends where those are known."
    SegmentBaseline Gauge "segment_baseline_seconds" "seconds" "hop, from, to" "What is normal for a segment, without the wake-up delays at its ends where those are known."
    SegmentIncrease Gauge "segment_increase_seconds" "seconds" "hop, from, to" "Growth of a segment over what is normal, likewise."
    SegmentHeld Gauge "segment_held_ratio" "ratio" "hop, from, to" "Share of the time in which the far node was blocked writing further on."
    SegmentOffset Gauge "segment_clock_offset_seconds" "seconds" "hop, from, to" "Clock of the far node minus clock of the near node."
    SegmentOffsetError Gauge "segment_clock_offset_error_seconds" "seconds" "hop, from, to" "Bound of the error of that offset."
    SegmentSkew Gauge "segment_clock_skew_ratio" "ratio" "hop, from, to" "Rate of the far clock against the near one, minus 1."
    SegmentNegative Counter "segment_negative_total" "1" "hop, from, to" "Round trips below zero: a clock was stepped in flight."
    SegmentSla Gauge "segment_sla_state" "1" "hop, from, to" "How a segment stands to its limits: 0 no limits, 1 ok, 2 warning, 3 critical."
    Residence Histogram "host_residence_seconds" "seconds" "hop, node, direction" "Time that blocks spent in a node."
    HostWakeUp Gauge "host_wake_up_seconds" "seconds" "hop, node, direction, figure" "How late the process reads what its kernel has received, over the run."
    HostShare Gauge "host_share_ratio" "ratio" "hop, node" "Part of a node in the sum of all round trips."
    HostBaseline Gauge "host_baseline_seconds" "seconds" "hop, node" "What is normal for the residence in a node."
    HostIncrease Gauge "host_increase_seconds" "seconds" "hop, node" "Growth of the residence in a node over what is normal."
    HostSteps Counter "host_clock_steps_total" "1" "hop, node" "Steps of the clock of a node."
    HostNodes Gauge "host_identities" "1" "hop, node" "Nodes seen at a hop; more than 1 is a pool behind a balancer, or a restart."
    HostSla Gauge "host_sla_state" "1" "hop, node" "How a node stands to its limits, as for segments."
    BehindExit Gauge "behind_exit_seconds" "seconds" "figure" "The server behind an exit and the network to it, over the run."
    PathChanges Counter "path_changes_total" "1" "" "How often a node was replaced or the path changed its shape."
    SlaState Gauge "sla_state" "1" "" "The worst of all parts, as for segments."
    Limit Gauge "limit_seconds" "seconds" "part, name, figure, severity, line" "A limit of a delay, as --rules, --warning or --critical gave it; line is that of the rule."
    LimitValue Gauge "limit_value_seconds" "seconds" "part, name, figure, severity, line" "What is held against that limit, latest."
    LimitRatio Gauge "limit_ratio" "ratio" "part, name, figure, severity, line" "A limit of a share."
    LimitRatioValue Gauge "limit_value_ratio" "ratio" "part, name, figure, severity, line" "What is held against that limit, latest."
    LimitState Gauge "limit_state" "1" "part, name, figure, severity, line" "How a part stands to one limit, as for segments."
    Verdict Gauge "verdict_info" "1" "kind, name, delay, direction, basis, confidence" "The part that adds the delay; always 1."
    Annotation Gauge "annotation" "1" "hop, node, name" "What a node told of itself, in the unit its name ends in."
    AnnotationFailed Gauge "annotation_failed" "1" "hop, node, name" "A source of annotations that a node could not read; always 1."
    ProbeSuccess Gauge "probe_success" "1" "" "Whether every block of a probe asked for over HTTP was answered."
    ProbeDuration Gauge "probe_duration_seconds" "seconds" "" "How long that probe took."
}

/// The live counts of a node; what does not apply is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFigures {
    /// `--node`.
    pub name: String,
    /// `source`, `probe`, `relay`, ...
    pub role: String,
    /// Whether the path stands; only of nodes that begin one.
    pub path_up: Option<bool>,
    /// Only of nodes that listen.
    pub carried: Option<Carried>,
    /// Only of a probe that was asked for over HTTP.
    pub probed: Option<Probed>,
}

/// What a node that listens has seen of connections, those that are open included.
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
}

/// How a probe went that was asked for over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Every block was answered.
    pub success: bool,
    /// It took so long.
    pub duration: Nanos,
}

/// One path, or one node, of those that a process looks after.
#[derive(Clone, Debug)]
pub struct Observed<'a, R = &'a Report> {
    /// What tells it from the others of the process; `None` where there is one.
    pub path: Option<&'a str>,
    /// What was measured; `None` where nothing was so far.
    pub report: Option<R>,
    /// Counts.
    pub figures: NodeFigures,
}

/// All metrics of a process. `node`, which stands for it, is named in `build_info`.
pub fn render<R: AsRef<Report>>(observed: &[Observed<'_, R>], exposition: Exposition) -> String {
    let mut sheet = Sheet::new();
    for one in observed {
        let report = one.report.as_ref().map(AsRef::as_ref);
        Path {
            sheet: &mut sheet,
            // Whole, for it tells the series of one path from those of another; the user wrote it, who may write 255 bytes.
            prefix: one
                .path
                .map_or_else(String::new, |path| format!("path=\"{}\"", escaped(path))),
            own_name: &one.figures.name,
        }
        .write(report, &one.figures);
    }
    sheet.finish(exposition)
}

impl AsRef<Self> for Report {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Rows of each metric; those of one have to stand together, whatever path they are of.
struct Sheet {
    rows: Vec<String>,
    series: usize,
    left_out: usize,
}

impl Sheet {
    fn new() -> Self {
        Self {
            rows: vec![String::new(); FAMILIES.len()],
            series: 0,
            left_out: 0,
        }
    }

    /// Whether so many more series have room.
    fn has_room(&mut self, series: usize) -> bool {
        let fits = self.series + series <= SERIES;
        if fits {
            self.series += series;
        } else {
            self.left_out += series;
        }
        fits
    }

    fn row(&mut self, id: Id, suffix: &str, labels: &str, value: &str) {
        let name = FAMILIES[id as usize].name;
        let rows = &mut self.rows[id as usize];
        let _ = match labels {
            "" => writeln!(rows, "{name}{suffix} {value}"),
            _ => writeln!(rows, "{name}{suffix}{{{labels}}} {value}"),
        };
    }

    fn finish(mut self, exposition: Exposition) -> String {
        self.row(Id::LeftOut, "", "", &self.left_out.to_string());
        let mut text = String::with_capacity(self.rows.iter().map(|rows| rows.len() + 200).sum());
        for (family, rows) in FAMILIES.iter().zip(&self.rows) {
            if rows.is_empty() {
                continue;
            }
            // OpenMetrics names the family, the older format the series.
            let (name, kind) = match (exposition, family.kind) {
                (Exposition::OpenMetrics, Kind::Counter) => (
                    family.name.strip_suffix("_total").unwrap_or(family.name),
                    "counter",
                ),
                (Exposition::OpenMetrics, Kind::Gauge) if family.name.ends_with("_info") => (
                    family.name.strip_suffix("_info").unwrap_or(family.name),
                    "info",
                ),
                (_, Kind::Counter) => (family.name, "counter"),
                (_, Kind::Gauge) => (family.name, "gauge"),
                (_, Kind::Histogram) => (family.name, "histogram"),
            };
            let help = family.help;
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            text.push_str(rows);
        }
        if exposition == Exposition::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
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
    fn write(&mut self, report: Option<&Report>, figures: &NodeFigures) {
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
        }
        if let Some(probed) = figures.probed {
            self.number(Id::ProbeSuccess, &[], u64::from(probed.success));
            self.seconds(Id::ProbeDuration, &[], Some(probed.duration.signed()));
        }
        if let Some(report) = report {
            self.report(report, figures.path_up.is_some());
        }
    }

    fn report(&mut self, report: &Report, sends: bool) {
        let since_epoch = report.started - WallTime(0);
        self.seconds(Id::Start, &[], Some(since_epoch));
        self.number(Id::Dropped, &[], report.dropped);
        if sends {
            let blocks = report.blocks;
            for (id, count) in [
                (Id::Sent, blocks.sent),
                (Id::Received, blocks.received),
                (Id::Lost, blocks.lost),
                (Id::Late, blocks.late),
                (Id::Duplicate, blocks.duplicate),
                (Id::PayloadSent, blocks.payload_bytes),
            ] {
                self.number(id, &[], count);
            }
        }
        let statistics = &report.statistics;
        self.histogram(Id::RoundTrip, &[], &statistics.distribution);
        self.number(Id::SlaState, &[], state(statistics.sla));
        self.number(Id::PathChanges, &[], statistics.path_changes);
        self.figures(Id::BehindExit, &[], statistics.behind_exit);
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
                // Names are a peer's words: two that read the same would make the whole answer void.
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
            let (name, figure) = (report.place_name(limit.place), limit.figure_text());
            let line = limit.line.map_or_else(String::new, |line| line.to_string());
            let labels = [
                ("part", limit.part()),
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
            for (amount, span, share) in [
                (limit.limit, Id::Limit, Id::LimitRatio),
                (limit.value, Id::LimitValue, Id::LimitRatioValue),
            ] {
                match amount {
                    Some(Amount::Span(amount)) => self.seconds(span, &labels, Some(amount)),
                    Some(Amount::Share(amount)) => self.float(share, &labels, Some(amount)),
                    None => {}
                }
            }
        }
    }

    fn name(&self, report: &Report, hop: u8) -> String {
        if report.path.nodes.is_empty() && !self.own_name.is_empty() {
            return self.own_name.to_owned(); // A plain proxy: nobody else is on its path.
        }
        report.name_at(hop)
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
        self.number(Id::HostSteps, &labels, host.clock_steps);
        self.number(Id::HostNodes, &labels, host.nodes.len() as u64);
        self.number(Id::HostSla, &labels, state(host.sla));
    }

    fn number(&mut self, id: Id, pairs: &[(&str, &str)], value: u64) {
        if self.sheet.has_room(1) {
            let labels = labels(&self.prefix, pairs);
            self.sheet.row(id, "", &labels, &value.to_string());
        }
    }

    fn float(&mut self, id: Id, pairs: &[(&str, &str)], value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return;
        };
        if self.sheet.has_room(1) {
            let labels = labels(&self.prefix, pairs);
            self.sheet.row(id, "", &labels, &value.to_string());
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

    /// One without values is left out: a direction that a node does not have.
    fn histogram(&mut self, id: Id, pairs: &[(&str, &str)], of: &Histogram) {
        if of.count() == 0 || !self.sheet.has_room(BUCKETS_NS.len() + 3) {
            return;
        }
        let labels = labels(&self.prefix, pairs);
        let comma = if labels.is_empty() { "" } else { "," };
        let mut bucket = |bound: &str, count: u64| {
            let labels = format!("{labels}{comma}le=\"{bound}\"");
            self.sheet.row(id, "_bucket", &labels, &count.to_string());
        };
        for bound in BUCKETS_NS {
            bucket(&bound_text(bound), of.count_up_to(SignedNanos(bound)));
        }
        bucket("+Inf", of.count());
        // A sum only grows, so negative values (a clock stepped in flight) may not take it below zero.
        let sum = seconds(of.sum().max(0));
        self.sheet.row(id, "_sum", &labels, &sum.to_string());
        self.sheet
            .row(id, "_count", &labels, &of.count().to_string());
    }
}

/// 0 no limits, 1 ok, 2 warning, 3 critical: so that `max` of several is the worst.
fn state(sla: Sla) -> u64 {
    match sla {
        Sla::None => 0,
        Sla::Ok => 1,
        Sla::Warning => 2,
        Sla::Critical => 3,
    }
}

fn seconds(nanos: i128) -> f64 {
    nanos as f64 / 1e9
}

/// With a point, as OpenMetrics wants it: a bound that is written in two ways makes two series.
fn bound_text(nanos: i64) -> String {
    let text = seconds(i128::from(nanos)).to_string();
    if text.contains('.') {
        text
    } else {
        text + ".0"
    }
}

/// `prefix` and the pairs, joined by commas.
fn labels(prefix: &str, pairs: &[(&str, &str)]) -> String {
    let mut out = prefix.to_owned();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"{}\"", label_text(value));
    }
    out
}

/// Text as it stands between the quotes of a label: bounded, nothing unprintable, quotes and backslashes escaped.
fn label_text(text: &str) -> String {
    let bounded: String = text.chars().take(LABEL).collect();
    escaped(&bounded)
}

fn escaped(text: &str) -> String {
    let plain = printable(text);
    plain.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;
    use std::collections::{BTreeMap, BTreeSet};

    const README: &str = include_str!("../../../README.md");

    /// A report in which every figure is there.
    fn full() -> Report {
        let mut report = samples::full();
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
            carried: Some(Carried::default()),
            probed: Some(Probed::default()),
        }
    }

    fn observed<'a>(path: Option<&'a str>, report: &'a Report) -> Observed<'a> {
        Observed {
            path,
            report: Some(report),
            figures: figures(),
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
    fn the_verdict_tells_a_host_that_reads_late_from_one_that_keeps_blocks() {
        let told = |kind, reads_late| {
            let mut report = samples::full();
            let verdict = &mut report.statistics.verdict;
            (verdict.kind, verdict.reads_late) = (kind, reads_late);
            let samples = parsed(&render(&[observed(None, &report)], Exposition::Text));
            let verdict = samples.iter().find(|s| s.0 == "subsegment_verdict_info");
            verdict.expect("a verdict").1["delay"].clone()
        };
        assert_eq!(told(VerdictKind::Host, true), "wake_up");
        assert_eq!(told(VerdictKind::Host, false), "residence");
        assert_eq!(told(VerdictKind::Source, false), "residence");
        assert_eq!(told(VerdictKind::Segment, false), "round_trip");
        assert_eq!(told(VerdictKind::Server, false), "behind_exit");
        assert_eq!(told(VerdictKind::None, false), "");
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
            assert!(cells[4].len() > 4, "{name} says nothing");
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
    fn whatever_peers_write_every_line_can_be_read() {
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
