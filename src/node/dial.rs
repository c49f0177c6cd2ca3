//! The connect to the next hop: names resolved, addresses tried in turn.
//!
//! Names are resolved at start, and again after a failed connect. The resolver runs on a thread of
//! its own, as it may block for longer than any timeout here.

use crate::sync::lock;
use crate::time::Nanos;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The reason why the next hop was not reached.
#[derive(Debug)]
pub enum DialError {
    /// The name does not resolve (or not within the timeout).
    Resolve {
        /// The target as it was given.
        target: String,
        /// The error of the resolver.
        cause: io::Error,
    },
    /// No address of it accepts.
    Connect {
        /// As given.
        target: String,
        /// The address tried last.
        address: SocketAddr,
        /// The error of connect(2).
        cause: io::Error,
    },
}

impl DialError {
    /// Returns `true` if the only error is that no answer came in time.
    pub fn is_timeout(&self) -> bool {
        let (Self::Resolve { cause, .. } | Self::Connect { cause, .. }) = self;
        cause.kind() == io::ErrorKind::TimedOut
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, cause) = match self {
            Self::Resolve { target, cause } => (format!("resolve {target}"), cause),
            Self::Connect {
                target,
                address,
                cause,
            } if target == &address.to_string() => (format!("connect to {target}"), cause),
            Self::Connect {
                target,
                address,
                cause,
            } => (format!("connect to {target} ({address})"), cause),
        };
        write!(f, "{what}: {cause}")
    }
}

impl Error for DialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Resolve { cause, .. } | Self::Connect { cause, .. } => Some(cause),
        }
    }
}

/// The next hop.
#[derive(Debug)]
pub struct NextHop {
    host: String,
    port: u16,
    addresses: Mutex<Vec<SocketAddr>>,
}

/// An established connection.
#[derive(Debug)]
pub struct Connected {
    /// The socket.
    pub socket: TcpStream,
    /// The address that accepted.
    pub address: SocketAddr,
    /// The duration of the connect to it, without failed ones before.
    pub took: Nanos,
}

impl NextHop {
    /// Resolves the name for the first time.
    ///
    /// # Errors
    ///
    /// [`DialError::Resolve`].
    pub fn resolve(host: &str, port: u16, timeout: Duration) -> Result<Self, DialError> {
        let next_hop = Self::unresolved(host, port);
        next_hop.resolve_again(timeout)?;
        Ok(next_hop)
    }

    /// Makes a next hop whose name is resolved by the first connect, and by each after a failed
    /// one.
    pub fn unresolved(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            addresses: Mutex::default(),
        }
    }

    /// Returns the next hop as it was given.
    pub fn target(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Returns the addresses that the name resolved to last.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.addresses).clone()
    }

    fn resolve_again(&self, timeout: Duration) -> Result<(), DialError> {
        let failed = |cause| DialError::Resolve {
            target: self.target(),
            cause,
        };
        let found = resolve(&self.host, self.port, timeout).map_err(failed)?;
        *lock(&self.addresses) = found;
        Ok(())
    }

    /// Connects to each address in turn until one accepts, then resolves the name again and tries
    /// the new ones. `timeout` is for all together.
    ///
    /// # Errors
    ///
    /// The [`DialError`] of the last attempt.
    pub fn connect(&self, timeout: Duration) -> Result<Connected, DialError> {
        let deadline = Instant::now() + timeout;
        let first = self.addresses();
        if first.is_empty() {
            self.resolve_again(timeout)?;
            return self.try_each(&self.addresses(), deadline);
        }
        let error = match self.try_each(&first, deadline) {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        if self.host.parse::<std::net::IpAddr>().is_ok() {
            return Err(error);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.resolve_again(left).is_err() {
            return Err(error);
        }
        let again = self.addresses();
        if again == first {
            return Err(error);
        }
        self.try_each(&again, deadline)
    }

    fn try_each(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<Connected, DialError> {
        let mut outcome = Err(DialError::Resolve {
            target: self.target(),
            cause: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        });
        for (tried, &address) in addresses.iter().enumerate() {
            let begun = Instant::now();
            let left = deadline.saturating_duration_since(begun);
            let share = left / (addresses.len() - tried) as u32;
            // A share of zero would be refused as an argument; a microsecond times out all the
            // same.
            match TcpStream::connect_timeout(&address, share.max(Duration::from_micros(1))) {
                Ok(socket) => {
                    return Ok(Connected {
                        socket,
                        address,
                        took: begun.elapsed().into(),
                    })
                }
                Err(cause) => {
                    outcome = Err(DialError::Connect {
                        target: self.target(),
                        address,
                        cause,
                    });
                }
            }
        }
        outcome
    }
}

/// Resolves a name on a thread of its own, within `timeout`. A literal address needs no thread.
///
/// # Errors
///
/// The resolver's own; [`io::ErrorKind::TimedOut`].
pub fn resolve(host: &str, port: u16, timeout: Duration) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (answer, answers) = crossbeam_channel::bounded(1);
    let host = host.to_owned();
    std::thread::Builder::new()
        .name("resolve".into())
        .spawn(move || {
            let found = (host.as_str(), port)
                .to_socket_addrs()
                .map(|addresses| addresses.collect::<Vec<_>>());
            // The receiver may be gone after its timeout.
            let _ = answer.send(found);
        })?;
    match answers.recv_timeout(timeout) {
        Ok(Ok(found)) if found.is_empty() => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        )),
        Ok(found) => found,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer from the resolver within {timeout:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_address_resolves_without_a_resolver_and_a_bad_name_is_an_error() {
        let found = resolve("::1", 7, Duration::from_secs(1)).unwrap();
        assert_eq!(found, ["[::1]:7".parse().unwrap()]);
        let error =
            NextHop::resolve("no-such-host.invalid", 7, Duration::from_secs(20)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("resolve no-such-host.invalid:7: "),
            "{error}"
        );
    }

    #[test]
    fn a_refused_connect_names_the_address_and_the_cause() {
        // The port of a connection: no process listens there, and no other test can.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = taken.local_addr().unwrap().port();
        let next_hop = NextHop::resolve("127.0.0.1", port, Duration::from_secs(1)).unwrap();
        let error = next_hop.connect(Duration::from_secs(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("connect to 127.0.0.1:{port}: Connection refused (os error 111)")
        );
    }
}
