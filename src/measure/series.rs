//! Rows in the order of time - one value per column - kept in bounded memory.
//!
//! A full store is thinned by a seeded random half, and from then on takes every second row
//! (fourth, ...) by chance. Never every second one by count: a delay that hits each second block
//! would then be all or nothing.

use super::chunk::Chunk;
pub(super) use super::chunk::NONE;
use super::histogram::nearest_rank;
use crate::time::{MonoTime, Nanos};

/// Rows kept at most; fewer on paths of very many nodes, where [`CELLS`] is the bound.
const ROWS: usize = 16_384;
/// Values kept at most in one store (8 MiB).
const CELLS: usize = 1 << 20;
/// Rows that a run without end keeps however old they are: changes are searched among them.
const RECENT: usize = 1_500;
/// The memory of a row beside its values: its time, its flags and its connection.
const BESIDE: usize = 2 * size_of::<u64>() + size_of::<u32>();
/// Rows that are packed together, once there are so many.
const CHUNK: usize = 64;
/// The columns of a chunk ahead of the values: time and connection.
const AHEAD: usize = 2;

/// The bounds of a store, beside its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Rows older than this are forgotten, but for the [`RECENT`] latest; `None` keeps the whole
    /// run.
    pub(super) span: Option<Nanos>,
    /// The most memory, in bytes; the [`RECENT`] latest rows are kept even beyond it.
    pub(super) memory: usize,
}

/// A bounded store of rows.
#[derive(Debug)]
pub(super) struct Rows {
    columns: usize,
    limit: usize,
    span: Option<Nanos>,
    /// All rows but the latest, [`CHUNK`] in each, the oldest first.
    packed: Vec<Packed>,
    /// Rows of the first chunk that were forgotten.
    gone: usize,
    /// The latest rows, fewer than [`CHUNK`].
    times: Vec<u64>,
    connections: Vec<u32>,
    flags: Vec<u64>,
    values: Vec<i64>,
    /// A row is kept with probability 1 / 2^halvings.
    halvings: u32,
    random: u64,
}

/// Rows that were packed.
#[derive(Debug)]
struct Packed {
    chunk: Chunk,
    /// `None` if no row has one.
    flags: Option<Box<[u64; CHUNK]>>,
}

/// One block of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// The time at which the block was due, in nanoseconds.
    pub(super) at: u64,
    pub(super) connection: u32,
    /// A bit for each segment, counted from 0, in which a retransmission delayed the block.
    pub(super) flags: u64,
    pub(super) cells: Cells<'a>,
}

/// The values of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cells<'a> {
    /// Those of a row of a chunk.
    Packed(&'a Chunk, usize),
    /// All of them.
    Plain(&'a [i64]),
}

impl Cells<'_> {
    /// The value of a column; `None` without that column.
    pub(super) fn get(self, column: usize) -> Option<i64> {
        match self {
            Self::Packed(chunk, row) => chunk.get(column.checked_add(AHEAD)?, row),
            Self::Plain(values) => values.get(column).copied(),
        }
    }
}

/// Rows in the order of time.
pub(super) trait InOrder<'a>:
    ExactSizeIterator<Item = Row<'a>> + DoubleEndedIterator + Clone
{
}

impl<'a, I> InOrder<'a> for I where
    I: ExactSizeIterator<Item = Row<'a>> + DoubleEndedIterator + Clone
{
}

impl Rows {
    pub(super) fn new(columns: usize, bounds: Bounds) -> Self {
        let random = 0x9e37_79b9_7f4a_7c15;
        let row = BESIDE + columns * size_of::<i64>();
        // A vector that grows may have twice the room that it needs.
        let most = ROWS
            .min(CELLS / columns.max(1))
            .min(bounds.memory / 2 / row);
        Self {
            columns,
            limit: most.max(RECENT),
            span: bounds.span,
            packed: Vec::new(),
            gone: 0,
            times: Vec::new(),
            connections: Vec::new(),
            flags: Vec::new(),
            values: Vec::new(),
            halvings: 0,
            random,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.packed.len() * CHUNK - self.gone + self.times.len()
    }

    /// Returns the memory of all rows, in bytes.
    pub(super) fn memory(&self) -> usize {
        let flags = |packed: &Packed| packed.flags.as_ref().map_or(0, |of| size_of_val(&**of));
        let chunks = self.packed.iter();
        let chunks: usize = chunks.map(|of| of.chunk.memory() + flags(of)).sum();
        let list = (self.packed.capacity() - self.packed.len()) * size_of::<Packed>();
        chunks + list + self.times.capacity() * BESIDE + self.values.capacity() * size_of::<i64>()
    }

    pub(super) fn push(&mut self, at: MonoTime, connection: u32, flags: u64, row: &[i64]) {
        debug_assert_eq!(row.len(), self.columns);
        if self.halvings > 0 && self.coins() & ((1 << self.halvings) - 1) != 0 {
            return;
        }
        if self.len() >= self.limit {
            self.thin();
        }
        self.add(at.0, connection, flags, row.iter().copied());
        if let Some(span) = self.span {
            self.forget_before(at.0.saturating_sub(span.0));
        }
    }

    fn add(&mut self, at: u64, connection: u32, flags: u64, row: impl Iterator<Item = i64>) {
        self.times.push(at);
        self.connections.push(connection);
        self.flags.push(flags);
        self.values.extend(row);
        if self.times.len() == CHUNK {
            self.pack();
        }
    }

    /// Packs the latest rows.
    fn pack(&mut self) {
        let value = |column: usize, row: usize| match column {
            0 => self.times[row] as i64,
            1 => i64::from(self.connections[row]),
            _ => self.values[row * self.columns + column - AHEAD],
        };
        let chunk = Chunk::new(AHEAD + self.columns, CHUNK, value);
        let flags = self.flags.iter().any(|flags| *flags != 0);
        let flags = flags.then(|| self.flags[..].try_into().ok()).flatten();
        let flags = flags.map(Box::new);
        self.packed.push(Packed { chunk, flags });
        self.times.clear();
        self.connections.clear();
        self.flags.clear();
        self.values.clear();
    }

    fn row(&self, row: usize) -> Row<'_> {
        let place = self.gone + row;
        match self.packed.get(place / CHUNK) {
            Some(packed) => {
                let row = place % CHUNK;
                let ahead = |column| packed.chunk.get(column, row).unwrap_or_default();
                Row {
                    at: ahead(0) as u64,
                    connection: ahead(1) as u32,
                    flags: packed.flags.as_ref().map_or(0, |flags| flags[row]),
                    cells: Cells::Packed(&packed.chunk, row),
                }
            }
            None => {
                let row = place - self.packed.len() * CHUNK;
                let values = row * self.columns..(row + 1) * self.columns;
                Row {
                    at: self.times[row],
                    connection: self.connections[row],
                    flags: self.flags[row],
                    cells: Cells::Plain(&self.values[values]),
                }
            }
        }
    }

    fn flags_mut(&mut self, row: usize) -> &mut u64 {
        let place = self.gone + row;
        let chunks = self.packed.len();
        match self.packed.get_mut(place / CHUNK) {
            Some(packed) => {
                let flags = packed.flags.get_or_insert_with(|| Box::new([0; CHUNK]));
                &mut flags[place % CHUNK]
            }
            None => &mut self.flags[place - chunks * CHUNK],
        }
    }

    /// Sets `bits` in the flags of the blocks of a connection that were due since `since` and whose
    /// value in `column` exceeds `above`. Returns how many had none of them yet.
    pub(super) fn flag(
        &mut self,
        connection: u32,
        since: MonoTime,
        (column, above): (usize, i64),
        bits: u64,
    ) -> u64 {
        let mut flagged = 0;
        for at in (0..self.len()).rev() {
            let row = self.row(at);
            if row.at < since.0 {
                break; // In the order of returns: those before were due earlier, but for a few.
            }
            let is_late = row.cells.get(column).is_some_and(|value| value > above);
            if row.connection == connection && is_late && row.flags & bits == 0 {
                *self.flags_mut(at) |= bits;
                flagged += 1;
            }
        }
        flagged
    }

    fn thin(&mut self) {
        let (columns, limit, span) = (self.columns, self.limit, self.span);
        let memory = usize::MAX;
        let mut kept = Self {
            limit,
            ..Self::new(columns, Bounds { span, memory })
        };
        for row in 0..self.len() {
            if self.coins() & 1 == 0 && kept.len() < limit - 1 {
                let Row {
                    at,
                    connection,
                    flags,
                    cells,
                } = self.row(row);
                let values = (0..columns).map(|column| cells.get(column).unwrap_or(NONE));
                kept.add(at, connection, flags, values);
            }
        }
        kept.random = self.random;
        kept.halvings = (self.halvings + 1).min(62);
        *self = kept;
    }

    /// Drops rows from before `start`, once they are a quarter of the store.
    fn forget_before(&mut self, start: u64) {
        let len = self.len();
        if len <= RECENT || self.row(len / 4).at >= start {
            return;
        }
        let old = self.all().take_while(|row| row.at < start).count();
        self.gone += old.min(len - RECENT);
        let chunks = (self.gone / CHUNK).min(self.packed.len());
        self.packed.drain(..chunks);
        self.gone -= chunks * CHUNK;
        if self.len() < self.limit / 4 {
            self.halvings = self.halvings.saturating_sub(1);
        }
    }

    /// xorshift64*: good enough to pick rows, and the same on every run.
    fn coins(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 1
    }

    /// All rows, the oldest first.
    pub(super) fn all(&self) -> impl InOrder<'_> {
        self.from(0)
    }

    fn from(&self, first: usize) -> impl InOrder<'_> {
        (first..self.len()).map(|row| self.row(row))
    }

    /// The time at which the latest row was due; 0 for none.
    pub(super) fn latest(&self) -> MonoTime {
        MonoTime(self.all().next_back().map_or(0, |row| row.at))
    }

    /// The run has no end.
    pub(super) fn is_endless(&self) -> bool {
        self.span.is_some()
    }

    /// The rows among which changes are searched: of a run without end the latest.
    pub(super) fn searched(&self) -> impl InOrder<'_> {
        self.latest_searched(usize::MAX)
    }

    /// The latest `most` of them.
    pub(super) fn latest_searched(&self, most: usize) -> impl InOrder<'_> {
        let most = self.span.map_or(most, |_| most.min(RECENT));
        self.from(self.len().saturating_sub(most))
    }
}

/// The exact quantile, by nearest rank; reorders `values`.
pub(super) fn exact_quantile(values: &mut [i64], share: f64) -> Option<i64> {
    let rank = nearest_rank(share, values.len() as u64)?;
    let (_, value, _) = values.select_nth_unstable(rank as usize - 1);
    Some(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unbounded(span: Option<Nanos>) -> Bounds {
        let memory = usize::MAX;
        Bounds { span, memory }
    }

    #[test]
    fn a_store_stays_within_its_memory_and_keeps_the_latest_rows_of_a_small_one() {
        for (columns, memory) in [(1, 1 << 20), (11, 1 << 18), (32, 1 << 20), (90, 1 << 12)] {
            let mut rows = Rows::new(columns, Bounds { span: None, memory });
            let row = vec![7; columns];
            for block in 0..100_000 {
                rows.push(MonoTime(block), 0, 0, &row);
                let floor = 2 * RECENT * (BESIDE + 8 * columns);
                assert!(rows.memory() <= memory.max(floor), "{columns}: {block}");
            }
            assert!(rows.len() >= RECENT / 2, "{columns}: {}", rows.len());
        }
    }

    #[test]
    fn a_full_store_is_thinned_evenly_and_stays_within_its_bound() {
        let mut rows = Rows::new(2, unbounded(None));
        for block in 0..1_000_000 {
            rows.push(MonoTime(block), 0, 0, &[i64::from(block % 2 == 0), NONE]);
            assert!(rows.len() <= ROWS);
        }
        assert!(
            rows.memory() <= ROWS * (BESIDE + 2 * 8),
            "{}",
            rows.memory()
        );
        let mut batches = [0; 8];
        let mut ones = 0;
        for row in rows.all() {
            ones += row.cells.get(0).expect("a column");
            batches[row.at as usize * 8 / 1_000_000] += 1;
        }
        let share = ones as f64 / rows.len() as f64;
        assert!((0.47..0.53).contains(&share), "every second block: {share}");
        let (least, most) = (batches.iter().min().unwrap(), batches.iter().max().unwrap());
        assert!(most * 4 < least * 5, "{batches:?}");
    }

    #[test]
    fn late_blocks_of_one_connection_since_a_moment_are_flagged_once() {
        let mut rows = Rows::new(2, unbounded(None));
        for block in 0..100 {
            let late = if block % 5 == 0 { 90 } else { 10 };
            rows.push(MonoTime(block), (block % 2) as u32, 0, &[late, NONE]);
        }
        assert_eq!(rows.flag(0, MonoTime(50), (0, 50), 2), 5);
        assert_eq!(rows.flag(0, MonoTime(40), (0, 50), 2), 1);
        assert_eq!(rows.flag(0, MonoTime(0), (1, 50), 2), 0);
        let flagged: Vec<_> = rows
            .all()
            .filter(|row| row.flags == 2)
            .map(|row| row.at)
            .collect();
        assert_eq!(flagged, [40, 50, 60, 70, 80, 90]);
    }

    #[test]
    fn a_wide_path_keeps_fewer_rows() {
        let mut rows = Rows::new(500, unbounded(None));
        (0..20_000).for_each(|at| rows.push(MonoTime(at), 0, 0, &[1; 500]));
        assert!(rows.len() * 500 <= CELLS && rows.len() >= RECENT / 2);
    }

    #[test]
    fn an_endless_run_forgets_what_is_older_than_its_span_but_never_its_latest_rows() {
        let mut rows = Rows::new(1, unbounded(Some(Nanos(10_000))));
        (0..100_000).for_each(|at| rows.push(MonoTime(at), 0, 0, &[1]));
        let oldest = rows.all().next().unwrap().at;
        assert!((85_000..=90_000).contains(&oldest), "{oldest}");
        let mut slow = Rows::new(1, unbounded(Some(Nanos(10_000))));
        (0..5_000).for_each(|block| slow.push(MonoTime(block * 1_000), 0, 0, &[1]));
        assert!(slow.len() >= RECENT && slow.searched().count() == RECENT);
        assert!(slow.len() < 2 * RECENT + RECENT / 4, "{}", slow.len());
    }
}
