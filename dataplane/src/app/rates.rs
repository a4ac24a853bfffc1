//! The buckets of callers in a Redis, which all replicas share.

use std::sync::Arc;

use async_trait::async_trait;
use crds::service::security::RateLimit;

use crate::security::limits::{SharedBuckets, Taken};
use shared_tier::{RedisCache, rate::Bucket};

/// The buckets of a service.
pub struct RedisBuckets {
    redis: Arc<RedisCache>,
    prefix: String,
}

impl RedisBuckets {
    /// Buckets whose keys start so.
    pub fn new(redis: Arc<RedisCache>, prefix: &str) -> Self {
        // no key of a record has a NUL
        Self { redis, prefix: format!("{prefix}\0rate:") }
    }
}

#[async_trait]
impl SharedBuckets for RedisBuckets {
    async fn take(&self, caller: &str, rate: &RateLimit, most: u32) -> Option<Taken> {
        let RateLimit { requests_per_second: per_second, burst } = *rate;
        let key = format!("{}{caller}", self.prefix);
        let (granted, left, wait_ms) =
            self.redis.take_tokens(&key, Bucket { per_second, burst }, most).await.ok()?;
        Some(Taken { granted, left, wait_ms })
    }
}
