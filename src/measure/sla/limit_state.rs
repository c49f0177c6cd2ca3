//! The state of a rule for one part of the path, and the events of its changes.

use super::{figure_text, Amount, RuleFigure, Statistic};
use crate::measure::{Part, Sla};
use crate::time::WallTime;
use std::fmt;

/// A change of a rule's state, for one part of the path.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleEvent {
    /// The time at which the block that decided came back, on the clock of the node that reports.
    pub at: WallTime,
    /// That block.
    pub sequence: u64,
    /// The rule and its present state for the part; `None` where it is no longer on the path.
    pub now: LimitState,
}

/// As its [`LimitState`].
impl fmt::Display for RuleEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now.fmt(f)
    }
}

/// The state of one rule for one part.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitState {
    /// The part.
    pub part: Part,
    /// The rule's line; `None` for a limit of the command line.
    pub line: Option<u32>,
    /// The measured figure.
    pub figure: RuleFigure,
    /// Its statistic; `None` for each block's own value.
    pub statistic: Option<Statistic>,
    /// The severity beyond the limit.
    pub severity: Sla,
    /// The limit in force; `None` while it waits for a baseline.
    pub limit: Option<Amount>,
    /// The latest evaluation; `None` before the first.
    pub value: Option<Amount>,
    /// `Ok`, or the severity while the rule is exceeded.
    pub state: Sla,
}

/// `critical, round_trip p95 7.3 ms, limit 5 ms (line 3)`: all but the name of the part.
impl fmt::Display for LimitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            Sla::None => "no longer watched",
            state => state.name(),
        };
        write!(f, "{state}, {}", self.figure_text())?;
        if let Some(value) = self.value {
            write!(f, " {value}")?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit {limit}")?;
        }
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

impl LimitState {
    /// `round_trip p95`
    pub fn figure_text(&self) -> String {
        figure_text(self.figure, self.statistic)
    }
}
