//! What the next marked blocks ask the nodes of the path for: set by the rules or by the user, read by the thread that
//! sends blocks.

use super::lock;
use crate::measure::facts::Classes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

/// Classes by hop.
#[derive(Debug, Default)]
pub struct Asking {
    /// All that is asked of anybody; 0 costs a block one load.
    union: AtomicU32,
    hops: Mutex<BTreeMap<u8, Classes>>,
}

impl Asking {
    /// From the next block on, each of these hops is asked for its classes, and nobody else for anything.
    pub fn set(&self, hops: BTreeMap<u8, Classes>) {
        let mut held = lock(&self.hops);
        let union = hops.values().fold(Classes(0), |all, &some| all.and(some));
        *held = hops;
        self.union.store(union.0, Ordering::Relaxed);
    }

    /// All that is asked of anybody: what the header of a block carries.
    pub fn union(&self) -> Classes {
        Classes(self.union.load(Ordering::Relaxed))
    }

    /// What each hop is asked for.
    pub fn hops(&self) -> BTreeMap<u8, Classes> {
        lock(&self.hops).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_union_is_what_all_hops_together_are_asked_for() {
        let asking = Asking::default();
        assert!(asking.union().is_empty());
        asking.set(BTreeMap::from([(1, Classes::LOAD), (3, Classes::TCP)]));
        assert_eq!(asking.union(), Classes::LOAD.and(Classes::TCP));
        asking.set(BTreeMap::new());
        assert!(asking.union().is_empty() && asking.hops().is_empty());
    }
}
