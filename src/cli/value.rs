//! Values of the command line: text in, checked value out. Errors name the mistake and the right
//! way to write the value.

use super::config::TimeArgument;
use crate::decimal::decimal;
use crate::sys::{Source, INTERFACE_MAX};
use crate::time::WallTime;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// The longest duration: far above any use, and far from an overflow when it is added to a clock.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Most bytes of a tag or a node name: it travels in an annotation, beside those of up to 128
/// others.
const LABEL_MAX_BYTES: usize = 255;

/// Units of a duration and their seconds; the first one is the default.
const UNITS: &[(&str, f64)] = &[
    ("s", 1.0),
    ("ms", 1e-3),
    ("us", 1e-6),
    ("m", 60.0),
    ("h", 3600.0),
];

/// A duration in seconds or with a unit: `2`, `0.002`, `2s`, `10ms`, `5m`; may be 0.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    // f64's own parser would take "inf", "1e9" and a sign as well.
    let plain = number.bytes().filter(|byte| *byte == b'.').count() <= 1
        && number.bytes().any(|byte| byte.is_ascii_digit());
    let factor = if unit.is_empty() {
        Some(1.0)
    } else {
        UNITS.iter().find(|(name, _)| *name == unit).map(|u| u.1)
    };
    let (true, Some(factor), Some(number)) = (plain, factor, decimal(number)) else {
        return Err("is not a duration: write seconds as 2 or 0.002, or 2s, 10ms, 5m".into());
    };
    let seconds = number * factor;
    if seconds > LONGEST.as_secs_f64() {
        return Err("is too long: at most 720h (30 days)".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration that is not 0.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("has to be more than 0".into()),
        span => Ok(span),
    }
}

/// A time: RFC 3339, a date, or `-` and a duration for so long ago.
pub(super) fn time(text: &str) -> Result<TimeArgument, String> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago = duration(ago).map_err(|error| format!("{error} behind the -"))?;
        return Ok(TimeArgument::Ago(ago.into()));
    }
    let at = WallTime::parse(text).map(TimeArgument::At);
    at.ok_or_else(|| "is no time: write 2026-11-27T15:17:02Z, 2026-11-27 or -2h".to_owned())
}

/// A number of bytes within `range`, with `k`, `K` (1024) or `M` (1024 * 1024) behind it if wanted.
pub(super) fn bytes(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return Err("is not a number of bytes: write it as 16384, 16k or 1M".into()),
    };
    let Ok(number) = number.parse::<usize>() else {
        return Err("is not a number of bytes: write it as 16384, 16k or 1M".into());
    };
    match number.checked_mul(factor) {
        Some(bytes) if range.contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "is out of range: {} to {} bytes",
            range.start(),
            range.end()
        )),
    }
}

/// A whole number within `range`.
pub(super) fn integer<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    // The standard parser takes a leading plus; a range that ends at the type's own end needs no
    // other check.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<T>() {
        Ok(number) if digits && range.contains(&number) => Ok(number),
        _ => Err(format!(
            "is not a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// Returns the place of one of a few words.
pub(super) fn choice(text: &str, words: &[&str]) -> Result<usize, String> {
    let place = words.iter().position(|word| *word == text);
    place.ok_or_else(|| format!("is none of {}", words.join(", ")))
}

/// Reads the source of connects: an address, or the name of an interface.
///
/// # Errors
///
/// The end of a sentence about the value.
pub(super) fn source(text: &str) -> Result<Source, String> {
    if let Ok(address) = text.parse() {
        return Ok(Source::Address(address));
    }
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"/:".contains(c);
    if (1..=INTERFACE_MAX).contains(&text.len()) && text.chars().all(plain) {
        return Ok(Source::Interface(text.into()));
    }
    Err("is neither an address nor the name of an interface: write 10.0.0.1, ::1 or eth0".into())
}

/// A tag or a node name: text that fits into an annotation and onto one line of a report.
pub(super) fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LABEL_MAX_BYTES {
        return Err(format!("has to have 1 to {LABEL_MAX_BYTES} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters in it: use printable ones".into());
    }
    Ok(text.to_owned())
}

/// Splits the letters off the end of a number.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_unless_a_unit_is_written() {
        for (text, nanos) in [
            ("2", 2_000_000_000),
            ("0.002", 2_000_000),
            (".5", 500_000_000),
            ("2s", 2_000_000_000),
            ("10ms", 10_000_000),
            ("1.5us", 1_500),
            ("5m", 300_000_000_000),
            ("720h", 2_592_000_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_way_to_write_it() {
        for text in [
            "", ".", "s", "-1", "+1", "1e3", "inf", "nan", "1.2.3", "2 s", "2d", "1,5", "٣",
        ] {
            let message = duration(text).expect_err(text);
            assert!(
                message.starts_with("is not a duration"),
                "{text}: {message}"
            );
        }
        for text in ["721h", "99999999999999999999"] {
            let message = duration(text).expect_err(text);
            assert!(message.starts_with("is too long"), "{text}: {message}");
        }
        assert!(duration(&"9".repeat(400)).is_err());
        for text in ["0", "0.0", "0ms", "0.0000000001"] {
            assert_eq!(positive_duration(text), Err("has to be more than 0".into()));
        }
    }

    #[test]
    fn sizes_take_suffixes_and_keep_their_range() {
        for (text, size) in [
            ("1", 1),
            ("16384", 16_384),
            ("16k", 16_384),
            ("4K", 4096),
            ("1M", 1 << 20),
        ] {
            assert_eq!(bytes(text, 1..=1 << 20), Ok(size), "{text}");
        }
        for text in ["0", "1048577", "2M", "1025k", "99999999999999M"] {
            let message = bytes(text, 1..=1 << 20).expect_err(text);
            assert_eq!(message, "is out of range: 1 to 1048576 bytes", "{text}");
        }
        for text in ["", "k", "1.5k", "-1", "1G", "1kB", "0x10"] {
            let message = bytes(text, 1..=1 << 20).expect_err(text);
            assert!(message.starts_with("is not a number"), "{text}: {message}");
        }
    }

    #[test]
    fn integers_are_digits_within_their_range() {
        assert_eq!(integer("7", 0..=7_u8), Ok(7));
        assert_eq!(integer("18446744073709551615", 0..=u64::MAX), Ok(u64::MAX));
        for text in ["", "8", "256", "-1", "+1", "1.0", "one"] {
            assert_eq!(
                integer(text, 0..=7_u8),
                Err("is not a whole number from 0 to 7".into()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_source_is_an_address_or_a_name_that_an_interface_can_have() {
        let address = Source::Address("10.0.0.1".parse().unwrap());
        assert_eq!(source("10.0.0.1"), Ok(address));
        assert!(matches!(source("::1"), Ok(Source::Address(_))));
        assert_eq!(source("wan.7"), Ok(Source::Interface("wan.7".into())));
        for text in ["", "a b", "a/b", "10.0.0.1:80", "sixteen-letters-"] {
            assert!(source(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_stay_on_one_line_and_within_their_length() {
        assert_eq!(label("rack 7, über"), Ok("rack 7, über".into()));
        assert!(label(&"x".repeat(LABEL_MAX_BYTES)).is_ok());
        for text in ["", "a\nb", "\u{1b}[31m", &"x".repeat(LABEL_MAX_BYTES + 1)] {
            assert!(label(text).is_err(), "{text:?}");
        }
    }
}
