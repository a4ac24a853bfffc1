//! Token buckets in Redis, by its clock: one for all replicas.

use ::redis::cmd;

use super::RedisCache;
use engine::shared::SharedError;

/// Takes tokens from a bucket (GCRA): it holds the time at which it is full again, in microseconds. Answers
/// how many were taken, how many are left, and in how many ms there is one where there was none.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local each, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
full = math.min(full, now + burst * each)
local free = math.floor((now + burst * each - full) / each + 0.000001)
local granted = math.min(wanted, free)
if granted == 0 then return {0, 0, math.ceil((full + each - burst * each - now) / 1000)} end
full = full + granted * each
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return {granted, free - granted, 0}
";

/// A bucket of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The tokens that it gets in a second.
    pub per_second: u32,
    /// The tokens that it holds when it is full.
    pub burst: u32,
}

impl RedisCache {
    /// Takes up to `most` tokens from the bucket of a key: says how many, how many are left, and in how many
    /// ms there is one where there was none.
    ///
    /// # Errors
    /// As for any call.
    pub async fn take_tokens(
        &self,
        key: &str,
        bucket: Bucket,
        most: u32,
    ) -> Result<(u32, u32, u64), SharedError> {
        let each_us = 1_000_000.0 / f64::from(bucket.per_second.max(1));
        let mut eval = cmd("EVAL");
        eval.arg(TAKE).arg(1).arg(key).arg(each_us).arg(bucket.burst).arg(most);
        self.call(|mut connection, _| async move { connection.query(&eval).await }).await
    }
}
