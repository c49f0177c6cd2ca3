//! Linux's numbers, for the architecture of this build. Those that differ per architecture are in
//! one table each.

use std::ffi::c_int;

pub(super) use arch::{
    EINPROGRESS, ENETDOWN, ENOBUFS, RLIMIT_NOFILE, SIGUSR1, SIG_BLOCK, SIOCOUTQ, SOCK_STREAM,
    SOL_SOCKET, SO_KEEPALIVE, SO_LINGER, SO_REUSEADDR, SO_SNDTIMEO,
};

#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
mod arch {
    use std::ffi::c_int;
    pub(in super::super) const SOCK_STREAM: c_int = 2;
    pub(in super::super) const SOL_SOCKET: c_int = 0xffff;
    pub(in super::super) const SO_REUSEADDR: c_int = 0x0004;
    pub(in super::super) const SO_KEEPALIVE: c_int = 0x0008;
    pub(in super::super) const SO_LINGER: c_int = 0x0080;
    /// This option takes the kernel's struct of two longs, however wide the C library's time_t is.
    pub(in super::super) const SO_SNDTIMEO: c_int = 0x1005;
    pub(in super::super) const RLIMIT_NOFILE: c_int = 5;
    pub(in super::super) const SIGUSR1: c_int = 16;
    pub(in super::super) const SIG_BLOCK: c_int = 1;
    pub(in super::super) const SIOCOUTQ: u32 = 0x7472;
    pub(in super::super) const EINPROGRESS: c_int = 150;
    pub(in super::super) const ENETDOWN: c_int = 127;
    pub(in super::super) const ENOBUFS: c_int = 132;
}

#[cfg(not(any(target_arch = "mips", target_arch = "mips64")))]
mod arch {
    use std::ffi::c_int;
    pub(in super::super) const SOCK_STREAM: c_int = 1;
    pub(in super::super) const SOL_SOCKET: c_int = 1;
    pub(in super::super) const SO_REUSEADDR: c_int = 2;
    pub(in super::super) const SO_KEEPALIVE: c_int = 9;
    pub(in super::super) const SO_LINGER: c_int = 13;
    /// This option takes the kernel's struct of two longs, however wide the C library's time_t is.
    pub(in super::super) const SO_SNDTIMEO: c_int = 21;
    pub(in super::super) const RLIMIT_NOFILE: c_int = 7;
    pub(in super::super) const SIGUSR1: c_int = 10;
    pub(in super::super) const SIG_BLOCK: c_int = 0;
    pub(in super::super) const SIOCOUTQ: u32 = 0x5411;
    pub(in super::super) const EINPROGRESS: c_int = 115;
    pub(in super::super) const ENETDOWN: c_int = 100;
    pub(in super::super) const ENOBUFS: c_int = 105;
}

/// Also the type of the control message. Its times have 64 bits on every architecture (Linux 5.1).
pub(super) const SO_TIMESTAMPNS_NEW: c_int = 64;
/// Also the type of the control message. Its times are two longs.
pub(super) const SO_TIMESTAMPNS_OLD: c_int = 35;
pub(super) const SO_RCVBUFFORCE: c_int = 33;
pub(super) const SO_ATTACH_FILTER: c_int = 26;
pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;
pub(super) const SO_BINDTODEVICE: c_int = 25;
pub(super) const IPPROTO_IP: c_int = 0;
pub(super) const IP_TOS: c_int = 1;
pub(super) const IP_BIND_ADDRESS_NO_PORT: c_int = 24;
pub(super) const IPV6_TCLASS: c_int = 67;
pub(super) const IPPROTO_IPV6: c_int = 41;
pub(super) const IPV6_V6ONLY: c_int = 26;
pub(super) const IPPROTO_TCP: c_int = 6;
pub(super) const TCP_NODELAY: c_int = 1;
pub(super) const TCP_INFO: c_int = 11;
/// State of a closed socket in TCP_INFO (include/net/tcp_states.h).
pub(super) const TCP_CLOSE: u8 = 7;
pub(super) const MSG_TRUNC: c_int = 0x20;
pub(super) const MSG_DONTWAIT: c_int = 0x40;
pub(super) const MSG_NOSIGNAL: c_int = 0x4000;
pub(super) const SHUT_RD: c_int = 0;
pub(super) const POLLIN: i16 = 0x001;
pub(super) const POLLOUT: i16 = 0x004;
pub(super) const POLLERR: i16 = 0x008;
pub(super) const POLLRDHUP: i16 = 0x2000;
pub(super) const SIGHUP: c_int = 1;
pub(super) const SIGINT: c_int = 2;
pub(super) const SIGTERM: c_int = 15;
pub(super) const SIG_DFL: usize = 0;
pub(super) const SIG_IGN: usize = 1;
pub(super) const EAGAIN: c_int = 11;
pub(super) const ENOMEM: c_int = 12;
pub(super) const ENODEV: c_int = 19;
pub(super) const ENFILE: c_int = 23;
pub(super) const EMFILE: c_int = 24;
/// Returned by adjtimex(2) for a clock that is not synchronised.
pub(super) const TIME_ERROR: c_int = 5;
pub(super) const PR_SET_NAME: c_int = 15;
pub(super) const PR_GET_NAME: c_int = 16;
pub(super) const PR_SET_TIMERSLACK: c_int = 29;
pub(super) const AF_NETLINK: c_int = 16;
pub(super) const NETLINK_ROUTE: c_int = 0;
/// The group of link changes, as a bit.
pub(super) const RTMGRP_LINK: u32 = 1;
pub(super) const AF_PACKET: c_int = 17;
pub(super) const SOCK_RAW: c_int = 3;
pub(super) const SOCK_CLOEXEC: c_int = 0o2_000_000;
pub(super) const SOL_PACKET: c_int = 263;
pub(super) const PACKET_STATISTICS: c_int = 6;
pub(super) const PACKET_ADD_MEMBERSHIP: c_int = 1;
pub(super) const PACKET_MR_PROMISC: u16 = 1;
pub(super) const PACKET_OUTGOING: u8 = 4;
pub(super) const ETH_P_ALL: u16 = 3;
