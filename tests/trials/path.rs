//! A path of network namespaces with this process as the wire of every segment: each direction
//! delays and drops frames by rules that may change at any time.
//!
//! ```text
//! namespace 0        this process        namespace 1        this process        namespace 2
//!   node A ─ veth ─ delay, drop ─ veth ─ node B ─ veth ─ delay, drop ─ veth ─ node C ...
//! ```

use crate::lab::{complete_checksum, run};
use crossbeam_channel::{after, unbounded, Receiver, Sender};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::sys::packet::PacketSocket;

/// A wire that is as late as this shows that the machine did not run its thread.
const STALL: Duration = Duration::from_millis(5);

fn stalls() -> &'static Mutex<Vec<Instant>> {
    static STALLS: Mutex<Vec<Instant>> = Mutex::new(Vec::new());
    &STALLS
}

/// How often a wire of any path was late since `began`: what is measured meanwhile is the machine.
pub(crate) fn stalls_since(began: Instant) -> usize {
    let stalls = stalls().lock().unwrap();
    stalls.iter().filter(|at| **at >= began).count()
}

/// The rule of one direction of one segment.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    delay_us: AtomicU32,
    loss_per_mille: AtomicU32,
    detour: Mutex<Detour>,
}

/// The slower link of a bundle, which takes one connection: the frames of one TCP source port.
#[derive(Debug, Default)]
struct Detour {
    delay: Duration,
    /// Which connection that begins takes it, from 1; 0 for none.
    connection: usize,
    /// Source ports of the connections that began.
    ports: Vec<u16>,
}

impl Detour {
    /// Returns how much later than others a TCP frame comes.
    fn delay(&mut self, port: u16, flags: u8) -> Duration {
        if flags & SYN_ACK == SYN && !self.ports.contains(&port) {
            self.ports.push(port);
        }
        let chosen = self.connection.checked_sub(1);
        let taken = chosen.and_then(|at| self.ports.get(at)) == Some(&port);
        if taken {
            self.delay
        } else {
            Duration::ZERO
        }
    }
}

const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;

impl Rule {
    /// The delay of frames that arrive from now on, and no loss.
    fn set(&self, delay: Duration) {
        self.delay_us
            .store(delay.as_micros() as u32, Ordering::Relaxed);
        self.set_loss_per_mille(0);
        self.set_detour(0, Duration::ZERO);
    }

    /// Delays the frames of one connection more than others, by its TCP source port: of the one
    /// that begins as number `connection` from now on, from 1.
    pub(crate) fn set_detour(&self, connection: usize, delay: Duration) {
        *self.detour.lock().unwrap() = Detour {
            delay,
            connection,
            ports: Vec::new(),
        };
    }

    /// Adds to the delay of frames that arrive from now on; none overtakes another.
    pub(crate) fn add_delay(&self, delay: Duration) {
        self.delay_us
            .fetch_add(delay.as_micros() as u32, Ordering::Relaxed);
    }

    /// Takes back what [`Rule::add_delay`] added.
    pub(crate) fn take_delay(&self, delay: Duration) {
        self.delay_us
            .fetch_sub(delay.as_micros() as u32, Ordering::Relaxed);
    }

    /// Drops this share of the frames, by chance.
    pub(crate) fn set_loss_per_mille(&self, share: u32) {
        self.loss_per_mille.store(share, Ordering::Relaxed);
    }
}

/// A path of a trial's own. A later trial gets the same namespaces: making and removing them holds
/// up the packets of every other path.
pub(crate) struct TestPath(Option<Namespaces>);

static UNUSED: Mutex<Vec<Namespaces>> = Mutex::new(Vec::new());

/// Removes all paths that no trial uses.
pub(crate) fn take_down() {
    UNUSED.lock().unwrap().clear();
}

impl TestPath {
    /// A path with a segment per entry: its one-way delay forward and back.
    pub(crate) fn new(delays: &[[Duration; 2]]) -> Self {
        let mut unused = UNUSED.lock().unwrap();
        let found = unused
            .iter()
            .position(|path| path.rules.len() == delays.len());
        let found = found.map(|place| unused.swap_remove(place));
        drop(unused);
        let path = found.unwrap_or_else(|| Namespaces::new(delays.len()));
        for (rules, delays) in path.rules.iter().zip(delays) {
            for (rule, delay) in rules.iter().zip(delays) {
                rule.set(*delay);
            }
        }
        Self(Some(path))
    }
}

impl std::ops::Deref for TestPath {
    type Target = Namespaces;

    fn deref(&self) -> &Namespaces {
        self.0.as_ref().expect("there until dropped")
    }
}

impl Drop for TestPath {
    fn drop(&mut self) {
        UNUSED.lock().unwrap().extend(self.0.take());
    }
}

/// Namespaces in a row; taken down when dropped.
pub(crate) struct Namespaces {
    name: String,
    nodes: usize,
    /// Forward and return, per segment.
    rules: Vec<[Arc<Rule>; 2]>,
    wires: Vec<JoinHandle<()>>,
}

static PATHS: AtomicU32 = AtomicU32::new(0);

impl Namespaces {
    fn new(segments: usize) -> Self {
        let number = PATHS.fetch_add(1, Ordering::Relaxed);
        let mut path = Self {
            name: format!("w{}p{number}", std::process::id() % 100_000),
            nodes: segments + 1,
            rules: Vec::new(),
            wires: Vec::new(),
        };
        for node in 0..path.nodes {
            ip(&format!("netns add {}", path.space(node)));
            ip(&format!("-n {} link set lo up", path.space(node)));
        }
        for segment in 0..segments {
            let sockets = [(segment, 1), (segment + 1, 2)].map(|(node, side)| {
                let (inner, outer) = (
                    format!("{}s{segment}i{side}", path.name),
                    path.outer(segment, side),
                );
                let space = path.space(node);
                ip(&format!("link add {inner} type veth peer name {outer}"));
                ip(&format!("link set {inner} gso_max_segs 1"));
                ip(&format!("link set {inner} netns {space}"));
                ip(&format!(
                    "-n {space} addr add 10.78.{segment}.{side}/24 dev {inner}"
                ));
                ip(&format!("-n {space} link set {inner} up"));
                let disable = format!("/proc/sys/net/ipv6/conf/{outer}/disable_ipv6");
                let _ = std::fs::write(disable, "1");
                ip(&format!("link set {outer} arp off up"));
                Arc::new(PacketSocket::open(Some(&outer), &[]).unwrap())
            });
            let [near, far] = sockets;
            let rules = [(); 2].map(|()| Arc::new(Rule::default()));
            for (from, to, rule) in [(&near, &far, &rules[0]), (&far, &near, &rules[1])] {
                let seed = u64::from(number) << 16 | path.wires.len() as u64;
                let (from, to, rule) = (Arc::clone(from), Arc::clone(to), Arc::clone(rule));
                let links = [(); 2].map(|()| {
                    let (sender, receiver) = unbounded();
                    let to = Arc::clone(&to);
                    path.wires
                        .push(thread::spawn(move || hand_on(&to, &receiver)));
                    sender
                });
                path.wires
                    .push(thread::spawn(move || take(&from, &rule, seed, &links)));
            }
            path.rules.push(rules);
        }
        path
    }

    pub(crate) fn space(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    fn outer(&self, segment: usize, side: usize) -> String {
        format!("{}s{segment}o{side}", self.name)
    }

    /// The rule of a segment's forward direction.
    pub(crate) fn forward(&self, segment: usize) -> &Rule {
        &self.rules[segment][0]
    }

    /// The rule of a segment's return direction.
    pub(crate) fn back(&self, segment: usize) -> &Rule {
        &self.rules[segment][1]
    }

    /// Where `node` listens, seen from the node before it.
    pub(crate) fn address(&self, node: usize) -> String {
        format!("10.78.{}.2:9000", node - 1)
    }

    /// A command line that is run at `node`.
    pub(crate) fn command(&self, node: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(node), program]);
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for segment in 0..self.rules.len() {
            for side in [1, 2] {
                // Removing a pair ends the wires' reads.
                let _ = Command::new("ip")
                    .args(["link", "del", &self.outer(segment, side)])
                    .status();
            }
        }
        for node in 0..self.nodes {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.space(node)])
                .status();
        }
        for wire in self.wires.drain(..) {
            let _ = wire.join();
        }
    }
}

fn ip(line: &str) {
    run("ip", &line.split(' ').collect::<Vec<_>>());
}

/// Takes frames to the usual link, or to the second one if they make a detour.
fn take(from: &PacketSocket, rule: &Rule, seed: u64, links: &[Sender<(Instant, Vec<u8>)>; 2]) {
    let mut buffer = vec![0; 65_536];
    let mut random = crate::random::Random::new(seed);
    let mut last = [Instant::now(); 2];
    while let Ok(received) = from.receive(&mut buffer) {
        let now = Instant::now();
        if received.outgoing {
            continue;
        }
        let mut frame = buffer[..received.kept].to_vec();
        let tcp = complete_checksum(&mut frame);
        let loss = rule.loss_per_mille.load(Ordering::Relaxed) as usize;
        if tcp.is_some() && random.below(1000) < loss {
            continue;
        }
        let more = tcp.map_or(Duration::ZERO, |(flags, _)| {
            let at = 14 + usize::from(frame[14] & 15) * 4; // All paths are IPv4.
            let port = u16::from_be_bytes([frame[at], frame[at + 1]]);
            rule.detour.lock().unwrap().delay(port, flags)
        });
        let link = usize::from(!more.is_zero());
        let delay = Duration::from_micros(rule.delay_us.load(Ordering::Relaxed).into()) + more;
        last[link] = last[link].max(now + delay);
        if links[link].send((last[link], frame)).is_err() {
            return;
        }
    }
}

fn hand_on(to: &PacketSocket, receiver: &Receiver<(Instant, Vec<u8>)>) {
    let Ok(fd) = to.as_fd().try_clone_to_owned() else {
        return;
    };
    let mut file = File::from(fd);
    for (due, frame) in receiver {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let _ = after(left).recv();
        }
        let now = Instant::now();
        if now.saturating_duration_since(due) > STALL {
            stalls().lock().unwrap().push(now);
        }
        // A pair that is being removed refuses; nothing receives from it then.
        let _ = file.write_all(&frame);
    }
}
