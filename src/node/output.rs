//! Results out: stdout, stderr and named files, with checked writes (the print macros panic on a broken pipe).

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
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
/// between.
///
/// # Errors
///
/// As open(2), write(2) and rename(2), naming the file.
pub fn replace(path: &Path, content: &str) -> Result<(), OutputError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    // A directory that takes no new files may hold one that can be written.
    if let Err(error) = fs::File::create(&beside) {
        if error.kind() == io::ErrorKind::PermissionDenied && path.exists() {
            return fs::write(path, content)
                .map_err(|cause| OutputError::writing(path.display().to_string(), cause));
        }
    }
    let replaced = fs::File::create(&beside)
        .and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    replaced.map_err(|cause| {
        // It may not be there at all.
        let _ = fs::remove_file(&beside);
        OutputError::writing(path.display().to_string(), cause)
    })
}
