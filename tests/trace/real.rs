//! Real ssh servers in namespaces.

use crate::hosts::{Hosts, Kind};
use crate::util::json::Value;
use crate::util::{int, json, text, Process};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

const CLEAN: Duration = Duration::from_secs(15);

#[test]
fn two_hosts_over_real_ssh_are_measured_and_nothing_is_left() {
    let hosts = Hosts::new(&[Kind::OpenSsh, Kind::Shell("/usr/bin/fish")]);
    let before = [1, 2].map(|node| hosts.contents(node));
    // More than a busy machine adds to any other part.
    hosts.path.forward(1).add_delay(Duration::from_millis(40));
    let output = hosts.trace("-c 40 -i 0.02 --format json").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!(int(&report, "blocks/received"), 40);
    let largest = report.at("largest/name").and_then(Value::as_str);
    assert_eq!(largest, Some("h1 -> h2"));
    for node in [1, 2] {
        // The watcher's last nap may outlive its shell.
        hosts.await_clean(node, &before[node - 1], Duration::from_secs(2));
    }
    // The same segment by a probe at the first host.
    let address = hosts.path.address(2);
    let address = address.split(':').next().unwrap();
    let mut command = hosts.local("-c 40 -i 0.02 --format json");
    command.args(["--from", "h1", &format!("h2={address}")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!(int(&report, "blocks/received"), 40);
    let largest = report.at("largest/name").and_then(Value::as_str);
    assert_eq!(largest, Some("h1 -> h2"));
    for node in [1, 2] {
        hosts.await_clean(node, &before[node - 1], Duration::from_secs(2));
    }
    // Nothing passes between the hosts: each end is named.
    hosts.path.forward(1).set_loss_per_mille(1000);
    let output = hosts.trace("-c 5 --timeout 2").output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    for part in [
        "trace: h2 cannot be reached from h1 at 10.78.1.2:",
        "timed out",
        "use --ports",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
    for node in [1, 2] {
        hosts.await_clean(node, &before[node - 1], CLEAN);
    }
    // The look, the copy and the run are one login.
    let logins = hosts.logins(2);
    let output = hosts.trace("-c 1 --timeout 2").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(hosts.logins(2), logins + 1);
    // The same hosts with addresses of IPv6 alone.
    hosts.become_ipv6_only();
    let mut command = hosts.local("-c 5 -i 0.01 --format json");
    let output = command.args(["h1", "h2"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!(int(&report, "blocks/received"), 5);
    let address = report.at("path/nodes/2/address").and_then(Value::as_str);
    assert!(address.unwrap().starts_with("[fd79::3]:"), "{address:?}");
    for node in [1, 2] {
        hosts.await_clean(node, &before[node - 1], CLEAN);
    }
    drop(hosts);
    crate::path::take_down();
}

/// Returns the median of five.
fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    let mut times = [(); 5].map(|()| measure());
    times.sort();
    times[2]
}

/// The trials: see `scripts/trials`.
#[test]
fn the_trials_of_trace_are_right() {
    match std::env::var("STS_TRACE").as_deref() {
        Ok("foreign") => return foreign(),
        Ok(_) => {}
        Err(_) => return,
    }
    let kinds = [
        Kind::OpenSsh,
        Kind::Dropbear,
        Kind::Shell("/usr/bin/tcsh"),
        Kind::Shell("/usr/bin/fish"),
    ];
    let hosts = Hosts::new(&kinds);
    let nodes = 1..=kinds.len();
    let before: Vec<_> = nodes.clone().map(|node| hosts.contents(node)).collect();
    let await_clean = |within| {
        for node in nodes.clone() {
            hosts.await_clean(node, &before[node - 1], within);
        }
    };
    let mut right = 0;
    let names = ["", "h1", "h2", "h3", "h4"];
    for trial in 0..20 {
        let segment = trial % kinds.len();
        hosts
            .path
            .forward(segment)
            .add_delay(Duration::from_millis(4));
        let output = hosts.trace("-c 50 -i 0.02 --format json").output().unwrap();
        hosts
            .path
            .forward(segment)
            .take_delay(Duration::from_millis(4));
        let report = json(&output.stdout);
        let largest = report.at("largest/name").and_then(Value::as_str);
        let largest = largest.unwrap_or_default();
        let is_right = largest.ends_with(&format!(" -> {}", names[segment + 1]));
        right += usize::from(is_right);
        await_clean(Duration::from_secs(2));
        let before = if segment == 0 { "here" } else { names[segment] };
        println!(
            "TRACE trial {}: slowed {before} -> {}, named {largest}{}",
            trial + 1,
            names[segment + 1],
            if is_right { "" } else { ": wrong" }
        );
        if !is_right {
            println!("TRACE {}{}", text(&output.stdout), text(&output.stderr));
        }
    }
    println!("TRACE slowed segment named: {right} of 20; no file and no process left after each");

    for node in nodes.clone() {
        let took = median(|| {
            let began = Instant::now();
            assert!(hosts.ssh(node, "true").status().unwrap().success());
            began.elapsed()
        });
        println!("TRACE ssh h{node} true: median {} ms", took.as_millis());
    }
    let took = median(|| {
        let began = Instant::now();
        let output = hosts.trace("-c 1").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        began.elapsed()
    });
    println!(
        "TRACE trace of 4 hosts, one block: median {} ms",
        took.as_millis()
    );

    let start = || {
        let mut command = hosts.trace("-c 0 -v --format jsonl");
        let mut trace = Process::start(command.stdout(Stdio::piped()));
        // The first block has returned.
        let mut stdout = trace.child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 1]).unwrap();
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        trace
    };
    // `ip netns exec` has become the program.
    for signal in ["KILL", "INT"] {
        let mut trace = start();
        trace.signal(signal);
        let began = Instant::now();
        let _ = trace.child.wait();
        await_clean(CLEAN);
        println!(
            "TRACE SIG{signal}: nothing left after {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }
    let mut trace = start();
    let children = format!("/proc/{0}/task/{0}/children", trace.child.id());
    let children = std::fs::read_to_string(children).unwrap();
    let child = children.split_whitespace().nth(1).unwrap();
    crate::lab::run("kill", &["-KILL", child]);
    let began = Instant::now();
    let status = trace.child.wait().unwrap();
    assert_eq!(status.code(), Some(3));
    trace.wait_line("lost in the middle of the run");
    await_clean(CLEAN);
    println!(
        "TRACE an ssh killed: nothing left after {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let mut trace = start();
    let link = hosts.link(2);
    crate::lab::run("ip", &["link", "set", &link, "down"]);
    let cut = Instant::now();
    let status = trace.child.wait().unwrap();
    let ended = cut.elapsed().as_secs_f64();
    await_clean(
        CLEAN
            .saturating_sub(cut.elapsed())
            .max(Duration::from_secs(1)),
    );
    let clean = cut.elapsed().as_secs_f64();
    let left = Duration::from_secs(30).saturating_sub(cut.elapsed());
    let _ = crossbeam_channel::after(left).recv();
    crate::lab::run("ip", &["link", "set", &link, "up"]);
    await_clean(CLEAN);
    assert!(clean < CLEAN.as_secs_f64(), "{clean:.1} s");
    println!(
        "TRACE link of h2 cut: nothing left after {clean:.1} s; trace ended after \
         {ended:.1} s, {status}"
    );
    drop(hosts);
    crate::path::take_down();
    foreign();
    assert_eq!(right, 20);
}

/// A host that is an ARMv7, with the static binaries of `STS_BINARIES` under qemu.
fn foreign() {
    let Some(binaries) = std::env::var_os("STS_BINARIES").map(std::path::PathBuf::from) else {
        println!("TRACE a foreign machine needs STS_BINARIES: not tried");
        return;
    };
    let machine = "armv7l";
    let hosts = Hosts::new(&[Kind::OpenSsh, Kind::Machine(machine)]);
    let before = [1, 2].map(|node| hosts.contents(node));
    for target in ["armv7", "armv5te"] {
        let real = binaries.join(target).join("subsegment-tcp-speeds");
        if !real.exists() {
            println!("TRACE {target}: not built, not tried");
            continue;
        }
        // The kernel of the tests may know no foreign formats: the copy is a line that starts qemu.
        let dir = crate::util::Dir::new(&format!("trace-foreign-{target}"));
        let copy = dir.file(target).join("subsegment-tcp-speeds");
        std::fs::create_dir(dir.file(target)).unwrap();
        let qemu = crate::util::need("qemu-arm-static");
        let line = format!(
            "#!/bin/sh\nexec {} {} \"$@\"\n",
            qemu.display(),
            real.display()
        );
        std::fs::write(&copy, line).unwrap();
        let options = format!(
            "-c 20 -i 0.05 --format json -v --binaries {}",
            dir.0.display()
        );
        let output = hosts.trace(&options).output().unwrap();
        let errors = text(&output.stderr);
        assert!(output.status.success(), "{target}: {errors}");
        let report = json(&output.stdout);
        let received = int(&report, "blocks/received");
        println!("TRACE a host that says {machine} runs {target}: {received} of 20 blocks");
        assert_eq!(received, 20, "{errors}");
        for node in [1, 2] {
            hosts.await_clean(node, &before[node - 1], CLEAN);
        }
    }
    drop(hosts);
    crate::path::take_down();
}
