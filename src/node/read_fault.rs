//! The faults of reading, and their messages.

use crate::session::inbound::Violation;
use crate::wire::ParseError;
use std::io;
use std::time::Duration;

/// The reason why there are no more frames or bytes.
#[derive(Debug)]
pub enum ReadFault {
    /// The other pump failed the pair.
    Aborted,
    /// The peer reset the connection, or it broke.
    Reset(io::Error),
    /// No byte moved for `--timeout` within a frame.
    Stalled,
    /// No byte moved for `--idle-timeout`.
    Idle,
    /// The bytes are no frame.
    Parse(ParseError),
    /// The frame may not come now.
    Violation(Violation),
    /// The stream ended within a frame.
    Truncated,
    /// The stream ended between frames, without END.
    NoEnd,
}

impl ReadFault {
    /// Returns the message about `peer`, its name in front. `magic_remedy` follows if the peer
    /// does not speak the protocol.
    #[cold]
    pub fn text(&self, peer: &str, magic_remedy: &str, timeout: Duration) -> String {
        match self {
            Self::Aborted => format!("{peer}: the session was given up"),
            Self::Reset(error) => format!("{peer} broke the connection: {error}"),
            Self::Stalled => format!(
                "{peer} began a frame and did not go on for {} s (--timeout)",
                timeout.as_secs_f64()
            ),
            Self::Idle => format!("{peer}: no byte moved for --idle-timeout, closed"),
            Self::Parse(error @ ParseError::Magic { .. }) => {
                format!("{peer} {error}{magic_remedy}")
            }
            Self::Parse(error) => format!("{peer} {error}"),
            Self::Violation(violation) => format!("{peer} {violation}"),
            Self::Truncated => format!("{peer} closed the connection within a frame"),
            Self::NoEnd => format!("{peer} closed the connection without END"),
        }
    }
}
