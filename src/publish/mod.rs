//! Reports and connection records out: stdout and files, the terminal, metrics, the service
//! manager.

pub mod metrics;
pub mod notify;
pub mod printer;
pub mod screen;
pub mod sessions;
