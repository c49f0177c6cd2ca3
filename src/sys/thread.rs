//! Threads that are nothing more than the C library's (pthreads(7)): std gives each of its own a second stack, for the
//! handler that names an overflow. That is two mappings and nine system calls per thread; with two threads per connection
//! it was half of the mappings that a process may have. Without it an overflow is the same SIGSEGV, but has no message.

use super::prctl;
use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// At least as large as a pthread_attr_t: that has 36 bytes where a long has 4, and 56 or 64 where it has 8.
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
}

/// Runs `run` on a new, detached thread called `name` (the kernel keeps 15 bytes of it) with `stack` bytes of stack, or
/// what the C library asks for at least. A panic ends that thread alone, after its hook; its report cannot name the thread.
///
/// # Errors
///
/// As pthread_create(3): EAGAIN where the kernel gives no thread or no mapping.
pub fn spawn<F: FnOnce() + Send + 'static>(name: String, stack: usize, run: F) -> io::Result<()> {
    let attributes = Attributes::detached(stack)?;
    let start = Box::into_raw(Box::new(Start { name, run }));
    let mut id = 0;
    // SAFETY: the attributes are initialised, `id` has room for a pthread_t, and `begin` takes what `start` points to,
    // whose only owner the new thread becomes.
    let rc = unsafe { pthread_create(&mut id, &attributes.0, begin::<F>, start.cast()) };
    if rc != 0 {
        // SAFETY: there is no thread, so this is its only owner still.
        drop(unsafe { Box::from_raw(start) });
    }
    told(rc)
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
    // The hook has told of a panic, and the frames below are C's: it goes no further. What it left half changed belongs to
    // `run`, whose guards know.
    let _ = catch_unwind(AssertUnwindSafe(run));
    std::ptr::null_mut()
}

fn set_name(name: &str) {
    const PR_SET_NAME: c_int = 15;
    let mut kept = [0_u8; 16];
    for (place, byte) in kept[..15].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    // SAFETY: this option reads at most 16 bytes, of which the last is 0. A failure leaves the name of the spawning thread.
    unsafe { prctl(PR_SET_NAME, kept.as_ptr()) };
}

/// The name of the calling thread, as far as the kernel keeps it.
pub fn name() -> String {
    const PR_GET_NAME: c_int = 16;
    let mut kept = [0_u8; 16];
    // SAFETY: this option writes at most 16 bytes, the last of them 0. A failure leaves them all 0.
    unsafe { prctl(PR_GET_NAME, kept.as_mut_ptr()) };
    let name = kept.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

struct Attributes(Room);

impl Attributes {
    fn detached(stack: usize) -> io::Result<Self> {
        const PTHREAD_CREATE_DETACHED: c_int = 1;
        let mut room = [0; 16];
        // SAFETY: there is room for the C library's attributes, which it fills in.
        told(unsafe { pthread_attr_init(&mut room) })?;
        let mut attributes = Self(room);
        let stack = stack.max(least_stack());
        // SAFETY: they were initialised above.
        told(unsafe { pthread_attr_setstacksize(&mut attributes.0, stack) })?;
        // SAFETY: as above.
        told(unsafe { pthread_attr_setdetachstate(&mut attributes.0, PTHREAD_CREATE_DETACHED) })?;
        Ok(attributes)
    }
}

/// Less is an error: glibc wants 16 KiB on most machines, but 128 on arm64, mips and PowerPC; musl 2 KiB.
fn least_stack() -> usize {
    const SC_THREAD_STACK_MIN: c_int = 75; // In both, on every architecture.
                                           // SAFETY: takes a number, returns one: -1 where it does not know.
    usize::try_from(unsafe { sysconf(SC_THREAD_STACK_MIN) }).unwrap_or(0)
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they were initialised, and nobody uses them any more.
        unsafe { pthread_attr_destroy(&mut self.0) };
    }
}

/// These functions return the error, where others leave it in errno.
fn told(rc: c_int) -> io::Result<()> {
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
    fn it_runs_under_its_name_with_what_it_was_given() {
        let (say, said) = channel();
        let given = vec![7_u64; 1000];
        spawn("a name of 20 letters".into(), STACK, move || {
            let seen = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            say.send((seen, name(), given.iter().sum::<u64>())).unwrap();
        })
        .unwrap();
        let (seen, own, sum) = said.recv_timeout(LONG).unwrap();
        let kept = "a name of 20 le";
        assert_eq!((seen.trim_end(), own.as_str(), sum), (kept, kept, 7000));
    }

    #[test]
    fn who_asks_for_less_stack_than_the_c_library_allows_gets_its_least() {
        let (say, said) = channel();
        // As 64 KiB is on arm64 with glibc.
        spawn("small".into(), 1, move || say.send(7).unwrap()).unwrap();
        assert_eq!(said.recv_timeout(LONG), Ok(7));
    }

    #[test]
    fn a_panic_ends_that_thread_alone_and_drops_what_it_held() {
        let (held, over) = channel::<()>();
        spawn("panics".into(), STACK, move || {
            let _held = held;
            panic!("on purpose");
        })
        .unwrap();
        assert_eq!(over.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_stack_that_nobody_can_have_is_an_error_and_what_was_given_is_dropped() {
        let (held, over) = channel::<()>();
        let error = spawn("huge".into(), usize::MAX / 2, move || drop(held)).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
        assert_eq!(over.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }
}
