//! Channels between threads that meet seldom: wake-ups, ends of threads, events of connections.
//!
//! A lock around a queue. Crossbeam's channels need no lock, but each type of item adds 4 to 6 KiB
//! to a binary for small machines. Here it adds under 1 KiB. Blocks go through crossbeam's.

use super::lock;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Returns both ends of a channel for at most `capacity` waiting items. The capacity is 0 where
/// nothing is sent and only the sender's end matters.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::new(),
            counts: Counts {
                capacity,
                senders: 1,
                receivers: 1,
                waiting: 0,
            },
        }),
        moved: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The reason for which nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// Nothing came in time.
    Timeout,
    /// Nothing waits, and all senders are gone.
    Disconnected,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// An item came or went, or the last one of a side is gone.
    moved: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    counts: Counts,
}

impl<T> State<T> {
    /// Takes `item`, or leaves it if no receiver is left; `None` while there is no room.
    fn put(&mut self, item: &mut Option<T>) -> Option<()> {
        if self.counts.receivers > 0 {
            if self.items.len() >= self.counts.capacity {
                return None;
            }
            self.items.extend(item.take());
        }
        Some(())
    }
}

struct Counts {
    capacity: usize,
    senders: usize,
    receivers: usize,
    /// The threads that wait for `moved`: a wake-up of none is no system call.
    waiting: usize,
}

impl Counts {
    fn wake(&self, moved: &Condvar) {
        if self.waiting > 0 {
            moved.notify_all();
        }
    }
}

impl<T> Shared<T> {
    /// Runs `attempt` until it has a result, once more whenever something moved; `None` after
    /// `deadline`.
    fn until<R>(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut(&mut State<T>) -> Option<R>,
    ) -> Option<R> {
        let mut state = lock(&self.state);
        loop {
            if let Some(result) = attempt(&mut state) {
                state.counts.wake(&self.moved);
                return Some(result);
            }
            let left = match deadline {
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    left
                }
                None => Duration::MAX,
            };
            state.counts.waiting += 1;
            let woken = self.moved.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.counts.waiting -= 1;
        }
    }
}

/// The end that sends.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    ///
    /// The item, if the channel is full or its receivers are gone.
    pub fn send(&self, item: T) -> Result<(), T> {
        let mut item = Some(item);
        let mut state = lock(&self.0.state);
        let _ = state.put(&mut item);
        state.counts.wake(&self.0.moved);
        item.map_or(Ok(()), Err)
    }

    /// Sends as soon as there is room.
    ///
    /// # Errors
    ///
    /// The item, if there was no room until `deadline`, or the receivers are gone.
    pub fn send_by(&self, item: T, deadline: Instant) -> Result<(), T> {
        let mut item = Some(item);
        self.0.until(Some(deadline), |state| state.put(&mut item));
        item.map_or(Ok(()), Err)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.0.state).counts.senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let counts = &mut lock(&self.0.state).counts;
        counts.senders -= 1;
        counts.wake(&self.0.moved);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Sender")
    }
}

/// The end that receives. Threads may share it: each item goes to one of them.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Waits for an item.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`].
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None)
    }

    /// Waits for an item, no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        self.recv_until(Instant::now().checked_add(timeout))
    }

    /// Waits for an item, no longer than until `deadline`.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvError> {
        self.recv_until(Some(deadline))
    }

    fn recv_until(&self, deadline: Option<Instant>) -> Result<T, RecvError> {
        let received = self.0.until(deadline, |state| {
            let is_over = state.counts.senders == 0;
            match state.items.pop_front() {
                Some(item) => Some(Ok(item)),
                None => is_over.then_some(Err(RecvError::Disconnected)),
            }
        });
        received.unwrap_or(Err(RecvError::Timeout))
    }

    /// Returns the next item that waits; `None` if none does.
    pub fn try_recv(&self) -> Option<T> {
        let mut state = lock(&self.0.state);
        let item = state.items.pop_front();
        state.counts.wake(&self.0.moved);
        item
    }

    /// Returns the items that wait, one by one.
    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv())
    }

    /// Returns `true` if nothing waits.
    pub fn is_empty(&self) -> bool {
        lock(&self.0.state).items.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.counts.receivers -= 1;
        // No receiver is left. Dropped without the lock, as they may hold ends of channels.
        let items = std::mem::take(&mut state.items);
        state.counts.wake(&self.0.moved);
        drop(state);
        drop(items);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Receiver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn items_come_in_order_and_beyond_the_capacity_they_are_handed_back() {
        let (sender, receiver) = channel(2);
        assert_eq!((sender.send(1), sender.send(2)), (Ok(()), Ok(())));
        assert_eq!(sender.send(3), Err(3));
        assert_eq!(receiver.try_recv(), Some(1));
        assert_eq!(sender.send(4), Ok(()));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2, 4]);
        assert!(receiver.is_empty());
        let soon = Duration::from_millis(1);
        assert_eq!(receiver.recv_timeout(soon), Err(RecvError::Timeout));
        let (sender, _receiver) = channel(0);
        assert_eq!(sender.send_by(5, Instant::now() + soon), Err(5));
    }

    #[test]
    fn the_end_of_the_other_side_ends_every_wait_and_no_item_is_lost() {
        let (sender, receiver) = channel(2);
        let other = sender.clone();
        assert_eq!(other.send(1), Ok(()));
        drop((sender, other));
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
        let (sender, receiver) = channel::<Sender<()>>(1);
        let (inner, nothing) = channel(1);
        assert!(sender.send(inner).is_ok());
        drop(receiver);
        assert_eq!(nothing.recv(), Err(RecvError::Disconnected));
        let (inner, _nothing) = channel(1);
        assert!(sender.send_by(inner, Instant::now() + LONG).is_err());
    }

    #[test]
    fn threads_that_wait_on_either_side_are_woken() {
        let (sender, receiver) = channel(1);
        let (ready, waiting) = channel::<()>(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                let sender = sender.clone();
                scope.spawn(move || {
                    for item in 1..=500_u64 {
                        sender.send_by(item, Instant::now() + LONG).unwrap();
                    }
                });
            }
            drop(sender);
            let sum = scope.spawn(move || {
                let items = std::iter::from_fn(|| receiver.recv_timeout(LONG).ok());
                let sum = items.sum::<u64>();
                drop(ready);
                sum
            });
            assert_eq!(waiting.recv(), Err(RecvError::Disconnected));
            assert_eq!(sum.join().unwrap(), 2 * 500 * 501 / 2);
        });
    }
}
