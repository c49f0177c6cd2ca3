//! Turns a [`Report`] into Influx line protocol (`--format influx`), for Telegraf and InfluxDB.
//!
//! The total, each segment, each host and each part of the path have a line, dated at the run's end
//! in nanoseconds.
//!
//! ```text
//! subsegment_total,source=A sent=100i,received=100i,lost=0i,late=0i,...,min_ns=...i,... TIME
//! subsegment_segment,from=B,source=A,to=C count=100i,...,increase_ns=12i,share=0.92 TIME
//! subsegment_host,host=C,hop=2,source=A forward_count=100i,...,return_p50_ns=9i TIME
//! subsegment_part,hop=2,name=B\ ->\ C,part=segment,source=A count=100i,...,share=0.92 TIME
//! ```
//! Figures that do not exist have no field, and a line without a field is left out.

use super::Report;
use crate::measure::Summary;
use crate::time::SignedNanos;
use std::fmt::Write as _;

/// The lines of a run.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let source = report.node_at(0).map(|node| node.name.as_str());
    let source = source.unwrap_or(&report.role).to_owned();
    let statistics = &report.statistics;
    let mut total = Line::default();
    total.tag("source", &source);
    for (name, count) in [
        ("sent", report.blocks.sent),
        ("received", report.blocks.received),
        ("lost", report.blocks.lost),
        ("unsent", report.blocks.unsent),
        ("late", report.blocks.late),
        ("duplicate", report.blocks.duplicate),
    ] {
        total.whole(name, i64::try_from(count).ok());
    }
    total.summary("", statistics.round_trip);
    total.text("sla", statistics.sla.name());
    total.write("subsegment_total", report, &mut text);
    for segment in &statistics.segments {
        let mut line = Line::default();
        line.tag("from", &report.name_at(segment.from_hop));
        line.tag("source", &source);
        line.tag("to", &report.name_at(segment.to_hop));
        line.summary("", segment.round_trip);
        line.summary("network_", segment.network);
        line.summary("forward_excess_", segment.forward_excess);
        line.summary("return_excess_", segment.return_excess);
        line.span("baseline_ns", segment.baseline);
        line.span("increase_ns", segment.increase);
        line.span("clock_offset_ns", segment.clock_offset);
        line.number("share", segment.share);
        line.number("held_share", segment.held_share);
        line.text("sla", segment.sla.name());
        line.write("subsegment_segment", report, &mut text);
    }
    for host in &statistics.hosts {
        let mut line = Line::default();
        line.tag("hop", &host.hop.to_string());
        line.tag("host", &report.name_at(host.hop));
        line.tag("source", &source);
        line.summary("forward_", host.forward_residence);
        line.summary("return_", host.return_residence);
        line.summary("forward_wake_up_", host.forward_wake_up);
        line.summary("return_wake_up_", host.return_wake_up);
        line.span("baseline_ns", host.baseline);
        line.span("increase_ns", host.increase);
        line.number("share", host.share);
        line.text("sla", host.sla.name());
        line.write("subsegment_host", report, &mut text);
    }
    for of in &statistics.parts {
        let mut line = Line::default();
        let [near, far] = of.part.hops();
        if let Some(hop) = far.or(near) {
            line.tag("hop", &hop.to_string());
        }
        line.tag("name", &report.part_name(of.part));
        line.tag("part", of.part.kind());
        line.tag("source", &source);
        line.summary("", of.delay);
        line.span("all_blocks_mean_ns", of.mean);
        line.span("baseline_ns", of.baseline);
        line.span("increase_ns", of.increase);
        line.number("share", of.share);
        line.text("sla", of.sla.name());
        line.write("subsegment_part", report, &mut text);
    }
    text
}

#[derive(Default)]
struct Line {
    tags: String,
    fields: String,
}

impl Line {
    /// Commas, equals signs and spaces are escaped; what would end or hide the line is shown as the
    /// other renderers show it. A tag's value is never empty.
    fn tag(&mut self, key: &str, value: &str) {
        let shown = super::printable(value);
        let _ = write!(self.tags, ",{key}=");
        let shown = if shown.is_empty() { "-" } else { &shown };
        for c in shown.chars() {
            if matches!(c, ',' | '=' | ' ') {
                self.tags.push('\\');
            }
            // The format has no way to write a backslash before one of these.
            self.tags.push(if c == '\\' { '/' } else { c });
        }
    }

    fn field(&mut self, key: &str, value: std::fmt::Arguments<'_>) {
        let comma = if self.fields.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(self.fields, "{comma}{key}={value}");
    }

    fn whole(&mut self, key: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.field(key, format_args!("{value}i"));
        }
    }

    fn span(&mut self, key: &str, value: Option<SignedNanos>) {
        self.whole(key, value.map(|span| span.0));
    }

    fn number(&mut self, key: &str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.field(key, format_args!("{value}"));
        }
    }

    /// Writes a word of the program, which needs no escape.
    fn text(&mut self, key: &str, value: &str) {
        self.field(key, format_args!("\"{value}\""));
    }

    fn summary(&mut self, prefix: &str, summary: Option<Summary>) {
        let Some(of) = summary else {
            return;
        };
        self.whole(&format!("{prefix}count"), i64::try_from(of.count).ok());
        for (name, value) in [
            ("min", of.min),
            ("mean", of.mean),
            ("p50", of.p50),
            ("p90", of.p90),
            ("p95", of.p95),
            ("p99", of.p99),
            ("max", of.max),
        ] {
            self.whole(&format!("{prefix}{name}_ns"), Some(value.0));
        }
    }

    fn write(self, measurement: &str, report: &Report, out: &mut String) {
        if !self.fields.is_empty() {
            let Self { tags, fields } = self;
            let _ = writeln!(out, "{measurement}{tags} {fields} {}", report.ended.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    type Pairs = Vec<(String, String)>;

    /// Parses a line by the grammar of the line protocol: measurement, tags, fields, time.
    fn read(line: &str) -> (String, Pairs, Pairs, u64) {
        let mut parts = vec![String::new()];
        let mut chars = line.chars();
        let mut quoted = false;
        // Separators that are not escaped become U+0000 (space), U+0001 (comma), U+0002 (equals).
        while let Some(c) = chars.next() {
            let fields = parts.len() == 2;
            let last = parts.last_mut().unwrap();
            match c {
                '\\' if !quoted => match chars.next() {
                    Some(next) if matches!(next, ',' | '=' | ' ') => last.push(next),
                    Some(next) => last.extend(['\\', next]),
                    None => panic!("ends in a backslash: {line}"),
                },
                '"' if fields => {
                    quoted = !quoted;
                    last.push(c);
                }
                ' ' if !quoted => parts.push(String::new()),
                ',' if !quoted => last.push('\u{1}'),
                '=' if !quoted => last.push('\u{2}'),
                c => last.push(c),
            }
        }
        let [head, fields, time] = &parts[..] else {
            panic!("three parts: {line}");
        };
        let pairs = |text: &str| -> Pairs {
            let pairs = text.split('\u{1}').map(|pair| {
                let (key, value) = pair.split_once('\u{2}').expect(line);
                assert!(!key.is_empty() && !value.is_empty(), "{line}");
                (key.to_owned(), value.to_owned())
            });
            pairs.collect()
        };
        let (measurement, tags) = head.split_once('\u{1}').expect("tags");
        (
            measurement.to_owned(),
            pairs(tags),
            pairs(fields),
            time.parse().expect("a time"),
        )
    }

    #[test]
    fn every_line_of_any_report_follows_the_grammar() {
        for report in (0..200)
            .map(samples::random)
            .chain([samples::full(), samples::empty()])
        {
            for line in render(&report).lines() {
                let (measurement, tags, fields, time) = read(line);
                assert!(measurement.starts_with("subsegment_"));
                assert_eq!(time, report.ended.0);
                let mut sorted = tags.clone();
                sorted.sort();
                assert_eq!(sorted, tags, "tags are sorted, as InfluxDB likes them");
                for (key, value) in fields {
                    let whole = value.strip_suffix('i').map(|v| v.parse::<i64>().is_ok());
                    let good = whole.unwrap_or_else(|| {
                        value.parse::<f64>().is_ok()
                            || (value.starts_with('"') && value.ends_with('"'))
                    });
                    assert!(good, "{key}={value}");
                }
            }
        }
    }

    #[test]
    fn a_segment_has_its_figures_in_nanoseconds() {
        let text = render(&samples::full());
        let line = text.lines().find(|line| line.contains("from=B,")).unwrap();
        let (measurement, tags, fields, _) = read(line);
        assert_eq!(measurement, "subsegment_segment");
        assert!(tags.contains(&("to".into(), "C".into())));
        assert!(fields.contains(&("increase_ns".into(), "2310000i".into())));
        assert!(fields.contains(&("sla".into(), "\"critical\"".into())));
    }
}
