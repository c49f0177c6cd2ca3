//! Simulated series into the program's own search.

use crate::noise::{in_order, Change, Noise};
use crate::random::Random;
use subsegment_tcp_speeds::measure::change::{Block, Changes, Finding, FindingKind, Search, Shape};
use subsegment_tcp_speeds::time::{MonoTime, SignedNanos};

/// Milliseconds as nanoseconds.
pub(crate) fn ns(ms: f64) -> SignedNanos {
    SignedNanos((ms * 1e6).round() as i64)
}

pub(crate) fn ms(value: SignedNanos) -> f64 {
    value.0 as f64 / 1e6
}

/// Searches delays in milliseconds.
pub(crate) fn search(s: &mut Search, delays: &[f64], flags: &[bool], interval: f64) -> Changes {
    push(s, delays, flags, interval);
    s.changes()
}

/// Makes `search` hold delays in milliseconds; block t is due at t intervals.
pub(crate) fn push(search: &mut Search, delays: &[f64], flags: &[bool], interval: f64) {
    search.clear();
    for (t, delay) in delays.iter().enumerate() {
        search.push(Block {
            at: MonoTime((t as f64 * interval * 1e6) as u64),
            delay: ns(*delay),
            connection: 0,
            retransmitted: flags.get(t).is_some_and(|flag| *flag),
        });
    }
}

/// A series of `noise` with `change` on it.
pub(crate) fn changed(
    noise: &Noise,
    random: &mut Random,
    n: usize,
    change: Option<Change>,
) -> Vec<f64> {
    let mut delays = noise.draw(random, n);
    if let Some(change) = change {
        change.put(random, &mut delays);
    }
    in_order(&mut delays, noise.interval);
    delays
}

/// The changes of one such series.
pub(crate) fn trial(
    s: &mut Search,
    noise: &Noise,
    random: &mut Random,
    n: usize,
    change: Option<Change>,
) -> Changes {
    let delays = changed(noise, random, n, change);
    search(s, &delays, &[], noise.interval)
}

/// A rise was named.
pub(crate) fn rises(changes: &Changes) -> bool {
    changes.findings.iter().any(|finding| finding.amount.0 > 0)
}

pub(crate) fn is_level(finding: &Finding) -> bool {
    finding.kind == FindingKind::Level && finding.shape != Shape::Ramp
}

pub(crate) fn is_tail(finding: &Finding) -> bool {
    finding.kind != FindingKind::Level
}

/// The block at which a finding begins.
pub(crate) fn block(at: MonoTime, interval: f64) -> i64 {
    (at.0 as f64 / (interval * 1e6)).round() as i64
}
