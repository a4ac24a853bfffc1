//! A guard around something that can fail: a deadline for each call, a breaker, and a budget for calls that are repetitions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::failure::{Class, Failure};
use crate::breaker::Breaker;

/// Repetitions that each first call allows.
const RATIO: f64 = 0.2;
/// Repetitions that are allowed in any second, so that the last failed ones are not stranded when nothing new comes.
const PER_SECOND: f64 = 1.0;
/// The most repetitions that are saved up.
const SAVED_MAX: f64 = 100.0;

/// Something outside that steps call.
pub struct Dependency {
    name: &'static str,
    breaker: ArcSwap<Breaker>,
    budget: Mutex<Budget>,
    calls: AtomicU64,
    repeated: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
}

/// What repetitions may still be made: a failing dependency sees at most 1.2 times the traffic, and one call a second beyond that.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Instant,
}

impl Dependency {
    /// A dependency whose breaker opens after so many failures in a row, for so long.
    pub fn new(name: &'static str, threshold: u32, open_for: Duration) -> Self {
        Self {
            name,
            breaker: ArcSwap::from_pointee(Breaker::new(threshold, open_for)),
            budget: Mutex::new(Budget { tokens: 0.0, at: Instant::now() }),
            calls: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Puts another breaker in place, closed.
    pub fn configure(&self, threshold: u32, open_for: Duration) {
        self.breaker.store(Arc::new(Breaker::new(threshold, open_for)));
    }

    /// Makes a call within `deadline`; `again` says that it is a repetition of a failed one.
    ///
    /// # Errors
    /// What the call says; `Retryable` when it took too long; `System` when it was not made: the breaker is open or the budget spent.
    pub async fn call<T>(
        &self,
        again: bool,
        deadline: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let breaker = self.breaker.load_full();
        let Some(permit) = breaker.try_acquire() else {
            return Err(self.refuse("is left alone for a while after failures"));
        };
        if !self.budget.lock().take(again, Instant::now()) {
            return Err(self.refuse("gets no more repetitions for now"));
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.repeated.fetch_add(u64::from(again), Ordering::Relaxed);
        let late = || Failure::retryable(format!("{} did not answer within {deadline:?}", self.name));
        let outcome = timeout(deadline, work).await.unwrap_or_else(|_| Err(late()));
        match &outcome {
            Err(Failure { class: Class::Retryable, .. }) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if permit.failure() {
                    tracing::warn!(dependency = self.name, "left alone for a while: it keeps failing");
                }
            }
            // it answered, whatever it said
            _ => permit.success(),
        }
        outcome
    }

    /// What was counted.
    pub fn figures(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "breaker": self.breaker.load().state(),
            "calls": count(&self.calls), "repeated": count(&self.repeated),
            "failures": count(&self.failures), "refused": count(&self.refused),
        })
    }

    fn refuse(&self, why: &str) -> Failure {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Failure::system(format!("{} {why}", self.name))
    }
}

impl Budget {
    /// Whether a call may be made now.
    fn take(&mut self, again: bool, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + since * PER_SECOND).min(SAVED_MAX);
        if !again {
            self.tokens = (self.tokens + RATIO).min(SAVED_MAX);
            return true;
        }
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::BreakerState;

    #[test]
    fn repetitions_are_a_fifth_of_the_calls_and_one_a_second() {
        let start = Instant::now();
        let mut budget = Budget { tokens: 0.0, at: start };
        let mut repeated = 0;
        for _ in 0..1_000 {
            assert!(budget.take(false, start));
            repeated += (0..5).filter(|_| budget.take(true, start)).count();
        }
        assert!((190..=200).contains(&repeated), "{repeated} repetitions of 1000 calls");
        assert!(!budget.take(true, start));
        assert!(budget.take(true, start + Duration::from_millis(1_001)));
        assert!(!budget.take(true, start + Duration::from_millis(1_002)));
    }

    #[tokio::test]
    async fn a_dependency_that_fails_is_left_alone_and_one_that_refuses_is_not() {
        let bank = Dependency::new("bank", 2, Duration::from_secs(60));
        let fails =
            async || bank.call(false, Duration::from_secs(1), async { Err::<(), _>(Failure::retryable("no")) }).await;
        let refuses = Failure::new(Class::NotRetryable, "wrong");
        for _ in 0..5 {
            let outcome = bank.call(false, Duration::from_secs(1), async { Err::<(), _>(refuses.clone()) }).await;
            assert_eq!(outcome, Err(refuses.clone()));
        }
        assert_eq!(fails().await.unwrap_err().class, Class::Retryable);
        let late = bank.call(false, Duration::from_millis(1), std::future::pending::<Result<(), Failure>>()).await;
        assert_eq!(late.unwrap_err().class, Class::Retryable);
        assert_eq!(bank.breaker.load().state(), BreakerState::Open);
        assert_eq!(fails().await.unwrap_err().class, Class::System, "not called");
        assert_eq!(bank.figures()["calls"], 7);
        bank.configure(2, Duration::from_secs(60));
        assert_eq!(fails().await.unwrap_err().class, Class::Retryable);
    }
}
