//! Turns the [`ConnectionRecord`] of a live connection into a line of JSON, for `--sessions` and
//! `/sessions`.
//!
//! ```text
//! {"schema":"subsegment-tcp-speeds/session/1","event":"start|interval|now|end","at":"...",
//!  "node":"B","role":"relay",
//!  "connection":17,"cookie":"hex"|null,"hop":1|null,"client_address":"..."|null,
//!  "client":END,"server":END|null,
//!  "failed":false,"http":[...],"http_dropped":0}
//! END = {"peer":"...","local":"...","connect_started":TIME,"connect_ns":N,"established":TIME,
//!  "syn_retransmits":N,
//!  "received_bytes":N,"first_received":TIME,"last_received":TIME,
//!  "sent_bytes":N,"first_sent":TIME,"last_sent":TIME,
//!  "fin_received":TIME,"fin_sent":TIME,"rst_received":TIME,"rst_sent":TIME,
//!  "rtt_min_ns":N,"rtt_ns":N,"rtt_max_ns":N,
//!  "retransmits":N,"interval":{"received_bytes":N,"sent_bytes":N,"retransmits":N}}
//! ```
//!
//! The figures of an end count from its begin, those of its `interval` since the line before; a
//! line on request (`now`) has no interval. An event that has not happened and an unknown value are
//! null.

use super::header_delays::headers_object;
use super::json::write::{Array, Object, ToJson, Writer};
use crate::passive::Exchange;
use crate::session::connection_record::{ConnectionRecord, EndRecord, IntervalCounts, Transferred};
use crate::time::WallTime;
use crate::FULL;
use std::net::SocketAddr;

/// The value of `schema`; its number changes when a key changes its meaning or goes away.
pub const SCHEMA: &str = "subsegment-tcp-speeds/session/1";

/// The reason for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The connection was accepted, or connected by a source.
    Start,
    /// A second passed in which something moved.
    IntervalCounts,
    /// A request over HTTP.
    Now,
    /// It is over.
    End,
}

impl SessionEvent {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::IntervalCounts => "interval",
            Self::Now => "now",
            Self::End => "end",
        }
    }
}

/// A connection at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The reason for the line.
    pub event: SessionEvent,
    /// The time of the line, on this node's wall clock.
    pub at: WallTime,
    /// The connection's number, as in the names of its threads.
    pub connection: usize,
    /// The cookie and the hop of this node on the path; `None` before OPEN and at a plain proxy.
    pub session: Option<(u64, u8)>,
    /// The client's own address if a preamble or the entry named it; `None` if the peer is all that
    /// is known.
    pub client_address: Option<SocketAddr>,
    /// The ends of the connection.
    pub record: ConnectionRecord,
    /// Counts since the line before, at client and server; `None` on request.
    pub interval: [Option<IntervalCounts>; 2],
    /// It ended otherwise than in order.
    pub failed: bool,
    /// Requests and responses, where plain HTTP/1.x was seen here. Given with the end.
    pub http: Vec<Exchange>,
    /// Exchanges beyond those kept.
    pub http_dropped: u64,
}

/// Returns the line of `snapshot` of a connection at `node`, with a line feed.
pub fn line(node: &str, role: &str, snapshot: &Snapshot) -> String {
    let mut text = Writer::compact().finish(Object(|w| {
        w.pair("schema", SCHEMA);
        w.pair("event", snapshot.event.name());
        w.pair("at", snapshot.at);
        w.pair("node", node);
        w.pair("role", role);
        w.pair("connection", snapshot.connection as u64);
        let cookie = snapshot.session.map(|(cookie, _)| format!("{cookie:016x}"));
        w.pair("cookie", cookie.as_deref());
        w.pair("hop", snapshot.session.map(|(_, hop)| u64::from(hop)));
        let address = snapshot.client_address.map(|address| address.to_string());
        w.pair("client_address", address.as_deref());
        w.pair("client", end(&snapshot.record.client, snapshot.interval[0]));
        let server = snapshot.record.server.as_ref();
        w.pair("server", server.map(|of| end(of, snapshot.interval[1])));
        w.pair("failed", snapshot.failed);
        w.pair(
            "http",
            FULL.then(|| Array(snapshot.http.iter().map(exchange))),
        );
        w.pair("http_dropped", FULL.then_some(snapshot.http_dropped));
    }));
    text.push('\n');
    text
}

fn end<'a>(of: &'a EndRecord, interval: Option<IntervalCounts>) -> impl ToJson + 'a {
    Object(move |w: &mut Writer| {
        let [peer, local] = [of.peer, of.local].map(|end| end.map(|end| end.to_string()));
        w.pair("peer", peer.as_deref());
        w.pair("local", local.as_deref());
        w.pair("connect_started", of.connect_started);
        w.pair("connect_ns", of.connect);
        w.pair("established", of.established);
        w.pair("syn_retransmits", of.syn_retransmits.map(u64::from));
        let mut moved = |names: [&'static str; 3], bytes: Transferred| {
            w.pair(names[0], bytes.count);
            w.pair(names[1], bytes.first);
            w.pair(names[2], bytes.last);
        };
        moved(
            ["received_bytes", "first_received", "last_received"],
            of.received,
        );
        moved(["sent_bytes", "first_sent", "last_sent"], of.sent);
        w.pair("fin_received", of.fin_received);
        w.pair("fin_sent", of.fin_sent);
        w.pair("rst_received", of.rst_received);
        w.pair("rst_sent", of.rst_sent);
        w.pair("rtt_min_ns", of.round_trip_min);
        w.pair("rtt_ns", of.round_trip);
        w.pair("rtt_max_ns", of.round_trip_max);
        w.pair("retransmits", of.retransmits.map(u64::from));
        w.pair(
            "interval",
            interval.map(|of| {
                Object(move |w: &mut Writer| {
                    w.pair("received_bytes", of.received_bytes);
                    w.pair("sent_bytes", of.sent_bytes);
                    w.pair("retransmits", of.retransmits.map(u64::from));
                })
            }),
        );
    })
}

fn exchange(of: &Exchange) -> impl ToJson + '_ {
    Object(move |w: &mut Writer| {
        w.pair("method", of.method());
        w.pair("status", of.status.map(u64::from));
        w.pair("request_first", of.request_first.get());
        w.pair("request_last", of.request_last.get());
        w.pair("response_first", of.response_first.get());
        w.pair("response_last", of.response_last.get());
        w.pair("time_to_first_byte_ns", of.time_to_first_byte());
        let headers = of.headers();
        w.pair(
            "headers",
            headers.map(|headers| headers_object(headers, of.own_times())),
        );
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::json::parse;
    use crate::session::connection_record::Kernel;
    use crate::time::Nanos;

    #[test]
    fn a_line_is_one_object_and_what_is_unknown_is_null() {
        let peer = "192.0.2.1:4000".parse().unwrap();
        let now = WallTime(1_795_253_400_000_000_000);
        let mut record = ConnectionRecord::new(EndRecord::accepted(now, peer, Kernel::default()));
        let kernel = Kernel {
            round_trip: Some(Nanos(70_000)),
            least_round_trip: None,
            retransmits: Some(2),
        };
        let server = EndRecord::connected(now, peer, Nanos::from_millis(3), kernel);
        record.server = Some(server);
        record.client.receive(now, 5);
        let mut exchange = Exchange::new(b"GET");
        exchange.status = Some(200);
        exchange.request_first = now.into();
        exchange.request_last = now.into();
        exchange.response_first = now.into();
        let snapshot = Snapshot {
            event: SessionEvent::End,
            at: now,
            connection: 7,
            session: Some((0xabc, 1)),
            client_address: Some("[2001:db8::1]:9".parse().unwrap()),
            interval: record.interval(),
            record,
            failed: true,
            http: vec![exchange],
            http_dropped: 0,
        };
        let text = line("B\n", "exit", &snapshot);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let value = parse(text.as_bytes()).expect("JSON");
        let at = |path: &str| value.at(path).unwrap_or_else(|| panic!("{path}: {text}"));
        assert_eq!(at("event").as_str(), Some("end"));
        assert_eq!(at("cookie").as_str(), Some("0000000000000abc"));
        assert_eq!(at("client_address").as_str(), Some("[2001:db8::1]:9"));
        let client = at("client");
        assert_eq!(
            client.at("received_bytes").and_then(|v| v.as_i64()),
            Some(5)
        );
        assert!(client.at("connect_ns").is_some_and(|v| v.is_null()));
        assert!(client.at("retransmits").is_some_and(|v| v.is_null()));
        let server = at("server");
        assert_eq!(
            server.at("connect_ns").and_then(|v| v.as_i64()),
            Some(3_000_000)
        );
        assert_eq!(
            server.at("syn_retransmits").and_then(|v| v.as_i64()),
            Some(2)
        );
        assert!(server.at("fin_sent").is_some_and(|v| v.is_null()));
        let http = at("http").as_array().unwrap();
        assert_eq!(http[0].at("status").and_then(|v| v.as_i64()), Some(200));
    }
}
