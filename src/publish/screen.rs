//! The terminal of a live screen: raw keys in, lines out, and everything as it was at the end.
//!
//! The settings of the terminal are read and changed by stty(1), which knows them on every system. They are put back when
//! the screen is dropped, before a second signal ends the process, and before a panic is reported; what the terminal showed
//! before comes back too, for the screen is drawn on the alternate one. While it is up the log is silent where stderr is a
//! terminal: notices stand in the report.

use crate::collect::queue::Collector;
use crate::node::StopFlag;
use crate::output;
use crate::sync::lock;
use crate::sync::STACK;
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::FULL;
use crossbeam_channel::{unbounded, Receiver};
use log::LevelFilter;
use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::Builder;

/// How often it is drawn.
const DRAW: Nanos = Nanos::from_millis(500);
/// How often the size of the terminal is asked for.
const MEASURE: Nanos = Nanos::from_millis(1_000);
/// Where nobody knows.
const SIZE: (usize, usize) = (80, 24);

/// What to put back: the settings of the terminal in stty's own words, and how much was logged.
static BEFORE: Mutex<Option<(String, LevelFilter)>> = Mutex::new(None);

/// The terminal while a live screen has it.
#[derive(Debug)]
pub struct Terminal {
    keys: Receiver<u8>,
    stop: Arc<StopFlag>,
    drawn: Option<MonoTime>,
    measured: Option<MonoTime>,
    /// Columns and lines.
    pub size: (usize, usize),
    /// What is shown stays.
    pub paused: bool,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Begin anew.
    pub reset: bool,
    /// Draw now.
    pub draw: bool,
}

impl Terminal {
    /// Takes the terminal over; `None` where stdin or stdout is none, or cannot be steered. Keys wake `collector`.
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
        let (say, keys) = unbounded(); // As many as a person types.
        let reading = Builder::new()
            .name("keys".into())
            .stack_size(STACK)
            .spawn(move || {
                let Ok(mut stdin) = output::raw_stdin() else {
                    return;
                };
                let mut key = [0];
                // The process ends without it.
                while matches!(stdin.read(&mut key), Ok(1)) && say.send(key[0]).is_ok() {
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
        // Interrupts stay signals; a stop or a quit would leave the shell with our settings.
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

    /// Takes the keys typed since, and tells what is to be done.
    pub fn tick(&mut self) -> Wish {
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
        Wish { reset, draw }
    }

    /// Shows `lines`, with one write.
    pub fn draw(&self, lines: &[String]) {
        if lock(&BEFORE).is_none() {
            return; // Given back already: the process is about to end.
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

/// Gives the terminal back as it was, if a screen has it.
pub fn restore() {
    if !FULL {
        return;
    }
    let Some((before, level)) = lock(&BEFORE).take() else {
        return;
    };
    send("\x1b[?25h\x1b[?1049l");
    if stty(&[&before]).is_none() {
        output::tell("the terminal could not be set back: type `stty sane`\n");
    }
    log::set_max_level(level);
}

/// A terminal that takes nothing any more is noticed where results are written.
fn send(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What stty(1) said; `None` where it failed.
fn stty(args: &[&str]) -> Option<String> {
    let asked = Command::new("stty")
        .args(args)
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output();
    let answer = asked.ok().filter(|answer| answer.status.success())?;
    Some(String::from_utf8(answer.stdout).ok()?.trim().to_owned())
}

/// Columns and lines.
fn size() -> Option<(usize, usize)> {
    let answer = stty(&["size"])?;
    let (lines, columns) = answer.split_once(' ')?;
    let (lines, columns) = (lines.parse().ok()?, columns.parse().ok()?);
    (lines > 0 && columns > 0).then_some((columns, lines))
}
