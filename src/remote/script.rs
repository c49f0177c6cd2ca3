//! The script that a host runs, from the look at the machine to the end of its node.
//!
//! The near side writes commands to it, one on a line; an empty line is none:
//!
//! | command | effect | answer |
//! |---|---|---|
//! | (none) | | `machine order host` and, if installed, `path installed`; then `end` |
//! | `dir` | makes a directory in which programs run | `dir PATH`, `dir` if there is none |
//! | `put BYTES` | takes a binary of so many bytes, and tries it | `put BYTES FIRST-LINE` |
//! | `run [PATH]` | runs the node of PATH, or the binary taken | `node LINE` ..., `ended` |
//! | `take BYTES NAME` | takes a file of its probe into the directory | `took BYTES` |
//! | `go [PATH]` | runs its probe, whose stdout follows | `node ready`, ..., `exit CODE` |
//! | `get PIECE NAME` | returns a piece of such a file | `piece SIZE`, and the bytes |
//!
//! Behind the last line of a probe on stderr stands the tag alone.
//!
//! Before the first command stands [`FIRST`]. The node reads the same input from its start on
//! (`commands::control`). Its copy is removed once it has reported its port, that of a probe once
//! it reads. The files of a probe stay until they were returned.
//!
//! No copy and no process outlives the near side. At the end of input the script ends and removes
//! its directory. A cut line has no end of input: a watcher then ends the whole process group, and
//! the node ends by itself. `dd` reads no byte beyond a binary, as `head` of busybox would.

use crate::remote::answer::Tag;

/// The name that the program is installed under.
const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// The exit code of a node or a probe that heard nothing: the near side is gone.
pub const SILENT: i32 = 9;

/// The bytes of a piece of a file.
pub const PIECE: usize = 1 << 16;

/// The byte of its input that ends a probe in order, as the end of input does.
pub const QUIT: u8 = b'q';

/// Begins the line of a probe that could not open its path; the hop and the error follow.
pub const UNREACHABLE: &str = "unreachable at hop ";

/// The first line of the input: the character that csh would take for an event of its history,
/// and without which a shell does not know the process that it started last.
pub const FIRST: &str = "!\n";

/// The lines are joined by spaces. Letters: `t` tag, `d` directory, `g` watcher, `x` binary.
const LINES: &str = r#"
exec 3>&2 2>/dev/null; umask 077; set -f; t=TAG-1; t="$t"TAG-2; d=; g=; q="$"; read -r e;
w() {
  [ -z "$g" ] || kill -9 "$g" 2>/dev/null; g=;
  [ -z "$1" ] || {
    ( trap "" 15; n=0; o=;
      while [ "$n" -lt "$1" ]; do
        sleep 1; l=; [ -z "$d" ] || l=$(ls -l "$d");
        if [ "$l" = "$o" ]; then n=$((n + 1)); else n=0; fi; o=$l;
      done;
      [ -z "$d" ] || rm -rf "$d";
      kill 0; sleep 1; kill -9 0 ) </dev/null >/dev/null 2>&1 3>&- &
    eval "g=$q$e";
  };
};
f() { w; [ -z "$d" ] || rm -rf "$d"; };
b() {
  : > "$x"; n=0;
  while [ "$n" -lt "$a" ]; do
    l=$((a - n)); [ "$l" -lt 65536 ] || l=65536;
    dd bs="$l" count=1 2>/dev/null >> "$x";
    o=$n; n=$(wc -c < "$x"); n=$((n + 0));
    [ "$n" -gt "$o" ] || break;
  done;
};
k=;
w 8;
trap f 0; trap "exit 1" 1 2 13 15;
echo "$t machine $(uname -sm)";
echo "$t order $(dd if=/proc/self/exe bs=1 skip=5 count=1 2>/dev/null)";
echo "$t host $(cat /proc/sys/kernel/random/boot_id) $(ls -l /proc/self/ns/net)" 2>/dev/null;
if x=$(command -v PROGRAM); then
  echo "$t path $x";
  echo "$t installed $("$x" --control -V 2>&1 </dev/null | head -n 1)";
fi;
echo "$t end";
while read -r c a; do
  case $c in
  dir)
    for i in "$XDG_RUNTIME_DIR" /dev/shm /tmp /var/tmp "$HOME"; do
      [ -n "$i" ] || continue;
      d=$(mktemp -d "$i/.PROGRAM.XXXXXX" 2>/dev/null) || { d=; continue; };
      : > "$d/try"; chmod 700 "$d/try";
      if "$d/try" 2>/dev/null; then break; fi;
      rm -rf "$d"; d=;
    done;
    w 8; echo "$t dir $d";;
  put)
    w 8; x="$d/PROGRAM"; b; chmod 700 "$x"; w 8;
    v=$(cd "$d" && PATH=/dev/null "$x" --control -V 2>&1 </dev/null);
    echo "$t put $n $(echo "$v" | head -n 1)";
    [ "$n" -eq "$a" ] || exit 1;;
  run)
    w; x=${a:-$d/PROGRAM};
    "$x" --control 2>&1 | {
      k=;
      while read -r l; do
        case $l in *": listening on "*) k=1; f;; esac;
        echo "$t node $l";
      done;
      [ -n "$k" ];
    } && exit 0;
    w 2; echo "$t ended";;
  take)
    w 8; x="$d/${a#* }"; a=${a%% *}; k=1; b; echo "$t took $n";
    [ "$n" -eq "$a" ] || exit 1;;
  go)
    w; x=${a:-$d/PROGRAM};
    { "$x" --control 2>&3; c=$?; [ "$c" -ne SILENT ] || f; echo "$t" >&3; echo "$t exit $c"; } | {
      read -r l; if [ -n "$k" ]; then rm -f "$d/PROGRAM"; else f; fi;
      echo "$t node $l"; exec cat;
    };
    [ -n "$k" ] && [ -d "$d" ] || exit 0;
    w 8;;
  get)
    w 8; x="$d/${a#* }"; n=$(wc -c < "$x"); echo "$t piece $((n + 0))";
    dd bs=PIECE skip="${a%% *}" count=1 < "$x";;
  esac;
done
"#;

/// Returns the remote command: one argument of `sh -c` in single quotes, without a quote, an
/// exclamation mark, a backslash or a line end in it. So csh and fish pass it on as it is.
pub fn command(tag: &Tag) -> String {
    let (one, two) = tag.halves();
    let lines = LINES.split_whitespace().collect::<Vec<_>>().join(" ");
    let script = lines
        .replace("TAG-1", one)
        .replace("TAG-2", two)
        .replace("SILENT", &SILENT.to_string())
        .replace("PIECE", &PIECE.to_string())
        .replace("PROGRAM", PROGRAM);
    format!("exec sh -c '{script}'")
}

/// Stands between the words of a command line that a node or a probe reads. A word may have spaces.
pub const BETWEEN: char = '\u{1f}';

/// Returns the words of a command line as the one line that a node or a probe reads.
pub fn line(words: &[String]) -> String {
    words.join(BETWEEN.encode_utf8(&mut [0; 4])) + "\n"
}
