//! The header: 48 bytes, big-endian; the drawing is in `wire/mod.rs`.

use super::crc::crc32;
use super::frame_type::FrameType;
use super::stamp::STAMP_LEN;
use super::{ParseError, MAX_ANNOTATIONS, MAX_HEADER_LEN, MAX_PAYLOAD, MAX_STAMPS};
use byteorder::{BigEndian, ByteOrder};

/// Length of a header of this version.
pub const HEADER_LEN: usize = 48;
/// The first bytes of every frame. The first one is no text, and CR LF shows a transport that
/// rewrites line ends.
pub const MAGIC: [u8; 8] = *b"\x89STS\r\n\x1a\n";
/// The version of this node.
pub const VERSION: u8 = 1;

mod field {
    use std::ops::Range;
    pub(super) const MAGIC: Range<usize> = 0..8;
    pub(super) const VERSION: usize = 8;
    pub(super) const TYPE: usize = 9;
    pub(super) const FLAGS: Range<usize> = 10..12;
    pub(super) const HEADER_LEN: Range<usize> = 12..14;
    pub(super) const ANNOTATIONS_LEN: Range<usize> = 14..16;
    pub(super) const PAYLOAD_LEN: Range<usize> = 16..20;
    pub(super) const STAMPS: usize = 20;
    pub(super) const HOP: usize = 21;
    pub(super) const HOP_LIMIT: usize = 22;
    pub(super) const AUTHENTICATION_LEN: usize = 23;
    pub(super) const COOKIE: Range<usize> = 24..32;
    pub(super) const SEQUENCE: Range<usize> = 32..40;
    pub(super) const CLASSES: Range<usize> = 40..44;
    pub(super) const CHECK: Range<usize> = 44..48;
}

/// The flag bits of a header. Unknown ones are kept and passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// Nodes stamp this frame.
    pub const MARKED: u16 = 1;
    /// The frame travels towards the source.
    pub const RETURN: u16 = 1 << 1;
    /// A node had no room for its annotation.
    pub const ANNOTATIONS_OVERFLOW: u16 = 1 << 2;
    /// A node had no room for its stamp.
    pub const STAMPS_OVERFLOW: u16 = 1 << 3;
    /// On OPEN alone: the session carries probes, which an exit answers itself.
    pub const PROBE: u16 = 1 << 4;

    /// Returns `true` if `bit` is set.
    pub fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    /// Returns the flags with `bit` set.
    pub fn with(self, bit: u16) -> Self {
        Self(self.0 | bit)
    }
}

/// A header as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the frame.
    pub kind: FrameType,
    /// Flag bits.
    pub flags: Flags,
    /// The length of the header: 48 in this version; bytes beyond are passed on.
    pub header_len: usize,
    /// Bytes of annotations.
    pub annotations_len: usize,
    /// Bytes of payload.
    pub payload_len: usize,
    /// Number of stamps.
    pub stamps: u8,
    /// Hop of the node that sent it.
    pub hop: u8,
    /// The frame goes no further than this hop.
    pub hop_limit: u8,
    /// Bytes of the authentication trailer.
    pub authentication_len: u8,
    /// Identifier of the path session.
    pub cookie: u64,
    /// The number of the block; an answer and a report carry that of their block.
    pub sequence: u64,
    /// The annotation classes that are requested, a bit each.
    pub classes: u32,
}

impl Header {
    /// A header without flags, stamps, annotations and payload.
    pub fn new(kind: FrameType, cookie: u64, sequence: u64) -> Self {
        Self {
            kind,
            flags: Flags::default(),
            header_len: HEADER_LEN,
            annotations_len: 0,
            payload_len: 0,
            stamps: 0,
            hop: 0,
            hop_limit: super::DEFAULT_HOP_LIMIT,
            authentication_len: 0,
            cookie,
            sequence,
            classes: 0,
        }
    }

    /// Reads a header from the front of `bytes`, which may be longer.
    ///
    /// # Errors
    ///
    /// [`ParseError::Incomplete`] while everything so far is right; a wrong magic shows at its
    /// first wrong byte. Every other error is final. Lengths are within their bounds in `Ok`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let begun = bytes.len().min(MAGIC.len());
        if bytes[..begun] != MAGIC[..begun] {
            return Err(ParseError::Magic {
                seen: bytes[..bytes.len().min(24)].to_vec(),
            });
        }
        // The version comes before everything that another version may have moved.
        if let Some(&seen) = bytes.get(field::VERSION) {
            if seen != VERSION {
                return Err(ParseError::Version { seen });
            }
        }
        let Some(fixed) = bytes.get(..HEADER_LEN) else {
            return Err(ParseError::Incomplete {
                missing: HEADER_LEN - bytes.len(),
            });
        };
        let seen = BigEndian::read_u32(&fixed[field::CHECK]);
        let computed = crc32(&fixed[..field::CHECK.start]);
        if seen != computed {
            return Err(ParseError::Check { seen, computed });
        }
        let seen = fixed[field::TYPE];
        let kind = FrameType::from_byte(seen).ok_or(ParseError::Type { seen })?;
        let header = Self {
            kind,
            flags: Flags(BigEndian::read_u16(&fixed[field::FLAGS])),
            header_len: usize::from(BigEndian::read_u16(&fixed[field::HEADER_LEN])),
            annotations_len: usize::from(BigEndian::read_u16(&fixed[field::ANNOTATIONS_LEN])),
            payload_len: BigEndian::read_u32(&fixed[field::PAYLOAD_LEN]) as usize,
            stamps: fixed[field::STAMPS],
            hop: fixed[field::HOP],
            hop_limit: fixed[field::HOP_LIMIT],
            authentication_len: fixed[field::AUTHENTICATION_LEN],
            cookie: BigEndian::read_u64(&fixed[field::COOKIE]),
            sequence: BigEndian::read_u64(&fixed[field::SEQUENCE]),
            classes: BigEndian::read_u32(&fixed[field::CLASSES]),
        };
        for (field, value, least, most) in [
            (
                "header length",
                header.header_len,
                HEADER_LEN,
                MAX_HEADER_LEN,
            ),
            (
                "annotations length",
                header.annotations_len,
                0,
                MAX_ANNOTATIONS,
            ),
            ("payload length", header.payload_len, 0, MAX_PAYLOAD),
            ("stamp count", usize::from(header.stamps), 0, MAX_STAMPS),
        ] {
            if !(least..=most).contains(&value) {
                return Err(ParseError::Bound {
                    field,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(header)
    }

    /// Writes the 48 bytes of this version, check included, to the front of `out`.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than [`HEADER_LEN`] or a length exceeds its bound: both are the caller's
    /// arithmetic.
    pub fn emit(&self, out: &mut [u8]) {
        assert!(
            self.annotations_len <= MAX_ANNOTATIONS && self.payload_len <= MAX_PAYLOAD,
            "lengths are bounded where they arise"
        );
        let out = &mut out[..HEADER_LEN];
        out[field::MAGIC].copy_from_slice(&MAGIC);
        out[field::VERSION] = VERSION;
        out[field::TYPE] = self.kind.byte();
        BigEndian::write_u16(&mut out[field::FLAGS], self.flags.0);
        BigEndian::write_u16(&mut out[field::HEADER_LEN], self.header_len as u16);
        BigEndian::write_u16(
            &mut out[field::ANNOTATIONS_LEN],
            self.annotations_len as u16,
        );
        BigEndian::write_u32(&mut out[field::PAYLOAD_LEN], self.payload_len as u32);
        out[field::STAMPS] = self.stamps;
        out[field::HOP] = self.hop;
        out[field::HOP_LIMIT] = self.hop_limit;
        out[field::AUTHENTICATION_LEN] = self.authentication_len;
        BigEndian::write_u64(&mut out[field::COOKIE], self.cookie);
        BigEndian::write_u64(&mut out[field::SEQUENCE], self.sequence);
        BigEndian::write_u32(&mut out[field::CLASSES], self.classes);
        let check = crc32(&out[..field::CHECK.start]);
        BigEndian::write_u32(&mut out[field::CHECK], check);
    }

    /// Returns the offset of the first stamp.
    pub fn stamps_at(&self) -> usize {
        self.header_len
    }

    /// Returns the offset of the annotations, where a further stamp goes.
    pub fn annotations_at(&self) -> usize {
        self.stamps_at() + usize::from(self.stamps) * STAMP_LEN
    }

    /// Returns the offset of the payload.
    pub fn payload_at(&self) -> usize {
        self.annotations_at() + self.annotations_len
    }

    /// Returns the length of the whole frame.
    pub fn frame_len(&self) -> usize {
        self.payload_at() + self.payload_len + usize::from(self.authentication_len)
    }

    /// Returns `true` if nodes stamp it.
    pub fn marked(&self) -> bool {
        self.flags.has(Flags::MARKED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            kind: FrameType::Block,
            flags: Flags(Flags::MARKED | 0x8000),
            header_len: HEADER_LEN,
            annotations_len: 0x0102,
            payload_len: 0x0003_0405,
            stamps: 6,
            hop: 7,
            hop_limit: 32,
            authentication_len: 0,
            cookie: 0x1122_3344_5566_7788,
            sequence: 0x99aa_bbcc_ddee_ff00,
            classes: 0x0a0b_0c0d,
        }
    }

    const GOLDEN: [u8; HEADER_LEN] = [
        0x89, b'S', b'T', b'S', b'\r', b'\n', 0x1a, b'\n', // magic
        1, 3, 0x80, 0x01, 0, 48, 0x01,
        0x02, // version, type, flags, header and annotation lengths
        0x00, 0x03, 0x04, 0x05, 6, 7, 32,
        0, // payload length, stamps, hop, limit, authentication
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // cookie
        0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, // sequence
        0x0a, 0x0b, 0x0c, 0x0d, 0x63, 0xc7, 0xf6, 0xa0, // classes, check
    ];

    /// `GOLDEN` with one byte changed and the check made right again.
    fn with(at: usize, byte: u8) -> [u8; HEADER_LEN] {
        let mut bytes = GOLDEN;
        bytes[at] = byte;
        let check = crc32(&bytes[..44]);
        BigEndian::write_u32(&mut bytes[44..], check);
        bytes
    }

    #[test]
    fn the_flag_bits_are_those_of_the_wire() {
        let bits = [
            Flags::MARKED,
            Flags::RETURN,
            Flags::ANNOTATIONS_OVERFLOW,
            Flags::STAMPS_OVERFLOW,
            Flags::PROBE,
        ];
        assert_eq!(bits, [1, 2, 4, 8, 16]);
        let header = Header {
            flags: Flags(Flags::PROBE),
            ..Header::new(FrameType::Open, 7, 0)
        };
        let mut bytes = [0; HEADER_LEN];
        header.emit(&mut bytes);
        assert_eq!(bytes[10..12], [0, 16]);
        assert_eq!(Header::parse(&bytes).unwrap().flags, header.flags);
    }

    #[test]
    fn golden_bytes_are_written_and_read() {
        let mut out = [0xa5; HEADER_LEN]; // Dirty on purpose: emit has to write every byte.
        sample().emit(&mut out);
        assert_eq!(out, GOLDEN);
        assert_eq!(Header::parse(&GOLDEN), Ok(sample()));
    }

    #[test]
    fn every_truncation_is_incomplete_with_the_number_of_missing_bytes() {
        for len in 0..HEADER_LEN {
            assert_eq!(
                Header::parse(&GOLDEN[..len]),
                Err(ParseError::Incomplete {
                    missing: HEADER_LEN - len
                })
            );
        }
    }

    #[test]
    fn a_wrong_magic_is_refused_at_its_first_byte() {
        for (bytes, seen) in [
            (&b"H"[..], &b"H"[..]),
            (
                b"\x89STT and much more text than is shown",
                b"\x89STT and much more text ",
            ),
        ] {
            assert_eq!(
                Header::parse(bytes),
                Err(ParseError::Magic {
                    seen: seen.to_vec()
                })
            );
        }
        let error = Header::parse(b"HTTP/1.1 400\r\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"does not speak this protocol: it sent "HTTP/1.1 400\r\n""#
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        for at in 0..HEADER_LEN {
            for bit in 0..8 {
                let mut bytes = GOLDEN;
                bytes[at] ^= 1 << bit;
                assert!(Header::parse(&bytes).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn lengths_beyond_their_bounds_are_errors_before_anything_is_allocated() {
        for (at, byte, field) in [
            (13, 47, "header length"),
            (12, 5, "header length"),
            (14, 0x41, "annotations length"),
            (17, 0x11, "payload length"),
            (16, 0xff, "payload length"),
            (20, 129, "stamp count"),
        ] {
            match Header::parse(&with(at, byte)) {
                Err(ParseError::Bound { field: named, .. }) => assert_eq!(named, field),
                other => panic!("byte {at} = {byte}: {other:?}"),
            }
        }
    }

    #[test]
    fn unknown_types_pass_with_the_top_bit_and_fail_without_it() {
        assert_eq!(
            Header::parse(&with(9, 9)),
            Err(ParseError::Type { seen: 9 })
        );
        assert_eq!(
            Header::parse(&with(9, 0)),
            Err(ParseError::Type { seen: 0 })
        );
        assert_eq!(
            Header::parse(&with(9, 0x88)).map(|h| h.kind),
            Ok(FrameType::Passable(0x88))
        );
    }

    #[test]
    fn another_version_is_named_even_where_its_header_is_not_understood() {
        assert_eq!(
            Header::parse(&with(8, 2)),
            Err(ParseError::Version { seen: 2 })
        );
        let mut short = GOLDEN;
        short[8] = 9;
        assert_eq!(
            Header::parse(&short[..12]),
            Err(ParseError::Version { seen: 9 })
        );
    }

    #[test]
    fn a_longer_header_of_a_later_minor_version_is_read_and_its_layout_follows() {
        let header = Header::parse(&with(13, 64)).unwrap();
        assert_eq!(header.stamps_at(), 64);
        assert_eq!(
            header.frame_len(),
            64 + 6 * STAMP_LEN + 0x0102 + 0x0003_0405
        );
    }
}
