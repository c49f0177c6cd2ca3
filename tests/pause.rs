//! A connection that was busy, pauses, and goes on: its pumps have released their large buffers
//! meanwhile.

mod util;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use util::{Node, LONG};

/// An echo of plain bytes, for one connection.
fn plain_echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut back = socket.try_clone().unwrap();
        std::io::copy(&mut socket, &mut back).unwrap();
    });
    address
}

#[test]
fn a_connection_goes_on_after_a_burst_and_a_pause() {
    let exit = Node::to("C", plain_echo(), &["-r"]);
    let relay = Node::to("B", exit.address, &[]);
    let entry = Node::to("A", relay.address, &["--accept", "raw"]);
    let mut client = TcpStream::connect(entry.address).unwrap();
    let burst = vec![7; 100_000];
    for round in 0..2 {
        // Enough to make every pump take a large buffer.
        client.set_read_timeout(Some(LONG)).unwrap();
        client.write_all(&burst).unwrap();
        let mut answer = vec![0; burst.len()];
        client
            .read_exact(&mut answer)
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(answer, burst, "round {round}");
        // Nothing comes, for longer than the second after which a quiet pump gives its buffer back.
        let pause = Duration::from_millis(1_500);
        client.set_read_timeout(Some(pause)).unwrap();
        let nothing = client.read(&mut [0]).expect_err("nothing was asked");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "round {round}");
    }
}
