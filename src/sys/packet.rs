//! An interface's name in, its packets with kernel times out: AF_PACKET sockets of Linux.
//!
//! Read packet(7) and socket(7) (SO_TIMESTAMPNS) first. std links the C library already; these are its declarations.
#![allow(unsafe_code)]

use crate::time::WallTime;
use std::ffi::{c_char, c_int, c_long, c_uint, c_void, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const AF_PACKET: c_int = 17;
const SOCK_RAW: c_int = 3;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64")))]
const SOL_SOCKET: c_int = 1;
#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
const SOL_SOCKET: c_int = 0xffff;
const SO_RCVBUFFORCE: c_int = 33;
const SO_ATTACH_FILTER: c_int = 26;
/// Also the type of the control message: two C longs, seconds and nanoseconds.
const SO_TIMESTAMPNS: c_int = 35;
const SOL_PACKET: c_int = 263;
const PACKET_STATISTICS: c_int = 6;
const PACKET_ADD_MEMBERSHIP: c_int = 1;
const PACKET_MR_PROMISC: u16 = 1;
const ETH_P_ALL: u16 = 3;
const PACKET_OUTGOING: u8 = 4;
const MSG_TRUNC: c_int = 0x20;

/// Room for a burst while the reader is off the processor: a few milliseconds at 10 Gbit/s.
const RECEIVE_BUFFER: c_int = 16 << 20;

#[repr(C)]
#[derive(Default)]
struct SockaddrLl {
    family: u16,
    protocol: u16,
    ifindex: c_int,
    hatype: u16,
    pkttype: u8,
    halen: u8,
    addr: [u8; 8],
}

#[repr(C)]
struct PacketMreq {
    ifindex: c_int,
    kind: u16,
    length: u16,
    address: [u8; 8],
}

/// A program of `sock_filter`s, which have 8 bytes each.
#[repr(C)]
struct SockFprog {
    length: u16,
    program: *const [u8; 8],
}

#[repr(C)]
#[derive(Default)]
struct TpacketStats {
    packets: c_uint,
    drops: c_uint,
}

#[repr(C)]
struct Iovec {
    base: *mut c_void,
    len: usize,
}

/// As the kernel has it; musl places its narrower fields so that they coincide, glibc's are the same.
#[repr(C)]
struct Msghdr {
    name: *mut c_void,
    namelen: c_uint,
    iov: *mut Iovec,
    iovlen: usize,
    control: *mut c_void,
    controllen: usize,
    flags: c_int,
}

/// The one control message that was asked for.
#[repr(C)]
#[derive(Default)]
struct TimeMessage {
    len: usize,
    level: c_int,
    kind: c_int,
    seconds: c_long,
    nanos: c_long,
}

extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, length: c_uint) -> c_int;
    fn setsockopt(
        fd: c_int,
        level: c_int,
        name: c_int,
        value: *const c_void,
        length: c_uint,
    ) -> c_int;
    fn getsockopt(
        fd: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        length: *mut c_uint,
    ) -> c_int;
    fn recvmsg(fd: c_int, message: *mut Msghdr, flags: c_int) -> isize;
    fn if_nametoindex(name: *const c_char) -> c_uint;
    fn if_indextoname(index: c_uint, name: *mut c_char) -> *mut c_char;
}

#[cfg(not(any(target_arch = "mips", target_arch = "mips64")))]
const ENETDOWN: i32 = 100;
#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
const ENETDOWN: i32 = 228;

/// Returns `true` if receiving failed because the interface went down or was removed.
pub fn is_link_down(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ENETDOWN)
}

/// IFNAMSIZ: the longest name of an interface, with its null byte.
const NAME_BYTES: usize = 16;

/// Returns the number of the interface with this name.
fn interface_index(name: &str) -> io::Result<c_int> {
    let name = CString::new(name)?;
    // SAFETY: `name` ends in a null byte and lives until after the call, which keeps no pointer.
    match unsafe { if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index as c_int),
    }
}

/// Returns the name of the interface with this number; `None` if there is none now.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0_u8; NAME_BYTES];
    // SAFETY: `name` is writable for the IFNAMSIZ bytes that the call writes at most.
    let found = unsafe { if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    let text = name.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// A packet as the kernel handed it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes that are in the buffer.
    pub kept: usize,
    /// Bytes the packet has.
    pub original: u32,
    /// The number of the interface that it passed.
    pub interface: u32,
    /// When the kernel took it, on its wall clock; `None` where it does not tell.
    pub time: Option<WallTime>,
    /// ARPHRD_ number of the interface: 1 is Ethernet, 772 loopback.
    pub hardware: u16,
    /// Sent by this host, not received.
    pub outgoing: bool,
}

/// A socket that sees the packets of one interface, or of all.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    /// 0 for all interfaces.
    ifindex: c_int,
}

impl PacketSocket {
    /// Opens it on `interface`, in promiscuous mode where the interface has one; on all interfaces
    /// if `interface` is `None`. The kernel passes only packets that `program` passes, whose
    /// instructions are a `struct sock_filter` each; all of them if it is empty.
    ///
    /// # Errors
    /// No such interface; or no right to (root or CAP_NET_RAW is needed), as `PermissionDenied`.
    pub fn open(interface: Option<&str>, program: &[[u8; 8]]) -> io::Result<Self> {
        let mut ifindex = 0;
        if let Some(interface) = interface {
            ifindex = interface_index(interface)?;
        }
        // Protocol 0: nothing arrives before the socket is bound to its interface.
        // SAFETY: integers in, a descriptor or -1 out.
        let fd = unsafe { socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened here and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&fd, SOL_SOCKET, SO_TIMESTAMPNS, &1_i32)?;
        // A smaller buffer still works, and drops are counted.
        let _ = set(&fd, SOL_SOCKET, SO_RCVBUFFORCE, &RECEIVE_BUFFER);
        if !program.is_empty() {
            // The kernel refuses one that is longer than 4096 instructions.
            let program = SockFprog {
                length: u16::try_from(program.len()).unwrap_or(u16::MAX),
                program: program.as_ptr(),
            };
            set(&fd, SOL_SOCKET, SO_ATTACH_FILTER, &program)?;
        }
        let address = SockaddrLl {
            family: AF_PACKET as u16,
            protocol: ETH_P_ALL.to_be(),
            ifindex,
            ..SockaddrLl::default()
        };
        let length = size_of::<SockaddrLl>() as c_uint;
        // SAFETY: `address` is as long as said and lives until after the call, which keeps no pointer.
        let rc = unsafe { bind(fd.as_raw_fd(), std::ptr::addr_of!(address).cast(), length) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        let promiscuous = PacketMreq {
            ifindex,
            kind: PACKET_MR_PROMISC,
            length: 0,
            address: [0; 8],
        };
        // Tunnels refuse it and need it not; all interfaces at once have no such mode.
        if ifindex != 0 {
            let _ = set(&fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous);
        }
        Ok(Self { fd, ifindex })
    }

    /// Waits for the next packet and puts as much of it as fits into `buffer`. Blocks without limit: a quiet network
    /// is not an error, and the process ends it.
    ///
    /// # Errors
    /// What the kernel says; what [`is_link_down`] tells, once, when the interface goes down or is
    /// removed. The next call waits for it to come up again; a removed one does not come back.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut from = SockaddrLl::default();
        let mut control = TimeMessage::default();
        let mut iov = Iovec {
            base: buffer.as_mut_ptr().cast(),
            len: buffer.len(),
        };
        let mut message = Msghdr {
            name: std::ptr::addr_of_mut!(from).cast(),
            namelen: size_of::<SockaddrLl>() as c_uint,
            iov: &mut iov,
            iovlen: 1,
            control: std::ptr::addr_of_mut!(control).cast(),
            controllen: size_of::<TimeMessage>(),
            flags: 0,
        };
        let length = loop {
            // SAFETY: every pointer in `message` is to a local of plain bytes, or to `buffer`, writable for the length
            // beside it, and lives until after the call.
            let length = unsafe { recvmsg(self.fd.as_raw_fd(), &mut message, MSG_TRUNC) };
            if length >= 0 {
                break length as usize;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        let stamped = message.controllen >= size_of::<TimeMessage>()
            && (control.level, control.kind) == (SOL_SOCKET, SO_TIMESTAMPNS);
        let time = stamped.then(|| {
            let seconds = u64::try_from(control.seconds).unwrap_or(0);
            let nanos = u64::try_from(control.nanos).unwrap_or(0);
            WallTime(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
        });
        Ok(Received {
            kept: length.min(buffer.len()),
            original: u32::try_from(length).unwrap_or(u32::MAX),
            interface: u32::try_from(from.ifindex).unwrap_or(0),
            time,
            hardware: from.hatype,
            outgoing: from.pkttype == PACKET_OUTGOING,
        })
    }

    /// Returns `true` if the interface with this name is still the one that the socket is bound to.
    pub fn is_on(&self, interface: &str) -> bool {
        interface_index(interface).is_ok_and(|index| index == self.ifindex)
    }

    /// Packets that found the socket's buffer full since the last call; `None` where the kernel does not tell.
    pub fn take_dropped(&self) -> Option<u64> {
        let mut stats = TpacketStats::default();
        let mut length = size_of::<TpacketStats>() as c_uint;
        let value = std::ptr::addr_of_mut!(stats).cast();
        // SAFETY: `value` is writable for `length` bytes, and any bytes are valid numbers.
        let rc = unsafe {
            getsockopt(
                self.fd.as_raw_fd(),
                SOL_PACKET,
                PACKET_STATISTICS,
                value,
                &mut length,
            )
        };
        (rc == 0).then_some(u64::from(stats.drops))
    }
}

/// Its owner may write whole frames to the interface.
impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set<T>(fd: &OwnedFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as c_uint;
    // SAFETY: `value` is readable for its own size, and the call keeps no pointer.
    let rc = unsafe {
        setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (value as *const T).cast(),
            length,
        )
    };
    match rc {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
