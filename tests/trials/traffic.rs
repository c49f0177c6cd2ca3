//! Real traffic: uneven in time, through a pool, and over many connections.

use crate::path::TestPath;
use crate::random::Random;
use crate::situations::{answer_of, ms, program, Chain, Situation};
use crate::util::json::Value;
use crate::util::{json, pass, Dir, Process};
use crate::Outcome;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const ALL: &[Situation] = &[
    ("uneven", 20, uneven),
    ("pool", 20, pool),
    ("held", 3, |_| held()),
];

/// A program in a namespace that is killed with this.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that returns what it gets, at port 9200 of a node.
fn echo_server(path: &TestPath, node: usize) -> Helper {
    let mut command = path.command(node, "socat");
    command.args(["TCP-LISTEN:9200,fork,reuseaddr,nodelay", "EXEC:cat"]);
    Helper(command.stdin(Stdio::null()).spawn().unwrap())
}

/// An entry at A for plain clients.
fn entry(path: &TestPath) -> Process {
    let mut command = path.command(0, &program());
    command.args(["--node", "A", "-l", "127.0.0.1:9100", "--accept", "raw"]);
    command.args(["-f", &path.address(1), "--format", "json"]);
    let mut entry = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    entry.wait_line(": listening on ");
    entry
}

/// A plain client of the entry: socat, whose pipes are here.
struct Client {
    input: ChildStdin,
    output: ChildStdout,
    _socat: Helper,
}

impl Client {
    fn new(path: &TestPath) -> Self {
        let mut command = path.command(0, "socat");
        command.args(["-", "TCP:127.0.0.1:9100,nodelay"]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: child.stdout.take().unwrap(),
            _socat: Helper(child),
        }
    }

    /// Sends 100 bytes and waits for them.
    fn ask(&mut self) {
        self.input.write_all(&[b'q'; 100]).unwrap();
        self.output.read_exact(&mut [0; 100]).unwrap();
    }
}

/// Requests in bursts with pauses of 20 ms to 2 s between them, at an entry; +8 ms from half on.
fn uneven(trial: usize) -> Outcome {
    let chain = Chain::with(
        [6.0, 30.0, 6.0],
        &[&[], &[], &["-r", "-f", "127.0.0.1:9200"]],
    );
    let _server = echo_server(&chain.path, 3);
    let mut entry = entry(&chain.path);
    let mut client = Client::new(&chain.path);
    let mut random = Random::new(trial as u64);
    let mut traffic = |span: Duration| {
        let began = Instant::now();
        while began.elapsed() < span {
            for _ in 0..random.below(4) {
                client.ask();
            }
            let pause = match random.below(20) {
                0 => 2000.0,
                1..=4 => 400.0,
                _ => 20.0 + random.below(100) as f64,
            };
            pass(ms(pause));
        }
    };
    traffic(ms(20_000.0));
    chain.path.forward(1).add_delay(ms(8.0));
    traffic(ms(20_000.0));
    drop(client);
    let (_, printed) = entry.stop();
    answer_of(json(printed.as_bytes())).names("B -> C", 7.0, 9.0)
}

/// A pool behind B, by haproxy: C to Z, and D to E to Z, a node more. +8 ms on A -> B, which all
/// share; figures per shape, and shares that make 1.
fn pool(trial: usize) -> Outcome {
    let dir = Dir::new(&format!("pool-{trial}"));
    let path = TestPath::new(&[[ms(3.0); 2], [ms(10.0); 2], [ms(3.0); 2]]);
    let node = |at: usize, args: &[&str]| {
        let mut command = path.command(at, &program());
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        process.wait_line(": listening on ");
        process
    };
    let _server = echo_server(&path, 3);
    let (to_pool, to_z) = (path.address(2), path.address(3));
    let _nodes = [
        node(
            3,
            &["--node", "Z", "-l", ":9000", "-r", "-f", "127.0.0.1:9200"],
        ),
        node(2, &["--node", "C", "-l", "127.0.0.1:9001", "-f", &to_z]),
        node(2, &["--node", "E", "-l", "127.0.0.1:9003", "-f", &to_z]),
        node(
            2,
            &[
                "--node",
                "D",
                "-l",
                "127.0.0.1:9002",
                "-f",
                "127.0.0.1:9003",
            ],
        ),
        node(1, &["--node", "B", "-l", ":9000", "-f", &to_pool]),
    ];
    let config = dir.file("haproxy.cfg");
    let lines =
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
        listen pool\n bind :9000\n balance roundrobin\n server c 127.0.0.1:9001\n \
        server d 127.0.0.1:9002\n";
    std::fs::write(&config, lines).unwrap();
    let mut command = path.command(2, "haproxy");
    command.args(["-db", "-f", &config.display().to_string()]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    let _haproxy = Helper(quiet.stderr(Stdio::null()).spawn().unwrap());
    let listens = || {
        let mut command = path.command(2, "ss");
        let output = command.args(["-ltnH", "sport", "=", ":9000"]).output();
        !output.unwrap().stdout.is_empty()
    };
    while !listens() {
        pass(ms(20.0));
    }
    let mut entry = entry(&path);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let path = &path;
            scope.spawn(move || {
                pass(ms(12.0 * f64::from(number)));
                let mut client = Client::new(path);
                for _ in 0..200 {
                    client.ask();
                    pass(ms(40.0));
                }
            });
        }
        pass(ms(8_000.0));
        path.forward(0).add_delay(ms(8.0));
    });
    let (_, printed) = entry.stop();
    let answer = answer_of(json(printed.as_bytes()));
    let mut outcome = answer.names("A -> B", 7.0, 9.0);
    let parts = answer.report.at("parts").and_then(Value::as_array);
    let shares = parts.unwrap_or(&[]).iter();
    let sum: f64 = shares.filter_map(|part| part.at("share")?.as_f64()).sum();
    let count = answer.report.at("segments/0/round_trip/count");
    let count = count.and_then(Value::as_i64);
    let shape = answer
        .report
        .at("segments/1/round_trip/count")
        .and_then(Value::as_i64);
    outcome.right &= (sum - 1.0).abs() < 0.001;
    outcome.answer += &format!(" (shares {sum:.4}, counts {count:?}, {shape:?})");
    outcome
}

/// Returns the share of the time in which A waited for the client, per connection, with `count`
/// clients that wait 0.15 s of every 3 s before they read, and the verdict.
fn held_share(count: usize) -> (f64, String) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at_server = server.local_addr().unwrap().to_string();
    // Answers 8 MB to each byte.
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let data = vec![b'd'; 8 << 20];
                while stream.read_exact(&mut [0]).is_ok() && stream.write_all(&data).is_ok() {}
            });
        }
    });
    let start = |args: &[&str]| {
        let mut command = Command::new(program());
        command.args(["-l", "127.0.0.1:0"]).args(args);
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let address = process.address().to_string();
        (process, address)
    };
    let (_c, at_c) = start(&["--node", "C", "-f", &at_server, "-r"]);
    let raw = [
        "--node", "A", "-f", &at_c, "--accept", "raw", "--format", "json",
    ];
    let (mut a, at_a) = start(&raw);
    let end = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        for number in 0..count {
            let at_a = &at_a;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(at_a).unwrap();
                let mut buffer = vec![0; 8 << 20];
                pass(ms(3000.0 * number as f64 / count as f64));
                while Instant::now() < end {
                    let began = Instant::now();
                    stream.write_all(b"r").unwrap();
                    pass(ms(150.0));
                    stream.read_exact(&mut buffer).unwrap();
                    pass(ms(3000.0).saturating_sub(began.elapsed()));
                }
            });
        }
    });
    let (_, printed) = a.stop();
    let report = json(printed.as_bytes());
    let share = report.at("segments/0/held_share").and_then(Value::as_f64);
    let verdict = report.at("verdict/text").and_then(Value::as_str);
    (
        share.unwrap_or(f64::NAN),
        verdict.unwrap_or_default().to_owned(),
    )
}

/// The share of 1, 10 and 20 connections is the same, and nobody's reading is slow.
fn held() -> Outcome {
    let shares = [1, 10, 20].map(held_share);
    let one = shares[0].0;
    let right = shares
        .iter()
        .all(|(share, verdict)| *share <= one * 2.0 + 0.01 && !verdict.contains("reads slowly"));
    Outcome {
        right,
        answer: format!("{shares:?}"),
    }
}
