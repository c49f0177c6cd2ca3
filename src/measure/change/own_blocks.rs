//! Which blocks count once: TCP delivers in order, so a stall of 300 ms at 2 ms intervals delays
//! 150 blocks, and is one event.

use crate::time::{MonoTime, SignedNanos};

/// Connections whose previous block is remembered. Where two share a place, a block of one after
/// one of the other has no neighbour, and counts.
const NEIGHBOURS: usize = 64;

/// One block's delay in the part that is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The time at which it was due.
    pub at: MonoTime,
    /// Its delay in the part; negative where a clock was stepped.
    pub delay: SignedNanos,
    /// A number of its connection: only blocks of one connection wait for each other.
    pub connection: u32,
    /// A retransmission delayed it.
    pub retransmitted: bool,
}

/// The blocks of one part in the order of time, and which of them are own blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Due time and delay of every block, in nanoseconds.
    all: Vec<(u64, i64)>,
    /// Places in `all` of those that were not released together with the block ahead of them.
    own: Vec<u32>,
    /// For each own block: it, or a block released with it, was delayed by a retransmission.
    retransmitted: Vec<bool>,
    previous: [Option<(u32, u64, i64)>; NEIGHBOURS],
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            own: Vec::new(),
            retransmitted: Vec::new(),
            previous: [None; NEIGHBOURS],
        }
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.own.clear();
        self.retransmitted.clear();
        self.previous = [None; NEIGHBOURS];
    }

    /// Takes the next block. It follows if its delay fell, against the block ahead of it, by more
    /// than half of the time between the two.
    pub(super) fn push(&mut self, block: Block) {
        let (at, delay) = (block.at.0, block.delay.0);
        let place = block.connection as usize % NEIGHBOURS;
        let follows = match self.previous[place] {
            Some((connection, before, ahead)) if connection == block.connection => {
                let gap = at.saturating_sub(before) / 2;
                ahead.saturating_sub(delay) > i64::try_from(gap).unwrap_or(i64::MAX)
            }
            _ => false,
        };
        self.previous[place] = Some((block.connection, at, delay));
        match self.retransmitted.last_mut() {
            Some(leader) if follows => *leader |= block.retransmitted,
            _ => {
                self.own.push(self.all.len() as u32);
                self.retransmitted.push(block.retransmitted);
            }
        }
        self.all.push((at, delay));
    }

    /// Own blocks.
    pub(super) fn len(&self) -> usize {
        self.own.len()
    }

    /// Delays of the own blocks, into `out`.
    pub(super) fn delays(&self, out: &mut Vec<i64>) {
        out.clear();
        out.extend(self.own.iter().map(|at| self.all[*at as usize].1));
    }

    /// Flags of the own blocks.
    pub(super) fn retransmitted(&self) -> &[bool] {
        &self.retransmitted
    }

    /// Returns the time at which own block `index` was due; the end of the last block for one past
    /// the last.
    pub(super) fn time(&self, index: usize) -> MonoTime {
        let place = self.place(index).min(self.all.len().saturating_sub(1));
        MonoTime(self.all.get(place).map_or(0, |block| block.0))
    }

    /// All blocks, followers too, from own block `from` to before own block `to`.
    pub(super) fn between(&self, from: usize, to: usize) -> impl Iterator<Item = i64> + Clone + '_ {
        let range = self.place(from)..self.place(to);
        self.all[range].iter().map(|block| block.1)
    }

    /// Sum and count of the delays of [`Self::between`], each counted as at most `cap`.
    pub(super) fn sum(&self, from: usize, to: usize, cap: f64) -> (f64, usize) {
        let sum = self
            .between(from, to)
            .map(|delay| (delay as f64).min(cap))
            .sum();
        (sum, self.place(to) - self.place(from))
    }

    fn place(&self, index: usize) -> usize {
        let place = self.own.get(index).copied();
        place.map_or(self.all.len(), |place| place as usize)
    }
}

/// Own blocks cut into batches of equal counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batches {
    /// Number of batches.
    pub(super) count: usize,
    /// Number of own blocks.
    pub(super) blocks: usize,
}

/// Own blocks from which on a series can be searched.
pub(super) const NEEDED: usize = 30;

impl Batches {
    /// `None` for a series that is too short.
    pub(super) fn of(blocks: usize) -> Option<Self> {
        let count = match blocks {
            160.. => 40,
            60.. => 20,
            NEEDED.. => 10,
            _ => return None,
        };
        Some(Self { count, blocks })
    }

    /// The first own block of batch `batch`.
    pub(super) fn start(self, batch: usize) -> usize {
        (batch * self.blocks).div_ceil(self.count)
    }

    /// The own blocks from batch `from` to before batch `to`.
    pub(super) fn range(self, from: usize, to: usize) -> std::ops::Range<usize> {
        self.start(from)..self.start(to)
    }

    /// Calls `see` for each step (up to the last batch) and bump `from..to`: at least 2 batches on
    /// either side, 3 in a bump.
    pub(super) fn each_shape(self, mut see: impl FnMut(usize, usize)) {
        for from in 2..self.count - 1 {
            see(from, self.count);
            for to in from + 3..self.count - 1 {
                see(from, to);
            }
        }
    }

    /// The own block at which the new level begins, by the cheapest split of those within two
    /// batches of the edge `batch`. `cost` is a block's cost after the edge less its cost before
    /// it.
    pub(super) fn split(self, batch: usize, cost: impl Fn(usize) -> f64) -> usize {
        let near = self.range(batch.saturating_sub(2), (batch + 2).min(self.count));
        let (mut after, mut least, mut best) = (0.0, f64::INFINITY, near.end);
        for index in near.rev() {
            after += cost(index);
            if after <= least {
                (least, best) = (after, index);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(at_ms: u64, delay_ms: i64, connection: u32) -> Block {
        Block {
            at: MonoTime(at_ms * 1_000_000),
            delay: SignedNanos::from_millis(delay_ms),
            connection,
            retransmitted: false,
        }
    }

    #[test]
    fn a_stall_is_one_own_block() {
        let mut blocks = Blocks::new();
        for (index, delay) in [10, 10, 310, 300, 290, 280, 10, 10].into_iter().enumerate() {
            blocks.push(block(index as u64 * 10, delay, 0));
        }
        let mut delays = Vec::new();
        blocks.delays(&mut delays);
        let ms: Vec<i64> = delays.iter().map(|ns| ns / 1_000_000).collect();
        // The block that falls from 280 to 10 was released with the stall too.
        assert_eq!(ms, [10, 10, 310, 10]);
        assert_eq!(blocks.between(2, 3).count(), 5);
        assert_eq!(blocks.time(3), MonoTime(70_000_000));
    }

    #[test]
    fn blocks_of_other_connections_do_not_follow() {
        let mut blocks = Blocks::new();
        blocks.push(block(0, 300, 1));
        blocks.push(block(1, 10, 2));
        blocks.push(block(2, 10, 65));
        assert_eq!(blocks.len(), 3);
        blocks.push(block(3, 8, 65));
        assert_eq!(blocks.len(), 3);
    }

    #[test]
    fn a_retransmission_of_a_follower_is_that_of_its_leader() {
        let mut blocks = Blocks::new();
        blocks.push(block(0, 200, 0));
        blocks.push(Block {
            retransmitted: true,
            ..block(10, 190, 0)
        });
        blocks.push(block(1000, 190, 0));
        assert_eq!(blocks.retransmitted(), [true, false]);
    }

    #[test]
    fn batches_hold_all_own_blocks_in_nearly_equal_counts() {
        for blocks in 30..1200 {
            let batches = Batches::of(blocks).unwrap();
            assert_eq!(batches.start(0), 0);
            assert_eq!(batches.start(batches.count), blocks);
            for batch in 0..batches.count {
                let len = batches.range(batch, batch + 1).len();
                let even = blocks / batches.count;
                assert!(
                    len == even || len == even + 1,
                    "batch {batch} of {blocks}: {len}"
                );
            }
        }
        assert_eq!(Batches::of(29), None);
    }

    #[test]
    fn there_are_632_steps_and_bumps_of_40_batches() {
        let mut shapes = 0;
        Batches::of(400).unwrap().each_shape(|_, _| shapes += 1);
        assert_eq!(shapes, 632);
    }

    #[test]
    fn a_split_is_found_at_the_block() {
        let batches = Batches::of(400).unwrap();
        let cost = |index: usize| if index < 207 { 1.0 } else { -1.0 };
        assert_eq!(batches.split(20, cost), 207);
    }
}
