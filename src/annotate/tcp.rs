//! What the kernel knows of a connection, as facts.

use super::Told;
use crate::sys::TcpInfo;

/// Appends the facts of one connection, their names behind `side` (`upstream` is towards the source). What the kernel does
/// not tell, or not yet, is left out.
pub fn tell(told: &mut Told, side: &str, info: &TcpInfo) {
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
        told.number(format!("{side}.{name}"), number);
    }
}
