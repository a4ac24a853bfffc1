//! One part of a pool: cells, index, policy and fences under one lock.

use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::{Xxh3Builder, xxh3_64_with_seed};

use super::Policy as Kind;
use super::{
    PoolConfig,
    cells::{Cells, HEADER, Slot},
    fences::Fences,
    index::Index,
    policy::{self, Policy},
};
use model::key::Version;

/// What the data of a cell is: that there is no record, or a record in a shape, with its shared state in the
/// interner or without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The version of a record that is not there.
    Absent,
    /// The own part of a record in a shape that shares nothing, or could not.
    Unshared {
        /// The shape's number in its pool.
        shape: u16,
    },
    /// The own part of a record whose shared state has this index in the interner, which knows the shape.
    Shared {
        /// Below 2^31.
        index: u32,
    },
}

/// One part of a pool.
pub struct Partition {
    pub cells: Cells,
    pub fences: Fences,
    pub config: PoolConfig,
    pub counters: Counters,
    index: Index,
    policy: Box<dyn Policy>,
    seed: u64,
    /// The latest time that anybody brought.
    clock_ms: u64,
}

/// What happened in one part of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
    pub expired: u64,
    /// Entries with shared state.
    pub shared: u64,
}

/// How old an entry is and how long it lives.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    /// Since its load began, in milliseconds.
    pub age_ms: u64,
    /// How long it is fresh, in milliseconds from the start of its load.
    pub fresh_ms: u64,
}

/// How long a fence is remembered: longer than any load from the store lasts.
pub const FENCE_MS: u64 = 60_000;
/// Ages are told apart up to here, which is 24 days: entries live no longer, whatever their pool says.
pub const AGE_MS_MAX: u64 = (1 << 31) - 1;
/// Idleness is measured in so many parts of the pool's `idle_after_ms`.
const TICKS: u64 = 2048;
const ABSENT: u32 = u32::MAX;
const UNSHARED: u32 = 1 << 31;

impl Frame {
    fn to_bits(self) -> u32 {
        match self {
            Self::Absent => ABSENT,
            Self::Unshared { shape } => UNSHARED | u32::from(shape),
            Self::Shared { index } => index,
        }
    }

    fn of_bits(bits: u32) -> Self {
        match bits {
            ABSENT => Self::Absent,
            unshared if unshared & UNSHARED != 0 => Self::Unshared { shape: unshared as u16 },
            index => Self::Shared { index },
        }
    }
}

impl Partition {
    /// An empty part that keeps at most so many fences.
    pub fn new(kind: Kind, seed: u64, config: PoolConfig, fences_max: usize) -> Self {
        Self {
            cells: Cells::new(),
            fences: Fences::new(fences_max),
            config,
            counters: Counters::default(),
            index: Index::new(),
            policy: policy::of(kind),
            seed,
            clock_ms: 0,
        }
    }

    /// Bytes of everything in it.
    pub fn bytes(&self) -> usize {
        self.bytes_beside_cells() + self.cells.bytes()
    }

    /// What [`Self::bytes`] must be, counted anew.
    pub fn count_bytes(&self) -> usize {
        self.bytes_beside_cells() + self.cells.count_bytes()
    }

    /// Bytes that it will take once entries are evicted.
    pub fn reserved(&self) -> usize {
        self.policy.reserved()
    }

    fn bytes_beside_cells(&self) -> usize {
        size_of::<Self>() + self.index.bytes() + self.policy.bytes() + self.fences.bytes()
    }

    /// The time, which does not go back whatever the caller's is.
    pub fn tick(&mut self, now_ms: u64) -> u64 {
        self.clock_ms = self.clock_ms.max(now_ms);
        self.clock_ms
    }

    /// The cell of a key.
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        self.index.find(&self.cells, hash, key)
    }

    /// What the data of a cell is.
    pub fn frame(&self, slot: Slot) -> Frame {
        Frame::of_bits(self.cells.frame(slot))
    }

    /// The hash of a key.
    pub fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    /// The hash of a cell's key.
    pub fn hash_of(&self, slot: Slot) -> u64 {
        self.hash(self.cells.key(slot))
    }

    /// How old a cell's entry is and how long it lives. The jitter is the same at each look.
    pub fn age(&self, slot: Slot, now_ms: u64) -> Age {
        let loaded = self.cells.loaded(slot);
        let age_ms = (now_ms as u32).wrapping_sub(loaded);
        // Loaded after this now: by another thread, in between.
        let age_ms = if age_ms > u32::MAX / 2 + 1 { 0 } else { u64::from(age_ms) };
        let life = &self.config.lifetime;
        let ttl_ms = if self.frame(slot) == Frame::Absent { life.negative_ttl_ms } else { life.ttl_ms };
        let ttl_ms = ttl_ms.min(AGE_MS_MAX / 2);
        let mut random = Xxh3Builder::new().with_seed(self.seed ^ 1).build_hasher();
        let jitter = if life.jitter_percent == 0 {
            0
        } else {
            random.write(self.cells.key(slot));
            random.write_u32(loaded);
            u64::from(life.jitter_percent.min(100)) * (random.finish() >> 54)
        };
        Age { age_ms, fresh_ms: ttl_ms - ttl_ms * jitter / (100 << 10) }
    }

    /// How long after its freshness an entry is still given out.
    pub fn stale_ms(&self) -> u64 {
        self.config.lifetime.stale_ms.min(AGE_MS_MAX / 2)
    }

    /// A cell was read.
    pub fn read(&mut self, slot: Slot, now_ms: u64) {
        let used = self.ticks(now_ms);
        if self.cells.used(slot) != used {
            self.cells.set_used(slot, used);
        }
        self.policy.read(&mut self.cells, slot);
    }

    /// How long ago a cell was read, in milliseconds, to one of `TICKS` parts of the pool's `idle_after_ms`.
    pub fn idle_ms(&self, slot: Slot, now_ms: u64) -> u64 {
        u64::from(self.ticks(now_ms).wrapping_sub(self.cells.used(slot))) * self.tick_ms()
    }

    /// Changes the settings. Where that changes the measure of idleness, it starts anew for all.
    pub fn configure(&mut self, config: PoolConfig, now_ms: u64) {
        let before = self.tick_ms();
        self.config = config;
        if self.tick_ms() != before {
            let used = self.ticks(now_ms);
            let mut slots = Vec::with_capacity(self.cells.len());
            self.index.walk(u32::MAX, u32::MAX, |slot| slots.push(slot));
            slots.into_iter().for_each(|slot| self.cells.set_used(slot, used));
        }
    }

    /// Puts in an entry whose key is not there. False where it is too large.
    pub fn add(
        &mut self,
        hash: u64,
        key: &[u8],
        frame: Frame,
        data: &[u8],
        loaded_ms: u64,
        now_ms: u64,
    ) -> bool {
        let Some(slot) = self.cells.add(HEADER + key.len() + data.len()) else { return false };
        self.cells.write(slot, key, data);
        self.cells.set_frame(slot, frame.to_bits());
        self.cells.set_loaded(slot, loaded_ms as u32);
        let used = self.ticks(now_ms);
        self.cells.set_used(slot, used);
        self.policy.added(&mut self.cells, slot, hash);
        let seed = self.seed;
        self.index.add(&self.cells, hash, slot, |key| xxh3_64_with_seed(key, seed));
        self.counters.shared += u64::from(matches!(frame, Frame::Shared { .. }));
        true
    }

    /// Puts other data in a cell, whose place in the policy's order stays. Gives the frame before; none where
    /// the data is too large, and nothing changed.
    pub fn replace(
        &mut self,
        hash: u64,
        slot: Slot,
        key: &[u8],
        frame: Frame,
        data: &[u8],
        loaded_ms: u64,
    ) -> Option<Frame> {
        let before = self.frame(slot);
        let size = HEADER + key.len() + data.len();
        let mut to = slot;
        if !self.cells.fits(slot, size) {
            to = self.cells.add(size)?;
            self.cells.copy_header(slot, to);
        }
        self.cells.write(to, key, data);
        self.cells.set_frame(to, frame.to_bits());
        self.cells.set_loaded(to, loaded_ms as u32);
        if to != slot {
            self.index.moved(hash, slot, to);
            self.policy.moved(&mut self.cells, slot, to);
            self.free(slot);
        }
        self.counters.shared += u64::from(matches!(frame, Frame::Shared { .. }));
        self.counters.shared -= u64::from(matches!(before, Frame::Shared { .. }));
        Some(before)
    }

    /// Takes an entry out. Gives its frame.
    pub fn remove(&mut self, hash: u64, slot: Slot) -> Frame {
        let frame = self.frame(slot);
        self.policy.removing(&mut self.cells, slot);
        let seed = self.seed;
        self.index.remove(&self.cells, hash, slot, |key| xxh3_64_with_seed(key, seed));
        self.free(slot);
        self.counters.shared -= u64::from(matches!(frame, Frame::Shared { .. }));
        frame
    }

    /// Takes out what the policy chooses. Gives its frame.
    pub fn evict(
        &mut self,
        version_of: impl Fn(Frame, &[u8]) -> Option<Version>,
        now_ms: u64,
    ) -> Option<Frame> {
        let now_ms = self.tick(now_ms);
        let slot = self.policy.victim(&mut self.cells)?;
        let hash = self.hash_of(slot);
        self.policy.evicting(&self.cells, slot, hash);
        self.counters.evictions += 1;
        Some(self.forget(hash, slot, version_of, now_ms))
    }

    /// Takes out an entry and sees to it that nothing older comes back in its place.
    pub fn forget(
        &mut self,
        hash: u64,
        slot: Slot,
        version_of: impl Fn(Frame, &[u8]) -> Option<Version>,
        now_ms: u64,
    ) -> Frame {
        let (age, frame) = (self.age(slot, now_ms), self.frame(slot));
        // Whatever was loaded before this entry has come by then: the entry itself took at most one FENCE_MS
        // to load, and so did the other.
        if age.age_ms <= 2 * FENCE_MS {
            let version = version_of(frame, self.cells.data(slot)).unwrap_or_default();
            if frame == Frame::Absent && version > Version(0) {
                self.fences.fence(hash, version, now_ms, FENCE_MS);
            } else {
                self.fences.raise(hash, now_ms);
            }
        }
        self.remove(hash, slot)
    }

    /// The cells of all keys, line by line: see [`Index::walk`].
    pub fn walk(&self, below: u32, lines: u32, visit: impl FnMut(Slot)) -> Option<u32> {
        self.index.walk(below, lines, visit)
    }

    /// So many cells, those that stay longest first.
    pub fn recent(&self, limit: usize) -> Vec<Slot> {
        let queue = |queue: super::list::List| {
            std::iter::successors(queue.newest(), |slot| self.cells.older(*slot).some())
        };
        self.policy.queues().into_iter().flat_map(queue).take(limit).collect()
    }

    fn free(&mut self, slot: Slot) {
        if let Some(from) = self.cells.free(slot) {
            let hash = self.hash_of(slot);
            self.index.moved(hash, from, slot);
            self.policy.moved(&mut self.cells, from, slot);
        }
    }

    fn tick_ms(&self) -> u64 {
        (self.config.idle_after_ms / TICKS).max(1)
    }

    fn ticks(&self, now_ms: u64) -> u16 {
        (now_ms / self.tick_ms()) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        for frame in [
            Frame::Absent,
            Frame::Unshared { shape: 63 },
            Frame::Shared { index: 0 },
            Frame::Shared { index: UNSHARED - 1 },
        ] {
            assert_eq!(Frame::of_bits(frame.to_bits()), frame);
        }
    }
}
