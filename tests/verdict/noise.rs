//! The noise of simulated parts, in milliseconds, block by block.

use crate::random::Random;

impl Random {
    /// Above 0, up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() <= share
    }

    /// Standard normal (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let angle = 2.0 * std::f64::consts::PI * self.unit();
        (-2.0 * self.unit().ln()).sqrt() * angle.cos()
    }
}

/// The distribution of jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Jitter {
    /// Sigma 0.8.
    Lognormal,
    /// Lognormal of sigma 1.3.
    Heavy,
    /// Of shape 2.
    Gamma,
}

/// A part without a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    /// Standard deviation of the jitter.
    pub(crate) spread: f64,
    pub(crate) jitter: Jitter,
    /// Autocorrelation of the base from block to block, and its standard deviation in spreads.
    pub(crate) rho: f64,
    pub(crate) wander: f64,
    /// Between blocks.
    pub(crate) interval: f64,
    /// Share of the blocks that 5 to 50 ms are added to.
    pub(crate) outliers: f64,
    /// Share of the runs with a stall of 30 to 300 ms.
    pub(crate) stalls: f64,
}

impl Noise {
    pub(crate) const fn new(jitter: Jitter, spread: f64, interval: f64) -> Self {
        Self {
            spread,
            jitter,
            rho: 0.0,
            wander: 0.0,
            interval,
            outliers: 0.01,
            stalls: 0.5,
        }
    }

    pub(crate) const fn wandering(self, rho: f64, wander: f64) -> Self {
        Self {
            rho,
            wander,
            ..self
        }
    }

    pub(crate) fn name(&self) -> String {
        let jitter = format!("{:?}", self.jitter).to_lowercase();
        let wander = match self.wander {
            w if w > 0.0 => format!(" AR {} x{w}", self.rho),
            _ => String::new(),
        };
        format!(
            "{jitter} {} ms{wander}, every {} ms",
            self.spread, self.interval
        )
    }

    /// Delays of `n` blocks, before they wait for each other.
    pub(crate) fn draw(&self, random: &mut Random, n: usize) -> Vec<f64> {
        let mut base = random.normal();
        let step = (1.0 - self.rho * self.rho).sqrt();
        let mut delays: Vec<f64> = (0..n)
            .map(|_| {
                let mut delay = 10.0 + self.jitter(random);
                if self.wander > 0.0 {
                    delay += base * self.wander * self.spread;
                    base = self.rho * base + step * random.normal();
                }
                if random.chance(self.outliers) {
                    delay += random.between(5.0, 50.0);
                }
                delay
            })
            .collect();
        if random.chance(self.stalls) {
            delays[random.below(n)] += random.between(30.0, 300.0);
        }
        delays
    }

    fn jitter(&self, random: &mut Random) -> f64 {
        let lognormal = |random: &mut Random, s: f64| {
            let deviation = ((s * s).exp_m1() * (s * s).exp()).sqrt();
            (s * random.normal()).exp() / deviation
        };
        self.spread
            * match self.jitter {
                Jitter::Lognormal => lognormal(random, 0.8),
                Jitter::Heavy => lognormal(random, 1.3),
                Jitter::Gamma => -(random.unit() * random.unit()).ln() / 2.0f64.sqrt(),
            }
    }
}

/// A change put onto a series, from `start` to `end` of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    /// Of the blocks.
    pub(crate) share: f64,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ChangeKind {
    Add(f64),
    /// 40 to 200 ms.
    Loss,
    /// Rises to so much at the end.
    Drift(f64),
}

impl Change {
    pub(crate) const fn add(delay: f64, share: f64, start: f64) -> Self {
        Self {
            kind: ChangeKind::Add(delay),
            share,
            start,
            end: 1.0,
        }
    }

    /// Returns which blocks were hit.
    pub(crate) fn put(&self, random: &mut Random, delays: &mut [f64]) -> Vec<bool> {
        let n = delays.len();
        let from = (self.start * n as f64) as usize;
        let to = (self.end * n as f64).round() as usize;
        let mut hits = vec![false; n];
        for (t, delay) in delays.iter_mut().enumerate() {
            if let ChangeKind::Drift(most) = self.kind {
                let part = (t as f64 / n as f64 - self.start) / (1.0 - self.start);
                *delay += part.clamp(0.0, 1.0) * most;
            }
            if !(from..to).contains(&t) || !random.chance(self.share) {
                continue;
            }
            hits[t] = true;
            match self.kind {
                ChangeKind::Add(more) => *delay += more,
                ChangeKind::Loss => *delay += random.between(40.0, 200.0),
                ChangeKind::Drift(_) => {}
            }
        }
        hits
    }
}

/// TCP delivers in order: a block cannot arrive before the one sent ahead of it.
pub(crate) fn in_order(delays: &mut [f64], interval: f64) {
    for t in 1..delays.len() {
        delays[t] = delays[t].max(delays[t - 1] - interval);
    }
}
