//! The command of a node that listens.

use crate::cli::{AllowSource, Common, ExitCode, HostPort, NodeConfig, PROGRAM};
use crate::collect::header_state::HeaderClocks;
use crate::collect::queue::Queue;
use crate::collect::run::Run;
use crate::commands::prepare::{
    keys, networks, next_hop, node_name, printer, publish, rules, run_state, settings, watching,
};
use crate::commands::reload::{check_file, Reload, RuledNode};
use crate::commands::signals::Signals;
use crate::commands::{done, Failure};
use crate::http::stamp::StampNames;
use crate::node::accept::{bind, listen_addresses, Server, ServerView, Totals};
use crate::node::accept_limit::AdmissionLimits;
use crate::node::connection_log::Sessions;
use crate::node::contain_panics;
use crate::node::dial::NextHop;
use crate::node::link_auth::Keys;
use crate::node::{Node, NodeSettings, StopFlag};
use crate::output::{print_error, Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::publish::sessions::{self, SessionsWriter};
use crate::session::admission::Accept;
use crate::session::allow::Network;
use crate::sys;
use crate::wire::NodeRole;
use crate::FULL;
use std::io;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::Builder;

/// Runs a node that listens, until a signal ends it.
///
/// # Errors
///
/// [`Failure`].
pub fn run(
    common: &Common,
    config: &NodeConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> Result<ExitCode, Failure> {
    contain_panics();
    let role = role(config);
    let thread = |error: io::Error| Failure::failed(format!("start a thread: {error}"));
    let rules = rules(common).map_err(|text| Failure::new(ExitCode::Usage, text))?;
    let endpoints = endpoints(common, config, role).map_err(Failure::failed)?;
    let state = run_state(common, role, true).map_err(Failure::failed)?;
    let state = state.within(config.max_memory);
    let printer = printer(common, Output::Stdout).map_err(Failure::failed)?;
    let sessions = common.sessions.as_deref().map(|path| {
        let names = FULL.then(|| StampNames::new(&common.http_read));
        let clocks = HeaderClocks::new(&common.http_clocks);
        sessions::start(path, &node_name(common), role.name(), names, clocks)
    });
    let (sessions, writer) = sessions.transpose().map_err(Failure::failed)?.unzip();
    let clocks = sessions.as_ref().filter(|_| !common.http_clocks.is_empty());
    let state = match clocks {
        Some(sessions) => state.with_clocks(sessions.clocks()),
        None => state,
    };
    let (mut server, queue, described) = prepare_node(common, config, role, sessions, endpoints);
    let watched = vec![Watched::node(server.watch())];
    let keys = &server.node().settings.keys;
    let mut published = publish(common, keys, watched, true).map_err(Failure::failed)?;
    let state = watching(state, rules, server.node()).labelled(&server.node().labels);
    let run = Run::new(queue, Arc::clone(&server.node().latest), state, printer);
    signals.on_hangup(reload(common, config, server.watch()));
    signals.report(server.node());
    signals.stop(stop, None);
    let collecting = Builder::new().name("collect".into()).spawn({
        let stop = Arc::clone(stop);
        move || collect(run, &stop)
    });
    let collecting = collecting.map_err(thread)?;
    // Last, so that no connection is begun if another part fails.
    server.accept().map_err(thread)?;
    print_error(&described);
    notify::ready();
    stop.wait_set();
    let collector = server.node().collector.clone();
    published.close_port();
    let totals = server.stop();
    stop.finish();
    collector.wake();
    let Ok(collected) = collecting.join() else {
        return Ok(ExitCode::Failed); // Its panic has been reported on stderr.
    };
    let finished = collected.and_then(|mut run| {
        run.drain()?;
        run.state.remark(describe(&totals));
        let blocks = run.state.measured_blocks(totals.traffic.forward_bytes);
        let written = run.finish(blocks, false);
        OutputError::all([written, published.finish()])
    });
    done(finished.and(writer.map_or(Ok(()), SessionsWriter::finish)))
}

/// Returns the files of a node that are read again.
fn reload(common: &Common, config: &NodeConfig, server: ServerView) -> Reload {
    let is_file = |source: &AllowSource| matches!(source, AllowSource::File(_));
    let keys = &server.node().settings.keys;
    let mut reload = Reload::default().with_keys(common, keys);
    let ruled = server.clone();
    reload = reload.with_rules(common, move || vec![RuledNode::of(ruled.node())]);
    if config.allow.iter().any(is_file) {
        let allow = config.allow.clone();
        reload = reload.with("--allow", move || {
            for source in &allow {
                if let AllowSource::File(path) = source {
                    check_file(path)?;
                }
            }
            let (networks, server) = (networks(&allow)?, server.clone());
            Ok(Box::new(move || server.set_allow(networks)))
        });
    }
    reload
}

fn role(config: &NodeConfig) -> NodeRole {
    match (&config.forward_to, config.accept, config.remove) {
        (None, ..) => NodeRole::Echo,
        (Some(_), Accept::Raw, true) => NodeRole::Proxy,
        (Some(_), Accept::Raw, false) => NodeRole::Entry,
        (Some(_), _, true) => NodeRole::Exit,
        (Some(_), _, false) => NodeRole::Relay,
    }
}

/// The neighbours of a node on the path.
struct Endpoints {
    keys: Keys,
    allow: Vec<Network>,
    next: Option<NextHop>,
    listeners: Vec<TcpListener>,
    /// The lines on stderr that name them.
    text: String,
}

/// Resolves the next hop and binds. This comes before any file is opened: a second process with the
/// same address then fails without a change to the files of the first.
fn endpoints(common: &Common, config: &NodeConfig, role: NodeRole) -> Result<Endpoints, String> {
    let keys = keys(common)?;
    let allow = networks(&config.allow)?;
    let next = config
        .forward_to
        .as_ref()
        .map(|endpoint| patient_next_hop(common, endpoint));
    let listen = &config.listen;
    let addresses = listen_addresses(listen.host.as_deref(), listen.port, common.timeout)
        .map_err(|error| format!("resolve {listen}: {error}"))?;
    let listeners = bind(&addresses, common.timeout, &common.socket)
        .map_err(|(address, error)| format!("listen on {address}: {error}"))?;
    let mut text = String::new();
    for listener in &listeners {
        let address = listener
            .local_addr()
            .map_err(|error| format!("listen on {listen}: {error}"))?;
        if next
            .as_ref()
            .is_some_and(|next| next.addresses().contains(&address))
        {
            return Err(format!(
                "--forward-to leads back to --listen {address}: a loop"
            ));
        }
        let next_hop = next
            .as_ref()
            .map_or_else(String::new, |next| format!(" to {}", next.target()));
        text.push_str(&format!(
            "{PROGRAM}: listening on {address} ({}{next_hop})\n",
            role.name()
        ));
    }
    Ok(Endpoints {
        keys,
        allow,
        next,
        listeners,
        text,
    })
}

/// Resolves the address of the next hop. A name that does not resolve, as before DNS is up, is
/// tried again by each connection.
fn patient_next_hop(common: &Common, endpoint: &HostPort) -> NextHop {
    next_hop(common, endpoint).unwrap_or_else(|error| {
        log::warn!("main: {error}; each connection tries it again");
        let host = endpoint.host.as_deref().unwrap_or("localhost");
        NextHop::unresolved(host, endpoint.port)
    })
}

/// Returns the node, which does not accept yet, with its queue and the lines that name it.
fn prepare_node(
    common: &Common,
    config: &NodeConfig,
    role: NodeRole,
    sessions: Option<Sessions>,
    endpoints: Endpoints,
) -> (Server, Queue, String) {
    let Endpoints {
        keys,
        allow,
        next,
        listeners,
        text,
    } = endpoints;
    let (mut node, queue) = Node::new(
        NodeSettings {
            accept: match config.accept {
                // A client without the key must not use the chain by leaving frames out.
                Accept::Auto if !keys.is_empty() => Accept::Framed,
                accept => accept,
            },
            remove: config.remove,
            accept_proxy: config.accept_proxy,
            send_proxy: config.send_proxy,
            limits: limits(config, allow),
            server_check: config.server_check,
            drain: config.drain,
            keys,
            ..settings(common, role)
        },
        next,
    );
    node.sessions = sessions;
    if node.next_hop.is_some() && node.settings.accept != Accept::Framed {
        node.labels.begin_here(&node.settings.name);
    }
    (Server::new(node, listeners), queue, text)
}

/// Returns the limits on the clients of a node. A reflector's connection has one descriptor, any
/// other two.
fn limits(config: &NodeConfig, allow: Vec<Network>) -> AdmissionLimits {
    let each = 1 + u64::from(config.forward_to.is_some());
    let descriptors = sys::raise_descriptor_limit().ok();
    AdmissionLimits::new(allow, config.max_connections, descriptors, each)
}

/// Runs the `collect` thread of a node. If its output fails it goes on collecting without, and
/// returns the error at the end.
fn collect(mut run: Run<Printer>, stop: &StopFlag) -> Result<Run<Printer>, OutputError> {
    let mut outcome = Ok(());
    let until_stopped = |_: &mut Run<Printer>| {
        Ok(if stop.is_finished() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    };
    while let Err(error) = run.collect(|| None, until_stopped) {
        log::error!("collect: {error}");
        run.output.mute();
        outcome = Err(error);
    }
    outcome.map(|()| run)
}

fn describe(totals: &Totals) -> String {
    let traffic = &totals.traffic;
    let mut text = format!(
        "connections: {}, of which ended by a reset or an error: {}; forward {} bytes in {} \
         blocks, back {} bytes in {} blocks",
        totals.connections,
        totals.failed,
        traffic.forward_bytes,
        traffic.forward_blocks,
        traffic.return_bytes,
        traffic.return_blocks
    );
    if totals.refused > 0 {
        text.push_str(&format!("; {} refused by --allow", totals.refused));
    }
    if traffic.reports_dropped > 0 {
        text.push_str(&format!(
            "; {} reports found their queue full",
            traffic.reports_dropped
        ));
    }
    text
}
