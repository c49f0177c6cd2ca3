//! Flows and counts in, small tables for people out.

use super::{Answers, Capture, FlowRecord, Millis};
use crate::decimal::Digits;
use crate::measure::Summary;
use crate::passive::{Side, Skip};
use crate::report::header_delays;
use crate::time::SignedNanos;
use std::fmt::Write as _;

/// Above the two rows of a flow.
const HEAD: &str = "  towards     packets        bytes    resent dupacks  zerow    trips\
    \x20   min_ms    p50_ms    p99_ms    max_ms\n";

/// Appends a figure at the right end of its column.
fn column(out: &mut String, width: usize, figure: &str) {
    const SPACES: &str = "            ";
    let free = width.saturating_sub(figure.len()).min(SPACES.len());
    out.push(' ');
    out.push_str(&SPACES[..free]);
    out.push_str(figure);
}

/// One flow.
pub(super) fn flow(record: &FlowRecord<'_>) -> String {
    let flow = record.flow;
    let mut out = String::with_capacity(1024);
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
    let millis = flow.duration().0.unsigned_abs() / 1_000_000;
    let _ = writeln!(
        out,
        "{} > {}  from {} ({begins}) for {}.{:03} s, ended: {}",
        flow.ends[0],
        flow.ends[1],
        flow.first,
        millis / 1000,
        millis % 1000,
        flow.ended().name(),
    );
    let _ = writeln!(
        out,
        "  handshake ms: to server {}, to client {}; round trips by {by}",
        Millis::of(flow.syn_to_synack),
        Millis::of(flow.synack_to_ack),
    );
    if let Some(tunnel) = flow.tunnel {
        let _ = writeln!(out, "  inside of {tunnel}");
    }
    for seen in flow.also_seen() {
        let _ = writeln!(out, "  also seen on {}: {}", seen.name, seen.packets);
    }
    out.push_str(HEAD);
    for side in Side::BOTH {
        let (sent, rare) = (flow.of(side), flow.of(side).rare());
        let trips = sent.round_trip.summary();
        let figure = |pick: fn(&Summary) -> SignedNanos| Millis::of(trips.as_ref().map(pick));
        let _ = write!(out, "  {:9}", side.other().name());
        for (width, count) in [
            (9, sent.packets),
            (12, sent.payload_bytes),
            (9, rare.retransmitted_bytes),
            (7, rare.duplicate_acks),
            (6, rare.zero_windows),
            (8, sent.round_trip.count()),
        ] {
            column(&mut out, width, Digits::of(count).as_str());
        }
        for span in [
            figure(|of| of.min),
            figure(|of| of.p50),
            figure(|of| of.p99),
            figure(|of| of.max),
        ] {
            column(&mut out, 9, span.as_str());
        }
        out.push('\n');
    }
    if let Some(one_way) = record.one_way {
        for (side, delay) in Side::BOTH.into_iter().zip(one_way.delays) {
            let figure = |pick: fn(&Summary) -> SignedNanos| Millis::of(delay.as_ref().map(pick));
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
    applications(record, &mut out);
    out
}

/// The events of the applications: a line each for turns, TLS and HTTP, and one per exchange if
/// wanted.
fn applications(record: &FlowRecord<'_>, out: &mut String) {
    let flow = record.flow;
    let [client, server] = Side::BOTH.map(|side| Answers::of(flow, side));
    if let Some(server) = server {
        let own = |answers: Option<Answers>, at: usize| {
            Millis::of(answers.and_then(|answers| answers.own[at]))
        };
        let [to_client, to_server] = Side::BOTH.map(|side| flow.network(side));
        let network = to_server.zip(to_client).map(|(there, here)| there + here);
        let _ = writeln!(
            out,
            "  application ms: server {}, network {}, client {} (p50 of {} answers; \
             p95: server {}, client {})",
            own(Some(server), 0),
            Millis::of(network),
            own(client, 0),
            server.count,
            own(Some(server), 1),
            own(client, 1),
        );
    }
    if let Some(tls) = flow.application.tls() {
        let _ = writeln!(
            out,
            "  TLS {} {}: ClientHello to ServerHello {} ms, to the client's Finished {} ms",
            tls.version_name().unwrap_or("-"),
            tls.sni.as_deref().unwrap_or("-"),
            Millis::of(tls.to_server_hello()),
            Millis::of(tls.to_client_finished()),
        );
    }
    let Some(http) = &flow.http else { return };
    let first_byte = http.first_byte.summary();
    let _ = write!(
        out,
        "  HTTP: {} exchanges, first byte p50 {}, p95 {} ms;",
        http.count(),
        Millis::of(first_byte.map(|of| of.p50)),
        Millis::of(first_byte.map(|of| of.p95)),
    );
    for (status, count) in &http.statuses {
        let _ = match status {
            0 => write!(out, " others x{count}"),
            status => write!(out, " {status} x{count}"),
        };
    }
    if http.without_status > 0 {
        let _ = write!(out, " unknown x{}", http.without_status);
    }
    out.push('\n');
    let each = http.exchanges.iter().filter(|_| record.verbose);
    for of in each {
        let time = of.request_first.get().or(of.response_first.get());
        let status = of
            .status
            .map_or_else(|| "-".to_owned(), |status| status.to_string());
        let _ = writeln!(
            out,
            "    {} {} {} {status}: first byte after {} ms",
            time.map_or_else(|| "-".to_owned(), |time| time.to_string()),
            of.method().unwrap_or("-"),
            of.target().unwrap_or("-"),
            Millis::of(of.time_to_first_byte()),
        );
    }
}

/// The counts.
pub(super) fn end(whole: &Capture<'_>) -> String {
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
    for sentence in header_delays::sentences(whole.header_delays) {
        let _ = writeln!(out, "{sentence}");
    }
    out
}
