//! A probe of several flows: each has a connection of its own on every segment, and one that
//! differs is named.

mod util;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{channel, Receiver};
use std::thread::spawn;
use std::time::Duration;
use util::json::Value;
use util::{int, json, pass, run, text, Node};

/// Passes connections on to `next`, the bytes of the fifth one `late`. Returns its address, and
/// where each connection came from.
fn bundle(next: SocketAddr, late: Duration) -> (SocketAddr, Receiver<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, accepted) = channel();
    spawn(move || {
        for (number, near) in (1..).zip(listener.incoming()) {
            let (near, far) = (near.unwrap(), TcpStream::connect(next).unwrap());
            let _ = sender.send(near.peer_addr().unwrap());
            far.set_nodelay(true).unwrap();
            near.set_nodelay(true).unwrap();
            let delay = if number == 5 { late } else { Duration::ZERO };
            let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
            spawn(move || forward(near, far, delay));
            spawn(move || forward(ends.1, ends.0, Duration::ZERO));
        }
    });
    (address, accepted)
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !delay.is_zero() {
            pass(delay);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn probe(target: SocketAddr, args: &[&str]) -> std::process::Output {
    let target = target.to_string();
    run(&[&["probe", &target, "--node", "A"][..], args].concat())
}

#[test]
fn one_flow_of_eight_that_is_late_in_one_segment_is_named_and_no_other() {
    let echo = Node::start("C", &[]);
    let (bundle, _accepted) = bundle(echo.address, Duration::from_millis(20));
    let relay = Node::to("B", bundle, &[]);
    let args = ["--flows", "8", "-c", "480", "-i", "0.01"];
    let out = probe(relay.address, &[&args[..], &["--format", "json"]].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let report = json(&out.stdout);
    assert_eq!(int(&report, "blocks/received"), 480);
    let flows = report.at("flows").unwrap().as_array().unwrap();
    let locals: HashSet<_> = flows
        .iter()
        .map(|flow| flow.at("local").unwrap().as_str().unwrap())
        .collect();
    assert_eq!((flows.len(), locals.len()), (8, 8));
    let mut odd = Vec::new();
    for flow in flows {
        assert_eq!(int(flow, "blocks"), 60);
        for part in flow.at("parts").unwrap().as_array().unwrap() {
            let by = part.at("difference_ns").and_then(Value::as_i64);
            odd.extend(by.map(|by| (part.at("name").unwrap().as_str().unwrap(), by)));
        }
    }
    let [("B -> C", by)] = odd[..] else {
        panic!("one segment of one flow: {odd:?}");
    };
    assert!((18_000_000..30_000_000).contains(&by), "{by}");
}

#[test]
fn every_relay_makes_one_onward_connection_for_each_flow() {
    let echo = Node::start("Z", &[]);
    let (before_z, at_z) = bundle(echo.address, Duration::ZERO);
    let second = Node::to("C", before_z, &[]);
    let (before_c, at_c) = bundle(second.address, Duration::ZERO);
    let first = Node::to("B", before_c, &[]);
    for flows in [1, 8, 64] {
        let number = flows.to_string();
        let out = probe(
            first.address,
            &["--flows", &number, "-c", "128", "-i", "0.002"],
        );
        assert!(out.status.success(), "{}", text(&out.stderr));
        for (hop, accepted) in [("C", &at_c), ("Z", &at_z)] {
            let all: Vec<_> = accepted.try_iter().collect();
            let ports: HashSet<_> = all.iter().map(SocketAddr::port).collect();
            assert_eq!((all.len(), ports.len()), (flows, flows), "at {hop}");
        }
    }
}

#[test]
fn flows_that_a_node_has_no_place_for_are_named_with_the_number_that_stands() {
    let echo = Node::start("Z", &["--max-connections", "3"]);
    for flows in ["5", "64"] {
        let out = probe(echo.address, &["--flows", flows, "-c", "50", "-t", "1"]);
        assert_eq!(out.status.code(), Some(2));
        let error = text(&out.stderr);
        assert!(error.contains(&format!("of {flows}: ")), "{error}");
        let stand = format!("3 of {flows} flows stand");
        assert!(error.contains(&stand), "{error}");
        assert!(
            error.contains("(--max-connections), use --flows 3"),
            "{error}"
        );
    }
}

#[test]
fn flows_are_from_1_to_64_and_of_one_path() {
    for args in [["--flows", "0"], ["--flows", "65"]] {
        assert_eq!(
            probe(([127, 0, 0, 1], 1).into(), &args).status.code(),
            Some(3)
        );
    }
    let out = run(&["probe", "--targets", "t", "--flows", "2"]);
    assert!(text(&out.stderr).contains("--flows is for a probe of one path"));
}
