//! Segments of one direction in; the same segments in the order of their sequence numbers out,
//! within a bound.
//!
//! A gap ends when it is filled, when its reader can do without its bytes, or when the capture
//! lacks them. It lacks bytes that the other end acknowledged a while ago, or that too much waits
//! for.

use crate::time::WallTime;
use std::collections::VecDeque;

/// Most bytes held behind a gap, per direction.
pub(super) const MAX_HELD: usize = 64 * 1024;

/// Most bytes held for all connections of an analysis.
pub(super) const MAX_HELD_IN_ALL: usize = 32 << 20;

/// The time in which an acknowledged gap may still be filled: captures of several queues are not in
/// order.
const PATIENCE_NS: u64 = 50_000_000;

/// No window is larger (RFC 7323 §2.3), so numbers further apart do not belong together.
const MAX_WINDOW: u32 = 1 << 30;

/// `a - b` around the circle of sequence numbers (RFC 9293 §3.4).
#[inline]
pub(super) fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// A segment's data, or what is left of it after bytes that were read before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// The time at which the segment passed.
    pub time: WallTime,
    /// The time at which it passed for the last time while it waited.
    pub latest: WallTime,
    /// Number of its first byte.
    pub seq: u32,
    /// The segment's acknowledgment; `None` without ACK.
    pub ack: Option<u32>,
    /// Bytes on the network.
    pub length: u32,
    /// The bytes of these that were captured.
    pub payload: &'a [u8],
    /// Set if it is a segment's beginning and everything before it was sent before `ack` got that
    /// far.
    pub apart: bool,
    /// Bytes directly before it that the capture does not have.
    pub missing: u32,
}

impl Piece<'_> {
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.length)
    }

    /// The same without its bytes.
    fn bare(self) -> Piece<'static> {
        Piece {
            time: self.time,
            latest: self.latest,
            seq: self.seq,
            ack: self.ack,
            length: self.length,
            payload: &[],
            apart: self.apart,
            missing: self.missing,
        }
    }

    /// Leaves out the first `known` bytes.
    fn without(mut self, known: u32) -> Self {
        if known > 0 {
            self.payload = self.payload.get(known as usize..).unwrap_or(&[]);
            self.seq = self.seq.wrapping_add(known);
            self.length -= known;
            self.apart = false;
        }
        self
    }
}

/// A piece with its own copy of the bytes.
#[derive(Clone, Debug)]
pub(super) struct Held {
    piece: Piece<'static>,
    /// First byte of `payload` that was not read before.
    from: usize,
    payload: Box<[u8]>,
}

impl Held {
    pub(super) fn piece(&self) -> Piece<'_> {
        Piece {
            payload: self.payload.get(self.from..).unwrap_or(&[]),
            ..self.piece
        }
    }

    fn memory(&self) -> usize {
        size_of::<Self>() + self.payload.len()
    }
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct Stream {
    next: Option<u32>,
    /// The other end has everything up to here, first seen then, while bytes before it had not
    /// passed.
    acknowledged: Option<(u32, WallTime)>,
    /// By rising numbers, all beyond `next`.
    held: VecDeque<Held>,
    /// The number of the FIN.
    end: Option<u32>,
    memory: usize,
}

impl Stream {
    /// Number of the next byte to be read; `None` before the first.
    pub(super) fn next(&self) -> Option<u32> {
        self.next
    }

    /// Bytes of memory that wait.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Returns `true` if nothing waits.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.acknowledged.is_none()
    }

    /// Takes `seq` as the number of the first byte, unless one is known.
    pub(super) fn begin(&mut self, seq: u32) {
        self.next.get_or_insert(seq);
    }

    /// Takes the number of the FIN.
    pub(super) fn finish(&mut self, seq: u32) {
        self.end = Some(seq);
    }

    /// Returns `true` if all up to the FIN was read.
    pub(super) fn finished(&self) -> bool {
        self.end.is_some() && self.end == self.next
    }

    /// Returns `true` if an acknowledgment may cover bytes that did not pass.
    #[inline]
    pub(super) fn is_acknowledged_by(&self, ack: u32) -> bool {
        self.next.is_some_and(|next| distance(ack, next) > 0)
    }

    /// Takes the acknowledgment of the other end, which passed `now`.
    pub(super) fn acknowledge(&mut self, ack: u32, now: WallTime) {
        let Some(next) = self.next else { return };
        let ack = match self.end {
            Some(end) if distance(ack, end) > 0 => end,
            _ => ack,
        };
        let beyond = distance(ack, next);
        if beyond <= 0 || beyond.unsigned_abs() > MAX_WINDOW {
            return;
        }
        match &mut self.acknowledged {
            Some((until, since)) => {
                *since = now.min(*since);
                if distance(ack, *until) > 0 {
                    *until = ack;
                }
            }
            None => self.acknowledged = Some((ack, now)),
        }
    }

    /// Takes a segment's data; returns what of it can be read at once.
    ///
    /// The reader can do without the next `spare` bytes: a gap in these does not hold back what
    /// follows.
    pub(super) fn offer<'a>(&mut self, piece: Piece<'a>, spare: u64) -> Option<Piece<'a>> {
        let next = *self.next.get_or_insert(piece.seq);
        let ahead = distance(piece.seq, next);
        if ahead.unsigned_abs() > MAX_WINDOW {
            // The capture has a hole larger than any window, or this is a stray: what waits cannot
            // be placed.
            self.clear();
            self.advance(piece.end());
            return Some(Piece {
                missing: u32::MAX,
                apart: false,
                ..piece
            });
        }
        if ahead <= 0 {
            let known = ahead.unsigned_abs();
            if known >= piece.length {
                return None;
            }
            self.advance(piece.end());
            return Some(piece.without(known));
        }
        let gap = ahead.unsigned_abs();
        if self.held.is_empty() && u64::from(gap) <= spare {
            self.advance(piece.end());
            return Some(Piece {
                missing: gap,
                ..piece
            });
        }
        self.hold(piece);
        None
    }

    fn hold(&mut self, piece: Piece<'_>) {
        let at = self
            .held
            .partition_point(|held| distance(held.piece.seq, piece.seq) < 0);
        if let Some(Held { piece: twin, .. }) = self.held.get_mut(at) {
            if twin.seq == piece.seq && twin.length >= piece.length {
                twin.latest = twin.latest.max(piece.time);
                return;
            }
        }
        let held = Held {
            piece: piece.bare(),
            from: 0,
            payload: piece.payload.into(),
        };
        self.memory += held.memory();
        self.held.insert(at, held);
    }

    /// Returns what can be read by `now`, or of all that is left with `None`; an empty piece stands
    /// for missing bytes.
    pub(super) fn ready(&mut self, now: Option<WallTime>, spare: u64) -> Option<Held> {
        loop {
            let next = self.next?;
            let due = match (self.acknowledged, now) {
                (Some((until, since)), Some(now)) => {
                    (now.0.saturating_sub(since.0) >= PATIENCE_NS).then_some(until)
                }
                (until, None) => until.map(|(until, _)| until),
                (None, _) => None,
            };
            let Some(first) = self.held.front().map(|held| held.piece) else {
                let until = due?;
                let missing = distance(until, next).unsigned_abs();
                self.advance(until);
                return Some(Held {
                    piece: Piece {
                        time: WallTime(0),
                        latest: WallTime(0),
                        seq: until,
                        ack: None,
                        length: 0,
                        payload: &[],
                        apart: false,
                        missing,
                    },
                    from: 0,
                    payload: Box::default(),
                });
            };
            let gap = distance(first.seq, next);
            let missed = due.is_some_and(|until| distance(until, first.seq) >= 0);
            if gap > 0
                && !missed
                && now.is_some()
                && self.memory <= MAX_HELD
                && u64::from(gap.unsigned_abs()) > spare
            {
                return None;
            }
            let mut held = self.held.pop_front()?;
            self.memory -= held.memory();
            if gap > 0 {
                held.piece.missing = gap.unsigned_abs();
            } else {
                let known = gap.unsigned_abs();
                if known >= first.length {
                    continue;
                }
                held.piece = held.piece.without(known);
                held.from = known as usize;
            }
            self.advance(held.piece.end());
            return Some(held);
        }
    }

    /// Gives up what waits.
    pub(super) fn clear(&mut self) {
        self.held = VecDeque::new();
        self.memory = 0;
        self.acknowledged = None;
    }

    fn advance(&mut self, next: u32) {
        self.next = Some(next);
        let reached = |(until, _): &(u32, WallTime)| distance(*until, next) > 0;
        self.acknowledged = self.acknowledged.filter(reached);
    }
}
