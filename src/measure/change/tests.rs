//! A search ends, whatever the delays.

use super::{Block, Search};
use crate::time::{MonoTime, SignedNanos};

/// A probe of 394 blocks, 4 ms apart, on a machine that was stopped now and then: the delays of a
/// segment in microseconds, in the order of time. Its search found a level that was below the
/// floor once it was fitted, again and again.
const ROUGH: &str = include_str!("rough.txt");

fn search(delays: impl Iterator<Item = i64>) -> usize {
    let mut search = Search::new(7);
    for (index, delay) in (0u32..).zip(delays) {
        search.push(Block {
            at: MonoTime(u64::from(index) * 4_000_000),
            delay: SignedNanos(delay),
            // Of one connection, those that waited for a late one would not count.
            connection: index,
            retransmitted: false,
        });
    }
    search.changes().findings.len()
}

#[test]
fn a_search_that_finds_a_level_below_the_floor_ends() {
    let micros = ROUGH
        .split_whitespace()
        .map(|word| word.parse::<i64>().unwrap());
    assert!(search(micros.map(|micros| micros * 1000)) <= super::MOST);
}
