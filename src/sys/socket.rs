//! Options, sends, resets and waits of TCP sockets.

use super::check;
use super::constants::{
    AF_INET, AF_INET6, IPPROTO_IPV6, IPPROTO_TCP, IPV6_V6ONLY, MSG_DONTWAIT, MSG_NOSIGNAL, POLLERR,
    POLLIN, POLLOUT, POLLRDHUP, SHUT_RD, SIOCOUTQ, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET,
    SO_KEEPALIVE, SO_LINGER, SO_REUSEADDR, SO_SNDTIMEO, TCP_NODELAY,
};
use std::ffi::{c_int, c_long, c_short, c_uint, c_ulong, c_void};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

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

/// A `struct sockaddr_in` or `sockaddr_in6`: its bytes and their number.
pub(super) struct RawAddress([u8; 28], c_uint);

impl RawAddress {
    pub(super) fn of(address: SocketAddr) -> Self {
        let mut raw = [0; 28];
        raw[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len) = match address {
            SocketAddr::V4(v4) => {
                raw[4..8].copy_from_slice(&v4.ip().octets());
                (AF_INET, 16)
            }
            SocketAddr::V6(v6) => {
                raw[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                raw[8..24].copy_from_slice(&v6.ip().octets());
                raw[24..].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (AF_INET6, 28)
            }
        };
        raw[..2].copy_from_slice(&family.to_ne_bytes());
        Self(raw, len)
    }

    /// Calls bind(2).
    pub(super) fn bind(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: the bytes live until after the call, which keeps no pointer, and are as many as
        // given.
        check(unsafe { bind(fd, self.0.as_ptr().cast(), self.1) })
    }

    /// Calls connect(2).
    pub(super) fn connect(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: as for `bind`.
        check(unsafe { connect(fd, self.0.as_ptr().cast(), self.1) })
    }
}

extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, len: c_uint) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: c_uint)
        -> c_int;
    fn send(fd: c_int, buffer: *const c_void, len: usize, flags: c_int) -> isize;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn connect(fd: c_int, address: *const c_void, len: c_uint) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    #[cfg(target_os = "linux")]
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

/// Sets an option of a socket. `T` is the plain C value that the option takes.
pub(super) fn set_option<T>(fd: RawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a live, plain C value and its exact length is given; the kernel only reads
    // it.
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

/// Sets an option of a socket that takes bytes.
pub(super) fn set_bytes(fd: RawFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let len = value.len() as c_uint;
    // SAFETY: the kernel reads the `len` bytes of `value`, which live until after the call.
    check(unsafe { setsockopt(fd, level, name, value.as_ptr().cast(), len) })
}

/// Opens a socket.
pub(super) fn open(family: u16, kind: c_int) -> io::Result<OwnedFd> {
    // SAFETY: integers in, a descriptor or -1 out.
    let fd = unsafe { socket(family.into(), kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened here and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends as much of `bytes` as the kernel takes at once.
///
/// # Errors
///
/// As send(2), without SIGPIPE; [`io::ErrorKind::WouldBlock`] if the kernel takes nothing.
pub fn send_now(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    send_with(socket, bytes, MSG_DONTWAIT)
}

/// Sends, and waits for room up to the write timeout of the socket.
///
/// # Errors
///
/// As send(2); [`io::ErrorKind::WouldBlock`] when the timeout passes without a byte taken.
pub fn send_waiting(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    send_with(socket, bytes, 0)
}

fn send_with(socket: &TcpStream, bytes: &[u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the descriptor stays open while `socket` is borrowed; the kernel reads the
    // `bytes.len()` bytes.
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

/// Turns the next close of the socket into a reset (SO_LINGER of 0).
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

/// Resets the connection now, even if other threads hold the socket, and wakes those that wait for
/// it.
///
/// A connect to no address (connect(2), AF_UNSPEC) acts at once. A close with SO_LINGER of 0 acts
/// when the last descriptor is closed.
///
/// # Errors
///
/// As connect(2); kernels 6.4 to 6.6 refuse while another thread is blocked in a receive or a send.
pub fn reset_now(socket: &TcpStream) -> io::Result<()> {
    // A struct sockaddr of the family AF_UNSPEC, which is 0 everywhere.
    let unspecified = [0_u8; 16];
    let len = unspecified.len() as c_uint;
    // SAFETY: the descriptor stays open while `socket` is borrowed; the kernel reads `len` bytes
    // that are there.
    check(unsafe { connect(socket.as_raw_fd(), unspecified.as_ptr().cast(), len) })
}

/// Lets the kernel probe an idle peer and notice one that vanished (SO_KEEPALIVE).
///
/// # Errors
///
/// As setsockopt(2).
pub fn keep_alive(fd: &impl AsRawFd) -> io::Result<()> {
    let on: c_int = 1;
    set_option(fd.as_raw_fd(), SOL_SOCKET, SO_KEEPALIVE, &on)
}

/// Sends small segments at once (TCP_NODELAY). Accepted sockets inherit the option from their
/// listener.
///
/// # Errors
///
/// As setsockopt(2).
pub fn no_delay(fd: &impl AsRawFd) -> io::Result<()> {
    let on: c_int = 1;
    set_option(fd.as_raw_fd(), IPPROTO_TCP, TCP_NODELAY, &on)
}

/// Ends a blocked send after `timeout` without progress (SO_SNDTIMEO). Accepted sockets inherit the
/// option.
///
/// # Errors
///
/// As setsockopt(2).
pub fn send_timeout(fd: &impl AsRawFd, timeout: Duration) -> io::Result<()> {
    let micros = timeout
        .subsec_micros()
        .max(u32::from(timeout.as_secs() == 0)); // 0 would mean no limit.
    let seconds = c_long::try_from(timeout.as_secs()).unwrap_or(c_long::MAX);
    let value: [c_long; 2] = [seconds, micros as c_long];
    set_option(fd.as_raw_fd(), SOL_SOCKET, SO_SNDTIMEO, &value)
}

pub(super) fn poll_one(
    fd: RawFd,
    events: c_short,
    timeout: Option<Duration>,
) -> io::Result<c_short> {
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

/// Returns the number of bytes sent and not acknowledged by the peer; 0 if the kernel does not
/// know.
pub fn unacknowledged(socket: &TcpStream) -> usize {
    let mut bytes: c_int = 0;
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the descriptor stays open while `socket` is borrowed; the request writes one int,
        // which `bytes` is.
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

/// Returns `true` if a send of a few kilobytes would find room now.
pub fn is_writable(socket: &TcpStream) -> bool {
    poll_one(socket.as_raw_fd(), POLLOUT, Some(Duration::ZERO))
        .is_ok_and(|seen| seen & POLLOUT != 0)
}

/// Returns `true` if a read would not block: there are bytes, or the end.
pub fn is_readable(socket: &TcpStream) -> bool {
    poll_one(socket.as_raw_fd(), POLLIN, Some(Duration::ZERO)).is_ok_and(|seen| seen != 0)
}

/// Waits, at most `timeout`, until a read would not block; returns `false` if it still would.
pub fn wait_readable(fd: &impl AsRawFd, timeout: Duration) -> bool {
    // The read reports an error of poll(2) too.
    poll_one(fd.as_raw_fd(), POLLIN, Some(timeout)).map_or(true, |seen| seen != 0)
}

/// Waits, at most `timeout`, until both directions of the socket are shut or it failed.
///
/// Returns `None` if neither happened, and `Some(true)` for a failure whose error is not yet
/// consumed.
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

/// Waits, at most `timeout`, until the peer has shut its side.
pub fn wait_peer_shut(socket: &TcpStream, timeout: Duration) {
    // The caller closes next, whatever the outcome.
    let _ = poll_one(socket.as_raw_fd(), POLLRDHUP, Some(timeout));
}

/// Wakes a thread blocked in `accept` and makes all later calls of it fail.
pub fn stop_accepting(listener: &TcpListener) {
    // SAFETY: the descriptor stays open while `listener` is borrowed. A failure means that it
    // listens no more.
    unsafe { shutdown(listener.as_raw_fd(), SHUT_RD) };
}

/// Listens on an address. The wildcard of IPv6 accepts IPv4 too, whatever net.ipv6.bindv6only is.
///
/// # Errors
///
/// As socket(2), bind(2) and listen(2).
pub fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() != Ipv6Addr::UNSPECIFIED {
        return TcpListener::bind(address);
    }
    let fd = open(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC)?;
    let (on, off): (c_int, c_int) = (1, 0);
    set_option(fd.as_raw_fd(), SOL_SOCKET, SO_REUSEADDR, &on)?;
    set_option(fd.as_raw_fd(), IPPROTO_IPV6, IPV6_V6ONLY, &off)?;
    RawAddress::of(address).bind(fd.as_raw_fd())?;
    let listener = TcpListener::from(fd);
    widen_backlog(&listener)?;
    Ok(listener)
}

/// Listens again with a longer backlog than std's 128. The kernel cuts it to net.core.somaxconn.
///
/// # Errors
///
/// As listen(2).
pub fn widen_backlog(listener: &TcpListener) -> io::Result<()> {
    listen_again(listener, 4096)
}

/// Calls listen(2).
pub(super) fn listen_again(listener: &TcpListener, backlog: c_int) -> io::Result<()> {
    // SAFETY: the descriptor stays open while `listener` is borrowed.
    check(unsafe { listen(listener.as_raw_fd(), backlog) })
}

#[cfg(test)]
mod tests {
    use super::super::is_closed;
    use super::*;
    use std::io::{Read, Write};

    const LONG: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_reset_and_a_half_close_are_distinguished() {
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
    fn a_reset_now_needs_no_close_and_wakes_a_waiting_thread() {
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
    fn the_wildcard_of_ipv6_accepts_ipv4_even_where_bindv6only_is_set() {
        // In a network namespace of its own, where the sysctl can be set; without the right to
        // one, with the system's value.
        const TEST: &str = "sys::socket::tests::\
            the_wildcard_of_ipv6_accepts_ipv4_even_where_bindv6only_is_set";
        const INNER: &str = "BOTH_FAMILIES_INNER";
        if std::env::var_os(INNER).is_none() {
            let script = "ip link set lo up && sysctl -qw net.ipv6.bindv6only=1 && exec \"$@\"";
            let own = std::env::current_exe().unwrap();
            let inner = std::process::Command::new("unshare")
                .args(["-rn", "sh", "-c", script, "sh"])
                .arg(own)
                .args(["--exact", TEST])
                .env(INNER, "1")
                .output();
            // Exit code 101 is a failed test; others mean that there is no namespace to be had.
            if let Some(output) = inner
                .ok()
                .filter(|o| matches!(o.status.code(), Some(0 | 101)))
            {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(
                    output.status.success() && text.contains("1 passed"),
                    "{text}"
                );
            }
        }
        let Ok(listener) = listen_on((Ipv6Addr::UNSPECIFIED, 0).into()) else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            let near = TcpStream::connect((address, port)).unwrap();
            let peer = listener.accept().unwrap().1;
            assert_eq!(peer.port(), near.local_addr().unwrap().port());
        }
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
}
