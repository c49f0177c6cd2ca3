//! The text of a `--state` file: earlier runs in, earlier runs out. One line per run, so a cut file
//! is noticed.
//!
//! ```text
//! subsegment-tcp-speeds state 1
//! run 1795253399000000000 97 0=A,1=B,2=Z source=3000/5000 segment:0-1=410000/520000 host:1=2500/-
//! ```
//!
//! After `run`: start (nanoseconds since the epoch), blocks, the path (hops and names), and for
//! each part its median and 95th percentile in nanoseconds, `-` where too few blocks tell. Runs are
//! compared only with runs of the same path.

use crate::time::{SignedNanos, WallTime};
use crate::vec_map::VecMap;
use std::fmt;

/// The first line. The number changes when a line's meaning does.
const HEADING: &str = "subsegment-tcp-speeds state 1";
/// Runs kept of each path.
pub const RUNS_KEPT: usize = 20;
/// Runs kept of all paths together.
const RUNS_KEPT_IN_ALL: usize = 400;

/// A part of the path whose delay is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The origin's own residence.
    Source,
    /// A segment's round trip, named by its two hops.
    Segment(u8, u8),
    /// A node's residence, both ways.
    Host(u8),
    /// The server behind an exit, and the network to it.
    Server,
    /// The raw one-way difference of a segment; kept only where both clocks are synchronised.
    Forward(u8, u8),
    /// The same on the way back.
    Return(u8, u8),
    /// A segment's round trip without the wake-up delays at its ends; kept only where most of those are known.
    Network(u8, u8),
    /// A node's wake-up delay, both ways; kept likewise.
    WakeUp(u8),
}

/// What a run leaves for later ones of one part: its quantiles, `None` where too few blocks tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// The median.
    pub p50: Option<SignedNanos>,
    /// The 95th percentile.
    pub p95: Option<SignedNanos>,
}

/// One earlier run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// When it began.
    pub started: WallTime,
    /// Answered blocks it rests on, those of the warm-up included.
    pub blocks: u64,
    /// Hops and names of its nodes, from [`path_key`]; without spaces.
    pub path: String,
    /// Its figures.
    pub parts: VecMap<Part, Quantiles>,
}

/// A line of a state file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for StateError {}

/// Names a path by its hops and the names of their nodes; only runs of the same path are compared.
pub fn path_key<'a>(nodes: impl IntoIterator<Item = (u8, &'a str)>) -> String {
    let escape = |name: &str| -> String {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
        let bytes = name.bytes();
        bytes
            .map(|b| {
                if plain(&b) {
                    char::from(b).into()
                } else {
                    format!("%{b:02x}")
                }
            })
            .collect()
    };
    let nodes = nodes
        .into_iter()
        .map(|(hop, name)| format!("{hop}={}", escape(name)));
    nodes.collect::<Vec<_>>().join(",")
}

/// Reads a state file; an empty one has no runs.
///
/// # Errors
///
/// [`StateError`] names the first line that is not as [`emit`] writes it; a file that was cut off
/// is an error too.
pub fn parse(text: &str) -> Result<Vec<RunRecord>, StateError> {
    let mut runs = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let error = |what: String| StateError {
            line: number + 1,
            what,
        };
        let Some(line) = line.strip_suffix('\n') else {
            return Err(error("cut off (no line end)".to_owned()));
        };
        match number {
            0 if line == HEADING => {}
            0 => {
                return Err(error(format!(
                    "expected {HEADING:?}, found {:?}",
                    shown(line)
                )))
            }
            _ => runs.push(parse_run(line).map_err(error)?),
        }
    }
    Ok(runs)
}

fn parse_run(line: &str) -> Result<RunRecord, String> {
    let mut words = line.split(' ');
    if words.next() != Some("run") {
        return Err(format!("expected a run, found {:?}", shown(line)));
    }
    let mut word = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let started = WallTime(number(word("start")?)?);
    let blocks = number(word("count of blocks")?)?;
    let path = word("path")?.to_owned();
    if path.is_empty() {
        return Err("path is missing".to_owned());
    }
    let mut parts = VecMap::new();
    for word in words {
        let wrong = || format!("{:?} is not a part", shown(word));
        let (name, figures) = word.split_once('=').ok_or_else(wrong)?;
        let (p50, p95) = figures.split_once('/').ok_or_else(wrong)?;
        let part = part_from(name).ok_or_else(wrong)?;
        let quantiles = Quantiles {
            p50: quantile(p50)?,
            p95: quantile(p95)?,
        };
        if parts.insert(part, quantiles).is_some() {
            return Err(format!("{name} twice"));
        }
    }
    Ok(RunRecord {
        started,
        blocks,
        path,
        parts,
    })
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("{:?} is not a number", shown(word)))
}

fn quantile(word: &str) -> Result<Option<SignedNanos>, String> {
    if word == "-" {
        return Ok(None);
    }
    Ok(Some(SignedNanos(number(word)?)))
}

fn part_from(name: &str) -> Option<Part> {
    let (kind, hops) = name.split_once(':').unwrap_or((name, ""));
    let two = || {
        let (from, to) = hops.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    match (kind, hops) {
        ("source", "") => Some(Part::Source),
        ("server", "") => Some(Part::Server),
        ("host", _) => Some(Part::Host(hops.parse().ok()?)),
        ("wakeup", _) => Some(Part::WakeUp(hops.parse().ok()?)),
        ("network", _) => two().map(|(from, to)| Part::Network(from, to)),
        ("segment", _) => two().map(|(from, to)| Part::Segment(from, to)),
        ("forward", _) => two().map(|(from, to)| Part::Forward(from, to)),
        ("return", _) => two().map(|(from, to)| Part::Return(from, to)),
        _ => None,
    }
}

/// As much of a bad line as an error message should show.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("source"),
            Self::Server => f.write_str("server"),
            Self::Host(hop) => write!(f, "host:{hop}"),
            Self::Segment(from, to) => write!(f, "segment:{from}-{to}"),
            Self::Forward(from, to) => write!(f, "forward:{from}-{to}"),
            Self::Network(from, to) => write!(f, "network:{from}-{to}"),
            Self::WakeUp(hop) => write!(f, "wakeup:{hop}"),
            Self::Return(from, to) => write!(f, "return:{from}-{to}"),
        }
    }
}

/// Writes a state file of the last [`RUNS_KEPT`] runs of each path, in the order given (oldest
/// first).
pub fn emit(runs: &[RunRecord]) -> String {
    let mut of_path: VecMap<&str, usize> = VecMap::new();
    let newest_first = runs.iter().rev().filter(|run| {
        let count = of_path.get_or_insert_with(&run.path, || 0);
        *count += 1;
        *count <= RUNS_KEPT
    });
    let kept: Vec<_> = newest_first.take(RUNS_KEPT_IN_ALL).collect();
    let mut text = format!("{HEADING}\n");
    for run in kept.into_iter().rev() {
        text += &format!("run {} {} {}", run.started.0, run.blocks, run.path);
        for (part, quantiles) in &run.parts {
            let figure = |q: Option<SignedNanos>| q.map_or("-".to_owned(), |q| q.0.to_string());
            text += &format!(
                " {part}={}/{}",
                figure(quantiles.p50),
                figure(quantiles.p95)
            );
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(started: u64, path: &str) -> RunRecord {
        let quantiles = |p50, p95: Option<i64>| Quantiles {
            p50: Some(SignedNanos(p50)),
            p95: p95.map(SignedNanos),
        };
        let parts = VecMap::from([
            (Part::Source, quantiles(3_000, Some(5_000))),
            (Part::Segment(0, 1), quantiles(-410_000, Some(520_000))),
            (Part::Host(1), quantiles(2_500, None)),
            (Part::Server, Quantiles::default()),
            (Part::Forward(0, 1), quantiles(i64::MIN, Some(i64::MAX))),
            (Part::Return(0, 255), quantiles(1, None)),
            (Part::Network(0, 1), quantiles(7, Some(8))),
            (Part::WakeUp(1), quantiles(9, None)),
        ]);
        RunRecord {
            started: WallTime(started),
            blocks: 97,
            path: path.to_owned(),
            parts,
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let path = path_key([(0, "A"), (1, "node b, \u{e9}%\n"), (3, "")]);
        assert_eq!(path, "0=A,1=node%20b%2c%20%c3%a9%25%0a,3=");
        let runs = vec![run(1, &path), run(u64::MAX, "0=A")];
        assert_eq!(parse(&emit(&runs)), Ok(runs));
        assert_eq!(parse(&emit(&[])), Ok(Vec::new()));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn the_last_20_runs_of_each_path_are_kept() {
        let mut runs: Vec<_> = (0..50)
            .map(|i| run(i, ["0=A", "0=B"][i as usize % 2]))
            .collect();
        runs.push(run(99, "0=C"));
        let kept = parse(&emit(&runs)).unwrap();
        assert_eq!(kept.len(), 41);
        assert_eq!((kept[0].started.0, kept[40].started.0), (10, 99));
        let many: Vec<_> = (0..9_000).map(|i| run(i, &format!("0={i}"))).collect();
        assert_eq!(parse(&emit(&many)).unwrap().len(), RUNS_KEPT_IN_ALL);
    }

    #[test]
    fn a_cut_file_is_noticed_unless_it_was_cut_between_runs() {
        let text = emit(&[run(1, "0=A"), run(2, "0=A")]);
        for length in 1..text.len() {
            let cut = &text[..length];
            match parse(cut) {
                Ok(runs) => assert_eq!(runs.len() + 1, cut.lines().count(), "{cut:?}"),
                Err(error) => assert_eq!(error.line, cut.lines().count(), "{cut:?}"),
            }
            assert_eq!(parse(cut).is_ok(), cut.ends_with('\n'), "{cut:?}");
        }
    }

    #[test]
    fn bad_lines_are_named_with_their_number() {
        for (line, what) in [
            ("", "expected a run"),
            ("ran 1 2 0=A", "expected a run"),
            ("run x 2 0=A", "\"x\" is not a number"),
            ("run 1", "count of blocks is missing"),
            ("run 1 2", "path is missing"),
            ("run 1 2 ", "path is missing"),
            ("run 1 2 0=A host:1", "is not a part"),
            ("run 1 2 0=A host:256=1/2", "is not a part"),
            ("run 1 2 0=A source:1=1/2", "is not a part"),
            ("run 1 2 0=A segment:1=1/2", "is not a part"),
            ("run 1 2 0=A host:1=1/2 host:1=1/2", "host:1 twice"),
            ("run 1 2 0=A host:1=1/2/3", "is not a number"),
            (
                "run 1 2 0=A host:1=99999999999999999999/-",
                "is not a number",
            ),
            ("run 1 2 0=A  host:1=1/-", "\"\" is not a part"),
        ] {
            let error = parse(&format!("{HEADING}\nrun 1 2 0=A\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 3, "{line}");
            assert!(error.to_string().contains(what), "{line}: {error}");
        }
        let error = parse("subsegment-tcp-speeds state 2\n").unwrap_err();
        assert!(error.to_string().starts_with("line 1: expected"), "{error}");
    }
}
