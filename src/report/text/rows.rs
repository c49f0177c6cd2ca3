//! The rows of the table, in the order in which the bytes meet the parts.

use super::name::{Name, BACK};
use crate::measure::{
    HostStatistics, Part, PartStatistics, SegmentStatistics, Sla, Summary, VerdictDirection,
};
use crate::report::{printable, Report};
use crate::time::SignedNanos;

/// Below this an excess is no queue.
const LEAST_EXCESS: SignedNanos = SignedNanos(100_000);

/// A row of the table; `None` has no meaning in this row, except `figures`, which are unknown then.
pub(in crate::report) struct Row {
    pub(in crate::report) is_named: bool,
    pub(in crate::report) hop: Option<u8>,
    pub(in crate::report) name: Name,
    /// The part's own distribution, but the mean is over all blocks.
    pub(in crate::report) figures: Option<Summary>,
    /// Share and increase, each `None` where it is unknown.
    pub(in crate::report) growth: Option<(Option<f64>, Option<SignedNanos>)>,
    pub(in crate::report) direction: Option<&'static str>,
    /// TCP segments sent again, `forward/return`.
    pub(in crate::report) retransmits: Option<String>,
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
            retransmits: None,
            sla: Sla::None,
        }
    }

    fn of_part(report: &Report, of: &PartStatistics) -> Self {
        let mean = of.mean;
        let figures = of.delay.map(|delay| Summary {
            mean: mean.unwrap_or(delay.mean),
            ..delay
        });
        let verdict = &report.statistics.verdict;
        let is_named = verdict.part == Some(of.part);
        let segments = &report.statistics.segments;
        let segment = segments.iter().find(|segment| segment.part() == of.part);
        let named = verdict.direction.filter(|_| is_named);
        let direction = match segment {
            Some(_) if is_named => Some(named),
            Some(segment) => Some(excess_direction(segment)),
            None => named.map(Some),
        };
        let [out, back] = of.retransmits.map(|count| {
            let count = count.map(|count| count.to_string());
            count.unwrap_or_else(|| "-".to_owned())
        });
        Self {
            is_named,
            hop: match of.part {
                Part::Host(hop) => Some(hop),
                _ => None,
            },
            growth: Some((of.share, of.increase)).filter(|_| !of.part.is_server()),
            direction: direction.map(|direction| direction.map_or("-", direction_word)),
            retransmits: (of.retransmits != [None; 2]).then(|| format!("{out}/{back}")),
            sla: report.part_state(of.part),
            ..Self::new(Name::of_part(report, of.part), figures)
        }
    }
}

/// Returns the rows of a node that sees no trips: its residence each way.
fn own_rows(report: &Report, host: &HostStatistics) -> Vec<Row> {
    let mut row = Row::new(Name::of_host(report, host.hop), host.forward_residence);
    row.growth = Some((host.share, host.increase));
    row.hop = Some(host.hop);
    row.sla = host.sla;
    let mut rows = vec![row];
    if let Some(summary) = host.return_residence {
        let name = printable(&report.name_at(host.hop));
        rows.push(Row::new(Name::Short(name, BACK), Some(summary)));
    }
    rows
}

/// Returns the rows of the table, in the order in which the bytes meet the parts: their `Avg` adds
/// up to that of the total.
pub(in crate::report) fn rows(report: &Report) -> Vec<Row> {
    let statistics = &report.statistics;
    let (server, parts): (Vec<_>, Vec<_>) = statistics
        .parts
        .iter()
        .partition(|part| part.part.is_server());
    let mut rows: Vec<_> = parts
        .iter()
        .map(|part| Row::of_part(report, part))
        .collect();
    if parts.is_empty() {
        let hosts = statistics.hosts.iter();
        rows.extend(hosts.flat_map(|host| own_rows(report, host)));
    }
    let mut total = Row::new(Name::plain("total"), statistics.round_trip);
    total.sla = report.part_state(Part::Total);
    rows.push(total);
    rows.extend(server.iter().map(|part| Row::of_part(report, part)));
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
