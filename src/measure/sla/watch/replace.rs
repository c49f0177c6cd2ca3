//! New rules for a path that is watched.

use super::Watch;
use crate::measure::sla::Rule;
use crate::measure::Sla;
use std::mem::take;
use std::sync::Arc;

impl Watch {
    /// Replaces the rules. One whose text is the same keeps its state for each part.
    pub fn replace(&mut self, rules: Arc<[Rule]>) {
        let texts = self.rules.iter().map(|rule| Some(rule.to_string()));
        let mut old: Vec<_> = texts.collect();
        let mut numbers = vec![None; old.len()];
        let mut matched = vec![false; rules.len()];
        for (number, rule) in rules.iter().enumerate() {
            let text = Some(rule.to_string());
            if let Some(known) = old.iter().position(|one| *one == text) {
                old[known] = None; // A text that stands twice is two rules.
                numbers[known] = Some(number);
                matched[number] = self.matched[known];
            }
        }
        for mut track in take(&mut self.tracks) {
            match numbers[track.rule] {
                Some(number) => {
                    track.rule = number;
                    self.tracks.push(track);
                }
                None if track.exceeded => self.record(&track, Sla::None),
                None => {}
            }
        }
        self.needs_growth = rules.iter().any(Rule::needs_growth);
        self.grown = None;
        (self.rules, self.matched) = (rules, matched);
        let (least, excess) = (take(&mut self.least), take(&mut self.excess));
        self.bind();
        (self.least, self.excess) = (least, excess);
    }
}
