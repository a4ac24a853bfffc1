//! What a pool's tiers hold, seen from outside of reads: filling ahead of them, dropping what is idle,
//! figures, and what would be served.

use std::sync::Arc;

use bytes::Bytes;

use super::{Tiered, horizon::version_of, layers::MemoryLayer, rules::Worth};
use crate::{
    Cached,
    flyweight::roles::Explanation,
    memory::{Forecast, PoolStats, PutOutcome},
    shared::Order,
};
use model::{
    key::{Key, Version},
    record::{Lookup, Record},
};

/// What one tier would serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldServe {
    /// The tier.
    pub tier: Arc<str>,
    /// What it holds.
    pub cached: Cached,
    /// How long ago the store was asked for it, in ms.
    pub age_ms: u64,
}

/// The most keys that a replica tells others that it holds, and for how long they are kept, in ms.
const HOT_MAX: usize = 10_000;
const HOT_KEEP_MS: u64 = 15 * 60_000;

impl Tiered {
    /// Offers records that the store listed when it was asked at a time (ms): each fills the tiers in memory
    /// where nothing newer is known of it and nobody loads it just now. Says how many were taken.
    pub fn offer(&self, records: &[Record], asked_ms: u64) -> usize {
        let (inner, now_ms) = (&self.shared, self.shared.clock.now_ms());
        if inner.memories.is_empty() || inner.flights.floors_lost_ms() >= asked_ms {
            return 0;
        }
        let taken = records.iter().filter(|record| {
            let fill = |floor: Version| {
                let found = Lookup::Found((*record).clone());
                let fill = |layer: &MemoryLayer| {
                    layer.fill(&record.key, &found, asked_ms, u64::MAX, now_ms) == PutOutcome::Stored
                };
                floor <= record.version && inner.memories.iter().filter(|layer| fill(layer)).count() > 0
            };
            inner.flights.while_idle(&record.key, now_ms, fill).unwrap_or(false)
        });
        taken.count()
    }

    /// The time that its entries are measured by, in ms.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// The pool's name.
    pub fn pool(&self) -> &str {
        &self.shared.pool
    }

    /// The figures of the tiers in memory for this pool, with their names, in order.
    pub fn memory_stats(&self) -> Vec<(Arc<str>, PoolStats)> {
        self.shared.memories.iter().map(|layer| (layer.name.clone(), layer.tier.stats(layer.pool))).collect()
    }

    /// Why the first tier in memory shares each field or not; none where no tier is in memory.
    pub fn explain(&self) -> Option<Explanation> {
        self.shared.memories.first().and_then(|layer| layer.tier.explain(layer.pool))
    }

    /// What each policy would do, as the tiers in memory foresee it, by their names; without those that
    /// cannot say yet.
    pub fn forecasts(&self) -> Vec<(Arc<str>, Forecast)> {
        let forecast = |layer: &MemoryLayer| Some((layer.name.clone(), layer.tier.forecast(layer.pool)?));
        self.shared.memories.iter().filter_map(forecast).collect()
    }

    /// Drops entries in memory that nobody read for a time (the pool's own, where none is given). Says how
    /// many.
    pub fn remove_idle(&self, idle_after_ms: Option<u64>) -> u64 {
        let now_ms = self.shared.clock.now_ms();
        let remove = |layer: &MemoryLayer| layer.tier.remove_idle(layer.pool, idle_after_ms, now_ms);
        self.shared.memories.iter().map(remove).sum()
    }

    /// Keys of some records in memory, those first that the policy would keep longest.
    pub fn recent(&self, limit: usize) -> Vec<Key> {
        self.shared.memories.first().map(|layer| layer.tier.recent(layer.pool, limit)).unwrap_or_default()
    }

    /// What each tier would serve for a key now, without counting as a read; tiers that would serve nothing
    /// are left out.
    pub async fn would_serve(&self, key: &Key) -> Vec<WouldServe> {
        let inner = &self.shared;
        let (now_ms, trusted_ms) = (inner.clock.now_ms(), inner.memory_trusted_ms());
        let in_memory = inner.memories.iter().filter_map(|layer| {
            let hit = layer.tier.inspect(layer.pool, key, now_ms)?;
            let worth = layer.worth(&hit, now_ms, trusted_ms);
            let serves = matches!(worth, Worth::Fresh | Worth::Revalidate);
            serves.then(|| WouldServe { tier: layer.name.clone(), cached: hit.cached, age_ms: hit.age_ms })
        });
        let mut all: Vec<WouldServe> = in_memory.collect();
        for layer in &inner.shareds {
            let Ok(held) = layer.cache.get_many(&[layer.shared_key(key)]).await else { continue };
            let floor = inner.flights.floor(key, inner.clock.now_ms());
            let held = held.into_iter().flatten().find(|held| held.version >= floor);
            let hit = held.and_then(|held| {
                layer.read(key, &held, inner.clock.now_ms(), inner.shared_trusted_ms(layer))
            });
            let Some(hit) = hit.filter(|hit| matches!(hit.worth, Worth::Fresh | Worth::Revalidate)) else {
                continue;
            };
            all.push(WouldServe {
                tier: layer.name.clone(),
                cached: inner.encode(&hit.found),
                age_ms: hit.age_ms,
            });
        }
        all
    }

    /// The record of a store as it would be served.
    pub fn encoded(&self, found: &Lookup) -> Cached {
        self.shared.encode(found)
    }

    /// How old an answer may be at most, by the settings of the tiers, in ms.
    pub fn staleness_bound_ms(&self) -> u64 {
        let bound = |rules: &super::Rules| rules.full_ms(true).saturating_add(rules.while_revalidate_ms);
        let memories = self.shared.memories.iter().map(|layer| bound(&layer.rules.load()));
        let shareds = self.shared.shareds.iter().map(|layer| bound(&layer.rules.load()));
        memories.chain(shareds).max().unwrap_or(0)
    }

    /// Tells other replicas, through the first shared tier, which keys are read most here. Nothing where
    /// there is no such tier.
    pub async fn tell_hot(&self) {
        let Some(layer) = self.shared.shareds.first() else { return };
        let keys: Vec<String> = self.recent(HOT_MAX).iter().map(Key::to_string).collect();
        if keys.is_empty() {
            return;
        }
        let now_ms = self.shared.clock.now_ms();
        let order = Order {
            key: self.hot_key(&layer.prefix),
            // of one version the youngest stays, by the clock of the tier
            version: Version(1),
            loaded_at_ms: now_ms,
            value: Some(Bytes::from(keys.join("\0"))),
            keep_ms: HOT_KEEP_MS,
        };
        // told again soon
        _ = layer.cache.tell(&[order]).await;
    }

    /// The keys that another replica told of; none where nobody did.
    pub async fn hot(&self) -> Vec<Key> {
        let Some(layer) = self.shared.shareds.first() else { return Vec::new() };
        let held = layer.cache.get_many(&[self.hot_key(&layer.prefix)]).await.unwrap_or_default();
        let Some(held) = held.into_iter().flatten().next() else { return Vec::new() };
        String::from_utf8_lossy(&held.value).split('\0').filter_map(|key| key.parse().ok()).collect()
    }

    /// No record's key holds a NUL.
    fn hot_key(&self, prefix: &str) -> String {
        format!("{prefix}\0hot")
    }
}

impl WouldServe {
    /// Whether the store knows something newer, or other than this under the same version.
    pub fn is_behind(&self, store: &Lookup, encoded: &Cached) -> bool {
        match (store, &self.cached, encoded) {
            // what cannot be read says of no answer that it is behind
            (Lookup::Unreadable(_), ..) => false,
            // a record that another program deleted leaves no version
            (Lookup::Missing, cached, _) => matches!(cached, Cached::Present(_)),
            (_, Cached::Present(mine), Cached::Present(theirs)) if mine.version == theirs.version => {
                mine.to_body() != theirs.to_body()
            }
            (store, cached, _) => cached.version() < version_of(store),
        }
    }
}
