//! The command `state`: what a state file has of each part, and accepting a change.

use crate::cli::{ExitCode, Format, StateAction, StateConfig};
use crate::collect::state_file::{now, read_state, StateFile};
use crate::commands::Failure;
use crate::output::Output;
use crate::report::history;
use std::fs;

/// Shows the state, or accepts a change of it.
///
/// # Errors
///
/// [`Failure`]: the file is no state, or cannot be written.
pub fn run(config: &StateConfig, format: Option<Format>) -> Result<ExitCode, Failure> {
    let failed = |text: String| Failure::new(ExitCode::Failed, text);
    let file = &config.file;
    let name = file.display();
    let read =
        read_state(file).map_err(|error| failed(format!("state {name}: {}", error.what())))?;
    let json = format == Some(Format::Json);
    let text = match &config.action {
        StateAction::Show => {
            let bytes = fs::metadata(file).map_or(0, |data| data.len());
            match json {
                true => history::json(&read.state, bytes, now()),
                false => history::text(&read.state, bytes, now()),
            }
        }
        StateAction::Accept(part) => {
            let known = history::parts(&read.state);
            let part = match part {
                None => None,
                Some(part) => {
                    let found = known
                        .iter()
                        .find(|(known, names)| known.to_string() == *part || names.contains(part));
                    let Some((found, _)) = found else {
                        let names: Vec<String> = known.values().flatten().cloned().collect();
                        let names = names.join(", ");
                        return Err(failed(format!(
                            "state {name}: it has no part {part:?}; its parts are {names}"
                        )));
                    };
                    Some(*found)
                }
            };
            let mut accepted = Vec::new();
            let mut opened = StateFile::open(file.clone());
            opened
                .update(|state| accepted = state.accept(part))
                .map_err(failed)?;
            match json {
                true => history::accepted_json(&accepted),
                false => history::accepted_text(&accepted),
            }
        }
    };
    match Output::Stdout.write(&text) {
        Err(error) if !error.is_closed_pipe() => Err(Failure::new(ExitCode::Failed, error)),
        _ => Ok(ExitCode::Done),
    }
}
