//! What the files of this module do together, on captures made by hand.

mod build;
mod formats;
mod output;
mod robust;
mod round_trips;
mod sessions;
