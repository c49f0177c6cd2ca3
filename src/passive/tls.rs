//! The first records of a TLS connection in; the times of its handshake and the name that the
//! client asks for out. Nothing is decrypted.
//!
//! Read RFC 8446 §4.1 and §5.1 first, RFC 6066 §3 for the name.

use super::http::Http;
use super::packet::{TcpSegment, ACK, FIN, RST, SYN};
use super::reassembly::{distance, Piece, Stream};
use super::side::Side;
use crate::time::{SignedNanos, WallTime};

/// The longest hello that is gathered.
const MAX_HELLO: usize = 16 * 1024;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// The content type of records with application data.
pub(super) const APPLICATION_DATA: u8 = 23;
/// The version of TLS 1.3.
pub(super) const TLS_1_3: u16 = 0x0304;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// The random number of a ServerHello that asks for another ClientHello (RFC 8446 §4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The content of the first records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// The name that the client asks for; `None` if it names none, or what it names is not a host
    /// name.
    pub sni: Option<Box<str>>,
    /// The version that the server chose, 0x0303 or 0x0304; `None` if its hello was not seen in
    /// full.
    pub version: Option<u16>,
    /// First packet of the ClientHello, of the second one after a request to retry.
    pub client_hello: Option<WallTime>,
    /// First packet of the ServerHello.
    pub server_hello: Option<WallTime>,
    /// First packet of the client after the server's flight; in TLS 1.2 that of its Finished.
    pub client_finished: Option<WallTime>,
}

impl Handshake {
    /// From the ClientHello to the ServerHello.
    pub fn to_server_hello(&self) -> Option<SignedNanos> {
        Some(self.server_hello? - self.client_hello?)
    }

    /// From the ServerHello to the client's answer.
    pub fn to_client_finished(&self) -> Option<SignedNanos> {
        Some(self.client_finished? - self.server_hello?)
    }

    /// The version as text.
    pub fn version_name(&self) -> Option<&'static str> {
        match self.version? {
            0x0301 => Some("1.0"),
            0x0302 => Some("1.1"),
            0x0303 => Some("1.2"),
            0x0304 => Some("1.3"),
            _ => None,
        }
    }
}

/// The records of a packet that begins with one, as far as their headers are there: type and
/// length.
pub(super) struct Records<'a> {
    pub rest: &'a [u8],
}

impl Iterator for Records<'_> {
    type Item = (u8, usize);

    fn next(&mut self) -> Option<(u8, usize)> {
        let [kind, _, _, high, low, ..] = *self.rest else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        self.rest = self.rest.get(5 + length..).unwrap_or(&[]);
        Some((kind, length))
    }
}

/// The state of a direction.
#[derive(Clone, Debug, Default)]
struct End {
    stream: Stream,
    header: [u8; 5],
    /// Bytes of the header that are there.
    gathered: usize,
    /// Bytes left of the record.
    left: usize,
    /// The hello, as far as it is there.
    hello: Vec<u8>,
    /// Set while a hello is gathered.
    in_hello: bool,
    /// The time at which the record or hello began, and the acknowledgment of that packet.
    began: (WallTime, Option<u32>),
    /// First number of the hello.
    hello_seq: u32,
    cipher_changed: bool,
    /// Set before the first byte of a record of the handshake that is no hello so far.
    begins: bool,
}

/// Reads a handshake.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    pub found: Handshake,
    ends: [End; 2],
    retried: bool,
    /// Set if the capture does not have the ClientHello.
    is_late: bool,
    /// Set if the client's answer to the ServerHello may have passed unseen.
    is_unsure: bool,
    /// Set when there is no more to learn.
    pub over: bool,
    /// Set if the first bytes turned out to be those of something else.
    pub refuted: bool,
}

/// Returns `true` if a payload begins with the hello of its end, or the client's may be.
#[inline]
pub(super) fn begins_hello(side: Side, payload: &[u8]) -> bool {
    match (side, payload) {
        (Side::Client, [HANDSHAKE] | [HANDSHAKE, 3]) => true,
        (Side::Client, [HANDSHAKE, 3, 0..=4, rest @ ..]) => {
            rest.get(2).map_or(true, |kind| *kind == CLIENT_HELLO)
        }
        (Side::Server, [HANDSHAKE, 3, 0..=4, _, _, SERVER_HELLO, ..]) => true,
        _ => false,
    }
}

/// Returns `true` if a payload may begin with the header of a record.
#[inline]
pub(super) fn begins_record(payload: &[u8]) -> bool {
    matches!(
        payload,
        [CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3, 0..=4, ..]
    )
}

impl Reader {
    /// A reader; `next` are the numbers of the first bytes of both ends, `first` is the end whose
    /// hello is the first in the capture.
    pub(super) fn new(next: [Option<u32>; 2], first: Side) -> Self {
        let mut reader = Self {
            is_late: first == Side::Server,
            ..Self::default()
        };
        for (end, next) in reader.ends.iter_mut().zip(next) {
            next.into_iter().for_each(|next| end.stream.begin(next));
        }
        reader
    }

    /// Returns a reader of what waits in that of HTTP, if that has read nothing and the segment
    /// begins with a hello.
    pub(super) fn instead_of(
        http: &mut Http,
        sender: Side,
        segment: &TcpSegment<'_>,
    ) -> Option<Self> {
        let streams = http
            .unread()
            .filter(|_| begins_hello(sender, segment.payload))?;
        let seq = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        if streams[sender as usize]
            .next()
            .is_some_and(|next| next != seq)
        {
            return None;
        }
        if sender == Side::Server {
            let ack = segment.has(ACK).then_some(segment.ack);
            return Some(Self::new([ack, Some(seq)], sender));
        }
        let mut reader = Self::default();
        for (end, stream) in reader.ends.iter_mut().zip(streams) {
            end.stream = std::mem::take(stream);
        }
        Some(reader)
    }

    /// Returns the bytes of memory that its bounds are about.
    pub(super) fn memory(&self) -> usize {
        let of = |end: &End| end.hello.capacity() + end.stream.memory();
        self.ends.iter().map(of).sum()
    }

    /// Takes a segment as it passed.
    pub(super) fn segment(&mut self, now: WallTime, side: Side, segment: &TcpSegment<'_>) {
        let ack = segment.has(ACK).then_some(segment.ack);
        if let Some(ack) = ack {
            self.ends[side.other() as usize]
                .stream
                .acknowledge(ack, now);
        }
        self.drain(now);
        let seq = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        if segment.payload_len > 0 && !segment.has(RST) {
            let piece = Piece {
                time: now,
                latest: now,
                seq,
                ack,
                length: segment.payload_len,
                payload: segment.payload,
                apart: false,
                missing: 0,
            };
            let spare = self.spare(side);
            if let Some(piece) = self.ends[side as usize].stream.offer(piece, spare) {
                self.piece(side, piece);
            }
        }
        self.drain(now);
        self.over |= segment.flags & (FIN | RST) != 0;
    }

    /// Reads what no longer waits.
    fn drain(&mut self, now: WallTime) {
        for side in Side::BOTH {
            loop {
                let spare = self.spare(side);
                let ready = self.ends[side as usize].stream.ready(Some(now), spare);
                let Some(held) = ready else { break };
                self.piece(side, held.piece());
            }
        }
    }

    /// Ends the search and lets go of its memory.
    pub(super) fn give_up(&mut self) {
        self.over = true;
        self.ends = Default::default();
    }

    fn spare(&self, side: Side) -> u64 {
        let end = &self.ends[side as usize];
        match end.in_hello {
            true => 0,
            false => end.left as u64,
        }
    }

    fn piece(&mut self, side: Side, piece: Piece<'_>) {
        if self.over || !self.skip(side, piece.missing as usize) {
            return self.give_up();
        }
        let mut rest = piece.payload;
        let mut at = piece.seq;
        while !rest.is_empty() && !self.over {
            let used = self.step(side, &piece, at, rest);
            rest = &rest[used..];
            at = at.wrapping_add(used as u32);
        }
        let cut = (piece.length as usize).saturating_sub(piece.payload.len());
        if !self.over && !self.skip(side, cut) {
            self.give_up();
        }
    }

    /// Passes over bytes that are not there; `false` if the place is lost.
    fn skip(&mut self, side: Side, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let end = &mut self.ends[side as usize];
        if end.in_hello {
            // What was cut off is not needed for the times.
            end.in_hello = false;
            let hello = std::mem::take(&mut end.hello);
            if side == Side::Server && is_retry(&hello) {
                self.retry();
            }
        }
        let end = &mut self.ends[side as usize];
        match end.left.checked_sub(bytes) {
            Some(left) if end.gathered == 5 || end.gathered == 0 => {
                end.left = left;
                if left == 0 {
                    end.gathered = 0;
                }
                true
            }
            _ => false,
        }
    }

    /// Takes bytes off the front of `bytes`, which is not empty; how many.
    fn step(&mut self, side: Side, piece: &Piece<'_>, at: u32, bytes: &[u8]) -> usize {
        let end = &mut self.ends[side as usize];
        if end.gathered < 5 {
            if end.gathered == 0 && !end.in_hello {
                end.began = (piece.time, piece.ack);
            }
            end.begins = false;
            end.header[end.gathered] = bytes[0];
            end.gathered += 1;
            if end.gathered == 5 {
                end.left = usize::from(u16::from_be_bytes([end.header[3], end.header[4]]));
                self.record(side, at.wrapping_sub(4));
                if self.ends[side as usize].left == 0 {
                    self.ends[side as usize].gathered = 0;
                }
            }
            return 1;
        }
        let is_again = end.begins && bytes[0] == CLIENT_HELLO && self.found.version.is_none();
        end.begins = false;
        if is_again && side == Side::Client && !self.retried {
            // The ServerHello was cut off before it said so.
            let time = end.began.0;
            self.retry();
            self.found.client_hello = Some(time);
        }
        let end = &mut self.ends[side as usize];
        let used = end.left.min(bytes.len());
        end.left -= used;
        if end.left == 0 {
            end.gathered = 0;
        }
        if end.in_hello {
            let room = MAX_HELLO - end.hello.len();
            end.hello.extend_from_slice(&bytes[..used.min(room)]);
            self.hello(side);
        }
        used
    }

    /// Takes the header of a record.
    fn record(&mut self, side: Side, seq: u32) {
        let end = &mut self.ends[side as usize];
        let kind = end.header[0];
        if end.header[1] != 3 || !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) {
            self.refuted |= self.found.client_hello.is_none() && !self.is_late;
            return self.give_up();
        }
        let hello_due = match side {
            Side::Client => self.found.client_hello.is_none() && !self.is_late,
            Side::Server => self.found.server_hello.is_none(),
        };
        if kind == ALERT {
            return self.give_up();
        }
        if hello_due && kind == HANDSHAKE {
            if !end.in_hello {
                end.in_hello = true;
                end.hello_seq = seq;
                let time = end.began.0;
                match side {
                    Side::Client => self.found.client_hello = Some(time),
                    Side::Server => self.found.server_hello = Some(time),
                }
            }
            return;
        }
        if side == Side::Server {
            return;
        }
        if self.found.server_hello.is_none() {
            // It may answer a hello that is still to be read.
            let read = self.ends[Side::Server as usize].stream.next();
            let ack = self.ends[Side::Client as usize].began.1;
            let unread = ack.zip(read).map(|(ack, read)| distance(ack, read) > 0);
            self.is_unsure |= unread == Some(true);
            return;
        }
        let server_seq = self.ends[Side::Server as usize].hello_seq;
        let client = &mut self.ends[Side::Client as usize];
        // Early data was sent before the server's flight.
        let (time, ack) = client.began;
        let after = ack.map_or(true, |ack| distance(ack, server_seq) > 0);
        if !after || client.in_hello {
            return;
        }
        match (self.found.version, kind) {
            _ if self.is_unsure => self.give_up(),
            (Some(0x0304), _) => {
                self.found.client_finished = Some(time);
                self.give_up();
            }
            (None, HANDSHAKE) => client.begins = true,
            (_, CHANGE_CIPHER_SPEC) => client.cipher_changed = true,
            (Some(_), HANDSHAKE) if client.cipher_changed => {
                self.found.client_finished = Some(time);
                self.give_up();
            }
            (_, APPLICATION_DATA) => self.give_up(),
            _ => {}
        }
    }

    /// Waits for other hellos instead of those so far.
    fn retry(&mut self) {
        self.retried = true;
        self.is_late = false;
        self.found.client_hello = None;
        self.found.server_hello = None;
    }

    /// Looks at a hello that grows.
    fn hello(&mut self, side: Side) {
        let end = &mut self.ends[side as usize];
        let [kind, high, middle, low] = match end.hello.get(..4) {
            Some(head) => [head[0], head[1], head[2], head[3]],
            None => return,
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize + 4;
        let expected = match side {
            Side::Client => CLIENT_HELLO,
            Side::Server => SERVER_HELLO,
        };
        if kind != expected {
            match side {
                Side::Client => {
                    self.refuted = self.found.client_hello.take().is_some() && !self.retried;
                }
                Side::Server => self.found.server_hello = None,
            }
            return self.give_up();
        }
        if end.hello.len() < length && end.hello.len() < MAX_HELLO {
            return;
        }
        end.in_hello = false;
        let hello = std::mem::take(&mut end.hello);
        let body = &hello[4..length.min(hello.len())];
        match side {
            Side::Client => {
                let sni = extension(body, side, 0).and_then(server_name);
                self.found.sni = sni.or(self.found.sni.take());
            }
            Side::Server if is_retry(&hello) && !self.retried => self.retry(),
            Side::Server => {
                let legacy = body
                    .get(..2)
                    .map(|two| u16::from_be_bytes([two[0], two[1]]));
                let chosen = extension(body, side, 43).and_then(|value| value.get(..2));
                let chosen = chosen.map(|two| u16::from_be_bytes([two[0], two[1]]));
                self.found.version = chosen.or(legacy);
            }
        }
    }
}

/// Returns `true` if a ServerHello, as far as it is there, asks for another ClientHello.
fn is_retry(hello: &[u8]) -> bool {
    hello.get(6..38) == Some(&RETRY)
}

/// Takes `bytes` bytes off the front.
fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let taken = rest.get(..bytes)?;
    *rest = &rest[bytes..];
    Some(taken)
}

/// Takes a vector off the front whose length has this many bytes.
fn take_vector<'a>(rest: &mut &'a [u8], length_bytes: usize) -> Option<&'a [u8]> {
    let length = take(rest, length_bytes)?;
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    take(rest, length)
}

/// Finds an extension in the body of a hello.
fn extension(body: &[u8], side: Side, wanted: u16) -> Option<&[u8]> {
    let mut rest = body;
    take(&mut rest, 34)?;
    take_vector(&mut rest, 1)?;
    match side {
        Side::Client => {
            take_vector(&mut rest, 2)?;
            take_vector(&mut rest, 1)?;
        }
        Side::Server => {
            take(&mut rest, 3)?;
        }
    }
    // A hello beyond the bound is cut; its first extensions are there.
    take(&mut rest, 2)?;
    loop {
        let kind = take(&mut rest, 2)?;
        let value = take_vector(&mut rest, 2)?;
        if u16::from_be_bytes([kind[0], kind[1]]) == wanted {
            return Some(value);
        }
    }
}

/// The host name in the extension's value.
fn server_name(value: &[u8]) -> Option<Box<str>> {
    let mut rest = value;
    let mut list = take_vector(&mut rest, 2)?;
    if take(&mut list, 1)? != [0] {
        return None;
    }
    let name = std::str::from_utf8(take_vector(&mut list, 2)?).ok()?;
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = !name.is_empty() && name.len() <= 255 && name.bytes().all(clean);
    is_name.then(|| name.into())
}
