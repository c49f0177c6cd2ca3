//! The vitals of a process in procfs: threads, descriptors, memory, time on a processor.

#![allow(dead_code, unreachable_pub)] // As in `util`.

use std::fs;
use std::time::{Duration, Instant};

/// A process at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    pub threads: usize,
    pub descriptors: usize,
    /// Private written pages (`Private_Dirty` of smaps_rollup): heap and stacks, not code.
    pub memory_kib: u64,
}

impl Vitals {
    /// `None` where there is no such process (any more).
    pub fn of(pid: u32) -> Option<Self> {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let dirty = smaps
            .lines()
            .find_map(|line| line.strip_prefix("Private_Dirty:"))?;
        Some(Self {
            threads: threads(pid)?,
            descriptors: descriptors(pid)?,
            memory_kib: dirty.split_whitespace().next()?.parse().ok()?,
        })
    }
}

/// Without `annotate`, which starts when a peer first asks for what it finds, and stays.
pub fn threads(pid: u32) -> Option<usize> {
    // Not the directory of tasks: while one ends, others may be missing there.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    let count: usize = count?.trim().parse().ok()?;
    Some(count - names(pid).filter(|name| name == b"annotate\n").count())
}

fn names(pid: u32) -> impl Iterator<Item = Vec<u8>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read(task.path().join("comm")).ok())
}

/// Waits until a listening node has started its own threads, which is after it prints its address.
pub fn wait_started(pid: u32) {
    let deadline = Instant::now() + super::LONG;
    let is_there = || names(pid).any(|name| name == b"collect\n");
    while !is_there() {
        assert!(Instant::now() < deadline, "no thread `collect` in {pid}");
        super::pass(Duration::from_millis(2));
    }
}

pub fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// User and system time, in ticks of 10 ms.
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}
