//! A server's clock as this process knows it: asked now and then, and carried on by the time that passes
//! here.
//!
//! What several processes stamp and compare is judged by this one clock, whatever their own ones say.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use model::value::Timestamp;

/// How long an answer is carried on before the server is asked again.
const CARRIED_MAX: Duration = Duration::from_secs(10);
/// By how much the two ways to tell how long ago the answer was may differ. More means that this machine
/// slept, or that its clock was set: the answer is as old as nobody knows.
const DIFFERENCE_MAX: Duration = Duration::from_secs(1);

/// The clock of one server.
#[derive(Debug, Default)]
pub struct ServerClock(Mutex<Option<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    server: Timestamp,
    at: Instant,
    wall: SystemTime,
}

impl ServerClock {
    /// The server's time, where it was asked lately.
    pub fn recent(&self) -> Option<Timestamp> {
        let reading = (*self.0.lock())?;
        let passed = reading.at.elapsed();
        // a clock that was set back gives no time at all
        let by_wall = reading.wall.elapsed().ok()?;
        (passed < CARRIED_MAX && passed.abs_diff(by_wall) < DIFFERENCE_MAX).then(|| reading.carried(passed))
    }

    /// The server's time as far as it is known: from the last answer, however old, and this process's own
    /// before the first.
    pub fn now(&self) -> Timestamp {
        let reading = *self.0.lock();
        reading.map_or_else(Timestamp::now, |reading| reading.carried(reading.at.elapsed()))
    }

    /// Notes an answer to a question that was asked at a time: the server's clock had it then or later.
    pub fn note(&self, asked_at: Instant, server: Timestamp) {
        let wall = SystemTime::now().checked_sub(asked_at.elapsed()).unwrap_or_else(SystemTime::now);
        *self.0.lock() = Some(Reading { server, at: asked_at, wall });
    }
}

impl Reading {
    fn carried(&self, passed: Duration) -> Timestamp {
        Timestamp(self.server.0.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3_600_000;

    #[test]
    fn an_answer_is_carried_on_for_a_while_and_not_past_a_sleep() {
        let clock = ServerClock::default();
        assert!(clock.recent().is_none(), "nobody was asked");
        assert!(clock.now().0.abs_diff(Timestamp::now().0) < 5_000);
        let server = Timestamp(Timestamp::now().0 - 8 * DAY_MS);
        let second = Duration::from_secs(1);
        clock.note(Instant::now() - 2 * second, server);
        assert!((server.0 + 2_000..server.0 + 7_000).contains(&clock.recent().unwrap().0));
        clock.note(Instant::now() - CARRIED_MAX, server);
        assert!(clock.recent().is_none(), "it is asked again");
        assert!(clock.now() >= Timestamp(server.0 + 10_000), "better than this process's own clock");
        clock.note(Instant::now(), server);
        clock.0.lock().as_mut().unwrap().wall -= Duration::from_secs(3_600);
        assert!(clock.recent().is_none(), "this machine slept for an hour");
        clock.note(Instant::now(), server);
        clock.0.lock().as_mut().unwrap().wall += Duration::from_secs(3_600);
        assert!(clock.recent().is_none(), "its clock was set back by an hour");
    }
}
