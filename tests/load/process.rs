//! The proxies: their figures in procfs, and their start.

use super::Outcome;
use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a proxy may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);

/// CPU time of the processes and all their descendants, also of dead ones that were waited for.
///
/// The sum of `utime`, `stime`, `cutime` and `cstime` in proc(5) counts ticks of 10 ms; where every
/// thread of the trees has a schedstat, the nanoseconds there are taken for the living.
pub(super) fn cpu(roots: &[u32]) -> Result<Duration, Box<dyn Error>> {
    let mut ticks = 0;
    let mut nanos = 0;
    let mut waited_ticks = 0;
    let mut exact = true;
    for pid in trees(roots)? {
        // A descendant may be gone by now; its time is then in its parent's next sample.
        let Ok(stat) = Stat::read(pid) else { continue };
        ticks += stat.own_ticks;
        waited_ticks += stat.waited_ticks;
        match on_cpu_nanos(pid) {
            Some(own) => nanos += own,
            None => exact = false,
        }
    }
    // USER_HZ is 100 wherever Linux shows it to programs.
    let own = if exact {
        Duration::from_nanos(nanos)
    } else {
        Duration::from_millis(ticks * 10)
    };
    Ok(own + Duration::from_millis(waited_ticks * 10))
}

/// Time on a CPU of the process's threads that are alive.
fn on_cpu_nanos(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else {
            return None;
        };
        sum += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

/// Proportional set size of the processes and all their descendants, in KiB. Kernel memory
/// (sockets, threads) is not in it.
pub(super) fn memory_kib(roots: &[u32]) -> Result<u64, Box<dyn Error>> {
    let mut sum = 0;
    for pid in trees(roots)? {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let pss = pss.and_then(|rest| rest.split_whitespace().next());
        sum += pss.ok_or("smaps_rollup has no Pss")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// What we need of /proc/PID/stat.
struct Stat {
    parent: u32,
    own_ticks: u64,
    waited_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; the third field follows its last one.
        let (_, rest) = text.rsplit_once(") ").ok_or("stat has no name")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |field: usize| -> Result<u64, Box<dyn Error>> {
            Ok(fields.get(field - 3).ok_or("stat is short")?.parse()?)
        };
        Ok(Self {
            parent: number(4)? as u32,
            own_ticks: number(14)? + number(15)?,
            waited_ticks: number(16)? + number(17)?,
        })
    }
}

/// The processes with all their descendants: socat forks one per connection.
fn trees(roots: &[u32]) -> Result<Vec<u32>, Box<dyn Error>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            if let Ok(stat) = Stat::read(pid) {
                parents.push((pid, stat.parent));
            }
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| pid),
        );
        next += 1;
    }
    Ok(found)
}

/// Returns when `addr` takes connections.
pub(super) fn wait_for(addr: SocketAddr, pid: u32) -> Outcome {
    listening_after(addr, || Ok(Stat::read(pid).is_ok())).map(drop)
}

/// Starts a program, prints after how many milliseconds it listens, and ends it.
pub(super) fn start(addr: SocketAddr, command: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(command);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let listening = listening_after(addr, || Ok(child.try_wait()?.is_none()));
    let span = listening.map(|at| at.duration_since(begun));
    child.kill()?;
    child.wait()?;
    println!("start_ms\t{:.3}", span?.as_secs_f64() * 1e3);
    Ok(())
}

/// Connects again and again: the kernel refuses within microseconds, so this is exact. It takes one
/// CPU; the process that starts has the others.
fn listening_after(
    addr: SocketAddr,
    mut alive: impl FnMut() -> Result<bool, Box<dyn Error>>,
) -> Result<Instant, Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(addr) {
            Ok(_) => return Ok(Instant::now()),
            Err(error) if error.kind() != ErrorKind::ConnectionRefused => return Err(error.into()),
            Err(_) if !alive()? => return Err("the process ended before it listened".into()),
            Err(_) if begun.elapsed() > START_LIMIT => return Err("it does not listen".into()),
            Err(_) => thread::yield_now(),
        }
    }
}
