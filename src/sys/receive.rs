//! Receives with the kernel's arrival time of the last byte (SO_TIMESTAMPNS, recvmsg).
//!
//! The kernel reports the time of the last packet that a receive touched. Packets that wait in a
//! socket are merged and keep the later time. The time is thus that of the last byte returned only
//! if that byte was the last in the socket. A receive that returns fewer bytes than it had room for
//! has emptied the socket.
//!
//! Bytes behind a lost packet wait in the kernel for its retransmission and keep their own arrival
//! time. They look as if the reader had been late. `TcpInfo::out_of_order` counts them.

use super::constants::{SOL_SOCKET, SO_TIMESTAMPNS_NEW, SO_TIMESTAMPNS_OLD};
use super::socket::set_option;
use crate::time::WallTime;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

/// Makes the kernel keep the arrival time of each packet for this socket. Accepted sockets inherit
/// the option.
///
/// The first such socket of a host turns it on for the whole host, a moment later. That costs the
/// kernel one clock reading per packet.
///
/// # Errors
///
/// As setsockopt(2).
pub fn keep_arrivals(fd: &impl AsRawFd) -> io::Result<()> {
    let on: c_int = 1;
    let set = |name| set_option(fd.as_raw_fd(), SOL_SOCKET, name, &on);
    set(SO_TIMESTAMPNS_NEW).or_else(|_| set(SO_TIMESTAMPNS_OLD)) // Before Linux 5.1.
}

#[repr(C)]
struct IoVec {
    base: *mut c_void,
    len: usize,
}

/// A `struct msghdr` of glibc. On 64 bits musl has ints with padding for `iov_len` and
/// `control_len`, in the order that makes the same of small numbers.
#[repr(C)]
struct MsgHdr {
    name: *mut c_void,
    name_len: c_uint,
    iov: *mut IoVec,
    iov_len: usize,
    control: *mut c_void,
    control_len: usize,
    flags: c_int,
}

/// One control message: its head, and room for the larger of the two kinds of time.
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    time: [u8; 16],
    /// On 32 bits musl appends a copy of an old time as the new kind if there is room. This is too
    /// little.
    _room: [u8; 8],
}

extern "C" {
    fn recvmsg(fd: c_int, message: *mut MsgHdr, flags: c_int) -> isize;
}

/// Receives into `buffer`. Returns the number of bytes and the arrival of the last packet among
/// them, on the kernel's wall clock.
///
/// The arrival is `None` if the kernel reports none, or without [`keep_arrivals`].
///
/// # Errors
///
/// As recvmsg(2).
pub fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<WallTime>)> {
    receive_message(socket.as_raw_fd(), buffer, &mut [], 0)
}

/// As [`receive`], with flags and the sender's address, of which `sender` takes as much as fits.
pub(super) fn receive_message(
    fd: RawFd,
    buffer: &mut [u8],
    sender: &mut [u8],
    flags: c_int,
) -> io::Result<(usize, Option<WallTime>)> {
    let mut control = Control {
        len: 0,
        level: 0,
        kind: 0,
        time: [0; 16],
        _room: [0; 8],
    };
    let mut place = IoVec {
        base: buffer.as_mut_ptr().cast(),
        len: buffer.len(),
    };
    let mut message = MsgHdr {
        name: match sender.is_empty() {
            true => std::ptr::null_mut(),
            false => sender.as_mut_ptr().cast(),
        },
        name_len: sender.len() as c_uint,
        iov: &mut place,
        iov_len: 1,
        control: (&mut control as *mut Control).cast(),
        control_len: size_of::<Control>(),
        flags: 0,
    };
    // SAFETY: the callers' sockets outlive the call. `buffer`, `sender` and `control` are writable
    // for the lengths beside their pointers, hold plain integers, and outlive the call.
    let received = unsafe { recvmsg(fd, &mut message, flags) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let has_time = message.control_len >= std::mem::offset_of!(Control, time);
    Ok((received, control.arrival().filter(|_| has_time)))
}

impl Control {
    fn arrival(&self) -> Option<WallTime> {
        if self.level != SOL_SOCKET {
            return None;
        }
        let value = self.len.checked_sub(std::mem::offset_of!(Self, time))?;
        let long = size_of::<c_long>();
        let (seconds, nanos) = match self.kind {
            SO_TIMESTAMPNS_NEW if value >= 16 => {
                (unsigned(&self.time[..8])?, unsigned(&self.time[8..])?)
            }
            SO_TIMESTAMPNS_OLD if value >= 2 * long => {
                let (seconds, nanos) = (&self.time[..long], &self.time[long..2 * long]);
                (unsigned(seconds)?, unsigned(nanos)?)
            }
            _ => return None,
        };
        let nanos = seconds
            .checked_mul(crate::time::NANOS_PER_SEC)?
            .checked_add(nanos)?;
        Some(WallTime(nanos))
    }
}

/// Reads a signed number of 32 or 64 bits in this machine's byte order; `None` if it is negative.
fn unsigned(bytes: &[u8]) -> Option<u64> {
    let number = match bytes.len() {
        4 => i64::from(i32::from_ne_bytes(bytes.try_into().ok()?)),
        _ => i64::from_ne_bytes(bytes.try_into().ok()?),
    };
    u64::try_from(number).ok()
}

/// Makes the kernel drop packets for this socket whose payload starts with `byte`
/// (SO_ATTACH_FILTER). `None` ends that.
#[cfg(test)]
pub fn lose_packets_of(socket: &TcpStream, byte: Option<u8>) {
    #[repr(C)]
    struct Step {
        code: u16,
        then: u8,
        otherwise: u8,
        value: u32,
    }
    #[repr(C)]
    struct Program {
        len: u16,
        steps: *const Step,
    }
    let step = |code, otherwise, value| Step {
        code,
        then: 0,
        otherwise,
        value,
    };
    // A packet starts with its TCP header, whose length in words is the upper half of byte 12.
    let steps = [
        step(0x30, 0, 12),                          // A = packet[12]
        step(0x54, 0, 0xf0),                        // A &= 0xf0
        step(0x74, 0, 2),                           // A >>= 2
        step(0x07, 0, 0),                           // X = A
        step(0x50, 0, 0),                           // A = packet[X], or end with 0
        step(0x15, 1, byte.map_or(256, u32::from)), // Skip a step unless it is this byte.
        step(0x06, 0, 0),                           // Keep nothing.
        step(0x06, 0, u32::MAX),                    // Keep all.
    ];
    let program = Program {
        len: steps.len() as u16,
        steps: steps.as_ptr(),
    };
    set_option(socket.as_raw_fd(), SOL_SOCKET, 26, &program).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::{SystemTime, UNIX_EPOCH};

    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_nanos()).unwrap()
    }

    #[test]
    fn accepted_sockets_report_arrivals_that_lie_between_send_and_receive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        keep_arrivals(&listener).unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let mut buffer = [0; 64];
        // The first such socket of a host turns stamping on a moment later.
        for _ in 0..1_000_000 {
            near.write_all(b"?").unwrap();
            if receive(&far, &mut buffer).unwrap().1.is_some() {
                break;
            }
        }
        for length in [1, 63] {
            let before = now();
            near.write_all(&vec![7; length]).unwrap();
            let (received, arrival) = receive(&far, &mut buffer).unwrap();
            let arrival = arrival.expect("this kernel stamps arrivals").0;
            assert_eq!(received, length);
            assert!((before..=now()).contains(&arrival), "{before} {arrival}");
        }
        drop(near);
        assert_eq!(receive(&far, &mut buffer).unwrap().0, 0);
        // Without the option there is no time.
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(plain.local_addr().unwrap()).unwrap();
        let (far, _) = plain.accept().unwrap();
        near.write_all(b"x").unwrap();
        assert_eq!(receive(&far, &mut buffer).unwrap(), (1, None));
    }

    #[test]
    fn times_of_both_kinds_are_read_and_others_are_not() {
        let head = std::mem::offset_of!(Control, time);
        let control = |kind, time: [u8; 16], value| Control {
            len: head + value,
            level: SOL_SOCKET,
            kind,
            time,
            _room: [0; 8],
        };
        let mut new = [0; 16];
        new[..8].copy_from_slice(&5_000_000_000_i64.to_ne_bytes()); // Beyond 2038.
        new[8..].copy_from_slice(&7_i64.to_ne_bytes());
        let arrival = |kind, time, value| control(kind, time, value).arrival().map(|at| at.0);
        let expected = Some(5_000_000_000_000_000_007);
        assert_eq!(arrival(SO_TIMESTAMPNS_NEW, new, 16), expected);
        assert_eq!(arrival(SO_TIMESTAMPNS_NEW, new, 15), None);
        assert_eq!(arrival(29, new, 16), None);
        let mut old = [0; 16];
        let long = size_of::<c_long>();
        old[..long].copy_from_slice(&(3 as c_long).to_ne_bytes());
        old[long..2 * long].copy_from_slice(&(9 as c_long).to_ne_bytes());
        assert_eq!(
            arrival(SO_TIMESTAMPNS_OLD, old, 2 * long),
            Some(3_000_000_009)
        );
        new[..8].copy_from_slice(&(-1_i64).to_ne_bytes());
        assert_eq!(arrival(SO_TIMESTAMPNS_NEW, new, 16), None);
    }
}
