//! Frames that only holders of a shared key can make: the authentication trailer, and the key
//! agreement between the two ends of a link.
//!
//! A link is one TCP connection between two nodes. Both ends send HELLO first, with a nonce each,
//! the one that connected before the other. Neither HELLO is authenticated or passed on. From the
//! node key and both HELLO payloads each end derives two link keys, one per direction. So a frame
//! recorded on another link, or in the other direction, is wrong here. Every later frame ends in a
//! tag, SipHash-2-4 under the link key of its direction, over
//!
//! ```text
//! number of the frame on this link and direction, from 0, 8 bytes
//! | the frame up to the trailer, without what follows:
//! | generation, flags | egress   (of the frame's last stamp, if it has one)
//! ```
//!
//! The number makes a frame wrong that was left out, repeated or moved; it is not sent. The egress
//! time comes last, so that all the rest is hashed before the clock is read. Relays verify each
//! frame and compute its tag anew.
//!
//! It is no secrecy, and no defence against a holder of the key. A tag of 64 bits is guessed once
//! in 2^64 tries, and each wrong one costs the connection.

use super::frame_type::FrameType;
use super::header::{Flags, Header, HEADER_LEN};
use super::siphash::{Key, SipHash};
use super::stamp::{egress_parts, STAMP_LEN};
use super::{build, ParseError};
use byteorder::{BigEndian, ByteOrder};

/// Length of the trailer: the tag alone.
pub const TAG_LEN: usize = 8;

/// Length of a HELLO's payload.
const HELLO_LEN: usize = 24;

mod field {
    use std::ops::Range;
    pub(super) const METHOD: usize = 0;
    pub(super) const NONCE: Range<usize> = 8..24;
}

/// The only method: SipHash-2-4 with 64 bits of output.
const SIPHASH: u8 = 1;

/// The first payload of one end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello([u8; HELLO_LEN]);

impl Hello {
    /// Makes a HELLO with a nonce that this node has never used before.
    pub fn new(nonce: u128) -> Self {
        let mut payload = [0; HELLO_LEN];
        payload[field::METHOD] = SIPHASH;
        BigEndian::write_u128(&mut payload[field::NONCE], nonce);
        Self(payload)
    }

    /// Reads the payload of a HELLO frame.
    ///
    /// # Errors
    ///
    /// [`ParseError::Content`] if its length or its method is unknown.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        match <[u8; HELLO_LEN]>::try_from(payload) {
            Ok(payload @ [SIPHASH, ..]) => Ok(Self(payload)),
            _ => Err(ParseError::Content {
                part: "HELLO frame",
            }),
        }
    }

    /// Returns the frame; `hop` is that of the node that sends it.
    pub fn frame(&self, cookie: u64, hop: u8, flags: Flags) -> Vec<u8> {
        let header = Header {
            flags,
            hop,
            ..Header::new(FrameType::Hello, cookie, 0)
        };
        build(header, &[], &[], &self.0)
    }
}

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// Connected.
    Connector,
    /// Accepted.
    Acceptor,
}

/// Returns the two halves of a link's authentication, for sending and receiving. `own` and `peer`
/// are the HELLOs of both ends.
pub fn link(key: &Key, end: LinkEnd, own: &Hello, peer: &Hello) -> (Sealer, Verifier) {
    let (connector, acceptor, sending, receiving) = match end {
        LinkEnd::Connector => (own, peer, 1, 2),
        LinkEnd::Acceptor => (peer, own, 2, 1),
    };
    let derived = |direction: u8| {
        let mut derived = Key([0; 16]);
        for (half, out) in (0..).zip(derived.0.chunks_exact_mut(8)) {
            let mut hash = SipHash::new(key);
            hash.update(b"link");
            hash.update(&[direction, half]);
            hash.update(&connector.0);
            hash.update(&acceptor.0);
            BigEndian::write_u64(out, hash.finish());
        }
        Numbered {
            key: derived,
            next: 0,
        }
    };
    (Sealer(derived(sending)), Verifier(derived(receiving)))
}

/// A link key and the number of the next frame in its direction.
#[derive(Debug)]
struct Numbered {
    key: Key,
    next: u64,
}

impl Numbered {
    /// Hashes the next frame, except the end that may still change.
    fn begin(&mut self, header: &Header, frame: &[u8]) -> Sealing {
        let mut hash = SipHash::new(&self.key);
        hash.update(&self.next.to_be_bytes());
        self.next += 1; // 2^64 frames do not come.
        let tag_at = header.frame_len() - usize::from(header.authentication_len);
        let stamp_at = (header.stamps > 0).then(|| header.annotations_at() - STAMP_LEN);
        match stamp_at {
            None => hash.update(&frame[..tag_at]),
            Some(at) => {
                let (late, egress) = egress_parts();
                hash.update(&frame[..at + late.start]);
                hash.update(&frame[at + late.end..at + egress.start]);
                hash.update(&frame[at + egress.end..tag_at]);
            }
        }
        Sealing {
            hash,
            stamp_at,
            tag_at,
        }
    }
}

/// A frame that is hashed except for its egress time.
#[derive(Clone, Debug)]
pub struct Sealing {
    hash: SipHash,
    stamp_at: Option<usize>,
    tag_at: usize,
}

impl Sealing {
    fn tag(mut self, frame: &[u8]) -> [u8; TAG_LEN] {
        if let Some(at) = self.stamp_at {
            let (late, egress) = egress_parts();
            self.hash.update(&frame[at + late.start..at + late.end]);
            self.hash.update(&frame[at + egress.start..at + egress.end]);
        }
        self.hash.finish().to_be_bytes()
    }

    /// Writes the tag. `frame` is the one that it was begun with; only the egress, generation and
    /// flags of the last stamp may have changed since.
    pub fn finish(self, frame: &mut [u8]) {
        let at = self.tag_at;
        let tag = self.tag(frame);
        frame[at..at + TAG_LEN].copy_from_slice(&tag);
    }
}

/// Seals the frames that are sent on a link, in their order.
#[derive(Debug)]
pub struct Sealer(Numbered);

impl Sealer {
    /// Hashes the frame at the front of `frame`, except its egress time.
    ///
    /// # Panics
    ///
    /// If the header has no [room](make_room) for the tag.
    pub fn begin(&mut self, header: &Header, frame: &[u8]) -> Sealing {
        assert_eq!(usize::from(header.authentication_len), TAG_LEN);
        self.0.begin(header, frame)
    }

    /// Seals a frame whose egress time is final.
    ///
    /// # Panics
    ///
    /// Like [`begin`](Self::begin), or if `frame` does not begin with a header.
    pub fn seal(&mut self, frame: &mut [u8]) {
        let header = Header::parse(frame).expect("it was built here");
        self.begin(&header, frame).finish(frame);
    }
}

/// Verifies the frames that are received on a link, in their order.
#[derive(Debug)]
pub struct Verifier(Numbered);

impl Verifier {
    /// Checks the next frame; `frame` is all of it.
    ///
    /// # Errors
    ///
    /// [`ParseError::Unauthenticated`] or [`ParseError::Tag`]; the link is of no use then.
    pub fn check(&mut self, header: &Header, frame: &[u8]) -> Result<(), ParseError> {
        match usize::from(header.authentication_len) {
            0 => return Err(ParseError::Unauthenticated),
            TAG_LEN => {}
            _ => return Err(ParseError::Tag),
        }
        let sealing = self.0.begin(header, frame);
        let seen = &frame[sealing.tag_at..sealing.tag_at + TAG_LEN];
        let tag = sealing.tag(frame);
        // All bytes are compared, so that the time does not depend on the place of a difference.
        let differ = tag.iter().zip(seen).fold(0, |all, (a, b)| all | (a ^ b));
        if std::hint::black_box(differ) == 0 {
            Ok(())
        } else {
            Err(ParseError::Tag)
        }
    }
}

/// Makes room for the tag in a frame that was [built](build()) here.
pub fn make_room(frame: &mut Vec<u8>) {
    let mut header = Header::parse(frame).expect("it was built here");
    debug_assert_eq!(
        (header.authentication_len, header.header_len),
        (0, HEADER_LEN)
    );
    header.authentication_len = TAG_LEN as u8;
    header.emit(frame);
    frame.resize(header.frame_len(), 0);
}

#[cfg(test)]
mod tests {
    use super::super::{set_egress, Stamp, StampDirection};
    use super::*;
    use crate::time::WallTime;

    const KEY: Key = Key([7; 16]);

    fn hellos() -> (Hello, Hello) {
        (Hello::new(1), Hello::new(2))
    }

    /// Both ends of a link, the connector's first.
    fn ends(key: &Key, other: &Key) -> ((Sealer, Verifier), (Sealer, Verifier)) {
        let (connector, acceptor) = hellos();
        (
            link(key, LinkEnd::Connector, &connector, &acceptor),
            link(other, LinkEnd::Acceptor, &acceptor, &connector),
        )
    }

    fn frame(payload: &[u8], stamps: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for hop in 0..stamps {
            let stamp = Stamp {
                egress: WallTime(200),
                ..Stamp::new(9, hop, StampDirection::Forward, WallTime(100))
            };
            bytes.resize(bytes.len() + STAMP_LEN, 0);
            let at = bytes.len() - STAMP_LEN;
            stamp.emit(&mut bytes[at..]);
        }
        let header = Header::new(FrameType::Block, 5, 6);
        let mut frame = build(header, &bytes, &[], payload);
        make_room(&mut frame);
        frame
    }

    fn check(verifier: &mut Verifier, frame: &[u8]) -> Result<(), ParseError> {
        verifier.check(&Header::parse(frame).unwrap(), frame)
    }

    #[test]
    fn golden_bytes_of_a_hello_are_written_and_read_and_every_truncation_is_refused() {
        let hello = Hello::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        let golden = [
            1, 0, 0, 0, 0, 0, 0, 0, // method, reserved
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, // nonce
        ];
        assert_eq!(hello.0, golden);
        assert_eq!(Hello::parse(&golden), Ok(hello));
        let frame = hello.frame(5, 3, Flags(Flags::RETURN));
        assert_eq!(frame.len(), HEADER_LEN + HELLO_LEN);
        let header = Header::parse(&frame).unwrap();
        assert_eq!((header.kind, header.hop), (FrameType::Hello, 3));
        for len in 0..golden.len() {
            assert!(Hello::parse(&golden[..len]).is_err(), "{len}");
        }
        assert!(Hello::parse(&[&golden[..], &[0]].concat()).is_err());
        let other_method = [2; HELLO_LEN];
        assert!(Hello::parse(&other_method).is_err());
    }

    /// As the docs above, with std's SipHash.
    #[allow(deprecated)]
    fn by_the_book(number: u64, frame: &[u8]) -> [u8; 8] {
        use std::hash::{Hasher, SipHasher};
        let words = |key: &[u8]| {
            let word = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().unwrap());
            SipHasher::new_with_keys(word(0), word(8))
        };
        let (connector, acceptor) = hellos();
        let mut key = Vec::new();
        for half in 0..2 {
            let mut hasher = words(&KEY.0);
            hasher.write(&[b"link", &[1, half][..], &connector.0, &acceptor.0].concat());
            key.extend(hasher.finish().to_be_bytes());
        }
        let header = Header::parse(frame).unwrap();
        let stamp = header.annotations_at() - STAMP_LEN;
        let parts = [
            &number.to_be_bytes()[..],
            &frame[..stamp + 10],
            &frame[stamp + 12..stamp + 32],
            &frame[stamp + 40..frame.len() - 8],
            &frame[stamp + 10..stamp + 12],
            &frame[stamp + 32..stamp + 40],
        ];
        let mut hasher = words(&key);
        hasher.write(&parts.concat());
        hasher.finish().to_be_bytes()
    }

    #[test]
    fn golden_tags_match_the_docs() {
        let ((mut sealer, _), _) = ends(&KEY, &KEY);
        for number in 0..3 {
            let mut sealed = frame(b"payload", 2);
            sealer.seal(&mut sealed);
            assert_eq!(sealed[sealed.len() - 8..], by_the_book(number, &sealed));
        }
        let ((mut sealer, _), _) = ends(&KEY, &KEY);
        let mut sealed = frame(b"payload", 2);
        sealer.seal(&mut sealed);
        assert_eq!(sealed.len(), HEADER_LEN + 2 * STAMP_LEN + 7 + TAG_LEN);
        let golden = GOLDEN_TAG;
        assert_eq!(sealed[sealed.len() - 8..], golden);
    }

    /// Pinned, so that both ends of a link cannot change together unnoticed.
    const GOLDEN_TAG: [u8; 8] = [176, 230, 253, 55, 229, 190, 9, 151];

    #[test]
    fn what_one_end_seals_the_other_accepts_in_both_directions() {
        let ((mut out, mut back), (mut answer, mut verify)) = ends(&KEY, &KEY);
        for len in 0..40 {
            for stamps in 0..3 {
                let mut sealed = frame(&vec![3; len], stamps);
                out.seal(&mut sealed);
                assert_eq!(check(&mut verify, &sealed), Ok(()), "{len} {stamps}");
                let mut sealed = frame(&vec![4; len], stamps);
                answer.seal(&mut sealed);
                assert_eq!(check(&mut back, &sealed), Ok(()), "{len} {stamps}");
            }
        }
    }

    #[test]
    fn the_egress_time_may_be_set_after_all_the_rest_was_hashed() {
        let ((mut out, _), (_, mut verify)) = ends(&KEY, &KEY);
        for generation in [0, 1] {
            let mut sealed = frame(b"payload", 2);
            let header = Header::parse(&sealed).unwrap();
            let sealing = out.begin(&header, &sealed);
            let at = header.annotations_at() - STAMP_LEN;
            set_egress(&mut sealed[at..], WallTime(777), generation);
            sealing.finish(&mut sealed);
            assert_eq!(check(&mut verify, &sealed), Ok(()));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for stamps in [0, 2] {
            let ((mut out, _), _) = ends(&KEY, &KEY);
            let mut sealed = frame(b"payload", stamps);
            out.seal(&mut sealed);
            for bit in (0..sealed.len() * 8).filter(|bit| !(44 * 8..48 * 8).contains(bit)) {
                let mut bent = sealed.clone();
                bent[bit / 8] ^= 1 << (bit % 8);
                // An attacker that alters a header computes its check anew.
                let Ok(header) = Header::parse(&with_check(&mut bent)) else {
                    continue; // Refused before.
                };
                if header.frame_len() != bent.len() {
                    continue; // Another length: it waits for bytes, or leaves some.
                }
                let (_, (_, mut verify)) = ends(&KEY, &KEY);
                let verdict = verify.check(&header, &bent);
                assert!(verdict.is_err(), "bit {bit}, {stamps} stamps");
            }
        }
    }

    fn with_check(frame: &mut [u8]) -> Vec<u8> {
        let check = super::super::crc::crc32(&frame[..44]);
        BigEndian::write_u32(&mut frame[44..48], check);
        frame.to_vec()
    }

    #[test]
    fn frames_left_out_repeated_moved_or_turned_round_are_wrong() {
        let make = || {
            let ((mut out, _), _) = ends(&KEY, &KEY);
            let seal = |n: u8| {
                let mut sealed = frame(&[n], 1);
                out.seal(&mut sealed);
                sealed
            };
            [0, 1, 2].map(seal)
        };
        let frames = make();
        for (order, good) in [
            (&[0, 1, 2][..], 3),
            (&[1][..], 0),
            (&[0, 0][..], 1),
            (&[0, 2, 1][..], 1),
        ] {
            let (_, (_, mut verify)) = ends(&KEY, &KEY);
            for (at, &n) in order.iter().enumerate() {
                let expected = if at < good {
                    Ok(())
                } else {
                    Err(ParseError::Tag)
                };
                assert_eq!(
                    check(&mut verify, &frames[n]),
                    expected,
                    "{order:?} at {at}"
                );
                if at >= good {
                    break;
                }
            }
        }
        let ((_, mut back), _) = ends(&KEY, &KEY);
        assert_eq!(
            check(&mut back, &frames[0]),
            Err(ParseError::Tag),
            "sent back"
        );
    }

    #[test]
    fn another_key_another_nonce_and_no_tag_at_all_are_refused() {
        let ((mut out, _), _) = ends(&KEY, &KEY);
        let mut sealed = frame(b"x", 1);
        out.seal(&mut sealed);
        let (_, (_, mut other_key)) = ends(&KEY, &Key([8; 16]));
        assert_eq!(check(&mut other_key, &sealed), Err(ParseError::Tag));
        let (connector, _) = hellos();
        for (own, peer) in [
            (Hello::new(3), connector), // A recorded connector meets a new acceptor.
            (Hello::new(2), Hello::new(3)), // A recorded acceptor meets a new connector.
        ] {
            let (_, mut verify) = link(&KEY, LinkEnd::Acceptor, &own, &peer);
            assert_eq!(check(&mut verify, &sealed), Err(ParseError::Tag));
        }
        let bare = build(Header::new(FrameType::Block, 5, 6), &[], &[], b"x");
        let (_, (_, mut verify)) = ends(&KEY, &KEY);
        assert_eq!(check(&mut verify, &bare), Err(ParseError::Unauthenticated));
    }
}
