//! The way to the next hop: names resolved, addresses tried in turn.
//!
//! Names are resolved at start, and again after a failed connect. The resolver runs on a thread of its own, because it
//! may block for longer than anyone here is willing to wait.

use crate::sync::lock;
use crate::time::Nanos;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Why the next hop was not reached.
#[derive(Debug)]
pub enum DialError {
    /// The name does not resolve (or not within the timeout).
    Resolve {
        /// As given.
        target: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// No address of it accepts.
    Connect {
        /// As given.
        target: String,
        /// The address tried last.
        address: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl DialError {
    /// Whether it is only that nobody answered in time.
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

/// A connection that stands.
#[derive(Debug)]
pub struct Connected {
    /// The socket.
    pub socket: TcpStream,
    /// The address that accepted.
    pub address: SocketAddr,
    /// How long the connect to it took, failed ones before it not counted.
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

    /// One whose name is resolved by the first connect, and by each after one that failed.
    pub fn unresolved(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            addresses: Mutex::default(),
        }
    }

    /// The next hop as it was given.
    pub fn target(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What the name resolved to last.
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

    /// Connects, trying each address in turn, then (after a new look at the name) each address again; `timeout` is for
    /// all together.
    ///
    /// # Errors
    ///
    /// [`DialError`] of the last try.
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
            // A share of zero would be refused as an argument; a microsecond times out all the same.
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

/// Resolves a name on a thread of its own and waits for it at most `timeout`. A literal address needs no thread.
///
/// # Errors
///
/// What the resolver says; [`io::ErrorKind::TimedOut`].
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
            // Nobody may be waiting any more.
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
    fn a_literal_address_resolves_without_a_resolver_and_a_bad_name_says_so() {
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
        // The port of a connection: nobody listens there, and no other test can.
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
