//! Rows in order of time, one value per part of the path, kept in bounded memory and cut into time
//! batches.
//!
//! A full store drops a seeded random half of its rows. From then on it takes each row with
//! probability 1/2 (1/4, ...). Every second row by count would bias the sample: a delay that hits
//! every second block would be in all rows or in none.

use super::histogram::nearest_rank;
use crate::time::MonoTime;

/// Number of rows kept; fewer on paths of many nodes, where [`CELLS`] is the bound.
const ROWS: usize = 16_384;
/// Number of values kept in one store (8 MiB).
const CELLS: usize = 1 << 20;
/// Number of blocks left out at the start of a path, for connects and cold caches.
pub(super) const WARM_UP: u32 = 3;
/// Number of equal time batches of the baseline and of the current part.
pub(super) const BATCHES: usize = 8;
/// Number of batches in which a compared part may be quiet.
const MIN_BATCHES: usize = 6;
/// Marks a value that does not exist: no delay is minus 292 years.
pub(super) const NONE: i64 = i64::MIN;

/// A bounded store of rows.
#[derive(Debug)]
pub(super) struct Series {
    columns: usize,
    limit: usize,
    times: Vec<u64>,
    values: Vec<i64>,
    /// A row is kept with probability 1 / 2^halvings.
    halvings: u32,
    random: u64,
}

impl Series {
    pub(super) fn new(columns: usize) -> Self {
        let limit = ROWS.min(CELLS / columns.max(1)).max(BATCHES);
        let random = 0x9e37_79b9_7f4a_7c15;
        Self {
            columns,
            limit,
            times: Vec::new(),
            values: Vec::new(),
            halvings: 0,
            random,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    fn push(&mut self, at: u64, row: &[i64]) {
        debug_assert_eq!(row.len(), self.columns);
        if self.halvings > 0 && self.coins() & ((1 << self.halvings) - 1) != 0 {
            return;
        }
        if self.times.len() >= self.limit {
            self.thin();
        }
        self.times.push(at);
        self.values.extend_from_slice(row);
    }

    fn thin(&mut self) {
        let mut kept = 0;
        for row in 0..self.times.len() {
            if self.coins() & 1 == 0 {
                self.times[kept] = self.times[row];
                let from = row * self.columns;
                self.values
                    .copy_within(from..from + self.columns, kept * self.columns);
                kept += 1;
            }
        }
        kept = kept.min(self.limit - 1);
        self.times.truncate(kept);
        self.values.truncate(kept * self.columns);
        self.halvings = (self.halvings + 1).min(62);
    }

    /// Drops rows from before `start`, once they are a quarter of the store.
    fn forget_before(&mut self, start: u64) {
        let len = self.times.len();
        if self.times.get(len / 4).map_or(true, |time| *time >= start) {
            return;
        }
        let old = self.times.iter().take_while(|time| **time < start).count();
        self.times.drain(..old);
        self.values.drain(..old * self.columns);
        if self.times.len() < self.limit / 4 {
            self.halvings = self.halvings.saturating_sub(1);
        }
    }

    /// xorshift64*: random enough to pick rows, and the same in every run.
    fn coins(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 1
    }

    fn window(&self) -> Option<Window<'_>> {
        let start = *self.times.iter().min()?;
        let end = *self.times.iter().max()?;
        Some(Window {
            series: self,
            start,
            end,
        })
    }
}

/// The rows of a store from `start` to `end`, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    series: &'a Series,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The way a column is read: raw, or a one-way difference without the skew of its clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    pub(super) column: usize,
    /// Columns to add, or to subtract (`-1`), in the rows in which they have a value.
    pub(super) terms: [Option<(usize, i64)>; 2],
    /// Time before which rows are of another pair of clocks.
    pub(super) since: MonoTime,
    /// Skew to subtract after `since`, in nanoseconds per nanosecond.
    pub(super) rate: f64,
}

impl Reading {
    fn of(&self, row: &[i64]) -> Option<i64> {
        let value = |column: usize| row.get(column).copied().filter(|value| *value != NONE);
        let terms = self.terms.iter().flatten();
        let terms = terms.filter_map(|(column, sign)| Some(value(*column)?.wrapping_mul(*sign)));
        Some(terms.fold(value(self.column)?, i64::wrapping_add))
    }
}

impl<'a> Window<'a> {
    /// The rows with their times.
    pub(super) fn all(self) -> impl Iterator<Item = (u64, &'a [i64])> {
        let rows = self.series.values.chunks_exact(self.series.columns.max(1));
        let rows = self.series.times.iter().copied().zip(rows);
        rows.filter(move |(time, _)| (self.start..=self.end).contains(time))
    }

    /// The number of rows.
    pub(super) fn rows(self) -> usize {
        self.all().count()
    }

    /// Returns `true` if at least `share` of the rows have a value in each of `columns`.
    pub(super) fn knows(self, columns: &[usize], share: f64) -> bool {
        let known = |row: &[i64]| {
            columns
                .iter()
                .all(|c| row.get(*c).is_some_and(|v| *v != NONE))
        };
        let known = self.all().filter(|(_, row)| known(row)).count();
        known > 0 && known as f64 >= self.rows() as f64 * share
    }

    pub(super) fn values(self, read: Reading) -> impl Iterator<Item = (u64, i64)> + 'a {
        let rows = self.all().filter(move |(time, _)| *time >= read.since.0);
        rows.filter_map(move |(time, row)| {
            let value = read.of(row)?;
            let age = time - read.since.0;
            // A rate of 0 has to leave the value as it is: f64 has 53 bits.
            let drift = if read.rate == 0.0 {
                0.0
            } else {
                age as f64 * read.rate
            };
            Some((time, value.saturating_sub(drift.round() as i64)))
        })
    }

    /// Returns the quantile of each of `batches` equal time batches with `needed` values; none if
    /// too many batches lack them.
    pub(super) fn quantiles(
        self,
        read: Reading,
        batches: usize,
        share: f64,
        needed: usize,
    ) -> Vec<i64> {
        let mut sorted = vec![Vec::new(); batches];
        let length = u128::from(self.end - self.start) + 1;
        for (time, value) in self.values(read) {
            let batch = u128::from(time - self.start) * batches as u128 / length;
            sorted[batch as usize].push(value);
        }
        let quantiles = sorted.iter_mut().filter(|values| values.len() >= needed);
        let quantiles: Vec<i64> = quantiles
            .filter_map(|values| exact_quantile(values, share))
            .collect();
        let usable = quantiles.len() >= batches.min(MIN_BATCHES);
        if usable {
            quantiles
        } else {
            Vec::new()
        }
    }
}

/// Returns the exact quantile by nearest rank. Sorts `values`.
pub(super) fn exact_quantile(values: &mut [i64], share: f64) -> Option<i64> {
    values.sort_unstable();
    let rank = nearest_rank(share, values.len() as u64)?;
    values.get(rank as usize - 1).copied()
}

/// The rows kept of a run to compare its parts: one store, or a frozen baseline and the most recent
/// span.
#[derive(Debug)]
pub(super) struct History {
    whole: Series,
    recent: Option<(u64, Series)>,
    skipped: u32,
    first: Option<u64>,
}

impl History {
    /// With `span_ns` the first span is frozen as the baseline and the most recent one is kept.
    /// With `None` the whole run is kept.
    pub(super) fn new(columns: usize, span_ns: Option<u64>) -> Self {
        let recent = span_ns.map(|span| (span.max(1), Series::new(columns)));
        Self {
            whole: Series::new(columns),
            recent,
            skipped: 0,
            first: None,
        }
    }

    pub(super) fn push(&mut self, at: MonoTime, row: &[i64]) {
        if self.skipped < WARM_UP {
            self.skipped += 1;
            return;
        }
        let age = at.0.saturating_sub(*self.first.get_or_insert(at.0));
        match &mut self.recent {
            Some((span, recent)) if age >= *span => {
                recent.push(at.0, row);
                recent.forget_before(at.0.saturating_sub(*span));
            }
            _ => self.whole.push(at.0, row),
        }
    }

    /// All rows, store by store.
    pub(super) fn all(&self) -> impl Iterator<Item = Window<'_>> {
        let recent = self.recent.iter().filter_map(|(_, recent)| recent.window());
        self.whole.window().into_iter().chain(recent)
    }

    /// Returns the baseline and the current part of the run.
    pub(super) fn parts(&self) -> Option<(Window<'_>, Window<'_>)> {
        let whole = self.whole.window()?;
        if let Some((span, recent)) = &self.recent {
            if let Some(now) = recent.window().filter(|_| recent.len() >= BATCHES * 5) {
                let start = now.start.max(now.end.saturating_sub(*span));
                return Some((whole, Window { start, ..now }));
            }
        }
        let middle = whole.start + (whole.end - whole.start) / 2;
        let end = middle.saturating_sub(1).max(whole.start);
        Some((
            Window { end, ..whole },
            Window {
                start: middle,
                ..whole
            },
        ))
    }

    /// Returns the whole run as the current part, for a baseline from earlier runs.
    pub(super) fn run(&self) -> Option<Window<'_>> {
        self.whole.window()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_is_thinned_evenly_and_stays_within_its_bound() {
        let mut history = History::new(2, None);
        for block in 0..1_000_000 {
            history.push(MonoTime(block), &[i64::from(block % 2 == 0), NONE]);
            assert!(history.whole.len() <= ROWS);
        }
        assert!(history.whole.values.capacity() <= 4 * ROWS);
        let run = history.run().unwrap();
        let mut ones = 0;
        let mut batches = [0; BATCHES];
        for (time, value) in run.values(Reading::default()) {
            ones += value;
            batches[time as usize * BATCHES / 1_000_000] += 1;
        }
        let share = ones as f64 / history.whole.len() as f64;
        assert!((0.47..0.53).contains(&share), "every second block: {share}");
        let (least, most) = (batches.iter().min().unwrap(), batches.iter().max().unwrap());
        assert!(most * 4 < least * 5, "{batches:?}");
        assert_eq!(
            run.values(Reading {
                column: 1,
                ..Reading::default()
            })
            .count(),
            0
        );
    }

    #[test]
    fn a_wide_path_keeps_fewer_rows() {
        let mut series = Series::new(500);
        (0..20_000).for_each(|at| series.push(at, &[1; 500]));
        assert!(series.values.len() <= CELLS && series.len() > 500);
    }

    #[test]
    fn a_frozen_baseline_stays_and_the_most_recent_span_slides() {
        let mut history = History::new(1, Some(10_000));
        for at in 0..100_000 {
            history.push(MonoTime(at), &[at as i64]);
        }
        let (baseline, current) = history.parts().unwrap();
        assert_eq!((baseline.start, baseline.end), (3, 10_002));
        assert_eq!((current.start, current.end), (89_999, 99_999));
        assert!(history.recent.as_ref().unwrap().1.len() < 15_000);
        assert_eq!(
            baseline
                .quantiles(Reading::default(), BATCHES, 0.5, 5)
                .len(),
            BATCHES
        );
    }

    #[test]
    fn the_run_is_halved_by_time_and_a_batch_without_enough_blocks_is_left_out() {
        let mut history = History::new(1, None);
        let times = (0..WARM_UP.into())
            .chain(100..180)
            .chain((180..260).filter(|t| t % 10 < 4));
        times.for_each(|at| history.push(MonoTime(at), &[7]));
        let (baseline, current) = history.parts().unwrap();
        assert_eq!(
            (baseline.start, baseline.end, current.start),
            (100, 175, 176)
        );
        assert_eq!(
            baseline.quantiles(Reading::default(), BATCHES, 0.5, 5),
            [7; BATCHES]
        );
        assert!(current
            .quantiles(Reading::default(), BATCHES, 0.5, 5)
            .is_empty());
        assert_eq!(exact_quantile(&mut [], 0.5), None);
    }
}
