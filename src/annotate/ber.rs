//! The part of ASN.1's basic encoding rules that SNMP uses (RFC 3417 §8): single-byte tags,
//! definite lengths. Bytes in, values out, and back.

use std::fmt;

/// The tag of an INTEGER.
pub const INTEGER: u8 = 0x02;
/// The tag of an OCTET STRING.
pub const OCTETS: u8 = 0x04;
/// The tag of a NULL.
pub const NULL: u8 = 0x05;
/// The tag of an OBJECT IDENTIFIER.
pub const OID: u8 = 0x06;
/// The tag of a SEQUENCE.
pub const SEQUENCE: u8 = 0x30;

/// The most sub-identifiers of an object (RFC 2578 §3.5).
pub const OID_MAX: usize = 128;

/// The reason for which bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BerError {
    /// A length exceeds the remaining bytes.
    Cut,
    /// A value has another type than expected.
    Tag {
        /// The tag in the message.
        seen: u8,
        /// The tag that belongs there.
        expected: u8,
    },
    /// An encoding that SNMP does not use, or a number too large.
    Form,
}

impl fmt::Display for BerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("a length exceeds the remaining bytes"),
            Self::Tag { seen, expected } => {
                write!(
                    f,
                    "a value of type {seen:#04x} where {expected:#04x} belongs"
                )
            }
            Self::Form => f.write_str("a form that SNMP does not use"),
        }
    }
}

impl std::error::Error for BerError {}

/// Encodes `content` as a value of type `tag`.
pub fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if content.len() < 0x80 {
        out.push(content.len() as u8);
    } else {
        let bytes = (content.len() as u32).to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|&&byte| byte == 0).count()..];
        out.push(0x80 | bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
    out.extend_from_slice(content);
    out
}

/// Encodes an INTEGER in as few bytes as possible.
pub fn integer(value: i32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let spare = |pair: &&[u8]| {
        let sign = if pair[1] & 0x80 == 0 { 0 } else { 0xff };
        pair[0] == sign
    };
    let skip = bytes.windows(2).take_while(spare).count();
    wrap(INTEGER, &bytes[skip..])
}

/// Encodes an OBJECT IDENTIFIER; the first two numbers share a byte.
pub fn oid(numbers: &[u32]) -> Vec<u8> {
    let mut content = Vec::new();
    let first = match numbers {
        [first, second, ..] => first * 40 + second,
        _ => 0,
    };
    for &number in [first].iter().chain(numbers.iter().skip(2)) {
        let groups = (1..5).filter(|group| number >> (7 * group) > 0).count();
        for group in (0..=groups).rev() {
            let more = if group > 0 { 0x80 } else { 0 };
            content.push((number >> (7 * group)) as u8 & 0x7f | more);
        }
    }
    wrap(OID, &content)
}

/// A reader of consecutive values.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a>(pub &'a [u8]);

impl<'a> Values<'a> {
    /// Takes the next value and returns its tag and its content.
    ///
    /// # Errors
    ///
    /// [`BerError`], also if there is no value left.
    pub fn take(&mut self) -> Result<(u8, &'a [u8]), BerError> {
        let (&[tag, len], mut rest) = self.0.split_first_chunk().ok_or(BerError::Cut)?;
        if tag & 0x1f == 0x1f {
            return Err(BerError::Form); // Longer tags, of which SNMP has none.
        }
        let mut size = usize::from(len);
        if len & 0x80 != 0 {
            let count = usize::from(len & 0x7f);
            if !(1..=4).contains(&count) {
                return Err(BerError::Form); // Indefinite, or beyond any datagram.
            }
            let (bytes, tail) = rest.split_at_checked(count).ok_or(BerError::Cut)?;
            let number = bytes
                .iter()
                .fold(0_u32, |all, &byte| all << 8 | u32::from(byte));
            size = usize::try_from(number).map_err(|_| BerError::Cut)?;
            rest = tail;
        }
        let (content, tail) = rest.split_at_checked(size).ok_or(BerError::Cut)?;
        self.0 = tail;
        Ok((tag, content))
    }

    /// Takes the next value, which has to be of type `expected`, and returns its content.
    ///
    /// # Errors
    ///
    /// [`BerError`].
    pub fn expect(&mut self, expected: u8) -> Result<&'a [u8], BerError> {
        match self.take()? {
            (tag, content) if tag == expected => Ok(content),
            (seen, _) => Err(BerError::Tag { seen, expected }),
        }
    }

    /// Takes the next value, which has to be an INTEGER.
    ///
    /// # Errors
    ///
    /// [`BerError`].
    pub fn integer(&mut self) -> Result<i64, BerError> {
        read_integer(self.expect(INTEGER)?)
    }

    /// Returns `true` if no value is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Decodes the content of an INTEGER.
///
/// # Errors
///
/// [`BerError::Form`] beyond 64 bits.
pub fn read_integer(content: &[u8]) -> Result<i64, BerError> {
    if !(1..=8).contains(&content.len()) {
        return Err(BerError::Form);
    }
    let sign = if content[0] & 0x80 == 0 { 0 } else { -1 };
    Ok(content
        .iter()
        .fold(sign, |all, &byte| all << 8 | i64::from(byte)))
}

/// Decodes the content of a counter or gauge, an INTEGER without a sign: up to 64 bits behind a
/// zero.
///
/// # Errors
///
/// [`BerError::Form`] beyond 64 bits.
pub fn read_unsigned(content: &[u8]) -> Result<u64, BerError> {
    let digits = match content {
        [0, digits @ ..] if content.len() == 9 => digits,
        digits if (1..=8).contains(&digits.len()) => digits,
        _ => return Err(BerError::Form),
    };
    Ok(digits
        .iter()
        .fold(0, |all, &byte| all << 8 | u64::from(byte)))
}

/// Decodes the content of an OBJECT IDENTIFIER.
///
/// # Errors
///
/// [`BerError::Form`] for one that is empty, ends within a number, or is too long.
pub fn read_oid(content: &[u8]) -> Result<Vec<u32>, BerError> {
    let mut numbers = Vec::new();
    let mut number: u32 = 0;
    let mut within = true;
    for &byte in content {
        number = number.checked_mul(128).ok_or(BerError::Form)? | u32::from(byte & 0x7f);
        within = byte & 0x80 != 0;
        if within {
            continue;
        }
        if numbers.is_empty() {
            let first = (number / 40).min(2);
            numbers.extend([first, number - first * 40]);
        } else {
            numbers.push(number);
        }
        number = 0;
        if numbers.len() > OID_MAX {
            return Err(BerError::Form);
        }
    }
    if within {
        return Err(BerError::Form);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_few_bytes_as_they_need() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0, 0x80]),
            (-1, &[0xff]),
            (-128, &[0x80]),
            (-129, &[0xff, 0x7f]),
            (i32::MAX, &[0x7f, 0xff, 0xff, 0xff]),
            (i32::MIN, &[0x80, 0, 0, 0]),
        ] {
            let encoded = integer(value);
            assert_eq!(&encoded[2..], bytes, "{value}");
            assert_eq!(Values(&encoded).integer(), Ok(i64::from(value)));
        }
        assert_eq!(read_unsigned(&[0, 0xff, 0xff, 0xff, 0xff]), Ok(0xffff_ffff));
        assert_eq!(read_unsigned(&[0; 9]), Ok(0));
        assert_eq!(read_unsigned(&[1; 9]), Err(BerError::Form));
        assert_eq!(read_unsigned(&[]), Err(BerError::Form));
    }

    #[test]
    fn objects_are_written_and_read() {
        let numbers = [1, 3, 6, 1, 4, 1, 2021, 10, 1, 3, u32::MAX];
        #[rustfmt::skip]
        let golden = [6, 15, 0x2b, 6, 1, 4, 1, 0x8f, 0x65, 10, 1, 3, 0x8f, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(oid(&numbers), golden);
        assert_eq!(read_oid(&golden[2..]), Ok(numbers.to_vec()));
        assert_eq!(
            read_oid(&golden[2..8]),
            Err(BerError::Form),
            "ends within a number"
        );
        assert_eq!(read_oid(&[]), Err(BerError::Form));
        assert_eq!(read_oid(&[0x90, 0x80, 0x80, 0x80, 0]), Err(BerError::Form));
        assert_eq!(read_oid(&[1; 200]), Err(BerError::Form));
    }

    #[test]
    fn lengths_are_checked_before_they_are_used() {
        let long = wrap(OCTETS, &[7; 300]);
        assert_eq!(long[..4], [4, 0x82, 1, 44]);
        assert_eq!(Values(&long).expect(OCTETS), Ok(&[7; 300][..]));
        for len in 0..long.len() {
            assert_eq!(Values(&long[..len]).take(), Err(BerError::Cut), "{len}");
        }
        for (bytes, error) in [
            (&[4, 0x80][..], BerError::Form),
            (&[4, 0x85, 0, 0, 0, 0, 1], BerError::Form),
            (&[0x1f, 1, 0], BerError::Form),
            (&[4, 0x84, 0xff, 0xff, 0xff, 0xff], BerError::Cut),
        ] {
            assert_eq!(Values(bytes).take(), Err(error), "{bytes:x?}");
        }
    }
}
