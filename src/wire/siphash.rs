//! SipHash-2-4 with 64 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
//! 2012), for the authentication of frames. The one in std is deprecated, and its successor
//! promises no algorithm.

use std::fmt;
use std::str::FromStr;

/// A key of 128 bits, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// The error of a text that is no key: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKey;

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("does not hold 32 hexadecimal digits (128 bits)")
    }
}

impl std::error::Error for NoKey {}

impl FromStr for Key {
    type Err = NoKey;

    /// Reads 32 hexadecimal digits, white space around them allowed.
    fn from_str(text: &str) -> Result<Self, NoKey> {
        let digits = text.trim().as_bytes();
        if digits.len() != 32 {
            return Err(NoKey);
        }
        let mut key = [0; 16];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| char::from(digit).to_digit(16).ok_or(NoKey);
            *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
        }
        Ok(Self(key))
    }
}

/// A hash in progress: [`update`](Self::update) any number of times, then [`finish`](Self::finish).
#[derive(Clone, Debug)]
pub struct SipHash {
    v: [u64; 4],
    /// Bytes that do not fill a word yet, the first one lowest.
    tail: u64,
    /// The number of bytes; its lowest 3 bits are the number of them in `tail`.
    len: usize,
}

impl SipHash {
    /// Starts a hash.
    pub fn new(key: &Key) -> Self {
        let word = |at: usize| u64::from_le_bytes(key.0[at..at + 8].try_into().expect("8 bytes"));
        let (k0, k1) = (word(0), word(8));
        Self {
            v: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
            tail: 0,
            len: 0,
        }
    }

    /// Hashes more bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let begun = self.len % 8;
        self.len = self.len.wrapping_add(bytes.len());
        if begun > 0 {
            let (first, rest) = bytes.split_at(bytes.len().min(8 - begun));
            self.tail |= little_endian(first) << (8 * begun);
            if begun + first.len() < 8 {
                return;
            }
            compress(&mut self.v, self.tail);
            bytes = rest;
        }
        let mut words = bytes.chunks_exact(8);
        // In registers: this is what a megabyte goes through.
        let mut v = self.v;
        for word in &mut words {
            compress(
                &mut v,
                u64::from_le_bytes(word.try_into().expect("8 bytes")),
            );
        }
        self.v = v;
        self.tail = little_endian(words.remainder());
    }

    /// Returns the hash of all bytes.
    pub fn finish(mut self) -> u64 {
        let last = self.tail | (self.len as u64) << 56;
        compress(&mut self.v, last);
        self.v[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut self.v);
        }
        self.v.iter().fold(0, |hash, word| hash ^ word)
    }
}

/// Up to seven bytes, or eight, as a number.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[inline(always)]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference implementation. The key is 00 01 .. 0f, the input of row n the n
    /// bytes 00 01 .. . Row 15 is the example of the paper's appendix A.
    const VECTORS: [u64; 17] = [
        0x726f_db47_dd0e_0e31,
        0x74f8_39c5_93dc_67fd,
        0x0d6c_8009_d9a9_4f5a,
        0x8567_6696_d7fb_7e2d,
        0xcf27_94e0_2771_87b7,
        0x1876_5564_cd99_a68d,
        0xcbc9_466e_58fe_e3ce,
        0xab02_00f5_8b01_d137,
        0x93f5_f579_9a93_2462,
        0x9e00_82df_0ba9_e4b0,
        0x7a5d_bbc5_94dd_b9f3,
        0xf4b3_2f46_226b_ada7,
        0x751e_8fbc_860e_e5fb,
        0x14ea_5627_c084_3d90,
        0xf723_ca90_8e7a_f2ee,
        0xa129_ca61_49be_45e5,
        0x3f2a_cc7f_57c2_9bdb,
    ];

    fn key() -> Key {
        Key(std::array::from_fn(|byte| byte as u8))
    }

    fn hash(bytes: &[u8]) -> u64 {
        let mut hash = SipHash::new(&key());
        hash.update(bytes);
        hash.finish()
    }

    #[test]
    fn the_published_vectors_come_out() {
        let input: Vec<u8> = (0..64).collect();
        for (len, &expected) in VECTORS.iter().enumerate() {
            assert_eq!(hash(&input[..len]), expected, "{len} bytes");
        }
    }

    /// std's own, which is SipHash-2-4 as long as it is there.
    #[allow(deprecated)]
    fn of_std(key: &Key, bytes: &[u8]) -> u64 {
        use std::hash::{Hasher, SipHasher};
        let word = |at: usize| u64::from_le_bytes(key.0[at..at + 8].try_into().unwrap());
        let mut hasher = SipHasher::new_with_keys(word(0), word(8));
        hasher.write(bytes);
        hasher.finish()
    }

    #[test]
    fn another_implementation_agrees_at_every_length_and_every_cut() {
        let input: Vec<u8> = (0..300).map(|n| (n * 7 + 3) as u8).collect();
        for len in 0..input.len() {
            assert_eq!(hash(&input[..len]), of_std(&key(), &input[..len]), "{len}");
        }
        for first in 0..40 {
            for second in first..60 {
                let mut pieces = SipHash::new(&key());
                pieces.update(&input[..first]);
                pieces.update(&input[first..second]);
                pieces.update(&input[second..61]);
                assert_eq!(pieces.finish(), hash(&input[..61]), "{first} {second}");
            }
        }
    }

    #[test]
    fn a_key_is_32_hexadecimal_digits_and_is_not_shown() {
        let read: Key = " 000102030405060708090a0B0c0D0e0f\n".parse().unwrap();
        assert_eq!(read, key());
        assert_eq!(format!("{read:?}"), "Key(secret)");
        for text in [
            "",
            "00",
            "000102030405060708090a0b0c0d0e0",
            "+00102030405060708090a0b0c0d0e0f",
        ] {
            assert_eq!(text.parse::<Key>(), Err(NoKey), "{text}");
        }
        assert_eq!(
            "0g0102030405060708090a0b0c0d0e0f".parse::<Key>(),
            Err(NoKey)
        );
        assert_eq!(
            "000102030405060708090a0b0c0d0e0f0".parse::<Key>(),
            Err(NoKey)
        );
    }
}
