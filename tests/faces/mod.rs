//! Chains of every shape in front of a plain server, seeded streams, and resets without `unsafe`.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of it.

pub mod framed;
#[path = "../util/random.rs"]
mod random;

pub(crate) use random::Random;

use super::util::{need, program, Node, LONG};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use subsegment_tcp_speeds::sys;

/// The nodes between a plain client and a plain server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No node, for comparison with the chains.
    Direct,
    /// A node that is raw on both sides.
    Proxy,
    /// Two nodes.
    EntryExit,
    /// Three nodes.
    EntryRelayExit,
}

/// Every shape; the direct connection comes first, since a test that fails there is wrong itself.
pub const SHAPES: [Shape; 4] = [
    Shape::Direct,
    Shape::Proxy,
    Shape::EntryExit,
    Shape::EntryRelayExit,
];

/// Nodes in front of a server, and where clients connect to.
pub struct Chain {
    pub shape: Shape,
    pub address: SocketAddr,
    /// In order from the client.
    pub nodes: Vec<Node>,
}

impl Chain {
    #[track_caller]
    pub fn start(shape: Shape, server: SocketAddr) -> Self {
        Self::start_with(shape, server, &[])
    }

    /// Every node gets `args` as well.
    #[track_caller]
    pub fn start_with(shape: Shape, server: SocketAddr, args: &[&str]) -> Self {
        let roles: &[&[&str]] = match shape {
            Shape::Direct => &[],
            Shape::Proxy => &[&["--accept", "raw", "-r"]],
            Shape::EntryExit => &[&["--accept", "raw"], &["-r"]],
            Shape::EntryRelayExit => &[&["--accept", "raw"], &[], &["-r"]],
        };
        let mut address = server;
        let mut nodes = Vec::new();
        for (hop, role) in roles.iter().enumerate().rev() {
            let node = Node::to(&format!("N{hop}"), address, &[role, args].concat());
            address = node.address;
            nodes.insert(0, node);
        }
        Self {
            shape,
            address,
            nodes,
        }
    }

    pub fn client(&self) -> TcpStream {
        connect(self.address)
    }

    /// Ends all nodes in order; returns their stderr and stdout.
    #[track_caller]
    pub fn stop(&mut self) -> String {
        let mut output = String::new();
        for node in &mut self.nodes {
            let (status, stdout) = node.process.stop();
            assert!(status.success(), "{:?}: {status}", self.shape);
            output += &(node.process.stderr().join("\n") + "\n" + &stdout);
        }
        assert!(!output.contains("panicked"), "{output}");
        output
    }
}

/// A client whose reads and writes do not block for ever, so that a test fails and does not hang.
pub fn connect(address: SocketAddr) -> TcpStream {
    connect_unless_reset(address).expect("no reset")
}

/// Connects to a node that resets its clients; `None` if the reset comes before the connect
/// returns.
pub fn connect_unless_reset(address: SocketAddr) -> Option<TcpStream> {
    match TcpStream::connect_timeout(&address, LONG) {
        Ok(socket) => {
            bounded(&socket);
            Some(socket)
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("connect to {address}: {error}"),
    }
}

/// The next connection to a test's own server.
#[track_caller]
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (sender, accepted) = channel();
    let listening = listener.try_clone().unwrap();
    std::thread::spawn(move || sender.send(listening.accept()));
    let (socket, _) = accepted
        .recv_timeout(LONG)
        .expect("no connection came")
        .unwrap();
    bounded(&socket);
    socket
}

fn bounded(socket: &TcpStream) {
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.set_write_timeout(Some(LONG)).unwrap();
}

pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A node under strace, which writes to `log`.
#[track_caller]
pub fn start_traced(log: &Path, strace: &[&str], args: &[&str]) -> Node {
    let mut command = Command::new(need("strace"));
    command.args(["-f", "-qq"]).args(strace).arg("-o").arg(log);
    command.arg(program().get_program()).args(args);
    Node::start_command(&mut command)
}

/// Ends the node that is strace's child: strace itself would detach and leave it running.
#[track_caller]
pub fn stop_traced(node: &mut Node) {
    let children = format!("/proc/{0}/task/{0}/children", node.process.child.id());
    let child = std::fs::read_to_string(children).unwrap();
    let killed = Command::new("kill").arg(child.trim()).status();
    assert!(killed.unwrap().success());
    node.process.wait();
}

/// A server that sends back what it gets on every connection, for as long as the test binary lives.
pub fn echo_server() -> SocketAddr {
    let (listener, address) = listener();
    sys::widen_backlog(&listener).unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                // An error is a client that went: the next one is served all the same.
                let _ = std::io::copy(&mut &socket, &mut &socket);
                let _ = socket.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

/// Closes `socket` with a reset. std cannot set SO_LINGER, but the kernel resets a connection that
/// is closed with unread data in its queue: the far side has to have sent some, which is waited
/// for.
pub fn reset(socket: TcpStream) {
    assert!(
        socket.peek(&mut [0]).unwrap() > 0,
        "nothing there to leave unread"
    );
    drop(socket);
}

/// The end of reading a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    Orderly,
    Reset,
}

/// Reads to the end; returns the bytes and the kind of end.
#[track_caller]
pub fn read_out(mut socket: &TcpStream) -> (Vec<u8>, Ending) {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => (bytes, Ending::Orderly),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, Ending::Reset),
        Err(error) => panic!("after {} bytes: {error}", bytes.len()),
    }
}

impl Random {
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// A stream is made and checked in pieces of this size, so that a gigabyte needs no gigabyte.
const PIECE: usize = 64 << 10;

/// Writes the stream of `seed`, `len` bytes long.
pub fn write_stream(sink: &mut impl Write, seed: u64, mut len: usize) {
    let mut random = Random::new(seed);
    let mut piece = vec![0; PIECE];
    while len > 0 {
        let now = len.min(PIECE);
        random.fill(&mut piece[..now]);
        sink.write_all(&piece[..now]).unwrap();
        len -= now;
    }
}

/// Reads the stream of `seed`: `len` bytes, every one of them compared.
#[track_caller]
pub fn read_stream(source: &mut impl Read, seed: u64, len: usize) {
    let mut random = Random::new(seed);
    let (mut piece, mut expected) = (vec![0; PIECE], vec![0; PIECE]);
    let mut read = 0;
    while read < len {
        let now = (len - read).min(PIECE);
        source
            .read_exact(&mut piece[..now])
            .unwrap_or_else(|error| panic!("after {read} of {len} bytes: {error}"));
        random.fill(&mut expected[..now]);
        assert!(
            piece[..now] == expected[..now],
            "differs at {read} of {len}"
        );
        read += now;
    }
}

#[track_caller]
pub fn read_nothing_more(source: &mut impl Read) {
    let mut rest = [0; 16];
    let read = source.read(&mut rest).unwrap();
    assert_eq!(&rest[..read], b"", "bytes after the end");
}
