//! What the pumps of one connection note for `--sessions`.

use crate::node::end::End;
use crate::node::pair::EndPair;
use crate::passive::{Http, Side as HttpSide};
use crate::report::session::{Event, Snapshot};
use crate::session::connection_record::{ConnectionRecord, ConnectionSide, EndRecord, Kernel};
use crate::sync::lock;
use crate::sys;
use crate::time::{Nanos, WallTime};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// Starts and ends that wait for the thread: a burst of a thousand connections fits.
const QUEUE: usize = 4096;

/// A connection's books; both its ends have them.
#[derive(Debug, Default)]
pub struct ConnectionLog {
    record: Mutex<ConnectionRecord>,
    http: Mutex<Http>,
}

impl ConnectionLog {
    /// Notes something of the end at `place`, dated now.
    #[cold]
    #[inline(never)]
    pub fn note(&self, place: ConnectionSide, what: impl FnOnce(&mut EndRecord, WallTime)) {
        let now = sys::clock::read().wall;
        if let Some(end) = lock(&self.record).end(place) {
            what(end, now);
        }
    }

    /// Notes plain bytes of the application; `when` they were read, or now that they are written.
    #[cold]
    #[inline(never)]
    pub fn payload(&self, from: ConnectionSide, when: Option<WallTime>, bytes: &[u8]) {
        let side = match from {
            ConnectionSide::Client => HttpSide::Client,
            ConnectionSide::Server => HttpSide::Server,
        };
        let when = when.unwrap_or_else(|| sys::clock::read().wall);
        lock(&self.http).read(when, side, bytes);
    }
}

/// Something that holds a pair while its connection lives.
pub trait HasEnds: Send + Sync {
    /// The pair.
    fn pair(&self) -> &EndPair;
}

/// What the kernel knows of a socket.
fn look(socket: &TcpStream) -> Kernel {
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
    /// A connection is over.
    End(Box<Snapshot>),
    /// The node is at its end.
    Stop,
}

/// The pumps' side.
#[derive(Clone, Debug)]
pub struct Sessions {
    news: Sender<ConnectionEvent>,
    missed: Arc<AtomicUsize>,
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
    /// The sender and the queue of the thread that writes.
    pub(crate) fn channel() -> (Self, Receiver<ConnectionEvent>) {
        let (news, queue) = bounded(QUEUE);
        let missed = Arc::default();
        (Self { news, missed }, queue)
    }

    /// The starts and ends that found the queue full.
    pub fn missed(&self) -> usize {
        self.missed.load(Ordering::Relaxed)
    }

    /// Asks the thread to end. A queue that stays full until `deadline` has the same effect as a thread that is gone.
    pub fn stop(&self, deadline: Instant) {
        let _ = self.news.send_deadline(ConnectionEvent::Stop, deadline);
    }

    fn tell(&self, news: ConnectionEvent) {
        if self.news.try_send(news).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection was accepted: its books begin.
    pub fn accepted(&self, connection: &Arc<impl HasEnds + 'static>) {
        let pair = connection.pair();
        let now = sys::clock::read().wall;
        let client = &pair.client;
        let mut record = EndRecord::accepted(now, client.peer, look(&client.socket));
        record.local = client.socket.local_addr().ok();
        self.begin(connection, record);
    }

    fn begin(&self, connection: &Arc<impl HasEnds + 'static>, client: EndRecord) {
        let pair = connection.pair();
        let connection_log = Arc::new(ConnectionLog {
            record: Mutex::new(ConnectionRecord::new(client)),
            http: Mutex::default(),
        });
        pair.client
            .keep_diary(ConnectionSide::Client, &connection_log);
        let held = Arc::downgrade(connection) as Weak<dyn HasEnds>;
        self.tell(ConnectionEvent::Start(pair.id, held));
    }

    /// A connection is over; its sockets are still there.
    pub fn ended(&self, pair: &EndPair) {
        if let Some(snapshot) = snapshot(pair, Event::End) {
            self.tell(ConnectionEvent::End(Box::new(snapshot)));
        }
    }
}

/// Its onward connection stands, after a connect that took `took`.
pub fn connected(pair: &EndPair, end: &End, took: Nanos) {
    let Some(connection_log) = pair.client.connection_log() else {
        return;
    };
    let now = sys::clock::read().wall;
    let mut record = EndRecord::connected(now, end.peer, took, look(&end.socket));
    record.local = end.socket.local_addr().ok();
    lock(&connection_log.record).server = Some(record);
    end.keep_diary(ConnectionSide::Server, connection_log);
}

/// The connection as it stands now; `None` where no books are kept.
pub fn snapshot(pair: &EndPair, event: Event) -> Option<Snapshot> {
    let connection_log = pair.client.connection_log()?;
    let kernels = [Some(&pair.client), pair.server.get()].map(|end| end.map(|e| look(&e.socket)));
    let look_at = |record: &mut ConnectionRecord| {
        for (place, kernel) in [ConnectionSide::Client, ConnectionSide::Server]
            .into_iter()
            .zip(kernels)
        {
            if let (Some(end), Some(kernel)) = (record.end(place), kernel) {
                end.look(kernel);
            }
        }
    };
    let (record, interval) = if event == Event::Now {
        let mut record = lock(&connection_log.record).clone();
        look_at(&mut record); // In the copy: the looks and intervals of the file are its own.
        (record, [None; 2])
    } else {
        let mut record = lock(&connection_log.record);
        look_at(&mut record);
        let interval = record.interval();
        (record.clone(), interval)
    };
    let (http, http_dropped) = if event == Event::End {
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
        record,
        interval,
        failed: pair.has_failed(),
        http,
        http_dropped,
    })
}
