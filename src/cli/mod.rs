//! Arguments in; a checked [`Config`], a text to print or a [`UsageError`] out. No I/O: nothing is
//! opened, no name is resolved and no environment is read here.
//!
//! | file | holds |
//! |---|---|
//! | [`flags`] | every option once: name, value, help, modes, setter; and the command words |
//! | `parse` | the lexopt loop, and the rules that make a command out of the arguments |
//! | `value` | durations, sizes, numbers and labels |
//! | [`config`], [`passive`] | the checked values |
//! | [`host_port`] | host and port as they are written |
//! | [`targets`] | targets allowed over HTTP, and files of targets |
//! | `help` | `-h`, `--help`, the ways to start |
//! | `version` | `--version` |
//! | `nearest` | the name that was probably meant |
//! | `exit` | the exit codes |

pub mod config;
mod exit;
pub mod flags;
mod help;
pub mod host_port;
mod nearest;
mod parse;
pub mod passive;
mod probe_words;
pub mod targets;
mod value;
mod version;

pub use config::{
    level_filter, AllowSource, Command, Common, CompareConfig, Compares, Config, DemoConfig,
    Format, NodeConfig, Ports, ProbeConfig, SourceConfig, StateAction, StateConfig, TargetsConfig,
    TimeArgument, TraceConfig, TraceOptions,
};
pub use exit::ExitCode;
pub(crate) use help::{sentence, wrapped, EXAMPLES, PURPOSE};
pub use host_port::HostPort;
pub use nearest::nearest;
pub use parse::{parse, Action, UsageError};

/// The name of the program, as it stands in help, errors and the log.
pub const PROGRAM: &str = env!("CARGO_PKG_NAME");
