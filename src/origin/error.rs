//! The reasons for which a path breaks or reading ends, as the near end sees them.

use crate::node::end::{End, WriteFault};
use crate::node::link_auth::NoLink;
use crate::node::reader::ReadFault;
use crate::vec_map::VecMap;
use crate::wire::ParseError;
use std::fmt;
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
    pub fn silence(text: String) -> Self {
        Self {
            silent: true,
            timed_out: true,
            ..Self::own(text)
        }
    }

    /// Returns the fault and its place on the path, with the known names of the hops.
    pub fn located(&self, names: &VecMap<u8, String>) -> String {
        let (hop, text) = (self.hop, &self.text);
        let next = hop.saturating_add(1);
        match (names.get(&hop), names.get(&next)) {
            _ if self.unfit => self.to_string(),
            (Some(near), _) if self.silent => {
                format!("somewhere behind {}: {text}", near.escape_debug())
            }
            (Some(near), Some(far)) => format!(
                "between {} (hop {hop}) and {} (hop {next}): {text}",
                near.escape_debug(),
                far.escape_debug(),
            ),
            (Some(near), None) => format!("behind {} (hop {hop}): {text}", near.escape_debug()),
            (None, _) => self.to_string(),
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
        match self.hop {
            0 => f.write_str(&self.text),
            hop => write!(f, "hop {hop} reports: {}", self.text),
        }
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
    }
}
