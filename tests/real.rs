//! Real programs through real chains, what a node asks of the kernel per block, and how signals end
//! it.

mod faces;
mod util;

use faces::{
    accept, connect, echo_server, listener, read_out, start_traced, stop_traced, write_stream,
    Chain, Ending, Shape,
};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use util::{free_port, need, program, text, Dir, Node, Process};

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn output(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs it to its end, which has to be a good one; its stdout.
#[track_caller]
fn good(command: &mut Command) -> Vec<u8> {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        text(&output.stderr)
    );
    output.stdout
}

/// A file of `len` random bytes, and the bytes.
fn file_of(path: &Path, seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_stream(&mut bytes, seed, len);
    fs::write(path, &bytes).unwrap();
    bytes
}

// --- real programs -------------------------------------------------------------------------------

#[test]
fn curl_talks_to_nginx_through_entry_relay_and_exit() {
    let dir = Dir::new("nginx");
    let port = free_port();
    let www = dir.file("www");
    fs::create_dir(&www).unwrap();
    let big = file_of(&www.join("big"), 11, 5 << 20);
    fs::write(www.join("small"), "small\n").unwrap();
    let config = dir.file("nginx.conf");
    let root = dir.0.display();
    fs::write(
        &config,
        format!(
            "user root; daemon off; master_process off; pid {root}/pid; error_log stderr notice;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_max_body_size 64m; client_body_temp_path {root}/body;\n\
             proxy_temp_path {root}/t; fastcgi_temp_path {root}/t; uwsgi_temp_path {root}/t;\n\
             scgi_temp_path {root}/t;\n\
             server {{ listen 127.0.0.1:{port}; root {root}/www; dav_methods PUT; }} }}\n"
        ),
    )
    .unwrap();
    let mut nginx = Process::start(Command::new(need("nginx")).arg("-c").arg(&config));
    nginx.wait_line("event method");
    let mut chain = Chain::start(Shape::EntryRelayExit, local(port));
    let url = |file: &str| format!("http://{}/{file}", chain.address);
    let curl = || {
        let mut curl = Command::new(need("curl"));
        curl.args(["-sS", "--noproxy", "*", "--max-time", "60"]);
        curl
    };
    // Several requests on one kept-alive connection, the large one among them.
    let got = good(curl().args([url("small"), url("big"), url("small")]));
    assert!(got == [b"small\n", &big[..], b"small\n"].concat());
    let status = good(curl().args(["-o", "/dev/null", "-w", "%{http_code}", &url("none")]));
    assert_eq!(text(&status), "404");
    let up = dir.file("up");
    let sent = file_of(&up, 12, 3 << 20);
    good(curl().arg("-T").arg(&up).arg(url("put")));
    assert!(fs::read(www.join("put")).unwrap() == sent);
    chain.stop();
}

#[test]
fn redis_answers_commands_pipelines_and_a_subscription_through_the_chain() {
    let port = free_port();
    let mut redis = Process::start(Command::new("sh").args([
        "-c",
        &format!(
            "exec {} --port {port} --bind 127.0.0.1 --save '' --appendonly no 1>&2",
            need("redis-server").display()
        ),
    ]));
    redis.wait_line("Ready to accept connections");
    let mut chain = Chain::start(Shape::EntryRelayExit, local(port));
    let through = chain.address.port().to_string();
    let cli = || {
        let mut cli = Command::new(need("redis-cli"));
        cli.args(["-p", &through]);
        cli
    };
    assert_eq!(text(&good(cli().args(["set", "key", "value"]))), "OK\n");
    assert_eq!(text(&good(cli().args(["get", "key"]))), "value\n");
    let mut pipe = cli()
        .arg("--pipe")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut commands = String::new();
    for i in 0..20_000 {
        commands += &format!("SET k{i} {i}\r\n");
    }
    let mut stdin = pipe.stdin.take().unwrap();
    stdin.write_all(commands.as_bytes()).unwrap();
    drop(stdin);
    let piped = text(&pipe.wait_with_output().unwrap().stdout);
    assert!(piped.contains("errors: 0, replies: 20000"), "{piped}");
    assert_eq!(text(&good(cli().args(["get", "k19999"]))), "19999\n");
    let mut subscriber = cli()
        .args(["subscribe", "news"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    let mut wait = |word: &str| {
        let found = said
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains(word));
        assert!(found, "the subscriber did not say {word:?}");
    };
    wait("subscribe");
    for i in 0..3 {
        let news = format!("news {i}");
        assert_eq!(text(&good(cli().args(["publish", "news", &news]))), "1\n");
        wait(&news);
    }
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
    chain.stop();
}

#[test]
fn an_ssh_session_keeps_output_exit_status_and_megabytes_through_the_chain() {
    let dir = Dir::new("sshd");
    let port = free_port();
    // sshd's own; Debian's service makes it at its start.
    fs::create_dir_all("/run/sshd").unwrap();
    for key in ["host", "user"] {
        let mut keygen = Command::new(need("ssh-keygen"));
        good(
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.file(key)),
        );
    }
    let root = dir.0.display();
    fs::write(
        dir.file("sshd_config"),
        format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {root}/host\nPidFile {root}/pid\nUsePAM no\n\
             AuthorizedKeysFile {root}/user.pub\nStrictModes no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        ),
    )
    .unwrap();
    let mut sshd = Process::start(
        Command::new(need("sshd"))
            .args(["-D", "-e", "-f"])
            .arg(dir.file("sshd_config")),
    );
    sshd.wait_line("Server listening");
    let mut chain = Chain::start(Shape::EntryRelayExit, local(port));
    let through = chain.address.port().to_string();
    let options = |command: &mut Command, port_option: &str| {
        command
            .args([port_option, &through, "-i"])
            .arg(dir.file("user"));
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=30",
        ] {
            command.args(["-o", option]);
        }
    };
    let ssh = |remote: &str| {
        let mut ssh = Command::new(need("ssh"));
        options(&mut ssh, "-p");
        ssh.args(["127.0.0.1", remote]);
        ssh
    };
    let said = output(&mut ssh("echo out; echo err >&2; exit 7"));
    assert_eq!(
        (text(&said.stdout), text(&said.stderr), said.status.code()),
        ("out\n".into(), "err\n".into(), Some(7))
    );
    let sent = file_of(&dir.file("sent"), 13, 4 << 20);
    let input = fs::File::open(dir.file("sent")).unwrap();
    assert!(good(ssh("cat").stdin(input)) == sent);
    let mut scp = Command::new(need("scp"));
    options(&mut scp, "-P");
    good(
        scp.arg(dir.file("sent"))
            .arg(format!("127.0.0.1:{root}/copied")),
    );
    assert!(fs::read(dir.file("copied")).unwrap() == sent);
    chain.stop();
}

// --- what it costs -------------------------------------------------------------------------------

/// Calls per name, from `strace -c`.
#[cfg(target_arch = "x86_64")]
fn calls(table: &str) -> std::collections::BTreeMap<String, u64> {
    table
        .lines()
        .filter_map(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            // % time | seconds | usecs/call | calls | (errors) | syscall
            columns.first()?.parse::<f64>().ok()?;
            Some(((*columns.last()?).to_owned(), columns.get(3)?.parse().ok()?))
        })
        .filter(|(name, _)| name != "total")
        .collect()
}

#[cfg(target_arch = "x86_64")] // Elsewhere the calls have other names.
#[test]
fn a_small_block_costs_a_relay_one_receive_and_one_send_per_pump_and_nothing_else() {
    const BLOCKS: u64 = 1000;
    let dir = Dir::new("cost");
    let log = dir.file("strace");
    let z = Node::start("Z", &[]);
    let mut b = start_traced(
        &log,
        &["-c"],
        &["-l", "127.0.0.1:0", "-f", &z.address.to_string()],
    );
    let to_b = b.address.to_string();
    let probe = util::run(&["probe", &to_b, "-c", "1000", "-i", "0.002"]);
    assert!(probe.status.success(), "{}", text(&probe.stderr));
    stop_traced(&mut b);
    let table = fs::read_to_string(&log).unwrap();
    let calls = calls(&table);
    // Two pumps; a few more are OPEN, END and the ends. Blocks that meet on a busy machine share
    // their calls.
    for name in ["recvmsg", "sendto"] {
        let count = calls.get(name).copied().unwrap_or(0);
        assert!(
            (1..=2 * BLOCKS + 20).contains(&count),
            "{name}: {count}\n{table}"
        );
    }
    // Start, end and the collector's batches (some 20 a second) take their share; a call per block
    // and pump would be two thousand, one for every other block five hundred.
    for (name, &count) in &calls {
        let per_block = ["recvmsg", "sendto"].contains(&name.as_str());
        assert!(per_block || count < BLOCKS / 2, "{name}: {count}\n{table}");
    }
}

// --- signals -------------------------------------------------------------------------------------

/// A client that sends through `node` to a server that reads, until either goes away.
fn endless_traffic(listener: &std::net::TcpListener, address: SocketAddr) -> TcpStream {
    let client = connect(address);
    let mut server = accept(listener);
    let mut writer = client.try_clone().unwrap();
    thread::spawn(move || while writer.write_all(&[7; 1000]).is_ok() {});
    let mut first = [0; 1000];
    server.read_exact(&mut first).unwrap();
    thread::spawn(move || while server.read(&mut first).is_ok_and(|read| read > 0) {});
    client
}

fn refuses(address: SocketAddr) {
    // The listener closes while its node goes on; what it had accepted before does not matter here.
    while TcpStream::connect(address).is_ok() {}
}

#[test]
fn an_interrupt_in_mid_traffic_ends_every_role_in_order_with_its_statistics() {
    for shape in [Shape::Proxy, Shape::EntryRelayExit] {
        let (listener, address) = listener();
        let mut chain = Chain::start_with(shape, address, &["-t", "0.5"]);
        let _client = endless_traffic(&listener, chain.address);
        for node in &mut chain.nodes {
            node.process.signal("INT");
            let mut stdout = String::new();
            node.process.stdout().read_to_string(&mut stdout).unwrap();
            let status = node.process.wait();
            let stderr = node.process.stderr().join("\n");
            assert_eq!(status.code(), Some(0), "{shape:?}: {stderr}");
            assert!(stdout.contains("connections: 1, "), "{shape:?}: {stdout}");
            assert!(stdout.contains("bytes in"), "{shape:?}: {stdout}");
            assert!(!stderr.contains("panicked"), "{stderr}");
        }
    }
}

#[test]
fn what_is_in_flight_is_finished_after_an_interrupt() {
    let (listener, address) = listener();
    let mut chain = Chain::start(Shape::EntryRelayExit, address);
    let mut client = chain.client();
    client.write_all(b"question").unwrap();
    let mut server = accept(&listener);
    let mut question = [0; 8];
    server.read_exact(&mut question).unwrap();
    // More than the sockets hold, so that the answer is under way when the signals come.
    let answering = thread::spawn(move || write_stream(&mut server, 14, 64 << 20));
    let mut first = [0; 8];
    client.read_exact(&mut first).unwrap();
    for node in &chain.nodes {
        node.process.signal("INT");
    }
    for node in &chain.nodes {
        refuses(node.address);
    }
    client.shutdown(Shutdown::Write).unwrap();
    let (rest, ending) = read_out(&client);
    assert_eq!((rest.len() + 8, ending), (64 << 20, Ending::Orderly));
    answering.join().unwrap();
    for node in &mut chain.nodes {
        assert_eq!(node.process.wait().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (listener, address) = listener();
    let mut chain = Chain::start_with(Shape::Proxy, address, &["-t", "1000"]);
    let _client = endless_traffic(&listener, chain.address);
    let node = &mut chain.nodes[0];
    node.process.signal("INT");
    refuses(node.address); // The first signal was heard.
    assert!(node.process.child.try_wait().unwrap().is_none());
    node.process.signal("INT");
    assert_eq!(node.process.wait().code(), Some(1));
}

#[test]
fn an_interrupt_stays_ignored_where_it_was_ignored_at_the_start() {
    let server = echo_server();
    let mut node = Node::start_command(Command::new("sh").args([
        "-c",
        &format!(
            "trap '' INT; exec {} -l 127.0.0.1:0 --accept raw -r -f {server}",
            program().get_program().to_str().unwrap()
        ),
    ]));
    for _ in 0..2 {
        node.process.signal("INT");
        let mut client = connect(node.address);
        client.write_all(b"still there").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_out(&client).0, b"still there");
    }
    let (status, statistics) = node.process.stop();
    assert!(status.success());
    assert!(
        statistics.contains("connections: 2, of which ended by a reset or an error: 0"),
        "{statistics}"
    );
}
