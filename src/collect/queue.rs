//! The queue of the collector, the one thread that takes finished measurements from all pumps and
//! never makes one wait.
//!
//! Pumps offer measurements to a channel of bounded length; those beyond it are dropped and
//! counted. The collector sleeps between batches, so most offers cost no wake-up. Only the first
//! one after idling, and the one that fills half the channel, wake it.
//!
//! The same thread decides when an entry marks blocks. It raises `epoch` once per `--sample` while
//! there is traffic, and a pump marks the first block of an epoch. So an unmarked block reads no
//! clock.

use crate::annotation::NodeAnnotations;
use crate::collect::path_key::{PathKey, REST};
use crate::http::stamp::{StampedExchange, TraceParent};
use crate::measure::ServerOutcome;
use crate::measure::{Direction, HopStamp, Retransmits, Trip};
use crate::report::PathNode;
use crate::sync::channel::{self, RecvError};
use crate::time::{MonoTime, Nanos, SignedNanos};
use crate::wire::ServerConnect;
use crossbeam_channel::unbounded;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// The most measurements that wait. An entry offers at most 1000 per second, a source 60 000, and
/// half full wakes the collector. There is room for tens of milliseconds off the CPU.
const CAPACITY: usize = 4096;
/// The most memory of the measurements that wait, in bytes: 4096 blocks of a path of ten nodes.
const CAPACITY_BYTES: usize = 4 << 20;
/// The most measurements of one path that wait, however many of other paths do. No client can thus
/// keep another one's measurements from the collector.
const SHARE: usize = CAPACITY / 16;
const SHARE_BYTES: usize = CAPACITY_BYTES / 16;
const SHARES: usize = REST as usize + 1;
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// The number of batches without a measurement after which the collector sleeps until it is woken.
const IDLE_BATCHES: u32 = 10;
/// The most marked blocks per second and process at an entry.
const MARKS_PER_SECOND: f64 = 1000.0;
const SHORTEST_BEAT: Duration = Duration::from_millis(1);
const DEFAULT_BEAT: Duration = Duration::from_millis(10);

/// An event that a pump offers to the collector.
#[derive(Debug)]
pub enum Measurement {
    /// A block came back.
    Trip(PathKey, Box<Trip>),
    /// A block came back that had come back before.
    Duplicate(Box<Trip>),
    /// A node that sees no trip (plain proxy, reflector, exit) passed a block on: the path, the
    /// direction, and the time in the node.
    Residence(PathKey, Direction, SignedNanos),
    /// The server behind an exit answered: the path, the time, and the delay of the server.
    BehindExit(PathKey, MonoTime, Nanos),
    /// An exit or a plain proxy connected to its server, or failed to. The values are the path, the
    /// time of the end, and the duration or the error.
    ServerConnect(PathKey, MonoTime, ServerOutcome),
    /// A block came back with a stamp that this node cannot have written.
    Malformed,
    /// The far end reported the nodes on the path.
    Path(Box<Path>),
    /// A node answered a request for annotations: the path, and the answer.
    NodeAnnotations(PathKey, Box<NodeAnnotations>),
    /// Readings of retransmissions that came with the END of a connection: the path, and the
    /// readings.
    Retransmits(PathKey, Vec<Retransmits>),
    /// The heads of a request and its response held stamps: the path, the heads, and when the
    /// first bytes of both passed here.
    Headers(PathKey, Box<StampedExchange>),
    /// A block holds a request of this trace: the path, the connection, the number of the block.
    Trace(PathKey, u32, u64, TraceParent),
    /// A sentence for the report.
    Notice(String),
}

impl Measurement {
    /// Returns its share of the queue.
    fn share(&self) -> usize {
        let share = match self {
            Self::Trip(key, _)
            | Self::Residence(key, ..)
            | Self::BehindExit(key, ..)
            | Self::ServerConnect(key, ..)
            | Self::NodeAnnotations(key, _)
            | Self::Headers(key, _)
            | Self::Trace(key, ..)
            | Self::Retransmits(key, _) => key.share,
            Self::Path(path) => path.key.share,
            Self::Duplicate(_) => 0,
            Self::Malformed | Self::Notice(_) => REST,
        };
        usize::from(share).min(SHARES - 1)
    }

    /// Returns the memory that it takes while it waits, in bytes. A peer chooses most of it.
    fn memory(&self) -> usize {
        let heap = match self {
            Self::Trip(_, trip) | Self::Duplicate(trip) => {
                let connect = |connect: &ServerConnect| {
                    size_of::<ServerConnect>() + connect.error.as_ref().map_or(0, String::capacity)
                };
                size_of::<Trip>()
                    + trip.hop_stamps.capacity() * size_of::<HopStamp>()
                    + trip.server.as_deref().map_or(0, connect)
            }
            Self::Path(path) => {
                size_of::<Path>() + path.nodes.iter().map(PathNode::memory).sum::<usize>()
            }
            Self::NodeAnnotations(_, annotations) => annotations.memory(),
            Self::Retransmits(_, readings) => readings.capacity() * size_of::<Retransmits>(),
            Self::Notice(text) | Self::ServerConnect(.., Err(text)) => text.capacity(),
            Self::Headers(_, exchange) => size_of::<StampedExchange>() + exchange.0.memory(),
            Self::Residence(..)
            | Self::BehindExit(..)
            | Self::Trace(..)
            | Self::ServerConnect(.., Ok(_))
            | Self::Malformed => 0,
        };
        size_of::<Self>() + heap
    }
}

/// The nodes of a session.
#[derive(Clone, Debug)]
pub struct Path {
    /// The identifier of the session.
    pub cookie: u64,
    /// The path, as the reporting node sees it.
    pub key: PathKey,
    /// The nodes from the reporting one on, in the order of hops.
    pub nodes: Vec<PathNode>,
}

/// The traffic of one direction of a connection, or of all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Blocks that moved away from the source.
    pub forward_blocks: u64,
    /// Blocks that moved towards it.
    pub return_blocks: u64,
    /// Payload bytes that moved away from the source.
    pub forward_bytes: u64,
    /// Payload bytes that moved towards it.
    pub return_bytes: u64,
    /// Reports of an exit that found their queue full.
    pub reports_dropped: u64,
}

impl Traffic {
    /// Adds the counts of `other`.
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
    /// The memory of the measurements that wait, in bytes.
    waiting: AtomicUsize,
    /// The number and the memory of those of each share.
    shares: [[AtomicUsize; 2]; SHARES],
    dropped: AtomicUsize,
    /// The collector waits without a limit: every offer wakes it.
    asleep: AtomicBool,
    /// It waits for longer than a beat: a mark wakes it.
    slow: AtomicBool,
    /// A block was marked since the last beat.
    marked: AtomicBool,
    epoch: AtomicUsize,
    budget: AtomicIsize,
    every_block: bool,
    /// Every offer wakes it: a measurement decides what the next block requests.
    prompt: AtomicBool,
}

/// The side of the pumps.
#[derive(Clone, Debug)]
pub struct Collector {
    offers: crossbeam_channel::Sender<Measurement>,
    wake: channel::Sender<()>,
    shared: Arc<Shared>,
}

/// The side of the collecting thread.
#[derive(Debug)]
pub struct Queue {
    offers: crossbeam_channel::Receiver<Measurement>,
    woken: channel::Receiver<()>,
    shared: Arc<Shared>,
    beat: Duration,
    quiet: u32,
    awake: bool,
}

/// Returns both sides; `sample` is the entry's `--sample`.
pub fn channel(sample: Duration) -> (Collector, Queue) {
    // Bounded by `offer`: crossbeam's bounded channel would hold all of its room, 160 KiB, from the
    // start.
    let (offer, offers) = unbounded();
    let (wake, woken) = channel::channel(1); // One pending wake-up is enough.
    let shared = Arc::new(Shared {
        waiting: AtomicUsize::new(0),
        shares: Default::default(),
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
        wake,
        shared: Arc::clone(&shared),
    };
    let queue = Queue {
        offers,
        woken,
        shared,
        beat,
        quiet: 0,
        awake: false,
    };
    queue.raise_epoch();
    (collector, queue)
}

impl Collector {
    /// Offers a measurement to the collector, or drops and counts it. Never waits.
    pub fn offer(&self, measurement: Measurement) {
        let memory = measurement.memory();
        let waiting = self.offers.len();
        let bytes = self.shared.waiting.fetch_add(memory, Ordering::Relaxed);
        // As many pumps as come at this moment may exceed the count by one each. An error is a
        // collector that is gone.
        let [count, held] = &self.shared.shares[measurement.share()];
        let own = count.fetch_add(1, Ordering::Relaxed);
        let own_bytes = held.fetch_add(memory, Ordering::Relaxed) + memory;
        let is_full = waiting >= CAPACITY || bytes + memory > CAPACITY_BYTES;
        let has_share = own < SHARE && own_bytes <= SHARE_BYTES;
        // The channel has no bound: `try_send` waits as little as `send`, on half of its stack.
        if (is_full && !has_share) || self.offers.try_send(measurement).is_err() {
            self.shared.waiting.fetch_sub(memory, Ordering::Relaxed);
            count.fetch_sub(1, Ordering::Relaxed);
            held.fetch_sub(memory, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.wake_asleep();
        let is_half_full = waiting >= CAPACITY / 2 || bytes >= CAPACITY_BYTES / 2;
        if is_half_full || self.shared.prompt.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Has every measurement taken at once, for a wake-up each: mostly before the next block is
    /// sent.
    pub fn be_prompt(&self) {
        self.shared.prompt.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if an entry has to mark the present block; `last` is the pump's own memory, 0
    /// at first.
    pub fn may_mark(&self, last: &mut usize) -> bool {
        let epoch = self.shared.epoch.load(Ordering::Relaxed);
        if epoch == *last && !self.shared.every_block {
            return false;
        }
        self.may_mark_request(last)
    }

    /// Returns `true` if the present block, which begins a request, may be marked however recent
    /// the last marked one is: only the limit of the process counts.
    pub fn may_mark_request(&self, last: &mut usize) -> bool {
        if self.shared.budget.load(Ordering::Relaxed) <= 0
            || self.shared.budget.fetch_sub(1, Ordering::Relaxed) <= 0
        {
            return false;
        }
        *last = self.shared.epoch.load(Ordering::Relaxed);
        self.shared.marked.store(true, Ordering::Relaxed);
        self.wake_asleep();
        if self.shared.slow.load(Ordering::Relaxed)
            && self.shared.slow.swap(false, Ordering::AcqRel)
        {
            self.wake();
        }
        true
    }

    /// Wakes a collector that sleeps without a limit.
    fn wake_asleep(&self) {
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::AcqRel)
        {
            self.wake();
        }
    }

    /// Wakes the collector now.
    #[inline(never)]
    pub fn wake(&self) {
        let _ = self.wake.send(()); // Full: a wake-up is pending.
    }

    /// Returns the number of measurements dropped so far.
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

    /// Limits every wait for a batch from now on: there is a deadline to watch.
    pub fn keep_awake(&mut self) {
        self.awake = true;
    }

    /// Waits for the next batch and takes all of it. Wakes by itself only while there is traffic.
    pub fn batch(&mut self, mut take: impl FnMut(Measurement)) {
        let shared = &self.shared;
        if self.quiet >= IDLE_BATCHES && !self.awake {
            self.quiet = 0;
            self.raise_epoch(); // Has the first block after the quiet marked.
            shared.asleep.store(true, Ordering::SeqCst);
            if self.offers.is_empty() {
                // An error means that all pumps and their node are gone; the drain below then is
                // the last.
                let _ = self.woken.recv();
            }
            shared.asleep.store(false, Ordering::SeqCst);
        } else {
            let beating = shared.marked.swap(false, Ordering::Relaxed);
            shared.slow.store(!beating, Ordering::Relaxed);
            let wait = if beating { self.beat } else { DRAIN_INTERVAL };
            // A wake-up comes between two beats: it raises nothing.
            if self.woken.recv_timeout(wait) == Err(RecvError::Timeout) {
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

    /// Takes the waiting measurements and returns their number.
    pub fn drain(&mut self, take: &mut impl FnMut(Measurement)) -> usize {
        let mut taken = 0;
        for measurement in self.offers.try_iter() {
            let memory = measurement.memory();
            self.shared.waiting.fetch_sub(memory, Ordering::Relaxed);
            let [count, held] = &self.shared.shares[measurement.share()];
            count.fetch_sub(1, Ordering::Relaxed);
            held.fetch_sub(memory, Ordering::Relaxed);
            take(measurement);
            taken += 1;
        }
        taken
    }

    /// Returns the number of measurements dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_waiting_measurements_is_bounded_and_free_again_once_they_are_taken() {
        let (collector, mut queue) = channel(DEFAULT_BEAT);
        for round in 1..=3 {
            for _ in 0..100 {
                collector.offer(Measurement::Notice("x".repeat(1 << 17)));
            }
            let mut taken = 0;
            let mut take = |measurement: Measurement| taken += measurement.memory();
            let count = queue.drain(&mut take);
            assert!(
                taken <= CAPACITY_BYTES + SHARE_BYTES && taken > CAPACITY_BYTES / 2,
                "{taken}"
            );
            assert_eq!(collector.dropped(), round * (100 - count as u64));
        }
    }

    #[test]
    fn the_measurements_of_one_path_find_room_however_many_of_others_wait() {
        let (collector, mut queue) = channel(DEFAULT_BEAT);
        let residence = |share| {
            let key = PathKey {
                share,
                ..PathKey::default()
            };
            Measurement::Residence(key, Direction::Forward, SignedNanos(1))
        };
        for share in [3, REST] {
            (0..2 * CAPACITY).for_each(|_| collector.offer(residence(share)));
        }
        (0..10).for_each(|_| collector.offer(residence(1)));
        let mut counts = [0; SHARES];
        queue.drain(&mut |measurement| counts[measurement.share()] += 1);
        assert_eq!((counts[3], counts[1]), (CAPACITY, 10));
        assert_eq!(counts[usize::from(REST)], SHARE);
        assert!(queue
            .shared
            .shares
            .iter()
            .flatten()
            .all(|left| left.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn measurements_beyond_the_capacity_are_dropped_and_counted_and_the_others_keep_their_order() {
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
