//! The results of a run: a line per block while it goes on, a live line on a terminal, the report
//! at its end.

use crate::collect::queue::Collector;
use crate::collect::run::RunOutput;
use crate::collect::run_state::{RunState, TakenTrip};
use crate::node::StopFlag;
use crate::output::{print_error, Output, OutputError};
use crate::publish::screen::{size, Terminal};
use crate::report::block::{BlockLine, MeasuredBlock};
use crate::report::format::{Format, Renderer};
use crate::report::{csv, html, screen, text, Blocks, Report};
use crate::sync::random;
use crate::sys;
use crate::time::{MonoTime, Nanos, WallTime};
use crate::FULL;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

/// The interval of the live line.
const LIVE: Nanos = Nanos::from_millis(200);
/// The interval at which the page of a run that goes on is written.
const PAGE: Nanos = Nanos::from_millis(10_000);

/// The writer of results to stdout, a file, a terminal and a page.
#[derive(Debug)]
pub struct Printer {
    /// The output failed: nothing more is written to it.
    muted: bool,
    output: Output,
    format: Format,
    table: csv::Table,
    live: Option<Live>,
    page: Option<PageFile>,
    screen: Option<Terminal>,
    /// The counts at the time at which the user began the figures anew.
    base: Blocks,
    /// Stands for the identifier of a session that was never opened, so that two runs do not share
    /// a trace.
    unopened: u64,
}

/// The file of `--report-html`.
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
    /// Returns a printer to `output` in `format`.
    pub fn new(output: Output, format: Format) -> Self {
        Self {
            muted: false,
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

    /// Writes a page with pictures to `path` too, every ten seconds and at the end.
    ///
    /// # Errors
    ///
    /// [`OutputError`] if it cannot be opened.
    pub fn with_page(mut self, path: Option<&Path>) -> Result<Self, OutputError> {
        if path.is_some() {
            self.page = Some(PageFile {
                output: Output::open(path, Output::Stderr, false)?,
                written: sys::clock::mono(),
            });
        }
        Ok(self)
    }

    /// Returns a printer without any output.
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

    /// Shows a live screen instead, if the format is text and both stdin and stdout are a terminal.
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

    /// Returns `true` if there is a live screen, which is drawn also without measurements.
    pub fn has_screen(&self) -> bool {
        self.screen.is_some()
    }

    /// Stops writing lines and the report, after a failure of the output; the page goes on.
    pub fn mute(&mut self) {
        self.muted = true;
    }

    fn tick_screen(&mut self, run_state: &mut RunState, blocks: Blocks) {
        let Some(screen) = &mut self.screen else {
            return;
        };
        let actions = screen.tick();
        if actions.reset {
            run_state.reset(sys::clock::read().wall);
            self.base = blocks;
        }
        if !actions.draw {
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

    /// Returns `true` if the format has a line per block, and the output has not failed.
    pub fn has_lines(&self) -> bool {
        !self.muted && self.format.has_lines()
    }

    /// Writes the line of a block that was never answered.
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
        taken: Option<&TakenTrip>,
    ) -> Result<(), OutputError> {
        let Renderer::Block(render, _) = self.format.entry().renderer else {
            return Ok(());
        };
        let block = MeasuredBlock {
            line,
            cookie: match run_state.cookie() {
                0 => self.unopened,
                cookie => cookie,
            },
            trace: taken.and_then(|taken| taken.trace),
            hop_stamps: taken.map_or(&[], |taken| &taken.trip.hop_stamps),
            offsets: &|| taken.map_or(Vec::new(), |taken| run_state.model_of(taken.path).offsets()),
        };
        let text = render(&block, &mut self.table);
        self.output.write(&text)
    }

    /// Writes the page anew, if there is one and its time has come. A failure is logged and ends
    /// the run only at its end.
    fn tick_page(&mut self, run_state: &RunState, blocks: Blocks, dropped: u64) {
        let now = sys::clock::mono();
        let due = |page: &PageFile| now.since(page.written) >= PAGE;
        if !self.page.as_ref().is_some_and(due) {
            return;
        }
        let blocks = since(blocks, self.base);
        let report = run_state.report(sys::clock::read().wall, blocks, dropped);
        if let Some(page) = &mut self.page {
            page.written = now;
            // A pipe is written once, at the end.
            if let Output::Whole(_) = page.output {
                if let Err(error) = page.write(run_state, report) {
                    log::error!("report: {error}");
                }
            }
        }
    }

    /// Draws the live line, if there is one and its time has come.
    fn tick_live(&mut self, run_state: &RunState, blocks: Blocks) {
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
        let width = crate::columns::width(&line);
        print_error(&format!(
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
                print_error(&format!("\r{:1$}\r", "", live.width));
            }
        }
    }

    /// The width and the colours of the output.
    fn style(&self) -> text::TextStyle {
        let terminal = match &self.output {
            Output::Stdout => std::io::stdout().is_terminal(),
            Output::Stderr => std::io::stderr().is_terminal(),
            Output::Stream(..) | Output::Whole(_) | Output::Nothing => false,
        };
        let no_color = std::env::var_os("NO_COLOR");
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        let asked = || match terminal {
            true => size().map(|(columns, _)| columns),
            false => None,
        };
        text::TextStyle::for_output(terminal, no_color.as_deref(), columns.or_else(asked))
    }
}

impl RunOutput for Printer {
    fn block(&mut self, state: &RunState, taken: &TakenTrip) -> Result<(), OutputError> {
        if !self.has_lines() {
            return Ok(());
        }
        let trip = &taken.trip;
        let own = trip.hop_stamps.first();
        let line = BlockLine {
            sequence: trip.sequence,
            scheduled: own.map_or(WallTime::default(), |own| own.ingress),
            parts: Some(&taken.parts),
            names: state.names_of(taken.path),
            late: trip.late,
            duplicate: taken.duplicate,
            clock_step: !taken.parts.stepped.is_empty(),
        };
        self.line(line, state, Some(taken))
    }

    fn tick(&mut self, state: &mut RunState, blocks: Blocks, dropped: u64) {
        self.tick_screen(state, blocks);
        self.tick_live(state, blocks);
        self.tick_page(state, blocks, dropped);
    }

    fn report(&mut self, run_state: &RunState, blocks: Blocks, dropped: u64) {
        // A live screen shows it already, and would be drawn over it.
        let is_hidden = self.screen.is_some() && matches!(self.output, Output::Stdout);
        if self.muted || is_hidden || matches!(self.output, Output::Nothing) {
            return;
        }
        if let Err(error) = self.write_report(run_state, blocks, dropped) {
            log::error!("report: {error}");
        }
    }

    fn finish(
        &mut self,
        run_state: &RunState,
        blocks: Blocks,
        dropped: u64,
    ) -> Result<(), OutputError> {
        if self.muted || matches!(self.output, Output::Nothing) {
            return Ok(());
        }
        self.clear();
        self.write_report(run_state, blocks, dropped)
    }
}

impl Printer {
    fn write_report(
        &mut self,
        run_state: &RunState,
        blocks: Blocks,
        dropped: u64,
    ) -> Result<(), OutputError> {
        let blocks = since(blocks, self.base);
        let report = run_state.report(sys::clock::read().wall, blocks, dropped);
        let rendered = match self.format.entry().renderer {
            Renderer::Run(render) => render(&report, &self.style()),
            Renderer::Block(_, end) => end(&report), // Each block had its line.
        };
        // A failure of one, or a reader that is gone, does not keep the others from being written.
        let shown = self.output.write(&rendered);
        let page = self.page.as_mut();
        let drawn = page.map_or(Ok(()), |page| page.write(run_state, report));
        OutputError::all([shown, drawn])
    }
}

/// Returns the counts since `base`. The answer to an earlier block counts now, up to the number of
/// blocks.
fn since(blocks: Blocks, base: Blocks) -> Blocks {
    let sent = blocks.sent.saturating_sub(base.sent);
    Blocks {
        sent,
        received: blocks.received.saturating_sub(base.received).min(sent),
        lost: blocks.lost.saturating_sub(base.lost),
        unsent: blocks.unsent.saturating_sub(base.unsent),
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
