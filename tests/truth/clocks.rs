//! Clocks that are wrong: nodes under libfaketime, 1000 s ahead and behind.

use crate::support::{alone, median, ms, undisturbed, Chain, EXACT_NS};
use std::path::PathBuf;

const STEP_NS: i64 = 1_000_000_000_000;

/// Debian and others keep it in a directory of the architecture.
fn libfaketime() -> PathBuf {
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
    let dirs = roots.iter().flat_map(|root| {
        let below = std::fs::read_dir(root).into_iter().flatten().flatten();
        below.map(|entry| entry.path()).chain([PathBuf::from(root)])
    });
    let mut found = dirs
        .map(|dir| dir.join("faketime/libfaketime.so.1"))
        .filter(|path| path.exists());
    found
        .next()
        .expect("libfaketime is not installed: run scripts/check, or apt-get install libfaketime")
}

#[test]
fn clocks_1000_s_apart_move_no_round_trip_and_their_offsets_are_found() {
    let _alone = alone();
    let library = libfaketime();
    let clocks = |ahead: [i64; 3]| {
        let library = library.clone();
        Chain::start_with(ms(1), move |name, command| {
            let index = ["B", "C", "Z"].iter().position(|n| *n == name).unwrap();
            if ahead[index] != 0 {
                command.env("LD_PRELOAD", &library);
                command.env("FAKETIME", format!("{:+}s", ahead[index]));
                command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            }
        })
    };
    let medians =
        |chain: &Chain| undisturbed(|| chain.medians(&["-c", "200", "-i", "0.003"]), drop);
    let right = clocks([0; 3]);
    for ahead in [[1000, 0, 0], [0, -1000, 0], [-1000, 1000, 0], [0, 0, 1000]] {
        let wrong = clocks(ahead);
        let mut moved = [const { Vec::new() }; 3];
        for _ in 0..3 {
            let before = medians(&right);
            let after = medians(&wrong);
            for (moved, (before, after)) in moved.iter_mut().zip(before.iter().zip(after)) {
                moved.push(after - before);
            }
        }
        let moved = moved.map(median);
        eprintln!("clocks {ahead:?} s ahead: round trips moved by {moved:?} ns");
        assert!(moved.iter().all(|moved| moved.abs() <= EXACT_NS));

        let report = wrong.probe(&["-c", "200", "-i", "0.003"]);
        let mut near = 0;
        for (index, far) in ahead.into_iter().enumerate() {
            let offset = report.int(&format!("segments/{index}/clock_offset_ns"));
            let error = report.int(&format!("segments/{index}/clock_offset_error_ns"));
            let expected = (far - near) * (STEP_NS / 1000);
            eprintln!("  segment {index}: offset {offset} ns, error {error} ns");
            assert!((offset - expected).abs() <= error, "expected {expected}");
            // About half of a round trip of 2 ms and a bit: a bound that says something.
            assert!(error < 5_000_000);
            near = far;
        }
        assert_ne!(report.text("verdict/kind"), "clock");
    }
}
