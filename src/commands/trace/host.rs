//! One host: its ssh, and the thread that answers the host's script until the node runs.

use super::binaries;
use crate::cli::PROGRAM;
use crate::commands::control::{OPTION, READY};
use crate::remote::answer::{ByteOrder, HostAnswer, Tag};
use crate::remote::script::{PIECE, QUIT};
use crate::remote::ssh::Step;
use crate::remote::{machine, script, ssh};
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::{lock, spawn, LARGE_STACK};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Most bytes of a line of a host, and of what is kept of its errors.
const TEXT_MAX: usize = 16 << 10;

/// More than any state and any page.
const FILE_MAX: u64 = 64 << 20;

/// Parts of a binary between which its progress is shown.
const PARTS: usize = 10;

/// What hosts have in common.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) ssh: ssh::Ssh,
    pub(super) tag: Tag,
    pub(super) binaries: Option<PathBuf>,
    pub(super) installed_only: bool,
    /// The probe runs there, and not a node.
    pub(super) is_source: bool,
    /// The files that the probe needs, and those that it writes, as they are now.
    pub(super) files: Arc<[FarFile]>,
}

/// A file of an option, which a probe elsewhere has under the option's name.
pub(super) struct FarFile {
    pub(super) option: &'static str,
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    /// The probe writes it.
    pub(super) comes_home: bool,
}

/// A step of a host.
pub(super) enum Event {
    /// It does this now.
    State(String),
    /// Its boot and its network namespace.
    Machine(String),
    /// Its node waits for a command line.
    Ready,
    /// A line of its node.
    Node(String),
    /// Its node ended before it listened.
    NodeEnded,
    /// A line that ssh or the host wrote to stderr.
    Stderr(String),
    /// A part of the probe's stdout.
    Output(String),
    /// The probe ended with this exit code.
    Exited(i32),
    /// All lines that the probe wrote to stderr were passed on.
    ErrorsEnd,
    /// A file that the probe wrote, by its option.
    File(&'static str, Vec<u8>),
    /// It is of no use any more, for this reason.
    Ended(String),
}

/// An ssh that runs the script on a host.
pub(super) struct Host {
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    /// The command of the script that runs the node; empty until that is known.
    run: Mutex<String>,
    /// The directory made there; empty if there is none.
    directory: Mutex<String>,
    /// The node reads, and has to hear from us.
    is_ready: AtomicBool,
}

impl Host {
    /// Starts ssh and the thread that answers. Events carry `place`; the channel of the second
    /// value is closed when the host has ended.
    pub(super) fn start(
        plan: &Plan,
        login: &str,
        place: usize,
        events: Sender<(usize, Event)>,
    ) -> Result<(Arc<Self>, Receiver<()>), String> {
        let words = plan.ssh.run(login, &script::command(&plan.tag));
        let spawned = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An interrupt from the terminal is for us alone: we end the hosts in order.
            .process_group(0)
            .spawn();
        let mut child = spawned.map_err(|error| {
            let name = &words[0];
            format!("cannot start {name}: {error}; install an ssh client, or use --ssh COMMAND")
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let stdin = Mutex::new(child.stdin.take());
        let host = Arc::new(Self {
            child: Mutex::new(child),
            stdin,
            run: Mutex::default(),
            directory: Mutex::default(),
            is_ready: AtomicBool::new(false),
        });
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err("ssh has no pipes".into());
        };
        let thread = |error| format!("cannot start a thread: {error}");
        let (open, ended) = channel(1);
        let errors = Arc::new(Mutex::new(String::new()));
        let (kept, noted) = (Arc::clone(&errors), events.clone());
        let (reading, read) = channel::<()>(1);
        let tag = plan.tag.to_string();
        spawn("stderr", LARGE_STACK, move || {
            let mut stderr = BufReader::new(stderr);
            while let Some(line) = read_line(&mut stderr) {
                if line == tag {
                    let _ = noted.send((place, Event::ErrorsEnd));
                    continue;
                }
                let mut kept = lock(&kept);
                if kept.len() < TEXT_MAX {
                    kept.push_str(&line);
                    kept.push('\n');
                }
                drop(kept);
                let _ = noted.send((place, Event::Stderr(line)));
            }
            drop(reading);
        })
        .map_err(thread)?;
        let (plan, login, this) = (plan.clone(), login.to_owned(), Arc::clone(&host));
        spawn("host", LARGE_STACK, move || {
            let mut talk = Talk {
                host: &this,
                plan: &plan,
                stdout: BufReader::new(stdout),
                events: &events,
                place,
                step: Step::LogIn,
            };
            let reason = match talk.drive() {
                Ok(()) => {
                    // ssh may have more to write than its end.
                    let _ = read.recv_timeout(Duration::from_secs(1));
                    let status = lock(&this.child)
                        .wait()
                        .ok()
                        .and_then(|status| status.code());
                    ssh::failure(&lock(&errors), status, &login, talk.step)
                }
                Err(reason) => reason,
            };
            let _ = events.send((place, Event::Ended(reason)));
            this.close();
            drop(open);
        })
        .map_err(thread)?;
        Ok((host, ended))
    }

    /// Writes to the host. An error means that it has ended, which its thread notices.
    pub(super) fn write(&self, bytes: &[u8]) {
        if let Some(stdin) = lock(&self.stdin).as_mut() {
            let _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
        }
    }

    /// Shows a node that waits or runs that we are there.
    pub(super) fn beat(&self) {
        if self.is_ready.load(Ordering::Acquire) {
            self.write(b"\n");
        }
    }

    /// Runs the node again, after one that could not listen.
    pub(super) fn run(&self) {
        let run = lock(&self.run).clone();
        self.write(run.as_bytes());
    }

    /// Ends a probe in order. Its files still come.
    pub(super) fn quit(&self) {
        self.write(&[QUIT, b'\n']);
    }

    /// The directory made there; empty if there is none.
    pub(super) fn directory(&self) -> String {
        lock(&self.directory).clone()
    }

    /// Ends its input: the node ends, then the script, then ssh. An ssh that takes no input is
    /// ended at once.
    pub(super) fn close(&self) {
        match self.stdin.try_lock() {
            Ok(mut stdin) => drop(stdin.take()),
            // A thread hangs in a write to it.
            Err(_) => self.kill(),
        }
    }

    /// Ends ssh at once.
    pub(super) fn kill(&self) {
        let _ = lock(&self.child).kill();
    }
}

/// Reads a line with its end, or the next `TEXT_MAX` bytes of it; `None` at the end.
fn read_bytes(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = reader.take(TEXT_MAX as u64).read_until(b'\n', &mut line);
    read.is_ok_and(|read| read > 0).then_some(line)
}

/// Reads a line, without its end and at most `TEXT_MAX` bytes of it; `None` at the end.
fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let line = read_bytes(reader)?;
    let text = String::from_utf8_lossy(&line);
    Some(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// What the look at a host found.
#[derive(Default)]
struct Look {
    machine: String,
    order: Option<ByteOrder>,
    path: Option<String>,
    version: String,
}

/// The thread's side of the script.
struct Talk<'a> {
    host: &'a Host,
    plan: &'a Plan,
    stdout: BufReader<ChildStdout>,
    events: &'a Sender<(usize, Event)>,
    place: usize,
    step: Step,
}

impl Talk<'_> {
    fn send(&self, event: Event) {
        // An error means that the run is over.
        let _ = self.events.send((self.place, event));
    }

    fn state(&self, text: impl Into<String>) {
        self.send(Event::State(text.into()));
    }

    /// Returns the next answer; `None` at the end.
    fn answer(&mut self) -> Option<HostAnswer> {
        loop {
            let line = read_line(&mut self.stdout)?;
            if let Some(answer) = HostAnswer::read(&line, &self.plan.tag) {
                return Some(answer);
            }
        }
    }

    /// Has the host run its node, and passes on what that writes, until the end of ssh. An error is
    /// the reason that the host cannot be used.
    fn drive(&mut self) -> Result<(), String> {
        self.state("connecting");
        self.host.write(script::FIRST.as_bytes());
        let Some(look) = self.look() else {
            return Ok(());
        };
        self.step = Step::Copy;
        let path = match &look.path {
            Some(path) if is_same(&look.version) => {
                self.state(format!("runs the installed {path}"));
                path.clone()
            }
            _ if self.plan.installed_only => return Err(not_installed(&look)),
            _ => {
                if !self.place_binary(&look)? {
                    return Ok(());
                }
                String::new()
            }
        };
        if !self.send_files()? {
            return Ok(());
        }
        self.step = Step::Run;
        let command = if self.plan.is_source { "go" } else { "run" };
        *lock(&self.host.run) = format!("{command} {path}\n");
        self.host.run();
        while let Some(answer) = self.answer() {
            match answer {
                HostAnswer::Node(line) if line == READY => {
                    self.host.is_ready.store(true, Ordering::Release);
                    self.send(Event::Ready);
                    if self.plan.is_source {
                        return self.pass_output();
                    }
                }
                HostAnswer::Node(line) => self.send(Event::Node(line)),
                HostAnswer::Ended => {
                    self.host.is_ready.store(false, Ordering::Release);
                    self.send(Event::NodeEnded);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Passes on the stdout of the probe, its exit code, and its files. An error is the reason that
    /// they cannot be had.
    fn pass_output(&mut self) -> Result<(), String> {
        let mut bytes = Vec::new();
        while let Some(more) = read_bytes(&mut self.stdout) {
            bytes.extend(more);
            // A long line comes in pieces, which may end inside a character.
            let whole = match std::str::from_utf8(&bytes) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => bytes.len(),
            };
            let rest = bytes.split_off(whole);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            bytes = rest;
            let end = text.find(&self.plan.tag.to_string());
            // The report may have ended without a line end.
            let (output, answer) = text.split_at(end.unwrap_or(text.len()));
            if !output.is_empty() {
                self.send(Event::Output(output.to_owned()));
            }
            if let Some(HostAnswer::Exit(code)) =
                HostAnswer::read(answer.trim_end(), &self.plan.tag)
            {
                self.send(Event::Exited(code));
                if code != script::SILENT {
                    self.fetch_files()?;
                }
            }
        }
        Ok(())
    }

    /// Fetches the files that the probe wrote.
    fn fetch_files(&mut self) -> Result<(), String> {
        let files = Arc::clone(&self.plan.files);
        for file in files.iter().filter(|file| file.comes_home) {
            let option = file.option;
            let mut bytes = Vec::new();
            loop {
                let piece = bytes.len() / PIECE;
                let get = format!("get {piece} {option}\n");
                self.host.write(get.as_bytes());
                let Some(HostAnswer::Piece(size)) = self.answer() else {
                    return Err(format!("lost before the file of --{option} came home"));
                };
                if size > FILE_MAX {
                    return Err(format!("the file of --{option} has {size} bytes there"));
                }
                let rest = size.saturating_sub(bytes.len() as u64).min(PIECE as u64);
                let read = (&mut self.stdout).take(rest).read_to_end(&mut bytes);
                if read.map_or(true, |read| read as u64 != rest) {
                    return Err(format!("lost while the file of --{option} came home"));
                }
                self.state(format!("brings the file of --{option}"));
                if rest < PIECE as u64 {
                    break;
                }
            }
            self.send(Event::File(option, bytes));
        }
        Ok(())
    }

    /// Makes the directory there, unless there is one; `false` if ssh ended meanwhile.
    fn make_directory(&mut self) -> Result<bool, String> {
        if !lock(&self.host.directory).is_empty() {
            return Ok(true);
        }
        self.host.write(b"dir\n");
        match self.answer() {
            None => Ok(false),
            Some(HostAnswer::Dir(Some(directory))) => {
                lock(&self.host.directory).clone_from(&directory);
                self.state(format!("copies to {directory}"));
                Ok(true)
            }
            Some(_) => Err(format!(
                "no directory to run from: none of $XDG_RUNTIME_DIR, /dev/shm, /tmp, /var/tmp \
                 and $HOME can be written to and executes (noexec); install {PROGRAM} there"
            )),
        }
    }

    /// Sends the files of the probe; `false` if ssh ended meanwhile.
    fn send_files(&mut self) -> Result<bool, String> {
        let files = Arc::clone(&self.plan.files);
        for FarFile { option, bytes, .. } in files.iter() {
            if !self.make_directory()? {
                return Ok(false);
            }
            let size = bytes.len();
            self.host
                .write(format!("take {size} {option}\n").as_bytes());
            self.host.write(bytes);
            match self.answer() {
                None => return Ok(false),
                Some(HostAnswer::Took(took)) if took == size as u64 => {}
                _ => {
                    return Err(format!(
                        "did not take the {size} bytes of --{option}: is its disk full?"
                    ))
                }
            }
        }
        Ok(true)
    }

    fn look(&mut self) -> Option<Look> {
        let mut look = Look::default();
        loop {
            match self.answer()? {
                HostAnswer::Machine(machine) => look.machine = machine,
                HostAnswer::Order(order) => look.order = order,
                HostAnswer::Host(Some(host)) => self.send(Event::Machine(host)),
                HostAnswer::Path(path) => look.path = Some(path),
                HostAnswer::Installed(version) => look.version = version,
                HostAnswer::End => return Some(look),
                _ => {}
            }
        }
    }

    /// Copies the first binary that runs there; `false` if ssh ended meanwhile.
    fn place_binary(&mut self, look: &Look) -> Result<bool, String> {
        let targets = machine::targets(&look.machine, look.order)
            .map_err(|reason| format!("{reason}; build the program there and install it"))?;
        let (directory, full) = (self.plan.binaries.as_deref(), self.plan.is_source);
        let candidates = binaries::candidates(targets, directory, full);
        if candidates.is_empty() {
            return Err(format!(
                "is a {:?}, and there is no binary for it: put one at DIR/{}/{PROGRAM} and use \
                 --binaries DIR, or install the program there",
                look.machine, targets[0]
            ));
        }
        if !self.make_directory()? {
            return Ok(false);
        }
        let mut refused = Vec::new();
        for path in candidates {
            let binary = binaries::read(path)?;
            let (shown, size) = (binary.path.display(), binary.bytes.len());
            self.host.write(format!("put {size}\n").as_bytes());
            for (at, piece) in binary.bytes.chunks(size / PARTS + 1).enumerate() {
                self.state(format!("copies {} %", at * 100 / PARTS));
                self.host.write(piece);
            }
            match self.answer() {
                None => return Ok(false),
                Some(HostAnswer::Put(bytes, _)) if bytes != size as u64 => {
                    return Err(format!(
                        "took {bytes} of {size} bytes of {shown}: is its disk full?"
                    ))
                }
                Some(HostAnswer::Put(_, version)) if is_same(&version) => return Ok(true),
                Some(HostAnswer::Put(_, version)) if version.starts_with(PROGRAM) => {
                    refused.push(format!("{shown} is {version:?}, and this is {}", own()));
                }
                Some(HostAnswer::Put(_, output)) => {
                    refused.push(format!(
                        "{shown} does not run there: {output:?}{}",
                        hint(&output)
                    ));
                }
                Some(_) => {}
            }
        }
        Err(format!(
            "{}; build the program for a {:?} and use --binaries DIR, or install it there",
            refused.join("; "),
            look.machine
        ))
    }
}

/// Returns the likely reason for which a binary that arrived does not run.
fn hint(output: &str) -> &'static str {
    let is_missing = ["not found", "No such file", "required file"];
    if is_missing.iter().any(|part| output.contains(part)) {
        " (its loader or libc is missing there: a static build needs none)"
    } else {
        ""
    }
}

/// The name and the version of this program.
fn own() -> String {
    format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"))
}

/// Returns `true` if the first line of a `-V` is that of our version. A program that knows no
/// control prints an error instead.
fn is_same(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some(PROGRAM) && words.next() == Some(env!("CARGO_PKG_VERSION"))
}

fn not_installed(look: &Look) -> String {
    let own = own();
    match &look.path {
        None => {
            format!("has no {PROGRAM} in its PATH: install {own}, or leave out --installed-only")
        }
        Some(path) if look.version.starts_with(&format!("{PROGRAM}: ")) => format!(
            "versions differ: {path} does not know {OPTION}, and this is {own}: install that, or \
             leave out --installed-only"
        ),
        Some(path) => format!(
            "versions differ: {path} is {:?}, and this is {own}: install that, or leave out \
             --installed-only",
            look.version
        ),
    }
}
