//! The nodes of a path, as they introduced themselves in OPEN.

use crate::wire::{Annotations, NodeInfo, ANNOTATION_NODE};

/// Returns the nodes that introduced themselves, with their hops, in the order of the path.
/// Malformed ones are skipped: they are another node's fault.
pub fn nodes(annotations: Annotations<'_>) -> Vec<(u8, NodeInfo)> {
    let mut nodes: Vec<_> = annotations
        .map_while(Result::ok)
        .filter(|annotation| annotation.kind == ANNOTATION_NODE)
        .filter_map(|annotation| Some((annotation.hop, NodeInfo::parse(annotation.value).ok()?)))
        .collect();
    nodes.sort_by_key(|node| node.0);
    nodes
}

/// Returns the id of the node at hop 0, where the path begins; `None` if it did not introduce
/// itself.
pub fn source(annotations: Annotations<'_>) -> Option<u64> {
    annotations
        .map_while(Result::ok)
        .find(|annotation| annotation.kind == ANNOTATION_NODE && annotation.hop == 0)
        .and_then(|annotation| NodeInfo::id_of(annotation.value))
}

/// Returns the name of the node at hop 0; `None` as for [`source`].
pub fn name(annotations: Annotations<'_>) -> Option<String> {
    annotations
        .map_while(Result::ok)
        .find(|annotation| annotation.kind == ANNOTATION_NODE && annotation.hop == 0)
        .and_then(|annotation| Some(NodeInfo::parse(annotation.value).ok()?.name))
}

/// Returns the hop at which the node `id` is on the path already: a loop.
pub fn find(annotations: Annotations<'_>, id: u64) -> Option<u8> {
    annotations
        .map_while(Result::ok)
        .filter(|annotation| annotation.kind == ANNOTATION_NODE)
        .find(|annotation| NodeInfo::id_of(annotation.value) == Some(id))
        .map(|annotation| annotation.hop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{push_annotation, NodeRole};

    fn node(id: u64) -> NodeInfo {
        NodeInfo::new(id, NodeRole::Relay, format!("n{id}"))
    }

    #[test]
    fn nodes_come_in_the_order_of_the_path_and_a_loop_is_found() {
        let mut bytes = Vec::new();
        push_annotation(&mut bytes, ANNOTATION_NODE, 1, &node(11).emit());
        push_annotation(&mut bytes, 99, 1, b"unknown");
        push_annotation(&mut bytes, ANNOTATION_NODE, 2, b"malformed");
        push_annotation(&mut bytes, ANNOTATION_NODE, 0, &node(10).emit());
        let found = nodes(Annotations::new(&bytes));
        assert_eq!(
            found.iter().map(|n| (n.0, n.1.id)).collect::<Vec<_>>(),
            [(0, 10), (1, 11)]
        );
        assert_eq!(source(Annotations::new(&bytes)), Some(10));
        assert_eq!(source(Annotations::new(&[])), None);
        assert_eq!(find(Annotations::new(&bytes), 11), Some(1));
        assert_eq!(find(Annotations::new(&bytes), 12), None);
    }
}
