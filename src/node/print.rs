//! What a run shows: a line per block while it goes on, a live line on a terminal, the report at its end.

use super::caller::Break;
use super::collect::{Measurement, Queue};
use super::ledger::{Ledger, Taken};
use super::output::{replace, tell, Output, OutputError};
use crate::cli::Format;
use crate::measure::{state, RunRecord, Trip};
use crate::report::block::BlockLine;
use crate::report::{csv, influx, json, jsonl, nagios, otlp, text, Blocks};
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// How often the live line is drawn.
const LIVE: Nanos = Nanos::from_millis(200);

/// The way out of results.
#[derive(Debug)]
pub struct Printer {
    output: Output,
    format: Format,
    state: Option<PathBuf>,
    table: csv::Table,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    planned: Option<u64>,
    drawn: MonoTime,
    width: usize,
}

impl Printer {
    /// Results go to `output` in `format`; the run is remembered in `state`.
    pub fn new(output: Output, format: Format, state: Option<PathBuf>) -> Self {
        Self {
            output,
            format,
            state,
            table: csv::Table::default(),
            live: None,
        }
    }

    /// Prints nothing at all.
    pub fn silent() -> Self {
        Self::new(Output::Nothing, Format::Text, None)
    }

    /// Draws a live line on stderr, if that is a terminal.
    #[must_use]
    pub fn with_live_line(mut self, planned: Option<u64>) -> Self {
        self.live = std::io::stderr().is_terminal().then(|| Live {
            planned,
            drawn: sys::clock::mono(),
            width: 0,
        });
        self
    }

    /// Enters a measurement, and prints the line of an answered block where the format has one.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn take(
        &mut self,
        ledger: &mut Ledger,
        measurement: Measurement,
    ) -> Result<(), OutputError> {
        let Some(Taken {
            trip,
            parts,
            duplicate,
        }) = ledger.take(measurement)
        else {
            return Ok(());
        };
        if !self.has_lines() {
            return Ok(());
        }
        let line = BlockLine {
            sequence: trip.sequence,
            scheduled: trip
                .crossings
                .first()
                .map_or(WallTime::default(), |own| own.ingress),
            parts: Some(&parts),
            names: ledger.names_of(&trip),
            late: trip.late,
            duplicate,
            clock_step: !parts.stepped.is_empty(),
        };
        self.line(line, ledger, Some(&trip))
    }

    /// Whether each block has a line of its own in the format.
    pub fn has_lines(&self) -> bool {
        matches!(self.format, Format::Jsonl | Format::Csv | Format::Otlp)
    }

    /// Prints the line of a block that was never answered.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn lost(
        &mut self,
        ledger: &Ledger,
        sequence: u64,
        scheduled: WallTime,
    ) -> Result<(), OutputError> {
        if !self.has_lines() {
            return Ok(());
        }
        let line = BlockLine {
            sequence,
            scheduled,
            parts: None,
            names: ledger.names(),
            late: false,
            duplicate: false,
            clock_step: false,
        };
        self.line(line, ledger, None)
    }

    fn line(
        &mut self,
        line: BlockLine<'_>,
        ledger: &Ledger,
        trip: Option<&Trip>,
    ) -> Result<(), OutputError> {
        let text = match self.format {
            Format::Csv => self.table.line(&line),
            Format::Otlp => otlp::line(&otlp::Block {
                line,
                cookie: ledger.cookie(),
                crossings: trip.map_or(&[], |trip| &trip.crossings),
                offsets: &trip.map_or(Vec::new(), |trip| ledger.model_of(trip).offsets()),
            }),
            _ => jsonl::line(&line),
        };
        self.output.write(&text)
    }

    /// Draws the live line, if there is one and it is time.
    pub fn tick(&mut self, ledger: &Ledger, blocks: Blocks) {
        let Some(live) = &mut self.live else {
            return;
        };
        let now = sys::clock::mono();
        if now.since(live.drawn) < LIVE {
            return;
        }
        live.drawn = now;
        let report = ledger.report(sys::clock::read().wall, blocks, 0);
        let line = text::live_line(&report, live.planned);
        let width = line.chars().count();
        tell(&format!(
            "\r{line}{:1$}",
            "",
            live.width.saturating_sub(width)
        ));
        live.width = width;
    }

    fn clear(&mut self) {
        if let Some(live) = self.live.take() {
            if live.width > 0 {
                tell(&format!("\r{:1$}\r", "", live.width));
            }
        }
    }

    /// Takes what is left in the queue.
    ///
    /// # Errors
    ///
    /// [`OutputError`] of a block's line.
    pub fn drain(&mut self, queue: &mut Queue, ledger: &mut Ledger) -> Result<(), OutputError> {
        let mut outcome = Ok(());
        queue.drain(&mut |measurement| {
            if let Err(error) = self.take(ledger, measurement) {
                outcome = Err(error);
            }
        });
        outcome
    }

    /// Writes the report, and the run into the state file.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn finish(
        &mut self,
        ledger: &Ledger,
        blocks: Blocks,
        dropped: u64,
    ) -> Result<(), OutputError> {
        if matches!(self.output, Output::Nothing) {
            return Ok(());
        }
        self.clear();
        let report = ledger.report(sys::clock::read().wall, blocks, dropped);
        let rendered = match self.format {
            Format::Json => json::render(&report),
            Format::Nagios => nagios::render(&report),
            Format::Text => {
                let terminal = match &self.output {
                    Output::Stdout => std::io::stdout().is_terminal(),
                    Output::Stderr => std::io::stderr().is_terminal(),
                    Output::Stream(..) | Output::Whole(_) | Output::Nothing => false,
                };
                let no_color = std::env::var_os("NO_COLOR");
                let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
                let style = text::TextStyle::for_output(terminal, no_color.as_deref(), columns);
                text::render(&report, &style)
            }
            Format::Influx => influx::render(&report),
            Format::Jsonl | Format::Csv | Format::Otlp => String::new(),
        };
        self.output.write(&rendered)?;
        self.remember(ledger, blocks)
    }

    /// Adds the run to the state file; one that measured nothing is not worth remembering.
    fn remember(&self, ledger: &Ledger, blocks: Blocks) -> Result<(), OutputError> {
        let Some(path) = &self.state else {
            return Ok(());
        };
        if blocks.received == 0 {
            return Ok(());
        }
        let mut runs = read_state(path)?;
        runs.push(ledger.model().run_record(ledger.started(), ledger.names()));
        replace(path, &state::emit(&runs))
    }
}

/// The earlier runs in a state file; none where there is no file yet.
///
/// # Errors
///
/// [`OutputError`] where it cannot be read, or is no state file: it is not overwritten then.
pub fn read_state(path: &Path) -> Result<Vec<RunRecord>, OutputError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OutputError::reading(path, error)),
    };
    state::parse(&text).map_err(|error| {
        let cause = std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("{error}; move the file away to start anew"),
        );
        OutputError::reading(path, cause)
    })
}

/// A break in the path's own names, as far as they are known.
pub fn name_break(ledger: &Ledger, broken: &Break) -> String {
    let names = ledger.names();
    let next = broken.hop.saturating_add(1);
    match (names.get(&broken.hop), names.get(&next)) {
        (Some(near), _) if broken.silent => {
            format!("somewhere behind {}: {}", near.escape_debug(), broken.text)
        }
        (Some(near), Some(far)) => {
            format!(
                "between {} (hop {}) and {} (hop {next}): {}",
                near.escape_debug(),
                broken.hop,
                far.escape_debug(),
                broken.text
            )
        }
        (Some(near), None) => format!(
            "behind {} (hop {}): {}",
            near.escape_debug(),
            broken.hop,
            broken.text
        ),
        _ => broken.to_string(),
    }
}
