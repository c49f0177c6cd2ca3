//! The records of a part as one line of integers, for a state file.
//!
//! ```text
//! WINDOW PHASE BASIS HOUR  LAST  NAMED  FALLEN  ENDED  and for each figure
//! COVARIANCE VARIANCE MIDDLE SPREAD  N RESIDUAL...  N RECORD...  N SPREAD...  12 RECORD...
//! 216 CELL COUNT...
//! ```
//!
//! Delays are in microseconds, times in nanoseconds. `-` stands for what is not there.

use super::cells::{Cells, DAYS, WEEK};
use super::scan::REACH;
use super::series::{Series, NO_RECORD, PLACES, RECENT, RESIDUALS};
use super::{Basis, Fallen, Named, RecordWatch, When};
use crate::time::{MonoTime, Nanos, WallTime};
use std::fmt::{self, Write};

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wall,
            utc_offset,
            boot,
            mono,
        } = self;
        write!(f, "{} {utc_offset} {boot} {}", wall.0, mono.0)
    }
}

impl fmt::Display for RecordWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.window.0, self.phase)?;
        match self.basis {
            Basis::Open => f.write_str("open")?,
            Basis::Wall => f.write_str("wall")?,
            Basis::Boot(boot) => write!(f, "boot {boot}")?,
        }
        match self.hour {
            Some(hour) => write!(f, " {hour}")?,
            None => f.write_str(" -")?,
        }
        match &self.last {
            Some(when) => write!(f, " {when}")?,
            None => f.write_str(" -")?,
        }
        match &self.named {
            Some(named) => {
                let Named {
                    figure,
                    amount,
                    further,
                    per_day,
                    kept,
                    since,
                    first,
                    episodes,
                } = named;
                write!(
                    f,
                    " {figure} {amount} {further} {per_day} {kept} {since} {first} {episodes}"
                )?;
            }
            None => f.write_str(" -")?,
        }
        match &self.fallen {
            Some(fallen) => write!(f, " {} {}", fallen.amount, fallen.windows)?,
            None => f.write_str(" -")?,
        }
        match &self.ended {
            Some((first, episodes, end)) => write!(f, " {episodes} {first} {end}")?,
            None => f.write_str(" -")?,
        }
        for series in &self.series {
            let Series {
                covariance,
                variance,
                middle,
                spread,
                ..
            } = series;
            write!(f, " {covariance} {variance} {middle} {spread}")?;
            for list in [&series.residuals, &series.recent] {
                write!(f, " {}", list.len())?;
                list.iter().try_for_each(|value| write!(f, " {value}"))?;
            }
            write!(f, " {}", series.spreads.len())?;
            series
                .spreads
                .iter()
                .try_for_each(|value| write!(f, " {value}"))?;
            for value in series.hour {
                absent_or(f, value, value != NO_RECORD)?;
            }
            for (value, count) in *series.cells.cells {
                absent_or(f, value, count > 0)?;
                if count > 0 {
                    write!(f, " {count}")?;
                }
            }
        }
        Ok(())
    }
}

fn absent_or(f: &mut fmt::Formatter<'_>, value: i32, is_there: bool) -> fmt::Result {
    f.write_char(' ')?;
    if is_there {
        write!(f, "{value}")
    } else {
        f.write_char('-')
    }
}

/// The words of a line.
struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn unsigned(&mut self) -> Option<u64> {
        self.word()?.parse().ok()
    }

    /// An integer within `least..=most`.
    fn within(&mut self, least: i32, most: i32) -> Option<i32> {
        let value: i64 = self.word()?.parse().ok()?;
        let value = i32::try_from(value).ok()?;
        (least..=most).contains(&value).then_some(value)
    }

    fn delay(&mut self) -> Option<i32> {
        self.within(i32::MIN + 1, i32::MAX)
    }

    /// A number, or `-`.
    fn delay_or_none(&mut self) -> Option<Option<i32>> {
        let mut ahead = Words(self.0.clone());
        if ahead.word()? == "-" {
            self.word();
            return Some(None);
        }
        self.delay().map(Some)
    }

    fn is_absent(&mut self) -> bool {
        let absent = self.0.clone().next() == Some("-");
        if absent {
            self.word();
        }
        absent
    }

    fn when(&mut self) -> Option<When> {
        Some(When {
            wall: WallTime(self.unsigned()?),
            utc_offset: self.within(-86_400, 86_400)?,
            boot: self.unsigned()?,
            mono: MonoTime(self.unsigned()?),
        })
    }

    fn delays(&mut self, most: usize) -> Option<Vec<i32>> {
        let count = self.within(0, most as i32)?;
        (0..count).map(|_| self.delay()).collect()
    }

    fn series(&mut self) -> Option<Series> {
        let mut series = Series::new();
        series.covariance = self.delay()?;
        series.variance = self.within(0, i32::MAX)?;
        series.middle = self.delay()?;
        series.spread = self.within(0, i32::MAX)?;
        series.residuals = self.delays(RESIDUALS)?;
        series.recent = self.delays(RECENT)?;
        let spreads = self.within(0, REACH as i32)?;
        for _ in 0..spreads {
            series.spreads.push(self.within(-32_000, 32_000)? as i16);
        }
        for place in 0..PLACES {
            series.hour[place] = self.delay_or_none()?.unwrap_or(NO_RECORD);
        }
        let mut cells = Cells::new();
        for place in 0..WEEK + DAYS {
            if let Some(value) = self.delay_or_none()? {
                cells.cells[place] = (value, self.within(1, 200)? as u8);
            }
        }
        series.cells = cells;
        Some(series)
    }
}

impl RecordWatch {
    /// Reads the line that `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = Words(text.split(' '));
        let mut watch = Self::new(Nanos(words.unsigned()?));
        watch.phase = words.within(0, 5)? as u8;
        watch.basis = match words.word()? {
            "open" => Basis::Open,
            "wall" => Basis::Wall,
            "boot" => Basis::Boot(words.unsigned()?),
            _ => return None,
        };
        if !words.is_absent() {
            watch.hour = Some(i64::from(words.delay()?));
        }
        if !words.is_absent() {
            watch.last = Some(words.when()?);
        }
        if !words.is_absent() {
            watch.named = Some(Named {
                figure: words.within(0, 2)? as usize,
                amount: words.within(1, i32::MAX)?,
                further: words.within(0, i32::MAX)?,
                per_day: words.within(i32::MIN, i32::MAX)?,
                kept: words.delay()?,
                since: words.when()?,
                first: words.when()?,
                episodes: words.within(1, i32::from(u16::MAX))? as u16,
            });
        }
        if !words.is_absent() {
            let amount = words.within(1, i32::MAX)?;
            let windows = words.within(0, RESIDUALS as i32)? as u16;
            watch.fallen = Some(Fallen { amount, windows });
        }
        if !words.is_absent() {
            let episodes = words.within(1, i32::from(u16::MAX))? as u16;
            watch.ended = Some((words.when()?, episodes, words.when()?));
        }
        for place in 0..watch.series.len() {
            watch.series[place] = words.series()?;
        }
        words.word().is_none().then_some(watch)
    }
}
