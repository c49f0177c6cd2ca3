//! The files that a command writes, checked before it begins.

use crate::cli::Common;
use crate::output::OutputError;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The reason why the files of a command line cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OutputFault {
    /// Two options name one regular file: a usage error.
    Shared(String),
    /// The directories of some files do not exist; the text names all of these files.
    NoDirectory(String),
}

/// Checks that each file has a directory, and that no two options name one regular file.
///
/// A run goes on without the file of `--state`, so its directory is not checked here.
///
/// # Errors
///
/// An [`OutputFault`], whose text is a line for stderr.
pub(super) fn check(common: &Common) -> Result<(), OutputFault> {
    let files = [
        ("--report", &common.report),
        ("--report-html", &common.report_html),
        ("--sessions", &common.sessions),
        ("--metrics-file", &common.metrics_file),
        ("--state", &common.state),
    ];
    let files = files.map(|(option, path)| Some((option, path.as_deref()?)));
    let named = files.iter().flatten();
    let mut known: Vec<(&str, FileIdentity)> = Vec::new();
    for (option, path) in named.clone() {
        let Some(identity) = FileIdentity::of(path) else {
            continue;
        };
        if let Some((other, _)) = known.iter().find(|(_, known)| *known == identity) {
            return Err(OutputFault::Shared(format!(
                "{other} and {option} both write {}: give each a file of its own",
                path.display()
            )));
        }
        known.push((option, identity));
    }
    let written = files.map(|file| match file {
        Some(("--state", _)) | None => Ok(()),
        Some((_, path)) => directory_exists(path)
            .map_err(|cause| OutputError::writing(path.display().to_string(), cause)),
    });
    OutputError::all(written).map_err(|error| OutputFault::NoDirectory(error.to_string()))
}

/// The identity of a regular file.
#[derive(PartialEq, Eq)]
enum FileIdentity {
    /// Device and inode of a file that exists.
    Inode(u64, u64),
    /// The path that a new file will have.
    New(PathBuf),
}

impl FileIdentity {
    /// Returns the identity of the file at `path`. `None` for all but regular files, for a file in
    /// a missing directory, and for an open descriptor such as `/dev/stdout`.
    fn of(path: &Path) -> Option<Self> {
        if path.starts_with("/dev") || path.starts_with("/proc") {
            return None;
        }
        match fs::metadata(path) {
            Ok(data) => data.is_file().then(|| Self::Inode(data.dev(), data.ino())),
            Err(_) => {
                let directory = fs::canonicalize(directory(path)).ok()?;
                Some(Self::New(directory.join(path.file_name()?)))
            }
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str() != OsStr::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn directory_exists(path: &Path) -> io::Result<()> {
    // The dot makes a file in the place of the directory an error.
    fs::metadata(directory(path).join(".")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(files: [Option<&Path>; 4]) -> Common {
        let [report, page, sessions, metrics] = files.map(|file| file.map(Path::to_owned));
        Common {
            report,
            report_html: page,
            sessions,
            metrics_file: metrics,
            ..Common::default()
        }
    }

    #[test]
    fn two_options_may_not_name_one_regular_file_however_it_is_written() {
        let dir = std::env::temp_dir().join(format!("sts-outputs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("inner")).unwrap();
        let (old, new) = (dir.join("old"), dir.join("new"));
        fs::write(&old, "").unwrap();
        let (hard, soft) = (dir.join("hard"), dir.join("soft"));
        fs::hard_link(&old, &hard).unwrap();
        std::os::unix::fs::symlink("old", &soft).unwrap();
        let around = dir.join("inner/../new");
        for (one, other, is_shared) in [
            (&old, &old, true),
            (&old, &hard, true),
            (&old, &soft, true),
            (&new, &new, true),
            (&new, &around, true),
            (&old, &new, false),
            (
                &PathBuf::from("/dev/stdout"),
                &PathBuf::from("/dev/stdout"),
                false,
            ),
            (
                &PathBuf::from("/dev/null"),
                &PathBuf::from("/dev/null"),
                false,
            ),
        ] {
            let checked = check(&common([Some(one), None, None, Some(other)]));
            let expected = format!(
                "--report and --metrics-file both write {}: give each a file of its own",
                other.display()
            );
            let expected = match is_shared {
                true => Err(OutputFault::Shared(expected)),
                false => Ok(()),
            };
            assert_eq!(checked, expected, "{one:?}, {other:?}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn every_file_without_a_directory_is_named() {
        let (one, other) = (Path::new("/no/such/one"), Path::new("/dev/null/other"));
        let fault = check(&common([
            Some(one),
            None,
            Some(Path::new("here")),
            Some(other),
        ]));
        let Err(OutputFault::NoDirectory(text)) = fault else {
            panic!("{fault:?}")
        };
        assert!(
            text.starts_with("write /no/such/one: No such file"),
            "{text}"
        );
        assert!(
            text.contains("; write /dev/null/other: Not a dir"),
            "{text}"
        );
        assert!(!text.contains("here"), "{text}");
    }
}
