//! The tiers of one pool as a read meets them: the ones in memory, then the shared ones, each with its rules
//! and counters.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::{
    frame::Framer,
    horizon::{Horizon, version_of},
    invalidation::{Acknowledgements, InvalidationQueue},
    rules::{Rules, Worth},
    stats::TierCounters,
};
use crate::{
    Cached,
    clock::Clock,
    flight::Flights,
    memory::{Hit, Load, MemoryTier, PoolId, PutOutcome},
    shared::{Held, Order, SharedCache},
};
use model::{
    key::{Key, Version},
    record::Lookup,
};

/// A tier in memory.
pub struct MemoryLayer {
    pub name: Arc<str>,
    pub rules: ArcSwap<Rules>,
    pub counters: TierCounters,
    pub tier: Arc<MemoryTier>,
    pub pool: PoolId,
}

/// A shared tier.
pub struct SharedLayer {
    pub name: Arc<str>,
    pub rules: ArcSwap<Rules>,
    pub counters: Arc<TierCounters>,
    pub cache: Arc<dyn SharedCache>,
    pub invalidations: InvalidationQueue,
    pub framer: Arc<Framer>,
    /// What every key of the pool starts with.
    pub prefix: String,
}

/// An entry of a shared tier that may be served.
pub struct SharedHit {
    pub found: Lookup,
    pub worth: Worth,
    pub age_ms: u64,
    /// How long it is fresh, from now.
    pub fresh_ms: u64,
}

/// How long a version is kept at least in a shared tier, and how long a floor outlives the tier's taking it:
/// longer than any load.
pub const KEEP_MIN_MS: u64 = 10_000;

impl MemoryLayer {
    /// What the tier holds for a key, and what it is good for. Entries from before `trusted_ms` are only good
    /// for errors.
    pub fn look(&self, key: &Key, now_ms: u64, trusted_ms: u64) -> Option<(Hit, Worth)> {
        let hit = self.tier.get(self.pool, key, now_ms)?;
        let worth = self.worth(&hit, now_ms, trusted_ms);
        Some((hit, worth))
    }

    /// What an entry is good for.
    pub fn worth(&self, hit: &Hit, now_ms: u64, trusted_ms: u64) -> Worth {
        if hit.expires_in_ms > 0 && now_ms.saturating_sub(hit.age_ms) > trusted_ms {
            return Worth::Fresh;
        }
        let (rules, present) = (self.rules.load(), matches!(hit.cached, Cached::Present(_)));
        let mut worth = rules.worth(present, Some(hit.expires_in_ms.min(0).unsigned_abs()));
        if worth == Worth::Revalidate && now_ms.saturating_sub(hit.age_ms) <= trusted_ms {
            worth = if rules.if_error_ms > 0 { Worth::IfError } else { Worth::Nothing };
        }
        worth
    }

    /// Puts in what the store or another tier has, fresh for `most_fresh_ms` at most. Whatever becomes of it,
    /// an older entry goes.
    pub fn fill(
        &self,
        key: &Key,
        found: &Lookup,
        began_ms: u64,
        most_fresh_ms: u64,
        now_ms: u64,
    ) -> PutOutcome {
        let full_ms = self.rules.load().full_ms(matches!(found, Lookup::Found(_)));
        // an entry that is to live shorter than others here counts as that much older
        let load = Load { began_ms, age_ms: full_ms.saturating_sub(most_fresh_ms) };
        let outcome = self.tier.put(self.pool, key, found, load, now_ms);
        if outcome == PutOutcome::Refused {
            self.fence(key, version_of(found), now_ms);
        }
        outcome
    }

    /// Drops an older version and keeps it out.
    pub fn fence(&self, key: &Key, version: Version, now_ms: u64) {
        self.tier.fence(self.pool, key, version, now_ms);
    }
}

impl SharedLayer {
    /// The key of a record in the shared cache.
    pub fn shared_key(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// What an answer of the cache is worth. Entries loaded before `trusted_ms` are worth nothing.
    pub fn read(&self, key: &Key, held: &Held, now_ms: u64, trusted_ms: u64) -> Option<SharedHit> {
        if held.loaded_at_ms <= trusted_ms {
            return None;
        }
        let (found, span) = self.framer.decode(key, held)?;
        // another replica may know the tier's clock a little better
        let age_ms = now_ms.saturating_sub(held.loaded_at_ms);
        let worth = self.rules.load().worth_at(matches!(found, Lookup::Found(_)), age_ms, span);
        Some(SharedHit { found, worth, age_ms, fresh_ms: span.fresh_ms.saturating_sub(age_ms) })
    }

    /// The order to take an entry; none where the rules keep no such entry.
    pub fn put(&self, key: &Key, found: &Lookup, loaded_at_ms: u64) -> Option<Order> {
        let span = self.rules.load().span(matches!(found, Lookup::Found(_)));
        if span.total_ms() == 0 {
            return None;
        }
        Some(Order {
            key: self.shared_key(key),
            version: version_of(found),
            loaded_at_ms,
            value: Some(self.framer.encode(found, span)?.into()),
            keep_ms: span.total_ms().max(KEEP_MIN_MS),
        })
    }

    /// The order to keep older versions out.
    pub fn fence(&self, key: &Key, version: Version, now_ms: u64) -> Order {
        Order {
            key: self.shared_key(key),
            version,
            loaded_at_ms: now_ms,
            value: None,
            keep_ms: self.keep_ms(),
        }
    }

    /// The longest time that an entry stays in the cache.
    pub fn keep_ms(&self) -> u64 {
        let life = self.rules.load().life;
        life.ttl_ms.max(life.negative_ttl_ms).saturating_add(life.stale_ms).max(KEEP_MIN_MS)
    }
}

/// Settles the floors of a pool as its shared tier takes the versions.
pub struct Floors<T> {
    pub flights: Weak<Flights<T>>,
    pub clock: Clock,
    pub horizon: Arc<Horizon>,
}

impl<T: Send + Sync> Acknowledgements for Floors<T> {
    fn acknowledged(&self, key: &Key, version: Version) {
        if let Some(flights) = self.flights.upgrade() {
            flights.settle(key, version, self.clock.now_ms().saturating_add(KEEP_MIN_MS));
        }
    }

    fn overflowed(&self) {
        self.horizon.distrust_shared(self.clock.now_ms());
    }
}
