//! What a frame asks a node for, and what nodes have told in one that came back.

use crate::annotation::{Classes, Facts};
use crate::wire::facts::{asked_of, parse_facts};
use crate::wire::{FrameView, ANNOTATION_ASK, ANNOTATION_FACTS};

/// What `frame` asks the node at `hop` for: what its header says, or less where hops are asked for different things. A
/// malformed list asks for nothing.
pub fn asked(frame: &FrameView<'_>, hop: u8) -> Classes {
    let all = Classes(frame.header.classes);
    let ask = frame
        .annotations()
        .map_while(Result::ok)
        .find(|annotation| annotation.kind == ANNOTATION_ASK);
    match ask {
        Some(ask) => asked_of(ask.value, hop).unwrap_or_default().only(all),
        None => all,
    }
}

/// What the nodes from `hop` on have told. What is malformed is passed over: it is another node's business.
pub fn told(frame: &FrameView<'_>, hop: u8) -> Vec<Facts> {
    frame
        .annotations()
        .map_while(Result::ok)
        .filter(|annotation| annotation.kind == ANNOTATION_FACTS && annotation.hop >= hop)
        .filter_map(|annotation| {
            Some(Facts {
                hop: annotation.hop,
                sequence: frame.header.sequence,
                facts: parse_facts(annotation.value).ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{Fact, FactValue};
    use crate::wire::facts::{emit_ask, emit_facts};
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
        let both = Classes::LOAD.and(Classes::TCP);
        let ask = emit_ask([(2, Classes::LOAD.and(Classes::MIB))].into_iter());
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
        let fact = Fact {
            name: "load1".into(),
            value: FactValue::Number(1.0),
        };
        let value = emit_facts(std::slice::from_ref(&fact));
        let bytes = frame(
            Classes::LOAD,
            &[
                (ANNOTATION_FACTS, 1, &value),
                (ANNOTATION_FACTS, 2, &value[..3]),
                (ANNOTATION_FACTS, 3, &value),
            ],
        );
        let view = FrameView::parse(&bytes).unwrap();
        let hops = |from| told(&view, from).iter().map(|f| f.hop).collect::<Vec<_>>();
        assert_eq!(hops(0), [1, 3]);
        assert_eq!(hops(2), [3]);
        let first = &told(&view, 0)[0];
        assert_eq!((first.sequence, &first.facts), (42, &vec![fact]));
    }
}
