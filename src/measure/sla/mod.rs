//! Service level agreements: rules as text in, the state of each part of the path, events and questions out.
//!
//! A rule is a line: what it looks at, its limit, how often that has to be exceeded, how bad that is, and what to ask
//! which nodes then (the playbook). `#` begins a comment. In EBNF, with words parted by blanks where letters would meet:
//!
//! ```text
//! rule      = part, figure, ">", limit, { option }, { ask } ;
//! part      = "segment", ( name, "->", name | "*" ) | "host", ( name | "*" ) | "total" ;
//! figure    = delay, [ statistic ] | "increase" | "loss" ;
//! delay     = "round_trip" | "network" | "forward_excess" | "return_excess" | "residence" | "wake_up" ;
//! statistic = "min" | "mean" | "p50" | "p90" | "p95" | "p99" | "max" ;
//! limit     = number, ( "ns" | "us" | "ms" | "s" | "%" | "x" ) ;
//! option    = "over", count | "for", count, "of", count | "clear", [ count ], [ "below", limit ]
//!           | "warning" | "critical" ;
//! ask       = [ "beyond", limit ], "ask", classes, "at", nodes ;
//! classes   = "all" | class, { ",", class } ;
//! nodes     = "*" | node, { ",", node } ;
//! node      = "here" | name ;
//! name      = word | '"', { any character but '"' }, '"' ;
//! ```
//!
//! | figure | of | limits | is |
//! |---|---|---|---|
//! | `round_trip` | segment, total | span; `x` (segment) | as in the report |
//! | `network` | segment | span | the round trip without the wake-up delays at both ends |
//! | `forward_excess`, `return_excess` | segment | span | the one-way delay above its own least of the last 10 to 20 s (and 16 blocks) |
//! | `residence` | host | span, `x` | both ways together |
//! | `wake_up` | host | span | how late the process read, both ways together |
//! | `increase` | segment, host | span | the report's own, over the baseline; looked at once a second |
//! | `loss` | total | `%` | blocks without an answer, of those that are not under way any more |
//!
//! **When a rule is evaluated.** A delay without a statistic is evaluated with every block that has it; one with a
//! statistic, and loss, with every window of 20 blocks (`over COUNT`) in which the part was measured. `2x` is twice the
//! baseline: the median of the baseline's batches at p50, for p90 and beyond at p95; without a baseline the rule does not
//! decide. *Exceeded* is above the limit, not at it.
//!
//! **When it turns.** `for 3 of 5`: as soon as 3 of the last 5 evaluations exceeded the limit; without it one is enough.
//! It turns back when that no longer holds; with `clear 4` after 4 evaluations in a row within the limit, with
//! `below 3ms` within that one. A rule says `warning` where it says nothing.
//!
//! **At the end of a run** a rule with a statistic (or of loss) is evaluated once more, over the whole run, and that
//! decides: where the run had fewer windows than the M of its `for N of M`; and, in a run with a planned end, where it has
//! no `for`. So the p99 of `probe -c 100` is that of 100 blocks. Baselines and increases are looked at once more before.
//!
//! **The playbook.** While a rule has turned, the nodes of its `ask` are asked for these classes of annotations with every
//! block; a step `beyond` a limit only while one of the last M evaluations exceeded that as well, where `2x` is twice the
//! rule's own limit. `here` is the part itself: both ends of a segment, or the host; all nodes for the total.

mod parse;
mod watch;

pub use parse::{parse, simple, RuleError};
pub use watch::{Event, Growth, LimitState, Watch};

pub use super::Part as Place;
use super::Sla;
use crate::annotation::Classes;
use crate::time::SignedNanos;
use std::cmp::Ordering;
use std::fmt;

/// Evaluations at most that a rule looks back on.
pub const MOST_OF: u32 = 64;
/// Blocks of a window where the rule says nothing.
pub const WINDOW: u32 = 20;

/// What a rule looks at; `None` stands for every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartPattern {
    /// The stretch between two neighbouring nodes of these names.
    Segment(Option<(String, String)>),
    /// A node of that name.
    Host(Option<String>),
    /// The whole path, from the scheduled time to the answer.
    Total,
}

/// What is measured there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Round-trip delay.
    RoundTrip,
    /// The same without wake-up delays.
    Network,
    /// One-way delay above its least, away from the source.
    ForwardExcess,
    /// The same back to it.
    ReturnExcess,
    /// Time within a node.
    Residence,
    /// How late a node's process reads.
    WakeUp,
    /// Growth over the baseline.
    Increase,
    /// Share of blocks without an answer.
    Loss,
}

impl Figure {
    /// Every figure with its word.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::RoundTrip, "round_trip"),
        (Self::Network, "network"),
        (Self::ForwardExcess, "forward_excess"),
        (Self::ReturnExcess, "return_excess"),
        (Self::Residence, "residence"),
        (Self::WakeUp, "wake_up"),
        (Self::Increase, "increase"),
        (Self::Loss, "loss"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        let row = Self::ALL.iter().find(|row| row.0 == self);
        row.map_or("", |row| row.1)
    }

    fn is_of(self, part: &PartPattern) -> bool {
        match self {
            Self::RoundTrip => !matches!(part, PartPattern::Host(_)),
            Self::Network | Self::ForwardExcess | Self::ReturnExcess => {
                matches!(part, PartPattern::Segment(_))
            }
            Self::Residence | Self::WakeUp => matches!(part, PartPattern::Host(_)),
            Self::Increase => !matches!(part, PartPattern::Total),
            Self::Loss => matches!(part, PartPattern::Total),
        }
    }

    /// Whether a block has a value of its own.
    fn is_delay(self) -> bool {
        !matches!(self, Self::Increase | Self::Loss)
    }

    fn has_baseline(self, part: &PartPattern) -> bool {
        matches!(
            (self, part),
            (Self::RoundTrip, PartPattern::Segment(_)) | (Self::Residence, _)
        )
    }
}

/// What is taken of a window of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The least.
    Min,
    /// The arithmetic mean.
    Mean,
    /// The median.
    P50,
    /// 90 % are at or below it.
    P90,
    /// 95 %.
    P95,
    /// 99 %.
    P99,
    /// The greatest.
    Max,
}

impl Statistic {
    /// Every statistic with its word.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Min, "min"),
        (Self::Mean, "mean"),
        (Self::P50, "p50"),
        (Self::P90, "p90"),
        (Self::P95, "p95"),
        (Self::P99, "p99"),
        (Self::Max, "max"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        let row = Self::ALL.iter().find(|row| row.0 == self);
        row.map_or("", |row| row.1)
    }

    /// Whether the baseline's upper quantile is the one to compare with.
    fn is_upper(self) -> bool {
        matches!(self, Self::P90 | Self::P95 | Self::P99 | Self::Max)
    }
}

/// A value that is compared, or a limit in the same unit; of two units none is the larger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A delay.
    Span(SignedNanos),
    /// A share, 0 to 1.
    Share(f64),
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Span(a), Self::Span(b)) => a.partial_cmp(b),
            (Self::Share(a), Self::Share(b)) => a.partial_cmp(b),
            _ => None,
        }
    }
}

impl PartialOrd for Limit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Absolute(a), Self::Absolute(b)) => a.partial_cmp(b),
            (Self::Times(a), Self::Times(b)) => a.partial_cmp(b),
            _ => None,
        }
    }
}

impl Amount {
    /// The number in the unit that suits its size.
    fn in_unit(self) -> (f64, &'static str) {
        match self {
            Self::Share(share) => ((share * 1e11).round() / 1e9, "%"),
            Self::Span(span) => {
                let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
                let size = span.abs().0 as f64;
                let unit = units.iter().find(|unit| size >= unit.0);
                let (factor, unit) = *unit.unwrap_or(&(1.0, "ns"));
                (span.0 as f64 / factor, unit)
            }
        }
    }

    /// As a number: nanoseconds or a share.
    fn number(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::Span(span) => span.0 as f64,
        }
    }
}

impl LimitState {
    /// `segment`, `host` or `total`.
    pub fn part(&self) -> &'static str {
        match self.place {
            Place::Segment { .. } => "segment",
            Place::Host(_) => "host",
            other => other.kind(),
        }
    }
}

/// `7.3 ms`, `1.5 %`: at most four digits that count.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = self.in_unit();
        let digits = 3_usize.saturating_sub(value.abs().max(1.0).log10() as usize);
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        write!(f, "{text} {unit}")
    }
}

/// Where too much begins; of two kinds none is the larger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// More than that.
    Absolute(Amount),
    /// More than so many times the baseline; in a `beyond`, so many times the rule's limit.
    Times(f64),
}

/// As it is read: `5ms`, `1%`, `2x`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(amount) => {
                let (value, unit) = amount.in_unit();
                write!(f, "{value}{unit}")
            }
            Self::Times(times) => write!(f, "{times}x"),
        }
    }
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// `*`
    All,
    /// These.
    Some(Vec<Node>),
}

/// One who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// The part itself: both ends of a segment, or the host.
    Here,
    /// By its name in the report.
    Named(String),
}

/// A step of the playbook.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Only beyond that; `None` as soon as the rule has turned.
    pub beyond: Option<Limit>,
    /// For what.
    pub classes: Classes,
    /// Whom.
    pub at: Nodes,
}

/// How a rule turns back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clear {
    /// So many evaluations in a row within the limit; `None` when `for N of M` no longer holds.
    pub after: Option<u32>,
    /// Within that; `None` within the rule's own limit.
    pub below: Option<Limit>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its line in the file, from 1; `None` for a limit of the command line.
    pub line: Option<u32>,
    /// Where.
    pub part: PartPattern,
    /// What.
    pub figure: Figure,
    /// What of it; `None` each block's own value.
    pub statistic: Option<Statistic>,
    /// Too much is more than that.
    pub limit: Limit,
    /// Blocks of a window; 1 where each block is evaluated.
    pub over: u32,
    /// Transitions when so many ...
    pub hits: u32,
    /// ... of the last so many evaluations exceeded the limit; 1 to [`MOST_OF`].
    pub of: u32,
    /// How it turns back.
    pub clear: Clear,
    /// `Warning` or `Critical`.
    pub severity: Sla,
    /// What is asked then.
    pub asks: Vec<Ask>,
}

impl Rule {
    /// `round_trip p95`
    pub fn figure_text(&self) -> String {
        figure_text(self.figure, self.statistic)
    }

    /// Whether it is evaluated by windows of blocks.
    fn has_windows(&self) -> bool {
        self.statistic.is_some() || self.figure == Figure::Loss
    }

    /// Whether it can only be decided by what the model knows of the baseline.
    fn needs_growth(&self) -> bool {
        let below = matches!(self.clear.below, Some(Limit::Times(_)));
        self.figure == Figure::Increase || below || matches!(self.limit, Limit::Times(_))
    }
}

/// The rule as it was understood, with all that it left unsaid; it reads as the same rule again.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            PartPattern::Segment(None) => f.write_str("segment *")?,
            PartPattern::Segment(Some((from, to))) => {
                write!(f, "segment {}->{}", quoted(from), quoted(to))?;
            }
            PartPattern::Host(None) => f.write_str("host *")?,
            PartPattern::Host(Some(name)) => write!(f, "host {}", quoted(name))?,
            PartPattern::Total => f.write_str("total")?,
        }
        write!(f, " {} > {}", self.figure_text(), self.limit)?;
        if self.has_windows() {
            write!(f, " over {}", self.over)?;
        }
        write!(f, " for {} of {}", self.hits, self.of)?;
        if self.clear != Clear::default() {
            f.write_str(" clear")?;
            if let Some(after) = self.clear.after {
                write!(f, " {after}")?;
            }
            if let Some(below) = self.clear.below {
                write!(f, " below {below}")?;
            }
        }
        write!(f, " {}", self.severity.name())?;
        for ask in &self.asks {
            if let Some(beyond) = ask.beyond {
                write!(f, " beyond {beyond}")?;
            }
            write!(f, " ask {} at ", ask.classes)?;
            match &ask.at {
                Nodes::All => f.write_str("*")?,
                Nodes::Some(nodes) => {
                    let nodes: Vec<_> = nodes
                        .iter()
                        .map(|node| match node {
                            Node::Here => "here".to_owned(),
                            Node::Named(name) => quoted(name),
                        })
                        .collect();
                    f.write_str(&nodes.join(","))?;
                }
            }
        }
        Ok(())
    }
}

fn figure_text(figure: Figure, statistic: Option<Statistic>) -> String {
    match statistic {
        Some(statistic) => format!("{} {}", figure.word(), statistic.word()),
        None => figure.word().to_owned(),
    }
}

/// A name as the grammar takes it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let alike = name.is_empty() || name.contains("->") || name == "here";
    if alike || !name.chars().all(plain) {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}
