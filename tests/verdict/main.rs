//! Trials of the search for changes, by simulation: false verdicts, power, coverage.
//!
//! As tests they are small, with bounds that leave room for chance. `scripts/trials verdict` prints
//! the whole tables, in the release build (environment variable `STS_TRIALS`).

#[allow(dead_code)] // Not all of it is used by every test that has it.
#[path = "../util/random.rs"]
mod random;

mod endless;
mod finite;
mod noise;
mod power;
mod recorded;
mod search;
#[allow(dead_code)]
#[path = "../../src/measure/tests/simulator.rs"]
mod simulator;
mod state;
mod weeks;

// The simulator is the library's too, and names them as its own.
use subsegment_tcp_speeds::{measure, time};

/// Prints the tables of `STS_TRIALS`: `all`, or names with commas between.
#[test]
fn tables() {
    let Ok(wanted) = std::env::var("STS_TRIALS") else {
        return;
    };
    let tables: [(&str, fn()); 22] = [
        ("false", finite::false_verdicts),
        ("power", power::power),
        ("special", finite::special),
        ("where", finite::places_and_amounts),
        ("least", finite::least),
        ("share", finite::least_share),
        ("several", finite::several),
        ("levels", state::levels),
        ("tails", state::tails),
        ("sequences", state::sequences),
        ("weeks", weeks::false_verdicts),
        ("memory", endless::memory),
        ("steps", weeks::steps),
        ("slow", weeks::slow),
        ("bursts", endless::bursts),
        ("restarts", endless::restarts),
        ("recorded", recorded::recorded),
        ("replayed", endless::replayed),
        ("seldom", endless::seldom),
        ("cost", finite::cost),
        ("cost", weeks::cost),
        ("cost", endless::cost),
    ];
    let is_wanted = |name: &str| wanted == "all" || wanted.split(',').any(|w| w == name);
    for (name, table) in tables {
        if is_wanted(name) {
            table();
        }
    }
}

/// A line of a table: `scripts/trials` prints what begins so.
macro_rules! row {
    ($($arg:tt)*) => { println!("TRIALS {}", format_args!($($arg)*)) };
}
pub(crate) use row;

/// `count` of `of` in percent.
fn percent(count: usize, of: usize) -> f64 {
    100.0 * count as f64 / of.max(1) as f64
}
