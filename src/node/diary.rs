//! What the pumps of one connection note for `--sessions`.

use super::lock;
use crate::passive::{Http, Side as HttpSide};
use crate::session::journal::{EndJournal, Journal, Place};
use crate::sys;
use crate::time::WallTime;
use std::sync::Mutex;

/// A connection's books; both its ends have them.
#[derive(Debug, Default)]
pub struct Diary {
    pub(super) journal: Mutex<Journal>,
    pub(super) http: Mutex<Http>,
}

impl Diary {
    /// Notes something of the end at `place`, dated now.
    #[cold]
    #[inline(never)]
    pub(super) fn note(&self, place: Place, what: impl FnOnce(&mut EndJournal, WallTime)) {
        let now = sys::clock::read().wall;
        if let Some(end) = lock(&self.journal).end(place) {
            what(end, now);
        }
    }

    /// Notes plain bytes of the application; `when` they were read, or now that they are written.
    #[cold]
    #[inline(never)]
    pub(super) fn payload(&self, from: Place, when: Option<WallTime>, bytes: &[u8]) {
        let side = match from {
            Place::Client => HttpSide::Client,
            Place::Server => HttpSide::Server,
        };
        let when = when.unwrap_or_else(|| sys::clock::read().wall);
        lock(&self.http).read(when, side, bytes);
    }
}
