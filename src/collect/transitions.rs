//! Changes of SLA states on their way to the log. A rule whose state changes with every block has
//! one line per second, which counts the changes that it leaves out.

use crate::measure::sla::{RuleEvent, RuleFigure, Statistic};
use crate::measure::{Part, Sla};
use crate::time::{MonoTime, Nanos};

/// The shortest time between two lines about one rule and one part.
const EVERY: Nanos = Nanos::from_millis(1_000);

/// The changes that have no line yet. Rules and parts of the path bound its memory.
#[derive(Debug, Default)]
pub struct Transitions(Vec<StateChanges>);

/// The changes of one rule's state for one part.
#[derive(Debug)]
struct StateChanges {
    rule: RuleKey,
    /// The time of the latest line.
    logged: Option<MonoTime>,
    /// The latest change without a line.
    latest: Option<RuleEvent>,
    /// The number of changes before it without a line.
    more: u64,
}

/// The fields of an event that identify its rule.
type RuleKey = (Part, Option<u32>, RuleFigure, Option<Statistic>, Sla);

impl Transitions {
    /// Takes a change.
    pub fn take(&mut self, event: RuleEvent) {
        let now = &event.now;
        let rule = (now.part, now.line, now.figure, now.statistic, now.severity);
        let known = self.0.iter().position(|changes| changes.rule == rule);
        let known = known.unwrap_or_else(|| {
            self.0.push(StateChanges {
                rule,
                logged: None,
                latest: None,
                more: 0,
            });
            self.0.len() - 1
        });
        let changes = &mut self.0[known];
        changes.more += u64::from(changes.latest.replace(event).is_some());
    }

    /// Returns `true` if a change has no line yet.
    pub fn is_waiting(&self) -> bool {
        self.0.iter().any(|changes| changes.latest.is_some())
    }

    /// Takes the changes whose line is due at `now`: the latest of each rule, and the number before
    /// it since its last line.
    pub fn due(&mut self, now: MonoTime) -> Vec<(RuleEvent, u64)> {
        self.take_if(|logged| {
            let is_due = logged.map_or(true, |logged| now.since(logged) >= EVERY);
            is_due.then_some(now)
        })
    }

    /// Takes all changes without a line, at the end.
    pub fn rest(&mut self) -> Vec<(RuleEvent, u64)> {
        self.take_if(|logged| logged.or(Some(MonoTime(0))))
    }

    /// Takes the changes for which `when` returns the time of their line; its argument is the time
    /// of the last one.
    fn take_if(
        &mut self,
        when: impl Fn(Option<MonoTime>) -> Option<MonoTime>,
    ) -> Vec<(RuleEvent, u64)> {
        let mut lines = Vec::new();
        for changes in self.0.iter_mut().filter(|changes| changes.latest.is_some()) {
            if let Some(at) = when(changes.logged) {
                changes.logged = Some(at);
                let more = std::mem::take(&mut changes.more);
                lines.extend(changes.latest.take().map(|latest| (latest, more)));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sla::LimitState;
    use crate::time::WallTime;

    fn event(line: u32, sequence: u64) -> RuleEvent {
        RuleEvent {
            at: WallTime(0),
            sequence,
            now: LimitState {
                part: Part::Total,
                line: Some(line),
                figure: RuleFigure::RoundTrip,
                statistic: None,
                severity: Sla::Warning,
                limit: None,
                value: None,
                state: if sequence % 2 == 0 {
                    Sla::Warning
                } else {
                    Sla::Ok
                },
            },
        }
    }

    fn shown(lines: Vec<(RuleEvent, u64)>) -> Vec<(Option<u32>, u64, u64)> {
        let lines = lines.into_iter();
        lines
            .map(|(event, more)| (event.now.line, event.sequence, more))
            .collect()
    }

    #[test]
    fn a_rule_that_changes_with_every_block_has_a_line_per_second_and_no_change_is_lost() {
        let (mut transitions, mut lines) = (Transitions::default(), Vec::new());
        for block in 0..350 {
            transitions.take(event(1, block));
            lines.extend(transitions.due(MonoTime(5_000_000_000 + block * 10_000_000)));
        }
        let seen = shown(lines);
        let expected = [(0, 0), (100, 99), (200, 99), (300, 99)];
        assert!(
            seen.iter().map(|line| (line.1, line.2)).eq(expected),
            "{seen:?}"
        );
        assert!(transitions.is_waiting());
        assert_eq!(shown(transitions.rest()), [(Some(1), 349, 48)]);
        assert!(!transitions.is_waiting() && transitions.rest().is_empty());
    }

    #[test]
    fn the_last_change_has_a_line_without_another_after_it_and_rules_do_not_wait_for_each_other() {
        let mut transitions = Transitions::default();
        let at = |ms: u64| MonoTime(ms * 1_000_000);
        transitions.take(event(1, 0));
        assert_eq!(shown(transitions.due(at(0))), [(Some(1), 0, 0)]);
        transitions.take(event(1, 1));
        transitions.take(event(2, 2));
        assert_eq!(shown(transitions.due(at(1))), [(Some(2), 2, 0)]);
        assert!(transitions.due(at(999)).is_empty() && transitions.is_waiting());
        assert_eq!(shown(transitions.due(at(1_000))), [(Some(1), 1, 0)]);
    }
}
