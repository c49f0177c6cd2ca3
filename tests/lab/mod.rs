//! A path in two network namespaces, with this process as the wire between them: it delays and
//! drops frames by rule, and tcpdump listens beside it. No netem: few kernels of build machines
//! have it, and a rule can name the very frame it drops.
//!
//! ```text
//! namespace c                 this process                 namespace s
//! client ── c0 ═══ c1 ── delay, drop ── s1 ═══ s0 ── server
//!                   └─ tcpdump             └─ tcpdump
//! ```

use crossbeam_channel::{after, unbounded, Receiver, Sender};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::sys::clock;
use subsegment_tcp_speeds::sys::packet::PacketSocket;
use subsegment_tcp_speeds::time::WallTime;

/// What the client sends past the capture when all is done.
const MARKER: &[u8] = b"-- the end of the capture --";

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_subsegment-tcp-speeds");

/// Fails with a clear message where the tests cannot run: these tests are never left out in
/// silence.
pub(crate) fn require(programs: &[&str]) {
    let root = std::fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0);
    assert!(
        root,
        "these tests make network namespaces and capture packets: run them as root"
    );
    for program in programs {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        let found = found.is_ok_and(|of| of.status.success());
        assert!(
            found,
            "{program} is needed: apt-get install tcpdump tshark iproute2 prometheus"
        );
    }
}

/// Runs a command that has to succeed; what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {}: {errors}",
        output.status
    );
    String::from_utf8(output.stdout).expect("these programs write UTF-8")
}

fn ip(line: &str) {
    run("ip", &line.split(' ').collect::<Vec<_>>());
}

/// A directory of its own for a test's files, gone afterwards.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("passive-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What happens to frames on their way.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    /// From the client to the server.
    pub(crate) forth: Duration,
    /// And back.
    pub(crate) back: Duration,
    /// Whether to drop a frame: its direction (true is forth), how many of its direction with TCP
    /// payload or SYN there were before it, and its TCP flags.
    pub(crate) drops: fn(bool, u32, u8) -> bool,
}

impl Wire {
    pub(crate) const fn delay(forth_ms: u64, back_ms: u64) -> Self {
        Self {
            forth: Duration::from_millis(forth_ms),
            back: Duration::from_millis(back_ms),
            drops: |_, _, _| false,
        }
    }
}

static LABS: AtomicU32 = AtomicU32::new(0);

/// By how much the wire was late at worst, in milliseconds: from the kernel's stamp on a frame,
/// which captures show too, to its being handed on. A busy machine lets the wire's threads wait.
#[derive(Clone, Copy)]
pub(crate) struct Late {
    pub(crate) forth_ms: f64,
    pub(crate) back_ms: f64,
}

impl Late {
    pub(crate) fn both_ms(self) -> f64 {
        self.forth_ms + self.back_ms
    }
}

/// A frame on its way: when the kernel had it, when it is due.
type Underway = (Option<WallTime>, Instant, Vec<u8>);

/// The path; taken down when dropped.
pub(crate) struct Lab {
    name: String,
    pub(crate) server: IpAddr,
    /// Forth and back, in microseconds.
    late: [Arc<AtomicU32>; 2],
    wires: Vec<JoinHandle<()>>,
}

impl Lab {
    pub(crate) fn new(v6: bool, wire: Wire) -> Self {
        require(&["ip", "tcpdump", "tshark"]);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}x{number}", std::process::id() % 100_000);
        let [client, server]: [IpAddr; 2] = match v6 {
            false => ["10.77.0.1", "10.77.0.2"].map(|text| text.parse().unwrap()),
            true => ["fd77::1", "fd77::2"].map(|text| text.parse().unwrap()),
        };
        for (end, address) in [("c", client), ("s", server)] {
            let (inner, outer, space) = (
                format!("{name}{end}0"),
                format!("{name}{end}1"),
                format!("{name}{end}"),
            );
            ip(&format!("netns add {space}"));
            ip(&format!("link add {inner} type veth peer name {outer}"));
            // One frame per segment: what comes out of the wire goes into it again, so it has to
            // fit the MTU.
            ip(&format!("link set {inner} gso_max_segs 1"));
            ip(&format!("link set {inner} netns {space}"));
            // Without duplicate address detection, which would take a second.
            let plan = match v6 {
                false => format!("{address}/24 dev {inner}"),
                true => format!("{address}/64 dev {inner} nodad"),
            };
            ip(&format!("-n {space} addr add {plan}"));
            ip(&format!("-n {space} link set lo up"));
            ip(&format!("-n {space} link set {inner} up"));
            // The outer ends belong to the wire alone: no address, no answers of this host's own.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{outer}/disable_ipv6"), "1");
            ip(&format!("link set {outer} arp off up"));
        }
        let open =
            |end: &str| Arc::new(PacketSocket::open(Some(&format!("{name}{end}1")), &[]).unwrap());
        let (at_client, at_server) = (open("c"), open("s"));
        let mut wires = Vec::new();
        let late = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        for (forth, from, to, late) in [
            (true, &at_client, &at_server, &late[0]),
            (false, &at_server, &at_client, &late[1]),
        ] {
            let (sender, receiver) = unbounded();
            let (from, to, late) = (Arc::clone(from), Arc::clone(to), Arc::clone(late));
            let delay = if forth { wire.forth } else { wire.back };
            wires.push(thread::spawn(move || take(&from, forth, wire, &sender)));
            wires.push(thread::spawn(move || {
                hand_on(&to, &receiver, delay, &late);
            }));
        }
        Self {
            name,
            server,
            late,
            wires,
        }
    }

    /// A kernel setting in both namespaces.
    pub(crate) fn sysctl(&self, setting: &str) {
        for end in ["c", "s"] {
            let space = format!("{}{end}", self.name);
            run("ip", &["netns", "exec", &space, "sysctl", "-qw", setting]);
        }
    }

    /// The interface that a capture at this end (`c` or `s`) listens on.
    pub(crate) fn interface(&self, end: &str) -> String {
        format!("{}{end}1", self.name)
    }

    /// This test program again, in one of the namespaces, as [`actor`].
    fn act(&self, end: &str, part: &str) -> Child {
        let space = format!("{}{end}", self.name);
        let own = std::env::current_exe().unwrap();
        Command::new("ip")
            .args(["netns", "exec", &space])
            .arg(own)
            .args(["--exact", "actor", "--ignored", "--nocapture"])
            .env("PASSIVE_ACTOR", part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Lets the client do `deeds` with a server that is there, while captures run at these ends, to
    /// these files; by how much the wire was late so far.
    pub(crate) fn play(&self, deeds: &str, captures: &[(&str, &Path)]) -> Late {
        let mut server = self.act(
            "s",
            &format!("serve {}", SocketAddr::new(self.server, 5001)),
        );
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let up = lines.any(|line| line.unwrap().contains("serving"));
        assert!(up, "the server ended before it was up");
        let captures: Vec<Capture> = captures
            .iter()
            .map(|(end, path)| Capture::start(&self.interface(end), path))
            .collect();
        let mut client = self.act(
            "c",
            &format!("{deeds} {}", SocketAddr::new(self.server, 5001)),
        );
        let mut said = String::new();
        client
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        let status = client.wait().unwrap();
        assert!(
            status.success() && said.contains("deeds are done"),
            "client: {status}\n{said}"
        );
        for capture in captures {
            capture.finish();
        }
        drop(server.stdin.take()); // The server ends with its input.
        server.wait().unwrap();
        let [forth_ms, back_ms] = self
            .late
            .each_ref()
            .map(|late| f64::from(late.load(Ordering::Relaxed)) / 1000.0);
        Late { forth_ms, back_ms }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for end in ["c", "s"] {
            // Removing a pair ends the wires' reads.
            let _ = Command::new("ip")
                .args(["link", "del", &self.interface(end)])
                .status();
            let _ = Command::new("ip")
                .args(["netns", "del", &format!("{}{end}", self.name)])
                .status();
        }
        for wire in self.wires.drain(..) {
            let _ = wire.join();
        }
    }
}

fn take(from: &PacketSocket, forth: bool, wire: Wire, sender: &Sender<Underway>) {
    let mut buffer = vec![0; 65_536];
    let mut number = 0;
    let delay = if forth { wire.forth } else { wire.back };
    while let Ok(received) = from.receive(&mut buffer) {
        let due = Instant::now() + delay;
        if received.outgoing {
            continue;
        }
        let mut frame = buffer[..received.kept].to_vec();
        if let Some((flags, length)) = complete_checksum(&mut frame) {
            if length > 0 || flags & 2 != 0 {
                if (wire.drops)(forth, number, flags) {
                    number += 1;
                    continue;
                }
                number += 1;
            }
        }
        if sender.send((received.time, due, frame)).is_err() {
            return;
        }
    }
}

fn hand_on(to: &PacketSocket, receiver: &Receiver<Underway>, delay: Duration, late: &AtomicU32) {
    let Ok(fd) = to.as_fd().try_clone_to_owned() else {
        return;
    };
    let mut file = File::from(fd);
    for (taken, due, frame) in receiver {
        let _ = after(due.saturating_duration_since(Instant::now())).recv();
        // A pair that is being removed refuses; then there is no receiver either.
        let _ = file.write_all(&frame);
        if let Some(taken) = taken {
            let held = (clock::read().wall - taken).0 / 1000;
            let more = held.saturating_sub(delay.as_micros() as i64);
            late.fetch_max(u32::try_from(more).unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// Fills in the checksum that the sending kernel has left to a network card; flags and payload of a
/// TCP segment.
pub(crate) fn complete_checksum(frame: &mut [u8]) -> Option<(u8, usize)> {
    let (header, addresses, protocol, end) = match frame.get(12..14)? {
        [8, 0] => {
            let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            (14 + usize::from(frame[14] & 15) * 4, 26..34, frame[23], end)
        }
        [0x86, 0xdd] => {
            let end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            (54, 22..54, frame[20], end)
        }
        _ => return None,
    };
    let at = header
        + match protocol {
            6 => 16,
            17 => 6,
            _ => return None,
        };
    frame[at..at + 2].fill(0);
    let sum = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2);
        pairs
            .map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)))
            .sum()
    };
    let mut total = sum(&frame[addresses]) + sum(&frame[header..end]);
    total += u32::from(protocol) + (end - header) as u32;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    frame[at..at + 2].copy_from_slice(&(!total as u16).to_be_bytes());
    (protocol == 6).then(|| {
        let data = header + usize::from(frame[header + 12] >> 4) * 4;
        (frame[header + 13], end - data)
    })
}

/// A running tcpdump whose output goes to a file through this process, which looks for the end's
/// marker in it.
pub(crate) struct Capture {
    tcpdump: Child,
    reader: JoinHandle<()>,
}

impl Capture {
    pub(crate) fn start(interface: &str, path: &Path) -> Self {
        Self::start_with(interface, path, &[])
    }

    pub(crate) fn start_with(interface: &str, path: &Path, more: &[&str]) -> Self {
        let mut tcpdump = Command::new("tcpdump")
            .args([
                "-i",
                interface,
                "-U",
                "--immediate-mode",
                "-B",
                "65536",
                "-w",
                "-",
            ])
            .arg("--time-stamp-precision=nano")
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(tcpdump.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(
                errors.read_line(&mut line).unwrap() > 0,
                "tcpdump did not begin"
            );
        }
        let mut output = tcpdump.stdout.take().unwrap();
        let mut file = File::create(path).unwrap();
        let reader = thread::spawn(move || {
            let mut tail = Vec::new();
            let mut piece = vec![0; 1 << 16];
            loop {
                let bytes = output.read(&mut piece).unwrap();
                assert!(bytes > 0, "tcpdump ended before the marker passed");
                file.write_all(&piece[..bytes]).unwrap();
                tail.extend_from_slice(&piece[..bytes]);
                if tail.windows(MARKER.len()).any(|window| window == MARKER) {
                    return;
                }
                tail.drain(..tail.len().saturating_sub(MARKER.len()));
            }
        });
        Self { tcpdump, reader }
    }

    /// Waits for the marker and ends tcpdump.
    pub(crate) fn finish(mut self) {
        self.reader.join().unwrap();
        let _ = self.tcpdump.kill();
        self.tcpdump.wait().unwrap();
    }
}

/// Sends the marker to `to`, past every capture; no listener is needed there.
pub(crate) fn mark(to: SocketAddr) {
    let local: SocketAddr = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }
        .parse()
        .unwrap();
    UdpSocket::bind(local).unwrap().send_to(MARKER, to).unwrap();
}

/// The client's or the server's part, in a process of its own.
pub(crate) fn actor(part: &str) {
    let words: Vec<&str> = part.split(' ').collect();
    let address: SocketAddr = words[words.len() - 1].parse().unwrap();
    if words[0] == "serve" {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || serve(stream.unwrap()));
            }
        });
        println!("\nserving");
        // Until the test closes our input.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        return;
    }
    for deed in words[0].split('+') {
        let (deed, number) = deed.split_once('=').unwrap_or((deed, "0"));
        act(deed, number.parse().unwrap(), address);
    }
    mark(SocketAddr::new(address.ip(), 9));
    println!("\ndeeds are done");
}

fn connect(address: SocketAddr, order: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(order.as_bytes()).unwrap();
    stream
}

fn act(deed: &str, number: u64, address: SocketAddr) {
    match deed {
        // A key a second, each with its echo.
        "keys" => {
            let mut stream = connect(address, "echo\n");
            for _ in 0..number {
                stream.read_exact(&mut [0]).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
                let pause = stream.read(&mut [0]);
                assert!(pause.is_err(), "nothing is sent during the pause");
                stream.set_read_timeout(None).unwrap();
                stream.write_all(b"k").unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
        "down" => {
            let mut stream = connect(address, &format!("send {number}\n"));
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert_eq!(got.len() as u64, number);
        }
        "up" => {
            let mut stream = connect(address, "take\n");
            stream.write_all(&vec![b'u'; number as usize]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, (number + 5).to_string());
        }
        "short" => {
            for _ in 0..number {
                act("down", 100, address);
            }
        }
        // Writes nothing more at once; the answer comes after the client's FIN.
        "half" => {
            let mut stream = connect(address, "half\n");
            stream.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert_eq!(got.len(), 50_000);
        }
        "refused" => {
            let closed = SocketAddr::new(address.ip(), 5002);
            let error = TcpStream::connect(closed).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        "http" => {
            let mut stream = connect(address, "GET /thing HTTP/1.1\r\nHost: server\r\n\r\n");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
        _ => panic!("no such deed: {deed}"),
    }
}

fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut order = String::new();
    reader.read_line(&mut order).unwrap();
    match order.trim().split_once(' ').unwrap_or((order.trim(), "0")) {
        ("echo", _) => {
            stream.write_all(b"$").unwrap();
            let mut key = [0];
            while reader.read(&mut key).unwrap() > 0 {
                stream.write_all(&key).unwrap();
            }
        }
        ("send", number) => {
            let bytes = vec![b'd'; number.parse().unwrap()];
            stream.write_all(&bytes).unwrap();
        }
        ("take", _) => {
            let bytes = reader.read_to_end(&mut Vec::new()).unwrap();
            stream
                .write_all((bytes + order.len()).to_string().as_bytes())
                .unwrap();
        }
        ("half", _) => {
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            stream.write_all(&[b'h'; 50_000]).unwrap();
        }
        ("GET", _) => {
            let body = vec![b'b'; 30_000];
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .unwrap();
            stream.write_all(&body).unwrap();
            // To be read to its end, or the close resets the connection.
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
        }
        other => panic!("no such order: {other:?}"),
    }
}
