//! Tracks which blocks of a session were answered, late, twice, or never.

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The first to its block.
    First,
    /// Another to a block that was answered.
    Duplicate,
    /// To a block that was never sent.
    Unknown,
}

/// The greatest distance between an answered and an unanswered block. TCP keeps the order, so only
/// a node that drops blocks gets near.
const WINDOW: u64 = 1 << 16;

/// Sequence numbers that were answered, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Everything below it is settled: answered, or given up.
    floor: u64,
    /// Entry n: `true` if `floor + n` was answered.
    window: std::collections::VecDeque<bool>,
    received: u64,
    duplicates: u64,
}

impl Answers {
    /// No answer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the answer to `sequence`, of `sent` blocks numbered from 0.
    pub fn take(&mut self, sequence: u64, sent: u64) -> Answer {
        if sequence >= sent {
            return Answer::Unknown;
        }
        let lowest = sequence.saturating_sub(WINDOW - 1);
        if lowest > self.floor {
            let given_up = (lowest - self.floor).min(self.window.len() as u64);
            self.window.drain(..given_up as usize);
            self.floor = lowest;
        }
        let Some(index) = sequence.checked_sub(self.floor) else {
            self.duplicates += 1;
            return Answer::Duplicate;
        };
        let index = index as usize;
        if self.window.len() <= index {
            self.window.resize(index + 1, false);
        }
        if std::mem::replace(&mut self.window[index], true) {
            self.duplicates += 1;
            return Answer::Duplicate;
        }
        self.received += 1;
        while self.window.front() == Some(&true) {
            self.window.pop_front();
            self.floor += 1;
        }
        Answer::First
    }

    /// Returns the number of blocks that were answered.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of answers beyond the first of a block.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Returns the first number from `from` on and below `sent` that is within the window and has
    /// no answer.
    pub fn next_open(&self, from: u64, sent: u64) -> Option<u64> {
        let from = from.max(self.floor);
        let behind = self.floor + self.window.len() as u64;
        let within = (from..behind).find(|sequence| !self.window[(sequence - self.floor) as usize]);
        within
            .or(Some(from.max(behind)))
            .filter(|open| *open < sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_order_out_of_order_twice_and_unrequested_are_distinguished() {
        let mut answers = Answers::new();
        for (sequence, expected) in [
            (0, Answer::First),
            (2, Answer::First),
            (2, Answer::Duplicate),
            (1, Answer::First),
            (0, Answer::Duplicate),
            (9, Answer::Unknown),
            (u64::MAX, Answer::Unknown),
        ] {
            assert_eq!(answers.take(sequence, 5), expected, "sequence {sequence}");
        }
        assert_eq!((answers.received(), answers.duplicates()), (3, 2));
        assert_eq!(answers.next_open(0, 5), Some(3));
        assert_eq!(answers.next_open(4, 5), Some(4));
        assert_eq!(answers.next_open(5, 5), None);
        answers.take(4, 5);
        assert_eq!(answers.next_open(4, 5), None);
        assert_eq!(answers.next_open(4, 6), Some(5));
    }

    #[test]
    fn memory_stays_bounded_when_one_block_is_never_answered() {
        let mut answers = Answers::new();
        for sequence in 1..3 * WINDOW {
            answers.take(sequence, u64::MAX);
        }
        assert!(answers.window.len() <= WINDOW as usize);
        assert_eq!(answers.received(), 3 * WINDOW - 1);
    }
}
