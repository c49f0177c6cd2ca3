//! The terminal of a live screen: raw keys in, lines out, and the former settings back at the end.
//!
//! stty(1), which knows the settings of terminals on every system, reads and changes them. They are
//! restored when the screen is dropped, before a second signal ends the process, and before a panic
//! is reported. The screen is drawn on the alternate one of the terminal, so that the former
//! content comes back. Meanwhile the log is silent if stderr is a terminal: notices stand in the
//! report.

use crate::collect::queue::Collector;
use crate::node::StopFlag;
use crate::output;
use crate::sync::channel::{channel, Receiver};
use crate::sync::{lock, spawn, STACK};
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::FULL;
use log::LevelFilter;
use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Once};

/// The interval of drawing.
const DRAW: Nanos = Nanos::from_millis(500);
/// The interval of reading the size of the terminal.
const MEASURE: Nanos = Nanos::from_millis(1_000);
/// The size of a terminal whose size is unknown.
const SIZE: (usize, usize) = (80, 24);

/// The settings to restore: those of the terminal in the format of `stty -g`, and the level of the
/// log.
static BEFORE: Mutex<Option<(String, LevelFilter)>> = Mutex::new(None);

/// The terminal of a live screen.
#[derive(Debug)]
pub struct Terminal {
    keys: Receiver<u8>,
    stop: Arc<StopFlag>,
    drawn: Option<MonoTime>,
    measured: Option<MonoTime>,
    /// Columns and lines.
    pub size: (usize, usize),
    /// Drawing is paused.
    pub paused: bool,
}

/// The actions that the keys and the time call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScreenActions {
    /// Begin the figures anew.
    pub reset: bool,
    /// Draw the screen.
    pub draw: bool,
}

impl Terminal {
    /// Takes the terminal over; `None` if stdin or stdout is no terminal, or one without cursor
    /// control. Keys wake `collector`.
    pub fn open(collector: Collector, stop: &Arc<StopFlag>) -> Option<Self> {
        if !FULL {
            return None;
        }
        let capable =
            std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        if !capable || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return None;
        }
        let before = stty(&["-g"])?;
        let (sender, keys) = channel(usize::MAX); // A user types few.
        let reading = spawn("keys", STACK, move || {
            let Ok(mut stdin) = output::raw_stdin() else {
                return;
            };
            let mut key = [0];
            // Ends with the process.
            while matches!(stdin.read(&mut key), Ok(1)) && sender.send(key[0]).is_ok() {
                collector.wake();
            }
        });
        reading.ok()?;
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                usual(panic);
            }));
        });
        *lock(&BEFORE) = Some((before, log::max_level()));
        // Interrupts stay signals; a stop or a quit would leave these settings to the shell.
        let settings = [
            "-icanon", "-echo", "susp", "undef", "quit", "undef", "min", "1", "time", "0",
        ];
        if stty(&settings).is_none() {
            restore();
            return None;
        }
        if std::io::stderr().is_terminal() {
            log::set_max_level(LevelFilter::Off);
        }
        send("\x1b[?1049h\x1b[?25l\x1b[2J");
        Some(Self {
            keys,
            stop: Arc::clone(stop),
            drawn: None,
            measured: None,
            size: SIZE,
            paused: false,
        })
    }

    /// Takes the keys typed since the last call.
    pub fn tick(&mut self) -> ScreenActions {
        if !FULL {
            return ScreenActions {
                reset: false,
                draw: false,
            };
        }
        let now = sys::clock::mono();
        let (mut typed, mut reset) = (false, false);
        for key in self.keys.try_iter() {
            typed = true;
            match key {
                b'q' | b'Q' => self.stop.set(),
                b'r' | b'R' => reset = true,
                b'p' | b'P' => self.paused = !self.paused,
                b' ' => self.paused = false,
                _ => {}
            }
        }
        let since = |last: Option<MonoTime>| last.map(|last| now.since(last));
        let due = since(self.drawn).map_or(true, |span| span >= DRAW);
        let draw = typed || due && !self.paused;
        if draw {
            self.drawn = Some(now);
            if since(self.measured).map_or(true, |span| span >= MEASURE) {
                self.measured = Some(now);
                self.size = size().unwrap_or(self.size);
            }
        }
        ScreenActions { reset, draw }
    }

    /// Draws `lines` with one write.
    pub fn draw(&self, lines: &[String]) {
        if lock(&BEFORE).is_none() {
            return; // Restored already: the process is about to end.
        }
        let mut text = String::from("\x1b[H");
        text.push_str(&lines.join("\x1b[K\r\n"));
        text.push_str("\x1b[K\x1b[J");
        send(&text);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the settings and the content of the terminal, if a screen has it.
pub fn restore() {
    if !FULL {
        return;
    }
    let Some((before, level)) = lock(&BEFORE).take() else {
        return;
    };
    send("\x1b[?25h\x1b[?1049l");
    if stty(&[&before]).is_none() {
        output::print_error("the terminal could not be set back: type `stty sane`\n");
    }
    log::set_max_level(level);
}

/// Writes to the terminal. A failure is ignored: writing the results meets it again.
fn send(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Runs stty(1) and returns its output; `None` if it failed.
fn stty(args: &[&str]) -> Option<String> {
    let asked = Command::new("stty")
        .args(args)
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output();
    let answer = asked.ok().filter(|answer| answer.status.success())?;
    Some(String::from_utf8(answer.stdout).ok()?.trim().to_owned())
}

/// Returns columns and lines of the terminal at stdin; `None` if there is none.
pub(super) fn size() -> Option<(usize, usize)> {
    if !FULL {
        return None;
    }
    let answer = stty(&["size"])?;
    let (lines, columns) = answer.split_once(' ')?;
    let (lines, columns) = (lines.parse().ok()?, columns.parse().ok()?);
    (lines > 0 && columns > 0).then_some((columns, lines))
}
