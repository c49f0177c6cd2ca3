//! A captured packet in, the IPv4 or IPv6 packet in it out: link headers, VLAN, PPPoE, MPLS, VXLAN,
//! GRE, IP in IP.
//!
//! Read the LINKTYPE_ pages of tcpdump.org, RFC 8200 §4, RFC 2516, RFC 3032, RFC 7348, RFC 2784,
//! RFC 2890 and RFC 2003 first.

use super::capture::{front, Packet};
use super::packet::{Endpoint, Skip};
use std::fmt;

/// LINKTYPE_ETHERNET; the live capture hands out this one or [`LINK_RAW`].
pub const LINK_ETHERNET: u16 = 1;
/// LINKTYPE_RAW: an IPv4 or IPv6 packet without a link header.
pub const LINK_RAW: u16 = 101;
/// LINKTYPE_LINUX_SLL2: what `tcpdump -i any` writes; it names each packet's interface.
const LINK_SLL2: u16 = 276;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// VLAN, QinQ and its two older numbers.
pub(super) const ETHERTYPES_VLAN: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
/// Ethernet in GRE, and that of a mirror port.
const ETHERTYPE_BRIDGED: u16 = 0x6558;
const ETHERTYPE_ERSPAN: u16 = 0x88be;
pub(super) const ETHERTYPE_PPPOE: u16 = 0x8864;
pub(super) const ETHERTYPES_MPLS: [u16; 2] = [0x8847, 0x8848];

/// The port of RFC 7348, and the one that Linux had before.
pub(super) const VXLAN_PORTS: [u16; 2] = [4789, 8472];

/// Most packets or frames inside of each other.
const MAX_DEPTH: u8 = 8;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// IPv4 and IPv6 in IP, GRE.
pub(super) const TUNNELS: [u8; 3] = [4, 41, 47];

/// The tunnels that a connection may be inside of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// VXLAN with this network identifier.
    Vxlan(u32),
    /// GRE, with its key if it has one.
    Gre(Option<u32>),
    /// An IP packet directly inside of another.
    Ip,
}

/// `VXLAN 42`, `GRE 7`, `GRE`, `IP`.
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vxlan(network) => write!(f, "VXLAN {network}"),
            Self::Gre(Some(key)) => write!(f, "GRE {key}"),
            Self::Gre(None) => f.write_str("GRE"),
            Self::Ip => f.write_str("IP"),
        }
    }
}

/// Returns the name of a link type in the list of tcpdump.org, without its `LINKTYPE_`; `None` if
/// it is not a usual one.
pub fn link_type_name(link: u16) -> Option<&'static str> {
    Some(match link {
        6 => "IEEE802_5",
        8 => "SLIP",
        10 => "FDDI",
        100 => "ATM_RFC1483",
        105 => "IEEE802_11",
        107 => "FRELAY",
        117 => "PFLOG",
        119 => "IEEE802_11_PRISM",
        127 => "IEEE802_11_RADIOTAP",
        163 => "IEEE802_11_AVS",
        187 => "BLUETOOTH_HCI_H4",
        189 => "USB_LINUX",
        192 => "PPI",
        195 => "IEEE802_15_4_WITHFCS",
        201 => "BLUETOOTH_HCI_H4_WITH_PHDR",
        220 => "USB_LINUX_MMAPPED",
        227 => "CAN_SOCKETCAN",
        230 => "IEEE802_15_4_NOFCS",
        239 => "NFLOG",
        249 => "USBPCAP",
        251 => "BLUETOOTH_LE_LL",
        252 => "WIRESHARK_UPPER_PDU",
        253 => "NETLINK",
        254 => "BLUETOOTH_LINUX_MONITOR",
        _ => return None,
    })
}

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    /// In bytes.
    pub(super) offset: usize,
    /// Others follow it.
    pub(super) more: bool,
}

/// An IP packet whose payload is TCP, or a piece of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip<'a> {
    pub(super) source: u128,
    pub(super) destination: u128,
    /// The part of the payload that was captured, perhaps with padding behind it.
    pub(super) data: &'a [u8],
    /// The payload on the network.
    pub(super) length: usize,
    pub(super) fragment: Option<Fragment>,
    pub(super) tunnel: Option<Tunnel>,
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*front(bytes.get(at..)?)?))
}

/// Returns the number of the interface that the packet's own link header names; 0 if none does.
#[inline]
pub(super) fn interface(packet: &Packet<'_>) -> u32 {
    match (packet.link, packet.data.get(4..).and_then(front)) {
        (LINK_SLL2, Some(index)) => u32::from_be_bytes(*index),
        _ => packet.interface,
    }
}

/// Returns the TCP payload of a packet, whole or a fragment.
///
/// # Errors
/// Why there is none.
#[inline]
pub(super) fn ip<'a>(packet: &Packet<'a>) -> Result<Ip<'a>, Skip> {
    let data = packet.data;
    // Bytes of the packet after the link header, on the network: a floor for what an IP length of
    // zero means.
    let after = |header: usize| (packet.original as usize).saturating_sub(header);
    // The EtherType at `at`, and what follows the link header.
    let typed = |at: usize, header: usize| {
        let kind = be16(data, at).ok_or(Skip::CutShort)?;
        network(kind, data.get(header..), after(header), 0)
    };
    match packet.link {
        LINK_ETHERNET => typed(12, 14),
        // Linux cooked captures, versions 1 and 2.
        113 => typed(14, 16),
        LINK_SLL2 => typed(0, 20),
        // BSD null and OpenBSD loop: an address family in the byte order of some host. IPv4 is 2
        // everywhere; IPv6 is 10, 24, 28 or 30. The packet's version field decides.
        0 | 108 => by_version(data.get(4..), after(4), 0),
        LINK_RAW | 12 | 14 | 228 | 229 => by_version(Some(data), after(0), 0),
        // PPP, with or without the HDLC-like address and control.
        9 => ppp(data, after(0), 0),
        // The same, where Cisco's HDLC may stand instead of PPP.
        50 | 104 => match data.first() {
            Some(0x0f | 0x8f) => typed(2, 4),
            _ => ppp(data, after(0), 0),
        },
        51 => network(ETHERTYPE_PPPOE, Some(data), after(0), 0),
        _ => Err(Skip::LinkType),
    }
}

fn by_version(data: Option<&[u8]>, original: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    match data.and_then(<[u8]>::first).map(|first| first >> 4) {
        Some(4) => network(ETHERTYPE_IPV4, data, original, depth),
        Some(6) => network(ETHERTYPE_IPV6, data, original, depth),
        Some(_) => Err(Skip::NotIp),
        None => Err(Skip::CutShort),
    }
}

/// A frame of PPP; its protocol may be compressed to one byte (RFC 1661 §6.5).
fn ppp(data: &[u8], original: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let start = if data.starts_with(&[0xff, 0x03]) {
        2
    } else {
        0
    };
    let data = data.get(start..).unwrap_or(&[]);
    let (protocol, header) = match *data {
        [odd, ..] if odd & 1 == 1 => (u16::from(odd), 1),
        [high, low, ..] => (u16::from_be_bytes([high, low]), 2),
        _ => return Err(Skip::CutShort),
    };
    let kind = match protocol {
        0x00ff => return Err(Skip::CutShort),
        0x0021 => ETHERTYPE_IPV4,
        0x0057 => ETHERTYPE_IPV6,
        _ => return Err(Skip::NotIp),
    };
    network(
        kind,
        data.get(header..),
        original.saturating_sub(start + header),
        depth,
    )
}

/// The content behind a tunnel's Ethernet header.
fn ethernet(data: Option<&[u8]>, original: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let data = data.ok_or(Skip::CutShort)?;
    let kind = be16(data, 12).ok_or(Skip::CutShort)?;
    network(kind, data.get(14..), original.saturating_sub(14), depth)
}

/// `original` is the length on the network after the link header, padding included. Each header
/// takes four bytes or more, so the packet bounds the loop.
#[inline]
fn network(kind: u16, data: Option<&[u8]>, original: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    if depth > MAX_DEPTH {
        return Err(Skip::NotTcp);
    }
    let depth = depth + 1;
    let mut kind = kind;
    let mut data = data.ok_or(Skip::CutShort)?;
    let mut original = original;
    loop {
        match kind {
            ETHERTYPE_IPV4 => return ipv4(data, original, depth),
            ETHERTYPE_IPV6 => return ipv6(data, original, depth),
            ETHERTYPE_PPPOE => {
                let data = data.get(6..).ok_or(Skip::CutShort)?;
                return ppp(data, original.saturating_sub(6), depth);
            }
            kind if ETHERTYPES_MPLS.contains(&kind) => return mpls(data, original, depth),
            vlan if ETHERTYPES_VLAN.contains(&vlan) => {
                kind = be16(data, 2).ok_or(Skip::CutShort)?;
                data = data.get(4..).ok_or(Skip::CutShort)?;
                original = original.saturating_sub(4);
            }
            _ => return Err(Skip::NotIp),
        }
    }
}

/// A stack of labels, then IP, or an Ethernet frame behind a control word (RFC 4385).
#[inline(never)]
fn mpls(data: &[u8], original: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let mut labels = data.chunks_exact(4);
    let bottom = labels.position(|label| label[2] & 1 == 1);
    let header = (bottom.ok_or(Skip::CutShort)? + 1) * 4;
    let rest = &data[header..];
    let original = original.saturating_sub(header);
    match rest.first().map(|first| first >> 4) {
        Some(0) => ethernet(rest.get(4..), original.saturating_sub(4), depth),
        _ => by_version(Some(rest), original, depth),
    }
}

/// A UDP datagram that may be VXLAN.
#[inline(never)]
fn udp(data: &[u8], length: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let head: &[u8; 16] = front(data).ok_or(Skip::NotTcp)?;
    let port = u16::from_be_bytes([head[2], head[3]]);
    // The flag of a valid identifier alone, and nothing in what is reserved.
    let [flags, reserved @ .., last] = &head[8..] else {
        return Err(Skip::NotTcp);
    };
    if !VXLAN_PORTS.contains(&port) || *flags != 8 || reserved[..3] != [0; 3] || *last != 0 {
        return Err(Skip::NotTcp);
    }
    let network = u32::from_be_bytes([0, head[12], head[13], head[14]]);
    let mut ip =
        ethernet(data.get(16..), length.saturating_sub(16), depth).map_err(|_| Skip::NotTcp)?;
    ip.tunnel = ip.tunnel.or(Some(Tunnel::Vxlan(network)));
    Ok(ip)
}

/// The packet directly inside of an IP packet whose protocol is among [`TUNNELS`].
#[inline(never)]
fn inside(protocol: u8, data: &[u8], length: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let (inner, tunnel) = match protocol {
        4 => (
            network(ETHERTYPE_IPV4, Some(data), length, depth),
            Tunnel::Ip,
        ),
        41 => (
            network(ETHERTYPE_IPV6, Some(data), length, depth),
            Tunnel::Ip,
        ),
        _ => return gre(data, length, depth),
    };
    let mut ip = inner?;
    ip.tunnel = ip.tunnel.or(Some(tunnel));
    Ok(ip)
}

fn gre(data: &[u8], length: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let [flags, kind] = [0, 2].map(|at| be16(data, at));
    let (flags, kind) = (flags.ok_or(Skip::CutShort)?, kind.ok_or(Skip::CutShort)?);
    // Routing (RFC 1701) and version 1 (PPTP) are not read.
    if flags & 0x4007 != 0 {
        return Err(Skip::NotTcp);
    }
    let size = |flag: u16| if flags & flag != 0 { 4 } else { 0 };
    let (checksum, key, sequence) = (size(0x8000), size(0x2000), size(0x1000));
    let header = 4 + checksum + key + sequence;
    let number = data.get(4 + checksum..).and_then(front::<4>);
    let number = number.filter(|_| key > 0);
    let rest = |header: usize| (data.get(header..), length.saturating_sub(header));
    let inner = match kind {
        ETHERTYPE_BRIDGED => {
            let (data, length) = rest(header);
            ethernet(data, length, depth)
        }
        // ERSPAN; its type II has a header of its own.
        ETHERTYPE_ERSPAN => {
            let (data, length) = rest(header + 2 * sequence);
            ethernet(data, length, depth)
        }
        kind => {
            let (data, length) = rest(header);
            network(kind, data, length, depth)
        }
    };
    let mut ip = inner.map_err(|skip| match skip {
        Skip::NotIp => Skip::NotTcp,
        skip => skip,
    })?;
    let tunnel = Tunnel::Gre(number.map(|bytes| u32::from_be_bytes(*bytes)));
    ip.tunnel = ip.tunnel.or(Some(tunnel));
    Ok(ip)
}

#[inline]
fn ipv4(data: &[u8], original: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let fixed: &[u8; 20] = front(data).ok_or(Skip::CutShort)?;
    let header = usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || header < 20 {
        return Err(Skip::Malformed);
    }
    let length = match u16::from_be_bytes([fixed[2], fixed[3]]) {
        // Captured before segmentation in the network card (and above 64 KiB, "BIG TCP").
        0 => original,
        length => usize::from(length),
    };
    let length = length.checked_sub(header).ok_or(Skip::Malformed)?;
    let place = u16::from_be_bytes([fixed[6], fixed[7]]);
    let fragment = (place & 0x3fff != 0).then(|| Fragment {
        id: u32::from(u16::from_be_bytes([fixed[4], fixed[5]])),
        offset: usize::from(place & 0x1fff) * 8,
        more: place & 0x2000 != 0,
    });
    match fixed[9] {
        PROTOCOL_TCP => {}
        PROTOCOL_UDP if fragment.is_none() => {
            return udp(data.get(header..).unwrap_or(&[]), length, depth);
        }
        protocol if TUNNELS.contains(&protocol) && fragment.is_none() => {
            return inside(protocol, data.get(header..).unwrap_or(&[]), length, depth);
        }
        _ => return Err(Skip::NotTcp),
    }
    let address = |at: usize| {
        let four = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        Endpoint::ipv4(u32::from_be_bytes(four))
    };
    Ok(Ip {
        source: address(12),
        destination: address(16),
        data: data.get(header..).ok_or(Skip::CutShort)?,
        length,
        fragment,
        tunnel: None,
    })
}

fn ipv6(data: &[u8], original: usize, depth: u8) -> Result<Ip<'_>, Skip> {
    let fixed: &[u8; 40] = front(data).ok_or(Skip::CutShort)?;
    if fixed[0] >> 4 != 6 {
        return Err(Skip::Malformed);
    }
    let mut length = match u16::from_be_bytes([fixed[4], fixed[5]]) {
        // A jumbogram or a packet before segmentation.
        0 => original.saturating_sub(40),
        length => usize::from(length),
    };
    let address = |at: usize| {
        let bytes = fixed.get(at..).and_then(front);
        u128::from_be_bytes(*bytes.expect("both addresses lie in the fixed header"))
    };
    let mut fragment = None;
    let mut kind = fixed[6];
    let mut rest = &data[40..];
    // Each header takes eight bytes or more, so the packet bounds the loop.
    while kind != PROTOCOL_TCP {
        if kind == PROTOCOL_UDP && fragment.is_none() {
            return udp(rest, length, depth);
        }
        if TUNNELS.contains(&kind) && fragment.is_none() {
            return inside(kind, rest, length, depth);
        }
        let head: &[u8; 8] = front(rest).ok_or(match kind {
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => Skip::CutShort,
            _ => Skip::NotTcp,
        })?;
        let header = match kind {
            // Behind another fragment than the first there are no headers to be read.
            _ if fragment.is_some() => return Err(Skip::NotTcp),
            0 | 43 | 60 | 135 | 139 | 140 => usize::from(head[1]) * 8 + 8,
            51 => usize::from(head[1]) * 4 + 8,
            44 => {
                let place = u16::from_be_bytes([head[2], head[3]]);
                // Without an offset and others to follow it is whole (RFC 6946).
                fragment = (place & 0xfff9 != 0).then(|| Fragment {
                    id: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
                    offset: usize::from(place & 0xfff8),
                    more: place & 1 != 0,
                });
                8
            }
            _ => return Err(Skip::NotTcp),
        };
        kind = head[0];
        length = length.checked_sub(header).ok_or(Skip::Malformed)?;
        rest = rest.get(header..).ok_or(Skip::CutShort)?;
    }
    Ok(Ip {
        source: address(8),
        destination: address(24),
        data: rest,
        length,
        fragment,
        tunnel: None,
    })
}
