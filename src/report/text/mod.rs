//! Turns a [`Report`] into a table for people (`--format text`), and into the live line of a
//! terminal.
//!
//! The table has one row per part of the delay, in the order in which the bytes meet them, in mtr's
//! columns, in milliseconds. A node that passes blocks both ways has a second row for the way back,
//! so the `Avg` column adds up to that of the total. `>` marks the row that the verdict names.
//!
//! - `Loss%` and `Snt` stand above the table: blocks get lost on the path as a whole. Under TCP a
//!   segment loses packets, which shows as delay, and a lost block does not show
//!   its place.
//! - `Share` is the part's share of the sum of all totals, both ways of a node taken together; the
//!   bar shows it too.
//! - A row `C late` is the time from the arrival at C's kernel until its process read, each way; it
//!   is a share of the segments beside it, no part of its own in `Avg`, and is there only where the
//!   verdict names it or one block in twenty waited for a millisecond.
//! - `Incr` is the growth over the baseline.
//! - `Dir` is the direction in which a segment queues: the verdict's for the segment it names, else
//!   the one whose one-way excess is larger (`both` where the lesser is more than half of the
//!   greater), at the 95th percentile.
//! - In the place of the bar stands `WARNING` or `CRITICAL` where the part is beyond such a limit;
//!   below the table stand those limits and what turned when, with the block that decided.
//! - `-` is a figure that is not known; a blank one has no meaning in that row.
//!
//! A terminal under 90 columns gets no `Last` and `StDev`; the bar takes what the names leave, and
//! goes if that is too little. Nothing is wider than the given width, and what peers wrote is
mod figures;
mod live;
mod name;
mod notes;
mod rows;

use super::{printable, Report};
use crate::columns;
use crate::measure::{Confidence, Sla, Summary, VerdictKind};
use crate::time::SignedNanos;
use figures::bar;
pub(super) use figures::{millis, percent, signed_millis, unknown, FIGURE};
pub use live::live_line;
use name::Name;
pub(super) use rows::{rows, Row};
use std::ffi::OsStr;

/// The widest a report gets, in columns.
pub const MAX_WIDTH: usize = 100;

/// The narrowest; a narrower terminal wraps the lines.
pub const MIN_WIDTH: usize = 80;

/// The least width at which all columns are shown.
const WIDE: usize = 90;

/// A heading of the table, its figure of a summary, and whether a narrow table has it too.
pub(super) type Column = (&'static str, fn(&Summary) -> SignedNanos, bool);

pub(super) const COLUMNS: [Column; 8] = [
    ("Last", |summary| summary.last, false),
    ("Avg", |summary| summary.mean, true),
    ("Best", |summary| summary.min, true),
    ("Wrst", |summary| summary.max, true),
    ("StDev", |summary| summary.stddev.signed(), false),
    ("P50", |summary| summary.p50, true),
    ("P95", |summary| summary.p95, true),
    ("P99", |summary| summary.p99, true),
];

/// `Share`, `Incr` and `Dir`, with a space before each.
const TAIL_WIDTH: usize = 6 + 7 + 5;

/// Mark, hop and space before a name.
const INDENT: usize = 4;

/// Names get this much before there is a bar.
const NAME_WIDTH: usize = 20;
const MIN_BAR: usize = 8;
const MAX_BAR: usize = 20;

/// The width and the colours of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextStyle {
    /// With terminal colours (SGR sequences).
    pub colour: bool,
    /// In columns; what is outside 80 to 100 counts as the nearer of them.
    pub width: usize,
}

impl Default for TextStyle {
    /// For files and pipes: full width, no colour.
    fn default() -> Self {
        Self {
            colour: false,
            width: MAX_WIDTH,
        }
    }
}

impl TextStyle {
    /// Returns the style for an output; `width` is `None` if it is unknown: 80 on a terminal, else
    /// 100.
    ///
    /// There is colour on a terminal, unless the environment variable `NO_COLOR` has a value
    /// (<https://no-color.org>).
    pub fn for_output(is_terminal: bool, no_color: Option<&OsStr>, width: Option<usize>) -> Self {
        Self {
            colour: is_terminal && no_color.map_or(true, OsStr::is_empty),
            width: match (width, is_terminal) {
                (Some(width), _) => width,
                (None, true) => MIN_WIDTH,
                (None, false) => MAX_WIDTH,
            },
        }
    }
}

/// Returns the report for people: head, table, notes and verdict.
pub fn render(report: &Report, style: &TextStyle) -> String {
    let Sections {
        head,
        table,
        notes,
        verdict,
    } = sections(report, style);
    let sections = [head, table, notes, verdict];
    let mut text = String::new();
    for lines in sections.iter().filter(|lines| !lines.is_empty()) {
        if !text.is_empty() {
            text.push('\n');
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The sections of a report, each a list of lines.
pub(super) struct Sections {
    pub(super) head: Vec<String>,
    pub(super) table: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) verdict: Vec<String>,
}

/// Returns the sections of a report.
pub(super) fn sections(report: &Report, style: &TextStyle) -> Sections {
    let page = Page {
        report,
        colour: style.colour,
        width: style.width.clamp(MIN_WIDTH, MAX_WIDTH),
    };
    Sections {
        head: page.head(),
        table: page.table(),
        notes: page.notes(),
        verdict: page.verdict(),
    }
}

/// Returns the notes below the table, escaped, without limits and annotations, which pictures show.
pub(super) fn notes(report: &Report) -> Vec<String> {
    let page = Page {
        report,
        colour: false,
        width: MAX_WIDTH,
    };
    page.sentences(false)
}

/// A report on its way to lines of `width`.
struct Page<'a> {
    report: &'a Report,
    colour: bool,
    width: usize,
}

impl Page<'_> {
    fn head(&self) -> Vec<String> {
        let Report {
            path,
            blocks,
            started,
            ended,
            ..
        } = self.report;
        let began = started.to_string();
        let mut line = format!(
            "{}Z, {:.1} s: ",
            began.get(..19).unwrap_or(&began),
            (*ended - *started).as_millis_f64() / 1e3
        );
        match (path.nodes.first(), path.nodes.last()) {
            (Some(first), Some(last)) => {
                line += &Name::of_host(self.report, first.hop).to_string();
                if last.hop != first.hop {
                    line += &format!(" -> {}", Name::of_host(self.report, last.hop));
                }
                if let Some(address) = &last.address {
                    line += &format!(" at {}", printable(address));
                }
            }
            _ => line += &format!("{}, no path seen", printable(&self.report.role)),
        }
        if let Some(cookie) = path.cookie {
            line += &format!(", cookie {cookie:016x}");
        }
        let loss = blocks.loss();
        let loss = loss.map_or_else(unknown, |loss| format!("{:.1}", loss * 100.0));
        let counts = format!(
            "Loss% {loss}   Snt {}   Rcv {}   payload {} bytes   times in ms",
            blocks.sent, blocks.received, blocks.payload_bytes
        );
        [self.wrap(&line), self.wrap(&counts)].concat()
    }

    fn table(&self) -> Vec<String> {
        let rows = rows(self.report);
        let shown: Vec<_> = COLUMNS
            .iter()
            .filter(|column| column.2 || self.width >= WIDE)
            .collect();
        let available = self.width - INDENT - shown.len() * (FIGURE + 1) - TAIL_WIDTH;
        let for_names = if available > NAME_WIDTH + MIN_BAR {
            available - 1 - MIN_BAR
        } else {
            available
        };
        let name_width = rows
            .iter()
            .map(|row| row.name.width())
            .max()
            .unwrap_or(0)
            .min(for_names);
        let bar_width = available.saturating_sub(name_width + 1).min(MAX_BAR);
        let bar_width = if bar_width < MIN_BAR { 0 } else { bar_width };

        let mut header = format!("Hop {:<name_width$}", columns::prefix("Part", name_width));
        for (heading, ..) in &shown {
            header += &format!(" {heading:>FIGURE$}");
        }
        header += &format!("{:>6}{:>7}{:>5}", "Share", "Incr", "Dir");
        let mut lines = vec![self.paint("1", header)];
        for row in rows {
            let mark = if row.is_named { '>' } else { ' ' };
            let hop = row.hop.map_or_else(String::new, |hop| hop.to_string());
            let name = row.name.fit(name_width);
            // A hop of three digits takes the mark's place rather than shift the row.
            let front = format!("{mark}{hop:>2}");
            let front = front.get(front.len() - 3..).unwrap_or(&front);
            let mut line = format!("{front} {}", columns::pad(&name, name_width));
            for (_, figure, _) in &shown {
                let cell = row
                    .figures
                    .as_ref()
                    .map_or_else(unknown, |summary| millis(figure(summary), FIGURE));
                line += &format!(" {cell:>FIGURE$}");
            }
            let growth = row.growth.map(|(share, increase)| {
                (
                    share.map_or_else(unknown, percent),
                    increase.map_or_else(unknown, signed_millis),
                )
            });
            let (share, increase) = growth.unwrap_or_default();
            let bar = match row.sla {
                Sla::Warning | Sla::Critical if bar_width > 0 => row.sla.name().to_uppercase(),
                _ => bar(row.growth.and_then(|(share, _)| share), bar_width),
            };
            line += &format!(
                "{share:>6}{increase:>7}{:>5} {bar}",
                row.direction.unwrap_or("")
            );
            let line = line.trim_end().to_owned();
            lines.push(if row.is_named {
                self.paint(self.verdict_colour(), line)
            } else {
                line
            });
        }
        lines
    }

    fn notes(&self) -> Vec<String> {
        let notes = self.sentences(true);
        let lines = notes
            .iter()
            .flat_map(|note| self.wrap(&format!("- {note}")));
        lines.collect()
    }

    fn verdict(&self) -> Vec<String> {
        let verdict = &self.report.statistics.verdict;
        let confidence = match verdict.confidence {
            Confidence::High => "high",
            Confidence::Low => "low",
        };
        let sentence = self.wrap(&format!("Verdict: {}", printable(&verdict.text)));
        let reason = self.wrap(&format!(
            "  Confidence {confidence}: {}",
            printable(&verdict.reason)
        ));
        let sentence = sentence
            .into_iter()
            .map(|line| self.paint(self.verdict_colour(), line));
        let cause = verdict.cause.as_ref().map(|cause| {
            let cause = format!("  Why: {}", printable(cause));
            self.wrap(&cause)
        });
        sentence
            .chain(reason)
            .chain(cause.unwrap_or_default())
            .collect()
    }

    fn name_at(&self, hop: u8) -> String {
        printable(&self.report.name_at(hop))
    }

    /// SGR parameters: green where nothing stands out, else red, or yellow where the confidence is
    /// low; always bold.
    fn verdict_colour(&self) -> &'static str {
        let verdict = &self.report.statistics.verdict;
        match (verdict.kind, verdict.confidence) {
            (VerdictKind::None, _) => "1;32",
            (_, Confidence::High) => "1;31",
            (_, Confidence::Low) => "1;33",
        }
    }

    fn paint(&self, sgr: &str, line: String) -> String {
        if self.colour {
            format!("\x1b[{sgr}m{line}\x1b[0m")
        } else {
            line
        }
    }

    /// Breaks `text` into lines of the page's width; all but the first are indented by two more.
    fn wrap(&self, text: &str) -> Vec<String> {
        let indent = text.chars().take_while(|&c| c == ' ').count() + 2;
        columns::wrap(text, self.width, indent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    #[test]
    fn reports_are_as_in_the_golden_files() {
        for (expected, report) in [
            (
                include_str!("../../../tests/golden/report_full.txt"),
                samples::full(),
            ),
            (
                include_str!("../../../tests/golden/report_empty.txt"),
                samples::empty(),
            ),
        ] {
            samples::assert_same(expected, &render(&report, &TextStyle::default()));
        }
    }

    #[test]
    fn a_narrow_terminal_gets_a_narrow_table() {
        let style = TextStyle {
            colour: false,
            width: 80,
        };
        samples::assert_same(
            include_str!("../../../tests/golden/report_full_80.txt"),
            &render(&samples::full(), &style),
        );
    }

    /// Returns `text` without SGR sequences, and their number.
    fn without_sgr(text: &str) -> (String, usize) {
        let mut pieces = text.split("\x1b[");
        let mut out = pieces.next().unwrap_or("").to_owned();
        let mut count = 0;
        for piece in pieces {
            let (parameters, rest) = piece.split_once('m').expect("the sequence ends");
            assert!(
                parameters.chars().all(|c| c.is_ascii_digit() || c == ';'),
                "{parameters:?}"
            );
            out += rest;
            count += 1;
        }
        (out, count)
    }

    #[test]
    fn no_line_is_too_wide_and_none_has_a_control_character_for_any_report() {
        for seed in 0..200 {
            let report = samples::random(seed);
            for (width, bound) in [(0, 80), (80, 80), (93, 93), (100, 100), (1000, 100)] {
                let plain = render(
                    &report,
                    &TextStyle {
                        colour: false,
                        width,
                    },
                );
                let (uncoloured, colours) = without_sgr(&render(
                    &report,
                    &TextStyle {
                        colour: true,
                        width,
                    },
                ));
                assert_eq!(
                    plain, uncoloured,
                    "seed {seed}: colour changes nothing else"
                );
                assert!(colours >= 4, "seed {seed}");
                assert!(
                    plain.ends_with('\n') && !plain.contains("\n\n\n"),
                    "seed {seed}"
                );
                for line in plain.lines() {
                    assert!(
                        columns::width(line) <= bound,
                        "seed {seed}, width {width}: {line}"
                    );
                    assert!(
                        !line.chars().any(super::super::is_unprintable),
                        "seed {seed}: {line:?}"
                    );
                    assert_eq!(line, line.trim_end(), "seed {seed}");
                }
            }
            let line = live_line(&report, (seed % 2 == 0).then_some(seed));
            assert!(columns::width(&line) <= 80, "seed {seed}: {line}");
            assert!(
                !line.chars().any(super::super::is_unprintable),
                "seed {seed}: {line:?}"
            );
        }
    }

    #[test]
    fn the_average_column_adds_up_to_the_total() {
        let text = render(&samples::full(), &TextStyle::default());
        let table = text
            .split("\n\n")
            .nth(1)
            .expect("the table is the second section");
        let average = |line: &str| -> f64 {
            // Cells count from the right end of the name column, which here is 4 + 11 wide.
            line[16 + 5..16 + 11].trim().parse().expect("a number")
        };
        let (total, parts): (Vec<_>, Vec<_>) = table
            .lines()
            .skip(1)
            .filter(|line| !line.contains("behind exit"))
            .partition(|line| line.contains("total"));
        let sum: f64 = parts.iter().copied().map(average).sum();
        assert!((sum - average(total[0])).abs() < 0.02, "{sum}\n{text}");
    }

    #[test]
    fn a_host_that_reads_late_has_rows_of_its_own_and_the_mark_where_it_is_named() {
        let mut report = samples::full();
        let rows = |report: &Report| -> Vec<String> {
            let text = render(report, &TextStyle::default());
            let late = text.lines().filter(|line| line.contains("C late"));
            late.map(str::to_owned).collect()
        };
        // Some microseconds are what every process takes.
        assert_eq!(rows(&report), [""; 0]);
        // A sample summary's 95th percentile is twice its mean.
        let host = &mut report.statistics.hosts[2];
        host.return_wake_up = Some(samples::summary(500_000));
        let late = rows(&report);
        assert!(
            late.len() == 1 && late[0].starts_with("    C late (retur"),
            "{late:?}"
        );
        let verdict = &mut report.statistics.verdict;
        (verdict.kind, verdict.index) = (VerdictKind::Host, Some(2));
        let marked = |report: &Report| -> Vec<String> {
            let text = render(report, &TextStyle::default());
            let marked = text.lines().filter(|line| line.starts_with('>'));
            marked.map(|line| line[4..11].to_owned()).collect()
        };
        assert_eq!(marked(&report), ["C (rela"]);
        report.statistics.verdict.reads_late = true;
        assert_eq!(marked(&report), ["C late "]);
        let late = rows(&report);
        assert!(
            late.len() == 2 && late[0].contains("0.5%      -  fwd"),
            "{late:?}"
        );
    }

    #[test]
    fn a_terminal_of_unknown_width_gets_no_line_that_it_would_break() {
        let width = |is_terminal, width| TextStyle::for_output(is_terminal, None, width).width;
        assert_eq!(width(true, None), 80);
        assert_eq!(width(true, Some(120)), 120);
        assert_eq!(width(false, None), 100);
    }

    #[test]
    fn wide_and_combining_names_do_not_shift_the_columns() {
        let mut report = samples::full();
        report.path.nodes[1].name = "北京".to_owned();
        report.path.nodes[2].name = "Zu\u{308}rich".to_owned();
        let text = render(&report, &TextStyle::default());
        let table = text.split("\n\n").nth(1).expect("a table");
        // Column at which the first figure of a row ends.
        let ends = table.lines().skip(1).map(|line| {
            let at = line.find('.').expect("a figure");
            let digits = line[at + 1..].bytes().take_while(u8::is_ascii_digit);
            columns::width(&line[..at]) + 1 + digits.count()
        });
        let ends: std::collections::BTreeSet<_> = ends.collect();
        assert_eq!(ends.len(), 1, "{ends:?}\n{text}");
    }

    #[test]
    fn names_that_differ_in_their_last_character_differ_in_80_columns() {
        let mut report = samples::full();
        for node in &mut report.path.nodes {
            node.name = format!("rack-17-frankfurt-{}", node.hop);
        }
        let style = TextStyle {
            colour: false,
            width: 80,
        };
        let text = render(&report, &style);
        let table = text.split("\n\n").nth(1).expect("a table");
        let names: Vec<_> = table.lines().skip(1).map(|line| line.get(4..24)).collect();
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), different.len(), "{text}");
    }

    #[test]
    fn colour_needs_a_terminal_and_no_objection() {
        let colour = |is_terminal, no_color: Option<&str>| {
            TextStyle::for_output(is_terminal, no_color.map(OsStr::new), None).colour
        };
        assert!(colour(true, None) && colour(true, Some("")));
        assert!(!colour(true, Some("1")) && !colour(false, None));
    }
}
