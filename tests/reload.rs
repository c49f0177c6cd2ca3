//! Reloads (SIGHUP) and reports of living processes (SIGUSR1), with connections under way.

mod util;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::sys;
use util::http::{ask, metrics_of};
use util::{connect_from, need, program, try_connect_from, Dir, Node, Process, LONG};

const OLD: &str = "000102030405060708090a0b0c0d0e0f\n";
const NEW: &str = "f0e0d0c0b0a090807060504030201000\n";

/// The program in a session of its own, without a controlling terminal.
fn daemon() -> Command {
    let mut command = Command::new(need("setsid"));
    command.arg(program().get_program());
    command
}

#[track_caller]
fn daemon_node(args: &[&str]) -> Node {
    Node::start_command(daemon().args(["-l", "127.0.0.1:0"]).args(args))
}

fn write(path: &PathBuf, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Reloads; the line that follows.
#[track_caller]
fn reload(process: &mut Process, count: usize) -> String {
    process.signal("HUP");
    let deadline = Instant::now() + LONG;
    loop {
        let lines = process.stderr();
        let mut found = lines.iter().filter(|line| line.contains(": reload"));
        if let Some(line) = found.nth(count) {
            return line.clone();
        }
        assert!(Instant::now() < deadline, "no such line: {lines:?}");
        thread::yield_now();
    }
}

/// Sends through a chain and back.
#[track_caller]
fn assert_echoes(mut stream: &TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

/// The node resets a client from `own`, at the latest at its first read.
#[track_caller]
fn assert_refused(own: &str, to: SocketAddr) {
    let read = try_connect_from(own, to).and_then(|mut stream| stream.read(&mut [0]));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_thousand_connections_outlive_new_keys_networks_and_rules_and_new_ones_have_them() {
    sys::raise_descriptor_limit().unwrap();
    let dir = Dir::new("reload");
    let [entry_key, echo_key, allow, rules] = ["e", "z", "allow", "rules"].map(|n| dir.file(n));
    let path = |file: &PathBuf| file.display().to_string();
    write(&entry_key, OLD);
    write(&echo_key, OLD);
    write(&allow, "# clients\n127.0.0.0/8\n");
    write(&rules, "total round_trip > 3600s\n");
    let (echo_path, allow_path) = (path(&echo_key), format!("@{}", path(&allow)));
    let mut echo = daemon_node(&["--key-file", &echo_path]);
    let next = echo.address.to_string();
    let entry_path = path(&entry_key);
    let rules_path = path(&rules);
    let mut entry = daemon_node(&[
        "-f",
        &next,
        "--accept",
        "raw",
        "--key-file",
        &entry_path,
        "--allow",
        &allow_path,
        "--rules",
        &rules_path,
    ]);
    let address = entry.address;
    let open: Vec<_> = (0..1_000)
        .map(|_| connect_from("127.0.0.1", address))
        .collect();
    open.iter().for_each(assert_echoes);
    let other = connect_from("127.0.0.9", address);
    assert_echoes(&other);

    // The keys, host by host: both are known before one is used.
    write(&echo_key, &format!("{OLD}{NEW}"));
    assert!(reload(&mut echo.process, 0).ends_with("reloaded --key-file"));
    assert_echoes(&connect_from("127.0.0.1", address));
    write(&entry_key, NEW);
    write(&allow, "127.0.0.1 # no longer the other\n");
    write(&rules, "total round_trip > 1ns critical\n");
    let line = reload(&mut entry.process, 0);
    assert!(
        line.ends_with("reloaded --key-file, --rules, --allow"),
        "{line}"
    );
    assert_echoes(&connect_from("127.0.0.1", address));
    write(&echo_key, NEW);
    reload(&mut echo.process, 1);
    let late = connect_from("127.0.0.1", address);
    assert_echoes(&late);
    // The collector takes new rules up in its own thread: a block that it measures before that is
    // judged by the old ones.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_200) {
        assert_echoes(&late);
    }
    entry.process.wait_line("sla: total: critical, round_trip");
    assert_refused("127.0.0.9", address);
    open.iter().for_each(assert_echoes);
    assert_echoes(&other);

    // One broken file: nothing changes.
    write(&allow, "127.0.0.0/8\n");
    write(&rules, "total round_trip > often\n");
    let line = reload(&mut entry.process, 1);
    assert!(
        line.contains("reload: ") && line.ends_with("; all stays as it was"),
        "{line}"
    );
    assert_refused("127.0.0.9", address);
    write(&rules, "total round_trip > 1ns critical\n");
    write(&allow, "# none\n");
    let line = reload(&mut entry.process, 2);
    assert!(line.contains("has no network"), "{line}");
    fs::set_permissions(&entry_key, Permissions::from_mode(0o644)).unwrap();
    assert!(reload(&mut entry.process, 3).contains("chmod 600"));
    fs::remove_file(&entry_key).unwrap();
    assert!(reload(&mut entry.process, 4).contains("read "));
    assert_echoes(&connect_from("127.0.0.1", address));
    open.iter().chain([&other, &late]).for_each(assert_echoes);
    let (status, report) = entry.process.stop();
    assert!(status.success(), "{report}");
    assert!(
        report.contains("ended by a reset or an error: 10"),
        "{report}"
    );
}

#[test]
fn a_hundred_hangups_amid_connects_break_none() {
    let dir = Dir::new("hangups");
    let allow = dir.file("allow");
    write(&allow, "127.0.0.1\n");
    let echo = Node::start("Z", &[]);
    let next = echo.address.to_string();
    let networks = format!("@{}", allow.display());
    let mut entry = daemon_node(&["-f", &next, "--accept", "raw", "--allow", &networks]);
    let pid = entry.process.child.id();
    let address = entry.address;
    thread::scope(|scope| {
        let hangups = scope.spawn(move || {
            let line = format!("for i in $(seq 100); do kill -HUP {pid}; done");
            Command::new("sh").args(["-c", &line]).status().unwrap()
        });
        let mut connects = 0;
        while !hangups.is_finished() || connects < 50 {
            assert_echoes(&connect_from("127.0.0.1", address));
            connects += 1;
        }
        assert!(hangups.join().unwrap().success());
    });
    entry.process.wait_line("reloaded --allow");
    let (status, _) = entry.process.stop();
    assert!(status.success());
}

/// Reads the report of a living process up to its verdict.
fn next_report(lines: &mut impl BufRead) -> String {
    let mut report = String::new();
    while !report.contains("Verdict:") {
        assert!(lines.read_line(&mut report).unwrap() > 0, "{report}");
    }
    report
}

#[test]
fn a_rule_whose_text_is_the_same_keeps_its_state_and_the_figures_go_on() {
    let dir = Dir::new("rules");
    let rules = dir.file("rules");
    let same = "total round_trip > 1ns warning";
    write(&rules, &format!("{same}\n"));
    let echo = Node::start("Z", &[]);
    let mut probe = daemon();
    probe.args([
        "probe",
        &echo.address.to_string(),
        "-c",
        "0",
        "-i",
        "0.01",
        "--rules",
    ]);
    let mut probe = Process::start(probe.arg(&rules).stdout(Stdio::piped()));
    probe.wait_line("sla: total: warning, round_trip");
    let mut stdout = BufReader::new(probe.stdout());
    probe.signal("USR1");
    let first = next_report(&mut stdout);
    assert!(first.contains("echo"), "{first}");
    write(
        &rules,
        &format!("# moved down\n{same}\ntotal round_trip mean > 1ns over 2 critical\n"),
    );
    assert!(reload(&mut probe, 0).ends_with("reloaded --rules"));
    probe.wait_line("sla: total: critical, round_trip mean");
    probe.signal("USR1");
    let second = next_report(&mut stdout);
    let sent = |report: &str| -> u64 {
        let rest = report.split("Snt ").nth(1).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(sent(&second) > sent(&first), "{first}\n{second}");
    // Of the first rule there is the one line from before.
    let lines = probe.stderr();
    let old = lines.iter().filter(|line| line.contains("total: warning"));
    assert_eq!(old.count(), 1, "{lines:?}");
    write(&rules, "");
    reload(&mut probe, 1);
    probe.wait_line("sla: total: no longer watched");
    probe.signal("TERM");
    assert_eq!(probe.wait().code(), Some(0), "no rule is left");
}

#[test]
fn targets_come_and_go_and_those_that_stay_go_on() {
    let dir = Dir::new("targets");
    let targets = dir.file("targets");
    let [one, two, three] = ["1", "2", "3"].map(|name| Node::start(name, &[]));
    write(
        &targets,
        &format!("{} one\n{} two\n", one.address, two.address),
    );
    let mut probe = daemon();
    probe.args([
        "probe",
        "-c",
        "0",
        "-i",
        "0.01",
        "--metrics-listen",
        "127.0.0.1:0",
        "--targets",
    ]);
    let mut probe = Process::start(probe.arg(&targets).stdout(Stdio::piped()));
    let address = metrics_of(&mut probe);
    let sent = |path: &str| -> Option<u64> {
        let (_, text) = ask(address, "/metrics", "");
        let label = format!("path=\"{path}\"");
        let mut lines = text.lines().filter(|line| line.contains(&label));
        let line = lines.find(|line| line.starts_with("subsegment_blocks_sent_total"))?;
        line.rsplit(' ').next().unwrap().parse().ok()
    };
    while sent("one").unwrap_or(0) < 3 || sent("two").unwrap_or(0) < 3 {}
    let before = sent("one").unwrap();
    write(
        &targets,
        &format!("{} one\n{} three\n", one.address, three.address),
    );
    assert!(reload(&mut probe, 0).ends_with("reloaded --targets"));
    while sent("three").unwrap_or(0) < 3 {}
    assert!(sent("one").unwrap() >= before);
    assert_eq!(sent("two"), None);
    write(&targets, "nonsense\n");
    assert!(reload(&mut probe, 1).contains("all stays as it was"));
    let mut stdout = BufReader::new(probe.stdout());
    probe.signal("USR1");
    let mut living = String::new();
    while !(living.contains("one") && living.contains("three")) {
        assert!(stdout.read_line(&mut living).unwrap() > 0, "{living}");
    }
    probe.signal("TERM");
    let mut report = String::new();
    stdout.read_to_string(&mut report).unwrap();
    assert!(probe.wait().success());
    assert!(
        report.contains("one") && report.contains("three"),
        "{report}"
    );
    assert!(!report.contains("two"), "{report}");
}

#[test]
fn a_hangup_of_the_terminal_ends_it_in_order_and_an_ignored_one_does_nothing() {
    let dir = Dir::new("terminal");
    let (pid, report) = (dir.file("pid"), dir.file("report"));
    let line = format!(
        "echo $$ > {}; exec {} -l 127.0.0.1:0 --report {}",
        pid.display(),
        program().get_program().to_str().unwrap(),
        report.display()
    );
    let mut script = Command::new(need("script"));
    script
        .args(["-qefc", &line])
        .arg(dir.file("typescript"))
        .stdin(Stdio::null());
    let mut script = Process::start(script.stdout(Stdio::piped()));
    let mut stdout = BufReader::new(script.stdout());
    let mut shown = String::new();
    while !shown.contains("listening on") {
        assert!(stdout.read_line(&mut shown).unwrap() > 0, "{shown}");
    }
    let pid = fs::read_to_string(&pid).unwrap();
    assert!(Command::new("kill")
        .args(["-HUP", pid.trim()])
        .status()
        .unwrap()
        .success());
    assert!(script.wait().success());
    let report = fs::read_to_string(&report).unwrap();
    assert!(report.contains("connections: 0"), "{report}");

    let mut ignoring = Command::new(need("env"));
    ignoring.args(["--ignore-signal=HUP"]).arg(need("setsid"));
    ignoring
        .arg(program().get_program())
        .args(["-l", "127.0.0.1:0"]);
    let mut node = Node::start_command(&mut ignoring);
    node.process.signal("HUP");
    let (status, _) = node.process.stop();
    assert!(status.success());
    let lines = node.process.stderr().join("\n");
    assert!(!lines.contains("reload"), "{lines}");
}

#[test]
fn a_living_source_writes_its_report_to_stderr_and_none_of_it_to_stdout() {
    let echo = Node::start("Z", &[]);
    let mut source = program();
    source.args(["--node", "A", "-f", &echo.address.to_string()]);
    source.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut source = Process::start(&mut source);
    let mut stdin = source.child.stdin.take().unwrap();
    let mut stdout = source.stdout();
    for round in 0..2_usize {
        stdin.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stdout.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        source.signal("USR1");
        let deadline = Instant::now() + LONG;
        let verdicts = |lines: &[String]| {
            let verdicts = lines.iter().filter(|line| line.starts_with("Verdict"));
            verdicts.count()
        };
        while verdicts(&source.stderr()) <= round {
            assert!(Instant::now() < deadline, "{:?}", source.stderr());
            thread::yield_now();
        }
    }
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(source.wait().success());
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    // Both of the living one, and that of the end.
    let lines = source.stderr().join("\n");
    assert_eq!(lines.matches("Verdict").count(), 3, "{lines}");
}

#[test]
fn an_exporter_probes_with_the_key_that_its_file_has_after_a_hangup() {
    let dir = Dir::new("exporter-key");
    let [own_key, echo_key] = ["own", "echo"].map(|name| dir.file(name));
    write(&own_key, OLD);
    write(&echo_key, NEW);
    let echo_path = echo_key.display().to_string();
    let mut echo = daemon_node(&["--key-file", &echo_path]);
    let target = echo.address;
    let mut exporter = daemon();
    exporter.args(["exporter", "--metrics-listen", "127.0.0.1:0", "-t", "2"]);
    exporter.arg("--key-file").arg(&own_key);
    exporter.args(["--probe-allow", &target.to_string()]);
    let mut exporter = Process::start(&mut exporter);
    let metrics = metrics_of(&mut exporter);
    let path = format!("/probe?target={target}&count=1");
    let is_up = || {
        let (status, body) = ask(metrics, &path, "");
        assert_eq!(status, 200, "{body}");
        body.contains("subsegment_probe_success 1")
    };
    assert!(!is_up(), "the keys differ");
    // What does not parse leaves the old key.
    write(&own_key, "no key\n");
    assert!(reload(&mut exporter, 0).contains("all stays as it was"));
    write(&own_key, NEW);
    assert!(reload(&mut exporter, 1).ends_with("reloaded --key-file"));
    assert!(is_up());
    // The key of the nodes is changed on the way: the exporter still has the one it read.
    write(&own_key, OLD);
    assert!(is_up());
    // Both of its lines are accepted at the echo: the exporter keeps up meanwhile.
    write(&echo_key, &format!("{OLD}{NEW}"));
    reload(&mut echo.process, 0);
    assert!(is_up());
    reload(&mut exporter, 2);
    assert!(is_up());
    // SIGUSR1 has no report to write here, and does no harm.
    exporter.signal("USR1");
    assert!(is_up());
    exporter.signal("TERM");
    assert!(exporter.wait().success());
}
