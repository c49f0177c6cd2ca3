//! The formats of a report (`--format`), in one table.
//!
//! The parser, its errors, `--help`, the printer and the small build read the table. To add a
//! format:
//!
//! 1. a file beside this one with its renderer, and `pub mod` in `report/mod.rs`;
//! 2. a row of `formats!` below, which makes the variant of [`Format`] and its [`FormatEntry`];
//! 3. its name in the manual's row of `--format`, without which a test of this file fails;
//! 4. a line in the changelog.

use super::block::MeasuredBlock;
use super::text::TextStyle;
use super::{csv, influx, json, jsonl, nagios, otlp, text, Report, State};
use crate::{FULL, SMALL};
use std::str::FromStr;

/// The function that writes a format, and the occasion on which it is called.
#[derive(Clone, Copy, Debug)]
pub enum Renderer {
    /// Renders the whole run at its end.
    Run(fn(&Report, &TextStyle) -> String),
    /// Renders one block while the run goes on; the table remembers the header in force. The second
    /// renders what follows the last block.
    Block(
        fn(&MeasuredBlock<'_>, &mut csv::Table) -> String,
        fn(&Report) -> String,
    ),
}

/// A row of the table of formats.
#[derive(Clone, Copy, Debug)]
pub struct FormatEntry {
    /// The format.
    pub format: Format,
    /// The name on the command line.
    pub name: &'static str,
    /// A phrase for the help.
    pub brief: &'static str,
    /// `true` if only a build with the feature `full` has it.
    pub full_only: bool,
    /// The renderer; in a build that lacks the format it returns an empty text.
    pub renderer: Renderer,
}

/// Makes [`Format`], [`FORMATS`] and [`HELP`] from the same rows.
macro_rules! formats {
    ($($id:ident $name:literal $full_only:literal $brief:literal $renderer:expr;)*) => {
        /// The format of a report.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Format {
            $(#[doc = $brief] $id,)*
        }

        /// Every format, in the order of its variants.
        pub const FORMATS: &[FormatEntry] = &[$(FormatEntry {
            format: Format::$id,
            name: $name,
            brief: $brief,
            full_only: $full_only,
            // Not even named where it is not built, so that it is not linked.
            renderer: match $full_only && !FULL {
                true => Renderer::Run(|_, _| String::new()),
                false => $renderer,
            },
        }),*];

        /// The explanation of `--format` in the help.
        pub const HELP: &str = concat!("Formats" $(, "; ", $name, ": ", $brief)*, ".");
    };
}

formats! {
    Text "text" false "a table for people"
        Renderer::Run(text::render);
    Json "json" false "one object for the run"
        Renderer::Run(|report, _| json::render(report));
    Jsonl "jsonl" false "an object per block and line, the last with the verdict"
        Renderer::Block(|block, _| jsonl::line(&block.line), json::end_line);
    Csv "csv" false "a row per block"
        Renderer::Block(|block, table| table.line(&block.line), |_| String::new());
    Influx "influx" true "Influx line protocol for Telegraf, a line per part"
        Renderer::Run(|report, _| influx::render(report));
    Otlp "otlp" true "OpenTelemetry traces as OTLP/JSON, a trace per block and line"
        Renderer::Block(|block, _| otlp::line(block), |_| String::new());
    Nagios "nagios" true "the line of a monitoring plugin"
        Renderer::Run(|report, _| nagios::render(report));
}

impl Format {
    /// Returns the row of this format.
    pub fn entry(self) -> &'static FormatEntry {
        &FORMATS[self as usize]
    }

    /// Returns `true` if this build has the format.
    pub fn is_built(self) -> bool {
        FULL || !self.entry().full_only
    }

    /// Returns the line on stdout of a run that could not begin; `None` for formats without one.
    pub fn failure(self, state: State, text: &str) -> Option<String> {
        match self {
            Self::Nagios if self.is_built() => Some(nagios::failure(state, text)),
            Self::Nagios | Self::Text | Self::Json | Self::Jsonl | Self::Csv => None,
            Self::Influx | Self::Otlp => None,
        }
    }

    /// Returns `true` if the format has a line per block, written while the run goes on.
    pub fn has_lines(self) -> bool {
        matches!(self.entry().renderer, Renderer::Block(..))
    }
}

impl FromStr for Format {
    type Err = String;

    /// Finds a format by its name.
    ///
    /// The error lists all formats, or states that this build lacks the format.
    fn from_str(name: &str) -> Result<Self, String> {
        let found = FORMATS.iter().find(|entry| entry.name == name);
        match found {
            Some(entry) if entry.format.is_built() => Ok(entry.format),
            Some(_) => Err(format!("is not in this build: {SMALL}")),
            None => {
                let names: Vec<_> = FORMATS.iter().map(|entry| entry.name).collect();
                Err(format!("is none of {}", names.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    const OPTIONS: &str = include_str!("../manual/options.md");

    #[test]
    fn every_format_is_found_by_its_name_and_stands_in_the_manual_and_in_the_help() {
        let row = OPTIONS
            .lines()
            .find(|line| line.starts_with("| `--format F`"))
            .expect("the manual has a row for --format");
        for entry in FORMATS.iter().filter(|entry| entry.format.is_built()) {
            let name = entry.name;
            assert_eq!(name.parse(), Ok(entry.format));
            assert_eq!(entry.format.entry().name, name);
            assert!(
                row.contains(&format!(" {name}: ")),
                "the manual lacks {name}"
            );
            assert!(HELP.contains(&format!("; {name}: ")), "{HELP}");
        }
        let unknown = "xml".parse::<Format>().unwrap_err();
        assert!(unknown.starts_with("is none of text, json, "), "{unknown}");
    }

    #[test]
    fn every_format_of_this_build_renders_something() {
        for entry in FORMATS.iter().filter(|entry| entry.format.is_built()) {
            let text = match entry.renderer {
                Renderer::Run(render) => render(&samples::full(), &TextStyle::default()),
                Renderer::Block(line, _) => {
                    let mut table = csv::Table::default();
                    samples::with_blocks(|block| {
                        let block = MeasuredBlock {
                            line: *block,
                            cookie: 1,
                            trace: None,
                            hop_stamps: &[],
                            offsets: &Vec::new,
                        };
                        line(&block, &mut table)
                    })
                }
            };
            assert!(
                text.len() > 50 && text.ends_with('\n'),
                "{}: {text}",
                entry.name
            );
        }
    }
}
