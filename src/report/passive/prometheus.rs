//! Time series in, Prometheus' text format out.

use crate::passive::{Buckets, Group, GroupBy, Groups, Side, Skip, Tally, BOUNDS_NS};
use std::fmt::Write as _;

/// What the metrics are made from.
#[derive(Debug)]
pub struct Metrics<'a> {
    /// Time series per group.
    pub groups: &'a Groups,
    /// Counts.
    pub tally: &'a Tally,
    /// Flows in the table.
    pub flows: usize,
    /// Packets that the kernel dropped; `None` where it was not asked.
    pub kernel_dropped: Option<u64>,
}

/// The text format of Prometheus, version 0.0.4.
pub fn prometheus(metrics: &Metrics<'_>) -> String {
    const PREFIX: &str = "subsegment_passive";
    let mut out = String::new();
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = write!(
            out,
            "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}\n"
        );
    };
    let tally = metrics.tally;
    let single = [
        (
            "packets_total",
            "counter",
            "Packets captured.",
            Some(tally.packets),
        ),
        (
            "tcp_packets_total",
            "counter",
            "TCP segments among them.",
            Some(tally.tcp_packets),
        ),
        (
            "flows_total",
            "counter",
            "Connections seen.",
            Some(tally.flows),
        ),
        (
            "flows_evicted_total",
            "counter",
            "Open connections that had to make room.",
            Some(tally.evicted),
        ),
        (
            "flows",
            "gauge",
            "Connections in the table.",
            Some(metrics.flows as u64),
        ),
        (
            "kernel_dropped_packets_total",
            "counter",
            "Packets that the kernel dropped before they were read.",
            metrics.kernel_dropped,
        ),
    ];
    for (name, kind, help, value) in single {
        if let Some(value) = value {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{PREFIX}_{name} {value}");
        }
    }
    head(
        &mut out,
        "skipped_packets_total",
        "counter",
        "Packets without a usable TCP segment.",
    );
    for (skip, count) in Skip::ALL.iter().zip(tally.skipped) {
        let reason = skip.name();
        let _ = writeln!(
            out,
            "{PREFIX}_skipped_packets_total{{reason=\"{reason}\"}} {count}"
        );
    }
    let labels = |group: &Group| {
        let towards = group.towards.map_or("", Side::name);
        let name = group.name.as_deref().unwrap_or("other");
        match metrics.groups.by() {
            GroupBy::None => format!("towards=\"{towards}\""),
            GroupBy::Flow => format!("flow=\"{name}\",towards=\"{towards}\""),
            GroupBy::Remote => format!("remote=\"{name}\",towards=\"{towards}\""),
            GroupBy::Subnet => format!("subnet=\"{name}\",towards=\"{towards}\""),
        }
    };
    type Counter = fn(&Group) -> u64;
    let counters: [(&str, &str, Counter); 3] = [
        ("segments_total", "TCP segments towards this end.", |of| {
            of.packets
        }),
        (
            "payload_bytes_total",
            "Payload towards this end, repeated payload included.",
            |of| of.payload_bytes,
        ),
        (
            "retransmitted_bytes_total",
            "Payload towards this end that had passed before.",
            |of| of.retransmitted_bytes,
        ),
    ];
    for (name, help, value) in counters {
        head(&mut out, name, "counter", help);
        for group in metrics.groups.iter() {
            let _ = writeln!(out, "{PREFIX}_{name}{{{}}} {}", labels(group), value(group));
        }
    }
    type Pick = fn(&Group) -> &Buckets;
    let histograms: [(&str, &str, Pick); 4] = [
        (
            "round_trip_seconds",
            "From the capture point to this end and back, of data.",
            |of| &of.round_trip,
        ),
        (
            "handshake_seconds",
            "From the capture point to this end and back, of SYN or SYN-ACK.",
            |of| &of.handshake,
        ),
        (
            "response_seconds",
            "From the first data towards this end to its first data back, at the capture point.",
            |of| &of.response,
        ),
        (
            "application_seconds",
            "The same less the least round trip of the connection: this end's own time.",
            |of| &of.own,
        ),
    ];
    for (name, help, pick) in histograms {
        head(&mut out, name, "histogram", help);
        for group in metrics.groups.iter() {
            histogram(
                &mut out,
                &format!("{PREFIX}_{name}"),
                &labels(group),
                pick(group),
            );
        }
    }
    out
}

fn histogram(out: &mut String, name: &str, labels: &str, buckets: &Buckets) {
    let mut sum = 0;
    for (at, count) in buckets.counts.iter().enumerate() {
        sum += count;
        let bound = match BOUNDS_NS.get(at) {
            Some(bound) => (*bound as f64 / 1e9).to_string(),
            None => "+Inf".to_owned(),
        };
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}");
    }
    let _ = writeln!(
        out,
        "{name}_sum{{{labels}}} {}",
        buckets.sum_ns as f64 / 1e9
    );
    let _ = writeln!(out, "{name}_count{{{labels}}} {sum}");
}
