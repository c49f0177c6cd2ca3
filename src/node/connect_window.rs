//! The bytes that arrived while a node connected upstream: the time when they were there, and that
//! they were not read late.
//!
//! A pump reads nothing before the upstream connection is established. Bytes that the kernel has by
//! then waited for that, and not for a thread to wake: the time is the node's residence. As a
//! wake-up delay it would show a node with a long way upstream as one that reads late.

use crate::measure::LATEST;
use crate::node::clock::Moment;
use crate::time::{MonoTime, WallTime};

/// The interval in which a node was connecting upstream, on one generation of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectWindow {
    begun: WallTime,
    stood: WallTime,
    generation: u8,
}

/// The relation of a read's arrival time to the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// All of the read was there while the node connected, at this moment at the latest.
    WhileConnecting(Moment),
    /// It arrived after the connection was established, and so does all that follows.
    After,
    /// The arrival time is missing or implausible.
    Unknown,
}

impl ConnectWindow {
    /// Makes the interval between two readings of one clock; `None` if it was stepped between them.
    pub fn new(begun: Moment, stood: Moment) -> Option<Self> {
        let steady = begun.generation == stood.generation && begun.wall <= stood.wall;
        steady.then_some(Self {
            begun: begun.wall,
            stood: stood.wall,
            generation: stood.generation,
        })
    }

    /// Judges a read at `read_at` whose bytes had all arrived by `arrival`. An arrival time of up
    /// to a second before the connect began is plausible.
    pub fn judge(&self, read_at: Moment, arrival: Option<WallTime>) -> Arrived {
        let steady = read_at.generation == self.generation && !read_at.stepped;
        let Some(arrival) = arrival.filter(|at| steady && self.begun - *at <= LATEST) else {
            return Arrived::Unknown;
        };
        if arrival > self.stood {
            return Arrived::After;
        }
        let wall = arrival.max(self.begun);
        let Some(ago) = read_at.wall.0.checked_sub(wall.0) else {
            return Arrived::Unknown;
        };
        Arrived::WhileConnecting(Moment {
            wall,
            mono: MonoTime(read_at.mono.0.saturating_sub(ago)),
            ..read_at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::NANOS_PER_SEC;

    fn moment(ms: u64) -> Moment {
        Moment {
            wall: WallTime(100 * NANOS_PER_SEC + ms * 1_000_000),
            mono: MonoTime(NANOS_PER_SEC + ms * 1_000_000),
            ..Moment::default()
        }
    }

    fn at(ms: u64) -> Option<WallTime> {
        Some(moment(ms).wall)
    }

    /// Connects from 2000 to 2008 ms.
    fn window() -> ConnectWindow {
        ConnectWindow::new(moment(2000), moment(2008)).unwrap()
    }

    #[test]
    fn what_came_before_the_connection_stood_was_there_when_it_came() {
        for (came, there) in [
            (2000, 2000),
            (2001, 2001),
            (2008, 2008),
            (1995, 2000),
            (1001, 2000),
        ] {
            assert_eq!(
                window().judge(moment(2009), at(came)),
                Arrived::WhileConnecting(moment(there)),
                "{came}"
            );
        }
        // For a long connect too: it lies between two readings of the node's own clock.
        let slow = ConnectWindow::new(moment(2000), moment(9000)).unwrap();
        let came = slow.judge(moment(9001), at(2001));
        assert_eq!(came, Arrived::WhileConnecting(moment(2001)));
    }

    #[test]
    fn what_came_when_it_stood_may_be_read_late() {
        assert_eq!(window().judge(moment(2038), at(2009)), Arrived::After);
    }

    #[test]
    fn a_missing_or_implausible_arrival_time_decides_nothing() {
        assert_eq!(window().judge(moment(2009), None), Arrived::Unknown);
        // Longer ago than is plausible.
        assert_eq!(window().judge(moment(2009), at(999)), Arrived::Unknown);
        // Across a step of the clock.
        let stepped = Moment {
            stepped: true,
            ..moment(2009)
        };
        assert_eq!(window().judge(stepped, at(2001)), Arrived::Unknown);
        let later = |ms| Moment {
            generation: 1,
            ..moment(ms)
        };
        assert_eq!(window().judge(later(2009), at(2001)), Arrived::Unknown);
        assert_eq!(ConnectWindow::new(moment(2000), later(2008)), None);
        assert_eq!(ConnectWindow::new(moment(2008), moment(2000)), None);
        // Read before it arrived: a clock that was set back a little, which is no step yet.
        assert_eq!(window().judge(moment(2006), at(2007)), Arrived::Unknown);
    }
}
