//! The parts of a path's delay: every nanosecond of a block's total lies in one of them.

use std::fmt;

/// A part of the path, named by hops, or the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// From the due time of a block to its return: the sum of all parts but the server.
    Total,
    /// A node: its residence both ways, and its wake-up delays where the kernel's times are known.
    Host(u8),
    /// The time that blocks waited at `from` until it was connected to `to`.
    Connect {
        /// Hop of the node that connects.
        from: u8,
        /// Hop of the node that it connects to.
        to: u8,
    },
    /// The stretch between two neighbouring nodes.
    Segment {
        /// Hop of the near node.
        from: u8,
        /// Hop of the far node.
        to: u8,
    },
    /// All that lies behind the node at this hop, the last one that stamps.
    Behind(u8),
    /// The server behind an exit and the network to it, by its answers; not in the total.
    Server,
    /// The connects of an exit to its server; not in the total.
    ServerConnect,
}

impl Part {
    /// The word for its kind in reports, metrics and rules.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Host(_) => "host",
            Self::Connect { .. } => "connect",
            Self::Segment { .. } => "segment",
            Self::Behind(_) => "behind",
            Self::Server | Self::ServerConnect => "server",
        }
    }

    /// The hop of a node, or the near and the far hop of what lies between two. All `None` for the
    /// total and the server.
    pub fn hops(self) -> [Option<u8>; 2] {
        match self {
            Self::Host(hop) | Self::Behind(hop) => [Some(hop), None],
            Self::Connect { from, to } | Self::Segment { from, to } => [Some(from), Some(to)],
            Self::Total | Self::Server | Self::ServerConnect => [None, None],
        }
    }

    /// `true` if it lies behind an exit, outside of the total.
    pub fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::ServerConnect)
    }

    /// Reads what [`Display`](fmt::Display) wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, hops) = text.split_once(':').unwrap_or((text, ""));
        let two = || {
            let (from, to) = hops.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        match (kind, hops) {
            ("total", "") => Some(Self::Total),
            ("server", "") => Some(Self::Server),
            ("server", "connect") => Some(Self::ServerConnect),
            ("host", _) => Some(Self::Host(hops.parse().ok()?)),
            ("behind", _) => Some(Self::Behind(hops.parse().ok()?)),
            ("connect", _) => two().map(|(from, to)| Self::Connect { from, to }),
            ("segment", _) => two().map(|(from, to)| Self::Segment { from, to }),
            _ => None,
        }
    }

    /// Its name, with the nodes' names by hop: `B -> C`, `C`, `connect B -> C`, `behind C`, and
    /// with `last` for the exit `C -> server`; `server` if the exit is unknown.
    pub fn name(self, node: &dyn Fn(u8) -> String, last: Option<u8>) -> String {
        let server = || match last {
            Some(exit) => format!("{} -> server", node(exit)),
            None => "server".to_owned(),
        };
        match self {
            Self::ServerConnect => format!("connect {}", server()),
            Self::Total => "total".to_owned(),
            Self::Server => server(),
            Self::Host(hop) => node(hop),
            Self::Behind(hop) => format!("behind {}", node(hop)),
            Self::Connect { from, to } => format!("connect {} -> {}", node(from), node(to)),
            Self::Segment { from, to } => format!("{} -> {}", node(from), node(to)),
        }
    }
}

/// `total`, `host:1`, `segment:0-1`, `connect:0-1`, `behind:2`, `server`, `server:connect`: as in a
/// state file.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Total | Self::Server => f.write_str(kind),
            Self::ServerConnect => write!(f, "{kind}:connect"),
            Self::Host(hop) | Self::Behind(hop) => write!(f, "{kind}:{hop}"),
            Self::Connect { from, to } | Self::Segment { from, to } => {
                write!(f, "{kind}:{from}-{to}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_as_it_was_written() {
        let parts = [
            Part::Total,
            Part::Host(3),
            Part::Connect { from: 0, to: 2 },
            Part::Segment { from: 254, to: 255 },
            Part::Behind(7),
            Part::Server,
            Part::ServerConnect,
        ];
        for part in parts {
            assert_eq!(Part::parse(&part.to_string()), Some(part));
        }
        for text in [
            "",
            "host",
            "host:256",
            "segment:1",
            "segment:1-",
            "server:1",
            "x:1",
        ] {
            assert_eq!(Part::parse(text), None, "{text}");
        }
    }
}
