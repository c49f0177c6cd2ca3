//! A node that listens.

use super::prepare::{key, ledger, node_name, onward, printer, publish, rules, settings, watching};
use crate::{failed, Signals};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::Builder;
use subsegment_tcp_speeds::cli::{self, Common, ExitCode, NodeConfig, PROGRAM};
use subsegment_tcp_speeds::node::board::Board;
use subsegment_tcp_speeds::node::collect::Queue;
use subsegment_tcp_speeds::node::dial::Onward;
use subsegment_tcp_speeds::node::gate::Limits;
use subsegment_tcp_speeds::node::ledger::Ledger;
use subsegment_tcp_speeds::node::metrics::Watched;
use subsegment_tcp_speeds::node::notify;
use subsegment_tcp_speeds::node::output::{tell, Output, OutputError};
use subsegment_tcp_speeds::node::print::Printer;
use subsegment_tcp_speeds::node::serve::{bind, contain_panics, listen_addresses, Server, Totals};
use subsegment_tcp_speeds::node::sessions::{self, Sessions};
use subsegment_tcp_speeds::node::{Node, Settings, StopFlag};
use subsegment_tcp_speeds::report::Blocks;
use subsegment_tcp_speeds::session::admission::Accept;
use subsegment_tcp_speeds::sys;
use subsegment_tcp_speeds::wire::siphash::Key;
use subsegment_tcp_speeds::wire::Role;

pub(crate) fn run_node(
    common: &Common,
    config: &NodeConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> ExitCode {
    contain_panics();
    let role = role(config);
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return failed(&text, ExitCode::Usage),
    };
    let place = match place(common, config, role) {
        Ok(place) => place,
        Err(text) => return failed(&text, ExitCode::Failed),
    };
    let prepared = ledger(common, role, true)
        .and_then(|ledger| Ok((ledger, printer(common, Output::Stdout)?)));
    let (ledger, printer) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error.to_string(), ExitCode::Failed),
    };
    let sessions = common
        .sessions
        .as_deref()
        .map(|path| sessions::start(path, &node_name(common), role.name()));
    let (sessions, writer) = match sessions.transpose() {
        Ok(started) => started.unzip(),
        Err(error) => return failed(&error.to_string(), ExitCode::Failed),
    };
    let (mut server, queue, described) = prepare_node(common, config, role, sessions, place);
    let watched = vec![Watched::node(server.watch())];
    let published = match publish(common, watched, true) {
        Ok(published) => published,
        Err(text) => return failed(&text, ExitCode::Failed),
    };
    let ledger = watching(ledger, rules, server.node());
    signals.stop(stop, None);
    let collecting = Builder::new().name("collect".into()).spawn({
        let (stop, board) = (Arc::clone(stop), Arc::clone(&server.node().board));
        move || collect(queue, ledger, printer, &stop, &board)
    });
    let collecting = match collecting {
        Ok(collecting) => collecting,
        Err(error) => return failed(&format!("start a thread: {error}"), ExitCode::Failed),
    };
    // Last, so that nothing is begun where something else of all this fails.
    if let Err(error) = server.accept() {
        return failed(&format!("start a thread: {error}"), ExitCode::Failed);
    }
    tell(&described);
    notify::ready();
    stop.wait_set();
    let collector = server.node().collector.clone();
    let board = Arc::clone(&server.node().board);
    let totals = server.stop();
    stop.finish();
    collector.wake();
    let Ok(collected) = collecting.join() else {
        return ExitCode::Failed; // Its panic has been reported on stderr.
    };
    let finished = collected.and_then(|(queue, mut ledger, mut printer)| {
        let mut queue = queue;
        printer.drain(&mut queue, &mut ledger)?;
        ledger.remark(describe(&totals));
        let blocks = measured_here(&ledger, totals.traffic.forward_bytes);
        ledger.finish(blocks, false);
        board.close(|| ledger.report(sys::clock::read().wall, blocks, queue.dropped()));
        let written = printer.finish(&ledger, blocks, queue.dropped());
        OutputError::all([written, published.finish()])
    });
    let finished = finished.and(writer.map_or(Ok(()), sessions::Writer::finish));
    match finished {
        Ok(()) => ExitCode::Done,
        Err(error) if error.is_closed_pipe() => ExitCode::Done,
        Err(error) => failed(&error.to_string(), ExitCode::Failed),
    }
}

fn role(config: &NodeConfig) -> Role {
    match (&config.forward_to, config.accept, config.remove) {
        (None, ..) => Role::Echo,
        (Some(_), cli::Accept::Raw, true) => Role::Proxy,
        (Some(_), cli::Accept::Raw, false) => Role::Entry,
        (Some(_), _, true) => Role::Exit,
        (Some(_), _, false) => Role::Relay,
    }
}

/// The blocks of a node that makes none itself.
fn measured_here(ledger: &Ledger, payload_bytes: u64) -> Blocks {
    let measured = ledger.measured();
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
    next: Option<Onward>,
    listeners: Vec<TcpListener>,
    /// What tells the user.
    text: String,
}

/// Finds its neighbour and binds. Before any file is opened: the second of two that were started with one address leaves
/// the first one's files alone.
fn place(common: &Common, config: &NodeConfig, role: Role) -> Result<Place, String> {
    let key = key(common)?;
    let next = config
        .forward_to
        .as_ref()
        .map(|endpoint| onward(common, endpoint))
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
        let onward = next
            .as_ref()
            .map_or_else(String::new, |next| format!(" to {}", next.target()));
        text.push_str(&format!(
            "{PROGRAM}: listening on {address} ({}{onward})\n",
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
    role: Role,
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
        Settings {
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
fn limits(config: &NodeConfig) -> Limits {
    let each = 1 + u64::from(config.forward_to.is_some());
    let descriptors = sys::raise_descriptor_limit().ok();
    Limits::new(
        config.allow.clone(),
        config.max_connections,
        descriptors,
        each,
    )
}

type Collected = Result<(Queue, Ledger, Printer), OutputError>;

/// The `collect` thread of a node. Where its output fails it goes on collecting without.
fn collect(
    mut queue: Queue,
    mut ledger: Ledger,
    mut printer: Printer,
    stop: &StopFlag,
    board: &Board,
) -> Collected {
    board.open();
    let mut outcome = Ok(());
    while !stop.is_finished() {
        queue.batch(|measurement| {
            let printed = if outcome.is_ok() {
                printer.take(&mut ledger, measurement)
            } else {
                ledger.take(measurement);
                Ok(())
            };
            if let Err(error) = printed {
                log::error!("collect: {error}");
                outcome = Err(error);
            }
        });
        ledger.tick();
        // What the connections still carry is counted at the end.
        let blocks = measured_here(&ledger, 0);
        printer.tick_page(&ledger, blocks, queue.dropped());
        board.answer(|pictures| {
            // Only a page shows the blocks of a node that makes none.
            let blocks = if pictures { blocks } else { Blocks::default() };
            ledger.look(blocks, queue.dropped(), pictures)
        });
    }
    outcome.map(|()| (queue, ledger, printer))
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
