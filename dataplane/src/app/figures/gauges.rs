//! The families of metrics that are read from the parts when they are asked for.

use std::sync::Arc;

use engine::memory::{Forecast, PoolStats};
use events::relay::RelayMeter;
use model::event::Backlog;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

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
    (
        "flyweight_staleness_last_seconds",
        "For how many seconds the stalest answer of the last audit was out of date.",
    ),
    ("flyweight_staleness_worst_seconds", "The same of all audits since the process began, in seconds."),
    ("flyweight_staleness_bound_seconds", "The most that the settings of the tiers allow, in seconds."),
    ("flyweight_staleness_checked_total", "Answers that the audit compared with the store."),
    ("flyweight_staleness_behind_total", "Of these, the ones that the store knew better."),
];
/// What waits in the log before a store.
const WRITE_BEHIND: &[(&str, &str)] = &[
    ("flyweight_write_behind_waiting", "Keys whose acknowledged version is not in the store yet."),
    ("flyweight_write_behind_oldest_seconds", "The age of the oldest of them, in seconds."),
    ("flyweight_write_behind_settled_total", "Versions that the store was given."),
    ("flyweight_write_behind_coalesced_total", "Acknowledged versions that a newer one made needless."),
    ("flyweight_write_behind_conflicts_total", "Versions that the store knew better."),
];

/// A family whose figures are counted elsewhere. What only grows is a counter, and its name says so.
pub(in crate::app) enum Family {
    /// A figure of now.
    Gauge(GaugeVec),
    /// A figure that only grows.
    Counter(IntCounterVec),
}

impl Family {
    /// Registers a family.
    ///
    /// # Errors
    /// Another one has the same name.
    pub fn new(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(name, help);
        if name.ends_with("_total") {
            let counter = IntCounterVec::new(opts, labels)?;
            registry.register(Box::new(counter.clone()))?;
            return Ok(Self::Counter(counter));
        }
        let gauge = GaugeVec::new(opts, labels)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self::Gauge(gauge))
    }

    /// Takes what was counted over. One caller at a time.
    pub fn set(&self, labels: &[&str], value: f64) {
        match self {
            Self::Gauge(gauge) => gauge.with_label_values(labels).set(value),
            Self::Counter(counter) => {
                let counter = counter.with_label_values(labels);
                counter.inc_by((value as u64).saturating_sub(counter.get()));
            }
        }
    }
}

/// The families.
pub(super) struct Gauges {
    pub(super) pool: Vec<(&'static str, Family)>,
    pub(super) tier: Vec<(&'static str, Family)>,
    pub(super) available: Family,
    pub(super) policy_hit_ratio: Family,
    pub(super) staleness: Vec<(&'static str, Family)>,
    pub(super) write_behind: Vec<(&'static str, Family)>,
    pub(super) unreadable: Family,
    pub(super) backlog: Family,
    pub(super) oldest: Family,
    pub(super) published: Family,
    pub(super) relay_failures: Family,
    pub(super) reachable: Family,
    pub(super) storage_full: Family,
    pub(super) secret_in_use: Family,
    pub(super) secret_rotations: Family,
    pub(super) inexact: Family,
    pub(super) refused_connections: Family,
    pub(super) held: Family,
    pub(super) held_max: Family,
}

impl Gauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, labels: &[&str]| Family::new(registry, name, help, labels);
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
            policy_hit_ratio: family(
                "flyweight_tier_policy_hit_ratio",
                "The part of hits that each policy would have had lately in the room of a full tier, estimated from a sample of its keys.",
                &["pool", "tier", "policy"],
            )?,
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
            oldest: family(
                "flyweight_outbox_oldest_seconds",
                "The age of the oldest of them, in seconds.",
                &["backend"],
            )?,
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
            figures.entities as f64,
            figures.distinct as f64,
            figures.bytes as f64,
            figures.bytes_saved as f64,
            figures.evictions as f64,
        ];
        set_all(&self.pool, &[pool], values);
    }

    pub(super) fn set_lag(&self, pool: &str, lag: &Lag) {
        let oldest = seconds(lag.oldest_ms);
        let counted = [lag.settled, lag.coalesced, lag.conflicts].map(|count| count as f64);
        let [settled, coalesced, conflicts] = counted;
        set_all(&self.write_behind, &[pool], [lag.waiting as f64, oldest, settled, coalesced, conflicts]);
    }

    pub(super) fn set_staleness(&self, pool: &str, seen: &Staleness) {
        let [last, worst, bound] = [seen.last_ms, seen.worst_ms, seen.bound_ms].map(seconds);
        set_all(&self.staleness, &[pool], [last, worst, bound, seen.checked as f64, seen.behind as f64]);
    }

    pub(super) fn set_tier(&self, pool: &str, tier: &str, figures: &TierFigures) {
        let values = [figures.hits, figures.misses, figures.stale, figures.errors];
        set_all(&self.tier, &[pool, tier], values.map(|value| value as f64));
    }

    pub(super) fn set_forecasts(&self, pool: &str, forecasts: &[(Arc<str>, Forecast)]) {
        for (tier, forecast) in forecasts {
            for estimate in &forecast.policies {
                let policy = format!("{:?}", estimate.policy).to_uppercase();
                self.policy_hit_ratio.set(&[pool, tier, policy.as_str()], estimate.hit_ratio);
            }
        }
    }

    pub(super) fn set_relay(&self, backend: &str, meter: &RelayMeter) {
        let figures = meter.figures();
        // until it is known there is no such figure: zero would be a claim
        if let Some(Backlog { events, oldest_ms }) = figures.backlog {
            self.backlog.set(&[backend], events as f64);
            self.oldest.set(&[backend], seconds(oldest_ms));
        }
        self.published.set(&[backend], figures.published as f64);
        self.relay_failures.set(&[backend], figures.failures as f64);
    }
}

fn set_all<const N: usize>(families: &[(&str, Family)], labels: &[&str], values: [f64; N]) {
    for ((_, family), value) in families.iter().zip(values) {
        family.set(labels, value);
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
