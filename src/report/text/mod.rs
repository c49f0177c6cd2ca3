//! Turns a [`Report`] into a table for people (`--format text`), and into the live line of a
//! terminal.
//!
//! The table has one row per part of the delay, in the order in which the bytes meet them, in mtr's
//! columns, in milliseconds. `Avg` is a part's sum over all blocks / blocks, so the column adds up
//! to that of the total. The other columns cover the blocks that have the part. `>` marks the row
//! that the verdict names; nothing if nothing changed.
//!
//! - `Loss%` and `Snt` stand above the table: blocks get lost on the path as a whole. Under TCP a
//!   segment loses packets, which shows as delay, and a lost block does not show
//!   its place.
//! - `Share` is the part's share of the sum of all totals; the bar shows it too.
//! - `Retr` counts the TCP segments sent again, forward and return; it is there where nodes read
//!   it.
//! - `Incr` is the growth over the baseline; a note names the figure.
//! - `Dir` is the direction in which a segment queues. The verdict gives it for the segment it
//!   names, else the larger one-way excess at the 95th percentile. It is `both` where the smaller
//!   excess is more than half of the larger one.
//! - `WARNING` or `CRITICAL` replaces the bar where the part is beyond such a limit. Below the
//!   table are those limits and the changes of their states, with the deciding block.
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
use crate::FULL;
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

/// `Retr`, with a space before it.
const RETR_WIDTH: usize = 8;

/// A narrow table with `Retr` has no such column.
const FOR_RETR: &str = "Best";

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

/// Returns the report for people: head, table, notes and verdict. Those of other paths through the
/// same node follow.
pub fn render(report: &Report, style: &TextStyle) -> String {
    let mut text = String::new();
    for one in std::iter::once(report).chain(&report.others) {
        if let (Some(label), false) = (&one.label, report.others.is_empty()) {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}Path {}\n\n", printable(label)));
        }
        text.push_str(&render_one(one, style));
    }
    text
}

fn render_one(report: &Report, style: &TextStyle) -> String {
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
        let resent = rows.iter().any(|row| row.retransmits.is_some());
        let wide = self.width >= WIDE;
        let shown: Vec<_> = COLUMNS
            .iter()
            .filter(|column| wide || column.2 && !(resent && column.0 == FOR_RETR))
            .collect();
        let resent = if resent { RETR_WIDTH } else { 0 };
        let available = self.width - INDENT - shown.len() * (FIGURE + 1) - TAIL_WIDTH - resent;
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
        if resent > 0 {
            header += &format!("{:>RETR_WIDTH$}", "Retr");
        }
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
            line += &format!("{share:>6}{increase:>7}{:>5}", row.direction.unwrap_or(""));
            if resent > 0 {
                let retransmits = row.retransmits.as_deref().unwrap_or("");
                // More than a thousand each way take the next column's space.
                let retransmits = columns::prefix(retransmits, RETR_WIDTH - 1);
                line += &format!("{retransmits:>RETR_WIDTH$}");
            }
            line += &format!(" {bar}");
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
        let doubts = verdict.doubts.join("; ");
        let doubts = (!doubts.is_empty()).then(|| format!("  But: {doubts}"));
        let cause = verdict.cause.as_ref();
        let cause = cause.map(|cause| format!("  Why: {cause}"));
        let mut further: Vec<_> = [doubts, cause].into_iter().flatten().collect();
        if FULL {
            further.extend(self.report.odd_flows());
        }
        further.extend(self.report.largest_text());
        let further = further.iter().flat_map(|line| self.wrap(&printable(line)));
        sentence.chain(reason).chain(further).collect()
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
    use crate::measure::{Part, Verdict};
    use crate::report::tests::samples;
    use crate::time::Nanos;

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

    /// The rows of a report's table, without its heading.
    fn table(report: &Report, width: usize) -> Vec<String> {
        let style = TextStyle {
            colour: false,
            width,
        };
        sections(report, &style).table.split_off(1)
    }

    #[test]
    fn the_columns_avg_and_share_add_up_to_the_total_as_shown() {
        for seed in 0..2_000 {
            let mut report = samples::random(seed);
            for node in &mut report.path.nodes {
                node.name = format!("n{}", node.hop); // Names without blanks, as cells are.
                node.role.clear();
            }
            if report.statistics.parts.is_empty() || report.statistics.round_trip.is_none() {
                continue;
            }
            let heading = sections(&report, &TextStyle::default()).table.remove(0);
            let cell = |line: &str, column: &str| -> String {
                let end = heading.find(column).expect("a column") + column.len();
                let cell = line.get(..end).unwrap_or(line).split(' ').next_back();
                cell.unwrap_or("").to_owned()
            };
            let rows = table(&report, MAX_WIDTH);
            let (total, parts): (Vec<_>, Vec<_>) = rows
                .iter()
                .filter(|row| !row.contains("server"))
                .partition(|row| row.contains("total"));
            assert_eq!(total.len(), 1, "seed {seed}");
            let average = |row: &String| cell(row, "Avg").parse::<f64>().expect("a number");
            let sum: f64 = parts.iter().map(|row| average(row)).sum();
            // Half of the last digit that each cell shows.
            let rounding = |row: &String| {
                let cell = cell(row, "Avg");
                let digits = cell.split_once('.').map_or(0, |(_, digits)| digits.len());
                0.500_001 / 10_f64.powi(digits as i32)
            };
            let off: f64 = rows.iter().map(rounding).sum();
            let whole = average(total[0]);
            assert!((sum - whole).abs() <= off, "seed {seed}: {sum} {whole}");
            let shares = parts.iter().map(|row| {
                let cell = cell(row, "Share");
                cell.trim_end_matches('%').parse::<f64>().expect("a share")
            });
            let (shares, off): (f64, f64) = (shares.sum(), 0.500_001 * parts.len() as f64);
            assert!((shares - 100.0).abs() <= off, "seed {seed}: {shares}");
        }
    }

    #[test]
    fn the_mark_is_at_what_is_named_and_nowhere_if_nothing_is() {
        let mut report = samples::full();
        let marked = |report: &Report| -> Vec<String> {
            let rows = table(report, MAX_WIDTH);
            let marked = rows.iter().filter(|row| row.starts_with('>'));
            marked.map(|row| row[4..11].to_owned()).collect()
        };
        assert_eq!(marked(&report), ["B -> C "]);
        report.statistics.verdict.part = Some(Part::Host(2));
        assert_eq!(marked(&report), ["C (rela"]);
        report.statistics.verdict = Verdict::default();
        assert_eq!(marked(&report), [""; 0]);
    }

    #[test]
    fn a_host_that_reads_late_has_a_note() {
        let mut report = samples::full();
        let late = |report: &Report| -> Vec<String> {
            let notes = notes(report);
            let late = notes.into_iter().filter(|note| note.contains("reads late"));
            late.collect()
        };
        // Some microseconds are what every process takes.
        assert_eq!(late(&report), [""; 0]);
        // A sample summary's 95th percentile is twice its mean.
        report.statistics.hosts[2].return_wake_up = Some(samples::summary(500_000));
        let note = "C reads late: p95 of 1.00 ms return from the kernel to the process, in its row";
        assert_eq!(late(&report), [note]);
    }

    #[test]
    fn a_connect_counts_the_blocks_that_waited_and_its_average_is_over_all_blocks() {
        let mut report = samples::full();
        let mut connect = samples::part(Part::Connect { from: 0, to: 1 }, 500_000, Some(0.1));
        connect.mean = Some(SignedNanos(5_000));
        report.statistics.parts.insert(1, connect);
        let text = render(&report, &TextStyle::default());
        let row = text.lines().find(|line| line.contains("connect A -> B"));
        let row = row.expect("a row");
        assert!(row.contains(" 0.005 0.250  2.00 "), "{row}");
        assert!(
            text.contains("- connect A -> B: 100 blocks waited"),
            "{text}"
        );
    }

    #[test]
    fn the_second_answer_is_most_of_the_delay_from_a_half_on() {
        let mut report = samples::full();
        let text = |report: &Report| report.largest_text().unwrap_or_default();
        assert_eq!(
            text(&report),
            "Most of the delay: B -> C, 89 % (2.63 of 2.97 ms)"
        );
        let largest = report.statistics.largest.as_mut().expect("a largest");
        (largest.share, largest.second) = (Some(0.45), Some("C".to_owned()));
        report.statistics.verdict = Verdict {
            least: Some(Nanos(1)),
            ..Verdict::default()
        };
        assert_eq!(
            text(&report),
            "Largest part: B -> C, 45 % (2.63 of 2.97 ms), and C about as much; nothing changed"
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
