//! A path as data, for tests: one-way delays, clocks, residences and noise in; trips with their
//! stamps out.

use crate::measure::{HopStamp, NodeId, Return, StampDirection, Trip};
use crate::time::{MonoTime, Nanos, WallTime};

/// xorshift64*, seeded: the same run for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.bits();
        }
        random
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.bits() >> 11) % limit
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Nearly normal, mean 0 and variance 1: the sum of twelve.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

pub(crate) const MS: f64 = 1e6;

/// A node: its clock, and how long blocks stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimNode {
    pub(crate) id: u64,
    pub(crate) offset_ns: f64,
    pub(crate) skew_ppm: f64,
    pub(crate) residence_ns: [f64; 2],
    /// How late it reads what its kernel has, forward and return.
    pub(crate) wake_up_ns: [f64; 2],
    /// Share of the time its pumps are held, forward and return.
    pub(crate) held: [f64; 2],
    /// Steps of its clock: true time, by how much, and `true` if the generation counts it.
    pub(crate) steps: Vec<(f64, f64, bool)>,
}

impl SimNode {
    fn clock(&self, t: f64) -> WallTime {
        let steps: f64 = self
            .steps
            .iter()
            .filter(|step| step.0 <= t)
            .map(|step| step.1)
            .sum();
        let ahead = self.offset_ns + t * self.skew_ppm * 1e-6 + steps;
        WallTime(1_800_000_000_000_000_000_u64.wrapping_add_signed((t + ahead) as i64))
    }

    fn generation(&self, t: f64) -> u8 {
        self.steps
            .iter()
            .filter(|step| step.0 <= t && step.2)
            .count() as u8
    }
}

/// A chain of nodes; the last reflects, or is an exit.
#[derive(Clone, Debug)]
pub(crate) struct SimPath {
    pub(crate) nodes: Vec<SimNode>,
    /// One-way delays of each segment, forward and return.
    pub(crate) delays_ns: Vec<[f64; 2]>,
    /// Standard deviation of the noise in each direction, and its autocorrelation from block to
    /// block.
    pub(crate) noise_ns: f64,
    pub(crate) correlation: f64,
    pub(crate) exit: bool,
    pub(crate) synchronised: bool,
    /// `true` if kernels report arrivals.
    pub(crate) arrivals: bool,
    pub(crate) interval_ns: f64,
    wander: Vec<[f64; 2]>,
    pub(crate) random: Random,
}

impl Clone for Random {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl SimPath {
    /// `nodes` nodes with clocks hours apart and up to 50 ppm off, 0.2 ms each way, 20 us noise, a
    /// block every 100 ms.
    pub(crate) fn new(nodes: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let node = |i: usize| SimNode {
            id: 100 + i as u64,
            offset_ns: if i == 0 {
                0.0
            } else {
                (random.unit() - 0.5) * 20.0 * 3.6e12
            },
            skew_ppm: if i == 0 {
                0.0
            } else {
                (random.unit() - 0.5) * 100.0
            },
            residence_ns: [10_000.0, 12_000.0],
            ..SimNode::default()
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
            delays_ns: vec![[0.2 * MS; 2]; nodes - 1],
            noise_ns: 20_000.0,
            correlation: 0.0,
            exit: false,
            synchronised: false,
            arrivals: false,
            interval_ns: 100.0 * MS,
            wander: vec![[0.0; 2]; nodes - 1],
            random: Random::new(seed ^ 0xabcd),
        }
    }

    pub(crate) fn at(&self, block: u64) -> f64 {
        1e9 + block as f64 * self.interval_ns
    }

    /// The trip of one block, and what its directions took in truth.
    pub(crate) fn trip(&mut self, block: u64) -> Trip {
        let due = self.at(block);
        let mut t = due;
        let last = self.nodes.len() - 1;
        let mut hop_stamps = Vec::new();
        let rest = (1.0 - self.correlation * self.correlation).sqrt();
        for wander in self.wander.iter_mut().flatten() {
            *wander = *wander * self.correlation + rest * self.random.normal();
        }
        let mut cross = |node: &SimNode, hop: usize, direction, t: &mut f64| {
            let way = usize::from(direction == StampDirection::Return);
            // A block that starts here comes out of no socket, nor does an exit's report of one.
            let comes = hop > 0 && (hop < last || direction != StampDirection::Return);
            let arrival = node.clock(*t);
            if comes {
                *t += node.wake_up_ns[way];
            }
            let ingress = *t;
            *t += node.residence_ns[way];
            hop_stamps.push(HopStamp {
                node: NodeId(node.id),
                hop: hop as u8,
                direction,
                generation: node.generation(*t),
                stepped: node.generation(*t) != node.generation(ingress),
                waited: false,
                synchronised: self.synchronised,
                held: Nanos((node.held[way] * self.interval_ns) as u64),
                arrival: (comes && self.arrivals).then_some(arrival),
                ingress: node.clock(ingress),
                egress: node.clock(*t),
            });
        };
        for (hop, node) in self.nodes.iter().enumerate() {
            let turn = hop == last && !self.exit;
            let direction = if turn {
                StampDirection::Turn
            } else {
                StampDirection::Forward
            };
            cross(node, hop, direction, &mut t);
            if hop == last && self.exit {
                cross(node, hop, StampDirection::Return, &mut t);
            }
            if hop < last {
                t += (self.delays_ns[hop][0] + self.noise_ns * self.wander[hop][0]).max(1_000.0);
            }
        }
        for hop in (0..last).rev() {
            t += (self.delays_ns[hop][1] + self.noise_ns * self.wander[hop][1]).max(1_000.0);
            let node = &self.nodes[hop];
            if hop > 0 {
                cross(node, hop, StampDirection::Return, &mut t);
            }
        }
        let origin = &self.nodes[0];
        let arrival = self.arrivals.then(|| origin.clock(t));
        t += origin.wake_up_ns[1];
        Trip {
            sequence: block,
            at: MonoTime(due as u64),
            hop_stamps,
            home: Return {
                arrival,
                ingress: origin.clock(t),
                egress: None,
                generation: origin.generation(t),
                held: Nanos((origin.held[1] * self.interval_ns) as u64),
            },
            late: false,
            server: None,
            connection: 0,
            retransmits: Vec::new(),
        }
    }
}
