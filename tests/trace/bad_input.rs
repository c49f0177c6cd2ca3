//! Hosts and an ssh that misbehave, by a stand-in for ssh.

use crate::fake::{write, FakeSsh};
use crate::util::{int, json, libfaketime, need, text};
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn a_slow_login_holds_up_nothing_but_the_start() {
    let ssh = FakeSsh::new("trace-slow");
    ssh.host("slow", "sleep 2\n");
    let output =
        ssh.trace("edge=127.0.0.1 slow=127.0.0.1 core=127.0.0.1 -c 5 -i 0.01 --format json");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(int(&json(&output.stdout), "blocks/received"), 5);
}

#[test]
fn an_ssh_that_dies_is_named_with_its_step() {
    let ssh = FakeSsh::new("trace-dies");
    ssh.host("at-login", "kill -9 $$\n");
    // The input ends in the middle of the copy, and nothing is answered any more.
    ssh.host(
        "in-copy",
        "PATH=$BARE\ndd bs=65536 count=6 2>/dev/null | $shell -c \"$2\" |\n\
         sed -u \"/ dir /q\"\nkill -9 $$\n",
    );
    ssh.host(
        "in-run",
        "$shell -c \"$2\" | { sed -u \"/ listening on /q\"; kill -9 $$; }\n",
    );
    ssh.host(
        "silent",
        "echo Timeout, server 10.0.0.7 not responding. >&2\nexit 255\n",
    );
    for (name, part) in [
        ("at-login", "ssh was ended by a signal before an answer"),
        (
            "in-copy",
            "ssh was ended by a signal while the program was copied",
        ),
        ("in-run", "ssh was ended by a signal while the program ran"),
        (
            "silent",
            "ssh ended with 255 before an answer: Timeout, server 10.0.0.7 not responding",
        ),
    ] {
        let error = ssh.error(&format!(
            "edge=127.0.0.1 {name}=127.0.0.1 -c 0 --format jsonl"
        ));
        println!("TRACE {error}");
        let part = format!("{part}; try: ssh {name} true");
        let is_named = error.starts_with(&format!("subsegment-tcp-speeds: trace: {name}: "));
        assert!(is_named && error.ends_with(&part), "{name}: {error}");
        assert_eq!(ssh.left(), 0, "{name}");
    }
}

#[test]
fn a_clock_in_1970_moves_no_figure_but_its_own_offset() {
    let ssh = FakeSsh::new("trace-1970");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let behind = now.as_secs() - 3600;
    ssh.host(
        "old",
        &format!(
            "export LD_PRELOAD={} FAKETIME=-{behind}s FAKETIME_DONT_FAKE_MONOTONIC=1\n",
            libfaketime().display()
        ),
    );
    let line = "edge=127.0.0.1 old=127.0.0.1 core=127.0.0.1 -c 50 -i 0.01 --format json";
    let output = ssh.trace(line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!(int(&report, "blocks/received"), 50);
    let behind = i64::try_from(behind).unwrap() * 1_000_000_000;
    for (segment, expected) in [(0, 0), (1, -behind), (2, behind)] {
        let at = |what: &str| int(&report, &format!("segments/{segment}/{what}"));
        let (offset, error) = (at("clock_offset_ns"), at("clock_offset_error_ns"));
        println!("TRACE segment {segment}: offset {offset} ns, error {error} ns");
        // libfaketime and this test read the clock of this host apart.
        assert!((offset - expected).abs() <= error + 1_000_000, "{offset}");
        let mean = at("round_trip/mean_ns");
        assert!((0..1_000_000_000).contains(&mean), "{mean}");
    }
    // From there it is the same path.
    let output = ssh.trace("--from old edge=127.0.0.1 -c 50 -i 0.01 --format json");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!(int(&report, "blocks/received"), 50);
    let offset = int(&report, "segments/0/clock_offset_ns");
    assert!((offset - behind).abs() < 1_000_000_000, "{offset}");
}

#[test]
fn a_word_that_is_no_host_starts_no_ssh() {
    let ssh = FakeSsh::new("trace-words");
    let ssh = |words: &[&str]| {
        let mut command = ssh.command("-c 1");
        command.args(words);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{words:?}");
        text(&output.stderr)
    };
    let long = "a".repeat(300);
    for (words, part) in [
        (
            &[long.as_str()][..],
            "is too long: a name has at most 255 bytes",
        ),
        (&["--", "-oProxyCommand=reboot"], "begins with a dash"),
        (&["root@-oProxyCommand=reboot"], "begins with a dash"),
        (
            &["--from", "-oProxyCommand=reboot", "edge"],
            "begins with a dash",
        ),
        (&["-oProxyCommand=reboot"], "unknown option -o"),
        (&["edge=-x"], "write a name or an address after ="),
    ] {
        let errors = ssh(words);
        assert!(
            errors.contains(part) && errors.lines().count() == 1,
            "{errors}"
        );
    }
}

#[test]
fn the_script_runs_in_every_kind_of_sh() {
    let ssh = FakeSsh::new("trace-sh");
    let here = ssh.dir.0.display().to_string();
    let shells = ["mksh", "posh", "dash", "bash", "busybox"];
    let mut line = String::new();
    for shell in shells {
        let bin = ssh.dir.file(shell);
        let word = if shell == "busybox" { " ash" } else { "" };
        let sh = format!("#!/bin/dash\nexec {}{word} \"$@\"\n", need(shell).display());
        write(&bin.join("sh"), &sh);
        // A short script stands in for the program, so that the copy is short.
        ssh.host(
            &format!("{shell}.host"),
            &format!("PATH={here}/{shell}:$BARE\n"),
        );
        line += &format!("{shell}.host=127.0.0.1 ");
    }
    let program = env!("CARGO_BIN_EXE_subsegment-tcp-speeds");
    for target in [
        std::env::consts::ARCH,
        &format!("full/{}", std::env::consts::ARCH),
    ] {
        let copy = ssh
            .dir
            .file("nodes")
            .join(target)
            .join("subsegment-tcp-speeds");
        write(&copy, &format!("#!/bin/dash\nexec {program} \"$@\"\n"));
    }
    for from in [
        "",
        "--from mksh.host ",
        "--from posh.host ",
        "--from busybox.host ",
    ] {
        let line = format!("{from}{line}-c 5 -i 0.01 --format json --binaries {here}/nodes");
        let output = ssh.trace(&line);
        assert!(output.status.success(), "{from}{}", text(&output.stderr));
        assert_eq!(int(&json(&output.stdout), "blocks/received"), 5);
        assert_eq!(ssh.left(), 0);
    }
}
