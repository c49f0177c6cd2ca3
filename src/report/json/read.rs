//! Strict reader of JSON (RFC 8259) for tests: bounded in size and depth, errors with their
//! position.
//!
//! `src/report/tests/mod.rs` includes it too, and tests it.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of it.

use std::fmt;

/// The longest text that is read, in bytes.
pub const MAX_LEN: usize = 16 << 20;
/// The deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: usize = 64;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it was written, so that 64-bit integers stay exact.
    Number(String),
    /// A string, escapes resolved.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, in the order of the text; no key is there twice.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The value at a path of keys and indexes, `segments/0/from`; `None` where there is none.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |value, step| match value {
            Self::Object(members) => members
                .iter()
                .find(|(key, _)| key == step)
                .map(|(_, value)| value),
            Self::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The keys of an object in the order of the text; `None` for what is no object.
    pub fn keys(&self) -> Option<Vec<&str>> {
        match self {
            Self::Object(members) => Some(members.iter().map(|(key, _)| key.as_str()).collect()),
            _ => None,
        }
    }

    /// The items of an array; `None` for what is no array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a string; `None` for what is no string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of an integer; `None` for what is no number, has a fraction or exponent, or does
    /// not fit.
    pub fn as_i64(&self) -> Option<i64> {
        self.parse_number()
    }

    /// The value of an integer from 0; `None` as in [`Value::as_i64`].
    pub fn as_u64(&self) -> Option<u64> {
        self.parse_number()
    }

    /// The value of a number; `None` for what is no number.
    pub fn as_f64(&self) -> Option<f64> {
        self.parse_number()
    }

    /// Returns `true` if it is `null`.
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    fn parse_number<T: std::str::FromStr>(&self) -> Option<T> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }
}

/// The reason why a text is not JSON, or not JSON that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Offset of the byte at which it was seen.
    pub at: usize,
    /// The fault there.
    pub what: &'static str,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for ReadError {}

/// Reads one JSON value that is the whole of `bytes`, but for white space around it.
///
/// # Errors
/// For anything RFC 8259 does not allow, for a key that is twice in its object, and beyond
/// [`MAX_LEN`] and [`MAX_DEPTH`].
pub fn parse(bytes: &[u8]) -> Result<Value, ReadError> {
    if bytes.len() > MAX_LEN {
        return Err(ReadError {
            at: MAX_LEN,
            what: "text too long",
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| ReadError {
        at: error.valid_up_to(),
        what: "not UTF-8",
    })?;
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    let value = reader.value()?;
    if reader.next_token().is_some() {
        return Err(reader.error("something after the value"));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    /// Always on a character boundary of `text`.
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, what: &'static str) -> ReadError {
        ReadError { at: self.at, what }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// The next byte that is no white space, not consumed.
    fn next_token(&mut self) -> Option<u8> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.rest().bytes().next()
    }

    /// Consumes `token` if it is next.
    fn eat(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn value(&mut self) -> Result<Value, ReadError> {
        match self.next_token() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => [
                ("null", Value::Null),
                ("true", Value::Bool(true)),
                ("false", Value::Bool(false)),
            ]
            .into_iter()
            .find_map(|(word, value)| self.eat(word).then_some(value))
            .ok_or_else(|| self.error("no value")),
        }
    }

    /// Reads a container whose opening bracket is next.
    fn nested(
        &mut self,
        read: impl Fn(&mut Self) -> Result<Value, ReadError>,
    ) -> Result<Value, ReadError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error("nested too deep"));
        }
        self.at += 1;
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn array(&mut self) -> Result<Value, ReadError> {
        let mut items = Vec::new();
        self.list("]", |reader| {
            items.push(reader.value()?);
            Ok(())
        })?;
        Ok(Value::Array(items))
    }

    fn object(&mut self) -> Result<Value, ReadError> {
        let mut members: Vec<(String, Value)> = Vec::new();
        self.list("}", |reader| {
            if reader.next_token() != Some(b'"') {
                return Err(reader.error("no key"));
            }
            let key = reader.string()?;
            if members.iter().any(|(known, _)| *known == key) {
                return Err(reader.error("key is there twice"));
            }
            reader.next_token();
            if !reader.eat(":") {
                return Err(reader.error("no colon after a key"));
            }
            members.push((key, reader.value()?));
            Ok(())
        })?;
        Ok(Value::Object(members))
    }

    /// Items separated by commas, up to and with the closing bracket `end`.
    fn list(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.next_token();
        if self.eat(end) {
            return Ok(());
        }
        loop {
            item(self)?;
            self.next_token();
            if self.eat(end) {
                return Ok(());
            }
            if !self.eat(",") {
                return Err(self.error("neither a comma nor the end of the list"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, ReadError> {
        let start = self.at;
        self.eat("-");
        if !self.eat("0") {
            self.digits()?;
        }
        if self.eat(".") {
            self.digits()?;
        }
        if self.eat("e") || self.eat("E") {
            if !self.eat("+") {
                self.eat("-");
            }
            self.digits()?;
        }
        Ok(Value::Number(
            self.text.get(start..self.at).unwrap_or("").to_owned(),
        ))
    }

    fn digits(&mut self) -> Result<(), ReadError> {
        let count = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        if count == 0 {
            return Err(self.error("no digit"));
        }
        Ok(())
    }

    /// Reads a string whose opening quote is next.
    fn string(&mut self) -> Result<String, ReadError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(self.error("string without an end"));
            };
            if u32::from(c) < 0x20 {
                return Err(self.error("control character in a string"));
            }
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                c => out.push(c),
            }
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<char, ReadError> {
        const SIMPLE: [(&str, char); 8] = [
            ("\"", '"'),
            ("\\", '\\'),
            ("/", '/'),
            ("b", '\u{8}'),
            ("f", '\u{c}'),
            ("n", '\n'),
            ("r", '\r'),
            ("t", '\t'),
        ];
        if let Some((_, c)) = SIMPLE.into_iter().find(|(letter, _)| self.eat(letter)) {
            return Ok(c);
        }
        if !self.eat("u") {
            return Err(self.error("unknown escape"));
        }
        let mut units = vec![self.hex_unit()?];
        if (0xd800..0xdc00).contains(&units[0]) && self.eat("\\u") {
            units.push(self.hex_unit()?);
        }
        let mut decoded = char::decode_utf16(units);
        match (decoded.next(), decoded.next()) {
            (Some(Ok(c)), None) => Ok(c),
            _ => Err(self.error("half of a surrogate pair")),
        }
    }

    fn hex_unit(&mut self) -> Result<u16, ReadError> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.error("not four hex digits"))?;
        self.at += 4;
        Ok(unit)
    }
}
