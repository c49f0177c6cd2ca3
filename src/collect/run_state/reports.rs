//! The reports of a run state.

use super::{RunState, SLOTS, STEP};
use crate::collect::path_key::PathKey;
use crate::collect::path_state::PathState;
use crate::measure::timeline;
use crate::measure::timeline::{EventKind, Timeline};
use crate::measure::HeaderDelays;
use crate::report::{Blocks, PathRest, Report};
use crate::sys;
use crate::time::{MonoTime, Now, WallTime};
use crate::FULL;

impl RunState {
    /// Returns a report of everything so far.
    pub fn report(&self, ended: WallTime, blocks: Blocks, dropped: u64) -> Report {
        let (main_key, main) = self.main();
        let mut labelled = self.paths.labelled();
        let place = labelled.iter().position(|(key, ..)| *key == main_key);
        let label = place.map(|place| labelled.remove(place).1);
        let report = self.report_of(main, label, ended, blocks);
        let mut statistics = report.statistics;
        if let Some(down) = self.down(blocks) {
            statistics.verdict = down;
        }
        let others = labelled.into_iter().map(|(_, label, path)| {
            let blocks = Blocks {
                sent: path.measured,
                received: path.measured,
                ..Blocks::default()
            };
            self.report_of(path, Some(label), ended, blocks)
        });
        let (_, forgotten) = main.watch.events();
        Report {
            statistics,
            opened: self.opened,
            flows: self.flows(),
            broken: self.broken.clone(),
            others: others.collect(),
            rest: self.paths.rest.clone(),
            header_delays: match FULL {
                true => self.headers.delays.clone(),
                false => HeaderDelays::default(),
            },
            dropped,
            notices: self.notice_texts(main_key, main, forgotten),
            ..report
        }
    }

    /// Returns the figures of one path, without what is about the whole process.
    fn report_of(
        &self,
        path: &PathState,
        label: Option<String>,
        ended: WallTime,
        blocks: Blocks,
    ) -> Report {
        Report {
            started: self.start_by(ended, sys::clock::mono()),
            ended,
            role: self.role.clone(),
            path: path.path.clone(),
            label,
            others: Vec::new(),
            rest: PathRest::default(),
            blocks,
            opened: None,
            server_down: path.server_down.clone(),
            flows: Vec::new(),
            statistics: path.statistics(),
            limits: path.watch.limits(),
            events: path.watch.events().0,
            broken: None,
            annotations: path.annotations.values().cloned().collect(),
            unmatched: self.is_unmatched(path),
            first_annotations: path.first_annotations.values().cloned().collect(),
            timeline: None,
            header_delays: HeaderDelays::default(),
            dropped: 0,
            notices: Vec::new(),
        }
    }

    /// Returns the beginning of the run by the wall clock as it is at `ended`, `now` on the
    /// monotonic clock. If it was stepped meanwhile, the one at the start would give the run
    /// another length.
    pub(super) fn start_by(&self, ended: WallTime, now: MonoTime) -> WallTime {
        let lasted = now.since(self.started_mono).signed();
        let off = (ended - self.started) - lasted;
        if off.abs() < STEP {
            self.started
        } else {
            ended + -lasted
        }
    }

    fn notice_texts(&self, main_key: PathKey, main: &PathState, forgotten: u64) -> Vec<String> {
        let texts = self.notices.texts();
        let mut notices: Vec<_> = self.settings.iter().cloned().chain(texts).collect();
        if self.malformed > 0 {
            notices.push(format!(
                "blocks that came back with stamps that make no path, left out: {}",
                self.malformed
            ));
        }
        notices.extend(self.paths.others(main_key));
        notices.extend(main.untimed_server());
        if main.measured > 0 {
            let unmatched = main.watch.unmatched();
            notices.extend(
                unmatched.map(|rule| format!("no part of the path matches the rule: {rule}")),
            );
        }
        if forgotten > 0 {
            notices.push(format!("{forgotten} events before the first one shown"));
        }
        notices
    }

    /// Returns a report of this moment, with the timeline that pictures need if `pictures`.
    pub fn look(&self, blocks: Blocks, dropped: u64, pictures: bool) -> Report {
        let now = sys::clock::read().now();
        let mut report = self.report(now.wall, blocks, dropped);
        if FULL && pictures {
            report.timeline = self.timeline(now);
            for (key, label, path) in self.paths.labelled() {
                let mut others = report.others.iter_mut();
                let other = others.find(|other| other.label.as_ref() == Some(&label));
                if let Some(other) = other.filter(|_| key != self.main().0) {
                    other.timeline = path.model.timeline(SLOTS, now);
                }
            }
        }
        report
    }

    /// Returns the run over time, with notices among its events; `None` if nothing was measured.
    /// `now` has both clocks, read together. Changes of SLA states are in the report.
    pub fn timeline(&self, now: Now) -> Option<Timeline> {
        let mut timeline = self.model().timeline(SLOTS, now)?;
        let events = self
            .notices
            .events()
            .map(|(at, text)| timeline::TimelineEvent {
                at,
                kind: EventKind::Notice(text.to_owned()),
            });
        timeline.events.extend(events);
        timeline.events.sort_by_key(|event| event.at);
        Some(timeline)
    }
}
