//! The tables of pages that the program makes of its own ones.
//!
//! The files hold them too, for readers of the source: between a mark with the name of the table
//! and one of its end. The binary holds only the text around them. To add one: a row in
//! [`TABLES`], and `<!-- NAME -->`, an empty line, and `<!-- end -->` in the page;
//! `BLESS=1 cargo test --test readme` writes it into the file.

use crate::cli::flags::{self, Flag, Section};
use crate::cli::sentence;
use crate::report::prometheus::FAMILIES;
use std::fmt::Write as _;

/// Makes a table in Markdown.
type Make = fn() -> String;

/// The tables by their names.
const TABLES: &[(&str, Make)] = &[
    ("options", || options(false)),
    ("options of passive", || options(true)),
    ("metrics", metrics),
    ("full", full_only),
];

/// Copies a page without what stands between its marks. Returns the length of the copy too.
///
/// `N` is at least this length.
pub(super) const fn without_tables<const N: usize>(page: &str) -> ([u8; N], usize) {
    let page = page.as_bytes();
    let mut copy = [0; N];
    let (mut at, mut length) = (0, 0);
    let (mut is_mark, mut is_inside) = (false, false);
    while at < page.len() {
        if at == 0 || page[at - 1] == b'\n' {
            // No other line begins like this, and each table has two marks.
            is_mark = page[at] == b'<';
            if is_mark {
                is_inside = !is_inside;
            }
        }
        if is_mark || !is_inside {
            copy[length] = page[at];
            length += 1;
        }
        at += 1;
    }
    (copy, length)
}

/// Returns a page with its tables.
pub(super) fn with_tables(page: &str) -> String {
    let mut page = page.to_owned();
    for (name, table) in TABLES {
        let mark = format!("<!-- {name} -->\n");
        if page.contains(&mark) {
            page = page.replace(&mark, &format!("{mark}\n{}\n", table()));
        }
    }
    page
}

/// The options of `passive`, or all others.
fn options(of_passive: bool) -> String {
    let mut table = "| option | default | meaning |\n| --- | --- | --- |\n".to_owned();
    let is_in = |flag: &&Flag| (flag.section == Section::Capture) == of_passive;
    for flag in flags::all().iter().filter(is_in) {
        table.push_str("| ");
        if let Some(short) = flag.short {
            let _ = write!(table, "`-{short}`, ");
        }
        let _ = write!(table, "`--{}", flag.long);
        if let Some(value) = flag.value {
            let _ = write!(table, " {value}");
        }
        table.push_str("` | ");
        if let Some(default) = flag.default {
            let _ = write!(table, "`{default}`");
        }
        let meaning = format!("{} {}", sentence(flag.brief), flag.help);
        let _ = writeln!(table, " | {} |", cell(meaning.trim_end()));
    }
    table
}

fn metrics() -> String {
    let mut table =
        "| metric | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for family in FAMILIES {
        let (name, unit, labels) = (family.name, family.unit, family.labels);
        let (kind, help) = (family.kind.name(), cell(family.help));
        let _ = writeln!(table, "| `{name}` | {kind} | {unit} | {labels} | {help} |");
    }
    table
}

/// The options and commands that a small build lacks.
fn full_only() -> String {
    format!("`{}`\n", flags::FULL_ONLY.join("`, `"))
}

/// Text of a cell: no character has a meaning in Markdown.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if "|[]*<>_".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_kept_without_its_tables_only() {
        const PAGE: &str = "# Page\n\n| own | row |\n\n<!-- full -->\n\nwords\n| row |\n\
            \n<!-- end -->\n\nends <here>\n";
        const COPY: ([u8; PAGE.len()], usize) = without_tables(PAGE);
        let kept = std::str::from_utf8(&COPY.0[..COPY.1]).unwrap();
        let expected = "# Page\n\n| own | row |\n\n<!-- full -->\n<!-- end -->\n\nends <here>\n";
        assert_eq!(kept, expected);
        let marks = format!("<!-- full -->\n\n{}\n<!-- end -->", full_only());
        let filled = expected.replace("<!-- full -->\n<!-- end -->", &marks);
        assert_eq!(with_tables(kept), filled);
    }
}
