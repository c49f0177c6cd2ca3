//! The static binaries that fit a machine.

use crate::remote::answer::ByteOrder;

/// Returns the names of the targets of static builds whose binaries may run on a machine, the most
/// likely first. `machine` is what `uname -sm` prints.
///
/// # Errors
///
/// The machine, and the reason that there is no binary for it.
pub fn targets(machine: &str, order: Option<ByteOrder>) -> Result<&'static [&'static str], String> {
    let (system, name) = machine.split_once(' ').unwrap_or((machine, ""));
    if system != "Linux" {
        return Err(format!("runs {system:?}, and nodes run on Linux"));
    }
    Ok(match (name, order) {
        ("x86_64" | "amd64", _) => &["x86_64", "i686"],
        ("i386" | "i486" | "i586" | "i686", _) => &["i686"],
        ("aarch64" | "arm64", Some(ByteOrder::Little) | None) => &["aarch64", "armv7", "armv5te"],
        ("riscv64", _) => &["riscv64"],
        // Kernels of both byte orders print the same.
        ("mips" | "mips64", Some(ByteOrder::Big)) => &["mips"],
        ("mips" | "mips64" | "mipsel" | "mips64el", Some(ByteOrder::Little)) => &["mipsel"],
        (name, Some(ByteOrder::Little) | None) if name.starts_with("arm") => match &name[3..] {
            // 64-bit kernels of 32-bit systems print armv8l.
            version if version.starts_with("v7") || version.starts_with("v8") => {
                &["armv7", "armv5te"]
            }
            _ => &["armv5te"],
        },
        (_, order) => {
            let order = match order {
                Some(ByteOrder::Little) => "little-endian",
                Some(ByteOrder::Big) => "big-endian",
                None => "byte order unknown",
            };
            return Err(format!(
                "is a {name:?} ({order}), for which there is no binary"
            ));
        }
    })
}

/// Returns the name of the target whose machines run this very program.
pub const fn own_target() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "x86_64"
    } else if cfg!(target_arch = "x86") {
        "i686"
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        "aarch64"
    } else if cfg!(target_arch = "riscv64") {
        "riscv64"
    } else if cfg!(all(target_arch = "arm", target_feature = "v7")) {
        "armv7"
    } else if cfg!(target_arch = "arm") {
        "armv5te"
    } else if cfg!(all(target_arch = "mips", target_endian = "big")) {
        "mips"
    } else if cfg!(target_arch = "mips") {
        "mipsel"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ByteOrder::{Big, Little};

    #[test]
    fn a_machine_gets_the_binaries_that_may_run_there() {
        for (machine, order, expected) in [
            ("Linux x86_64", Some(Little), &["x86_64", "i686"][..]),
            ("Linux x86_64", None, &["x86_64", "i686"]),
            ("Linux i686", Some(Little), &["i686"]),
            (
                "Linux aarch64",
                Some(Little),
                &["aarch64", "armv7", "armv5te"],
            ),
            ("Linux armv8l", Some(Little), &["armv7", "armv5te"]),
            ("Linux armv7l", Some(Little), &["armv7", "armv5te"]),
            ("Linux armv6l", Some(Little), &["armv5te"]),
            ("Linux armv5tejl", None, &["armv5te"]),
            ("Linux mips", Some(Big), &["mips"]),
            ("Linux mips", Some(Little), &["mipsel"]),
            ("Linux mips64", Some(Big), &["mips"]),
            ("Linux riscv64", Some(Little), &["riscv64"]),
        ] {
            assert_eq!(targets(machine, order), Ok(expected), "{machine} {order:?}");
        }
    }

    #[test]
    fn an_unknown_machine_is_named_with_its_byte_order() {
        for (machine, order, part) in [
            ("Linux ppc64le", Some(Little), "\"ppc64le\" (little-endian)"),
            ("Linux mips", None, "\"mips\" (byte order unknown)"),
            ("Linux armv7b", Some(Big), "(big-endian)"),
            ("Darwin arm64", None, "runs \"Darwin\""),
            ("", None, "runs \"\""),
        ] {
            let error = targets(machine, order).expect_err(machine);
            assert!(error.contains(part), "{machine}: {error}");
        }
    }

    #[test]
    fn the_machine_of_this_test_runs_its_own_program() {
        let machine = format!("Linux {}", std::env::consts::ARCH);
        if let Ok(found) = targets(&machine, None) {
            assert!(found.contains(&own_target()), "{found:?}");
        }
    }
}
