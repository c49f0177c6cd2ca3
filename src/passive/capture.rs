//! Capture bytes in, packets out: pcap (micro- and nanoseconds, both byte orders) and pcapng.
//!
//! Read draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng first. Nothing is read here: the edge
//! lends the bytes in pieces of any size through [`Stream`]. It keeps what one packet needs and no
//! more (at most [`MAX_BLOCK`]).
//!
//! A fault ends a capture: what follows a damaged length cannot be trusted.

use crate::time::WallTime;
use std::fmt;
use std::ops::Deref;

/// The greatest packet or block that is kept in memory; libpcap's own bound is 256 KiB.
pub const MAX_BLOCK: usize = 1 << 20;

/// The number of interfaces that one pcapng section may describe.
const MAX_INTERFACES: usize = 4096;

const PCAP_HEADER: usize = 24;
const PCAP_RECORD: usize = 16;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// The first `N` bytes, if there are as many.
#[inline]
pub(super) fn front<const N: usize>(bytes: &[u8]) -> Option<&[u8; N]> {
    bytes.get(..N)?.try_into().ok()
}

/// One captured packet, still with its link header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// On the capturing machine's wall clock; `None` if the packet has no usable time.
    pub time: Option<WallTime>,
    /// The LINKTYPE_ value of its interface.
    pub link: u16,
    /// The number of the interface that a live capture of all took it from, else 0.
    pub interface: u32,
    /// Bytes it had on the network; the snap length may have kept fewer.
    pub original: u32,
    /// The bytes that were kept.
    pub data: &'a [u8],
}

/// The place and the reason at which reading a capture ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the packet that would have been next; the first is 1.
    pub packet: u64,
    /// Offset in the capture of the record, block or header that is at fault.
    pub offset: u64,
    /// The fault.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "packet {} at offset {}: {}",
            self.packet, self.offset, self.kind
        )
    }
}

impl std::error::Error for Fault {}

/// A fault of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It begins with these bytes.
    NotACapture([u8; 4]),
    /// It has no byte.
    Empty,
    /// It ends inside a header, record or block: so many bytes are there, so many it takes.
    CutOff {
        /// Bytes that are there.
        have: u64,
        /// Bytes that are needed, as far as is known.
        need: u64,
    },
    /// A packet or block that claims more than [`MAX_BLOCK`].
    TooLong(u64),
    /// A pcapng block whose length is too small, not a multiple of four, or differs at its end.
    BlockLength(u32),
    /// A field inside a pcapng block that contradicts the block.
    Block(&'static str),
    /// Reading failed, in the words of the system.
    Read(String),
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotACapture([0x1f, 0x8b, ..]) => {
                f.write_str("compressed by gzip: pass it on with zcat FILE | ... passive -")
            }
            Self::NotACapture([0xa1, 0xb2, 0xcd, 0x34] | [0x34, 0xcd, 0xb2, 0xa1]) => f.write_str(
                "a \"modified\" pcap, as old Linux kernels had it: convert it with \
                 editcap -F pcap FILE NEW",
            ),
            Self::NotACapture(bytes) => {
                write!(
                    f,
                    "not a pcap or pcapng capture, it begins with {bytes:02x?}"
                )
            }
            Self::Empty => f.write_str("the capture is empty"),
            Self::CutOff { have, need } => {
                write!(
                    f,
                    "the capture is cut off, {have} of {need} bytes are there"
                )
            }
            Self::TooLong(bytes) => write!(f, "{bytes} bytes in one piece, over {MAX_BLOCK}"),
            Self::BlockLength(bytes) => write!(f, "a block length of {bytes} that cannot be"),
            Self::Block(what) => f.write_str(what),
            Self::Read(error) => write!(f, "read failed: {error}"),
        }
    }
}

/// The resolution of an interface's clock and its other options, as pcapng gives them.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    snap: u32,
    /// One tick is `1e9 / ticks_per_second` nanoseconds.
    ticks_per_second: u128,
    offset_seconds: i64,
}

impl Interface {
    fn time(&self, high: u32, low: u32) -> WallTime {
        let ticks = u64::from(high) << 32 | u64::from(low);
        let nanos = match self.ticks_per_second {
            1_000_000 => i128::from(ticks) * 1_000,
            1_000_000_000 => i128::from(ticks),
            // The product stays below 2^94.
            per_second => (u128::from(ticks) * 1_000_000_000 / per_second) as i128,
        } + i128::from(self.offset_seconds) * 1_000_000_000;
        WallTime(nanos.clamp(0, i128::from(u64::MAX)) as u64)
    }
}

/// Byte order of the file against big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    #[inline]
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        }
    }

    #[inline]
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }

    /// The four bytes at `at`; zero past the end, which callers have excluded.
    #[inline]
    fn u32_at(self, bytes: &[u8], at: usize) -> u32 {
        bytes
            .get(at..)
            .and_then(front)
            .map_or(0, |four| self.u32(*four))
    }
}

#[derive(Clone, Copy, Debug)]
enum Format {
    /// Nothing read yet.
    Unknown,
    Pcap {
        order: Order,
        link: u16,
        nanos_per_tick: u64,
    },
    Pcapng {
        order: Order,
    },
}

/// The content of the bytes lent so far.
enum Step<'a> {
    Packet(usize, Packet<'a>),
    /// So many bytes that held no packet.
    Used(usize),
    /// Nothing yet; a header, record or block needs so many bytes.
    Need(usize),
}

/// The formats' state machine, without a buffer.
#[derive(Debug)]
struct Decoder {
    format: Format,
    interfaces: Vec<Interface>,
    /// Bytes of a block of no interest that are still to come.
    discard: u64,
}

impl Decoder {
    #[inline]
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, FaultKind> {
        match self.format {
            Format::Pcap {
                order,
                link,
                nanos_per_tick,
            } => {
                let Some(header) = front::<PCAP_RECORD>(bytes) else {
                    return Ok(Step::Need(PCAP_RECORD));
                };
                let kept = order.u32_at(header, 8) as usize;
                if kept > MAX_BLOCK {
                    return Err(FaultKind::TooLong(kept as u64));
                }
                let end = PCAP_RECORD + kept;
                let Some(data) = bytes.get(PCAP_RECORD..end) else {
                    return Ok(Step::Need(end));
                };
                // The greatest sum is below 2^64. A fraction of a second or more is damage.
                let seconds = u64::from(order.u32_at(header, 0)) * 1_000_000_000;
                let fraction = u64::from(order.u32_at(header, 4)) * nanos_per_tick;
                let packet = Packet {
                    time: (fraction < 1_000_000_000).then_some(WallTime(seconds + fraction)),
                    link,
                    interface: 0,
                    original: order.u32_at(header, 12),
                    data,
                };
                Ok(Step::Packet(end, packet))
            }
            Format::Pcapng { order } => self.block(order, bytes),
            Format::Unknown => self.begin(bytes),
        }
    }

    fn begin<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, FaultKind> {
        let Some(magic) = front::<4>(bytes) else {
            return Ok(Step::Need(4));
        };
        let (order, nanos_per_tick) = match u32::from_be_bytes(*magic) {
            SECTION_HEADER => {
                // Its real byte order is read from the block itself.
                self.format = Format::Pcapng { order: Order::Big };
                return Ok(Step::Used(0));
            }
            0xa1b2_c3d4 => (Order::Big, 1_000),
            0xa1b2_3c4d => (Order::Big, 1),
            0xd4c3_b2a1 => (Order::Little, 1_000),
            0x4d3c_b2a1 => (Order::Little, 1),
            _ => return Err(FaultKind::NotACapture(*magic)),
        };
        let Some(header) = bytes.get(..PCAP_HEADER) else {
            return Ok(Step::Need(PCAP_HEADER));
        };
        self.format = Format::Pcap {
            order,
            // The upper half holds flags and the length of a frame check sequence.
            link: order.u32_at(header, 20) as u16,
            nanos_per_tick,
        };
        Ok(Step::Used(PCAP_HEADER))
    }

    fn block<'a>(&mut self, order: Order, bytes: &'a [u8]) -> Result<Step<'a>, FaultKind> {
        if self.discard > 0 {
            let now = usize::try_from(self.discard).map_or(bytes.len(), |n| n.min(bytes.len()));
            self.discard -= now as u64;
            return Ok(if now == 0 {
                Step::Need(1)
            } else {
                Step::Used(now)
            });
        }
        let Some(start) = front::<12>(bytes) else {
            return Ok(Step::Need(12));
        };
        let mut order = order;
        let kind = order.u32_at(start, 0);
        if kind == SECTION_HEADER {
            // A palindrome: the same in both orders.
            order = match order.u32_at(start, 8) {
                BYTE_ORDER_MAGIC => order,
                magic if magic.swap_bytes() == BYTE_ORDER_MAGIC => match order {
                    Order::Big => Order::Little,
                    Order::Little => Order::Big,
                },
                _ => return Err(FaultKind::Block("a section header without its byte order")),
            };
        }
        let length = order.u32_at(start, 4);
        if length < 12 || length % 4 != 0 {
            return Err(FaultKind::BlockLength(length));
        }
        let of_interest = matches!(
            kind,
            SECTION_HEADER
                | INTERFACE_DESCRIPTION
                | OBSOLETE_PACKET
                | SIMPLE_PACKET
                | ENHANCED_PACKET
        );
        if !of_interest {
            self.discard = u64::from(length);
            return Ok(Step::Used(0));
        }
        let length = length as usize;
        if length > MAX_BLOCK + 64 {
            return Err(FaultKind::TooLong(length as u64));
        }
        let Some(block) = bytes.get(..length) else {
            return Ok(Step::Need(length));
        };
        let trailing = order.u32_at(block, length - 4);
        if trailing as usize != length {
            return Err(FaultKind::BlockLength(trailing));
        }
        let body = &block[8..length - 4];
        match kind {
            SECTION_HEADER => {
                if body.len() < 16 {
                    return Err(FaultKind::BlockLength(length as u32));
                }
                self.format = Format::Pcapng { order };
                self.interfaces.clear();
                Ok(Step::Used(length))
            }
            INTERFACE_DESCRIPTION => {
                if self.interfaces.len() >= MAX_INTERFACES {
                    return Err(FaultKind::Block("more interfaces than 4096 in one section"));
                }
                self.interfaces.push(interface(order, body)?);
                Ok(Step::Used(length))
            }
            SIMPLE_PACKET => {
                let original = order.u32_at(body, 0);
                let data = body.get(4..).unwrap_or(&[]);
                let interface = self.interface(0)?;
                let snap = match interface.snap {
                    0 => original,
                    snap => snap.min(original),
                };
                let packet = Packet {
                    time: None,
                    link: interface.link,
                    interface: 0,
                    original,
                    data: kept(data, snap)?,
                };
                Ok(Step::Packet(length, packet))
            }
            _ => {
                let number = match kind {
                    ENHANCED_PACKET => order.u32_at(body, 0),
                    _ => u32::from(front(body).map_or(0, |two| order.u16(*two))),
                };
                let Some(data) = body.get(20..) else {
                    return Err(FaultKind::BlockLength(length as u32));
                };
                let interface = self.interface(number)?;
                let packet = Packet {
                    time: Some(interface.time(order.u32_at(body, 4), order.u32_at(body, 8))),
                    link: interface.link,
                    interface: 0,
                    original: order.u32_at(body, 16),
                    data: kept(data, order.u32_at(body, 12))?,
                };
                Ok(Step::Packet(length, packet))
            }
        }
    }

    fn interface(&self, number: u32) -> Result<&Interface, FaultKind> {
        let found = usize::try_from(number)
            .ok()
            .and_then(|n| self.interfaces.get(n));
        found.ok_or(FaultKind::Block(
            "a packet of an interface that was not described",
        ))
    }
}

fn kept(data: &[u8], length: u32) -> Result<&[u8], FaultKind> {
    let kept = usize::try_from(length)
        .ok()
        .and_then(|length| data.get(..length));
    kept.ok_or(FaultKind::Block("a packet longer than its block"))
}

fn interface(order: Order, body: &[u8]) -> Result<Interface, FaultKind> {
    let (Some(link), Some(_)) = (front(body), body.get(..8)) else {
        return Err(FaultKind::Block(
            "an interface description that is too short",
        ));
    };
    let mut interface = Interface {
        link: order.u16(*link),
        snap: order.u32_at(body, 4),
        ticks_per_second: 1_000_000,
        offset_seconds: 0,
    };
    let mut options = &body[8..];
    while let Some(head) = front::<4>(options) {
        let code = order.u16([head[0], head[1]]);
        let length = usize::from(order.u16([head[2], head[3]]));
        let Some(value) = options.get(4..4 + length) else {
            return Err(FaultKind::Block(
                "an interface option longer than its block",
            ));
        };
        match (code, value) {
            (0, _) => break,
            (9, [resolution]) => {
                let exponent = u32::from(resolution & 0x7f);
                let ticks = match resolution & 0x80 {
                    0 => 10_u128.checked_pow(exponent),
                    _ => 1_u128.checked_shl(exponent),
                };
                interface.ticks_per_second =
                    ticks.ok_or(FaultKind::Block("an impossible if_tsresol"))?;
            }
            (14, value) => {
                if let Ok(eight) = <[u8; 8]>::try_from(value) {
                    interface.offset_seconds = match order {
                        Order::Big => i64::from_be_bytes(eight),
                        Order::Little => i64::from_le_bytes(eight),
                    };
                }
            }
            _ => {}
        }
        options = options.get(4 + length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(interface)
}

/// A capture as it comes in: the edge fills, the analysis takes packets out.
///
/// ```
/// use subsegment_tcp_speeds::passive::Stream;
///
/// let mut stream = Stream::new(4096);
/// let capture = [0_u8; 3]; // What a read brought.
/// stream.space()[..3].copy_from_slice(&capture);
/// stream.filled(3);
/// assert!(stream.batch().unwrap().is_empty());
/// assert_eq!(stream.end().unwrap().offset, 0); // Cut off in its first header.
/// ```
#[derive(Debug)]
pub struct Stream {
    decoder: Decoder,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The whole length of the next piece, so that `space` makes room for it.
    need: usize,
    /// Of `start`, in the capture.
    offset: u64,
    packets: u64,
}

/// The number of packets handed out at once: the processor fetches their flows together.
pub const BATCH: usize = 16;

/// The packets that come next, as far as they are there as a whole. If there are none: fill
/// [`Stream::space`] first, or call [`Stream::end`] where there is no more.
#[derive(Debug)]
pub struct Batch<'a> {
    packets: [Packet<'a>; BATCH],
    length: usize,
}

impl<'a> Deref for Batch<'a> {
    type Target = [Packet<'a>];
    #[inline]
    fn deref(&self) -> &[Packet<'a>] {
        &self.packets[..self.length]
    }
}

impl Stream {
    /// A stream that asks for about `chunk` bytes at a time.
    pub fn new(chunk: usize) -> Self {
        Self {
            decoder: Decoder {
                format: Format::Unknown,
                interfaces: Vec::new(),
                discard: 0,
            },
            buffer: vec![0; chunk.max(64)],
            start: 0,
            end: 0,
            need: 0,
            offset: 0,
            packets: 0,
        }
    }

    /// Returns the space for the next bytes of the capture; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // `need` is bounded by MAX_BLOCK and headers. Beyond one piece there is room to read on,
        // else every read would bring the rest of one packet and no more.
        if self.need.max(self.end + 1) > self.buffer.len() {
            self.buffer.resize(2 * self.need.max(self.end + 1), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Takes `bytes` bytes of the space as filled.
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Returns the number of bytes consumed of the capture.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next packets.
    ///
    /// # Errors
    /// A capture that is not one, or is damaged; nothing can be read after that.
    #[inline]
    pub fn batch(&mut self) -> Result<Batch<'_>, Fault> {
        const BLANK: Packet<'_> = Packet {
            time: None,
            link: 0,
            interface: 0,
            original: 0,
            data: &[],
        };
        let mut batch = Batch {
            packets: [BLANK; BATCH],
            length: 0,
        };
        while let Some(place) = batch.packets.get_mut(batch.length) {
            let used = match self.decoder.step(&self.buffer[self.start..self.end]) {
                Ok(Step::Packet(used, packet)) => {
                    *place = packet;
                    batch.length += 1;
                    self.packets += 1;
                    used
                }
                Ok(Step::Used(used)) => used,
                Ok(Step::Need(need)) => {
                    self.need = need;
                    break;
                }
                // It is found again after the packets before it.
                Err(_) if batch.length > 0 => break,
                Err(kind) => return Err(self.fault(kind)),
            };
            self.start += used;
            self.offset += used as u64;
        }
        Ok(batch)
    }

    /// Returns the fault of a capture that ends here; `None` between two packets.
    pub fn end(&self) -> Option<Fault> {
        let have = (self.end - self.start) as u64;
        let begun = have > 0 || matches!(self.decoder.format, Format::Unknown);
        let need = self.need as u64;
        match self.decoder.discard {
            0 if begun && have == 0 => Some(self.fault(FaultKind::Empty)),
            0 if begun => Some(self.fault(FaultKind::CutOff { have, need })),
            0 => None,
            left => Some(self.fault(FaultKind::CutOff { have, need: left })),
        }
    }

    /// A fault of this kind at the place the stream has come to.
    pub fn fault(&self, kind: FaultKind) -> Fault {
        Fault {
            packet: self.packets + 1,
            offset: self.offset,
            kind,
        }
    }
}
