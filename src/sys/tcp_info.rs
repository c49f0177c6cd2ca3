//! `struct tcp_info` of linux/tcp.h, as far as we use it. The offsets are the same on every architecture (all fields lie at
//! their natural alignment); the kernel appends fields, and an older one fills less.

use super::constants::{IPPROTO_TCP, TCP_INFO};
use super::getsockopt;
use std::ffi::c_uint;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// What the kernel knows of a connection. `None`: it does not tell, or there was nothing to measure yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round trip, microseconds.
    pub rtt_us: Option<u64>,
    /// Its mean deviation, microseconds.
    pub rttvar_us: Option<u64>,
    /// Least round trip of late (net.ipv4.tcp_min_rtt_wlen), microseconds.
    pub min_rtt_us: Option<u64>,
    /// Congestion window, in TCP segments.
    pub cwnd: Option<u64>,
    /// Segments retransmitted since the connection began.
    pub retransmits: Option<u64>,
    /// Written and not sent yet, bytes.
    pub not_sent: Option<u64>,
    /// Latest estimate of what arrives, bytes per second.
    pub delivery_rate: Option<u64>,
    /// Time with data to send, microseconds.
    pub busy_us: Option<u64>,
    /// Of that, held up by the peer's receive window.
    pub rwnd_limited_us: Option<u64>,
    /// Of that, held up by our send buffer.
    pub sndbuf_limited_us: Option<u64>,
    /// Packets that came before one that belongs in front of them (Linux 5.4).
    pub out_of_order: Option<u64>,
}

/// Room for all we read.
const LEN: usize = 228;

/// Asks the kernel; `None` where it does not answer.
pub fn tcp_info(socket: &TcpStream) -> Option<TcpInfo> {
    let mut raw = [0_u8; LEN];
    let mut len = LEN as c_uint;
    // SAFETY: the descriptor stays open while `socket` is borrowed; `raw` is writable for the `len` bytes announced, and any
    // bytes are valid in it.
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
    (rc == 0).then(|| parse(filled))
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
        retransmits: narrow(100),
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
    fn fields_lie_where_the_header_of_linux_has_them_and_an_old_kernel_fills_less() {
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
    }
}
