//! The names of the paths through a node that listens, as its report and its metrics show them.
//!
//! A label is `NAME@ADDRESS`, of the node at hop 0 and of the neighbour. There are few labels, and
//! they belong to the paths that came first. A later stranger neither takes one away nor changes
//! its figures. A node has restarted if it returns under its name with a new id, after its last
//! connection has ended. Its figures go on.

use crate::collect::path_key::{PathKey, REST};
use crate::columns::shorten;
use crate::report::is_unprintable;
use crate::sync::lock;
use crate::time::{MonoTime, Nanos};
use std::sync::{Arc, Mutex};

/// The most paths that have a label.
pub const LABELS: usize = 8;
/// The columns of a name in a label.
const NAME: usize = 64;
/// The time without a connection after which a label is given to a newcomer.
const UNUSED: Nanos = Nanos::from_millis(24 * 3600 * 1000);

/// The labels of a node, shared by its connections and its collector.
#[derive(Debug, Default)]
pub struct PathLabels(Mutex<Vec<Slot>>);

#[derive(Debug)]
struct Slot {
    label: String,
    /// The path whose figures have the label.
    key: PathKey,
    /// The id at hop 0 of the connections that are open, or were last.
    source: u64,
    open: usize,
    /// When the last connection ended.
    ended: MonoTime,
}

/// A connection of a path. The label stays with the path for as long as there is one.
#[derive(Debug)]
pub struct PathUse {
    labels: Arc<PathLabels>,
    /// The path to which its measurements belong.
    pub key: PathKey,
    now: fn() -> MonoTime,
}

impl PathLabels {
    /// Reserves a label for the path that begins at this node, `name`, with all raw clients.
    pub fn begin_here(&self, name: &str) {
        lock(&self.0).push(Slot {
            label: format!("{}@raw", legible(name)),
            key: PathKey::default(),
            source: 0,
            open: 1,
            ended: MonoTime(0),
        });
    }

    /// Notes a connection of the path `key`, with `name` at hop 0, and labels it if there is room.
    pub fn enter(self: &Arc<Self>, key: PathKey, name: &str, now: fn() -> MonoTime) -> PathUse {
        let rest = PathKey { share: REST, ..key };
        let key = self.slot(key, name, now()).unwrap_or(rest);
        PathUse {
            labels: Arc::clone(self),
            key,
            now,
        }
    }

    /// Returns the key of the figures under the label; `None` if the path gets none.
    fn slot(&self, key: PathKey, name: &str, now: MonoTime) -> Option<PathKey> {
        let neighbour = key.neighbour?;
        let same = |slot: &Slot| {
            let figures = PathKey {
                source: slot.source,
                share: key.share,
                ..slot.key
            };
            figures == key
        };
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.iter_mut().find(|slot| same(slot)) {
            slot.open += 1;
            return Some(slot.key);
        }
        let name = if name.is_empty() { "unknown" } else { name };
        let label = format!("{}@{neighbour}", legible(name));
        if let Some(slot) = slots.iter_mut().find(|slot| slot.label == label) {
            let is_restart = slot.open == 0 && slot.key.hop == key.hop;
            if !is_restart || slot.key.keyed != key.keyed {
                return None;
            }
            (slot.source, slot.open) = (key.source, 1);
            return Some(slot.key);
        }
        let unused = |slot: &Slot| slot.open == 0 && now.since(slot.ended) >= UNUSED;
        if slots.len() >= LABELS {
            let oldest = slots.iter().position(unused)?;
            slots.remove(oldest);
        }
        let is_free = |share: &u8| !slots.iter().any(|slot| slot.key.share == *share);
        let key = PathKey {
            share: (1..REST).find(is_free)?,
            ..key
        };
        slots.push(Slot {
            label,
            key,
            source: key.source,
            open: 1,
            ended: now,
        });
        Some(key)
    }

    fn leave(&self, key: PathKey, now: MonoTime) {
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.iter_mut().find(|slot| slot.key == key) {
            slot.open = slot.open.saturating_sub(1);
            slot.ended = now;
        }
    }

    /// Returns the labelled paths, the earliest first.
    pub fn all(&self) -> Vec<(PathKey, String)> {
        let slots = lock(&self.0);
        let all = slots.iter().map(|slot| (slot.key, slot.label.clone()));
        all.collect()
    }

    /// Returns `true` if the path has a label.
    pub fn has(&self, key: &PathKey) -> bool {
        let of = |slot: &Slot| PathKey {
            share: key.share,
            ..slot.key
        };
        lock(&self.0).iter().any(|slot| of(slot) == *key)
    }
}

/// Returns a name that no renderer has to change, so that two labels never look the same.
fn legible(name: &str) -> String {
    let plain = name
        .chars()
        .map(|c| if is_unprintable(c) { '?' } else { c });
    shorten(&plain.collect::<String>(), NAME)
}

impl Drop for PathUse {
    fn drop(&mut self) {
        self.labels.leave(self.key, (self.now)());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn key(address: u8, source: u64) -> PathKey {
        PathKey {
            neighbour: Some([10, 0, 0, address].into()),
            hop: 1,
            source,
            keyed: false,
            share: 0,
        }
    }

    fn now() -> MonoTime {
        MonoTime(1_000_000_000)
    }

    fn tomorrow() -> MonoTime {
        MonoTime(now().0 + UNUSED.0)
    }

    fn texts(labels: &PathLabels) -> Vec<String> {
        labels.all().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn whatever_strangers_do_later_labels_stay_with_those_that_came_first() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let labels = Arc::<PathLabels>::default();
            labels.begin_here("B");
            let yours = labels.enter(key(1, 1), "A", now);
            let mut open = Vec::new();
            let mut before = texts(&labels);
            for _ in 0..300 {
                let name = ["A", "B", "C", "x"][random.below(4)];
                let stranger = key(random.below(30) as u8, 2 + random.below(50) as u64);
                open.push(labels.enter(stranger, name, now));
                if random.below(3) == 0 {
                    open.swap_remove(random.below(open.len()));
                }
                let after = texts(&labels);
                assert!(after.len() <= LABELS, "seed {seed}: {after:?}");
                assert_eq!(after[..before.len()], before[..], "seed {seed}");
                let distinct: std::collections::BTreeSet<_> = after.iter().collect();
                assert_eq!(distinct.len(), after.len(), "seed {seed}: {after:?}");
                before = after;
                let is_yours = |stranger: &PathUse| stranger.key == yours.key;
                assert!(!open.iter().any(is_yours), "seed {seed}");
            }
            assert_eq!(texts(&labels)[..2], ["B@raw", "A@10.0.0.1"], "seed {seed}");
        }
    }

    #[test]
    fn a_node_that_comes_back_with_a_new_id_goes_on_and_two_at_once_do_not_share() {
        let labels = Arc::<PathLabels>::default();
        let first = labels.enter(key(1, 1), "A", now);
        let same = labels.enter(key(1, 1), "A", now);
        let beside = labels.enter(key(1, 2), "A", now);
        assert_eq!(first.key, same.key);
        assert_ne!(beside.key, first.key, "two nodes of one name at once");
        assert!(!labels.has(&beside.key));
        let kept = first.key;
        drop((first, same));
        let restarted = labels.enter(key(1, 3), "A", now);
        assert_eq!(restarted.key, kept, "its figures go on");
        drop(restarted);
        let restarted = labels.enter(key(1, 4), "A", now);
        assert_eq!(restarted.key, kept, "and again");
    }

    #[test]
    fn a_label_without_a_connection_for_a_day_goes_to_a_newcomer_and_only_then() {
        let labels = Arc::<PathLabels>::default();
        for address in 0..8 {
            drop(labels.enter(key(address, 1), "A", now));
        }
        drop(labels.enter(key(9, 1), "A", now));
        assert!(!labels.has(&key(9, 1)));
        drop(labels.enter(key(9, 1), "A", tomorrow));
        assert!(labels.has(&key(9, 1)) && !labels.has(&key(0, 1)));
        assert_eq!(labels.all().len(), LABELS);
    }
}
