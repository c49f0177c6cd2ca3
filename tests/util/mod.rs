//! Harness of the chain tests: the real binary on port 0, whose output they wait for without
//! sleeping.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of it.

pub mod http;
pub mod json;
pub mod link;
pub mod vitals;

use json::{parse, Value};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::sys::{self, SocketOptions, Source};

/// Longer than anything takes on a busy machine; only a failing test waits for it.
pub const LONG: Duration = Duration::from_secs(60);

/// Returns `true` if the nodes run under strace, as on a slow host.
pub fn is_traced() -> bool {
    std::env::var_os("STS_STRACE").is_some()
}

/// The binary under test.
pub fn program() -> Command {
    let binary = env!("CARGO_BIN_EXE_subsegment-tcp-speeds");
    if !is_traced() {
        return Command::new(binary);
    }
    // A slow host: each system call stops twice. The tracer is a grandchild, so that signals and
    // procfs are those of the program.
    static WRAPPER: OnceLock<PathBuf> = OnceLock::new();
    let wrapper = WRAPPER.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("sts-strace-{}", std::process::id()));
        let strace = need("strace").display().to_string();
        let script = format!("#!/bin/sh\nexec {strace} -D -f -qq -o /dev/null {binary} \"$@\"\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    });
    Command::new(wrapper)
}

/// A directory of this test's own, removed at its end.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sts-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running process whose stderr is read line by line.
pub struct Process {
    pub child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let (say, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line on stderr that contains `part`.
    #[track_caller]
    pub fn wait_line(&mut self, part: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(part)) {
            return line.clone();
        }
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => {
                    let what = match error {
                        RecvTimeoutError::Timeout => "no such line in time",
                        RecvTimeoutError::Disconnected => "stderr ended without such a line",
                    };
                    panic!("{part:?}: {what}; seen:\n{}", self.seen.join("\n"));
                }
            }
        }
    }

    /// Everything printed on stderr so far (all of it once the process has ended).
    pub fn stderr(&mut self) -> Vec<String> {
        self.seen.extend(self.lines.try_iter());
        self.seen.clone()
    }

    /// The address in its `listening on` line.
    #[track_caller]
    pub fn address(&mut self) -> SocketAddr {
        let line = self.wait_line(": listening on ");
        let rest = line.split(": listening on ").nth(1).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    }

    /// Sends a signal by its name: `TERM`, `INT`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("stdout was piped")
    }

    /// Waits for the end, which is expected to come by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The reader of stderr ends with the pipe.
                while let Ok(line) = self.lines.recv_timeout(LONG) {
                    self.seen.push(line);
                }
                return status;
            }
            // stderr closes with the process: an event, not a sleep.
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => self.seen.push(line),
                Err(_) => std::thread::yield_now(),
            }
            assert!(Instant::now() < deadline, "it does not end");
        }
    }

    /// Ends a node in order; its exit status and what it wrote to a piped stdout.
    #[track_caller]
    pub fn stop(&mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        // Read meanwhile: a full pipe would keep it from its end, and the wait has a limit.
        let reading = self.child.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut text = String::new();
                stdout.read_to_string(&mut text).map(|_| text)
            })
        });
        let status = self.wait();
        let text = reading.map(|reading| reading.join().unwrap().unwrap());
        (status, text.unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node under test.
pub struct Node {
    pub process: Process,
    pub address: SocketAddr,
}

impl Node {
    /// Starts `--node NAME -l 127.0.0.1:0` with further arguments, and waits until it listens.
    #[track_caller]
    pub fn start(name: &str, args: &[&str]) -> Self {
        Self::start_command(
            program()
                .args(["--node", name, "-l", "127.0.0.1:0"])
                .args(args),
        )
    }

    #[track_caller]
    pub fn start_command(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdout(Stdio::piped()).stdin(Stdio::null()));
        let address = process.address();
        Self { process, address }
    }

    /// A relay, or with other arguments what they make of it, to `next`.
    #[track_caller]
    pub fn to(name: &str, next: SocketAddr, args: &[&str]) -> Self {
        let next = next.to_string();
        Self::start(name, &[&["-f", next.as_str()], args].concat())
    }
}

/// Runs the program to its end.
#[track_caller]
pub fn run(args: &[&str]) -> Output {
    program()
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("run {args:?}: {error}"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn json(bytes: &[u8]) -> Value {
    parse(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes)))
}

/// The integer at a path of keys and indexes.
#[track_caller]
pub fn int(report: &Value, path: &str) -> i64 {
    let value = report.at(path).and_then(Value::as_i64);
    value.unwrap_or_else(|| panic!("no integer at {path} in {:?}", report.at(path)))
}

/// promtool accepts the metrics of `whose`.
#[track_caller]
pub fn promtool_accepts(whose: &str, metrics: &str) {
    let mut promtool = Command::new(need("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{whose}: {said}\n{metrics}"
    );
}

/// Fails if a real program is missing: `scripts/check` installs those that the tests need.
#[track_caller]
pub fn need(program: &str) -> PathBuf {
    for dir in ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"] {
        let path = Path::new(dir).join(program);
        if path.exists() {
            return path;
        }
    }
    panic!(
        "{program} is not installed: run scripts/check, which installs it, or apt-get install it"
    );
}

/// Debian and others keep it in a directory of the architecture.
#[track_caller]
pub fn libfaketime() -> PathBuf {
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
    let dirs = roots.iter().flat_map(|root| {
        let below = std::fs::read_dir(root).into_iter().flatten().flatten();
        below.map(|entry| entry.path()).chain([PathBuf::from(root)])
    });
    let mut found = dirs
        .map(|dir| dir.join("faketime/libfaketime.so.1"))
        .filter(|path| path.exists());
    found
        .next()
        .expect("libfaketime is not installed: run scripts/check, or apt-get install libfaketime")
}

/// Fills the backlog of a listener that accepts nothing: later connects are dropped, as by a
/// firewall. One in vain may be a machine that stalled; two in a row are not.
#[track_caller]
pub fn fill_backlog(at: SocketAddr) -> Vec<TcpStream> {
    let (mut waiting, mut in_vain) = (Vec::new(), 0);
    while in_vain < 2 {
        match TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
            Ok(socket) => {
                waiting.push(socket);
                in_vain = 0;
            }
            Err(_) => in_vain += 1,
        }
        assert!(waiting.len() < 100_000, "the backlog has no end");
    }
    waiting
}

/// A flag that is set on drop, also if a test fails, for threads of a scope that has to wait for
/// them.
pub struct Raised<'a>(pub &'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects to `to` from the address `own`.
pub fn try_connect_from(own: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let options = SocketOptions {
        source: Some(Source::Address(own.parse().unwrap())),
        dscp: None,
    };
    let stream = sys::connect(to, LONG, &options)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_write_timeout(Some(LONG))?;
    Ok(stream)
}

/// Connects to `to` from the address `own`, without a failure.
#[track_caller]
pub fn connect_from(own: &str, to: SocketAddr) -> TcpStream {
    try_connect_from(own, to).unwrap()
}

/// A free port, for what cannot be given port 0 or is to find no listener there: below those that
/// the kernel gives to connections and to port 0, so that nothing else comes by it meanwhile and no
/// connection to it meets itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time start apart, and each goes on from its last port.
    let begin = std::process::id().wrapping_mul(61);
    let ports = std::iter::repeat_with(|| {
        let place = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        10_000 + place as u16
    });
    let all = |port| (Ipv4Addr::UNSPECIFIED, port);
    let is_free =
        |&port: &u16| TcpListener::bind(all(port)).is_ok() && UdpSocket::bind(all(port)).is_ok();
    ports.take(20_000).find(is_free).expect("a free port")
}

/// Lets time pass where that nothing happens, or happens slowly, is what is tested.
pub fn pass(time: Duration) {
    let (_keep, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(time);
}
