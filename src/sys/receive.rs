//! A receive that also tells when the kernel took in the last of the bytes it returns (SO_TIMESTAMPNS, recvmsg).
//!
//! What the kernel tells is the time of the last packet that the receive touched. Packets that wait in a socket are
//! merged, and keep the later one's time: so it is the time of the last byte returned only where that byte was the last
//! one in the socket. A receive that returns fewer bytes than it had room for has emptied the socket.
//!
//! Bytes that overtook others, of which a packet was lost, wait in the kernel until that one is there, and keep the time at
//! which they came themselves: to the reader it looks as if it had been late. `TcpInfo::out_of_order` tells.

#[cfg(target_os = "linux")]
use super::constants::{SOL_SOCKET, SO_TIMESTAMPNS_NEW, SO_TIMESTAMPNS_OLD};
use crate::time::WallTime;
#[cfg(target_os = "linux")]
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Makes the kernel keep the time of each packet that comes for this socket; a listener hands it down to what it accepts.
/// The first such socket of a host turns it on for the whole host, a moment later; that costs the kernel one clock
/// reading per packet.
///
/// # Errors
///
/// As setsockopt(2); [`io::ErrorKind::Unsupported`] elsewhere than on Linux.
pub fn keep_arrivals(fd: &impl AsRawFd) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let on: c_int = 1;
        let set = |name| super::set_option(fd.as_raw_fd(), SOL_SOCKET, name, &on);
        set(SO_TIMESTAMPNS_NEW).or_else(|_| set(SO_TIMESTAMPNS_OLD)) // Before Linux 5.1.
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = fd;
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
#[repr(C)]
struct IoVec {
    base: *mut c_void,
    len: usize,
}

/// As glibc has it. musl has ints with padding where `iov_len` and `control_len` are on 64 bits, in the order that makes
/// the same of small numbers.
#[cfg(target_os = "linux")]
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
#[cfg(target_os = "linux")]
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    time: [u8; 16],
    /// musl on 32 bits appends a copy of an old time in the new kind, if there is room; there is none to speak of.
    _room: [u8; 8],
}

#[cfg(target_os = "linux")]
extern "C" {
    fn recvmsg(fd: c_int, message: *mut MsgHdr, flags: c_int) -> isize;
}

/// Receives into `buffer`, and tells when the last packet of what is returned came, on the kernel's wall clock; `None`
/// where the kernel does not tell, or [`keep_arrivals`] was not asked for.
///
/// # Errors
///
/// As recvmsg(2).
#[cfg(target_os = "linux")]
pub fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<WallTime>)> {
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
        name: std::ptr::null_mut(),
        name_len: 0,
        iov: &mut place,
        iov_len: 1,
        control: (&mut control as *mut Control).cast(),
        control_len: size_of::<Control>(),
        flags: 0,
    };
    // SAFETY: the descriptor stays open while `socket` is borrowed; the one place announced is the whole of `buffer`,
    // `control` is plain integers, writable for the length announced, and both outlive the call.
    let received = unsafe { recvmsg(socket.as_raw_fd(), &mut message, 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let told = message.control_len >= std::mem::offset_of!(Control, time);
    Ok((received, control.arrival().filter(|_| told)))
}

/// As std's read: no kernel here tells.
///
/// # Errors
///
/// As recv(2).
#[cfg(not(target_os = "linux"))]
pub fn receive(mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Option<WallTime>)> {
    io::Read::read(&mut socket, buffer).map(|received| (received, None))
}

#[cfg(target_os = "linux")]
impl Control {
    fn arrival(&self) -> Option<WallTime> {
        if self.level != SOL_SOCKET {
            return None;
        }
        let value = self.len.checked_sub(std::mem::offset_of!(Self, time))?;
        let long = size_of::<c_long>();
        let (seconds, nanos) = match self.kind {
            SO_TIMESTAMPNS_NEW if value >= 16 => (whole(&self.time[..8])?, whole(&self.time[8..])?),
            SO_TIMESTAMPNS_OLD if value >= 2 * long => {
                let (seconds, nanos) = (&self.time[..long], &self.time[long..2 * long]);
                (whole(seconds)?, whole(nanos)?)
            }
            _ => return None,
        };
        let nanos = seconds
            .checked_mul(crate::time::NANOS_PER_SEC)?
            .checked_add(nanos)?;
        Some(WallTime(nanos))
    }
}

/// A signed number of 32 or 64 bits in this machine's order; `None` for one below zero.
#[cfg(target_os = "linux")]
fn whole(bytes: &[u8]) -> Option<u64> {
    let number = match bytes.len() {
        4 => i64::from(i32::from_ne_bytes(bytes.try_into().ok()?)),
        _ => i64::from_ne_bytes(bytes.try_into().ok()?),
    };
    u64::try_from(number).ok()
}

/// From now on the kernel loses what comes for this socket and has `byte` for its first (SO_ATTACH_FILTER); with `None`
/// nothing more.
#[cfg(all(test, target_os = "linux"))]
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
    // A packet begins with its TCP header, which says in the upper half of byte 12 how many words it has.
    let steps = [
        step(0x30, 0, 12),                          // A = packet[12]
        step(0x54, 0, 0xf0),                        // A &= 0xf0
        step(0x74, 0, 2),                           // A >>= 2
        step(0x07, 0, 0),                           // X = A
        step(0x50, 0, 0),                           // A = packet[X], or end with 0
        step(0x15, 1, byte.map_or(256, u32::from)), // If it is not this one go one step farther.
        step(0x06, 0, 0),                           // Keep nothing.
        step(0x06, 0, u32::MAX),                    // Keep all.
    ];
    let program = Program {
        len: steps.len() as u16,
        steps: steps.as_ptr(),
    };
    super::set_option(socket.as_raw_fd(), SOL_SOCKET, 26, &program).unwrap();
}

#[cfg(all(test, target_os = "linux"))]
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
    fn a_listener_hands_down_that_arrivals_are_told_and_they_lie_between_send_and_receive() {
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
            let arrival = arrival.expect("this kernel tells").0;
            assert_eq!(received, length);
            assert!((before..=now()).contains(&arrival), "{before} {arrival}");
        }
        drop(near);
        assert_eq!(receive(&far, &mut buffer).unwrap().0, 0);
        // Without having been asked it tells nothing.
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
        let told = |kind, time, value| control(kind, time, value).arrival().map(|at| at.0);
        let expected = Some(5_000_000_000_000_000_007);
        assert_eq!(told(SO_TIMESTAMPNS_NEW, new, 16), expected);
        assert_eq!(told(SO_TIMESTAMPNS_NEW, new, 15), None);
        assert_eq!(told(29, new, 16), None);
        let mut old = [0; 16];
        let long = size_of::<c_long>();
        old[..long].copy_from_slice(&(3 as c_long).to_ne_bytes());
        old[long..2 * long].copy_from_slice(&(9 as c_long).to_ne_bytes());
        assert_eq!(told(SO_TIMESTAMPNS_OLD, old, 2 * long), Some(3_000_000_009));
        new[..8].copy_from_slice(&(-1_i64).to_ne_bytes());
        assert_eq!(told(SO_TIMESTAMPNS_NEW, new, 16), None);
    }
}
