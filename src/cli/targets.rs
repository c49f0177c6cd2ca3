//! Targets that may be probed over HTTP, and files of targets.

use super::host_port::HostPort;
use super::value;
use crate::session::allow::Network;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

/// Most targets of one process: three threads each.
const TARGETS_MAX: usize = 4_096;

/// A pattern of `--probe-allow`: `host:port`, `host:*`, `10.0.0.0/8:9000`, `[2001:db8::/32]:*`.
///
/// A name allows only the same name in a request, and a network only addresses in digits. The
/// resolver's answer for some other name allows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    host: Host,
    /// `None` for any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Net(Network),
}

impl Allowed {
    /// Returns `true` if a target matches.
    pub fn allows(&self, target: &HostPort) -> bool {
        let host = target.host.as_deref().unwrap_or_default();
        let is_host = match (&self.host, host.parse::<IpAddr>()) {
            (Host::Name(name), _) => name.eq_ignore_ascii_case(host),
            (Host::Net(network), Ok(address)) => network.contains(address),
            (Host::Net(_), Err(_)) => false,
        };
        is_host && self.port.map_or(true, |port| port == target.port)
    }
}

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let how = "write host:port, host:* or a network as in 10.0.0.0/8:9000 or [2001:db8::/32]:*";
        let wrong = || format!("is no pattern of targets: {how}");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = match port {
            "*" => None,
            port => Some(value::integer(port, 1..=u16::MAX).map_err(|_| wrong())?),
        };
        let inner = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let plain = inner.unwrap_or(host);
        let host = match plain.parse::<Network>() {
            Ok(_) if plain.contains(':') != inner.is_some() => return Err(wrong()),
            Ok(network) => Host::Net(network),
            Err(_) if inner.is_none() && !plain.contains('/') => {
                // As strict as a target: a pattern that no request can match is a mistake.
                let endpoint = HostPort::hop(&format!("{host}:1")).map_err(|_| wrong())?;
                Host::Name(endpoint.host.unwrap_or_default())
            }
            Err(_) => return Err(wrong()),
        };
        Ok(Self { host, port })
    }
}

/// A line of a file of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in figures: the second word, else the address.
    pub name: String,
    /// The first hop; has a host and a port above 0.
    pub address: HostPort,
}

/// Reads a file of targets: an address per line and perhaps a name; `#` begins a comment.
///
/// # Errors
///
/// The line that is wrong, and the reason; also for a file without targets and for a repeated name.
pub fn parse_targets(text: &str) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    let mut names = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (address, name) = match line.split_once(char::is_whitespace) {
            Some((address, name)) => (address, name.trim()),
            None => (line, line),
        };
        let wrong = |reason: String| format!("line {number}: {reason}");
        let parsed = HostPort::hop(address);
        let parsed = parsed.map_err(|reason| wrong(format!("{address:?} {reason}")))?;
        let label = value::label(name);
        let label = label.map_err(|reason| wrong(format!("the name {name:?} {reason}")))?;
        if !names.insert(label.clone()) {
            return Err(wrong(format!("the name {name:?} stands in a line before")));
        }
        if targets.len() == TARGETS_MAX {
            return Err(wrong(format!("more than {TARGETS_MAX} targets")));
        }
        targets.push(Target {
            name: label,
            address: parsed,
        });
    }
    if targets.is_empty() {
        return Err("has no target: write one host:port per line".into());
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_allows_what_it_says_and_nothing_else() {
        for (pattern, target, expected) in [
            ("b.example:9000", "b.example:9000", true),
            ("b.example:9000", "B.Example:9000", true),
            ("b.example:9000", "b.example:9001", false),
            ("b.example:9000", "b.example.evil:9000", false),
            ("b.example:*", "b.example:1", true),
            ("10.0.0.7:9000", "10.0.0.7:9000", true),
            ("10.0.0.7:9000", "[::ffff:10.0.0.7]:9000", true),
            ("10.0.0.7:9000", "10.0.0.8:9000", false),
            ("10.0.0.0/8:*", "10.255.0.1:22", true),
            ("10.0.0.0/8:*", "11.0.0.1:22", false),
            ("10.0.0.0/8:*", "ten.example:22", false),
            ("0.0.0.0/0:9000", "192.0.2.1:9000", true),
            ("0.0.0.0/0:9000", "[2001:db8::1]:9000", false),
            ("[::ffff:10.0.0.0/104]:*", "10.9.9.9:22", true),
            ("[2001:db8::/32]:9000", "[2001:db8:ffff::1]:9000", true),
            ("[2001:db8::/32]:9000", "[2001:db9::1]:9000", false),
            ("[::1]:9000", "[::1]:9000", true),
        ] {
            let allowed: Allowed = pattern.parse().expect(pattern);
            let target = target.parse().expect(target);
            assert_eq!(allowed.allows(&target), expected, "{pattern} {target}");
        }
    }

    #[test]
    fn a_pattern_that_means_nothing_is_refused() {
        for text in [
            "",
            "b",
            "b:",
            "b:0",
            "b:65536",
            ":9000",
            "*:9000",
            "10.0.0.0/33:1",
            "10.0.0.7/8:1",
            "10.0.0.0/x:1",
            "b/8:1",
            "::1:9000",
            "[::1:9000",
            "[b]:9000",
            "[10.0.0.1]:9000",
            "[::/129]:1",
        ] {
            let error = text.parse::<Allowed>().expect_err(text);
            assert!(error.contains("10.0.0.0/8:9000"), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_of_targets_has_addresses_names_and_comments() {
        let text = "# rack\n\nb.example:9000\n 10.0.0.7:9000\t rack 7 # old\n[::1]:9\n";
        let targets = parse_targets(text).unwrap();
        let shown: Vec<_> = targets
            .iter()
            .map(|target| format!("{}={}", target.name, target.address))
            .collect();
        let expected = [
            "b.example:9000=b.example:9000",
            "rack 7=10.0.0.7:9000",
            "[::1]:9=[::1]:9",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_file_that_makes_no_sense_names_the_line() {
        for (text, part) in [
            ("", "has no target"),
            ("# only this", "has no target"),
            ("b:1\nb", "line 2: \"b\" has no port"),
            (
                "b:1 x\nc:1 x",
                "line 2: the name \"x\" stands in a line before",
            ),
            (":9000", "line 1: \":9000\" names no host"),
            ("b:1 a\u{7}", "line 1: the name"),
        ] {
            let error = parse_targets(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
        let many: String = (0..=TARGETS_MAX)
            .map(|port| format!("b:1 {port}\n"))
            .collect();
        assert!(parse_targets(&many).unwrap_err().contains("more than"));
    }
}
