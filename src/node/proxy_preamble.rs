//! Preambles of the PROXY protocol: read from a client behind a balancer, sent to a server.

use crate::node::end::End;
use crate::node::fault::{explain, ConnectionFault};
use crate::node::pair::EndPair;
use crate::node::read_fault::ReadFault;
use crate::node::Node;
use crate::session::connection_record::ConnectionSide;
use crate::sys;
use crate::wire::proxy::{self, Preamble, ProxyError};
use crate::wire::{Annotations, ClientAddress, ErrorCode, ANNOTATION_CLIENT_ADDRESS};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::Instant;

/// The bytes that are looked at at once; nearly all preambles are shorter.
const STEP: usize = 256;

/// Reads the preamble that a client has to send before everything else, and not one byte more.
/// Returns `false` if it closed without a byte, as a check of a balancer does.
///
/// # Errors
///
/// [`ConnectionFault`] for a client without a preamble, with a broken one, or with none in time.
#[inline(never)]
pub(super) fn accept(node: &Node, pair: &EndPair) -> Result<bool, ConnectionFault> {
    let mut bytes = Vec::new();
    match read(pair, &mut bytes) {
        Ok(Some(preamble)) => {
            if let Some(client) = preamble.client {
                // Set once: a connection has one preamble.
                let _ = pair.client_address.set(Box::new(client));
            }
            Ok(true)
        }
        Ok(None) => Ok(false),
        Err(_) if pair.has_failed() => Err(ConnectionFault::silent()),
        Err(Refusal::Io(error)) => {
            let fault = ReadFault::Reset(error);
            Err(explain(node, pair, 0, ConnectionSide::Client, fault))
        }
        Err(Refusal::Proxy(error)) => Err(refuse(node, pair, error, &bytes)),
        Err(Refusal::Late) => {
            let text = format!(
                "peer {} has not sent a whole PROXY protocol preamble (--accept-proxy) within {} s \
                 (--timeout): is send-proxy on at the balancer?",
                pair.client.peer,
                pair.timeout.as_secs_f64()
            );
            Err(ConnectionFault::error(node, 0, ErrorCode::Timeout, text))
        }
    }
}

#[cold]
fn refuse(node: &Node, pair: &EndPair, error: ProxyError, bytes: &[u8]) -> ConnectionFault {
    let remedy = match error {
        ProxyError::Missing => {
            "; switch it on at the balancer (send-proxy, proxy_protocol on), or leave out \
             --accept-proxy"
        }
        ProxyError::Incomplete | ProxyError::Malformed(_) => "",
    };
    let seen = bytes[..bytes.len().min(24)].escape_ascii();
    let peer = pair.client.peer;
    let text = format!("peer {peer} sent {error} (--accept-proxy): \"{seen}\"{remedy}");
    ConnectionFault::error(node, 0, ErrorCode::Protocol, text)
}

enum Refusal {
    Late,
    Io(io::Error),
    Proxy(ProxyError),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Looks at the bytes that are there, takes those that belong to the preamble, and waits for more.
/// `None` if the client closed or reset without a byte.
fn read(pair: &EndPair, bytes: &mut Vec<u8>) -> Result<Option<Preamble>, Refusal> {
    let mut socket = &pair.client.socket;
    let deadline = Instant::now() + pair.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Refusal::Late);
        }
        socket.set_read_timeout(Some(left))?;
        let begun = bytes.len();
        bytes.resize(begun + STEP, 0);
        let peeked = socket.peek(&mut bytes[begun..]);
        bytes.truncate(begun + *peeked.as_ref().unwrap_or(&0));
        match peeked {
            Ok(0) if begun == 0 && !pair.has_failed() => return Ok(None),
            Ok(0) => return Err(Refusal::Proxy(ProxyError::Incomplete)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && begun == 0 => {
                return Ok(None);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let parsed = proxy::parse(bytes);
        let taken = match parsed {
            Ok(preamble) => preamble.len,
            Err(ProxyError::Incomplete) => bytes.len(),
            Err(error) => return Err(Refusal::Proxy(error)),
        };
        socket.read_exact(&mut bytes[begun..taken])?;
        if let Ok(preamble) = parsed {
            socket.set_read_timeout(None)?;
            return Ok(Some(preamble));
        }
    }
}

/// Returns the ends of the client's connection: those of its preamble, else its own. `local` is
/// this node's end.
pub(super) fn client_of(pair: &EndPair, local: SocketAddr) -> ClientAddress {
    let known = pair.client_address.get();
    known.map_or_else(
        || ClientAddress::new(pair.client.peer, local),
        |known| **known,
    )
}

/// Takes the address of the client that the entry wrote into OPEN.
#[inline(never)]
pub(super) fn take_client_address(pair: &EndPair, mut annotations: Annotations<'_>) {
    let given = annotations.find_map(|annotation| {
        let annotation = annotation.ok()?;
        let is_address = annotation.kind == ANNOTATION_CLIENT_ADDRESS && annotation.hop == 0;
        is_address.then(|| ClientAddress::parse(annotation.value).ok())?
    });
    if let Some(client) = given {
        // Set once: a connection has one OPEN.
        let _ = pair.client_address.set(Box::new(client));
    }
}

/// Sends the preamble of `--send-proxy` to a server, if there is that option.
///
/// # Errors
///
/// As send(2).
#[inline(never)]
pub(super) fn send(node: &Node, pair: &EndPair, server: &End) -> io::Result<()> {
    let Some(version) = node.settings.send_proxy else {
        return Ok(());
    };
    let client = pair.client_address.get();
    if client.is_none() && node.logs_unnamed_client() {
        log::warn!(
            "peer {} names no client: its server gets PROXY UNKNOWN or LOCAL (--send-proxy; not \
             logged again)",
            pair.client.peer
        );
    }
    // The first bytes of a connection always have room.
    let preamble = proxy::emit(version, client.map(|client| &**client));
    match sys::send_now(&server.socket, &preamble)? {
        sent if sent == preamble.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
