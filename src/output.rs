//! Results out: stdout, stderr and named files, with checked writes (the print macros panic on a
//! broken pipe).

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A result that could not be written, or a file that could not be read.
#[derive(Debug)]
pub struct OutputError {
    action: &'static str,
    target: String,
    cause: io::Error,
    /// The messages of others that failed, each after `; `.
    others: String,
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, target, cause) = (self.action, &self.target, &self.cause);
        write!(f, "{action} {target}: {cause}{}", self.others)
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl OutputError {
    pub(super) fn writing(target: impl Into<String>, cause: io::Error) -> Self {
        Self {
            action: "write",
            target: target.into(),
            cause,
            others: String::new(),
        }
    }

    /// Returns the error of a file that could not be read or parsed.
    pub fn reading(path: &Path, cause: io::Error) -> Self {
        Self {
            action: "read",
            target: path.display().to_string(),
            cause,
            others: String::new(),
        }
    }

    /// Joins several results into one.
    ///
    /// # Errors
    ///
    /// A failure that names all; the absence of a reader only if nothing else failed.
    pub fn all<const N: usize>(results: [Result<(), Self>; N]) -> Result<(), Self> {
        let mut errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        errors.sort_by_key(Self::is_closed_pipe);
        let mut errors = errors.into_iter();
        let Some(mut first) = errors.next() else {
            return Ok(());
        };
        for other in errors.filter(|other| !other.is_closed_pipe()) {
            first.others.push_str(&format!("; {other}"));
        }
        Err(first)
    }

    /// Returns `true` if the reader of a pipe is gone: a normal end (`| head -1`), not a failure.
    pub fn is_closed_pipe(&self) -> bool {
        self.cause.kind() == io::ErrorKind::BrokenPipe
    }
}

/// The destination of results.
#[derive(Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error, as stdout carries payload.
    Stderr,
    /// A `--report FILE` of a format with a line per block, written as they come.
    Stream(PathBuf, fs::File),
    /// A `--report FILE` of one report at the end, which replaces the old one at once.
    Whole(PathBuf),
    /// No destination: the figures are read elsewhere.
    Nothing,
}

impl Output {
    /// Opens the file at `path`, or returns `otherwise` without one. A bad path is an error before
    /// anything is measured; only a `stream` is emptied now.
    ///
    /// # Errors
    ///
    /// As open(2).
    pub fn open(path: Option<&Path>, otherwise: Self, stream: bool) -> Result<Self, OutputError> {
        let Some(path) = path else {
            return Ok(otherwise);
        };
        let opened = if stream {
            fs::File::create(path)
        } else {
            fs::OpenOptions::new().append(true).create(true).open(path)
        };
        let regular = fs::metadata(path).is_ok_and(|data| data.is_file());
        match opened {
            // A pipe or a device can only be written to, not replaced.
            Ok(file) if stream || !regular => Ok(Self::Stream(path.into(), file)),
            Ok(_) => Ok(Self::Whole(path.into())),
            Err(cause) => Err(OutputError::writing(path.display().to_string(), cause)),
        }
    }

    /// Writes all of `text`, unbuffered beyond the call.
    ///
    /// # Errors
    ///
    /// As write(2), with the name of the destination.
    pub fn write(&mut self, text: &str) -> Result<(), OutputError> {
        let (target, written) = match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                ("standard output".to_owned(), written)
            }
            Self::Stderr => (
                "standard error".to_owned(),
                io::stderr().write_all(text.as_bytes()),
            ),
            Self::Stream(path, file) => {
                (path.display().to_string(), file.write_all(text.as_bytes()))
            }
            Self::Whole(path) => return replace(path, text),
            Self::Nothing => return Ok(()),
        };
        written.map_err(|cause| OutputError::writing(target, cause))
    }
}

/// Returns standard output without std's line buffer: a block goes out with one call.
///
/// # Errors
///
/// As fcntl(2), if the program was started without one.
pub fn raw_stdout() -> io::Result<fs::File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Returns standard input without std's buffer: one read makes one block.
///
/// # Errors
///
/// As fcntl(2), if the program was started without one.
pub fn raw_stdin() -> io::Result<fs::File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Writes `text` to stderr. A failure is ignored, as there is no other place to report it.
pub fn print_error(text: &str) {
    let _ = Output::Stderr.write(text);
}

/// Replaces a file through a temporary one beside it, so that a reader sees the old or the new
/// content and nothing between. A pipe or a device is written to: a file in its place would break
/// it. A link (also `/dev/stdout`) stays one, and its target is replaced.
///
/// # Errors
///
/// As open(2), write(2) and rename(2), with the name of the file.
pub fn replace(path: &Path, content: &str) -> Result<(), OutputError> {
    if fs::metadata(path).is_ok_and(|data| !data.is_file()) {
        let opened = fs::OpenOptions::new().write(true).open(path);
        let written = opened.and_then(|mut file| file.write_all(content.as_bytes()));
        return written.map_err(|cause| OutputError::writing(path.display().to_string(), cause));
    }
    let real = if path.is_symlink() {
        followed(path)
    } else {
        Ok(path.into())
    };
    let real = real.map_err(|cause| OutputError::writing(path.display().to_string(), cause))?;
    let mut beside = real.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    // Left behind by a killed process with this number. A link that others put there is never
    // followed.
    let _ = fs::remove_file(&beside);
    let mut creating = fs::OpenOptions::new();
    creating.write(true).create_new(true);
    if real.exists() {
        // No other user may open it before it has the old owner and mode.
        creating.mode(0o600);
    }
    let created = creating.open(&beside);
    let created = created.and_then(|file| keep_owner(&real, file));
    // A directory that takes no new files may hold one that can be written.
    if let Err(error) = &created {
        if error.kind() == io::ErrorKind::PermissionDenied && path.exists() {
            let _ = fs::remove_file(&beside);
            return fs::write(path, content)
                .map_err(|cause| OutputError::writing(path.display().to_string(), cause));
        }
    }
    let replaced = created
        .and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, &real));
    replaced.map_err(|cause| {
        // It may not exist.
        let _ = fs::remove_file(&beside);
        OutputError::writing(path.display().to_string(), cause)
    })
}

/// Gives `file` the owner and the mode of the file that it is to replace, if there is one.
fn keep_owner(replaced: &Path, file: fs::File) -> io::Result<fs::File> {
    if let Ok(old) = fs::metadata(replaced) {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
    }
    Ok(file)
}

/// Returns the target of a link, which is created if it is missing. The path is that of the open
/// file. The kernel decides about links in shared directories (fs.protected_symlinks), and a link
/// that changes meanwhile has no effect.
fn followed(link: &Path) -> io::Result<PathBuf> {
    let mut opening = fs::OpenOptions::new();
    let file = opening.append(true).create(true).open(link)?;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::process::Command;

    /// A directory that is removed when it is dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sts-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_pipe_is_written_to_and_stays_a_pipe() {
        let scratch = Scratch::new("pipe");
        let pipe = scratch.0.join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        // Open for both: neither end waits for another process.
        let mut opening = fs::OpenOptions::new();
        let mut reader = opening.read(true).write(true).open(&pipe).unwrap();
        replace(&pipe, "figures").unwrap();
        let kind = fs::symlink_metadata(&pipe).unwrap().file_type();
        assert!(kind.is_fifo(), "{kind:?}");
        let mut seen = [0; 7];
        io::Read::read_exact(&mut reader, &mut seen).unwrap();
        assert_eq!(&seen, b"figures");
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_owner() {
        let scratch = Scratch::new("mode");
        let path = scratch.0.join("figures");
        fs::write(&path, "old").unwrap();
        for mode in [0o600, 0o640, 0o604, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            // It succeeds for root alone; the owner is then another.
            let _ = std::os::unix::fs::chown(&path, Some(1), Some(1));
            let before = fs::metadata(&path).unwrap();
            replace(&path, "new").unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_ne!(before.ino(), after.ino());
            assert_eq!(after.mode() & 0o7777, mode);
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        }
    }

    #[test]
    fn all_files_that_failed_are_named() {
        let failed = |name: &str, kind: io::ErrorKind| Err(OutputError::writing(name, kind.into()));
        let (full, gone) = (io::ErrorKind::OutOfMemory, io::ErrorKind::BrokenPipe);
        let all = OutputError::all([
            failed("p", gone),
            failed("a", full),
            Ok(()),
            failed("b", full),
        ]);
        let text = all.unwrap_err().to_string();
        assert_eq!(text, "write a: out of memory; write b: out of memory");
        assert!(OutputError::all([failed("p", gone)])
            .unwrap_err()
            .is_closed_pipe());
    }

    #[test]
    fn a_link_stays_one_and_its_target_is_replaced() {
        let scratch = Scratch::new("follow");
        let (real, link) = (scratch.0.join("real"), scratch.0.join("link"));
        std::os::unix::fs::symlink("real", &link).unwrap();
        for content in ["made", "made anew"] {
            replace(&link, content).unwrap();
            assert_eq!(fs::read_to_string(&real).unwrap(), content);
            assert!(link.is_symlink(), "{content}");
        }
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2);
    }

    #[test]
    fn a_link_in_the_place_of_the_temporary_file_is_not_followed() {
        let scratch = Scratch::new("link");
        let (path, victim) = (scratch.0.join("figures"), scratch.0.join("victim"));
        fs::write(&victim, "precious").unwrap();
        let beside = scratch
            .0
            .join(format!("figures.{}.new", std::process::id()));
        std::os::unix::fs::symlink(&victim, &beside).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }
}
