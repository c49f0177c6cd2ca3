//! SIGINT and SIGTERM: the first ends a run in order, the second at once.

use crate::cli::ExitCode;
use crate::collect::queue::Collector;
use crate::node::StopFlag;
use crate::publish::{notify, screen};
use crate::sync::{lock, spawn, LARGE_STACK};
use crate::sys::StopSignals;
use std::sync::{Arc, Mutex};

/// The thread that ends the process. It does so at the first signal until a run can be stopped,
/// then at the second. A resolver or a pipe without a reader may come before.
pub struct Signals(Arc<Mutex<Option<StopRun>>>);

type StopRun = Box<dyn FnOnce() + Send>;

impl Signals {
    /// Starts the thread; `cut_off` is the exit code of a process that a signal ends at once.
    pub(crate) fn watch(signals: StopSignals, cut_off: ExitCode) -> Self {
        let this = Self(Arc::default());
        let stop_run = Arc::clone(&this.0);
        let watching = spawn("signal", LARGE_STACK, move || {
            signals.wait();
            let stop = lock(&stop_run).take();
            if let Some(stop) = stop {
                notify::stopping();
                stop();
                signals.wait();
                screen::restore();
            }
            std::process::exit(cut_off.number().into());
        });
        if let Err(error) = watching {
            log::error!("main: cannot start a thread: {error}; signals have no effect");
        }
        this
    }

    /// Has the first signal call `stop_run` from now on.
    pub fn on_first(self, stop_run: impl FnOnce() + Send + 'static) {
        *lock(&self.0) = Some(Box::new(stop_run));
    }

    /// Has the first signal set `stop` and wake `collector`.
    pub(crate) fn stop(self, stop: &Arc<StopFlag>, collector: Option<Collector>) {
        let stop = Arc::clone(stop);
        self.on_first(move || {
            stop.set();
            if let Some(collector) = collector {
                collector.wake();
            }
        });
    }
}
