//! A captured packet in, the TCP segment in it out: link header, IPv4 or IPv6, TCP header and timestamps.
//!
//! Read RFC 9293 §3.1, RFC 8200 §4, RFC 7323 §3 and the LINKTYPE_ pages of tcpdump.org first. Lengths come from the IP
//! header, never from the captured bytes: Ethernet pads short frames, and a snap length cuts long ones.

use super::capture::{front, Packet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An end of a connection. IPv4 is held as a mapped address (RFC 4291 §2.5.5.2), so that one comparison does for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address as a number.
    pub address: u128,
    /// The TCP port.
    pub port: u16,
}

impl Endpoint {
    /// The address alone, IPv4 as such.
    pub fn ip(&self) -> IpAddr {
        let address = Ipv6Addr::from(self.address);
        address
            .to_ipv4_mapped()
            .map_or(IpAddr::V6(address), IpAddr::V4)
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
    /// Who sent it.
    pub source: Endpoint,
    /// To whom.
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
}

impl TcpSegment<'_> {
    /// Whether all of these flags are set.
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

/// Why a packet holds no TCP segment that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Skip {
    /// A link type that is not read here.
    LinkType,
    /// ARP, LLDP, ...
    NotIp,
    /// UDP, ICMP, tunnels, ...
    NotTcp,
    /// A fragment other than the first: it has no TCP header.
    Fragment,
    /// The snap length cut it before the end of the TCP header's fixed part.
    CutShort,
    /// Lengths that contradict each other.
    Malformed,
    /// A simple packet block: without a time it can tell nothing.
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

/// LINKTYPE_ETHERNET; the live capture hands out this one or [`LINK_RAW`].
pub const LINK_ETHERNET: u16 = 1;
/// LINKTYPE_RAW: an IPv4 or IPv6 packet without a link header.
pub const LINK_RAW: u16 = 101;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

#[inline]
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*front(bytes.get(at..)?)?))
}

/// The TCP segment in a packet.
///
/// # Errors
/// Why there is none.
#[inline]
pub fn parse<'a>(packet: &Packet<'a>) -> Result<TcpSegment<'a>, Skip> {
    let data = packet.data;
    // Bytes of the packet after the link header, on the network: a floor for what an IP length of zero means.
    let after = |header: usize| (packet.original as usize).saturating_sub(header);
    match packet.link {
        LINK_ETHERNET => network(
            be16(data, 12).ok_or(Skip::CutShort)?,
            data.get(14..),
            after(14),
        ),
        // Linux cooked captures, versions 1 and 2.
        113 => network(
            be16(data, 14).ok_or(Skip::CutShort)?,
            data.get(16..),
            after(16),
        ),
        276 => network(
            be16(data, 0).ok_or(Skip::CutShort)?,
            data.get(20..),
            after(20),
        ),
        // BSD null and OpenBSD loop: an address family in the byte order of some host. IPv4 is 2 everywhere; IPv6 is
        // 10, 24, 28 or 30. The version nibble of the packet says it as well, so it alone is asked.
        0 | 108 => by_version(data.get(4..), after(4)),
        LINK_RAW | 12 | 14 | 228 | 229 => by_version(Some(data), after(0)),
        _ => Err(Skip::LinkType),
    }
}

fn by_version(data: Option<&[u8]>, original: usize) -> Result<TcpSegment<'_>, Skip> {
    match data.and_then(<[u8]>::first).map(|first| first >> 4) {
        Some(4) => network(ETHERTYPE_IPV4, data, original),
        Some(6) => network(ETHERTYPE_IPV6, data, original),
        Some(_) => Err(Skip::NotIp),
        None => Err(Skip::CutShort),
    }
}

/// `original` is the length on the network after the link header, padding included.
#[inline]
fn network(kind: u16, data: Option<&[u8]>, original: usize) -> Result<TcpSegment<'_>, Skip> {
    let mut kind = kind;
    let mut data = data.ok_or(Skip::CutShort)?;
    let mut original = original;
    loop {
        match kind {
            ETHERTYPE_IPV4 => return ipv4(data, original),
            ETHERTYPE_IPV6 => return ipv6(data, original),
            // VLAN, QinQ and its two older numbers; the packet bounds the loop.
            0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
                kind = be16(data, 2).ok_or(Skip::CutShort)?;
                data = data.get(4..).ok_or(Skip::CutShort)?;
                original = original.saturating_sub(4);
            }
            _ => return Err(Skip::NotIp),
        }
    }
}

#[inline]
fn ipv4(data: &[u8], original: usize) -> Result<TcpSegment<'_>, Skip> {
    let fixed: &[u8; 20] = front(data).ok_or(Skip::CutShort)?;
    let header = usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || header < 20 {
        return Err(Skip::Malformed);
    }
    if fixed[9] != 6 {
        return Err(Skip::NotTcp);
    }
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff != 0 {
        return Err(Skip::Fragment);
    }
    let length = match u16::from_be_bytes([fixed[2], fixed[3]]) {
        // Captured before segmentation in the network card (and above 64 KiB, "BIG TCP").
        0 => original,
        length => usize::from(length),
    };
    let payload = length.checked_sub(header).ok_or(Skip::Malformed)?;
    let address = |at: usize| {
        let four = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        0xffff_0000_0000 | u128::from(u32::from_be_bytes(four))
    };
    tcp(address(12), address(16), data.get(header..), payload)
}

fn ipv6(data: &[u8], original: usize) -> Result<TcpSegment<'_>, Skip> {
    let fixed: &[u8; 40] = front(data).ok_or(Skip::CutShort)?;
    if fixed[0] >> 4 != 6 {
        return Err(Skip::Malformed);
    }
    let mut payload = match u16::from_be_bytes([fixed[4], fixed[5]]) {
        // A jumbogram or a packet before segmentation.
        0 => original.saturating_sub(40),
        length => usize::from(length),
    };
    let address = |at: usize| {
        let bytes = fixed.get(at..).and_then(front);
        u128::from_be_bytes(*bytes.expect("both addresses lie in the fixed header"))
    };
    let (source, destination) = (address(8), address(24));
    let mut kind = fixed[6];
    let mut rest = &data[40..];
    // Each header takes eight bytes or more, so the packet bounds the loop.
    while kind != 6 {
        let head: &[u8; 8] = front(rest).ok_or(match kind {
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => Skip::CutShort,
            _ => Skip::NotTcp,
        })?;
        let length = match kind {
            0 | 43 | 60 | 135 | 139 | 140 => usize::from(head[1]) * 8 + 8,
            51 => usize::from(head[1]) * 4 + 8,
            44 => {
                if u16::from_be_bytes([head[2], head[3]]) & 0xfff8 != 0 {
                    return Err(Skip::Fragment);
                }
                8
            }
            _ => return Err(Skip::NotTcp),
        };
        kind = head[0];
        payload = payload.checked_sub(length).ok_or(Skip::Malformed)?;
        rest = rest.get(length..).ok_or(Skip::CutShort)?;
    }
    tcp(source, destination, Some(rest), payload)
}

#[inline]
fn tcp(
    source: u128,
    destination: u128,
    data: Option<&[u8]>,
    length: usize,
) -> Result<TcpSegment<'_>, Skip> {
    let data = data.ok_or(Skip::CutShort)?;
    let fixed: &[u8; 20] = front(data).ok_or(Skip::CutShort)?;
    let header = usize::from(fixed[12] >> 4) * 4;
    if header < 20 {
        return Err(Skip::Malformed);
    }
    let payload_len = length.checked_sub(header).ok_or(Skip::Malformed)?;
    let word =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let options = &data[20..header.min(data.len())];
    let captured = data.get(header..).unwrap_or(&[]);
    Ok(TcpSegment {
        source: Endpoint {
            address: source,
            port: half(0),
        },
        destination: Endpoint {
            address: destination,
            port: half(2),
        },
        seq: word(4),
        ack: word(8),
        flags: fixed[13],
        window: half(14),
        timestamps: timestamps(options),
        payload_len: u32::try_from(payload_len).map_err(|_| Skip::Malformed)?,
        payload: captured.get(..payload_len).unwrap_or(captured),
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
