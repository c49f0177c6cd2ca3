//! Packets and files of pcap made by hand. `tests/load` has it too, by its path, for the capture of
//! scripts/bench-passive.

use super::WallTime;
use std::net::{Ipv4Addr, Ipv6Addr};

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

    pub(super) fn u16(self, value: u16) -> [u8; 2] {
        if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

/// A file of pcap: one of its four kinds.
#[derive(Clone, Copy)]
pub(super) struct Pcap {
    pub big: bool,
    pub nanos: bool,
}

impl Pcap {
    /// Returns the file's header: version 2.4, frames of Ethernet.
    pub(super) fn header(self) -> Vec<u8> {
        self.header_of(1)
    }

    /// The same for packets of this link type.
    pub(super) fn header_of(self, link: u16) -> Vec<u8> {
        let bytes = Bytes { big: self.big };
        let magic = if self.nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let version = [bytes.u16(2), bytes.u16(4)].concat();
        let rest = [0, 0, 65_535, u32::from(link)]
            .map(|word| bytes.u32(word))
            .concat();
        [&bytes.u32(magic)[..], &version, &rest].concat()
    }

    /// A frame of `original` bytes of which the file has those in `kept`.
    pub(super) fn packet(self, time: WallTime, original: usize, kept: &[u8]) -> Vec<u8> {
        let (seconds, nanos) = (time.0 / 1_000_000_000, time.0 % 1_000_000_000);
        let fraction = nanos / if self.nanos { 1 } else { 1000 };
        let bytes = Bytes { big: self.big };
        let lengths = [kept.len() as u32, original as u32];
        let head = [seconds as u32, fraction as u32, lengths[0], lengths[1]];
        [&head.map(|word| bytes.u32(word)).concat(), kept].concat()
    }
}
