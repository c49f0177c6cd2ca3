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
use subsegment_tcp_speeds::cli::flags;
use subsegment_tcp_speeds::manual::TOPICS;
use subsegment_tcp_speeds::report::prometheus::FAMILIES;

const CHECK: &str = include_str!("../scripts/check");

/// A page of the manual.
fn page(name: &str) -> String {
    let topic = TOPICS.iter().find(|topic| topic.name == name);
    topic.expect(name).page()
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

/// The tables that the program makes are in the files too, for readers of the source. `BLESS=1`
/// writes them there.
#[test]
fn the_files_of_the_manual_are_the_pages_that_the_program_shows() {
    for topic in TOPICS {
        let name = topic.name;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/manual/{name}.md"));
        let file = std::fs::read_to_string(&path).unwrap();
        if file != topic.page() && std::env::var_os("BLESS").is_some() {
            std::fs::write(path, topic.page()).unwrap();
            panic!("src/manual/{name}.md is written anew");
        }
        for (found, expected) in file.lines().zip(topic.page().lines()) {
            assert_eq!(found, expected, "help {name}: run this test with BLESS=1");
        }
        assert_eq!(
            file,
            topic.page(),
            "help {name}: run this test with BLESS=1"
        );
    }
}

#[test]
fn the_manual_has_each_option_metric_and_word_that_a_small_build_lacks_once() {
    let rows = |name: &str, start: &str| {
        let is_row = |line: &&str| line.starts_with(start);
        page(name).lines().filter(is_row).count()
    };
    let options = rows("options", "| `-");
    assert_eq!(options, flags::all().len());
    assert_eq!(rows("metrics", "| `subsegment_"), FAMILIES.len());
    let operate = page("operate");
    for name in flags::FULL_ONLY {
        assert!(operate.contains(&format!("`{name}`")), "{name}");
    }
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
