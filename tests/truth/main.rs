//! The truth of the figures: real processes, delay links between them that keep their own record,
//! and what the report of the source shows of both.
//!
//! The machine may be busy. Bounds on delays are therefore kept by the median of interleaved runs,
//! not by wide bounds; and no two of these tests run at a time, for they would measure each other.
//! `STS_REPEAT=20` repeats the verdicts.

#[path = "../util/mod.rs"]
mod util;

mod breaks;
mod clocks;
mod delay;
mod hops;
mod kernel;
mod late;
mod next_hop;
mod slow;
mod support;
mod verdict;
