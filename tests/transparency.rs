//! A chain is transparent: the server receives what the application sends, bytes, order, half-close
//! and reset included. Everything is tried on a direct connection first: a chain has to behave as
//! TCP itself does.

mod faces;
mod util;

use faces::{
    accept, connect, echo_server, listener, read_nothing_more, read_out, read_stream, reset,
    start_traced, stop_traced, write_stream, Chain, Ending, Shape, SHAPES,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::sys::wait_closed;
use util::{free_port, program, Node, Process, LONG};

/// Bytes of a bulk test: 64 MiB, or 1 GiB where STS_BIG is set.
fn bulk() -> usize {
    if std::env::var_os("STS_BIG").is_some() {
        1 << 30
    } else {
        64 << 20
    }
}

/// Runs `test` on every shape, its server side on a thread of its own.
fn on_every_shape(
    rounds: usize,
    client: impl Fn(TcpStream),
    server: impl Fn(TcpStream) + Send + Sync,
) {
    on_shapes(&SHAPES, rounds, client, server);
}

fn on_shapes(
    shapes: &[Shape],
    rounds: usize,
    client: impl Fn(TcpStream),
    server: impl Fn(TcpStream) + Send + Sync,
) {
    for &shape in shapes {
        let (listener, address) = listener();
        let mut chain = Chain::start(shape, address);
        for round in 0..rounds {
            thread::scope(|scope| {
                let side = scope.spawn(|| server(accept(&listener)));
                client(chain.client());
                assert!(
                    side.join().is_ok(),
                    "{shape:?}, round {round}: the server's side failed"
                );
            });
        }
        chain.stop();
    }
}

// --- bytes ---------------------------------------------------------------------------------------

#[test]
fn a_source_gets_back_every_byte_in_order_through_two_relays() {
    let z = Node::start("Z", &[]);
    let c = Node::to("C", z.address, &[]);
    let b = Node::to("B", c.address, &[]);
    let mut source = Process::start(
        program()
            .args(["--node", "A", "-f", &b.address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let mut stdin = source.child.stdin.take().unwrap();
    let writer = thread::spawn(move || write_stream(&mut stdin, 1, bulk()));
    let mut stdout = source.stdout();
    read_stream(&mut stdout, 1, bulk());
    read_nothing_more(&mut stdout);
    writer.join().unwrap();
    assert!(source.wait().success());
    assert!(source.stderr().iter().any(|line| line.contains("Verdict")));
}

#[test]
fn both_directions_at_once_carry_every_byte_in_order() {
    let both = |seed_out: u64, seed_in: u64| {
        move |socket: TcpStream| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    write_stream(&mut &socket, seed_out, bulk());
                    socket.shutdown(Shutdown::Write).unwrap();
                });
                read_stream(&mut &socket, seed_in, bulk());
                read_nothing_more(&mut &socket);
            });
        }
    };
    let (listener, address) = listener();
    let mut chain = Chain::start(Shape::EntryRelayExit, address);
    let server = thread::spawn(move || both(3, 2)(accept(&listener)));
    both(2, 3)(chain.client());
    server.join().unwrap();
    chain.stop();
}

#[test]
fn a_client_that_sends_100_mb_before_it_reads_100_mb_ends_as_it_does_directly() {
    const MUCH: usize = 100 << 20;
    on_every_shape(
        1,
        |socket| {
            write_stream(&mut &socket, 4, MUCH);
            socket.shutdown(Shutdown::Write).unwrap();
            read_stream(&mut &socket, 5, MUCH);
            read_nothing_more(&mut &socket);
        },
        |socket| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    write_stream(&mut &socket, 5, MUCH);
                    socket.shutdown(Shutdown::Write).unwrap();
                });
                read_stream(&mut &socket, 4, MUCH);
                read_nothing_more(&mut &socket);
            });
        },
    );
}

#[test]
fn a_server_may_speak_first_and_a_client_need_not_speak_at_all() {
    on_every_shape(
        5,
        |socket| {
            let (bytes, ending) = read_out(&socket);
            assert_eq!(
                (&bytes[..], ending),
                (&b"220 ready\r\n"[..], Ending::Orderly)
            );
        },
        |mut socket| {
            socket.write_all(b"220 ready\r\n").unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_out(&socket), (vec![], Ending::Orderly));
        },
    );
}

#[test]
fn a_bulk_connection_goes_on_after_an_idle_while() {
    // An idle connection releases its large buffers after a second: later bytes need room again.
    const BULK: usize = 3 << 20;
    const IDLE: Duration = Duration::from_millis(1500);
    on_shapes(
        &[Shape::EntryRelayExit],
        1,
        |socket| {
            for seed in 20..22 {
                write_stream(&mut &socket, seed, BULK);
                read_stream(&mut &socket, seed, BULK);
                socket.set_read_timeout(Some(IDLE)).unwrap();
                let nothing = (&socket).read(&mut [0]).unwrap_err();
                assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
                socket.set_read_timeout(Some(LONG)).unwrap();
            }
        },
        |socket| {
            for seed in 20..22 {
                read_stream(&mut &socket, seed, BULK);
                write_stream(&mut &socket, seed, BULK);
            }
            read_nothing_more(&mut &socket);
        },
    );
}

// --- half-close ----------------------------------------------------------------------------------

const HALF: usize = 1 << 20;

#[test]
fn a_client_that_shuts_down_first_still_gets_the_whole_answer() {
    on_every_shape(
        10,
        |socket| {
            write_stream(&mut &socket, 6, HALF);
            socket.shutdown(Shutdown::Write).unwrap();
            read_stream(&mut &socket, 7, HALF);
            read_nothing_more(&mut &socket);
        },
        |socket| {
            read_stream(&mut &socket, 6, HALF);
            // Only the half-close lets the server begin.
            read_nothing_more(&mut &socket);
            write_stream(&mut &socket, 7, HALF);
        },
    );
}

#[test]
fn a_server_that_shuts_down_first_still_receives_everything() {
    on_every_shape(
        10,
        |socket| {
            read_stream(&mut &socket, 7, HALF);
            read_nothing_more(&mut &socket);
            write_stream(&mut &socket, 6, HALF);
        },
        |socket| {
            write_stream(&mut &socket, 7, HALF);
            socket.shutdown(Shutdown::Write).unwrap();
            read_stream(&mut &socket, 6, HALF);
            read_nothing_more(&mut &socket);
        },
    );
}

#[test]
fn a_half_close_before_the_next_hop_is_connected_is_passed_on() {
    for shape in SHAPES {
        let (listener, address) = listener();
        let mut chain = Chain::start(shape, address);
        let stopped: Vec<_> = chain.nodes.iter().map(|node| &node.process).collect();
        stopped.iter().for_each(|process| process.signal("STOP"));
        // The kernel completes the handshake; the node is asleep and has connected nowhere yet.
        let mut client = chain.client();
        client.write_all(b"early").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        stopped.iter().for_each(|process| process.signal("CONT"));
        let mut server = accept(&listener);
        assert_eq!(read_out(&server), (b"early".to_vec(), Ending::Orderly));
        server.write_all(b"late").unwrap();
        drop(server);
        assert_eq!(read_out(&client), (b"late".to_vec(), Ending::Orderly));
        chain.stop();
    }
}

#[test]
fn a_half_close_without_a_byte_is_passed_on() {
    on_every_shape(
        10,
        |socket| {
            socket.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_out(&socket), (b"answer".to_vec(), Ending::Orderly));
        },
        |mut socket| {
            assert_eq!(read_out(&socket), (vec![], Ending::Orderly));
            socket.write_all(b"answer").unwrap();
        },
    );
}

// --- resets --------------------------------------------------------------------------------------

const ROUNDS: usize = 25;
/// Half of what [`ROUNDS`] resets take on average when each of them waits for a tick of one second.
const TICKS: Duration = Duration::from_secs(6);

/// What happens before the reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// A byte each way, so that the chain stands.
    Exchange,
    /// The side that resets has shut its writing down.
    OwnHalfClose,
    /// The side that is reset has shut its writing down.
    PeerHalfClose,
    /// The side that resets has just sent 300 kB.
    Data,
    /// The side that is reset sends on until it notices.
    Flood,
}

const BEFORE: [Before; 5] = [
    Before::Exchange,
    Before::OwnHalfClose,
    Before::PeerHalfClose,
    Before::Data,
    Before::Flood,
];

/// The side that ends with a reset, once `go` reports that the other side is ready for it.
fn resetting(before: Before, mut socket: TcpStream, go: &Receiver<()>) {
    socket.write_all(b"a").unwrap();
    let mut byte = [0];
    socket.read_exact(&mut byte).unwrap();
    go.recv().unwrap();
    match before {
        Before::OwnHalfClose => socket.shutdown(Shutdown::Write).unwrap(),
        Before::Data => write_stream(&mut socket, 8, 300_000),
        _ => {}
    }
    reset(socket);
}

/// The side that notices; `None` if an error of its own write showed it.
fn reset_by_peer(before: Before, mut socket: TcpStream, go: &Sender<()>) -> Option<Ending> {
    let mut byte = [0];
    socket.read_exact(&mut byte).unwrap();
    // The second byte stays unread over there, and makes the close a reset.
    socket.write_all(b"bc").unwrap();
    if before == Before::PeerHalfClose {
        socket.shutdown(Shutdown::Write).unwrap();
    }
    go.send(()).unwrap();
    match before {
        // No read shows what follows an end of file: the kernel holds it as the socket's error.
        Before::OwnHalfClose => {
            // A chain that meets end of file and reset at once may pass on the reset alone.
            let reset = match socket.read(&mut byte) {
                Err(error) => error.kind() == ErrorKind::ConnectionReset,
                Ok(_) => wait_closed(&socket, LONG).unwrap() == Some(true),
            };
            assert!(reset, "after the end of file no reset came");
            Some(Ending::Reset)
        }
        Before::Flood => {
            let block = [0; 4096];
            while socket.write_all(&block).is_ok() {}
            None
        }
        _ => Some(read_out(&socket).1),
    }
}

fn resets_arrive(by_client: bool) {
    for shape in SHAPES {
        let (listener, address) = listener();
        let mut chain = Chain::start(shape, address);
        for before in BEFORE {
            let begun = Instant::now();
            for round in 0..ROUNDS {
                let client = chain.client();
                let server = accept(&listener);
                let (by, at) = match by_client {
                    true => (client, server),
                    false => (server, client),
                };
                let (ready, go) = channel();
                let by = thread::spawn(move || resetting(before, by, &go));
                let ending = reset_by_peer(before, at, &ready);
                by.join().unwrap();
                assert!(
                    ending.is_none() || ending == Some(Ending::Reset),
                    "{shape:?}, {before:?}, round {round}: {ending:?}"
                );
            }
            // A round takes milliseconds. A reset that waits for a one-second tick fails this, a
            // busy
            assert!(
                begun.elapsed() < TICKS,
                "{shape:?}, {before:?}: {ROUNDS} resets took {:?}",
                begun.elapsed()
            );
        }
        chain.stop();
    }
}

#[test]
fn a_reset_by_the_client_arrives_at_the_server_as_a_reset() {
    resets_arrive(true);
}

#[test]
fn a_reset_by_the_server_arrives_at_the_client_as_a_reset() {
    resets_arrive(false);
}

#[test]
fn a_reset_within_the_answer_reaches_a_client_that_has_shut_down() {
    // The client has to see that the answer is not whole.
    let shut = Barrier::new(2);
    on_every_shape(
        ROUNDS,
        |mut socket| {
            socket.write_all(b"ab").unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            shut.wait();
            assert_eq!(read_out(&socket).1, Ending::Reset);
        },
        |mut socket| {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            shut.wait();
            write_stream(&mut socket, 9, 100_000);
            reset(socket); // "b" is unread.
        },
    );
}

// --- addresses and options -----------------------------------------------------------------------

fn answers(address: std::net::SocketAddr) {
    let mut client = connect(address);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_out(&client), (b"hello".to_vec(), Ending::Orderly));
}

#[test]
fn ipv6_addresses_names_and_the_wildcard_of_both_families_work() {
    let z6 = Node::start_command(program().args(["--node", "Z", "-l", "[::1]:0"]));
    assert!(z6.address.is_ipv6());
    let to_six = Node::start_command(program().args([
        "-l",
        "localhost:0",
        "-f",
        &format!("[::1]:{}", z6.address.port()),
    ]));
    answers(to_six.address);
    for listen in ["*:0", ":0", "[::]:0"] {
        let node = Node::start_command(program().args([
            "-l",
            listen,
            "-f",
            &format!("localhost:{}", to_six.address.port()),
        ]));
        let port = node.address.port();
        answers(format!("127.0.0.1:{port}").parse().unwrap());
        answers(format!("[::1]:{port}").parse().unwrap());
    }
}

#[test]
fn a_name_with_a_dead_first_address_is_tried_address_by_address() {
    // localhost may have one address or two; with two, a server on the other family only is found.
    let port = free_port();
    let four = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let node = Node::start_command(program().args([
        "-l",
        "127.0.0.1:0",
        "--accept",
        "raw",
        "-r",
        "-f",
        &format!("localhost:{port}"),
    ]));
    let client = connect(node.address);
    drop(accept(&four));
    assert_eq!(read_out(&client), (vec![], Ending::Orderly));
}

#[test]
fn both_sockets_of_a_proxied_connection_send_small_blocks_at_once() {
    let dir = util::Dir::new("nodelay");
    let log = dir.file("strace");
    let server = echo_server();
    let mut node = start_traced(
        &log,
        &["-e", "trace=setsockopt,listen"],
        &[
            "-l",
            "127.0.0.1:0",
            "--accept",
            "raw",
            "-r",
            "-f",
            &server.to_string(),
        ],
    );
    answers(node.address);
    stop_traced(&mut node);
    let calls = std::fs::read_to_string(&log).unwrap();
    let nodelay = calls.matches("TCP_NODELAY, [1]").count();
    let keepalive = calls.matches("SO_KEEPALIVE, [1]").count();
    assert_eq!((nodelay, keepalive), (2, 2), "{calls}");
    assert!(calls.contains(", 4096)"), "a backlog beyond std's: {calls}");
}
