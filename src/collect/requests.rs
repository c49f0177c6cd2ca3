//! The requests for annotations in the next marked blocks: set by the user and by the rules, read
//! by the thread that sends blocks.

use crate::annotation::Classes;
use crate::sync::lock;
use crate::vec_map::VecMap;
use crate::wire::values::{emit_ask, ASK_OTHERS};
use crate::wire::{push_annotation, ANNOTATION_ASK};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// The requested classes by hop, shared by the collector and the threads that send blocks.
#[derive(Debug, Default)]
pub struct AnnotationRequests {
    /// The union over all hops; 0 costs a block one load.
    union: AtomicU32,
    requested: Mutex<Requested>,
}

#[derive(Debug, Default)]
struct Requested {
    /// The classes requested of every hop in every block.
    always: Classes,
    by_user: VecMap<u8, Classes>,
    by_rules: VecMap<u8, Classes>,
    /// The annotation that a block carries; `None` while the request is the same for all hops.
    annotation: Option<Arc<[u8]>>,
}

impl Requested {
    /// Returns the requests of user and rules to single hops.
    fn by_hop(&self) -> VecMap<u8, Classes> {
        let mut hops = self.by_user.clone();
        for (&hop, &classes) in &self.by_rules {
            let requested = hops.get_or_insert_with(hop, Classes::default);
            *requested = requested.union(classes);
        }
        hops
    }
}

/// The request of one block.
#[derive(Clone, Debug, Default)]
pub struct AnnotationRequest {
    /// The union over all hops, for the header of the block.
    pub classes: Classes,
    /// The classes requested of the node that sends the block.
    pub own: Classes,
    annotation: Option<Arc<[u8]>>,
}

impl AnnotationRequest {
    /// Returns the whole annotation with the request of each hop; empty if it is the same for all.
    pub fn annotation(&self) -> &[u8] {
        self.annotation.as_deref().unwrap_or_default()
    }
}

impl AnnotationRequests {
    /// Requests `classes` of every hop from the next block on, besides the requests to single hops.
    pub fn always(&self, classes: Classes) {
        self.change(|requested| requested.always = classes);
    }

    /// Replaces the requests of the user to single hops, from the next block on.
    pub fn set(&self, hops: VecMap<u8, Classes>) {
        self.change(|requested| requested.by_user = hops);
    }

    /// Replaces the requests of the rules on the path that begins here, from the next block on.
    pub fn set_by_rules(&self, hops: VecMap<u8, Classes>) {
        self.change(|requested| requested.by_rules = hops);
    }

    fn change(&self, change: impl FnOnce(&mut Requested)) {
        let mut requested = lock(&self.requested);
        change(&mut requested);
        let (always, hops) = (requested.always, requested.by_hop());
        let union = hops.values().fold(always, |all, &some| all.union(some));
        let rows = hops.iter();
        let rows = rows.map(|(&hop, &classes)| (hop, classes.union(always)));
        let others = (!always.is_empty()).then_some((ASK_OTHERS, always));
        // The row of the others comes first, so that no bound cuts it off.
        let value = emit_ask(others.into_iter().chain(rows));
        let mut annotation = Vec::new();
        push_annotation(&mut annotation, ANNOTATION_ASK, 0, &value);
        requested.annotation = (union != always).then(|| annotation.into());
        self.union.store(union.0, Ordering::Relaxed);
    }

    /// Returns the union over all hops, which the header of a block carries.
    pub fn union(&self) -> Classes {
        Classes(self.union.load(Ordering::Relaxed))
    }

    /// Returns the request of the block that the node at hop 0 is about to send. Takes a lock only
    /// while there is one.
    pub fn request(&self) -> AnnotationRequest {
        if self.union().is_empty() {
            return AnnotationRequest::default();
        }
        let requested = lock(&self.requested);
        let own = requested.by_hop().get(&0).copied().unwrap_or_default();
        AnnotationRequest {
            classes: self.union(),
            own: own.union(requested.always),
            annotation: requested.annotation.clone(),
        }
    }

    /// Returns the requests to single hops.
    pub fn hops(&self) -> VecMap<u8, Classes> {
        lock(&self.requested).by_hop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::values::asked_of;
    use crate::wire::ANNOTATION_HEADER_LEN;

    #[test]
    fn the_union_has_the_requests_to_all_hops() {
        let requests = AnnotationRequests::default();
        assert!(requests.union().is_empty());
        requests.set(VecMap::from([(1, Classes::LOAD), (3, Classes::TCP)]));
        assert_eq!(requests.union(), Classes::LOAD.union(Classes::TCP));
        requests.set(VecMap::new());
        assert!(requests.union().is_empty() && requests.hops().is_empty());
    }

    #[test]
    fn requests_of_rules_come_and_go_beside_those_of_the_user() {
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
    fn a_block_lists_the_requests_of_hops_only_if_they_differ() {
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
