//! The loop of every collector. It moves measurements from the queue into the state of the run,
//! writes results to the output, and posts the report that others read.

use crate::collect::latest::LatestReport;
use crate::collect::queue::{Measurement, Queue};
use crate::collect::run_state::{RunState, TakenTrip};
use crate::output::OutputError;
use crate::report::Blocks;
use crate::sys;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The results of a run on their way out; `publish::printer` implements it.
pub trait RunOutput {
    /// Writes the line of a block that came back, if the format has one.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    fn block(&mut self, state: &RunState, taken: &TakenTrip) -> Result<(), OutputError>;

    /// Refreshes what a run shows while it goes on. A user may begin the figures anew.
    fn tick(&mut self, state: &mut RunState, blocks: Blocks, dropped: u64);

    /// Writes the report of a run that goes on. A failure is logged.
    fn report(&mut self, state: &RunState, blocks: Blocks, dropped: u64);

    /// Writes the report at the end of the run.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    fn finish(&mut self, state: &RunState, blocks: Blocks, dropped: u64)
        -> Result<(), OutputError>;
}

/// A run: its measurements, its state and its output.
#[derive(Debug)]
pub struct Run<O> {
    queue: Queue,
    latest: Arc<LatestReport>,
    /// The figures so far.
    pub state: RunState,
    /// The way out of results.
    pub output: O,
}

impl<O: RunOutput> Run<O> {
    /// Returns a run whose measurements come in `queue`; others find its reports in `latest`.
    pub fn new(queue: Queue, latest: Arc<LatestReport>, state: RunState, output: O) -> Self {
        Self {
            queue,
            latest,
            state,
            output,
        }
    }

    /// Wakes the collector at each beat, also without traffic: there is a deadline to watch.
    pub fn keep_awake(&mut self) {
        self.queue.keep_awake();
    }

    /// Collects batch after batch, until `step`, called after each, breaks.
    ///
    /// `sent` returns the counts of the blocks that this process sends; `None` in a node, which
    /// sends none of its own.
    ///
    /// # Errors
    ///
    /// [`OutputError`] of a block's line, or of `step`. The run may be continued.
    pub fn collect(
        &mut self,
        sent: impl Fn() -> Option<Blocks>,
        mut step: impl FnMut(&mut Self) -> Result<ControlFlow<()>, OutputError>,
    ) -> Result<(), OutputError> {
        self.latest.open();
        loop {
            let mut outcome = Ok(());
            let (state, output) = (&mut self.state, &mut self.output);
            self.queue.batch(|measurement| {
                if let Err(error) = enter(state, output, measurement) {
                    outcome = Err(error);
                }
            });
            outcome?;
            if let Some(rules) = self.latest.take_rules() {
                state.set_rules(rules);
            }
            let sent = sent();
            match sent {
                Some(blocks) => state.counts(blocks),
                None => state.tick(),
            }
            // Bytes that the connections still carry are counted at the end.
            let blocks = sent.unwrap_or_else(|| state.measured_blocks(0));
            let dropped = self.queue.dropped();
            output.tick(state, blocks, dropped);
            if self.latest.take_print() {
                output.report(state, blocks, dropped);
            }
            self.latest.answer(|pictures| {
                // Only a page shows the blocks of a node that sends none.
                let is_shown = sent.is_some() || pictures;
                let blocks = if is_shown { blocks } else { Blocks::default() };
                state.look(blocks, dropped, pictures)
            });
            if step(self)?.is_break() {
                return Ok(());
            }
        }
    }

    /// Takes the measurements that wait in the queue.
    ///
    /// # Errors
    ///
    /// The last [`OutputError`] of a block's line.
    pub fn drain(&mut self) -> Result<(), OutputError> {
        let mut outcome = Ok(());
        let (state, output) = (&mut self.state, &mut self.output);
        self.queue.drain(&mut |measurement| {
            if let Err(error) = enter(state, output, measurement) {
                outcome = Err(error);
            }
        });
        outcome
    }

    /// Closes the figures, leaves the last report for those that look in, and writes it. `planned`
    /// means that the end of the run was known from its start.
    ///
    /// # Errors
    ///
    /// [`OutputError`] of the report.
    pub fn finish(&mut self, blocks: Blocks, planned: bool) -> Result<(), OutputError> {
        let dropped = self.queue.dropped();
        let state = &mut self.state;
        state.finish(blocks, planned);
        self.latest
            .close(|| state.report(sys::clock::read().wall, blocks, dropped));
        self.output.finish(state, blocks, dropped)
    }
}

/// Takes a measurement, and writes the line of a block that came back.
fn enter(
    state: &mut RunState,
    output: &mut impl RunOutput,
    measurement: Measurement,
) -> Result<(), OutputError> {
    match state.take(measurement) {
        Some(taken) => output.block(state, &taken),
        None => Ok(()),
    }
}
