//! Results out: stdout, stderr and named files, with checked writes (the print macros panic on a broken pipe).

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{fchown, MetadataExt};
use std::path::{Path, PathBuf};

/// A result that could not be written, or a state that could not be read.
#[derive(Debug)]
pub struct OutputError {
    action: &'static str,
    target: String,
    cause: io::Error,
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.action, self.target, self.cause)
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
        }
    }

    /// A file that should be there could not be read, or not understood.
    pub fn reading(path: &Path, cause: io::Error) -> Self {
        Self {
            action: "read",
            target: path.display().to_string(),
            cause,
        }
    }

    /// Of several results the one that is to be told: a failure rather than a reader that has gone away.
    ///
    /// # Errors
    ///
    /// That one.
    pub fn all<const N: usize>(results: [Result<(), Self>; N]) -> Result<(), Self> {
        let errors = results.into_iter().filter_map(Result::err);
        errors.min_by_key(Self::is_closed_pipe).map_or(Ok(()), Err)
    }

    /// The reader has gone away: a normal end (`| head -1`), not a failure.
    pub fn is_closed_pipe(&self) -> bool {
        self.cause.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Where results go.
#[derive(Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error: where stdout carries payload.
    Stderr,
    /// `--report FILE` of a format with a line per block, written as they come.
    Stream(PathBuf, fs::File),
    /// `--report FILE` of one report at the end: the last one stays whole until the new one is.
    Whole(PathBuf),
    /// Nowhere: the figures are read elsewhere.
    Nothing,
}

impl Output {
    /// The named file; else `otherwise`. It is opened now, so that a bad path is told before anything is measured; only a
    /// `stream` is emptied now.
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
            // What is no regular file (a pipe, a device) can only be written to.
            Ok(file) if stream || !regular => Ok(Self::Stream(path.into(), file)),
            Ok(_) => Ok(Self::Whole(path.into())),
            Err(cause) => Err(OutputError::writing(path.display().to_string(), cause)),
        }
    }

    /// Writes all of `text`, unbuffered beyond the call.
    ///
    /// # Errors
    ///
    /// As write(2), naming where.
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

/// Standard output without std's line buffer: a block goes out as it came in, with one call.
///
/// # Errors
///
/// Where the program was started without one.
pub fn raw_stdout() -> io::Result<fs::File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Standard input without std's buffer: a block is what one read brings.
///
/// # Errors
///
/// Where the program was started without one.
pub fn raw_stdin() -> io::Result<fs::File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Says something on stderr; where even that fails there is nobody to tell.
pub fn tell(text: &str) {
    let _ = Output::Stderr.write(text);
}

/// Replaces a file by way of a temporary one beside it, so that a reader sees the old or the new content and nothing
/// between. What is no regular file (a pipe, a device) is written to: it is not ours to put a file in its place. A link
/// (`/dev/stdout`, too) stays one, and what it leads to is replaced.
///
/// # Errors
///
/// As open(2), write(2) and rename(2), naming the file.
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
    // One left behind by a process of this number that was killed. What somebody else puts there is never followed.
    let _ = fs::remove_file(&beside);
    let created = fs::File::create_new(&beside).and_then(|file| keep_owner(&real, file));
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
        // It may not be there at all.
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

/// Where a link leads, which is made if it is not there. That is asked of the open file: whether a link in a directory of
/// many users may be followed is the kernel's to say (fs.protected_symlinks), and nobody can turn it meanwhile.
fn followed(link: &Path) -> io::Result<PathBuf> {
    let mut opening = fs::OpenOptions::new();
    let file = opening.append(true).create(true).open(link)?;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileTypeExt;
    use std::process::Command;

    /// A directory of its own, which goes with it.
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
    fn a_link_stays_one_and_what_it_leads_to_is_replaced() {
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
    fn a_link_laid_where_the_temporary_file_comes_is_not_followed() {
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
