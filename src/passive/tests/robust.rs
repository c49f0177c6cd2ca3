//! Damaged captures: no panic, no hang, bounded memory; what precedes the damage is observed.

use super::build::*;
use crate::passive::*;
use crate::report::passive::{FlowRecord, PassiveFormat};

const CONNECTION: &str = "
    0     c S  seq=100 ts=1,0
    20    s SA seq=500 ack=101 ts=7,1
    20.5  c A  seq=101 ack=501 ts=2,7
    21    c A  seq=101 ack=501 ts=3,7 text=GET / HTTP/1.1~~
    41    s A  seq=501 ack=119 ts=8,3 text=HTTP/1.1 200 OK~Content-Length: 9~~123456789
    41.5  c A  seq=119 ack=548 ts=4,8
    50    c A  seq=119 ack=548 len=30
    80    s A  seq=548 ack=149
    90    c FA seq=149 ack=548 ts=9,8
    110   s FA seq=548 ack=150 ts=20,9
    110.5 c R  seq=150
";

/// Reads and renders; how many packets were read.
fn survive(capture: &[u8], chunk: usize, rendered: bool) -> u64 {
    let mut observed = Observed::default();
    let (tally, _) = read(capture, chunk, LIMITS, &mut observed);
    // Each packet has at least its header in the file, so a reader that makes no progress is found
    // here.
    assert!(tally.packets <= capture.len() as u64 / 16);
    assert!(observed.flows.len() as u64 == tally.flows && tally.flows <= tally.packets);
    for flow in observed.flows.iter().filter(|_| rendered) {
        let record = FlowRecord {
            flow,
            peer: None,
            one_way: None,
            at: Side::Client,
            verbose: true,
        };
        let mut text = String::new();
        PassiveFormat::Json.flow(&record, true, &mut text);
        assert!(text.len() < 20_000, "{} bytes", text.len());
    }
    tally.packets
}

fn captures() -> [Vec<u8>; 2] {
    let mut segments = script(CONNECTION);
    segments[7].v6 = true;
    [pcap(&segments, false, false), pcapng(&segments, true)]
}

#[test]
fn every_truncation_reports_what_precedes_it() {
    for whole in captures() {
        let mut before = 0;
        for length in 0..=whole.len() {
            let packets = survive(&whole[..length], 1 << 16, true);
            assert!(
                packets == before || packets == before + 1,
                "{packets} after {before}"
            );
            before = packets;
        }
        assert_eq!(before, 11);
    }
}

#[test]
fn a_hundred_thousand_mutations_of_each_format_do_no_harm() {
    for (kind, whole) in captures().into_iter().enumerate() {
        for seed in 1..=100_000_u64 {
            let mut random = Random::new(seed);
            let mut capture = whole.clone();
            random.damage(&mut capture);
            let chunk = if seed % 16 == 0 { 37 } else { 1 << 14 };
            let outcome = std::panic::catch_unwind(|| survive(&capture, chunk, seed % 8 == 0));
            assert!(outcome.is_ok(), "format {kind}, seed {seed}");
        }
    }
}

#[test]
fn captures_in_any_container_cut_at_every_length_are_one_json_value() {
    for (seed, capture) in super::variants::short_captures(6) {
        for length in (0..capture.len().min(1500)).filter(|length| length % 3 == seed % 3) {
            valid_json(&capture[..length]);
        }
    }
}
