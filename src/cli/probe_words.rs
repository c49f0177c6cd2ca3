//! The command line of a probe on another host.

use super::flags::{self, Mode, Section, Set};
use super::parse::remedied;
use std::ffi::OsString;

/// Returns the options of the probe as words for another host.
pub(super) fn probe_words(options: &[(&'static str, OsString)]) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    for (long, value) in options {
        let flag = flags::find(long, Some(Mode::Trace));
        let Some(flag) = flag.filter(|flag| flag.modes.contains(&Mode::Probe)) else {
            continue;
        };
        if matches!(flag.set, Set::Path(_)) {
            return Err(remedied(format_args!(
                "--{long} names a file of this host, and with --from the probe runs on another: \
                 leave it out, and redirect what --format prints"
            )));
        }
        if flag.section == Section::Metrics {
            return Err(remedied(format_args!(
                "--{long} would serve metrics on the host of --from: use --format influx"
            )));
        }
        let value = value
            .to_str()
            .filter(|value| !value.contains(char::is_control));
        let value = value.ok_or_else(|| {
            remedied(format_args!(
                "--{long} has characters that no host of --from takes"
            ))
        })?;
        words.push(format!("--{long}"));
        if flag.value.is_some() {
            words.push(value.to_owned());
        }
    }
    Ok(words)
}
