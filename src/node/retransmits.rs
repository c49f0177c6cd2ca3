//! Readings of the kernel's count of retransmissions on one socket, as they ride on marked blocks.
//!
//! A reading is one system call after a send, never before a stamp. A pump makes at most one per
//! 100 ms, the process at most 1000 per second.

use crate::measure::{Direction, Retransmits};
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::wire::RetransmitCount;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The least time between two readings of a pump.
const INTERVAL: Nanos = Nanos::from_millis(100);

/// The millisecond of the latest reading in this process: at most one reading in each.
static LATEST: AtomicUsize = AtomicUsize::new(0);

/// The count of one socket: what was read, and what has not been sent yet.
#[derive(Debug, Default)]
pub struct RetransmitCounter {
    /// The greatest count so far, and when the latest reading was; `None` where nothing is counted.
    latest: Option<(u64, MonoTime)>,
    /// The reading that waits for a block: it and its span.
    pending: Option<(u64, Nanos)>,
}

impl RetransmitCounter {
    /// Takes the zero of the count, right after the connection was established: what was sent again
    /// until then belongs to the connect.
    #[inline(never)]
    pub fn begin(&mut self, socket: &TcpStream) {
        self.latest = sys::retransmits(socket).map(|count| (count, sys::clock::mono()));
    }

    /// Reads the count if a reading is due at `now`. Called after a marked block was sent.
    #[inline]
    pub fn sent(&mut self, socket: &TcpStream, now: MonoTime) {
        if self
            .latest
            .is_some_and(|(_, then)| now.since(then) >= INTERVAL)
        {
            self.read(socket, now);
        }
    }

    #[inline(never)]
    fn read(&mut self, socket: &TcpStream, now: MonoTime) {
        if may_read(&LATEST, now) {
            self.add(sys::retransmits(socket), now);
        }
    }

    /// Reads the count for the last time, whatever the time since the reading before.
    #[inline(never)]
    pub fn end(&mut self, socket: &TcpStream, now: MonoTime) {
        if self.latest.is_some() {
            self.add(sys::retransmits(socket), now);
        }
    }

    fn add(&mut self, count: Option<u64>, now: MonoTime) {
        let (Some(count), Some((before, then))) = (count, self.latest) else {
            return;
        };
        // A segment that proves needless later makes the count fall: those that follow make up for
        // it.
        let more = count.saturating_sub(before);
        let (waiting, span) = self.pending.unwrap_or_default();
        self.pending = Some((waiting + more, span + now.since(then)));
        self.latest = Some((before + more, now));
    }

    /// Returns `true` if a reading waits for a block.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Returns the value of the annotation with the reading that waits; `None` without one.
    pub fn waiting(&self, direction: Direction) -> Option<[u8; RetransmitCount::LEN]> {
        let (count, span) = self.pending?;
        let value = RetransmitCount {
            back: direction == Direction::Return,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            span,
        };
        Some(value.emit())
    }

    /// Returns the reading that waits as one of the node at `hop`, and forgets it.
    pub fn last(&mut self, hop: u8, direction: Direction) -> Option<Retransmits> {
        let (count, span) = self.pending.take()?;
        Some(Retransmits {
            hop,
            direction,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            span,
        })
    }

    /// Notes that the reading that waited is on its way.
    pub fn passed_on(&mut self) {
        self.pending = None;
    }
}

/// Returns `true` to the first caller in each millisecond.
fn may_read(latest: &AtomicUsize, now: MonoTime) -> bool {
    let millisecond = (now.0 / 1_000_000) as usize; // Wraps on a 32-bit host: only equality counts.
    latest.swap(millisecond, Ordering::Relaxed) != millisecond
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime(ms * 1_000_000)
    }

    fn value(counter: &RetransmitCounter) -> Option<(u32, Nanos)> {
        let value = RetransmitCount::parse(&counter.waiting(Direction::Return)?).unwrap();
        assert!(value.back);
        Some((value.count, value.span))
    }

    #[test]
    fn a_reading_has_the_growth_and_the_time_since_the_one_before_and_waits_for_a_block() {
        let mut counter = RetransmitCounter {
            latest: Some((2, at(0))), // Two SYN of the connect.
            pending: None,
        };
        assert_eq!(value(&counter), None);
        counter.add(Some(5), at(100));
        assert_eq!(value(&counter), Some((3, Nanos::from_millis(100))));
        // Two readings before a block comes are one.
        counter.add(Some(6), at(250));
        assert_eq!(value(&counter), Some((4, Nanos::from_millis(250))));
        counter.passed_on();
        assert_eq!(value(&counter), None);
        // One of them was needless, as the kernel knows now: the sum is right in the end.
        counter.add(Some(5), at(350));
        assert_eq!(value(&counter), Some((0, Nanos::from_millis(100))));
        counter.add(Some(7), at(450));
        assert_eq!(value(&counter), Some((1, Nanos::from_millis(200))));
        counter.add(None, at(550));
        assert_eq!(value(&counter), Some((1, Nanos::from_millis(200))));
    }

    #[test]
    fn a_socket_without_a_zero_is_never_read() {
        let mut counter = RetransmitCounter::default();
        counter.add(Some(5), at(100));
        assert!(!counter.is_waiting());
    }

    #[test]
    fn a_process_reads_once_in_a_millisecond() {
        let latest = AtomicUsize::new(0);
        let allowed = (1..2_001_u64)
            .filter(|half| may_read(&latest, MonoTime(1_000_000 + half * 500_000)))
            .count();
        assert_eq!(allowed, 1001);
    }
}
