//! Where the sequence numbers of one direction stand, and what waits for its acknowledgment.
//!
//! Read RFC 9293 §3.4 (numbers in a circle) first: two of them are compared by [`distance`] alone.

use crate::time::WallTime;
use std::collections::VecDeque;

/// SYNs remembered to be told apart by their TSval; Linux sends 7.
pub(super) const MAX_SYNS: usize = 8;

/// Stretches of sequence space not seen yet, per direction.
const MAX_GAPS: usize = 32;

/// No window is larger (RFC 7323 §2.3): what lies further off is a stray number or the gap of a broken capture.
const MAX_WINDOW: u32 = 1 << 30;

/// After this long without a segment two TSvals of a 1 ms clock cannot be ordered any more (RFC 7323 §5.5).
const TS_VAL_AGE_NS: u64 = 24 * 86_400 * 1_000_000_000;

/// Where a direction's numbers stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// SND.UNA: what the other end has acknowledged of it.
    pub(super) una: Option<u32>,
    /// One past the highest sequence number seen.
    pub(super) next: Option<u32>,
    /// Of its SYN or SYN-ACK.
    pub(super) initial: Option<u32>,
    pub(super) window: u16,
    /// The latest first sighting of a TSval.
    pub(super) newest: Option<(u32, WallTime)>,
    /// First sightings that wait for their echo, oldest first.
    pub(super) by_ts_val: VecDeque<(u32, WallTime)>,
    /// Ends of segments without timestamps that wait for their ACK, oldest first.
    pub(super) by_sequence: VecDeque<(u32, WallTime)>,
    /// Stretches below `next` that did not pass: half-open, in order of appearance.
    pub(super) gaps: Vec<(u32, u32)>,
    pub(super) syns: Vec<(Option<u32>, WallTime)>,
}

/// `a - b` around the circle of sequence numbers (RFC 9293 §3.4), as a signed distance.
#[inline]
pub(super) fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Track {
    /// Takes `ack` as the other end's acknowledgment; whether it advanced SND.UNA by a believable step.
    #[inline]
    pub(super) fn acknowledge(&mut self, ack: u32) -> bool {
        let Some(una) = self.una else {
            self.una = Some(ack);
            return false;
        };
        let step = distance(ack, una);
        if step == 0 {
            return false;
        }
        let believable = step.unsigned_abs() <= MAX_WINDOW;
        if step > 0 || !believable {
            self.una = Some(ack);
        }
        step > 0 && believable
    }

    /// Takes the range from `seq` as sent; how many of its numbers had passed before.
    #[inline]
    pub(super) fn send(&mut self, seq: u32, length: u32) -> u32 {
        let end = seq.wrapping_add(length);
        let Some(next) = self.next else {
            self.next = Some(end);
            return 0;
        };
        let ahead = distance(seq, next);
        if ahead == 0 {
            self.next = Some(end);
            return 0;
        }
        if ahead.unsigned_abs() > MAX_WINDOW {
            self.next = Some(end);
            self.gaps.clear();
            return 0;
        }
        if ahead > 0 {
            if self.gaps.len() == MAX_GAPS {
                self.gaps.remove(0);
            }
            self.gaps.push((next, seq));
            self.next = Some(end);
            return 0;
        }
        let below_end = if distance(end, next) > 0 {
            self.next = Some(end);
            next
        } else {
            end
        };
        let below = below_end.wrapping_sub(seq);
        below - self.fill_gaps(seq, below_end)
    }

    /// Takes `seq..end` out of the gaps; how many numbers of it were in one.
    pub(super) fn fill_gaps(&mut self, seq: u32, end: u32) -> u32 {
        let mut filled = 0;
        let mut rest = Vec::new();
        self.gaps.retain_mut(|(from, to)| {
            let start = if distance(seq, *from) > 0 { seq } else { *from };
            let stop = if distance(end, *to) < 0 { end } else { *to };
            if distance(stop, start) <= 0 {
                return true;
            }
            filled += stop.wrapping_sub(start);
            if distance(*to, stop) > 0 && distance(start, *from) > 0 {
                rest.push((stop, *to));
            }
            if distance(start, *from) > 0 {
                *to = start;
            } else {
                *from = stop;
            }
            distance(*to, *from) > 0
        });
        rest.truncate(MAX_GAPS - self.gaps.len().min(MAX_GAPS));
        self.gaps.append(&mut rest);
        filled
    }

    /// Whether something is known to be under way.
    #[inline]
    pub(super) fn outstanding(&self) -> bool {
        match (self.una, self.next) {
            (Some(una), Some(next)) => distance(next, una) > 0,
            _ => false,
        }
    }

    /// Whether everything that was seen is acknowledged.
    #[inline]
    pub(super) fn quiet(&self) -> bool {
        match (self.una, self.next) {
            (Some(una), Some(next)) => distance(una, next) >= 0,
            _ => false,
        }
    }

    /// The time of the SYN that `echo` answers; without timestamps only one SYN leaves no doubt (Karn).
    pub(super) fn syn_answered(&self, echo: Option<u32>) -> Option<WallTime> {
        let stamped = self.syns.iter().any(|(ts_val, _)| ts_val.is_some());
        let found = match self.syns[..] {
            [only] if !stamped || echo.is_none() => Some(only),
            _ => self
                .syns
                .iter()
                .find(|(ts_val, _)| ts_val.is_some() && *ts_val == echo)
                .copied(),
        };
        found.map(|(_, time)| time)
    }
}

impl Track {
    /// Takes the sighting of `ts_val` on a segment that takes sequence space; whether an older one was dropped for it.
    #[inline]
    pub(super) fn sighted(&mut self, ts_val: u32, now: WallTime, bound: usize) -> bool {
        if let Some((newest, at)) = self.newest {
            let stale = now.0.saturating_sub(at.0) > TS_VAL_AGE_NS;
            if !stale && distance(ts_val, newest) <= 0 {
                return false;
            }
            if stale {
                self.by_ts_val.clear();
            }
        }
        self.newest = Some((ts_val, now));
        let full = self.by_ts_val.len() >= bound;
        if full {
            self.by_ts_val.pop_front();
        }
        self.by_ts_val.push_back((ts_val, now));
        full
    }

    /// Karn's rule, and more: the ACK of what was sent beyond a hole waits for the hole to be filled, so these tell
    /// nothing either.
    #[inline]
    pub(super) fn sent_without_timestamps(
        &mut self,
        seq: u32,
        end: u32,
        behind: bool,
        now: WallTime,
        bound: usize,
    ) -> bool {
        if behind {
            while self
                .by_sequence
                .back()
                .is_some_and(|&(end, _)| distance(end, seq) > 0)
            {
                self.by_sequence.pop_back();
            }
            return false;
        }
        let full = self.by_sequence.len() >= bound;
        if full {
            self.by_sequence.pop_front();
        }
        self.by_sequence.push_back((end, now));
        full
    }
}
