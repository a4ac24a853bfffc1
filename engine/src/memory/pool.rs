//! One pool of a memory tier: its parts, its shapes, and the rule by which versions only grow.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::forms::{Packed, UNSHARED};
use super::Policy;
use super::{
    Hit, Load, PoolConfig, PoolStats, PutOutcome,
    key::{self, CellKey},
    partition::{AGE_MS_MAX, FENCE_MS, Frame, Partition},
    shadow::{Forecast, Reads, Shadows},
};
use crate::flyweight::{
    codec::Split,
    interner::Interner,
    roles::{Explanation, Roles},
    shape::Shape,
};
use model::{
    key::{Key, Version},
    record::Lookup,
    schema::Schema,
};

mod forms;

/// One pool. `number` tells its shared states from those of other pools.
pub struct Pool {
    number: u16,
    schema: Arc<Schema>,
    seed: u64,
    parts: Box<[Mutex<Partition>]>,
    /// The shapes that were ever in use. The first shares nothing.
    shapes: Box<[OnceLock<Shape>]>,
    /// The shape of new entries.
    shape: AtomicU16,
    roles: Mutex<Roles>,
    policy: Policy,
    shadows: Mutex<Shadows>,
    /// One in 2^so many keys is in the sample of the shadows; `NO_SHADOWS` while there are none.
    shadow_bits: AtomicU32,
    capacity: AtomicU64,
    figures: Figures,
}

/// How the pools of a tier are made.
#[derive(Clone, Copy)]
pub struct Build {
    pub policy: Policy,
    /// Parts of each pool, at least one.
    pub parts: usize,
    /// Fences that each part keeps at most.
    pub fences_max: usize,
    /// Keys in the sample of the shadows at most.
    pub shadow_keys_max: usize,
    pub seed: u64,
}

/// What is kept beside the parts, to be read without their locks.
#[derive(Default)]
struct Figures {
    bytes: AtomicU64,
    /// Bytes that the parts will take once entries are evicted.
    reserved: AtomicU64,
    entities: AtomicU64,
    distinct: AtomicU64,
    /// Bytes of shared states as stored, and as they would be with each entity.
    stored_bytes: AtomicU64,
    referred_bytes: AtomicU64,
    last_cleanup_ms: AtomicU64,
}

/// A choice of roles beyond these is not followed any more.
const SHAPES_MAX: usize = 64;
const NO_SHADOWS: u32 = u32::MAX;
/// Lines of the index that a sweep goes through under one lock.
const SWEEP: u32 = 100;

impl Pool {
    /// An empty pool.
    pub fn new(number: u16, schema: Arc<Schema>, config: PoolConfig, build: &Build) -> Self {
        let Build { policy, parts, fences_max, shadow_keys_max, seed } = *build;
        let part = |_| Mutex::new(Partition::new(policy, seed, config, fences_max));
        let shapes: Box<[OnceLock<Shape>]> = (0..SHAPES_MAX).map(|_| OnceLock::new()).collect();
        shapes[0].get_or_init(|| Shape::new(schema.clone(), Split::NONE));
        let pool = Self {
            number,
            seed,
            parts: (0..parts).map(part).collect(),
            shapes,
            shape: AtomicU16::new(UNSHARED),
            roles: Mutex::new(Roles::new(schema.clone())),
            policy,
            shadows: Mutex::new(Shadows::new(seed, shadow_keys_max)),
            shadow_bits: AtomicU32::new(NO_SHADOWS),
            schema: schema.clone(),
            capacity: AtomicU64::new(config.capacity),
            figures: Figures::default(),
        };
        pool.use_split(Split::declared(&schema));
        pool.figures.bytes.store(pool.count_bytes(), Ordering::Relaxed);
        pool
    }

    /// Bytes of everything in the pool but its shared states.
    pub fn bytes(&self) -> u64 {
        self.figures.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that must stay free for what evictions need.
    pub fn reserved(&self) -> u64 {
        self.figures.reserved.load(Ordering::Relaxed)
    }

    /// Entries.
    pub fn entities(&self) -> u64 {
        self.figures.entities.load(Ordering::Relaxed)
    }

    /// Whether there are more entries than the pool's capacity.
    pub fn is_over(&self) -> bool {
        self.entities() > self.capacity.load(Ordering::Relaxed)
    }

    /// What [`Self::bytes`] must be, counted anew.
    pub fn count_bytes(&self) -> u64 {
        let parts: usize = self.parts.iter().map(|part| part.lock().count_bytes()).sum();
        let shapes: usize = self.shapes.iter().filter_map(OnceLock::get).map(Shape::bytes).sum();
        let fixed = size_of::<Self>() + SHAPES_MAX * size_of::<OnceLock<Shape>>();
        (fixed + parts + shapes + self.roles.lock().bytes() + self.shadows.lock().bytes()) as u64
    }

    /// Changes the settings.
    pub fn configure(&self, config: PoolConfig) {
        self.capacity.store(config.capacity, Ordering::Relaxed);
        for part in &self.parts {
            let mut part = part.lock();
            let now_ms = part.tick(0);
            part.configure(config, now_ms);
        }
        self.shadow(|shadows| shadows.configure(config, 0));
    }

    /// See [`super::MemoryTier::get`].
    pub fn get(&self, key: &Key, now_ms: u64, interner: &Interner) -> Option<Hit> {
        self.look(key, now_ms, interner, true)
    }

    /// See [`super::MemoryTier::inspect`].
    pub fn inspect(&self, key: &Key, now_ms: u64, interner: &Interner) -> Option<Hit> {
        self.look(key, now_ms, interner, false)
    }

    fn look(&self, key: &Key, now_ms: u64, interner: &Interner, as_read: bool) -> Option<Hit> {
        let encoded = CellKey::new(key);
        let hash = self.hash(encoded.as_bytes());
        let mut part = self.part(hash).lock();
        let now_ms = part.tick(now_ms);
        let found = part.find(hash, encoded.as_bytes()).and_then(|slot| {
            let age = part.age(slot, now_ms);
            let expires_in_ms = age.fresh_ms as i64 - age.age_ms as i64;
            if expires_in_ms <= -(part.stale_ms() as i64) {
                return None;
            }
            let cached = self.splice(key, part.frame(slot), part.cells.data(slot), interner)?;
            if as_read {
                part.read(slot, now_ms);
            }
            Some(Hit { cached, age_ms: age.age_ms, expires_in_ms })
        });
        if !as_read {
            return found;
        }
        let fresh = found.as_ref().is_some_and(|hit| hit.expires_in_ms > 0);
        part.counters.hits += u64::from(fresh);
        part.counters.misses += u64::from(!fresh);
        drop(part);
        if self.is_shadowed(hash) {
            self.shadow(|shadows| shadows.read(hash, self.entities(), now_ms, || self.reads()));
        }
        found
    }

    /// See [`super::MemoryTier::peek`].
    pub fn peek(&self, key: &Key, interner: &Interner) -> Option<Version> {
        let encoded = CellKey::new(key);
        let hash = self.hash(encoded.as_bytes());
        let part = self.part(hash).lock();
        let slot = part.find(hash, encoded.as_bytes())?;
        self.version_of(part.frame(slot), part.cells.data(slot), interner)
    }

    /// See [`super::MemoryTier::put`].
    pub fn put(&self, key: &Key, found: &Lookup, load: Load, now_ms: u64, interner: &Interner) -> PutOutcome {
        let encoded = CellKey::new(key);
        let hash = self.hash(encoded.as_bytes());
        if let Lookup::Found(record) = found {
            self.observe(hash, record);
        }
        let Some(packed) = self.pack(found, interner) else { return PutOutcome::Refused };
        let frame = packed.frame;
        let (outcome, dropped) = self.change(hash, |part| {
            let now_ms = part.tick(now_ms);
            self.place(part, hash, encoded.as_bytes(), packed, load, now_ms, interner)
        });
        if outcome != PutOutcome::Stored || dropped == Some(Dropped::Incoming) {
            self.release(frame, interner);
        }
        if let Some(Dropped::Before(frame)) = dropped {
            self.release(frame, interner);
        }
        if outcome == PutOutcome::Stored && self.is_shadowed(hash) {
            self.shadow(|shadows| shadows.put(hash, self.entities(), now_ms));
        }
        outcome
    }

    /// See [`super::MemoryTier::fence`].
    pub fn fence(&self, key: &Key, version: Version, now_ms: u64, interner: &Interner) {
        let encoded = CellKey::new(key);
        let hash = self.hash(encoded.as_bytes());
        let dropped = self.change(hash, |part| {
            let now_ms = part.tick(now_ms);
            let slot = part.find(hash, encoded.as_bytes());
            let cached =
                slot.and_then(|slot| self.version_of(part.frame(slot), part.cells.data(slot), interner));
            if cached.is_some_and(|cached| cached >= version) {
                return None;
            }
            part.fences.fence(hash, version, now_ms, FENCE_MS);
            slot.map(|slot| part.remove(hash, slot))
        });
        if dropped.is_some() && self.is_shadowed(hash) {
            self.shadow(|shadows| shadows.remove(hash));
        }
        dropped.into_iter().for_each(|frame| self.release(frame, interner));
    }

    /// See [`super::MemoryTier::clear`].
    pub fn clear(&self, now_ms: u64, interner: &Interner) {
        for index in 0..self.parts.len() {
            let dropped = self.change_part(index, |part| {
                let now_ms = part.tick(now_ms);
                part.fences.raise_all(now_ms);
                let mut frames = Vec::with_capacity(part.cells.len());
                while let Some(slot) = part.recent(1).pop() {
                    let hash = part.hash_of(slot);
                    frames.push(part.remove(hash, slot));
                }
                frames
            });
            dropped.into_iter().for_each(|frame| self.release(frame, interner));
        }
        self.shadow(Shadows::clear);
    }

    /// Takes one entry out by the policy, from the fuller of two parts. False where there is none.
    pub fn evict(&self, random: u64, now_ms: u64, interner: &Interner) -> bool {
        if self.shadow_bits.load(Ordering::Relaxed) == NO_SHADOWS {
            let config = self.parts[0].lock().config;
            self.shadow(|shadows| shadows.start(self.entities(), config));
        }
        let count = self.parts.len() as u64;
        let (one, two) = ((random % count) as usize, (random / count % count) as usize);
        let len = |index: usize| self.parts[index].lock().cells.len();
        let fuller = if len(one) >= len(two) { one } else { two };
        std::iter::once(fuller).chain(0..self.parts.len()).any(|index| {
            let frame = self.change_part(index, |part| {
                part.evict(|frame, data| self.version_of(frame, data, interner), now_ms)
            });
            frame.map(|frame| self.release(frame, interner)).is_some()
        })
    }

    /// See [`super::MemoryTier::remove_idle`].
    pub fn remove_idle(&self, idle_after_ms: Option<u64>, now_ms: u64, interner: &Interner) -> u64 {
        let mut removed = 0;
        for index in 0..self.parts.len() {
            let mut below = Some(u32::MAX);
            while let Some(line) = below {
                let dropped;
                (dropped, below) =
                    self.change_part(index, |part| self.sweep(part, line, idle_after_ms, now_ms, interner));
                removed += dropped.len() as u64;
                dropped.into_iter().for_each(|frame| self.release(frame, interner));
            }
        }
        self.figures.last_cleanup_ms.fetch_max(now_ms, Ordering::Relaxed);
        removed
    }

    /// See [`super::MemoryTier::recent`].
    pub fn recent(&self, limit: usize) -> Vec<Key> {
        let each = limit.div_ceil(self.parts.len());
        let keys = |part: &Mutex<Partition>| {
            let part = part.lock();
            let present = part.recent(each).into_iter().filter(|slot| part.frame(*slot) != Frame::Absent);
            present.filter_map(|slot| key::decode(part.cells.key(slot))).collect::<Vec<_>>()
        };
        let mut keys: Vec<Key> = self.parts.iter().flat_map(keys).collect();
        keys.truncate(limit);
        keys
    }

    /// See [`super::MemoryTier::stats`].
    pub fn stats(&self) -> PoolStats {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let mut stats = PoolStats {
            entities: self.entities(),
            distinct: load(&self.figures.distinct),
            bytes: self.bytes() + load(&self.figures.stored_bytes),
            bytes_saved: load(&self.figures.referred_bytes) as i64 - load(&self.figures.stored_bytes) as i64,
            last_cleanup_ms: load(&self.figures.last_cleanup_ms),
            ..PoolStats::default()
        };
        for part in &self.parts {
            let counters = part.lock().counters;
            stats.hits += counters.hits;
            stats.misses += counters.misses;
            stats.evictions += counters.evictions;
            stats.expired += counters.expired;
            stats.shared += counters.shared;
        }
        stats.unshared = stats.entities.saturating_sub(stats.shared);
        stats
    }

    /// See [`super::MemoryTier::forecast`].
    pub fn forecast(&self) -> Option<Forecast> {
        let reads = self.reads();
        self.shadows.lock().forecast(self.policy, reads)
    }

    /// Why each field is shared or not.
    pub fn explain(&self) -> Explanation {
        self.roles.lock().explain()
    }
}

/// Which frame a put has no use for.
#[derive(PartialEq)]
enum Dropped {
    Before(Frame),
    Incoming,
}

impl Pool {
    /// Puts an entry in its place, unless something newer was seen.
    #[expect(clippy::too_many_arguments, reason = "the parts of one put, in one place")]
    fn place(
        &self,
        part: &mut Partition,
        hash: u64,
        key: &[u8],
        packed: Packed,
        load: Load,
        now_ms: u64,
        interner: &Interner,
    ) -> (PutOutcome, Option<Dropped>) {
        if let Some(fence) =
            part.fences.version(hash, load.began_ms, now_ms, FENCE_MS).filter(|fence| *fence > packed.version)
        {
            return (PutOutcome::Fenced(fence), None);
        }
        let loaded_ms = load.began_ms.saturating_sub(load.age_ms).max(now_ms.saturating_sub(AGE_MS_MAX));
        let Some(slot) = part.find(hash, key) else {
            if part.fences.overtook(hash, load.began_ms) {
                return (PutOutcome::Overtaken, None);
            }
            if packed.frame == Frame::Absent && part.config.lifetime.negative_ttl_ms == 0 {
                part.fences.fence(hash, packed.version, now_ms, FENCE_MS);
                return (PutOutcome::Refused, None);
            }
            let added = part.add(hash, key, packed.frame, &packed.data, loaded_ms, now_ms);
            return (if added { PutOutcome::Stored } else { PutOutcome::Refused }, None);
        };
        let age = part.age(slot, now_ms);
        let before_ms = now_ms.saturating_sub(age.age_ms);
        let cached = self.version_of(part.frame(slot), part.cells.data(slot), interner).unwrap_or_default();
        // A load that began long after the entry ceased to be fresh knows better: the store was set back, or
        // a row deleted, by others.
        let outlived = load.began_ms > before_ms.saturating_add(age.fresh_ms.max(FENCE_MS));
        if cached > packed.version && !outlived {
            return (PutOutcome::Fenced(cached), None);
        }
        if cached == packed.version && loaded_ms <= before_ms {
            return (PutOutcome::Stored, Some(Dropped::Incoming));
        }
        if packed.frame == Frame::Absent && part.config.lifetime.negative_ttl_ms == 0 {
            part.fences.fence(hash, packed.version, now_ms, FENCE_MS);
            return (PutOutcome::Refused, Some(Dropped::Before(part.remove(hash, slot))));
        }
        match part.replace(hash, slot, key, packed.frame, &packed.data, loaded_ms) {
            Some(before) => (PutOutcome::Stored, Some(Dropped::Before(before))),
            None => {
                part.fences.fence(hash, packed.version, now_ms, FENCE_MS);
                (PutOutcome::Refused, Some(Dropped::Before(part.remove(hash, slot))))
            }
        }
    }

    /// Drops what is idle or no longer given out from some lines of the index below this one. Gives the
    /// frames, and the line to go on with.
    fn sweep(
        &self,
        part: &mut Partition,
        below: u32,
        idle_after_ms: Option<u64>,
        now_ms: u64,
        interner: &Interner,
    ) -> (Vec<Frame>, Option<u32>) {
        let now_ms = part.tick(now_ms);
        let idle_after_ms = idle_after_ms.unwrap_or(part.config.idle_after_ms);
        let mut gone = Vec::new();
        let next = part.walk(below, SWEEP, |slot| {
            let age = part.age(slot, now_ms);
            let given_out = age.age_ms < age.fresh_ms + part.stale_ms();
            if !given_out || part.idle_ms(slot, now_ms) >= idle_after_ms {
                gone.push(part.cells.key(slot).to_vec());
            }
        });
        let mut drop = |key: Vec<u8>| {
            let hash = self.hash(&key);
            let slot = part.find(hash, &key)?;
            part.counters.expired += 1;
            Some(part.forget(hash, slot, |frame, data| self.version_of(frame, data, interner), now_ms))
        };
        (gone.into_iter().filter_map(&mut drop).collect(), next)
    }

    /// Changes the part of a key, and keeps the figures.
    fn change<R>(&self, hash: u64, act: impl FnOnce(&mut Partition) -> R) -> R {
        self.change_part(self.part_of(hash), act)
    }

    fn change_part<R>(&self, index: usize, act: impl FnOnce(&mut Partition) -> R) -> R {
        let mut part = self.parts[index].lock();
        let figures =
            |part: &Partition| [part.bytes() as u64, part.reserved() as u64, part.cells.len() as u64];
        let before = figures(&part);
        let result = act(&mut part);
        let kept = [&self.figures.bytes, &self.figures.reserved, &self.figures.entities];
        for ((kept, after), before) in kept.into_iter().zip(figures(&part)).zip(before) {
            // Wraps where there is less than before, and so comes out right.
            kept.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        }
        result
    }

    /// Whether a key with this hash is in the sample of the shadows.
    fn is_shadowed(&self, hash: u64) -> bool {
        let bits = self.shadow_bits.load(Ordering::Relaxed);
        bits != NO_SHADOWS && Shadows::samples(hash, bits)
    }

    /// Does something with the shadows, and keeps the figures.
    fn shadow(&self, act: impl FnOnce(&mut Shadows)) {
        let mut shadows = self.shadows.lock();
        let before = shadows.bytes() as u64;
        act(&mut shadows);
        self.figures.bytes.fetch_add((shadows.bytes() as u64).wrapping_sub(before), Ordering::Relaxed);
        if shadows.has_started() {
            self.shadow_bits.store(shadows.bits(), Ordering::Relaxed);
        }
    }

    /// What all parts counted.
    fn reads(&self) -> Reads {
        self.parts.iter().fold(Reads::default(), |sum, part| {
            let counters = part.lock().counters;
            Reads { hits: sum.hits + counters.hits, misses: sum.misses + counters.misses }
        })
    }

    fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    fn part_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize % self.parts.len()
    }

    fn part(&self, hash: u64) -> &Mutex<Partition> {
        &self.parts[self.part_of(hash)]
    }
}
