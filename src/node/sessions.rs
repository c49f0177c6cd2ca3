//! `--sessions FILE`: what happens to the connections of this node, a JSON line at the start of each, at the end, and for
//! each second in which something moved; and at `/sessions` one for each that is open.
//!
//! Pumps note events of their connection as they meet them, under a lock that only the `sessions` thread shares, never
//! between a stamp and its system call: a read is noted before the next one, a write after it. Who asks over HTTP takes
//! that lock for one copy of each connection's books, and leaves them as they are. Without `--sessions` nothing is noted
//! and no clock is read.

use super::diary::Diary;
use super::ends::{End, Pair};
use super::output::{Output, OutputError};
use super::{lock, STACK};
use crate::metrics_http::Take;
use crate::report::session::{line, Event, Snapshot};
use crate::session::journal::{EndJournal, Journal, Kernel, Place};
use crate::sys;
use crate::table::Table;
use crate::time::Nanos;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError, Sender};
use std::fs::OpenOptions;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Between two interval lines of a connection.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the end waits for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(5);
/// Starts and ends that wait for the thread: a burst of a thousand connections fits.
const QUEUE: usize = 4096;

/// Something that holds a pair while its connection lives.
pub trait HasPair: Send + Sync {
    /// The pair.
    fn pair(&self) -> &Pair;
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

enum News {
    Start(usize, Weak<dyn HasPair>),
    End(Box<Snapshot>),
    /// Nobody waits for more.
    Stop,
}

/// The pumps' side.
#[derive(Clone, Debug)]
pub struct Sessions {
    news: Sender<News>,
    missed: Arc<AtomicUsize>,
}

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start(..) => "Start",
            Self::End(_) => "End",
            Self::Stop => "Stop",
        })
    }
}

impl Sessions {
    fn tell(&self, news: News) {
        if self.news.try_send(news).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection was accepted: its books begin.
    pub(super) fn accepted(&self, connection: &Arc<impl HasPair + 'static>) {
        let pair = connection.pair();
        let now = sys::clock::read().wall;
        let client = &pair.client;
        let mut journal = EndJournal::accepted(now, client.peer, look(&client.socket));
        journal.local = client.socket.local_addr().ok();
        self.begin(connection, journal);
    }

    fn begin(&self, connection: &Arc<impl HasPair + 'static>, client: EndJournal) {
        let pair = connection.pair();
        let diary = Arc::new(Diary {
            journal: Mutex::new(Journal::new(client)),
            http: Mutex::default(),
        });
        pair.client.keep_diary(Place::Client, &diary);
        let held = Arc::downgrade(connection) as Weak<dyn HasPair>;
        self.tell(News::Start(pair.id, held));
    }

    /// A connection is over; its sockets are still there.
    pub(super) fn ended(&self, pair: &Pair) {
        if let Some(snapshot) = snapshot(pair, Event::End) {
            self.tell(News::End(Box::new(snapshot)));
        }
    }
}

/// Its onward connection stands, after a connect that took `took`.
pub(super) fn connected(pair: &Pair, end: &End, took: Nanos) {
    let Some(diary) = pair.client.diary() else {
        return;
    };
    let now = sys::clock::read().wall;
    let mut journal = EndJournal::connected(now, end.peer, took, look(&end.socket));
    journal.local = end.socket.local_addr().ok();
    lock(&diary.journal).server = Some(journal);
    end.keep_diary(Place::Server, diary);
}

/// The connection as it stands now; `None` where no books are kept.
fn snapshot(pair: &Pair, event: Event) -> Option<Snapshot> {
    let diary = pair.client.diary()?;
    let kernels = [Some(&pair.client), pair.server.get()].map(|end| end.map(|e| look(&e.socket)));
    let look_at = |journal: &mut Journal| {
        for (place, kernel) in [Place::Client, Place::Server].into_iter().zip(kernels) {
            if let (Some(end), Some(kernel)) = (journal.end(place), kernel) {
                end.look(kernel);
            }
        }
    };
    let (journal, interval) = if event == Event::Now {
        let mut journal = lock(&diary.journal).clone();
        look_at(&mut journal); // In the copy: the looks and intervals of the file are its own.
        (journal, [None; 2])
    } else {
        let mut journal = lock(&diary.journal);
        look_at(&mut journal);
        let interval = journal.interval();
        (journal.clone(), interval)
    };
    let (http, http_dropped) = if event == Event::End {
        let http = std::mem::take(&mut *lock(&diary.http));
        (http.so_far(), http.dropped)
    } else {
        (Vec::new(), 0)
    };
    let session = pair.session.get().filter(|session| session.cookie != 0);
    Some(Snapshot {
        event,
        at: sys::clock::read().wall,
        connection: pair.id,
        session: session.map(|session| (session.cookie, session.hop)),
        journal,
        interval,
        failed: pair.has_failed(),
        http,
        http_dropped,
    })
}

/// What `/sessions` of `node` answers: a line for each connection that is `open`, as it stands when its turn comes. Slow readers hold
/// none of them up.
///
/// # Errors
///
/// That of `take`.
pub(super) fn tell_open(
    node: &str,
    role: &str,
    open: impl Iterator<Item = Arc<dyn HasPair>>,
    take: &mut Take<'_>,
) -> io::Result<()> {
    // One that was accepted just now may have no books yet. Each is let go before its line is taken.
    let mut told = open.filter_map(|live| snapshot(live.pair(), Event::Now));
    told.try_for_each(|told| take(&line(node, role, &told)))
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer {
    outcome: Receiver<Result<(), OutputError>>,
    news: Sender<News>,
    path: PathBuf,
}

/// Opens the file, to write behind what it holds, and starts the thread; `node` and `role` stand in each line.
///
/// # Errors
///
/// [`OutputError`] of the file; a thread that cannot be started is one too.
pub fn start(path: &Path, node: &str, role: &str) -> Result<(Sessions, Writer), OutputError> {
    // What stands there is kept: that of the run before, and of one that was started twice by mistake.
    let file = OpenOptions::new().append(true).create(true).open(path);
    let output = match file {
        Ok(file) => Output::Stream(path.into(), file),
        Err(cause) => return Err(OutputError::writing(path.display().to_string(), cause)),
    };
    let (news, queue) = bounded(QUEUE);
    let (node, role) = (node.to_owned(), role.to_owned());
    let missed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&missed);
    let (say, outcome) = bounded(1);
    Builder::new()
        .name("sessions".into())
        .stack_size(STACK * 4) // JSON of a connection with a thousand exchanges is made here.
        .spawn(move || {
            // Nobody listens any more: the one who waited has given up.
            let _ = say.send(run(&queue, output, &node, &role, &counted));
        })
        .map_err(|error: io::Error| OutputError::writing("--sessions from a thread", error))?;
    let writer = Writer {
        outcome,
        news: news.clone(),
        path: path.into(),
    };
    Ok((Sessions { news, missed }, writer))
}

impl Writer {
    /// Waits until all is written that was told so far; not for ever, for who reads from a pipe may have stopped.
    ///
    /// # Errors
    ///
    /// [`OutputError`] of a line, or that they are not taken.
    pub fn finish(self) -> Result<(), OutputError> {
        let deadline = Instant::now() + PATIENCE;
        // Where it has no room, or is gone after a panic, the wait below tells.
        let _ = self.news.send_deadline(News::Stop, deadline);
        match self.outcome.recv_deadline(deadline) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Ok(()), // A panic has been reported on stderr.
            Err(RecvTimeoutError::Timeout) => {
                let path = self.path.display().to_string();
                Err(OutputError::writing(path, io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

fn run(
    queue: &Receiver<News>,
    mut output: Output,
    node: &str,
    role: &str,
    missed: &AtomicUsize,
) -> Result<(), OutputError> {
    let mut open = Table::new();
    let mut outcome = Ok(());
    let mut write = |snapshot: &Snapshot, outcome: &mut Result<(), OutputError>| {
        // After a fault the connections go on, unwritten.
        if outcome.is_ok() {
            *outcome = output.write(&line(node, role, snapshot));
            if let Err(error) = outcome {
                log::error!("sessions: {error}; no more is written");
            }
        }
    };
    let mut next = Instant::now() + INTERVAL;
    loop {
        // Without connections there is nothing to wake for.
        let news = if open.is_empty() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_deadline(next)
        };
        match news {
            Ok(News::Start(id, connection)) => {
                let live: Option<Arc<dyn HasPair>> = connection.upgrade();
                if let Some(snapshot) = live.and_then(|live| snapshot(live.pair(), Event::Start)) {
                    write(&snapshot, &mut outcome);
                }
                if open.is_empty() {
                    next = Instant::now() + INTERVAL;
                }
                open.insert(id, connection);
            }
            Ok(News::End(snapshot)) => {
                open.remove(&snapshot.connection);
                write(&snapshot, &mut outcome);
            }
            Err(RecvTimeoutError::Timeout) => {
                next += INTERVAL;
                open.retain(|_, connection| {
                    let Some(live) = connection.upgrade() else {
                        return false;
                    };
                    let told = snapshot(live.pair(), Event::Interval);
                    drop(live); // It may end while its line waits for a slow reader.
                    if let Some(told) = told.filter(|told| told.interval.iter().any(moved)) {
                        write(&told, &mut outcome);
                    }
                    true
                });
            }
            Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // What has not ended (a connect may take its time) ends with the process.
    for live in open.values().filter_map(Weak::upgrade) {
        if let Some(snapshot) = snapshot(live.pair(), Event::End) {
            write(&snapshot, &mut outcome);
        }
    }
    let missed = missed.load(Ordering::Relaxed);
    if missed > 0 {
        log::warn!("sessions: {missed} starts or ends of connections found the queue full and are not in the file");
    }
    outcome
}

fn moved(interval: &Option<crate::session::journal::Interval>) -> bool {
    interval.is_some_and(|told| {
        told.received_bytes + told.sent_bytes > 0 || told.retransmits.is_some_and(|sent| sent > 0)
    })
}
