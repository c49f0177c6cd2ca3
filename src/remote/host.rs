//! Hosts as they are typed.

use std::net::Ipv6Addr;
use std::str::FromStr;

/// Most bytes of a name (RFC 1035).
const NAME_MAX: usize = 255;

/// A host as ssh takes it, and how the hop before reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWord {
    /// The argument of ssh: `[user@]host`, which is no option.
    pub login: String,
    /// The host without the user: a name, an address, or an alias of ssh_config.
    pub host: String,
    /// The name or address after `=`, without brackets; `None` if there is none.
    pub address: Option<String>,
}

impl FromStr for HostWord {
    type Err = String;

    /// Reads `[user@]host[=ADDR]`. The error completes the sentence "trace HOST ...".
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err(
                "is a URL: write user@host; a port belongs into ssh_config, or \
                 --ssh \"ssh -p PORT\""
                    .into(),
            );
        }
        let (login, address) = match text.split_once('=') {
            Some((login, address)) => (login, Some(reached_at(address)?)),
            None => (text, None),
        };
        let (user, host) = match login.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, login),
        };
        if host.is_empty() || user == Some("") {
            return Err("names no host: write [user@]host[=ADDR]".into());
        }
        if login.starts_with('-') || host.starts_with('-') {
            return Err("begins with a dash, as options do: write [user@]host[=ADDR]".into());
        }
        if login.len() > 2 * NAME_MAX || host.len() > NAME_MAX {
            return Err(format!("is too long: a name has at most {NAME_MAX} bytes"));
        }
        let is_odd = |c: char| c.is_whitespace() || c.is_control();
        if login.contains(is_odd) || host.contains(|c| "'\"`$\\!/,;&|<>()*?".contains(c)) {
            return Err("has characters that no host has: write [user@]host[=ADDR]".into());
        }
        Ok(Self {
            login: login.to_owned(),
            host: host.to_owned(),
            address,
        })
    }
}

/// Reads the name or address after `=`, with or without brackets.
fn reached_at(text: &str) -> Result<String, String> {
    let inner = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = inner.unwrap_or(text);
    if is_v6(address) {
        return Ok(address.to_owned());
    }
    if address.contains(':') {
        return Err("has a port: ports are chosen when the nodes start, see --ports".into());
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = (1..=NAME_MAX).contains(&address.len()) && address.bytes().all(is_plain);
    if inner.is_some() || !is_name || address.starts_with('-') {
        return Err(format!(
            "has {text:?} for an address: write a name or an address after ="
        ));
    }
    Ok(address.to_owned())
}

fn is_v6(text: &str) -> bool {
    let (address, _) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<Ipv6Addr>().is_ok()
}

/// Returns `address` with `port`, an IPv6 address in brackets.
pub fn endpoint(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Returns the names of the nodes, in order: the hosts as typed, and `host#2` for the second one of
/// the same host.
pub fn names(hosts: &[HostWord]) -> Vec<String> {
    let name = |(at, host): (usize, &HostWord)| {
        let earlier = hosts[..at].iter().filter(|one| one.host == host.host);
        match earlier.count() {
            0 => host.host.clone(),
            count => format!("{}#{}", host.host, count + 1),
        }
    };
    hosts.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> HostWord {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_host_is_read_as_ssh_takes_it() {
        for (text, login, host, address) in [
            ("db1", "db1", "db1", None),
            ("root@edge", "root@edge", "edge", None),
            ("a@b@edge", "a@b@edge", "edge", None),
            ("root@edge=10.0.0.7", "root@edge", "edge", Some("10.0.0.7")),
            (
                "my_alias=core.lan",
                "my_alias",
                "my_alias",
                Some("core.lan"),
            ),
            ("2001:db8::1", "2001:db8::1", "2001:db8::1", None),
            ("core=[2001:db8::1]", "core", "core", Some("2001:db8::1")),
            ("core=fe80::1%eth0", "core", "core", Some("fe80::1%eth0")),
        ] {
            let expected = HostWord {
                login: login.into(),
                host: host.into(),
                address: address.map(str::to_owned),
            };
            assert_eq!(word(text), expected, "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_host_is_refused_with_the_form() {
        for (text, part) in [
            ("", "names no host"),
            ("@edge", "names no host"),
            ("root@", "names no host"),
            ("=10.0.0.1", "names no host"),
            ("-oProxyCommand=reboot", "begins with a dash"),
            ("-oProxyCommand@edge", "begins with a dash"),
            ("root@-edge", "begins with a dash"),
            (&"a".repeat(300), "at most 255"),
            (&format!("{}@edge", "u".repeat(600)), "at most 255"),
            ("ed ge", "no host has"),
            ("edge'", "no host has"),
            ("ed$(reboot)", "no host has"),
            ("edge\u{7}", "no host has"),
            ("ssh://edge:22", "is a URL"),
            ("edge=", "for an address"),
            ("edge=-x", "for an address"),
            ("edge=[10.0.0.1]", "for an address"),
            ("edge=10.0.0.1:9000", "see --ports"),
        ] {
            let error = text.parse::<HostWord>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_the_hosts_and_later_ones_of_a_host_are_numbered() {
        let hosts: Vec<HostWord> = ["root@edge", "core=10.0.0.1", "edge", "you@edge"]
            .map(word)
            .into();
        assert_eq!(names(&hosts), ["edge", "core", "edge#2", "edge#3"]);
    }

    #[test]
    fn an_endpoint_has_brackets_around_ipv6_alone() {
        assert_eq!(endpoint("10.0.0.7", 9000), "10.0.0.7:9000");
        assert_eq!(endpoint("core.lan", 9000), "core.lan:9000");
        assert_eq!(endpoint("fd00::7", 9000), "[fd00::7]:9000");
    }
}
