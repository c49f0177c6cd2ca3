//! Faults that end a connection before its time: the log line, and the final frames to both peers.
//!
//! All constructors are cold. The text of a fault is made once per connection at most, and must not
//! deepen the stack of a pump that idles.

use crate::collect::queue::Measurement;
use crate::node::pair::EndPair;
use crate::node::reader::ReadFault;
use crate::node::Node;
use crate::session::admission::{judge, Accept, Admission};
use crate::session::connection_record::ConnectionSide;
use crate::session::opening::Session;
use crate::sys;
use crate::wire::{build, ErrorCode, ErrorInfo, Flags, FrameType};
use std::fmt;
use std::time::Instant;

/// Stands in the log of a node whose next hop is the node itself.
pub const OWN_LOOP: &str = "is this node itself";

/// The reason why a connection ends before its time, and the final frames to its two peers.
///
/// Boxed: results that may carry one pass through every frame of a pump's stack, whose depth is
/// the memory of an idle connection.
#[derive(Debug)]
pub struct ConnectionFault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    level: log::Level,
    text: String,
    last: FinalFrames,
}

#[derive(Debug)]
enum FinalFrames {
    /// None: the other pump sends them, or has.
    Silent,
    /// A reset, both ways: as RESET to a node, as RST to an application.
    Reset,
    /// An ERROR to the source, a reset to the server.
    Error(ErrorInfo),
}

impl FinalFrames {
    /// Returns the kind of the fault, for the bound of the log; `None` for a reset.
    fn kind(&self) -> Option<ErrorCode> {
        match self {
            Self::Silent | Self::Reset => None,
            Self::Error(info) => Some(info.code),
        }
    }

    /// Returns `true` if the fault is one for the report: of the next hop, or of a client that was
    /// let in. Others are strangers and could fill the report with junk.
    fn concerns_the_report(&self, pair: &EndPair) -> bool {
        match self {
            Self::Silent | Self::Reset => false,
            Self::Error(info) => {
                matches!(info.code, ErrorCode::Connect | ErrorCode::Loop)
                    || pair.session.get().is_some()
            }
        }
    }
}

impl ConnectionFault {
    #[cold]
    fn new(level: log::Level, text: String, last: FinalFrames) -> Self {
        Self(Box::new(Inner { level, text, last }))
    }

    /// A fault that the other pump reports.
    #[cold]
    pub(crate) fn silent() -> Self {
        Self::new(log::Level::Debug, String::new(), FinalFrames::Silent)
    }

    /// A fault that resets both connections.
    #[cold]
    pub(crate) fn reset(level: log::Level, text: String) -> Self {
        Self::new(level, text, FinalFrames::Reset)
    }

    /// An ERROR frame that was received, and goes on towards the source.
    #[cold]
    pub fn reported(info: ErrorInfo) -> Self {
        let text = format!("hop {} reports: {}", info.hop, info.shown());
        Self::new(log::Level::Error, text, FinalFrames::Error(info))
    }

    /// The same, where a probe may have asked for it: no error here, and none for the report.
    #[cold]
    pub(crate) fn asked_for(mut self) -> Self {
        self.0.level = log::Level::Info;
        self
    }

    /// A fault that this node reports to the source.
    #[cold]
    pub(crate) fn error(node: &Node, hop: u8, code: ErrorCode, text: String) -> Self {
        let info = ErrorInfo {
            code,
            hop,
            node: node.id,
            text: text.clone(),
        };
        Self::new(log::Level::Error, text, FinalFrames::Error(info))
    }

    /// The client is this node: its next hop leads back to it.
    #[cold]
    pub(crate) fn own_loop(node: &Node, pair: &EndPair) -> Self {
        let peer = pair.client.peer;
        let text = format!("client {peer} {OWN_LOOP}: --forward-to leads back to --listen");
        Self::error(node, 0, ErrorCode::Loop, text)
    }

    /// The next hop or the server cannot be reached.
    #[cold]
    pub(crate) fn connect(node: &Node, session: Session, text: String) -> Self {
        Self::error(node, session.hop, ErrorCode::Connect, text)
    }

    /// A RESET frame was received at `source`.
    #[cold]
    pub(crate) fn passed_reset(pair: &EndPair, source: ConnectionSide) -> Self {
        let (side, end) = match source {
            ConnectionSide::Client => ("client", Some(&pair.client)),
            ConnectionSide::Server => ("server", pair.server.get()),
        };
        let peer = end.map_or(pair.client.peer, |end| end.peer);
        let text = format!("a reset came from the {side}'s side through {peer}");
        Self::reset(log::Level::Info, text)
    }
}

impl fmt::Display for ConnectionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// Refuses a raw client whose first bytes are the magic: a loop, or an entry in place of a relay.
///
/// # Errors
///
/// [`ConnectionFault`], which the client receives as an ERROR frame.
#[inline(never)]
pub(crate) fn refuse_framed_client(
    node: &Node,
    pair: &EndPair,
    first: &[u8],
) -> Result<(), ConnectionFault> {
    match judge(Accept::Raw, first, false) {
        Admission::Refused(text) => {
            pair.client.set_framed(); // So that it receives the ERROR frame.
            let text = format!("peer {} {text}", pair.client.peer);
            Err(ConnectionFault::error(node, 0, ErrorCode::Protocol, text))
        }
        Admission::Raw | Admission::Framed | Admission::Undecided => Ok(()),
    }
}

/// Returns the fault that follows from the end of reading at `side`.
#[cold]
pub fn explain(
    node: &Node,
    pair: &EndPair,
    hop: u8,
    side: ConnectionSide,
    fault: ReadFault,
) -> ConnectionFault {
    use ConnectionSide::{Client, Server};
    let (end, word) = match side {
        Client => (Some(&pair.client), "peer"),
        Server => (pair.server.get(), "next hop"),
    };
    let Some(end) = end else {
        return ConnectionFault::silent();
    };
    let remedy = match side {
        Server => "; if it is a plain TCP server use --remove-perf-headers",
        Client => "; is something between the nodes rewriting the stream?",
    };
    let peer = format!("{word} {}", end.peer);
    let text = fault.text(&peer, remedy, pair.timeout);
    let error = |code, text| ConnectionFault::error(node, hop, code, text);
    match (fault, side) {
        (ReadFault::Aborted, _) => ConnectionFault::silent(),
        (ReadFault::Idle, _) => ConnectionFault::reset(log::Level::Info, text),
        (ReadFault::Stalled, _) => error(ErrorCode::Timeout, text),
        (ReadFault::Parse(_), _) => error(ErrorCode::Protocol, text),
        (ReadFault::Violation(violation), _) => error(violation.code(), text),
        (ReadFault::Truncated, _) => error(ErrorCode::Broken, text),
        (ReadFault::Reset(_), _) if !end.is_framed() => {
            let word = match side {
                Client => "client",
                Server => "server",
            };
            let text = format!("{word} {} reset the connection", end.peer);
            ConnectionFault::reset(log::Level::Info, text)
        }
        (ReadFault::Reset(_) | ReadFault::NoEnd, Client) => {
            ConnectionFault::reset(log::Level::Warn, text)
        }
        (ReadFault::Reset(_) | ReadFault::NoEnd, Server) => error(ErrorCode::Broken, text),
    }
}

/// Returns the fault that follows from an ERROR frame with `payload`, received at `side`.
#[cold]
pub(crate) fn passed_error(
    node: &Node,
    pair: &EndPair,
    hop: u8,
    side: ConnectionSide,
    payload: &[u8],
) -> ConnectionFault {
    match ErrorInfo::parse(payload) {
        Ok(mut info) => {
            if info.hop == 0 {
                info.hop = hop; // A node that refused without reading does not know its own.
            }
            // The limit of a probe that asks for the nodes that answer; the node whose limit is
            // used up and the near end judge it.
            let is_asked_for = info.code == ErrorCode::HopLimit && hop > 0;
            let fault = ConnectionFault::reported(info);
            if is_asked_for {
                fault.asked_for()
            } else {
                fault
            }
        }
        Err(error) => explain(node, pair, hop, side, ReadFault::Parse(error)),
    }
}

/// Ends a connection after a fault: logs one line, sends the final frames, and closes both sockets.
/// The first pump that calls it does that; the other finds the pair failed.
#[inline(never)]
pub fn conclude(node: &Node, pair: &EndPair, fault: ConnectionFault) {
    let fault = *fault.0;
    if matches!(fault.last, FinalFrames::Silent) || !pair.fail() {
        return;
    }
    let client = pair.client_source();
    if let Some(before) = node
        .fault_log
        .take(client.ip(), fault.last.kind(), Instant::now())
    {
        let more = match before {
            0 => String::new(),
            _ => format!(" (and {before} like it before, not logged)"),
        };
        let thread = sys::thread::name();
        let client = pair.client_text();
        log::log!(fault.level, "{thread} {client}: {}{more}", fault.text);
    }
    let has_error = send_final_frames(pair, &fault.last, true);
    if fault.level == log::Level::Error && fault.last.concerns_the_report(pair) {
        node.collector.offer(Measurement::Notice(fault.text));
    }
    pair.abort_server();
    if has_error {
        pair.close_client();
    }
    pair.abort();
}

/// Sends RESET to the next hop, and ERROR or RESET to the client.
///
/// Returns `true` if an ERROR is under way to the client, which a reset must not overtake. An ERROR
/// waits for the frame that the other pump is writing (`wait`). A RESET does not, as the reset of
/// the connection has the same effect.
fn send_final_frames(pair: &EndPair, last: &FinalFrames, wait: bool) -> bool {
    let session = pair.session.get().copied().unwrap_or_default();
    let frame =
        |kind, flags, payload: &[u8]| build(session.header(kind, flags, 0), &[], &[], payload);
    if let Some(server) = pair.server.get() {
        server.send_last(frame(FrameType::Reset, 0, &[]), false);
    }
    match last {
        FinalFrames::Error(info) => {
            let error = frame(FrameType::Error, Flags::RETURN, &info.emit());
            pair.client.send_last(error, wait)
        }
        FinalFrames::Silent | FinalFrames::Reset => {
            let reset = frame(FrameType::Reset, Flags::RETURN, &[]);
            pair.client.send_last(reset, false);
            false
        }
    }
}

/// Ends a connection because the node ends: a reset, as an end of file would look complete.
pub fn cut_off(node: &Node, pair: &EndPair) {
    if pair.fail() {
        let hop = pair.session.get().copied().unwrap_or_default().hop;
        let text = format!("{} was stopped", node.settings.name);
        let fault = ConnectionFault::error(node, hop, ErrorCode::Refused, text);
        send_final_frames(pair, &fault.0.last, false);
        pair.abort();
    }
}
