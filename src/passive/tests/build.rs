//! Captures made by hand: scripts of segments in, packets and capture files out.

use super::super::*;
use crate::time::WallTime;
use std::net::{Ipv4Addr, Ipv6Addr};

/// When the scripts begin: 2026-11-21T09:30:00Z.
pub(super) const EPOCH: u64 = 1_795_253_400_000_000_000;

/// `ms` milliseconds into a script.
pub(super) fn at(ms: f64) -> WallTime {
    WallTime(EPOCH + (ms * 1e6).round() as u64)
}

/// A segment to be built.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub time: WallTime,
    pub from_client: bool,
    pub v6: bool,
    pub ports: (u16, u16),
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub timestamps: Option<(u32, u32)>,
    pub payload: Vec<u8>,
}

/// A script, a segment per line: milliseconds, `c` or `s` for who sends, flags of `SAFR` (or `-`), then
/// `seq= ack= len= ts=VAL,ECR win= port= text=`; the last one is the payload, with `~` for a line end. Without `seq=` or
/// `ack=` a segment continues what precedes it.
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

impl Built {
    /// From the IP header on.
    pub(super) fn ip(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let mut out = Vec::new();
        if self.v6 {
            out.extend([0x60, 0, 0, 0]);
            out.extend((tcp.len() as u16).to_be_bytes());
            out.extend([6, 64]);
            let ends = [
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
                Ipv6Addr::LOCALHOST,
            ];
            for end in self.ordered(ends) {
                out.extend(end.octets());
            }
        } else {
            out.extend([0x45, 0]);
            out.extend((20 + tcp.len() as u16).to_be_bytes());
            out.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            for end in self.ordered([Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 1, 2)]) {
                out.extend(end.octets());
            }
        }
        out.extend(tcp);
        out
    }

    fn ordered<T>(&self, [client, server]: [T; 2]) -> [T; 2] {
        if self.from_client {
            [client, server]
        } else {
            [server, client]
        }
    }

    fn tcp(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for port in self.ordered([self.ports.0, self.ports.1]) {
            out.extend(port.to_be_bytes());
        }
        out.extend(self.seq.to_be_bytes());
        out.extend(self.ack.to_be_bytes());
        out.push(if self.timestamps.is_some() {
            0x80
        } else {
            0x50
        });
        out.push(self.flags);
        out.extend(self.window.to_be_bytes());
        out.extend([0; 4]);
        if let Some((ts_val, ts_ecr)) = self.timestamps {
            out.extend([1, 1, 8, 10]);
            out.extend(ts_val.to_be_bytes());
            out.extend(ts_ecr.to_be_bytes());
        }
        out.extend(&self.payload);
        out
    }

    /// With an Ethernet header.
    pub(super) fn frame(&self) -> Vec<u8> {
        let kind: u16 = if self.v6 { 0x86dd } else { 0x0800 };
        let mut out = vec![2; 12];
        out.extend(kind.to_be_bytes());
        out.extend(self.ip());
        out
    }
}

/// Writes numbers in either byte order.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub big: bool,
}

impl Bytes {
    pub(super) fn u32(self, value: u32) -> [u8; 4] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    fn u16(self, value: u16) -> [u8; 2] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

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
    let bytes = Bytes { big };
    let magic = if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut out = bytes.u32(magic).to_vec();
    out.extend(bytes.u16(2));
    out.extend(bytes.u16(4));
    for word in [0, 0, 65_535, 1] {
        out.extend(bytes.u32(word));
    }
    for segment in segments {
        let frame = segment.frame();
        let fraction = segment.time.0 % 1_000_000_000 / if nanos { 1 } else { 1000 };
        let length = frame.len() as u32;
        for word in [
            (segment.time.0 / 1_000_000_000) as u32,
            fraction as u32,
            length,
            length,
        ] {
            out.extend(bytes.u32(word));
        }
        out.extend(frame);
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

/// Everything an analysis told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub samples: Vec<Sample>,
    pub flows: Vec<BoxedFlow>,
}

impl Observer for Told {
    fn sample(&mut self, _flow: &Flow, sample: &Sample) {
        self.samples.push(*sample);
    }

    fn ended(&mut self, flow: BoxedFlow) {
        self.flows.push(flow);
    }
}

impl Told {
    /// Round trips of data in milliseconds, of what this end sent.
    pub(super) fn trips(&self, sender: Side) -> Vec<f64> {
        let of_data =
            |sample: &&Sample| sample.sender == sender && sample.basis != Basis::Handshake;
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
    told: &mut Told,
) -> (Tally, Option<Fault>) {
    let mut stream = Stream::new(chunk);
    let mut analyzer = Analyzer::new(limits);
    let mut rest = capture;
    let fault = loop {
        match stream.batch() {
            Ok(batch) if !batch.is_empty() => analyzer.packets(&batch, told),
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
    analyzer.finish(told);
    (analyzer.tally().clone(), fault)
}

/// Hands one segment to an analysis.
pub(super) fn hand(analyzer: &mut Analyzer, segment: &Built, observer: &mut impl Observer) {
    let data = segment.frame();
    let packet = Packet {
        time: Some(segment.time),
        link: LINK_ETHERNET,
        original: data.len() as u32,
        data: &data,
    };
    analyzer.packets(&[packet], observer);
}

/// Plays a script through an analysis.
pub(super) fn play(text: &str) -> Told {
    play_with(&script(text), LIMITS)
}

pub(super) fn play_with(segments: &[Built], limits: Limits) -> Told {
    let mut told = Told::default();
    let (_, fault) = read(&pcap(segments, false, true), 1 << 16, limits, &mut told);
    assert_eq!(fault, None);
    told
}

/// xorshift64* of Marsaglia and Vigna: enough to choose by.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }
}
