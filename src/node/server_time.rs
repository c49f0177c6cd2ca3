//! The time of the server behind an exit.

use crate::sync::lock;
use crate::time::{MonoTime, WallTime};
use crate::wire::{set_egress, STAMP_LEN};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

const ANSWERED: u8 = 0;
const TIMED: u8 = 1;
const UNTIMED: u8 = 2;

/// Measures the time of the server: first reply byte minus last forward write.
///
/// It does so only for marked blocks, as others read no clock, and only if the connection was quiet
/// before. Quiet means that the server had answered everything sent earlier. It had also been
/// silent for longer than twice the longest pause in its last answer. No write of it to the client
/// was blocked, or the answer would be read late. A running stream is no answer; its first piece
/// is, if it follows the first request.
#[derive(Debug, Default)]
pub struct ServerTimer {
    state: AtomicU8,
    written: Mutex<WrittenBlock>,
    /// The time of the latest read from the server, in microseconds modulo the word.
    read_at: AtomicUsize,
    /// The longest pause between two reads without a request between them, in microseconds. The
    /// down pump alone writes this and `read_at`.
    pause: AtomicUsize,
    has_read: AtomicBool,
}

/// The block that was written last on a quiet connection.
#[derive(Debug, Default)]
struct WrittenBlock {
    sequence: u64,
    /// The time of the write.
    at: MonoTime,
    /// The stamps of its way out; empty unless the entry asked for them.
    forward: Vec<u8>,
}

impl ServerTimer {
    /// Begins the write of a marked block. The lock is taken before the egress time is read, which
    /// [`ServerTiming::at`] then takes.
    pub fn begin(&self, sequence: u64) -> ServerTiming<'_> {
        ServerTiming {
            server_timer: self,
            written: lock(&self.written),
            sequence,
        }
    }

    /// Begins the write of an unmarked block: the next reply may belong to it.
    pub fn begin_untimed(&self) {
        self.state.store(UNTIMED, Ordering::Release);
    }

    /// Takes the block that bytes read from the server at `now` answer, and the time of its write;
    /// `None` if unknown.
    pub fn answered(&self, now: MonoTime) -> Option<(u64, MonoTime)> {
        let state = match self.state.load(Ordering::Acquire) {
            ANSWERED => ANSWERED,
            _ => self.state.swap(ANSWERED, Ordering::AcqRel),
        };
        let at = micros(now);
        let since = at.wrapping_sub(self.read_at.load(Ordering::Relaxed));
        match state {
            ANSWERED if self.has_read.load(Ordering::Relaxed) => {
                let longest = self.pause.load(Ordering::Relaxed).max(since);
                self.pause.store(longest, Ordering::Relaxed);
            }
            TIMED => self.pause.store(0, Ordering::Relaxed),
            _ => {}
        }
        self.read_at.store(at, Ordering::Relaxed);
        self.has_read.store(true, Ordering::Release);
        (state == TIMED).then(|| {
            let written = lock(&self.written);
            (written.sequence, written.at)
        })
    }

    /// Takes the stamps of the way out of the block `sequence`; empty if the entry did not ask for
    /// them.
    pub fn take_forward(&self, sequence: u64) -> Vec<u8> {
        let mut written = lock(&self.written);
        match written.sequence == sequence {
            true => std::mem::take(&mut written.forward),
            false => Vec::new(),
        }
    }

    /// Returns `true` if the server has answered all and its stream, if there is one, has ended.
    fn is_quiet(&self, now: MonoTime) -> bool {
        if self.state.load(Ordering::Acquire) != ANSWERED {
            return false;
        }
        let pause = self.pause.load(Ordering::Relaxed);
        let since = micros(now).wrapping_sub(self.read_at.load(Ordering::Relaxed));
        !self.has_read.load(Ordering::Acquire) || pause == 0 || since > pause.saturating_mul(2)
    }
}

fn micros(at: MonoTime) -> usize {
    // Differences are small; on a 32-bit host they wrap after 71 minutes.
    (at.0 / 1_000) as usize
}

/// A block that is about to be written.
#[derive(Debug)]
pub struct ServerTiming<'a> {
    server_timer: &'a ServerTimer,
    written: MutexGuard<'a, WrittenBlock>,
    sequence: u64,
}

impl ServerTiming<'_> {
    /// Keeps the stamps of the block's way out, this node's last, for the answer.
    pub fn keep(&mut self, forward: Vec<u8>) {
        self.written.forward = forward;
    }

    /// Writes the egress into the last of those stamps, if there is one.
    pub fn set_egress(&mut self, egress: WallTime, generation: u8) {
        let forward = &mut self.written.forward;
        if let Some(at) = forward.len().checked_sub(STAMP_LEN) {
            set_egress(&mut forward[at..], egress, generation);
        }
    }

    /// Notes that the block is written at `at`, while a write of this connection is blocked or not.
    pub fn at(mut self, at: MonoTime, is_blocked: bool) {
        let quiet = !is_blocked && self.server_timer.is_quiet(at);
        if quiet {
            (self.written.sequence, self.written.at) = (self.sequence, at);
        }
        let state = if quiet { TIMED } else { UNTIMED };
        self.server_timer.state.store(state, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn ms(millis: u64) -> MonoTime {
        MonoTime((1_000 + millis) * 1_000_000)
    }

    #[test]
    fn a_server_that_only_streams_answers_once_at_most_whatever_the_intervals() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let timer = ServerTimer::default();
            let stream = 5 + random.below(40) as u64;
            let (mut read, mut write) = (ms(0), ms(0));
            // Requests are rarer than pieces: else pieces and answers look alike.
            let every = 2 * stream + random.below(200) as u64;
            let mut timed = 0;
            for number in 0..400 {
                if read < write {
                    timed += u32::from(timer.answered(read).is_some());
                    let late = random.below(stream as usize / 2) as u64;
                    read = MonoTime(read.0 + (stream + late) * 1_000_000);
                } else {
                    timer.begin(number).at(write, false);
                    write = MonoTime(write.0 + every * 1_000_000);
                }
            }
            // The first piece looks like an answer to the first request.
            assert!(timed <= 1, "seed {seed}: {stream} ms, {every} ms: {timed}");
        }
    }

    #[test]
    fn an_answer_of_one_or_many_pieces_is_timed_to_its_first() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let timer = ServerTimer::default();
            let mut at = 0;
            for sequence in 0..100 {
                let (answer, pieces) = (1 + random.below(50) as u64, random.below(20) as u64);
                timer.begin(sequence).at(ms(at), false);
                let timed = timer.answered(ms(at + answer));
                assert_eq!(timed, Some((sequence, ms(at))), "seed {seed}");
                at += answer;
                for _ in 0..pieces {
                    at += 1 + random.below(4) as u64;
                    assert_eq!(timer.answered(ms(at)), None, "seed {seed}");
                }
                // With pieces the next request is not at their heels.
                at += if pieces > 0 { 9 } else { 0 };
            }
        }
    }

    #[test]
    fn the_answer_to_one_of_several_requests_is_not_timed() {
        let timer = ServerTimer::default();
        timer.begin(1).at(ms(0), false);
        timer.begin_untimed();
        assert_eq!(timer.answered(ms(5)), None);
        timer.begin(2).at(ms(6), false);
        timer.begin(3).at(ms(7), false);
        assert_eq!(timer.answered(ms(8)), None);
    }

    #[test]
    fn an_answer_that_is_read_late_because_our_own_write_was_blocked_is_not_timed() {
        let timer = ServerTimer::default();
        timer.begin(1).at(ms(0), true);
        assert_eq!(timer.answered(ms(100)), None);
        timer.begin(2).at(ms(101), false);
        assert_eq!(timer.answered(ms(103)), Some((2, ms(101))));
    }
}
