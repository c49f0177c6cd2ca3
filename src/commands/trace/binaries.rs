//! The binaries that `trace` may copy to a host.

use crate::cli::PROGRAM;
use crate::remote::machine;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than any build with its debug information.
const MAX_BYTES: u64 = 512 << 20;

/// A binary that may run on a host.
pub(super) struct Binary {
    /// Its path, for messages.
    pub(super) path: PathBuf,
    /// The whole of it.
    pub(super) bytes: Vec<u8>,
}

/// Returns where binaries may lie for one of `targets`, the most likely first: in `directory`, else
/// where the package puts them; then this program itself, if the machine is of its kind. With
/// `full`, those that have every option come first: this program, and what is in `full/TARGET`.
pub(super) fn candidates(targets: &[&str], directory: Option<&Path>, full: bool) -> Vec<PathBuf> {
    let directories = match directory {
        Some(directory) => vec![directory.to_owned()],
        None => package(),
    };
    let under = |part: &str| {
        let directories = directories.iter().map(|directory| directory.join(part));
        let directories: Vec<PathBuf> = directories.collect();
        let paths = targets.iter().flat_map(|target| {
            let paths = directories.iter();
            paths.map(move |directory| directory.join(target).join(PROGRAM))
        });
        paths.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let is_own = targets.contains(&machine::own_target());
    let own = is_own.then(|| PathBuf::from("/proc/self/exe"));
    match full {
        true => [under("full"), own.into_iter().collect(), under("")].concat(),
        false => [under(""), own.into_iter().collect()].concat(),
    }
}

/// Returns the directories of installed static binaries: `lib/subsegment-tcp-speeds` beside the
/// `bin` of this program, and that of /usr.
fn package() -> Vec<PathBuf> {
    let own = std::env::current_exe().ok();
    let own = own.as_deref().and_then(Path::parent).and_then(Path::parent);
    let mut directories: Vec<_> = own
        .map(|own| own.join("lib").join(PROGRAM))
        .into_iter()
        .collect();
    let usual = Path::new("/usr/lib").join(PROGRAM);
    if !directories.contains(&usual) {
        directories.push(usual);
    }
    directories
}

/// Reads a binary.
pub(super) fn read(path: PathBuf) -> Result<Binary, String> {
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Binary { path, bytes }),
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}
