//! System calls in, plain values out: what std cannot do. The only `unsafe` of the program.
//!
//! The C functions declared here are in the C library that std links already. Constants differ per architecture (mips
//! above all), so they stand in one table, `constants`. Functions take sockets by reference, so a descriptor cannot
//! be closed under them, and return `io::Result` or `Option`: what a kernel does not tell is `None`.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_short, c_uint, c_ulong, c_void};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

pub mod clock;
pub mod file;
#[cfg(target_os = "linux")]
pub mod packet;
pub mod receive;
mod tcp_info;
#[cfg(target_os = "linux")]
pub mod thread;
#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

pub use tcp_info::{tcp_info, TcpInfo};

/// Elsewhere threads are std's.
#[cfg(not(target_os = "linux"))]
pub mod thread {
    use std::{io, thread::Builder};

    /// As on Linux.
    ///
    /// # Errors
    ///
    /// As [`Builder::spawn`].
    pub fn spawn(
        name: String,
        stack: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let builder = Builder::new().name(name).stack_size(stack);
        builder.spawn(run).map(|_| ())
    }

    /// The name of the calling thread.
    pub fn name() -> String {
        std::thread::current().name().unwrap_or_default().into()
    }
}

/// Linux's numbers, of the architecture we are built for.
mod constants {
    use std::ffi::c_int;

    #[cfg(any(target_arch = "mips", target_arch = "mips64"))]
    mod arch {
        use std::ffi::c_int;
        pub(super) const SOL_SOCKET: c_int = 0xffff;
        pub(super) const SO_KEEPALIVE: c_int = 0x0008;
        pub(super) const SO_LINGER: c_int = 0x0080;
        pub(super) const SO_SNDTIMEO: c_int = 0x1005;
        pub(super) const RLIMIT_NOFILE: c_int = 5;
        pub(super) const SIG_BLOCK: c_int = 1;
        pub(super) const SIOCOUTQ: u32 = 0x7472;
    }
    #[cfg(not(any(target_arch = "mips", target_arch = "mips64")))]
    mod arch {
        use std::ffi::c_int;
        pub(super) const SOL_SOCKET: c_int = 1;
        pub(super) const SO_KEEPALIVE: c_int = 9;
        pub(super) const SO_LINGER: c_int = 13;
        pub(super) const SO_SNDTIMEO: c_int = 21;
        pub(super) const RLIMIT_NOFILE: c_int = 7;
        pub(super) const SIG_BLOCK: c_int = 0;
        pub(super) const SIOCOUTQ: u32 = 0x5411;
    }
    pub(super) const SOL_SOCKET: c_int = arch::SOL_SOCKET;
    pub(super) const SO_KEEPALIVE: c_int = arch::SO_KEEPALIVE;
    pub(super) const SO_LINGER: c_int = arch::SO_LINGER;
    /// The option that takes the kernel's own struct of two longs, whatever time_t the C library has.
    pub(super) const SO_SNDTIMEO: c_int = arch::SO_SNDTIMEO;
    pub(super) const RLIMIT_NOFILE: c_int = arch::RLIMIT_NOFILE;
    pub(super) const SIG_BLOCK: c_int = arch::SIG_BLOCK;
    pub(super) const SIOCOUTQ: u32 = arch::SIOCOUTQ;
    /// The same on mips; the control message that it causes has its number. Its times have 64 bits everywhere (Linux 5.1).
    pub(super) const SO_TIMESTAMPNS_NEW: c_int = 64;
    /// Its times are two longs.
    pub(super) const SO_TIMESTAMPNS_OLD: c_int = 35;
    pub(super) const IPPROTO_TCP: c_int = 6;
    pub(super) const TCP_NODELAY: c_int = 1;
    pub(super) const TCP_INFO: c_int = 11;
    pub(super) const MSG_DONTWAIT: c_int = 0x40;
    pub(super) const MSG_NOSIGNAL: c_int = 0x4000;
    pub(super) const SHUT_RD: c_int = 0;
    pub(super) const POLLIN: i16 = 0x001;
    pub(super) const POLLOUT: i16 = 0x004;
    pub(super) const POLLERR: i16 = 0x008;
    pub(super) const POLLRDHUP: i16 = 0x2000;
    pub(super) const SIGINT: c_int = 2;
    pub(super) const SIGTERM: c_int = 15;
    /// State of a closed socket in TCP_INFO (include/net/tcp_states.h).
    pub(super) const TCP_CLOSE: u8 = 7;
    pub(super) const TIME_ERROR: c_int = 5;
}
use constants::*;

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

#[repr(C)]
struct Linger {
    onoff: c_int,
    linger: c_int,
}

/// As wide as a long in glibc (without its large-file names), 64 bits wide on every architecture in musl.
#[cfg(not(target_env = "musl"))]
type Limit = c_ulong;
#[cfg(target_env = "musl")]
type Limit = u64;

#[repr(C)]
struct RLimit {
    current: Limit,
    maximum: Limit,
}

/// glibc and musl both give it 1024 bits on every architecture.
#[repr(C, align(8))]
struct SigSet([u8; 128]);

/// `struct timex` begins with the same row of longs everywhere (`modes` is an int, padded to one); the rest is room.
#[repr(C)]
struct Timex([c_long; 64]);
const TIMEX_MAXERROR: usize = 3; // microseconds

extern "C" {
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: c_uint)
        -> c_int;
    fn getsockopt(
        fd: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        len: *mut c_uint,
    ) -> c_int;
    fn send(fd: c_int, buffer: *const c_void, len: usize, flags: c_int) -> isize;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn connect(fd: c_int, address: *const c_void, len: c_uint) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn gethostname(name: *mut c_char, len: usize) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut RLimit) -> c_int;
    fn setrlimit(resource: c_int, limit: *const RLimit) -> c_int;
    fn adjtimex(timex: *mut Timex) -> c_int;
    fn sigemptyset(set: *mut SigSet) -> c_int;
    fn sigaddset(set: *mut SigSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
    fn sigwait(set: *const SigSet, signal: *mut c_int) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    #[cfg(target_env = "gnu")]
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
    #[cfg(target_env = "gnu")]
    fn malloc_trim(keep: usize) -> c_int;
    #[cfg(target_os = "linux")]
    fn prctl(option: c_int, ...) -> c_int;
    #[cfg(target_os = "linux")]
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

fn check(rc: c_int) -> io::Result<()> {
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_option<T>(fd: RawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a live, plain C value and its exact length is given; the kernel only reads it.
    check(unsafe {
        setsockopt(
            fd,
            level,
            name,
            (value as *const T).cast(),
            size_of::<T>() as c_uint,
        )
    })
}

/// Sends as much of `bytes` as the kernel takes at once; [`io::ErrorKind::WouldBlock`] where it takes nothing.
///
/// # Errors
///
/// As send(2); never SIGPIPE.
pub fn send_now(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    send_with(socket, bytes, MSG_DONTWAIT)
}

/// Sends, waiting for room as long as the socket's write timeout allows.
///
/// # Errors
///
/// As send(2); [`io::ErrorKind::WouldBlock`] when the timeout passes without a byte taken.
pub fn send_waiting(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    send_with(socket, bytes, 0)
}

fn send_with(socket: &TcpStream, bytes: &[u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the descriptor stays open while `socket` is borrowed; the kernel reads `bytes.len()` bytes that are there.
    let sent = unsafe {
        send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags | MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Makes the coming close of the socket a reset (SO_LINGER of 0).
///
/// # Errors
///
/// As setsockopt(2).
pub fn reset_on_close(socket: &TcpStream) -> io::Result<()> {
    let linger = Linger {
        onoff: 1,
        linger: 0,
    };
    set_option(socket.as_raw_fd(), SOL_SOCKET, SO_LINGER, &linger)
}

/// Resets the connection now, whoever else holds the socket, and wakes those who wait for it: a connect to no address
/// (connect(2), AF_UNSPEC) does at once what a close with SO_LINGER of 0 does when the last holder lets go.
///
/// # Errors
///
/// As connect(2); kernels 6.4 to 6.6 refuse while another thread is blocked in a receive or a send.
pub fn reset_now(socket: &TcpStream) -> io::Result<()> {
    let unspecified = [0_u8; 16]; // A struct sockaddr of the family AF_UNSPEC, which is 0 everywhere.
    let len = unspecified.len() as c_uint;
    // SAFETY: the descriptor stays open while `socket` is borrowed; the kernel reads `len` bytes that are there.
    check(unsafe { connect(socket.as_raw_fd(), unspecified.as_ptr().cast(), len) })
}

/// Lets the kernel probe an idle peer, so that one that vanished without a word is noticed (SO_KEEPALIVE).
///
/// # Errors
///
/// As setsockopt(2).
pub fn keep_alive(fd: &impl AsRawFd) -> io::Result<()> {
    let on: c_int = 1;
    set_option(fd.as_raw_fd(), SOL_SOCKET, SO_KEEPALIVE, &on)
}

/// Sends small segments at once (TCP_NODELAY); a listener hands it down to what it accepts.
///
/// # Errors
///
/// As setsockopt(2).
pub fn no_delay(fd: &impl AsRawFd) -> io::Result<()> {
    let on: c_int = 1;
    set_option(fd.as_raw_fd(), IPPROTO_TCP, TCP_NODELAY, &on)
}

/// Lets a blocked send come back after `timeout` without progress (SO_SNDTIMEO); handed down by a listener too.
///
/// # Errors
///
/// As setsockopt(2).
pub fn send_timeout(fd: &impl AsRawFd, timeout: Duration) -> io::Result<()> {
    let micros = timeout
        .subsec_micros()
        .max(u32::from(timeout.as_secs() == 0)); // 0 would mean for ever.
    let seconds = c_long::try_from(timeout.as_secs()).unwrap_or(c_long::MAX);
    let value: [c_long; 2] = [seconds, micros as c_long];
    set_option(fd.as_raw_fd(), SOL_SOCKET, SO_SNDTIMEO, &value)
}

/// Whether the kernel calls the socket closed: then an end of file is not a half-close. `None` where it does not tell.
pub fn is_closed(socket: &TcpStream) -> Option<bool> {
    let mut state = 0xff_u8; // tcpi_state is the first byte of struct tcp_info; the kernel cuts to what we ask for.
    let mut len: c_uint = 1;
    // SAFETY: the descriptor stays open while `socket` is borrowed; one byte is writable and one is announced.
    let rc = unsafe {
        getsockopt(
            socket.as_raw_fd(),
            IPPROTO_TCP,
            TCP_INFO,
            (&mut state as *mut u8).cast(),
            &mut len,
        )
    };
    (rc == 0 && len >= 1).then_some(state == TCP_CLOSE)
}

fn poll_one(fd: RawFd, events: c_short, timeout: Option<Duration>) -> io::Result<c_short> {
    let mut entry = PollFd {
        fd,
        events,
        revents: 0,
    };
    let millis = timeout.map_or(-1, |t| c_int::try_from(t.as_millis()).unwrap_or(c_int::MAX));
    // SAFETY: one live entry is passed and one is announced.
    let rc = unsafe { poll(&mut entry, 1, millis) };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(entry.revents)
    }
}

/// Bytes that were sent and that the peer has not acknowledged; 0 where the kernel does not tell.
pub fn unacknowledged(socket: &TcpStream) -> usize {
    let mut bytes: c_int = 0;
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the descriptor stays open while `socket` is borrowed; the request writes one int, which `bytes` is.
        unsafe {
            ioctl(
                socket.as_raw_fd(),
                c_ulong::from(SIOCOUTQ),
                &mut bytes as *mut c_int,
            )
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, &mut bytes);
    usize::try_from(bytes).unwrap_or(0)
}

/// Whether a send of a few kilobytes would find room now.
pub fn is_writable(socket: &TcpStream) -> bool {
    poll_one(socket.as_raw_fd(), POLLOUT, Some(Duration::ZERO))
        .is_ok_and(|seen| seen & POLLOUT != 0)
}

/// Whether a read would not wait: there are bytes, or the end.
pub fn is_readable(socket: &TcpStream) -> bool {
    poll_one(socket.as_raw_fd(), POLLIN, Some(Duration::ZERO)).is_ok_and(|seen| seen != 0)
}

/// Waits, at most `timeout`, until a read would not wait; `false` where it still would.
pub fn wait_readable(socket: &TcpStream, timeout: Duration) -> bool {
    // What poll(2) cannot tell, the read will.
    poll_one(socket.as_raw_fd(), POLLIN, Some(timeout)).map_or(true, |seen| seen != 0)
}

/// Waits, at most `timeout`, until both directions of the socket are shut or it failed: `None` where neither came, else
/// whether it failed (with an error not yet consumed).
///
/// # Errors
///
/// As poll(2).
pub fn wait_closed(socket: &TcpStream, timeout: Duration) -> io::Result<Option<bool>> {
    match poll_one(socket.as_raw_fd(), 0, Some(timeout)) {
        Ok(0) => Ok(None),
        Ok(seen) => Ok(Some(seen & POLLERR != 0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until the peer has shut its side, at most `timeout`.
pub fn wait_peer_shut(socket: &TcpStream, timeout: Duration) {
    // Whatever comes of it, the caller closes next.
    let _ = poll_one(socket.as_raw_fd(), POLLRDHUP, Some(timeout));
}

/// Wakes a thread blocked in `accept`, for good.
pub fn stop_accepting(listener: &TcpListener) {
    // SAFETY: the descriptor stays open while `listener` is borrowed. A failure means that it does not listen any more.
    unsafe { shutdown(listener.as_raw_fd(), SHUT_RD) };
}

/// Listens again with a longer backlog than std's 128; the kernel cuts it to net.core.somaxconn.
///
/// # Errors
///
/// As listen(2).
pub fn widen_backlog(listener: &TcpListener) -> io::Result<()> {
    // SAFETY: the descriptor stays open while `listener` is borrowed.
    check(unsafe { listen(listener.as_raw_fd(), 4096) })
}

/// The name of this host; `None` where it has none.
pub fn host_name() -> Option<String> {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer is writable for the length given; the last byte is kept out, so it ends in a zero.
    let rc = unsafe { gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let len = name.iter().position(|&byte| byte == 0)?;
    (rc == 0 && len > 0).then(|| String::from_utf8_lossy(&name[..len]).into_owned())
}

/// Raises the soft limit of open descriptors to the hard one; what it is then.
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

/// The kernel's bound of the wall clock's error; `None` where it does not call the clock synchronised.
pub fn clock_error() -> Option<Duration> {
    let mut timex = Timex([0; 64]);
    // SAFETY: `modes` is 0, so the call only reads the clock; 64 longs are more than any struct timex has.
    let state = unsafe { adjtimex(&mut timex) };
    if !(0..TIME_ERROR).contains(&state) {
        return None;
    }
    u64::try_from(timex.0[TIMEX_MAXERROR])
        .ok()
        .map(Duration::from_micros)
}

/// Fits glibc's malloc to a process of many threads, each of which needs little of it; before any thread is started.
///
/// A large buffer goes back to the kernel when it is freed. By default the first one that is freed teaches malloc to keep
/// all later ones of that size, and a thousand connections that were busy once stay large for ever.
///
/// All threads share one heap. By default there are eight for each processor, and each goes on growing to what its threads
/// ever had at once, in 64 MiB of addresses: under mixed traffic an exit that uses 0.6 MiB rose for 15 minutes, to 1.8 MiB,
/// and a relay was at 3 MiB; with one heap both have 1.1 MiB, reached within 3 minutes. What a pump allocates is small and
/// comes from its thread's own cache (tcache) nearly always: with every block marked, the time on two processors that a
/// block or a connection takes is no longer.
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

/// Makes glibc give back what lies free between pieces that are in use. It walks the whole heap: milliseconds for tens of
/// megabytes, while others may wait for the heap. Other C libraries do it by themselves, or do not.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, locks the heaps itself, and moves nothing that is in use.
    unsafe {
        malloc_trim(0);
    }
}

/// Lets the calling thread's timed waits end when they are due, not up to 50 us later (the kernel's timer slack).
pub fn precise_timers() {
    const PR_SET_TIMERSLACK: c_int = 29;
    let one_nanosecond: c_ulong = 1;
    #[cfg(target_os = "linux")]
    // SAFETY: this option takes one unsigned long and touches no memory of ours. A failure leaves the default.
    unsafe {
        prctl(PR_SET_TIMERSLACK, one_nanosecond);
    }
}

/// SIGINT and SIGTERM, blocked in the calling thread and all it spawns, to be waited for in one thread.
pub struct StopSignals(SigSet);

impl StopSignals {
    /// Blocks them. Call before any thread is spawned.
    ///
    /// # Errors
    ///
    /// As pthread_sigmask(3).
    pub fn block() -> io::Result<Self> {
        let set = stop_set();
        // SAFETY: `set` is an initialised signal set; the old mask is not asked for.
        let rc = unsafe { pthread_sigmask(SIG_BLOCK, &set, std::ptr::null_mut()) };
        if rc == 0 {
            Ok(Self(set))
        } else {
            Err(io::Error::from_raw_os_error(rc))
        }
    }

    /// Waits for the next of them.
    pub fn wait(&self) {
        let mut seen = 0;
        loop {
            // SAFETY: the set was initialised when it was blocked, and `seen` is a live int.
            if unsafe { sigwait(&self.0, &mut seen) } == 0 {
                return;
            }
        }
    }
}

fn stop_set() -> SigSet {
    let mut set = SigSet([0; 128]);
    // SAFETY: `set` is large enough for the C library's sigset_t. A signal whose handler is SIG_IGN (SIGINT under nohup or
    // of a background job) stays out: a blocked one would be queued even so. `signal` puts back what it returned.
    unsafe {
        sigemptyset(&mut set);
        for number in [SIGINT, SIGTERM] {
            let before = signal(number, SIG_DFL);
            if before == SIG_IGN {
                signal(number, SIG_IGN);
            } else {
                sigaddset(&mut set, number);
            }
        }
    }
    set
}

/// Whether accept or a spawn failed for want of descriptors, memory or threads: worth a rest and another try.
pub fn is_shortage(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const EAGAIN: i32 = 11;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: [i32; 2] = [105, 132]; // the second on mips
    error.raw_os_error().is_some_and(|code| {
        [ENOMEM, EAGAIN, ENFILE, EMFILE].contains(&code) || ENOBUFS.contains(&code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    const LONG: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_reset_is_told_from_a_half_close() {
        let (near, far) = pair();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!((&far).read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(is_closed(&far), Some(false));
        reset_on_close(&near).unwrap();
        drop(near);
        assert_eq!(
            wait_closed(&far, LONG).unwrap(),
            Some(true),
            "a reset is an error"
        );
        assert_eq!(is_closed(&far), Some(true));
    }

    #[test]
    fn a_reset_now_needs_no_close_and_wakes_who_waits() {
        let (near, far) = pair();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!((&near).read(&mut [0; 8]).unwrap(), 0);
        std::thread::scope(|scope| {
            // Half-closed: nothing is left to read, and only the reset ends the wait.
            let waiter = scope.spawn(|| wait_closed(&near, LONG).unwrap());
            reset_now(&near).unwrap();
            assert!(waiter.join().unwrap().is_some());
        });
        let error = (&far).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_send_now_takes_what_fits_and_then_would_block() {
        let (near, far) = pair();
        assert!(is_writable(&near));
        let block = vec![7; 1 << 20];
        let mut taken = 0;
        let error = loop {
            match send_now(&near, &block) {
                Ok(sent) => taken += sent,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(taken > 0 && !is_writable(&near));
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let mut seen = Vec::new();
        (&far).read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), taken);
    }

    #[test]
    fn both_sides_shut_is_a_close_without_error() {
        let (near, far) = pair();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        (&far).write_all(b"x").unwrap();
        assert_eq!((&near).read(&mut [0; 8]).unwrap(), 1);
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(wait_closed(&far, LONG).unwrap(), Some(false));
    }

    #[test]
    fn a_listener_is_woken_out_of_accept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        widen_backlog(&listener).unwrap();
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept().is_err());
            stop_accepting(&listener);
            assert!(accepting.join().unwrap());
        });
    }

    #[test]
    fn the_host_has_a_name_and_room_for_descriptors() {
        assert!(host_name().is_some_and(|name| !name.is_empty()));
        assert!(raise_descriptor_limit().unwrap() >= 256);
    }
}
