//! A node that listens.

use crate::cli::{self, Common, ExitCode, NodeConfig, PROGRAM};
use crate::collect::latest::LatestReport;
use crate::collect::queue::Queue;
use crate::collect::run_state::RunState;
use crate::commands::prepare::{
    key, next_hop, node_name, printer, publish, rules, run_state, settings, watching,
};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::node::accept::{bind, listen_addresses, Server, Totals};
use crate::node::connection_log::Sessions;
use crate::node::contain_panics;
use crate::node::dial::NextHop;
use crate::node::gate::AdmissionLimits;
use crate::node::{Node, NodeSettings, StopFlag};
use crate::output::{tell, Output, OutputError};
use crate::publish::metrics::Watched;
use crate::publish::notify;
use crate::publish::printer::Printer;
use crate::publish::sessions;
use crate::report::Blocks;
use crate::session::admission::Accept;
use crate::sys;
use crate::wire::siphash::Key;
use crate::wire::NodeRole;
use std::io;
use std::net::TcpListener;
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
    let failed = |text: String| Failure::new(ExitCode::Failed, text);
    let unwritable = |error: OutputError| Failure::new(ExitCode::Failed, error);
    let thread =
        |error: io::Error| Failure::new(ExitCode::Failed, format!("start a thread: {error}"));
    let rules = rules(common).map_err(|text| Failure::new(ExitCode::Usage, text))?;
    let place = place(common, config, role).map_err(failed)?;
    let run_state = run_state(common, role, true).map_err(unwritable)?;
    let printer = printer(common, Output::Stdout).map_err(unwritable)?;
    let sessions = common
        .sessions
        .as_deref()
        .map(|path| sessions::start(path, &node_name(common), role.name()));
    let (sessions, writer) = sessions.transpose().map_err(unwritable)?.unzip();
    let (mut server, queue, described) = prepare_node(common, config, role, sessions, place);
    let watched = vec![Watched::node(server.watch())];
    let published = publish(common, watched, true).map_err(failed)?;
    let run_state = watching(run_state, rules, server.node());
    signals.stop(stop, None);
    let collecting = Builder::new().name("collect".into()).spawn({
        let (stop, latest) = (Arc::clone(stop), Arc::clone(&server.node().latest));
        move || collect(queue, run_state, printer, &stop, &latest)
    });
    let collecting = collecting.map_err(thread)?;
    // Last, so that nothing is begun where something else of all this fails.
    server.accept().map_err(thread)?;
    tell(&described);
    notify::ready();
    stop.wait_set();
    let collector = server.node().collector.clone();
    let latest = Arc::clone(&server.node().latest);
    let totals = server.stop();
    stop.finish();
    collector.wake();
    let Ok(collected) = collecting.join() else {
        return Ok(ExitCode::Failed); // Its panic has been reported on stderr.
    };
    let finished = collected.and_then(|(queue, mut run_state, mut printer)| {
        let mut queue = queue;
        printer.drain(&mut queue, &mut run_state)?;
        run_state.remark(describe(&totals));
        let blocks = measured_here(&run_state, totals.traffic.forward_bytes);
        run_state.finish(blocks, false);
        latest.close(|| run_state.report(sys::clock::read().wall, blocks, queue.dropped()));
        let written = printer.finish(&run_state, blocks, queue.dropped());
        OutputError::all([written, published.finish()])
    });
    let finished = finished.and(writer.map_or(Ok(()), sessions::Writer::finish));
    match finished {
        Err(error) if !error.is_closed_pipe() => Err(unwritable(error)),
        _ => Ok(ExitCode::Done),
    }
}

fn role(config: &NodeConfig) -> NodeRole {
    match (&config.forward_to, config.accept, config.remove) {
        (None, ..) => NodeRole::Echo,
        (Some(_), cli::Accept::Raw, true) => NodeRole::Proxy,
        (Some(_), cli::Accept::Raw, false) => NodeRole::Entry,
        (Some(_), _, true) => NodeRole::Exit,
        (Some(_), _, false) => NodeRole::Relay,
    }
}

/// The blocks of a node that makes none itself.
fn measured_here(run_state: &RunState, payload_bytes: u64) -> Blocks {
    let measured = run_state.measured();
    Blocks {
        sent: measured,
        received: measured,
        payload_bytes,
        ..Blocks::default()
    }
}

/// Where a node is to stand.
struct Place {
    key: Option<Key>,
    next: Option<NextHop>,
    listeners: Vec<TcpListener>,
    /// What tells the user.
    text: String,
}

/// Finds its neighbour and binds. Before any file is opened: the second of two that were started with one address leaves
/// the first one's files alone.
fn place(common: &Common, config: &NodeConfig, role: NodeRole) -> Result<Place, String> {
    let key = key(common)?;
    let next = config
        .forward_to
        .as_ref()
        .map(|endpoint| next_hop(common, endpoint))
        .transpose()?;
    let listen = &config.listen;
    let addresses = listen_addresses(listen.host.as_deref(), listen.port, common.timeout)
        .map_err(|error| format!("resolve {listen}: {error}"))?;
    let listeners = bind(&addresses, common.timeout)
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
    Ok(Place {
        key,
        next,
        listeners,
        text,
    })
}

/// The node, which does not accept yet.
fn prepare_node(
    common: &Common,
    config: &NodeConfig,
    role: NodeRole,
    sessions: Option<Sessions>,
    place: Place,
) -> (Server, Queue, String) {
    let Place {
        key,
        next,
        listeners,
        text,
    } = place;
    let (mut node, queue) = Node::new(
        NodeSettings {
            accept: match config.accept {
                // Who holds no key is not to use the chain by leaving frames out.
                cli::Accept::Auto if key.is_some() => Accept::Framed,
                cli::Accept::Auto => Accept::Auto,
                cli::Accept::Framed => Accept::Framed,
                cli::Accept::Raw => Accept::Raw,
            },
            remove: config.remove,
            limits: limits(config),
            key,
            ..settings(common, role)
        },
        next,
    );
    node.sessions = sessions;
    (Server::new(node, listeners), queue, text)
}

/// Who may connect to a node and how many at once. A reflector's connection has one descriptor, any other two.
fn limits(config: &NodeConfig) -> AdmissionLimits {
    let each = 1 + u64::from(config.forward_to.is_some());
    let descriptors = sys::raise_descriptor_limit().ok();
    AdmissionLimits::new(
        config.allow.clone(),
        config.max_connections,
        descriptors,
        each,
    )
}

type Collected = Result<(Queue, RunState, Printer), OutputError>;

/// The `collect` thread of a node. Where its output fails it goes on collecting without.
fn collect(
    mut queue: Queue,
    mut run_state: RunState,
    mut printer: Printer,
    stop: &StopFlag,
    latest: &LatestReport,
) -> Collected {
    latest.open();
    let mut outcome = Ok(());
    while !stop.is_finished() {
        queue.batch(|measurement| {
            let printed = if outcome.is_ok() {
                printer.take(&mut run_state, measurement)
            } else {
                run_state.take(measurement);
                Ok(())
            };
            if let Err(error) = printed {
                log::error!("collect: {error}");
                outcome = Err(error);
            }
        });
        run_state.tick();
        // What the connections still carry is counted at the end.
        let blocks = measured_here(&run_state, 0);
        printer.tick_page(&run_state, blocks, queue.dropped());
        latest.answer(|pictures| {
            // Only a page shows the blocks of a node that makes none.
            let blocks = if pictures { blocks } else { Blocks::default() };
            run_state.look(blocks, queue.dropped(), pictures)
        });
    }
    outcome.map(|()| (queue, run_state, printer))
}

fn describe(totals: &Totals) -> String {
    let traffic = &totals.traffic;
    let mut text = format!(
        "connections: {}, of which ended by a reset or an error: {}; forward {} bytes in {} blocks, back {} bytes in {} blocks",
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
