//! Draws the means of all parts to scale: time from left to right, a row per part.
//!
//! The way out leads down to the far end, the way back up again.
//!
//! Only means add up to the whole, medians do not. A whisker reaches to the 95th percentile.
//!
//! Without synchronised clocks it is unknown how a segment's round trip splits into its directions.
//! The excess of each direction over its own minimum is known and drawn where it belongs. The rest
//! is halved and drawn lighter.

use super::super::{text, Report};
use super::chart::{
    axis, parts, percent, row, span, ticks, time, upright, within, worth_drawing, Drawn, DrawnPart,
};
use crate::measure::{Part, SegmentStatistics, Summary};
use std::fmt::Write as _;

/// Most parts with a row; on a longer path the others take their time without one.
const LONG: usize = 40;

/// The time of one direction of a part, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Leg {
    /// Half of the time whose direction is unknown.
    half: f64,
    /// The time that belongs to this direction.
    sure: f64,
    /// 95th percentile over the mean; 0 if another leg shows it.
    whisker: f64,
}

impl Leg {
    fn length(self) -> f64 {
        self.half + self.sure
    }
}

fn mean(summary: Option<Summary>) -> f64 {
    summary.map_or(0.0, |summary| (summary.mean.0 as f64).max(0.0))
}

fn whisker(summary: Option<Summary>) -> f64 {
    summary.map_or(0.0, |summary| {
        (summary.p95.0 as f64 - (summary.mean.0 as f64).max(0.0)).max(0.0)
    })
}

/// Out and back, as long together as the part's row has it: round trips without the wake-ups at
/// their ends, which are the hosts'.
fn legs(part: &DrawnPart<'_>) -> (Leg, Leg) {
    let (mut out, mut back) = measured_legs(part);
    let sum = out.length() + back.length();
    if let Some(mean) = part.mean.filter(|_| sum > 0.0) {
        let scale = (mean.0 as f64).max(0.0) / sum;
        for leg in [&mut out, &mut back] {
            (leg.half, leg.sure) = (leg.half * scale, leg.sure * scale);
        }
    }
    (out, back)
}

fn measured_legs(part: &DrawnPart<'_>) -> (Leg, Leg) {
    let residence = |summary| Leg {
        half: 0.0,
        sure: mean(summary),
        whisker: whisker(summary),
    };
    match part.of {
        Drawn::Host(_, host) => (
            residence(host.forward_residence),
            residence(host.return_residence),
        ),
        Drawn::Segment(_, segment) => split(segment),
        Drawn::Other(of) => {
            let mean = of.mean.map_or(0.0, |mean| (mean.0 as f64).max(0.0));
            // Blocks wait for a connect on the way out alone.
            if let Part::Connect { .. } = of.part {
                let out = Leg {
                    sure: mean,
                    ..Leg::default()
                };
                return (out, Leg::default());
            }
            let out = Leg {
                half: mean / 2.0,
                ..Leg::default()
            };
            let back = Leg {
                whisker: whisker(of.delay),
                ..out
            };
            (out, back)
        }
    }
}

fn split(segment: &SegmentStatistics) -> (Leg, Leg) {
    let whole = mean(segment.round_trip);
    let known = segment.forward_excess.is_some() && segment.return_excess.is_some();
    let (mut out, mut back) = match known {
        true => (mean(segment.forward_excess), mean(segment.return_excess)),
        false => (0.0, 0.0),
    };
    // The excesses are of the blocks that were kept, the mean is of all.
    if out + back > whole {
        let scale = whole / (out + back);
        (out, back) = (out * scale, back * scale);
    }
    let half = (whole - out - back).max(0.0) / 2.0;
    let leg = |sure, whisker| Leg {
        half,
        sure,
        whisker,
    };
    (leg(out, 0.0), leg(back, whisker(segment.round_trip)))
}

/// Returns the begin of each leg, out and back, and the end of the last one.
fn begins(legs: &[(Leg, Leg)]) -> (Vec<(f64, f64)>, f64) {
    let mut at = 0.0;
    let mut begins = Vec::with_capacity(legs.len());
    for (out, _) in legs {
        begins.push((at, 0.0));
        at += out.length();
    }
    for ((_, back), begin) in legs.iter().zip(&mut begins).rev() {
        begin.1 = at;
        at += back.length();
    }
    (begins, at)
}

/// Writes the section; nothing if nothing was measured.
pub(super) fn section(report: &Report, out: &mut String) {
    let parts = parts(report);
    let legs: Vec<_> = parts.iter().map(legs).collect();
    let (begins, sum) = begins(&legs);
    if parts.is_empty() || sum <= 0.0 {
        return;
    }
    let ends = legs.iter().zip(&begins).flat_map(|((out, back), begin)| {
        [
            begin.0 + out.length() + out.whisker,
            begin.1 + back.length() + back.whisker,
        ]
    });
    // A whisker may be longer than the path; it is cut rather than let it squeeze all else.
    let top = ends.fold(sum, f64::max).min(sum * 1.25);
    let grid = ticks(top, 5);
    let (drawn, _) = worth_drawing(report);
    let is_drawn = |part: &DrawnPart<'_>| {
        parts.len() <= LONG || drawn.iter().any(|drawn| drawn.part == part.part)
    };
    out.push_str(
        "<section><h2>The path, to scale</h2>\n<p class=\"hint\">A mean block: out to the far end \
         and back, each part as \
         long as it took. <svg class=\"key\" aria-hidden=\"true\"><rect width=\"100%\" \
         height=\"100%\" class=\"bar\"/></svg>took \
         place there. <svg class=\"key\" aria-hidden=\"true\"><rect width=\"100%\" \
         height=\"100%\" class=\"half\"/></svg>half of \
         what went both ways: unsynchronised clocks do not show how it splits. A thin line \
         reaches to the 95th \
         percentile.</p>\n",
    );
    let turn: f64 = legs.iter().map(|(out, _)| out.length()).sum();
    let ways = [
        (turn / 2.0, "out \u{2192}"),
        ((turn + sum) / 2.0, "back \u{2192}"),
    ];
    let ways = ways.map(|(at, way)| (at / top, way.to_owned()));
    axis(out, &ways, "");
    for ((part, (forward, back)), begin) in parts.iter().zip(&legs).zip(&begins) {
        if !is_drawn(part) {
            continue;
        }
        let mut picture = String::new();
        grid.iter()
            .for_each(|tick| upright(&mut picture, tick / top, "grid"));
        upright(&mut picture, turn / top, "event");
        // The lighter half lies nearer to the source.
        bar(&mut picture, begin.0 / top, forward.half / top, "half");
        let sure = (begin.0 + forward.half) / top;
        bar(&mut picture, sure, forward.sure / top, "bar");
        bar(&mut picture, begin.1 / top, back.sure / top, "bar");
        let half = (begin.1 + back.sure) / top;
        bar(&mut picture, half, back.half / top, "half");
        for (leg, begin) in [(forward, begin.0), (back, begin.1)] {
            let end = begin + leg.length();
            line(&mut picture, end / top, (end + leg.whisker) / top);
        }
        let described = format!(
            "{}: out {}, back {}",
            part.name,
            time(forward.length()),
            time(back.length())
        );
        let figures = figures(part);
        row(
            out,
            part.class(),
            &part.name,
            (24, &described, &picture),
            &figures,
        );
    }
    let labels = grid.iter().map(|tick| (tick / top, time(*tick)));
    let total = report.statistics.round_trip;
    let total = total.map_or_else(String::new, |total| {
        format!("<b>{}</b> in all", span(total.mean))
    });
    axis(out, &labels.collect::<Vec<_>>(), &total);
    out.push_str("</section>\n");
}

fn figures(part: &DrawnPart<'_>) -> String {
    let both = match part.of {
        Drawn::Segment(_, segment) => segment.round_trip.map(|s| (s.mean.0 as f64, Some(s.p95))),
        // Of a connect the mean is over all blocks, and a percentile over those that waited.
        Drawn::Other(of) => of.mean.map(|mean| {
            let is_connect = matches!(of.part, Part::Connect { .. });
            let p95 = of.delay.filter(|_| !is_connect).map(|delay| delay.p95);
            (mean.0 as f64, p95)
        }),
        Drawn::Host(_, host) => match (host.forward_residence, host.return_residence) {
            (Some(one), Some(other)) => Some(((one.mean.0 as f64) + (other.mean.0 as f64), None)),
            (one, other) => one.or(other).map(|s| (s.mean.0 as f64, Some(s.p95))),
        },
    };
    let both = both.map(|(mean, p95)| match part.mean {
        Some(of_row) => (of_row.0 as f64, part.p95.or(p95)),
        None => (mean, p95),
    });
    let Some((mean, p95)) = both else {
        return "<small>unknown</small>".to_owned();
    };
    let share = part.share().filter(|share| share.is_finite());
    let share = share.map_or_else(String::new, |share| {
        format!(" \u{b7} {}", text::percent(share))
    });
    let p95 = p95.map_or_else(String::new, |p95| format!(" \u{b7} p95 {}", span(p95)));
    format!("<b>{}</b><small>{share}{p95}</small>", time(mean))
}

/// Returns a width of at least a hair, so that every value shows.
fn bar(out: &mut String, begin: f64, length: f64, class: &str) {
    if within(length, 1.0) <= 0.0 {
        return;
    }
    let begin = within(begin, 0.997);
    let length = within(length, 1.0 - begin).max(0.002);
    let (x, width) = (percent(begin), percent(length));
    let _ = write!(
        out,
        "<rect x=\"{x}\" y=\"5\" width=\"{width}\" height=\"14\" class=\"{class}\"/>"
    );
}

fn line(out: &mut String, from: f64, to: f64) {
    let (from, to) = (within(from, 1.0), within(to, 1.0));
    if to - from < 0.002 {
        return;
    }
    let (from, to) = (percent(from), percent(to));
    let _ = write!(
        out,
        "<line x1=\"{from}\" x2=\"{to}\" y1=\"12\" y2=\"12\" class=\"whisker\"/>\
         <line x1=\"{to}\" x2=\"{to}\" y1=\"8\" y2=\"16\" class=\"whisker\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    #[test]
    fn legs_follow_each_other_and_add_up_to_all_means() {
        let report = samples::full();
        let all = parts(&report);
        let legs: Vec<_> = all.iter().map(legs).collect();
        let (begins, sum) = begins(&legs);
        // 38 + 21 + 17 + 26 + 19 + 30 us of hosts, 92 + 2629 + 98 us of segments.
        assert!((sum - 2_970_000.0).abs() < 1.0, "{sum}");
        for (place, begin) in begins.iter().enumerate().skip(1) {
            let before = begins[place - 1].0 + legs[place - 1].0.length();
            assert!((begin.0 - before).abs() < 1.0);
            let back = begin.1 + legs[place].1.length();
            assert!((back - begins[place - 1].1).abs() < 1.0);
        }
    }

    #[test]
    fn what_grew_in_one_direction_is_drawn_there() {
        let report = samples::full();
        let grown = &report.statistics.segments[1];
        let (out, back) = split(grown);
        assert_eq!(out.half, back.half);
        assert!(out.sure > 100.0 * back.sure, "{out:?} {back:?}");
        assert!((out.length() + back.length() - 2_629_000.0).abs() < 1.0);
        let mut unknown = grown.clone();
        unknown.return_excess = None;
        let (out, back) = split(&unknown);
        assert_eq!((out.sure, back.sure, out.half), (0.0, 0.0, back.half));
    }
}
