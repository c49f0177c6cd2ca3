//! A flow in, two rows of CSV (RFC 4180) out.

use super::Answers;
use crate::passive::{Flow, Side};
use std::fmt::Display;

const COLUMNS: [&str; 42] = [
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
    "response_count",
    "response_p50_ns",
    "response_p95_ns",
    "network_ns",
    "own_p50_ns",
    "own_p95_ns",
    "http_count",
    "http_first_byte_p50_ns",
    "http_first_byte_p95_ns",
    "tls_sni",
    "tls_client_hello_to_server_hello_ns",
    "tls_server_hello_to_client_finished_ns",
];

/// The names of the columns.
pub(super) fn head() -> String {
    format!("{}\n", COLUMNS.join(","))
}

/// A row for each direction. No value needs quotes; what is absent is empty.
pub(super) fn rows(flow: &Flow) -> String {
    fn cell(value: Option<impl Display>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    let mut out = String::new();
    for side in Side::BOTH {
        let (sent, rare) = (flow.of(side), flow.of(side).rare());
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
            cell(flow.established()),
            flow.last.to_string(),
            flow.timestamps.to_string(),
            side.other().name().to_owned(),
            sent.packets.to_string(),
            sent.payload_bytes.to_string(),
            rare.retransmitted_bytes.to_string(),
            sent.syn().count.to_string(),
            sent.syn_ack().count.to_string(),
            sent.fin.count.to_string(),
            rare.rst.count.to_string(),
            cell(sent.first_data.get()),
            cell(sent.last_data.get()),
            rare.duplicate_acks.to_string(),
            rare.zero_windows.to_string(),
            cell(handshake.map(|span| span.0)),
        ];
        match sent.round_trip.summary() {
            Some(of) => {
                cells.push(of.count.to_string());
                cells.push(of.min.0.to_string());
                cells.push(of.mean.0.to_string());
                cells.push(of.stddev.0.to_string());
                let quantiles = [of.p50, of.p90, of.p95, of.p99, of.max];
                cells.extend(quantiles.map(|span| span.0.to_string()));
            }
            None => cells.resize(COLUMNS.len() - 12, String::new()),
        }
        // What this end answers.
        let own = side.other();
        let answers = Answers::of(flow, own);
        let count = answers.map_or(0, |of| of.count);
        cells.push(count.to_string());
        let of_answers = [
            answers.map(|of| of.response[0]),
            answers.map(|of| of.response[1]),
            flow.network(own),
            answers.and_then(|of| of.own[0]),
            answers.and_then(|of| of.own[1]),
        ];
        cells.extend(of_answers.map(|span| cell(span.map(|span| span.0))));
        // What the server answers stands in the row towards it.
        let http = flow.http.as_ref().filter(|_| own == Side::Server);
        let first_byte = http.and_then(|http| http.first_byte.summary());
        cells.push(cell(http.map(|http| http.count())));
        cells.push(cell(first_byte.map(|of| of.p50.0)));
        cells.push(cell(first_byte.map(|of| of.p95.0)));
        let tls = flow.application.tls().filter(|_| own == Side::Server);
        cells.push(cell(tls.and_then(|tls| tls.sni.as_deref())));
        cells.push(cell(
            tls.and_then(|tls| tls.to_server_hello()).map(|span| span.0),
        ));
        cells.push(cell(
            tls.and_then(|tls| tls.to_client_finished())
                .map(|span| span.0),
        ));
        out.push_str(&cells.join(","));
        out.push('\n');
    }
    out
}
