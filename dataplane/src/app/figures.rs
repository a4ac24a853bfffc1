//! What the process has counted: for Prometheus, for the operator, and for `/health`.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use prometheus::{Registry, proto::MetricFamily};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::problem::Problem;
use super::{load::Load, monitor::Checks, pools::ServedPool, rotation::Secrets};
use crate::{
    config::Loaded,
    http::{
        health::{Condition, Unavailable},
        metrics::RequestFigures,
    },
    server::places,
    service::factory::{Factory, FactoryPool},
};
use engine::memory::PoolStats;
use events::relay::RelayMeter;
use model::{budget::Budgets, strict};

mod gauges;
mod problem;

use gauges::Gauges;

/// Reads the counters of all parts.
pub struct Figures {
    registry: Registry,
    pools: Arc<Vec<ServedPool>>,
    factory: Arc<Factory>,
    relays: BTreeMap<String, Arc<RelayMeter>>,
    checks: Checks,
    unready: watch::Receiver<Option<String>>,
    settings: watch::Receiver<Arc<Loaded>>,
    group: Option<String>,
    secrets: Secrets,
    load: Arc<Load>,
    unavailable: Unavailable,
    budgets: Budgets,
    /// One reader at a time brings them up to date.
    gauges: Mutex<Gauges>,
}

/// What figures are read from.
pub struct Parts {
    /// Where the metrics of requests are.
    pub registry: Registry,
    /// The pools.
    pub pools: Arc<Vec<ServedPool>>,
    /// The same, as they are managed.
    pub factory: Arc<Factory>,
    /// The relays, by the backends of their outboxes.
    pub relays: BTreeMap<String, Arc<RelayMeter>>,
    /// The newest checks.
    pub checks: Checks,
    /// Why the process is not ready.
    pub unready: watch::Receiver<Option<String>>,
    /// The settings.
    pub settings: watch::Receiver<Arc<Loaded>>,
    /// The replica group.
    pub group: Option<String>,
    /// What became of the mounted Secrets.
    pub secrets: Secrets,
    /// The load.
    pub load: Arc<Load>,
    /// The pools that are away.
    pub unavailable: Unavailable,
    /// What requests and answers hold.
    pub budgets: Budgets,
}

impl Figures {
    /// Registers the families.
    ///
    /// # Errors
    /// Another family has the same name.
    pub fn new(parts: Parts) -> Result<Self, prometheus::Error> {
        let Parts {
            registry,
            pools,
            factory,
            relays,
            checks,
            unready,
            settings,
            group,
            secrets,
            load,
            unavailable,
            budgets,
        } = parts;
        let gauges = Mutex::new(Gauges::new(&registry)?);
        Ok(Self {
            registry,
            pools,
            factory,
            relays,
            checks,
            unready,
            settings,
            group,
            secrets,
            load,
            unavailable,
            budgets,
            gauges,
        })
    }

    /// All metric families, brought up to date.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let gauges = self.gauges.lock();
        let unavailable = (self.unavailable)();
        for pool in self.pools.iter() {
            let name = &*pool.name;
            gauges.available.set(&[name], f64::from(u8::from(!unavailable.contains_key(name))));
            for (tier, figures) in tiers(pool) {
                gauges.set_tier(name, &tier, &figures);
            }
            gauges.set_pool(name, &memory_figures(pool));
            gauges.set_forecasts(name, &pool.tiered.forecasts());
            for field in pool.resource.records.inexact_columns() {
                gauges.inexact.set(&[name, field], 1.0);
            }
            gauges.unreadable.set(&[name], pool.resource.records.oddities().count() as f64);
        }
        for (name, pool) in self.factory.pools() {
            gauges.set_staleness(name, &pool.audit.seen());
            if let Some(lag) = pool.lag() {
                gauges.set_lag(name, &lag);
            }
        }
        for (backend, meter) in &self.relays {
            gauges.set_relay(backend, meter);
        }
        for (backend, check) in self.checks.borrow().iter() {
            let reachable = check.status != Condition::Unhealthy;
            gauges.reachable.set(&[backend], f64::from(u8::from(reachable)));
            gauges.storage_full.set(&[backend], f64::from(u8::from(check.is_full)));
        }
        for (secret, state) in self.secrets.borrow().iter() {
            gauges.secret_in_use.set(&[secret], f64::from(u8::from(state.problem.is_none())));
            gauges.secret_rotations.set(&[secret], state.rotations as f64);
        }
        gauges.refused_connections.set(&[], places::refused() as f64);
        for (of, budget) in [("answers", &self.budgets.answers), ("bodies", &self.budgets.bodies)] {
            gauges.held.set(&[of], budget.used() as f64);
            gauges.held_max.set(&[of], budget.capacity() as f64);
        }
        self.registry.gather()
    }

    /// What the operator reads.
    pub fn status(&self) -> Value {
        let loaded = self.settings.borrow().clone();
        let backends: Vec<_> = {
            let checks = self.checks.borrow();
            let report = |(name, check): (&String, &crate::http::health::Check)| {
                json!({
                    "name": name,
                    "reachable": check.status != Condition::Unhealthy,
                    "problem": check.message.as_deref().filter(|_| check.status == Condition::Unhealthy).map(Problem::of),
                    "ownedBy": check.owned_by,
                    "storageFull": check.message.as_ref().filter(|_| check.is_full),
                    "durability": check.warnings,
                    "plaintextPassword": check.plaintext_password,
                })
            };
            checks.iter().map(report).collect()
        };
        json!({
            "service": loaded.settings.service,
            "group": self.group,
            "configuration": loaded.hash,
            "ready": self.unready.borrow().is_none(),
            "pools": self.pools.iter().map(|pool| self.pool_status(pool)).collect::<Vec<_>>(),
            "backends": backends,
            "requests": self.requests(),
            "secrets": self.secrets(),
            "load": self.load.status(),
        })
    }

    fn requests(&self) -> RequestFigures {
        let pools = self.pools.iter().map(|pool| pool.resource.metrics().total());
        pools.fold(RequestFigures::default(), |sum, pool| RequestFigures {
            total: sum.total + pool.total,
            errors: sum.errors + pool.errors,
            refused: sum.refused + pool.refused,
            seconds: sum.seconds + pool.seconds,
        })
    }

    fn secrets(&self) -> Value {
        let secrets = self.secrets.borrow();
        secrets
            .iter()
            .map(|(name, state)| {
                json!({ "name": name, "rotations": state.rotations, "rotatedAt": state.rotated_at, "problem": state.problem })
            })
            .collect()
    }

    /// The figures of the pools, for `/health`.
    pub fn factory(&self) -> Value {
        let pools = self.pools.iter().map(|pool| {
            let figures = memory_figures(pool);
            let figures = json!({
                "entities": figures.entities, "flyweights": figures.distinct, "shared": figures.shared,
                "unshared": figures.unshared, "bytes": figures.bytes, "bytes_saved": figures.bytes_saved,
                "write_behind": self.factory.pool(&pool.name).and_then(FactoryPool::lag),
            });
            (pool.name.clone(), figures)
        });
        Value::Object(pools.collect())
    }

    fn pool_status(&self, pool: &ServedPool) -> Value {
        let memory = memory_figures(pool);
        let managed = self.factory.pool(&pool.name);
        let staleness = managed.map(|pool| pool.audit.seen()).unwrap_or_default();
        let tiers = tiers(pool);
        let hits: u64 = tiers.iter().map(|(_, figures)| figures.hits).sum();
        let misses = tiers.last().map_or(0, |(_, figures)| figures.misses);
        // The outbox is the store's: its backlog is shown with the first pool of that store, so that sums are
        // right.
        let first = self.pools.iter().find(|other| other.backend == pool.backend);
        let relay = self.relays.get(&pool.backend);
        let outbox = relay.and_then(|meter| meter.figures().backlog);
        let backlog = match &outbox {
            Some(outbox) if first.is_some_and(|first| first.name == pool.name) => outbox.events,
            _ => 0,
        };
        let tiers: Vec<_> = tiers
            .iter()
            .map(|(name, figures)| {
                json!({ "name": name, "hits": figures.hits, "misses": figures.misses, "entries": figures.entries })
            })
            .collect();
        let oddities = pool.resource.records.oddities();
        json!({
            "name": pool.name,
            "entities": memory.entities,
            "distinct": memory.distinct,
            "bytes": memory.bytes,
            "bytesSaved": memory.bytes_saved.max(0),
            "hits": hits,
            "misses": misses,
            "backlog": backlog,
            "backlogUnknown": relay.is_some() && outbox.is_none(),
            "stalenessMs": outbox.map_or(0, |outbox| outbox.oldest_ms).max(staleness.last_ms),
            "stalenessBoundMs": staleness.bound_ms,
            "unavailable": (self.unavailable)().get(&pool.name),
            "unreadable": oddities.count(),
            "unreadableExample": oddities.example().map(|named| {
                json!({ "key": named.key.map(|key| strict::shorten(&key)), "field": named.field })
            }),
            "warmUp": managed.map(FactoryPool::warmed),
            "inexactNumbers": pool.resource.records.inexact_columns(),
            "tiers": tiers,
        })
    }
}

/// What one tier did for one pool.
pub(super) struct TierFigures {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) stale: u64,
    pub(super) errors: u64,
    pub(super) entries: u64,
}

/// The tiers of a pool, in order.
pub(super) fn tiers(pool: &ServedPool) -> Vec<(String, TierFigures)> {
    let entries = |name: &str| {
        let tier = pool.memory.iter().find(|(tier, ..)| tier == name);
        tier.map_or(0, |(_, tier, id)| tier.stats(*id).entities)
    };
    let figures = pool.tiered.stats().tiers.into_iter().map(|tier| {
        let entries = entries(&tier.name);
        let figures = TierFigures {
            hits: tier.hits,
            misses: tier.misses,
            stale: tier.stale_served,
            errors: tier.errors,
            entries,
        };
        (tier.name, figures)
    });
    figures.collect()
}

/// The pool's figures, summed over its tiers in memory.
pub(super) fn memory_figures(pool: &ServedPool) -> PoolStats {
    let mut sum = PoolStats::default();
    for (_, tier, id) in &pool.memory {
        let figures = tier.stats(*id);
        sum.entities += figures.entities;
        sum.distinct += figures.distinct;
        sum.shared += figures.shared;
        sum.unshared += figures.unshared;
        sum.bytes += figures.bytes;
        sum.bytes_saved += figures.bytes_saved;
        sum.evictions += figures.evictions;
    }
    sum
}
