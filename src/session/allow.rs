//! The networks whose clients may connect (`--allow`), and the throttle of equal log lines.

use crate::time::{MonoTime, Nanos};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits before the IPv4 address in an IPv4-mapped one, `::ffff:192.0.2.1` (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A network in CIDR notation (RFC 4632, RFC 4291 §2.3). An IPv4-mapped one is the IPv4 network
/// that it maps.
///
/// `Display` writes a text that parses to the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Returns `true` if `address` is in this network. A listener of both families sees IPv4
    /// clients as mapped ones, which count as IPv4. So `::/0` is all of IPv6 and nothing of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ & high_bits(self.prefix, 32) as u32 == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ & high_bits(self.prefix, 128) == 0
            }
            _ => false,
        }
    }
}

/// The mask of a prefix: the `prefix` highest of `width` bits.
fn high_bits(prefix: u8, width: u8) -> u128 {
    let all = u128::MAX >> (128 - width);
    all & !all.checked_shr(prefix.into()).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err("is no network: write 10.0.0.0/8, 2001:db8::/32 or an address".into());
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix.map(|text| (digits(text), text.parse::<u8>())) {
            None => width,
            Some((true, Ok(prefix))) if prefix <= width => prefix,
            Some(_) => return Err(format!("has no prefix length from 0 to {width}")),
        };
        let (address, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), plain @ IpAddr::V4(_)) if prefix >= MAPPED_BITS => {
                (plain, prefix - MAPPED_BITS)
            }
            _ => (address, prefix),
        };
        let network: IpAddr = match address {
            IpAddr::V4(v4) => {
                Ipv4Addr::from_bits(v4.to_bits() & high_bits(prefix, 32) as u32).into()
            }
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & high_bits(prefix, 128)).into(),
        };
        if network != address {
            return Err(format!(
                "has bits beyond its prefix: write {network}/{prefix} for the network, {address} \
                 for one address"
            ));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Reads a file of networks: one per line; `#` begins a comment.
///
/// # Errors
///
/// The line that is wrong, and the reason; also for a file without networks.
pub fn parse_networks(text: &str) -> Result<Vec<Network>, String> {
    let mut networks = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let network = line.parse();
            let wrong = |reason: String| format!("line {number}: {line:?} {reason}");
            networks.push(network.map_err(wrong)?);
        }
    }
    if networks.is_empty() {
        return Err("has no network: write one per line; no client could connect".into());
    }
    Ok(networks)
}

/// Returns `true` if `peer` is in one of the networks, or if there are none.
pub fn is_allowed(networks: &[Network], peer: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(peer))
}

/// The least time between two log lines on one matter: a client that can cause them must not be
/// able to fill a disk.
const PAUSE: Nanos = Nanos::from_millis(10_000);

/// Decides which of many equal lines are logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogThrottle {
    logged: Option<MonoTime>,
    suppressed: u64,
}

impl LogThrottle {
    /// Counts an event at `now`. Returns the number of lines that were suppressed before, if this
    /// one is to be logged.
    pub fn happened(&mut self, now: MonoTime) -> Option<u64> {
        if self.logged.is_some_and(|at| now.since(at) < PAUSE) {
            self.suppressed += 1;
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    #[test]
    fn a_file_of_networks_has_one_per_line_and_at_least_one() {
        let text = "# clients\n\n10.0.0.0/8 # site\n ::1\t\n";
        let networks = ["10.0.0.0/8", "::1"].map(|text| text.parse().unwrap());
        assert_eq!(parse_networks(text), Ok(networks.to_vec()));
        let error = parse_networks("::1\n10.0.0.7/8\n").unwrap_err();
        assert!(
            error.starts_with("line 2: \"10.0.0.7/8\" has bits beyond"),
            "{error}"
        );
        for none in ["", "# 10.0.0.0/8\n", "\n \n"] {
            assert!(parse_networks(none).unwrap_err().contains("has no network"));
        }
    }

    #[test]
    fn an_address_is_in_a_network_whose_prefix_it_shares() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "fe80::1", "127.0.0.1"),
            ("::/0", "2001:db8::1", "::ffff:127.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ] {
            let network = network(text);
            assert!(network.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{text} {outside}"
            );
        }
    }

    #[test]
    fn a_network_is_written_as_it_is_read() {
        for (text, written) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(network(text).to_string(), written);
            assert_eq!(network(written), network(text));
        }
    }

    #[test]
    fn a_text_that_is_no_network_is_refused_with_the_right_form() {
        for (text, part) in [
            ("", "is no network"),
            ("localhost", "is no network"),
            ("10.0.0/8", "is no network"),
            ("fe80::1%eth0", "is no network"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.7/8", "write 10.0.0.0/8 for the network, 10.0.0.7"),
            ("2001:db8::1/32", "write 2001:db8::/32"),
            ("::ffff:10.0.0.7/104", "write 10.0.0.0/8"),
        ] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn without_networks_every_client_is_allowed() {
        let peer = "192.0.2.1".parse().unwrap();
        assert!(is_allowed(&[], peer));
        assert!(!is_allowed(&[network("10.0.0.0/8")], peer));
        assert!(is_allowed(
            &[network("10.0.0.0/8"), network("192.0.2.0/24")],
            peer
        ));
    }

    #[test]
    fn a_flood_is_logged_once_and_then_counted() {
        let mut throttle = LogThrottle::default();
        let at = |ms| MonoTime(Nanos::from_millis(ms).0);
        assert_eq!(throttle.happened(at(5)), Some(0), "the first at once");
        for ms in 6..5000 {
            assert_eq!(throttle.happened(at(ms)), None);
        }
        assert_eq!(throttle.happened(at(10_005)), Some(4994));
        assert_eq!(throttle.happened(at(10_006)), None);
    }
}
