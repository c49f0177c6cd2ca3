//! The states of all paths through this node, in bounded memory.

use crate::collect::path_key::PathKey;
use crate::collect::path_labels::{PathLabels, LABELS};
use crate::collect::path_state::PathState;
use crate::report::PathRest;
use crate::vec_map::VecMap;
use std::sync::Arc;

/// The paths that a report shows; further ones are counted.
pub(super) const SHOWN: usize = LABELS;

/// The part of the limit that each labelled path may take, as a divisor: all of them take half.
const SHARE: usize = 2 * LABELS;
/// The part of the limit for the rows of each shape of a path, as a divisor: half of a share.
pub(super) const ROWS: usize = 2 * SHARE;

/// A state for each path through this node. Their figures do not mix.
#[derive(Debug)]
pub(super) struct Paths {
    /// Boxed, as paths come and go and the map moves its values.
    paths: VecMap<PathKey, Box<PathState>>,
    /// The most memory of all paths, in bytes; `--max-memory` of a node that listens.
    pub(super) memory_limit: usize,
    /// The memory of what is kept of earlier windows, in bytes.
    pub(super) records: usize,
    /// The memory of all paths and records at the last look, and that of the paths begun since.
    memory: usize,
    /// The number of the latest measurement.
    used: u64,
    /// Paths of strangers that were dropped for want of memory.
    pub(super) dropped: u64,
    /// The names of the paths of a node that listens; `None` in a process that begins its own.
    pub(super) labels: Option<Arc<PathLabels>>,
    /// The figures of those without a name.
    pub(super) rest: PathRest,
}

impl Paths {
    pub(super) fn new() -> Self {
        Self {
            paths: VecMap::new(),
            memory_limit: usize::MAX,
            records: 0,
            memory: 0,
            used: 0,
            dropped: 0,
            labels: None,
            rest: PathRest::default(),
        }
    }

    pub(super) fn has(&self, key: PathKey) -> bool {
        self.paths.contains_key(&key)
    }

    /// Adds the state of an unknown path.
    pub(super) fn add(&mut self, key: PathKey, path: PathState) {
        self.memory += path.memory();
        if self.memory > self.memory_limit {
            self.bound_memory();
        }
        self.paths.insert(key, Box::new(path));
    }

    /// Returns the state of a known path, for a measurement.
    pub(super) fn at(&mut self, key: PathKey) -> &mut PathState {
        self.used += 1;
        let path = self.paths.get_mut(&key).expect("a known path");
        path.used = self.used;
        path
    }

    pub(super) fn get(&self, key: PathKey) -> Option<&PathState> {
        self.paths.get(&key).map(|path| &**path)
    }

    pub(super) fn get_mut(&mut self, key: PathKey) -> Option<&mut PathState> {
        self.paths.get_mut(&key).map(|path| &mut **path)
    }

    pub(super) fn keys(&self) -> Vec<PathKey> {
        self.paths.keys().copied().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathKey, &PathState)> {
        self.paths.iter().map(|(key, path)| (key, &**path))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &PathState> + Clone {
        self.paths.values().map(|path| &**path)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.paths.values_mut().map(|path| &mut **path)
    }

    /// Returns the figures that paths without a label share, if this path is one.
    pub(super) fn rest_of(&mut self, key: PathKey) -> Option<&mut PathRest> {
        (!self.is_labelled(&key)).then_some(&mut self.rest)
    }

    /// Returns `true` for a path with figures of its own in report and metrics.
    pub(super) fn is_labelled(&self, key: &PathKey) -> bool {
        let labels = self.labels.as_ref();
        key.neighbour.is_none() || labels.map_or(true, |labels| labels.has(key))
    }

    /// Drops paths of strangers while the memory of all exceeds the limit, then down to 7/8 of it,
    /// so that this is rare. Those without a label go first, then labelled ones above [`SHARE`] of
    /// the limit: a large path of a stranger never costs a small one its figures. Of each kind the
    /// longest idle goes first.
    pub(super) fn bound_memory(&mut self) {
        let paths = self.paths.values().map(|path| path.memory());
        self.memory = self.records + paths.sum::<usize>();
        if self.memory <= self.memory_limit {
            return;
        }
        let strangers = self.paths.iter().filter(|(key, _)| key.is_of_a_stranger());
        let mut strangers: Vec<_> = strangers
            .map(|(key, path)| {
                let memory = path.memory();
                let is_small = memory <= self.memory_limit / SHARE;
                let last = self.is_labelled(key).then_some(is_small);
                (last, path.used, memory, *key)
            })
            .collect();
        strangers.sort_unstable();
        let mut gone = Vec::new();
        for (_, _, memory, key) in strangers {
            if self.memory <= self.memory_limit / 8 * 7 {
                break;
            }
            self.memory -= memory;
            self.dropped += 1;
            gone.push(key);
        }
        gone.sort_unstable();
        self.paths.retain(|key, _| gone.binary_search(key).is_err());
    }

    /// Returns the key and the state of the path that the report is about. That is the path that
    /// begins here, else the keyed one or the stranger that came first. The number of blocks does
    /// not matter, or a stranger with more would replace another path.
    pub(super) fn main(&self) -> (PathKey, &PathState) {
        let begun = PathKey::default();
        let labelled = self.labelled();
        let first = labelled
            .iter()
            .min_by_key(|(key, ..)| key.is_of_a_stranger());
        match (self.get(begun), first) {
            (Some(path), first) if path.measured > 0 || first.is_none() => (begun, path),
            (_, Some((key, _, path))) => (*key, path),
            (_, None) => unreachable!("the path that begins here is never dropped"),
        }
    }

    /// Returns the paths with a label and with blocks, the one that came first before the others.
    pub(super) fn labelled(&self) -> Vec<(PathKey, String, &PathState)> {
        let labels = self.labels.iter().flat_map(|labels| labels.all());
        let labelled = labels.filter_map(|(key, label)| {
            let path = self.get(key).filter(|path| path.measured > 0)?;
            Some((key, label, path))
        });
        labelled.collect()
    }

    /// Returns a line for each of the paths that the report is not about, those with most blocks
    /// first, and one that counts the rest.
    pub(super) fn others(&self, main: PathKey) -> Vec<String> {
        let others = self
            .paths
            .iter()
            .filter(|(key, path)| **key != main && path.measured > 0);
        let mut others: Vec<_> = others.collect();
        others.sort_unstable_by_key(|(_, path)| std::cmp::Reverse(path.measured));
        let labels = self.labelled();
        let name = |key: &PathKey| {
            let label = labels.iter().find(|(labelled, ..)| labelled == key);
            label.map(|(_, label, _)| label.escape_debug().to_string())
        };
        let mut lines = Vec::new();
        for (key, path) in others.iter().take(SHOWN - 1) {
            lines.push(format!(
                "another path, not in these figures: {}: blocks {}",
                name(key).unwrap_or_else(|| path_name(key)),
                path.measured
            ));
        }
        let rest = others.get(SHOWN - 1..).unwrap_or_default();
        if !rest.is_empty() {
            let blocks: u64 = rest.iter().map(|(_, path)| path.measured).sum();
            lines.push(format!(
                "and {} other paths more, with {blocks} blocks",
                rest.len()
            ));
        }
        if self.dropped > 0 {
            lines.push(format!(
                "figures of paths without a key that were dropped for want of memory \
                 (--max-memory): {}",
                self.dropped
            ));
        }
        lines
    }
}

/// Returns a path without a label in words: the neighbour's address and the hop of this node.
fn path_name(key: &PathKey) -> String {
    match key.neighbour {
        Some(neighbour) => format!("{neighbour} (hop {})", key.hop),
        None => "the one that begins here".into(),
    }
}
