//! System calls in, plain values out, for what std cannot do. This room holds the only `unsafe` of
//! the program.
//!
//! The C functions declared here are in the C library that std links already. Functions take
//! sockets by reference, so that a descriptor cannot be closed during a call. They return
//! `io::Result`, or `Option` if the kernel may not know.

#![allow(unsafe_code)]

pub mod clock;
mod connect;
mod constants;
mod dscp;
pub mod file;
#[cfg(target_os = "linux")]
pub mod link;
#[cfg(target_os = "linux")]
pub mod packet;
mod process;
pub mod receive;
mod signals;
mod socket;
mod tcp_info;
pub mod thread;
#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

pub use clock::clock_error;
pub use connect::{connect, SocketOptions, Source, INTERFACE_MAX};
pub use dscp::Dscp;
pub use process::{
    has_terminal, host_name, is_shortage, raise_descriptor_limit, return_free_memory, tune_malloc,
};
pub use signals::{Signal, StopSignals};
pub use socket::{
    is_readable, is_writable, keep_alive, listen_on, no_delay, reset_now, reset_on_close, send_now,
    send_timeout, send_waiting, stop_accepting, unacknowledged, wait_closed, wait_peer_shut,
    wait_readable, widen_backlog,
};
pub use tcp_info::{is_closed, retransmits, tcp_info, TcpInfo};
pub use thread::precise_timers;

/// Returns the error in `errno` if a C function returned anything but 0.
fn check(rc: std::ffi::c_int) -> std::io::Result<()> {
    match rc {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
