//! The annotations that a frame requests from a node, and those that it carries back.

use crate::annotation::{Classes, NodeAnnotations};
use crate::wire::values::{asked_of, parse_values};
use crate::wire::{FrameView, ANNOTATION_ASK, ANNOTATION_VALUES};

/// Returns the classes that `frame` requests from the node at `hop`: those of its header, or fewer
/// if a list differs by hop. A malformed list requests nothing.
pub fn requested(frame: &FrameView<'_>, hop: u8) -> Classes {
    let all = Classes(frame.header.classes);
    let ask = frame
        .annotations()
        .map_while(Result::ok)
        .find(|annotation| annotation.kind == ANNOTATION_ASK);
    match ask {
        Some(ask) => asked_of(ask.value, hop)
            .unwrap_or_default()
            .intersection(all),
        None => all,
    }
}

/// Returns the annotations of the nodes from `hop` on. Malformed ones are skipped: they are another
/// node's fault.
pub fn reported(frame: &FrameView<'_>, hop: u8) -> Vec<NodeAnnotations> {
    frame
        .annotations()
        .map_while(Result::ok)
        .filter(|annotation| annotation.kind == ANNOTATION_VALUES && annotation.hop >= hop)
        .filter_map(|annotation| {
            Some(NodeAnnotations {
                hop: annotation.hop,
                sequence: frame.header.sequence,
                annotations: parse_values(annotation.value).ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{AnnotationValue, HostAnnotation};
    use crate::wire::values::{emit_ask, emit_values};
    use crate::wire::{build, push_annotation, FrameType, Header};

    fn frame(classes: Classes, annotations: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, hop, value) in annotations {
            assert!(push_annotation(&mut bytes, *kind, *hop, value));
        }
        let header = Header {
            classes: classes.0,
            ..Header::new(FrameType::Block, 1, 42)
        };
        build(header, &[], &bytes, b"x")
    }

    #[test]
    fn the_header_requests_classes_from_a_hop_unless_a_list_requests_fewer() {
        let both = Classes::LOAD.union(Classes::TCP);
        let ask = emit_ask([(2, Classes::LOAD.union(Classes::MIB))].into_iter());
        for (annotations, hop, expected) in [
            (&[][..], 2, both),
            (&[(ANNOTATION_ASK, 0, &ask[..])], 2, Classes::LOAD),
            (&[(ANNOTATION_ASK, 0, &ask[..])], 3, Classes(0)),
            (&[(ANNOTATION_ASK, 0, &ask[..4])], 2, Classes(0)),
        ] {
            let bytes = frame(both, annotations);
            let view = FrameView::parse(&bytes).unwrap();
            assert_eq!(requested(&view, hop), expected);
        }
    }

    #[test]
    fn annotations_of_nodes_behind_are_found_and_malformed_ones_skipped() {
        let annotation = HostAnnotation {
            name: "load1".into(),
            value: AnnotationValue::Number(1.0),
        };
        let value = emit_values(std::slice::from_ref(&annotation));
        let bytes = frame(
            Classes::LOAD,
            &[
                (ANNOTATION_VALUES, 1, &value),
                (ANNOTATION_VALUES, 2, &value[..3]),
                (ANNOTATION_VALUES, 3, &value),
            ],
        );
        let view = FrameView::parse(&bytes).unwrap();
        let hops = |from| {
            reported(&view, from)
                .iter()
                .map(|f| f.hop)
                .collect::<Vec<_>>()
        };
        assert_eq!(hops(0), [1, 3]);
        assert_eq!(hops(2), [3]);
        let first = &reported(&view, 0)[0];
        assert_eq!(
            (first.sequence, &first.annotations),
            (42, &vec![annotation])
        );
    }
}
