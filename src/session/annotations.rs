//! What a frame asks a node for, and what nodes have told in one that came back.

use crate::annotation::{Classes, NodeAnnotations};
use crate::wire::values::{asked_of, parse_values};
use crate::wire::{FrameView, ANNOTATION_ASK, ANNOTATION_VALUES};

/// What `frame` asks the node at `hop` for: what its header says, or less where hops are asked for different things. A
/// malformed list asks for nothing.
pub fn asked(frame: &FrameView<'_>, hop: u8) -> Classes {
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

/// What the nodes from `hop` on have told. What is malformed is passed over: it is another node's business.
pub fn told(frame: &FrameView<'_>, hop: u8) -> Vec<NodeAnnotations> {
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
    use crate::wire::{build, frame_type, push_annotation, Header};

    fn frame(classes: Classes, annotations: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, hop, value) in annotations {
            assert!(push_annotation(&mut bytes, *kind, *hop, value));
        }
        let header = Header {
            classes: classes.0,
            ..Header::new(frame_type::BLOCK, 1, 42)
        };
        build(header, &[], &bytes, b"x")
    }

    #[test]
    fn a_hop_is_asked_for_what_the_header_says_unless_a_list_says_less() {
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
            assert_eq!(asked(&view, hop), expected);
        }
    }

    #[test]
    fn what_nodes_behind_have_told_is_found_and_the_malformed_passed_over() {
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
        let hops = |from| told(&view, from).iter().map(|f| f.hop).collect::<Vec<_>>();
        assert_eq!(hops(0), [1, 3]);
        assert_eq!(hops(2), [3]);
        let first = &told(&view, 0)[0];
        assert_eq!(
            (first.sequence, &first.annotations),
            (42, &vec![annotation])
        );
    }
}
