//! Flows and counts in, JSON out: one object per capture, or one per flow.

use super::{Answers, Capture, FlowRecord};
use crate::passive::{
    same_exchange, Event, Exchange, Flow, Handshake, Interval, OneWay, Sent, Side, Skip,
};
use crate::report::header_delays::{delays_array, headers_object};
use crate::report::json::write::{Array, Object, ToJson, Writer};

/// Name and version of the JSON.
pub const SCHEMA: &str = "subsegment-tcp-speeds/passive/1";

/// Returns the text before the first flow.
pub(super) fn begin() -> String {
    format!("{{\"schema\":\"{SCHEMA}\",\n\"flows\":[")
}

/// One flow among others.
pub(super) fn flow(record: &FlowRecord<'_>, is_first: bool, out: &mut String) {
    out.push_str(if is_first { "\n" } else { ",\n" });
    Writer::compact().append(record, out);
}

/// Returns the text after the last flow.
pub(super) fn end(whole: &Capture<'_>) -> String {
    format!("\n],\n\"capture\":{}}}\n", Writer::compact().finish(whole))
}

/// One flow alone.
pub(super) fn flow_line(record: &FlowRecord<'_>, out: &mut String) {
    line("flow", record, out);
}

/// The counts alone.
pub(super) fn capture_line(whole: &Capture<'_>) -> String {
    let mut out = String::new();
    line("capture", whole, &mut out);
    out
}

fn line(key: &'static str, value: impl ToJson, out: &mut String) {
    let object = Object(|w: &mut Writer| {
        w.pair("schema", SCHEMA);
        w.pair(key, value);
    });
    Writer::compact().append(object, out);
    out.push('\n');
}

impl ToJson for Event {
    fn to_json(self, w: &mut Writer) {
        Object(|w: &mut Writer| {
            w.pair("count", self.count);
            w.pair("last", self.last());
        })
        .to_json(w);
    }
}

impl ToJson for &Sent {
    fn to_json(self, w: &mut Writer) {
        let rare = self.rare();
        Object(|w: &mut Writer| {
            w.pair("packets", self.packets);
            w.pair("payload_bytes", self.payload_bytes);
            w.pair("retransmitted_bytes", rare.retransmitted_bytes);
            w.pair("syn", self.syn());
            w.pair("syn_ack", self.syn_ack());
            w.pair("fin", self.fin);
            w.pair("rst", rare.rst);
            w.pair("established", self.established.get());
            w.pair("first_data", self.first_data.get());
            w.pair("last_data", self.last_data.get());
            w.pair("last_packet", self.last_packet.get());
            w.pair("bytes_per_second", self.bytes_per_second().map(f64::round));
            w.pair("duplicate_acks", rare.duplicate_acks);
            w.pair("zero_windows", rare.zero_windows);
            w.pair("keep_alives", rare.keep_alives);
            w.pair("round_trip_current_ns", self.round_trip.last());
            w.pair("round_trip", self.round_trip.summary());
        })
        .to_json(w);
    }
}

impl ToJson for &Interval {
    fn to_json(self, w: &mut Writer) {
        let side = |side: Side| {
            let sent = &self.sent[side as usize];
            let trip = |at: usize| sent.round_trip.map(|figures| figures[at]);
            Object(move |w: &mut Writer| {
                w.pair("packets", sent.packets);
                w.pair("payload_bytes", sent.payload_bytes);
                w.pair("retransmitted_bytes", sent.retransmitted_bytes);
                w.pair("duplicate_acks", sent.duplicate_acks);
                w.pair("zero_windows", sent.zero_windows);
                w.pair("last_packet", sent.last_packet);
                w.pair("round_trip_min_ns", trip(0));
                w.pair("round_trip_current_ns", trip(1));
                w.pair("round_trip_max_ns", trip(2));
            })
        };
        Object(|w: &mut Writer| {
            w.pair("start", self.start);
            w.pair("client_to_server", side(Side::Client));
            w.pair("server_to_client", side(Side::Server));
        })
        .to_json(w);
    }
}

/// The eight times of seed 003: four at each end, of which one capture sees one end's.
fn exchange<'a>(of: &'a Exchange, others: Option<&'a Exchange>, at: Side) -> impl ToJson + 'a {
    let own = of.own_times();
    let end = move |side: Side| {
        let seen = if side == at { Some(of) } else { others };
        let request = [
            seen.and_then(|e| e.request_first.get()),
            seen.and_then(|e| e.request_last.get()),
        ];
        let response = [
            seen.and_then(|e| e.response_first.get()),
            seen.and_then(|e| e.response_last.get()),
        ];
        let (sent, received) = match side {
            Side::Client => (request, response),
            Side::Server => (response, request),
        };
        Object(move |w: &mut Writer| {
            w.pair("tx_first", sent[0]);
            w.pair("tx_last", sent[1]);
            w.pair("rx_first", received[0]);
            w.pair("rx_last", received[1]);
        })
    };
    Object(move |w: &mut Writer| {
        w.pair("method", of.method());
        w.pair("status", of.status.map(u64::from));
        w.pair("target", of.target());
        w.pair("time_to_first_byte_ns", of.time_to_first_byte());
        w.pair("client", end(Side::Client));
        w.pair("server", end(Side::Server));
        let headers = of.headers();
        w.pair("headers", headers.map(|of| headers_object(of, own)));
    })
}

/// The time that each end took to answer.
fn application(flow: &Flow) -> impl ToJson + '_ {
    let end = move |side: Side| {
        let answers = Answers::of(flow, side);
        Object(move |w: &mut Writer| {
            w.pair("count", answers.map_or(0, |of| of.count));
            w.pair("response_p50_ns", answers.map(|of| of.response[0]));
            w.pair("response_p95_ns", answers.map(|of| of.response[1]));
            w.pair("network_ns", flow.network(side));
            w.pair("own_p50_ns", answers.and_then(|of| of.own[0]));
            w.pair("own_p95_ns", answers.and_then(|of| of.own[1]));
        })
    };
    Object(move |w: &mut Writer| {
        w.pair("server", end(Side::Server));
        w.pair("client", end(Side::Client));
    })
}

impl ToJson for &Handshake {
    fn to_json(self, w: &mut Writer) {
        Object(|w: &mut Writer| {
            w.pair("sni", self.sni.as_deref());
            w.pair("version", self.version_name());
            w.pair("client_hello", self.client_hello);
            w.pair("client_hello_to_server_hello_ns", self.to_server_hello());
            w.pair(
                "server_hello_to_client_finished_ns",
                self.to_client_finished(),
            );
        })
        .to_json(w);
    }
}

/// Directions and times of one flow, in one capture.
fn seen(flow: &Flow, w: &mut Writer) {
    w.pair(
        "begins",
        if flow.begins_with_syn() {
            "syn"
        } else {
            "midstream"
        },
    );
    w.pair("first", flow.first);
    w.pair("established", flow.established());
    w.pair("last", flow.last);
    w.pair("ended", flow.ended().name());
    w.pair("timestamps", flow.timestamps);
    w.pair(
        "tunnel",
        flow.tunnel.map(|tunnel| tunnel.to_string()).as_deref(),
    );
    w.pair(
        "also_seen",
        Array(flow.also_seen().iter().map(|seen| {
            Object(|w: &mut Writer| {
                w.pair("interface", &seen.name);
                w.pair("packets", seen.packets);
            })
        })),
    );
    w.pair("setup_ns", flow.setup());
    w.pair("duration_ns", flow.duration());
    w.pair(
        "handshake",
        Object(|w: &mut Writer| {
            w.pair("syn_to_synack_ns", flow.syn_to_synack);
            w.pair("synack_to_ack_ns", flow.synack_to_ack);
        }),
    );
    w.pair("client_to_server", flow.of(Side::Client));
    w.pair("server_to_client", flow.of(Side::Server));
}

impl ToJson for OneWay {
    fn to_json(self, w: &mut Writer) {
        let [forth, back] = self.delays;
        Object(|w: &mut Writer| {
            w.pair("client_to_server", forth);
            w.pair("server_to_client", back);
        })
        .to_json(w);
    }
}

impl ToJson for &FlowRecord<'_> {
    fn to_json(self, w: &mut Writer) {
        let flow = self.flow;
        let [client, server] = flow.ends.map(|end| end.to_string());
        let peers = self.peer.and_then(|flow| flow.http.as_ref());
        let peers = peers.map_or(&[][..], |http| &http.exchanges);
        let mut from = 0;
        let http = flow.http.as_deref();
        let exchanges = http
            .map_or(&[][..], |http| &http.exchanges)
            .iter()
            .map(|of| (of, same_exchange(of, peers, &mut from)));
        Object(|w: &mut Writer| {
            w.pair("client", &client);
            w.pair("server", &server);
            w.pair("capture_at", self.at.name());
            seen(flow, w);
            w.pair(
                "http",
                Array(exchanges.map(|(of, others)| exchange(of, others, self.at))),
            );
            w.pair("http_dropped", http.map_or(0, |http| http.dropped));
            w.pair("http_gaps", http.map_or(0, |http| http.gaps));
            w.pair(
                "http_first_byte",
                http.and_then(|http| http.first_byte.summary()),
            );
            w.pair("application", application(flow));
            w.pair("tls", flow.application.tls());
            w.pair("intervals", Array(flow.intervals()));
            if let Some(one_way) = self.one_way {
                w.pair("one_way_delay", one_way);
                w.pair(
                    "peer",
                    self.peer.map(|flow| Object(|w: &mut Writer| seen(flow, w))),
                );
            }
        })
        .to_json(w);
    }
}

impl ToJson for &Capture<'_> {
    fn to_json(self, w: &mut Writer) {
        let tally = self.tally;
        Object(|w: &mut Writer| {
            w.pair("packets", tally.packets);
            w.pair("tcp_packets", tally.tcp_packets);
            w.pair(
                "skipped",
                Object(|w: &mut Writer| {
                    for (skip, count) in Skip::ALL.iter().zip(tally.skipped) {
                        if count > 0 {
                            w.pair(skip.name(), count);
                        }
                    }
                }),
            );
            w.pair("first", tally.first);
            w.pair("last", tally.last);
            w.pair("flows", tally.flows);
            w.pair("flows_evicted", tally.evicted);
            w.pair("kernel_dropped", self.kernel_dropped);
            w.pair("fault", self.fault);
            w.pair("header_delays", delays_array(self.header_delays));
        })
        .to_json(w);
    }
}
