//! A small capture in each format.

use super::build::*;
use crate::measure::HeaderDelays;
use crate::passive::*;
use crate::report::passive::{prometheus, Capture, FlowRecord, Metrics, PassiveFormat};

const EXCHANGE: &str = "
    0     c S  seq=100 ts=1,0
    20.5  s SA seq=500 ack=101 ts=7,1
    20.75 c A  seq=101 ack=501 ts=2,7
    21    c A  seq=101 ack=501 len=10 ts=3,7
    41.25 s A  seq=501 ack=111 ts=8,3
    50    s R  seq=501
";

fn rendered(format: PassiveFormat) -> String {
    let mut observed = Observed::default();
    let capture = pcap(&script(EXCHANGE), false, true);
    let (tally, fault) = read(&capture[..capture.len() - 1], 4096, LIMITS, &mut observed);
    let fault = fault.map(|fault| fault.to_string());
    let mut out = format.begin();
    for sample in &observed.samples {
        let line = format.sample(&observed.flows[0], sample);
        out += &line.map_or_else(String::new, |line| line.to_string());
    }
    for (at, flow) in observed.flows.iter().enumerate() {
        let record = FlowRecord {
            flow,
            peer: None,
            one_way: None,
            at: Side::Client,
            verbose: true,
        };
        format.flow(&record, at == 0, &mut out);
    }
    out + &format.end(&Capture {
        tally: &tally,
        fault: fault.as_deref(),
        kernel_dropped: None,
        header_delays: &HeaderDelays::default(),
    })
}

const DIRECTION: &str = r#"{"packets":P,"payload_bytes":B,"retransmitted_bytes":0,"syn":SYN,"syn_ack":ACK,"fin":{"count":0,"last":null},"rst":{"count":0,"last":null},"established":EST,"first_data":DATA,"last_data":DATA,"last_packet":LAST,"bytes_per_second":null,"duplicate_acks":0,"zero_windows":0,"keep_alives":0,"round_trip_current_ns":TRIP,"round_trip":SUMMARY}"#;

#[test]
fn golden_json() {
    let time = |ms: &str| format!("\"2026-11-21T09:30:00.{ms}Z\"");
    let once = |ms: &str| format!("{{\"count\":1,\"last\":{}}}", time(ms));
    let never = r#"{"count":0,"last":null}"#;
    let client = DIRECTION
        .replace(":P,", ":3,")
        .replace(":B,", ":10,")
        .replace("SYN", &once("000000000"))
        .replace("ACK", never)
        .replace("EST", &time("020500000"))
        .replace("DATA", &time("021000000"))
        .replace("LAST", &time("021000000"))
        .replace("TRIP", "20250000")
        .replace("SUMMARY", r#"{"count":1,"min_ns":20250000,"mean_ns":20250000,"stddev_ns":0,"p50_ns":20250000,"p90_ns":20250000,"p95_ns":20250000,"p99_ns":20250000,"max_ns":20250000}"#);
    let server = DIRECTION
        .replace(":P,", ":2,")
        .replace(":B,", ":0,")
        .replace("SYN", never)
        .replace("ACK", &once("020500000"))
        .replace("EST", &time("020750000"))
        .replace("DATA", "null")
        .replace("LAST", &time("041250000"))
        .replace("TRIP", "null")
        .replace("SUMMARY", "null");
    let snapshot = |packets, bytes, last: &str, trip: &str| {
        format!(
            r#"{{"packets":{packets},"payload_bytes":{bytes},"retransmitted_bytes":0,"duplicate_acks":0,"zero_windows":0,"last_packet":{},"round_trip_min_ns":{trip},"round_trip_current_ns":{trip},"round_trip_max_ns":{trip}}}"#,
            time(last)
        )
    };
    let expected = format!(
        r#"{{"schema":"subsegment-tcp-speeds/passive/1",
"flows":[
{{"client":"10.0.0.1:40000","server":"10.0.1.2:80","capture_at":"client","begins":"syn","first":{first},"established":{established},"last":{last},"ended":"open","timestamps":true,"tunnel":null,"also_seen":[],"setup_ns":20750000,"duration_ns":41250000,"handshake":{{"syn_to_synack_ns":20500000,"synack_to_ack_ns":250000}},"client_to_server":{client},"server_to_client":{server},"http":[],"http_dropped":0,"http_gaps":0,"http_first_byte":null,"application":{{"server":{{"count":0,"response_p50_ns":null,"response_p95_ns":null,"network_ns":20250000,"own_p50_ns":null,"own_p95_ns":null}},"client":{{"count":0,"response_p50_ns":null,"response_p95_ns":null,"network_ns":250000,"own_p50_ns":null,"own_p95_ns":null}}}},"tls":null,"intervals":[{{"start":{first},"client_to_server":{of_client},"server_to_client":{of_server}}}]}}
],
"capture":{{"packets":5,"tcp_packets":5,"skipped":{{}},"first":{first},"last":{last},"flows":1,"flows_evicted":0,"kernel_dropped":null,"fault":"packet 6 at offset 444: the capture is cut off, 69 of 70 bytes are there","header_delays":[]}}}}
"#,
        first = time("000000000"),
        established = time("020750000"),
        last = time("041250000"),
        of_client = snapshot(3, 10, "021000000", "20250000"),
        of_server = snapshot(2, 0, "041250000", "null"),
    );
    assert_eq!(rendered(PassiveFormat::Json), expected);
}

#[test]
fn golden_lines() {
    assert_eq!(
        rendered(PassiveFormat::Lines),
        "2026-11-21T09:30:00.020500000Z 20.500 20.250 10.0.0.1:40000 > 10.0.1.2:80 handshake\n\
         2026-11-21T09:30:00.020750000Z 0.250 0.250 10.0.1.2:80 > 10.0.0.1:40000 handshake\n\
         2026-11-21T09:30:00.041250000Z 20.250 20.250 10.0.0.1:40000 > 10.0.1.2:80 timestamps\n"
    );
}

#[test]
fn golden_text() {
    let expected = "\
10.0.0.1:40000 > 10.0.1.2:80  from 2026-11-21T09:30:00.000000000Z (SYN) for 0.041 s, ended: open
  handshake ms: to server 20.500, to client 0.250; round trips by timestamps
  towards     packets        bytes    resent dupacks  zerow    trips    min_ms    p50_ms    p99_ms    max_ms
  server            3           10         0       0      0        1    20.250    20.250    20.250    20.250
  client            2            0         0       0      0        0         -         -         -         -
capture: packets=5 tcp=5 flows=1 evicted=0
";
    assert_eq!(rendered(PassiveFormat::Text), expected);
}

#[test]
fn csv_rows_have_a_cell_for_each_column() {
    let text = rendered(PassiveFormat::Csv);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    let cell = |row: usize, column: &str| {
        rows[row][rows[0].iter().position(|name| *name == column).unwrap()]
    };
    assert_eq!(
        (cell(1, "towards"), cell(2, "towards")),
        ("server", "client")
    );
    assert_eq!(
        (cell(1, "handshake_ns"), cell(1, "p50_ns")),
        ("20500000", "20250000")
    );
    assert_eq!((cell(2, "count"), cell(2, "syn_ack")), ("", "1"));
}

#[test]
fn json_lines_are_a_flow_and_the_capture() {
    let text = rendered(PassiveFormat::JsonLines);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    let schema = "{\"schema\":\"subsegment-tcp-speeds/passive/1\",";
    assert!(
        lines[0].starts_with(&format!("{schema}\"flow\":{{\"client\":")),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with(&format!("{schema}\"capture\":{{\"packets\":5")),
        "{}",
        lines[1]
    );
}

/// Groups as the edge fills them.
struct Filled(Groups);

impl Observer for Filled {
    fn segment(
        &mut self,
        _now: crate::time::WallTime,
        flow: &Flow,
        sender: Side,
        _segment: &TcpSegment<'_>,
        findings: &Findings,
    ) {
        self.0.segment(flow, sender, findings);
    }

    fn ended(&mut self, _flow: BoxedFlow) {}
}

fn metrics(by: GroupBy, max: usize, text: &str) -> String {
    let mut filled = Filled(Groups::new(by, max));
    let mut analyzer = Analyzer::new(LIMITS);
    for segment in script(text) {
        hand(&mut analyzer, &segment, &mut filled);
    }
    prometheus(&Metrics {
        groups: &filled.0,
        tally: analyzer.tally(),
        flows: analyzer.flows_held(),
        kernel_dropped: None,
        header_delays: &HeaderDelays::default(),
    })
}

#[test]
fn metrics_are_cumulative_histograms_in_seconds() {
    let text = metrics(GroupBy::Remote, 10, EXCHANGE);
    let server = "remote=\"10.0.1.2\",towards=\"server\"";
    for line in [
        "# TYPE subsegment_passive_round_trip_seconds histogram".to_owned(),
        format!("subsegment_passive_round_trip_seconds_bucket{{{server},le=\"0.01\"}} 0"),
        format!("subsegment_passive_round_trip_seconds_bucket{{{server},le=\"0.025\"}} 1"),
        format!("subsegment_passive_round_trip_seconds_bucket{{{server},le=\"+Inf\"}} 1"),
        format!("subsegment_passive_round_trip_seconds_sum{{{server}}} 0.02025"),
        format!("subsegment_passive_handshake_seconds_count{{{server}}} 1"),
        format!("subsegment_passive_segments_total{{{server}}} 3"),
        "subsegment_passive_packets_total 6".to_owned(),
        "subsegment_passive_skipped_packets_total{reason=\"not_ip\"} 0".to_owned(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
}

#[test]
fn groups_are_bounded_and_the_rest_is_other() {
    let text: String = (1..=50)
        .map(|port| format!("{port} c S seq=1 port={port}\n"))
        .collect();
    let series = |by, max| {
        let text = metrics(by, max, &text);
        let prefix = "subsegment_passive_segments_total{";
        let lines = text
            .lines()
            .filter_map(|line| Some(line.strip_prefix(prefix)?.to_owned()));
        lines.collect::<Vec<String>>()
    };
    let by_flow = series(GroupBy::Flow, 3);
    assert_eq!(by_flow.len(), 4);
    assert_eq!(by_flow[0], "flow=\"other\",towards=\"server\"} 47");
    assert_eq!(
        by_flow[1],
        "flow=\"10.0.0.1:1-10.0.1.2:80\",towards=\"server\"} 1"
    );
    assert_eq!(
        series(GroupBy::Subnet, 3),
        ["subnet=\"10.0.1.0/24\",towards=\"server\"} 50"]
    );
    assert_eq!(series(GroupBy::None, 3), ["towards=\"server\"} 50"]);
}
