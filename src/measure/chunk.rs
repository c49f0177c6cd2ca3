//! Rows of values in as few bytes as each column of them needs.

/// Stands for a value that does not exist: no delay is minus 292 years.
pub(super) const NONE: i64 = i64::MIN;
/// Bytes that are read at once.
const READ: usize = size_of::<u64>();

/// A column: the value of a row is `base` and what its `width` bytes from `start` on hold, but
/// [`NONE`] where they hold 0. Without bytes it is `base` in all rows.
#[derive(Debug)]
struct Column {
    base: i64,
    start: u32,
    width: u8,
}

/// Rows that change no more.
#[derive(Debug)]
pub(super) struct Chunk {
    columns: Box<[Column]>,
    bytes: Box<[u8]>,
}

impl Chunk {
    /// Of so many `columns` with so many `rows`; `value` returns the value of a column and a row.
    pub(super) fn new(columns: usize, rows: usize, value: impl Fn(usize, usize) -> i64) -> Self {
        let mut bytes = Vec::new();
        let column = |column| {
            let values = (0..rows).map(|row| value(column, row));
            let there = values.clone().filter(|value| *value != NONE);
            let (least, most) = (there.clone().min(), there.max());
            let (Some(least), Some(most)) = (least, most) else {
                return (NONE, 0, 0);
            };
            let start = bytes.len() as u32;
            if least == most && values.clone().all(|value| value == least) {
                return (least, start, 0);
            }
            // NONE is 0 in the bytes, so that the least value is 1.
            let base = least.wrapping_sub(1);
            let width = READ - most.abs_diff(base).leading_zeros() as usize / 8;
            for value in values {
                let above = match value {
                    NONE => 0,
                    value => value.abs_diff(base),
                };
                bytes.extend_from_slice(&above.to_le_bytes()[..width]);
            }
            (base, start, width as u8)
        };
        let columns =
            (0..columns)
                .map(column)
                .map(|(base, start, width)| Column { base, start, width });
        let columns = columns.collect();
        bytes.extend_from_slice(&[0; READ]);
        Self {
            columns,
            bytes: bytes.into(),
        }
    }

    /// The value of a column in a row; `None` without that column.
    pub(super) fn get(&self, column: usize, row: usize) -> Option<i64> {
        let Column { base, start, width } = *self.columns.get(column)?;
        if width == 0 {
            return Some(base);
        }
        let at = start as usize + row * usize::from(width);
        let read = self.bytes.get(at..)?.first_chunk()?;
        let above = u64::from_le_bytes(*read) & (u64::MAX >> (64 - 8 * u32::from(width)));
        Some(match above {
            0 => NONE,
            above => base.wrapping_add_unsigned(above),
        })
    }

    /// Returns its memory, in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.columns.len() * size_of::<Column>() + self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn values_are_read_as_they_were_written() {
        let mut random = Random::new(3);
        for case in 0..300 {
            let (columns, rows) = (1 + random.below(9), 1 + random.below(64));
            let shifts: Vec<u32> = (0..columns).map(|_| random.below(64) as u32).collect();
            let mut value = |column: usize| match random.below(6) {
                0 => NONE,
                1 if case % 7 == 0 => [i64::MAX, NONE + 1, 0, -1][random.below(4)],
                _ => (random.next() as i64) >> shifts[column],
            };
            let values: Vec<Vec<i64>> = (0..columns)
                .map(|column| match column % 5 {
                    4 => vec![value(column); rows],
                    _ => (0..rows).map(|_| value(column)).collect(),
                })
                .collect();
            let chunk = Chunk::new(columns, rows, |column, row| values[column][row]);
            for (column, values) in values.iter().enumerate() {
                for (row, value) in values.iter().enumerate() {
                    assert_eq!(chunk.get(column, row), Some(*value), "case {case}");
                }
            }
            assert_eq!(chunk.get(columns, 0), None);
        }
    }

    #[test]
    fn a_column_takes_the_bytes_that_its_values_differ_in() {
        let far = 1_700_000_000_000_000_000;
        let of = |value: &dyn Fn(usize) -> i64| Chunk::new(1, 64, |_, row| value(row)).bytes.len();
        assert_eq!(of(&|_| far) - READ, 0);
        assert_eq!(of(&|_| NONE) - READ, 0);
        assert_eq!(of(&|row| far + row as i64) - READ, 64);
        assert_eq!(of(&|row| far + 1_000 * row as i64) - READ, 2 * 64);
        assert_eq!(of(&|row| if row == 9 { NONE } else { far }) - READ, 64);
    }
}
