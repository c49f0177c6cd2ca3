//! Times, shares and counts as text of few characters.

use crate::time::{Nanos, SignedNanos};

/// Digits of a figure.
pub(in crate::report) const FIGURE: usize = 5;

pub(in crate::report) fn unknown() -> String {
    "-".to_owned()
}

/// Returns milliseconds with three significant digits, to the microsecond, in at most `room` (5 or
/// more) characters: `0.041`, `3.42`, `38.1`, `1205`. Beyond that `120s`, `40h`, `12y`.
pub(in crate::report) fn millis(span: SignedNanos, room: usize) -> String {
    let ms = span.as_millis_f64();
    // Where rounding carries into a further digit, the next case has it.
    let digits = match ms.abs() {
        size if size < 0.9995 => 3,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    let shorter = (0..=digits).rev().map(|digits| format!("{ms:.digits$}"));
    let coarser = [(1e3, 's'), (3.6e6, 'h'), (3.156e10, 'y')]
        .map(|(unit, letter)| format!("{:.0}{letter}", ms / unit));
    shorter
        .chain(coarser)
        .find(|text| text.len() <= room)
        .unwrap_or_else(unknown)
}

/// Returns the same with its sign, in at most six characters; zero has no sign.
pub(in crate::report) fn signed_millis(span: SignedNanos) -> String {
    let size = millis(span.abs().signed(), FIGURE);
    match span.0 {
        _ if size == "0.000" => size,
        i64::MIN..=-1 => format!("-{size}"),
        _ => format!("+{size}"),
    }
}

/// Returns a time for a sentence.
pub(in crate::report) fn with_unit(span: SignedNanos) -> String {
    if span.abs() < Nanos::from_millis(10_000) {
        format!("{} ms", millis(span, FIGURE))
    } else {
        format!("{:.1} s", span.as_millis_f64() / 1e3)
    }
}

/// Returns a share as `0.4%` or `92%`, in at most four characters; wrong stamps stop at the bounds.
pub(in crate::report) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if (0.0..9.95).contains(&percent) {
        format!("{percent:.1}%")
    } else {
        format!("{:.0}%", percent.clamp(-99.0, 999.0))
    }
}

pub(super) fn bar(share: Option<f64>, width: usize) -> String {
    "#".repeat((share.unwrap_or(0.0).clamp(0.0, 1.0) * width as f64).round() as usize)
}

pub(in crate::report) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Returns a number with three digits behind the point, without trailing zeros.
pub(super) fn plain_number(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_that_count_and_fit_their_column() {
        for (nanos, text) in [
            (0, "0.000"),
            (41_000, "0.041"),
            (999_499, "0.999"),
            (999_500, "1.00"),
            (3_420_000, "3.42"),
            (9_994_999, "9.99"),
            (9_995_000, "10.0"),
            (38_100_000, "38.1"),
            (99_960_000, "100"),
            (1_205_000_000, "1205"),
            (99_999_000_000, "99999"),
            (120_000_000_000, "120s"),
            (-41_000, "-0.04"),
            (-3_420_000, "-3.42"),
            (-38_100_000, "-38.1"),
            (-12_050_000_000, "-12s"),
            (i64::MAX, "292y"),
            (i64::MIN, "-292y"),
        ] {
            assert_eq!(millis(SignedNanos(nanos), FIGURE), text, "{nanos}");
        }
        assert_eq!(signed_millis(SignedNanos(2_310_000)), "+2.31");
        assert_eq!(signed_millis(SignedNanos(-41_000)), "-0.041");
        assert_eq!(signed_millis(SignedNanos(-400)), "0.000");
    }

    #[test]
    fn shares_take_four_characters_at_most() {
        for (share, text) in [
            (0.004, "0.4%"),
            (0.0996, "10%"),
            (0.92, "92%"),
            (1.0, "100%"),
            (-0.031, "-3%"),
            (1e9, "999%"),
            (-1e9, "-99%"),
        ] {
            assert_eq!(percent(share), text, "{share}");
        }
    }
}
