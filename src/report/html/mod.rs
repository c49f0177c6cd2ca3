//! Turns a [`Report`] into one page of HTML that loads nothing else: no scripts, fonts or images.
//!
//! The answer comes first, then pictures of the same parts in the same order, then every figure.
//! The part that the verdict names has one colour in all of them, everything else is grey. Pictures
//! are SVG in percentages of their width; lines keep their width and text its size. So one page
//! serves a phone, a screen and paper, light and dark.
//!
//! Texts of peers are escaped, and a content security policy in the page forbids everything that
//! escaping should have. A live page fetches itself every two seconds; its one script stands in the
//! page and is allowed by its hash.

mod annotations;
mod chart;
mod histogram;
mod plot;
mod waterfall;

use super::text::{self, COLUMNS, FIGURE};
use super::Report;
use crate::measure::{Confidence, Sla, VerdictKind};
use crate::time::{SignedNanos, WallTime};
use chart::{escape, span, time};
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// SHA-256 of [`SCRIPT`] in Base64: `openssl dgst -sha256 -binary src/report/live.js | base64`.
const SCRIPT_HASH: &str = "+E6z9t9EMg78FKczfn5t9OztIkBL/XjP+UjIULNtRwg=";

/// Limits beside the verdict; the plot over time has all changes.
const MOST_LIMITS: usize = 4;

/// Rows of a table and entries of a list; the page counts the rest.
const MOST_ROWS: usize = 256;

/// The use of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// A file, which does not change.
    File,
    /// A page served by the measuring process, which fetches itself anew.
    Live,
}

/// Returns the page in UTF-8.
pub fn render(report: &Report, page: Page) -> String {
    let mut out = String::with_capacity(64 << 10);
    let verdict = &report.statistics.verdict;
    let title = match verdict.kind {
        VerdictKind::None => "nothing changed".to_owned(),
        _ => arrows(&verdict.name),
    };
    head(&title, page, &mut out);
    out.push_str("<main>\n");
    answer(report, &mut out);
    counts(report, &mut out);
    waterfall::section(report, &mut out);
    plot::section(report, &mut out);
    histogram::section(report, &mut out);
    table(report, &mut out);
    annotations::section(report, &mut out);
    notes(report, &mut out);
    nodes(report, &mut out);
    out.push_str("</main>\n");
    foot(page, &mut out);
    out
}

/// Returns the live page of several paths: names with verdicts and links to the page of each.
pub fn list(paths: &[(&str, Option<&Report>)]) -> String {
    let mut out = String::new();
    head("all paths", Page::Live, &mut out);
    out.push_str(
        "<main>\n<h1>All paths</h1>\n<div \
         class=\"scroll\"><table><thead><tr><th>Path</th><th>P50</th><th>P95</th>\
         <th>Lost</th><th>SLA</th><th class=\"w\">Verdict</th></tr></thead><tbody>\n",
    );
    for (name, report) in paths {
        let _ = write!(
            out,
            "<tr><th><a href=\"?path={}\">{}</a></th>",
            query(name),
            escape(name)
        );
        let total = report
            .as_ref()
            .and_then(|report| report.statistics.round_trip);
        let cell = |value: Option<SignedNanos>| value.map_or_else(text::unknown, span);
        let (p50, p95) = (total.map(|total| total.p50), total.map(|total| total.p95));
        let lost = report.as_ref().map_or(0, |report| report.blocks.lost);
        let sla = report
            .as_ref()
            .map_or("none", |report| report.statistics.sla.name());
        let verdict = report
            .as_ref()
            .map_or("", |report| &report.statistics.verdict.text);
        let _ = writeln!(
            out,
            "<td>{}</td><td>{}</td><td>{lost}</td><td class=\"{sla}\">{sla}</td><td \
             class=\"w\">{}</td></tr>",
            cell(p50),
            cell(p95),
            escape(&arrows(verdict))
        );
    }
    out.push_str("</tbody></table></div>\n</main>\n");
    foot(Page::Live, &mut out);
    out
}

/// Returns a value for the query of a URL.
fn query(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn foot(page: Page, out: &mut String) {
    // Writing to a String cannot fail, here and elsewhere.
    let _ = writeln!(
        out,
        "<footer>{} {}. Times are host times: from the read that brought a block to the write \
         that passed it on.</footer>",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION")
    );
    if page == Page::Live {
        let _ = writeln!(out, "<script>{SCRIPT}</script>");
    }
    out.push_str("</body>\n</html>\n");
}

fn head(title: &str, page: Page, out: &mut String) {
    let live = match page {
        Page::File => String::new(),
        Page::Live => format!("; script-src 'sha256-{SCRIPT_HASH}'; connect-src 'self'"),
    };
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'; \
         img-src data:; base-uri 'none'; form-action 'none'{live}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" \
         content=\"no-referrer\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{} - {}</title>\n<style>{STYLE}</style>\n",
        escape(title),
        env!("CARGO_PKG_NAME")
    );
    if page == Page::Live {
        out.push_str("<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>\n");
    }
    out.push_str("</head>\n<body>\n");
    if page == Page::Live {
        out.push_str("<p id=\"stale\" hidden>No answer: what stands here is old.</p>\n");
    }
}

/// Writes the verdict in words, its reason and its confidence.
fn answer(report: &Report, out: &mut String) {
    let verdict = &report.statistics.verdict;
    let class = match verdict.kind {
        _ if report.statistics.round_trip.is_none() && report.statistics.hosts.is_empty() => {
            "nothing"
        }
        VerdictKind::None => "good",
        _ => "named",
    };
    // Beyond a limit is never good, whatever the verdict.
    let class = match report.statistics.sla {
        state @ (Sla::Warning | Sla::Critical) if class == "good" => state.name(),
        _ => class,
    };
    let path = report
        .path
        .nodes
        .iter()
        .map(|node| report.name_at(node.hop));
    let path: Vec<_> = path.map(|name| escape(&name)).collect();
    let path = match path.is_empty() {
        true => format!("{}, no path seen", escape(&report.role)),
        false => path.join(" \u{2192} "),
    };
    // Without a change, the place of the largest delay is more useful.
    let largest = report.largest_text();
    let (headline, second) = match (largest, verdict.kind) {
        (Some(largest), VerdictKind::None) => (largest, Some(verdict.text.clone())),
        (largest, _) => (verdict.text.clone(), largest),
    };
    let _ = writeln!(
        out,
        "<header class=\"{class}\"><p class=\"soft\">{path}</p>\n<h1>{}</h1>",
        escape(&arrows(&sentence(&headline)))
    );
    if let Some(second) = second {
        let _ = writeln!(out, "<p>{}</p>", escape(&arrows(&sentence(&second))));
    }
    if let Some(cause) = &verdict.cause {
        let _ = writeln!(out, "<p><b>Cause:</b> {}</p>", escape(cause));
    }
    let beyond = report.limits.iter().filter(|limit| limit.state > Sla::Ok);
    for limit in beyond.take(MOST_LIMITS) {
        let place = report.part_name(limit.part);
        let _ = writeln!(
            out,
            "<p class=\"{}\"><b>{}:</b> {}</p>",
            limit.state.name(),
            escape(&arrows(&place)),
            escape(&limit.to_string())
        );
    }
    let confidence = match verdict.confidence {
        Confidence::High => "high",
        Confidence::Low => "low",
    };
    let _ = write!(
        out,
        "<p class=\"soft\">Confidence {confidence}: {}</p>",
        escape(&arrows(&verdict.reason))
    );
    if !verdict.doubts.is_empty() {
        let doubts = verdict.doubts.join("; ");
        let _ = write!(
            out,
            "<p class=\"soft\">But: {}</p>",
            escape(&arrows(&doubts))
        );
    }
    out.push_str("</header>\n");
}

fn counts(report: &Report, out: &mut String) {
    let blocks = &report.blocks;
    let mut keys: Vec<(&str, &str, String)> = Vec::new();
    if let Some(total) = report.statistics.round_trip {
        keys.push(("Round trip, median", "", span(total.p50)));
        keys.push(("95th percentile", "", span(total.p95)));
        keys.push(("Greatest", "", span(total.max)));
    }
    keys.push((
        "Answered",
        "",
        format!("{} of {}", blocks.received, blocks.sent),
    ));
    let share = blocks.loss();
    let share = share.map_or_else(String::new, |loss| format!(" ({})", text::percent(loss)));
    let lost = if blocks.missing() > 0 { "critical" } else { "" };
    keys.push(("Lost", lost, format!("{}{share}", blocks.missing())));
    for (name, count) in [
        ("Unsent", blocks.unsent),
        ("Late", blocks.late),
        ("Duplicate", blocks.duplicate),
    ] {
        if count > 0 {
            keys.push((name, "warning", count.to_string()));
        }
    }
    if report.statistics.sla != Sla::None {
        let state = report.statistics.sla.name();
        keys.push(("SLA", state, state.to_owned()));
    }
    keys.push(("Began", "", moment(report.started)));
    let lasted = (report.ended - report.started).0 as f64;
    keys.push(("Lasted", "", lasting(lasted)));
    out.push_str("<dl class=\"keys\">");
    for (name, class, value) in keys {
        let class = match class {
            "" => String::new(),
            class => format!(" class=\"{class}\""),
        };
        let _ = write!(
            out,
            "<div><dt>{name}</dt><dd{class}>{}</dd></div>",
            escape(&value)
        );
    }
    out.push_str("</dl>\n");
}

/// Writes the table of the text report, in milliseconds.
fn table(report: &Report, out: &mut String) {
    if report.statistics.hosts.is_empty() && report.statistics.round_trip.is_none() {
        return;
    }
    out.push_str(
        "<section><h2>All figures</h2>\n<p class=\"hint\">Times in milliseconds. Share: of the \
         sum of all totals. Avg: over all blocks, so that it adds up. Incr: over the baseline, \
         see the notes. Dir: the direction in which a segment queues. Retr: segments \
         that TCP sent again, forward/return.</p>\n\
         <div class=\"scroll\"><table><thead><tr><th>Part</th>",
    );
    for (name, ..) in &COLUMNS {
        let _ = write!(out, "<th>{name}</th>");
    }
    let rows = text::rows(report);
    let state = |row: &text::Row| Some(row.sla).filter(|sla| *sla != Sla::None);
    let limited = rows.iter().any(|row| state(row).is_some());
    let resent = rows.iter().any(|row| row.retransmits.is_some());
    out.push_str("<th>Share</th><th>Incr</th><th>Dir</th>");
    out.push_str(if resent { "<th>Retr</th>" } else { "" });
    out.push_str(if limited { "<th>SLA</th>" } else { "" });
    out.push_str("</tr></thead><tbody>\n");
    let beyond = rows.len().saturating_sub(MOST_ROWS);
    for row in rows.into_iter().take(MOST_ROWS) {
        let name = row.name.to_string();
        let class = match name.as_str() {
            _ if row.is_named => " class=\"named\"",
            "total" => " class=\"total\"",
            _ => "",
        };
        let _ = write!(out, "<tr{class}><th>{}</th>", escape(&arrows(&name)));
        for (_, figure, _) in &COLUMNS {
            let cell = row.figures.as_ref().map(figure);
            let cell = cell.map_or_else(text::unknown, |cell| text::millis(cell, FIGURE));
            let _ = write!(out, "<td>{cell}</td>");
        }
        let (share, increase) = row.growth.unwrap_or_default();
        let share = share.map_or_else(String::new, text::percent);
        let increase = increase.map_or_else(String::new, text::signed_millis);
        let direction = row.direction.unwrap_or("");
        let _ = write!(
            out,
            "<td>{share}</td><td>{increase}</td><td>{direction}</td>"
        );
        if resent {
            let _ = write!(out, "<td>{}</td>", row.retransmits.as_deref().unwrap_or(""));
        }
        if limited {
            let sla = state(&row).map_or("", Sla::name);
            let _ = write!(out, "<td class=\"{sla}\">{sla}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>");
    left_out(beyond, "rows", out);
    out.push_str("</section>\n");
}

fn notes(report: &Report, out: &mut String) {
    let notes = text::notes(report);
    if notes.is_empty() {
        return;
    }
    out.push_str("<section><h2>Notes</h2>\n<ul>");
    for note in notes.iter().take(MOST_ROWS) {
        let _ = write!(out, "<li>{}</li>", escape(&arrows(note)));
    }
    out.push_str("</ul>");
    left_out(notes.len().saturating_sub(MOST_ROWS), "notes", out);
    out.push_str("</section>\n");
}

fn nodes(report: &Report, out: &mut String) {
    if report.path.nodes.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Nodes</h2>\n<div \
         class=\"scroll\"><table><thead><tr><th>Node</th><th>Hop</th><th class=\"l\">Role</th>\
         <th class=\"l\">Address</th><th>Connect</th><th class=\"w\">Tags</th><th \
         class=\"l\">Id</th></tr></thead><tbody>\n",
    );
    let nodes = &report.path.nodes;
    for node in nodes.iter().take(MOST_ROWS) {
        let tags: Vec<_> = node.tags.iter().map(|tag| escape(tag)).collect();
        let connect = node
            .connect
            .map_or_else(text::unknown, |took| time(took.0 as f64));
        let _ = writeln!(
            out,
            "<tr><th>{}</th><td>{}</td><td class=\"l\">{}</td><td \
             class=\"l\">{}</td><td>{connect}</td><td class=\"w\">{}</td>\
             <td class=\"l\">{:016x}</td></tr>",
            escape(&report.name_at(node.hop)),
            node.hop,
            escape(&node.role),
            escape(node.address.as_deref().unwrap_or("-")),
            tags.join(", "),
            node.id
        );
    }
    out.push_str("</tbody></table></div>");
    left_out(nodes.len().saturating_sub(MOST_ROWS), "nodes", out);
    out.push_str("</section>\n");
}

/// States how many parts of a table are missing, if any are.
fn left_out(count: usize, what: &str, out: &mut String) {
    if count > 0 {
        let _ = write!(
            out,
            "<p class=\"soft\">{count} more {what} are left out to keep the page small; --format \
             json \
             has all.</p>"
        );
    }
}

/// `->` as the arrow that it stands for.
fn arrows(text: &str) -> String {
    text.replace("->", "\u{2192}")
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

/// `2026-11-21 09:30:00 UTC`
fn moment(at: WallTime) -> String {
    let text = at.to_string();
    let text = text.get(..19).unwrap_or(&text);
    format!("{} UTC", text.replace('T', " "))
}

/// `99.4 s`, `12 min 5 s`, `3 h 12 min`
fn lasting(ns: f64) -> String {
    let seconds = (ns / 1e9).max(0.0);
    if seconds < 120.0 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds as u64;
    match seconds / 3600 {
        0 => format!("{} min {} s", seconds / 60, seconds % 60),
        hours if hours < 100 => format!("{hours} h {} min", seconds / 60 % 60),
        hours => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::AnnotationValue;
    use crate::measure::timeline::{EventKind, Slot, Timeline, TimelineEvent};
    use crate::measure::Part;
    use crate::report::tests::samples;
    use crate::time::Nanos;

    /// Checks that tags are closed in order, attributes quoted and no `<` or `&` loose; returns the
    /// tags that were opened.
    fn balanced(page: &str) -> Vec<String> {
        const VOID: [&str; 4] = ["meta", "link", "br", "!DOCTYPE"];
        let (mut open, mut all) = (Vec::new(), Vec::new());
        let mut rest = page;
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            let raw = open
                .last()
                .is_some_and(|tag| tag == "style" || tag == "script");
            assert!(raw || !text.contains('>'), "a loose > in {text:?}");
            for (at, _) in text.match_indices('&').filter(|_| !raw) {
                let entity = text[at + 1..].split(';').next().unwrap_or("");
                assert!(
                    ["amp", "lt", "gt", "quot", "#39"].contains(&entity),
                    "{entity:?} in {text:?}"
                );
            }
            let end = rest[at..].find('>').expect("a tag ends") + at;
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "closed out of order");
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert!(!tag.contains('<'), "{tag}");
            let name = tag.split([' ', '/']).next().unwrap_or(tag).to_owned();
            if !VOID.contains(&name.as_str()) && !tag.ends_with('/') {
                open.push(name.clone());
            }
            all.push(name);
        }
        assert_eq!(open, [""; 0], "left open");
        all
    }

    /// A random report with random pictures: values of any size and sign.
    fn with_pictures(seed: u64) -> Report {
        let mut report = samples::random(seed);
        let mut random = samples::Random(seed);
        for segment in &mut report.statistics.segments {
            (0..random.below(50)).for_each(|_| segment.distribution.record(random.span()));
        }
        (0..random.below(50)).for_each(|_| report.statistics.distribution.record(random.span()));
        let slots = 1 + random.below(160);
        let mut line = || -> Vec<Option<Slot>> {
            let slot = |random: &mut samples::Random| Slot {
                count: 1,
                min: random.span(),
                p50: random.span(),
                p95: random.span(),
                max: random.span(),
            };
            (0..slots).map(|_| random.maybe(slot)).collect()
        };
        let timeline = Timeline {
            total: line(),
            segments: report.statistics.segments.iter().map(|_| line()).collect(),
            hosts: report.statistics.hosts.iter().map(|_| line()).collect(),
            others: report
                .statistics
                .parts
                .iter()
                .map(|of| (of.part, line()))
                .collect(),
            start: WallTime(random.next() >> random.below(64)),
            slot: Nanos(1 + (random.next() >> random.below(64))),
            events: vec![
                TimelineEvent {
                    at: WallTime(random.next()),
                    kind: EventKind::ClockStep(3),
                },
                TimelineEvent {
                    at: report.started,
                    kind: EventKind::Notice(random.name()),
                },
            ],
        };
        report.timeline = (seed % 5 > 0).then_some(timeline);
        report
    }

    #[test]
    fn whatever_the_figures_and_names_the_page_is_well_formed_and_its_numbers_are_numbers() {
        for seed in 0..300 {
            let report = with_pictures(seed);
            let page = render(
                &report,
                if seed % 2 == 0 {
                    Page::File
                } else {
                    Page::Live
                },
            );
            let checked = std::panic::catch_unwind(|| balanced(&page));
            assert!(checked.is_ok(), "seed {seed}");
            let body = page.split_once("</style>").expect("a style").1;
            for attribute in ["width", "height", "x", "x1", "x2", "y", "y1", "y2", "d"] {
                for value in body.split(&format!(" {attribute}=\"")).skip(1) {
                    let value = value.split('"').next().unwrap_or(value);
                    let words = ["NaN", "inf", "e+", "--"];
                    assert!(
                        !words.iter().any(|word| value.contains(word)),
                        "seed {seed}: {attribute}={value}"
                    );
                    let negative = value.starts_with('-');
                    assert!(!negative, "seed {seed}: {attribute}={value}");
                }
            }
        }
    }

    #[test]
    fn nothing_that_a_peer_writes_becomes_markup() {
        let hostile =
            "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u{202e}";
        let mut report = samples::full();
        for node in &mut report.path.nodes {
            node.name = hostile.to_owned();
            node.role = hostile.to_owned();
            node.tags = vec![hostile.to_owned()];
            node.address = Some(hostile.to_owned());
        }
        report.role = hostile.to_owned();
        report.notices = vec![hostile.to_owned()];
        let verdict = &mut report.statistics.verdict;
        (verdict.name, verdict.text) = (hostile.to_owned(), hostile.to_owned());
        (verdict.reason, verdict.cause) = (hostile.to_owned(), Some(hostile.to_owned()));
        for annotation in &mut report.annotations[0].annotations {
            annotation.name = hostile.to_owned();
            annotation.value = AnnotationValue::Text(hostile.to_owned());
        }
        let page = render(&report, Page::File);
        let tags = balanced(&page);
        assert!(
            !tags.iter().any(|tag| tag == "script" || tag == "img"),
            "{tags:?}"
        );
        assert!(!page.contains('\u{202e}'));
        assert!(page.matches("&lt;/style&gt;").count() > 10);
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = render(&samples::full(), Page::File);
        for word in ["http://", "https://", " src=", "@import", "url(", "<script"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_answer_comes_first_and_what_it_names_has_its_colour_in_every_picture() {
        let mut report = samples::full();
        let slot = |ms: i64| Slot {
            count: 5,
            min: SignedNanos::from_millis(ms / 2),
            p50: SignedNanos::from_millis(ms),
            p95: SignedNanos::from_millis(ms * 2),
            max: SignedNanos::from_millis(ms * 3),
        };
        report.timeline = Some(Timeline {
            start: report.started,
            slot: Nanos::from_millis(500),
            total: vec![Some(slot(3)); 9],
            segments: vec![vec![Some(slot(2)); 9]; 3],
            hosts: vec![vec![Some(slot(1)); 9]; 4],
            others: Default::default(),
            events: vec![TimelineEvent {
                at: report.started,
                kind: EventKind::ClockStep(2),
            }],
        });
        for segment in &mut report.statistics.segments {
            segment.distribution.record(SignedNanos::from_millis(2));
        }
        let page = render(&report, Page::File);
        balanced(&page);
        let answer = page
            .find("B \u{2192} C adds 2.31 ms")
            .expect("the verdict's sentence");
        assert!(answer < page.find("<section>").expect("pictures"));
        assert!(page.contains("Confidence low: p95 of 8 x 8"));
        // In the waterfall, over time, among the distributions.
        assert_eq!(
            page.matches("<div class=\"row named\"><div class=\"n\">B \u{2192} C</div>")
                .count(),
            3
        );
        assert!(page.contains("<tr class=\"named\"><th>B \u{2192} C</th>"));
        assert!(page.contains("clock step at C"));
        assert!(page.contains("<dd class=\"critical\">critical</dd>"));
    }

    #[test]
    fn a_run_without_an_answer_has_no_pictures() {
        let page = render(&samples::empty(), Page::File);
        let tags = balanced(&page);
        assert!(page.contains("Nothing was measured") && page.contains("connection refused"));
        assert!(
            !tags.iter().any(|tag| tag == "svg" || tag == "table"),
            "{tags:?}"
        );
    }

    #[test]
    fn a_page_of_a_very_long_path_is_still_small() {
        let mut report = samples::full();
        let (segment, host) = (
            report.statistics.segments[1].clone(),
            report.statistics.hosts[1].clone(),
        );
        let hops = 0..64_u8;
        report.statistics.segments = hops
            .clone()
            .skip(1)
            .map(|hop| {
                let mut segment = segment.clone();
                (segment.from_hop, segment.to_hop) = (hop - 1, hop);
                segment.share = Some(f64::from(hop) / 2016.0);
                (0..2000)
                    .for_each(|value| segment.distribution.record(SignedNanos(1 << (value % 40))));
                segment
            })
            .collect();
        report.statistics.hosts = hops
            .map(|hop| crate::measure::HostStatistics {
                hop,
                ..host.clone()
            })
            .collect();
        let slot = |place: i64| Slot {
            count: 5,
            min: SignedNanos(place * 1_000_001),
            p50: SignedNanos(place * 2_000_003),
            p95: SignedNanos(place * 3_000_007),
            max: SignedNanos(place * 9_000_007),
        };
        let line: Vec<_> = (1..=160).map(|place| Some(slot(place))).collect();
        report.timeline = Some(Timeline {
            start: report.started,
            slot: Nanos::from_millis(500),
            total: line.clone(),
            segments: vec![line.clone(); 63],
            hosts: vec![line; 64],
            others: Default::default(),
            events: Vec::new(),
        });
        let page = render(&report, Page::File);
        assert!(page.len() < 200_000, "{} bytes", page.len());
        assert!(page.contains("Not drawn"));
    }

    #[test]
    fn each_picture_has_a_row_for_a_connect_and_for_what_lies_behind_the_last_node() {
        let mut report = samples::full();
        let connect = Part::Connect { from: 1, to: 2 };
        let lines = [connect, Part::Behind(3)].map(|part| {
            let mut of = samples::part(part, 700_000, Some(0.1));
            of.distribution.record(SignedNanos(700_000));
            report.statistics.parts.push(of);
            let value = SignedNanos(700_000);
            let slot = Slot {
                count: 5,
                min: value,
                p50: value,
                p95: value,
                max: value,
            };
            (part, vec![Some(slot); 4])
        });
        let hosts = vec![lines[0].1.clone(); 4];
        report.timeline = Some(Timeline {
            start: report.started,
            slot: Nanos::from_millis(500),
            total: lines[0].1.clone(),
            segments: hosts[1..].to_vec(),
            hosts,
            others: lines.into_iter().collect(),
            events: Vec::new(),
        });
        let page = render(&report, Page::File);
        for picture in ["The path, to scale", "Over time", "How delays are"] {
            let (_, section) = page.split_once(picture).expect(picture);
            let section = section.split("</section>").next().unwrap_or_default();
            let row = |name: &str| {
                let at = section.find(&format!(">{name}<"));
                at.unwrap_or_else(|| panic!("{picture}: no {name} in {section}"))
            };
            assert!(
                row("A \u{2192} B") < row("connect B \u{2192} C"),
                "{picture}"
            );
            assert!(
                row("connect B \u{2192} C") < row("B \u{2192} C"),
                "{picture}"
            );
            assert!(row("C \u{2192} Z") < row("behind Z"), "{picture}");
        }
    }
}
