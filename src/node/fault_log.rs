//! The bound of log lines about faults: one per peer and kind in a while, with a count.

use crate::sync::lock;
use crate::wire::ErrorCode;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The least time between two lines about one peer and kind.
const PAUSE: Duration = Duration::from_secs(10);
/// The lines of one peer and kind that come without a pause: several connections of a chain may
/// end at once.
const BURST: u32 = 5;
/// The most pairs of a peer and a kind that are remembered. Further peers share one place.
const PEERS: usize = 64;

/// The latest lines, by peer and kind.
#[derive(Debug, Default)]
pub struct FaultLog(Mutex<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    /// `None` for all peers that found no place.
    of: Option<(IpAddr, Option<ErrorCode>)>,
    /// The beginning of the present pause.
    since: Instant,
    lines: u32,
    /// Faults without a line since the last one.
    unlogged: u64,
}

impl FaultLog {
    /// Takes a fault at `now`. Returns the number of faults before it that had no line; `None` if
    /// it has none either.
    pub fn take(&self, peer: IpAddr, kind: Option<ErrorCode>, now: Instant) -> Option<u64> {
        let mut entries = lock(&self.0);
        let mut of = Some((peer.to_canonical(), kind));
        let is_over = |entry: &Entry| now.saturating_duration_since(entry.since) >= PAUSE;
        if !entries.iter().any(|entry| entry.of == of) && entries.len() >= PEERS {
            entries.retain(|entry| !is_over(entry) || entry.unlogged > 0);
            if entries.len() >= PEERS {
                of = None;
            }
        }
        let Some(entry) = entries.iter_mut().find(|entry| entry.of == of) else {
            entries.push(Entry {
                of,
                since: now,
                lines: 1,
                unlogged: 0,
            });
            return Some(0);
        };
        if is_over(entry) {
            (entry.since, entry.lines) = (now, 0);
        }
        if entry.lines >= BURST {
            entry.unlogged += 1;
            return None;
        }
        entry.lines += 1;
        Some(std::mem::take(&mut entry.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn lines_are_bounded_for_any_mix_of_peers_and_none_is_uncounted() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let peers = 1 + random.below(300);
            let kinds = [None, Some(ErrorCode::Protocol), Some(ErrorCode::Timeout)];
            let (log, begun) = (FaultLog::default(), Instant::now());
            let (mut lines, mut counted) = (0, 0);
            for fault in 0..20_000_u64 {
                // A minute in all.
                let now = begun + Duration::from_millis(3 * fault);
                let peer = IpAddr::from([10, 0, random.below(peers) as u8, 1]);
                if let Some(before) = log.take(peer, kinds[random.below(3)], now) {
                    lines += 1;
                    counted += before + 1;
                }
            }
            assert!(
                lines <= 7 * (PEERS as u64 + 1) * u64::from(BURST),
                "seed {seed}: {lines}"
            );
            assert!(counted <= 20_000, "seed {seed}");
            let unlogged: u64 = lock(&log.0).iter().map(|entry| entry.unlogged).sum();
            assert_eq!(counted + unlogged, 20_000, "seed {seed}");
            assert!(lock(&log.0).len() <= PEERS + 1);
        }
    }
}
