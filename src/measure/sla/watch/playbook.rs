//! The playbook: the annotations that exceeded rules request, and of which nodes.

use super::Watch;
use crate::annotation::Classes;
use crate::measure::sla::{AskedNode, Limit, Nodes, PartPattern};
use crate::measure::Part;
use crate::vec_map::VecMap;

impl Watch {
    /// Returns the classes to request now, by hop.
    pub fn asks(&self) -> VecMap<u8, Classes> {
        let mut asks = VecMap::new();
        for track in self.tracks.iter().filter(|track| track.exceeded) {
            let rule = &self.rules[track.rule];
            let values = track.recent.iter().map(|(value, _)| *value);
            let worst = values.fold(f64::NEG_INFINITY, f64::max);
            for ask in &rule.asks {
                let beyond = match ask.beyond {
                    None => f64::NEG_INFINITY,
                    Some(Limit::Absolute(amount)) => amount.number(),
                    Some(Limit::Times(times)) => track.limit.unwrap_or(f64::INFINITY) * times,
                };
                if ask.beyond.is_some() && worst <= beyond {
                    continue;
                }
                for hop in self.asked(&ask.at, track.part) {
                    let classes = asks.get_or_insert_with(hop, || Classes(0));
                    *classes = classes.union(ask.classes);
                }
            }
        }
        asks
    }

    fn asked(&self, nodes: &Nodes, place: Part) -> Vec<u8> {
        let all = || {
            let mut all = self.hops.clone();
            all.extend(self.names.keys());
            all
        };
        let Nodes::Some(nodes) = nodes else {
            return all();
        };
        let mut hops = Vec::new();
        for node in nodes {
            match node {
                AskedNode::Here => match place.hops() {
                    [None, None] => hops.extend(all()),
                    of_part => hops.extend(of_part.into_iter().flatten()),
                },
                AskedNode::Named(name) => {
                    let part = PartPattern::Host(Some(name.clone()));
                    let named = all().into_iter();
                    hops.extend(named.filter(|&hop| self.is_about(&part, Part::Host(hop))));
                }
            }
        }
        hops
    }
}
