//! Captures of connections with one right answer each: 10.9.0.1 is the client, 10.9.0.2 the server,
//! 10 ms from the capture point, which is 1 or 2 ms from the client.

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
fn only(capture: &[u8]) -> (Told, Flow) {
    let mut told = Told::default();
    let (_, fault) = read(capture, 1 << 16, LIMITS, &mut told);
    assert_eq!(fault, None);
    assert_eq!(told.flows.len(), 1, "{:#?}", told.flows);
    let flow = told.flows[0].as_ref().clone();
    assert_eq!(
        flow.ends.map(|end| end.to_string()),
        ["10.9.0.1:40000", "10.9.0.2:80"]
    );
    (told, flow)
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
    assert_eq!(flow.of(Side::Server).retransmitted_bytes, 0);
    assert_eq!(flow.of(Side::Server).payload_bytes, 1000);
}

#[test]
fn a_segment_in_two_ip_fragments_is_measured_from_its_last_one() {
    let (told, flow) = only(capture!("ip-fragments"));
    assert_eq!(flow.of(Side::Client).payload_bytes, 2000);
    assert_eq!(told.trips(Side::Client), [9.999]);
}

#[test]
fn where_the_capture_begins_midstream_the_first_acknowledgment_counts() {
    let (told, _) = only(capture!("midstream-nots"));
    assert_eq!(told.trips(Side::Client), [10.0]);
    assert_eq!(told.trips(Side::Server), [2.0]);
}

#[test]
fn a_syn_that_stands_behind_its_syn_ack_is_of_the_same_connection() {
    let (told, flow) = only(capture!("synack-before-syn"));
    assert_eq!(handshake(&flow), [None, Some(2.0)]);
    assert_eq!(flow.setup(), None);
    assert!(flow.begins_with_syn());
    assert_eq!(told.trips(Side::Client), [10.0, 10.0]);
    assert_eq!(told.trips(Side::Server), [2.0, 2.0]);
}

#[test]
fn without_its_syn_ack_a_handshake_is_unknown() {
    let (told, flow) = only(capture!("synack-missed"));
    assert_eq!(handshake(&flow), [None, None]);
    assert_eq!(told.trips(Side::Client), [10.0]);
}

#[test]
fn an_empty_echo_answers_the_only_syn() {
    let (_, flow) = only(capture!("synack-ts00"));
    assert_eq!(handshake(&flow), [Some(10.0), Some(2.0)]);
}

#[test]
fn a_repeated_syn_ack_is_no_keep_alive() {
    let (_, flow) = only(capture!("synack-repeated"));
    assert_eq!(flow.of(Side::Server).keep_alives, 0);
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
