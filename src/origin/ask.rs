//! Finds the place of a silence. The nodes of a path are asked one after the other, nearest first,
//! each by a new connection whose hop limit ends there. A node whose limit is used up answers with
//! an ERROR.

use super::session::{OpenSession, Origin, TICK};
use crate::node::reader::{FrameReader, ReadFault};
use crate::sys;
use crate::time::MonoTime;
use crate::wire::{ErrorCode, ErrorInfo, FrameType};
use std::time::Duration;

/// The longest wait for the answer of one node.
const PATIENCE: Duration = Duration::from_secs(2);

/// The nodes of a silent path that answer on new connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answering {
    /// The nodes up to this hop; 0 if none does.
    UpTo(u8),
    /// The nodes up to this hop, which reports why the next one does not.
    Reporting(u8, String),
    /// All nodes: only the old connection is silent.
    All,
}

/// The answer to a connection whose hop limit ends at a node.
#[derive(Debug)]
enum Answer {
    Error(ErrorInfo),
    Opened,
    Silence,
}

impl Origin {
    /// Asks which nodes of a silent path answer; takes 2 s or `--timeout`, if that is
    /// shorter, beyond their answers. Returns `None` if `is_over` returned `true` before the end.
    pub fn ask(&self, is_over: impl Fn() -> bool) -> Option<Answering> {
        let settings = &self.node.settings;
        let patience = PATIENCE.min(settings.timeout);
        for before in 0..settings.hop_limit {
            let deadline = sys::clock::mono() + patience.into();
            // A node counts itself: the limit that ends at a hop is that of the node before it.
            let answer = match self.open_to(before, patience) {
                Ok(session) => {
                    let answer = await_answer(&session, deadline, &is_over);
                    session.give_up();
                    answer
                }
                Err(_) => Answer::Silence,
            };
            if is_over() {
                return None;
            }
            match answer {
                Answer::Opened => break,
                Answer::Error(info) if info.code == ErrorCode::HopLimit => {}
                Answer::Error(info) => {
                    return Some(Answering::Reporting(info.hop.min(before), info.shown()));
                }
                Answer::Silence => return Some(Answering::UpTo(before)),
            }
        }
        Some(Answering::All)
    }
}

fn await_answer(session: &OpenSession, deadline: MonoTime, is_over: impl Fn() -> bool) -> Answer {
    let mut reader = FrameReader::ticking(&session.pair, &session.pair.client, TICK / 5);
    while sys::clock::mono() < deadline && !is_over() {
        let header = match reader.frame() {
            Ok(Some(header)) => header,
            Err(ReadFault::Idle) => continue,
            Ok(None) | Err(_) => break,
        };
        if reader.verify(&header).is_err() {
            break;
        }
        match header.kind {
            FrameType::Opened => return Answer::Opened,
            FrameType::Error => {
                let info = ErrorInfo::parse(reader.view(header).payload());
                return info.map_or(Answer::Silence, Answer::Error);
            }
            _ => reader.consume(&header),
        }
    }
    Answer::Silence
}
