//! The kernel's state of a connection (`TCP_INFO`) as annotations.

use super::Readings;
use crate::sys::TcpInfo;

/// Appends the values of one connection, with `side` before their names (`upstream` is towards the
/// source). Values that the kernel does not have, or not yet, are left out.
pub fn append(readings: &mut Readings, side: &str, info: &TcpInfo) {
    let micros = |value: Option<u64>| value.map(|value| value as f64 * 1000.0);
    let plain = |value: Option<u64>| value.map(|value| value as f64);
    for (name, number) in [
        ("rtt_ns", micros(info.rtt_us)),
        ("min_rtt_ns", micros(info.min_rtt_us)),
        ("rttvar_ns", micros(info.rttvar_us)),
        ("retransmits", plain(info.retransmits)),
        ("cwnd", plain(info.cwnd)),
        ("delivery_rate_bytes_per_second", plain(info.delivery_rate)),
        ("busy_ns", micros(info.busy_us)),
        ("rwnd_limited_ns", micros(info.rwnd_limited_us)),
        ("sndbuf_limited_ns", micros(info.sndbuf_limited_us)),
        ("not_sent_bytes", plain(info.not_sent)),
    ] {
        readings.number(format!("{side}.{name}"), number);
    }
}
