//! Completions for fish.

use super::{operand_values, values, Values};
use crate::cli::flags::{self, Flag};
use crate::cli::PROGRAM;
use std::fmt::Write as _;

/// Returns the file for a directory `vendor_completions.d`.
pub(super) fn text() -> String {
    let mut text = format!("# Completions of {PROGRAM} for fish: {PROGRAM} generate fish\n");
    let line = format!("complete -c {PROGRAM}");
    let _ = writeln!(text, "{line} -f");
    for word in flags::words() {
        let brief = quoted(word.brief);
        let name = word.name;
        let _ = writeln!(text, "{line} -n __fish_use_subcommand -a {name} -d {brief}");
        for operand in word.operands {
            let (values, seen) = (operand_values(operand), seen(&[name]));
            if values != Values::None {
                let _ = writeln!(text, "{line} -n {}{}", quoted(&seen), argument(&values));
            }
        }
    }
    for flag in flags::all() {
        let condition = match condition(flag) {
            Some(condition) => format!(" -n {}", quoted(&condition)),
            None => String::new(),
        };
        let short = flag.short.map(|short| format!(" -s {short}"));
        let value = match flag.value {
            Some(_) => match argument(&values(flag)) {
                argument if argument == " -F" => " -r -F".to_owned(),
                argument => format!(" -x{argument}"),
            },
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "{line}{condition}{} -l {} -d {}{value}",
            short.unwrap_or_default(),
            flag.long,
            quoted(flag.brief)
        );
    }
    text
}

/// Returns the condition under which an option is offered; `None` if it always is.
fn condition(flag: &Flag) -> Option<String> {
    let is_its = |word: &&flags::Word| flag.modes.contains(&word.mode);
    let (own, others): (Vec<&flags::Word>, Vec<_>) = flags::words().iter().partition(is_its);
    let names =
        |words: Vec<&flags::Word>| -> Vec<_> { words.iter().map(|word| word.name).collect() };
    if !flag.modes.iter().any(|mode| !mode.has_word()) {
        return Some(seen(&names(own)));
    }
    (!others.is_empty()).then(|| format!("not {}", seen(&names(others))))
}

fn seen(words: &[&str]) -> String {
    format!("__fish_seen_subcommand_from {}", words.join(" "))
}

/// Returns the options of `complete` that offer the values, with a space before.
fn argument(values: &Values) -> String {
    match values {
        Values::None => String::new(),
        Values::Files => " -F".into(),
        Values::Hosts => " -a '(__fish_print_hostnames)'".into(),
        Values::Interfaces => " -a '(__fish_print_interfaces)'".into(),
        Values::Words(words) => format!(" -a '{}'", words.join(" ")),
        Values::List(words) => format!(" -a '(__fish_append , {})'", words.join(" ")),
    }
}

/// Returns a text in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
