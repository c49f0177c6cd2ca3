//! Paths that break and heal while a probe without end runs.

use crate::support::{alone, Report, Switch};
use crate::util::{program, text, Dir, Node, Process};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

/// A probe without end, whose report goes to a file, in `format`.
fn endless(entry: SocketAddr, format: &str, report: &Path) -> Process {
    Process::start(
        program()
            .args(["probe", &entry.to_string(), "--node", "A", "-c", "0"])
            .args(["-i", "0.005", "-t", "2", "--format", format, "--report"])
            .arg(report)
            .stdin(Stdio::null())
            .stdout(Stdio::null()),
    )
}

/// Ends a probe as a user does; its exit code and what it reports.
#[track_caller]
fn interrupt(mut probe: Process, report: &Path) -> (Option<i32>, Vec<u8>) {
    probe.signal("INT");
    let code = probe.wait().code();
    (code, std::fs::read(report).unwrap())
}

/// The break is named by the node that stayed and the one that went.
#[track_caller]
fn assert_named(report: &Report) {
    let notices = report.notices();
    let named = notices
        .iter()
        .any(|notice| notice.starts_with("between B (hop 1) and C (hop 2): "));
    assert!(named, "{notices:?}");
}

#[test]
fn a_node_killed_and_restarted_is_named_and_the_probe_goes_on() {
    let _alone = alone();
    let dir = Dir::new("heals");
    let file = dir.file("report.json");
    let z = Node::start("Z", &[]);
    let mut c = Node::to("C", z.address, &[]);
    let b = Node::to("B", c.address, &[]);
    let tap = Switch::start(vec![b.address]);
    let mut probe = endless(tap.address, "json", &file);
    tap.wait(100);
    c.process.signal("KILL");
    c.process.wait();
    probe.wait_line("the path is broken: between B (hop 1) and C (hop 2)");
    let (own, next) = (c.address.to_string(), z.address.to_string());
    let _c = Node::start_command(program().args(["--node", "C", "-l", &own, "-f", &next]));
    tap.wait(100);
    let (code, report) = interrupt(probe, &file);
    let report = Report::parse(&report);
    assert_named(&report);
    assert_eq!(code, Some(0), "{:?}", report.notices());
    assert!(report.int("path/changes") >= 1);
    // What came back at the tap was also OPENED and, while C was down, the ERRORs of B.
    let received = report.int("blocks/received");
    assert!(received >= 150, "{received}");
    assert!(
        report.int("blocks/lost") + report.int("blocks/unsent") > 0,
        "blocks due meanwhile are lost or not sent"
    );
    assert_eq!(
        report.int("blocks/sent"),
        report.int("blocks/received") + report.int("blocks/lost")
    );
    // The figures are those of all nodes, the second C included.
    assert_eq!(
        report.int("segments/2/round_trip/count"),
        report.int("blocks/received")
    );
}

#[test]
fn a_probe_stopped_while_its_path_is_down_says_so_by_its_exit_code() {
    let _alone = alone();
    let dir = Dir::new("down");
    let file = dir.file("report.json");
    let z = Node::start("Z", &[]);
    let c = Node::to("C", z.address, &[]);
    let b = Node::to("B", c.address, &[]);
    let tap = Switch::start(vec![b.address]);
    let mut probe = endless(tap.address, "json", &file);
    tap.wait(100);
    c.process.signal("KILL");
    probe.wait_line("the path is broken: between B (hop 1) and C (hop 2)");
    let (code, report) = interrupt(probe, &file);
    let report = Report::parse(&report);
    assert_named(&report);
    assert_eq!(code, Some(2));
    assert!(report.int("blocks/received") >= 90);
}

#[test]
fn two_nodes_behind_a_balancer_show_as_a_pool_and_begin_a_new_baseline() {
    let _alone = alone();
    let dir = Dir::new("pool");
    let file = dir.file("report.json");
    let (one, other) = (Node::start("Z", &[]), Node::start("Z", &[]));
    let balancer = Switch::start(vec![one.address, other.address]);
    let b = Node::to("B", balancer.address, &[]);
    let probe = endless(b.address, "text", &file);
    balancer.wait(200);
    for _ in 0..3 {
        balancer.cut();
        balancer.wait(200);
    }
    let (code, report) = interrupt(probe, &file);
    let report = text(&report);
    assert_eq!(code, Some(0), "{report}");
    for part in [
        format!("Z: 2 nodes behind {}", balancer.address),
        "the path changed 3 times".into(),
    ] {
        assert!(report.contains(&part), "no {part:?} in {report}");
    }
}
