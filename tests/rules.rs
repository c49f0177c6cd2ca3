//! Rules at work on chains of the real binary: a link slows one segment in the middle of a run.

mod util;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use util::http::{ask, metrics_of, until};
use util::json::{parse, Value};
use util::link::Link;
use util::{pass, program, run, text, Dir, Node, Process, Raised, LONG};

/// Longer than a busy machine delays a block by itself.
const SLOW: Duration = Duration::from_millis(300);

/// A -> B -> C, with a link between B and C.
struct Chain {
    b: Node,
    _c: Node,
    link: Link,
}

impl Chain {
    fn start() -> Self {
        let c = Node::start("C", &[]);
        let link = Link::start(c.address, Duration::ZERO).unwrap();
        let b = Node::to("B", link.address, &[]);
        Self { b, _c: c, link }
    }

    fn probe(&self, args: &[&str]) -> Process {
        let address = self.b.address.to_string();
        let command = ["--node", "A", "probe", &address];
        Process::start(
            program()
                .args(command)
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        )
    }
}

fn rules(dir: &Dir, text: &str) -> String {
    let path = dir.file("rules");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn str_at<'a>(value: &'a Value, path: &str) -> &'a str {
    value.at(path).and_then(Value::as_str).unwrap_or("-")
}

fn events(report: &Value) -> Vec<(&str, &str, i64)> {
    let events = report.at("events").and_then(Value::as_array).unwrap();
    let event = |event| {
        let sequence = Value::at(event, "sequence").and_then(Value::as_i64);
        (
            str_at(event, "name"),
            str_at(event, "state"),
            sequence.unwrap(),
        )
    };
    events.iter().map(event).collect()
}

#[test]
fn a_slowed_segment_changes_the_state_of_its_rule_and_back_again() {
    let dir = Dir::new("rules-turn");
    // The second is a witness that blocks come back.
    let rules = rules(
        &dir,
        "segment B->C round_trip > 200ms for 3 of 5 clear 3 critical\ntotal round_trip > 1ns\n\
         segment A->B round_trip > 10s\n",
    );
    let chain = Chain::start();
    let mut probe = chain.probe(&["-c0", "-i0.05", "--rules", &rules, "--format=json"]);
    probe.wait_line("sla: total: warning, round_trip");
    chain.link.forward.set_delay(SLOW);
    probe.wait_line("sla: B -> C: critical, round_trip");
    chain.link.forward.set_delay(Duration::ZERO);
    probe.wait_line("sla: B -> C: ok, round_trip");
    let (status, report) = probe.stop();
    let report = parse(report.as_bytes()).unwrap();
    // The witness is a warning at the end, and nothing else is anything.
    assert_eq!(status.code(), Some(1), "{report:?}");
    let events = events(&report);
    let (first, others) = events.split_first().unwrap();
    assert_eq!((first.0, first.1), ("total", "warning"));
    // Once each, unless the machine itself stalled for so long.
    assert!(others.len() >= 2 && others.len() % 2 == 0, "{events:?}");
    for turn in others.chunks(2) {
        assert_eq!((turn[0].0, turn[0].1), ("B -> C", "critical"));
        assert_eq!((turn[1].0, turn[1].1), ("B -> C", "ok"));
        assert!(
            first.2 < turn[0].2 && turn[0].2 + 3 <= turn[1].2,
            "{events:?}"
        );
    }
    let states = ["sla", "segments/0/sla", "segments/1/sla", "hosts/0/sla"];
    let states = states.map(|path| str_at(&report, path));
    assert_eq!(states, ["warning", "ok", "ok", "none"]);
}

#[test]
fn a_rule_that_changes_with_every_block_is_logged_once_a_second_and_all_changes_are_counted() {
    let dir = Dir::new("rules-flap");
    let rules = rules(&dir, "segment B->C round_trip > 80ms\n");
    let chain = Chain::start();
    chain.link.forward.set_spikes(2, Duration::from_millis(120));
    let begun = Instant::now();
    let address = chain.b.address.to_string();
    let output = run(&[
        "--node",
        "A",
        "probe",
        &address,
        "-c30",
        "-i0.15",
        "--rules",
        &rules,
        "--format=json",
    ]);
    let stderr = text(&output.stderr);
    let lines = stderr.lines().filter(|line| line.contains("sla: B -> C: "));
    let more = |line: &str| {
        let words = line.rsplit_once("; ").map_or("", |(_, last)| last);
        let count = words.strip_suffix(" more changes before");
        let count = count.or(words.strip_suffix(" more change before"));
        count.map_or(0, |count| count.parse::<usize>().unwrap())
    };
    let counts: Vec<_> = lines.map(more).collect();
    let report = parse(&output.stdout).unwrap();
    assert_eq!(
        counts.len() + counts.iter().sum::<usize>(),
        events(&report).len(),
        "{stderr}"
    );
    // The first at once, and the last one at the end.
    assert!(
        counts.len() as u64 <= begun.elapsed().as_secs() + 2,
        "{stderr}"
    );
}

#[test]
fn the_playbook_has_answers_of_the_named_nodes_within_two_blocks_and_none_before() {
    let dir = Dir::new("rules-playbook");
    let rules = rules(
        &dir,
        "segment B->C round_trip > 200ms critical ask load,tcp at B,C beyond 1000x ask all at *\n\
         segment B->C round_trip > 200ms for 4 of 4\ntotal round_trip > 1ns\n",
    );
    let chain = Chain::start();
    let mut probe = chain.probe(&["-c0", "-i0.8", "--rules", &rules, "--format=json"]);
    probe.wait_line("sla: total: warning, round_trip");
    chain.link.forward.set_delay(SLOW);
    probe.wait_line("sla: B -> C: critical, round_trip");
    // Three blocks later the answer has come.
    probe.wait_line("sla: B -> C: warning, round_trip");
    let (status, text) = probe.stop();
    assert_eq!(status.code(), Some(2), "{text}");
    let report = parse(text.as_bytes()).unwrap();
    let events = events(&report);
    let turned = events
        .iter()
        .rfind(|event| event.1 == "critical")
        .unwrap()
        .2;
    assert!(turned > 0, "{events:?}");
    for host in [1, 2] {
        let at = |key: &str| report.at(&format!("hosts/{host}/{key}"));
        let since = at("annotated_since").and_then(Value::as_i64).unwrap();
        assert!(
            (turned + 1..=turned + 2).contains(&since),
            "turned at {turned}, host {host} since {since}\n{text}"
        );
        assert!(at("annotations/load1").is_some(), "{text}");
        assert!(at("annotations/cpu_busy").is_none(), "{text}");
    }
    // A node that the rule does not name got no request.
    let keys = report.at("hosts/0/annotations").and_then(Value::keys);
    assert_eq!(keys, Some(vec![]), "{text}");
    assert!(report
        .at("hosts/0/annotated_since")
        .is_some_and(Value::is_null));
    assert_ne!(str_at(&report, "verdict/cause"), "-", "{text}");
}

/// Waits until the page of a running role shows the load of two hosts: the reading thread may have
/// to wait for a CPU.
#[track_caller]
fn wait_loads(process: &mut Process) {
    let address = metrics_of(process);
    let deadline = Instant::now() + LONG;
    loop {
        let (_, page) = ask(address, "/", "");
        let row = page.split("<th>load1</th>").nth(1);
        let row = row.and_then(|rest| rest.split("</tr>").next());
        let cells = row.unwrap_or_default().split("<td>").skip(1);
        let loads = cells.filter(|cell| cell.starts_with(|c: char| c.is_ascii_digit()));
        if loads.count() == 2 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "two hosts never had a load: {page}"
        );
        pass(Duration::from_millis(50));
    }
}

/// Sends a line, waits for it to come back, and so on until `over`.
fn chat(mut to: impl Write, mut from: impl Read, over: &AtomicBool) {
    let mut answer = [0; 5];
    while !over.load(Ordering::Relaxed) {
        to.write_all(b"line\n").unwrap();
        from.read_exact(&mut answer).unwrap();
    }
}

#[test]
fn an_entry_and_a_source_watch_their_paths_too() {
    let dir = Dir::new("rules-roles");
    let rules = rules(
        &dir,
        "segment A->B round_trip > 1ns for 3 of 3 ask load at here\n\
         segment A->B round_trip > 1ns for 40 of 40 critical\n",
    );
    let chain = Chain::start();
    chain.link.forward.set_delay(Duration::from_millis(5));
    let assert_reported = |text: &str| {
        let report = parse(text.as_bytes()).unwrap();
        let states = events(&report).into_iter().map(|event| event.1);
        assert_eq!(states.collect::<Vec<_>>(), ["warning", "critical"]);
        for host in [0, 1] {
            let load = report.at(&format!("hosts/{host}/annotations/load1"));
            assert!(load.is_some(), "{text}");
        }
        let kept = report.at("hosts/2/annotations").and_then(Value::keys);
        assert_eq!(kept, Some(vec![]), "{text}");
    };
    let args = [
        "--accept=raw",
        "--sample=0",
        "--metrics-listen=127.0.0.1:0",
        "--rules",
        &rules,
        "--format=json",
    ];
    let mut entry = Node::to("A", chain.b.address, &args);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _at_the_end = Raised(&over);
        let socket = TcpStream::connect(entry.address).unwrap();
        let copy = socket.try_clone().unwrap();
        scope.spawn(|| chat(copy, socket, &over));
        entry.process.wait_line("sla: A -> B: critical, round_trip");
        wait_loads(&mut entry.process);
    });
    let (status, text) = entry.process.stop();
    assert!(status.success());
    assert_reported(&text);

    let mut source = Process::start(
        program()
            .args(["--node", "A", "-f", &chain.b.address.to_string()])
            .args(["--metrics-listen=127.0.0.1:0", "--rules", &rules])
            .args(["--format=json", "--report"])
            .arg(dir.file("report"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _at_the_end = Raised(&over);
        let (stdin, stdout) = (source.child.stdin.take().unwrap(), source.stdout());
        scope.spawn(|| chat(stdin, stdout, &over));
        source.wait_line("sla: A -> B: critical, round_trip");
        wait_loads(&mut source);
    });
    assert!(source.wait().success());
    assert_reported(&std::fs::read_to_string(dir.file("report")).unwrap());
}

#[test]
fn the_exit_code_of_a_short_run_is_that_of_the_whole_run() {
    let dir = Dir::new("rules-exit");
    let chain = Chain::start();
    let b = chain.b.address.to_string();
    let within = ["--critical", "30s,50%", "--format", "nagios"];
    let probe = |args: &[&str]| {
        let own = ["--node", "A", "probe", &b, "-c5", "-i0.01"];
        let output = run(&[&own, args].concat());
        (output.status.code(), text(&output.stdout))
    };
    let (code, line) = probe(&[&["--warning", "20s"], &within[..]].concat());
    assert_eq!(code, Some(0), "{line}");
    assert!(
        line.starts_with("STS OK - ") && line.lines().count() == 1,
        "{line}"
    );
    assert!(
        line.contains("'total_mean'=0.") && line.contains("s;20;30;0;"),
        "{line}"
    );
    assert!(line.contains("'total_loss'=0%;;50;0;100"), "{line}");
    let (code, line) = probe(&[&["--warning", "1ns"], &within[..]].concat());
    assert_eq!(code, Some(1), "{line}");
    assert!(
        line.starts_with("STS WARNING - total: warning, round_trip mean "),
        "{line}"
    );
    let path = rules(&dir, "segment B->C round_trip p99 > 1us critical\n");
    let page = dir.file("page.html");
    let (code, _) = probe(&["--rules", &path, "--report-html", page.to_str().unwrap()]);
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(code, Some(2));
    assert!(
        page.contains("SLA, B \u{2192} C: critical, round_trip p99"),
        "{page}"
    );
    let (code, shown) = probe(&["--rules", &path, "--warning", "1ns"]);
    assert_eq!(code, Some(2), "{shown}");
    assert!(
        shown.contains("CRITICAL") && shown.contains("- SLA, B -> C: critical, round_trip p99"),
        "{shown}"
    );
}

#[test]
fn a_rule_about_no_part_is_unknown_at_the_end_and_without_end_after_the_first_window() {
    let (dir, other) = (Dir::new("rules-unmatched"), Dir::new("rules-matched"));
    let chain = Chain::start();
    let b = chain.b.address.to_string();
    let unmatched = rules(&dir, "host X residence p95 > 1s critical\n");
    let matched = rules(
        &other,
        "connect * delay > 9s\nbehind * delay > 9s\nserver delay > 9s\ntotal loss > 99%\n",
    );
    let args = |rules: &str, rest: &[&str]| -> Vec<String> {
        let own = [
            "--node", "A", "probe", &b, "-i", "0.01", "--format", "nagios",
        ];
        let all = [&own[..], &["--rules", rules], rest].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let finite = |rules: &str| {
        let args = args(rules, &["-c", "5"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(&args);
        (output.status.code(), text(&output.stdout))
    };
    let (code, line) = finite(&unmatched);
    assert_eq!(code, Some(3), "{line}");
    let why = "no part of the path matches the rule: host X";
    assert!(
        line.starts_with("STS UNKNOWN - ") && line.contains(why),
        "{line}"
    );
    // Nothing lies behind Z, and no exit has a server.
    let (code, line) = finite(&matched);
    assert_eq!(code, Some(3), "{line}");
    assert!(!line.contains("rule: connect"), "{line}");
    for part in ["behind", "server"] {
        assert!(
            line.contains(&format!("matches the rule: {part}")),
            "{line}"
        );
    }
    for (window, code, state) in [("0.3s", 3, "STS UNKNOWN - "), ("1h", 0, "STS OK - ")] {
        let mut command = program();
        command.args(args(&unmatched, &["-c", "0", "--window", window]));
        command.args(["--metrics-listen", "127.0.0.1:0"]);
        let mut probe = Process::start(command.stdout(Stdio::piped()));
        let address = metrics_of(&mut probe);
        // With that many blocks answered the short window is over.
        until("a second of blocks", || {
            let (_, text) = ask(address, "/metrics", "");
            let count = "subsegment_round_trip_seconds_count ";
            let count = text.lines().find_map(|line| line.strip_prefix(count))?;
            (count.parse::<f64>().ok()? > 60.0).then_some(())
        });
        probe.signal("INT");
        let mut line = String::new();
        probe.stdout().read_to_string(&mut line).unwrap();
        assert_eq!(probe.wait().code(), Some(code), "{window}: {line}");
        assert!(line.starts_with(state), "{window}: {line}");
    }
}

#[test]
fn a_path_that_is_down_is_critical_in_the_plugins_line() {
    // No process listens there, and no other test gets that port.
    let address = "127.0.0.1:1";
    let output = run(&["probe", address, "-c3", "-i0.01", "--format", "nagios"]);
    let line = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(
        line.starts_with("STS CRITICAL - ") && line.contains("refused"),
        "{line}"
    );
    assert!(
        line.contains("'total_p95'=U;") && line.contains("'total_loss'=100%;"),
        "{line}"
    );
}

#[test]
fn a_path_that_does_not_answer_in_time_is_what_the_user_calls_it() {
    // It accepts in its backlog and sends nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for (timeout, code, state) in [("0.1", 2, "CRITICAL"), ("100ms:unknown", 3, "UNKNOWN")] {
        let output = run(&["probe", &address, "-c1", "-t", timeout, "--format=nagios"]);
        let line = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(line.starts_with(&format!("STS {state} - ")), "{line}");
        assert!(
            line.contains("no answer to the opening of the path through"),
            "{line}"
        );
        assert_eq!(line.matches("no answer").count(), 1, "{line}");
    }
}

#[test]
fn a_peer_that_is_slow_in_the_middle_of_a_frame_or_of_the_keys_agreement_does_not_answer_in_time() {
    let dir = Dir::new("rules-slow");
    let key = dir.file("key");
    let mut create = std::fs::OpenOptions::new();
    let created = create.write(true).create_new(true).mode(0o600).open(&key);
    let digits = b"00112233445566778899aabbccddeeff";
    created.unwrap().write_all(digits).unwrap();
    let key = key.to_str().unwrap();
    // It begins a frame, and goes on with it no more than a host that hangs.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let begun = b"\x89STS\r\n\x1a\n";
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut socket in server.incoming().map_while(Result::ok) {
            let _ = socket.write_all(begun);
            open.push(socket);
        }
    });
    for (args, part) in [
        (&[][..], "began a frame and did not go on"),
        (&["--key-file", key], "did not answer HELLO in time"),
    ] {
        let probe = [
            "probe",
            &address,
            "-c1",
            "-t200ms:unknown",
            "--format=nagios",
        ];
        let output = run(&[&probe[..], args].concat());
        let line = text(&output.stdout);
        assert!(line.contains(part), "{line}");
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(line.starts_with("STS UNKNOWN - "), "{line}");
    }
}

#[test]
fn a_file_of_rules_is_tested_and_read_before_anything_is_opened() {
    let dir = Dir::new("rules-check");
    let good = rules(&dir, "# SLA\nsegment B->C round_trip>5ms for 3 of 5\n");
    let output = run(&["check-rules", &good]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stdout),
        "segment B->C round_trip > 5ms for 3 of 5 warning\n# valid, rules: 1\n"
    );
    let bad = rules(
        &dir,
        "total loss > 1%\nsegment B->C round_trip > 5 critical\n",
    );
    let expected =
        "line 2, column 27: expected a span such as 5ms (units ns, us, ms, s), or a multiple \
                    such as 2x, found \"5\"";
    // No process listens at that address, and the listener would never end: neither is reached.
    for (args, code) in [
        (&["check-rules", &bad][..], 1),
        (&["probe", "127.0.0.1:1", "--rules", &bad], 3),
        (&["-f", "127.0.0.1:1", "--rules", &bad], 2),
        (
            &["-l", "127.0.0.1:0", "-f", "127.0.0.1:1", "--rules", &bad],
            2,
        ),
    ] {
        let output = run(args);
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {log}");
        assert!(log.contains(expected), "{args:?}: {log}");
        assert!(!log.contains("listening"), "{log}");
    }
    let output = run(&[
        "probe",
        "127.0.0.1:1",
        "--rules",
        "/nowhere",
        "--format=nagios",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).starts_with("STS UNKNOWN - read /nowhere: "));
}

#[test]
fn a_run_of_less_than_a_second_is_held_against_its_baseline_too() {
    let dir = Dir::new("rules-short");
    let rules = rules(&dir, "segment * round_trip p50 > 0.001x critical\n");
    let echo = Node::start("Z", &[]);
    let address = echo.address.to_string();
    let args = [
        "probe",
        &address,
        "-c90",
        "-i0.01",
        "--rules",
        &rules,
        "--format=json",
    ];
    // A run has a baseline if its blocks are spread over time. There is none if the machine was so
    // busy that more than two of the eight batches of its halves, 56 ms each, have no block.
    for _ in 0..20 {
        let probed = run(&args);
        let report = parse(&probed.stdout).unwrap();
        let baseline = report.at("segments/0/baseline_ns").and_then(Value::as_i64);
        let (state, code) = match baseline {
            Some(_) => ("critical", 2),
            None => ("ok", 0),
        };
        assert_eq!(str_at(&report, "segments/0/sla"), state, "{report:?}");
        assert_eq!(probed.status.code(), Some(code));
        if baseline.is_some() {
            return;
        }
        println!("a run without a baseline");
    }
    panic!("20 runs without a baseline");
}
