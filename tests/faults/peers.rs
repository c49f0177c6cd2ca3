//! Clients that go at every state of a session: with a reset, with an end, and killed.

use crate::faces::framed::{block, end, next_frame, open, Witness};
use crate::faces::{connect, echo_server};
use crate::scene::{play, Play, Row, Scene, Subject};
use crate::util::{program, Node};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use subsegment_tcp_speeds::sys;
use subsegment_tcp_speeds::wire::FrameType;

/// The way in which a peer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    End,
    Reset,
}

/// Goes, and is gone when this returns: after an end, when the other side has ended too.
pub(crate) fn go(mut socket: TcpStream, way: Way) {
    match way {
        Way::End => {
            // It may have been reset by now, which is an end as well.
            let _ = socket.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut socket, &mut std::io::sink());
        }
        Way::Reset => sys::reset_on_close(&socket).unwrap(),
    }
}

/// A node in a role, with what it leads to.
pub(crate) fn cast(role: &'static str, args: &[&str]) -> (Vec<Node>, Node) {
    match role {
        "echo" => (Vec::new(), Node::start("Z", args)),
        "exit" => {
            let args = [&["-r"], args].concat();
            (Vec::new(), Node::to("X", echo_server(), &args))
        }
        "relay" => {
            let z = Node::start("Z", &[]);
            let b = Node::to("B", z.address, args);
            (vec![z], b)
        }
        "entry" => {
            let z = Node::start("Z", &[]);
            let args = [&["--accept", "raw"], args].concat();
            let e = Node::to("E", z.address, &args);
            (vec![z], e)
        }
        _ => unreachable!("no role {role}"),
    }
}

const BROKE: &str = "broke the connection: ";
const WITHOUT_END: &str = "closed the connection without END";
const WITHIN: &str = "closed the connection within a frame";

/// A client's state: its name, the bytes it has sent, the blocks it has read back, and the message
/// expected at an end.
struct State {
    what: &'static str,
    sent: Vec<u8>,
    answers: usize,
    ends: Option<&'static str>,
    resets: Option<&'static str>,
}

fn states() -> Vec<State> {
    let state = |what, sent: &[&[u8]], answers, ends, resets| State {
        what,
        sent: sent.concat(),
        answers,
        ends,
        resets,
    };
    let (open, block, end) = (&open()[..], &block()[..], &end()[..]);
    vec![
        state("client gone before the magic", &[], 0, None, None),
        state(
            "client gone in the header of OPEN",
            &[&open[..20]],
            0,
            Some(WITHIN),
            Some(BROKE),
        ),
        state(
            "client gone after OPEN",
            &[open],
            0,
            Some(WITHOUT_END),
            Some(BROKE),
        ),
        state(
            "client gone in a payload",
            &[open, block, &block[..50]],
            1,
            Some(WITHIN),
            Some(BROKE),
        ),
        state(
            "client gone between blocks",
            &[open, block],
            1,
            Some(WITHOUT_END),
            Some(BROKE),
        ),
        state("client gone after END", &[open, block, end], 1, None, None),
    ]
}

pub(crate) fn plays() -> Vec<Play> {
    let mut plays = Vec::new();
    for role in ["relay", "echo", "exit"] {
        for state in states() {
            plays.push(play(state.what, move |what| framed(role, what, &state)));
        }
    }
    for (what, asks, shuts) in [
        ("client gone before its first byte", false, false),
        ("client gone between two requests", true, false),
        ("client gone after its half-close", true, true),
    ] {
        plays.push(play(what, move |what| raw(what, asks, shuts)));
    }
    for role in ["relay", "echo", "exit"] {
        plays.push(play("source killed (SIGKILL) in full flow", move |what| {
            killed(role, what)
        }));
    }
    plays
}

fn framed(role: &'static str, what: &'static str, state: &State) -> Vec<Row> {
    let (_beyond, node) = cast(role, &[]);
    let address = node.address;
    let mut subject = Subject::new(role, node);
    for part in [state.ends, state.resets].into_iter().flatten() {
        subject = subject.expects(part);
    }
    if state.what.ends_with("END") {
        // The node may have seen both ends before the reset comes, or not.
        subject = subject.expects_times(0..=1, BROKE);
    }
    let scene = Scene::new(what, Witness::new(address, true), vec![subject]);
    scene.suffers(|_| {
        for way in [Way::End, Way::Reset] {
            let mut client = connect(address);
            client.write_all(&state.sent).unwrap();
            if state.sent.len() >= open().len() {
                receive_until(&mut client, FrameType::Opened);
            }
            for _ in 0..state.answers {
                receive_until(&mut client, FrameType::Block);
            }
            go(client, way);
        }
    })
}

/// Reads up to a frame of `kind`.
#[track_caller]
pub(crate) fn receive_until(client: &mut TcpStream, kind: FrameType) {
    while next_frame(client).expect("an answer").0.kind != kind {}
}

fn raw(what: &'static str, asks: bool, shuts: bool) -> Vec<Row> {
    let (_beyond, node) = cast("entry", &[]);
    let address = node.address;
    let subject = Subject::new("entry", node);
    let scene = Scene::new(what, Witness::new(address, false), vec![subject]);
    scene.suffers(|_| {
        for way in [Way::End, Way::Reset] {
            let mut client = connect(address);
            if asks {
                client.write_all(b"hello").unwrap();
                client.read_exact(&mut [0; 5]).unwrap();
            }
            if shuts {
                client.shutdown(Shutdown::Write).unwrap();
            }
            go(client, way);
        }
    })
}

/// A real source, which is killed while it sends as much as it can and reads no answer.
fn killed(role: &'static str, what: &'static str) -> Vec<Row> {
    let (_beyond, node) = cast(role, &[]);
    let address = node.address;
    // A killed stream may end between two frames, within one, or in a reset, as it had unread
    // answers.
    let logged = "the connection";
    let mut scene = Scene::new(
        what,
        Witness::new(address, true),
        vec![Subject::new(role, node).expects(logged)],
    );
    scene.rounds = 2;
    scene.first_kib = 2048;
    scene.suffers(|_| kill_source(address))
}

fn kill_source(address: SocketAddr) {
    let mut command = program();
    command.args(["-f", &address.to_string()]);
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let mut source = command
        .stdin(zeros)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = source.stdout.take().unwrap();
    stdout.read_exact(&mut vec![0; 1 << 20]).unwrap();
    source.kill().unwrap();
    source.wait().unwrap();
}
