//! Shared states, each stored once: content to handle, with a count of its holders.
//!
//! A handle is an index and a generation. The index alone names a fragment as long as somebody holds it; who
//! does not hold it asks with the generation, so that a freed place that was used again is never mistaken for
//! what was there before.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hashbrown::HashTable;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Shared fragments, divided by their content into parts with a lock each.
pub struct Interner<L = Mutex<Shard>> {
    shards: Box<[L]>,
    seed: u64,
    bytes: AtomicU64,
    bytes_max: AtomicU64,
}

/// Names one fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Where it is. Below 2^31.
    pub index: u32,
    /// The how-manieth fragment it is at that place.
    pub generation: u32,
}

/// A fragment that was interned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interned {
    /// Its name; the caller holds it once more and releases it once.
    pub handle: Handle,
    /// Whether it was not there before.
    pub fresh: bool,
}

/// What a release left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The length of the fragment.
    pub len: usize,
    /// Whether nobody holds it any more, so that it is gone.
    pub freed: bool,
}

/// A lock around a part. A trait so that the tests can have a scheduler choose who comes next.
pub trait Lock: Send + Sync {
    /// An unlocked part.
    fn new(shard: Shard) -> Self;
    /// Does something while nobody else does.
    fn with<R>(&self, act: impl FnOnce(&mut Shard) -> R) -> R;
}

/// One part of the interner.
#[derive(Default)]
pub struct Shard {
    places: Vec<Place>,
    free: Option<u32>,
    by_content: HashTable<u32>,
}

struct Place {
    fragment: Bytes,
    hash: [u64; 2],
    owner: u32,
    holders: u32,
    generation: u32,
    next_free: Option<u32>,
}

/// What a fragment takes beside its bytes and its place: the header of the allocation and its counter.
const FRAGMENT_OVERHEAD: usize = 56;
const SHARD_BITS: u32 = 6;
const PLACES_MAX: usize = 1 << (31 - SHARD_BITS);

impl<L: Lock> Interner<L> {
    /// An empty interner that takes at most so many bytes.
    pub fn new(seed: u64, bytes_max: u64) -> Self {
        let shards: Box<[L]> = (0..1 << SHARD_BITS).map(|_| L::new(Shard::default())).collect();
        let bytes = (shards.len() * size_of::<L>()) as u64;
        Self { shards, seed, bytes: AtomicU64::new(bytes), bytes_max: AtomicU64::new(bytes_max) }
    }

    /// Holds a fragment of an owner once more, storing it where it is new. None where it is new and there is
    /// no room: the caller keeps the state with its record.
    pub fn intern(&self, owner: u32, fragment: &[u8]) -> Option<Interned> {
        let hash =
            xxh3_128_with_seed(fragment, self.seed ^ u64::from(owner).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let hash = [hash as u64, (hash >> 64) as u64];
        let part = (hash[1] & ((1 << SHARD_BITS) - 1)) as u32;
        let full = self.bytes() >= self.bytes_max.load(Ordering::Relaxed);
        self.shards[part as usize].with(|shard| {
            let before = shard.bytes();
            let interned = shard.intern(owner, hash, fragment, full)?;
            self.account(before, shard.bytes(), interned.fresh.then_some(fragment.len()), None);
            let index = interned.handle.index << SHARD_BITS | part;
            Some(Interned { handle: Handle { index, ..interned.handle }, ..interned })
        })
    }

    /// The owner and the fragment at an index that the caller holds.
    pub fn held(&self, index: u32) -> Option<(u32, Bytes)> {
        self.at(index, |place| (place.owner, place.fragment.clone()))
    }

    /// The owner of the fragment at an index that the caller holds.
    pub fn owner(&self, index: u32) -> Option<u32> {
        self.at(index, |place| place.owner)
    }

    /// The fragment of a handle, unless it is gone.
    pub fn lookup(&self, handle: Handle) -> Option<Bytes> {
        self.at(handle.index, |place| (place.generation == handle.generation).then(|| place.fragment.clone()))
            .flatten()
    }

    /// Gives up one hold on the fragment at an index.
    pub fn release(&self, index: u32) -> Option<Released> {
        self.shards[(index & ((1 << SHARD_BITS) - 1)) as usize].with(|shard| {
            let before = shard.bytes();
            let released = shard.release(index >> SHARD_BITS)?;
            self.account(before, shard.bytes(), None, released.freed.then_some(released.len));
            Some(released)
        })
    }

    /// What one fragment of this length takes.
    pub fn cost(&self, len: usize) -> u64 {
        (len + FRAGMENT_OVERHEAD + size_of::<Place>() + size_of::<u32>()) as u64
    }

    /// Bytes of everything that is held here.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Changes the bound of bytes. What is there stays as long as it is held.
    pub fn resize(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// The bytes of everything, counted anew: what [`Self::bytes`] must be.
    pub fn count_bytes(&self) -> u64 {
        let count = |shard: &mut Shard| {
            let fragments = shard.places.iter().filter(|place| place.holders > 0);
            shard.bytes() + fragments.map(|place| place.fragment.len() + FRAGMENT_OVERHEAD).sum::<usize>()
        };
        let shards = self.shards.iter().map(|shard| shard.with(count)).sum::<usize>();
        (shards + self.shards.len() * size_of::<L>()) as u64
    }

    fn at<R>(&self, index: u32, read: impl FnOnce(&Place) -> R) -> Option<R> {
        self.shards[(index & ((1 << SHARD_BITS) - 1)) as usize].with(|shard| {
            shard.places.get((index >> SHARD_BITS) as usize).filter(|place| place.holders > 0).map(read)
        })
    }

    fn account(&self, before: usize, after: usize, came: Option<usize>, left: Option<usize>) {
        let overhead = |len: Option<usize>| len.map_or(0, |len| (len + FRAGMENT_OVERHEAD) as u64);
        self.bytes.fetch_add(after as u64 + overhead(came), Ordering::Relaxed);
        self.bytes.fetch_sub(before as u64 + overhead(left), Ordering::Relaxed);
    }
}

impl Shard {
    fn intern(&mut self, owner: u32, hash: [u64; 2], fragment: &[u8], full: bool) -> Option<Interned> {
        let places = &mut self.places;
        let same = |index: &u32| {
            let place = &places[*index as usize];
            place.hash == hash && place.owner == owner && place.fragment == fragment
        };
        if let Some(index) = self.by_content.find(hash[0], same).copied() {
            let place = &mut places[index as usize];
            place.holders = place.holders.checked_add(1)?;
            return Some(Interned { handle: Handle { index, generation: place.generation }, fresh: false });
        }
        if full || places.len() == PLACES_MAX && self.free.is_none() {
            return None;
        }
        let fragment = Bytes::copy_from_slice(fragment);
        let (index, generation) = match self.free {
            Some(index) => {
                let place = &mut places[index as usize];
                self.free = place.next_free;
                *place = Place {
                    fragment,
                    hash,
                    owner,
                    holders: 1,
                    generation: place.generation,
                    next_free: None,
                };
                (index, place.generation)
            }
            None => {
                places.push(Place { fragment, hash, owner, holders: 1, generation: 0, next_free: None });
                (places.len() as u32 - 1, 0)
            }
        };
        self.by_content.insert_unique(hash[0], index, |index| places[*index as usize].hash[0]);
        Some(Interned { handle: Handle { index, generation }, fresh: true })
    }

    fn release(&mut self, index: u32) -> Option<Released> {
        let place = self.places.get_mut(index as usize).filter(|place| place.holders > 0)?;
        let len = place.fragment.len();
        place.holders -= 1;
        if place.holders > 0 {
            return Some(Released { len, freed: false });
        }
        place.fragment = Bytes::new();
        place.generation = place.generation.wrapping_add(1);
        place.next_free = self.free.replace(index);
        if let Ok(entry) = self.by_content.find_entry(place.hash[0], |other| *other == index) {
            entry.remove();
        }
        Some(Released { len, freed: true })
    }

    fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place>() + self.by_content.allocation_size()
    }
}

impl Lock for Mutex<Shard> {
    fn new(shard: Shard) -> Self {
        Self::new(shard)
    }

    fn with<R>(&self, act: impl FnOnce(&mut Shard) -> R) -> R {
        act(&mut self.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    impl Lock for shuttle::sync::Mutex<Shard> {
        fn new(shard: Shard) -> Self {
            Self::new(shard)
        }

        fn with<R>(&self, act: impl FnOnce(&mut Shard) -> R) -> R {
            act(&mut self.lock().unwrap())
        }
    }

    type Scheduled = Interner<shuttle::sync::Mutex<Shard>>;

    #[test]
    fn equal_fragments_of_one_owner_are_stored_once() {
        let interner = Interner::<Mutex<Shard>>::new(1, u64::MAX);
        let first = interner.intern(7, b"state").unwrap();
        let again = interner.intern(7, b"state").unwrap();
        let other = interner.intern(8, b"state").unwrap();
        assert!(first.fresh && !again.fresh && other.fresh);
        assert_eq!(first.handle, again.handle);
        assert_ne!(first.handle, other.handle);
        assert_eq!(interner.held(first.handle.index), Some((7, Bytes::from_static(b"state"))));
        assert_eq!(interner.release(first.handle.index), Some(Released { len: 5, freed: false }));
        assert_eq!(interner.release(first.handle.index), Some(Released { len: 5, freed: true }));
        assert_eq!(interner.release(first.handle.index), None);
        assert_eq!(interner.lookup(first.handle), None);
        assert_eq!(interner.lookup(other.handle), Some(Bytes::from_static(b"state")));
    }

    #[test]
    fn a_place_that_is_used_again_is_another() {
        let interner = Interner::<Mutex<Shard>>::new(1, u64::MAX);
        let old = interner.intern(0, b"a").unwrap().handle;
        interner.release(old.index);
        // Fragments go to parts by content: try until one lands on the same place.
        let new = (0..)
            .map(|n: u32| interner.intern(0, &n.to_le_bytes()).unwrap().handle)
            .find(|new| new.index == old.index);
        assert_ne!(new.unwrap().generation, old.generation);
        assert_eq!(interner.lookup(old), None);
    }

    #[test]
    fn the_bound_of_bytes_holds_and_bytes_are_counted() {
        let interner = Interner::<Mutex<Shard>>::new(1, 100_000);
        let held: Vec<_> =
            (0..10_000u32).map_while(|n| interner.intern(0, &n.to_le_bytes().repeat(10))).collect();
        assert!(held.len() > 100 && held.len() < 2_500, "{}", held.len());
        assert!(interner.bytes() < 110_000, "{}", interner.bytes());
        assert_eq!(interner.bytes(), interner.count_bytes());
        assert!(
            !interner.intern(0, &0u32.to_le_bytes().repeat(10)).unwrap().fresh,
            "what is there can be held when full"
        );
        for one in &held {
            interner.release(one.handle.index);
        }
        assert_eq!(interner.bytes(), interner.count_bytes());
    }

    /// Who holds a fragment finds it and nothing else at its place, whatever others intern and release
    /// meanwhile.
    #[test]
    fn under_every_order_of_locks() {
        let scenario = || {
            let interner = Arc::new(Scheduled::new(1, u64::MAX));
            let act = |thread: u8| {
                let interner = interner.clone();
                shuttle::thread::spawn(move || {
                    for round in 0..3 {
                        let content = [(thread + round) % 2];
                        let handle = interner.intern(0, &content).unwrap().handle;
                        assert_eq!(interner.held(handle.index).unwrap().1, content.as_slice());
                        assert_eq!(interner.lookup(handle).unwrap(), content.as_slice());
                        interner.release(handle.index).unwrap();
                        if let Some(found) = interner.lookup(handle) {
                            assert_eq!(found, content.as_slice(), "a freed handle found another fragment");
                        }
                    }
                })
            };
            let threads: Vec<_> = (0..3).map(act).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            for content in [[0], [1]] {
                let left = interner.intern(0, &content).unwrap();
                assert!(left.fresh, "a hold was lost or kept");
            }
        };
        shuttle::check_random(scenario, 500);
        shuttle::check_pct(scenario, 500, 3);
    }
}
