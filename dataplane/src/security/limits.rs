//! Requests per caller: a token bucket for each subject, or for each address where there is no token.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use crds::service::security::RateLimit;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};

/// Callers that are remembered before idle ones are dropped.
const CALLERS_MAX: usize = 100_000;
/// Callers are counted once in so many checks, since counting looks at every part of the table.
const COUNT_EVERY: u32 = 4_096;

/// Limits the requests of each caller. The rate changes in place.
#[derive(Default)]
pub struct CallerLimits {
    current: ArcSwapOption<Limiter>,
    /// Callers are told apart by 64 bits that nobody outside can foresee.
    hasher: RandomState,
}

struct Limiter {
    rate: RateLimit,
    callers: DefaultKeyedRateLimiter<u64>,
    checks: AtomicU32,
}

impl CallerLimits {
    /// Sets the rate; none lets everything through. Callers keep what they have used when the rate stays the same.
    pub fn apply(&self, rate: Option<&RateLimit>) {
        if self.current.load().as_ref().map(|limiter| &limiter.rate) == rate {
            return;
        }
        self.current.store(rate.map(|rate| {
            let per_second = NonZeroU32::new(rate.requests_per_second).unwrap_or(NonZeroU32::MIN);
            let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
            let callers = RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst));
            Arc::new(Limiter { rate: rate.clone(), callers, checks: AtomicU32::new(0) })
        }));
    }

    /// Counts a request of a caller.
    ///
    /// # Errors
    /// The caller has used up its rate: how long to wait.
    pub fn check(&self, caller: &(impl Hash + ?Sized)) -> Result<(), Duration> {
        let current = self.current.load();
        let Some(Limiter { rate: _, callers, checks }) = current.as_deref() else { return Ok(()) };
        if checks.fetch_add(1, Ordering::Relaxed) % COUNT_EVERY == 0 && callers.len() > CALLERS_MAX {
            callers.retain_recent();
        }
        let caller = self.hasher.hash_one(caller);
        callers.check_key(&caller).map_err(|until| until.wait_time_from(callers.clock().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_bucket_of_its_own() {
        let limits = CallerLimits::default();
        assert!(limits.check("ann").is_ok(), "no limit at first");
        limits.apply(Some(&RateLimit { requests_per_second: 1, burst: 2 }));
        assert!(limits.check("ann").is_ok());
        assert!(limits.check("ann").is_ok());
        let wait = limits.check("ann").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limits.check("bob").is_ok());
        limits.apply(None);
        assert!(limits.check("ann").is_ok());
    }
}
