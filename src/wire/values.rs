//! The annotations of nodes, and the requests for them: the values of two annotation types. The
//! drawing is in `wire/mod.rs`.
//!
//! A name is written as the number of bytes that it shares with the name before it, and the rest.
//! Names of a class begin alike, and the annotations of all nodes share [`MAX_ANNOTATIONS`]. The
//! first of a list shares nothing, so lists can be joined.

use super::{FrameView, Header, ParseError, ANNOTATION_HEADER_LEN, MAX_ANNOTATIONS};
use crate::annotation::{AnnotationValue, Classes, HostAnnotation};
use byteorder::{BigEndian, ByteOrder};

/// Most host annotations in one frame annotation.
pub const MAX_VALUES: usize = 256;
/// Most bytes of a name.
pub const MAX_VALUE_NAME: usize = 64;
/// Most bytes of a text.
pub const MAX_VALUE_TEXT: usize = 255;
/// In an [`ANNOTATION_ASK`](super::ANNOTATION_ASK): all hops that are not listed.
pub const ASK_OTHERS: u8 = u8::MAX;
/// Most hops in an [`ANNOTATION_ASK`](super::ANNOTATION_ASK).
pub const MAX_ASKED: usize = 64;

/// Most bytes of the value of an [`ANNOTATION_ASK`](super::ANNOTATION_ASK).
pub const MAX_ASK_LEN: usize = MAX_ASKED * ASK_LEN;

const NUMBER: u8 = 1;
const TEXT: u8 = 2;
const ASK_LEN: usize = 5;

const MALFORMED: ParseError = ParseError::Content {
    part: "values annotation",
};

/// Returns the value of an [`ANNOTATION_VALUES`](super::ANNOTATION_VALUES). It leaves out names
/// that are empty or too long, numbers that are not finite, and what exceeds [`MAX_VALUES`]; texts
/// are cut.
pub fn emit_values(annotations: &[HostAnnotation]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut previous: &[u8] = &[];
    for annotation in annotations.iter().take(MAX_VALUES) {
        let name = annotation.name.as_bytes();
        let (kind, value) = match &annotation.value {
            AnnotationValue::Number(number) if number.is_finite() => {
                (NUMBER, &number.to_be_bytes()[..])
            }
            AnnotationValue::Number(_) => continue,
            AnnotationValue::Text(text) => (TEXT, cut(text).as_bytes()),
        };
        if name.is_empty() || name.len() > MAX_VALUE_NAME {
            continue;
        }
        let alike = previous.iter().zip(name).take_while(|(a, b)| a == b);
        let shared = alike.count();
        out.extend_from_slice(&[shared as u8, (name.len() - shared) as u8]);
        out.extend_from_slice(&name[shared..]);
        out.extend_from_slice(&[kind, value.len() as u8]);
        out.extend_from_slice(value);
        previous = name;
    }
    out
}

/// Returns the longest beginning of `text` that fits, in whole characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_VALUE_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One host annotation on the wire.
struct Raw<'a> {
    shared: usize,
    rest: &'a [u8],
    kind: u8,
    value: &'a [u8],
}

/// Splits the first item off a list; `None` if an inner length exceeds what is there.
fn split_first(bytes: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (&[shared, len], tail) = bytes.split_first_chunk()?;
    let (rest, tail) = tail.split_at_checked(usize::from(len))?;
    let (&[kind, len], tail) = tail.split_first_chunk()?;
    let (value, tail) = tail.split_at_checked(usize::from(len))?;
    let shared = usize::from(shared);
    let raw = Raw {
        shared,
        rest,
        kind,
        value,
    };
    Some((raw, tail))
}

/// Reads the value of an [`ANNOTATION_VALUES`](super::ANNOTATION_VALUES). It skips the second value
/// of a name, numbers that are not finite, and kinds of a later version.
///
/// # Errors
///
/// [`ParseError::Content`] if lengths contradict each other or a bound is exceeded.
pub fn parse_values(mut bytes: &[u8]) -> Result<Vec<HostAnnotation>, ParseError> {
    let mut annotations: Vec<HostAnnotation> = Vec::new();
    let mut name: Vec<u8> = Vec::new();
    let mut seen = 0;
    while !bytes.is_empty() {
        let (raw, tail) = split_first(bytes).ok_or(MALFORMED)?;
        bytes = tail;
        seen += 1;
        let len = raw.shared + raw.rest.len();
        if raw.shared > name.len() || !(1..=MAX_VALUE_NAME).contains(&len) || seen > MAX_VALUES {
            return Err(MALFORMED);
        }
        name.truncate(raw.shared);
        name.extend_from_slice(raw.rest);
        let value = match raw.kind {
            NUMBER if raw.value.len() != 8 => return Err(MALFORMED),
            NUMBER => AnnotationValue::Number(BigEndian::read_f64(raw.value)),
            TEXT => AnnotationValue::Text(String::from_utf8_lossy(raw.value).into_owned()),
            _ => continue,
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        let finite = !matches!(value, AnnotationValue::Number(number) if !number.is_finite());
        if finite && annotations.iter().all(|annotation| annotation.name != name) {
            annotations.push(HostAnnotation { name, value });
        }
    }
    Ok(annotations)
}

/// Returns as many whole items from the front of `bytes` as fit into `room`.
pub fn cut_values(bytes: &[u8], room: usize) -> &[u8] {
    let mut rest = bytes;
    while let Some((_, tail)) = split_first(rest) {
        if bytes.len() - tail.len() > room {
            break;
        }
        rest = tail;
    }
    &bytes[..bytes.len() - rest.len()]
}

/// Returns the value of an [`ANNOTATION_ASK`](super::ANNOTATION_ASK), for [`MAX_ASKED`] hops at
/// most.
pub fn emit_ask(asked: impl Iterator<Item = (u8, Classes)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (hop, classes) in asked.take(MAX_ASKED) {
        out.push(hop);
        out.extend_from_slice(&classes.0.to_be_bytes());
    }
    out
}

/// Returns the classes that the value of an [`ANNOTATION_ASK`](super::ANNOTATION_ASK) requests from
/// `hop`.
///
/// # Errors
///
/// [`ParseError::Content`] if it is no list of hops and classes.
pub fn asked_of(value: &[u8], hop: u8) -> Result<Classes, ParseError> {
    if value.len() % ASK_LEN != 0 {
        return Err(ParseError::Content {
            part: "ask annotation",
        });
    }
    let rows = || value.chunks_exact(ASK_LEN);
    let row = rows().find(|row| row[0] == hop);
    let row = row.or_else(|| rows().find(|row| row[0] == ASK_OTHERS));
    Ok(Classes(row.map_or(0, |row| BigEndian::read_u32(&row[1..]))))
}

/// Copies a frame behind `headroom` bytes, with one more annotation. Returns the copy and its
/// header; `None` if the room for annotations is used up.
pub fn with_annotation(
    frame: &FrameView<'_>,
    headroom: usize,
    (kind, hop): (u8, u8),
    value: &[u8],
) -> Option<(Vec<u8>, Header)> {
    let mut header = frame.header;
    header.annotations_len += ANNOTATION_HEADER_LEN + value.len();
    if header.annotations_len > MAX_ANNOTATIONS {
        return None;
    }
    let (before, payload) = frame.bytes().split_at(frame.header.payload_at());
    let mut out = Vec::with_capacity(headroom + header.frame_len());
    out.resize(headroom, 0);
    out.extend_from_slice(before);
    out.extend_from_slice(&[kind, hop]);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(payload);
    header.emit(&mut out[headroom..]);
    Some((out, header))
}

#[cfg(test)]
mod tests {
    use super::super::{build, push_annotation, FrameType, ANNOTATION_VALUES};
    use super::*;
    use crate::random::Random;

    fn number(name: &str, number: f64) -> HostAnnotation {
        HostAnnotation {
            name: name.into(),
            value: AnnotationValue::Number(number),
        }
    }

    fn text(name: &str, text: &str) -> HostAnnotation {
        HostAnnotation {
            name: name.into(),
            value: AnnotationValue::Text(text.into()),
        }
    }

    fn sample() -> Vec<HostAnnotation> {
        vec![number("load1", 0.5), number("load15", 2.0), text("x", "ö")]
    }

    #[rustfmt::skip]
    const GOLDEN: &[u8] = &[
        0, 5, b'l', b'o', b'a', b'd', b'1', 1, 8, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0,
        5, 1, b'5', 1, 8, 0x40, 0, 0, 0, 0, 0, 0, 0,
        0, 1, b'x', 2, 2, 0xc3, 0xb6,
    ];

    #[test]
    fn golden_values_are_written_and_read_and_a_truncation_is_no_value() {
        assert_eq!(emit_values(&sample()), GOLDEN);
        assert_eq!(parse_values(GOLDEN), Ok(sample()));
        let whole = [0, 17, 30, GOLDEN.len()];
        for len in 0..=GOLDEN.len() {
            let read = parse_values(&GOLDEN[..len]);
            match whole.iter().position(|&end| end == len) {
                Some(count) => assert_eq!(read, Ok(sample()[..count].to_vec())),
                None => assert_eq!(read, Err(MALFORMED), "{len} bytes"),
            }
            let fits = *whole.iter().rfind(|&&end| end <= len).unwrap();
            assert_eq!(cut_values(GOLDEN, len), &GOLDEN[..fits]);
        }
    }

    #[test]
    fn lists_can_be_joined_and_a_name_counts_once() {
        let joined = [emit_values(&sample()), emit_values(&sample()[..1])].concat();
        assert_eq!(parse_values(&joined), Ok(sample()));
        let other = [
            emit_values(&[number("load1", 7.0)]),
            emit_values(&[number("y", 1.0)]),
        ];
        assert_eq!(
            parse_values(&other.concat()),
            Ok(vec![number("load1", 7.0), number("y", 1.0)])
        );
    }

    #[test]
    fn invalid_values_are_left_out_and_long_texts_are_cut_between_characters() {
        let annotations = [
            number("nan", f64::NAN),
            number("inf", f64::INFINITY),
            number("", 1.0),
            number(&"n".repeat(MAX_VALUE_NAME + 1), 1.0),
            text("t", &"ö".repeat(200)),
        ];
        let read = parse_values(&emit_values(&annotations)).unwrap();
        assert_eq!(read, [text("t", &"ö".repeat(127))]);
        let many: Vec<_> = (0..400).map(|n| number(&format!("n{n}"), 1.0)).collect();
        assert_eq!(
            parse_values(&emit_values(&many)).map(|annotations| annotations.len()),
            Ok(MAX_VALUES)
        );
    }

    #[test]
    fn a_reader_passes_over_what_it_need_not_know_and_refuses_what_is_beyond_a_bound() {
        let later = [&[0, 1, b'z', 9, 3, 1, 2, 3], GOLDEN].concat();
        assert_eq!(parse_values(&later), Ok(sample()));
        let infinite = [&[0, 1, b'z', 1, 8, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0], GOLDEN].concat();
        assert_eq!(parse_values(&infinite), Ok(sample()));
        let long = [&[0, 65][..], &[b'n'; 65], &[2, 0]].concat();
        let many = [0, 1, b'n', 2, 0].repeat(MAX_VALUES + 1);
        for (what, bytes) in [
            ("shares more than there is", &[1, 1, b'n', 2, 0][..]),
            ("an empty name", &[0, 0, 2, 0]),
            ("a short number", &[0, 1, b'n', 1, 4, 0, 0, 0, 0]),
            ("a long name", &long),
            ("too many", &many),
        ] {
            assert_eq!(parse_values(bytes), Err(MALFORMED), "{what}");
        }
    }

    #[test]
    fn damaged_values_are_errors_or_values_within_the_bounds_and_never_a_panic() {
        const SEED: u64 = 0x5eed_0004;
        let mut random = Random::new(SEED);
        let (mut read, mut refused) = (0, 0);
        for case in 0..20_000 {
            let mut bytes = GOLDEN.repeat(1 + random.below(3));
            random.damage(&mut bytes);
            let what = format!("seed {SEED:#x} case {case}");
            let room = random.below(bytes.len() + 1);
            assert!(cut_values(&bytes, room).len() <= room, "{what}");
            match parse_values(&bytes) {
                Ok(annotations) => {
                    read += 1;
                    // What was damaged into other characters takes up to three bytes for one.
                    let bounded =
                        |annotation: &HostAnnotation| annotation.name.len() <= 3 * MAX_VALUE_NAME;
                    assert!(annotations.iter().all(bounded), "{what}");
                    assert!(annotations.len() <= MAX_VALUES, "{what}");
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error, MALFORMED, "{what}");
                }
            }
        }
        assert!(
            read > 1000 && refused > 1000,
            "{read} read, {refused} refused"
        );
    }

    #[test]
    fn a_hop_finds_its_row_or_the_one_for_all_others() {
        let asked = [
            (1, Classes::LOAD),
            (3, Classes::TCP),
            (ASK_OTHERS, Classes::MIB),
        ];
        let value = emit_ask(asked.into_iter());
        #[rustfmt::skip]
        let golden = [1, 0, 0, 0, 1, 3, 0, 0, 0, 0x40, 255, 0, 0, 0, 0x10];
        assert_eq!(value, golden);
        assert_eq!(asked_of(&value, 3), Ok(Classes::TCP));
        assert_eq!(asked_of(&value, 2), Ok(Classes::MIB));
        assert_eq!(asked_of(&value[..10], 2), Ok(Classes(0)));
        for len in 0..value.len() {
            assert_eq!(asked_of(&value[..len], 1).is_ok(), len % 5 == 0, "{len}");
        }
        let many = emit_ask((0..=255).map(|hop| (hop, Classes::LOAD)));
        assert_eq!(many.len(), MAX_ASKED * ASK_LEN);
    }

    #[test]
    fn an_annotation_is_added_before_the_payload_as_long_as_there_is_room() {
        let header = Header::new(FrameType::Block, 7, 9);
        let mut annotations = Vec::new();
        push_annotation(&mut annotations, 99, 1, b"there");
        let bytes = build(header, &[], &annotations, b"payload");
        let frame = FrameView::parse(&bytes).unwrap();
        let (out, header) = with_annotation(&frame, 10, (ANNOTATION_VALUES, 2), GOLDEN).unwrap();
        let longer = FrameView::parse(&out[10..]).unwrap();
        assert_eq!(longer.header, header);
        assert_eq!(longer.payload(), b"payload");
        let seen: Vec<_> = longer.annotations().map(Result::unwrap).collect();
        let seen: Vec<_> = seen.iter().map(|a| (a.kind, a.hop, a.value)).collect();
        assert_eq!(
            seen,
            [(99, 1, &b"there"[..]), (ANNOTATION_VALUES, 2, GOLDEN)]
        );
        let much = vec![0; MAX_ANNOTATIONS - annotations.len() - ANNOTATION_HEADER_LEN + 1];
        assert!(with_annotation(&frame, 0, (1, 2), &much).is_none());
        assert!(with_annotation(&frame, 0, (1, 2), &much[1..]).is_some());
    }
}
