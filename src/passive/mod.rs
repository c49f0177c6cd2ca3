//! Capture bytes in; packets, flows, session events and round trips out. Pure: no files, no clock;
//! the time is the capture's.
//!
//! Read RFC 7323 §4 first, then the article in seed 002 (why a pause is not a round trip) and seed
//! 003 (session events).
//!
//! ```text
//! bytes ──► capture ──► packet ──► analyzer ──► flow, application ──► observer
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `capture` | pcap and pcapng as a stream |
//! | `encapsulation` | link headers, VLAN, PPPoE, MPLS, VXLAN, IP |
//! | `filter` | wanted addresses and ports, for the kernel and here |
//! | `fragments` | IP packets in pieces |
//! | `packet` | TCP headers |
//! | `analyzer` | the table of flows and its bounds |
//! | `key`, `tally` | the key of a connection; counts of a capture |
//! | `flow` | one connection: what its segments bring to light |
//! | `sent`, `maybe_time` | counts, times and round trips of one direction |
//! | `track`, `waiting` | sequence numbers of a direction, and what waits for its acknowledgment |
//! | `application` | response times of each end |
//! | `reassembly` | the segments of a direction in order |
//! | `http`, `message` | HTTP/1.x exchanges of a connection |
//! | `tls`, `tickets` | the handshake of TLS, and the session tickets behind it |
//! | `groups` | histograms per remote host, for monitoring |
//! | `peer` | packets found in two captures |
//!
//! Time is the capturing kernel's, per packet: nearer to the wire than any stamp of a program. It
//! is still after what the network card gathered (GRO) and before what it cuts (GSO).

mod analyzer;
mod application;
mod budget;
mod capture;
mod encapsulation;
mod filter;
mod flow;
mod fragments;
mod groups;
mod http;
mod key;
mod maybe_time;
mod message;
mod packet;
mod peer;
mod queue;
mod reassembly;
mod recency;
mod sent;
mod side;
mod tally;
mod tickets;
mod tls;
mod track;
mod waiting;

pub use analyzer::{Analyzer, Limits, Observer};
pub use application::{Application, ResponseSample};
pub use capture::{Batch, Fault, FaultKind, Packet, Stream, BATCH, MAX_BLOCK};
pub use encapsulation::{link_type_name, Tunnel, LINK_ETHERNET, LINK_RAW};
pub use filter::{parse_host, Filter, Host, MAX_TERMS};
pub use flow::{AlsoSeen, BoxedFlow, Flow};
pub use groups::{Buckets, Group, GroupBy, Groups, BOUNDS_NS};
pub use http::{Exchange, Http};
pub use maybe_time::MaybeTime;
pub use packet::{parse, Endpoint, Skip, TcpSegment, Timestamps, ACK, FIN, RST, SYN};
pub use peer::{pair_flows, same_exchange, Halves, OneWay, Paired, Pairing, Which};
pub use sent::{Ended, Event, Findings, Interval, IntervalSent, Rare, Sample, SampleBasis, Sent};
pub use side::Side;
pub use tally::Tally;
pub use tls::Handshake;

#[cfg(test)]
mod tests;
