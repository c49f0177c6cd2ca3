//! The runs of one part in a state: those that are usual, and those since a change.

use super::super::{Began, Search};
use super::{Against, Named, RunFigures};
use crate::time::{Nanos, SignedNanos, WallTime};
use std::fmt;

/// Earlier runs that a run is compared with, at most.
const COMPARED: usize = 20;
/// Runs kept of a part.
const KEPT: usize = 160;
/// Runs of the same hour, and days that they are from, from which on those are compared with.
const SAME_HOUR: usize = 8;
const SAME_HOUR_DAYS: usize = 3;
/// Runs in a row after which a lower level is the new one.
const FALLS: usize = 3;
/// A rise that lasts for so long is the new normal.
const NEW_NORMAL: Nanos = Nanos(7 * 86_400 * 1_000_000_000);
/// Runs older than this are forgotten.
const OLDEST: Nanos = Nanos(28 * 86_400 * 1_000_000_000);
/// A clock before 2020 is not set.
const CLOCK_SET: WallTime = WallTime(1_577_836_800 * 1_000_000_000);
const HOUR: u64 = 3600 * 1_000_000_000;

/// The runs of one part, in a state: those that are usual, and those since a change was named,
/// which are not learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunHistory {
    usual: Vec<RunFigures>,
    changed: Vec<RunFigures>,
    /// Start of the first run of the change that lasts, whether it is a rise, and of how much.
    lasting: Option<Lasting>,
}

/// A change that lasts over runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// Start of the first run that it was named in.
    pub since: WallTime,
    /// Its amount in that run; negative for a fall.
    pub amount: SignedNanos,
}

/// A run as judged by [`RunHistory::judge`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The comparison; `None` if there are too few runs or own blocks.
    pub against: Option<Against>,
    /// The change that lasts, of this run or an earlier one.
    pub lasting: Option<Lasting>,
    /// The time at which it began, by the clock of this run.
    pub began: Began,
    /// A change that was named before is over.
    pub cleared: bool,
    /// The level of the runs since the change is the usual one from now on.
    pub new_normal: bool,
}

impl RunHistory {
    /// The earlier runs to compare with a run that begins at `at`. These are the runs at the same
    /// hour of earlier days if there are enough, else the latest.
    fn compared(&self, at: WallTime) -> Vec<RunFigures> {
        let day = 24 * HOUR;
        let near = |run: &&RunFigures| {
            let apart = at.0.abs_diff(run.at.0) % day;
            let is_near = apart.min(day - apart) <= HOUR && at.0.abs_diff(run.at.0) > day / 2;
            is_near && run.at >= CLOCK_SET
        };
        let latest = |runs: &[RunFigures]| runs[runs.len().saturating_sub(COMPARED)..].to_vec();
        if at >= CLOCK_SET {
            let same: Vec<RunFigures> = self.usual.iter().filter(near).copied().collect();
            let same = latest(&same);
            let mut days: Vec<u64> = same.iter().map(|run| (run.at.0 + HOUR) / day).collect();
            days.dedup();
            if same.len() >= SAME_HOUR && days.len() >= SAME_HOUR_DAYS {
                return same;
            }
        }
        latest(&self.usual)
    }

    /// Judges the part whose blocks were pushed to `search`, of a run that began at `at`. Its
    /// figures are kept with the usual runs if nothing is named, else apart.
    pub fn judge(&mut self, search: &mut Search, at: WallTime) -> Judged {
        let figures = search.run_figures(at);
        let against = search.against(&self.compared(at));
        let mut judged = Judged {
            against,
            lasting: self.lasting,
            began: self.began(at),
            cleared: false,
            new_normal: false,
        };
        let Some(figures) = figures else {
            return judged;
        };
        let named = against.and_then(|against| against.named);
        if let (Some(lasting), Some(_)) = (self.lasting, against) {
            // Named again it goes on; and so it does while half of it is seen by half the limits.
            let part = |named: Named| named.amount.0 as f64 / lasting.amount.0 as f64;
            let again = named.is_some_and(|named| part(named) > 0.0);
            let eased = search
                .compare(&self.compared(at), 0.5)
                .and_then(|against| against.named);
            if !again && !eased.is_some_and(|named| part(named) > 0.5) {
                judged.cleared = true;
                self.lasting = None;
                self.changed.clear();
            }
        }
        if let (None, Some(named)) = (self.lasting, named) {
            self.lasting = Some(Lasting {
                since: at,
                amount: named.amount,
            });
        }
        judged.lasting = self.lasting;
        judged.began = self.began(at);
        let Some(lasting) = self.lasting else {
            self.usual.push(figures);
            trim(&mut self.usual);
            return judged;
        };
        self.changed.push(figures);
        trim(&mut self.changed);
        let is_fall = lasting.amount.0 < 0;
        let from = judged.began.since.or(judged.began.at_most).unwrap_or(at);
        let for_long = at.0.saturating_sub(from.0) >= NEW_NORMAL.0;
        if for_long || (is_fall && self.changed.len() >= FALLS) {
            judged.new_normal = true;
            self.accept();
        }
        judged
    }

    /// Adds a run to the usual ones without judging it.
    pub fn push_usual(&mut self, run: RunFigures) {
        self.usual.push(run);
        trim(&mut self.usual);
    }

    /// Makes the runs since the change the usual ones.
    pub fn accept(&mut self) {
        if self.lasting.take().is_some() {
            self.usual = std::mem::take(&mut self.changed);
        }
    }

    /// Returns the start of the change that lasts, by the clock of a run that begins at `now`. If
    /// the clock was not set then, or is earlier now, the next run with a known time is later.
    pub fn began(&self, now: WallTime) -> Began {
        let Some(lasting) = self.lasting else {
            return Began::default();
        };
        let is_known = |at: &WallTime| *at == now || (CLOCK_SET <= *at && *at <= now);
        let since = Some(lasting.since).filter(is_known);
        let later = self.changed.iter().map(|run| run.at).find(is_known);
        Began {
            since,
            at_most: later.or(Some(now)).filter(|_| since.is_none()),
        }
    }

    /// The change that lasts.
    pub fn lasting(&self) -> Option<Lasting> {
        self.lasting
    }

    /// The runs that are usual, the oldest first.
    pub fn usual(&self) -> &[RunFigures] {
        &self.usual
    }
}

/// Removes runs that are too old or too many. All of the latest runs stay. Of the others the one
/// goes that leaves the smallest gap, so that they span weeks.
fn trim(runs: &mut Vec<RunFigures>) {
    let Some(newest) = runs.last().map(|run| run.at.0) else {
        return;
    };
    // The age of a run before the clock was set is not known.
    let is_set = |at: u64| at >= CLOCK_SET.0;
    runs.retain(|run| {
        newest.saturating_sub(run.at.0) <= OLDEST.0 || is_set(newest) != is_set(run.at.0)
    });
    while runs.len() > KEPT {
        let old = 1..runs.len() - COMPARED;
        let gap = |at: &usize| runs[at + 1].at.0.saturating_sub(runs[at - 1].at.0);
        let least = old.min_by_key(gap).unwrap_or(0);
        runs.remove(least);
    }
}

impl fmt::Display for RunHistory {
    /// `usual RUN ... changed SINCE AMOUNT RUN ...`, the second half only while a change lasts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("usual")?;
        for run in &self.usual {
            write!(f, " {run}")?;
        }
        if let Some(lasting) = &self.lasting {
            write!(f, " changed {} {}", lasting.since.0, lasting.amount.0)?;
            for run in &self.changed {
                write!(f, " {run}")?;
            }
        }
        Ok(())
    }
}

impl RunHistory {
    /// Reads what `Display` wrote; `None` for anything else, or more runs than are kept.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut history = Self::default();
        if words.next()? != "usual" {
            return None;
        }
        while let Some(word) = words.next() {
            let runs = if word == "changed" && history.lasting.is_none() {
                let since = WallTime(words.next()?.parse().ok()?);
                let amount = SignedNanos(words.next()?.parse().ok()?);
                history.lasting = Some(Lasting { since, amount });
                continue;
            } else if history.lasting.is_some() {
                &mut history.changed
            } else {
                &mut history.usual
            };
            runs.push(RunFigures::parse(word)?);
            if runs.len() > KEPT {
                return None;
            }
        }
        Some(history)
    }
}
