//! The results of all rounds in; a table of medians, ratios and targets out.

use super::Outcome;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The measured programs, in the order of the columns.
const COLUMNS: [&str; 8] = [
    "direct", "ours", "scraped", "before", "socat", "haproxy", "nginx", "floor",
];

/// Those of them that `ours` has to stand beside. The floor is a yardstick, not a product.
const PEERS: [&str; 3] = ["socat", "haproxy", "nginx"];

/// The sets of the script, and their headings.
const SETS: [(&str, &str); 2] = [
    ("hop", "one hop, raw to raw"),
    ("chain", "chain of three (ours: entry, relay, exit, framed)"),
];

/// What `ours` is to reach.
#[derive(Clone, Copy)]
enum Target {
    /// Not above the lowest of the peers.
    LikeLowest,
    /// Not below the highest of the peers.
    LikeHighest,
    /// At least this share of nginx: what a C relay with two threads per connection reaches.
    OfNginx(f64),
    /// At most so much, whatever the peers have.
    AtMost(f64),
    /// None: the figure is shown for what it explains.
    Shown,
}

/// Name in the results, label, digits after the point, target.
const MEASURES: [(&str, &str, usize, Target); 11] = [
    ("ping_p50_us", "64-byte ping p50, us", 1, Target::LikeLowest),
    ("ping_p99_us", "64-byte ping p99, us", 1, Target::LikeLowest),
    ("ping_cpu_us", "CPU per message, us", 1, Target::LikeLowest),
    ("bulk_up_mib_s", "bulk up, MiB/s", 0, Target::LikeHighest),
    (
        "bulk_down_mib_s",
        "bulk down, MiB/s",
        0,
        Target::LikeHighest,
    ),
    (
        "many_per_s",
        "100 connections, messages/s",
        0,
        Target::OfNginx(0.4),
    ),
    (
        "many_cpu_us",
        "  their CPU per message, us",
        1,
        Target::Shown,
    ),
    ("connects_per_s", "connections/s", 0, Target::OfNginx(0.65)),
    (
        "idle_1000_kib",
        "1000 idle, KiB each",
        1,
        Target::AtMost(20.0),
    ),
    (
        "idle_5000_kib",
        "5000 idle, KiB each",
        1,
        Target::AtMost(20.0),
    ),
    ("start_ms", "start to listening, ms", 2, Target::AtMost(5.0)),
];

/// Values by round.
type Rounds = BTreeMap<u32, f64>;

/// Values by set, measure and peer.
type Results = BTreeMap<(String, String, String), Rounds>;

/// Reads the results and prints the table.
pub(super) fn print(file: &Path) -> Outcome {
    let text = fs::read_to_string(file)?;
    let mut results = Results::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [set, peer, round, measure, value] = fields[..] else {
            return Err(format!("not a result: {line:?}").into());
        };
        let key = (set.to_owned(), measure.to_owned(), peer.to_owned());
        results
            .entry(key)
            .or_default()
            .insert(round.parse()?, value.parse()?);
    }
    for (set, heading) in SETS {
        if !results.keys().any(|key| key.0 == set) {
            continue;
        }
        println!("\n{heading}");
        let shown = |name: &&str| results.keys().any(|key| key.2 == *name);
        let shown: Vec<_> = COLUMNS.into_iter().filter(shown).collect();
        let columns: String = shown.iter().map(|name| format!("{name:>8}")).collect();
        let first = "median of the rounds";
        println!("{first:<28}{columns}   ours to ...    (by round)    target");
        for (measure, label, digits, target) in MEASURES {
            let row = |peer: &str| results.get(&(set.into(), measure.into(), peer.into()));
            if COLUMNS.iter().all(|peer| row(peer).is_none()) {
                continue;
            }
            let mut line = format!("{label:<28}");
            for &column in &shown {
                let figure = match row(column) {
                    Some(rounds) => format!("{:.digits$}", median(rounds)),
                    None => "-".to_owned(),
                };
                line.push_str(&format!("{figure:>8}"));
            }
            let builds = [("scraped", "ours"), ("ours", "before")];
            let beside = builds
                .into_iter()
                .find_map(|(one, other)| Some((one, other, ratio(row(one)?, row(other)?))));
            let judgement = match beside {
                Some((one, other, (ratio, low, high))) => {
                    format!("{one} to {other} {ratio:.3} ({low:.3} to {high:.3} by round)")
                }
                None => judge(target, row),
            };
            line.push_str(&format!("   {judgement}"));
            println!("{}", line.trim_end());
        }
    }
    Ok(())
}

/// The ratio of the medians, and the least and greatest of one round.
fn ratio(one: &Rounds, other: &Rounds) -> (f64, f64, f64) {
    let by_round = one
        .iter()
        .filter_map(|(round, value)| Some(value / other.get(round)?));
    let (low, high) = by_round.fold((f64::MAX, f64::MIN), |(low, high), ratio| {
        (low.min(ratio), high.max(ratio))
    });
    (median(one) / median(other), low, high)
}

/// What is behind the columns: ratio, its range over the rounds, the target and whether it was met.
fn judge<'a>(target: Target, row: impl Fn(&str) -> Option<&'a Rounds>) -> String {
    let lowest = |a: &f64, b: &f64| a.total_cmp(b);
    let peers = PEERS
        .into_iter()
        .filter_map(|peer| Some((peer, row(peer)?)));
    let (rival, limit, at_most) = match target {
        Target::Shown => return String::new(),
        Target::AtMost(limit) => {
            let wanted = format!("<= {limit}");
            return match row("ours").map(median) {
                Some(ours) => format!("{:<29}{wanted:<8}{}", "", verdict(ours <= limit)),
                None => format!("{:<29}{wanted:<8}not measured", ""),
            };
        }
        Target::LikeLowest => (
            peers.min_by(|a, b| lowest(&median(a.1), &median(b.1))),
            1.0,
            true,
        ),
        Target::LikeHighest => (
            peers.max_by(|a, b| lowest(&median(a.1), &median(b.1))),
            1.0,
            false,
        ),
        Target::OfNginx(share) => (row("nginx").map(|rounds| ("nginx", rounds)), share, false),
    };
    let wanted = format!("{} {limit:.2}", if at_most { "<=" } else { ">=" });
    let (Some((name, rival)), Some(ours)) = (rival, row("ours")) else {
        return format!("{:<29}{wanted:<8}not measured", "");
    };
    let (ratio, low, high) = ratio(ours, rival);
    let met = if at_most {
        ratio <= limit
    } else {
        ratio >= limit
    };
    // Rounds on both sides of the limit: on this machine, in this run, it cannot be decided.
    let doubt = if low < limit && limit < high {
        ", rounds differ"
    } else {
        ""
    };
    let ratio = format!("{name} {ratio:.2}");
    let range = format!("({low:.2}-{high:.2})");
    // What the design itself costs, where that is where the target comes from.
    let floor = match (target, row("floor")) {
        (Target::OfNginx(_), Some(floor)) => {
            format!(", floor {:.2}", median(floor) / median(rival))
        }
        _ => String::new(),
    };
    let verdict = verdict(met);
    format!("{ratio:<15}{range:<14}{wanted:<8}{verdict}{floor}{doubt}")
}

fn verdict(met: bool) -> &'static str {
    if met {
        "met"
    } else {
        "MISSED"
    }
}

/// The middle value, or the mean of the two in the middle; there is always at least one round.
fn median(rounds: &Rounds) -> f64 {
    let mut values: Vec<f64> = rounds.values().copied().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}
