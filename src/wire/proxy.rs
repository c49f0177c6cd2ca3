//! The preamble of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): the ends of
//! a client's connection, ahead of all other bytes.
//!
//! ```text
//! version 1: PROXY TCP4 192.0.2.1 10.0.0.7 51000 443 CR LF    at most 107 bytes
//!            PROXY TCP6 ...    PROXY UNKNOWN [anything]
//!
//! version 2:
//! 0            12                    13                   14         16
//! | signature 12 | version, command 1 | family, protocol 1 | length 2 | addresses | TLVs |
//! ```
//!
//! UNKNOWN, and the command LOCAL (0; PROXY is 1), mean the connection's own ends: a check of a
//! balancer, or a client without an IP address. So do families and protocols other than TCP over
//! IPv4 (0x11) and IPv6 (0x21). The checksum, TLV 3, is the CRC-32C of the whole preamble with 0 in
//! its place.

use super::client_address::ClientAddress;
use byteorder::{BigEndian, ByteOrder};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The longest preamble that is read, in bytes.
pub const MAX_PREAMBLE: usize = 4096;

/// The beginning of version 1.
pub const PROXY_V1: &[u8] = b"PROXY ";
/// The beginning of version 2.
pub const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const V1_MAX: usize = 107;
const V2_FIXED: usize = 16;
/// TLV of the checksum, and its length.
const CRC32C: (u8, usize) = (3, 4);

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// A preamble that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Its length in bytes.
    pub len: usize,
    /// The client; `None` stands for the connection's own ends.
    pub client: Option<ClientAddress>,
}

/// The reason why bytes are no whole preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// They may begin one: read more.
    Incomplete,
    /// They begin otherwise.
    Missing,
    /// A part is wrong; the text names it.
    Malformed(&'static str),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("an unfinished PROXY protocol preamble"),
            Self::Missing => f.write_str("no PROXY protocol preamble"),
            Self::Malformed(part) => write!(f, "a broken PROXY protocol preamble: {part}"),
        }
    }
}

/// Makes a preamble. Without a client it is the one of a check: `PROXY UNKNOWN`, or LOCAL.
pub fn emit(version: ProxyVersion, client: Option<&ClientAddress>) -> Vec<u8> {
    match (version, client) {
        (ProxyVersion::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (
            ProxyVersion::V1,
            Some(ClientAddress {
                source,
                destination,
            }),
        ) => {
            let family = if source.is_ipv4() { 4 } else { 6 };
            let (from, to) = (source.ip(), destination.ip());
            let ports = (source.port(), destination.port());
            format!("PROXY TCP{family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        (ProxyVersion::V2, client) => {
            let (command, family, len) = match client {
                None => (0x20, 0, 0),
                Some(client) if client.source.is_ipv4() => (0x21, 0x11, 12),
                Some(_) => (0x21, 0x21, 36),
            };
            let mut out = PROXY_V2.to_vec();
            out.extend_from_slice(&[command, family, 0, len]);
            if let Some(client) = client {
                client.emit_block(&mut out);
            }
            out
        }
    }
}

/// Reads the preamble at the front of `bytes`; what follows it is not looked at.
///
/// # Errors
///
/// [`ProxyError`], as soon as the bytes decide it.
pub fn parse(bytes: &[u8]) -> Result<Preamble, ProxyError> {
    let begins = |signature: &[u8]| {
        let len = bytes.len().min(signature.len());
        bytes[..len] == signature[..len]
    };
    if begins(PROXY_V2) {
        parse_v2(bytes)
    } else if begins(PROXY_V1) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Preamble, ProxyError> {
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.iter().position(|&byte| byte == b'\n') else {
        return Err(match line.len() {
            V1_MAX => ProxyError::Malformed("a line of more than 107 bytes"),
            _ => ProxyError::Incomplete,
        });
    };
    let text = line[..end].strip_suffix(b"\r");
    let text = text.ok_or(ProxyError::Malformed("a line without CR LF"))?;
    let malformed = ProxyError::Malformed("its addresses");
    let text = std::str::from_utf8(text).map_err(|_| malformed)?;
    let mut words = text.split(' ').skip(1);
    let client = match words.next() {
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let words: Vec<_> = words.collect();
            let [from, to, near, far] = words[..] else {
                return Err(malformed);
            };
            let ip = |word: &str| match word.parse::<IpAddr>() {
                Ok(ip) if ip.is_ipv4() == (family == "TCP4") => Ok(ip),
                _ => Err(malformed),
            };
            let port = |word: &str| {
                let is_plain = word.bytes().all(|byte| byte.is_ascii_digit())
                    && (word.len() == 1 || !word.starts_with('0'));
                let port = word.parse().ok().filter(|_| is_plain);
                port.ok_or(ProxyError::Malformed("its ports"))
            };
            Some(ClientAddress::new(
                SocketAddr::new(ip(from)?, port(near)?),
                SocketAddr::new(ip(to)?, port(far)?),
            ))
        }
        _ => return Err(ProxyError::Malformed("its family")),
    };
    let len = end + 1;
    Ok(Preamble { len, client })
}

fn parse_v2(bytes: &[u8]) -> Result<Preamble, ProxyError> {
    let Some(fixed) = bytes.get(PROXY_V2.len()..V2_FIXED) else {
        return Err(ProxyError::Incomplete);
    };
    if fixed[0] >> 4 != 2 {
        return Err(ProxyError::Malformed("a version other than 2"));
    }
    let (family, protocol) = (fixed[1] >> 4, fixed[1] & 15);
    if fixed[0] & 15 > 1 || family > 3 || protocol > 2 {
        return Err(ProxyError::Malformed("an unknown command or family"));
    }
    let len = V2_FIXED + usize::from(BigEndian::read_u16(&fixed[2..]));
    if len > MAX_PREAMBLE {
        return Err(ProxyError::Malformed("more than 4096 bytes"));
    }
    let Some(whole) = bytes.get(..len) else {
        return Err(ProxyError::Incomplete);
    };
    let block = &whole[V2_FIXED..];
    let is_local = fixed[0] & 15 == 0;
    let addresses = match family {
        1 => 12,
        2 => 36,
        3 => 216,
        // The length of its addresses is unknown, so that of its TLVs is, too.
        _ => block.len(),
    };
    let mut client = None;
    if !is_local {
        let Some(tlvs) = block.get(addresses..) else {
            return Err(ProxyError::Malformed("its addresses"));
        };
        check_tlvs(whole, tlvs)?;
        if protocol == 1 && (family == 1 || family == 2) {
            let parsed = ClientAddress::parse_block(block, family == 1);
            client = parsed.map(|ends| ClientAddress::new(ends.source, ends.destination));
        }
    }
    Ok(Preamble { len, client })
}

/// Checks the TLVs at the end of the preamble `whole`, and the checksum if there is one.
fn check_tlvs(whole: &[u8], mut tlvs: &[u8]) -> Result<(), ProxyError> {
    while let Some((&kind, rest)) = tlvs.split_first() {
        let malformed = ProxyError::Malformed("its TLVs");
        let len = rest.get(..2).map(BigEndian::read_u16).ok_or(malformed)?;
        let value = rest.get(2..2 + usize::from(len)).ok_or(malformed)?;
        tlvs = &rest[2 + value.len()..];
        if kind != CRC32C.0 {
            continue;
        }
        if value.len() != CRC32C.1 {
            return Err(malformed);
        }
        let at = whole.len() - tlvs.len() - value.len();
        let parts = [
            &whole[..at],
            &[0; CRC32C.1],
            &whole[whole.len() - tlvs.len()..],
        ];
        if crc32c(&parts) != BigEndian::read_u32(value) {
            return Err(ProxyError::Malformed("its checksum"));
        }
    }
    Ok(())
}

/// The CRC-32C (Castagnoli) of `parts` in a row; a bit at a time, as a connection has one preamble.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = !0_u32;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn client(source: &str, destination: &str) -> ClientAddress {
        ClientAddress::new(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[track_caller]
    fn assert_reads(bytes: &[u8], client: Option<ClientAddress>) {
        let read = Preamble {
            len: bytes.len(),
            client,
        };
        assert_eq!(parse(bytes), Ok(read), "{}", bytes.escape_ascii());
        assert_eq!(parse(&[bytes, b"GET /"].concat()), Ok(read));
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), Err(ProxyError::Incomplete), "{len}");
        }
    }

    /// The examples of the specification, §2.1.
    #[test]
    fn lines_of_version_1() {
        let v4 = client("192.168.0.1:56324", "192.168.0.11:443");
        let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
        assert_reads(line, Some(v4));
        assert_eq!(emit(ProxyVersion::V1, Some(&v4)), line);
        let most = client("255.255.255.255:65535", "255.255.255.255:65535");
        let line = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        assert_eq!(line.len(), 56);
        assert_reads(line, Some(most));
        assert_eq!(emit(ProxyVersion::V1, Some(&most)), line);
        let ip = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let most = client(&format!("[{ip}]:65535"), &format!("[{ip}]:65535"));
        let line = format!("PROXY TCP6 {ip} {ip} 65535 65535\r\n");
        assert_eq!(line.len(), 104);
        assert_reads(line.as_bytes(), Some(most));
        assert_eq!(emit(ProxyVersion::V1, Some(&most)), line.as_bytes());
        let line = format!("PROXY UNKNOWN {ip} {ip} 65535 65535\r\n");
        assert_eq!(line.len(), V1_MAX);
        assert_reads(line.as_bytes(), None);
        assert_reads(b"PROXY UNKNOWN\r\n", None);
        assert_eq!(emit(ProxyVersion::V1, None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn bytes_of_version_2() {
        let v4 = client("192.0.2.1:258", "10.0.0.7:443");
        let bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x07\x01\x02\x01\xbb";
        assert_eq!(emit(ProxyVersion::V2, Some(&v4)), bytes);
        assert_reads(bytes, Some(v4));
        let v6 = client("[2001:db8::1]:258", "[::1]:443");
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8".to_vec();
        bytes.extend([0; 11]);
        bytes.push(1);
        bytes.extend([0; 15]);
        bytes.extend(b"\x01\x01\x02\x01\xbb");
        assert_eq!(emit(ProxyVersion::V2, Some(&v6)), bytes);
        assert_reads(&bytes, Some(v6));
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(emit(ProxyVersion::V2, None), local);
        assert_reads(local, None);
    }

    /// A preamble of version 2 of this command, family and rest.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = (rest.len() as u16).to_be_bytes();
        [PROXY_V2, &[command, family], &len, rest].concat()
    }

    #[test]
    fn all_but_tcp_over_ip_means_the_own_ends() {
        let addresses = [7; 12];
        // LOCAL: the rest is not looked at. UNSPEC, UDP, a unix socket.
        for (command, family, rest) in [
            (0x20, 0x11, &addresses[..]),
            (0x20, 0x11, b"junk"),
            (0x21, 0, b""),
            (0x21, 0, b"junk"),
            (0x21, 0x12, &addresses),
            (0x21, 0x31, &[b'/'; 216]),
        ] {
            assert_reads(&v2(command, family, rest), None);
        }
    }

    #[test]
    fn a_checksum_is_verified_wherever_it_stands_and_other_tlvs_are_skipped() {
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
        let addresses = [[192, 0, 2, 1], [10, 0, 0, 7], [1, 2, 1, 0xbb]].concat();
        let before: &[u8] = b"\x04\0\x03pad\x02\0\x04name";
        let rest = [&addresses[..], before, b"\x03\0\x04\0\0\0\0", b"\x05\0\0"].concat();
        let mut bytes = v2(0x21, 0x11, &rest);
        let at = V2_FIXED + 12 + before.len() + 3;
        let sum = crc32c(&[&bytes]).to_be_bytes();
        bytes[at..at + 4].copy_from_slice(&sum);
        assert_reads(&bytes, Some(client("192.0.2.1:258", "10.0.0.7:443")));
        let checksum = Err(ProxyError::Malformed("its checksum"));
        for place in V2_FIXED..V2_FIXED + 12 {
            let mut forged = bytes.clone();
            forged[place] ^= 1;
            assert_eq!(parse(&forged), checksum, "{place}");
        }
        // The header's own CRC-32 is another one.
        let sum = super::super::crc::crc32(&{
            let mut zeroed = bytes.clone();
            zeroed[at..at + 4].fill(0);
            zeroed
        });
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parse(&bytes), checksum);
    }

    #[test]
    fn a_broken_preamble_is_refused_with_the_part_that_is_wrong() {
        let long = [b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat();
        for (line, part) in [
            (&b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"[..], "CR LF"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", "ports"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "ports"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "ports"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", "ports"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "addresses"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "addresses"),
            (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "addresses"),
            (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", "addresses"),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", "addresses"),
            (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "addresses"),
            (b"PROXY TCP4 \xff 1.2.3.4 1 2\r\n", "addresses"),
            (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "family"),
            (b"PROXY \r\n", "family"),
            (&long, "107"),
            (&v2(0x11, 0x11, &[0; 12]), "version"),
            (&v2(0x22, 0x11, &[0; 12]), "command"),
            (&v2(0x21, 0x41, &[0; 12]), "family"),
            (&v2(0x21, 0x13, &[0; 12]), "family"),
            (&v2(0x21, 0x11, &[0; 11]), "addresses"),
            (&v2(0x21, 0x21, &[0; 35]), "addresses"),
            (&v2(0x21, 0x11, &[0; 13]), "TLVs"),
            (&v2(0x21, 0x11, &[[0; 12], [9; 12]].concat()), "TLVs"),
            (&v2(0x21, 0x11, &[0; 4081])[..16], "4096"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(matches!(error, ProxyError::Malformed(_)), "{error}");
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXi",
            b"\r\n\r\n\0\r\nQUIX",
            b"\0",
        ] {
            assert_eq!(parse(other), Err(ProxyError::Missing));
        }
    }

    #[test]
    fn what_is_written_is_read_and_mutations_are_read_the_same_whatever_follows() {
        for seed in 0..5_000 {
            let mut random = Random::new(seed);
            let mut end = |is_ipv4: bool| {
                let bits = u128::from(random.next()) << 64 | u128::from(random.next());
                let ip: IpAddr = if is_ipv4 {
                    std::net::Ipv4Addr::from_bits(bits as u32).into()
                } else {
                    std::net::Ipv6Addr::from_bits(bits).into()
                };
                SocketAddr::new(ip, (bits >> 40) as u16)
            };
            let is_ipv4 = seed % 2 == 0;
            let sent = ClientAddress::new(end(is_ipv4), end(is_ipv4));
            let version = if seed % 4 < 2 {
                ProxyVersion::V1
            } else {
                ProxyVersion::V2
            };
            let mut bytes = emit(version, Some(&sent));
            assert_reads(&bytes, Some(sent));
            for _ in 0..=random.next() % 3 {
                let place = random.next() as usize % bytes.len();
                bytes[place] = random.next() as u8;
            }
            bytes.truncate(random.next() as usize % (bytes.len() + 1));
            let read = parse(&bytes);
            if let Ok(preamble) = read {
                assert!(preamble.len <= bytes.len(), "{seed}");
            }
            // More bytes decide what was open, and change nothing that was decided.
            if read != Err(ProxyError::Incomplete) {
                bytes.extend([random.next() as u8; 40]);
                assert_eq!(parse(&bytes), read, "{seed}");
            }
        }
    }
}
