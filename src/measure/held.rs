//! The time that each pump of the path was blocked in `write`, over the run or since a moment of
//! it, in bounded memory.
//!
//! Each connection counts by itself, since its stamps show how long its own pumps were blocked. The
//! share is the mean over connections, weighted by their time. Of many connections at once only the
//! first ones are followed.
//!
//! Sums only grow, so that the share since a moment is the difference of two readings. At most 64
//! readings are kept.

use super::NodeId;
use crate::time::{MonoTime, Nanos, WallTime};

/// Number of readings kept. When it is reached, every second one is dropped and the interval
/// doubles.
const READINGS: usize = 64;

/// Connections that are followed at once at most; fewer on a path of very many nodes.
const CONNECTIONS: usize = 64;
/// Latest stamps kept at most, over all connections.
const STAMPS: usize = 8_192;
/// A connection without a block for this long may make room for another.
const IDLE: Nanos = Nanos::from_millis(2_000);

#[derive(Clone, Copy, Debug, Default)]
struct Pump {
    held: u64,
    span: u64,
}

/// The latest stamps of a connection.
#[derive(Debug)]
struct Connection {
    id: u32,
    seen: MonoTime,
    /// By pump.
    last: Vec<Option<(NodeId, u8, WallTime)>>,
}

/// The pumps of one path.
#[derive(Debug)]
pub(super) struct Held {
    pumps: Vec<Pump>,
    connections: Vec<Connection>,
    readings: Vec<(MonoTime, Vec<[u64; 2]>)>,
    step: Nanos,
    next: MonoTime,
}

impl Held {
    pub(super) fn new(pumps: usize) -> Self {
        let (readings, step) = (Vec::new(), Nanos::from_millis(100));
        Self {
            pumps: vec![Pump::default(); pumps],
            connections: Vec::new(),
            readings,
            step,
            next: MonoTime(0),
        }
    }

    /// Returns the place of a connection with a block due at `at`; `None` if there are too many to
    /// follow this one.
    pub(super) fn follow(&mut self, id: u32, at: MonoTime) -> Option<usize> {
        let known = self.connections.iter().position(|known| known.id == id);
        if let Some(place) = known {
            let known = &mut self.connections[place];
            known.seen = known.seen.max(at);
            return Some(place);
        }
        let most = CONNECTIONS.min(STAMPS / self.pumps.len().max(1)).max(1);
        let last = vec![None; self.pumps.len()];
        let new = Connection { id, seen: at, last };
        if self.connections.len() < most {
            self.connections.push(new);
            return Some(self.connections.len() - 1);
        }
        let idle = |known: &Connection| known.seen < at && at.since(known.seen) >= IDLE;
        let place = self.connections.iter().position(idle)?;
        self.connections[place] = new;
        Some(place)
    }

    /// Adds a stamp of a pump of the connection at `place`: blocked for `held` since the previous
    /// stamp, with `egress` on its clock.
    pub(super) fn record(
        &mut self,
        (place, pump): (usize, usize),
        clock: (NodeId, u8),
        egress: WallTime,
        held: Nanos,
    ) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        let (Some(sums), Some(last)) = (self.pumps.get_mut(pump), connection.last.get_mut(pump))
        else {
            return;
        };
        let (node, generation) = clock;
        let mut latest = egress;
        if let Some((_, _, last)) = last.filter(|last| (last.0, last.1) == clock) {
            // A clock that was set back a little: time passes once.
            let span = u64::try_from((egress - last).0).unwrap_or(0);
            latest = if span > 0 { egress } else { last };
            sums.span = sums.span.saturating_add(span);
            sums.held = sums.held.saturating_add(held.0);
        }
        *last = Some((node, generation, latest));
    }

    /// Takes a reading of all sums if one is due.
    pub(super) fn tick(&mut self, now: MonoTime) {
        if now < self.next {
            return;
        }
        if self.readings.len() >= READINGS {
            let mut place = 0;
            self.readings.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.step = self.step + self.step;
        }
        let sums = self
            .pumps
            .iter()
            .map(|pump| [pump.held, pump.span])
            .collect();
        self.readings.push((now, sums));
        self.next = now + self.step;
    }

    /// Returns the share of time (0 to 1) in which a pump was blocked since about `since`; `None`
    /// if unknown.
    pub(super) fn share(&self, pump: usize, since: Option<MonoTime>) -> Option<f64> {
        let now = self.pumps.get(pump)?;
        let then = since.and_then(|since| self.readings.iter().rev().find(|(at, _)| *at <= since));
        let [held, span] = then
            .and_then(|(_, sums)| sums.get(pump).copied())
            .unwrap_or_default();
        let span = now.span.saturating_sub(span);
        (span > 0).then(|| (now.held.saturating_sub(held) as f64 / span as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_since_a_moment_forgets_what_was_before_and_memory_is_bounded() {
        let mut held = Held::new(1);
        for block in 0..10_000_u64 {
            let at = block * 100_000_000;
            let blocked = if block < 5_000 { 0 } else { 90 };
            let place = held.follow(1, MonoTime(at)).unwrap();
            let blocked = Nanos::from_millis(blocked);
            held.record((place, 0), (NodeId(1), 0), WallTime(at), blocked);
            held.tick(MonoTime(at));
            assert!(held.readings.len() <= READINGS);
        }
        let share = |since| held.share(0, since).unwrap();
        assert!((share(None) - 0.45).abs() < 0.01, "{}", share(None));
        let late = share(Some(MonoTime(600_000_000_000)));
        assert!((late - 0.9).abs() < 0.01, "{late}");
        assert_eq!(held.share(7, None), None);
    }

    #[test]
    fn the_share_is_the_same_for_one_connection_and_for_many_alike() {
        for count in [1_u32, 10, 20, 64, 500] {
            let mut held = Held::new(1);
            for block in 0..200_u64 {
                for id in 0..count {
                    let at = 1_000_000_000 + block * 100_000_000 + u64::from(id) * 100_000;
                    if let Some(place) = held.follow(id, MonoTime(at)) {
                        let blocked = Nanos::from_millis(4);
                        held.record((place, 0), (NodeId(1), 0), WallTime(at), blocked);
                    }
                }
            }
            let share = held.share(0, None).unwrap();
            assert!((share - 0.04).abs() < 0.001, "{count} connections: {share}");
            assert!(held.connections.len() <= CONNECTIONS);
        }
    }

    #[test]
    fn a_new_connection_is_followed_once_another_idles() {
        let mut held = Held::new(2);
        let at = |seconds: u64| MonoTime(seconds * 1_000_000_000);
        for id in 0..64 {
            assert!(held.follow(id, at(1)).is_some());
        }
        assert_eq!(held.follow(64, at(2)), None);
        assert!(held.follow(3, at(3)).is_some());
        for id in 100..163 {
            assert!(held.follow(id, at(3)).is_some(), "{id}");
        }
        assert_eq!(held.follow(163, at(3)), None, "the one that goes on stays");
    }
}
