//! Addresses and ports in; a classic BPF program for the kernel out, and the same question answered
//! here for what the kernel passes whole.
//!
//! Read bpf(4) of BSD and linux/filter.h first. The kernel copies only what the program passes. It
//! passes fragments and what is in tunnels without a look inside, so [`Filter::matches`] has the
//! last word.

use super::encapsulation::{
    ETHERTYPES_MPLS, ETHERTYPES_VLAN, ETHERTYPE_PPPOE, TUNNELS, VXLAN_PORTS,
};
use super::packet::{Endpoint, TcpSegment};
use std::net::IpAddr;

/// Addresses or networks, and ports, of one filter.
pub const MAX_TERMS: usize = 8;

/// An address, or a network, by the bits of its address that count: at most 32 or 128.
pub type Host = (IpAddr, u8);

/// Reads an address, or a network in CIDR notation. An IPv4-mapped address is the IPv4 address.
///
/// # Errors
///
/// The rest of a sentence that begins with the text.
pub fn parse_host(text: &str) -> Result<Host, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err("is no network: write 10.0.0.0/8, 2001:db8::/32 or an address".to_owned());
    };
    let plain = address.to_canonical();
    let width = if address.is_ipv4() { 32 } else { 128 };
    let mapped = if plain == address { 0 } else { 96 };
    let prefix = match prefix.map(str::parse::<u8>) {
        None => width,
        Some(Ok(prefix)) if (mapped..=width).contains(&prefix) => prefix,
        Some(_) => return Err(format!("has no prefix length from {mapped} to {width}")),
    };
    Ok((plain, prefix - mapped))
}

/// The address, 32 bits at a time, each with the mask of what counts.
fn words((address, prefix): Host) -> Vec<(u32, u32)> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).enumerate().map(|(at, four)| {
        let word = four.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let bits = u32::from(prefix).saturating_sub(32 * at as u32).min(32);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        (word & mask, mask)
    });
    words.collect()
}

fn contains(host: Host, address: IpAddr) -> bool {
    host.0.is_ipv4() == address.is_ipv4() && words(host) == words((address, host.1))
}

/// The wanted connections: those with one of the hosts, if there are any, and one of the ports, if
/// there are any, at either end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// At most [`MAX_TERMS`].
    pub hosts: Vec<Host>,
    /// At most [`MAX_TERMS`].
    pub ports: Vec<u16>,
}

impl Filter {
    /// Returns `true` if it passes everything.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.ports.is_empty()
    }

    /// Returns `true` if the segment is of a wanted connection.
    pub fn matches(&self, segment: &TcpSegment<'_>) -> bool {
        let ends = [segment.source, segment.destination];
        let host = |end: &Endpoint| self.hosts.iter().any(|of| contains(*of, end.ip()));
        let port = |end: &Endpoint| self.ports.contains(&end.port);
        (self.hosts.is_empty() || ends.iter().any(host))
            && (self.ports.is_empty() || ends.iter().any(port))
    }

    /// Returns the program that passes such segments, each instruction as a `struct sock_filter` of
    /// Linux. A frame begins with an Ethernet header or, on interfaces without one, with IP.
    pub fn program(&self) -> Vec<[u8; 8]> {
        let mut out = Program::default();
        out.link();
        out.put(KIND);
        out.jump_if(0x0800, IPV4);
        out.jump_if(0x86dd, IPV6);
        for kind in ETHERTYPES_MPLS.into_iter().chain([ETHERTYPE_PPPOE]) {
            out.jump_if(u32::from(kind), PASS);
        }
        out.go(DROP);
        self.ipv4(&mut out);
        self.ipv6(&mut out);
        out.put(VXLAN);
        out.add(LD_H_IND, 2);
        for port in VXLAN_PORTS {
            out.jump_if(u32::from(port), PASS);
        }
        out.go(DROP);
        out.put(PORTS);
        if !self.ports.is_empty() {
            for at in [0, 2] {
                out.add(LD_H_IND, at);
                for port in &self.ports {
                    out.jump_if(u32::from(*port), PASS);
                }
            }
            out.go(DROP);
        }
        out.put(PASS);
        out.add(RET, 0x4_0000);
        out.put(DROP);
        out.add(RET, 0);
        out.finish()
    }

    fn ipv4(&self, out: &mut Program) {
        out.put(IPV4);
        out.add(LD_B_IND, 9);
        out.jump_if(6, TCP4);
        out.jump_if(17, UDP4);
        for kind in TUNNELS {
            out.jump_if(u32::from(kind), PASS);
        }
        out.go(DROP);
        out.put(UDP4);
        out.skip_ipv4_header();
        out.go(VXLAN);
        out.put(TCP4);
        self.hosts(out, true, [12, 16], PORTS4);
        out.put(PORTS4);
        // More fragments, or an offset.
        out.add(LD_H_IND, 6);
        out.add(AND, 0x3fff);
        out.jump_unless(0, PASS);
        out.skip_ipv4_header();
        out.go(PORTS);
    }

    fn ipv6(&self, out: &mut Program) {
        out.put(IPV6);
        out.add(LD_B_IND, 6);
        for kind in [6, 0, 43, 44, 51, 60, 135, 139, 140] {
            out.jump_if(kind, TCP6);
        }
        for kind in TUNNELS {
            out.jump_if(u32::from(kind), PASS);
        }
        out.jump_unless(17, DROP);
        out.skip(40);
        out.go(VXLAN);
        out.put(TCP6);
        self.hosts(out, false, [8, 24], PORTS6);
        out.put(PORTS6);
        // What is behind other headers is looked for later.
        out.add(LD_B_IND, 6);
        out.jump_unless(6, PASS);
        out.skip(40);
        out.go(PORTS);
    }

    /// Goes to `then` if one of the two addresses is wanted, else drops.
    fn hosts(&self, out: &mut Program, ipv4: bool, places: [u32; 2], then: Label) {
        if self.hosts.is_empty() {
            return;
        }
        for host in self.hosts.iter().filter(|of| of.0.is_ipv4() == ipv4) {
            for place in places {
                let other = out.label();
                for (at, (word, mask)) in words(*host).into_iter().enumerate() {
                    if mask == 0 {
                        break;
                    }
                    out.add(LD_W_IND, place + 4 * at as u32);
                    if mask != u32::MAX {
                        out.add(AND, mask);
                    }
                    out.jump_unless(word, other);
                }
                out.go(then);
                out.put(other);
            }
        }
        out.go(DROP);
    }
}

const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_W_IND: u16 = 0x40;
const LD_H_IND: u16 = 0x48;
const LD_B_IND: u16 = 0x50;
const LDX_IMM: u16 = 0x01;
const AND: u16 = 0x54;
const LSH: u16 = 0x64;
const ADD: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;
const JEQ: u16 = 0x15;
const JA: u16 = 0x05;
const RET: u16 = 0x06;

/// SKF_AD_OFF and SKF_AD_HATYPE of linux/filter.h: the ARPHRD_ number of the interface.
const HARDWARE: u32 = 0xffff_f000 + 28;
const ARPHRD_ETHER: u32 = 1;
const ARPHRD_LOOPBACK: u32 = 772;

/// A place in the program, known or not yet.
type Label = usize;

const KIND: Label = 0;
const IPV4: Label = 1;
const IPV6: Label = 2;
const TCP4: Label = 3;
const UDP4: Label = 4;
const PORTS4: Label = 5;
const TCP6: Label = 6;
const PORTS6: Label = 7;
const VXLAN: Label = 8;
const PORTS: Label = 9;
const PASS: Label = 10;
const DROP: Label = 11;
const ETHERNET: Label = 12;
const NAMED: usize = 13;

/// A program under way: code, number, and where it jumps to.
#[derive(Debug)]
struct Program {
    code: Vec<(u16, u32, Option<Label>)>,
    labels: Vec<usize>,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            code: Vec::new(),
            labels: vec![0; NAMED],
        }
    }
}

impl Program {
    fn add(&mut self, code: u16, k: u32) {
        self.code.push((code, k, None));
    }

    fn label(&mut self) -> Label {
        self.labels.push(0);
        self.labels.len() - 1
    }

    fn put(&mut self, label: Label) {
        self.labels[label] = self.code.len();
    }

    fn go(&mut self, to: Label) {
        self.code.push((JA, 0, Some(to)));
    }

    /// A conditional jump reaches 255 instructions, so a far one goes by way of an unconditional.
    fn jump_if(&mut self, value: u32, to: Label) {
        let next = self.label();
        self.jump_unless(value, next);
        self.go(to);
        self.put(next);
    }

    fn jump_unless(&mut self, value: u32, to: Label) {
        let near = to >= NAMED;
        let label = if near { to } else { self.label() };
        let equal = self.label();
        self.code.push((JEQ, value, Some(label)));
        if !near {
            // The next instruction is passed over where the value is equal.
            self.code.push((JA, 0, Some(equal)));
            self.put(label);
            self.go(to);
            self.put(equal);
        }
    }

    /// Moves X from the IPv4 header to what follows it.
    fn skip_ipv4_header(&mut self) {
        self.add(LD_B_IND, 0);
        self.add(AND, 0x0f);
        self.add(LSH, 2);
        self.add(ADD_X, 0);
        self.add(TAX, 0);
    }

    fn skip(&mut self, bytes: u32) {
        self.add(TXA, 0);
        self.add(ADD, bytes);
        self.add(TAX, 0);
    }

    /// Leaves the EtherType in A, and in X where its packet begins.
    fn link(&mut self) {
        self.add(LD_W_ABS, HARDWARE);
        self.jump_if(ARPHRD_ETHER, ETHERNET);
        self.jump_if(ARPHRD_LOOPBACK, ETHERNET);
        self.add(LDX_IMM, 0);
        self.add(LD_B_ABS, 0);
        self.add(AND, 0xf0);
        self.jump_if(0x40, IPV4);
        self.jump_if(0x60, IPV6);
        self.go(DROP);
        self.put(ETHERNET);
        // A tag is in the frame, or was taken off by the kernel.
        for header in [14, 18] {
            self.add(LDX_IMM, header);
            self.add(LD_H_ABS, header - 2);
            let tagged = self.label();
            for vlan in ETHERTYPES_VLAN {
                self.jump_if(u32::from(vlan), tagged);
            }
            self.go(KIND);
            self.put(tagged);
        }
        self.add(LDX_IMM, 22);
        self.add(LD_H_ABS, 20);
    }

    fn finish(self) -> Vec<[u8; 8]> {
        let code = self.code.iter().enumerate();
        let instruction = code.map(|(at, (code, k, to))| {
            let far = to.map_or(0, |label| self.labels[label] - at - 1);
            // Only JEQ has a conditional target, the one where the value differs.
            let (k, differs) = match *code {
                JA => (far as u32, 0),
                _ => (*k, far as u8),
            };
            let [code_0, code_1] = code.to_ne_bytes();
            let [k_0, k_1, k_2, k_3] = k.to_ne_bytes();
            [code_0, code_1, 0, differs, k_0, k_1, k_2, k_3]
        });
        instruction.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passive::{parse, Packet, LINK_ETHERNET, LINK_RAW};
    use crate::random::Random;

    /// Runs a program on a frame, as the kernel does: what it returns.
    fn run(program: &[[u8; 8]], hardware: u32, frame: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0);
        let load = |place: u32, length: usize| -> Option<u32> {
            if place == HARDWARE {
                return Some(hardware);
            }
            let bytes = frame.get(place as usize..)?.get(..length)?;
            Some(
                bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
            )
        };
        loop {
            let [c0, c1, jt, jf, k @ ..] = program[at];
            let k = u32::from_ne_bytes(k);
            at += 1;
            let loaded = match u16::from_ne_bytes([c0, c1]) {
                LD_W_ABS => load(k, 4),
                LD_H_ABS => load(k, 2),
                LD_B_ABS => load(k, 1),
                LD_W_IND => load(x + k, 4),
                LD_H_IND => load(x + k, 2),
                LD_B_IND => load(x + k, 1),
                TXA => Some(x),
                AND => Some(a & k),
                LSH => Some(a << k),
                ADD => Some(a + k),
                ADD_X => Some(a + x),
                other => {
                    match other {
                        LDX_IMM => x = k,
                        TAX => x = a,
                        JA => at += k as usize,
                        JEQ => at += usize::from(if a == k { jt } else { jf }),
                        RET => return k,
                        _ => panic!("code {other:#x}"),
                    }
                    Some(a)
                }
            };
            // A load beyond the end ends the program.
            let Some(loaded) = loaded else { return 0 };
            a = loaded;
        }
    }

    fn frame(random: &mut Random) -> (Vec<u8>, bool) {
        let raw = random.below(4) == 0;
        let v6 = random.below(2) == 0;
        let mut out = if raw { vec![] } else { vec![2; 12] };
        for _ in 0..if raw { 0 } else { random.below(3) } {
            out.extend([0x81, 0, 0, 7]);
        }
        if !raw {
            out.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        }
        let ports = [random.below(4) as u8 + 80, random.below(4) as u8 + 80];
        let mut tcp = vec![0, ports[0], 0, ports[1], 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10];
        tcp.resize(20, 0);
        let kind = [6, 6, 6, 17][random.below(4)];
        let address = |random: &mut Random| [10, 0, random.below(2) as u8, random.below(6) as u8];
        if v6 {
            out.extend([0x60, 0, 0, 0, 0, 20, kind, 64]);
            for _ in 0..2 {
                out.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
                out.extend(address(random));
            }
        } else {
            let options = random.below(3) as u8 * 4;
            out.extend([
                0x45 + options / 4,
                0,
                0,
                40 + options,
                0,
                0,
                0,
                0,
                64,
                kind,
                0,
                0,
            ]);
            out.extend(address(random));
            out.extend(address(random));
            out.extend(vec![1; usize::from(options)]);
        }
        out.extend(tcp);
        (out, raw)
    }

    #[test]
    fn the_program_passes_what_matches_and_nothing_else() {
        let networks: Vec<Host> = [
            ("10.0.0.1", 32),
            ("10.0.1.0", 31),
            ("2001:db8::a00:1", 128),
            ("2001:db8::a00:102", 127),
            ("2001:db8:1::", 48),
            ("0.0.0.0", 0),
        ]
        .map(|(address, prefix)| (address.parse().unwrap(), prefix))
        .into();
        let mut passed = [0; 2];
        for seed in 1..=40_000 {
            let mut random = Random::new(seed);
            let mut filter = Filter::default();
            for _ in 0..random.below(MAX_TERMS + 1) {
                let most = networks.len() - usize::from(seed % 8 > 0);
                filter.hosts.push(networks[random.below(most)]);
            }
            for _ in 0..random.below(MAX_TERMS + 1) {
                filter.ports.push(80 + random.below(3) as u16);
            }
            let (data, raw) = frame(&mut random);
            let program = filter.program();
            assert!(program.len() < 600, "{} instructions", program.len());
            let hardware = if raw {
                65534
            } else {
                [1, 772][random.below(2)]
            };
            let segment = parse(&Packet {
                time: None,
                link: if raw { LINK_RAW } else { LINK_ETHERNET },
                interface: 0,
                original: data.len() as u32,
                data: &data,
            });
            let right = segment.is_ok_and(|segment| filter.matches(&segment));
            let found = run(&program, hardware, &data) > 0;
            assert_eq!(found, right, "seed {seed}: {filter:?} {data:02x?}");
            passed[usize::from(right)] += 1;
        }
        assert!(passed.iter().all(|times| *times > 4000), "{passed:?}");
    }

    #[test]
    fn fragments_and_tunnels_pass() {
        let filter = Filter {
            hosts: vec![("10.0.0.1".parse().unwrap(), 32)],
            ports: vec![80],
        };
        let program = filter.program();
        let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x20, 0, 64, 6, 0, 0];
        ip.extend([10, 0, 0, 9, 10, 0, 0, 1]);
        ip.extend([0; 40]);
        assert!(run(&program, 65534, &ip) > 0);
        ip[19] = 2; // Of another host.
        assert_eq!(run(&program, 65534, &ip), 0);
        (ip[6], ip[9]) = (0, 17);
        ip[22..24].copy_from_slice(&4789_u16.to_be_bytes());
        assert!(run(&program, 65534, &ip) > 0);
        for protocol in TUNNELS {
            ip[9] = protocol;
            assert!(run(&program, 65534, &ip) > 0, "{protocol}");
        }
        for (kind, passes) in [([0x88, 0x64], true), ([0x88, 0x47], true), ([8, 6], false)] {
            let frame = [&[2; 12][..], &kind, &[0; 60]].concat();
            assert_eq!(run(&program, 1, &frame) > 0, passes, "{kind:02x?}");
        }
    }

    #[test]
    fn a_network_is_an_address_with_fewer_bits() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let network = (address("10.0.0.0"), 8);
        assert!(contains(network, address("10.255.0.1")));
        assert!(!contains(network, address("11.0.0.1")));
        assert!(!contains(network, address("::ffff:10.0.0.1")));
        assert!(contains((address("::"), 0), address("2001:db8::1")));
    }
}
