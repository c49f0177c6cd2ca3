//! The node or the probe of `trace`: its key and its command line come over stdin, and it ends
//! with that.

use crate::commands::Failure;
use crate::node::StopFlag;
use crate::output::{raw_stdin, Output};
use crate::remote::script::{BETWEEN, QUIT, SILENT};
use crate::sync::{spawn, STACK};
use crate::sys;
use crate::wire::siphash::Key;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

/// The only argument of such a node. It is in no help: `trace` alone has a use for it.
pub(super) const OPTION: &str = "--control";

/// The first line of a node that reads its stdin.
pub(super) const READY: &str = "ready";

/// A cut line has no end of file: without a byte for so long, the near side is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// A node that does not end in this time is ended.
const GRACE: Duration = Duration::from_secs(1);

/// Most bytes of a line.
const LINE_MAX: usize = 4096;

/// The near side of a node.
pub(super) struct Control {
    stdin: File,
    /// The key of the run.
    pub(super) key: Key,
}

impl Control {
    /// Replaces the arguments `--control` by those of stdin: a line with the key, and a line with
    /// the words. `None` for other arguments, from which the option is removed.
    pub(super) fn take(args: &mut Vec<OsString>) -> Result<Option<Self>, Failure> {
        if args.first().map_or(true, |first| first != OPTION) {
            return Ok(None);
        }
        args.remove(0);
        if !args.is_empty() {
            return Ok(None);
        }
        let ready = Output::Stdout.write(&format!("{READY}\n"));
        ready.map_err(Failure::failed)?;
        let failed = |error: io::Error| Failure::failed(format!("read standard input: {error}"));
        let mut stdin = raw_stdin().map_err(failed)?;
        let key = line(&mut stdin).map_err(failed)?.parse();
        let key = key.map_err(|error| Failure::failed(format!("the key {error}")))?;
        let words = line(&mut stdin).map_err(failed)?;
        args.extend(words.split(BETWEEN).map(OsString::from));
        Ok(Some(Self { stdin, key }))
    }

    /// Sets `stop` once stdin has ended, and ends the process soon after; at once if stdin falls
    /// silent, for results have no way home then.
    pub(super) fn watch(mut self, stop: Arc<StopFlag>) -> io::Result<()> {
        let watch = move || {
            let end = loop {
                match byte(&mut self.stdin) {
                    Ok(byte) if byte != QUIT => {}
                    end => break end,
                }
            };
            if end.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                std::process::exit(SILENT);
            }
            stop.set();
            std::thread::park_timeout(GRACE);
            std::process::exit(0);
        };
        spawn("control", STACK, watch).map(drop)
    }
}

fn byte(stdin: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    if !sys::wait_readable(stdin, SILENCE) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stdin.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Reads the next line that is not empty.
fn line(stdin: &mut File) -> io::Result<String> {
    let mut line = Vec::new();
    while line.len() < LINE_MAX {
        match byte(stdin)? {
            b'\n' if line.is_empty() => {}
            b'\n' => {
                return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into());
            }
            other => line.push(other),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}
