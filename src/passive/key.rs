//! The key of a connection, and its hash.

use super::encapsulation::Tunnel;
use super::packet::{Endpoint, TcpSegment};
use super::side::Side;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Addresses and ports of a connection, the client's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    addresses: [u128; 2],
    ports: [u16; 2],
    tunnel: Option<Tunnel>,
}

impl Key {
    /// The key of a connection between these ends, client and server.
    pub(super) fn of(ends: &[Endpoint; 2], tunnel: Option<Tunnel>) -> Self {
        Self {
            addresses: ends.map(|end| end.address),
            ports: ends.map(|end| end.port),
            tunnel,
        }
    }

    /// Returns the end that sent the segment; `None` if it belongs to another connection.
    #[inline]
    pub(super) fn sender(&self, segment: &TcpSegment<'_>) -> Option<Side> {
        let (a, b) = (&segment.source, &segment.destination);
        let [client, server] = self.addresses;
        if self.tunnel != segment.tunnel {
            return None;
        }
        if self.ports == [a.port, b.port] && (client, server) == (a.address, b.address) {
            return Some(Side::Client);
        }
        let back = self.ports == [b.port, a.port] && (client, server) == (b.address, a.address);
        back.then_some(Side::Server)
    }

    /// Returns the number of the end that sent a segment which may be another connection's; without
    /// a branch, which would wait for the memory.
    #[inline]
    pub(super) fn guessed_sender(&self, segment: &TcpSegment<'_>) -> usize {
        let port = self.ports[0] != segment.source.port;
        let address = self.addresses[0] != segment.source.address;
        usize::from(port | address)
    }

    /// Returns the [`Keyed::print`] of its segments.
    pub(super) fn print(&self, keyed: Keyed) -> u64 {
        let end = |at: usize| Endpoint {
            address: self.addresses[at],
            port: self.ports[at],
        };
        keyed.print(&end(0), &end(1), self.tunnel)
    }
}

/// Hands a number on that is a hash already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Printed(u64);

impl Hasher for Printed {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("the index has keys of 64 bits only");
    }
}

/// Folded multiplication with secret numbers. A capture's author cannot aim at one bucket, and it
/// costs a tenth of std's SipHash, which is a fifth of the time per packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    seed: u64,
    factor: u64,
}

impl Keyed {
    pub(super) fn new() -> Self {
        let state = RandomState::new();
        Self {
            seed: state.hash_one(0_u8),
            factor: state.hash_one(1_u8) | 1,
        }
    }

    /// Returns 64 bits that stand for a connection in the index, the same for both directions.
    #[inline]
    pub(super) fn print(self, a: &Endpoint, b: &Endpoint, tunnel: Option<Tunnel>) -> u64 {
        // Two steps for each end, which the processor does side by side for both.
        let of = |end: &Endpoint| {
            let [low, high] = [end.address as u64, (end.address >> 64) as u64];
            let address = fold(low ^ self.seed, high ^ self.factor);
            fold(address ^ u64::from(end.port), self.factor)
        };
        let ends = of(a).wrapping_add(of(b));
        let inside = match tunnel {
            None => return ends,
            Some(Tunnel::Vxlan(network)) => u64::from(network),
            Some(Tunnel::Gre(key)) => 1 << 32 | u64::from(key.unwrap_or(0)),
            Some(Tunnel::Ip) => 2 << 32,
        };
        fold(ends ^ inside, self.factor)
    }
}

/// The two halves of a product, one upon the other.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl BuildHasher for Keyed {
    type Hasher = Folding;
    #[inline]
    fn build_hasher(&self) -> Folding {
        Folding {
            state: self.seed,
            factor: self.factor,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Folding {
    state: u64,
    factor: u64,
}

impl Hasher for Folding {
    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.state = fold(self.state ^ value, self.factor).wrapping_add(self.factor);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for eight in bytes.chunks(8) {
            let value = eight
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            self.write_u64(value);
        }
    }
}
