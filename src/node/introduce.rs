//! The nodes of a path, as the introductions in OPEN and OPENED describe them, for the report.

use crate::collect::path_key::PathKey;
use crate::collect::queue::{Measurement, Path};
use crate::node::Node;
use crate::report::PathNode;
use crate::session::opening::Session;
use crate::session::path;
use crate::sys;
use crate::wire::{Annotations, NodeInfo, NodeRole};

/// Hands the path from this node on to the collector.
#[inline(never)]
pub fn report_nodes(node: &Node, session: Session, key: PathKey, annotations: Annotations<'_>) {
    // Two functions one after the other need less stack than one within the other.
    let introductions = path::nodes(annotations);
    report_path(node, session, key, introductions);
}

#[inline(never)]
fn report_path(node: &Node, session: Session, key: PathKey, introductions: Vec<(u8, NodeInfo)>) {
    // Behind a balancer a node does not know the address that its neighbour connected to; the
    // neighbour does.
    let called = |hop: u8| {
        introductions.iter().find_map(|(near, neighbour)| {
            let before = near.checked_add(1) == Some(hop) && !neighbour.next_hop.is_empty();
            before.then(|| neighbour.next_hop.clone())
        })
    };
    let exit = introductions.last();
    let exit = exit.filter(|(hop, info)| *hop > session.hop && info.role == NodeRole::Exit);
    if let Some(took) = exit.and_then(|(_, exit)| exit.connect) {
        let now = sys::clock::mono();
        node.collector
            .offer(Measurement::ServerConnect(key, now, Ok(took)));
    }
    let mut path = Path {
        cookie: session.cookie,
        key,
        nodes: Vec::with_capacity(introductions.len()),
    };
    for (hop, info) in introductions.iter().filter(|(hop, _)| *hop >= session.hop) {
        let address = called(*hop);
        path.nodes.push(path_node(*hop, info.clone()));
        if let (Some(node), Some(_)) = (path.nodes.last_mut(), &address) {
            node.address = address;
        }
    }
    node.collector.offer(Measurement::Path(Box::new(path)));
}

/// Returns the introduction of a node in the form of the report.
pub fn path_node(hop: u8, info: NodeInfo) -> PathNode {
    PathNode {
        hop,
        id: info.id,
        name: info.name,
        role: info.role.name().into(),
        address: (!info.address.is_empty()).then_some(info.address),
        tags: info.tags,
        connect: info.connect,
        clock_error: info.clock_error,
    }
}
