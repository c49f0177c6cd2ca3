//! The near end of a path, shared by source, probe, exporter and demo: it opens sessions, sends
//! marked blocks and reads the answers.

pub mod ask;
pub mod error;
pub mod progress;
pub mod session;
pub mod writer;

pub use error::{PathError, ReadEnd};
pub use session::{OpenSession, Origin};
pub use writer::{BlockWriter, Due};
