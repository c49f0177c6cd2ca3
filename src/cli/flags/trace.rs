//! Options of `trace`.

use super::super::config::Ports;
use super::super::host_port::HostPort;
use super::{Flag, Mode, Section, Set, ROW};
use crate::remote::host::HostWord;
use crate::remote::ssh::Ssh;

const TRACE: &[Mode] = &[Mode::Trace];

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "server",
        value: Some("ADDR"),
        section: Section::Trace,
        brief: "the last host stands in front of this server",
        help: "host:port or [v6]:port as the last host reaches it. Its connect is timed once in \
            --server-check, 10 s unless given.",
        modes: TRACE,
        set: Set::Text(|s, text| {
            s.trace.server = Some(HostPort::hop(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "from",
        value: Some("HOST"),
        section: Section::Trace,
        brief: "the path begins at this host, not here",
        help:
            "[user@]host: the probe runs there, and its report comes home over ssh, with the page \
            and what it adds to the state. Options that serve metrics have no use then.",
        modes: TRACE,
        set: Set::Text(|s, text| {
            let host: HostWord = text.parse()?;
            if host.address.is_some() {
                return Err("has an address, and nothing connects to it: write [user@]host".into());
            }
            s.trace.from = Some(host);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "ports",
        value: Some("FIRST-LAST"),
        section: Section::Trace,
        brief: "ports of the nodes (default: any free one)",
        help: "For hosts that a firewall separates: each node takes the first port of the range \
            that is free on its host.",
        modes: TRACE,
        set: Set::Text(|s, text| {
            s.trace.ports = Some(text.parse::<Ports>()?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "ssh",
        value: Some("COMMAND"),
        section: Section::Trace,
        brief: "log in by COMMAND HOST in place of ssh",
        help: "Split at spaces. An ssh gets trace's own options behind those that stand there; \
            another program gets the host and a command line alone.",
        modes: TRACE,
        set: Set::Text(|s, text| {
            s.trace.ssh = Ssh::new(text)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "binaries",
        value: Some("DIR"),
        section: Section::Trace,
        brief: "static binaries for hosts of other machines",
        help: "DIR/TARGET/subsegment-tcp-speeds, as build-static makes them; TARGET is x86_64, \
            i686, aarch64, armv7, armv5te, mips, mipsel or riscv64. Without it, those of the \
            package are used, and this program itself where it runs.",
        modes: TRACE,
        set: Set::Path(|s, path| s.trace.binaries = Some(path)),
        ..ROW
    },
    Flag {
        long: "installed-only",
        section: Section::Trace,
        brief: "copy nothing: the program is installed there",
        modes: TRACE,
        set: Set::Switch(|s| s.trace.installed_only = true),
        ..ROW
    },
    Flag {
        long: "dry-run",
        section: Section::Trace,
        brief: "print the commands and connect nowhere",
        modes: TRACE,
        set: Set::Switch(|s| s.trace.dry_run = true),
        ..ROW
    },
    Flag {
        long: "verbose",
        short: Some('v'),
        section: Section::Trace,
        brief: "show each step on each host",
        modes: TRACE,
        set: Set::Switch(|s| s.trace.verbose = true),
        ..ROW
    },
];
