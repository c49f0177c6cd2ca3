//! The key of a connection, and its hash.

use super::encapsulation::Tunnel;
use super::packet::{Endpoint, TcpSegment};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Addresses and ports of a connection, the lower end first, so that both directions have one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    low: u128,
    high: u128,
    /// The lower end's port and the higher's.
    ports: [u16; 2],
    pub(super) tunnel: Option<Tunnel>,
}

impl Key {
    #[inline]
    pub(super) fn of(segment: &TcpSegment<'_>) -> Self {
        let (a, b) = (segment.source, segment.destination);
        let tunnel = segment.tunnel;
        let (low, high) = match (a.address, a.port) <= (b.address, b.port) {
            true => (a, b),
            false => (b, a),
        };
        Self {
            low: low.address,
            high: high.address,
            ports: [low.port, high.port],
            tunnel,
        }
    }

    /// Returns `true` if this is the lower end.
    #[inline]
    pub(super) fn is_low(&self, end: Endpoint) -> bool {
        end.address == self.low && end.port == self.ports[0]
    }
}

impl Key {
    /// 64 bits that stand for it in the index.
    #[inline]
    pub(super) fn print(&self, keyed: Keyed) -> u64 {
        let mut hasher = keyed.build_hasher();
        hasher.write_u128(self.low);
        hasher.write_u128(self.high);
        let [low, high] = self.ports.map(u32::from);
        hasher.write_u32(low << 16 | high);
        match self.tunnel {
            None => {}
            Some(Tunnel::Vxlan(network)) => hasher.write_u32(network),
            Some(Tunnel::Gre(key)) => hasher.write_u64(u64::from(key.unwrap_or(0)) << 32),
            Some(Tunnel::Ip) => hasher.write_u8(0),
        }
        hasher.finish()
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
        let product = u128::from(self.state ^ value) * u128::from(self.factor);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(self.factor);
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
