//! The connect to the next hop: names resolved, addresses tried in turn.
//!
//! Names are resolved at start, and again after a failed connect. The resolver runs on a thread of
//! its own, as it may block for longer than any timeout here.

use crate::sync::{lock, spawn, LARGE_STACK};
use crate::sys::{self, SocketOptions};
use crate::time::Nanos;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Condvar, Mutex, PoisonError};
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
    socket: SocketOptions,
    found: Mutex<Found>,
}

/// The addresses of a name: first the one that answered last.
#[derive(Debug, Default)]
struct Found {
    addresses: Vec<SocketAddr>,
    /// The time of the resolution; `None` before the first.
    at: Option<Instant>,
    /// The log has named that the first address was passed over.
    is_logged: bool,
}

/// The age from which on the addresses of a name are looked up again for a new connection.
const STALE: Duration = Duration::from_secs(60);
/// The longest wait of a connection for addresses that replace those at hand.
const REFRESH: Duration = Duration::from_millis(500);

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
            socket: SocketOptions::default(),
            found: Mutex::default(),
        }
    }

    /// Sets the options of the sockets that connect to it.
    #[must_use]
    pub fn with_socket(mut self, options: &SocketOptions) -> Self {
        self.socket = options.clone();
        self
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
        lock(&self.found).addresses.clone()
    }

    fn resolve_again(&self, timeout: Duration) -> Result<(), DialError> {
        let found = self.look_up(timeout)?;
        self.take(found, Instant::now());
        Ok(())
    }

    fn look_up(&self, timeout: Duration) -> Result<Vec<SocketAddr>, DialError> {
        resolve(&self.host, self.port, timeout).map_err(|cause| DialError::Resolve {
            target: self.target(),
            cause,
        })
    }

    /// Takes the addresses found at `now`; the one that answered last stays the first if it is
    /// among them.
    fn take(&self, mut addresses: Vec<SocketAddr>, now: Instant) {
        let mut found = lock(&self.found);
        let first = found.addresses.first();
        if let Some(at) = first.and_then(|first| addresses.iter().position(|a| a == first)) {
            addresses[..=at].rotate_right(1);
        }
        found.addresses = addresses;
        found.at = Some(now);
    }

    /// Asks for the addresses again if they are old at `now`. Keeps them if that fails.
    fn refresh(&self, now: Instant, ask: impl FnOnce() -> Result<Vec<SocketAddr>, DialError>) {
        let is_name = self.host.parse::<std::net::IpAddr>().is_err();
        let mut found = lock(&self.found);
        let is_old = |at: Instant| now.saturating_duration_since(at) >= STALE;
        if !is_name || !found.at.is_some_and(is_old) {
            return;
        }
        found.at = Some(now);
        drop(found);
        match ask() {
            Ok(addresses) => self.take(addresses, now),
            Err(error) => log::debug!("connect: {error}; its addresses stay as they were"),
        }
    }

    /// Has later connections begin with `address`, which accepted after others had not.
    fn prefer(&self, address: SocketAddr) {
        let mut found = lock(&self.found);
        let place = found.addresses.iter().position(|known| *known == address);
        let Some(place @ 1..) = place else {
            return;
        };
        found.addresses[..=place].rotate_right(1);
        if !std::mem::replace(&mut found.is_logged, true) {
            log::warn!(
                "connect: {} answers at {address} and not at {}: later connections try it first \
                 (not logged again)",
                self.target(),
                found.addresses[1]
            );
        }
    }

    /// Connects to each address in turn until one accepts, then resolves the name again and tries
    /// the new ones. `timeout` is for all together.
    ///
    /// # Errors
    ///
    /// The [`DialError`] of the last attempt.
    pub fn connect(&self, timeout: Duration) -> Result<Connected, DialError> {
        self.refresh(Instant::now(), || self.look_up(timeout.min(REFRESH)));
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
            match sys::connect(address, share, &self.socket) {
                Ok(socket) => {
                    self.prefer(address);
                    return Ok(Connected {
                        socket,
                        address,
                        took: begun.elapsed().into(),
                    });
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
    RESOLVER.resolve(host, port, timeout, |host| {
        let found = (host, 0).to_socket_addrs()?;
        Ok(found.collect())
    })
}

/// The resolutions in flight and of a moment ago. All that ask for a name meanwhile share one.
static RESOLVER: Resolver = Resolver::new();

/// The time for which the answer of a resolution, or its error, holds for others that ask.
const KEPT: Duration = Duration::from_secs(1);
/// The most names whose answers are kept; those in flight are not counted.
const NAMES: usize = 64;

/// One resolution per name at a time, each on a thread of its own.
#[derive(Debug)]
struct Resolver {
    names: Mutex<Vec<(String, Resolution)>>,
    answered: Condvar,
}

#[derive(Debug)]
enum Resolution {
    InFlight,
    /// The addresses, or the kind and the text of the error, with the time of the answer.
    Done(Instant, Result<Vec<SocketAddr>, (io::ErrorKind, String)>),
}

impl Resolver {
    const fn new() -> Self {
        Self {
            names: Mutex::new(Vec::new()),
            answered: Condvar::new(),
        }
    }

    fn resolve(
        &'static self,
        host: &str,
        port: u16,
        timeout: Duration,
        ask: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let deadline = Instant::now() + timeout;
        let mut ask = Some(ask);
        let mut names = lock(&self.names);
        loop {
            match names.iter().find(|(name, _)| name == host) {
                Some((_, Resolution::Done(at, answer))) if at.elapsed() < KEPT => {
                    return with_port(answer, port);
                }
                Some((_, Resolution::InFlight)) => {}
                Some((_, Resolution::Done(..))) | None => match ask.take() {
                    Some(ask) => {
                        self.start(host.to_owned(), ask)?;
                        names.retain(|(name, _)| name != host);
                        names.push((host.to_owned(), Resolution::InFlight));
                    }
                    // The answer came and was too old when this thread ran again.
                    None => break,
                },
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.answered.wait_timeout(names, left);
            names = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer from the resolver within {timeout:?}"),
        ))
    }

    /// Starts the thread of a resolution. It finds the name in flight: the caller holds the lock.
    fn start(
        &'static self,
        host: String,
        ask: impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<()> {
        spawn("resolve", LARGE_STACK, move || {
            let found = ask(&host).map_err(|error| (error.kind(), error.to_string()));
            let mut names = lock(&self.names);
            if let Some((_, resolution)) = names.iter_mut().find(|(name, _)| *name == host) {
                *resolution = Resolution::Done(Instant::now(), found);
            }
            let done = |(_, resolution): &(_, Resolution)| match resolution {
                Resolution::InFlight => true,
                Resolution::Done(at, _) => at.elapsed() < KEPT,
            };
            if names.len() > NAMES {
                names.retain(done);
            }
            drop(names);
            self.answered.notify_all();
        })?;
        Ok(())
    }
}

fn with_port(
    answer: &Result<Vec<SocketAddr>, (io::ErrorKind, String)>,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let mut found = match answer {
        Ok(found) => found.clone(),
        Err((kind, text)) => return Err(io::Error::new(*kind, text.clone())),
    };
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    for address in &mut found {
        address.set_port(port);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
    fn a_name_has_one_resolution_in_flight_which_all_share_whatever_its_outcome() {
        static RESOLVER: Resolver = Resolver::new();
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let address: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let (open, held) = crossbeam_channel::bounded::<()>(0);
        let ask = |held: crossbeam_channel::Receiver<()>| {
            move |_: &str| {
                ASKED.fetch_add(1, Ordering::SeqCst);
                let _ = held.recv();
                Ok(vec![address])
            }
        };
        // The resolver is silent: each of these times out.
        for _ in 0..50 {
            let error = RESOLVER
                .resolve("slow", 7, Duration::from_millis(1), ask(held.clone()))
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        std::thread::scope(|scope| {
            let asked = (1..=20).map(|port| {
                let ask = ask(held.clone());
                scope.spawn(move || RESOLVER.resolve("slow", port, Duration::from_secs(60), ask))
            });
            let asked: Vec<_> = asked.collect();
            drop(open);
            for (port, asked) in (1..).zip(asked) {
                let found = asked.join().unwrap().unwrap();
                assert_eq!(found, [SocketAddr::new(address.ip(), port)]);
            }
        });
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_address_that_answered_is_tried_first_also_after_the_name_is_resolved_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let answers = listener.local_addr().unwrap();
        // The port of a connection: no process listens there, and no other test can.
        let taken = TcpStream::connect(answers).unwrap();
        let refuses = taken.local_addr().unwrap();
        let next_hop = NextHop::unresolved("a.invalid", 7);
        next_hop.take(vec![refuses, answers], Instant::now());
        let connected = next_hop.connect(Duration::from_secs(60)).unwrap();
        assert_eq!(connected.address, answers);
        assert_eq!(next_hop.addresses(), [answers, refuses]);
        next_hop.take(vec![refuses, answers], Instant::now());
        assert_eq!(next_hop.addresses(), [answers, refuses]);
        next_hop.take(vec![refuses], Instant::now());
        assert_eq!(next_hop.addresses(), [refuses]);
    }

    #[test]
    fn a_name_that_moves_is_asked_for_again_by_new_connections_at_most_once_a_minute() {
        let address = |last: usize| SocketAddr::from(([192, 0, 2, last as u8], 7));
        let begun = Instant::now();
        let next_hop = NextHop::unresolved("a.invalid", 7);
        next_hop.take(vec![address(0)], begun);
        let mut asked: Vec<u64> = Vec::new();
        // Ten minutes with a connection every 7 s, and two at once.
        for second in (0..600).filter(|second| second % 7 < 2) {
            let now = begun + Duration::from_secs(second);
            for _ in 0..2 {
                let count = asked.len() + 1;
                next_hop.refresh(now, || {
                    asked.push(second);
                    // The resolver is silent each third time.
                    let silent = || failed(io::ErrorKind::TimedOut);
                    (count % 3 != 0)
                        .then(|| vec![address(count)])
                        .ok_or_else(silent)
                });
            }
            let newest = asked.len() - usize::from(asked.len() % 3 == 0 && !asked.is_empty());
            assert_eq!(next_hop.addresses(), [address(newest)], "second {second}");
        }
        assert!((8..=9).contains(&asked.len()), "{asked:?}");
        assert!(asked[0] >= 60 && asked.windows(2).all(|two| two[1] - two[0] >= 60));
        assert!(
            asked.windows(2).all(|two| two[1] - two[0] <= 66),
            "{asked:?}"
        );

        let literal = NextHop::unresolved("192.0.2.1", 7);
        literal.take(vec![address(1)], begun);
        literal.refresh(begun + STALE, || unreachable!("an address is no name"));
        // The first connection asks by itself.
        NextHop::unresolved("a.invalid", 7).refresh(begun + STALE, || unreachable!("not old"));
    }

    fn failed(kind: io::ErrorKind) -> DialError {
        DialError::Resolve {
            target: "a.invalid:7".into(),
            cause: kind.into(),
        }
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
