//! The process and its host: name, limits, memory.

use super::check;
use super::constants::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, RLIMIT_NOFILE};
use std::ffi::{c_char, c_int};
use std::io;

/// A long in glibc (without its large-file names), 64 bits on every architecture in musl.
#[cfg(not(target_env = "musl"))]
type Limit = std::ffi::c_ulong;
#[cfg(target_env = "musl")]
type Limit = u64;

#[repr(C)]
struct RLimit {
    current: Limit,
    maximum: Limit,
}

extern "C" {
    fn gethostname(name: *mut c_char, len: usize) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut RLimit) -> c_int;
    fn setrlimit(resource: c_int, limit: *const RLimit) -> c_int;
    #[cfg(target_env = "gnu")]
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
    #[cfg(target_env = "gnu")]
    fn malloc_trim(keep: usize) -> c_int;
}

/// Returns the name of this host; `None` if it has none.
pub fn host_name() -> Option<String> {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer is writable for the length given. The last byte is left out, so that a
    // zero ends the name.
    let rc = unsafe { gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let len = name.iter().position(|&byte| byte == 0)?;
    (rc == 0 && len > 0).then(|| String::from_utf8_lossy(&name[..len]).into_owned())
}

/// Returns `true` if the process has a controlling terminal.
pub fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
///
/// # Errors
///
/// As setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = RLimit {
        current: 0,
        maximum: 0,
    };
    // SAFETY: `limit` is a live struct rlimit for the call to fill.
    check(unsafe { getrlimit(RLIMIT_NOFILE, &mut limit) })?;
    if limit.current < limit.maximum {
        limit.current = limit.maximum;
        // SAFETY: `limit` is a live struct rlimit; the kernel only reads it.
        check(unsafe { setrlimit(RLIMIT_NOFILE, &limit) })?;
    }
    #[allow(clippy::unnecessary_cast)] // c_ulong is 32 bits wide on some of our targets.
    Ok(limit.current as u64)
}

/// Tunes glibc's malloc for many threads that each need little memory. Call it before any thread is
/// started.
///
/// A large buffer returns to the kernel when it is freed. By default malloc keeps all later buffers
/// as large as the first one freed, so that a thousand connections that were busy once stay large.
///
/// All threads share one heap. By default there are eight for each processor, and each grows to the
/// most that its threads ever held. Under mixed traffic an exit that uses 0.6 MiB rose to 1.8 MiB
/// within 15 minutes; with one heap it stays at 1.1 MiB. A pump's small allocations come nearly
/// always from its thread's own cache (tcache), so that a block or a connection takes no longer.
pub fn tune_malloc() {
    #[cfg(target_env = "gnu")]
    {
        const M_MMAP_THRESHOLD: c_int = -3;
        const M_ARENA_MAX: c_int = -8;
        // SAFETY: sets numbers inside malloc; called before any thread is started.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, 128 << 10);
            mallopt(M_ARENA_MAX, 1);
        }
    }
}

/// Makes glibc return free memory between used pieces to the kernel. Other C libraries need no
/// request.
///
/// The call walks the whole heap: milliseconds for tens of megabytes, during which other threads
/// may wait for the heap.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, locks the heaps itself, and moves nothing that is in use.
    unsafe {
        malloc_trim(0);
    }
}

/// Returns `true` if a call failed for want of descriptors, memory or threads, so that it is worth
/// another try later.
pub fn is_shortage(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| [ENOMEM, EAGAIN, ENFILE, EMFILE, ENOBUFS].contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_name_and_room_for_descriptors() {
        assert!(host_name().is_some_and(|name| !name.is_empty()));
        assert!(raise_descriptor_limit().unwrap() >= 256);
    }
}
