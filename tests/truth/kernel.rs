//! The kernel as an independent witness: two network namespaces, a queue that the kernel drains at
//! a set rate between them, and what `ping` measures of it.
//!
//! The delay is a token bucket's and not netem's: kernels of small virtual machines lack netem, and
//! none of the delay is made by code of ours either way. A block of 12000 bytes then takes
//! milliseconds, a `ping` of as many bytes too.

use crate::support::{alone, judged, lines_from, median, undisturbed};
use crate::util::{need, program, text, Node};
use std::process::Command;

/// Two namespaces with a veth pair between them, gone at the end.
struct Namespaces([String; 2]);

const ADDRESSES: [&str; 2] = ["10.213.77.1", "10.213.77.2"];
/// 12000 bytes take 4.8 ms.
const RATE: &str = "20mbit";
/// Fewer bytes than the first ten TCP segments: nothing waits for an acknowledgement.
const PAYLOAD: u32 = 12_000;
/// What carries the payload, per packet of 1500 bytes: Ethernet, IPv4 and TCP with timestamps; then
/// what a block has on its way from the second node: a header and two stamps. An echo request has
/// Ethernet and IPv4 per fragment, and 8 bytes.
const TCP_BYTES: u32 = PAYLOAD + 48 + 2 * 40;
const PING_PAYLOAD: u32 = TCP_BYTES + TCP_BYTES.div_ceil(1448) * (14 + 20 + 32) - 8 - 9 * (14 + 20);

#[track_caller]
fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}\nneeds root, network namespaces, veth and the kernel's tbf queue",
        text(&output.stderr)
    );
    text(&output.stdout)
}

impl Namespaces {
    #[track_caller]
    fn new() -> Self {
        for program in ["ip", "tc", "ping"] {
            need(program);
        }
        let pid = std::process::id();
        let this = Self(["a", "b"].map(|end| format!("sts-{pid}-{end}")));
        let [a, b] = &this.0;
        sh(&format!("ip netns add {a} && ip netns add {b}"));
        sh(&format!(
            "ip link add v0 netns {a} type veth peer name v0 netns {b}"
        ));
        for (name, address) in this.0.iter().zip(ADDRESSES) {
            sh(&format!("ip -n {name} addr add {address}/24 dev v0"));
            sh(&format!(
                "ip -n {name} link set v0 up && ip -n {name} link set lo up"
            ));
        }
        this
    }

    fn tc(&self, words: &str) {
        sh(&format!("ip netns exec {} tc qdisc {words}", self.0[0]));
    }

    /// The binary, to be run in a namespace.
    fn program(&self, end: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0[end]]);
        command.arg(program().get_program());
        command
    }

    /// A node in a namespace, listening at its address.
    #[track_caller]
    fn node(&self, name: &str, end: usize, args: &[&str]) -> Node {
        let listen = format!("{}:0", ADDRESSES[end]);
        let mut command = self.program(end);
        Node::start_command(command.args(["--node", name, "-l", &listen]).args(args))
    }

    /// The median round trip of `ping` from the first to the second, in nanoseconds.
    fn ping(&self) -> i64 {
        let [a, _] = &self.0;
        let said = sh(&format!(
            "ip netns exec {a} ping -n -c 100 -i 0.02 -s {PING_PAYLOAD} {}",
            ADDRESSES[1]
        ));
        let times = said.lines().filter_map(|line| line.split("time=").nth(1));
        let times = times.map(|rest| {
            let millis: f64 = rest.split(' ').next().unwrap().parse().unwrap();
            (millis * 1e6) as i64
        });
        let times: Vec<_> = times.collect();
        assert_eq!(times.len(), 100, "{said}");
        median(times)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

#[test]
fn a_delay_made_by_the_kernel_is_what_ping_says_it_is() {
    judged(|| {
        let _alone = alone();
        let spaces = Namespaces::new();
        let z = spaces.node("Z", 1, &[]);
        let b = spaces.node("B", 0, &["-f", &z.address.to_string()]);
        let entry = b.address.to_string();
        let segment = || {
            let mut command = spaces.program(0);
            let size = PAYLOAD.to_string();
            let plan = ["-c", "100", "-i", "0.02", "-s", &size];
            lines_from(command.args(["probe", &entry]).args(plan)).medians()[1]
        };
        let mut apart = Vec::new();
        let mut grown = Vec::new();
        for _ in 0..3 {
            let both = || undisturbed(|| (segment(), spaces.ping()), drop);
            let (before, ping_before) = both()?;
            spaces.tc(&format!(
                "add dev v0 root tbf rate {RATE} burst 1600 limit 1m"
            ));
            let (after, ping_after) = both()?;
            spaces.tc("del dev v0 root");
            eprintln!("B -> Z {before} to {after} ns, ping {ping_before} to {ping_after} ns");
            apart.push(after - ping_after);
            grown.push(after - before);
        }
        let (apart, grown) = (median(apart), median(grown));
        assert!(grown > 4_000_000, "the queue holds nothing: +{grown} ns");
        assert!(apart.abs() <= 300_000, "{apart} ns apart");
        Some(())
    });
}
