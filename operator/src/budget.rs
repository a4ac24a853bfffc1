//! How many requests the API server gets: a bucket of tokens that every request passes, in the order in which
//! they come, but for those of the Lease.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// So many requests on average, and so many at once.
#[derive(Clone)]
pub struct Budget {
    bucket: Bucket,
    metrics: Metrics,
}

impl Budget {
    /// A budget whose waits are counted in `metrics`.
    pub fn new(per_second: u16, burst: u16, metrics: Metrics) -> Self {
        let interval = Duration::from_secs(1) / u32::from(per_second.max(1));
        Self { bucket: Bucket { interval, burst: burst.max(1).into(), full_at: Instant::now() }, metrics }
    }
}

impl<S> Layer<S> for Budget {
    type Service = Budgeted<S>;

    fn layer(&self, inner: S) -> Budgeted<S> {
        Budgeted { inner, bucket: self.bucket, metrics: self.metrics.clone(), waiting: None, granted: false }
    }
}

/// A service behind a budget.
pub struct Budgeted<S> {
    inner: S,
    bucket: Bucket,
    metrics: Metrics,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Whether the next request has its token: one that was given up leaves it to the next.
    granted: bool,
}

impl<S: Service<R>, R> Service<R> for Budgeted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !self.granted {
            if self.waiting.is_none() {
                let wait = self.bucket.until_token(Instant::now());
                if !wait.is_zero() {
                    self.metrics.throttled(wait);
                    self.waiting = Some(Box::pin(sleep(wait)));
                }
            }
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            self.bucket.take(Instant::now());
            self.granted = true;
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.granted = false;
        self.inner.call(request)
    }
}

/// A token comes in each interval, up to the burst.
#[derive(Clone, Copy)]
struct Bucket {
    interval: Duration,
    burst: u32,
    /// When it is full again.
    full_at: Instant,
}

impl Bucket {
    /// How long until there is a token.
    fn until_token(&self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now + self.interval * (self.burst - 1))
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_keeps_to_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket { interval: Duration::from_millis(10), burst: 20, full_at: start };
        let mut passed = |count: usize, mut now: Instant| {
            let first = now;
            for _ in 0..count {
                now += bucket.until_token(now);
                bucket.take(now);
            }
            now.duration_since(first)
        };
        assert_eq!(passed(20, start), Duration::ZERO);
        assert_eq!(passed(100, start), Duration::from_secs(1));
        let rested = start + Duration::from_secs(60);
        assert_eq!(passed(20, rested), Duration::ZERO, "a rest fills the bucket");
        assert_eq!(passed(1, rested), Duration::from_millis(10), "and no more than that");
    }

    #[tokio::test]
    async fn what_waits_is_counted_and_what_is_given_up_leaves_its_token_to_the_next() {
        let metrics = Metrics::new().unwrap();
        let budget = Budget::new(10, 1, metrics.clone());
        let mut service = budget.layer(service_fn(async |()| Ok::<_, Infallible>(())));
        service.ready().await.unwrap().call(()).await.unwrap();
        let start = Instant::now();
        service.ready().await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
        service.ready().await.unwrap().call(()).await.unwrap();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("flyweight_operator_api_throttled_total 1\n"), "{text}");
        assert!(text.contains("flyweight_operator_api_throttled_seconds_total 0.0"), "{text}");
    }
}
