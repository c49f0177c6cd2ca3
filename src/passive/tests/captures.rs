//! Small captures of situations that people met, each with its right values.

use super::build::*;
use crate::passive::*;

/// Method, status and milliseconds to the first byte of each exchange.
type Seen = (Option<String>, Option<u16>, Option<f64>);

fn exchanges(capture: &[u8]) -> Vec<Seen> {
    let mut told = Told::default();
    let (_, fault) = read(capture, 1 << 16, LIMITS, &mut told);
    assert_eq!((fault, told.flows.len()), (None, 1));
    let http = told.flows[0].http.iter();
    http.flat_map(|http| &http.exchanges)
        .map(|of| {
            let first_byte = of.time_to_first_byte();
            let first_byte = first_byte.map(|span| span.as_millis_f64());
            (
                of.method.as_deref().map(str::to_owned),
                of.status,
                first_byte,
            )
        })
        .collect()
}

fn seen(method: &str, status: u16, ms: f64) -> Seen {
    (Some(method.to_owned()), Some(status), Some(ms))
}

#[test]
fn a_reordered_response_shifts_no_other() {
    assert_eq!(
        exchanges(include_bytes!("captures/http-reordered.pcap")),
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
        exchanges(include_bytes!("captures/http-missed.pcap")),
        [missed, seen("GET", 404, 20.0), seen("GET", 200, 20.0)]
    );
}

#[test]
fn any_token_is_a_method() {
    assert_eq!(
        exchanges(include_bytes!("captures/http-unlock.pcap")),
        [seen("LOCK", 200, 20.0), seen("UNLOCK", 204, 30.0)]
    );
}

#[test]
fn rtsp_is_no_http() {
    assert_eq!(exchanges(include_bytes!("captures/rtsp-options.pcap")), []);
}

#[test]
fn sip_icap_and_http_2_are_no_http_even_with_a_message_inside() {
    for (request, response) in [
        ("OPTIONS sip:a@b SIP/2.0~~", "SIP/2.0 200 OK~~"),
        ("REQMOD icap://a/x ICAP/1.0~~", "ICAP/1.0 200 OK~~"),
        ("PRI * HTTP/2.0~~SM~~", "x"),
        ("EHLO /x", "250 a"),
    ] {
        let told = play(&format!(
            "0 c S seq=0
             10 s SA seq=0 ack=1
             11 c A ack=1
             12 c A ack=1 text={request}
             13 c A ack=1 text=GET /inner HTTP/1.1~~
             30 s A text={response}
             31 s A text=HTTP/1.1 200 OK~Content-Length: 0~~"
        ));
        assert!(told.flows[0].http.is_none(), "{request}");
    }
}

#[test]
fn an_empty_line_and_a_syn_with_data_begin_requests_as_well() {
    let told = play(
        "0  c S  seq=99 ack=0 text=GET /a HTTP/1.1~~
         30 s SA seq=500 ack=119 text=
         31 c A  seq=119 ack=501
         40 s A  seq=501 ack=119 text=HTTP/1.1 200 OK~Content-Length: 0~~
         50 c A  seq=119 ack=539 text=~
         60 c A  seq=121 ack=539 text=~M-SEARCH * HTTP/1.1~~
         75 s A  seq=539 ack=144 text=HTTP/1.1 302 No~Content-Length: 0~~",
    );
    let exchanges = &told.flows[0].http.as_ref().unwrap().exchanges;
    let found = exchanges.iter().map(|of| {
        let first_byte = of.time_to_first_byte().map(|span| span.as_millis_f64());
        (of.method.as_deref(), of.status, first_byte)
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
    let mut told = Told::default();
    let mut most = 0;
    for port in 1..=900_u16 {
        let text = format!("0 c S seq=0 port={port}\n10 s SA seq=0 ack=1 port={port}");
        for segment in script(&text) {
            hand(&mut analyzer, &segment, &mut told);
        }
        for at in 0..40 {
            let seq = 2000 + at * 1400;
            let text = format!("20 c A seq={seq} ack=1 len=1400 port={port}");
            hand(&mut analyzer, &script(&text)[0], &mut told);
            most = most.max(analyzer.held());
            assert!(analyzer.held() <= 33 << 20, "{}", analyzer.held());
        }
    }
    assert!(most > 30 << 20, "{most}");
    analyzer.finish(&mut told);
    assert_eq!(analyzer.held(), 0);
}
