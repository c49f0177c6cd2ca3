//! The checked values of a command line of `passive`.

use super::config::Common;
use crate::passive::{Filter, GroupBy, Side};
use crate::report::passive::PassiveFormat;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The source of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A capture file.
    File(PathBuf),
    /// A capture on stdin.
    Stdin,
    /// A network interface, live.
    Interface(String),
}

/// Options of `passive`. `Default` is an empty command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassiveConfig {
    /// The source of packets.
    pub input: Input,
    /// The wanted addresses and ports.
    pub filter: Filter,
    /// Set if each HTTP exchange is shown.
    pub verbose: bool,
    /// The capture of the other end; `None` if there is one capture.
    pub peer: Option<PathBuf>,
    /// Format of the output.
    pub format: PassiveFormat,
    /// Length of an interval; `None` for no snapshots.
    pub interval: Option<Duration>,
    /// Flows held at once.
    pub max_flows: usize,
    /// Packets after which to end; `None` for all.
    pub count: Option<u64>,
    /// The end that the capture was made at; `None` if the round trips decide.
    pub at: Option<Side>,
    /// The unit of one time series.
    pub group_by: GroupBy,
    /// Time series per metric and direction.
    pub max_groups: usize,
    /// Time between two writes of the file of metrics.
    pub metrics_interval: Duration,
}

impl Default for PassiveConfig {
    fn default() -> Self {
        Self {
            input: Input::Stdin,
            filter: Filter::default(),
            verbose: false,
            peer: None,
            format: PassiveFormat::Text,
            interval: Some(Duration::from_secs(1)),
            max_flows: 100_000,
            count: None,
            at: None,
            group_by: GroupBy::Remote,
            max_groups: 1000,
            metrics_interval: Duration::from_secs(10),
        }
    }
}

impl PassiveConfig {
    /// Takes in the input, and checks the options against each other.
    ///
    /// # Errors
    ///
    /// A sentence without its remedy.
    pub(super) fn checked(
        mut self,
        operand: Option<OsString>,
        interface: Option<String>,
        common: &Common,
    ) -> Result<Self, &'static str> {
        self.input = match (operand, interface) {
            (Some(_), Some(_)) => return Err("passive: give a FILE or --interface, not both"),
            (None, None) => return Err("passive: give a FILE, - for stdin, or --interface"),
            (None, Some(interface)) => Input::Interface(interface),
            (Some(operand), None) if operand == "-" => Input::Stdin,
            (Some(operand), None) => Input::File(operand.into()),
        };
        if self.peer.is_some() {
            if matches!(self.input, Input::Interface(_)) {
                return Err("passive: --peer needs a capture file, not --interface");
            }
            if self.count.is_some() {
                return Err("passive: --peer and --count do not go together");
            }
            let metrics = common.metrics_listen.is_some() || common.metrics_file.is_some();
            if metrics || self.format == PassiveFormat::Prometheus {
                return Err("passive: --peer and metrics do not go together");
            }
        }
        // Only JSON shows the snapshots.
        if !matches!(self.format, PassiveFormat::Json | PassiveFormat::JsonLines) {
            self.interval = None;
        }
        Ok(self)
    }
}
