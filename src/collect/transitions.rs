//! What turned, for the log: a rule that turns with every block has a line per second, which counts what it leaves out.

use crate::measure::sla::{Event, Figure, Place, Statistic};
use crate::measure::Sla;
use crate::time::{MonoTime, Nanos};

/// Between two lines about one rule and one part.
const EVERY: Nanos = Nanos::from_millis(1_000);

/// The turns that are to be told yet. Its memory is bounded by rules and parts of the path.
#[derive(Debug, Default)]
pub struct Transitions(Vec<Told>);

/// One rule, for one part.
#[derive(Debug)]
struct Told {
    subject: Subject,
    said: Option<MonoTime>,
    /// The latest that has no line.
    latest: Option<Event>,
    /// Those before it without one.
    more: u64,
}

/// All that an event has of its rule.
type Subject = (Place, Option<u32>, Figure, Option<Statistic>, Sla);

impl Transitions {
    /// Takes an event in.
    pub fn take(&mut self, event: Event) {
        let now = &event.now;
        let subject = (now.place, now.line, now.figure, now.statistic, now.severity);
        let known = self.0.iter().position(|told| told.subject == subject);
        let known = known.unwrap_or_else(|| {
            self.0.push(Told {
                subject,
                said: None,
                latest: None,
                more: 0,
            });
            self.0.len() - 1
        });
        let told = &mut self.0[known];
        told.more += u64::from(told.latest.replace(event).is_some());
    }

    /// Whether something is to be told, now or later.
    pub fn wait(&self) -> bool {
        self.0.iter().any(|told| told.latest.is_some())
    }

    /// What is to be told at `now`: the latest turn of each, and how many before it since its line before.
    pub fn due(&mut self, now: MonoTime) -> Vec<(Event, u64)> {
        self.tell(|said| {
            let is_due = said.map_or(true, |said| now.since(said) >= EVERY);
            is_due.then_some(now)
        })
    }

    /// All that has not been told, at the end.
    pub fn rest(&mut self) -> Vec<(Event, u64)> {
        self.tell(|said| said.or(Some(MonoTime(0))))
    }

    /// `when` says whether there may be a line, and of what time it then is.
    fn tell(&mut self, when: impl Fn(Option<MonoTime>) -> Option<MonoTime>) -> Vec<(Event, u64)> {
        let mut lines = Vec::new();
        for told in self.0.iter_mut().filter(|told| told.latest.is_some()) {
            if let Some(at) = when(told.said) {
                told.said = Some(at);
                let latest = told.latest.take();
                lines.extend(latest.map(|latest| (latest, std::mem::take(&mut told.more))));
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

    fn event(line: u32, sequence: u64) -> Event {
        Event {
            at: WallTime(0),
            sequence,
            now: LimitState {
                place: Place::Total,
                line: Some(line),
                figure: Figure::RoundTrip,
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

    fn shown(lines: Vec<(Event, u64)>) -> Vec<(Option<u32>, u64, u64)> {
        let lines = lines.into_iter();
        lines
            .map(|(event, more)| (event.now.line, event.sequence, more))
            .collect()
    }

    #[test]
    fn a_rule_that_turns_with_every_block_has_a_line_per_second_and_none_of_its_turns_is_lost() {
        let (mut turns, mut lines) = (Transitions::default(), Vec::new());
        for block in 0..350 {
            turns.take(event(1, block));
            lines.extend(turns.due(MonoTime(5_000_000_000 + block * 10_000_000)));
        }
        let seen = shown(lines);
        let expected = [(0, 0), (100, 99), (200, 99), (300, 99)];
        assert!(
            seen.iter().map(|line| (line.1, line.2)).eq(expected),
            "{seen:?}"
        );
        assert!(turns.wait());
        assert_eq!(shown(turns.rest()), [(Some(1), 349, 48)]);
        assert!(!turns.wait() && turns.rest().is_empty());
    }

    #[test]
    fn the_last_turn_is_told_although_no_other_follows_and_rules_do_not_wait_for_each_other() {
        let mut turns = Transitions::default();
        let at = |ms: u64| MonoTime(ms * 1_000_000);
        turns.take(event(1, 0));
        assert_eq!(shown(turns.due(at(0))), [(Some(1), 0, 0)]);
        turns.take(event(1, 1));
        turns.take(event(2, 2));
        assert_eq!(shown(turns.due(at(1))), [(Some(2), 2, 0)]);
        assert!(turns.due(at(999)).is_empty() && turns.wait());
        assert_eq!(shown(turns.due(at(1_000))), [(Some(1), 1, 0)]);
    }
}
