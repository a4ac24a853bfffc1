//! Requests per caller: a token bucket for each subject, or for each address where there is no token.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crds::service::security::RateLimit;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};
use parking_lot::RwLock;

/// Callers that are remembered before idle ones are dropped.
const CALLERS_MAX: usize = 100_000;

/// Limits the requests of each caller. The rate changes in place.
#[derive(Default)]
pub struct CallerLimits {
    current: RwLock<Option<(RateLimit, Arc<DefaultKeyedRateLimiter<String>>)>>,
}

impl CallerLimits {
    /// Sets the rate; none lets everything through. Callers keep what they have used when the rate stays the same.
    pub fn apply(&self, rate: Option<&RateLimit>) {
        let mut current = self.current.write();
        if current.as_ref().map(|(rate, _)| rate) == rate {
            return;
        }
        *current = rate.map(|rate| {
            let per_second = NonZeroU32::new(rate.requests_per_second).unwrap_or(NonZeroU32::MIN);
            let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
            (rate.clone(), Arc::new(RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))))
        });
    }

    /// Counts a request of a caller.
    ///
    /// # Errors
    /// The caller has used up its rate: how long to wait.
    pub fn check(&self, caller: &str) -> Result<(), Duration> {
        self.check_with(|| caller.to_owned())
    }

    /// Counts a request of a caller whose name is made only where there is a limit.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub fn check_with(&self, caller: impl FnOnce() -> String) -> Result<(), Duration> {
        let Some(limiter) = self.current.read().as_ref().map(|(_, limiter)| limiter.clone()) else { return Ok(()) };
        if limiter.len() > CALLERS_MAX {
            limiter.retain_recent();
        }
        limiter.check_key(&caller()).map_err(|until| until.wait_time_from(limiter.clock().now()))
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
