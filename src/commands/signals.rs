//! SIGINT and SIGTERM: the first ends a run in order, the second at once. SIGHUP reads files of
//! options again, SIGUSR1 writes the report.

use crate::cli::ExitCode;
use crate::collect::queue::Collector;
use crate::commands::reload::Reload;
use crate::node::{Node, StopFlag};
use crate::publish::{notify, screen};
use crate::sync::{lock, spawn, LARGE_STACK};
use crate::sys::{self, Signal, StopSignals};
use std::sync::{Arc, Mutex};

/// The thread that ends the process. It does so at the first signal until a run can be stopped,
/// then at the second. A resolver or a pipe without a reader may come before.
pub struct Signals(Arc<Mutex<Actions>>);

/// The actions of a run on signals.
#[derive(Default)]
struct Actions {
    stop: Option<Box<dyn FnOnce() + Send>>,
    reload: Option<Reload>,
    report: Option<Box<dyn Fn() + Send>>,
    /// SIGHUP came before there was a reload.
    hung_up: bool,
}

impl Signals {
    /// Starts the thread; `cut_off` is the exit code of a process that a signal ends at once.
    ///
    /// `reloads` is `true` for a command that reads files again. With a controlling terminal, and
    /// in other commands, SIGHUP ends the run as SIGTERM does.
    pub(crate) fn watch(signals: StopSignals, cut_off: ExitCode, reloads: bool) -> Self {
        let reloads = reloads && !sys::has_terminal();
        let this = Self(Arc::default());
        let actions = Arc::clone(&this.0);
        let watching = spawn("signal", LARGE_STACK, move || {
            let until_stop = || loop {
                match signals.wait() {
                    Signal::Hangup if reloads => {
                        let mut actions = lock(&actions);
                        match &actions.reload {
                            Some(reload) => reload.run(),
                            None => actions.hung_up = true,
                        }
                    }
                    Signal::Report => {
                        if let Some(report) = &lock(&actions).report {
                            report();
                        }
                    }
                    Signal::Hangup | Signal::Stop => break,
                }
            };
            until_stop();
            let stop = lock(&actions).stop.take();
            if let Some(stop) = stop {
                // What they refer to ends with the run.
                let mut actions = lock(&actions);
                actions.reload = None;
                actions.report = None;
                drop(actions);
                notify::stopping();
                stop();
                until_stop();
                screen::restore();
            }
            std::process::exit(cut_off.number().into());
        });
        if let Err(error) = watching {
            log::error!("main: cannot start a thread: {error}; signals have no effect");
        }
        this
    }

    /// Has SIGHUP read the files of `reload` again from now on.
    pub(crate) fn on_hangup(&self, reload: Reload) {
        let mut actions = lock(&self.0);
        if std::mem::take(&mut actions.hung_up) {
            reload.run();
        }
        actions.reload = Some(reload);
    }

    /// Has SIGUSR1 call `report` from now on.
    pub(crate) fn on_report(&self, report: impl Fn() + Send + 'static) {
        lock(&self.0).report = Some(Box::new(report));
    }

    /// Has SIGUSR1 write the report of a run where its end would.
    pub(crate) fn report(&self, node: &Node) {
        let (latest, collector) = (Arc::clone(&node.latest), node.collector.clone());
        self.on_report(move || {
            latest.order_print();
            collector.wake();
        });
    }

    /// Has the first signal call `stop_run` from now on.
    pub fn on_first(&self, stop_run: impl FnOnce() + Send + 'static) {
        lock(&self.0).stop = Some(Box::new(stop_run));
    }

    /// Has the first signal set `stop` and wake `collector`.
    pub(crate) fn stop(&self, stop: &Arc<StopFlag>, collector: Option<Collector>) {
        let stop = Arc::clone(stop);
        self.on_first(move || {
            stop.set();
            if let Some(collector) = collector {
                collector.wake();
            }
        });
    }
}
