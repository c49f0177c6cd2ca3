//! The usual level by the hour of the week: two sets of cells, and hours between whose middles the
//! level goes straight.

/// No value.
const NONE: i32 = i32::MIN;
/// Hours of a week, and of a working day and a weekend day.
pub(super) const WEEK: usize = 168;
pub(super) const DAYS: usize = 48;
/// Hours that a cell is the mean of, at most: those of a week change slower.
const WEEKS_KEPT: i32 = 4;
const DAYS_KEPT: i32 = 5;

/// The place of a record in the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Hours since a Monday at midnight, of any week.
    pub(super) hour: i64,
    /// Seconds into the hour of the record's middle; may be 3600 or more.
    pub(super) second: u32,
    /// Weekdays are known: working days and weekends differ.
    pub(super) weekday: bool,
}

impl Moment {
    fn week(hour: i64) -> usize {
        hour.rem_euclid(WEEK as i64) as usize
    }

    fn day(hour: i64) -> usize {
        let weekend = hour.div_euclid(24).rem_euclid(7) >= 5;
        hour.rem_euclid(24) as usize + if weekend { 24 } else { 0 }
    }
}

/// The level expected at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Expected {
    /// Microseconds.
    pub(super) level: f64,
    /// Of the hours beside it: the larger difference.
    pub(super) slope: f64,
    /// Hours of earlier days that it is the mean of.
    pub(super) days: u32,
}

/// Cells of one figure, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cells {
    /// Value and how many hours it is the mean of: of the week, then of the two kinds of days.
    pub(super) cells: Box<[(i32, u8); WEEK + DAYS]>,
}

impl Cells {
    pub(super) fn new() -> Self {
        Self {
            cells: Box::new([(NONE, 0); WEEK + DAYS]),
        }
    }

    /// Mean of both cells of an hour by their counts, and the counts' sum; `None` without any.
    fn at(&self, hour: i64, weekday: bool) -> Option<(f64, u32)> {
        let (week, weeks) = self.cells[Moment::week(hour)];
        let (day, mut days) = self.cells[WEEK + Moment::day(hour)];
        days = if weekday { days } else { 0 };
        let count = u32::from(weeks) + u32::from(days);
        let sum = f64::from(week) * f64::from(weeks) + f64::from(day) * f64::from(days);
        (count > 0).then(|| (sum / f64::from(count), count))
    }

    pub(super) fn expected(&self, moment: Moment) -> Option<Expected> {
        let (here, days) = self.at(moment.hour, moment.weekday)?;
        let beside = |by| {
            self.at(moment.hour + by, moment.weekday)
                .map_or(here, |cell| cell.0)
        };
        let (before, after) = (beside(-1), beside(1));
        let place = f64::from(moment.second) / 3600.0 - 0.5;
        let level = here
            + if place > 0.0 {
                place * (after - here)
            } else {
                place * (here - before)
            };
        let slope = (after - here).abs().max((here - before).abs());
        Some(Expected { level, slope, days })
    }

    /// Learns the median of an hour's accepted records.
    pub(super) fn learn(&mut self, hour: i64, weekday: bool, median: i32) {
        let places = [
            (Moment::week(hour), WEEKS_KEPT),
            (WEEK + Moment::day(hour), DAYS_KEPT),
        ];
        for (place, most) in places {
            if place >= WEEK && !weekday {
                continue;
            }
            let (value, count) = &mut self.cells[place];
            if *count == 0 {
                *value = median;
            } else {
                let by = (i32::from(*count) + 1).min(most);
                *value += median.saturating_sub(*value) / by;
            }
            *count = count.saturating_add(1).min(200);
        }
    }

    /// Moves all of it by `by` microseconds: the level fell, the rhythm stays.
    pub(super) fn shift(&mut self, by: i32) {
        for (value, count) in self.cells.iter_mut() {
            if *count > 0 {
                *value = value.saturating_add(by);
            }
        }
    }
}
