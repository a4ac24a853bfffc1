//! The pools as flyweight factories: what they hold and did, dropping what is idle, loading ahead of the
//! reads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crds::pool::WarmUp;
use futures::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;

use super::{
    error::ServiceError,
    records::Records,
    staleness::{Staleness, StalenessAudit},
    warm::Warmer,
    write_behind::{Lag, WriteBehind},
};
use engine::{
    flyweight::roles::Explanation,
    memory::{Forecast, PoolStats},
    shared::SharedStatus,
    tiered::{
        Tiered,
        stats::{TierStats, TieredStats},
    },
};
use model::value::Timestamp;

/// All pools of the process.
pub struct Factory {
    pools: BTreeMap<String, FactoryPool>,
}

/// One pool.
pub struct FactoryPool {
    /// Loads ahead of the reads.
    pub warmer: Warmer,
    /// Compares what the tiers would serve with the store.
    pub audit: StalenessAudit,
    tiered: Arc<Tiered>,
    warmed: Mutex<Warmed>,
    behind: Option<Arc<WriteBehind>>,
}

/// How far the declared warm-up of a pool is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Warmed {
    /// What was declared.
    pub mode: WarmUp,
    /// Records that were loaded so far.
    pub loaded: u64,
    /// Whether it has ended.
    pub done: bool,
}

/// The figures of all pools.
#[derive(Clone, Debug, Serialize)]
pub struct FactoryStats {
    /// The sums over the pools.
    pub total: Totals,
    /// Each pool.
    pub pools: BTreeMap<String, PoolFigures>,
}

/// What memory holds and the tiers did, since the process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Distinct shared states.
    pub flyweights: u64,
    /// Entities that have shared state.
    pub shared: u64,
    /// Entities that have none.
    pub unshared: u64,
    /// Entities, "there is no such record" included.
    pub entities: u64,
    /// Bytes of all that, as resident.
    pub bytes: u64,
    /// Bytes that sharing saves; negative where it costs more than it saves.
    pub bytes_saved: i64,
    /// The part of the reads that a tier answered: 0 to 1, and 0 before the first read.
    pub hit_rate: f64,
    /// Reads that a tier answered.
    pub hits: u64,
    /// Reads that went to the store.
    pub misses: u64,
    /// Entities that left memory to make room.
    pub evictions: u64,
    /// When idle entries were last looked for; none before the first time.
    pub last_cleanup: Option<String>,
}

/// The figures of one pool.
#[derive(Clone, Debug, Serialize)]
pub struct PoolFigures {
    /// What memory holds and the tiers did.
    #[serde(flatten)]
    pub totals: Totals,
    /// Each tier, in the order that reads ask them.
    pub tiers: Vec<TierFigures>,
    /// Which fields are shared, as measured, and why; none where no tier is in memory.
    pub roles: Option<Explanation>,
    /// The part of hits that each policy would have had lately in a memory tier, by the tier's name; without
    /// tiers that never had to evict.
    pub policies: BTreeMap<String, Forecast>,
    /// What the staleness audit has seen.
    pub staleness: Staleness,
    /// How far the declared warm-up is.
    pub warm_up: Warmed,
    /// How far the store is behind the write-behind log; none where writes go to the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_behind: Option<Lag>,
}

/// The figures of one tier of one pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierFigures {
    /// The tier's name.
    pub name: String,
    /// The part of the reads that reached the tier and that it answered: 0 to 1.
    pub hit_rate: f64,
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it could not answer.
    pub misses: u64,
    /// Of the hits, the ones with a stale entry.
    pub stale_served: u64,
    /// Keys of calls that failed.
    pub errors: u64,
    /// Entries, of a tier in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// How a shared tier does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedStatus>,
}

/// What a cleanup did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Entries that it dropped.
    pub removed: u64,
    /// Entities that are left in memory.
    pub remaining: u64,
}

impl Factory {
    /// The factory of some pools, each with its log where it has one.
    pub fn new(pools: impl IntoIterator<Item = (Arc<Records>, Option<Arc<WriteBehind>>)>) -> Self {
        let pool = |(records, behind): (Arc<Records>, Option<Arc<WriteBehind>>)| {
            let (name, tiered) = (records.collection().pool.clone(), records.tiered().clone());
            let audit = StalenessAudit::new(records.clone());
            let warmed = Mutex::new(Warmed { mode: WarmUp::None, loaded: 0, done: true });
            (name, FactoryPool { warmer: Warmer::new(records), audit, tiered, warmed, behind })
        };
        Self { pools: pools.into_iter().map(pool).collect() }
    }

    /// All pools, with their names.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &FactoryPool)> {
        self.pools.iter().map(|(name, pool)| (name.as_str(), pool))
    }

    /// Audits the tiers of all pools until the process ends.
    pub async fn audit(&self, interval: Duration) {
        join_all(self.pools.values().map(|pool| pool.audit.run(interval))).await;
    }

    /// A pool by its name.
    pub fn pool(&self, name: &str) -> Option<&FactoryPool> {
        self.pools.get(name)
    }

    /// The figures of all pools.
    pub fn stats(&self) -> FactoryStats {
        let pools: BTreeMap<_, _> =
            self.pools.iter().map(|(name, pool)| (name.clone(), pool.figures())).collect();
        let mut total = Totals::default();
        pools.values().for_each(|pool| total.add(&pool.totals));
        FactoryStats { total, pools }
    }

    /// What the tiers of each pool did, in detail.
    pub fn cache_stats(&self) -> BTreeMap<&str, TieredStats> {
        self.pools.iter().map(|(name, pool)| (name.as_str(), pool.tiered.stats())).collect()
    }
}

impl FactoryPool {
    /// The figures of the pool.
    pub fn figures(&self) -> PoolFigures {
        let memory = self.tiered.memory_stats();
        let mut totals = Totals::default();
        memory.iter().for_each(|(_, stats)| totals.add_memory(stats));
        let TieredStats { tiers, loads, .. } = self.tiered.stats();
        totals.hits = tiers.iter().map(|tier| tier.hits).sum();
        totals.misses = tiers.last().map_or(loads, |tier| tier.misses);
        totals.hit_rate = rate(totals.hits, totals.misses);
        let tier = |tier: TierStats| {
            let entries =
                memory.iter().find(|(name, _)| **name == *tier.name).map(|(_, stats)| stats.entities);
            let TierStats { name, hits, misses, stale_served, errors, shared, .. } = tier;
            TierFigures {
                name,
                hit_rate: rate(hits, misses),
                hits,
                misses,
                stale_served,
                errors,
                entries,
                shared,
            }
        };
        PoolFigures {
            totals,
            tiers: tiers.into_iter().map(tier).collect(),
            roles: self.tiered.explain(),
            policies: self
                .tiered
                .forecasts()
                .into_iter()
                .map(|(tier, forecast)| (tier.to_string(), forecast))
                .collect(),
            staleness: self.audit.seen(),
            warm_up: self.warmed(),
            write_behind: self.lag(),
        }
    }

    /// How far the store is behind the write-behind log.
    pub fn lag(&self) -> Option<Lag> {
        self.behind.as_ref().map(|behind| behind.lag())
    }

    /// Warms up as was declared, and keeps count of it.
    ///
    /// # Errors
    /// What the store says; then it is to be run again.
    pub async fn warm_up(&self, mode: WarmUp) -> Result<(), ServiceError> {
        *self.warmed.lock() = Warmed { mode, loaded: 0, done: false };
        self.warmer.run(mode, |more| self.warmed.lock().loaded += more).await?;
        self.warmed.lock().done = true;
        Ok(())
    }

    /// How far the declared warm-up is.
    pub fn warmed(&self) -> Warmed {
        *self.warmed.lock()
    }

    /// Tells other replicas which keys are read most here.
    pub async fn tell_hot(&self) {
        self.tiered.tell_hot().await;
    }

    /// Drops entries that nobody read for a time (the pool's own, where none is given).
    pub fn clean_up(&self, idle_after_ms: Option<u64>) -> Cleaned {
        Cleaned { removed: self.tiered.remove_idle(idle_after_ms), remaining: self.entities() }
    }

    /// Entities in memory.
    pub fn entities(&self) -> u64 {
        self.tiered.memory_stats().iter().map(|(_, stats)| stats.entities).sum()
    }
}

impl Totals {
    fn add_memory(&mut self, stats: &PoolStats) {
        self.flyweights += stats.distinct;
        self.shared += stats.shared;
        self.unshared += stats.unshared;
        self.entities += stats.entities;
        self.bytes += stats.bytes;
        self.bytes_saved += stats.bytes_saved;
        self.evictions += stats.evictions;
        let cleaned =
            (stats.last_cleanup_ms > 0).then(|| Timestamp(stats.last_cleanup_ms.cast_signed()).to_string());
        self.last_cleanup = self.last_cleanup.take().max(cleaned);
    }

    fn add(&mut self, other: &Self) {
        self.flyweights += other.flyweights;
        self.shared += other.shared;
        self.unshared += other.unshared;
        self.entities += other.entities;
        self.bytes += other.bytes;
        self.bytes_saved += other.bytes_saved;
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
        self.hit_rate = rate(self.hits, self.misses);
        self.last_cleanup = self.last_cleanup.take().max(other.last_cleanup.clone());
    }
}

/// Hits among all, to four digits.
fn rate(hits: u64, misses: u64) -> f64 {
    match hits + misses {
        0 => 0.0,
        all => (hits as f64 / all as f64 * 1e4).round() / 1e4,
    }
}
