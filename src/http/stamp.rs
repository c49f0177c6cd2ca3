//! The stamps of other programs in the heads of HTTP: values of fields in; who stamped, when, and
//! on whose clock out. Pure.
//!
//! Read, as HAProxy, Squid, nginx and Envoy write them: seconds, milliseconds or microseconds since
//! 1970, by magnitude, alone, as `t=TIME`, as `NAME TIME` or as `NAME t=TIME`, in comma lists and
//! in several fields of one name. A bare 0 to 999 is the milliseconds of HAProxy's `%ms`. Also
//! `Via`, `Server-Timing` and `traceparent`.

use super::head::{trimmed, MessageKind};
use crate::time::{SignedNanos, WallTime};
use std::fmt;
use std::sync::Arc;

/// The fields that are read as stamps without being named.
pub const DEFAULT_NAMES: [&str; 4] = [
    "X-Request-Start",
    "X-Queue-Start",
    "X-my-header-timeStamp-at-Proxy",
    "X-my-http-header-timeStamp-at-Proxy",
];

/// Most elements of a kind that are kept of a request and its response.
const ELEMENTS: usize = 16;

/// Most characters that are kept of a name or a value.
const TEXT: usize = 64;

/// The bytes that an element is taken to need in memory.
const ELEMENT_BYTES: usize = 256;

/// A stamp further than this from this node's own time is no measurement.
const PLAUSIBLE: SignedNanos = SignedNanos(24 * 3_600 * 1_000_000_000);

/// A second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The names of the fields that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampNames {
    names: Vec<Arc<str>>,
    /// Bit N: a name has N bytes.
    lengths: u64,
}

/// The way in which a field is read.
#[derive(Clone, Copy)]
enum Field<'a> {
    Stamps(&'a Arc<str>),
    Via,
    ServerTiming,
    UpstreamTime,
    TraceParent,
}

/// Fields with a form of their own.
const OTHERS: [(&str, Field<'static>); 4] = [
    ("Via", Field::Via),
    ("Server-Timing", Field::ServerTiming),
    ("X-Envoy-Upstream-Service-Time", Field::UpstreamTime),
    ("traceparent", Field::TraceParent),
];

impl StampNames {
    /// Returns the default names and `more`.
    pub fn new(more: &[String]) -> Self {
        let more = more.iter().map(String::as_str);
        let names: Vec<Arc<str>> = DEFAULT_NAMES
            .into_iter()
            .chain(more)
            .map(Arc::from)
            .collect();
        let others = OTHERS.iter().map(|(name, _)| name.len());
        let lengths = names.iter().map(|name| name.len()).chain(others);
        let lengths = lengths.fold(0, |bits, length| bits | 1 << length.min(63));
        Self { names, lengths }
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<Field<'_>> {
        if self.lengths & (1 << name.len().min(63)) == 0 {
            return None;
        }
        let is_it = |known: &str| known.as_bytes().eq_ignore_ascii_case(name);
        let stamps = self.names.iter().find(|known| is_it(known));
        let other = || OTHERS.iter().find(|(known, _)| is_it(known));
        stamps.map(Field::Stamps).or_else(|| Some(other()?.1))
    }

    /// Reads a field of a head, if it is one of these, into `headers`.
    #[inline]
    pub fn read(
        &self,
        kind: MessageKind,
        name: &[u8],
        value: &[u8],
        headers: &mut Option<Box<StampedHeaders>>,
    ) {
        if let Some(field) = self.find(name) {
            headers
                .get_or_insert_with(Box::default)
                .read(kind, field, value);
        }
    }
}

/// The node of ours whose clock a program's stamps are of, and that clock less ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampClock {
    /// The name in the stamps.
    pub name: Box<str>,
    /// The name of the node.
    pub node: Box<str>,
    /// The node's clock less ours; `None` if it is not known.
    pub offset: Option<SignedNanos>,
}

/// The value of a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StampValue {
    Time(WallTime),
    /// Milliseconds within an unknown second.
    Milliseconds(u16),
    Unreadable,
}

/// One stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderStamp {
    /// The head that has it.
    pub kind: MessageKind,
    /// The name of its field, as the reader was given it.
    pub field: Arc<str>,
    /// Its place among the stamps of that field, 1 for the first.
    pub place: u32,
    /// The name in front of the time; `None` without one.
    pub name: Option<Box<str>>,
    /// As it was written, shortened.
    pub raw: Box<str>,
    /// On the clock of the program that stamped; `None` if it cannot be read, or lies a day or more
    /// from our own time.
    pub time: Option<WallTime>,
    /// `true` if the stamp holds milliseconds alone: the second is the nearest to our own time.
    pub is_modulo: bool,
    /// The node whose clock that is; `None` if none is known.
    pub clock: Option<Box<str>>,
    /// That clock less ours; `None` if it is not known: clocks unsynchronised.
    pub offset: Option<SignedNanos>,
    value: StampValue,
}

/// A delay between two stamps, or from a stamp to our own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampDelay {
    /// Signed where two clocks meet.
    pub delay: SignedNanos,
    /// `true` if both ends are of one clock, or of clocks whose offset was taken out.
    pub is_corrected: bool,
    /// `true` if an end holds milliseconds alone.
    pub is_modulo: bool,
}

impl HeaderStamp {
    /// Returns its name, or its field and place without one.
    pub fn who(&self) -> String {
        match (&self.name, self.place) {
            (Some(name), _) => name.to_string(),
            (None, 1) => self.field.to_string(),
            (None, place) => format!("{} #{place}", self.field),
        }
    }

    /// Returns `true` if `before` stamped the same field of the same head just before.
    fn follows(&self, before: &Self) -> bool {
        let same = self.kind == before.kind && self.field == before.field;
        same && before.place + 1 == self.place
    }

    /// Returns the delay since the stamp before; `None` if one of the two has no time.
    fn since(&self, before: &Self) -> Option<StampDelay> {
        let raw = self.time? - before.time?;
        let same = self.clock.is_some() && self.clock == before.clock;
        let offset = self.offset.zip(before.offset);
        Some(StampDelay {
            delay: match offset {
                Some((own, before)) if !same => raw - (own - before),
                _ => raw,
            },
            is_corrected: same || offset.is_some(),
            is_modulo: self.is_modulo || before.is_modulo,
        })
    }

    /// Returns the delay from the stamp to `own`, a time of our clock; `None` if it has no time.
    pub fn until(&self, own: WallTime) -> Option<StampDelay> {
        let raw = own - self.time?;
        Some(StampDelay {
            delay: raw + self.offset.unwrap_or_default(),
            is_corrected: self.offset.is_some(),
            is_modulo: self.is_modulo,
        })
    }
}

/// A duration that a server reports of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMetric {
    /// The name of the metric.
    pub name: Box<str>,
    /// Its duration; `None` if it has none.
    pub duration: Option<SignedNanos>,
    /// Its description, shortened.
    pub description: Option<Box<str>>,
}

/// The trace of a request, by W3C Trace Context; `Display` writes the field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The identifier of the trace, not 0.
    pub trace: u128,
    /// The identifier of the span that sent the request, not 0.
    pub parent: u64,
    /// Bit 0: the trace is sampled.
    pub flags: u8,
}

impl TraceParent {
    /// Reads the value of `traceparent`; `None` if it is malformed.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(trimmed(value)).ok()?;
        let is_lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if !text.bytes().take(55).all(is_lower) || text.len() < 55 {
            return None;
        }
        let mut parts = text.split('-');
        let mut hex = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length)?;
            u128::from_str_radix(part, 16).ok()
        };
        let (version, trace) = (hex(2)?, hex(32)?);
        let (parent, flags) = (hex(16)? as u64, hex(2)? as u8);
        let fits = version != 0xff && (version > 0 || text.len() == 55);
        (fits && trace != 0 && parent != 0).then_some(Self {
            trace,
            parent,
            flags,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.parent, self.flags
        )
    }
}

/// What other programs left in the heads of a request and its response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StampedHeaders {
    /// Stamps, in the order in which they stand.
    pub stamps: Vec<HeaderStamp>,
    /// The elements of `Via` of the request.
    pub via: Vec<Box<str>>,
    /// The durations of `Server-Timing`.
    pub timings: Vec<ServerMetric>,
    /// The trace that the request belongs to.
    pub trace_parent: Option<TraceParent>,
    /// Elements beyond those kept.
    pub left_out: u32,
    /// Set if stamps are among those: the last one kept is not the last of all.
    is_cut: bool,
}

/// The stamps of a request and its response, and when the first bytes of both passed here.
pub type StampedExchange = (StampedHeaders, [Option<WallTime>; 2]);

impl StampedHeaders {
    fn read(&mut self, kind: MessageKind, field: Field<'_>, value: &[u8]) {
        match field {
            Field::Stamps(name) => {
                let before = self.stamps.iter().rev();
                let mut before = before.filter(|stamp| stamp.kind == kind && stamp.field == *name);
                let mut place = before.next().map_or(0, |stamp| stamp.place);
                for element in Elements(Some(value), Nesting::None) {
                    place += 1;
                    if self.stamps.len() < ELEMENTS {
                        self.stamps.push(stamp(kind, name, place, element));
                    } else {
                        self.left_out += 1;
                        self.is_cut = true;
                    }
                }
            }
            Field::Via if kind == MessageKind::Request => {
                for element in Elements(Some(value), Nesting::Comments) {
                    match self.via.len() < ELEMENTS {
                        true => self.via.push(text(element)),
                        false => self.left_out += 1,
                    }
                }
            }
            Field::ServerTiming if kind == MessageKind::Response => {
                for element in Elements(Some(value), Nesting::Quotes) {
                    self.timing(server_timing(element));
                }
            }
            Field::UpstreamTime if kind == MessageKind::Response => {
                self.timing(ServerMetric {
                    name: "envoy upstream".into(),
                    duration: milliseconds(trimmed(value)),
                    description: None,
                });
            }
            Field::TraceParent if kind == MessageKind::Request => {
                self.trace_parent = self.trace_parent.or_else(|| TraceParent::parse(value));
            }
            _ => {}
        }
    }

    fn timing(&mut self, timing: ServerMetric) {
        match self.timings.len() < ELEMENTS {
            true => self.timings.push(timing),
            false => self.left_out += 1,
        }
    }

    /// Places the stamps of a kind of message in time: `own` is when its first byte passed here.
    pub fn resolve(&mut self, kind: MessageKind, own: Option<WallTime>, clocks: &[StampClock]) {
        for stamp in self.stamps.iter_mut().filter(|stamp| stamp.kind == kind) {
            let who = stamp.who();
            let clock = clocks.iter().find(|clock| *clock.name == who);
            stamp.clock = clock.map(|clock| clock.node.clone());
            stamp.offset = clock.and_then(|clock| clock.offset);
            let time = match stamp.value {
                StampValue::Time(time) => Some(time),
                StampValue::Milliseconds(millis) => {
                    let clock = own.map(|own| own + stamp.offset.unwrap_or_default());
                    clock.map(|near| nearest(millis, near))
                }
                StampValue::Unreadable => None,
            };
            let is_near =
                |time: &WallTime| own.map_or(true, |own| (own - *time).abs() < PLAUSIBLE.abs());
            stamp.time = time.filter(is_near);
        }
    }

    /// Returns the delay from the stamp before that at `index`; `None` if none stands before it in
    /// its field, or one of the two has no time.
    pub fn since_previous(&self, index: usize) -> Option<StampDelay> {
        let stamp = self.stamps.get(index)?;
        let before = self.stamps[..index].iter().rev();
        let before = before.into_iter().find(|before| stamp.follows(before))?;
        stamp.since(before)
    }

    /// Returns each sub-segment between stamps: from, to and the delay. It ends here where the
    /// second is `None`: `own` are the times of request and response here.
    pub fn delays(
        &self,
        own: [Option<WallTime>; 2],
    ) -> impl Iterator<Item = (&HeaderStamp, Option<&HeaderStamp>, StampDelay)> {
        self.stamps
            .iter()
            .enumerate()
            .filter_map(move |(at, stamp)| {
                let later = self.stamps[at + 1..]
                    .iter()
                    .find(|later| later.follows(stamp));
                let delay = match (later, own[stamp.kind as usize]) {
                    (Some(later), _) => later.since(stamp)?,
                    (None, own) => stamp.until(own.filter(|_| !self.is_cut)?)?,
                };
                Some((stamp, later, delay))
            })
    }

    /// Drops what the response had: it answers another request.
    pub fn forget_response(&mut self) {
        self.stamps
            .retain(|stamp| stamp.kind == MessageKind::Request);
        self.timings.clear();
    }

    /// Returns the bytes of memory that it is counted with.
    pub fn memory(&self) -> usize {
        let elements = self.stamps.len() + self.via.len() + self.timings.len();
        size_of::<Self>() + elements * ELEMENT_BYTES
    }
}

/// Returns the time nearest to `near` whose milliseconds are `millis`.
fn nearest(millis: u16, near: WallTime) -> WallTime {
    let within = u64::from(millis) * (SECOND / 1000);
    let same = near.0 - near.0 % SECOND + within;
    let nearest = match near.0 % SECOND {
        now if within + SECOND / 2 < now => same.saturating_add(SECOND),
        now if within > now + SECOND / 2 => same.saturating_sub(SECOND),
        _ => same,
    };
    WallTime(nearest)
}

/// What hides the commas of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nesting {
    None,
    Comments,
    Quotes,
}

/// The elements of a comma list that are not empty.
struct Elements<'a>(Option<&'a [u8]>, Nesting);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let list = self.0?;
            let end = comma(list, self.1);
            self.0 = end.map(|end| &list[end + 1..]);
            let element = trimmed(&list[..end.unwrap_or(list.len())]);
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

fn comma(list: &[u8], nesting: Nesting) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    list.iter().position(|byte| {
        let was_escaped = std::mem::take(&mut escaped);
        match (nesting, byte) {
            (Nesting::None, _) => {}
            _ if was_escaped => return false,
            (_, b'\\') if quoted || depth > 0 => escaped = true,
            (Nesting::Quotes, b'"') => quoted = !quoted,
            (Nesting::Comments, b'(') => depth += 1,
            (Nesting::Comments, b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        *byte == b',' && !quoted && depth == 0
    })
}

/// Returns a text of a peer, shortened, without what a terminal could take for a command.
fn text(bytes: &[u8]) -> Box<str> {
    let clean = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    bytes.iter().take(TEXT).map(clean).collect()
}

fn stamp(kind: MessageKind, field: &Arc<str>, place: u32, element: &[u8]) -> HeaderStamp {
    let space = element.iter().rposition(u8::is_ascii_whitespace);
    let (name, time) = match space {
        Some(space) => (trimmed(&element[..space]), &element[space + 1..]),
        None => (&[][..], element),
    };
    let value = value(time);
    HeaderStamp {
        kind,
        field: Arc::clone(field),
        place,
        name: (!name.is_empty() && value != StampValue::Unreadable).then(|| text(name)),
        raw: text(element),
        time: None,
        is_modulo: matches!(value, StampValue::Milliseconds(_)),
        clock: None,
        offset: None,
        value,
    }
}

/// Reads `TIME` or `t=TIME`.
fn value(text: &[u8]) -> StampValue {
    let text = text.strip_prefix(b"t=").unwrap_or(text);
    let Some((whole, nanos)) = decimal(text) else {
        return StampValue::Unreadable;
    };
    if text.len() <= 3 && text.iter().all(u8::is_ascii_digit) {
        return StampValue::Milliseconds(whole as u16);
    }
    let unit = match whole {
        100_000_000_000_000.. => 1000,
        100_000_000_000.. => 1_000_000,
        _ => SECOND,
    };
    let fraction = u64::from(nanos) / (SECOND / unit);
    let time = whole
        .checked_mul(unit)
        .and_then(|time| time.checked_add(fraction));
    time.map_or(StampValue::Unreadable, |time| {
        StampValue::Time(WallTime(time))
    })
}

/// Reads `12` or `12.345`: the whole part, and the fraction in units of 10^-9.
fn decimal(text: &[u8]) -> Option<(u64, u32)> {
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b"0"[..]),
    };
    let is_number = |digits: &[u8]| {
        !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit)
    };
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = std::str::from_utf8(whole).ok()?.parse().ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0'));
    let nanos = digits
        .take(9)
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some((whole, nanos))
}

/// Reads a number of milliseconds, up to a day.
fn milliseconds(text: &[u8]) -> Option<SignedNanos> {
    let (whole, nanos) = decimal(text)?;
    let fraction = u64::from(nanos) / 1000;
    let span = whole.checked_mul(1_000_000)?.checked_add(fraction)?;
    let span = SignedNanos(i64::try_from(span).ok()?);
    (span <= PLAUSIBLE).then_some(span)
}

/// Reads `name;dur=1.5;desc="text"`.
fn server_timing(element: &[u8]) -> ServerMetric {
    let mut rest = element;
    let mut parameters = std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            *byte == b';' && !quoted
        });
        let parameter = trimmed(&rest[..end.unwrap_or(rest.len())]);
        rest = end.map_or(&[], |end| &rest[end + 1..]);
        Some(parameter)
    });
    let mut timing = ServerMetric {
        name: text(parameters.next().unwrap_or_default()),
        duration: None,
        description: None,
    };
    for parameter in parameters {
        let equals = parameter.iter().position(|byte| *byte == b'=');
        let Some(equals) = equals else { continue };
        let (name, value) = (
            trimmed(&parameter[..equals]),
            trimmed(&parameter[equals + 1..]),
        );
        let bare = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        let value = bare.unwrap_or(value);
        if name.eq_ignore_ascii_case(b"dur") {
            timing.duration = timing.duration.or_else(|| milliseconds(value));
        } else if name.eq_ignore_ascii_case(b"desc") {
            timing.description.get_or_insert_with(|| text(value));
        }
    }
    timing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use MessageKind::{Request, Response};

    const OWN: WallTime = WallTime(1_795_253_400_500_000_000);

    fn read(fields: &[(&str, &str)]) -> StampedHeaders {
        read_with(&[], fields, &[])
    }

    fn read_with(more: &[&str], fields: &[(&str, &str)], clocks: &[StampClock]) -> StampedHeaders {
        let more: Vec<_> = more.iter().map(|name| (*name).to_owned()).collect();
        let names = StampNames::new(&more);
        let mut headers = None;
        for (name, value) in fields {
            names.read(Request, name.as_bytes(), value.as_bytes(), &mut headers);
        }
        let mut headers = *headers.unwrap_or_default();
        headers.resolve(Request, Some(OWN), clocks);
        headers
    }

    #[test]
    fn a_time_is_read_in_every_form_in_which_the_programs_write_it() {
        for (value, name, time) in [
            ("1795253400.123", None, 1_795_253_400_123_000_000),
            ("t=1795253400.123", None, 1_795_253_400_123_000_000),
            ("1795253400123", None, 1_795_253_400_123_000_000),
            ("t=1795253400123456", None, 1_795_253_400_123_456_000),
            ("1795253400123.5", None, 1_795_253_400_123_500_000),
            (
                "haproxy-1 1795253400.123",
                Some("haproxy-1"),
                1_795_253_400_123_000_000,
            ),
            (
                "B t=1795253400.123456",
                Some("B"),
                1_795_253_400_123_456_000,
            ),
            (
                "my proxy  1795253400",
                Some("my proxy"),
                1_795_253_400_000_000_000,
            ),
        ] {
            let headers = read(&[("x-request-start", value)]);
            let stamp = &headers.stamps[0];
            assert_eq!(stamp.time, Some(WallTime(time)), "{value}");
            assert_eq!((stamp.name.as_deref(), &*stamp.raw), (name, value));
            assert!(!stamp.is_modulo);
        }
    }

    #[test]
    fn milliseconds_alone_are_of_the_second_nearest_to_our_own_time() {
        for (value, time) in [
            ("f 499", 1_795_253_400_499_000_000),
            ("f 000", 1_795_253_400_000_000_000),
            ("f 1", 1_795_253_400_001_000_000),
            ("f 999", 1_795_253_400_999_000_000),
        ] {
            let stamp = read(&[("X-Queue-Start", value)]).stamps.remove(0);
            assert!(
                stamp.is_modulo && stamp.time == Some(WallTime(time)),
                "{value}"
            );
        }
        let law = |millis: u16, near: u64| {
            let found = nearest(millis, WallTime(near)).0;
            assert_eq!(found / 1_000_000 % 1000, u64::from(millis), "{near}");
            assert!(found.abs_diff(near) <= SECOND / 2, "{millis} {near}");
        };
        for seed in 0..10_000 {
            let mut random = Random::new(seed);
            law(
                random.below(1000) as u16,
                OWN.0 + random.below(3_000_000_000) as u64,
            );
        }
    }

    #[test]
    fn what_is_no_time_or_a_day_away_has_none() {
        for value in [
            "0.5",
            "1.5",
            "86400.0",
            "4070908800",
            "4070908800000",
            "-1",
            "t=",
            "t",
            "x y",
            "1e9",
            "1795253400.",
            ".5",
            "99999999999999999999",
            "999999999999999999999",
            "1795253400s",
            "+1795253400",
            "1795166999.9",
            "1795339801",
        ] {
            let headers = read(&[("X-Request-Start", value)]);
            assert_eq!(headers.stamps[0].time, None, "{value}");
            assert_eq!(&*headers.stamps[0].raw, value);
            assert_eq!(headers.delays([Some(OWN), None]).count(), 0);
        }
    }

    #[test]
    fn lists_and_repeated_fields_are_one_row_of_stamps_and_each_field_has_its_own() {
        let headers = read_with(
            &["X-Stamp"],
            &[
                ("X-Stamp", "a 1795253400.100, , b t=1795253400.150"),
                ("X-Request-Start", "t=1795253400.090"),
                ("x-stamp", "1795253400.300"),
            ],
            &[],
        );
        let rows: Vec<_> = headers
            .delays([Some(OWN), None])
            .map(|(from, to, delay)| {
                (
                    from.who(),
                    to.map(HeaderStamp::who),
                    delay.delay.0 / 1_000_000,
                )
            })
            .collect();
        let row =
            |from: &str, to: Option<&str>, millis| (from.to_owned(), to.map(str::to_owned), millis);
        assert_eq!(
            rows,
            [
                row("a", Some("b"), 50),
                row("b", Some("X-Stamp #3"), 150),
                row("X-Request-Start", None, 410),
                row("X-Stamp #3", None, 200),
            ]
        );
        assert_eq!(headers.since_previous(1).unwrap().delay.0, 50_000_000);
        assert_eq!(headers.since_previous(3).unwrap().delay.0, 150_000_000);
        assert_eq!(headers.since_previous(2), None);
    }

    /// Random offsets of two programs: what is found is what was, if and only if it is known.
    #[test]
    fn a_delay_is_corrected_where_both_offsets_are_known_or_both_clocks_are_one() {
        for seed in 0..2000 {
            let mut random = Random::new(seed);
            let offset = |random: &mut Random| random.below(100_000) as i64 * 1000 - 50_000_000;
            let offsets = [offset(&mut random), offset(&mut random)];
            let at = [OWN.0 - 90_000_000, OWN.0 - 40_000_000];
            let known = [random.below(2) == 0, random.below(2) == 0];
            let same = random.below(3) == 0;
            let offsets = if same { [offsets[0]; 2] } else { offsets };
            let stamps = at.map(WallTime).into_iter().zip(offsets);
            let stamps = stamps.map(|(at, offset)| (at + SignedNanos(offset)).0 / 1000);
            let stamps: Vec<_> = stamps.collect();
            let value = format!("a t={}, b t={}", stamps[0], stamps[1]);
            let clocks: Vec<_> = ["a", "b"]
                .into_iter()
                .enumerate()
                .map(|(at, name)| StampClock {
                    name: name.into(),
                    node: if same { "N" } else { ["A", "B"][at] }.into(),
                    offset: known[at].then_some(SignedNanos(offsets[at])),
                })
                .collect();
            let headers = read_with(&[], &[("X-Request-Start", &value)], &clocks);
            let delays: Vec<_> = headers.delays([Some(OWN), None]).collect();
            let expected = [same || known == [true, true], known[1]];
            let truth = [50_000_000, 40_000_000];
            for (delay, (is_known, truth)) in delays.iter().zip(expected.into_iter().zip(truth)) {
                assert_eq!(delay.2.is_corrected, is_known, "seed {seed}");
                assert!(!is_known || delay.2.delay.0 == truth, "seed {seed}");
            }
            assert_eq!(delays.len(), 2);
        }
    }

    #[test]
    fn via_is_split_outside_of_comments() {
        let headers = read(&[
            (
                "Via",
                "1.1 v1-a.net(ghost) (Akamai, x), 1.1 cach06 (squid/3.5.1)",
            ),
            ("via", "1.0 c"),
        ]);
        let via: Vec<_> = headers.via.iter().map(|element| &**element).collect();
        let expected = [
            "1.1 v1-a.net(ghost) (Akamai, x)",
            "1.1 cach06 (squid/3.5.1)",
            "1.0 c",
        ];
        assert_eq!(via, expected);
    }

    #[test]
    fn server_timing_has_names_durations_and_descriptions() {
        let names = StampNames::new(&[]);
        let mut headers = None;
        let value = br#"db;dur=53.2;desc="a, b; \"c\"", miss, app ; DUR="1" ;desc=x, bad;dur=-1"#;
        names.read(Response, b"Server-Timing", value, &mut headers);
        names.read(
            Response,
            b"X-Envoy-Upstream-Service-Time",
            b"7",
            &mut headers,
        );
        names.read(Request, b"Server-Timing", b"ignored;dur=1", &mut headers);
        let timings = headers.unwrap().timings;
        let plain: Vec<_> = timings
            .iter()
            .map(|of| {
                (
                    &*of.name,
                    of.duration.map(|of| of.0),
                    of.description.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            plain,
            [
                ("db", Some(53_200_000), Some(r#"a, b; \"c\""#)),
                ("miss", None, None),
                ("app", Some(1_000_000), Some("x")),
                ("bad", None, None),
                ("envoy upstream", Some(7_000_000), None),
            ]
        );
    }

    #[test]
    fn a_traceparent_is_read_by_the_rules_of_w3c_and_else_is_none() {
        let golden = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceParent::parse(golden.as_bytes()).unwrap();
        assert_eq!(parsed.parent, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(parsed.to_string(), golden);
        for length in 0..golden.len() {
            assert_eq!(
                TraceParent::parse(&golden.as_bytes()[..length]),
                None,
                "{length}"
            );
        }
        let later = golden.replacen("00", "cc", 1) + "-what-follows";
        assert_eq!(TraceParent::parse(later.as_bytes()), Some(parsed));
        for bad in [
            golden.to_uppercase(),
            golden.replacen("00", "ff", 1),
            format!("{golden}-01"),
            golden.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            golden.replace("00f067aa0ba902b7", &"0".repeat(16)),
            golden.replace('-', "0"),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_list_of_ten_thousand_elements_is_counted_and_its_first_ones_are_kept() {
        let list = vec!["a 1795253400.1"; 10_000].join(",");
        let headers = read(&[("X-Request-Start", &list), ("Via", &list)]);
        assert_eq!(
            (headers.stamps.len(), headers.via.len()),
            (ELEMENTS, ELEMENTS)
        );
        assert_eq!(headers.left_out, 2 * (10_000 - ELEMENTS as u32));
        // The last kept stamp is not the last of all: nothing is known of the way from it to here.
        assert!(headers
            .delays([Some(OWN), None])
            .all(|(_, to, _)| to.is_some()));
        assert!(headers.memory() < 16 << 10);
        let long = "x".repeat(100 << 10);
        let headers = read(&[("X-Request-Start", &long)]);
        assert_eq!(headers.stamps[0].raw.len(), TEXT);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_leave_printable_text() {
        let names = StampNames::new(&["X".into()]);
        let fields = ["x", "Via", "server-timing", "traceparent", "x-queue-start"];
        for seed in 0..50_000 {
            let mut random = Random::new(seed);
            let alphabet = b"0123456789.,;=\"\\() tdesurn-\0\xff\x1bab";
            let length = random.below(80);
            let value: Vec<u8> = (0..length)
                .map(|_| alphabet[random.below(alphabet.len())])
                .collect();
            let mut headers = None;
            for kind in [Request, Response] {
                for field in fields {
                    names.read(kind, field.as_bytes(), &value, &mut headers);
                }
            }
            let mut headers = *headers.unwrap();
            headers.resolve(Request, Some(OWN), &[]);
            headers.resolve(Response, None, &[]);
            let plain = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            assert!(headers
                .stamps
                .iter()
                .all(|of| plain(&of.raw) && plain(&of.who())));
            assert!(headers.via.iter().all(|of| plain(of)), "seed {seed}");
            assert!(
                headers.timings.iter().all(|of| plain(&of.name)),
                "seed {seed}"
            );
        }
    }
}
