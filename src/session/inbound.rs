//! Whether a frame may come now, on one direction of one connection.

use crate::wire::{frame_type, ErrorCode, Flags, Header};
use std::fmt;

/// How a peer broke the rules of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The first frame was of another type.
    NotOpen {
        /// Which.
        kind: u8,
    },
    /// A frame that never travels this way, or not again.
    Unexpected {
        /// Which.
        kind: u8,
    },
    /// A frame of another session.
    Cookie {
        /// As sent.
        seen: u64,
        /// Of this connection.
        expected: u64,
    },
    /// The path is longer than the source allows.
    HopLimit {
        /// As the source set it.
        limit: u8,
    },
    /// A frame after END that carries application bytes.
    AfterEnd {
        /// Which.
        kind: u8,
    },
}

impl Violation {
    /// What to tell the source.
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
                write!(f, "sent a frame whose hop limit of {limit} is used up: is there a loop of nodes that do not stamp?")
            }
            Self::AfterEnd { kind } => write!(f, "sent a frame of type {kind} after its END"),
        }
    }
}

impl std::error::Error for Violation {}

/// The rules for the frames that come in on one side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Inbound {
    returning: bool,
    cookie: Option<u64>,
    ended: bool,
}

impl Inbound {
    /// For frames away from the source; the first has to be OPEN.
    pub fn forward() -> Self {
        Self {
            returning: false,
            cookie: None,
            ended: false,
        }
    }

    /// For frames back to the source, of the session that was opened with `cookie`.
    pub fn returning(cookie: u64) -> Self {
        Self {
            returning: true,
            cookie: Some(cookie),
            ended: false,
        }
    }

    /// END was seen: the end of the connection is an orderly one.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Checks a frame; it may be passed on when this is `Ok`.
    ///
    /// # Errors
    ///
    /// [`Violation`], which ends the connection.
    pub fn check(&mut self, header: &Header) -> Result<(), Violation> {
        let kind = header.kind;
        match self.cookie {
            None if kind != frame_type::OPEN => return Err(Violation::NotOpen { kind }),
            None => self.cookie = Some(header.cookie),
            // A node that refuses us may not know our cookie.
            Some(expected) if expected != header.cookie && kind != frame_type::ERROR => {
                return Err(Violation::Cookie {
                    seen: header.cookie,
                    expected,
                })
            }
            Some(_) if kind == frame_type::OPEN => return Err(Violation::Unexpected { kind }),
            Some(_) => {}
        }
        let wrong_way = match kind {
            frame_type::HELLO => true, // It belongs before OPEN, and is taken there.
            frame_type::OPENED | frame_type::REPORT | frame_type::ERROR => !self.returning,
            frame_type::BLOCK | frame_type::END => {
                header.flags.has(Flags::RETURN) != self.returning
            }
            _ => false,
        };
        if wrong_way {
            return Err(Violation::Unexpected { kind });
        }
        if !self.returning && header.hop >= header.hop_limit {
            return Err(Violation::HopLimit {
                limit: header.hop_limit,
            });
        }
        if self.ended && matches!(kind, frame_type::BLOCK | frame_type::END) {
            return Err(Violation::AfterEnd { kind });
        }
        self.ended |= kind == frame_type::END;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame_type::*;

    fn frame(kind: u8) -> Header {
        Header::new(kind, 7, 0)
    }

    fn back(kind: u8) -> Header {
        Header {
            flags: Flags(Flags::RETURN),
            ..frame(kind)
        }
    }

    #[test]
    fn a_session_opens_carries_blocks_and_ends() {
        let mut inbound = Inbound::forward();
        for kind in [OPEN, BLOCK, BLOCK, 0x81, END] {
            assert_eq!(inbound.check(&frame(kind)), Ok(()), "type {kind}");
        }
        assert!(inbound.ended());
        let mut inbound = Inbound::returning(7);
        for kind in [OPENED, BLOCK, REPORT, END, REPORT, ERROR] {
            assert_eq!(inbound.check(&back(kind)), Ok(()), "type {kind}");
        }
        let of_nobody = Header::new(ERROR, 0, 0);
        assert_eq!(inbound.check(&of_nobody), Ok(()), "whoever refuses");
    }

    #[test]
    fn each_rule_has_its_violation() {
        let mut fresh = Inbound::forward();
        assert_eq!(
            fresh.check(&frame(BLOCK)),
            Err(Violation::NotOpen { kind: BLOCK })
        );
        let mut open = Inbound::forward();
        open.check(&frame(OPEN)).unwrap();
        let mut ended = open;
        ended.check(&frame(END)).unwrap();
        let other = Header::new(BLOCK, 8, 0);
        for (inbound, header, violation) in [
            (open, frame(OPEN), Violation::Unexpected { kind: OPEN }),
            (open, frame(HELLO), Violation::Unexpected { kind: HELLO }),
            (open, frame(REPORT), Violation::Unexpected { kind: REPORT }),
            (open, back(BLOCK), Violation::Unexpected { kind: BLOCK }),
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
                    ..frame(BLOCK)
                },
                Violation::HopLimit { limit: 32 },
            ),
            (ended, frame(BLOCK), Violation::AfterEnd { kind: BLOCK }),
            (
                Inbound::returning(7),
                frame(BLOCK),
                Violation::Unexpected { kind: BLOCK },
            ),
        ] {
            let mut inbound = inbound;
            assert_eq!(inbound.check(&header), Err(violation));
            assert!(!violation.to_string().is_empty());
        }
    }
}
