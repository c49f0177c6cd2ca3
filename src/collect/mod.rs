//! Measurements from all pumps in; the state of the run, its latest report and the requests for
//! annotations out.

pub mod header_state;
pub mod latest;
mod notices;
pub mod path_key;
pub mod path_labels;
mod path_state;
mod paths;
pub mod queue;
pub mod requests;
pub mod run;
pub mod run_state;
pub mod state_file;
pub mod transitions;
mod windows;
