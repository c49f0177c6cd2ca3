//! What a host may run out of, outputs that take nothing more, and clocks that are set.

use crate::faces::framed::Witness;
use crate::faces::{connect, connect_unless_reset, echo_server};
use crate::peers::cast;
use crate::scene::{play, Play, Row, Scene, Subject};
use crate::util::{libfaketime, need, program, Dir, Node, LONG};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn plays() -> Vec<Play> {
    vec![
        play("out of descriptors", descriptors),
        play("out of threads", threads),
        play("disk full: --report of blocks", |what| {
            output(
                "entry",
                what,
                &[
                    "--format",
                    "jsonl",
                    "--sample",
                    "0",
                    "--report",
                    "/dev/full",
                ],
            )
        }),
        play("disk full: --report at the end", |what| {
            output("relay", what, &["--report", "/dev/full"])
        }),
        play("disk full: a probe's --state and --report", full_state),
        play("stdout closed", closed),
        play("clock set 1000 s ahead and back", |what| {
            clocks("relay", what)
        }),
        play("clock set 1000 s ahead and back", |what| {
            clocks("entry", what)
        }),
        play("clock set 1000 s ahead and back", |what| {
            clocks("echo", what)
        }),
        play("clock set 1000 s ahead and back", |what| {
            clocks("exit", what)
        }),
    ]
}

/// More clients than `node` can take: it logs that once, and takes clients again when some have
/// gone.
fn short(role: &'static str, what: &'static str, node: Node) -> Vec<Row> {
    let address = node.address;
    // A line when it begins; those that the shortage hits within an accepted connection have one
    // each.
    let subject = Subject::new(role, node)
        .expects_times(1..=3, "accept: ")
        .expects_times(0..=40, "cannot start a thread: ")
        .expects_times(0..=40, "cannot connect to ")
        // Clients that go while they wait.
        .expects_times(0..=40, "the connection");
    let mut scene = Scene::new(what, Witness::new(address, true), vec![subject]);
    scene.rounds = 0;
    scene.suffers(|_| {
        let clients: Vec<_> = (0..40).map(|_| connect_unless_reset(address)).collect();
        let soon = Duration::from_secs(1);
        let requests = clients
            .into_iter()
            .map(|client| Some(Witness::silent(client?, true).waits(soon)));
        let mut requests: Vec<_> = requests.collect();
        // They are taken in their order: the first that receives nothing is in the backlog, with
        // all behind it.
        let served = requests
            .iter_mut()
            .position(|client| {
                let client = client.as_mut();
                !client.is_some_and(|client| client.is_answered(b"served?"))
            })
            .unwrap_or(40);
        // None at all where all descriptors were gone before the first could be connected upstream.
        assert!(served < 40, "all were served");
        drop(requests);
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(client) = connect_unless_reset(address) {
                let mut later = Witness::silent(client, true);
                if later.is_answered(b"again") {
                    later.leaves();
                    break;
                }
            }
            assert!(Instant::now() < deadline, "it does not recover");
        }
    })
}

fn descriptors(what: &'static str) -> Vec<Row> {
    let z = Node::start("Z", &[]);
    let mut limited = Command::new(need("prlimit"));
    limited.arg("--nofile=24:24").arg(program().get_program());
    limited.args(["-l", "127.0.0.1:0", "-f", &z.address.to_string()]);
    // By itself it would accept no more than there is room for.
    limited.args(["--max-connections", "1000"]);
    let node = Node::start_command(&mut limited);
    short("relay", what, node)
}

fn threads(what: &'static str) -> Vec<Row> {
    // The limit of processes binds no root: another user's process, and its binary where that user
    // may read.
    let dir = Dir::new("fault-threads");
    let copy = dir.file("program");
    fs::copy(program().get_program(), &copy).unwrap();
    // The processes of a user are counted together, those of another run of this test too.
    let user = 50_000 + std::process::id() % 10_000;
    let mut limited = Command::new(need("prlimit"));
    limited.arg("--nproc=16:16").arg(need("setpriv"));
    limited
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .arg("--clear-groups")
        .arg(&copy);
    limited.args(["-l", "127.0.0.1:0"]);
    let node = Node::start_command(&mut limited);
    short("echo", what, node)
}

/// A node whose own output fails: it reports that when it ends at the latest, and by its exit code.
fn output(role: &'static str, what: &'static str, args: &[&str]) -> Vec<Row> {
    let (_beyond, node) = cast(role, args);
    let address = node.address;
    // Where it has a line per block, at the first of them; and at the end, as the reason of its
    // exit code.
    let lines = if role == "entry" { 2..=2 } else { 1..=1 };
    let mut subject =
        Subject::new(role, node).expects_times(lines, "write /dev/full: No space left on device");
    subject.code = 1;
    let framed = role != "entry";
    let mut scene = Scene::new(what, Witness::new(address, framed), vec![subject]);
    scene.rounds = 0;
    scene.suffers(|_| Witness::new(address, framed).leaves())
}

/// A file system of 64 KiB that is full, in a mount namespace that its processes share.
fn on_full_disk(dir: &Path, command: &str) -> std::process::Output {
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs '{0}' && \
         {{ cat /dev/zero > '{0}/rest' 2> /dev/null; {command}; }}",
        dir.display()
    );
    let mut unshare = Command::new(need("unshare"));
    unshare.args(["--mount", "sh", "-c", &script]);
    unshare.stdin(Stdio::null()).output().unwrap()
}

fn full_state(what: &'static str) -> Vec<Row> {
    let (_beyond, node) = cast("relay", &[]);
    let address = node.address;
    let mut scene = Scene::new(
        what,
        Witness::new(address, true),
        vec![Subject::new("relay", node)],
    );
    scene.rounds = 1;
    let dir = Dir::new("full");
    scene.suffers(|_| {
        for (flag, name) in [("--state", "state"), ("--report", "report")] {
            let file: PathBuf = dir.file(name);
            let binary = program().get_program().to_str().unwrap().to_owned();
            let probe = format!(
                "'{binary}' probe {address} -c 3 -i 0.001 {flag} '{}'",
                file.display()
            );
            let ended = on_full_disk(&dir.0, &probe);
            let stderr = String::from_utf8_lossy(&ended.stderr);
            // A run goes on without its state, but not without its report.
            let code = if name == "state" { 0 } else { 3 };
            assert_eq!(ended.status.code(), Some(code), "{stderr}");
            let is_full = |line: &&str| line.contains("No space left on device");
            let lines = stderr.lines().filter(is_full).count();
            assert_eq!((lines, stderr.lines().count()), (1, 1), "{stderr}");
        }
    })
}

/// An entry whose reader of block lines goes away: a normal end for them, and none for the entry.
fn closed(what: &'static str) -> Vec<Row> {
    let args = ["--format", "jsonl", "--sample", "0"];
    let (_beyond, mut node) = cast("entry", &args);
    let address = node.address;
    drop(node.process.stdout());
    let mut subject = Subject::new("entry", node);
    subject.expects = vec![(0..=1, "standard output".into())];
    let mut scene = Scene::new(what, Witness::new(address, false), vec![subject]);
    scene.rounds = 0;
    scene.suffers(|_| Witness::new(address, false).leaves())
}

/// The clock jumps while blocks are under way, and nothing but figures may depend on it.
fn clocks(role: &'static str, what: &'static str) -> Vec<Row> {
    let dir = Dir::new(&format!("clock-{role}"));
    let file = dir.file("faketime");
    fs::write(&file, "+0").unwrap();
    let z = Node::start("Z", &[]);
    let next = match role {
        "exit" => echo_server(),
        _ => z.address,
    };
    let mut command = program();
    command.args(["-l", "127.0.0.1:0", "-t", "0.5"]);
    if role != "echo" {
        command.args(["-f", &next.to_string()]);
    }
    match role {
        "exit" => drop(command.arg("-r")),
        "entry" => drop(command.args(["--accept", "raw", "--sample", "0"])),
        _ => {}
    }
    command.env("LD_PRELOAD", libfaketime());
    command.env("FAKETIME_TIMESTAMP_FILE", &file);
    command.env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let node = Node::start_command(&mut command);
    let address = node.address;
    let subject = Subject::new(role, node).expects_times(2..=2, "clock: stepped, generation=");
    let framed = role != "entry";
    let mut scene = Scene::new(what, Witness::new(address, framed), vec![subject]);
    scene.rounds = 1;
    let before_file = dir.file("new");
    scene.suffers(|_| {
        for offset in ["+1000", "+0"] {
            // Replaced whole: the library may read it at any time.
            fs::write(&before_file, offset).unwrap();
            fs::rename(&before_file, &file).unwrap();
            stepped(address, framed);
        }
    })
}

/// Marked blocks for a while, so that each step is seen.
fn stepped(address: SocketAddr, framed: bool) {
    let mut other = Witness::silent(connect(address), framed).marks();
    for _ in 0..20 {
        assert!(other.is_answered(b"does the clock matter?"));
    }
    other.leaves();
}
