//! The DSCP of IP packets (RFC 2474), by number or by the name of its class.

use std::fmt;
use std::str::FromStr;

/// A differentiated services codepoint, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscp(pub u8);

/// The classes beside CS0 to CS7 and AF11 to AF43 (RFC 3246, RFC 5865, RFC 8622).
const NAMED: [(&str, u8); 3] = [("EF", 46), ("VA", 44), ("LE", 1)];

impl Dscp {
    /// Returns the digits of an AF class, as 41; `None` for any other codepoint.
    fn assured(self) -> Option<u8> {
        let (class, precedence) = (self.0 >> 3, (self.0 & 7) / 2);
        let is_class = (1..=4).contains(&class) && self.0 % 2 == 0;
        (is_class && (1..=3).contains(&precedence)).then_some(class * 10 + precedence)
    }
}

impl FromStr for Dscp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = (0..64).map(Self);
        let found = all.find(|dscp| {
            text == dscp.0.to_string()
                || dscp
                    .class()
                    .is_some_and(|class| class.eq_ignore_ascii_case(text))
        });
        found.ok_or_else(|| {
            "is no DSCP: write CS0 to CS7, AF11 to AF43, EF, VA, LE, or 0 to 63".to_owned()
        })
    }
}

impl Dscp {
    /// Returns the name of its class; `None` if it has none.
    fn class(self) -> Option<String> {
        if let Some((name, _)) = NAMED.iter().find(|row| row.1 == self.0) {
            return Some((*name).to_owned());
        }
        match self.assured() {
            Some(digits) => Some(format!("AF{digits}")),
            None if self.0 % 8 == 0 => Some(format!("CS{}", self.0 / 8)),
            None => None,
        }
    }
}

/// The class and the number: `EF (46)`, or the number alone.
impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            Some(class) => write!(f, "{class} ({})", self.0),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_codepoints_of_their_standards() {
        for (class, number) in [
            ("CS0", 0),
            ("LE", 1),
            ("CS1", 8),
            ("AF11", 10),
            ("AF12", 12),
            ("AF13", 14),
            ("CS2", 16),
            ("AF21", 18),
            ("AF23", 22),
            ("AF31", 26),
            ("AF33", 30),
            ("CS4", 32),
            ("AF41", 34),
            ("AF43", 38),
            ("CS5", 40),
            ("VA", 44),
            ("EF", 46),
            ("CS6", 48),
            ("CS7", 56),
        ] {
            assert_eq!(class.parse(), Ok(Dscp(number)));
            assert_eq!(class.to_lowercase().parse(), Ok(Dscp(number)));
            assert_eq!(Dscp(number).to_string(), format!("{class} ({number})"));
        }
        let named = (0..64).filter(|number| Dscp(*number).class().is_some());
        assert_eq!(named.count(), 8 + 12 + NAMED.len());
        for number in 0..64 {
            assert_eq!(number.to_string().parse(), Ok(Dscp(number)));
        }
        assert_eq!(Dscp(63).to_string(), "63");
        for wrong in ["64", "-1", "AF14", "AF51", "CS8", "", "046", "+1", "EF "] {
            assert!(wrong.parse::<Dscp>().is_err(), "{wrong}");
        }
    }
}
