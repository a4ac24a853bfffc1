//! A circuit breaker: after some failures in a row a dependency is left alone for a while, then tried by one
//! call at a time.
//!
//! Own code, because what a read needs is small and exact: one probe at a time while half open, a call that
//! is dropped counts as neither success nor failure, and nothing is allocated or counted over windows.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

/// A circuit breaker for one dependency.
#[derive(Debug)]
pub struct Breaker {
    threshold: u32,
    open_for: Duration,
    inner: Mutex<Inner>,
}

/// Whether calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// They do.
    Closed,
    /// They are refused at once.
    Open,
    /// One call at a time goes through, to see whether the dependency is back.
    HalfOpen,
}

/// The right to make one call. Dropped without a verdict (the caller was cancelled), it changes nothing.
#[derive(Debug)]
#[must_use]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
    given: bool,
}

#[derive(Debug, Default)]
struct Inner {
    failures: u32,
    opened_at: Option<Instant>,
    probing: bool,
    opened: u64,
}

impl Breaker {
    /// A closed breaker that opens after `threshold` failures in a row (at least one), for a time of
    /// `open_for`.
    pub fn new(threshold: u32, open_for: Duration) -> Self {
        Self { threshold: threshold.max(1), open_for, inner: Mutex::default() }
    }

    /// The right to make a call now, or nothing while the breaker is open or another call probes.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_acquire_at(Instant::now())
    }

    fn try_acquire_at(&self, now: Instant) -> Option<Permit<'_>> {
        let mut inner = self.inner.lock();
        let probe = match inner.opened_at {
            None => false,
            Some(at) if now.duration_since(at) < self.open_for || inner.probing => return None,
            Some(_) => true,
        };
        inner.probing |= probe;
        Some(Permit { breaker: self, probe, given: false })
    }

    /// Whether calls go through now.
    pub fn state(&self) -> BreakerState {
        self.state_at(Instant::now())
    }

    fn state_at(&self, now: Instant) -> BreakerState {
        match self.inner.lock().opened_at {
            None => BreakerState::Closed,
            Some(at) if now.duration_since(at) < self.open_for => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// How often it went from closed to open.
    pub fn opened(&self) -> u64 {
        self.inner.lock().opened
    }
}

impl Permit<'_> {
    /// The call succeeded: the breaker is closed.
    pub fn success(mut self) {
        self.given = true;
        let mut inner = self.breaker.inner.lock();
        // a call that began before the breaker opened says nothing about now
        if inner.opened_at.is_none() || self.probe {
            *inner = Inner { opened: inner.opened, ..Inner::default() };
        }
    }

    /// The call failed. Says whether the breaker is open now.
    pub fn failure(self) -> bool {
        self.failure_at(Instant::now())
    }

    fn failure_at(mut self, now: Instant) -> bool {
        self.given = true;
        let mut inner = self.breaker.inner.lock();
        inner.failures = inner.failures.saturating_add(1);
        if self.probe {
            inner.probing = false;
            inner.opened_at = Some(now);
        } else if inner.opened_at.is_none() && inner.failures >= self.breaker.threshold {
            inner.opened_at = Some(now);
            inner.opened += 1;
        }
        inner.opened_at.is_some()
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe && !self.given {
            self.breaker.inner.lock().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_millis(500);

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, OPEN_FOR);
        for turn in 1..=3 {
            assert_eq!(breaker.try_acquire_at(now).unwrap().failure_at(now), turn == 3);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let (breaker, now) = (Breaker::new(3, OPEN_FOR), Instant::now());
        for _ in 0..5 {
            breaker.try_acquire_at(now).unwrap().failure_at(now);
            breaker.try_acquire_at(now).unwrap().failure_at(now);
            breaker.try_acquire_at(now).unwrap().success();
        }
        assert_eq!(breaker.state_at(now), BreakerState::Closed);
        assert_eq!(opened(now).state_at(now), BreakerState::Open);
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let start = Instant::now();
        let breaker = opened(start);
        assert!(breaker.try_acquire_at(start).is_none());
        let later = start + OPEN_FOR;
        let probe = breaker.try_acquire_at(later).unwrap();
        assert!(breaker.try_acquire_at(later).is_none(), "a second call went through while one probes");
        assert!(probe.failure_at(later));
        assert_eq!(breaker.state_at(later), BreakerState::Open);
        let later = later + OPEN_FOR;
        breaker.try_acquire_at(later).unwrap().success();
        assert_eq!(breaker.state_at(later), BreakerState::Closed);
        assert_eq!(breaker.opened(), 1);
    }

    #[test]
    fn a_dropped_probe_gives_its_turn_back() {
        let start = Instant::now();
        let breaker = opened(start);
        drop(breaker.try_acquire_at(start + OPEN_FOR).unwrap());
        assert!(breaker.try_acquire_at(start + OPEN_FOR).is_some());
    }

    #[test]
    fn a_late_success_from_before_does_not_close_it() {
        let (breaker, now) = (Breaker::new(1, OPEN_FOR), Instant::now());
        let slow = breaker.try_acquire_at(now).unwrap();
        assert!(breaker.try_acquire_at(now).unwrap().failure_at(now));
        slow.success();
        assert_eq!(breaker.state_at(now), BreakerState::Open);
    }
}
