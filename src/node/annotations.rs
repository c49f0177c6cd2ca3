//! The annotations in frames: those that came back go to the collector, those of this node go into
//! the frames that it passes on.

use crate::annotation::NodeAnnotations;
use crate::collect::path_key::PathKey;
use crate::collect::queue::Measurement;
use crate::node::reader::HEADROOM;
use crate::node::Node;
use crate::session::annotations::reported;
use crate::session::trips::TripOrigin;
use crate::wire::values::{cut_values, parse_values, with_annotation};
use crate::wire::{
    Flags, FrameView, Header, ANNOTATION_HEADER_LEN, ANNOTATION_RETRANSMITS, ANNOTATION_VALUES,
    MAX_ANNOTATIONS,
};

/// Offers the annotations in a frame that came back on `path`, of the nodes from this one on, to
/// the collector.
#[inline(never)]
pub fn collect_annotations(node: &Node, path: PathKey, frame: &FrameView<'_>) {
    let origin = TripOrigin {
        node: node.id,
        hop: path.hop,
    };
    for annotations in reported(frame, origin) {
        let annotations = Measurement::NodeAnnotations(path, Box::new(annotations));
        node.collector.offer(annotations);
    }
    if frame.header.flags.has(Flags::ANNOTATIONS_OVERFLOW) && node.annotator.first_overflow() {
        let text =
            "annotations exceed the room in a block, some are missing: request fewer classes";
        log::warn!("annotate: {text}");
        node.collector.offer(Measurement::Notice(text.into()));
    }
}

/// Offers the annotations of this node, at hop 0, to the collector.
#[inline(never)]
pub fn collect_own_annotations(node: &Node, sequence: u64, value: &[u8]) {
    let annotations = parse_values(value).unwrap_or_default(); // This node encoded it.
    if !annotations.is_empty() {
        let annotations = NodeAnnotations {
            hop: 0,
            sequence,
            annotations,
        };
        let own = PathKey::default();
        node.collector
            .offer(Measurement::NodeAnnotations(own, Box::new(annotations)));
    }
}

/// Copies a frame into `own` with this node's annotations in it, as many as there is room for, and
/// returns the header of the copy. Leaves `own` empty if there is nothing to add.
#[inline(never)]
pub fn append(frame: &FrameView<'_>, hop: u8, value: &[u8], own: &mut Vec<u8>) -> Header {
    let mut header = frame.header;
    let fits = cut_to_room(value, header.annotations_len);
    if !fits.is_empty() {
        let copy = with_annotation(frame, HEADROOM, (ANNOTATION_VALUES, hop), fits);
        if let Some((bytes, longer)) = copy {
            *own = bytes;
            header = longer;
        }
    }
    if fits.len() < value.len() {
        header.flags = header.flags.with(Flags::ANNOTATIONS_OVERFLOW);
    }
    header
}

/// Returns a copy of a frame, behind the headroom, with a reading of retransmissions of the node at
/// `hop`. `None` if there is no room for it.
pub fn append_retransmits(
    frame: &FrameView<'_>,
    hop: u8,
    value: &[u8],
) -> Option<(Vec<u8>, Header)> {
    with_annotation(frame, HEADROOM, (ANNOTATION_RETRANSMITS, hop), value)
}

/// Returns the annotations that fit beside `taken` bytes of others.
pub fn cut_to_room(value: &[u8], taken: usize) -> &[u8] {
    let room = MAX_ANNOTATIONS.saturating_sub(taken + ANNOTATION_HEADER_LEN);
    cut_values(value, room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{AnnotationValue, HostAnnotation};
    use crate::wire::values::emit_values;
    use crate::wire::{build, FrameType};

    fn numbers(count: usize) -> Vec<HostAnnotation> {
        (0..count)
            .map(|n| HostAnnotation {
                name: format!("n{n}"),
                value: AnnotationValue::Number(n as f64),
            })
            .collect()
    }

    #[test]
    fn annotations_fill_the_room_of_a_frame_and_a_flag_marks_those_left_out() {
        let value = emit_values(&numbers(200));
        let header = Header::new(FrameType::Block, 1, 2);
        let mut own = Vec::new();
        let mut bytes = build(header, &[], &[], b"payload");
        let mut hops = Vec::new();
        for hop in 1..10 {
            let header = append(&FrameView::parse(&bytes).unwrap(), hop, &value, &mut own);
            if !own.is_empty() {
                bytes = own.split_off(HEADROOM);
                own.clear();
            }
            header.emit(&mut bytes);
            hops.push(header.flags.has(Flags::ANNOTATIONS_OVERFLOW));
        }
        let frame = FrameView::parse(&bytes).unwrap();
        assert_eq!(frame.payload(), b"payload");
        let values = frame.annotations().map_while(Result::ok);
        let counts: Vec<_> = values
            .map(|annotation| parse_values(annotation.value).unwrap().len())
            .collect();
        let whole = counts.iter().filter(|&&count| count == 200).count();
        assert!(
            (5..9).contains(&whole) && counts.len() == whole + 1,
            "{counts:?}"
        );
        let full = hops.iter().position(|&full| full);
        assert_eq!(full, Some(whole), "{hops:?}");
    }
}
