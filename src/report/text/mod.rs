//! A [`Report`] in, a table for people out (`--format text`), and one line for a terminal while a
//! run goes on.
//!
//! The table has one row per part of the delay, in the order in which the bytes meet them, in mtr's
//! columns, in milliseconds. A node that passes blocks both ways has a second row for the way back,
//! so the `Avg` column adds up to that of the total. `>` marks the row that the verdict names.
//!
//! - `Loss%` and `Snt` stand above the table: blocks get lost on the path as a whole. Under TCP a
//!   segment loses packets, which shows as delay, and a block that never came back does not say
//!   where it is.
//! - `Share` is the part's share of the sum of all totals, both ways of a node taken together; the
//!   bar shows it too.
//! - A row `C late` says how late C's process read what its kernel had, each way; it is a share of the
//!   segments beside it, no part of its own in `Avg`, and is there only where the verdict names it or
//!   one block in twenty waited for a millisecond.
//! - `Incr` is the growth over the baseline.
//! - `Dir` is the direction in which a segment queues: the verdict's for the segment it names, else
//!   the one whose one-way excess is larger (`both` where the lesser is more than half of the
//!   greater), at the 95th percentile.
//! - In the place of the bar stands `WARNING` or `CRITICAL` where the part is beyond such a limit; below the table stand
//!   those limits and what turned when, with the block that decided.
//! - `-` is a figure that is not known; a blank one has no meaning in that row.
//!
//! A terminal under 90 columns gets no `Last` and `StDev`; the bar takes what the names leave, and
//! goes if that is too little. Nothing is wider than the given width, and what peers wrote is
//! escaped, so it cannot steer a terminal.

use super::{in_path_order, printable, Report};
use crate::annotation::AnnotationValue;
use crate::measure::sla::Place;
use crate::measure::{
    Confidence, HostStatistics, SegmentStatistics, Sla, Summary, VerdictDirection, VerdictKind,
};
use crate::time::{Nanos, SignedNanos};
use std::ffi::OsStr;
use std::fmt;

/// The widest a report gets, in columns.
pub const MAX_WIDTH: usize = 100;
/// The narrowest; a narrower terminal wraps the lines.
pub const MIN_WIDTH: usize = 80;
/// The widest a [`live_line`] gets.
const LIVE_WIDTH: usize = 80;
/// From here on all columns are shown.
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
/// Digits of a figure.
pub(super) const FIGURE: usize = 5;
/// `Share`, `Incr` and `Dir`, with a space before each.
const TAIL_WIDTH: usize = 6 + 7 + 5;
/// Mark, hop and space before a name.
const INDENT: usize = 4;
/// Names get this much before there is a bar.
const NAME_WIDTH: usize = 20;
const MIN_BAR: usize = 8;
const MAX_BAR: usize = 20;

/// Below this an excess is no queue; it is also the least increase that a verdict counts.
const LEAST_EXCESS: SignedNanos = SignedNanos(100_000);
/// A host that reads later than this, at the 95th percentile, has a row for it.
const LATE: SignedNanos = SignedNanos(1_000_000);
/// Above this share of the time, a blocked far node means that the queue is not the segment's own.
const HELD_SHARE: f64 = 0.1;

/// How a report is shown.
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
    /// Colour only on a terminal, and not where the environment variable `NO_COLOR` has a value
    /// (<https://no-color.org>); `width` is `None` where it is unknown.
    pub fn for_output(is_terminal: bool, no_color: Option<&OsStr>, width: Option<usize>) -> Self {
        Self {
            colour: is_terminal && no_color.map_or(true, OsStr::is_empty),
            width: width.unwrap_or(MAX_WIDTH),
        }
    }
}

/// Events under the table; the JSON has more.
const MOST_EVENTS: usize = 20;

/// Runs shorter than this show no skew.
const LEAST_FOR_SKEW: SignedNanos = SignedNanos(30_000_000_000);

/// The report for people: head, table, notes, and last the verdict.
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

/// The sections, for those who put them together otherwise.
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

/// What there is to say beside the table, a sentence each, with everything escaped; without limits and what nodes told of
/// themselves, which pictures show otherwise.
pub(super) fn notes(report: &Report) -> Vec<String> {
    let page = Page {
        report,
        colour: false,
        width: MAX_WIDTH,
    };
    page.sentences(false)
}

/// Where a run stands, in one line of at most 80 columns without a line feed; `planned` blocks are
/// `None` where there is no end to them.
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
            LIVE_WIDTH.saturating_sub(width_of(&line) + before.len() + after.len())
        };
        let fitting = forms.iter().find(|form| room(form) >= name.width());
        let form @ (before, after) = fitting.unwrap_or(&forms[2]);
        // Less than this says nothing.
        if room(form) >= name.width().min(8) {
            line = format!("{line}{before}{}{after}", name.fit(room(form)));
        }
    }
    fit(&line, LIVE_WIDTH)
}

/// The part with the largest share so far: name, mean, share.
fn largest_part(report: &Report) -> Option<(Name, SignedNanos, f64)> {
    let statistics = &report.statistics;
    let segments = statistics.segments.iter().filter_map(|segment| {
        Some((
            Name::of_segment(report, segment),
            segment.round_trip?.mean,
            segment.share?,
        ))
    });
    let hosts = statistics.hosts.iter().filter_map(|host| {
        let residences = [host.forward_residence, host.return_residence];
        let mean = residences
            .iter()
            .flatten()
            .map(|summary| summary.mean)
            .sum();
        Some((Name::of_host(report, host.hop), mean, host.share?))
    });
    segments
        .chain(hosts)
        .max_by(|one, other| one.2.total_cmp(&other.2))
}

/// A report on its way to lines of `width`.
struct Page<'a> {
    report: &'a Report,
    colour: bool,
    width: usize,
}

/// One row of the table. What is `None` has no meaning in this row, except `figures`, which are
/// then unknown.
pub(super) struct Row {
    pub(super) is_named: bool,
    pub(super) hop: Option<u8>,
    pub(super) name: Name,
    pub(super) figures: Option<Summary>,
    /// Share and increase, each `None` where it is unknown.
    pub(super) growth: Option<(Option<f64>, Option<SignedNanos>)>,
    pub(super) direction: Option<&'static str>,
    pub(super) sla: Sla,
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
        let loss = match blocks.sent {
            0 => unknown(),
            sent => format!("{:.1}", blocks.lost as f64 * 100.0 / sent as f64),
        };
        let counts = format!(
            "Loss% {loss}   Snt {}   Rcv {}   payload {} bytes   times in ms",
            blocks.sent, blocks.received, blocks.payload_bytes
        );
        [self.wrap(&line), self.wrap(&counts)].concat()
    }

    fn table(&self) -> Vec<String> {
        let rows = rows(self.report);
        let columns: Vec<_> = COLUMNS
            .iter()
            .filter(|column| column.2 || self.width >= WIDE)
            .collect();
        let available = self.width - INDENT - columns.len() * (FIGURE + 1) - TAIL_WIDTH;
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

        let mut header = format!("Hop {:<name_width$}", fit("Part", name_width));
        for (heading, ..) in &columns {
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
            let mut line = format!(
                "{front} {name}{:pad$}",
                "",
                pad = name_width.saturating_sub(width_of(&name))
            );
            for (_, figure, _) in &columns {
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

    fn sentences(&self, all: bool) -> Vec<String> {
        let Report {
            blocks,
            statistics,
            dropped,
            notices,
            ..
        } = self.report;
        let mut notes = if all { self.limits() } else { Vec::new() };
        for segment in &statistics.segments {
            self.note_segment(segment, &mut notes);
        }
        for host in &statistics.hosts {
            self.note_host(host, &mut notes);
        }
        for told in self.report.annotations.iter().filter(|_| all) {
            let annotations = told
                .annotations
                .iter()
                .map(|annotation| match &annotation.value {
                    AnnotationValue::Number(number) => {
                        format!("{} {}", annotation.name, plain_number(*number))
                    }
                    AnnotationValue::Text(text) => format!("{} \"{text}\"", annotation.name),
                });
            let annotations = annotations.collect::<Vec<_>>().join(", ");
            let name = self.name_at(told.hop);
            notes.push(format!(
                "{name} tells of itself: {}",
                printable(&annotations)
            ));
        }
        if statistics.path_changes > 0 {
            notes.push(format!(
                "the path changed {}",
                counted(statistics.path_changes, "time")
            ));
        }
        for (count, what) in [
            (
                blocks.lost,
                "lost: no answer by the end, or before the path broke",
            ),
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

    /// What is beyond a limit, and what turned when.
    fn limits(&self) -> Vec<String> {
        let Report { limits, events, .. } = self.report;
        let beyond = limits.iter().filter(|limit| limit.state > Sla::Ok);
        let beyond = beyond.map(|limit| {
            let place = printable(&self.report.place_name(limit.place));
            format!("SLA, {place}: {limit}")
        });
        let latest = &events[events.len().saturating_sub(MOST_EVENTS)..];
        let earlier = events.len() - latest.len();
        let earlier =
            (earlier > 0).then(|| format!("{} before these:", counted(earlier as u64, "event")));
        let events = latest.iter().map(|event| {
            let at = event.at.to_string();
            let at = at.get(11..23).unwrap_or(&at);
            let place = printable(&self.report.place_name(event.now.place));
            let sequence = event.sequence;
            format!("{at} {place}: {event}, block {sequence}")
        });
        beyond.chain(earlier).chain(events).collect()
    }

    fn note_segment(&self, segment: &SegmentStatistics, notes: &mut Vec<String>) {
        let name = Name::of_segment(self.report, segment);
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
        if host.clock_steps > 0 {
            let steps = counted(host.clock_steps, "clock step");
            notes.push(format!(
                "{steps} at {name}: the figures beside it are not network delay"
            ));
        }
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

    /// Breaks `text` at spaces into lines of the page's width, all but the first indented by two
    /// more than that one; a word that no line holds is cut.
    fn wrap(&self, text: &str) -> Vec<String> {
        let first_indent = text.chars().take_while(|&c| c == ' ').count();
        let indent = " ".repeat(first_indent + 2);
        let mut lines = Vec::new();
        let mut rest = text.to_owned();
        while width_of(&rest) > self.width {
            let chars: Vec<char> = rest.chars().collect();
            let own_indent = chars.iter().take_while(|&&c| c == ' ').count();
            let (window, _) = chars.split_at(self.width + 1);
            let end = window
                .iter()
                .rposition(|&c| c == ' ')
                .filter(|&end| end > own_indent);
            let (line, next) = chars.split_at(end.unwrap_or(self.width));
            lines.push(line.iter().collect::<String>().trim_end().to_owned());
            rest = indent.clone() + next.iter().collect::<String>().trim_start_matches(' ');
        }
        lines.push(rest.trim_end().to_owned());
        lines
    }
}

/// How late a host reads, where that matters: a row for each way, the share and the growth of both in the first. With the
/// verdict's direction where that names it.
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

/// The rows of the table, in the order in which the bytes meet the parts.
pub(super) fn rows(report: &Report) -> Vec<Row> {
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
            super::Place::Host(host) => {
                let mut row = Row::new(Name::of_host(report, host.hop), host.forward_residence);
                row.growth = Some((host.share, host.increase));
                row.hop = Some(host.hop);
                row.sla = host.sla;
                let is_named = named == Some(super::Place::Host(host.hop));
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
            super::Place::Segment(segment) => {
                let mut row = Row::new(Name::of_segment(report, segment), segment.round_trip);
                row.growth = Some((segment.share, segment.increase));
                row.sla = segment.sla;
                row.is_named = match named {
                    Some(super::Place::Segment(index)) => statistics
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

/// What a row is called, with everything escaped.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// A host or another single thing; the note goes first where room is short.
    One { name: String, note: String },
    /// A further row of a host; what tells it from the row above stays.
    Short(String, &'static str),
    /// A segment.
    Two { from: String, to: String },
}

const ARROW: &str = " -> ";
const BACK: &str = " (return)";
const LATE_OUT: &str = " late";
const LATE_BACK: &str = " late (return)";

impl Name {
    fn plain(name: &str) -> Self {
        Self::One {
            name: name.to_owned(),
            note: String::new(),
        }
    }

    fn of_host(report: &Report, hop: u8) -> Self {
        let role = report.node_at(hop).map_or("", |node| node.role.as_str());
        let note = if role.is_empty() {
            String::new()
        } else {
            format!(" ({})", printable(role))
        };
        Self::One {
            name: printable(&report.name_at(hop)),
            note,
        }
    }

    fn of_segment(report: &Report, segment: &SegmentStatistics) -> Self {
        let name = |hop| printable(&report.name_at(hop));
        Self::Two {
            from: name(segment.from_hop),
            to: name(segment.to_hop),
        }
    }

    fn width(&self) -> usize {
        width_of(&self.to_string())
    }

    /// The name in at most `room` columns. The ends of a segment share them evenly; what one does
    /// not need, the other gets.
    fn fit(&self, room: usize) -> String {
        match self {
            _ if self.width() <= room => self.to_string(),
            Self::One { name, .. } => fit(name, room),
            Self::Short(name, note) => fit(name, room.saturating_sub(note.len())) + note,
            Self::Two { from, to } => {
                let room = room.saturating_sub(ARROW.len());
                let for_from = (room / 2)
                    .max(room.saturating_sub(width_of(to)))
                    .min(width_of(from));
                format!("{}{ARROW}{}", fit(from, for_from), fit(to, room - for_from))
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One { name, note } => write!(f, "{name}{note}"),
            Self::Short(name, note) => write!(f, "{name}{note}"),
            Self::Two { from, to } => write!(f, "{from}{ARROW}{to}"),
        }
    }
}

/// Columns that a terminal needs; one per character, so text in East Asian scripts comes out wider
/// than counted.
fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// `text` in at most `room` columns; `~` stands for what is cut off.
fn fit(text: &str, room: usize) -> String {
    if width_of(text) <= room {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(room.saturating_sub(1)).collect();
    out.extend((room > 0).then_some('~'));
    out
}

pub(super) fn unknown() -> String {
    "-".to_owned()
}

fn direction_word(direction: VerdictDirection) -> &'static str {
    match direction {
        VerdictDirection::Forward => "fwd",
        VerdictDirection::Return => "ret",
        VerdictDirection::Both => "both",
    }
}

/// Which way a segment queues, by the 95th percentiles of its excesses; `None` where one is unknown
/// or neither is a queue.
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

/// Milliseconds with three digits that count, to the microsecond, in at most `room` (5 or more)
/// characters: `0.041`, `3.42`, `38.1`, `1205`; beyond that `120s`, `40h`, `12y`.
pub(super) fn millis(span: SignedNanos, room: usize) -> String {
    let ms = span.as_millis_f64();
    // Where rounding carries into a further digit, the next case has it.
    let digits = match ms.abs() {
        size if size < 0.9995 => 3,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    let shorter = (0..=digits).rev().map(|digits| format!("{ms:.digits$}"));
    let coarser = [(1e3, 's'), (3.6e6, 'h'), (3.156e10, 'y')]
        .map(|(unit, letter)| format!("{:.0}{letter}", ms / unit));
    shorter
        .chain(coarser)
        .find(|text| text.len() <= room)
        .unwrap_or_else(unknown)
}

/// The same with its sign, in at most six characters; what rounds to nothing has none.
pub(super) fn signed_millis(span: SignedNanos) -> String {
    let size = millis(span.abs().signed(), FIGURE);
    match span.0 {
        _ if size == "0.000" => size,
        i64::MIN..=-1 => format!("-{size}"),
        _ => format!("+{size}"),
    }
}

/// A time within a sentence.
pub(super) fn with_unit(span: SignedNanos) -> String {
    if span.abs() < Nanos::from_millis(10_000) {
        format!("{} ms", millis(span, FIGURE))
    } else {
        format!("{:.1} s", span.as_millis_f64() / 1e3)
    }
}

/// A share as `0.4%` or `92%`, in at most four characters: shares made of nonsense stamps stop at
/// the bounds.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if (0.0..9.95).contains(&percent) {
        format!("{percent:.1}%")
    } else {
        format!("{:.0}%", percent.clamp(-99.0, 999.0))
    }
}

fn bar(share: Option<f64>, width: usize) -> String {
    "#".repeat((share.unwrap_or(0.0).clamp(0.0, 1.0) * width as f64).round() as usize)
}

pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Three digits behind the point, as far as they say something.
fn plain_number(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
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

    /// Takes SGR sequences out of `text` and says how many there were.
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
    fn no_line_is_too_wide_and_no_control_character_gets_through_whatever_the_report() {
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
                        width_of(line) <= bound,
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
            assert!(width_of(&line) <= 80, "seed {seed}: {line}");
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
    fn times_have_three_digits_that_count_and_fit_their_column() {
        for (nanos, text) in [
            (0, "0.000"),
            (41_000, "0.041"),
            (999_499, "0.999"),
            (999_500, "1.00"),
            (3_420_000, "3.42"),
            (9_994_999, "9.99"),
            (9_995_000, "10.0"),
            (38_100_000, "38.1"),
            (99_960_000, "100"),
            (1_205_000_000, "1205"),
            (99_999_000_000, "99999"),
            (120_000_000_000, "120s"),
            (-41_000, "-0.04"),
            (-3_420_000, "-3.42"),
            (-38_100_000, "-38.1"),
            (-12_050_000_000, "-12s"),
            (i64::MAX, "292y"),
            (i64::MIN, "-292y"),
        ] {
            assert_eq!(millis(SignedNanos(nanos), FIGURE), text, "{nanos}");
        }
        assert_eq!(signed_millis(SignedNanos(2_310_000)), "+2.31");
        assert_eq!(signed_millis(SignedNanos(-41_000)), "-0.041");
        assert_eq!(signed_millis(SignedNanos(-400)), "0.000");
    }

    #[test]
    fn shares_take_four_characters_at_most() {
        for (share, text) in [
            (0.004, "0.4%"),
            (0.0996, "10%"),
            (0.92, "92%"),
            (1.0, "100%"),
            (-0.031, "-3%"),
            (1e9, "999%"),
            (-1e9, "-99%"),
        ] {
            assert_eq!(percent(share), text, "{share}");
        }
    }

    #[test]
    fn long_names_are_cut_where_that_tells_most() {
        let segment = |from: &str, to: &str| Name::Two {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        assert_eq!(segment("A", "B").fit(6), "A -> B");
        assert_eq!(segment("berlin-router-1", "B").fit(14), "berlin-r~ -> B");
        assert_eq!(segment("A", "berlin-router-1").fit(14), "A -> berlin-r~");
        assert_eq!(
            segment("berlin-router-1", "munich-router-1").fit(14),
            "berl~ -> muni~"
        );
        assert_eq!(
            Name::Short("berlin-router-1".to_owned(), BACK).fit(14),
            "berl~ (return)"
        );
        let host = Name::One {
            name: "berlin".to_owned(),
            note: " (relay)".to_owned(),
        };
        assert_eq!(
            [host.fit(14), host.fit(13), host.fit(4), host.fit(0)],
            ["berlin (relay)", "berlin", "ber~", ""]
        );
    }

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

    #[test]
    fn the_live_line_says_where_the_run_stands_and_which_part_is_the_largest() {
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

    #[test]
    fn colour_needs_a_terminal_and_no_objection() {
        let colour = |is_terminal, no_color: Option<&str>| {
            TextStyle::for_output(is_terminal, no_color.map(OsStr::new), None).colour
        };
        assert!(colour(true, None) && colour(true, Some("")));
        assert!(!colour(true, Some("1")) && !colour(false, None));
    }
}
