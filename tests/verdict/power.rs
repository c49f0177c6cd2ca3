//! Power of the search in finite runs, by share of the blocks, size and position of the change.

use crate::finite::{PLAIN, QUIET, WIDE};
use crate::noise::{Change, Noise};
use crate::random::Random;
use crate::search::{rises, trial};
use crate::{percent, row};
use subsegment_tcp_speeds::measure::change::Search;

pub(crate) fn power_of(noise: &Noise, n: usize, rows: usize, change: Change, seed: u64) -> f64 {
    let mut random = Random::new(seed);
    let mut s = Search::new(9);
    let named = (0..rows).filter(|_| rises(&trial(&mut s, noise, &mut random, n, Some(change))));
    percent(named.count(), rows)
}

/// Power of the reference at a spread of 0.3 ms, for blocks, share and delay.
const REFERENCE: [(usize, f64, f64, &str); 30] = [
    (100, 1.0, 1.0, "29/80/89/82/34"),
    (100, 1.0, 3.0, "97/97/100/99/99"),
    (100, 1.0, 30.0, "97/100/100/100/100"),
    (100, 0.4, 1.0, "0/3/12/9/1"),
    (100, 0.4, 3.0, "0/12/41/10/13"),
    (100, 0.4, 30.0, "1/24/45/15/9"),
    (200, 1.0, 1.0, "94/100/99/99/93"),
    (200, 1.0, 3.0, "100/100/99/100/100"),
    (200, 0.4, 1.0, "0/59/75/69/10"),
    (200, 0.2, 1.0, "0/8/10/7/0"),
    (200, 0.4, 3.0, "0/84/94/85/13"),
    (200, 0.2, 3.0, "0/9/27/24/1"),
    (200, 0.4, 30.0, "1/93/95/91/22"),
    (200, 0.2, 30.0, "0/7/43/24/2"),
    (400, 0.4, 1.0, "16/96/94/95/73"),
    (400, 0.4, 3.0, "59/99/99/98/93"),
    (400, 0.4, 30.0, "80/97/100/100/98"),
    (400, 0.2, 1.0, "0/26/34/49/8"),
    (400, 0.1, 1.0, "0/2/3/2/0"),
    (400, 0.2, 3.0, "0/50/88/76/25"),
    (400, 0.1, 3.0, "0/8/12/15/0"),
    (400, 0.2, 30.0, "2/70/92/84/20"),
    (400, 0.1, 30.0, "0/12/28/28/5"),
    (1000, 0.2, 1.0, "39/97/96/95/63"),
    (1000, 0.2, 3.0, "73/96/100/99/90"),
    (1000, 0.2, 30.0, "73/97/99/100/98"),
    (1000, 0.1, 1.0, "1/28/45/26/6"),
    (1000, 0.1, 3.0, "2/60/88/77/23"),
    (1000, 0.1, 30.0, "2/72/97/82/53"),
    (1000, 0.03, 30.0, "0/1/2/6/0"),
];

pub(crate) fn power() {
    row!("## Power in %, change from 10/30/50/70/90 % of the run to its end; reference");
    for noise in [QUIET, PLAIN, WIDE] {
        for n in [100, 200, 400, 1000] {
            for share in [0.03, 0.1, 0.2, 0.4, 1.0] {
                let mut line =
                    format!("spread {:4} n {n:4} {:3.0} %:", noise.spread, share * 100.0);
                for delay in [1.0, 3.0, 8.0, 30.0] {
                    let cells = [0.1, 0.3, 0.5, 0.7, 0.9].map(|start| {
                        let seed = (start * 10.0 + delay * 100.0 + share * 1e6) as u64 + n as u64;
                        let change = Change::add(delay, share, start);
                        format!("{:.0}", power_of(&noise, n, 400, change, seed))
                    });
                    line += &format!("  +{delay} {}", cells.join("/"));
                    let known = REFERENCE.iter().find(|(blocks, hit, by, _)| {
                        noise.spread == 0.3 && (*blocks, *hit, *by) == (n, share, delay)
                    });
                    if let Some((.., reference)) = known {
                        line += &format!(" [{reference}]");
                    }
                }
                row!("{line}");
            }
        }
    }
}
