//! Threads of the C library (pthreads(7)), without those additions of std that cost mappings.
//!
//! std gives each thread a second stack, for the handler that names an overflow: two mappings and
//! nine system calls. With two threads per connection these were half of the mappings that a
//! process may have. Without the handler an overflow is the same SIGSEGV, without a message.

use super::constants::{PR_GET_NAME, PR_SET_NAME, PR_SET_TIMERSLACK};
use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// At least as large as a pthread_attr_t: that has 36 bytes where a long has 4, and 56 or 64 where
/// it has 8.
type Room = [c_ulong; 16];

extern "C" {
    fn pthread_create(
        id: *mut usize,
        attributes: *const Room,
        begin: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
    fn pthread_attr_init(attributes: *mut Room) -> c_int;
    fn pthread_attr_destroy(attributes: *mut Room) -> c_int;
    fn pthread_attr_setstacksize(attributes: *mut Room, size: usize) -> c_int;
    fn pthread_attr_setdetachstate(attributes: *mut Room, state: c_int) -> c_int;
    fn sysconf(name: c_int) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
}

/// Runs `run` on a new, detached thread called `name`, of which the kernel keeps 15 bytes.
///
/// The stack has `stack` bytes, or the C library's minimum. A panic ends that thread alone, after
/// its hook, whose report cannot name the thread.
///
/// # Errors
///
/// As pthread_create(3): EAGAIN if the kernel has no thread or no mapping left.
pub fn spawn<F: FnOnce() + Send + 'static>(name: String, stack: usize, run: F) -> io::Result<()> {
    let attributes = Attributes::detached(stack)?;
    let start = Box::into_raw(Box::new(Start { name, run }));
    let mut id = 0;
    // SAFETY: the attributes are initialised, `id` has room for a pthread_t, and `begin` takes what
    // `start` points to, whose only owner the new thread becomes.
    let rc = unsafe { pthread_create(&mut id, &attributes.0, begin::<F>, start.cast()) };
    if rc != 0 {
        // SAFETY: no thread was created, so this is still the only owner.
        drop(unsafe { Box::from_raw(start) });
    }
    result(rc)
}

struct Start<F> {
    name: String,
    run: F,
}

extern "C" fn begin<F: FnOnce() + Send + 'static>(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made it of a box of this type and gave it to this thread alone.
    let start = unsafe { Box::from_raw(argument.cast::<Start<F>>()) };
    let Start { name, run } = *start;
    set_name(&name);
    drop(name);
    // The hook has reported a panic. It must not unwind into the frames of C below. Guards in `run`
    // handle the state that it left half changed.
    let _ = catch_unwind(AssertUnwindSafe(run));
    std::ptr::null_mut()
}

fn set_name(name: &str) {
    let mut kept = [0_u8; 16];
    for (place, byte) in kept[..15].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    // SAFETY: this option reads at most 16 bytes, of which the last is 0. A failure leaves the name
    // of the spawning thread.
    unsafe { prctl(PR_SET_NAME, kept.as_ptr()) };
}

/// Returns the name of the calling thread, as far as the kernel keeps it.
pub fn name() -> String {
    let mut kept = [0_u8; 16];
    // SAFETY: this option writes at most 16 bytes, the last of them 0. A failure leaves them all 0.
    unsafe { prctl(PR_GET_NAME, kept.as_mut_ptr()) };
    let name = kept.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Lets the calling thread's timed waits end when they are due, not up to 50 us later (the kernel's
/// timer slack).
pub fn precise_timers() {
    let one_nanosecond: c_ulong = 1;
    // SAFETY: this option takes one unsigned long and touches no memory of ours. A failure leaves
    // the default.
    unsafe { prctl(PR_SET_TIMERSLACK, one_nanosecond) };
}

struct Attributes(Room);

impl Attributes {
    fn detached(stack: usize) -> io::Result<Self> {
        const PTHREAD_CREATE_DETACHED: c_int = 1;
        let mut room = [0; 16];
        // SAFETY: there is room for the C library's attributes, which it fills in.
        result(unsafe { pthread_attr_init(&mut room) })?;
        let mut attributes = Self(room);
        let stack = stack.max(least_stack());
        // SAFETY: they were initialised above.
        result(unsafe { pthread_attr_setstacksize(&mut attributes.0, stack) })?;
        // SAFETY: as above.
        result(unsafe { pthread_attr_setdetachstate(&mut attributes.0, PTHREAD_CREATE_DETACHED) })?;
        Ok(attributes)
    }
}

/// Returns the smallest stack that the C library accepts, in bytes.
///
/// glibc: 16 KiB on most machines, 128 on arm64, mips and PowerPC; musl: 2 KiB.
fn least_stack() -> usize {
    // The same in both C libraries, on every architecture.
    const SC_THREAD_STACK_MIN: c_int = 75;
    // SAFETY: takes a number and returns one, -1 for an unknown value.
    usize::try_from(unsafe { sysconf(SC_THREAD_STACK_MIN) }).unwrap_or(0)
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: the attributes were initialised and are not used after this.
        unsafe { pthread_attr_destroy(&mut self.0) };
    }
}

/// Converts the result of a function of pthreads, which returns its error instead of setting errno.
fn result(rc: c_int) -> io::Result<()> {
    match rc {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{channel, RecvTimeoutError};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(10);
    const STACK: usize = 64 << 10;

    #[test]
    fn a_thread_runs_under_its_name_with_its_arguments() {
        let (sender, receiver) = channel();
        let given = vec![7_u64; 1000];
        spawn("a name of 20 letters".into(), STACK, move || {
            let seen = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            sender
                .send((seen, name(), given.iter().sum::<u64>()))
                .unwrap();
        })
        .unwrap();
        let (seen, own, sum) = receiver.recv_timeout(LONG).unwrap();
        let kept = "a name of 20 le";
        assert_eq!((seen.trim_end(), own.as_str(), sum), (kept, kept, 7000));
    }

    #[test]
    fn a_stack_below_the_minimum_of_the_c_library_becomes_that_minimum() {
        let (sender, receiver) = channel();
        // As 64 KiB is on arm64 with glibc.
        spawn("small".into(), 1, move || sender.send(7).unwrap()).unwrap();
        assert_eq!(receiver.recv_timeout(LONG), Ok(7));
    }

    #[test]
    fn a_panic_ends_its_thread_alone_and_drops_its_values() {
        let (held, over) = channel::<()>();
        spawn("panics".into(), STACK, move || {
            let _held = held;
            panic!("on purpose");
        })
        .unwrap();
        assert_eq!(over.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn an_impossible_stack_is_an_error_and_the_closure_is_dropped() {
        let (held, over) = channel::<()>();
        let error = spawn("huge".into(), usize::MAX / 2, move || drop(held)).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
        assert_eq!(over.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }
}
