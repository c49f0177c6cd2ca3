//! The command `help`: prints a topic of the manual.

use crate::cli::ExitCode;
use crate::commands::{print, Failure};
use crate::manual;
use crate::sys::StopSignals;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

/// Prints a topic, or the list of topics for `None`: through the pager if stdout is a terminal.
///
/// # Errors
///
/// [`Failure`]; also for an unknown topic.
pub fn run(topic: Option<&str>) -> Result<ExitCode, Failure> {
    let Some(topic) = topic else {
        return print(&manual::list());
    };
    let text = manual::page(topic).map_err(|error| Failure::new(ExitCode::Usage, error))?;
    if io::stdout().is_terminal() && page(&text) {
        return Ok(ExitCode::Done);
    }
    print(&text)
}

/// Shows a text through `$PAGER`, by default less. Returns `false` if no pager has shown it.
fn page(text: &str) -> bool {
    let mut pager = match env::var("PAGER") {
        Ok(pager) if pager.is_empty() || pager == "cat" => return false,
        Ok(pager) => {
            // It may hold options.
            let mut shell = Command::new("sh");
            shell.args(["-c", &pager]);
            shell
        }
        Err(_) => Command::new("less"),
    };
    if env::var_os("LESS").is_none() {
        // Ends at once if the text fits the screen, and leaves it there.
        pager.env("LESS", "FRX");
    }
    let Ok(mut pager) = pager.stdin(Stdio::piped()).spawn() else {
        return false;
    };
    // The pager has its own use for SIGINT. It was started before, for it would inherit the mask.
    let _ = StopSignals::block();
    if let Some(mut stdin) = pager.stdin.take() {
        // A reader that quits early has seen enough.
        let _ = stdin.write_all(text.as_bytes());
    }
    // A shell that does not find the program exits with 127.
    pager.wait().is_ok_and(|status| status.code() != Some(127))
}
