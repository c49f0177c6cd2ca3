//! What a run shows: a line per block while it goes on, a live line on a terminal, the report at its end.

use crate::cli::Format;
use crate::collect::queue::{Collector, Measurement, Queue};
use crate::collect::run_state::{RunState, Taken};
use crate::measure::Trip;
use crate::node::StopFlag;
use crate::origin::session::PathError;
use crate::output::{tell, Output, OutputError};
use crate::publish::screen::Terminal;
use crate::report::block::BlockLine;
use crate::report::{csv, html, influx, json, jsonl, nagios, otlp, screen, text, Blocks, Report};
use crate::sync::random;
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::FULL;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

/// How often the live line is drawn.
const LIVE: Nanos = Nanos::from_millis(200);
/// How often a page is written while a run goes on.
const PAGE: Nanos = Nanos::from_millis(10_000);

/// The way out of results.
#[derive(Debug)]
pub struct Printer {
    output: Output,
    format: Format,
    table: csv::Table,
    live: Option<Live>,
    page: Option<PageFile>,
    screen: Option<Terminal>,
    /// What had been counted when the user began anew.
    base: Blocks,
    /// Stands for the session of a path that none was opened on: what two runs write is not to be one trace.
    unopened: u64,
}

/// `--report-html`.
#[derive(Debug)]
struct PageFile {
    output: Output,
    written: MonoTime,
}

#[derive(Debug)]
struct Live {
    planned: Option<u64>,
    drawn: MonoTime,
    width: usize,
}

impl Printer {
    /// Results go to `output` in `format`.
    pub fn new(output: Output, format: Format) -> Self {
        Self {
            output,
            format,
            table: csv::Table::default(),
            live: None,
            page: None,
            screen: None,
            base: Blocks::default(),
            unopened: random(),
        }
    }

    /// Writes a page with pictures to `path` too, at the end and now and then before.
    ///
    /// # Errors
    ///
    /// [`OutputError`] where it cannot be opened.
    pub fn with_page(mut self, path: Option<&Path>) -> Result<Self, OutputError> {
        if path.is_some() {
            self.page = Some(PageFile {
                output: Output::open(path, Output::Stderr, false)?,
                written: sys::clock::mono(),
            });
        }
        Ok(self)
    }

    /// Prints nothing at all.
    pub fn silent() -> Self {
        Self::new(Output::Nothing, Format::Text)
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

    /// Shows a live screen instead, where the format is text and there is a terminal for keys and for lines.
    #[must_use]
    pub fn with_screen(mut self, collector: Collector, stop: &Arc<StopFlag>) -> Self {
        if self.format == Format::Text {
            self.screen = Terminal::open(collector, stop);
        }
        if self.screen.is_some() {
            self.live = None;
        }
        self
    }

    /// Whether there is a live screen, which has to be drawn also while nothing comes in.
    pub fn has_screen(&self) -> bool {
        self.screen.is_some()
    }

    fn tick_screen(&mut self, run_state: &mut RunState, blocks: Blocks) {
        let Some(screen) = &mut self.screen else {
            return;
        };
        if !FULL {
            return;
        }
        let wish = screen.tick();
        if wish.reset {
            run_state.reset(sys::clock::read().wall);
            self.base = blocks;
        }
        if !wish.draw {
            return;
        }
        let report = run_state.report(sys::clock::read().wall, since(blocks, self.base), 0);
        let (width, height) = screen.size;
        let no_color = std::env::var_os("NO_COLOR");
        let lines = screen::lines(
            &report,
            &screen::Screen {
                width,
                height,
                colour: no_color.map_or(true, |value| value.is_empty()),
                paused: screen.paused,
            },
        );
        screen.draw(&lines);
    }

    /// Enters a measurement, and prints the line of an answered block where the format has one.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn take(
        &mut self,
        run_state: &mut RunState,
        measurement: Measurement,
    ) -> Result<(), OutputError> {
        let Some(Taken {
            trip,
            parts,
            duplicate,
        }) = run_state.take(measurement)
        else {
            return Ok(());
        };
        if !self.has_lines() {
            return Ok(());
        }
        let line = BlockLine {
            sequence: trip.sequence,
            scheduled: trip
                .hop_stamps
                .first()
                .map_or(WallTime::default(), |own| own.ingress),
            parts: Some(&parts),
            names: run_state.names_of(&trip),
            late: trip.late,
            duplicate,
            clock_step: !parts.stepped.is_empty(),
        };
        self.line(line, run_state, Some(&trip))
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
        run_state: &RunState,
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
            names: run_state.names(),
            late: false,
            duplicate: false,
            clock_step: false,
        };
        self.line(line, run_state, None)
    }

    fn line(
        &mut self,
        line: BlockLine<'_>,
        run_state: &RunState,
        trip: Option<&Trip>,
    ) -> Result<(), OutputError> {
        let text = match self.format {
            Format::Csv => self.table.line(&line),
            Format::Otlp if FULL => otlp::line(&otlp::Block {
                line,
                cookie: match run_state.cookie() {
                    0 => self.unopened,
                    cookie => cookie,
                },
                hop_stamps: trip.map_or(&[], |trip| &trip.hop_stamps),
                offsets: &trip.map_or(Vec::new(), |trip| run_state.model_of(trip).offsets()),
            }),
            _ => jsonl::line(&line),
        };
        self.output.write(&text)
    }

    /// Writes the page anew, if there is one and it is time. That it cannot be written is said then and does not end the
    /// run; at the end of the run it does.
    pub fn tick_page(&mut self, run_state: &RunState, blocks: Blocks, dropped: u64) {
        let now = sys::clock::mono();
        let due = |page: &PageFile| now.since(page.written) >= PAGE;
        if !self.page.as_ref().is_some_and(due) {
            return;
        }
        let blocks = since(blocks, self.base);
        let report = run_state.report(sys::clock::read().wall, blocks, dropped);
        if let Some(page) = &mut self.page {
            page.written = now;
            // What can only be written to, once, is written at the end.
            if let Output::Whole(_) = page.output {
                if let Err(error) = page.write(run_state, report) {
                    log::error!("report: {error}");
                }
            }
        }
    }

    /// Draws the live line or screen, if there is one and it is time.
    pub fn tick(&mut self, run_state: &mut RunState, blocks: Blocks) {
        self.tick_screen(run_state, blocks);
        let Some(live) = &mut self.live else {
            return;
        };
        let now = sys::clock::mono();
        if now.since(live.drawn) < LIVE {
            return;
        }
        live.drawn = now;
        let report = run_state.report(sys::clock::read().wall, blocks, 0);
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
        self.screen = None;
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
    pub fn drain(
        &mut self,
        queue: &mut Queue,
        run_state: &mut RunState,
    ) -> Result<(), OutputError> {
        let mut outcome = Ok(());
        queue.drain(&mut |measurement| {
            if let Err(error) = self.take(run_state, measurement) {
                outcome = Err(error);
            }
        });
        outcome
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn finish(
        &mut self,
        run_state: &RunState,
        blocks: Blocks,
        dropped: u64,
    ) -> Result<(), OutputError> {
        if matches!(self.output, Output::Nothing) {
            return Ok(());
        }
        self.clear();
        let blocks = since(blocks, self.base);
        let report = run_state.report(sys::clock::read().wall, blocks, dropped);
        let rendered = match self.format {
            Format::Json => json::render(&report),
            Format::Nagios if FULL => nagios::render(&report),
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
            Format::Influx if FULL => influx::render(&report),
            _ => String::new(), // Each block had its line.
        };
        // One that cannot be written, or that nobody reads any more, keeps none of the others from being written.
        let shown = self.output.write(&rendered);
        let page = self.page.as_mut();
        let drawn = page.map_or(Ok(()), |page| page.write(run_state, report));
        OutputError::all([shown, drawn])
    }
}

/// What was counted since `base`. An answer to a block from before counts now; there are never more of them than blocks.
fn since(blocks: Blocks, base: Blocks) -> Blocks {
    let sent = blocks.sent.saturating_sub(base.sent);
    Blocks {
        sent,
        received: blocks.received.saturating_sub(base.received).min(sent),
        lost: blocks.lost.saturating_sub(base.lost),
        late: blocks.late.saturating_sub(base.late),
        duplicate: blocks.duplicate.saturating_sub(base.duplicate),
        payload_bytes: blocks.payload_bytes.saturating_sub(base.payload_bytes),
    }
}

impl PageFile {
    fn write(&mut self, run_state: &RunState, mut report: Report) -> Result<(), OutputError> {
        if !FULL {
            return Ok(());
        }
        report.timeline = run_state.timeline(sys::clock::read().now());
        self.output.write(&html::render(&report, html::Page::File))
    }
}

/// A break in the path's own names, as far as they are known.
pub fn name_break(run_state: &RunState, broken: &PathError) -> String {
    let names = run_state.names();
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
