//! The hosts of `trace`: what to run there, and the answers. Values alone; `commands/trace` has the
//! processes and the files.
//!
//! | file | holds |
//! |---|---|
//! | [`host`] | `[user@]host[=ADDR]`, and the names of the nodes |
//! | [`script`] | the one shell script that a host runs, in quotes for any login shell |
//! | [`answer`] | the lines of that script, apart from banners and the chatter of profiles |
//! | [`machine`] | static binaries that fit a machine |
//! | [`ssh`] | command lines of ssh, its `-G`, and its errors with their remedies |

pub mod answer;
pub mod host;
pub mod machine;
pub mod script;
pub mod ssh;
