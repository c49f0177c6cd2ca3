//! The table of frame types.
//!
//! To add a type: a row in the table below. The compiler then names each match that has to decide
//! on it. One is the direction in which it may travel (`session::inbound`). Others are those of a
//! relay (`node::pump::relay`), of an exit and an entry (`node::pump::deliver`), of the near end
//! (`origin::session`) and of the handshake (`node::link_auth`). Two tests name the byte: of this
//! file and of `wire::header`. A node of an earlier version ends a connection on a type that is not
//! passable.

use std::fmt;

/// The bit of a type that a node passes on without knowing it.
pub const PASSABLE: u8 = 0x80;

/// Generates [`FrameType`] and both conversions from one table, so that neither can lack a row.
macro_rules! frame_types {
    ($($(#[$doc:meta])* $name:ident = $byte:literal,)*) => {
        /// The type of a frame; `Display` writes its byte in decimal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FrameType {
            $($(#[$doc])* $name,)*
            /// A type of a later version whose byte has the bit [`PASSABLE`]: it is passed on.
            Passable(u8),
        }

        impl FrameType {
            /// Reads the byte of a header; `None` if it is neither known nor passable.
            #[inline]
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => (byte & PASSABLE != 0).then_some(Self::Passable(byte)),
                }
            }

            /// The byte in the header.
            #[inline]
            pub fn byte(self) -> u8 {
                match self {
                    $(Self::$name => $byte,)*
                    Self::Passable(byte) => byte,
                }
            }
        }
    };
}

frame_types! {
    /// The first frame of a connection; every node appends an annotation about itself.
    Open = 1,
    /// The answer of the far end, with all those annotations and a nonce.
    Opened = 2,
    /// Application bytes.
    Block = 3,
    /// The stamps of a block that an exit has taken; it has no payload.
    Report = 4,
    /// The end of the application bytes in this direction; REPORT and ERROR may follow.
    End = 5,
    /// A reset to be passed on.
    Reset = 6,
    /// A fault and its hop; travels back to the source before the close.
    Error = 7,
    /// The handshake of the two ends of an authenticated link; goes no further.
    Hello = 8,
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.byte().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_a_type_or_refused_and_a_type_is_written_as_it_is_read() {
        for byte in 0..=u8::MAX {
            let read = FrameType::from_byte(byte);
            let expected = (1..=8).contains(&byte) || byte & PASSABLE != 0;
            assert_eq!(read.is_some(), expected, "{byte}");
            assert!(read.map_or(true, |kind| kind.byte() == byte), "{byte}");
        }
        assert_eq!(FrameType::from_byte(3), Some(FrameType::Block));
        assert_eq!(FrameType::Passable(0x81).to_string(), "129");
    }
}
