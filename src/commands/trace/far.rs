//! `--from`: the probe runs on another host, and its report comes home.

use super::host::Event;
use super::{Path, END, TICK};
use crate::cli::{ExitCode, TraceConfig, PROGRAM};
use crate::node::StopFlag;
use crate::output::{print_error, Output, OutputError};
use crate::remote::host::endpoint;
use crate::remote::script;
use crate::sync::channel::RecvError;
use std::time::Instant;

/// Returns the command line of the probe at the host `name`.
pub(super) fn probe_words(config: &TraceConfig, name: &str, target: &str) -> Vec<String> {
    let mut words = vec!["probe".to_owned(), target.to_owned()];
    let given = &config.options.probe_words;
    if !given.iter().any(|word| word == "--node") {
        words.extend(["--node", name].map(str::to_owned));
    }
    words.extend_from_slice(given);
    words
}

/// Returns the exit code of a probe by its number.
fn exit_code(number: i32) -> Option<ExitCode> {
    use ExitCode::{ProbeCritical, ProbeOk, ProbeUnknown, ProbeWarning};
    let codes = [ProbeOk, ProbeWarning, ProbeCritical, ProbeUnknown];
    codes
        .into_iter()
        .find(|code| i32::from(code.number()) == number)
}

impl Path<'_> {
    /// Runs the probe on the host of `--from`, to the nearest node's `port`. Passes on what it
    /// prints; returns its exit code.
    pub(super) fn probe_there(&mut self, port: u16, stop: &StopFlag) -> Result<ExitCode, String> {
        let events = self.events.take().ok_or("the hosts are watched twice")?;
        let source = self.config.hosts.len();
        let name = &self.names[source];
        let target = endpoint(&self.addresses[0], port);
        let words = probe_words(self.config, name, &target);
        let lines = format!("{}\n{}", self.key, script::line(&words));
        self.hosts[source].write(lines.as_bytes());
        let mut written: Result<(), OutputError> = Ok(());
        let mut stopped: Option<Instant> = None;
        let mut is_unreached = false;
        let code = loop {
            if stop.is_set() && stopped.is_none() {
                // The end of its input ends the probe in order: its report follows.
                self.hosts[source].close();
                stopped = Some(Instant::now());
            }
            if stopped.is_some_and(|stopped| stopped.elapsed() > END) {
                return Err(format!("{name}: its probe did not end"));
            }
            let (at, event) = match events.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvError::Timeout) => continue,
                Err(_) => return Err("no host is left".into()),
            };
            match event {
                Event::Output(text) if written.is_ok() => {
                    written = Output::Stdout.write(&text);
                    if written.is_err() {
                        stop.set();
                    }
                }
                Event::Stderr(line) if at == source => {
                    let line = line.trim_start_matches(&format!("{PROGRAM}: "));
                    print_error(&format!("{PROGRAM}: {name}: {line}\n"));
                    is_unreached |= line.contains("connect to ") || line.contains("resolve ");
                }
                Event::Node(line) | Event::Stderr(line) => {
                    self.progress.line(&self.names[at], &line);
                }
                Event::Exited(code) => break code,
                Event::Ended(reason) => {
                    let name = &self.names[at];
                    return Err(format!("{name}: lost in the middle of the run: {reason}"));
                }
                _ => {}
            }
        };
        if let Err(error) = written {
            // Lines may be read in part (`| head`).
            if !error.is_closed_pipe() {
                return Err(error.to_string());
            }
        }
        if is_unreached {
            let far = &self.names[0];
            print_error(&format!(
                "{PROGRAM}: note: open a range and use --ports, or name its address: {far}=ADDR\n"
            ));
        }
        exit_code(code).ok_or_else(|| format!("{name}: its probe ended with {code}"))
    }
}
