//! What the roles have in common: `Common` in, the parts that they are made of out.

use crate::annotate::annotator::Offer;
use crate::annotate::snmp::Agent;
use crate::annotation::Classes;
use crate::cli::{Common, Endpoint, Format, PROGRAM};
use crate::collect::queue::Queue;
use crate::collect::run_state::RunState;
use crate::collect::state_file::{read_bounded, ReadError, StateFile};
use crate::commands::exporter::Exporter;
use crate::http::{self, Routes};
use crate::measure::baseline::escape;
use crate::measure::sla::{self, Rule};
use crate::measure::{Baseline, State};
use crate::node::accept::listen_addresses;
use crate::node::dial::NextHop;
use crate::node::gate::AdmissionLimits;
use crate::node::link_auth;
use crate::node::{Node, NodeSettings};
use crate::origin::session::Origin;
use crate::output::{Output, OutputError};
use crate::publish::metrics::{Metrics, Watched};
use crate::publish::printer::Printer;
use crate::report::comparison;
use crate::session::admission::Accept;
use crate::sys;
use crate::time::Nanos;
use crate::wire::siphash::Key;
use crate::wire::NodeRole;
use crate::FULL;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run without end keeps its blocks for so long.
const SPAN: Nanos = Nanos::from_millis(600_000);

/// Letters of an escaped target's name in the name of its state: 255 bytes, less what is added.
const NAME_MAX: usize = 200;

pub(crate) fn node_name(common: &Common) -> String {
    let name = common.node.clone().or_else(sys::host_name);
    name.unwrap_or_else(|| "unnamed".into())
}

pub(crate) fn settings(common: &Common, role: NodeRole) -> NodeSettings {
    NodeSettings {
        name: node_name(common),
        role,
        tags: common.tags.clone(),
        stamp: common.stamp,
        accept: Accept::Auto,
        remove: false,
        timeout: common.timeout,
        idle_timeout: common.idle_timeout,
        sample: common.sample,
        hop_limit: common.hop_limit,
        kernel_times: common.kernel_times,
        key: None,
        limits: AdmissionLimits::default(),
        ask: common.ask,
        offer: offer(common),
    }
}

/// What this node tells when it is asked: without `--annotate` all that it has.
pub fn offer(common: &Common) -> Offer {
    let agent = common.snmp.as_ref().map(|endpoint| Agent {
        host: endpoint.host.clone().unwrap_or_default(),
        port: endpoint.port,
        community: common.snmp_community.clone(),
        objects: common.snmp_objects.clone(),
    });
    Offer {
        classes: common.annotate.unwrap_or(Classes::all()),
        agent,
    }
}

pub(crate) fn key(common: &Common) -> Result<Option<Key>, String> {
    let path = common.key_file.as_deref();
    path.map(link_auth::read).transpose()
}

pub(crate) fn next_hop(common: &Common, endpoint: &Endpoint) -> Result<NextHop, String> {
    let host = endpoint.host.as_deref().unwrap_or("localhost");
    NextHop::resolve(host, endpoint.port, common.timeout).map_err(|error| format!("cannot {error}"))
}

/// What the user wants to see, opened before anything is measured.
pub fn printer(common: &Common, otherwise: Output) -> Result<Printer, OutputError> {
    let format = common.format.unwrap_or(Format::Text);
    let stream = matches!(format, Format::Jsonl | Format::Csv | Format::Otlp);
    let output = Output::open(common.report.as_deref(), otherwise, stream)?;
    let printer = Printer::new(output, format);
    printer.with_page(common.report_html.as_deref())
}

/// The earlier runs in a file that `--baseline` names.
fn baseline(path: &Path) -> Result<Baseline, OutputError> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let error = |cause| OutputError::reading(path, cause);
    let text = read_bounded(path).map_err(|cause| match cause {
        ReadError::Io(cause) => error(cause),
        ReadError::Foreign(what) => error(invalid(what)),
    })?;
    let state = if text.trim_start().starts_with('{') {
        comparison::parse_report(&text)
            .and_then(|report| report.baseline())
            .map_err(|what| error(invalid(what)))?
    } else {
        let read = State::parse(&text);
        read.map_err(|what| error(invalid(what.to_string())))?.state
    };
    Ok(Baseline::Earlier(Arc::new(state)))
}

pub(crate) fn run_state(
    common: &Common,
    role: NodeRole,
    endless: bool,
) -> Result<RunState, OutputError> {
    run_state_of(common, role, endless, common.state.clone())
}

/// The run state of a path whose state is in `file`.
pub(crate) fn run_state_of(
    common: &Common,
    role: NodeRole,
    endless: bool,
    file: Option<PathBuf>,
) -> Result<RunState, OutputError> {
    let started = sys::clock::read().wall;
    let baseline = common.baseline.as_deref().map(baseline).transpose()?;
    let baseline = baseline.unwrap_or_default();
    let mut run_state = RunState::new(&node_name(common), role.name(), started, baseline);
    if let Some(window) = common.window {
        run_state = run_state.with_window(window.into());
    }
    if endless {
        run_state = run_state.without_end(SPAN);
    }
    if let Some(file) = file {
        run_state = run_state.keeping(StateFile::open(file));
    }
    Ok(run_state)
}

/// The file in `directory` (`--state DIR/`) that has the state of the target `name`.
pub(crate) fn state_in(directory: &Path, name: &str) -> PathBuf {
    let mut file = escape(name);
    // A long name is no file name.
    file.truncate(NAME_MAX);
    directory.join(format!("{file}.state"))
}

/// The rules of a file, then the limits of the command line.
pub fn rules(common: &Common) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    if let Some(path) = &common.rules {
        rules = read_rules(path)?;
    }
    rules.extend(common.limits.iter().cloned());
    Ok(rules)
}

pub(crate) fn read_rules(path: &Path) -> Result<Vec<Rule>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {name}: {error}"))?;
    sla::parse(&text).map_err(|error| format!("{name}: {error}"))
}

/// Has the run_state hold the path against the rules; where they ask something, measurements are looked at one by one.
pub fn watching(run_state: RunState, rules: Vec<Rule>, node: &Node) -> RunState {
    if rules.iter().any(|rule| !rule.asks.is_empty()) {
        node.collector.be_prompt();
    }
    run_state.watching(rules.into(), &node.requests)
}

/// The near end of a path, ready to call.
pub fn origin(common: &Common, next_hop: NextHop) -> Result<(Origin, Queue), String> {
    let key = key(common)?;
    let settings = NodeSettings {
        key,
        ..settings(common, NodeRole::Source)
    };
    let (node, queue) = Node::new(settings, Some(next_hop));
    Ok((Origin::new(node), queue))
}

/// Serves and keeps the metrics of what is `watched`, as far as they are wanted.
pub fn publish(common: &Common, watched: Vec<Watched>, endless: bool) -> Result<Published, String> {
    let file = common.metrics_file.clone();
    if common.metrics_listen.is_none() && file.is_none() {
        return Ok(Published(None));
    }
    let metrics = Metrics::new(watched);
    let thread = |error| format!("start a thread: {error}");
    if let Some(listen) = &common.metrics_listen {
        let addresses = listen_addresses(listen.host.as_deref(), listen.port, common.timeout)
            .map_err(|error| format!("resolve {listen}: {error}"))?;
        let listeners = http::bind(PROGRAM, &addresses)?;
        http::serve(listeners, routes(common, &metrics)?).map_err(thread)?;
    }
    if let Some(file) = &file {
        // Now, so that a bad path is told before anything is measured.
        metrics.write(file).map_err(|error| error.to_string())?;
        if endless {
            metrics.keep_file(file.clone()).map_err(thread)?;
        }
    }
    Ok(Published(file.map(|file| (metrics, file))))
}

/// What is answered over HTTP.
pub fn routes(common: &Common, metrics: &Arc<Metrics>) -> Result<Routes, String> {
    let mut routes = metrics.routes();
    if FULL && !common.probe_allow.is_empty() {
        let settings = NodeSettings {
            key: key(common)?,
            ..settings(common, NodeRole::Source)
        };
        // A node that also probes has a file for itself.
        let states = common.state.clone().filter(|path| path.is_dir());
        let exporter = Exporter::new(settings, common.probe_allow.clone(), states);
        routes = routes.with("/probe", move |request| exporter.answer(request));
    }
    Ok(routes)
}

/// The file of metrics, to be written at the end too.
pub struct Published(Option<(Arc<Metrics>, PathBuf)>);

impl Published {
    /// Writes it, if there is one.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn finish(self) -> Result<(), OutputError> {
        match self.0 {
            Some((metrics, file)) => metrics.write(&file),
            None => Ok(()),
        }
    }
}
