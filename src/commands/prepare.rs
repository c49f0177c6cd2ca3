//! The parts that several commands are made of, from the options that they have in common.

use crate::annotate::annotator::Offer;
use crate::annotate::snmp::Agent;
use crate::annotation::Classes;
use crate::cli::{AllowSource, Common, Format, HostPort, PROGRAM};
use crate::collect::queue::Queue;
use crate::collect::run_state::RunState;
use crate::collect::state_file::{clock, read_bounded, StateFile, StateReadError};
use crate::commands::exporter::Exporter;
use crate::http::{self, Routes, Serving};
use crate::measure::baseline::escape;
use crate::measure::sla::{self, Rule};
use crate::measure::{Baseline, RunHistories};
use crate::node::accept::listen_addresses;
use crate::node::accept_limit::AdmissionLimits;
use crate::node::dial::NextHop;
use crate::node::http_edit::HttpFields;
use crate::node::link_auth::{self, Keys};
use crate::node::{Node, NodeSettings};
use crate::origin::Origin;
use crate::output::{Output, OutputError};
use crate::publish::metrics::{MetricsEndpoint, Watched};
use crate::publish::printer::Printer;
use crate::report::comparison;
use crate::session::admission::Accept;
use crate::session::allow::{parse_networks, Network};
use crate::sys;
use crate::time::Nanos;
use crate::wire::NodeRole;
use crate::FULL;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run without end keeps its blocks for so long.
const SPAN: Nanos = Nanos::from_millis(600_000);

/// Letters of an escaped target's name in the name of its state: 255 bytes, less what is added.
const NAME_MAX: usize = 200;

/// Returns the name of this node: that of `--node`, or of the host.
pub(crate) fn node_name(common: &Common) -> String {
    let name = common.node.clone().or_else(sys::host_name);
    name.unwrap_or_else(|| "unnamed".into())
}

/// Returns the settings of a node without a key and without limits.
pub(crate) fn settings(common: &Common, role: NodeRole) -> NodeSettings {
    NodeSettings {
        name: node_name(common),
        role,
        tags: common.tags.clone(),
        stamp: common.stamp,
        accept: Accept::Auto,
        remove: false,
        accept_proxy: false,
        send_proxy: None,
        timeout: common.timeout,
        drain: common.timeout,
        idle_timeout: common.idle_timeout,
        sample: common.sample,
        hop_limit: common.hop_limit,
        kernel_times: common.kernel_times,
        keys: Keys::default(),
        limits: AdmissionLimits::default(),
        server_check: None,
        http: HttpFields {
            write: common.http_write.clone(),
            server_timing: common.server_timing,
        },
        ask: common.ask,
        offer: offer(common),
    }
}

/// Returns the annotations that this node offers: without `--annotate` all that it has.
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

/// Reads the keys of `--key-file`; none without that option.
pub(crate) fn keys(common: &Common) -> Result<Keys, String> {
    let keys = Keys::default();
    if let Some(key) = &common.key {
        keys.set(vec![key.clone()]);
    } else if let Some(path) = &common.key_file {
        keys.set(link_auth::read(path)?);
    }
    Ok(keys)
}

/// Reads the networks of `--allow`, those of its files included.
pub(crate) fn networks(allow: &[AllowSource]) -> Result<Vec<Network>, String> {
    let mut networks = Vec::new();
    for source in allow {
        match source {
            AllowSource::Network(network) => networks.push(*network),
            AllowSource::File(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("read {shown}: {error}"))?;
                let read = parse_networks(&text);
                networks.extend(read.map_err(|error| format!("--allow @{shown} {error}"))?);
            }
        }
    }
    Ok(networks)
}

/// Resolves the address of a next hop.
pub(crate) fn next_hop(common: &Common, endpoint: &HostPort) -> Result<NextHop, String> {
    let host = endpoint.host.as_deref().unwrap_or("localhost");
    let next_hop = NextHop::resolve(host, endpoint.port, common.timeout);
    let next_hop = next_hop.map_err(|error| format!("cannot {error}"))?;
    Ok(next_hop.with_socket(&common.socket))
}

/// Opens the output of results, before anything is measured; `otherwise` stands for no `--report`.
pub fn printer(common: &Common, otherwise: Output) -> Result<Printer, OutputError> {
    let format = common.format.unwrap_or(Format::Text);
    let output = Output::open(common.report.as_deref(), otherwise, format.has_lines())?;
    let printer = Printer::new(output, format);
    printer.with_page(common.report_html.as_deref())
}

/// Reads the file that `--baseline` names.
fn baseline(path: &Path) -> Result<Baseline, OutputError> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let error = |cause| OutputError::reading(path, cause);
    let text = read_bounded(path).map_err(|cause| match cause {
        StateReadError::Io(cause) => error(cause),
        StateReadError::Foreign(what) => error(invalid(what)),
    })?;
    // The small build reads states alone.
    let state = if FULL && text.trim_start().starts_with('{') {
        comparison::parse_report(&text)
            .and_then(|report| report.baseline())
            .map_err(|what| error(invalid(what)))?
    } else {
        let read = RunHistories::parse(&text);
        read.map_err(|what| error(invalid(what.to_string())))?.state
    };
    Ok(Baseline::Earlier(Arc::new(state), clock()))
}

/// Returns the empty state of a run, whose file is that of `--state`.
pub(crate) fn run_state(
    common: &Common,
    role: NodeRole,
    endless: bool,
) -> Result<RunState, OutputError> {
    run_state_of(common, role, endless, common.state.clone())
}

/// Returns the empty state of a run whose file is `file`.
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
    if !common.socket.is_empty() {
        run_state = run_state.with_setting(common.socket.to_string());
    }
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

/// Returns the file in `directory` (`--state DIR/`) that has the state of the target `name`.
pub(crate) fn state_in(directory: &Path, name: &str) -> PathBuf {
    let mut file = escape(name);
    // A long name is no file name.
    file.truncate(NAME_MAX);
    directory.join(format!("{file}.state"))
}

/// Returns the rules of the file of `--rules`, then the limits of the command line.
pub fn rules(common: &Common) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    if let Some(path) = &common.rules {
        rules = read_rules(path)?;
    }
    rules.extend(common.limits.iter().cloned());
    Ok(rules)
}

/// Reads the rules of the file at `path`.
pub(crate) fn read_rules(path: &Path) -> Result<Vec<Rule>, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {name}: {error}"))?;
    sla::parse(&text).map_err(|error| format!("{name}: {error}"))
}

/// Adds the rules to the state of a run. With rules that request annotations, the collector takes
/// each measurement at once.
pub fn watching(run_state: RunState, rules: Vec<Rule>, node: &Node) -> RunState {
    if rules.iter().any(|rule| !rule.asks.is_empty()) {
        node.collector.be_prompt();
    }
    run_state.watching(rules.into(), &node.requests)
}

/// Returns the near end of a path without a session, and the queue of its measurements.
pub fn origin(common: &Common, keys: &Keys, next_hop: NextHop) -> (Origin, Queue) {
    let settings = NodeSettings {
        keys: keys.clone(),
        ..settings(common, NodeRole::Source)
    };
    let (node, queue) = Node::new(settings, Some(next_hop));
    (Origin::new(node), queue)
}

/// Serves the metrics of `watched` over HTTP and writes them to a file, as the options demand.
pub fn publish(
    common: &Common,
    keys: &Keys,
    watched: Vec<Watched>,
    endless: bool,
) -> Result<Published, String> {
    let file = common.metrics_file.clone();
    if common.metrics_listen.is_none() && file.is_none() {
        return Ok(Published::default());
    }
    let metrics = MetricsEndpoint::new(watched);
    let mut serving = None;
    let thread = |error| format!("start a thread: {error}");
    if let Some(listen) = &common.metrics_listen {
        let addresses = listen_addresses(listen.host.as_deref(), listen.port, common.timeout)
            .map_err(|error| format!("resolve {listen}: {error}"))?;
        let listeners = http::bind(PROGRAM, &addresses)?;
        let routes =
            routes(common, keys, &metrics).known_as(listen.host.as_deref().unwrap_or_default());
        serving = Some(http::serve(listeners, routes).map_err(thread)?);
    }
    if let Some(file) = &file {
        // Now, so that a bad path is an error before anything is measured.
        metrics.write(file).map_err(|error| error.to_string())?;
        if endless {
            metrics.keep_file(file.clone()).map_err(thread)?;
        }
    }
    Ok(Published {
        metrics: Some(metrics),
        serving,
        file,
    })
}

/// Returns the routes of the HTTP server.
pub fn routes(common: &Common, keys: &Keys, metrics: &Arc<MetricsEndpoint>) -> Routes {
    let mut routes = metrics.routes();
    if FULL && !common.probe_allow.is_empty() {
        let settings = NodeSettings {
            keys: keys.clone(),
            ..settings(common, NodeRole::Source)
        };
        // A node that also probes has a file for itself.
        let states = common.state.clone().filter(|path| path.is_dir());
        let exporter = Exporter::new(settings, common.probe_allow.clone(), states)
            .with_socket(common.socket.clone());
        routes = routes.with("/probe", move |request| exporter.answer(request));
    }
    routes
}

/// The metrics of a process on their ways out.
#[derive(Default)]
pub struct Published {
    /// `None` if nothing is published.
    pub metrics: Option<Arc<MetricsEndpoint>>,
    serving: Option<Serving>,
    /// The file of metrics, which is written at the end too.
    file: Option<PathBuf>,
}

impl Published {
    /// Closes the port, so that a successor may open it.
    pub fn close_port(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.close();
        }
    }

    /// Writes the file, if there is one.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub fn finish(self) -> Result<(), OutputError> {
        match (self.metrics, self.file) {
            (Some(metrics), Some(file)) => metrics.write(&file),
            _ => Ok(()),
        }
    }
}
