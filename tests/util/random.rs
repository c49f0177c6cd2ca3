//! Seeded random numbers for property loops. The library's tests include it as a module, the others
//! by path.

/// xorshift64* (Marsaglia, Vigna): a few lines, and good enough to make cases.
pub(crate) struct Random(u64);

impl Random {
    /// Seeds that differ in little begin far apart, and 0 is one like any other.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 11) % bound as u64) as usize
    }

    /// Does one to four kinds of harm to `bytes`: bits and bytes changed, put in, left out,
    /// repeated, the rest cut off. At least one byte remains.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + self.below(64)).min(bytes.len());
            match self.below(7) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => bytes[at] = self.next() as u8,
                3 => bytes.insert(at, self.next() as u8),
                4 => bytes.truncate(at.max(1)),
                5 => drop(bytes.drain(at.max(1)..end.max(1))),
                _ => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
            }
        }
    }
}
