//! Who is on a path: the introductions that OPEN and OPENED carry, and what the report makes of them.

use crate::collect::queue::{Measurement, Path};
use crate::node::pair::Session;
use crate::node::Node;
use crate::report::PathNode;
use crate::session::path;
use crate::sync::random;
use crate::wire::{
    build, frame_type, push_annotation, Annotations, Flags, Header, NodeInfo, ANNOTATION_NODE,
    ANNOTATION_NONCE,
};

/// An introduction appended to those of the nodes before; the flags say where there was no room.
#[inline(never)]
pub fn introduce(annotations: &mut Vec<u8>, flags: Flags, hop: u8, info: &NodeInfo) -> Flags {
    if push_annotation(annotations, ANNOTATION_NODE, hop, &info.emit()) {
        flags
    } else {
        flags.with(Flags::ANNOTATIONS_OVERFLOW)
    }
}

/// The far end's answer to OPEN: all introductions, its own among them, and a nonce.
#[inline(never)]
pub fn opened(session: Session, annotations: &[u8]) -> Vec<u8> {
    let mut annotations = annotations.to_vec();
    push_annotation(
        &mut annotations,
        ANNOTATION_NONCE,
        session.hop,
        &random().to_be_bytes(),
    );
    let header = Header {
        flags: Flags(Flags::RETURN),
        hop: session.hop,
        hop_limit: session.hop_limit,
        ..Header::new(frame_type::OPENED, session.cookie, 0)
    };
    build(header, &[], &annotations, &[])
}

/// The path from this node on, to the collector.
#[inline(never)]
pub fn report_nodes(node: &Node, session: Session, annotations: Annotations<'_>) {
    let introductions = path::nodes(annotations);
    // Behind a balancer a node does not know what its neighbour connected to; the neighbour does.
    let called = |hop: u8| {
        introductions.iter().find_map(|(near, neighbour)| {
            let before = near.checked_add(1) == Some(hop) && !neighbour.next_hop.is_empty();
            before.then(|| neighbour.next_hop.clone())
        })
    };
    let mut path = Path {
        cookie: session.cookie,
        hop: session.hop,
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

/// A node's introduction as the report shows it.
pub fn path_node(hop: u8, info: NodeInfo) -> PathNode {
    PathNode {
        hop,
        id: info.id,
        name: info.name,
        role: info.role.name().into(),
        address: (!info.address.is_empty()).then_some(info.address),
        tags: info.tags,
        connect: info.connect,
    }
}
