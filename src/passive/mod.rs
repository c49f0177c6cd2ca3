//! Capture bytes in; packets, flows, session events and round trips out. Pure: no files, no clock; the time is the
//! capture's.
//!
//! Read RFC 7323 §4 first, then the article in seed 002 (why a pause is not a round trip) and seed 003 (session events).
//!
//! ```text
//! bytes ──► capture ──► packet ──► analyzer ──► flow, application ──► observer
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `capture` | pcap and pcapng as a stream |
//! | `packet` | link, IP and TCP headers |
//! | `analyzer` | the table of flows and its bounds |
//! | `flow` | one connection: round trips, counts, times |
//! | `application` | how long each end took to answer |
//! | `reassembly` | a direction's segments in order |
//! | `http`, `message` | HTTP/1.x exchanges of a connection |
//! | `tls` | the handshake of TLS |
//! | `groups` | histograms per remote host, for monitoring |
//! | `peer` | packets found in two captures |
//!
//! Time is the capturing kernel's, per packet: nearer to the wire than any stamp a program can take, but still after
//! what the network card gathered (GRO) and before what it cuts (GSO).

mod analyzer;
mod application;
mod capture;
mod flow;
mod groups;
mod http;
mod message;
mod packet;
mod peer;
mod reassembly;
mod side;
mod tls;

pub use analyzer::{Analyzer, Limits, Observer, Tally};
pub use application::{Answer, Application};
pub use capture::{Batch, Fault, FaultKind, Packet, Stream, BATCH, MAX_BLOCK};
pub use flow::{
    Basis, BoxedFlow, Ended, Event, Findings, Flow, Interval, IntervalSent, Sample, Sent,
};
pub use groups::{Buckets, Group, GroupBy, Groups, BOUNDS_NS};
pub use http::{Exchange, Http};
pub use packet::{
    parse, Endpoint, Skip, TcpSegment, Timestamps, ACK, FIN, LINK_ETHERNET, LINK_RAW, RST, SYN,
};
pub use peer::{pair_flows, same_exchange, Halves, OneWay, Paired, Pairing, Which};
pub use side::Side;
pub use tls::Handshake;

#[cfg(test)]
mod tests;
