//! The values of a plot over time: rows of a run cut into slots.
//!
//! The rows of an endless run are those of its first span (the baseline) and of its most recent
//! one. If there is a gap between the two, the timeline is the most recent one alone.

use super::series::{exact_quantile, Cells, NONE};
use super::Part;
use crate::time::{MonoTime, Nanos, Now, SignedNanos, WallTime};
use crate::vec_map::VecMap;

/// Number of rows up to which every row may have a slot of its own.
const FEW: usize = 40;
/// Approximate number of rows of a slot beyond that, enough for a p95.
const ROWS_PER_SLOT: usize = 4;

/// The values of one slot of time, exact for the rows that were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Number of rows, at least one.
    pub count: u32,
    /// The smallest value.
    pub min: SignedNanos,
    /// The median.
    pub p50: SignedNanos,
    /// The 95th percentile.
    pub p95: SignedNanos,
    /// The largest value.
    pub max: SignedNanos,
}

/// One part over the slots; `None` if no block of the slot was answered, or a clock was stepped in
/// it.
pub type Line = Vec<Option<Slot>>;

/// An event of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineEvent {
    /// Time on the origin's wall clock.
    pub at: WallTime,
    /// The kind of event.
    pub kind: EventKind,
}

/// The kind of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The clock of the node at this hop was stepped. Only the latest step of each node is listed.
    ClockStep(u8),
    /// A sentence of the report. A peer may have written parts of it: escape it.
    Notice(String),
}

/// A run, or the most recent part of one, cut into slots of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Start of the first slot, on the origin's wall clock.
    pub start: WallTime,
    /// Length of one slot, at least 1 ns.
    pub slot: Nanos,
    /// The sum of all parts of a block, with as many slots as every other line.
    pub total: Line,
    /// Round trips, in order of the path.
    pub segments: Vec<Line>,
    /// Residences, both ways together, in order of the path.
    pub hosts: Vec<Line>,
    /// Connects, and what lies behind the last node that stamps.
    pub others: VecMap<Part, Line>,
    /// The events, in order of time.
    pub events: Vec<TimelineEvent>,
}

impl Timeline {
    /// Returns the end of the last slot.
    pub fn end(&self) -> WallTime {
        let slots = self.total.len() as u64;
        self.start + Nanos(self.slot.0.saturating_mul(slots)).signed()
    }
}

/// The cut of rows into `slots` of `length` nanoseconds from `start`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    start: u64,
    length: u64,
    slots: usize,
}

impl Cut {
    /// Returns the cut of `rows` rows from `start` to `end`, both included, into at most `most`
    /// slots.
    pub(super) fn new(start: u64, end: u64, rows: usize, most: usize) -> Self {
        let slots = most.min((rows / ROWS_PER_SLOT).max(rows.min(FEW))).max(1);
        let length = end.saturating_sub(start) / slots as u64 + 1;
        Self {
            start,
            length,
            slots,
        }
    }

    /// Returns one line: `value` of each row, [`NONE`] if it has none.
    pub(super) fn line<'a>(
        self,
        rows: impl Iterator<Item = (u64, Cells<'a>)>,
        value: impl Fn(Cells<'_>) -> i64,
    ) -> Line {
        let mut values = vec![Vec::new(); self.slots];
        for (at, row) in rows {
            let slot = usize::try_from(at.saturating_sub(self.start) / self.length);
            let value = value(row);
            if let Some(slot) = slot.ok().and_then(|slot| values.get_mut(slot)) {
                slot.extend((value != NONE).then_some(value));
            }
        }
        values.iter_mut().map(|values| slot_of(values)).collect()
    }

    /// Returns the start on the wall clock and the length of a slot.
    pub(super) fn on(self, now: Now) -> (WallTime, Nanos) {
        (wall(MonoTime(self.start), now), Nanos(self.length))
    }
}

/// Converts `at` to the wall clock, by both clocks at `now`.
pub(super) fn wall(at: MonoTime, now: Now) -> WallTime {
    now.wall.before(now.mono.since(at))
}

fn slot_of(values: &mut [i64]) -> Option<Slot> {
    values.sort_unstable();
    let p50 = exact_quantile(values, 0.5)?;
    let p95 = exact_quantile(values, 0.95)?;
    Some(Slot {
        count: u32::try_from(values.len()).unwrap_or(u32::MAX),
        min: SignedNanos(*values.first()?),
        p50: SignedNanos(p50),
        p95: SignedNanos(p95),
        max: SignedNanos(*values.last()?),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Baseline, Model};
    use super::*;
    use crate::measure::tests::simulator::{SimPath, MS};

    fn first(row: Cells<'_>) -> i64 {
        row.get(0).expect("a column")
    }

    #[test]
    fn every_row_is_in_the_slot_of_its_time() {
        let rows: Vec<(u64, [i64; 1])> = (0..1000).map(|at| (500 + at, [at as i64])).collect();
        let cut = Cut::new(500, 1499, rows.len(), 10);
        let line = cut.line(rows.iter().map(|(at, row)| (*at, Cells::Plain(row))), first);
        assert_eq!(line.len(), 10);
        let counts: u32 = line.iter().flatten().map(|slot| slot.count).sum();
        assert_eq!(counts, 1000);
        for (place, slot) in line.iter().enumerate() {
            let slot = slot.expect("rows are even");
            assert_eq!(slot.min.0 / cut.length as i64, place as i64);
            assert!(slot.min <= slot.p50 && slot.p50 <= slot.p95 && slot.p95 <= slot.max);
        }
    }

    #[test]
    fn few_rows_have_slots_of_their_own_and_a_hole_stays_a_hole() {
        let rows: Vec<(u64, [i64; 1])> = [0_u64, 10, 20, 30, 90, 99]
            .iter()
            .map(|&at| (at, [if at == 20 { NONE } else { 7 }]))
            .collect();
        let cut = Cut::new(0, 99, rows.len(), 200);
        let line = cut.line(rows.iter().map(|(at, row)| (*at, Cells::Plain(row))), first);
        assert_eq!(line.len(), 6);
        let there: Vec<_> = line.iter().map(Option::is_some).collect();
        assert_eq!(there, [true, true, false, false, false, true]);
    }

    #[test]
    fn times_on_the_wall_clock_are_counted_back_from_now() {
        let now = Now {
            mono: MonoTime(1_000),
            wall: WallTime(900_000),
        };
        assert_eq!(wall(MonoTime(400), now), WallTime(899_400));
        let one = Cut::new(400, 400, 1, 200);
        assert_eq!(one.on(now), (WallTime(899_400), Nanos(1)));
    }

    /// 1000 blocks over 100 s; at half time B -> C takes 3 ms more, and the clock of Z is stepped
    /// at 70 s.
    fn stepped() -> Timeline {
        let mut path = SimPath::new(4, 1);
        path.interval_ns = 100.0 * MS;
        path.nodes[3].steps.push((70_000.0 * MS, 5.0 * MS, true));
        let mut model = Model::new(Baseline::Run, None, WallTime(0));
        let mut now = Now::default();
        for block in 0..1000 {
            path.delays_ns[1][0] = if block < 500 { 1.0 * MS } else { 4.0 * MS };
            let trip = path.trip(block);
            now.mono = trip.at;
            model.record(&trip).expect("a walk along the path");
        }
        now.wall = WallTime(1_795_253_400_000_000_000);
        model.timeline(100, now).expect("there are rows")
    }

    #[test]
    fn a_change_shows_where_and_when_it_happened() {
        let timeline = stepped();
        assert_eq!((timeline.segments.len(), timeline.hosts.len()), (3, 4));
        let median =
            |line: &Line, slot: usize| line[slot].expect("blocks are even").p50.0 as f64 / MS;
        for (segment, line) in timeline.segments.iter().enumerate() {
            let grown = median(line, 80) - median(line, 20);
            let expected = if segment == 1 { 3.0 } else { 0.0 };
            assert!((grown - expected).abs() < 0.5, "segment {segment}: {grown}");
        }
        // It happened from one slot to the next, in the middle.
        assert!(median(&timeline.segments[1], 46) < 3.0 && median(&timeline.segments[1], 53) > 4.0);
        let parts = timeline.segments.iter().chain(&timeline.hosts);
        let sum: f64 = parts.map(|line| median(line, 20)).sum();
        let total = median(&timeline.total, 20);
        assert!((total - sum).abs() < 0.3, "{total} against {sum}");
        let [step] = &timeline.events[..] else {
            panic!("{:?}", timeline.events);
        };
        assert_eq!(step.kind, EventKind::ClockStep(3));
        let seconds = (step.at - timeline.start).as_millis_f64() / 1e3;
        assert!((68.0..71.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_run_without_end_shows_its_most_recent_span() {
        let mut path = SimPath::new(4, 1);
        path.interval_ns = 5.0 * MS;
        let span = Some(Nanos::from_millis(10_000));
        let mut model = Model::new(Baseline::Run, span, WallTime(0));
        let mut now = Now::default();
        for block in 0..10_000 {
            let trip = path.trip(block);
            now.mono = trip.at;
            model.record(&trip).expect("a walk along the path");
        }
        now.wall = WallTime(1_795_253_400_000_000_000);
        let timeline = model.timeline(100, now).expect("there are rows");
        let length = (timeline.end() - timeline.start).as_millis_f64() / 1e3;
        assert!((9.0..16.0).contains(&length), "{length} s");
    }
}
