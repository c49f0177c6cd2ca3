//! The common parts of the pictures: choice of parts, text of times, ticks of axes.
//!
//! Every number that it returns is finite, for any input.

use super::super::{in_path_order, printable, Place, Report};
use crate::measure::{HostStatistics, Part, PartStatistics, SegmentStatistics};
use crate::time::SignedNanos;
use std::fmt::Write as _;

/// Most parts in one picture, so that a page of a long path stays small.
const MOST: usize = 18;
/// A part that is no segment has no picture of its own with less of the total than this.
const LEAST_SHARE: f64 = 0.02;

/// A part of the path in the pictures.
pub(super) struct DrawnPart<'a> {
    /// Not escaped yet.
    pub(super) name: String,
    pub(super) is_named: bool,
    pub(super) part: Part,
    /// The mean and the 95th percentile of its row; `None` at a node that sees no trips, and of a
    /// connect no percentile.
    pub(super) mean: Option<SignedNanos>,
    pub(super) p95: Option<SignedNanos>,
    /// Its row; `None` at a node that sees no trips.
    pub(super) row: Option<&'a PartStatistics>,
    /// Its figures.
    pub(super) of: Drawn<'a>,
}

/// The figures of a part in the pictures; hosts and segments with the index among their kind.
pub(super) enum Drawn<'a> {
    Host(usize, &'a HostStatistics),
    Segment(usize, &'a SegmentStatistics),
    /// A connect, or what lies behind the last node that stamps.
    Other(&'a PartStatistics),
}

impl DrawnPart<'_> {
    /// Returns the CSS classes of its row.
    pub(super) fn class(&self) -> &'static str {
        match (&self.of, self.is_named) {
            (Drawn::Host(..), false) => "row host",
            (Drawn::Host(..), true) => "row host named",
            (_, false) => "row",
            (_, true) => "row named",
        }
    }

    pub(super) fn share(&self) -> Option<f64> {
        match self.of {
            Drawn::Host(_, host) => host.share,
            Drawn::Segment(_, segment) => segment.share,
            Drawn::Other(of) => of.share,
        }
    }

    pub(super) fn baseline(&self) -> Option<SignedNanos> {
        match self.of {
            Drawn::Host(_, host) => host.baseline,
            Drawn::Segment(_, segment) => segment.baseline,
            Drawn::Other(of) => of.baseline,
        }
    }
}

/// Returns all parts in order of the path.
pub(super) fn parts(report: &Report) -> Vec<DrawnPart<'_>> {
    let statistics = &report.statistics;
    let drawn = |part: Part, of| {
        let row = statistics.parts.iter().find(|row| row.part == part);
        let is_connect = matches!(part, Part::Connect { .. });
        let delay = row.and_then(|row| row.delay).filter(|_| !is_connect);
        DrawnPart {
            name: report.part_name(part).replace("->", "\u{2192}"),
            is_named: statistics.verdict.part == Some(part),
            part,
            mean: row.and_then(|row| row.mean),
            p95: delay.map(|delay| delay.p95),
            row,
            of,
        }
    };
    let hosts: Vec<_> = statistics.hosts.iter().enumerate().collect();
    let segments: Vec<_> = statistics.segments.iter().enumerate().collect();
    let places = in_path_order(&hosts, |h| h.1.hop, &segments, |s| s.1.from_hop);
    let places = places.into_iter().map(|place| match place {
        Place::Host(&(index, host)) => drawn(Part::Host(host.hop), Drawn::Host(index, host)),
        Place::Segment(&(index, segment)) => drawn(segment.part(), Drawn::Segment(index, segment)),
    });
    let mut parts: Vec<_> = places.collect();
    let others = statistics.parts.iter().filter(|of| of.delay.is_some());
    for of in others {
        // A block waits for a connect before it enters the segment.
        let place = match of.part {
            Part::Connect { from, to } => {
                let segment = Part::Segment { from, to };
                parts.iter().position(|part| part.part == segment)
            }
            Part::Behind(_) => None,
            _ => continue,
        };
        let place = place.unwrap_or(parts.len());
        parts.insert(place, drawn(of.part, Drawn::Other(of)));
    }
    parts
}

/// Returns the parts to draw, in order of the path, and the names of the others.
///
/// Parts other than segments are not drawn with a small share, nor on a long path those with the
/// smallest shares.
pub(super) fn worth_drawing(report: &Report) -> (Vec<DrawnPart<'_>>, Vec<String>) {
    let share = |part: &DrawnPart<'_>| {
        let share = part.share().filter(|share| share.is_finite());
        if part.is_named {
            f64::INFINITY
        } else {
            share.unwrap_or(0.0)
        }
    };
    let mut shares: Vec<f64> = parts(report).iter().map(share).collect();
    shares.sort_by(|one, other| other.total_cmp(one));
    let least = shares.get(MOST).copied().unwrap_or(f64::NEG_INFINITY);
    let (drawn, left): (Vec<_>, Vec<_>) = parts(report).into_iter().partition(|part| {
        let enough = matches!(part.of, Drawn::Segment(..)) || share(part) >= LEAST_SHARE;
        part.is_named || enough && share(part) > least
    });
    (drawn, left.into_iter().map(|part| part.name).collect())
}

/// Returns `text` escaped for the content of an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A time with three digits that count, in the unit that fits: `41 µs`, `1.80 ms`, `2.4 s`.
pub(super) fn time(ns: f64) -> String {
    if !ns.is_finite() {
        return "-".to_owned();
    }
    if ns == 0.0 {
        return "0".to_owned();
    }
    let units = [(1e3, "ns", 1.0), (1e6, "\u{b5}s", 1e3), (1e9, "ms", 1e6)];
    // 999.5 rounds to the next unit.
    let unit = units.iter().find(|unit| ns.abs() < unit.0 * 0.9995);
    let (_, name, one) = unit.copied().unwrap_or((0.0, "s", 1e9));
    format!("{} {name}", digits(ns / one))
}

/// Three digits that count, and no more zeros behind the point than that.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Returns a span of `measure` as [`time`] does.
pub(super) fn span(value: SignedNanos) -> String {
    time(value.0 as f64)
}

/// Returns `value` as a finite number from 0 to `most`.
pub(super) fn within(value: f64, most: f64) -> f64 {
    if value.is_finite() {
        value.clamp(0.0, most)
    } else if value > 0.0 {
        most
    } else {
        0.0
    }
}

/// Returns a position as a percentage, for an attribute.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", within(share * 100.0, 100.0));
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Returns steps of 1, 2 or 5 from 0 up to `top`, at most `most` of them besides 0.
pub(super) fn ticks(top: f64, most: usize) -> Vec<f64> {
    if !(top.is_finite() && top > 0.0) {
        return vec![0.0];
    }
    let rough = top / most as f64;
    let decade = 10_f64.powi(rough.log10().floor() as i32);
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = steps.iter().find(|step| **step >= rough * 0.999);
    let step = step.copied().unwrap_or(steps[3]);
    (0..=most)
        .map(|n| n as f64 * step)
        .take_while(|tick| *tick <= top * 1.000_001)
        .collect()
}

/// Writes a label under a tick; at the edges of a picture it stands inside.
pub(super) fn label(out: &mut String, at: f64, y: u32, class: &str, text: &str) {
    let anchor = match at {
        at if at < 0.06 => "start",
        at if at > 0.93 => "end",
        _ => "middle",
    };
    let (x, text) = (percent(at), escape(text));
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        out,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\"{class}>{text}</text>"
    );
}

/// Writes a vertical line over the whole height.
pub(super) fn upright(out: &mut String, at: f64, class: &str) {
    let x = percent(at);
    let _ = write!(
        out,
        "<line x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"100%\" class=\"{class}\"/>"
    );
}

/// Writes a row: a name, a picture of `height` pixels, and figures, which are HTML already.
pub(super) fn row(
    out: &mut String,
    class: &str,
    name: &str,
    (height, described, picture): (u32, &str, &str),
    figures: &str,
) {
    let (name, described) = (escape(name), escape(described));
    let role = if described.is_empty() {
        " aria-hidden=\"true\"".to_owned()
    } else {
        format!(" role=\"img\" aria-label=\"{described}\"")
    };
    let _ = writeln!(
        out,
        "<div class=\"{class}\"><div class=\"n\">{name}</div><svg \
         height=\"{height}\"{role}>{picture}</svg>\
         <div class=\"f\">{figures}</div></div>"
    );
}

/// Writes the row of labels below or above the others.
pub(super) fn axis(out: &mut String, labels: &[(f64, String)], figures: &str) {
    let mut picture = String::new();
    for (index, (at, text)) in labels.iter().enumerate() {
        // A phone shows every second of many.
        let class = match labels.len() {
            5.. if index % 2 == 1 => " class=\"alt\"",
            _ => "",
        };
        label(&mut picture, *at, 14, class, text);
    }
    row(out, "row axis", "", (18, "", &picture), figures);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_the_unit_that_fits() {
        for (ns, text) in [
            (0.0, "0"),
            (41_000.0, "41 \u{b5}s"),
            (1_800_000.0, "1.8 ms"),
            (999_700.0, "1 ms"),
            (-2_310_000.0, "-2.31 ms"),
            (123_456_789.0, "123 ms"),
            (100e9, "100 s"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(time(ns), text);
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(4.7, 5), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(100.0, 4), [0.0, 50.0, 100.0]);
        for top in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            assert_eq!(ticks(top, 5), [0.0]);
        }
        for exponent in -3..19 {
            let ticks = ticks(3.3 * 10_f64.powi(exponent), 5);
            assert!((3..=6).contains(&ticks.len()), "{ticks:?}");
        }
    }

    #[test]
    fn nothing_in_a_name_is_markup() {
        assert_eq!(
            escape("<b a='1' c=\"2\">&\u{202e}"),
            "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\\u{202e}"
        );
    }
}
