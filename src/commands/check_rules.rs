//! The command `check-rules`: parses a file of rules and prints them as they were understood.

use crate::cli::ExitCode;
use crate::commands::prepare::read_rules;
use crate::commands::Failure;
use crate::output::Output;
use std::path::Path;

/// Prints the rules of the file at `path`, one per line, as they were understood.
///
/// # Errors
///
/// [`Failure`], with the line and column of the first error.
pub fn run(path: &Path) -> Result<ExitCode, Failure> {
    let failed = |text: String| Failure::new(ExitCode::Failed, text);
    let rules = read_rules(path).map_err(failed)?;
    let lines = rules.iter().map(|rule| format!("{rule}\n"));
    let text = lines.collect::<String>() + &format!("# valid, rules: {}\n", rules.len());
    match Output::Stdout.write(&text) {
        Err(error) if !error.is_closed_pipe() => Err(Failure::new(ExitCode::Failed, error)),
        _ => Ok(ExitCode::Done),
    }
}
