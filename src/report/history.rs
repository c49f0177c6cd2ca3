//! A state in; what it has of each part, out (`state FILE show`).

use super::json::write::{Array, Object, Writer};
use crate::measure::baseline::{path_nodes, PathHistory};
use crate::measure::change::{Began, RunHistory, When};
use crate::measure::{Part, RunHistories};
use crate::time::SignedNanos;
use crate::vec_map::VecMap;

/// The value of `schema` in the JSON of a state.
const SCHEMA: &str = "subsegment-tcp-speeds/state/2";

/// A part in a state.
struct Row {
    part: Part,
    name: String,
    /// Accepted runs.
    runs: usize,
    /// Records that have the part.
    records: usize,
    /// The median of its records' medians, or of its runs'.
    p50: Option<SignedNanos>,
    /// A change that lasts: amount and beginning.
    change: Option<(SignedNanos, Began)>,
}

fn rows(key: &str, path: &PathHistory, now: When) -> Vec<Row> {
    let nodes = path_nodes(key);
    let node = |hop: u8| {
        let known = nodes.iter().find(|(known, _)| *known == hop);
        known.map_or_else(|| format!("hop {hop}"), |(_, name)| name.clone())
    };
    let mut parts: Vec<Part> = path
        .parts
        .keys()
        .chain(path.watches.keys())
        .copied()
        .collect();
    let records = path.records.iter().flat_map(|record| record.parts.iter());
    parts.extend(records.map(|(part, _)| part));
    parts.sort_unstable();
    parts.dedup();
    let row = |part: Part| {
        let records = path
            .records
            .iter()
            .filter_map(|record| record.parts.get(&part));
        let mut medians: Vec<SignedNanos> = records.map(|part| part.p50).collect();
        let records = medians.len();
        let runs = path.parts.get(&part);
        if medians.is_empty() {
            let usual = runs.into_iter().flat_map(|runs| runs.usual());
            medians.extend(usual.map(|run| run.p50));
        }
        medians.sort_unstable();
        let lasting = runs.and_then(|runs| runs.lasting());
        let began = |runs: &RunHistory| runs.began(now.wall);
        let lasting =
            lasting.map(|lasting| (lasting.amount, runs.map_or_else(Began::default, began)));
        let lasts = path.watches.get(&part).and_then(|watch| watch.lasts());
        let lasts = lasts.map(|lasts| (lasts.amount, path.began(lasts.since, now)));
        Row {
            part,
            name: part.name(&node, nodes.last().map(|(hop, _)| *hop)),
            runs: runs.map_or(0, |runs| runs.usual().len()),
            records,
            p50: medians.get(medians.len() / 2).copied(),
            change: lasts.or(lasting),
        }
    };
    parts.into_iter().map(row).collect()
}

/// The parts of all paths, each with its names.
pub fn parts(state: &RunHistories) -> VecMap<Part, Vec<String>> {
    let mut parts: VecMap<Part, Vec<String>> = VecMap::new();
    for (key, path) in &state.paths {
        for row in rows(key, path, When::default()) {
            let names = parts.get_or_insert_with(row.part, Vec::new);
            if !names.contains(&row.name) {
                names.push(row.name);
            }
        }
    }
    parts
}

/// For people. `bytes` is the size of the file.
pub fn text(state: &RunHistories, bytes: u64, now: When) -> String {
    let mut text = format!(
        "paths: {}, {} KiB\n",
        state.paths.len(),
        bytes.div_ceil(1024)
    );
    for (key, path) in &state.paths {
        let names = path_nodes(key).into_iter();
        let names: Vec<String> = names
            .map(|(_, name)| name.escape_debug().to_string())
            .collect();
        let span = match (path.records.first(), path.records.last()) {
            (Some(first), Some(last)) => format!(
                "records: {}, {} to {}",
                path.records.len(),
                first.when.wall,
                last.when.wall
            ),
            _ => "records: none".to_owned(),
        };
        text += &format!("\npath {}; {span}\n", names.join(", "));
        for row in rows(key, path, now) {
            let p50 = row.p50.map_or_else(|| "-".to_owned(), ms);
            text += &format!(
                "  {}: p50 {p50} ms, runs {}, records {}",
                row.name.escape_debug(),
                row.runs,
                row.records
            );
            if let Some((amount, began)) = row.change {
                let sign = if amount.0 < 0 { "" } else { "+" };
                text += &format!("; changed by {sign}{} ms", ms(amount));
                match began {
                    Began {
                        since: Some(since), ..
                    } => text += &format!(" since {since}"),
                    Began {
                        at_most: Some(at_most),
                        ..
                    } => {
                        text += &format!(" since before {at_most}");
                    }
                    Began { .. } => {}
                }
                text += ", not accepted";
            }
            text.push('\n');
        }
    }
    text
}

fn ms(delay: SignedNanos) -> String {
    format!("{:.3}", delay.as_millis_f64())
}

/// The same as one JSON object.
pub fn json(state: &RunHistories, bytes: u64, now: When) -> String {
    let mut text = Writer::indented(4).finish(Object(|w| {
        w.pair("schema", SCHEMA);
        w.pair("bytes", bytes);
        let paths = state.paths.iter().map(|(key, path)| {
            Object(move |w: &mut Writer| {
                w.pair("path", key);
                w.pair("records", path.records.len() as u64);
                w.pair("first", path.records.first().map(|record| record.when.wall));
                w.pair("last", path.records.last().map(|record| record.when.wall));
                let rows = rows(key, path, now).into_iter().map(|row| {
                    Object(move |w: &mut Writer| {
                        w.pair("part", row.part.to_string().as_str());
                        w.pair("name", row.name.as_str());
                        w.pair("runs", row.runs as u64);
                        w.pair("records", row.records as u64);
                        w.pair("p50_ns", row.p50);
                        w.pair("change_ns", row.change.map(|(amount, _)| amount));
                        let began = row.change.map(|(_, began)| began).unwrap_or_default();
                        w.pair("since", began.since);
                        w.pair("since_at_most", began.at_most);
                    })
                });
                w.pair("parts", Array(rows));
            })
        });
        w.pair("paths", Array(paths));
    }));
    text.push('\n');
    text
}

/// The parts whose change was accepted, for people.
pub fn accepted_text(accepted: &[(String, Part)]) -> String {
    if accepted.is_empty() {
        return "nothing to accept: no change lasts\n".to_owned();
    }
    let lines = accepted.iter().map(|(key, part)| {
        let name = name(key, *part);
        format!("accepted: {} (path {key})\n", name.escape_debug())
    });
    lines.collect()
}

/// The same as one JSON object.
pub fn accepted_json(accepted: &[(String, Part)]) -> String {
    let mut text = Writer::indented(2).finish(Object(|w| {
        let parts = accepted.iter().map(|(key, part)| {
            Object(move |w: &mut Writer| {
                w.pair("path", key);
                w.pair("part", part.to_string().as_str());
                w.pair("name", name(key, *part).as_str());
            })
        });
        w.pair("accepted", Array(parts));
    }));
    text.push('\n');
    text
}

fn name(key: &str, part: Part) -> String {
    let nodes = path_nodes(key);
    let name = |hop| {
        let known = nodes.iter().find(|(known, _)| *known == hop);
        known.map_or_else(|| format!("hop {hop}"), |(_, name)| name.clone())
    };
    part.name(&name, nodes.last().map(|(hop, _)| *hop))
}
