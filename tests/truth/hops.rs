//! A hop that adds nothing still counts.

use crate::support::{alone, lines_of, probe};
use crate::util::json::Value;
use crate::util::Node;

#[test]
fn a_node_that_does_not_stamp_counts_as_a_hop_and_the_segments_join_over_it() {
    let _alone = alone();
    let z = Node::start("Z", &[]);
    let c = Node::to("C", z.address, &["-n"]);
    let b = Node::to("B", c.address, &[]);
    let entry = b.address.to_string();
    let lines = lines_of(&entry, &["-c", "200", "-i", "0.002"]);
    assert_eq!(lines.0.len(), 200);
    // Two segments; A once, B both ways, Z once.
    lines.assert_sums(2 + 4);
    for line in &lines.0 {
        let name = |path| line.at(path).and_then(Value::as_str);
        assert_eq!(name("segments/1/from"), Some("B"));
        assert_eq!(name("segments/1/to"), Some("Z"));
    }
    let report = probe(&entry, &["-c", "20", "-i", "0.002"]);
    let hops = [0, 1, 2].map(|index| report.int(&format!("hosts/{index}/hop")));
    assert_eq!(hops, [0, 1, 3]);
    assert_eq!(report.0.at("hosts/3"), None);
    assert_eq!(report.0.at("segments/2"), None);
    assert_eq!(report.text("hosts/2/name"), "Z");
}
