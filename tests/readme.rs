//! README.md, the manual and scripts/check are held against the tables of the program and against
//! the tests.

#[path = "util/examples.rs"]
mod examples;
#[path = "util/json.rs"]
mod json;

use examples::README;
use json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use subsegment_tcp_speeds::cli::flags::{self, Flag, Section};
use subsegment_tcp_speeds::manual::TOPICS;
use subsegment_tcp_speeds::report::prometheus::FAMILIES;

const CHECK: &str = include_str!("../scripts/check");

/// A page of the manual.
fn page(name: &str) -> &'static str {
    TOPICS
        .iter()
        .find(|topic| topic.name == name)
        .expect(name)
        .page
}

#[test]
fn the_readme_is_short_and_begins_with_the_two_commands_and_the_question() {
    assert!(README.lines().count() <= 200, "{}", README.lines().count());
    let first: Vec<_> = README.lines().take(40).collect();
    assert!(
        first[2].starts_with("    cargo run --release -- demo"),
        "{}",
        first[2]
    );
    assert!(first[3].starts_with("    scripts/check"), "{}", first[3]);
    let first = first.join("\n");
    for part in [
        "> Which sub-segment",
        "Verdict: ",
        "process on each host",
        "mtr is the better tool",
        "MiB",
        "cannot find",
        "Maturity",
    ] {
        assert!(first.contains(part), "the first screen lacks {part:?}");
    }
}

#[test]
fn the_readme_lists_every_topic() {
    for topic in TOPICS {
        let row = format!(
            "| [{0}](src/manual/{0}.md) | {1} |",
            topic.name, topic.brief
        );
        assert!(README.contains(&row), "{row}");
    }
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

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn options(is_in: impl Fn(&Flag) -> bool) -> String {
    let mut table = "| option | default | meaning |\n| --- | --- | --- |\n".to_owned();
    for flag in flags::all().iter().filter(|flag| is_in(flag)) {
        let short = flag
            .short
            .map_or_else(String::new, |short| format!("`-{short}`, "));
        let value = flag
            .value
            .map_or_else(String::new, |value| format!(" {value}"));
        let default = flag
            .default
            .map_or_else(String::new, |default| format!("`{default}`"));
        let meaning = format!("{}. {}", sentence(flag.brief), flag.help);
        let meaning = cell(meaning.trim_end());
        table += &format!(
            "| {short}`--{}{value}` | {default} | {meaning} |\n",
            flag.long
        );
    }
    table
}

fn metrics() -> String {
    let mut table =
        "| metric | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for family in FAMILIES {
        let kind = format!("{:?}", family.kind).to_lowercase();
        let (name, unit, labels) = (family.name, family.unit, family.labels);
        table += &format!(
            "| `{name}` | {kind} | {unit} | {labels} | {} |\n",
            cell(family.help)
        );
    }
    table
}

fn full_only() -> String {
    let names = flags::FULL_ONLY.iter().map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ") + "\n"
}

/// Compares the part of a page between its marks with what the program has. `BLESS=1` writes it
/// into the page.
fn assert_generated(name: &str, mark: &str, table: &str) {
    let begin = format!("<!-- {mark} -->\n\n");
    let (before, rest) = page(name)
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{name} lacks {begin}"));
    let (found, after) = rest
        .split_once("\n<!-- end -->")
        .unwrap_or_else(|| panic!("{name}: no end of {mark}"));
    if found != table && std::env::var_os("BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/manual/{name}.md"));
        std::fs::write(path, format!("{before}{begin}{table}\n<!-- end -->{after}")).unwrap();
        panic!("src/manual/{name}.md is written anew");
    }
    for (found, expected) in found.lines().zip(table.lines()) {
        assert_eq!(found, expected, "help {name}: run this test with BLESS=1");
    }
    assert_eq!(found, table, "help {name}: run this test with BLESS=1");
}

#[test]
fn the_options_of_the_manual_are_those_of_the_program() {
    assert_generated(
        "options",
        "options",
        &options(|flag| flag.section != Section::Capture),
    );
}

#[test]
fn the_options_of_passive_in_the_manual_are_those_of_the_program() {
    assert_generated(
        "options",
        "options of passive",
        &options(|flag| flag.section == Section::Capture),
    );
}

#[test]
fn the_metrics_of_the_manual_are_those_of_the_program() {
    assert_generated("metrics", "metrics", &metrics());
}

#[test]
fn the_manual_lists_what_a_small_build_lacks() {
    assert_generated("operate", "full", &full_only());
}

fn keys_of(value: &Value, keys: &mut BTreeSet<String>) {
    for key in value.keys().unwrap_or_default() {
        keys.insert(key.to_owned());
        // The names of annotations are in the topic annotations.
        if key != "annotations" {
            keys_of(value.at(key).expect("it is listed"), keys);
        }
    }
    for item in value.as_array().unwrap_or_default() {
        keys_of(item, keys);
    }
}

#[test]
fn every_key_of_the_json_report_is_explained() {
    let report = json::parse(include_bytes!("golden/report_full.json")).expect("a golden file");
    let mut keys = BTreeSet::new();
    keys_of(&report, &mut keys);
    assert!(keys.len() > 50, "only {} keys", keys.len());
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !page("formats").contains(&format!("`{key}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The text of every `.rs` file under `dir`.
fn sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn scripts_check_installs_every_program_that_a_test_asks_for() {
    let installed: BTreeSet<_> = CHECK
        .split_once("needed='\n")
        .and_then(|(_, rest)| rest.split_once("\n'"))
        .expect("a table")
        .0
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let program = words.next().expect("no empty rows");
            assert!(words.next().is_some(), "{program} has no package");
            program
        })
        .collect();
    assert!(installed.contains("cc"), "{installed:?}");
    let tests = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    // Split so that these lines do not ask for anything themselves.
    let single = tests.split(concat!("need", "(\"")).skip(1);
    let mut asked: BTreeSet<_> = single.filter_map(|rest| rest.split('"').next()).collect();
    for rest in tests.split(concat!("require", "(&[")).skip(1) {
        let list = rest.split(']').next().unwrap_or(rest);
        asked.extend(list.split('"').skip(1).step_by(2));
    }
    for program in ["promtool", "tshark", "nginx"] {
        assert!(asked.contains(program), "nothing asks for {program} now");
    }
    for program in asked {
        assert!(installed.contains(program), "the table lacks {program}");
    }
}
