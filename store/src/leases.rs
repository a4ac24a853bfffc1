//! Which shards of an outbox this process knows to hold, so that not every claim has to write.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// How many owners can relay at once.
const SHARDS: u64 = 16;

/// The shard of a record's events.
pub fn shard_of(table: &str, key: &str) -> i64 {
    (xxh3_64(format!("{table}/{key}").as_bytes()) % SHARDS) as i64
}

/// The leases that are known: owner, shard, until when at least. Times are taken before the store is asked,
/// so the store's lease ends no sooner.
#[derive(Default)]
pub struct Leases(Mutex<HashMap<(String, i64), Instant>>);

impl Leases {
    /// Those of the shards whose lease is not held for at least another half of its time.
    pub fn unsure(&self, owner: &str, lease: Duration, shards: &[i64]) -> Vec<i64> {
        let held = self.held(owner, shards, Instant::now() + lease / 2);
        shards.iter().copied().filter(|shard| !held.contains(shard)).collect()
    }

    /// Those of the shards whose lease is held until then.
    pub fn held(&self, owner: &str, shards: &[i64], until: Instant) -> Vec<i64> {
        let known = self.0.lock();
        let held = |shard: &i64| known.get(&(owner.to_owned(), *shard)).is_some_and(|end| *end > until);
        shards.iter().copied().filter(held).collect()
    }

    /// Until when all of these shards are surely held; none where one is not.
    pub fn end(&self, owner: &str, shards: &[i64]) -> Option<Instant> {
        let known = self.0.lock();
        let ends: Option<Vec<Instant>> =
            shards.iter().map(|shard| known.get(&(owner.to_owned(), *shard)).copied()).collect();
        ends?.into_iter().min()
    }

    /// Notes that of the shards asked for the owner got these.
    pub fn note(&self, owner: &str, asked: &[i64], got: Vec<i64>, until: Instant) {
        let mut known = self.0.lock();
        known.retain(|(_, shard), _| !asked.contains(shard));
        known.extend(got.into_iter().map(|shard| ((owner.to_owned(), shard), until)));
    }

    /// Forgets all of the owner's.
    pub fn forget(&self, owner: &str) {
        self.0.lock().retain(|(held_by, _), _| held_by != owner);
    }
}
