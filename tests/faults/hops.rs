//! Next hops and servers that are not there, do not answer, or go at every state of a session.

use crate::faces::framed::{block, end, error_text, framed, next_frame, open, Witness, COOKIE};
use crate::faces::{accept, connect, connect_unless_reset, echo_server, read_out, Ending};
use crate::peers::{go, Way};
use crate::scene::{play, Play, Row, Scene, Subject};
use crate::util::link::Link;
use crate::util::{fill_backlog, free_port, Node};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use subsegment_tcp_speeds::sys;
use subsegment_tcp_speeds::wire::{Flags, FrameType, HEADER_LEN};

/// The behaviour of a next hop on a connection, given its number: it is over on return.
type Act = Box<dyn Fn(usize, TcpStream) + Send + Sync>;

/// What stands where the next hop should be, from the second connection on.
enum After {
    Acts(Act),
    /// No process listens there.
    Refuses,
    /// Its backlog is full: what comes is dropped, as by a firewall.
    Swallows,
}

/// A node in `role` whose next hop serves one connection well, the witness's, and all others as
/// `after` does.
struct Stage {
    role: &'static str,
    node: Node,
    next: SocketAddr,
    witness: Witness,
    _beyond: Node,
    /// Connections that fill a backlog, and the listener.
    _full: (Vec<TcpStream>, Option<TcpListener>),
}

impl Stage {
    fn new(role: &'static str, args: &[&str], after: After) -> Self {
        let z = Node::start("Z", &[]);
        // No other process gets this port when the listener has gone.
        let next = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let hop = TcpListener::bind(next).unwrap();
        let own: &[&str] = match role {
            "relay" => &[],
            "entry" => &["--accept", "raw"],
            _ => &["-r"],
        };
        let node = Node::to("N", next, &[own, args].concat());
        let well = match role {
            "exit" => echo_server(),
            _ => z.address,
        };
        let listening = hop.try_clone().unwrap();
        let passing = thread::spawn(move || pass_on(accept(&listening), well));
        let witness = Witness::new(node.address, role != "entry");
        passing.join().unwrap();
        let mut full = (Vec::new(), None);
        match after {
            After::Refuses => drop(hop),
            After::Swallows => {
                full = (fill_backlog(next), Some(hop));
            }
            After::Acts(act) => {
                let act = std::sync::Arc::new(act);
                thread::spawn(move || {
                    for (at, socket) in hop.incoming().map_while(Result::ok).enumerate() {
                        let act = std::sync::Arc::clone(&act);
                        thread::spawn(move || act(at, socket));
                    }
                });
            }
        }
        Self {
            role,
            node,
            next,
            witness,
            _beyond: z,
            _full: full,
        }
    }

    /// Lets `fault` happen to a client of the node; `expected` are the parts of the lines of
    /// the node, one per round.
    fn play(
        self,
        what: &'static str,
        change: impl FnOnce(Subject, SocketAddr) -> Subject,
        mut fault: impl FnMut(SocketAddr),
    ) -> Vec<Row> {
        let address = self.node.address;
        let subject = change(Subject::new(self.role, self.node), self.next);
        Scene::new(what, self.witness, vec![subject]).suffers(|_| fault(address))
    }
}

/// Copies both ways, as a balancer does.
pub(crate) fn pass_on(near: TcpStream, to: SocketAddr) {
    let far = connect(to);
    for (from, to) in [(&near, &far), (&far, &near)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        from.set_read_timeout(None).unwrap();
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to); // A fault of either side ends both.
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

const WITHOUT_END: &str = "closed the connection without END";
const WITHIN: &str = "closed the connection within a frame";
const BROKE: &str = "broke the connection: ";

/// The bytes that the next hop sends before it goes: OPENED is the first.
type Sent = (
    &'static str,
    fn() -> Vec<u8>,
    Option<&'static str>,
    Option<&'static str>,
);

fn opened() -> Vec<u8> {
    framed(FrameType::Opened, Flags::RETURN, COOKIE, &[])
}

fn back() -> Vec<u8> {
    framed(FrameType::Block, Flags::RETURN, COOKIE, b"payload")
}

fn end_back() -> Vec<u8> {
    framed(FrameType::End, Flags::RETURN, COOKIE, &[])
}

const STATES: [Sent; 6] = [
    (
        "next hop gone before OPENED",
        Vec::new,
        Some(WITHOUT_END),
        Some(BROKE),
    ),
    (
        "next hop gone in a header",
        || opened()[..20].to_vec(),
        Some(WITHIN),
        Some(BROKE),
    ),
    (
        "next hop gone after OPENED",
        opened,
        Some(WITHOUT_END),
        Some(BROKE),
    ),
    (
        "next hop gone in a payload",
        || [opened(), back()[..50].to_vec()].concat(),
        Some(WITHIN),
        Some(BROKE),
    ),
    (
        "next hop gone between blocks",
        || [opened(), back()].concat(),
        Some(WITHOUT_END),
        Some(BROKE),
    ),
    (
        "next hop gone after END",
        || [opened(), back(), end_back()].concat(),
        None,
        Some(BROKE),
    ),
];

pub(crate) fn plays() -> Vec<Play> {
    let mut plays = Vec::new();
    for role in ["relay", "entry"] {
        for sent in STATES {
            plays.push(play(sent.0, move |_| next_hop_goes(role, sent)));
        }
    }
    for (what, answer) in [
        ("server gone before it answers", &b""[..]),
        ("server gone in an answer", b"half of"),
    ] {
        plays.push(play(what, move |what| server_goes(what, answer)));
    }
    for role in ["relay", "entry", "exit"] {
        plays.push(play("next hop refuses", move |what| refused(role, what)));
        plays.push(play("next hop swallows SYNs", move |what| {
            swallowed(role, what)
        }));
        plays.push(play("next hop reads nothing", move |what| {
            stuck(role, what)
        }));
        plays.push(play("next hop answers after 0.2 s", move |what| {
            late(role, what)
        }));
    }
    plays
}

/// Reads OPEN and what follows it, sends its part with the cookie of the session, and goes.
fn next_hop_goes(role: &'static str, (what, sent, ends, resets): Sent) -> Vec<Row> {
    let act: Act = Box::new(move |at, mut socket| {
        let header = next_frame(&mut socket).expect("OPEN").0;
        next_frame(&mut socket).expect("a block");
        socket
            .write_all(&with_cookie(&sent(), header.cookie))
            .unwrap();
        let way = [Way::End, Way::Reset][at % 2];
        if way == Way::Reset && !sent().is_empty() {
            // A reset overtakes what was sent; the node has to have read it.
            while sys::unacknowledged(&socket) > 0 {
                thread::yield_now();
            }
        }
        go(socket, way);
    });
    let change = |mut subject: Subject, _: SocketAddr| {
        for part in [ends, resets].into_iter().flatten() {
            subject = subject.expects(part);
        }
        subject
    };
    Stage::new(role, &[], After::Acts(act)).play(what, change, |address| {
        for _ in 0..2 {
            client(role, address);
        }
    })
}

/// Sends a block and END; reads to an end of any kind.
fn client(role: &str, address: SocketAddr) {
    let mut client = connect(address);
    let hello = match role {
        "entry" => b"hello".to_vec(),
        _ => [open(), block()].concat(),
    };
    client.write_all(&hello).unwrap();
    let mut first = [0; 1];
    // The fault may be there before the half-close.
    let _ = client.peek(&mut first);
    if role != "entry" {
        let _ = client.write_all(&end());
    }
    let _ = client.shutdown(Shutdown::Write);
    let ended = client.read_to_end(&mut Vec::new());
    let hung = matches!(&ended, Err(error) if error.kind() == ErrorKind::WouldBlock);
    assert!(!hung, "the client waits for ever");
}

/// The frames of a cut stream with the cookie that the node gave its session.
fn with_cookie(stream: &[u8], cookie: u64) -> Vec<u8> {
    let mut out = stream.to_vec();
    let mut at = 0;
    while out.len() >= at + 32 {
        out[at + 24..at + 32].copy_from_slice(&cookie.to_be_bytes());
        if out.len() < at + HEADER_LEN {
            break;
        }
        crate::faces::framed::check(&mut out[at..]);
        let payload = u32::from_be_bytes(out[at + 16..at + 20].try_into().unwrap());
        at += HEADER_LEN + payload as usize;
    }
    out
}

fn server_goes(what: &'static str, answer: &'static [u8]) -> Vec<Row> {
    let act: Act = Box::new(move |at, mut socket| {
        socket.read_exact(&mut [0; 7]).unwrap();
        socket.write_all(answer).unwrap();
        go(socket, [Way::End, Way::Reset][at % 2]);
    });
    // A server may close or reset as it likes: that is passed on, and is no complaint of the exit.
    Stage::new("exit", &[], After::Acts(act)).play(
        what,
        |subject, _| subject,
        |address| {
            for _ in 0..2 {
                client("exit", address);
            }
        },
    )
}

fn refused(role: &'static str, what: &'static str) -> Vec<Row> {
    let change = |subject: Subject, next| {
        down_once(role, subject).expects(format!("cannot connect to {next}: Connection refused"))
    };
    Stage::new(role, &[], After::Refuses).play(what, change, |address| {
        receives(role, address, "Connection refused");
    })
}

fn swallowed(role: &'static str, what: &'static str) -> Vec<Row> {
    let change = |subject: Subject, next| {
        down_once(role, subject).expects_times(
            5..=5,
            format!("cannot connect to {next}: connection timed out"),
        )
    };
    Stage::new(role, &["-t", "0.3"], After::Swallows).play(what, change, |address| {
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| receives(role, address, "connection timed out"));
            }
        });
    })
}

/// An exit reports once that its server is down.
fn down_once(role: &str, subject: Subject) -> Subject {
    match role {
        "exit" => subject.expects_times(1..=1, "server down: "),
        _ => subject,
    }
}

/// A client that is refused: a framed one gets an ERROR, a plain one is reset.
fn receives(role: &str, address: SocketAddr, part: &str) {
    if role == "entry" {
        let client = connect_unless_reset(address);
        let ending = client.map_or(Ending::Reset, |client| read_out(&client).1);
        assert_eq!(ending, Ending::Reset);
        return;
    }
    let mut client = connect(address);
    client.write_all(&[open(), block()].concat()).unwrap();
    let error_text = error_text(&mut client).expect("an ERROR frame");
    assert!(error_text.contains(part), "{error_text}");
}

/// Three clients at a time send until nothing moves, are logged once each, and reset.
fn stuck(role: &'static str, what: &'static str) -> Vec<Row> {
    let act: Act = Box::new(|_, socket| {
        // Until the connection is over, and nothing is read.
        while sys::wait_closed(&socket, Duration::from_secs(1))
            .unwrap()
            .is_none()
        {}
    });
    let change = move |subject: Subject, _: SocketAddr| {
        let subject = subject.expects_times(3..=3, "has read nothing for 0.3 s, still waiting");
        match role {
            // That plain clients reset is their affair.
            "entry" => subject,
            _ => subject.expects_times(3..=3, BROKE),
        }
    };
    Stage::new(role, &["-t", "0.3"], After::Acts(act)).play(what, change, |address| {
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| fill(role, address));
            }
        });
    })
}

fn fill(role: &str, address: SocketAddr) {
    let mut client = connect(address);
    let big = vec![7; 64 << 10];
    let unit = match role {
        "entry" => big,
        _ => {
            client.write_all(&open()).unwrap();
            framed(FrameType::Block, 0, COOKIE, &big)
        }
    };
    // Longer than the node's patience.
    client
        .set_write_timeout(Some(Duration::from_millis(800)))
        .unwrap();
    while client.write_all(&unit).is_ok() {}
    go(client, Way::Reset);
}

/// A slow path is no fault, and nothing is logged.
fn late(role: &'static str, what: &'static str) -> Vec<Row> {
    let z = Node::start("Z", &[]);
    let well = if role == "exit" {
        echo_server()
    } else {
        z.address
    };
    let link = Link::start(well, Duration::from_millis(100)).unwrap();
    let to = link.address;
    let act: Act = Box::new(move |_, socket| pass_on(socket, to));
    let (keep, kept) = channel();
    keep.send((z, link)).unwrap();
    let rows = Stage::new(role, &["-t", "0.1"], After::Acts(act)).play(
        what,
        |subject, _| subject,
        |address| {
            Witness::new(address, role != "entry").leaves();
        },
    );
    drop(kept);
    rows
}
