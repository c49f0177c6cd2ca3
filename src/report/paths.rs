//! Reports of many paths in, a line for each out: what `probe --targets` shows at its end.

use super::text::millis;
use super::{printable, Report};
use crate::time::SignedNanos;
use std::fmt::Write as _;

/// The widest that a name gets; longer ones move their line's figures.
const NAME: usize = 32;
/// Characters of a figure.
const FIGURE: usize = 7;

/// A table with a line per path, in milliseconds: name, loss in percent, blocks sent, median, 99th percentile and
/// greatest round trip, the verdict. `None` is a path that was never tried.
pub fn render<R: AsRef<Report>>(paths: &[(String, Option<R>)]) -> String {
    let names: Vec<_> = paths.iter().map(|(name, _)| printable(name)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max();
    let width = longest.unwrap_or(0).clamp(4, NAME);
    let head = format!("{:width$}", "Path");
    let mut text = head + "  Loss%     Snt     P50     P99    Wrst  Verdict\n";
    for (name, (_, report)) in names.iter().zip(paths) {
        let Some(report) = report.as_ref().map(AsRef::as_ref) else {
            let _ = writeln!(text, "{name:width$}  never reached");
            continue;
        };
        let (blocks, statistics) = (report.blocks, &report.statistics);
        let loss = match blocks.sent {
            0 => "-".to_owned(),
            sent => format!("{:.1}", blocks.lost as f64 * 100.0 / sent as f64),
        };
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
        let verdict = match report.notices.first() {
            Some(notice) if blocks.received == 0 => printable(notice),
            _ => printable(&statistics.verdict.text),
        };
        let _ = writeln!(
            text,
            "{name:width$}  {loss:>5} {:>7} {p50:>FIGURE$} {p99:>FIGURE$} {worst:>FIGURE$}  {verdict}",
            blocks.sent
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn each_path_has_its_line_with_loss_figures_and_verdict() {
        let (full, empty) = (samples::full(), samples::empty());
        let paths = [
            ("rack 7".to_owned(), Some(&full)),
            ("b\u{1b}[31m:9000".to_owned(), Some(&empty)),
            ("gone.example:9000".to_owned(), None),
        ];
        let text = render(&paths);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].starts_with("rack 7             "), "{text}");
        assert!(
            lines[1].contains("    2.9     103    2.67    8.91    11.9  B -> C adds"),
            "{text}"
        );
        assert!(
            lines[2].contains("      -       0       -       -       -  connect to"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert_eq!(lines[3], "gone.example:9000  never reached");
    }
}
