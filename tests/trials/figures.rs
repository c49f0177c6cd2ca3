//! Figures as they are shown: columns that add up, and one answer in every format.

use crate::situations::{answer, ms, signal, Chain, Situation};
use crate::util::{pass, text, Dir, Process};
use crate::Outcome;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const ALL: &[Situation] = &[
    ("third-run", 5, third_run),
    ("columns", 5, columns),
    ("columns-loopback", 5, |_| columns_loopback()),
];

/// Three runs of 4 s after a change, with a state of 6: the third in every format has the segment
/// that rose.
fn third_run(trial: usize) -> Outcome {
    let dir = Dir::new(&format!("third-{trial}"));
    let state = dir.file("state").display().to_string();
    let copy = dir.file("copy").display().to_string();
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let run = |state: &str, format: &str| {
        let args = [
            "-c", "80", "-i", "0.05", "--format", format, "--state", state,
        ];
        chain.probe(&args).output().unwrap()
    };
    for _ in 0..6 {
        run(&state, "json");
    }
    chain.path.forward(1).add_delay(ms(8.0));
    run(&state, "json");
    run(&state, "json");
    // C is late now and then, too.
    let over = AtomicBool::new(false);
    let c = chain.nodes[1].child.id().to_string();
    let (mut right, mut answers) = (true, Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| stop_now_and_then(&c, &over));
        for format in ["json", "text", "nagios"] {
            std::fs::copy(&state, &copy).unwrap();
            let output = run(&copy, format);
            let printed = text(&output.stdout);
            let answered = match format {
                "json" => answer(&output).text,
                "text" => {
                    right &= laws(&printed).is_empty();
                    let from = printed.find("Verdict: ").unwrap_or(0);
                    printed[from..].lines().next().unwrap_or_default().into()
                }
                _ => printed.lines().next().unwrap_or_default().to_owned(),
            };
            right &= answered.contains("B -> C adds the delay");
            answers.push(answered);
        }
        over.store(true, Ordering::Relaxed);
    });
    Outcome {
        right,
        answer: answers.join(" | "),
    }
}

/// A process that is stopped for 5 of every 100 ms until `over`.
fn stop_now_and_then(process: &str, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        signal("STOP", process);
        pass(ms(5.0));
        signal("CONT", process);
        pass(ms(95.0));
    }
}

/// The table of a run in which C reads late and B -> C rises.
fn columns(trial: usize) -> Outcome {
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let over = AtomicBool::new(false);
    let c = chain.nodes[1].child.id().to_string();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| stop_now_and_then(&c, &over));
        scope.spawn(|| {
            pass(ms(2000.0));
            let slowed = chain.path.forward(trial % 3);
            slowed.add_delay(ms(8.0));
        });
        let output = chain.probe(&["-c", "100", "-i", "0.05"]).output().unwrap();
        over.store(true, Ordering::Relaxed);
        output
    });
    table(&text(&output.stdout))
}

/// The table of a path over loopback, of tens of microseconds.
fn columns_loopback() -> Outcome {
    let start = |args: &[&str]| {
        let mut command = Command::new(crate::situations::program());
        command.args(["-l", "127.0.0.1:0"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        let address = process.address().to_string();
        (process, address)
    };
    let (_z, at_z) = start(&["--node", "Z"]);
    let (_b, at_b) = start(&["--node", "B", "-f", &at_z]);
    let mut probe = Command::new(crate::situations::program());
    probe.args(["--node", "A", "probe", &at_b, "-c", "200", "-i", "0.005"]);
    table(&text(&probe.output().unwrap().stdout))
}

fn table(printed: &str) -> Outcome {
    let broken = laws(printed);
    let verdict = printed.lines().find(|line| line.starts_with("Verdict"));
    match broken.is_empty() {
        true => Outcome {
            right: true,
            answer: verdict.unwrap_or_default().to_owned(),
        },
        false => Outcome {
            right: false,
            answer: format!("{broken:?}\n{printed}"),
        },
    }
}

/// A figure as shown, and half of its last digit's unit.
fn shown(word: &str) -> Option<(f64, f64)> {
    let digits = word.trim_end_matches('%');
    let value = digits.parse().ok()?;
    let decimals = digits.split_once('.').map_or(0, |(_, after)| after.len());
    Some((value, 0.5 * 10f64.powi(-(decimals as i32))))
}

/// Which laws of a text report's table are broken.
fn laws(printed: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let mut lines = printed
        .lines()
        .skip_while(|line| !line.starts_with("Hop Part"));
    let Some(header) = lines.next() else {
        return vec!["no table".to_owned()];
    };
    // A figure ends where the head of its column does.
    let column = |line: &str, name: &str| {
        let end = header.find(name)? + name.len();
        let upto: String = line.chars().take(end).collect();
        let word = upto.rsplit(' ').next()?.to_owned();
        (!word.is_empty()).then_some(word)
    };
    let (mut sum, mut slack, mut shares, mut share_slack) = (0.0, 0.0, 0.0, 0.0);
    let mut rises: Vec<(bool, f64)> = Vec::new();
    let mut averages = Vec::new();
    let mut total = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let average = column(line, "Avg").as_deref().and_then(shown);
        if line.trim_start().starts_with("total") {
            total = average;
            break;
        }
        if let Some((value, half)) = average {
            sum += value;
            slack += half;
            averages.push(value);
        }
        if let Some((value, half)) = column(line, "Share").as_deref().and_then(shown) {
            shares += value;
            share_slack += half;
        }
        if let Some((value, _)) = column(line, "Incr").as_deref().and_then(shown) {
            rises.push((line.starts_with('>'), value));
        }
    }
    let Some((total, half)) = total else {
        return vec!["no total".to_owned()];
    };
    if (sum - total).abs() > slack + half {
        broken.push(format!("rows add up to {sum:.3} of {total}"));
    }
    if (shares - 100.0).abs() > share_slack + 1e-9 {
        broken.push(format!("shares add up to {shares:.1} %"));
    }
    if averages.iter().any(|value| *value > total + half + slack) {
        broken.push("a part is larger than the whole".to_owned());
    }
    let is_none = printed.contains("Verdict: none");
    let marked: Vec<f64> = rises.iter().filter(|r| r.0).map(|r| r.1).collect();
    let largest = rises.iter().map(|r| r.1).fold(f64::MIN, f64::max);
    if marked.len() != usize::from(!is_none) {
        broken.push(format!("{} rows are marked", marked.len()));
    }
    if marked.iter().any(|value| *value < largest) {
        broken.push(format!("{marked:?} marked, largest rise {largest}"));
    }
    if !rises.is_empty() && !printed.contains("- Incr: change of ") {
        broken.push("Incr does not say of which figure".to_owned());
    }
    broken
}
