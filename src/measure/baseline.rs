//! What earlier runs left of each part, as the text of a `--state` file.
//!
//! ```text
//! subsegment-tcp-speeds state 2
//! path 0=A,1=B,2=Z
//! part segment:0-1 usual 1795253399000000000:410000:97:0: ...
//! ```
//!
//! Runs are compared only with runs of the same path. A part's line is that of [`RunHistory`].

use super::change::RunHistory;
use super::Part;
use crate::vec_map::VecMap;
use std::fmt;

/// The first line. The number changes when a line's meaning does.
const HEADING: &str = "subsegment-tcp-speeds state 2";
/// Paths kept in one file.
const PATHS: usize = 64;

/// The runs of one path, by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathHistory {
    /// Runs that are usual, and those since a change was named.
    pub parts: VecMap<Part, RunHistory>,
}

/// The runs of all paths of a state file, by [`path_key`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Every path that a run was of.
    pub paths: VecMap<String, PathHistory>,
}

/// A line of a state file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError {
    /// Counted from 1.
    pub line: usize,
    /// The error.
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

impl State {
    /// Reads a state file; an empty one has no runs.
    ///
    /// # Errors
    ///
    /// [`StateError`] names the first line that is not as [`Display`](fmt::Display) writes it. A file that was cut off is
    /// an error too.
    pub fn parse(text: &str) -> Result<Self, StateError> {
        let mut state = Self::default();
        let mut path: Option<String> = None;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let error = |what: String| StateError {
                line: number + 1,
                what,
            };
            let Some(line) = line.strip_suffix('\n') else {
                return Err(error("cut off (no line end)".to_owned()));
            };
            let shown: String = line.chars().take(60).collect();
            let wrong = || error(format!("{shown:?} is not a path or a part"));
            if number == 0 {
                if line != HEADING {
                    return Err(error(format!("expected {HEADING:?}, found {shown:?}")));
                }
                continue;
            }
            if let Some(key) = line.strip_prefix("path ") {
                state
                    .paths
                    .get_or_insert_with(key.to_owned(), PathHistory::default);
                path = Some(key.to_owned());
                continue;
            }
            let key = path.clone().ok_or_else(wrong)?;
            let line = line.strip_prefix("part ").ok_or_else(wrong)?;
            let (part, history) = line.split_once(' ').ok_or_else(wrong)?;
            let part = Part::parse(part).ok_or_else(wrong)?;
            let history = RunHistory::parse(history).ok_or_else(wrong)?;
            let known = state.paths.get_or_insert_with(key, PathHistory::default);
            if known.parts.insert(part, history).is_some() {
                return Err(error(format!("{part} twice")));
            }
        }
        Ok(state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADING}")?;
        for (key, path) in self.paths.iter().take(PATHS) {
            writeln!(f, "path {key}")?;
            for (part, history) in &path.parts {
                writeln!(f, "part {part} {history}")?;
            }
        }
        Ok(())
    }
}
