//! The sentences of the verdict.

use super::{Change, Evidence, Origin};
use crate::measure::change::FindingKind;
use crate::measure::{Part, VerdictDirection};
use crate::time::{SignedNanos, WallTime};

impl Evidence<'_> {
    /// `B -> C adds the delay: +8.00 ms since 15:17:02Z (p50, 7.97 to 8.02) over its baseline of
    /// 30.11 ms, forward direction.`
    pub(super) fn sentence(
        &self,
        change: &Change,
        since: Option<WallTime>,
        until: Option<WallTime>,
    ) -> String {
        let does = match change.reads_late {
            true => "reads late",
            false => "adds the delay",
        };
        let mut text = format!(
            "{} {does}: +{} ms",
            self.described(change.part),
            ms(change.amount.0)
        );
        if change.reads_late {
            text += " between kernel and process";
        }
        if let Some(since) = since {
            text += &format!(" since {}", self.clock_time(since));
        } else if let Some(at_most) = change.began.at_most {
            text += &format!(" since before {}", self.clock_time(at_most));
        }
        if let Some(until) = until {
            text += &format!(" until {}", self.clock_time(until));
        }
        text += &format!(
            " ({}, {} to {}) over its baseline of {} ms",
            change.figure.name(),
            ms(change.low.0),
            ms(change.high.0),
            ms(change.baseline.0)
        );
        if let FindingKind::Tail {
            share,
            later_by,
            retransmitted,
        } = change.kind
        {
            let late = ms(later_by.signed().0);
            text += &format!(
                ": {:.0} % of the blocks are {late} ms later",
                share.abs() * 100.0
            );
            if retransmitted {
                text += ", because of retransmissions";
            }
        }
        text += match change.direction {
            Some(VerdictDirection::Forward) => ", forward direction.",
            Some(VerdictDirection::Return) => ", return direction.",
            Some(VerdictDirection::Both) => ", both directions.",
            None => ".",
        };
        text
    }

    pub(super) fn reason(&self, change: &Change) -> String {
        match change.origin {
            Origin::Run if change.until.is_some() => "a burst within the run".to_owned(),
            Origin::Run => "a change within the run".to_owned(),
            Origin::Ramp => "a slow rise within the run".to_owned(),
            Origin::Runs(runs) => format!("a change against {runs} earlier runs"),
            Origin::Windows { episodes, per_day } => {
                let mut text = "a change against earlier windows".to_owned();
                if let Some(per_day) = per_day {
                    text = format!("a slow rise over windows, {} ms a day", ms(per_day.0));
                }
                if episodes > 1 {
                    text += &format!(", for the {episodes}. time since it was first named");
                }
                text
            }
        }
    }

    pub(super) fn burst_sentence(
        &self,
        burst: &Change,
        since: Option<WallTime>,
        until: Option<WallTime>,
    ) -> String {
        let mut text = format!(
            "; a burst of +{} ms ({}) at {}",
            ms(burst.amount.0),
            burst.figure.name(),
            self.described(burst.part)
        );
        if let Some(since) = since {
            text += &format!(" since {}", self.clock_time(since));
        }
        if let Some(until) = until {
            text += &format!(" until {}", self.clock_time(until));
        }
        text
    }

    fn described(&self, part: Part) -> String {
        let name = self.part_name(part);
        match part {
            Part::Host(hop) if self.source && Some(&hop) == self.hops.first() => {
                format!("source {name}")
            }
            Part::Host(_) => format!("host {name}"),
            Part::Server | Part::ServerConnect => format!("{name} (or the network to it)"),
            _ => name,
        }
    }

    /// `15:17:02Z`, with the date if it is not that of now.
    fn clock_time(&self, at: WallTime) -> String {
        let (at, now) = (at.to_string(), self.now.wall.to_string());
        let (date, time) = at.split_once('T').unwrap_or(("", &at));
        let time = time.get(..8).unwrap_or(time);
        match now.starts_with(date) {
            true => format!("{time}Z"),
            false => format!("{date} {time}Z"),
        }
    }
}

/// Milliseconds for people; microseconds show only where there is little else.
pub(in crate::measure) fn ms(nanos: i64) -> String {
    let decimals = if nanos.unsigned_abs() < 100_000 { 3 } else { 2 };
    format!("{:.decimals$}", SignedNanos(nanos).as_millis_f64())
}
