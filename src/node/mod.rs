//! The edges: sockets, files and threads in; calls into the core out.

pub mod passive;
