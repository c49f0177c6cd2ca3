//! Arguments in; a checked [`Config`], a text to print or a [`UsageError`] out. No I/O: nothing is
//! opened, no name is resolved and no environment is read here.
//!
//! | file | holds |
//! |---|---|
//! | [`flags`] | every option once: name, value, help, roles, setter; and the command words |
//! | `parse` | the lexopt loop, and the rules that make a role out of what was given |
//! | `value` | how durations, sizes, numbers and labels are written |
//! | [`config`] | the checked values |
//! | [`endpoint`] | host and port as they are written |
//! | [`targets`] | what may be probed over HTTP, and files of targets |
//! | `help` | `-h`, `--help`, the four ways to start |
//! | `exit` | the exit codes |

pub mod config;
pub mod endpoint;
mod exit;
pub mod flags;
mod help;
mod parse;
pub mod passive;
pub mod targets;
mod value;

pub use config::{
    level_filter, Accept, Command, Common, CompareConfig, Compares, Config, DemoConfig, Format,
    NodeConfig, ProbeConfig, SourceConfig, StateAction, StateConfig, TargetsConfig, TimeArgument,
};
pub use endpoint::Endpoint;
pub use exit::ExitCode;
pub use parse::{parse, Action, UsageError};

/// The program's name, as it stands in help, errors and the log.
pub const PROGRAM: &str = env!("CARGO_PKG_NAME");
