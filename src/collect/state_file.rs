//! The state on disk (`--state`): read at the start, a line appended for each window, written whole
//! once an hour and after a finite run.
//!
//! The file is the truth: other processes may write it too, so it is read again whenever it is not
//! as this process left it. A lock on `FILE.lock` beside it keeps them apart. Whatever fails is
//! logged once; the run goes on, and its records wait in memory.

use crate::measure::baseline::MAX_LEN;
use crate::measure::change::{BootClock, RecordEvent, When};
use crate::measure::{Part, Record, RunHistories, StateText};
use crate::output::replace;
use crate::sys;
use crate::time::{MonoTime, Nanos, Now};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The whole is written again after so long.
const WHOLE: Nanos = Nanos(3_600_000_000_000);
/// The longest wait for another process.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
/// Records that wait for a file that can be written again: a day of windows.
const WAITING: usize = 288;
/// A newest record that is so much later than now is of a clock that was stepped since.
const FUTURE: Nanos = Nanos(3_600_000_000_000);

/// A state file in use.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// As the file has it.
    on_disk: Arc<RunHistories>,
    /// The same and the records that wait.
    state: Arc<RunHistories>,
    /// Inode and length as this process left it.
    left: Option<(u64, u64)>,
    /// The last line is cut, or the text is of an older version.
    has_to_be_whole: bool,
    /// It is not ours to write: of another version, too large, or no state.
    is_foreign: bool,
    written_whole: MonoTime,
    waiting: Vec<(String, Record)>,
    /// The line that was logged last: a fault that lasts is logged once.
    fault: String,
}

impl StateFile {
    /// Reads the file at `path`; one that is not there yet has no runs. What is wrong with it is
    /// logged.
    pub fn open(path: PathBuf) -> Self {
        let mut file = Self {
            path,
            on_disk: Arc::default(),
            state: Arc::default(),
            left: None,
            has_to_be_whole: false,
            is_foreign: false,
            written_whole: sys::clock::mono(),
            waiting: Vec::new(),
            fault: String::new(),
        };
        if let Err(error) = file.refresh() {
            file.log(&error);
        }
        file.state = Arc::clone(&file.on_disk);
        let parent = file.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        if let Some(dir) = parent.filter(|dir| !dir.is_dir()) {
            let error = format!("there is no directory {}: make it", dir.display());
            file.log(&error);
        }
        let now = sys::clock::read().wall;
        let records = file.state.paths.values();
        let newest = records.filter_map(|path| path.records.last());
        let newest = newest.map(|record| record.when.wall).max();
        if let Some(ahead) = newest.filter(|wall| wall.0 > now.0.saturating_add(FUTURE.0)) {
            file.log(&format!(
                "its newest record is of {ahead}, after now: a clock was stepped; records are \
                 ordered by their numbers"
            ));
        }
        file
    }

    /// The state as it was read or written last, with the records that wait.
    pub fn state(&self) -> Arc<RunHistories> {
        Arc::clone(&self.state)
    }

    /// Adds the record of a window of `key`'s path, as an appended line where that does.
    pub fn push(&mut self, key: &str, record: Record) -> Vec<(Part, RecordEvent)> {
        if self.is_foreign {
            return self.enter(key, record);
        }
        let lock = self.begin();
        let written = match &lock {
            Ok(_) => self.append(key, &record),
            Err(error) => Err(error.clone()),
        };
        match written {
            Ok(events) => {
                self.fault.clear();
                events
            }
            Err(error) => {
                self.log(&error);
                // The file is read again before the next record, which those that wait precede.
                self.left = None;
                if self.waiting.len() < WAITING {
                    self.waiting.push((key.to_owned(), record.clone()));
                }
                self.enter(key, record)
            }
        }
    }

    /// Changes the state and writes it whole. The change is made in memory also if that fails.
    ///
    /// # Errors
    ///
    /// A sentence, which is logged too: the file cannot be locked, read or written.
    pub fn update(&mut self, change: impl FnOnce(&mut RunHistories)) -> Result<(), String> {
        let lock = self.begin();
        change(Arc::make_mut(&mut self.state));
        let written = lock.and_then(|_lock| self.write_whole());
        match &written {
            Ok(()) => self.fault.clear(),
            Err(error) => {
                self.log(error);
                self.left = None;
            }
        }
        written
    }

    /// Locks the file, and reads it if another process has written it.
    fn begin(&mut self) -> Result<Option<File>, String> {
        if self.is_foreign {
            return Err(self.fault.clone());
        }
        let lock = self.lock()?;
        self.refresh()?;
        self.state = Arc::clone(&self.on_disk);
        let waiting = std::mem::take(&mut self.waiting);
        let mut fault = None;
        for (key, record) in waiting {
            let written = match &fault {
                None => self.append(&key, &record).err(),
                Some(_) => None,
            };
            fault = fault.or(written);
            if fault.is_some() {
                self.enter(&key, record.clone());
                self.waiting.push((key, record));
            }
        }
        fault.map_or(Ok(lock), Err)
    }

    /// `None` where files cannot be locked.
    fn lock(&mut self) -> Result<Option<File>, String> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&name)
            .map_err(|error| format!("open {}: {error}", name.display()))?;
        let begun = Instant::now();
        loop {
            match sys::file::try_lock(&opened) {
                Ok(()) => return Ok(Some(opened)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if begun.elapsed() >= PATIENCE {
                        let held = "another process holds the lock";
                        return Err(format!("lock {}: {held}; is it stopped?", name.display()));
                    }
                    std::thread::park_timeout(PAUSE);
                }
                // NFS without its lock service: two at once may lose a line.
                Err(error) => {
                    let name = name.display();
                    self.log(&format!("lock {name}: {error}; going on without a lock"));
                    return Ok(None);
                }
            }
        }
    }

    /// Reads the file if it is not as this process left it.
    fn refresh(&mut self) -> Result<(), String> {
        match fs::metadata(&self.path) {
            Ok(data) if !data.is_file() => {
                self.is_foreign = true;
                return Err("is no regular file".to_owned());
            }
            Ok(data) if self.left == Some((data.ino(), data.len())) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.has_to_be_whole = true;
                self.on_disk = Arc::default();
                return Ok(());
            }
            Err(error) => return Err(format!("read: {error}")),
        }
        let read = read_state(&self.path);
        self.is_foreign = matches!(read, Err(StateReadError::Foreign(_)));
        let StateText {
            state,
            cut,
            appended,
        } = read.map_err(|error| error.to_string())?;
        if let Some(line) = cut {
            self.log(&format!("line {line} is cut: dropped"));
        }
        self.has_to_be_whole = cut.is_some() || appended > WAITING;
        self.on_disk = Arc::new(state);
        Ok(())
    }

    fn enter(&mut self, key: &str, mut record: Record) -> Vec<(Part, RecordEvent)> {
        let state = Arc::make_mut(&mut self.state);
        record.sequence = state.next_sequence();
        state.push(key, record)
    }

    fn append(&mut self, key: &str, record: &Record) -> Result<Vec<(Part, RecordEvent)>, String> {
        let mut record = record.clone();
        record.sequence = self.state.next_sequence();
        let line = RunHistories::line(key, &record);
        let is_due = sys::clock::mono().since(self.written_whole) >= WHOLE;
        if is_due || self.has_to_be_whole {
            let before = Arc::clone(&self.state);
            let events = self.enter(key, record);
            let written = self.write_whole();
            if written.is_err() {
                self.state = before;
            }
            return written.map(|()| events);
        }
        let error = |error: io::Error| format!("write: {error}");
        let opened = OpenOptions::new().append(true).open(&self.path);
        let mut file = opened.map_err(error)?;
        let before = file.metadata().map_err(error)?.len();
        if let Err(cause) = file.write_all(line.as_bytes()) {
            // A full disk may take half of a line.
            let _ = file.set_len(before);
            return Err(error(cause));
        }
        let events = self.enter(key, record);
        self.note_left();
        Ok(events)
    }

    fn write_whole(&mut self) -> Result<(), String> {
        let text = Arc::make_mut(&mut self.state).text();
        replace(&self.path, &text).map_err(|error| error.to_string())?;
        self.has_to_be_whole = false;
        self.written_whole = sys::clock::mono();
        self.note_left();
        Ok(())
    }

    fn note_left(&mut self) {
        let data = fs::metadata(&self.path).ok();
        self.left = data.map(|data| (data.ino(), data.len()));
        self.on_disk = Arc::clone(&self.state);
    }

    fn log(&mut self, error: &str) {
        if self.fault != error {
            log::error!("state {}: {error}", self.path.display());
            error.clone_into(&mut self.fault);
        }
    }
}

/// The reason why a state cannot be used.
#[derive(Debug)]
pub enum StateReadError {
    /// It is of another version, too large, or no state at all: it is never written.
    Foreign(String),
    /// The system call failed.
    Io(io::Error),
}

impl StateReadError {
    /// The error without a remedy, for a command that does not write the file.
    pub fn what(&self) -> String {
        match self {
            Self::Foreign(what) => what.clone(),
            Self::Io(error) => format!("read: {error}"),
        }
    }
}

impl std::fmt::Display for StateReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign(what) => {
                write!(f, "{what}; left as it is: move it away to begin anew")
            }
            Self::Io(_) => f.write_str(&self.what()),
        }
    }
}

/// Reads the state at `path`.
///
/// # Errors
///
/// [`StateReadError`]: the file cannot be read, or it is no state of this version.
pub fn read_state(path: &Path) -> Result<StateText, StateReadError> {
    let text = read_bounded(path)?;
    RunHistories::parse(&text).map_err(|error| StateReadError::Foreign(error.to_string()))
}

/// Reads a file of at most [`MAX_LEN`] bytes, as text.
///
/// # Errors
///
/// As [`read_state`].
pub fn read_bounded(path: &Path) -> Result<String, StateReadError> {
    let file = File::open(path).map_err(StateReadError::Io)?;
    let most = MAX_LEN as u64 + (1 << 20);
    let data = file.metadata().map_err(StateReadError::Io)?;
    let large = || {
        let what = format!("it is larger than {} MiB", most >> 20);
        StateReadError::Foreign(what)
    };
    if data.len() > most {
        return Err(large());
    }
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(StateReadError::Io)?;
    if bytes.len() as u64 > most {
        return Err(large());
    }
    String::from_utf8(bytes).map_err(|_| StateReadError::Foreign("it is no text".to_owned()))
}

/// The time now, as records have it. Hours of the week are those of UTC.
pub fn now() -> When {
    let now = sys::clock::read();
    clock().when(Now {
        wall: now.wall,
        mono: now.mono,
    })
}

/// The clock of records against that of this process.
pub fn clock() -> BootClock {
    let now = sys::file::boot_time();
    BootClock {
        boot: now.boot,
        ahead: now.mono.since(sys::clock::mono()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::baseline::{PartRecord, PartRecords};
    use crate::time::SignedNanos;
    use crate::vec_map::VecMap;
    use std::os::unix::fs::PermissionsExt;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("sts-state-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("state")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record() -> Record {
        let delay = SignedNanos(5_000_000);
        let figures = PartRecord {
            count: 7,
            mean: delay,
            p50: delay,
            p95: delay,
            one_way: None,
            rise: None,
        };
        Record {
            window: Nanos(1_000_000_000),
            when: now(),
            parts: PartRecords::from(&VecMap::from([(Part::Host(0), figures)])),
            ..Record::default()
        }
        .rounded()
    }

    fn records(path: &Path) -> Vec<u64> {
        let state = read_state(path).unwrap().state;
        let path = state.paths.values().next();
        path.map_or_else(Vec::new, |path| {
            path.records.iter().map(|record| record.sequence).collect()
        })
    }

    #[test]
    fn two_writers_at_once_lose_nothing() {
        let scratch = Scratch::new("two");
        let file = scratch.file();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let file = file.clone();
                std::thread::spawn(move || {
                    let mut state = StateFile::open(file);
                    for _ in 0..100 {
                        state.push("0=A", record());
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        assert_eq!(records(&file), (1..=200).collect::<Vec<_>>());
    }

    #[test]
    fn a_cut_line_is_dropped_and_the_mode_is_kept() {
        let scratch = Scratch::new("cut");
        let file = scratch.file();
        let mut state = StateFile::open(file.clone());
        (0..3).for_each(|_| drop(state.push("0=A", record())));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let text = fs::read(&file).unwrap();
        fs::write(&file, &text[..text.len() - 4]).unwrap();
        let mut state = StateFile::open(file.clone());
        state.push("0=A", record());
        state.push("0=A", record());
        assert_eq!(records(&file), [1, 2, 3, 4]);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn what_is_no_state_of_this_version_stays_as_it_is() {
        let scratch = Scratch::new("foreign");
        let file = scratch.file();
        for text in [
            "subsegment-tcp-speeds state 9\nx\n",
            "notes\n",
            "\u{0}\u{1}",
        ] {
            fs::write(&file, text).unwrap();
            let mut state = StateFile::open(file.clone());
            state.push("0=A", record());
            state.update(|state| drop(state.accept(None))).unwrap_err();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(state.state().paths.len(), 1, "it is kept in memory");
        }
        let huge = File::create(&file).unwrap();
        huge.set_len(1 << 40).unwrap();
        let error = read_state(&file).unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
    }

    #[test]
    fn records_wait_for_a_directory_that_is_missing_and_none_is_lost() {
        let scratch = Scratch::new("missing");
        let directory = scratch.0.join("later");
        let file = directory.join("state");
        let mut state = StateFile::open(file.clone());
        state.push("0=A", record());
        state.push("0=A", record());
        assert_eq!(state.state().next_sequence(), 3);
        fs::create_dir(&directory).unwrap();
        state.push("0=A", record());
        assert_eq!(records(&file), [1, 2, 3]);
    }

    #[test]
    fn a_full_disk_takes_no_half_line_and_the_record_is_in_memory() {
        let scratch = Scratch::new("full");
        let file = scratch.file();
        let mut state = StateFile::open(file.clone());
        state.push("0=A", record());
        // What another process writes is read before the next record is added.
        let mut other = StateFile::open(file.clone());
        other.push("0=A", record());
        state.push("0=A", record());
        assert_eq!(records(&file), [1, 2, 3]);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        state.push("0=A", record());
        assert_eq!(state.state().next_sequence(), 5);
    }
}
