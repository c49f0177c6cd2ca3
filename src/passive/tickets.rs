//! The server's first packets after the handshake of TLS 1.3 in; session tickets and the first
//! response out.
//!
//! Read RFC 8446 §4.6.1 first. Tickets are encrypted like data. A server sends them before its
//! first response, all of one length, as soon as it has read the client's Finished. That may be
//! long after the request arrived.

use super::tls::APPLICATION_DATA;

/// More tickets than servers send.
const MAX_TICKETS: u32 = 8;

/// The shortest record that holds a ticket.
const TICKET_MIN: usize = 48;

/// The part that the data of a packet has in the turns of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It belongs to the handshake.
    None,
    /// It begins, continues or answers a turn.
    Data,
    /// It may be either.
    Unclear,
}

/// The records of a server that may be tickets.
#[derive(Clone, Debug, Default)]
pub(super) struct Tickets {
    /// The number of the first byte of the server after the handshake, if known.
    pub from: Option<u32>,
    /// Set if the end of the client's handshake is not known.
    pub is_unclear: bool,
    /// Set once the client sent a record that may be its Finished or data.
    pub spoken: bool,
    /// Set if one of the tickets acknowledged the client's request, as a response does.
    pub covered: bool,
    /// The length of the records so far, all of which are equal.
    length: Option<usize>,
    count: u32,
    /// Set if the first record was sent before the request arrived.
    early: bool,
    /// Bytes of the latest record that are still to come.
    pub left: usize,
}

impl Tickets {
    /// Returns the state at the end of a handshake; for the arguments see the fields.
    pub(super) fn new(from: Option<u32>, is_unclear: bool) -> Self {
        Self {
            from,
            is_unclear,
            ..Self::default()
        }
    }

    /// Takes the next packet of the server in sequence: what was captured of its payload, and the
    /// length of that. `early` is `true` if it acknowledges no request.
    pub(super) fn packet(&mut self, payload: &[u8], length: u32, early: bool) -> Part {
        let length = length as usize;
        let mut at = self.left.min(length);
        self.left -= at;
        while at < length {
            let Some([kind, _, _, high, low]) = payload.get(at..).and_then(|rest| rest.get(..5))
            else {
                return Part::Unclear;
            };
            let record = usize::from(u16::from_be_bytes([*high, *low]));
            if *kind != APPLICATION_DATA {
                return Part::Unclear;
            }
            match self.length {
                None if record < TICKET_MIN => return Part::Data,
                None => {
                    self.length = Some(record);
                    self.early = early;
                }
                Some(known) if known == record && self.count == MAX_TICKETS => {
                    return Part::Unclear;
                }
                Some(known) if known == record => {}
                Some(_) if self.early || self.count > 1 => return Part::Data,
                Some(_) => return Part::Unclear,
            }
            self.count += 1;
            let end = at + 5 + record;
            self.left = end.saturating_sub(length);
            at = end.min(length);
        }
        self.covered |= !early;
        Part::None
    }
}
