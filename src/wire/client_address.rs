//! The two ends of a client's connection, as the entry of a path saw them, for the server behind
//! its exit.

use super::ParseError;
use byteorder::{BigEndian, ByteOrder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The two ends of a client's connection, both of one family.
///
/// ```text
/// value of CLIENT_ADDRESS:
/// | family 1 | reserved 3 | source 4 or 16 | destination likewise | source port 2 | other 2 |
/// ```
/// The family is 4 or 6. Bytes behind the ports belong to a later version and are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// The end of the client.
    pub source: SocketAddr,
    /// The end that it connected to.
    pub destination: SocketAddr,
}

/// Length of what precedes the addresses.
const FIXED_LEN: usize = 4;

impl ClientAddress {
    /// Makes the pair of ends. An IPv4-mapped address is the IPv4 one that it maps; of two families
    /// both become IPv6.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let plain = [source, destination].map(|end| end.ip().to_canonical());
        let mapped = |ip| match ip {
            IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::V6(_) => ip,
        };
        let [from, to] = if plain[0].is_ipv4() == plain[1].is_ipv4() {
            plain
        } else {
            plain.map(mapped)
        };
        Self {
            source: SocketAddr::new(from, source.port()),
            destination: SocketAddr::new(to, destination.port()),
        }
    }

    /// Reads the value of a [`CLIENT_ADDRESS`](super::ANNOTATION_CLIENT_ADDRESS).
    ///
    /// # Errors
    ///
    /// [`ParseError::Content`] if it is too short or of an unknown family.
    pub fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let block = value.get(FIXED_LEN..);
        let parsed = block.and_then(|block| match value[0] {
            4 => Self::parse_block(block, true),
            6 => Self::parse_block(block, false),
            _ => None,
        });
        parsed.ok_or(ParseError::Content {
            part: "client address annotation",
        })
    }

    /// The value.
    pub fn emit(&self) -> Vec<u8> {
        let family = if self.source.is_ipv4() { 4 } else { 6 };
        let mut out = vec![family, 0, 0, 0];
        self.emit_block(&mut out);
        out
    }

    /// Reads both addresses, then both ports; `None` if `block` is too short.
    pub(super) fn parse_block(block: &[u8], is_ipv4: bool) -> Option<Self> {
        let len = if is_ipv4 { 4 } else { 16 };
        let block = block.get(..2 * len + 4)?;
        let ip = |bytes: &[u8]| -> IpAddr {
            if is_ipv4 {
                Ipv4Addr::from_bits(BigEndian::read_u32(bytes)).into()
            } else {
                Ipv6Addr::from_bits(BigEndian::read_u128(bytes)).into()
            }
        };
        let port = |at: usize| BigEndian::read_u16(&block[2 * len + at..]);
        Some(Self {
            source: SocketAddr::new(ip(block), port(0)),
            destination: SocketAddr::new(ip(&block[len..]), port(2)),
        })
    }

    pub(super) fn emit_block(&self, out: &mut Vec<u8>) {
        let ends = [self.source, self.destination];
        for end in ends {
            match end.ip() {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
        for end in ends {
            out.extend_from_slice(&end.port().to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(source: &str, destination: &str) -> ClientAddress {
        ClientAddress::new(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn the_layout_of_both_families() {
        let v4 = address("192.0.2.1:258", "10.0.0.7:80");
        let bytes = [4, 0, 0, 0, 192, 0, 2, 1, 10, 0, 0, 7, 1, 2, 0, 80];
        assert_eq!(v4.emit(), bytes);
        let v6 = address("[2001:db8::1]:258", "[::1]:443");
        let mut bytes = vec![6, 0, 0, 0, 0x20, 1, 0x0d, 0xb8];
        bytes.extend([0; 11]);
        bytes.push(1);
        bytes.extend([0; 15]);
        bytes.extend([1, 1, 2, 1, 0xbb]);
        assert_eq!(v6.emit(), bytes);
        for one in [v4, v6] {
            let mut bytes = one.emit();
            for len in 0..bytes.len() {
                assert!(ClientAddress::parse(&bytes[..len]).is_err(), "{len}");
            }
            assert_eq!(ClientAddress::parse(&bytes), Ok(one));
            bytes.push(9); // Of a later version.
            assert_eq!(ClientAddress::parse(&bytes), Ok(one));
            bytes[0] = 5;
            assert!(ClientAddress::parse(&bytes).is_err());
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4_and_two_families_become_one() {
        let mapped = address("[::ffff:192.0.2.1]:1", "[::ffff:10.0.0.7]:2");
        assert_eq!(mapped, address("192.0.2.1:1", "10.0.0.7:2"));
        let mixed = address("192.0.2.1:1", "[2001:db8::1]:2");
        assert_eq!(mixed.source.to_string(), "[::ffff:192.0.2.1]:1");
        assert_eq!(ClientAddress::parse(&mixed.emit()), Ok(mixed));
    }
}
