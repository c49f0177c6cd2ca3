//! The near end of a path, shared by source, probe, exporter and demo.

pub mod session;
