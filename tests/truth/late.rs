//! A host whose process reads late what its kernel has, and a network that is as late: the kernel's
//! receive times separate them.

use crate::support::{alone, half_disturbed, judged, ms, repeats, undisturbed_by, Chain, Report};
use crate::util::need;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Spaced so that no two blocks meet in the socket of a process that is held for 30 ms; some 30 of
/// them in each of 16 batches, three of which are late.
const PLAN: (u64, Duration) = (720, ms(33));

/// A run in which a wake-up is as late as half of what is looked for, more often than twice in a
/// thousand, is not judged: two of the 30 blocks of a batch that something else delays are its p95.
const CALM: (usize, Duration) = (998, ms(15));

/// Holds a process for 30 ms in every 300 ms; what ends it is that its input ends.
const STOPPER: &str = "
    read -r go || exit
    while :; do
        kill -STOP $1; read -r -t 0.03; ended=$?; kill -CONT $1
        [ $ended -gt 128 ] || exit
        read -r -t 0.27
        [ $? -gt 128 ] || exit
    done";

struct Stopper(Child);

impl Stopper {
    /// It waits for [begin](Self::begin).
    fn of(pid: u32) -> Self {
        let mut command = Command::new(need("bash"));
        command.args(["-c", STOPPER, "stopper", &pid.to_string()]);
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    fn begin(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait(); // It has let the process go then.
    }
}

/// Judges the verdicts of `repeats` undisturbed runs; all have to be right.
fn all_right(name: &str, run: impl Fn() -> Report, right: impl Fn(&Report) -> bool) -> Option<()> {
    let count = repeats(1);
    let mut wrong = Vec::new();
    for round in 1..=count {
        let forget = |report: Report| eprintln!("forgotten: {}", report.text("verdict/text"));
        let report = undisturbed_by(CALM, &run, forget)?;
        let said = report.text("verdict/text").to_owned();
        let is_right = right(&report) && report.text("verdict/figure") == "mean";
        eprintln!(
            "{name}: {round} of {count}: {}: {said}",
            if is_right { "right" } else { "wrong" }
        );
        if !is_right {
            wrong.push(format!("{said} ({})", report.text("verdict/reason")));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} are wrong: {wrong:#?}",
        wrong.len()
    );
    Some(())
}

#[test]
fn a_node_that_is_held_30_ms_in_300_is_named_as_a_host_that_reads_late() {
    judged(|| {
        let _alone = alone();
        all_right(
            "held",
            || {
                let chain = Chain::start(ms(1));
                let mut stopper = Stopper::of(chain.pid(2));
                half_disturbed(&chain, PLAN, || stopper.begin())
            },
            |report| {
                let says = report
                    .text("verdict/text")
                    .starts_with("host C reads late: ");
                says && report.text("verdict/kind") == "host" && report.int("verdict/index") == 2
            },
        )
    });
}

#[test]
fn a_link_that_holds_one_block_in_ten_for_30_ms_is_named_as_a_segment() {
    judged(|| {
        let _alone = alone();
        all_right(
            "link",
            || {
                let chain = Chain::start(ms(1));
                let way = &chain.links[1].forward;
                half_disturbed(&chain, PLAN, || way.set_spikes(10, ms(30)))
            },
            |report| report.text("verdict/kind") == "segment" && report.int("verdict/index") == 1,
        )
    });
}

/// Loops that do nothing but keep a processor busy.
struct Spinners(Vec<Child>);

impl Spinners {
    fn start(count: usize, processor: &str) -> Self {
        let one = |_| {
            let mut command = Command::new(need("taskset"));
            command.args(["-c", processor, "sh", "-c", "while :; do :; done"]);
            command.spawn().unwrap()
        };
        Self((0..count).map(one).collect())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_node_that_shares_its_processor_with_eight_busy_loops_is_seen_to_read_late() {
    let _alone = alone();
    let chain = Chain::start(ms(1));
    let pid = chain.pid(2).to_string();
    let pinned = Command::new(need("taskset"))
        .args(["-a", "-p", "-c", "0", &pid])
        .stdout(Stdio::null())
        .status();
    assert!(pinned.unwrap().success());
    let late = |report: &Report| report.int("hosts/2/forward_wake_up/p95_ns");
    let run = || chain.probe(&["-c", "500", "-i", "0.01"]);
    let quiet = run();
    let spinners = Spinners::start(8, "0");
    let busy = run();
    drop(spinners);
    eprintln!(
        "p95 of C's wake-up delay: {} ns, with eight spinners {} ns",
        late(&quiet),
        late(&busy)
    );
    assert!(
        late(&busy) > late(&quiet) + 500_000,
        "{} {}",
        late(&quiet),
        late(&busy)
    );
}
