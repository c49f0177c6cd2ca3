//! Turns a block into a line of JSON (`--format jsonl`).
//!
//! ```text
//! {"sequence":0,"scheduled":"RFC 3339","total_ns":N|null,
//!  "segments":[{"from":"A","to":"B",
//!               "round_trip_ns":N|null,"forward_ns":N|null,"return_ns":N|null,
//!               "network_ns":N|null,"connect_ns":N|null}],
//!  "hosts":[{"hop":0,"name":"A","forward_residence_ns":N|null,"return_residence_ns":N|null,
//!            "forward_wake_up_ns":N|null,"return_wake_up_ns":N|null}],
//!  "behind_ns":N|null,
//!  "flags":["lost"|"late"|"duplicate"|"clock_step"|"negative"]}
//! ```
//!
//! All `round_trip_ns`, `connect_ns`, `forward_residence_ns`, `return_residence_ns` and `behind_ns`
//! of a line add up to its `total_ns`, where none that exists was spoilt by a clock step.
//! `forward_ns` and `return_ns` are raw one-way differences, clock offset included; they add up to
//! `round_trip_ns`. So do `network_ns` and the `forward_wake_up_ns` of the segment's far node and
//! the `return_wake_up_ns` of its near one, where kernels stamped them. A lost block has a null
//! total and no parts.

use super::block::BlockLine;
use super::json::write::{Array, Object, Writer};

/// The line of one block, with its line feed.
pub fn line(block: &BlockLine<'_>) -> String {
    let hosts = block.parts.map_or(&[][..], |parts| &parts.hosts);
    let segments = block.parts.map_or(&[][..], |parts| &parts.segments);
    let mut line = Writer::compact().finish(Object(|w| {
        w.pair("sequence", block.sequence);
        w.pair("scheduled", block.scheduled);
        w.pair("total_ns", block.parts.and_then(|parts| parts.total));
        let segments = segments.iter().map(|segment| {
            Object(move |w| {
                w.pair("from", &*block.name_at(segment.from_hop));
                w.pair("to", &*block.name_at(segment.to_hop));
                w.pair("round_trip_ns", segment.round_trip);
                w.pair("forward_ns", segment.forward);
                w.pair("return_ns", segment.back);
                w.pair("network_ns", segment.network);
                w.pair("connect_ns", segment.connect);
            })
        });
        w.pair("segments", Array(segments));
        let hosts = hosts.iter().map(|host| {
            Object(move |w| {
                w.pair("hop", u64::from(host.hop));
                w.pair("name", &*block.name_at(host.hop));
                w.pair("forward_residence_ns", host.forward_residence);
                w.pair("return_residence_ns", host.return_residence);
                w.pair("forward_wake_up_ns", host.forward_wake_up);
                w.pair("return_wake_up_ns", host.return_wake_up);
            })
        });
        w.pair("hosts", Array(hosts));
        w.pair("behind_ns", block.parts.and_then(|parts| parts.beyond));
        w.pair("flags", Array(block.flags()));
    }));
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::json::{parse, Value};
    use crate::report::tests::samples;

    #[test]
    fn lines_are_as_in_the_golden_file() {
        let got: String = samples::with_blocks(line);
        samples::assert_same(include_str!("../../tests/golden/blocks.jsonl"), &got);
    }

    #[test]
    fn the_parts_of_a_line_add_up_to_its_total() {
        let lines = samples::with_blocks(line);
        let mut answered = 0;
        for line in lines.lines() {
            let value = parse(line.as_bytes()).expect("a line is one JSON value");
            let Some(total) = value.at("total_ns").and_then(Value::as_i64) else {
                continue;
            };
            let sum_of = |list: &str, keys: &[&str]| -> i64 {
                let items = value.at(list).and_then(Value::as_array).expect("an array");
                items
                    .iter()
                    .flat_map(|item| keys.iter().filter_map(|key| item.at(key)?.as_i64()))
                    .sum()
            };
            let parts = sum_of("segments", &["round_trip_ns"])
                + sum_of("hosts", &["forward_residence_ns", "return_residence_ns"]);
            assert_eq!(parts, total, "{line}");
            let split = sum_of("segments", &["network_ns"])
                + sum_of("hosts", &["forward_wake_up_ns", "return_wake_up_ns"]);
            assert_eq!(split, sum_of("segments", &["round_trip_ns"]), "{line}");
            answered += 1;
        }
        assert_eq!(answered, 5);
    }
}
