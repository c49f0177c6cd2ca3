//! The answers of the script, each on a line behind the tag of the run.

use std::fmt;

/// A random word that begins each answer. Banners and profiles write other lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// Returns the tag of random bits.
    pub fn new(bits: u64) -> Self {
        Self(format!("{bits:016x}"))
    }

    /// Returns the tag in two parts. A script has them apart, so that an echo of the script is no
    /// answer.
    pub fn halves(&self) -> (&str, &str) {
        self.0.split_at(self.0.len() / 2)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The byte order of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The lowest byte first.
    Little,
    /// The highest byte first.
    Big,
}

/// An answer of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAnswer {
    /// The system and the machine, as `uname -sm` prints them.
    Machine(String),
    /// The byte order; `None` if the host has no /proc.
    Order(Option<ByteOrder>),
    /// The boot of the kernel and its network namespace; `None` if they are unknown.
    Host(Option<String>),
    /// The path of an installed program.
    Path(String),
    /// The first line of the `-V` of the installed program.
    Installed(String),
    /// The look at the host is complete.
    End,
    /// A directory in which programs run; `None` if there is none.
    Dir(Option<String>),
    /// The bytes of a binary that arrived, and the first line of its `-V`.
    Put(u64, String),
    /// A line of the node.
    Node(String),
    /// The node ended before it listened.
    Ended,
    /// The bytes of a file that arrived.
    Took(u64),
    /// The probe ended with this exit code of the shell.
    Exit(i32),
    /// The size of a file, of which a piece follows.
    Piece(u64),
}

impl HostAnswer {
    /// Reads a line of the host; `None` for one that is no answer.
    pub fn read(line: &str, tag: &Tag) -> Option<Self> {
        // A prompt or a banner without a line end may stand before it.
        let (_, text) = line.split_once(&tag.0)?;
        let text = text.strip_prefix(' ')?.trim_end_matches('\r');
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let given = || (!rest.trim().is_empty()).then(|| rest.trim().to_owned());
        Some(match word {
            "machine" => Self::Machine(rest.trim().to_owned()),
            "order" => Self::Order(rest.chars().find_map(|c| match c {
                '\u{1}' => Some(ByteOrder::Little),
                '\u{2}' => Some(ByteOrder::Big),
                _ => None,
            })),
            "host" => Self::Host(host(rest)),
            "path" => Self::Path(rest.to_owned()),
            "installed" => Self::Installed(rest.to_owned()),
            "end" => Self::End,
            "dir" => Self::Dir(given()),
            "put" => {
                let (bytes, version) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
                Self::Put(bytes.parse().ok()?, version.trim().to_owned())
            }
            "node" => Self::Node(rest.to_owned()),
            "ended" => Self::Ended,
            "took" => Self::Took(rest.trim().parse().ok()?),
            "exit" => Self::Exit(rest.trim().parse().ok()?),
            "piece" => Self::Piece(rest.trim().parse().ok()?),
            _ => return None,
        })
    }
}

/// Reads the id of a boot and the listing of a network namespace.
fn host(text: &str) -> Option<String> {
    let boot = text.split_whitespace().next()?;
    let namespace = text.rsplit_once("net:[")?.1;
    Some(format!("{boot} net:[{}", namespace.trim()))
}

/// Returns the port of a node's line `...: listening on ADDRESS:PORT (...)`; `None` for another
/// line.
pub fn port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once(": listening on ")?;
    let address = rest.split(' ').next()?;
    address.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn read(text: &str) -> Option<HostAnswer> {
        HostAnswer::read(&format!("00000000000000ab {text}"), &Tag::new(0xab))
    }

    #[test]
    fn every_answer_is_read() {
        for (line, answer) in [
            (
                "machine Linux mips",
                HostAnswer::Machine("Linux mips".into()),
            ),
            ("order \u{1}", HostAnswer::Order(Some(ByteOrder::Little))),
            ("order \u{2}", HostAnswer::Order(Some(ByteOrder::Big))),
            ("order ", HostAnswer::Order(None)),
            ("host  ", HostAnswer::Host(None)),
            ("host 12-34 ", HostAnswer::Host(None)),
            (
                "host 12-34 lrwxrwxrwx 1 root root 0 Nov 28 00:00 /proc/self/ns/net -> net:[4026]",
                HostAnswer::Host(Some("12-34 net:[4026]".into())),
            ),
            (
                "path /usr/my bin/x",
                HostAnswer::Path("/usr/my bin/x".into()),
            ),
            ("installed x 0.1.0", HostAnswer::Installed("x 0.1.0".into())),
            ("end", HostAnswer::End),
            ("dir /tmp/.x.1", HostAnswer::Dir(Some("/tmp/.x.1".into()))),
            ("dir ", HostAnswer::Dir(None)),
            ("put 10 x 0.1.0", HostAnswer::Put(10, "x 0.1.0".into())),
            ("put 10 ", HostAnswer::Put(10, String::new())),
            ("node x: listening", HostAnswer::Node("x: listening".into())),
            ("ended\r", HostAnswer::Ended),
            ("took 7", HostAnswer::Took(7)),
            ("exit 2", HostAnswer::Exit(2)),
            ("piece 70000", HostAnswer::Piece(70_000)),
        ] {
            assert_eq!(read(line), Some(answer), "{line:?}");
        }
        for line in ["", "put x y", "put", "other", "exit"] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn chatter_around_answers_is_no_answer() {
        let tag = Tag::new(7);
        let (one, two) = tag.halves();
        assert_eq!(HostAnswer::read("Welcome to edge!", &tag), None);
        assert_eq!(
            HostAnswer::read(&format!("t={one}; t=$t{two}; echo"), &tag),
            None
        );
        let prompt = format!("\u{1b}[1medge$ {tag} end");
        assert_eq!(HostAnswer::read(&prompt, &tag), Some(HostAnswer::End));
        assert_eq!(HostAnswer::read(&format!("{tag}end"), &tag), None);
    }

    #[test]
    fn no_line_makes_the_reader_panic() {
        let tag = Tag::new(7);
        for seed in 0..2000 {
            let mut random = Random::new(seed);
            let words = [
                "put", "node", "order", "host", "net:[", " ", "9", "\u{1}", "\u{fffd}",
            ];
            let mut line = tag.to_string();
            for _ in 0..random.below(8) {
                line.push(' ');
                line.push_str(words[random.below(words.len())]);
            }
            let _ = HostAnswer::read(&line, &tag);
            let _ = port(&line);
        }
    }

    #[test]
    fn the_port_stands_behind_the_address() {
        let port_of = |rest: &str| port(&format!("subsegment-tcp-speeds: listening on {rest}"));
        assert_eq!(port_of("[::]:40213 (relay to 10.0.0.7:1)"), Some(40_213));
        assert_eq!(port_of("0.0.0.0:9000 (echo)"), Some(9000));
        assert_eq!(port_of("[::]:x (echo)"), None);
        assert_eq!(port("listening"), None);
    }
}
