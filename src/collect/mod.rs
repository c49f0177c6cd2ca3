//! Measurements from all pumps in; the state of the run, its latest report and what nodes are asked for out.

pub mod latest;
pub mod queue;
pub mod requests;
pub mod run_state;
pub mod state_file;
pub mod transitions;
