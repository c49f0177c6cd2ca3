//! The command `check-rules`: parses a file of rules and prints them as the program reads them.

use crate::cli::ExitCode;
use crate::commands::prepare::read_rules;
use crate::commands::{print, Failure};
use std::path::Path;

/// Prints the rules of the file at `path`, one per line, with all defaults filled in.
///
/// # Errors
///
/// [`Failure`], with the line and column of the first error.
pub fn run(path: &Path) -> Result<ExitCode, Failure> {
    let rules = read_rules(path).map_err(Failure::failed)?;
    if rules.is_empty() {
        let name = path.display();
        return Err(Failure::failed(format!(
            "{name}: holds no rule, so nothing would be watched"
        )));
    }
    let lines = rules.iter().map(|rule| format!("{rule}\n"));
    let text = lines.collect::<String>() + &format!("# valid, rules: {}\n", rules.len());
    print(&text)
}
