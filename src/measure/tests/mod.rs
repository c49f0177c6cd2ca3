//! Whole paths through the model to the verdict.

mod scenarios;
pub(in crate::measure) mod simulator;
