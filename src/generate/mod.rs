//! The texts of `generate`: a manual page in roff and completions for three shells, made from the
//! tables of options, commands, exit codes and topics.

mod bash;
mod fish;
mod man;
mod zsh;

use crate::annotation::Classes;
use crate::cli::config::{Artifact, ARTIFACTS, STATE_ACTIONS};
use crate::cli::flags::{self, Flag, Mode, Set, Word};
use crate::manual::TOPICS;
use crate::report::format::FORMATS;

/// Returns the whole file, which ends with a line end.
pub fn text(artifact: Artifact) -> String {
    match artifact {
        Artifact::Man => man::text(),
        Artifact::Bash => bash::text(),
        Artifact::Zsh => zsh::text(),
        Artifact::Fish => fish::text(),
    }
}

/// The candidates of a shell for one value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    /// There are none: the value is a number, an address or text.
    None,
    /// Names of files.
    Files,
    /// Names of hosts.
    Hosts,
    /// Interfaces of this host.
    Interfaces,
    /// One of these words.
    Words(Vec<&'static str>),
    /// Some of these words, with commas between them.
    List(Vec<&'static str>),
}

/// Returns the candidates for the value of an option that takes one.
fn values(flag: &Flag) -> Values {
    match (flag.set, flag.value) {
        (Set::Choice(words, _), _) => Values::Words(words.to_vec()),
        (Set::Path(_), _) => Values::Files,
        (_, Some("F")) => {
            let built = FORMATS.iter().filter(|entry| entry.format.is_built());
            Values::Words(built.map(|entry| entry.name).collect())
        }
        (_, Some("CLASSES")) => {
            let classes = Classes::ALL.iter().map(|row| row.word);
            Values::List(["all", "none"].into_iter().chain(classes).collect())
        }
        (_, Some("LEVEL")) => Values::Words(vec!["0", "1", "2", "3", "4", "5", "6", "7"]),
        (_, Some("IF" | "SOURCE")) => Values::Interfaces,
        (_, Some("HOST")) => Values::Hosts,
        _ => Values::None,
    }
}

/// Returns the candidates for an operand, by the name that the help gives it.
fn operand_values(operand: &str) -> Values {
    match operand.trim_matches(['[', ']']) {
        "FILE" | "FILE|-" | "JSON" => Values::Files,
        "HOST..." => Values::Hosts,
        "DO" => Values::Words(STATE_ACTIONS.to_vec()),
        "TOPIC" => Values::Words(TOPICS.iter().map(|topic| topic.name).collect()),
        "KIND" => Values::Words(ARTIFACTS.to_vec()),
        _ => Values::None,
    }
}

/// Returns the options of a command; `None` stands for nodes and the source, which have no word.
fn options(word: Option<&Word>) -> impl Iterator<Item = &'static Flag> + '_ {
    let is_for = move |mode: &Mode| match word {
        Some(word) => *mode == word.mode,
        None => !mode.has_word(),
    };
    flags::all()
        .iter()
        .filter(move |flag| flag.modes.iter().any(is_for))
}

/// Returns `true` if the option adds to what was given before.
fn is_repeatable(flag: &Flag) -> bool {
    flag.brief.ends_with("repeatable")
}

/// Returns the spellings of an option: `-l`, if there is a short one, and `--listen`.
fn spellings(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|short| format!("-{short}"));
    let long = format!("--{}", flag.long);
    short.into_iter().chain([long]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::Options;

    #[test]
    fn an_option_with_a_fixed_set_of_words_completes_all_of_them() {
        let mut seen = 0;
        for flag in flags::all() {
            let Set::Text(set) = flag.set else {
                continue;
            };
            let Err(message) = set(&mut Options::default(), "\u{1}") else {
                continue;
            };
            if let Some(words) = message.strip_prefix("is none of ") {
                let Values::Words(known) = values(flag) else {
                    panic!("--{} has no candidates", flag.long);
                };
                assert_eq!(known.join(", "), words, "--{}", flag.long);
                seen += 1;
            }
            if let Values::Words(known) | Values::List(known) = values(flag) {
                for word in known {
                    let taken = set(&mut Options::default(), word);
                    assert_eq!(taken, Ok(()), "--{} {word}", flag.long);
                }
            }
        }
        assert!(seen > 0);
    }

    #[test]
    fn five_options_add_to_what_was_given_before_and_all_of_them_collect() {
        let named: Vec<_> = flags::all()
            .iter()
            .filter(|flag| is_repeatable(flag))
            .collect();
        assert!(named.len() >= 5, "{}", named.len());
        for flag in named {
            assert!(flag.value.is_some(), "--{}", flag.long);
        }
    }

    #[test]
    fn every_text_names_every_option_command_and_topic() {
        for artifact in [Artifact::Man, Artifact::Bash, Artifact::Zsh, Artifact::Fish] {
            let text = text(artifact);
            let plain = text.replace('\\', "");
            assert!(
                text.ends_with('\n') && !text.contains("\n\n\n"),
                "{artifact:?}"
            );
            for flag in flags::all() {
                let long = match artifact {
                    Artifact::Fish => format!(" -l {} ", flag.long),
                    _ => format!("--{}", flag.long),
                };
                assert!(plain.contains(&long), "{artifact:?} lacks {long}");
            }
            let topics = TOPICS.iter().map(|topic| topic.name);
            for word in flags::words().iter().map(|word| word.name).chain(topics) {
                assert!(plain.contains(word), "{artifact:?} lacks {word}");
            }
        }
    }
}
