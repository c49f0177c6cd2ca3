//! Noise of a real path: A -> B -> C -> Z in network namespaces, a block each 50 ms, recorded while
//! the machine was quiet and while compilers ran on both of its processors.
//!
//! A line has the parts of one block in microseconds: A -> B, B -> C, C -> Z, then A, B, C, Z.

use crate::random::Random;
use crate::search::{rises, search};
use crate::{percent, row};
use subsegment_tcp_speeds::measure::change::Search;

const INTERVAL: f64 = 50.0;
const RECORDED: [(&str, &str); 2] = [
    ("quiet", include_str!("quiet.txt")),
    ("loaded", include_str!("loaded.txt")),
];
const NAMES: [&str; 7] = ["A -> B", "B -> C", "C -> Z", "A", "B", "C", "Z"];

/// Both recordings in the order of time, block by block, to be replayed: a stretch of one of them
/// after the other.
pub(crate) struct Replay {
    quiet: Vec<[f64; 7]>,
    loaded: Vec<[f64; 7]>,
    /// Blocks of the stretch that goes on; where it is, and of which recording.
    left: usize,
    next: usize,
    is_loaded: bool,
    /// Blocks that a loaded stretch has, from and to.
    load: (usize, usize),
}

impl Replay {
    /// Loaded stretches have `load` blocks, quiet ones 100 to 1500.
    pub(crate) fn new(load: (usize, usize)) -> Self {
        let rows = |text: &str| {
            let row = |line: &str| {
                let mut row = [0.0; 7];
                for (part, us) in row.iter_mut().zip(line.split(' ')) {
                    *part = us.parse::<f64>().unwrap() / 1000.0;
                }
                row
            };
            text.lines().map(row).collect::<Vec<_>>()
        };
        let [quiet, loaded] = RECORDED.map(|(_, text)| rows(text));
        Self {
            quiet,
            loaded,
            left: 0,
            next: 0,
            is_loaded: true,
            load,
        }
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// The parts of the next block in milliseconds: three segments, four hosts.
    pub(crate) fn block(&mut self, random: &mut Random) -> [f64; 7] {
        if self.left == 0 {
            self.is_loaded = !self.is_loaded;
            let (from, to) = if self.is_loaded {
                self.load
            } else {
                (100, 1500)
            };
            self.left = from + random.below(to - from);
            self.next = random.below(self.quiet.len());
        }
        let rows = if self.is_loaded {
            &self.loaded
        } else {
            &self.quiet
        };
        self.left -= 1;
        self.next += 1;
        rows[(self.next - 1) % rows.len()]
    }
}

/// The delays of each part in milliseconds, block by block.
fn parts(text: &str) -> Vec<Vec<f64>> {
    let mut parts = vec![Vec::new(); NAMES.len()];
    for line in text.lines() {
        for (part, us) in parts.iter_mut().zip(line.split(' ')) {
            part.push(us.parse::<f64>().unwrap() / 1000.0);
        }
    }
    parts
}

/// Percent of the runs of `n` blocks, from all over the recording, in which a rise of one part is
/// named; `more` is added from the middle of the run on.
fn named(delays: &[f64], n: usize, more: f64, random: &mut Random) -> f64 {
    const RUNS: usize = 200;
    let mut s = Search::new(NAMES.len());
    let runs = (0..RUNS).filter(|_| {
        let from = random.below(delays.len() - n + 1);
        let mut run = delays[from..from + n].to_vec();
        run[n / 2..].iter_mut().for_each(|delay| *delay += more);
        rises(&search(&mut s, &run, &[], INTERVAL))
    });
    percent(runs.count(), RUNS)
}

pub(crate) fn recorded() {
    row!(
        "## Noise of a real path, runs of 100 / 200 / 400 / 1000 blocks: % in which a part is \
         named unchanged (what was late then was late), with +0.5 and +3 ms from the middle on"
    );
    for (name, text) in RECORDED {
        for (delays, part) in parts(text).iter().zip(NAMES) {
            let cells = [0.0, 0.5, 3.0].map(|more| {
                let mut random = Random::new(77);
                let sizes = [100, 200, 400, 1000];
                let cells = sizes.map(|n| format!("{:.0}", named(delays, n, more, &mut random)));
                cells.join("/")
            });
            let [unchanged, half, three] = cells;
            row!("{name:6} {part:6}: unchanged {unchanged}  +0.5 {half}  +3 {three}");
        }
    }
}

#[test]
fn a_quiet_real_path_names_nothing_and_3_ms_more_on_it() {
    for (delays, part) in parts(RECORDED[0].1).iter().zip(NAMES) {
        let mut random = Random::new(5);
        let unchanged = named(delays, 400, 0.0, &mut random);
        assert!(unchanged <= 5.0, "{part}: {unchanged} % named unchanged");
        let power = named(delays, 400, 3.0, &mut random);
        assert!(power >= 95.0, "{part}: {power} % named");
    }
}
