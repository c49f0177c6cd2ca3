//! The files of this room together, on captures made by hand.

use crate::time::WallTime;

mod build;
mod captures;
mod containers;
mod exchanges;
mod formats;
mod generator;
mod interfaces;
mod laws;
mod output;
mod packets;
mod robust;
mod round_trips;
mod sessions;
mod tls;
mod variants;
