//! The record of one window or run of a path, and how records are merged as they age.

use super::packed::PartRecords;
use crate::measure::change::{Figures, When};
use crate::measure::Part;
use crate::time::{Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;
use std::fmt;

/// Records kept of the last 24 hours; beyond that neighbours merge.
pub const RECENT_KEPT: usize = 288;
/// Records kept that are older: one for each hour of 27 days.
pub const HOURS_KEPT: usize = 27 * 24;
/// Parts in one record: those of the longest path, and its connects.
pub(super) const PARTS: usize = 4 * 256;

const HOUR: u64 = 3_600_000_000_000;
const DAY: Nanos = Nanos(24 * HOUR);
const FOUR_WEEKS: Nanos = Nanos(28 * 24 * HOUR);
const MICRO: i64 = 1_000;
const MILLI: u64 = 1_000_000;

/// The figures of one part in a window, in whole microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRecord {
    /// Blocks.
    pub count: u64,
    /// The arithmetic mean.
    pub mean: SignedNanos,
    /// The median.
    pub p50: SignedNanos,
    /// The 95th percentile.
    pub p95: SignedNanos,
    /// `None` unless both clocks are synchronised.
    pub one_way: Option<OneWayMedians>,
    /// The rise that its blocks had shown when the window ended, and that stood then.
    pub rise: Option<StoodRise>,
}

/// A rise of the median that the blocks of a run without end showed. With it a run that is killed
/// and started again knows the rise at once, which takes three windows otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoodRise {
    /// Its size.
    pub amount: SignedNanos,
    /// The median before it.
    pub baseline: SignedNanos,
    /// Milliseconds from its beginning to the beginning of the window; negative if it began later.
    pub before_ms: i64,
}

/// One-way delays of a segment, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneWayMedians {
    /// Medians, forward and return.
    pub ways: [SignedNanos; 2],
    /// The greatest error of the clocks against each other, as their kernels state it.
    pub error: Nanos,
}

/// One window or run of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The order of records; clocks step. Of merged ones, that of the last.
    pub sequence: u64,
    /// Duration of the window.
    pub window: Nanos,
    /// The time at which the window began, in whole milliseconds.
    pub when: When,
    /// The parts that had blocks.
    pub parts: PartRecords,
}

impl PartRecord {
    /// The figures that a change is searched in.
    pub fn figures(&self) -> Figures {
        Figures {
            p50: self.p50,
            mean: self.mean,
            p95: self.p95,
        }
    }

    fn rounded(&self) -> Self {
        let micros = |delay: SignedNanos| SignedNanos(delay.0.div_euclid(MICRO) * MICRO);
        Self {
            count: self.count,
            mean: micros(self.mean),
            p50: micros(self.p50),
            p95: micros(self.p95),
            one_way: self.one_way.map(|of| OneWayMedians {
                ways: of.ways.map(micros),
                error: Nanos(of.error.0.div_ceil(MICRO as u64) * MICRO as u64),
            }),
            rise: self.rise.map(|rise| StoodRise {
                amount: micros(rise.amount),
                baseline: micros(rise.baseline),
                ..rise
            }),
        }
    }

    /// Both together, each weighted by its blocks.
    fn merged(&self, other: &Self) -> Self {
        let count = self.count.saturating_add(other.count).max(1);
        let mean = |a: SignedNanos, b: SignedNanos| {
            let sum = i128::from(a.0) * i128::from(self.count)
                + i128::from(b.0) * i128::from(other.count);
            SignedNanos((sum / i128::from(count)) as i64)
        };
        let ways = self.one_way.zip(other.one_way);
        Self {
            count,
            mean: mean(self.mean, other.mean),
            p50: mean(self.p50, other.p50),
            p95: mean(self.p95, other.p95),
            one_way: ways.map(|(a, b)| OneWayMedians {
                ways: [0, 1].map(|way| mean(a.ways[way], b.ways[way])),
                error: a.error.max(b.error),
            }),
            rise: self.rise,
        }
        .rounded()
    }
}

impl Record {
    /// The record as it is read again: delays in microseconds, times in milliseconds.
    #[must_use]
    pub fn rounded(mut self) -> Self {
        let millis = |time: u64| time / MILLI * MILLI;
        self.window = Nanos(millis(self.window.0));
        self.when.wall = WallTime(millis(self.when.wall.0));
        self.when.mono.0 = millis(self.when.mono.0);
        let mut parts = self.parts.unpacked();
        for part in parts.values_mut() {
            *part = part.rounded();
        }
        self.parts = PartRecords::from(&parts);
        self
    }

    /// The record and the one after it as one.
    fn merge(&mut self, next: &Self) {
        self.sequence = next.sequence;
        self.window = Nanos(self.window.0.saturating_add(next.window.0));
        let mut parts = self.parts.unpacked();
        for (part, figures) in next.parts.iter() {
            let merged = match parts.get(&part) {
                Some(known) => known.merged(&figures),
                None => figures,
            };
            parts.insert(part, merged);
        }
        self.parts = PartRecords::from(&parts);
    }

    /// Records of one hour are merged once they are old.
    fn hour(&self) -> (u64, u64) {
        match self.when.is_clock_set() {
            true => (0, self.when.wall.0 / HOUR),
            false => (self.when.boot, self.when.mono.0 / HOUR),
        }
    }
}

/// Bounds `records`, the oldest first: a record for each window of the last 24 hours, one for each
/// hour of the weeks before. Records of unknown age count as recent ones.
pub(super) fn thin(records: &mut Vec<Record>) {
    let Some(newest) = records.last().map(|record| record.when) else {
        return;
    };
    let age = |record: &Record| newest.since(&record.when).unwrap_or_default();
    records.retain(|record| age(record) <= FOUR_WEEKS);
    let is_old = |record: &Record| age(record) >= DAY;
    let mut kept: Vec<Record> = Vec::with_capacity(records.len());
    for record in records.drain(..) {
        match kept.last_mut() {
            Some(last) if is_old(last) && is_old(&record) && last.hour() == record.hour() => {
                last.merge(&record);
            }
            _ => kept.push(record),
        }
    }
    *records = kept;
    while records.iter().filter(|record| !is_old(record)).count() > RECENT_KEPT {
        let both = |pair: &[Record]| pair[0].window.0.saturating_add(pair[1].window.0);
        let pairs = records.windows(2).enumerate();
        let recent = pairs.filter(|(_, pair)| !is_old(&pair[0]));
        let Some((first, _)) = recent.min_by_key(|(_, pair)| both(pair)) else {
            break;
        };
        merge_pair(records, first);
    }
    let old = records.iter().filter(|record| is_old(record)).count();
    let mut over = old.saturating_sub(HOURS_KEPT);
    records.retain(|record| {
        let goes = over > 0 && is_old(record);
        over -= usize::from(goes);
        !goes
    });
}

/// Merges every second record with the one before it.
pub(super) fn halve(records: &mut Vec<Record>) {
    for first in (0..records.len() / 2).rev() {
        merge_pair(records, 2 * first);
    }
}

fn merge_pair(records: &mut Vec<Record>, first: usize) {
    let next = records.remove(first + 1);
    records[first].merge(&next);
}

/// `SEQUENCE WINDOW WALL OFFSET BOOT MONO PART ...`, with a part as
/// `PART=COUNT,MEAN,P50,P95[,FORWARD,RETURN,ERROR][+AMOUNT,BASELINE,BEFORE]`.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let When {
            wall,
            utc_offset,
            boot,
            mono,
        } = self.when;
        let (window, wall, mono) = (self.window.0 / MILLI, wall.0 / MILLI, mono.0 / MILLI);
        let sequence = self.sequence;
        write!(f, "{sequence} {window} {wall} {utc_offset} {boot:x} {mono}")?;
        for (part, figures) in self.parts.iter() {
            let us = |delay: SignedNanos| delay.0 / MICRO;
            let PartRecord {
                count,
                mean,
                p50,
                p95,
                one_way,
                rise,
            } = figures;
            write!(f, " {}=", short(part))?;
            write!(f, "{count},{},{},{}", us(mean), us(p50), us(p95))?;
            if let Some(OneWayMedians { ways, error }) = one_way {
                let error = error.0 / MICRO as u64;
                write!(f, ",{},{},{error}", us(ways[0]), us(ways[1]))?;
            }
            if let Some(rise) = rise {
                let (amount, baseline) = (us(rise.amount), us(rise.baseline));
                write!(f, "+{amount},{baseline},{}", rise.before_ms)?;
            }
        }
        Ok(())
    }
}

impl Record {
    /// Reads what `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let millis = |number: u64| number.checked_mul(MILLI);
        let (sequence, window) = (number()?, millis(number()?)?);
        let wall = millis(number()?)?;
        let utc_offset = words.next()?.parse().ok()?;
        let boot = u64::from_str_radix(words.next()?, 16).ok()?;
        let mono = millis(words.next()?.parse().ok()?)?;
        let mut record = Self {
            sequence,
            window: Nanos(window),
            when: When {
                wall: WallTime(wall),
                utc_offset,
                boot,
                mono: crate::time::MonoTime(mono),
            },
            parts: PartRecords::default(),
        };
        let mut parts = VecMap::new();
        for word in words {
            let (part, figures) = word.split_once('=')?;
            let is_new = parts.len() < PARTS;
            let figures = parse_figures(figures).filter(|_| is_new)?;
            if parts.insert(parse_short(part)?, figures).is_some() {
                return None;
            }
        }
        record.parts = PartRecords::from(&parts);
        Some(record)
    }
}

fn parse_rise(text: &str) -> Option<StoodRise> {
    let mut fields = text.splitn(3, ',').map(|field| field.parse::<i64>().ok());
    let mut field = || fields.next()?;
    let micros = |micros: i64| micros.checked_mul(MICRO).map(SignedNanos);
    Some(StoodRise {
        amount: micros(field()?).filter(|amount| amount.0 > 0)?,
        baseline: micros(field()?)?,
        before_ms: field()?,
    })
}

fn parse_figures(text: &str) -> Option<PartRecord> {
    let (text, rise) = match text.split_once('+') {
        Some((text, rise)) => (text, Some(parse_rise(rise)?)),
        None => (text, None),
    };
    let mut fields = text.split(',');
    let count = fields.next()?.parse().ok()?;
    let mut delay = || {
        let micros: i64 = fields.next()?.parse().ok()?;
        micros.checked_mul(MICRO).map(SignedNanos)
    };
    let figures = PartRecord {
        count,
        mean: delay()?,
        p50: delay()?,
        p95: delay()?,
        one_way: None,
        rise,
    };
    let one_way = match delay() {
        Some(forward) => Some(OneWayMedians {
            ways: [forward, delay()?],
            error: Nanos(u64::try_from(delay()?.0).ok()?),
        }),
        None => None,
    };
    let commas = text.bytes().filter(|byte| *byte == b',').count();
    let expected = if one_way.is_some() { 6 } else { 3 };
    (commas == expected).then_some(PartRecord { one_way, ..figures })
}

/// A part in as few letters as can be: a state has tens of thousands of them.
fn short(part: Part) -> String {
    match part {
        Part::Total => "t".to_owned(),
        Part::Server => "x".to_owned(),
        Part::ServerConnect => "y".to_owned(),
        Part::Host(hop) => format!("h{hop}"),
        Part::Behind(hop) => format!("b{hop}"),
        Part::Connect { from, to } => format!("c{from}-{to}"),
        Part::Segment { from, to } => format!("s{from}-{to}"),
    }
}

fn parse_short(text: &str) -> Option<Part> {
    let kind = text.get(..1)?;
    let rest = &text[1..];
    let hop = || rest.parse().ok();
    let hops = || {
        let (from, to) = rest.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    Some(match kind {
        "t" if rest.is_empty() => Part::Total,
        "x" if rest.is_empty() => Part::Server,
        "y" if rest.is_empty() => Part::ServerConnect,
        "h" => Part::Host(hop()?),
        "b" => Part::Behind(hop()?),
        "c" => hops().map(|(from, to)| Part::Connect { from, to })?,
        "s" => hops().map(|(from, to)| Part::Segment { from, to })?,
        _ => return None,
    })
}
