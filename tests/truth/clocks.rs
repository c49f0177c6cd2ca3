//! Clocks that are wrong: nodes under libfaketime, 1000 s ahead and behind.

use crate::support::{alone, judged, median, ms, undisturbed, Chain, EXACT_NS};
use crate::util::libfaketime;

const STEP_NS: i64 = 1_000_000_000_000;

#[test]
fn clocks_1000_s_apart_move_no_round_trip_and_their_offsets_are_found() {
    judged(|| {
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
                let before = medians(&right)?;
                let after = medians(&wrong)?;
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
                // About half of a round trip of 2 ms and a bit: a bound that is worth something.
                assert!(error < 5_000_000);
                near = far;
            }
            assert_ne!(report.text("verdict/kind"), "clock");
        }
        Some(())
    });
}
