//! Chains of the real binary: source, relays, echo.

mod util;

use std::io::Write;
use std::process::Stdio;
use util::{program, Node, Process};

#[test]
fn what_the_source_sends_comes_back_through_two_relays() {
    let z = Node::start("Z", &[]);
    let c = Node::to("C", z.address, &[]);
    let b = Node::to("B", c.address, &[]);
    let mut source = Process::start(
        program()
            .args(["--node", "A", "-f", &b.address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut stdin = source.child.stdin.take().unwrap();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy).unwrap());
    let mut received = Vec::new();
    std::io::Read::read_to_end(&mut source.stdout(), &mut received).unwrap();
    writer.join().unwrap();
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
    assert!(source.wait().success());
    assert!(source.stderr().iter().any(|line| line.contains("Verdict")));
}
