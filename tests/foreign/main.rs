//! The binaries of `scripts/build-static`, in chains with the one under test: the wire format
//! between machines of other widths and byte orders, and what their kernels' numbers are.
//! `scripts/test-static` runs it; `cargo test` alone does not.
//!
//! Its arguments are names of targets; what stands in `target/static` is tested without. What is
//! not for this machine runs under qemu's emulation of the user side, on a processor as small as
//! the target allows.

#[path = "../faces/mod.rs"]
mod faces;
#[allow(dead_code)] // It uses a part of it.
#[path = "../truth/support.rs"]
mod support;
#[path = "../util/mod.rs"]
mod util;

use faces::{accept, connect, listener, read_out, read_stream, reset, write_stream, Ending};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use subsegment_tcp_speeds::cli::flags::FULL_ONLY;
use subsegment_tcp_speeds::report::format::FORMATS;
use support::{lines_from, Lines};
use util::json::Value;
use util::{libfaketime, need, program, text, Dir, Node, Process};

/// A target and what runs it here: nothing, or an emulator and the processor it is to be.
#[derive(Clone, Copy)]
struct Target {
    name: &'static str,
    emulator: Option<(&'static str, &'static str)>,
}

const fn native(name: &'static str) -> Target {
    let emulator = None;
    Target { name, emulator }
}

const fn emulated(name: &'static str, qemu: &'static str, processor: &'static str) -> Target {
    let emulator = Some((qemu, processor));
    Target { name, emulator }
}

const TARGETS: [Target; 9] = [
    native("glibc"),
    native("x86_64"),
    native("i686"),
    emulated("aarch64", "qemu-aarch64-static", "cortex-a53"),
    emulated("armv7", "qemu-arm-static", "cortex-a7"),
    emulated("armv5te", "qemu-arm-static", "arm926"),
    emulated("mips", "qemu-mips-static", "24Kc"),
    emulated("mipsel", "qemu-mipsel-static", "24Kc"),
    emulated("riscv64", "qemu-riscv64-static", "rv64"),
];

/// Where an emulated process finds its address 0: above it, for 4 GiB, all memory is its own, and
/// below and further up it is qemu's.
const GUEST: u64 = 0x1000_0000_0000;

impl Target {
    fn binary(self) -> PathBuf {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/static");
        target.join(self.name).join(cli_name())
    }

    fn command(self) -> Command {
        let Some((qemu, processor)) = self.emulator else {
            return Command::new(self.binary());
        };
        let mut command = Command::new(need(qemu));
        command.args(["-cpu", processor, "-B", &GUEST.to_string()]);
        command.arg(self.binary());
        command
    }

    /// A node of this target; of the binary under test is `Node::start`.
    #[track_caller]
    fn node(self, name: &str, next: Option<SocketAddr>, args: &[&str]) -> Node {
        let mut command = self.command();
        command.args(["--node", name, "-l", "127.0.0.1:0"]);
        if let Some(next) = next {
            command.args(["-f", &next.to_string()]);
        }
        Node::start_command(command.args(args))
    }
}

/// The targets whose C library has two clocks: that of 32 bits ends in 2038.
const OF_32_BITS: [(&str, &str); 5] = [
    ("i686", "qemu-i386"),
    ("armv7", "qemu-arm"),
    ("armv5te", "qemu-arm"),
    ("mips", "qemu-mips"),
    ("mipsel", "qemu-mipsel"),
];

fn cli_name() -> &'static str {
    subsegment_tcp_speeds::cli::PROGRAM
}

/// Ends nodes in order, by SIGTERM; each has to report its connections.
#[track_caller]
fn stop(nodes: Vec<Node>) {
    for mut node in nodes {
        let (status, said) = node.process.stop();
        let stderr = node.process.stderr().join("\n");
        assert!(status.success(), "{status}: {stderr}");
        assert!(said.contains("connections: 1"), "{said}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

const COUNT: usize = 30;

/// Probes by `probe` to `entry` over `segments` segments: all answered, and each block's parts are
/// its total.
#[track_caller]
fn assert_sane(probe: &mut Command, entry: SocketAddr, segments: usize) -> Lines {
    let entry = entry.to_string();
    let count = COUNT.to_string();
    let args = ["probe", &entry, "-c", &count, "-i", "0.02", "-s", "3000"];
    let lines = lines_from(probe.args(args));
    assert_eq!(lines.0.len(), COUNT);
    // Each segment, each host forward, and back each but the two ends.
    lines.assert_sums(3 * segments);
    lines
}

fn chains_measure(target: Target) {
    let z = target.node("Z", None, &[]);
    let c = Node::to("C", z.address, &[]);
    let b = target.node("B", Some(c.address), &[]);
    assert_sane(&mut program(), b.address, 3);
    stop(vec![b, c, z]);
    let z = Node::start("Z", &[]);
    let c = target.node("C", Some(z.address), &[]);
    let b = Node::to("B", c.address, &[]);
    assert_sane(&mut target.command(), b.address, 3);
    stop(vec![b, c, z]);
}

/// The clock of `command` is ahead by fifteen years.
fn ahead(mut command: Command) -> Command {
    command.env("LD_PRELOAD", libfaketime());
    command.env("FAKETIME", "+15y");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

/// A chain, and its probe, whose clocks are all past January 2038. `qemu` is an emulator that is
/// not linked statically: it passes the clock of its C library on.
fn works_after_2038(target: Target, qemu: &str) {
    let emulated = || {
        let mut command = ahead(Command::new(need(qemu)));
        if let Some((_, processor)) = target.emulator {
            command.args(["-cpu", processor]);
        }
        command.arg(target.binary());
        command
    };
    let mut z = emulated();
    let z = Node::start_command(z.args(["--node", "Z", "-l", "127.0.0.1:0"]));
    let mut b = ahead(program());
    b.args([
        "--node",
        "B",
        "-l",
        "127.0.0.1:0",
        "-f",
        &z.address.to_string(),
    ]);
    let b = Node::start_command(&mut b);
    let lines = assert_sane(&mut emulated(), b.address, 2);
    let scheduled = lines.0[0].at("scheduled").and_then(Value::as_str).unwrap();
    assert!(scheduled > "2040", "{scheduled}");
    stop(vec![b, z]);
}

fn blocks_come_back_as_they_went(target: Target) {
    let z = Node::start("Z", &[]);
    let b = target.node("B", Some(z.address), &[]);
    let mut source = target.command();
    let entry = b.address.to_string();
    source.args(["--node", "A", "-f", &entry]);
    let mut source = Process::start(source.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut stdin = source.child.stdin.take().unwrap();
    let mut received = Vec::new();
    let mut stdout = source.stdout();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&sent).unwrap();
            drop(stdin);
        });
        stdout.read_to_end(&mut received).unwrap();
    });
    assert!(received == sent, "{} bytes", received.len());
    assert!(source.wait().success(), "{:?}", source.stderr());
    stop(vec![b, z]);
}

/// From a client through an entry and an exit to a server: bytes, the half-close, the answer, and
/// then a reset each way.
fn services_work(target: Target) {
    for is_entry in [true, false] {
        for by_client in [None, Some(true), Some(false)] {
            let (server, address) = listener();
            let [entry, exit] = if is_entry {
                let exit = Node::to("X", address, &["-r"]);
                [
                    target.node("E", Some(exit.address), &["--accept", "raw"]),
                    exit,
                ]
            } else {
                let exit = target.node("X", Some(address), &["-r"]);
                [Node::to("E", exit.address, &["--accept", "raw"]), exit]
            };
            let mut near = connect(entry.address);
            let mut far = accept(&server);
            write_stream(&mut near, 1, 300_000);
            read_stream(&mut far, 1, 300_000);
            write_stream(&mut far, 2, 5_000);
            read_stream(&mut near, 2, 5_000);
            match by_client {
                None => {
                    near.shutdown(Shutdown::Write).unwrap();
                    assert_eq!(read_out(&far), (vec![], Ending::Orderly));
                    far.write_all(b"late").unwrap();
                    drop(far);
                    assert_eq!(read_out(&near), (b"late".to_vec(), Ending::Orderly));
                }
                Some(true) => {
                    far.write_all(b"x").unwrap();
                    reset(near);
                    assert_eq!(read_out(&far).1, Ending::Reset, "by the client");
                }
                Some(false) => {
                    near.write_all(b"x").unwrap();
                    reset(far);
                    assert_eq!(read_out(&near).1, Ending::Reset, "by the server");
                }
            }
            stop(vec![entry, exit]);
        }
    }
}

/// What only a full build has is refused by name, as a usage error.
fn refuses_what_it_lacks(target: Target) {
    for name in FULL_ONLY {
        let mut command = target.command();
        match *name {
            name if FORMATS.iter().any(|format| format.name == name) => {
                command.args(["-l", ":0", "--format", name])
            }
            "report-html" | "targets" | "probe-allow" => command.args([&format!("--{name}"), "x"]),
            word => command.args([word, "x"]),
        };
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        let why = "made for small machines, without the feature full";
        assert!(said.contains(name) && said.contains(why), "{name}: {said}");
    }
}

/// What `passive` makes of a capture of a chain at work is the same to the byte.
fn captures_are_read_alike(target: Target, capture: &Path) {
    for format in ["json", "csv", "text", "prometheus"] {
        let read = |mut command: Command| {
            let output = command
                .arg("passive")
                .arg(capture)
                .args(["--format", format]);
            let output = output.output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout)
        };
        let expected = read(program());
        assert!(expected.lines().count() > 2, "{expected}");
        assert_eq!(read(target.command()), expected, "{format}");
    }
}

/// Packets of a service behind an entry and an exit; tcpdump ends by itself when it has them.
fn make_capture(path: &Path) {
    let (server, address) = listener();
    let exit = Node::to("X", address, &["-r"]);
    let entry = Node::to("E", exit.address, &["--accept", "raw"]);
    let ports = [address, exit.address, entry.address].map(|end| format!("port {}", end.port()));
    let mut tcpdump = Command::new(need("tcpdump"));
    tcpdump
        .args(["-i", "lo", "-s", "200", "-c", "300", "-w"])
        .arg(path);
    let mut tcpdump = Process::start(tcpdump.arg(ports.join(" or ")));
    tcpdump.wait_line("listening on");
    let mut near = connect(entry.address);
    let mut far = accept(&server);
    for round in 0..100 {
        write_stream(&mut near, round, 2_000);
        read_stream(&mut far, round, 2_000);
        write_stream(&mut far, round, 9_000);
        read_stream(&mut near, round, 9_000);
    }
    assert!(tcpdump.wait().success());
}

/// Memory of an idle relay, in KiB: of a native process all that is resident, of an emulated one
/// what qemu holds of its address space (`None` where that is not apart from qemu's own).
fn idle_kib(target: Target) -> Option<u64> {
    let next = "127.0.0.1:9".parse().unwrap();
    let node = target.node("B", Some(next), &[]);
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", node.process.child.id()));
    let mut is_its_own = false;
    let mut kib = 0;
    for line in maps.unwrap().lines() {
        let start = line
            .split_once('-')
            .map(|(start, _)| u64::from_str_radix(start, 16));
        if let Some(Ok(start)) = start {
            let guest = GUEST..GUEST + (1 << 32);
            is_its_own = target.emulator.is_none() || guest.contains(&start);
        } else if let Some(rest) = line.strip_prefix("Rss:").filter(|_| is_its_own) {
            let number = rest.trim().trim_end_matches(" kB");
            kib += number.parse::<u64>().unwrap();
        }
    }
    (kib > 0).then_some(kib)
}

/// From hop to hop another target, each once, and back.
fn all_in_one_chain(targets: &[Target]) {
    let mut nodes = vec![Node::start("Z", &[])];
    for target in targets {
        let next = nodes[nodes.len() - 1].address;
        nodes.push(target.node(target.name, Some(next), &[]));
    }
    let entry = nodes[nodes.len() - 1].address;
    assert_sane(&mut program(), entry, nodes.len());
    nodes.reverse();
    stop(nodes);
}

fn main() {
    let named: BTreeSet<_> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let is_known = |name: &String| TARGETS.iter().any(|target| target.name == *name);
    assert!(named.iter().all(is_known), "no such target: {named:?}");
    let is_wanted = |target: &Target| match named.is_empty() {
        true => target.binary().exists(),
        false => named.contains(target.name),
    };
    let targets: Vec<_> = TARGETS.into_iter().filter(is_wanted).collect();
    assert!(
        !targets.is_empty(),
        "no target: run scripts/build-static first"
    );

    let dir = Dir::new("foreign");
    let capture = dir.file("chain.pcap");
    make_capture(&capture);
    let mut failed = 0;
    println!(
        "| target | stripped, KiB | idle RSS, KiB | runs on | chains with x86-64 | \
         services, resets | captures, or that they are refused | after 2038 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &target in &targets {
        let mut outcome = |check: &dyn Fn()| {
            // The check prints its failure on stderr.
            let outcome = catch_unwind(std::panic::AssertUnwindSafe(check));
            failed += u32::from(outcome.is_err());
            if outcome.is_ok() {
                "pass"
            } else {
                "FAIL"
            }
        };
        let size = std::fs::metadata(target.binary()).map_or(0, |data| data.len().div_ceil(1024));
        let chains = outcome(&|| {
            chains_measure(target);
            blocks_come_back_as_they_went(target);
        });
        let services = outcome(&|| services_work(target));
        // Those of musl are built without the feature full.
        let captures = match target.name {
            "glibc" => outcome(&|| captures_are_read_alike(target, &capture)),
            _ => outcome(&|| refuses_what_it_lacks(target)),
        };
        let of_32_bits = OF_32_BITS.iter().find(|(name, _)| *name == target.name);
        let later = of_32_bits.map_or("-", |(_, qemu)| outcome(&|| works_after_2038(target, qemu)));
        let idle = idle_kib(target).map_or("-".to_owned(), |kib| kib.to_string());
        let host = target
            .emulator
            .map_or("this machine".to_owned(), |(qemu, cpu)| {
                format!("{qemu}, {cpu}")
            });
        println!(
            "| {} | {size} | {idle} | {host} | {chains} | {services} | {captures} | {later} |",
            target.name
        );
    }
    let whole = catch_unwind(|| all_in_one_chain(&targets));
    failed += u32::from(whole.is_err());
    let names: Vec<_> = targets.iter().rev().map(|target| target.name).collect();
    let outcome = if whole.is_ok() { "pass" } else { "FAIL" };
    println!("x86_64 -> {} -> x86_64: {outcome}", names.join(" -> "));
    std::process::exit(i32::from(failed > 0));
}
