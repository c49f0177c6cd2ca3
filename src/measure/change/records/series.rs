//! The records of one figure: what is usual, and how far the latest are from it.

use super::cells::{Cells, Moment};
use super::scan::{Reading, REACH};
use crate::measure::change::math::median;
use crate::measure::change::FLOOR_NS;
use crate::time::Nanos;

/// Residuals kept: a day of windows of five minutes.
pub(super) const RESIDUALS: usize = 288;
/// Records that are compared with where there is no earlier hour, and from how many on.
pub(super) const RECENT: usize = 24;
pub(super) const FEWEST: usize = 6;
/// Residuals from which on there is a spread.
pub(super) const SPREAD_FROM: usize = 18;
/// Less than this is not how a part varies.
pub(super) const FLOOR_US: f64 = FLOOR_NS / 1e3;
/// Of the difference to the hours beside it, added to the spread: no rhythm is on time.
pub(super) const SLOPE: f64 = 0.05;
/// A record counts as at most so many spreads, and in what an autocorrelation is learnt from.
pub(super) const CLIP: f64 = 12.0;
pub(super) const CLIP_RHO: f64 = 3.0;
/// Units of a spread, and of one in autocorrelations, as they are kept. Spreads are kept to 320, so
/// that a rise on top of a large one is seen.
pub(super) const SPREAD_UNITS: f64 = 100.0;
pub(super) const MOST_SPREADS: f64 = 320.0;
pub(super) const RHO_UNITS: f64 = 1e6;
/// Places of an hour, of which the last record is kept.
pub(super) const PLACES: usize = 12;

/// The records of one figure of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Records less what was expected, the oldest first; accepted ones alone.
    pub(super) residuals: Vec<i32>,
    /// Their median, and the robust standard deviation around it, as of the last sixth record.
    pub(super) middle: i32,
    pub(super) spread: i32,
    /// Accepted records.
    pub(super) recent: Vec<i32>,
    /// All records since the last gap in spreads, times [`SPREAD_UNITS`].
    pub(super) spreads: Vec<i16>,
    /// Autocovariance and variance of those, times [`RHO_UNITS`].
    pub(super) covariance: i32,
    pub(super) variance: i32,
    /// Accepted records of the hour under way; [`NO_RECORD`] where there is none.
    pub(super) hour: [i32; PLACES],
    pub(super) cells: Cells,
}

pub(super) const NO_RECORD: i32 = i32::MIN;

/// One record of a figure against what was expected.
pub(super) struct Measured {
    pub(super) value: f64,
    pub(super) residual: f64,
    pub(super) expected: f64,
    pub(super) wide: f64,
    /// There is no earlier hour.
    pub(super) jump: bool,
    /// All records since the last gap, in spreads.
    pub(super) z: Vec<f64>,
    pub(super) reading: Reading,
}

impl Series {
    pub(super) fn new() -> Self {
        Self {
            residuals: Vec::new(),
            middle: 0,
            spread: 0,
            recent: Vec::new(),
            spreads: Vec::new(),
            covariance: (0.5 * RHO_UNITS) as i32,
            variance: RHO_UNITS as i32,
            hour: [NO_RECORD; PLACES],
            cells: Cells::new(),
        }
    }

    /// Returns its memory beside itself, in bytes.
    pub(super) fn memory(&self) -> usize {
        let delays = self.residuals.capacity() + self.recent.capacity();
        delays * size_of::<i32>()
            + self.spreads.capacity() * size_of::<i16>()
            + size_of_val(&*self.cells.cells)
    }

    /// After a gap the records before it are no neighbours.
    pub(super) fn restart(&mut self) {
        self.spreads.clear();
        (self.covariance, self.variance) = ((0.5 * RHO_UNITS) as i32, RHO_UNITS as i32);
    }

    /// Forgets all levels.
    pub(super) fn forget_levels(&mut self) {
        self.restart();
        self.recent.clear();
        self.hour = [NO_RECORD; PLACES];
        self.cells = Cells::new();
    }

    /// Measures a record; `moment` is `None` if cells do not apply. `kept` is the level from before
    /// the figure was named.
    pub(super) fn measure(
        &mut self,
        value: f64,
        moment: Option<Moment>,
        kept: Option<f64>,
        held: bool,
    ) -> Measured {
        let cell = moment.and_then(|moment| self.cells.expected(moment));
        let jump = cell.is_none();
        let recent = || match self.recent.len() {
            FEWEST.. => median_i32(&self.recent),
            _ => value,
        };
        let expected = cell.map_or_else(|| kept.unwrap_or_else(recent), |cell| cell.level);
        let residual = value - expected;
        let (middle, spread) = (f64::from(self.middle), f64::from(self.spread));
        let slope = cell.map_or(0.0, |cell| cell.slope);
        let factor = match cell.map(|cell| cell.days) {
            None => 2.0,
            Some(..=2) => 1.4,
            Some(_) => 1.0,
        };
        let wide = factor * (spread.max(FLOOR_US / 2.0) + SLOPE * slope);
        if self.residuals.len() >= SPREAD_FROM {
            let z = (residual / wide).clamp(-MOST_SPREADS, MOST_SPREADS);
            self.spreads.reserve_exact(REACH - self.spreads.len());
            if self.spreads.len() == REACH {
                self.spreads.remove(0);
            }
            self.spreads.push((z * SPREAD_UNITS) as i16);
        }
        let z: Vec<f64> = self
            .spreads
            .iter()
            .map(|z| f64::from(*z) / SPREAD_UNITS)
            .collect();
        if let ([.., before, now], false, false) = (&z[..], held, jump) {
            let clip = |z: f64| (z - middle / wide).clamp(-CLIP_RHO, CLIP_RHO);
            let (before, now) = (clip(*before), clip(*now));
            let learn = |old: i32, new: f64| {
                let old = f64::from(old);
                (old + (new * RHO_UNITS - old) / RESIDUALS as f64) as i32
            };
            self.covariance = learn(self.covariance, now * before);
            self.variance = learn(self.variance, now * now);
        }
        let learnt = f64::from(self.covariance) / f64::from(self.variance.max(1));
        let learnt = learnt.clamp(0.05, 0.9);
        let reading = Reading {
            rho: if jump { 0.9 } else { learnt },
            slow: if jump {
                0.9
            } else {
                1.0 - (1.0 - learnt) / 2.0
            },
            bursts: false,
            long: false,
            floor: FLOOR_US / wide,
        };
        Measured {
            value,
            residual,
            expected,
            wide,
            jump,
            z,
            reading,
        }
    }

    /// Learns an accepted record.
    pub(super) fn learn(&mut self, measured: &Measured, place: usize, sixth: bool) {
        if self.recent.len() >= FEWEST {
            keep(&mut self.residuals, micros(measured.residual), RESIDUALS);
            if sixth || self.residuals.len() < 60 {
                // Around their own median: a slow rise must not widen it.
                let middle = median_i32(&self.residuals);
                let off = self
                    .residuals
                    .iter()
                    .map(|r| micros((f64::from(*r) - middle).abs()));
                self.spread = micros(1.4826 * median_i32(&off.collect::<Vec<_>>()));
                self.middle = micros(middle);
            }
        }
        keep(&mut self.recent, micros(measured.value), RECENT);
        self.hour[place] = micros(measured.value);
    }

    /// Ends an hour, of which at least `fewest` places have to be accepted for it to be learnt.
    pub(super) fn end_hour(&mut self, hour: i64, weekday: bool, fewest: usize) {
        let known = self
            .hour
            .iter()
            .copied()
            .filter(|value| *value != NO_RECORD);
        let known: Vec<i32> = known.collect();
        if known.len() >= fewest.max(1) {
            self.cells.learn(hour, weekday, micros(median_i32(&known)));
        }
        self.hour = [NO_RECORD; PLACES];
    }

    /// The distance of the last `span` records, the newest of them `now`, from what was expected:
    /// their median, without a bound in spreads.
    pub(super) fn amount(&self, now: &Measured, span: usize) -> i32 {
        let before = self.residuals.len().saturating_sub(span - 1);
        let mut latest = self.residuals[before..].to_vec();
        latest.push(micros(now.residual));
        micros(median_i32(&latest))
    }

    /// By how much the accepted records rise a day: of a day's residuals, the last sixth less the
    /// first, whose middles are five sixths apart.
    pub(super) fn per_day(&self, window: Nanos) -> f64 {
        let n = self.residuals.len();
        let sixth = (n / 6).max(1);
        let (Some(first), Some(last)) =
            (self.residuals.get(..sixth), self.residuals.get(n - sixth..))
        else {
            return 0.0;
        };
        let windows = (n - sixth).max(1) as f64;
        let day = 86_400e9 / window.0.max(1) as f64;
        (median_i32(last) - median_i32(first)) / windows * day
    }
}

/// Pushes to a list of at most `most`, whose oldest goes.
pub(super) fn keep(list: &mut Vec<i32>, value: i32, most: usize) {
    list.reserve_exact(most - list.len());
    if list.len() == most {
        list.remove(0);
    }
    list.push(value);
}

pub(super) fn micros(value: f64) -> i32 {
    // Saturates, at 35 minutes; rounds to the nearest.
    ((value + if value < 0.0 { -0.5 } else { 0.5 }) as i32).max(i32::MIN + 1)
}

pub(super) fn median_i32(values: &[i32]) -> f64 {
    median(
        &mut values
            .iter()
            .map(|value| i64::from(*value))
            .collect::<Vec<_>>(),
    )
}

/// Records in spreads, less `by`, within what one of them counts as.
pub(super) fn clipped(z: &[f64], by: f64) -> Vec<f64> {
    z.iter().map(|z| (z - by).clamp(-CLIP, CLIP)).collect()
}
