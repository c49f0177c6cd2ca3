//! The time series of a capture in the text format of Prometheus.

use crate::measure::HeaderDelays;
use crate::passive::{Buckets, Group, GroupBy, Groups, Side, Skip, Tally, BOUNDS_NS};
use crate::report::header_delays::{header_figures, header_labels};
use crate::report::prometheus::{escaped, families, seconds, Exposition, Sheet};

families! {
    "subsegment_passive_", Id, FAMILIES:
    Packets Counter "packets_total" "1" "" "Packets captured."
    TcpPackets Counter "tcp_packets_total" "1" "" "TCP segments among them."
    FlowsSeen Counter "flows_total" "1" "" "Connections seen."
    FlowsEvicted Counter "flows_evicted_total" "1" "" "Open connections that had to make room."
    Flows Gauge "flows" "1" "" "Connections in the table."
    KernelDropped Counter "kernel_dropped_packets_total" "1" ""
        "Packets that the kernel dropped before they were read."
    Skipped Counter "skipped_packets_total" "1" "reason" "Packets without a usable TCP segment."
    Segments Counter "segments_total" "1" "flow, remote, subnet, towards"
        "TCP segments towards this end."
    Payload Counter "payload_bytes_total" "bytes" "flow, remote, subnet, towards"
        "Payload towards this end, repeated payload included."
    Retransmitted Counter "retransmitted_bytes_total" "bytes" "flow, remote, subnet, towards"
        "Payload towards this end that had passed before."
    RoundTrip Histogram "round_trip_seconds" "seconds" "flow, remote, subnet, towards"
        "From the capture point to this end and back, of data."
    Handshake Histogram "handshake_seconds" "seconds" "flow, remote, subnet, towards"
        "From the capture point to this end and back, of SYN or SYN-ACK."
    Response Histogram "response_seconds" "seconds" "flow, remote, subnet, towards"
        "From the first data towards this end to its first data back, at the capture point."
    Application Histogram "application_seconds" "seconds" "flow, remote, subnet, towards"
        "The response time less the least round trip of the connection: this end's own time."
    HeaderDelay Gauge "header_delay_seconds" "seconds" "from, to, message, clocks, figure"
        "Between two stamps in heads of HTTP; to the capture point where to is empty."
    ServerTiming Gauge "server_timing_seconds" "seconds" "name, figure"
        "A duration that a server reports in Server-Timing."
}

/// The figures of a capture that the metrics show.
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
    /// The delays by stamps in heads of HTTP.
    pub header_delays: &'a HeaderDelays,
}

/// Renders the metrics in the text format of Prometheus, version 0.0.4.
pub fn prometheus(metrics: &Metrics<'_>) -> String {
    let mut sheet = Sheet::new(FAMILIES);
    let tally = metrics.tally;
    for (id, value) in [
        (Id::Packets, Some(tally.packets)),
        (Id::TcpPackets, Some(tally.tcp_packets)),
        (Id::FlowsSeen, Some(tally.flows)),
        (Id::FlowsEvicted, Some(tally.evicted)),
        (Id::Flows, Some(metrics.flows as u64)),
        (Id::KernelDropped, metrics.kernel_dropped),
    ] {
        if let Some(value) = value {
            sheet.row(id, "", &value.to_string());
        }
    }
    for (skip, count) in Skip::ALL.iter().zip(tally.skipped) {
        let reason = format!("reason=\"{}\"", skip.name());
        sheet.row(Id::Skipped, &reason, &count.to_string());
    }
    for group in metrics.groups.iter() {
        let labels = labels(metrics.groups.by(), group);
        for (id, count) in [
            (Id::Segments, group.packets),
            (Id::Payload, group.payload_bytes),
            (Id::Retransmitted, group.retransmitted_bytes),
        ] {
            sheet.value(id, &labels, &count.to_string());
        }
        histogram(&mut sheet, Id::RoundTrip, &labels, &group.round_trip);
        histogram(&mut sheet, Id::Handshake, &labels, &group.handshake);
        histogram(&mut sheet, Id::Response, &labels, &group.response);
        histogram(&mut sheet, Id::Application, &labels, &group.own);
    }
    for row in &metrics.header_delays.rows {
        let (is_timing, labels) = header_labels(row);
        let id = if is_timing {
            Id::ServerTiming
        } else {
            Id::HeaderDelay
        };
        let pairs: Vec<_> = labels.iter().map(pair).collect();
        for (figure, value) in header_figures(row) {
            let labels = format!("{},figure=\"{figure}\"", pairs.join(","));
            sheet.value(id, &labels, &seconds(i128::from(value.0)).to_string());
        }
    }
    sheet.finish(Exposition::Text)
}

fn pair((name, value): &(&str, &str)) -> String {
    format!("{name}=\"{}\"", escaped(value))
}

fn labels(by: GroupBy, group: &Group) -> String {
    let towards = group.towards.map_or("", Side::name);
    let name = escaped(group.name.as_deref().unwrap_or("other"));
    match by {
        GroupBy::None => format!("towards=\"{towards}\""),
        GroupBy::Flow => format!("flow=\"{name}\",towards=\"{towards}\""),
        GroupBy::Remote => format!("remote=\"{name}\",towards=\"{towards}\""),
        GroupBy::Subnet => format!("subnet=\"{name}\",towards=\"{towards}\""),
    }
}

fn histogram(sheet: &mut Sheet, id: Id, labels: &str, buckets: &Buckets) {
    let bounds = BOUNDS_NS
        .iter()
        .map(|bound| seconds(i128::from(*bound)).to_string());
    let mut sum = 0;
    let counts = bounds.chain(["+Inf".to_owned()]).zip(buckets.counts);
    let counts: Vec<_> = counts
        .map(|(bound, count)| {
            sum += count;
            (bound, sum)
        })
        .collect();
    sheet.histogram(id, labels, &counts, seconds(buckets.sum_ns));
}
