//! `trace`: hosts of several login shells, chatter and errors by a stand-in for ssh, and real sshd
//! in namespaces. `STS_TRACE=all` adds the trials of `scripts/trials trace`.

mod bad_input;
mod errors;
mod fake;
mod hosts;
#[path = "../lab/mod.rs"]
#[allow(dead_code)]
mod lab;
#[path = "../trials/path.rs"]
#[allow(dead_code)]
mod path;
#[path = "../util/random.rs"]
#[allow(dead_code)]
mod random;
mod real;
mod shells;
#[path = "../util/mod.rs"]
mod util;
