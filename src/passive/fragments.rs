//! Fragments of IP packets in, whole ones out, within bounds of number, time and memory.
//!
//! Read RFC 791 §3.2 and RFC 5722 (overlaps) first.

use super::encapsulation::{Ip, Tunnel};
use crate::time::WallTime;
use std::collections::VecDeque;

/// Datagrams of which fragments are kept.
const MAX_DATAGRAMS: usize = 1024;

/// Captured bytes that are kept of all of them.
const MAX_BYTES: usize = 8 << 20;

/// Fragments of one datagram: 64 KiB over a link of 576 bytes.
const MAX_PIECES: usize = 128;

/// The time that the first fragment waits for the last (RFC 1122 §3.3.2 says 60 to 120 s for hosts.
/// By then their senders have repeated the segment).
const WAIT_NS: u64 = 30 * 1_000_000_000;

/// Addresses, identification and tunnel.
type Name = (u128, u128, u32, Option<Tunnel>);

#[derive(Debug)]
struct Piece {
    offset: usize,
    length: usize,
    /// The part of it that was captured.
    data: Vec<u8>,
}

#[derive(Debug)]
struct Datagram {
    name: Name,
    first: WallTime,
    /// Ascending, without overlaps.
    pieces: Vec<Piece>,
    /// One past its last byte; `None` before the last fragment.
    end: Option<usize>,
}

/// A datagram all of whose fragments have passed.
#[derive(Debug)]
pub(super) struct Whole {
    /// Its payload as far as it was captured without a gap.
    pub(super) data: Vec<u8>,
    /// Its payload on the network.
    pub(super) length: usize,
    /// The number of its fragments.
    pub(super) fragments: u64,
}

/// The datagrams that are not whole yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    waiting: VecDeque<Datagram>,
    bytes: usize,
}

impl Fragments {
    /// Takes a fragment that passed `now`, and returns the datagram that it completes.
    pub(super) fn take(&mut self, now: WallTime, ip: &Ip<'_>) -> Option<Whole> {
        let fragment = ip.fragment?;
        let old = |of: &Datagram| now.0.saturating_sub(of.first.0) > WAIT_NS;
        while self.waiting.front().is_some_and(old) {
            self.drop(0);
        }
        let name = (ip.source, ip.destination, fragment.id, ip.tunnel);
        let piece = Piece {
            offset: fragment.offset,
            length: ip.length,
            data: ip.data[..ip.data.len().min(ip.length)].to_vec(),
        };
        let end = piece.offset + piece.length;
        if piece.length == 0 || end > usize::from(u16::MAX) {
            return None;
        }
        let mut known = self.waiting.iter().rposition(|of| of.name == name);
        if let Some(at) = known {
            let of = &self.waiting[at];
            let same = |one: &Piece| (one.offset, one.length) == (piece.offset, piece.length);
            if of.pieces.iter().any(same) {
                return None;
            }
            let apart = |one: &Piece| one.offset + one.length <= piece.offset || end <= one.offset;
            let within = of.end.map_or(true, |last| end <= last && fragment.more);
            if !within || !of.pieces.iter().all(apart) || of.pieces.len() == MAX_PIECES {
                // Another datagram under the same number, or an attack.
                self.drop(at);
                known = None;
            }
        }
        self.bytes += piece.data.len();
        let at = known.unwrap_or_else(|| {
            self.waiting.push_back(Datagram {
                name,
                first: now,
                pieces: Vec::new(),
                end: None,
            });
            self.waiting.len() - 1
        });
        let of = &mut self.waiting[at];
        if !fragment.more {
            of.end = Some(end);
        }
        let place = of.pieces.partition_point(|one| one.offset < piece.offset);
        of.pieces.insert(place, piece);
        if of.is_whole() {
            return self.drop(at).map(Datagram::join);
        }
        while self.waiting.len() > MAX_DATAGRAMS || self.bytes > MAX_BYTES {
            self.drop(0);
        }
        None
    }

    fn drop(&mut self, at: usize) -> Option<Datagram> {
        let of = self.waiting.remove(at)?;
        self.bytes -= of
            .pieces
            .iter()
            .map(|piece| piece.data.len())
            .sum::<usize>();
        Some(of)
    }
}

impl Datagram {
    fn is_whole(&self) -> bool {
        let sum = self.pieces.iter().map(|piece| piece.length).sum();
        self.end == Some(sum)
    }

    fn join(self) -> Whole {
        let fragments = self.pieces.len() as u64;
        let mut data = Vec::new();
        for piece in self.pieces {
            data.extend(&piece.data);
            if piece.data.len() < piece.length {
                break;
            }
        }
        Whole {
            data,
            length: self.end.unwrap_or(0),
            fragments,
        }
    }
}
