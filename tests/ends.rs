//! How things end: by themselves, by a signal, by silence - and what must not be taken for an end.

mod faces;
mod util;

use faces::framed::{complaints, Witness};
use faces::{
    accept, connect, echo_server, listener, read_out, read_stream, reset, write_stream, Chain,
    Ending, Shape,
};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::sys;
use util::http::metrics_of;
use util::json::Value;
use util::link::Link;
use util::{int, json, need, pass, program, run, text, Node, Process, LONG};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A running source with both of its streams.
struct Source {
    process: Process,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Source {
    fn start(next: SocketAddr, args: &[&str]) -> Self {
        let mut command = program();
        command.args(["--node", "A", "-f", &next.to_string()]);
        command.args(args).stdin(Stdio::piped());
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let stdin = process.child.stdin.take().unwrap();
        let stdout = process.stdout();
        Self {
            process,
            stdin,
            stdout,
        }
    }

    /// Closes stdin, reads the rest of stdout, and waits for the end; the exit code.
    #[track_caller]
    fn finish(mut self) -> Option<i32> {
        drop(self.stdin);
        let mut rest = Vec::new();
        self.stdout.read_to_end(&mut rest).unwrap();
        assert_eq!(text(&rest), "", "more than the server sent");
        let code = self.process.wait().code();
        if code != Some(0) {
            eprintln!("{}", self.process.stderr().join("\n"));
        }
        code
    }
}

/// A server, an exit before it, and a source before that.
#[track_caller]
fn source_and_server(args: &[&str]) -> (Source, Node, TcpStream) {
    let (listener, address) = listener();
    let exit = Node::to("X", address, &["-r"]);
    let source = Source::start(exit.address, args);
    let server = accept(&listener);
    (source, exit, server)
}

/// Fills `socket` until it takes no more for a while; how much it took.
#[track_caller]
fn fill(mut socket: &TcpStream) -> usize {
    socket.set_write_timeout(Some(ms(300))).unwrap();
    let chunk = vec![b'z'; 64 << 10];
    let mut taken = 0;
    loop {
        match socket.write(&chunk) {
            Ok(written) => taken += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
            Err(error) => panic!("after {taken} bytes: {error}"),
        }
    }
}

#[test]
fn an_upload_goes_on_after_the_server_has_ended_its_direction() {
    const HALF: usize = 2 << 20;
    let (mut source, _exit, mut server) = source_and_server(&[]);
    server.write_all(b"hi").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    source.stdout.read_exact(&mut [0; 2]).unwrap();
    // The server's end is on its way, and is there before the second half is.
    for seed in [1, 2] {
        let reader = std::thread::spawn(move || {
            read_stream(&mut server, seed, HALF);
            server
        });
        write_stream(&mut source.stdin, seed, HALF);
        server = reader.join().unwrap();
    }
    assert_eq!(source.finish(), Some(0));
    assert_eq!(read_out(&server), (Vec::new(), Ending::Orderly));
}

#[test]
fn a_source_that_is_interrupted_does_not_wait_for_a_server_that_never_closes() {
    let (mut source, _exit, mut server) = source_and_server(&["-t", "0.4"]);
    source.stdin.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    source.process.signal("INT");
    source
        .process
        .wait_line("ended by a signal, but not all answers");
    assert_eq!(source.process.wait().code(), Some(1));
}

#[test]
fn a_source_that_is_interrupted_does_not_wait_for_a_reader_of_its_output() {
    let echo = Node::start("Z", &[]);
    let mut source = Source::start(echo.address, &["-t", "0.4"]);
    let mut stdin = source.stdin;
    let (taking, taken) = channel();
    // Ends with the source.
    let writer = std::thread::spawn(move || {
        while stdin.write_all(&[7; 64 << 10]).is_ok() {
            let _ = taking.send(());
        }
    });
    // Of three pieces at most one is in its input, a pipe of 64 KiB, and a block in its buffer: the
    // rest, 112 KiB, is more
    (0..3).for_each(|_| taken.recv_timeout(LONG).unwrap());
    source.process.signal("INT");
    source
        .process
        .wait_line("ended by a signal, but not all answers");
    assert_eq!(source.process.wait().code(), Some(1));
    writer.join().unwrap();
}

#[test]
fn a_source_gives_up_when_no_byte_moves_for_its_idle_timeout() {
    let echo = Node::start("Z", &[]);
    let mut source = Source::start(echo.address, &["--idle-timeout", "0.3"]);
    source.process.wait_line("(--idle-timeout)");
    assert_eq!(source.process.wait().code(), Some(1));
}

#[test]
fn a_reset_by_the_client_reaches_a_server_that_reads_nothing() {
    let (listener, address) = listener();
    let proxy = Node::to("P", address, &["--accept", "raw", "-r"]);
    let client = connect(proxy.address);
    let mut server = accept(&listener);
    server.write_all(b"x").unwrap();
    client.peek(&mut [0]).unwrap();
    fill(&client); // Now the pump is blocked in writing.
    reset(client);
    assert_eq!(sys::wait_closed(&server, LONG).unwrap(), Some(true));
}

#[test]
fn raw_clients_that_reset_at_once_are_no_protocol_errors_between_nodes() {
    let server = echo_server();
    for shape in [Shape::EntryExit, Shape::EntryRelayExit] {
        let mut chain = Chain::start(shape, server);
        for round in 0..20 {
            let client = chain.client();
            if round % 2 == 1 {
                (&client).write_all(b"hello").unwrap();
            }
            sys::reset_on_close(&client).unwrap();
        }
        // Behind them all, on each node.
        let mut witness = Witness::new(chain.address, false);
        witness.asks();
        witness.leaves();
        let output = chain.stop();
        for wrong in ["ERROR", "began with a frame", "does not belong here"] {
            assert!(!output.contains(wrong), "{shape:?}, {wrong}: {output}");
        }
    }
}

#[test]
fn a_health_check_that_connects_and_closes_is_silent_and_not_failed() {
    let z = Node::start("Z", &[]);
    for accepted in ["framed", "auto"] {
        let mut b = Node::to("B", z.address, &["--accept", accepted]);
        for _ in 0..20 {
            let check = connect(b.address);
            check.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_out(&check), (Vec::new(), Ending::Orderly));
            drop(connect(b.address));
        }
        let mut witness = Witness::new(b.address, true);
        witness.asks();
        witness.leaves();
        let (status, report) = b.process.stop();
        let stderr = b.process.stderr();
        assert!(status.success(), "{stderr:?}");
        assert_eq!(complaints(&stderr), [""; 0], "--accept {accepted}");
        let counted = "connections: 41, of which ended by a reset or an error: 0;";
        assert!(report.contains(counted), "--accept {accepted}: {report}");
    }
}

#[test]
fn a_probe_of_some_blocks_reconnects_within_its_schedule_when_its_relay_is_started_again() {
    const COUNT: i64 = 150;
    let z = Node::start("Z", &[]);
    let mut relay = Node::to("B", z.address, &[]);
    let to_relay = relay.address.to_string();
    let mut command = program();
    command.args(["probe", &to_relay, "--format", "jsonl", "-t", "2"]);
    command.args(["-c", &COUNT.to_string(), "-i", "0.02"]);
    let mut probe = Process::start(command.stdout(Stdio::piped()));
    let mut lines = BufReader::new(probe.stdout()).lines().map(Result::unwrap);
    for _ in 0..20 {
        lines.next().unwrap();
    }
    relay.process.signal("KILL");
    relay.process.wait();
    probe.wait_line("the path is broken");
    // Some blocks are due without a path.
    pass(ms(300));
    let next = z.address.to_string();
    let mut again = program();
    let _relay = Node::start_command(again.args(["--node", "B", "-l", &to_relay, "-f", &next]));
    let rest: Vec<_> = lines.collect();
    let status = probe.wait();
    // The path works again; what was lost decides with limits alone.
    assert_eq!(status.code(), Some(0), "{:?}", probe.stderr());
    let last = json(rest.last().unwrap().as_bytes());
    let count = |name: &str| int(&last, &format!("blocks/{name}"));
    assert_eq!(count("sent") + count("unsent"), COUNT, "{last:?}");
    assert_eq!(count("received") + count("lost"), count("sent"), "{last:?}");
    assert!(count("unsent") >= 10, "{last:?}");
    // The last block of the schedule came back.
    let newest = rest[..rest.len() - 1]
        .iter()
        .rev()
        .map(|line| json(line.as_bytes()));
    let newest = newest.map(|block| int(&block, "sequence")).max();
    assert!(count("received") > 21, "{last:?}");
    assert_eq!(newest, Some(COUNT - 1), "{last:?}");
}

/// Starts an endless probe of `address`, and returns it when `blocks` blocks are answered.
fn probing(address: SocketAddr, blocks: usize) -> Process {
    let mut command = program();
    command.args(["--node", "A", "probe", &address.to_string()]);
    command.args(["--format", "jsonl", "-c", "0", "-i", "0.02", "-t", "0.4"]);
    let mut probe = Process::start(command.stdout(Stdio::piped()));
    let mut lines = BufReader::new(probe.stdout()).lines();
    for _ in 0..blocks {
        lines.next().unwrap().unwrap();
    }
    std::thread::spawn(move || lines.for_each(drop)); // Or the probe would meet a closed output.
    probe
}

#[test]
fn silence_is_placed_behind_the_node_that_answers_last() {
    let z = Node::start("Z", &[]);
    let mut c = Node::to("C", z.address, &["-t", "30"]);
    let mut b = Node::to("B", c.address, &["-t", "30"]);
    for (silent, place, last) in [
        (
            &z,
            "between C (hop 2) and Z (hop 3)",
            "C (hop 2) answered last",
        ),
        (
            &c,
            "between B (hop 1) and C (hop 2)",
            "B (hop 1) answered last",
        ),
        (
            &b,
            "between A (hop 0) and B (hop 1)",
            "no node answers a new connection",
        ),
    ] {
        let mut probe = probing(b.address, 5);
        silent.process.signal("STOP");
        let line = probe.wait_line("the path is broken");
        silent.process.signal("CONT");
        let text = format!(
            "{place}: no answer through {} for 0.4 s (--timeout); ",
            b.address
        );
        assert!(line.contains(&(text + last)), "{line}");
        probe.stop();
    }

    // Before the first answer no name is known.
    z.process.signal("STOP");
    let (first, second) = (b.address.to_string(), c.address.to_string());
    for (address, last) in [
        (&first, "hop 2 answered last"),
        (&second, "(hop 1) answered last"),
    ] {
        let out = run(&["probe", address, "-c", "1", "-t", "0.4"]);
        let error = text(&out.stderr);
        assert!(error.contains(last), "{error}");
    }
    let out = text(&run(&["probe", &second, "-c", "1", "-t", "0.4"]).stderr);
    assert!(
        out.contains(&format!("{second} (hop 1) answered last")),
        "{out}"
    );
    z.process.signal("CONT");

    // Questions are no errors of the nodes that answer them.
    for node in [&mut b, &mut c] {
        let (_, log) = node.process.stop();
        assert!(!log.contains("hop limit"), "{log}");
    }
}

#[test]
fn one_silent_connection_of_a_path_that_works_is_said_to_be_alone() {
    let z = Node::start("Z", &[]);
    let (listener, address) = listener();
    std::thread::spawn(move || {
        // The first connection loses what comes back after five reads, which are whole frames.
        let most = std::iter::once(5).chain(std::iter::repeat(usize::MAX));
        for (near, most) in listener.incoming().zip(most) {
            let (mut near, mut far) = (near.unwrap(), connect(z.address));
            let (mut up, mut up_to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut up_to); // A fault ends the connection.
                let _ = up_to.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut bytes = [0; 1 << 16];
                for _ in 0..most {
                    match far.read(&mut bytes) {
                        Ok(read @ 1..) if near.write_all(&bytes[..read]).is_ok() => {}
                        _ => return,
                    }
                }
                let _ = std::io::copy(&mut far, &mut std::io::sink());
            });
        }
    });
    let mut probe = probing(address, 1);
    let line = probe.wait_line("the path is broken");
    assert!(line.contains("somewhere behind A: no answer"), "{line}");
    assert!(
        line.ends_with("; all nodes answer a new connection"),
        "{line}"
    );
}

#[test]
fn the_node_that_was_stopped_is_named_and_not_the_link_behind_it() {
    let far = Node::start("Z", &[]);
    let mut near = Node::to("B", far.address, &["-t", "0.4"]);
    let address = near.address.to_string();
    let mut command = program();
    command.args(["--node", "A", "probe", &address, "--format", "jsonl"]);
    command.args(["-c", "1000", "-i", "0.02"]);
    let mut probe = Process::start(command.stdout(Stdio::piped()));
    let mut lines = BufReader::new(probe.stdout()).lines();
    lines.next().unwrap().unwrap();
    near.process.signal("TERM");
    let line = probe.wait_line("the path is broken");
    // Seen: "between B (hop 1) and Z (hop 2): this node was stopped".
    assert!(line.ends_with(": B was stopped"), "{line}");
    assert!(near.process.wait().success());
}

#[test]
fn unread_bytes_of_a_slow_server_are_in_flight_when_a_proxy_is_stopped() {
    let (listener, address) = listener();
    let args = ["--accept", "raw", "-r", "-t", "20"];
    let mut proxy = Node::to("P", address, &args);
    let client = connect(proxy.address);
    let server = accept(&listener);
    let sent = fill(&client);
    client.shutdown(Shutdown::Write).unwrap();
    proxy.process.signal("TERM");
    // Three times as long as a connection has to be still to count as one with nothing in flight.
    pass(ms(1_500));
    let (received, ending) = read_out(&server);
    assert_eq!((received.len(), ending), (sent, Ending::Orderly));
    drop(server);
    assert!(proxy.process.wait().success());
}

#[test]
fn bytes_that_the_kernel_holds_for_a_slow_server_are_in_flight_when_a_proxy_is_stopped() {
    let (listener, address) = listener();
    let mut proxy = Node::to("P", address, &["--accept", "raw", "-r", "-t", "20"]);
    let mut client = connect(proxy.address);
    let server = accept(&listener);
    // So much that the proxy's kernel takes it all and the server's does not.
    let sent = vec![b'z'; 600_000];
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    proxy.process.signal("TERM");
    // Three times as long as a connection has to be still to count as one with nothing in flight.
    pass(ms(1_500));
    let (received, ending) = read_out(&server);
    assert_eq!((received.len(), ending), (sent.len(), Ending::Orderly));
    drop(server);
    assert!(proxy.process.wait().success());
}

#[test]
fn a_report_that_an_exit_had_to_drop_is_no_broken_path() {
    const BULK: usize = 12 << 20;
    let (mut source, _exit, mut server) = source_and_server(&["-t", "0.4"]);
    let mut reader = server.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        write_stream(&mut server, 4, BULK);
        server
    });
    source.stdout.read_exact(&mut [0; 1]).unwrap();
    pass(ms(200)); // No reader: all up to the server fills, and no report gets through.
    for _ in 0..60 {
        source.stdin.write_all(b"q\n").unwrap();
        reader.read_exact(&mut [0; 2]).unwrap();
    }
    let mut rest = vec![0; BULK - 1];
    source.stdout.read_exact(&mut rest).unwrap();
    let mut server = writer.join().unwrap();
    pass(ms(1_000)); // Longer than the timeout and the ticks in which it is looked at.
    server.write_all(b"last").unwrap();
    let mut last = [0; 4];
    source.stdout.read_exact(&mut last).unwrap();
    assert_eq!(&last, b"last");
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(source.finish(), Some(0));
}

#[test]
fn a_probe_that_has_sent_everything_goes_on_while_answers_still_come() {
    let echo = Node::start("Z", &[]);
    let link = Link::start(echo.address, Duration::ZERO).unwrap();
    // 2 s for all of it, more than the timeout and the second within which the far end has to send
    // END.
    link.forward.set_rate(250_000);
    let address = link.address.to_string();
    let args = ["-c", "25", "-i", "0.001", "-s", "20000", "-t", "0.6"];
    let output = run(&[&["probe", &address, "--format", "json"], &args[..]].concat());
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_eq!(
        int(&json(&output.stdout), "blocks/received"),
        25,
        "{printed}"
    );
}

#[test]
fn a_slow_client_of_an_entry_is_reported_as_that_and_not_as_the_way_back() {
    let echo = Node::start("Z", &[]);
    let relay = Node::to("B", echo.address, &[]);
    let args = ["--accept", "raw", "--format", "json", "-t", "1"];
    let mut entry = Node::to("A", relay.address, &args);
    let mut socat = std::process::Command::new(need("socat"));
    socat.args(["-", &format!("TCP:{},rcvbuf=16384", entry.address)]);
    // No pipe: socat may write more to one than it has room for, and then reads nothing from its
    // other side.
    let (mut stdout, socats) = UnixStream::pair().unwrap();
    stdout.set_read_timeout(Some(LONG)).unwrap();
    let socats = Stdio::from(OwnedFd::from(socats));
    let mut socat = Process::start(socat.stdin(Stdio::piped()).stdout(socats));
    let mut stdin = socat.child.stdin.take().unwrap();
    let mut part = [b'u'; 40_000];
    // No reader until A waits for its client, and not before all buffers between them are full too.
    let waits = |line: &String| line.contains("has read nothing for 1 s");
    while !entry.process.stderr().iter().any(waits) {
        stdin.write_all(&part).unwrap();
        pass(ms(20));
    }
    // Then as much is read as is written: A keeps waiting, however busy the machine.
    for _ in 0..300 {
        stdin.write_all(&part).unwrap();
        stdout.read_exact(&mut part).unwrap();
        pass(ms(10));
    }
    drop((stdin, stdout, socat));
    let (status, report) = entry.process.stop();
    assert!(status.success(), "{status}");
    let report = json(report.as_bytes());
    let printed = |path| report.at(path).and_then(Value::as_str);
    let verdict = [printed("verdict/kind"), printed("verdict/name")];
    let text = printed("verdict/text");
    assert_eq!(verdict, [Some("source"), Some("A")], "{text:?}");
}

/// Starts a plain proxy at `proxy` (0 = any port) with a metrics port, and returns that too.
#[track_caller]
fn proxy_with_metrics(
    proxy: SocketAddr,
    metrics: SocketAddr,
    next: SocketAddr,
) -> (Node, SocketAddr) {
    let (proxy, metrics, next) = (proxy.to_string(), metrics.to_string(), next.to_string());
    let mut command = program();
    command.args([
        "--node",
        "P",
        "-l",
        &proxy,
        "-f",
        &next,
        "--metrics-listen",
        &metrics,
    ]);
    command.args(["--accept", "raw", "-r", "-t", "30", "--drain", "25"]);
    let mut process = Process::start(command.stdout(Stdio::piped()).stdin(Stdio::null()));
    let metrics = metrics_of(&mut process);
    let address = process.address();
    (Node { process, address }, metrics)
}

#[test]
fn a_node_that_ends_gives_up_its_ports_at_once_and_drains_its_connections() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (listener, next) = listener();
    let (mut old, metrics) = proxy_with_metrics(any, any, next);
    let mut client = connect(old.address);
    let mut server = accept(&listener);
    let mut pass_on = |byte: u8| {
        client.write_all(&[byte]).unwrap();
        let mut read = [0];
        server.read_exact(&mut read).unwrap();
        assert_eq!(read, [byte]);
    };
    pass_on(1);
    old.process.signal("TERM");
    let line = old.process.wait_line("(--drain");
    let waits = "waits up to 25 s for what is in flight on open connections: 1";
    assert!(line.contains(waits), "{line}");
    pass_on(2);
    // Its successor takes both ports while the connection of the old one goes on.
    let (mut new, _) = proxy_with_metrics(old.address, metrics, next);
    pass_on(3);
    drop((client, server));
    assert!(old.process.wait().success());
    let _served = connect(new.address);
    drop(accept(&listener));
    assert!(new.process.stop().0.success());
}

#[test]
fn the_drain_bounds_the_end_of_a_node_whose_connection_never_rests() {
    let (listener, next) = listener();
    let args = ["--accept", "raw", "-r", "-t", "600", "--drain", "0.7"];
    let mut proxy = Node::to("P", next, &args);
    let mut client = connect(proxy.address);
    let mut server = accept(&listener);
    let moving = std::thread::spawn(move || {
        // Until it is reset; never still for half a second.
        while client.write_all(b"x").is_ok() && server.read(&mut [0]).is_ok_and(|read| read > 0) {}
    });
    proxy.process.signal("TERM");
    let begun = Instant::now();
    assert!(proxy.process.wait().success());
    assert!(begun.elapsed() < ms(60_000), "{:?}", begun.elapsed());
    let stderr = proxy.process.stderr().join("\n");
    assert!(
        stderr.contains("connections still open, reset: 1"),
        "{stderr}"
    );
    moving.join().unwrap();
}
