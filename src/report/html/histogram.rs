//! Draws the distribution of each part, all over the same logarithmic axis of time.

use super::super::Report;
use super::chart::{axis, row, span, time, upright, within, worth_drawing, Drawn, DrawnPart};
use crate::measure::{Histogram, Summary};
use std::fmt::Write as _;

/// Bars over the whole axis.
const BARS: usize = 90;
const HEIGHT: u32 = 40;
/// The least height of a bar of 1000, so that a single value shows beside a thousand.
const LEAST_BAR: f64 = 25.0;

struct Row<'a> {
    class: &'static str,
    name: &'a str,
    histograms: Vec<&'a Histogram>,
    summary: Option<Summary>,
}

impl Row<'_> {
    /// Returns the values that have a logarithm, in nanoseconds, with their counts.
    fn values(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let rows = self
            .histograms
            .iter()
            .flat_map(|histogram| histogram.rows());
        rows.map(|(value, count)| (value.0 as f64, count))
            .filter(|(value, _)| *value >= 1.0)
    }
}

/// Writes the section; nothing if nothing was measured.
pub(super) fn section(report: &Report, out: &mut String) {
    let (drawn, _) = worth_drawing(report);
    let statistics = &report.statistics;
    let total = Row {
        class: "row",
        name: "Total",
        histograms: vec![&statistics.distribution],
        summary: statistics.round_trip,
    };
    let rows: Vec<_> = std::iter::once(total).chain(drawn.iter().map(of)).collect();
    let (low, high) = rows
        .iter()
        .flat_map(Row::values)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), (value, _)| {
            (low.min(value), high.max(value))
        });
    if high <= 0.0 {
        return;
    }
    // A little room at both ends; a single value has a decade around it.
    let (low, high) = (low.log10() - 0.05, high.log10() + 0.05);
    let (low, high) = if high - low < 0.6 {
        (low - 0.3, high + 0.3)
    } else {
        (low, high)
    };
    let at = |value: f64| (value.max(1.0).log10() - low) / (high - low);
    let labels = labels(low, high);
    out.push_str(
        "<section><h2>How delays are distributed</h2>\n<p class=\"hint\">All rows share one \
         logarithmic axis. Solid line: \
         median, dashed: 95th percentile. \
         Two heaps are two states, before and after a change for one.</p>\n",
    );
    for item in &rows {
        let mut counts = [0_u64; BARS];
        for (value, count) in item.values() {
            let bar = within(at(value) * BARS as f64, BARS as f64 - 1.0) as usize;
            counts[bar] = counts[bar].saturating_add(count);
        }
        let mut picture = String::new();
        labels
            .iter()
            .for_each(|(at, _)| upright(&mut picture, *at, "grid"));
        let _ = write!(
            picture,
            "<line x1=\"0\" x2=\"100%\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\" class=\"grid\"/>\
             <svg y=\"4\" height=\"{}\" viewBox=\"0 0 {} 1000\" preserveAspectRatio=\"none\">\
             <path class=\"bar\" d=\"{}\"/></svg>",
            HEIGHT - 4,
            10 * BARS,
            bars(&counts)
        );
        let mut figures = String::new();
        let mut described = String::new();
        if let Some(summary) = item.summary {
            upright(&mut picture, within(at(summary.p50.0 as f64), 1.0), "mark");
            upright(
                &mut picture,
                within(at(summary.p95.0 as f64), 1.0),
                "mark95",
            );
            let (p50, p95, most) = (span(summary.p50), span(summary.p95), span(summary.max));
            figures = format!("<b>{p50}</b><br><small>p95 {p95} \u{b7} max {most}</small>");
            described = format!("{}: median {p50}, p95 {p95}, greatest {most}", item.name);
        }
        row(
            out,
            item.class,
            item.name,
            (HEIGHT, &described, &picture),
            &figures,
        );
    }
    axis(out, &labels, "");
    out.push_str("</section>\n");
}

fn of<'a>(part: &'a DrawnPart<'_>) -> Row<'a> {
    let row = part.row.filter(|row| row.distribution.count() > 0);
    let (histograms, summary) = match (row, &part.of) {
        (Some(row), _) => (vec![&row.distribution], row.delay),
        (None, Drawn::Other(row)) => (vec![&row.distribution], row.delay),
        (None, Drawn::Segment(_, segment)) => (vec![&segment.distribution], segment.round_trip),
        // Two ways through a host make one picture; its lines are those of the way out.
        (None, Drawn::Host(_, host)) => (
            vec![&host.forward_distribution, &host.return_distribution],
            host.forward_residence,
        ),
    };
    Row {
        class: part.class(),
        name: &part.name,
        histograms,
        summary,
    }
}

/// Bars of 10 by up to 1000.
fn bars(counts: &[u64; BARS]) -> String {
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let mut path = String::new();
    for (bar, count) in counts.iter().enumerate().filter(|bar| *bar.1 > 0) {
        let height = (*count as f64 / most * 1000.0).max(LEAST_BAR).round();
        let _ = write!(path, "M{} 1000v-{height}h9v{height}z", 10 * bar);
    }
    path
}

/// Powers of ten, and where there are few of them 2 and 5 between.
fn labels(low: f64, high: f64) -> Vec<(f64, String)> {
    let steps: &[f64] = if high - low < 1.3 {
        &[1.0, 2.0, 5.0]
    } else if high - low < 2.2 {
        &[1.0, 3.0]
    } else {
        &[1.0]
    };
    let decades = low.floor() as i32..=high.ceil() as i32;
    let values =
        decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
    let labels: Vec<_> = values
        .map(|value| ((value.log10() - low) / (high - low), time(value)))
        .filter(|(at, _)| (0.0..=1.0).contains(at))
        .collect();
    // Seven labels are what a phone has room for.
    let every = labels.len().div_ceil(7).max(1);
    labels.into_iter().step_by(every).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_value_is_seen_beside_a_thousand() {
        let mut counts = [0; BARS];
        (counts[3], counts[80]) = (1_000, 1);
        assert_eq!(bars(&counts), "M30 1000v-1000h9v1000zM800 1000v-25h9v25z");
    }

    #[test]
    fn every_axis_has_some_labels_and_not_too_many() {
        for (low, high) in [(3.2, 3.9), (4.0, 5.3), (0.0, 19.0), (6.1, 7.0), (2.0, 9.5)] {
            let labels = labels(low, high);
            assert!((2..=7).contains(&labels.len()), "{low} {high}: {labels:?}");
        }
    }
}
