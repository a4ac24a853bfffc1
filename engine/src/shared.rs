//! A cache that several replicas share, as bytes under keys, guarded by version; and the one that stands in
//! for it in one process.

use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;

use super::clock::Clock;
use model::{breaker::BreakerState, durability::Setting, key::Version};

/// A cache outside the process. Each call is over within a short deadline, whatever happens to the cache.
#[async_trait]
pub trait SharedCache: Send + Sync {
    /// What is kept under each key, in the order of the keys.
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Held>>, SharedError>;

    /// Does what each order says, unless the cache knows a newer version; answers in the order of the orders.
    /// An answer of Ok means that the cache holds nothing older than the order's version, until it loses
    /// data.
    async fn tell(&self, orders: &[Order]) -> Vec<Result<(), SharedError>>;

    /// Takes a value out: whoever is given it is the only one, whatever else asks at the same time.
    async fn take(&self, key: &str) -> Result<Option<Held>, SharedError>;

    /// Takes the right to load each key for a time, where nobody has it: whether it was given, in the order
    /// of the keys. It keeps replicas from loading the same at once and decides nothing else, so a cache that
    /// loses it costs a load.
    async fn lease(&self, keys: &[String], owner: &str, keep_ms: u64) -> Result<Vec<bool>, SharedError>;

    /// Gives such rights back. What is not given back ends with its time.
    async fn release(&self, keys: &[String], owner: &str);

    /// What was put before this time (ms since 1970) may be older than what was put later: the cache lost
    /// data, or may have.
    fn trusted_since_ms(&self) -> u64;

    /// Whether it is asked at all.
    fn status(&self) -> SharedStatus;

    /// The settings by which it keeps data, as they are now: nothing that is acknowledged to anybody.
    async fn settings(&self) -> Result<Vec<Setting>, SharedError> {
        Ok(Vec::new())
    }

    /// Whether it answers, for health checks.
    async fn ping(&self) -> Result<(), SharedError>;

    /// Who else owns what it would keep; then it keeps nothing and gives nothing.
    fn owned_by(&self) -> Option<String> {
        None
    }
}

/// A value that a shared cache holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its version.
    pub version: Version,
    /// When it began to be read from the store, in ms since 1970 by the clock of this process, whichever
    /// replica read it; 0 where nobody knows, because the cache was another one then.
    pub loaded_at_ms: u64,
    /// The value.
    pub value: Bytes,
}

/// What a shared cache is told about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The key, prefix included.
    pub key: String,
    /// The version from which on values are accepted.
    pub version: Version,
    /// When the value began to be read from the store, in ms since 1970: among values of one version the
    /// youngest stays.
    pub loaded_at_ms: u64,
    /// The value; none only keeps older versions out.
    pub value: Option<Bytes>,
    /// How long value and version are kept, in ms.
    pub keep_ms: u64,
}

/// How a shared cache does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SharedStatus {
    /// Its breaker.
    pub breaker: BreakerState,
    /// How often the breaker opened.
    pub breaker_opened: u64,
}

/// Why a shared cache did not answer. Always a miss, never a failure of the read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SharedError {
    /// It is left alone for now, after failures.
    #[error("the shared cache is left alone after failures")]
    BreakerOpen,
    /// It did not answer in time.
    #[error("the shared cache did not answer in time")]
    TimedOut,
    /// It answered with an error, or cannot be reached.
    #[error("the shared cache failed: {0}")]
    Failed(String),
}

/// A shared cache within one process, for a laptop: bounded, oldest first out. Keeps exactly the contract of
/// the real one.
#[derive(Debug)]
pub struct LocalShared {
    max_bytes: usize,
    clock: Clock,
    inner: Mutex<Local>,
}

#[derive(Debug, Default)]
struct Local {
    kept: HashMap<String, Kept>,
    /// Who has the right to load which key, until when.
    leases: HashMap<String, (String, u64)>,
    order: VecDeque<(String, u64)>,
    bytes: usize,
    turn: u64,
}

#[derive(Debug)]
struct Kept {
    version: Version,
    loaded_at_ms: u64,
    value: Option<Bytes>,
    expires_ms: u64,
    turn: u64,
}

/// What one entry takes beside its key (kept twice) and value, about.
const OVERHEAD: usize = 160;
/// The number of leases at which those that are over are swept.
const LEASES_MAX: usize = 4_096;

impl LocalShared {
    /// An empty cache that takes about so many bytes at most.
    pub fn new(max_bytes: usize, clock: Clock) -> Self {
        Self { max_bytes, clock, inner: Mutex::default() }
    }
}

#[async_trait]
impl SharedCache for LocalShared {
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Held>>, SharedError> {
        let (now_ms, inner) = (self.clock.now_ms(), self.inner.lock());
        let live = |key: &String| {
            let Kept { version, loaded_at_ms, value, expires_ms, turn: _ } = inner.kept.get(key)?;
            let value = value.clone().filter(|_| *expires_ms > now_ms)?;
            Some(Held { version: *version, loaded_at_ms: *loaded_at_ms, value })
        };
        Ok(keys.iter().map(live).collect())
    }

    async fn tell(&self, orders: &[Order]) -> Vec<Result<(), SharedError>> {
        let (now_ms, mut inner) = (self.clock.now_ms(), self.inner.lock());
        for order in orders {
            if inner
                .kept
                .get(&order.key)
                .is_none_or(|kept| kept.expires_ms <= now_ms || kept.yields_to(order))
            {
                inner.put(order, now_ms);
            }
        }
        inner.shrink(self.max_bytes);
        vec![Ok(()); orders.len()]
    }

    async fn take(&self, key: &str) -> Result<Option<Held>, SharedError> {
        let (now_ms, mut inner) = (self.clock.now_ms(), self.inner.lock());
        let Some(kept) = inner.kept.remove(key) else { return Ok(None) };
        inner.bytes -= kept.bytes(key);
        let Kept { version, loaded_at_ms, value, expires_ms, turn: _ } = kept;
        let live = value.filter(|_| expires_ms > now_ms);
        Ok(live.map(|value| Held { version, loaded_at_ms, value }))
    }

    async fn lease(&self, keys: &[String], owner: &str, keep_ms: u64) -> Result<Vec<bool>, SharedError> {
        let (now_ms, mut inner) = (self.clock.now_ms(), self.inner.lock());
        if inner.leases.len() >= LEASES_MAX {
            inner.leases.retain(|_, (_, until_ms)| *until_ms > now_ms);
        }
        let given = keys.iter().map(|key| {
            let free = inner.leases.get(key).is_none_or(|(_, until_ms)| *until_ms <= now_ms);
            if free {
                inner.leases.insert(key.clone(), (owner.to_owned(), now_ms.saturating_add(keep_ms)));
            }
            free
        });
        Ok(given.collect())
    }

    async fn release(&self, keys: &[String], owner: &str) {
        let mut inner = self.inner.lock();
        for key in keys {
            if inner.leases.get(key).is_some_and(|(has, _)| has == owner) {
                inner.leases.remove(key);
            }
        }
    }

    fn trusted_since_ms(&self) -> u64 {
        0
    }

    fn status(&self) -> SharedStatus {
        SharedStatus { breaker: BreakerState::Closed, breaker_opened: 0 }
    }

    async fn ping(&self) -> Result<(), SharedError> {
        Ok(())
    }
}

impl Kept {
    fn yields_to(&self, order: &Order) -> bool {
        match order.value {
            Some(_) => (order.version, order.loaded_at_ms) >= (self.version, self.loaded_at_ms),
            None => order.version > self.version,
        }
    }

    fn bytes(&self, key: &str) -> usize {
        OVERHEAD + 2 * key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

impl Local {
    fn put(&mut self, order: &Order, now_ms: u64) {
        self.turn += 1;
        let Order { key, version, loaded_at_ms, value, keep_ms } = order.clone();
        let expires_ms = now_ms.saturating_add(keep_ms);
        let kept = Kept { version, loaded_at_ms, value, expires_ms, turn: self.turn };
        self.bytes += kept.bytes(&key);
        self.order.push_back((key.clone(), self.turn));
        if let Some(old) = self.kept.insert(key, kept) {
            self.bytes -= old.bytes(&order.key);
        }
    }

    fn shrink(&mut self, max_bytes: usize) {
        // places in the queue of entries that were replaced count for little, but must not pile up
        while self.bytes > max_bytes || self.order.len() > 2 * self.kept.len() + 64 {
            let Some((key, turn)) = self.order.pop_front() else { return };
            match self.kept.get(&key) {
                Some(kept) if kept.turn == turn && self.bytes > max_bytes => {
                    self.bytes -= kept.bytes(&key);
                    self.kept.remove(&key);
                }
                Some(kept) if kept.turn == turn => self.order.push_back((key, turn)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(key: &str, version: u64, value: Option<&str>) -> Order {
        let value = value.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        Order { key: key.to_owned(), version: Version(version), loaded_at_ms: 0, value, keep_ms: 1_000 }
    }

    async fn get(cache: &LocalShared, key: &str) -> Option<Bytes> {
        cache.get_many(&[key.to_owned()]).await.unwrap().remove(0).map(|held| held.value)
    }

    #[tokio::test]
    async fn never_takes_an_older_version() {
        let (clock, ms) = Clock::manual();
        let cache = LocalShared::new(1 << 20, clock);
        cache.tell(&[order("k", 2, Some("two")), order("k", 1, Some("one"))]).await;
        assert_eq!(get(&cache, "k").await.unwrap(), "two");
        cache.tell(&[order("k", 2, None)]).await;
        assert_eq!(get(&cache, "k").await.unwrap(), "two", "a fence took away its own version");
        cache.tell(&[order("k", 3, None), order("k", 2, Some("two"))]).await;
        assert_eq!(get(&cache, "k").await, None);
        cache.tell(&[order("k", 3, Some("three"))]).await;
        assert_eq!(get(&cache, "k").await.unwrap(), "three");
        ms.fetch_add(1_000, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(get(&cache, "k").await, None);
    }

    #[tokio::test]
    async fn what_is_taken_out_is_gone() {
        let (clock, ms) = Clock::manual();
        let cache = LocalShared::new(1 << 20, clock);
        cache.tell(&[order("k", 2, Some("two")), order("l", 1, Some("one"))]).await;
        assert_eq!(cache.take("k").await.unwrap().unwrap().value, "two");
        assert_eq!((cache.take("k").await.unwrap(), get(&cache, "k").await), (None, None));
        ms.fetch_add(1_000, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(cache.take("l").await.unwrap(), None, "it was over");
        assert_eq!(cache.inner.lock().bytes, 0);
    }

    #[tokio::test]
    async fn a_lease_has_one_owner_until_it_ends() {
        let (clock, ms) = Clock::manual();
        let (cache, keys) = (LocalShared::new(1 << 20, clock), ["a".to_owned(), "b".to_owned()]);
        assert_eq!(cache.lease(&keys[..1], "one", 1_000).await.unwrap(), [true]);
        assert_eq!(cache.lease(&keys, "two", 1_000).await.unwrap(), [false, true]);
        cache.release(&keys, "two").await;
        assert_eq!(cache.lease(&keys, "three", 1_000).await.unwrap(), [false, true]);
        ms.fetch_add(1_000, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(cache.lease(&keys, "four", 1_000).await.unwrap(), [true, true]);
    }

    #[tokio::test]
    async fn stays_within_its_bytes_and_keeps_the_newest() {
        let cache = LocalShared::new(20_000, Clock::system());
        for version in 1..=10 {
            for key in 0..100 {
                cache.tell(&[order(&format!("k{key}"), version, Some(&"x".repeat(100)))]).await;
            }
        }
        let inner = cache.inner.lock();
        assert!(inner.bytes <= 20_000 && inner.order.len() <= 2 * inner.kept.len() + 64);
        assert!(inner.kept.contains_key("k99") && inner.kept.len() > 50, "{}", inner.kept.len());
    }
}
