//! Connects with a source and a DSCP, which have to be set before the first packet.

use super::constants::{
    AF_INET, AF_INET6, EINPROGRESS, ENODEV, IPPROTO_IP, IPPROTO_IPV6, IPV6_TCLASS,
    IP_BIND_ADDRESS_NO_PORT, IP_TOS, POLLOUT, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET,
    SO_BINDTODEVICE,
};
use super::dscp::Dscp;
use super::socket::{self, poll_one, set_bytes, set_option, RawAddress};
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The longest name of a network interface, in bytes.
pub const INTERFACE_MAX: usize = 15;

/// The end from which connections leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An address of this host.
    Address(IpAddr),
    /// A network interface, or a VRF, by its name.
    Interface(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// The options of sockets that the user may set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// The source of connects; `None` leaves it to the routes.
    pub source: Option<Source>,
    /// The DSCP of sent packets; `None` leaves it to the system.
    pub dscp: Option<Dscp>,
}

impl fmt::Display for SocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "connects leave from {source}")?;
        }
        if let Some(dscp) = self.dscp {
            let before = if self.source.is_some() { "; " } else { "" };
            write!(f, "{before}packets are sent with DSCP {dscp}")?;
        }
        Ok(())
    }
}

impl SocketOptions {
    /// Returns `true` if the user has set none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Tests the options on a socket of each family that takes the source and that the kernel has.
    ///
    /// # Errors
    ///
    /// As [`connect`]; the text names the option.
    pub fn check(&self) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        for to in [
            Ipv4Addr::LOCALHOST.into(),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            let is_other =
                matches!(self.source, Some(Source::Address(own)) if own.is_ipv4() != to.is_ipv4());
            match open(to) {
                Ok(socket) if !is_other => self.apply(&socket, to)?,
                // The kernel may have no IPv6.
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets the DSCP of a listener, which accepted sockets inherit. A listener of both families
    /// takes both options.
    ///
    /// # Errors
    ///
    /// As setsockopt(2), with the option.
    pub fn mark(&self, socket: &impl AsRawFd, local: IpAddr) -> io::Result<()> {
        let Some(dscp) = self.dscp else {
            return Ok(());
        };
        // The two lowest bits are those of ECN, which the kernel keeps for itself at TCP.
        let value = c_int::from(dscp.0) << 2;
        let fd = socket.as_raw_fd();
        let v4 = set_option(fd, IPPROTO_IP, IP_TOS, &value);
        let set = match local {
            IpAddr::V4(_) => v4,
            IpAddr::V6(_) => set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, &value),
        };
        set.map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    ": a filter of this host (seccomp, eBPF) refuses it; permit setsockopt there, \
                     or leave --dscp out"
                }
                _ => "; leave --dscp out",
            };
            named(&error, format!("--dscp {dscp}: {error}{remedy}"))
        })
    }

    fn apply(&self, socket: &OwnedFd, to: IpAddr) -> io::Result<()> {
        self.mark(socket, to)?;
        match &self.source {
            None => Ok(()),
            Some(Source::Interface(name)) => {
                let set = set_bytes(
                    socket.as_raw_fd(),
                    SOL_SOCKET,
                    SO_BINDTODEVICE,
                    name.as_bytes(),
                );
                set.map_err(|error| named(&error, interface_error(name, &error)))
            }
            Some(Source::Address(own)) => {
                let on: c_int = 1;
                // The connect chooses the port then (Linux 4.2). Without it all destinations
                // together have as many ports as one.
                let _ = set_option(socket.as_raw_fd(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on);
                let bound = if own.is_ipv4() == to.is_ipv4() {
                    RawAddress::of(SocketAddr::new(*own, 0)).bind(socket.as_raw_fd())
                } else {
                    Err(io::Error::new(
                        io::ErrorKind::AddrNotAvailable,
                        "an address of the other family",
                    ))
                };
                bound.map_err(|error| {
                    let remedy = match error.raw_os_error() {
                        Some(_) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                            ": this host has no such address (ip address lists them)"
                        }
                        _ => "",
                    };
                    named(&error, format!("--bind {own}: {error}{remedy}"))
                })
            }
        }
    }
}

/// Returns an error of the same kind with another text.
fn named(error: &io::Error, text: String) -> io::Error {
    io::Error::new(error.kind(), text)
}

#[cold]
fn interface_error(name: &str, error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(ENODEV) => ": there is no such interface now (ip link lists them)",
        _ if error.kind() == io::ErrorKind::PermissionDenied => {
            ": before Linux 5.7 this takes CAP_NET_RAW; or name the interface's address"
        }
        _ => "",
    };
    format!("--bind {name}: {error}{remedy}")
}

/// Opens a socket for the family of `to`.
fn open(to: IpAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AF_INET } else { AF_INET6 };
    socket::open(family, SOCK_STREAM | SOCK_CLOEXEC)
}

/// Connects to `address` within `timeout`, with the options in force from the first packet on.
///
/// # Errors
///
/// As socket(2), setsockopt(2), bind(2) and connect(2); [`io::ErrorKind::TimedOut`].
pub fn connect(
    address: SocketAddr,
    timeout: Duration,
    options: &SocketOptions,
) -> io::Result<TcpStream> {
    let socket = open(address.ip())?;
    options.apply(&socket, address.ip())?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    match RawAddress::of(address).connect(stream.as_raw_fd()) {
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => await_connect(&stream, timeout)?,
        other => other?,
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn await_connect(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // poll(2) counts in milliseconds.
        let wait = left.max(Duration::from_millis(1));
        match poll_one(stream.as_raw_fd(), POLLOUT, Some(wait)) {
            Ok(0) if left <= wait => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "connection timed out",
                ));
            }
            Ok(0) => {}
            Ok(_) => return stream.take_error()?.map_or(Ok(()), Err),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_connect_leaves_from_the_bound_address_and_blocks_as_any_socket() {
        for (listen, own) in [("127.0.0.1:0", "127.0.0.77"), ("[::1]:0", "::1")] {
            let Ok(listener) = TcpListener::bind(listen) else {
                continue; // A kernel without IPv6.
            };
            let options = SocketOptions {
                source: Some(Source::Address(own.parse().unwrap())),
                dscp: None,
            };
            let address = listener.local_addr().unwrap();
            let mut near = connect(address, LONG, &options).unwrap();
            let (mut far, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), own);
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut byte = [0];
                    near.read_exact(&mut byte).map(|()| byte)
                });
                far.write_all(b"x").unwrap();
                assert_eq!(reader.join().unwrap().unwrap(), *b"x");
            });
        }
    }

    #[test]
    fn each_error_names_its_option_and_the_remedy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let try_with = |source| {
            let options = SocketOptions {
                source: Some(source),
                dscp: None,
            };
            assert!(options.check().is_err());
            let error = connect(address, LONG, &options);
            error.unwrap_err().to_string()
        };
        let gone = try_with(Source::Interface("no-such-if".into()));
        assert!(
            gone.starts_with("--bind no-such-if: No such device"),
            "{gone}"
        );
        assert!(gone.contains("ip link"), "{gone}");
        let foreign = try_with(Source::Address("192.0.2.1".parse().unwrap()));
        assert!(foreign.contains("no such address"), "{foreign}");
        let options = SocketOptions {
            source: Some(Source::Address("::1".parse().unwrap())),
            dscp: None,
        };
        let other = connect(address, LONG, &options).unwrap_err().to_string();
        assert_eq!(other, "--bind ::1: an address of the other family");
    }

    #[test]
    fn a_connect_that_is_refused_or_not_answered_ends_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let refuses = taken.local_addr().unwrap();
        let options = SocketOptions::default();
        let error = connect(refuses, LONG, &options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // A queue of one that is full: the kernel drops further SYNs.
        let full = TcpListener::bind("127.0.0.1:0").unwrap();
        socket::listen_again(&full, 0).unwrap();
        let address = full.local_addr().unwrap();
        let brief = Duration::from_millis(50);
        let mut open = Vec::new();
        let error = loop {
            match connect(address, brief, &options) {
                Ok(stream) => open.push(stream),
                Err(error) => break error,
            }
            assert!(open.len() < 100);
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
