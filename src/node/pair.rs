//! The two ends of a connection as its pumps share them.

use crate::node::end::{End, LONGEST_TICK};
use crate::node::server_time::ServerTimer;
use crate::sys::{self};
use std::net::Shutdown;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

/// What all frames of a connection have in common, from this node's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Its identifier.
    pub cookie: u64,
    /// This node's hop.
    pub hop: u8,
    /// As the source set it.
    pub hop_limit: u8,
}

/// What the two pumps of a connection share.
#[derive(Debug)]
pub struct EndPair {
    /// The connection's number, as in the names of its threads.
    pub id: usize,
    /// Where the bytes came from.
    pub client: End,
    /// The path session it carries; `None` until OPEN was read or made.
    pub session: OnceLock<Session>,
    /// Where they go; `None` at a reflector and until the onward connection stands.
    pub server: OnceLock<End>,
    /// `-t`.
    pub timeout: Duration,
    failed: AtomicBool,
    /// Counts the reads of both pumps, and what a blocked write gets rid of: whether anything moves.
    pub moved: AtomicUsize,
    /// How many pumps are blocked in a write, and so have something in flight.
    pub blocked: AtomicUsize,
    /// What the up pump has moved so far, and the down pump: their own counts, for others to read.
    pub carried: [PumpCounts; 2],
    /// Whether the server has answered what it was sent.
    pub server_timer: ServerTimer,
}

/// The running counts of one pump, which alone writes them. They stop at `usize::MAX`, 4 GiB on a 32-bit host; what ends
/// up in the node's totals when the connection ends is exact.
#[derive(Debug, Default)]
pub struct PumpCounts {
    /// Blocks, or pieces of plain traffic.
    pub blocks: AtomicUsize,
    /// Their payload.
    pub bytes: AtomicUsize,
    /// Reports that found their queue full.
    pub reports_dropped: AtomicUsize,
}

impl PumpCounts {
    /// Shows the pump's counts: two plain stores.
    #[inline]
    pub fn show(&self, blocks: u64, bytes: u64) {
        let bounded = |count| usize::try_from(count).unwrap_or(usize::MAX);
        self.blocks.store(bounded(blocks), Ordering::Relaxed);
        self.bytes.store(bounded(bytes), Ordering::Relaxed);
    }

    /// Blocks, bytes, dropped reports.
    pub fn shown(&self) -> [u64; 3] {
        [&self.blocks, &self.bytes, &self.reports_dropped]
            .map(|count| count.load(Ordering::Relaxed) as u64)
    }

    /// The counts have been entered elsewhere.
    pub fn clear(&self) {
        self.show(0, 0);
        self.reports_dropped.store(0, Ordering::Relaxed);
    }
}

impl EndPair {
    /// A pair whose onward side is not there yet.
    pub fn new(id: usize, client: End, timeout: Duration) -> Self {
        Self {
            id,
            client,
            session: OnceLock::new(),
            server: OnceLock::new(),
            timeout,
            failed: AtomicBool::new(false),
            moved: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            carried: Default::default(),
            server_timer: ServerTimer::default(),
        }
    }

    /// A number that changes when bytes move: when a pump reads or gets rid of some, and when a peer takes some of what
    /// the kernel holds for it - a slow reader's queue may be that long that no pump moves for minutes.
    pub fn movement(&self) -> usize {
        let moved = self.moved.load(Ordering::Relaxed);
        moved.wrapping_add(self.unacknowledged())
    }

    /// Bytes that the kernel holds for both peers: written, and not acknowledged yet; an end of file counts as one.
    pub fn unacknowledged(&self) -> usize {
        let ends = [Some(&self.client), self.server.get()];
        let queued = ends
            .into_iter()
            .flatten()
            .map(|end| sys::unacknowledged(&end.socket));
        queued.fold(0, usize::wrapping_add)
    }

    /// Whether one of the pumps has given up.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Marks the pair; `true` for the first who does, whose business the last words are.
    pub fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::AcqRel)
    }

    /// Ends both connections with a reset once both pumps let go of them. After [`fail`](Self::fail).
    pub fn abort(&self) {
        self.client.abort();
        self.abort_server();
    }

    /// Waits until both directions of `end` are shut, once nothing more can be read there.
    ///
    /// # Errors
    ///
    /// `Err(true)` where the peer reset it instead; `Err(false)` where the other pump failed the pair.
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

    /// Ends the onward connection with a reset. After [`fail`](Self::fail).
    pub fn abort_server(&self) {
        fence(Ordering::SeqCst); // Where it is connecting, see `serve::connect`.
        if let Some(server) = self.server.get() {
            server.abort();
        }
    }

    /// Lets the last word reach the client before its connection goes: shuts the write half and waits a moment for the
    /// peer to do the same, since a reset may overtake what was sent.
    pub fn close_client(&self) {
        let _ = self.client.socket.shutdown(Shutdown::Write);
        sys::wait_peer_shut(&self.client.socket, self.timeout.min(LONGEST_TICK));
        self.client.abort();
    }
}
