//! The manual page, in roff with the macros of man(7).

use crate::cli::flags::{self, Flag, Section};
use crate::cli::{sentence, ExitCode, EXAMPLES, PROGRAM, PURPOSE};
use crate::manual::TOPICS;
use std::fmt::Write as _;

/// Variables of the environment, each with its effect.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "RUST_LOG",
        "The level of the log, by module too; --debug wins.",
    ),
    ("NO_COLOR", "If it is set, the report has no colours."),
    ("TERM", "With dumb, or unset, probe has no live screen."),
    (
        "COLUMNS",
        "The width of a report that does not go to a terminal.",
    ),
    ("PAGER", "Shows the topics of help; less if it is unset."),
    (
        "NOTIFY_SOCKET",
        "The socket on which a node reports to systemd that it is ready.",
    ),
];

/// Files that the packages use, each with its purpose.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/default/subsegment-tcp-speeds",
        "OPTIONS of the node that the unit subsegment-tcp-speeds.service runs.",
    ),
    (
        "/etc/default/subsegment-tcp-speeds@NAME",
        "OPTIONS of the node subsegment-tcp-speeds@NAME.service: several nodes on one host.",
    ),
    (
        "/etc/default/subsegment-tcp-speeds-probe",
        "OPTIONS of the probe that subsegment-tcp-speeds-probe.timer starts.",
    ),
    (
        "/etc/config/subsegment-tcp-speeds",
        "On OpenWrt: a section for each node.",
    ),
    (
        "/usr/lib/subsegment-tcp-speeds",
        "Static binaries for other machines, a directory for each.",
    ),
];

/// Signals, each with its effect.
const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGINT, SIGTERM",
        "End the run in order: the report is written, and a node lets open connections finish \
         within --drain. A second one ends the process at once.",
    ),
    (
        "SIGHUP",
        "Without a controlling terminal, nodes, exporter, and probe with --targets or --rules \
         read the files of --rules, --targets, --allow and --key-file again: all of them take \
         effect, or none. With a terminal, and in all other commands, it ends the run in order.",
    ),
    (
        "SIGUSR1",
        "Writes the report of a living process where its end would.",
    ),
];

/// Returns the page; it has no date, for the same program gives the same page.
pub(super) fn text() -> String {
    let title = PROGRAM.to_uppercase();
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        ".\\\" {PROGRAM} generate man\n.TH {} 1 \"\" \"{PROGRAM} {version}\" \"User Commands\"\n\
         .nh\n.ds AD l\n.ad l\n",
        escaped(&title)
    );
    heading(&mut text, "NAME");
    let brief = env!("CARGO_PKG_DESCRIPTION");
    let brief = brief[..1].to_lowercase() + &brief[1..];
    // whatis(1) takes a place where a line may end for text.
    let brief = escaped(&brief).replace("\\:", "");
    let _ = writeln!(text, "{} \\- {brief}", escaped(PROGRAM));
    heading(&mut text, "SYNOPSIS");
    let program = format!(".B {}", escaped(PROGRAM));
    for synopsis in ["[-l ADDR] [-f ADDR] [OPTION]...", "COMMAND [OPTION]..."] {
        let _ = writeln!(text, "{program}\n{}\n.br", escaped(synopsis));
    }
    heading(&mut text, "DESCRIPTION");
    paragraph(&mut text, PURPOSE);
    paragraph(
        &mut text,
        "Without a command the addresses select the role: --listen alone is the echo at the end \
         of a path, --listen with --forward-to a hop in between, --forward-to alone a source \
         that carries stdin along the path and its answer to stdout.",
    );
    heading(&mut text, "COMMANDS");
    for word in flags::words() {
        item(&mut text, &format!("\\fB{}\\fR", escaped(&word.synopsis())));
        paragraph(&mut text, &sentence(word.brief));
    }
    heading(&mut text, "OPTIONS");
    text.push_str(
        "Of an option that is given twice the last one counts, unless it says otherwise.\n",
    );
    for section in Section::ALL {
        let _ = writeln!(text, ".SS {}", section.heading());
        for flag in flags::all().iter().filter(|flag| flag.section == *section) {
            push_flag(&mut text, flag);
        }
    }
    heading(&mut text, "EXIT STATUS");
    for code in ExitCode::ALL {
        item(&mut text, &format!("\\fB{}\\fR", code.number()));
        paragraph(&mut text, &sentence(code.meaning()));
    }
    for (name, rows) in [
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
        ("SIGNALS", SIGNALS),
    ] {
        heading(&mut text, name);
        for (label, meaning) in rows {
            let font = if name == "FILES" { "I" } else { "B" };
            item(&mut text, &format!("\\f{font}{}\\fR", escaped(label)));
            paragraph(&mut text, meaning);
        }
    }
    heading(&mut text, "EXAMPLES");
    push_example(&mut text, EXAMPLES);
    for word in flags::words()
        .iter()
        .filter(|word| !word.examples.is_empty())
    {
        let _ = writeln!(text, ".SS {}", escaped(word.name));
        push_example(&mut text, word.examples);
    }
    heading(&mut text, "SEE ALSO");
    text.push_str(".BR mtr (8),\n.BR tcpdump (8),\n.BR ss (8),\n.BR tshark (1)\n.PP\n");
    let _ = writeln!(
        text,
        "Topics of the manual, for \\fB{} help\\fR:",
        escaped(PROGRAM)
    );
    for topic in TOPICS {
        item(&mut text, &format!("\\fB{}\\fR", topic.name));
        paragraph(&mut text, &sentence(topic.brief));
    }
    text
}

fn heading(text: &mut String, name: &str) {
    let _ = writeln!(text, ".SH {name}");
}

/// Adds the label of an indented paragraph, which is roff already.
fn item(text: &mut String, label: &str) {
    let _ = writeln!(text, ".TP\n{label}");
}

fn paragraph(text: &mut String, sentences: &str) {
    let words: Vec<_> = sentences.split_whitespace().collect();
    let _ = writeln!(text, "{}", escaped(&words.join(" ")));
    if !text.contains(".SH COMMANDS") {
        text.push_str(".PP\n");
    }
}

fn push_flag(text: &mut String, flag: &Flag) {
    let names = super::spellings(flag).into_iter();
    let names: Vec<_> = names
        .map(|name| format!("\\fB{}\\fR", escaped(&name)))
        .collect();
    let value = flag
        .value
        .map(|value| format!(" \\fI{}\\fR", escaped(value)));
    item(text, &(names.join(", ") + &value.unwrap_or_default()));
    let mut sentences = format!("{} {}", sentence(flag.brief), flag.help);
    if let Some(default) = flag.default {
        let _ = write!(sentences, " Default: {default}.");
    }
    if flag.modes.len() <= 2 {
        let modes: Vec<String> = flag.modes.iter().map(ToString::to_string).collect();
        let _ = write!(sentences, " Only for: {}.", modes.join(", "));
    }
    paragraph(text, &sentences);
}

/// Adds lines as they are typed; lines that are not indented are text about them.
fn push_example(text: &mut String, example: &str) {
    text.push_str(".EX\n");
    for line in example.lines() {
        let _ = writeln!(text, "{}", escaped(line));
    }
    text.push_str(".EE\n");
}

/// Returns a text that roff prints as it is.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    // A dot or an apostrophe at the start of a line begins a request.
    if text.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            // A line may end behind these.
            ',' | '&' | '=' => {
                out.push(c);
                out.push_str("\\:");
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_stand_in_the_order_of_man_pages() {
        let text = text();
        let headings = text.lines().filter_map(|line| line.strip_prefix(".SH "));
        let expected = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "COMMANDS",
            "OPTIONS",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "SIGNALS",
            "EXAMPLES",
            "SEE ALSO",
        ];
        assert!(headings.eq(expected));
    }

    #[test]
    fn no_character_of_a_text_is_taken_for_a_request_or_an_escape() {
        assert_eq!(escaped(".TH 'x'"), "\\&.TH \\(aqx\\(aq");
        assert_eq!(escaped("a \\ -c,b"), "a \\e \\-c,\\:b");
        for line in text().lines().filter(|line| line.starts_with(['.', '\''])) {
            let known = [
                ".\\\"", ".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".br",
            ];
            let more = [".EX", ".EE", ".nh", ".ad", ".ds"];
            let request = line.split(' ').next().unwrap_or(line);
            assert!(
                known.contains(&request) || more.contains(&request),
                "{line}"
            );
        }
    }
}
