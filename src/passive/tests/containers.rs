//! Containers of captures: link types, encapsulations, file formats and snap lengths by chance.

use super::build::*;
use super::packets::Pcap;

/// The headers before the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Plain,
    Vlan,
    QinQ,
    Pppoe,
    Mpls,
    Vxlan,
    Gre,
    GreKey,
    GreBridged,
    Erspan,
    InIp,
}

const LAYERS: [Layer; 11] = [
    Layer::Plain,
    Layer::Vlan,
    Layer::QinQ,
    Layer::Pppoe,
    Layer::Mpls,
    Layer::Vxlan,
    Layer::Gre,
    Layer::GreKey,
    Layer::GreBridged,
    Layer::Erspan,
    Layer::InIp,
];

/// Link types that are read.
const LINKS: [u16; 14] = [1, 1, 1, 0, 9, 12, 50, 51, 101, 104, 108, 113, 228, 276];

/// A kind of capture.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub link: u16,
    pub layer: Layer,
    pub big: bool,
    pub nanos: bool,
    /// A file of pcapng with this many interfaces; 0 stands for pcap.
    pub interfaces: usize,
    pub snap: usize,
    pub v6: bool,
    /// Ethernet frames are padded to this length.
    pub padded: usize,
}

fn be(value: usize) -> [u8; 2] {
    (value as u16).to_be_bytes()
}

fn ethertype(v6: bool) -> [u8; 2] {
    if v6 {
        [0x86, 0xdd]
    } else {
        [0x08, 0]
    }
}

/// An outer IPv4 packet.
fn outer(protocol: u8, inner: Vec<u8>) -> Vec<u8> {
    let mut out = vec![0x45, 0];
    out.extend(be(20 + inner.len()));
    out.extend([0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    out.extend(inner);
    out
}

impl Container {
    pub(super) fn new(random: &mut Random) -> Self {
        let link = LINKS[random.below(LINKS.len())];
        let layer = match link {
            1 => LAYERS[random.below(LAYERS.len())],
            _ => Layer::Plain,
        };
        Self {
            link,
            layer,
            big: random.below(2) == 0,
            nanos: random.below(2) == 0,
            interfaces: [0, 0, 0, 1, 3][random.below(5)],
            snap: [65_535, 65_535, 65_535, 128, 96][random.below(5)],
            v6: random.below(3) == 0,
            padded: [0, 60][random.below(2)],
        }
    }

    /// Ethernet, nanoseconds, nothing cut.
    pub(super) fn plain(v6: bool) -> Self {
        Self {
            link: 1,
            layer: Layer::Plain,
            big: false,
            nanos: true,
            interfaces: 0,
            snap: 65_535,
            v6,
            padded: 0,
        }
    }

    /// Returns the bytes before the TCP header of each packet.
    pub(super) fn headers(&self) -> usize {
        self.wrap(&[]).len() + if self.v6 { 40 } else { 20 }
    }

    /// Puts an IP packet into its encapsulation and link header.
    fn wrap(&self, ip: &[u8]) -> Vec<u8> {
        let kind = ethertype(self.v6);
        let mac = [2; 12];
        let frame = [&mac[..], &kind, ip].concat();
        let ppp = if self.v6 { [0, 0x57] } else { [0, 0x21] };
        let session = |ip: &[u8]| {
            let head = [&[0x11, 0, 0, 7][..], &be(ip.len() + 2), &ppp].concat();
            [&head[..], ip].concat()
        };
        let tunnel =
            |protocol: u8, inner: Vec<u8>| [&mac[..], &[8, 0], &outer(protocol, inner)].concat();
        let gre = |head: &[u8], inner: &[u8]| tunnel(47, [head, inner].concat());
        let of_link = |head: &[u8]| [head, ip].concat();
        match self.link {
            0 => of_link(if self.v6 {
                &[30, 0, 0, 0]
            } else {
                &[2, 0, 0, 0]
            }),
            108 => of_link(if self.v6 {
                &[0, 0, 0, 24]
            } else {
                &[0, 0, 0, 2]
            }),
            9 => of_link(&[0xff, 3, ppp[0], ppp[1]]),
            50 => of_link(&ppp),
            51 => session(ip),
            104 => of_link(&[0x0f, 0, kind[0], kind[1]]),
            113 => of_link(&[&[0; 14][..], &kind].concat()),
            276 => of_link(&[&kind[..], &[0; 18]].concat()),
            1 => match self.layer {
                Layer::Plain => frame,
                Layer::Vlan => [&mac[..], &[0x81, 0, 0, 5], &kind, ip].concat(),
                Layer::QinQ => [&mac[..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6], &kind, ip].concat(),
                Layer::Pppoe => [&mac[..], &[0x88, 0x64], &session(ip)].concat(),
                Layer::Mpls => {
                    let labels = [0, 1, 0, 64, 0, 2, 1, 64];
                    [&mac[..], &[0x88, 0x47], &labels, ip].concat()
                }
                Layer::Vxlan => {
                    let head = [&[0xd0, 1, 0x12, 0xb5][..], &be(16 + frame.len()), &[0, 0]];
                    let network = [8, 0, 0, 0, 0, 0, 42, 0];
                    tunnel(17, [&head.concat()[..], &network, &frame].concat())
                }
                Layer::Gre => gre(&[0, 0, kind[0], kind[1]], ip),
                Layer::GreKey => gre(&[0x20, 0, kind[0], kind[1], 0, 0, 0, 7], ip),
                Layer::GreBridged => gre(&[0, 0, 0x65, 0x58], &frame),
                Layer::Erspan => gre(
                    &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0],
                    &frame,
                ),
                Layer::InIp => tunnel(if self.v6 { 41 } else { 4 }, ip.to_vec()),
            },
            _ => ip.to_vec(),
        }
    }

    /// The packets of a segment: one, or its two fragments.
    fn packets(&self, segment: &Built, fragmented: bool) -> Vec<Vec<u8>> {
        let ip = segment.ip();
        if !fragmented || self.v6 || segment.payload.len() < 64 {
            return vec![ip];
        }
        let (head, data) = ip.split_at(20);
        let cut = 48;
        let of = |data: &[u8], place: u16| {
            let mut head = head.to_vec();
            head[2..4].copy_from_slice(&be(20 + data.len()));
            head[4..6].copy_from_slice(&[0x77, segment.seq as u8]);
            head[6..8].copy_from_slice(&place.to_be_bytes());
            [&head[..], data].concat()
        };
        vec![of(&data[..cut], 0x2000), of(&data[cut..], (cut / 8) as u16)]
    }

    /// The file; `fragmented` is the place of the segment that is sent in two fragments.
    pub(super) fn file(&self, segments: &[Built], fragmented: Option<usize>) -> Vec<u8> {
        let bytes = Bytes { big: self.big };
        let pcap = Pcap {
            big: self.big,
            nanos: self.nanos,
        };
        let resolutions = [6, 9, 3];
        let mut out = match self.interfaces {
            0 => pcap.header_of(self.link),
            count => {
                let mut out = bytes.section();
                for number in 0..count {
                    // The connection is on the last one.
                    let link = if number + 1 == count { self.link } else { 105 };
                    let resolution = [if self.nanos {
                        9
                    } else {
                        resolutions[number % 2]
                    }];
                    out.extend(bytes.interface(link, 0, &[(2, b"if"), (9, &resolution)]));
                }
                out
            }
        };
        for (at, segment) in segments.iter().enumerate() {
            for ip in self.packets(segment, fragmented == Some(at)) {
                let mut frame = self.wrap(&ip);
                if self.link == 1 && frame.len() < self.padded {
                    frame.resize(self.padded, 0);
                }
                let kept = &frame[..frame.len().min(self.snap)];
                if self.interfaces == 0 {
                    out.extend(pcap.packet(segment.time, frame.len(), kept));
                    continue;
                }
                let last = self.interfaces - 1;
                let nanos = self.nanos || last % 2 == 1;
                let ticks = segment.time.0 / if nanos { 1 } else { 1000 };
                out.extend(bytes.enhanced(last as u32, ticks, frame.len() as u32, kept));
                if last > 0 {
                    out.extend(bytes.enhanced(0, ticks, 40, &[0; 40]));
                }
            }
        }
        out
    }
}
