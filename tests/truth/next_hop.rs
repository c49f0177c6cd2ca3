//! A block that has to wait until a relay has connected upstream: the relay did not read it late.

use crate::support::{alone, ms, Chain, Report};
use crate::util::{Dir, Node, LONG};
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

/// There and back of the slowed link.
const SLOWED_NS: i64 = 16_000_000;

/// Clients that connect, ask once with `payload` bytes, and go: what the entry A reports of them.
/// The link between B and C holds what goes through it for 8 ms each way, which lengthens B's
/// agreement with C on their key as it does a handshake.
fn short_connections(payload: usize) -> Report {
    let dir = Dir::new(&format!("upstream-{payload}"));
    let key = dir.file("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let key = key.to_str().unwrap();
    let chain = Chain::start_with(ms(0), |_, command| {
        command.args(["--key-file", key]);
    });
    let way = &chain.links[1];
    way.forward.set_delay(ms(8));
    way.back.set_delay(ms(8));
    let next = chain.links[0].address;
    let args = ["--accept", "raw", "--key-file", key, "--format", "json"];
    let mut entry = Node::to("A", next, &args);
    let asked = vec![b'?'; payload];
    for _ in 0..40 {
        let mut client = TcpStream::connect(entry.address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client.write_all(&asked).unwrap();
        client.read_exact(&mut vec![0; payload]).unwrap();
    }
    let (_, report) = entry.process.stop();
    Report::parse(report.as_bytes())
}

#[test]
fn the_wait_for_a_relays_connection_is_its_connect_and_no_late_reading() {
    let _alone = alone();
    // One block, and some that wait in the kernel together: of the first of those it is only known
    // by when it was there.
    for payload in [2, 3000] {
        let report = short_connections(payload);
        let figure = |path: &str| report.int(path);
        let connect = figure("segments/1/connect_ns");
        let residence = figure("hosts/1/forward_residence/p50_ns");
        let late = report.0.at("hosts/1/forward_wake_up/p50_ns");
        let late = late.and_then(|late| late.as_i64());
        let before = figure("segments/0/round_trip/p50_ns");
        eprintln!(
            "{payload}: connect {connect} residence {residence} late {late:?} A -> B {before}: {}",
            report.text("verdict/text")
        );
        assert!(connect >= SLOWED_NS, "{payload}: {connect}");
        let waited = figure("segments/1/connect/p50_ns");
        assert!(waited >= SLOWED_NS, "{payload}: {waited}");
        assert!(residence < SLOWED_NS / 4, "{payload}: {residence}");
        assert_eq!(late.is_some(), payload == 2, "{payload}");
        assert!(late < Some(SLOWED_NS / 4), "{payload}: {late:?}");
        assert!(before < SLOWED_NS / 4, "{payload}: {before}");
    }
}
