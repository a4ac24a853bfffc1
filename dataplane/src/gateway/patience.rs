//! How long a safe request waits for one pod before another is asked as well, and how often that may be.

use std::{
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
    time::Duration,
};

/// The shortest wait: pods that answer in a millisecond also have a slow moment.
const SHORTEST: Duration = Duration::from_millis(250);
/// The longest wait, also before anything was measured.
const LONGEST: Duration = Duration::from_secs(1);

/// What each request adds to the budget of second attempts, in thousandths: one in ten may have one.
const DEPOSIT: i64 = 100;
const ATTEMPT: i64 = 1000;
/// Second attempts that may come at once.
const SAVED_MAX: i64 = 20 * ATTEMPT;

/// How long a pod takes to begin an answer: smoothed mean and deviation, by the method of RFC 6298.
#[derive(Debug, Default)]
pub struct AnswerTime {
    mean_us: AtomicU32,
    deviation_us: AtomicU32,
}

/// How many second attempts there may be.
#[derive(Debug)]
pub struct RetryBudget(AtomicI64);

impl AnswerTime {
    /// Takes a measurement. Two at once may lose one, which does no harm.
    pub fn observe(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mean = self.mean_us.load(Ordering::Relaxed);
        if mean == 0 {
            self.mean_us.store(took.max(1), Ordering::Relaxed);
            self.deviation_us.store(took / 2, Ordering::Relaxed);
            return;
        }
        let deviation = self.deviation_us.load(Ordering::Relaxed);
        self.deviation_us.store(deviation - deviation / 4 + mean.abs_diff(took) / 4, Ordering::Relaxed);
        self.mean_us.store((mean - mean / 8 + took / 8).max(1), Ordering::Relaxed);
    }

    /// How long to wait for an answer before another pod is asked, too.
    pub fn patience(&self) -> Duration {
        let (mean, deviation) =
            (self.mean_us.load(Ordering::Relaxed), self.deviation_us.load(Ordering::Relaxed));
        match mean {
            0 => LONGEST,
            mean => {
                Duration::from_micros(u64::from(mean) + 8 * u64::from(deviation)).clamp(SHORTEST, LONGEST)
            }
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicI64::new(SAVED_MAX))
    }
}

impl RetryBudget {
    /// Counts a request.
    pub fn deposit(&self) {
        if self.0.load(Ordering::Relaxed) < SAVED_MAX {
            self.0.fetch_add(DEPOSIT, Ordering::Relaxed);
        }
    }

    /// Takes a second attempt out, where one is left.
    pub fn withdraw(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                (saved >= ATTEMPT).then(|| saved - ATTEMPT)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_was_measured() {
        let time = AnswerTime::default();
        assert_eq!(time.patience(), LONGEST);
        for _ in 0..50 {
            time.observe(Duration::from_millis(1));
        }
        assert_eq!(time.patience(), SHORTEST);
        for n in 0..200 {
            time.observe(Duration::from_millis(if n % 2 == 0 { 50 } else { 100 }));
        }
        let between = time.patience();
        assert!(between > SHORTEST && between < LONGEST, "{between:?}");
        for _ in 0..50 {
            time.observe(Duration::from_secs(20));
        }
        assert_eq!(time.patience(), LONGEST);
    }

    #[test]
    fn one_request_in_ten_may_have_a_second_attempt() {
        let budget = RetryBudget::default();
        let taken = (0..100).filter(|_| budget.withdraw()).count() as i64;
        assert_eq!(taken, SAVED_MAX / ATTEMPT);
        let taken = (0..1000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert_eq!(taken, 100);
    }
}
