//! The errors of a path: which host, which step, and the remedy.

use super::host::Event;
use super::{Path, Standing, SILENCE, TICK};
use crate::cli::Ports;
use crate::node::fault::OWN_LOOP;
use std::time::Instant;

impl Path<'_> {
    /// Returns which hosts the path waits for, and what the first of them does.
    pub(super) fn silent(&self, standing: &[Standing]) -> String {
        // With all of them ready, one that was asked cannot listen.
        let is_ready = standing.iter().all(|host| host.is_ready);
        let is_silent = |host: &Standing| match is_ready {
            true => host.is_asked && host.listening.is_none(),
            false => !host.is_ready,
        };
        let places = (0..standing.len()).filter(|at| is_silent(&standing[*at]));
        let names: Vec<&str> = places.clone().map(|at| &*self.names[at]).collect();
        let first = places.min().unwrap_or_default();
        let mut hosts = self.config.hosts.iter().chain(&self.config.options.from);
        let login = hosts.nth(first).map_or("HOST", |host| &host.login);
        format!(
            "{}: no answer for {} s ({}); try: ssh {login} true",
            names.join(", "),
            SILENCE.as_secs(),
            self.progress.states[first]
        )
    }

    /// Returns which host has ended, and the reason. A path that cannot be opened may lack one.
    pub(super) fn ended(&mut self) -> Option<String> {
        let deadline = Instant::now() + TICK;
        let events = self.events.take()?;
        let mut ended = None;
        while let (None, Ok((at, event))) = (&ended, events.recv_deadline(deadline)) {
            match event {
                Event::Ended(reason) => ended = Some(format!("{}: {reason}", self.names[at])),
                Event::Node(line) if line.contains(OWN_LOOP) => {
                    self.unreached = Some(self.own_loop(at));
                }
                _ => {}
            }
        }
        self.events = Some(events);
        ended
    }

    /// Returns the error of a host whose next one is `earlier`, a host that the path has already;
    /// `before` is its hop, from 0 for the near end.
    fn looped(&self, before: usize, earlier: &str) -> String {
        let near = match before.checked_sub(1) {
            Some(at) => self.names.get(at).map_or("the path", String::as_str),
            None => "here",
        };
        let far = self.config.hosts.get(before).and(self.names.get(before));
        let (far, address) = match (far, self.addresses.get(before)) {
            (Some(far), Some(address)) => (far.as_str(), address.as_str()),
            _ => ("the server", "its address"),
        };
        let is_own = if near == earlier { " itself" } else { "" };
        format!(
            "{far} cannot be reached from {near}: {address} is {earlier}{is_own}, a loop; name its \
             address: {far}=ADDR"
        )
    }

    /// Returns the error of a host that was given its own address for that of the next one. The
    /// path itself reports no more than a reset.
    pub(super) fn own_loop(&self, at: usize) -> String {
        self.looped(at + 1, &self.names[at])
    }

    /// Returns the error of a path that could not be opened, with the names of both ends.
    pub(super) fn unreachable(&self, hop: u8, text: &str) -> String {
        let nodes = self.config.hosts.len();
        let name = |hop: usize| match hop.checked_sub(1) {
            Some(at) if at < nodes => &self.names[at],
            Some(_) => "the server",
            // Behind the nodes there is the host of the probe.
            None => self.names.get(nodes).map_or("here", String::as_str),
        };
        let hop = usize::from(hop);
        let (near, far) = (name(hop), name(hop + 1));
        let cause = text.rsplit(": ").next().unwrap_or(text);
        let cause = cause.split(" (os error").next().unwrap_or(cause);
        if let Some((_, rest)) = text.split_once("connect to ") {
            let address = rest.split(": ").next().unwrap_or(rest);
            let remedy = match self.config.options.ports {
                Some(Ports { first, last }) => {
                    format!("is {first}-{last} open there? else name its address: {far}=ADDR")
                }
                None => format!("open a range and use --ports, or name its address: {far}=ADDR"),
            };
            return format!("{far} cannot be reached from {near} at {address}: {cause}; {remedy}");
        }
        if text.contains("resolve ") {
            return format!(
                "{far} cannot be reached from {near}: {text}; name its address: {far}=ADDR"
            );
        }
        // A host that was at an earlier place of the path, which it names.
        if let Some((_, earlier)) = text.split_once("loop: ").and(text.split_once("as hop ")) {
            let digits = earlier.split(|c: char| !c.is_ascii_digit()).next();
            let earlier = name(digits.and_then(|it| it.parse().ok()).unwrap_or_default());
            if let Some(before) = hop.checked_sub(1) {
                return self.looped(before, earlier);
            }
        }
        match hop {
            0 => format!("the path cannot be opened: {text}"),
            _ => format!("the path cannot be opened: {near} reports: {text}"),
        }
    }
}
