//! `--bind` and `--dscp` on real packets: two hosts (network namespaces) with two uplinks between
//! them, tcpdump and ss beside them. It needs root.

mod util;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use util::{need, program, text, Process};

/// A namespace, deleted with its interfaces when it is dropped.
struct Host(String);

impl Host {
    fn new(name: &str) -> Self {
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        ip(&format!("netns add {name}"));
        let host = Self(name);
        host.ip("link set lo up");
        // ECN on, so that its bits are seen to stay the kernel's.
        host.run("sysctl", "-qw net.ipv4.tcp_ecn=1");
        host
    }

    fn ip(&self, line: &str) {
        ip(&format!("-n {} {line}", self.0));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(need("ip"));
        command.args(["netns", "exec", &self.0]).arg(need(program));
        command
    }

    #[track_caller]
    fn run(&self, program: &str, line: &str) -> String {
        good(self.command(program).args(line.split(' ')))
    }

    /// The program under test.
    fn own(&self, line: &str) -> Command {
        let mut command = Command::new(need("ip"));
        command.args(["netns", "exec", &self.0]);
        command.arg(program().get_program());
        command.args(line.split(' ')).stdin(Stdio::null());
        command
    }

    /// The packets of `interface`, a line or two each on its stderr.
    fn tcpdump(&self, interface: &str) -> Process {
        let line = format!(
            "exec {} -i {interface} -nn -v -l tcp 1>&2",
            need("tcpdump").display()
        );
        let mut tcpdump = Process::start(self.command("sh").args(["-c", &line]));
        tcpdump.wait_line("listening on");
        tcpdump
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[track_caller]
fn good(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    text(&output.stdout)
}

#[track_caller]
fn ip(line: &str) {
    good(Command::new(need("ip")).args(line.split(' ')));
}

/// A client and a server; `up1` is the route that is preferred, `up2` the other.
fn two_uplinks() -> (Host, Host) {
    let (client, server) = (Host::new("uplinks-c"), Host::new("uplinks-s"));
    for at in [1, 2] {
        let (near, far) = (&client.0, &server.0);
        ip(&format!(
            "link add up{at} netns {near} type veth peer name up{at} netns {far}"
        ));
        for (host, own) in [(&client, 1), (&server, 2)] {
            host.ip(&format!("addr add 10.71.{at}.{own}/24 dev up{at}"));
            host.ip(&format!("addr add fd71:{at}::{own}/64 dev up{at} nodad"));
            host.ip(&format!("link set up{at} up"));
        }
        client.ip(&format!(
            "route add 10.71.9.9 via 10.71.{at}.2 dev up{at} metric {at}"
        ));
        client.ip(&format!(
            "-6 route add fd71:9::9 via fd71:{at}::2 dev up{at} metric {at}"
        ));
    }
    server.ip("addr add 10.71.9.9/32 dev lo");
    server.ip("addr add fd71:9::9/128 dev lo nodad");
    (client, server)
}

#[test]
fn connects_leave_by_the_bound_uplink_and_packets_carry_their_dscp_both_ways() {
    let (client, server) = two_uplinks();
    let mut echo = Process::start(
        server
            .own("--node Z -l :9000 --dscp AF41")
            .stdout(Stdio::null()),
    );
    echo.address();
    for (address, own, word) in [
        ("10.71.9.9", "10.71.2.1", "tos"),
        ("[fd71:9::9]", "fd71:2::1", "class"),
    ] {
        let mut wire = server.tcpdump("up2");
        let probe = format!("--node A probe {address}:9000 -c 3 -i 0.01 --bind up2 --dscp EF");
        let report = good(&mut client.own(&probe));
        let setting = "connects leave from up2; packets are sent with DSCP EF (46)";
        assert!(report.contains(setting), "{report}");
        assert!(
            report.contains("100 %") || report.contains(" 3 "),
            "{report}"
        );
        // The SYN and its answer; then data, on which ECT(0) is the kernel's own.
        for mark in ["0xb8", "0x88", "0xba", "0x8a"] {
            wire.wait_line(&format!("{word} {mark}"));
        }
        let seen = wire.stderr().join("\n");
        assert!(seen.contains(&format!("{own}.")), "{seen}");
        assert!(
            !seen.contains("10.71.1.") && !seen.contains("fd71:1:"),
            "{seen}"
        );
    }
    // Without it the route decides; with an address the packets have that source.
    let mut wire = server.tcpdump("up1");
    good(&mut client.own("probe 10.71.9.9:9000 -c 1"));
    wire.wait_line("10.71.1.1.");
    good(&mut client.own("probe 10.71.9.9:9000 -c 1 --bind 10.71.2.1"));
    wire.wait_line("10.71.2.1.");
}

#[test]
fn an_uplink_that_goes_away_is_named_and_used_again_when_it_is_back() {
    let (client, server) = two_uplinks();
    let mut echo = Process::start(server.own("--node Z -l :9000").stdout(Stdio::null()));
    echo.address();
    let options = "--bind up2 --dscp 46 --metrics-listen 127.0.0.1:9101";
    let probe = format!("probe 10.71.9.9:9000 -c 0 -i 0.05 -t 1 {options}");
    let mut probe = Process::start(client.own(&probe).stdout(Stdio::null()));
    probe.wait_line("9101");
    // Established: the gauge of the path turns.
    let up = || {
        let mut curl = client.command("curl");
        good(curl.args(["-s", "--noproxy", "*", "127.0.0.1:9101/metrics"]))
    };
    let until = |value: &str| {
        while !up()
            .lines()
            .any(|line| line.starts_with("subsegment_path_up") && line.ends_with(value))
        {}
    };
    until(" 1");
    let sockets = client.run("ss", "-tiOn --tos state established dport = :9000");
    assert!(sockets.contains("10.71.2.1%up2:"), "{sockets}");
    // EF, and ECT(0) from the kernel once it has sent data.
    let marks = ["tos:0xb8", "tos:0xba"];
    assert!(marks.iter().any(|tos| sockets.contains(tos)), "{sockets}");
    client.ip("link del up2");
    probe.wait_line("--bind up2: No such device");
    ip(&format!(
        "link add up2 netns {} type veth peer name up2 netns {}",
        client.0, server.0
    ));
    for (host, own) in [(&client, 1), (&server, 2)] {
        host.ip(&format!("addr add 10.71.2.{own}/24 dev up2"));
        host.ip("link set up2 up");
    }
    client.ip("route add 10.71.9.9 via 10.71.2.2 dev up2 metric 2");
    until(" 1");
    probe.stop();
}

#[test]
fn an_interface_that_is_not_there_is_an_error_at_the_start() {
    let output = util::run(&["probe", "127.0.0.1:9", "--bind", "no-such-if", "-c", "1"]);
    assert_eq!(output.status.code(), Some(3));
    let error = text(&output.stderr);
    assert!(
        error.contains("--bind no-such-if: No such device"),
        "{error}"
    );
    let output = util::run(&["-l", ":0", "-f", "b:1", "--bind", "192.0.2.77"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("this host has no such address"), "{error}");
}

#[test]
fn a_kernel_that_refuses_the_dscp_is_named_with_the_option_its_value_and_the_remedy() {
    let refused = "--dscp EF (46): Operation not permitted (os error 1): a filter of this host \
                   (seccomp, eBPF) refuses it";
    let run = |call: &str, args: &[&str]| {
        let mut command = Command::new(need("strace"));
        command.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=setsockopt",
            "-e",
        ]);
        command.arg(format!("inject=setsockopt:error=EPERM:when={call}"));
        command.arg(program().get_program()).args(args);
        command
    };
    // The first call marks the socket that tests the option at the start.
    let dscp = ["--dscp", "EF"];
    for (args, status) in [
        (["probe", "127.0.0.1:9", "-c", "1"], 3),
        (["-l", ":0", "-t", "1"], 1),
    ] {
        let output = run("1", &[&args[..], &dscp].concat()).output().unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{error}");
        assert!(error.contains(refused), "{error}");
        assert!(error.contains("or leave --dscp out"), "{error}");
    }
}
