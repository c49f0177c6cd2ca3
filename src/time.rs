//! Types of time that name their clock. No clock is read here.
//!
//! Stamps carry [`WallTime`] (RFC 2330 §10: host time, not wire time); schedules and deadlines use
//! [`MonoTime`]. The difference of two wall times is [`SignedNanos`]. It lies between two clocks,
//! or on one that may have been stepped, so a negative one is a finding. [`Nanos`] is a length of
//! time and never negative.

use crate::decimal::fill_digits;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub};
use std::time::Duration;

/// Nanoseconds in one second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A length of time in nanoseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Returns a number of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns a number of microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// Returns the length in whole microseconds, rounded down and saturating at `u32::MAX` (71
    /// minutes).
    pub fn as_micros_u32(self) -> u32 {
        u32::try_from(self.0 / 1_000).unwrap_or(u32::MAX)
    }

    /// Returns the length as a signed one; saturates after 292 years.
    pub fn signed(self) -> SignedNanos {
        SignedNanos(i64::try_from(self.0).unwrap_or(i64::MAX))
    }

    /// Returns the length in milliseconds, for people.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// A difference in nanoseconds that may be negative: between two clocks, or on one that was
/// stepped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignedNanos(pub i64);

impl SignedNanos {
    /// No difference.
    pub const ZERO: Self = Self(0);

    /// Returns a number of milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns the size without the sign.
    pub fn abs(self) -> Nanos {
        Nanos(self.0.unsigned_abs())
    }

    /// Returns the difference in milliseconds, for people.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

// Wrapping, not saturating: the parts of a block then add up to the whole exactly, whatever a peer
// wrote into its stamps.
impl Add for SignedNanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl AddAssign for SignedNanos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for SignedNanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl Neg for SignedNanos {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.wrapping_neg())
    }
}

impl Sum for SignedNanos {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

/// An instant of the monotonic clock: nanoseconds since a point that only this process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Nanos> for MonoTime {
    type Output = Self;
    fn add(self, span: Nanos) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// An instant of a node's wall clock: unsigned nanoseconds since the Unix epoch, good until the
/// year 2554.
///
/// `Display` writes RFC 3339 in UTC with nine digits: `2026-11-21T09:30:00.000000001Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Returns the instant moved back by `span`, not before the epoch.
    pub fn before(self, span: Nanos) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl WallTime {
    /// Reads RFC 3339 (`2026-11-27T15:17:02Z`, with a fraction or an offset too) or a date, which
    /// is its midnight in UTC. `None` for anything else and for years before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = match text.split_at_checked(10)? {
            (date, "") => (date, "T00:00:00Z"),
            parts => parts,
        };
        let number = |text: &str, digits: usize| {
            let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<i64>().ok()).flatten()
        };
        let mut fields = date.splitn(3, '-');
        let year = number(fields.next()?, 4)?;
        let month = number(fields.next()?, 2).filter(|month| (1..=12).contains(month))?;
        let day = number(fields.next()?, 2).filter(|day| (1..=31).contains(day))?;
        let days = days_from_civil(year, month, day);
        // A 31st of April is none.
        if civil_from_days(days) != (year, month, day) {
            return None;
        }
        let time = time.strip_prefix(['T', 't', ' '])?;
        let zone = time.find(['Z', 'z', '+', '-'])?;
        let (time, zone) = time.split_at(zone);
        let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut fields = clock.splitn(3, ':');
        let mut field = |below: i64| number(fields.next()?, 2).filter(|n| *n < below);
        let seconds = field(24)? * 3600 + field(60)? * 60 + field(61)?;
        let nanos = number(&format!("{fraction:0<9}"), 9)?;
        let offset = match zone {
            "Z" | "z" => 0,
            _ => {
                let (hours, minutes) = zone.get(1..)?.split_once(':')?;
                let offset = number(hours, 2)? * 3600 + number(minutes, 2)? * 60;
                if zone.starts_with('-') {
                    -offset
                } else {
                    offset
                }
            }
        };
        let seconds = days * 86_400 + seconds - offset;
        let nanos = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
        u64::try_from(nanos).ok().map(Self)
    }
}

impl Sub for WallTime {
    type Output = SignedNanos;
    /// Returns `self - other`, negative if `other` is later on its own clock.
    fn sub(self, other: Self) -> SignedNanos {
        SignedNanos(self.0.wrapping_sub(other.0) as i64)
    }
}

impl Add<SignedNanos> for WallTime {
    type Output = Self;
    fn add(self, span: SignedNanos) -> Self {
        Self(self.0.wrapping_add_signed(span.0))
    }
}

impl WallTime {
    /// Returns the text of RFC 3339 with nine digits after the point.
    pub(crate) fn rfc_3339(self) -> [u8; 30] {
        let seconds = self.0 / NANOS_PER_SEC;
        let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
        let second = seconds % 86_400;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        fill_digits(&mut text[0..4], year as u64);
        fill_digits(&mut text[5..7], month as u64);
        fill_digits(&mut text[8..10], day as u64);
        fill_digits(&mut text[11..13], second / 3_600);
        fill_digits(&mut text[14..16], second / 60 % 60);
        fill_digits(&mut text[17..19], second % 60);
        fill_digits(&mut text[20..29], self.0 % NANOS_PER_SEC);
        text
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.rfc_3339()).unwrap_or_default())
    }
}

/// Converts days since 1970-01-01 to year, month and day of the proleptic Gregorian calendar.
///
/// The era arithmetic is that of H. Hinnant, "chrono-compatible low-level date algorithms". Years
/// start in March, so that the leap day is the last of its year and needs no separate case.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_from_days`], from the same source.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Both clocks of one node read together; what the core gets as `now`.
/// Both clocks of one node, read together: the `now` of the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For schedules, deadlines and the watch for clock steps.
    pub mono: MonoTime,
    /// For stamps.
    pub wall: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_prints_rfc_3339_with_nine_digits() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (
                951_782_400 * NANOS_PER_SEC + 1,
                "2000-02-29T00:00:00.000000001Z",
            ),
            (
                1_795_253_399 * NANOS_PER_SEC + 999_999_999,
                "2026-11-21T09:29:59.999999999Z",
            ),
            (
                4_107_542_400 * NANOS_PER_SEC,
                "2100-03-01T00:00:00.000000000Z",
            ),
        ] {
            assert_eq!(WallTime(nanos).to_string(), text);
        }
    }

    #[test]
    fn rfc_3339_is_read_as_it_was_written_and_a_date_is_its_midnight() {
        let mut nanos = 1_u64;
        for _ in 0..2_000 {
            nanos = nanos
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let wall = WallTime(nanos >> 1);
            assert_eq!(WallTime::parse(&wall.to_string()), Some(wall), "{wall}");
        }
        let day = WallTime::parse("2026-11-27").unwrap();
        for text in ["2026-11-27T00:00:00Z", "2026-11-27 01:30:00.0+01:30"] {
            assert_eq!(WallTime::parse(text), Some(day), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026-04-31",
            "2026-11-27T",
            "2026-11-27T25:00:00Z",
            "2026-11-27T00:00:00",
            "1969-12-31",
            "2026-11-27T00:00:00+1",
            "2026-11-2\u{f6}",
        ] {
            assert_eq!(WallTime::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_difference_of_wall_times_keeps_its_sign() {
        assert_eq!(WallTime(5) - WallTime(7), SignedNanos(-2));
        assert_eq!(WallTime(7) + SignedNanos(-2), WallTime(5));
    }

    #[test]
    fn sums_of_differences_are_exact_even_when_stamps_are_nonsense() {
        let (a, b, c) = (WallTime(u64::MAX), WallTime(3), WallTime(1 << 63));
        assert_eq!((a - b) + (b - c), a - c);
    }

    #[test]
    fn monotonic_spans_never_go_below_zero() {
        assert_eq!(MonoTime(5).since(MonoTime(9)), Nanos::ZERO);
    }
}
