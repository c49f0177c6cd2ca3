//! Completions for bash.

use super::{operand_values, options, spellings, values, Values};
use crate::cli::flags::{self, Flag};
use crate::cli::PROGRAM;
use std::fmt::Write as _;

const HEAD: &str = r#"
_subsegment_tcp_speeds() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local command= operands=0 at
    COMPREPLY=()
    # bash splits --option=value into three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
"#;

const WALKED: &str = r#"
                [[ ${COMP_WORDS[at + 1]} != = ]] || ((at++))
                ((at++)) ;;
            -?*) ;;
            *) if [[ -z $command ]]; then command=${COMP_WORDS[at]}; else ((operands++)); fi ;;
        esac
    done
"#;

const TAIL: &str = r#"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F _subsegment_tcp_speeds subsegment-tcp-speeds
"#;

/// Returns the file that bash-completion loads.
pub(super) fn text() -> String {
    let mut text = format!("# Completions of {PROGRAM} for bash: {PROGRAM} generate bash\n");
    text.push_str(HEAD.trim_start_matches('\n'));
    let valued: Vec<&Flag> = flags::all()
        .iter()
        .filter(|flag| flag.value.is_some())
        .collect();
    let mut names: Vec<_> = valued.iter().flat_map(|flag| spellings(flag)).collect();
    names.sort();
    names.dedup();
    let _ = write!(text, "            {})", names.join(" | "));
    text.push_str(WALKED);
    text.push_str("    case \"$command $before\" in\n");
    // Rows of single commands first: the others hold for every command line.
    let (own, shared): (Vec<&Flag>, Vec<&Flag>) =
        valued.into_iter().partition(|flag| is_doubled(flag));
    for flag in own {
        for word in flags::words() {
            if flag.modes.contains(&word.mode) {
                push_value(&mut text, flag, &format!("\"{} \"", word.name));
            }
        }
        if flag.modes.iter().any(|mode| !mode.has_word()) {
            push_value(&mut text, flag, "\" \"");
        }
    }
    for flag in shared {
        push_value(&mut text, flag, "*' '");
    }
    text.push_str("    esac\n    local words=\n    if [[ $word == -* ]]; then\n");
    text.push_str("        case $command in\n");
    for word in flags::words() {
        push_options(&mut text, word.name, Some(word));
    }
    push_options(&mut text, "*", None);
    text.push_str("        esac\n    else\n        case \"$command $operands\" in\n");
    let names: Vec<_> = flags::words().iter().map(|word| word.name).collect();
    let _ = writeln!(text, "            ' 0') words='{}' ;;", names.join(" "));
    for word in flags::words() {
        for (at, operand) in word.operands.iter().enumerate() {
            let number = if operand.contains("...") {
                "*".into()
            } else {
                at.to_string()
            };
            if let Some(action) = action(&operand_values(operand)) {
                let _ = writeln!(text, "            '{} '{number}) {action} ;;", word.name);
            }
        }
    }
    text.push_str("        esac\n    fi");
    text.push_str(TAIL);
    text
}

/// Returns `true` if the name has another row, for other commands.
fn is_doubled(flag: &Flag) -> bool {
    flags::all()
        .iter()
        .filter(|other| other.long == flag.long)
        .count()
        > 1
}

fn push_value(text: &mut String, flag: &Flag, before: &str) {
    let patterns = spellings(flag)
        .into_iter()
        .map(|name| format!("{before}{name}"));
    let patterns: Vec<_> = patterns.collect();
    let action = action(&values(flag)).unwrap_or_default();
    let action = if action.starts_with("words=") {
        format!("{action}; COMPREPLY=($(compgen -W \"$words\" -- \"$word\")); return")
    } else if action.is_empty() {
        "return".to_owned()
    } else {
        action
    };
    let _ = writeln!(text, "        {}) {action} ;;", patterns.join(" | "));
}

/// Returns the commands that complete a value; those with `words=` leave the rest to the end.
fn action(values: &Values) -> Option<String> {
    Some(match values {
        Values::None => return None,
        Values::Files => {
            "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\")); return".into()
        }
        // bash-completion knows the aliases of ssh_config, too.
        Values::Hosts => "if declare -F _known_hosts_real > /dev/null; then \
                          _known_hosts_real -a -- \"$word\"; else COMPREPLY=($(compgen -A \
                          hostname -- \"$word\")); fi; return"
            .into(),
        Values::Interfaces => "words=$(ls /sys/class/net 2> /dev/null)".into(),
        Values::Words(words) => format!("words='{}'", words.join(" ")),
        Values::List(words) => format!(
            "COMPREPLY=($(compgen -P \"${{word%\"${{word##*,}}\"}}\" -W '{}' -- \
             \"${{word##*,}}\")); compopt -o nospace; return",
            words.join(" ")
        ),
    })
}

fn push_options(text: &mut String, pattern: &str, word: Option<&flags::Word>) {
    let names: Vec<_> = options(word).flat_map(spellings).collect();
    let _ = writeln!(
        text,
        "            {pattern}) words='{}' ;;",
        names.join(" ")
    );
}
