//! Events of one connection in; decisions and measurements out. No sockets, threads or clocks: bytes and times are
//! arguments.
//!
//! - [`admission`]: what speaks on a new connection: a framed peer, a raw client, or something to refuse.
//! - [`allow`]: who may connect, and how seldom it is said that others tried.
//! - [`inbound`]: whether a frame may come now: OPEN first, one cookie, hops within the limit, nothing after END.
//! - [`connection_record`]: what happened to the two ends of a connection, and when.
//! - [`path`]: the nodes that introduced themselves; the loop.
//! - [`trips`]: a frame that came back, as a `measure::Trip` of the node that reads it.
//! - [`annotations`]: what a frame asks a node for, and what nodes told in one that came back.
//! - [`answers`]: which blocks were answered, late, twice, or never.
//! - [`clock`]: the watch for steps of the wall clock.
//! - [`schedule`]: when the next probe is due.

pub mod admission;
pub mod allow;
pub mod annotations;
pub mod answers;
pub mod clock;
pub mod connection_record;
pub mod inbound;
pub mod path;
pub mod schedule;
pub mod trips;
