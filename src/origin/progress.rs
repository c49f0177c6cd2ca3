//! The counts of blocks that were sent and answered, over all sessions of a run.

use crate::report::Blocks;
use crate::session::answers::{Answer, Answers};
use crate::sync::lock;
use crate::time::MonoTime;
use std::sync::Mutex;
use std::time::Duration;

/// The blocks sent and the answers received, shared by the two threads of a session.
#[derive(Debug)]
pub struct Progress(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    /// The number of the next block: blocks that were sent, and those that were not.
    next: u64,
    unsent: u64,
    payload_bytes: u64,
    /// Answers that the present session still expects.
    outstanding: u64,
    /// Time at which bytes last came, or at which the first of the outstanding blocks was sent.
    since: MonoTime,
    answers: Answers,
    late: u64,
    /// The place of the flow among all flows of the probe, and their number: the flows take the
    /// sequence numbers in turn.
    flow: u64,
    flows: u64,
}

impl Counts {
    fn blocks(&self) -> Blocks {
        let sent = self.next - self.unsent;
        Blocks {
            sent,
            received: self.answers.received(),
            lost: sent - self.answers.received(),
            unsent: self.unsent,
            late: self.late,
            duplicate: self.answers.duplicates(),
            payload_bytes: self.payload_bytes,
        }
    }
}

impl Progress {
    /// The counts of the flow `flow` of `flows`.
    pub(super) fn new(flow: u64, flows: u64) -> Self {
        Self(Mutex::new(Counts {
            next: 0,
            unsent: 0,
            payload_bytes: 0,
            outstanding: 0,
            since: MonoTime::default(),
            answers: Answers::new(),
            late: 0,
            flow,
            flows,
        }))
    }

    /// Counts a block that is about to be sent, and returns its sequence number.
    pub(super) fn send(&self, now: MonoTime, payload: usize) -> u64 {
        let mut counts = lock(&self.0);
        if counts.outstanding == 0 {
            counts.since = now;
        }
        counts.outstanding += 1;
        counts.payload_bytes += payload as u64;
        counts.next += 1;
        (counts.next - 1) * counts.flows + counts.flow
    }

    /// Counts blocks that fell due while no session was open.
    pub fn skip(&self, blocks: u64) {
        let mut counts = lock(&self.0);
        counts.next += blocks;
        counts.unsent += blocks;
    }

    pub(super) fn answer(&self, sequence: u64, now: MonoTime, late: bool) -> Answer {
        let mut counts = lock(&self.0);
        let next = counts.next;
        if sequence % counts.flows != counts.flow {
            return Answer::Unknown;
        }
        let sequence = sequence / counts.flows;
        let answer = counts.answers.take(sequence, next);
        if answer == Answer::First {
            // Frames keep their order: earlier blocks without an answer will have none (an exit
            // drops reports rather than delay data).
            counts.outstanding = counts.outstanding.min(next - 1 - sequence);
            counts.late += u64::from(late);
        }
        counts.since = now;
        answer
    }

    /// Notes that bytes came which were no answer: the path is alive.
    pub(super) fn note_bytes(&self, now: MonoTime) {
        lock(&self.0).since = now;
    }

    /// Returns `true` if an answer has been outstanding for `timeout`.
    pub(super) fn is_overdue(&self, now: MonoTime, timeout: Duration) -> bool {
        let counts = lock(&self.0);
        counts.outstanding > 0 && now.since(counts.since) >= timeout.into()
    }

    /// Stops expecting answers: a new session begins, or an exit has dropped a report.
    pub(super) fn expect_none(&self) {
        lock(&self.0).outstanding = 0;
    }

    /// Returns the counts of a run that is over: a block without an answer is lost.
    pub fn blocks(&self) -> Blocks {
        lock(&self.0).blocks()
    }

    /// Returns the counts of a run that goes on: a block under way is not lost yet.
    pub fn blocks_so_far(&self) -> Blocks {
        let counts = lock(&self.0); // All under one lock: the count of lost blocks never falls.
        let blocks = counts.blocks();
        Blocks {
            lost: blocks.lost.saturating_sub(counts.outstanding),
            ..blocks
        }
    }

    /// Returns `true` if no answer is expected any more.
    pub(super) fn is_settled(&self) -> bool {
        lock(&self.0).outstanding == 0
    }

    /// Returns the first block of this flow from `from` on that has no answer; `None` if all have
    /// one.
    pub fn next_unanswered(&self, from: u64) -> Option<u64> {
        let counts = lock(&self.0);
        let before = from.saturating_sub(counts.flow).div_ceil(counts.flows);
        let open = counts.answers.next_open(before, counts.next)?;
        Some(open * counts.flows + counts.flow)
    }
}
