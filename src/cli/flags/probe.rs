//! Options of `probe` and `demo`, and of annotations.

use super::super::host_port::HostPort;
use super::super::value;
use super::{Flag, Mode, Section, Set, ANNOTATING, BLOCK_MAX_BYTES, OPENING, PROBING, ROW};
use crate::annotate::snmp;
use std::time::Duration;

/// Least time between two probes: a schedule that a host can keep.
const INTERVAL_MIN: Duration = Duration::from_micros(100);

/// Connections of one probe.
const FLOWS_MAX: u32 = 64;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "count",
        short: Some('c'),
        value: Some("COUNT"),
        section: Section::Probe,
        default: Some("100"),
        brief: "blocks to send; 0 = until stopped",
        help: "With --format nagios 10 unless given, one a second.",
        modes: PROBING,
        set: Set::Text(|s, text| {
            s.count = Some(value::integer(text, 0..=u64::MAX)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "interval",
        short: Some('i'),
        value: Some("SECONDS"),
        section: Section::Probe,
        default: Some("0.1"),
        brief: "time between two blocks",
        help: "With --format nagios 1 unless given. The schedule is kept whatever the answers do: \
            a path that stalls is measured for as long as it stalls. At least 100us.",
        modes: PROBING,
        set: Set::Text(|s, text| {
            let interval = value::duration(text)?;
            if interval < INTERVAL_MIN {
                return Err(format!("is too short: at least {INTERVAL_MIN:?}"));
            }
            s.interval = Some(interval);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "size",
        short: Some('s'),
        value: Some("BYTES"),
        section: Section::Probe,
        default: Some("64"),
        brief: "payload of a block, up to 1M",
        modes: PROBING,
        set: Set::Text(|s, text| {
            s.size = value::bytes(text, 0..=BLOCK_MAX_BYTES)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "flows",
        value: Some("COUNT"),
        section: Section::Probe,
        default: Some("1"),
        brief: "connections that take blocks in turn",
        help: "Each has a source port of its own, so that a bundle of links or a balancer sends \
            them different ways. The report has the figures of all together and of each flow, and \
            names a flow that differs in a part, of four or more.",
        modes: PROBING,
        full_only: true,
        set: Set::Text(|s, text| {
            s.flows = value::integer(text, 1..=FLOWS_MAX)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "seed",
        value: Some("NUMBER"),
        section: Section::Probe,
        brief: "repeat the demo that had this seed",
        modes: &[Mode::Demo],
        set: Set::Text(|s, text| {
            s.seed = Some(value::integer(text, 0..=u64::MAX)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "ask",
        value: Some("CLASSES"),
        section: Section::Annotations,
        default: Some("none"),
        brief: "annotations to ask for: load,tcp, all",
        help: "Every marked block asks all nodes of the path about themselves, and each answers \
            in the next one; the report has the latest answers. all, none, or some of load, cpu, \
            memory, files, mib, interfaces, tcp (the kernel's figures of the node's own \
            connections), tags, snmp.",
        modes: OPENING,
        set: Set::Text(|s, text| {
            s.common.ask = text.parse()?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "annotate",
        value: Some("CLASSES"),
        section: Section::Annotations,
        brief: "classes to answer (default: all)",
        help: "The same words as for --ask. The answer to a request for another class is that it \
            is not offered.",
        modes: ANNOTATING,
        set: Set::Text(|s, text| {
            s.common.annotate = Some(text.parse()?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "snmp",
        value: Some("ADDR"),
        section: Section::Annotations,
        brief: "an SNMP agent to read when asked",
        help: "host, host:port or [v6]:port of an agent on this host or on a router beside it; \
            port 161 by default. It is read (SNMPv2c, one GET of --snmp-objects) only when a \
            block asks this node for the class snmp.",
        modes: ANNOTATING,
        set: Set::Text(|s, text| {
            s.common.snmp = Some(agent(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "snmp-community",
        value: Some("TEXT"),
        section: Section::Annotations,
        default: Some("public"),
        brief: "the agent's community",
        help: "It is no secret: it goes over the network in the clear, and the process list shows \
            it.",
        modes: ANNOTATING,
        set: Set::Text(|s, text| {
            s.common.snmp_community = value::label(text)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "snmp-objects",
        value: Some("LIST"),
        section: Section::Annotations,
        brief: "objects to read (default: load)",
        help: "The default is sysUpTime,laLoad.1,laLoad.2,laLoad.3. At most 32, joined by commas: \
            numbers (1.3.6.1.2.1.1.5.0) or names, those of tables with the number of the row: \
            sysUpTime, sysName, laLoad.1, ssCpuIdle, memAvailReal, ifInOctets.2, ifHCInOctets.2, \
            ifInErrors.2, ifOutDiscards.2, hrProcessorLoad.1 and others.",
        modes: ANNOTATING,
        set: Set::Text(|s, text| {
            s.common.snmp_objects = snmp::objects(text)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "targets",
        value: Some("FILE"),
        section: Section::Probe,
        brief: "probe every target of FILE, not ADDR",
        help: "A target per line, host:port and perhaps a name; # begins a comment. Each has its \
            own schedule, which begins at its own time within the interval. The report has a line \
            for each path, and metrics have the label path.",
        modes: &[Mode::Probe],
        set: Set::Path(|s, path| s.targets = Some(path)),
        full_only: true,
        ..ROW
    },
];

/// The address of an SNMP agent; the port may be left out.
fn agent(text: &str) -> Result<HostPort, String> {
    let with_port = format!("{text}:{}", snmp::PORT);
    HostPort::hop(text).or_else(|error| HostPort::hop(&with_port).map_err(|_| error))
}
