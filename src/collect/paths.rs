//! The states of all paths through this node, in bounded memory.

use crate::collect::path_key::PathKey;
use crate::collect::path_state::PathState;
use crate::vec_map::VecMap;

/// The paths that a report shows; further ones are counted.
pub(super) const SHOWN: usize = 8;

/// A state for each path through this node. Their figures do not mix.
#[derive(Debug)]
pub(super) struct Paths {
    /// Boxed, as paths come and go and the map moves its values.
    paths: VecMap<PathKey, Box<PathState>>,
    /// The most memory of all paths, in bytes; `--max-memory` of a node that listens.
    pub(super) memory_limit: usize,
    /// The memory of all paths at the last look, and that of the paths begun since.
    memory: usize,
    /// The number of the latest measurement.
    used: u64,
    /// Paths of strangers that were dropped for want of memory.
    pub(super) dropped: u64,
}

impl Paths {
    pub(super) fn new() -> Self {
        Self {
            paths: VecMap::new(),
            memory_limit: usize::MAX,
            memory: 0,
            used: 0,
            dropped: 0,
        }
    }

    /// Returns the state of a path, for a measurement; `begin` makes that of an unknown one.
    pub(super) fn at(&mut self, key: PathKey, begin: impl FnOnce() -> PathState) -> &mut PathState {
        self.used += 1;
        if !self.paths.contains_key(&key) {
            let path = begin();
            self.memory += path.memory();
            if self.memory > self.memory_limit {
                self.bound_memory();
            }
            self.paths.insert(key, Box::new(path));
        }
        let used = self.used;
        let path = self.paths.get_mut(&key).expect("it is there by now");
        path.used = used;
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

    pub(super) fn values(&self) -> impl Iterator<Item = &PathState> {
        self.paths.values().map(|path| &**path)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.paths.values_mut().map(|path| &mut **path)
    }

    /// Drops paths of strangers, the one that was idle for longest first, while the memory of all
    /// exceeds the limit; then down to 7/8 of it, so that this is rare.
    pub(super) fn bound_memory(&mut self) {
        self.memory = self.paths.values().map(|path| path.memory()).sum();
        if self.memory <= self.memory_limit {
            return;
        }
        let strangers = self.paths.iter().filter(|(key, _)| key.is_of_a_stranger());
        let mut strangers: Vec<_> = strangers
            .map(|(_, path)| (path.used, path.memory()))
            .collect();
        strangers.sort_unstable();
        let mut idle_until = 0;
        for (used, memory) in strangers {
            if self.memory <= self.memory_limit / 8 * 7 {
                break;
            }
            self.memory -= memory;
            self.dropped += 1;
            idle_until = used;
        }
        let stays =
            |key: &PathKey, path: &PathState| !key.is_of_a_stranger() || path.used > idle_until;
        self.paths.retain(|key, path| stays(key, path));
    }

    /// Returns the key and the state of the path that the report is about: the one with most
    /// blocks.
    pub(super) fn main(&self) -> (PathKey, &PathState) {
        let fullest = self.paths.iter().max_by_key(|(_, path)| path.measured);
        let (&key, path) = fullest.expect("the path that begins here is never dropped");
        (key, path)
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
        let mut lines = Vec::new();
        for (key, path) in others.iter().take(SHOWN - 1) {
            lines.push(format!(
                "another path, not in these figures: {}: blocks {}",
                path_name(key, path),
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

/// Returns a path in words: the name at hop 0, which a peer wrote, the neighbour's address and the
/// hop of this node.
fn path_name(key: &PathKey, path: &PathState) -> String {
    let Some(neighbour) = key.neighbour else {
        return "the one that begins here".into();
    };
    let source = path.names.get(&0).map_or("", String::as_str);
    format!("{}@{neighbour} (hop {})", source.escape_debug(), key.hop)
}
