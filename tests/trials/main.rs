//! Situations that people have, on real paths: nodes in network namespaces, wires that delay and
//! drop frames, and the verdict of the real program. `STS_TRIALS=NAME[:COUNT]` runs one situation,
//! or `all`, and prints a table; without it two of them run once. `scripts/trials` runs them in the
//! release build.

#[path = "../lab/mod.rs"]
#[allow(dead_code)]
mod lab;
mod path;
#[path = "../util/random.rs"]
#[allow(dead_code)]
mod random;
mod situations;
#[path = "../util/mod.rs"]
mod util;

use std::collections::BTreeMap;
use std::sync::Mutex;

/// One trial: what the program answered, and if that is right.
pub(crate) struct Outcome {
    pub(crate) right: bool,
    pub(crate) answer: String,
}

/// Trials that run at a time: paths sleep most of the time.
const AT_A_TIME: usize = 4;

/// Runs a situation `count` times, and prints a row: right of all, then the other answers with
/// their counts.
fn row(name: &str, situation: fn(usize) -> Outcome, count: usize) -> usize {
    let next = Mutex::new(0..count);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(count) {
            scope.spawn(|| loop {
                let Some(trial) = next.lock().unwrap().next() else {
                    return;
                };
                let outcome = situation(trial);
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
    println!("TRIALS {name:24} {right:3} of {count:3}  {example}");
    for (answer, times) in others {
        println!("TRIALS {:24} {times:3} x other: {answer}", "");
    }
    right
}

#[test]
fn situations_that_people_have_get_the_right_answer() {
    lab::require(&["ip"]);
    let wanted = std::env::var("STS_TRIALS").unwrap_or_default();
    let (wanted, count) = wanted.split_once(':').unwrap_or((&wanted, "20"));
    let count: usize = count.parse().unwrap();
    let mut run = 0;
    let mut wrong = Vec::new();
    for (name, in_the_gate, situation) in situations::ALL {
        let (chosen, count) = match wanted {
            "" => (*in_the_gate, 1),
            "all" => (true, count),
            one => (one == *name, count),
        };
        if !chosen {
            continue;
        }
        run += 1;
        let mut right = row(name, *situation, count);
        if wanted.is_empty() && right == 0 {
            // Chance plays a part: one of two has to be right.
            right = row(name, *situation, count);
        }
        if right * 10 < count * 9 {
            wrong.push(*name);
        }
    }
    assert!(run > 0, "there is no situation {wanted:?}");
    assert!(wrong.is_empty(), "too often wrong: {wrong:?}");
}
