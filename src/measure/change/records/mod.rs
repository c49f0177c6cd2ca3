//! The records of a run without end, one per window. They show the usual delay by the hour of the
//! week, rises against it, and rises that are over.
//!
//! The expected value of a record is that of the same hour on earlier days, else that of the last
//! 24 records. The rest is measured in spreads, of its own last 288 values, and scanned for a rise
//! that began 3 to 96 windows ago. While a part is named nothing of it is learnt. Prewhitening by
//! the autocorrelation makes three windows enough. Over long spans the plain sum decides, since a
//! small error of the autocorrelation spoils the prewhitened one.

mod cells;
mod scan;
mod series;
mod text;

use super::math::median;
use super::Figures;
use crate::time::{MonoTime, Nanos, Now, SignedNanos, WallTime};
use cells::{Cells, Moment};
use series::{clipped, micros, Measured, Series, CLIP, MOST_SPREADS, NO_RECORD, PLACES, RESIDUALS};

/// A part that is named again so soon after it was over has one finding.
const MERGED: Nanos = Nanos(24 * 3600 * 1_000_000_000);
/// A rise that lasts for so long is the new normal.
pub const NEW_NORMAL: Nanos = Nanos(7 * 24 * 3600 * 1_000_000_000);
/// A clock before 2020 is not set.
const CLOCK_SET: u64 = 1_577_836_800 * 1_000_000_000;
/// Clocks that differ by more were stepped.
const STEP: u64 = 60 * 1_000_000_000;
const HOUR_S: i64 = 3600;

/// The beginning of a window, on the clocks of the node that keeps the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// The wall clock, set or not.
    pub wall: WallTime,
    /// Seconds by which the hours of the records are ahead of UTC; this program writes 0.
    pub utc_offset: i32,
    /// The boot that the monotonic clock counts from.
    pub boot: u64,
    /// The monotonic clock.
    pub mono: MonoTime,
}

impl When {
    /// The wall clock reads a time from 2020 on.
    pub fn is_clock_set(&self) -> bool {
        self.wall.0 >= CLOCK_SET
    }

    /// Time from `earlier` to `self`: by the monotonic clock within a boot, else by wall clocks if
    /// both are set; `None` otherwise.
    pub fn since(&self, earlier: &Self) -> Option<Nanos> {
        if self.boot == earlier.boot {
            Some(self.mono.since(earlier.mono))
        } else if self.is_clock_set() && earlier.is_clock_set() {
            Some(Nanos(self.wall.0.saturating_sub(earlier.wall.0)))
        } else {
            None
        }
    }

    /// The same moment later by `by`.
    pub fn after(&self, by: Nanos) -> Self {
        Self {
            wall: WallTime(self.wall.0.saturating_add(by.0)),
            mono: MonoTime(self.mono.0.saturating_add(by.0)),
            ..*self
        }
    }

    /// The same moment earlier by `by`.
    pub fn before(&self, by: Nanos) -> Self {
        let mono = MonoTime(self.mono.0.saturating_sub(by.0));
        Self {
            wall: self.wall.before(by),
            mono,
            ..*self
        }
    }
}

/// The clock of a boot against the monotonic clock of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootClock {
    /// The boot.
    pub boot: u64,
    /// Nanoseconds by which its clock, which counts time asleep too, is ahead.
    pub ahead: Nanos,
}

impl BootClock {
    /// The same moment as records have it.
    pub fn when(&self, now: Now) -> When {
        When {
            wall: now.wall,
            utc_offset: 0,
            boot: self.boot,
            mono: now.mono + self.ahead,
        }
    }
}

/// The time at which a change began, by the clock as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Began {
    /// `None` if a boot or a clock that was not set lies between.
    pub since: Option<WallTime>,
    /// The earliest known time that is not before the beginning; `None` if `since` is known.
    pub at_most: Option<WallTime>,
}

/// The figure of a record by which a part is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFigure {
    /// The median.
    P50,
    /// The mean.
    Mean,
    /// The 95th percentile.
    P95,
}

const FIGURES: [RecordFigure; 3] = [RecordFigure::P50, RecordFigure::Mean, RecordFigure::P95];

/// A rise that lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lasts {
    /// The figure that named it: the median before the mean before the 95th percentile.
    pub figure: RecordFigure,
    /// Its size when it was named.
    pub amount: SignedNanos,
    /// The level that was expected then.
    pub baseline: SignedNanos,
    /// It rose without an edge; by so much a day. `None` for one that rose at once.
    pub per_day: Option<SignedNanos>,
    /// The first window of it.
    pub since: When,
    /// The first window of the first of its episodes, which are less than a day apart.
    pub first: When,
    /// Episodes, at least 1: a part that is slow in the busy hours of four days has 4.
    pub episodes: u16,
    /// A further rise since, on top of `amount`.
    pub further: Option<SignedNanos>,
}

/// The change that a record brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RecordEvent {
    /// The part is named from now on.
    Named,
    /// It rose further.
    Further,
    /// It is over.
    Cleared,
    /// It fell by so much below what was usual.
    Fell(SignedNanos),
    /// The level is the new normal: a rise lasted for a week, or a fall for 288 windows.
    NewNormal,
}

/// A finding that lasts, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    figure: usize,
    /// Microseconds, as all below.
    amount: i32,
    further: i32,
    /// A day; `i32::MIN` for a rise with an edge.
    per_day: i32,
    /// The level expected when it was named.
    kept: i32,
    since: When,
    first: When,
    episodes: u16,
}

/// A fall of the median that has not lasted for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fallen {
    /// Microseconds, positive.
    amount: i32,
    windows: u16,
}

/// The clock that the hours of the cells are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    /// There are no cells yet.
    Open,
    /// The wall clock: weekdays are known.
    Wall,
    /// The monotonic clock of a boot whose wall clock was never set.
    Boot(u64),
}

/// The records of one part: [`RecordWatch::push`] takes one per window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordWatch {
    window: Nanos,
    series: [Series; 3],
    named: Option<Named>,
    fallen: Option<Fallen>,
    /// First window and episodes of the finding that ended last, and when it did.
    ended: Option<(When, u16, When)>,
    last: Option<When>,
    basis: Basis,
    /// The hour under way, since a Monday at midnight.
    hour: Option<i64>,
    /// Records, modulo 6: long spans are looked at each sixth time.
    phase: u8,
}

impl RecordWatch {
    /// For windows of `window`.
    pub fn new(window: Nanos) -> Self {
        Self {
            window,
            series: [(); 3].map(|()| Series::new()),
            named: None,
            fallen: None,
            ended: None,
            last: None,
            basis: Basis::Open,
            hour: None,
            phase: 0,
        }
    }

    /// Returns its memory, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.series.iter().map(Series::memory).sum::<usize>()
    }

    /// The finding that lasts.
    pub fn lasts(&self) -> Option<Lasts> {
        let us = |value: i32| SignedNanos(i64::from(value) * 1000);
        self.named.map(|named| Lasts {
            figure: FIGURES[named.figure],
            amount: us(named.amount),
            baseline: us(named.kept),
            per_day: (named.per_day != i32::MIN).then(|| us(named.per_day)),
            since: named.since,
            first: named.first,
            episodes: named.episodes,
            further: (named.further > 0).then(|| us(named.further)),
        })
    }

    /// Uses windows of another length from now on: the levels of hours stay, what varies from
    /// window to window is learnt anew.
    pub fn set_window(&mut self, window: Nanos) {
        if self.window != window {
            self.window = window;
            for series in &mut self.series {
                series.restart();
                series.residuals.clear();
                series.recent.clear();
            }
        }
    }

    /// Makes the level since the change the usual one. Without a change nothing happens.
    pub fn accept(&mut self) {
        if self.named.take().is_some() {
            self.ended = None;
            self.series.iter_mut().for_each(Series::forget_levels);
            self.basis = Basis::Open;
        }
    }

    /// Takes the record of the window that began at `when`. Windows without blocks have none.
    pub fn push(&mut self, when: When, record: &Figures) -> Option<RecordEvent> {
        if self.is_gap(&when) {
            self.series.iter_mut().for_each(Series::restart);
        }
        self.last = Some(when);
        self.phase = (self.phase + 1) % 6;
        let moment = self.moment(&when);
        let values = [record.p50, record.mean, record.p95].map(|value| value.0 as f64 / 1e3);
        let mut measured = Vec::with_capacity(3);
        for (place, (series, value)) in self.series.iter_mut().zip(values).enumerate() {
            let kept = self.named.filter(|named| named.figure == place);
            let kept = kept.map(|named| f64::from(named.kept));
            let held = self.named.is_some() || self.fallen.is_some();
            let mut of = series.measure(value, moment, kept, held);
            of.reading.bursts = place > 0;
            of.reading.long = self.phase == 0 && !of.jump;
            measured.push(of);
        }
        let event = self.judge(&when, &measured);
        if self.named.is_none() && self.fallen.is_none() {
            let second = moment.map_or(0, |moment| self.begin_in_hour(&moment));
            let place = (second as usize * PLACES / HOUR_S as usize).min(PLACES - 1);
            let sixth = self.phase == 0;
            for (series, of) in self.series.iter_mut().zip(&measured) {
                series.learn(of, place, sixth);
            }
        }
        event
    }

    /// Windows are missing before the one at `when`, or a clock was stepped.
    fn is_gap(&self, when: &When) -> bool {
        let Some(last) = &self.last else {
            return false;
        };
        let by_mono = when.mono.since(last.mono);
        let by_wall = when.wall.0.wrapping_sub(last.wall.0);
        when.boot != last.boot
            || when.mono < last.mono
            || by_mono.0 > self.window.0.saturating_mul(5) / 2
            || by_wall
                .wrapping_sub(by_mono.0)
                .min(by_mono.0.wrapping_sub(by_wall))
                > STEP
    }

    /// Places the window's middle in the week; ends the hour before it. `None` if the clock
    /// that the cells are counted by is not known.
    fn moment(&mut self, when: &When) -> Option<Moment> {
        let basis = if when.is_clock_set() {
            Basis::Wall
        } else {
            Basis::Boot(when.boot)
        };
        let is_usable = match (self.basis, basis) {
            (Basis::Open, _) => true,
            // Hours by the wall clock are better than those by a boot, of which one knows no more
            // after it.
            (Basis::Boot(_), Basis::Wall) => {
                self.forget_hours();
                true
            }
            (Basis::Boot(old), Basis::Boot(new)) if old != new => {
                self.forget_hours();
                true
            }
            (Basis::Wall, Basis::Boot(_)) => false,
            _ => true,
        };
        if !is_usable {
            self.hour = None;
            return None;
        }
        self.basis = basis;
        let weekday = basis == Basis::Wall;
        let begin = if weekday {
            // The epoch was a Thursday.
            (when.wall.0 / 1_000_000_000) as i64 + i64::from(when.utc_offset) + 72 * HOUR_S
        } else {
            (when.mono.0 / 1_000_000_000) as i64
        };
        let hour = begin.div_euclid(HOUR_S);
        if let Some(old) = self.hour.filter(|old| *old != hour) {
            let windows = HOUR_S as u64 * 1_000_000_000 / self.window.0.max(1);
            let fewest = (windows.clamp(1, PLACES as u64) as usize).div_ceil(2);
            for series in &mut self.series {
                series.end_hour(old, weekday, fewest);
            }
        }
        self.hour = Some(hour);
        let half = (self.window.0 / 2_000_000_000) as u32;
        let second = begin.rem_euclid(HOUR_S) as u32 + half.min(HOUR_S as u32);
        Some(Moment {
            hour,
            second,
            weekday,
        })
    }

    /// Seconds into the hour at which the window began.
    fn begin_in_hour(&self, moment: &Moment) -> u32 {
        let half = (self.window.0 / 2_000_000_000) as u32;
        moment.second.saturating_sub(half.min(HOUR_S as u32))
    }

    fn forget_hours(&mut self) {
        self.hour = None;
        for series in &mut self.series {
            series.hour = [NO_RECORD; PLACES];
            series.cells = Cells::new();
        }
    }

    /// Names the part, or ends or changes what is named.
    fn judge(&mut self, when: &When, measured: &[Measured]) -> Option<RecordEvent> {
        let Some(named) = &mut self.named else {
            return self.name(when, measured);
        };
        let Measured {
            z, wide, reading, ..
        } = &measured[named.figure];
        let spreads = |by: i32| (f64::from(by) / wide).min(MOST_SPREADS);
        let less = |by: i32| clipped(z, spreads(by));
        if reading.is_over(&less(named.amount), spreads(named.amount).min(CLIP)) {
            self.ended = Some((named.first, named.episodes, *when));
            self.named = None;
            self.drop_all_but_latest();
            return Some(RecordEvent::Cleared);
        }
        let all = named.amount.saturating_add(named.further);
        let further = reading.rise(&less(all)).filter(|rise| rise.edge);
        if let Some(rise) = further {
            let latest = z[z.len() - rise.span..].iter().map(|z| (z * wide) as i64);
            let by = median(&mut latest.collect::<Vec<_>>()) - f64::from(all);
            named.further = named.further.saturating_add(micros(by).max(1));
            return Some(RecordEvent::Further);
        }
        let lasted = when.since(&named.since)?;
        (lasted >= NEW_NORMAL).then(|| {
            self.accept();
            RecordEvent::NewNormal
        })
    }

    fn name(&mut self, when: &When, measured: &[Measured]) -> Option<RecordEvent> {
        let rises = measured
            .iter()
            .map(|of| of.reading.rise(&clipped(&of.z, 0.0)));
        let first = rises
            .enumerate()
            .find_map(|(figure, rise)| Some((figure, rise?)));
        let Some((figure, rise)) = first else {
            return self.fall(measured);
        };
        let amount = self.series[figure]
            .amount(&measured[figure], rise.span)
            .max(1);
        let since = when.before(Nanos(self.window.0.saturating_mul(rise.span as u64 - 1)));
        let merged = self
            .ended
            .filter(|(_, _, end)| when.since(end).is_some_and(|t| t <= MERGED));
        let (first, episodes) = merged.map_or((since, 1), |(first, episodes, _)| {
            (first, episodes.saturating_add(1))
        });
        let slow = rise.span >= 12 && !rise.edge;
        self.fallen = None;
        self.named = Some(Named {
            figure,
            amount,
            further: 0,
            per_day: if slow {
                micros(self.series[figure].per_day(self.window))
            } else {
                i32::MIN
            },
            kept: micros(measured[figure].expected),
            since,
            first,
            episodes,
        });
        Some(RecordEvent::Named)
    }

    /// A fall with an edge below what the hours were. For a day it is no more than that: a level
    /// that returns to the usual has not risen. Then it is the new level.
    fn fall(&mut self, measured: &[Measured]) -> Option<RecordEvent> {
        let Measured {
            z,
            wide,
            reading,
            jump,
            ..
        } = &measured[0];
        let below = |by: f64| {
            z.iter()
                .map(|z| (-z - by).clamp(-CLIP, CLIP))
                .collect::<Vec<_>>()
        };
        let Some(fallen) = &mut self.fallen else {
            let fall = reading
                .rise(&below(0.0))
                .filter(|fall| fall.edge && !jump)?;
            let amount = self.series[0]
                .amount(&measured[0], fall.span)
                .min(-1)
                .saturating_neg();
            self.fallen = Some(Fallen { amount, windows: 0 });
            return Some(RecordEvent::Fell(SignedNanos(i64::from(amount) * 1000)));
        };
        let spreads = (f64::from(fallen.amount) / wide).min(MOST_SPREADS);
        if reading.is_over(&below(spreads), spreads.min(CLIP)) {
            self.fallen = None;
            self.drop_all_but_latest();
            return None;
        }
        fallen.windows += 1;
        if usize::from(fallen.windows) < RESIDUALS {
            return None;
        }
        self.fallen = None;
        for (series, of) in self.series.iter_mut().zip(measured) {
            let by = scan::median(&mut of.z.clone()) * of.wide;
            series.cells.shift(micros(by.min(0.0)));
            series.recent.clear();
            series.restart();
        }
        Some(RecordEvent::NewNormal)
    }

    /// Drops the records in spreads of a change that is over, which would be a change again.
    fn drop_all_but_latest(&mut self) {
        for series in &mut self.series {
            let over = series.spreads.len().saturating_sub(3);
            series.spreads.drain(..over);
        }
    }
}
