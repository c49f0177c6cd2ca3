//! Host and port, as they are written on a command line.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Host and port as written; names are resolved later.
///
/// `Display` writes a text that parses to the same value: `b.example:9000`, `[fe80::1%eth0]:22`,
/// `:80`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an address, an IPv6 one without its brackets; `None` = every address of both
    /// families.
    pub host: Option<String>,
    /// The port; 0 only where the kernel is to choose one.
    pub port: u16,
}

impl HostPort {
    /// Reads an address to connect to: with a host, and with a port that exists.
    ///
    /// # Errors
    ///
    /// The part that it lacks; completes the sentence "ADDR ...".
    pub fn hop(text: &str) -> Result<Self, String> {
        let endpoint: Self = text.parse()?;
        if endpoint.host.is_none() {
            return Err("names no host to connect to: write host:port".into());
        }
        if endpoint.port == 0 {
            return Err("has port 0, which cannot be connected to: write 1 to 65535".into());
        }
        Ok(endpoint)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err("has no port: write host:port".into());
        };
        if text.parse::<Ipv6Addr>().is_ok() || (host.contains(':') && !host.starts_with('[')) {
            return Err(if text.contains("//") {
                "is a URL: write host:port alone".into()
            } else {
                "is ambiguous: write an IPv6 address in brackets, [2001:db8::1]:9000".into()
            });
        }
        if port.is_empty() || text.ends_with(']') {
            return Err("has no port: write host:port".into());
        }
        let host = match host.strip_prefix('[') {
            Some(inner) => Some(bracketed(inner)?),
            None if host.is_empty() || host == "*" => None,
            None => Some(plain(host)?),
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits => Ok(Self { host, port }),
            _ => Err(format!(
                "has {port:?} for a port: write a number up to 65535"
            )),
        }
    }
}

/// Reads the rest after an opening bracket: an IPv6 address, maybe with a zone, and the closing
/// bracket.
fn bracketed(inner: &str) -> Result<String, String> {
    let address = inner.strip_suffix(']').filter(|address| {
        let (address, zone) = address.split_once('%').unwrap_or((address, "0"));
        address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
    });
    address
        .map(str::to_owned)
        .ok_or_else(|| "has no IPv6 address in its brackets: write it as [2001:db8::1]:9000".into())
}

/// Checks a name or an IPv4 address. RFC 952 has no underscores in host names, but many
/// containers have.
fn plain(host: &str) -> Result<String, String> {
    if is_name(host) {
        Ok(host.to_owned())
    } else {
        Err(format!(
            "has {host:?} for a host: write a name or an address, as in b.example:9000"
        ))
    }
}

fn is_name(text: &str) -> bool {
    // RFC 1035 §2.3.4: a name has at most 255 bytes.
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_way_to_write_an_endpoint_is_read() {
        for (text, host, port) in [
            ("b.example:9000", Some("b.example"), 9000),
            ("my_container:1", Some("my_container"), 1),
            ("127.0.0.1:0", Some("127.0.0.1"), 0),
            (":9000", None, 9000),
            ("*:65535", None, 65535),
            ("[::1]:22", Some("::1"), 22),
            ("[fe80::1%eth0]:22", Some("fe80::1%eth0"), 22),
        ] {
            let endpoint: HostPort = text.parse().expect(text);
            assert_eq!(endpoint.host.as_deref(), host, "{text}");
            assert_eq!(endpoint.port, port, "{text}");
        }
    }

    #[test]
    fn a_bad_endpoint_says_how_to_write_it() {
        for (text, part) in [
            ("", "has no port: write host:port"),
            ("localhost", "has no port: write host:port"),
            ("localhost:", "has no port: write host:port"),
            ("9000", "has no port: write host:port"),
            ("[::1]", "has no port: write host:port"),
            ("::1", "in brackets"),
            ("2001:db8::1:9000", "in brackets"),
            ("a:b:80", "in brackets"),
            ("http://b.example:80", "is a URL"),
            ("[::1:9000", "as [2001:db8::1]:9000"),
            ("[]:9000", "as [2001:db8::1]:9000"),
            ("[localhost]:9000", "as [2001:db8::1]:9000"),
            ("[127.0.0.1]:9000", "as [2001:db8::1]:9000"),
            ("[fe80::1%]:9000", "as [2001:db8::1]:9000"),
            ("localhost:65536", "a number up to 65535"),
            ("localhost:-1", "a number up to 65535"),
            ("localhost:+1", "a number up to 65535"),
            ("localhost:http", "a number up to 65535"),
            ("b example:80", "a name or an address"),
            ("**:80", "a name or an address"),
            ("b]:80", "a name or an address"),
            ("b/c:80", "a name or an address"),
        ] {
            let message = text.parse::<HostPort>().expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
        let long = format!("{}:80", "x".repeat(256));
        assert!(long.parse::<HostPort>().is_err());
    }

    fn text_of(alphabet: &[u8], longest: usize, random: &mut Random) -> String {
        let len = 1 + random.below(longest);
        let characters = (0..len).map(|_| alphabet[random.below(alphabet.len())]);
        characters.map(char::from).collect()
    }

    #[test]
    fn endpoints_survive_being_written_and_read_again() {
        const SEED: u64 = 0x5eed_0001;
        let mut random = Random::new(SEED);
        for case in 0..2_000 {
            let host = match random.below(4) {
                0 => None,
                1 => Some(text_of(b"abcxyz0189-._", 20, &mut random)),
                2 => {
                    let mut groups = [0_u16; 8];
                    for group in &mut groups {
                        // Runs of zeros exercise the short form.
                        *group = (random.below(2) * random.below(0x1_0000)) as u16;
                    }
                    Some(Ipv6Addr::from(groups).to_string())
                }
                _ => Some(format!("fe80::1%{}", text_of(b"eth0wlan", 6, &mut random))),
            };
            let port = random.below(0x1_0000) as u16;
            let endpoint = HostPort { host, port };
            let text = endpoint.to_string();
            assert_eq!(
                text.parse(),
                Ok(endpoint),
                "seed {SEED:#x} case {case} {text}"
            );
        }
    }

    #[test]
    fn noise_that_parses_as_an_endpoint_means_what_it_shows() {
        const SEED: u64 = 0x5eed_0002;
        let mut random = Random::new(SEED);
        let mut parsed = 0;
        for case in 0..20_000 {
            let text = text_of(b"[]:*%.1a9", 9, &mut random);
            if let Ok(endpoint) = text.parse::<HostPort>() {
                parsed += 1;
                let shown = endpoint.to_string();
                assert_eq!(
                    shown.parse(),
                    Ok(endpoint),
                    "seed {SEED:#x} case {case} {text}"
                );
            }
        }
        assert!(parsed > 100, "only {parsed} of the cases were endpoints");
    }
}
