//! Arguments in; a checked [`Config`], a text to print or a [`UsageError`] out. No I/O: nothing is
//! opened, no name is resolved and no environment is read here.
//!
//! | file | holds |
//! |---|---|
//! | [`flags`] | every option once: name, value, help, roles, setter; and the command words |
//! | `parse` | the lexopt loop, and the rules that make a role out of what was given |
//! | `value` | how durations, sizes, numbers and labels are written |
//! | [`config`] | the checked values |
//! | [`targets`] | what may be probed over HTTP, and files of targets |
//! | `help` | `-h`, `--help`, the four ways to start |
//! | `exit` | the exit codes |

pub mod config;
mod exit;
pub mod flags;
mod help;
mod parse;
pub mod targets;
mod value;

pub use config::{
    level_filter, Accept, Command, Common, Config, DemoConfig, Endpoint, Format, NodeConfig,
    ProbeConfig, SourceConfig, TargetsConfig,
};
pub use exit::ExitCode;
pub use parse::{parse, Action, UsageError};

/// Reads an address to connect to, with a host and a port above 0; the error completes the sentence "ADDR ...".
///
/// # Errors
///
/// What it lacks.
pub fn target(text: &str) -> Result<Endpoint, String> {
    flags::hop(text)
}

/// The program's name, as it stands in help, errors and the log.
pub const PROGRAM: &str = env!("CARGO_PKG_NAME");
