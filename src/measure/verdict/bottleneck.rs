//! Backpressure: under load the queue builds up before the part that drains slowly. So the cause is
//! sought at the end of a chain of pumps blocked in `write`.

use super::{ms, Change, Evidence};
use crate::measure::{Basis, Confidence, Part, Verdict, VerdictDirection, VerdictKind};

/// A pump that was blocked in `write` for more than this share of the time was held.
const HELD: f64 = 0.10;
/// Held for more than this it is the bottleneck, whatever else there is.
pub(super) const MOSTLY: f64 = 0.50;

/// The end of a chain of held pumps: the part after the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bottleneck {
    /// `None`: what the origin writes its answers to.
    part: Option<(Part, Option<VerdictDirection>)>,
    /// The last held pump.
    pub(super) pump: usize,
}

impl Evidence<'_> {
    fn is_held(&self, pump: usize) -> bool {
        self.held.get(pump).is_some_and(|share| *share > HELD)
    }

    /// The end of a chain of held pumps, from the far end of `part` on.
    ///
    /// With `!moved_only`, also a part that is itself the end of the chain: its near pump is held.
    pub(super) fn bottleneck(&self, part: Part, moved_only: bool) -> Option<Bottleneck> {
        let places = self.hops.len();
        let place = |hop| self.hops.iter().position(|known| *known == hop);
        let (far, near) = match part {
            Part::Segment { from, .. } => {
                let place = place(from)?;
                let last = self.reflected && place + 2 == places;
                let back = if last { place + 1 } else { places + place + 1 };
                ([place + 1, places + place], [place, back])
            }
            Part::Host(hop) => {
                let place = place(hop)?;
                ([place, places + place], [place, places + place])
            }
            _ => return None,
        };
        let near = near.into_iter().filter(|_| !moved_only);
        let first = far
            .into_iter()
            .chain(near)
            .find(|pump| self.is_held(*pump))?;
        let mut pump = first;
        loop {
            let (next, part) = self.after(pump);
            match next {
                Some(next) if self.is_held(next) => pump = next,
                _ => return Some(Bottleneck { part, pump }),
            }
        }
    }

    /// The successor of a pump in the way of the data: the next pump, and the part between them.
    fn after(&self, pump: usize) -> (Option<usize>, Option<(Part, Option<VerdictDirection>)>) {
        let places = self.hops.len();
        let segment = |place: usize, direction| {
            let (from, to) = (*self.hops.get(place)?, *self.hops.get(place + 1)?);
            Some((Part::Segment { from, to }, Some(direction)))
        };
        match pump.checked_sub(places) {
            Some(0) => (None, None),
            Some(place) => (Some(pump - 1), segment(place - 1, VerdictDirection::Return)),
            None if pump + 1 < places => (Some(pump + 1), segment(pump, VerdictDirection::Forward)),
            None if self.reflected && pump > 0 => {
                let next = places + pump - 1;
                (Some(next), segment(pump - 1, VerdictDirection::Return))
            }
            None => (None, Some((Part::Server, None))),
        }
    }

    /// The delay queues before a part that drains slowly; `seen` is where it shows.
    pub(super) fn backed_up(&self, grown: Option<&Change>, seen: Part, to: Bottleneck) -> Verdict {
        let places = self.hops.len();
        let share = self.held.get(to.pump).copied().unwrap_or(0.0);
        let direction = to.part.and_then(|(_, direction)| direction);
        let slow = match to.part {
            Some((Part::Segment { from, to }, Some(VerdictDirection::Return))) => {
                let (near, far) = ((self.name)(from), (self.name)(to));
                format!("{near} -> {far} drains slowly in return direction, or {near} reads slowly")
            }
            Some((part @ Part::Segment { to, .. }, _)) => {
                let (segment, far) = (self.part_name(part), (self.name)(to));
                format!("{segment} drains slowly, or {far} reads slowly")
            }
            Some(_) => "the server (or the network to it) reads slowly".to_owned(),
            None => {
                let origin = self
                    .hops
                    .first()
                    .map_or_else(String::new, |hop| (self.name)(*hop));
                format!("{origin} reads its answers slowly, or what it writes them to does")
            }
        };
        let writer = self.hops.get(to.pump % places.max(1)).copied();
        let held = format!(
            "{} was blocked writing {:.0} % of the time",
            writer.map_or_else(String::new, self.name),
            share * 100.0
        );
        let queue = match grown {
            Some(change) => format!(
                "the queue shows in {} with +{} ms",
                self.part_name(seen),
                ms(change.amount.0)
            ),
            None => format!(
                "the queue shows in {}, the largest part",
                self.part_name(seen)
            ),
        };
        let part = match to.part {
            Some((part, _)) => part,
            None => Part::Host(self.hops.first().copied().unwrap_or(0)),
        };
        let own = self
            .changes
            .iter()
            .find(|change| change.part == part && change.amount.0 > 0);
        let mut verdict = match own.filter(|_| grown.is_some()) {
            Some(own) => self.with_change(own),
            None => {
                let (kind, index) = self.kind_of(part);
                let share = self.shares.iter().find(|share| share.part == part);
                Verdict {
                    kind: if kind == VerdictKind::None {
                        VerdictKind::Source
                    } else {
                        kind
                    },
                    index,
                    part: Some(part),
                    name: self.part_name(part),
                    share: share.and_then(|share| share.share),
                    basis: grown.map(|_| Basis::Increase),
                    also: self.also(None),
                    ..Verdict::default()
                }
            }
        };
        let certain = share >= MOSTLY;
        verdict.doubts = match certain {
            true => Vec::new(),
            false => vec!["blocked less than half of the time".to_owned()],
        };
        verdict.confidence = if certain {
            Confidence::High
        } else {
            Confidence::Low
        };
        verdict.direction = direction;
        verdict.reason = format!("backed up from downstream: {held}");
        verdict.text = format!("{slow}: {held}; {queue}.");
        verdict
    }
}
