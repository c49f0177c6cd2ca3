//! The kind of client on a new connection, judged by its first bytes.

use crate::wire::proxy::{PROXY_V1, PROXY_V2};
use crate::wire::{ParseError, MAGIC};

/// The clients that a listener takes (`--accept`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// Both: a framed peer sends first and begins with the magic; any other client is raw.
    #[default]
    Auto,
    /// Other nodes only.
    Framed,
    /// Plain TCP clients only; needed if the server sends first.
    Raw,
}

/// The judgement of the first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// They fit both: read more.
    Undecided,
    /// Another node.
    Framed,
    /// A plain TCP client.
    Raw,
    /// Neither; the text to log behind the name of the peer.
    Refused(String),
}

/// Judges `bytes`, all that was received so far; `ended` if no more will come.
pub fn judge(accept: Accept, bytes: &[u8], ended: bool) -> Admission {
    let begun = bytes.len().min(MAGIC.len());
    let fits = bytes[..begun] == MAGIC[..begun];
    let complete = fits && begun == MAGIC.len();
    let preamble = bytes.starts_with(PROXY_V1) || bytes.starts_with(PROXY_V2);
    match accept {
        Accept::Raw if complete => Admission::Refused(
            "is a node of a chain (it sent our magic), but this listener takes raw clients only: \
             a loop, or an entry (--accept raw) where a relay was meant; probe a node behind it"
                .into(),
        ),
        Accept::Raw => Admission::Raw,
        _ if complete => Admission::Framed,
        _ if preamble => Admission::Refused(
            "sent a PROXY protocol preamble: switch it off at the balancer (no send-proxy), \
             or use --accept raw, with --accept-proxy to read it and without to hand it on to the \
             server"
                .into(),
        ),
        _ if fits && !ended => Admission::Undecided,
        // It closed without a byte: nothing to refuse.
        Accept::Framed if bytes.is_empty() => Admission::Framed,
        Accept::Framed => Admission::Refused(format!(
            "{}; if it is a plain TCP client use --accept raw (or auto, without a --key-file)",
            ParseError::Magic {
                seen: bytes[..bytes.len().min(24)].to_vec()
            }
        )),
        Accept::Auto if !ended && is_prefix_of_preamble(bytes) => Admission::Undecided,
        Accept::Auto => Admission::Raw,
    }
}

/// Returns `true` for the beginning of the v2 signature, in which no text client would stop. `PROXY
/// ` is text, so only a whole one counts.
fn is_prefix_of_preamble(bytes: &[u8]) -> bool {
    bytes.len() > 4 && PROXY_V2.starts_with(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_peer_and_a_raw_client_differ_in_their_first_bytes() {
        for (accept, bytes, ended, expected) in [
            (Accept::Auto, &b""[..], false, Admission::Undecided),
            (Accept::Auto, b"", true, Admission::Raw),
            (Accept::Framed, b"", true, Admission::Framed),
            (Accept::Auto, b"G", false, Admission::Raw),
            (Accept::Auto, b"\x89", false, Admission::Undecided),
            (Accept::Auto, b"\x89S", true, Admission::Raw),
            (Accept::Auto, b"\x89PNG", false, Admission::Raw),
            (Accept::Auto, &MAGIC, false, Admission::Framed),
            (Accept::Framed, &MAGIC[..5], false, Admission::Undecided),
            (Accept::Framed, &MAGIC, false, Admission::Framed),
            (Accept::Raw, b"", false, Admission::Raw),
            (Accept::Raw, b"\x89ST", false, Admission::Raw),
            (Accept::Raw, b"PROXY TCP4 ", false, Admission::Raw),
        ] {
            assert_eq!(
                judge(accept, bytes, ended),
                expected,
                "{accept:?} {bytes:?} {ended}"
            );
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_the_remedy() {
        for (accept, bytes, word) in [
            (Accept::Raw, &MAGIC[..], "a loop"),
            (Accept::Auto, b"PROXY TCP4 1.2.3.4", "send-proxy"),
            (Accept::Auto, PROXY_V2, "send-proxy"),
            (Accept::Framed, b"GET / HTTP/1.1", "--accept raw"),
            (Accept::Framed, b"GET / HTTP/1.1", "GET / HTTP/1.1"),
        ] {
            match judge(accept, bytes, false) {
                Admission::Refused(text) => assert!(text.contains(word), "{text}"),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }
}
