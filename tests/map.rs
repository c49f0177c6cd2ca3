//! Holds the source tree against the map in `src/lib.rs`: which room may use which, one name per
//! visible type, the size of files and the width of lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The largest number of lines of a file in `src`, its tests not counted.
const LINES: usize = 600;
/// The largest number of characters of a line in any .rs file.
const COLUMNS: usize = 100;

/// A file of the tree: its path from the top, with `/`, and its text.
type File = (String, String);

/// Exceptions. One that is no longer needed is a failure, so that the lists can only shrink.
struct Exceptions<'a> {
    /// `(file, room it uses)`.
    arrows: &'a [(&'a str, &'a str)],
    types: &'a [&'a str],
    sizes: &'a [&'a str],
    /// Prefixes of paths.
    columns: &'a [&'a str],
}

const EXCEPTIONS: Exceptions = Exceptions {
    arrows: &[],
    types: &[],
    sizes: &[],
    columns: &[
        // Golden texts.
        "src/cli/parse.rs",
        "src/passive/tests/output.rs",
    ],
};

#[test]
fn the_tree_agrees_with_the_map_of_lib_rs() {
    let (found, _) = violations(&read_tree(), &EXCEPTIONS);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn no_exception_outlives_its_need() {
    let (_, stale) = violations(&read_tree(), &EXCEPTIONS);
    assert!(stale.is_empty(), "\n{}\n", stale.join("\n"));
}

/// The doc of `FULL` lists the files that it guards.
#[test]
fn the_constant_of_full_builds_lists_the_files_that_it_guards() {
    let files = read_tree();
    let text = |path: &str| &files.iter().find(|(known, _)| known == path).unwrap().1;
    let lib = text("src/lib.rs");
    let end = lib.find("pub const FULL:").expect("lib.rs defines FULL");
    let start = lib[..end].rfind("\n\n").unwrap();
    let listed: BTreeSet<String> = quoted(&lib[start..end])
        .into_iter()
        .filter(|name| name.ends_with(".rs"))
        .map(|name| format!("src/{name}"))
        .collect();
    let mut guarded = BTreeSet::new();
    for file in files.iter().filter(|(path, _)| is_product(path)) {
        let source = Source::new(file);
        let mut names = source
            .code
            .split(|c: char| !c.is_alphanumeric() && c != '_');
        if file.0 != "src/lib.rs" && names.any(|name| name == "FULL") {
            guarded.insert(file.0.clone());
        }
    }
    assert_eq!(listed, guarded);
}

/// Returns a line per violation, and a line per exception that nothing needs.
fn violations(files: &[File], exceptions: &Exceptions) -> (Vec<String>, Vec<String>) {
    let sources: Vec<Source> = files
        .iter()
        .filter(|(path, _)| is_product(path))
        .map(Source::new)
        .collect();
    let mut found = Vec::new();
    let mut stale: Vec<String> = Vec::new();

    let rooms = match files.iter().find(|(path, _)| path == "src/lib.rs") {
        Some((_, text)) => table(text),
        None => {
            return (
                vec!["src/lib.rs: no file, and no map".to_owned()],
                Vec::new(),
            )
        }
    };
    found.extend(rooms_without_row(&sources, &rooms));
    let mut used = BTreeSet::new();
    for arrow in arrows(&sources) {
        let Some(problem) = judge(&arrow, &rooms) else {
            continue;
        };
        match exceptions
            .arrows
            .iter()
            .find(|(file, room)| *file == arrow.file && *room == arrow.to)
        {
            Some(exception) => drop(used.insert(*exception)),
            None => found.push(format!("{}:{}: {problem}", arrow.file, arrow.line)),
        }
    }
    stale.extend(
        exceptions
            .arrows
            .iter()
            .filter(|e| !used.contains(*e))
            .map(|(file, room)| format!("{file} -> {room}")),
    );

    let doubled = doubled_types(&sources);
    for (name, places) in &doubled {
        if !exceptions.types.contains(&name.as_str()) {
            found.push(format!(
                "{}: type `{name}` is defined twice and visible outside",
                places.join(" and ")
            ));
        }
    }
    stale.extend(
        exceptions
            .types
            .iter()
            .filter(|e| !doubled.contains_key(**e))
            .map(|e| format!("type {e}")),
    );

    let long: BTreeMap<&str, usize> = sources
        .iter()
        .map(|s| (s.path.as_str(), s.lines_without_tests()))
        .filter(|(_, n)| *n > LINES)
        .collect();
    for (path, lines) in &long {
        if !exceptions.sizes.contains(path) {
            found.push(format!(
                "{path}:{lines}: {lines} lines without tests, at most {LINES}: split it"
            ));
        }
    }
    stale.extend(
        exceptions
            .sizes
            .iter()
            .filter(|e| !long.contains_key(**e))
            .map(|e| format!("size of {e}")),
    );

    let wide = wide_lines(files);
    for (path, line, columns) in &wide {
        if !exceptions
            .columns
            .iter()
            .any(|prefix| path.starts_with(prefix))
        {
            found.push(format!(
                "{path}:{line}: {columns} columns, at most {COLUMNS}"
            ));
        }
    }
    let needless = |prefix: &&&str| !wide.iter().any(|(path, ..)| path.starts_with(**prefix));
    stale.extend(
        exceptions
            .columns
            .iter()
            .filter(needless)
            .map(|e| format!("columns of {e}")),
    );

    found.sort();
    stale.sort();
    let stale = stale
        .iter()
        .map(|e| format!("tests/map.rs: remove the exception for {e}, nothing needs it"));
    (found, stale.collect())
}

// ---- the table -------------------------------------------------------------------------------

/// A row of the table in `lib.rs`.
#[derive(Debug, PartialEq)]
struct Room {
    floor: u32,
    /// The rooms of its own floor that it may use.
    beside: Vec<String>,
}

/// Reads the rows ``//! | 2 | [`wire`] | ... | uses |``.
fn table(lib: &str) -> BTreeMap<String, Room> {
    let mut rooms = BTreeMap::new();
    for line in lib.lines() {
        let Some(row) = line.strip_prefix("//! |") else {
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [floor, room, .., beside, ""] = cells[..] else {
            continue;
        };
        let Ok(floor) = floor.parse() else { continue };
        let names: Vec<String> = quoted(room);
        if let [name] = &names[..] {
            rooms.insert(
                name.clone(),
                Room {
                    floor,
                    beside: quoted(beside),
                },
            );
        }
    }
    rooms
}

/// Returns the words in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn rooms_without_row(sources: &[Source], rooms: &BTreeMap<String, Room>) -> Vec<String> {
    let there: BTreeMap<&str, &str> = sources
        .iter()
        .rev()
        .filter_map(|s| Some((s.room()?, s.path.as_str())))
        .collect();
    let missing = there.iter().filter(|(room, _)| !rooms.contains_key(**room));
    let empty = rooms
        .keys()
        .filter(|room| !there.contains_key(room.as_str()));
    missing
        .map(|(room, path)| {
            format!("{path}:1: room `{room}` has no row in the table of src/lib.rs")
        })
        .chain(
            empty.map(|room| {
                format!("src/lib.rs:1: the table has a row for `{room}`, which src lacks")
            }),
        )
        .collect()
}

// ---- arrows ----------------------------------------------------------------------------------

/// One use of a room by a file.
struct Arrow<'a> {
    file: &'a str,
    line: usize,
    from: &'a str,
    to: String,
}

/// Returns the problem with an arrow, `None` if the table allows it.
fn judge(arrow: &Arrow, rooms: &BTreeMap<String, Room>) -> Option<String> {
    let (from, to) = (arrow.from, arrow.to.as_str());
    // A room without a row is reported once, for itself.
    let (own, other) = (rooms.get(from)?, rooms.get(to));
    let Some(other) = other else {
        return Some(format!("`{from}` uses `crate::{to}`, which has no row"));
    };
    let allowed = from == to || other.floor < own.floor || own.beside.iter().any(|room| room == to);
    let (here, there) = (own.floor, other.floor);
    (!allowed).then(|| match here == there {
        true => {
            format!("`{from}` uses `{to}` on its own floor {here}, which its row does not name")
        }
        false => format!("`{from}` (floor {here}) uses `{to}` (floor {there}): an upward arrow"),
    })
}

/// Returns all uses of rooms: `crate::room`, `crate::{a::b, c}`, and `super::` up to the crate.
fn arrows<'a>(sources: &'a [Source]) -> Vec<Arrow<'a>> {
    let mut arrows = Vec::new();
    for source in sources {
        let Some(from) = source.room() else { continue };
        let to_top = "super::".repeat(source.depth());
        for start in ["crate::", to_top.as_str()] {
            for (at, _) in source.code.match_indices(start) {
                if source.code[..at]
                    .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
                {
                    continue;
                }
                for (offset, to) in first_segments(&source.code[at + start.len()..]) {
                    let line = source.line_of(at + start.len() + offset);
                    // `crate::FULL` and other constants of `lib.rs` belong to no room.
                    if to.starts_with(|c: char| c.is_lowercase()) && to != "super" {
                        arrows.push(Arrow {
                            file: &source.path,
                            line,
                            from,
                            to,
                        });
                    }
                }
            }
        }
    }
    arrows
}

/// Returns the first segment of each path in `room::x`, `{a::b, c::{d, e}}`, with its offset.
fn first_segments(code: &str) -> Vec<(usize, String)> {
    let Some(group) = code.strip_prefix('{') else {
        return Vec::from([(0, identifier(code))]);
    };
    let mut segments = Vec::new();
    let (mut depth, mut expected) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            c if expected && (c.is_alphanumeric() || c == '_') => {
                segments.push((at + 1, identifier(&group[at..])));
                expected = false;
            }
            _ => {}
        }
    }
    segments
}

fn identifier(code: &str) -> String {
    code.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

// ---- type names ------------------------------------------------------------------------------

/// Returns the places of each name that is visible outside its room and defined more than once.
fn doubled_types(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|s| s.room().is_some()) {
        for (line, name) in source.types() {
            if is_visible(source, &name, sources) {
                places
                    .entry(name)
                    .or_default()
                    .push(format!("{}:{line}", source.path));
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
}

/// Returns `true` if visible modules lead to the type, or a `pub use` in one of those names it.
fn is_visible(source: &Source, name: &str, sources: &[Source]) -> bool {
    if is_reachable(source, sources) {
        return true;
    }
    let module = source.module();
    let own_room = sources
        .iter()
        .filter(|s| s.room() == source.room() && is_reachable(s, sources));
    own_room
        .flat_map(Source::exports)
        .any(|(parent, leaf)| parent == module && (leaf == name || leaf == "*"))
}

/// Returns `true` if every `mod` on the way from the room to the file is `pub` or `pub(crate)`.
fn is_reachable(source: &Source, sources: &[Source]) -> bool {
    if source.depth() <= 1 {
        return true;
    }
    let Some(parent) = sources
        .iter()
        .find(|s| s.modules == source.modules[..source.depth() - 1])
    else {
        return false;
    };
    let declared = ["pub mod ", "pub(crate) mod "].iter().any(|vis| {
        let declaration = format!("{vis}{};", source.module());
        parent
            .code
            .lines()
            .any(|line| line.trim_start().starts_with(&declaration))
    });
    declared && is_reachable(parent, sources)
}

// ---- sizes -----------------------------------------------------------------------------------

fn wide_lines(files: &[File]) -> Vec<(&str, usize, usize)> {
    let numbered = files
        .iter()
        .flat_map(|(path, text)| text.lines().zip(1..).map(move |(line, n)| (path, n, line)));
    numbered
        .map(|(path, n, line)| (path.as_str(), n, line.chars().count()))
        .filter(|(.., columns)| *columns > COLUMNS)
        .collect()
}

// ---- reading ---------------------------------------------------------------------------------

/// Returns `true` for a file of the program; those in folders `tests` may use anything.
fn is_product(path: &str) -> bool {
    path.starts_with("src/") && !path.contains("/tests/")
}

/// A file of `src`, as the checks need it.
struct Source {
    path: String,
    lines: usize,
    /// The text with blanks instead of comments, literals and test-only items. Line breaks stay.
    code: String,
    /// Lines that test-only items take.
    test_lines: usize,
    /// The path of the module from the top of the crate; empty for `lib.rs` and `main.rs`.
    modules: Vec<String>,
}

impl Source {
    fn new((path, text): &File) -> Self {
        let mut code = without_comments(text);
        let test_lines = blank_tests(&mut code);
        let stem = path
            .trim_start_matches("src/")
            .trim_end_matches(".rs")
            .trim_end_matches("/mod");
        let modules = match stem {
            "lib" | "main" => Vec::new(),
            stem => stem.split('/').map(str::to_owned).collect(),
        };
        Self {
            path: path.clone(),
            lines: text.lines().count(),
            code,
            test_lines,
            modules,
        }
    }

    fn room(&self) -> Option<&str> {
        self.modules.first().map(String::as_str)
    }

    fn depth(&self) -> usize {
        self.modules.len().max(1)
    }

    fn module(&self) -> &str {
        self.modules.last().map_or("", String::as_str)
    }

    fn line_of(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }

    fn lines_without_tests(&self) -> usize {
        self.lines - self.test_lines
    }

    /// Returns the lines and names of the types that are `pub` or `pub(crate)`.
    fn types(&self) -> Vec<(usize, String)> {
        let named = |line: &str| {
            let line = line.trim_start();
            let item = ["pub ", "pub(crate) "]
                .iter()
                .find_map(|vis| line.strip_prefix(vis))?;
            let item = item.strip_prefix("unsafe ").unwrap_or(item);
            let name = ["struct ", "enum ", "trait ", "type ", "union "]
                .iter()
                .find_map(|kind| item.strip_prefix(kind))?;
            Some(identifier(name))
        };
        self.code
            .lines()
            .zip(1..)
            .filter_map(|(line, n)| Some((n, named(line)?)))
            .collect()
    }

    /// Returns module and name of each item in a `pub use`; the name `*` means the whole module.
    fn exports(&self) -> Vec<(String, String)> {
        let mut exports = Vec::new();
        for vis in ["pub use ", "pub(crate) use "] {
            for (at, _) in self.code.match_indices(vis) {
                let tree = self.code[at + vis.len()..]
                    .split(';')
                    .next()
                    .unwrap_or_default();
                leaves("", tree, &mut exports);
            }
        }
        exports
    }
}

/// Collects the leaves of a `use` tree, each with the module it is in.
fn leaves(parent: &str, tree: &str, found: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    if let Some(group) = tree.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(parent, &group[start..at], found);
                    start = at + 1;
                }
                _ => {}
            }
        }
    } else if let Some((module, rest)) = tree.split_once("::") {
        leaves(module.trim(), rest, found);
    } else if !tree.is_empty() {
        let leaf = tree.split_whitespace().next().unwrap_or_default();
        found.push((parent.to_owned(), leaf.to_owned()));
    }
}

/// Replaces comments and the contents of literals by blanks; line breaks stay.
fn without_comments(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    // Length of what begins at `at` and is to be blanked.
    let literal_len = |at: usize| -> usize {
        let rest = &chars[at..];
        let until = |from: usize, end: &[char]| {
            (from..rest.len())
                .find(|i| rest[*i..].starts_with(end))
                .map_or(rest.len(), |i| i + end.len())
        };
        let in_word = at > 0
            && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
            && chars[at - 1] != 'b';
        match rest {
            ['/', '/', ..] => until(2, &['\n']).saturating_sub(1).max(2),
            ['/', '*', ..] => until(2, &['*', '/']),
            ['r', '"' | '#', ..] if !in_word => {
                let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
                if rest.get(1 + hashes) != Some(&'"') {
                    return 0;
                }
                let end: Vec<char> = std::iter::once('"')
                    .chain(std::iter::repeat('#').take(hashes))
                    .collect();
                until(2 + hashes, &end)
            }
            ['"', ..] => {
                let mut end = 1;
                while end < rest.len() && rest[end] != '"' {
                    end += if rest[end] == '\\' { 2 } else { 1 };
                }
                (end + 1).min(rest.len())
            }
            ['\'', '\\', ..] => until(3, &['\'']),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        }
    };
    while at < chars.len() {
        let end = at + literal_len(at).max(1);
        if end == at + 1 {
            code.push(chars[at]);
        } else {
            code.extend(
                chars[at..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
        }
        at = end;
    }
    code
}

/// Blanks the items under `#[cfg(test)]` and returns the number of their lines.
fn blank_tests(code: &mut String) -> usize {
    const MARKS: [&str; 3] = ["#[cfg(test)]", "#[cfg(all(test", "#![cfg(test)]"];
    let mut lines = 0;
    while let Some((start, mark)) = MARKS
        .iter()
        .filter_map(|mark| Some((code.find(mark)?, *mark)))
        .min()
    {
        let end = if mark.starts_with("#!") {
            code.len()
        } else {
            item_end(code, start)
        };
        let item = &code[start..end];
        lines += item.lines().count();
        let blank: String = item
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        code.replace_range(start..end, &blank);
    }
    lines
}

/// Returns the end of the item whose first attribute starts at `start`.
fn item_end(code: &str, start: usize) -> usize {
    let (mut depth, mut in_attribute, mut is_use) = (0_i32, false, false);
    for (at, c) in code[start..].char_indices().map(|(at, c)| (start + at, c)) {
        match c {
            '#' if depth == 0 => in_attribute = true,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth < 0 {
                    return at;
                }
                if depth == 0 && in_attribute {
                    in_attribute = false;
                    is_use = code[at + 1..]
                        .trim_start()
                        .trim_start_matches("pub ")
                        .starts_with("use ");
                } else if depth == 0 && c == '}' && !is_use {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn read_tree() -> Vec<File> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["src", "tests"]
        .iter()
        .map(|folder| top.join(folder))
        .collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(top)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/");
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

// ---- the checks, checked ---------------------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Exceptions = Exceptions {
        arrows: &[],
        types: &[],
        sizes: &[],
        columns: &[],
    };
    const LIB: &str = "//! | floor | room | turns | into | uses on its own floor |\n\
                       //! |---|---|---|---|---|\n\
                       //! | 0 | [`leaf`] | a | b | |\n\
                       //! | 1 | [`low`] | a | b | |\n\
                       //! | 2 | [`left`] | a | b | [`right`] |\n\
                       //! | 2 | [`right`] | a | b | |\n";

    /// A tree that agrees with its map, and `planted`, which replaces files of the same path.
    fn tree(planted: &[(&str, &str)]) -> Vec<File> {
        let clean = [
            ("src/lib.rs", LIB),
            ("src/leaf.rs", "pub struct Leaf;\n"),
            ("src/left.rs", "use crate::right::Right;\n"),
            ("src/low/mod.rs", "use crate::leaf::Leaf;\nmod inner;\n"),
            ("src/low/inner.rs", "pub struct Inner;\n"),
            (
                "src/right.rs",
                "use crate::{leaf, low};\npub struct Right;\n",
            ),
        ];
        let mut files: BTreeMap<&str, &str> = clean.into();
        files.extend(planted.iter().copied());
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn found(planted: &[(&str, &str)]) -> Vec<String> {
        violations(&tree(planted), &NONE).0
    }

    #[test]
    fn a_tree_that_keeps_to_its_map_has_no_violation() {
        assert_eq!(found(&[]), [""; 0]);
    }

    #[test]
    fn an_arrow_upwards_is_found_however_it_is_written() {
        let expected =
            ["src/low/inner.rs:2: `low` (floor 1) uses `right` (floor 2): an upward arrow"];
        for text in [
            "\nuse crate::right::Right;\n",
            "use crate::{\n    right::Right, leaf::{Leaf},\n};\n",
            "use crate::{leaf::{Leaf},\n    right};\n",
            "\nfn f() -> crate::right::Right { make() }\n",
            "\nuse super::super::right::Right;\n",
            "/* \" */\nuse crate::right::Right; // \"\n",
            "const QUOTE: char = '\"';\nuse crate::right::Right; // \"\n",
            "#[cfg(test)] fn f(x: [u8; 3]) { g() }\nuse crate::right::Right;\n",
        ] {
            assert_eq!(found(&[("src/low/inner.rs", text)]), expected, "{text}");
        }
    }

    #[test]
    fn rooms_of_one_floor_use_those_alone_that_their_rows_name() {
        assert_eq!(
            found(&[("src/right.rs", "use crate::left::Left;\n")]),
            ["src/right.rs:1: `right` uses `left` on its own floor 2, which its row does not name"]
        );
    }

    #[test]
    fn tests_comments_and_strings_may_name_any_room() {
        for text in [
            "//! See [`crate::right`].\n/* crate::right::Right */\n",
            "const TEXT: &str = \"use crate::right::Right;\";\n",
            "const TEXT: &str = r#\"\"use crate::right::Right;\"#;\n",
            "#[cfg(test)]\nuse crate::right::Right;\n",
            "#[cfg(test)]\nuse crate::{right::Right, leaf};\n",
            "#[cfg(test)]\n#[allow(unused)]\nmod tests {\n    use crate::right::Right;\n}\n",
        ] {
            assert_eq!(found(&[("src/low/inner.rs", text)]), [""; 0], "{text}");
        }
        assert_eq!(
            found(&[("src/low/tests/mod.rs", "use crate::right::Right;\n")]),
            [""; 0]
        );
    }

    #[test]
    fn a_room_without_a_row_and_a_row_without_a_room_are_found() {
        let room = found(&[("src/attic/mod.rs", "")]);
        assert_eq!(
            room,
            ["src/attic/mod.rs:1: room `attic` has no row in the table of src/lib.rs"]
        );
        let lib = format!("{LIB}//! | 3 | [`cellar`] | a | b | |\n");
        let row = found(&[("src/lib.rs", &lib)]);
        assert_eq!(
            row,
            ["src/lib.rs:1: the table has a row for `cellar`, which src lacks"]
        );
        let used = found(&[("src/right.rs", "fn f() { crate::shed::open() }\n")]);
        assert_eq!(
            used,
            ["src/right.rs:1: `right` uses `crate::shed`, which has no row"]
        );
    }

    #[test]
    fn a_type_name_that_two_rooms_show_is_found() {
        let expected = [
            "src/leaf.rs:1 and src/right.rs:1: type `Leaf` is defined twice and visible outside",
        ];
        assert_eq!(found(&[("src/right.rs", "pub enum Leaf {}\n")]), expected);
        assert_eq!(
            found(&[("src/right.rs", "pub(crate) type Leaf = u8;\n")]),
            expected
        );
        assert_eq!(found(&[("src/right.rs", "struct Leaf;\n")]), [""; 0]);
        assert_eq!(
            found(&[("src/right.rs", "pub(super) struct Leaf;\n")]),
            [""; 0]
        );
    }

    #[test]
    fn a_type_in_a_private_module_counts_if_its_room_exports_it() {
        let twin = ("src/right.rs", "pub struct Inner;\n");
        assert_eq!(found(&[twin]), [""; 0]);
        let expected = "src/low/inner.rs:1 and src/right.rs:1: \
             type `Inner` is defined twice and visible outside";
        for room in [
            "mod inner;\npub use inner::Inner;\n",
            "mod inner;\npub(crate) use self::{inner::{Inner}};\n",
            "mod inner;\npub use inner::*;\n",
            "pub mod inner;\n",
        ] {
            assert_eq!(
                found(&[twin, ("src/low/mod.rs", room)]),
                [expected],
                "{room}"
            );
        }
        assert_eq!(
            found(&[
                twin,
                ("src/low/mod.rs", "mod inner;\npub use other::Inner;\n")
            ]),
            [""; 0]
        );
    }

    #[test]
    fn a_file_of_601_lines_is_found_and_its_tests_do_not_count() {
        let full = "const A: u8 = 0;\n".repeat(600);
        assert_eq!(found(&[("src/leaf.rs", &full)]), [""; 0]);
        let tested = format!("{full}#[cfg(test)]\nmod tests {{\n    fn f() {{}}\n}}\n");
        assert_eq!(found(&[("src/leaf.rs", &tested)]), [""; 0]);
        assert_eq!(
            found(&[("src/leaf.rs", &format!("{full}\n"))]),
            ["src/leaf.rs:601: 601 lines without tests, at most 600: split it"]
        );
    }

    #[test]
    fn a_line_of_101_columns_is_found_in_the_program_and_in_tests() {
        let line = format!("//{}\n", "ä".repeat(98));
        assert_eq!(
            found(&[("src/leaf.rs", &line), ("tests/chain.rs", &line)]),
            [""; 0]
        );
        let line = format!("\n//{}\n", "ä".repeat(99));
        assert_eq!(
            found(&[("src/leaf.rs", &line), ("tests/chain.rs", &line)]),
            [
                "src/leaf.rs:2: 101 columns, at most 100",
                "tests/chain.rs:2: 101 columns, at most 100"
            ]
        );
    }

    #[test]
    fn an_exception_silences_its_violation_and_is_one_itself_when_nothing_needs_it() {
        let exceptions = Exceptions {
            arrows: &[("src/low/inner.rs", "right")],
            types: &["Leaf"],
            sizes: &["src/left.rs"],
            columns: &["tests/"],
        };
        let (long, wide) = ("\n".repeat(601), "x".repeat(101));
        let planted = [
            (
                "src/low/inner.rs",
                "use crate::right::Right;\npub struct Leaf;\n",
            ),
            ("src/low/mod.rs", "pub mod inner;\n"),
            ("src/left.rs", &long),
            ("tests/chain.rs", &wide),
        ];
        let (found, stale) = violations(&tree(&planted), &exceptions);
        assert_eq!((found, stale), (vec![], vec![]));
        let stale =
            |what: &str| format!("tests/map.rs: remove the exception for {what}, nothing needs it");
        assert_eq!(
            violations(&tree(&[]), &exceptions).1,
            [
                "columns of tests/",
                "size of src/left.rs",
                "src/low/inner.rs -> right",
                "type Leaf"
            ]
            .map(stale)
        );
    }
}
