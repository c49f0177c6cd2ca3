//! The changes of each part of a path: within the run, against earlier runs, and by windows.

use super::path::{Path, Reading};
use super::standing::{FEW_STAND, LEVEL_STANDS, MATTERS_NS};
use crate::measure::baseline::{direction_of, PathHistory};
use crate::measure::change::{
    Began, Block, BootClock, Changes, Finding, FindingKind, LeastTail, RecordFigure, RecordWatch,
    Search, Shape,
};
use crate::measure::series::{exact_quantile, Rows};
use crate::measure::verdict::{Change, Origin};
use crate::measure::{Direction, Figure, Part, VerdictDirection};
use crate::time::{MonoTime, Nanos, Now, SignedNanos, WallTime};
use crate::vec_map::VecMap;

/// The columns of a part's delays in the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) part: Part,
    pub(super) column: usize,
    /// The bit of blocks that a retransmission delayed; `None` where there is none.
    pub(super) flag: Option<u32>,
}

/// A change that was seen for less is a burst if it is one of some blocks, has ended, or is small.
const LASTS: Nanos = Nanos::from_millis(1_000);
/// A change is small for that if it is by less: the threads of a machine that has other work wake
/// up as late for a part of a second.
const SMALL_NS: u64 = 1_000_000;
/// Latest blocks of a run without end that are searched in batches of eight besides.
const LATEST: usize = 320;

/// All that is known of the changes of one part.
#[derive(Clone, Debug)]
pub(super) struct PartChanges {
    pub(super) part: Part,
    /// Changes that rise or fall, the largest first.
    pub(super) changes: Vec<Change>,
    /// The normal delay: of earlier runs, else of this one beside its changes; `None` for too few
    /// blocks.
    pub(super) baseline: Option<SignedNanos>,
    /// Its 95th percentile, within the run.
    pub(super) baseline_p95: Option<SignedNanos>,
    /// The growth over it, also where nothing is named; `None` without earlier runs and without a
    /// change.
    pub(super) increase: Option<SignedNanos>,
    /// The least change that would have been named; `None` for a run that is too short.
    pub(super) least: Option<Nanos>,
    /// The least delay of some of the blocks, with their share, that would have been named.
    pub(super) least_tail: Option<LeastTail>,
    pub(super) own_blocks: usize,
    /// Earlier runs that it was compared with.
    pub(super) runs: usize,
}

/// Searches the parts of `path`, and of the server behind it, one after the other.
pub(super) fn search_all(
    path: &Path,
    history: Option<&PathHistory>,
    started: WallTime,
    clock_errors: &VecMap<u8, Nanos>,
) -> Vec<PartChanges> {
    let parts = path.parts();
    let mut search = Search::new(parts.len());
    let of = |part| {
        let (_, column) = path.part(part).unwrap_or((&path.behind, usize::MAX));
        let column = Column {
            part,
            column,
            flag: path.flag(part),
        };
        let mut changes = search_part(&mut search, &path.rows, column, history, started);
        for change in &mut changes.changes {
            describe(path, part, change);
            explain_by_retransmissions(path, column, change);
            if let (Origin::Runs(_), Some(history)) = (change.origin, history) {
                let now = path.one_way_medians(part, MonoTime(0), clock_errors);
                let before = history.one_way_before(part, change.began.since);
                change.direction = now.and_then(|now| direction_of(change.amount, &before, &[now]));
            }
        }
        changes
    };
    parts.into_iter().map(of).collect()
}

/// Searches one column of `rows`.
pub(super) fn search_part(
    search: &mut Search,
    rows: &Rows,
    column: Column,
    history: Option<&PathHistory>,
    started: WallTime,
) -> PartChanges {
    fill(search, rows, column, usize::MAX);
    let mut found = search.changes();
    let all = found.findings.is_empty().then(|| search.figures_of_all());
    let earlier = history
        .and_then(|history| history.parts.get(&column.part))
        .cloned();
    let judged = earlier.map(|mut earlier| earlier.judge(search, started));
    let against = judged.and_then(|judged| judged.against);
    add_latest(search, rows, column, &mut found);
    let Column { part, .. } = column;
    let end = rows.latest();
    let mut changes: Vec<Change> = found
        .findings
        .iter()
        .map(|found| within(part, found, end))
        .collect();
    if let Some(against) = against {
        if let Some(named) = against.named {
            changes.push(Change {
                part,
                origin: Origin::Runs(against.runs),
                figure: figure_of(named.kind),
                kind: named.kind,
                amount: named.amount,
                low: named.low,
                high: named.high,
                baseline: against.usual,
                since: None,
                began: judged.map(|judged| judged.began).unwrap_or_default(),
                until: None,
                burst: false,
                direction: None,
                reads_late: false,
            });
        }
    }
    changes.sort_unstable_by_key(|change| std::cmp::Reverse(change.amount.abs()));
    let baseline = against.map(|against| against.usual);
    let beside = found.findings.first().map(|largest| largest.beside);
    let beside = beside.or(all.flatten());
    let baseline = baseline.or(beside.map(|beside| beside.p50));
    let baseline_p95 = beside.map(|beside| beside.p95);
    let increase = against.map(|against| against.amount);
    let lasts = changes.iter().find(|change| change.until.is_none());
    let increase = lasts.map(|change| change.amount).or(increase);
    let least = match (against, found.least) {
        (Some(against), Some(least)) => Some(against.least.min(least.delay)),
        (Some(against), None) => Some(against.least),
        (None, least) => least.map(|least| least.delay),
    };
    PartChanges {
        part,
        changes,
        baseline,
        baseline_p95,
        increase,
        least,
        least_tail: found.least.and_then(|least| least.tail),
        own_blocks: found.own_blocks,
        runs: against.map_or(0, |against| against.runs),
    }
}

/// Searches the latest blocks of a run without end in finer batches, for a rise that has just
/// begun. Blocks that come seldom fill two batches of all only long after that. Only a large one
/// is named so early: the load of a machine makes small ones.
fn add_latest(search: &mut Search, rows: &Rows, column: Column, found: &mut Changes) {
    let is_rise = |found: &Finding| found.until.is_none() && found.amount.0 > 0;
    let is_known = |found: &Finding| is_rise(found) && found.kind == FindingKind::Level;
    let count = rows.searched().len();
    let old = rows.latest_searched(count / 20).next();
    let is_slow = old.is_some_and(|row| rows.latest().since(MonoTime(row.at)) > LEVEL_STANDS);
    if !rows.is_endless() || count <= LATEST || !is_slow || found.findings.iter().any(is_known) {
        return;
    }
    fill(search, rows, column, LATEST);
    let mut levels = search.levels_alone();
    let is_large = |level: &Finding| level.amount.0 >= MATTERS_NS.max(level.beside.p50.0 / 20);
    levels.retain(|level| is_rise(level) && level.shape == Shape::Step && is_large(level));
    if !levels.is_empty() {
        // In longer batches the same blocks look like some that are late.
        found.findings.retain(|found| !is_rise(found));
        found.findings.extend(levels);
    }
}

/// Pushes a column of the latest `most` rows into the search.
pub(super) fn fill(search: &mut Search, rows: &Rows, column: Column, most: usize) {
    search.clear();
    let read = Reading {
        column: column.column,
        ..Reading::default()
    };
    for row in rows.latest_searched(most) {
        if let Some(delay) = read.of(row.at, row.cells) {
            search.push(Block {
                at: MonoTime(row.at),
                delay: SignedNanos(delay),
                connection: row.connection,
                retransmitted: column.flag.is_some_and(|bit| row.flags >> bit & 1 == 1),
            });
        }
    }
}

fn figure_of(kind: FindingKind) -> Figure {
    match kind {
        FindingKind::Level => Figure::P50,
        FindingKind::Tail { .. } => Figure::Mean,
    }
}

/// A change within a run whose latest block was due at `end`.
fn within(part: Part, found: &Finding, end: MonoTime) -> Change {
    let baseline = match found.kind {
        FindingKind::Level => found.beside.p50,
        FindingKind::Tail { .. } => found.beside.mean,
    };
    let is_brief = found.until.unwrap_or(end).since(found.since) < LASTS;
    let may_end = found.kind != FindingKind::Level || found.until.is_some();
    Change {
        part,
        origin: match found.shape {
            Shape::Ramp => Origin::Ramp,
            Shape::Step | Shape::Bump => Origin::Run,
        },
        figure: figure_of(found.kind),
        kind: found.kind,
        amount: found.amount,
        low: found.low,
        high: found.high,
        baseline,
        since: Some(found.since),
        began: Began::default(),
        until: found.until,
        burst: is_brief && (may_end || found.amount.0.unsigned_abs() < SMALL_NS),
        direction: None,
        reads_late: false,
    }
}

/// Marks a change of some blocks as one by retransmissions, if they delayed at least half of those.
fn explain_by_retransmissions(path: &Path, column: Column, change: &mut Change) {
    let (
        Some(flag),
        FindingKind::Tail {
            later_by,
            retransmitted,
            ..
        },
    ) = (column.flag, &mut change.kind)
    else {
        return;
    };
    let read = Reading {
        column: column.column,
        ..Reading::default()
    };
    let late = change.baseline.0.saturating_add(later_by.signed().0 / 2);
    let rows = path.rows.searched();
    let rows = rows.filter(|row| read.of(row.at, row.cells).is_some_and(|delay| delay > late));
    let (mut all, mut flagged) = (0_u32, 0_u32);
    for row in rows {
        all += 1;
        flagged += u32::from(row.flags >> flag & 1 == 1);
    }
    *retransmitted |= all > 0 && flagged * 2 >= all;
}

/// Finds the direction of a segment's change, and if a host's change is one of its wake-up delay.
fn describe(path: &Path, part: Part, change: &mut Change) {
    let Some(since) = change.since else {
        return;
    };
    let until = change.until.map_or(u64::MAX, |until| until.0);
    let window = since.0..until;
    match part {
        Part::Segment { from, to } => {
            let hops = |segment: &super::path::Segment| (segment.from_hop, segment.to_hop);
            let place = path
                .segments
                .iter()
                .position(|segment| hops(segment) == (from, to));
            change.direction = place.and_then(|place| direction(path, place, change, &window));
        }
        Part::Host(hop) => {
            let Some(columns) = path.wake_up_columns(hop) else {
                return;
            };
            let late = columns.map(|column| {
                let read = Reading {
                    column,
                    ..Reading::default()
                };
                grown(&path.rows, read, change.figure, &window).unwrap_or(0)
            });
            let amount = change.amount.0;
            if (late[0] + late[1]).saturating_mul(amount.signum()) >= amount.abs() / 4 * 3 {
                change.reads_late = true;
                change.direction = Some(way_of(amount, late[0], late[1]));
            }
        }
        _ => {}
    }
}

/// The direction in which at least three quarters of a change lie. Known only for clocks that were
/// not stepped meanwhile and cannot have drifted apart by half of the change.
fn direction(
    path: &Path,
    place: usize,
    change: &Change,
    window: &std::ops::Range<u64>,
) -> Option<VerdictDirection> {
    let clock = &path.segments[place].clock;
    let read = |direction| path.one_way(place, direction);
    let since = read(Direction::Forward).since.0;
    let mut middles = [Vec::new(), Vec::new()];
    for row in path.rows.searched().filter(|row| row.at >= since) {
        middles[usize::from(window.contains(&row.at))].push(row.at as i64);
    }
    let [beside, inside] = middles.map(|mut times| exact_quantile(&mut times, 0.5));
    let apart = beside?.abs_diff(inside?);
    if clock.skew().error * apart as f64 * 2.0 > change.amount.0.unsigned_abs() as f64 {
        return None;
    }
    let grown = |direction| grown(&path.rows, read(direction), change.figure, window);
    let (forward, back) = (grown(Direction::Forward)?, grown(Direction::Return)?);
    Some(way_of(change.amount.0, forward, back))
}

/// The amount by which the figure of the rows within `window` is above that of the rows beside it.
fn grown(rows: &Rows, read: Reading, figure: Figure, window: &std::ops::Range<u64>) -> Option<i64> {
    let mut values = [Vec::new(), Vec::new()];
    for row in rows.searched() {
        if let Some(value) = read.of(row.at, row.cells) {
            values[usize::from(window.contains(&row.at))].push(value);
        }
    }
    let [beside, inside] = values.map(|mut values| {
        if values.len() < 5 {
            return None;
        }
        match figure {
            Figure::Mean => {
                let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
                Some((sum / values.len() as i128) as i64)
            }
            Figure::P50 => exact_quantile(&mut values, 0.50),
            Figure::P95 => exact_quantile(&mut values, 0.95),
        }
    });
    Some(inside?.saturating_sub(beside?))
}

pub(in crate::measure) fn way_of(amount: i64, forward: i64, back: i64) -> VerdictDirection {
    // A fall is a rise of the opposite.
    let sign = amount.signum();
    let (amount, forward, back) = (amount.abs(), forward * sign, back * sign);
    let most = amount / 4 * 3;
    match () {
        () if forward >= most && forward > back => VerdictDirection::Forward,
        () if back >= most && back > forward => VerdictDirection::Return,
        () => VerdictDirection::Both,
    }
}

/// Adds the changes of windows that last: those of a run before a restart, those by too few blocks
/// for the search, and slow ones. One that the blocks show too began when the windows have it.
pub(super) fn add_windows(
    history: &PathHistory,
    clock: BootClock,
    now: Now,
    found: &mut [PartChanges],
) {
    let when = clock.when(now);
    for part in found {
        let lasts = history.watches.get(&part.part).and_then(RecordWatch::lasts);
        let Some(lasts) = lasts else {
            continue;
        };
        let began = history.began(lasts.since, when);
        let known =
            |change: &&mut Change| change.until.is_none() && !change.burst && change.amount.0 > 0;
        let found = part.changes.iter_mut().find(known);
        // One that is much smaller is another one.
        if let Some(change) = found.filter(|change| change.amount.0 >= lasts.amount.0 / 2) {
            let near = history.records.last().map_or(0, |last| 2 * last.window.0);
            let since = change.since.map(|at| now.wall.before(now.mono.since(at)));
            let since = since.or(change.began.since).map(|since| since.0);
            // The blocks know the moment better than windows of the same change do.
            let is_same = since.zip(began.since);
            let is_same = is_same.is_some_and(|(one, other)| one.abs_diff(other.0) <= near);
            if lasts.amount.0 >= change.amount.0 / 2 && !is_same {
                (change.since, change.began) = (None, began);
            }
            continue;
        }
        // Windows that lie between are of some blocks too, and know of no retransmissions.
        let is_of_few = lasts.figure != RecordFigure::P50;
        let is_short = when.since(&lasts.since).is_some_and(|it| it < FEW_STAND);
        if is_of_few && is_short {
            continue;
        }
        let further = lasts.further.unwrap_or_default();
        let amount = SignedNanos(lasts.amount.0.saturating_add(further.0));
        let change = Change {
            part: part.part,
            origin: Origin::Windows {
                episodes: lasts.episodes,
                per_day: lasts.per_day,
            },
            figure: match lasts.figure {
                RecordFigure::P50 => Figure::P50,
                RecordFigure::Mean => Figure::Mean,
                RecordFigure::P95 => Figure::P95,
            },
            kind: FindingKind::Level,
            amount,
            low: lasts.amount.min(amount),
            high: amount,
            baseline: lasts.baseline,
            since: None,
            began,
            until: None,
            burst: false,
            direction: history.direction(part.part, &lasts, when),
            reads_late: false,
        };
        part.changes.insert(0, change);
        part.baseline = Some(lasts.baseline);
        part.increase = Some(amount);
    }
}
