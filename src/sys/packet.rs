//! Packets of one interface with kernel times: AF_PACKET sockets of Linux (packet(7), socket(7)).

use super::check;
use super::constants::{
    AF_PACKET, ENETDOWN, ETH_P_ALL, MSG_TRUNC, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC,
    PACKET_OUTGOING, PACKET_STATISTICS, SOCK_CLOEXEC, SOCK_RAW, SOL_PACKET, SOL_SOCKET,
    SO_ATTACH_FILTER, SO_RCVBUFFORCE,
};
use super::receive::{keep_arrivals, receive_message};
use super::socket::set_option;
use crate::time::WallTime;
use std::ffi::{c_char, c_int, c_uint, c_void, CString};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, length: c_uint) -> c_int;
    fn getsockopt(
        fd: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        length: *mut c_uint,
    ) -> c_int;
    fn if_nametoindex(name: *const c_char) -> c_uint;
    fn if_indextoname(index: c_uint, name: *mut c_char) -> *mut c_char;
}

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

/// A packet of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Number of its bytes in the buffer.
    pub kept: usize,
    /// Number of its bytes on the wire.
    pub original: u32,
    /// The number of the interface that it passed.
    pub interface: u32,
    /// Arrival on the kernel's wall clock; `None` if the kernel did not report it.
    pub time: Option<WallTime>,
    /// ARPHRD_ number of the interface: 1 for Ethernet, 772 for loopback.
    pub hardware: u16,
    /// `true` if this host sent it.
    pub outgoing: bool,
}

/// A socket that receives the packets of one interface, or of all.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    /// 0 for all interfaces.
    ifindex: c_int,
}

impl PacketSocket {
    /// Opens a socket on `interface`, in promiscuous mode if the interface has one; on all
    /// interfaces if `interface` is `None`.
    ///
    /// The kernel passes only packets that `program` passes, a `struct sock_filter` per
    /// instruction; all of them if it is empty.
    ///
    /// # Errors
    ///
    /// An unknown interface; `PermissionDenied` without root or CAP_NET_RAW.
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
        keep_arrivals(&fd)?;
        // A smaller buffer still works, and drops are counted.
        let _ = set_option(fd.as_raw_fd(), SOL_SOCKET, SO_RCVBUFFORCE, &RECEIVE_BUFFER);
        if !program.is_empty() {
            // The kernel refuses one that is longer than 4096 instructions.
            let program = SockFprog {
                length: u16::try_from(program.len()).unwrap_or(u16::MAX),
                program: program.as_ptr(),
            };
            set_option(fd.as_raw_fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program)?;
        }
        let address = SockaddrLl {
            family: AF_PACKET as u16,
            protocol: ETH_P_ALL.to_be(),
            ifindex,
            ..SockaddrLl::default()
        };
        let length = size_of::<SockaddrLl>() as c_uint;
        // SAFETY: `address` has the given length and outlives the call, which keeps no
        // pointer.
        let rc = unsafe { bind(fd.as_raw_fd(), std::ptr::addr_of!(address).cast(), length) };
        check(rc)?;
        let promiscuous = PacketMreq {
            ifindex,
            kind: PACKET_MR_PROMISC,
            length: 0,
            address: [0; 8],
        };
        // Tunnels have no such mode and need none, nor have all interfaces at once.
        if ifindex != 0 {
            let _ = set_option(
                fd.as_raw_fd(),
                SOL_PACKET,
                PACKET_ADD_MEMBERSHIP,
                &promiscuous,
            );
        }
        Ok(Self { fd, ifindex })
    }

    /// Waits for the next packet, without a limit, and puts as much of it as fits into `buffer`.
    ///
    /// # Errors
    ///
    /// As recvmsg(2); [`is_link_down`] is `true` of the error, once, when the interface goes down
    /// or is removed. The next call waits for it to come up again; a removed one does not come
    /// back.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut sender = [0; size_of::<SockaddrLl>()];
        let (length, time) = loop {
            match receive_message(self.fd.as_raw_fd(), buffer, &mut sender, MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        let hardware = offset_of!(SockaddrLl, hatype);
        let interface = offset_of!(SockaddrLl, ifindex);
        Ok(Received {
            kept: length.min(buffer.len()),
            original: u32::try_from(length).unwrap_or(u32::MAX),
            interface: u32::from_ne_bytes([0, 1, 2, 3].map(|byte| sender[interface + byte])),
            time,
            hardware: u16::from_ne_bytes([sender[hardware], sender[hardware + 1]]),
            outgoing: sender[offset_of!(SockaddrLl, pkttype)] == PACKET_OUTGOING,
        })
    }

    /// Returns `true` if the interface with this name is still the one that the socket is bound to.
    pub fn is_on(&self, interface: &str) -> bool {
        interface_index(interface).is_ok_and(|index| index == self.ifindex)
    }

    /// Returns the number of packets dropped at a full buffer since the last call; `None` if
    /// unknown.
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

/// The descriptor, for whole frames written to the interface.
impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
