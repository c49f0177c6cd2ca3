//! The reasons for which a connection's heads are not edited any more, and their text for the log.

use super::head::{Doubt, MessageKind};
use std::fmt;

/// A reason for which the rest of a connection passes unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassReason {
    /// A head with a doubt.
    Head(MessageKind, Doubt),
    /// A head that was not complete in time.
    Slow,
    /// A head that the end of the stream cut.
    Cut,
    /// A response without a request.
    Unasked,
    /// Bytes behind a request to change the protocol, before its answer.
    Early,
    /// Too many requests without an answer.
    Many,
    /// A chunk's size that is no plain number, or that has an extension.
    ChunkSize,
    /// A chunk longer than its size.
    ChunkEnd,
    /// Trailers with a doubt.
    Trailer,
    /// A final response to a request that had asked whether to send its body, and sent none of it.
    Unsent,
}

impl fmt::Display for PassReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Head(kind, doubt) => {
                let kind = match kind {
                    MessageKind::Request => "request",
                    MessageKind::Response => "response",
                };
                return write!(f, "the head of a {kind} {}", described(*doubt));
            }
            Self::Slow => "a head was not complete within --timeout",
            Self::Cut => "the stream ended within a head",
            Self::Unasked => "a response came without a request",
            Self::Early => "bytes followed a request to change the protocol before its answer",
            Self::Many => "more than 256 requests had no answer",
            Self::ChunkSize => "the size of a chunk is no plain number",
            Self::ChunkEnd => "a chunk is longer than its size",
            Self::Trailer => "trailers are malformed",
            Self::Unsent => "a response came instead of 100, and the body may never follow",
        };
        f.write_str(text)
    }
}

fn described(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Incomplete => "is incomplete",
        Doubt::TooLong => "is longer than 64 KiB",
        Doubt::StartLine => "does not begin as HTTP/1.0 or HTTP/1.1",
        Doubt::BareLf => "has a line that ends without CR",
        Doubt::BareCr => "has a CR that ends no line",
        Doubt::Control => "has a control character",
        Doubt::Fold => "has a folded line",
        Doubt::NoColon => "has a line without a colon",
        Doubt::Name => "has a malformed field name",
        Doubt::TwoFramings => "has both Content-Length and Transfer-Encoding",
        Doubt::Length => "has several lengths, or one that is none",
        Doubt::Encoding => "has a Transfer-Encoding other than chunked alone",
        Doubt::Host => "has no host, or two",
    }
}
