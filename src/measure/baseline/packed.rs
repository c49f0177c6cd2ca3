//! The parts of a record in as few bytes as they need: a path keeps close to a thousand records.
//!
//! Of each part, in order: a byte of its kind and of what follows, its hops, the count, the median,
//! the mean and the 95th percentile less the median, then what is rarely there. Numbers are in
//! groups of 7 bits. Delays are in microseconds, or in nanoseconds where one is no whole number.

use super::record::{OneWayMedians, PartRecord, StoodRise};
use crate::measure::Part;
use crate::time::{Nanos, SignedNanos};
use crate::vec_map::VecMap;
use std::fmt;

/// Bits of the first byte; below them is the kind.
const ONE_WAY: u8 = 1 << 3;
const RISE: u8 = 1 << 4;
const EXACT: u8 = 1 << 5;
const KIND: u8 = ONE_WAY - 1;
const MICRO: i64 = 1_000;

/// The figures of the parts of a record, in order of the parts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PartRecords(Box<[u8]>);

impl PartRecords {
    /// Returns `true` without a part.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns parts and figures, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Part, PartRecord)> + '_ {
        let mut bytes = Bytes(&self.0);
        std::iter::from_fn(move || bytes.part())
    }

    /// Returns the figures of a part; `None` without them.
    pub fn get(&self, part: &Part) -> Option<PartRecord> {
        self.iter().find(|(one, _)| one == part).map(|(_, of)| of)
    }

    /// Returns them as they can be changed.
    pub fn unpacked(&self) -> VecMap<Part, PartRecord> {
        self.iter().collect()
    }

    /// Returns its memory beside itself, in bytes.
    pub fn memory(&self) -> usize {
        self.0.len()
    }
}

impl From<&VecMap<Part, PartRecord>> for PartRecords {
    fn from(parts: &VecMap<Part, PartRecord>) -> Self {
        let mut bytes = Vec::new();
        for (part, figures) in parts {
            pack(&mut bytes, *part, figures);
        }
        Self(bytes.into())
    }
}

impl fmt::Debug for PartRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn pack(bytes: &mut Vec<u8>, part: Part, figures: &PartRecord) {
    let PartRecord {
        count,
        mean,
        p50,
        p95,
        one_way,
        rise,
    } = *figures;
    let mut delays = vec![p50.0, mean.0, p95.0];
    if let Some(OneWayMedians { ways, error }) = one_way {
        delays.extend([ways[0].0, ways[1].0, error.0 as i64]);
    }
    if let Some(rise) = rise {
        delays.extend([rise.amount.0, rise.baseline.0]);
    }
    let is_exact = delays.iter().any(|delay| delay % MICRO != 0);
    let unit = if is_exact { 1 } else { MICRO };
    let (kind, hops): (u8, &[u8]) = match part {
        Part::Total => (0, &[]),
        Part::Host(hop) => (1, &[hop]),
        Part::Connect { from, to } => (2, &[from, to]),
        Part::Segment { from, to } => (3, &[from, to]),
        Part::Behind(hop) => (4, &[hop]),
        Part::Server => (5, &[]),
        Part::ServerConnect => (6, &[]),
    };
    let bit = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
    let follows = bit(ONE_WAY, one_way.is_some()) | bit(RISE, rise.is_some());
    bytes.push(kind | follows | bit(EXACT, is_exact));
    bytes.extend_from_slice(hops);
    push(bytes, count);
    for (place, delay) in delays.iter().enumerate() {
        let less = if matches!(place, 1 | 2) { p50.0 } else { 0 };
        push_signed(bytes, (delay / unit).wrapping_sub(less / unit));
    }
    if let Some(rise) = rise {
        push_signed(bytes, rise.before_ms);
    }
}

fn push(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Small numbers of either sign are short.
fn push_signed(bytes: &mut Vec<u8>, value: i64) {
    push(bytes, (value << 1 ^ value >> 63) as u64);
}

/// The bytes that are not read yet.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn part(&mut self) -> Option<(Part, PartRecord)> {
        let first = self.byte()?;
        let part = match first & KIND {
            0 => Part::Total,
            1 => Part::Host(self.byte()?),
            2 => Part::Connect {
                from: self.byte()?,
                to: self.byte()?,
            },
            3 => Part::Segment {
                from: self.byte()?,
                to: self.byte()?,
            },
            4 => Part::Behind(self.byte()?),
            5 => Part::Server,
            _ => Part::ServerConnect,
        };
        let unit = if first & EXACT == 0 { MICRO } else { 1 };
        let count = self.number()?;
        let p50 = self.signed()?;
        let delay = |units: i64| SignedNanos(units.wrapping_mul(unit));
        let mean = delay(self.signed()?.wrapping_add(p50));
        let p95 = delay(self.signed()?.wrapping_add(p50));
        let one_way = match first & ONE_WAY {
            0 => None,
            _ => Some(OneWayMedians {
                ways: [delay(self.signed()?), delay(self.signed()?)],
                error: Nanos(delay(self.signed()?).0 as u64),
            }),
        };
        let rise = match first & RISE {
            0 => None,
            _ => Some(StoodRise {
                amount: delay(self.signed()?),
                baseline: delay(self.signed()?),
                before_ms: self.signed()?,
            }),
        };
        let figures = PartRecord {
            count,
            mean,
            p50: delay(p50),
            p95,
            one_way,
            rise,
        };
        Some((part, figures))
    }
}
