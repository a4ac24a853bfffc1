//! What must not come back: versions of keys that are not cached, and when keys were forgotten.
//!
//! A fence says that a key has at least a version. Fences are kept by the hash of their key (two keys with
//! one hash fence each other, which is safe), for a time longer than any load lasts, and only so many. Where
//! one has to go early, or an entry was dropped, a floor remembers when: a load that began before the floor
//! of its key may bring what is older, and is refused. Floors are shared by keys, are never given up, and
//! cost a needless load at worst.

use std::collections::VecDeque;

use hashbrown::HashMap;

use model::key::Version;

/// The fences and floors of one part of a pool.
pub struct Fences {
    by_key: HashMap<u64, Fence>,
    /// Keys by when they were fenced, the oldest first; a key that was fenced again is in it again.
    queue: VecDeque<(u64, u64)>,
    /// None until the first is raised: a part that nothing has left yet needs no room for them.
    floors: Box<[u64]>,
    max: usize,
}

struct Fence {
    version: Version,
    at_ms: u64,
}

impl Fences {
    /// No fences, and at most so many later; and as many floors.
    pub fn new(max: usize) -> Self {
        Self { by_key: HashMap::new(), queue: VecDeque::new(), floors: Box::default(), max }
    }

    /// Bytes that are allocated.
    pub fn bytes(&self) -> usize {
        self.by_key.allocation_size() + self.queue.capacity() * 16 + self.floors.len() * 8
    }

    /// Remembers a version for as long as `keep_ms`.
    pub fn fence(&mut self, hash: u64, version: Version, now_ms: u64, keep_ms: u64) {
        while let Some(&(oldest, at_ms)) = self.queue.front()
            && (self.queue.len() >= self.max || at_ms.saturating_add(keep_ms) < now_ms)
        {
            self.queue.pop_front();
            if self.by_key.get(&oldest).is_some_and(|fence| fence.at_ms == at_ms) {
                self.by_key.remove(&oldest);
                self.raise(oldest, at_ms);
            }
        }
        let fence = self.by_key.entry(hash).or_insert(Fence { version, at_ms: now_ms });
        fence.version = fence.version.max(version);
        fence.at_ms = now_ms;
        self.queue.push_back((hash, now_ms));
    }

    /// The version that a key has at least, for a load that began then. A load that began before the fence
    /// was made is held to it however late it comes.
    pub fn version(&self, hash: u64, began_ms: u64, now_ms: u64, keep_ms: u64) -> Option<Version> {
        let fence = self.by_key.get(&hash)?;
        (now_ms <= fence.at_ms.saturating_add(keep_ms) || began_ms <= fence.at_ms).then_some(fence.version)
    }

    /// From now on refuses loads of a key that began up to a time.
    pub fn raise(&mut self, hash: u64, at_ms: u64) {
        let at = self.floor_of(hash);
        let floor = &mut self.made_floors()[at];
        *floor = at_ms.max(*floor);
    }

    /// From now on refuses loads of any key that began up to a time.
    pub fn raise_all(&mut self, at_ms: u64) {
        self.made_floors().iter_mut().for_each(|floor| *floor = at_ms.max(*floor));
    }

    /// Whether a load of a key that began then may bring something that is older than what was seen.
    pub fn overtook(&self, hash: u64, began_ms: u64) -> bool {
        self.floors.get(self.floor_of(hash)).is_some_and(|floor| began_ms <= *floor)
    }

    fn made_floors(&mut self) -> &mut [u64] {
        if self.floors.is_empty() {
            self.floors = vec![0; self.max].into();
        }
        &mut self.floors
    }

    fn floor_of(&self, hash: u64) -> usize {
        (hash >> 48) as usize % self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_kept_its_time_and_then_leaves_a_floor() {
        let mut fences = Fences::new(1_024);
        fences.fence(1, Version(5), 1_000, 60_000);
        fences.fence(1, Version(3), 2_000, 60_000);
        assert_eq!(fences.version(1, 3_000, 3_000, 60_000), Some(Version(5)));
        fences.fence(2, Version(1), 61_500, 60_000);
        assert_eq!(
            fences.version(1, 61_500, 61_500, 60_000),
            Some(Version(5)),
            "the second fence renewed it"
        );
        assert_eq!(fences.version(1, 61_500, 62_001, 60_000), None);
        assert_eq!(fences.version(1, 1_999, 62_001, 60_000), Some(Version(5)), "the load was slow");
        fences.fence(2, Version(1), 62_001, 60_000);
        assert_eq!(fences.version(1, 1_999, 62_001, 60_000), None);
        assert!(fences.overtook(1, 2_000) && !fences.overtook(1, 2_001));
    }

    #[test]
    fn when_there_are_too_many_the_oldest_become_floors() {
        let mut fences = Fences::new(1_024);
        for n in 0..10_240 {
            fences.fence(n << 40 | n, Version(9), 1_000 + n, 60_000);
        }
        for n in 0..10_240 {
            let hash = n << 40 | n;
            assert!(
                fences.version(hash, 0, 20_000, 60_000) == Some(Version(9))
                    || fences.overtook(hash, 1_000 + n),
                "{n}"
            );
        }
        assert!(fences.bytes() < 160_000, "{}", fences.bytes());
    }
}
