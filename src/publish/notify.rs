//! Notifications of the service manager: datagrams to the socket that `$NOTIFY_SOCKET` names
//! (sd_notify(3)). Without that variable nothing is sent; a failure is logged and has no other
//! effect.

use std::ffi::OsStr;
use std::io;

/// Reports that connections are accepted, or probes sent, from now on.
pub fn ready() {
    notify("READY=1");
}

/// Reports that the process received a signal and ends.
pub fn stopping() {
    notify("STOPPING=1");
}

fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        log::warn!(
            "main: cannot send {state} to {}: {error}",
            socket.to_string_lossy()
        );
    }
}

/// Sends one datagram. A name that begins with `@` is one of Linux' abstract namespace (unix(7)),
/// where a NUL stands in its place.
#[cfg(target_os = "linux")]
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?; // A manager that does not read delays nothing.
    sender.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send(_socket: &OsStr, _state: &str) -> io::Result<()> {
    Ok(())
}
