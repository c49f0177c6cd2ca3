//! Draws the timeline as small multiples over one axis of time.
//!
//! Each slot has a band from the least value to the 95th percentile, and the median as a line.

use super::super::text::signed_millis;
use super::super::Report;
use super::chart::{
    axis, escape, label, percent, row, span, ticks, time, upright, within, worth_drawing, Drawn,
    DrawnPart,
};
use crate::measure::timeline::{EventKind, Line, Slot, Timeline};
use crate::measure::{sla, Figure, Sla};
use crate::time::{SignedNanos, WallTime, NANOS_PER_SEC};
use std::fmt::Write as _;

/// Height of a panel in pixels.
const HEIGHT: u32 = 58;
/// The least scale of a panel as a share of the largest, so that noise of a small part stays small.
const LEAST_SCALE: f64 = 0.05;
/// Room above the greatest median, at least and at most: the line counts, and what is above it is
/// noise.
///
/// The upper bound does not hold if the verdict is about the 95th percentile.
const ROOM: (f64, f64) = (1.25, 2.2);
/// Numbers closer than this would overlap on a phone.
const LEAST_GAP: f64 = 0.045;
/// Events that are numbered in the picture.
const EVENTS: usize = 12;

/// A part over time, with the values that it is compared with.
struct Panel<'a> {
    class: &'static str,
    name: &'a str,
    line: &'a Line,
    baseline: Option<SignedNanos>,
    /// `true` if the verdict is about the 95th percentile of this part.
    tail: bool,
    /// Limits of its delay with their severity.
    limits: Vec<(SignedNanos, Sla)>,
}

/// Writes the section; nothing without a timeline.
pub(super) fn section(report: &Report, out: &mut String) {
    let Some(timeline) = &report.timeline else {
        return;
    };
    let (drawn, left) = worth_drawing(report);
    let panel = |part: &'_ DrawnPart<'_>| match part.of {
        Drawn::Host(index, _) => timeline.hosts.get(index),
        Drawn::Segment(index, _) => timeline.segments.get(index),
        Drawn::Other(of) => timeline.others.get(&of.part),
    };
    let panels = drawn.iter().filter_map(|part| {
        Some(Panel {
            class: part.class(),
            name: &part.name,
            line: panel(part)?,
            baseline: part.baseline(),
            tail: part.is_named && report.statistics.verdict.figure == Figure::P95,
            limits: limits(report, part.part),
        })
    });
    let total = Panel {
        class: "row",
        name: "Total",
        line: &timeline.total,
        baseline: None,
        tail: false,
        limits: limits(report, crate::measure::Part::Total),
    };
    let panels: Vec<_> = std::iter::once(total).chain(panels).collect();
    let greatest = panels
        .iter()
        .map(|panel| top(panel.line, panel.tail))
        .fold(0.0, f64::max);
    if greatest <= 0.0 {
        return;
    }
    let length = (timeline.end() - timeline.start).0 as f64;
    let at = |moment: WallTime| (moment - timeline.start).0 as f64 / length.max(1.0);
    // Before the first slot is warm-up, at the end the last answers: an event there stands at the
    // edge.
    let events = happened(report, timeline);
    let marks: Vec<f64> = events
        .iter()
        .map(|event| within(at(event.0), 1.0))
        .collect();

    out.push_str("<section><h2>Over time</h2>\n<p class=\"hint\">");
    let _ = write!(
        out,
        "Line: median of {} each. Band: least to 95th percentile. Dashed: baseline. Each panel \
         has its own scale, \
         from 0; what touches its top reaches higher.",
        time(timeline.slot.0 as f64)
    );
    if timeline.start - report.started > SignedNanos(60 * NANOS_PER_SEC as i64) {
        out.push_str(" A run without end shows its most recent part here.");
    }
    if !left.is_empty() {
        let _ = write!(out, " Not drawn, for they hardly matter: {}.", names(&left));
    }
    out.push_str("</p>\n");
    if !events.is_empty() {
        let mut picture = String::new();
        let mut free = 0.0;
        for (number, at) in (1..).zip(&marks) {
            // Where lines stand close together the first of them is numbered; the list has all.
            if *at < free {
                continue;
            }
            free = at + LEAST_GAP;
            label(
                &mut picture,
                *at,
                13,
                " class=\"tag\"",
                &format!("{number}"),
            );
        }
        row(out, "row axis", "", (16, "", &picture), "");
    }
    let times = moments(timeline);
    for panel in &panels {
        let scale = scale_of(panel, greatest);
        let mut picture = String::new();
        times
            .iter()
            .for_each(|(at, _)| upright(&mut picture, *at, "grid"));
        let _ = write!(
            picture,
            "<line x1=\"0\" x2=\"100%\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\" class=\"grid\"/>"
        );
        let _ = write!(
            picture,
            "<svg height=\"{HEIGHT}\" viewBox=\"0 0 1000 1000\" \
             preserveAspectRatio=\"none\">{}</svg>",
            curves(panel.line, scale)
        );
        if let Some(baseline) = panel.baseline.filter(|base| base.0 > 0) {
            let y = percent(1.0 - within(baseline.0 as f64 / scale, 1.0));
            let _ = write!(
                picture,
                "<line x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\" class=\"base\"/>"
            );
        }
        for (limit, severity) in &panel.limits {
            if limit.0 as f64 > scale {
                continue; // Far above: it stands beside.
            }
            let y = percent(1.0 - within(limit.0 as f64 / scale, 1.0));
            let (state, text) = (severity.name(), span(*limit));
            let _ = write!(
                picture,
                "<line x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\" class=\"limit {state}\"/>\
                 <text x=\"100%\" y=\"{y}\" dy=\"-3\" text-anchor=\"end\" class=\"halo \
                 {state}\">{state} {text}</text>"
            );
        }
        marks
            .iter()
            .for_each(|at| upright(&mut picture, *at, "event"));
        // The uppermost round value, as a tick with its name.
        if let Some(tick) = ticks(scale, 2).last().filter(|tick| **tick > 0.0) {
            let y = within(1.0 - tick / scale, 1.0);
            let pixels = (y * f64::from(HEIGHT)).round() as u32;
            let _ = write!(
                picture,
                "<line x1=\"0\" x2=\"6\" y1=\"{pixels}\" y2=\"{pixels}\" class=\"mark\"/>\
                 <text x=\"9\" y=\"{}\" class=\"halo\">{}</text>",
                pixels + 10,
                time(*tick)
            );
        }
        let last = panel.line.iter().rev().flatten().next();
        let described = last.map_or_else(String::new, |slot| {
            format!("{} over time, at the end {}", panel.name, span(slot.p50))
        });
        let picture = (HEIGHT, described.as_str(), picture.as_str());
        row(out, panel.class, panel.name, picture, &figures(last, panel));
    }
    axis(out, &times, "");
    list(&events, timeline.end(), out);
    out.push_str("</section>\n");
}

fn figures(last: Option<&Slot>, panel: &Panel<'_>) -> String {
    let last = last.map_or_else(String::new, |slot| {
        format!("<b>{}</b><small> at the end</small>", span(slot.p50))
    });
    let baseline = panel.baseline.map_or_else(String::new, |baseline| {
        format!("<br><small>baseline {}</small>", span(baseline))
    });
    let least = panel.limits.iter().map(|limit| limit.0).min();
    let limit = least.map_or_else(String::new, |limit| {
        format!("<br><small>limit {}</small>", span(limit))
    });
    last + &baseline + &limit
}

/// Returns at most six names, escaped.
fn names(left: &[String]) -> String {
    let some: Vec<_> = left.iter().take(6).map(|name| escape(name)).collect();
    let more = left.len().saturating_sub(6);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    some.join(", ") + &more
}

/// Returns the limits of the figure that a panel shows; the notes have the others.
fn limits(report: &Report, place: crate::measure::Part) -> Vec<(SignedNanos, Sla)> {
    let shown = match place {
        crate::measure::Part::Host(_) => sla::RuleFigure::Residence,
        _ => sla::RuleFigure::RoundTrip,
    };
    let limits = report.limits.iter();
    let limits = limits.filter(|limit| limit.part == place && limit.figure == shown);
    let spans = limits.filter_map(|limit| match limit.limit {
        Some(sla::Amount::Span(span)) if span.0 > 0 => Some((span, limit.severity)),
        _ => None,
    });
    spans.take(4).collect()
}

/// Returns the end of a panel's scale, with the limits that leave a third of the picture to the
/// line.
fn scale_of(panel: &Panel<'_>, greatest: f64) -> f64 {
    let top = top(panel.line, panel.tail).max(greatest * LEAST_SCALE);
    let limits = panel.limits.iter().map(|limit| limit.0 .0 as f64 * 1.15);
    limits
        .filter(|limit| *limit < top * 3.0)
        .fold(top, f64::max)
        * 1.05
}

/// Returns the end of a line's scale; the bands of a few slots far above all others are cut.
fn top(line: &Line, tail: bool) -> f64 {
    let slots = || line.iter().flatten();
    let of = |value: fn(&Slot) -> SignedNanos, share: usize| {
        let mut values: Vec<_> = slots().map(|slot| value(slot).0 as f64).collect();
        values.sort_by(f64::total_cmp);
        let rank = values.len() * share / 100;
        values.get(rank).copied().unwrap_or(0.0).max(0.0)
    };
    // One slot in twenty may reach higher; of less than twenty none.
    let (p50, most) = (of(|slot| slot.p50, 95), of(|slot| slot.p95, 90));
    let cut = if p50 > 0.0 && !tail {
        p50 * ROOM.1
    } else {
        most
    };
    most.min(cut).max(p50 * ROOM.0)
}

/// Returns band and median in a square of 1000, with a gap if nothing was answered.
fn curves(line: &Line, scale: f64) -> String {
    let step = 1000.0 / line.len().max(1) as f64;
    let x = |place: usize| ((place as f64 + 0.5) * step).round();
    let y = |value: SignedNanos| (1000.0 - within(value.0 as f64 / scale, 1.0) * 1000.0).round();
    let (mut band, mut median) = (String::new(), String::new());
    let slots: Vec<_> = line.iter().enumerate().collect();
    for run in slots.split(|(_, slot)| slot.is_none()) {
        let run: Vec<_> = run
            .iter()
            .filter_map(|(place, slot)| slot.map(|slot| (x(*place), slot)))
            .collect();
        for (index, (x, slot)) in run.iter().enumerate() {
            let command = if index == 0 { "M" } else { "L" };
            let _ = write!(band, "{command}{x} {}", y(slot.p95));
            let _ = write!(median, "{command}{x} {}", y(slot.p50));
        }
        for (x, slot) in run.iter().rev() {
            let _ = write!(band, "L{x} {}", y(slot.min));
        }
        if !run.is_empty() {
            band.push('Z');
        }
        if run.len() == 1 {
            median.push_str("h0"); // A dot, by its round ends.
        }
    }
    format!("<path class=\"band\" d=\"{band}\"/><path class=\"line\" d=\"{median}\"/>")
}

/// Returns round times within the timeline: position from 0 to 1, and time of day.
fn moments(timeline: &Timeline) -> Vec<(f64, String)> {
    const STEPS: [u64; 15] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 10_800, 21_600, 86_400,
    ];
    let (start, end) = (timeline.start.0, timeline.end().0);
    let length = end.saturating_sub(start);
    let step = STEPS
        .iter()
        .find(|step| length / (*step * NANOS_PER_SEC) <= 4);
    let days = length / (5 * 86_400 * NANOS_PER_SEC) + 1;
    let step = step
        .copied()
        .unwrap_or(days.saturating_mul(86_400))
        .saturating_mul(NANOS_PER_SEC);
    let first = start.div_ceil(step).saturating_mul(step);
    let mut moments = Vec::new();
    let mut moment = first;
    while moment <= end && moments.len() < 6 && length > 0 {
        let at = (moment - start) as f64 / length as f64;
        moments.push((at, clock(WallTime(moment), step >= 86_400 * NANOS_PER_SEC)));
        moment = moment.saturating_add(step);
    }
    if moments.is_empty() {
        moments.push((0.0, clock(timeline.start, false)));
    }
    moments
}

/// Returns the time of day in UTC; with `dated` the day alone.
fn clock(moment: WallTime, dated: bool) -> String {
    let text = moment.to_string();
    let range = if dated { 0..10 } else { 11..19 };
    text.get(range).unwrap_or(&text).to_owned()
}

/// Returns the changes of the verdict, and the latest clock steps, notices and changes of SLA
/// states, in order of time.
fn happened(report: &Report, timeline: &Timeline) -> Vec<(WallTime, String)> {
    let own = timeline.events.iter().map(|event| {
        let what = match &event.kind {
            EventKind::ClockStep(hop) => format!("clock step at {}", report.name_at(*hop)),
            EventKind::Notice(text) => text.clone(),
        };
        (event.at, what)
    });
    let changes = report.events.iter().map(|event| {
        let place = report.part_name(event.now.part);
        (
            event.at,
            format!("SLA, {place}: {event}").replace("->", "\u{2192}"),
        )
    });
    let mut events: Vec<_> = own.chain(changes).collect();
    events.sort_by_key(|event| event.0);
    let verdict = &report.statistics.verdict;
    let named = |name: &str, by: SignedNanos| {
        format!("{name}: {} ms", signed_millis(by)).replace("->", "\u{2192}")
    };
    let also = verdict.also.iter().filter_map(|also| {
        let since = also.since?;
        Some((since, named(&also.name, also.increase)))
    });
    let changed = verdict.since.zip(verdict.increase);
    let changed = changed.map(|(since, by)| (since, named(&verdict.name, by)));
    // These stay, however many others there are.
    let changed: Vec<_> = changed.into_iter().chain(also).collect();
    let most = EVENTS.saturating_sub(changed.len());
    let mut latest = events.split_off(events.len().saturating_sub(most));
    latest.extend(changed);
    latest.sort_by_key(|event| event.0);
    latest
}

/// Lists the events, with the date where it is not that of `end`.
fn list(events: &[(WallTime, String)], end: WallTime, out: &mut String) {
    if events.is_empty() {
        return;
    }
    out.push_str("<ol>");
    for (at, what) in events {
        let date = clock(*at, true);
        let date = match date == clock(end, true) {
            true => String::new(),
            false => date + " ",
        };
        let _ = write!(out, "<li>{date}{} {}</li>", clock(*at, false), escape(what));
    }
    out.push_str("</ol>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Nanos;

    fn slot(p50: i64) -> Option<Slot> {
        let times = |n| SignedNanos(p50.saturating_mul(n));
        Some(Slot {
            count: 9,
            min: times(0),
            p50: times(1),
            p95: times(2),
            max: times(9),
        })
    }

    #[test]
    fn a_gap_stays_a_gap_and_a_lone_slot_is_a_dot() {
        let line = vec![slot(10), None, slot(20), slot(20)];
        let curves = curves(&line, 40.0);
        let median = curves.split("class=\"line\" d=\"").nth(1).unwrap();
        assert!(median.starts_with("M125 750h0M625 500L875 500"), "{curves}");
    }

    #[test]
    fn a_lone_spike_does_not_flatten_all_the_rest() {
        let mut line: Line = vec![slot(10); 50];
        line[7].as_mut().unwrap().p95 = SignedNanos(5_000);
        assert_eq!(top(&line, true), 20.0);
        line.iter_mut()
            .flatten()
            .for_each(|slot| slot.p95 = SignedNanos(90));
        assert_eq!(top(&line, true), 90.0);
        assert_eq!(top(&line, false), 22.0);
    }

    #[test]
    fn moments_are_round_few_and_inside() {
        for seconds in [1_u64, 3, 9, 61, 300, 7_000, 90_000, 10_000_000] {
            let timeline = Timeline {
                start: WallTime(1_795_253_407_123_456_789),
                slot: Nanos(seconds * NANOS_PER_SEC / 10),
                total: vec![None; 10],
                segments: Vec::new(),
                hosts: Vec::new(),
                others: Default::default(),
                events: Vec::new(),
            };
            let moments = moments(&timeline);
            assert!((1..=6).contains(&moments.len()), "{seconds}: {moments:?}");
            assert!(moments.iter().all(|(at, _)| (0.0..=1.0).contains(at)));
        }
    }
}
