//! Bytes in, frames out, and back: the wire format, version 1. No sockets, no policy, no clock.
//!
//! One connection carries frames of one path session (one cookie), in both directions. All integers
//! are big-endian. TCP gives a stream, so "not enough yet" ([`ParseError::Incomplete`]) and "wrong"
//! are different answers. Every length is checked against its bound before anything is allocated
//! for it.
//!
//! ```text
//! frame:
//! | header 48 | stamps 40 each | annotations | payload | authentication trailer 8 or 0 |
//!
//! header:
//! 0        8        9     10       12              14                  16             20
//! | magic 8 | version | type | flags 2 | header length 2 | annotation bytes 2 | payload length 4 |
//! 20       21    22          23               24         32           40          44
//! | stamps | hop | hop limit | trailer length | cookie 8 | sequence 8 | classes 4 | check 4 |
//!
//! stamp:
//! 0        8     9           10           11      12          16          24          32
//! | node 8 | hop | direction | generation | flags | held us 4 | arrival 8 | ingress 8 | egress 8 |
//!
//! annotation:
//! 0      1     2        4
//! | type 1 | hop 1 | length 2 | value |
//!
//! value of VALUES, for each annotation (value kind 1: number, an f64; 2: text):
//! | bytes shared with the name before 1 | bytes of name that follow 1 | those |
//! | kind 1 | value length 1 | value |
//!
//! value of ASK, for each hop (255: all that are not listed):
//! | hop 1 | classes 4 |
//!
//! value of RETRANSMITS (direction 1: forward; 2: return):
//! 0           1            4         8           16
//! | direction | reserved 3 | count 4 | span ns 8 |
//!
//! value of CLIENT_ADDRESS (family 4 or 6):
//! 0        1            4
//! | family | reserved 3 | source 4 or 16 | destination | source port 2 | destination port 2 |
//!
//! value of SERVER_CONNECT (outcome 1: connected; 2: failed. maker 1: a client; 2: a check):
//! 0         1       2            4          8           16
//! | outcome | maker | reserved 2 | age us 4 | span ns 8 | error |
//!
//! value of ASK_STAMPS: none. Value of ANSWERED: stamps, as many as its length holds.
//!
//! authentication trailer:
//! 0       8
//! | tag 8 |
//!
//! payload of HELLO:
//! 0          1            8         24
//! | method 1 | reserved 7 | nonce 16 |
//! ```
//!
//! Both ends of a link that is to be authenticated send HELLO before everything else, and it goes
//! no further than that link. `wire/authentication.rs` defines what the tag covers.
//!
//! Bytes 0..24 of the header and the types OPEN, OPENED and ERROR never change between versions;
//! `header length` lets a later version append fields behind `check`, which this one passes on
//! untouched. `check` is the CRC-32 of bytes 0..44 alone: nothing in it is a time, so it is
//! computed before the egress stamp is taken.
//!
//! `hop` is the hop of the node that sent the frame. It grows on the way out, also at nodes that do
//! not stamp, and shrinks on the way back. Unknown types with the top bit set are passed on, others
//! are an error. Reserved flag bits are sent as 0, ignored, and passed on. To add a type, see
//! `wire/frame_type.rs`.

mod annotation;
pub mod authentication;
mod client_address;
mod crc;
mod error;
mod frame;
mod frame_type;
mod header;
pub mod proxy;
pub mod siphash;
mod stamp;
pub mod values;

pub use annotation::{
    push_annotation, Annotation, Annotations, BehindExit, NodeInfo, NodeRole, RetransmitCount,
    ServerConnect, ABILITY_PROBES, ANNOTATION_ANSWERED, ANNOTATION_ASK, ANNOTATION_ASK_STAMPS,
    ANNOTATION_BEHIND_EXIT, ANNOTATION_CLIENT_ADDRESS, ANNOTATION_HEADER_LEN, ANNOTATION_NODE,
    ANNOTATION_NONCE, ANNOTATION_RETRANSMITS, ANNOTATION_SERVER_CONNECT, ANNOTATION_VALUES,
};
pub use client_address::ClientAddress;
pub use error::ParseError;
pub use frame::{build, push_stamp, put_front, set_hop, ErrorCode, ErrorInfo, FrameView};
pub use frame_type::{FrameType, PASSABLE};
pub use header::{Flags, Header, HEADER_LEN, MAGIC, VERSION};
pub use stamp::{set_egress, Stamp, StampDirection, StampFlags, STAMP_LEN};

/// Most payload bytes in a frame.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Most stamps in a frame.
pub const MAX_STAMPS: usize = 128;
/// Most bytes of annotations in a frame.
pub const MAX_ANNOTATIONS: usize = 16 << 10;
/// Longest header that a later version may send.
pub const MAX_HEADER_LEN: usize = 1024;
/// Longest text in an ERROR frame.
pub const MAX_ERROR_TEXT: usize = 512;
/// Hop limit unless the source asks for another.
pub const DEFAULT_HOP_LIMIT: u8 = 32;
