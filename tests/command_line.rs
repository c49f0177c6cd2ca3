//! Every command line of README.md and of the manual is parsed, and every worked example is run as
//! it stands there: only addresses, counts and intervals are replaced.

#[path = "util/examples.rs"]
mod examples;
mod util;

use examples::{blocks, pages, Line};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use subsegment_tcp_speeds::cli::{self, Action};
use util::http::{ask, metrics_of};
use util::{program, Dir, Node, Process};

#[test]
fn every_command_line_can_be_typed_as_it_stands() {
    let mut seen = BTreeSet::new();
    for (name, page) in pages() {
        for line in blocks(&page).into_iter().flatten() {
            let Some(arguments) = line.arguments() else {
                continue;
            };
            match cli::parse(arguments.iter().map(OsString::from)) {
                Ok(Action::Run(_)) => {}
                other => panic!("{name}: {}: {other:?}", line.text),
            }
            seen.insert(arguments.join(" "));
        }
    }
    for part in [
        "-l :9000",
        "-f B:9000",
        "--accept raw",
        " -r",
        "passive -",
        "probe ",
        "--state",
    ] {
        assert!(
            seen.iter().any(|line| line.contains(part)),
            "no {part} in {seen:#?}"
        );
    }
    assert!(seen.len() > 30, "only {}", seen.len());
}

/// A plain server that sends back what it gets; its address.
fn plain_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut from = client.try_clone().unwrap();
                let mut to = client;
                let _ = std::io::copy(&mut from, &mut to);
            });
        }
    });
    address
}

/// A capture of a handshake, a request and its answer.
fn capture() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    let packets: [(bool, u8, u32, u32, &[u8]); 5] = [
        (true, 0x02, 100, 0, b""),
        (false, 0x12, 500, 101, b""),
        (true, 0x10, 101, 501, b""),
        (true, 0x18, 101, 501, b"ping"),
        (false, 0x18, 501, 105, b"pong"),
    ];
    for (at, (forth, flags, sequence, acknowledged, payload)) in (0_u32..).zip(packets) {
        let mut frame = vec![2; 12];
        frame.extend([8, 0]);
        let length = 40 + payload.len() as u16;
        frame.extend([0x45, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let ends = if forth {
            [client, server]
        } else {
            [server, client]
        };
        frame.extend(ends.concat());
        let ports = if forth {
            [40_000_u16, 80]
        } else {
            [80, 40_000]
        };
        frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        frame.extend(sequence.to_be_bytes());
        frame.extend(acknowledged.to_be_bytes());
        frame.extend([0x50, flags, 255, 255, 0, 0, 0, 0]);
        frame.extend(payload);
        let length = frame.len() as u32;
        for word in [1_700_000_000, at * 1000, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

/// The scene of one block: a directory with the files that examples read, and the processes that
/// they start.
struct Scene {
    dir: Dir,
    /// Where each host of the page listens. The hosts of other blocks are one echo.
    hosts: BTreeMap<String, String>,
    running: Vec<(String, Process)>,
    run: usize,
}

impl Scene {
    fn new(name: &str, rules: &str) -> Self {
        let dir = Dir::new(&format!("example-{name}"));
        for (file, bytes) in [
            ("capture.pcap", capture().as_slice()),
            ("client.pcap", &capture()),
            ("server.pcap", &capture()),
            ("data", b"some data\n"),
            ("sla.rules", rules.as_bytes()),
        ] {
            std::fs::write(dir.file(file), bytes).unwrap();
        }
        let echo = Node::start("Z", &["--metrics-listen", "127.0.0.1:0"]);
        let address = echo.address.to_string();
        std::fs::write(dir.file("targets.txt"), format!("{address} Z\n")).unwrap();
        let hosts = ["B", "C", "Z", "HOST"].map(|host| (host.to_owned(), address.clone()));
        Self {
            dir,
            hosts: hosts.into(),
            running: vec![(String::new(), echo.process)],
            run: 0,
        }
    }

    /// An argument with addresses of this machine, and with a count and an interval for a test.
    fn replaced(&self, option: &str, word: &str, plain: &str) -> String {
        match option {
            "-l" | "--listen" | "--metrics-listen" => return "127.0.0.1:0".into(),
            "-c" => return "5".into(),
            "-i" => return "0.01".into(),
            "--bind" => return "lo".into(),
            "--probe-allow" => return "127.0.0.0/8:*".into(),
            _ => {}
        }
        if let Some(path) = word.strip_prefix("/var/tmp/") {
            return path.into();
        }
        if let Some(path) = word.strip_prefix("/var/lib/prometheus/node-exporter/") {
            return path.into();
        }
        match word.rsplit_once(':') {
            Some((_, "22" | "80")) => plain.into(),
            Some((host, "9000")) => self.hosts[host].clone(),
            // The example on one machine: hosts are named by their ports.
            Some(("127.0.0.1", _)) => self.hosts[word].clone(),
            _ => word.into(),
        }
    }

    fn run(&mut self, line: &Line, plain: &str) {
        let Some(words) = line.arguments() else {
            if line.text.starts_with("(umask") {
                let mut shell = Command::new("sh");
                let status = shell
                    .args(["-c", &line.text])
                    .current_dir(&self.dir.0)
                    .status();
                assert!(status.unwrap().success(), "{}", line.text);
                self.run += 1;
            }
            return;
        };
        let mut option = "";
        let mut arguments = Vec::new();
        for word in &words {
            arguments.push(self.replaced(option, word, plain));
            option = word;
        }
        if words.iter().any(|word| word == "probe") && !words.iter().any(|word| word == "-i") {
            arguments.extend(["-i".into(), "0.01".into()]);
        }
        let is_listening = words.iter().any(|word| word == "-l" || word == "exporter");
        let mut command = program();
        command.current_dir(&self.dir.0).args(&arguments);
        println!("{}: {}", line.text, arguments.join(" "));
        if is_listening {
            let mut process = Process::start(command.stdout(Stdio::piped()).stdin(Stdio::null()));
            if words.iter().any(|word| word == "exporter") {
                self.scrape(&mut process, "/probe?target=");
            } else {
                let address = process.address().to_string();
                let written = words.iter().position(|word| word == "-l").unwrap() + 1;
                self.hosts.insert(words[written].clone(), address.clone());
                self.hosts.insert(line.host.clone(), address);
                if words.iter().any(|word| word == "--metrics-listen") {
                    self.scrape(&mut process, "/metrics");
                }
            }
            self.running.push((line.host.clone(), process));
        } else {
            let stdin = if words[0] == "passive" {
                "capture.pcap"
            } else {
                "data"
            };
            command.stdin(std::fs::File::open(self.dir.file(stdin)).unwrap());
            let output = command.output().unwrap();
            let shown = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{}: {shown}", line.text);
            if line.text.contains("> answer") {
                assert_eq!(output.stdout, b"some data\n", "{}", line.text);
            }
        }
        self.run += 1;
    }

    /// Asks a process for a page of its metrics.
    fn scrape(&self, process: &mut Process, path: &str) {
        let address = metrics_of(process);
        let target = if path.ends_with('=') {
            &self.hosts["B"]
        } else {
            ""
        };
        let (status, answer) = ask(address, &format!("{path}{target}"), "");
        assert!(
            status == 200 && answer.contains("subsegment_"),
            "{status} {answer}"
        );
    }

    /// A plain client goes through the entry of an example, if there is one.
    fn use_entry(&self, block: &[Line]) {
        let entry = block.iter().find(|line| line.text.contains("--accept raw"));
        let Some(entry) = entry.filter(|line| line.text.contains("-f ")) else {
            return;
        };
        let mut client = TcpStream::connect(&self.hosts[&entry.host]).unwrap();
        client.write_all(b"through the chain").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"through the chain");
    }

    /// Ends the nodes, the near one first.
    fn end(mut self) -> usize {
        for (_, mut process) in std::mem::take(&mut self.running).into_iter().rev() {
            let (status, _) = process.stop();
            assert!(status.success(), "{status}");
        }
        self.run
    }
}

/// Examples that other tests run: a live capture needs a network of its own (tests/passive.rs), the
/// demo takes nine seconds (scripts/check), and `help` ends at once (below).
fn is_run_elsewhere(line: &Line) -> bool {
    let text = &line.text;
    text.contains(" -I ") || text.contains(" --interface ") || text.contains(" demo")
}

#[test]
fn every_worked_example_runs() {
    let plain = plain_server();
    let mut run = 0;
    for (name, page) in pages() {
        // The rules of the page are those that its example checks.
        let rules = page.split("```text\n# part").nth(1).unwrap_or("\n");
        let rules = rules.split("```").next().unwrap_or_default();
        let rules = format!("# part{rules}");
        for (at, block) in blocks(&page).iter().enumerate() {
            let is_run = |line: &&Line| !is_run_elsewhere(line);
            if !block.iter().any(|line| line.arguments().is_some()) {
                continue;
            }
            let mut scene = Scene::new(&format!("{name}-{at}"), &rules);
            for line in block.iter().filter(is_run) {
                scene.run(line, &plain);
            }
            scene.use_entry(block);
            run += scene.end();
        }
    }
    println!("{run} examples have run");
    assert!(run > 35, "only {run}");
}

#[test]
fn help_prints_topics_plain_and_names_the_nearest_one() {
    let help = |topic: &[&str]| program().arg("help").args(topic).output().unwrap();
    let text = String::from_utf8(help(&[]).stdout).unwrap();
    for topic in subsegment_tcp_speeds::manual::TOPICS {
        assert!(
            text.contains(topic.name) && text.contains(topic.brief),
            "{text}"
        );
        let page = help(&[topic.name]);
        assert!(
            page.status.success() && page.stdout.len() > 800,
            "{}",
            topic.name
        );
    }
    let wrong = help(&["verdct"]);
    assert_eq!(wrong.status.code(), Some(2));
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(message.contains("did you mean verdict?"), "{message}");
}

#[test]
fn what_is_misspelt_ends_with_the_exit_code_of_its_command_and_the_nearest_name() {
    for (line, code, part) in [
        (
            "--lisen :9000",
            2,
            "unknown option --lisen; did you mean --listen?",
        ),
        (
            "prob b:1",
            2,
            "unknown command \"prob\"; did you mean probe?",
        ),
        (
            "probe b:1 --fromat json",
            3,
            "unknown option --fromat; did you mean --format?",
        ),
        (
            "passive x --max-flow 3",
            2,
            "unknown option --max-flow; did you mean --max-flows?",
        ),
    ] {
        let output = program().args(line.split(' ')).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(message.contains(part), "{line}: {message}");
    }
}
