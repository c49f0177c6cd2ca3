//! The text of `--version`.

use super::PROGRAM;
use crate::wire::VERSION as WIRE;
use crate::FULL;
use std::env::consts;

/// The commit that the release script has built; `None` in any other build.
const COMMIT: Option<&str> = option_env!("SUBSEGMENT_COMMIT");

/// The architecture, by which the binaries of all targets differ.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86") {
    "i686"
} else if cfg!(all(target_arch = "mips", target_endian = "little")) {
    "mipsel"
} else {
    consts::ARCH
};

/// The C library, and on Arm the way in which it passes floating-point numbers.
const LIBRARY: &str = if cfg!(all(target_env = "musl", target_abi = "eabihf")) {
    "-musleabihf"
} else if cfg!(all(target_env = "musl", target_abi = "eabi")) {
    "-musleabi"
} else if cfg!(target_env = "musl") {
    "-musl"
} else if cfg!(target_env = "gnu") {
    "-gnu"
} else {
    ""
};

/// Returns version, commit, features, target and wire version, a line each.
///
/// The first line identifies the version: equal lines, equal versions.
pub(super) fn text() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let commit = COMMIT.unwrap_or("unknown");
    let features = if FULL { "full" } else { "none" };
    let os = consts::OS;
    format!(
        "{PROGRAM} {version}\ncommit: {commit}\nfeatures: {features}\n\
         target: {ARCHITECTURE}-{os}{LIBRARY}\nwire: {WIRE}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_program_and_version_and_every_other_has_a_name_and_a_value() {
        let text = text();
        let (first, rest) = text.split_once('\n').expect("several lines");
        assert_eq!(
            first,
            concat!("subsegment-tcp-speeds ", env!("CARGO_PKG_VERSION"))
        );
        let rows: Vec<_> = rest
            .lines()
            .map(|line| line.split_once(": ").expect("a name"))
            .collect();
        let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["commit", "features", "target", "wire"]);
        assert!(rows.iter().all(|(_, value)| !value.is_empty()), "{text}");
        assert_eq!(rows[3].1, "1");
    }
}
