//! A node's peer made by hand: frames that are right, frames that are bent, and a witness that goes
//! through a node.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of it.

use super::connect;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;
use subsegment_tcp_speeds::wire::{
    build, ErrorInfo, Flags, FrameType, FrameView, Header, HEADER_LEN,
};

pub const COOKIE: u64 = 0x1122_3344_5566_7788;

pub fn framed(kind: FrameType, flags: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        flags: Flags(flags),
        ..Header::new(kind, cookie, 0)
    };
    build(header, &[], &[], payload)
}

pub fn open() -> Vec<u8> {
    framed(FrameType::Open, Flags::MARKED, COOKIE, &[])
}

pub fn block() -> Vec<u8> {
    framed(FrameType::Block, 0, COOKIE, b"payload")
}

pub fn end() -> Vec<u8> {
    framed(FrameType::End, 0, COOKIE, &[])
}

/// A header whose field at `at` is overwritten, with or without the check computed anew.
pub fn bent(frame: &[u8], at: usize, value: &[u8], checked: bool) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + value.len()].copy_from_slice(value);
    if checked {
        check(&mut frame);
    }
    frame
}

/// Puts the right check into a header.
pub fn check(frame: &mut [u8]) {
    let check = crc32(&frame[..44]);
    frame[44..48].copy_from_slice(&check.to_be_bytes());
}

/// CRC-32 (IEEE), bit by bit: independent of the one under test.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// The next frame, whole, and its header; `None` at an end or a reset.
pub fn read_frame(socket: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut bytes = vec![0; HEADER_LEN];
    socket.read_exact(&mut bytes).ok()?;
    let header = Header::parse(&bytes).unwrap();
    bytes.resize(header.frame_len(), 0);
    socket.read_exact(&mut bytes[HEADER_LEN..]).ok()?;
    Some((header, bytes))
}

/// Header and payload of the next frame; `None` at an end or a reset.
pub fn next_frame(socket: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let (header, bytes) = read_frame(socket)?;
    let view = FrameView::parse(&bytes).unwrap();
    Some((header, view.payload().to_vec()))
}

/// The text of the ERROR frame that comes before the end, if one does.
pub fn error_text(socket: &mut TcpStream) -> Option<String> {
    while let Some((header, payload)) = next_frame(socket) {
        if header.kind == FrameType::Error {
            return Some(ErrorInfo::parse(&payload).unwrap().text);
        }
    }
    None
}

/// Another connection through the same node, which must not notice anything.
pub struct Witness {
    socket: TcpStream,
    framed: bool,
    flags: u16,
}

impl Witness {
    #[track_caller]
    pub fn new(address: SocketAddr, framed: bool) -> Self {
        let mut witness = Self::silent(connect(address), framed);
        witness.asks();
        witness
    }

    /// Returns a witness that has sent no block yet.
    pub fn silent(mut socket: TcpStream, framed: bool) -> Self {
        if framed {
            let _ = socket.write_all(&open());
        }
        Self {
            socket,
            framed,
            flags: 0,
        }
    }

    /// Marks its blocks from now on: nodes stamp them.
    pub fn marks(mut self) -> Self {
        self.flags = Flags::MARKED;
        self
    }

    /// Sets the time that it waits for a part of an answer.
    pub fn waits(self, timeout: Duration) -> Self {
        self.socket.set_read_timeout(Some(timeout)).unwrap();
        self
    }

    /// Sends END and waits for it, so that its node logs no error.
    pub fn leaves(mut self) {
        if self.framed {
            self.socket.write_all(&end()).unwrap();
        }
        self.socket.shutdown(Shutdown::Write).unwrap();
        self.socket.read_to_end(&mut Vec::new()).unwrap();
    }

    /// Returns `true` if `payload` comes back as it was sent.
    pub fn is_answered(&mut self, payload: &[u8]) -> bool {
        let asked = match self.framed {
            true => framed(FrameType::Block, self.flags, COOKIE, payload),
            false => payload.to_vec(),
        };
        if self.socket.write_all(&asked).is_err() {
            return false;
        }
        let mut answer = Vec::new();
        while answer.len() < payload.len() {
            if self.framed {
                match next_frame(&mut self.socket) {
                    Some((header, part)) if header.kind == FrameType::Block => {
                        answer.extend(part);
                    }
                    Some((header, _)) if header.kind == FrameType::Error => return false,
                    Some(_) => {}
                    None => return false,
                }
            } else {
                let mut part = vec![0; payload.len() - answer.len()];
                match self.socket.read(&mut part) {
                    Ok(read @ 1..) => answer.extend(&part[..read]),
                    _ => return false,
                }
            }
        }
        answer == payload
    }

    #[track_caller]
    pub fn asks(&mut self) {
        assert!(self.is_answered(b"payload"), "the witness was cut off");
    }
}

/// Complaints on stderr, without dates.
pub fn complaints(stderr: &[String]) -> Vec<&str> {
    stderr
        .iter()
        .filter_map(|line| line.split_once("Z ").map(|halves| halves.1))
        .filter(|line| line.starts_with("ERROR") || line.starts_with("WARN"))
        .collect()
}
