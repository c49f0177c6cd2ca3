//! Whole paths through the model to the verdict.

pub(crate) mod samples;
mod scenarios;
pub(crate) mod simulator;
