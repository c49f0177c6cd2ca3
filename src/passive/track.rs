//! Where the sequence numbers of one direction stand, and what waits for its acknowledgment.
//!
//! Read RFC 9293 §3.4 (numbers in a circle), RFC 7323 §4 and RFC 6298 §3 (Karn's rule) first. Two
//! sequence numbers or TSvals are compared by [`distance`] alone.
//!
//! A round trip is never too short, for the acknowledgment has to reach into the segment that it is
//! measured from. It is left out where the acknowledgment may answer a later copy, or may have
//! waited for a hole before the segment to be filled.

use super::maybe_time::MaybeTime;
use super::packet::Timestamps;
use super::queue::Queue;
use super::sent::SampleBasis;
use super::waiting::{More, Waiting};
use crate::time::WallTime;

/// SYNs remembered to be distinguished by their TSval; Linux sends 7.
const MAX_SYNS: usize = 8;

/// Stretches of sequence space not seen yet, per direction.
const MAX_GAPS: usize = 256;

/// No window is larger (RFC 7323 §2.3): what lies further off is a stray number or the gap of a
/// broken capture.
const MAX_WINDOW: u32 = 1 << 30;

/// After this long without a segment two TSvals of a 1 ms clock have no order any more (RFC 7323
/// §5.5).
const TS_VAL_AGE_NS: u64 = 24 * 86_400 * 1_000_000_000;

/// A repeat this soon, with nothing from the other end between, is a copy by the network or a
/// mirror port. A sender repeats because of an acknowledgment, or after a longer time.
const COPY_NS: u64 = 1_000_000;

/// The state of a direction's numbers. Its order is that of memory: what most packets need lies
/// together.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct Track {
    /// SND.UNA: what the other end has acknowledged of it.
    pub(super) una: Option<u32>,
    /// One past the highest sequence number that is known to have been sent.
    pub(super) next: Option<u32>,
    /// The lowest number seen, if there is a `next`.
    lowest: u32,
    /// The window of its latest segment.
    pub(super) window: u16,
    /// Its latest segment had no timestamps, so that it echoes none.
    pub(super) unstamped: bool,
    /// Its first SYN was a SYN-ACK.
    pub(super) answers: bool,
    /// First sightings of TSvals that wait for their echo, oldest first.
    by_ts_val: Queue<Waiting>,
    /// The time of the latest first sighting of a TSval.
    newest_at: MaybeTime,
    /// That TSval.
    newest: u32,
    /// Empty segments at `next` while nothing else of this direction is known.
    empty_at_start: u32,
    more: Option<Box<More>>,
    /// Of its SYN or SYN-ACK.
    pub(super) initial: Option<u32>,
    /// The latest segments that took sequence space, among which the original of a copy is looked
    /// for.
    latest: [(u32, u32, WallTime); 2],
    /// Empty segments one below `next` while nothing else of this direction is known.
    empty_below_start: u32,
}

/// `a - b` around the circle of sequence numbers (RFC 9293 §3.4), as a signed distance.
#[inline]
pub(super) fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// The findings of an acknowledgment that advances.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acknowledged {
    /// The time at which the answered segment passed, and the source of that time.
    pub(super) answered: Option<(WallTime, SampleBasis)>,
    /// Empty segments that turn out to have been keep-alive probes.
    pub(super) keep_alives: u32,
}

/// The findings of a segment that takes sequence space.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// Its numbers that had passed before.
    pub(super) repeated: u32,
    /// It begins below what had passed.
    behind: bool,
}

/// A segment of this direction that takes sequence space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) time: WallTime,
    /// `None` where it is measured by its sequence numbers.
    pub(super) ts_val: Option<u32>,
    pub(super) seq: u32,
    pub(super) end: u32,
    /// The time at which the other end's latest packet passed.
    pub(super) heard: Option<WallTime>,
    /// The number that may wait.
    pub(super) bound: usize,
}

impl Track {
    /// Takes `ack` as the other end's acknowledgment, with the TSecr beside it.
    ///
    /// Returns `None` if it does not advance SND.UNA by a believable step.
    #[inline]
    pub(super) fn acknowledge(&mut self, ack: u32, echo: Option<u32>) -> Option<Acknowledged> {
        let before = self.una;
        // Without an earlier acknowledgment the numbers that passed are the measure.
        let step = match before.or(self.next) {
            Some(from) => distance(ack, from),
            None => {
                self.una = Some(ack);
                return None;
            }
        };
        if before.is_some() && step == 0 {
            return None;
        }
        let believable = step.unsigned_abs() <= MAX_WINDOW;
        if step > 0 || !believable || before.is_none() {
            self.una = Some(ack);
        }
        if !believable || (before.is_some() && step < 0) {
            return None;
        }
        let mut found = Acknowledged::default();
        if let Some(next) = self.next {
            let unseen = distance(ack, next);
            if self.empty_at_start > 0 && before.is_none() && unseen == 1 {
                found.keep_alives = std::mem::take(&mut self.empty_at_start);
                self.lowest = ack;
                self.next = Some(ack);
            } else if self.empty_below_start > 0 && unseen == 0 {
                found.keep_alives = std::mem::take(&mut self.empty_below_start);
            }
            found.answered = self.answer(ack, echo, before, unseen > 0);
            if unseen > 0 && found.keep_alives == 0 && unseen.unsigned_abs() <= MAX_WINDOW {
                self.push_gap(next, ack);
                self.advance(ack);
            }
        }
        if let Some(more) = &mut self.more {
            more.hole = more.hole.filter(|hole| distance(*hole, ack) > 0);
        }
        Some(found)
    }

    /// Takes out what `ack` settles, and returns the segment that it answers.
    #[inline]
    fn answer(
        &mut self,
        ack: u32,
        echo: Option<u32>,
        before: Option<u32>,
        beyond: bool,
    ) -> Option<(WallTime, SampleBasis)> {
        let mut answered = None;
        let hole = self.hole();
        let usable = |of: &Waiting| {
            let new = before.map_or(true, |una| distance(of.end, una) > 0);
            let open = match (of.beyond_hole, hole, before) {
                (false, ..) | (_, None, _) => false,
                (_, Some(hole), Some(una)) => distance(una, hole) < 0,
                (_, Some(_), None) => true,
            };
            new && !open
        };
        while let Some(first) = self.by_ts_val.front() {
            let whole = distance(first.end, ack) <= 0;
            let step = echo.map(|echo| distance(first.ts_val, echo));
            // A part is enough: a segment captured before segmentation is answered piece by piece.
            let echoed = step == Some(0) && distance(ack, first.seq) > 0;
            let certain = match step {
                Some(_) => echoed && !first.ambiguous && !(first.retransmission && beyond),
                None => first.end == ack && !first.repeated && !first.retransmission,
            };
            if certain && usable(first) {
                let basis = match step {
                    Some(_) => SampleBasis::Timestamps,
                    None => SampleBasis::Sequence,
                };
                answered = Some((first.time, basis));
            }
            // Earlier TSvals are passed over: a receiver's TS.Recent never goes back.
            if !whole && !echoed && !step.is_some_and(|step| step < 0) {
                break;
            }
            self.by_ts_val.pop_front();
        }
        let Some(more) = &mut self.more else {
            return answered;
        };
        while let Some(first) = more.by_sequence.front() {
            let rest = distance(first.end, ack);
            if rest > 0 {
                break;
            }
            if rest == 0 && usable(first) {
                answered = answered.or(Some((first.time, SampleBasis::Sequence)));
            }
            more.by_sequence.pop_front();
        }
        answered
    }

    /// Takes the range from `seq` as sent.
    #[inline]
    pub(super) fn send(&mut self, seq: u32, length: u32) -> Passed {
        let end = seq.wrapping_add(length);
        let next = self.begin(seq);
        self.empty_at_start = 0;
        self.empty_below_start = 0;
        let ahead = distance(seq, next);
        if ahead == 0 {
            self.advance(end);
            return Passed::default();
        }
        if ahead.unsigned_abs() > MAX_WINDOW {
            self.restart(seq);
            self.advance(end);
            return Passed::default();
        }
        if ahead > 0 {
            self.push_gap(next, seq);
            self.more().hole = Some(seq);
            self.advance(end);
            return Passed::default();
        }
        let stop = if distance(end, next) > 0 {
            self.advance(end);
            next
        } else {
            end
        };
        Passed {
            repeated: stop.wrapping_sub(seq).saturating_sub(self.fill(seq, stop)),
            behind: true,
        }
    }

    /// Returns one past the highest number known; where none is, the direction begins at what is
    /// acknowledged of it, or at `seq`.
    #[inline]
    pub(super) fn begin(&mut self, seq: u32) -> u32 {
        if let Some(next) = self.next {
            return next;
        }
        let near = |una: &u32| distance(seq, *una).unsigned_abs() <= MAX_WINDOW;
        let start = self.una.filter(near).unwrap_or(seq);
        self.lowest = start;
        self.next = Some(start);
        start
    }

    /// Forgets everything about another run of numbers.
    fn restart(&mut self, seq: u32) {
        self.una = None;
        self.next = Some(seq);
        self.lowest = seq;
        self.newest_at = MaybeTime::default();
        self.by_ts_val.clear();
        if let Some(more) = &mut self.more {
            more.hole = None;
            more.gaps.clear();
            more.by_sequence.clear();
        }
    }

    /// Moves `next` on, and drops what is more than a window below it. In the next lap of the
    /// circle the same numbers are others.
    #[inline]
    fn advance(&mut self, next: u32) {
        self.next = Some(next);
        let limit = next.wrapping_sub(MAX_WINDOW);
        if distance(self.lowest, limit) < 0 {
            self.lowest = limit;
        }
        let Some(more) = &mut self.more else {
            return;
        };
        while let Some(first) = more.gaps.first_mut() {
            if distance(first.1, limit) > 0 {
                if distance(first.0, limit) < 0 {
                    first.0 = limit;
                }
                break;
            }
            more.gaps.remove(0);
        }
    }

    #[inline]
    fn hole(&self) -> Option<u32> {
        self.more.as_ref()?.hole
    }

    #[inline]
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_with(Box::default)
    }

    fn push_gap(&mut self, from: u32, to: u32) {
        let gaps = &mut self.more().gaps;
        if gaps.len() == MAX_GAPS {
            gaps.remove(0);
        }
        gaps.push((from, to));
    }

    /// Takes `seq..end`, which lies below `next`, as passed, and returns how many of its numbers
    /// had not.
    fn fill(&mut self, seq: u32, end: u32) -> u32 {
        let mut filled = 0;
        if distance(seq, self.lowest) < 0 {
            let lowest = std::mem::replace(&mut self.lowest, seq);
            if distance(end, lowest) <= 0 {
                if end != lowest {
                    let gaps = &mut self.more().gaps;
                    gaps.truncate(MAX_GAPS - 1);
                    gaps.insert(0, (end, lowest));
                }
                return end.wrapping_sub(seq);
            }
            filled = lowest.wrapping_sub(seq);
        }
        let Some(more) = &mut self.more else {
            return filled;
        };
        let mut at = 0;
        while let Some(&(from, to)) = more.gaps.get(at) {
            let start = if distance(seq, from) > 0 { seq } else { from };
            let stop = if distance(end, to) < 0 { end } else { to };
            at += 1;
            if distance(stop, start) <= 0 {
                continue;
            }
            filled += stop.wrapping_sub(start);
            let rest = [(from, start), (stop, to)];
            let rest = rest.into_iter().filter(|(from, to)| from != to);
            let before = more.gaps.len();
            more.gaps.splice(at - 1..at, rest);
            at = at + more.gaps.len() - before;
        }
        more.gaps.truncate(MAX_GAPS);
        let una = self.una;
        let open = |hole: &u32| una.map_or(true, |una| distance(*hole, una) > 0);
        more.hole = more.gaps.last().map(|gap| gap.1).filter(open);
        filled
    }

    /// Takes the SYN or SYN-ACK at `seq`.
    pub(super) fn synchronize(&mut self, seq: u32, stamps: Option<Timestamps>, now: WallTime) {
        if self.initial != Some(seq) {
            if !self.begins_at(seq) {
                self.restart(seq);
                self.una = Some(seq);
                self.forget_syns();
            }
            self.initial = Some(seq);
        }
        let syns = &mut self.more().syns;
        if let Some((latest, at)) = syns.last() {
            if *latest == stamps && now.0.saturating_sub(at.0) <= COPY_NS && stamps.is_some() {
                return;
            }
        }
        if syns.len() == MAX_SYNS {
            syns.remove(0);
        }
        if syns.capacity() == 0 {
            syns.reserve_exact(1);
        }
        syns.push((stamps, now));
    }

    /// Forgets the SYNs, of which no later acknowledgment is one.
    pub(super) fn forget_syns(&mut self) {
        if let Some(more) = &mut self.more {
            more.syns = Vec::new();
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.is_empty()) {
            self.more = None;
        }
    }

    /// Returns `true` if the numbers seen so far follow a SYN at `seq` that did not pass yet.
    pub(super) fn begins_at(&self, seq: u32) -> bool {
        let first = seq.wrapping_add(1);
        let lowest = self.next.map(|_| self.lowest);
        self.initial.is_none() && lowest.or(self.una) == Some(first)
    }

    /// Returns `true` if a segment of `seq..end` may belong to this run of numbers.
    pub(super) fn fits(&self, seq: u32, end: u32) -> bool {
        // Far beyond any usual window, and still a chance of 1 in 64 only for a random number.
        const NEAR: i32 = 1 << 25;
        match self.next.or(self.una) {
            Some(next) => distance(end, next) <= NEAR && distance(seq, next) >= -NEAR,
            None => true,
        }
    }

    /// Returns `true` if something is known to be under way.
    #[inline]
    pub(super) fn outstanding(&self) -> bool {
        match (self.una, self.next) {
            (Some(una), Some(next)) => distance(next, una) > 0,
            _ => false,
        }
    }

    /// Returns `true` if everything that was sent is acknowledged.
    #[inline]
    pub(super) fn quiet(&self) -> bool {
        match (self.una, self.next) {
            (Some(una), Some(next)) => distance(una, next) >= 0,
            _ => false,
        }
    }

    /// Takes an empty segment at `seq`, and returns `true` if it is a keep-alive probe: Linux's has
    /// no byte, but the number before the next.
    #[inline]
    pub(super) fn empty(&mut self, seq: u32) -> bool {
        let known = self.next.is_some();
        let next = self.begin(seq);
        if next == seq && self.una.is_none() && (!known || self.empty_at_start > 0) {
            self.empty_at_start = self.empty_at_start.saturating_add(1);
        }
        if next.wrapping_sub(1) != seq {
            return false;
        }
        if self.una.is_none() && self.empty_at_start > 0 {
            self.empty_below_start = self.empty_below_start.saturating_add(1);
        }
        self.quiet()
    }

    /// Returns the time of the SYN that `echo` answers; where timestamps are no help, only one SYN
    /// leaves no doubt (Karn).
    pub(super) fn syn_answered(&self, echo: Option<u32>) -> Option<WallTime> {
        let ts_val = |stamps: Option<Timestamps>| stamps.map(|both| both.ts_val);
        let syns = self.more.as_ref().map_or(&[][..], |more| &more.syns);
        if let [(stamps, time)] = *syns {
            // 0 is what an end without timestamps of its own echoes.
            let unknown = stamps.is_none() || matches!(echo, None | Some(0));
            return (unknown || ts_val(stamps) == echo).then_some(time);
        }
        let same = |of: &&(Option<Timestamps>, WallTime)| of.0.is_some() && ts_val(of.0) == echo;
        let mut same = syns.iter().filter(same);
        match (same.next(), same.next()) {
            (Some((_, time)), None) => Some(*time),
            _ => None,
        }
    }

    /// Lets a segment wait for its acknowledgment, if it will measure anything, and returns `true`
    /// if an older one had to go for it.
    #[inline]
    pub(super) fn wait(&mut self, of: &Sighting, passed: Passed) -> bool {
        if passed.behind {
            if self.is_copy(of) {
                return false;
            }
            self.spoil(of);
        }
        self.latest = [(of.seq, of.end, of.time), self.latest[0]];
        let waiting = Waiting {
            time: of.time,
            ts_val: of.ts_val.unwrap_or(0),
            seq: of.seq,
            end: of.end,
            beyond_hole: self.hole().is_some(),
            retransmission: passed.behind,
            repeated: false,
            ambiguous: false,
        };
        match of.ts_val {
            Some(ts_val) => {
                if !self.is_first(ts_val, of.time, passed.behind) {
                    // The echo may be of this one, if the repeat before it was lost.
                    let is_repeat = |of: &Waiting| of.retransmission && of.ts_val == ts_val;
                    if self.by_ts_val.back().is_some_and(is_repeat) {
                        let waiting = self.by_ts_val.iter_mut().last();
                        waiting.into_iter().for_each(|of| of.ambiguous = true);
                    }
                    return false;
                }
                (self.newest, self.newest_at) = (ts_val, of.time.into());
                let full = self.by_ts_val.len() >= of.bound;
                if full {
                    self.by_ts_val.pop_front();
                }
                self.by_ts_val.push_back(waiting);
                full
            }
            None if passed.behind => false,
            None => {
                let by_sequence = &mut self.more().by_sequence;
                let full = by_sequence.len() >= of.bound;
                if full {
                    by_sequence.pop_front();
                }
                by_sequence.push_back(waiting);
                full
            }
        }
    }

    /// Takes the TSval of a segment that was acknowledged before it passed. The echo may answer it,
    /// so no repeat that has that TSval later is measured.
    pub(super) fn take_unneeded(&mut self, ts_val: u32, now: WallTime) {
        if self.is_first(ts_val, now, true) {
            (self.newest, self.newest_at) = (ts_val, now.into());
        }
    }

    /// Returns `true` if the segment's TSval is measured from here on: it is a new one, or one
    /// whose earlier segments are acknowledged.
    #[inline]
    fn is_first(&mut self, ts_val: u32, now: WallTime, behind: bool) -> bool {
        let (newest, Some(at)) = (self.newest, self.newest_at.get()) else {
            return true;
        };
        if now.0.saturating_sub(at.0) > TS_VAL_AGE_NS {
            self.by_ts_val.clear();
            return true;
        }
        let waits = || self.by_ts_val.back().is_some_and(|of| of.ts_val == newest);
        match distance(ts_val, newest) {
            0 => !behind && !waits(),
            step => step > 0,
        }
    }

    fn is_copy(&self, of: &Sighting) -> bool {
        self.latest.iter().any(|(seq, end, time)| {
            (*seq, *end) == (of.seq, of.end)
                && of.time.0.saturating_sub(time.0) <= COPY_NS
                && of.heard.map_or(true, |heard| heard < *time)
        })
    }

    /// Marks what a segment below `next` makes doubtful. The ACK of what was sent beyond it waits
    /// for it, so these measure nothing either.
    fn spoil(&mut self, of: &Sighting) {
        if let Some(more) = &mut self.more {
            let doubtful = |last: &Waiting| distance(last.end, of.seq) > 0;
            while more.by_sequence.back().is_some_and(doubtful) {
                more.by_sequence.pop_back();
            }
        }
        for waiting in self.by_ts_val.iter_mut() {
            waiting.repeated |= distance(waiting.end, of.seq) > 0;
            // Without a TSval of its own the echo stays what it was.
            waiting.ambiguous |= match of.ts_val {
                Some(ts_val) => waiting.ts_val == ts_val,
                None => distance(waiting.end, of.seq) > 0,
            };
        }
    }

    /// Reads what a segment of either direction will need; the number means nothing.
    #[inline]
    pub(super) fn warm(&self) -> u64 {
        u64::from(self.lowest)
    }

    /// Reads what data of this direction will need besides.
    #[inline]
    pub(super) fn warm_for_data(&self) -> u64 {
        u64::from(self.latest[1].0)
    }

    /// Gives back the memory of what a closed connection does not measure any more.
    pub(super) fn shrink(&mut self) {
        self.by_ts_val.shrink();
        if let Some(more) = &mut self.more {
            more.by_sequence.shrink();
        }
        self.tidy();
    }
}
