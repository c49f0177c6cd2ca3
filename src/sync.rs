//! A lock that survives a panic, random numbers, and the stack size of a pump.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The stack size of a thread, in bytes: enough for the deepest pump and the formatting of a log
/// line.
///
/// Only touched pages cost memory. An idle pump has touched two, since the deep calls at a
/// connection's start and end are kept out of its loop (`inline(never)`). `scripts/bench idle`
/// would show a third.
pub const STACK: usize = 64 << 10;

/// Locks, even if another thread panicked: guarded values are valid between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns 64 random bits, from keys that std takes from the kernel. They serve node ids, cookies
/// and nonces, which have to differ and need not be secret.
pub fn random() -> u64 {
    let hasher = RandomState::new().build_hasher();
    hasher.finish()
}
