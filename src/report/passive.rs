//! Flows, round trips and counts of a capture in; text, lines, JSON, JSON lines, CSV or Prometheus text out.
//!
//! Flows are rendered one by one as they end, so a long capture takes no memory; that is why `capture`, which is known
//! last, stands last in the JSON.

use crate::measure::Summary;
use crate::passive::{
    Buckets, Event, Exchange, Flow, Group, GroupBy, Groups, Interval, OneWay, Sample, Sent, Side,
    Skip, Tally, BOUNDS_NS,
};
use crate::time::{SignedNanos, WallTime};
use std::fmt::{Display, Write as _};

/// Name and version of the JSON.
pub const SCHEMA: &str = "subsegment-tcp-speeds/passive/1";

/// How to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A small table per flow.
    #[default]
    Text,
    /// A line per round trip.
    Lines,
    /// One object.
    Json,
    /// An object per flow, and one for the capture.
    JsonLines,
    /// A row per flow and direction.
    Csv,
    /// Metrics, at the end.
    Prometheus,
}

/// A flow and what is known of it from elsewhere.
#[derive(Debug)]
pub struct Record<'a> {
    /// As the first capture saw it.
    pub flow: &'a Flow,
    /// As the capture of `--peer` saw it.
    pub peer: Option<&'a Flow>,
    /// Delays between the two; `None` without `--peer`.
    pub one_way: Option<OneWay>,
    /// The end that the first capture was made at.
    pub at: Side,
}

/// What is known of a capture at its end.
#[derive(Debug)]
pub struct Capture<'a> {
    /// Counts.
    pub tally: &'a Tally,
    /// Why it could not be read on.
    pub fault: Option<&'a str>,
    /// Packets that the kernel dropped; `None` where it was not asked.
    pub kernel_dropped: Option<u64>,
}

impl Format {
    /// What precedes the first flow.
    pub fn begin(self) -> String {
        match self {
            Self::Json => format!("{{\"schema\":{},\n\"flows\":[", quoted(SCHEMA)),
            Self::Csv => format!("{}\n", CSV_COLUMNS.join(",")),
            Self::Text | Self::Lines | Self::JsonLines | Self::Prometheus => String::new(),
        }
    }

    /// One flow.
    pub fn flow(self, record: &Record<'_>, is_first: bool) -> String {
        match self {
            Self::Text => text(record),
            Self::Json => {
                let comma = if is_first { "" } else { "," };
                format!("{comma}\n{}", flow(record).end())
            }
            Self::JsonLines => {
                let mut object = Object::new();
                object
                    .text("schema", SCHEMA)
                    .raw("flow", flow(record).end());
                object.end() + "\n"
            }
            Self::Csv => csv(record.flow),
            Self::Lines | Self::Prometheus => String::new(),
        }
    }

    /// One round trip.
    pub fn sample(self, flow: &Flow, sample: &Sample) -> String {
        if self != Self::Lines {
            return String::new();
        }
        let sent = flow.of(sample.sender);
        let least = sent
            .round_trip
            .min()
            .unwrap_or(sample.round_trip)
            .min(sample.round_trip);
        format!(
            "{} {} {} {} > {} {}\n",
            sample.time,
            millis(sample.round_trip),
            millis(least),
            flow.ends[sample.sender as usize],
            flow.ends[sample.sender.other() as usize],
            sample.basis.name(),
        )
    }

    /// What follows the last flow.
    pub fn end(self, whole: &Capture<'_>) -> String {
        match self {
            Self::Text => text_end(whole),
            Self::Json => format!("\n],\n\"capture\":{}}}\n", capture(whole).end()),
            Self::JsonLines => {
                let mut object = Object::new();
                object
                    .text("schema", SCHEMA)
                    .raw("capture", capture(whole).end());
                object.end() + "\n"
            }
            Self::Lines | Self::Csv | Self::Prometheus => String::new(),
        }
    }
}

/// A JSON object under construction.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn raw(&mut self, key: &str, value: impl Display) -> &mut Self {
        let comma = if self.0.len() > 1 { "," } else { "" };
        let _ = write!(self.0, "{comma}\"{key}\":{value}");
        self
    }

    fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, quoted(value))
    }

    fn maybe(&mut self, key: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.raw(key, value),
            None => self.raw(key, "null"),
        }
    }

    fn time(&mut self, key: &str, value: Option<WallTime>) -> &mut Self {
        self.maybe(key, value.map(|time| format!("\"{time}\"")))
    }

    fn nanos(&mut self, key: &str, value: Option<SignedNanos>) -> &mut Self {
        self.maybe(key, value.map(|span| span.0))
    }

    fn end(&mut self) -> String {
        std::mem::take(&mut self.0) + "}"
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn array(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(","))
}

/// The figures of a summary by the names they have in JSON and CSV.
fn figures(of: &Summary) -> [(&'static str, i128); 9] {
    [
        ("count", of.count.into()),
        ("min_ns", of.min.0.into()),
        ("mean_ns", of.mean.0.into()),
        ("stddev_ns", of.stddev.0.into()),
        ("p50_ns", of.p50.0.into()),
        ("p90_ns", of.p90.0.into()),
        ("p95_ns", of.p95.0.into()),
        ("p99_ns", of.p99.0.into()),
        ("max_ns", of.max.0.into()),
    ]
}

fn summary(of: Option<&Summary>) -> Option<String> {
    let mut object = Object::new();
    for (key, value) in figures(of?) {
        object.raw(key, value);
    }
    Some(object.end())
}

fn event(of: &Event) -> String {
    Object::new()
        .raw("count", of.count)
        .time("last", of.last)
        .end()
}

fn direction(sent: &Sent) -> String {
    let mut object = Object::new();
    object
        .raw("packets", sent.packets)
        .raw("payload_bytes", sent.payload_bytes)
        .raw("retransmitted_bytes", sent.retransmitted_bytes)
        .raw("syn", event(&sent.syn))
        .raw("syn_ack", event(&sent.syn_ack))
        .raw("fin", event(&sent.fin))
        .raw("rst", event(&sent.rst))
        .time("established", sent.established)
        .time("first_data", sent.first_data)
        .time("last_data", sent.last_data)
        .time("last_packet", sent.last_packet)
        .maybe(
            "bytes_per_second",
            sent.bytes_per_second().map(|rate| rate.round()),
        )
        .raw("duplicate_acks", sent.duplicate_acks)
        .raw("zero_windows", sent.zero_windows)
        .raw("keep_alives", sent.keep_alives)
        .nanos("round_trip_current_ns", sent.round_trip.last())
        .maybe("round_trip", summary(sent.round_trip.summary().as_ref()));
    object.end()
}

fn interval(of: &Interval) -> String {
    let side = |side: Side| {
        let sent = &of.sent[side as usize];
        let trip = |at: usize| sent.round_trip.map(|figures| figures[at]);
        Object::new()
            .raw("packets", sent.packets)
            .raw("payload_bytes", sent.payload_bytes)
            .raw("retransmitted_bytes", sent.retransmitted_bytes)
            .raw("duplicate_acks", sent.duplicate_acks)
            .raw("zero_windows", sent.zero_windows)
            .time("last_packet", sent.last_packet)
            .nanos("round_trip_min_ns", trip(0))
            .nanos("round_trip_current_ns", trip(1))
            .nanos("round_trip_max_ns", trip(2))
            .end()
    };
    Object::new()
        .time("start", Some(of.start))
        .raw("client_to_server", side(Side::Client))
        .raw("server_to_client", side(Side::Server))
        .end()
}

/// The eight times of seed 003: four at each end, of which one capture sees one end's.
fn exchange(of: &Exchange, others: Option<&Exchange>, at: Side) -> String {
    let end = |side: Side| {
        let seen = if side == at { Some(of) } else { others };
        let request = [
            seen.and_then(|e| e.request_first),
            seen.and_then(|e| e.request_last),
        ];
        let response = [
            seen.and_then(|e| e.response_first),
            seen.and_then(|e| e.response_last),
        ];
        let (sent, received) = match side {
            Side::Client => (request, response),
            Side::Server => (response, request),
        };
        Object::new()
            .time("tx_first", sent[0])
            .time("tx_last", sent[1])
            .time("rx_first", received[0])
            .time("rx_last", received[1])
            .end()
    };
    Object::new()
        .maybe("method", of.method.map(quoted))
        .maybe("status", of.status)
        .nanos("time_to_first_byte_ns", of.time_to_first_byte())
        .raw("client", end(Side::Client))
        .raw("server", end(Side::Server))
        .end()
}

/// Directions and times of one flow, in one capture.
fn seen(flow: &Flow, object: &mut Object) {
    let handshake = Object::new()
        .nanos("syn_to_synack_ns", flow.syn_to_synack)
        .nanos("synack_to_ack_ns", flow.synack_to_ack)
        .end();
    object
        .text(
            "begins",
            if flow.begins_with_syn() {
                "syn"
            } else {
                "midstream"
            },
        )
        .time("first", Some(flow.first))
        .time("established", flow.established)
        .time("last", Some(flow.last))
        .text("ended", flow.ended().name())
        .raw("timestamps", flow.timestamps)
        .nanos("setup_ns", flow.setup())
        .raw("duration_ns", flow.duration().0)
        .raw("handshake", handshake)
        .raw("client_to_server", direction(flow.of(Side::Client)))
        .raw("server_to_client", direction(flow.of(Side::Server)));
}

fn flow(record: &Record<'_>) -> Object {
    let flow = record.flow;
    let mut object = Object::new();
    object
        .text("client", &flow.ends[0].to_string())
        .text("server", &flow.ends[1].to_string())
        .text("capture_at", record.at.name());
    seen(flow, &mut object);
    let others = |at: usize| record.peer?.http.as_ref()?.exchanges.get(at);
    let http = flow.http.as_deref();
    let exchanges = http
        .map_or(&[][..], |http| &http.exchanges)
        .iter()
        .enumerate();
    let exchanges = exchanges.map(|(at, of)| exchange(of, others(at), record.at));
    object
        .raw("http", array(exchanges))
        .raw("http_dropped", http.map_or(0, |http| http.dropped))
        .raw("intervals", array(flow.intervals.iter().map(interval)));
    if let Some(one_way) = record.one_way {
        let [forth, back] = one_way.delays;
        let delays = Object::new()
            .maybe("client_to_server", summary(forth.as_ref()))
            .maybe("server_to_client", summary(back.as_ref()))
            .end();
        let peer = record.peer.map(|flow| {
            let mut object = Object::new();
            seen(flow, &mut object);
            object.end()
        });
        object.raw("one_way_delay", delays).maybe("peer", peer);
    }
    object
}

fn capture(whole: &Capture<'_>) -> Object {
    let mut skipped = Object::new();
    for (skip, count) in Skip::ALL.iter().zip(whole.tally.skipped) {
        if count > 0 {
            skipped.raw(skip.name(), count);
        }
    }
    let mut object = Object::new();
    object
        .raw("packets", whole.tally.packets)
        .raw("tcp_packets", whole.tally.tcp_packets)
        .raw("skipped", skipped.end())
        .time("first", whole.tally.first)
        .time("last", whole.tally.last)
        .raw("flows", whole.tally.flows)
        .raw("flows_evicted", whole.tally.evicted)
        .maybe("kernel_dropped", whole.kernel_dropped)
        .maybe("fault", whole.fault.map(quoted));
    object
}

fn millis(span: SignedNanos) -> String {
    // In whole numbers: a tenth of the time that printing a float takes, and flows have twenty of these.
    let micros = (span.0.unsigned_abs() + 500) / 1000;
    let sign = if span.0 < 0 && micros > 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", micros / 1000, micros % 1000)
}

fn maybe_millis(span: Option<SignedNanos>) -> String {
    span.map_or_else(|| "-".to_owned(), millis)
}

fn text(record: &Record<'_>) -> String {
    let flow = record.flow;
    let mut out = String::new();
    let begins = if flow.begins_with_syn() {
        "SYN"
    } else {
        "midstream"
    };
    let by = if flow.timestamps {
        "timestamps"
    } else {
        "sequence numbers (no timestamps)"
    };
    let _ = writeln!(
        out,
        "{} > {}  from {} ({begins}) for {:.3} s, ended: {}",
        flow.ends[0],
        flow.ends[1],
        flow.first,
        flow.duration().0 as f64 / 1e9,
        flow.ended().name(),
    );
    let _ = writeln!(
        out,
        "  handshake ms: to server {}, to client {}; round trips by {by}",
        maybe_millis(flow.syn_to_synack),
        maybe_millis(flow.synack_to_ack),
    );
    let _ = writeln!(
        out,
        "  {:9} {:>9} {:>12} {:>9} {:>7} {:>6} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "towards",
        "packets",
        "bytes",
        "resent",
        "dupacks",
        "zerow",
        "trips",
        "min_ms",
        "p50_ms",
        "p99_ms",
        "max_ms"
    );
    for side in Side::BOTH {
        let sent = flow.of(side);
        let trips = sent.round_trip.summary();
        let figure = |pick: fn(&Summary) -> SignedNanos| maybe_millis(trips.as_ref().map(pick));
        let _ = writeln!(
            out,
            "  {:9} {:>9} {:>12} {:>9} {:>7} {:>6} {:>8} {:>9} {:>9} {:>9} {:>9}",
            side.other().name(),
            sent.packets,
            sent.payload_bytes,
            sent.retransmitted_bytes,
            sent.duplicate_acks,
            sent.zero_windows,
            sent.round_trip.count(),
            figure(|of| of.min),
            figure(|of| of.p50),
            figure(|of| of.p99),
            figure(|of| of.max),
        );
    }
    if let Some(one_way) = record.one_way {
        for (side, delay) in Side::BOTH.into_iter().zip(one_way.delays) {
            let figure = |pick: fn(&Summary) -> SignedNanos| maybe_millis(delay.as_ref().map(pick));
            let _ = writeln!(
                out,
                "  one-way delay to {} ms, by two clocks: min {}, p50 {}, max {} of {} packets",
                side.other().name(),
                figure(|of| of.min),
                figure(|of| of.p50),
                figure(|of| of.max),
                delay.map_or(0, |of| of.count),
            );
        }
    }
    for of in flow.http.iter().flat_map(|http| &http.exchanges) {
        let status = of
            .status
            .map_or_else(|| "-".to_owned(), |status| status.to_string());
        let _ = writeln!(
            out,
            "  HTTP {} {status}: first byte after {} ms",
            of.method.unwrap_or("-"),
            maybe_millis(of.time_to_first_byte()),
        );
    }
    out
}

fn text_end(whole: &Capture<'_>) -> String {
    let tally = whole.tally;
    let mut out = format!(
        "capture: packets={} tcp={} flows={} evicted={}",
        tally.packets, tally.tcp_packets, tally.flows, tally.evicted
    );
    for (skip, count) in Skip::ALL.iter().zip(tally.skipped) {
        if count > 0 {
            let _ = write!(out, " {}={count}", skip.name());
        }
    }
    if let Some(dropped) = whole.kernel_dropped {
        let _ = write!(out, " kernel_dropped={dropped}");
    }
    out.push('\n');
    out
}

const CSV_COLUMNS: [&str; 30] = [
    "client",
    "server",
    "begins",
    "ended",
    "first",
    "established",
    "last",
    "timestamps",
    "towards",
    "packets",
    "payload_bytes",
    "retransmitted_bytes",
    "syn",
    "syn_ack",
    "fin",
    "rst",
    "first_data",
    "last_data",
    "duplicate_acks",
    "zero_windows",
    "handshake_ns",
    "count",
    "min_ns",
    "mean_ns",
    "stddev_ns",
    "p50_ns",
    "p90_ns",
    "p95_ns",
    "p99_ns",
    "max_ns",
];

/// No value needs quotes. What is absent is empty.
fn csv(flow: &Flow) -> String {
    fn cell(value: Option<impl Display>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    let mut out = String::new();
    for side in Side::BOTH {
        let sent = flow.of(side);
        let handshake = match side {
            Side::Client => flow.syn_to_synack,
            Side::Server => flow.synack_to_ack,
        };
        let mut cells = vec![
            flow.ends[0].to_string(),
            flow.ends[1].to_string(),
            if flow.begins_with_syn() {
                "syn"
            } else {
                "midstream"
            }
            .to_owned(),
            flow.ended().name().to_owned(),
            flow.first.to_string(),
            cell(flow.established),
            flow.last.to_string(),
            flow.timestamps.to_string(),
            side.other().name().to_owned(),
            sent.packets.to_string(),
            sent.payload_bytes.to_string(),
            sent.retransmitted_bytes.to_string(),
            sent.syn.count.to_string(),
            sent.syn_ack.count.to_string(),
            sent.fin.count.to_string(),
            sent.rst.count.to_string(),
            cell(sent.first_data),
            cell(sent.last_data),
            sent.duplicate_acks.to_string(),
            sent.zero_windows.to_string(),
            cell(handshake.map(|span| span.0)),
        ];
        match sent.round_trip.summary() {
            Some(of) => cells.extend(figures(&of).map(|(_, value)| value.to_string())),
            None => cells.resize(CSV_COLUMNS.len(), String::new()),
        }
        out.push_str(&cells.join(","));
        out.push('\n');
    }
    out
}

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
    let histograms: [(&str, &str, Pick); 2] = [
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
