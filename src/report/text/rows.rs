//! The rows of the table, in the order in which the bytes meet the parts.

use super::name::{Name, BACK, LATE_BACK, LATE_OUT};
use crate::measure::sla::Place;
use crate::measure::{
    HostStatistics, SegmentStatistics, Sla, Summary, VerdictDirection, VerdictKind,
};
use crate::report::{in_path_order, printable, Report};
use crate::time::SignedNanos;

/// Below this an excess is no queue; it is also the least increase that a verdict counts.
const LEAST_EXCESS: SignedNanos = SignedNanos(100_000);

/// A host that reads later than this, at the 95th percentile, has a row for it.
const LATE: SignedNanos = SignedNanos(1_000_000);

/// A row of the table; `None` has no meaning in this row, except `figures`, which are unknown then.
pub(in crate::report) struct Row {
    pub(in crate::report) is_named: bool,
    pub(in crate::report) hop: Option<u8>,
    pub(in crate::report) name: Name,
    pub(in crate::report) figures: Option<Summary>,
    /// Share and increase, each `None` where it is unknown.
    pub(in crate::report) growth: Option<(Option<f64>, Option<SignedNanos>)>,
    pub(in crate::report) direction: Option<&'static str>,
    pub(in crate::report) sla: Sla,
}

impl Row {
    fn new(name: Name, figures: Option<Summary>) -> Self {
        Self {
            is_named: false,
            hop: None,
            name,
            figures,
            growth: None,
            direction: None,
            sla: Sla::None,
        }
    }
}

/// Returns a row for each way in which a host reads late, if that matters.
///
/// The first row has the share and the growth of both, and the direction of a verdict that names
/// it.
fn late_rows(
    host: &HostStatistics,
    name: &str,
    named: Option<Option<VerdictDirection>>,
) -> Vec<Row> {
    let ways = [host.forward_wake_up, host.return_wake_up];
    let mut rows = Vec::new();
    for (summary, note) in ways.into_iter().zip([LATE_OUT, LATE_BACK]) {
        let Some(summary) = summary.filter(|way| named.is_some() || way.p95 >= LATE) else {
            continue;
        };
        let mut row = Row::new(Name::Short(name.to_owned(), note), Some(summary));
        if rows.is_empty() {
            row.is_named = named.is_some();
            row.direction = named.flatten().map(direction_word);
        }
        rows.push(row);
    }
    rows
}

/// Returns the rows of the table, in the order in which the bytes meet the parts.
pub(in crate::report) fn rows(report: &Report) -> Vec<Row> {
    let statistics = &report.statistics;
    let verdict = &statistics.verdict;
    let named = report.named();
    let places = in_path_order(
        &statistics.hosts,
        |host| host.hop,
        &statistics.segments,
        |segment| segment.from_hop,
    );
    let mut rows = Vec::new();
    for place in places {
        match place {
            super::super::Place::Host(host) => {
                let mut row = Row::new(Name::of_host(report, host.hop), host.forward_residence);
                row.growth = Some((host.share, host.increase));
                row.hop = Some(host.hop);
                row.sla = host.sla;
                let is_named = named == Some(super::super::Place::Host(host.hop));
                row.is_named = is_named && !verdict.reads_late;
                rows.push(row);
                let name = printable(&report.name_at(host.hop));
                if let Some(summary) = host.return_residence {
                    rows.push(Row::new(Name::Short(name.clone(), BACK), Some(summary)));
                }
                let is_named = is_named && verdict.reads_late;
                rows.extend(late_rows(
                    host,
                    &name,
                    is_named.then_some(verdict.direction),
                ));
            }
            super::super::Place::Segment(segment) => {
                let mut row = Row::new(Name::of_segment(report, segment), segment.round_trip);
                row.growth = Some((segment.share, segment.increase));
                row.sla = segment.sla;
                row.is_named = match named {
                    Some(super::super::Place::Segment(index)) => statistics
                        .segments
                        .get(index)
                        .is_some_and(|named| std::ptr::eq(named, segment)),
                    _ => false,
                };
                row.direction = Some(match (row.is_named, verdict.direction) {
                    (true, direction) => direction.map_or("-", direction_word),
                    (false, _) => excess_direction(segment).map_or("-", direction_word),
                });
                rows.push(row);
            }
        }
    }
    let mut total = Row::new(Name::plain("total"), statistics.round_trip);
    let limits = report.limits.iter();
    let limits = limits.filter(|limit| limit.place == Place::Total);
    total.sla = limits.map(|limit| limit.state).max().unwrap_or_default();
    rows.push(total);
    if let Some(summary) = statistics.behind_exit {
        let mut row = Row::new(Name::plain("behind exit"), Some(summary));
        row.is_named = verdict.kind == VerdictKind::Server;
        rows.push(row);
    }
    rows
}

fn direction_word(direction: VerdictDirection) -> &'static str {
    match direction {
        VerdictDirection::Forward => "fwd",
        VerdictDirection::Return => "ret",
        VerdictDirection::Both => "both",
    }
}

/// Returns the direction in which a segment queues, by the 95th percentiles of its excesses.
///
/// `None` if one of them is unknown or neither is a queue.
fn excess_direction(segment: &SegmentStatistics) -> Option<VerdictDirection> {
    let forward = segment.forward_excess?.p95;
    let back = segment.return_excess?.p95;
    let (lesser, greater) = (forward.min(back), forward.max(back));
    if greater < LEAST_EXCESS {
        None
    } else if lesser > SignedNanos(greater.0 / 2) {
        Some(VerdictDirection::Both)
    } else if forward > back {
        Some(VerdictDirection::Forward)
    } else {
        Some(VerdictDirection::Return)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    #[test]
    fn direction_is_that_of_the_larger_excess_and_unknown_for_less_than_a_queue() {
        let segment = |forward: i64, back: i64| SegmentStatistics {
            forward_excess: Some(samples::summary(forward)),
            return_excess: Some(samples::summary(back)),
            ..samples::full().statistics.segments[0].clone()
        };
        // A sample summary's 95th percentile is twice its mean.
        assert_eq!(
            excess_direction(&segment(1_000_000, 1_000)),
            Some(VerdictDirection::Forward)
        );
        assert_eq!(
            excess_direction(&segment(1_000, 1_000_000)),
            Some(VerdictDirection::Return)
        );
        assert_eq!(
            excess_direction(&segment(900_000, 1_000_000)),
            Some(VerdictDirection::Both)
        );
        assert_eq!(excess_direction(&segment(40_000, 1_000)), None);
    }
}
