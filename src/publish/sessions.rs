//! The records of connections. `--sessions FILE` has a JSON line at the start of each, at its end,
//! and for each second in which bytes moved; `/sessions` has one for each that is open.
//!
//! Pumps note events of their connection under a lock that only the `sessions` thread shares, never
//! between a stamp and its system call. A read is noted before the next one, a write after it. A
//! request over HTTP takes that lock for one copy of each record. Without `--sessions` nothing is
//! noted and no clock is read.

use crate::collect::header_state::HeaderClocks;
use crate::http::stamp::StampNames;
use crate::http::Take;
use crate::node::connection_log::{snapshot, ConnectionEvent, HasEnds, Sessions};
use crate::output::OutputError;
use crate::report::session::{line, SessionEvent, Snapshot};
use crate::sync::channel::{channel, Receiver, RecvError};
use crate::sync::{spawn, STACK};
use crate::vec_map::VecMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The time between two interval lines of a connection.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time for which the end waits for lines that are not written yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the answer to `/sessions` of `node`: a line for each connection that is `open`. A slow
/// reader delays none of them.
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
    // A new connection may have no record yet. Each is released before its line is taken.
    let mut records = open.filter_map(|live| snapshot(live.pair(), SessionEvent::Now));
    records.try_for_each(|record| take(&line(node, role, &record)))
}

/// The thread that writes the file.
#[derive(Debug)]
pub struct SessionsWriter {
    outcome: Receiver<Result<(), OutputError>>,
    sessions: Sessions,
    path: PathBuf,
}

/// Opens the file to append to it, and starts the thread; `node` and `role` stand in each line.
/// Stamps are read in the fields `names` of heads of HTTP, if there are any.
///
/// # Errors
///
/// [`OutputError`] of the file, or of a thread that cannot be started.
pub fn start(
    path: &Path,
    node: &str,
    role: &str,
    names: Option<StampNames>,
    clocks: HeaderClocks,
) -> Result<(Sessions, SessionsWriter), OutputError> {
    // Earlier lines are kept: also those of another process with the same file.
    let file = OpenOptions::new().append(true).create(true).open(path);
    let output = match file {
        Ok(file) => LineFile::new(path.into(), file),
        Err(cause) => return Err(OutputError::writing(path.display().to_string(), cause)),
    };
    let (sessions, queue) = Sessions::channel(names, clocks);
    let (node, role) = (node.to_owned(), role.to_owned());
    let counted = sessions.clone();
    let (sender, outcome) = channel(1);
    // JSON of a connection with a thousand exchanges is made here.
    spawn("sessions", STACK * 4, move || {
        // An error means that the end did not wait any longer.
        let _ = sender.send(run(&queue, output, &node, &role, &counted));
    })
    .map_err(|error: io::Error| OutputError::writing("--sessions from a thread", error))?;
    let writer = SessionsWriter {
        outcome,
        sessions: sessions.clone(),
        path: path.into(),
    };
    Ok((sessions, writer))
}

impl SessionsWriter {
    /// Waits until all lines so far are written, but at most five seconds, as the reader of a pipe
    /// may have stopped.
    ///
    /// # Errors
    ///
    /// [`OutputError`] of a line, or of lines that were not written in time.
    pub fn finish(self) -> Result<(), OutputError> {
        let deadline = Instant::now() + PATIENCE;
        // If the queue has no room, or the thread panicked, the wait below returns it.
        self.sessions.stop(deadline);
        match self.outcome.recv_deadline(deadline) {
            Ok(outcome) => outcome,
            Err(RecvError::Disconnected) => Ok(()), // A panic has been reported on stderr.
            Err(RecvError::Timeout) => {
                let path = self.path.display().to_string();
                Err(OutputError::writing(path, io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

/// A file of lines, which goes on after a full disk.
struct LineFile<W> {
    path: PathBuf,
    file: W,
    /// The last line was cut.
    torn: bool,
    /// Lines that were not written since the log has named a fault.
    lost: u64,
    /// The reader of a pipe is gone.
    gone: bool,
}

impl<W: Write> LineFile<W> {
    fn new(path: PathBuf, file: W) -> Self {
        Self {
            path,
            file,
            torn: false,
            lost: 0,
            gone: false,
        }
    }

    /// Writes `text`, which ends in a line feed, on a line of its own. A fault and its end are
    /// logged once.
    fn line(&mut self, text: &str) -> Result<(), OutputError> {
        if self.gone {
            return Ok(());
        }
        match self.append(text) {
            Ok(()) => {
                if self.lost > 0 {
                    log::warn!("sessions: written again; lines lost: {}", self.lost);
                    self.lost = 0;
                }
                Ok(())
            }
            Err(cause) => {
                self.gone = cause.kind() == io::ErrorKind::BrokenPipe;
                self.lost += 1;
                let error = OutputError::writing(self.path.display().to_string(), cause);
                if self.lost == 1 {
                    log::error!("sessions: {error}");
                }
                Err(error)
            }
        }
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn run(
    queue: &Receiver<ConnectionEvent>,
    mut output: LineFile<File>,
    node: &str,
    role: &str,
    sessions: &Sessions,
) -> Result<(), OutputError> {
    let mut open = VecMap::new();
    let mut outcome = Ok(());
    let mut write = |snapshot: &Snapshot, outcome: &mut Result<(), OutputError>| {
        if let Err(error) = output.line(&line(node, role, snapshot)) {
            if outcome.is_ok() {
                *outcome = Err(error);
            }
        }
    };
    let mut next = Instant::now() + INTERVAL;
    loop {
        // Without connections no interval ends.
        let event = if open.is_empty() {
            queue.recv()
        } else {
            queue.recv_deadline(next)
        };
        match event {
            Ok(ConnectionEvent::Start(id, connection)) => {
                let live: Option<Arc<dyn HasEnds>> = connection.upgrade();
                if let Some(snapshot) =
                    live.and_then(|live| snapshot(live.pair(), SessionEvent::Start))
                {
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
            Err(RecvError::Timeout) => {
                next += INTERVAL;
                open.retain(|_, connection| {
                    let Some(live) = connection.upgrade() else {
                        return false;
                    };
                    let record = snapshot(live.pair(), SessionEvent::IntervalCounts);
                    drop(live); // It may end while its line waits for a slow reader.
                    if let Some(record) = record.filter(|one| one.interval.iter().any(moved)) {
                        write(&record, &mut outcome);
                    }
                    true
                });
            }
            Ok(ConnectionEvent::Stop) | Err(RecvError::Disconnected) => break,
        }
    }
    // A connection that is still open (a connect may take its time) ends with the process.
    for live in open.values().filter_map(Weak::upgrade) {
        if let Some(snapshot) = snapshot(live.pair(), SessionEvent::End) {
            write(&snapshot, &mut outcome);
        }
    }
    let missed = sessions.missed();
    if missed > 0 {
        log::warn!(
            "sessions: {missed} starts or ends of connections found the queue full and are not in \
             the file"
        );
    }
    outcome
}

fn moved(interval: &Option<crate::session::connection_record::IntervalCounts>) -> bool {
    interval.is_some_and(|one| {
        one.received_bytes + one.sent_bytes > 0 || one.retransmits.is_some_and(|sent| sent > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A disk that is full now and then.
    struct Disk {
        bytes: Vec<u8>,
        random: Random,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let takes = self.random.below(3 * bytes.len()).min(bytes.len());
            if takes == 0 {
                return Err(io::Error::from_raw_os_error(28));
            }
            self.bytes.extend_from_slice(&bytes[..takes]);
            Ok(takes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_that_was_written_stands_whole_on_a_line_of_its_own_after_a_full_disk() {
        for seed in 0..500 {
            let random = Random::new(seed);
            let bytes = Vec::new();
            let mut file = LineFile::new("s".into(), Disk { bytes, random });
            let lines = (0..50).map(|number| format!("{{\"line\": {number}}}\n"));
            let written: Vec<_> = lines.filter(|line| file.line(line).is_ok()).collect();
            let seen = String::from_utf8(file.file.bytes).unwrap();
            // A cut line lacks its end; one that lacks the line feed alone is whole.
            let whole = |line: &&str| line.starts_with('{') && line.ends_with('}');
            let seen: Vec<_> = seen.lines().filter(whole).collect();
            assert!(
                written.iter().all(|line| seen.contains(&line.trim_end())),
                "seed {seed}"
            );
            assert!(seen.len() <= 50 && !written.is_empty(), "seed {seed}");
        }
    }
}
