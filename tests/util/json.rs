//! The reader of JSON that `compare` has, for the output of the binary.

#![allow(unused_imports, unreachable_pub)] // Each test binary uses its own part of it.

pub use subsegment_tcp_speeds::report::json::read::{parse, Value};
