//! `--from`: the probe runs on another host, and its report comes home, with the files that it
//! writes. It has the files of its options in the directory that trace made there.

use super::host::{Event, FarFile};
use super::{Path, END, TICK};
use crate::cli::{Common, ExitCode, Format, TraceConfig, PROGRAM};
use crate::collect::state_file::StateFile;
use crate::measure::RunHistories;
use crate::node::fault::OWN_LOOP;
use crate::node::StopFlag;
use crate::output::{print_error, replace, Output, OutputError};
use crate::remote::host::endpoint;
use crate::remote::script::{self, UNREACHABLE};
use crate::report::State;
use crate::sync::channel::RecvError;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

/// Stands for the directory in the words of a probe.
const DIRECTORY: &str = "DIR";

/// Returns the command line of the probe at the host `name`.
pub(super) fn probe_words(config: &TraceConfig, name: &str, target: &str) -> Vec<String> {
    let mut words = vec!["probe".to_owned(), target.to_owned()];
    let given = &config.options.probe_words;
    if !given.iter().any(|word| word == "--node") {
        words.extend(["--node", name].map(str::to_owned));
    }
    words.extend_from_slice(given);
    for option in &config.options.probe_files {
        words.extend([format!("--{option}"), format!("{DIRECTORY}/{option}")]);
    }
    words
}

/// Reads the files that a probe elsewhere needs.
///
/// # Errors
///
/// A sentence: a file cannot be read, or that of a page cannot be written.
pub(super) fn files(common: &Common, options: &[&'static str]) -> Result<Arc<[FarFile]>, String> {
    let mut files = Vec::new();
    for option in options {
        let (path, comes_home) = match *option {
            "state" => (&common.state, true),
            "report-html" => (&common.report_html, true),
            "baseline" => (&common.baseline, false),
            _ => (&common.rules, false),
        };
        let Some(path) = path else {
            continue;
        };
        let bytes = match (*option, std::fs::read(path)) {
            ("report-html", _) => {
                // As a page of this host: a bad path is an error before anything is measured.
                let opened = Output::open(Some(path), Output::Nothing, false);
                opened.map_err(|error| error.to_string())?;
                Vec::new()
            }
            (_, Ok(bytes)) => bytes,
            ("state", Err(error)) if error.kind() == ErrorKind::NotFound => Vec::new(),
            (_, Err(error)) => return Err(format!("read {}: {error}", path.display())),
        };
        files.push(FarFile {
            option,
            path: path.clone(),
            bytes,
            comes_home,
        });
    }
    Ok(files.into())
}

/// Returns the state of a probe by its exit code.
fn state_of(code: i32) -> Option<State> {
    let states = [
        (ExitCode::ProbeOk, State::Ok),
        (ExitCode::ProbeWarning, State::Warning),
        (ExitCode::ProbeCritical, State::Critical),
        (ExitCode::ProbeUnknown, State::Unknown),
    ];
    let found = states
        .into_iter()
        .find(|(exit, _)| i32::from(exit.number()) == code);
    found.map(|(_, state)| state)
}

/// Adds what a run elsewhere added to the state that it was given.
fn merge_state(file: &FarFile, returned: &[u8]) -> Result<(), String> {
    let read = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        RunHistories::parse(text).ok().map(|read| read.state)
    };
    // What is no state was logged there, and stays as it is.
    let (Some(sent), Some(returned)) = (read(&file.bytes), read(returned)) else {
        return Ok(());
    };
    if sent == returned {
        return Ok(());
    }
    let mut local = StateFile::open(file.path.clone());
    local.update(|state| state.merge(&sent, &returned))
}

impl Path<'_> {
    /// Runs the probe on the host of `--from`, to the nearest node's `port`. Passes on what it
    /// prints; returns its state.
    pub(super) fn probe_there(
        &mut self,
        port: u16,
        stop: &StopFlag,
    ) -> Result<State, (State, String)> {
        let format = self.common.format.unwrap_or(Format::Text);
        let output = Output::open(
            self.common.report.as_deref(),
            Output::Stdout,
            format.has_lines(),
        );
        let mut output = output.map_err(|error| (State::Unknown, error.to_string()))?;
        let mut report = Report {
            is_whole: matches!(output, Output::Whole(_)),
            text: String::new(),
            written: Ok(()),
        };
        let code = self.follow(port, stop, &mut output, &mut report);
        let code = code.map_err(|text| (State::Unknown, text))?;
        let source = self.config.hosts.len();
        let name = &self.names[source];
        let state = state_of(code).ok_or_else(|| {
            let text = format!("{name}: its probe ended with {code}");
            (State::Unknown, text)
        })?;
        if let Some(text) = self.unreached.take() {
            return Err((state, text));
        }
        if report.is_whole {
            report.written = output.write(&report.text);
        }
        match report.written {
            // Lines may be read in part (`| head`).
            Err(error) if !error.is_closed_pipe() => Err((State::Unknown, error.to_string())),
            _ => Ok(state),
        }
    }

    /// Asks for the probe, and follows it to its end; returns its exit code.
    fn follow(
        &mut self,
        port: u16,
        stop: &StopFlag,
        output: &mut Output,
        report: &mut Report,
    ) -> Result<i32, String> {
        let events = self.events.take().ok_or("the hosts are watched twice")?;
        let source = self.config.hosts.len();
        let name = self.names[source].clone();
        let target = endpoint(&self.addresses[0], port);
        let directory = self.hosts[source].directory();
        let mut words = probe_words(self.config, &name, &target);
        for file in self.files.iter() {
            let place = format!("{DIRECTORY}/{}", file.option);
            let option = format!("--{}", file.option);
            let at = words.windows(2).position(|two| *two == [&*option, &place]);
            if let Some(at) = at {
                words[at + 1] = format!("{directory}/{}", file.option);
            }
        }
        let lines = format!("{}\n{}", self.key, script::line(&words));
        self.hosts[source].write(lines.as_bytes());
        let mut stopped: Option<Instant> = None;
        let mut missing = self.files.iter().filter(|file| file.comes_home).count();
        let mut ended: Option<(i32, Instant)> = None;
        let mut errors_end = false;
        loop {
            if stop.is_set() && stopped.is_none() {
                self.hosts[source].quit();
                stopped = Some(Instant::now());
            }
            // A probe without a state has written no file.
            let over = ended.filter(|(code, _)| missing == 0 || state_of(*code).is_none());
            if let Some((code, at)) = over {
                // Its stderr comes by another way, which a command instead of ssh may not have.
                if errors_end || at.elapsed() > END {
                    return Ok(code);
                }
            }
            if stopped.is_some_and(|stopped| stopped.elapsed() > END) {
                return Err(format!("{name}: its probe did not end"));
            }
            let (at, event) = match events.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvError::Timeout) => continue,
                Err(_) => return Err("no host is left".into()),
            };
            if at == source {
                // It still does something.
                stopped = stopped.map(|_| Instant::now());
            }
            match event {
                Event::Output(text) => {
                    let text = self.at_home(&directory, text);
                    if report.take(&text, output) {
                        stop.set();
                    }
                }
                Event::Stderr(line) if at == source => {
                    let line = line.trim_start_matches(&format!("{PROGRAM}: "));
                    let failed = line.strip_prefix(UNREACHABLE);
                    match failed.and_then(|failed| failed.split_once(' ')) {
                        Some((hop, text)) => {
                            let hop = hop.parse().unwrap_or_default();
                            let text = self.unreachable(hop, text);
                            self.unreached.get_or_insert(text);
                        }
                        None => {
                            let line = self.at_home(&directory, line.to_owned());
                            print_error(&format!("{PROGRAM}: {name}: {line}\n"));
                        }
                    }
                }
                Event::Node(line) if line.contains(OWN_LOOP) => {
                    self.progress.line(&self.names[at], &line);
                    self.unreached = Some(self.own_loop(at));
                }
                Event::Node(line) | Event::Stderr(line) => {
                    self.progress.line(&self.names[at], &line);
                }
                Event::State(text) => self.progress.line(&self.names[at], &text),
                Event::File(option, bytes) => {
                    missing = missing.saturating_sub(1);
                    self.bring_home(option, &bytes)?;
                }
                Event::Exited(code) => ended = Some((code, Instant::now())),
                Event::ErrorsEnd => errors_end = true,
                Event::Ended(_) if at == source && over.is_some() => errors_end = true,
                Event::Ended(reason) => {
                    let name = &self.names[at];
                    return Err(format!("{name}: lost in the middle of the run: {reason}"));
                }
                _ => {}
            }
        }
    }

    /// Replaces the names of the probe's files by those of this host.
    fn at_home(&self, directory: &str, mut text: String) -> String {
        for file in self.files.iter() {
            let there = format!("{directory}/{}", file.option);
            if text.contains(&there) {
                text = text.replace(&there, &file.path.display().to_string());
            }
        }
        text
    }

    /// Writes a file that the probe has written.
    fn bring_home(&self, option: &str, bytes: &[u8]) -> Result<(), String> {
        let Some(file) = self.files.iter().find(|file| file.option == option) else {
            return Ok(());
        };
        match option {
            "state" => merge_state(file, bytes),
            // A probe that could not begin has written none.
            _ if bytes.is_empty() => Ok(()),
            _ => replace(&file.path, &String::from_utf8_lossy(bytes))
                .map_err(|error| error.to_string()),
        }
    }
}

/// What the probe prints, on its way to the output.
struct Report {
    /// It is one text, which replaces a file at the end.
    is_whole: bool,
    text: String,
    written: Result<(), OutputError>,
}

impl Report {
    /// Writes a part of it; returns `true` if that fails for the first time.
    fn take(&mut self, text: &str, output: &mut Output) -> bool {
        if self.is_whole {
            self.text.push_str(text);
        } else if self.written.is_ok() {
            self.written = output.write(text);
            return self.written.is_err();
        }
        false
    }
}
