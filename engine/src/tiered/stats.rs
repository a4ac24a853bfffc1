//! What the tiers of a pool did, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::shared::{SharedError, SharedStatus};

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

/// The counters of one tier.
#[derive(Debug, Default)]
pub(super) struct TierCounters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) stale_served: Counter,
    pub(super) fenced: Counter,
    pub(super) errors: Counter,
    pub(super) skipped: Counter,
}

/// The counters of one pool.
#[derive(Debug, Default)]
pub(super) struct PoolCounters {
    pub(super) loads: Counter,
    pub(super) load_errors: Counter,
    pub(super) coalesced: Counter,
    pub(super) awaited: Counter,
    pub(super) superseded: Counter,
    pub(super) not_yet: Counter,
}

/// The figures of a pool's tiers, since the process began.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TieredStats {
    /// The tiers, in order.
    pub tiers: Vec<TierStats>,
    /// Records that were asked from the store.
    pub loads: u64,
    /// Of these, the ones that failed.
    pub load_errors: u64,
    /// Reads that waited for another read's load.
    pub coalesced: u64,
    /// Records that another replica loaded while this one waited.
    pub awaited: u64,
    /// Loads that filled no tier, because a write came while they were under way.
    #[serde(rename = "overtaken")]
    pub superseded: u64,
    /// Reads that were refused because the store does not have the version asked for.
    pub not_yet: u64,
}

/// The figures of one tier, since the process began.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierStats {
    /// Its name.
    pub name: String,
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it could not answer.
    pub misses: u64,
    /// Of the hits, the ones with a stale entry.
    pub stale_served: u64,
    /// Writes and events that kept older versions out.
    pub fenced: u64,
    /// Keys that it was asked for or told of in calls that failed.
    pub errors: u64,
    /// Keys that it was not asked for or told of, because its breaker is open.
    pub skipped: u64,
    /// Keys of which a shared tier is yet to be told.
    #[serde(rename = "owed")]
    pub waiting: u64,
    /// How a shared tier does; none for one in memory.
    pub shared: Option<SharedStatus>,
}

impl Counter {
    /// Adds one.
    pub(super) fn inc(&self) {
        self.add(1);
    }

    /// Adds some.
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The number.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TierCounters {
    /// Counts a failed call for some keys.
    pub(super) fn failed(&self, error: &SharedError, keys: usize) {
        match error {
            SharedError::BreakerOpen => self.skipped.add(keys),
            SharedError::TimedOut | SharedError::Failed(_) => self.errors.add(keys),
        }
    }

    pub(super) fn snapshot(&self, name: &str, waiting: usize, shared: Option<SharedStatus>) -> TierStats {
        let Self { hits, misses, stale_served, fenced, errors, skipped } = self;
        TierStats {
            name: name.to_owned(),
            hits: hits.get(),
            misses: misses.get(),
            stale_served: stale_served.get(),
            fenced: fenced.get(),
            errors: errors.get(),
            skipped: skipped.get(),
            waiting: waiting as u64,
            shared,
        }
    }
}

impl PoolCounters {
    pub(super) fn snapshot(&self, tiers: Vec<TierStats>) -> TieredStats {
        let Self { loads, load_errors, coalesced, awaited, superseded, not_yet } = self;
        TieredStats {
            tiers,
            loads: loads.get(),
            load_errors: load_errors.get(),
            coalesced: coalesced.get(),
            awaited: awaited.get(),
            superseded: superseded.get(),
            not_yet: not_yet.get(),
        }
    }
}
