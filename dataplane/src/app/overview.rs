//! What the dashboard shows: the figures of this process, as counters that only grow wherever a rate is
//! wanted.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    figures::{memory_figures, tiers},
    monitor::Checks,
    pools::ServedPool,
};
use crate::{
    config::Loaded,
    http::{health::overall, live::Live, metrics::BOUNDS_S},
};
use events::relay::RelayMeter;

/// Reads the figures.
pub struct Overview {
    process: Uuid,
    started: Instant,
    parts: OverviewParts,
}

/// What they are read from.
pub struct OverviewParts {
    /// The pools.
    pub pools: Arc<Vec<ServedPool>>,
    /// The relays, by the backends of their outboxes.
    pub relays: BTreeMap<String, Arc<RelayMeter>>,
    /// The newest checks.
    pub checks: Checks,
    /// The settings.
    pub settings: watch::Receiver<Arc<Loaded>>,
    /// The live feed.
    pub live: Arc<Live>,
}

impl Overview {
    /// Figures from these parts.
    pub fn new(parts: OverviewParts) -> Self {
        Self { process: Uuid::now_v7(), started: Instant::now(), parts }
    }

    /// The figures now.
    pub fn read(&self) -> Value {
        let OverviewParts { pools, relays, checks, settings, live } = &self.parts;
        let outbox = |(backend, meter): (&String, &Arc<RelayMeter>)| {
            let figures = meter.figures();
            let backlog = figures.backlog.as_ref();
            json!({
                "backend": backend,
                // null until it was measured
                "backlog": backlog.map(|backlog| backlog.events),
                "oldest_ms": backlog.map(|backlog| backlog.oldest_ms),
                "published": figures.published,
            })
        };
        let figures = live.figures();
        let checks = checks.borrow().clone();
        json!({
            "process": self.process,
            "service": settings.borrow().settings.service,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": self.started.elapsed().as_secs(),
            "status": overall(checks.values()),
            "checks": checks,
            "bounds_s": BOUNDS_S,
            "pools": pools.iter().map(pool).collect::<Vec<_>>(),
            "outboxes": relays.iter().map(outbox).collect::<Vec<_>>(),
            "live": {
                "connections": figures.connections, "sent": figures.sent,
                "refused": figures.refused, "resyncs": figures.resyncs,
            },
        })
    }
}

fn pool(pool: &ServedPool) -> Value {
    let memory = memory_figures(pool);
    let tiers = tiers(pool).into_iter().map(|(name, figures)| {
        json!({ "name": name, "hits": figures.hits, "misses": figures.misses, "entries": figures.entries })
    });
    let operations = pool.resource.metrics().figures().into_iter().map(|figures| {
        json!({
            "operation": figures.operation, "requests": figures.requests,
            "errors": figures.errors, "buckets": figures.buckets,
        })
    });
    json!({
        "name": pool.name,
        "entity": pool.entity,
        "path": pool.resource.path,
        "entities": memory.entities,
        "distinct": memory.distinct,
        "shared": memory.shared,
        "bytes": memory.bytes,
        "bytes_saved": memory.bytes_saved,
        "evictions": memory.evictions,
        "tiers": tiers.collect::<Vec<_>>(),
        "operations": operations.collect::<Vec<_>>(),
    })
}
