//! Which pairs of segments are a round trip, and which are not.

use super::build::*;
use crate::passive::*;

/// RFC 7323 §4.1's own example, with its pause of a minute; the capture point is at A.
#[test]
fn a_pause_is_not_a_round_trip() {
    let observed = play(
        "0     c A len=10 seq=0   ack=0  ts=1,120
         20    s A        seq=0   ack=10 ts=127,1
         20.1  c A len=10 seq=10  ack=0  ts=5,127
         40.1  s A        seq=0   ack=20 ts=131,5
         60000 c A len=10 seq=20  ack=0  ts=65,131
         60020 s A        seq=0   ack=30 ts=191,65",
    );
    assert_eq!(observed.trips(Side::Client), [20.0, 20.0, 20.0]);
    assert_eq!(observed.trips(Side::Server), [0.0; 0]);
}

#[test]
fn an_idle_connection_with_a_slow_clock_measures_its_network_and_not_its_pauses() {
    // Ticks of 100 ms at both ends, a keystroke a second, the capture point at the client; each
    // answer is ACKed at once.
    let mut text = String::from(
        "0    c S  seq=0 ts=10,0
         20   s SA seq=0 ack=1 ts=900,10
         20.1 c A  seq=1 ack=1 ts=10,900\n",
    );
    for key in 0..10_u32 {
        let ms = f64::from(1000 + 1000 * key);
        let (ours, theirs) = (20 + 10 * key, 910 + 10 * key);
        let seq = 1 + key;
        text += &format!(
            "{ms}            c A seq={seq} ack={seq} len=1 ts={ours},{}
             {} s A seq={seq} ack={} len=1 ts={theirs},{ours}
             {} c A seq={} ack={} ts={ours},{theirs}\n",
            theirs - 10,
            ms + 20.0,
            seq + 1,
            ms + 20.1,
            seq + 1,
            seq + 1,
        );
    }
    let observed = play(&text);
    assert_eq!(observed.trips(Side::Client), [20.0; 10]);
    assert_eq!(observed.trips(Side::Server).len(), 10);
    assert!(observed
        .trips(Side::Server)
        .iter()
        .all(|ms| (ms - 0.1).abs() < 1e-6));
    assert_eq!(observed.flows[0].near(), Some(Side::Client));
}

#[test]
fn the_first_sighting_of_a_ts_val_counts_and_never_a_later_one() {
    // Two segments within one tick; the second is ACKed 30 ms after it passed, with the echo of the
    // first.
    let observed = play(
        "0  s A seq=0  ack=1 ts=9,4
         0  c A seq=1  ack=0 len=10 ts=5,9
         8  c A seq=11 ack=0 len=10 ts=5,9
         20 s A seq=0  ack=11 ts=10,5
         38 s A seq=0  ack=21 ts=11,5",
    );
    assert_eq!(observed.trips(Side::Client), [20.0]);
}

#[test]
fn a_pure_ack_is_no_sighting() {
    let observed = play(
        "0   s A seq=0  ack=1
         0   c A seq=1  ack=0 ts=5,9
         5   c A seq=1  ack=0 len=10 ts=5,9
         25  s A seq=0  ack=11 ts=10,5",
    );
    assert_eq!(observed.trips(Side::Client), [20.0]);
}

#[test]
fn an_echo_that_advances_nothing_is_no_round_trip_and_takes_nothing_away() {
    let observed = play(
        "0  s A seq=0 ack=1 ts=1,1
         0  c A seq=1 ack=0 len=10 ts=5,1
         10 s A seq=0 ack=1 len=10 ts=2,5
         20 s A seq=10 ack=11 ts=3,5",
    );
    assert_eq!(observed.trips(Side::Client), [20.0]);
}

#[test]
fn a_delayed_ack_measures_the_earliest_segment_it_answers() {
    let observed = play(
        "0  s A seq=0   ack=1 ts=1,1
         0  c A seq=1   ack=0 len=100 ts=5,1
         3  c A seq=101 ack=0 len=100 ts=6,1
         20 s A seq=0   ack=201 ts=2,5
         30 c A seq=201 ack=0 len=100 ts=9,2
         50 s A seq=0   ack=301 ts=3,9",
    );
    assert_eq!(observed.trips(Side::Client), [20.0, 20.0]);
}

#[test]
fn sequence_numbers_and_ts_vals_wrap_around() {
    let observed = play(
        "0  s A seq=0 ack=4294967290 ts=1,1
         0  c A seq=4294967290 ack=0 len=10 ts=4294967295,1
         20 s A seq=0 ack=4 ts=2,4294967295
         30 c A seq=4 ack=0 len=10 ts=0,2
         51 s A seq=0 ack=14 ts=3,0
         60 c A seq=14 ack=0 len=10 ts=1,3
         82 s A seq=0 ack=24 ts=4,1",
    );
    // TSval 0 is as good as any.
    assert_eq!(observed.trips(Side::Client), [20.0, 21.0, 22.0]);
    assert_eq!(observed.flows[0].of(Side::Client).payload_bytes, 30);
    assert_eq!(
        observed.flows[0]
            .of(Side::Client)
            .rare()
            .retransmitted_bytes,
        0
    );
}

#[test]
fn a_repeated_segment_is_measured_from_the_copy_that_was_answered() {
    let observed = play(
        "0   s A seq=0 ack=1 ts=1,1
         0   c A seq=1 ack=0 len=100 ts=5,1
         200 c A seq=1 ack=0 len=100 ts=205,1
         220 s A seq=0 ack=101 ts=2,205",
    );
    assert_eq!(observed.trips(Side::Client), [20.0]);
    assert_eq!(
        observed.flows[0]
            .of(Side::Client)
            .rare()
            .retransmitted_bytes,
        100
    );
}

#[test]
fn keep_alives_are_counted_and_measure_nothing() {
    for length in [0, 1] {
        let observed = play(&format!(
            "0     s A seq=0 ack=1 ts=1,1
             0     c A seq=1 ack=0 len=10 ts=5,1
             20    s A seq=0 ack=11 ts=2,5
             7000  c A seq=10 ack=0 len={length} ts=7005,2
             7020  s A seq=0 ack=11 ts=7002,5
             9000  c A seq=11 ack=0 len=10 ts=9005,7002
             9021  s A seq=0 ack=21 ts=9002,9005"
        ));
        assert_eq!(observed.trips(Side::Client), [20.0, 21.0]);
        let sent = observed.flows[0].of(Side::Client);
        assert_eq!(
            (sent.payload_bytes, sent.rare().retransmitted_bytes),
            (20, 0)
        );
        assert_eq!(sent.rare().keep_alives, 1);
    }
}

#[test]
fn timestamps_on_a_reset_are_ignored() {
    let observed = play(
        "0  s A  seq=0 ack=1 ts=1,1
         0  c A  seq=1 ack=0 len=10 ts=5,1
         20 s RA seq=0 ack=11 ts=0,5",
    );
    assert_eq!(observed.trips(Side::Client), [0.0; 0]);
    assert_eq!(observed.flows[0].ended(), Ended::Rst);
}

#[test]
fn the_handshake_is_kept_apart_and_a_lost_syn_is_known_by_its_timestamp() {
    let observed = play(
        "0      c S  seq=100 ts=1,0
         1000   c S  seq=100 ts=1001,0
         1020   s SA seq=500 ack=101 ts=7,1001
         1020.5 c A  seq=101 ack=501 ts=1021,7",
    );
    let flow = &observed.flows[0];
    assert_eq!(flow.syn_to_synack.map(|span| span.0), Some(20_000_000));
    assert_eq!(flow.synack_to_ack.map(|span| span.0), Some(500_000));
    assert_eq!(flow.of(Side::Client).syn().count, 2);
    assert_eq!(flow.of(Side::Client).syn().last(), Some(at(1000.0)));
    assert_eq!(flow.of(Side::Client).established.get(), Some(at(1020.0)));
    assert_eq!(flow.of(Side::Server).established.get(), Some(at(1020.5)));
    assert_eq!(flow.setup().map(|span| span.0), Some(20_500_000));
    assert!(Side::BOTH
        .iter()
        .all(|side| flow.of(*side).round_trip.summary().is_none()));
    assert_eq!(observed.samples.len(), 2);
}

#[test]
fn without_timestamps_a_repeated_syn_measures_nothing() {
    for (repeats, expected) in [("", Some(20_000_000)), ("10 c S seq=100\n", None)] {
        let observed = play(&format!(
            "0 c S seq=100\n{repeats}20 s SA seq=500 ack=101\n21 c A seq=101 ack=501"
        ));
        assert_eq!(observed.flows[0].syn_to_synack.map(|span| span.0), expected);
        assert!(!observed.flows[0].timestamps);
    }
}

#[test]
fn without_timestamps_karns_rule_leaves_out_what_was_repeated_and_what_waited_for_it() {
    let observed = play(
        "0   s A seq=0   ack=1
         0   c A seq=1   ack=0 len=100
         20  s A seq=0   ack=101
         30  c A seq=101 ack=0 len=100
         31  c A seq=201 ack=0 len=100
         51  s A seq=0   ack=101
         230 c A seq=101 ack=0 len=100
         250 s A seq=0   ack=301
         260 c A seq=301 ack=0 len=100
         283 s A seq=0   ack=401",
    );
    assert_eq!(observed.trips(Side::Client), [20.0, 23.0]);
    assert!(observed
        .samples
        .iter()
        .all(|sample| sample.basis == SampleBasis::Sequence));
    assert!(!observed.flows[0].timestamps);
}

#[test]
fn a_segment_before_segmentation_is_measured_by_the_first_answer_to_a_part_of_it() {
    let observed = play(
        "0    s A seq=0     ack=1 ts=1,1
         0    c A seq=1     ack=0 len=40000 ts=5,1
         20   s A seq=0     ack=2897 ts=2,5
         20.5 s A seq=0     ack=5793 ts=2,5
         21   s A seq=0     ack=40001 ts=3,5",
    );
    assert_eq!(observed.trips(Side::Client), [20.0]);
}

#[test]
fn reordered_segments_and_acks_fill_their_gap_and_repeat_nothing() {
    let observed = play(
        "0  s A seq=0   ack=1 ts=1,1
         0  c A seq=101 ack=0 len=100 ts=6,1
         1  c A seq=1   ack=0 len=100 ts=5,1
         2  c A seq=301 ack=0 len=100 ts=8,1
         3  c A seq=201 ack=0 len=100 ts=7,1
         3  c A seq=251 ack=0 len=100 ts=7,1
         22 s A seq=0   ack=401 ts=3,6
         22 s A seq=0   ack=201 ts=2,5",
    );
    let sent = observed.flows[0].of(Side::Client);
    // What precedes the first packet had not passed, and all else fills gaps but 100 bytes.
    assert_eq!(
        (sent.payload_bytes, sent.rare().retransmitted_bytes),
        (500, 100)
    );
    assert_eq!(observed.trips(Side::Client), [22.0]);
}

#[test]
fn a_capture_of_one_direction_measures_nothing_and_keeps_little() {
    let mut text = String::new();
    for at in 0..5000 {
        text += &format!("{at} c A seq={} ack=0 len=100 ts={},1\n", at * 100, at + 7);
    }
    let observed = play(&text);
    assert_eq!(observed.samples, []);
    let sent = observed.flows[0].of(Side::Client);
    assert_eq!(
        (sent.packets, sent.rare().unmatched_dropped),
        (5000, 5000 - 64)
    );
}

#[test]
fn unmatched_ts_vals_are_bounded_when_acks_stop() {
    let mut text = String::from("0 s A seq=0 ack=1 ts=1,1\n");
    for at in 0..5000 {
        text += &format!(
            "{at} c A seq={} ack=0 len=100 ts={},1\n",
            1 + at * 100,
            at + 7
        );
    }
    let observed = play(&text);
    assert_eq!(
        observed.flows[0].of(Side::Client).rare().unmatched_dropped,
        5000 - 2048
    );
}

#[test]
fn a_four_tuple_used_again_starts_anew() {
    let first = "0  c S  seq=100 ts=1,0
         20 s SA seq=500 ack=101 ts=7,1
         21 c A  seq=101 ack=501 ts=2,7
         22 c FA seq=101 ack=501 ts=3,7
         42 s FA seq=501 ack=102 ts=8,3
         43 c A  seq=102 ack=502 ts=4,8
         50 c S  seq=9000 ts=1,0
         71 s SA seq=6000 ack=9001 ts=2,1
         72 c A  seq=9001 ack=6001 ts=2,2
         73 c A  seq=9001 ack=6001 len=5 ts=3,2
         95 s A  seq=6001 ack=9006 ts=5,3";
    let observed = play(first);
    assert_eq!(observed.flows.len(), 2);
    assert_eq!(
        observed
            .flows
            .iter()
            .map(|flow| flow.ended())
            .collect::<Vec<_>>(),
        [Ended::Fin, Ended::Open]
    );
    assert_eq!(
        observed.flows[1].syn_to_synack.map(|span| span.0),
        Some(21_000_000)
    );
    // The FIN of the first and the data of the second.
    assert_eq!(observed.trips(Side::Client), [20.0, 22.0]);
}

#[test]
fn a_stray_ack_number_moves_the_window_without_measuring() {
    let observed = play(
        "0  s A seq=0 ack=1 ts=1,1
         0  c A seq=1 ack=0 len=10 ts=5,1
         10 s A seq=0 ack=2000000000 ts=2,5
         20 s A seq=0 ack=11 ts=3,5
         30 c A seq=11 ack=0 len=10 ts=6,3
         50 s A seq=0 ack=21 ts=4,6",
    );
    assert_eq!(observed.trips(Side::Client), [20.0]);
}

#[test]
fn after_weeks_of_silence_any_ts_val_is_new() {
    let weeks = 25.0 * 86_400.0 * 1000.0;
    let observed = play(&format!(
        "0  s A seq=0 ack=1 ts=1,1
         0  c A seq=1 ack=0 len=10 ts=3000000000,1
         20 s A seq=0 ack=11 ts=2,3000000000
         {weeks} c A seq=11 ack=0 len=10 ts=5,2
         {} s A seq=0 ack=21 ts=3,5",
        weeks + 20.0
    ));
    assert_eq!(observed.trips(Side::Client), [20.0, 20.0]);
}
