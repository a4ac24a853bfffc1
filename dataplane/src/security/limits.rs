//! Requests per caller: a token bucket for each subject, or for each address where there is no token.
//!
//! Where there is a Redis, the buckets are in it, for all replicas together. A replica takes a few tokens of
//! a caller's bucket at once, and lets requests in by those, so that few requests wait for Redis. While Redis
//! is away each replica has buckets of its own.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use crds::service::security::RateLimit;
use governor::{
    Quota, RateLimiter, clock::Clock, clock::DefaultClock, middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Callers that are remembered before idle ones are dropped.
const CALLERS_MAX: usize = 100_000;
/// Callers are counted once in so many checks, since counting looks at every part of the table.
const COUNT_EVERY: u32 = 4_096;
/// How long tokens that were taken from Redis are good: what is not used by then is lost to its caller.
const SHARE_TIME: Duration = Duration::from_secs(1);
/// The part of a bucket, and of what comes in a second, that a replica takes at once.
const SHARE_PART: u32 = 50;
const RATE_PART: u32 = 10;
/// How long Redis is left alone after it did not answer.
const AWAY_TIME: Duration = Duration::from_secs(1);
/// Bad tokens of one address, a second and at once.
const BAD_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
const BAD_BURST: NonZeroU32 = NonZeroU32::new(50).unwrap();

type Caller = [u8; 16];
type LocalBuckets =
    RateLimiter<Caller, DefaultKeyedStateStore<Caller>, DefaultClock, StateInformationMiddleware>;

/// Buckets that all replicas share.
#[async_trait]
pub trait SharedBuckets: Send + Sync {
    /// Takes up to `most` tokens from a caller's bucket, by one clock for all. None where it does not answer.
    async fn take(&self, caller: &str, rate: &RateLimit, most: u32) -> Option<Taken>;
}

/// What was taken from a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many tokens.
    pub granted: u32,
    /// How many are left.
    pub left: u32,
    /// When there is another, where none was taken, in ms.
    pub wait_ms: u64,
}

/// How a caller stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The tokens of a full bucket.
    pub burst: u32,
    /// How long an empty one takes to be full, in seconds.
    pub window_s: u32,
    /// The tokens that are left.
    pub left: u32,
    /// How long until there is a token, where the request had none.
    pub wait: Option<Duration>,
}

/// Limits the requests of each caller. The rate changes in place.
#[derive(Default)]
pub struct CallerLimits {
    current: ArcSwapOption<Limiter>,
    shared: OnceLock<Arc<dyn SharedBuckets>>,
    away_until: Mutex<Option<Instant>>,
}

struct Limiter {
    rate: RateLimit,
    local: LocalBuckets,
    shares: Mutex<HashMap<Caller, Arc<Share>>>,
    checks: AtomicU32,
}

/// The tokens of one caller that this replica took.
#[derive(Default)]
struct Share {
    tokens: Mutex<Tokens>,
    taking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Tokens {
    own: u32,
    /// Those in the bucket when the last were taken.
    left: u32,
    good_until: Option<Instant>,
    refused_until: Option<Instant>,
}

impl CallerLimits {
    /// Sets the rate; none lets everything through. Callers keep what they have used when the rate stays the
    /// same.
    pub fn apply(&self, rate: Option<&RateLimit>) {
        if self.current.load().as_ref().map(|limiter| &limiter.rate) == rate {
            return;
        }
        self.current.store(rate.map(|rate| {
            let per_second = NonZeroU32::new(rate.requests_per_second).unwrap_or(NonZeroU32::MIN);
            let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
            let local =
                RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)).with_middleware();
            Arc::new(Limiter {
                rate: rate.clone(),
                local,
                shares: Mutex::default(),
                checks: AtomicU32::new(0),
            })
        }));
    }

    /// Keeps the buckets here from now on. The first one stays.
    pub fn share(&self, buckets: Arc<dyn SharedBuckets>) {
        _ = self.shared.set(buckets);
    }

    /// Whether buckets are shared with other replicas now; none where that was not asked for, or there is no
    /// rate.
    pub fn is_shared(&self) -> Option<bool> {
        let _limited = self.current.load().as_ref()?;
        self.shared.get().map(|_| !self.is_away())
    }

    /// Counts a request of a caller. None where there is no limit.
    pub async fn check(&self, caller: &str) -> Option<Standing> {
        let limiter = self.current.load_full()?;
        limiter.forget_idle();
        let digest = Sha256::digest(caller.as_bytes());
        let id: Caller = digest.first_chunk().copied().unwrap_or_default();
        if let Some(shared) = self.shared.get().filter(|_| !self.is_away()) {
            match limiter.check_shared(&**shared, id).await {
                Some(standing) => return Some(standing),
                None => *self.away_until.lock() = Some(Instant::now() + AWAY_TIME),
            }
        }
        Some(limiter.check_local(&id))
    }

    fn is_away(&self) -> bool {
        self.away_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

impl Limiter {
    fn check_local(&self, caller: &Caller) -> Standing {
        match self.local.check_key(caller) {
            Ok(state) => self.standing(state.remaining_burst_capacity(), None),
            Err(until) => self.standing(0, Some(until.wait_time_from(self.local.clock().now()))),
        }
    }

    /// By the tokens that this replica took, or takes now. None where the shared buckets are away.
    async fn check_shared(&self, buckets: &dyn SharedBuckets, caller: Caller) -> Option<Standing> {
        let share = self.shares.lock().entry(caller).or_default().clone();
        if let Some(standing) = self.spend(&share) {
            return Some(standing);
        }
        let _taking = share.taking.lock().await;
        if let Some(standing) = self.spend(&share) {
            return Some(standing);
        }
        let name = caller.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // what is taken and not used is lost: no more than a part of what comes in that time
        let most = (self.rate.burst / SHARE_PART).min(self.rate.requests_per_second / RATE_PART).max(1);
        let Taken { granted, left, wait_ms } = buckets.take(&name, &self.rate, most).await?;
        let (mut tokens, now) = (share.tokens.lock(), Instant::now());
        // the first of them is this request's, before anybody else's
        let Some(own) = granted.checked_sub(1) else {
            let wait = Duration::from_millis(wait_ms.max(1));
            *tokens = Tokens { refused_until: Some(now + wait), ..Tokens::default() };
            return Some(self.standing(0, Some(wait)));
        };
        *tokens = Tokens { own, left, good_until: Some(now + SHARE_TIME), refused_until: None };
        Some(self.standing(own.saturating_add(left), None))
    }

    /// Spends a token that was taken. None where there is none, and it is not known that there would be none.
    fn spend(&self, share: &Share) -> Option<Standing> {
        let (mut tokens, now) = (share.tokens.lock(), Instant::now());
        if let Some(until) = tokens.refused_until.filter(|until| now < *until) {
            return Some(self.standing(0, Some(until - now)));
        }
        if tokens.own == 0 || tokens.good_until.is_none_or(|until| now >= until) {
            return None;
        }
        tokens.own -= 1;
        Some(self.standing(tokens.own.saturating_add(tokens.left), None))
    }

    fn standing(&self, left: u32, wait: Option<Duration>) -> Standing {
        let RateLimit { requests_per_second, burst } = self.rate;
        Standing { burst, window_s: burst.div_ceil(requests_per_second.max(1)), left, wait }
    }

    fn forget_idle(&self) {
        if !self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(COUNT_EVERY) {
            return;
        }
        if self.local.len() > CALLERS_MAX {
            self.local.retain_recent();
        }
        let (mut shares, now) = (self.shares.lock(), Instant::now());
        if shares.len() > CALLERS_MAX {
            shares.retain(|_, share| {
                let tokens = share.tokens.lock();
                [tokens.good_until, tokens.refused_until].into_iter().flatten().any(|until| now < until)
            });
        }
    }
}

/// Bad tokens by address: who sends many waits before another is looked at, which costs more than to refuse
/// it.
pub struct BadTokens {
    sent: RateLimiter<IpAddr, DefaultKeyedStateStore<IpAddr>, DefaultClock>,
    refused: Mutex<HashMap<IpAddr, Instant>>,
    notes: AtomicU32,
}

impl Default for BadTokens {
    fn default() -> Self {
        let quota = Quota::per_second(BAD_PER_SECOND).allow_burst(BAD_BURST);
        Self { sent: RateLimiter::keyed(quota), refused: Mutex::default(), notes: AtomicU32::new(0) }
    }
}

impl BadTokens {
    /// Whether a token from this address is looked at.
    ///
    /// # Errors
    /// It sent too many bad ones: how long to wait.
    pub fn check(&self, address: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        match self.refused.lock().get(&address) {
            Some(until) if now < *until => Err(*until - now),
            _ => Ok(()),
        }
    }

    /// Counts a bad token from this address.
    pub fn note(&self, address: IpAddr) {
        if self.notes.fetch_add(1, Ordering::Relaxed).is_multiple_of(COUNT_EVERY)
            && self.sent.len() > CALLERS_MAX
        {
            self.sent.retain_recent();
        }
        let Err(until) = self.sent.check_key(&address) else { return };
        let (mut refused, now) = (self.refused.lock(), Instant::now());
        if refused.len() > CALLERS_MAX {
            refused.retain(|_, until| now < *until);
        }
        refused.insert(address, now + until.wait_time_from(self.sent.clock().now()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Buckets in this process, which never fill again.
    #[derive(Default)]
    struct Buckets {
        used: Mutex<HashMap<String, u32>>,
        calls: AtomicU32,
        away: AtomicBool,
    }

    #[async_trait]
    impl SharedBuckets for Buckets {
        async fn take(&self, caller: &str, rate: &RateLimit, most: u32) -> Option<Taken> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.away.load(Ordering::Relaxed) {
                return None;
            }
            let mut used = self.used.lock();
            let used = used.entry(caller.to_owned()).or_default();
            let granted = most.min(rate.burst - *used);
            *used += granted;
            Some(Taken { granted, left: rate.burst - *used, wait_ms: 1_000 })
        }
    }

    async fn allowed(limits: &CallerLimits, caller: &str) -> bool {
        limits.check(caller).await.is_none_or(|standing| standing.wait.is_none())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn requests_at_once_take_what_there_is_and_nobody_is_thought_away() {
        let limits = Arc::new(CallerLimits::default());
        limits.apply(Some(&RateLimit { requests_per_second: 1, burst: 40 }));
        limits.share(Arc::new(Buckets::default()));
        let ask = || {
            let limits = limits.clone();
            tokio::spawn(async move {
                let allowed = allowed(&limits, "ann").await;
                (allowed, limits.is_shared())
            })
        };
        let asked: Vec<_> = std::iter::repeat_with(ask).take(1_000).collect();
        let mut let_in = 0;
        for one in asked {
            let (allowed, shared) = one.await.unwrap();
            assert_eq!(shared, Some(true), "no bucket was away");
            let_in += u32::from(allowed);
        }
        assert_eq!(let_in, 40);
    }

    #[tokio::test]
    async fn each_caller_has_a_bucket_of_its_own() {
        let limits = CallerLimits::default();
        assert_eq!(limits.check("ann").await, None, "no limit at first");
        limits.apply(Some(&RateLimit { requests_per_second: 1, burst: 2 }));
        let first = limits.check("ann").await.unwrap();
        assert_eq!(first, Standing { burst: 2, window_s: 2, left: 1, wait: None });
        assert!(allowed(&limits, "ann").await);
        let Standing { left, wait, .. } = limits.check("ann").await.unwrap();
        let wait = wait.unwrap();
        assert!(left == 0 && wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(allowed(&limits, "bob").await);
        limits.apply(None);
        assert!(allowed(&limits, "ann").await);
    }

    #[tokio::test]
    async fn three_replicas_give_one_limit_together() {
        let (buckets, rate) =
            (Arc::new(Buckets::default()), RateLimit { requests_per_second: 100, burst: 500 });
        let replicas: Vec<_> = (0..3)
            .map(|_| {
                let limits = CallerLimits::default();
                limits.share(buckets.clone());
                limits.apply(Some(&rate));
                limits
            })
            .collect();
        let mut all = 0;
        for _ in 0..1_000 {
            for limits in &replicas {
                all += u32::from(allowed(limits, "ann").await);
            }
        }
        assert_eq!(all, 500, "not three times that");
        assert!(buckets.calls.load(Ordering::Relaxed) < 100, "few requests wait for it");
        assert!(allowed(&replicas[0], "bob").await);
        assert_eq!(replicas[0].is_shared(), Some(true));
    }

    #[tokio::test]
    async fn each_replica_has_its_own_while_the_shared_ones_are_away() {
        let (buckets, limits) = (Arc::new(Buckets::default()), CallerLimits::default());
        limits.share(buckets.clone());
        assert_eq!(limits.is_shared(), None, "there is no limit");
        limits.apply(Some(&RateLimit { requests_per_second: 1, burst: 3 }));
        buckets.away.store(true, Ordering::Relaxed);
        let mut all = 0;
        for _ in 0..10 {
            all += u32::from(allowed(&limits, "ann").await);
        }
        assert_eq!((all, limits.is_shared()), (3, Some(false)));
        assert_eq!(buckets.calls.load(Ordering::Relaxed), 1, "it is left alone for a while");
        buckets.away.store(false, Ordering::Relaxed);
        *limits.away_until.lock() = None;
        assert!(allowed(&limits, "ann").await, "its bucket there is full");
        assert_eq!(limits.is_shared(), Some(true));
    }

    #[tokio::test]
    async fn who_sends_bad_tokens_waits_and_nobody_else() {
        let (bad, address) = (BadTokens::default(), |last: u8| IpAddr::from([10, 0, 0, last]));
        for _ in 0..BAD_BURST.get() {
            assert!(bad.check(address(1)).is_ok());
            bad.note(address(1));
        }
        bad.note(address(1));
        let wait = bad.check(address(1)).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert!(bad.check(address(2)).is_ok());
        bad.refused.lock().insert(address(1), Instant::now());
        assert!(bad.check(address(1)).is_ok());
    }
}
