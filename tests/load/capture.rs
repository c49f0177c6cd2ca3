//! A capture for scripts/bench-passive: connections that overlap, each with a handshake, sixteen
//! requests and answers, and an end.

#[path = "../../src/passive/tests/packets.rs"]
mod packets;
#[allow(dead_code)] // The tests' part of it: cases to damage.
#[path = "../util/random.rs"]
mod random;

use crate::Outcome;
use packets::{Built, Pcap};
use random::Random;
use std::io::{BufWriter, Write};
use subsegment_tcp_speeds::passive::{ACK, FIN, SYN};
use subsegment_tcp_speeds::time::WallTime;

/// When it begins: 2026-11-21T09:30:00Z.
const EPOCH: u64 = 1_795_253_400_000_000_000;

/// Bytes kept of each frame, as `tcpdump -s 128` does.
const SNAP: usize = 128;

/// A connection under way.
#[derive(Default)]
struct Open {
    id: usize,
    /// How many of its segments there are so far.
    step: u32,
    /// The latest TSval of the server and of the client.
    ts_vals: [u32; 2],
}

/// Writes `packets` packets to stdout, of `at_once` connections at a time.
pub(crate) fn capture(packets: usize, at_once: usize) -> Outcome {
    let file = Pcap {
        big: false,
        nanos: true,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    out.write_all(&file.header())?;
    let mut random = Random::new(42);
    let mut open: Vec<Open> = Vec::new();
    let mut begun = 0;
    let mut micros = 0;
    for _ in 0..packets {
        micros += 1 + random.below(20) as u64;
        if open.len() < at_once.max(1) {
            let id = begun;
            begun += 1;
            open.push(Open {
                id,
                ..Open::default()
            });
        }
        let at = random.below(open.len());
        let connection = &mut open[at];
        let segment = connection.segment(micros);
        let mut frame = segment.frame();
        // Eight bits of the client's address besides, so that ports are not used again at once.
        if !segment.v6 {
            frame[if segment.from_client { 28 } else { 32 }] = (connection.id / 60_000) as u8;
        }
        let kept = &frame[..frame.len().min(SNAP)];
        out.write_all(&file.packet(segment.time, frame.len(), kept))?;
        connection.step += 1;
        if connection.step > LAST {
            open.swap_remove(at);
        }
    }
    Ok(out.flush()?)
}

/// The step that ends a connection.
const LAST: u32 = 53;

impl Open {
    /// SYN, SYN-ACK, ACK; then 16 rounds of request, answer, ACK; then FIN, FIN, ACK.
    fn segment(&mut self, micros: u64) -> Built {
        let round = self.step.saturating_sub(3) / 3;
        let (seq, ack) = (1001 + round * 100, 5001 + round * 1000);
        let (flags, from_client, seq, ack, length) = match self.step {
            0 => (SYN, true, 1000, 0, 0),
            1 => (SYN | ACK, false, 5000, 1001, 0),
            2 => (ACK, true, 1001, 5001, 0),
            51 => (FIN | ACK, true, seq, ack, 0),
            52 => (FIN | ACK, false, ack, seq + 1, 0),
            LAST => (ACK, true, seq + 1, ack + 1, 0),
            _ => match self.step % 3 {
                0 => (ACK, true, seq, ack, 100),
                1 => (ACK, false, ack, seq + 100, 1000),
                _ => (ACK, true, seq + 100, ack + 1000, 0),
            },
        };
        let ms = (micros / 1000) as u32;
        let ts_ecr = self.ts_vals[usize::from(!from_client)];
        self.ts_vals[usize::from(from_client)] = ms;
        Built {
            time: WallTime(EPOCH + micros * 1000),
            from_client,
            v6: self.id % 4 == 3,
            ports: (1024 + (self.id % 60_000) as u16, 443),
            flags,
            seq,
            ack,
            window: 500,
            timestamps: Some((ms, ts_ecr)),
            payload: vec![0x17; length],
        }
    }
}
