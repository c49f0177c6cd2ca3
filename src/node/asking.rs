//! What the next marked blocks ask the nodes of the path for: set by the user and by the rules, read by the thread that
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
    hops: Mutex<Hops>,
}

#[derive(Debug, Default)]
struct Hops {
    by_user: BTreeMap<u8, Classes>,
    by_rules: BTreeMap<u8, Classes>,
}

impl Hops {
    fn together(&self) -> BTreeMap<u8, Classes> {
        let mut hops = self.by_user.clone();
        for (&hop, &classes) in &self.by_rules {
            let asked = hops.entry(hop).or_insert(Classes(0));
            *asked = asked.and(classes);
        }
        hops
    }
}

impl Asking {
    /// From the next block on, each of these hops is asked for its classes, and nobody else for anything but what the
    /// rules ask.
    pub fn set(&self, hops: BTreeMap<u8, Classes>) {
        self.change(|asked| asked.by_user = hops);
    }

    /// The same for what the rules ask, in the place of what they asked before.
    pub fn set_by_rules(&self, hops: BTreeMap<u8, Classes>) {
        self.change(|asked| asked.by_rules = hops);
    }

    fn change(&self, change: impl FnOnce(&mut Hops)) {
        let mut held = lock(&self.hops);
        change(&mut held);
        let hops = held.together();
        let union = hops.values().fold(Classes(0), |all, &some| all.and(some));
        self.union.store(union.0, Ordering::Relaxed);
    }

    /// All that is asked of anybody: what the header of a block carries.
    pub fn union(&self) -> Classes {
        Classes(self.union.load(Ordering::Relaxed))
    }

    /// What each hop is asked for.
    pub fn hops(&self) -> BTreeMap<u8, Classes> {
        lock(&self.hops).together()
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

    #[test]
    fn what_rules_ask_comes_and_goes_beside_what_the_user_asks() {
        let asking = Asking::default();
        asking.set(BTreeMap::from([(1, Classes::LOAD)]));
        asking.set_by_rules(BTreeMap::from([(1, Classes::TCP), (2, Classes::CPU)]));
        let both = Classes::LOAD.and(Classes::TCP);
        assert_eq!(
            asking.hops(),
            BTreeMap::from([(1, both), (2, Classes::CPU)])
        );
        assert_eq!(asking.union(), both.and(Classes::CPU));
        asking.set_by_rules(BTreeMap::new());
        assert_eq!(asking.hops(), BTreeMap::from([(1, Classes::LOAD)]));
        assert_eq!(asking.union(), Classes::LOAD);
    }
}
