//! A small parser of decimal numbers, and fast digits of whole ones. std's parser rounds every text
//! correctly, with 10 KiB of tables and as much code. People, kernels and agents write a few
//! digits, for which a router's flash need not hold these.

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

/// Fills `room` with the last digits of `value`, with zeros before them.
#[inline]
pub(crate) fn fill_digits(room: &mut [u8], mut value: u64) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// A whole number or one with three digits after the point, as text: a fraction of the time that
/// a formatter takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    bytes: [u8; Self::ROOM],
    from: usize,
}

impl Digits {
    /// The longest are a sign, 20 digits and a point.
    const ROOM: usize = 22;

    /// Returns the text of a whole number.
    pub(crate) fn of(mut value: u64) -> Self {
        let mut digits = Self {
            bytes: [b'0'; Self::ROOM],
            from: Self::ROOM,
        };
        loop {
            digits.push_front(b'0' + (value % 10) as u8);
            value /= 10;
            if value == 0 {
                return digits;
            }
        }
    }

    /// Returns the text of a signed number.
    pub(crate) fn of_signed(value: i64) -> Self {
        let mut digits = Self::of(value.unsigned_abs());
        if value < 0 {
            digits.push_front(b'-');
        }
        digits
    }

    /// Returns the text of so many thousandths.
    pub(crate) fn of_thousandths(value: i64) -> Self {
        let thousandths = value.unsigned_abs();
        let mut digits = Self::of(thousandths / 1000);
        digits.bytes.copy_within(digits.from.., digits.from - 4);
        digits.from -= 4;
        digits.bytes[Self::ROOM - 4] = b'.';
        fill_digits(&mut digits.bytes[Self::ROOM - 3..], thousandths % 1000);
        if value < 0 {
            digits.push_front(b'-');
        }
        digits
    }

    fn push_front(&mut self, byte: u8) {
        self.from -= 1;
        self.bytes[self.from] = byte;
    }

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.from..]).unwrap_or_default()
    }
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
    fn digits_are_those_of_a_formatter() {
        let mut random = Random::new(12);
        for round in 0..100_000 {
            let value = random.next() >> (random.next() % 64);
            let signed = value as i64;
            assert_eq!(Digits::of(value).as_str(), value.to_string());
            assert_eq!(Digits::of_signed(signed).as_str(), signed.to_string());
            let all = signed.unsigned_abs();
            let sign = if signed < 0 { "-" } else { "" };
            let expected = format!("{sign}{}.{:03}", all / 1000, all % 1000);
            let seen = Digits::of_thousandths(signed);
            assert_eq!(seen.as_str(), expected, "round {round}");
            let mut room = [0; 5];
            fill_digits(&mut room, value);
            let expected = format!("{:05}", value % 100_000);
            assert_eq!(room, expected.as_bytes(), "round {round}");
        }
        assert_eq!(Digits::of(u64::MAX).as_str(), u64::MAX.to_string());
        assert_eq!(Digits::of_signed(i64::MIN).as_str(), i64::MIN.to_string());
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
