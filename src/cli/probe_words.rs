//! The command line of a probe on another host.

use super::flags::{self, Mode, Section, Set};
use super::parse::remedied;
use std::ffi::OsString;

/// Returns the options of the probe as words for another host, and apart from them those that name
/// files of this host. The report is written here.
pub(super) fn probe_words(
    options: &[(&'static str, OsString)],
) -> Result<(Vec<String>, Vec<&'static str>), String> {
    let (mut words, mut files) = (Vec::new(), Vec::new());
    for (long, value) in options {
        let flag = flags::find(long, Some(Mode::Trace));
        let Some(flag) = flag.filter(|flag| flag.modes.contains(&Mode::Probe)) else {
            continue;
        };
        if flag.section == Section::Metrics {
            return Err(remedied(format_args!(
                "--{long} would serve metrics on the host of --from: use --format influx"
            )));
        }
        if matches!(flag.set, Set::Path(_)) {
            if flag.long != "report" && !files.contains(&flag.long) {
                files.push(flag.long);
            }
            continue;
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
    Ok((words, files))
}
