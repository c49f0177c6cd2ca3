//! The command `exporter`: `/probe?target=ADDR&count=N&interval=SECONDS&size=BYTES` probes a path
//! on request of Prometheus, in the manner of its blackbox exporter. The thread of the request
//! collects; the two threads of the path are those of any probe.

use crate::cli::targets::Allowed;
use crate::cli::{Common, ExitCode, HostPort};
use crate::collect::run::Run;
use crate::collect::run_state::RunState;
use crate::collect::state_file::StateFile;
use crate::commands::prepare::{keys, publish, state_in};
use crate::commands::probe::{self, Plan};
use crate::commands::reload::Reload;
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::decimal::decimal;
use crate::http::{Request, Response};
use crate::measure::Baseline;
use crate::node::dial::NextHop;
use crate::node::{Node, NodeSettings, StopFlag};
use crate::origin::Origin;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::report::prometheus::{render, Exposition, NodeFigures, Observed, ProbeOutcome};
use crate::report::{Report, State};
use crate::sys::{self, SocketOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// The most probes at a time.
const PROBES: usize = 8;
/// The most blocks of one probe.
const COUNT: u64 = 1_000;
/// The largest payload of a block.
const SIZE: usize = 1 << 20;
/// The shortest time between two blocks.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// The longest time of a probe whose request does not limit it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest time of any probe, so that a request cannot hold its place for days.
const LONGEST: Duration = Duration::from_secs(300);
/// The part of the requested time that is left for the way of the answer.
const MARGIN: Duration = Duration::from_millis(250);
/// The shortest timeout of an operation.
const SHORTEST: Duration = Duration::from_millis(50);

/// Runs the command `exporter`: a process that probes on request over HTTP.
///
/// # Errors
///
/// [`Failure`] if the address cannot be served.
pub fn run(common: &Common, signals: Signals, stop: &Arc<StopFlag>) -> Result<ExitCode, Failure> {
    let keys = keys(common).map_err(Failure::failed)?;
    publish(common, &keys, Vec::new(), true).map_err(Failure::failed)?;
    signals.on_hangup(Reload::default().with_keys(common, &keys));
    signals.stop(stop, None);
    notify::ready();
    stop.wait_set();
    Ok(ExitCode::Done)
}

/// Answers requests for probes.
pub struct Exporter {
    settings: NodeSettings,
    socket: SocketOptions,
    allowed: Vec<Allowed>,
    /// The directory with a state for each target; `None` keeps none.
    states: Option<PathBuf>,
    busy: AtomicUsize,
}

/// The parameters of a request.
#[derive(Clone, Debug, PartialEq)]
struct ProbeRequest {
    target: HostPort,
    plan: Plan,
    /// The longest wait of one operation.
    timeout: Duration,
}

impl Exporter {
    /// Returns an exporter that probes the targets of `allowed` as the node of `settings`. `states`
    /// is the directory with a state for each target.
    pub fn new(settings: NodeSettings, allowed: Vec<Allowed>, states: Option<PathBuf>) -> Self {
        Self {
            settings,
            socket: SocketOptions::default(),
            allowed,
            states,
            busy: AtomicUsize::new(0),
        }
    }

    /// Sets the options of the sockets that probe.
    #[must_use]
    pub fn with_socket(mut self, options: SocketOptions) -> Self {
        self.socket = options;
        self
    }

    /// Probes, and returns the metrics.
    pub fn answer(&self, request: &Request) -> Response {
        let wanted = match parse_request(request, self.settings.timeout) {
            Ok(wanted) => wanted,
            Err(text) => return Response::text(400, &text),
        };
        if !self
            .allowed
            .iter()
            .any(|allowed| allowed.allows(&wanted.target))
        {
            let target = &wanted.target;
            let text =
                format!("target {target} is not allowed here: start with --probe-allow {target}");
            return Response::text(403, &text);
        }
        let Some(_busy) = Busy::begin(&self.busy) else {
            return Response::text(503, "too many probes at a time");
        };
        let exposition = Exposition::accepted(&request.accept);
        let (report, probed) = self.probe(&wanted);
        let observed = [Observed {
            path: None,
            report: report.as_ref(),
            figures: NodeFigures {
                name: self.settings.name.clone(),
                role: "probe".into(),
                path_up: Some(probed.success),
                carried: None,
                probed: Some(probed),
            },
        }];
        Response::ok(exposition.content_type(), render(&observed, exposition))
    }

    fn probe(&self, wanted: &ProbeRequest) -> (Option<Report>, ProbeOutcome) {
        let begun = sys::clock::mono();
        let report = self.run(wanted);
        let duration = sys::clock::mono().since(begun);
        let success = report.as_ref().is_ok_and(|report| {
            let blocks = report.blocks;
            blocks.sent > 0 && blocks.received == blocks.sent
        });
        let report = match report {
            Ok(report) => Some(report),
            Err(text) => {
                log::warn!("metrics: probe of {}: {text}", wanted.target);
                None
            }
        };
        (report, ProbeOutcome { success, duration })
    }

    fn run(&self, wanted: &ProbeRequest) -> Result<Report, String> {
        let host = wanted.target.host.as_deref().unwrap_or_default();
        let next_hop = NextHop::resolve(host, wanted.target.port, wanted.timeout)
            .map_err(|error| error.to_string())?
            .with_socket(&self.socket);
        let settings = NodeSettings {
            timeout: wanted.timeout,
            ..self.settings.clone()
        };
        let started = sys::clock::read().wall;
        let mut state = RunState::new(&settings.name, "source", started, Baseline::Run);
        if let Some(directory) = &self.states {
            let file = state_in(directory, &wanted.target.to_string());
            state = state.keeping(StateFile::open(file));
        }
        let (node, queue) = Node::new(settings, Some(next_hop));
        let origin = Arc::new(Origin::new(node).probing());
        let latest = Arc::clone(&origin.node.latest);
        latest.keep_last();
        let stop = Arc::new(StopFlag::default());
        let mut run = Run::new(queue, Arc::clone(&latest), state, Printer::silent());
        let (_, written) = probe::measure(&[origin], &mut run, wanted.plan, &stop);
        written.map_err(|error| error.to_string())?;
        let report = latest.newest().ok_or("no thread could be started")?;
        Ok(Arc::unwrap_or_clone(report))
    }
}

/// A probe under way, which is counted until it is dropped, also by a panic.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn begin(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::AcqRel);
        let busy = Self(count);
        (before < PROBES).then_some(busy)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Parses the parameters; the error names the wrong one.
fn parse_request(request: &Request, timeout: Duration) -> Result<ProbeRequest, String> {
    let target = request
        .parameter("target")
        .ok_or("no target: ask for /probe?target=host:port")?;
    let target = HostPort::hop(target).map_err(|reason| format!("target {target:?} {reason}"))?;
    let number = |name: &str, otherwise: u64, most: u64| {
        let Some(text) = request.parameter(name) else {
            return Ok(otherwise);
        };
        let number = text.parse().ok().filter(|number| *number <= most);
        number.ok_or_else(|| format!("{name} {text:?} is no number up to {most}"))
    };
    let count = number("count", 5, COUNT)?.max(1);
    let size = number("size", 64, SIZE as u64)?;
    let interval = match request.parameter("interval") {
        None => Duration::from_millis(20),
        Some(text) => {
            let seconds = decimal(text);
            let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let interval = interval.filter(|interval| *interval >= SHORTEST_INTERVAL);
            interval
                .ok_or_else(|| format!("interval {text:?} is no number of seconds from 0.001 on"))?
        }
    };
    let patience = request
        .scrape_timeout
        .map_or(PATIENCE, |span| span.min(LONGEST).saturating_sub(MARGIN));
    let lasts = interval.saturating_mul(count as u32 - 1);
    // A resolver, a connect, and a missing answer may each take this time besides the plan.
    let left = patience.saturating_sub(lasts) / 4;
    if left < SHORTEST {
        return Err(format!(
            "count {count} at interval {interval:?} takes {lasts:?}, too long for an answer within \
             {patience:?}"
        ));
    }
    Ok(ProbeRequest {
        target,
        plan: Plan {
            count: Some(count),
            interval,
            size: size as usize,
            on_timeout: State::Critical,
            asks: false, // The scraper waits no longer.
        },
        timeout: left.min(timeout),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &[(&str, &str)]) -> Request {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Request {
            query: query.iter().map(owned).collect(),
            scrape_timeout: Some(Duration::from_secs(4)),
            ..Request::default()
        }
    }

    #[test]
    fn a_request_becomes_a_plan_that_ends_in_time() {
        let wanted = parse_request(
            &request(&[("target", "b:9000"), ("count", "51"), ("interval", "0.01")]),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(wanted.target.to_string(), "b:9000");
        assert_eq!((wanted.plan.count, wanted.plan.size), (Some(51), 64));
        let lasts = wanted.plan.interval * 50 + wanted.timeout * 4;
        assert!(lasts < Duration::from_secs(4), "{wanted:?}");
    }

    #[test]
    fn a_wrong_parameter_is_refused_with_the_reason() {
        for (query, part) in [
            (&[][..], "no target"),
            (&[("target", "b")], "target \"b\" has no port"),
            (&[("target", ":1")], "names no host"),
            (
                &[("target", "b:1"), ("count", "1001")],
                "no number up to 1000",
            ),
            (
                &[("target", "b:1"), ("size", "1048577")],
                "no number up to 1048576",
            ),
            (&[("target", "b:1"), ("interval", "0")], "from 0.001 on"),
            (&[("target", "b:1"), ("interval", "NaN")], "from 0.001 on"),
            (&[("target", "b:1"), ("interval", "1e300")], "from 0.001 on"),
            (&[("target", "b:1"), ("interval", "2")], "too long"),
        ] {
            let error = parse_request(&request(query), Duration::from_secs(10)).unwrap_err();
            assert!(error.contains(part), "{query:?}: {error}");
        }
    }

    #[test]
    fn a_request_without_a_time_limit_holds_its_place_for_minutes_at_most() {
        let mut request = request(&[("target", "b:1"), ("count", "1000"), ("interval", "3600")]);
        request.scrape_timeout = Some(Duration::from_secs(1 << 40));
        let error = parse_request(&request, Duration::from_secs(10)).unwrap_err();
        assert!(error.contains("too long"), "{error}");
    }

    #[test]
    fn beyond_the_bound_a_probe_is_refused() {
        let count = AtomicUsize::new(0);
        let many: Vec<_> = (0..PROBES).map(|_| Busy::begin(&count)).collect();
        assert!(many.iter().all(Option::is_some) && Busy::begin(&count).is_none());
        drop(many);
        assert!(Busy::begin(&count).is_some());
    }
}
