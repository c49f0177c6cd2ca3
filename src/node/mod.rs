//! Sockets, threads and channels in; calls into the core. The roles of design section 3 are assembled here.
//!
//! # Threads
//!
//! One `accept` thread per listening address. Per connection a pair of threads: `up#N` moves bytes from the client to
//! the server, `down#N` back; a reflector needs `up#N` alone. Both hand finished measurements to one `collect` thread
//! over a bounded channel and never wait for it. A node that is asked about itself reads that on a thread `annotate`, its
//! SNMP agent's values on `snmp`: see [`annotator`](crate::annotate::annotator).
//! Where metrics are served, a `metrics` thread per listening address accepts requests, and one thread per request answers
//! with what the collector posts on the [`latest`] report when it is asked; `--sessions` is written on a thread `sessions`.
//!
//! **The law of the pumps:** a pump never waits on a channel; its only blocking calls are the read of its source and the
//! write of its sink. So an application that works directly works through the chain.

pub mod accept;
pub mod annotations;
pub mod clock;
pub mod connect_window;
mod connection;
pub mod connection_log;
pub mod dial;
pub mod end;
pub mod fault;
pub mod gate;
pub mod introduce;
pub mod link_auth;
pub mod pair;
pub mod pump;
pub mod reader;
pub mod serve;
pub mod server_time;
mod stop;
mod upstream;

pub use connection::contain_panics;
pub use stop::StopFlag;

use crate::annotate::annotator::{Annotator, Offer};
use crate::annotation::Classes;
use crate::collect::{latest, queue, requests};
use crate::session::admission::Accept;
use crate::sync::{lock, random};
use crate::sys;
use crate::time::Nanos;
use crate::wire::siphash::Key;
use crate::wire::{NodeInfo, NodeRole, DEFAULT_HOP_LIMIT, VERSION};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a node was told to do.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// `--node NAME`.
    pub name: String,
    /// Its part on the path; a relay that meets a raw client acts as an entry for it.
    pub role: NodeRole,
    /// `--add-static-tags`.
    pub tags: Vec<String>,
    /// Whether it stamps (not with `-n`).
    pub stamp: bool,
    /// `--accept`.
    pub accept: Accept,
    /// Whether the next hop is a plain server (`-r`).
    pub remove: bool,
    /// `-t`: per operation.
    pub timeout: Duration,
    /// Ends a connection on which no byte moved for so long; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// Least time between two marked blocks of a connection at an entry; zero marks every block.
    pub sample: Duration,
    /// Greatest number of hops that a path opened here may have.
    pub hop_limit: u8,
    /// Whether the kernel is asked when blocks arrive (not with `--no-kernel-times`).
    pub kernel_times: bool,
    /// `--key-file`: what frames between nodes are authenticated with; `None` leaves them as they are.
    pub key: Option<Key>,
    /// Who may connect, and how many at once.
    pub limits: gate::AdmissionLimits,
    /// `--ask`: what every node is asked for in every marked block of a path opened here.
    pub ask: Classes,
    /// What it tells of itself when it is asked.
    pub offer: Offer,
}

impl NodeSettings {
    /// The settings of a node of which nothing is asked for: it takes framed clients and has no key.
    pub fn new(name: &str, role: NodeRole, timeout: Duration) -> Self {
        Self {
            name: name.into(),
            role,
            tags: Vec::new(),
            stamp: true,
            accept: Accept::Framed,
            remove: false,
            timeout,
            idle_timeout: None,
            sample: Duration::from_millis(10),
            hop_limit: DEFAULT_HOP_LIMIT,
            kernel_times: true,
            key: None,
            limits: gate::AdmissionLimits::default(),
            ask: Classes::default(),
            offer: Offer::default(),
        }
    }

    /// Whether arrivals are wanted where frames come in: only a stamp has a place for them.
    pub fn wants_arrivals(&self) -> bool {
        self.kernel_times && self.stamp
    }

    /// Whether a listener is to ask for them, for all that it accepts.
    fn listens_for_arrivals(&self) -> bool {
        self.wants_arrivals() && self.accept != Accept::Raw
    }
}

/// One node of a path: what its threads share.
#[derive(Debug)]
pub struct Node {
    /// Random per node; what stamps carry.
    pub id: u64,
    /// What it was told to do.
    pub settings: NodeSettings,
    /// Its clock generations.
    pub clock: clock::NodeClock,
    /// Where measurements go.
    pub collector: queue::Collector,
    /// Where the newest report is, for those who ask.
    pub latest: Arc<latest::LatestReport>,
    /// What blocks that begin here ask for.
    pub requests: Arc<requests::AnnotationRequests>,
    /// What it answers when a block asks.
    pub annotator: Annotator,
    /// Where the lives of connections are written; `None` without `--sessions`.
    pub sessions: Option<connection_log::Sessions>,
    /// The next hop; `None` at a reflector.
    pub next_hop: Option<dial::NextHop>,
    /// Our own onward connections, local end and peer: one that is accepted here with the two exchanged is a loop. Both
    /// ends count, for on one host several connections may share a local port.
    own_ends: Mutex<HashSet<Ends>>,
    /// Whether it was said that a plain client waits for a server that is to speak first.
    silence_told: AtomicBool,
    /// Greatest error of the wall clock as the kernel states it, at start.
    pub clock_error: Option<Nanos>,
}

impl Node {
    /// A node, and the queue of its collector, which the caller has to drain.
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
            next_hop,
            own_ends: Mutex::default(),
            silence_told: AtomicBool::new(false),
            clock_error: sys::clock_error().map(Nanos::from),
            settings,
        };
        (node, queue)
    }

    /// How it introduces itself in OPEN, in the role it has on that connection.
    pub fn info(
        &self,
        role: NodeRole,
        connect: Option<Nanos>,
        address: String,
        next_hop: String,
    ) -> NodeInfo {
        NodeInfo {
            id: self.id,
            role,
            versions: (VERSION, VERSION),
            clock_error: self.clock_error,
            connect,
            name: self.settings.name.clone(),
            address,
            next_hop,
            tags: self.settings.tags.clone(),
        }
    }

    /// Whether it is to be said that a plain client waits: once.
    fn tells_silence(&self) -> bool {
        !self.silence_told.swap(true, Ordering::Relaxed)
    }

    /// Registers an onward connection.
    fn remember_own(&self, ends: Ends) {
        lock(&self.own_ends).insert(canonical(ends));
    }

    fn forget_own(&self, ends: &Ends) {
        lock(&self.own_ends).remove(&canonical(*ends));
    }

    /// Whether a client's connection (its end, then ours) is one of our own onward connections: a loop.
    fn is_own(&self, ends: &Ends) -> bool {
        lock(&self.own_ends).contains(&canonical(*ends))
    }
}

/// The two ends of a connection, that of the side which connected first.
type Ends = (SocketAddr, SocketAddr);

/// A listener of both families sees an IPv4 client as an IPv6 address (::ffff:192.0.2.1), the client itself does not.
fn canonical((first, second): Ends) -> Ends {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    (plain(first), plain(second))
}
