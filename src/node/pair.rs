//! The two ends of a connection as its pumps share them.

use crate::collect::path_key::PathKey;
use crate::node::end::{End, LONGEST_TICK};
use crate::node::http_edit::HttpEditor;
use crate::node::retransmits::RetransmitCounter;
use crate::node::server_time::ServerTimer;
use crate::session::opening::Session;
use crate::sys;
use crate::wire::ClientAddress;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// The state that the two pumps of a connection share.
#[derive(Debug)]
pub struct EndPair {
    /// The number of the connection, as in the names of its threads.
    pub id: usize,
    /// The end of the peer that connected.
    pub client: End,
    /// The path session on this connection; `None` until OPEN was read or made.
    pub session: OnceLock<Session>,
    /// The path of a framed client; `None` until OPEN was read, and for a raw client.
    pub path: OnceLock<PathKey>,
    /// The client's own ends, of its preamble or of OPEN; `None` if neither named them.
    pub client_address: OnceLock<Box<ClientAddress>>,
    /// The end towards the next hop; `None` at a reflector and until it is connected.
    pub server: OnceLock<End>,
    /// `--timeout`.
    pub timeout: Duration,
    failed: AtomicBool,
    /// Counts the reads of both pumps and the partial sends of blocked writes.
    pub moved: AtomicUsize,
    /// The number of pumps that are blocked in a write, and so have something in flight.
    pub blocked: AtomicUsize,
    /// The running counts of the up pump and of the down pump.
    pub counts: [PumpCounts; 2],
    /// The timer of the server's answers.
    pub server_timer: ServerTimer,
    /// At an exit, the count of its way back: the up pump's reports carry it, and at the end the
    /// down pump's END.
    pub return_retransmits: Mutex<RetransmitCounter>,
    /// The editor of heads of HTTP; `None` without `--http-write` and `--server-timing`.
    pub http: OnceLock<Box<HttpEditor>>,
}

/// The running counts of one pump, which alone writes them.
///
/// They stop at `usize::MAX`, 4 GiB on a 32-bit host. The totals of the node are exact once the
/// connection has ended.
#[derive(Debug, Default)]
pub struct PumpCounts {
    /// Blocks, or pieces of plain traffic.
    pub blocks: AtomicUsize,
    /// Their payload in bytes.
    pub bytes: AtomicUsize,
    /// Reports that found their queue full.
    pub reports_dropped: AtomicUsize,
}

impl PumpCounts {
    /// Publishes the counts of the pump: two plain stores.
    #[inline]
    pub fn store(&self, blocks: u64, bytes: u64) {
        let bounded = |count| usize::try_from(count).unwrap_or(usize::MAX);
        self.blocks.store(bounded(blocks), Ordering::Relaxed);
        self.bytes.store(bounded(bytes), Ordering::Relaxed);
    }

    /// Returns blocks, bytes and dropped reports.
    pub fn load(&self) -> [u64; 3] {
        [&self.blocks, &self.bytes, &self.reports_dropped]
            .map(|count| count.load(Ordering::Relaxed) as u64)
    }

    /// Clears the counts, once they are part of the node's totals.
    pub fn clear(&self) {
        self.store(0, 0);
        self.reports_dropped.store(0, Ordering::Relaxed);
    }
}

impl EndPair {
    /// A pair without its server end.
    pub fn new(id: usize, client: End, timeout: Duration) -> Self {
        Self {
            id,
            client,
            session: OnceLock::new(),
            path: OnceLock::new(),
            client_address: OnceLock::new(),
            server: OnceLock::new(),
            timeout,
            failed: AtomicBool::new(false),
            moved: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            counts: Default::default(),
            server_timer: ServerTimer::default(),
            return_retransmits: Mutex::default(),
            http: OnceLock::new(),
        }
    }

    /// Returns the client's own address if a preamble or OPEN named it, else that of the peer.
    pub fn client_source(&self) -> SocketAddr {
        let named = self.client_address.get();
        named.map_or(self.client.peer, |named| named.source)
    }

    /// Returns the client's own address for the log, with the peer that named it if it is another.
    #[cold]
    pub fn client_text(&self) -> String {
        let (client, peer) = (self.client_source(), self.client.peer);
        if client == peer {
            return peer.to_string();
        }
        format!("{client} (through {peer})")
    }

    /// Returns a number that changes when bytes move. That is when a pump reads or sends, and when
    /// a peer takes bytes that the kernel holds for it. The queue of a slow reader may be so long
    /// that no pump moves for minutes.
    pub fn movement(&self) -> usize {
        let moved = self.moved.load(Ordering::Relaxed);
        moved.wrapping_add(self.unacknowledged())
    }

    /// Returns the bytes that the kernel holds for both peers: written, and not acknowledged yet.
    /// An end of file counts as one.
    pub fn unacknowledged(&self) -> usize {
        let ends = [Some(&self.client), self.server.get()];
        let queued = ends
            .into_iter()
            .flatten()
            .map(|end| sys::unacknowledged(&end.socket));
        queued.fold(0, usize::wrapping_add)
    }

    /// Returns `true` if one of the pumps has given up.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Marks the pair as failed. Returns `true` to the first caller, which then sends the final
    /// frames.
    pub fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::AcqRel)
    }

    /// Resets both connections, once both pumps release them. Call [`fail`](Self::fail) before.
    pub fn abort(&self) {
        self.client.abort();
        self.abort_server();
    }

    /// Waits until both directions of `end` are shut, once nothing more can be read there.
    ///
    /// # Errors
    ///
    /// `Err(true)` if the peer reset it instead; `Err(false)` if the other pump failed the pair.
    pub fn wait_closed(&self, end: &End) -> Result<(), bool> {
        loop {
            if self.has_failed() {
                return Err(false);
            }
            match sys::wait_closed(&end.socket, LONGEST_TICK) {
                Ok(None) => {}
                Ok(Some(true)) if !self.has_failed() => return Err(true),
                Ok(Some(_)) | Err(_) => return Ok(()),
            }
        }
    }

    /// Resets the upstream connection. Call [`fail`](Self::fail) before.
    pub fn abort_server(&self) {
        fence(Ordering::SeqCst); // See `upstream::connect`, which may be connecting.
        if let Some(server) = self.server.get() {
            server.abort();
        }
    }

    /// Lets the final frame reach the client before its connection is reset, which may overtake it.
    /// Shuts the write half and waits a moment until the peer does the same.
    pub fn close_client(&self) {
        let _ = self.client.socket.shutdown(Shutdown::Write);
        sys::wait_peer_shut(&self.client.socket, self.timeout.min(LONGEST_TICK));
        self.client.abort();
    }
}
