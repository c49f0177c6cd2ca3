//! States by the real binary: runs from cron, two writers at once, a killed writer, and what stands
//! in the way of a state.

mod util;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use subsegment_tcp_speeds::measure::{PathHistory, RunHistories};
use util::json::Value;
use util::link::Link;
use util::{json, program, text, Dir, Process};

/// A path A -> B -> Z with a link of 2 ms each way between B and Z.
struct Scene {
    _echo: util::Node,
    link: Link,
    relay: util::Node,
}

impl Scene {
    fn new() -> Self {
        let echo = util::Node::start("Z", &["--listen", "localhost:0"]);
        let link = Link::start(echo.address, Duration::from_millis(2)).unwrap();
        let relay = util::Node::to("B", link.address, &["--listen", "localhost:0"]);
        Self {
            _echo: echo,
            link,
            relay,
        }
    }

    /// The probe of a path that begins at A.
    fn probe(&self, args: &[&str]) -> Command {
        let target = self.relay.address.to_string();
        let mut command = program();
        command.args(["--node", "A", "probe", &target]).args(args);
        command
    }

    /// A run of 60 blocks, 4 ms apart, as cron starts it.
    fn cron(&self, state: &Path) -> Value {
        let state = state.to_str().unwrap();
        let short = [
            "-c", "60", "-i", "0.004", "--format", "json", "--state", state,
        ];
        let output = self.probe(&short).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        json(&output.stdout)
    }

    /// Runs as often as `runs` says; all but a fifth of them have the verdict `name`.
    fn expect(&self, state: &Path, runs: usize, name: &str) {
        let reports: Vec<Value> = (0..runs).map(|_| self.cron(state)).collect();
        let others = reports.iter().filter(|report| named(report) != name);
        let others: Vec<_> = others.map(|report| report.at("verdict/text")).collect();
        assert!(others.len() <= runs / 5, "{name} expected: {others:?}");
    }
}

fn named(report: &Value) -> &str {
    report.at("verdict/name").and_then(Value::as_str).unwrap()
}

fn history(state: &Path) -> PathHistory {
    let read = RunHistories::parse(&std::fs::read_to_string(state).unwrap()).unwrap();
    assert_eq!(read.cut, None);
    let path = read.state.paths.values().next();
    path.cloned().expect("a path")
}

fn run(args: &[&str]) -> (i32, String) {
    let output = util::run(args);
    let printed = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap(), printed)
}

#[test]
fn runs_from_cron_name_a_rise_until_it_is_gone_or_accepted() {
    let scene = Scene::new();
    let dir = Dir::new("state-cron");
    let state = dir.file("state");
    let name = state.to_str().unwrap();
    // A busy machine may stall another part for a whole run: that is a rise of its own.
    scene.expect(&state, 8, "none");
    scene.link.forward.set_delay(Duration::from_millis(10));
    scene.expect(&state, 12, "B -> Z");
    let (code, shown) = run(&["state", name, "show"]);
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("B -> Z") && shown.contains("not accepted"),
        "{shown}"
    );
    scene.link.forward.set_delay(Duration::from_millis(2));
    scene.expect(&state, 5, "none");
    scene.link.forward.set_delay(Duration::from_millis(10));
    scene.expect(&state, 5, "B -> Z");
    let (code, printed) = run(&["state", name, "accept", "nothing"]);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("its parts are"), "{printed}");
    let (code, printed) = run(&["state", name, "accept", "B -> Z"]);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("accepted: B -> Z"), "{printed}");
    scene.expect(&state, 5, "none");
    let (code, printed) = run(&["state", name, "show", "--format", "json"]);
    let shown = json(printed.as_bytes());
    assert_eq!(code, 0);
    let records = shown.at("paths/0/records").and_then(Value::as_u64);
    assert_eq!(records, Some(8 + 12 + 5 + 5 + 5));
}

#[test]
fn compare_finds_the_segment_that_rose_and_fails_for_rises_alone() {
    let scene = Scene::new();
    let dir = Dir::new("state-compare");
    let report = |name: &str| {
        let file = dir.file(name).display().to_string();
        let args = [
            "-c", "100", "-i", "0.004", "--format", "json", "--report", &file,
        ];
        assert!(scene.probe(&args).status().unwrap().success());
        file
    };
    let before = report("before.json");
    let unchanged = report("unchanged.json");
    scene.link.back.set_delay(Duration::from_millis(5));
    let after = report("after.json");
    let (code, printed) = run(&["compare", &before, &unchanged]);
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("No part changed by more than"),
        "{printed}"
    );
    let (code, printed) = run(&["compare", &before, &after, "--format", "json"]);
    assert_eq!(code, 1, "{printed}");
    let found = json(printed.as_bytes());
    let sentence = found.at("text").and_then(Value::as_str).unwrap();
    assert!(sentence.starts_with("B -> Z rose: +"), "{sentence}");
    let parts = found.at("parts").and_then(Value::as_array).unwrap();
    let is_slowed = |part: &&Value| part.at("name").and_then(Value::as_str) == Some("B -> Z");
    let slowed = parts.iter().find(is_slowed).unwrap();
    let by = util::int(slowed, "difference_ns");
    assert!((2_500_000..3_500_000).contains(&by), "{sentence}");
    // The interval is as wide as the machine is busy.
    let low = util::int(slowed, "low_ns");
    assert!((0..3_500_000).contains(&low), "{printed}");
    for (above, code) in [(low / 2, 1), (low * 2, 0)] {
        let above = format!("{}us", above as f64 / 1e3);
        let run = run(&["compare", &before, &after, "--fail-above", &above]);
        assert_eq!(run.0, code, "{above}: {}", run.1);
    }
    let (code, printed) = run(&["compare", &after, &before]);
    assert_eq!(code, 0, "a fall: {printed}");
    assert!(printed.contains("B -> Z fell: -"), "{printed}");

    let old = std::fs::read_to_string(&before).unwrap();
    let old = old.replace("\"batches\"", "\"other\"");
    let stripped = dir.file("old.json").display().to_string();
    std::fs::write(&stripped, &old).unwrap();
    let (code, printed) = run(&["compare", &stripped, &after]);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("No intervals"), "{printed}");
    std::fs::write(&stripped, old.replace("\"name\": \"B\"", "\"name\": \"Q\"")).unwrap();
    let (code, printed) = run(&["compare", &before, &stripped]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("compare runs of one path"), "{printed}");
    let (code, printed) = run(&["compare", &before, "/nonexistent"]);
    assert_eq!(code, 2, "{printed}");

    let slow = [
        "-c",
        "100",
        "-i",
        "0.004",
        "--format",
        "json",
        "--baseline",
        &before,
    ];
    let output = scene.probe(&slow).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn two_endless_probes_with_one_state_lose_no_window_and_a_killed_one_loses_one_at_most() {
    let scene = Scene::new();
    let dir = Dir::new("state-two");
    let state = dir.file("state");
    let name = state.to_str().unwrap();
    let endless = ["-c", "0", "-i", "0.01", "--window", "0.2s", "--state", name];
    let start = || {
        let mut command = scene.probe(&endless);
        command.stdout(Stdio::null());
        Process::start(&mut command)
    };
    let (one, mut other) = (start(), start());
    let wait_records = |count: usize| {
        let deadline = std::time::Instant::now() + util::LONG;
        loop {
            let records = match std::fs::read_to_string(&state) {
                Ok(text) => RunHistories::parse(&text).map_or(0, |read| {
                    let paths = read.state.paths.values();
                    paths.map(|path| path.records.len()).sum()
                }),
                Err(_) => 0,
            };
            if records >= count {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{records} records in time"
            );
            util::pass(Duration::from_millis(20));
        }
    };
    wait_records(10);
    one.signal("KILL");
    wait_records(14);
    other.signal("TERM");
    assert!(other.wait().success());
    let records = history(&state).records;
    let sequences: Vec<u64> = records.iter().map(|record| record.sequence).collect();
    let all: Vec<u64> = (1..=sequences.len() as u64).collect();
    assert_eq!(sequences, all);
    // A last line that a killed writer left cut is dropped, with a line of log.
    let whole = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, &whole[..whole.len() - 3]).unwrap();
    let mut third = start();
    third.wait_line("is cut: dropped");
    wait_records(sequences.len() + 2);
    third.signal("TERM");
    assert!(third.wait().success());
}

#[test]
fn what_stands_in_the_way_of_a_state_is_a_line_and_the_run_goes_on() {
    let scene = Scene::new();
    let dir = Dir::new("state-bad");
    let short = |state: &Path| {
        let state = state.to_str().unwrap();
        let output = scene.probe(&["-c", "3", "-i", "0.002", "--state", state]);
        let output = { output }.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let missing = dir.file("missing").join("state");
    assert!(short(&missing).contains("there is no directory"));
    let newer = dir.file("newer");
    std::fs::write(&newer, "subsegment-tcp-speeds state 7\n").unwrap();
    assert!(short(&newer).contains("another version"));
    assert_eq!(
        std::fs::read_to_string(&newer).unwrap(),
        "subsegment-tcp-speeds state 7\n"
    );
    let huge = dir.file("huge");
    std::fs::File::create(&huge)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(short(&huge).contains("larger than"));
    let full = dir.file("full");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    assert!(short(&full).contains("state "));
    let old = dir.file("old");
    let run = "run 1795253399000000000 97 0=A,1=B,2=Z segment:0-1=410000/520000";
    std::fs::write(&old, format!("subsegment-tcp-speeds state 1\n{run}\n")).unwrap();
    assert_eq!(short(&old), "");
    assert_eq!(history(&old).records.len(), 1);
    let future = dir.file("future");
    let line = "window 0=A,1=B,2=Z 5 1000 4102444800000 0 7 1000 s0-1=50,400,400,500";
    std::fs::write(&future, format!("subsegment-tcp-speeds state 2\n{line}\n")).unwrap();
    assert!(short(&future).contains("after now"));
    let kept = history(&future).records;
    let sequences: Vec<u64> = kept.iter().map(|record| record.sequence).collect();
    assert_eq!(sequences, [5, 6]);
}

#[test]
fn without_locks_on_a_full_disk_or_without_permission_the_run_goes_on_and_the_old_file_stays() {
    let scene = Scene::new();
    let dir = Dir::new("state-disk");
    let target = scene.relay.address.to_string();
    let state = dir.file("state");
    let path = state.to_str().unwrap();
    let probe = [
        "--node", "A", "probe", &target, "-c", "3", "-i", "0.002", "--state",
    ];
    assert!(util::run(&[&probe[..], &[path]].concat()).status.success());

    // As on NFS without its lock service.
    let mut without = Command::new(util::need("strace"));
    without.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=flock:error=ENOLCK",
    ]);
    let output = without
        .arg(env!("CARGO_BIN_EXE_subsegment-tcp-speeds"))
        .args(probe)
        .arg(path)
        .output();
    let output = output.unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("going on without a lock"), "{stderr}");
    assert_eq!(history(&state).records.len(), 2);

    // No file can be made there, by root neither.
    let output = util::run(&[&probe[..], &["/proc/state"]].concat());
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("state /proc/state: open /proc/state.lock"),
        "{stderr}"
    );
    assert!(
        text(&output.stdout).contains("this run is not kept"),
        "{output:?}"
    );

    // The path of the run is not that of the file: both are kept.
    let other = util::run(&[
        "--node", "Q", "probe", &target, "-c", "3", "-i", "0.002", "--state", path,
    ]);
    assert!(other.status.success(), "{other:?}");
    let read = RunHistories::parse(&std::fs::read_to_string(&state).unwrap()).unwrap();
    assert_eq!(read.state.paths.len(), 2);

    let disk = dir.file("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = "mount -t tmpfs -o size=32k full $0 && cp $1 $0/state && : > $0/state.lock \
                  && { dd if=/dev/zero of=$0/fill bs=4k 2>/dev/null; shift; \
                  \"$@\" --state $0/state; echo code $?; cat $0/state >&2; }";
    let mut full = Command::new(util::need("unshare"));
    full.args(["-m", "sh", "-c", script]).arg(&disk).arg(&state);
    let output = full
        .arg(env!("CARGO_BIN_EXE_subsegment-tcp-speeds"))
        .args(&probe[..8])
        .output()
        .unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(stdout.contains("code 0"), "{stdout}{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    let kept = std::fs::read_to_string(&state).unwrap();
    assert!(stderr.ends_with(&kept), "{stderr}");
}

#[test]
fn compare_names_what_it_cannot_compare_and_ends_with_the_code_of_usage() {
    let scene = Scene::new();
    let dir = Dir::new("state-compare-bad");
    let report = dir.file("report.json").display().to_string();
    let state = dir.file("state").display().to_string();
    let args = [
        "-c", "30", "-i", "0.004", "--format", "json", "--report", &report, "--state", &state,
    ];
    assert!(scene.probe(&args).status().unwrap().success());
    let whole = std::fs::read(&report).unwrap();
    let huge = dir.file("huge");
    let huge_file = std::fs::File::create(&huge).unwrap();
    huge_file.set_len(1 << 40).unwrap();
    for (name, bytes, line) in [
        (
            "empty",
            &b""[..],
            "expected a report in JSON: no value at byte 0",
        ),
        (
            "cut",
            &whole[..whole.len() / 2],
            "expected a report in JSON: ",
        ),
        ("other", b"{\"a\": 1}", "expected a report with \"schema\""),
        ("bytes", &[0xff, 0, 1], "it is no text"),
        (
            "deep",
            &[b'['; 100_000],
            "expected a report in JSON: nested too deep",
        ),
    ] {
        let file = dir.file(name).display().to_string();
        std::fs::write(&file, bytes).unwrap();
        for args in [[&report, &file], [&file, &report]] {
            let (code, printed) = run(&["compare", args[0], args[1]]);
            assert_eq!(code, 2, "{name}: {printed}");
            assert!(printed.contains(&format!("{file}: {line}")), "{printed}");
        }
    }
    let huge = huge.display().to_string();
    let now = "2100-01-01";
    for (args, line) in [
        (&["compare", &report][..], "needs two reports"),
        (&["compare", &report, "/nonexistent"], "No such file"),
        (&["compare", &report, "/"], "Is a directory"),
        (&["compare", &report, &huge], "larger than"),
        (
            &["compare", &report, &state],
            "it is a state: compare --state",
        ),
        (
            &["compare", &report, &report, &report],
            "one argument too many",
        ),
        (
            &["compare", &report, &report, "--fail-above", "-1ms"],
            "not a duration",
        ),
        (&["compare", "--state", &state], "needs two reports"),
        (
            &[
                "compare", "--state", &state, "--before", "noon", "--after", "-1h",
            ],
            "is no time: write ",
        ),
        (
            &[
                "compare", "--state", &state, "--before", "-0s", "--after", now,
            ],
            "has no record of one path until ",
        ),
        (
            &[
                "compare",
                "--state",
                &state,
                "--before",
                "2020-01-01",
                "--after",
                "-1h",
            ],
            "has no record of one path until ",
        ),
        (
            &[
                "compare", "--state", &report, "--before", "-1h", "--after", "-1h",
            ],
            "expected \"subsegment-tcp-speeds state 2\"",
        ),
    ] {
        let (code, printed) = run(args);
        assert_eq!(code, 2, "{args:?}: {printed}");
        assert!(printed.contains(line), "{args:?}: {printed}");
        assert!(!printed.contains("move it away"), "{args:?}: {printed}");
    }
}

#[test]
fn each_target_has_a_state_in_the_directory() {
    let scene = Scene::new();
    let dir = Dir::new("state-targets");
    let targets = dir.file("targets");
    let line = format!("{} one/two\n", scene.relay.address);
    std::fs::write(&targets, line).unwrap();
    let states = dir.file("states");
    std::fs::create_dir(&states).unwrap();
    let [targets, directory] = [&targets, &states].map(|path| path.to_str().unwrap());
    let args = [
        "probe",
        "--targets",
        targets,
        "-c",
        "5",
        "-i",
        "0.01",
        "--state",
        directory,
    ];
    let (code, printed) = run(&args);
    assert_eq!(code, 0, "{printed}");
    let names: Vec<String> = std::fs::read_dir(&states)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".state"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(history(&states.join(&names[0])).records.len(), 1);
}
