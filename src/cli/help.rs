//! The texts of `-h` and `--help`, made from the tables of `flags`, and the ways to start.

use super::flags::{self, Flag, Mode, Section, Word};
use super::{ExitCode, PROGRAM};
use crate::columns;
use crate::FULL;
use std::fmt::Write as _;

/// Most columns of a line: a terminal of 80 without the last one.
const WIDTH: usize = 79;

/// Column of the explanation in `-h`.
const BRIEF_COLUMN: usize = 34;

/// Indentation of the explanations of `--help`, in columns.
const HELP_COLUMN: usize = 8;

/// The options that `-h` without a command shows.
const FIRST_USE: &[&str] = &[
    "listen",
    "forward-to",
    "accept",
    "remove-perf-headers",
    "timeout",
    "allow",
    "key-file",
    "count",
    "interval",
    "size",
    "metrics-listen",
    "node",
    "report",
    "report-html",
    "format",
    "state",
    "warning",
    "debug",
    "help",
    "version",
];

/// The purpose of the program, in a sentence.
pub(crate) const PURPOSE: &str =
    "Finds which sub-segment of a TCP path, or which host on it, adds the delay, and whose delay \
     has grown: a chain of small proxies stamps the blocks that pass.";

/// Command lines for a first use, with text about them.
pub(crate) const EXAMPLES: &str = "\
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

/// The error of a command line without a command and without addresses: one line for each way to
/// start.
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

/// `-h`: the options of a first use, or all options of a command, each on a line of its own.
pub(super) fn short(word: Option<&Word>) -> String {
    let mut text = usage(word);
    if word.is_none() {
        text.push_str("\nOptions of a first use:\n");
        for flag in FIRST_USE.iter().filter_map(|name| flags::find(name, None)) {
            push_brief(&mut text, flag);
        }
        text.push_str("\nMore: COMMAND -h; --help for all options, with examples");
        text.push_str(if FULL { "; help TOPIC.\n" } else { ".\n" });
        return text;
    }
    for section in Section::ALL {
        let flags = in_section(*section, word);
        if !flags.is_empty() {
            let _ = writeln!(text, "{}:", section.heading());
        }
        for flag in flags {
            push_brief(&mut text, flag);
        }
    }
    text
}

fn push_brief(text: &mut String, flag: &Flag) {
    let default = match flag.default {
        Some(default) if default != "0" => format!(" [{default}]"),
        _ => String::new(),
    };
    let synopsis = synopsis(flag);
    let _ = writeln!(text, "{synopsis:<BRIEF_COLUMN$}{}{default}", flag.brief);
}

/// `--help`: options with their explanations, exit codes and examples.
pub(super) fn long(word: Option<&Word>) -> String {
    let mut text = usage(word);
    if word.is_none() {
        text.push('\n');
        text.push_str(&wrapped(PURPOSE, 0));
    }
    for section in Section::ALL {
        let flags = in_section(*section, word);
        if !flags.is_empty() {
            let _ = writeln!(text, "\n{}:", section.heading());
        }
        for flag in flags {
            push_help(&mut text, flag, word.is_none());
        }
    }
    if !FULL {
        text.push_str("\nMore on each: --help of a build with the feature full.\n");
    }
    text.push_str("\nExit codes:\n");
    let is_probe = word.map(|word| matches!(word.mode, Mode::Probe | Mode::Trace));
    for code in ExitCode::ALL {
        if is_probe.map_or(true, |is_probe| is_probe == code.is_of_probe()) {
            let _ = writeln!(text, "    {}  {}", code.number(), code.meaning());
        }
    }
    let examples = word.map_or(EXAMPLES, |word| word.examples);
    if !examples.is_empty() {
        let _ = write!(text, "\nExamples\n\n{examples}");
    }
    text
}

fn push_help(text: &mut String, flag: &Flag, with_modes: bool) {
    let _ = writeln!(text, "{}", synopsis(flag));
    let mut help = format!("{} {}", sentence(flag.brief), flag.help);
    if let Some(default) = flag.default {
        let _ = write!(help, " Default: {default}.");
    }
    if with_modes && flag.modes.len() <= 2 {
        let modes: Vec<String> = flag.modes.iter().map(ToString::to_string).collect();
        let _ = write!(help, " Only for: {}.", modes.join(", "));
    }
    text.push_str(&wrapped(&help, HELP_COLUMN));
}

fn usage(word: Option<&Word>) -> String {
    if let Some(word) = word {
        let call = word.synopsis();
        return format!(
            "Usage: {PROGRAM} {call} [OPTION]...\n       {}\n",
            sentence(word.brief)
        );
    }
    let mut text = format!(
        "Usage: {PROGRAM} [-l ADDR] [-f ADDR] [OPTION]...\n       \
         {PROGRAM} COMMAND [OPTION]...\n\nCommands:\n"
    );
    for word in flags::words() {
        let _ = writeln!(text, "  {:<20}{}", word.synopsis(), word.brief);
    }
    text
}

/// The options of a section, those of one command if a word is given.
fn in_section(section: Section, word: Option<&Word>) -> Vec<&'static Flag> {
    let is_for = |flag: &Flag| word.map_or(true, |word| flag.modes.contains(&word.mode));
    let flags = flags::all().iter();
    let flags = flags.filter(|flag| flag.section == section && is_for(flag));
    flags.collect()
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
pub(crate) fn sentence(brief: &str) -> String {
    let mut chars = brief.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

/// Breaks `text` between words into ended lines, indented by `indent` columns.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    let text = " ".repeat(indent) + &words.join(" ");
    columns::wrap(&text, WIDTH, indent).join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn assert_fits(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "too wide: {line}");
            assert_eq!(line, line.trim_end(), "ends in a space: {line}");
        }
    }

    fn options_of(text: &str) -> impl Iterator<Item = &str> {
        let is_option = |line: &&str| line.starts_with("  -") || line.starts_with("      --");
        text.lines().filter(is_option)
    }

    /// Fits, is one screen, and has a gap before each explanation.
    fn assert_short(text: &str) {
        assert_fits(text);
        assert!(text.lines().count() <= 50, "{} lines", text.lines().count());
        for line in options_of(text) {
            let gap = line.as_bytes().get(BRIEF_COLUMN - 2..BRIEF_COLUMN);
            assert_eq!(gap, Some(&b"  "[..]), "{line}");
        }
    }

    fn all_words() -> impl Iterator<Item = Option<&'static Word>> {
        flags::words().iter().map(Some)
    }

    #[test]
    fn the_short_help_lists_the_commands_and_twenty_options_on_one_screen() {
        let text = short(None);
        assert_short(&text);
        let options = options_of(&text);
        assert_eq!(options.count(), 20);
        assert_eq!(FIRST_USE.iter().collect::<BTreeSet<_>>().len(), 20);
        for word in flags::words() {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("  {}", word.name)));
            assert!(
                line.is_some_and(|line| line.contains(word.brief)),
                "{}",
                word.name
            );
        }
    }

    #[test]
    fn the_short_help_of_a_command_lists_all_its_options_and_no_other_on_one_screen() {
        for word in all_words().flatten() {
            let text = short(Some(word));
            assert_short(&text);
            for flag in flags::all() {
                let is_its = flag.modes.contains(&word.mode);
                let listed = text
                    .lines()
                    .any(|line| line.starts_with(&synopsis(flag)) && line.contains(flag.brief));
                assert_eq!(listed, is_its, "{} --{}", word.name, flag.long);
            }
        }
    }

    #[test]
    fn the_long_help_fits_and_holds_flags_words_exit_codes_and_examples() {
        let text = long(None);
        assert_fits(&text);
        assert_fits(&ways_to_start());
        for flag in flags::all() {
            assert!(text.contains(&synopsis(flag)), "no --{}", flag.long);
        }
        for word in flags::words() {
            assert!(text.contains(word.brief), "no {}", word.name);
        }
        for code in ExitCode::ALL {
            assert!(text.contains(code.meaning()), "no {code:?}");
        }
        for part in ["Four hosts A, B, C, Z", "ssh -p 2222", "*/5 * * * *"] {
            assert!(text.contains(part), "no example {part}");
        }
        for word in all_words().flatten() {
            let text = long(Some(word));
            assert_fits(&text);
            for flag in flags::all() {
                let is_its = flag.modes.contains(&word.mode);
                if is_its {
                    assert!(
                        text.contains(&synopsis(flag)),
                        "{} --{}",
                        word.name,
                        flag.long
                    );
                }
            }
        }
    }

    #[test]
    fn every_example_of_the_help_parses() {
        let examples = flags::words().iter().map(|word| word.examples);
        let text = examples.fold(EXAMPLES.to_owned(), |text, more| text + more);
        let text = text.replace("\\\n", "") + &ways_to_start();
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
        assert_eq!(seen, 34);
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
