//! Sockets, threads and channels, and their calls into the core.
//!
//! # Threads
//!
//! One `accept` thread per listening address. Per connection a pair of threads: `up#N` moves bytes
//! from the client to the server, `down#N` back; a reflector needs `up#N` alone. Both hand finished
//! measurements to one `collect` thread over a bounded channel and never wait for it. A node that
//! is asked about itself reads that on a thread `annotate`, its SNMP agent's values on `snmp`: see
//! [`annotator`](crate::annotate::annotator). Where metrics are served, a `metrics` thread per
//! listening address accepts requests. One thread per request answers with the [`latest`] report,
//! which the collector posts on demand. A thread `sessions` writes `--sessions`.
//!
//! **The law of the pumps:** a pump never waits on a channel. Its only blocking calls are the read
//! of its source and the write of its sink. So an application that works directly works through the
//! chain.

pub mod accept;
pub mod accept_limit;
pub mod annotations;
pub mod clock;
pub mod connect_window;
mod connection;
pub mod connection_log;
pub mod dial;
pub mod end;
pub mod fault;
pub mod fault_log;

pub mod http_edit;
pub mod introduce;
pub mod link_auth;
pub mod pair;
mod proxy_preamble;
pub mod pump;
mod read_fault;
pub mod reader;
pub mod retransmits;
pub mod serve;
pub mod server_check;
pub mod server_time;
mod stop;
mod upstream;

pub use connection::contain_panics;
pub use stop::StopFlag;

use crate::annotate::annotator::{Annotator, Offer};
use crate::annotation::Classes;
use crate::collect::path_key::PathKey;
use crate::collect::{latest, path_labels, queue, requests};
use crate::http::edit::PassReason;
use crate::measure::Retransmits;
use crate::session::admission::Accept;
use crate::sync::{lock, random};
use crate::time::Nanos;
use crate::wire::proxy::ProxyVersion;
use crate::wire::{NodeInfo, NodeRole, ABILITY_PROBES, DEFAULT_HOP_LIMIT};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The settings of a node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// `--node NAME`.
    pub name: String,
    /// Its role on the path; a relay acts as an entry for a raw client.
    pub role: NodeRole,
    /// `--add-static-tags`.
    pub tags: Vec<String>,
    /// `true` if it stamps (not with `-n`).
    pub stamp: bool,
    /// `--accept`.
    pub accept: Accept,
    /// `true` if the next hop is a plain server (`-r`).
    pub remove: bool,
    /// `true` if clients begin with a preamble of the PROXY protocol (`--accept-proxy`).
    pub accept_proxy: bool,
    /// `--send-proxy`: the version of the preamble for the server; `None` = no preamble.
    pub send_proxy: Option<ProxyVersion>,
    /// `-t`: per operation.
    pub timeout: Duration,
    /// `--drain`: the longest wait for open connections at the end of a node.
    pub drain: Duration,
    /// The idle time after which a connection ends; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// The least time between two marked blocks of a connection at an entry; zero marks every
    /// block.
    pub sample: Duration,
    /// The greatest number of hops of a path that begins here.
    pub hop_limit: u8,
    /// `true` if the kernel is asked for arrival times (not with `--no-kernel-times`).
    pub kernel_times: bool,
    /// `--key-file`: the keys for the authentication of frames between nodes.
    pub keys: link_auth::Keys,
    /// The clients that may connect, and their number.
    pub limits: accept_limit::AdmissionLimits,
    /// `--server-check`: the age from which on the latest connect of an exit to its server is made
    /// again for a probe; `None` = never.
    pub server_check: Option<Duration>,
    /// `--http-write` and `--server-timing`.
    pub http: http_edit::HttpFields,
    /// The annotation classes that blocks of a path that begins here request.
    pub ask: Classes,
    /// The annotations that this node gives on request.
    pub offer: Offer,
}

impl NodeSettings {
    /// The settings of a node without options: it takes framed clients and has no key.
    pub fn new(name: &str, role: NodeRole, timeout: Duration) -> Self {
        Self {
            name: name.into(),
            role,
            tags: Vec::new(),
            stamp: true,
            accept: Accept::Framed,
            remove: false,
            accept_proxy: false,
            send_proxy: None,
            timeout,
            drain: timeout,
            idle_timeout: None,
            sample: Duration::from_millis(10),
            hop_limit: DEFAULT_HOP_LIMIT,
            kernel_times: true,
            keys: link_auth::Keys::default(),
            limits: accept_limit::AdmissionLimits::default(),
            server_check: None,
            http: http_edit::HttpFields::default(),
            ask: Classes::default(),
            offer: Offer::default(),
        }
    }

    /// Returns `true` if arrival times are wanted for frames: only a stamp has a field for them.
    pub fn wants_arrivals(&self) -> bool {
        self.kernel_times && self.stamp
    }

    /// Returns `true` if a listener is to request them, for all that it accepts. Of a raw client
    /// they date the first bytes; a plain proxy has no use for them.
    fn listens_for_arrivals(&self) -> bool {
        self.wants_arrivals() && !(self.accept == Accept::Raw && self.remove)
    }
}

/// One node of a path: the state that its threads share.
#[derive(Debug)]
pub struct Node {
    /// The random identifier in its stamps.
    pub id: u64,
    /// Its settings.
    pub settings: NodeSettings,
    /// Its clock generations.
    pub clock: clock::NodeClock,
    /// The queue for measurements.
    pub collector: queue::Collector,
    /// The latest report, for those that request it.
    pub latest: Arc<latest::LatestReport>,
    /// The annotations that blocks that begin here request.
    pub requests: Arc<requests::AnnotationRequests>,
    /// The source of its own annotations.
    pub annotator: Annotator,
    /// The writer of connection records; `None` without `--sessions`.
    pub sessions: Option<connection_log::Sessions>,
    /// The names of the paths through it, if it listens.
    pub labels: Arc<path_labels::PathLabels>,
    /// The next hop; `None` at a reflector.
    pub next_hop: Option<dial::NextHop>,
    /// The connects of an exit to its server.
    pub server_check: server_check::ServerCheck,
    /// This node's upstream connections, local end and peer. A client with both ends exchanged is
    /// this node itself: a loop. Both ends count, as several connections of a host may share a
    /// local port.
    own_ends: Mutex<HashSet<Ends>>,
    /// The bound of log lines about the faults of peers.
    fault_log: fault_log::FaultLog,
    /// The same for connections whose HTTP passes unchanged.
    http_log: fault_log::FaultLog,
    /// Set once the log has named a plain client that waits for a server that sends first.
    silence_logged: AtomicBool,
    /// Set once the log has named a path without the address of its client.
    unnamed_logged: AtomicBool,
    /// The number of connections whose HTTP passed unchanged from a doubt on.
    http_passed: AtomicUsize,
}

impl Node {
    /// Makes a node, and the queue of its collector, which the caller has to drain.
    pub fn new(settings: NodeSettings, next_hop: Option<dial::NextHop>) -> (Self, queue::Queue) {
        let (collector, queue) = queue::channel(settings.sample);
        let requests = requests::AnnotationRequests::default();
        requests.always(settings.ask);
        let node = Self {
            id: random(),
            clock: clock::NodeClock::new(),
            collector,
            latest: Arc::default(),
            requests: Arc::new(requests),
            annotator: Annotator::new(settings.offer.clone(), settings.tags.clone()),
            sessions: None,
            labels: Arc::default(),
            next_hop,
            server_check: server_check::ServerCheck::new(settings.server_check),
            own_ends: Mutex::default(),
            fault_log: fault_log::FaultLog::default(),
            http_log: fault_log::FaultLog::default(),
            silence_logged: AtomicBool::new(false),
            unnamed_logged: AtomicBool::new(false),
            http_passed: AtomicUsize::new(0),
            settings,
        };
        (node, queue)
    }

    /// Returns its introduction for OPEN, in the role that it has on that connection.
    pub fn info(
        &self,
        role: NodeRole,
        connect: Option<Nanos>,
        address: String,
        next_hop: String,
    ) -> NodeInfo {
        NodeInfo {
            abilities: match role {
                NodeRole::Exit => ABILITY_PROBES,
                _ => 0,
            },
            clock_error: self.clock.error(),
            connect,
            address,
            next_hop,
            tags: self.settings.tags.clone(),
            ..NodeInfo::new(self.id, role, self.settings.name.clone())
        }
    }

    /// Hands readings of retransmissions that came without a block to the collector.
    pub fn collect_retransmits(&self, path: PathKey, readings: Vec<Retransmits>) {
        if !readings.is_empty() {
            let readings = queue::Measurement::Retransmits(path, readings);
            self.collector.offer(readings);
        }
    }

    /// Returns `true` once: the log is to name a plain client that waits.
    fn logs_silence(&self) -> bool {
        !self.silence_logged.swap(true, Ordering::Relaxed)
    }

    /// Returns `true` once: the log is to name a path without the address of its client.
    fn logs_unnamed_client(&self) -> bool {
        !self.unnamed_logged.swap(true, Ordering::Relaxed)
    }

    /// Returns the number of connections whose HTTP passed unchanged from a doubt on.
    pub fn http_passed(&self) -> u64 {
        self.http_passed.load(Ordering::Relaxed) as u64
    }

    /// Counts and logs a connection whose HTTP passes unchanged from now on.
    #[cold]
    fn note_http_passing(&self, pair: &pair::EndPair, reason: PassReason) {
        self.http_passed.fetch_add(1, Ordering::Relaxed);
        let client = pair.client_source().ip();
        if let Some(before) = self.http_log.take(client, None, Instant::now()) {
            let more = match before {
                0 => String::new(),
                _ => format!(" (and {before} like it before, not logged)"),
            };
            let client = pair.client_text();
            log::warn!("client {client}: {reason}: the rest passes without our header{more}");
        }
    }

    /// Registers an upstream connection of this node.
    fn remember_own(&self, ends: Ends) {
        lock(&self.own_ends).insert(canonical(ends));
    }

    fn forget_own(&self, ends: &Ends) {
        lock(&self.own_ends).remove(&canonical(*ends));
    }

    /// Returns `true` if a client's connection (its end, then the local one) is an own upstream
    /// connection: a loop.
    fn is_own(&self, ends: &Ends) -> bool {
        lock(&self.own_ends).contains(&canonical(*ends))
    }
}

/// The two ends of a connection, first that of the side that connected.
type Ends = (SocketAddr, SocketAddr);

/// Returns the ends as a client sees them: a listener of both families sees an IPv4 client as
/// ::ffff:192.0.2.1.
fn canonical((first, second): Ends) -> Ends {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    (plain(first), plain(second))
}
