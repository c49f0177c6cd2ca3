//! Each role: a checked command in, its threads started and waited for, an exit code out. Part of the binary, as `main` is.

pub(crate) mod node;
pub(crate) mod prepare;
pub(crate) mod probe;
pub(crate) mod source;
