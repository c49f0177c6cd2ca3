//! Changes of network interfaces, by rtnetlink(7).

use super::check;
use super::constants::{
    AF_NETLINK, ENOBUFS, MSG_TRUNC, NETLINK_ROUTE, RTMGRP_LINK, SOCK_CLOEXEC, SOCK_RAW,
};
use super::receive::receive_message;
use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

#[repr(C)]
struct SockaddrNl {
    family: u16,
    padding: u16,
    port: u32,
    groups: u32,
}

extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const c_void, length: c_uint) -> c_int;
}

/// A subscription to the changes of all interfaces of this network namespace.
#[derive(Debug)]
pub struct LinkChanges(OwnedFd);

impl LinkChanges {
    /// Subscribes. Changes from now on are kept until [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// As socket(2) and bind(2).
    pub fn subscribe() -> io::Result<Self> {
        // SAFETY: integers in, a descriptor or -1 out.
        let fd = unsafe { socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened here and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = SockaddrNl {
            family: AF_NETLINK as u16,
            padding: 0,
            port: 0,
            groups: RTMGRP_LINK,
        };
        let length = size_of::<SockaddrNl>() as c_uint;
        // SAFETY: `address` has the given length and outlives the call, which keeps no pointer.
        check(unsafe { bind(fd.as_raw_fd(), std::ptr::addr_of!(address).cast(), length) })?;
        Ok(Self(fd))
    }

    /// Waits for the next change of any interface, without a limit.
    ///
    /// # Errors
    ///
    /// As recvmsg(2). Changes lost to a full buffer count as one change.
    pub fn wait(&self) -> io::Result<()> {
        // Only the arrival counts: the rest of the message is dropped.
        let mut start = [0; 16];
        loop {
            match receive_message(self.0.as_raw_fd(), &mut start, &mut [], MSG_TRUNC) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
