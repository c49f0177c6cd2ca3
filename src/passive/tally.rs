//! Counts over a whole capture.

use super::packet::Skip;
use crate::time::WallTime;

/// Counts over a whole capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets of any kind.
    pub packets: u64,
    /// Those that held a TCP segment that could be used.
    pub tcp_packets: u64,
    /// The others, by the order of [`Skip::ALL`].
    pub skipped: [u64; Skip::ALL.len()],
    /// Time of the first packet; `None` before it.
    pub first: Option<WallTime>,
    /// Time of the latest one.
    pub last: Option<WallTime>,
    /// Flows begun.
    pub flows: u64,
    /// Flows that had to make room while they were open.
    pub evicted: u64,
    /// Link types that are not read, with their packets; the first 16 of them.
    pub unread: Vec<(u16, u64)>,
}

/// Link types that are counted one by one.
const MAX_LINK_TYPES: usize = 16;

impl Tally {
    pub(super) fn count_unread(&mut self, link: u16) {
        if let Some((_, packets)) = self.unread.iter_mut().find(|(of, _)| *of == link) {
            *packets += 1;
        } else if self.unread.len() < MAX_LINK_TYPES {
            self.unread.push((link, 1));
        }
    }

    /// Returns `true` if there were packets and none had a link type that is read.
    pub fn nothing_was_read(&self) -> bool {
        self.packets > 0 && self.skipped[Skip::LinkType as usize] == self.packets
    }
}
