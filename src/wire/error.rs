//! The errors in bytes from a peer.

use std::error::Error;
use std::fmt;

/// The reason why bytes are not a frame (yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Right so far; at least `missing` more bytes are needed to decide. Not an error on a stream.
    Incomplete {
        /// A lower bound.
        missing: usize,
    },
    /// The peer does not speak this protocol; the first bytes it sent instead (at most 24).
    Magic {
        /// As sent; escape them.
        seen: Vec<u8>,
    },
    /// A version that this node does not know.
    Version {
        /// As sent.
        seen: u8,
    },
    /// The header was damaged, or rewritten by something that is no node.
    Check {
        /// As sent.
        seen: u32,
        /// As computed.
        computed: u32,
    },
    /// A length or count outside its bounds.
    Bound {
        /// The field.
        field: &'static str,
        /// As sent.
        value: usize,
        /// The least value allowed.
        least: usize,
        /// The greatest.
        most: usize,
    },
    /// A frame type that this version does not know and that is not marked as passable.
    Type {
        /// As sent.
        seen: u8,
    },
    /// A frame without a tag on a link whose frames have one.
    Unauthenticated,
    /// A tag that is not that of this frame, at this place on this link, under the own key.
    Tag,
    /// An annotation or an ERROR payload whose inner lengths contradict its outer one.
    Content {
        /// The part of the frame.
        part: &'static str,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { missing } => write!(f, "at least {missing} more bytes are needed"),
            Self::Magic { seen } => {
                write!(
                    f,
                    "does not speak this protocol: it sent \"{}\"",
                    seen.escape_ascii()
                )
            }
            Self::Version { seen } => write!(
                f,
                "speaks version {seen} of the protocol, this node only version {}: upgrade the \
                 older of the two",
                super::VERSION
            ),
            Self::Check { seen, computed } => write!(
                f,
                "sent a damaged header: its check is {seen:08x}, computed {computed:08x}"
            ),
            Self::Bound {
                field,
                value,
                least,
                most,
            } => write!(
                f,
                "sent a frame whose {field} is {value}, outside {least} to {most}"
            ),
            Self::Type { seen } => write!(f, "sent a frame of the unknown type {seen}"),
            Self::Unauthenticated => f.write_str(
                "sent a frame without an authentication code, and this node has a --key-file: give \
                 both ends of the link the same key",
            ),
            Self::Tag => f.write_str(
                "sent a frame with a wrong authentication code: the keys differ (--key-file), or \
                 frames are injected or altered in between",
            ),
            Self::Content { part } => write!(f, "sent a malformed {part}"),
        }
    }
}

impl Error for ParseError {}
