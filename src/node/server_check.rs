//! The connects of an exit to its server: those that clients need, and checks of its own while a
//! probe session is open. Each probe session carries the newest one to the source of the probes.

use crate::measure::ServerOutcome;
use crate::node::accept::Shared;
use crate::node::dial::DialError;
use crate::sync::{lock, STACK};
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::wire::{proxy, ServerConnect};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The newest connect to the server, and the sessions that carry it.
#[derive(Debug)]
pub struct ServerCheck {
    /// `--server-check`: a client's connect within this time saves a check; `None` = no checks.
    interval: Option<Duration>,
    /// The number of connects so far; wraps.
    made: AtomicUsize,
    state: Mutex<State>,
    /// A probe session has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Made>,
    probes: usize,
    is_running: bool,
}

/// A connect that has ended.
#[derive(Clone, Debug)]
struct Made {
    at: MonoTime,
    is_check: bool,
    span: Nanos,
    error: Option<String>,
}

impl ServerCheck {
    /// Returns the timer of a server that has had no connection yet.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            made: AtomicUsize::new(0),
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Takes the outcome of a connect that began at `begun`. Returns what the report takes of it;
    /// `None` for an error of this host, which is no finding about the server.
    pub(super) fn take(
        &self,
        begun: MonoTime,
        is_check: bool,
        connected: Result<Nanos, &DialError>,
    ) -> Option<(MonoTime, ServerOutcome)> {
        let at = sys::clock::mono();
        let (span, error) = match connected {
            Ok(took) => (took, None),
            Err(error) if is_local(error) => return None,
            Err(error) => (at.since(begun), Some(error.to_string())),
        };
        let mut state = lock(&self.state);
        let was_down = state.newest.as_ref().is_some_and(|it| it.error.is_some());
        match &error {
            Some(error) if !was_down => log::warn!("server down: {error}"),
            None if was_down => log::info!("server up: it accepts connections again"),
            _ => {}
        }
        let outcome = error.clone().map_or(Ok(span), Err);
        state.newest = Some(Made {
            at,
            is_check,
            span,
            error,
        });
        // Within the lock, so that a session that sees the number finds this connect.
        self.made.fetch_add(1, Ordering::Release);
        Some((at, outcome))
    }

    /// Begins a probe session at the node of `shared`: starts the checks if there are any.
    #[inline(never)]
    pub(super) fn begin(shared: &Arc<Shared>) -> ProbeSession<'_> {
        let check = &shared.node.server_check;
        let mut state = lock(&check.state);
        state.probes += 1;
        let made = check.made.load(Ordering::Acquire);
        let now = sys::clock::mono();
        let is_recent = check.due(&state).is_some_and(|due| due > now);
        if check.interval.is_some() && !state.is_running {
            let kept = Arc::clone(shared);
            let spawned = sys::thread::spawn("server-check".to_owned(), STACK, move || {
                run(&kept);
            });
            match spawned {
                Ok(()) => state.is_running = true,
                Err(error) => log::error!("server check: cannot start a thread: {error}"),
            }
        }
        ProbeSession {
            check,
            seen: made.wrapping_sub(usize::from(is_recent)),
        }
    }

    /// Returns the time of the next check; `None` if it is due now.
    fn due(&self, state: &State) -> Option<MonoTime> {
        let newest = state.newest.as_ref()?;
        Some(newest.at + Nanos::from(self.interval?))
    }

    /// Waits until a check is due. Returns `false` if no probe session is open any more.
    fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        while state.probes > 0 {
            let now = sys::clock::mono();
            let left = self.due(&state).map_or(Nanos::ZERO, |due| due.since(now));
            if left == Nanos::ZERO {
                return true;
            }
            let waited = self.ended.wait_timeout(state, Duration::from(left));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_running = false;
        false
    }
}

/// Checks the server as long as a probe session is open.
fn run(shared: &Shared) {
    let node = &shared.node;
    let Some(next_hop) = &node.next_hop else {
        return;
    };
    while node.server_check.wait() {
        let begun = sys::clock::mono();
        let connected = next_hop.connect(node.settings.timeout);
        if let (Ok(connected), Some(version)) = (&connected, node.settings.send_proxy) {
            // A server that closed at once has accepted all the same.
            let _ = sys::send_now(&connected.socket, &proxy::emit(version, None));
        }
        let took = connected.as_ref().map(|connected| connected.took);
        if node.server_check.take(begun, true, took).is_none() {
            // Not at once again: the cause is this host, and lasts.
            lock(&node.server_check.state).newest = None;
            let _ = shared.stop.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// Returns `true` for an error of this host: no descriptor, no memory, no address.
fn is_local(error: &DialError) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    let (DialError::Resolve { cause, .. } | DialError::Connect { cause, .. }) = error;
    let kinds = [
        io::ErrorKind::AddrNotAvailable,
        io::ErrorKind::OutOfMemory,
        io::ErrorKind::PermissionDenied,
    ];
    kinds.contains(&cause.kind()) || matches!(cause.raw_os_error(), Some(ENFILE | EMFILE))
}

/// A probe session that this exit answers.
#[derive(Debug)]
pub struct ProbeSession<'a> {
    check: &'a ServerCheck,
    /// The number of connects that it has carried, or was too late for.
    seen: usize,
}

impl ProbeSession<'_> {
    /// Returns the newest connect, once; `None` if there was none since the last call. `now` is the
    /// time of the block that carries it.
    pub(super) fn newest(&mut self, now: MonoTime) -> Option<ServerConnect> {
        if self.check.made.load(Ordering::Acquire) == self.seen {
            return None;
        }
        let state = lock(&self.check.state);
        self.seen = self.check.made.load(Ordering::Acquire);
        let newest = state.newest.clone()?;
        Some(ServerConnect {
            is_check: newest.is_check,
            age: now.since(newest.at),
            span: newest.span,
            error: newest.error,
        })
    }
}

impl Drop for ProbeSession<'_> {
    fn drop(&mut self) {
        lock(&self.check.state).probes -= 1;
        self.check.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: io::ErrorKind) -> DialError {
        DialError::Connect {
            target: "z:1".into(),
            address: "192.0.2.1:1".parse().unwrap(),
            cause: kind.into(),
        }
    }

    /// A session of `check` without its thread.
    fn session(check: &ServerCheck, seen: usize) -> ProbeSession<'_> {
        lock(&check.state).probes += 1;
        ProbeSession { check, seen }
    }

    #[test]
    fn a_session_carries_each_connect_once_and_the_newest_of_several() {
        let check = ServerCheck::new(None);
        let mut session = session(&check, 0);
        assert_eq!(session.newest(MonoTime(5)), None);
        let begun = sys::clock::mono();
        let (at, outcome) = check.take(begun, false, Ok(Nanos(7))).unwrap();
        assert_eq!(outcome, Ok(Nanos(7)));
        let connect = session.newest(at + Nanos(9)).unwrap();
        assert_eq!((connect.span, connect.age), (Nanos(7), Nanos(9)));
        assert_eq!((connect.is_check, connect.error), (false, None));
        assert_eq!(session.newest(at), None, "once");
        assert!(check.take(begun, true, Ok(Nanos(8))).is_some());
        let refused = failed(io::ErrorKind::ConnectionRefused);
        let (_, outcome) = check.take(begun, true, Err(&refused)).unwrap();
        let error = outcome.unwrap_err();
        assert!(error.starts_with("connect to z:1 (192.0.2.1:1)"), "{error}");
        let connect = session.newest(at).unwrap();
        assert_eq!((connect.is_check, connect.error), (true, Some(error)));
        assert_eq!(lock(&check.state).probes, 1);
        drop(session);
        assert_eq!(lock(&check.state).probes, 0);
        assert!(!check.wait(), "no session, no check");
    }

    #[test]
    fn an_error_of_this_host_is_none_of_the_server() {
        let check = ServerCheck::new(None);
        let begun = sys::clock::mono();
        for errno in [23, 24] {
            let error = DialError::Resolve {
                target: "z:1".into(),
                cause: io::Error::from_raw_os_error(errno),
            };
            assert_eq!(check.take(begun, true, Err(&error)), None);
        }
        let error = failed(io::ErrorKind::AddrNotAvailable);
        assert_eq!(check.take(begun, true, Err(&error)), None);
        let error = failed(io::ErrorKind::TimedOut);
        assert!(check.take(begun, true, Err(&error)).is_some());
    }

    #[test]
    fn a_check_is_due_when_the_newest_connect_is_old() {
        let check = ServerCheck::new(Some(Duration::from_secs(60)));
        assert_eq!(check.due(&lock(&check.state)), None, "at once");
        let (at, _) = check.take(sys::clock::mono(), false, Ok(Nanos(1))).unwrap();
        let due = check.due(&lock(&check.state));
        assert_eq!(due, Some(at + Nanos::from_millis(60_000)));
    }
}
