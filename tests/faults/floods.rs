//! Very many clients: one after the other, at once, and those that take their time.

use crate::faces::connect;
use crate::faces::framed::{block, open, Witness};
use crate::peers::cast;
use crate::scene::{play, Play, Row, Scene, Subject};
use crate::util::{is_traced, pass, Node, LONG};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::wire::HEADER_LEN;

/// How many clients open and close at a time.
const HANDS: usize = 4;

pub(crate) fn plays() -> Vec<Play> {
    vec![
        play("10000 connections opened and closed", one_by_one),
        play("2000 connections at once", at_once),
        play(
            "slowloris: 200 send a byte of a header every 0.1 s",
            |what| slowly("relay", what, Slow::Trickle),
        ),
        play("slowloris: 200 stop after the first byte", |what| {
            slowly("echo", what, Slow::Stop(1))
        }),
        play("slowloris: 200 stop in a payload", |what| {
            slowly("exit", what, Slow::Stop(open().len() + 50))
        }),
        play("slowloris: 200 send nothing (--idle-timeout)", silent),
    ]
}

fn entry_relay_echo() -> (Vec<Subject>, SocketAddr) {
    let z = Node::start("Z", &[]);
    let b = Node::to("B", z.address, &[]);
    let e = Node::to("E", b.address, &["--accept", "raw"]);
    let address = e.address;
    let subjects = [("entry", e), ("relay", b), ("echo", z)];
    let subjects = subjects.map(|(role, node)| Subject::new(role, node));
    (subjects.into(), address)
}

/// 17000 to begin with: each first block is measured, and the store of measurements is full after
/// 16384. The heap grows to 2 MiB within 100000 and stays there; a leak of 100 bytes for each of
/// the 10000 would show.
fn one_by_one(what: &'static str) -> Vec<Row> {
    let (subjects, address) = entry_relay_echo();
    let mut scene = Scene::new(what, Witness::new(address, false), subjects);
    (scene.rounds, scene.first_kib, scene.tolerance_kib) = (1, 6144, 1024);
    scene.suffers(|round| {
        let each = [17_000, 10_000][round] / HANDS;
        thread::scope(|scope| {
            for _ in 0..HANDS {
                scope.spawn(move || {
                    for _ in 0..each {
                        served(&connect(address)).unwrap();
                    }
                });
            }
        });
    })
}

fn served(mut client: &TcpStream) -> io::Result<()> {
    let mut answer = [0; 4];
    client.write_all(b"ping")?;
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

/// One at a time on this host: two runs of these tests with 12000 threads each would use up its
/// 32768 (pid_max). The name is the kernel's, which takes it back with the process.
fn alone() -> UnixListener {
    let name = UnixAddress::from_abstract_name("subsegment-tcp-speeds-many-threads").unwrap();
    loop {
        if let Ok(ours) = UnixListener::bind_addr(&name) {
            return ours;
        }
        // Its owner accepts nothing, and this ends with it.
        if let Ok(mut held) = UnixStream::connect_addr(&name) {
            let _ = held.read(&mut [0]);
        }
    }
}

/// The rest of 2000 connections is the C library's, up to 640 stacks; 2000 more add at most what
/// fills that up.
fn at_once(what: &'static str) -> Vec<Row> {
    let _alone = alone();
    let (subjects, address) = entry_relay_echo();
    let mut scene = Scene::new(what, Witness::new(address, false), subjects);
    (scene.rounds, scene.first_kib, scene.tolerance_kib) = (1, stacks(4000), 4096);
    scene.suffers(|_| {
        let clients: Vec<_> = (0..2000).map(|_| connect(address)).collect();
        for time in ["first", "second"] {
            for (at, client) in clients.iter().enumerate() {
                let served = served(client);
                assert!(served.is_ok(), "{time} time, client {at}: {served:?}");
            }
        }
    })
}

/// What memory may keep after so many threads: the C library keeps the stacks of 640 (40 MiB of
/// addresses), of which a debug build has touched up to 32 KiB each, and malloc has its share.
const fn stacks(threads: u64) -> u64 {
    1024 + 40 * if threads < 640 { threads } else { 640 } + threads
}

#[derive(Clone, Copy)]
enum Slow {
    /// A byte at a time, for ever.
    Trickle,
    /// So many bytes, and no more.
    Stop(usize),
}

const SLOW: usize = 200;

fn slowly(role: &'static str, what: &'static str, slow: Slow) -> Vec<Row> {
    let (_beyond, node) = cast(role, &["-t", "0.5"]);
    let address = node.address;
    // A line for each, which names it.
    let subject = Subject::new(role, node).expects_times(
        SLOW..=SLOW,
        "began a frame and did not go on for 0.5 s (--timeout)",
    );
    let mut scene = Scene::new(what, Witness::new(address, true), vec![subject]);
    (scene.rounds, scene.first_kib, scene.tolerance_kib) = (1, stacks(2 * SLOW as u64), 1024);
    scene.suffers(|_| {
        let stream = [open(), block()].concat();
        let begun = Instant::now();
        let at_once = match slow {
            Slow::Trickle => 1,
            Slow::Stop(at) => at,
        };
        // Each sends its first bytes when it is there, or the node logs one that was silent for its
        // timeout.
        let coming = (0..SLOW).map(|_| {
            let mut client = connect(address);
            client.write_all(&stream[..at_once]).unwrap();
            client
        });
        let clients: Vec<_> = coming.collect();
        if let Slow::Trickle = slow {
            // Until no peer takes a byte any more, which is not for want of bytes: half a header
            // takes 2.4 s at least.
            let mut taken = at_once;
            for byte in &stream[at_once..] {
                pass(Duration::from_millis(100));
                let takes = |client: &&TcpStream| { *client }.write_all(&[*byte]).is_ok();
                if clients.iter().filter(takes).count() == 0 {
                    break;
                }
                taken += 1;
            }
            // A traced node ends them later, but before the header is whole.
            let most = HEADER_LEN / if is_traced() { 1 } else { 2 };
            assert!(taken < most, "{taken} bytes were taken");
        }
        for client in &clients {
            ended(client);
        }
        let took = begun.elapsed();
        // On a busy machine 200 threads need a processor first, and the clients need theirs.
        assert!(took < LONG / 4, "they were ended after {took:?} only");
    })
}

/// Reads to the end, whatever it is.
#[track_caller]
fn ended(mut client: &TcpStream) {
    let ended = client.read_to_end(&mut Vec::new());
    let hung = matches!(&ended, Err(error) if error.kind() == ErrorKind::WouldBlock);
    assert!(!hung, "it is not ended");
}

/// A peer that sends nothing at all begins no frame; that is what --idle-timeout is for (longer
/// than the idle second of the witness).
fn silent(what: &'static str) -> Vec<Row> {
    let (_beyond, node) = cast("entry", &["--idle-timeout", "2"]);
    let address = node.address;
    let subject = Subject::new("entry", node);
    let mut scene = Scene::new(what, Witness::new(address, false), vec![subject]);
    (scene.rounds, scene.first_kib, scene.tolerance_kib) = (1, stacks(2 * SLOW as u64), 1024);
    scene.suffers(|_| {
        let clients: Vec<_> = (0..SLOW).map(|_| connect(address)).collect();
        for client in &clients {
            ended(client);
        }
    })
}
