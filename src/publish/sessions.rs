//! `--sessions FILE`: what happens to the connections of this node, a JSON line at the start of each, at the end, and for
//! each second in which something moved; and at `/sessions` one for each that is open.
//!
//! Pumps note events of their connection as they meet them, under a lock that only the `sessions` thread shares, never
//! between a stamp and its system call: a read is noted before the next one, a write after it. Who asks over HTTP takes
//! that lock for one copy of each connection's books, and leaves them as they are. Without `--sessions` nothing is noted
//! and no clock is read.

use crate::http::Take;
use crate::node::connection_log::{snapshot, ConnectionEvent, HasEnds, Sessions};
use crate::output::{Output, OutputError};
use crate::report::session::{line, Event, Snapshot};
use crate::sync::STACK;
use crate::vec_map::VecMap;
use crossbeam_channel::{bounded, Receiver, RecvTimeoutError};
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Between two interval lines of a connection.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the end waits for what is still to be written.
const PATIENCE: Duration = Duration::from_secs(5);
/// What `/sessions` of `node` answers: a line for each connection that is `open`, as it stands when its turn comes. Slow readers hold
/// none of them up.
///
/// # Errors
///
/// That of `take`.
pub fn write_open(
    node: &str,
    role: &str,
    open: impl Iterator<Item = Arc<dyn HasEnds>>,
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
    sessions: Sessions,
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
    let (sessions, queue) = Sessions::channel();
    let (node, role) = (node.to_owned(), role.to_owned());
    let counted = sessions.clone();
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
        sessions: sessions.clone(),
        path: path.into(),
    };
    Ok((sessions, writer))
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
        self.sessions.stop(deadline);
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
    queue: &Receiver<ConnectionEvent>,
    mut output: Output,
    node: &str,
    role: &str,
    sessions: &Sessions,
) -> Result<(), OutputError> {
    let mut open = VecMap::new();
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
            Ok(ConnectionEvent::Start(id, connection)) => {
                let live: Option<Arc<dyn HasEnds>> = connection.upgrade();
                if let Some(snapshot) = live.and_then(|live| snapshot(live.pair(), Event::Start)) {
                    write(&snapshot, &mut outcome);
                }
                if open.is_empty() {
                    next = Instant::now() + INTERVAL;
                }
                open.insert(id, connection);
            }
            Ok(ConnectionEvent::End(snapshot)) => {
                open.remove(&snapshot.connection);
                write(&snapshot, &mut outcome);
            }
            Err(RecvTimeoutError::Timeout) => {
                next += INTERVAL;
                open.retain(|_, connection| {
                    let Some(live) = connection.upgrade() else {
                        return false;
                    };
                    let told = snapshot(live.pair(), Event::IntervalCounts);
                    drop(live); // It may end while its line waits for a slow reader.
                    if let Some(told) = told.filter(|told| told.interval.iter().any(moved)) {
                        write(&told, &mut outcome);
                    }
                    true
                });
            }
            Ok(ConnectionEvent::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // What has not ended (a connect may take its time) ends with the process.
    for live in open.values().filter_map(Weak::upgrade) {
        if let Some(snapshot) = snapshot(live.pair(), Event::End) {
            write(&snapshot, &mut outcome);
        }
    }
    let missed = sessions.missed();
    if missed > 0 {
        log::warn!("sessions: {missed} starts or ends of connections found the queue full and are not in the file");
    }
    outcome
}

fn moved(interval: &Option<crate::session::connection_record::IntervalCounts>) -> bool {
    interval.is_some_and(|told| {
        told.received_bytes + told.sent_bytes > 0 || told.retransmits.is_some_and(|sent| sent > 0)
    })
}
