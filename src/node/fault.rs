//! How a connection ends before its time: what its log and its two peers hear of it.

use crate::collect::queue::Measurement;
use crate::node::pair::EndPair;
use crate::node::reader::ReadFault;
use crate::node::Node;
use crate::session::connection_record::ConnectionSide;
use crate::sys;
use crate::wire::{build, frame_type, ErrorCode, ErrorInfo, Flags, Header, ParseError};
use std::fmt;

/// Why a connection ends before its time, and what its two peers are to hear.
///
/// Boxed: results that may carry one pass through every frame of a pump's stack, whose depth is what an idle connection
/// costs.
#[derive(Debug)]
pub struct ConnectionFault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    level: log::Level,
    text: String,
    last: Last,
}

#[derive(Debug)]
enum Last {
    /// The other pump tells, or has told.
    Silent,
    /// A reset, both ways: as RESET to a node, as RST to an application.
    Reset,
    /// An ERROR to the source; a reset to everybody else.
    Error(ErrorInfo),
}

impl ConnectionFault {
    #[inline(never)]
    fn new(level: log::Level, text: String, last: Last) -> Self {
        Self(Box::new(Inner { level, text, last }))
    }

    pub(crate) fn silent() -> Self {
        Self::new(log::Level::Debug, String::new(), Last::Silent)
    }

    pub(crate) fn reset(level: log::Level, text: String) -> Self {
        Self::new(level, text, Last::Reset)
    }

    /// An ERROR that came by, which goes on towards the source.
    pub fn reported(info: ErrorInfo) -> Self {
        let text = format!("hop {} reports: {}", info.hop, info.shown());
        Self::new(log::Level::Error, text, Last::Error(info))
    }

    #[inline(never)]
    pub(crate) fn error(node: &Node, hop: u8, code: ErrorCode, text: String) -> Self {
        let info = ErrorInfo {
            code,
            hop,
            node: node.id,
            text: text.clone(),
        };
        Self::new(log::Level::Error, text, Last::Error(info))
    }
}

impl fmt::Display for ConnectionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// What an end of reading means, by the side it happened on and who speaks there.
#[inline(never)]
pub fn explain(
    node: &Node,
    pair: &EndPair,
    hop: u8,
    side: ConnectionSide,
    fault: ReadFault,
) -> ConnectionFault {
    let end = match side {
        ConnectionSide::Client => Some(&pair.client),
        ConnectionSide::Server => pair.server.get(),
    };
    let Some(end) = end else {
        return ConnectionFault::silent();
    };
    let peer = end.peer;
    match fault {
        ReadFault::Aborted => ConnectionFault::silent(),
        ReadFault::Idle => ConnectionFault::reset(
            log::Level::Info,
            format!("peer {peer}: no byte moved for --idle-timeout, closed"),
        ),
        ReadFault::Stalled => ConnectionFault::error(
            node,
            hop,
            ErrorCode::Timeout,
            format!(
                "peer {peer} began a frame and did not go on for {} s (--timeout)",
                pair.timeout.as_secs_f64()
            ),
        ),
        ReadFault::Parse(error) => {
            let remedy = match (&error, side) {
                (ParseError::Magic { .. }, ConnectionSide::Server) => {
                    "; if it is a plain TCP server use --remove-perf-headers"
                }
                (ParseError::Magic { .. }, ConnectionSide::Client) => {
                    "; is something between the nodes rewriting the stream?"
                }
                _ => "",
            };
            ConnectionFault::error(
                node,
                hop,
                ErrorCode::Protocol,
                format!("peer {peer} {error}{remedy}"),
            )
        }
        ReadFault::Truncated => ConnectionFault::error(
            node,
            hop,
            ErrorCode::Broken,
            format!("peer {peer} closed the connection within a frame"),
        ),
        ReadFault::Reset(_) if !end.is_framed() => {
            let who = match side {
                ConnectionSide::Client => "client",
                ConnectionSide::Server => "server",
            };
            ConnectionFault::reset(
                log::Level::Info,
                format!("{who} {peer} reset the connection"),
            )
        }
        ReadFault::Reset(error) => match side {
            ConnectionSide::Client => ConnectionFault::reset(
                log::Level::Warn,
                format!("peer {peer} broke the connection: {error}"),
            ),
            ConnectionSide::Server => ConnectionFault::error(
                node,
                hop,
                ErrorCode::Broken,
                format!("next hop {peer} broke the connection: {error}"),
            ),
        },
    }
}

/// A node that went without END.
#[inline(never)]
pub fn vanished(node: &Node, pair: &EndPair, hop: u8, side: ConnectionSide) -> ConnectionFault {
    match (side, pair.server.get()) {
        (ConnectionSide::Server, Some(server)) => ConnectionFault::error(
            node,
            hop,
            ErrorCode::Broken,
            format!("next hop {} closed the connection without END", server.peer),
        ),
        _ => ConnectionFault::reset(
            log::Level::Warn,
            format!(
                "peer {} closed the connection without END",
                pair.client.peer
            ),
        ),
    }
}

/// Ends a connection after a fault: one log line, a last word to each side, and both sockets gone. The first pump to come
/// here does it; the other finds the pair failed.
#[inline(never)]
pub fn conclude(node: &Node, pair: &EndPair, fault: ConnectionFault) {
    let fault = *fault.0;
    if matches!(fault.last, Last::Silent) || !pair.fail() {
        return;
    }
    log::log!(
        fault.level,
        "{} {}: {}",
        sys::thread::name(),
        pair.client.peer,
        fault.text
    );
    let told = last_words(pair, &fault.last, true);
    if matches!(fault.last, Last::Error(_)) {
        node.collector.offer(Measurement::Notice(fault.text));
    }
    pair.abort_server();
    if told {
        pair.close_client();
    }
    pair.abort();
}

/// RESET to a node behind; to one before ERROR, or RESET too. Whether there is an ERROR under way to the client, which a
/// reset must not overtake. An ERROR is worth waiting for the other pump's frame (`wait`), a RESET says no more than the
/// reset that follows it.
fn last_words(pair: &EndPair, last: &Last, wait: bool) -> bool {
    let session = pair.session.get().copied().unwrap_or_default();
    let frame = |kind, flags, payload: &[u8]| {
        let header = Header {
            flags: Flags(flags),
            hop: session.hop,
            hop_limit: session.hop_limit,
            ..Header::new(kind, session.cookie, 0)
        };
        build(header, &[], &[], payload)
    };
    if let Some(server) = pair.server.get() {
        server.send_last(frame(frame_type::RESET, 0, &[]), false);
    }
    match last {
        Last::Error(info) => {
            let error = frame(frame_type::ERROR, Flags::RETURN, &info.emit());
            pair.client.send_last(error, wait)
        }
        _ => {
            let reset = frame(frame_type::RESET, Flags::RETURN, &[]);
            pair.client.send_last(reset, false);
            false
        }
    }
}

/// Ends a connection because the node ends: nobody is to take what was cut off for complete.
pub fn cut_off(node: &Node, pair: &EndPair) {
    if pair.fail() {
        let hop = pair.session.get().copied().unwrap_or_default().hop;
        let text = format!("{} was told to end", node.settings.name);
        last_words(
            pair,
            &ConnectionFault::error(node, hop, ErrorCode::Refused, text)
                .0
                .last,
            false,
        );
        pair.abort();
    }
}
