//! SIGINT and SIGTERM: the first ends a run in order, the second at once.

use crate::cli::ExitCode;
use crate::collect::queue::Collector;
use crate::node::StopFlag;
use crate::publish::{notify, screen};
use crate::sync::lock;
use crate::sys::StopSignals;
use std::sync::{Arc, Mutex};
use std::thread::Builder;

/// Ends the process: by the first signal as long as nothing is there to be asked (a resolver or a pipe without a reader
/// may take its time before), then by the second.
pub struct Signals(Arc<Mutex<Option<Ask>>>);

type Ask = Box<dyn FnOnce() + Send>;

impl Signals {
    pub(crate) fn watch(signals: StopSignals, cut_off: ExitCode) -> Self {
        let asked = Self(Arc::default());
        let asks = Arc::clone(&asked.0);
        let watching = Builder::new().name("signal".into()).spawn(move || {
            signals.wait();
            let ask = lock(&asks).take();
            if let Some(ask) = ask {
                notify::stopping();
                ask();
                signals.wait();
                screen::restore();
            }
            std::process::exit(cut_off.number().into());
        });
        if let Err(error) = watching {
            log::error!("main: cannot start a thread: {error}; signals will not be heard");
        }
        asked
    }

    /// From now on the first signal does this.
    pub fn ask(self, to_end: impl FnOnce() + Send + 'static) {
        *lock(&self.0) = Some(Box::new(to_end));
    }

    pub(crate) fn stop(self, stop: &Arc<StopFlag>, collector: Option<Collector>) {
        let stop = Arc::clone(stop);
        self.ask(move || {
            stop.set();
            if let Some(collector) = collector {
                collector.wake();
            }
        });
    }
}
