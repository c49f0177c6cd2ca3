//! Captures of connections with one right answer each. The client 10.9.0.1 is 1 or 2 ms from the
//! capture point, the server 10.9.0.2 10 ms.

use super::build::*;
use crate::passive::*;

macro_rules! capture {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name, ".pcap"))
    };
}

const ALL: [&[u8]; 12] = [
    capture!("fin-backoff"),
    capture!("gaps-of-two-laps"),
    capture!("http-missed"),
    capture!("http-reordered"),
    capture!("http-unlock"),
    capture!("ip-fragments"),
    capture!("midstream-nots"),
    capture!("rtsp-options"),
    capture!("synack-before-syn"),
    capture!("synack-missed"),
    capture!("synack-repeated"),
    capture!("synack-ts00"),
];

/// Reads a capture that has one connection.
fn only(capture: &[u8]) -> (Observed, Flow) {
    let mut observed = Observed::default();
    let (_, fault) = read(capture, 1 << 16, LIMITS, &mut observed);
    assert_eq!(fault, None);
    assert_eq!(observed.flows.len(), 1, "{:#?}", observed.flows);
    let flow = observed.flows[0].as_ref().clone();
    assert_eq!(
        flow.ends.map(|end| end.to_string()),
        ["10.9.0.1:40000", "10.9.0.2:80"]
    );
    (observed, flow)
}

/// To the server and to the client, in milliseconds.
fn handshake(flow: &Flow) -> [Option<f64>; 2] {
    [flow.syn_to_synack, flow.synack_to_ack].map(|span| span.map(|span| span.as_millis_f64()))
}

#[test]
fn a_fin_that_is_repeated_for_a_minute_belongs_to_its_connection() {
    let (_, flow) = only(capture!("fin-backoff"));
    assert_eq!(flow.of(Side::Client).fin.count, 9);
    assert_eq!(flow.ended(), Ended::Fin);
}

#[test]
fn sequence_numbers_of_an_earlier_lap_are_no_repeats() {
    let (_, flow) = only(capture!("gaps-of-two-laps"));
    assert_eq!(flow.of(Side::Server).rare().retransmitted_bytes, 0);
    assert_eq!(flow.of(Side::Server).payload_bytes, 1000);
}

#[test]
fn a_segment_in_two_ip_fragments_is_measured_from_its_last_one() {
    let (observed, flow) = only(capture!("ip-fragments"));
    assert_eq!(flow.of(Side::Client).payload_bytes, 2000);
    assert_eq!(observed.trips(Side::Client), [9.999]);
}

#[test]
fn where_the_capture_begins_midstream_the_first_acknowledgment_counts() {
    let (observed, _) = only(capture!("midstream-nots"));
    assert_eq!(observed.trips(Side::Client), [10.0]);
    assert_eq!(observed.trips(Side::Server), [2.0]);
}

#[test]
fn a_syn_that_stands_behind_its_syn_ack_is_of_the_same_connection() {
    let (observed, flow) = only(capture!("synack-before-syn"));
    assert_eq!(handshake(&flow), [None, Some(2.0)]);
    assert_eq!(flow.setup(), None);
    assert!(flow.begins_with_syn());
    assert_eq!(observed.trips(Side::Client), [10.0, 10.0]);
    assert_eq!(observed.trips(Side::Server), [2.0, 2.0]);
}

#[test]
fn without_its_syn_ack_a_handshake_is_unknown() {
    let (observed, flow) = only(capture!("synack-missed"));
    assert_eq!(handshake(&flow), [None, None]);
    assert_eq!(observed.trips(Side::Client), [10.0]);
}

#[test]
fn an_empty_echo_answers_the_only_syn() {
    let (_, flow) = only(capture!("synack-ts00"));
    assert_eq!(handshake(&flow), [Some(10.0), Some(2.0)]);
}

#[test]
fn a_repeated_syn_ack_is_no_keep_alive() {
    let (_, flow) = only(capture!("synack-repeated"));
    assert_eq!(flow.of(Side::Server).rare().keep_alives, 0);
    assert_eq!(handshake(&flow), [Some(10.0), Some(2.0)]);
}

#[test]
fn cut_at_every_length_each_capture_is_one_json_value() {
    for capture in ALL {
        for length in 0..capture.len() {
            valid_json(&capture[..length]);
        }
    }
}
/// Method, status and milliseconds to the first byte of each exchange.
type Seen = (Option<String>, Option<u16>, Option<f64>);

fn exchanges(capture: &[u8]) -> Vec<Seen> {
    let mut observed = Observed::default();
    let (_, fault) = read(capture, 1 << 16, LIMITS, &mut observed);
    assert_eq!((fault, observed.flows.len()), (None, 1));
    let http = observed.flows[0].http.iter();
    http.flat_map(|http| &http.exchanges)
        .map(|of| {
            let first_byte = of.time_to_first_byte();
            let first_byte = first_byte.map(|span| span.as_millis_f64());
            (of.method().map(str::to_owned), of.status, first_byte)
        })
        .collect()
}

fn seen(method: &str, status: u16, ms: f64) -> Seen {
    (Some(method.to_owned()), Some(status), Some(ms))
}

#[test]
fn a_reordered_response_shifts_no_other() {
    assert_eq!(
        exchanges(capture!("http-reordered")),
        [
            seen("GET", 200, 20.0),
            seen("GET", 404, 20.0),
            seen("GET", 200, 20.0)
        ]
    );
}

#[test]
fn a_missed_response_leaves_its_request_without_one() {
    let missed = (Some("GET".to_owned()), None, None);
    assert_eq!(
        exchanges(capture!("http-missed")),
        [missed, seen("GET", 404, 20.0), seen("GET", 200, 20.0)]
    );
}

#[test]
fn any_token_is_a_method() {
    assert_eq!(
        exchanges(capture!("http-unlock")),
        [seen("LOCK", 200, 20.0), seen("UNLOCK", 204, 30.0)]
    );
}

#[test]
fn rtsp_is_no_http() {
    assert_eq!(exchanges(capture!("rtsp-options")), []);
}

#[test]
fn sip_icap_and_http_2_are_no_http_even_with_a_message_inside() {
    for (request, response) in [
        ("OPTIONS sip:a@b SIP/2.0~~", "SIP/2.0 200 OK~~"),
        ("REQMOD icap://a/x ICAP/1.0~~", "ICAP/1.0 200 OK~~"),
        ("PRI * HTTP/2.0~~SM~~", "x"),
        ("EHLO /x", "250 a"),
    ] {
        let observed = play(&format!(
            "0 c S seq=0
             10 s SA seq=0 ack=1
             11 c A ack=1
             12 c A ack=1 text={request}
             13 c A ack=1 text=GET /inner HTTP/1.1~~
             30 s A text={response}
             31 s A text=HTTP/1.1 200 OK~Content-Length: 0~~"
        ));
        assert!(observed.flows[0].http.is_none(), "{request}");
    }
}

#[test]
fn an_empty_line_and_a_syn_with_data_begin_requests_as_well() {
    let observed = play(
        "0  c S  seq=99 ack=0 text=GET /a HTTP/1.1~~
         30 s SA seq=500 ack=119 text=
         31 c A  seq=119 ack=501
         40 s A  seq=501 ack=119 text=HTTP/1.1 200 OK~Content-Length: 0~~
         50 c A  seq=119 ack=539 text=~
         60 c A  seq=121 ack=539 text=~M-SEARCH * HTTP/1.1~~
         75 s A  seq=539 ack=144 text=HTTP/1.1 302 No~Content-Length: 0~~",
    );
    let exchanges = &observed.flows[0].http.as_ref().unwrap().exchanges;
    let found = exchanges.iter().map(|of| {
        let first_byte = of.time_to_first_byte().map(|span| span.as_millis_f64());
        (of.method(), of.status, first_byte)
    });
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            (Some("GET"), Some(200), Some(40.0)),
            (Some("M-SEARCH"), Some(302), Some(15.0))
        ]
    );
}

/// An analysis with so many connections, each of which lacks the beginning of its request.
#[test]
fn what_waits_behind_gaps_is_bounded() {
    let mut analyzer = Analyzer::new(LIMITS);
    let mut observed = Observed::default();
    let mut most = 0;
    for port in 1..=900_u16 {
        let text = format!("0 c S seq=0 port={port}\n10 s SA seq=0 ack=1 port={port}");
        for segment in script(&text) {
            hand(&mut analyzer, &segment, &mut observed);
        }
        for at in 0..40 {
            let seq = 2000 + at * 1400;
            let text = format!("20 c A seq={seq} ack=1 len=1400 port={port}");
            hand(&mut analyzer, &script(&text)[0], &mut observed);
            most = most.max(analyzer.held());
            assert!(analyzer.held() <= 33 << 20, "{}", analyzer.held());
        }
    }
    assert!(most > 30 << 20, "{most}");
    analyzer.finish(&mut observed);
    assert_eq!(analyzer.held(), 0);
}
