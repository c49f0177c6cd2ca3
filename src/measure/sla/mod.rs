//! Service level agreements: rules, the state of each part of the path, events and requests for
//! annotations.
//!
//! A rule is a line: a part and its figure, the limit, how often it has to be exceeded, the
//! severity, and annotations (the playbook). `#` starts a comment. In EBNF, with blanks between
//! words whose letters would touch:
//!
//! ```text
//! rule      = part, figure, ">", limit, { option }, { ask } ;
//! part      = ( "segment" | "connect" ), ( name, "->", name | "*" )
//!           | ( "host" | "behind" ), ( name | "*" ) | "server" | "total" ;
//! figure    = delay, [ statistic ] | "increase" | "retransmits" | "loss" ;
//! delay     = "round_trip" | "network" | "forward_excess" | "return_excess" | "residence"
//!           | "wake_up" | "delay" ;
//! statistic = "min" | "mean" | "p50" | "p90" | "p95" | "p99" | "max" ;
//! limit     = number, [ "ns" | "us" | "ms" | "s" | "%" | "x" ] ;
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
//! | `forward_excess`, `return_excess` | segment | span | one-way delay above its recent least |
//! | `residence` | host | span, `x` | both ways together |
//! | `wake_up` | host | span | kernel receive time to the process's read, both ways together |
//! | `delay` | connect, behind, server | span, `x` | of the blocks that have the part |
//! | `increase` | all but total | span | the report's increase over the baseline, once a second |
//! | `retransmits` | segment | number | TCP segments sent again in a window, both ways together |
//! | `loss` | total | `%` | blocks without an answer, of those no longer on their way |
//!
//! The recent least is that of the last 10 to 20 s and 16 blocks.
//!
//! **Evaluation.** A delay without a statistic is evaluated with every block that has it. One with
//! a statistic, loss and retransmits are evaluated with every window of 20 blocks (`over COUNT`) in
//! which the part was measured. `2x` is twice the baseline: the median of the baseline's batches at
//! p50, for p90 and above at p95. Without a baseline the rule does not decide. *Exceeded* is above
//! the limit, not at it.
//!
//! **Transitions.** With `for 3 of 5` a rule is violated as soon as 3 of the last 5 evaluations
//! exceeded the limit. Without it one is enough. It clears when that no longer holds. With
//! `clear 4` it clears after 4 evaluations in a row within the limit, with `below 3ms` within that
//! one. The default severity is `warning`.
//!
//! **The end of a run.** A rule with a statistic (or of loss) is evaluated once more, over the
//! whole run. That evaluation decides if the run had fewer windows than the M of `for N of M`. It
//! also decides if the run has a planned end and the rule no `for`. So the p99 of `probe -c 100` is
//! that of 100 blocks. Baselines and increases are evaluated once more before.
//!
//! **The playbook.** While a rule is violated, every block requests these classes of annotations
//! from the nodes of its `ask`. A step `beyond` a limit applies only while one of the last M
//! evaluations exceeded that limit too. There `2x` is twice the rule's own limit. `here` is the
//! part itself: both ends of a segment, or the host, or all nodes for the total.

mod limit_state;
mod parse;
mod watch;

pub use limit_state::{LimitState, RuleEvent};
pub use parse::{parse, simple, RuleError};
pub use watch::{Growth, Watch};

use super::Sla;
use crate::annotation::Classes;
use crate::time::SignedNanos;
use std::cmp::Ordering;
use std::fmt;

/// The largest M of `for N of M`.
pub const MOST_OF: u32 = 64;
/// Blocks of a window without `over`.
pub const WINDOW: u32 = 20;

/// The part that a rule is about; `None` stands for every part of the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartPattern {
    /// The stretch between two neighbouring nodes of these names.
    Segment(Option<(String, String)>),
    /// A node of that name.
    Host(Option<String>),
    /// The connects of one node to the next.
    Connect(Option<(String, String)>),
    /// The part behind the last node that stamps, of that name.
    Behind(Option<String>),
    /// The server behind an exit, and the network to it.
    Server,
    /// The whole path, from the scheduled time to the answer.
    Total,
}

impl PartPattern {
    /// Returns the word of its kind, and the name of the one part, `None` for every part of it.
    fn words(&self) -> (&'static str, Option<String>) {
        let arrow = |(from, to): &(String, String)| format!("{}->{}", quoted(from), quoted(to));
        let ends = |ends: &Option<_>| Some(ends.as_ref().map_or("*".to_owned(), arrow));
        let one = |name: &Option<String>| {
            let name = name.as_deref();
            Some(name.map_or("*".to_owned(), quoted))
        };
        match self {
            Self::Segment(names) => ("segment", ends(names)),
            Self::Connect(names) => ("connect", ends(names)),
            Self::Host(name) => ("host", one(name)),
            Self::Behind(name) => ("behind", one(name)),
            Self::Server => ("server", None),
            Self::Total => ("total", None),
        }
    }
}

/// The figure of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleFigure {
    /// Round-trip delay.
    RoundTrip,
    /// The same without wake-up delays.
    Network,
    /// One-way delay above its least, away from the source.
    ForwardExcess,
    /// One-way delay above its least, back to the source.
    ReturnExcess,
    /// Time within a node.
    Residence,
    /// Delay of a node's process between arrival and read.
    WakeUp,
    /// Growth over the baseline.
    Increase,
    /// Share of blocks without an answer.
    Loss,
    /// The delay of a connect, of what lies behind the path, or of the server.
    Delay,
    /// The delay of a connect to the server behind an exit.
    Connect,
    /// TCP segments sent again.
    Retransmits,
}

impl RuleFigure {
    /// Every figure with its word.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::RoundTrip, "round_trip"),
        (Self::Network, "network"),
        (Self::ForwardExcess, "forward_excess"),
        (Self::ReturnExcess, "return_excess"),
        (Self::Residence, "residence"),
        (Self::WakeUp, "wake_up"),
        (Self::Increase, "increase"),
        (Self::Loss, "loss"),
        (Self::Delay, "delay"),
        (Self::Connect, "connect"),
        (Self::Retransmits, "retransmits"),
    ];

    /// Returns its word in rules.
    pub fn word(self) -> &'static str {
        let row = Self::ALL.iter().find(|row| row.0 == self);
        row.map_or("", |row| row.1)
    }

    fn is_of(self, part: &PartPattern) -> bool {
        match self {
            Self::RoundTrip => matches!(part, PartPattern::Segment(_) | PartPattern::Total),
            Self::Network | Self::ForwardExcess | Self::ReturnExcess | Self::Retransmits => {
                matches!(part, PartPattern::Segment(_))
            }
            Self::Delay => matches!(
                part,
                PartPattern::Connect(_) | PartPattern::Behind(_) | PartPattern::Server
            ),
            Self::Connect => matches!(part, PartPattern::Server),
            Self::Residence | Self::WakeUp => matches!(part, PartPattern::Host(_)),
            Self::Increase => !matches!(part, PartPattern::Total),
            Self::Loss => matches!(part, PartPattern::Total),
        }
    }

    /// Returns `true` if every block has a value of its own.
    fn is_delay(self) -> bool {
        !matches!(self, Self::Increase | Self::Loss | Self::Retransmits)
    }

    fn has_baseline(self, part: &PartPattern) -> bool {
        matches!(
            (self, part),
            (Self::RoundTrip, PartPattern::Segment(_))
                | (Self::Residence | Self::Delay | Self::Connect, _)
        )
    }
}

/// The statistic of a window of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The smallest value.
    Min,
    /// The arithmetic mean.
    Mean,
    /// The median.
    P50,
    /// 90 % are at or below it.
    P90,
    /// 95 % are at or below it.
    P95,
    /// 99 % are at or below it.
    P99,
    /// The largest value.
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

    /// Returns its word in rules.
    pub fn word(self) -> &'static str {
        let row = Self::ALL.iter().find(|row| row.0 == self);
        row.map_or("", |row| row.1)
    }

    /// Returns `true` if the baseline's upper quantile is the one to compare with.
    fn is_upper(self) -> bool {
        matches!(self, Self::P90 | Self::P95 | Self::P99 | Self::Max)
    }
}

/// A value to compare, or a limit in the same unit. Values of two units have no order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A delay.
    Span(SignedNanos),
    /// A share, 0 to 1.
    Share(f64),
    /// A number of TCP segments.
    Count(f64),
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Span(a), Self::Span(b)) => a.partial_cmp(b),
            (Self::Share(a), Self::Share(b)) | (Self::Count(a), Self::Count(b)) => a.partial_cmp(b),
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
    /// Returns the number in the unit that suits its size.
    fn in_unit(self) -> (f64, &'static str) {
        match self {
            Self::Share(share) => ((share * 1e11).round() / 1e9, "%"),
            Self::Count(count) => (count, ""),
            Self::Span(span) => {
                let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
                let size = span.abs().0 as f64;
                let unit = units.iter().find(|unit| size >= unit.0);
                let (factor, unit) = *unit.unwrap_or(&(1.0, "ns"));
                (span.0 as f64 / factor, unit)
            }
        }
    }

    /// Returns the value as a number: nanoseconds, a share or a count.
    fn number(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::Count(count) => count,
            Self::Span(span) => span.0 as f64,
        }
    }
}

/// The value with its unit, in at most four significant digits: `7.3 ms`, `1.5 %`.
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
        match unit {
            "" => f.write_str(text),
            unit => write!(f, "{text} {unit}"),
        }
    }
}

/// A limit. Limits of two kinds have no order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// An absolute value.
    Absolute(Amount),
    /// A multiple of the baseline, or in a `beyond` of the rule's limit.
    Times(f64),
}

/// The limit as in a rule: `5ms`, `1%`, `2x`.
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

/// The nodes of an `ask`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// All nodes, `*`.
    All,
    /// The nodes listed.
    Some(Vec<AskedNode>),
}

/// A node of an `ask`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedNode {
    /// The part itself: both ends of a segment, or the host.
    Here,
    /// A node by its name in the report.
    Named(String),
}

/// A step of the playbook.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The limit for this step; `None` if the rule's violation is enough.
    pub beyond: Option<Limit>,
    /// The classes of annotations to request.
    pub classes: Classes,
    /// The nodes to request them from.
    pub at: Nodes,
}

/// The condition under which a rule clears.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clear {
    /// Evaluations in a row within the limit; `None` for the end of `for N of M`.
    pub after: Option<u32>,
    /// The limit for these evaluations; `None` for the rule's own.
    pub below: Option<Limit>,
}

/// A rule, one line of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its line in the file, from 1; `None` for a limit of the command line.
    pub line: Option<u32>,
    /// The part.
    pub part: PartPattern,
    /// The figure.
    pub figure: RuleFigure,
    /// The statistic; `None` for each block's own value.
    pub statistic: Option<Statistic>,
    /// The limit.
    pub limit: Limit,
    /// Blocks of a window; 1 if each block is evaluated.
    pub over: u32,
    /// The N of `for N of M`: evaluations above the limit that violate the rule.
    pub hits: u32,
    /// The M of `for N of M`, 1 to [`MOST_OF`].
    pub of: u32,
    /// The condition under which it clears.
    pub clear: Clear,
    /// `Warning` or `Critical`.
    pub severity: Sla,
    /// The playbook.
    pub asks: Vec<Ask>,
}

impl Rule {
    /// Returns figure and statistic: `round_trip p95`.
    pub fn figure_text(&self) -> String {
        figure_text(self.figure, self.statistic)
    }

    /// Returns `true` if windows of blocks are evaluated.
    fn has_windows(&self) -> bool {
        self.statistic.is_some()
            || matches!(self.figure, RuleFigure::Loss | RuleFigure::Retransmits)
    }

    /// Returns `true` if the rule needs the model's knowledge of the baseline.
    fn needs_growth(&self) -> bool {
        let below = matches!(self.clear.below, Some(Limit::Times(_)));
        self.figure == RuleFigure::Increase || below || matches!(self.limit, Limit::Times(_))
    }
}

/// The rule with all its defaults, which parses as the same rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.part.words();
        f.write_str(kind)?;
        if let Some(name) = name {
            write!(f, " {name}")?;
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
                            AskedNode::Here => "here".to_owned(),
                            AskedNode::Named(name) => quoted(name),
                        })
                        .collect();
                    f.write_str(&nodes.join(","))?;
                }
            }
        }
        Ok(())
    }
}

fn figure_text(figure: RuleFigure, statistic: Option<Statistic>) -> String {
    match statistic {
        Some(statistic) => format!("{} {}", figure.word(), statistic.word()),
        None => figure.word().to_owned(),
    }
}

/// Writes a name as the grammar takes it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let alike = name.is_empty() || name.contains("->") || name == "here";
    if alike || !name.chars().all(plain) {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}
