//! Text in the columns of a terminal: its width, shortened to a width, and wrapped.

/// Characters without a width: combining marks of the scripts in use, joiners and variation
/// selectors.
const COMBINING: &[(u32, u32)] = &[
    (0x300, 0x36f),
    (0x483, 0x489),
    (0x591, 0x5bd),
    (0x5bf, 0x5bf),
    (0x5c1, 0x5c2),
    (0x5c4, 0x5c5),
    (0x5c7, 0x5c7),
    (0x610, 0x61a),
    (0x64b, 0x65f),
    (0x670, 0x670),
    (0x6d6, 0x6dc),
    (0x6df, 0x6e4),
    (0x6e7, 0x6e8),
    (0x6ea, 0x6ed),
    (0x900, 0x902),
    (0x93a, 0x93a),
    (0x93c, 0x93c),
    (0x941, 0x948),
    (0x94d, 0x94d),
    (0x951, 0x957),
    (0x962, 0x963),
    (0xe31, 0xe31),
    (0xe34, 0xe3a),
    (0xe47, 0xe4e),
    (0x1160, 0x11ff),
    (0x1ab0, 0x1aff),
    (0x1dc0, 0x1dff),
    (0x200b, 0x200f),
    (0x20d0, 0x20ff),
    (0x3099, 0x309a),
    (0xfe00, 0xfe0f),
    (0xfe20, 0xfe2f),
    (0xe0100, 0xe01ef),
];

/// Characters of two columns: East Asian scripts, full-width forms, emoji.
const WIDE: &[(u32, u32)] = &[
    (0x1100, 0x115f),
    (0x231a, 0x231b),
    (0x23e9, 0x23ec),
    (0x26a1, 0x26a1),
    (0x2705, 0x2705),
    (0x274c, 0x274c),
    (0x2757, 0x2757),
    (0x2b50, 0x2b50),
    (0x2e80, 0x303e),
    (0x3041, 0x3098),
    (0x309b, 0x4dbf),
    (0x4e00, 0xa4cf),
    (0xa960, 0xa97f),
    (0xac00, 0xd7a3),
    (0xf900, 0xfaff),
    (0xfe30, 0xfe6f),
    (0xff01, 0xff60),
    (0xffe0, 0xffe6),
    (0x1f18e, 0x1f18e),
    (0x1f191, 0x1f19a),
    (0x1f200, 0x1f320),
    (0x1f32d, 0x1f335),
    (0x1f337, 0x1f37c),
    (0x1f37e, 0x1f393),
    (0x1f3a0, 0x1f3ca),
    (0x1f400, 0x1f43e),
    (0x1f440, 0x1f440),
    (0x1f442, 0x1f4fc),
    (0x1f4ff, 0x1f53d),
    (0x1f5fb, 0x1f64f),
    (0x1f680, 0x1f6c5),
    (0x1f900, 0x1f9ff),
    (0x1fa70, 0x1faff),
    (0x20000, 0x3fffd),
];

/// Returns the columns that a terminal needs for `c`: 0, 1 or 2.
fn char_width(c: char) -> usize {
    let code = u32::from(c);
    let within = |ranges: &[(u32, u32)]| {
        let at = ranges.partition_point(|range| range.1 < code);
        ranges.get(at).is_some_and(|range| range.0 <= code)
    };
    match code {
        0..=0x2ff => 1, // Most text.
        _ if within(COMBINING) => 0,
        _ if within(WIDE) => 2,
        _ => 1,
    }
}

/// Returns the columns that a terminal needs for `text`, which has no control characters.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Returns `text` with spaces behind it up to `columns`; a longer text stays as it is.
pub fn pad(text: &str, columns: usize) -> String {
    let spaces = columns.saturating_sub(width(text));
    format!("{text}{:spaces$}", "")
}

/// Returns the longest prefix of `text` that fits in `columns`, combining marks included.
pub fn prefix(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|&(_, c)| {
        used += char_width(c);
        used > columns
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// Returns the longest suffix of `text` that fits in `columns` and begins with no combining mark.
fn suffix(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        used += char_width(c);
        if used > columns {
            break;
        }
        if char_width(c) > 0 {
            start = at;
        }
    }
    &text[start..]
}

/// Returns `name` in at most `columns`; `~` replaces the part that is cut out.
///
/// The first label of a host name is kept whole if it fits. Otherwise the middle is cut out, so
/// that names that differ only in their first or last characters still differ.
pub fn shorten(name: &str, columns: usize) -> String {
    if width(name) <= columns {
        return name.to_owned();
    }
    if columns == 0 {
        return String::new();
    }
    let room = columns - 1;
    let host = match name.split_once('.') {
        Some((label, _)) if label.chars().any(char::is_alphabetic) => label,
        _ => name,
    };
    if width(host) <= room {
        return format!("{}~", prefix(name, room));
    }
    if width(host) == columns {
        return host.to_owned();
    }
    let end = if room == 1 { 1 } else { room / 2 };
    format!("{}~{}", prefix(host, room - end), suffix(host, end))
}

/// Breaks `text` at spaces into lines of at most `columns`.
///
/// `indent` are the spaces before every line but the first, which keeps its own. A word that no
/// line holds is cut.
pub fn wrap(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let later_indent = " ".repeat(indent);
    let start = text.len() - text.trim_start_matches(' ').len();
    let (mut indent, mut rest) = text.split_at(start);
    let mut lines = Vec::new();
    loop {
        let room = columns.saturating_sub(indent.len());
        let fitting = prefix(rest, room).len();
        if fitting == rest.len() {
            lines.push(format!("{indent}{rest}").trim_end().to_owned());
            break;
        }
        let space_fits = rest[fitting..].starts_with(' ');
        let end = match rest[..fitting + usize::from(space_fits)].rfind(' ') {
            Some(at) => at,
            // At least one character goes, whatever its width.
            None => fitting.max(rest.chars().next().map_or(0, char::len_utf8)),
        };
        lines.push(format!("{indent}{}", &rest[..end]).trim_end().to_owned());
        rest = rest[end..].trim_start_matches(' ');
        if rest.is_empty() {
            break;
        }
        indent = &later_indent;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_a_terminal() {
        for (text, columns) in [
            ("", 0),
            ("Zürich", 6),
            ("Zu\u{308}rich", 6),
            ("北京", 4),
            ("서울", 4),
            ("ﾊﾝ", 2),
            ("a\u{1f680}b", 4),
            ("->", 2),
            ("\u{2192}", 1),
        ] {
            assert_eq!(width(text), columns, "{text}");
        }
        assert_eq!(pad("北京", 6) + "|", "北京  |");
        for ranges in [COMBINING, WIDE] {
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    #[test]
    fn shortened_names_still_differ_at_either_end() {
        for (name, columns, expected) in [
            ("frankfurt-1", 11, "frankfurt-1"),
            ("frankfurt-1", 8, "fran~t-1"),
            ("frankfurt-2", 8, "fran~t-2"),
            ("frankfurt-1", 3, "f~1"),
            ("frankfurt-1", 2, "~1"),
            ("frankfurt-1", 1, "~"),
            ("frankfurt-1", 0, ""),
            ("web-1.example.com", 8, "web-1.e~"),
            ("frankfurt-1.example.com", 11, "frankfurt-1"),
            ("frankfurt-1.example.com", 8, "fran~t-1"),
            ("192.0.2.117", 8, "192.~117"),
            ("北京上海", 6, "北~海"),
        ] {
            assert_eq!(shorten(name, columns), expected, "{name} {columns}");
        }
    }

    #[test]
    fn wrapped_lines_fit_and_lose_no_word() {
        let mut seed = 7_u64;
        for _ in 0..2_000 {
            let mut random = |below: u64| {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (seed >> 33) % below
            };
            let letters = ['a', 'b', ' ', ' ', 'é', '京', '\u{301}'];
            let text: String = (0..random(200))
                .map(|_| letters[random(7) as usize])
                .collect();
            let columns = 5 + random(80) as usize;
            let lines = wrap(&text, columns, 2);
            assert!(
                lines.iter().all(|line| width(line) <= columns),
                "{text:?} {columns}"
            );
            let letters = |text: &str| text.replace(' ', "");
            assert_eq!(letters(&lines.concat()), letters(&text), "{columns}");
        }
        assert_eq!(wrap("ab cd", 4, 2), ["ab", "  cd"]);
        assert_eq!(wrap("- ab   cd", 9, 2), ["- ab   cd"]);
    }
}
