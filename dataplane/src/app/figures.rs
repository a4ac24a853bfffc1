//! What the process has counted: for Prometheus, for the operator, and for `/health`.

use std::{collections::BTreeMap, sync::Arc};

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry, proto::MetricFamily};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{load::Load, monitor::Checks, pools::ServedPool, rotation::Secrets};
use crate::{
    config::Loaded,
    http::{
        health::{Condition, Unavailable},
        metrics::RequestFigures,
    },
    server::places,
    service::{
        factory::{Factory, FactoryPool},
        staleness::Staleness,
        write_behind::Lag,
    },
};
use engine::memory::{Forecast, PoolStats};
use events::relay::RelayMeter;
use model::{budget::Budgets, event::Backlog, strict};

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
    gauges: Gauges,
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

struct Gauges {
    pool: Vec<(&'static str, IntGaugeVec)>,
    tier: Vec<(&'static str, IntGaugeVec)>,
    available: IntGaugeVec,
    policy_hit_ratio: GaugeVec,
    staleness: Vec<(&'static str, IntGaugeVec)>,
    write_behind: Vec<(&'static str, IntGaugeVec)>,
    unreadable: IntGaugeVec,
    backlog: IntGaugeVec,
    oldest_ms: IntGaugeVec,
    published: IntGaugeVec,
    relay_failures: IntGaugeVec,
    reachable: IntGaugeVec,
    storage_full: IntGaugeVec,
    secret_in_use: IntGaugeVec,
    secret_rotations: IntGaugeVec,
    inexact: IntGaugeVec,
    refused_connections: IntGaugeVec,
    held: IntGaugeVec,
    held_max: IntGaugeVec,
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
        let gauges = Gauges::new(&registry)?;
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
        let unavailable = (self.unavailable)();
        for pool in self.pools.iter() {
            let available = i64::from(!unavailable.contains_key(&pool.name));
            self.gauges.available.with_label_values(&[&pool.name]).set(available);
            for (tier, figures) in tiers(pool) {
                self.gauges.set_tier(&pool.name, &tier, &figures);
            }
            self.gauges.set_pool(&pool.name, &memory_figures(pool));
            self.gauges.set_forecasts(&pool.name, &pool.tiered.forecasts());
            for field in pool.resource.records.inexact_columns() {
                self.gauges.inexact.with_label_values(&[&*pool.name, field]).set(1);
            }
            let unreadable = pool.resource.records.oddities().count();
            self.gauges.unreadable.with_label_values(&[&pool.name]).set(unreadable.cast_signed());
        }
        for (name, pool) in self.factory.pools() {
            self.gauges.set_staleness(name, &pool.audit.seen());
            if let Some(lag) = pool.lag() {
                self.gauges.set_lag(name, &lag);
            }
        }
        for (backend, meter) in &self.relays {
            self.gauges.set_relay(backend, meter);
        }
        for (backend, check) in self.checks.borrow().iter() {
            let gauges = &self.gauges;
            gauges
                .reachable
                .with_label_values(&[backend])
                .set(i64::from(check.status != Condition::Unhealthy));
            gauges.storage_full.with_label_values(&[backend]).set(i64::from(check.is_full));
        }
        for (secret, state) in self.secrets.borrow().iter() {
            self.gauges.secret_in_use.with_label_values(&[secret]).set(i64::from(state.problem.is_none()));
            self.gauges.secret_rotations.with_label_values(&[secret]).set(state.rotations.cast_signed());
        }
        self.gauges
            .refused_connections
            .with_label_values(&[] as &[&str])
            .set(places::refused().cast_signed());
        for (of, budget) in [("answers", &self.budgets.answers), ("bodies", &self.budgets.bodies)] {
            self.gauges.held.with_label_values(&[of]).set(budget.used().cast_signed());
            self.gauges.held_max.with_label_values(&[of]).set(budget.capacity().cast_signed());
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

impl Gauges {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, labels: &[&str]| {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let pool = |name: &'static str, help: &str| {
            Ok::<_, prometheus::Error>((name, family(name, help, &["pool"])?))
        };
        let tier = |name: &'static str, help: &str| {
            Ok::<_, prometheus::Error>((name, family(name, help, &["pool", "tier"])?))
        };
        Ok(Self {
            pool: vec![
                pool("flyweight_pool_entities", "Entities in memory.")?,
                pool("flyweight_pool_distinct", "Distinct shared states in memory.")?,
                pool("flyweight_pool_bytes", "Bytes in memory.")?,
                pool("flyweight_pool_saved_bytes", "Bytes that sharing saves.")?,
                pool("flyweight_pool_evictions_total", "Entries that left to make room.")?,
            ],
            tier: vec![
                tier("flyweight_tier_hits_total", "Reads that the tier answered.")?,
                tier("flyweight_tier_misses_total", "Reads that the tier could not answer.")?,
                tier("flyweight_tier_stale_total", "Reads answered beyond the time to live.")?,
                tier("flyweight_tier_errors_total", "Keys of calls that failed.")?,
            ],
            available: family(
                "flyweight_pool_available",
                "Whether the pool's collection can be used; 0 while its requests are answered with 503.",
                &["pool"],
            )?,
            policy_hit_ratio: {
                let help = "The part of hits that each policy would have had lately in the room of a full tier, estimated from a sample of its keys.";
                let family = GaugeVec::new(
                    Opts::new("flyweight_tier_policy_hit_ratio", help),
                    &["pool", "tier", "policy"],
                )?;
                registry.register(Box::new(family.clone()))?;
                family
            },
            staleness: vec![
                pool(
                    "flyweight_staleness_last_ms",
                    "For how long the stalest answer of the last audit was out of date.",
                )?,
                pool("flyweight_staleness_worst_ms", "The same of all audits since the process began.")?,
                pool("flyweight_staleness_bound_ms", "The most that the settings of the tiers allow.")?,
                pool("flyweight_staleness_checked_total", "Answers that the audit compared with the store.")?,
                pool("flyweight_staleness_behind_total", "Of these, the ones that the store knew better.")?,
            ],
            write_behind: vec![
                pool(
                    "flyweight_write_behind_waiting",
                    "Keys whose acknowledged version is not in the store yet.",
                )?,
                pool("flyweight_write_behind_oldest_ms", "The age of the oldest of them.")?,
                pool("flyweight_write_behind_settled_total", "Versions that the store was given.")?,
                pool(
                    "flyweight_write_behind_coalesced_total",
                    "Acknowledged versions that a newer one made needless.",
                )?,
                pool("flyweight_write_behind_conflicts_total", "Versions that the store knew better.")?,
            ],
            unreadable: family(
                "flyweight_unreadable_records",
                "Stored records that are known here to hold something without an exact meaning.",
                &["pool"],
            )?,
            backlog: family(
                "flyweight_outbox_backlog",
                "Committed events that are not yet published.",
                &["backend"],
            )?,
            oldest_ms: family("flyweight_outbox_oldest_ms", "The age of the oldest of them.", &["backend"])?,
            published: family("flyweight_relay_published_total", "Events published.", &["backend"])?,
            relay_failures: family(
                "flyweight_relay_failures_total",
                "Failed steps of the relay.",
                &["backend"],
            )?,
            storage_full: family(
                "flyweight_backend_storage_full",
                "Whether the backend has no room left: writes are answered with 507, reads go on.",
                &["backend"],
            )?,
            reachable: family("flyweight_backend_reachable", "Whether the backend answers.", &["backend"])?,
            secret_in_use: family(
                "flyweight_secret_in_use",
                "Whether the mounted content of the Secret is in use; 0 while it cannot be, and the former content is.",
                &["secret"],
            )?,
            secret_rotations: family(
                "flyweight_secret_rotations_total",
                "Contents of the Secret that were taken over while the process ran.",
                &["secret"],
            )?,
            refused_connections: family(
                "flyweight_refused_connections_total",
                "Connections refused because their address had as many as were free.",
                &[],
            )?,
            held: family(
                "flyweight_held_bytes",
                "Bytes that answers under way, or the bodies of requests, hold in memory.",
                &["of"],
            )?,
            held_max: family("flyweight_held_bytes_max", "The most that they may hold.", &["of"])?,
            inexact: family(
                "flyweight_pool_inexact_numbers",
                "1 where a number beyond 2^53 was read in the field, which goes out as a JSON number: it wants `json: String`.",
                &["pool", "field"],
            )?,
        })
    }

    fn set_pool(&self, pool: &str, figures: &PoolStats) {
        let values = [
            figures.entities as i64,
            figures.distinct as i64,
            figures.bytes as i64,
            figures.bytes_saved,
            figures.evictions as i64,
        ];
        for ((_, gauge), value) in self.pool.iter().zip(values) {
            gauge.with_label_values(&[pool]).set(value);
        }
    }

    fn set_lag(&self, pool: &str, lag: &Lag) {
        let values = [lag.waiting, lag.oldest_ms, lag.settled, lag.coalesced, lag.conflicts];
        for ((_, gauge), value) in self.write_behind.iter().zip(values) {
            gauge.with_label_values(&[pool]).set(value.cast_signed());
        }
    }

    fn set_staleness(&self, pool: &str, seen: &Staleness) {
        let values = [seen.last_ms, seen.worst_ms, seen.bound_ms, seen.checked, seen.behind];
        for ((_, gauge), value) in self.staleness.iter().zip(values) {
            gauge.with_label_values(&[pool]).set(value.cast_signed());
        }
    }

    fn set_tier(&self, pool: &str, tier: &str, figures: &TierFigures) {
        let values = [figures.hits, figures.misses, figures.stale, figures.errors];
        for ((_, gauge), value) in self.tier.iter().zip(values) {
            gauge.with_label_values(&[pool, tier]).set(value as i64);
        }
    }

    fn set_forecasts(&self, pool: &str, forecasts: &[(Arc<str>, Forecast)]) {
        for (tier, forecast) in forecasts {
            for estimate in &forecast.policies {
                let policy = format!("{:?}", estimate.policy).to_uppercase();
                self.policy_hit_ratio
                    .with_label_values(&[pool, tier, policy.as_str()])
                    .set(estimate.hit_ratio);
            }
        }
    }

    fn set_relay(&self, backend: &str, meter: &RelayMeter) {
        let figures = meter.figures();
        // until it is known there is no such figure: zero would be a claim
        if let Some(Backlog { events, oldest_ms }) = figures.backlog {
            self.backlog.with_label_values(&[backend]).set(events as i64);
            self.oldest_ms.with_label_values(&[backend]).set(oldest_ms as i64);
        }
        self.published.with_label_values(&[backend]).set(figures.published as i64);
        self.relay_failures.with_label_values(&[backend]).set(figures.failures as i64);
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
