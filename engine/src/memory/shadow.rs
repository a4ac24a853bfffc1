//! What other policies would have done: each keeps a miniature cache of a sample of the pool's keys, scaled
//! down as the sample is, and meets the same reads.
//!
//! Sources: the sample is of keys by their hash, and misses are set against all reads, so that a key that is
//! read very often does not tip the scales: SHARDS (Waldspurger and others, FAST 2015). Any policy is
//! simulated at a small scale in the same way: miniature simulation (Waldspurger and others, ATC 2017). The
//! forecast of the policy in use is set to what it really did, and the others are moved by the same factor.

use serde::Serialize;

use super::Policy;
use super::{
    PoolConfig,
    partition::{Frame, Partition},
};

/// The miniature caches of one pool. They begin with the first eviction: before it every policy does the
/// same.
pub struct Shadows {
    caches: Vec<Shadow>,
    seed: u64,
    /// One in 2^`bits` keys is in the sample.
    bits: u32,
    keys_max: usize,
    /// Sampled reads since the figures were last halved.
    since_halved: u64,
    /// What the pool had done in all at that time, and what it did before, halved with the misses here.
    then: Reads,
    before: Reads,
    warm: bool,
}

/// Reads of a pool, as it counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reads {
    /// Reads that found a fresh entry.
    pub hits: u64,
    /// Other reads.
    pub misses: u64,
}

/// The part of hits that each policy would have had lately in the room that the pool has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The policy in use.
    pub in_use: Policy,
    /// The part of hits that it had.
    pub hit_ratio: f64,
    /// One in so many keys is in the sample.
    pub one_in: u64,
    /// Keys that a miniature cache holds.
    pub keys: u64,
    /// Every policy with its estimate.
    pub policies: Vec<Estimate>,
}

/// What one policy would have done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The policy.
    pub policy: Policy,
    /// The part of hits.
    pub hit_ratio: f64,
}

struct Shadow {
    policy: Policy,
    part: Partition,
    /// Misses, each times the keys that a sampled one stands for.
    misses: u64,
    evicted: bool,
}

/// All policies.
pub const POLICIES: [Policy; 5] = [Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::S3Fifo, Policy::Sieve];

/// At most one in 2^3 keys is sampled: what a sampled read costs is small beside eight reads.
const BITS_MIN: u32 = 3;
/// A miniature cache of fewer keys says nothing.
const KEYS_MIN: usize = 8;
/// Sampled reads after which the figures are halved, so that they follow what is read.
const HALVE_EVERY: u64 = 65_536;
/// No forecast is made from fewer misses of the policy in use.
const MISSES_MIN: u64 = 32;

impl Shadows {
    /// None yet; later of at most so many keys for each policy.
    pub fn new(seed: u64, keys_max: usize) -> Self {
        let (then, before) = Default::default();
        Self {
            caches: Vec::new(),
            seed,
            bits: BITS_MIN,
            keys_max,
            since_halved: 0,
            then,
            before,
            warm: false,
        }
    }

    /// Whether a key with this hash is in a sample of one in 2^`bits`.
    pub fn samples(hash: u64, bits: u32) -> bool {
        hash >> 12 & ((1 << bits) - 1) == 0
    }

    /// Starts, with one in how many keys as fits a pool of so many.
    pub fn start(&mut self, entities: u64, config: PoolConfig) {
        if self.caches.is_empty() {
            self.bits = self.bits_for(entities);
            let seed = self.seed;
            let shadow = |policy| Shadow {
                policy,
                part: Partition::new(policy, seed, config, 1),
                misses: 0,
                evicted: false,
            };
            self.caches = POLICIES.into_iter().map(shadow).collect();
        }
    }

    /// Whether it has.
    pub fn has_started(&self) -> bool {
        !self.caches.is_empty()
    }

    /// The sample is of one in 2^`bits` keys.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Takes other settings of the pool.
    pub fn configure(&mut self, config: PoolConfig, now_ms: u64) {
        self.caches.iter_mut().for_each(|cache| cache.part.configure(config, now_ms));
    }

    /// A sampled key is read in a pool of so many entities. `reads` is what the pool did in all, and is
    /// called rarely.
    pub fn read(&mut self, hash: u64, entities: u64, now_ms: u64, reads: impl FnOnce() -> Reads) {
        let (room, weight) = (self.fit(entities), 1 << self.bits);
        let key = key_of(hash);
        for cache in &mut self.caches {
            cache.read(&key, room, weight, now_ms);
        }
        if !self.warm {
            if self.caches.iter().all(|cache| cache.evicted) {
                self.forget(reads());
                self.warm = true;
            }
            return;
        }
        self.since_halved += 1;
        if self.since_halved == HALVE_EVERY {
            let now = reads();
            self.before = self.before.plus(now.since(self.then)).halved();
            self.then = now;
            self.since_halved = 0;
            self.caches.iter_mut().for_each(|cache| cache.misses /= 2);
        }
    }

    /// A sampled key is put in without having been read, or loaded anew.
    pub fn put(&mut self, hash: u64, entities: u64, now_ms: u64) {
        let (room, key) = (self.fit(entities), key_of(hash));
        self.caches.iter_mut().for_each(|cache| cache.put(&key, room, now_ms));
    }

    /// A sampled key is dropped, other than by the policy.
    pub fn remove(&mut self, hash: u64) {
        let key = key_of(hash);
        self.caches.iter_mut().for_each(|cache| cache.remove(&key));
    }

    /// All keys are dropped.
    pub fn clear(&mut self) {
        self.caches.iter_mut().for_each(|cache| cache.retain(|_| false));
    }

    /// What each policy would have done, once that can be said.
    pub fn forecast(&self, in_use: Policy, reads: Reads) -> Option<Forecast> {
        let real = self.before.plus(reads.since(self.then));
        let mine = self.caches.iter().find(|cache| cache.policy == in_use)?;
        if !self.warm || real.hits + real.misses == 0 || mine.misses < MISSES_MIN << self.bits {
            return None;
        }
        let missed = real.misses as f64 / (real.hits + real.misses) as f64;
        let estimate = |cache: &Shadow| {
            let hit_ratio = 1.0 - (missed * cache.misses as f64 / mine.misses as f64).min(1.0);
            Estimate { policy: cache.policy, hit_ratio }
        };
        Some(Forecast {
            in_use,
            hit_ratio: 1.0 - missed,
            one_in: 1 << self.bits,
            keys: mine.part.cells.len() as u64,
            policies: self.caches.iter().map(estimate).collect(),
        })
    }

    /// Bytes that are allocated.
    pub fn bytes(&self) -> usize {
        self.caches.iter().map(|cache| size_of::<Shadow>() + cache.part.bytes()).sum()
    }

    /// The keys that a miniature cache has room for, after the sample was made to fit the pool.
    fn fit(&mut self, entities: u64) -> usize {
        let bits = self.bits_for(entities);
        // One bit to spare, so that a pool that breathes does not change its sample all the time.
        if bits > self.bits {
            self.bits = bits;
            self.caches.iter_mut().for_each(|cache| cache.retain(|hash| Self::samples(hash, bits)));
        } else if bits + 1 < self.bits {
            self.bits = bits;
            self.clear();
            self.warm = false;
            self.caches.iter_mut().for_each(|cache| cache.evicted = false);
        }
        ((entities >> self.bits) as usize).max(KEYS_MIN)
    }

    fn bits_for(&self, entities: u64) -> u32 {
        let one_in = entities.div_ceil(self.keys_max as u64).next_power_of_two();
        one_in.ilog2().max(BITS_MIN)
    }

    fn forget(&mut self, reads: Reads) {
        (self.then, self.before, self.since_halved) = (reads, Reads::default(), 0);
        self.caches.iter_mut().for_each(|cache| cache.misses = 0);
    }
}

impl Reads {
    fn since(self, then: Self) -> Self {
        Self { hits: self.hits.saturating_sub(then.hits), misses: self.misses.saturating_sub(then.misses) }
    }

    fn plus(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, misses: self.misses + other.misses }
    }

    fn halved(self) -> Self {
        Self { hits: self.hits / 2, misses: self.misses / 2 }
    }
}

type ShadowKey = [u8; 9];

impl Shadow {
    fn read(&mut self, key: &ShadowKey, room: usize, weight: u64, now_ms: u64) {
        let now_ms = self.part.tick(now_ms);
        let found = self.part.find(self.part.hash(key), key);
        match found {
            Some(slot) => {
                let age = self.part.age(slot, now_ms);
                if age.age_ms < age.fresh_ms {
                    return self.part.read(slot, now_ms);
                }
                self.misses += weight;
                self.part.cells.set_loaded(slot, now_ms as u32);
            }
            None => {
                self.misses += weight;
                self.add(key, room, now_ms);
            }
        }
    }

    fn put(&mut self, key: &ShadowKey, room: usize, now_ms: u64) {
        let now_ms = self.part.tick(now_ms);
        match self.part.find(self.part.hash(key), key) {
            Some(slot) => self.part.cells.set_loaded(slot, now_ms as u32),
            None => self.add(key, room, now_ms),
        }
    }

    fn add(&mut self, key: &ShadowKey, room: usize, now_ms: u64) {
        self.part.add(self.part.hash(key), key, Frame::Unshared { shape: 0 }, &[], now_ms, now_ms);
        while self.part.cells.len() > room && self.part.evict(|_, _| None, now_ms).is_some() {
            self.evicted = true;
        }
    }

    fn remove(&mut self, key: &ShadowKey) {
        let hash = self.part.hash(key);
        if let Some(slot) = self.part.find(hash, key) {
            self.part.remove(hash, slot);
        }
    }

    /// Keeps the keys of some hashes.
    fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        let mut gone = Vec::new();
        self.part.walk(u32::MAX, u32::MAX, |slot| {
            let key: Option<ShadowKey> = self.part.cells.key(slot).try_into().ok();
            gone.extend(key.filter(|key| !keep(hash_of(key))));
        });
        gone.iter().for_each(|key| self.remove(key));
    }
}

/// A sampled key in the form of cells: the hash that it has in its pool.
fn key_of(hash: u64) -> ShadowKey {
    let mut key = [8; 9];
    key[1..].copy_from_slice(&hash.to_le_bytes());
    key
}

fn hash_of(key: &ShadowKey) -> u64 {
    key[1..].iter().rev().fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
