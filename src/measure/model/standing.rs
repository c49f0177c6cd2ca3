//! The change of each part that stands in a run without end, which the search forgets in time.

use super::changes::PartChanges;
use super::path::{Path, Reading};
use crate::measure::baseline::{PathHistory, StoodRise};
use crate::measure::change::{Began, BootClock, FindingKind, Lasts, RecordFigure, When};
use crate::measure::series::{exact_quantile, Row, Rows};
use crate::measure::verdict::{Change, Origin};
use crate::measure::{Figure, Part};
use crate::time::{MonoTime, Nanos};
use crate::vec_map::VecMap;

/// Blocks at the end of an endless run whose median decides if a change still stands.
const STANDS_BY: usize = 20;

/// Late blocks that were due at the end of an endless run, of which a quarter at most came if their
/// change is over. By chance that happens in under 1 of 100,000 runs.
const LATE_BLOCKS: f64 = 25.0;

/// A change of some blocks that was seen for less is a burst in a run without end.
const TAIL_STANDS: Nanos = Nanos::from_millis(18_000);
/// One of fewer blocks than this share, if no retransmission delayed them, lasts for long before it
/// is named. While a machine has other work, so many of its wake-ups are late for minutes.
const FEW: f64 = 1.0 / 12.0;
pub(super) const FEW_STAND: Nanos = Nanos::from_millis(600_000);
/// A mean that late blocks raise by less than this, and by less than a twentieth, is no change in a
/// run without end: the load of a machine is enough for it.
pub(super) const MATTERS_NS: i64 = 500_000;
/// A change of the median that was seen for less is a burst in a run without end.
pub(super) const LEVEL_STANDS: Nanos = Nanos::from_millis(7_000);

/// A change of an endless run that was named and has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    change: Change,
    since: MonoTime,
    /// It has lasted for long enough, at separate places; else it may be a burst.
    confirmed: bool,
    /// Its beginning by the state, if it was named before this process began.
    earlier: Option<When>,
    /// A later record of the state is without it: it was accepted there.
    accepted: bool,
}

impl Standing {
    fn new(change: Change) -> Self {
        Self {
            change,
            since: change.since.unwrap_or(MonoTime(0)),
            confirmed: false,
            earlier: None,
            accepted: false,
        }
    }

    /// The rise of `part` that stood when the process before this one ended.
    pub(super) fn earlier(history: &PathHistory, part: Part) -> Option<Self> {
        let (
            StoodRise {
                amount, baseline, ..
            },
            since,
        ) = history.stood(part)?;
        let newest = history.records.last()?.when;
        let lasts = Lasts {
            figure: RecordFigure::P50,
            amount,
            baseline,
            per_day: None,
            since,
            first: since,
            episodes: 1,
            further: None,
        };
        let change = Change {
            part,
            origin: Origin::Windows {
                episodes: 1,
                per_day: None,
            },
            figure: Figure::P50,
            kind: FindingKind::Level,
            amount,
            low: amount,
            high: amount,
            baseline,
            since: None,
            began: Began::default(),
            until: None,
            burst: false,
            direction: history.direction(part, &lasts, newest),
            reads_late: false,
        };
        Some(Self {
            confirmed: true,
            earlier: Some(since),
            ..Self::new(change)
        })
    }

    /// The rise as the record of a window that began at `when` keeps it.
    pub(super) fn stood(&self, when: When, clock: BootClock) -> Option<StoodRise> {
        let Change {
            amount, baseline, ..
        } = self.change;
        let is_level = self.change.kind == FindingKind::Level;
        let before_ms = self.before(when, clock)? / 1_000_000;
        (self.confirmed && is_level && !self.accepted).then_some(StoodRise {
            amount,
            baseline,
            before_ms,
        })
    }

    /// Both are of about as many of the blocks.
    fn is_like(&self, other: &Self) -> bool {
        let share = |of: &Self| match of.change.kind {
            FindingKind::Level => None,
            FindingKind::Tail { share, .. } => Some(share),
        };
        let shares = share(self).zip(share(other));
        shares.is_some_and(|(one, other)| one.max(other) <= 2.0 * one.min(other))
    }

    /// Nanoseconds from its beginning to `when`.
    fn before(&self, when: When, clock: BootClock) -> Option<i64> {
        if let Some(since) = self.earlier {
            return Some(when.since(&since)?.0 as i64);
        }
        let since = self.since + clock.ahead;
        Some((when.mono.0 as i64).wrapping_sub(since.0 as i64))
    }

    /// Looks if the state has a record since that is without it. One that was named late is
    /// without it for a window.
    pub(super) fn follow(&mut self, history: &PathHistory, clock: BootClock) {
        let newest = history.records.last();
        let newest = newest.and_then(|record| Some((record, record.parts.get(&self.change.part)?)));
        let Some((record, figures)) = newest.filter(|_| self.confirmed) else {
            return;
        };
        let later = self.before(record.when, clock).unwrap_or(0);
        self.accepted |= figures.rise.is_none() && later > record.window.0 as i64;
    }

    /// Dates the change by the state, if it is older than this process.
    pub(super) fn date(&self, history: &PathHistory, now: When, change: &mut Change) {
        if let Some(since) = self.earlier {
            if change.since.is_none() {
                change.began = history.began(since, now);
            }
        }
    }
}

/// Keeps the changes of an endless run that last, although the search looks back on its latest
/// blocks alone. All others are bursts: those that ended, and those that may end soon.
pub(super) fn stand(path: &Path, standing: &mut VecMap<Part, Standing>, found: &mut [PartChanges]) {
    let end = path.rows.latest();
    for part in found {
        let Some((_, column)) = path.part(part.part) else {
            continue;
        };
        let lasts = |change: &&Change| {
            change.until.is_none() && change.amount.0 > 0 && change.since.is_some()
        };
        let level = |change: &&Change| change.kind == FindingKind::Level;
        let lasting = || part.changes.iter().filter(lasts);
        let again = lasting().find(level).or_else(|| lasting().next()).copied();
        let known = standing.get(&part.part).copied();
        let known = known.filter(|known| !is_over(&path.rows, column, known, part));
        // Until it is confirmed, the search of more blocks knows it better. Late blocks that were
        // confirmed are nothing beside a level that has risen by more.
        let is_level = |change: &Change| {
            change.kind == FindingKind::Level
                && change.since.is_some_and(|at| end.since(at) >= LEVEL_STANDS)
        };
        let outgrown = |known: &Standing, again: &Change| {
            known.change.kind != FindingKind::Level
                && is_level(again)
                && again.amount > known.change.amount
        };
        let known = match (known, again) {
            (Some(known), Some(again)) if outgrown(&known, &again) => Some(Standing::new(again)),
            (Some(known), _) if known.confirmed => Some(known),
            (Some(known), Some(again)) => {
                let mut again = Standing::new(again);
                if known.is_like(&again) {
                    // The search looks back on the latest blocks alone.
                    again.since = again.since.min(known.since);
                    again.change.since = Some(again.since);
                }
                Some(again)
            }
            (known, again) => again.map(Standing::new).or(known),
        };
        for change in &mut part.changes {
            change.burst |= change.since.is_some_and(|since| match change.kind {
                FindingKind::Level => change.until.is_some() || end.since(since) < LEVEL_STANDS,
                FindingKind::Tail { .. } => true,
            });
        }
        let Some(mut known) = known else {
            standing.remove(&part.part);
            continue;
        };
        known.confirmed = known.confirmed || is_lasting(&path.rows, column, &known, end);
        standing.insert(part.part, known);
        if !known.confirmed {
            continue;
        }
        // A further rise of the same part is one more finding; the one that stands stays first.
        part.changes.retain(|change| {
            change.amount.0 < 0 || change.burst || change.since > Some(known.since)
        });
        part.changes.insert(0, known.change);
        part.baseline = Some(known.change.baseline);
        part.increase = Some(known.change.amount);
    }
}

/// A change has lasted for so long that it is no burst: one of some blocks is frequent in each
/// fifth of it.
fn is_lasting(rows: &Rows, column: usize, known: &Standing, end: MonoTime) -> bool {
    let lasted = end.since(known.since);
    let FindingKind::Tail {
        share,
        later_by,
        retransmitted,
    } = known.change.kind
    else {
        return lasted >= LEVEL_STANDS;
    };
    let Change {
        amount, baseline, ..
    } = known.change;
    let stands = match retransmitted || share >= FEW {
        true => TAIL_STANDS,
        false => FEW_STAND,
    };
    if lasted < stands || amount.0 < MATTERS_NS.min(baseline.0 / 20) {
        return false;
    }
    let read = Reading {
        column,
        ..Reading::default()
    };
    let late = known.change.baseline.0 + later_by.signed().0 / 2;
    let inside = rows.searched().filter(|row| row.at >= known.since.0);
    let inside = inside.filter_map(|row| read.of(row.at, row.cells));
    let inside: Vec<bool> = inside.map(|delay| delay > late).collect();
    let fifth = inside.len().div_ceil(5).max(1);
    inside.len() >= 5
        && inside.chunks(fifth).all(|part| {
            let count = part.iter().filter(|late| **late).count();
            count as f64 >= share / 2.0 * part.len() as f64
        })
}

/// A change is over if the latest blocks are nearer to the baseline than to the level that was
/// named.
fn is_over(rows: &Rows, column: usize, known: &Standing, part: &PartChanges) -> bool {
    let read = Reading {
        column,
        ..Reading::default()
    };
    let latest: Vec<Row<'_>> = rows.searched().collect();
    let value = |row: &Row<'_>| read.of(row.at, row.cells);
    let half = known
        .change
        .baseline
        .0
        .saturating_add(known.change.amount.0 / 2);
    match known.change.kind {
        FindingKind::Level => {
            let mut latest: Vec<i64> = latest
                .iter()
                .rev()
                .filter_map(value)
                .take(STANDS_BY)
                .collect();
            exact_quantile(&mut latest, 0.5).is_some_and(|now| now < half)
        }
        // Late blocks are over where hardly one came among so many that 25 were due, where a fall
        // was found, or where the search sees none that last.
        FindingKind::Tail {
            share, later_by, ..
        } => {
            let due = (LATE_BLOCKS / share.max(f64::MIN_POSITIVE)).ceil() as usize;
            let late = known
                .change
                .baseline
                .0
                .saturating_add(later_by.signed().0 / 2);
            let recent = || {
                latest
                    .iter()
                    .rev()
                    .take_while(|row| row.at >= known.since.0)
            };
            let recent = || recent().filter_map(value).take(due);
            let came = recent().filter(|value| *value > late).count();
            if recent().count() == due && came as f64 <= LATE_BLOCKS / 4.0 {
                return true;
            }
            let fell = part.changes.iter().any(|change| change.amount.0 < 0);
            let lasts = |change: &Change| change.amount.0 > 0 && change.until.is_none();
            let seen = part.changes.iter().any(lasts);
            let mut latest: Vec<i64> = latest
                .iter()
                .rev()
                .filter_map(value)
                .take(50 * STANDS_BY)
                .collect();
            let sum: i128 = latest.iter().map(|value| i128::from(*value)).sum();
            let mean = sum / (latest.len().max(1) as i128);
            latest.clear();
            (fell || !seen) && mean < i128::from(half)
        }
    }
}
