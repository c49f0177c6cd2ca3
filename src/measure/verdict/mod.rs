//! The two answers of a run: the part that changed, and the part that has most of the delay.

mod bottleneck;
mod text;

use super::change::{Began, FindingKind, LeastTail};
use super::{Also, Confidence, Figure, Largest, Part, Verdict, VerdictDirection, VerdictKind};
use crate::time::{MonoTime, Nanos, Now, SignedNanos, WallTime};
use bottleneck::Bottleneck;
pub(super) use text::ms;

/// The evidence by which a change was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Within the run.
    Run,
    /// Within the run, slowly.
    Ramp,
    /// Against so many earlier runs.
    Runs(usize),
    /// Against earlier windows: named in `episodes`, at once or by `per_day`.
    Windows {
        episodes: u16,
        per_day: Option<SignedNanos>,
    },
}

/// A change of one part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) part: Part,
    pub(super) origin: Origin,
    /// The figure that changed: the median, or the mean by some late blocks.
    pub(super) figure: Figure,
    pub(super) kind: FindingKind,
    /// Per block; negative for a fall.
    pub(super) amount: SignedNanos,
    pub(super) low: SignedNanos,
    pub(super) high: SignedNanos,
    /// The figure before the change.
    pub(super) baseline: SignedNanos,
    /// The time at which it began, if that is within the run.
    pub(super) since: Option<MonoTime>,
    /// The time at which it began, if that is in an earlier run or window.
    pub(super) began: Began,
    /// The time at which it ended; `None` if it lasts.
    pub(super) until: Option<MonoTime>,
    /// An excess in one place, too short to be a change: it is no verdict.
    pub(super) burst: bool,
    pub(super) direction: Option<VerdictDirection>,
    /// The host's process reads late what its kernel has.
    pub(super) reads_late: bool,
}

impl Change {
    /// The least mean that it adds to a block, by which changes compare: a 95th percentile is that
    /// of one block in twenty.
    fn per_block(&self) -> i64 {
        match self.figure {
            Figure::P95 => self.amount.0 / 20,
            Figure::P50 | Figure::Mean => self.amount.0,
        }
    }
}

/// A part with its share of the delay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) part: Part,
    /// Sum of the part / sum of the totals; `None` without totals.
    pub(super) share: Option<f64>,
    /// Mean per block of the run, in nanoseconds.
    pub(super) mean: f64,
    pub(super) p50: Option<SignedNanos>,
}

/// The least change that would have been named in a part, and the part's median.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) least: Nanos,
    pub(super) tail: Option<LeastTail>,
    pub(super) p50: SignedNanos,
}

/// Everything that the verdict rests on.
pub(super) struct Evidence<'a> {
    pub(super) now: Now,
    /// All changes, of all parts.
    pub(super) changes: Vec<Change>,
    pub(super) shares: Vec<Share>,
    /// Of parts whose search had blocks enough; empty if none had.
    pub(super) sights: Vec<Sight>,
    /// Own blocks of the part that has most.
    pub(super) own_blocks: usize,
    /// Earlier runs compared with.
    pub(super) runs: usize,
    /// Blocks answered.
    pub(super) blocks: u64,
    /// Duration of the run, or of the rows that are searched.
    pub(super) lasted: Nanos,
    /// Hops of the nodes that stamp, in order of the path.
    pub(super) hops: Vec<u8>,
    pub(super) name: &'a dyn Fn(u8) -> String,
    /// The first node is where blocks begin and end, not one on the way.
    pub(super) source: bool,
    /// The last node reflects, so that its answers are written by the pump that reads.
    pub(super) reflected: bool,
    /// Shares of time in which pumps were held: forward pumps in order of the path, then return
    /// pumps.
    pub(super) held: Vec<f64>,
    /// Hops of nodes whose clock was stepped.
    pub(super) stepped: Vec<u8>,
}

/// Blocks under which there is no largest part.
const LARGEST_NEEDS: u64 = 5;
/// A change that was seen for less than this is named, with low confidence.
const SHORT: Nanos = Nanos::from_millis(1_000);

impl Evidence<'_> {
    /// Names the part that changed.
    pub(super) fn judge(&self) -> Verdict {
        let rises = || self.lasting().filter(|change| change.amount.0 > 0);
        let lasting = rises().filter(|change| change.until.is_none());
        let winner = lasting
            .max_by_key(|change| change.per_block())
            .or_else(|| rises().max_by_key(|change| change.per_block()));
        if let Some(winner) = winner {
            return self.changed(winner);
        }
        let largest = self.shares.iter().max_by(|a, b| a.mean.total_cmp(&b.mean));
        let full = largest.and_then(|largest| self.bottleneck(largest.part, false));
        if let Some(bottleneck) = full.filter(|found| {
            // Bulk traffic always fills some pipe: that is an answer only if it was full mostly, or
            // the run is short.
            self.sights.is_empty() || self.held_share(found) > bottleneck::MOSTLY
        }) {
            return self.backed_up(None, largest.map_or(Part::Total, |l| l.part), bottleneck);
        }
        match self.stepped.first() {
            Some(hop) => {
                let why = "the blocks under way were left out, and nothing else changed";
                self.clock(*hop, why)
            }
            None => self.unchanged(),
        }
    }

    /// All changes but bursts.
    fn lasting(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| !change.burst)
    }

    /// `; a burst of +2.40 ms at host B, 15:17:02Z to 15:17:09Z`: the largest, if there is one.
    fn burst(&self) -> String {
        let bursts = self.changes.iter().filter(|change| change.burst);
        let rises = bursts.filter(|change| change.amount.0 > 0);
        rises
            .max_by_key(|change| change.amount)
            .map_or_else(String::new, |burst| {
                let until = burst
                    .until
                    .map(|at| self.now.wall.before(self.now.mono.since(at)));
                self.burst_sentence(burst, self.since(burst), until)
            })
    }

    /// The part with the greatest sum; `None` for under 5 blocks.
    pub(super) fn largest(&self) -> Option<Largest> {
        if self.blocks < LARGEST_NEEDS {
            return None;
        }
        let mut shares: Vec<&Share> = self.shares.iter().filter(|part| part.mean > 0.0).collect();
        shares.sort_unstable_by(|a, b| b.mean.total_cmp(&a.mean));
        let first = shares.first()?;
        let second = shares
            .get(1)
            .filter(|second| second.mean >= first.mean * 0.9);
        let (kind, index) = self.kind_of(first.part);
        Some(Largest {
            kind,
            index,
            part: first.part,
            name: self.part_name(first.part),
            share: first.share,
            mean: SignedNanos(first.mean as i64),
            p50: first.p50,
            second: second.map(|second| self.part_name(second.part)),
        })
    }

    fn kind_of(&self, part: Part) -> (VerdictKind, Option<usize>) {
        let place = |hop| self.hops.iter().position(|known| *known == hop);
        match part {
            Part::Segment { from, .. } => (VerdictKind::Segment, place(from)),
            Part::Connect { from, .. } => (VerdictKind::Connect, place(from)),
            Part::Host(hop) if self.source && Some(&hop) == self.hops.first() => {
                (VerdictKind::Source, None)
            }
            Part::Host(hop) => (VerdictKind::Host, Some(usize::from(hop))),
            Part::Behind(hop) => (VerdictKind::Behind, Some(usize::from(hop))),
            Part::Server | Part::ServerConnect => (VerdictKind::Server, None),
            Part::Total => (VerdictKind::None, None),
        }
    }

    fn part_name(&self, part: Part) -> String {
        part.name(self.name, self.hops.last().copied())
    }

    /// Returns the time at which a change began, by the clock as it is now.
    fn since(&self, change: &Change) -> Option<WallTime> {
        let within = change
            .since
            .map(|at| self.now.wall.before(self.now.mono.since(at)));
        within.or(change.began.since)
    }

    /// Nothing changed, or it cannot be known.
    fn unchanged(&self) -> Verdict {
        let nothing = Verdict::default();
        if self.blocks == 0 && self.shares.is_empty() {
            let reason = "nothing was measured".to_owned();
            let text = format!("none: {reason}");
            return Verdict {
                reason,
                text,
                ..nothing
            };
        }
        if self.hops.len() < 2 && self.shares.is_empty() {
            let reason = "no segment of the path is seen from here; its source has the whole";
            let text = format!("none: {reason}");
            return Verdict {
                reason: reason.to_owned(),
                text,
                ..nothing
            };
        }
        let also = self.also(None);
        let Some(least) = self.sights.iter().map(|sight| sight.least).max() else {
            let needed = super::change::Search::NEEDED_BLOCKS;
            let reason = match self.own_blocks < needed {
                true => format!(
                    "too short to decide: {} blocks answered one by one, {needed} needed",
                    self.own_blocks
                ),
                false => format!(
                    "too short to decide: the blocks were sent within {:.3} s, 1 s needed",
                    self.lasted.0 as f64 / 1e9
                ),
            };
            let text = format!("none: {reason}");
            return Verdict {
                reason,
                text,
                also,
                ..nothing
            };
        };
        let sharp = |sight: &Sight| {
            let part = Nanos(sight.p50.0.unsigned_abs() / 20);
            sight.least <= part.max(Nanos::from_micros(500))
        };
        let certain = self.sights.iter().all(sharp);
        let tails = self.sights.iter().map(|sight| sight.tail);
        let worse = |a: Option<LeastTail>, b: Option<LeastTail>| {
            let (a, b) = (a?, b?);
            let (delay, share) = (a.delay.max(b.delay), a.share.max(b.share));
            Some(LeastTail { delay, share })
        };
        let mut text = format!("none: no change above {} ms", ms(least.signed().0));
        if let Some(tail) = tails.reduce(worse).flatten() {
            text += &format!(
                ", nor of {} ms in more than {:.0} % of the blocks",
                ms(tail.delay.signed().0),
                tail.share * 100.0
            );
        }
        let reason = match self.runs {
            0 => "searched within the run".to_owned(),
            1 => "searched within the run and against 1 earlier one".to_owned(),
            runs => format!("searched within the run and against {runs} earlier ones"),
        };
        let reason = reason + &self.burst();
        let mut doubts = Vec::new();
        if !certain {
            doubts.push("a longer run would see smaller changes".to_owned());
        }
        let may_last = |change: &Change| {
            let is_rise = change.amount.0 > 0 && change.kind == FindingKind::Level;
            is_rise && change.burst && change.until.is_none()
        };
        let ends_higher = self.changes.iter().any(may_last);
        if ends_higher {
            doubts.push("the burst at its end may be a change that has just begun".to_owned());
        }
        Verdict {
            confidence: if certain && !ends_higher {
                Confidence::High
            } else {
                Confidence::Low
            },
            least: Some(least),
            reason,
            doubts,
            text,
            also,
            ..nothing
        }
    }

    fn clock(&self, hop: u8, why: &str) -> Verdict {
        let name = (self.name)(hop);
        let text = format!("clock step at {name}: {why}");
        Verdict {
            kind: VerdictKind::Clock,
            name,
            text,
            reason: why.to_owned(),
            also: self.also(None),
            ..Verdict::default()
        }
    }

    fn changed(&self, winner: &Change) -> Verdict {
        if let Some(bottleneck) = self.bottleneck(winner.part, true) {
            return self.backed_up(Some(winner), winner.part, bottleneck);
        }
        if let Some((hop, other)) = self.opposite(winner) {
            let (one, other) = (self.part_name(winner.part), self.part_name(other));
            let why = format!("{one} and {other} changed by the same amount with opposite signs");
            return self.clock(hop, &why);
        }
        let mut verdict = self.with_change(winner);
        let mut doubts = Vec::new();
        let rivals = self.lasting().filter(|rival| {
            rival.part != winner.part
                && rival.amount.0 > 0
                && rival.until.is_none()
                && rival.high >= winner.low
        });
        // A part whose far end was held only queues for another one, so it is no rival.
        let mut rivals = rivals.filter(|rival| self.bottleneck(rival.part, true).is_none());
        if let Some(rival) = rivals.next() {
            let (one, other) = (self.part_name(winner.part), self.part_name(rival.part));
            doubts.push(format!("{one} and {other} grew alike"));
        }
        if self.lasted < SHORT {
            doubts.push(format!(
                "the run lasted {:.1} s",
                self.lasted.0 as f64 / 1e9
            ));
        }
        match winner.origin {
            Origin::Runs(runs) if runs < 8 => doubts.push(format!("only {runs} earlier runs")),
            Origin::Ramp
            | Origin::Windows {
                per_day: Some(_), ..
            } => doubts.push("it grew slowly, without an edge".to_owned()),
            _ => {}
        }
        if let Some(hop) = self.stepped.first() {
            let name = (self.name)(*hop);
            doubts.push(format!(
                "the clock of {name} was stepped; blocks under way were left out"
            ));
        }
        if matches!(winner.part, Part::Segment { .. }) && winner.direction.is_none() {
            verdict.reason += "; direction unknown: the clocks are not known well enough";
        }
        verdict.confidence = match doubts.is_empty() {
            true => Confidence::High,
            false => Confidence::Low,
        };
        verdict.doubts = doubts;
        verdict
    }

    fn with_change(&self, change: &Change) -> Verdict {
        let (kind, index) = match change.part {
            // Not its schedule but its process is late.
            Part::Host(hop) if change.reads_late => (VerdictKind::Host, Some(usize::from(hop))),
            part => self.kind_of(part),
        };
        let share = self.shares.iter().find(|share| share.part == change.part);
        let retransmitted = matches!(
            change.kind,
            FindingKind::Tail {
                retransmitted: true,
                ..
            }
        );
        let since = self.since(change);
        let until = change
            .until
            .map(|at| self.now.wall.before(self.now.mono.since(at)));
        Verdict {
            kind,
            index,
            part: Some(change.part),
            name: self.part_name(change.part),
            direction: change.direction,
            basis: Some(super::Basis::Increase),
            figure: change.figure,
            share: share.and_then(|share| share.share),
            increase: Some(change.amount),
            increase_low: Some(change.low),
            increase_high: Some(change.high),
            baseline: Some(change.baseline),
            since,
            since_at_most: change.began.at_most.filter(|_| since.is_none()),
            until,
            also: self.also(Some(change)),
            reason: self.reason(change) + &self.burst(),
            text: self.sentence(change, since, until),
            reads_late: change.reads_late,
            retransmitted,
            ..Verdict::default()
        }
    }

    /// All changes but `winner`, the largest first; of each part one.
    fn also(&self, winner: Option<&Change>) -> Vec<Also> {
        let mut parts: Vec<Part> = winner.map(|winner| winner.part).into_iter().collect();
        let mut changes: Vec<&Change> = self.lasting().collect();
        changes.sort_unstable_by_key(|change| std::cmp::Reverse(change.amount.abs()));
        let mut also = Vec::new();
        for change in changes {
            if parts.contains(&change.part) {
                continue;
            }
            parts.push(change.part);
            let (kind, index) = self.kind_of(change.part);
            also.push(Also {
                kind,
                index,
                part: change.part,
                name: self.part_name(change.part),
                increase: change.amount,
                since: self.since(change),
                since_at_most: change.began.at_most,
            });
        }
        also
    }

    /// A neighbour that fell by as much as `change` rose: the clock of the node between them was
    /// stepped.
    fn opposite(&self, change: &Change) -> Option<(u8, Part)> {
        let beside = |other: &Change| match (change.part, other.part) {
            (
                Part::Segment { from, to },
                Part::Segment {
                    from: near,
                    to: far,
                },
            ) => match () {
                () if to == near => Some(to),
                () if far == from => Some(from),
                () => None,
            },
            (Part::Segment { from, to }, Part::Host(hop))
            | (Part::Host(hop), Part::Segment { from, to }) => {
                (hop == from || hop == to).then_some(hop)
            }
            _ => None,
        };
        // A step of a clock concerns all blocks.
        if change.kind != FindingKind::Level {
            return None;
        }
        let mut levels = self
            .lasting()
            .filter(|other| other.kind == FindingKind::Level);
        levels.find_map(|other| {
            let hop = beside(other)?;
            let unlike = change
                .amount
                .0
                .saturating_add(other.amount.0)
                .saturating_abs();
            (other.amount.0 < 0 && unlike < change.amount.0 / 4).then_some((hop, other.part))
        })
    }

    fn held_share(&self, bottleneck: &Bottleneck) -> f64 {
        self.held.get(bottleneck.pump).copied().unwrap_or(0.0)
    }
}
