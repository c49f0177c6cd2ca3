//! Turns a [`Report`] into the line of a monitoring plugin (`--format nagios`).
//!
//! ```text
//! STS CRITICAL - B -> C: critical, round_trip p95 7.3 ms, limit 5 ms (line 3);
//! 99 of 100 answered, p50 2.1 ms, p95 7.4 ms; ... | 'total_p95'=0.0073s;0.1;0.2;0; ...
//! ```
//!
//! Read the Monitoring Plugins Development Guidelines, "Performance data" first:
//! `'label'=value[unit];[warn];[crit];[min];[max]`. Delays are in seconds (`s`), loss in `%`; an
//! unknown value is `U`. A limit `0.1` alerts above 0.1, and below 0. Every part of the path has
//! its median and 95th percentile, a host with two ways each of them; every limit has its value.
//!
//! Names are written by peers: `|`, `'`, `=` and what steers a terminal do not get into the line.

use super::{printable, Report, State};
use crate::measure::sla::{Amount, LimitState, RuleFigure, Statistic};
use crate::measure::{Part, Sla, Summary};
use crate::time::SignedNanos;
use crate::vec_map::VecMap;
use std::fmt::Write as _;

/// Limits that are written in words; all of them are in the performance data.
const IN_WORDS: usize = 3;

/// Returns the line, with its line feed.
pub fn render(report: &Report) -> String {
    let state = report.state().name();
    let beyond = report.limits.iter().filter(|limit| limit.state > Sla::Ok);
    let mut beyond: Vec<_> = beyond.collect();
    beyond.sort_by_key(|limit| std::cmp::Reverse(limit.state));
    let mut texts: Vec<String> = beyond
        .iter()
        .take(IN_WORDS)
        .map(|limit| format!("{}: {limit}", report.part_name(limit.part)))
        .collect();
    if beyond.len() > IN_WORDS {
        texts.push(format!("{} limits more", beyond.len() - IN_WORDS));
    }
    match &report.broken {
        Some(broken) => texts.insert(0, broken.text.clone()),
        None if report.blocks.received == 0 => {
            texts.insert(0, report.notices.last().cloned().unwrap_or_default());
        }
        None => {}
    }
    texts.extend(answered(report));
    let verdict = &report.statistics.verdict;
    // The fault that broke the path stands there already.
    if report.broken.is_none() {
        texts.push(verdict.text.clone());
    }
    texts.extend(report.largest_text());
    texts.extend(verdict.cause.iter().map(|cause| format!("why: {cause}")));
    if report.broken.is_none() && report.blocks.received > 0 {
        // A rule that matches no part for one: it would never alarm.
        texts.extend(report.notices.iter().take(IN_WORDS).cloned());
    }
    texts.retain(|text| !text.is_empty());
    format!(
        "STS {state} - {} | {}\n",
        clean(&texts.join("; ")),
        performance(report).join(" ")
    )
}

/// Returns loss and delay, as check_ping begins its text; `None` if there was no answer.
fn answered(report: &Report) -> Option<String> {
    let (blocks, total) = (&report.blocks, report.statistics.round_trip?);
    let [p50, p95] = [Statistic::P50, Statistic::P95].map(|which| Amount::Span(of(&total, which)));
    let (received, sent) = (blocks.received, blocks.sent);
    Some(format!(
        "{received} of {sent} answered, p50 {p50}, p95 {p95}"
    ))
}

/// Returns the line of a run that could not begin.
pub fn failure(state: State, text: &str) -> String {
    format!("STS {} - {}\n", state.name(), clean(text))
}

/// Returns text that ends neither the line nor its first half.
fn clean(text: &str) -> String {
    printable(text).replace('|', "/")
}

/// The part, the figure and the statistic of a value.
type Key = (Part, RuleFigure, Option<Statistic>);

const USUAL: [Statistic; 2] = [Statistic::P50, Statistic::P95];

fn performance(report: &Report) -> Vec<String> {
    let statistics = &report.statistics;
    let mut values: Vec<(Key, Option<Amount>)> = Vec::new();
    let mut add = |place, figure, summary: Option<Summary>, which: &[Statistic]| {
        values.extend(which.iter().map(|&statistic| {
            let value = summary.map(|summary| Amount::Span(of(&summary, statistic)));
            ((place, figure, Some(statistic)), value)
        }));
    };
    let total = [
        Statistic::Mean,
        Statistic::P50,
        Statistic::P95,
        Statistic::P99,
    ];
    add(
        Part::Total,
        RuleFigure::RoundTrip,
        statistics.round_trip,
        &total,
    );
    for segment in &statistics.segments {
        let place = Part::Segment {
            from: segment.from_hop,
            to: segment.to_hop,
        };
        add(place, RuleFigure::RoundTrip, segment.round_trip, &USUAL);
    }
    // Both ways together have no summary of their own; where there is one way it is the whole.
    let (one_way, both_ways): (Vec<_>, Vec<_>) = statistics
        .hosts
        .iter()
        .partition(|host| host.return_residence.is_none());
    for host in one_way {
        let place = Part::Host(host.hop);
        add(place, RuleFigure::Residence, host.forward_residence, &USUAL);
    }
    let loss = report.blocks.loss().map(Amount::Share);
    values.push(((Part::Total, RuleFigure::Loss, None), loss));
    for limit in &report.limits {
        if !values.iter().any(|(key, _)| *key == key_of(limit)) {
            values.push((key_of(limit), limit.value));
        }
    }
    let mut entries: Vec<_> = values
        .into_iter()
        .map(|(key, value)| entry(report, key, value))
        .collect();
    for host in both_ways {
        let name = report.name_at(host.hop);
        for (way, summary) in [
            ("forward", host.forward_residence),
            ("return", host.return_residence),
        ] {
            entries.extend(unlimited(&format!("{name}_{way}"), summary));
        }
    }
    for of in &statistics.parts {
        if let Part::Connect { .. } | Part::Behind(_) = of.part {
            let name = report.part_name(of.part).replace(" -> ", "->");
            entries.extend(unlimited(&name, of.delay));
        }
    }
    if let Some(summary) = statistics.behind_exit {
        entries.extend(unlimited("behind_exit", Some(summary)));
    }
    number_alike(&mut entries);
    entries
}

/// Numbers labels that are alike, as those of two nodes with one name are: a monitoring system
/// keeps one value per label.
fn number_alike(entries: &mut [String]) {
    let mut known: VecMap<String, usize> = VecMap::new();
    for entry in entries {
        let Some(end) = entry.find("'=") else {
            continue;
        };
        let label = entry[1..end].to_owned();
        let mut number = known.get(&label).copied().unwrap_or(0) + 1;
        if number > 1 {
            let mut name = format!("{label}_{number}");
            while known.get(&name).is_some() {
                number += 1;
                name = format!("{label}_{number}");
            }
            entry.replace_range(1..end, &name);
            known.insert(name, 1);
        }
        known.insert(label, number);
    }
}

/// Returns the entries of a summary that no limit is about.
fn unlimited(label: &str, summary: Option<Summary>) -> [String; 2] {
    USUAL.map(|statistic| {
        let value = summary.map(|summary| plain(number(Amount::Span(of(&summary, statistic)))));
        let value = value.map_or_else(|| "U".to_owned(), |value| value + "s");
        format!("'{}_{}'={value};;;0;", clean_label(label), statistic.word())
    })
}

/// Returns a label without the characters that have a meaning in performance data.
fn clean_label(label: &str) -> String {
    let label = printable(label);
    label
        .chars()
        .map(|c| if "|'=".contains(c) { '_' } else { c })
        .collect()
}

fn key_of(limit: &LimitState) -> Key {
    (limit.part, limit.figure, limit.statistic)
}

fn entry(report: &Report, key: Key, value: Option<Amount>) -> String {
    let (place, figure, statistic) = key;
    let place = match place {
        Part::Segment { from, to } => {
            format!("{}->{}", report.name_at(from), report.name_at(to))
        }
        place => report.part_name(place),
    };
    let usual = matches!(figure, RuleFigure::RoundTrip | RuleFigure::Residence);
    let figure = Some(figure.word()).filter(|_| !usual || statistic.is_none());
    let words = figure.into_iter().chain(statistic.map(Statistic::word));
    let label = clean_label(&(place + "_" + &words.collect::<Vec<_>>().join("_")));
    let limit = |severity| {
        let own = report.limits.iter().filter(|limit| {
            key_of(limit) == key && limit.severity == severity && limit.limit.is_some()
        });
        let least = own.filter_map(|limit| limit.limit.map(number));
        let least = least.reduce(f64::min);
        least.map_or_else(String::new, plain)
    };
    let (unit, most) = match value {
        Some(Amount::Share(_)) => ("%", "100"),
        Some(Amount::Count(_)) => ("", ""),
        Some(Amount::Span(_)) | None => ("s", ""),
    };
    let mut text = format!("'{label}'=");
    // Writing to a String cannot fail.
    let _ = match value {
        Some(value) => write!(text, "{}{unit}", plain(number(value))),
        None => write!(text, "U"),
    };
    let (warning, critical) = (limit(Sla::Warning), limit(Sla::Critical));
    let _ = write!(text, ";{warning};{critical};0;{most}");
    text
}

/// In seconds, in percent, or a plain count.
fn number(amount: Amount) -> f64 {
    match amount {
        Amount::Span(span) => span.0 as f64 / 1e9,
        Amount::Share(share) => share * 100.0,
        Amount::Count(count) => count,
    }
}

/// To the nanosecond, without an exponent, which parsers do not take.
fn plain(number: f64) -> String {
    let text = format!("{number:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn of(summary: &Summary, statistic: Statistic) -> SignedNanos {
    match statistic {
        Statistic::Min => summary.min,
        Statistic::Mean => summary.mean,
        Statistic::P50 => summary.p50,
        Statistic::P90 => summary.p90,
        Statistic::P95 => summary.p95,
        Statistic::P99 => summary.p99,
        Statistic::Max => summary.max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    /// An entry of performance data as a monitoring system reads it: label, value, unit, warn,
    /// crit, min, max.
    type Entry = (String, Option<f64>, String, [Option<f64>; 4]);

    /// Parses the line of a plugin by the guidelines; panics if it is none.
    fn read(line: &str) -> (String, Vec<Entry>) {
        let line = line.strip_suffix('\n').expect("a line feed ends it");
        assert!(!line.contains('\n') && !line.chars().any(char::is_control));
        let (text, data) = line.split_once('|').expect("performance data");
        let mut rest = data.trim();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (label, after) = rest[1..].split_once('\'').expect("a quoted label");
            assert!(rest.starts_with('\'') && !label.contains(['=', '|']));
            let after = after.strip_prefix('=').expect("=");
            let (entry, next) = after.split_once(' ').unwrap_or((after, ""));
            rest = next;
            let fields: Vec<_> = entry.split(';').collect();
            assert_eq!(fields.len(), 5, "{entry}");
            let numeric = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
            let end = fields[0].find(|c| !numeric(c)).unwrap_or(fields[0].len());
            let (value, unit) = fields[0].split_at(end);
            let number = |text: &str| {
                let none = text.is_empty() || text == "U";
                (!none).then(|| text.parse().unwrap_or_else(|_| panic!("{entry}: {text}")))
            };
            let ranges = [1, 2, 3, 4].map(|field| number(fields[field]));
            entries.push((label.to_owned(), number(value), unit.to_owned(), ranges));
        }
        (text.trim().to_owned(), entries)
    }

    #[test]
    fn the_line_has_state_text_values_units_and_limits() {
        let (text, entries) = read(&render(&samples::full()));
        assert!(
            text.starts_with(
                "STS CRITICAL - B -> C: critical, round_trip p95 5.258 ms, limit 5 ms (line 3); \
                 100 of 103 answered, p50 2.673 ms, p95 5.94 ms; B -> C adds"
            ),
            "{text}"
        );
        let mut report = samples::full();
        report.notices = vec!["no part of the path matches the rule: host X".to_owned()];
        let (text, _) = read(&render(&report));
        assert!(
            text.ends_with("; no part of the path matches the rule: host X"),
            "{text}"
        );
        let entry = |label: &str| {
            let found = entries.iter().find(|entry| entry.0 == label);
            let (_, value, unit, ranges) =
                found.unwrap_or_else(|| panic!("{label} in {entries:?}"));
            (value.unwrap(), unit.as_str(), *ranges)
        };
        let (zero, none) = (Some(0.0), None);
        assert_eq!(
            entry("total_mean"),
            (0.002_97, "s", [Some(0.1), none, zero, none])
        );
        assert_eq!(
            entry("B->C_p95"),
            (0.005_258, "s", [none, Some(0.005), zero, none])
        );
        let (value, unit, ranges) = entry("total_loss");
        assert!((value - 300.0 / 103.0).abs() < 1e-6, "{value}");
        assert_eq!((unit, ranges), ("%", [none, Some(20.0), zero, Some(100.0)]));
        assert_eq!(entry("A_p50").1, "s");
        // A host with two ways has both, and the server behind the exit is a part too.
        for part in ["B_forward", "B_return", "C_return", "behind_exit"] {
            for statistic in ["p50", "p95"] {
                assert_eq!(entry(&format!("{part}_{statistic}")).1, "s");
            }
        }
    }

    #[test]
    fn no_name_of_a_peer_breaks_the_line() {
        for seed in 0..200 {
            let report = samples::random(seed);
            let (text, _) = read(&render(&report));
            assert!(text.starts_with("STS "), "seed {seed}: {text}");
        }
        let mut report = samples::full();
        report.path.nodes[1].name = "x'|=1;2 y\n\u{1b}[2J".into();
        let (_, entries) = read(&render(&report));
        let named = entries.iter().filter(|entry| entry.0.contains("x___1;2 y"));
        assert!(named.count() >= 4, "{entries:?}");
    }

    #[test]
    fn every_part_has_values_and_no_two_labels_are_alike() {
        let mut report = samples::full();
        let connect = Part::Connect { from: 1, to: 2 };
        for part in [connect, Part::Behind(3)] {
            report
                .statistics
                .parts
                .push(samples::part(part, 40_000, None));
        }
        let (_, entries) = read(&render(&report));
        for label in [
            "A",
            "B_forward",
            "B->C",
            "connect B->C",
            "behind Z",
            "behind_exit",
        ] {
            let value = entries
                .iter()
                .find(|entry| entry.0 == format!("{label}_p95"));
            assert!(
                value.is_some_and(|entry| entry.1 > Some(0.0)),
                "{label}: {entries:?}"
            );
        }
        // Peers choose their names.
        for name in ["total", "A", "B_p50", "B_forward", "C"] {
            for node in &mut report.path.nodes {
                node.name = name.to_owned();
            }
            let (_, entries) = read(&render(&report));
            let mut labels: Vec<_> = entries.iter().map(|entry| &entry.0).collect();
            let count = labels.len();
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), count, "{name}: {entries:?}");
        }
        for seed in 0..200 {
            let (_, entries) = read(&render(&samples::random(seed)));
            let mut labels: Vec<_> = entries.iter().map(|entry| &entry.0).collect();
            let count = labels.len();
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), count, "seed {seed}: {entries:?}");
        }
    }

    #[test]
    fn the_error_of_a_broken_path_comes_first() {
        let mut report = samples::full();
        report.notices = vec!["B is gone".to_owned(), "no part matches".to_owned()];
        report.broken = Some(crate::report::Broken {
            state: State::Unknown,
            text: "B is gone".to_owned(),
        });
        let (text, _) = read(&render(&report));
        assert!(
            text.starts_with("STS UNKNOWN - B is gone; B -> C: "),
            "{text}"
        );
    }

    #[test]
    fn a_run_without_measurements_is_critical_and_its_values_unknown() {
        let (text, entries) = read(&render(&samples::empty()));
        assert_eq!(
            text,
            "STS CRITICAL - connect to 10.0.0.7:9000: connection refused; nothing was measured"
        );
        let unknown = ("total_p50".to_owned(), None, "U".to_owned());
        let first = &entries[1];
        assert_eq!((first.0.clone(), first.1, first.2.clone()), unknown);
    }
}
