//! Events of one connection in, decisions and measurements out. No sockets, threads or clocks:
//! bytes and times are arguments.
//!
//! - [`admission`]: the kind of a client by its first bytes: another node, a raw client, or one to
//!   refuse.
//! - [`allow`]: the networks whose clients may connect, and the throttle of log lines.
//! - [`inbound`]: the order of frames: OPEN first, one cookie, hops within the limit, nothing after
//!   END.
//!
//! - [`opening`]: the opening of a session: OPEN, OPENED, the role of a node, the loop check.
//! - [`connection_record`]: the TCP session events of both ends of a connection.
//! - [`path`]: the nodes that introduced themselves; the search for a loop.
//! - [`server_timing`]: the delays of a request, for the head of its response.
//! - [`trips`]: a frame that came back, as a `measure::Trip` of the node that reads it.
//! - [`annotations`]: the annotations that a frame requests, and those that it returns.
//! - [`answers`]: blocks that were answered, late, twice, or never.
//! - [`clock`]: the detection of steps of the wall clock.
//! - [`schedule`]: the due times of probes.

pub mod admission;
pub mod allow;
pub mod annotations;
pub mod answers;
pub mod clock;
pub mod connection_record;
pub mod inbound;
pub mod opening;
pub mod path;
pub mod schedule;
pub mod server_timing;
pub mod trips;
