//! A guard around something that can fail: a deadline for each call, a breaker, and a budget for calls that
//! are repetitions.

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
use model::breaker::Breaker;

/// Repetitions that each first call allows.
const RATIO: f64 = 0.2;
/// The most repetitions that are saved up.
const SAVED_MAX: f64 = 10.0;
/// After so long without a first call the last failed ones are repeated all the same, one in such a time:
/// nobody else would pay for them.
const IDLE: Duration = Duration::from_secs(1);
/// With each success in a row they go twice as fast, so often.
const DOUBLED_MAX: u32 = 10;

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

/// What repetitions may still be made: a failing dependency sees at most 1.2 times the traffic, and without
/// any one call a second.
#[derive(Debug, Default)]
struct Budget {
    tokens: f64,
    /// The last first call.
    first: Option<Instant>,
    /// The last call.
    last: Option<Instant>,
    /// Successes in a row.
    successes: u32,
}

impl Dependency {
    /// A dependency whose breaker opens after so many failures in a row, for so long.
    pub fn new(name: &'static str, threshold: u32, open_for: Duration) -> Self {
        Self {
            name,
            breaker: ArcSwap::from_pointee(Breaker::new(threshold, open_for)),
            budget: Mutex::default(),
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
    /// What the call says; `Retryable` when it took too long; `System` when it was not made: the breaker is
    /// open or the budget spent.
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
        let failed = matches!(&outcome, Err(Failure { class: Class::Retryable, .. }));
        self.budget.lock().ended(failed);
        match failed {
            true => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if permit.failure() {
                    tracing::warn!(dependency = self.name, "left alone for a while: it keeps failing");
                }
            }
            // it answered, whatever it said
            false => permit.success(),
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
        if !again {
            self.tokens = (self.tokens + RATIO).min(SAVED_MAX);
            self.first = Some(now);
        } else if self.tokens >= 1.0 {
            self.tokens -= 1.0;
        } else if self.is_idle(now) {
            // what little traffic there is has paid for this one
            self.tokens = 0.0;
        } else {
            return false;
        }
        self.last = Some(now);
        true
    }

    fn is_idle(&self, now: Instant) -> bool {
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        since(self.first) >= IDLE && since(self.last) >= IDLE / 2_u32.pow(self.successes)
    }

    fn ended(&mut self, failed: bool) {
        self.successes = if failed { 0 } else { (self.successes + 1).min(DOUBLED_MAX) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::breaker::BreakerState;

    /// What a dependency sees in a time in which so many new calls come in a second, each of which would be
    /// repeated for ever, and all calls fail or none does: new calls, and repetitions.
    fn seen(budget: &mut Budget, per_second: f64, fails: bool, begun: Instant, time: Duration) -> (u32, u32) {
        let (mut first, mut repeated) = (0, 0);
        for ms in 0..u32::try_from(time.as_millis()).unwrap() {
            let now = begun + Duration::from_millis(ms.into());
            if f64::from(first) < f64::from(ms) * per_second / 1_000.0 {
                assert!(budget.take(false, now));
                budget.ended(fails);
                first += 1;
            }
            if budget.take(true, now) {
                budget.ended(fails);
                repeated += 1;
            }
        }
        (first, repeated)
    }

    #[test]
    fn a_failing_dependency_sees_at_most_a_fifth_more_or_one_call_a_second() {
        let (begun, time) = (Instant::now(), Duration::from_secs(600));
        for per_second in [1.5, 3.0, 10.0, 100.0, 900.0] {
            let (first, repeated) = seen(&mut Budget::default(), per_second, true, begun, time);
            assert!(
                f64::from(repeated) <= f64::from(first) * RATIO + 1.0,
                "{per_second}: {repeated} after {first}"
            );
            assert!(
                f64::from(repeated) >= f64::from(first) * RATIO - SAVED_MAX,
                "{per_second}: what it may is used"
            );
        }
        for per_second in [0.0, 0.1, 0.5] {
            let (first, repeated) = seen(&mut Budget::default(), per_second, true, begun, time);
            assert!(first + repeated <= 601, "{per_second}: {repeated} after {first}");
            assert!(repeated >= 290, "{per_second}: the last failed ones are not stranded: {repeated}");
        }
        // a time without failures saves up little
        let mut budget = Budget::default();
        for n in 0..1_000 {
            assert!(budget.take(false, begun + time * n / 1_000));
        }
        let (first, repeated) = seen(&mut budget, 10.0, true, begun + time, time);
        assert!(f64::from(repeated) <= f64::from(first) * RATIO + SAVED_MAX, "{repeated} after {first}");
    }

    #[test]
    fn what_was_stranded_goes_faster_and_faster_once_the_dependency_is_well() {
        let (first, repeated) =
            seen(&mut Budget::default(), 0.0, false, Instant::now() + IDLE, Duration::from_secs(5));
        assert!(first == 0 && repeated > 1_000, "{repeated}");
    }

    #[tokio::test]
    async fn a_dependency_that_fails_is_left_alone_and_one_that_refuses_is_not() {
        let bank = Dependency::new("bank", 2, Duration::from_secs(60));
        let fails = async || {
            bank.call(false, Duration::from_secs(1), async { Err::<(), _>(Failure::retryable("no")) }).await
        };
        let refuses = Failure::new(Class::NotRetryable, "wrong");
        for _ in 0..5 {
            let outcome =
                bank.call(false, Duration::from_secs(1), async { Err::<(), _>(refuses.clone()) }).await;
            assert_eq!(outcome, Err(refuses.clone()));
        }
        assert_eq!(fails().await.unwrap_err().class, Class::Retryable);
        let late =
            bank.call(false, Duration::from_millis(1), std::future::pending::<Result<(), Failure>>()).await;
        assert_eq!(late.unwrap_err().class, Class::Retryable);
        assert_eq!(bank.breaker.load().state(), BreakerState::Open);
        assert_eq!(fails().await.unwrap_err().class, Class::System, "not called");
        assert_eq!(bank.figures()["calls"], 7);
        bank.configure(2, Duration::from_secs(60));
        assert_eq!(fails().await.unwrap_err().class, Class::Retryable);
    }
}
