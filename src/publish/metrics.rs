//! The metrics endpoint and the metrics file: the newest reports and the live counts of this
//! process.
//!
//! A scrape requests a report from each collector, which makes it on its own thread, between two
//! batches. Without a scrape there is no work.

use crate::collect::latest::LatestReport;
use crate::collect::queue::Collector;
use crate::http::{Request, Response, Routes};
use crate::node::accept::ServerView;
use crate::origin::Origin;
use crate::output::{replace, OutputError};
use crate::publish::sessions;
use crate::report::prometheus::{render, Carried, Exposition, NodeFigures, Observed};
use crate::report::{html, Report};
use crate::sync::channel::channel;
use crate::sync::{lock, spawn, LARGE_STACK};
use crate::FULL;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time for which a scrape waits for a new report before it shows the last one.
const PATIENCE: Duration = Duration::from_secs(2);
/// The interval at which the metrics file of a process without end is written.
const EVERY: Duration = Duration::from_secs(15);

const HTML: &str = "text/html; charset=utf-8";

/// A path or a node whose metrics are shown.
pub struct Watched {
    path: Option<String>,
    latest: Arc<LatestReport>,
    collector: Collector,
    figures: Box<dyn Fn() -> NodeFigures + Send + Sync>,
    /// The server of a node that listens; `None` for a path.
    listening: Option<ServerView>,
}

impl Watched {
    /// Returns the metrics of a node that listens.
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
                    http_passed: settings.http.any().then(|| watch.node().http_passed()),
                }),
                ..NodeFigures::default()
            }
        };
        Self {
            listening,
            ..Self::new(None, latest, collector, figures)
        }
    }

    /// Returns the metrics of a source or probe; `path` is its name among others in this process.
    /// Its `flows` share one node; the path is up if each of them is.
    pub fn origin(flows: &[Arc<Origin>], role: &'static str, path: Option<String>) -> Self {
        let flows = flows.to_vec();
        let node = Arc::clone(&flows[0].node);
        let (latest, collector) = (Arc::clone(&node.latest), node.collector.clone());
        let figures = move || NodeFigures {
            name: node.settings.name.clone(),
            role: role.to_owned(),
            path_up: Some(flows.iter().all(|flow| flow.is_established())),
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

/// The metrics of a process: all that it shows, and the lock of the metrics file.
pub struct MetricsEndpoint(Mutex<Vec<Arc<Watched>>>, Mutex<()>);

impl MetricsEndpoint {
    /// Returns the metrics of `watched`.
    pub fn new(watched: Vec<Watched>) -> Arc<Self> {
        let watched = watched.into_iter().map(Arc::new).collect();
        Arc::new(Self(Mutex::new(watched), Mutex::default()))
    }

    /// Replaces what is shown.
    pub fn set(&self, watched: Vec<Arc<Watched>>) {
        *lock(&self.0) = watched;
    }

    fn watched(&self) -> Vec<Arc<Watched>> {
        lock(&self.0).clone()
    }

    /// Requests a report of each and returns them in order; `None` if nothing has been measured.
    pub fn reports(&self) -> Vec<Option<Arc<Report>>> {
        reports(&self.watched())
    }

    /// Returns the live page of `path`, or of the only one; otherwise a list of all.
    fn page(&self, path: Option<&str>) -> Response {
        if !FULL {
            return Response::text(404, "this build has no pictures: see /metrics");
        }
        let requested = Instant::now();
        let watched = self.watched();
        let one = match (&watched[..], path) {
            ([only], path) if only.listening.is_some() => {
                return page_of_node(only, path, requested)
            }
            ([only], _) => Some(only),
            (all, path) => all
                .iter()
                .find(|one| path.is_some() && one.path.as_deref() == path),
        };
        let Some(one) = one else {
            if path.is_some() {
                return Response::text(404, "there is no such path");
            }
            let names = watched.iter();
            let names = names.map(|one| one.path.as_deref().unwrap_or("path"));
            let reports = reports(&watched);
            let paths: Vec<_> = names.zip(reports.iter().map(Option::as_deref)).collect();
            return Response::ok(HTML, html::list(&paths));
        };
        one.latest.request_pictured(&one.collector);
        match one.latest.wait_pictured(requested, requested + PATIENCE) {
            Some(report) => Response::ok(HTML, html::render(&report, html::Page::Live)),
            None => Response::text(503, "there is no report yet"),
        }
    }

    /// Returns the metrics of this moment.
    pub fn text(&self, exposition: Exposition) -> String {
        let watched = self.watched();
        let observed = watched.iter().zip(reports(&watched));
        let observed = observed.map(|(one, report)| Observed {
            path: one.path.as_deref(),
            report,
            figures: (one.figures)(),
        });
        render(&observed.collect::<Vec<_>>(), exposition)
    }

    /// Returns `true` if a path that begins here is established, or if none begins here.
    fn is_well(&self) -> bool {
        let watched = self.watched();
        let mut paths = watched.iter().filter_map(|one| (one.figures)().path_up);
        paths
            .next()
            .map_or(true, |first| first || paths.any(|up| up))
    }

    /// Returns the routes that every process offers, and `/sessions` of a node that listens.
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
        let listening = self.watched().iter().find_map(|one| one.listening.clone());
        match listening {
            None => routes,
            Some(watch) if watch.node().sessions.is_some() => {
                routes.with_pieces("/sessions", "application/x-ndjson", move |take| {
                    let settings = &watch.node().settings;
                    sessions::write_open(&settings.name, settings.role.name(), watch.open(), take)
                })
            }
            Some(_) => routes.with("/sessions", |_| {
                let remedy = "connections are not recorded: start the node with --sessions FILE";
                Response::text(404, remedy)
            }),
        }
    }

    /// Replaces the metrics file as a whole.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn write(&self, path: &Path) -> Result<(), OutputError> {
        // At the end of a run the thread that keeps the file may write it too.
        let _guard = lock(&self.1);
        replace(path, &self.text(Exposition::Text))
    }

    /// Writes the file every 15 seconds, on a thread that ends with the process.
    ///
    /// # Errors
    ///
    /// As clone(2), if the thread cannot be started.
    pub fn keep_file(self: &Arc<Self>, path: PathBuf) -> io::Result<()> {
        let metrics = Arc::clone(self);
        spawn("metrics file", LARGE_STACK, move || {
            let (_open, tick) = channel::<()>(0);
            loop {
                let _ = tick.recv_timeout(EVERY); // Nothing wakes it earlier.
                if let Err(error) = metrics.write(&path) {
                    log::error!("metrics: {error}");
                }
            }
        })?;
        Ok(())
    }
}

/// Requests a report of each and returns them in order; `None` if nothing has been measured.
pub fn reports(watched: &[Arc<Watched>]) -> Vec<Option<Arc<Report>>> {
    let requested = Instant::now();
    for one in watched {
        one.latest.request(&one.collector);
    }
    let wait = |one: &Arc<Watched>| one.latest.wait(requested, requested + PATIENCE);
    watched.iter().map(wait).collect()
}

/// Returns the page of a node that listens: of its only path, of the one that is named, or a list.
fn page_of_node(node: &Watched, path: Option<&str>, requested: Instant) -> Response {
    node.latest.request_pictured(&node.collector);
    let Some(report) = node.latest.wait_pictured(requested, requested + PATIENCE) else {
        return Response::text(503, "there is no report yet");
    };
    if path.is_none() && report.others.is_empty() {
        return Response::ok(HTML, html::render(&report, html::Page::Live));
    }
    let mut paths = iter::once(&*report).chain(&report.others);
    let Some(path) = path else {
        let paths = paths.map(|one| {
            let name = one.label.as_deref().unwrap_or("path");
            (name, Some(one))
        });
        return Response::ok(HTML, html::list(&paths.collect::<Vec<_>>()));
    };
    match paths.find(|one| one.label.as_deref() == Some(path)) {
        Some(one) => Response::ok(HTML, html::render(one, html::Page::Live)),
        None => Response::text(404, "there is no such path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_file_is_whole_although_several_threads_write_it() {
        let path = std::env::temp_dir().join(format!("sts-metrics-{}", std::process::id()));
        let metrics = MetricsEndpoint::new(Vec::new());
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
