//! Captures made by hand: scripts of segments in, packets and capture files out.

use super::super::*;
use super::packets::Pcap;
pub(super) use super::packets::{Built, Bytes};
use crate::measure::HeaderDelays;
pub(super) use crate::random::Random;
use crate::report::json::read::parse as parse_json;
use crate::report::passive::{Capture, FlowRecord, PassiveFormat};
use crate::time::WallTime;

/// When the scripts begin: 2026-11-21T09:30:00Z.
pub(super) const EPOCH: u64 = 1_795_253_400_000_000_000;

/// `ms` milliseconds into a script.
pub(super) fn at(ms: f64) -> WallTime {
    WallTime(EPOCH + (ms * 1e6).round() as u64)
}

/// A script, a segment per line: milliseconds, `c` or `s` for the sender, flags of `SAFR` (or `-`),
/// then `seq= ack= len= ts=VAL,ECR win= port= text=`. The last one is the payload, with `~` for a
/// line end. Without `seq=` or `ack=` a segment continues what precedes it.
pub(super) fn script(text: &str) -> Vec<Built> {
    let mut ends = [0_u32; 2];
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let built = lines.map(|line| {
        let mut segment = built(line);
        let (own, other) = (
            usize::from(!segment.from_client),
            usize::from(segment.from_client),
        );
        if !line.contains("seq=") {
            segment.seq = ends[own];
        }
        if !line.contains("ack=") {
            segment.ack = ends[other];
        }
        let taken = u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
        ends[own] = segment
            .seq
            .wrapping_add(segment.payload.len() as u32 + taken);
        segment
    });
    built.collect()
}

fn built(line: &str) -> Built {
    let (head, text) = line.split_once(" text=").unwrap_or((line, ""));
    let mut words = head.split_whitespace();
    let time = at(words.next().unwrap().parse().unwrap());
    let from_client = words.next().unwrap() == "c";
    let mut segment = Built {
        time,
        from_client,
        v6: false,
        ports: (40_000, 80),
        flags: 0,
        seq: 0,
        ack: 0,
        window: 1000,
        timestamps: None,
        payload: text.replace('~', "\r\n").into_bytes(),
    };
    for flag in words.next().unwrap().chars() {
        segment.flags |= match flag {
            'S' => SYN,
            'A' => ACK,
            'F' => FIN,
            'R' => RST,
            _ => 0,
        };
    }
    for word in words {
        let (key, value) = word.split_once('=').unwrap();
        let number = || value.parse::<u32>().unwrap();
        match key {
            "seq" => segment.seq = number(),
            "ack" => segment.ack = number(),
            "len" => segment.payload = vec![b'x'; number() as usize],
            "tls" => segment.payload = super::tls::records(value),
            "cut" => segment.payload.truncate(number() as usize),
            "win" => segment.window = number() as u16,
            "port" => segment.ports.0 = number() as u16,
            "ts" => {
                let (ts_val, ts_ecr) = value.split_once(',').unwrap();
                segment.timestamps = Some((ts_val.parse().unwrap(), ts_ecr.parse().unwrap()));
            }
            _ => panic!("unknown word {word}"),
        }
    }
    segment
}

impl Bytes {
    /// A pcapng block of this type.
    pub(super) fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = self.u32(padded as u32 + 12);
        let mut out = [self.u32(kind), length].concat();
        out.extend(body);
        out.resize(8 + padded, 0);
        out.extend(length);
        out
    }

    pub(super) fn section(self) -> Vec<u8> {
        let version = [self.u16(1), self.u16(0)].concat();
        let body = [&self.u32(0x1a2b_3c4d)[..], &version[..], &[0xff; 8][..]].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    /// `options` as code and value.
    pub(super) fn interface(self, link: u16, snap: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [self.u16(link), [0; 2]].concat();
        body.extend(self.u32(snap));
        for (code, value) in options {
            body.extend(self.u16(*code));
            body.extend(self.u16(value.len() as u16));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    pub(super) fn enhanced(
        self,
        interface: u32,
        ticks: u64,
        original: u32,
        data: &[u8],
    ) -> Vec<u8> {
        let mut body = self.u32(interface).to_vec();
        for word in [
            (ticks >> 32) as u32,
            ticks as u32,
            data.len() as u32,
            original,
        ] {
            body.extend(self.u32(word));
        }
        body.extend(data);
        self.block(6, &body)
    }
}

/// A pcap file of frames; `big` and `nanos` choose among its four kinds.
pub(super) fn pcap(segments: &[Built], big: bool, nanos: bool) -> Vec<u8> {
    let file = Pcap { big, nanos };
    let mut out = file.header();
    for segment in segments {
        let frame = segment.frame();
        out.extend(file.packet(segment.time, frame.len(), &frame));
    }
    out
}

/// A pcapng file of frames, with two interfaces of different clocks and a block of no interest.
pub(super) fn pcapng(segments: &[Built], big: bool) -> Vec<u8> {
    let bytes = Bytes { big };
    let mut out = bytes.section();
    out.extend(bytes.interface(1, 0, &[(9, &[9])]));
    out.extend(bytes.interface(101, 0, &[(2, b"lo")]));
    out.extend(bytes.block(5, &[0; 24]));
    for (at, segment) in segments.iter().enumerate() {
        let (ticks, data) = match at % 2 {
            0 => (segment.time.0, segment.frame()),
            _ => (segment.time.0 / 1000, segment.ip()),
        };
        out.extend(bytes.enhanced((at % 2) as u32, ticks, data.len() as u32, &data));
    }
    out
}

/// Everything an analysis observed.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub samples: Vec<Sample>,
    pub answers: Vec<ResponseSample>,
    pub flows: Vec<BoxedFlow>,
}

impl Observer for Observed {
    fn sample(&mut self, _flow: &Flow, sample: &Sample) {
        self.samples.push(*sample);
    }

    fn segment(&mut self, _: WallTime, _: &Flow, _: Side, _: &TcpSegment<'_>, found: &Findings) {
        self.answers.extend(found.answer);
    }

    fn ended(&mut self, flow: BoxedFlow) {
        self.flows.push(flow);
    }
}

impl Observed {
    /// Round trips of data in milliseconds, of what this end sent.
    pub(super) fn trips(&self, sender: Side) -> Vec<f64> {
        let of_data =
            |sample: &&Sample| sample.sender == sender && sample.basis != SampleBasis::Handshake;
        let samples = self.samples.iter().filter(of_data);
        samples
            .map(|sample| sample.round_trip.as_millis_f64())
            .collect()
    }
}

pub(super) const LIMITS: Limits = Limits {
    max_flows: 1000,
    interval_ns: Some(1_000_000_000),
};

/// Reads a capture in pieces of `chunk` bytes; counts and fault.
pub(super) fn read(
    capture: &[u8],
    chunk: usize,
    limits: Limits,
    observed: &mut Observed,
) -> (Tally, Option<Fault>) {
    let mut stream = Stream::new(chunk);
    let mut analyzer = Analyzer::new(limits);
    let mut rest = capture;
    let fault = loop {
        match stream.batch() {
            Ok(batch) if !batch.is_empty() => analyzer.packets(&batch, observed),
            Ok(_) if rest.is_empty() => break stream.end(),
            Ok(_) => {
                let space = stream.space();
                assert!(
                    !space.is_empty() && space.len() <= 4 * MAX_BLOCK,
                    "{}",
                    space.len()
                );
                let bytes = space.len().min(chunk).min(rest.len());
                space[..bytes].copy_from_slice(&rest[..bytes]);
                stream.filled(bytes);
                rest = &rest[bytes..];
            }
            Err(fault) => break Some(fault),
        }
    };
    analyzer.finish(observed);
    (analyzer.tally().clone(), fault)
}

/// Hands one segment to an analysis.
pub(super) fn hand(analyzer: &mut Analyzer, segment: &Built, observer: &mut impl Observer) {
    let data = segment.frame();
    let packet = Packet {
        time: Some(segment.time),
        link: LINK_ETHERNET,
        interface: 0,
        original: data.len() as u32,
        data: &data,
    };
    analyzer.packets(&[packet], observer);
}

/// Plays a script through an analysis.
pub(super) fn play(text: &str) -> Observed {
    play_with(&script(text), LIMITS)
}

pub(super) fn play_with(segments: &[Built], limits: Limits) -> Observed {
    let mut observed = Observed::default();
    let (_, fault) = read(&pcap(segments, false, true), 1 << 16, limits, &mut observed);
    assert_eq!(fault, None);
    observed
}

/// Reads a capture, perhaps a damaged one, and asserts that its JSON is one value.
pub(super) fn valid_json(capture: &[u8]) {
    let mut observed = Observed::default();
    let (tally, fault) = read(capture, 1 << 16, LIMITS, &mut observed);
    let fault = fault.map(|fault| fault.to_string());
    let mut text = PassiveFormat::Json.begin();
    for (at, flow) in observed.flows.iter().enumerate() {
        let record = FlowRecord {
            flow,
            peer: None,
            one_way: None,
            at: Side::Client,
            verbose: true,
        };
        PassiveFormat::Json.flow(&record, at == 0, &mut text);
    }
    text += &PassiveFormat::Json.end(&Capture {
        tally: &tally,
        fault: fault.as_deref(),
        kernel_dropped: None,
        header_delays: &HeaderDelays::default(),
    });
    if let Err(error) = parse_json(text.as_bytes()) {
        panic!("{error}: {text}");
    }
}
