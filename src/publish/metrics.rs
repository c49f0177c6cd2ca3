//! What the endpoint and the metrics file show: the newest reports and the live counts of this process.
//!
//! Nothing is done while nobody looks: a scrape asks the collectors for a report each, and they make it on their own
//! thread, between two batches.

use crate::collect::latest::LatestReport;
use crate::collect::queue::Collector;
use crate::http::{Request, Response, Routes};
use crate::node::accept::ServerView;
use crate::origin::session::Origin;
use crate::output::{replace, OutputError};
use crate::publish::sessions;
use crate::report::prometheus::{render, Carried, Exposition, NodeFigures, Observed};
use crate::report::{html, Report};
use crate::sync::lock;
use crate::FULL;
use crossbeam_channel::{never, Receiver};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long a scrape waits for its report; a collector that is that far behind shows its one before.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the metrics file of a process without end is written.
const EVERY: Duration = Duration::from_secs(15);

/// One path or node that is shown.
pub struct Watched {
    path: Option<String>,
    latest: Arc<LatestReport>,
    collector: Collector,
    figures: Box<dyn Fn() -> NodeFigures + Send + Sync>,
    /// Where it is a node that listens.
    listening: Option<ServerView>,
}

impl Watched {
    /// A node that listens.
    pub fn node(watch: ServerView) -> Self {
        let node = watch.node();
        let (latest, collector) = (Arc::clone(&node.latest), node.collector.clone());
        let listening = Some(watch.clone());
        let figures = move || {
            let (open, totals) = watch.totals();
            let traffic = totals.traffic;
            let settings = &watch.node().settings;
            NodeFigures {
                name: settings.name.clone(),
                role: settings.role.name().to_owned(),
                carried: Some(Carried {
                    open,
                    connections: totals.connections,
                    failed: totals.failed,
                    refused: totals.refused,
                    bytes: [traffic.forward_bytes, traffic.return_bytes],
                    blocks: [traffic.forward_blocks, traffic.return_blocks],
                    reports_dropped: traffic.reports_dropped,
                }),
                ..NodeFigures::default()
            }
        };
        Self {
            listening,
            ..Self::new(None, latest, collector, figures)
        }
    }

    /// A source or probe; `path` tells it from others in this process.
    pub fn origin(origin: &Arc<Origin>, role: &'static str, path: Option<String>) -> Self {
        let origin = Arc::clone(origin);
        let node = &origin.node;
        let (latest, collector) = (Arc::clone(&node.latest), node.collector.clone());
        let figures = move || NodeFigures {
            name: origin.node.settings.name.clone(),
            role: role.to_owned(),
            path_up: Some(origin.stands()),
            ..NodeFigures::default()
        };
        Self::new(path, latest, collector, figures)
    }

    fn new(
        path: Option<String>,
        latest: Arc<LatestReport>,
        collector: Collector,
        figures: impl Fn() -> NodeFigures + Send + Sync + 'static,
    ) -> Self {
        latest.keep_last();
        Self {
            path,
            latest,
            collector,
            figures: Box::new(figures),
            listening: None,
        }
    }
}

/// All that this process shows.
pub struct Metrics(Vec<Watched>, Mutex<()>);

impl Metrics {
    /// Of these.
    pub fn new(watched: Vec<Watched>) -> Arc<Self> {
        Arc::new(Self(watched, Mutex::default()))
    }

    /// A report of each, made now, in the order given; `None` where nothing has been measured.
    pub fn reports(&self) -> Vec<Option<Arc<Report>>> {
        let asked = Instant::now();
        for one in &self.0 {
            one.latest.ask(&one.collector);
        }
        let wait = |one: &Watched| one.latest.wait(asked, asked + PATIENCE);
        self.0.iter().map(wait).collect()
    }

    /// The live page of the path `path`; of the only one there is; or else a list of all.
    fn page(&self, path: Option<&str>) -> Response {
        if !FULL {
            return Response::text(404, "this build has no pictures: see /metrics");
        }
        const HTML: &str = "text/html; charset=utf-8";
        let asked = Instant::now();
        let one = match (&self.0[..], path) {
            ([only], _) => Some(only),
            (all, path) => all
                .iter()
                .find(|one| path.is_some() && one.path.as_deref() == path),
        };
        let Some(one) = one else {
            if path.is_some() {
                return Response::text(404, "there is no such path");
            }
            let names = self
                .0
                .iter()
                .map(|one| one.path.as_deref().unwrap_or("path"));
            let paths: Vec<_> = names.zip(self.reports()).collect();
            return Response::ok(HTML, html::list(&paths));
        };
        one.latest.ask_pictured(&one.collector);
        match one.latest.wait_pictured(asked, asked + PATIENCE) {
            Some(report) => Response::ok(HTML, html::render(&report, html::Page::Live)),
            None => Response::text(503, "there is no report yet"),
        }
    }

    /// The metrics as they are now.
    pub fn text(&self, exposition: Exposition) -> String {
        let reports = self.reports();
        let observed = self.0.iter().zip(reports);
        let observed = observed.map(|(one, report)| Observed {
            path: one.path.as_deref(),
            report,
            figures: (one.figures)(),
        });
        render(&observed.collect::<Vec<_>>(), exposition)
    }

    /// Whether a path stands, of those that begin here; nodes that only listen are well as long as they answer.
    fn is_well(&self) -> bool {
        let mut paths = self.0.iter().filter_map(|one| (one.figures)().path_up);
        paths
            .next()
            .map_or(true, |first| first || paths.any(|up| up))
    }

    /// The routes that every process offers, and `/sessions` of a node that listens.
    pub fn routes(self: &Arc<Self>) -> Routes {
        let metrics = Arc::clone(self);
        let health = Arc::clone(self);
        let page = Arc::clone(self);
        let routes = Routes::default()
            .with("/", move |request: &Request| {
                page.page(request.parameter("path"))
            })
            .with("/metrics", move |request: &Request| {
                let exposition = Exposition::accepted(&request.accept);
                Response::ok(exposition.content_type(), metrics.text(exposition))
            })
            .with("/healthz", move |_| {
                if health.is_well() {
                    Response::text(200, "ok")
                } else {
                    Response::text(503, "the path is down")
                }
            });
        match self.0.iter().find_map(|one| one.listening.clone()) {
            None => routes,
            Some(watch) if watch.node().sessions.is_some() => {
                routes.with_pieces("/sessions", "application/x-ndjson", move |take| {
                    let settings = &watch.node().settings;
                    sessions::write_open(&settings.name, settings.role.name(), watch.open(), take)
                })
            }
            Some(_) => routes.with("/sessions", |_| {
                let remedy =
                    "no books are kept of connections: start the node with --sessions FILE";
                Response::text(404, remedy)
            }),
        }
    }

    /// Writes the metrics to a file, which a reader sees whole: as it was or as it is.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn write(&self, path: &Path) -> Result<(), OutputError> {
        // One after the other: at the end of a run the thread that keeps the file may be at it too.
        let _turn = lock(&self.1);
        replace(path, &self.text(Exposition::Text))
    }

    /// Writes the file now and then, on a thread that ends with the process.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub fn keep_file(self: &Arc<Self>, path: PathBuf) -> io::Result<()> {
        let metrics = Arc::clone(self);
        let tick: Receiver<()> = never();
        Builder::new()
            .name("metrics file".into())
            .spawn(move || loop {
                let _ = tick.recv_timeout(EVERY); // There is nothing to be woken by.
                if let Err(error) = metrics.write(&path) {
                    log::error!("metrics: {error}");
                }
            })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_file_is_written_whole_also_where_two_write_it_at_a_time() {
        let path = std::env::temp_dir().join(format!("sts-metrics-{}", std::process::id()));
        let metrics = Metrics::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        metrics.write(&path).unwrap();
                    }
                });
            }
        });
        let written = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written, metrics.text(Exposition::Text));
    }
}
