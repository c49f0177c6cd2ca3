//! Small things that threads share: a lock that survives a panic, random numbers, the stack size of a pump.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Enough for the deepest pump and the formatting of a log line; what is touched counts, not what is reserved. A pump that
/// idles has touched two pages: what goes deep at a connection's start or end is kept out of the functions that stay
/// (`inline(never)`). `scripts/bench idle` shows a third one.
pub const STACK: usize = 64 << 10;

/// Locks, whether or not another thread panicked: what our locks guard is valid between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 64 bits from the random keys that std takes from the kernel: for node ids, cookies and nonces, which have to be
/// unlikely to collide, not secret.
pub fn random() -> u64 {
    let hasher = RandomState::new().build_hasher();
    hasher.finish()
}
