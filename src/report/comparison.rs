//! Two reports, or two spans of a state, in; which part rose or fell, out.

use super::json::read::{parse, Value};
use super::json::write::{Array, Object, Writer};
use crate::measure::baseline::{path_key, path_nodes};
use crate::measure::change::RunFigures;
use crate::measure::compare::{Compared, RunBatch, RunSide};
use crate::measure::{Part, PathHistory, RunHistories};
use crate::time::{Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;

/// The value of `schema` in the JSON of a comparison.
const SCHEMA: &str = "subsegment-tcp-speeds/comparison/1";

/// The fewest blocks that stand for a run.
const BASELINE_BATCH: u64 = 10;

/// A report of another run, as far as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportText {
    /// Its path, as in a state.
    pub path: String,
    /// The time at which the run began.
    pub started: WallTime,
    /// The parts with their medians and batches.
    pub sides: VecMap<Part, RunSide>,
}

/// Reads a report in JSON, of this version or an earlier one that has no batches.
///
/// # Errors
///
/// A sentence that names what is missing.
pub fn parse_report(text: &str) -> Result<ReportText, String> {
    if text.starts_with("subsegment-tcp-speeds state ") {
        return Err("it is a state: compare --state FILE --before TIME --after TIME".to_owned());
    }
    let value = parse(text.as_bytes());
    let value = value.map_err(|error| format!("expected a report in JSON: {error}"))?;
    let schema = value.at("schema").and_then(Value::as_str);
    if schema != Some(super::json::SCHEMA) {
        let expected = super::json::SCHEMA;
        return Err(format!(
            "expected a report with \"schema\": {expected:?}, found {}",
            schema.map_or_else(|| "none".to_owned(), |found| format!("{found:?}"))
        ));
    }
    let missing = |key: &str| format!("the report has no {key}");
    let started = value.at("started").and_then(Value::as_str);
    let started = started.and_then(WallTime::parse);
    let array = |key: &str| {
        value
            .at(key)
            .and_then(Value::as_array)
            .ok_or_else(|| missing(key))
    };
    let hosts = array("hosts")?.iter().filter_map(|host| {
        let hop = u8::try_from(host.at("hop")?.as_u64()?).ok()?;
        Some((hop, host.at("name")?.as_str()?.to_owned(), host))
    });
    let hosts: Vec<_> = hosts.collect();
    let path = path_key(hosts.iter().map(|(hop, name, _)| (*hop, name.as_str())));
    let mut sides = VecMap::new();
    let p50 = |value: &Value| value.at("p50_ns").and_then(Value::as_i64);
    for (hop, _, host) in &hosts {
        let ways = ["forward_residence", "return_residence"].map(|key| host.at(key).and_then(p50));
        if let [Some(forward), back] = ways {
            let p50 = SignedNanos(forward.saturating_add(back.unwrap_or(0)));
            sides.insert(
                Part::Host(*hop),
                RunSide {
                    p50,
                    ..RunSide::default()
                },
            );
        }
    }
    for (pair, segment) in hosts.windows(2).zip(array("segments")?) {
        if let Some(p50) = segment.at("round_trip").and_then(p50) {
            let (from, to) = (pair[0].0, pair[1].0);
            let p50 = SignedNanos(p50);
            sides.insert(
                Part::Segment { from, to },
                RunSide {
                    p50,
                    ..RunSide::default()
                },
            );
        }
    }
    let batches = value.at("batches").and_then(Value::as_array);
    for of in batches.into_iter().flatten() {
        let (part, side) = parse_batches(of).ok_or_else(|| "its batches are damaged".to_owned())?;
        if !side.batches.is_empty() {
            sides.insert(part, side);
        }
    }
    Ok(ReportText {
        path,
        started: started.ok_or_else(|| missing("started"))?,
        sides,
    })
}

fn parse_batches(of: &Value) -> Option<(Part, RunSide)> {
    let part = Part::parse(of.at("part")?.as_str()?)?;
    let numbers = |key: &str| {
        let items = of.at(key)?.as_array()?.iter();
        items.map(Value::as_i64).collect::<Option<Vec<i64>>>()
    };
    let (counts, medians, means) = (numbers("count")?, numbers("p50_ns")?, numbers("mean_ns")?);
    let batches = counts.iter().zip(&medians).zip(&means);
    let batches = batches.map(|((count, p50), mean)| {
        Some(RunBatch {
            count: u64::try_from(*count).ok()?,
            p50: SignedNanos(*p50),
            mean: SignedNanos(*mean),
        })
    });
    let batches = batches.collect::<Option<Vec<RunBatch>>>()?;
    let mut sorted = medians;
    sorted.sort_unstable();
    let p50 = SignedNanos(sorted.get(sorted.len() / 2).copied().unwrap_or(0));
    Some((part, RunSide { p50, batches }))
}

impl ReportText {
    /// A state in which each batch stands for a run.
    ///
    /// # Errors
    ///
    /// A sentence, if the report has no batches of 10 blocks.
    pub fn baseline(&self) -> Result<RunHistories, String> {
        let mut history = PathHistory::default();
        for (part, side) in &self.sides {
            let blocks: u64 = side.batches.iter().map(|batch| batch.count).sum();
            let each = side.batches.len() as u64 * BASELINE_BATCH / blocks.max(1);
            for (at, batches) in (0..).zip(side.batches.chunks(each as usize + 1)) {
                let at = WallTime(self.started.0.saturating_add(at));
                let count: u64 = batches.iter().map(|batch| batch.count).sum();
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                let mut medians: Vec<_> = batches.iter().map(|batch| batch.p50).collect();
                medians.sort_unstable();
                let p50 = medians.get(medians.len() / 2).copied().unwrap_or_default();
                if let Some(figures) = RunFigures::of_median(at, p50, count) {
                    let runs = history.parts.get_or_insert_with(*part, Default::default);
                    runs.push_usual(figures);
                }
            }
        }
        if history.parts.is_empty() {
            let needed = "\"batches\" of 10 blocks: a run of 30 blocks or more has them";
            return Err(format!("no baseline: it lacks {needed}"));
        }
        let paths = VecMap::from([(self.path.clone(), history)]);
        Ok(RunHistories { paths })
    }
}

/// The parts of a path before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The path, as in a state.
    pub path: String,
    /// Its parts, in order.
    pub parts: Vec<Compared>,
}

impl Comparison {
    /// A part rose beyond its interval; with `above`, so that the low end exceeds that.
    pub fn has_risen(&self, above: Option<Nanos>) -> bool {
        let rose = |part: &Compared| match above {
            None => part.rose(),
            Some(above) => part.interval.is_some_and(|[low, _]| low > above.signed()),
        };
        self.parts.iter().any(rose)
    }

    fn name(&self, part: Part) -> String {
        let nodes = path_nodes(&self.path);
        let name = |hop| {
            let known = nodes.iter().find(|(known, _)| *known == hop);
            known.map_or_else(|| format!("hop {hop}"), |(_, name)| name.clone())
        };
        part.name(&name, nodes.last().map(|(hop, _)| *hop))
    }

    /// One sentence: the largest rise, else the largest fall, else that nothing changed.
    pub fn sentence(&self) -> String {
        let by = |part: &&Compared| part.difference().0;
        let largest = self.parts.iter().filter(|part| part.rose()).max_by_key(by);
        let lowest = self.parts.iter().filter(|part| part.fell()).min_by_key(by);
        let ms = |delay: SignedNanos| format!("{:.2}", delay.as_millis_f64());
        if let Some(part) = largest.or(lowest) {
            let (does, sign) = match part.rose() {
                true => ("rose", "+"),
                false => ("fell", ""),
            };
            let [low, high] = part.interval.unwrap_or_default();
            let more = self.parts.iter().filter(|part| part.rose() || part.fell());
            let more = match more.count() - 1 {
                0 => String::new(),
                1 => "; 1 other part changed".to_owned(),
                more => format!("; {more} other parts changed"),
            };
            return format!(
                "{} {does}: {sign}{} ms ({} to {}), from {} to {} ms{more}.",
                self.name(part.part).escape_debug(),
                ms(part.difference()),
                ms(low),
                ms(high),
                ms(part.before),
                ms(part.after)
            );
        }
        let widths = self.parts.iter().filter_map(|part| {
            let [low, high] = part.interval?;
            Some(SignedNanos((high - low).0 / 2))
        });
        match widths.max() {
            Some(width) => format!("No part changed by more than {} ms.", ms(width)),
            None => "No intervals: one of the reports has no batches; differences may be chance."
                .to_owned(),
        }
    }

    /// A table and the sentence, for people.
    pub fn text(&self) -> String {
        let cell = |delay: SignedNanos| format!("{:.3}", delay.as_millis_f64());
        let mut rows = vec![["Part", "Before", "After", "Diff", "Interval"].map(str::to_owned)];
        for part in &self.parts {
            rows.push([
                self.name(part.part).escape_debug().to_string(),
                cell(part.before),
                cell(part.after),
                format!("{:+.3}", part.difference().as_millis_f64()),
                part.interval.map_or_else(
                    || "-".to_owned(),
                    |ends| {
                        let [low, high] = ends.map(|end| format!("{:+.3}", end.as_millis_f64()));
                        format!("{low} to {high}")
                    },
                ),
            ]);
        }
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths = [0, 1, 2, 3, 4].map(width);
        let mut text = String::new();
        for row in &rows {
            text += &format!("{:1$}", row[0], widths[0]);
            for (cell, width) in row[1..].iter().zip(&widths[1..]) {
                text += &format!("  {cell:>width$}");
            }
            text.push('\n');
        }
        text + "Medians in ms. " + &self.sentence() + "\n"
    }

    /// The same as one JSON object.
    pub fn json(&self) -> String {
        let mut text = Writer::indented(2).finish(Object(|w| {
            w.pair("schema", SCHEMA);
            w.pair("path", self.path.as_str());
            let parts = self.parts.iter().map(|part| {
                Object(move |w: &mut Writer| {
                    w.pair("part", part.part.to_string().as_str());
                    w.pair("name", self.name(part.part).as_str());
                    w.pair("before_ns", part.before);
                    w.pair("after_ns", part.after);
                    w.pair("difference_ns", part.difference());
                    w.pair("low_ns", part.interval.map(|[low, _]| low));
                    w.pair("high_ns", part.interval.map(|[_, high]| high));
                    w.pair("rose", part.rose());
                    w.pair("fell", part.fell());
                })
            });
            w.pair("parts", Array(parts));
            w.pair("text", self.sentence().as_str());
        }));
        text.push('\n');
        text
    }
}
