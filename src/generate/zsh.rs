//! Completions for zsh.

use super::{is_repeatable, operand_values, options, values, Values};
use crate::cli::flags::{self, Flag};
use crate::cli::PROGRAM;
use std::fmt::Write as _;

/// Returns the file `_subsegment-tcp-speeds` for a directory of `$fpath`.
pub(super) fn text() -> String {
    let mut text = format!("#compdef {PROGRAM}\n");
    let _ = writeln!(
        text,
        "# Completions of {PROGRAM} for zsh: {PROGRAM} generate zsh"
    );
    let _ = writeln!(text, "\n_{PROGRAM}() {{");
    text.push_str("    local curcontext=$curcontext state line ret=1\n    typeset -A opt_args\n");
    // With -A, the options behind a command are its own.
    text.push_str("    _arguments -C -s -S -A '-*' \\\n");
    for flag in options(None) {
        let _ = writeln!(text, "        {} \\", option(flag));
    }
    text.push_str("        '1:command:->command' '*:: :->operands' && ret=0\n");
    text.push_str("    case $state in\n    command)\n        local -a commands=(\n");
    for word in flags::words() {
        let described = format!("{}:{}", word.name, word.brief);
        let _ = writeln!(text, "            {}", quoted(&described));
    }
    text.push_str(
        "        )\n        _describe -t commands command commands && ret=0\n        ;;\n",
    );
    text.push_str("    operands)\n        case $line[1] in\n");
    for word in flags::words() {
        let _ = writeln!(
            text,
            "        {})\n            _arguments -s -S \\",
            word.name
        );
        for flag in options(Some(word)) {
            let _ = writeln!(text, "                {} \\", option(flag));
        }
        for operand in word.operands {
            let place = if operand.contains("...") {
                "*".to_owned()
            } else if operand.starts_with('[') {
                ":".to_owned()
            } else {
                String::new()
            };
            let name = operand.trim_matches(['[', ']']);
            let action = action(name, &operand_values(operand));
            let spec = quoted(&format!("{place}:{}:{action}", escaped(name)));
            let _ = writeln!(text, "                {spec} \\");
        }
        text.push_str("                && ret=0\n            ;;\n");
    }
    text.push_str("        esac\n        ;;\n    esac\n    return ret\n}\n\n");
    // autoload runs the file as the body of the function, at its first call.
    let _ = writeln!(text, "_{PROGRAM} \"$@\"");
    text
}

/// Returns the specification of an option for `_arguments`.
fn option(flag: &Flag) -> String {
    let value = match flag.value {
        Some(name) => format!(":{}:{}", escaped(name), action(name, &values(flag))),
        None => String::new(),
    };
    let (short, long) = match flag.value {
        Some(_) => ("+", "="),
        None => ("", ""),
    };
    let rest = quoted(&format!("[{}]{value}", escaped(flag.brief)));
    let long = format!("--{}{long}", flag.long);
    match flag.short {
        Some(name) if is_repeatable(flag) => format!("'*'{{-{name}{short},{long}}}{rest}"),
        Some(name) => format!(
            "'(-{name} --{0})'{{-{name}{short},{long}}}{rest}",
            flag.long
        ),
        None if is_repeatable(flag) => format!("'*'{long}{rest}"),
        None => format!("{long}{rest}"),
    }
}

/// Returns the action of a specification, which adds the candidates.
fn action(name: &str, values: &Values) -> String {
    match values {
        Values::None => " ".into(),
        Values::Files => "_files".into(),
        Values::Hosts => "_ssh_hosts".into(),
        Values::Interfaces => "_net_interfaces".into(),
        Values::Words(words) => format!("({})", words.join(" ")),
        Values::List(words) => format!("_values -s , {} {}", escaped(name), words.join(" ")),
    }
}

/// Returns a text in which no character has a meaning in a specification.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if "[]:\\".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Returns a text in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
