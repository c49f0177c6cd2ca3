//! The command `trace`: nodes started over ssh, a probe through them, and nothing left.
//!
//! ssh carries control and binaries. Measured bytes go from host to host. Each host has one ssh,
//! whose input keeps its node alive: the nodes end when this process does, however that happens.

mod binaries;
mod errors;
mod far;
mod host;

use crate::cli::{Common, ExitCode, HostPort, ProbeConfig, TraceConfig, PROGRAM};
use crate::commands::control::OPTION;
use crate::commands::prepare::rules;
use crate::commands::signals::Signals;
use crate::commands::{print, probe, Failure};
use crate::node::StopFlag;
use crate::output::print_error;
use crate::remote::answer::{self, Tag};
use crate::remote::host::{endpoint, names};
use crate::remote::{script, ssh};
use crate::report::State;
use crate::sync::channel::{channel, Receiver, RecvError, Sender};
use crate::sync::{lock, random, spawn, LARGE_STACK, STACK};
use crate::wire::siphash::Key;
use host::{Event, FarFile, Host, Plan};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The interval at which a node hears from us; it ends after 10 s of silence.
const BEAT: Duration = Duration::from_secs(3);

/// A host that does nothing new for so long is given up. ssh gives up a connection before.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest wait for the nodes' own end.
const END: Duration = Duration::from_secs(5);

/// Interval at which a preparation looks for a signal.
const TICK: Duration = Duration::from_millis(100);

/// Runs the command `trace`.
///
/// # Errors
///
/// [`Failure`], with the exit code of the path's state.
pub fn run(
    mut common: Common,
    config: TraceConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> Result<ExitCode, Failure> {
    let format = common.format;
    let failed_as = |(state, text): (State, String)| {
        let line = format.and_then(|format| format.failure(state, &text));
        if let Some(line) = line {
            // stderr and the exit code remain.
            let _ = crate::output::Output::Stdout.write(&line);
        }
        Failure::new(probe::exit_code(state), format!("trace: {text}"))
    };
    let failed = |text: String| failed_as((State::Unknown, text));
    let addresses: Vec<String> = config
        .hosts
        .iter()
        .map(|host| match &host.address {
            Some(address) => address.clone(),
            None => configured(&config.options.ssh, &host.login).unwrap_or(host.host.clone()),
        })
        .collect();
    if config.options.dry_run {
        return print(&dry_run(&common, &config, &addresses));
    }
    rules(&common).map_err(failed)?;
    let (key, digits) = new_key().map_err(|error| failed(format!("make a key: {error}")))?;
    common.key = Some(key);
    signals.stop(stop, None);
    let files = far::files(&common, &config.options.probe_files).map_err(failed)?;
    let mut path = Path::start(&common, &config, addresses, &digits, files).map_err(failed)?;
    let prepared = path.prepare(stop).map_err(|text| (State::Unknown, text));
    if config.options.from.is_some() {
        let state = prepared.and_then(|port| path.probe_there(port, stop));
        path.close();
        return state.map(probe::exit_code).map_err(failed_as);
    }
    let prepared = prepared.and_then(|port| {
        let host = Some(path.addresses[0].clone());
        let target = HostPort { host, port };
        let probe = ProbeConfig {
            target,
            ..config.probe
        };
        match probe::check(&common, &probe, stop) {
            Err(error) if !stop.is_set() => Err(match path.ended() {
                Some(reason) => (State::Unknown, reason),
                None => {
                    let state = probe::broken_state(&error, probe.on_timeout);
                    let text = path.unreachable(error.hop, &error.text);
                    (state, path.unreached.take().unwrap_or(text))
                }
            }),
            _ => Ok(probe),
        }
    });
    let probe = match prepared {
        Ok(probe) if !stop.is_set() => probe,
        other => {
            path.close();
            let signal = || (State::Unknown, "ended by a signal".to_owned());
            return Err(failed_as(other.err().unwrap_or_else(signal)));
        }
    };
    let lost = path.watch(stop).map_err(failed)?;
    let code = probe::run(&common, &probe, signals, stop);
    path.close();
    let lost = lock(&lost).take();
    match lost {
        Some(text) => Err(Failure::new(
            ExitCode::ProbeUnknown,
            format!("trace: {text}"),
        )),
        None => code,
    }
}

/// Returns the HostName that ssh would connect to; `None` where it cannot be asked.
fn configured(ssh: &ssh::Ssh, login: &str) -> Option<String> {
    let words = ssh.configuration(login)?;
    let output = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    ssh::host_name(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
}

/// Returns a new key, and its digits.
fn new_key() -> io::Result<(Key, String)> {
    let mut key = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let digits = key.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    });
    Ok((Key(key), digits))
}

/// Returns the command lines per host, with PORT for ports that are not known.
fn dry_run(common: &Common, config: &TraceConfig, addresses: &[String]) -> String {
    let names = path_names(config);
    let count = config.hosts.len();
    let mut text = String::new();
    for (at, host) in config.hosts.iter().enumerate() {
        let next = match addresses.get(at + 1) {
            Some(address) => Some(endpoint(address, 0).replace(":0", ":PORT")),
            None => config.options.server.as_ref().map(ToString::to_string),
        };
        let port = config.options.ports.map_or(0, |ports| ports.first);
        let node = node_words(common, config, &names[at], next, port, at + 1 == count);
        text += &dry_host(config, &names[at], &host.login, &node);
    }
    if let Some(from) = &config.options.from {
        let target = endpoint(&addresses[0], 0).replace(":0", ":PORT");
        let probe = far::probe_words(config, &names[count], &target);
        text += &dry_host(config, &names[count], &from.login, &probe);
    }
    text
}

/// Returns the lines of a host for a dry run.
fn dry_host(config: &TraceConfig, name: &str, login: &str, words: &[String]) -> String {
    let login = config.options.ssh.run(login, "sh -c '...'").join(" ");
    let what = if config.options.installed_only {
        "the installed"
    } else {
        "the installed, or a copy of"
    };
    format!(
        "{name}:\n  {login}\n  {what} {PROGRAM} {OPTION}, which reads:\n  a key of this run \
         alone\n  {}\n",
        words.join(" ")
    )
}

/// Returns the names of the nodes, and behind them that of the host of `--from`.
fn path_names(config: &TraceConfig) -> Vec<String> {
    let from = config.options.from.iter();
    let mut names = names(&from.chain(&config.hosts).cloned().collect::<Vec<_>>());
    // It is the first of the path, but ssh to it comes last.
    names.rotate_left(usize::from(config.options.from.is_some()));
    names
}

/// Returns the command line of a node.
fn node_words(
    common: &Common,
    config: &TraceConfig,
    name: &str,
    next: Option<String>,
    port: u16,
    is_last: bool,
) -> Vec<String> {
    let timeout = common.timeout.as_secs_f64().to_string();
    let listen = format!(":{port}");
    let mut words = vec!["--listen", &listen, "--node", name, "--timeout", &timeout];
    words.extend(["--report", "/dev/null"]);
    if let Some(next) = &next {
        words.extend(["--forward-to", next]);
    }
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    if is_last && next.is_some() {
        words.push("--remove-perf-headers".into());
        if let Some(check) = config.server_check {
            words.extend(["--server-check".into(), check.as_secs_f64().to_string()]);
        }
    }
    words
}

/// The hosts of a path.
struct Path<'a> {
    common: &'a Common,
    config: &'a TraceConfig,
    names: Vec<String>,
    /// How each is reached by the one before it.
    addresses: Vec<String>,
    key: String,
    hosts: Vec<Arc<Host>>,
    /// The files of a probe elsewhere.
    files: Arc<[FarFile]>,
    /// The reason for which the path could not be opened, where a host has named it.
    unreached: Option<String>,
    /// Closed when the host has ended.
    ended: Vec<Receiver<()>>,
    events: Option<Receiver<(usize, Event)>>,
    progress: Progress,
    is_closing: Arc<AtomicBool>,
    /// Closed at the end of the run, which ends the thread that writes to the nodes.
    beating: Option<Sender<()>>,
}

/// A host while nodes are started.
#[derive(Default)]
struct Standing {
    /// The last line of its node.
    line: String,
    machine: Option<String>,
    is_ready: bool,
    is_asked: bool,
    /// The next port of `--ports` to try.
    port: u16,
    /// The port on which its node listens.
    listening: Option<u16>,
}

impl<'a> Path<'a> {
    /// Starts an ssh for each host.
    fn start(
        common: &'a Common,
        config: &'a TraceConfig,
        addresses: Vec<String>,
        key: &str,
        files: Arc<[FarFile]>,
    ) -> Result<Self, String> {
        let plan = Plan {
            ssh: config.options.ssh.clone(),
            tag: Tag::new(random()),
            binaries: config.options.binaries.clone(),
            installed_only: config.options.installed_only,
            is_source: false,
            files: Vec::new().into(),
        };
        let (sender, events) = channel(usize::MAX);
        let mut path = Self {
            common,
            config,
            names: path_names(config),
            addresses,
            key: key.to_owned(),
            hosts: Vec::new(),
            files,
            unreached: None,
            ended: Vec::new(),
            events: Some(events),
            progress: Progress::new(config.options.verbose, path_names(config).len()),
            is_closing: Arc::default(),
            beating: None,
        };
        for (at, word) in config.hosts.iter().chain(&config.options.from).enumerate() {
            let mut plan = plan.clone();
            if at == config.hosts.len() {
                plan.is_source = true;
                plan.files = Arc::clone(&path.files);
            }
            match Host::start(&plan, &word.login, at, sender.clone()) {
                Ok((host, ended)) => {
                    path.hosts.push(host);
                    path.ended.push(ended);
                }
                Err(error) => {
                    path.close();
                    return Err(format!("{}: {error}", path.names[at]));
                }
            }
        }
        let (beating, over) = channel::<()>(1);
        let hosts = path.hosts.clone();
        let beat = spawn("beat", STACK, move || loop {
            match over.recv_timeout(BEAT) {
                Err(RecvError::Timeout) => hosts.iter().for_each(|host| host.beat()),
                _ => return,
            }
        });
        if let Err(error) = beat {
            path.close();
            return Err(format!("cannot start a thread: {error}"));
        }
        path.beating = Some(beating);
        Ok(path)
    }

    /// Starts the nodes, from the far end as far as ports are needed; returns the port of the
    /// nearest.
    fn prepare(&mut self, stop: &StopFlag) -> Result<u16, String> {
        let count = self.hosts.len();
        let first = self.config.options.ports.map_or(0, |ports| ports.first);
        let mut standing: Vec<Standing> = Vec::new();
        standing.resize_with(count, Standing::default);
        standing.iter_mut().for_each(|one| one.port = first);
        let events = self.events.take().ok_or("the hosts are started twice")?;
        let mut heard = Instant::now();
        let result = loop {
            if stop.is_set() {
                break Err("ended by a signal".to_owned());
            }
            let Ok((at, event)) = events.recv_timeout(TICK) else {
                if heard.elapsed() > SILENCE {
                    break Err(self.silent(&standing));
                }
                continue;
            };
            heard = Instant::now();
            if let Err(text) = self.take(at, event, &mut standing) {
                break Err(format!("{}: {text}", self.names[at]));
            }
            let source = standing.get(self.config.hosts.len());
            if let (Some(port), true) = (
                standing[0].listening,
                source.map_or(true, |source| source.is_ready),
            ) {
                self.note_twins(&standing);
                break Ok(port);
            }
        };
        self.progress.clear();
        self.events = Some(events);
        result
    }

    /// Takes in an event of a host. An error is the reason that there will be no path.
    fn take(&mut self, at: usize, event: Event, hosts: &mut [Standing]) -> Result<(), String> {
        match event {
            Event::State(text) => self.progress.show(&self.names, at, &text),
            Event::Stderr(text) => self.progress.line(&self.names[at], &text),
            Event::Machine(machine) => hosts[at].machine = Some(machine),
            Event::Ready => {
                hosts[at].is_ready = true;
                self.progress.show(&self.names, at, "waits");
            }
            Event::Node(line) => {
                self.progress.line(&self.names[at], &line);
                hosts[at].listening = hosts[at].listening.or(answer::port(&line));
                if let Some(port) = answer::port(&line) {
                    self.progress
                        .show(&self.names, at, &format!("listens on {port}"));
                }
                hosts[at].line = line;
            }
            Event::NodeEnded => {
                let host = &mut hosts[at];
                let last = self.config.options.ports.map_or(0, |ports| ports.last);
                let line = host.line.trim_start_matches(&format!("{PROGRAM}: "));
                if !line.contains("listen on ") || host.port >= last {
                    let remedy = match self.config.options.ports {
                        Some(_) => "; name a wider range with --ports",
                        None => "",
                    };
                    return Err(format!("its node ended: {line}{remedy}"));
                }
                host.port += 1;
                (host.is_ready, host.is_asked) = (false, false);
                self.hosts[at].run();
            }
            // A probe is not asked for before the path stands.
            Event::Output(_) | Event::ErrorsEnd | Event::File(..) => {}
            Event::Exited(code) => return Err(format!("its probe ended with {code}")),
            Event::Ended(reason) => return Err(reason),
        }
        self.ask(&mut hosts[..self.config.hosts.len()]);
        Ok(())
    }

    /// Sends its command line to each node that waits and whose next hop is known.
    fn ask(&self, hosts: &mut [Standing]) {
        for at in (0..hosts.len()).rev() {
            let is_last = at + 1 == hosts.len();
            let next = match hosts.get(at + 1) {
                Some(next) => match next.listening {
                    Some(port) => Some(endpoint(&self.addresses[at + 1], port)),
                    None => continue,
                },
                None => self.config.options.server.as_ref().map(ToString::to_string),
            };
            let host = &mut hosts[at];
            if host.is_ready && !std::mem::replace(&mut host.is_asked, true) {
                let name = &self.names[at];
                let words = node_words(self.common, self.config, name, next, host.port, is_last);
                let lines = format!("{}\n{}", self.key, script::line(&words));
                self.hosts[at].write(lines.as_bytes());
            }
        }
    }

    /// Prints a note about names of one machine.
    fn note_twins(&self, standing: &[Standing]) {
        for (at, host) in standing.iter().enumerate() {
            let twin = |one: &Standing| one.machine.is_some() && one.machine == host.machine;
            if let Some(twin) = standing[..at].iter().position(twin) {
                print_error(&format!(
                    "{PROGRAM}: note: {} and {} are one machine\n",
                    self.names[twin], self.names[at]
                ));
            }
        }
    }

    /// Stops the run once a host ends before its time; the value then has the reason.
    fn watch(&mut self, stop: &Arc<StopFlag>) -> Result<Arc<Mutex<Option<String>>>, String> {
        let events = self.events.take().ok_or("the hosts are watched twice")?;
        let lost = Arc::new(Mutex::new(None));
        let (found, stop) = (Arc::clone(&lost), Arc::clone(stop));
        let (names, is_closing) = (self.names.clone(), Arc::clone(&self.is_closing));
        let verbose = self.config.options.verbose;
        let watch = spawn("hosts", LARGE_STACK, move || {
            while let Ok((at, event)) = events.recv() {
                let name = &names[at];
                match event {
                    Event::Node(line) | Event::Stderr(line) if verbose => {
                        print_error(&format!("{name}: {line}\n"));
                    }
                    Event::Ended(reason) if !is_closing.load(Ordering::Acquire) => {
                        lock(&found).get_or_insert(format!(
                            "{name}: lost in the middle of the run: {reason}"
                        ));
                        stop.set();
                    }
                    _ => {}
                }
            }
        });
        watch.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(lost)
    }

    /// Ends all nodes and waits for their ssh; ends those that hang.
    fn close(&mut self) {
        self.is_closing.store(true, Ordering::Release);
        self.beating = None;
        self.hosts.iter().for_each(|host| host.close());
        let deadline = Instant::now() + END;
        for (host, ended) in self.hosts.iter().zip(&self.ended) {
            // The sender is dropped at the end.
            if ended
                .recv_deadline(deadline)
                .is_err_and(|error| matches!(error, RecvError::Timeout))
            {
                host.kill();
            }
        }
        self.progress.clear();
    }
}

/// The states of the hosts: one live line on a terminal, or a line for each step.
struct Progress {
    verbose: bool,
    is_live: bool,
    states: Vec<String>,
}

impl Progress {
    fn new(verbose: bool, count: usize) -> Self {
        Self {
            verbose,
            is_live: !verbose && io::stderr().is_terminal(),
            states: vec![String::new(); count],
        }
    }

    fn show(&mut self, names: &[String], at: usize, state: &str) {
        if self.verbose && self.states[at] != state {
            print_error(&format!("{}: {state}\n", names[at]));
        }
        state.clone_into(&mut self.states[at]);
        if self.is_live {
            let states = names.iter().zip(&self.states);
            let states: Vec<String> = states.map(|(name, it)| format!("{name}: {it}")).collect();
            let line = states.join(", ");
            print_error(&format!("\r{}\x1b[K", crate::columns::prefix(&line, 79)));
        }
    }

    fn line(&self, name: &str, text: &str) {
        if self.verbose {
            print_error(&format!("{name}: {text}\n"));
        }
    }

    fn clear(&self) {
        if self.is_live {
            print_error("\r\x1b[K");
        }
    }
}
