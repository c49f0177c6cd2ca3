//! The texts of `generate`, read by the programs that they are for.

mod util;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use subsegment_tcp_speeds::cli::flags;
use subsegment_tcp_speeds::manual::TOPICS;
use util::{need, program, text, Dir};

/// Writes the text of a kind to a file.
fn generated(dir: &Dir, kind: &str, name: &str) -> PathBuf {
    let output = program().args(["generate", kind]).output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{kind}"
    );
    let file = dir.file(name);
    std::fs::write(&file, output.stdout).unwrap();
    file
}

/// Runs a program that has to be silent on stderr; returns its stdout.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    text(&output.stdout)
}

#[test]
fn man_shows_the_page_without_a_warning_in_narrow_and_wide_windows() {
    let dir = Dir::new("man");
    let page = generated(&dir, "man", "subsegment-tcp-speeds.1");
    // The line of whatis(1).
    let brief = env!("CARGO_PKG_DESCRIPTION");
    let line = run(Command::new(need("lexgrog")).arg(&page));
    let brief = format!("{}{}", brief[..1].to_lowercase(), &brief[1..]);
    assert!(
        line.contains(&format!("\"subsegment-tcp-speeds - {brief}\"")),
        "{line}"
    );
    for width in ["60", "80", "200"] {
        let mut man = Command::new(need("man"));
        man.args(["--warnings", "-E", "ascii", "-l"]).arg(&page);
        let text = run(man.env("MANWIDTH", width).env("MAN_KEEP_FORMATTING", ""));
        for part in [
            "NAME",
            "-l, --listen ADDR",
            "EXIT STATUS",
            "SEE ALSO",
            "A$ ssh -p 2222",
        ] {
            assert!(text.contains(part), "{width}: no {part}");
        }
    }
}

/// Command lines whose last word is completed, and the candidates.
fn cases() -> Vec<(&'static str, Vec<&'static str>)> {
    let words: Vec<_> = flags::words().iter().map(|word| word.name).collect();
    let topics: Vec<_> = TOPICS.iter().map(|topic| topic.name).collect();
    vec![
        ("", words),
        ("--forw", vec!["--forward-to"]),
        ("--accept ", vec!["auto", "framed", "raw"]),
        ("-l :9000 --accept ra", vec!["raw"]),
        ("-l :9000 --drai", vec!["--drain"]),
        ("probe --inter", vec!["--interval"]),
        ("probe B:9000 --format in", vec!["influx"]),
        ("passive --format l", vec!["lines"]),
        ("passive --format=p", vec!["prometheus"]),
        (
            "passive --group-by ",
            vec!["flow", "remote", "subnet", "none"],
        ),
        ("probe B:9000 --drai", vec![]),
        ("probe B:9000 --ask load,t", vec!["load,tcp", "load,tags"]),
        ("help ", topics),
        ("generate z", vec!["zsh"]),
        ("state sample.state ac", vec!["accept"]),
        ("check-rules sam", vec!["sample.state"]),
        ("-f b:1 --key-file sam", vec!["sample.state"]),
        ("trace edge --binar", vec!["--binaries"]),
        ("trace edge --binaries sam", vec!["sample.state"]),
        ("trace edge --inst", vec!["--installed-only"]),
        ("trace edge --format nag", vec!["nagios"]),
        ("trace edge core.exam", vec!["core.example"]),
        ("trace --from core.exam", vec!["core.example"]),
        ("probe B:9000 --report-html sam", vec!["sample.state"]),
        ("compare sample.state sam", vec!["sample.state"]),
        ("prob", vec!["probe"]),
        ("probe B:9000 --no-such", vec![]),
    ]
}

/// Makes a file and a known host for the completions to find.
fn furnish(dir: &Dir) {
    std::fs::write(dir.file("sample.state"), "").unwrap();
    std::fs::write(dir.file("hosts"), "10.0.0.7 core.example\n").unwrap();
    std::fs::create_dir(dir.file(".ssh")).unwrap();
    let known = "core.example ssh-ed25519 AAAA\n";
    std::fs::write(dir.file(".ssh/known_hosts"), known).unwrap();
}

/// Compares candidates in any order.
#[track_caller]
fn assert_candidates(shell: &str, line: &str, output: &str, mut expected: Vec<&str>) {
    let strip = |word: &str| word.trim_end_matches([' ', ',']).to_owned();
    let mut found: Vec<String> = output.lines().map(strip).collect();
    found.retain(|word| !word.is_empty());
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected, "{shell}: {line:?}");
}

#[test]
fn bash_completes_options_values_commands_and_operands() {
    let dir = Dir::new("bash");
    let file = generated(&dir, "bash", "subsegment-tcp-speeds");
    furnish(&dir);
    // As readline splits a line: also at '=', and a new word after a space.
    let script = r#"
        set -u
        compopt() { :; }
        . "$1"
        line=${2//=/ = }
        read -ra COMP_WORDS <<< "subsegment-tcp-speeds $line"
        [[ $2 != *' ' && -n $2 ]] || COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        function=$(complete -p subsegment-tcp-speeds)
        [[ $function =~ -F\ ([^ ]+) ]]
        "${BASH_REMATCH[1]}" subsegment-tcp-speeds
        printf '%s\n' ${COMPREPLY[@]+"${COMPREPLY[@]}"}
    "#;
    for (line, expected) in cases() {
        let mut bash = Command::new(need("bash"));
        bash.args(["--norc", "-c", script, "bash"])
            .arg(&file)
            .arg(line);
        bash.env("HOSTFILE", dir.file("hosts"));
        let output = run(bash.current_dir(dir.file("")));
        assert_candidates("bash", line, &output, expected);
    }
}

#[test]
fn fish_completes_options_values_commands_and_operands() {
    let dir = Dir::new("fish");
    let file = generated(&dir, "fish", "subsegment-tcp-speeds.fish");
    furnish(&dir);
    let script = "source $argv[1]; cd (dirname $argv[1]); \
                  complete -C \"subsegment-tcp-speeds $argv[2]\"";
    for (line, expected) in cases() {
        let mut fish = Command::new(need("fish"));
        fish.args(["--no-config", "-c", script])
            .arg(&file)
            .arg(line);
        let home = dir.file("");
        fish.env("HOME", &home)
            .env("XDG_CONFIG_HOME", &home)
            .env("XDG_DATA_HOME", &home);
        let output = run(&mut fish);
        // A tab precedes the description; --option= is completed as a whole.
        let words = output
            .lines()
            .map(|line| line.split('\t').next().unwrap_or(line));
        let words = words.map(|word| word.split_once('=').map_or(word, |(_, value)| value));
        assert_candidates(
            "fish",
            line,
            &words.collect::<Vec<_>>().join("\n"),
            expected,
        );
    }
}

/// A pseudo-terminal runs an interactive zsh: its completion works in the line editor alone. A
/// `compadd` of ours prints the candidates that match.
#[test]
fn zsh_completes_options_values_commands_and_operands() {
    let dir = Dir::new("zsh");
    generated(&dir, "zsh", "_subsegment-tcp-speeds");
    furnish(&dir);
    let script = r#"
        zmodload zsh/zpty
        zpty z zsh -f -i
        send() { zpty -w z "$1" }
        # Reads up to the word that the shell prints itself.
        until_word() { local part; REPLY=; while zpty -r z part; do
            REPLY+=$part; [[ $part == *$1* ]] && return; done }
        send "PROMPT= RPROMPT= PS2= fpath=($2 \$fpath) TERM=dumb; cd $2"
        send "autoload -Uz compinit; compinit -u -D"
        send "bindkey '^I' complete-word; zle -C complete-word complete-word shown"
        send 'shown() {
            compadd() {
                local -a hits; local -i at
                builtin compadd -O hits "$@"
                (( $#hits )) && print -rl -- "HIT $IPREFIX"${^hits}
                [[ " $* " == *" -O "* || " $* " == *" -A "* || " $* " == *" -D "* ]] &&
                    builtin compadd "$@"
                return $(( ! $#hits ))
            }
            _main_complete
            print -r -- "END"OF
            unfunction compadd
            compstate[insert]= compstate[list]=
        }'
        send 'print -r -- "REA"DY'
        until_word READY
        zpty -w -n z "subsegment-tcp-speeds $3"$'\t'
        until_word ENDOF
        print -r -- "$REPLY"
        zpty -d z
    "#;
    for (line, expected) in cases() {
        let mut zsh = Command::new(need("zsh"));
        zsh.args(["-f", "-c", script, "zsh", "-"])
            .arg(dir.file(""))
            .arg(line);
        zsh.env("HOME", dir.file(""));
        let output = run(&mut zsh);
        let hits = output
            .lines()
            .filter_map(|line| line.trim().split_once("HIT "));
        let mut hits: Vec<_> = hits
            .map(|(_, word)| word.split_once('=').map_or(word, |(_, value)| value))
            .collect();
        hits.sort_unstable();
        hits.dedup();
        assert_candidates("zsh", line, &hits.join("\n"), expected);
    }
}
