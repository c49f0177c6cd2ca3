//! The baseline that earlier runs and windows left of each part, as the text of a `--state` file.
//!
//! ```text
//! subsegment-tcp-speeds state 2
//! path 0=A,1=B,2=Z
//! runs segment:0-1 usual 1795253399000000000:410000:97:0: ...
//! watch segment:0-1 300000000000 2 wall ...
//! record 288 300000 1795253399000 0 5f0... 86400000 h0=3000,12,11,15 s0-1=3000,412,410,520,205,204
//! window 0=A,1=B,2=Z 289 300000 ...
//! ```
//!
//! `runs` is a [`RunHistory`], `watch` a [`RecordWatch`], `record` a [`Record`] that both have
//! seen. A `window` line was appended since: it is pushed to the watches of its path when it is
//! read. So a process that is killed loses the line that it is writing, and nothing else.

mod legacy;
mod packed;
mod record;
#[cfg(test)]
mod rise_tests;
#[cfg(test)]
mod tests;

pub use packed::PartRecords;
pub use record::{OneWayMedians, PartRecord, Record, StoodRise, HOURS_KEPT, RECENT_KEPT};

use super::change::{Began, Lasts, RecordEvent, RecordWatch, RunHistory, When, NEW_NORMAL};
use super::model::way_of;
use super::{Part, VerdictDirection};
use crate::time::{Nanos, SignedNanos, WallTime};
use crate::vec_map::VecMap;
use std::fmt;

/// The first line. The number changes when a line's meaning does.
const HEADING: &str = "subsegment-tcp-speeds state 2";
/// The first line of any version, before its number.
const ANY_HEADING: &str = "subsegment-tcp-speeds state ";
/// Records with one-way delays from before a change, without which it has no direction.
const DIRECTION_NEEDS: usize = 3;
/// The runs before a change that its direction is taken from at most.
const DIRECTION_RUNS: usize = 20;
/// Paths kept in one file; of more, the one goes that was recorded longest ago.
pub const PATHS: usize = 16;
/// The longest text of a state, in bytes: 512 KiB for each path.
pub const MAX_LEN: usize = PATHS * (512 << 10);

/// The runs and windows of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathHistory {
    /// By part, runs that are usual, and those since a change was named.
    pub parts: VecMap<Part, RunHistory>,
    /// By part, what is usual by the hour, and the change that lasts.
    pub watches: VecMap<Part, RecordWatch>,
    /// Windows and runs, in order of their sequence.
    pub records: Vec<Record>,
}

/// The runs and windows of all paths of a state file, by [`path_key`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunHistories {
    /// Every path that a run was of.
    pub paths: VecMap<String, PathHistory>,
}

/// A state as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateText {
    /// Everything that was read.
    pub state: RunHistories,
    /// The number of the last line, if it is cut and was dropped.
    pub cut: Option<usize>,
    /// `window` lines since the text was written whole.
    pub appended: usize,
}

/// A line of a state file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError {
    /// Counted from 1.
    pub line: usize,
    /// The error.
    pub what: String,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for StateError {}

/// Names a path by its hops and the names of their nodes; only runs of the same path are compared.
pub fn path_key<'a>(nodes: impl IntoIterator<Item = (u8, &'a str)>) -> String {
    let nodes = nodes
        .into_iter()
        .map(|(hop, name)| format!("{hop}={}", escape(name)));
    nodes.collect::<Vec<_>>().join(",")
}

/// Replaces all bytes of a name but letters, digits and `-_.:` by `%` and two hex digits.
pub fn escape(name: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
    let one = |b: u8| match plain(&b) {
        true => char::from(b).into(),
        false => format!("%{b:02x}"),
    };
    name.bytes().map(one).collect()
}

/// The hops and names of a [`path_key`]; nothing for a text that is none.
pub fn path_nodes(key: &str) -> Vec<(u8, String)> {
    let node = |text: &str| {
        let (hop, name) = text.split_once('=')?;
        Some((hop.parse().ok()?, unescape(name)))
    };
    key.split(',').filter_map(node).collect()
}

fn unescape(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl PathHistory {
    /// The sequence number of the newest record; 0 if there is none.
    fn newest(&self) -> u64 {
        self.records.last().map_or(0, |record| record.sequence)
    }

    /// Returns the memory of records and watches, in bytes.
    fn memory(&self) -> usize {
        let records = self.records.iter().map(|record| record.parts.memory());
        let watches = self.watches.values().map(RecordWatch::memory);
        records.chain(watches).sum::<usize>() + self.records.capacity() * size_of::<Record>()
    }

    /// Returns the time at which the window at `at` began, by the clock as it is at `now`.
    pub fn began(&self, at: When, now: When) -> Began {
        let since = self.wall_of(at, now);
        if since.is_some() {
            return Began {
                since,
                at_most: None,
            };
        }
        // Records are in order: those behind the last one of its boot are later than it.
        let last = self.records.iter().rposition(|r| r.when.boot == at.boot);
        let later = &self.records[last.map_or(0, |last| last + 1)..];
        let is_later = |record: &&Record| last.is_some() || record.when.boot == now.boot;
        let mut later = later.iter().filter(is_later);
        let at_most = later.find_map(|record| self.wall_of(record.when, now));
        Began {
            since,
            at_most: at_most.or(Some(now.wall)),
        }
    }

    /// The time of `at` by the wall clock as it is at `now`. Within a boot the monotonic clock
    /// gives it, else the boot's latest record with a clock that was set. `None` if there is none,
    /// if the clock is not set now, or if it was stepped back to before that time.
    fn wall_of(&self, at: When, now: When) -> Option<WallTime> {
        if at.boot == now.boot {
            return Some(now.wall.before(now.mono.since(at.mono)));
        }
        let records = self.records.iter().rev().map(|record| record.when);
        let mut of_boot = records.filter(|when| when.boot == at.boot && when.is_clock_set());
        let link = of_boot.next().unwrap_or(at);
        let wall = match at.mono <= link.mono {
            true => link.wall.before(link.mono.since(at.mono)),
            false => WallTime(link.wall.0.saturating_add(at.mono.since(link.mono).0)),
        };
        let is_known = now.is_clock_set() && link.is_clock_set() && wall <= now.wall;
        is_known.then_some(wall)
    }

    /// The rise of `part` that blocks had shown and that no record since contradicts, with its
    /// beginning.
    pub fn stood(&self, part: Part) -> Option<(StoodRise, When)> {
        let newest = self.records.last()?.when;
        let mut least = SignedNanos(i64::MAX);
        for record in self.records.iter().rev() {
            let of = record.parts.get(&part)?;
            let Some(rise) = of.rise else {
                least = least.min(of.p50);
                continue;
            };
            if rise.before_ms >= 0 {
                least = least.min(of.p50);
            }
            let late = Nanos(rise.before_ms.unsigned_abs().saturating_mul(1_000_000));
            let since = match rise.before_ms {
                0.. => record.when.before(late),
                _ => record.when.after(late),
            };
            let stands = least.0.saturating_sub(rise.baseline.0) >= rise.amount.0 / 2;
            let is_new = newest
                .since(&since)
                .is_some_and(|lasted| lasted < NEW_NORMAL);
            return (stands && is_new).then_some((rise, since));
        }
        None
    }

    /// The direction of a segment's change that lasts: the median of the one-way delays since it
    /// began against those of the 24 hours before. `None` if the clocks wandered by more than half
    /// of the change.
    pub fn direction(&self, part: Part, lasts: &Lasts, newest: When) -> Option<VerdictDirection> {
        let began = newest.since(&lasts.since)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for record in self.records.iter().rev().take(RECENT_KEPT) {
            let one_way = record.parts.get(&part).and_then(|part| part.one_way);
            let age = newest.since(&record.when);
            if let (Some(one_way), Some(age)) = (one_way, age) {
                match age <= began {
                    true => after.push(one_way),
                    false => before.push(one_way),
                }
            }
        }
        direction_of(lasts.amount, &before, &after)
    }

    /// Returns the one-way medians of `part` in the latest runs that began before `since`, or in
    /// all of them, forward and return. Only those whose clocks were synchronised.
    pub fn one_way_before(&self, part: Part, since: Option<WallTime>) -> Vec<OneWayMedians> {
        let is_before = |record: &&Record| since.map_or(true, |since| record.when.wall < since);
        let records = self.records.iter().rev().filter(is_before);
        let ways = records.filter_map(|record| record.parts.get(&part)?.one_way);
        ways.take(DIRECTION_RUNS).collect()
    }

    fn keep(&mut self, record: Record) {
        self.records.reserve_exact(1);
        self.records.push(record);
        record::thin(&mut self.records);
    }

    fn push(&mut self, record: Record) -> Vec<(Part, RecordEvent)> {
        let mut events = Vec::new();
        for (part, figures) in record.parts.iter() {
            let watch = self
                .watches
                .get_or_insert_with(part, || RecordWatch::new(record.window));
            watch.set_window(record.window);
            let event = watch.push(record.when, &figures.figures());
            events.extend(event.map(|event| (part, event)));
        }
        self.keep(record);
        events
    }
}

/// The direction of a change of `amount` between two groups of one-way delays. A round trip is free
/// of the clocks' offset, but each direction contains it. The spread of a group's medians shows how
/// far its clocks are unknown. `None` if either group's spread, or the sum of their clock errors,
/// is more than half of the change. `None` also with fewer than 3 delays before the change.
pub fn direction_of(
    amount: SignedNanos,
    before: &[OneWayMedians],
    after: &[OneWayMedians],
) -> Option<VerdictDirection> {
    if before.len() < DIRECTION_NEEDS || after.is_empty() {
        return None;
    }
    let error = |group: &[OneWayMedians]| group.iter().map(|of| of.error.0).max().unwrap_or(0);
    if error(before).saturating_add(error(after)) > amount.0.unsigned_abs() / 2 {
        return None;
    }
    let sorted = |group: &[OneWayMedians], way: usize| {
        let mut values: Vec<i64> = group.iter().map(|of| of.ways[way].0).collect();
        values.sort_unstable();
        values
    };
    let mut grown = [0; 2];
    for (way, grown) in grown.iter_mut().enumerate() {
        let (before, after) = (sorted(before, way), sorted(after, way));
        let spread = |values: &[i64]| values[values.len() - 1].saturating_sub(values[0]);
        if spread(&before).max(spread(&after)) > amount.0.saturating_abs() / 2 {
            return None;
        }
        *grown = after[after.len() / 2].saturating_sub(before[before.len() / 2]);
    }
    // Offsets that differ between the groups would show in both, with opposite signs.
    let sum = grown[0].saturating_add(grown[1]);
    let unlike = sum.saturating_sub(amount.0).saturating_abs();
    let opposite = grown.iter().any(|way| {
        way.signum() == -amount.0.signum() && way.saturating_abs() > amount.0.saturating_abs() / 4
    });
    if unlike > amount.0.saturating_abs() / 2 || opposite {
        return None;
    }
    Some(way_of(amount.0, grown[0], grown[1]))
}

impl RunHistories {
    /// The sequence number of the next record.
    pub fn next_sequence(&self) -> u64 {
        let newest = self.paths.values().map(PathHistory::newest).max();
        newest.unwrap_or(0).saturating_add(1)
    }

    /// Returns the memory of the records and watches of all paths, in bytes.
    pub fn memory(&self) -> usize {
        self.paths.values().map(PathHistory::memory).sum()
    }

    /// Adds the record of a window: what it changed in which part. `record` is rounded and numbered
    /// already, as its line is.
    pub fn push(&mut self, path: &str, record: Record) -> Vec<(Part, RecordEvent)> {
        let events = self.path(path).push(record);
        self.bound(path);
        events
    }

    /// Adds the record of a run, which has a [`RunHistory`] instead of a [`RecordWatch`].
    pub fn keep(&mut self, path: &str, record: Record) {
        self.path(path).keep(record);
        self.bound(path);
    }

    /// Adds what a run elsewhere made of a copy: `before` is the copy that it was given, `after` is
    /// what it left. Of a path that changed here meanwhile its records are added alone.
    pub fn merge(&mut self, before: &Self, after: &Self) {
        for (key, path) in &after.paths {
            let known = before.paths.get(key);
            if known == Some(path) {
                continue;
            }
            if self.paths.get(key) == known {
                self.paths.insert(key.clone(), path.clone());
                self.bound(key);
                continue;
            }
            let newest = known.map_or(0, PathHistory::newest);
            let records = path.records.iter();
            for record in records.filter(|record| record.sequence > newest) {
                let sequence = self.next_sequence();
                let record = record.clone();
                self.keep(key, Record { sequence, ..record });
            }
        }
    }

    fn path(&mut self, path: &str) -> &mut PathHistory {
        let key = path.to_owned();
        self.paths.get_or_insert_with(key, PathHistory::default)
    }

    /// Forgets the paths that were recorded longest ago, where there are more than [`PATHS`]; never
    /// `latest`.
    fn bound(&mut self, latest: &str) {
        while self.paths.len() > PATHS {
            let others = self.paths.iter().filter(|(key, _)| *key != latest);
            let oldest = others.min_by_key(|(_, path)| path.newest());
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            self.paths.remove(&key);
        }
    }

    /// Makes the level since a change the usual one, of `part` or of all. Returns the paths and
    /// parts that had a change.
    pub fn accept(&mut self, part: Option<Part>) -> Vec<(String, Part)> {
        let mut accepted = Vec::new();
        let keys: Vec<String> = self.paths.keys().cloned().collect();
        for key in keys {
            let Some(path) = self.paths.get_mut(&key) else {
                continue;
            };
            let is_meant = |of: &Part| part.map_or(true, |part| part == *of);
            let runs: Vec<Part> = path.parts.keys().copied().filter(is_meant).collect();
            for part in runs {
                let history = path.parts.get_mut(&part);
                if let Some(history) = history.filter(|history| history.lasting().is_some()) {
                    history.accept();
                    accepted.push((key.clone(), part));
                }
            }
            let windows: Vec<Part> = path.watches.keys().copied().filter(is_meant).collect();
            for part in windows {
                let watch = path.watches.get_mut(&part);
                if let Some(watch) = watch.filter(|watch| watch.lasts().is_some()) {
                    watch.accept();
                    accepted.push((key.clone(), part));
                }
            }
            let parts: Vec<Part> = path.watches.keys().copied().filter(is_meant).collect();
            for part in parts {
                if path.stood(part).is_some() {
                    accepted.push((key.clone(), part));
                }
                for record in &mut path.records {
                    let of = record.parts.get(&part);
                    if of.is_some_and(|of| of.rise.is_some()) {
                        let mut parts = record.parts.unpacked();
                        let figures = parts.get_mut(&part).into_iter();
                        figures.for_each(|figures| figures.rise = None);
                        record.parts = PartRecords::from(&parts);
                    }
                }
            }
        }
        accepted.sort_unstable();
        accepted.dedup();
        accepted
    }

    /// Writes the whole text, in at most [`MAX_LEN`] bytes: records of the path that has most are
    /// merged until it fits.
    pub fn text(&mut self) -> String {
        loop {
            let text = self.to_string();
            let longest = self.paths.iter().max_by_key(|(_, path)| path.records.len());
            let Some(key) = longest.map(|(key, _)| key.clone()) else {
                return text;
            };
            if text.len() <= MAX_LEN {
                return text;
            }
            let path = self.path(&key);
            match path.records.len() {
                0 | 1 => drop(self.paths.remove(&key)),
                _ => record::halve(&mut path.records),
            }
        }
    }

    /// The line that adds `record` to a text.
    pub fn line(path: &str, record: &Record) -> String {
        format!("window {path} {record}\n")
    }

    /// Reads a state file, of this version or the one before; an empty one has no runs. A last line
    /// without an end is dropped.
    ///
    /// # Errors
    ///
    /// [`StateError`] names the first line that cannot be read.
    pub fn parse(text: &str) -> Result<StateText, StateError> {
        let mut read = StateText::default();
        let mut path: Option<String> = None;
        let mut version = 2;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let error = |what: String| StateError {
                line: number + 1,
                what,
            };
            let shown: String = line.trim_end().chars().take(60).collect();
            let Some(line) = line.strip_suffix('\n') else {
                // The heading of another file is not cut.
                if number == 0 && !HEADING.starts_with(line) {
                    return Err(error(format!("expected {HEADING:?}, found {shown:?}")));
                }
                read.cut = Some(number + 1);
                break;
            };
            if number == 0 {
                version = match line.strip_prefix(ANY_HEADING) {
                    Some("2") => 2,
                    Some("1") => 1,
                    Some(_) => {
                        let what = format!("{shown:?} is of another version of the program");
                        return Err(error(what));
                    }
                    None => return Err(error(format!("expected {HEADING:?}, found {shown:?}"))),
                };
                continue;
            }
            if version == 1 {
                legacy::run(line, &mut read.state)
                    .ok_or_else(|| error(format!("{shown:?} is no run")))?;
                continue;
            }
            read.line(line, &mut path)
                .ok_or_else(|| error(format!("{shown:?} is no line of a state")))?;
        }
        Ok(read)
    }
}

impl StateText {
    /// Takes in a line; `None` if it is none.
    fn line(&mut self, line: &str, path: &mut Option<String>) -> Option<()> {
        let (word, rest) = line.split_once(' ')?;
        let state = &mut self.state;
        match word {
            "path" => {
                if rest.contains(' ') || state.paths.len() >= PATHS {
                    return None;
                }
                state.path(rest);
                *path = Some(rest.to_owned());
            }
            "runs" => {
                let (part, rest) = rest.split_once(' ')?;
                let (part, history) = (Part::parse(part)?, RunHistory::parse(rest)?);
                let parts = &mut state.path(path.as_ref()?).parts;
                let is_new = parts.len() < record::PARTS;
                let is_new = is_new && parts.insert(part, history).is_none();
                return is_new.then_some(());
            }
            "watch" => {
                let (part, rest) = rest.split_once(' ')?;
                let (part, watch) = (Part::parse(part)?, RecordWatch::parse(rest)?);
                let watches = &mut state.path(path.as_ref()?).watches;
                let is_new = watches.len() < record::PARTS;
                let is_new = is_new && watches.insert(part, watch).is_none();
                return is_new.then_some(());
            }
            "record" => {
                let records = &mut state.path(path.as_ref()?).records;
                let has_place = records.len() < RECENT_KEPT + HOURS_KEPT + 2;
                records.push(Record::parse(rest).filter(|_| has_place)?);
            }
            "window" => {
                let (key, rest) = rest.split_once(' ')?;
                state.push(key, Record::parse(rest)?);
                self.appended += 1;
            }
            _ => return None,
        }
        Some(())
    }
}

impl fmt::Display for RunHistories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADING}")?;
        for (key, path) in &self.paths {
            writeln!(f, "path {key}")?;
            for (part, history) in &path.parts {
                writeln!(f, "runs {part} {history}")?;
            }
            for (part, watch) in &path.watches {
                writeln!(f, "watch {part} {watch}")?;
            }
            for record in &path.records {
                writeln!(f, "record {record}")?;
            }
        }
        Ok(())
    }
}
