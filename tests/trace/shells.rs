//! Hosts by a stand-in for ssh: their login shells, their files, and their errors.

use crate::fake::{is_open, write, FakeSsh};
use crate::util::{json, need, text, Process};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_path_is_measured_whatever_the_login_shells_are() {
    let ssh = FakeSsh::new("trace-shells");
    let busybox = need("busybox").display().to_string();
    let here = ssh.dir.0.display().to_string();
    let applets = [
        "sh", "ls", "rm", "sleep", "dd", "cat", "mktemp", "uname", "wc", "head", "chmod",
    ];
    std::fs::create_dir(ssh.dir.file("bin")).unwrap();
    for applet in applets {
        std::os::unix::fs::symlink(&busybox, ssh.dir.file("bin").join(applet)).unwrap();
    }
    ssh.host(
        "ash",
        &format!("export PATH={here}/bin\nshell={here}/bin/sh\n"),
    );
    ssh.host(
        "csh",
        &format!("PATH=$BARE\nshell={}\n", need("tcsh").display()),
    );
    ssh.host(
        "fish",
        &format!("PATH=$BARE\nshell={}\n", need("fish").display()),
    );
    ssh.host(
        "bash",
        "PATH=$BARE\nshell=bash\necho Welcome; printf 'prompt$ '; echo warned >&2\n",
    );
    // Without debug information, as in a release.
    let nodes = ssh.dir.file("nodes");
    let node = nodes
        .join(std::env::consts::ARCH)
        .join("subsegment-tcp-speeds");
    std::fs::create_dir_all(node.parent().unwrap()).unwrap();
    let mut strip = Command::new(need("strip"));
    strip
        .arg("-o")
        .arg(&node)
        .arg(env!("CARGO_BIN_EXE_subsegment-tcp-speeds"));
    assert!(strip.status().unwrap().success());
    let line = "root@ash=127.0.0.1 csh=127.0.0.1 fish=127.0.0.1 bash=127.0.0.1 ash=127.0.0.1";
    let output = ssh.trace(&format!(
        "{line} -c 5 --format json --binaries {}",
        nodes.display()
    ));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    let value = json(&output.stdout);
    let received = crate::util::int(&value, "blocks/received");
    assert_eq!(received, 5, "{report}");
    for name in ["ash", "csh", "fish", "bash", "ash#2"] {
        assert!(report.contains(&format!("\"{name}\"")), "{name}: {report}");
    }
    let errors = text(&output.stderr);
    assert!(
        errors.contains("note: ash and csh are one machine"),
        "{errors}"
    );
    assert_eq!(ssh.left(), 0);
}

#[test]
fn a_server_behind_the_last_host_is_timed() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let ssh = FakeSsh::new("trace-server");
    let line = format!("edge=127.0.0.1 --server {address} -c 5 --format json");
    let output = ssh.trace(&line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    assert!(report.contains("\"connect\""), "{report}");
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_ok(), "the exit has connected");
}

#[test]
fn an_error_names_the_host_the_step_and_the_remedy() {
    let ssh = FakeSsh::new("trace-errors");
    let here = ssh.dir.0.display().to_string();
    std::fs::create_dir_all(ssh.dir.file("bin")).unwrap();
    std::fs::create_dir_all(ssh.dir.file("other/x86_64")).unwrap();
    write(&ssh.dir.file("bin/uname"), "#!/bin/sh\necho Linux pdp11\n");
    let old = "#!/bin/sh\necho subsegment-tcp-speeds 0.0.9\n";
    std::fs::create_dir_all(ssh.dir.file("v009")).unwrap();
    std::fs::create_dir_all(ssh.dir.file("other/i686")).unwrap();
    write(&ssh.dir.file("v009/subsegment-tcp-speeds"), old);
    write(&ssh.dir.file("other/i686/subsegment-tcp-speeds"), old);
    let broken = "#!/no/such/loader\n";
    write(&ssh.dir.file("other/x86_64/subsegment-tcp-speeds"), broken);
    ssh.host("pdp11", &format!("PATH={here}/bin:$BARE\n"));
    ssh.host("bare", "PATH=$BARE\n");
    ssh.host("old", &format!("PATH={here}/v009:$BARE\n"));
    ssh.host(
        "gone",
        "echo 'ssh: Could not resolve hostname gone: Name or service not known' >&2\nexit 255\n",
    );
    ssh.host(
        "shut",
        "echo 'root@shut: Permission denied (publickey,password).' >&2\nexit 255\n",
    );
    ssh.host(
        "new",
        "echo 'Host key verification failed.' >&2\nexit 255\n",
    );
    ssh.host(
        "nologin",
        "echo 'This account is currently not available.'\nexit 1\n",
    );
    for (line, parts) in [
        (
            "gone",
            &[
                "trace: gone: ssh: Could not resolve hostname gone",
                "as ssh knows it",
            ][..],
        ),
        (
            "edge=127.0.0.1 shut",
            &["trace: shut: ", "Permission denied", "ssh-copy-id shut"],
        ),
        (
            "new",
            &["trace: new: Host key verification failed", "by hand"],
        ),
        (
            "nologin",
            &[
                "trace: nologin: ssh ended with 1 before an answer",
                "ssh nologin true",
            ],
        ),
        (
            "pdp11",
            &["trace: pdp11: is a \"pdp11\" (little-endian)", "install it"],
        ),
        (
            "bare --installed-only",
            &[
                "trace: bare: has no subsegment-tcp-speeds in its PATH",
                "leave out --installed-only",
            ],
        ),
        (
            "old --installed-only",
            &[
                "trace: old: versions differ",
                "\"subsegment-tcp-speeds 0.0.9\"",
                "install that",
            ],
        ),
    ] {
        let error = ssh.error(line);
        for part in parts {
            assert!(error.contains(part), "{line}: {part:?} is not in: {error}");
        }
        assert!(
            error.starts_with("subsegment-tcp-speeds: trace: "),
            "{error}"
        );
    }
    // Binaries that are of no use come before this program, which runs.
    let output = ssh.trace(&format!("bare=127.0.0.1 -c 1 --binaries {here}/other"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ssh.left(), 0);
}

#[test]
fn an_installed_program_of_this_version_runs_in_place() {
    let ssh = FakeSsh::new("trace-installed");
    let here = ssh.dir.0.display().to_string();
    let installed = ssh.dir.file("usr/subsegment-tcp-speeds");
    std::fs::remove_file(&installed).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_subsegment-tcp-speeds"), &installed).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = inode(&installed);
    let output = ssh.trace("edge=127.0.0.1 -c 3 -v --installed-only");
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains(&format!("runs the installed {here}/usr/")),
        "{errors}"
    );
    assert_eq!(inode(&installed), before);
}

#[test]
fn a_range_of_ports_is_tried_until_one_is_free() {
    let ssh = FakeSsh::new("trace-ports");
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let first = taken.local_addr().unwrap().port();
    let last = first.saturating_add(20);
    let line = format!("edge=127.0.0.1 core=127.0.0.1 -v -c 3 --ports {first}-{last}");
    let output = ssh.trace(&line);
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("edge: listens on "), "{errors}");
    let error = ssh.error(&format!("edge=127.0.0.1 -c 3 --ports {first}-{first}"));
    for part in [
        "trace: edge: its node ended: listen on",
        "in use",
        "a wider range",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_dry_run_connects_nowhere_and_prints_what_would_run() {
    let ssh = FakeSsh::new("trace-dry");
    ssh.host("edge", "touch $TMP_OF_TEST/connected\n");
    let output = ssh.trace("root@edge=10.0.0.1 core=10.0.0.7 --server db:5432 --dry-run");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for part in [
        "edge:\n",
        " root@edge sh -c",
        "--node edge",
        "--forward-to 10.0.0.7:PORT",
        "--forward-to db:5432 --remove-perf-headers",
    ] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
    assert!(!ssh.dir.file("connected").exists());
}

#[test]
fn a_path_may_begin_at_another_host() {
    let ssh = FakeSsh::new("trace-from");
    ssh.host("fish", &format!("shell={}\n", need("fish").display()));
    ssh.host("csh", &format!("shell={}\n", need("tcsh").display()));
    ssh.host("copied", "PATH=$BARE\necho Welcome; printf 'prompt$ '\n");
    for from in ["root@fish", "csh", "copied"] {
        let line = format!("--from {from} core=127.0.0.1 db=127.0.0.1 -c 5 -i 0.01 --format json");
        let output = ssh.trace(&line);
        assert!(output.status.success(), "{from}: {}", text(&output.stderr));
        let report = json(&output.stdout);
        assert_eq!(crate::util::int(&report, "blocks/received"), 5);
        let report = text(&output.stdout);
        for name in [from.trim_start_matches("root@"), "core", "db"] {
            assert!(report.contains(&format!("\"{name}\"")), "{name}: {report}");
        }
        assert_eq!(ssh.left(), 0);
    }
    // Every face comes home as it is printed there, and the exit code with it.
    for (face, beginning) in [
        ("csv", "sequence,"),
        ("jsonl", "{"),
        ("influx", ""),
        ("nagios", "STS CRITICAL"),
        ("otlp", "{"),
        ("text", ""),
    ] {
        let line = format!("--from fish core=127.0.0.1 -c 5 -i 0.01 --format {face}");
        let mut command = ssh.command(&line);
        command.args(["--critical", "0.001ms"]);
        let output = command.output().unwrap();
        let printed = text(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(printed.starts_with(beginning), "{face}: {printed}");
        assert!(
            printed.ends_with('\n') && !printed.contains(" exit "),
            "{printed}"
        );
    }
}

#[test]
fn a_path_that_cannot_be_opened_from_another_host_is_critical() {
    let ssh = FakeSsh::new("trace-from-closed");
    // What it writes to stderr comes later than its stdout.
    let late = "$TMP_OF_TEST/late";
    let slow = format!("mkfifo {late}; (exec 4< {late}; sleep 1; cat <&4) >&2 & exec 2> {late}\n");
    ssh.host("edge", &slow);
    let output = ssh.trace("--from edge core=no-such-host.invalid -c 2 --format nagios");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    for part in [
        "trace: core cannot be reached from edge: ",
        "resolve no-such-host.invalid",
        "name its address: core=ADDR",
    ] {
        assert!(errors.contains(part), "{part:?} is not in {errors}");
    }
    assert!(text(&output.stdout).starts_with("STS CRITICAL"), "{errors}");
    // The same two hosts, and the second cannot be reached: that is the first one's report.
    let line = "--from near core=127.0.0.1 db=no-such-host.invalid -c 2 --format nagios";
    let output = ssh.trace(line);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    let part = "trace: db cannot be reached from core: ";
    assert!(errors.contains(part), "{errors}");
    // From here it is the same, with the same exit code.
    let output = ssh.trace("core=127.0.0.1 db=no-such-host.invalid -c 2 --format nagios");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(part), "{errors}");
    assert!(text(&output.stdout).starts_with("STS CRITICAL"), "{errors}");
    let dry = ssh.trace("--from edge core=10.0.0.7 --dry-run -c 2");
    let printed = text(&dry.stdout);
    let probe = "probe 10.0.0.7:PORT --node edge --count 2\n";
    assert!(printed.contains(probe), "{printed}");
}

#[test]
fn files_of_a_probe_on_another_host_are_those_of_this_host() {
    let ssh = FakeSsh::new("trace-from-files");
    ssh.host("copied", "PATH=$BARE\necho Welcome; printf 'prompt$ '\n");
    ssh.host("csh", &format!("shell={}\n", need("tcsh").display()));
    let files = ["rules", "state", "page", "report"].map(|name| ssh.dir.file(name));
    let [rules, state, page, report] = files.each_ref().map(|path| path.display().to_string());
    std::fs::write(&rules, "total round_trip mean > 0.001ms critical\n").unwrap();
    let records = || {
        let kept = std::fs::read_to_string(&state).unwrap();
        kept.lines()
            .filter(|line| line.starts_with("record "))
            .count()
    };
    for (at, from) in ["installed", "copied", "csh"].into_iter().enumerate() {
        let line = format!(
            "--from {from} core=127.0.0.1 -c 20 -i 0.01 --format json --node here \
             --report {report} --rules {rules} --state {state} --report-html {page}"
        );
        let output = ssh.trace(&line);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{from}: {errors}");
        assert_eq!(text(&output.stdout), "", "{from}: it is in the file");
        let value = json(&std::fs::read(&report).unwrap());
        assert_eq!(crate::util::int(&value, "blocks/received"), 20);
        assert_eq!(records(), at + 1, "{from}: {errors}");
        let shown = std::fs::read_to_string(&page).unwrap();
        assert!(shown.starts_with("<!DOCTYPE html>") && shown.contains("</html>"));
        std::fs::remove_file(&page).unwrap();
        assert_eq!(ssh.left(), 0);
    }
    // The last run is what this one is compared with.
    let line = format!("--from csh core=127.0.0.1 -c 20 -i 0.01 --node here --baseline {state}");
    let output = ssh.trace(&line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(records(), 3, "a baseline is not written");
    // What is no state is named as it is here, and stays.
    std::fs::write(&state, "notes\n").unwrap();
    let line = format!("--from csh core=127.0.0.1 -c 2 -i 0.01 --state {state}");
    let errors = text(&ssh.trace(&line).stderr);
    assert!(errors.contains(&format!("state {state}: ")), "{errors}");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "notes\n");
    for (option, file) in [("rules", "no-such-file"), ("report-html", "no-such/page")] {
        let line = format!("--from csh core=127.0.0.1 --{option} {file}");
        let error = ssh.error(&line);
        assert!(error.contains(file), "{error}");
    }
    assert_eq!(ssh.left(), 0);
}

#[test]
fn an_interrupted_probe_of_another_host_reports_and_leaves_nothing() {
    for signal in ["INT", "KILL"] {
        let ssh = FakeSsh::new(&format!("trace-from-{signal}"));
        let mark = ssh.dir.file("alive");
        ssh.host("edge", &format!("exec 9>{}\n", mark.display()));
        let page = ssh.dir.file("page");
        let line = format!(
            "--from edge core=127.0.0.1 -v -c 0 -i 0.01 --format json --report-html {}",
            page.display()
        );
        let report = ssh.dir.file("report");
        let mut command = ssh.command(&line);
        command.stdout(std::fs::File::create(&report).unwrap());
        let mut trace = Process::start(&mut command);
        trace.wait_line("core: listens on");
        trace.wait_line("edge: waits");
        trace.signal(signal);
        let status = trace.child.wait().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
        while is_open(&mark) {
            assert!(
                std::time::Instant::now() < deadline,
                "{signal}: still there"
            );
            std::thread::yield_now();
        }
        assert_eq!(ssh.left(), 0);
        if signal == "INT" {
            assert!(status.code().is_some(), "{status}");
            let report = std::fs::read(&report).unwrap();
            let has_begun = !report.is_empty();
            assert_eq!(page.metadata().unwrap().len() > 0, has_begun);
        }
    }
}

#[test]
fn the_nodes_end_with_trace_however_it_ends() {
    for signal in ["KILL", "INT"] {
        let ssh = FakeSsh::new(&format!("trace-{signal}"));
        let mark = ssh.dir.file("alive");
        // The host's shell holds the lock file open as long as anything of it runs.
        ssh.host("edge", &format!("exec 9>{}\n", mark.display()));
        let mut command = ssh.command("edge=127.0.0.1 -v -c 0 --format jsonl");
        let mut trace = Process::start(command.stdout(Stdio::piped()));
        trace.wait_line("edge: listens on");
        trace.signal(signal);
        let _ = trace.child.wait();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
        while is_open(&mark) {
            assert!(
                std::time::Instant::now() < deadline,
                "{signal}: still there"
            );
            std::thread::yield_now();
        }
        assert_eq!(ssh.left(), 0);
    }
}

/// The path in the package of the nodes, under its root, of the binary for `target`.
fn packaged(target: &str) -> String {
    let script = include_str!("../../scripts/release");
    let mut lines = script.lines().filter_map(|line| {
        let line = line
            .trim()
            .strip_prefix("install -D -m 755 \"$(small \"$target\")\" ")?;
        line.strip_prefix("\"$root/")?.strip_suffix('"')
    });
    let path = lines.next().expect("a line that installs a node");
    assert_eq!(lines.next(), None);
    let path = path.replace("$program", "subsegment-tcp-speeds");
    path.replace("$target", target)
}

#[test]
fn the_package_puts_nodes_where_trace_looks_for_them() {
    let ssh = FakeSsh::new("trace-package");
    let here = ssh.dir.0.display().to_string();
    std::fs::create_dir(ssh.dir.file("bin")).unwrap();
    let uname = ssh.dir.file("bin/uname");
    write(&uname, "#!/bin/sh\necho Linux armv7l\n");
    ssh.host("router", &format!("PATH={here}/bin:$BARE\n"));
    // `usr` is the directory of the package; the program stands in its `bin`.
    let program = ssh.dir.file("usr/bin/subsegment-tcp-speeds");
    std::fs::create_dir(program.parent().unwrap()).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_subsegment-tcp-speeds"), &program).unwrap();
    let trace = || {
        let mut command = Command::new(&program);
        command.args(["trace", "router=127.0.0.1", "-c", "1", "--ssh"]);
        command.arg(ssh.dir.file("log-in")).stdin(Stdio::null());
        command.output().unwrap()
    };
    let output = trace();
    let errors = text(&output.stderr);
    assert!(errors.contains("there is no binary for it"), "{errors}");
    let node = ssh.dir.file(&packaged("armv5te"));
    std::fs::create_dir_all(node.parent().unwrap()).unwrap();
    // This machine runs its own kind of program alone, of which the host claims to be none.
    let stripped = Command::new(need("strip"))
        .arg("-o")
        .args([&node, &program])
        .status();
    assert!(stripped.unwrap().success());
    let output = trace();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(ssh.left(), 0);
}
