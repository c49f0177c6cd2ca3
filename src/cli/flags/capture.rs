//! Options of `passive`.

use super::super::value;
use super::{Flag, Mode, Section, Set, ROW};
use crate::passive::{parse_host, GroupBy, Side, MAX_TERMS};
use crate::report::passive::PassiveFormat;
use std::time::Duration;

const PASSIVE: &[Mode] = &[Mode::Passive];

/// Clocks of captures are no finer.
const INTERVAL_MIN: Duration = Duration::from_micros(1);

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "format",
        value: Some("FORMAT"),
        section: Section::Capture,
        default: Some("text"),
        brief: "text, lines, json, csv and more",
        help: "text: a small table per connection. lines: a line per round trip, with the time, \
            milliseconds, the least so far, the direction and the method. json, jsonl and csv: \
            all figures, durations in nanoseconds. prometheus: the metrics at the end.",
        modes: PASSIVE,
        set: Set::Choice(
            &["text", "lines", "json", "jsonl", "csv", "prometheus"],
            |o, at| {
                o.passive.format = [
                    PassiveFormat::Text,
                    PassiveFormat::Lines,
                    PassiveFormat::Json,
                    PassiveFormat::JsonLines,
                    PassiveFormat::Csv,
                    PassiveFormat::Prometheus,
                ][at];
            },
        ),
        ..ROW
    },
    Flag {
        long: "verbose",
        short: Some('v'),
        section: Section::Capture,
        brief: "each HTTP exchange, with time and path",
        help: "In text; in json and jsonl it adds the path. Paths may hold secrets.",
        modes: PASSIVE,
        set: Set::Switch(|o| o.passive.verbose = true),
        ..ROW
    },
    Flag {
        long: "interface",
        short: Some('I'),
        value: Some("IF"),
        section: Section::Capture,
        brief: "capture here instead (needs CAP_NET_RAW)",
        help: "Linux only. Elsewhere, or without that right: tcpdump -U -w - | ... passive -",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            o.interface = Some(text.to_owned());
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "host",
        value: Some("CIDR"),
        section: Section::Capture,
        brief: "only connections of it; repeatable",
        help: "An address, 10.0.0.0/8 or 2001:db8::/32, at either end; up to 8 of them. With \
            --interface the kernel copies nothing else, except tunnels, which are filtered here \
            by their inner connections.",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            let host = parse_host(text)?;
            if o.passive.filter.hosts.len() == MAX_TERMS {
                return Err(format!("is one too many: at most {MAX_TERMS}"));
            }
            o.passive.filter.hosts.push(host);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "port",
        value: Some("PORT"),
        section: Section::Capture,
        brief: "only connections of it; repeatable",
        help: "At either end; up to 8 of them. With --host both have to match.",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            let port = value::integer(text, 1..=u16::MAX)?;
            if o.passive.filter.ports.len() == MAX_TERMS {
                return Err(format!("is one too many: at most {MAX_TERMS}"));
            }
            o.passive.filter.ports.push(port);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "count",
        short: Some('c'),
        value: Some("N"),
        section: Section::Capture,
        brief: "end after so many packets",
        help: "Packets of any kind count, those without TCP included.",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            o.passive.count = Some(value::integer(text, 1..=u64::MAX)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "peer",
        value: Some("FILE"),
        section: Section::Capture,
        brief: "a capture of the same made at the other end",
        help: "Gives the one-way delay of each packet found in both, by the two clocks as they \
            are, and the times at both ends.",
        modes: PASSIVE,
        set: Set::Path(|o, path| o.passive.peer = Some(path)),
        ..ROW
    },
    Flag {
        long: "at",
        value: Some("END"),
        section: Section::Capture,
        brief: "client or server: where it was captured",
        help: "Decides which of the HTTP times are the client's and which the server's. Without \
            it: the end with the shorter round trips, per connection; with --peer the order in \
            which packets passed. The lines of --format lines then take the client's.",
        modes: PASSIVE,
        set: Set::Choice(&["client", "server"], |o, at| {
            o.passive.at = Some([Side::Client, Side::Server][at]);
        }),
        ..ROW
    },
    Flag {
        long: "interval",
        short: Some('i'),
        value: Some("SECONDS"),
        section: Section::Capture,
        default: Some("1"),
        brief: "length of snapshots in json; 0 = none",
        help: "The latest 3600 snapshots of a connection are kept, 200000 of all.",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            let interval = value::duration(text)?;
            if !interval.is_zero() && interval < INTERVAL_MIN {
                return Err(format!("is too short: at least {INTERVAL_MIN:?}, or 0"));
            }
            o.passive.interval = Some(interval).filter(|span| !span.is_zero());
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "max-flows",
        value: Some("N"),
        section: Section::Capture,
        default: Some("100000"),
        brief: "flows held at once, oldest out first",
        help: "Beyond it the flow seen least recently is printed and dropped.",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            o.passive.max_flows = value::integer(text, 1..=usize::MAX)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "group-by",
        value: Some("GROUP"),
        section: Section::Capture,
        default: Some("remote"),
        brief: "flow, remote, subnet, none: metrics",
        help: "remote: the address that round trips go to; subnet: its /24 or /64.",
        modes: PASSIVE,
        set: Set::Choice(&["flow", "remote", "subnet", "none"], |o, at| {
            o.passive.group_by = [
                GroupBy::Flow,
                GroupBy::Remote,
                GroupBy::Subnet,
                GroupBy::None,
            ][at];
        }),
        ..ROW
    },
    Flag {
        long: "max-groups",
        value: Some("N"),
        section: Section::Capture,
        default: Some("1000"),
        brief: "groups at most, the rest in other",
        help: "Bounds the time series that the monitoring system has to store.",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            o.passive.max_groups = value::integer(text, 1..=usize::MAX)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "metrics-interval",
        value: Some("SECONDS"),
        section: Section::Capture,
        default: Some("10"),
        brief: "how often to write --metrics-file",
        help: "It is written once more at the end.",
        modes: PASSIVE,
        set: Set::Text(|o, text| {
            o.passive.metrics_interval = value::positive_duration(text)?;
            Ok(())
        }),
        ..ROW
    },
];
