//! A page of the manual as plain text.

use crate::cli::wrapped;
use std::fmt::Write as _;

/// Makes plain text of a page: headings in capitals, wrapped paragraphs, tables as lists, and code.
pub(super) fn render(page: &str) -> String {
    let mut out = String::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            // Reports take the whole width.
            let indent = if kind == "text" { "" } else { "    " };
            for code in lines.by_ref().take_while(|line| *line != "```") {
                let _ = writeln!(out, "{}", format!("{indent}{code}").trim_end());
            }
        } else if let Some(heading) = line.strip_prefix('#') {
            let heading = heading.trim_start_matches('#').trim();
            let _ = writeln!(out, "{}", plain(heading).to_uppercase());
        } else if let Some(header) = cells(line) {
            lines.next(); // The line of dashes.
            while let Some(row) = lines.peek().copied().and_then(cells) {
                push_row(&mut out, &header, &row);
                lines.next();
            }
        } else if line.trim().is_empty() {
            if !out.is_empty() && !out.ends_with("\n\n") {
                out.push('\n');
            }
        } else if !line.starts_with("<!--") {
            let mut text = line.to_owned();
            let goes_on = |line: &&str| {
                !line.trim().is_empty() && !line.starts_with("- ") && !line.starts_with("```")
            };
            while let Some(more) = lines.next_if(goes_on) {
                text = text + " " + more.trim();
            }
            push_paragraph(&mut out, &text);
        }
    }
    out
}

fn push_paragraph(out: &mut String, text: &str) {
    let (mark, indent) = match text.get(..2) {
        Some("- ") => ("- ", 2),
        Some("> ") => ("  ", 2),
        _ => ("", 0),
    };
    let wrapped = wrapped(&plain(&text[mark.len()..]), indent);
    // The mark stands in the place of the first indentation.
    out.push_str(mark);
    out.push_str(&wrapped[indent..]);
}

/// Writes a row: the first cell, in brackets those between it and the last one; the last one below.
fn push_row(out: &mut String, header: &[String], row: &[String]) {
    let first = row.first().map_or("", String::as_str).replace('`', "");
    let mut title = plain(&first);
    let (last, between) = match row {
        [_, between @ .., last] => (last.as_str(), between),
        _ => ("", &[][..]),
    };
    let named = between.iter().zip(header.iter().skip(1));
    let named: Vec<String> = named
        .filter(|(cell, _)| !cell.is_empty())
        .map(|(cell, name)| format!("{name} {}", plain(cell).replace('`', "")))
        .collect();
    if !named.is_empty() {
        let _ = write!(title, " ({})", named.join("; "));
    }
    out.push_str(&wrapped(&title, 2));
    if !last.is_empty() {
        out.push_str(&wrapped(&plain(last), 6));
    }
}

/// The cells of a row of a table; `None` for a line that is no row.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    // A bar within a cell has a backslash before it.
    let inner = inner.replace("\\|", "\u{0}");
    let cells = inner.split('|');
    Some(
        cells
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect(),
    )
}

/// Takes emphasis, backslashes before marks, and the addresses of links out of a line.
fn plain(text: &str) -> String {
    let mut text = text.replace("**", "");
    for mark in ["[", "]", "*", "<", ">", "_"] {
        text = text.replace(&format!("\\{mark}"), mark);
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("](") {
        let (before, after) = rest.split_at(at);
        let Some((open, end)) = before.rfind('[').zip(after.find(')')) else {
            break;
        };
        out.push_str(&before[..open]);
        out.push_str(&before[open + 1..]);
        rest = &after[end + 1..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_has_its_shape() {
        let page = "# A *page*\n\nOne [link](http://x/y) and **bold**\nwords.\n\n\
            - first\n  more\n- second\n\n\
            | name | unit | meaning |\n| --- | --- | --- |\n\
            | `x_y` | s | a \\| \\[b\\]\\* |\n| `z` | | |\n\n```sh\nrun it\n```\n\n\
            <!-- no text -->\n> quoted\n\n```text\nwide\n```\n";
        let expected = "A *PAGE*\n\nOne link and bold words.\n\n- first more\n- second\n\n\
            \x20 x_y (unit s)\n      a | [b]*\n  z\n\n    run it\n\n  quoted\n\nwide\n";
        assert_eq!(render(page), expected);
    }

    #[test]
    fn no_word_is_lost_in_wrapping() {
        let words = "some longer words ".repeat(30);
        let text = render(&format!("- {words}"));
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
        let shown = text.trim_start_matches("- ").split_whitespace();
        assert!(shown.eq(words.split_whitespace()), "{text}");
    }
}
