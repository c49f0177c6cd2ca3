//! Bytes in, frames out, and back: the wire format, version 1. No sockets, no policy, no clock.
//!
//! One connection carries frames of one path session (one cookie), in both directions. All integers are big-endian.
//! TCP gives a stream, so "not enough yet" ([`ParseError::Incomplete`]) and "wrong" are different answers, and every
//! length is checked against its bound before anything is allocated for it.
//!
//! ```text
//! frame:  header 48 | stamps 40 each | annotations | payload | authentication trailer (8 with a shared key, else 0)
//!
//! header:
//!   0        8        9     10       12              14                   16              20
//!   | magic 8 | version | type | flags 2 | header length 2 | annotations length 2 | payload length 4 |
//!   20       21    22          23                      24       32         40                        44      48
//!   | stamps 1 | hop 1 | hop limit 1 | authentication length 1 | cookie 8 | sequence 8 | classes asked for 4 | check 4 |
//!
//! stamp:
//!   0        8      9            10                  11       12            16        24        32       40
//!   | node id 8 | hop 1 | direction 1 | clock generation 1 | flags 1 | held us 4 | arrival 8 | ingress 8 | egress 8 |
//!
//! annotation:
//!   0      1     2        4
//!   | type 1 | hop 1 | length 2 | value |
//!
//! value of FACTS, for each fact (value kind 1: number, an f64; 2: text):
//!   | bytes shared with the name before 1 | bytes of name that follow 1 | those | kind 1 | value length 1 | value |
//!
//! value of ASK, for each hop (255: all that are not listed):
//!   | hop 1 | classes 4 |
//!
//! authentication trailer:
//!   0       8
//!   | tag 8 |
//!
//! payload of HELLO:
//!   0          1            8         24
//!   | method 1 | reserved 7 | nonce 16 |
//! ```
//!
//! HELLO is said by both ends of a link that is to be authenticated, before everything else, and goes no further than
//! that link; what the tag covers is told in `wire/authentication.rs`.
//!
//! Bytes 0..24 of the header and the types OPEN, OPENED and ERROR never change between versions; `header length` lets a
//! later version append fields behind `check`, which this one passes on untouched. `check` is the CRC-32 of bytes 0..44
//! alone: nothing in it is a time, so it is computed before the egress stamp is taken.
//!
//! `hop` is the hop of the node that sent the frame: it grows on the way out (also at nodes that do not stamp) and
//! shrinks on the way back. Unknown types with the top bit set are passed on, others are an error. Reserved flag bits
//! are sent as 0, ignored, and passed on.

mod annotation;
pub mod authentication;
mod crc;
mod error;
mod frame;
mod header;
pub mod siphash;
mod stamp;
pub mod values;

pub use annotation::{
    push_annotation, Annotation, Annotations, BehindExit, NodeInfo, NodeRole, ANNOTATION_ASK,
    ANNOTATION_BEHIND_EXIT, ANNOTATION_HEADER_LEN, ANNOTATION_NODE, ANNOTATION_NONCE,
    ANNOTATION_VALUES,
};
pub use error::ParseError;
pub use frame::{build, push_stamp, set_hop, ErrorCode, ErrorInfo, FrameView};
pub use header::{frame_type, Flags, Header, HEADER_LEN, MAGIC, VERSION};
pub use stamp::{set_egress, Stamp, StampDirection, StampFlags, STAMP_LEN};

/// Most payload bytes in a frame.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Most stamps in a frame.
pub const MAX_STAMPS: usize = 128;
/// Most bytes of annotations in a frame.
pub const MAX_ANNOTATIONS: usize = 16 << 10;
/// Longest header a later version may send us.
pub const MAX_HEADER_LEN: usize = 1024;
/// Longest text in an ERROR frame.
pub const MAX_ERROR_TEXT: usize = 512;
/// Hop limit unless the source asks for another.
pub const DEFAULT_HOP_LIMIT: u8 = 32;
