//! Damaged captures: no panic, no hang, bounded memory; what precedes the damage is told.

use super::build::*;
use crate::passive::*;
use crate::report::passive::{Format, Record};

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
    let mut told = Told::default();
    let (tally, _) = read(capture, chunk, LIMITS, &mut told);
    // Each packet has at least its header in the file, so a reader that makes no progress is found here.
    assert!(tally.packets <= capture.len() as u64 / 16);
    assert!(told.flows.len() as u64 == tally.flows && tally.flows <= tally.packets);
    for flow in told.flows.iter().filter(|_| rendered) {
        let record = Record {
            flow,
            peer: None,
            one_way: None,
            at: Side::Client,
        };
        let text = Format::Json.flow(&record, true);
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
fn every_truncation_tells_what_precedes_it() {
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
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut capture = whole.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(capture.len() as u64) as usize;
                match random.below(6) {
                    0 => capture[at] ^= 1 << random.below(8),
                    1 => capture[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
                    2 => capture.truncate(at.max(1)),
                    3 => {
                        let length = random.below(64) as usize;
                        let end = (at + length).min(capture.len());
                        capture.drain(at..end);
                        if capture.is_empty() {
                            capture.push(0);
                        }
                    }
                    4 => {
                        let end = (at + random.below(64) as usize).min(capture.len());
                        let again = capture[at..end].to_vec();
                        capture.splice(at..at, again);
                    }
                    _ => capture[at] = random.below(256) as u8,
                }
            }
            let chunk = if seed % 16 == 0 { 37 } else { 1 << 14 };
            let outcome = std::panic::catch_unwind(|| survive(&capture, chunk, seed % 8 == 0));
            assert!(outcome.is_ok(), "format {kind}, seed {seed}");
        }
    }
}

/// Makes the capture that scripts/bench-passive reads: see there. It is a test because only tests can build packets.
#[test]
#[ignore = "makes a capture of 1 000 000 packets for scripts/bench-passive"]
fn makes_the_capture_for_the_bench() {
    use std::io::Write;
    let path = std::env::var_os("PASSIVE_BENCH_CAPTURE").expect("PASSIVE_BENCH_CAPTURE is a path");
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let packets = number("PASSIVE_BENCH_PACKETS", 1_000_000);
    let at_once = number("PASSIVE_BENCH_FLOWS", 5_000);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    file.write_all(&pcap(&[], false, true)).unwrap();
    let mut random = Random(42);
    // Of each open connection: how far it is, its number, and the latest TSvals of its ends.
    let mut open: Vec<(u32, u64, [u32; 2])> = Vec::new();
    let mut begun = 0_u64;
    let mut written = 0;
    let mut micros = 0;
    while written < packets {
        micros += 1 + random.below(20);
        if (open.len() as u64) < at_once {
            open.push((0, begun, [0; 2]));
            begun += 1;
        }
        let at = random.below(open.len() as u64) as usize;
        let (step, id, ts_vals) = open[at];
        // SYN, SYN-ACK, ACK; then 16 rounds of request, answer, ACK; then FIN, FIN, ACK.
        let round = step.saturating_sub(3) / 3;
        let (seq, ack) = (1001 + round * 100, 5001 + round * 1000);
        let ms = (micros / 1000) as u32;
        let (flags, from_client, seq, ack, length) = match step {
            0 => (SYN, true, 1000, 0, 0),
            1 => (SYN | ACK, false, 5000, 1001, 0),
            2 => (ACK, true, 1001, 5001, 0),
            51 => (FIN | ACK, true, seq, ack, 0),
            52 => (FIN | ACK, false, ack, seq + 1, 0),
            53 => (ACK, true, seq + 1, ack + 1, 0),
            _ => match step % 3 {
                0 => (ACK, true, seq, ack, 100),
                1 => (ACK, false, ack, seq + 100, 1000),
                _ => (ACK, true, seq + 100, ack + 1000, 0),
            },
        };
        let segment = Built {
            time: crate::time::WallTime(EPOCH + micros * 1000),
            from_client,
            v6: id % 4 == 3,
            ports: (1024 + (id % 60_000) as u16, 443),
            flags,
            seq,
            ack,
            window: 500,
            timestamps: Some((ms, ts_vals[usize::from(from_client)])),
            payload: vec![0x17; length],
        };
        let mut frame = segment.frame();
        // Eight bits of the client's address besides, so that ports are not used again at once.
        if !segment.v6 {
            frame[if from_client { 28 } else { 32 }] = (id / 60_000) as u8;
        }
        let original = frame.len() as u32;
        frame.truncate(128); // As tcpdump -s 128 keeps it.
        let time = segment.time.0;
        for word in [
            (time / 1_000_000_000) as u32,
            (time % 1_000_000_000) as u32,
            frame.len() as u32,
            original,
        ] {
            file.write_all(&word.to_le_bytes()).unwrap();
        }
        file.write_all(&frame).unwrap();
        written += 1;
        if step == 53 {
            open.swap_remove(at);
        } else {
            open[at].0 += 1;
            open[at].2[usize::from(!from_client)] = ms;
        }
    }
    file.flush().unwrap();
}

#[test]
fn an_empty_file_and_a_compressed_one_are_called_so() {
    let fault = |capture: &[u8]| {
        let (_, fault) = read(capture, 64, LIMITS, &mut Told::default());
        fault.expect("a fault").kind.to_string()
    };
    assert_eq!(fault(b""), "the capture is empty");
    let gzip = fault(b"\x1f\x8b\x08\x08nothing of a capture");
    assert!(gzip.contains("zcat"), "{gzip}");
    assert!(fault(b"#!/bin/bash, by mistake").contains("not a pcap or pcapng"));
}
