//! A small parser of decimal numbers. std's parser rounds every text correctly, with 10 KiB of
//! tables and as much code. People, kernels and agents write a few digits, for which a router's
//! flash need not hold these.

/// Parses a sign, digits with a point, and an exponent; only one digit is required.
///
/// Returns the nearest double for at most 15 digits and a power of ten within 22, else a double
/// within 1 part in 10^14. Returns `None` for other text ("inf" and "nan" too), and beyond 10^300
/// either way.
///
/// Integers up to 2^53 and powers of ten up to 10^22 are exact, so that their product or quotient
/// is rounded once.
pub fn decimal(text: &str) -> Option<f64> {
    const DIGITS: u32 = 19; // These fit into 64 bits.
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse().ok()?),
        None => (text, 0_i32),
    };
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut mantissa = 0_u64;
    let mut kept = 0;
    let mut power = exponent;
    for (place, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if !digit.is_ascii_digit() {
            return None;
        }
        let is_fraction = place >= whole.len();
        if kept < DIGITS {
            mantissa = mantissa * 10 + u64::from(digit - b'0');
            kept += u32::from(mantissa > 0);
            power = power.checked_sub(i32::from(is_fraction))?;
        } else {
            power = power.checked_add(i32::from(!is_fraction))?;
        }
    }
    let value = match power {
        _ if mantissa == 0 => 0.0,
        0 => mantissa as f64,
        1..=300 => mantissa as f64 * 10_f64.powi(power),
        -300..=-1 => mantissa as f64 / 10_f64.powi(-power),
        _ => return None,
    };
    let value = if number.starts_with('-') {
        -value
    } else {
        value
    };
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_is_written_in_files_and_options_is_the_nearest_double() {
        let mut random = Random::new(11);
        for round in 0..200_000 {
            let digits = random.next() % 10_u64.pow((random.next() % 16) as u32);
            let text = match random.next() % 4 {
                0 => digits.to_string(),
                1 => format!("-{digits}.{:03}", random.next() % 1000),
                2 => format!("{}.{digits}", random.next() % 10),
                _ => format!("{digits}e{}", (random.next() % 30) as i32 - 15),
            };
            let (seen, expected) = (decimal(&text).unwrap(), text.parse::<f64>().unwrap());
            let figures = text.bytes().filter(u8::is_ascii_digit).count();
            if figures <= 15 {
                assert_eq!(seen.to_bits(), expected.to_bits(), "round {round}: {text}");
            }
            let apart = (seen - expected).abs();
            assert!(apart <= expected.abs() * 1e-15, "round {round}: {text}");
        }
    }

    #[test]
    fn its_forms_and_what_is_none() {
        for (text, expected) in [
            ("0.52", 0.52),
            ("5.", 5.0),
            (".5", 0.5),
            ("+7", 7.0),
            ("1E3", 1000.0),
            ("0.000", 0.0),
            ("0e9999", 0.0),
            ("00000000000000000000000012", 12.0),
            ("18446744073709551615", 18_446_744_073_709_551_615.0),
            ("0.0000000000000000000001", 1e-22),
        ] {
            assert_eq!(decimal(text), Some(expected), "{text}");
        }
        let long = format!("0.{}", "1".repeat(5000));
        assert!((decimal(&long).unwrap() - 1.0 / 9.0).abs() < 1e-15);
        for text in [
            "",
            ".",
            "-",
            "e5",
            "1e",
            "1.2.3",
            "inf",
            "nan",
            "1e400",
            "0x1",
            " 1",
            "1_0",
            "--1",
            "1e99999999999",
        ] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
