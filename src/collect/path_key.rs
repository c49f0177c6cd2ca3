//! The identity of a path among those that lead through a node.

use std::net::IpAddr;

/// The identity of a path. Connections that agree in it share their figures, whatever their ports
/// and cookies. The default is the path that begins at this node, by its own blocks or those of
/// raw clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathKey {
    /// The address of the framed client; `None` on the path that begins here.
    pub neighbour: Option<IpAddr>,
    /// The hop of this node.
    pub hop: u8,
    /// The id of the node at hop 0, as OPEN names it; 0 if it names none, and on the path that
    /// begins here.
    pub source: u64,
    /// The link to the client is authenticated.
    pub keyed: bool,
    /// Its share of the collector's queue, which others cannot use up: 0 for the path that begins
    /// here, [`REST`] for all without a label together.
    pub share: u8,
}

/// The share of the queue that paths without a label have.
pub const REST: u8 = 9;

impl PathKey {
    /// Returns `true` if a peer without a key chose parts of this key.
    pub fn is_of_a_stranger(&self) -> bool {
        self.neighbour.is_some() && !self.keyed
    }
}
