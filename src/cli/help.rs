//! The texts of `-h` and `--help`, made from the tables of `flags`, and the ways to start.

use super::flags::{self, Flag, Group};
use super::{ExitCode, PROGRAM};
use crate::FULL;
use std::fmt::Write as _;

/// Most columns of a line: a terminal of 80 without the last one.
const WIDTH: usize = 79;

/// Column of the explanation in `-h`.
const BRIEF_COLUMN: usize = 35;

/// Columns that the explanations of `--help` are moved in.
const HELP_COLUMN: usize = 8;

const EXAMPLES: &str = "\
Four hosts A, B, C, Z; find which of A-B, B-C, C-Z adds the delay:
    Z$ subsegment-tcp-speeds -l :9000               # echo, the path's end
    C$ subsegment-tcp-speeds -l :9000 -f Z:9000
    B$ subsegment-tcp-speeds -l :9000 -f C:9000
    A$ subsegment-tcp-speeds probe B:9000           # or, with your own data:
    A$ subsegment-tcp-speeds -f B:9000 < data > answer

A real server at the end, ssh on Z, for users on A:
    C$ subsegment-tcp-speeds -l :9000 -f Z:22 -r    # exit: plain bytes to Z
    B$ subsegment-tcp-speeds -l :9000 -f C:9000
    A$ subsegment-tcp-speeds -l localhost:2222 -f B:9000 --accept raw
    A$ ssh -p 2222 localhost

From cron, with the earlier runs for a baseline:
    */5 * * * * subsegment-tcp-speeds probe B:9000 -c 100 -i 0.1 \\
                --state /var/tmp/B.state --format json --report /var/tmp/B.json
    (a crontab wants it on one line)
";

/// Where nothing says what to do: one line for each way to start.
pub(super) fn ways_to_start() -> String {
    format!(
        "nothing to do: give --listen, --forward-to or a command, one of\n\
         \x20 {PROGRAM} -l :9000               echo blocks: the end of a path\n\
         \x20 {PROGRAM} -l :9000 -f HOST:9000  pass them on: a hop in between\n\
         \x20 {PROGRAM} -f HOST:9000           send stdin, print the answer\n\
         \x20 {PROGRAM} probe HOST:9000        measure the path through HOST\n\
         try --help, or see a path at work: {PROGRAM} demo"
    )
}

/// `-h`: every option on a line of its own.
pub(super) fn short() -> String {
    let mut text = usage();
    for group in Group::ALL {
        let _ = writeln!(text, "{}:", group.heading());
        for flag in in_group(*group) {
            let default = match flag.default {
                Some(default) if default != "0" => format!(" [{default}]"),
                _ => String::new(),
            };
            let brief = flag.brief;
            let _ = writeln!(text, "{:<BRIEF_COLUMN$}{brief}{default}", synopsis(flag));
        }
    }
    text
}

/// `--help`: options with their explanations, exit codes and examples.
pub(super) fn long() -> String {
    let mut text = usage() + "\n";
    text.push_str(&wrapped(
        "Finds which sub-segment of a TCP path, or which host on it, adds the delay, and whose \
         delay has grown: a chain of small proxies stamps the blocks that pass.",
        0,
    ));
    for group in Group::ALL {
        let _ = writeln!(text, "\n{}:", group.heading());
        for flag in in_group(*group) {
            let _ = writeln!(text, "{}", synopsis(flag));
            let mut help = format!("{} {}", sentence(flag.brief), flag.help);
            if let Some(default) = flag.default {
                let _ = write!(help, " Default: {default}.");
            }
            if flag.roles.len() <= 2 {
                let roles: Vec<String> = flag.roles.iter().map(ToString::to_string).collect();
                let _ = write!(help, " Only for: {}.", roles.join(", "));
            }
            text.push_str(&wrapped(&help, HELP_COLUMN));
        }
    }
    if !FULL {
        text.push_str("\nMore on each: the README, or --help of a build with the feature full.\n");
    }
    text.push_str("\nExit codes:\n");
    for code in ExitCode::ALL {
        let _ = writeln!(text, "    {}  {}", code.number(), code.meaning());
    }
    let _ = write!(text, "\nExamples\n\n{EXAMPLES}");
    text
}

fn usage() -> String {
    let mut text = format!("Usage: {PROGRAM} [-l ADDR] [-f ADDR] [OPTION]...\n");
    for word in flags::WORDS
        .iter()
        .filter(|word| flags::is_built(word.name))
    {
        let call = match word.operand {
            Some(operand) => format!("{} {operand}", word.name),
            None => word.name.to_owned(),
        };
        let _ = writeln!(text, "       {PROGRAM} {call} [OPTION]...");
        let _ = writeln!(text, "           {}", word.brief);
    }
    let (word, brief) = (flags::PASSIVE, flags::PASSIVE_BRIEF);
    if flags::is_built(word) {
        let _ = writeln!(text, "       {PROGRAM} {word} FILE|- [OPTION]...");
        let _ = writeln!(text, "           {brief}");
    }
    text
}

fn in_group(group: Group) -> impl Iterator<Item = &'static Flag> {
    let mine = move |flag: &&Flag| flag.group == group && flags::is_built(flag.long);
    flags::all().iter().filter(mine)
}

/// `  -l, --listen ADDR`, without an end of line.
fn synopsis(flag: &Flag) -> String {
    let short = match flag.short {
        Some(short) => format!("-{short},"),
        None => String::new(),
    };
    let value = match flag.value {
        Some(value) => format!(" {value}"),
        None => String::new(),
    };
    format!("  {short:<3} --{}{value}", flag.long)
}

/// A brief text as a sentence: with a capital and a full stop.
fn sentence(brief: &str) -> String {
    let mut chars = brief.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

/// Breaks `text` between words, each line moved in by `indent` columns and ended.
fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            let _ = write!(out, "{:indent$}{word}", "");
            column = indent + word.len();
        } else {
            let _ = write!(out, " {word}");
            column += 1 + word.len();
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_fits(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "too wide: {line}");
            assert_eq!(line, line.trim_end(), "ends in a space: {line}");
        }
    }

    #[test]
    fn the_short_help_is_one_screen_and_lists_every_flag() {
        let text = short();
        assert_fits(&text);
        assert!(text.lines().count() <= 60, "{} lines", text.lines().count());
        for flag in flags::all() {
            let line = text.lines().find(|line| line.starts_with(&synopsis(flag)));
            let line = line.unwrap_or_else(|| panic!("no --{}", flag.long));
            let gap = line.as_bytes().get(BRIEF_COLUMN - 2..BRIEF_COLUMN);
            assert_eq!(gap, Some(&b"  "[..]), "{line}");
        }
    }

    #[test]
    fn the_long_help_fits_and_holds_flags_words_exit_codes_and_examples() {
        let text = long();
        assert_fits(&text);
        assert_fits(&ways_to_start());
        for flag in flags::all() {
            assert!(text.contains(&synopsis(flag)), "no --{}", flag.long);
        }
        for word in flags::WORDS {
            assert!(text.contains(word.brief), "no {}", word.name);
        }
        for text in [&text, &short()] {
            assert!(text.contains("passive --help"), "{text}");
        }
        for code in ExitCode::ALL {
            assert!(text.contains(code.meaning()), "no {code:?}");
        }
        for part in ["Four hosts A, B, C, Z", "ssh -p 2222", "*/5 * * * *"] {
            assert!(text.contains(part), "no example {part}");
        }
    }

    #[test]
    fn every_example_of_the_help_parses() {
        let text = EXAMPLES.replace("\\\n", "") + &ways_to_start();
        let mut seen = 0;
        for line in text.lines() {
            let Some((_, call)) = line.split_once(PROGRAM) else {
                continue;
            };
            let words = call.split_whitespace();
            let own = words.take_while(|word| !matches!(*word, "#" | "<" | ">"));
            // The ways to start explain themselves after two spaces.
            let own: Vec<_> = if line.starts_with("  subsegment") {
                let shown = call.trim().split("  ").next().unwrap_or_default();
                shown.split_whitespace().collect()
            } else {
                own.collect()
            };
            let parsed = super::super::parse(own.iter().map(std::ffi::OsString::from));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
            seen += 1;
        }
        assert_eq!(seen, 14);
    }

    #[test]
    fn wrapping_keeps_every_word() {
        let text = "one two ".repeat(40);
        let broken = wrapped(&text, 8);
        assert_fits(&broken);
        let words: Vec<_> = broken.split_whitespace().collect();
        assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
    }
}
