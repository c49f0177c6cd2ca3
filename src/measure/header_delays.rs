//! The delays between the stamps that other programs left in heads of HTTP, per pair of them, and
//! the durations that servers report of themselves.

use super::Histogram;
use crate::http::head::MessageKind;
use crate::http::stamp::StampedHeaders;
use crate::time::{SignedNanos, WallTime};

/// Most rows. Clients choose names: of more, those with the fewest and the oldest delays go.
const ROWS: usize = 32;

/// The kind of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderDelayKind {
    /// Between two stamps, or from a stamp to this place.
    Stamps {
        /// The head that has the stamps.
        message: MessageKind,
        /// `true` if both ends are of one clock, or of clocks whose offset was taken out.
        is_corrected: bool,
        /// `true` if an end holds milliseconds alone.
        is_modulo: bool,
    },
    /// A duration of `Server-Timing`.
    ServerTiming,
}

impl HeaderDelayKind {
    /// Returns the word for the head that has it.
    pub fn message(self) -> &'static str {
        match self {
            Self::Stamps {
                message: MessageKind::Request,
                ..
            } => "request",
            _ => "response",
        }
    }

    /// Returns the word for its clocks; `None` for a duration of one clock.
    pub fn clocks(self) -> Option<&'static str> {
        match self {
            Self::Stamps { is_corrected, .. } if is_corrected => Some("corrected"),
            Self::Stamps { .. } => Some("unsynchronised"),
            Self::ServerTiming => None,
        }
    }

    /// Returns `true` if it is known modulo one second alone.
    pub fn is_modulo(self) -> bool {
        matches!(
            self,
            Self::Stamps {
                is_modulo: true,
                ..
            }
        )
    }
}

/// A sub-segment between two stamps, or a duration that a server reports.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderDelay {
    /// The first stamp, or the name of the duration. A peer wrote it: escape it.
    pub from: Box<str>,
    /// The second stamp; `None` if the row ends here, or is a duration.
    pub to: Option<Box<str>>,
    /// Its kind.
    pub kind: HeaderDelayKind,
    /// Signed where two clocks meet.
    pub delay: Histogram,
    /// The number of the latest delay among all.
    latest: u64,
}

/// The delays by headers of a node or a capture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderDelays {
    /// A row for each pair of names and kind, in the order in which they were first seen.
    pub rows: Vec<HeaderDelay>,
    /// Delays in rows that had to make room for others.
    pub left_out: u64,
    /// The name of this place, where rows without a second stamp end.
    pub here: String,
    count: u64,
}

impl HeaderDelays {
    /// Returns no delays, of the place `here`.
    pub fn at(here: &str) -> Self {
        Self {
            here: here.into(),
            ..Self::default()
        }
    }

    /// Takes the heads of a request and its response, of which the first bytes passed here at
    /// `own`.
    pub fn record(&mut self, headers: &StampedHeaders, own: [Option<WallTime>; 2]) {
        for (from, to, of) in headers.delays(own) {
            let kind = HeaderDelayKind::Stamps {
                message: from.kind,
                is_corrected: of.is_corrected,
                is_modulo: of.is_modulo,
            };
            let to = to.map(|to| to.who());
            self.take(&from.who(), to.as_deref(), kind, of.delay);
        }
        for timing in &headers.timings {
            if let Some(duration) = timing.duration {
                let kind = HeaderDelayKind::ServerTiming;
                self.take(&timing.name, None, kind, duration);
            }
        }
    }

    fn take(&mut self, from: &str, to: Option<&str>, kind: HeaderDelayKind, delay: SignedNanos) {
        self.count += 1;
        let is_it =
            |row: &HeaderDelay| row.kind == kind && *row.from == *from && row.to.as_deref() == to;
        if let Some(row) = self.rows.iter_mut().find(|row| is_it(row)) {
            row.delay.record(delay);
            row.latest = self.count;
            return;
        }
        if self.rows.len() >= ROWS {
            let rows = self.rows.iter().enumerate();
            let least = rows.min_by_key(|(_, row)| (row.delay.count(), row.latest));
            if let Some((at, _)) = least {
                self.left_out += self.rows.remove(at).delay.count();
            }
        }
        let mut histogram = Histogram::default();
        histogram.record(delay);
        self.rows.push(HeaderDelay {
            from: from.into(),
            to: to.map(Into::into),
            kind,
            delay: histogram,
            latest: self.count,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stamp::StampNames;
    use crate::random::Random;

    const OWN: WallTime = WallTime(1_795_253_400_500_000_000);

    fn headers(value: &str) -> StampedHeaders {
        let (names, mut headers) = (StampNames::new(&[]), None);
        let kind = MessageKind::Request;
        names.read(kind, b"X-Request-Start", value.as_bytes(), &mut headers);
        let mut headers = *headers.unwrap();
        headers.resolve(kind, Some(OWN), &[]);
        headers
    }

    #[test]
    fn each_pair_of_neighbours_is_a_row_and_the_last_one_ends_here() {
        let mut delays = HeaderDelays::default();
        for _ in 0..3 {
            let headers = headers("a 1795253400.100, b 1795253400.150, c 200");
            delays.record(&headers, [Some(OWN), None]);
        }
        let rows = delays.rows.iter().map(|row| {
            let p50 = row.delay.quantile(0.5).unwrap().0;
            let modulo = row.kind.is_modulo();
            (
                &*row.from,
                row.to.as_deref(),
                row.delay.count(),
                p50 / 1_000_000,
                modulo,
            )
        });
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), 3);
        assert!(rows[0].0 == "a" && rows[0].1 == Some("b") && rows[0].2 == 3 && !rows[0].4);
        assert!(rows[1].0 == "b" && rows[1].1 == Some("c") && rows[1].4);
        assert!(rows[2].0 == "c" && rows[2].1.is_none() && rows[2].4);
        assert!((295..=305).contains(&rows[2].3), "{rows:?}");
    }

    #[test]
    fn names_of_strangers_displace_no_row_that_has_more_delays_and_every_delay_is_counted() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut delays = HeaderDelays::default();
            let true_one = headers("lb 1795253400.100");
            delays.record(&true_one, [Some(OWN), None]);
            delays.record(&true_one, [Some(OWN), None]);
            for _ in 0..500 {
                let name = random.below(1_000_000);
                delays.record(
                    &headers(&format!("{name}x 1795253400.1")),
                    [Some(OWN), None],
                );
            }
            let rows = &delays.rows;
            assert!(rows.len() <= ROWS);
            let kept: u64 = rows.iter().map(|row| row.delay.count()).sum();
            assert_eq!(kept + delays.left_out, 502, "seed {seed}");
            assert!(rows.iter().any(|row| &*row.from == "lb"), "seed {seed}");
        }
    }
}
