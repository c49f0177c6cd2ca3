//! Faults around a node, and what must hold all the while: other connections go on, and afterwards
//! threads,
//!
//! `cargo test --test faults -- --nocapture | grep ^ROW` shows the matrix. `STS_SEED` repeats a run
//! of mutations.

#[path = "../faces/mod.rs"]
mod faces;
#[path = "../util/mod.rs"]
mod util;

mod floods;
mod hops;
mod mutations;
mod peers;
mod scene;
mod surroundings;

use scene::{Play, Row};
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use subsegment_tcp_speeds::sys;

/// How many faults are under way at a time: most of the time they wait for a second to pass.
const AT_A_TIME: usize = 6;

#[test]
fn any_failure_around_a_node_leaves_the_others_running_and_nothing_behind() {
    sys::raise_descriptor_limit().unwrap();
    // What takes longest begins first; the table has the order of `plays`.
    let mut plays: Vec<Play> = Vec::new();
    plays.extend(floods::plays());
    plays.extend(surroundings::plays());
    plays.extend(peers::plays());
    plays.extend(hops::plays());
    let waiting: Mutex<VecDeque<_>> = Mutex::new(plays.into_iter().enumerate().collect());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| loop {
                let next = lock(&waiting).pop_front();
                let Some((at, (what, play))) = next else {
                    return;
                };
                let played = catch_unwind(AssertUnwindSafe(play));
                let rows = played.unwrap_or_else(|panic| vec![Row::broken(what, &panic)]);
                lock(&done).extend(rows.into_iter().map(|row| (at, row)));
            });
        }
    });
    let mut rows = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(at, _)| *at);
    println!("ROW {}", Row::HEADING);
    let mut wrong = Vec::new();
    for (_, row) in &rows {
        println!("ROW {row}");
        wrong.extend(row.wrong());
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(rows.len() >= 50, "only {} rows", rows.len());
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
