//! Chains of the real binary: source, relays, echo.

mod util;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use util::json::{parse, Value};
use util::{int, json, run, text, Node};

/// The lines of a probe of 50 blocks, so many seconds apart, through B (with `args`) to Z.
fn lines_through(args: &[&str], interval: &str) -> Vec<Value> {
    let z = Node::start("Z", &[]);
    let b = Node::to("B", z.address, args);
    let to_b = b.address.to_string();
    let probe = ["probe", &to_b, "--node", "A", "--format", "jsonl"];
    let output = run(&[&probe[..], &["-c", "50", "-i", interval]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let lines = lines.lines().map(|line| parse(line.as_bytes()).unwrap());
    // The last line is the verdict.
    lines.filter(|line| line.at("end").is_none()).collect()
}

#[test]
fn kernel_times_split_a_round_trip_exactly_and_a_node_without_them_leaves_it_whole() {
    let int = |line: &Value, path: &str| line.at(path).and_then(Value::as_i64);
    let mut counts = Vec::new();
    // Where others have the processor, blocks that follow closely meet.
    for interval in ["0.02", "0.1", "0.5"] {
        let mut split = 0;
        for line in lines_through(&[], interval) {
            let Some(network) = int(&line, "segments/0/network_ns") else {
                continue; // It met another one in a socket.
            };
            let late = ["hosts/1/forward_wake_up_ns", "hosts/0/return_wake_up_ns"];
            let late = late.map(|path| int(&line, path).unwrap());
            assert!(network > 0 && late.iter().all(|late| *late > 0), "{line:?}");
            let whole = int(&line, "segments/0/round_trip_ns").unwrap();
            assert_eq!(network + late[0] + late[1], whole, "{line:?}");
            split += 1;
        }
        counts.push(split);
        if split >= 10 {
            break;
        }
    }
    assert!(counts.last() >= Some(&10), "{counts:?} of 50 blocks each");
    for line in lines_through(&["--no-kernel-times"], "0.02") {
        assert_eq!(int(&line, "hosts/1/forward_wake_up_ns"), None, "{line:?}");
        assert_eq!(int(&line, "segments/0/network_ns"), None, "{line:?}");
        assert!(int(&line, "segments/0/round_trip_ns").is_some(), "{line:?}");
    }
}

#[test]
fn a_raw_entry_shows_the_connect_that_the_first_blocks_of_short_connections_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let _ = std::io::copy(&mut &client, &mut &client);
        }
    });
    let exit = Node::to("X", server, &["-r"]);
    let relay = Node::to("B", exit.address, &[]);
    let args = ["--accept", "raw", "--format", "json"];
    let mut entry = Node::to("A", relay.address, &args);
    for _ in 0..25 {
        let mut client = TcpStream::connect(entry.address).unwrap();
        client.write_all(b"request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"request");
    }
    let (status, report) = entry.process.stop();
    assert!(status.success());
    let report = json(report.as_bytes());
    assert_eq!(int(&report, "blocks/received"), 25);
    // The request may also come after the connection stands, or without the kernel's time.
    let waited = int(&report, "segments/0/connect/count");
    assert!((1..=25).contains(&waited), "{waited} of 25");
    let [total, parts] =
        ["round_trip/mean_ns", "segments/0/connect/mean_ns"].map(|at| int(&report, at));
    assert!(0 < parts && parts < total * 25, "{parts} {total}");
}

#[test]
fn an_exit_that_does_not_stamp_reports_what_arrived_and_shows_in_the_path() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        std::io::copy(&mut client, &mut std::io::sink()).unwrap()
    });
    let exit = Node::to("X", server, &["-r", "-n"]);
    let b = Node::to("B", exit.address, &["-n"]);
    let mut entry = Node::to("R", b.address, &["--accept", "raw", "--format", "json"]);
    let mut client = TcpStream::connect(entry.address).unwrap();
    client.write_all(&[7; 3_200]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(served.join().unwrap(), 3_200);
    let (_, report) = entry.process.stop();
    let report = json(report.as_bytes());
    let counts = ["sent", "received", "lost"].map(|key| int(&report, &format!("blocks/{key}")));
    assert!(
        counts[0] > 0 && counts[1] == counts[0] && counts[2] == 0,
        "{counts:?}"
    );
    assert_shape(&report, 0, &["R", "B", "X"]);

    // A probe is answered by the exit itself.
    let relay = Node::to("R", b.address, &[]);
    let target = relay.address.to_string();
    let probe = [
        "probe", &target, "-c", "50", "-i", "0.002", "--format", "json",
    ];
    let output = run(&probe);
    let report = json(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let counts = ["sent", "received", "lost"].map(|key| int(&report, &format!("blocks/{key}")));
    assert_eq!(counts, [50, 50, 0]);
    assert_shape(&report, 1, &["R", "B", "X"]);
}

/// Asserts the names from `hop` on, and that the figures end at the first of them, the last that
/// stamps.
fn assert_shape(report: &Value, hop: usize, names: &[&str]) {
    for (hop, expected) in (hop..).zip(names) {
        let name = report.at(&format!("path/nodes/{hop}/name"));
        assert_eq!(name.and_then(Value::as_str), Some(*expected), "hop {hop}");
    }
    assert_eq!(report.at(&format!("hosts/{}", hop + 1)), None);
    assert_eq!(int(report, &format!("hosts/{hop}/hop")), hop as i64);
}
