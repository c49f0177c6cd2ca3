//! Flows, round trips and counts of a capture in; text, lines, JSON, JSON lines, CSV or Prometheus
//! text out.
//!
//! Flows are rendered one by one as they end, so a long capture takes no memory. That is why
//! `capture`, which is known last, comes last in the JSON.

mod csv;
mod json;
mod prometheus;
mod text;

pub use json::SCHEMA;
pub use prometheus::{prometheus, Metrics};

use crate::decimal::Digits;
use crate::measure::{Counts, HeaderDelays};
use crate::passive::{Endpoint, Flow, OneWay, ResponseSample, Sample, Side, Tally};
use crate::time::{SignedNanos, WallTime};
use std::fmt::{self, Display, Formatter};

/// The style of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassiveFormat {
    /// A small table per flow.
    #[default]
    Text,
    /// A line per round trip.
    Lines,
    /// One object.
    Json,
    /// An object per flow, and one for the capture.
    JsonLines,
    /// A row per flow and direction.
    Csv,
    /// Metrics, at the end.
    Prometheus,
}

/// A flow and what is known of it from elsewhere.
#[derive(Debug)]
pub struct FlowRecord<'a> {
    /// As the first capture saw it.
    pub flow: &'a Flow,
    /// As the capture of `--peer` saw it.
    pub peer: Option<&'a Flow>,
    /// Delays between the two; `None` without `--peer`.
    pub one_way: Option<OneWay>,
    /// The end that the first capture was made at.
    pub at: Side,
    /// Set if the text has each HTTP exchange.
    pub verbose: bool,
}

/// The answers of one end of a flow: its figures at the capture point, and the end's own part.
#[derive(Clone, Copy, Debug)]
struct Answers {
    count: u64,
    /// p50 and p95.
    response: [SignedNanos; 2],
    /// The same less the network; `None` where that is not known.
    own: [Option<SignedNanos>; 2],
}

impl Answers {
    /// `None` without an answer.
    fn of(flow: &Flow, side: Side) -> Option<Self> {
        let answers = flow.application.answers(side)?;
        let response = answers.quantiles([0.50, 0.95])?;
        Some(Self {
            count: answers.count(),
            response,
            own: response.map(|response| flow.own_time(side, response)),
        })
    }
}

/// The summary of a capture.
#[derive(Debug)]
pub struct Capture<'a> {
    /// Counts.
    pub tally: &'a Tally,
    /// The reason why reading ended.
    pub fault: Option<&'a str>,
    /// Packets that the kernel dropped; `None` where it was not asked.
    pub kernel_dropped: Option<u64>,
    /// The delays by stamps in heads of HTTP.
    pub header_delays: &'a HeaderDelays,
}

impl PassiveFormat {
    /// Returns `true` if its records have each exchange of HTTP.
    pub fn has_exchanges(self) -> bool {
        matches!(self, Self::Json | Self::JsonLines)
    }

    /// Returns the text before the first flow.
    pub fn begin(self) -> String {
        match self {
            Self::Json => json::begin(),
            Self::Csv => csv::head(),
            Self::Text | Self::Lines | Self::JsonLines | Self::Prometheus => String::new(),
        }
    }

    /// Appends one flow to `out`.
    pub fn flow(self, record: &FlowRecord<'_>, is_first: bool, out: &mut String) {
        match self {
            Self::Text => out.push_str(&text::flow(record)),
            Self::Json => json::flow(record, is_first, out),
            Self::JsonLines => json::flow_line(record, out),
            Self::Csv => out.push_str(&csv::rows(record.flow)),
            Self::Lines | Self::Prometheus => {}
        }
    }

    /// One round trip; `None` where the format does not list them one by one.
    pub fn sample(self, flow: &Flow, sample: &Sample) -> Option<SampleLine> {
        (self == Self::Lines).then(|| SampleLine {
            time: sample.time,
            delay: sample.round_trip,
            least: flow
                .of(sample.sender)
                .round_trip
                .min()
                .map(|least| least.min(sample.round_trip))
                .or(Some(sample.round_trip)),
            from: flow.ends[sample.sender as usize],
            to: flow.ends[sample.sender.other() as usize],
            basis: sample.basis.name(),
        })
    }

    /// One answer of an application; `None` where the format does not show them one by one.
    pub fn answer(self, flow: &Flow, answer: &ResponseSample) -> Option<SampleLine> {
        (self == Self::Lines).then(|| SampleLine {
            time: answer.time,
            delay: answer.response,
            least: flow.application.answers(answer.side).and_then(Counts::min),
            from: flow.ends[answer.side.other() as usize],
            to: flow.ends[answer.side as usize],
            basis: "response",
        })
    }

    /// One packet found in both captures; `time` is that of the capture in which it was found
    /// later.
    pub fn one_way(
        self,
        time: WallTime,
        flow: &Flow,
        sender: Side,
        delay: SignedNanos,
    ) -> Option<SampleLine> {
        (self == Self::Lines).then(|| SampleLine {
            time,
            delay,
            least: None,
            from: flow.ends[sender as usize],
            to: flow.ends[sender.other() as usize],
            basis: "one_way",
        })
    }

    /// Returns the text after the last flow.
    pub fn end(self, whole: &Capture<'_>) -> String {
        match self {
            Self::Text => text::end(whole),
            Self::Json => json::end(whole),
            Self::JsonLines => json::capture_line(whole),
            Self::Lines | Self::Csv | Self::Prometheus => String::new(),
        }
    }
}

/// A line of `--format lines`; `Display` writes `TIME MS LEAST_MS FROM > TO BASIS`.
#[derive(Clone, Copy, Debug)]
pub struct SampleLine {
    time: WallTime,
    delay: SignedNanos,
    least: Option<SignedNanos>,
    from: Endpoint,
    to: Endpoint,
    basis: &'static str,
}

impl Display for SampleLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [delay, least] = [Some(self.delay), self.least].map(Millis::of);
        write!(f, "{} {delay} {least}", self.time)?;
        writeln!(f, " {} > {} {}", self.from, self.to, self.basis)
    }
}

/// Milliseconds with three digits; `-` without a value.
struct Millis(Option<Digits>);

impl Millis {
    fn of(span: Option<SignedNanos>) -> Self {
        Self(span.map(|span| {
            let micros = (span.0.unsigned_abs() + 500) / 1000;
            Digits::of_thousandths(micros as i64 * span.0.signum())
        }))
    }

    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("-", Digits::as_str)
    }
}

impl Display for Millis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
