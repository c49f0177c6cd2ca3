//! The live line of a terminal.

use super::figures::{millis, percent, with_unit, FIGURE};
use super::name::Name;
use crate::columns::{prefix, width};
use crate::report::Report;
use crate::time::SignedNanos;

/// The widest a [`live_line`] gets.
const LIVE_WIDTH: usize = 80;

/// Returns the progress of a run in one line of at most 80 columns, without a line feed.
///
/// `planned` is the number of blocks; `None` if the run has no end.
pub fn live_line(report: &Report, planned: Option<u64>) -> String {
    let planned = planned.map_or_else(String::new, |count| format!("/{count}"));
    let blocks = &report.blocks;
    let mut line = format!(
        "{}{planned} sent, {} answered",
        blocks.sent, blocks.received
    );
    if let Some(total) = report.statistics.round_trip {
        line += &format!(
            ", last {}, avg {}",
            with_unit(total.last),
            millis(total.mean, FIGURE)
        );
    }
    if let Some((name, mean, share)) = largest_part(report) {
        let (mean, share) = (with_unit(mean), percent(share));
        // The longest form that holds the whole name; at worst the shortest with a part of it.
        let forms = [
            (", worst so far ", format!(" {mean} ({share})")),
            (", worst ", format!(" {mean} ({share})")),
            (", worst ", format!(" ({share})")),
        ];
        let room = |(before, after): &(&str, String)| {
            LIVE_WIDTH.saturating_sub(width(&line) + before.len() + after.len())
        };
        let fitting = forms.iter().find(|form| room(form) >= name.width());
        let form @ (before, after) = fitting.unwrap_or(&forms[2]);
        // A shorter name is of no use.
        if room(form) >= name.width().min(8) {
            line = format!("{line}{before}{}{after}", name.fit(room(form)));
        }
    }
    prefix(&line, LIVE_WIDTH).to_owned()
}

/// Returns the part with the largest share so far: name, mean, share.
fn largest_part(report: &Report) -> Option<(Name, SignedNanos, f64)> {
    let parts = report.statistics.parts.iter();
    let parts = parts.filter_map(|part| Some((part.part, part.mean?, part.share?)));
    let (part, mean, share) = parts.max_by(|one, other| one.2.total_cmp(&other.2))?;
    Some((Name::of_part(report, part), mean, share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    #[test]
    fn the_live_line_has_the_progress_and_the_largest_part() {
        let mut report = samples::full();
        report.blocks.received = 11;
        for (sent, planned, expected) in [
            (
                12,
                None,
                "12 sent, 11 answered, last 2.88 ms, avg 2.97, worst so far B -> C 2.63 ms (89%)",
            ),
            (
                12,
                Some(100),
                "12/100 sent, 11 answered, last 2.88 ms, avg 2.97, worst B -> C 2.63 ms (89%)",
            ),
            (
                12_345,
                Some(1_000_000),
                "12345/1000000 sent, 11 answered, last 2.88 ms, avg 2.97, worst B -> C (89%)",
            ),
        ] {
            report.blocks.sent = sent;
            assert_eq!(live_line(&report, planned), expected);
        }
        assert_eq!(live_line(&samples::empty(), None), "0 sent, 0 answered");
    }
}
