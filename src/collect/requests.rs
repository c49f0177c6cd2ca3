//! What the next marked blocks ask the nodes of the path for: set by the user and by the rules, read by the thread that
//! sends blocks.

use crate::annotation::Classes;
use crate::sync::lock;
use crate::vec_map::Table;
use crate::wire::facts::{emit_ask, ASK_OTHERS};
use crate::wire::{push_annotation, ANNOTATION_ASK};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Classes by hop.
#[derive(Debug, Default)]
pub struct Asking {
    /// All that is asked of anybody; 0 costs a block one load.
    union: AtomicU32,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// Of everybody, in every block.
    always: Classes,
    by_user: Table<u8, Classes>,
    by_rules: Table<u8, Classes>,
    /// For a block to carry; `None` while all hops are asked for the same.
    annotation: Option<Arc<[u8]>>,
}

impl Asked {
    /// Single hops, by whomever.
    fn together(&self) -> Table<u8, Classes> {
        let mut hops = self.by_user.clone();
        for (&hop, &classes) in &self.by_rules {
            let asked = hops.get_or_insert_with(hop, Classes::default);
            *asked = asked.and(classes);
        }
        hops
    }
}

/// What one block asks for.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Of anybody: what its header says.
    pub classes: Classes,
    /// Of the node that sends it.
    pub own: Classes,
    annotation: Option<Arc<[u8]>>,
}

impl Question {
    /// The whole annotation that says who is asked for what; empty where all are asked for the same.
    pub fn annotation(&self) -> &[u8] {
        self.annotation.as_deref().unwrap_or_default()
    }
}

impl Asking {
    /// From the next block on, all hops are asked for `classes`, whatever else some are asked for.
    pub fn always(&self, classes: Classes) {
        self.change(|asked| asked.always = classes);
    }

    /// From the next block on, each of these hops is asked for its classes too, and nobody else for anything but what
    /// everybody is, or what the rules ask.
    pub fn set(&self, hops: Table<u8, Classes>) {
        self.change(|asked| asked.by_user = hops);
    }

    /// The same for what the rules of the path that begins here ask, in the place of what they asked before.
    pub fn set_by_rules(&self, hops: Table<u8, Classes>) {
        self.change(|asked| asked.by_rules = hops);
    }

    fn change(&self, change: impl FnOnce(&mut Asked)) {
        let mut asked = lock(&self.asked);
        change(&mut asked);
        let (always, hops) = (asked.always, asked.together());
        let union = hops.values().fold(always, |all, &some| all.and(some));
        let rows = hops.iter();
        let rows = rows.map(|(&hop, &classes)| (hop, classes.and(always)));
        let others = (!always.is_empty()).then_some((ASK_OTHERS, always));
        // The row of the others comes first, so that no bound cuts it off.
        let value = emit_ask(others.into_iter().chain(rows));
        let mut annotation = Vec::new();
        push_annotation(&mut annotation, ANNOTATION_ASK, 0, &value);
        asked.annotation = (union != always).then(|| annotation.into());
        self.union.store(union.0, Ordering::Relaxed);
    }

    /// All that is asked of anybody: what the header of a block carries.
    pub fn union(&self) -> Classes {
        Classes(self.union.load(Ordering::Relaxed))
    }

    /// What a block that the node at hop 0 is about to send asks for. Takes a lock only while something is asked.
    pub fn question(&self) -> Question {
        if self.union().is_empty() {
            return Question::default();
        }
        let asked = lock(&self.asked);
        let own = asked.together().get(&0).copied().unwrap_or_default();
        Question {
            classes: self.union(),
            own: own.and(asked.always),
            annotation: asked.annotation.clone(),
        }
    }

    /// What single hops are asked for, besides what everybody is.
    pub fn hops(&self) -> Table<u8, Classes> {
        lock(&self.asked).together()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::facts::asked_of;
    use crate::wire::ANNOTATION_HEADER_LEN;

    #[test]
    fn the_union_is_what_all_hops_together_are_asked_for() {
        let asking = Asking::default();
        assert!(asking.union().is_empty());
        asking.set(Table::from([(1, Classes::LOAD), (3, Classes::TCP)]));
        assert_eq!(asking.union(), Classes::LOAD.and(Classes::TCP));
        asking.set(Table::new());
        assert!(asking.union().is_empty() && asking.hops().is_empty());
    }

    #[test]
    fn what_rules_ask_comes_and_goes_beside_what_the_user_asks() {
        let asking = Asking::default();
        asking.set(Table::from([(1, Classes::LOAD)]));
        asking.set_by_rules(Table::from([(1, Classes::TCP), (2, Classes::CPU)]));
        let both = Classes::LOAD.and(Classes::TCP);
        assert_eq!(asking.hops(), Table::from([(1, both), (2, Classes::CPU)]));
        assert_eq!(asking.union(), both.and(Classes::CPU));
        asking.set_by_rules(Table::new());
        assert_eq!(asking.hops(), Table::from([(1, Classes::LOAD)]));
        assert_eq!(asking.union(), Classes::LOAD);
    }

    #[test]
    fn a_block_lists_who_is_asked_for_what_only_where_that_differs() {
        let asking = Asking::default();
        asking.always(Classes::LOAD);
        let question = asking.question();
        assert_eq!(
            (question.classes, question.own),
            (Classes::LOAD, Classes::LOAD)
        );
        assert!(question.annotation().is_empty());
        asking.set(Table::from([(1, Classes::LOAD)]));
        assert!(asking.question().annotation().is_empty());
        asking.set(Table::from([(2, Classes::TCP)]));
        let question = asking.question();
        assert_eq!(question.own, Classes::LOAD);
        let value = &question.annotation()[ANNOTATION_HEADER_LEN..];
        assert_eq!(asked_of(value, 2), Ok(Classes::LOAD.and(Classes::TCP)));
        assert_eq!(asked_of(value, 1), Ok(Classes::LOAD));
        asking.always(Classes(0));
        let question = asking.question();
        assert!(question.own.is_empty());
        let value = &question.annotation()[ANNOTATION_HEADER_LEN..];
        assert_eq!(asked_of(value, 1), Ok(Classes(0)));
    }
}
