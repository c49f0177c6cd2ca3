//! A captured packet in, the TCP segment in it out: TCP header and timestamps.
//!
//! Read RFC 9293 §3.1 and RFC 7323 §3 first. Lengths come from the IP header, never from the
//! captured bytes: Ethernet pads short frames, and a snap length cuts long ones.

use super::capture::{front, Packet};
use super::encapsulation::{ip, Ip, Tunnel};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The place of IPv4 addresses among the numbers of [`Endpoint`]. No end of a connection has a
/// multicast address. A mapped one (RFC 4291 §2.5.5.2) may be in an IPv6 header.
const IPV4: u128 = 0xff00 << 112;

/// An end of a connection. IPv4 and IPv6 are one kind of number, so that one comparison does for
/// both. It is packed, for each record has two: 24 bytes less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(4))]
pub struct Endpoint {
    /// The address as a number.
    pub address: u128,
    /// The TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Returns the number that stands for an IPv4 address.
    #[inline]
    pub(super) fn ipv4(address: u32) -> u128 {
        IPV4 | u128::from(address)
    }

    /// The address alone. An IPv4-mapped address of an IPv6 header is an IPv6 address.
    pub fn ip(&self) -> IpAddr {
        match self.address >> 32 == IPV4 >> 32 {
            true => Ipv4Addr::from(self.address as u32).into(),
            false => Ipv6Addr::from(self.address).into(),
        }
    }
}

/// `10.0.0.1:5301`, `[2001:db8::1]:443`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip(), self.port).fmt(f)
    }
}

/// FIN of RFC 9293 §3.1.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;

/// TSval and TSecr of RFC 7323 §3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub ts_val: u32,
    /// The echo; of no meaning without ACK.
    pub ts_ecr: u32,
}

/// A TCP segment ("segment" alone is a stretch of the path).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSegment<'a> {
    /// The sender.
    pub source: Endpoint,
    /// The receiver.
    pub destination: Endpoint,
    /// Its first sequence number.
    pub seq: u32,
    /// Next sequence number expected; of no meaning without ACK.
    pub ack: u32,
    /// The low eight flags.
    pub flags: u8,
    /// As sent, unscaled.
    pub window: u16,
    /// `None` where the option is absent or was cut off.
    pub timestamps: Option<Timestamps>,
    /// Payload on the network, by the IP header.
    pub payload_len: u32,
    /// The part of the payload that was captured.
    pub payload: &'a [u8],
    /// The tunnel that the packet came in; `None` outside of one.
    pub tunnel: Option<Tunnel>,
}

impl TcpSegment<'_> {
    /// Returns `true` if all of these flags are set.
    #[inline]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Sequence numbers it takes: payload, SYN and FIN (RFC 9293 §3.4).
    #[inline]
    pub fn sequence_len(&self) -> u32 {
        self.payload_len + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// The reason why a packet holds no TCP segment that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Skip {
    /// A link type that is not read here.
    LinkType,
    /// ARP, LLDP, ...
    NotIp,
    /// UDP, ICMP, tunnels that are not read, ...
    NotTcp,
    /// A fragment of a TCP segment whose other fragments did not come.
    Fragment,
    /// The snap length cut it before the end of the TCP header's fixed part.
    CutShort,
    /// Lengths that contradict each other.
    Malformed,
    /// A simple packet block, which has no time, or a time that cannot be one.
    NoTime,
}

impl Skip {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::LinkType,
        Self::NotIp,
        Self::NotTcp,
        Self::Fragment,
        Self::CutShort,
        Self::Malformed,
        Self::NoTime,
    ];

    /// As it stands in reports and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinkType => "link_type",
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::Fragment => "fragment",
            Self::CutShort => "cut_short",
            Self::Malformed => "malformed",
            Self::NoTime => "no_time",
        }
    }
}

/// The longest payload that a packet may have: segments before segmentation reach 512 KiB, and a
/// damaged length would leave the window.
const MAX_PAYLOAD: usize = 1 << 24;

/// Returns the TCP segment in a packet.
///
/// # Errors
/// Why there is none.
#[inline]
pub fn parse<'a>(packet: &Packet<'a>) -> Result<TcpSegment<'a>, Skip> {
    let ip = ip(packet)?;
    match ip.fragment {
        None => tcp(&ip),
        Some(_) => Err(Skip::Fragment),
    }
}

/// Returns the TCP segment that is the payload of an IP packet.
#[inline]
pub(super) fn tcp<'a>(ip: &Ip<'a>) -> Result<TcpSegment<'a>, Skip> {
    let data = ip.data;
    let fixed: &[u8; 20] = front(data).ok_or(Skip::CutShort)?;
    let header = usize::from(fixed[12] >> 4) * 4;
    if header < 20 {
        return Err(Skip::Malformed);
    }
    let payload_len = ip.length.checked_sub(header).ok_or(Skip::Malformed)?;
    if payload_len > MAX_PAYLOAD {
        return Err(Skip::Malformed);
    }
    let word =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let options = &data[20..header.min(data.len())];
    let captured = data.get(header..).unwrap_or(&[]);
    Ok(TcpSegment {
        source: Endpoint {
            address: ip.source,
            port: half(0),
        },
        destination: Endpoint {
            address: ip.destination,
            port: half(2),
        },
        seq: word(4),
        ack: word(8),
        flags: fixed[13],
        window: half(14),
        timestamps: timestamps(options),
        payload_len: u32::try_from(payload_len).map_err(|_| Skip::Malformed)?,
        payload: captured.get(..payload_len).unwrap_or(captured),
        tunnel: ip.tunnel,
    })
}

/// The timestamps option; a damaged or cut list of options ends the search.
#[inline]
fn timestamps(mut options: &[u8]) -> Option<Timestamps> {
    loop {
        match *options {
            [8, 10, a, b, c, d, e, f, g, h, ..] => {
                return Some(Timestamps {
                    ts_val: u32::from_be_bytes([a, b, c, d]),
                    ts_ecr: u32::from_be_bytes([e, f, g, h]),
                })
            }
            [1, ref rest @ ..] => options = rest,
            [0, ..] | [] | [_] => return None,
            [_, length, ..] => {
                if length < 2 {
                    return None;
                }
                options = options.get(usize::from(length)..)?;
            }
        }
    }
}
