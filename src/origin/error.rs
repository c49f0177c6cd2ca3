//! The reasons for which a path breaks or reading ends, as the near end sees them.

use super::ask::Answering;
use crate::node::end::{End, WriteFault};
use crate::node::link_auth::NoLink;
use crate::node::reader::ReadFault;
use crate::vec_map::VecMap;
use crate::wire::ParseError;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The reason for which a path broke.
#[derive(Debug)]
pub struct PathError {
    /// The hop that noticed it; 0 is this node.
    pub hop: u8,
    /// The fault that it noticed.
    pub text: String,
    /// `true` if it noticed only silence, which any hop behind it may have caused.
    pub silent: bool,
    /// The nodes that still answer, after a silence; `None` if they were not asked.
    pub answering: Option<Answering>,
    /// The address of hop 1; `None` if the fault is not one of another node.
    pub next: Option<SocketAddr>,
    /// `true` if an operation took longer than `--timeout`.
    pub timed_out: bool,
    /// `true` if the path works, but is not fit for probes: to try again soon is no use.
    pub unfit: bool,
}

impl PathError {
    /// Returns a fault that this node noticed itself.
    pub fn own(text: String) -> Self {
        Self {
            hop: 0,
            text,
            silent: false,
            answering: None,
            next: None,
            timed_out: false,
            unfit: false,
        }
    }

    /// Returns the fault that the path is not fit for probes.
    #[cold]
    pub(super) fn unfit(text: String) -> Self {
        Self {
            unfit: true,
            ..Self::own(text)
        }
    }

    /// Returns the fault that no bytes came for longer than `--timeout`, from anywhere on the path.
    pub fn silence(next: SocketAddr, text: String) -> Self {
        Self {
            next: Some(next),
            silent: true,
            timed_out: true,
            ..Self::own(text)
        }
    }

    /// Returns the fault and its place on the path, with the known names of the hops.
    pub fn located(&self, names: &VecMap<u8, String>) -> String {
        let (hop, text) = match &self.answering {
            Some(Answering::UpTo(0)) => (
                0,
                format!("{}; no node answers a new connection", self.text),
            ),
            Some(Answering::UpTo(hop)) => {
                let node = self.node(names, *hop);
                (
                    *hop,
                    format!(
                        "{}; {node} answered last, asked by a new connection",
                        self.text
                    ),
                )
            }
            Some(Answering::Reporting(hop, report)) => {
                let node = self.node(names, *hop);
                (
                    *hop,
                    format!(
                        "{}; asked by a new connection, {node} reports: {report}",
                        self.text
                    ),
                )
            }
            Some(Answering::All) => (
                0,
                format!("{}; all nodes answer a new connection", self.text),
            ),
            None => (self.hop, self.text.clone()),
        };
        let is_located = !matches!(self.answering, None | Some(Answering::All));
        let next = hop.saturating_add(1);
        match (names.get(&hop), names.get(&next)) {
            _ if self.unfit => text,
            (Some(near), _) if self.silent && !is_located => {
                format!("somewhere behind {}: {text}", near.escape_debug())
            }
            (Some(near), Some(far)) => format!(
                "between {} (hop {hop}) and {} (hop {next}): {text}",
                near.escape_debug(),
                far.escape_debug(),
            ),
            (Some(near), None) => format!("behind {} (hop {hop}): {text}", near.escape_debug()),
            (None, _) if is_located || hop == 0 => text,
            (None, _) => format!("{} reports: {text}", self.node(names, hop)),
        }
    }

    /// Returns a node in words: its name if that is known, else its address.
    fn node(&self, names: &VecMap<u8, String>, hop: u8) -> String {
        match (names.get(&hop), self.next) {
            (Some(name), _) => format!("{} (hop {hop})", name.escape_debug()),
            (None, Some(address)) if hop == 1 => format!("{address} (hop 1)"),
            (None, _) => format!("hop {hop}"),
        }
    }

    /// Returns the fault that the link with the next hop was not agreed on.
    #[cold]
    pub(super) fn no_link(end: &End, timeout: Duration, error: NoLink) -> Self {
        let timed_out = matches!(error, NoLink::Silent(_));
        let text = match error {
            NoLink::Parse(error) => read_fault(end, timeout, &ReadFault::Parse(error)),
            NoLink::Io(error) => read_fault(end, timeout, &ReadFault::Reset(error)),
            NoLink::Refused(text) | NoLink::Silent(text) => format!("next hop {} {text}", end.peer),
        };
        Self {
            timed_out,
            ..Self::own(text)
        }
    }

    /// Returns the fault that reading from the next hop failed.
    #[cold]
    pub(super) fn reading(end: &End, timeout: Duration, fault: &ReadFault) -> Self {
        Self {
            timed_out: matches!(fault, ReadFault::Stalled),
            ..Self::own(read_fault(end, timeout, fault))
        }
    }

    /// Adds what an end before the first answer may mean; `answered` is `true` after that.
    #[cold]
    pub(super) fn hinted(mut self, fault: &ReadFault, answered: bool) -> Self {
        let is_http = |seen: &[u8]| seen.starts_with(b"HTTP/");
        self.text += match fault {
            _ if answered => "",
            ReadFault::Reset(_) => "; does its --allow name this host?",
            ReadFault::NoEnd => "; is that a port for metrics or HTTP, not that of a node?",
            ReadFault::Parse(ParseError::Magic { seen }) if is_http(seen) => {
                "; this is a port for metrics or HTTP"
            }
            _ => "",
        };
        self
    }

    /// Returns the fault that writing to the next hop failed.
    #[cold]
    pub(super) fn writing(end: &End, timeout: Duration, fault: WriteFault) -> Self {
        let peer = end.peer;
        let timed_out = matches!(fault, WriteFault::Timeout);
        let text = match fault {
            WriteFault::SourceReset | WriteFault::Aborted => "the session was given up".into(),
            WriteFault::Timeout => format!(
                "next hop {peer} has read nothing for {} s (--timeout)",
                timeout.as_secs_f64()
            ),
            WriteFault::Dead { error, .. } => {
                format!("next hop {peer} broke the connection: {error}")
            }
        };
        Self {
            timed_out,
            ..Self::own(text)
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.located(&VecMap::default()))
    }
}

impl std::error::Error for PathError {}

/// The reason for which reading ended before the END of the far end.
#[derive(Debug)]
pub enum ReadEnd<E> {
    /// The path broke.
    Path(PathError),
    /// The payload could not be passed to the application.
    Sink(E),
    /// The write half has given the session up, and has reported the reason.
    Aborted,
}

fn read_fault(end: &End, timeout: Duration, fault: &ReadFault) -> String {
    let peer = format!("next hop {}", end.peer);
    let remedy = "; if it is a plain TCP server use --remove-perf-headers at a node before it";
    fault.text(&peer, remedy, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_is_located_by_the_names_that_are_known() {
        let names = VecMap::from([(0, "A".to_owned()), (1, "B".to_owned())]);
        let fault = |hop, silent| PathError {
            hop,
            silent,
            ..PathError::own("gone".into())
        };
        for (hop, silent, text) in [
            (0, false, "between A (hop 0) and B (hop 1): gone"),
            (1, false, "behind B (hop 1): gone"),
            (0, true, "somewhere behind A: gone"),
            (2, false, "hop 2 reports: gone"),
            (2, true, "hop 2 reports: gone"),
        ] {
            assert_eq!(fault(hop, silent).located(&names), text);
        }
        let unnamed = |hop, answering| PathError {
            hop,
            answering,
            silent: true,
            next: Some("10.0.0.7:9000".parse().unwrap()),
            ..PathError::own("gone".into())
        };
        let report = || Answering::Reporting(1, "full".into());
        for (answering, with_names, without) in [
            (
                Some(Answering::UpTo(0)),
                "between A (hop 0) and B (hop 1): gone; no node answers a new connection",
                "gone; no node answers a new connection",
            ),
            (
                Some(Answering::UpTo(1)),
                "behind B (hop 1): gone; B (hop 1) answered last, asked by a new connection",
                "gone; 10.0.0.7:9000 (hop 1) answered last, asked by a new connection",
            ),
            (
                Some(report()),
                "behind B (hop 1): gone; asked by a new connection, B (hop 1) reports: full",
                "gone; asked by a new connection, 10.0.0.7:9000 (hop 1) reports: full",
            ),
            (
                Some(Answering::All),
                "somewhere behind A: gone; all nodes answer a new connection",
                "gone; all nodes answer a new connection",
            ),
        ] {
            let fault = unnamed(0, answering);
            assert_eq!(fault.located(&names), with_names);
            assert_eq!(fault.to_string(), without);
        }
        assert_eq!(
            unnamed(1, None).to_string(),
            "10.0.0.7:9000 (hop 1) reports: gone"
        );
        assert_eq!(unnamed(2, None).to_string(), "hop 2 reports: gone");
    }
}
