//! Names and places on paths; reports and blocks that the tests of several renderers share.

mod faces;
mod json_reader;
pub(in crate::report) mod samples;

pub(in crate::report) use super::json::read as json;
use super::*;

#[test]
fn nothing_that_steers_a_terminal_stays_printable() {
    assert_eq!(
        printable("a\x1b[31m\u{9b}2J\u{202e}\r\n"),
        "a\\u{1b}[31m\\u{9b}2J\\u{202e}\\u{d}\\u{a}"
    );
    assert_eq!(printable("Zürich-北京"), "Zürich-北京");
}

#[test]
fn hosts_and_segments_alternate_also_over_a_hop_that_does_not_stamp() {
    let places = in_path_order(&[3, 0, 1], |hop| *hop, &[1, 0], |hop| *hop);
    let expected = [
        Place::Host(&0),
        Place::Segment(&0),
        Place::Host(&1),
        Place::Segment(&1),
        Place::Host(&3),
    ];
    assert_eq!(places, expected);
}

#[test]
fn a_rule_about_no_part_makes_a_run_unknown_unless_something_is_worse() {
    let mut report = samples::full();
    report.unmatched = true;
    report.statistics.sla = Sla::Ok;
    assert_eq!(report.state(), State::Unknown);
    report.statistics.sla = Sla::Warning;
    assert_eq!(report.state(), State::Warning);
    report.blocks.received = 0;
    assert_eq!(report.state(), State::Critical);
}
