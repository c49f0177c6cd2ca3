//! The annotations that a frame requests from a node, and those that it carries back.

use crate::annotation::{Classes, NodeAnnotations};
use crate::session::trips::TripOrigin;
use crate::wire::values::{asked_of, parse_values};
use crate::wire::{FrameView, StampDirection, ANNOTATION_ASK, ANNOTATION_VALUES};

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

/// Returns the annotations of the nodes from `origin` on, with the names that a node may have. A
/// hop's annotations count only if it stamped the frame behind the origin's own forward stamp. Only
/// the last ones count: another node wrote what stands before them. Malformed ones are skipped:
/// they are another node's fault.
pub fn reported(frame: &FrameView<'_>, origin: TripOrigin) -> Vec<NodeAnnotations> {
    let mut stamped = [false; 256];
    for stamp in frame.stamps().map_while(Result::ok) {
        if stamp.node == origin.node && stamp.hop == origin.hop {
            if stamp.direction == StampDirection::Forward {
                stamped = [false; 256];
            }
            stamped[usize::from(origin.hop)] = true;
        } else if stamp.hop > origin.hop {
            stamped[usize::from(stamp.hop)] = true;
        }
    }
    let mut reported: Vec<NodeAnnotations> = Vec::new();
    let values = frame
        .annotations()
        .map_while(Result::ok)
        .filter(|annotation| annotation.kind == ANNOTATION_VALUES)
        .filter(|annotation| stamped[usize::from(annotation.hop)]);
    for annotation in values {
        let Ok(values) = parse_values(annotation.value) else {
            continue;
        };
        let mut node = NodeAnnotations {
            hop: annotation.hop,
            sequence: frame.header.sequence,
            annotations: values,
        };
        node.keep_known();
        node.annotations.shrink_to_fit();
        match reported.iter_mut().find(|known| known.hop == node.hop) {
            Some(known) => *known = node,
            None => reported.push(node),
        }
    }
    reported
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{AnnotationValue, HostAnnotation};
    use crate::time::WallTime;
    use crate::wire::values::{emit_ask, emit_values};
    use crate::wire::{build, push_annotation, FrameType, Header, Stamp, STAMP_LEN};

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
    fn annotations_of_nodes_behind_that_stamped_the_frame_are_found_and_malformed_ones_skipped() {
        use StampDirection::{Forward, Turn};
        let value = |number| {
            emit_values(&[HostAnnotation {
                name: "load1".into(),
                value: AnnotationValue::Number(number),
            }])
        };
        let mut bytes = Vec::new();
        let annotations = [
            (1, value(7.0)), // A client wrote it in the name of this node,
            (1, value(1.0)), // which then wrote its own.
            (2, value(2.0)[..3].to_vec()),
            (3, value(3.0)),
            (4, value(4.0)), // It did not stamp the frame.
            (5, value(5.0)), // The client forged its stamp.
        ];
        for (hop, value) in annotations {
            assert!(push_annotation(&mut bytes, ANNOTATION_VALUES, hop, &value));
        }
        let stamps = [
            (50, 5, Forward),
            (10, 1, Forward),
            (20, 2, Forward),
            (30, 3, Turn),
        ];
        let mut stamped = Vec::new();
        for (node, hop, direction) in stamps {
            let at = stamped.len();
            stamped.resize(at + STAMP_LEN, 0);
            let stamp = Stamp::new(node, hop, direction, WallTime(1));
            stamp.emit(&mut stamped[at..]);
        }
        let header = Header::new(FrameType::Block, 1, 42);
        let bytes = build(header, &stamped, &bytes, b"x");
        let view = FrameView::parse(&bytes).unwrap();
        let loads = |node, hop| {
            let reported = reported(&view, TripOrigin { node, hop });
            let load = |node: &NodeAnnotations| (node.hop, node.number("load1").unwrap());
            reported.iter().map(load).collect::<Vec<_>>()
        };
        assert_eq!(loads(10, 1), [(1, 1.0), (3, 3.0)]);
        assert_eq!(loads(20, 2), [(3, 3.0)]);
        assert_eq!(loads(99, 9), []);
        assert_eq!(
            reported(&view, TripOrigin { node: 10, hop: 1 })[0].sequence,
            42
        );
    }
}
