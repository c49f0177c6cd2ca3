//! What README.md and scripts/check say is held against the tables of the program and against the tests.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use subsegment_tcp_speeds::cli::{self, flags, Action, PROGRAM};
use subsegment_tcp_speeds::passive_cli;
use subsegment_tcp_speeds::report::json::read::{self, Value};

const README: &str = include_str!("../README.md");
const CHECK: &str = include_str!("../scripts/check");

/// The options as the table of a section has them: `` `-l`, `--listen ADDR` ``, the default, the meaning.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = README.split(&format!("\n{heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap_or(section);
    section
        .lines()
        .filter(|line| line.starts_with("| `-"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_option_has_its_row_and_every_row_its_option() {
    let main = flags::all().iter();
    let main = main.map(|f| (f.short, f.long, f.value, f.default));
    assert_table("## Options", main.collect());
    let passive = passive_cli::FLAGS.iter();
    let value = |value: &'static str| Some(value).filter(|value| !value.is_empty());
    let passive = passive.map(|f| (f.short, f.long, value(f.value), f.default()));
    assert_table("## From a capture: passive", passive.collect());
}

/// Short name, long name, value and default.
type Described = (
    Option<char>,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
);

fn assert_table(heading: &str, flags: Vec<Described>) {
    let rows = rows(heading);
    for (short, long, value, default) in &flags {
        let value = value.map_or_else(String::new, |v| format!(" {v}"));
        let long = format!("`--{long}{value}`");
        let cell = match short {
            Some(short) => format!("`-{short}`, {long}"),
            None => long,
        };
        let row = rows.iter().find(|row| row[0] == cell);
        let row = row.unwrap_or_else(|| panic!("{heading} lacks {cell}"));
        if let Some(default) = default {
            assert_eq!(row[1], format!("`{default}`"), "default of {cell}");
        }
        assert!(row[2].len() > 4, "{cell} says nothing");
    }
    assert_eq!(
        rows.len(),
        flags.len(),
        "{heading}: a row for what is no option"
    );
}

/// Splits as a shell does where there are no quotes, up to what is not the program's: a comment, a redirection, `&`.
fn arguments(command: &str) -> Vec<OsString> {
    let ends = |word: &str| word.starts_with(['#', '<', '>', '|', '&', ';']);
    let words = command.split_whitespace();
    words.take_while(|w| !ends(w)).map(OsString::from).collect()
}

#[test]
fn every_command_can_be_typed_as_it_stands() {
    let called = format!("{PROGRAM} ");
    let mut commands = BTreeSet::new();
    for line in README.lines().filter(|line| line.starts_with("    ")) {
        // After a prompt, or after the five fields of a crontab.
        let is_typed = line.contains("$ ") || line.contains("* * ");
        let Some((before, command)) = line.split_once(&called).filter(|_| is_typed) else {
            continue;
        };
        if before.ends_with(' ') && !before.contains("gdb") && !before.contains("strace") {
            commands.insert(command);
        }
    }
    for role in [
        "-l :9000",
        "-f B:9000",
        "--accept raw",
        " -r",
        "passive -",
        "probe ",
        "--state",
    ] {
        let found = commands.iter().any(|command| command.contains(role));
        assert!(found, "no command with {role}, of {commands:#?}");
    }
    for command in commands {
        let mut words = arguments(command);
        // As `main` does.
        if words[0] == flags::PASSIVE {
            match passive_cli::parse(words.split_off(1)) {
                Ok(passive_cli::Action::Run(_)) => {}
                other => panic!("{command}: {other:?}"),
            }
            continue;
        }
        match cli::parse(words) {
            Ok(Action::Run(_)) => {}
            other => panic!("{command}: {other:?}"),
        }
    }
}

fn keys_of(value: &Value, keys: &mut BTreeSet<String>) {
    for key in value.keys().unwrap_or_default() {
        keys.insert(key.to_owned());
        // What a node annotates is its own affair.
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
    let report = read::parse(include_bytes!("golden/report_full.json")).expect("a golden file");
    let mut keys = BTreeSet::new();
    keys_of(&report, &mut keys);
    assert!(keys.len() > 50, "only {} keys", keys.len());
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !README.contains(&format!("`{key}`")))
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
