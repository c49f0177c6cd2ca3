//! The records that the pumps of a connection write for `--sessions`.

use crate::collect::header_state::HeaderClocks;
use crate::http::stamp::{StampNames, StampedExchange, TraceParent};
use crate::node::end::End;
use crate::node::pair::EndPair;
use crate::passive::{Http, Side as HttpSide};
use crate::report::session::{SessionEvent, Snapshot};
use crate::session::connection_record::{ConnectionRecord, ConnectionSide, EndRecord, Kernel};
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::lock;
use crate::sys;
use crate::time::{Nanos, WallTime};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// The capacity of the queue of starts and ends: a burst of a thousand connections fits.
const QUEUE: usize = 4096;

/// The log of a connection, which both of its ends hold.
#[derive(Debug)]
pub struct ConnectionLog {
    record: Mutex<ConnectionRecord>,
    http: Mutex<Http>,
    clocks: Arc<HeaderClocks>,
}

/// What the payload of an application brought to light.
#[derive(Debug, Default)]
pub struct FromPayload {
    /// The exchanges with stamps of other programs that are over.
    pub stamped: Vec<StampedExchange>,
    /// The trace of the first request in it; `None` without one.
    pub trace: Option<TraceParent>,
    /// `true` if a request's head has begun and not ended.
    pub is_within_head: bool,
}

impl ConnectionLog {
    /// Records an event of the end at `place`, dated now.
    #[cold]
    pub fn note(&self, place: ConnectionSide, what: impl FnOnce(&mut EndRecord, WallTime)) {
        let now = sys::clock::read().wall;
        if let Some(end) = lock(&self.record).end(place) {
            what(end, now);
        }
    }

    /// Records plain bytes of the application, dated `when` they were read, or now that they are
    /// written.
    #[cold]
    pub fn payload(
        &self,
        from: ConnectionSide,
        when: Option<WallTime>,
        bytes: &[u8],
    ) -> FromPayload {
        let side = match from {
            ConnectionSide::Client => HttpSide::Client,
            ConnectionSide::Server => HttpSide::Server,
        };
        let when = when.unwrap_or_else(|| sys::clock::read().wall);
        let mut http = lock(&self.http);
        http.clocks = self.clocks.known();
        http.read(when, side, bytes);
        FromPayload {
            stamped: http.take_stamped(),
            trace: http.take_trace_parent(),
            is_within_head: http.is_within_request_head(),
        }
    }
}

/// A holder of a pair, as long as its connection lives.
pub trait HasEnds: Send + Sync {
    /// The pair.
    fn pair(&self) -> &EndPair;
}

/// Returns the kernel's values of a socket.
fn kernel_state(socket: &TcpStream) -> Kernel {
    let Some(info) = sys::tcp_info(socket) else {
        return Kernel::default();
    };
    let micros = |value: Option<u64>| value.map(Nanos::from_micros);
    Kernel {
        round_trip: micros(info.rtt_us),
        least_round_trip: micros(info.min_rtt_us),
        retransmits: info.retransmits.and_then(|count| count.try_into().ok()),
    }
}

pub(crate) enum ConnectionEvent {
    /// A connection was accepted.
    Start(usize, Weak<dyn HasEnds>),
    /// A connection has ended.
    End(Box<Snapshot>),
    /// The node ends.
    Stop,
}

/// The sending half, for pumps.
#[derive(Clone, Debug)]
pub struct Sessions {
    events: Sender<ConnectionEvent>,
    missed: Arc<AtomicUsize>,
    /// `None` if no stamps are read.
    names: Option<Arc<StampNames>>,
    clocks: Arc<HeaderClocks>,
}

impl std::fmt::Debug for ConnectionEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start(..) => "Start",
            Self::End(_) => "End",
            Self::Stop => "Stop",
        })
    }
}

impl Sessions {
    /// Makes the sender and the queue of the thread that writes.
    pub(crate) fn channel(
        names: Option<StampNames>,
        clocks: HeaderClocks,
    ) -> (Self, Receiver<ConnectionEvent>) {
        let (events, queue) = channel(QUEUE);
        let sessions = Self {
            events,
            missed: Arc::default(),
            names: names.map(Arc::new),
            clocks: Arc::new(clocks),
        };
        (sessions, queue)
    }

    /// Returns the clocks of stamps, for the collector.
    pub fn clocks(&self) -> &Arc<HeaderClocks> {
        &self.clocks
    }

    /// Returns the number of starts and ends that found the queue full.
    pub fn missed(&self) -> usize {
        self.missed.load(Ordering::Relaxed)
    }

    /// Asks the thread to end. A queue that stays full until `deadline` has the effect of a thread
    /// that is gone.
    pub fn stop(&self, deadline: Instant) {
        let _ = self.events.send_by(ConnectionEvent::Stop, deadline);
    }

    fn send(&self, events: ConnectionEvent) {
        if self.events.send(events).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins the record of a connection that was accepted.
    pub fn accepted(&self, connection: &Arc<impl HasEnds + 'static>) {
        let pair = connection.pair();
        let now = sys::clock::read().wall;
        let client = &pair.client;
        let mut record = EndRecord::accepted(now, client.peer, kernel_state(&client.socket));
        record.local = client.socket.local_addr().ok();
        self.begin(connection, record);
    }

    fn begin(&self, connection: &Arc<impl HasEnds + 'static>, client: EndRecord) {
        let pair = connection.pair();
        let connection_log = Arc::new(ConnectionLog {
            record: Mutex::new(ConnectionRecord::new(client)),
            http: Mutex::new(Http::of_process(self.names.clone())),
            clocks: Arc::clone(&self.clocks),
        });
        pair.client
            .set_connection_log(ConnectionSide::Client, &connection_log);
        let held = Arc::downgrade(connection) as Weak<dyn HasEnds>;
        self.send(ConnectionEvent::Start(pair.id, held));
    }

    /// Ends the record of a connection whose sockets are still open.
    pub fn ended(&self, pair: &EndPair) {
        if let Some(snapshot) = snapshot(pair, SessionEvent::End) {
            self.send(ConnectionEvent::End(Box::new(snapshot)));
        }
    }
}

/// Begins the record of the upstream connection, after a connect that took `took`.
pub fn connected(pair: &EndPair, end: &End, took: Nanos) {
    let Some(connection_log) = pair.client.connection_log() else {
        return;
    };
    let now = sys::clock::read().wall;
    let mut record = EndRecord::connected(now, end.peer, took, kernel_state(&end.socket));
    record.local = end.socket.local_addr().ok();
    lock(&connection_log.record).server = Some(record);
    end.set_connection_log(ConnectionSide::Server, connection_log);
}

/// Returns the current record of a connection; `None` without `--sessions`.
pub fn snapshot(pair: &EndPair, event: SessionEvent) -> Option<Snapshot> {
    let connection_log = pair.client.connection_log()?;
    let kernels =
        [Some(&pair.client), pair.server.get()].map(|end| end.map(|e| kernel_state(&e.socket)));
    let update = |record: &mut ConnectionRecord| {
        for (place, kernel) in [ConnectionSide::Client, ConnectionSide::Server]
            .into_iter()
            .zip(kernels)
        {
            if let (Some(end), Some(kernel)) = (record.end(place), kernel) {
                end.update_kernel(kernel);
            }
        }
    };
    let (record, interval) = if event == SessionEvent::Now {
        let mut record = lock(&connection_log.record).clone();
        update(&mut record); // In the copy: the looks and intervals of the file are its own.
        (record, [None; 2])
    } else {
        let mut record = lock(&connection_log.record);
        update(&mut record);
        let interval = record.interval();
        (record.clone(), interval)
    };
    let (http, http_dropped) = if event == SessionEvent::End {
        let http = std::mem::take(&mut *lock(&connection_log.http));
        (http.exchanges, http.dropped)
    } else {
        (Vec::new(), 0)
    };
    let session = pair.session.get().filter(|session| session.cookie != 0);
    Some(Snapshot {
        event,
        at: sys::clock::read().wall,
        connection: pair.id,
        session: session.map(|session| (session.cookie, session.hop)),
        client_address: pair.client_address.get().map(|named| named.source),
        record,
        interval,
        failed: pair.has_failed(),
        http,
        http_dropped,
    })
}
