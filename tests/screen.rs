//! The live screen of `probe -c 0` on a real terminal: tmux(1) is the terminal, types the keys and
//! captures the screen.

mod util;

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use util::{need, text, Dir, Node, LONG};

/// The end of each draw: no bytes follow on the terminal until the next one.
const DRAWN: &str = "\x1b[J";

/// A separate tmux server with one window of 100 x 30, in which a shell runs a script.
struct Terminal {
    dir: Dir,
    tmux: PathBuf,
    /// Bytes that were written to the terminal.
    written: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Runs `probe`, the rest of a command line, between two readings of the terminal's settings.
    fn start(name: &str, probe: &str) -> Self {
        let (tmux, dir) = (need("tmux"), Dir::new(name));
        need("stty");
        let pipe = dir.file("pipe");
        assert!(Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success());
        let script = format!(
            "trap : INT; read go; stty -g > before; {} probe {probe}; echo $? > code; \
             stty -g > after; tmux wait-for -S over\n\
             read go\n",
            env!("CARGO_BIN_EXE_subsegment-tcp-speeds")
        );
        std::fs::write(dir.file("script"), script).unwrap();
        let (sender, written) = channel();
        std::thread::spawn(move || {
            let mut pipe = std::fs::File::open(pipe).unwrap();
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut bytes) {
                if sender.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self {
            dir,
            tmux,
            written,
            seen: String::new(),
        };
        terminal.tmux(&[
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            "exec sh script",
        ]);
        terminal.tmux(&["pipe-pane", "-o", "exec cat > pipe"]);
        terminal.tmux(&["send-keys", "Enter"]);
        terminal
    }

    #[track_caller]
    fn tmux(&self, args: &[&str]) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(&self.tmux)
            .args(["-f", "/dev/null", "-S"])
            .arg(self.dir.file("socket"))
            .args(args)
            .current_dir(&self.dir.0)
            .output()
            .unwrap();
        assert!(status.success(), "{args:?}: {}", text(&stderr));
        text(&stdout)
    }

    /// Waits until `part` is written to the terminal, after the part before and after the last key.
    #[track_caller]
    fn wait(&mut self, part: &str) {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(at) = self.seen.find(part) {
                self.seen.drain(..at + part.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.written.recv_timeout(left) {
                Ok(bytes) => self.seen += &text(&bytes),
                Err(error) => panic!("{part:?} never came: {error}; shown:\n{}", self.shown()),
            }
        }
    }

    /// Waits until a whole screen with the rows of the path is drawn.
    #[track_caller]
    fn wait_rows(&mut self) -> String {
        for _ in 0..20 {
            self.wait("p pause"); // The end of each draw.
            let shown = self.shown();
            if shown.contains("1 Z (echo)") {
                return shown;
            }
        }
        panic!("no rows in\n{}", self.shown());
    }

    fn key(&mut self, key: &str) {
        self.written.try_iter().for_each(drop);
        self.seen.clear();
        self.tmux(&["send-keys", key]);
    }

    fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The figure after `Snt`.
    #[track_caller]
    fn sent(&self) -> u64 {
        let shown = self.shown();
        let figure = shown
            .split("Snt ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let figure = figure.and_then(|figure| figure.trim().parse().ok());
        figure.unwrap_or_else(|| panic!("no Snt in\n{shown}"))
    }

    /// Waits for the end of the probe; its exit code.
    #[track_caller]
    fn ended(&self) -> String {
        self.tmux(&["wait-for", "over"]);
        let read = |name| std::fs::read_to_string(self.dir.file(name)).unwrap();
        assert!(!read("before").is_empty());
        assert_eq!(read("before"), read("after"), "the terminal's settings");
        read("code").trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new(&self.tmux)
            .arg("-S")
            .arg(self.dir.file("socket"))
            .arg("kill-server")
            .output();
    }
}

fn start(name: &str) -> (Node, Terminal) {
    let echo = Node::start("Z", &[]);
    let probe = format!("{} --node A -c 0 -i 0.02", echo.address);
    let terminal = Terminal::start(name, &probe);
    (echo, terminal)
}

#[test]
fn the_screen_shows_rows_pauses_begins_anew_and_leaves_the_terminal_as_it_was() {
    let (_echo, mut terminal) = start("screen");
    let shown = terminal.wait_rows();
    for part in [
        "Verdict: ",
        "Last   Avg  Best  Wrst StDev",
        " 0 A (source)",
        "A -> Z",
        "1 Z (echo)",
        "q quit",
    ] {
        assert!(shown.contains(part), "{part:?} is missing:\n{shown}");
    }

    terminal.key("p");
    terminal.wait("PAUSED");
    terminal.wait(DRAWN);
    let paused = terminal.shown();
    assert_eq!(terminal.seen, "", "a key is one draw");
    // Two more draws would have come by then.
    let quiet = terminal.written.recv_timeout(Duration::from_millis(1_300));
    assert_eq!(quiet, Err(RecvTimeoutError::Timeout), "it goes on drawing");
    assert_eq!(terminal.shown(), paused);
    let before = terminal.sent();
    terminal.key("Space");
    terminal.wait("p pause");
    let resumed = terminal.sent();
    assert!(
        resumed > before + 20,
        "measuring went on: {before}, then {resumed}"
    );

    terminal.key("r");
    // One more of the old ones may be drawn before the key is there.
    let draws = (0..20).map(|_| {
        terminal.wait("p pause");
        terminal.sent()
    });
    let anew = draws.into_iter().find(|sent| *sent < resumed);
    assert!(anew.is_some(), "it never began anew after {resumed} blocks");

    terminal.tmux(&["resize-window", "-x", "120", "-y", "12"]);
    terminal.wait("rows more");
    terminal.wait(DRAWN);
    let rows = terminal.shown();
    assert!(
        rows.lines().count() <= 12 && rows.contains("q quit"),
        "{rows}"
    );

    // A quit would leave the terminal as the screen has it.
    terminal.key("C-\\");
    terminal.wait("q quit");
    terminal.key("q");
    assert_eq!(terminal.ended(), "0");
    let last = terminal.shown();
    assert!(
        last.contains("Confidence") && !last.contains("q quit"),
        "the report stays:\n{last}"
    );
}

#[test]
fn a_signal_and_a_second_one_leave_the_terminal_as_it_was() {
    let (echo, mut terminal) = start("screen-term");
    terminal.wait_rows();
    terminal.key("C-c");
    assert_eq!(terminal.ended(), "0");

    // A stopped echo never sends END: the first interrupt has to wait for it, the second does not.
    let probe = format!("{} --node A -c 0 -i 0.02 -t 60", echo.address);
    let mut terminal = Terminal::start("screen-kill", &probe);
    terminal.wait_rows();
    echo.process.signal("STOP");
    terminal.key("C-c");
    // Two signals at once would be one: it goes on drawing while it waits for the end.
    terminal.wait("p pause");
    terminal.wait("p pause");
    terminal.key("C-c");
    assert_eq!(terminal.ended(), "3", "what is unknown is no warning");
}

#[test]
fn where_a_terminal_is_missing_or_dumb_there_is_no_screen() {
    let echo = Node::start("Z", &[]);
    let probe = format!("{} --node A -c 0 -i 0.02 < /dev/null", echo.address);
    let mut terminal = Terminal::start("screen-none", &probe);
    // The live line, as ever.
    terminal.wait("answered, last");
    assert!(!terminal.shown().contains("q quit"));
    terminal.key("C-c");
    assert_eq!(terminal.ended(), "0");
}
