//! The stamp: 40 bytes, appended by each node per direction, never rewritten by another node.

use super::ParseError;
use crate::time::{Nanos, WallTime};
use byteorder::{BigEndian, ByteOrder};
use std::ops::Range;

/// Length of a stamp.
pub const STAMP_LEN: usize = 40;
mod field {
    use std::ops::Range;
    pub(super) const NODE: Range<usize> = 0..8;
    pub(super) const HOP: usize = 8;
    pub(super) const DIRECTION: usize = 9;
    pub(super) const GENERATION: usize = 10;
    pub(super) const FLAGS: usize = 11;
    pub(super) const HELD_MICROS: Range<usize> = 12..16;
    pub(super) const ARRIVAL: Range<usize> = 16..24; // ns, kernel of the node, 0 if unknown
    pub(super) const INGRESS: Range<usize> = 24..32; // ns, clock of the stamping node
    pub(super) const EGRESS: Range<usize> = 32..40;
}

/// The direction in which a block left the node that stamped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StampDirection {
    /// Passed on, away from the source. At an exit: written to the server.
    Forward,
    /// Passed on, towards the source. At an exit: the report of a block; its ingress is the forward
    /// egress.
    Return,
    /// Reflected: came in forward, left in the return direction.
    Turn,
}

impl StampDirection {
    fn to_wire(self) -> u8 {
        match self {
            Self::Forward => 1,
            Self::Return => 2,
            Self::Turn => 3,
        }
    }

    fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Forward),
            2 => Some(Self::Return),
            3 => Some(Self::Turn),
            _ => None,
        }
    }
}

/// The flag bits of a stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampFlags(pub u8);

impl StampFlags {
    /// The kernel of the node states that its clock is synchronised.
    pub const SYNCHRONISED: u8 = 1;
    /// The node's clock was stepped between ingress and egress of this stamp.
    pub const STEPPED: u8 = 1 << 1;
    /// The block waited for the node's connection to the next one.
    pub const WAITED: u8 = 1 << 2;

    /// Returns `true` if `bit` is set.
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// A stamp as values; all times are of the stamping node's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Random per node process.
    pub node: u64,
    /// The node's place on the path.
    pub hop: u8,
    /// The direction.
    pub direction: StampDirection,
    /// Raised at each step of the node's clock.
    pub generation: u8,
    /// Flag bits.
    pub flags: StampFlags,
    /// The time for which this pump was blocked in `write` since its previous stamp; microseconds
    /// on the wire, saturating.
    pub held: Nanos,
    /// Kernel receive time of the last byte; `None` if unknown (0 on the wire).
    pub arrival: Option<WallTime>,
    /// The time when the frame was completely read.
    pub ingress: WallTime,
    /// The time just before it is handed to the kernel.
    pub egress: WallTime,
}

impl Stamp {
    /// A stamp of which nothing but these is known: no flag, no wait, and an egress at `ingress`.
    pub fn new(node: u64, hop: u8, direction: StampDirection, ingress: WallTime) -> Self {
        Self {
            node,
            hop,
            direction,
            generation: 0,
            flags: StampFlags::default(),
            held: Nanos::ZERO,
            arrival: None,
            ingress,
            egress: ingress,
        }
    }

    /// Reads a stamp from the front of `bytes`, which may be longer.
    ///
    /// # Errors
    ///
    /// [`ParseError::Incomplete`] if `bytes` is too short; [`ParseError::Content`] for an unknown
    /// direction.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let Some(bytes) = bytes.get(..STAMP_LEN) else {
            return Err(ParseError::Incomplete {
                missing: STAMP_LEN - bytes.len(),
            });
        };
        let arrival = BigEndian::read_u64(&bytes[field::ARRIVAL]);
        Ok(Self {
            node: BigEndian::read_u64(&bytes[field::NODE]),
            hop: bytes[field::HOP],
            direction: StampDirection::from_wire(bytes[field::DIRECTION]).ok_or(
                ParseError::Content {
                    part: "stamp direction",
                },
            )?,
            generation: bytes[field::GENERATION],
            flags: StampFlags(bytes[field::FLAGS]),
            held: Nanos::from_micros(u64::from(BigEndian::read_u32(&bytes[field::HELD_MICROS]))),
            arrival: (arrival != 0).then_some(WallTime(arrival)),
            ingress: WallTime(BigEndian::read_u64(&bytes[field::INGRESS])),
            egress: WallTime(BigEndian::read_u64(&bytes[field::EGRESS])),
        })
    }

    /// Writes the stamp to the front of `out`.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than [`STAMP_LEN`].
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..STAMP_LEN];
        BigEndian::write_u64(&mut out[field::NODE], self.node);
        out[field::HOP] = self.hop;
        out[field::DIRECTION] = self.direction.to_wire();
        out[field::GENERATION] = self.generation;
        out[field::FLAGS] = self.flags.0;
        BigEndian::write_u32(&mut out[field::HELD_MICROS], self.held.as_micros_u32());
        BigEndian::write_u64(&mut out[field::ARRIVAL], self.arrival.map_or(0, |t| t.0));
        BigEndian::write_u64(&mut out[field::INGRESS], self.ingress.0);
        BigEndian::write_u64(&mut out[field::EGRESS], self.egress.0);
    }
}

/// The parts of a stamp that [`set_egress`] writes, as offsets: generation and flags, which are
/// adjacent, and the time.
pub(super) const fn egress_parts() -> (Range<usize>, Range<usize>) {
    (field::GENERATION..field::FLAGS + 1, field::EGRESS)
}

/// Writes the egress time into a stamp that is complete otherwise, as the last step before the
/// send.
///
/// `generation` is that of the clock at that moment. If it differs from the stamp's, the clock was
/// stepped in between, and a flag marks that.
///
/// # Panics
///
/// If `stamp` is shorter than [`STAMP_LEN`].
pub fn set_egress(stamp: &mut [u8], egress: WallTime, generation: u8) {
    let stamp = &mut stamp[..STAMP_LEN];
    BigEndian::write_u64(&mut stamp[field::EGRESS], egress.0);
    if stamp[field::GENERATION] != generation {
        stamp[field::GENERATION] = generation;
        stamp[field::FLAGS] |= StampFlags::STEPPED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; STAMP_LEN] = [
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, // node id
        2, 1, 5, 1, // hop, direction, generation, flags
        0x00, 0x00, 0x03, 0xe8, // held: 1000 us
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // arrival: unknown
        0x18, 0x7a, 0x1f, 0x00, 0x00, 0x00, 0x00, 0x01, // ingress
        0x18, 0x7a, 0x1f, 0x00, 0x00, 0x00, 0x00, 0x09, // egress
    ];

    fn sample() -> Stamp {
        Stamp {
            node: 0x0123_4567_89ab_cdef,
            hop: 2,
            direction: StampDirection::Forward,
            generation: 5,
            flags: StampFlags(StampFlags::SYNCHRONISED),
            held: Nanos::from_millis(1),
            arrival: None,
            ingress: WallTime(0x187a_1f00_0000_0001),
            egress: WallTime(0x187a_1f00_0000_0009),
        }
    }

    #[test]
    fn the_flag_bits_are_those_of_the_wire() {
        let bits = [
            StampFlags::SYNCHRONISED,
            StampFlags::STEPPED,
            StampFlags::WAITED,
        ];
        assert_eq!(bits, [1, 2, 4]);
        let mut golden = GOLDEN;
        golden[11] = 4;
        let waited = Stamp::parse(&golden).unwrap();
        assert!(waited.flags.has(StampFlags::WAITED));
        let mut bytes = [0; STAMP_LEN];
        waited.emit(&mut bytes);
        assert_eq!(bytes, golden);
    }

    #[test]
    fn golden_bytes_are_written_and_read() {
        let mut out = [0xa5; STAMP_LEN]; // Dirty on purpose: emit has to write every byte.
        sample().emit(&mut out);
        assert_eq!(out, GOLDEN);
        assert_eq!(Stamp::parse(&GOLDEN), Ok(sample()));
    }

    #[test]
    fn every_truncation_is_incomplete() {
        for len in 0..STAMP_LEN {
            assert_eq!(
                Stamp::parse(&GOLDEN[..len]),
                Err(ParseError::Incomplete {
                    missing: STAMP_LEN - len
                })
            );
        }
    }

    #[test]
    fn directions_are_three_and_others_are_errors() {
        for byte in 0..=255 {
            let mut bytes = GOLDEN;
            bytes[9] = byte;
            assert_eq!(Stamp::parse(&bytes).is_ok(), (1..=3).contains(&byte));
        }
    }

    #[test]
    fn the_egress_is_set_last_and_marks_a_step_in_between() {
        let mut bytes = GOLDEN;
        set_egress(&mut bytes, WallTime(77), 5);
        let stamp = Stamp::parse(&bytes).unwrap();
        assert_eq!(stamp.egress, WallTime(77));
        assert!(!stamp.flags.has(StampFlags::STEPPED) && stamp.generation == 5);
        set_egress(&mut bytes, WallTime(78), 6);
        let stamp = Stamp::parse(&bytes).unwrap();
        assert!(stamp.flags.has(StampFlags::STEPPED) && stamp.generation == 6);
    }

    #[test]
    fn a_pump_held_for_hours_saturates_instead_of_wrapping() {
        let mut out = [0; STAMP_LEN];
        let long = Stamp {
            held: Nanos(u64::MAX),
            ..sample()
        };
        long.emit(&mut out);
        assert_eq!(
            Stamp::parse(&out).unwrap().held,
            Nanos::from_micros(u64::from(u32::MAX))
        );
    }
}
