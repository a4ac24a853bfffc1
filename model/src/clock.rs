//! The clock by which a process drops what is old in its own files, guarded against being wrong.

use std::{sync::OnceLock, time::Instant};

use super::value::Timestamp;

/// The clock of this process where nobody else keeps one, guarded against being wrong: no later than the
/// newest stamp that was found when it began to be asked, and the time that has passed since. So what a clock
/// that is days ahead calls old is kept until as much time has really passed.
#[derive(Debug, Default)]
pub struct GuardedClock(OnceLock<(Option<Timestamp>, Instant)>);

impl GuardedClock {
    /// Notes the newest stamp that was there before this process stamped anything. The first note stays.
    pub fn begin(&self, newest: Option<Timestamp>) {
        _ = self.0.set((newest, Instant::now()));
    }

    /// Whether it was begun.
    pub fn has_begun(&self) -> bool {
        self.0.get().is_some()
    }

    /// The latest time that it surely is.
    pub fn now(&self) -> Timestamp {
        self.at(Timestamp::now(), Instant::now())
    }

    fn at(&self, wall: Timestamp, now: Instant) -> Timestamp {
        let Some((newest, begun)) = self.0.get() else { return wall };
        let passed = i64::try_from(now.saturating_duration_since(*begun).as_millis()).unwrap_or(i64::MAX);
        // a file without stamps has nothing that could be too old
        newest.map_or(wall, |newest| wall.min(Timestamp(newest.0.saturating_add(passed))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY_MS: i64 = 24 * 3_600_000;

    #[test]
    fn a_clock_that_is_days_ahead_makes_nothing_old() {
        let stamped = Timestamp::now();
        let clock = GuardedClock::default();
        clock.begin(Some(stamped));
        let begun = clock.0.get().unwrap().1;
        let ahead = Timestamp(stamped.0 + 8 * DAY_MS);
        assert_eq!(clock.at(ahead, begun), stamped);
        let later = begun + Duration::from_secs(3_600);
        assert_eq!(clock.at(ahead, later), Timestamp(stamped.0 + 3_600_000), "an hour has passed");
        assert_eq!(
            clock.at(Timestamp(stamped.0 + 1_000), later),
            Timestamp(stamped.0 + 1_000),
            "a clock that is behind"
        );
        clock.begin(None);
        assert!(clock.has_begun() && clock.at(ahead, begun) == stamped, "the first note stays");
    }
}
