//! Directions of a change across runs, by clocks that are off.

use crate::situations::{answer, ms, Chain, Situation};
use crate::util::json::Value;
use crate::util::{libfaketime, Dir};
use crate::Outcome;
use std::path::PathBuf;
use std::process::Command;

pub(crate) const ALL: &[Situation] = &[
    ("clocks-off", 20, |trial| directions(trial, Clocks::Off)),
    ("clocks-unknown", 5, |trial| {
        directions(trial, Clocks::Unknown)
    }),
    ("clocks-right", 5, |trial| directions(trial, Clocks::Right)),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Clocks {
    /// Up to 20 ms off, said to be right to 25 ms.
    Off,
    /// Likewise, and said not to be synchronised.
    Unknown,
    /// Right, and said to be so to 0.5 ms.
    Right,
}

/// Makes the kernel's word about the clock an error of `ADJTIMEX_ERROR` microseconds.
fn adjtimex(dir: &Dir) -> PathBuf {
    let (source, library) = (dir.file("adjtimex.c"), dir.file("adjtimex.so"));
    let code = "#define _GNU_SOURCE\n#include <sys/timex.h>\n#include <stdlib.h>\n\
        int adjtimex(struct timex *t) {\n\
        t->maxerror = t->esterror = atol(getenv(\"ADJTIMEX_ERROR\"));\n\
        t->status = 0;\n return 0;\n}\n";
    std::fs::write(&source, code).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(built.unwrap().success());
    library
}

/// Six runs, then +8 ms on B -> C forward and one more; the nodes start anew for each, with other
/// clocks.
fn directions(trial: usize, clocks: Clocks) -> Outcome {
    let dir = Dir::new(&format!("clocks-{clocks:?}-{trial}"));
    let state = dir.file("state").display().to_string();
    let mut preload = vec![libfaketime()];
    if clocks != Clocks::Unknown {
        preload.push(adjtimex(&dir));
    }
    let preload: Vec<String> = preload.iter().map(|p| p.display().to_string()).collect();
    let preload = preload.join(":");
    let mut random = crate::random::Random::new(trial as u64);
    let mut chain = Chain::new([6.0, 30.0, 6.0]);
    let mut run = |chain: &mut Chain| {
        let start = |command: &mut Command| {
            let off = match clocks {
                Clocks::Right => 0.0,
                _ => random.below(40_000) as f64 / 1e6 - 0.02,
            };
            let error = if clocks == Clocks::Right {
                "500"
            } else {
                "25000"
            };
            // libfaketime does not know the kernel's arrival times.
            command.arg("--no-kernel-times");
            command.env("LD_PRELOAD", &preload);
            command.env("FAKETIME", format!("{off:+.6}s"));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("ADJTIMEX_ERROR", error);
        };
        chain.restart(start);
        chain.run(&["-c", "100", "-i", "0.02", "--state", &state])
    };
    for _ in 0..6 {
        run(&mut chain);
    }
    chain.path.forward(1).add_delay(ms(8.0));
    let answer = answer(&run(&mut chain));
    let direction = answer.report.at("verdict/direction");
    let direction = direction.and_then(Value::as_str);
    let expected = (clocks == Clocks::Right).then_some("forward");
    let mut outcome = answer.names("B -> C", 7.0, 9.0);
    outcome.right &= direction == expected;
    outcome.answer = format!("direction {direction:?}: {}", outcome.answer);
    outcome
}
