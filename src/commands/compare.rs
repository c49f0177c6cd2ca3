//! The command `compare`: two reports, or two spans of a state, part by part.

use crate::cli::{CompareConfig, Compares, ExitCode, Format};
use crate::collect::state_file::{read_bounded, read_state};
use crate::commands::Failure;
use crate::measure::baseline::path_nodes;
use crate::measure::compare::{compare, sides};
use crate::output::Output;
use crate::report::comparison::{parse_report, Comparison, ReportText};
use crate::sys;
use crate::time::WallTime;
use std::path::Path;

/// Prints the comparison.
///
/// # Errors
///
/// [`Failure`], with the code of usage: a file cannot be read, or the paths differ.
pub fn run(config: &CompareConfig, format: Option<Format>) -> Result<ExitCode, Failure> {
    let failed = |text: String| Failure::new(ExitCode::Usage, text);
    let comparison = match &config.what {
        Compares::Reports(before, after) => reports(before, after),
        Compares::State {
            file,
            before,
            after,
        } => {
            let now = sys::clock::read().wall;
            state(file, before.at(now), after.at(now))
        }
    }
    .map_err(failed)?;
    let text = match format {
        Some(Format::Json) => comparison.json(),
        _ => comparison.text(),
    };
    match Output::Stdout.write(&text) {
        Err(error) if !error.is_closed_pipe() => Err(Failure::new(ExitCode::Usage, error)),
        _ if comparison.has_risen(config.fail_above) => Ok(ExitCode::Rose),
        _ => Ok(ExitCode::Done),
    }
}

fn reports(before: &Path, after: &Path) -> Result<Comparison, String> {
    let read = |path: &Path| -> Result<ReportText, String> {
        let name = path.display();
        let text = read_bounded(path).map_err(|error| format!("{name}: {}", error.what()))?;
        parse_report(&text).map_err(|error| format!("{name}: {error}"))
    };
    let (one, other) = (read(before)?, read(after)?);
    if one.path != other.path {
        return Err(format!(
            "{} is of the path {}, {} of {}: compare runs of one path",
            before.display(),
            shown(&one.path),
            after.display(),
            shown(&other.path)
        ));
    }
    let parts = compare(&one.sides, &other.sides);
    if parts.is_empty() {
        return Err("the reports have no part in common: one of them measured nothing".to_owned());
    }
    Ok(Comparison {
        path: one.path,
        parts,
    })
}

fn state(file: &Path, before: WallTime, after: WallTime) -> Result<Comparison, String> {
    let name = file.display();
    let read = read_state(file).map_err(|error| format!("{name}: {}", error.what()))?;
    let mut compared = read.state.paths.iter().map(|(path, history)| {
        let [earlier, later] = sides(&history.records, before, after);
        let parts = compare(&earlier, &later);
        let path = path.clone();
        Comparison { path, parts }
    });
    let with_parts = compared.by_ref().filter(|found| !found.parts.is_empty());
    let mut with_parts: Vec<Comparison> = with_parts.collect();
    match (with_parts.len(), with_parts.pop()) {
        (0, _) | (_, None) => Err(format!(
            "{name} has no record of one path until {before} and one from {after} on"
        )),
        (1, Some(found)) => Ok(found),
        (_, Some(found)) => {
            // The path with most records is what the state is of.
            let all = with_parts.into_iter().chain([found]);
            let records = |found: &Comparison| {
                let history = read.state.paths.get(&found.path);
                history.map_or(0, |history| history.records.len())
            };
            all.max_by_key(records).ok_or_else(String::new)
        }
    }
}

/// A path for people: `A, B, Z`.
fn shown(key: &str) -> String {
    let names = path_nodes(key).into_iter();
    let names: Vec<String> = names
        .map(|(_, name)| name.escape_debug().to_string())
        .collect();
    names.join(", ")
}
