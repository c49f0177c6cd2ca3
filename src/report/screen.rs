//! Turns a [`Report`] into the lines of a live screen, like that of mtr.
//!
//! The verdict stands on top, then the table of the text report, then the notes. All of it fits
//! into the terminal: rows and notes without room are counted, and the row of the verdict always
//! shows. The keys are listed here and read in `publish::screen`.

use super::text::{self, TextStyle};
use super::Report;
use crate::columns;

/// The size and the state of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Columns; under 80 there is no colour.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// With terminal colours.
    pub colour: bool,
    /// The screen is frozen; measuring goes on.
    pub paused: bool,
}

const KEYS: &str = "Keys: q quit   r reset   p pause";
const RESUME: &str = "Keys: q quit   r reset   space resume   -- PAUSED, measuring goes on --";

/// Returns at most `height` lines of at most `width` columns, without line feeds.
pub fn lines(report: &Report, screen: &Screen) -> Vec<String> {
    let style = TextStyle {
        colour: screen.colour && screen.width >= text::MIN_WIDTH,
        width: screen.width,
    };
    let sections = text::sections(report, &style);
    let mut lines = sections.head;
    lines.push(String::new());
    lines.extend(sections.verdict);
    lines.push(String::new());
    // The keys have the last line, and an empty one above it.
    let room = screen.height.saturating_sub(lines.len() + 2);
    let named = text::rows(report).iter().position(|row| row.is_named);
    lines.extend(shorten(sections.table, 1, named, room, "rows more"));
    let left = screen.height.saturating_sub(lines.len() + 3);
    let (notes, more) = (sections.notes, "lines of notes more");
    let mut gap = String::new();
    match (notes.len(), left) {
        (0, _) => {}
        (count, 0) => gap = left_out(count, more),
        _ => {
            lines.push(String::new());
            lines.extend(shorten(notes, 0, None, left, more));
        }
    }
    lines.truncate(screen.height.saturating_sub(2));
    lines.push(gap);
    lines.push(if screen.paused { RESUME } else { KEYS }.to_owned());
    if !style.colour {
        for line in &mut lines {
            line.truncate(columns::prefix(line, screen.width).len());
        }
    }
    let surplus = lines.len().saturating_sub(screen.height);
    lines.split_off(surplus)
}

/// Returns the heading and as many rows as there is room for, the one at `named` among them.
///
/// A last line counts what is left out, which is called `more`.
fn shorten(
    mut table: Vec<String>,
    heading: usize,
    named: Option<usize>,
    room: usize,
    more: &str,
) -> Vec<String> {
    if table.len() <= room {
        return table;
    }
    let room = room.saturating_sub(1);
    let left_out = table.len() - room;
    let kept = named
        .map(|row| row + heading)
        .filter(|row| *row >= room && *row < table.len());
    let kept = kept.map(|row| table.swap_remove(row));
    table.truncate(room.saturating_sub(usize::from(kept.is_some())));
    table.extend(kept);
    table.push(self::left_out(left_out, more));
    table
}

fn left_out(count: usize, more: &str) -> String {
    format!("    ... {count} {more}: the terminal is not high enough")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    const USUAL: Screen = Screen {
        width: 100,
        height: 40,
        colour: false,
        paused: false,
    };

    #[test]
    fn verdict_table_and_keys_stand_in_this_order() {
        let lines = lines(&samples::full(), &USUAL);
        let find = |part: &str| {
            let found = lines.iter().position(|line| line.contains(part));
            found.unwrap_or_else(|| panic!("no {part:?} in {lines:#?}"))
        };
        assert!(find("Loss% 2.9   Snt 103") < find("Verdict: B -> C adds"));
        assert!(find("Verdict: B -> C adds") < find("Avg  Best  Wrst StDev"));
        assert!(find("Avg  Best  Wrst StDev") < find(">   B -> C"));
        assert_eq!(lines.last().unwrap(), KEYS);
        let paused = Screen {
            paused: true,
            ..USUAL
        };
        assert!(super::lines(&samples::full(), &paused)
            .last()
            .unwrap()
            .contains("PAUSED"));
    }

    #[test]
    fn a_low_terminal_still_shows_the_row_that_is_named() {
        for height in 14..24 {
            let low = Screen { height, ..USUAL };
            let lines = lines(&samples::full(), &low);
            assert!(
                lines.iter().any(|line| line.starts_with(">   B -> C")),
                "{height}: {lines:#?}"
            );
        }
    }

    #[test]
    fn rows_and_notes_without_room_are_counted() {
        let full = lines(&samples::full(), &USUAL).len();
        for height in 16..full {
            let low = Screen { height, ..USUAL };
            let lines = lines(&samples::full(), &low);
            let note = "more: the terminal is not high enough";
            assert!(
                lines.iter().any(|line| line.contains(note)),
                "{height}: {lines:#?}"
            );
        }
    }

    #[test]
    fn nothing_is_larger_than_the_terminal_whatever_the_report() {
        for seed in 0..200_u64 {
            let report = samples::random(seed);
            let size = |n: u64| usize::try_from(seed * n % 120).unwrap();
            let screen = Screen {
                width: size(7),
                height: size(11),
                colour: false,
                paused: seed % 2 == 0,
            };
            let lines = lines(&report, &screen);
            assert!(lines.len() <= screen.height, "seed {seed}");
            for line in &lines {
                assert!(columns::width(line) <= screen.width, "seed {seed}: {line}");
                assert!(!line.chars().any(char::is_control), "seed {seed}: {line:?}");
            }
        }
    }
}
