//! Whole paths through the model to the verdict.

mod endless;
pub(crate) mod samples;
mod scenarios;
pub(in crate::measure) mod simulator;
