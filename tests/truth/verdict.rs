//! Verdicts: over earlier runs, by the 95th percentile, and the demo's.

use crate::support::{alone, median, ms, probe, recorded, repeats, Chain, Report, Witness};
use crate::util::{run, text, Dir};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Later than this, one time in twenty, and a run was no normal one: something else had the processor.
const BUSY: Duration = Duration::from_millis(1);

/// A run of a probe that a witness calls undisturbed; a disturbed one is forgotten and repeated.
#[track_caller]
fn undisturbed(chain: &Chain, state: &Path) -> Report {
    let before = std::fs::read(state).ok();
    let name = state.to_str().unwrap();
    for _ in 0..20 {
        let witness = Witness::start();
        let report = chain.probe(&["-c", "200", "-i", "0.004", "--state", name]);
        let late = witness.lateness();
        if late < BUSY {
            return report;
        }
        eprintln!(
            "wake-ups are late by {late:?}: {}",
            report.text("verdict/text")
        );
        match &before {
            Some(before) => std::fs::write(state, before).unwrap(),
            None => std::fs::remove_file(state).unwrap(),
        }
    }
    panic!("the machine is too busy: no run of 20 was undisturbed");
}

#[test]
fn a_segment_slower_than_in_earlier_runs_is_named_and_normal_runs_are_not() {
    let _alone = alone();
    let dir = Dir::new("state");
    let chain = Chain::start(ms(1));
    let state = dir.file("state");
    let slowed = &chain.links[1];
    let mut before = Vec::new();
    for _ in 0..5 {
        undisturbed(&chain, &state);
        before.push(recorded(slowed));
    }
    let before = median(before);
    slowed.back.set_delay(ms(1)); // Begins a new record.
    slowed.forward.set_delay(ms(4));
    let slow = undisturbed(&chain, &state);
    let own = recorded(slowed) - before;
    let verdict = slow.text("verdict/text");
    eprintln!("{verdict}\nthe link: +{own} ns");
    assert_eq!(slow.text("verdict/kind"), "segment", "{verdict}");
    assert_eq!(slow.int("verdict/index"), 1, "{verdict}");
    assert_eq!(slow.text("verdict/basis"), "increase");
    assert!((2_900_000..3_300_000).contains(&own), "{own}");
    let low = slow.int("verdict/increase_low_ns");
    let high = slow.int("verdict/increase_high_ns");
    assert!(
        (low..=high).contains(&own),
        "{low} to {high} ns, and the link recorded {own} ns"
    );
    slowed.forward.set_delay(ms(1));
    for run in 1..=10 {
        let normal = undisturbed(&chain, &state);
        let verdict = normal.text("verdict/text");
        assert_eq!(normal.text("verdict/kind"), "none", "run {run}: {verdict}");
        assert_eq!(normal.text("verdict/basis"), "increase", "{verdict}");
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
