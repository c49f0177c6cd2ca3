//! The collector: one thread that takes finished measurements from all pumps, and never makes one of them wait.
//!
//! Pumps offer to a channel of bounded length; what does not fit is dropped and counted. The collector sleeps between batches, so
//! an offer costs no wake-up: only the first one after idling, and the one that fills half the channel, knock.
//!
//! The same thread gives the beat by which an entry marks blocks: while there is traffic it raises `epoch` once per
//! `--sample`, and a pump marks the first block it sees in an epoch. So an unmarked block reads no clock.

use crate::annotation::NodeAnnotations;
use crate::measure::{Direction, Trip};
use crate::report::PathNode;
use crate::time::{MonoTime, Nanos, SignedNanos};
use crossbeam_channel::{bounded, unbounded, Receiver, RecvTimeoutError, Sender};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// At most 1000 marked blocks per second reach a collector from an entry, and a source's 60 000 are drained at half
/// full: 4096 is room for a collector that is off the CPU for tens of milliseconds.
const CAPACITY: usize = 4096;
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// So many batches without a measurement, and the collector sleeps until it is knocked at.
const IDLE_BATCHES: u32 = 10;
/// Marked blocks per second and process at an entry.
const MARKS_PER_SECOND: f64 = 1000.0;
const SHORTEST_BEAT: Duration = Duration::from_millis(1);
const DEFAULT_BEAT: Duration = Duration::from_millis(10);

/// What a pump has to say.
#[derive(Debug)]
pub enum Measurement {
    /// A block came back.
    Trip(Box<Trip>),
    /// A block came back that had come back before.
    Duplicate(Box<Trip>),
    /// A node from which no trip is seen (plain proxy, reflector, exit) passed a block on; its hop comes first.
    Residence(u8, Direction, SignedNanos),
    /// The server behind an exit answered; the hop of the node that tells comes first.
    BehindExit(u8, MonoTime, Nanos),
    /// The far end told who is on the path.
    Path(Box<Path>),
    /// A node answered what it was asked; the hop of the node that asked comes first.
    NodeAnnotations(u8, Box<NodeAnnotations>),
    /// A failure that belongs into the report.
    Notice(String),
}

/// The nodes of a session.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its identifier.
    pub cookie: u64,
    /// Hop of the node that tells.
    pub hop: u8,
    /// From there on, in the order of hops.
    pub nodes: Vec<PathNode>,
}

/// What one direction of a connection, or all of them, have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Blocks away from the source.
    pub forward_blocks: u64,
    /// Blocks back to it.
    pub return_blocks: u64,
    /// Payload away from the source.
    pub forward_bytes: u64,
    /// Payload back to it.
    pub return_bytes: u64,
    /// Reports that found their queue full.
    pub reports_dropped: u64,
}

impl Traffic {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.forward_blocks += other.forward_blocks;
        self.return_blocks += other.return_blocks;
        self.forward_bytes += other.forward_bytes;
        self.return_bytes += other.return_bytes;
        self.reports_dropped += other.reports_dropped;
    }
}

#[derive(Debug)]
struct Shared {
    dropped: AtomicUsize,
    /// The collector waits without a limit: every offer knocks.
    asleep: AtomicBool,
    /// It waits for longer than a beat: a mark knocks.
    slow: AtomicBool,
    /// A block was marked since the last beat.
    marked: AtomicBool,
    epoch: AtomicUsize,
    budget: AtomicIsize,
    every_block: bool,
    /// Every offer knocks: what comes in decides what the next block asks.
    prompt: AtomicBool,
}

/// The pumps' side.
#[derive(Clone, Debug)]
pub struct Collector {
    offers: Sender<Measurement>,
    knock: Sender<()>,
    shared: Arc<Shared>,
}

/// The collecting thread's side.
#[derive(Debug)]
pub struct Queue {
    offers: Receiver<Measurement>,
    knocks: Receiver<()>,
    shared: Arc<Shared>,
    beat: Duration,
    quiet: u32,
    awake: bool,
}

/// Both sides; `sample` is the entry's `--sample`.
pub fn channel(sample: Duration) -> (Collector, Queue) {
    // Bounded by `offer`: crossbeam's bounded channel would hold all of its room, 160 KiB, from the start.
    let (offer, offers) = unbounded();
    let (knock, knocks) = bounded(1); // One knock is as good as many.
    let shared = Arc::new(Shared {
        dropped: AtomicUsize::new(0),
        asleep: AtomicBool::new(false),
        slow: AtomicBool::new(false),
        marked: AtomicBool::new(false),
        epoch: AtomicUsize::new(1),
        budget: AtomicIsize::new(1),
        every_block: sample.is_zero(),
        prompt: AtomicBool::new(false),
    });
    let beat = if sample.is_zero() {
        DEFAULT_BEAT
    } else {
        sample.max(SHORTEST_BEAT)
    };
    let collector = Collector {
        offers: offer,
        knock,
        shared: Arc::clone(&shared),
    };
    let queue = Queue {
        offers,
        knocks,
        shared,
        beat,
        quiet: 0,
        awake: false,
    };
    queue.raise_epoch();
    (collector, queue)
}

impl Collector {
    /// Hands a measurement over, or drops and counts it. Never waits.
    pub fn offer(&self, measurement: Measurement) {
        let waiting = self.offers.len();
        // As many pumps as come at this moment may exceed it by one each. An error is a collector that is gone.
        if waiting >= CAPACITY || self.offers.send(measurement).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.stir();
        if waiting >= CAPACITY / 2 || self.shared.prompt.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// From now on every measurement is taken at once, for a wake-up each: before the next block is sent, if that is not
    /// under way already.
    pub fn be_prompt(&self) {
        self.shared.prompt.store(true, Ordering::Relaxed);
    }

    /// Whether the block at hand is to be marked, at an entry; `last` is the pump's own memory, 0 at first.
    pub fn may_mark(&self, last: &mut usize) -> bool {
        let epoch = self.shared.epoch.load(Ordering::Relaxed);
        if epoch == *last && !self.shared.every_block {
            return false;
        }
        if self.shared.budget.load(Ordering::Relaxed) <= 0
            || self.shared.budget.fetch_sub(1, Ordering::Relaxed) <= 0
        {
            return false;
        }
        *last = epoch;
        self.shared.marked.store(true, Ordering::Relaxed);
        self.stir();
        if self.shared.slow.load(Ordering::Relaxed)
            && self.shared.slow.swap(false, Ordering::AcqRel)
        {
            self.wake();
        }
        true
    }

    /// Wakes a collector that sleeps for good.
    fn stir(&self) {
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::AcqRel)
        {
            self.wake();
        }
    }

    /// Wakes the collector now.
    pub fn wake(&self) {
        let _ = self.knock.try_send(()); // Full: somebody has knocked.
    }

    /// Measurements dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed) as u64
    }
}

impl Queue {
    fn raise_epoch(&self) {
        let marks = (MARKS_PER_SECOND * self.beat.as_secs_f64()).max(1.0);
        self.shared.budget.store(marks as isize, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on no batch is waited for without a limit: there is a deadline to watch.
    pub fn keep_awake(&mut self) {
        self.awake = true;
    }

    /// Waits for the next batch and takes all of it. Wakes by itself only while there is traffic.
    pub fn batch(&mut self, mut take: impl FnMut(Measurement)) {
        let shared = &self.shared;
        if self.quiet >= IDLE_BATCHES && !self.awake {
            self.quiet = 0;
            self.raise_epoch(); // The first block after the quiet is to be marked.
            shared.asleep.store(true, Ordering::SeqCst);
            if self.offers.is_empty() {
                // An error means that all pumps and their node are gone; the drain below then is the last.
                let _ = self.knocks.recv();
            }
            shared.asleep.store(false, Ordering::SeqCst);
        } else {
            let beating = shared.marked.swap(false, Ordering::Relaxed);
            shared.slow.store(!beating, Ordering::Relaxed);
            let wait = if beating { self.beat } else { DRAIN_INTERVAL };
            // A knock comes between two beats: it raises nothing.
            if self.knocks.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                self.raise_epoch();
            }
            shared.slow.store(false, Ordering::Relaxed);
        }
        let taken = self.drain(&mut take);
        self.quiet = if taken == 0 && !self.shared.marked.load(Ordering::Relaxed) {
            self.quiet + 1
        } else {
            0
        };
    }

    /// Takes what is there now.
    pub fn drain(&mut self, take: &mut impl FnMut(Measurement)) -> usize {
        let mut taken = 0;
        for measurement in self.offers.try_iter() {
            take(measurement);
            taken += 1;
        }
        taken
    }

    /// Measurements dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_what_does_keeps_its_order() {
        let (collector, mut queue) = channel(DEFAULT_BEAT);
        for number in 0..CAPACITY + 10 {
            collector.offer(Measurement::Notice(number.to_string()));
        }
        assert_eq!(collector.dropped(), 10);
        let mut seen = Vec::new();
        let mut take = |measurement| match measurement {
            Measurement::Notice(text) => seen.push(text.parse::<usize>().unwrap()),
            other => panic!("{other:?}"),
        };
        assert_eq!(queue.drain(&mut take), CAPACITY);
        assert!(seen.into_iter().eq(0..CAPACITY));
        collector.offer(Measurement::Notice("again".into()));
        assert_eq!((queue.drain(&mut |_| ()), queue.dropped()), (1, 10));
    }
}
