//! Turns the reports of many paths into a table: the end of `probe --targets`.

use super::text::millis;
use super::{printable, Report, State};
use crate::columns;
use crate::measure::Sla;
use crate::time::SignedNanos;
use std::fmt::Write as _;

/// Most columns of a name; a longer name moves the figures of its line.
const NAME: usize = 32;
/// Characters of a figure.
const FIGURE: usize = 7;

/// Returns a table with a line per path: name, loss in percent, blocks sent, round trips, verdict.
///
/// Round trips are median, 99th percentile and greatest, in milliseconds. The state of a path that
/// is not `Ok` stands before its verdict. `None` is a path that was never tried.
pub fn render<R: AsRef<Report>>(paths: &[(String, Option<R>)]) -> String {
    let names: Vec<_> = paths.iter().map(|(name, _)| printable(name)).collect();
    let longest = names.iter().map(|name| columns::width(name)).max();
    let width = longest.unwrap_or(0).clamp(4, NAME);
    let head = columns::pad("Path", width);
    let mut text = head + "  Loss%     Snt     P50     P99    Wrst  Verdict\n";
    for (name, (_, report)) in names.iter().zip(paths) {
        let Some(report) = report.as_ref().map(AsRef::as_ref) else {
            let _ = writeln!(text, "{}  never reached", columns::pad(name, width));
            continue;
        };
        let (blocks, statistics) = (report.blocks, &report.statistics);
        let loss = blocks.loss();
        let loss = loss.map_or_else(|| "-".to_owned(), |loss| format!("{:.1}", loss * 100.0));
        let figure = |value: Option<SignedNanos>| {
            value.map_or_else(|| "-".to_owned(), |value| millis(value, FIGURE))
        };
        let total = statistics.round_trip;
        let [p50, p99, worst] = [
            total.map(|total| total.p50),
            total.map(|total| total.p99),
            total.map(|total| total.max),
        ]
        .map(figure);
        let mut verdict = match report.notices.first() {
            Some(notice) if blocks.received == 0 => printable(notice),
            _ => printable(&statistics.verdict.text),
        };
        let state = report.state();
        if state != State::Ok {
            verdict = format!("{}: {}{verdict}", state.name(), printable(&why(report)));
        }
        let _ = writeln!(
            text,
            "{}  {loss:>5} {:>7} {p50:>FIGURE$} {p99:>FIGURE$} {worst:>FIGURE$}  {verdict}",
            columns::pad(name, width),
            blocks.sent
        );
    }
    text
}

/// Returns the cause of a measured path's state, followed by `; `: its error or the worst limit.
fn why(report: &Report) -> String {
    if report.blocks.received == 0 {
        return String::new();
    }
    if let Some(broken) = &report.broken {
        return format!("{}; ", broken.text);
    }
    let beyond = report.limits.iter().filter(|limit| limit.state > Sla::Ok);
    let worst = beyond.max_by_key(|limit| limit.state);
    worst.map_or_else(String::new, |limit| {
        format!("{}: {limit}; ", report.part_name(limit.part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    #[test]
    fn each_path_has_its_line_with_loss_figures_and_verdict() {
        let (mut full, empty) = (samples::full(), samples::empty());
        let critical = full.clone();
        full.limits.clear();
        full.statistics.sla = Sla::None;
        let mut broken = full.clone();
        broken.broken = Some(crate::report::Broken {
            state: State::Unknown,
            text: "C is gone".to_owned(),
        });
        let paths = [
            ("rack 7".to_owned(), Some(&full)),
            ("b\u{1b}[31m:9000".to_owned(), Some(&empty)),
            ("gone.example:9000".to_owned(), None),
            ("slow".to_owned(), Some(&critical)),
            ("cut".to_owned(), Some(&broken)),
        ];
        let text = render(&paths);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[1].starts_with("rack 7             "), "{text}");
        assert!(
            lines[1].contains("    2.9     103    2.67    8.91    11.9  B -> C adds"),
            "{text}"
        );
        assert!(
            lines[2].contains("      -       0       -       -       -  CRITICAL: connect to"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert_eq!(lines[3], "gone.example:9000  never reached");
        assert!(
            lines[4].contains("  CRITICAL: B -> C: critical, round_trip p95 5.258 ms, limit 5 ms"),
            "{text}"
        );
        assert!(
            lines[5].contains("  UNKNOWN: C is gone; B -> C adds"),
            "{text}"
        );
    }
}
