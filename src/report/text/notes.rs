//! The notes below the table, a sentence each.

use super::figures::{counted, percent, plain_number, with_unit};
use super::name::Name;
use super::Page;
use crate::annotation::AnnotationValue;
use crate::measure::{Figure, HostStatistics, Part, PartStatistics, SegmentStatistics, Sla};
use crate::report::{header_delays, printable, Report};
use crate::time::{Nanos, SignedNanos};
use crate::FULL;

/// Above this share of the time, a blocked far node means that the queue is not the segment's own.
const HELD_SHARE: f64 = 0.1;

/// A host that reads later than this, at the 95th percentile, has a note for it.
const LATE: SignedNanos = SignedNanos(1_000_000);

/// Events under the table; the JSON has more.
const MOST_EVENTS: usize = 20;

/// Flows under the table; the JSON has all.
const MOST_FLOWS: usize = 16;

/// Runs shorter than this show no skew.
const LEAST_FOR_SKEW: SignedNanos = SignedNanos(30_000_000_000);

impl Page<'_> {
    pub(super) fn sentences(&self, all: bool) -> Vec<String> {
        let Report {
            blocks,
            opened,
            statistics,
            dropped,
            notices,
            ..
        } = self.report;
        let mut notes = if all { self.limits() } else { Vec::new() };
        notes.extend(self.increase_legend());
        notes.extend(self.sums());
        for segment in &statistics.segments {
            self.note_segment(segment, &mut notes);
        }
        for part in &statistics.parts {
            self.note_part(part, &mut notes);
        }
        for host in &statistics.hosts {
            self.note_host(host, &mut notes);
        }
        for node in self.report.annotations.iter().filter(|_| all) {
            let annotations = node
                .annotations
                .iter()
                .map(|annotation| match &annotation.value {
                    AnnotationValue::Number(number) => {
                        format!("{} {}", annotation.name, plain_number(*number))
                    }
                    AnnotationValue::Text(text) => format!("{} \"{text}\"", annotation.name),
                });
            let annotations = annotations.collect::<Vec<_>>().join(", ");
            let name = self.name_at(node.hop);
            notes.push(format!("{name} reports: {}", printable(&annotations)));
        }
        if statistics.path_changes > 0 {
            notes.push(format!(
                "the path changed {}",
                counted(statistics.path_changes, "time")
            ));
        }
        if FULL && all {
            self.note_flows(&mut notes);
        }
        if FULL {
            notes.extend(header_delays::sentences(&self.report.header_delays));
        }
        if let Some(opened) = opened {
            let millis = opened.signed().as_millis_f64();
            notes.push(format!("path stood after {millis:.1} ms"));
        }
        for (count, what) in [
            (
                blocks.lost,
                "lost: no answer by the end, or before the path broke",
            ),
            (blocks.unsent, "not sent: due while the path did not stand"),
            (blocks.late, "late: answered, but after --timeout"),
            (blocks.duplicate, "answered again (duplicate)"),
        ] {
            if count > 0 {
                notes.push(format!("{} {what}", counted(count, "block")));
            }
        }
        notes.extend(notices.iter().map(|notice| printable(notice)));
        if *dropped > 0 {
            notes.push(format!(
                "{} dropped: the collector was behind",
                counted(*dropped, "measurement")
            ));
        }
        notes
    }

    /// Adds the totals of each flow.
    fn note_flows(&self, notes: &mut Vec<String>) {
        let flows = &self.report.flows;
        for (index, flow) in (1..).zip(flows).take(MOST_FLOWS) {
            let local = match flow.local {
                Some(local) => local.to_string(),
                None => "never stood".to_owned(),
            };
            let figures = match flow.statistics.parts.first() {
                Some(total) => {
                    format!("p50 {}, p95 {}", with_unit(total.p50), with_unit(total.p95))
                }
                None => "no answer".to_owned(),
            };
            let blocks = counted(flow.statistics.blocks, "block");
            notes.push(format!(
                "flow {index} of {}: {local}, {blocks}, {figures}",
                flows.len()
            ));
        }
        if let Some(more @ 1..) = flows.len().checked_sub(MOST_FLOWS) {
            notes.push(format!("and {more} flows more: --format json has all"));
        }
    }

    /// Returns the limits that are exceeded, and the latest changes of states.
    fn limits(&self) -> Vec<String> {
        let Report { limits, events, .. } = self.report;
        let beyond = limits.iter().filter(|limit| limit.state > Sla::Ok);
        let beyond = beyond.map(|limit| {
            let place = printable(&self.report.part_name(limit.part));
            format!("SLA, {place}: {limit}")
        });
        let latest = &events[events.len().saturating_sub(MOST_EVENTS)..];
        let earlier = events.len() - latest.len();
        let earlier =
            (earlier > 0).then(|| format!("{} before these:", counted(earlier as u64, "event")));
        let events = latest.iter().map(|event| {
            let at = event.at.to_string();
            let at = at.get(11..23).unwrap_or(&at);
            let place = printable(&self.report.part_name(event.now.part));
            let sequence = event.sequence;
            format!("{at} {place}: {event}, block {sequence}")
        });
        beyond.chain(earlier).chain(events).collect()
    }

    /// Returns the figure that the column `Incr` is of.
    fn increase_legend(&self) -> Option<String> {
        let parts = self.report.statistics.parts.iter();
        let grown = parts.clone().any(|part| part.increase.is_some());
        let other = parts.filter_map(|part| {
            let figure = part.figure.filter(|figure| *figure != Figure::P50)?;
            part.increase?;
            let name = printable(&self.report.part_name(part.part));
            Some(format!(" ({name}: {})", figure.name()))
        });
        grown.then(|| format!("Incr: change of p50{}", other.collect::<String>()))
    }

    /// Returns the reason why the rows add up to another mean than the total's.
    fn sums(&self) -> Option<String> {
        let statistics = &self.report.statistics;
        let parts = statistics
            .parts
            .iter()
            .filter(|part| !part.part.is_server());
        let blocks = parts.clone().find_map(|part| Some(part.delay?.count))?;
        let sum: SignedNanos = parts.filter_map(|part| part.mean).sum();
        let total = statistics.round_trip?;
        let off = (sum - total.mean).abs();
        (off > Nanos::from_micros(1) && off.0 > total.mean.abs().0 / 100).then(|| {
            format!(
                "the rows are of the {blocks} of {} blocks that met the same nodes: {} in all",
                total.count,
                with_unit(sum)
            )
        })
    }

    fn note_part(&self, of: &PartStatistics, notes: &mut Vec<String>) {
        let name = printable(&self.report.part_name(of.part));
        if let (Part::Connect { .. }, Some(delay)) = (of.part, of.delay) {
            let waited = counted(delay.count, "block");
            notes.push(format!(
                "{name}: {waited} waited for it; Avg and Share are over all blocks"
            ));
        }
        if let Some(count) = of.delayed_by_loss.filter(|count| *count > 0) {
            let blocks = counted(count, "block");
            notes.push(format!("{name}: {blocks} delayed by retransmissions"));
        }
    }

    fn note_segment(&self, segment: &SegmentStatistics, notes: &mut Vec<String>) {
        let name = Name::of_part(self.report, segment.part());
        let (near, far) = (self.name_at(segment.from_hop), self.name_at(segment.to_hop));
        if let Some(offset) = segment.clock_offset {
            let side = if offset < SignedNanos::ZERO {
                "behind"
            } else {
                "ahead of"
            };
            let mut note = format!(
                "clock of {far}: {} {side} {near}",
                with_unit(offset.abs().signed())
            );
            if let Some(error) = segment.clock_offset_error {
                note += &format!(", +- {}", with_unit(error.signed()));
            }
            // Over less than that the rate of two clocks is noise.
            let long = self.report.ended - self.report.started >= LEAST_FOR_SKEW;
            if let Some(skew) = segment.clock_skew_ppm.filter(|_| long) {
                note += &format!(", skew {skew:+.2} ppm");
            }
            notes.push(note);
        }
        if let Some(held) = segment.held_share.filter(|&held| held > HELD_SHARE) {
            notes.push(format!(
                "{name}: backed up from downstream, {far} was blocked in writing for {} of the \
                 time",
                percent(held)
            ));
        }
        if segment.negative > 0 {
            let trips = counted(segment.negative, "round trip");
            notes.push(format!(
                "{name}: {trips} below zero, kept: a clock was stepped meanwhile"
            ));
        }
    }

    fn note_host(&self, host: &HostStatistics, notes: &mut Vec<String>) {
        let name = self.name_at(host.hop);
        if host.nodes.len() > 1 {
            let mut note = format!("{name}: {} nodes", host.nodes.len());
            if let Some(address) = self
                .report
                .node_at(host.hop)
                .and_then(|node| node.address.as_ref())
            {
                note += &format!(" behind {}", printable(address));
            }
            notes.push(note);
        }
        let ways = [
            ("forward", host.forward_wake_up),
            ("return", host.return_wake_up),
        ];
        let verdict = &self.report.statistics.verdict;
        let named = verdict.reads_late && verdict.part == Some(Part::Host(host.hop));
        let late = ways.iter().filter_map(|(way, summary)| {
            let late = summary.filter(|summary| named || summary.p95 >= LATE)?;
            Some(format!("{} {way}", with_unit(late.p95)))
        });
        let late: Vec<_> = late.collect();
        if !late.is_empty() {
            let late = late.join(", ");
            notes.push(format!(
                "{name} reads late: p95 of {late} from the kernel to the process, in its row"
            ));
        }
        if host.clock_steps > 0 {
            let steps = counted(host.clock_steps, "clock step");
            notes.push(format!(
                "{steps} at {name}: the figures beside it are not network delay"
            ));
        }
    }
}
