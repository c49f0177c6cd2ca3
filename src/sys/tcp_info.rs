//! The fields of `struct tcp_info` (linux/tcp.h) that the program uses.
//!
//! Their offsets are the same on every architecture, since each field has its natural alignment.
//! New kernels append fields; an older one fills fewer.

use super::constants::{IPPROTO_TCP, TCP_CLOSE, TCP_INFO};
use std::ffi::{c_int, c_uint, c_void};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

extern "C" {
    fn getsockopt(
        fd: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        len: *mut c_uint,
    ) -> c_int;
}

/// The kernel's figures of a connection. A field is `None` if the kernel lacks it or has measured
/// nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round trip, microseconds.
    pub rtt_us: Option<u64>,
    /// Its mean deviation, microseconds.
    pub rttvar_us: Option<u64>,
    /// Smallest recent round trip (net.ipv4.tcp_min_rtt_wlen), microseconds.
    pub min_rtt_us: Option<u64>,
    /// Congestion window, in TCP segments.
    pub cwnd: Option<u64>,
    /// Segments retransmitted since the connection started.
    pub retransmits: Option<u64>,
    /// Bytes written and not sent yet.
    pub not_sent: Option<u64>,
    /// Latest estimate of the delivery rate, bytes per second.
    pub delivery_rate: Option<u64>,
    /// Time with data to send, microseconds.
    pub busy_us: Option<u64>,
    /// Part of the busy time limited by the peer's receive window, microseconds.
    pub rwnd_limited_us: Option<u64>,
    /// Part of the busy time limited by our send buffer, microseconds.
    pub sndbuf_limited_us: Option<u64>,
    /// Packets that arrived before an earlier one (Linux 5.4).
    pub out_of_order: Option<u64>,
}

/// Bytes up to the last field in use.
const LEN: usize = 228;

/// Reads the kernel's figures; `None` if it has none.
pub fn tcp_info(socket: &TcpStream) -> Option<TcpInfo> {
    let mut raw = [0_u8; LEN];
    read(socket, &mut raw).map(parse)
}

/// Returns `true` if the kernel has closed the socket, so that an end of file is not a half-close;
/// `None` if unknown.
pub fn is_closed(socket: &TcpStream) -> Option<bool> {
    // tcpi_state is the first byte of struct tcp_info, and the kernel cuts the struct to the size
    // given.
    let mut state = [0xff_u8; 1];
    read(socket, &mut state)?
        .first()
        .map(|&state| state == TCP_CLOSE)
}

/// Fills `raw` with the start of the struct and returns the part that the kernel filled.
fn read<'a>(socket: &TcpStream, raw: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut len = raw.len() as c_uint;
    // SAFETY: the descriptor stays open while `socket` is borrowed; `raw` is writable for `len`
    // bytes, all of them valid whatever their value.
    let rc = unsafe {
        getsockopt(
            socket.as_raw_fd(),
            IPPROTO_TCP,
            TCP_INFO,
            raw.as_mut_ptr().cast(),
            &mut len,
        )
    };
    let filled = raw.get(..usize::try_from(len).ok()?)?;
    (rc == 0).then_some(filled)
}

/// Returns the segments that the kernel sent again since the connection began, SYN included, less
/// those that the peer had received already (Linux 4.19). `None` if it has no count.
pub fn retransmits(socket: &TcpStream) -> Option<u64> {
    let mut raw = [0_u8; DSACK_DUPS + 4];
    read(socket, &mut raw).and_then(net_retransmits)
}

const TOTAL_RETRANS: usize = 100;
const DSACK_DUPS: usize = 216;

fn net_retransmits(filled: &[u8]) -> Option<u64> {
    let narrow = |at: usize| {
        let bytes = filled.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_ne_bytes(bytes)))
    };
    let needless = narrow(DSACK_DUPS).unwrap_or(0);
    Some(narrow(TOTAL_RETRANS)?.saturating_sub(needless))
}

fn parse(filled: &[u8]) -> TcpInfo {
    let narrow = |at: usize| {
        let bytes = filled.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_ne_bytes(bytes)))
    };
    let wide = |at: usize| Some(u64::from_ne_bytes(filled.get(at..at + 8)?.try_into().ok()?));
    let measured = |value: &u64| *value > 0;
    TcpInfo {
        rtt_us: narrow(68).filter(measured),
        rttvar_us: narrow(72),
        cwnd: narrow(80),
        retransmits: narrow(TOTAL_RETRANS),
        not_sent: narrow(144),
        min_rtt_us: narrow(148).filter(|&value| value != u64::from(u32::MAX)),
        delivery_rate: wide(160).filter(measured),
        busy_us: wide(168),
        rwnd_limited_us: wide(176),
        sndbuf_limited_us: wide(184),
        out_of_order: narrow(224),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn fields_have_the_offsets_of_linux_and_an_old_kernel_fills_fewer() {
        let mut raw = [0_u8; LEN];
        let narrow = [(68, 1), (72, 2), (80, 3), (100, 4), (144, 5), (148, 6)];
        for (at, value) in narrow.into_iter().chain([(224, 11_u32)]) {
            raw[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [(160, 1 << 40), (168, 8), (176, 9), (184, 10_u64)] {
            raw[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        let all = TcpInfo {
            rtt_us: Some(1),
            rttvar_us: Some(2),
            cwnd: Some(3),
            retransmits: Some(4),
            not_sent: Some(5),
            min_rtt_us: Some(6),
            delivery_rate: Some(1 << 40),
            busy_us: Some(8),
            rwnd_limited_us: Some(9),
            sndbuf_limited_us: Some(10),
            out_of_order: Some(11),
        };
        assert_eq!(parse(&raw), all);
        // Linux 3.10 ends behind tcpi_total_retrans; a cut within a field leaves it out.
        let old = TcpInfo {
            rtt_us: Some(1),
            rttvar_us: Some(2),
            cwnd: Some(3),
            retransmits: Some(4),
            ..TcpInfo::default()
        };
        assert_eq!(parse(&raw[..104]), old);
        assert_eq!(parse(&raw[..191]).sndbuf_limited_us, None);
        assert_eq!(parse(&[]), TcpInfo::default());
    }

    #[test]
    fn segments_that_had_arrived_are_no_retransmissions_where_the_kernel_counts_them() {
        let mut raw = [0_u8; DSACK_DUPS + 4];
        raw[TOTAL_RETRANS..TOTAL_RETRANS + 4].copy_from_slice(&7_u32.to_ne_bytes());
        raw[DSACK_DUPS..].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(net_retransmits(&raw), Some(4));
        assert_eq!(net_retransmits(&raw[..DSACK_DUPS + 3]), Some(7));
        raw[DSACK_DUPS..].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(net_retransmits(&raw), Some(0));
        assert_eq!(net_retransmits(&raw[..TOTAL_RETRANS + 3]), None);
    }

    #[test]
    fn the_kernel_has_a_round_trip_of_a_connection_that_carried_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"there").unwrap();
        far.read_exact(&mut [0; 5]).unwrap();
        far.write_all(b"back").unwrap();
        near.read_exact(&mut [0; 4]).unwrap();
        let info = tcp_info(&near).unwrap();
        assert!(info.rtt_us.is_some_and(|rtt| rtt < 10_000_000), "{info:?}");
        assert!(info.cwnd.is_some_and(|cwnd| (1..1_000_000).contains(&cwnd)));
        assert_eq!(info.not_sent, Some(0));
        assert_eq!(info.out_of_order.unwrap_or(0), 0);
        assert!(retransmits(&near).is_some_and(|count| count < 100));
    }
}
