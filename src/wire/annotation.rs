//! Annotations: type-length-value, each naming the hop that wrote it; the drawing is in
//! `wire/mod.rs`.
//!
//! Unknown types are passed on untouched. When the room ([`MAX_ANNOTATIONS`]) is used up, a node
//! sets [`Flags::ANNOTATIONS_OVERFLOW`](super::Flags::ANNOTATIONS_OVERFLOW) and goes on.

use super::{ParseError, MAX_ANNOTATIONS, VERSION};
use crate::time::Nanos;
use byteorder::{BigEndian, ByteOrder};

/// Type, hop and length.
pub const ANNOTATION_HEADER_LEN: usize = 4;
/// The introduction of a node: [`NodeInfo`].
pub const ANNOTATION_NODE: u8 = 1;
/// The far end's nonce, 8 bytes, in OPENED.
pub const ANNOTATION_NONCE: u8 = 2;
/// The time of the server behind an exit: [`BehindExit`].
pub const ANNOTATION_BEHIND_EXIT: u8 = 3;

/// The annotations that a node gives on request; see `wire/values.rs`.
pub const ANNOTATION_VALUES: u8 = 4;
/// The classes requested from each hop, if they differ.
pub const ANNOTATION_ASK: u8 = 5;
/// A reading of the count of segments sent again: [`RetransmitCount`].
pub const ANNOTATION_RETRANSMITS: u8 = 6;
/// The ends of the client's connection at the entry, in OPEN:
/// [`ClientAddress`](super::ClientAddress).
pub const ANNOTATION_CLIENT_ADDRESS: u8 = 7;
/// An exit's latest connect to its server, on a probe that it answers: [`ServerConnect`].
pub const ANNOTATION_SERVER_CONNECT: u8 = 8;
/// A request of an entry, without a value: the exit sends the stamps of this block back with the
/// first block of the server's answer, which then is marked too.
pub const ANNOTATION_ASK_STAMPS: u8 = 9;
/// The stamps of the block that this one answers, from its way out, one behind the other.
pub const ANNOTATION_ANSWERED: u8 = 10;

/// One annotation, its value not yet interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation<'a> {
    /// One of the `ANNOTATION_` constants, or one of a later version.
    pub kind: u8,
    /// Hop of the node that wrote it.
    pub hop: u8,
    /// Its content.
    pub value: &'a [u8],
}

/// Walks over a frame's annotations; ends at the first malformed one, after an error.
#[derive(Clone, Debug)]
pub struct Annotations<'a> {
    rest: &'a [u8],
}

impl<'a> Annotations<'a> {
    /// Over the annotation bytes of a frame.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Annotations<'a> {
    type Item = Result<Annotation<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let malformed = ParseError::Content { part: "annotation" };
        if rest.len() < ANNOTATION_HEADER_LEN {
            return Some(Err(malformed));
        }
        let (head, rest) = rest.split_at(ANNOTATION_HEADER_LEN);
        let len = usize::from(BigEndian::read_u16(&head[2..]));
        if rest.len() < len {
            return Some(Err(malformed));
        }
        let (value, rest) = rest.split_at(len);
        self.rest = rest;
        Some(Ok(Annotation {
            kind: head[0],
            hop: head[1],
            value,
        }))
    }
}

/// Appends an annotation; returns `false`, and appends nothing, if the room is used up.
pub fn push_annotation(annotations: &mut Vec<u8>, kind: u8, hop: u8, value: &[u8]) -> bool {
    if annotations.len() + ANNOTATION_HEADER_LEN + value.len() > MAX_ANNOTATIONS {
        return false;
    }
    annotations.extend_from_slice(&[kind, hop]);
    annotations.extend_from_slice(&(value.len() as u16).to_be_bytes());
    annotations.extend_from_slice(value);
    true
}

/// The role of a node on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Makes blocks: from stdin, or a probe's own.
    Source,
    /// Framed in, framed out.
    Relay,
    /// Reflects every block.
    Echo,
    /// Plain TCP in, framed out.
    Entry,
    /// Framed in, plain TCP out.
    Exit,
    /// Plain TCP on both sides.
    Proxy,
    /// A role of a later version.
    Unknown,
}

impl NodeRole {
    const ALL: [(Self, u8, &'static str); 6] = [
        (Self::Source, 1, "source"),
        (Self::Relay, 2, "relay"),
        (Self::Echo, 3, "echo"),
        (Self::Entry, 4, "entry"),
        (Self::Exit, 5, "exit"),
        (Self::Proxy, 6, "proxy"),
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or("unknown", |row| row.2)
    }

    fn to_wire(self) -> u8 {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or(0, |row| row.1)
    }

    fn from_wire(byte: u8) -> Self {
        Self::ALL
            .iter()
            .find(|row| row.1 == byte)
            .map_or(Self::Unknown, |row| row.0)
    }
}

/// The introduction of a node in OPEN.
///
/// ```text
/// | id 8 | role 1 | least version 1 | greatest 1 | abilities 1 | clock error us 4 | connect ns 8 |
/// | name: length 1, bytes | address: likewise | next hop: likewise |
/// | tags: count 1, each: length 1, bytes |
/// ```
/// Unknown is all ones in `clock error` and 0 in `connect`. Texts are UTF-8, cut at 255 bytes; a
/// reader shows them escaped. Abilities are flag bits: see [`ABILITY_PROBES`]. Bytes behind the
/// tags belong to a later version and are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Random per process.
    pub id: u64,
    /// The role of the node.
    pub role: NodeRole,
    /// The least and greatest version of the protocol that it speaks.
    pub versions: (u8, u8),
    /// The bits of its abilities; unknown ones belong to a later version.
    pub abilities: u8,
    /// The greatest error of its wall clock as its kernel states it; `None` if the clock is not
    /// synchronised.
    pub clock_error: Option<Nanos>,
    /// The duration of its connect to the next node, the agreement on a key included; `None` if it
    /// has none.
    pub connect: Option<Nanos>,
    /// `--node NAME`.
    pub name: String,
    /// The address that its upstream neighbour connected to; empty at the source.
    pub address: String,
    /// The address that it connected to; empty at a reflector.
    pub next_hop: String,
    /// Its static tags.
    pub tags: Vec<String>,
}

/// Ability bit of an exit that answers probes itself, and gives its server nothing of them.
pub const ABILITY_PROBES: u8 = 1;

const FIXED_LEN: usize = 24;
const UNKNOWN_CLOCK_ERROR: u32 = u32::MAX;

impl NodeInfo {
    /// The introduction of a node of this version that states nothing but its role and its name.
    pub fn new(id: u64, role: NodeRole, name: impl Into<String>) -> Self {
        Self {
            id,
            role,
            versions: (VERSION, VERSION),
            abilities: 0,
            clock_error: None,
            connect: None,
            name: name.into(),
            address: String::new(),
            next_hop: String::new(),
            tags: Vec::new(),
        }
    }

    /// Reads the value of an [`ANNOTATION_NODE`].
    ///
    /// # Errors
    ///
    /// [`ParseError::Content`] if an inner length exceeds the value.
    pub fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let malformed = ParseError::Content {
            part: "node annotation",
        };
        if value.len() < FIXED_LEN {
            return Err(malformed);
        }
        let (fixed, mut rest) = value.split_at(FIXED_LEN);
        let mut text = || {
            let (&len, tail) = rest.split_first()?;
            let text = tail.get(..usize::from(len))?;
            rest = &tail[usize::from(len)..];
            Some(String::from_utf8_lossy(text).into_owned())
        };
        let (Some(name), Some(address), Some(next_hop)) = (text(), text(), text()) else {
            return Err(malformed);
        };
        let (&count, tail) = rest.split_first().ok_or_else(|| malformed.clone())?;
        rest = tail;
        let mut tags = Vec::new();
        for _ in 0..count {
            let (&len, tail) = rest.split_first().ok_or_else(|| malformed.clone())?;
            let tag = tail
                .get(..usize::from(len))
                .ok_or_else(|| malformed.clone())?;
            tags.push(String::from_utf8_lossy(tag).into_owned());
            rest = &tail[usize::from(len)..];
        }
        let clock_error = BigEndian::read_u32(&fixed[12..16]);
        let connect = BigEndian::read_u64(&fixed[16..24]);
        Ok(Self {
            id: BigEndian::read_u64(&fixed[0..8]),
            role: NodeRole::from_wire(fixed[8]),
            versions: (fixed[9], fixed[10]),
            abilities: fixed[11],
            clock_error: (clock_error != UNKNOWN_CLOCK_ERROR)
                .then(|| Nanos::from_micros(u64::from(clock_error))),
            connect: (connect != 0).then_some(Nanos(connect)),
            name,
            address,
            next_hop,
            tags,
        })
    }

    /// Returns the identifier alone; `None` if `value` is too short to hold one.
    pub fn id_of(value: &[u8]) -> Option<u64> {
        Some(BigEndian::read_u64(value.get(..8)?))
    }

    /// The value of an [`ANNOTATION_NODE`]. Texts are cut at 255 bytes, tags at 255.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.resize(FIXED_LEN, 0);
        BigEndian::write_u64(&mut out[0..8], self.id);
        out[8] = self.role.to_wire();
        out[9] = self.versions.0;
        out[10] = self.versions.1;
        out[11] = self.abilities;
        let clock_error = self.clock_error.map_or(UNKNOWN_CLOCK_ERROR, |error| {
            error.as_micros_u32().min(UNKNOWN_CLOCK_ERROR - 1)
        });
        BigEndian::write_u32(&mut out[12..16], clock_error);
        BigEndian::write_u64(&mut out[16..24], self.connect.map_or(0, |span| span.0));
        let text = |out: &mut Vec<u8>, text: &str| {
            let bytes = &text.as_bytes()[..text.len().min(255)];
            out.push(bytes.len() as u8);
            out.extend_from_slice(bytes);
        };
        text(&mut out, &self.name);
        text(&mut out, &self.address);
        text(&mut out, &self.next_hop);
        let tags = &self.tags[..self.tags.len().min(255)];
        out.push(tags.len() as u8);
        for tag in tags {
            text(&mut out, tag);
        }
        out
    }
}

/// The TCP segments that a node sent again to one neighbour since the reading before.
///
/// ```text
/// | direction 1 | reserved 3 | count 4 | span ns 8 |
/// ```
/// Direction 1 is forward, to the node behind; 2 is return, to the node before. Bytes behind the
/// span belong to a later version and are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitCount {
    /// `true` for the return direction.
    pub back: bool,
    /// Segments sent again, less those that had arrived; saturating.
    pub count: u32,
    /// Time since the reading before, on the node's clock.
    pub span: Nanos,
}

impl RetransmitCount {
    /// Length of the value.
    pub const LEN: usize = 16;

    /// Reads the value of an [`ANNOTATION_RETRANSMITS`].
    ///
    /// # Errors
    ///
    /// [`ParseError::Content`] if it is too short or has an unknown direction.
    pub fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let malformed = ParseError::Content {
            part: "retransmits annotation",
        };
        let Some(value) = value.get(..Self::LEN) else {
            return Err(malformed);
        };
        Ok(Self {
            back: match value[0] {
                1 => false,
                2 => true,
                _ => return Err(malformed),
            },
            count: BigEndian::read_u32(&value[4..8]),
            span: Nanos(BigEndian::read_u64(&value[8..])),
        })
    }

    /// The value.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0] = if self.back { 2 } else { 1 };
        BigEndian::write_u32(&mut out[4..8], self.count);
        BigEndian::write_u64(&mut out[8..], self.span.0);
        out
    }
}

/// First reply byte minus last forward write at an exit whose connection was quiet before; rides on
/// the reply's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BehindExit {
    /// The forward block that was answered.
    pub sequence: u64,
    /// The server's time, and the network's to it and back.
    pub span: Nanos,
}

impl BehindExit {
    /// Length of the value.
    pub const LEN: usize = 16;

    /// Reads the value of an [`ANNOTATION_BEHIND_EXIT`].
    ///
    /// # Errors
    ///
    /// [`ParseError::Content`] if it is too short.
    pub fn parse(value: &[u8]) -> Result<Self, ParseError> {
        if value.len() < Self::LEN {
            return Err(ParseError::Content {
                part: "behind-exit annotation",
            });
        }
        Ok(Self {
            sequence: BigEndian::read_u64(&value[..8]),
            span: Nanos(BigEndian::read_u64(&value[8..16])),
        })
    }

    /// The value.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        BigEndian::write_u64(&mut out[..8], self.sequence);
        BigEndian::write_u64(&mut out[8..], self.span.0);
        out
    }
}

/// A connect of an exit to its server, on the first block that the exit answers after it.
///
/// ```text
/// | outcome 1 | maker 1 | reserved 2 | age us 4 | span ns 8 | error: UTF-8, to the end |
/// ```
/// Outcome: 1 connected, 2 failed. Maker: 1 a client's connection, 2 a check of the exit's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConnect {
    /// `true` if the exit made it to time the server, `false` if a client's connection needed it.
    pub is_check: bool,
    /// The time from its end to the answer of the block, on the exit's clock.
    pub age: Nanos,
    /// Its duration.
    pub span: Nanos,
    /// The reason why it failed; `None` if the server accepted.
    pub error: Option<String>,
}

impl ServerConnect {
    const FIXED_LEN: usize = 16;
    /// Most bytes of an error.
    pub const MAX_ERROR: usize = 240;

    /// Reads the value of an [`ANNOTATION_SERVER_CONNECT`].
    ///
    /// # Errors
    ///
    /// [`ParseError::Content`] if it is too short or too long, or an unknown outcome.
    pub fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let malformed = ParseError::Content {
            part: "server-connect annotation",
        };
        if !(Self::FIXED_LEN..=Self::FIXED_LEN + Self::MAX_ERROR).contains(&value.len()) {
            return Err(malformed);
        }
        let (fixed, error) = value.split_at(Self::FIXED_LEN);
        Ok(Self {
            error: match fixed[0] {
                1 => None,
                2 => Some(String::from_utf8_lossy(error).into_owned()),
                _ => return Err(malformed),
            },
            is_check: fixed[1] == 2,
            age: Nanos::from_micros(u64::from(BigEndian::read_u32(&fixed[4..8]))),
            span: Nanos(BigEndian::read_u64(&fixed[8..])),
        })
    }

    /// The value. An error is cut at [`ServerConnect::MAX_ERROR`] bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; Self::FIXED_LEN];
        out[0] = if self.error.is_some() { 2 } else { 1 };
        out[1] = if self.is_check { 2 } else { 1 };
        BigEndian::write_u32(&mut out[4..8], self.age.as_micros_u32());
        BigEndian::write_u64(&mut out[8..], self.span.0);
        let error = self.error.as_deref().unwrap_or("").as_bytes();
        out.extend_from_slice(&error[..error.len().min(Self::MAX_ERROR)]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_server_connect_are_written_and_read_and_truncations_are_errors() {
        let connected = ServerConnect {
            is_check: false,
            age: Nanos::from_micros(0x0102_0304),
            span: Nanos(0x0506_0708),
            error: None,
        };
        let golden = [1, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8];
        assert_eq!(
            (&connected.emit()[..], ANNOTATION_SERVER_CONNECT),
            (&golden[..], 8)
        );
        assert_eq!(ServerConnect::parse(&golden), Ok(connected.clone()));
        let failed = ServerConnect {
            is_check: true,
            error: Some("no".into()),
            ..connected
        };
        let golden = [2, 2, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, b'n', b'o'];
        assert_eq!(failed.emit(), golden);
        assert_eq!(ServerConnect::parse(&golden), Ok(failed.clone()));
        for len in 0..16 {
            assert!(ServerConnect::parse(&golden[..len]).is_err(), "{len} bytes");
        }
        for outcome in [0, 3, 255] {
            let mut other = golden;
            other[0] = outcome;
            assert!(ServerConnect::parse(&other).is_err());
        }
        let long = ServerConnect {
            error: Some("x".repeat(1000)),
            ..failed
        };
        assert_eq!(long.emit().len(), 16 + ServerConnect::MAX_ERROR);
        assert!(ServerConnect::parse(&long.emit()).is_ok());
        assert!(ServerConnect::parse(&[&long.emit()[..], b"x"].concat()).is_err());
    }

    fn sample() -> NodeInfo {
        NodeInfo {
            id: 0x0102_0304_0506_0708,
            role: NodeRole::Relay,
            versions: (1, 1),
            abilities: ABILITY_PROBES,
            clock_error: Some(Nanos::from_micros(0x0a0b)),
            connect: Some(Nanos(0x0c0d)),
            name: "B".into(),
            address: "b:1".into(),
            next_hop: String::new(),
            tags: vec!["x".into()],
        }
    }

    const GOLDEN: &[u8] = &[
        1, 2, 3, 4, 5, 6, 7, 8, 2, 1, 1, 1, // id, role, versions, abilities
        0, 0, 0x0a, 0x0b, 0, 0, 0, 0, 0, 0, 0x0c, 0x0d, // clock error, connect
        1, b'B', 3, b'b', b':', b'1', 0, 1, 1, b'x', // name, address, next hop, tags
    ];

    #[test]
    fn golden_bytes_of_a_node_are_written_and_read() {
        assert_eq!(sample().emit(), GOLDEN);
        assert_eq!(NodeInfo::parse(GOLDEN), Ok(sample()));
        assert_eq!(NodeInfo::id_of(GOLDEN), Some(sample().id));
        assert_eq!(NodeInfo::id_of(&GOLDEN[..7]), None);
        let mut able = GOLDEN.to_vec();
        able[11] = 0x82;
        let later = NodeInfo {
            abilities: 0x82,
            ..sample()
        };
        assert_eq!(NodeInfo::parse(&able), Ok(later), "unknown bits are kept");
        let unknown = NodeInfo {
            clock_error: None,
            connect: None,
            ..sample()
        };
        assert_eq!(NodeInfo::parse(&unknown.emit()), Ok(unknown));
    }

    #[test]
    fn every_truncation_of_a_node_is_an_error() {
        for len in 0..GOLDEN.len() {
            assert!(
                matches!(
                    NodeInfo::parse(&GOLDEN[..len]),
                    Err(ParseError::Content { .. })
                ),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_later_version_may_append_to_a_node() {
        let mut longer = GOLDEN.to_vec();
        longer.extend_from_slice(b"more");
        assert_eq!(NodeInfo::parse(&longer), Ok(sample()));
    }

    #[test]
    fn annotations_of_unknown_types_are_skipped_and_truncations_are_errors() {
        let mut bytes = Vec::new();
        assert!(push_annotation(&mut bytes, 200, 3, b"whatever"));
        assert!(push_annotation(&mut bytes, ANNOTATION_NONCE, 4, &[]));
        assert_eq!(&bytes[..4], &[200, 3, 0, 8]);
        let seen: Vec<_> = Annotations::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            seen.iter().map(|a| (a.kind, a.hop)).collect::<Vec<_>>(),
            [(200, 3), (ANNOTATION_NONCE, 4)]
        );
        for len in 1..bytes.len() {
            let cut = Annotations::new(&bytes[..len]).last();
            assert_eq!(cut.unwrap().is_err(), len != 12, "{len} bytes");
        }
    }

    #[test]
    fn used_up_room_refuses_without_appending() {
        let mut bytes = vec![0; MAX_ANNOTATIONS - 5];
        assert!(!push_annotation(&mut bytes, 1, 1, b"ab"));
        assert!(push_annotation(&mut bytes, 1, 1, b"a"));
        assert_eq!(bytes.len(), MAX_ANNOTATIONS);
    }

    #[test]
    fn golden_bytes_of_retransmits_are_written_and_read_and_truncations_are_errors() {
        let value = RetransmitCount {
            back: true,
            count: 0x0102_0304,
            span: Nanos(0x05_0607),
        };
        let golden = [2, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 5, 6, 7];
        assert_eq!((value.emit(), ANNOTATION_RETRANSMITS), (golden, 6));
        assert_eq!(RetransmitCount::parse(&golden), Ok(value));
        let forward = RetransmitCount {
            back: false,
            ..value
        };
        assert_eq!(forward.emit()[0], 1);
        assert_eq!(RetransmitCount::parse(&forward.emit()), Ok(forward));
        for len in 0..golden.len() {
            assert!(
                RetransmitCount::parse(&golden[..len]).is_err(),
                "{len} bytes"
            );
        }
        let longer = [&golden[..], b"more"].concat();
        assert_eq!(RetransmitCount::parse(&longer), Ok(value));
        for direction in [0, 3, 255] {
            let mut other = golden;
            other[0] = direction;
            assert!(RetransmitCount::parse(&other).is_err());
        }
    }

    #[test]
    fn behind_exit_is_sixteen_bytes() {
        let value = BehindExit {
            sequence: 1,
            span: Nanos(2),
        };
        let bytes = value.emit();
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(BehindExit::parse(&bytes), Ok(value));
        assert!(BehindExit::parse(&bytes[..15]).is_err());
    }
}
