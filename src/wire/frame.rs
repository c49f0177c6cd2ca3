//! Whole frames: views of one, building one, and appending a stamp in place.

use super::annotation::Annotations;
use super::header::{Flags, Header, HEADER_LEN};
use super::stamp::{Stamp, STAMP_LEN};
use super::{ParseError, MAX_ERROR_TEXT, MAX_STAMPS};
use byteorder::{BigEndian, ByteOrder};

/// A complete frame in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    /// Its header.
    pub header: Header,
    bytes: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// Reads a frame from the front of `bytes`, which may be longer.
    ///
    /// # Errors
    ///
    /// Those of [`Header::parse`]; [`ParseError::Incomplete`] also if the frame is not complete.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::of(Header::parse(bytes)?, bytes)
    }

    /// Reads a frame whose header was read already.
    ///
    /// # Errors
    ///
    /// [`ParseError::Incomplete`] if the frame is not complete.
    pub fn of(header: Header, bytes: &'a [u8]) -> Result<Self, ParseError> {
        match bytes.get(..header.frame_len()) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(ParseError::Incomplete {
                missing: header.frame_len() - bytes.len(),
            }),
        }
    }

    /// The whole frame.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its stamps, in the order of the nodes that wrote them.
    pub fn stamps(&self) -> impl Iterator<Item = Result<Stamp, ParseError>> + 'a {
        self.bytes[self.header.stamps_at()..self.header.annotations_at()]
            .chunks_exact(STAMP_LEN)
            .map(Stamp::parse)
    }

    /// Its stamps as bytes.
    pub fn stamp_bytes(&self) -> &'a [u8] {
        &self.bytes[self.header.stamps_at()..self.header.annotations_at()]
    }

    /// Its annotations.
    pub fn annotations(&self) -> Annotations<'a> {
        Annotations::new(self.annotation_bytes())
    }

    /// Its annotations as bytes.
    pub fn annotation_bytes(&self) -> &'a [u8] {
        &self.bytes[self.header.annotations_at()..self.header.payload_at()]
    }

    /// Its payload.
    pub fn payload(&self) -> &'a [u8] {
        let at = self.header.payload_at();
        &self.bytes[at..at + self.header.payload_len]
    }
}

/// Builds a frame; sets the counts and lengths in `header` from the parts.
pub fn build(mut header: Header, stamps: &[u8], annotations: &[u8], payload: &[u8]) -> Vec<u8> {
    header.header_len = HEADER_LEN;
    header.stamps = (stamps.len() / STAMP_LEN) as u8;
    header.annotations_len = annotations.len();
    header.payload_len = payload.len();
    header.authentication_len = 0;
    let mut out = Vec::with_capacity(header.frame_len() + STAMP_LEN);
    out.resize(HEADER_LEN, 0);
    header.emit(&mut out);
    out.extend_from_slice(stamps);
    out.extend_from_slice(annotations);
    out.extend_from_slice(payload);
    out
}

/// Writes the parts of a frame before its payload, right before `payload_at`: annotations, stamp,
/// header.
///
/// Sets the number of stamps and the length of the annotations in `header`. Returns the start of
/// the frame and the place of the stamp, for [`set_egress`](super::set_egress).
///
/// # Panics
///
/// If there is no room for them before `payload_at`.
pub fn put_front(
    buffer: &mut [u8],
    payload_at: usize,
    header: &mut Header,
    stamp: Option<&Stamp>,
    annotations: &[u8],
) -> (usize, Option<usize>) {
    let mut start = payload_at - annotations.len();
    buffer[start..payload_at].copy_from_slice(annotations);
    header.annotations_len = annotations.len();
    header.stamps = 0;
    let mut stamp_at = None;
    if let Some(stamp) = stamp {
        start -= STAMP_LEN;
        stamp.emit(&mut buffer[start..]);
        header.stamps = 1;
        stamp_at = Some(start);
    }
    start -= HEADER_LEN;
    header.emit(&mut buffer[start..]);
    (start, stamp_at)
}

/// Writes `hop` into the header of the frame at the front of `frame`.
pub fn set_hop(frame: &mut [u8], header: &mut Header, hop: u8) {
    header.hop = hop;
    header.emit(frame);
}

/// Appends `stamp` to the frame that begins at `start`: all before the annotations moves down by
/// one stamp, and the payload stays in place. Writes the header anew.
///
/// Returns the new start, and the place of the stamp for [`set_egress`](super::set_egress). The
/// place is `None`, with the overflow flag in the header, if the frame carries [`MAX_STAMPS`]
/// already.
///
/// # Panics
///
/// If there is less than [`STAMP_LEN`] of room before `start`.
pub fn push_stamp(
    buffer: &mut [u8],
    start: usize,
    header: &mut Header,
    stamp: &Stamp,
) -> (usize, Option<usize>) {
    if usize::from(header.stamps) >= MAX_STAMPS {
        header.flags = header.flags.with(Flags::STAMPS_OVERFLOW);
        header.emit(&mut buffer[start..]);
        return (start, None);
    }
    let new_start = start - STAMP_LEN;
    let moved = header.annotations_at();
    buffer.copy_within(start..start + moved, new_start);
    let stamp_at = new_start + moved;
    stamp.emit(&mut buffer[stamp_at..]);
    header.stamps += 1;
    header.emit(&mut buffer[new_start..]);
    (new_start, Some(stamp_at))
}

/// The kind of fault in an ERROR frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// A peer broke the protocol.
    Protocol,
    /// A node found its own id on the path.
    Loop,
    /// The path is longer than the hop limit.
    HopLimit,
    /// The next hop or the server could not be reached.
    Connect,
    /// A connection of the path broke.
    Broken,
    /// Something took longer than `--timeout`.
    Timeout,
    /// A node refuses: it ends, or is full.
    Refused,
    /// A code of a later version.
    Other(u16),
}

impl ErrorCode {
    const ALL: [(Self, u16); 7] = [
        (Self::Protocol, 1),
        (Self::Loop, 2),
        (Self::HopLimit, 3),
        (Self::Connect, 4),
        (Self::Broken, 5),
        (Self::Timeout, 6),
        (Self::Refused, 7),
    ];

    fn to_wire(self) -> u16 {
        match self {
            Self::Other(code) => code,
            _ => Self::ALL
                .iter()
                .find(|row| row.0 == self)
                .map_or(0, |row| row.1),
        }
    }

    fn from_wire(code: u16) -> Self {
        Self::ALL
            .iter()
            .find(|row| row.1 == code)
            .map_or(Self::Other(code), |row| row.0)
    }
}

/// The payload of an ERROR frame: code 2 | hop 1 | reserved 1 | node id 8 | text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorInfo {
    /// The kind of fault.
    pub code: ErrorCode,
    /// The hop of the node that reports it.
    pub hop: u8,
    /// The identifier of that node.
    pub node: u64,
    /// One line for people, at most [`MAX_ERROR_TEXT`] bytes; show it as [`shown`](Self::shown).
    pub text: String,
}

const ERROR_FIXED_LEN: usize = 12;

impl ErrorInfo {
    /// Reads the payload of an ERROR frame. Text beyond the bound is cut, not refused: the error
    /// matters more.
    ///
    /// # Errors
    ///
    /// [`ParseError::Content`] if it is too short.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        if payload.len() < ERROR_FIXED_LEN {
            return Err(ParseError::Content {
                part: "ERROR frame",
            });
        }
        let (fixed, text) = payload.split_at(ERROR_FIXED_LEN);
        let text = &text[..text.len().min(MAX_ERROR_TEXT)];
        Ok(Self {
            code: ErrorCode::from_wire(BigEndian::read_u16(fixed)),
            hop: fixed[2],
            node: BigEndian::read_u64(&fixed[4..]),
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// Returns the text for people: control characters are escaped, as they could forge lines;
    /// quotation marks and backslashes are not.
    pub fn shown(&self) -> String {
        let mut shown = String::with_capacity(self.text.len());
        for c in self.text.chars() {
            match c {
                '"' | '\'' | '\\' => shown.push(c),
                _ => shown.extend(c.escape_debug()),
            }
        }
        shown
    }

    /// The payload.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; ERROR_FIXED_LEN];
        BigEndian::write_u16(&mut out, self.code.to_wire());
        out[2] = self.hop;
        BigEndian::write_u64(&mut out[4..], self.node);
        let text = self.text.as_bytes();
        out.extend_from_slice(&text[..text.len().min(MAX_ERROR_TEXT)]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::{push_annotation, FrameType, StampDirection, HEADER_LEN};
    use super::*;
    use crate::time::WallTime;

    fn stamp(hop: u8) -> Stamp {
        Stamp {
            egress: WallTime(2),
            ..Stamp::new(0xabcd, hop, StampDirection::Forward, WallTime(1))
        }
    }

    fn stamp_bytes(hop: u8) -> [u8; STAMP_LEN] {
        let mut out = [0; STAMP_LEN];
        stamp(hop).emit(&mut out);
        out
    }

    fn sample() -> Vec<u8> {
        let mut annotations = Vec::new();
        push_annotation(&mut annotations, 9, 0, b"note");
        build(
            Header::new(FrameType::Block, 7, 8),
            &stamp_bytes(0),
            &annotations,
            b"payload",
        )
    }

    #[test]
    fn a_frame_reads_back_as_it_was_built() {
        let bytes = sample();
        let frame = FrameView::parse(&bytes).unwrap();
        assert_eq!(frame.payload(), b"payload");
        assert_eq!(
            frame.stamps().map(Result::unwrap).collect::<Vec<_>>(),
            [stamp(0)]
        );
        assert_eq!(
            frame.annotations().next().unwrap().unwrap().value,
            &b"note"[..]
        );
        assert_eq!(frame.header.frame_len(), bytes.len());
    }

    #[test]
    fn a_front_is_written_before_its_payload_as_build_writes_it() {
        let mut annotations = Vec::new();
        push_annotation(&mut annotations, 9, 0, b"note");
        for (has_stamp, annotations) in [(true, &annotations[..]), (true, &[]), (false, &[])] {
            let mut header = Header::new(FrameType::Block, 7, 8);
            let stamps = if has_stamp {
                stamp_bytes(0).to_vec()
            } else {
                Vec::new()
            };
            let expected = build(header, &stamps, annotations, b"payload");
            let mut buffer = vec![0xee; 200];
            buffer.extend_from_slice(b"payload");
            header.payload_len = 7;
            let stamp = stamp(0);
            let stamp = has_stamp.then_some(&stamp);
            let (start, at) = put_front(&mut buffer, 200, &mut header, stamp, annotations);
            assert_eq!(buffer[start..], expected);
            assert_eq!(at, has_stamp.then_some(start + HEADER_LEN));
            assert_eq!(Ok(header), Header::parse(&expected));
        }
    }

    #[test]
    fn every_truncation_is_incomplete() {
        let bytes = sample();
        for len in 0..bytes.len() {
            match FrameView::parse(&bytes[..len]) {
                Err(ParseError::Incomplete { missing }) => assert!(missing <= bytes.len() - len),
                other => panic!("{len} bytes: {other:?}"),
            }
        }
    }

    #[test]
    fn a_stamp_is_appended_behind_the_others_and_the_payload_does_not_move() {
        let frame = sample();
        let mut buffer = vec![0xee; STAMP_LEN];
        buffer.extend_from_slice(&frame);
        let mut header = Header::parse(&frame).unwrap();
        header.hop = 1;
        let (start, stamp_at) = push_stamp(&mut buffer, STAMP_LEN, &mut header, &stamp(1));
        assert_eq!(start, 0);
        let view = FrameView::parse(&buffer).unwrap();
        assert_eq!(
            view.stamps().map(Result::unwrap).collect::<Vec<_>>(),
            [stamp(0), stamp(1)]
        );
        assert_eq!((view.header.hop, view.payload()), (1, &b"payload"[..]));
        assert_eq!(view.annotations().count(), 1);
        assert_eq!(stamp_at, Some(HEADER_LEN + STAMP_LEN));
    }

    #[test]
    fn the_stamp_after_the_last_that_fits_sets_the_overflow_flag() {
        let stamps: Vec<u8> = (0..MAX_STAMPS)
            .flat_map(|hop| stamp_bytes(hop as u8))
            .collect();
        let frame = build(Header::new(FrameType::Block, 7, 8), &stamps, &[], b"x");
        let mut buffer = vec![0; STAMP_LEN];
        buffer.extend_from_slice(&frame);
        let mut header = Header::parse(&frame).unwrap();
        let (start, stamp_at) = push_stamp(&mut buffer, STAMP_LEN, &mut header, &stamp(1));
        assert_eq!((start, stamp_at), (STAMP_LEN, None));
        let view = FrameView::parse(&buffer[start..]).unwrap();
        assert!(view.header.flags.has(Flags::STAMPS_OVERFLOW));
        assert_eq!(view.payload(), b"x");
    }

    #[test]
    fn error_frames_carry_code_hop_node_and_a_bounded_text() {
        let error = ErrorInfo {
            code: ErrorCode::Loop,
            hop: 3,
            node: 0x0102,
            text: "loop".into(),
        };
        let bytes = error.emit();
        assert_eq!(
            bytes,
            [&[0, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2][..], b"loop"].concat()
        );
        assert_eq!(ErrorInfo::parse(&bytes), Ok(error.clone()));
        for len in 0..ERROR_FIXED_LEN {
            assert!(ErrorInfo::parse(&bytes[..len]).is_err());
        }
        let hostile = ErrorInfo {
            text: "it sent \"GET\\r\"\n\x1b[2J\u{202e}".into(),
            ..error.clone()
        };
        let shown = "it sent \"GET\\r\"\\n\\u{1b}[2J\\u{202e}";
        assert_eq!(hostile.shown(), shown);
        let long = ErrorInfo {
            code: ErrorCode::Other(999),
            text: "x".repeat(9999),
            ..error
        };
        let read = ErrorInfo::parse(&long.emit()).unwrap();
        assert_eq!(
            (read.code, read.text.len()),
            (ErrorCode::Other(999), MAX_ERROR_TEXT)
        );
    }
}
