//! The client's address through a chain: real balancers before it, real servers behind it, and
//! clients that do not keep to the PROXY protocol.

mod faces;
mod util;

use faces::{accept, connect, listener};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use subsegment_tcp_speeds::sys;
use util::http::{ask, metrics_of};
use util::json::Value;
use util::{connect_from, free_port, json, need, program, Dir, Node, Process, LONG};

#[track_caller]
fn assert_next(stream: &mut TcpStream, bytes: &[u8]) {
    let mut seen = vec![0; bytes.len()];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(
        seen.escape_ascii().to_string(),
        bytes.escape_ascii().to_string()
    );
}

/// A request of HTTP that ends its connection; the answer has to be a good one.
#[track_caller]
fn get(mut stream: TcpStream) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn string<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.at(path).and_then(Value::as_str)
}

fn key(dir: &Dir) -> String {
    let path = dir.file("key");
    fs::write(&path, "000102030405060708090a0b0c0d0e0f\n").unwrap();
    let mut chmod = Command::new("chmod");
    assert!(chmod.arg("600").arg(&path).status().unwrap().success());
    path.display().to_string()
}

/// nginx that takes preambles at `port` and logs the client's address.
fn nginx(dir: &Dir, port: u16) -> Process {
    let config = dir.file("nginx.conf");
    let root = dir.0.display();
    let text = format!(
        "user root; daemon off; master_process off; pid {root}/pid; error_log stderr notice;\n\
         events {{ worker_connections 64; }}\n\
         http {{ log_format client 'client $proxy_protocol_addr $proxy_protocol_port';\n\
         access_log /dev/stderr client; client_body_temp_path {root}/body;\n\
         proxy_temp_path {root}/t; fastcgi_temp_path {root}/t; uwsgi_temp_path {root}/t;\n\
         scgi_temp_path {root}/t;\n\
         server {{ listen 127.0.0.1:{port} proxy_protocol; return 200 hello; }} }}\n"
    );
    fs::write(&config, text).unwrap();
    let mut nginx = Process::start(Command::new(need("nginx")).arg("-c").arg(&config));
    nginx.wait_line("event method");
    nginx
}

/// HAProxy with the sections of `body`, which logs to stderr.
fn haproxy(dir: &Dir, body: &str) -> Process {
    let config = dir.file("haproxy.cfg");
    let text = format!(
        "global\n  log stderr format raw local0\ndefaults\n  log global\n  timeout connect 10s\n  \
         timeout client 60s\n  timeout server 60s\n{body}"
    );
    fs::write(&config, text).unwrap();
    Process::start(Command::new(need("haproxy")).arg("-f").arg(&config))
}

/// Waits until a process listens at `port`; what it takes of it is an empty connection.
fn await_listener(port: u16) {
    let deadline = std::time::Instant::now() + LONG;
    let at = ([127, 0, 0, 1], port).into();
    while let Err(error) = TcpStream::connect_timeout(&at, LONG) {
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(std::time::Instant::now() < deadline, "no listener");
    }
}

#[test]
fn real_servers_log_the_client_of_the_entry_for_both_versions_and_families() {
    let dir = Dir::new("proxy-servers");
    let key = key(&dir);
    let (at_nginx, at_haproxy) = (free_port(), free_port());
    let nginx = nginx(&dir, at_nginx);
    let body = format!(
        "frontend f\n  mode http\n  bind 127.0.0.1:{at_haproxy} accept-proxy\n  \
         log-format \"client %ci %cp\"\n  http-request return status 200\n"
    );
    let haproxy = haproxy(&dir, &body);
    await_listener(at_haproxy);
    for (port, mut server) in [(at_nginx, nginx), (at_haproxy, haproxy)] {
        for version in ["v1", "v2"] {
            let next = format!("127.0.0.1:{port}");
            let args = [
                "-f",
                &next,
                "-r",
                "--key-file",
                &key,
                "--send-proxy",
                version,
            ];
            let exit = Node::start("X", &args);
            let mut entry = program();
            entry.args([
                "--node",
                "E",
                "-l",
                ":0",
                "--accept",
                "raw",
                "--key-file",
                &key,
            ]);
            let entry = Node::start_command(entry.args(["-f", &exit.address.to_string()]));
            for (own, to) in [("127.0.0.5", "127.0.0.1"), ("::1", "::1")] {
                let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), entry.address.port());
                let client = connect_from(own, to);
                let end = client.local_addr().unwrap();
                get(client);
                server.wait_line(&format!("client {own} {}", end.port()));
            }
        }
    }
}

#[test]
fn a_real_balancer_names_its_client_to_the_server_behind_the_chain() {
    let dir = Dir::new("proxy-balancers");
    let (server, at_server) = listener();
    let exit = Node::to(
        "X",
        at_server,
        &["-r", "--allow", "127.0.0.1", "--send-proxy", "v1"],
    );
    let accepts = ["--accept", "raw", "--allow", "127.0.0.1", "--accept-proxy"];
    let mut entry = Node::to("E", exit.address, &accepts);
    let both = [&accepts[..], &["-r", "--send-proxy", "v2"]].concat();
    let plain = Node::to("P", at_server, &both);
    let ports = [free_port(), free_port(), free_port()];
    // Its checks begin with LOCAL and are plain connections of the chain.
    let body = format!(
        "listen v1\n  mode tcp\n  bind 127.0.0.1:{}\n  server s {} send-proxy\n\
         listen v2\n  mode tcp\n  bind 127.0.0.1:{}\n  bind [::1]:{}\n  \
         server s {} send-proxy-v2 proxy-v2-options crc32c,unique-id\n",
        ports[0], entry.address, ports[1], ports[1], entry.address
    );
    let _haproxy = haproxy(&dir, &body);
    let config = dir.file("stream.conf");
    let root = dir.0.display();
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         user root; daemon off; master_process off; pid {root}/pid; error_log stderr notice;\n\
         events {{ worker_connections 64; }}\n\
         stream {{ server {{ listen 127.0.0.1:{}; proxy_pass {}; proxy_protocol on; }} }}\n",
        ports[2], plain.address
    );
    fs::write(&config, text).unwrap();
    let mut nginx = Process::start(Command::new(need("nginx")).arg("-c").arg(&config));
    nginx.wait_line("event method");
    // The empty connections reach the server too: a raw entry connects at once.
    for port in [ports[0], ports[1]] {
        await_listener(port);
        let mut empty = accept(&server);
        let mut seen = String::new();
        empty.read_to_string(&mut seen).unwrap();
        assert!(seen.starts_with("PROXY TCP4 127.0.0.1 "), "{seen}");
    }
    for (port, own, to) in [
        (ports[0], "127.0.0.5", "127.0.0.1"),
        (ports[1], "127.0.0.6", "127.0.0.1"),
        (ports[1], "::1", "::1"),
    ] {
        let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
        let mut client = connect_from(own, to);
        let end = client.local_addr().unwrap().port();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let family = if own.contains(':') { 6 } else { 4 };
        let line = format!("PROXY TCP{family} {own} {} {end} {port}\r\n", to.ip());
        assert_next(&mut accept(&server), &[line.as_bytes(), b"hello"].concat());
    }
    let mut client = connect_from("127.0.0.7", ([127, 0, 0, 1], ports[2]).into());
    let end = client.local_addr().unwrap().port();
    client.write_all(b"hello").unwrap();
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x07\x7f\0\0\x01".to_vec();
    bytes.extend([end.to_be_bytes(), ports[2].to_be_bytes()].concat());
    bytes.extend(b"hello");
    assert_next(&mut accept(&server), &bytes);
    // Three times five bytes: no preamble is in a figure.
    let (_, report) = entry.process.stop();
    assert!(report.contains("forward 15 bytes in 3 blocks"), "{report}");
}

#[test]
fn clients_without_a_whole_preamble_are_ended_and_named_and_checks_are_silent() {
    let (server, at_server) = listener();
    let args = [
        "-r",
        "--accept",
        "raw",
        "--allow",
        "127.0.0.1",
        "--accept-proxy",
        "-t",
        "0.5",
    ];
    let mut proxy = Node::to("P", at_server, &args);
    let connect = || connect_from("127.0.0.1", proxy.address);
    drop(connect()); // A check.
    let mut reset = connect();
    sys::reset_on_close(&reset).unwrap();
    reset.write_all(b"").unwrap();
    drop(reset);
    for (bytes, closes) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], false),
        (b"PROXY TCP4 1.2.3.4 nonsense 1 2\r\n", false),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", false),
        (b"PROXY TCP4 1.2.3.4", true),
        (b"PROXY TCP4 1.2.3.4", false),
    ] {
        let mut client = connect();
        client.write_all(bytes).unwrap();
        if closes {
            client.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(
            client.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
    let mut endless = connect();
    while endless.write_all(b"PROXY PROXY PROXY ").is_ok() {}
    // Byte by byte, and the first of the client's own with the last of it.
    let mut slow = connect();
    slow.set_nodelay(true).unwrap();
    for byte in b"PROXY TCP4 192.0.2.1 192.0.2.2 1 " {
        slow.write_all(&[*byte]).unwrap();
    }
    slow.write_all(b"2\r\nhello").unwrap();
    // Nothing but it has reached the server.
    assert_next(&mut accept(&server), b"hello");
    for part in [
        "sent no PROXY protocol preamble (--accept-proxy): \"GET / HTTP",
        "broken PROXY protocol preamble: its addresses",
        "broken PROXY protocol preamble: more than 4096 bytes",
        "unfinished PROXY protocol preamble",
        "whole PROXY protocol preamble (--accept-proxy) within 0.5 s",
    ] {
        // Lines on one peer are bounded: what is not logged is counted.
        let lines = proxy.process.stderr().join("\n");
        if !lines.contains("like it before") {
            proxy.process.wait_line(part);
        }
    }
    let (_, report) = proxy.process.stop();
    let errors = proxy.process.stderr().join("\n");
    assert!(report.contains("forward 5 bytes in 1 blocks"), "{report}");
    assert!(!errors.contains("reset the connection"), "{errors}");
}

#[test]
fn a_path_without_a_client_is_unknown_to_the_server_with_one_line() {
    let (server, at_server) = listener();
    for (version, bytes) in [
        ("v1", &b"PROXY UNKNOWN\r\nhello"[..]),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0hello"),
    ] {
        let args = ["-r", "--allow", "127.0.0.1", "--send-proxy", version];
        let mut exit = Node::to("X", at_server, &args);
        for _ in 0..2 {
            let mut source = program();
            source.args(["-f", &exit.address.to_string()]);
            source.stdin(std::process::Stdio::piped());
            let mut source = Process::start(source.stdout(std::process::Stdio::null()));
            let mut stdin = source.child.stdin.take().unwrap();
            stdin.write_all(b"hello").unwrap();
            drop(stdin);
            let mut stream = accept(&server);
            assert_next(&mut stream, bytes);
            drop(stream);
            assert!(source.wait().success());
        }
        exit.process.wait_line("PROXY UNKNOWN or LOCAL");
        exit.process.stop();
        let lines = exit.process.stderr();
        let named = lines.iter().filter(|line| line.contains("names no client"));
        assert_eq!(named.count(), 1, "{lines:?}");
    }
}

#[test]
fn a_check_of_the_server_names_no_client_and_carries_nothing_of_the_probe() {
    let (server, at_server) = listener();
    for (version, bytes) in [
        ("v1", &b"PROXY UNKNOWN\r\n"[..]),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let args = ["-r", "--allow", "127.0.0.1", "--send-proxy", version];
        let exit = Node::to(
            "X",
            at_server,
            &[&args[..], &["--server-check", "1"]].concat(),
        );
        let mut probe = program();
        probe.args(["probe", &exit.address.to_string(), "-c", "0", "-i", "0.02"]);
        let mut probe = Process::start(probe.stdout(std::process::Stdio::null()));
        // The second comes a second later, from the same session.
        for _ in 0..2 {
            let mut seen = Vec::new();
            accept(&server).read_to_end(&mut seen).unwrap();
            assert_eq!(
                seen.escape_ascii().to_string(),
                bytes.escape_ascii().to_string()
            );
        }
        assert!(probe.stop().0.success(), "{:?}", probe.stderr());
    }
}

#[test]
fn sessions_and_the_log_show_the_client_that_a_balancer_named_beside_the_peer() {
    let dir = Dir::new("proxy-sessions");
    let (server, at_server) = listener();
    let file = |name: &str| dir.file(name).display().to_string();
    let (at_entry, at_exit) = (file("entry"), file("exit"));
    let common = ["--allow", "127.0.0.1", "--debug", "6"];
    let sends = ["-r", "--send-proxy", "v1", "--sessions", &at_exit];
    let exit_args = [&common[..], &sends].concat();
    let mut exit = Node::to("X", at_server, &exit_args);
    let accepts = ["--accept", "raw", "--accept-proxy", "--sessions", &at_entry];
    let asked = ["--metrics-listen", "127.0.0.1:0"];
    let mut entry = Node::to("E", exit.address, &[&common[..], &accepts, &asked].concat());
    let metrics = metrics_of(&mut entry.process);
    // More clients than one peer has lines of log: each of them has its own.
    for client in 1..=8 {
        let named = format!("192.0.2.{client}:4000");
        let mut stream = connect(entry.address);
        let balancer = stream.local_addr().unwrap().to_string();
        let preamble = format!("PROXY TCP4 192.0.2.{client} 192.0.2.99 4000 443\r\n");
        stream.write_all(preamble.as_bytes()).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut served = accept(&server);
        assert_next(&mut served, preamble.as_bytes());
        assert_next(&mut served, b"hello");
        let (_, now) = ask(metrics, "/sessions", "");
        let now = json(now.lines().last().unwrap().as_bytes());
        assert_eq!(string(&now, "client_address"), Some(named.as_str()));
        assert_eq!(string(&now, "client/peer"), Some(balancer.as_str()));
        sys::reset_on_close(&stream).unwrap();
        drop(stream);
        let line = format!("{named} (through {balancer}): client {balancer} reset");
        entry.process.wait_line(&line);
        exit.process
            .wait_line(&format!("{named} (through 127.0.0.1:"));
    }
    // A check of the balancer is its own client.
    let mut check = connect(entry.address);
    check.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    let own = check.local_addr().unwrap().to_string();
    assert_next(&mut accept(&server), b"PROXY TCP4 127.0.0.1 127.0.0.1 ");
    drop(check);
    for node in [entry, exit] {
        let mut process = node.process;
        assert!(process.stop().0.success());
    }
    for (path, check) in [(at_entry, None), (at_exit, Some(own.as_str()))] {
        let text = fs::read_to_string(path).unwrap();
        let ends = text
            .lines()
            .filter(|line| line.contains("\"event\":\"end\""));
        let records: Vec<_> = ends.map(|line| json(line.as_bytes())).collect();
        let mut clients: Vec<_> = records
            .iter()
            .map(|record| string(record, "client_address"))
            .collect();
        assert_eq!(clients.len(), 9, "{text}");
        clients.sort_unstable();
        assert!(clients.contains(&check), "{text}");
        assert!(
            (1..=8).all(|n| clients.contains(&Some(&format!("192.0.2.{n}:4000")))),
            "{text}"
        );
    }
}
