//! State 1: a line for each run, `run START BLOCKS PATH PART=P50/P95 ...`, delays in nanoseconds.

use super::RunHistories;
use crate::measure::change::RunFigures;
use crate::measure::Part;
use crate::time::{SignedNanos, WallTime};

/// Adds the run of a line; `None` if it is none.
pub(super) fn run(line: &str, state: &mut RunHistories) -> Option<()> {
    let mut words = line.strip_prefix("run ")?.split(' ');
    let at = WallTime(words.next()?.parse().ok()?);
    let blocks: u32 = words.next()?.parse().ok()?;
    let key = words.next()?;
    if !state.paths.contains_key(&key.to_owned()) && state.paths.len() >= super::PATHS {
        return Some(()); // Up to 400 runs, of as many paths, were kept.
    }
    let history = state.path(key);
    for word in words {
        let (part, quantiles) = word.split_once('=')?;
        let (p50, _) = quantiles.split_once('/')?;
        let part = match part {
            "source" => Some(Part::Host(0)),
            _ => Part::parse(part), // One-way delays, networks and wake-ups are no parts.
        };
        let (Some(part), Ok(p50)) = (part, p50.parse()) else {
            continue;
        };
        if let Some(figures) = RunFigures::of_median(at, SignedNanos(p50), blocks) {
            let runs = history.parts.get_or_insert_with(part, Default::default);
            runs.push_usual(figures);
        }
    }
    Some(())
}
