//! What the next marked blocks ask the nodes of the path for: set by the user and by the rules, read by the thread that
//! sends blocks.

use crate::annotation::Classes;
use crate::sync::lock;
use crate::vec_map::VecMap;
use crate::wire::values::{emit_ask, ASK_OTHERS};
use crate::wire::{push_annotation, ANNOTATION_ASK};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// Classes by hop.
#[derive(Debug, Default)]
pub struct AnnotationRequests {
    /// All that is asked of anybody; 0 costs a block one load.
    union: AtomicU32,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// Of everybody, in every block.
    always: Classes,
    by_user: VecMap<u8, Classes>,
    by_rules: VecMap<u8, Classes>,
    /// For a block to carry; `None` while all hops are asked for the same.
    annotation: Option<Arc<[u8]>>,
}

impl Asked {
    /// Single hops, by whomever.
    fn together(&self) -> VecMap<u8, Classes> {
        let mut hops = self.by_user.clone();
        for (&hop, &classes) in &self.by_rules {
            let asked = hops.get_or_insert_with(hop, Classes::default);
            *asked = asked.union(classes);
        }
        hops
    }
}

/// What one block asks for.
#[derive(Clone, Debug, Default)]
pub struct AnnotationRequest {
    /// Of anybody: what its header says.
    pub classes: Classes,
    /// Of the node that sends it.
    pub own: Classes,
    annotation: Option<Arc<[u8]>>,
}

impl AnnotationRequest {
    /// The whole annotation that says who is asked for what; empty where all are asked for the same.
    pub fn annotation(&self) -> &[u8] {
        self.annotation.as_deref().unwrap_or_default()
    }
}

impl AnnotationRequests {
    /// From the next block on, all hops are asked for `classes`, whatever else some are asked for.
    pub fn always(&self, classes: Classes) {
        self.change(|asked| asked.always = classes);
    }

    /// From the next block on, each of these hops is asked for its classes too, and nobody else for anything but what
    /// everybody is, or what the rules ask.
    pub fn set(&self, hops: VecMap<u8, Classes>) {
        self.change(|asked| asked.by_user = hops);
    }

    /// The same for what the rules of the path that begins here ask, in the place of what they asked before.
    pub fn set_by_rules(&self, hops: VecMap<u8, Classes>) {
        self.change(|asked| asked.by_rules = hops);
    }

    fn change(&self, change: impl FnOnce(&mut Asked)) {
        let mut asked = lock(&self.asked);
        change(&mut asked);
        let (always, hops) = (asked.always, asked.together());
        let union = hops.values().fold(always, |all, &some| all.union(some));
        let rows = hops.iter();
        let rows = rows.map(|(&hop, &classes)| (hop, classes.union(always)));
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
    pub fn request(&self) -> AnnotationRequest {
        if self.union().is_empty() {
            return AnnotationRequest::default();
        }
        let asked = lock(&self.asked);
        let own = asked.together().get(&0).copied().unwrap_or_default();
        AnnotationRequest {
            classes: self.union(),
            own: own.union(asked.always),
            annotation: asked.annotation.clone(),
        }
    }

    /// What single hops are asked for, besides what everybody is.
    pub fn hops(&self) -> VecMap<u8, Classes> {
        lock(&self.asked).together()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::values::asked_of;
    use crate::wire::ANNOTATION_HEADER_LEN;

    #[test]
    fn the_union_is_what_all_hops_together_are_asked_for() {
        let requests = AnnotationRequests::default();
        assert!(requests.union().is_empty());
        requests.set(VecMap::from([(1, Classes::LOAD), (3, Classes::TCP)]));
        assert_eq!(requests.union(), Classes::LOAD.union(Classes::TCP));
        requests.set(VecMap::new());
        assert!(requests.union().is_empty() && requests.hops().is_empty());
    }

    #[test]
    fn what_rules_ask_comes_and_goes_beside_what_the_user_asks() {
        let requests = AnnotationRequests::default();
        requests.set(VecMap::from([(1, Classes::LOAD)]));
        requests.set_by_rules(VecMap::from([(1, Classes::TCP), (2, Classes::CPU)]));
        let both = Classes::LOAD.union(Classes::TCP);
        assert_eq!(
            requests.hops(),
            VecMap::from([(1, both), (2, Classes::CPU)])
        );
        assert_eq!(requests.union(), both.union(Classes::CPU));
        requests.set_by_rules(VecMap::new());
        assert_eq!(requests.hops(), VecMap::from([(1, Classes::LOAD)]));
        assert_eq!(requests.union(), Classes::LOAD);
    }

    #[test]
    fn a_block_lists_who_is_asked_for_what_only_where_that_differs() {
        let requests = AnnotationRequests::default();
        requests.always(Classes::LOAD);
        let request = requests.request();
        assert_eq!(
            (request.classes, request.own),
            (Classes::LOAD, Classes::LOAD)
        );
        assert!(request.annotation().is_empty());
        requests.set(VecMap::from([(1, Classes::LOAD)]));
        assert!(requests.request().annotation().is_empty());
        requests.set(VecMap::from([(2, Classes::TCP)]));
        let request = requests.request();
        assert_eq!(request.own, Classes::LOAD);
        let value = &request.annotation()[ANNOTATION_HEADER_LEN..];
        assert_eq!(asked_of(value, 2), Ok(Classes::LOAD.union(Classes::TCP)));
        assert_eq!(asked_of(value, 1), Ok(Classes::LOAD));
        requests.always(Classes(0));
        let request = requests.request();
        assert!(request.own.is_empty());
        let value = &request.annotation()[ANNOTATION_HEADER_LEN..];
        assert_eq!(asked_of(value, 1), Ok(Classes(0)));
    }
}
