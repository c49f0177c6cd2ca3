//! Values in, JSON text out (RFC 8259); as much of it as our reports need.

use super::super::is_unprintable;
use crate::decimal::Digits;
use crate::time::{Nanos, SignedNanos, WallTime};
use std::fmt::Write as _;

/// Returns `true` if a string has this byte as it is.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// Something that has a JSON form.
pub trait ToJson {
    /// Appends itself to `w`.
    fn to_json(self, w: &mut Writer);
}

/// An object, filled by a function that calls [`Writer::pair`].
pub struct Object<F: FnOnce(&mut Writer)>(pub F);

/// An array of everything that the iterator yields.
pub struct Array<I>(pub I);

/// A JSON text in the making.
///
/// Separators follow from the order of calls, so what comes out is well formed if every object is
/// filled by pairs only.
pub struct Writer {
    out: String,
    /// Containers down to this depth have a line per member; 0 is one line for all, without spaces.
    broken_depth: usize,
    depth: usize,
    is_first: bool,
}

impl Writer {
    /// Returns a writer of one line without spaces.
    pub fn compact() -> Self {
        Self {
            out: String::new(),
            broken_depth: 0,
            depth: 0,
            is_first: true,
        }
    }

    /// Indented by two spaces down to `depth` containers; what is deeper stays on one line.
    pub fn indented(depth: usize) -> Self {
        Self {
            broken_depth: depth,
            ..Self::compact()
        }
    }

    /// Writes `value` as the whole text.
    pub fn finish(mut self, value: impl ToJson) -> String {
        value.to_json(&mut self);
        self.out
    }

    /// Appends `value` to `out`, whose room it uses.
    pub fn append(mut self, value: impl ToJson, out: &mut String) {
        self.out = std::mem::take(out);
        *out = self.finish(value);
    }

    /// A member of the object that is being filled. A key of ours needs no escapes.
    pub fn pair(&mut self, key: &'static str, value: impl ToJson) {
        debug_assert!(key.bytes().all(is_plain), "{key:?}");
        self.separate();
        self.out.push('"');
        self.out.push_str(key);
        self.out
            .push_str(if self.broken_depth > 0 { "\": " } else { "\":" });
        value.to_json(self);
    }

    /// The same with a key of others.
    pub fn pair_named(&mut self, key: &str, value: impl ToJson) {
        self.separate();
        key.to_json(self);
        self.out
            .push_str(if self.broken_depth > 0 { ": " } else { ":" });
        value.to_json(self);
    }

    fn container(&mut self, brackets: [char; 2], fill: impl FnOnce(&mut Self)) {
        self.out.push(brackets[0]);
        self.depth += 1;
        self.is_first = true;
        fill(self);
        self.depth -= 1;
        if !self.is_first && self.depth < self.broken_depth {
            self.start_line();
        }
        self.is_first = false;
        self.out.push(brackets[1]);
    }

    fn separate(&mut self) {
        let is_first = std::mem::replace(&mut self.is_first, false);
        if !is_first {
            self.out.push(',');
        }
        if self.depth <= self.broken_depth {
            if self.broken_depth > 0 {
                self.start_line();
            }
        } else if !is_first && self.broken_depth > 0 {
            self.out.push(' ');
        }
    }

    fn start_line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat("  ").take(self.depth));
    }

    /// Appends what is a JSON token as it is displayed.
    fn token(&mut self, token: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{token}");
    }
}

impl<F: FnOnce(&mut Writer)> ToJson for Object<F> {
    fn to_json(self, w: &mut Writer) {
        w.container(['{', '}'], self.0);
    }
}

impl<I: IntoIterator> ToJson for Array<I>
where
    I::Item: ToJson,
{
    fn to_json(self, w: &mut Writer) {
        w.container(['[', ']'], |w| {
            for item in self.0 {
                w.separate();
                item.to_json(w);
            }
        });
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(self, w: &mut Writer) {
        match self {
            Some(value) => value.to_json(w),
            None => w.out.push_str("null"),
        }
    }
}

impl ToJson for &str {
    /// Escapes what RFC 8259 §7 demands, and what would steer a terminal that the text is shown on
    /// (C1 controls, bidirectional formatting). Bytes that are no UTF-8 cannot be in a `str`: the
    /// reader of a peer's bytes replaces them.
    fn to_json(self, w: &mut Writer) {
        w.out.push('"');
        let end = self.bytes().position(|byte| !is_plain(byte));
        // Nearly all strings are plain to their end.
        let (plain, rest) = self.split_at(end.unwrap_or(self.len()));
        w.out.push_str(plain);
        for c in rest.chars() {
            match c {
                '"' => w.out.push_str("\\\""),
                '\\' => w.out.push_str("\\\\"),
                '\n' => w.out.push_str("\\n"),
                '\r' => w.out.push_str("\\r"),
                '\t' => w.out.push_str("\\t"),
                // All of these lie below U+10000 and need no surrogate pair.
                c if is_unprintable(c) => w.token(format_args!("\\u{:04x}", u32::from(c))),
                c => w.out.push(c),
            }
        }
        w.out.push('"');
    }
}

impl ToJson for &String {
    fn to_json(self, w: &mut Writer) {
        self.as_str().to_json(w);
    }
}

impl ToJson for bool {
    fn to_json(self, w: &mut Writer) {
        w.out.push_str(if self { "true" } else { "false" });
    }
}

impl ToJson for u64 {
    fn to_json(self, w: &mut Writer) {
        w.out.push_str(Digits::of(self).as_str());
    }
}

impl ToJson for f64 {
    /// Writes at most six digits after the point; null for NaN and infinities, which JSON lacks.
    fn to_json(self, w: &mut Writer) {
        if !self.is_finite() {
            return w.out.push_str("null");
        }
        if self.fract() == 0.0 && self.abs() < 1e15 {
            return w.out.push_str(Digits::of_signed(self as i64).as_str());
        }
        let digits = format!("{self:.6}");
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        w.token(if digits == "-0" { "0" } else { digits });
    }
}

impl ToJson for Nanos {
    fn to_json(self, w: &mut Writer) {
        self.0.to_json(w);
    }
}

impl ToJson for SignedNanos {
    fn to_json(self, w: &mut Writer) {
        w.out.push_str(Digits::of_signed(self.0).as_str());
    }
}

impl ToJson for WallTime {
    fn to_json(self, w: &mut Writer) {
        let text = self.rfc_3339();
        w.out.push('"');
        w.out
            .push_str(std::str::from_utf8(&text).unwrap_or_default());
        w.out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::json::{parse, Value};

    #[test]
    fn strings_come_back_as_they_were_and_leave_no_control_character_in_the_text() {
        let text: String = (0..0x300)
            .chain(0x2000..0x2100)
            .chain([0xfeff, 0x1f600])
            .filter_map(char::from_u32)
            .collect();
        let json = Writer::compact().finish(&text);
        assert!(!json.chars().any(char::is_control), "{json:?}");
        assert_eq!(parse(json.as_bytes()), Ok(Value::String(text)));
    }

    #[test]
    fn floats_have_six_digits_at_most_and_are_finite() {
        for (number, text) in [
            (0.0, "0"),
            (-0.000_000_1, "0"),
            (0.92, "0.92"),
            (1.0 / 3.0, "0.333333"),
            (100.0, "100"),
            (1e-6, "0.000001"),
            (-12.5, "-12.5"),
            (f64::NAN, "null"),
            (f64::NEG_INFINITY, "null"),
        ] {
            assert_eq!(Writer::compact().finish(number), text);
        }
    }

    #[test]
    fn containers_are_broken_into_lines_down_to_the_given_depth() {
        let write = |w: Writer| {
            w.finish(Object(|w| {
                w.pair("a", Array([1u64, 2]));
                w.pair("b", Object(|_| {}));
                w.pair("c", Array([Array([3u64, 4])]));
            }))
        };
        assert_eq!(
            write(Writer::compact()),
            r#"{"a":[1,2],"b":{},"c":[[3,4]]}"#
        );
        assert_eq!(
            write(Writer::indented(2)),
            "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {},\n  \"c\": [\n    [3, 4]\n  ]\n}"
        );
    }
}
