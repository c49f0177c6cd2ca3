//! What came while a node set up its onward connection: when it was there, and that it was not read late.
//!
//! A pump reads nothing before the onward connection stands. What the kernel has by then waited for that, not for a
//! process to wake: it was there when the kernel had it, and the rest is the node's residence. (Taken for a wake-up delay
//! it would say of a node whose way onward is long that it reads late.) Late it can only have been until it began.

use crate::measure::LATEST;
use crate::node::clock::Moment;
use crate::time::{MonoTime, WallTime};

/// From when to when a node was busy with its onward connection, on one generation of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectWindow {
    begun: WallTime,
    stood: WallTime,
    generation: u8,
}

/// What the kernel's time of a read says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// All of the read was there while the node connected, at this moment at the latest.
    Meanwhile(Moment),
    /// It came when the connection stood, and so does all that follows.
    After,
    /// The kernel did not tell, or cannot be believed.
    Unknown,
}

impl ConnectWindow {
    /// Two readings of one clock; `None` where it was stepped between them.
    pub fn new(begun: Moment, stood: Moment) -> Option<Self> {
        let steady = begun.generation == stood.generation && begun.wall <= stood.wall;
        steady.then_some(Self {
            begun: begun.wall,
            stood: stood.wall,
            generation: stood.generation,
        })
    }

    /// Whether what was read at `read_at` had come before the connection stood: all of it by `arrival`, as the kernel tells,
    /// which is believed from a second before the node began to connect.
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
        Arrived::Meanwhile(Moment {
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
                Arrived::Meanwhile(moment(there)),
                "{came}"
            );
        }
        // However long that took: it lies between two readings of our own clock.
        let slow = ConnectWindow::new(moment(2000), moment(9000)).unwrap();
        let came = slow.judge(moment(9001), at(2001));
        assert_eq!(came, Arrived::Meanwhile(moment(2001)));
    }

    #[test]
    fn what_came_when_it_stood_may_be_read_late() {
        assert_eq!(window().judge(moment(2038), at(2009)), Arrived::After);
    }

    #[test]
    fn a_kernel_that_does_not_tell_or_cannot_be_believed_decides_nothing() {
        assert_eq!(window().judge(moment(2009), None), Arrived::Unknown);
        // Longer ago than a kernel is believed.
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
        // Read before it came: a clock that was set back a little, which is no step yet.
        assert_eq!(window().judge(moment(2006), at(2007)), Arrived::Unknown);
    }
}
