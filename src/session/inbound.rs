//! The rules for the order of frames in one direction of a connection.

use crate::wire::{ErrorCode, Flags, FrameType, Header};
use std::fmt;

/// A breach of the rules of a session by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The first frame was of another type.
    NotOpen {
        /// Its type.
        kind: FrameType,
    },
    /// A frame that never travels this way, or not again.
    Unexpected {
        /// Its type.
        kind: FrameType,
    },
    /// A frame of another session.
    Cookie {
        /// The cookie of the frame.
        seen: u64,
        /// The cookie of the connection.
        expected: u64,
    },
    /// The path is longer than the source allows.
    HopLimit {
        /// The limit that the source set.
        limit: u8,
    },
    /// A frame after END that carries application bytes.
    AfterEnd {
        /// Its type.
        kind: FrameType,
    },
}

impl Violation {
    /// Returns the code of the ERROR frame for the source.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::HopLimit { .. } => ErrorCode::HopLimit,
            _ => ErrorCode::Protocol,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen { kind } => write!(f, "began with a frame of type {kind}, not with OPEN"),
            Self::Unexpected { kind } => {
                write!(f, "sent a frame of type {kind}, which does not belong here")
            }
            Self::Cookie { seen, expected } => write!(
                f,
                "sent a second cookie: {seen:016x} on the connection of {expected:016x}"
            ),
            Self::HopLimit { limit } => {
                write!(
                    f,
                    "sent a frame whose hop limit of {limit} is used up: is there a loop of nodes \
                     that do not stamp?"
                )
            }
            Self::AfterEnd { kind } => write!(f, "sent a frame of type {kind} after its END"),
        }
    }
}

impl std::error::Error for Violation {}

/// The state of the rules for the frames of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Inbound {
    returning: bool,
    cookie: Option<u64>,
    ended: bool,
}

impl Inbound {
    /// The rules for frames away from the source; the first has to be OPEN.
    pub fn forward() -> Self {
        Self {
            returning: false,
            cookie: None,
            ended: false,
        }
    }

    /// The rules for frames back to the source, in the session with `cookie`.
    pub fn returning(cookie: u64) -> Self {
        Self {
            returning: true,
            cookie: Some(cookie),
            ended: false,
        }
    }

    /// Returns `true` after END: the end of the connection is an orderly one.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Checks a frame, which may be passed on if this is `Ok`.
    ///
    /// # Errors
    ///
    /// [`Violation`], which ends the connection.
    pub fn check(&mut self, header: &Header) -> Result<(), Violation> {
        let kind = header.kind;
        match self.cookie {
            None if kind != FrameType::Open => return Err(Violation::NotOpen { kind }),
            None => self.cookie = Some(header.cookie),
            // A node that refuses the connection may not know its cookie.
            Some(expected) if expected != header.cookie && kind != FrameType::Error => {
                return Err(Violation::Cookie {
                    seen: header.cookie,
                    expected,
                })
            }
            Some(_) if kind == FrameType::Open => return Err(Violation::Unexpected { kind }),
            Some(_) => {}
        }
        let fits = match kind {
            // Belongs before OPEN, and is taken there.
            FrameType::Open => !self.returning,
            FrameType::Hello => false,
            FrameType::Opened | FrameType::Report | FrameType::Error => self.returning,
            FrameType::Block | FrameType::End => header.flags.has(Flags::RETURN) == self.returning,
            FrameType::Reset | FrameType::Passable(_) => true,
        };
        if !fits {
            return Err(Violation::Unexpected { kind });
        }
        if !self.returning && header.hop >= header.hop_limit {
            return Err(Violation::HopLimit {
                limit: header.hop_limit,
            });
        }
        if self.ended && is_in_stream(kind) {
            return Err(Violation::AfterEnd { kind });
        }
        self.ended |= kind == FrameType::End;
        Ok(())
    }
}

/// Returns `true` if frames of this type carry the application's bytes or their end.
fn is_in_stream(kind: FrameType) -> bool {
    match kind {
        FrameType::Block | FrameType::End => true,
        FrameType::Open
        | FrameType::Opened
        | FrameType::Report
        | FrameType::Reset
        | FrameType::Error
        | FrameType::Hello
        | FrameType::Passable(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FrameType::*;

    fn frame(kind: FrameType) -> Header {
        Header::new(kind, 7, 0)
    }

    fn back(kind: FrameType) -> Header {
        Header {
            flags: Flags(Flags::RETURN),
            ..frame(kind)
        }
    }

    #[test]
    fn a_session_opens_carries_blocks_and_ends() {
        let mut inbound = Inbound::forward();
        for kind in [Open, Block, Block, Passable(0x81), End] {
            assert_eq!(inbound.check(&frame(kind)), Ok(()), "type {kind}");
        }
        assert!(inbound.ended());
        let mut inbound = Inbound::returning(7);
        for kind in [Opened, Block, Report, End, Report, Error] {
            assert_eq!(inbound.check(&back(kind)), Ok(()), "type {kind}");
        }
        let of_another_session = Header::new(Error, 0, 0);
        assert_eq!(
            inbound.check(&of_another_session),
            Ok(()),
            "a node that refuses"
        );
    }

    #[test]
    fn each_rule_has_its_violation() {
        let mut fresh = Inbound::forward();
        assert_eq!(
            fresh.check(&frame(Block)),
            Err(Violation::NotOpen { kind: Block })
        );
        let mut open = Inbound::forward();
        open.check(&frame(Open)).unwrap();
        let mut ended = open;
        ended.check(&frame(End)).unwrap();
        let other = Header::new(Block, 8, 0);
        for (inbound, header, violation) in [
            (open, frame(Open), Violation::Unexpected { kind: Open }),
            (open, frame(Hello), Violation::Unexpected { kind: Hello }),
            (open, frame(Report), Violation::Unexpected { kind: Report }),
            (open, back(Block), Violation::Unexpected { kind: Block }),
            (
                open,
                other,
                Violation::Cookie {
                    seen: 8,
                    expected: 7,
                },
            ),
            (
                open,
                Header {
                    hop: 32,
                    ..frame(Block)
                },
                Violation::HopLimit { limit: 32 },
            ),
            (ended, frame(Block), Violation::AfterEnd { kind: Block }),
            (
                Inbound::returning(7),
                frame(Block),
                Violation::Unexpected { kind: Block },
            ),
        ] {
            let mut inbound = inbound;
            assert_eq!(inbound.check(&header), Err(violation));
            assert!(!violation.to_string().is_empty());
        }
    }
}
