//! Runs one after the other: short ones, those of cron, and `compare`.

use crate::situations::{answer, ms, program, Answer, Chain, Situation};
use crate::util::json::Value;
use crate::util::{json, text, Dir};
use crate::Outcome;
use std::process::{Command, Output};

pub(crate) const ALL: &[Situation] = &[
    ("short-unchanged", 200, |trial| short(trial, false)),
    ("short-rise", 100, |trial| short(trial, true)),
    ("cron", 5, cron),
    ("compare-rise", 20, |trial| compare(trial, true)),
    ("compare-same", 20, |trial| compare(trial, false)),
    ("flows", 5, |trial| flows(1 + trial % 8)),
];

fn run(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().unwrap()
}

/// Runs of 100 blocks with a state, as cron starts them: 8 healthy, 30 with +8 ms, 4 healthy,
/// 3 with +8 ms, which is accepted, and 4 more.
fn cron(trial: usize) -> Outcome {
    let dir = Dir::new(&format!("cron-{trial}"));
    let state = dir.file("state").display().to_string();
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let args = ["-c", "100", "-i", "0.1", "--state", &state];
    let mut others = Vec::new();
    // Runs of `count` that say what they should.
    let mut runs = |count: usize, right: &dyn Fn(&Answer) -> bool| {
        let mut good = 0;
        for _ in 0..count {
            let answer = answer(&chain.run(&args));
            match right(&answer) {
                true => good += 1,
                false => others.push(answer.text),
            }
        }
        good
    };
    let none = |answer: &Answer| answer.kind == "none";
    let named =
        |answer: &Answer| answer.name == "B -> C" && (7.0..9.0).contains(&answer.increase_ms);
    let slowed = chain.path.forward(1);
    let healthy = runs(8, &none);
    slowed.add_delay(ms(8.0));
    let risen = runs(30, &named);
    slowed.take_delay(ms(8.0));
    let cleared = runs(4, &none);
    slowed.add_delay(ms(8.0));
    let risen_again = runs(3, &named);
    assert!(run(&["state", &state, "accept"]).status.success());
    let accepted = runs(4, &none);
    let right = [healthy, risen, cleared, risen_again, accepted] == [8, 30, 4, 3, 4];
    Outcome {
        right,
        answer: format!(
            "healthy: none {healthy} of 8; +8 ms: named {risen} of 30; healthy: none {cleared} \
             of 4; +8 ms: named {risen_again} of 3; accepted: none {accepted} of 4 {others:?}"
        ),
    }
}

/// Two reports, the second of a path that may have risen by 3 ms on B -> C.
fn compare(trial: usize, rises: bool) -> Outcome {
    let dir = Dir::new(&format!("compare-{rises}-{trial}"));
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let report = |name: &str| {
        let file = dir.file(name);
        let output = chain.run(&["-c", "100", "-i", "0.05"]);
        std::fs::write(&file, output.stdout).unwrap();
        file.display().to_string()
    };
    let before = report("before.json");
    if rises {
        chain.path.back(1).add_delay(ms(3.0));
    }
    let after = report("after.json");
    let compared = run(&["compare", &before, &after, "--format", "json"]);
    let said = json(&compared.stdout);
    let sentence = said.at("text").and_then(Value::as_str).unwrap_or_default();
    let code = compared.status.code();
    let right = match rises {
        true => code == Some(1) && sentence.starts_with("B -> C rose: +3."),
        // A little either side of 3 ms is the wire's own.
        false => code == Some(0) && sentence.starts_with("No part changed by more than"),
    };
    let close = rises && code == Some(1) && sentence.starts_with("B -> C rose: +2.9");
    Outcome {
        right: right || close,
        answer: format!("exit {code:?}: {sentence}{}", text(&compared.stderr)),
    }
}

/// 40 blocks, 5 ms apart, over 20 to 60 ms, with a state of 6 runs.
fn short(trial: usize, rises: bool) -> Outcome {
    let dir = Dir::new(&format!("short-{rises}-{trial}"));
    let state = dir.file("state").display().to_string();
    let scale = [0.5, 1.0, 1.5][trial % 3];
    let chain = Chain::new([10.0 * scale, 20.0 * scale, 10.0 * scale]);
    let run = ["-c", "40", "-i", "0.005", "--state", &state];
    for _ in 0..6 {
        chain.run(&run);
    }
    if rises {
        chain.path.forward(1).add_delay(ms(8.0));
    }
    let answer = answer(&chain.run(&run));
    match rises {
        true => answer.names("B -> C", 6.5, 9.5),
        false => answer.outcome(answer.kind == "none"),
    }
}

/// Eight flows over a bundle of which one link, from B to C, is 20 ms slower: the connection
/// `late` of B takes it.
fn flows(late: usize) -> Outcome {
    let chain = Chain::new([6.0, 30.0, 6.0]);
    chain.path.forward(1).set_detour(late, ms(20.0));
    let output = chain
        .probe(&["--flows", "8", "-c", "800", "-i", "0.01"])
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    let named: Vec<_> = printed
        .lines()
        .filter(|line| line.contains(" of 8 ("))
        .collect();
    let right = match named[..] {
        [one] => {
            let by = one
                .split_once("): +")
                .and_then(|(_, by)| by.split_once(' '));
            let near = |(by, _): (&str, &str)| (19.0..22.0).contains(&by.parse().unwrap_or(0.0));
            by.is_some_and(near) && one.ends_with("ms in B -> C only")
        }
        _ => false,
    };
    Outcome {
        right,
        answer: format!("connection {late} late: {}", named.join("; ")),
    }
}
