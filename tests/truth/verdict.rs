//! Verdicts: over earlier runs, by the 95th percentile, and the demo's.

use crate::support::{alone, ms, probe, recorded, repeats, Chain};
use crate::util::{run, text, Dir};
use std::thread;

#[test]
fn a_segment_slower_than_in_earlier_runs_is_named_and_normal_runs_are_not() {
    let _alone = alone();
    let dir = Dir::new("state");
    let chain = Chain::start(ms(1));
    let state = dir.file("state");
    let state = state.to_str().unwrap();
    let go = || chain.probe(&["-c", "200", "-i", "0.004", "--state", state]);
    for _ in 0..5 {
        go();
    }
    let before = recorded(&chain.links[1]);
    for way in [&chain.links[1].forward, &chain.links[1].back] {
        way.set_delay(ms(1));
    }
    chain.links[1].forward.set_delay(ms(4));
    let slow = go();
    let own = recorded(&chain.links[1]) - before;
    eprintln!("{}", slow.text("verdict/text"));
    let interval = [
        slow.int("verdict/increase_low_ns"),
        slow.int("verdict/increase_high_ns"),
    ];
    eprintln!("{}\nthe link: +{own} ns", slow.text("verdict/text"));
    assert_eq!(slow.text("verdict/kind"), "segment");
    assert_eq!(slow.int("verdict/index"), 1);
    assert_eq!(slow.text("verdict/basis"), "increase");
    assert!((2_900_000..3_300_000).contains(&own), "{own}");
    assert!(
        (interval[0]..=interval[1]).contains(&own),
        "{interval:?} ns, and the link recorded {own} ns"
    );
    chain.links[1].forward.set_delay(ms(1));
    for run in 1..=10 {
        let normal = go();
        let text = normal.text("verdict/text");
        assert_eq!(normal.text("verdict/kind"), "none", "run {run}: {text}");
        assert_eq!(normal.text("verdict/basis"), "increase", "{text}");
    }
}

#[test]
fn one_block_in_ten_30_ms_late_at_one_relay_is_found_by_p95() {
    let _alone = alone();
    let chain = Chain::start(ms(1));
    // Spaced so that a late block is back before the next is due; 20 blocks for each of 16 batches.
    let (count, interval) = (360_u32, ms(35));
    let (way, entry) = (&chain.links[1].forward, chain.entry());
    let report = thread::scope(|scope| {
        let run = scope.spawn(|| probe(&entry, &["-c", "360", "-i", "0.035"]));
        // Half way through: nothing ends this wait but its time.
        let (_keep, nothing) = std::sync::mpsc::channel::<()>();
        let _ = nothing.recv_timeout(interval * (count / 2));
        way.set_spikes(10, ms(30));
        run.join().unwrap()
    });
    let increase = report.int("verdict/increase_ns");
    eprintln!("{}", report.text("verdict/text"));
    assert_eq!(report.text("verdict/kind"), "segment");
    assert_eq!(report.int("verdict/index"), 1);
    assert_eq!(report.text("verdict/figure"), "p95");
    assert!((25_000_000..35_000_000).contains(&increase), "{increase}");
}

#[test]
fn the_demo_finds_what_it_hides() {
    let _alone = alone();
    for round in 0..repeats(1) {
        let output = run(&["demo"]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "round {round}: {said}");
        assert!(said.contains("verdict: right"), "{said}");
    }
}
