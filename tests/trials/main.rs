//! Situations that people have, on real paths: nodes in network namespaces, wires that delay and
//! drop frames, and the verdict of the real program. `STS_TRIALS=NAME[:COUNT][,...]` runs some of
//! them, `all` all, and prints a line per trial and a table; without it two of them run once.
//! `scripts/trials paths` runs them in the release build.
//!
//! `STS_AT_A_TIME` is how many trials of one situation run at a time, `STS_MINUTES` the length of
//! the endless one, `STS_PROGRAM` a copy of the program that a rebuild does not replace.

mod clocks;
mod figures;
#[path = "../lab/mod.rs"]
#[allow(dead_code)]
mod lab;
mod lasting;
mod path;
#[path = "../util/random.rs"]
#[allow(dead_code)]
mod random;
mod runs;
mod situations;
mod traffic;
#[path = "../util/mod.rs"]
mod util;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One trial: what the program answered, and if that is right.
pub(crate) struct Outcome {
    pub(crate) right: bool,
    pub(crate) answer: String,
}

/// A number of the environment.
pub(crate) fn setting(name: &str, usual: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(usual, |number| number.parse().unwrap())
}

/// One trial. It is repeated if it was wrong while the machine did not run the wires in time: then
/// the delay that was named may have been there. Long ones are not.
fn undisturbed(name: &str, trial: usize, situation: fn(usize) -> Outcome) -> Outcome {
    for last in [false, false, true] {
        let began = Instant::now();
        let outcome = std::panic::catch_unwind(|| situation(trial));
        let outcome = outcome.unwrap_or_else(|_| Outcome {
            right: false,
            answer: "the trial itself failed".to_owned(),
        });
        let stalls = path::stalls_since(began);
        let again = stalls > 0 && !outcome.right && !last && began.elapsed() < LONG_TRIAL;
        let what = match (outcome.right, again) {
            (true, _) => "right",
            (false, true) => "disturbed, again",
            (false, false) => "WRONG",
        };
        println!(
            "TRIALS {name} {trial}: {what} ({stalls} stalls): {}",
            outcome.answer
        );
        if !again {
            return outcome;
        }
    }
    unreachable!("the last time is not repeated")
}

/// A trial that takes longer is not repeated.
const LONG_TRIAL: Duration = Duration::from_secs(120);

/// Runs a situation `count` times. Prints a line for each and a row: right of all, then the other
/// answers with their counts.
fn row(
    name: &str,
    situation: fn(usize) -> Outcome,
    count: usize,
    table: &mut Vec<String>,
) -> usize {
    let next = Mutex::new(0..count);
    let outcomes = Mutex::new(Vec::new());
    // Paths sleep most of the time.
    let at_a_time = setting("STS_AT_A_TIME", 4);
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.min(count) {
            scope.spawn(|| loop {
                let Some(trial) = next.lock().unwrap().next() else {
                    return;
                };
                let outcome = undisturbed(name, trial, situation);
                outcomes.lock().unwrap().push(outcome);
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let right = outcomes.iter().filter(|outcome| outcome.right).count();
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.right) {
        *others.entry(&outcome.answer).or_default() += 1;
    }
    let example = outcomes.iter().find(|outcome| outcome.right);
    let example = example.map_or("-", |outcome| &outcome.answer);
    table.push(format!("{name:16} {right:3} of {count:3}  {example}"));
    for (answer, times) in others {
        table.push(format!("{:16} {times:3} x other: {answer}", ""));
    }
    right
}

#[test]
fn situations_that_people_have_get_the_right_answer() {
    lab::require(&["ip"]);
    let wanted = std::env::var("STS_TRIALS").unwrap_or_default();
    let all = situations::all();
    let mut chosen = Vec::new();
    for one in wanted.split(',').filter(|one| !one.is_empty()) {
        let (name, count) = one.split_once(':').unwrap_or((one, ""));
        let found = all.iter().filter(|known| name == "all" || name == known.0);
        let before = chosen.len();
        chosen.extend(found.map(|known| (known, count.parse().unwrap_or(known.1))));
        assert!(chosen.len() > before, "there is no situation {name:?}");
    }
    if wanted.is_empty() {
        let gate = all.iter().filter(|known| GATE.contains(&known.0));
        chosen.extend(gate.map(|known| (known, 1)));
    }
    let (mut wrong, mut table) = (Vec::new(), Vec::new());
    for ((name, _, situation), count) in chosen {
        let mut right = row(name, *situation, count, &mut table);
        if wanted.is_empty() && right == 0 {
            // Chance plays a part: one of two has to be right.
            right = row(name, *situation, count, &mut table);
        }
        if right * 10 < count * 9 {
            wrong.push(*name);
        }
    }
    path::take_down();
    for line in table {
        println!("TRIALS {line}");
    }
    assert!(wrong.is_empty(), "too often wrong: {wrong:?}");
}

/// Situations that run without `STS_TRIALS`.
const GATE: [&str; 2] = ["step-50", "unchanged"];
