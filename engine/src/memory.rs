//! The memory tier: what a process keeps of several pools, within one bound of bytes, fenced by version.
//!
//! ```text
//! MemoryTier ─ Pool ─ Partition (a lock) ┬ Cells     entries side by side, by size, without holes
//!      │                                 ├ Index     key -> cell
//!      │                                 ├ Policy    which cell leaves next
//!      │                                 └ Fences    versions that must not come back
//!      └ Interner                          shared states, each once for all
//! ```
//!
//! A cell holds the key and the record's own state in a few bytes; a hit formats them and adds the shared
//! state as it is stored. Locks are taken for microseconds, one part of a pool at a time, and inside it at
//! most one part of the interner.

mod cells;
mod fences;
mod index;
mod key;
mod list;
mod partition;
mod policy;
mod pool;
mod shadow;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use self::pool::{Build, Pool};
pub use self::{
    partition::{AGE_MS_MAX, FENCE_MS},
    shadow::{Estimate, Forecast},
};
use super::Cached;
use crate::flyweight::{interner::Interner, roles::Explanation};
use model::{
    key::{Key, Version},
    record::Lookup,
    schema::Schema,
};

/// A memory tier that several pools share. All times are milliseconds of one clock that the caller reads;
/// every method takes microseconds and never waits for anything but a short lock.
pub struct MemoryTier {
    build: Build,
    bytes_max: AtomicU64,
    interner: Interner,
    pools: Box<[OnceLock<Box<Pool>>]>,
    /// How many pools there are; held while one is added.
    count: Mutex<usize>,
    random: AtomicU64,
}

/// What a memory tier is made with.
#[derive(Clone, Copy, Debug)]
pub struct MemoryConfig {
    /// The most bytes, as resident.
    pub max_bytes: u64,
    /// Which entry leaves a full tier.
    pub policy: Policy,
    /// Into how many parts each pool is divided, each with a lock of its own; 0 chooses by `max_bytes`.
    pub shards: usize,
    /// What the jitter and the hashes of keys start from.
    pub seed: u64,
}

/// Which entry leaves a full memory tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
pub enum Policy {
    /// The least recently used.
    #[serde(rename = "LRU")]
    Lru,
    /// The least frequently used.
    #[serde(rename = "LFU")]
    Lfu,
    /// The oldest.
    #[serde(rename = "FIFO")]
    Fifo,
    /// The oldest of a small queue for new entries, unless it was asked for again (S3-FIFO).
    #[default]
    #[serde(rename = "S3FIFO")]
    S3Fifo,
    /// The first that was not asked for since the hand last passed (SIEVE).
    #[serde(rename = "SIEVE")]
    Sieve,
}

/// What is particular to one pool. All of it can be changed while the tier is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The most entities.
    pub capacity: u64,
    /// After how long without a read an entry is dropped by [`MemoryTier::remove_idle`], in milliseconds.
    pub idle_after_ms: u64,
    /// How long entries live.
    pub lifetime: Lifetime,
}

/// How long the entries of a pool live, counted from the start of the load that brought them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How long a record is fresh, in milliseconds.
    pub ttl_ms: u64,
    /// How long "there is no such record" is fresh, in milliseconds; 0 does not keep it.
    pub negative_ttl_ms: u64,
    /// By how many percent, at most, both are shortened at random, the same for one entry at each read.
    pub jitter_percent: u32,
    /// How long an entry that is no longer fresh is still given out (as a [`Hit`] with a negative
    /// `expires_in_ms`), in milliseconds: the longer of `staleWhileRevalidate` and `staleIfError`. Which of
    /// them applies is the caller's to decide.
    pub stale_ms: u64,
}

/// A pool of a memory tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// What the tier holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The record ready to be sent, or that there is none.
    pub cached: Cached,
    /// How long ago its load began, in milliseconds.
    pub age_ms: u64,
    /// How long it is still fresh, in milliseconds; negative: since when it is stale.
    pub expires_in_ms: i64,
}

/// When and from where a value came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// When the operation began that brought the value: the read of the store or of another tier; for a
    /// write, its commit. What was fenced or forgotten since then is respected.
    pub began_ms: u64,
    /// How old the value was then, in milliseconds: 0 from the store, its age there from another tier.
    pub age_ms: u64,
}

/// A tier holds no more than [`MemoryTier::POOLS_MAX`] pools.
#[derive(Debug, thiserror::Error)]
#[error("a memory tier holds at most {} pools", MemoryTier::POOLS_MAX)]
pub struct TooManyPools;

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is kept (or what was there already is the same version, loaded later).
    Stored,
    /// It is older than this version, which the tier has seen: whoever loaded it must not give it out, but
    /// load again.
    Fenced(Version),
    /// The load began before something was forgotten that may have been newer: as `Fenced`, with the version
    /// unknown.
    Overtaken,
    /// It is not kept, though it may be given out: too large, or not of its schema.
    Refused,
}

/// Figures of one pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolStats {
    /// Entries, "there is no such record" included.
    pub entities: u64,
    /// Distinct shared states.
    pub distinct: u64,
    /// Entries that have shared state.
    pub shared: u64,
    /// Entries that have none.
    pub unshared: u64,
    /// Bytes of everything that the pool holds.
    pub bytes: u64,
    /// Bytes that sharing saves against the same entries without it; negative where it costs more than it
    /// saves.
    pub bytes_saved: i64,
    /// Reads that found a fresh entry.
    pub hits: u64,
    /// Other reads.
    pub misses: u64,
    /// Entries that left to make room.
    pub evictions: u64,
    /// Entries that left because they were idle, or stale for too long.
    pub expired: u64,
    /// When [`MemoryTier::remove_idle`] last ran; 0: never.
    pub last_cleanup_ms: u64,
}

/// Entries that one put evicts at most.
const EVICTIONS_MAX: usize = 1024;
/// Without a wish, a part for so many bytes, up to `PARTS_MAX`.
const BYTES_PER_PART: u64 = 8 << 20;
const PARTS_MAX: u64 = 16;
/// The least and the most fences of a part.
const FENCES: (u64, u64) = (64, 1024);
/// The least and the most keys in the sample of a pool's shadows.
const SHADOW_KEYS: (u64, u64) = (64, 1024);

impl MemoryTier {
    /// The most pools.
    pub const POOLS_MAX: usize = 256;

    /// An empty tier.
    pub fn new(config: MemoryConfig) -> Self {
        let MemoryConfig { max_bytes, policy, shards, seed } = config;
        let parts =
            if shards == 0 { (max_bytes / BYTES_PER_PART).clamp(1, PARTS_MAX) as usize } else { shards };
        // A fence takes about 64 bytes: together they take a small part of the room.
        let fences_max = (max_bytes / parts as u64 / 4096).clamp(FENCES.0, FENCES.1) as usize;
        // A sampled key takes about 40 bytes for each policy.
        let shadow_keys_max = (max_bytes / 16_384).clamp(SHADOW_KEYS.0, SHADOW_KEYS.1) as usize;
        Self {
            build: Build { policy, parts, fences_max, shadow_keys_max, seed },
            bytes_max: AtomicU64::new(max_bytes),
            interner: Interner::new(seed, max_bytes),
            pools: (0..Self::POOLS_MAX).map(|_| OnceLock::new()).collect(),
            count: Mutex::new(0),
            random: AtomicU64::new(seed),
        }
    }

    /// Adds a pool.
    ///
    /// # Errors
    /// There are too many.
    pub fn register(&self, schema: Arc<Schema>, config: PoolConfig) -> Result<PoolId, TooManyPools> {
        let mut count = self.count.lock();
        let number = *count as u16;
        let place = self.pools.get(*count).ok_or(TooManyPools)?;
        place.get_or_init(|| Box::new(Pool::new(number, schema, config, &self.build)));
        *count += 1;
        Ok(PoolId(number))
    }

    /// Changes a pool's settings. Entries that are there already live by the new ones.
    pub fn configure(&self, pool: PoolId, config: PoolConfig) {
        if let Some(pool) = self.pool(pool) {
            pool.configure(config);
            while pool.is_over() && pool.evict(self.random(), 0, &self.interner) {}
        }
    }

    /// Changes the bound of bytes, and evicts down to it.
    pub fn resize(&self, max_bytes: u64) {
        self.bytes_max.store(max_bytes, Ordering::Relaxed);
        self.interner.resize(max_bytes);
        while self.is_over() && self.evict(0) {}
    }

    /// What is held for a key, as long as it is fresh or within `stale_ms` after.
    pub fn get(&self, pool: PoolId, key: &Key, now_ms: u64) -> Option<Hit> {
        self.pool(pool)?.get(key, now_ms, &self.interner)
    }

    /// What a read of a key would get; no read in the sense of policies, idleness and figures.
    pub fn inspect(&self, pool: PoolId, key: &Key, now_ms: u64) -> Option<Hit> {
        self.pool(pool)?.inspect(key, now_ms, &self.interner)
    }

    /// Keeps what a store knows of a key, and evicts where that is too much.
    pub fn put(&self, pool: PoolId, key: &Key, found: &Lookup, load: Load, now_ms: u64) -> PutOutcome {
        let Some(pool) = self.pool(pool) else { return PutOutcome::Refused };
        let outcome = pool.put(key, found, load, now_ms, &self.interner);
        self.make_room(pool, now_ms);
        outcome
    }

    /// Says that a key has this version: an older entry is dropped, and older ones are not taken any more.
    pub fn fence(&self, pool: PoolId, key: &Key, version: Version, now_ms: u64) {
        if let Some(pool) = self.pool(pool) {
            pool.fence(key, version, now_ms, &self.interner);
            self.make_room(pool, now_ms);
        }
    }

    /// Drops all entries of a pool, and refuses what was loaded before: after a gap in the invalidations.
    pub fn clear(&self, pool: PoolId, now_ms: u64) {
        if let Some(pool) = self.pool(pool) {
            pool.clear(now_ms, &self.interner);
        }
    }

    /// The version that is held for a key, be it ever so stale; no read in the sense of policies, idleness
    /// and figures.
    pub fn peek(&self, pool: PoolId, key: &Key) -> Option<Version> {
        self.pool(pool)?.peek(key, &self.interner)
    }

    /// Drops the entries of a pool that nobody read for `idle_after_ms` (the pool's own, where none is given)
    /// or that are no longer given out. Returns how many. To be called at least once a day.
    pub fn remove_idle(&self, pool: PoolId, idle_after_ms: Option<u64>, now_ms: u64) -> u64 {
        self.pool(pool).map_or(0, |pool| pool.remove_idle(idle_after_ms, now_ms, &self.interner))
    }

    /// Keys of records that are held, those first that the policy would keep longest.
    pub fn recent(&self, pool: PoolId, limit: usize) -> Vec<Key> {
        self.pool(pool).map(|pool| pool.recent(limit)).unwrap_or_default()
    }

    /// Figures of a pool.
    pub fn stats(&self, pool: PoolId) -> PoolStats {
        self.pool(pool).map(Pool::stats).unwrap_or_default()
    }

    /// The part of hits that each policy would have had lately in the room that the pool has. None before the
    /// pool evicts, for then all do the same, and until enough was read since.
    pub fn forecast(&self, pool: PoolId) -> Option<Forecast> {
        self.pool(pool)?.forecast()
    }

    /// Why each field of a pool is shared or not.
    pub fn explain(&self, pool: PoolId) -> Option<Explanation> {
        self.pool(pool).map(Pool::explain)
    }

    /// Bytes of everything that the tier holds, as resident.
    pub fn bytes(&self) -> u64 {
        self.fixed_bytes() + self.interner.bytes() + self.each().map(Pool::bytes).sum::<u64>()
    }

    /// What [`Self::bytes`] must be, counted anew part by part: for tests and checks.
    pub fn count_bytes(&self) -> u64 {
        self.fixed_bytes() + self.interner.count_bytes() + self.each().map(Pool::count_bytes).sum::<u64>()
    }

    fn fixed_bytes(&self) -> u64 {
        (size_of::<Self>() + self.pools.len() * size_of::<OnceLock<Box<Pool>>>()) as u64
    }

    /// Evicts until bytes and entities are within their bounds, but not for ever: the next call goes on.
    fn make_room(&self, pool: &Pool, now_ms: u64) {
        for _ in 0..EVICTIONS_MAX {
            let evicted = if pool.is_over() {
                pool.evict(self.random(), now_ms, &self.interner)
            } else {
                self.is_over() && self.evict(now_ms)
            };
            if !evicted {
                break;
            }
        }
    }

    fn is_over(&self) -> bool {
        let reserved: u64 = self.each().map(Pool::reserved).sum();
        self.bytes() + reserved > self.bytes_max.load(Ordering::Relaxed)
    }

    /// Evicts one entry of a pool that is drawn in proportion to its bytes.
    fn evict(&self, now_ms: u64) -> bool {
        let total: u64 = self.each().filter(|pool| pool.entities() > 0).map(Pool::bytes).sum();
        let mut drawn = self.random() % total.max(1);
        for pool in self.each().filter(|pool| pool.entities() > 0) {
            if drawn < pool.bytes() {
                return pool.evict(self.random(), now_ms, &self.interner);
            }
            drawn -= pool.bytes();
        }
        // The figures changed meanwhile.
        self.each().any(|pool| pool.evict(self.random(), now_ms, &self.interner))
    }

    fn pool(&self, pool: PoolId) -> Option<&Pool> {
        self.pools.get(usize::from(pool.0))?.get().map(Box::as_ref)
    }

    fn each(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().map_while(OnceLock::get).map(Box::as_ref)
    }

    /// SplitMix64 (Steele and others, 2014).
    fn random(&self) -> u64 {
        let mut state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    }
}
