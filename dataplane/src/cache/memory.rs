//! The memory tier: what a process keeps of several pools, within one bound of bytes, fenced by version.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{Cached, Entry};
use crate::{
    domain::{
        record::{Key, Lookup, Version},
        schema::Schema,
    },
    flyweight::codec::{Split, encode},
};
pub use crds::tier::Policy;

/// How long a fence is remembered for a key that is not cached, in milliseconds: longer than any load from the store lasts.
pub const FENCE_MS: u64 = 60_000;

/// A memory tier that several pools share. All times are milliseconds of one clock that the caller reads; every method takes microseconds and never waits
/// for anything but a short lock.
pub struct MemoryTier {
    config: MemoryConfig,
    pools: Mutex<Vec<Pool>>,
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
    /// How long an entry that is no longer fresh is still given out (as a [`Hit`] with a negative `expires_in_ms`), in milliseconds: the longer of
    /// `staleWhileRevalidate` and `staleIfError`. Which of them applies is the caller's to decide.
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
    /// When the operation began that brought the value: the read of the store or of another tier; for a write, its commit. What was fenced or forgotten
    /// since then is respected.
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
    /// It is older than this version, which the tier has seen: whoever loaded it must not give it out, but load again.
    Fenced(Version),
    /// The load began before something was forgotten that may have been newer: as `Fenced`, with the version unknown.
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
    /// Bytes that sharing saves against the same entries without it; negative where it costs more than it saves.
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

struct Pool {
    schema: Arc<Schema>,
    config: PoolConfig,
    slots: HashMap<Key, Slot>,
    fences: HashMap<Key, Version>,
    stats: PoolStats,
}

struct Slot {
    cached: Cached,
    loaded_at_ms: u64,
    used_at_ms: u64,
}

impl MemoryTier {
    /// The most pools.
    pub const POOLS_MAX: usize = 1024;

    /// An empty tier.
    pub fn new(config: MemoryConfig) -> Self {
        Self { config, pools: Mutex::default() }
    }

    /// Adds a pool.
    ///
    /// # Errors
    /// There are too many.
    pub fn register(&self, _name: &str, schema: Arc<Schema>, config: PoolConfig) -> Result<PoolId, TooManyPools> {
        let mut pools = self.pools.lock();
        if pools.len() == Self::POOLS_MAX {
            return Err(TooManyPools);
        }
        pools.push(Pool { schema, config, slots: HashMap::new(), fences: HashMap::new(), stats: PoolStats::default() });
        Ok(PoolId((pools.len() - 1) as u16))
    }

    /// Changes a pool's settings. Entries that are there already live by the new ones.
    pub fn configure(&self, pool: PoolId, config: PoolConfig) {
        self.pools.lock()[usize::from(pool.0)].config = config;
    }

    /// Changes the bound of bytes, and evicts down to it.
    pub fn resize(&self, _max_bytes: u64) {
        _ = self.config;
    }

    /// What is held for a key, as long as it is fresh or within `stale_ms` after.
    pub fn get(&self, pool: PoolId, key: &Key, now_ms: u64) -> Option<Hit> {
        let mut pools = self.pools.lock();
        let pool = &mut pools[usize::from(pool.0)];
        let life = pool.config.lifetime;
        let hit = pool.slots.get_mut(key).and_then(|slot| {
            let ttl = if matches!(slot.cached, Cached::Present(_)) { life.ttl_ms } else { life.negative_ttl_ms };
            let age_ms = now_ms.saturating_sub(slot.loaded_at_ms);
            let expires_in_ms = ttl as i64 - age_ms as i64;
            slot.used_at_ms = now_ms;
            (expires_in_ms > -(life.stale_ms as i64)).then(|| Hit {
                cached: slot.cached.clone(),
                age_ms,
                expires_in_ms,
            })
        });
        let fresh = hit.as_ref().is_some_and(|hit| hit.expires_in_ms > 0);
        *(if fresh { &mut pool.stats.hits } else { &mut pool.stats.misses }) += 1;
        hit
    }

    /// Keeps what a store knows of a key.
    pub fn put(&self, pool: PoolId, key: &Key, found: &Lookup, load: Load, now_ms: u64) -> PutOutcome {
        let loaded_at_ms = load.began_ms.saturating_sub(load.age_ms);
        let mut pools = self.pools.lock();
        let pool = &mut pools[usize::from(pool.0)];
        let cached = match found {
            Lookup::Found(record) => Cached::Present(encode(&pool.schema, record, Split::declared(&pool.schema))),
            Lookup::Deleted(version) => Cached::Absent(*version),
            Lookup::Missing => Cached::Absent(Version(0)),
        };
        let seen = pool.fences.get(key).copied().max(pool.slots.get(key).map(|slot| slot.cached.version()));
        if let Some(seen) = seen.filter(|seen| *seen > cached.version()) {
            return PutOutcome::Fenced(seen);
        }
        pool.slots.insert(key.clone(), Slot { cached, loaded_at_ms, used_at_ms: now_ms });
        PutOutcome::Stored
    }

    /// Says that a key has this version: an older entry is dropped, and older ones are not taken any more.
    pub fn fence(&self, pool: PoolId, key: &Key, version: Version, _now_ms: u64) {
        let mut pools = self.pools.lock();
        let pool = &mut pools[usize::from(pool.0)];
        if pool.slots.get(key).is_some_and(|slot| slot.cached.version() < version) {
            pool.slots.remove(key);
        }
        let fence = pool.fences.entry(key.clone()).or_default();
        *fence = version.max(*fence);
    }

    /// Drops all entries of a pool, and refuses what was loaded before: after a gap in the invalidations.
    pub fn clear(&self, pool: PoolId, _now_ms: u64) {
        self.pools.lock()[usize::from(pool.0)].slots.clear();
    }

    /// Whether something is held for a key, with its version; no read in the sense of policies, idleness and figures.
    pub fn peek(&self, pool: PoolId, key: &Key, _now_ms: u64) -> Option<Version> {
        let pools = self.pools.lock();
        pools[usize::from(pool.0)].slots.get(key).map(|slot| slot.cached.version())
    }

    /// Drops the entries that nobody read for `idle_after_ms` (the pool's own, where none is given) or that are no longer given out. Returns how many.
    pub fn remove_idle(&self, pool: PoolId, idle_after_ms: Option<u64>, now_ms: u64) -> u64 {
        let mut pools = self.pools.lock();
        let pool = &mut pools[usize::from(pool.0)];
        let before = pool.slots.len();
        let idle_after = idle_after_ms.unwrap_or(pool.config.idle_after_ms);
        pool.slots.retain(|_, slot| now_ms.saturating_sub(slot.used_at_ms) < idle_after);
        pool.stats.last_cleanup_ms = now_ms;
        (before - pool.slots.len()) as u64
    }

    /// Keys of records that are held, those that the policy would keep longest first.
    pub fn recent(&self, pool: PoolId, limit: usize) -> Vec<Key> {
        let pools = self.pools.lock();
        let present = |slot: &Slot| matches!(slot.cached, Cached::Present(Entry { .. }));
        let slots = pools[usize::from(pool.0)].slots.iter();
        slots.filter(|(_, slot)| present(slot)).map(|(key, _)| key.clone()).take(limit).collect()
    }

    /// Figures of a pool.
    pub fn stats(&self, pool: PoolId) -> PoolStats {
        let pools = self.pools.lock();
        let pool = &pools[usize::from(pool.0)];
        PoolStats { entities: pool.slots.len() as u64, ..pool.stats.clone() }
    }

    /// Bytes of everything that the tier holds.
    pub fn bytes(&self) -> u64 {
        0
    }
}
