//! Families, samples and labels in the text format of Prometheus 0.0.4 or OpenMetrics 1.0.
//!
//! Both the metrics of a run and those of a capture are written by it.

use crate::decimal::decimal;
use crate::report::printable;
use std::fmt::Write as _;

/// Most series; the rest are counted. The longest path has 6000.
pub(in crate::report) const SERIES: usize = 200_000;
/// Characters that are shown of a label.
const LABEL: usize = 100;

/// The format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// Returns the exposition for an `Accept` header: OpenMetrics if it is named, text otherwise.
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

    /// Returns the value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket, each only grows.
    Histogram,
}

impl Kind {
    /// The word for it in TYPE lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric, in all its series.
#[derive(Debug)]
pub struct Family {
    /// The full name, `_total` of a counter included, without `_bucket`, `_sum`, `_count` of a
    /// histogram.
    pub name: &'static str,
    /// The type of the metric.
    pub kind: Kind,
    /// The unit: `seconds`, `bytes`, `ratio` (0 to 1), `1` for a plain number.
    pub unit: &'static str,
    /// Names of its labels; `path` comes before them where one process probes several.
    pub labels: &'static str,
    /// The text of HELP, one line.
    pub help: &'static str,
}

/// Makes a table of metrics, and the enum by which samples are written: no other name can be.
macro_rules! families {
    ($prefix:literal, $ids:ident, $vis:vis $table:ident:
     $($id:ident $kind:ident $name:literal $unit:literal $labels:literal $help:literal)*) => {
        /// A metric of the table, by its index.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum $ids { $($id),* }

        impl From<$ids> for usize {
            fn from(id: $ids) -> Self {
                id as Self
            }
        }

        /// Every metric, in the order in which they are written.
        $vis const $table: &[$crate::report::prometheus::Family] =
            &[$($crate::report::prometheus::Family {
                name: concat!($prefix, $name),
                kind: $crate::report::prometheus::Kind::$kind,
                unit: $unit,
                labels: $labels,
                help: $help,
            }),*];
    };
}
pub(in crate::report) use families;

/// The samples of each metric; those of one have to stand together, whatever path they are of.
#[derive(Debug)]
pub(in crate::report) struct Sheet {
    families: &'static [Family],
    rows: Vec<String>,
    series: usize,
    left_out: usize,
}

impl Sheet {
    /// Returns a sheet without samples.
    pub(in crate::report) fn new(families: &'static [Family]) -> Self {
        Self {
            families,
            rows: vec![String::new(); families.len()],
            series: 0,
            left_out: 0,
        }
    }

    /// Returns `true` if there is room for so many more series; else they are counted as left out.
    fn has_room(&mut self, series: usize) -> bool {
        let fits = self.series + series <= SERIES;
        if fits {
            self.series += series;
        } else {
            self.left_out += series;
        }
        fits
    }

    /// Returns the number of series that had no room.
    pub(in crate::report) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Writes a sample, whatever room there is.
    pub(in crate::report) fn row(&mut self, id: impl Into<usize>, labels: &str, value: &str) {
        self.sample(id.into(), "", labels, value);
    }

    /// Writes a sample, if there is room.
    pub(in crate::report) fn value(&mut self, id: impl Into<usize>, labels: &str, value: &str) {
        if self.has_room(1) {
            self.sample(id.into(), "", labels, value);
        }
    }

    /// Writes a histogram, if there is room: cumulative counts by the text of their bound, sum and
    /// count.
    pub(in crate::report) fn histogram(
        &mut self,
        id: impl Into<usize>,
        labels: &str,
        buckets: &[(String, u64)],
        sum: f64,
    ) {
        if !self.has_room(buckets.len() + 2) {
            return;
        }
        let id = id.into();
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in buckets {
            let labels = format!("{labels}{comma}le=\"{bound}\"");
            self.sample(id, "_bucket", &labels, &count.to_string());
        }
        self.sample(id, "_sum", labels, &sum.to_string());
        let count = buckets.last().map_or(0, |(_, count)| *count);
        self.sample(id, "_count", labels, &count.to_string());
    }

    fn sample(&mut self, id: usize, suffix: &str, labels: &str, value: &str) {
        let name = self.families[id].name;
        let rows = &mut self.rows[id];
        // Writing to a String cannot fail, here and below.
        let _ = match labels {
            "" => writeln!(rows, "{name}{suffix} {value}"),
            _ => writeln!(rows, "{name}{suffix}{{{labels}}} {value}"),
        };
    }

    /// Returns the whole text; a family without a sample is left out.
    pub(in crate::report) fn finish(self, exposition: Exposition) -> String {
        let mut text = String::with_capacity(self.rows.iter().map(|rows| rows.len() + 200).sum());
        for (family, rows) in self.families.iter().zip(&self.rows) {
            if rows.is_empty() {
                continue;
            }
            // OpenMetrics names the family, the older format the series.
            let (name, kind) = match (exposition, family.kind) {
                (Exposition::OpenMetrics, Kind::Counter) => (
                    family.name.strip_suffix("_total").unwrap_or(family.name),
                    family.kind.name(),
                ),
                (Exposition::OpenMetrics, Kind::Gauge) if family.name.ends_with("_info") => (
                    family.name.strip_suffix("_info").unwrap_or(family.name),
                    "info",
                ),
                _ => (family.name, family.kind.name()),
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

pub(in crate::report) fn seconds(nanos: i128) -> f64 {
    nanos as f64 / 1e9
}

/// Returns a bound with a point, as OpenMetrics wants it: two spellings make two series.
pub(in crate::report) fn bound_text(nanos: i64) -> String {
    let text = seconds(i128::from(nanos)).to_string();
    if text.contains('.') {
        text
    } else {
        text + ".0"
    }
}

/// Returns `prefix` and the pairs, joined by commas.
pub(in crate::report) fn labels(prefix: &str, pairs: &[(&str, &str)]) -> String {
    let mut out = prefix.to_owned();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"{}\"", label_text(value));
    }
    out
}

/// Returns text for the quotes of a label: bounded, without unprintable characters, escaped.
pub(in crate::report) fn label_text(text: &str) -> String {
    let bounded: String = text.chars().take(LABEL).collect();
    escaped(&bounded)
}

pub(in crate::report) fn escaped(text: &str) -> String {
    let plain = printable(text);
    plain.replace('\\', "\\\\").replace('"', "\\\"")
}
