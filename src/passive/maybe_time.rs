//! A time that may not be known, in the eight bytes of one that is.

use crate::time::WallTime;

/// The time, or none, which is before any: an `Option` would take sixteen bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaybeTime(
    /// One more than the time; 0 where there is none.
    u64,
);

impl MaybeTime {
    /// Returns the time, if there is one.
    #[inline]
    pub fn get(self) -> Option<WallTime> {
        self.0.checked_sub(1).map(WallTime)
    }

    /// Returns `true` if there is a time.
    #[inline]
    pub fn is_some(self) -> bool {
        self.0 > 0
    }
}

/// The last nanosecond, in the year 2554, is one earlier.
impl From<WallTime> for MaybeTime {
    #[inline]
    fn from(time: WallTime) -> Self {
        Self(time.0.saturating_add(1))
    }
}

impl From<Option<WallTime>> for MaybeTime {
    #[inline]
    fn from(time: Option<WallTime>) -> Self {
        time.map_or(Self::default(), Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_any_time_or_none() {
        assert_eq!(
            (MaybeTime::default().get(), size_of::<MaybeTime>()),
            (None, 8)
        );
        for time in [0, 1, 1_795_253_400_000_000_000, u64::MAX - 1].map(WallTime) {
            assert_eq!(MaybeTime::from(time).get(), Some(time));
            assert_eq!(MaybeTime::from(Some(time)), time.into());
            assert!(MaybeTime::from(None) < time.into());
        }
    }
}
