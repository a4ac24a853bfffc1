//! The families of metrics that are read from the parts when they are asked for.

use std::sync::Arc;

use engine::memory::{Forecast, PoolStats};
use events::relay::RelayMeter;
use model::event::Backlog;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

use super::TierFigures;
use crate::service::{staleness::Staleness, write_behind::Lag};

/// What each pool holds in memory.
const POOL: &[(&str, &str)] = &[
    ("flyweight_pool_entities", "Entities in memory."),
    ("flyweight_pool_distinct", "Distinct shared states in memory."),
    ("flyweight_pool_bytes", "Bytes in memory."),
    ("flyweight_pool_saved_bytes", "Bytes that sharing saves."),
    ("flyweight_pool_evictions_total", "Entries that left to make room."),
];
/// What each tier was asked.
const TIER: &[(&str, &str)] = &[
    ("flyweight_tier_hits_total", "Reads that the tier answered."),
    ("flyweight_tier_misses_total", "Reads that the tier could not answer."),
    ("flyweight_tier_stale_total", "Reads answered beyond the time to live."),
    ("flyweight_tier_errors_total", "Keys of calls that failed."),
];
/// What the audits of a pool found.
const STALENESS: &[(&str, &str)] = &[
    ("flyweight_staleness_last_ms", "For how long the stalest answer of the last audit was out of date."),
    ("flyweight_staleness_worst_ms", "The same of all audits since the process began."),
    ("flyweight_staleness_bound_ms", "The most that the settings of the tiers allow."),
    ("flyweight_staleness_checked_total", "Answers that the audit compared with the store."),
    ("flyweight_staleness_behind_total", "Of these, the ones that the store knew better."),
];
/// What waits in the log before a store.
const WRITE_BEHIND: &[(&str, &str)] = &[
    ("flyweight_write_behind_waiting", "Keys whose acknowledged version is not in the store yet."),
    ("flyweight_write_behind_oldest_ms", "The age of the oldest of them."),
    ("flyweight_write_behind_settled_total", "Versions that the store was given."),
    ("flyweight_write_behind_coalesced_total", "Acknowledged versions that a newer one made needless."),
    ("flyweight_write_behind_conflicts_total", "Versions that the store knew better."),
];

/// The families.
pub(super) struct Gauges {
    pub(super) pool: Vec<(&'static str, IntGaugeVec)>,
    pub(super) tier: Vec<(&'static str, IntGaugeVec)>,
    pub(super) available: IntGaugeVec,
    pub(super) policy_hit_ratio: GaugeVec,
    pub(super) staleness: Vec<(&'static str, IntGaugeVec)>,
    pub(super) write_behind: Vec<(&'static str, IntGaugeVec)>,
    pub(super) unreadable: IntGaugeVec,
    pub(super) backlog: IntGaugeVec,
    pub(super) oldest_ms: IntGaugeVec,
    pub(super) published: IntGaugeVec,
    pub(super) relay_failures: IntGaugeVec,
    pub(super) reachable: IntGaugeVec,
    pub(super) storage_full: IntGaugeVec,
    pub(super) secret_in_use: IntGaugeVec,
    pub(super) secret_rotations: IntGaugeVec,
    pub(super) inexact: IntGaugeVec,
    pub(super) refused_connections: IntGaugeVec,
    pub(super) held: IntGaugeVec,
    pub(super) held_max: IntGaugeVec,
}

impl Gauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, labels: &[&str]| {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let all = |table: &'static [(&'static str, &'static str)], labels: &[&str]| {
            let each = table.iter().map(|(name, help)| Ok((*name, family(name, help, labels)?)));
            each.collect::<Result<Vec<_>, prometheus::Error>>()
        };
        Ok(Self {
            pool: all(POOL, &["pool"])?,
            tier: all(TIER, &["pool", "tier"])?,
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
            staleness: all(STALENESS, &["pool"])?,
            write_behind: all(WRITE_BEHIND, &["pool"])?,
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

    pub(super) fn set_pool(&self, pool: &str, figures: &PoolStats) {
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

    pub(super) fn set_lag(&self, pool: &str, lag: &Lag) {
        let values = [lag.waiting, lag.oldest_ms, lag.settled, lag.coalesced, lag.conflicts];
        for ((_, gauge), value) in self.write_behind.iter().zip(values) {
            gauge.with_label_values(&[pool]).set(value.cast_signed());
        }
    }

    pub(super) fn set_staleness(&self, pool: &str, seen: &Staleness) {
        let values = [seen.last_ms, seen.worst_ms, seen.bound_ms, seen.checked, seen.behind];
        for ((_, gauge), value) in self.staleness.iter().zip(values) {
            gauge.with_label_values(&[pool]).set(value.cast_signed());
        }
    }

    pub(super) fn set_tier(&self, pool: &str, tier: &str, figures: &TierFigures) {
        let values = [figures.hits, figures.misses, figures.stale, figures.errors];
        for ((_, gauge), value) in self.tier.iter().zip(values) {
            gauge.with_label_values(&[pool, tier]).set(value as i64);
        }
    }

    pub(super) fn set_forecasts(&self, pool: &str, forecasts: &[(Arc<str>, Forecast)]) {
        for (tier, forecast) in forecasts {
            for estimate in &forecast.policies {
                let policy = format!("{:?}", estimate.policy).to_uppercase();
                self.policy_hit_ratio
                    .with_label_values(&[pool, tier, policy.as_str()])
                    .set(estimate.hit_ratio);
            }
        }
    }

    pub(super) fn set_relay(&self, backend: &str, meter: &RelayMeter) {
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
