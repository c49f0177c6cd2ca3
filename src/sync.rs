//! A lock that survives a panic, random numbers, and the stack size of a pump.

pub mod channel;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// The stack size of a thread, in bytes: enough for the deepest pump and the formatting of a log
/// line.
///
/// Only touched pages cost memory. An idle pump has touched two, since the deep calls at a
/// connection's start and end are kept out of its loop (`inline(never)`). `scripts/bench idle`
/// would show a third.
pub const STACK: usize = 64 << 10;

/// The stack size that std gives a thread, in bytes, of which untouched pages cost nothing.
pub const LARGE_STACK: usize = 2 << 20;

/// Runs `run` on a new thread called `name`.
///
/// # Errors
///
/// As clone(2), if the thread cannot be started.
pub fn spawn<F>(name: &str, stack: usize, run: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    // std's code around a thread is there once, not once for each closure.
    spawn_boxed(name, stack, Box::new(run))
}

#[inline(never)]
fn spawn_boxed(
    name: &str,
    stack: usize,
    run: Box<dyn FnOnce() + Send>,
) -> io::Result<JoinHandle<()>> {
    let builder = Builder::new().name(name.to_owned()).stack_size(stack);
    builder.spawn(run)
}

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
